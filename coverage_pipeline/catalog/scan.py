"""Scan one sensor and window into GeoParquet, with failover from one provider to the next.

All scenes are written, or none, and then the former file stays. The status of the month (partial, provisional, complete) is decided here; a
doubt that makes it provisional comes from ``belief`` and ``cross_check``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from coverage_pipeline.catalog import belief
from coverage_pipeline.catalog.cross_check import answer_of, ask_other_providers, set_doubts
from coverage_pipeline.catalog.errors import CatalogDisagreement, CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.finished_windows import clear_finished_windows
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.providers import profile_of
from coverage_pipeline.catalog.publishing import (
    LessComplete,
    exclusive_scan,
    list_timeless,
    publish_scan,
    require_no_less,
    require_no_smaller_area,
    without_timeless,
)
from coverage_pipeline.catalog.report import ScanReport, iso_utc, now_utc
from coverage_pipeline.catalog.scan_job import OnProgress, ScanJob, ScanResult
from coverage_pipeline.catalog.sources.base import Source, joined
from coverage_pipeline.catalog.windows import ScannedWindows, WindowScan
from coverage_pipeline.geometry.bbox import BBox, split_bbox
from coverage_pipeline.months import UTC, Month, window_months
from coverage_pipeline.scenes.copies import merge_copies
from coverage_pipeline.scenes.items import SceneCollector, by_reason, in_order
from coverage_pipeline.scenes.schema import REJECTED_SCHEMA, SCENES_SCHEMA, ScanStatus
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor, SensorError
from coverage_pipeline.storage.paths import storage_path
from coverage_pipeline.storage.store import Store

log = logging.getLogger(__name__)


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

    Rows with ``in_month`` false lie within an hour outside the window, and serve only the matchup of holdings.
    ``bbox`` is (west, south, east, north) in degrees, west > east across the antimeridian; None scans the globe.
    ``source_index`` selects one of ``sensor.available_sources``; None tries them in order until one answers completely.
    The rejected table (``….rejected.parquet``) and the scan report (``….scan.json``) are written beside ``dest``. A repeated scan resumes
    from the finished windows of one that failed or was killed.

    Returns ``dest``, or None for a sensor without a public catalogue. Raises ``CatalogError`` if no source gave all of its scenes (nothing
    is written, and a former file stays), ``SensorError`` for an unknown ``source_index``.
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
    """Scan one partition into the store; a sensor without a catalogue, or a month outside its mission, becomes ``not_applicable``.

    Parameters and errors are those of ``build_availability_catalog``.
    """
    target = store.scenes(sensor.key, month)
    reason = ""
    if not sensor.available_sources:
        reason = "no public catalogue"
    elif not sensor.flies_in(month):
        reason = f"the sensor delivers from {sensor.first_month or 'its start'} to {sensor.last_month or 'today'}"
    if reason:
        report = ScanReport(sensor.key, iso_utc(month.start), iso_utc(month.end), "not_applicable", now_utc(), reason=reason)
        with exclusive_scan(target):
            require_no_less(target, report)
            publish_scan(target, ScanResult(SCENES_SCHEMA.empty_table(), REJECTED_SCHEMA.empty_table(), report))
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
            raise SensorError(f"{sensor.key} has sources 0..{len(sources) - 1}, no source {source_index}")
        sources = (sources[source_index],)
    if bbox is not None:
        split_bbox(bbox)  # raises for an invalid box
    job = ScanJob(sensor, months, bbox, target, timeless, options, progress)
    with exclusive_scan(target):
        return _scan_with_failover(job, sources)


def _scan_with_failover(job: ScanJob, sources: tuple[AvailableSource, ...]) -> ScanReport:
    """Publish the first complete scan without doubts, else the largest doubtful one, else with ``publish_partial`` the largest partial one.

    Raises a ``CatalogError`` that names all sources if there is none.
    """
    clear_finished_windows(job.target, older_than=dt.timedelta(hours=job.options.resume_hours))
    failed: list[tuple[AvailableSource, CatalogError]] = []
    partial: list[ScanResult] = []
    doubtful: list[tuple[ScanJob, AvailableSource, ScanResult]] = []
    pending = list(sources)
    while pending:
        source = pending.pop(0)
        try:
            regional_job = job.within(source)
            require_no_smaller_area(job.target, regional_job)
            scanned = _scan(regional_job, source)
            if scanned.report.status == "partial":
                partial.append(scanned)
                assert scanned.error is not None
                raise scanned.error
            if not scanned.report.doubts:
                return _published(regional_job, scanned, failed)
            regional_job.parts(source).clear()  # a new scan of this source may give more
            doubtful.append((regional_job, source, scanned))
            if scanned.confirmed_by not in pending:
                break
            pending = [scanned.confirmed_by]
            raise CatalogDisagreement(f"{job.label}: {source.provider} ({source.collection_id}) is doubtful: {scanned.report.cross_check}")
        except CatalogError as error:
            failed.append((source, error))
            log.warning("%s", error)
    if doubtful:
        # On a tie the later scan, which has the scenes that the earlier one lacks.
        regional_job, best_source, best_doubted = max(reversed(doubtful), key=lambda entry: entry[2].report.scenes)
        try:
            return _published(regional_job, best_doubted, [(source, error) for source, error in failed if source is not best_source])
        except CatalogError as error:
            failed.append((best_source, error))
    some = [scanned for scanned in partial if scanned.report.pages]
    if job.options.publish_partial and some:
        best = max(some, key=lambda scanned: scanned.report.scenes)
        best.report.failed_providers = _failures(failed)
        with contextlib.suppress(LessComplete):
            require_no_less(job.target, best.report)
            published = without_timeless(job, best)
            publish_scan(job.target, published)  # the finished windows stay: the next run resumes from them
            return published.report
    kept = ". The former file stays" if job.target.exists() else ""
    # No chained exceptions: errors of libraries may contain the whole address with its query string.
    if len(failed) == 1:
        only = failed[0][1]
        alone = type(only)(f"{only}{kept}")
        alone.may_pass = only.may_pass
        raise alone from None
    # Prefer the type of a temporary error: then a later retry may help.
    kind = next((type(e) for _, e in failed if isinstance(e, CatalogUnavailable | CatalogTruncated | CatalogUnreadable)), CatalogError)
    together = kind(f"{job.label}: every source failed: " + " | ".join(str(e) for _, e in failed) + kept)
    together.may_pass = any(e.may_pass for _, e in failed)
    raise together from None


def _published(job: ScanJob, scanned: ScanResult, failed: list[tuple[AvailableSource, CatalogError]]) -> ScanReport:
    """Publish a complete scan, unless it contains less than the former file."""
    scanned.report.failed_providers = _failures(failed)
    require_no_less(job.target, scanned.report)
    published = without_timeless(job, scanned)
    publish_scan(job.target, published)
    list_timeless(job, scanned)
    clear_finished_windows(job.target)
    return published.report


def _failures(failed: list[tuple[AvailableSource, CatalogError]]) -> dict[str, str]:
    return {f"{source.kind} {source.provider} {source.collection_id}": str(error) for source, error in failed}


def _scan(job: ScanJob, source: AvailableSource) -> ScanResult:
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

    with api.session or contextlib.nullcontext():
        whole = job.window(profile.page_size)
        window_scan = WindowScan(
            source=api,
            label=f"{job.label}: {source.provider} ({source.collection_id})",
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
            cancel=api.session.cancel if api.session else lambda: None,
            retries=lambda: api.session.retried.total() if api.session else 0,
        )
        scanned = window_scan.run()
        if not any(part.received for part in scanned.parts) and not scanned.missing:
            api.require_collection()
        report, scenes = _reported(job, source, api, scanned)
        confirmed_by = None
        if report.status != "partial":
            doubts = belief.doubts(answer_of(job, source, api, scanned, report, scenes))
    if report.status != "partial":
        doubts, confirmed_by, answers = ask_other_providers(job, source, doubts, scenes)
        set_doubts(report, doubts, answers)
    report.seconds = round(time.monotonic() - began, 3)
    error = scanned.missing[0][1] if scanned.missing else None
    return ScanResult(scenes, scanned.rejected.select(REJECTED_SCHEMA.names), report, error, confirmed_by)


def _reported(job: ScanJob, source: AvailableSource, api: Source, gathered: ScannedWindows) -> tuple[ScanReport, pa.Table]:
    merged, superseded, united = merge_copies(gathered.take_rows())
    scenes = in_order(merged)
    of_month = scenes.filter(scenes["in_month"])
    parts = gathered.parts
    totals = [part.announced for part in parts]
    days = belief.distinct_days(belief.scene_days(scenes))
    platforms, other_platforms = (
        (
            sum((Counter(named) for named in column), Counter[str]())
            for column in zip(*((part.platforms, part.other_platforms) for part in parts), strict=True)
        )
        if parts
        else (Counter[str](), Counter[str]())
    )
    # The oldest reading: later publications are missing from the windows of an earlier run.
    read_at = min((part.read_at for part in parts), default=dt.datetime.now(UTC))
    status, reason = _status_of(job, read_at, api.newest())
    if gathered.missing:
        status, reason = "partial", f"{len(gathered.missing)} windows could not be read; the first: {gathered.missing[0][1]}"
    report = ScanReport(
        sensor=job.sensor.key,
        start=iso_utc(job.start),
        end=iso_utc(job.end),
        status=status,
        scanned_at=iso_utc(read_at),
        bbox=list(job.bbox) if job.bbox is not None else None,
        provider=source.provider,
        endpoint=source.public(source.endpoint),
        collection=source.collection_id,
        reason=reason,
        windows=len(parts) + len(gathered.missing),
        windows_resumed=sum(part.resumed for part in parts),
        windows_cut=gathered.cut,
        missing=[window.name for window in joined(window for window, _ in gathered.missing)],
        requests=api.session.requests if api.session else 0,
        retries=api.session.retried.total() if api.session else 0,
        retried=dict(sorted(api.session.retried.items())) if api.session else {},
        pages=sum(part.pages for part in parts),
        bytes=api.session.bytes if api.session else 0,
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
        other_platforms=dict(sorted(other_platforms.items())),
        first_day=days[0].isoformat() if days else None,
        last_day=days[-1].isoformat() if days else None,
        bbox_footprints=pc.sum(pc.equal(of_month["geometry_source"], "bbox")).as_py() or 0,
        rejected=by_reason(gathered.rejected),
    )
    return report, scenes


def _status_of(job: ScanJob, read_at: dt.datetime, newest: dt.datetime | None) -> tuple[ScanStatus, str]:
    """Scan status and reason: ``provisional`` until the publication lag is over, for a file at the date of its newest item."""
    known_to = read_at if newest is None else min(read_at, newest)
    settled = job.end + dt.timedelta(days=job.sensor.publication_lag_days)
    if known_to >= settled:
        return "complete", ""
    if newest is not None and newest < read_at:
        return "provisional", f"its newest item is of {newest:%Y-%m-%d}; later scenes are missing"
    return "provisional", ""
