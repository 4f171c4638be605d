"""The room of the map: caption, map, place panel and legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import panel as pn
import panel_material_ui as pmui
import shapely

from coverage_dashboards import areas, beside, exports, words
from coverage_dashboards.background import later
from coverage_dashboards.choices import LAYER_TITLES, View
from coverage_dashboards.desk import Desk
from coverage_dashboards.doubts import doubts_in_words, provisional_partitions
from coverage_dashboards.downloader import Downloader
from coverage_dashboards.fields import CHANGE, Field, Limits, extent_of, shares_within
from coverage_dashboards.gazetteer import Found, NoSuchPlace, cell_at
from coverage_dashboards.map_canvas import MapCanvas
from coverage_dashboards.overlays import OVERS, Over, Shapes, footprint_shapes, shapes_of, target_shapes
from coverage_dashboards.place_panel import PlacePanel
from coverage_dashboards.planning import planning
from coverage_dashboards.target_form import TargetForm
from coverage_dashboards.worldmap import WIDEST_PLACE, Mark, Shown, op_of
from coverage_pipeline.cube.dataset import grid_of
from coverage_pipeline.cube.schema import METRICS
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.store import Store

_PIXELS = {
    "mean": "zoomed out, a pixel shows the mean of its cells",
    "max": "zoomed out, a pixel shows the highest of its cells",
    "urgent": "",
    "min": "",
}
SAVED = {
    "GeoTIFF of what the map shows": ("tif", False),
    "GeoTIFF of everything": ("tif", True),
    "CSV of what the map shows": ("csv", False),
    "Picture with caption and legend": ("png", False),
    "Python that gives the same array": ("py", False),
}
"""What can be saved: the file's ending, and whether it is of the whole cube."""
SOON = 200
"""Milliseconds: an answer that comes within them needs no word of work that is under way."""
NARROW = 900
"""Pixels: on a narrower page the place panel stands below the map."""


def store_at_hand() -> Store | None:
    """Where the settings say that the scan reports are; None where they are wrong, which the page says elsewhere."""
    try:
        return planning().store
    except SettingsError:
        return None


@dataclass(frozen=True)
class Drawn:
    """What one map shows: a view's field in the colours of these limits."""

    view: View
    field: Field
    limits: Limits


class MapRoom:
    """The map of one planner and what stands beside it."""

    def __init__(self, desk: Desk, moved: Any, closed: Any) -> None:
        self.desk, self._moved = desk, moved
        self._drawn: Drawn | None = None
        self._drawn_beside: Drawn | None = None
        self._problem: str | None = None
        self._asked = 0
        """Counts questions and answers: where nothing was counted since, a question has no answer yet."""
        self._corners: list[tuple[float, float]] | None = None
        """Of the area that is being drawn; None: none is."""
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.first = self._canvas(self._tools())
        self.second: MapCanvas | None = None
        """Made when it is first asked for."""
        self.map = self.first.map
        self.form = TargetForm(desk)
        self.panel = PlacePanel(self._point, closed, lambda: desk.open_room("known"), self.form.view)
        self.caption = pn.pane.HTML("", css_classes=["caption"], margin=(0, 2, 8, 2), styles={"font-size": "16px"}, **wide)
        self.doubts = pn.pane.HTML(
            "", css_classes=["doubts"], visible=False, margin=(0, 2, 8, 2),
            styles={"font-size": "14px", "flex": "none"}, **wide,
        )  # fmt: skip
        self.said = pn.pane.HTML("", margin=0, styles={"font-size": "15px"}, **wide)
        self.message = pmui.Alert(self.said, severity="info", visible=False, margin=(20, 0, 20, 0), **wide)
        self.panel.view.stylesheets = [_PANEL]
        self._maps = pn.Row(self.first.view, self.panel.view, sizing_mode="stretch_both", stylesheets=[_BESIDE], margin=0)
        self.legend = pn.pane.HTML("", css_classes=["legend"], margin=(8, 2, 0, 2), stylesheets=[_LEGEND], **wide)
        self.second_legend = pn.pane.HTML(
            "", css_classes=["legend-beside"], margin=(8, 2, 0, 12), visible=False, stylesheets=[_LEGEND], **wide
        )
        legends = pn.Row(self.legend, self.second_legend, sizing_mode="stretch_width", margin=0, stylesheets=[_LEGENDS])
        self.view = pn.Column(
            self.caption, self.doubts, self.message, self._maps, legends, sizing_mode="stretch_both", margin=0, stylesheets=[_ROOM]
        )

    def _canvas(self, *tools: Any) -> MapCanvas:
        desk = self.desk
        return MapCanvas(extent_of(desk.cube), dark=desk.dark, on_tap=self._tapped, on_view=self._seen, on_size=self._sized, tools=tools)

    def _tools(self) -> pn.Row:
        """An area of one's own, and what is seen as a file."""
        small: dict[str, Any] = {"size": "small", "variant": "contained", "color": "light", "margin": 2}
        self.draw_area = pmui.Button(label="Draw an area", icon="draw", **small)
        self.draw_area.on_click(self._draw_area)
        self.upload = pmui.FileInput(label="Upload an area", accept=",".join(areas.SUFFIXES), max_file_size=areas.LARGEST_FILE, **small)
        self.upload.param.watch(self._uploaded, "value")
        self.save = pmui.MenuButton(label="Save", icon="download", items=[{"label": label} for label in SAVED], **small)
        self.save.on_click(self._save)
        self.saver = Downloader()
        return pn.Row(
            self.draw_area, self.upload, self.save, self.saver, margin=0, css_classes=["tools"], stylesheets=[_TOOLS],
            styles={"position": "absolute", "top": "8px", "right": "8px"},
        )  # fmt: skip

    def _draw_area(self, *_: Any) -> None:
        """Begin to draw, or finish what was drawn."""
        corners, self._corners = self._corners, None
        self.draw_area.label = "Draw an area"
        if corners is None:
            self._corners = []
            self.draw_area.label = "Finish the area"
            self.desk.tell("Click the corners of the area on the map, then finish.", "info")
            return
        self.mark("scene", None)
        try:
            found = areas.drawn(corners)
        except PlannerError as error:
            self.desk.tell(str(error), "warning")
        else:
            self.desk.tell("", "info")
            self.desk.open_place(found)

    def _uploaded(self, event: Any) -> None:
        if not event.new:
            return
        name, content = str(self.upload.filename or ""), bytes(event.new)
        self.upload.param.update(value=None, filename=None)
        self.desk.tell("Reading the area …", "info")

        def show(found: Found) -> None:
            self.desk.tell("", "info")
            self.desk.open_place(found)

        self.desk.background.run("upload", lambda: areas.uploaded(name, content), show, lambda text: self.desk.tell(text, "error"))

    def _save(self, item: Any) -> None:
        label = item["label"] if isinstance(item, dict) else str(item)
        if self._drawn is None or label not in SAVED:
            self.desk.tell("There is nothing on the map to save.", "info")
            return
        ending, whole = SAVED[label]
        field, limits, desk, box, view = self._drawn.field, self._drawn.limits, self.desk, None if whole else self.map.box, self.map.view
        cube, shown, dark, said = desk.cube, desk.view, desk.dark, self._caption()
        if words.is_simulated(cube.ds.attrs):
            said += " · simulated data"  # a file goes where the page's badge does not
        if ending == "py" and field.metric == CHANGE:
            desk.tell("The changes have no such lines yet: coverage_pipeline.demand.cell_changes.change_layer gives them.", "info")
            return

        def make() -> bytes:
            if ending == "tif":
                return exports.geotiff(field, cube.grid, box, said)
            if ending == "csv":
                return exports.csv(field, cube.grid, box) if cube.hexes is None else exports.hex_csv(field, cube.hexes, box)
            if ending == "png":
                return exports.picture(field, limits, said, extent_of(cube), view, dark=dark)
            return exports.python_code(shown, cube.location, box if cube.hexes is None else None).encode()

        name = f"coverage-{field.metric}-{shown.first.key}-{shown.last.key}.{ending}"
        desk.tell(f"Making {name} …", "info")
        desk.background.run("save", make, lambda data: self._give(name, data), lambda text: desk.tell(text, "error"))

    def _give(self, name: str, data: bytes) -> None:
        try:
            self.saver.save(name, data)
        except ValueError as error:
            self.desk.tell(str(error), "error")
        else:
            self.desk.tell(f"Saved {name}.", "success")

    # --- the map

    def _canvases(self) -> list[MapCanvas]:
        return [self.first, *([self.second] if self.second is not None else [])]

    def _seen(self, moved: MapCanvas) -> None:
        """One of the maps shows another part of the world: so does the other."""
        self._link(moved)
        self._moved()

    def _sized(self) -> None:
        """One of the maps became another size: the second shows again what the first does."""
        if self.second is not None and self.map.reach is not None:
            self.second.map.follow(self.map.view)

    def _link(self, moved: MapCanvas) -> None:
        for other in self._canvases():
            if other is not moved:
                other.map.follow(moved.map.view)

    def go_to(self, box: BBox, least: float = WIDEST_PLACE) -> None:
        """Show this box, with at least ``least`` degrees around its middle."""
        self.map.go_to(box, least)
        self._link(self.first)

    def home(self) -> None:
        """Show all of the cube."""
        for canvas in self._canvases():
            canvas.map.home()

    def mark(self, what: Mark, outline: shapely.Geometry | None) -> None:
        """Draw an outline over the maps, or none."""
        for canvas in self._canvases():
            canvas.map.mark(what, outline)

    def lay(self, chosen: Sequence[Over]) -> None:
        """Lay these over the maps, as they are in the window, and take away the others."""
        desk = self.desk
        for kind in OVERS:
            if kind not in chosen:
                desk.background.forget(f"over-{kind}")
                self._laid(kind, None)
                continue
            desk.background.run(
                f"over-{kind}", partial(_over, kind, desk), partial(self._laid, kind), lambda text: desk.tell(text, "warning")
            )

    def _laid(self, kind: Over, shapes: Shapes | None) -> None:
        for canvas in self._canvases():
            canvas.map.lay(kind, shapes)

    def begin(self) -> None:
        """The browser has loaded the page."""
        for canvas in self._canvases():
            canvas.map.begin()

    def close(self) -> None:
        """The session ended."""
        for canvas in self._canvases():
            canvas.map.close()

    def browser_repaint(self) -> None:
        """Let the browser paint the maps again (``WorldMap.repaint``)."""
        for canvas in self._canvases():
            canvas.map.repaint()

    def working(self) -> None:
        """Say soon that what is shown is not yet what was asked for, unless it is by then."""
        self._asked += 1
        number = self._asked

        def say() -> None:
            if self._asked == number:
                for canvas in self._canvases():
                    canvas.working(True)

        later(SOON, say)

    def follow_cube(self) -> None:
        """Look at another cube's place."""
        for canvas in self._canvases():
            canvas.map.look_at(extent_of(self.desk.cube))

    def make_second(self) -> None:
        """Have a second map at hand, still empty."""
        if self.second is None:
            self.second = self._canvas()
            if self.desk.found is not None:
                self.second.map.mark("place", self.desk.found.outline)
            self.second.view.visible = False
            self._maps.insert(1, self.second.view)
            if self.map.begun:
                self.second.map.begin()

    def draw(self, drawn: Drawn | None, problem: str | None, severity: str, second: Drawn | None = None) -> None:
        """Show a field, and another beside it, or say why there is none."""
        self._asked += 1
        for canvas in self._canvases():
            canvas.working(False)
        self._drawn, self._drawn_beside, self._problem = drawn, second if drawn is not None else None, problem
        if self.second is not None:
            if self._drawn_beside is not None and not self.second.view.visible and self.map.reach is not None:
                self.second.map.follow(self.map.view)
            self.second.view.visible = self._drawn_beside is not None
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
        self.first.view.visible = self._drawn is not None or self.message.severity != "error"
        self._repaint_beside(view, dark)
        if self._drawn is None:
            self.map.show(None)
            self.caption.object = words.paragraph(f"{LAYER_TITLES[view.layer]} · {METRICS[view.metric].title}", dark)
            return
        drawn = self._drawn
        self.caption.object = words.paragraph(self._caption(), dark)
        self.legend.object = self._legend(drawn, dark)
        self.say_shares()
        self.map.show(Shown(drawn.field, drawn.limits, dark))

    def _repaint_beside(self, view: View, dark: bool) -> None:
        drawn, second = self._drawn_beside, self.second
        # Of one metric there is one legend: the colours mean the same in both maps.
        own_legend = drawn is not None and self._drawn is not None and drawn.field.metric != self._drawn.field.metric
        self.second_legend.visible = own_legend
        if drawn is None or second is None:
            self.first.name("")
            return
        for canvas, text in zip((self.first, second), beside.title(view, drawn.view), strict=True):
            canvas.name(text)
        if own_legend:
            self.second_legend.object = self._legend(drawn, dark)
        second.map.show(Shown(drawn.field, drawn.limits, dark))

    def _legend(self, drawn: Drawn, dark: bool) -> str:
        pixels = _PIXELS[op_of(drawn.field.metric)]
        return words.legend(drawn.field, drawn.limits, pixels, words.lookback_months(self.desk.cube.ds.attrs), dark)

    def say_shares(self) -> None:
        """Say in the legend how much of what the map shows has each class, where it shows only a part of the cube."""
        box = self.map.box
        if self._drawn is None or box is None or not self._drawn.field.shares:
            return
        field, limits, cube, dark = self._drawn.field, self._drawn.limits, self.desk.cube, self.desk.dark
        lookback = words.lookback_months(cube.ds.attrs)

        def count() -> str:
            window = exports.window_of(cube.grid, box)
            return words.legend(field, limits, "", lookback, dark, shares_within(field, cube, window.rows, window.columns))

        # Beside the cube there is nothing to count: what is said of all of it stays.
        self.desk.background.run("shares", count, lambda text: self.legend.param.update(object=text), lambda _: None)

    def _caption(self) -> str:
        """What the map shows, for page and files alike."""
        if self._drawn is None:
            return ""
        field, view, attrs = self._drawn.field, self.desk.view, self.desk.cube.ds.attrs
        if field.metric == CHANGE:
            text = words.change_caption(view.sensors[0], view.last.shift(-1), view.last, field)
        else:
            text = words.caption(view, field)
        if self._drawn_beside is not None:
            text += f" · beside it {beside.title(view, self._drawn_beside.view)[1]}"
        snapshot = attrs.get("catalog_snapshot")
        if view.layer != "acquired":
            text += f" · catalogue as of {snapshot}" if snapshot else " · catalogue not asked yet"
        return text

    def _say_doubts(self, dark: bool) -> None:
        """Name the doubts of the provisional months that are shown; what we hold does not depend on them."""
        view, ds = self.desk.view, self.desk.cube.ds
        shown = self._drawn is not None and view.layer != "acquired"
        provisional = provisional_partitions(view, ds) if shown else []
        lines = doubts_in_words(provisional, ds, store_at_hand()) if provisional else []
        self.doubts.param.update(object=words.doubts(lines, dark) if lines else "", visible=bool(lines))

    # --- the place

    def _tapped(self, lon: float, lat: float) -> None:
        if self._corners is not None:
            self._corners.append((lon, lat))
            self.mark("scene", _corners_outline(self._corners))
            return
        try:
            self.desk.open_place(cell_at(lon, lat, grid_of(self.desk.cube.ds)), move=False)
        except NoSuchPlace as nowhere:
            self.desk.tell(str(nowhere), "info")

    def _point(self, outline: shapely.Geometry | None) -> None:
        self.mark("scene", outline)

    def show_place(self, found: Found, *, move: bool) -> None:
        """Mark a place and tell what there is of it; ``move``: the map goes there."""
        self.desk.found = found
        self.form.offer(found)
        self.mark("place", found.outline)
        self.mark("scene", None)
        if move:
            self.go_to(tuple(shapely.bounds(found.outline)))
        self.refresh()

    def show_region(self, found: Found) -> None:
        """Mark something that is too large to be one place, and go there."""
        self.mark("place", found.outline)
        self.go_to(tuple(shapely.bounds(found.outline)))

    def close_place(self) -> None:
        """Show no place."""
        self.desk.found = None
        self.desk.background.forget("place")
        self.mark("place", None)
        self.mark("scene", None)
        self.panel.close()

    def refresh(self) -> None:
        """Ask again what there is of the open place: sensors or window are others, or a build has ended."""
        found, desk = self.desk.found, self.desk
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


def _over(kind: Over, desk: Desk) -> Shapes:
    """The outlines of a layer in the window, made once for all who look."""
    plan, view = planning(), desk.view
    if kind == "targets":
        return plan.overlays.get(("targets", desk.stamp), lambda: _target_shapes(desk))
    months = (view.month,) if view.aggregation == "scrub" else tuple(view.months)
    sensors = tuple(desk.sensors)
    return plan.overlays.get((desk.stamp, sensors, months), lambda: footprint_shapes(plan.store, sensors, months))


def _target_shapes(desk: Desk) -> Shapes:
    targets = desk.targets()
    return shapes_of([]) if targets is None else target_shapes(targets)


def _corners_outline(corners: list[tuple[float, float]]) -> shapely.Geometry:
    """What was clicked so far, as rings that can be drawn: a small square about a single corner."""
    if len(corners) < 3:
        squares = [shapely.box(x - 0.05, y - 0.05, x + 0.05, y + 0.05) for x, y in corners]
        return shapely.MultiPolygon(squares)
    return shapely.Polygon(corners)


_ROOM = f"@media (max-width: {NARROW}px) {{ :host {{ height: auto !important; }} }}"
_TOOLS = ":host { flex-wrap: wrap; justify-content: flex-end; max-width: calc(100% - 64px); }"
_BESIDE = f"""
:host {{ flex: 1 1 0; min-height: 260px; gap: 12px; flex-wrap: nowrap; }}
@media (max-width: {NARROW}px) {{ :host {{ flex-direction: column; flex: none; height: auto !important; }} }}
"""
_PANEL = f"""
:host {{ flex: 0 0 460px; max-width: 46%; height: 100%; overflow-y: auto; overflow-x: hidden; }}
@media (max-width: {NARROW}px) {{ :host {{ flex: none; max-width: 100%; width: 100%; height: auto; }} }}
"""
_LEGENDS = ":host { flex: none; flex-wrap: nowrap; }"
_LEGEND = f"""
:host {{ flex: 1 1 0; min-width: 0; height: clamp(96px, 17vh, 168px); }}
div:has(> [role=region]) {{ height: 100%; }}
@media (max-width: {NARROW}px) {{ :host {{ height: auto; }} }}
"""

__all__ = ["MapRoom"]
