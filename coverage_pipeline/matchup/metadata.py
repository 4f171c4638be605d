"""What the matchup of one sensor and month, and the file of the cells that are not held, say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coverage_pipeline.holdings.metadata import HoldingsStatus
from coverage_pipeline.scenes.schema import ScanStatus
from coverage_pipeline.storage.metadata import CellsMetadata, FileMetadata


@dataclass(frozen=True, kw_only=True)
class MatchupMetadata(FileMetadata):
    """Which scan was matched with which extract, by which limits, and what came of it. Counts are None where holdings are not known."""

    sensor: str
    month: str
    """YYYY-MM."""
    run: str | None
    scan_run: str | None
    scanned_at: str | None
    holdings_run: str | None
    min_iou: float
    min_cover: float
    tolerance_seconds: float
    holdings_status: HoldingsStatus
    scan_status: ScanStatus
    bbox: list[float] | None
    """Area scanned: west, south, east, north in degrees; None: the globe."""
    scenes: int
    """Scenes of the month."""
    held: int | None
    """Scenes held whole."""
    held_in_part: int | None
    held_by_key: int | None
    """Holdings that belong to a scene by its key."""
    house_ids: int | None
    """Holdings whose id names no scene."""
    held_not_in_catalog: int | None
    """Holdings within the scanned area that the catalogue does not list; None too where there is no catalogue."""
    warnings: list[str]
    grid: dict[str, Any]
    """``GridSpec.describe()``."""
    cloud_lt: float
    """Percent below which a scene is clear."""


@dataclass(frozen=True, kw_only=True)
class UnheldMetadata(MatchupMetadata, CellsMetadata):
    """Cells of what exists and is not held."""
