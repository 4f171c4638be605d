"""The areas that planners care about: what each has, lacks and needs."""

from typing import Any

import dagster as dg

from coverage_pipeline.orchestration.assets.catalog import availability
from coverage_pipeline.orchestration.assets.cells import matchup
from coverage_pipeline.orchestration.assets.holdings import holdings
from coverage_pipeline.orchestration.partitions import SensorMonth
from coverage_pipeline.orchestration.planned import planned_asset
from coverage_pipeline.orchestration.ranges import AssetEvents, materialised
from coverage_pipeline.orchestration.resources import PlannerResource


@planned_asset(
    deps=[availability, holdings, matchup],
    kind="parquet",
    source="availability, holdings, matchup, and the targets that COVERAGE_TARGETS names",
    size="0.1 MB for 1,000 targets of 50 km (benchmarks.targets)",
    layer="gap",
)
def target_stats(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
    """Coverage of each target from footprints: its days by kind, its scenes, deficit and action, one row a target.

    Where no targets are set nothing is written.
    """
    plan = planner.of_run()

    def report(part: SensorMonth) -> dict[str, Any]:
        written = plan.target_stats(part.sensor, part.month)
        return {"targets": 0, "note": "no targets are set (COVERAGE_TARGETS)"} if written is None else written.as_json()

    yield from materialised(context, plan.sensors, report)
