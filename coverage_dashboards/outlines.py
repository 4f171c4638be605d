"""Coastlines and borders as the map needs them: in metres, as fine as the zoom can show, and only those in view.

The browser strokes a line along its whole length at every repaint, seen or not: all the coasts of the 1:50m map cost
a zoom
two seconds. What is in view at a fitting level costs next to nothing, and is cheap enough to send along with the
picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from coverage_dashboards.viewport import EDGE, LATITUDE_LIMIT, Range, mercator_x, mercator_y
from coverage_pipeline.geometry import outlines as geodata

Name = Literal["coastlines", "borders"]
NAMES: tuple[Name, ...] = ("borders", "coastlines")

LEVELS = ((20_000.0, 0.3), (8_000.0, 0.1), (2_500.0, 0.03), (0.0, 0.0))
"""From so many metres a pixel on, lines simplified by so many degrees (about a pixel), without islands that small."""
_PIECE = 48


@dataclass(frozen=True)
class Lines:
    """Lines cut into short pieces, one after the other, NaN after each; ``piece`` numbers the vertices' pieces."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    piece: NDArray[np.int64]
    boxes: NDArray[np.float64]
    """West, south, east, north of each piece, metres."""

    def within(self, x_range: Range, y_range: Range) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The pieces whose boxes meet the view."""
        west, south, east, north = self.boxes.T
        seen = (west <= x_range[1]) & (east >= x_range[0]) & (south <= y_range[1]) & (north >= y_range[0])
        keep = seen[self.piece]
        return self.x[keep], self.y[keep]


@cache
def _lines(name: Name, tolerance: float) -> Lines:
    """One level of one layer, projected once for the process."""
    geometry: Any = geodata.coastlines() if name == "coastlines" else geodata.borders()
    parts = shapely.get_parts(shapely.simplify(geometry, tolerance) if tolerance else geometry)
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
    lines, world = _lines(name, tolerance), 2 * EDGE
    copies = []
    for turn in (-1, 0, 1):  # beyond the antimeridian the world goes on
        west, east = around_x[0] - turn * world, around_x[1] - turn * world
        if west < EDGE and east > -EDGE:
            x, y = lines.within((west, east), around_y)
            copies.append((x + np.float32(turn * world), y))
    return np.concatenate([x for x, _ in copies]), np.concatenate([y for _, y in copies])


def coastlines() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All coastlines at the finest level: x and y in metres of Web Mercator, NaN between two pieces."""
    lines = _lines("coastlines", 0.0)
    return lines.x, lines.y


def prepare_outlines() -> None:
    """Project every level now rather than while a planner waits."""
    for name in NAMES:
        for _, tolerance in LEVELS:
            _lines(name, tolerance)
