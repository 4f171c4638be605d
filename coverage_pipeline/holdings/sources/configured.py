"""The source of holdings that the settings name."""

from __future__ import annotations

from coverage_pipeline.holdings.config import HoldingsConfig, HoldingsSettings
from coverage_pipeline.holdings.errors import HoldingsNotConfigured
from coverage_pipeline.holdings.sources.base import HoldingsSource
from coverage_pipeline.holdings.sources.file import FileHoldings
from coverage_pipeline.holdings.sources.mapped import MappedHoldings
from coverage_pipeline.holdings.sources.postgis import PostgisHoldings


def holdings_source(settings: HoldingsConfig) -> HoldingsSource:
    """The source the settings name, its spellings mapped; raises ``HoldingsNotConfigured`` where they name none."""
    source = _source(settings)
    sensors, registry = settings.holdings.sensors, settings.registry()
    if not sensors:
        return source
    return MappedHoldings(source, {spelling: settings.holdings.held_name(registry[key]) or key for spelling, key in sensors.items()})


def _source(settings: HoldingsConfig) -> HoldingsSource:
    wanted: HoldingsSettings = settings.holdings
    has_db = settings.db.url is not None or settings.db.host is not None
    if wanted.source in ("auto", "file") and wanted.path:
        return FileHoldings(wanted.path, settings.tiles, wanted.filter, wanted.time_zone)
    if wanted.source in ("auto", "postgis") and has_db:
        return PostgisHoldings(settings.db, settings.tiles, wanted.filter, wanted.time_zone)
    missing = {
        "off": "holdings.source is off",
        "file": "holdings.source is file, but holdings.path (COVERAGE_HOLDINGS_PATH) is not set",
        "postgis": "holdings.source is postgis, but neither COVERAGE_DB_URL nor COVERAGE_DB_HOST is set",
        "auto": "no holdings are configured: set COVERAGE_HOLDINGS_PATH, or COVERAGE_DB_URL or COVERAGE_DB_HOST",
    }
    raise HoldingsNotConfigured(missing[wanted.source])
