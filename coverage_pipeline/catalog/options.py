"""How catalogues are asked: patience, providers, windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile


@dataclass(frozen=True)
class ScanOptions:
    """How a scan is made; none of it changes what a complete one finds."""

    patience: Patience = field(default_factory=Patience)
    providers: Mapping[str, ProviderProfile] = field(default_factory=dict)
    """Profiles that are set otherwise than known, by host."""
    window_pages: int = 50
    """A window with more pages than this is cut."""
    resume_hours: float = 24.0
    """How long the finished windows of a scan that was stopped are good for; later the catalogue may have changed."""
    cross_check: bool = True
    """Whether other providers are asked about the doubts that a scan leaves; without, each doubt stays."""
    publish_partial: bool = False
    """Whether what was found is published, as ``partial``, where no provider gave all; never over a whole month's file."""
