"""The cube: coverage, and the gap made from it."""

from dataclasses import asdict

import dagster as dg

from coverage_pipeline.orchestration.assets.cells import availability_stats, holdings_stats, matchup
from coverage_pipeline.orchestration.planned import planned_asset
from coverage_pipeline.orchestration.ranges import AssetEvents, failing_in_words, materialised
from coverage_pipeline.orchestration.resources import PlannerResource


@planned_asset(
    deps=[availability_stats, holdings_stats, matchup],
    kind="zarr",
    source="availability_stats, holdings_stats and matchup",
    size="3 MB (0.1° cells, mean of the demo)",
    layer="cube",
    pool="cube",
)
def coverage(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
    """The partition's region of ``coverage.zarr``: what exists, what is held, what is not."""
    plan = planner.of_run()
    with failing_in_words():
        plan.ensure_cube()
    try:
        yield from materialised(context, plan.sensors, lambda part: asdict(plan.coverage(part.sensor, part.month)))
    finally:
        with failing_in_words():
            plan.finish()


@planned_asset(
    deps=[coverage],
    kind="zarr",
    source="coverage, with cadence, weights and area of the settings",
    size="0.7 MB (0.1° cells, mean of the demo)",
    layer="gap",
)
def gap(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
    """Deficit, priority and action of the partition, in its region of ``coverage.zarr``."""
    plan = planner.of_run()
    yield from materialised(context, plan.sensors, lambda part: plan.gap(part.sensor, part.month))
