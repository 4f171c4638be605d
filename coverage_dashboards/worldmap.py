"""The map: a HoloViews ``DynamicMap`` that draws only the pixels of the browser's window, in Web Mercator.

One ``WorldMap`` is one planner's. What it draws from is shared (``fields``); what it draws is as large as the window, whatever the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import holoviews as hv
import numpy as np
import shapely
from bokeh.models import CustomJSHover, HoverTool, LinearColorMapper, PanTool, Range1d, ResetTool, WheelZoomTool
from numpy.typing import NDArray

from coverage_dashboards import palette, words
from coverage_dashboards.fields import Field, Limits
from coverage_dashboards.viewport import (
    EDGE,
    LATITUDE_LIMIT,
    URGENCY,
    Op,
    Picture,
    Range,
    fit_world,
    mercator_x,
    mercator_y,
    refit,
    viewport,
)
from coverage_pipeline import geodata
from coverage_pipeline.coverage import ACTIONS, METRICS

hv.extension("bokeh", logo=False)

LOD_TIMEOUT = 80
"""Milliseconds that Bokeh waits after a zoom before it tells the server; its default of 500 is most of a zoom's latency."""
FIRST_SIZE = (1200, 700)
CLOSEST = 20_000.0
"""Metres across the closest view: two cells of 0.1°."""

Changed = hv.streams.Stream.define("Changed", version=0)

_RANKS = np.zeros(256, np.int64)
for _code, _name in enumerate(ACTIONS):
    _RANKS[_code] = URGENCY.index(_name)


@dataclass(frozen=True)
class Shown:
    """What a map is to draw."""

    field: Field
    limits: Limits
    dark: bool


def op_of(metric: str) -> Op:
    """How the cells under one pixel become its colour: the worst for what must not be overlooked, the mean for the rest."""
    if metric == "action":
        return "urgent"
    return "max" if METRICS[metric].default == "worst" else "mean"


def pixel_words(metric: str, cells: float) -> str:
    """What a pixel stands for, where it is more than one cell."""
    if cells < 1.5:
        return ""
    names = {"mean": "mean", "max": "highest", "urgent": "most urgent", "min": "lowest"}
    return f", {names[op_of(metric)]} of about {cells:.0f} cells"


@cache
def outlines() -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Coastlines and borders in metres, projected once for all: lines one after the other, with NaN between."""
    return {
        "borders": _broken_line(geodata.borders()),
        "coastlines": _broken_line(geodata.coastlines()),
    }


def _broken_line(lines: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # A tenth of a cell is nothing on this map, and a third of the points.
    points, number = shapely.get_coordinates(shapely.get_parts(shapely.simplify(lines, 0.01)), return_index=True)
    points = points.copy()
    points[np.abs(points[:, 1]) > LATITUDE_LIMIT] = np.nan
    breaks = np.flatnonzero(np.diff(number)) + 1
    points = np.insert(points, breaks, np.nan, axis=0)
    # Half a metre is exact enough; float32 halves what every planner downloads.
    return mercator_x(points[:, 0]).astype(np.float32), mercator_y(points[:, 1]).astype(np.float32)


class WorldMap:
    """One planner's map."""

    def __init__(self, dark: bool = False) -> None:
        self.shown: Shown | None = None
        self.dark = dark
        self.picture: Picture | None = None
        self._size: tuple[int, int] | None = None
        self._view: tuple[Range, Range] = fit_world(*FIRST_SIZE)
        self._reported: tuple[Range | None, Range | None] = (None, None)
        self._move = False
        self._version = 0
        self._changed = Changed()
        self._said = {
            key: CustomJSHover(code=f"const said = args_of; const format = '{key}';{words.HOVER_CODE}".replace("args_of", "words"))
            for key in ("value", "known", "lat", "lon")
        }
        self._mapper = LinearColorMapper(palette=["#000000"] * 2, low=0, high=1)
        self._lines: list[Any] = []
        streams = [self._changed, hv.streams.RangeXY(), hv.streams.PlotSize()]
        self.plot = hv.DynamicMap(self._draw, streams=streams).opts(self._options())

    def show(self, shown: Shown | None) -> None:
        """Draw this, in the view the planner has."""
        self.shown = shown
        if shown is not None:
            self.dark = shown.dark
        self._version += 1
        self._changed.event(version=self._version)

    def _options(self) -> Any:
        hover = HoverTool(tooltips=_TOOLTIP, formatters=self._formatters(), point_policy="follow_mouse", attachment="horizontal")
        wheel = WheelZoomTool(zoom_on_axis=False)
        return hv.opts.Image(
            responsive=True,
            tools=[hover, PanTool(), wheel, ResetTool()],
            default_tools=[],
            active_tools=["pan", "wheel_zoom"],
            xaxis=None,
            yaxis=None,
            toolbar=None,
            show_frame=False,
            clim=(0, 1),
            cmap=["#000000", "#ffffff"],
            framewise=False,
            min_height=260,
            hooks=[self._finish],
        )

    def _formatters(self) -> dict[str, CustomJSHover]:
        return {"@image": self._said["value"], "@known": self._said["known"], "$y": self._said["lat"], "$x": self._said["lon"]}

    def _draw(
        self, version: int, x_range: Range | None, y_range: Range | None, width: int | None, height: int | None, scale: float
    ) -> hv.Image:
        """The picture of the current view, as two layers: the value, and how many months of it are known."""
        if width and height and (width, height) != self._size:
            self._resize(width, height)
        elif x_range and y_range and (x_range, y_range) != self._reported:
            self._view = (x_range, y_range)
        self._reported = (x_range, y_range)
        shown = self.shown
        self.picture = None
        if shown is not None and self._size is not None:
            field = shown.field
            self.picture = viewport(field.values, *self._view, *self._size, op_of(field.metric), _RANKS)
            known = viewport(field.known_months, *self._view, *self._size, "min")
        if self.picture is None or known is None:
            # The browser has not told its size yet, or looks beside the world.
            empty = np.full((2, 2), np.nan, np.float32)
            return _image(Picture(empty, (-EDGE, EDGE), (-EDGE, EDGE), 1.0), np.zeros((2, 2), np.uint8))
        return _image(self.picture, known.values)

    def _resize(self, width: int, height: int) -> None:
        if self._size is None:
            self._view = fit_world(width, height)
        else:
            x_range, y_range = self._view
            self._view = refit(x_range, y_range, width, height, (x_range[1] - x_range[0]) / self._size[0])
        self._size = (width, height)
        self._move = True

    def _finish(self, plot: Any, _: hv.Image) -> None:
        """What HoloViews has no option for, after each drawing: ranges with square pixels, colours, words, outlines."""
        figure = plot.state
        around = palette.theme(self.dark)
        if not self._lines:
            figure.lod_timeout = LOD_TIMEOUT
            figure.border_fill_color = figure.outline_line_color = None
            figure.min_border = 0
            for r in (figure.x_range, figure.y_range):
                _bound(r)
            for name, width, alpha in (("borders", 0.7, 0.45), ("coastlines", 0.9, 0.75)):
                x, y = outlines()[name]
                self._lines.append(figure.line(x, y, line_width=width, line_alpha=alpha, line_color=around.line, level="annotation"))
        if self._move or not plot.drawn:
            (figure.x_range.start, figure.x_range.end), (figure.y_range.start, figure.y_range.end) = self._view
            figure.x_range.reset_start, figure.x_range.reset_end = fit_world(*(self._size or FIRST_SIZE))[0]
            figure.y_range.reset_start, figure.y_range.reset_end = fit_world(*(self._size or FIRST_SIZE))[1]
            self._move = False
        figure.background_fill_color = around.page
        for line in self._lines:
            line.glyph.line_color = around.line
        self._colour(plot.handles["glyph"], around)

    def _colour(self, glyph: Any, around: palette.Theme) -> None:
        shown, mapper = self.shown, self._mapper
        blank = "rgba(0,0,0,0)"
        if shown is None or self.picture is None:
            mapper.update(nan_color=blank, low_color=blank)
        else:
            metric = shown.field.metric
            colours = palette.action_colours(ACTIONS, shown.dark) if metric == "action" else palette.ramp(metric, shown.dark)
            mapper.update(
                palette=colours, low=shown.limits.low, high=shown.limits.high, nan_color=around.unknown, low_color=around.out_of_scope
            )
            said = words.hover_words(shown.field, pixel_words(metric, self.picture.cells), self.picture.cells >= 1.5)
            for formatter in self._said.values():
                if formatter.args.get("words") != said:
                    formatter.args = {"words": said}
        if glyph.color_mapper is not mapper:
            glyph.color_mapper = mapper


def _bound(axis: Range1d) -> None:
    axis.bounds = (-2 * EDGE, 2 * EDGE)
    axis.min_interval, axis.max_interval = CLOSEST, 3.9 * EDGE


def _image(picture: Picture, known: NDArray[np.uint8]) -> hv.Image:
    rows, columns = picture.values.shape
    (left, right), (bottom, top) = picture.x_range, picture.y_range
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows
    return hv.Image((x, y, picture.values, known), ["x", "y"], ["value", "known"], bounds=(left, bottom, right, top))


_TOOLTIP = """
<div style="font-size:14px;line-height:1.4;padding:2px 4px;max-width:340px">
  <div style="font-weight:600">@image{value}</div>
  <div>@known{known}</div>
  <div>$y{lat}, $x{lon}</div>
</div>
"""
