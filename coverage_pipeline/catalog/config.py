"""Settings of catalogue scans."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from coverage_pipeline.catalog.patience import MAX_ANSWER_MB
from coverage_pipeline.storage.section import Section


class ScanSettings(Section):
    """``[scan]``: timeouts, retries and limits of catalogue scans."""

    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Timeout for the connection, and for the next bytes of an answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """How often a request is repeated after a temporary failure."""
    backoff_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """Upper bound of the first random wait; it doubles with each retry."""
    deadline_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)] = 7200.0
    """Longest time to scan one month at one provider; the next run resumes."""
    window_pages: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Windows with more pages than this are divided."""
    resume_hours: Annotated[float, Field(ge=0, le=24 * 31)] = 24.0
    """How long the finished windows of an interrupted scan can be resumed."""
    cross_check: bool = True
    """Whether to check the doubts of a scan with other providers; if not, each doubt remains."""
    publish_partial: bool = False
    """Whether to publish an incomplete scan, as ``partial``, if no provider gave all scenes."""
    max_answer_mb: Annotated[float, Field(gt=0, le=4096)] = MAX_ANSWER_MB
    """Largest answer of a catalogue that is read, decompressed, in MB."""
