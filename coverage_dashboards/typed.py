"""What stands in a text field."""

from __future__ import annotations

import panel_material_ui as pmui


def typed(field: pmui.TextInput) -> str:
    """What was typed so far, sent or not; an emptied field is empty, and not what it held before."""
    return str(field.value_input if field.value_input is not None else field.value or "")


def retype(field: pmui.TextInput, text: str) -> None:
    """Set a field, and what counts as typed into it."""
    field.param.update(value=text, value_input=text)
