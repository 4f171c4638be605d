"""The cube on disk: making it, growing it, writing a partition and reading one back.

A partition (sensor × month) owns its chunk files, so that partitions can be written in parallel. What keeps a reader from
seeing half of one is the order of writing: ``revision`` to 0, the data and its overviews, the statuses, ``revision`` to a new
random number. A partition whose revision is 0 is not known, and its gap is not known where ``gap_revision`` is another number.

Two locks stand beside the cube: one for its axes and attributes, held while it is made or grown, and one for each partition,
held while it is written, so that two writers of one partition end as one of them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import itertools
import json
import logging
import math
import secrets
import shutil
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from pyproj import CRS
from upath import UPath
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec
from zarr.errors import BaseZarrError
from zarr.storage import FsspecStore, LocalStore

from coverage_pipeline import __version__
from coverage_pipeline.cube import description as product
from coverage_pipeline.cube import overviews
from coverage_pipeline.cube.schema import (
    ACTION_ORDER,
    ACTIONS,
    CELL_DIMS,
    CELLS_CHUNK,
    CHUNK,
    COVERAGE_VARIABLES,
    GAP_MEANING,
    GAP_VARIABLES,
    KNOWN_SHARES,
    MEANING,
    PARTITION_DIMS,
    PROVENANCE,
    REBUILD,
    SCHEMA,
    SCHEMA_VERSION,
    CoverageError,
    CoverageMismatch,
    CubeDamaged,
    CubeSpec,
    PartitionMoved,
    Variable,
)
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.celltable import cell_coords
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import UTC, Month, months_between
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.leftovers import clean_axes, clean_partition
from coverage_pipeline.storage.locks import Lease, LockError, LockLost, exclusive
from coverage_pipeline.storage.store import is_local, storage_path, write_bytes

log = logging.getLogger(__name__)

Rows = tuple[int, int] | None
"""First and end row of a piece of a field; None: all of it."""
Fields = Mapping[str, NDArray[Any]]


def zarr_store(path: UPath, *, read_only: bool) -> Store:
    """The Zarr store of a cube's path: never its text, in which zarr and fsspec take ``#`` and ``?`` for parts of a URL."""
    if is_local(path):
        return LocalStore(Path(path.path), read_only=read_only)
    return FsspecStore.from_upath(path, read_only=read_only)


_OF_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, AssertionError, EOFError, BaseZarrError)
"""What zarr and its codecs raise of bytes that are not what they must be."""


@contextlib.contextmanager
def reading(what: object, hint: str = REBUILD) -> Iterator[None]:
    """Turn what zarr raises of a file that is cut, changed or gone into ``CubeDamaged`` that names it."""
    try:
        yield
    except (PlannerError, IndexError):  # an index beyond the axes: another cube stands there
        raise
    except _OF_DAMAGE as error:
        said = " ".join(str(error).split())[:200]
        raise CubeDamaged(f"{what} is damaged and cannot be read ({type(error).__name__}: {said}); {hint}") from error
    except Exception as error:  # the clients of the stores have no root of their errors in common
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise CoverageError(f"cannot read {what}: {said}; check that it is there and may be read, then try again") from error


def open_group(path: UPath, mode: Literal["r", "r+"], *, consolidated: bool | None = False) -> zarr.Group:
    """The cube's root group; metadata as it stands now unless ``consolidated`` is asked for.

    Raises ``CoverageError`` where there is none, ``CubeDamaged`` where its metadata cannot be read.
    """
    with reading(path / "zarr.json"):
        try:
            return zarr.open_group(zarr_store(path, read_only=mode == "r"), mode=mode, use_consolidated=consolidated)
        except FileNotFoundError as error:
            if exists(path):
                raise ValueError("it is no group") from error
            raise CoverageError(f"no coverage cube at {path}: build one (coverage-planner build) or set output.zarr") from error


def _new_group(path: UPath) -> zarr.Group:
    """A root group where nothing is; nothing that stands there is ever removed to make room."""
    _refuse_occupied(path)
    return zarr.create_group(zarr_store(path, read_only=False), overwrite=False)


class StoredArray:
    """An array of the cube. What cannot be read of it is named by its file, with what to do."""

    def __init__(self, array: Any, path: UPath, name: str) -> None:
        self.array = array
        self.path = path
        self.name = name
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype

    def __getitem__(self, key: Any) -> Any:
        with self._reading(key):
            return self.array[key]

    def __setitem__(self, key: Any, values: Any) -> None:
        self.array[key] = values

    def outer(self, key: Any) -> Any:
        """The values at every combination of the indices, as zarr's ``oindex``."""
        with self._reading(key):
            return self.array.oindex[key]

    @contextlib.contextmanager
    def _reading(self, key: Any) -> Iterator[None]:
        try:
            with reading(self.path / self.name):
                yield
        except CoverageError as error:
            self.refuse_damage(key)
            raise error from error.__cause__

    def refuse_damage(self, key: Any = ()) -> None:
        """Raise ``CubeDamaged`` naming the first chunk within ``key`` that cannot be read; nothing where all can."""
        parts = key if isinstance(key, tuple) else (key,)
        spans = []
        for dim, (length, chunk) in enumerate(zip(self.shape, self.array.chunks, strict=True)):
            part = parts[dim] if dim < len(parts) else None
            number = -(-length // chunk)
            if isinstance(part, int | np.integer):
                spans.append(range(int(part) // chunk, int(part) // chunk + 1))
            elif isinstance(part, slice):
                start, stop, _ = part.indices(length)
                spans.append(range(start // chunk, min(number, -(-stop // chunk))))
            else:
                spans.append(range(number))
        for at in itertools.islice(itertools.product(*spans), _CHUNKS_LOOKED_AT):
            try:
                self.array.get_block_selection(at)
            except (*_OF_DAMAGE, MemoryError) as error:  # a cut chunk may announce any length
                file = self.path / self.name / self.array.metadata.encode_chunk_key(at)
                raise CubeDamaged(f"{file} is cut or damaged and cannot be read; {self._hint()}") from error

    def _hint(self) -> str:
        """A partition's own chunk is mended by writing the partition again; nothing else is."""
        name = self.name.rpartition("/")[2]
        if (name in SCHEMA and SCHEMA[name].dims[:2] == PARTITION_DIMS) or name in KNOWN_SHARES:
            return "materialise coverage and gap of its sensor and month again, which writes it anew"
        return REBUILD


_CHUNKS_LOOKED_AT = 4096


class Arrays:
    """The arrays of a cube, each opened and checked once: opening takes longer than reading or writing a small one."""

    def __init__(self, group: zarr.Group, path: UPath, grid: GridSpec) -> None:
        self._group = group
        self._path = path
        self._grid = grid
        self._opened: dict[str, StoredArray] = {}
        self._guard = threading.Lock()

    def __getitem__(self, name: str) -> StoredArray:
        with self._guard:
            if name not in self._opened:
                self._opened[name] = self._open(name)
            return self._opened[name]

    def _open(self, name: str) -> StoredArray:
        file = self._path / name / "zarr.json"
        with reading(file):
            try:
                array: Any = self._group[name]
            except KeyError:
                raise CubeDamaged(f"{self._path} has no array {name}: it was removed; {REBUILD}") from None
            if not isinstance(array, zarr.Array):
                raise TypeError("a group, not an array")
            self._check(name, array)
        return StoredArray(array, self._path, name)

    def _check(self, name: str, array: Any) -> None:
        """Raise ``ValueError`` where an array is not as this program makes it: its numbers would mean something else."""
        group, _, base = name.rpartition("/")
        variables = level_schema() if group else SCHEMA
        if base not in variables:  # a coordinate
            return
        variable = variables[base]
        dims = dims_on(self._grid, variable)
        shapes = {level.group: level.shape for level in levels(self._grid)} | {"": self._grid.shape}
        shape = {"lat": shapes[group][0], "lon": shapes[group][-1], "cells": shapes[group][0]}
        if tuple(array.metadata.dimension_names or ()) != dims:
            raise ValueError(f"its dimensions are {array.metadata.dimension_names}, not {dims}")
        if not _same_type(array, variable):
            raise ValueError(f"its type is {array.dtype}, not {variable.dtype}")
        if any(shape.get(dim, length) != length for dim, length in zip(dims, array.shape, strict=True)):
            raise ValueError(f"its shape is {array.shape}, which is not that of {self._grid.in_words()}")
        if any(chunk != 1 for dim, chunk in zip(dims, array.chunks, strict=True) if dim in PARTITION_DIMS and dims[:2] == PARTITION_DIMS):
            raise ValueError(f"its chunks are {array.chunks}, so that partitions share them")
        if not _same_fill(array.fill_value, variable.fill):
            raise ValueError(f"its fill is {array.fill_value}, not {variable.fill}")


def _same_type(array: Any, variable: Variable) -> bool:
    return array.dtype.kind in "TUO" if variable.dtype == "string" else bool(array.dtype == np.dtype(variable.dtype))


def _same_fill(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(found, float | np.floating) and math.isnan(found)
    return bool(found == wanted)


def exists(path: UPath) -> bool:
    """Whether a Zarr stands there."""
    return bool((path / "zarr.json").exists())


def is_occupied(path: UPath) -> bool:
    """Whether something that a new cube would replace stands there: a file, or a folder that is not empty."""
    if is_local(path):
        local = Path(path.path)
        return (local.is_symlink() and not local.exists()) or local.is_file() or (local.is_dir() and any(local.iterdir()))
    path.fs.invalidate_cache()
    return bool(path.fs.find(path.path, maxdepth=None))


def _refuse_occupied(path: UPath) -> None:
    if is_local(path) and Path(path.path).is_file():
        raise CoverageMismatch(f"cannot write the cube at {path}: a file stands there; name another in output.zarr (COVERAGE_OUTPUT_ZARR)")
    if is_occupied(path):
        raise CoverageMismatch(f"{path} exists and is not a coverage cube; name another in output.zarr (COVERAGE_OUTPUT_ZARR)")


def description_path(path: UPath) -> UPath:
    """The STAC collection beside the cube, ``….stac.json``."""
    return path.parent / f"{path.name.removesuffix('.zarr')}.stac.json"


def lock_paths(path: UPath) -> tuple[UPath, UPath]:
    """The lock of a cube's axes, and the folder of its partitions' locks; both stand beside it."""
    return path.parent / f".{path.name}.lock", path.parent / f".{path.name}.locks"


@contextlib.contextmanager
def metadata_lock(path: UPath) -> Iterator[Lease]:
    """One writer of the axes and attributes at a time."""
    try:
        with exclusive(lock_paths(path)[0], what=f"the axes of {path}") as lease:
            yield lease
    except LockLost:
        raise
    except (OSError, LockError) as error:
        raise CoverageError(f"cannot write the cube at {path}: {error}; set output.zarr (COVERAGE_OUTPUT_ZARR)") from error


@contextlib.contextmanager
def partition_lock(path: UPath, sensor: str, month: Month, *, timeout: float = 300.0) -> Iterator[Lease]:
    """One writer of a partition at a time."""
    partition = f"partition {month.key}|{sensor} of {path}"
    name = sensor if len(sensor) <= 80 else f"{sensor[:60]}-{hashlib.sha256(sensor.encode()).hexdigest()[:16]}"  # file systems allow 255
    try:
        with exclusive(lock_paths(path)[1] / f"{name}.{month.key}.lock", what=partition, timeout=timeout) as lease:
            yield lease
    except LockLost:
        raise
    except (OSError, LockError) as error:
        raise CoverageError(
            f"cannot write {partition}: {error}; it is not known until it is made again, all else stays: make room, or set output.zarr "
            "(COVERAGE_OUTPUT_ZARR), and run it again"
        ) from error


# --- levels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """A coarser level of the cube, for maps of the world."""

    factor: int
    shape: tuple[int, int]

    @property
    def group(self) -> str:
        """Its path below the root."""
        return overviews.level_group(self.factor)


def levels(grid: GridSpec) -> list[Level]:
    """The coarser levels of a cube on that grid, the finest first; none of H3 cells."""
    if grid.h3_res is not None:
        return []
    n_lat, n_lon = grid.shape
    return [Level(f, (n_lat // f, n_lon // f)) for f in overviews.factors((n_lat, n_lon))]


def strip_rows(grid: GridSpec) -> int:
    """Rows that a piece of a partition must be a multiple of: whole chunks, and whole blocks of every level."""
    return math.lcm(CHUNK, *(level.factor for level in levels(grid)))


def level_variable(name: str) -> Variable:
    """A variable as its levels hold it: means are numbers, whatever they are means of."""
    variable = SCHEMA[name]
    over_area = {"mean": "area: mean", "max": "area: maximum"}.get(_how(name))
    methods = " ".join(method for method in (variable.cell_methods, over_area) if method) or None
    if _how(name) == "mean":
        return Variable(variable.dims, "float32", float("nan"), variable.long_name, variable.units, methods, attrs=variable.attrs)
    return replace(variable, cell_methods=methods)


def _how(name: str) -> overviews.How:
    """How a block of cells becomes one: what a planner must not overlook stays, days are united, all else is a mean by area."""
    if name == "action":
        return "urgent"
    if name in ("deficit", "priority_score", "in_scope"):
        return "max"
    return "or" if SCHEMA[name].dtype == "uint32" else "mean"


def _coarse(name: str, values: NDArray[Any], weights: NDArray[np.float64], factor: int) -> NDArray[Any]:
    how, fill = _how(name), SCHEMA[name].fill
    fill = None if isinstance(fill, float) and math.isnan(fill) else fill
    order = [ACTIONS.index(action) for action in ACTION_ORDER] if how == "urgent" else []
    return overviews.coarsen(values, None if how == "or" or name == "in_scope" else fill, weights, factor, how, order)


# --- making ---------------------------------------------------------------------------------------------------------


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


_COORDINATES: Mapping[str, dict[str, Any]] = {
    "sensor": {"long_name": "sensor key"},
    "time": {
        "long_name": "first instant of the month, UTC",
        "standard_name": "time",
        "axis": "T",
        "units": "days since 1970-01-01",
        "calendar": "proleptic_gregorian",
        "units_metadata": "leap_seconds: utc",
    },
    "lat": {"long_name": "cell centre latitude", "standard_name": "latitude", "axis": "Y", "units": "degrees_north"},
    "lon": {"long_name": "cell centre longitude", "standard_name": "longitude", "axis": "X", "units": "degrees_east"},
    "cell_ids": {},  # xdggs takes every attribute beside its own two for a parameter of the grid
}


def dims_on(grid: GridSpec, variable: Variable) -> tuple[str, ...]:
    """The dimensions of a variable in a cube on that grid."""
    if "lat" not in variable.dims or grid.h3_res is None:
        return variable.dims
    return (*(d for d in variable.dims if d not in ("lat", "lon")), *grid.dims)


def _chunk(dim: str, length: int, level: bool) -> int:
    if dim == "cells":
        return min(CELLS_CHUNK, length)
    # a level is read whole: half as many chunks where twice as wide
    return min(CHUNK * (2 if level and dim == "lon" else 1), length) if dim in ("lat", "lon") else 1


def _days(months: Sequence[Month]) -> NDArray[np.int64]:
    return np.array([m.to_datetime64().astype("datetime64[D]").astype(np.int64) for m in months], np.int64)


def _set_attributes(path: UPath, **changes: Any) -> None:
    """Change attributes of the root group in one writing.

    Not by zarr's ``attrs``: a group that was opened past its consolidated metadata would be written back without them, and a reader
    would then see the axes as they stand while they grow.
    """
    root = path / "zarr.json"
    with reading(root):
        document = json.loads(root.read_bytes())
    document.setdefault("attributes", {}).update(changes)
    write_bytes(root, json.dumps(document).encode())


def _consolidate(path: UPath) -> None:
    with warnings.catch_warnings():
        # Consolidated metadata is not in the Zarr v3 specification yet; xarray and GDAL read it, others ignore it.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(open_group(path, "r+").store)


def _add_arrays(
    group: zarr.Group,
    spec: CubeSpec,
    variables: Mapping[str, Variable],
    cells: Mapping[str, int],
    coordinates: Mapping[str, Any],
    level: bool,
) -> None:
    """Arrays and coordinates of the root group or of a level; ``cells`` are the lengths of the cells' dimensions."""
    lengths = {"sensor": len(spec.sensors), "time": len(spec.months), **cells}
    for name, variable in variables.items():
        dims = dims_on(spec.grid, variable)
        group.create_array(
            name,
            shape=tuple(lengths[d] for d in dims),
            chunks=tuple(_chunk(d, lengths[d], level) for d in dims),
            dtype=variable.dtype,
            fill_value=variable.fill,
            compressors=ZstdCodec(level=1) if "lat" in variable.dims else None,
            dimension_names=dims,
            attributes=_variable_attrs(variable) | ({"coordinates": "lat lon cell_ids"} if "cells" in dims else {}),
        )
    for name, (dim, values, extra) in coordinates.items():
        attrs = {k: v for k, v in _COORDINATES[name].items() if k != "axis" or dim != "cells"}
        array = group.create_array(
            name, shape=values.shape, chunks=(max(len(values), 120 if dim == "time" else 1),), dtype=values.dtype, dimension_names=(dim,),
            attributes={**attrs, **extra},
        )  # fmt: skip
        array[:] = values
    sensor = group.create_array(
        "sensor", shape=(len(spec.sensors),), chunks=(max(64, len(spec.sensors)),), dtype="string",
        dimension_names=("sensor",), attributes=dict(_COORDINATES["sensor"]),
    )  # fmt: skip
    sensor[:] = np.array([s.key for s in spec.sensors], dtype=np.dtypes.StringDType())
    mapping = CRS.from_user_input(spec.grid.crs).to_cf()
    reference = group.create_array("spatial_ref", shape=(), dtype="int64", dimension_names=(), attributes=mapping)
    reference[...] = 0


def level_schema() -> dict[str, Variable]:
    """The variables of a level."""
    names = [n for n, v in SCHEMA.items() if v.dims == CELL_DIMS or n == "in_scope"]
    shares = {
        name: Variable(CELL_DIMS, "float32", float("nan"), f"share of the area where {words} are known", "1", "area: mean")
        for name, (_, words) in KNOWN_SHARES.items()
    }
    return {name: level_variable(name) for name in names} | shares


def _create(path: UPath, spec: CubeSpec) -> None:
    grid = spec.grid
    time: tuple[str, NDArray[Any], dict[str, Any]] = ("time", _days(spec.months), {})
    with warnings.catch_warnings():
        # Strings of any length are stored as `string`, whose place in the specification is still being settled.
        warnings.filterwarnings("ignore", category=zarr.errors.UnstableSpecificationWarning)
        group = _new_group(path)
        described = {
            "Conventions": "CF-1.11",
            "title": "Coverage: what exists, what is held, what is missing",
            "history": f"made by coverage-planner {__version__}",
            "coordinates": "spatial_ref",
        }
        attrs: dict[str, Any] = described | {
            "schema_version": SCHEMA_VERSION,
            "grid_shape": list(grid.shape),
            "coverage_rule": grid.rule,
            "settings": json.dumps(spec.meaning()),
            "software": f"coverage-planner {__version__}",
            "catalog_snapshot": "",
        }
        if grid.h3_res is None:
            extent = grid.bounds
            shape = (grid.shape[0], grid.shape[1])
            axes = {"time": time, "lat": ("lat", grid.lats, {}), "lon": ("lon", grid.lons, {})}
            _add_arrays(group, spec, SCHEMA, {"lat": shape[0], "lon": shape[1]}, axes, False)
            for level in levels(grid):
                below = group.create_group(level.group, attributes=described | overviews.georeference(level.shape, extent))
                means = {"lat": grid.lats, "lon": grid.lons}
                axes = {"time": time} | {d: (d, v.reshape(-1, level.factor).mean(1), {}) for d, v in means.items()}
                _add_arrays(below, spec, level_schema(), {"lat": level.shape[0], "lon": level.shape[1]}, axes, True)
            attrs |= {"grid_resolution": grid.resolution} | overviews.multiscales([v.factor for v in levels(grid)], shape, extent)
        else:
            _, ids, named = cell_coords(grid)["cell_ids"]
            centres: dict[str, Any] = {"lat": ("cells", grid.lats, {}), "lon": ("cells", grid.lons, {})}
            _add_arrays(group, spec, SCHEMA, {"cells": len(ids)}, {"time": time, "cell_ids": ("cells", ids, named)} | centres, False)
    group.attrs.update(attrs | ({"comment": spec.note} if spec.note else {}))
    _consolidate(path)


_VOID = "gaps_to_void"
"""Attribute of the root group: the sensors whose gaps are made void by the settings and are not all marked so yet."""


def _marked(void: Iterable[str]) -> dict[str, str]:
    names = sorted(void)
    return {_VOID: json.dumps(names)} if names else {}


def _json_attribute(group: zarr.Group, path: UPath, name: str, default: str | None = None) -> Any:
    """An attribute of the root group that holds JSON; raises ``CubeDamaged`` where it does not, or is not there."""
    text = group.attrs.get(name, default)
    try:
        if not isinstance(text, str):
            raise TypeError(f"{type(text).__name__}")
        return json.loads(text)
    except (ValueError, TypeError) as error:
        raise CubeDamaged(f"{path / 'zarr.json'} is damaged: its attribute {name!r} is not JSON ({error}); {REBUILD}") from error


def axes_of(group: zarr.Group) -> tuple[list[str], list[Month]]:
    """Sensors and months that the cube has places for; raises ``CubeDamaged`` where the axes cannot be those of a cube."""
    where = str(group.store_path).removeprefix("file://")
    with reading(f"{where}/sensor"):
        keys = [str(key) for key in np.atleast_1d(group["sensor"][:])]
    with reading(f"{where}/time"):
        days = np.atleast_1d(group["time"][:]).astype(np.int64)
    # A writer killed while it grew the axes leaves entries without a name at the end; months follow from the first one.
    sensors = list(itertools.takewhile(bool, keys))
    if not sensors or any(keys[len(sensors) :]) or len(set(sensors)) < len(sensors):
        raise CubeDamaged(f"{where}/sensor is damaged: its keys are {keys[:20]}; {REBUILD}")
    if not len(days) or not 0 < days[0] < _LAST_DAY:  # a chunk that is gone reads as 0, the first of January 1970
        raise CubeDamaged(f"{where}/time is damaged: it has no first month; {REBUILD}")
    first = Month.of(days[0].astype("datetime64[D]"))
    months = [first.shift(k) for k in range(len(days))]
    if any(found not in (0, wanted) for found, wanted in zip(days, _days(months), strict=True)) or days[0] != _days(months[:1])[0]:
        raise CubeDamaged(f"{where}/time is damaged: its entries are not one month after the other; {REBUILD}")
    return sensors, months


_LAST_DAY = 200_000
"""Days since 1970 beyond which no cube begins: the year 2517."""


def settings_of(group: zarr.Group, path: UPath) -> dict[str, Any]:
    """The settings a cube was made with; raises ``CoverageMismatch`` for one of another schema version, or none of ours."""
    found = group.attrs.get("schema_version")
    if found != SCHEMA_VERSION:
        raise CoverageMismatch(wrong_version(path, found, f", this program writes {SCHEMA_VERSION}", _WAY_OUT))
    settings = _json_attribute(group, path, "settings")
    if not isinstance(settings, dict):
        raise CubeDamaged(f"{path / 'zarr.json'} is damaged: its attribute 'settings' is not a table; {REBUILD}")
    return settings


def wrong_version(path: UPath, found: object, here: str, way_out: str) -> str:
    """What to say of a cube of another schema version."""
    if found is None:
        return (
            f"{path} has schema version None{here}: it is not a coverage cube, or its making was broken off; move it away, or name another "
            "place in output.zarr (COVERAGE_OUTPUT_ZARR)"
        )
    if isinstance(found, int) and found > SCHEMA_VERSION:
        return (
            f"{path} has schema version {found}{here}: a newer coverage-planner made it; install that one, or name another cube in "
            "output.zarr (COVERAGE_OUTPUT_ZARR)"
        )
    return f"{path} has schema version {found}{here}: {way_out}"


def grid_in(group: zarr.Group, path: UPath) -> GridSpec:
    """The grid a cube was made on; raises ``CoverageMismatch`` as ``settings_of``."""
    settings = settings_of(group, path)
    with reading(f"{path / 'zarr.json'}: the grid in its attribute 'settings'"):
        return GridSpec.from_description(settings["grid"])


_WAY_OUT = (
    "run `coverage-planner migrate`, which builds it anew from what is on disk, or name another cube in output.zarr (COVERAGE_OUTPUT_ZARR)"
)


def _refuse_mismatch(path: UPath, group: zarr.Group, spec: CubeSpec) -> dict[str, Any]:
    settings = settings_of(group, path)
    wanted = spec.meaning()
    for name in MEANING:
        if settings.get(name) != wanted[name]:
            setting, found, now = name, settings.get(name), wanted[name]
            if name == "grid":
                setting, found, now = "grid", grid_in(group, path).in_words(), spec.grid.in_words()
            elif name == "lookback_months":
                setting = "holdings.lookback_months"
            raise CoverageMismatch(
                f"{path} was made with {setting} = {found}, the settings now say {now}; one cube cannot hold both: {_WAY_OUT}"
            )
    return settings


def ensure_cube(path: UPath | Path | str, spec: CubeSpec, scope: Callable[[CoverageSensor], NDArray[np.bool_]]) -> None:
    """Make the cube, or grow its axes, so that every partition of ``spec`` has its place.

    Sensors and months are only ever appended, which rewrites no chunk. ``scope`` gives a sensor's mask, a field of the grid.
    Where the weights or the area changed, every gap of the cube becomes not known until it is made again.
    Raises ``CoverageMismatch`` for a cube of another grid, rule, schema or threshold, or a start before the cube's.
    """
    path = storage_path(path)
    with metadata_lock(path):
        settings = spec.meaning()
        if not exists(path):
            _refuse_occupied(path)
            _create_whole(path, spec)
        group = open_group(path, "r+")
        former = _refuse_mismatch(path, group, spec)
        clean_axes(path, _partition_arrays(spec.grid))
        _grow(path, group, spec)  # readers go by the consolidated metadata meanwhile
        gap_changed = [n for n in GAP_MEANING if former.get(n) != settings[n]]
        void = set(_json_attribute(group, path, _VOID, "[]"))  # of a run that was killed before it had voided them
        if gap_changed:
            log.warning("%s changed: every gap in %s is not known until it is made again", ", ".join(gap_changed), path)
            group["gap_revision"][...] = np.uint64(0)
            void |= set(axes_of(group)[0])
        if former != settings:
            _set_attributes(path, settings=json.dumps(settings), **_marked(void))
        void |= _write_scopes(path, group, spec, scope, void)
        if void:
            _void_gaps(path, group, sorted(void))
            _set_attributes(path, **{_VOID: "[]"})
        if spec.note and group.attrs.get("comment") != spec.note:
            _set_attributes(path, comment=spec.note)
        stale = not _is_consolidated(path, group)
        if stale:
            _consolidate(path)
        if stale or not description_path(path).exists():
            describe(path)


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


def _partition_arrays(grid: GridSpec) -> list[str]:
    """The arrays of which every partition has its own chunks, those of the levels among them."""
    of_levels = [name for name, variable in level_schema().items() if variable.dims[:2] == PARTITION_DIMS]
    names = [name for name, variable in SCHEMA.items() if variable.dims[:2] == PARTITION_DIMS]
    return names + [f"{level.group}/{name}" for level in levels(grid) for name in of_levels]


def _write_scopes(
    path: UPath, group: zarr.Group, spec: CubeSpec, scope: Callable[[CoverageSensor], NDArray[np.bool_]], void: set[str]
) -> set[str]:
    """Bring ``in_scope`` and ``taskable`` up to date, wherever the attribute ``scopes`` does not say that they are.

    A sensor whose scope is not written would be out of scope everywhere, so the attribute is set after the data. Returns the sensors
    whose gaps are void by it; with ``void``, those that are already, they are kept in an attribute until that is done.
    """
    keys, _ = axes_of(group)
    scopes = _scopes_of(group, path)
    changed: set[str] = set()
    for sensor in spec.sensors:
        wanted = f"{spec.area}, latitudes {sensor.reach[0]:g}..{sensor.reach[1]:g}"
        at = keys.index(sensor.key)
        if group["taskable"][at] != sensor.taskable:
            group["taskable"][at] = np.int8(sensor.taskable)
        if scopes.get(sensor.key) == wanted:
            continue
        if sensor.key in scopes:
            group["gap_revision"][at] = np.uint64(0)
            changed.add(sensor.key)
        mask = scope(sensor).astype(np.int8)
        group["in_scope"][at] = mask
        for level, weights in _levels_of(spec.grid):
            group[f"{level.group}/in_scope"][at] = _coarse("in_scope", mask, weights, level.factor)
        scopes[sensor.key] = wanted
        _set_attributes(path, scopes=json.dumps(scopes), **_marked(void | changed))
    return changed


def _levels_of(grid: GridSpec, rows: Rows = None) -> list[tuple[Level, NDArray[np.float64]]]:
    """Each level with the relative areas of the cells of a piece's rows."""
    found = levels(grid)
    return [(level, overviews.row_areas(grid.lat_edges)[slice(*(rows or (None, None)))]) for level in found]


def _is_consolidated(path: UPath, group: zarr.Group) -> bool:
    """Whether what xarray and GDAL read of the axes is what stands there."""
    try:
        read = open_group(path, "r", consolidated=True)
    except CubeDamaged:  # none yet, or none that can be read
        return False
    return all(name in read for name in ("revision", "time", "sensor")) and all(
        read[name].shape == group[name].shape for name in ("revision", "time", "sensor")
    )


def _grow(path: UPath, group: zarr.Group, spec: CubeSpec) -> None:
    keys, months = axes_of(group)
    if spec.months and spec.months[0] < months[0]:
        raise CoverageMismatch(
            f"{path} starts in {months[0]}; an earlier start ({spec.months[0]}) would move every chunk: "
            f"set window.start back to it, or {_WAY_OUT}"
        )
    all_months = months_between(months[0], max(months[-1], *spec.months))
    all_keys = [*keys, *(s.key for s in spec.sensors if s.key not in keys)]
    days = _days(all_months)
    lengths = {"sensor": len(all_keys), "time": len(all_months)}
    for level in reversed(levels(spec.grid)):
        _resize(group[level.group], level_schema(), all_keys, days, lengths)
    # the root last: a place of a partition is one when every array has it
    _resize(group, SCHEMA, all_keys, days, lengths)


def _resize(
    group: zarr.Group, variables: Mapping[str, Variable], keys: Sequence[str], days: NDArray[np.int64], lengths: Mapping[str, int]
) -> None:
    """Give every array its length; also to those of which a writer that was killed here before made more, or less."""
    for name, variable in variables.items():
        array = group[name]
        shape = tuple(lengths.get(d, n) for d, n in zip(variable.dims, array.shape, strict=False))
        if shape != array.shape[: len(shape)]:
            array.resize((*shape, *array.shape[len(shape) :]))
    time, sensor = group["time"], group["sensor"]
    if time.shape[0] != len(days):
        time.resize((len(days),))
    if not np.array_equal(time[:], days):
        time[:] = days
    if sensor.shape[0] != len(keys):
        sensor.resize((len(keys),))
    if [str(key) for key in np.atleast_1d(sensor[:])] != list(keys):
        sensor[:] = np.array(keys, dtype=np.dtypes.StringDType())


# --- writing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a partition lies in the cube."""

    sensor: int
    time: int


def place_of(group: zarr.Group, sensor: str, month: Month) -> Place:
    """Where a partition lies; raises ``CoverageError`` where it has no place."""
    keys, months = axes_of(group)
    if sensor not in keys or month not in months:
        raise CoverageError(f"the cube has no place for {sensor} {month}: make it with ensure_cube first")
    return Place(keys.index(sensor), months.index(month))


def _end_of(grid: GridSpec, rows: Rows, after: int) -> int:
    """The end row of a piece; refuses one that does not follow the piece before, or that cuts a block of a level."""
    n = grid.shape[0]
    first, end = rows or (0, n)
    if first != after or not first < end <= n or any(row % level.factor for row in (first, end) for level in levels(grid)):
        raise CoverageError(f"rows {first}..{end} do not follow row {after} of {n} in multiples of {strip_rows(grid)}")
    return end


def _refuse_misfits(group: Arrays, names: Sequence[str], fields: Fields, rows: Rows) -> None:
    """Refuse what Zarr would cast or broadcast silently: the NaN of a float count would become 0."""
    missing = [name for name in names if name not in fields]
    if missing:
        raise CoverageError(f"a partition's fields lack {', '.join(missing)}")
    for name in names:
        array, values = group[name], fields[name]
        shape = array.shape[2:] if rows is None else (rows[1] - rows[0], *array.shape[3:])
        if values.dtype != array.dtype or values.shape != shape:
            raise CoverageError(f"{name} must be {array.dtype} of shape {shape}, got {values.dtype} of shape {values.shape}")


def _pieces(fields: Fields | Iterable[tuple[Rows, Fields]]) -> Iterator[tuple[Rows, Fields]]:
    return iter([(None, fields)]) if isinstance(fields, Mapping) else iter(fields)


def _write_pieces(
    arrays: Arrays, grid: GridSpec, at: Place, names: Sequence[str], pieces: Iterable[tuple[Rows, Fields]], lease: Lease
) -> None:
    """All of a partition's fields, and what its levels make of them; stops where the partition's lock was lost."""
    end = 0
    coarse: dict[str, NDArray[Any]] = {}  # the levels are small: gathered over the pieces, and each written once

    def write(rows: Rows, fields: Fields) -> None:
        for name in names:
            arrays[name][at.sensor, at.time, slice(*(rows or (None, None)))] = fields[name]

    with ThreadPoolExecutor(1, "chunks") as disk:  # the levels are made while the full resolution is written
        for rows, fields in pieces:
            end = _end_of(grid, rows, end)
            _refuse_misfits(arrays, names, fields, rows)
            lease.check()
            written = disk.submit(write, rows, fields)
            for level, weights in _levels_of(grid, rows):
                within = slice(None) if rows is None else slice(rows[0] // level.factor, rows[1] // level.factor)
                made = {name: _coarse(name, fields[name], weights, level.factor) for name in names}
                for share, (of, _) in KNOWN_SHARES.items():
                    if of in names:
                        made[share] = overviews.known_share(fields[of], SCHEMA[of].fill, weights, level.factor)
                for name, values in made.items():
                    coarse.setdefault(f"{level.group}/{name}", np.empty(level.shape, values.dtype))[within] = values
            written.result()
    if end != grid.shape[0]:
        raise CoverageError(f"rows {end} to {grid.shape[0]} of a partition are missing")
    lease.check()
    for path, values in coarse.items():
        arrays[path][at.sensor, at.time] = values


def write_coverage(
    path: UPath | Path | str,
    sensor: str,
    month: Month,
    fields: Fields | Iterable[tuple[Rows, Fields]],
    provenance: Mapping[str, Any],
) -> int:
    """Write one partition: every variable of ``COVERAGE_VARIABLES`` as a field, and what is known of its sources.

    ``fields`` may come piece by piece, with the rows of each (a multiple of ``strip_rows``). Returns the new revision. A region is
    whole or not known: ``revision`` is 0 while it is being written; a second writer waits for the first.
    Raises ``CoverageError`` for fields that do not fit, a partition without a place, or a disk that takes no more.
    """
    path = storage_path(path)
    group = open_group(path, "r+")
    at = place_of(group, sensor, month)
    grid = grid_in(group, path)
    arrays, pieces = Arrays(group, path, grid), _pieces(fields)
    first = next(pieces)  # what cannot be computed, or does not fit, is refused before anything is touched
    missing = [n for n in COVERAGE_VARIABLES if n not in first[1]] + [n for n in PROVENANCE if n not in provenance]
    if missing:
        raise CoverageError(f"partition {month}|{sensor} lacks {', '.join(missing)}")
    _end_of(grid, first[0], 0)
    _refuse_misfits(arrays, COVERAGE_VARIABLES, first[1], first[0])
    with _voided_if_lost(path, sensor, month, arrays, at, "revision"), partition_lock(path, sensor, month) as lease:
        clean_partition(path, _partition_arrays(grid), at.sensor, at.time)
        arrays["revision"][at.sensor, at.time] = np.uint64(0)
        _write_pieces(arrays, grid, at, COVERAGE_VARIABLES, itertools.chain([first], pieces), lease)
        for name in PROVENANCE:
            arrays[name][at.sensor, at.time] = provenance[name]
        lease.check()
        revision = secrets.randbits(63) | 1  # never 0
        arrays["revision"][at.sensor, at.time] = np.uint64(revision)
    return revision


@contextlib.contextmanager
def _voided_if_lost(path: UPath, sensor: str, month: Month, arrays: Arrays, at: Place, revision: str) -> Iterator[None]:
    """Leave a partition not known where its writer lost the lock.

    The robbed writer may have put chunks over those of the run that took the lock, so what that run wrote is not whole either. Only
    once it has ended is it certain that it does not set the revision again: the lock is taken anew for the voiding.
    """
    try:
        yield
    except LockLost:
        arrays[revision][at.sensor, at.time] = np.uint64(0)
        with contextlib.suppress(LockError, CoverageError), partition_lock(path, sensor, month):
            arrays[revision][at.sensor, at.time] = np.uint64(0)
        raise


def write_gap(
    path: UPath | Path | str,
    sensor: str,
    month: Month,
    fields: Fields | Iterable[tuple[Rows, Fields]],
    *,
    desired: float,
    made_from: int,
    meaning: Mapping[str, Any] | None = None,
) -> bool:
    """Write one partition's gap, made from the coverage of revision ``made_from``; ``fields`` as for ``write_coverage``.

    ``meaning`` are the settings that the gap was computed with (``CubeSpec.meaning``); None: those of the cube as it is opened here.
    Returns whether it was written: a gap of coverage that has been rewritten since is not, for whoever rewrote it makes its own.
    Raises ``CoverageMismatch`` where the cube's weights, area or scope are others by now.
    """
    path = storage_path(path)
    group = open_group(path, "r+")
    at = place_of(group, sensor, month)
    grid = grid_in(group, path)
    made_with = _gap_meaning(group, path, sensor)
    if meaning is not None:
        made_with |= {name: meaning[name] for name in GAP_MEANING}
    arrays, pieces = Arrays(group, path, grid), _pieces(fields)
    first = next(pieces)
    _end_of(grid, first[0], 0)
    _refuse_misfits(arrays, GAP_VARIABLES, first[1], first[0])
    with _voided_if_lost(path, sensor, month, arrays, at, "gap_revision"), partition_lock(path, sensor, month) as lease:
        if int(arrays["revision"][at.sensor, at.time]) != made_from:
            log.warning("%s %s: the coverage was written anew since this gap was computed from it; the gap is left as it is", sensor, month)
            return False
        arrays["gap_revision"][at.sensor, at.time] = np.uint64(0)
        _write_pieces(arrays, grid, at, GAP_VARIABLES, itertools.chain([first], pieces), lease)
        arrays["desired"][at.sensor, at.time] = np.float32(desired)
        # Whoever changes these voids the gaps afterwards, under this lock: a gap of before must not come in after that.
        now = _gap_meaning(open_group(path, "r"), path, sensor)
        changed = [name for name in now if now[name] != made_with[name]]
        if changed:
            raise CoverageMismatch(
                f"the gap of partition {month.key}|{sensor} of {path} is not written: another run changed {', '.join(changed)} of the cube "
                "while it was computed; make the gap again with the settings that hold now"
            )
        lease.check()
        arrays["gap_revision"][at.sensor, at.time] = np.uint64(made_from)
    return True


def _gap_meaning(group: zarr.Group, path: UPath, sensor: str) -> dict[str, Any]:
    """What a gap of that sensor follows from beside its coverage: weights, area, and the sensor's scope."""
    settings = settings_of(group, path)
    return {name: settings.get(name) for name in GAP_MEANING} | {"scope": _scopes_of(group, path).get(sensor)}


def _scopes_of(group: zarr.Group, path: UPath) -> dict[str, str]:
    """The scope of each sensor, in words, whose mask is written."""
    return dict(_json_attribute(group, path, "scopes", "{}"))


def _void_gaps(path: UPath, group: zarr.Group, sensors: Sequence[str]) -> None:
    """Make the gaps of some sensors not known, each under its partition's lock, so that none that is being written comes in after.

    The caller has written what made them void before: a gap that is made from now on is one of the new settings.
    """
    keys, months = axes_of(group)
    revision, gap_revision = group["revision"], group["gap_revision"]
    for sensor in sensors:
        s = keys.index(sensor)
        gap_revision[s] = np.uint64(0)  # at once for the readers; and then one after the other against writers
        for t in np.flatnonzero(np.atleast_1d(revision[s])[: len(months)]):
            with partition_lock(path, sensor, months[int(t)]):
                gap_revision[s, int(t)] = np.uint64(0)


def update_snapshot(path: UPath | Path | str) -> str:
    """Set ``catalog_snapshot`` to the day of the oldest catalogue answer in the cube (no later than which all is known), and bring the
    description beside the cube up to date.
    """
    path = storage_path(path)
    with metadata_lock(path):
        group = open_group(path, "r+")
        scanned = np.atleast_1d(Arrays(group, path, grid_in(group, path))["scanned_at"][...])
        known = scanned[scanned >= 0]
        snapshot = dt.datetime.fromtimestamp(int(known.min()), UTC).date().isoformat() if known.size else ""
        if group.attrs.get("catalog_snapshot") != snapshot:
            _set_attributes(path, catalog_snapshot=snapshot)
        describe(path)
    return snapshot


def describe(path: UPath) -> None:
    """Write the STAC collection beside the cube; the caller holds the lock of its axes."""
    group = open_group(path, "r")
    grid = grid_in(group, path)
    sensors, months = axes_of(group)
    cells: product.RegularCells | product.HexagonCells
    cells = product.RegularCells(grid.bounds, grid.resolution) if grid.h3_res is None else product.HexagonCells(grid.h3_res, grid.shape[0])
    made = product.collection(
        identifier=path.name.removesuffix(".zarr"),
        title=str(group.attrs.get("title", "Coverage")),
        description=str(
            group.attrs.get("comment", "Which satellite scenes exist, which are held, and what is missing, by sensor, month and cell.")
        ),
        variables={
            name: product.ProductVariable(
                dims_on(grid, v), v.dtype, v.long_name, v.units, None if isinstance(v.fill, str) else float(v.fill)
            )
            for name, v in SCHEMA.items()
        },
        sensors=sensors,
        months=(months[0], months[-1]),
        cells=cells,
        updated=dt.datetime.now(UTC),
        catalog_snapshot=str(group.attrs.get("catalog_snapshot", "")),
        href=f"./{path.name}",
        overviews=[level.group for level in levels(grid)],
    )
    document = json.dumps(made.to_dict(include_self_link=False), indent=1, allow_nan=False)
    write_bytes(description_path(path), document.encode())


# --- reading a partition back ---------------------------------------------------------------------------------------


def decoded(values: NDArray[Any]) -> NDArray[Any]:
    """Stored values as xarray decodes them: counts as float32, NaN where not known."""
    if values.dtype.kind != "i":
        return values
    shown = values.astype(np.float32)
    shown[values == -1] = np.nan  # the fill of all counts
    return shown


@dataclass(frozen=True)
class _Standing:
    """A partition as it stands in the cube."""

    group: zarr.Group
    grid: GridSpec
    arrays: Arrays
    at: Place
    revision: int


def _standing(path: UPath, sensor: str, month: Month) -> _Standing:
    """A partition that is written; raises ``CoverageError`` for one that is not. Waits for a run that is writing it."""
    if not exists(path):
        raise CoverageError(f"no coverage cube at {path}: materialise coverage first")
    group = open_group(path, "r")
    at = place_of(group, sensor, month)
    grid = grid_in(group, path)
    arrays = Arrays(group, path, grid)
    revision = int(arrays["revision"][at.sensor, at.time])
    if revision == 0 and _is_locked_by_writer(path, sensor, month):
        revision = int(arrays["revision"][at.sensor, at.time])
    if revision == 0:
        raise CoverageError(f"partition {month}|{sensor} of {path} is not written; materialise coverage first")
    return _Standing(group, grid, arrays, at, revision)


def _is_locked_by_writer(path: UPath, sensor: str, month: Month) -> bool:
    """Whether the lock of a partition that is not whole could be had, once the run that was writing it ended."""
    try:
        with partition_lock(path, sensor, month):
            return True
    except (LockError, CoverageError):  # a cube that can only be read has no lock to wait for
        return False


def partition_revision(path: UPath | Path | str, sensor: str, month: Month) -> int:
    """The revision of a partition's coverage; raises ``CoverageError`` where it is not written."""
    return _standing(storage_path(path), sensor, month).revision


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
    standing = _standing(path, sensor, month)
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
