"""What polygons share and lack, many pairs at a time: the areas behind *held whole or in part*.

All arrays are 1-D object arrays of valid Polygons or MultiPolygons in degrees of longitude and latitude, as
``footprints.normalise_footprints`` returns them. Loops go over ranks within a group, never over footprints.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from coverage_pipeline.geometry.footprints import area_km2

# Lengths of a degree at the equator, WGS 84 (https://doi.org/10.1007/978-3-540-78584-2: 2 π · 6378.137 km / 360; a meridian's mean).
_KM_A_DEGREE_EAST = 111.320
_KM_A_DEGREE_NORTH = 111.133
_POLYGON_TYPES = (3, 6)
# A polygon that fills its bounding box but for rounding is that box.
_BOX_FILL = 1 - 1e-9
_HULL_FILL = 0.8
_TURN = np.array([360.0, 0.0])


def only_polygons(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """The polygons of each geometry: the lines and points that an overlay leaves are dropped. Empty ones stay empty."""
    out = shapes.copy()
    for k in np.flatnonzero(~np.isin(shapely.get_type_id(shapes), _POLYGON_TYPES)):
        parts = shapely.get_parts(shapely.get_parts(shapes[k]))
        out[k] = shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon" and not part.is_empty])
    return out


def common(a: NDArray[np.object_], b: NDArray[np.object_]) -> NDArray[np.object_]:
    """The intersection of each pair, polygons only."""
    return only_polygons(shapely.intersection(a, b))


def lacking(a: NDArray[np.object_], b: NDArray[np.object_]) -> NDArray[np.object_]:
    """What of each ``a`` its ``b`` does not cover, polygons only."""
    return only_polygons(shapely.difference(a, b))


def ranks_in_group(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each element among those of its group, in the order given: 0, 1, …"""
    return np.asarray(pd.Series(group).groupby(group, sort=False).cumcount(), np.int64)


_MANY = 8
"""Shapes of a group from which one union of all is faster than one after the other."""


def united(shapes: NDArray[np.object_], group: NDArray[np.int64], groups: int) -> NDArray[np.object_]:
    """The union of the shapes of each group 0 … ``groups`` − 1; None for a group that has none."""
    out = np.full(groups, None, dtype=object)
    size = np.bincount(group, minlength=groups)
    rank = ranks_in_group(group)
    few = size[group] <= _MANY
    for k in range(_MANY):
        chosen = few & (rank == k)
        at = group[chosen]
        out[at] = shapes[chosen] if k == 0 else only_polygons(shapely.union(out[at], shapes[chosen]))
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(size)
    large = np.flatnonzero(size > _MANY)
    if len(large):
        out[large] = only_polygons(np.array([shapely.union_all(shapes[order[ends[g] - size[g] : ends[g]]]) for g in large], dtype=object))
    return out


def added_areas(shapes: NDArray[np.object_], group: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """The area, km², that each shape adds to those before it in its group; float64, one a shape."""
    added = np.zeros(len(shapes))
    so_far = np.full(groups, None, dtype=object)
    rank = ranks_in_group(group)
    for k in range(int(rank.max(initial=-1)) + 1):
        chosen = np.flatnonzero(rank == k)
        at = group[chosen]
        if k == 0:
            added[chosen], so_far[at] = area_km2(shapes[chosen]), shapes[chosen]
        else:
            added[chosen] = area_km2(lacking(shapes[chosen], so_far[at]))
            so_far[at] = only_polygons(shapely.union(so_far[at], shapes[chosen]))
    return added


def _joined_at_seam(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Shapes that are cut at ±180 as one piece that runs past 180; the others as they are.

    A shape that also reaches across longitude 0, as around a pole, stays as it is.
    """
    out = shapes.copy()
    bounds = shapely.bounds(shapes)
    for k in np.flatnonzero((bounds[:, 0] <= -180) & (bounds[:, 2] >= 180)):
        parts = shapely.get_parts(shapes[k])
        west, _, east, _ = shapely.bounds(parts).T
        if ((west >= 0) | (east <= 0)).all():
            moved = [shapely.transform(part, lambda xy: xy + _TURN) if x <= 0 else part for part, x in zip(parts, east, strict=True)]
            out[k] = shapely.union_all(moved)
    return out


def _cut_at_seam(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Back from ``_joined_at_seam``."""
    out = shapes.copy()
    for k in np.flatnonzero(shapely.bounds(shapes)[:, 2] > 180):
        beyond = shapely.transform(shapely.intersection(shapes[k], shapely.box(180, -90, 540, 90)), lambda xy: xy - _TURN)
        out[k] = shapely.union(shapely.intersection(shapes[k], shapely.box(-180, -90, 180, 90)), beyond)
    return out


def is_box(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Whether each shape is a box along the axes; one across the antimeridian, too."""
    joined = _joined_at_seam(shapes)
    west, south, east, north = shapely.bounds(joined).T
    return np.asarray(shapely.area(joined) >= _BOX_FILL * (east - west) * (north - south))


def is_outline(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Whether each shape may be the outline of one scene: one piece without large bays or holes.

    Recorded footprints fill at least 0.85 of their convex hull (Sentinel-2 at the swath's edge; the others 0.93 and more).
    """
    joined = _joined_at_seam(shapes)
    return np.asarray(shapely.area(joined) >= _HULL_FILL * shapely.area(shapely.convex_hull(joined)))


def iou_of_boxes(a: NDArray[np.object_], b: NDArray[np.object_]) -> NDArray[np.float64]:
    """Intersection over union of the bounding boxes of each pair, in the plane of longitude and latitude."""
    p, q = shapely.bounds(_joined_at_seam(a)).T, shapely.bounds(_joined_at_seam(b)).T
    shared = np.maximum(0, np.minimum(p[2], q[2]) - np.maximum(p[0], q[0])) * np.maximum(0, np.minimum(p[3], q[3]) - np.maximum(p[1], q[1]))
    both = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - shared
    return np.asarray(shared / both)


def opened(shapes: NDArray[np.object_], km: float) -> NDArray[np.object_]:
    """Each shape shrunk by ``km`` and grown again: without what is narrower than twice that. Never more than the shape.

    Distances are measured about the shape's own middle, with a degree of longitude as long as it is there: within a scene of a few
    hundred kilometres off by some percent at most, but near a pole.
    """
    out = only_polygons(shapes)
    filled = np.flatnonzero(~shapely.is_empty(out))
    if not len(filled):
        return out
    given = _joined_at_seam(out[filled])
    bounds = shapely.bounds(given)
    east = _KM_A_DEGREE_EAST * np.maximum(np.cos(np.radians((bounds[:, 1] + bounds[:, 3]) / 2)), 0.01)
    flat = _scaled(given, east, np.full(len(given), _KM_A_DEGREE_NORTH))
    # Mitred, so that a box comes back as that box. A millimetre less than it was shrunk: the hairs that an overlay leaves along an edge
    # begin on the shape's outline, and one that touched the result would reach into cells where nothing is missing.
    flat = shapely.buffer(shapely.buffer(flat, -km, join_style="mitre"), km - 1e-6, join_style="mitre", mitre_limit=2.0)
    grown = _scaled(flat, 1 / east, np.full(len(given), 1 / _KM_A_DEGREE_NORTH))
    out[filled] = only_polygons(_cut_at_seam(common(shapely.make_valid(grown), given)))
    return out


def _scaled(shapes: NDArray[np.object_], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.object_]:
    coordinates, owner = shapely.get_coordinates(shapes, return_index=True)
    return np.asarray(shapely.set_coordinates(shapes.copy(), coordinates * np.column_stack([x, y])[owner]))
