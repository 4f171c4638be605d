"""Options of a scan: patience, provider profiles, windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile


@dataclass(frozen=True)
class ScanOptions:
    """Options of a scan. None of them changes the scenes of a complete scan."""

    patience: Patience = field(default_factory=Patience)
    providers: Mapping[str, ProviderProfile] = field(default_factory=dict)
    """Profiles that override the known ones, by host."""
    window_pages: int = 50
    """A window with more pages than this is divided."""
    resume_hours: float = 24.0
    """How long the finished windows of an interrupted scan can be resumed; later the catalogue may have changed."""
    cross_check: bool = True
    """Whether to check the doubts of a scan with other providers; if not, each doubt remains."""
    publish_partial: bool = False
    """Whether to publish an incomplete scan, as ``partial``, if no provider gave all scenes; never over the file of a whole month."""
