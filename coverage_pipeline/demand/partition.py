"""The gap of one sensor and month: computed from its region of the cube, and written beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.cube.levels import Rows
from coverage_pipeline.cube.read import partition_revision, read_partition
from coverage_pipeline.cube.schema import ACTIONS, CubeSpec, DesiredCadence
from coverage_pipeline.cube.write import write_gap
from coverage_pipeline.demand.gap import GAP_INPUTS, compute_gap
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor


def write_partition_gap(
    sensor: CoverageSensor,
    month: Month,
    cube: UPath,
    spec: CubeSpec,
    desired: DesiredCadence,
    sensors: Mapping[str, CoverageSensor],
    strips: Sequence[Rows],
) -> dict[str, int] | None:
    """Compute and write a partition's gap, strip by strip; returns how many cells have each action, as ``cells_<action>``.

    None where another run rewrote the coverage meanwhile: then nothing is written. Raises ``PartitionMoved`` where that happens between
    two strips, ``CoverageError`` where the coverage is not written, ``CoverageMismatch`` where the settings of the cube are others by now.
    """
    cells = np.zeros(len(ACTIONS), np.int64)
    revision = partition_revision(cube, sensor.key, month)
    wanted = desired.for_sensor(sensor.key, sensors) if sensor.flies_in(month) else float("nan")

    def piece(rows: Rows) -> dict[str, NDArray[Any]]:
        part, _ = read_partition(cube, sensor.key, month, GAP_INPUTS, rows=rows, revision=revision)
        gap = compute_gap(part, desired, weights=spec.weights, sensors=sensors)
        deficit, action = gap["deficit"].values[0, 0], gap["action"].values[0, 0]
        np.add(cells, np.bincount(action.reshape(-1), minlength=len(ACTIONS)), out=cells)
        return {
            "deficit": np.where(np.isnan(deficit), -1, deficit).astype(np.int16),
            "priority_score": gap["priority_score"].values[0, 0],
            "action": action,
        }

    pieces = ((rows, piece(rows)) for rows in strips)
    if not write_gap(cube, sensor.key, month, pieces, desired=wanted, made_from=revision, meaning=spec.meaning()):
        return None
    return {f"cells_{name}": int(count) for name, count in zip(ACTIONS, cells, strict=True)}
