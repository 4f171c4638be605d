"""The sensors we plan for: where their scenes are listed, what they can reach and who may point them.

Every fact about a mission carries the page it was taken from (``CoverageSensor.sources``). More sensors, or other catalogues
for these, are declared in ``config/build.toml`` (see ``sensors.config.SensorSettings``); nothing here needs an edit for that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import MappingProxyType
from typing import Literal, get_args
from urllib.parse import urlsplit

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month
from coverage_pipeline.redaction import has_login, host_of, redact

SourceKind = Literal["stac", "cmr", "earthaccess", "geoparquet", "static"]
ApiKind = Literal["stac", "cmr", "earthaccess"]
"""Kinds that are asked over HTTP."""
SceneFamily = Literal["sentinel-2", "landsat", "emit", "enmap", "other"]
CloudMeaning = Literal["percentage", "not_applicable"]

_KEY = re.compile(r"[a-z0-9][a-z0-9-]*")
_LONGEST_KEY = 64
"""Letters of a sensor key: it is part of file names, which may have 255, and of partition keys."""


class SensorError(PlannerError, ValueError):
    """A sensor or one of its catalogues is declared in a way that cannot be used."""

    exit_code = 2


def is_sensor_key(text: str) -> bool:
    """Whether a text can be the key of a sensor, or of a group of them."""
    return _KEY.fullmatch(text) is not None and len(text) <= _LONGEST_KEY


_SEPARATORS = re.compile(r"[\s_-]+")
_SHORT_NAMES = ((re.compile(r"s(\d[a-z])"), "sentinel"), (re.compile(r"(?:l[a-z]?|landsat)0*(\d{1,2})"), "landsat"))
_SATELLITE = re.compile(r"landsat\d{1,2}|sentinel\d[a-z]")


def platform_name(text: str) -> str:
    """A satellite's name in one spelling: ``landsat8`` for landsat-8, LANDSAT_8, "Landsat 8" and LC08, ``sentinel2a`` for S2A."""
    name = _SEPARATORS.sub("", text).lower()
    for short, family in _SHORT_NAMES:
        if match := short.fullmatch(name):
            return family + match[1]
    return name


def is_satellite_name(name: str) -> bool:
    """Whether a ``platform_name`` is that of one satellite of a family whose ids state the satellite too."""
    return _SATELLITE.fullmatch(name) is not None


@dataclass(frozen=True)
class AvailableSource:
    """One public catalogue that lists a sensor's scenes."""

    kind: SourceKind
    """How it is asked: a STAC API, NASA's CMR, CMR through an Earthdata login, a stac-geoparquet dump, or a static STAC catalogue."""
    endpoint: str
    """Root of the API, http or https. Of a dump or a static catalogue: a path, or an address that universal-pathlib opens."""
    collection_id: str
    cloud_field: str | None = None
    """Property that holds the scene's cloud percentage; None: STAC's ``eo:cloud_cover`` where an item has it."""
    version: str | None = None
    """Collection version, where the catalogue keeps several under one short name (CMR)."""
    platforms: tuple[str, ...] = ()
    """STAC ``platform`` values that belong to the sensor, in any spelling (``platform_name``); empty: all of the collection."""
    page_size: int | None = None
    """Items asked for a page; None: what suits the provider (``catalog.providers``)."""
    covers: tuple[float, float, float, float] | None = None
    """West, south, east, north of the place whose scenes it lists, degrees; None: the globe. A regional dump says nothing of elsewhere."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(SourceKind):
            raise SensorError(f"unknown source kind {self.kind!r}: use one of {', '.join(get_args(SourceKind))}")
        parts = urlsplit(self.endpoint)
        if not self.endpoint:
            raise SensorError(f"no endpoint for {self.collection_id}")
        if self.kind in get_args(ApiKind) and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise SensorError(f"bad endpoint {self.endpoint!r}: give the http(s) address of the API's landing page")
        if has_login(self.endpoint):
            raise SensorError(f"bad endpoint at {host_of(self.endpoint)!r}: credentials do not belong in an address")
        if not self.collection_id:
            raise SensorError(f"no collection_id for {self.endpoint}")
        if self.covers is not None:
            west, south, east, north = self.covers
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
                raise SensorError(f"covers {self.covers} for {self.endpoint} must be (west, south, east, north) within ±180 and ±90")
        if self.page_size is not None and not 1 <= self.page_size <= 10_000:
            raise SensorError(f"page_size {self.page_size} for {self.endpoint} must be 1..10000")
        object.__setattr__(self, "platforms", tuple(p.lower() for p in self.platforms))

    @property
    def provider(self) -> str:
        """Who answers, as reports and the cube name it: the host or bucket, else the name of the file or folder."""
        return urlsplit(self.endpoint).netloc or PurePath(self.endpoint).name

    def public(self, text: str) -> str:
        """A text without the secrets of the endpoint: what follows its ``?`` may be a key."""
        return redact(text, self.endpoint)


@dataclass(frozen=True)
class CoverageSensor:
    """One sensor, or a family flown as one, that coverage is planned for."""

    key: str
    """Our stable key, for example ``emit``: part of partition keys and file names, never renamed."""
    available_sources: tuple[AvailableSource, ...]
    """Catalogues, primary first; empty where none is public."""
    held_satellite: str | None
    """Value of the holdings' sensor column; None where we hold nothing of it."""
    nominal_revisit_days: float
    default_desired_per_month: float
    """Clear observations a month that a planner wants by default."""
    taskable: bool = False
    """Whether the sensor can be pointed at a target on request. Downloading an existing scene is another matter."""
    title: str = ""
    family: SceneFamily = "other"
    """Which rule makes the scene key (``scenes.scene_key``)."""
    cloud: CloudMeaning = "percentage"
    """``not_applicable`` for a sensor that sees through cloud: then every scene is clear."""
    reach: tuple[float, float] = (-90.0, 90.0)
    """Southern and northern latitude it can image, degrees."""
    max_scene_km2: float | None = None
    """Largest footprint a scene of it can have, km²; a larger one is rejected. None: anything goes."""
    first_month: Month | None = None
    """First month with scenes; earlier ones are not applicable."""
    last_month: Month | None = None
    """Last month with scenes; None while it flies."""
    publication_lag_days: int = 0
    """Days after a month's end until its catalogue may be called complete."""
    former_revisits: tuple[tuple[Month, float], ...] = ()
    """Revisits of earlier months, in order: the last month of each period, and days. Later months have ``nominal_revisit_days``."""
    swath_km: float | None = None
    """Width of what one pass images, km; a target wider than it is too large for the sensor. None: not known."""
    min_sun: float | None = None
    """Least elevation of the sun at which scenes are made, degrees; None: it is not limited by the sun, or the limit is not known."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Page that each fact above was taken from, by field name."""

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise SensorError(f"sensor key {self.key!r} must be lower-case letters, digits and hyphens")
        if len(self.key) > _LONGEST_KEY:
            raise SensorError(
                f"sensor key {self.key[:20]!r}… has {len(self.key)} letters; file names carry it, so it may have {_LONGEST_KEY} at most"
            )
        south, north = self.reach
        if not -90 <= south < north <= 90:
            raise SensorError(f"sensor {self.key}: reach {self.reach} must be (south, north) within -90..90")
        if self.first_month and self.last_month and self.last_month < self.first_month:
            raise SensorError(f"sensor {self.key}: last_month {self.last_month} is before first_month {self.first_month}")
        if not 0 < self.nominal_revisit_days < math.inf or not 0 <= self.default_desired_per_month < math.inf:
            raise SensorError(f"sensor {self.key}: nominal_revisit_days must be > 0 and default_desired_per_month >= 0, both finite")
        until = [month for month, _ in self.former_revisits]
        if until != sorted(set(until)) or not all(days > 0 for _, days in self.former_revisits):
            raise SensorError(f"sensor {self.key}: former_revisits must name later months one after the other, and days > 0")
        if self.swath_km is not None and not 0 < self.swath_km < math.inf:
            raise SensorError(f"sensor {self.key}: swath_km {self.swath_km} must be > 0, or left out where it is not known")
        if self.min_sun is not None and not -90 <= self.min_sun <= 90:
            raise SensorError(f"sensor {self.key}: min_sun {self.min_sun} must be an elevation, -90..90 degrees")
        if self.max_scene_km2 is not None and not self.max_scene_km2 > 0:
            raise SensorError(f"sensor {self.key}: max_scene_km2 {self.max_scene_km2} must be > 0, or left out where anything goes")
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))

    @property
    def systematic(self) -> bool:
        """Whether it images whatever it passes, so that days without any scene are remarkable. A sensor that is pointed does not."""
        return not self.taskable

    def revisit_in(self, month: Month) -> float:
        """Days between two passes over one place, as the satellites of that month flew."""
        return next((days for until, days in self.former_revisits if month <= until), self.nominal_revisit_days)

    def flies_in(self, month: Month) -> bool:
        """Whether the mission delivers scenes in that month."""
        return (self.first_month is None or month >= self.first_month) and (self.last_month is None or month <= self.last_month)

    def layers(self) -> tuple[str, ...]:
        """The dashboard layers that make sense: no ``available`` without a catalogue, no ``acquired`` without holdings."""
        return tuple(
            layer
            for layer, is_shown in (
                ("available", bool(self.available_sources)),
                ("acquired", self.held_satellite is not None),
                ("gap", True),
            )
            if is_shown
        )


def registry(sensors: Iterable[CoverageSensor]) -> dict[str, CoverageSensor]:
    """Sensors by key; raises ``SensorError`` where a key comes twice."""
    by_key: dict[str, CoverageSensor] = {}
    for sensor in sensors:
        if sensor.key in by_key:
            raise SensorError(f"sensor {sensor.key!r} is declared twice; keys must be unique")
        by_key[sensor.key] = sensor
    return by_key


def resolve_sensors(keys: Iterable[str], known: Mapping[str, CoverageSensor]) -> list[CoverageSensor]:
    """The sensors of those keys, in that order; raises ``SensorError`` for an unknown or repeated key."""
    chosen: dict[str, CoverageSensor] = {}
    for key in keys:
        if key not in known:
            raise SensorError(f"unknown sensor {key!r}: known are {', '.join(sorted(known))}; more can be declared in build.toml")
        if key in chosen:
            raise SensorError(f"sensor {key!r} is listed twice")
        chosen[key] = known[key]
    return list(chosen.values())


_PC = "https://planetarycomputer.microsoft.com/api/stac/v1"
_EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
_CDSE = "https://stac.dataspace.copernicus.eu/v1"
_CMR = "https://cmr.earthdata.nasa.gov"
_DLR = "https://geoservice.dlr.de/eoc/ogc/stac/v1/"

COVERAGE_SENSORS: Mapping[str, CoverageSensor] = MappingProxyType(
    registry(
        [
            CoverageSensor(
                key="emit",
                title="EMIT (ISS)",
                available_sources=(
                    AvailableSource("cmr", _CMR, "EMITL2ARFL", version="001"),
                    AvailableSource("earthaccess", _CMR, "EMITL2ARFL", version="001"),
                ),
                held_satellite="EMIT",
                nominal_revisit_days=4,
                default_desired_per_month=2,
                taskable=True,
                family="emit",
                reach=(-52.0, 52.0),
                max_scene_km2=40_000,  # 75 km × 75 km, and 150 km long at the end of an orbit segment; up to 12,400 recorded
                swath_km=75.0,
                first_month=Month(2022, 8),
                publication_lag_days=10,
                sources={
                    "available_sources": "https://lpdaac.usgs.gov/products/emitl2arflv001/",
                    # The station's orbit is not controlled for repeat; ECOSTRESS on the same deck sees a place every 3-5 days.
                    "nominal_revisit_days": "https://ecostress.jpl.nasa.gov/mission",
                    "taskable": "https://earth.jpl.nasa.gov/emit/data/data-portal/coverage-and-forecasts/",
                    "reach": "https://lpdaac.usgs.gov/products/emitl1bradv001/",
                    "swath_km": "https://lpdaac.usgs.gov/products/emitl2arflv001/",
                    "max_scene_km2": "https://lpdaac.usgs.gov/products/emitl2arflv001/",
                    "first_month": "https://lpdaac.usgs.gov/products/emitl2arflv001/",
                    "cloud": "https://lpdaac.usgs.gov/products/emitl2arflv001/",
                },
            ),
            CoverageSensor(
                key="enmap",
                title="EnMAP",
                available_sources=(AvailableSource("stac", _DLR, "ENMAP_HSI_L2A", "eo:cloud_cover"),),
                held_satellite="EnMAP",
                nominal_revisit_days=27,  # near nadir (±5°); 4 days with ±30° tilt
                default_desired_per_month=2,
                taskable=True,
                family="enmap",
                reach=(-80.0, 80.0),
                max_scene_km2=90_000,  # tiles of 30 km × 30 km (up to 1,200 recorded), cut from data takes of at most 30 km × 1,000 km
                swath_km=30.0,
                first_month=Month(2022, 4),
                publication_lag_days=10,
                sources={
                    "available_sources": "https://geoservice.dlr.de/eoc/ogc/stac/v1/collections/ENMAP_HSI_L2A",
                    "nominal_revisit_days": "https://www.enmap.org/mission/",
                    "taskable": "https://www.enmap.org/data_access/",
                    "reach": "https://www.enmap.org/mission/",
                    "swath_km": "https://www.enmap.org/mission/",
                    "max_scene_km2": "https://www.enmap.org/mission/",
                    "first_month": "https://geoservice.dlr.de/eoc/ogc/stac/v1/collections/ENMAP_HSI_L2A",
                    "cloud": "https://geoservice.dlr.de/eoc/ogc/stac/v1/collections/ENMAP_HSI_L2A",
                },
            ),
            CoverageSensor(
                key="prisma",
                title="PRISMA",
                available_sources=(),  # no public catalogue: scenes come from ASI on request
                held_satellite="PRISMA",
                nominal_revisit_days=29,  # orbit repeat; under 7 days with roll
                default_desired_per_month=2,
                taskable=True,
                reach=(-70.0, 70.0),
                max_scene_km2=25_000,  # 30 km × 30 km, or strips of up to 30 km × 240 km
                swath_km=30.0,
                first_month=Month(2019, 5),
                sources={
                    "available_sources": "https://prisma.asi.it/",
                    "nominal_revisit_days": "https://www.eoportal.org/satellite-missions/prisma-hyperspectral",
                    "taskable": "https://prisma.asi.it/",
                    "reach": "https://doi.org/10.1109/IGARSS.2016.7729033",
                    "swath_km": "https://www.eoportal.org/satellite-missions/prisma-hyperspectral",
                    "max_scene_km2": "https://www.eoportal.org/satellite-missions/prisma-hyperspectral",
                    "first_month": "https://www.eoportal.org/satellite-missions/prisma-hyperspectral",
                    "cloud": "https://prisma.asi.it/",
                },
            ),
            CoverageSensor(
                key="landsat-8-9",
                title="Landsat 8/9",
                available_sources=(
                    AvailableSource("stac", _PC, "landsat-c2-l2", "eo:cloud_cover", platforms=("landsat-8", "landsat-9")),
                    AvailableSource("stac", _EARTH_SEARCH, "landsat-c2-l2", "eo:cloud_cover", platforms=("landsat-8", "landsat-9")),
                ),
                held_satellite="Landsat",
                nominal_revisit_days=8,  # 16 days each, 8 days apart
                former_revisits=((Month(2021, 10), 16),),  # Landsat 9 delivers from 31 October 2021 on
                min_sun=14.0,  # Level 2 needs a sun zenith below 76°
                default_desired_per_month=3,
                taskable=False,
                family="landsat",
                reach=(-82.7, 82.7),
                max_scene_km2=100_000,  # 185 km × 180 km; up to 40,300 recorded, and their bounding boxes up to 64,600
                swath_km=185.0,
                first_month=Month(2013, 3),
                publication_lag_days=16,
                sources={
                    "available_sources": "https://planetarycomputer.microsoft.com/dataset/landsat-c2-l2",
                    "nominal_revisit_days": "https://www.usgs.gov/landsat-missions/landsat-9",
                    "former_revisits": "https://www.usgs.gov/landsat-missions/landsat-9",
                    "min_sun": "https://www.usgs.gov/landsat-missions/landsat-collection-2-surface-reflectance",
                    "taskable": "https://www.usgs.gov/landsat-missions/landsat-acquisitions",
                    "reach": "https://landsat.gsfc.nasa.gov/about/the-worldwide-reference-system/",
                    "swath_km": "https://www.usgs.gov/landsat-missions/landsat-9",
                    "max_scene_km2": "https://www.usgs.gov/landsat-missions/landsat-9",
                    "first_month": "https://www.usgs.gov/landsat-missions/landsat-8",
                    "cloud": "https://planetarycomputer.microsoft.com/dataset/landsat-c2-l2",
                },
            ),
            CoverageSensor(
                key="sentinel-2",
                title="Sentinel-2",
                available_sources=(
                    AvailableSource("stac", _PC, "sentinel-2-l2a", "eo:cloud_cover"),
                    AvailableSource("stac", _EARTH_SEARCH, "sentinel-2-l2a", "eo:cloud_cover"),
                    AvailableSource("stac", _CDSE, "sentinel-2-l2a", "eo:cloud_cover"),
                ),
                held_satellite=None,
                nominal_revisit_days=5,
                former_revisits=((Month(2017, 6), 10),),  # Sentinel-2A alone; Sentinel-2B delivers from July 2017 on
                min_sun=8.0,  # sun zenith up to 82°
                default_desired_per_month=6,
                taskable=False,
                family="sentinel-2",
                reach=(-56.0, 84.0),
                max_scene_km2=36_000,  # tiles of 110 km × 110 km; up to 12,100 recorded, and their bounding boxes up to 15,400
                swath_km=290.0,
                first_month=Month(2015, 6),
                publication_lag_days=4,
                sources={
                    "available_sources": "https://stac.dataspace.copernicus.eu/v1/collections/sentinel-2-l2a",
                    "nominal_revisit_days": "https://sentiwiki.copernicus.eu/web/s2-mission",
                    "former_revisits": "https://sentiwiki.copernicus.eu/web/s2-mission",
                    "min_sun": "https://sentiwiki.copernicus.eu/web/s2-mission",
                    "taskable": "https://sentiwiki.copernicus.eu/web/s2-mission",
                    "reach": "https://sentiwiki.copernicus.eu/web/s2-mission",
                    "swath_km": "https://sentiwiki.copernicus.eu/web/s2-mission",
                    "max_scene_km2": "https://sentiwiki.copernicus.eu/web/s2-products",
                    "first_month": "https://sentiwiki.copernicus.eu/web/s2-mission",
                    "cloud": "https://sentiwiki.copernicus.eu/web/s2-products",
                },
            ),
        ]
    )
)
