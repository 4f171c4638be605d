"""H3 cells on a map of pixels: which cell lies under each point of a fine regular grid.

A field of H3 cells is drawn as the fine grid of its cells, so that zoom, colours, pointer and files work as for a cube in degrees. The
look-up is h3ronpy's (Rust, arrays), for ``h3`` itself knows one point at a time. Numbers that are told (shares, areas) are counted by cell,
never by point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import h3.api.basic_int as h3
import numpy as np
import pyarrow as pa
import shapely
from h3ronpy import cells_to_string
from h3ronpy.vector import cells_to_coordinates, coordinates_to_cells
from numpy.typing import NDArray

from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid.spec import GridSpec, h3_cells

STEPS = {0: 1.0, 1: 0.5, 2: 0.25, 3: 0.1, 4: 0.1, 5: 0.05}
"""Degrees between points, by resolution: a cell is two to ten points wide."""
_ROWS_AT_A_TIME = 200


@dataclass(frozen=True)
class HexMap:
    """The cells of one resolution on a regular grid."""

    grid: GridSpec
    """The regular grid, of the whole world."""
    cells: NDArray[np.int32]
    """Cell under each point's centre, ``(lat, lon)``: its place among the cells by id, as along ``cells`` of the cube."""
    res: int

    @property
    def count(self) -> int:
        """Cells of the world."""
        return int(h3_cells(self.res).ids.size)

    def described(self, cells: NDArray[np.integer[Any]]) -> dict[str, NDArray[Any]]:
        """Ids and middles (degrees) of cells by place."""
        ids = h3_cells(self.res).ids[cells]
        middles = pa.record_batch(cells_to_coordinates(ids))
        lat, lon = (np.round(middles[name].to_numpy(), 9) for name in ("lat", "lng"))
        return {"h3": pa.array(cells_to_string(ids)).to_numpy(zero_copy_only=False), "lat": lat, "lon": lon}

    @property
    def points_a_cell(self) -> float:
        """Points under one cell, on average."""
        return self.cells.size / self.count

    def spread[T: np.generic](self, values: NDArray[T]) -> NDArray[T]:
        """Values by cell as ``(lat, lon)``."""
        return values[self.cells]


@lru_cache(maxsize=2)
def hex_map(res: int) -> HexMap:
    """The map of a resolution 0 to 5, made once; some seconds for the finest."""
    grid, ids = GridSpec(STEPS[res]), h3_cells(res).ids
    lats, lons = grid.lats, grid.lons
    cells = np.empty((lats.size, lons.size), np.int32)
    for first in range(0, lats.size, _ROWS_AT_A_TIME):
        rows = lats[first : first + _ROWS_AT_A_TIME]
        lat, lon = (np.ascontiguousarray(a).ravel() for a in np.broadcast_arrays(rows[:, None], lons[None, :]))
        found = pa.array(coordinates_to_cells(lat, lon, res)).to_numpy()
        cells[first : first + rows.size] = np.searchsorted(ids, found).reshape(rows.size, -1)
    return HexMap(grid, cells, res)


def hexagon_at(lon: float, lat: float, res: int) -> tuple[str, shapely.Geometry]:
    """Id and outline of the cell that holds a point, cut at ±180."""
    cell = h3.latlng_to_cell(lat, lon, res)
    ring = shapely.Polygon([(x, y) for y, x in h3.cell_to_boundary(cell)])
    outlines, reasons = normalise_footprints(np.array([ring], dtype=object))
    return h3.int_to_str(cell), ring if reasons[0] else outlines[0]
