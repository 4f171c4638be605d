"""Cells to task as few outlines that one pass can image, ranked; instead of a million requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid.spec import GridSpec, h3_cells
from coverage_pipeline.requests.errors import RequestError
from coverage_pipeline.sensors.registry import CoverageSensor

_KM_A_DEGREE = 111.2
_DEFAULT_SWATH_KM = 60.0
"""Side of an outline where the sensor's swath is not known."""


@dataclass(frozen=True)
class TaskOutline:
    """An area to task."""

    geometry: shapely.Geometry
    """EPSG:4326, cut at the antimeridian."""
    area_km2: float
    cells: int
    priority: float
    """Sum of the cells' priorities times their area, km²: what the ranking is by."""


def task_outlines(
    to_task: NDArray[np.bool_], priority: NDArray[np.float64], grid: GridSpec, sensor: CoverageSensor, *, most: int | None = None
) -> list[TaskOutline]:
    """Neighbouring cells merged, split to what one pass can image, simplified; the most urgent first.

    ``to_task`` and ``priority`` have the grid's shape. A piece is at most one swath wide and high, so that one pass can image it whatever
    its track. Simplified by less than half a cell: an outline may lack or add slivers along its edge, never a cell's centre.
    """
    chosen = np.flatnonzero(to_task.reshape(-1))
    if not len(chosen):
        return []
    side_km = sensor.swath_km or _DEFAULT_SWATH_KM
    lats, lons = grid.centres_of(chosen)
    rows = np.floor((lats + 90) * _KM_A_DEGREE / side_km).astype(np.int64)
    # Blocks as wide as a swath at the row's middle, so that high latitudes have fewer.
    middle = np.clip((rows + 0.5) * side_km / _KM_A_DEGREE - 90, -89.9, 89.9)
    columns = np.floor((lons + 180) * _KM_A_DEGREE * np.cos(np.radians(middle)) / side_km).astype(np.int64)
    blocks, block = np.unique(rows * 100_000 + columns, return_inverse=True)
    outlines = _cell_outlines(grid, chosen)
    area = ellipsoid_km2(outlines)
    weight = np.nan_to_num(priority.reshape(-1)[chosen].astype(np.float64), nan=0.0)
    order = np.argsort(block, kind="stable")
    merged = [shapely.union_all(outlines[part]) for part in np.split(order, np.searchsorted(block[order], np.arange(1, len(blocks))))]
    pieces, owner = shapely.get_parts(np.array(merged, dtype=object), return_index=True)
    tree = shapely.STRtree(pieces)
    cell, piece = tree.query(shapely.point_on_surface(outlines), predicate="intersects")
    same = owner[piece] == block[cell]
    cell, piece = cell[same], piece[same]
    cells = np.bincount(piece, minlength=len(pieces))
    km2, urgency = (np.bincount(piece, values[cell], minlength=len(pieces)) for values in (area, area * weight))
    simple, reasons = normalise_footprints(shapely.simplify(pieces, _tolerance(grid)))
    if any(reason is not None for reason in reasons):
        raise RequestError("an outline of cells to task cannot be drawn; task smaller areas with --bbox")
    ranked = np.lexsort((np.arange(len(pieces)), -km2, -urgency))
    ranked = ranked[cells[ranked] > 0][: most if most is not None else len(ranked)]
    return [TaskOutline(simple[k], float(km2[k]), int(cells[k]), float(urgency[k])) for k in ranked]


def _tolerance(grid: GridSpec) -> float:
    """Degrees: under half a cell."""
    return 0.3 * grid.resolution if grid.h3_res is None else 0.01


def _cell_outlines(grid: GridSpec, cells: NDArray[np.int64]) -> NDArray[np.object_]:
    if grid.h3_res is not None:
        polygons: NDArray[np.object_] = h3_cells(grid.h3_res).polygons[cells]
        return polygons
    row, column = np.divmod(cells, grid.shape[1])
    east, north = grid.lon_edges[column + 1], grid.lat_edges[row + 1]
    boxes: NDArray[np.object_] = shapely.box(grid.lon_edges[column], grid.lat_edges[row], east, north)
    return boxes
