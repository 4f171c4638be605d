"""The cube: one Zarr of everything, by sensor, month and cell. Its schema, writing a partition, opening and selecting.

A partition (sensor × month) owns its chunk files, so that partitions can be written in parallel. What keeps a reader from
seeing half of one is the order of writing: ``revision`` to 0, the data, the statuses, ``revision`` to a new random number.
A partition whose revision is 0 is not known, and its gap is not known where ``gap_revision`` is another number.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from filelock import FileLock
from numpy.typing import NDArray
from pyproj import CRS
from upath import UPath
from zarr.codecs import ZstdCodec

from coverage_pipeline import __version__, daymask
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid import GridSpec, bbox_to_index
from coverage_pipeline.months import UTC, Month, as_date, months_between
from coverage_pipeline.sensors import COVERAGE_SENSORS, CoverageSensor
from coverage_pipeline.store import is_local

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
CHUNK = 450
"""Cells along a chunk's side. Measured best of the layouts tried for maps and series together (design section 5)."""

Layer = Literal["available", "acquired", "gap"]
Aggregation = Literal["rate", "total", "recent", "worst", "scrub"]
AGGREGATIONS: tuple[Aggregation, ...] = ("rate", "total", "recent", "worst", "scrub")

SCAN_STATUS = ("not_scanned", "partial", "provisional", "complete", "not_applicable")
HOLDINGS_STATUS = ("not_read", "read", "off", "not_held")
ACTIONS = ("unknown", "met", "ingest", "check", "task", "none", "out_of_scope")


class CoverageError(PlannerError):
    """The cube cannot be made, written or read as asked."""


class CoverageMismatch(CoverageError):
    """The cube that is already there was made for something else: another grid, schema, threshold or earlier start."""


@dataclass(frozen=True)
class Variable:
    """One array of the cube."""

    dims: tuple[str, ...]
    dtype: str
    fill: Any
    """What a missing chunk reads as: *not known*."""
    long_name: str
    units: str | None = "1"
    cell_methods: str | None = None
    flags: tuple[str, ...] = ()
    masked: bool = False
    """Whether xarray, too, turns the fill into NaN (CF ``_FillValue``). Never for masks and flags, which would become floats."""
    attrs: Mapping[str, Any] = field(default_factory=dict)


_CELLS = ("sensor", "time", "lat", "lon")
_PARTITION = ("sensor", "time")


def _count(long_name: str, **more: Any) -> Variable:
    return Variable(_CELLS, "int16", -1, long_name, cell_methods="time: sum", masked=True, **more)


def _mask(long_name: str) -> Variable:
    comment = "bit d-1 is set when the cell has it on day d of the month; bit 31 alone means not known"
    return Variable(_CELLS, "uint32", int(daymask.UNKNOWN), long_name, attrs={"comment": comment})


def _number(long_name: str, units: str, cell_methods: str | None = None) -> Variable:
    return Variable(_CELLS, "float32", float("nan"), long_name, units, cell_methods)


SCHEMA: Mapping[str, Variable] = {
    "scenes_count": _count("scenes listed by the public catalogue"),
    "cloud_free_scene_count": _count("clear scenes listed by the public catalogue"),
    "cloud_unknown_scene_count": _count("listed scenes whose cloud cover is not known"),
    "mean_scene_cloud_pct": _number("mean cloud cover of the listed scenes with known cloud cover", "percent", "time: mean"),
    "available_days": _mask("days with a listed scene"),
    "clear_days": _mask("days with a clear listed scene"),
    "held_count": _count("scenes held"),
    "held_clear_count": _count("clear scenes held"),
    "held_days": _mask("days with a held scene"),
    "held_clear_days": _mask("days with a clear held scene"),
    "days_since_last_held": _number("days from the last held scene to the month's end", "days", "time: point"),
    "unmet_supply": _count("clear scenes listed and not held"),
    "ingestable_days": _mask("days with a clear scene not held and no clear observation held"),
    "check_days": _mask("days with a scene of unknown cloud cover not held, no clear observation held, not ingestable"),
    "deficit": _count("clear observations missing against the desired cadence"),
    "priority_score": _number("priority, 0 (met) to 1", "1"),
    "action": Variable(_CELLS, "uint8", 0, "action this month's evidence asks for", None, flags=ACTIONS),
    "in_scope": Variable(("sensor", "lat", "lon"), "int8", 0, "within the sensor's reach and the area of interest"),
    "taskable": Variable(("sensor",), "int8", 0, "sensor can be pointed on request"),
    "desired": Variable(_PARTITION, "float32", float("nan"), "clear observations desired in the month"),
    "scan_status": Variable(_PARTITION, "uint8", 0, "what is known of the catalogue", None, flags=SCAN_STATUS),
    "holdings_status": Variable(_PARTITION, "uint8", 0, "what is known of the holdings", None, flags=HOLDINGS_STATUS),
    "scenes_total": Variable(_PARTITION, "int64", -1, "scenes of the month, all cells", masked=True),
    "held_not_in_catalog": Variable(_PARTITION, "int64", -1, "holdings of the month that no catalogue lists", masked=True),
    "scanned_at": Variable(
        _PARTITION,
        "int64",
        -1,
        "when the catalogue was asked",
        "seconds since 1970-01-01",
        masked=True,
        attrs={"calendar": "proleptic_gregorian"},
    ),
    "provider": Variable(_PARTITION, "string", "", "catalogue that answered", None),
    "revision": Variable(_PARTITION, "uint64", 0, "random number of the writing of this partition; 0: not whole"),
    "gap_revision": Variable(_PARTITION, "uint64", 0, "revision that the gap of this partition was made from"),
}

GAP_VARIABLES = ("deficit", "priority_score", "action")
COVERAGE_VARIABLES = tuple(n for n, v in SCHEMA.items() if v.dims == _CELLS and n not in GAP_VARIABLES)
_PROVENANCE = ("scan_status", "holdings_status", "scenes_total", "held_not_in_catalog", "scanned_at", "provider")
_MEANING = ("resolution", "crs", "cloud_lt", "lookback_months", "match_tolerance_seconds")
_GAP_MEANING = ("weights", "area")


@dataclass(frozen=True)
class Metric:
    """How one variable is shown and reduced."""

    layer: Layer
    title: str
    default: Aggregation
    worse: Literal["high", "low"]
    """The direction that ``worst`` takes."""
    across_sensors: Literal["sum", "mean", "min", "max"]
    """How several sensors become one map."""
    unit: str
    """In words, for one month."""


METRICS: Mapping[str, Metric] = {
    "scenes_count": Metric("available", "Scenes", "rate", "low", "sum", "scenes"),
    "cloud_free_scene_count": Metric("available", "Clear scenes", "rate", "low", "sum", "scenes"),
    "cloud_unknown_scene_count": Metric("available", "Scenes of unknown cloud", "rate", "high", "sum", "scenes"),
    "mean_scene_cloud_pct": Metric("available", "Mean cloud cover", "rate", "high", "mean", "%"),
    "held_count": Metric("acquired", "Scenes held", "rate", "low", "sum", "scenes"),
    "held_clear_count": Metric("acquired", "Clear scenes held", "rate", "low", "sum", "scenes"),
    "days_since_last_held": Metric("acquired", "Days since last held", "recent", "high", "min", "days"),
    "action": Metric("gap", "Action", "recent", "high", "max", ""),
    "deficit": Metric("gap", "Deficit", "worst", "high", "max", "clear observations"),
    "unmet_supply": Metric("gap", "Unmet supply", "rate", "high", "sum", "clear scenes"),
    "priority_score": Metric("gap", "Priority", "worst", "high", "max", "score 0 to 1"),
}
"""Every metric the dashboard offers, in its order."""

# What a planner must not overlook comes first when several months or sensors become one cell.
_ACTION_ORDER = ("ingest", "check", "task", "unknown", "none", "met", "out_of_scope")


@dataclass(frozen=True)
class DesiredCadence:
    """Clear observations wanted a month, by sensor; the registry's default where none is given."""

    per_sensor: dict[str, float] = field(default_factory=dict)

    def for_sensor(self, key: str, known: Mapping[str, CoverageSensor] = COVERAGE_SENSORS) -> float:
        """The wanted number for one sensor; raises ``CoverageError`` for a sensor nobody declared."""
        if key in self.per_sensor:
            return self.per_sensor[key]
        if key not in known:
            raise CoverageError(f"no desired cadence for sensor {key!r}: give {key} = … below [gap.desired] in build.toml")
        return known[key].default_desired_per_month


@dataclass(frozen=True)
class CoverageQuery:
    """What a planner asks of the cube: one metric of some sensors over a window, reduced over time."""

    layer: Layer
    metric: str
    sensors: list[str]
    t0: dt.date
    t1: dt.date
    aggregation: Aggregation = "rate"
    bbox: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class CubeSpec:
    """Axes of a cube and the settings that give its numbers their meaning."""

    grid: GridSpec
    sensors: tuple[CoverageSensor, ...]
    months: tuple[Month, ...]
    cloud_lt: float
    lookback_months: int
    match_tolerance_seconds: float
    weights: Mapping[str, float]
    area: str
    """The area of interest in words, with whatever makes it differ (margin, targets' fingerprint)."""
    note: str | None = None
    """What a reader must be told, such as that the data are simulated."""

    def meaning(self) -> dict[str, Any]:
        """The settings a reader needs to interpret the numbers, as they stand in the cube's attributes."""
        return {
            "resolution": self.grid.resolution,
            "crs": self.grid.crs,
            "cloud_lt": float(self.cloud_lt),
            "lookback_months": int(self.lookback_months),
            "match_tolerance_seconds": float(self.match_tolerance_seconds),
            "weights": {k: float(v) for k, v in self.weights.items()},
            "area": self.area,
        }


def _url(path: UPath | Path | str) -> UPath:
    return path if isinstance(path, UPath) else UPath(path)


def _open_group(path: UPath, mode: Literal["r", "r+", "w"], *, consolidated: bool | None = False) -> zarr.Group:
    options = {} if is_local(path) else dict(path.storage_options)
    where = str(path) if not is_local(path) else path.path
    return zarr.open_group(where, mode=mode, storage_options=options or None, use_consolidated=consolidated)


def _exists(path: UPath) -> bool:
    return bool((path / "zarr.json").exists())


@contextlib.contextmanager
def _metadata_lock(path: UPath) -> Iterator[None]:
    """One writer of the axes and attributes at a time. On an object store there is none yet: grow a cube there from one run."""
    if not is_local(path):
        yield
        return
    local = Path(path.path)
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(local.parent / f".{local.name}.lock", timeout=300):
            yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise CoverageError(f"cannot write the cube at {path}: {error}; set output.zarr (COVERAGE_OUTPUT_ZARR)") from error
    except OSError as error:
        raise CoverageError(f"cannot write the cube at {path}: {error}; set output.zarr (COVERAGE_OUTPUT_ZARR)") from error


def _dimension_attrs() -> dict[str, dict[str, Any]]:
    return {
        "sensor": {"long_name": "sensor key"},
        "time": {
            "long_name": "first instant of the month, UTC",
            "standard_name": "time",
            "axis": "T",
            "units": "days since 1970-01-01",
            "calendar": "proleptic_gregorian",
        },
        "lat": {
            "long_name": "cell centre latitude",
            "standard_name": "latitude",
            "axis": "Y",
            "units": "degrees_north",
        },
        "lon": {
            "long_name": "cell centre longitude",
            "standard_name": "longitude",
            "axis": "X",
            "units": "degrees_east",
        },
    }


def _variable_attrs(variable: Variable) -> dict[str, Any]:
    attrs: dict[str, Any] = {"long_name": variable.long_name, **variable.attrs}
    if variable.units is not None:
        attrs["units"] = variable.units
    if variable.cell_methods:
        attrs["cell_methods"] = variable.cell_methods
    if "lat" in variable.dims:
        attrs["grid_mapping"] = "spatial_ref"
    if variable.flags:
        attrs["flag_values"] = list(range(len(variable.flags)))
        attrs["flag_meanings"] = " ".join(variable.flags)
    if variable.masked:
        attrs["_FillValue"] = variable.fill
    return attrs


def _lengths(spec_grid: GridSpec, sensors: int, months: int) -> dict[str, int]:
    return {"sensor": sensors, "time": months, "lat": spec_grid.shape[0], "lon": spec_grid.shape[1]}


def _chunks(dims: tuple[str, ...], lengths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(min(CHUNK, lengths[d]) if d in ("lat", "lon") else 1 for d in dims)


def _days(months: Sequence[Month]) -> NDArray[np.int64]:
    return np.array([m.to_datetime64().astype("datetime64[D]").astype(np.int64) for m in months], np.int64)


def _consolidate(path: UPath) -> None:
    with warnings.catch_warnings():
        # Consolidated metadata is not in the Zarr v3 specification yet; xarray and GDAL read it, others ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(_open_group(path, "r+").store)


def _create(path: UPath, spec: CubeSpec) -> None:
    lengths = _lengths(spec.grid, len(spec.sensors), len(spec.months))
    with warnings.catch_warnings():
        # Strings of any length are stored as `string`, whose place in the specification is still being settled.
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        group = _open_group(path, "w")
        for name, variable in SCHEMA.items():
            group.create_array(
                name,
                shape=tuple(lengths[d] for d in variable.dims),
                chunks=_chunks(variable.dims, lengths),
                dtype=variable.dtype,
                fill_value=variable.fill,
                compressors=ZstdCodec(level=1) if "lat" in variable.dims else None,
                dimension_names=variable.dims,
                attributes=_variable_attrs(variable),
            )
        attrs = _dimension_attrs()
        for name, values in (("lat", spec.grid.lats), ("lon", spec.grid.lons), ("time", _days(spec.months))):
            array = group.create_array(
                name,
                shape=values.shape,
                chunks=values.shape,
                dtype=values.dtype,
                dimension_names=(name,),
                attributes=attrs[name],
            )
            array[:] = values
        sensor = group.create_array(
            "sensor", shape=(len(spec.sensors),), chunks=(max(64, len(spec.sensors)),), dtype="string",
            dimension_names=("sensor",), attributes=attrs["sensor"],
        )  # fmt: skip
        sensor[:] = np.array([s.key for s in spec.sensors], dtype=np.dtypes.StringDType())
        mapping = CRS.from_user_input(spec.grid.crs).to_cf()
        reference = group.create_array("spatial_ref", shape=(), dtype="int64", dimension_names=(), attributes=mapping)
        reference[...] = 0
    group.attrs.update(
        {
            "Conventions": "CF-1.11",
            "title": "Coverage: what exists, what is held, what is missing",
            "coordinates": "spatial_ref",
            "schema_version": SCHEMA_VERSION,
            "grid_resolution": spec.grid.resolution,
            "grid_shape": list(spec.grid.shape),
            "settings": json.dumps(spec.meaning()),
            "software": f"coverage-planner {__version__}",
            "catalog_snapshot": "",
        }
        | ({"comment": spec.note} if spec.note else {})
    )


def _axes(group: zarr.Group) -> tuple[list[str], list[Month]]:
    # A writer killed while it grew the axes leaves entries without a name at the end; months follow from the first one.
    sensors = [str(key) for key in np.atleast_1d(group["sensor"][:]) if key]
    days = np.atleast_1d(group["time"][:]).astype("datetime64[D]")
    first = Month.of(days[0])
    return sensors, [first.shift(k) for k in range(len(days))]


def _refuse_mismatch(path: UPath, group: zarr.Group, spec: CubeSpec) -> dict[str, Any]:
    way_out = "name another cube in output.zarr (COVERAGE_OUTPUT_ZARR), or remove the old one and build anew"
    found = group.attrs.get("schema_version")
    if found != SCHEMA_VERSION:
        raise CoverageMismatch(f"{path} has schema version {found}, this program writes {SCHEMA_VERSION}: {way_out}")
    settings: dict[str, Any] = json.loads(str(group.attrs["settings"]))
    wanted = spec.meaning()
    for name in _MEANING:
        if settings.get(name) != wanted[name]:
            setting = {
                "resolution": "grid.resolution",
                "crs": "grid.crs",
                "lookback_months": "holdings.lookback_months",
            }
            raise CoverageMismatch(
                f"{path} was made with {setting.get(name, name)} = {settings.get(name)}, the settings now say {wanted[name]}; "
                f"one cube cannot hold both: {way_out}"
            )
    return settings


def ensure_cube(path: UPath | Path | str, spec: CubeSpec, scope: Callable[[CoverageSensor], NDArray[np.bool_]]) -> None:
    """Make the cube, or grow its axes, so that every partition of ``spec`` has its place.

    Sensors and months are only ever appended, which rewrites no chunk. ``scope`` gives a sensor's mask ``(lat, lon)``.
    Where the weights or the area changed, every gap of the cube becomes not known until it is made again.
    Raises ``CoverageMismatch`` for a cube of another grid, schema or threshold, or a start before the cube's.
    """
    path = _url(path)
    with _metadata_lock(path):
        settings = spec.meaning()
        if not _exists(path):
            if is_local(path) and Path(path.path).exists() and any(Path(path.path).iterdir()):
                raise CoverageMismatch(f"{path} exists and is not a coverage cube; name another in output.zarr")
            _create_whole(path, spec)
        group = _open_group(path, "r+")
        former = _refuse_mismatch(path, group, spec)
        _grow(path, group, spec)
        gap_changed = [n for n in _GAP_MEANING if former.get(n) != settings[n]]
        if gap_changed:
            log.warning("%s changed: every gap in %s is not known until it is made again", ", ".join(gap_changed), path)
            group["gap_revision"][...] = np.uint64(0)
        if former != settings:
            group.attrs["settings"] = json.dumps(settings)
        _write_scopes(group, spec, scope)
        if spec.note and group.attrs.get("comment") != spec.note:
            group.attrs["comment"] = spec.note
        if not _is_consolidated(path, group):
            _consolidate(path)


def _create_whole(path: UPath, spec: CubeSpec) -> None:
    """Make the cube under another name first: one whose maker was killed half-way must not look like a cube."""
    if not is_local(path):
        _create(path, spec)
        return
    local = Path(path.path)
    unfinished = local.parent / f".{local.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    _create(UPath(unfinished), spec)
    unfinished.rename(local)


def _write_scopes(group: zarr.Group, spec: CubeSpec, scope: Callable[[CoverageSensor], NDArray[np.bool_]]) -> None:
    """Bring ``in_scope`` and ``taskable`` up to date, wherever the attribute ``scopes`` does not say that they are.

    A sensor whose scope is not written would be out of scope everywhere, so the attribute is set after the data.
    """
    keys, _ = _axes(group)
    scopes: dict[str, str] = json.loads(str(group.attrs.get("scopes", "{}")))
    for sensor in spec.sensors:
        wanted = f"{spec.area}, latitudes {sensor.reach[0]:g}..{sensor.reach[1]:g}"
        at = keys.index(sensor.key)
        if group["taskable"][at] != sensor.taskable:
            group["taskable"][at] = np.int8(sensor.taskable)
        if scopes.get(sensor.key) == wanted:
            continue
        if sensor.key in scopes:
            group["gap_revision"][at] = np.uint64(0)
        group["in_scope"][at] = scope(sensor).astype(np.int8)
        scopes[sensor.key] = wanted
        group.attrs["scopes"] = json.dumps(scopes)


def _is_consolidated(path: UPath, group: zarr.Group) -> bool:
    """Whether what xarray and GDAL read of the axes and attributes is what stands there."""
    try:
        read = _open_group(path, "r", consolidated=True)
    except ValueError:  # none yet
        return False
    same_axes = all(read[name].shape == group[name].shape for name in ("revision", "time", "sensor"))
    return same_axes and dict(read.attrs) == dict(group.attrs)


def _grow(path: UPath, group: zarr.Group, spec: CubeSpec) -> None:
    keys, months = _axes(group)
    if spec.months and spec.months[0] < months[0]:
        raise CoverageMismatch(
            f"{path} starts in {months[0]}; an earlier start ({spec.months[0]}) would move every chunk: "
            "set window.start back to it, or build into a new output.zarr"
        )
    last = max(months[-1], *spec.months)
    all_months = months_between(months[0], last)
    added = [s for s in spec.sensors if s.key not in keys]
    days = _days(all_months)
    if group["sensor"].shape[0] == len(keys) + len(added) and np.array_equal(group["time"][:], days) and not added:
        return
    lengths = _lengths(spec.grid, len(keys) + len(added), len(all_months))
    for name, variable in SCHEMA.items():
        group[name].resize(tuple(lengths[d] for d in variable.dims))
    group["time"].resize((len(all_months),))
    group["time"][:] = days
    group["sensor"].resize((lengths["sensor"],))
    group["sensor"][:] = np.array([*keys, *(s.key for s in added)], dtype=np.dtypes.StringDType())


@dataclass(frozen=True)
class Place:
    """Where a partition lies in the cube."""

    sensor: int
    time: int


def _place(group: zarr.Group, sensor: str, month: Month) -> Place:
    keys, months = _axes(group)
    if sensor not in keys or month not in months:
        raise CoverageError(f"the cube has no place for {sensor} {month}: make it with ensure_cube first")
    return Place(keys.index(sensor), months.index(month))


def _refuse_misfits(group: zarr.Group, fields: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what Zarr would cast or broadcast silently: the NaN of a float count would become 0."""
    for name, values in fields.items():
        array = group[name]
        if values.dtype != array.dtype or values.shape != array.shape[-2:]:
            raise CoverageError(f"{name} must be {array.dtype} of shape {array.shape[-2:]}, got {values.dtype} of shape {values.shape}")


def write_coverage(
    path: UPath | Path | str,
    sensor: str,
    month: Month,
    fields: Mapping[str, NDArray[Any]],
    provenance: Mapping[str, Any],
) -> int:
    """Write one partition: every variable of ``COVERAGE_VARIABLES`` as ``(lat, lon)``, and what is known of its sources.

    Returns the new revision. A region is whole or not known: ``revision`` is 0 while it is being written.
    """
    missing = [n for n in COVERAGE_VARIABLES if n not in fields] + [n for n in _PROVENANCE if n not in provenance]
    if missing:
        raise CoverageError(f"partition {month}|{sensor} lacks {', '.join(missing)}")
    group = _open_group(_url(path), "r+")
    at = _place(group, sensor, month)
    _refuse_misfits(group, {name: fields[name] for name in COVERAGE_VARIABLES})
    group["revision"][at.sensor, at.time] = np.uint64(0)
    for name in COVERAGE_VARIABLES:
        group[name][at.sensor, at.time] = fields[name]
    for name in _PROVENANCE:
        group[name][at.sensor, at.time] = provenance[name]
    revision = secrets.randbits(63) | 1  # never 0
    group["revision"][at.sensor, at.time] = np.uint64(revision)
    return revision


def write_gap(
    path: UPath | Path | str,
    sensor: str,
    month: Month,
    fields: Mapping[str, NDArray[Any]],
    *,
    desired: float,
    made_from: int,
) -> None:
    """Write one partition's gap, made from the coverage of revision ``made_from``."""
    group = _open_group(_url(path), "r+")
    at = _place(group, sensor, month)
    _refuse_misfits(group, {name: fields[name] for name in GAP_VARIABLES})
    group["gap_revision"][at.sensor, at.time] = np.uint64(0)
    for name in GAP_VARIABLES:
        group[name][at.sensor, at.time] = fields[name]
    group["desired"][at.sensor, at.time] = np.float32(desired)
    group["gap_revision"][at.sensor, at.time] = np.uint64(made_from)


def update_snapshot(path: UPath | Path | str) -> str:
    """Set ``catalog_snapshot`` to the day of the oldest catalogue answer in the cube (no later than which all is known)."""
    path = _url(path)
    with _metadata_lock(path):
        group = _open_group(path, "r+")
        scanned = np.atleast_1d(group["scanned_at"][...])
        known = scanned[scanned >= 0]
        snapshot = dt.datetime.fromtimestamp(int(known.min()), UTC).date().isoformat() if known.size else ""
        if group.attrs.get("catalog_snapshot") != snapshot:
            group.attrs["catalog_snapshot"] = snapshot
            _consolidate(path)
    return snapshot


def read_partition(
    path: UPath | Path | str, sensor: str, month: Month, variables: Sequence[str] = COVERAGE_VARIABLES
) -> tuple[xr.Dataset, int]:
    """Variables of one partition as ``(sensor: 1, time: 1, lat, lon)`` in memory, decoded, and the revision they were read at.

    Read straight from the arrays: going through ``open_coverage`` would cost a task a chunk. Raises ``CoverageError`` where the
    partition is not written, or moves while it is being read.
    """
    path = _url(path)
    if not _exists(path):
        raise CoverageError(f"no coverage cube at {path}: materialise coverage first")
    group = _open_group(path, "r")
    at = _place(group, sensor, month)
    revision = int(group["revision"][at.sensor, at.time])
    if revision == 0:
        raise CoverageError(f"partition {month}|{sensor} of {path} is not written; materialise coverage first")
    ds = xr.Dataset(
        coords={
            "sensor": np.array([sensor], dtype=object),
            "time": [month.to_datetime64()],
            "lat": group["lat"][:],
            "lon": group["lon"][:],
        },
        attrs=dict(group.attrs),
    )
    for name in variables:
        values = group[name][at.sensor, at.time]
        if SCHEMA[name].masked:
            values = np.where(values == SCHEMA[name].fill, np.float32(np.nan), values.astype(np.float32))
        ds[name] = (_CELLS, values[None, None])
    for name in ("scan_status", "holdings_status"):
        ds[name] = (_PARTITION, np.asarray(group[name][at.sensor, at.time]).reshape(1, 1))
    ds["in_scope"] = (("sensor", "lat", "lon"), group["in_scope"][at.sensor][None])
    if int(group["revision"][at.sensor, at.time]) != revision:
        raise CoverageError(f"partition {month}|{sensor} of {path} is being written by another run; try again")
    return ds, revision


def open_coverage(zarr_path: UPath | Path | str) -> xr.Dataset:
    """The cube, lazily, decoded: counts are NaN where not known, masks have bit 31 set.

    Partitions that are not whole read as not known, and so do gaps made from another revision of their coverage.
    Raises ``CoverageError`` where there is no cube.
    """
    path = _url(zarr_path)
    if not _exists(path):
        raise CoverageError(f"no coverage cube at {path}: build one (coverage-planner build) or set output.zarr")
    where = path.path if is_local(path) else str(path)
    options = None if is_local(path) else dict(path.storage_options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        ds: xr.Dataset = xr.open_zarr(where, chunks={}, storage_options=options)
    small = [n for n, v in SCHEMA.items() if v.dims == _PARTITION or n == "taskable"]
    ds = ds.assign({n: ds[n].load() for n in small})
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
    ds.encoding["source"] = str(path)
    ds.encoding["stored"] = {name: ds[name].data.name for name in METRICS}
    return ds


def _hide(array: xr.DataArray, known: xr.DataArray) -> xr.DataArray:
    fill = SCHEMA[str(array.name)].fill
    hidden = np.nan if array.dtype.kind == "f" else array.dtype.type(fill)
    shown: xr.DataArray = array.where(known, hidden).astype(array.dtype)
    return shown


def _is_current(ds: xr.Dataset) -> bool:
    """Whether the partitions that the dataset holds (it may be a part of the cube) are those that stand there now."""
    source = ds.encoding.get("source")
    if source is None:  # a dataset in memory has no writer
        return True
    group = _open_group(UPath(source), "r")
    keys, months = _axes(group)
    try:
        sensors = [keys.index(str(key)) for key in np.atleast_1d(ds["sensor"].values)]
        times = [months.index(Month.of(t)) for t in np.atleast_1d(ds["time"].values)]
    except ValueError:  # another cube stands there
        return False
    at = np.ix_(sensors, times)
    return all(
        np.array_equal(np.asarray(group[name][...])[at], ds[name].values.reshape(len(sensors), len(times)))
        for name in ("revision", "gap_revision")
    )


def _opened_again(ds: xr.Dataset) -> xr.Dataset:
    """The same part of the cube as it stands now."""
    source = ds.encoding["source"]
    if ds.encoding.get("gap_computed"):
        raise CoverageError(f"{source} was rewritten since this gap was computed from it: open it and compute the gap again")
    now = open_coverage(source)
    try:
        return now.sel({dim: ds[dim].values for dim in _CELLS if now.sizes[dim] != ds.sizes[dim]})
    except KeyError as error:
        raise CoverageError(f"{source} is another cube now: open it again") from error


def select(ds: xr.Dataset, q: CoverageQuery) -> xr.DataArray:
    """One metric over the window's months, as ``(lat, lon)`` float32 (``(time, lat, lon)`` for ``scrub``).

    ``rate`` is the mean over the known months, ``total`` their sum, ``recent`` the latest known one, ``worst`` the worse
    direction for that metric, ``scrub`` every month. NaN where no month is known; the coordinate ``known_months`` says how
    many are. Several sensors become one by the metric's rule (``METRICS``): a cell's month is known where every sensor
    that has the metric at all is known there. ``action`` gives flag values (``ACTIONS``).

    Should a partition be rewritten meanwhile, the selection is made again, so that old and new are never mixed.
    Raises ``CoverageError`` for an unknown metric, sensor or aggregation, or a window outside the cube.
    """
    for _ in range(5):
        current = ds if _is_current(ds) else _opened_again(ds)
        result = _select(current, q)
        if _is_current(current):
            return result
    raise CoverageError("the cube is being rewritten faster than it can be read; try again when the runs have ended")


def _check(ds: xr.Dataset, q: CoverageQuery) -> list[Month]:
    if q.metric not in METRICS or q.metric not in ds:
        raise CoverageError(f"unknown metric {q.metric!r}: choose one of {', '.join(m for m in METRICS if m in ds)}")
    if METRICS[q.metric].layer != q.layer:
        raise CoverageError(f"metric {q.metric!r} belongs to the layer {METRICS[q.metric].layer!r}, not {q.layer!r}")
    if q.aggregation not in AGGREGATIONS:
        raise CoverageError(f"unknown aggregation {q.aggregation!r}: choose one of {', '.join(AGGREGATIONS)}")
    if q.metric == "action" and q.aggregation in ("rate", "total"):
        raise CoverageError(f"actions have no {q.aggregation}: choose recent, worst or scrub")
    there = {str(s) for s in ds["sensor"].values}
    unknown = [s for s in q.sensors if s not in there]
    if unknown or not q.sensors:
        raise CoverageError(f"choose sensors of the cube ({', '.join(sorted(there))}); not there: {', '.join(unknown) or 'none chosen'}")
    first, last = Month.of(as_date(q.t0)), Month.of(as_date(q.t1))
    months = [Month.of(t) for t in ds["time"].values]
    chosen = [m for m in months if first <= m <= last]
    if not chosen:
        raise CoverageError(f"the window {q.t0}..{q.t1} holds no month of the cube ({months[0]}..{months[-1]})")
    return chosen


def _applies(ds: xr.Dataset, metric: str, sensor: str, month: Month) -> bool:
    """Whether a sensor has that metric at all in that month: PRISMA has no catalogue, Sentinel-2 may not be held."""
    layer = METRICS[metric].layer
    at = {"sensor": sensor, "time": month.to_datetime64()}
    if layer == "available" and "scan_status" in ds:
        return SCAN_STATUS[int(ds["scan_status"].sel(at))] != "not_applicable"
    if layer == "acquired" and "holdings_status" in ds:
        return HOLDINGS_STATUS[int(ds["holdings_status"].sel(at))] != "not_held"
    if metric == "unmet_supply" and "scan_status" in ds:
        return SCAN_STATUS[int(ds["scan_status"].sel(at))] != "not_applicable"
    return True


def _month_field(ds: xr.Dataset, q: CoverageQuery, month: Month, shape: tuple[int, int]) -> NDArray[np.float32]:
    """One month of the metric, its sensors combined; NaN where not known."""
    rule = METRICS[q.metric].across_sensors
    combined: NDArray[np.float32] | None = None
    sensors = [s for s in dict.fromkeys(q.sensors) if _applies(ds, q.metric, s, month)]
    if rule == "mean" and len(sensors) > 1:
        return _mean_field(ds, q.metric, sensors, month, shape)
    for sensor in sensors:
        values = _partition_field(ds, q.metric, sensor, month)
        values = _urgency(values) if q.metric == "action" else values.astype(np.float32, copy=False)
        if combined is None:
            combined = values
        elif rule == "sum":
            combined = combined + values
        else:
            combined = np.minimum(combined, values) if rule == "min" else np.maximum(combined, values)
    return np.full(shape, np.nan, np.float32) if combined is None else combined


def _mean_field(ds: xr.Dataset, metric: str, sensors: Sequence[str], month: Month, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The mean over the sensors that have a value; not known where one of them was not looked at. A sensor without a scene in a cell
    has no mean there, which hides nothing.
    """
    total, count, looked = np.zeros(shape, np.float32), np.zeros(shape, np.int16), np.ones(shape, bool)
    for sensor in sensors:
        values = _partition_field(ds, metric, sensor, month)
        there = ~np.isnan(values)
        np.add(total, values, out=total, where=there)
        count += there
        if "scenes_count" in ds:
            looked &= there | ~np.isnan(_partition_field(ds, "scenes_count", sensor, month))
        else:
            looked &= there
    return np.divide(total, count, out=np.full(shape, np.nan, np.float32), where=looked & (count > 0))


def _partition_field(ds: xr.Dataset, metric: str, sensor: str, month: Month) -> NDArray[Any]:
    """A partition's field, decoded. Where the dataset's array is still the cube's own it is read from there: a task a chunk, as dask
    has it, takes four times as long.
    """
    own = ds.encoding.get("stored", {}).get(metric)
    if own is None or getattr(ds[metric].data, "name", None) != own:
        field: NDArray[Any] = ds[metric].sel(sensor=sensor, time=month.to_datetime64()).values
        return field
    at = ds["sensor"].values.tolist().index(sensor), int(np.flatnonzero(ds["time"].values == month.to_datetime64())[0])
    revision, gap_revision = ds["revision"].values[at], ds["gap_revision"].values[at]
    variable = SCHEMA[metric]
    if revision == 0 or (metric in GAP_VARIABLES and gap_revision != revision):
        shape = ds.sizes["lat"], ds.sizes["lon"]
        return np.full(shape, np.nan, np.float32) if metric != "action" else np.full(shape, variable.fill, variable.dtype)
    raw: NDArray[Any] = _open_group(UPath(ds.encoding["source"]), "r")[metric][at]
    if not variable.masked:
        return raw
    values = raw.astype(np.float32)
    values[raw == variable.fill] = np.nan
    return values


def _urgency(action: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Actions ranked so that the larger one is the one to see; unknown ranks above ``none``: it must not vanish."""
    rank = np.array([len(_ACTION_ORDER) - 1 - _ACTION_ORDER.index(name) for name in ACTIONS], np.float32)
    return rank[action]


def _from_urgency(rank: NDArray[np.float32]) -> NDArray[np.float32]:
    code = np.array([ACTIONS.index(name) for name in reversed(_ACTION_ORDER)], np.float32)
    known = ~np.isnan(rank)
    out = np.full(rank.shape, np.nan, np.float32)
    out[known] = code[rank[known].astype(np.int64)]
    return out


def _within(ds: xr.Dataset, bbox: tuple[float, float, float, float]) -> xr.Dataset:
    """The dataset's cells that the box touches; the dataset may itself be a part of the globe."""
    grid = grid_of(ds)
    try:
        rows, columns = bbox_to_index(bbox, grid)
    except ValueError as error:
        raise CoverageError(str(error)) from None
    slices = {}
    for dim, wanted in (("lat", grid.lats[rows]), ("lon", grid.lons[columns])):
        limits = [wanted[0] - grid.resolution / 4, wanted[-1] + grid.resolution / 4]
        slices[dim] = slice(*(int(i) for i in np.searchsorted(ds[dim].values, limits)))
        if slices[dim].start == slices[dim].stop:
            raise CoverageError(f"bbox {bbox} holds no cell of the dataset")
    return ds.isel(slices)


def _select(ds: xr.Dataset, q: CoverageQuery) -> xr.DataArray:
    months = _check(ds, q)
    if q.bbox is not None:
        ds = _within(ds, q.bbox)
    shape = (ds.sizes["lat"], ds.sizes["lon"])
    worst = np.fmax if METRICS[q.metric].worse == "high" else np.fmin
    known_months, count = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    frames: list[NDArray[np.float32]] = []
    result = np.full(shape, 0 if q.aggregation in ("rate", "total") else np.nan, np.float32)
    for month in months:
        values = _month_field(ds, q, month, shape)
        known = there = ~np.isnan(values)
        if q.metric == "action":
            known &= values != _ACTION_ORDER[::-1].index("unknown")
        if q.metric == "mean_scene_cloud_pct" and "scenes_count" in ds:
            # A cell without a scene has no mean and was looked at all the same.
            known = ~np.isnan(_month_field(ds, replace(q, metric="scenes_count"), month, shape))
        known_months += known
        count += there
        match q.aggregation:
            case "scrub":
                frames.append(values)
            case "recent":
                np.copyto(result, values, where=(known & there) | np.isnan(result))
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
    coords: dict[str, Any] = {"lat": ds["lat"].values, "lon": ds["lon"].values}
    dims: tuple[str, ...] = ("lat", "lon")
    if q.aggregation == "scrub":
        dims = ("time", *dims)
        coords["time"] = np.array([m.to_datetime64() for m in months])
    coords["known_months"] = (("lat", "lon"), known_months, {"long_name": "months of the window that are known"})
    metric = METRICS[q.metric]
    attrs = {
        "long_name": SCHEMA[q.metric].long_name,
        "units": SCHEMA[q.metric].units or "1",
        "unit_in_words": f"{metric.unit} a month" if q.aggregation == "rate" and metric.across_sensors == "sum" else metric.unit,
        "layer": q.layer,
        "aggregation": q.aggregation,
        "sensors": ", ".join(q.sensors),
        "months": len(months),
        "window": f"{months[0]}..{months[-1]}",
    }
    return xr.DataArray(data, coords=coords, dims=dims, name=q.metric, attrs=attrs)


def grid_of(ds: xr.Dataset) -> GridSpec:
    """The grid a cube was made on."""
    resolution = ds.attrs.get("grid_resolution")
    return GridSpec(float(resolution) if resolution is not None else 180.0 / ds.sizes["lat"])


def __getattr__(name: str) -> Any:
    """The specification finds ``build_coverage_zarr`` and ``compute_gap`` here; both live in modules that import this one."""
    if name == "build_coverage_zarr":
        from coverage_pipeline.build import build_coverage_zarr

        return build_coverage_zarr
    if name == "compute_gap":
        from coverage_pipeline.gap import compute_gap

        return compute_gap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
