"""What is reported of a partition after it was written. What must hold is checked by the domain before it publishes."""

import dagster as dg
from dagster_duckdb import DuckDBResource

from coverage_pipeline.orchestration.partitions import sensor_months_of
from coverage_pipeline.orchestration.resources import PlannerResource


def planner_checks(sensor_months: dg.MultiPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """Checks of single partitions, by SQL over their Parquet files."""

    @dg.asset_check(asset="availability", partitions_def=sensor_months)
    def scene_keys_unique(context: dg.AssetCheckExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        """No scene is listed twice in its month."""
        plan = planner.planner()
        twice = 0
        with duckdb.get_connection() as db:
            for part in sensor_months_of(context, plan.sensors):  # type: ignore[arg-type]
                path = str(plan.store.scenes(part.sensor.key, part.month))
                row = db.execute("SELECT count(*) - count(DISTINCT scene_key) FROM read_parquet(?)", [path]).fetchone()
                twice += row[0] if row else 0
        return dg.AssetCheckResult(passed=twice == 0, metadata={"scenes_listed_twice": twice})

    @dg.asset_check(asset="holdings_stats", additional_deps=["availability_stats"], partitions_def=sensor_months)
    def held_is_listed(context: dg.AssetCheckExecutionContext, planner: PlannerResource, duckdb: DuckDBResource) -> dg.AssetCheckResult:
        """Cells where more is held than the catalogue lists: the catalogue, not our holdings, may have a hole there."""
        plan = planner.planner()
        cells = 0
        with duckdb.get_connection() as db:
            for part in sensor_months_of(context, plan.sensors):  # type: ignore[arg-type]
                available = str(plan.store.stats("available", part.sensor.key, part.month))
                held = str(plan.store.stats("held", part.sensor.key, part.month))
                if not part.sensor.available_sources:
                    continue
                row = db.execute(
                    "SELECT count(*) FROM read_parquet(?) h LEFT JOIN read_parquet(?) a USING (cell) "
                    "WHERE h.scenes > coalesce(a.scenes, 0)",
                    [held, available],
                ).fetchone()
                cells += row[0] if row else 0
        return dg.AssetCheckResult(
            passed=cells == 0, severity=dg.AssetCheckSeverity.WARN, metadata={"cells_holding_more_than_listed": cells}
        )

    return [scene_keys_unique, held_is_listed]
