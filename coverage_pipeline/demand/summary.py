"""One figure to report: the share of what matters that has what is wanted of it, always with the share that is not known."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coverage_pipeline.cube.levels import Rows
from coverage_pipeline.cube.read import partition_revision, read_partition
from coverage_pipeline.cube.schema import ACTIONS, CubeSpec, DesiredCadence
from coverage_pipeline.demand.gap import GAP_INPUTS, compute_gap
from coverage_pipeline.demand.summary_schema import HISTORY_SCHEMA, STATES, SUMMARY_SCHEMA, SummaryMetadata
from coverage_pipeline.demand.target_schema import TARGET_STATS_SCHEMA, TargetStatsMetadata
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.cell_area import cell_km2
from coverage_pipeline.grid.daymask import known_observations
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.files import write_together
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import parquet_bytes, read_parquet

MOST_HISTORY = 400
"""Rows kept of a partition's history: a run adds a few, and a planner asks for the last ones."""


@dataclass(frozen=True)
class Costs:
    """What closing what can be closed takes, by group of targets; None: all of them, or the cells."""

    scenes: Mapping[str | None, int]
    bytes: Mapping[str | None, int]
    stated: Mapping[str | None, bool]


@dataclass(frozen=True)
class Standing:
    """Where places stand: one entry a target, or one a state and action of cells."""

    state: NDArray[np.int64]
    """Place in ``STATES``."""
    action: NDArray[np.int64]
    """Place in ``ACTIONS``."""
    km2: NDArray[np.float64]
    count: NDArray[np.int64]
    deficit: NDArray[np.int64]
    """Clear observations missing, -1: not known; of cells, summed over ``count`` of them."""
    ingestable: NDArray[np.int64]
    """Days that downloading would add, as far as they are missing."""


def state_of(action: NDArray[np.int64], desired: NDArray[np.float64], large: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Place in ``STATES`` of each: from its action, what is wanted of it, and whether it is too large for a pass."""
    state = np.full(len(action), STATES.index("missing"))
    state[action == ACTIONS.index("met")] = STATES.index("met")
    state[action == ACTIONS.index("unknown")] = STATES.index("unknown")
    state[large] = STATES.index("too_large")
    state[~(desired > 0)] = STATES.index("idle")
    state[action == ACTIONS.index("out_of_scope")] = STATES.index("out_of_reach")
    return state


def standing_of_targets(table: pa.Table) -> Standing:
    """Where targets stand, from their statistics (``TARGET_STATS_SCHEMA``)."""
    action = np.array([ACTIONS.index(name) for name in table["action"].to_pylist()], np.int64)
    deficit = table["deficit"].to_numpy().astype(np.int64)
    added = known_observations(table["ingestable_days"].to_numpy())
    large = table["too_large"].to_numpy(zero_copy_only=False).astype(bool)
    return Standing(
        state_of(action, table["desired"].to_numpy(), large),
        action,
        table["area_km2"].to_numpy(),
        np.ones(len(action), np.int64),
        deficit,
        np.minimum(np.maximum(deficit, 0), added),
    )


def standing_of_cells(
    sensor: CoverageSensor, month: Month, spec: CubeSpec, store: Store, desired: DesiredCadence, sensors: Mapping[str, CoverageSensor],
    strips: Sequence[Rows],
) -> tuple[Standing, str, str]:  # fmt: skip
    """Where the cells of a partition stand, summed by state and action; its scan status and holdings status.

    Raises ``CoverageError`` where the partition is not written.
    """
    area = np.broadcast_to(cell_km2(spec.grid), spec.grid.shape)
    revision = partition_revision(store.zarr, sensor.key, month)
    kinds = len(STATES) * len(ACTIONS)
    km2, count, deficits, added = np.zeros(kinds), *(np.zeros(kinds, np.int64) for _ in range(3))
    scan = holdings = ""
    for rows in strips:
        part, _ = read_partition(store.zarr, sensor.key, month, GAP_INPUTS, rows=rows, revision=revision)
        gap = compute_gap(part, desired, weights=spec.weights, sensors=sensors)
        action = gap["action"].values.reshape(-1).astype(np.int64)
        wanted = np.full(len(action), float(gap["desired"].values[0, 0]))
        key = state_of(action, wanted, np.zeros(len(action), bool)) * len(ACTIONS) + action
        missing = np.nan_to_num(gap["deficit"].values.reshape(-1), nan=0.0).astype(np.int64)
        fills = np.minimum(missing, known_observations(part["ingestable_days"].values.reshape(-1)))
        km2 += np.bincount(key, area[slice(*(rows or (None, None)))].reshape(-1), kinds)
        count += np.bincount(key, minlength=kinds)
        deficits += np.bincount(key, missing, kinds).astype(np.int64)
        added += np.bincount(key, fills, kinds).astype(np.int64)
        scan = SCAN_STATUS[int(part["scan_status"].values[0, 0])]
        holdings = HOLDINGS_STATUS[int(part["holdings_status"].values[0, 0])]
    some = np.flatnonzero(count)
    state, action = np.divmod(some, len(ACTIONS))
    return Standing(state, action, km2[some], count[some], deficits[some], added[some]), scan, holdings


def summed(standing: Standing, chosen: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """The figures of a summary's row for some of the places (default: all)."""
    at = np.ones(len(standing.state), bool) if chosen is None else chosen
    row: dict[str, Any] = {}
    for number, state in enumerate(STATES):
        here = at & (standing.state == number)
        row[f"{state}_km2"], row[f"{state}_count"] = float(standing.km2[here].sum()), int(standing.count[here].sum())
    lacking = at & (standing.state == STATES.index("missing"))
    for number, action in enumerate(ACTIONS):
        if action not in STATES:
            row[f"{action}_km2"] = float(standing.km2[lacking & (standing.action == number)].sum())
    row["deficit_days"] = int(np.maximum(standing.deficit[lacking], 0).sum())
    row["ingestable_days"] = int(standing.ingestable[lacking].sum())
    row["remaining_days"] = row["deficit_days"] - row["ingestable_days"]
    return row


def shares(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Share of the area that wants something and has it, and that is not known; both of the whole area that wants something.

    The first is None where all of it is not known, both where nothing is wanted.
    """
    wanting = row["met_km2"] + row["missing_km2"] + row["unknown_km2"]
    if wanting <= 0:
        return None, None
    unknown = row["unknown_km2"] / wanting
    return (None if row["met_km2"] + row["missing_km2"] == 0 else row["met_km2"] / wanting), unknown


def headline(row: Mapping[str, Any]) -> str:
    """One sentence: what has what is wanted, what does not, and what is not known."""
    noun = "targets" if row["of"] == "targets" else "cells"
    of = f"{noun} of {row['group']}" if row.get("group") else noun
    met, unknown = shares(row)
    wanting = sum(row[f"{state}_count"] for state in ("met", "missing", "unknown"))
    if unknown is None:
        return f"{row['sensor']} {row['month']}: nothing is wanted of any of the {of}"
    if met is None:
        return f"{row['sensor']} {row['month']}: not known for any of the {wanting:,} {of} that want something"
    sure = "" if unknown == 0 else "at least "
    rest = "all of it known" if unknown == 0 else f"{100 * unknown:.1f} % not known"
    return (
        f"{row['sensor']} {row['month']}: {sure}{100 * met:.1f} % of the area of the {wanting:,} {of} that want something has it "
        f"({row['met_count']:,} of {wanting:,}; {rest})"
    )


def write_summary(
    sensor: CoverageSensor,
    month: Month,
    store: Store,
    spec: CubeSpec,
    desired: DesiredCadence,
    sensors: Mapping[str, CoverageSensor],
    targets: Targets | None,
    costs: Costs,
    strips: Sequence[Rows],
) -> SummaryMetadata:
    """Sum up one partition and add it to its history; returns what the file says of itself.

    Raises ``PlannerError`` where the statistics are of other targets, ``CoverageError`` where the partition of the cube is not written.
    """
    run, made_at = uuid.uuid4().hex, dt.datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    common = {"sensor": sensor.key, "month": month.key, "made_at": made_at, "run": run}
    cells, scan_status, holdings_status = standing_of_cells(sensor, month, spec, store, desired, sensors, strips)
    on_cells = None if targets is not None else costs
    rows = [_row(common, "cells", None, summed(cells), on_cells)]
    states: list[dict[str, Any]] = [_no_states()]
    if targets is not None:
        table, stored = read_parquet(store.target_stats(sensor.key, month), TARGET_STATS_SCHEMA.names)
        if TargetStatsMetadata.of(stored).targets_digest != targets.digest:
            raise PlannerError(
                f"{sensor.key} {month}: the targets changed since their statistics were made; materialise target_stats again"
            )
        standing, groups = standing_of_targets(table), targets.table["group"].to_numpy(dtype=object)
        rows.append(_row(common, "targets", None, summed(standing), costs))
        states.append(_states(table, standing))
        for group in sorted({str(group) for group in groups} - {""}):
            rows.append(_row(common, "targets", group, summed(standing, groups == group), costs))
            states.append(_no_states())
    main = rows[1] if targets is not None else rows[0]
    met, unknown = shares(main)
    metadata = SummaryMetadata(
        sensor=sensor.key,
        month=month.key,
        run=run,
        made_at=made_at,
        targets_digest=targets.digest if targets is not None else "",
        headline=headline(main),
        met_share=met,
        unknown_share=unknown,
        scan_status=scan_status,
        holdings_status=holdings_status,
    )
    target = store.summary(sensor.key, month)
    history = pa.Table.from_pylist([row | state for row, state in zip(rows, states, strict=True)], HISTORY_SCHEMA)
    former = sibling(target, ".history.parquet")
    if former.exists():
        earlier, _ = read_parquet(former, HISTORY_SCHEMA.names)
        history = pa.concat_tables([earlier.cast(HISTORY_SCHEMA), history])
        history = history.slice(max(0, history.num_rows - MOST_HISTORY))
    write_together(
        [
            (former, parquet_bytes(history, metadata)),
            (target, parquet_bytes(pa.Table.from_pylist(rows, SUMMARY_SCHEMA), metadata)),
        ]
    )
    return metadata


def _row(common: Mapping[str, str], of: str, group: str | None, figures: Mapping[str, Any], costs: Costs | None) -> dict[str, Any]:
    taken = {
        "scenes_to_get": None if costs is None else costs.scenes.get(group),
        "bytes_to_get": None if costs is None else costs.bytes.get(group),
        "bytes_stated": None if costs is None else costs.stated.get(group),
    }
    return {**common, "of": of, "group": group, **figures, **taken}


def _no_states() -> dict[str, Any]:
    return {"targets": [], "states": [], "deficits": [], "areas_km2": []}


def _states(table: pa.Table, standing: Standing) -> dict[str, Any]:
    return {
        "targets": table["target"].to_pylist(),
        "states": [STATES[number] for number in standing.state],
        "deficits": standing.deficit.tolist(),
        "areas_km2": standing.km2.tolist(),
    }
