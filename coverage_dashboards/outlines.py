"""Coastlines and borders as the map needs them: in metres, as fine as the zoom can show, and only those in view.

The browser strokes a line along its whole length at every repaint, seen or not: all the coasts of the 1:50m map cost
a zoom
two seconds. What is in view at a fitting level costs next to nothing, and is cheap enough to send along with the
picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from coverage_dashboards.viewport import EDGE, LATITUDE_LIMIT, Range, latitude_of, mercator_x, mercator_y
from coverage_pipeline.geometry import outlines as geodata

Name = Literal["coastlines", "borders"]
NAMES: tuple[Name, ...] = ("borders", "coastlines")

_FINE = -1.0
LEVELS = ((20_000.0, 0.3), (8_000.0, 0.1), (2_500.0, 0.03), (700.0, 0.0), (0.0, _FINE))
"""From so many metres a pixel on, lines simplified by so many degrees (about a pixel), without islands that small; closer than the last
step of the 1:50m map, the coasts of the 1:10m map."""
_PIECE = 48
TURNS = (-2 * EDGE, 0.0, 2 * EDGE)
"""Metres between the world and its repetitions west and east of it."""


@dataclass(frozen=True)
class Lines:
    """Lines cut into short pieces, one after the other, NaN after each; ``piece`` numbers the vertices' pieces."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    piece: NDArray[np.int64]
    boxes: NDArray[np.float64]
    """West, south, east, north of each piece, metres, ``(pieces, 4)``."""

    def met(self, x_range: Range, y_range: Range) -> NDArray[np.bool_]:
        """Which pieces have a box that meets the view."""
        west, south, east, north = self.boxes.T
        return np.asarray((west <= x_range[1]) & (east >= x_range[0]) & (south <= y_range[1]) & (north >= y_range[0]))

    def within(self, x_range: Range, y_range: Range) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Those pieces, also where the world goes on beyond the antimeridian."""
        xs, ys = [self.x[:0]], [self.y[:0]]
        for shift in TURNS:
            seen = self.met((x_range[0] - shift, x_range[1] - shift), y_range)
            if seen.any():
                keep = seen[self.piece]
                xs.append(self.x[keep] + np.float32(shift))
                ys.append(self.y[keep])
        return np.concatenate(xs), np.concatenate(ys)


@cache
def _lines(name: Name, tolerance: float) -> Lines:
    """One level of one layer, projected once for the process."""
    fine = geodata.fine_coastlines if tolerance == _FINE else geodata.coastlines
    geometry: Any = fine() if name == "coastlines" else geodata.borders()
    parts = shapely.get_parts(shapely.simplify(geometry, tolerance) if tolerance > 0 else geometry)
    west, south, east, north = shapely.bounds(parts).T
    parts = parts[np.maximum(east - west, north - south) > 3 * tolerance]
    pieces = []
    for part in parts:
        points = shapely.get_coordinates(part)
        points = points[np.abs(points[:, 1]) <= LATITUDE_LIMIT]
        pieces += [points[k : k + _PIECE + 1] for k in range(0, max(len(points) - 1, 0), _PIECE)]
    gap = np.full((1, 2), np.nan)
    flat = np.concatenate([np.concatenate([points, gap]) for points in pieces])
    x, y = mercator_x(flat[:, 0]), mercator_y(flat[:, 1])
    number = np.repeat(np.arange(len(pieces)), [len(points) + 1 for points in pieces])
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    boxes = np.stack([reduce.reduceat(v, starts) for reduce, v in ((np.fmin, x), (np.fmin, y), (np.fmax, x), (np.fmax, y))], axis=1)
    # Half a metre is exact enough, and half as much to send.
    return Lines(x.astype(np.float32), y.astype(np.float32), number, boxes)


def outlines(name: Name, x_range: Range, y_range: Range, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What to draw of a layer in a view of so many pixels, and half a view around it, for the pointer that drags it."""
    span_x, span_y = x_range[1] - x_range[0], y_range[1] - y_range[0]
    tolerance = next(t for metres, t in LEVELS if span_x / max(width, 1) >= metres)
    around_x = (x_range[0] - span_x / 2, x_range[1] + span_x / 2)
    around_y = (y_range[0] - span_y / 2, y_range[1] + span_y / 2)
    return _lines(name, tolerance).within(around_x, around_y)


@dataclass(frozen=True)
class _Named:
    """A country's name and where its largest part lies, metres."""

    name: str
    x: float
    y: float
    across: float


@cache
def _countries() -> tuple[_Named, ...]:
    found = []
    for name, outline in geodata.countries().items():
        largest = max(shapely.get_parts(outline), key=shapely.area)
        middle = shapely.point_on_surface(largest)
        west, _, east, _ = largest.bounds
        across = float(mercator_x(east) - mercator_x(west))
        found.append(_Named(name, float(mercator_x(middle.x)), float(mercator_y(middle.y)), across))
    return tuple(sorted(found, key=lambda one: -one.across))


def country_names(x_range: Range, y_range: Range, width: int) -> tuple[list[float], list[float], list[str]]:
    """Where the names of countries stand in a view of so many pixels: those that fit into their country's largest part, and do not lie
    over the name of a larger one.
    """
    metres = (x_range[1] - x_range[0]) / max(width, 1)
    xs: list[float] = []
    ys: list[float] = []
    names: list[str] = []
    for turn in (-1, 0, 1):
        for one in _countries():
            x, across = one.x + turn * 2 * EDGE, len(one.name) * _LETTER * metres
            if one.across < across or not (x_range[0] <= x <= x_range[1] and y_range[0] <= one.y <= y_range[1]):
                continue
            taken = any(
                abs(x - there) < (across + len(name) * _LETTER * metres) / 2 and abs(one.y - y) < _LINE * metres
                for there, y, name in zip(xs, ys, names, strict=True)
            )
            if not taken:
                xs.append(x)
                ys.append(one.y)
                names.append(one.name)
    return xs, ys, names


_LETTER, _LINE = 8.0, 18.0
"""Pixels of a letter and of a line of text, with the room about them."""
_SCALE_PIXELS = 120
"""The scale's line is this long at most."""


@dataclass(frozen=True)
class Scale:
    """A length on the ground and the pixels it takes."""

    pixels: int
    words: str


def scale_of(x_range: Range, y_range: Range, width: int) -> Scale:
    """The scale in the middle of a view of so many pixels. Mercator's differs by latitude, so that is said: 1 / cos(latitude) of the
    equator's (EPSG guidance note 7-2, method 1024).
    """
    latitude = float(latitude_of(min(max(sum(y_range) / 2, -EDGE), EDGE)))
    metres = (x_range[1] - x_range[0]) / max(width, 1) * math.cos(math.radians(latitude))
    longest = metres * _SCALE_PIXELS
    power = 10.0 ** math.floor(math.log10(longest))
    length = next(n * power for n in (5, 2, 1) if n * power <= longest)
    said = f"{length / 1000:,.0f} km" if length >= 1000 else f"{length:,.0f} m"
    where = f"{abs(latitude):.0f}° {'N' if latitude >= 0 else 'S'}"
    return Scale(round(length / metres), f"{said} (at {where})")


def coastlines() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All coastlines at the finest level: x and y in metres of Web Mercator, NaN between two pieces."""
    lines = _lines("coastlines", 0.0)
    return lines.x, lines.y


def prepare_outlines() -> None:
    """Project every level now rather than while a planner waits."""
    for name in NAMES:
        for _, tolerance in LEVELS:
            _lines(name, tolerance)
