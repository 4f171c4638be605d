"""Targets in a PostGIS table or view, in the database that the holdings settings name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import geopandas as gpd

from coverage_pipeline.demand.config import TargetsSettings
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.groups import SensorGroup
from coverage_pipeline.demand.target_file import MOST_TARGETS
from coverage_pipeline.holdings.config import DatabaseSettings
from coverage_pipeline.holdings.errors import HoldingsUnavailable
from coverage_pipeline.holdings.rows import HoldingsRefused
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store


class TargetsConfig(Protocol):
    """Settings that say where the targets are; ``PlannerSettings`` has them."""

    @property
    def targets(self) -> TargetsSettings:
        """``[targets]``."""
        ...

    @property
    def db(self) -> DatabaseSettings:
        """``COVERAGE_DB_*``."""
        ...

    def store(self) -> Store:
        """Where the saved targets are."""
        ...

    def registry(self) -> dict[str, CoverageSensor]:
        """Every sensor that can be named."""
        ...

    def groups(self) -> Mapping[str, SensorGroup]:
        """``[gap.groups]`` by name."""
        ...


@dataclass(frozen=True)
class TargetTable:
    """A table or view with one row a target: the columns of a file of targets, the outlines in any SRID."""

    db: DatabaseSettings
    table: str
    geom: str

    @property
    def name(self) -> str:
        """For reports; never holds a secret."""
        return f"table {self.table}"

    def read(self) -> gpd.GeoDataFrame:
        """Its rows in EPSG:4326; raises ``LocationsError`` for a database or table that cannot be read, is empty or too large."""
        from coverage_pipeline.holdings.sources.postgis import read_postgis_table  # clients of databases take long to import

        if self.db.url is None and self.db.host is None:
            raise LocationsError("targets.table is set, but neither COVERAGE_DB_URL nor COVERAGE_DB_HOST is")
        try:
            table = read_postgis_table(self.db, self.table, self.geom, most=MOST_TARGETS)
        except (HoldingsUnavailable, HoldingsRefused, ValueError) as error:
            words = str(error).replace("holdings table", "table of targets").replace("holdings database", "database")
            raise LocationsError(f"targets in {self.name} cannot be read: {words}; check targets.table and targets.geom") from None
        if not 0 < len(table) <= MOST_TARGETS:
            raise LocationsError(f"targets in {self.name}: {len(table):,} rows; give 1 to {MOST_TARGETS:,} areas")
        return table
