"""Columns of a backlog, one row a scene worth getting, and what the file says of itself."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from coverage_pipeline.scenes.schema import TIME
from coverage_pipeline.storage.metadata import FileMetadata

CLOSES = pa.struct(
    [
        pa.field("element", pa.string()),  # id of a target, or "cell:<number>" without targets
        pa.field("day", pa.uint8()),  # 1..31, UTC
        pa.field("share", pa.float32()),  # of the element's area that the scene adds on that day
    ]
)
BACKLOG_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32()),  # 1 is got first; null: not chosen
        pa.field("chosen", pa.bool_(), nullable=False),
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("month", pa.string(), nullable=False),  # YYYY-MM
        pa.field("scene_key", pa.string(), nullable=False),
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),
        pa.field("item_href", pa.string()),
        pa.field("collection", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("acquired", TIME, nullable=False),
        pa.field("pass_time", TIME, nullable=False),
        pa.field("cloud_cover", pa.float64()),  # percent
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("bytes_source", pa.string(), nullable=False),  # "stated" by the provider, or "estimated"
        pa.field("login", pa.string()),  # what fetching needs, such as "earthdata"; null: nothing
        pa.field("upgrade", pa.bool_(), nullable=False),  # an older version of the scene is held
        pa.field("in_part", pa.bool_(), nullable=False),  # held in part: what is missing closes the days
        pa.field("closes", pa.list_(CLOSES), nullable=False),
        pa.field("gain", pa.float64(), nullable=False),  # weight x days closed by the choice of the scene's offers
        pa.field("geometry", pa.binary(), nullable=False),  # WKB, EPSG:4326
    ]
)


@dataclass(frozen=True, kw_only=True)
class BacklogMetadata(FileMetadata):
    """What a backlog was chosen from, and what it comes to."""

    sensor: str
    month: str
    """YYYY-MM."""
    run: str
    scan_run: str | None
    matchup_run: str | None
    target_stats_run: str | None
    """None: chosen for cells, as no targets are set."""
    targets_digest: str | None
    known: bool
    """False: catalogue or holdings of the month are not known, and the backlog may lack scenes."""
    reason: str
    """Why it is not known, where it is not."""
    candidates: int
    chosen: int
    chosen_bytes: int
    all_bytes: int
    """Bytes of every candidate: what taking every overlapping scene would cost."""
    days_closed: int
    """(element, day) pairs that the chosen scenes close."""
    days_wanted: int
    """Deficit summed over the elements."""
