"""Sensors that can stand for one another: what a group has and lacks together (design section 12, "Groups")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from coverage_pipeline.cube.schema import ACTIONS
from coverage_pipeline.demand.gap import gap_of_masks
from coverage_pipeline.demand.weights import DEFAULT_WEIGHTS, GapError
from coverage_pipeline.grid.daymask import DAYS, UNKNOWN, observations
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS, KNOWN_HOLDINGS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import CoverageSensor, is_sensor_key


@dataclass(frozen=True)
class SensorGroup:
    """Sensors that can stand for one another, with a cadence of their own."""

    key: str
    members: tuple[CoverageSensor, ...]
    desired: float
    """Days a month with a clear observation of any member."""


def sensor_groups(groups: Mapping[str, tuple[Sequence[str], float]], sensors: Mapping[str, CoverageSensor]) -> dict[str, SensorGroup]:
    """Groups by name, from the keys of their members and their cadence.

    Raises ``GapError`` for a name that is none or is a sensor's, an unknown or repeated member, or a sensor in two groups.
    """
    found: dict[str, SensorGroup] = {}
    owner: dict[str, str] = {}
    for name, (keys, desired) in groups.items():
        if not is_sensor_key(name) or name in sensors:
            reason = "is a sensor's key" if name in sensors else "must be lower-case letters, digits and hyphens"
            raise GapError(f"gap.groups.{name}: the name {reason}; choose another")
        if unknown := sorted(set(keys) - set(sensors)):
            raise GapError(f"gap.groups.{name}: unknown sensor {', '.join(unknown)}; known are {', '.join(sorted(sensors))}")
        for key in keys:
            if key in owner:
                raise GapError(f"gap.groups.{name}: {key} is in {owner[key]} already; a sensor belongs to one group, once")
            owner[key] = name
        found[name] = SensorGroup(name, tuple(sensors[key] for key in keys), desired)
    return found


@dataclass(frozen=True)
class MemberMasks:
    """What is known of one member of a group at some places; arrays ``(places,)``, or any one shape."""

    held_clear_days: NDArray[np.uint32]
    """Day masks; bit 31 where not known. The others likewise."""
    ingestable_days: NDArray[np.uint32]
    check_days: NDArray[np.uint32]
    in_reach: NDArray[np.bool_]
    holdings_known: NDArray[np.bool_]
    absence_counts: NDArray[np.bool_]
    """Whether finding nothing in the catalogue means that nothing exists: a complete scan of the place, or no catalogue to ask."""
    taskable: bool


@dataclass(frozen=True)
class GroupGap:
    """What a group has and lacks at some places."""

    observed_days: NDArray[np.uint32]
    """Days with a clear observation held of any member whose holdings are known."""
    ingestable_days: NDArray[np.uint32]
    """Days that downloading would add; bit 31 where not known."""
    check_days: NDArray[np.uint32]
    deficit: NDArray[np.int16]
    """-1: not known."""
    action: NDArray[np.uint8]
    """Place in ``ACTIONS``."""


def group_gap(members: Sequence[MemberMasks], desired: NDArray[np.float64] | float, month: Month) -> GroupGap:
    """Deficit and action of a group at places, from its members there.

    Known where the holdings of all members in reach are known, or where it is met already; ``task`` and ``none`` only where every member's
    scan counts.
    """
    shape = members[0].held_clear_days.shape
    nothing = np.zeros(shape, np.uint32)
    observed, ingestable, check = nothing.copy(), nothing.copy(), nothing.copy()
    known, absent = np.ones(shape, bool), np.ones(shape, bool)
    reach, taskable = np.zeros(shape, bool), np.zeros(shape, bool)
    for member in members:
        here = member.in_reach

        def days(mask: NDArray[np.uint32], here: NDArray[np.bool_] = here) -> NDArray[np.uint32]:
            return np.where(here & ((mask & UNKNOWN) == 0), mask, np.uint32(0))

        observed |= days(np.where(member.holdings_known, member.held_clear_days, UNKNOWN))
        ingestable |= days(member.ingestable_days)
        check |= days(member.check_days)
        known &= member.holdings_known | ~here
        absent &= member.absence_counts | ~here
        reach |= here
        taskable |= here & member.taskable
    ingestable &= ~observed & DAYS
    check &= ~observed & ~ingestable & DAYS
    wanted = np.broadcast_to(np.asarray(desired, np.float32), shape)
    # A desired of 0 is met where the holdings are known; above it, enough days held make it met whatever the others hold.
    known |= (wanted > 0) & (observations(observed) >= wanted)
    deficit, _, action = gap_of_masks(
        observed,
        ingestable,
        check,
        np.full(shape, np.nan, np.float32),
        wanted,
        np.array(month.days, np.uint8),
        reach,
        taskable,
        absent,
        known,
        np.array(False),
        1.0,
        weights=DEFAULT_WEIGHTS,
    )
    whole = np.where(np.isnan(deficit), -1, deficit).astype(np.int16)
    return GroupGap(observed, np.where(known, ingestable, UNKNOWN), np.where(known, check, UNKNOWN), whole, action)


def group_dataset(ds: xr.Dataset, group: SensorGroup) -> xr.Dataset:
    """A cube as ``open_coverage`` gives it, with one sensor, the group: ``deficit``, ``action``, ``desired`` and the three masks.

    ``select`` takes it as it takes a cube. Computed when it is called, for the months of ``ds``: choose these before. Members that the
    cube does not have are not known, but where the group is met without them.
    """
    months = [Month.of(t) for t in np.atleast_1d(ds["time"].values)]
    keys = [str(key) for key in np.atleast_1d(ds["sensor"].values)]
    dims = [str(dim) for dim in ds["held_clear_days"].dims if dim not in ("sensor", "time")]
    shape = tuple(ds.sizes[dim] for dim in dims)
    results = [group_gap([_of_cells(ds, member, keys, month, shape) for member in group.members], group.desired, month) for month in months]
    of = ("sensor", "time", *dims)

    def stacked(name: str, dtype: type) -> tuple[tuple[str, ...], NDArray[np.generic]]:
        return of, np.stack([getattr(result, name) for result in results])[None].astype(dtype)

    out = xr.Dataset(
        {
            "held_clear_days": stacked("observed_days", np.uint32),
            "ingestable_days": stacked("ingestable_days", np.uint32),
            "check_days": stacked("check_days", np.uint32),
            "deficit": stacked("deficit", np.float32),
            "action": stacked("action", np.uint8),
            "desired": (("sensor", "time"), np.full((1, len(months)), group.desired, np.float32)),
        },
        coords={name: ds[name] for name in ("time", "lat", "lon", "cell_ids") if name in ds.coords} | {"sensor": [group.key]},
        attrs={name: value for name, value in ds.attrs.items() if name != "settings"},
    )
    out["deficit"] = out["deficit"].where(out["deficit"] >= 0)
    out["action"].attrs = {"flag_values": list(range(len(ACTIONS))), "flag_meanings": " ".join(ACTIONS)}
    return out


def _of_cells(ds: xr.Dataset, member: CoverageSensor, keys: Sequence[str], month: Month, shape: tuple[int, ...]) -> MemberMasks:
    nowhere = np.zeros(shape, bool)
    if not member.flies_in(month):
        none = np.zeros(shape, np.uint32)
        return MemberMasks(none, none, none, nowhere, ~nowhere, ~nowhere, member.taskable)
    unknown = np.full(shape, UNKNOWN)
    if member.key not in keys:
        return MemberMasks(unknown, unknown, unknown, ~nowhere, nowhere, nowhere, member.taskable)
    part = ds.sel(sensor=member.key, time=month.to_datetime64())
    held, ingestable, check = (part[name].values.astype(np.uint32) for name in ("held_clear_days", "ingestable_days", "check_days"))
    scan, holdings = SCAN_STATUS[int(part["scan_status"])], HOLDINGS_STATUS[int(part["holdings_status"])]
    if holdings == "not_held":
        held = np.zeros(shape, np.uint32)
    known = (holdings in KNOWN_HOLDINGS) & ((held & UNKNOWN) == 0)
    listed = ((ingestable | check) & UNKNOWN) == 0
    absent = np.full(shape, scan == "not_applicable") | ((scan == "complete") & listed)
    reach = part["in_scope"].values != 0 if "in_scope" in part else ~nowhere
    return MemberMasks(held, ingestable, check, reach, np.asarray(known, bool), absent, member.taskable)
