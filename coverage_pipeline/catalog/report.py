"""The report of a scan: requests, items received and left out, and whether the absence of scenes counts."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from upath import UPath

from coverage_pipeline.months import UTC
from coverage_pipeline.redaction import excerpt
from coverage_pipeline.scenes.schema import ScanStatus

_MOST_NAMES, _LONGEST_NAME = 12, 60
"""Most platforms listed in a text, and most characters of each."""


@dataclass
class ScanReport:
    """Result of a scan in numbers. Stored as JSON beside the scenes, and in the metadata of the scenes file."""

    sensor: str
    start: str
    """First instant of the window, UTC."""
    end: str
    """End of the window, exclusive."""
    status: ScanStatus
    scanned_at: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Id of this scan, which files derived from it repeat."""
    bbox: list[float] | None = None
    """Area scanned; None: the globe."""
    provider: str = ""
    endpoint: str = ""
    collection: str = ""
    reason: str = ""
    """Why the status is ``not_applicable``, ``partial`` or ``provisional``; else empty."""
    doubts: list[str] = field(default_factory=list)
    """Reasons to believe that scenes are missing, one sentence each, with its kind before the colon; then the status is provisional."""
    windows: int = 0
    windows_resumed: int = 0
    """Windows finished by an earlier run of this scan."""
    windows_cut: int = 0
    """Windows that failed or were too large, and were divided."""
    missing: list[str] = field(default_factory=list)
    """Time spans that a partial scan could not read."""
    cross_check: str = ""
    """Answers of other providers to the doubts."""
    requests: int = 0
    retries: int = 0
    retried: dict[str, int] = field(default_factory=dict)
    """Number of retries, by the fault of the previous answer."""
    pages: int = 0
    bytes: int = 0
    announced: int | None = None
    received: int = 0
    """Distinct items per window, summed over the windows."""
    scenes: int = 0
    duplicates: int = 0
    """Items repeated within a window."""
    repeated: int = 0
    """Items repeated in two windows, which share an end."""
    superseded: int = 0
    """Copies replaced by a newer processing."""
    united: int = 0
    """Parts merged with another part of their scene."""
    outside: int = 0
    """Items whose pass lies more than an hour outside the window."""
    other_platform: int = 0
    platforms: dict[str, int] = field(default_factory=dict)
    """Number of items kept, by platform as the provider writes it."""
    other_platforms: dict[str, int] = field(default_factory=dict)
    """Number of items of other satellites, left out, by platform as the provider writes it."""
    first_day: str | None = None
    """First day with a scene."""
    last_day: str | None = None
    """Last day with a scene."""
    bbox_footprints: int = 0
    """Scenes with a bounding box instead of a footprint."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Number of rejected items, by reason."""
    timeless: int = 0
    """Items without a time, which servers return for every month: listed once for the sensor, in ``timeless.parquet``."""
    failed_providers: dict[str, str] = field(default_factory=dict)
    """Errors of the providers that failed before, by kind, provider and collection."""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    def in_words(self) -> str:
        """Summary in one line."""
        if self.status == "not_applicable":
            return f"{self.sensor} {self.start[:7]}: not applicable ({self.reason})"
        counts = [
            (self.windows_resumed, "windows of an earlier run"),
            (self.retries, "retries"),
            (self.superseded, "superseded"),
            (self.united, "united"),
            (sum(self.rejected.values()), "rejected"),
            (self.other_platform, f"of other satellites{_named(self.other_platforms, ' (', ')')}"),
        ]
        parts = [
            *([f"{self.first_day} to {self.last_day}"] if self.first_day else []),
            f"{self.received} items in {self.pages} pages and {self.windows} windows",
            *(f"{count} {label}" for count, label in counts if count),
            f"{self.bytes / 1e6:.1f} MB",
            f"{self.seconds:.1f} s",
        ]
        why = f"; {self.reason}" if self.reason else ""
        return f"{self.sensor} {self.start[:7]}: {self.scenes} scenes ({self.status}{why}) from {self.provider}, {', '.join(parts)}"

    def lines(self, lag_days: int | None = None) -> list[str]:
        """The whole report in words. ``lag_days`` is the sensor's publication lag, from which a provisional month gets its date of
        settling.
        """
        month = f"{self.sensor} {self.start[:7]}"
        if self.status == "not_applicable":
            return [f"{month}: not applicable: {self.reason}; no scan is needed, and nothing is missing"]
        lines = [f"{month}: {_counted(self.scenes, 'scene')} ({self.status}): {self._meaning(lag_days)}"]
        place = f"within {','.join(f'{side:g}' for side in self.bbox)}; other areas stay not known" if self.bbox else "all over the globe"
        lines.append(f"  provider: {self.provider}, collection {self.collection}, {place}")
        lines += [f"  failed before: {provider}: {why}" for provider, why in self.failed_providers.items()]
        if self.first_day:
            lines.append(f"  days: the first scene is of {self.first_day}, the last of {self.last_day}")
        lines += [f"  doubt: {doubt}" for doubt in self.doubts]
        announced = "number not announced, " if self.announced is None else f"{self.announced:,} announced, "
        lines.append(f"  items: {announced}{self.received:,} received, which make {_counted(self.scenes, 'scene')}")
        for count, label in (
            (self.superseded, "older copies of a scene, superseded by a newer processing"),
            (self.united, "parts, united with another part of their scene"),
            (self.repeated, "repeated in two windows, counted once"),
            (self.duplicates, "repeated on a later page, counted once"),
            (self.outside, "passed more than an hour outside the month"),
            (self.other_platform, f"of other satellites of the collection{_named(self.other_platforms, ': ')}"),
            (self.bbox_footprints, "scenes with a bounding box instead of a footprint"),
        ):
            if count:
                lines.append(f"    {count:,} {label}")
        if self.platforms:
            lines.append(f"    platforms: {_named(self.platforms)}")
        lines += [f"    {count:,} rejected: {reason}" for reason, count in self.rejected.items()]
        window_counts = [
            (self.windows_resumed, "read by an earlier run"),
            (self.windows_cut, "divided, because they failed or were too large"),
        ]
        window_notes = ", ".join(f"{count:,} {label}" for count, label in window_counts if count)
        lines.append(f"  windows: {self.windows:,}{f' ({window_notes})' if window_notes else ''}, {_counted(self.pages, 'page')}")
        retried = ", ".join(f"{count} × {label}" for label, count in self.retried.items())
        repeats = f" ({self.retries:,} of them retries: {retried})" if self.retries else ""
        lines.append(f"  asked: {_counted(self.requests, 'request')}{repeats}, {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s")
        if self.cross_check:
            lines.append(f"  cross-check: {self.cross_check}")
        return lines

    def _meaning(self, lag_days: int | None) -> str:
        match self.status:
            case "complete":
                return "all scenes of the month are published and were read"
            case "provisional" if self.doubts:
                others = self.reason.removesuffix("; ".join(self.doubts)).removesuffix("; ")
                doubtful = f"read in full, but scenes may be missing: {'; '.join(self.doubts)}"
                return f"{others}; {doubtful}" if others else doubtful
            case "provisional" if self.reason:
                return self.reason
            case "provisional":
                settled = dt.datetime.fromisoformat(self.end) + dt.timedelta(days=lag_days or 0)
                until = f"until {settled:%Y-%m-%d}" if lag_days is not None else "for some days"
                return f"all scenes published so far; more are published {until}, scan again after that"
            case _ if not self.missing:
                return f"do not rely on it: {self.reason}"
        some = ", ".join(self.missing[:5]) + (f" and {len(self.missing) - 5:,} more" if len(self.missing) > 5 else "")
        return f"scenes are missing: {self.reason}; missing windows: {some}; run again to continue"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _named(platforms: Mapping[str, int], before: str = "", after: str = "") -> str:
    """Platforms with their item counts in words; names of the provider are shortened and freed of control characters."""
    by_count = sorted(platforms.items(), key=lambda named: (-named[1], named[0]))
    shown = ", ".join(f"{excerpt(name)[:_LONGEST_NAME]} {count:,}" for name, count in by_count[:_MOST_NAMES])
    more = f" and {len(by_count) - _MOST_NAMES} more" if len(by_count) > _MOST_NAMES else ""
    return f"{before}{shown}{more}{after}" if by_count else ""


def iso_utc(instant: dt.datetime) -> str:
    """A UTC time as ISO 8601 text, in whole seconds."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def now_utc() -> str:
    """The present time in the format of ``iso_utc``."""
    return iso_utc(dt.datetime.now(UTC))


def stored_report(path: UPath) -> ScanReport | None:
    """The report of an earlier scan; None if there is none, or it cannot be read."""
    known = {f.name for f in fields(ScanReport)}
    try:
        values = json.loads(path.read_text())
        report = ScanReport(**{name: value for name, value in values.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(report.scenes, int) or isinstance(report.scenes, bool) or not isinstance(report.doubts, list):
        return None
    return report
