"""What the rooms ask beyond the cube: settings, targets, places, backlog and requests, read once or kept for all who look.

The page is shown without any of it: where the settings or the files are not there, a room says so and the map stays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import geopandas as gpd
import shapely

from coverage_dashboards.fields import FieldCache
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.groups import SensorGroup
from coverage_pipeline.demand.place import PlaceReport, place
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.demand.targets import load_targets
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.months import Month
from coverage_pipeline.requests.backlog_query import BacklogAnswer, BacklogQuery, backlog_of
from coverage_pipeline.requests.database import RequestDatabase
from coverage_pipeline.requests.store import RequestStore
from coverage_pipeline.sensors.registry import CoverageSensor, SensorError
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.storage.store import Store

_NO_TARGETS = Targets(gpd.GeoDataFrame({"id": []}, geometry=[], crs="EPSG:4326"), "")
_OVERLAY_BYTES = 256 << 20
"""Bytes of outlines over the map; a month of Sentinel-2 has some 30 MB."""
_KEPT = 64
"""Answers of one kind; a place over a year has some hundred kilobytes."""


@dataclass(frozen=True)
class _Kept:
    """An answer, each as large as any other."""

    value: Any
    nbytes: int = 1


class Answers:
    """The latest answers of one kind: each made once, however many ask for it at the same time."""

    def __init__(self, most: int = _KEPT) -> None:
        self._cache = FieldCache(most)

    def get[T](self, key: Hashable, make: Callable[[], T]) -> T:
        """The answer of that key, made where it is not there; a failure is raised and not kept."""
        return cast(T, self._cache.get(key, lambda: _Kept(make())).value)


@dataclass(frozen=True)
class Planning:
    """The settings that the server was started with, and what they lead to."""

    settings: PlannerSettings
    store: Store
    registry: dict[str, CoverageSensor]
    requests: RequestStore
    places: Answers
    backlogs: Answers
    overlays: FieldCache
    """Outlines that lie over the map."""

    def sensors(self, keys: Sequence[str]) -> list[CoverageSensor]:
        """Sensors by key; raises ``SensorError`` where the settings lack one that the cube has."""
        if missing := [key for key in keys if key not in self.registry]:
            raise SensorError(
                f"the cube has {', '.join(missing)}, which the settings do not name: start the server with the settings the cube was "
                "built with (COVERAGE_CONFIG), or declare the sensor ([sensors.declared])"
            )
        return [self.registry[key] for key in keys]

    def groups(self, sensors: Sequence[str]) -> list[SensorGroup]:
        """Groups of sensors all of whose members are among these."""
        groups = self.settings.groups().values()
        return [group for group in groups if all(member.key in sensors for member in group.members)]

    def targets(self) -> Targets | None:
        """The targets of the newest build; None where it had none. Raises ``StoreError``."""
        return load_targets(self.store) if self.store.targets.exists() else None

    def place(
        self, outline: shapely.Geometry, sensors: Sequence[str], first: Month, last: Month, stamp: str, *, target: str = ""
    ) -> PlaceReport:
        """What there is of a place; ``stamp`` changes with every build. A ``target`` (its id) is judged as one: by its own cadence, season
        and share to be covered. Raises ``PlannerError``.
        """
        desired = self.settings.desired()
        grouped = {member.key for group in self.settings.groups().values() for member in group.members}

        def ask() -> PlaceReport:
            return place(
                self._target(target) if target else outline,
                first.start.date(),
                last.start.date(),
                self.sensors(sensors),
                store=self.store,
                desired={sensor: desired.for_sensor(sensor, self.registry) for sensor in sensors},
                cloud_lt=self.settings.cloud_lt,
                in_group=grouped,
            )

        return self.places.get((target, shapely.to_wkb(outline), tuple(sensors), first, last, stamp), ask)

    def _target(self, key: str) -> Targets:
        """One target alone; raises ``LocationsError`` where it is none any more."""
        targets = self.targets() or _NO_TARGETS
        one = targets.table[targets.table["id"] == key]
        if not len(one):
            raise LocationsError(f"there is no target {key} any more: choose another in the room of the targets")
        return Targets(one, targets.digest, targets.source)

    def backlog(self, sensors: Sequence[str], months: Sequence[Month], box: BBox | None, ids: Sequence[str], stamp: str) -> BacklogAnswer:
        """The scenes worth getting for all targets, or some, or for those within a box."""
        key = (tuple(sensors), tuple(months), box, tuple(ids), stamp)

        def ask() -> BacklogAnswer:
            query = BacklogQuery(self.sensors(sensors), months, self.groups(sensors), ids, (), box)
            return backlog_of(
                query,
                self.store,
                self.targets() or _NO_TARGETS,
                self.settings.grid_spec(),
                cloud_lt=self.settings.cloud_lt,
                desired=self.settings.desired(),
                registry=self.registry,
                downloads=self.settings.sensors.download_overrides(),
            )

        return self.backlogs.get(key, ask)


@cache
def planning() -> Planning:
    """The one of this process; raises ``SettingsError`` where the settings are wrong."""
    settings = load_settings(holdings=False)
    requests = RequestStore(RequestDatabase(settings.request_database()))
    return Planning(settings, settings.store(), settings.registry(), requests, Answers(), Answers(), FieldCache(_OVERLAY_BYTES))
