"""What cells lack of a sensor or of a group of them, from the cube: what a backlog closes where there are no targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from upath import UPath

from coverage_pipeline.cube.read import read_partition
from coverage_pipeline.cube.schema import CoverageError, DesiredCadence
from coverage_pipeline.demand.gap import GAP_INPUTS, compute_gap
from coverage_pipeline.demand.groups import SensorGroup, group_dataset
from coverage_pipeline.months import Month
from coverage_pipeline.requests.demands import Demand, demand_of
from coverage_pipeline.sensors.registry import CoverageSensor


def cell_demand(
    sensor: CoverageSensor, month: Month, cube: UPath | Path | str, desired: DesiredCadence, sensors: Mapping[str, CoverageSensor]
) -> Demand:
    """What each cell in scope lacks of one sensor; raises ``CoverageError`` where the partition is not written."""
    part, _ = read_partition(cube, sensor.key, month, GAP_INPUTS)
    gap = compute_gap(part, desired, sensors=sensors)
    deficit = np.nan_to_num(gap["deficit"].values[0, 0], nan=-1.0).reshape(-1)
    return demand_of(sensor.key, [sensor.key], deficit.astype(np.int64), part["ingestable_days"].values[0, 0].reshape(-1))


def cell_group_demand(group: SensorGroup, month: Month, cube: UPath | Path | str, keys: Sequence[str]) -> Demand:
    """What each cell in scope lacks of a group of sensors, ``keys`` of them in the cube; a member that is not written is not known."""
    parts = []
    for member in group.members:
        if member.key not in keys:
            continue
        try:
            parts.append(read_partition(cube, member.key, month, GAP_INPUTS)[0])
        except CoverageError:
            continue
    if not parts:
        raise CoverageError(f"no member of {group.key} is written for {month}: build {', '.join(m.key for m in group.members)} first")
    gap = group_dataset(xr.concat(parts, dim="sensor"), group)
    deficit = np.nan_to_num(gap["deficit"].values[0, 0], nan=-1.0).reshape(-1)
    days = gap["ingestable_days"].values[0, 0].reshape(-1)
    return demand_of(group.key, [member.key for member in group.members], deficit.astype(np.int64), days)
