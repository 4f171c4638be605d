"""The room of the map: caption, map, place panel and legend."""

from __future__ import annotations

from typing import Any

import panel as pn
import panel_material_ui as pmui
import shapely

from coverage_dashboards import words
from coverage_dashboards.choices import LAYER_TITLES
from coverage_dashboards.desk import Desk
from coverage_dashboards.doubts import doubts_in_words, provisional_partitions
from coverage_dashboards.fields import CHANGE, Field, Limits, extent_of
from coverage_dashboards.gazetteer import Found, NoSuchPlace, cell_at
from coverage_dashboards.place_panel import PlacePanel
from coverage_dashboards.planning import planning
from coverage_dashboards.worldmap import Shown, WorldMap, op_of
from coverage_pipeline.cube.dataset import grid_of
from coverage_pipeline.cube.schema import METRICS
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.store import Store

_PIXELS = {
    "mean": "zoomed out, a pixel shows the mean of its cells",
    "max": "zoomed out, a pixel shows the highest of its cells",
    "urgent": "",
    "min": "",
}
NARROW = 900
"""Pixels: on a narrower page the place panel stands below the map."""


def store_at_hand() -> Store | None:
    """Where the settings say that the scan reports are; None where they are wrong, which the page says elsewhere."""
    try:
        return planning().store
    except SettingsError:
        return None


class MapRoom:
    """The map of one planner and what stands beside it."""

    def __init__(self, desk: Desk, moved: Any, closed: Any) -> None:
        self.desk, self._moved = desk, moved
        self._drawn: tuple[Field, Limits] | None = None
        self._problem: str | None = None
        self._found: Found | None = None
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.map = WorldMap(extent=extent_of(desk.cube), on_tap=self._tapped, on_view=moved)
        self.panel = PlacePanel(self._point, closed, lambda: desk.open_room("known"))
        self.caption = pn.pane.HTML("", css_classes=["caption"], margin=(0, 2, 8, 2), styles={"font-size": "16px"}, **wide)
        self.doubts = pn.pane.HTML(
            "", css_classes=["doubts"], visible=False, margin=(0, 2, 8, 2),
            styles={"font-size": "14px", "flex": "none"}, **wide,
        )  # fmt: skip
        self.said = pn.pane.HTML("", margin=0, styles={"font-size": "15px"}, **wide)
        self.message = pmui.Alert(self.said, severity="info", visible=False, margin=(20, 0, 20, 0), **wide)
        figure = pn.pane.HoloViews(self.map.plot, sizing_mode="stretch_both", margin=0)
        self.busy = pn.pane.HTML("<div role='status'>Working …</div>", visible=False, css_classes=["busy"], stylesheets=[_BUSY])
        # The map takes what caption and legend leave, and never pushes the legend off the page.
        self.canvas = pn.Column(
            figure, self._buttons(), self.busy, sizing_mode="stretch_both", stylesheets=[_CANVAS],
            styles={"flex": "1 1 0", "min-height": "260px", "overflow": "hidden", "position": "relative"},
        )  # fmt: skip
        self.panel.view.stylesheets = [_PANEL]
        beside = pn.Row(self.canvas, self.panel.view, sizing_mode="stretch_both", stylesheets=[_BESIDE], margin=0)
        self.legend = pn.pane.HTML("", css_classes=["legend"], margin=(8, 2, 0, 2), stylesheets=[_LEGEND], **wide)
        self.view = pn.Column(
            self.caption, self.doubts, self.message, beside, self.legend, sizing_mode="stretch_both", margin=0, stylesheets=[_ROOM]
        )

    def _buttons(self) -> pn.Column:
        """Zoom by pointer or keyboard."""
        buttons = []
        for icon, title, press in (
            ("add", "Zoom in", lambda _: self.map.zoom(0.5)),
            ("remove", "Zoom out", lambda _: self.map.zoom(2.0)),
            ("public", "Show everything", lambda _: self.map.home()),
        ):
            button = pmui.IconButton(
                icon=icon,
                description=title,
                size="small",
                margin=2,
                width=36,
                variant="contained",
                sx={"backgroundColor": "background.paper"},
            )
            button.on_click(press)
            button.on_click(lambda _: self._moved())
            buttons.append(button)
        return pn.Column(*buttons, margin=0, width=44, css_classes=["zoom"], styles={"position": "absolute", "top": "8px", "left": "8px"})

    # --- the map

    def working(self) -> None:
        """Say that what is shown is not yet what was asked for."""
        self.canvas.css_classes = ["working"]
        self.busy.visible = True

    def follow_cube(self) -> None:
        """Look at another cube's place."""
        self.map.look_at(extent_of(self.desk.cube))

    def draw(self, drawn: tuple[Field, Limits] | None, problem: str | None, severity: str) -> None:
        """Show a field, or say why there is none."""
        self.canvas.css_classes = []
        self.busy.visible = False
        self._drawn, self._problem = drawn, problem
        self.message.severity = severity
        self.repaint()

    def repaint(self) -> None:
        """Show the same once more: in another theme, with what the doubts are now."""
        view, dark = self.desk.view, self.desk.dark
        self.said.object = words.paragraph(self._problem or "", dark)
        self.message.visible = self._problem is not None
        self._say_doubts(dark)
        self.legend.visible = self._drawn is not None
        # Where no sensor is chosen, coasts and view stay for the one that will be.
        self.canvas.visible = self._drawn is not None or self.message.severity != "error"
        if self._drawn is None:
            self.map.show(None)
            self.caption.object = words.paragraph(f"{LAYER_TITLES[view.layer]} · {METRICS[view.metric].title}", dark)
            return
        field, limits = self._drawn
        attrs = self.desk.cube.ds.attrs
        snapshot = attrs.get("catalog_snapshot")
        if field.metric == CHANGE:
            text = words.change_caption(view.sensors[0], view.last.shift(-1), view.last, field)
        else:
            text = words.caption(view, field)
        if view.layer != "acquired":
            text += f" · catalogue as of {snapshot}" if snapshot else " · catalogue not asked yet"
        self.caption.object = words.paragraph(text, dark)
        pixels = _PIXELS[op_of(field.metric)]
        self.legend.object = words.legend(field, limits, pixels, words.lookback_months(attrs), dark)
        self.map.show(Shown(field, limits, dark))

    def _say_doubts(self, dark: bool) -> None:
        """Name the doubts of the provisional months that are shown; what we hold does not depend on them."""
        view, ds = self.desk.view, self.desk.cube.ds
        shown = self._drawn is not None and view.layer != "acquired"
        provisional = provisional_partitions(view, ds) if shown else []
        lines = doubts_in_words(provisional, ds, store_at_hand()) if provisional else []
        self.doubts.param.update(object=words.doubts(lines, dark) if lines else "", visible=bool(lines))

    # --- the place

    def _tapped(self, lon: float, lat: float) -> None:
        try:
            self.desk.open_place(cell_at(lon, lat, grid_of(self.desk.cube.ds)))
        except NoSuchPlace as nowhere:
            self.desk.tell(str(nowhere), "info")

    def _point(self, outline: shapely.Geometry | None) -> None:
        self.map.mark("scene", outline)

    def show_place(self, found: Found, *, move: bool) -> None:
        """Mark a place and tell what there is of it; ``move``: the map goes there."""
        self._found = found
        self.map.mark("place", found.outline)
        self.map.mark("scene", None)
        if move:
            self.map.go_to(tuple(shapely.bounds(found.outline)))
        self.refresh()

    def show_region(self, found: Found) -> None:
        """Mark something that is too large to be one place, and go there."""
        self.map.mark("place", found.outline)
        self.map.go_to(tuple(shapely.bounds(found.outline)))

    def close_place(self) -> None:
        """Show no place."""
        self._found = None
        self.desk.background.forget("place")
        self.map.mark("place", None)
        self.map.mark("scene", None)
        self.panel.close()

    def refresh(self) -> None:
        """Ask again what there is of the open place: sensors or window are others, or a build has ended."""
        found, desk = self._found, self.desk
        if found is None:
            return
        self.panel.wait(found, desk.dark)
        sensors, view, stamp = desk.sensors, desk.view, desk.stamp
        target = found.text.removeprefix("target:") if found.kind == "target" else ""
        desk.background.run(
            "place",
            lambda: planning().place(found.outline, sensors, view.first, view.last, stamp, target=target),
            lambda report: self.panel.show(found, report, self.desk.dark),
            lambda text: self.panel.fail(text, self.desk.dark),
        )


_ROOM = f"@media (max-width: {NARROW}px) {{ :host {{ height: auto !important; }} }}"
_BUSY = """
:host { position: absolute; left: 50%; top: 12px; transform: translateX(-50%); z-index: 5; padding: 4px 16px; border-radius: 16px;
  background: #1c2530; color: #ffffff; font-size: 15px; animation: late 0.25s step-end; }
@keyframes late { from { opacity: 0; } to { opacity: 1; } }
"""
_CANVAS = """
:host(.working) .bk-Figure { opacity: 0.4; transition: opacity 0.1s 0.2s; }
"""
_BESIDE = f"""
:host {{ flex: 1 1 0; min-height: 260px; gap: 12px; flex-wrap: nowrap; }}
@media (max-width: {NARROW}px) {{ :host {{ flex-direction: column; flex: none; height: auto !important; }} }}
"""
_PANEL = f"""
:host {{ flex: 0 0 460px; max-width: 46%; height: 100%; overflow-y: auto; overflow-x: hidden; }}
@media (max-width: {NARROW}px) {{ :host {{ flex: none; max-width: 100%; width: 100%; height: auto; }} }}
"""
_LEGEND = f"""
:host {{ flex: none; height: clamp(96px, 17vh, 168px); }}
div:has(> [role=region]) {{ height: 100%; }}
@media (max-width: {NARROW}px) {{ :host {{ height: auto; }} }}
"""

__all__ = ["MapRoom"]
