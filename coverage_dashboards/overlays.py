"""What can lie over the map: the outlines of targets, and the footprints of the scenes of a month.

A few are drawn as lines, with the names of targets. Of many the browser would stroke every vertex at every repaint, so datashader counts
them into the pixels of the view, and the browser gets a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import shapely
from bokeh.models import ColumnDataSource
from numpy.typing import NDArray

from coverage_dashboards import palette
from coverage_dashboards.escape import plain
from coverage_dashboards.outlines import TURNS, Lines
from coverage_dashboards.viewport import LATITUDE_LIMIT, Range, mercator_x, mercator_y
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.months import Month
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

Over = Literal["targets", "footprints"]
OVERS: dict[Over, str] = {"targets": "Targets", "footprints": "Footprints of scenes"}
"""Layers by key, in the order of the sidebar."""
MOST_POINTS = 20_000
"""Vertices in a view that the browser strokes itself."""
MOST_NAMES = 40
MOST_SHAPES = 1_000_000
"""Outlines of one layer; a month of every Sentinel-2 scene is a third of it."""
_COLOURS: dict[Over, str] = {"targets": "#c2007a", "footprints": "#ff8c00"}
_STEPS = 64


@dataclass(frozen=True)
class Shapes:
    """Outlines, one piece of ``lines`` each, NaN after each ring, and their names."""

    lines: Lines
    names: tuple[str, ...] = ()
    """Of each outline; empty: they have none."""

    def __len__(self) -> int:
        return len(self.lines.boxes)

    @property
    def nbytes(self) -> int:
        """Bytes it occupies."""
        lines = self.lines
        return lines.x.nbytes + lines.y.nbytes + lines.piece.nbytes + lines.boxes.nbytes + sum(map(len, self.names))


@dataclass(frozen=True)
class Drawing:
    """What the browser gets of a layer in a view: lines, or a picture, and names."""

    x: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    y: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    picture: NDArray[np.uint32] | None = None
    """RGBA of each pixel of the view, southernmost row first."""
    names: tuple[tuple[float, float, str], ...] = ()


def shapes_of(outlines: Sequence[shapely.Geometry] | NDArray[np.object_], names: Sequence[str] = ()) -> Shapes:
    """Outlines in degrees, valid and cut at the antimeridian, as they are drawn; those without any vertex take no part."""
    given = np.asarray(outlines, dtype=object)[:MOST_SHAPES]
    rings, ring_of = shapely.get_rings(given, return_index=True) if len(given) else (np.empty(0, object), np.empty(0, np.int64))
    points, at = shapely.get_coordinates(rings, return_index=True)
    # After the last vertex of each ring comes a gap.
    ends = np.flatnonzero(np.diff(at, append=-1)) + 1
    lat = np.clip(points[:, 1], -LATITUDE_LIMIT, LATITUDE_LIMIT)
    x, y = (np.insert(v, ends, np.nan).astype(np.float32) for v in (mercator_x(points[:, 0]), mercator_y(lat)))
    shape = np.insert(ring_of[at], ends, ring_of[at[ends - 1]])
    bounds = shapely.bounds(given).reshape(-1, 4)
    boxes = np.column_stack([mercator_x(bounds[:, 0]), mercator_y(bounds[:, 1]), mercator_x(bounds[:, 2]), mercator_y(bounds[:, 3])])
    return Shapes(Lines(x, y, shape, boxes), tuple(plain(name) for name in names[:MOST_SHAPES]))


def target_shapes(targets: Targets) -> Shapes:
    """The targets of a build."""
    return shapes_of(targets.table.geometry.to_numpy(), targets.table["name"].astype(str).to_list())


def footprint_shapes(store: Store, sensors: Sequence[str], months: Sequence[Month]) -> Shapes:
    """The footprints of all scenes that the catalogues list; a month that was not scanned has none. Raises ``StoreError``."""
    found: list[NDArray[np.object_]] = []
    for sensor in sensors:
        for month in months:
            path = store.scenes(sensor, month)
            if path.exists():
                table, _ = read_parquet(path, ["geometry"])
                found.append(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))
    return shapes_of(np.concatenate(found) if found else np.empty(0, object))


def drawing_of(kind: Over, shapes: Shapes, view: tuple[Range, Range], size: tuple[int, int]) -> Drawing:
    """What of a layer a view of so many pixels shows."""
    (left, right), (bottom, top) = view
    names = []
    for shift in TURNS if shapes.names else ():
        some = np.flatnonzero(shapes.lines.met((left - shift, right - shift), (bottom, top)))[: MOST_NAMES + 1]
        west, _, east, north = shapes.lines.boxes[some].T
        names += list(zip(((west + east) / 2 + shift).tolist(), north.tolist(), (shapes.names[k] for k in some), strict=True))
    x, y = shapes.lines.within(*view)
    few = tuple(names) if len(names) <= MOST_NAMES else ()
    return Drawing(x, y, None, few) if x.size <= MOST_POINTS else Drawing(picture=_counted(kind, x, y, view, size), names=few)


def _counted(
    kind: Over, x: NDArray[np.float32], y: NDArray[np.float32], view: tuple[Range, Range], size: tuple[int, int]
) -> NDArray[np.uint32]:
    """Lines as a picture, the denser the less transparent."""
    import datashader as ds
    from datashader import transfer_functions as tf

    canvas = ds.Canvas(plot_width=size[0], plot_height=size[1], x_range=view[0], y_range=view[1])
    counts = canvas.line(pd.DataFrame({"x": x, "y": y}), "x", "y", agg=ds.count())
    return np.asarray(tf.shade(counts, cmap=_COLOURS[kind], how="log", min_alpha=70).to_numpy(), dtype=np.uint32)


def compile_datashader() -> None:
    """Have datashader's code ready, so that no planner waits for it."""
    _counted("footprints", np.array([0, 1, np.nan], np.float32), np.array([0, 1, np.nan], np.float32), ((0.0, 2.0), (0.0, 2.0)), (4, 4))


class OverGlyphs:
    """The layers of one figure."""

    def __init__(self, figure: Any) -> None:
        self._lines: dict[Over, ColumnDataSource] = {}
        self._pictures: dict[Over, ColumnDataSource] = {}
        self._names: dict[Over, Any] = {}
        for kind in OVERS:
            source = self._lines[kind] = ColumnDataSource({"x": [], "y": []})
            if kind == "targets":  # seen on every colour of the map
                figure.line("x", "y", source=source, line_width=3.5, line_color="#ffffff", line_alpha=0.7)
            figure.line("x", "y", source=source, line_width=1.8 if kind == "targets" else 1.0, line_color=_COLOURS[kind])
            picture = self._pictures[kind] = ColumnDataSource(_NO_PICTURE)
            figure.image_rgba("image", "x", "y", "dw", "dh", source=picture)
            self._names[kind] = figure.text(
                "x", "y", "text", source=ColumnDataSource({"x": [], "y": [], "text": []}), text_align="center", text_baseline="bottom",
                text_font_size="13px", text_font_style="bold", background_fill_alpha=0.75, border_radius=3, padding=2, y_offset=-3,
            )  # fmt: skip

    def draw(self, kind: Over, drawing: Drawing, view: tuple[Range, Range]) -> None:
        """Show a layer as it is in this view."""
        (left, right), (bottom, top) = view
        _set(self._lines[kind], {"x": drawing.x, "y": drawing.y})
        picture = _NO_PICTURE
        if drawing.picture is not None:
            picture = {"image": [drawing.picture], "x": [left], "y": [bottom], "dw": [right - left], "dh": [top - bottom]}
        _set(self._pictures[kind], picture)
        columns = zip(*drawing.names, strict=True) if drawing.names else ((), (), ())
        _set(self._names[kind].data_source, dict(zip(("x", "y", "text"), map(list, columns), strict=True)))

    def paint(self, dark: bool) -> None:
        """In the colours of the theme."""
        around = palette.theme(dark)
        for names in self._names.values():
            names.glyph.update(text_color=around.ink, background_fill_color=around.page)


_NO_PICTURE: dict[str, Any] = {"image": [], "x": [], "y": [], "dw": [], "dh": []}


def _set(source: ColumnDataSource, data: dict[str, Any]) -> None:
    """Send nothing where there was nothing before and is nothing now."""
    first = next(iter(data.values()))
    if len(first) or len(next(iter(source.data.values()))):
        source.data = data
