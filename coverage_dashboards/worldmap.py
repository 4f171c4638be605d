"""The map: a HoloViews ``DynamicMap`` that draws only the pixels of the browser's window, in Web Mercator.

One ``WorldMap`` is one planner's. What it draws from is shared (``fields``); what it draws is as large as the window,
whatever the grid.
"""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import holoviews as hv
import numpy as np
import panel as pn
import shapely
from bokeh.events import RangesUpdate, Tap
from bokeh.models import (
    ColumnDataSource,
    CustomJSHover,
    HoverTool,
    PanTool,
    Range1d,
    ResetTool,
    WheelZoomTool,
)
from numpy.typing import NDArray

from coverage_dashboards import palette, words
from coverage_dashboards.coding import LIMITS, coding_of, colours_of, hatch_of, hover_of
from coverage_dashboards.fields import CHANGE, CHANGE_URGENCY, CHANGES, Field, Limits
from coverage_dashboards.outlines import NAMES, Name, Scale, country_names, outlines, scale_of
from coverage_dashboards.overlays import Drawing, Over, OverGlyphs, Shapes, drawing_of
from coverage_dashboards.viewport import (
    EDGE,
    Op,
    Picture,
    Range,
    fit_extent,
    latitude_of,
    longitude_of,
    mercator_x,
    mercator_y,
    refit,
    viewport,
)
from coverage_pipeline.cube.schema import ACTIONS, METRICS, URGENCY
from coverage_pipeline.geometry.bbox import GLOBE, BBox

hv.extension("bokeh", logo=False)
# The lines are few, and without a graphics card every repaint of WebGL takes the browser half a second.
hv.Store.renderers["bokeh"].webgl = False

LOD_TIMEOUT = 80
"""Milliseconds that Bokeh waits after a zoom before it tells the server; its default of 500 is most of a zoom's
latency."""
FIRST_SIZE = (1200, 700)
CLOSEST = 20_000.0
"""Metres across the closest view: two cells of 0.1°."""

WIDEST_PLACE = 2.0
"""Degrees: a place that is gone to is shown with so much around it at least."""

Mark = Literal["scene", "place"]
MARKS: tuple[Mark, ...] = ("scene", "place")
"""Outlines over the map: of a scene that is pointed at, and of the place that was chosen, which is drawn last."""

Changed = hv.streams.Stream.define("Changed", version=0)

_RANKS, _CHANGE_RANKS = np.zeros(256, np.int64), np.zeros(256, np.int64)
_RANKS[: len(ACTIONS)] = [URGENCY.index(name) for name in ACTIONS]
_CHANGE_RANKS[: len(CHANGES)] = [CHANGE_URGENCY.index(name) for name in CHANGES]


@dataclass(frozen=True)
class Shown:
    """What a map is to draw."""

    field: Field
    limits: Limits
    dark: bool


def op_of(metric: str) -> Op:
    """How the cells under one pixel become its colour: the worst for what must not be overlooked, the mean for the
    rest.
    """
    if metric in ("action", CHANGE):
        return "urgent"
    return "max" if METRICS[metric].default == "worst" else "mean"


def ranks_of(metric: str) -> NDArray[np.int64]:
    """Rank of each class of a map of classes: of several under one pixel the highest is seen."""
    return _CHANGE_RANKS if metric == CHANGE else _RANKS


def pixel_words(metric: str, cells: float) -> str:
    """What a pixel stands for, where it is more than one cell."""
    if cells < 1.5:
        return ""
    names = {"mean": "mean", "max": "highest", "urgent": "most urgent", "min": "lowest"}
    return f", {names[op_of(metric)]} of about {cells:.0f} cells"


class WorldMap:
    """One planner's map.

    Bokeh runs a widget's callback on a worker thread while HoloViews reports ranges and sizes on the server's loop. HoloViews takes a
    worker that holds the document's lock for safe, so two drawings of one plot could be under way at once, and one could leave the map
    empty. So every drawing is made on the loop, and reaches the browser as one message. Each takes view, size and content once, under a
    lock that is never held over a call into Bokeh.
    """

    def __init__(
        self,
        dark: bool = False,
        extent: BBox = GLOBE,
        *,
        on_tap: Callable[[float, float], None] | None = None,
        on_view: Callable[[], None] | None = None,
        on_size: Callable[[], None] | None = None,
        on_scale: Callable[[Scale], None] | None = None,
    ) -> None:
        """What is called, all on the loop: ``on_tap`` with longitude and latitude of a click, ``on_view`` after the planner moved the map,
        ``on_size`` after it became another size, ``on_scale`` with the scale of each drawing.
        """
        self._state = threading.Lock()
        self._on_tap, self._on_view, self._on_size, self._on_scale = on_tap, on_view, on_size, on_scale
        self._over: dict[Over, Shapes | None] = {}
        self._glyphs: OverGlyphs | None = None
        self._marks: dict[Mark, ColumnDataSource] = {}
        self._marked: dict[Mark, dict[str, Any]] = {}
        self._extent = extent
        self.shown: Shown | None = None
        self.dark = dark
        self._cells: float | None = None
        """Cells that one pixel of the picture shows, on average; None: there is no picture. The picture itself would be three megabytes."""
        self._size: tuple[int, int] | None = None
        self._view: tuple[Range, Range] = fit_extent(extent, *FIRST_SIZE)
        self._moved = False  # by the planner: until then a map of another size shows the whole world again
        self._goal: BBox | None = None
        """What was gone to: it stays in sight when the map becomes another size, until the planner moves it."""
        self._move = False
        document = pn.state.curdoc
        self.begun = document is None or document.session_context is None
        """Whether the browser has loaded the page."""
        self._waits = False
        """Whether a drawing waits for that."""
        self._version = 0
        self._changed = Changed()
        self._said = CustomJSHover(code=words.HOVER_CODE)
        self._lines: list[Any] = []
        self._halos: list[Any] = []
        self._outlines: dict[Name, Any] = {}
        self._names: Any = None
        self._outlined: tuple[Any, Any] | None = None
        self._plot: Any = None
        self.plot = hv.DynamicMap(self._draw, streams=[self._changed]).opts(self._options())
        # They do not draw by themselves: HoloViews would send colours and picture one after the other (``_draw_again``).
        self._sizes = hv.streams.PlotSize(source=self.plot)
        self._sizes.add_subscriber(self._seen_size)

    def show(self, shown: Shown | None) -> None:
        """Draw this, in the view the planner has."""
        with self._state:
            self.shown = shown
            if shown is not None:
                self.dark = shown.dark
        self._draw_again()

    def repaint(self) -> None:
        """Let the browser paint the map again; what it shows stays the same.

        HoloViews holds the painting of a figure (``hold_render``) while it changes it, and the end of the hold may be lost while the
        browser builds the figure (seen under load with Bokeh 3.10: the map stayed empty after a change of theme). Here it is said again.
        """
        if self._plot is not None:
            figure = self._plot.state
            figure.hold_render = True
            figure.hold_render = False

    def look_at(self, extent: BBox) -> None:
        """Show another cube's place: the next drawing begins with all of it."""
        with self._state:
            if extent == self._extent:
                return
            self._extent = extent
            self._view = fit_extent(extent, *(self._size or FIRST_SIZE))
            self._moved, self._move = False, True

    @property
    def view(self) -> tuple[Range, Range]:
        """What is seen, metres of Web Mercator."""
        with self._state:
            return self._view

    @property
    def box(self) -> BBox | None:
        """West, south, east, north of the view, degrees, west > east across the antimeridian; None where it shows all of the cube."""
        seen = self.reach
        if seen is None:
            return None
        west, south, east, north = seen
        return (-180.0, south, 180.0, north) if east - west >= 360 else (wrapped(west), south, wrapped(east) or 180.0, north)

    @property
    def reach(self) -> BBox | None:
        """The same with longitudes that go on beyond ±180, so that west < east: where on the map the view is."""
        with self._state:
            (left, right), (bottom, top) = self._view
            if not self._moved:
                return None
        west, east = (float(longitude_of(x)) for x in (left, right))
        south, north = (float(latitude_of(min(max(y, -EDGE), EDGE))) for y in (bottom, top))
        return (west, south, east, north) if west < east and south < north else None

    def follow(self, view: tuple[Range, Range]) -> None:
        """Show the part of the world that another map shows."""
        with self._state:
            if _same(self._view, view):
                return
            width, height = self._size or FIRST_SIZE
            (left, right), (bottom, top) = view
            # As much as the other shows, whatever the shape of the two.
            metres = max((right - left) / width, (top - bottom) / height)
            self._view = refit(*view, width, height, metres)
            self._moved, self._move, self._goal = True, True, None
        self._draw_again()

    def go_to(self, box: BBox, least: float = WIDEST_PLACE) -> None:
        """Show this box, with at least ``least`` degrees around its middle."""
        west, south, east, north = box
        x, y = (west + east) / 2, (south + north) / 2
        across, up = max(east - west, least) / 2, max(north - south, least) / 2
        wider = (x - across, max(y - up, -85.0), x + across, min(y + up, 85.0))
        with self._state:
            self._goal = wider
            self._view = fit_extent(wider, *(self._size or FIRST_SIZE))
            self._moved = self._move = True
        self._draw_again()

    def zoom(self, factor: float) -> None:
        """Show ``factor`` times as much about the middle of the view."""
        with self._state:
            width, height = self._size or FIRST_SIZE
            metres = (self._view[0][1] - self._view[0][0]) / width * factor
            metres = min(max(metres, CLOSEST / width), 3.9 * EDGE / max(width, height))
            self._view = refit(*self._view, width, height, metres)
            self._moved, self._move, self._goal = True, True, None
        self._draw_again()

    def home(self) -> None:
        """Show all of the cube."""
        with self._state:
            self._view = fit_extent(self._extent, *(self._size or FIRST_SIZE))
            self._moved, self._move = False, True
        self._draw_again()

    def begin(self) -> None:
        """The browser has loaded the page: draw from now on.

        Before, HoloViews would put each drawing off by one turn of the loop, again and again until the page is loaded, and for ever
        where it is left before (``Plot.refresh`` of HoloViews 1.22, ``state._unblocked`` of Panel 1.10).
        """
        if not self.begun:
            self.begun = True
            if self._waits:
                self._draw_again()

    def close(self) -> None:
        """The session ended. HoloViews keeps callbacks, and so the whole page, in a table of the process until it is told."""
        if self._plot is not None:
            for callback in self._plot.callbacks:
                callback.cleanup()
            self._plot.cleanup()
        for stream in (self._sizes, self._changed):
            stream.clear()
            stream.source = None

    def _draw_again(self) -> None:
        with self._state:
            self._version += 1
            version = self._version

        def draw() -> None:
            if not self.begun:
                self._waits = True
                return
            # Picture and colours in one message: else the old picture is seen in the new colours for a second.
            with pn.io.hold(policy="collect", freeze=True):
                self._changed.event(version=version)

        try:
            asyncio.get_running_loop()
        except RuntimeError:  # a worker thread, or no server at all
            pn.state.execute(draw, schedule=True)
        else:
            draw()  # on the loop already: no turn of it is lost

    def mark(self, what: Mark, outline: shapely.Geometry | None) -> None:
        """Draw an outline over the map (degrees), or none, in place of the one of before."""
        self._marked[what] = _line_of(outline)
        source = self._marks.get(what)
        if source is not None:
            data = self._marked[what]
            pn.state.execute(lambda: source.update(data=data), schedule=True)

    def lay(self, kind: Over, shapes: Shapes | None) -> None:
        """Lay outlines over the map, or take them away."""
        self._over[kind] = shapes
        pn.state.execute(lambda: self._draw_over(kind), schedule=True)

    def _draw_over(self, kind: Over) -> None:
        with self._state:
            view, size = self._view, self._size or FIRST_SIZE
        if self._glyphs is not None:
            shapes = self._over.get(kind)
            self._glyphs.draw(kind, Drawing() if shapes is None else drawing_of(kind, shapes, view, size), view)

    def _tapped(self, event: Any) -> None:
        if self._on_tap and event.x is not None and event.y is not None:
            beyond = abs(event.y) > EDGE  # the map ends at 85°: above and below it there is no place
            self._on_tap(wrapped(float(longitude_of(event.x))), math.nan if beyond else float(latitude_of(event.y)))

    def _options(self) -> Any:
        hover = HoverTool(tooltips=_TOOLTIP, formatters=self._formatters(), point_policy="follow_mouse", attachment="horizontal")
        wheel = WheelZoomTool(zoom_on_axis=False)
        return hv.opts.Image(
            responsive=True,
            min_height=260,
            tools=[hover, PanTool(), wheel, ResetTool()],
            default_tools=[],
            active_tools=["pan", "wheel_zoom"],
            xaxis=None,
            yaxis=None,
            toolbar=None,
            show_frame=False,
            framewise=False,
            backend_opts={"plot.lod_timeout": LOD_TIMEOUT},
            hooks=[_weakly(self._finish)],
        )

    def _formatters(self) -> dict[str, CustomJSHover]:
        return dict.fromkeys(("$x", "$y"), self._said)

    def _ranged(self, event: Any) -> None:
        """The browser shows another part of the map. HoloViews' own stream of ranges tells of it a tenth of a second later."""
        x_range, y_range = (event.x0, event.x1), (event.y0, event.y1)
        moved = False
        with self._state:
            # Before its size is known, the figure reports ranges of Bokeh's own.
            edges = (*x_range, *y_range)  # untrusted
            known = self._size is not None and all(isinstance(edge, int | float) and math.isfinite(edge) for edge in edges)
            if known and not _same(self._view, (x_range, y_range)):
                self._view, self._moved, moved, self._goal = (x_range, y_range), True, True, None
        if moved:
            self._draw_again()
            if self._on_view:
                self._on_view()

    def _seen_size(self, width: int | None = None, height: int | None = None, **_: Any) -> None:
        """The map has another size in the browser."""
        resized = False
        with self._state:
            if width and height and (width, height) != self._size:
                self._resize(width, height)
                resized = True
        if resized:
            self._draw_again()
            if self._on_size:
                self._on_size()

    def _draw(self, version: int) -> hv.Image:
        """The picture of the current view: a code a pixel, of its value and of how many months of it are known."""
        with self._state:
            # Before the browser has told its size it gets a picture of a likely one with the page.
            shown, view, size, extent = self.shown, self._view, self._size or FIRST_SIZE, self._extent
        picture = known = None
        if shown is not None:
            field = shown.field
            picture = viewport(field.values, *view, *size, op_of(field.metric), ranks_of(field.metric), extent, endless=True)
            known = viewport(field.known_months, *view, *size, "min", extent=extent, endless=True)
        self._cells = None if picture is None else picture.cells
        if shown is None or picture is None or known is None:
            # Nothing is known yet, or the browser looks beside the world.
            empty = np.full((2, 2), np.nan, np.float32)
            image = _image(Picture(empty, (-EDGE, EDGE), (-EDGE, EDGE), 1.0), empty)
            return image.opts(cmap=["rgba(0,0,0,0)"] * 2, clim=LIMITS, clipping_colors={"NaN": "rgba(0,0,0,0)"})
        # Colours belong to the picture and not to a hook after it: HoloViews would send its own first, and where the browser is still
        # making the map it may take those and miss the change (seen under load as a map in black and white).
        coding = coding_of(shown.field)
        colours = colours_of(coding, shown.field, shown.limits, shown.dark)
        return _image(picture, coding.encode(picture.values, known.values, hatch_of(picture))).opts(
            cmap=colours, clim=LIMITS, clipping_colors={}
        )

    def _resize(self, width: int, height: int) -> None:
        if not self._moved:
            self._view = fit_extent(self._extent, width, height)
        elif self._goal is not None:
            self._view = fit_extent(self._goal, width, height)
        else:
            x_range, y_range = self._view
            before = self._size or FIRST_SIZE
            across, up = (x_range[1] - x_range[0]) / before[0], (y_range[1] - y_range[0]) / before[1]
            # The first size is not the one the view was made for: all of it stays in sight.
            metres = across if self._size else max(across * before[0] / width, up * before[1] / height)
            self._view = refit(x_range, y_range, width, height, metres)
        self._size = (width, height)
        self._move = True

    def _finish(self, plot: Any, _: hv.Image) -> None:
        """What HoloViews has no option for, after each drawing: ranges with square pixels, colours, words, outlines."""
        self._plot, figure = plot, plot.state
        with self._state:
            view, size, extent, dark = self._view, self._size, self._extent, self.dark
            move = self._move or not plot.drawn
            outline = size is not None and self._outlined != (view, size)
            self._move = False
            if outline:
                self._outlined = (view, size)
        around = palette.theme(dark)
        if not self._lines:
            figure.border_fill_color = figure.outline_line_color = None
            figure.min_border = 0
            for r in (figure.x_range, figure.y_range):
                _bound(r)
            for name in NAMES:
                # A halo keeps the line readable on the dark and on the pale end of every ramp.
                source = self._outlines[name] = ColumnDataSource({"x": [], "y": []})
                width, alpha = (1.0, 0.9) if name == "coastlines" else (0.8, 0.55)
                for lines, wider, share in ((self._halos, 1.5, 0.5), (self._lines, 0.0, 1.0)):
                    lines.append(figure.line("x", "y", source=source, line_width=width + wider, line_alpha=alpha * share))
            self._glyphs = OverGlyphs(figure)
            for what in MARKS:
                data = self._marked.get(what) or _line_of(None)
                source = self._marks[what] = ColumnDataSource(data)
                colour, width = ("#e4007f", 3.0) if what == "place" else ("#ff8c00", 2.0)
                figure.line("x", "y", source=source, line_width=width + 2.5, line_color="#ffffff", line_alpha=0.85)
                figure.line("x", "y", source=source, line_width=width, line_color=colour)
            self._names = figure.text(
                "x", "y", "text", source=ColumnDataSource({"x": [], "y": [], "text": []}), text_align="center", text_baseline="middle",
                text_font_size="12px", background_fill_alpha=0.65, border_radius=3, padding=2,
            )  # fmt: skip
            figure.on_event(Tap, self._tapped)
            figure.on_event(RangesUpdate, self._ranged)
        if outline and size is not None:
            for name, source in self._outlines.items():
                x, y = outlines(name, *view, size[0])
                source.data = {"x": x, "y": y}
            self._names.data_source.data = dict(zip(("x", "y", "text"), country_names(*view, size[0]), strict=True))
            for kind in self._over:
                self._draw_over(kind)
            if self._on_scale:
                self._on_scale(scale_of(*view, size[0]))
        if move:
            (figure.x_range.start, figure.x_range.end), (figure.y_range.start, figure.y_range.end) = view
            whole = fit_extent(extent, *(size or FIRST_SIZE))
            figure.x_range.reset_start, figure.x_range.reset_end = whole[0]
            figure.y_range.reset_start, figure.y_range.reset_end = whole[1]
        figure.background_fill_color = around.page
        for lines, colour in ((self._lines, around.line), (self._halos, around.page)):
            for line in lines:
                line.glyph.line_color = colour
        self._names.glyph.update(text_color=around.line, background_fill_color=around.page)
        if self._glyphs is not None:
            self._glyphs.paint(dark)
        self._word_hover(plot.handles["source"])

    def _word_hover(self, source: Any) -> None:
        shown = self.shown
        if shown is None or self._cells is None:
            return
        cells = self._cells / shown.field.points_a_cell
        text = words.hover_words(shown.field, pixel_words(shown.field.metric, cells), cells >= 1.5)
        text |= hover_of(coding_of(shown.field))
        if self._said.args.get("said") != text:
            self._said.args = {"said": text, "source": source}


def _same(one: tuple[Range, Range], other: tuple[Range, Range]) -> bool:
    """Whether two views are one, to a thousandth of their width."""
    slack = 1e-3 * (one[0][1] - one[0][0])
    return all(abs(a - b) <= slack for mine, theirs in zip(one, other, strict=True) for a, b in zip(mine, theirs, strict=True))


def _line_of(outline: shapely.Geometry | None) -> dict[str, Any]:
    """An outline as one line in metres, NaN between its rings."""
    if outline is None or outline.is_empty:
        return {"x": np.empty(0), "y": np.empty(0)}
    gap = np.full((1, 2), np.nan)
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(shapely.get_parts(outline))]
    flat = np.concatenate([part for ring in rings for part in (ring, gap)])
    x, y = mercator_x(flat[:, 0]), mercator_y(flat[:, 1])
    # The world goes on beyond the antimeridian, and so does what is marked.
    return {"x": np.concatenate([x + turn * 2 * EDGE for turn in (-1, 0, 1)]), "y": np.tile(y, 3)}


def wrapped(longitude: float) -> float:
    """The same longitude within -180 to 180."""
    return (longitude + 180.0) % 360.0 - 180.0


def _bound(axis: Range1d) -> None:
    axis.bounds = (-2 * EDGE, 2 * EDGE)
    axis.min_interval, axis.max_interval = CLOSEST, 3.9 * EDGE


# With a range of its own, HoloViews need not search every picture for its smallest and largest value.
_CODE = hv.Dimension("code", range=(0, 1))


def _image(picture: Picture, codes: NDArray[Any]) -> hv.Image:
    """In Web Mercator from the start. No element of GeoViews: its plot ends at ±180° and squeezes all of the picture into what is left of
    it (GeoViews 1.16), where this map goes on.
    """
    rows, columns = codes.shape
    (left, right), (bottom, top) = picture.x_range, picture.y_range
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows
    return hv.Image((x, y, codes), ["x", "y"], _CODE, bounds=(left, bottom, right, top))


_TOOLTIP = """
<div style="font-size:14px;line-height:1.4;padding:2px 4px;max-width:340px">
  <div style="font-weight:600">$x{value}</div>
  <div>$x{known}</div>
  <div>$y{lat}, $x{lon}</div>
</div>
"""


def _weakly(method: Callable[[Any, hv.Image], None]) -> Callable[[Any, hv.Image], None]:
    """A hook that does not keep its object alive: HoloViews keeps options, and the hooks among them, in tables of the process."""
    found = weakref.WeakMethod(method)

    def hook(plot: Any, element: hv.Image) -> None:
        alive = found()
        if alive is not None:
            alive(plot, element)

    return hook
