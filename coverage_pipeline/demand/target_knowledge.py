"""What is known of a sensor and month."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coverage_pipeline.holdings.metadata import HoldingsStatus
from coverage_pipeline.scenes.schema import ScanStatus


@dataclass(frozen=True)
class Knowledge:
    """What is known of a sensor and month: of what was asked, and of what is held."""

    scan_status: ScanStatus
    bbox: Sequence[float] | None
    """Area scanned: west, south, east, north, degrees; None: the globe."""
    holdings_status: HoldingsStatus
