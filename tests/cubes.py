"""Small cubes for tests: a few coarse cells, written through the product's own functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.read import read_partition
from coverage_pipeline.cube.schema import COVERAGE_VARIABLES, SCHEMA, CubeSpec, DesiredCadence
from coverage_pipeline.cube.write import write_coverage, write_gap
from coverage_pipeline.demand.gap import GAP_INPUTS, compute_gap
from coverage_pipeline.demand.weights import DEFAULT_WEIGHTS
from coverage_pipeline.grid.celltable import cell_coords
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor

GRID = GridSpec(10.0)
JANUARY, FEBRUARY, MARCH = (Month(2025, m) for m in (1, 2, 3))
QUARTER = (JANUARY, FEBRUARY, MARCH)

Fields = dict[str, NDArray[Any]]


def cube_spec(
    sensors: Sequence[str | CoverageSensor] = ("emit", "landsat-8-9"),
    months: Sequence[Month] = QUARTER,
    grid: GridSpec = GRID,
    **changes: Any,
) -> CubeSpec:
    """Axes and settings of a small cube; ``changes`` are fields of ``CubeSpec``."""
    spec = CubeSpec(
        grid=grid,
        sensors=tuple(COVERAGE_SENSORS[s] if isinstance(s, str) else s for s in sensors),
        months=tuple(months),
        cloud_lt=10.0,
        lookback_months=24,
        match_tolerance_seconds=60.0,
        weights=DEFAULT_WEIGHTS,
        area="everywhere",
    )
    return replace(spec, **changes)


def everywhere(grid: GridSpec = GRID) -> Callable[[CoverageSensor], NDArray[np.bool_]]:
    """A scope that holds every cell."""
    return lambda _: np.ones(grid.shape, np.bool_)


def make_cube(path: Path, spec: CubeSpec | None = None) -> Path:
    """An empty cube, or the one there, grown."""
    spec = spec or cube_spec()
    ensure_cube(path, spec, everywhere(spec.grid))
    return path


def known_fields(grid: GridSpec = GRID, **values: Any) -> Fields:
    """Every variable of a partition that was looked at: ``values`` where given, else "looked and found none"."""
    fields: Fields = {}
    for name in COVERAGE_VARIABLES:
        dtype = np.dtype(SCHEMA[name].dtype)
        value = values.get(name, np.nan if name == "mean_scene_cloud_pct" else 0)
        fields[name] = np.broadcast_to(np.asarray(value, dtype), grid.shape).copy()
    return fields


def random_fields(seed: int, grid: GridSpec = GRID) -> Fields:
    """Plausible numbers in every variable, some of them not known."""
    rng = np.random.default_rng(seed)
    fields: Fields = {}
    for name in COVERAGE_VARIABLES:
        dtype = np.dtype(SCHEMA[name].dtype)
        unknown = rng.random(grid.shape) < 0.2
        if dtype == np.uint32:
            values: NDArray[Any] = rng.integers(0, 2**28, grid.shape, dtype=np.uint32) & rng.integers(0, 2**28, grid.shape, dtype=np.uint32)
            values[unknown] = UNKNOWN
        elif dtype.kind == "f":
            values = (rng.random(grid.shape) * 100).astype(dtype)
            values[unknown] = np.nan
        else:
            values = rng.integers(0, 9, grid.shape).astype(dtype)
            values[unknown] = -1
        fields[name] = values
    return fields


def provenance(scan: str = "complete", holdings: str = "read", **changes: Any) -> dict[str, Any]:
    """Where a partition's numbers come from."""
    there: dict[str, Any] = {
        "scan_status": SCAN_STATUS.index(scan),
        "holdings_status": HOLDINGS_STATUS.index(holdings),
        "scenes_total": 7,
        "held_not_in_catalog": 0,
        "scanned_at": 1_740_000_000,
        "provider": "stac.example.org",
    }
    return there | changes


def write_partition(
    path: Path,
    sensor: str,
    month: Month,
    fields: Mapping[str, NDArray[Any]] | None = None,
    *,
    gap: bool = True,
    desired: DesiredCadence | None = None,
    **source: Any,
) -> int:
    """Coverage of one partition and, unless ``gap`` is False, its gap; ``source`` goes to ``provenance``."""
    revision = write_coverage(path, sensor, month, fields or known_fields(), provenance(**source))
    if gap:
        make_gap(path, sensor, month, desired)
    return revision


def make_gap(path: Path, sensor: str, month: Month, desired: DesiredCadence | None = None) -> None:
    """Compute and write one partition's gap."""
    part, revision = read_partition(path, sensor, month, GAP_INPUTS)
    made = compute_gap(part, desired or DesiredCadence())
    deficit = made["deficit"].values[0, 0]
    fields = {
        "deficit": np.where(np.isnan(deficit), -1, deficit).astype(np.int16),
        "priority_score": made["priority_score"].values[0, 0],
        "action": made["action"].values[0, 0],
    }
    write_gap(path, sensor, month, fields, desired=float(made["desired"].values[0, 0]), made_from=revision)


def memory_cube(
    values: Mapping[str, NDArray[Any]],
    sensors: Sequence[str] = ("emit",),
    months: Sequence[Month] = QUARTER,
    grid: GridSpec = GRID,
) -> xr.Dataset:
    """A dataset in memory with the cube's coordinates; ``values`` are ``(sensor, time, lat, lon)`` or broadcast to it."""
    shape = (len(sensors), len(months), *grid.shape)
    return xr.Dataset(
        {name: (("sensor", "time", *grid.dims), np.broadcast_to(v, shape).copy()) for name, v in values.items()},
        coords={
            "sensor": np.array(sensors, dtype=object),
            "time": np.array([m.to_datetime64() for m in months]),
            **cell_coords(grid),
        },
        attrs={"settings": json.dumps({"grid": grid.describe()})},
    )
