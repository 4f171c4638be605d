"""The source of holdings that the settings name."""

from __future__ import annotations

from coverage_pipeline.holdings.config import HoldingsConfig, HoldingsSettings
from coverage_pipeline.holdings.errors import HoldingsNotConfigured
from coverage_pipeline.holdings.sources.base import HoldingsSource
from coverage_pipeline.holdings.sources.earlier import EarlierMonths
from coverage_pipeline.holdings.sources.file import FileHoldings
from coverage_pipeline.holdings.sources.ids import IdHoldings
from coverage_pipeline.holdings.sources.mapped import MappedHoldings
from coverage_pipeline.holdings.sources.postgis import PostgisHoldings
from coverage_pipeline.holdings.sources.stac import StacHoldings
from coverage_pipeline.storage.store import Store


def holdings_source(settings: HoldingsConfig, store: Store | None = None) -> HoldingsSource:
    """The source the settings name, its spellings mapped; raises ``HoldingsNotConfigured`` where they name none.

    ``store`` is where the sources ``stac`` and ``ids`` find the files of other months, and ``ids`` the catalogue's scenes.
    """
    source = _source(settings, store)
    sensors, registry = settings.holdings.sensors, settings.registry()
    if not sensors:
        return source
    return MappedHoldings(source, {spelling: settings.holdings.held_name(registry[key]) or key for spelling, key in sensors.items()})


def _source(settings: HoldingsConfig, store: Store | None) -> HoldingsSource:
    wanted: HoldingsSettings = settings.holdings
    if wanted.source in ("stac", "ids"):
        registry = settings.registry()
        names = {key: name for key, sensor in registry.items() if (name := wanted.held_name(sensor)) is not None}
        if wanted.source == "ids" and wanted.path:
            return IdHoldings(wanted.path, registry, names, store)
        if wanted.source == "stac" and wanted.stac is not None:
            earlier = None if store is None else EarlierMonths(store)
            return StacHoldings(wanted.stac, registry, names, settings.scan_options(), earlier)
    has_db = settings.db.url is not None or settings.db.host is not None
    if wanted.source in ("auto", "file") and wanted.path:
        return FileHoldings(wanted.path, settings.tiles, wanted.filter, wanted.time_zone)
    if wanted.source in ("auto", "postgis") and has_db:
        return PostgisHoldings(settings.db, settings.tiles, wanted.filter, wanted.time_zone)
    missing = {
        "off": "holdings.source is off",
        "stac": "holdings.source is stac, but [holdings.stac] is not set",
        "ids": "holdings.source is ids, but holdings.path (COVERAGE_HOLDINGS_PATH) is not set",
        "file": "holdings.source is file, but holdings.path (COVERAGE_HOLDINGS_PATH) is not set",
        "postgis": "holdings.source is postgis, but neither COVERAGE_DB_URL nor COVERAGE_DB_HOST is set",
        "auto": "no holdings are configured: set COVERAGE_HOLDINGS_PATH, or COVERAGE_DB_URL or COVERAGE_DB_HOST",
    }
    raise HoldingsNotConfigured(missing[wanted.source])
