"""The asset graph, month × sensor: each body calls one domain function for each partition of its run and reports."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from coverage_pipeline.demand.topcells import TopBy, as_markdown, top_cells
from coverage_pipeline.orchestration.automation import Automation
from coverage_pipeline.orchestration.partitions import SensorMonth
from coverage_pipeline.orchestration.ranges import AssetEvents, failing_in_words, materialised
from coverage_pipeline.orchestration.resources import PlannerResource
from coverage_pipeline.orchestration.thumbnail import map_markdown
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.storage.store import StatsLayer
from coverage_pipeline.storage.tables import read_parquet

GROUP = "coverage"


def _with_map(
    planner: Planner, duckdb: DuckDBResource, layer: StatsLayer, column: TopBy, title: str, part: SensorMonth, report: Mapping[str, Any]
) -> dict[str, Any]:
    """The report with a map of a column, and the cells that have the most of it."""
    table, _ = read_parquet(planner.store.stats(layer, part.sensor.key, part.month))
    shown = {"map": dg.MetadataValue.md(map_markdown(table, column, planner.grid, title))}
    if table.num_rows:
        with duckdb.get_connection() as db:
            top = top_cells(db, planner.store, layer, column, [part.sensor.key], [part.month], planner.grid, limit=5)
        shown["top_cells"] = dg.MetadataValue.md(as_markdown(top))
    return {**report, **shown}


def planner_assets(
    sensor_months: dg.MultiPartitionsDefinition,
    backfill_policy: dg.BackfillPolicy | None,
    automation: Automation,
    again_later: dg.RetryPolicy,
) -> list[dg.AssetsDefinition]:
    """The seven assets on one partitioning; mappings between them are identities."""
    every: dict[str, Any] = {
        "partitions_def": sensor_months,
        "group_name": GROUP,
        "backfill_policy": backfill_policy,
        "dagster_type": dg.Nothing,  # what an asset makes lies in files; no I/O manager is asked
        "retry_policy": again_later,
    }
    root = {**every, "automation_condition": automation.root}
    derived = {**every, "automation_condition": automation.downstream}

    @dg.asset(**root, kinds={"geoparquet"})
    def availability(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
        """Scenes that the public catalogues list for one sensor and month, one row a scene, as GeoParquet.

        Asked: the sensor's catalogues in order, over the globe. Beside it the rejected items and the scan report. A scan that fails or
        is cut short raises and leaves the former file.
        """
        plan = planner.of_run()

        def settled(parts: list[SensorMonth]) -> Iterator[tuple[SensorMonth, Mapping[str, Any]]]:
            for sensor in {part.sensor.key: part.sensor for part in parts}.values():
                mine = {part.month: part for part in parts if part.sensor == sensor}
                for month, report in plan.settle_doubts(sensor, list(mine)).items():
                    yield mine[month], report.as_json()

        yield from materialised(
            context, plan.sensors, lambda part: plan.availability(part.sensor, part.month).as_json(), second_pass=settled
        )

    @dg.asset(**root, kinds={"geoparquet"})
    def holdings(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
        """Scenes we hold of one sensor and month, and when each footprint was last held, as GeoParquet.

        From PostGIS or a file. Where they cannot be had the layer is *off*, or an earlier extract stays. Rows that cannot be placed are in
        the rejected table beside it, with their reasons.
        """
        plan = planner.of_run()
        yield from materialised(context, plan.sensors, lambda part: plan.holdings(part.sensor, part.month))

    @dg.asset(**derived, deps=[availability], kinds={"parquet"})
    def availability_stats(context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> AssetEvents:
        """Listed scenes by cell: how many, how many clear, their cloud, on which days. One row a covered cell."""
        plan = planner.of_run()

        def step(part: SensorMonth) -> dict[str, Any]:
            report = plan.availability_stats(part.sensor, part.month)
            return _with_map(plan, duckdb, "available", "scenes", "scenes listed", part, {"cells": report["cells"]})

        yield from materialised(context, plan.sensors, step)

    @dg.asset(**derived, deps=[availability, holdings], kinds={"parquet"})
    def matchup(context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> AssetEvents:
        """Which listed scenes we hold, whole or in part, by which holdings and rule; and what is not held by cell."""
        plan = planner.of_run()

        def step(part: SensorMonth) -> dict[str, Any]:
            report = plan.matchup(part.sensor, part.month)
            return _with_map(plan, duckdb, "unheld", "clear", "clear scenes not held", part, report)

        yield from materialised(context, plan.sensors, step)

    @dg.asset(**derived, deps=[holdings, matchup], kinds={"parquet"})
    def holdings_stats(context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> AssetEvents:
        """Held scenes by cell, and the last instant each cell was held within the lookback. One row a covered cell.

        Follows the matchup: a holding counts on the day of its scene, within its footprint, with its cloud where it carries none.
        """
        plan = planner.of_run()

        def step(part: SensorMonth) -> dict[str, Any]:
            report = plan.holdings_stats(part.sensor, part.month)
            return _with_map(plan, duckdb, "held", "scenes", "scenes held", part, {"cells": report["cells"]})

        yield from materialised(context, plan.sensors, step)

    @dg.asset(**derived, deps=[availability_stats, holdings_stats, matchup], kinds={"zarr"}, pool="cube")
    def coverage(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
        """The partition's region of ``coverage.zarr``: what exists, what is held, what is not."""
        plan = planner.of_run()
        with failing_in_words():
            plan.ensure_cube()
        try:
            yield from materialised(context, plan.sensors, lambda part: plan.coverage(part.sensor, part.month))
        finally:
            with failing_in_words():
                plan.finish()

    @dg.asset(**derived, deps=[coverage], kinds={"zarr"})
    def gap(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
        """Deficit, priority and action of the partition, in its region of ``coverage.zarr``."""
        plan = planner.of_run()
        yield from materialised(context, plan.sensors, lambda part: plan.gap(part.sensor, part.month))

    return [availability, holdings, availability_stats, matchup, holdings_stats, coverage, gap]
