"""Columns of a summary, and of the history that each run adds a row to."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from coverage_pipeline.cube.schema import ACTIONS
from coverage_pipeline.storage.metadata import FileMetadata

_STATES = ("met", "missing", "unknown", "too_large", "idle", "out_of_reach")
"""Where a target, or a cell, stands: has what is wanted; lacks some; not known; no single pass can cover it; wants nothing this month (out
of season, or a cadence of 0); the sensor cannot image it."""
STATES = _STATES
SUMMARY_SCHEMA = pa.schema(
    [
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("month", pa.string(), nullable=False),  # YYYY-MM
        pa.field("of", pa.string(), nullable=False),  # "cells" or "targets"
        pa.field("group", pa.string()),  # of the targets; null: all of them
        *(pa.field(f"{state}_km2", pa.float64(), nullable=False) for state in _STATES),  # on the ellipsoid
        *(pa.field(f"{state}_count", pa.int64(), nullable=False) for state in _STATES),
        *(pa.field(f"{action}_km2", pa.float64(), nullable=False) for action in ACTIONS if action not in _STATES),
        pa.field("deficit_days", pa.int64(), nullable=False),  # clear observations missing, where known
        pa.field("ingestable_days", pa.int64(), nullable=False),  # of these, what downloading would add
        pa.field("remaining_days", pa.int64(), nullable=False),  # what no download adds
        pa.field("scenes_to_get", pa.int64()),  # of the backlog; null: not known
        pa.field("bytes_to_get", pa.int64()),
        pa.field("bytes_stated", pa.bool_()),  # by the providers, all of them
        pa.field("made_at", pa.string(), nullable=False),  # UTC, ISO 8601
        pa.field("run", pa.string(), nullable=False),
    ]
)
HISTORY_SCHEMA = pa.schema(
    [
        *SUMMARY_SCHEMA,
        # The state of each target at that time; empty for cells, and for groups of targets.
        pa.field("targets", pa.list_(pa.string()), nullable=False),
        pa.field("states", pa.list_(pa.string()), nullable=False),
        pa.field("deficits", pa.list_(pa.int16()), nullable=False),  # -1: not known
        pa.field("areas_km2", pa.list_(pa.float32()), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class SummaryMetadata(FileMetadata):
    """What a summary says of itself: the headline, and what it was made from."""

    sensor: str
    month: str
    """YYYY-MM."""
    run: str
    made_at: str
    targets_digest: str
    """Empty where there are no targets."""
    headline: str
    """A sentence, with the share that is not known."""
    met_share: float | None
    """Share of the area (of targets, else of cells) that has what is wanted of it; None: nothing of it is known."""
    unknown_share: float | None
    """Share of the same area that is not known; None: nothing is wanted anywhere."""
    scan_status: str
    holdings_status: str
