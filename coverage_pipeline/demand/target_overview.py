"""Where each target stands over a window of months, sensor by sensor: what a planner's table of targets shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.cube.schema import ACTIONS
from coverage_pipeline.demand.summary import state_of
from coverage_pipeline.demand.summary_schema import STATES
from coverage_pipeline.demand.target_months import read_target_month
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store


@dataclass(frozen=True)
class TargetOverview:
    """Arrays ``(sensors, months, targets)``; a partition that could not be read is *unknown* throughout."""

    sensors: tuple[str, ...]
    months: tuple[Month, ...]
    state: NDArray[np.uint8]
    """Places in ``summary_schema.STATES``."""
    action: NDArray[np.uint8]
    """Places in ``cube.schema.ACTIONS``."""
    deficit: NDArray[np.int16]
    """Clear observations missing; -1: not known. The next two likewise."""
    ingestable: NDArray[np.int16]
    remaining: NDArray[np.int16]
    unread: list[str] = field(default_factory=list)
    """Partitions that could not be read, a sentence each."""


def target_overview(sensors: Sequence[CoverageSensor], months: Sequence[Month], store: Store, targets: Targets) -> TargetOverview:
    """Read the target statistics of a window; what is not there or made of other targets is not known, and named."""
    shape = (len(sensors), len(months), len(targets))
    state = np.full(shape, STATES.index("unknown"), np.uint8)
    action = np.full(shape, ACTIONS.index("unknown"), np.uint8)
    deficit, ingestable, remaining = (np.full(shape, -1, np.int16) for _ in range(3))
    unread = []
    for s, sensor in enumerate(sensors):
        for m, month in enumerate(months):
            if not sensor.flies_in(month):
                state[s, m], action[s, m] = STATES.index("out_of_reach"), ACTIONS.index("out_of_scope")
                continue
            try:
                one = read_target_month(sensor, month, store, targets)
            except PlannerError as error:
                unread.append(f"{sensor.key} {month}: {error}")
                continue
            codes = np.array([ACTIONS.index(name) for name in one.table["action"].to_pylist()], np.int64)
            state[s, m] = state_of(codes, one.column("desired"), one.column("too_large").astype(bool))
            action[s, m] = codes
            deficit[s, m], ingestable[s, m], remaining[s, m] = (one.column(name) for name in ("deficit", "ingestable", "remaining"))
    return TargetOverview(tuple(sensor.key for sensor in sensors), tuple(months), state, action, deficit, ingestable, remaining, unread)
