"""A cube opened as a lazy dataset, and the arrays and partition variables behind it."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.cube.arrays import Arrays, exists, open_group, reading, zarr_store
from coverage_pipeline.cube.axes import axes_of, grid_in
from coverage_pipeline.cube.levels import dims_on
from coverage_pipeline.cube.schema import (
    CELL_DIMS,
    COVERAGE_VARIABLES,
    GAP_VARIABLES,
    METRICS,
    PARTITION_DIMS,
    REBUILD,
    SCHEMA,
    CoverageError,
    CoverageQuery,
    CubeDamaged,
)
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month, as_date
from coverage_pipeline.storage.paths import storage_path

log = logging.getLogger(__name__)

# How often what moves while it is read is read again.
READ_ATTEMPTS = 5


def open_coverage(zarr_path: UPath | Path | str) -> xr.Dataset:
    """The cube, lazily, decoded: counts are NaN where not known, masks have bit 31 set.

    Partitions that are not whole read as not known, and so do gaps made from another revision of their coverage.
    Raises ``CoverageError`` where there is no cube, ``CoverageMismatch`` for one of another schema version.
    """
    path = storage_path(zarr_path)
    if not exists(path):
        raise CoverageError(f"no coverage cube at {path}: build one (coverage-planner build) or set output.zarr")
    stored = StoredCube(path)
    ds, revision, gap_revision = _opened(path, stored)
    ds = ds.assign(revision=revision, gap_revision=gap_revision)
    whole = ds["revision"] != 0
    gap_whole = whole & (ds["gap_revision"] == ds["revision"])
    for name in (*COVERAGE_VARIABLES, *GAP_VARIABLES):
        known = gap_whole if name in GAP_VARIABLES else whole
        if not bool(known.all()):
            ds[name] = _hide(ds[name], known)
    for name, hidden in (("scan_status", 0), ("holdings_status", 0)):
        ds[name] = ds[name].where(whole, np.uint8(hidden)).astype(np.uint8).assign_attrs(ds[name].attrs)
    for name in ("scenes_total", "held_not_in_catalog", "scanned_at"):
        ds[name] = ds[name].where(whole)
    ds["provider"] = ds["provider"].where(whole, "")
    ds["desired"] = ds["desired"].where(gap_whole)
    ds.encoding |= {"source": str(path), "stored": stored}
    for name in (*COVERAGE_VARIABLES, *GAP_VARIABLES):
        # It goes on with parts of the array and not with what is computed from it, so it tells that the array is still the cube's.
        ds[name].encoding["stored"] = stored
    return ds


def _opened(path: UPath, stored: StoredCube) -> tuple[xr.Dataset, xr.DataArray, xr.DataArray]:
    """The dataset with its per-partition variables in memory, and the revisions: 0 where a partition was rewritten meanwhile."""
    with warnings.catch_warnings(), _axes_named(stored), reading(path / "zarr.json"):
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        consolidated = "consolidated_metadata" in json.loads((path / "zarr.json").read_bytes())
        if not consolidated:
            log.warning("%s has no consolidated metadata: it is read array by array, until the next build writes them again", path)
        lazy: xr.Dataset = xr.open_zarr(zarr_store(path, read_only=True), chunks={}, consolidated=consolidated)
    _check_layout(path, lazy, stored.grid)
    small = [n for n, v in SCHEMA.items() if (v.dims == PARTITION_DIMS or n == "taskable") and n not in ("revision", "gap_revision")]
    shape = tuple(lazy.sizes[d] for d in PARTITION_DIMS)

    def revisions() -> list[NDArray[np.uint64]]:
        return [np.array(stored.arrays[name][: shape[0], : shape[1]]).reshape(shape) for name in ("revision", "gap_revision")]

    before = revisions()
    for _ in range(READ_ATTEMPTS):
        try:
            with reading(path):
                ds = lazy.assign(lazy[small].compute().data_vars)
        except CoverageError:
            for name in small:
                stored.arrays[name].refuse_damage()
            raise
        after = revisions()
        still = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        if all(still):
            break
        before, after = after, before
    moved = (before[0] != after[0]) | (before[1] != after[1])
    revision, gap_revision = (np.where(moved, np.uint64(0), values) for values in before)
    return ds, lazy["revision"].copy(data=revision), lazy["gap_revision"].copy(data=gap_revision)


@contextlib.contextmanager
def _axes_named(stored: StoredCube) -> Iterator[None]:
    """Name the axis that cannot be read, which xarray does on opening, where it is that which failed."""
    try:
        yield
    except CoverageError:
        for name in ("lat", "lon") if stored.grid.h3_res is None else ("cell_ids", "lat", "lon"):
            stored.arrays[name].refuse_damage()
        raise


def _check_layout(path: UPath, ds: xr.Dataset, grid: GridSpec) -> None:
    """Refuse a cube whose arrays or axes are not as this program makes them: its numbers would mean something else."""
    for name, variable in SCHEMA.items():
        if name not in ds:
            raise CubeDamaged(f"{path} has no array {name}: it was removed; {REBUILD}")
        array, dims = ds[name], dims_on(grid, variable)
        stored = np.dtype(array.encoding.get("dtype", array.dtype))
        if array.dims != dims or (variable.dtype != "string" and stored != np.dtype(variable.dtype)):
            raise CubeDamaged(f"{path / name} is damaged: it is {stored} over {array.dims}, not {variable.dtype} over {dims}; {REBUILD}")
    axes = {"cell_ids": grid.cell_ids} if grid.h3_res is not None else {"lat": grid.lats, "lon": grid.lons}
    for name, wanted in axes.items():
        if name not in ds.coords or not np.array_equal(ds[name].values, wanted):
            raise CubeDamaged(f"{path / name} is damaged: it does not hold the cells of {grid.in_words()}; {REBUILD}")


def _hide(array: xr.DataArray, known: xr.DataArray) -> xr.DataArray:
    fill = SCHEMA[str(array.name)].fill
    hidden = np.nan if array.dtype.kind == "f" else array.dtype.type(fill)
    shown: xr.DataArray = array.where(known, hidden).astype(array.dtype)
    return shown


class StoredCube:
    """The stored arrays of one opening of a cube; each is opened once."""

    def __init__(self, path: UPath) -> None:
        self.path = path
        root = open_group(path, "r")
        self.grid = grid_in(root, path)
        self.sensors, self.months = axes_of(root)
        self.arrays = Arrays(root, path, self.grid)

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredCube:
        return self  # it stands in datasets' encodings, which are copied with them

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredCube, (self.path,)


def stored_cube(ds: xr.Dataset) -> StoredCube | None:
    """The stored arrays of a cube as it was opened; None for a dataset in memory."""
    stored: StoredCube | None = ds.encoding.get("stored")
    return stored


def is_current(ds: xr.Dataset, q: CoverageQuery) -> bool:
    """Whether the partitions of the query still have the revisions that the dataset was opened at."""
    if ds.encoding.get("source") is None:  # a dataset in memory has no writer
        return True
    try:
        stored = stored_cube(ds) or StoredCube(storage_path(str(ds.encoding["source"])))
        sensors, months = query_partitions(ds, q)
        stored_places = [stored.sensors.index(s) for s in sensors], [stored.months.index(m) for m in months]
        places = axis_positions(ds, sensors, months)
        of_gap = METRICS[q.metric].variable(q.metric) in GAP_VARIABLES
        names = ("revision", "gap_revision") if of_gap else ("revision",)
        return all(np.array_equal(stored.arrays[name].outer(stored_places), partition_values(ds, name, places)) for name in names)
    except CubeDamaged:  # the reading that follows reports it
        return True
    except (ValueError, KeyError, IndexError, FileNotFoundError, CoverageError):  # another cube stands there
        return False


def opened_again(ds: xr.Dataset) -> xr.Dataset:
    """The same part of the cube, read again."""
    source, stored = ds.encoding["source"], stored_cube(ds)
    if ds.encoding.get("gap_computed"):
        raise CoverageError(f"{source} was rewritten since this gap was computed from it: open it and compute the gap again")
    now = open_coverage(source if stored is None else stored.path)
    try:
        if "cells" in ds.dims and now.sizes["cells"] != ds.sizes["cells"]:
            stored_cells, wanted = now["cell_ids"].values, ds["cell_ids"].values
            at = np.searchsorted(stored_cells, wanted).clip(0, len(stored_cells) - 1)
            if not np.array_equal(stored_cells[at], wanted):
                raise KeyError("cell_ids")
            now = now.isel(cells=at)
        return now.sel({dim: ds[dim].values for dim in CELL_DIMS if dim in now.dims and now.sizes[dim] != ds.sizes[dim]})
    except KeyError as error:
        raise CoverageError(f"{source} is another cube now: open it again") from error


def months_of(ds: xr.Dataset) -> list[Month]:
    numbers = np.atleast_1d(ds["time"].values).astype("datetime64[M]").astype(np.int64) + 1970 * 12
    return [Month(int(n) // 12, int(n) % 12 + 1) for n in numbers]


def axis_positions(ds: xr.Dataset, sensors: Sequence[str], months: Sequence[Month]) -> tuple[list[int], list[int]]:
    """Where sensors and months lie in the dataset."""
    keys, when = [str(s) for s in np.atleast_1d(ds["sensor"].values)], months_of(ds)
    return [keys.index(s) for s in sensors], [when.index(m) for m in months]


def partition_values(ds: xr.Dataset, name: str, at: tuple[Sequence[int], Sequence[int]]) -> NDArray[Any]:
    """A per-partition variable at the given sensors and months, as ``(sensors, months)``."""
    shape = np.atleast_1d(ds["sensor"].values).size, np.atleast_1d(ds["time"].values).size
    values: NDArray[Any] = ds[name].values.reshape(shape)[np.ix_(*at)]
    return values


def query_partitions(ds: xr.Dataset, q: CoverageQuery) -> tuple[list[str], list[Month]]:
    """Sensors, each once, and months of the query that the dataset has."""
    first, last = Month.of(as_date(q.t0)), Month.of(as_date(q.t1))
    keys = {str(s) for s in np.atleast_1d(ds["sensor"].values)}
    return [s for s in dict.fromkeys(q.sensors) if s in keys], [m for m in months_of(ds) if first <= m <= last]


def grid_of(ds: xr.Dataset) -> GridSpec:
    """The grid a cube was made on."""
    settings = json.loads(ds.attrs["settings"]) if "settings" in ds.attrs else {}
    if "grid" in settings:
        return GridSpec.from_description(settings["grid"])
    resolution = ds.attrs.get("grid_resolution")
    if resolution is None and "lat" not in ds.dims:
        raise CoverageError("the dataset does not say which H3 resolution its cells have: keep the attribute settings of open_coverage")
    return GridSpec(float(resolution) if resolution is not None else 180.0 / ds.sizes["lat"])
