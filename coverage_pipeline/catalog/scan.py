"""One sensor and window scanned into GeoParquet: all of it, or nothing and the former file stays."""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from upath import UPath

from coverage_pipeline.catalog.cmr import CmrSource
from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.scenes import REJECTED_SCHEMA, SCENES_SCHEMA, SceneCollector
from coverage_pipeline.catalog.stac import BBox, Patience, StacSource
from coverage_pipeline.geoparquet import as_geoparquet
from coverage_pipeline.grid import split_bbox
from coverage_pipeline.months import UTC, Month, window_months
from coverage_pipeline.sensors import AvailableSource, CoverageSensor, SensorError, SourceKind
from coverage_pipeline.store import Store, sibling, write_bytes, write_parquet

log = logging.getLogger(__name__)

SCENES_VERSION = 1
"""Version of the scenes file's columns and metadata."""

# A provider may put a scene's datatake start up to 27 minutes before the time it searches by (Earth Search, Sentinel-2).
_MARGIN = dt.timedelta(hours=1)

SOURCES: Mapping[SourceKind, type[StacSource] | type[CmrSource]] = {
    "stac": StacSource,
    "cmr": CmrSource,
    "earthaccess": CmrSource,  # the same archive: searching it takes no login, only downloading does
}

ScanStatus = Literal["complete", "provisional", "not_applicable"]
Progress = Callable[[int], None]


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
    """Why the window is not applicable, where it is."""
    requests: int = 0
    pages: int = 0
    bytes: int = 0
    announced: int | None = None
    received: int = 0
    scenes: int = 0
    duplicates: int = 0
    superseded: int = 0
    """Copies that a newer processing replaced."""
    united: int = 0
    """Parts united with another part of their scene."""
    outside: int = 0
    """Items of the hour around the window, and of neighbouring months by acquisition time."""
    other_platform: int = 0
    bbox_footprints: int = 0
    """Scenes whose only outline is a bounding box."""
    rejected: dict[str, int] = field(default_factory=dict)
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
        rejected = sum(self.rejected.values())
        return (
            f"{self.sensor} {self.start[:7]}: {self.scenes} scenes ({self.status}) from {self.provider}, {self.received} items in "
            f"{self.pages} pages, {self.superseded} superseded, {self.united} united, {rejected} rejected, {self.seconds:.1f} s"
        )


def build_availability_catalog(
    sensor: CoverageSensor,
    start: str | dt.date,
    end: str | dt.date,
    *,
    bbox: BBox | None = None,
    dest: Path | UPath | str,
    source_index: int | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> Path | UPath | None:
    """Scan the catalogue of one sensor over a window of whole months into GeoParquet 1.1 at ``dest``.

    ``bbox`` is (west, south, east, north) in degrees, west > east across the antimeridian; None scans the globe.
    ``source_index`` forces one of ``sensor.available_sources``; None asks them in order until one answers completely.
    The rejected table (``….rejected.parquet``) and the scan report (``….scan.json``) are written beside it.

    Returns ``dest``, or None for a sensor without a public catalogue. Raises ``CatalogError`` where no source gave all of its
    scenes: then nothing is written, and a former file stays.
    """
    if not sensor.available_sources:
        return None
    target = dest if isinstance(dest, UPath) else UPath(dest)
    _scan_into(
        sensor,
        window_months(start, end),
        target,
        bbox=bbox,
        source_index=source_index,
        patience=patience or Patience(),
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
    patience: Patience | None = None,
    progress: Progress | None = None,
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
        _publish(target, SCENES_SCHEMA.empty_table(), REJECTED_SCHEMA.empty_table(), report)
        return report
    return _scan_into(
        sensor,
        [month],
        target,
        bbox=bbox,
        source_index=source_index,
        patience=patience or Patience(),
        progress=progress,
    )


def _iso(instant: dt.datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _now() -> str:
    return _iso(dt.datetime.now(UTC))


def _scan_into(
    sensor: CoverageSensor,
    months: list[Month],
    target: UPath,
    *,
    bbox: BBox | None,
    source_index: int | None,
    patience: Patience,
    progress: Progress | None,
) -> ScanReport:
    sources = sensor.available_sources
    if source_index is not None:
        if not 0 <= source_index < len(sources):
            raise SensorError(f"{sensor.key} has sources 0..{len(sources) - 1}; there is no source {source_index}")
        sources = (sources[source_index],)
    if bbox is not None:
        split_bbox(bbox)  # refuses a box that is none
    failed: list[tuple[AvailableSource, CatalogError]] = []
    for source in sources:
        try:
            scenes, rejected, report = _scan(sensor, source, months, bbox, patience, progress)
        except CatalogError as error:
            failed.append((source, error))
            log.warning("%s", error)
            continue
        report.failed_providers = {f"{s.kind} {s.provider} {s.collection_id}": str(e) for s, e in failed}
        _publish(target, scenes, rejected, report)
        return report
    kept = ". The former file stays" if target.exists() else ""
    if len(failed) == 1:
        only = failed[0][1]
        raise type(only)(f"{only}{kept}") from only
    raise CatalogError(f"{_named(sensor, months)}: every source failed: " + " | ".join(str(e) for _, e in failed) + kept)


def _named(sensor: CoverageSensor, months: list[Month]) -> str:
    return f"{sensor.key} {months[0]}" + (f"..{months[-1]}" if len(months) > 1 else "")


def _scan(
    sensor: CoverageSensor,
    source: AvailableSource,
    months: list[Month],
    bbox: BBox | None,
    patience: Patience,
    progress: Progress | None,
) -> tuple[pa.Table, pa.Table, ScanReport]:
    start, end = months[0].start, months[-1].end
    what = _named(sensor, months)
    began = time.monotonic()
    now = dt.datetime.now(UTC)
    collector = SceneCollector(
        sensor,
        provider=source.provider,
        cloud_field=source.cloud_field,
        platforms=source.platforms,
        start=start,
        end=end,
    )
    api = SOURCES[source.kind](source, patience, what)
    for page in api.items(start - _MARGIN, end + _MARGIN, bbox):
        collector.add(page)
        if progress is not None:
            progress(collector.received)
    scenes = collector.finish()
    provisional = now < end + dt.timedelta(days=sensor.publication_lag_days)
    report = ScanReport(
        sensor=sensor.key,
        start=_iso(start),
        end=_iso(end),
        status="provisional" if provisional else "complete",
        scanned_at=_iso(now),
        bbox=list(bbox) if bbox is not None else None,
        provider=source.provider,
        endpoint=source.endpoint,
        collection=source.collection_id,
        requests=api.requests,
        pages=api.pages,
        bytes=api.bytes,
        announced=api.announced,
        received=collector.received,
        scenes=scenes.num_rows,
        duplicates=collector.duplicates,
        superseded=collector.superseded,
        united=collector.united,
        outside=collector.outside,
        other_platform=collector.other_platform,
        bbox_footprints=sum(v == "bbox" for v in scenes["geometry_source"].to_pylist()),
        rejected=collector.rejected_by_reason(),
        seconds=round(time.monotonic() - began, 3),
    )
    return scenes, collector.rejected(), report


def _publish(target: UPath, scenes: pa.Table, rejected: pa.Table, report: ScanReport) -> None:
    """Scenes last: whoever sees them finds their rejected table and report beside them."""
    write_parquet(sibling(target, ".rejected.parquet"), rejected, {"sensor": report.sensor, "start": report.start})
    write_bytes(sibling(target, ".scan.json"), (json.dumps(report.as_json(), indent=1) + "\n").encode())
    write_parquet(target, as_geoparquet(scenes), {"version": SCENES_VERSION, **report.as_json()})
