"""True area of cells, on the ellipsoid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2, zone_km2
from coverage_pipeline.grid.spec import GridSpec, h3_cells


def cell_km2(grid: GridSpec) -> NDArray[np.float64]:
    """Area of each cell on WGS 84, km², float64 in a shape that broadcasts to ``grid.shape``."""
    if grid.h3_res is not None:
        return ellipsoid_km2(h3_cells(grid.h3_res).polygons)
    height = np.diff(zone_km2(grid.lat_edges))
    return np.asarray(height[:, None] * np.radians(np.diff(grid.lon_edges))[None, :])
