"""Dagster's entry point: ``dagster dev -w workspace.yaml``, or ``make dagster``."""

from __future__ import annotations

import warnings

import dagster as dg
from dagster_duckdb import DuckDBResource

from coverage_pipeline.orchestration.assets.graph import ASSETS
from coverage_pipeline.orchestration.automation import automation_conditions, automation_sensor
from coverage_pipeline.orchestration.checks import planner_checks
from coverage_pipeline.orchestration.partitions import sensor_months_definition
from coverage_pipeline.orchestration.planned import Binding
from coverage_pipeline.orchestration.ranges import lenient_executor
from coverage_pipeline.orchestration.resources import PlannerResource
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings


def planner_definitions(settings: PlannerSettings, config: str | None = None, *, environment: bool = True) -> dg.Definitions:
    """Assets, checks, automation and resources of one configuration."""
    with warnings.catch_warnings():
        # Backfill policies are beta and partitioned checks preview; the versions are pinned, and people need not be told each time.
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
        return _definitions(settings, PlannerResource(config=config, environment=environment))


def _definitions(settings: PlannerSettings, planner: PlannerResource) -> dg.Definitions:
    sensor_months = sensor_months_definition(settings)
    wanted = settings.orchestration
    policy = dg.BackfillPolicy.multi_run(wanted.months_per_run) if wanted.backfill == "ranges" else None
    again_later = dg.RetryPolicy(
        max_retries=wanted.retries,
        delay=wanted.retry_delay_seconds,
        backoff=dg.Backoff.EXPONENTIAL,
        jitter=dg.Jitter.PLUS_MINUS,
    )
    # Ids have the catalogue's footprints, so that their holdings follow from the scan.
    more_deps = {"holdings": ("availability",)} if settings.holdings.source == "ids" else {}
    binding = Binding(sensor_months, policy, automation_conditions(wanted), again_later, more_deps)
    return dg.Definitions(
        assets=[asset.bound(binding) for asset in ASSETS],
        asset_checks=planner_checks(sensor_months, binding.automation),
        jobs=[dg.define_asset_job("everything", selection=dg.AssetSelection.all())],
        sensors=[automation_sensor(wanted)],
        resources={"planner": planner, "duckdb": DuckDBResource(database=":memory:")},
        executor=lenient_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The code location, by ``config/build.toml``, ``.env`` and the environment."""
    return planner_definitions(load_settings())
