"""Writing the result of a scan: the scenes, the rejected rows and the report, never over a file that says more."""

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


class SaysLess(CatalogError):
    """What was scanned says less than the file that it would replace."""


def _former(target: UPath) -> dict[str, Any]:
    """The metadata of the file at the target; empty where there is no file of scenes, or it cannot be read."""
    try:
        former = read_metadata(target) if target.exists() else {}
    except StoreError:
        return {}
    return former if isinstance(former.get("status"), str) and isinstance(former.get("scenes"), int) else {}


def require_no_smaller_area(target: UPath, job: ScanJob) -> None:
    """Refuse to put a box in the place of the globe, before anything is asked."""
    former = _former(target)
    if job.bbox is not None and former.get("status") in ("complete", "provisional") and former.get("bbox") is None:
        raise SaysLess(
            f"{job.label}: {target} holds a {former['status']} scan of the globe, of {former.get('scanned_at')}; one of {job.bbox} alone "
            "would say less. Scan it into another place (COVERAGE_DATA), or remove the file first"
        )


def require_no_less(target: UPath, report: ScanReport) -> None:
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
        raise SaysLess(
            f"{report.sensor} {report.start[:7]}: {target} holds a {former['status']} scan with {former['scenes']} scenes, of "
            f"{former.get('scanned_at')}; this one is {report.status} ({report.reason}) with {report.scenes}, and does not replace it. "
            "Remove the file first if it should"
        )


def without_timeless(job: ScanJob, scanned: ScanResult) -> ScanResult:
    """Items without any time belong to no month, and servers give them for every one: they are listed once for the sensor."""
    if job.timeless is None:
        return scanned
    timeless = pc.equal(scanned.rejected["reason"], NO_TIME)
    kept = scanned.rejected.filter(pc.invert(timeless))
    scanned.report.timeless = scanned.rejected.num_rows - kept.num_rows
    scanned.report.rejected = by_reason(kept)
    return replace(scanned, rejected=kept)


def list_timeless(job: ScanJob, scanned: ScanResult) -> None:
    """Bring the sensor's list of items without any time up to date: a scan of the globe replaces its provider's, one of a box adds."""
    if job.timeless is None:
        return
    rows = scanned.rejected.filter(pc.equal(scanned.rejected["reason"], NO_TIME))
    if rows.num_rows == 0 and not job.timeless.exists():
        return
    with exclusive_scan(job.timeless):
        try:
            former = read_parquet(job.timeless)[0].replace_schema_metadata(None).cast(REJECTED_SCHEMA)
        except (StoreError, pa.ArrowInvalid, ValueError):  # there is none yet, or none that can be read
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
