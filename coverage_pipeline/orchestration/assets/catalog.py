"""Available: what the public catalogues list."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from coverage_pipeline.orchestration.partitions import SensorMonth
from coverage_pipeline.orchestration.planned import planned_asset
from coverage_pipeline.orchestration.ranges import AssetEvents, materialised
from coverage_pipeline.orchestration.resources import PlannerResource


@planned_asset(
    kind="geoparquet",
    source="public catalogues of the sensor, in the order of its sources: STAC APIs, NASA's CMR, dumps",
    size="0.3 MB for 3,500 scenes of EMIT, 2 MB for 20,000 of Sentinel-2",
    layer="available",
)
def availability(context: dg.AssetExecutionContext, planner: PlannerResource) -> AssetEvents:
    """Scenes that the public catalogues list for one sensor and month, one row a scene, as GeoParquet.

    The sensor's catalogues are asked in order, over the globe. The rejected items and the scan report stand beside the scenes. A scan that
    fails or is cut short raises, and the former file stays.
    """
    plan = planner.of_run()

    def settled(parts: list[SensorMonth]) -> Iterator[tuple[SensorMonth, Mapping[str, Any]]]:
        for sensor in {part.sensor.key: part.sensor for part in parts}.values():
            own = {part.month: part for part in parts if part.sensor == sensor}
            for month, report in plan.settle_doubts(sensor, list(own)).items():
                yield own[month], report.as_json()

    yield from materialised(context, plan.sensors, lambda part: plan.availability(part.sensor, part.month).as_json(), second_pass=settled)
