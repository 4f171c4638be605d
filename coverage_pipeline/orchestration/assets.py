"""The asset graph, month × sensor: each body resolves its partitions, calls one domain function and reports."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from coverage_pipeline.build import Planner
from coverage_pipeline.catalog import CatalogDisagreement, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.holdings import HoldingsUnavailable
from coverage_pipeline.orchestration.automation import Automation
from coverage_pipeline.orchestration.partitions import SensorMonth, sensor_months_of
from coverage_pipeline.orchestration.resources import PlannerResource
from coverage_pipeline.orchestration.thumbnail import map_markdown
from coverage_pipeline.store import StatsLayer, read_parquet
from coverage_pipeline.topcells import TopBy, as_markdown, top_cells

GROUP = "coverage"
# What may mend by itself; anything else is the settings' or the data's fault and would fail again.
_PASSING = (CatalogDisagreement, CatalogUnavailable, CatalogTruncated, CatalogUnreadable, HoldingsUnavailable)


class _Failures:
    """The partitions of a run that failed. The others go on; the run fails at its end."""

    def __init__(self) -> None:
        self.errors: dict[str, PlannerError] = {}

    @contextmanager
    def of(self, part: SensorMonth) -> Iterator[None]:
        try:
            yield
        except PlannerError as error:
            self.errors[part.key] = error

    def raise_if_any(self) -> None:
        if not self.errors:
            return
        raise dg.Failure(
            description="; ".join(f"{key}: {error}" for key, error in self.errors.items()),
            metadata={key: str(error) for key, error in self.errors.items()},
            allow_retries=all(isinstance(error, _PASSING) for error in self.errors.values()),
        )


def _plain(report: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as Dagster takes it; nothing for what is empty."""
    return {name: value for name, value in report.items() if value not in (None, "", {}, [])}


def _each(
    context: dg.AssetExecutionContext, planner: Planner, step: Callable[[SensorMonth], Mapping[str, Any]]
) -> dg.MaterializeResult[None]:
    failures = _Failures()
    for part in sensor_months_of(context, planner.sensors):
        with failures.of(part):
            report = step(part)
            context.add_asset_metadata(_plain(report), partition_key=part.key)
    failures.raise_if_any()
    return dg.MaterializeResult()


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
    root: dict[str, Any] = {
        "partitions_def": sensor_months,
        "group_name": GROUP,
        "backfill_policy": backfill_policy,
        "automation_condition": automation.root,
        "retry_policy": again_later,
    }
    derived: dict[str, Any] = {
        "partitions_def": sensor_months,
        "group_name": GROUP,
        "backfill_policy": backfill_policy,
        "automation_condition": automation.downstream,
    }

    @dg.asset(**root, kinds={"geoparquet"})
    def availability(context: dg.AssetExecutionContext, planner: PlannerResource) -> dg.MaterializeResult[None]:
        """Scenes that the public catalogues list for one sensor and month, one row a scene, as GeoParquet.

        Asked: the sensor's catalogues in order, over the globe. Beside it the rejected items and the scan report. A scan that fails or
        is cut short raises and leaves the former file.
        """
        plan = planner.planner()
        return _each(context, plan, lambda part: plan.availability(part.sensor, part.month).as_json())

    @dg.asset(**root, kinds={"geoparquet"})
    def holdings(context: dg.AssetExecutionContext, planner: PlannerResource) -> dg.MaterializeResult[None]:
        """Scenes we hold of one sensor and month, and when each footprint was last held, as GeoParquet.

        From PostGIS or a file. Where they cannot be had the layer is *off*, or an earlier extract stays.
        """
        plan = planner.planner()
        return _each(context, plan, lambda part: plan.holdings(part.sensor, part.month))

    @dg.asset(**derived, deps=[availability], kinds={"parquet"})
    def availability_stats(
        context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource
    ) -> dg.MaterializeResult[None]:
        """Listed scenes by cell: how many, how many clear, their cloud, on which days. One row a covered cell."""
        plan = planner.planner()

        def step(part: SensorMonth) -> dict[str, Any]:
            report = plan.availability_stats(part.sensor, part.month)
            return _with_map(plan, duckdb, "available", "scenes", "scenes listed", part, {"cells": report["cells"]})

        return _each(context, plan, step)

    @dg.asset(**derived, deps=[holdings], kinds={"parquet"})
    def holdings_stats(context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> dg.MaterializeResult[None]:
        """Held scenes by cell, and the last instant each cell was held within the lookback. One row a covered cell."""
        plan = planner.planner()

        def step(part: SensorMonth) -> dict[str, Any]:
            report = plan.holdings_stats(part.sensor, part.month)
            return _with_map(plan, duckdb, "held", "scenes", "scenes held", part, {"cells": report["cells"]})

        return _each(context, plan, step)

    @dg.asset(**derived, deps=[availability, holdings], kinds={"parquet"})
    def matchup(context: dg.AssetExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> dg.MaterializeResult[None]:
        """Which listed scenes we hold, by which holding and rule; and the unheld ones by cell."""
        plan = planner.planner()

        def step(part: SensorMonth) -> dict[str, Any]:
            report = plan.matchup(part.sensor, part.month)
            return _with_map(plan, duckdb, "unheld", "clear", "clear scenes not held", part, report)

        return _each(context, plan, step)

    @dg.asset(**derived, deps=[availability_stats, holdings_stats, matchup], kinds={"zarr"}, pool="cube")
    def coverage(context: dg.AssetExecutionContext, planner: PlannerResource) -> dg.MaterializeResult[None]:
        """The partition's region of ``coverage.zarr``: what exists, what is held, what is not."""
        plan = planner.planner()
        plan.ensure_cube()
        try:
            return _each(context, plan, lambda part: plan.coverage(part.sensor, part.month))
        finally:
            plan.finish()

    @dg.asset(**derived, deps=[coverage], kinds={"zarr"})
    def gap(context: dg.AssetExecutionContext, planner: PlannerResource) -> dg.MaterializeResult[None]:
        """Deficit, priority and action of the partition, in its region of ``coverage.zarr``."""
        plan = planner.planner()
        return _each(context, plan, lambda part: plan.gap(part.sensor, part.month))

    return [availability, holdings, availability_stats, holdings_stats, matchup, coverage, gap]
