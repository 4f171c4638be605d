"""Targets that are too large for one pass of a sensor."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.geometry.ellipsoid import WGS84_A_KM
from coverage_pipeline.sensors.registry import CoverageSensor


def too_large(targets: Targets, sensor: CoverageSensor) -> NDArray[np.bool_]:
    """Which targets no single pass of the sensor can cover to their ``min_cover``, bool ``(targets,)``; none where its swath is not known.

    A pass is a strip as wide as ``swath_km``, in any direction. It covers at most ``swath_km / narrow side`` of the smallest rectangle
    around the target; the target is too large where that is below ``min_cover``. Lengths are those of an equal-area plane about the target.
    """
    result = np.zeros(len(targets), bool)
    if sensor.swath_km is None or not len(targets):
        return result
    shapes = targets.table.geometry.to_numpy()
    min_cover = targets.table["min_cover"].to_numpy(np.float64)
    # The narrow side is never longer than the height of the box along the axes.
    south, north = shapely.bounds(shapes)[:, [1, 3]].T
    height = np.radians(north - south) * WGS84_A_KM
    for row in np.flatnonzero(height * min_cover > sensor.swath_km):
        result[row] = narrow_side_km(shapes[row]) * min_cover[row] > sensor.swath_km
    return result


def narrow_side_km(shape: shapely.Geometry) -> float:
    """The narrow side of the smallest rectangle around a polygon (degrees), km, in an equal-area plane about its middle."""
    point = shape.representative_point()
    plane = Transformer.from_crs(
        "EPSG:4326", f"+proj=laea +lat_0={point.y} +lon_0={point.x} +ellps=WGS84 +units=km", always_xy=True
    ).transform
    dense = shapely.segmentize(shape, 0.25)
    flat = shapely.transform(dense, lambda xy: np.column_stack(plane(xy[:, 0], xy[:, 1])))
    corners = shapely.get_coordinates(shapely.minimum_rotated_rectangle(flat))
    sides = np.hypot(*np.diff(corners[:3], axis=0).T) if len(corners) >= 3 else np.zeros(2)
    return float(sides.min())
