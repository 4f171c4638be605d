"""What is still wanted of places, and the days on which downloading would add it: what a backlog closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.demand.groups import SensorGroup
from coverage_pipeline.demand.target_months import TargetMonth, target_group_gap
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.grid.daymask import UNKNOWN, observations
from coverage_pipeline.months import Month


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


def sensor_demand(of: TargetMonth) -> Demand:
    """What the targets lack of one sensor."""
    days = of.column("ingestable_days").astype(np.uint32)
    return demand_of(of.sensor.key, [of.sensor.key], of.column("deficit").astype(np.int64), days)


def group_demand(group: SensorGroup, month: Month, members: Mapping[str, TargetMonth], targets: Targets) -> Demand:
    """What the targets lack of a group; ``members`` by key. A member without statistics is not known."""
    gap = target_group_gap(group, month, members, targets)
    return demand_of(group.key, [member.key for member in group.members], gap.deficit, gap.ingestable_days)
