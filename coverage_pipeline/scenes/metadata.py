"""File metadata of the scenes file, its companions, and the file of cells."""

from __future__ import annotations

from dataclasses import dataclass

from coverage_pipeline.scenes.schema import ScanStatus
from coverage_pipeline.sensors.registry import CloudMeaning
from coverage_pipeline.storage.metadata import CellsMetadata, FileMetadata


@dataclass(frozen=True, kw_only=True)
class ScenesMetadata(FileMetadata):
    """The part of the scan report that later steps read from a scenes file."""

    sensor: str
    start: str
    """First instant of the scanned window, UTC, ISO 8601."""
    end: str
    """End of the window, exclusive."""
    status: ScanStatus
    scanned_at: str | None
    """Time of the catalogue query, UTC; None for a sensor without a catalogue."""
    run: str | None
    """Id of the scan, which files derived from it repeat."""
    bbox: list[float] | None
    """Area scanned: west, south, east, north in degrees; None: the globe."""
    provider: str | None
    scenes: int
    """Number of scenes of the window."""


@dataclass(frozen=True, kw_only=True)
class RejectedMetadata(FileMetadata):
    """Metadata of the rejected items beside a scenes file."""

    sensor: str
    start: str
    """First instant of the scanned window, UTC, ISO 8601."""
    run: str | None
    """Id of the scan that rejected them."""


@dataclass(frozen=True, kw_only=True)
class TimelessMetadata(FileMetadata):
    """Metadata of a sensor's items without a time, which belong to no month."""

    sensor: str


@dataclass(frozen=True, kw_only=True)
class AvailableMetadata(ScenesMetadata, CellsMetadata):
    """Metadata of the cells of scenes (``availability_stats``): their scan, and how they were gridded."""

    cloud: CloudMeaning
