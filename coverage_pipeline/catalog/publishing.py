"""Write the result of a scan: scenes, rejected rows and report. A scan never replaces a file that contains more."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.catalog.scan_job import ScanJob, ScanResult
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.scenes.items import by_reason, first_of_each
from coverage_pipeline.scenes.metadata import RejectedMetadata, TimelessMetadata
from coverage_pipeline.scenes.order import ROWS_A_GROUP, along_the_curve
from coverage_pipeline.scenes.schema import NO_TIME, REJECTED_SCHEMA, SCENES_VERSION
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.files import write_together
from coverage_pipeline.storage.paths import is_local, sibling
from coverage_pipeline.storage.tables import parquet_bytes, read_metadata, read_parquet, write_parquet

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive_scan(target: UPath) -> Iterator[None]:
    """Lock a local target during a scan: two scans would remove each other's finished windows. Raises ``StoreError``."""
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
            log.warning("another scan writes %s; waiting until it ends", target)
            lock.acquire()
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}; check COVERAGE_DATA and the output settings") from error
    try:
        yield
    finally:
        lock.release()


class LessComplete(CatalogError):
    """The scan contains less than the file that it would replace."""


def _former_metadata(target: UPath) -> dict[str, Any]:
    """Metadata of the scenes file at the target; empty if there is none, or it cannot be read."""
    try:
        former = read_metadata(target) if target.exists() else {}
    except StoreError:
        return {}
    return former if isinstance(former.get("status"), str) and isinstance(former.get("scenes"), int) else {}


def require_no_smaller_area(target: UPath, job: ScanJob) -> None:
    """Raise ``LessComplete`` before a scan of a box that would replace one of the globe."""
    former = _former_metadata(target)
    if job.bbox is not None and former.get("status") in ("complete", "provisional") and former.get("bbox") is None:
        raise LessComplete(
            f"{job.label}: {target} holds a {former['status']} scan of the globe, of {former.get('scanned_at')}; a scan of {job.bbox} "
            "would contain less. Scan into another place (COVERAGE_DATA), or remove the file first"
        )


def require_no_less(target: UPath, report: ScanReport) -> None:
    """Raise ``LessComplete`` if a scan contains less than the file that it would replace."""
    former = _former_metadata(target)
    whole = former.get("status") in ("complete", "provisional")
    less = (
        (report.status == "partial" and (whole or (former.get("status") == "partial" and report.scenes < former["scenes"])))
        or (report.status == "provisional" and former.get("status") == "complete" and report.reason != "")
        or (bool(report.doubts) and whole and former.get("bbox") == report.bbox and report.scenes < former["scenes"])
        or (report.status == "not_applicable" and former.get("scenes", 0) > 0)
    )
    if less:
        raise LessComplete(
            f"{report.sensor} {report.start[:7]}: {target} holds a {former['status']} scan with {former['scenes']} scenes, of "
            f"{former.get('scanned_at')}; this one is {report.status} ({report.reason}) with {report.scenes}, and does not replace it. "
            "Remove the file first to replace it"
        )


def without_timeless(job: ScanJob, scanned: ScanResult) -> ScanResult:
    """Remove items without a time from the rejected rows: servers return them for every month, so the sensor lists them once."""
    if job.timeless is None:
        return scanned
    timeless = pc.equal(scanned.rejected["reason"], NO_TIME)
    kept = scanned.rejected.filter(pc.invert(timeless))
    scanned.report.timeless = scanned.rejected.num_rows - kept.num_rows
    scanned.report.rejected = by_reason(kept)
    return replace(scanned, rejected=kept)


def list_timeless(job: ScanJob, scanned: ScanResult) -> None:
    """Update the sensor's list of items without a time: a global scan replaces the rows of its provider, a scan of a box adds rows."""
    if job.timeless is None:
        return
    rows = scanned.rejected.filter(pc.equal(scanned.rejected["reason"], NO_TIME))
    if rows.num_rows == 0 and not job.timeless.exists():
        return
    with exclusive_scan(job.timeless):
        try:
            former = read_parquet(job.timeless)[0].replace_schema_metadata(None).cast(REJECTED_SCHEMA)
        except (StoreError, pa.ArrowInvalid, ValueError):  # no list yet, or an unreadable one
            former = REJECTED_SCHEMA.empty_table()
        if job.bbox is None:
            former = former.filter(pc.not_equal(former["provider"], scanned.report.provider))
        merged = first_of_each(pa.concat_tables([rows, former]), "item_id")
        write_parquet(job.timeless, merged, TimelessMetadata(sensor=scanned.report.sensor))


def publish_scan(target: UPath, scanned: ScanResult) -> None:
    """Write the scenes last, so that a reader who sees them also finds the rejected table and the report."""
    report = scanned.report
    scenes = as_geoparquet(along_the_curve(scanned.scenes))
    rejected = RejectedMetadata(sensor=report.sensor, start=report.start, run=report.run)
    write_together(
        [
            (sibling(target, ".rejected.parquet"), parquet_bytes(scanned.rejected, rejected)),
            (sibling(target, ".scan.json"), (json.dumps(report.as_json(), indent=1) + "\n").encode()),
            (target, parquet_bytes(scenes, {"version": SCENES_VERSION, **report.as_json()}, rows_a_group=ROWS_A_GROUP)),
        ]
    )
