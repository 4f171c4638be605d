"""Where a query looks: rows and columns of the cube or of a coarser level, and the cells within its area."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray

from coverage_pipeline.cube.dataset import StoredCube, grid_of, stored_cube
from coverage_pipeline.cube.levels import levels
from coverage_pipeline.cube.schema import METRICS, CoverageError, CoverageQuery
from coverage_pipeline.geometry.bbox import split_bbox
from coverage_pipeline.grid.spec import GridSpec, bbox_to_index
from coverage_pipeline.grid.touch import touched


@dataclass(frozen=True)
class SelectedArea:
    """The cells of a query: their coordinates, and their indices in the dataset's arrays or in those of a level."""

    dims: tuple[str, ...]
    coords: dict[str, Any]
    shape: tuple[int, ...]
    within: list[tuple[Any, ...]]
    """Indices of the pieces, from west to east, along the cells' dimensions of the dataset or the level."""
    group: str | None = None
    """Of a level: its path below the root."""
    stored: StoredCube | None = None
    """The arrays that ``within`` indexes; None: the dataset's."""


def selected_area(ds: xr.Dataset, q: CoverageQuery, resolution: float | None) -> SelectedArea:
    stored = stored_cube(ds)
    name = METRICS[q.metric].variable(q.metric)
    if stored is not None and not (ds[name].chunks and ds[name].encoding.get("stored") is stored):
        stored = None
    if "cells" in ds.dims:
        cells = slice(None) if q.bbox is None else np.flatnonzero(_touching(q.bbox, grid_of(ds))[_positions(ds)])
        ids = ds["cell_ids"][cells]
        whole = stored is not None and ids.size and ds.sizes["cells"] == stored.grid.shape[0]
        return SelectedArea(("cells",), {"cell_ids": ids}, ids.shape, [(cells,)], None, stored if whole else None)
    if stored is not None and resolution is not None and METRICS[q.metric].mask is None:
        whole = stored.grid.shape == (ds.sizes["lat"], ds.sizes["lon"])
        fitting = [v for v in levels(stored.grid) if v.factor * stored.grid.resolution <= resolution * (1 + 1e-9)] if whole else []
        if fitting:
            level = fitting[-1]
            lats, lons = (stored.arrays[f"{level.group}/{dim}"][:] for dim in ("lat", "lon"))
            within = _indices(lats, lons, q.bbox, stored.grid.resolution * level.factor, stored.grid)
            return _rows_of(lats, lons, within, level.group, stored)
    grid = grid_of(ds)
    lats, lons = ds["lat"].values, ds["lon"].values
    within = _indices(lats, lons, q.bbox, grid.resolution, grid)
    if stored is not None:
        rows, columns = (_part_of(axis, part) for axis, part in ((stored.grid.lats, lats), (stored.grid.lons, lons)))
        if rows is None or columns is None:
            stored = None
        else:
            inside = [(slice(r.start + rows, r.stop + rows), slice(c.start + columns, c.stop + columns)) for r, c in within]
            return _rows_of(lats, lons, within, None, stored, inside)
    return _rows_of(lats, lons, within, None, None)


def _part_of(axis: NDArray[Any], part: NDArray[Any]) -> int | None:
    """Where a part of the axis begins; None where it is not one: reversed, or every other cell."""
    start = int(np.searchsorted(axis, part[0]))
    return start if np.array_equal(axis[start : start + len(part)], part) else None


def _rows_of(
    lats: NDArray[Any],
    lons: NDArray[Any],
    within: list[tuple[Any, ...]],
    group: str | None,
    stored: StoredCube | None,
    inside: list[tuple[Any, ...]] | None = None,
) -> SelectedArea:
    coords = {"lat": lats[within[0][0]], "lon": np.concatenate([lons[columns] for _, columns in within])}
    return SelectedArea(("lat", "lon"), coords, (len(coords["lat"]), len(coords["lon"])), inside or within, group, stored)


def _indices(
    lats: NDArray[Any], lons: NDArray[Any], bbox: tuple[float, float, float, float] | None, step: float, grid: GridSpec
) -> list[tuple[Any, ...]]:
    """Rows and columns of the cells, of that size, that the box touches, a pair for each side of the antimeridian."""
    if bbox is None:
        return [(slice(0, len(lats)), slice(0, len(lons)))]
    try:
        boxes = split_bbox(bbox)
    except ValueError as error:
        raise CoverageError(str(error)) from None
    globe = GridSpec(grid.resolution)
    ranges = []
    for box in boxes:
        rows, columns = bbox_to_index(box, globe)
        piece = []
        for axis, wanted in ((lats, globe.lats[rows]), (lons, globe.lons[columns])):
            low, high = wanted[0] - globe.resolution / 2, wanted[-1] + globe.resolution / 2
            # a cell of the axis, perhaps larger than the grid's, meets what the box touches
            first, end = np.searchsorted(axis + step / 2, low + step * 1e-3), np.searchsorted(axis - step / 2, high - step * 1e-3)
            piece.append(slice(int(first), int(end)))
        if all(part.start < part.stop for part in piece):
            ranges.append(tuple(piece))
    if not ranges:
        raise CoverageError(f"bbox {bbox} holds no cell of the dataset")
    return ranges


def _touching(bbox: tuple[float, float, float, float], grid: GridSpec) -> NDArray[np.bool_]:
    """H3 cells that the box touches."""
    try:
        boxes = np.array([shapely.box(*box) for box in split_bbox(bbox)], dtype=object)
    except ValueError as error:
        raise CoverageError(str(error)) from None
    return touched(boxes, grid)


def _positions(ds: xr.Dataset) -> NDArray[np.int64]:
    return np.searchsorted(grid_of(ds).cell_ids, ds["cell_ids"].values)
