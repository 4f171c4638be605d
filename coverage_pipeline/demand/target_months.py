"""The target statistics of a month, of one sensor and of a group of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coverage_pipeline.demand.groups import GroupGap, MemberMasks, SensorGroup, group_gap
from coverage_pipeline.demand.target_schema import TARGET_STATS_SCHEMA, TargetStatsMetadata
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet


@dataclass(frozen=True)
class TargetMonth:
    """The target statistics of one sensor and month."""

    sensor: CoverageSensor
    month: Month
    table: pa.Table
    """``TARGET_STATS_SCHEMA``, row by row the targets."""
    made: TargetStatsMetadata

    def column(self, name: str) -> NDArray[Any]:
        """A column as an array."""
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))


def read_target_month(sensor: CoverageSensor, month: Month, store: Store, targets: Targets) -> TargetMonth:
    """The statistics of these targets; raises ``PlannerError`` where they were made of others, ``StoreError`` where there are none."""
    table, stored = read_parquet(store.target_stats(sensor.key, month), TARGET_STATS_SCHEMA.names)
    made = TargetStatsMetadata.of(stored)
    if made.targets_digest != targets.digest:
        raise PlannerError(
            f"{sensor.key} {month}: the targets changed since their statistics were made; materialise target_stats again "
            "(coverage-planner build)"
        )
    return TargetMonth(sensor, month, table, made)


def target_group_gap(group: SensorGroup, month: Month, members: Mapping[str, TargetMonth], targets: Targets) -> GroupGap:
    """What each target has and lacks of a group; ``members`` by key. A member without statistics is not known."""
    masks = [_masks(member, members.get(member.key), len(targets)) for member in group.members]
    return group_gap(masks, targets.desired(group.key, month, group.desired), month)


def _masks(member: CoverageSensor, of: TargetMonth | None, places: int) -> MemberMasks:
    if of is None:
        unknown, never = np.full(places, UNKNOWN), np.zeros(places, bool)
        return MemberMasks(unknown, unknown, unknown, ~never, never, never, member.taskable)
    known = of.column("catalog_known").astype(bool)
    applicable = of.made.scan_status != "not_applicable"
    return MemberMasks(
        of.column("held_clear_days").astype(np.uint32),
        of.column("ingestable_days").astype(np.uint32),
        of.column("check_days").astype(np.uint32),
        of.column("in_reach").astype(bool),
        of.column("holdings_known").astype(bool),
        known if of.made.scan_status == "complete" else np.full(places, not applicable),
        member.taskable,
    )
