"""Acquired: which scenes we hold."""

import dagster as dg

from coverage_pipeline.orchestration.planned import planned_asset
from coverage_pipeline.orchestration.ranges import AssetEvents, materialised
from coverage_pipeline.orchestration.resources import PlannerResource


@planned_asset(
    kind="geoparquet",
    source="the holdings that the settings name: a PostGIS table (COVERAGE_DB_*, COVERAGE_TILES_*) or a vector file (holdings.path)",
    size="0.15 MB for 1,200 held scenes of EMIT with two years of footprints",
    layer="acquired",
)
def holdings(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
    """Scenes we hold of one sensor and month, and when each footprint was last held, as GeoParquet.

    Where the source cannot be reached the layer is *off*, or an earlier extract stays. Rows that cannot be placed are in the rejected
    table beside it, with their reasons.
    """
    plan = planner.of_run()
    yield from materialised(context, plan.sensors, lambda part: plan.holdings(part.sensor, part.month).as_json())
