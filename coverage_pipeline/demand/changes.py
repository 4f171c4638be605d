"""What changed for targets: between two months, or between the last two runs of one month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from coverage_pipeline.demand.summary_schema import HISTORY_SCHEMA
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

ChangeKind = Literal["opened", "closed", "better", "worse", "became known", "became not known", "new", "gone"]
CHANGE_KINDS: tuple[ChangeKind, ...] = get_args(ChangeKind)
"""A gap opened or closed; less or more is missing; what is missing became known, or no longer is; the target is new, or gone."""


class NothingToCompare(PlannerError):
    """There is no earlier state."""


@dataclass(frozen=True)
class TargetState:
    """Where a target stood at one time."""

    state: str
    """Of ``summary_schema.STATES``."""
    deficit: int
    """Clear observations missing; -1: not known."""
    area_km2: float

    @property
    def lacks(self) -> int | None:
        """Observations missing; None: not known. A target that wants nothing lacks nothing."""
        if self.state in ("idle", "out_of_reach", "met"):
            return 0
        return None if self.state == "unknown" or self.deficit < 0 else self.deficit


@dataclass(frozen=True)
class Change:
    """What changed for one target."""

    target: str
    kind: ChangeKind
    before: TargetState | None
    after: TargetState | None

    @property
    def area_km2(self) -> float:
        """Area of the target."""
        either = self.after or self.before
        return 0.0 if either is None else either.area_km2


def changes_between(before: Mapping[str, TargetState], after: Mapping[str, TargetState]) -> list[Change]:
    """The targets that changed, in the order of ``after``, then those that are gone."""
    result = []
    for target, now in after.items():
        was = before.get(target)
        kind = "new" if was is None else _kind(was.lacks, now.lacks)
        if kind is not None:
            result.append(Change(target, kind, was, now))
    result += [Change(target, "gone", was, None) for target, was in before.items() if target not in after]
    return result


def _kind(before: int | None, after: int | None) -> ChangeKind | None:
    if before is None or after is None:
        return None if before is after else "became not known" if after is None else "became known"
    if before == after:
        return None
    if not before:
        return "opened"
    return "closed" if not after else "better" if after < before else "worse"


def counts(changes: Sequence[Change]) -> dict[ChangeKind, tuple[int, float]]:
    """Number and area (km²) of the targets by kind of change, all kinds."""
    return {kind: (sum(c.kind == kind for c in changes), sum(c.area_km2 for c in changes if c.kind == kind)) for kind in CHANGE_KINDS}


def states_of(row: Mapping[str, Any]) -> dict[str, TargetState]:
    """The states of the targets by id, from a row of a history."""
    columns = (row["targets"], row["states"], row["deficits"], row["areas_km2"])
    return {target: TargetState(state, deficit, area) for target, state, deficit, area in zip(*columns, strict=True)}


def target_history(store: Store, sensor: str, month: Month) -> list[dict[str, Any]]:
    """Rows of a partition's history that are about all targets, oldest first; none where it was never summed up."""
    path = sibling(store.summary(sensor, month), ".history.parquet")
    if not path.exists():
        return []
    table, _ = read_parquet(path, HISTORY_SCHEMA.names)
    return [row for row in table.to_pylist() if row["of"] == "targets" and row["group"] is None]


def since_last_run(store: Store, sensor: str, month: Month) -> tuple[list[Change], str]:
    """What the newest run changed against the one before it, and when that one was made (UTC, ISO 8601).

    Raises ``NothingToCompare`` where there were not two runs.
    """
    rows = target_history(store, sensor, month)
    if len(rows) < 2:
        times = "was summed up once" if rows else "was never summed up"
        raise NothingToCompare(f"{sensor} {month} {times}: there is no earlier run to compare with (coverage-planner build)")
    return changes_between(states_of(rows[-2]), states_of(rows[-1])), rows[-2]["made_at"]


def since_month(store: Store, sensor: str, before: Month, after: Month) -> list[Change]:
    """What differs between two months as they are now; raises ``NothingToCompare`` where one was never summed up."""
    rows = []
    for month in (before, after):
        history = target_history(store, sensor, month)
        if not history:
            raise NothingToCompare(f"{sensor} {month} was never summed up for targets: build it (coverage-planner build)")
        rows.append(states_of(history[-1]))
    return changes_between(rows[0], rows[1])
