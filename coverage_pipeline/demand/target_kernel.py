"""The area of a target that convex pieces leave uncovered: a compiled kernel.

Half-plane clipping (Sutherland and Hodgman 1974, doi:10.1145/360767.360802) of each ring of the target. A clipped ring may run along the
clip line and back, which adds no signed area: so rings need not be convex, and holes count by their sign. GEOS lost: its overlay makes
a geometry, where only the area is wanted, and takes twenty times as long for an outline of 100 vertices and a footprint of four.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import shapely
from numba import njit
from numpy.typing import NDArray

from coverage_pipeline.geometry.ellipsoid import ECCENTRICITY, WGS84_A_KM

_HULL_NOISE = 1e-12
"""A polygon that lacks less than this share of its convex hull is the hull."""
_E, _E2, _A2 = ECCENTRICITY, ECCENTRICITY**2, WGS84_A_KM**2
_SHORT = 1.0
"""Degrees of latitude up to which Simpson's rule is exact to 1e-10 of the area under an edge; longer edges are taken in pieces."""


class Rings(NamedTuple):
    """Polygons as rings without the closing vertex: shells counter-clockwise, holes clockwise."""

    coords: NDArray[np.float64]
    """``(vertices, 2)``, degrees of longitude and latitude."""
    offsets: NDArray[np.int64]
    """Ring i is ``coords[offsets[i]:offsets[i + 1]]``."""
    first: NDArray[np.int64]
    """Polygon k owns the rings ``first[k]`` to before ``first[k + 1]``."""


def rings_of(polygons: NDArray[np.object_]) -> Rings:
    """The rings of Polygons or MultiPolygons, ``(n,)``."""
    parts, owner = shapely.get_parts(polygons, return_index=True)
    return _rings(shapely.orient_polygons(parts), owner, len(polygons))


def convex_parts(shapes: NDArray[np.object_]) -> Rings:
    """The shapes as convex polygons, each one's own: itself where it is convex, else triangles. None has no part."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    polygonal = shapely.get_type_id(parts) == 3
    parts, owner = parts[polygonal], owner[polygonal]
    hull = shapely.convex_hull(parts)
    convex = shapely.area(parts) >= (1 - _HULL_NOISE) * shapely.area(hull)
    triangles, place = shapely.get_parts(shapely.constrained_delaunay_triangles(parts[~convex]), return_index=True)
    pieces = np.concatenate([hull[convex], triangles])
    of = np.concatenate([owner[convex], owner[~convex][place]])
    keep = shapely.get_type_id(pieces) == 3  # the hull of a sliver may be a line
    pieces, of = pieces[keep], of[keep]
    order = np.argsort(of, kind="stable")
    return _rings(shapely.orient_polygons(pieces[order]), of[order], len(shapes))


def _rings(polygons: NDArray[np.object_], owner: NDArray[np.int64], count: int) -> Rings:
    rings, of = shapely.get_rings(polygons, return_index=True)
    coords, ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.append(ring[1:] != ring[:-1], True) if len(ring) else np.zeros(0, bool)
    coords, ring = coords[~closing], ring[~closing]
    offsets = np.searchsorted(ring, np.arange(len(rings) + 1)).astype(np.int64)
    first = np.searchsorted(owner[of] if len(of) else owner[:0], np.arange(count + 1)).astype(np.int64)
    return Rings(np.ascontiguousarray(coords), offsets, first)


@njit(cache=True, nogil=True)
def _zone(latitude):  # type: ignore[no-untyped-def]
    """``geometry.ellipsoid.zone_km2`` of one latitude, degrees; atanh by its series, whose next term is below 1e-14."""
    sine = math.sin(math.radians(latitude))
    x = _E2 * sine * sine
    series = 1 + x * (1 / 3 + x * (1 / 5 + x * (1 / 7 + x * (1 / 9 + x / 11))))
    return _A2 / 2 * (1 - _E2) * sine * (1 / (1 - x) + series)


@njit(cache=True, nogil=True)
def _signed_km2(ring, n):  # type: ignore[no-untyped-def]
    """Area within a ring of ``n`` vertices, km²; positive where it runs counter-clockwise."""
    area = 0.0
    at_end = _zone(ring[0, 1])
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        width = ring[i, 0] - ring[j, 0]
        low, high = ring[i, 1], ring[j, 1]
        at_start = at_end
        at_end = at_start if low == high else _zone(high)
        if width == 0.0 or low == high:
            area += width * at_start
            continue
        steps = max(1, math.ceil(abs(high - low) / _SHORT))
        half = (high - low) / steps / 2
        total, left = 0.0, at_start
        for step in range(steps):
            right = at_end if step + 1 == steps else _zone(low + (2 * step + 2) * half)
            total += left + 4 * _zone(low + (2 * step + 1) * half) + right
            left = right
        area += width * total / (6 * steps)
    return math.radians(area)


@njit(cache=True, nogil=True)
def _clip(ring, n, ax, ay, bx, by, side, out):  # type: ignore[no-untyped-def]
    """The part of a ring left of the line from a to b (``side`` 1.0) or right of it (-1.0), into ``out``; its vertices, 0 for none."""
    count, strictly = 0, 0
    px, py = ring[n - 1, 0], ring[n - 1, 1]
    previous = side * ((bx - ax) * (py - ay) - (by - ay) * (px - ax))
    for i in range(n):
        x, y = ring[i, 0], ring[i, 1]
        here = side * ((bx - ax) * (y - ay) - (by - ay) * (x - ax))
        if (here > 0.0 and previous < 0.0) or (here < 0.0 and previous > 0.0):
            t = previous / (previous - here)
            out[count, 0], out[count, 1] = px + t * (x - px), py + t * (y - py)
            count += 1
        if here >= 0.0:
            out[count, 0], out[count, 1] = x, y
            count += 1
            if here > 0.0:
                strictly += 1
        px, py, previous = x, y, here
    return count if strictly > 0 else 0


@njit(cache=True, nogil=True)
def _uncovered(ring, n, corners, offsets, parts, k, last):  # type: ignore[no-untyped-def]
    """Signed area, km², of a ring without the convex polygons ``parts[k:last]``."""
    west, south, east, north = ring[0, 0], ring[0, 1], ring[0, 0], ring[0, 1]
    for i in range(1, n):
        west, east = min(west, ring[i, 0]), max(east, ring[i, 0])
        south, north = min(south, ring[i, 1]), max(north, ring[i, 1])
    while k < last:  # the next that may meet the ring
        left, right, low, high = np.inf, -np.inf, np.inf, -np.inf
        for i in range(offsets[parts[k]], offsets[parts[k] + 1]):
            left, right = min(left, corners[i, 0]), max(right, corners[i, 0])
            low, high = min(low, corners[i, 1]), max(high, corners[i, 1])
        if left < east and right > west and low < north and high > south:
            break
        k += 1
    if k == last:
        return _signed_km2(ring, n)
    total = 0.0
    first, end = offsets[parts[k]], offsets[parts[k] + 1]
    rest, m = ring, n
    for i in range(first, end):
        j = i + 1 if i + 1 < end else first
        outside = np.empty((2 * m + 2, 2))
        count = _clip(rest, m, corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1], -1.0, outside)
        if count >= 3:
            total += _uncovered(outside, count, corners, offsets, parts, k + 1, last)
        inside = np.empty((2 * m + 2, 2))
        m = _clip(rest, m, corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1], 1.0, inside)
        rest = inside
        if m < 3:
            break
    return total


@njit(cache=True, nogil=True)
def uncovered_km2(  # type: ignore[no-untyped-def]
    coords, ring_offsets, first_ring, corners, part_offsets, target, parts, group_offsets, start, end, out
):
    """For each group from ``start`` to before ``end`` the area of its target, km², that its parts leave uncovered, into ``out``.

    ``coords, ring_offsets, first_ring`` are the targets' ``Rings``; ``corners, part_offsets`` the rings of convex parts; ``target`` is the
    index of each group's target; group g has the parts ``parts[group_offsets[g]:group_offsets[g + 1]]`` (int64).
    """
    for g in range(start, end):
        total = 0.0
        for r in range(first_ring[target[g]], first_ring[target[g] + 1]):
            ring = coords[ring_offsets[r] : ring_offsets[r + 1]]
            total += _uncovered(ring, len(ring), corners, part_offsets, parts, group_offsets[g], group_offsets[g + 1])
        out[g] = total
