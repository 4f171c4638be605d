"""What is reported of a partition after it was written. What must hold is checked by the domain before it publishes.

Where the files that a check compares are not there yet it says so and passes, for a run may make any assets in any order.
"""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster_duckdb import DuckDBResource
from upath import UPath

from coverage_pipeline.orchestration.automation import Automation
from coverage_pipeline.orchestration.partitions import SensorMonth, sensor_months_of
from coverage_pipeline.orchestration.ranges import failing_in_words
from coverage_pipeline.orchestration.resources import PlannerResource
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.tables import read_parquet

Sources = Callable[[Planner, SensorMonth], Mapping[str, tuple[UPath, list[str]]]]
"""The tables that a query reads of a partition, by name: their files and columns. None: there is nothing to check."""


def planner_checks(sensor_months: dg.MultiPartitionsDefinition, automation: Automation) -> list[dg.AssetChecksDefinition]:
    """Checks of single partitions, by SQL over their Parquet files, wherever those lie."""

    @dg.asset_check(asset="availability", partitions_def=sensor_months, blocking=True, automation_condition=automation.root)
    def scene_keys_unique(context: dg.AssetCheckExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        """No scene is listed twice in its month: it would be counted twice in every layer that follows, so these wait."""
        return _counted(
            context,
            planner.of_run(),
            duckdb,
            "SELECT count(*) - count(DISTINCT scene_key) FROM scenes",
            lambda plan, part: {"scenes": (plan.store.scenes(part.sensor.key, part.month), ["scene_key"])},
            title="scenes_listed_twice",
            severity=dg.AssetCheckSeverity.ERROR,
        )

    @dg.asset_check(asset="holdings_stats", additional_deps=["availability_stats"], partitions_def=sensor_months)
    def held_is_listed(context: dg.AssetCheckExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        """Cells where more is held than the catalogue lists: the catalogue, not our holdings, may have a hole there."""

        def sources(plan: Planner, part: SensorMonth) -> dict[str, tuple[UPath, list[str]]]:
            if not part.sensor.available_sources:
                return {}
            layers = {"held": plan.store.stats("held", part.sensor.key, part.month)}
            layers["available"] = plan.store.stats("available", part.sensor.key, part.month)
            return {name: (path, ["cell", "scenes"]) for name, path in layers.items()}

        return _counted(
            context,
            planner.of_run(),
            duckdb,
            "SELECT count(*) FROM held h LEFT JOIN available a USING (cell) WHERE h.scenes > coalesce(a.scenes, 0)",
            sources,
            title="cells_holding_more_than_listed",
            severity=dg.AssetCheckSeverity.WARN,
        )

    return [scene_keys_unique, held_is_listed]


def _counted(
    context: dg.AssetCheckExecutionContext,
    plan: Planner,
    duckdb: DuckDBResource,
    query: str,
    sources: Sources,
    *,
    title: str,
    severity: dg.AssetCheckSeverity,
) -> dg.AssetCheckResult:
    """Passes where the query counts nothing in any partition of the run; partitions whose files are not there yet are named."""
    count, not_yet, unreadable = 0, [], []
    with failing_in_words():
        parts = list(sensor_months_of(context, plan.sensors))
    for part in parts:
        files = sources(plan, part)
        if missing := [str(path) for path, _ in files.values() if not path.exists()]:
            not_yet.append(f"{part.key}: no {', '.join(missing)}")
            continue
        try:
            tables = {name: read_parquet(path, columns)[0] for name, (path, columns) in files.items()}
        except StoreError as error:
            unreadable.append(f"{part.key}: {error}")
            continue
        count += _asked(duckdb, query, tables) if tables else 0
    metadata: dict[str, Any] = {title: count}
    words = []
    if unreadable:
        words.append("cannot be checked: " + "; ".join(unreadable))
        metadata["unreadable"] = unreadable
    if not_yet:
        words.append("not yet: " + "; ".join(not_yet))
        metadata["not_yet"] = not_yet
    return dg.AssetCheckResult(
        passed=count == 0 and not unreadable, severity=severity, metadata=metadata, description=". ".join(words) or None
    )


def _asked(duckdb: DuckDBResource, query: str, tables: Mapping[str, pa.Table]) -> int:
    with duckdb.get_connection() as db:
        for name, table in tables.items():
            db.register(name, table)
        row = db.execute(query).fetchone()
    return int(row[0]) if row else 0
