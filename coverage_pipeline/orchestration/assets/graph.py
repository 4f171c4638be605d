"""The asset graph: every asset, in an order in which each comes after its sources."""

from coverage_pipeline.orchestration.assets.catalog import availability
from coverage_pipeline.orchestration.assets.cells import availability_stats, holdings_stats, matchup
from coverage_pipeline.orchestration.assets.cube import coverage, gap
from coverage_pipeline.orchestration.assets.decisions import backlog, summary
from coverage_pipeline.orchestration.assets.holdings import holdings
from coverage_pipeline.orchestration.assets.targets import target_stats
from coverage_pipeline.orchestration.planned import PlannedAsset

ASSETS: tuple[PlannedAsset, ...] = (
    availability, holdings, availability_stats, matchup, holdings_stats, target_stats, coverage, gap, backlog, summary,
)  # fmt: skip
