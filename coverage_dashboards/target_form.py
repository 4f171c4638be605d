"""Save the area that is open as a target, or remove one that was saved so."""

from __future__ import annotations

from typing import Any

import panel as pn
import panel_material_ui as pmui
import shapely

from coverage_dashboards.acts import remove_area, save_area
from coverage_dashboards.desk import Desk
from coverage_dashboards.gazetteer import Found
from coverage_dashboards.planning import planning
from coverage_dashboards.typed import at_once, retype, typed
from coverage_pipeline.demand.saved_targets import LONGEST_GROUP, LONGEST_NAME, PREFIX

_SAVE, _REMOVE, _SURE = "Save as a target", "Remove this target", "Remove it for everybody?"


class TargetForm:
    """A button in the place panel, and the fields that it opens."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        small: dict[str, Any] = {"size": "small", "margin": 4}
        self.open = pmui.Button(label=_SAVE, icon="add_location", variant="text", **small)
        self.open.on_click(lambda _: self._open())
        self.remove = pmui.Button(label=_REMOVE, icon="delete", variant="text", color="danger", **small)
        self.remove.on_click(lambda _: self._remove())
        self.name = pmui.TextInput(label="Name of the target", width=220, max_length=LONGEST_NAME, **small)
        self.group = pmui.TextInput(label="Group (optional)", width=180, max_length=LONGEST_GROUP, **small)
        self.desired = pmui.TextInput(label="Clear observations a month", placeholder="the sensor's own", width=220, max_length=6, **small)
        at_once(self.name, self.group, self.desired)
        save = pmui.Button(label="Save", variant="contained", **small)
        save.on_click(lambda _: self._save())
        leave = pmui.Button(label="Cancel", variant="text", **small)
        leave.on_click(lambda _: self._shut())
        self.fields = pn.Row(self.name, self.group, self.desired, save, leave, visible=False, margin=0, stylesheets=[_FIELDS])
        self.view = pn.Column(self.open, self.remove, self.fields, margin=0, sizing_mode="stretch_width", css_classes=["target-form"])
        self.offer(None)

    def offer(self, found: Found | None) -> None:
        """Offer what can be done with the place that is open now."""
        self.open.visible = found is not None and found.kind == "area"
        self.remove.param.update(visible=found is not None and _saved_id(found) is not None, label=_REMOVE)
        self.fields.visible = False

    def _open(self) -> None:
        for field in (self.name, self.group, self.desired):
            retype(field, "")
        self.open.visible, self.fields.visible = False, True

    def _shut(self) -> None:
        self.offer(self.desk.found)

    def _save(self) -> None:
        desk, found = self.desk, self.desk.found
        name, group, wanted = typed(self.name), typed(self.group), typed(self.desired)
        if found is None:
            return
        outline: shapely.Geometry = found.outline
        desk.background.run(
            "target",
            lambda: save_area(planning(), outline, desk.person, name, group, wanted),
            lambda key: self._saved(name, key),
            self._refused,
        )

    def _saved(self, name: str, key: str) -> None:
        self._shut()
        self.desk.tell(f"{name.strip()} is saved as target {key}. It is counted from the next build on.", "success")

    def _remove(self) -> None:
        desk, key = self.desk, None if self.desk.found is None else _saved_id(self.desk.found)
        if key is None:
            return
        if self.remove.label != _SURE:  # what others count on does not go by one click
            self.remove.label = _SURE
            return
        desk.background.run("target", lambda: remove_area(planning(), key, desk.person), lambda _: self._removed(key), self._refused)

    def _removed(self, key: str) -> None:
        self.remove.visible = False
        self.desk.tell(f"Target {key} is removed. What is built already counts it until the next build.", "success")

    def _refused(self, text: str) -> None:
        self.remove.label = _REMOVE
        self.desk.tell(text, "error")


def _saved_id(found: Found) -> str | None:
    """Id of a target that was saved on the page; None for any other place."""
    key = found.text.removeprefix("target:")
    return key if found.kind == "target" and key.startswith(PREFIX) else None


_FIELDS = ":host { flex-wrap: wrap; align-items: center; }"
