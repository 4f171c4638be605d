"""Columns of a backlog, one row a scene worth getting, and what its file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from coverage_pipeline.holdings.metadata import HoldingsStatus
from coverage_pipeline.scenes.schema import TIME, ScanStatus
from coverage_pipeline.storage.metadata import FileMetadata

BacklogOf = Literal["targets", "cells"]
CLOSED = pa.struct(
    [
        pa.field("of", pa.string()),  # key of the sensor, or name of the group, whose cadence it counts for
        pa.field("target", pa.string()),
        pa.field("day", pa.uint8()),  # of the month, UTC
    ]
)
BACKLOG_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32()),  # from 1, the most useful first; null: not chosen
        pa.field("offer", pa.int32()),  # scenes of one offer close what they close together; null: not chosen
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("month", pa.string(), nullable=False),  # YYYY-MM
        pa.field("scene_key", pa.string(), nullable=False),
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),  # of the catalogue, newest first
        pa.field("item_href", pa.string()),
        pa.field("collection", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("pass_time", TIME, nullable=False),
        pa.field("cloud_cover", pa.float64()),  # percent of the scene
        pa.field("in_part", pa.bool_(), nullable=False),  # a part of it is held
        pa.field("upgrade", pa.bool_()),  # what is held of it is of an older version; null: the ids do not tell, or nothing is held
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("bytes_stated", pa.bool_(), nullable=False),  # by the provider; else the sensor's estimate
        pa.field("login", pa.string(), nullable=False),  # what the download needs beside the link; empty: nothing
        pa.field("closes", pa.list_(CLOSED), nullable=False),  # days of targets that its offer closes; empty of cells
        pa.field("days_closed", pa.int64(), nullable=False),  # days of targets, or of cells, that its offer closes
        pa.field("weight_closed", pa.float64(), nullable=False),  # the same by the targets' weights, or km2 times days of cells
        pa.field("value", pa.float64()),  # weight that its offer closes per gigabyte when it is chosen; null: not chosen
        pa.field("touches", pa.int64(), nullable=False),  # targets, or cells, with a deficit that it overlaps
        pa.field("geometry", pa.binary(), nullable=False),  # WKB, EPSG:4326: of the scene, or of its missing part
    ]
)


@dataclass(frozen=True, kw_only=True)
class BacklogMetadata(FileMetadata):
    """What a partition's backlog says of itself."""

    sensor: str
    month: str
    """YYYY-MM."""
    run: str
    places: BacklogOf
    """What it closes days of."""
    targets_digest: str
    """Of the targets; empty of cells."""
    scan_run: str | None
    holdings_run: str | None
    matchup_run: str | None
    scan_status: ScanStatus
    holdings_status: HoldingsStatus
    candidates: int
    """Scenes that are clear, not held whole, and overlap something with a deficit."""
    chosen: int
    bytes_chosen: int
    bytes_candidates: int
    """Of all candidates: what taking every overlapping scene would cost."""
    days_wanted: int
    """Days that targets, or cells, still want and that downloading could add."""
    days_closed: int
    note: str = ""
    """Why nothing was chosen, where nothing was tried."""
