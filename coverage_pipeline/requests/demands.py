"""What is still wanted of places, and the days on which downloading would add it: what a backlog closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coverage_pipeline.demand.groups import MemberMasks, SensorGroup, group_gap
from coverage_pipeline.demand.target_schema import TARGET_STATS_SCHEMA, TargetStatsMetadata
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.daymask import UNKNOWN, observations
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet


@dataclass(frozen=True)
class Demand:
    """What places lack of one sensor, or of one group of sensors, in a month."""

    of: str
    """Key of the sensor, or name of the group."""
    sensors: frozenset[str]
    """Keys of the sensors whose scenes can close it."""
    deficit: NDArray[np.int64]
    """Clear observations missing at each place, ``(places,)``; 0 also where it is not known."""
    days: NDArray[np.uint32]
    """Days on which downloading would add one; 0 where nothing is missing or known."""

    @property
    def closable(self) -> NDArray[np.int64]:
        """Days that downloading can close at most, ``(places,)``."""
        return np.minimum(self.deficit, observations(self.days).astype(np.int64))


def demand_of(of: str, sensors: Sequence[str], deficit: NDArray[np.integer], days: NDArray[np.uint32]) -> Demand:
    """A demand from a deficit (-1: not known) and the days that downloading would add (bit 31: not known)."""
    missing = np.maximum(deficit.astype(np.int64), 0)
    known = (missing > 0) & ((days & UNKNOWN) == 0)
    return Demand(of, frozenset(sensors), missing, np.where(known, days, np.uint32(0)))


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


def sensor_demand(of: TargetMonth) -> Demand:
    """What the targets lack of one sensor."""
    days = of.column("ingestable_days").astype(np.uint32)
    return demand_of(of.sensor.key, [of.sensor.key], of.column("deficit").astype(np.int64), days)


def group_demand(group: SensorGroup, month: Month, members: Mapping[str, TargetMonth], targets: Targets) -> Demand:
    """What the targets lack of a group; ``members`` by key. A member without statistics is not known."""
    gap = group_gap(
        [_masks(member, members.get(member.key), len(targets)) for member in group.members], _desired(group, month, targets), month
    )
    return demand_of(group.key, [member.key for member in group.members], gap.deficit, gap.ingestable_days)


def _desired(group: SensorGroup, month: Month, targets: Targets) -> NDArray[np.float64]:
    return targets.desired(group.key, month, group.desired)


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
