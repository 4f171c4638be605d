"""Available: from a provider's answer to one row a scene, and from there to cells."""

from coverage_pipeline.catalog.errors import (
    CatalogDisagreement,
    CatalogError,
    CatalogTruncated,
    CatalogUnavailable,
    CatalogUnreadable,
)
from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.catalog.scan import build_availability_catalog, scan_month
from coverage_pipeline.catalog.settling import settle_doubts
from coverage_pipeline.scenes.items import scenes_from_items
from coverage_pipeline.scenes.schema import SCENES_SCHEMA
from coverage_pipeline.scenes.statistics import availability_stats, availability_table

__all__ = [
    "SCENES_SCHEMA",
    "CatalogDisagreement",
    "CatalogError",
    "CatalogTruncated",
    "CatalogUnavailable",
    "CatalogUnreadable",
    "ScanReport",
    "availability_stats",
    "availability_table",
    "build_availability_catalog",
    "scan_month",
    "scenes_from_items",
    "settle_doubts",
]
