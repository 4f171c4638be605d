"""Making a cube where none is, and growing its axes by sensors and months."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pyproj import CRS
from upath import UPath
from zarr.codecs import ZstdCodec

from coverage_pipeline import __version__
from coverage_pipeline.cube import overviews
from coverage_pipeline.cube import schema as cube_schema
from coverage_pipeline.cube.arrays import exists, open_group, zarr_store
from coverage_pipeline.cube.axes import (
    HOW_TO_CHANGE,
    axes_of,
    days_since_1970,
    grid_in,
    json_attribute,
    scopes_of,
    set_attributes,
    settings_of,
)
from coverage_pipeline.cube.description import describe, description_path
from coverage_pipeline.cube.levels import coarse_values, dims_on, level_schema, levels, levels_with_weights, partition_arrays
from coverage_pipeline.cube.locking import metadata_lock, partition_lock
from coverage_pipeline.cube.schema import GAP_MEANING, MEANING, SCHEMA, SCHEMA_VERSION, CoverageMismatch, CubeDamaged, CubeSpec, Variable
from coverage_pipeline.grid.celltable import cell_coords
from coverage_pipeline.months import months_between
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.leftovers import clean_axes
from coverage_pipeline.storage.paths import is_local, storage_path

log = logging.getLogger(__name__)


def _new_group(path: UPath) -> zarr.Group:
    """A new root group at a path that holds nothing; nothing is ever removed to make room."""
    _refuse_occupied(path)
    return zarr.create_group(zarr_store(path, read_only=False), overwrite=False)


def is_occupied(path: UPath) -> bool:
    """Whether the path holds something that a new cube would replace: a file, or a folder that is not empty."""
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


def _chunk(dim: str, length: int, level: bool) -> int:
    if dim == "cells":
        return min(cube_schema.CELLS_CHUNK, length)
    # a level is read whole: half as many chunks where twice as wide
    return min(cube_schema.CHUNK * (2 if level and dim == "lon" else 1), length) if dim in ("lat", "lon") else 1


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


def _create(path: UPath, spec: CubeSpec) -> None:
    grid = spec.grid
    time: tuple[str, NDArray[Any], dict[str, Any]] = ("time", days_since_1970(spec.months), {})
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


def _refuse_mismatch(path: UPath, group: zarr.Group, spec: CubeSpec) -> dict[str, Any]:
    settings = settings_of(group, path)
    wanted = spec.meaning()
    for name in MEANING:
        if settings.get(name) != wanted[name]:
            setting, stored, now = name, settings.get(name), wanted[name]
            if name == "grid":
                setting, stored, now = "grid", grid_in(group, path).in_words(), spec.grid.in_words()
            elif name == "lookback_months":
                setting = "holdings.lookback_months"
            raise CoverageMismatch(
                f"{path} was made with {setting} = {stored}, the settings now say {now}; one cube cannot hold both: {HOW_TO_CHANGE}"
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
        clean_axes(path, partition_arrays(spec.grid))
        _grow(path, group, spec)  # readers go by the consolidated metadata meanwhile
        gap_changed = [n for n in GAP_MEANING if former.get(n) != settings[n]]
        void = set(json_attribute(group, path, _VOID, "[]"))  # of a run that was killed before it had voided them
        if gap_changed:
            log.warning("%s changed: every gap in %s is not known until it is made again", ", ".join(gap_changed), path)
            group["gap_revision"][...] = np.uint64(0)
            void |= set(axes_of(group)[0])
        if former != settings:
            set_attributes(path, settings=json.dumps(settings), **_marked(void))
        void |= _write_scopes(path, group, spec, scope, void)
        if void:
            _void_gaps(path, group, sorted(void))
            set_attributes(path, **{_VOID: "[]"})
        if spec.note and group.attrs.get("comment") != spec.note:
            set_attributes(path, comment=spec.note)
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


def _write_scopes(
    path: UPath, group: zarr.Group, spec: CubeSpec, scope: Callable[[CoverageSensor], NDArray[np.bool_]], void: set[str]
) -> set[str]:
    """Bring ``in_scope`` and ``taskable`` up to date, wherever the attribute ``scopes`` does not say that they are.

    A sensor whose scope is not written would be out of scope everywhere, so the attribute is set after the data. Returns the sensors
    whose gaps are void by it; with ``void``, those that are already, they are kept in an attribute until that is done.
    """
    keys, _ = axes_of(group)
    scopes = scopes_of(group, path)
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
        for level, weights in levels_with_weights(spec.grid):
            group[f"{level.group}/in_scope"][at] = coarse_values("in_scope", mask, weights, level.factor)
        scopes[sensor.key] = wanted
        set_attributes(path, scopes=json.dumps(scopes), **_marked(void | changed))
    return changed


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
            f"set window.start back to it, or {HOW_TO_CHANGE}"
        )
    all_months = months_between(months[0], max(months[-1], *spec.months))
    all_keys = [*keys, *(s.key for s in spec.sensors if s.key not in keys)]
    days = days_since_1970(all_months)
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
