"""The second pass over a finished window of months: doubts that depend on neighbouring months."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Sequence

from coverage_pipeline.catalog import belief
from coverage_pipeline.catalog.belief import Answer, Doubt
from coverage_pipeline.catalog.cross_check import ask_other_providers, neighbouring_months
from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.publishing import exclusive_scan, publish_scan
from coverage_pipeline.catalog.report import ScanReport, stored_report
from coverage_pipeline.catalog.scan import scan_month
from coverage_pipeline.catalog.scan_job import OnProgress, ScanJob, ScanResult
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import REJECTED_SCHEMA, SCENES_SCHEMA, SCENES_VERSION
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

log = logging.getLogger(__name__)


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
    return Answer(sensor, [month], area, report.scenes, days, read_at, neighbouring_months(sensor, [month], target, area))


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
    with exclusive_scan(target):
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
            job = ScanJob(sensor, [month], area, target, store.timeless(sensor.key), options, progress)
            source = next((s for s in sensor.available_sources if _is_report_of(report, s)), None)
            if source is None:
                return False  # of a catalogue that is no longer named: the next scan asks another
            stays, confirmed_by, words = ask_other_providers(job, source, [doubt], scenes)
            report.cross_check = "; ".join([*([report.cross_check] if report.cross_check else []), *words])
            kept += [str(one) for one in stays]
        settled = dt.datetime.fromisoformat(report.scanned_at) >= month.end + dt.timedelta(days=sensor.publication_lag_days)
        report.doubts, report.reason = kept, "; ".join(kept)
        report.status = "complete" if settled and not kept else "provisional"
        if confirmed_by is None:
            report.run = uuid.uuid4().hex  # what was made from the former status is to be made again
            publish_scan(target, ScanResult(scenes, rejected, report))
            return True
    try:
        scan_month(
            sensor, month, store, bbox=bbox, source_index=sensor.available_sources.index(confirmed_by), options=options, progress=progress
        )
    except CatalogError as error:
        log.warning("%s", error)
    with exclusive_scan(target):
        now = stored_report(sibling(target, ".scan.json"))
        if now is not None and now.run == judged.run:  # the other provider failed, or has less: the doubt stays
            report.run = uuid.uuid4().hex
            publish_scan(target, ScanResult(scenes, rejected, report))
    return True


def _is_report_of(report: ScanReport, source: AvailableSource) -> bool:
    return (report.endpoint, report.collection) == (source.public(source.endpoint), source.collection_id)
