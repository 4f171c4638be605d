"""From a gap to a decision: the scenes worth getting, and the figure to report."""

from typing import Any

import dagster as dg

from coverage_pipeline.orchestration.assets.catalog import availability
from coverage_pipeline.orchestration.assets.cells import matchup
from coverage_pipeline.orchestration.assets.cube import gap
from coverage_pipeline.orchestration.assets.targets import target_stats
from coverage_pipeline.orchestration.partitions import SensorMonth
from coverage_pipeline.orchestration.planned import planned_asset
from coverage_pipeline.orchestration.ranges import AssetEvents, materialised
from coverage_pipeline.orchestration.resources import PlannerResource


@planned_asset(
    deps=[availability, matchup, gap, target_stats],
    kind="parquet",
    source="availability, matchup, gap, target_stats",
    size="0.1 MB for 40 targets; a megabyte for each thousand candidate scenes",
    layer="gap",
)
def backlog(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
    """Scenes worth getting, one row a scene: the chosen ones by rank, with what each closes, its bytes, login and link.

    For targets where there are some, else for cells. The others that overlap something with a deficit follow, not chosen.
    """
    plan = planner.of_run()

    def report(part: SensorMonth) -> dict[str, Any]:
        made = plan.backlog(part.sensor, part.month)
        return {
            **made.as_json(),
            "gigabytes": made.bytes_chosen / 1e9,
            "gigabytes_saved": (made.bytes_candidates - made.bytes_chosen) / 1e9,
        }

    yield from materialised(context, plan.sensors, report)


@planned_asset(
    deps=[gap, target_stats, backlog],
    kind="parquet",
    source="gap, target_stats, backlog",
    size="10 kB, and its history",
    layer="gap",
)
def summary(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
    """The figure to report: what has what is wanted of it, what is missing and what is not known, by area and number.

    One row for the cells, one for all targets, one for each group of them. Each run adds to the partition's history.
    """
    plan = planner.of_run()
    yield from materialised(context, plan.sensors, lambda part: plan.summary(part.sensor, part.month).as_json())
