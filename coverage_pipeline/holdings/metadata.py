"""What an extract of the holdings, and the file of their cells, say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from coverage_pipeline.storage.metadata import CellsMetadata, FileMetadata

HoldingsStatus = Literal["not_read", "read", "off", "not_held"]
"""What is known of the holdings of a sensor and month (design section 3)."""
HOLDINGS_STATUS: tuple[HoldingsStatus, ...] = get_args(HoldingsStatus)
"""In the order of the cube's flag values."""
KNOWN_HOLDINGS: tuple[HoldingsStatus, ...] = ("read", "not_held")
"""Statuses in which it is known which scenes are held."""


@dataclass(frozen=True, kw_only=True)
class HoldingsMetadata(FileMetadata):
    """An extract of the holdings of one sensor and month; its rejected rows and its ``last`` table carry the same."""

    sensor: str
    month: str
    """YYYY-MM."""
    status: HoldingsStatus
    read_at: str
    """When the source was read, UTC, ISO 8601."""
    run: str | None
    """Names the extract, so that what is made from it can be told from what was made from another."""
    source: str
    """The source for a person, without secrets."""
    reason: str
    """Why the layer is off, where it is."""
    lookback_months: int
    """Months before the month that the ``last`` table reaches back."""
    rows: int = 0
    """Rows of the month."""
    duplicates: int = 0
    """Rows of the month that repeat another."""
    rejected: int = 0
    rejected_reasons: dict[str, int] = field(default_factory=dict)
    zoneless: int = 0
    """Times without a zone, taken as UTC."""
    footprints: int = 0
    """Rows of the ``last`` table."""
    last_known: bool = True
    """Whether ``last`` says when a place was last held; if not, only what the month itself holds does."""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class HeldMetadata(HoldingsMetadata, CellsMetadata):
    """Cells of the held scenes (``holdings_stats``): the extract and matchup that they are of, and how they were gridded."""

    matchup_run: str | None
