"""What a file of scenes, and the file of their cells, say of themselves."""

from __future__ import annotations

from dataclasses import dataclass

from coverage_pipeline.scenes.schema import ScanStatus
from coverage_pipeline.sensors.registry import CloudMeaning
from coverage_pipeline.storage.metadata import CellsMetadata, FileMetadata


@dataclass(frozen=True, kw_only=True)
class ScenesMetadata(FileMetadata):
    """What the scan report in a file of scenes says to the steps that read it."""

    sensor: str
    start: str
    """First instant of the scanned window, UTC, ISO 8601."""
    end: str
    """End of the window, exclusive."""
    status: ScanStatus
    scanned_at: str | None
    """When the catalogue was asked, UTC; None of a sensor without a catalogue."""
    run: str | None
    """Names the scan, so that what is made from it can be told from what was made from another."""
    bbox: list[float] | None
    """Area scanned: west, south, east, north in degrees; None: the globe."""
    provider: str | None
    scenes: int
    """Scenes of the window."""


@dataclass(frozen=True, kw_only=True)
class RejectedMetadata(FileMetadata):
    """The rejected items beside a file of scenes."""

    sensor: str
    start: str
    """First instant of the scanned window, UTC, ISO 8601."""
    run: str | None
    """The scan that rejected them."""


@dataclass(frozen=True, kw_only=True)
class TimelessMetadata(FileMetadata):
    """The items of a sensor that have no time, and so belong to no month."""

    sensor: str


@dataclass(frozen=True, kw_only=True)
class AvailableMetadata(ScenesMetadata, CellsMetadata):
    """Cells of the listed scenes (``availability_stats``): the scan that they are of, and how they were gridded."""

    cloud: CloudMeaning
