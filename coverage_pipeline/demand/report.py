"""A report that a manager can read: what is met, with what is not known; the trend; what to do; what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coverage_pipeline.demand.changes import ChangeKind, NothingToCompare, counts, since_last_run, since_month
from coverage_pipeline.demand.groups import SensorGroup
from coverage_pipeline.demand.summary import Standing, headline, shares, state_of, summed
from coverage_pipeline.demand.summary_schema import SUMMARY_SCHEMA, SummaryMetadata
from coverage_pipeline.demand.target_months import read_target_month, target_group_gap
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.demand.targets import load_targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.daymask import known_observations
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet


class NoSummary(PlannerError):
    """There is nothing to report of."""


@dataclass(frozen=True)
class MonthFigures:
    """One sensor and month: a row of its summary, and what is known of it."""

    month: Month
    row: dict[str, Any] | None
    """Of ``SUMMARY_SCHEMA``; None: never summed up, which is not known."""
    made: SummaryMetadata | None

    @property
    def met(self) -> float | None:
        """Share of the area that wants something and has it; None: not known, or nothing is wanted."""
        return None if self.row is None else shares(self.row)[0]

    @property
    def unknown(self) -> float | None:
        """Share of that area that is not known; None: nothing is wanted."""
        return 1.0 if self.row is None else shares(self.row)[1]


@dataclass(frozen=True)
class SensorReport:
    """What one sensor, or one group of sensors, comes to in a month."""

    key: str
    """Of the sensor, or the group's name."""
    title: str
    now: MonthFigures
    trend: tuple[MonthFigures, ...]
    """Every month of the window, in order."""
    since_month: dict[ChangeKind, tuple[int, float]] | None
    """Number and area (km²) of targets by change against the month before; None: nothing to compare."""
    since_run: dict[ChangeKind, tuple[int, float]] | None
    """The same against the run before."""
    run_before: str | None
    """When that was, UTC."""

    @property
    def headline(self) -> str:
        """The figure, with the share that is not known."""
        if self.now.row is None:
            return f"{self.key} {self.now.month}: not known; it was never summed up"
        return headline(self.now.row)


@dataclass(frozen=True)
class Report:
    """All sensors in one month."""

    month: Month
    of: str
    """``targets``, or ``cells`` where there are none."""
    group: str | None
    sensors: tuple[SensorReport, ...]
    notes: list[str] = field(default_factory=list)
    """What a reader must be told, a sentence each."""


def make_report(
    sensors: Sequence[CoverageSensor],
    months: Sequence[Month],
    month: Month,
    store: Store,
    group: str | None = None,
    sensor_groups: Sequence[SensorGroup] = (),
) -> Report:
    """The report of ``month``, with the trend over ``months``; of one group of targets, or of all. ``sensor_groups`` follow the sensors,
    where there are targets.

    Raises ``NoSummary`` where no sensor was summed up in that month, or the group is unknown.
    """
    of = "targets" if store.targets.exists() and any(_has_targets(store, sensor, month) for sensor in sensors) else "cells"
    if group is not None and of == "cells":
        raise NoSummary(f"there are no targets, so there is no group {group}; set COVERAGE_TARGETS and build")
    reports = []
    for sensor in sensors:
        trend = tuple(_figures(store, sensor, one, of, group) for one in months)
        now = _figures(store, sensor, month, of, group)
        changed, run, before = _changes(store, sensor, month) if of == "targets" and group is None else (None, None, None)
        reports.append(SensorReport(sensor.key, sensor.title or sensor.key, now, trend, changed, run, before))
    if of == "targets" and sensor_groups:
        targets = load_targets(store)
        for one in sensor_groups:
            trend = tuple(_group_figures(store, one, when, targets, group) for when in months)
            now = _group_figures(store, one, month, targets, group)
            title = f"{one.key}: any of {', '.join(member.title or member.key for member in one.members)}"
            reports.append(SensorReport(one.key, title, now, trend, None, None, None))
    if all(report.now.row is None for report in reports):
        known = sorted({str(row["group"]) for sensor in sensors for row in _rows(store, sensor, month) if row["group"]})
        hint = f"; groups are {', '.join(known)}" if group is not None and known else "; build that month (coverage-planner build)"
        what = f"group {group} in {month}" if group is not None else str(month)
        raise NoSummary(f"nothing is summed up for {what}{hint}")
    return Report(month, of, group, tuple(reports))


def _rows(store: Store, sensor: CoverageSensor, month: Month) -> list[dict[str, Any]]:
    path = store.summary(sensor.key, month)
    if not path.exists():
        return []
    table, _ = read_parquet(path, SUMMARY_SCHEMA.names)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _has_targets(store: Store, sensor: CoverageSensor, month: Month) -> bool:
    return any(row["of"] == "targets" for row in _rows(store, sensor, month))


def _figures(store: Store, sensor: CoverageSensor, month: Month, of: str, group: str | None) -> MonthFigures:
    path = store.summary(sensor.key, month)
    if not path.exists():
        return MonthFigures(month, None, None)
    table, stored = read_parquet(path, SUMMARY_SCHEMA.names)
    row = next((row for row in table.to_pylist() if row["of"] == of and row["group"] == group), None)
    return MonthFigures(month, row, SummaryMetadata.of(stored))


def _group_figures(store: Store, group: SensorGroup, month: Month, targets: Targets, target_group: str | None) -> MonthFigures:
    """A group of sensors as a row of a summary, from its members' statistics; None where a member's cannot be read."""
    members = {}
    for member in group.members:
        if member.flies_in(month):
            try:
                members[member.key] = read_target_month(member, month, store, targets)
            except PlannerError:
                continue  # that member is not known, which the group's rule takes into account
    if not members:
        return MonthFigures(month, None, None)
    gap = target_group_gap(group, month, members, targets)
    desired = targets.desired(group.key, month, group.desired)
    action = gap.action.astype(np.int64)
    deficit = gap.deficit.astype(np.int64)
    standing = Standing(
        state_of(action, desired, np.zeros(len(targets), bool)),
        action,
        targets.table["area_km2"].to_numpy(np.float64),
        np.ones(len(targets), np.int64),
        deficit,
        np.minimum(np.maximum(deficit, 0), known_observations(gap.ingestable_days)),
    )
    chosen = None if target_group is None else targets.table["group"].to_numpy(dtype=object) == target_group
    nothing = {"scenes_to_get": None, "bytes_to_get": None, "bytes_stated": None}
    row = {"sensor": group.key, "month": month.key, "of": "targets", "group": target_group, **summed(standing, chosen), **nothing}
    return MonthFigures(month, row, None)


def _changes(
    store: Store, sensor: CoverageSensor, month: Month
) -> tuple[dict[ChangeKind, tuple[int, float]] | None, dict[ChangeKind, tuple[int, float]] | None, str | None]:
    try:
        by_month = counts(since_month(store, sensor.key, month.shift(-1), month))
    except NothingToCompare:
        by_month = None
    try:
        changes, before = since_last_run(store, sensor.key, month)
    except NothingToCompare:
        return by_month, None, None
    return by_month, counts(changes), before


def closing_words(row: dict[str, Any]) -> str:
    """What can be closed, for how much, and what no download closes: a sentence."""
    parts = []
    if row["scenes_to_get"]:
        stated = "" if row["bytes_stated"] else " (estimated)"
        some = "1 scene closes" if row["scenes_to_get"] == 1 else f"{row['scenes_to_get']:,} scenes close"
        parts.append(f"{some} what can be downloaded, {row['bytes_to_get'] / 1e9:,.1f} GB{stated}")
    if row["ingestable_days"]:
        parts.append(f"downloading can add {row['ingestable_days']:,} of {row['deficit_days']:,} missing days")
    if row["remaining_days"]:
        parts.append(f"{row['remaining_days']:,} days remain to task or to wait for")
    return "; ".join(parts) + "." if parts else "Nothing is known to be missing."


def change_words(changes: dict[ChangeKind, tuple[int, float]]) -> str:
    """Counts and areas of the kinds of change that occur."""
    some = [f"{number:,} {kind} ({area:,.0f} km²)" for kind, (number, area) in changes.items() if number]
    return ", ".join(some) if some else "no target changed"
