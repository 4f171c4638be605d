"""Settings of how patiently catalogues are asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from coverage_pipeline.catalog.patience import MAX_ANSWER_MB
from coverage_pipeline.storage.section import Section


class ScanSettings(Section):
    """``[scan]``: how patiently catalogues are asked."""

    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """For the connection, and for the next bytes of an answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """How often one request is repeated where the failure may pass."""
    backoff_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """Bound of the first random wait; it doubles with each."""
    deadline_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)] = 7200.0
    """The longest that one provider is asked for one month; the next run goes on from there."""
    window_pages: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Windows with more pages than this are cut."""
    resume_hours: Annotated[float, Field(ge=0, le=24 * 31)] = 24.0
    """How long the finished windows of a scan that was stopped are good for."""
    cross_check: bool = True
    """Whether other providers are asked about the doubts that a scan leaves; without, each doubt stays."""
    publish_partial: bool = False
    """Whether what was found is published, as ``partial``, where no provider gave all."""
    max_answer_mb: Annotated[float, Field(gt=0, le=4096)] = MAX_ANSWER_MB
    """The largest answer of a catalogue that is read, decompressed, in MB."""
