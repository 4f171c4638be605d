"""The cube as it is read: opened lazily, and asked for one metric over a window.

What it holds is in ``cube_schema``, how it is written in ``cube_store``; both are found here, too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import xarray as xr
import zarr
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.cube.schema import (
    ACTION_ORDER,
    ACTIONS,
    AGGREGATIONS,
    CELL_DIMS,
    COVERAGE_VARIABLES,
    GAP_VARIABLES,
    HOLDINGS_STATUS,
    KNOWN_SHARES,
    METRICS,
    PARTITION_DIMS,
    REBUILD,
    SCAN_STATUS,
    SCHEMA,
    SCHEMA_VERSION,
    Aggregation,
    CoverageError,
    CoverageMismatch,
    CoverageQuery,
    CubeDamaged,
    CubeSpec,
    DesiredCadence,
    Layer,
    Metric,
)
from coverage_pipeline.cube.write import (
    Arrays,
    axes_of,
    decoded,
    description_path,
    dims_on,
    ensure_cube,
    exists,
    grid_in,
    levels,
    open_group,
    partition_revision,
    read_partition,
    reading,
    strip_rows,
    update_snapshot,
    write_coverage,
    write_gap,
    zarr_store,
)
from coverage_pipeline.grid import daymask
from coverage_pipeline.grid.spec import GridSpec, bbox_to_index, split_bbox, touched
from coverage_pipeline.months import Month, as_date
from coverage_pipeline.storage.store import storage_path

__all__ = [
    "ACTIONS", "AGGREGATIONS", "COVERAGE_VARIABLES", "GAP_VARIABLES", "HOLDINGS_STATUS", "METRICS", "SCAN_STATUS", "SCHEMA",
    "SCHEMA_VERSION", "Aggregation", "CoverageError", "CoverageMismatch", "CoverageQuery", "CubeSpec", "DesiredCadence", "Layer",
    "Metric", "description_path", "ensure_cube", "grid_of", "open_coverage", "partition_revision", "read_partition", "select",
    "strip_rows", "update_snapshot", "write_coverage", "write_gap",
]  # fmt: skip

log = logging.getLogger(__name__)

# Months of a window are read together while they are no larger than this.
_BYTES_AT_ONCE = 32 << 20
# How often what moves while it is read is read again.
_TRIES = 5


def open_coverage(zarr_path: UPath | Path | str) -> xr.Dataset:
    """The cube, lazily, decoded: counts are NaN where not known, masks have bit 31 set.

    Partitions that are not whole read as not known, and so do gaps made from another revision of their coverage.
    Raises ``CoverageError`` where there is no cube, ``CoverageMismatch`` for one of another schema version.
    """
    path = storage_path(zarr_path)
    if not exists(path):
        raise CoverageError(f"no coverage cube at {path}: build one (coverage-planner build) or set output.zarr")
    stored = _Stored(path)
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


def _opened(path: UPath, stored: _Stored) -> tuple[xr.Dataset, xr.DataArray, xr.DataArray]:
    """The dataset with what is told of its partitions in memory, and the revisions that this is of: 0 where it moved meanwhile."""
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
    for _ in range(_TRIES):
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
def _axes_named(stored: _Stored) -> Iterator[None]:
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


# --- the arrays behind an opened cube -------------------------------------------------------------------------------


class _Stored:
    """The stored arrays of one opening of a cube; each is opened once."""

    def __init__(self, path: UPath) -> None:
        self.path = path
        root = open_group(path, "r")
        self.grid = grid_in(root, path)
        self.sensors, self.months = axes_of(root)
        self.arrays = Arrays(root, path, self.grid)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Stored:
        return self  # it stands in datasets' encodings, which are copied with them

    def __reduce__(self) -> tuple[Any, ...]:
        return _Stored, (self.path,)


def _behind(ds: xr.Dataset) -> _Stored | None:
    """The stored arrays of a cube as it was opened; None for a dataset in memory."""
    stored: _Stored | None = ds.encoding.get("stored")
    return stored


def _is_current(ds: xr.Dataset, q: CoverageQuery) -> bool:
    """Whether the partitions that are asked for are those that stand there now."""
    if ds.encoding.get("source") is None:  # a dataset in memory has no writer
        return True
    try:
        stored = _behind(ds) or _Stored(storage_path(str(ds.encoding["source"])))
        sensors, months = _asked(ds, q)
        there = [stored.sensors.index(s) for s in sensors], [stored.months.index(m) for m in months]
        here = _at(ds, sensors, months)
        of_gap = METRICS[q.metric].variable(q.metric) in GAP_VARIABLES
        names = ("revision", "gap_revision") if of_gap else ("revision",)
        return all(np.array_equal(stored.arrays[name].outer(there), _told(ds, name, here)) for name in names)
    except CubeDamaged:  # that is for whoever reads it to say
        return True
    except (ValueError, KeyError, IndexError, FileNotFoundError, CoverageError):  # another cube stands there
        return False


def _opened_again(ds: xr.Dataset) -> xr.Dataset:
    """The same part of the cube as it stands now."""
    source, stored = ds.encoding["source"], _behind(ds)
    if ds.encoding.get("gap_computed"):
        raise CoverageError(f"{source} was rewritten since this gap was computed from it: open it and compute the gap again")
    now = open_coverage(source if stored is None else stored.path)
    try:
        if "cells" in ds.dims and now.sizes["cells"] != ds.sizes["cells"]:
            there, wanted = now["cell_ids"].values, ds["cell_ids"].values
            at = np.searchsorted(there, wanted).clip(0, len(there) - 1)
            if not np.array_equal(there[at], wanted):
                raise KeyError("cell_ids")
            now = now.isel(cells=at)
        return now.sel({dim: ds[dim].values for dim in CELL_DIMS if dim in now.dims and now.sizes[dim] != ds.sizes[dim]})
    except KeyError as error:
        raise CoverageError(f"{source} is another cube now: open it again") from error


def _months(ds: xr.Dataset) -> list[Month]:
    numbers = np.atleast_1d(ds["time"].values).astype("datetime64[M]").astype(np.int64) + 1970 * 12
    return [Month(int(n) // 12, int(n) % 12 + 1) for n in numbers]


def _at(ds: xr.Dataset, sensors: Sequence[str], months: Sequence[Month]) -> tuple[list[int], list[int]]:
    """Where sensors and months lie in the dataset."""
    there, when = [str(s) for s in np.atleast_1d(ds["sensor"].values)], _months(ds)
    return [there.index(s) for s in sensors], [when.index(m) for m in months]


def _told(ds: xr.Dataset, name: str, at: tuple[Sequence[int], Sequence[int]]) -> NDArray[Any]:
    """What is told of partitions, ``(sensors, months)``."""
    shape = np.atleast_1d(ds["sensor"].values).size, np.atleast_1d(ds["time"].values).size
    values: NDArray[Any] = ds[name].values.reshape(shape)[np.ix_(*at)]
    return values


def _asked(ds: xr.Dataset, q: CoverageQuery) -> tuple[list[str], list[Month]]:
    """Sensors, each once, and months of the query that the dataset has."""
    first, last = Month.of(as_date(q.t0)), Month.of(as_date(q.t1))
    there = {str(s) for s in np.atleast_1d(ds["sensor"].values)}
    return [s for s in dict.fromkeys(q.sensors) if s in there], [m for m in _months(ds) if first <= m <= last]


# --- selecting ------------------------------------------------------------------------------------------------------


def select(ds: xr.Dataset, q: CoverageQuery, *, resolution: float | None = None) -> xr.DataArray:
    """One metric over the window's months, as ``(lat, lon)`` or ``(cells,)`` float32 (with ``time`` before them for ``scrub``).

    ``rate`` is the mean over the known months, ``total`` their sum, ``recent`` the latest known one, ``worst`` the worse
    direction for that metric, ``scrub`` every month. NaN where no month is known; the coordinate ``known_months`` says how
    many are. Several sensors become one by the metric's rule (``METRICS``): a cell's month is known where every sensor
    that has the metric at all is known there. ``action`` gives flag values (``ACTIONS``). The attribute ``provisional_months`` counts the
    months whose scan is provisional: a 0 of such a month means "none found yet", not "none". Only what is asked for is read. A
    ``bbox`` across the antimeridian (west > east) gives its cells from west to east, so that ``lon`` falls once.

    ``resolution``, in degrees, lets a coarser level of the cube answer: the coarsest whose cells are not larger. There, counts and
    means are means over the known cells by area, deficit and priority the largest, actions the most urgent, and the coordinate
    ``known_share`` is the share of the area, over the window's months, that is known. Without such a level (metrics derived from
    day masks, H3 cells, a dataset that is not the cube as opened) the cells themselves answer.

    Should a partition be rewritten meanwhile, the selection is made again, so that old and new are never mixed.
    Raises ``CoverageError`` for an unknown metric, sensor or aggregation, or a window or box outside the cube.
    """
    current = ds
    for _ in range(_TRIES):
        try:
            result = _select(current, q, resolution)
        except (KeyError, IndexError, ValueError, RuntimeError, FileNotFoundError, CubeDamaged) as error:
            if _is_current(current, q):
                _name_damage(current, q, error)
                raise
        else:
            if _is_current(current, q):
                return result
        current = _opened_again(current)
    raise CoverageError("the cube is being rewritten faster than it can be read; try again when the runs have ended")


def _name_damage(ds: xr.Dataset, q: CoverageQuery, error: Exception) -> None:
    """Raise ``CubeDamaged`` where a chunk that a selection needs cannot be read; nothing where the fault is another."""
    stored = _behind(ds)
    if stored is None or isinstance(error, CubeDamaged) or q.metric not in METRICS:
        return
    sensors, months = _asked(ds, q)
    for sensor, month in itertools.product(sensors, months):
        at = stored.sensors.index(sensor), stored.months.index(month)
        stored.arrays[METRICS[q.metric].variable(q.metric)].refuse_damage(at)


@dataclass(frozen=True)
class _Place:
    """The cells that are asked for: their coordinates, and where they lie in the dataset's arrays or those of a level."""

    dims: tuple[str, ...]
    coords: dict[str, Any]
    shape: tuple[int, ...]
    within: list[tuple[Any, ...]]
    """Indices of the pieces, from west to east, along the cells' dimensions of the dataset or the level."""
    group: str | None = None
    """Of a level: its path below the root."""
    stored: _Stored | None = None
    """The arrays that ``within`` indexes; None: the dataset's."""


def _check(ds: xr.Dataset, q: CoverageQuery) -> list[Month]:
    if q.metric not in METRICS or METRICS[q.metric].variable(q.metric) not in ds:
        there = ", ".join(name for name, metric in METRICS.items() if metric.variable(name) in ds)
        raise CoverageError(f"unknown metric {q.metric!r}: choose one of {there}")
    if METRICS[q.metric].layer != q.layer:
        raise CoverageError(f"metric {q.metric!r} belongs to the layer {METRICS[q.metric].layer!r}, not {q.layer!r}")
    if q.aggregation not in AGGREGATIONS:
        raise CoverageError(f"unknown aggregation {q.aggregation!r}: choose one of {', '.join(AGGREGATIONS)}")
    if q.metric == "action" and q.aggregation in ("rate", "total"):
        raise CoverageError(f"actions have no {q.aggregation}: choose recent, worst or scrub")
    sensors = {str(s) for s in ds["sensor"].values}
    unknown = [s for s in q.sensors if s not in sensors]
    if unknown or not q.sensors:
        raise CoverageError(f"choose sensors of the cube ({', '.join(sorted(sensors))}); not there: {', '.join(unknown) or 'none chosen'}")
    weights = ("scenes_count", "cloud_unknown_scene_count")
    if METRICS[q.metric].across_sensors == "mean" and len(set(q.sensors)) > 1 and (missing := [name for name in weights if name not in ds]):
        raise CoverageError(
            f"{q.metric} of several sensors is weighted by their scenes of known cloud, and the dataset lacks {' and '.join(missing)}: "
            "add them, or choose one sensor"
        )
    _, chosen = _asked(ds, q)
    if not chosen:
        months = _months(ds)
        raise CoverageError(f"the window {q.t0}..{q.t1} holds no month of the cube ({months[0]}..{months[-1]})")
    return chosen


def _place(ds: xr.Dataset, q: CoverageQuery, resolution: float | None) -> _Place:
    stored = _behind(ds)
    name = METRICS[q.metric].variable(q.metric)
    if stored is not None and not (ds[name].chunks and ds[name].encoding.get("stored") is stored):
        stored = None
    if "cells" in ds.dims:
        cells = slice(None) if q.bbox is None else np.flatnonzero(_touching(q.bbox, grid_of(ds))[_positions(ds)])
        ids = ds["cell_ids"][cells]
        whole = stored is not None and ids.size and ds.sizes["cells"] == stored.grid.shape[0]
        return _Place(("cells",), {"cell_ids": ids}, ids.shape, [(cells,)], None, stored if whole else None)
    if stored is not None and resolution is not None and METRICS[q.metric].mask is None:
        whole = stored.grid.shape == (ds.sizes["lat"], ds.sizes["lon"])
        fitting = [v for v in levels(stored.grid) if v.factor * stored.grid.resolution <= resolution * (1 + 1e-9)] if whole else []
        if fitting:
            level = fitting[-1]
            lats, lons = (stored.arrays[f"{level.group}/{dim}"][:] for dim in ("lat", "lon"))
            within = _indices(lats, lons, q.bbox, stored.grid.resolution * level.factor, stored.grid)
            return _of(lats, lons, within, level.group, stored)
    grid = grid_of(ds)
    lats, lons = ds["lat"].values, ds["lon"].values
    within = _indices(lats, lons, q.bbox, grid.resolution, grid)
    if stored is not None:
        rows, columns = (_part_of(axis, part) for axis, part in ((stored.grid.lats, lats), (stored.grid.lons, lons)))
        if rows is None or columns is None:
            stored = None
        else:
            inside = [(slice(r.start + rows, r.stop + rows), slice(c.start + columns, c.stop + columns)) for r, c in within]
            return _of(lats, lons, within, None, stored, inside)
    return _of(lats, lons, within, None, None)


def _part_of(axis: NDArray[Any], part: NDArray[Any]) -> int | None:
    """Where a part of the axis begins; None where it is not one: reversed, or every other cell."""
    start = int(np.searchsorted(axis, part[0]))
    return start if np.array_equal(axis[start : start + len(part)], part) else None


def _of(
    lats: NDArray[Any],
    lons: NDArray[Any],
    within: list[tuple[Any, ...]],
    group: str | None,
    stored: _Stored | None,
    inside: list[tuple[Any, ...]] | None = None,
) -> _Place:
    coords = {"lat": lats[within[0][0]], "lon": np.concatenate([lons[columns] for _, columns in within])}
    return _Place(("lat", "lon"), coords, (len(coords["lat"]), len(coords["lon"])), inside or within, group, stored)


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
    found = []
    for box in boxes:
        rows, columns = bbox_to_index(box, globe)
        piece = []
        for axis, wanted in ((lats, globe.lats[rows]), (lons, globe.lons[columns])):
            low, high = wanted[0] - globe.resolution / 2, wanted[-1] + globe.resolution / 2
            # a cell of the axis, perhaps larger than the grid's, meets what the box touches
            first, end = np.searchsorted(axis + step / 2, low + step * 1e-3), np.searchsorted(axis - step / 2, high - step * 1e-3)
            piece.append(slice(int(first), int(end)))
        if all(part.start < part.stop for part in piece):
            found.append(tuple(piece))
    if not found:
        raise CoverageError(f"bbox {bbox} holds no cell of the dataset")
    return found


def _touching(bbox: tuple[float, float, float, float], grid: GridSpec) -> NDArray[np.bool_]:
    """H3 cells that the box touches."""
    try:
        boxes = np.array([shapely.box(*box) for box in split_bbox(bbox)], dtype=object)
    except ValueError as error:
        raise CoverageError(str(error)) from None
    return touched(boxes, grid)


def _positions(ds: xr.Dataset) -> NDArray[np.int64]:
    return np.searchsorted(grid_of(ds).cell_ids, ds["cell_ids"].values)


def _applies(ds: xr.Dataset, metric: str, sensor: str, months: Sequence[Month]) -> list[bool]:
    """Whether a sensor has that metric at all in each month: PRISMA has no catalogue, Sentinel-2 may not be held."""
    lacking = []
    if METRICS[metric].needs in ("catalogue", "both"):
        lacking.append(("scan_status", SCAN_STATUS.index("not_applicable")))
    if METRICS[metric].layer == "acquired":  # for the gap, a sensor that is not in our holdings is a known zero
        lacking.append(("holdings_status", HOLDINGS_STATUS.index("not_held")))
    applies = np.ones(len(months), bool)
    for status, code in lacking:
        if status in ds:
            applies &= _told(ds, status, _at(ds, [sensor], months))[0] != code
    return [bool(one) for one in applies]


def _provisional_months(ds: xr.Dataset, q: CoverageQuery, months: Sequence[Month]) -> int:
    """Months of the window in which the scan of a sensor that the metric needs is provisional: a zero there is no known none."""
    if METRICS[q.metric].needs == "holdings" or "scan_status" not in ds:
        return 0
    status = _told(ds, "scan_status", _at(ds, list(dict.fromkeys(q.sensors)), months))
    return int((status == SCAN_STATUS.index("provisional")).any(axis=0).sum())


def _fields(ds: xr.Dataset, place: _Place, name: str, metric: str, sensor: str, months: Sequence[Month]) -> Iterator[NDArray[Any] | None]:
    """A variable of a sensor month by month, decoded; None where the sensor does not have the metric at all that month."""
    applies = _applies(ds, metric, sensor, months)
    if place.stored is None:
        for month, there in zip(months, applies, strict=True):
            one = ds[name].sel(sensor=sensor, time=month.to_datetime64())
            yield np.concatenate([one.isel(dict(zip(place.dims, p, strict=True))).values for p in place.within], -1) if there else None
        return
    stored = place.stored
    array = stored.arrays[name if place.group is None else f"{place.group}/{name}"]
    s, times = stored.sensors.index(sensor), [stored.months.index(m) for m in months]
    here = _at(ds, [sensor], months)
    revision, gap_revision = (_told(ds, n, here)[0] for n in ("revision", "gap_revision"))
    of_gap = KNOWN_SHARES.get(name, (name,))[0] in GAP_VARIABLES  # what an overview says is known of a stale gap is stale, too
    whole = (revision != 0) & ((gap_revision == revision) | (not of_gap))
    most = max(1, _BYTES_AT_ONCE // (math.prod(place.shape) * array.dtype.itemsize))
    i = 0
    while i < len(months):
        if not (applies[i] and whole[i]):
            yield _nothing(array.dtype, place.shape) if applies[i] else None
            i += 1
            continue
        n = 1  # months that follow each other are read together
        while n < most and i + n < len(months) and applies[i + n] and whole[i + n] and times[i + n] == times[i] + n:
            n += 1
        pieces = [array.outer((s, slice(times[i], times[i] + n), *piece)) for piece in place.within]
        block = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)
        for values in block:
            yield decoded(values)
        i += n


def _nothing(dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A field that is not known, decoded."""
    if dtype == np.uint32:
        return np.full(shape, daymask.UNKNOWN)
    return np.zeros(shape, dtype) if dtype == np.uint8 else np.full(shape, np.nan, np.float32)


def _combined(metric: Metric, name: str, month: Month, fields: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One month of several sensors by the metric's rule; NaN where not known."""
    if not fields:
        return np.full(shape, np.nan, np.float32)
    if metric.mask is not None:
        days = fields[0]
        for more in fields[1:]:
            days = days | more
        known = daymask.is_known(days)
        figure = daymask.longest_wait(days, month.days) if metric.measure == "longest_wait" else daymask.observations(days)
        return np.where(known, figure, np.nan).astype(np.float32)
    values = [_urgency(f) if name == "action" else f.astype(np.float32, copy=False) for f in fields]
    combined = values[0]
    for more in values[1:]:
        match metric.across_sensors:
            case "sum":
                combined = combined + more
            case "min":
                combined = np.minimum(combined, more)
            case _:
                combined = np.maximum(combined, more)
    return combined


def _mean_of(
    fields: Sequence[NDArray[Any]], scenes: Sequence[NDArray[Any]], unclear: Sequence[NDArray[Any]], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The sensors' means, each weighted by its scenes of known cloud; not known where a sensor was not looked at. A sensor without such
    a scene in a cell has no mean there, which hides nothing.
    """
    total, weight, looked = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.ones(shape, bool)
    for values, count, unknown in zip(fields, scenes, unclear, strict=True):
        known = count - unknown  # NaN where either is not known
        there = known > 0
        np.add(total, values * known, out=total, where=there)
        np.add(weight, known, out=weight, where=there)
        looked &= ~np.isnan(known)
    return np.divide(total, weight, out=np.full(shape, np.nan, np.float32), where=looked & (weight > 0))


def _urgency(action: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Actions ranked so that the larger one is the one to see; unknown ranks above ``none``: it must not vanish."""
    rank = np.array([len(ACTION_ORDER) - 1 - ACTION_ORDER.index(name) for name in ACTIONS], np.float32)
    return rank[action]


_UNKNOWN_RANK = np.float32(len(ACTION_ORDER) - 1 - ACTION_ORDER.index("unknown"))


def _from_urgency(rank: NDArray[np.float32]) -> NDArray[np.float32]:
    code = np.array([ACTIONS.index(name) for name in reversed(ACTION_ORDER)], np.float32)
    known = ~np.isnan(rank)
    out = np.full(rank.shape, np.nan, np.float32)
    out[known] = code[rank[known].astype(np.int64)]
    return out


def _by_month(
    ds: xr.Dataset, q: CoverageQuery, place: _Place, months: Sequence[Month]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Each month of the metric, its sensors combined, NaN where it has no value; and where it is known."""
    metric = METRICS[q.metric]
    sensors = list(dict.fromkeys(q.sensors))
    # A cell without a scene has no mean cloud and was looked at all the same.
    of_several = metric.across_sensors == "mean" and len(sensors) > 1
    by_scenes = q.metric == "mean_scene_cloud_pct" and (of_several or "scenes_count" in ds)
    names = [metric.variable(q.metric), *(["scenes_count"] if by_scenes else []), *(["cloud_unknown_scene_count"] if of_several else [])]
    streams = [[_fields(ds, place, name, q.metric, s, months) for s in sensors] for name in names]
    for month, *by_name in zip(months, *(zip(*stream, strict=True) for stream in streams), strict=True):
        # A sensor lacks all of them or none: they have the metric's layer.
        fields, *counts = [[f for f in by_sensor if f is not None] for by_sensor in by_name]
        if of_several and len(fields) > 1:
            values = _mean_of(fields, counts[0], counts[1], place.shape)
        else:
            values = _combined(metric, q.metric, month, fields, place.shape)
        known = ~np.isnan(values)
        if q.metric == "action":
            # The most urgent action is shown, but the cell's month is known only where every sensor's action is.
            known &= np.logical_and.reduce([f != ACTIONS.index("unknown") for f in fields]) if fields else False
        elif by_scenes and fields:
            known = ~np.isnan(_combined(METRICS["scenes_count"], "scenes_count", month, counts[0], place.shape))
        yield values, known


def _select(ds: xr.Dataset, q: CoverageQuery, resolution: float | None = None) -> xr.DataArray:
    months = _check(ds, q)
    place = _place(ds, q, resolution)
    metric = METRICS[q.metric]
    worst = np.fmax if metric.worse == "high" else np.fmin
    known_months, count = np.zeros(place.shape, np.int16), np.zeros(place.shape, np.int16)
    frames: list[NDArray[np.float32]] = []
    result = np.full(place.shape, 0 if q.aggregation in ("rate", "total") else np.nan, np.float32)
    for values, known in _by_month(ds, q, place, months):
        there = ~np.isnan(values)
        known_months += known
        count += there
        match q.aggregation:
            case "scrub":
                frames.append(values)
            case "recent":
                newer = there & (values != _UNKNOWN_RANK) if q.metric == "action" else known & there
                np.copyto(result, values, where=newer | np.isnan(result))
            case "worst":
                result = worst(result, values)
            case _:
                np.add(result, values, out=result, where=there)
    if q.aggregation in ("rate", "total"):
        result[count == 0] = np.nan
    if q.aggregation == "rate":
        np.divide(result, count, out=result, where=count > 0)
    data = np.stack(frames) if q.aggregation == "scrub" else result
    if q.metric == "action":
        data = _from_urgency(data)
    dims = place.dims
    coords = dict(place.coords)
    coords["known_months"] = (dims, known_months, {"long_name": "months of the window that are known"})
    if place.group is not None:
        coords["known_share"] = (dims, _known_share(ds, q, place, months), {"long_name": "share of area and window that is known"})
    if q.aggregation == "scrub":
        dims = ("time", *dims)
        coords["time"] = np.array([m.to_datetime64() for m in months])
    attrs = {
        "long_name": metric.title if metric.mask else SCHEMA[q.metric].long_name,
        "units": "1" if metric.mask else SCHEMA[q.metric].units or "1",
        "unit_in_words": f"{metric.unit} a month" if q.aggregation == "rate" and metric.across_sensors in ("sum", "or") else metric.unit,
        "layer": q.layer,
        "aggregation": q.aggregation,
        "sensors": ", ".join(q.sensors),
        "months": len(months),
        "provisional_months": _provisional_months(ds, q, months),
        "window": f"{months[0]}..{months[-1]}",
    }
    return xr.DataArray(data, coords=coords, dims=dims, name=q.metric, attrs=attrs)


def _known_share(ds: xr.Dataset, q: CoverageQuery, place: _Place, months: Sequence[Month]) -> NDArray[np.float32]:
    """Share of the area of a level's cells that is known, over months; of several sensors, of the one least known."""
    of = {"acquired": "held_known", "available": "available_known"}.get(
        q.layer, "unmet_known" if q.metric == "unmet_supply" else "gap_known"
    )
    streams = [_fields(ds, place, of, q.metric, sensor, months) for sensor in dict.fromkeys(q.sensors)]
    share = np.zeros(place.shape, np.float32)
    for both in zip(*streams, strict=True):
        known = [np.nan_to_num(s) for s in both if s is not None]
        if known:
            share += np.minimum.reduce(known)
    return share / np.float32(len(months))


def grid_of(ds: xr.Dataset) -> GridSpec:
    """The grid a cube was made on."""
    settings = json.loads(ds.attrs["settings"]) if "settings" in ds.attrs else {}
    if "grid" in settings:
        return GridSpec.from_description(settings["grid"])
    resolution = ds.attrs.get("grid_resolution")
    if resolution is None and "lat" not in ds.dims:
        raise CoverageError("the dataset does not say which H3 resolution its cells have: keep the attribute settings of open_coverage")
    return GridSpec(float(resolution) if resolution is not None else 180.0 / ds.sizes["lat"])


def __getattr__(name: str) -> Any:
    """The specification finds ``build_coverage_zarr`` and ``compute_gap`` here; both live in modules that import this one."""
    if name == "build_coverage_zarr":
        from coverage_pipeline.pipeline.planner import build_coverage_zarr

        return build_coverage_zarr
    if name == "compute_gap":
        from coverage_pipeline.demand.gap import compute_gap

        return compute_gap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
