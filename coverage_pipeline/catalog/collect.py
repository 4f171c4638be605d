"""All items of one collection in a span of time, by the scanner with its guards, without a file: for archives of one's own."""

from __future__ import annotations

import contextlib
import datetime as dt
from tempfile import TemporaryDirectory

import pyarrow as pa
from upath import UPath

from coverage_pipeline.catalog.finished_windows import FinishedWindows
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.providers import profile_of
from coverage_pipeline.catalog.scan_job import SOURCES
from coverage_pipeline.catalog.windows import WindowScan
from coverage_pipeline.scenes.items import SceneCollector
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor


def collect_items(
    sensor: CoverageSensor, source: AvailableSource, start: dt.datetime, end: dt.datetime, options: ScanOptions, label: str
) -> tuple[pa.Table, pa.Table]:
    """Usable items (``ROWS_SCHEMA``, every copy a row) and rejected ones of a collection between two instants, UTC.

    ``label`` is said in errors. Raises ``CatalogError`` for anything but a whole answer: what is missing would look like nothing held.
    """
    profile = profile_of(source, options.providers)
    api = SOURCES[source.kind](source, profile, options.patience, label)

    def collector() -> SceneCollector:
        return SceneCollector(
            sensor, provider=source.provider, cloud_field=source.cloud_field, platforms=source.platforms, start=start, end=end,
            item_root=api.item_root,
        )  # fmt: skip

    with TemporaryDirectory() as folder, api.session or contextlib.nullcontext():
        scanned = WindowScan(
            source=api,
            label=f"{label}: {source.provider} ({source.collection_id})",
            profile=profile,
            start=start,
            end=end,
            bbox=None,
            collector=collector,
            parts=FinishedWindows.beside(UPath(folder) / "items.parquet", {}),
            lifetime=dt.timedelta(hours=options.resume_hours),
            window_pages=options.window_pages,
            on_progress=None,
            partial=False,
            cancel=api.session.cancel if api.session else lambda: None,
            retries=lambda: api.session.retried.total() if api.session else 0,
        ).run()
        if not any(part.received for part in scanned.parts):
            api.require_collection()
        return scanned.take_rows(), scanned.rejected
