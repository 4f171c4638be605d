"""One sensor and window scanned into GeoParquet: all of it, or nothing and the former file stays."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from upath import UPath

from coverage_pipeline.catalog import belief
from coverage_pipeline.catalog.belief import Answer, Doubt
from coverage_pipeline.catalog.errors import CatalogDisagreement, CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.http import Patience, excerpt
from coverage_pipeline.catalog.providers import ProviderProfile, profile_of
from coverage_pipeline.catalog.sources.base import BBox, Source, Tally, Window, joined
from coverage_pipeline.catalog.sources.cmr import CmrSource
from coverage_pipeline.catalog.sources.geoparquet import GeoParquetSource, StaticSource
from coverage_pipeline.catalog.sources.stac import StacSource
from coverage_pipeline.catalog.windows import Gathered, Gathering, Parts, Progress, clear_parts
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.grid.spec import split_bbox
from coverage_pipeline.months import UTC, Month, window_months
from coverage_pipeline.scenes.items import (
    NO_TIME,
    REJECTED_SCHEMA,
    SCENES_SCHEMA,
    SCENES_VERSION,
    SceneCollector,
    by_reason,
    first_of_each,
    in_order,
    merge_copies,
)
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor, SensorError, SourceKind
from coverage_pipeline.storage.store import (
    Store,
    StoreError,
    is_local,
    parquet_bytes,
    read_metadata,
    read_parquet,
    sibling,
    storage_path,
    write_parquet,
    write_together,
)

log = logging.getLogger(__name__)

# A provider may put a scene's datatake start up to 27 minutes before the time it searches by (Earth Search, Sentinel-2).
_MARGIN = dt.timedelta(hours=1)

_MOST_NAMES, _LONGEST_NAME = 12, 60
"""Platforms named in a report's words, and letters of each."""

SOURCES: Mapping[SourceKind, Callable[[AvailableSource, ProviderProfile, Patience, str], Source]] = {
    "stac": StacSource,
    "cmr": CmrSource,
    "earthaccess": CmrSource,  # the same archive: searching it takes no login, only downloading does
    "geoparquet": GeoParquetSource,
    "static": StaticSource,
}

ScanStatus = Literal["complete", "provisional", "partial", "not_applicable"]
OnProgress = Callable[[Progress], None]


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
            *(f"{count} {what}" for count, what in counts if count),
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
        told = [f"{month}: {_count(self.scenes, 'scene')} ({self.status}): {self._meaning(lag_days)}"]
        place = f"within {','.join(f'{side:g}' for side in self.bbox)}; elsewhere stays not known" if self.bbox else "all over the globe"
        told.append(f"  provider: {self.provider}, collection {self.collection}, {place}")
        told += [f"  failed before: {provider}: {why}" for provider, why in self.failed_providers.items()]
        if self.first_day:
            told.append(f"  days: the first scene is of {self.first_day}, the last of {self.last_day}")
        told += [f"  doubt: {doubt}" for doubt in self.doubts]
        announced = "number not announced, " if self.announced is None else f"{self.announced:,} announced, "
        told.append(f"  items: {announced}{self.received:,} received, which make {_count(self.scenes, 'scene')}")
        for count, what in (
            (self.superseded, "older copies of a scene, superseded by a newer processing"),
            (self.united, "parts, united with another part of their scene"),
            (self.repeated, "came in two windows, counted once"),
            (self.duplicates, "came again on a later page, counted once"),
            (self.outside, "of the hour around the month, or of another month by acquisition time"),
            (self.other_platform, f"of other satellites of the collection{_named(self.other_platforms, ': ')}"),
            (self.bbox_footprints, "scenes with a bounding box for want of a footprint"),
        ):
            if count:
                told.append(f"    {count:,} {what}")
        if self.platforms:
            told.append(f"    platforms: {_named(self.platforms)}")
        told += [f"    {count:,} rejected: {reason}" for reason, count in self.rejected.items()]
        some = [(self.windows_resumed, "read by an earlier run"), (self.windows_cut, "cut for having failed or being too large")]
        of_them = ", ".join(f"{count:,} {what}" for count, what in some if count)
        told.append(f"  windows: {self.windows:,}{f' ({of_them})' if of_them else ''}, {_count(self.pages, 'page')}")
        again = ", ".join(f"{count} × {label}" for label, count in self.retried.items())
        repeats = f" ({self.retries:,} of them retries: {again})" if self.retries else ""
        told.append(f"  asked: {_count(self.requests, 'request')}{repeats}, {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s")
        if self.cross_check:
            told.append(f"  cross-check: {self.cross_check}")
        return told

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


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}{'' if number == 1 else 's'}"


def _named(platforms: Mapping[str, int], before: str = "", after: str = "") -> str:
    """Platforms and their items for a person; what a provider wrote is cut and freed of control characters."""
    some = sorted(platforms.items(), key=lambda named: (-named[1], named[0]))
    shown = ", ".join(f"{excerpt(name)[:_LONGEST_NAME]} {count:,}" for name, count in some[:_MOST_NAMES])
    more = f" and {len(some) - _MOST_NAMES} more" if len(some) > _MOST_NAMES else ""
    return f"{before}{shown}{more}{after}" if some else ""


def build_availability_catalog(
    sensor: CoverageSensor,
    start: str | dt.date,
    end: str | dt.date,
    *,
    bbox: BBox | None = None,
    dest: Path | UPath | str,
    source_index: int | None = None,
    options: ScanOptions | None = None,
    progress: OnProgress | None = None,
) -> Path | UPath | None:
    """Scan the catalogue of one sensor over a window of whole months into GeoParquet 1.1 at ``dest``.

    Rows whose ``in_month`` is false lie within an hour outside the window; they are there for the matchup of holdings alone.
    ``bbox`` is (west, south, east, north) in degrees, west > east across the antimeridian; None scans the globe.
    ``source_index`` forces one of ``sensor.available_sources``; None asks them in order until one answers completely.
    The rejected table (``….rejected.parquet``) and the scan report (``….scan.json``) are written beside it. A scan that was killed or
    failed goes on from its finished windows when it is made again.

    Returns ``dest``, or None for a sensor without a public catalogue. Raises ``CatalogError`` where no source gave all of its
    scenes: then nothing is written, and a former file stays.
    """
    if not sensor.available_sources:
        return None
    target = storage_path(dest)
    _scan_into(
        sensor,
        window_months(start, end),
        target,
        bbox=bbox,
        source_index=source_index,
        options=options or ScanOptions(),
        progress=progress,
    )
    return dest if isinstance(dest, Path | UPath) else Path(dest)


def scan_month(
    sensor: CoverageSensor,
    month: Month,
    store: Store,
    *,
    bbox: BBox | None = None,
    source_index: int | None = None,
    options: ScanOptions | None = None,
    progress: OnProgress | None = None,
) -> ScanReport:
    """Scan one partition into the store. A sensor without a catalogue, or before its mission, is written as not applicable."""
    target = store.scenes(sensor.key, month)
    reason = ""
    if not sensor.available_sources:
        reason = "no public catalogue"
    elif not sensor.flies_in(month):
        reason = f"the sensor delivers from {sensor.first_month or 'its start'} to {sensor.last_month or 'today'}"
    if reason:
        report = ScanReport(sensor.key, _iso(month.start), _iso(month.end), "not_applicable", _now(), reason=reason)
        with _alone(target):
            _require_more(target, report)
            _publish(target, _Scanned(SCENES_SCHEMA.empty_table(), REJECTED_SCHEMA.empty_table(), report))
        return report
    return _scan_into(
        sensor,
        [month],
        target,
        timeless=store.timeless(sensor.key),
        bbox=bbox,
        source_index=source_index,
        options=options or ScanOptions(),
        progress=progress,
    )


def _iso(instant: dt.datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _now() -> str:
    return _iso(dt.datetime.now(UTC))


@dataclass(frozen=True)
class _Job:
    """What is to be scanned, whichever source gives it."""

    sensor: CoverageSensor
    months: list[Month]
    bbox: BBox | None
    target: UPath
    timeless: UPath | None
    """Where the sensor's items without any time are listed; None: with the other rejected."""
    options: ScanOptions
    progress: OnProgress | None

    @property
    def start(self) -> dt.datetime:
        return self.months[0].start

    @property
    def end(self) -> dt.datetime:
        return self.months[-1].end

    @property
    def what(self) -> str:
        return f"{self.sensor.key} {self.months[0]}" + (f"..{self.months[-1]}" if len(self.months) > 1 else "")

    def within(self, source: AvailableSource) -> _Job:
        """The job as that source can do it: one that lists a region alone says nothing of elsewhere."""
        if source.covers is None:
            return self
        if self.bbox is None:
            return replace(self, bbox=source.covers)
        covered = [shapely.box(*box) for box in split_bbox(source.covers)]
        if not shapely.union_all(covered).covers(shapely.union_all([shapely.box(*box) for box in split_bbox(self.bbox)])):
            raise CatalogUnavailable(
                f"{self.what}: {source.provider} ({source.collection_id}) covers {source.covers} only, and {self.bbox} is asked for; "
                f"ask for less, or name another source in [[sensors.sources.{self.sensor.key}]]"
            )
        return self

    def window(self, limit: int) -> Window:
        return Window(self.start - _MARGIN, self.end + _MARGIN, limit)

    def parts(self, source: AvailableSource) -> Parts:
        """Where the finished windows lie. Whatever makes an item another row makes another query."""
        asked = {k: v for k, v in asdict(source).items() if k != "page_size"}
        sensor = {"key": self.sensor.key, "family": self.sensor.family, "max_scene_km2": self.sensor.max_scene_km2}
        query = {"source": asked, "sensor": sensor, "start": _iso(self.start), "end": _iso(self.end), "bbox": self.bbox}
        return Parts.beside(self.target, query)

    def open(self, source: AvailableSource) -> Source:
        return SOURCES[source.kind](source, profile_of(source, self.options.providers), self.options.patience, self.what)


@dataclass(frozen=True)
class _Scanned:
    """One source's answer, whole or not."""

    scenes: pa.Table
    rejected: pa.Table
    report: ScanReport
    error: CatalogError | None = None
    """Why it is not whole, where some of it could not be read."""
    confirmed_by: AvailableSource | None = None
    """Who has a scene that this answer lacks: the month is scanned anew from there."""


@contextlib.contextmanager
def _alone(target: UPath) -> Iterator[None]:
    """One scan of a target at a time, on this machine: two would clear each other's finished windows."""
    if not is_local(target):
        yield
        return
    folder = Path(target.parent.path)
    lock = filelock.FileLock(folder / f".{target.name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.warning("another scan writes %s; waiting for it", target)
            lock.acquire()
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}; check COVERAGE_DATA and the output settings") from error
    try:
        yield
    finally:
        lock.release()


def _scan_into(
    sensor: CoverageSensor,
    months: list[Month],
    target: UPath,
    *,
    timeless: UPath | None = None,
    bbox: BBox | None,
    source_index: int | None,
    options: ScanOptions,
    progress: OnProgress | None,
) -> ScanReport:
    sources = sensor.available_sources
    if source_index is not None:
        if not 0 <= source_index < len(sources):
            raise SensorError(f"{sensor.key} has sources 0..{len(sources) - 1}; there is no source {source_index}")
        sources = (sources[source_index],)
    if bbox is not None:
        split_bbox(bbox)  # refuses a box that is none
    job = _Job(sensor, months, bbox, target, timeless, options, progress)
    with _alone(target):
        return _scan_in_order(job, sources)


def _scan_in_order(job: _Job, sources: tuple[AvailableSource, ...]) -> ScanReport:
    """The first source that gives all and is believed; else the best that is doubted; else, where that is wanted, the most that one gave;
    else an error that names them all.
    """
    clear_parts(job.target, older_than=dt.timedelta(hours=job.options.resume_hours))
    failed: list[tuple[AvailableSource, CatalogError]] = []
    partial: list[_Scanned] = []
    doubtful: list[tuple[_Job, AvailableSource, _Scanned]] = []
    pending = list(sources)
    while pending:
        source = pending.pop(0)
        try:
            narrowed = job.within(source)
            _require_no_smaller(job.target, narrowed)
            scanned = _scan(narrowed, source)
            if scanned.report.status == "partial":
                partial.append(scanned)
                assert scanned.error is not None
                raise scanned.error
            if not scanned.report.doubts:
                return _published(narrowed, scanned, failed)
            narrowed.parts(source).clear()  # reading it again may give more
            doubtful.append((narrowed, source, scanned))
            if scanned.confirmed_by not in pending:
                break
            pending = [scanned.confirmed_by]
            raise CatalogDisagreement(f"{job.what}: {source.provider} ({source.collection_id}) is doubted: {scanned.report.cross_check}")
        except CatalogError as error:
            failed.append((source, error))
            log.warning("%s", error)
    if doubtful:
        # Of equals the later one, which has what the one before it lacks.
        narrowed, best_source, best_doubted = max(reversed(doubtful), key=lambda found: found[2].report.scenes)
        try:
            return _published(narrowed, best_doubted, [(source, error) for source, error in failed if source is not best_source])
        except CatalogError as error:
            failed.append((best_source, error))
    some = [scanned for scanned in partial if scanned.report.pages]
    if job.options.publish_partial and some:
        best = max(some, key=lambda scanned: scanned.report.scenes)
        best.report.failed_providers = _failures(failed)
        with contextlib.suppress(_SaysLess):
            _require_more(job.target, best.report)
            published = _without_timeless(job, best)
            _publish(job.target, published)  # what was read stays, too: the next run goes on from there
            return published.report
    kept = ". The former file stays" if job.target.exists() else ""
    # The errors of libraries below may hold the whole address, with what it carries behind its question mark.
    if len(failed) == 1:
        only = failed[0][1]
        alone = type(only)(f"{only}{kept}")
        alone.may_pass = only.may_pass
        raise alone from None
    # Something that may pass, where one of them is: then it is worth trying again later.
    kind = next((type(e) for _, e in failed if isinstance(e, CatalogUnavailable | CatalogTruncated | CatalogUnreadable)), CatalogError)
    together = kind(f"{job.what}: every source failed: " + " | ".join(str(e) for _, e in failed) + kept)
    together.may_pass = any(e.may_pass for _, e in failed)
    raise together from None


def _published(job: _Job, scanned: _Scanned, failed: list[tuple[AvailableSource, CatalogError]]) -> ScanReport:
    """Write what a source gave in full, unless the file that is there says more."""
    scanned.report.failed_providers = _failures(failed)
    _require_more(job.target, scanned.report)
    published = _without_timeless(job, scanned)
    _publish(job.target, published)
    _list_timeless(job, scanned)
    clear_parts(job.target)
    return published.report


def _failures(failed: list[tuple[AvailableSource, CatalogError]]) -> dict[str, str]:
    return {f"{source.kind} {source.provider} {source.collection_id}": str(error) for source, error in failed}


class _SaysLess(CatalogError):
    """What was scanned says less than the file that it would replace."""


def _former(target: UPath) -> dict[str, Any]:
    """What is told of the file that is there; nothing of one that is none of ours or cannot be read."""
    try:
        former = read_metadata(target) if target.exists() else {}
    except StoreError:
        return {}
    return former if isinstance(former.get("status"), str) and isinstance(former.get("scenes"), int) else {}


def _require_no_smaller(target: UPath, job: _Job) -> None:
    """Refuse to put a box in the place of the globe, before anything is asked."""
    former = _former(target)
    if job.bbox is not None and former.get("status") in ("complete", "provisional") and former.get("bbox") is None:
        raise _SaysLess(
            f"{job.what}: {target} holds a {former['status']} scan of the globe, of {former.get('scanned_at')}; one of {job.bbox} alone "
            "would say less. Scan it into another place (COVERAGE_DATA), or remove the file first"
        )


def _require_more(target: UPath, report: ScanReport) -> None:
    """Refuse what says less than the file that is there: nothing written is lost."""
    former = _former(target)
    whole = former.get("status") in ("complete", "provisional")
    less = (
        (report.status == "partial" and (whole or (former.get("status") == "partial" and report.scenes < former["scenes"])))
        or (report.status == "provisional" and former.get("status") == "complete" and report.reason != "")
        or (bool(report.doubts) and whole and former.get("bbox") == report.bbox and report.scenes < former["scenes"])
        or (report.status == "not_applicable" and former.get("scenes", 0) > 0)
    )
    if less:
        raise _SaysLess(
            f"{report.sensor} {report.start[:7]}: {target} holds a {former['status']} scan with {former['scenes']} scenes, of "
            f"{former.get('scanned_at')}; this one is {report.status} ({report.reason}) with {report.scenes}, and does not replace it. "
            "Remove the file first if it should"
        )


def _scan(job: _Job, source: AvailableSource) -> _Scanned:
    sensor, options = job.sensor, job.options
    began = time.monotonic()
    api = job.open(source)
    profile = profile_of(source, options.providers)

    def collector() -> SceneCollector:
        return SceneCollector(
            sensor,
            provider=source.provider,
            cloud_field=source.cloud_field,
            platforms=source.platforms,
            start=job.start,
            end=job.end,
            item_root=api.item_root,
        )

    with api.wire or contextlib.nullcontext():
        whole = job.window(profile.page_size)
        gathering = Gathering(
            source=api,
            what=f"{job.what}: {source.provider} ({source.collection_id})",
            profile=profile,
            start=whole.start,
            end=whole.end,
            bbox=job.bbox,
            collector=collector,
            parts=job.parts(source),
            lifetime=dt.timedelta(hours=options.resume_hours),
            window_pages=options.window_pages,
            on_progress=job.progress,
            partial=options.publish_partial,
            cancel=api.wire.cancel if api.wire else lambda: None,
            retries=lambda: api.wire.retried.total() if api.wire else 0,
        )
        gathered = gathering.run()
        if not any(part.received for part in gathered.parts) and not gathered.missing:
            api.require_collection()
        report, scenes = _reported(job, source, api, gathered)
        confirmed_by = None
        if report.status != "partial":
            found = belief.doubts(_answer(job, source, api, gathered, report, scenes))
    if report.status != "partial":
        found, confirmed_by, said = _put_to_others(job, source, found, scenes)
        _set_doubts(report, found, said)
    report.seconds = round(time.monotonic() - began, 3)
    error = gathered.missing[0][1] if gathered.missing else None
    return _Scanned(scenes, gathered.rejected.select(REJECTED_SCHEMA.names), report, error, confirmed_by)


def _reported(job: _Job, source: AvailableSource, api: Source, gathered: Gathered) -> tuple[ScanReport, pa.Table]:
    merged, superseded, united = merge_copies(gathered.take_rows())
    scenes = in_order(merged)
    of_month = scenes.filter(scenes["in_month"])
    parts = gathered.parts
    totals = [part.announced for part in parts]
    days = belief.distinct_days(belief.scene_days(scenes))
    platforms, others = (
        (
            sum((Counter(named) for named in column), Counter[str]())
            for column in zip(*((part.platforms, part.other_platforms) for part in parts), strict=True)
        )
        if parts
        else (Counter[str](), Counter[str]())
    )
    # What an earlier run read says nothing of what was published since.
    read_at = min((part.read_at for part in parts), default=dt.datetime.now(UTC))
    status, reason = _knownness(job, read_at, api.newest())
    if gathered.missing:
        status, reason = "partial", f"{len(gathered.missing)} windows could not be read; the first: {gathered.missing[0][1]}"
    report = ScanReport(
        sensor=job.sensor.key,
        start=_iso(job.start),
        end=_iso(job.end),
        status=status,
        scanned_at=_iso(read_at),
        bbox=list(job.bbox) if job.bbox is not None else None,
        provider=source.provider,
        endpoint=source.public(source.endpoint),
        collection=source.collection_id,
        reason=reason,
        windows=len(parts) + len(gathered.missing),
        windows_resumed=sum(part.resumed for part in parts),
        windows_cut=gathered.cut,
        missing=[window.name for window in joined(window for window, _ in gathered.missing)],
        requests=api.wire.requests if api.wire else 0,
        retries=api.wire.retried.total() if api.wire else 0,
        retried=dict(sorted(api.wire.retried.items())) if api.wire else {},
        pages=sum(part.pages for part in parts),
        bytes=api.wire.bytes if api.wire else 0,
        announced=None if None in totals or not totals else sum(total for total in totals if total is not None),
        received=sum(part.received for part in parts),
        scenes=of_month.num_rows,
        duplicates=sum(part.duplicates for part in parts),
        repeated=gathered.repeated,
        superseded=superseded,
        united=united,
        outside=sum(part.outside for part in parts),
        other_platform=sum(part.other_platform for part in parts),
        platforms=dict(sorted(platforms.items())),
        other_platforms=dict(sorted(others.items())),
        first_day=days[0].isoformat() if days else None,
        last_day=days[-1].isoformat() if days else None,
        bbox_footprints=pc.sum(pc.equal(of_month["geometry_source"], "bbox")).as_py() or 0,
        rejected=by_reason(gathered.rejected),
    )
    return report, scenes


def _answer(job: _Job, source: AvailableSource, api: Source, gathered: Gathered, report: ScanReport, scenes: pa.Table) -> Answer:
    """What belief needs of a scan that read all its windows."""
    parts = gathered.parts
    overfull, capped = (sum(getattr(part, name) for part in parts) for name in ("overfull", "capped"))
    timeless = report.rejected.get(NO_TIME, 0)
    reasons = {reason: count for reason, count in report.rejected.items() if reason != NO_TIME}
    totals = [
        (overfull, "searches gave more items than were announced for them"),
        (capped, "searches end on a round number of items however short they are, as if the provider stopped there"),
    ]
    hollow = ""
    if report.scenes == 0 and (job.bbox is None or job.sensor.systematic):
        if report.other_platform:
            hollow = (
                f"all {report.other_platform} items are of other satellites than {', '.join(source.platforms)}; check platforms in "
                f"[[sensors.sources.{job.sensor.key}]]"
            )
        elif not api.windowed:
            hollow = "though the dump has items of earlier and later months: a file may be missing"
    newest, read_at = api.newest(), dt.datetime.fromisoformat(report.scanned_at)
    return Answer(
        sensor=job.sensor,
        months=job.months,
        bbox=job.bbox,
        scenes=report.scenes,
        days=belief.distinct_days(belief.scene_days(scenes)),
        known_to=read_at if newest is None else min(read_at, newest),
        around=_around(job.sensor, job.months, job.target, job.bbox),
        unplaced=belief.unplaced(
            came=report.received - report.repeated,
            timeless=timeless,
            rejected=sum(reasons.values()),
            foreign=sum(part.foreign for part in parts),
            most=max(reasons, key=lambda reason: reasons[reason], default=""),
        ),
        totals="; ".join(f"{count:,} {what}" for count, what in totals if count),
        twins=gathered.twins,
        hollow=hollow,
    )


def _set_doubts(report: ScanReport, found: Sequence[Doubt], said: Sequence[str]) -> None:
    """Write the doubts that stay, and what others said of all, into a report."""
    report.cross_check = "; ".join(said)
    report.doubts = [str(doubt) for doubt in found]
    if found:
        report.status = "provisional"
        report.reason = "; ".join([*([report.reason] if report.reason else []), *report.doubts])


def _knownness(job: _Job, read_at: dt.datetime, newest: dt.datetime | None) -> tuple[ScanStatus, str]:
    """``provisional`` until the publication lag is over, for a file by the date of its newest item."""
    known_to = read_at if newest is None else min(read_at, newest)
    settled = job.end + dt.timedelta(days=job.sensor.publication_lag_days)
    if known_to >= settled:
        return "complete", ""
    if newest is not None and newest < read_at:
        return "provisional", f"its newest item is of {newest:%Y-%m-%d}; what came later is not in it"
    return "provisional", ""


def _put_to_others(
    job: _Job, source: AvailableSource, found: Sequence[Doubt], scenes: pa.Table
) -> tuple[list[Doubt], AvailableSource | None, list[str]]:
    """The doubts that stay after the other providers of the area were asked, who confirms one, and what they said.

    The first scene found ends the asking. A doubt goes only where every provider answers that there is nothing.
    """
    others = _others(job, source) if job.options.cross_check else []
    stays: list[Doubt] = []
    said: list[str] = []
    away: dict[AvailableSource, str] = {}
    for at, doubt in enumerate(found):
        if not doubt.days:
            stays.append(doubt)
            continue
        silenced = bool(others)
        for other in others:
            if other not in away:
                try:
                    has = _scene_of(job, other, doubt, scenes)
                except CatalogError as error:
                    away[other] = f"{other.provider} could not be asked: {error}"
                else:
                    if has is not None:
                        said.append(f"{doubt}; {other.provider} has a scene of {has}")
                        return [*stays, *found[at:]], other, said
                    continue
            silenced = False
        if silenced:
            said.append(f"{doubt}; {', '.join(other.provider for other in others)} has none either")
        else:
            stays.append(doubt)
            said.append("; ".join([str(doubt), *(dict.fromkeys(away.values()) or ["there is nobody else to ask"])]))
    return stays, None, said


def _others(job: _Job, source: AvailableSource) -> list[AvailableSource]:
    """Providers other than a source that cover the whole area: one that lists a part of it says nothing of the rest."""
    found: list[AvailableSource] = []
    for other in job.sensor.available_sources:
        if any((other.endpoint, other.collection_id) == (known.endpoint, known.collection_id) for known in (source, *found)):
            continue
        if other.covers is not None:
            if job.bbox is None:
                continue
            try:
                job.within(other)
            except CatalogUnavailable:
                continue
        found.append(other)
    return found


def _scene_of(job: _Job, other: AvailableSource, doubt: Doubt, scenes: pa.Table) -> dt.date | None:
    """The day of the first usable scene that another provider has on the doubtful days, in the area; None where it has none.

    Raises ``CatalogError`` where its answer cannot be relied on: it was not read in full, or has items that cannot be placed.
    """
    profile = profile_of(other, job.options.providers)
    quick = replace(job.options.patience, retries=min(1, job.options.patience.retries))
    api = SOURCES[other.kind](other, profile, quick, job.what)
    days = np.array(doubt.days, dtype="datetime64[D]")
    area = None if job.bbox is None else shapely.union_all([shapely.box(*box) for box in split_bbox(job.bbox)])
    ours = scenes["scene_key"] if doubt.new else None
    came = timeless = rejected = foreign = 0
    with api.wire or contextlib.nullcontext():
        for first, last in _spans(doubt.days) if api.windowed else [(doubt.days[0], doubt.days[-1])]:
            start, end = (dt.datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (first, last + dt.timedelta(days=1)))
            window = Window(start - _MARGIN, end + _MARGIN, profile.page_size)
            placing, tally = belief.Placing(window.start, window.end), Tally()
            for page in api.pages(window, job.bbox, tally):
                # One collector a page: nothing is kept of what does not answer the question.
                collector = SceneCollector(
                    job.sensor, provider=other.provider, cloud_field=other.cloud_field, platforms=other.platforms, start=start, end=end
                )
                collector.add(page)
                placing.add(page)
                has = _first_usable(collector.rows(), days, area, ours)
                if has is not None:
                    return has
                reasons = by_reason(collector.rejected())
                came += collector.received
                timeless += reasons.pop(NO_TIME, 0)
                rejected += sum(reasons.values())
            foreign += placing.foreign if api.windowed else 0
            if any(announced is not None and received > announced for received, announced in tally.boxes):
                raise CatalogTruncated(f"{other.provider} gave more items than it announced")
        if not came:
            api.require_collection()
        newest = api.newest()
        if newest is not None and newest.date() <= doubt.days[-1]:
            raise CatalogTruncated(f"its newest item is of {newest:%Y-%m-%d}")
    lost = belief.unplaced(came=came, timeless=timeless, rejected=rejected, foreign=foreign)
    if lost or rejected or foreign:
        raise CatalogUnreadable(lost or f"{rejected + foreign} of its items cannot be placed")
    return None


def _first_usable(rows: pa.Table, days: np.ndarray[Any, Any], area: Any, ours: pa.ChunkedArray | None) -> dt.date | None:
    """The day of the first row that lies on one of the days, in the area, and is none of ``ours``."""
    if rows.num_rows == 0:
        return None
    of = belief.scene_days(rows)
    wanted = np.isin(of, days)
    if ours is not None:
        wanted &= ~pc.is_in(rows["scene_key"], value_set=ours.combine_chunks()).to_numpy()
    at = np.flatnonzero(wanted)
    if area is not None and at.size:
        shapes = shapely.from_wkb(rows["geometry"].to_numpy()[at])
        at = at[shapely.intersects(shapes, area)]
    day: dt.date | None = of[at[0]].item() if at.size else None
    return day


def _spans(days: Sequence[dt.date]) -> list[tuple[dt.date, dt.date]]:
    """First and last day of each run of consecutive days."""
    spans: list[tuple[dt.date, dt.date]] = []
    for day in days:
        if spans and day - spans[-1][1] == dt.timedelta(days=1):
            spans[-1] = spans[-1][0], day
        else:
            spans.append((day, day))
    return spans


def _around(sensor: CoverageSensor, months: Sequence[Month], target: UPath, bbox: BBox | None) -> list[int]:
    """Scenes of the complete months around this one, of the same area; none for a window of several months."""
    if len(months) != 1:
        return []
    found = []
    for distance in range(1, belief.MONTHS_AROUND + 1):
        for near in (months[0].shift(-distance), months[0].shift(distance)):
            report = stored_report(sibling(target.parent / f"{near.key}.parquet", ".scan.json"))
            if report is not None and report.sensor == sensor.key and report.status == "complete" and report.bbox == _listed(bbox):
                found.append(report.scenes)
    return found


def _listed(bbox: BBox | None) -> list[float] | None:
    return None if bbox is None else [float(side) for side in bbox]


def stored_report(path: UPath) -> ScanReport | None:
    """The report of an earlier scan; None where there is none that can be read."""
    known = {f.name for f in fields(ScanReport)}
    try:
        told = json.loads(path.read_text())
        report = ScanReport(**{name: value for name, value in told.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(report.scenes, int) or isinstance(report.scenes, bool) or not isinstance(report.doubts, list):
        return None
    return report


def settle_doubts(
    sensor: CoverageSensor,
    months: Sequence[Month],
    store: Store,
    *,
    bbox: BBox | None = None,
    options: ScanOptions | None = None,
    progress: OnProgress | None = None,
) -> list[Month]:
    """Judge again whether scanned months are empty or too small, now that the months around them are scanned, too.

    A month scanned first had nothing to be compared with. All are judged by what is stored before any is changed, so that their order
    does not matter. A new doubt is put to other providers as in a scan; one that no longer holds is taken back. Returns the months whose
    files changed: what was made from them is to be made again.
    """
    options = options or ScanOptions()
    judged: list[tuple[Month, ScanReport, Doubt | None]] = []
    for month in months:
        report = stored_report(sibling(store.scenes(sensor.key, month), ".scan.json"))
        if report is not None and _is_settleable(report):
            judged.append((month, report, belief.too_few(_stored_answer(sensor, month, store, report))))
    changed = []
    for month, report, doubt in judged:
        had = [kind for text in report.doubts if (kind := belief.kind_of(text)) in belief.AROUND_KINDS]
        # One that others have denied is not put to them again.
        if (doubt is None and not had) or (doubt is not None and (had or f"{doubt.kind}:" in report.cross_check)):
            continue
        if _settle(sensor, month, store, report, doubt, bbox, options, progress):
            changed.append(month)
    return changed


def _is_settleable(report: ScanReport) -> bool:
    """Whether a report's status follows from the months around: complete, or provisional for its doubts alone."""
    return report.status == "complete" or (
        report.status == "provisional" and report.doubts != [] and report.reason == "; ".join(report.doubts)
    )


def _stored_answer(sensor: CoverageSensor, month: Month, store: Store, report: ScanReport) -> Answer:
    """A stored scan, as far as the comparison with the months around needs it."""
    target = store.scenes(sensor.key, month)
    area = None if report.bbox is None else (report.bbox[0], report.bbox[1], report.bbox[2], report.bbox[3])
    days = belief.distinct_days(belief.scene_days(read_parquet(target)[0])) if report.scenes else []
    read_at = dt.datetime.fromisoformat(report.scanned_at)
    return Answer(sensor, [month], area, report.scenes, days, read_at, _around(sensor, [month], target, area))


def _settle(
    sensor: CoverageSensor,
    month: Month,
    store: Store,
    judged: ScanReport,
    doubt: Doubt | None,
    bbox: BBox | None,
    options: ScanOptions,
    progress: OnProgress | None,
) -> bool:
    """Bring one month's status up to date with a new judgement; whether its file changed."""
    target = store.scenes(sensor.key, month)
    area = None if judged.bbox is None else (judged.bbox[0], judged.bbox[1], judged.bbox[2], judged.bbox[3])
    with _alone(target):
        report = stored_report(sibling(target, ".scan.json"))
        if report is None or report.run != judged.run:
            return False  # another scan has judged it meanwhile
        scenes, metadata = read_parquet(target)
        if metadata.get("run") != report.run or metadata.get("version") != SCENES_VERSION:
            return False
        scenes = scenes.select(SCENES_SCHEMA.names).replace_schema_metadata(None).cast(SCENES_SCHEMA)
        rejected = read_parquet(sibling(target, ".rejected.parquet"))[0].replace_schema_metadata(None).cast(REJECTED_SCHEMA)
        kept = [text for text in report.doubts if belief.kind_of(text) not in belief.AROUND_KINDS]
        confirmed_by = None
        if doubt is not None:
            job = _Job(sensor, [month], area, target, store.timeless(sensor.key), options, progress)
            source = next((s for s in sensor.available_sources if _is_of(report, s)), None)
            if source is None:
                return False  # of a catalogue that is no longer named: the next scan asks another
            stays, confirmed_by, said = _put_to_others(job, source, [doubt], scenes)
            report.cross_check = "; ".join([*([report.cross_check] if report.cross_check else []), *said])
            kept += [str(one) for one in stays]
        settled = dt.datetime.fromisoformat(report.scanned_at) >= month.end + dt.timedelta(days=sensor.publication_lag_days)
        report.doubts, report.reason = kept, "; ".join(kept)
        report.status = "complete" if settled and not kept else "provisional"
        if confirmed_by is None:
            report.run = uuid.uuid4().hex  # what was made from the former status is to be made again
            _publish(target, _Scanned(scenes, rejected, report))
            return True
    try:
        scan_month(
            sensor, month, store, bbox=bbox, source_index=sensor.available_sources.index(confirmed_by), options=options, progress=progress
        )
    except CatalogError as error:
        log.warning("%s", error)
    with _alone(target):
        now = stored_report(sibling(target, ".scan.json"))
        if now is not None and now.run == judged.run:  # the other provider failed, or has less: the doubt stays
            report.run = uuid.uuid4().hex
            _publish(target, _Scanned(scenes, rejected, report))
    return True


def _is_of(report: ScanReport, source: AvailableSource) -> bool:
    return (report.endpoint, report.collection) == (source.public(source.endpoint), source.collection_id)


def _without_timeless(job: _Job, scanned: _Scanned) -> _Scanned:
    """Items without any time belong to no month, and servers give them for every one: they are listed once for the sensor."""
    if job.timeless is None:
        return scanned
    timeless = pc.equal(scanned.rejected["reason"], NO_TIME)
    kept = scanned.rejected.filter(pc.invert(timeless))
    scanned.report.timeless = scanned.rejected.num_rows - kept.num_rows
    scanned.report.rejected = by_reason(kept)
    return replace(scanned, rejected=kept)


def _list_timeless(job: _Job, scanned: _Scanned) -> None:
    """Bring the sensor's list of items without any time up to date: a scan of the globe replaces its provider's, one of a box adds."""
    if job.timeless is None:
        return
    rows = scanned.rejected.filter(pc.equal(scanned.rejected["reason"], NO_TIME))
    if rows.num_rows == 0 and not job.timeless.exists():
        return
    with _alone(job.timeless):
        try:
            former = read_parquet(job.timeless)[0].replace_schema_metadata(None).cast(REJECTED_SCHEMA)
        except (StoreError, pa.ArrowInvalid, ValueError):  # there is none yet, or none that can be read
            former = REJECTED_SCHEMA.empty_table()
        if job.bbox is None:
            former = former.filter(pc.not_equal(former["provider"], scanned.report.provider))
        merged = first_of_each(pa.concat_tables([rows, former]), "item_id")
        write_parquet(job.timeless, merged, {"sensor": scanned.report.sensor})


def _publish(target: UPath, scanned: _Scanned) -> None:
    """Scenes last: whoever sees them finds their rejected table and report beside them."""
    report = scanned.report
    rejected = {"sensor": report.sensor, "start": report.start, "run": report.run}
    write_together(
        [
            (sibling(target, ".rejected.parquet"), parquet_bytes(scanned.rejected, rejected)),
            (sibling(target, ".scan.json"), (json.dumps(report.as_json(), indent=1) + "\n").encode()),
            (target, parquet_bytes(as_geoparquet(scanned.scenes), {"version": SCENES_VERSION, **report.as_json()})),
        ]
    )
