"""Columns of a file of target statistics, one row a target, and what the file says of itself."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from coverage_pipeline.holdings.metadata import HoldingsStatus
from coverage_pipeline.scenes.schema import ScanStatus
from coverage_pipeline.storage.metadata import FileMetadata

TARGET_SCENE = pa.struct(
    [
        pa.field("scene_key", pa.string()),
        pa.field("day", pa.uint8()),  # 1..31, UTC, of the pass time
        pa.field("share", pa.float32()),  # of the target's area under the scene
        pa.field("clear", pa.bool_()),  # null: its cloud is not known
        pa.field("held", pa.bool_()),  # whole; null: the holdings are not known
    ]
)
TARGET_STATS_SCHEMA = pa.schema(
    [
        pa.field("target", pa.string(), nullable=False),  # its id, in the order of the targets
        # Day masks: bit d-1 is set where the share of the target's area under that UTC day's scenes reaches min_cover.
        pa.field("available_days", pa.uint32(), nullable=False),
        pa.field("clear_days", pa.uint32(), nullable=False),  # available and clear
        pa.field("held_days", pa.uint32(), nullable=False),
        pa.field("held_clear_days", pa.uint32(), nullable=False),
        pa.field("unknown_days", pa.uint32(), nullable=False),  # of unknown cloud, held or not
        pa.field("ingestable_days", pa.uint32(), nullable=False),  # held clear < min_cover <= held clear with unheld clear
        pa.field("check_days", pa.uint32(), nullable=False),  # neither, and the scenes of unknown cloud with the clear ones reach it
        pa.field("best_share", pa.float64()),  # largest share of one day under listed scenes; null: not known
        pa.field("scenes", pa.list_(TARGET_SCENE), nullable=False),  # of the month, by day and key
        pa.field("desired", pa.float64(), nullable=False),  # clear observations wanted in the month; 0 out of season
        pa.field("deficit", pa.int16(), nullable=False),  # -1: not known
        pa.field("ingestable", pa.int16(), nullable=False),  # number of ingestable days; -1: not known
        pa.field("remaining", pa.int16(), nullable=False),  # max(0, deficit - ingestable); -1: not known
        pa.field("action", pa.string(), nullable=False),  # of cube.schema.ACTIONS
        pa.field("catalog_known", pa.bool_(), nullable=False),  # a scanned box contains the target
        pa.field("holdings_known", pa.bool_(), nullable=False),
        pa.field("in_reach", pa.bool_(), nullable=False),
        pa.field("too_large", pa.bool_(), nullable=False),  # no single pass of the sensor can cover min_cover of it
        pa.field("area_km2", pa.float64(), nullable=False),  # on the ellipsoid
    ]
)


@dataclass(frozen=True, kw_only=True)
class TargetStatsMetadata(FileMetadata):
    """Which targets were judged against which scan, extract and matchup."""

    sensor: str
    month: str
    """YYYY-MM."""
    targets_digest: str
    """``Targets.digest``."""
    run: str
    """Names this writing."""
    scan_run: str | None
    holdings_run: str | None
    matchup_run: str | None
    scan_status: ScanStatus
    holdings_status: HoldingsStatus
    scanned_at: str | None
    cloud_lt: float
    targets: int
    actions: dict[str, int]
    """Targets by action."""
