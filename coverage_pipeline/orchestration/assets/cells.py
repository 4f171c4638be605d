"""The layers by cell: what exists, what is held, and what exists and is not held."""

from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from coverage_pipeline.demand.topcells import TopBy, notes, top_cells
from coverage_pipeline.orchestration.assets.catalog import availability
from coverage_pipeline.orchestration.assets.holdings import holdings
from coverage_pipeline.orchestration.partitions import SensorMonth
from coverage_pipeline.orchestration.planned import planned_asset
from coverage_pipeline.orchestration.ranges import AssetEvents, Step, materialised
from coverage_pipeline.orchestration.resources import PlannerResource
from coverage_pipeline.orchestration.thumbnail import map_markdown
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.storage.store import StatsLayer
from coverage_pipeline.storage.tables import read_parquet


def _materialised_with_maps(
    context: dg.AssetExecutionContext, plan: Planner, duckdb: DuckDBResource, layer: StatsLayer, column: TopBy, title: str, step: Step
) -> AssetEvents:
    """The events of a step that writes a layer of cells; each report has a map of a column, and the cells that have the most of it."""

    def with_map(part: SensorMonth) -> dict[str, Any]:
        report = step(part)
        table, _ = read_parquet(plan.store.stats(layer, part.sensor.key, part.month))
        shown: dict[str, Any] = {"map": dg.MetadataValue.md(map_markdown(table, column, plan.grid, title))}
        if table.num_rows:
            with duckdb.get_connection() as db:
                top = top_cells(db, plan.store, layer, column, [part.sensor.key], [part.month], plan.grid, limit=5)
            if top.num_rows:
                shown["top_cells"] = dg.MetadataValue.table([dg.TableRecord(row) for row in top.to_pylist()])
            if text := notes(top):
                shown["not_known"] = text
        return {**report, **shown}

    yield from materialised(context, plan.sensors, with_map)


@planned_asset(
    deps=[availability],
    kind="parquet",
    source="availability",
    size="0.25 MB for EMIT, 1.4 MB for Landsat 8/9 (0.1° cells)",
    layer="available",
)
def availability_stats(context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> AssetEvents:
    """Listed scenes by cell: how many, how many clear, their cloud, on which days. One row a covered cell."""
    plan = planner.of_run()
    yield from _materialised_with_maps(
        context,
        plan,
        duckdb,
        "available",
        "scenes",
        "scenes listed",
        lambda part: {"cells": plan.availability_stats(part.sensor, part.month).cells},
    )


@planned_asset(
    deps=[availability, holdings],
    kind="parquet",
    source="availability and holdings",
    size="0.2 MB for EMIT, 1.3 MB for Landsat 8/9 (0.1° cells)",
    layer="gap",
)
def matchup(context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> AssetEvents:
    """Which listed scenes we hold, whole or in part, by which holdings and rule; and by cell, what exists and is not held.

    Open requests of the partition are settled by what it shows.
    """
    plan = planner.of_run()

    def match(part: SensorMonth) -> dict[str, Any]:
        made = plan.matchup(part.sensor, part.month).as_json()
        return {**made, "requests_settled": len(plan.settled(part.sensor, part.month))}

    yield from _materialised_with_maps(context, plan, duckdb, "unheld", "clear", "clear scenes not held", match)


@planned_asset(
    deps=[holdings, matchup],
    kind="parquet",
    source="holdings and matchup",
    size="0.2 MB for EMIT, 1.3 MB for Landsat 8/9 (0.1° cells)",
    layer="acquired",
)
def holdings_stats(context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> AssetEvents:
    """Held scenes by cell, and the last instant each cell was held within the lookback. One row a covered cell.

    It follows the matchup: a holding counts on the day of its scene, within its footprint, with its cloud where it carries none.
    """
    plan = planner.of_run()
    yield from _materialised_with_maps(
        context, plan, duckdb, "held", "scenes", "scenes held", lambda part: {"cells": plan.holdings_stats(part.sensor, part.month).cells}
    )
