"""A scan of one sensor and window: its query, options, sources and result."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
import shapely
from upath import UPath

from coverage_pipeline.catalog.errors import CatalogError, CatalogUnavailable
from coverage_pipeline.catalog.finished_windows import FinishedWindows
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile, profile_of
from coverage_pipeline.catalog.report import ScanReport, iso_utc
from coverage_pipeline.catalog.sources.base import Source, Window
from coverage_pipeline.catalog.sources.cmr import CmrSource
from coverage_pipeline.catalog.sources.geoparquet import GeoParquetSource
from coverage_pipeline.catalog.sources.stac import StacSource
from coverage_pipeline.catalog.sources.static import StaticSource
from coverage_pipeline.catalog.windows import Progress
from coverage_pipeline.geometry.bbox import BBox, split_bbox
from coverage_pipeline.months import NEIGHBOUR_MARGIN, Month
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor, SourceKind

SOURCES: Mapping[SourceKind, Callable[[AvailableSource, ProviderProfile, Patience, str], Source]] = {
    "stac": StacSource,
    "cmr": CmrSource,
    "earthaccess": CmrSource,  # the same archive: only downloads require a login
    "geoparquet": GeoParquetSource,
    "static": StaticSource,
}
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class ScanJob:
    """Sensor, months and area to scan, independent of the source."""

    sensor: CoverageSensor
    months: list[Month]
    bbox: BBox | None
    target: UPath
    timeless: UPath | None
    """File that lists the sensor's items without a time; None: with the other rejected items."""
    options: ScanOptions
    progress: OnProgress | None

    @property
    def start(self) -> dt.datetime:
        return self.months[0].start

    @property
    def end(self) -> dt.datetime:
        return self.months[-1].end

    @property
    def label(self) -> str:
        return f"{self.sensor.key} {self.months[0]}" + (f"..{self.months[-1]}" if len(self.months) > 1 else "")

    def within(self, source: AvailableSource) -> ScanJob:
        """The job limited to the region that the source covers; raises ``CatalogUnavailable`` if ``bbox`` exceeds it."""
        if source.covers is None:
            return self
        if self.bbox is None:
            return replace(self, bbox=source.covers)
        covered = [shapely.box(*box) for box in split_bbox(source.covers)]
        if not shapely.union_all(covered).covers(shapely.union_all([shapely.box(*box) for box in split_bbox(self.bbox)])):
            raise CatalogUnavailable(
                f"{self.label}: {source.provider} ({source.collection_id}) covers only {source.covers}, not {self.bbox}; "
                f"scan a smaller area, or name another source in [[sensors.sources.{self.sensor.key}]]"
            )
        return self

    def window(self, limit: int) -> Window:
        """The window to search, with a margin of ``NEIGHBOUR_MARGIN`` on each side.

        The datatake start may be up to 27 minutes before the time that the provider searches by (Earth Search, Sentinel-2).
        """
        return Window(self.start - NEIGHBOUR_MARGIN, self.end + NEIGHBOUR_MARGIN, limit)

    def parts(self, source: AvailableSource) -> FinishedWindows:
        """Folder of the finished windows. The query contains every setting that changes rows, so that none are reused wrongly."""
        source_fields = {k: v for k, v in asdict(source).items() if k != "page_size"}
        sensor = {"key": self.sensor.key, "family": self.sensor.family, "max_scene_km2": self.sensor.max_scene_km2}
        query = {"source": source_fields, "sensor": sensor, "start": iso_utc(self.start), "end": iso_utc(self.end), "bbox": self.bbox}
        return FinishedWindows.beside(self.target, query)

    def open(self, source: AvailableSource) -> Source:
        return SOURCES[source.kind](source, profile_of(source, self.options.providers), self.options.patience, self.label)


@dataclass(frozen=True)
class ScanResult:
    """Result of a scan at one source, complete or partial."""

    scenes: pa.Table
    rejected: pa.Table
    report: ScanReport
    error: CatalogError | None = None
    """The first error of a partial scan."""
    confirmed_by: AvailableSource | None = None
    """Source with a scene that this result lacks: the month is scanned again from that source."""
