"""The scan report: what one scan asked, received and left out, and whether absence in it counts."""

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
"""Platforms named in a report's words, and letters of each."""


@dataclass
class ScanReport:
    """What a scan did; stands beside the scenes as JSON and in the scenes file's metadata."""

    sensor: str
    start: str
    """First instant of the window, UTC."""
    end: str
    """End of the window, exclusive."""
    status: ScanStatus
    scanned_at: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names this scan, so that what is made from it can be told from what was made from another."""
    bbox: list[float] | None = None
    """Area scanned; None: the globe."""
    provider: str = ""
    endpoint: str = ""
    collection: str = ""
    reason: str = ""
    """Why the window is not applicable, partial or provisional, where it is."""
    doubts: list[str] = field(default_factory=list)
    """Why the absence of more scenes is not believed, one sentence each, its kind before the colon; then the status is provisional."""
    windows: int = 0
    windows_resumed: int = 0
    """Windows that an earlier run of this scan had finished."""
    windows_cut: int = 0
    """Windows that failed or were too large, and were asked for in pieces."""
    missing: list[str] = field(default_factory=list)
    """Spans of a partial scan that could not be read."""
    cross_check: str = ""
    """What other providers said of the doubts."""
    requests: int = 0
    retries: int = 0
    retried: dict[str, int] = field(default_factory=dict)
    """Requests repeated, by what was wrong with the answer before."""
    pages: int = 0
    bytes: int = 0
    announced: int | None = None
    received: int = 0
    """Distinct items of each window."""
    scenes: int = 0
    duplicates: int = 0
    """Items that came again within a window."""
    repeated: int = 0
    """Items that came in two windows, which meet at their ends."""
    superseded: int = 0
    """Copies that a newer processing replaced."""
    united: int = 0
    """Parts united with another part of their scene."""
    outside: int = 0
    """Items of the hour around the window, and of neighbouring months by acquisition time."""
    other_platform: int = 0
    platforms: dict[str, int] = field(default_factory=dict)
    """Items taken, by platform as the provider writes it."""
    other_platforms: dict[str, int] = field(default_factory=dict)
    """Items left out as another satellite's, by platform as the provider writes it."""
    first_day: str | None = None
    """First day with a scene."""
    last_day: str | None = None
    """Last day with a scene."""
    bbox_footprints: int = 0
    """Scenes whose only outline is a bounding box."""
    rejected: dict[str, int] = field(default_factory=dict)
    timeless: int = 0
    """Items without any time, which every month's search gives: listed once for the sensor, in ``timeless.parquet``."""
    failed_providers: dict[str, str] = field(default_factory=dict)
    """Providers that were asked first and failed, and how."""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def in_words(self) -> str:
        """One line for a person."""
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
            *(f"{count} {noun}" for count, noun in counts if count),
            f"{self.bytes / 1e6:.1f} MB",
            f"{self.seconds:.1f} s",
        ]
        why = f"; {self.reason}" if self.reason else ""
        return f"{self.sensor} {self.start[:7]}: {self.scenes} scenes ({self.status}{why}) from {self.provider}, {', '.join(parts)}"

    def lines(self, lag_days: int | None = None) -> list[str]:
        """The whole report for a person who has never seen one. ``lag_days`` is the sensor's publication lag, which says until when a
        provisional month stays one.
        """
        month = f"{self.sensor} {self.start[:7]}"
        if self.status == "not_applicable":
            return [f"{month}: not applicable: {self.reason}; there is nothing to scan, and nothing is missing"]
        words = [f"{month}: {_counted(self.scenes, 'scene')} ({self.status}): {self._meaning(lag_days)}"]
        place = f"within {','.join(f'{side:g}' for side in self.bbox)}; elsewhere stays not known" if self.bbox else "all over the globe"
        words.append(f"  provider: {self.provider}, collection {self.collection}, {place}")
        words += [f"  failed before: {provider}: {why}" for provider, why in self.failed_providers.items()]
        if self.first_day:
            words.append(f"  days: the first scene is of {self.first_day}, the last of {self.last_day}")
        words += [f"  doubt: {doubt}" for doubt in self.doubts]
        announced = "number not announced, " if self.announced is None else f"{self.announced:,} announced, "
        words.append(f"  items: {announced}{self.received:,} received, which make {_counted(self.scenes, 'scene')}")
        for count, noun in (
            (self.superseded, "older copies of a scene, superseded by a newer processing"),
            (self.united, "parts, united with another part of their scene"),
            (self.repeated, "came in two windows, counted once"),
            (self.duplicates, "came again on a later page, counted once"),
            (self.outside, "of the hour around the month, or of another month by acquisition time"),
            (self.other_platform, f"of other satellites of the collection{_named(self.other_platforms, ': ')}"),
            (self.bbox_footprints, "scenes with a bounding box for want of a footprint"),
        ):
            if count:
                words.append(f"    {count:,} {noun}")
        if self.platforms:
            words.append(f"    platforms: {_named(self.platforms)}")
        words += [f"    {count:,} rejected: {reason}" for reason, count in self.rejected.items()]
        some = [(self.windows_resumed, "read by an earlier run"), (self.windows_cut, "cut for having failed or being too large")]
        of_them = ", ".join(f"{count:,} {noun}" for count, noun in some if count)
        words.append(f"  windows: {self.windows:,}{f' ({of_them})' if of_them else ''}, {_counted(self.pages, 'page')}")
        again = ", ".join(f"{count} × {label}" for label, count in self.retried.items())
        repeats = f" ({self.retries:,} of them retries: {again})" if self.retries else ""
        words.append(f"  asked: {_counted(self.requests, 'request')}{repeats}, {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s")
        if self.cross_check:
            words.append(f"  cross-check: {self.cross_check}")
        return words

    def _meaning(self, lag_days: int | None) -> str:
        match self.status:
            case "complete":
                return "all that there is of the month, published and read"
            case "provisional" if self.doubts:
                others = self.reason.removesuffix("; ".join(self.doubts)).removesuffix("; ")
                doubtful = f"read in full, but no scene does not mean none: {'; '.join(self.doubts)}"
                return f"{others}; {doubtful}" if others else doubtful
            case "provisional" if self.reason:
                return self.reason
            case "provisional":
                settled = dt.datetime.fromisoformat(self.end) + dt.timedelta(days=lag_days or 0)
                until = f"until {settled:%Y-%m-%d}" if lag_days is not None else "for some days"
                return f"all that was there; more is published {until}, scan again after that"
            case _ if not self.missing:
                return f"do not rely on it: {self.reason}"
        some = ", ".join(self.missing[:5]) + (f" and {len(self.missing) - 5:,} more" if len(self.missing) > 5 else "")
        return f"some is missing, so that no scene does not mean none: {self.reason}; missing windows: {some}; run again to go on"


def _counted(number: int, of: str) -> str:
    return f"{number:,} {of}{'' if number == 1 else 's'}"


def _named(platforms: Mapping[str, int], before: str = "", after: str = "") -> str:
    """Platforms and their items for a person; what a provider wrote is cut and freed of control characters."""
    some = sorted(platforms.items(), key=lambda named: (-named[1], named[0]))
    shown = ", ".join(f"{excerpt(name)[:_LONGEST_NAME]} {count:,}" for name, count in some[:_MOST_NAMES])
    more = f" and {len(some) - _MOST_NAMES} more" if len(some) > _MOST_NAMES else ""
    return f"{before}{shown}{more}{after}" if some else ""


def iso_utc(instant: dt.datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def now_utc() -> str:
    return iso_utc(dt.datetime.now(UTC))


def stored_report(path: UPath) -> ScanReport | None:
    """The report of an earlier scan; None where there is none that can be read."""
    known = {f.name for f in fields(ScanReport)}
    try:
        lines = json.loads(path.read_text())
        report = ScanReport(**{name: value for name, value in lines.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(report.scenes, int) or isinstance(report.scenes, bool) or not isinstance(report.doubts, list):
        return None
    return report
