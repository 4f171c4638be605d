"""Second pass over scanned months: doubts that depend on neighbouring months."""

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
    """Check again whether scanned months are empty or too small, after their neighbouring months were scanned.

    The month scanned first had no neighbours to compare with. All months are checked before any file changes, so that their order does
    not matter. A new doubt is checked with other providers, and a doubt that no longer holds is removed. Returns the months whose files
    changed: files derived from them must be rebuilt.
    """
    options = options or ScanOptions()
    judged: list[tuple[Month, ScanReport, Doubt | None]] = []
    for month in months:
        report = stored_report(sibling(store.scenes(sensor.key, month), ".scan.json"))
        if report is not None and _is_settleable(report):
            judged.append((month, report, belief.too_few(_stored_answer(sensor, month, store, report))))
    changed = []
    for month, report, doubt in judged:
        stored_kinds = [kind for text in report.doubts if (kind := belief.kind_of(text)) in belief.AROUND_KINDS]
        # Other providers are not asked again about a doubt that they refuted.
        if (doubt is None and not stored_kinds) or (doubt is not None and (stored_kinds or f"{doubt.kind}:" in report.cross_check)):
            continue
        if _settle(sensor, month, store, report, doubt, bbox, options, progress):
            changed.append(month)
    return changed


def _is_settleable(report: ScanReport) -> bool:
    """Whether neighbouring months may change the status: complete, or provisional only for its doubts."""
    return report.status == "complete" or (
        report.status == "provisional" and report.doubts != [] and report.reason == "; ".join(report.doubts)
    )


def _stored_answer(sensor: CoverageSensor, month: Month, store: Store, report: ScanReport) -> Answer:
    """A stored scan, as the comparison with neighbouring months needs it."""
    target = store.scenes(sensor.key, month)
    area = None if report.bbox is None else (report.bbox[0], report.bbox[1], report.bbox[2], report.bbox[3])
    days = belief.distinct_days(belief.scene_days(read_parquet(target)[0])) if report.scenes else []
    read_at = dt.datetime.fromisoformat(report.scanned_at)
    return Answer(sensor, [month], area, report.scenes, days, read_at, neighbouring_months(sensor, [month], target, area))


def _settle(
    sensor: CoverageSensor,
    month: Month,
    store: Store,
    former: ScanReport,
    doubt: Doubt | None,
    bbox: BBox | None,
    options: ScanOptions,
    progress: OnProgress | None,
) -> bool:
    """Update the status of one month; returns whether its file changed."""
    target = store.scenes(sensor.key, month)
    area = None if former.bbox is None else (former.bbox[0], former.bbox[1], former.bbox[2], former.bbox[3])
    with exclusive_scan(target):
        report = stored_report(sibling(target, ".scan.json"))
        if report is None or report.run != former.run:
            return False  # another scan has replaced it meanwhile
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
                return False  # its catalogue is no longer configured: the next scan uses another
            remaining, confirmed_by, answers = ask_other_providers(job, source, [doubt], scenes)
            report.cross_check = "; ".join([*([report.cross_check] if report.cross_check else []), *answers])
            kept += [str(remaining_doubt) for remaining_doubt in remaining]
        settled = dt.datetime.fromisoformat(report.scanned_at) >= month.end + dt.timedelta(days=sensor.publication_lag_days)
        report.doubts, report.reason = kept, "; ".join(kept)
        report.status = "complete" if settled and not kept else "provisional"
        if confirmed_by is None:
            report.run = uuid.uuid4().hex  # marks files derived from the former status as outdated
            publish_scan(target, ScanResult(scenes, rejected, report))
            return True
    try:
        scan_month(
            sensor, month, store, bbox=bbox, source_index=sensor.available_sources.index(confirmed_by), options=options, progress=progress
        )
    except CatalogError as error:
        log.warning("%s", error)
    with exclusive_scan(target):
        stored = stored_report(sibling(target, ".scan.json"))
        if stored is not None and stored.run == former.run:  # the other provider failed, or has fewer scenes: the doubt remains
            report.run = uuid.uuid4().hex
            publish_scan(target, ScanResult(scenes, rejected, report))
    return True


def _is_report_of(report: ScanReport, source: AvailableSource) -> bool:
    return (report.endpoint, report.collection) == (source.public(source.endpoint), source.collection_id)
