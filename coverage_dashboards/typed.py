"""What stands in a text field, and when it is heard."""

from __future__ import annotations

from typing import Any

import panel_material_ui as pmui


def typed(field: pmui.TextInput) -> str:
    """What was typed so far, sent or not; an emptied field is empty, and not what it held before."""
    return str(field.value_input if field.value_input is not None else field.value or "")


def retype(field: pmui.TextInput, text: str) -> None:
    """Set a field, and what counts as typed into it."""
    field.param.update(value=text, value_input=text)


def at_once(*widgets: Any) -> None:
    """Hear what is chosen or typed at once. Panel waits 50 ms for more changes of a widget, and hears of a button or of Enter before that:
    who types and presses Enter quickly would be answered for what stood there before.
    """
    for widget in widgets:
        widget._debounce = 0
