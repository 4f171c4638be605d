"""What of a global field a window onto the map shows: one value a screen pixel, in Web Mercator (EPSG:3857).

Mercator is separable: a pixel column is a range of longitudes and a pixel row a range of latitudes whatever the other
one is. So
the warp is two lists of cell ranges and one pass over the pixels, where a general reprojection of the same grid takes
19 s.

The rule, along each axis: a pixel shows the cells whose centres lie in it, and where none does, the cell that holds
the pixel's centre. Hence a pixel shows only cells it overlaps, and at no zoom is a cell lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coverage_pipeline.geometry.bbox import GLOBE, BBox

RADIUS = 6_378_137.0
"""Of the sphere of EPSG:3857, metres (EPSG guidance note 7-2, method 1024)."""
EDGE = math.pi * RADIUS
"""The world is a square of this half side."""
LATITUDE_LIMIT = math.degrees(math.atan(math.sinh(math.pi)))
"""85.0511…: where that square ends; poleward of it there is no map."""

OUT_OF_SCOPE = np.float32(-np.inf)
"""Value of a cell in which nothing is desired; NaN stands for *not known*."""

LONGEST_SIDE = 4096
"""Pixels. The browser reports its size, which is untrusted."""

Op = Literal["mean", "max", "min", "urgent"]


Range = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """The part of a view that lies on the world: one value a pixel, southernmost row first, and its extent in
    metres.
    """

    values: NDArray[Any]
    x_range: Range
    y_range: Range
    cells: float
    """Grid cells that one pixel shows, on average: 1 when zoomed in."""


def mercator_x(longitude: Any) -> Any:
    """Metres east of Greenwich."""
    return np.radians(longitude) * RADIUS


def mercator_y(latitude: Any) -> Any:
    """Metres north of the equator; latitudes beyond the map end at its edge."""
    limited = np.clip(latitude, -LATITUDE_LIMIT, LATITUDE_LIMIT)
    return np.arcsinh(np.tan(np.radians(limited))) * RADIUS


def longitude_of(x: Any) -> Any:
    """Degrees east."""
    return np.degrees(np.asarray(x, np.float64) / RADIUS)


def latitude_of(y: Any) -> Any:
    """Degrees north."""
    return np.degrees(np.arctan(np.sinh(np.asarray(y, np.float64) / RADIUS)))


def _pixels(view: Range, count: int, low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges and centres of the pixels whose centres lie on the field, between ``low`` and ``high`` metres."""
    start, stop = view
    size = (stop - start) / count
    first = max(0, math.ceil((low - start) / size - 0.5))
    last = min(count - 1, math.floor((high - start) / size - 0.5))
    index = np.arange(first, last + 2, dtype=np.float64)
    edges = start + index * size
    return edges, edges[:-1] + size / 2


def _cells(
    edges: NDArray[np.float64], centres: NDArray[np.float64], count: int, *, wraps: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last (exclusive) cell of each pixel; edges and centres of the pixels in units of cells. Where the cells ``wrap``, their
    numbers go on beyond the first and the last one.
    """
    bounds, holds = np.ceil(edges - 0.5).astype(np.int64), np.floor(centres).astype(np.int64)
    first, last = bounds[:-1], bounds[1:]
    if not wraps:
        holds = np.clip(holds, 0, count - 1)
        first, last = np.clip(first, 0, count), np.clip(last, 0, count)
    none = last <= first
    return np.where(none, holds, first), np.where(none, holds + 1, last)


@njit(cache=True, nogil=True)
def _wrapped(column, columns):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    return column - columns if column >= columns else column


# One loop for each way, each without a branch that depends on a value: whether a cell is known cannot be foretold, and a wrong guess costs
# more than the sum. ``left`` is within the field, ``right`` may go on beyond its last column where the field wraps.
@njit(cache=True, nogil=True)
def _means(field, top, bottom, left, right, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    columns = field.shape[1]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total, known, unknown = 0.0, 0, 0
            for row in range(top[i], bottom[i]):
                for column in range(left[j], right[j]):
                    value = field[row, _wrapped(column, columns)]
                    counts = (value == value) & (value != -np.inf)
                    total += value if counts else 0.0
                    known += counts
                    unknown += value != value
            out[i, j] = total / known if known else (np.nan if unknown else -np.inf)


@njit(cache=True, nogil=True)
def _extremes(field, top, bottom, left, right, sign, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The highest values, or with a ``sign`` of -1 the lowest."""
    columns = field.shape[1]
    nothing, one = np.float32(-np.inf), np.float32(sign)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            best, unknown = nothing, 0
            for row in range(top[i], bottom[i]):
                for column in range(left[j], right[j]):
                    value = field[row, _wrapped(column, columns)]
                    signed = value * one
                    better = (signed > best) & (value != nothing)
                    best = signed if better else best
                    unknown += value != value
            out[i, j] = best * one if best != nothing else (np.float32(np.nan) if unknown else nothing)


@njit(cache=True, nogil=True)
def _whole_extremes(field, top, bottom, left, right, sign, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The same of whole numbers, which are all known."""
    columns = field.shape[1]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            best = np.int64(field[top[i], _wrapped(left[j], columns)]) * sign
            for row in range(top[i], bottom[i]):
                for column in range(left[j], right[j]):
                    best = max(best, np.int64(field[row, _wrapped(column, columns)]) * sign)
            out[i, j] = best * sign


@njit(cache=True, nogil=True)
def _most_urgent(field, top, bottom, left, right, rank, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Flag values of the highest rank. Not known and NaN are the same class, and must not hide behind a quieter one."""
    columns = field.shape[1]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            best, highest = np.int64(0), np.int64(-1)
            for row in range(top[i], bottom[i]):
                for column in range(left[j], right[j]):
                    value = field[row, _wrapped(column, columns)]
                    code = np.int64(value) if value == value else np.int64(0)
                    here = rank[code]
                    best = code if here > highest else best
                    highest = max(here, highest)
            out[i, j] = best


def viewport(
    field: NDArray[Any],
    x_range: Range,
    y_range: Range,
    width: int,
    height: int,
    op: Op,
    urgency: NDArray[np.int64] | None = None,
    extent: BBox = GLOBE,
    *,
    endless: bool = False,
) -> Picture | None:
    """The field as ``width`` × ``height`` pixels of the view, of which only those on the field are made; None if none
    is. ``endless`` repeats a field of the whole world east and west of it.

    ``field`` is the ``extent``, ``(lat, lon)`` ascending from its south and west, NaN where not known, ``OUT_OF_SCOPE``
    where nothing
    is wanted; whole numbers are taken as known. Of a pixel's cells the known ones count, by ``op``: ``mean``,
    ``max``, ``min``, or ``urgent``
    for actions (flag values; ``urgency`` ranks them), never a mean. A pixel without a known cell is not known if any
    of its cells could be known.
    """
    if not all(math.isfinite(v) for v in (*x_range, *y_range)) or x_range[0] >= x_range[1] or y_range[0] >= y_range[1]:
        return None
    width, height = (min(max(1, int(n)), LONGEST_SIDE) for n in (width, height))
    west, south, east, north = extent
    wraps = endless and east - west > 360 - 1e-9  # beyond the antimeridian the world goes on
    ends = x_range if wraps else (float(mercator_x(west)), float(mercator_x(east)))
    x_edges, x_centres = _pixels(x_range, width, *ends)
    y_edges, y_centres = _pixels(y_range, height, float(mercator_y(south)), float(mercator_y(north)))
    if not x_centres.size or not y_centres.size:
        return None
    rows, columns = field.shape
    # In units of cells: column k spans k..k+1 from the west, row k from the south.
    across, up = columns / (east - west), rows / (north - south)
    left, right = _cells((longitude_of(x_edges) - west) * across, (longitude_of(x_centres) - west) * across, columns, wraps=wraps)
    top, bottom = _cells((latitude_of(y_edges) - south) * up, (latitude_of(y_centres) - south) * up, rows)
    whole = field.dtype.kind in "ui"
    out = np.empty((y_centres.size, x_centres.size), field.dtype if whole and op != "mean" else np.float32)
    turns = left // columns  # beyond the antimeridian
    left, right = left - turns * columns, right - turns * columns
    if op == "mean":
        _means(field, top, bottom, left, right, out)
    elif op == "urgent":
        _most_urgent(field, top, bottom, left, right, np.zeros(256, np.int64) if urgency is None else np.asarray(urgency, np.int64), out)
    else:
        (_whole_extremes if whole else _extremes)(field, top, bottom, left, right, 1 if op == "max" else -1, out)
    cells = float(np.mean(right - left) * np.mean(bottom - top))
    return Picture(out, (float(x_edges[0]), float(x_edges[-1])), (float(y_edges[0]), float(y_edges[-1])), cells)


def fit_world(width: int, height: int) -> tuple[Range, Range]:
    """The first view: all longitudes if the inhabited latitudes fit too, else wider; square pixels."""
    south, north = float(mercator_y(-58.0)), float(mercator_y(76.0))
    metres = max(2 * EDGE / max(width, 1), (north - south) / max(height, 1))
    middle = (south + north) / 2
    return (-metres * width / 2, metres * width / 2), (middle - metres * height / 2, middle + metres * height / 2)


def fit_extent(extent: BBox, width: int, height: int) -> tuple[Range, Range]:
    """The first view of a region: all of it, with a margin; of the globe `fit_world`; square pixels."""
    if extent == GLOBE:
        return fit_world(width, height)
    west, south, east, north = extent
    x, y = (float(mercator_x(west)), float(mercator_x(east))), (float(mercator_y(south)), float(mercator_y(north)))
    metres = 1.1 * max((x[1] - x[0]) / max(width, 1), (y[1] - y[0]) / max(height, 1))
    return refit(x, y, width, height, metres)


def refit(x_range: Range, y_range: Range, width: int, height: int, metres: float) -> tuple[Range, Range]:
    """The same place at ``metres`` a pixel for a map that became another size."""
    x, y = sum(x_range) / 2, sum(y_range) / 2
    return (x - metres * width / 2, x + metres * width / 2), (y - metres * height / 2, y + metres * height / 2)


def compile_kernels() -> None:
    """Have the compiled code ready for the types the dashboard uses, so that no planner waits for it."""
    kinds: tuple[tuple[type, Op], ...] = ((np.float32, "mean"), (np.float32, "max"), (np.float32, "urgent"), (np.uint8, "min"))
    for dtype, op in kinds:
        viewport(np.zeros((4, 8), dtype), (-EDGE, EDGE), (-EDGE, EDGE), 2, 2, op)
