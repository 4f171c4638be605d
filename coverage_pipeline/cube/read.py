"""Reading one partition of the cube back into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.cube.arrays import Arrays, exists, open_group
from coverage_pipeline.cube.axes import PartitionIndex, grid_in, partition_index
from coverage_pipeline.cube.levels import Rows
from coverage_pipeline.cube.locking import partition_lock
from coverage_pipeline.cube.schema import COVERAGE_VARIABLES, PARTITION_DIMS, CoverageError, PartitionMoved
from coverage_pipeline.grid.celltable import cell_coords
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.storage.locks import LockError
from coverage_pipeline.storage.paths import storage_path


def decoded(values: NDArray[Any]) -> NDArray[Any]:
    """Stored values as xarray decodes them: counts as float32, NaN where not known."""
    if values.dtype.kind != "i":
        return values
    shown = values.astype(np.float32)
    shown[values == -1] = np.nan  # the fill of all counts
    return shown


@dataclass(frozen=True)
class _WrittenPartition:
    """A partition as it stands in the cube."""

    group: zarr.Group
    grid: GridSpec
    arrays: Arrays
    at: PartitionIndex
    revision: int


def _written_partition(path: UPath, sensor: str, month: Month) -> _WrittenPartition:
    """A partition that is written; raises ``CoverageError`` for one that is not. Waits for a run that is writing it."""
    if not exists(path):
        raise CoverageError(f"no coverage cube at {path}: materialise coverage first")
    group = open_group(path, "r")
    at = partition_index(group, sensor, month)
    grid = grid_in(group, path)
    arrays = Arrays(group, path, grid)
    revision = int(arrays["revision"][at.sensor, at.time])
    if revision == 0 and _is_locked_by_writer(path, sensor, month):
        revision = int(arrays["revision"][at.sensor, at.time])
    if revision == 0:
        raise CoverageError(f"partition {month}|{sensor} of {path} is not written; materialise coverage first")
    return _WrittenPartition(group, grid, arrays, at, revision)


def _is_locked_by_writer(path: UPath, sensor: str, month: Month) -> bool:
    """Whether the lock of a partition that is not whole could be had, once the run that was writing it ended."""
    try:
        with partition_lock(path, sensor, month):
            return True
    except (LockError, CoverageError):  # a cube that can only be read has no lock to wait for
        return False


def partition_revision(path: UPath | Path | str, sensor: str, month: Month) -> int:
    """The revision of a partition's coverage; raises ``CoverageError`` where it is not written."""
    return _written_partition(storage_path(path), sensor, month).revision


def read_partition(
    path: UPath | Path | str,
    sensor: str,
    month: Month,
    variables: Sequence[str] = COVERAGE_VARIABLES,
    *,
    rows: Rows = None,
    revision: int | None = None,
) -> tuple[xr.Dataset, int]:
    """Variables of one partition as ``(sensor: 1, time: 1, lat, lon)`` in memory, decoded, and the revision they were read at.

    ``rows`` reads a piece of it; ``revision`` is the one that the pieces before were read at. Read straight from the arrays: going
    through ``open_coverage`` would cost a task a chunk. Raises ``CoverageError`` where the partition is not written, or moves while
    it is being read.
    """
    path = storage_path(path)
    standing = _written_partition(path, sensor, month)
    grid, arrays, at, now = standing.grid, standing.arrays, standing.at, standing.revision
    cells = slice(*(rows or (None, None)))
    coords = cell_coords(grid)
    if rows is not None:
        coords["lat"] = coords["lat"][cells]
    ds = xr.Dataset(
        coords={"sensor": np.array([sensor], dtype=object), "time": [month.to_datetime64()], **coords}, attrs=dict(standing.group.attrs)
    )
    for name in variables:
        values = arrays[name][at.sensor, at.time, cells]
        ds[name] = (("sensor", "time", *grid.dims), decoded(values)[None, None])
    for name in ("scan_status", "holdings_status"):
        ds[name] = (PARTITION_DIMS, np.asarray(arrays[name][at.sensor, at.time]).reshape(1, 1))
    ds["in_scope"] = (("sensor", *grid.dims), arrays["in_scope"][at.sensor, cells][None])
    after = int(arrays["revision"][at.sensor, at.time])
    if after != now or (revision is not None and revision != now):
        raise PartitionMoved(f"partition {month}|{sensor} of {path} is being written by another run; try again")
    return ds, now
