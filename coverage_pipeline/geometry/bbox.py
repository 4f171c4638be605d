"""Boxes of longitude and latitude (RFC 7946: west > east crosses the antimeridian)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BBox = tuple[float, float, float, float]
GLOBE: BBox = (-180.0, -90.0, 180.0, 90.0)
"""West, south, east, north, degrees."""


def flat_bbox(bbox: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """West, south, east, north of a bbox of four numbers, or of six with heights (RFC 7946, section 5)."""
    half = len(bbox) // 2
    return bbox[0], bbox[1], bbox[half], bbox[half + 1]


def split_bbox(bbox: Sequence[float]) -> list[BBox]:
    """The one or two boxes with minx <= maxx that ``(minx, miny, maxx, maxy)`` is made of, the western one first.

    Raises ValueError: miny > maxy, or a coordinate beyond ±180 or ±90.
    """
    minx, miny, maxx, maxy = checked_bbox(bbox)
    if minx <= maxx:
        return [(minx, miny, maxx, maxy)]
    halves: list[BBox] = [(minx, miny, 180.0, maxy), (-180.0, miny, maxx, maxy)]
    # a half without width is the seam itself; (180, …, -180, …) is nothing but seam and keeps one
    return [half for half in halves if half[0] < half[2]] or halves[:1]


def checked_bbox(bbox: Sequence[float], name: str = "bbox") -> BBox:
    values = tuple(float(value) for value in bbox)
    if len(values) != 4:
        raise ValueError(f"{name} {values}: four numbers wanted, minx, miny, maxx, maxy")
    minx, miny, maxx, maxy = values
    if not (abs(minx) <= 180 and abs(maxx) <= 180 and abs(miny) <= 90 and abs(maxy) <= 90):
        raise ValueError(f"{name} {values} goes beyond ±180 of longitude or ±90 of latitude")
    if miny > maxy:
        raise ValueError(f"{name} {values}: miny lies north of maxy")
    return minx, miny, maxx, maxy
