"""The simulated archive: what real missions would have imaged in a month, for the demo and for measurements.

Circular orbits on a spherical Earth, swaths by spherical geometry, weather by smooth noise. The ground tracks and repeat cycles are
the missions' own (Landsat's paths fall on its real days, Sentinel-2's relative orbits within seconds of its real plans), the scenes
are not: every item says ``simulated``. The same seed gives the same archive. Nothing here is read from outside the package.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from coverage_pipeline.demand.targets import land_mask
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry import outlines as geodata
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Geometries = NDArray[np.object_]

_EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
_FLATNESS = 0.00669438  # squared eccentricity of WGS 84
_SOLAR_DAY_S = 86_400.0
_SIDEREAL_DEG_PER_DAY = 360.98564736629  # Earth's rotation, IAU 1982
_ISS_REV_PER_DAY = 15.49385107  # element set 2026-08-08 (25544)
# J2 nodal precession at 420 km and 51.63° (Vallado, Fundamentals of Astrodynamics, eq. 9-38): the station's node goes round in 72 days
_ISS_NODE_DEG_PER_DAY = -5.0


class ArchiveError(PlannerError, ValueError):
    """A simulated archive was asked for that cannot be made."""


@dataclass(frozen=True)
class Mission:
    """One satellite (or instrument on one): its orbit, and what it images of the ground below."""

    key: str
    """For example ``sentinel-2a``; a satellite that was moved to another place in its orbit has one for each."""
    sensor_key: str
    """The sensor of the registry that it belongs to."""
    platform: str
    """STAC ``platform``, spelt as the provider does."""
    inclination: float
    """Degrees; above 98 is sun-synchronous."""
    orbits: int
    """Revolutions a repeat cycle; 0: no repeat cycle."""
    days: int
    """Days a repeat cycle."""
    node_epoch: str
    """An instant of a descending equator crossing, UTC; it is orbit 0 here."""
    node_longitude: float
    """Longitude of that crossing, degrees."""
    swath_km: float
    frame_km: float
    """Length of a scene along the track."""
    reach: tuple[float, float]
    """Latitudes of scene centres, south and north, degrees."""
    min_sun: float
    """Least solar elevation of a scene, degrees."""
    first: str
    """First day with scenes, YYYY-MM-DD."""
    last: str | None = None
    """First day without scenes any more."""
    look_km: float = 0.0
    """How far to either side of the track the instrument may be pointed."""
    whole_within: tuple[float, float, float, float] | None = None
    """West, south, east, north of the place that it images in every cycle, degrees; elsewhere in every second one. None: everywhere."""
    epoch_orbit: int = 0
    """Absolute orbit number at ``node_epoch``, where identifiers need it."""

    @property
    def sun_synchronous(self) -> bool:
        """Whether every descending crossing has the same local mean solar time."""
        return self.orbits > 0

    @property
    def period_s(self) -> float:
        """Seconds from one descending equator crossing to the next."""
        return self.days * _SOLAR_DAY_S / self.orbits if self.orbits else _SOLAR_DAY_S / _ISS_REV_PER_DAY

    @property
    def turn_per_s(self) -> float:
        """Degrees a second that the ground turns below the orbit plane; for sun-synchronous planes once in a solar day."""
        return (360.0 if self.orbits else _SIDEREAL_DEG_PER_DAY - _ISS_NODE_DEG_PER_DAY) / _SOLAR_DAY_S

    @property
    def local_time(self) -> float:
        """Local mean solar time of the descending node, hours."""
        at = dt.datetime.fromisoformat(self.node_epoch)
        return ((at - at.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds() / 3600 + self.node_longitude / 15) % 24

    def node_time(self, orbit: Ints) -> NDArray[np.datetime64]:
        """Instants of the descending equator crossings, UTC, datetime64[ms]."""
        ms = np.rint(np.asarray(orbit) * self.period_s * 1000).astype("timedelta64[ms]")
        return np.datetime64(self.node_epoch, "ms") + ms

    def node_lon(self, orbit: Ints) -> Floats:
        """Longitudes of the descending equator crossings, degrees in [-180, 180)."""
        return _wrapped(self.node_longitude - np.asarray(orbit, dtype=np.float64) * (self.period_s * self.turn_per_s))

    def orbits_of(self, month: Month) -> Ints:
        """Numbers of all orbits that may have a scene in the month."""
        epoch = np.datetime64(self.node_epoch, "ms")
        first, last = ((edge.to_datetime64() - epoch) / np.timedelta64(1, "s") for edge in (month, month.shift(1)))
        return np.arange(math.floor(first / self.period_s) - 1, math.ceil(last / self.period_s) + 2)

    def ground(self, along: Floats, cross_km: Floats | float = 0.0) -> tuple[Floats, Floats]:
        """Where the swath lies: latitude, and longitude relative to the descending node's, degrees.

        ``along`` is the angle flown since the descending node, degrees in -180..180; ``cross_km`` the distance to the left of
        the track (the sensor looks at a right angle to its motion; yaw steering is left out).
        """
        u, i, c = np.radians(along), math.radians(self.inclination), np.asarray(cross_km) / _EARTH_RADIUS_KM
        x = np.cos(c) * np.cos(u)
        y = np.cos(c) * math.cos(i) * np.sin(u) + np.sin(c) * math.sin(i)
        z = -np.cos(c) * math.sin(i) * np.sin(u) + np.sin(c) * math.cos(i)
        turned = np.asarray(along) / 360 * self.period_s * self.turn_per_s
        # A plumb line's latitude, as maps have it, not the angle at the Earth's centre: up to 21 km apart
        lat = np.degrees(np.arctan2(z, (1 - _FLATNESS) * np.hypot(x, y)))
        return lat, np.degrees(np.arctan2(y, x)) - turned


# Sentinel-2: 786 km, 98.62°, 143 orbits in 10 days, descending node at 10:30, 290 km swath, land and islands from 56° S to 84° N
# (https://sentiwiki.copernicus.eu/web/s2-mission); sun zenith up to 82°. Nodes and orbit numbers fitted to ESA's acquisition plans of
# 2024-11..2025-03 (residuals of 2 s). S2C took over S2A's place on 2025-01-21. S2A was moved to 36°
# behind S2B, so that it passes each track 7 days after S2B (of 10; the element sets of 2026-08 have it 37° behind), and has worked since
# March 2025 as a third satellite: Europe in every cycle of 10 days, the rest in every second one (EC Observer, 2025-02-05; the day of
# its first scene and the outline of Europe are assumed).
_S2 = Mission(
    key="",
    sensor_key="sentinel-2",
    platform="",
    inclination=98.5621,
    orbits=143,
    days=10,
    node_epoch="",
    node_longitude=168.38,
    swath_km=290.0,
    frame_km=109.8,
    reach=(-56.0, 83.6),
    min_sun=8.0,
    first="",
)
# Landsat 8/9: 705 km, 98.2°, 233 paths in 16 days, 185 km by 180 km scenes on the WRS-2, whose path 1 crosses the equator at 64.6° W
# (https://landsat.gsfc.nasa.gov/about/the-worldwide-reference-system/); Level 2 needs a sun zenith below 76°
# (https://www.usgs.gov/landsat-missions/landsat-collection-2-level-2-science-products). Node times fitted to 766 real scenes.
_LANDSAT = Mission(
    key="landsat-8",
    sensor_key="landsat-8-9",
    platform="landsat-8",
    inclination=98.2,
    orbits=233,
    days=16,
    node_epoch="2020-01-01T14:30:39",
    node_longitude=-64.6,
    swath_km=185.0,
    frame_km=180.0,
    reach=(-82.0, 82.0),
    min_sun=14.0,
    first="2013-03-18",
)

MISSIONS: Mapping[str, Mission] = {
    mission.key: mission
    for mission in (
        replace(
            _S2,
            key="sentinel-2a",
            platform="Sentinel-2A",
            node_epoch="2025-01-10T23:16:21",
            epoch_orbit=49905,
            first="2015-07-04",
            last="2025-01-21",
        ),
        replace(
            _S2,
            key="sentinel-2a-third",
            platform="Sentinel-2A",
            node_epoch="2025-01-12T23:16:17",
            epoch_orbit=49934,
            first="2025-03-13",
            whole_within=(-12.0, 34.0, 42.0, 72.0),
        ),
        replace(
            _S2,
            key="sentinel-2b",
            platform="Sentinel-2B",
            node_epoch="2025-01-05T23:16:17",
            epoch_orbit=40925,
            first="2017-03-15",
        ),
        replace(
            _S2,
            key="sentinel-2c",
            platform="Sentinel-2C",
            node_epoch="2025-01-10T23:16:48",
            epoch_orbit=1830,
            first="2025-01-21",
        ),
        _LANDSAT,
        replace(_LANDSAT, key="landsat-9", platform="landsat-9", node_epoch="2020-01-09T14:30:32", first="2021-10-31"),
        # EnMAP: 653 km, 97.96°, 398 orbits in 27 days, node at 11:00, 30 km swath, strips of up to 1000 km, ±30° pointing
        # (377 km) (https://www.enmap.org/mission/). Node from the element set of 2026-08-08.
        Mission(
            key="enmap",
            sensor_key="enmap",
            platform="enmap",
            inclination=97.96,
            orbits=398,
            days=27,
            node_epoch="2026-08-08T15:20:52.780",
            node_longitude=-65.263,
            swath_km=30.0,
            frame_km=30.0,
            reach=(-79.5, 79.5),
            min_sun=15.0,
            first="2022-04-27",
            look_km=370.0,
        ),
        # PRISMA: 615 km, 97.85°, 430 orbits in 29 days, node at 10:30, 30 by 30 km, pointing up to 20.7° (230 km)
        # (https://www.eoportal.org/satellite-missions/prisma-hyperspectral). Node from the element set of 2026-08-08.
        Mission(
            key="prisma",
            sensor_key="prisma",
            platform="PRISMA",
            inclination=97.851,
            orbits=430,
            days=29,
            node_epoch="2026-08-08T15:27:43.441",
            node_longitude=-74.483,
            swath_km=30.0,
            frame_km=30.0,
            reach=(-69.5, 69.5),
            min_sun=20.0,
            first="2019-05-01",
            look_km=230.0,
        ),
        # EMIT on the ISS: 51.64°, no repeat cycle, scenes of about 75 by 77 km within ±52°
        # (https://earth.jpl.nasa.gov/emit/instrument/specifications/). Node from the element set of 2026-08-08.
        Mission(
            key="emit",
            sensor_key="emit",
            platform="ISS",
            inclination=51.632,
            orbits=0,
            days=0,
            node_epoch="2026-08-08T12:53:29.330",
            node_longitude=70.754,
            swath_km=75.0,
            frame_km=76.8,
            reach=(-51.6, 51.6),
            min_sun=20.0,
            first="2022-08-09",
        ),
    )
}

CATALOGUED = ("emit", "enmap", "landsat-8-9", "sentinel-2")
"""Sensors whose archive can be asked; PRISMA's can't (see ``simulated_holdings_without_catalog``)."""

_COLLECTIONS = {
    "sentinel-2": "sentinel-2-l2a",
    "landsat-8-9": "landsat-c2-l2",
    "enmap": "ENMAP_HSI_L2A",
    "emit": "EMITL2ARFL",
}
# A small share of scenes comes without a usable cloud percentage. The shares are assumptions, chosen so that every sensor has some.
_CLOUD_UNKNOWN = {"sentinel-2": 0.002, "landsat-8-9": 0.003, "enmap": 0.01, "emit": 0.08, "prisma": 0.02}
# Parts: 13 pairs among 1,000 real Sentinel-2 items of Colorado. Copies: an assumption, they vary with the provider.
_SPLIT_SHARE, _COPY_SHARE = 0.013, 0.01
_TILE_MIN_SHARE = 0.01  # of a tile that a pass must cover to give a product
_ENMAP_STRIPS, _PRISMA_STRIPS = 430, 260  # datatakes a month, assumed: some 3,000 and 400 scenes

_COLUMNS = ("datetime", "end", "geometry", "cloud", "platform", "orbit", "frame", "number", "scene", "part", "copy")


def simulated_footprints(sensor_key: str, month: Month, *, seed: int = 7, density: float = 1.0) -> gpd.GeoDataFrame:
    """What a catalogue would list for one sensor and month, without the items around it: for measurements.

    Returns
    -------
    EPSG:4326 rows in time order: ``datetime`` (UTC, in the month), ``end``, ``cloud`` (percent, NaN where unknown), ``geometry``
    (valid, split at the antimeridian), ``scene`` (a number that reprocessed copies and the parts of a split scene share) and
    what identifies it: ``platform``, ``orbit``, ``frame`` (MGRS tile, path and row, …), ``number``, ``part``, ``copy``.

    Raises
    ------
    ArchiveError
        The sensor is not simulated, or ``density`` is not in 0..1.

    Notes
    -----
    ``density`` keeps whole passes of the systematic missions, spread evenly in longitude and over the cycles, and scales the number of
    strips of the tasked ones. Keeping whole passes leaves each pass what it is, a continuous swath, so that a thinned month looks
    like fewer satellites rather than like a sieve: neighbouring scenes still share their day. A smaller density keeps a subset.

    """
    maker = _MAKERS.get(sensor_key)
    if maker is None:
        raise ArchiveError(f"no simulated archive for sensor {sensor_key!r}: there is one for {', '.join(sorted(_MAKERS))}")
    if not 0 < density <= 1:
        raise ArchiveError(f"density {density!r} for {sensor_key} must be above 0 and at most 1")
    rng = np.random.default_rng([seed, zlib.crc32(sensor_key.encode()), month.year, month.month])
    parts = [maker(mission, month, density, seed, rng) for mission in MISSIONS.values() if mission.sensor_key == sensor_key]
    table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    times = table["datetime"].to_numpy("datetime64[ms]")
    table = table[(times >= month.to_datetime64()) & (times < month.shift(1).to_datetime64())]
    table = table.sort_values(["datetime", "platform", "number", "frame"], kind="stable", ignore_index=True)
    table["scene"] = np.arange(len(table))
    table["cloud"] = _cloud(table, seed, rng, _CLOUD_UNKNOWN[sensor_key])
    if sensor_key == "sentinel-2":
        table = _with_parts_and_copies(table, rng)
    times = {name: pd.to_datetime(table[name].to_numpy("datetime64[ms]"), utc=True).as_unit("us") for name in ("datetime", "end")}
    return gpd.GeoDataFrame(table.drop(columns="geometry").assign(**times), geometry=table["geometry"].to_numpy(), crs="EPSG:4326")


def simulated_items(sensor_key: str, month: Month, *, seed: int = 7, density: float = 1.0) -> Iterator[dict[str, Any]]:
    """STAC items as the sensor's provider would list them for the month, each with ``properties["simulated"]`` true.

    Identifiers, property names and oddities are the providers': EnMAP's cloud cover is text, Landsat's unknown cloud cover is −1,
    Sentinel-2 lists a scene's reprocessed copies and parts, and every other Landsat scene across the antimeridian comes as one
    polygon whose edges span the map; the rest are RFC 7946 MultiPolygons.

    Raises
    ------
    ArchiveError
        As for ``simulated_footprints``; or the sensor has no public catalogue to imitate.

    """
    if sensor_key in _MAKERS and sensor_key not in _DESCRIBERS:
        raise ArchiveError(f"sensor {sensor_key!r} has no public catalogue to imitate; see simulated_holdings_without_catalog")
    table = simulated_footprints(sensor_key, month, seed=seed, density=density)
    rng = np.random.default_rng([seed, zlib.crc32(sensor_key.encode()), month.year, month.month, 1])
    return _items(sensor_key, table, rng)


def simulated_holdings(
    items: Iterable[Mapping[str, Any]], sensor: CoverageSensor, *, seed: int = 7, share: float = 0.25
) -> gpd.GeoDataFrame:
    """What we would hold of these items: mostly the clear ones, mostly of a few regions.

    A third of the rows carries no ``scene_id`` but a footprint moved by up to 3 % of its size (IoU about 0.9) and a time moved by up
    to 20 s, so that it can only be matched by time and place; about one row in a hundred is listed in no catalogue.

    Parameters
    ----------
    items
        STAC items of the sensor, for example of ``simulated_items``.
    sensor
        Whose holdings these are.
    seed
        The same items and seed give the same holdings.
    share
        Part of the scenes held, 0..1. Of a scene's reprocessed copies or parts one is held.

    Returns
    -------
    ``datetime`` (UTC), ``sensor`` (the holdings' name of it), ``cloud``, ``scene_id``, ``geometry`` in EPSG:4326; no rows
    for a sensor that the holdings do not know.

    """
    if sensor.held_satellite is None:
        return _holdings([], [], [], [], "")
    unique: dict[tuple[str, str], Mapping[str, Any]] = {}
    for item in items:
        # the last part of a Sentinel-2 id is the processing time, which sets copies and parts apart
        name = item["id"].rpartition("_")[0] if sensor.family == "sentinel-2" else item["id"]
        unique.setdefault((name, item["properties"]["datetime"]), item)
    chosen = list(unique.values())
    geometries = _from_geojson([item["geometry"] for item in chosen])
    times = np.array([item["properties"]["datetime"].rstrip("Z") for item in chosen], dtype="datetime64[ms]")
    clouds = np.array([_percent(item["properties"].get("eo:cloud_cover")) for item in chosen])
    ids = np.array([item["id"] for item in chosen], dtype=object)
    rng = np.random.default_rng([seed, zlib.crc32(sensor.key.encode()), len(chosen), 2])
    return _biased_subset(geometries, times, clouds, ids, sensor.held_satellite, rng, share)


def simulated_holdings_without_catalog(sensor: CoverageSensor, month: Month, *, seed: int = 7, share: float = 0.6) -> gpd.GeoDataFrame:
    """Holdings of a sensor whose archive no catalogue lists (PRISMA), from its simulated passes; as ``simulated_holdings``."""
    if sensor.held_satellite is None:
        return _holdings([], [], [], [], "")
    table = simulated_footprints(sensor.key, month, seed=seed)
    times = table["datetime"].dt.tz_localize(None).to_numpy("datetime64[ms]")
    ends = table["end"].dt.tz_localize(None).to_numpy("datetime64[ms]")
    names = [
        f"PRS_L2D_STD_{_compact(a).replace('T', '')}_{_compact(b).replace('T', '')}_{number:04d}"
        for a, b, number in zip(times, ends, table["number"], strict=True)
    ]
    rng = np.random.default_rng([seed, zlib.crc32(sensor.key.encode()), month.year, month.month, 3])
    ids = np.array(names, dtype=object)
    return _biased_subset(table.geometry.to_numpy(), times, table["cloud"].to_numpy(), ids, sensor.held_satellite, rng, share)


def write_archive(
    folder: Path,
    months: Iterable[Month],
    sensor_keys: Iterable[str] = CATALOGUED,
    *,
    seed: int = 7,
    density: Mapping[str, float] | None = None,
) -> list[Path]:
    """Write items as ``rustac serve --create-collections FILES…`` loads them: one GeoJSON FeatureCollection a sensor.

    Sensors without a public catalogue have no file. ``density`` is by sensor key, 1 where absent.

    Returns
    -------
    The files, ``{sensor}.json``, each one collection when served.

    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(months)
    files = []
    for key in sensor_keys:
        if key in _MAKERS and key not in _DESCRIBERS:
            continue
        path = folder / f"{key}.json"
        part = path.with_suffix(".json.part")
        with part.open("w", encoding="utf-8") as out:
            out.write('{"type":"FeatureCollection","features":[')
            everything = itertools.chain.from_iterable(
                simulated_items(key, month, seed=seed, density=(density or {}).get(key, 1.0)) for month in wanted
            )
            for number, item in enumerate(everything):
                out.write((",\n" if number else "\n") + json.dumps(item, separators=(",", ":")))
            out.write("\n]}\n")
        part.replace(path)
        files.append(path)
    return files


# --- geometry -----------------------------------------------------------------------------------------------------------------


def _wrapped(lon: Floats) -> Floats:
    """Longitudes in [-180, 180)."""
    return (np.asarray(lon, dtype=np.float64) + 180) % 360 - 180


def _footprints(lon: Floats, lat: Floats) -> Geometries:
    """Valid polygons of rings (n, vertices) in unwrapped longitudes, split where they cross ±180 (RFC 7946, 3.1.9)."""
    lon = np.round(lon - 360 * np.floor((lon.mean(axis=1, keepdims=True) + 180) / 360), 5)
    polygons: Geometries = shapely.polygons(np.stack([lon, np.round(lat, 5)], axis=-1))
    crossing = np.flatnonzero((lon.max(axis=1) > 180) | (lon.min(axis=1) < -180))
    if len(crossing):
        polygons[crossing] = _split(polygons[crossing])
    return polygons


def _split(polygons: Geometries) -> Geometries:
    pieces = [
        shapely.transform(
            shapely.intersection(polygons, shapely.box(west, -90, west + 360, 90)),
            lambda c, west=west: c - np.array([west + 180, 0.0]),
        )
        for west in (-540.0, -180.0, 180.0)
    ]
    split = [
        shapely.MultiPolygon([p for p in shapely.get_parts(np.array(three, dtype=object)) if p.geom_type == "Polygon" and p.area > 0])
        for three in zip(*pieces, strict=True)
    ]
    result = np.empty(len(split), dtype=object)
    result[:] = split
    return result


def _frames(mission: Mission, along: Floats, node_lon: Floats, cross_km: Floats | float = 0.0) -> tuple[Floats, Floats, Geometries]:
    """Scenes centred at those angles along the track: centre latitude, centre longitude, footprint."""
    half = math.degrees(mission.frame_km / _EARTH_RADIUS_KM) / 2
    side = mission.swath_km / 2
    lat, lon = mission.ground(along, cross_km)
    corners = [mission.ground(along + du, cross_km + dc) for du, dc in ((-half, side), (half, side), (half, -side), (-half, -side))]
    lats = np.stack([corner[0] for corner in corners], axis=-1)
    lons = np.stack([lon + _wrapped(corner[1] - lon) for corner in corners], axis=-1) + node_lon[:, None]
    return lat, _wrapped(lon + node_lon), _footprints(lons, lats)


@cache
def _land_tree() -> shapely.STRtree:
    """Land in pieces of ten degrees: whole continents make every question slow."""
    tiles = [(x, y) for x in range(-180, 180, 10) for y in range(-90, 90, 10)]
    parts = np.array(geodata.land().geoms, dtype=object)
    pieces = [shapely.clip_by_rect(parts, x, y, x + 10, y + 10) for x, y in tiles]
    flat = np.concatenate(pieces)
    return shapely.STRtree(shapely.make_valid(flat[~shapely.is_empty(flat)]))


def _touches_land(footprints: Geometries) -> NDArray[np.bool_]:
    found = np.zeros(len(footprints), bool)
    found[_land_tree().query(footprints, predicate="intersects")[0]] = True
    return found


def _on_land(lat: Floats, lon: Floats) -> NDArray[np.bool_]:
    grid = GridSpec(0.25)
    row = np.clip(((lat + 90) * 4).astype(int), 0, grid.shape[0] - 1)
    column = np.clip(((lon + 180) * 4).astype(int), 0, grid.shape[1] - 1)
    found: NDArray[np.bool_] = land_mask(grid, 0.0)[row, column]
    return found


def _sun_elevation(time: NDArray[np.datetime64], lat: Floats, lon: Floats) -> Floats:
    """Degrees above the horizon, by mean solar time and a sinusoidal declination (within about 1°, Cooper 1969)."""
    day = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    declination = np.radians(23.44) * np.sin(2 * np.pi * (day - 80) / 365.24)
    hour = np.radians(15 * (day % 1 * 24 - 12) + lon)
    phi = np.radians(lat)
    sine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)
    elevation: Floats = np.degrees(np.arcsin(np.clip(sine, -1, 1)))
    return elevation


# --- passes and scenes ----------------------------------------------------------------------------------------------------------


def _times(mission: Mission, orbit: Ints, along: Floats) -> NDArray[np.datetime64]:
    flown = np.rint(along / 360 * mission.period_s * 1000).astype("timedelta64[ms]")
    times: NDArray[np.datetime64] = mission.node_time(orbit) + flown
    return times


def _table(mission: Mission, orbit: Ints, start: NDArray[np.datetime64], **columns: Any) -> pd.DataFrame:
    """Scenes within the mission's life, in the common columns."""
    seconds = mission.frame_km / (2 * math.pi * _EARTH_RADIUS_KM) * mission.period_s
    table = pd.DataFrame({"datetime": start, "orbit": orbit + mission.epoch_orbit, "platform": mission.key, **columns})
    table["end"] = table["datetime"] + np.timedelta64(round(seconds * 1000), "ms")
    for name in _COLUMNS:
        if name not in table.columns:
            table[name] = 0
    alive = start >= np.datetime64(mission.first)
    if mission.last:
        alive &= start < np.datetime64(mission.last)
    return table[alive]


def _kept_orbits(mission: Mission, month: Month, density: float) -> Ints:
    """The month's orbits, thinned to a share that is spread evenly over longitude and over the cycles.

    The steps are those of additive recurrences with the golden ratio and the plastic number (low-discrepancy sequences): in each
    cycle the kept tracks lie about 1/density tracks apart, in the next one between them.
    """
    orbits = mission.orbits_of(month)
    if mission.orbits:
        rank, cycle = orbits * mission.days % mission.orbits, orbits // mission.orbits
    else:
        rank, cycle = orbits, np.zeros_like(orbits)
    satellite = zlib.crc32(mission.key.encode()) % 97
    return orbits[(rank * 0.6180339887498949 + cycle * 0.7548776662466927 + satellite * 0.5698402909980532) % 1 < density]


def _expand(orbits: Ints, tracks: Ints, track_of_row: Ints) -> tuple[Ints, Ints]:
    """For each orbit all rows of its track: (index into orbits, row). ``track_of_row`` ascends."""
    first = np.searchsorted(track_of_row, tracks, side="left")
    count = np.searchsorted(track_of_row, tracks, side="right") - first
    which = np.repeat(np.arange(len(orbits)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return which, row


@cache
def _wrs2() -> dict[str, Any]:
    """Descending land scenes of the WRS-2, in track order (track = orbit mod 233; path = 1 + 16·track mod 233)."""
    mission = MISSIONS["landsat-8"]
    track, row = (axis.ravel() for axis in np.meshgrid(np.arange(233), np.arange(1, 123), indexing="ij"))
    along = (row - 60) * 360 / 248  # row 60 is the equator, 248 rows an orbit
    lat, lon, footprint = _frames(mission, along, mission.node_lon(track))
    keep = (lat >= mission.reach[0]) & (lat <= mission.reach[1])
    keep[keep] = _touches_land(footprint[keep])
    path = 1 + 16 * track % 233
    names = np.array([f"{p:03d}{r:03d}" for p, r in zip(path[keep], row[keep], strict=True)], dtype=object)
    return {
        "track": track[keep],
        "along": along[keep],
        "lat": lat[keep],
        "lon": lon[keep],
        "geometry": footprint[keep],
        "frame": names,
    }


def _landsat(mission: Mission, month: Month, density: float, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    frames = _wrs2()
    orbits = _kept_orbits(mission, month, density)
    which, row = _expand(orbits, orbits % mission.orbits, frames["track"])
    orbit = orbits[which]
    time = _times(mission, orbit, frames["along"][row])
    lit = _sun_elevation(time, frames["lat"][row], frames["lon"][row]) > mission.min_sun
    row = row[lit]
    return _table(mission, orbit[lit], time[lit], geometry=frames["geometry"][row], frame=frames["frame"][row])


@cache
def _mgrs_tiles() -> tuple[NDArray[np.object_], Floats, Floats]:
    """Sentinel-2 tiles over land: names, and corner longitudes (unwrapped) and latitudes, (n, 4).

    A tile is a 100 km square of the MGRS widened to 109.8 km to the east and south (https://sentiwiki.copernicus.eu/web/s2-products).
    Every zone has the same shape, so one zone's squares are projected and moved along.
    """
    project = pyproj.Transformer.from_crs(32631, 4326, always_xy=True).transform
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(1, 9), np.arange(-64, 94), indexing="ij"))
    west = column * 100_000 // 60 * 60
    north = -(-(row + 1) * 100_000 // 60) * 60
    tile_x, tile_y = (
        np.stack([west, west, west + 109_800, west + 109_800], -1),
        np.stack([north, north - 109_800, north - 109_800, north], -1),
    )
    lon, lat = project(tile_x, tile_y)
    square_x = np.stack([column, column, column + 1, column + 1], -1) * 100_000
    square_lon, square_lat = project(square_x, np.stack([row + 1, row, row, row + 1], -1) * 100_000)
    band = np.array(list("CDEFGHJKLMNPQRSTUVWXX"))[np.clip((square_lat.mean(-1) + 80) // 8, 0, 20).astype(int)]
    columns, rows = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR"), "ABCDEFGHJKLMNPQRSTUV"
    names, lons, lats = [], [], []
    for zone in range(1, 61):
        shift = 6 * (zone - 31)
        low, high = np.full(len(band), -180.0 + 6 * (zone - 1)), np.full(len(band), -180.0 + 6 * zone)
        # Norway's and Svalbard's zones (DMA TM 8358.1)
        wide = {
            (31, "V"): (0, 3),
            (32, "V"): (3, 12),
            (31, "X"): (0, 9),
            (33, "X"): (9, 21),
            (35, "X"): (21, 33),
            (37, "X"): (33, 42),
        }
        for (z, letter), (a, b) in wide.items():
            if z == zone:
                low[band == letter], high[band == letter] = a, b
        inside = (square_lon.max(-1) + shift > low) & (square_lon.min(-1) + shift < high)
        inside &= ~((band == "X") & (zone in (32, 34, 36)))
        for k in np.flatnonzero(inside):
            letters = columns[zone % 3][column[k] - 1] + rows[(row[k] + (5 if zone % 2 == 0 else 0)) % 20]
            names.append(f"{zone:02d}{band[k]}{letters}")
        lons.append(lon[inside] + shift)
        lats.append(lat[inside])
    all_lon, all_lat = np.concatenate(lons), np.concatenate(lats)
    centre = all_lat.mean(-1)
    keep = (centre >= MISSIONS["sentinel-2a"].reach[0]) & (centre <= MISSIONS["sentinel-2a"].reach[1])
    keep[keep] = _touches_land(_footprints(all_lon[keep], all_lat[keep]))
    return np.array(names, dtype=object)[keep], all_lon[keep], all_lat[keep]


@cache
def _sentinel_2_scenes() -> dict[str, Any]:
    """What each of the 143 relative orbits sees of each tile, in track order; computed once, as the tracks repeat."""
    mission = MISSIONS["sentinel-2a"]
    names, lon, lat = _mgrs_tiles()
    tiles = shapely.polygons(np.stack([lon, lat], -1))
    step = 1.0  # degrees along the track
    angle = np.arange(-88.0, 75.0 + step, step)
    side = mission.swath_km / 2
    (left_lat, left_lon), (right_lat, right_lon) = mission.ground(angle, side), mission.ground(angle, -side)
    # Pieces of swath, of every track, moved so that they may meet tiles on either side of ±180
    ring_lon = np.stack([left_lon[:-1], left_lon[1:], right_lon[1:], right_lon[:-1]], -1)
    ring_lat = np.stack([left_lat[:-1], left_lat[1:], right_lat[1:], right_lat[:-1]], -1)
    node = mission.node_lon(np.arange(mission.orbits))
    rings = ring_lon[None] + node[:, None, None]
    rings -= 360 * np.floor((rings.mean(-1, keepdims=True) + 180) / 360)
    track_of = np.repeat(np.arange(mission.orbits), len(angle) - 1)
    piece_of = np.tile(np.arange(len(angle) - 1), mission.orbits)
    flat = shapely.polygons(np.stack([rings.reshape(-1, 4), np.tile(ring_lat, (mission.orbits, 1))], -1))
    tree = shapely.STRtree(tiles)
    found = [
        np.stack([track_of[hit[0]], piece_of[hit[0]], hit[1]])
        for shift in (-360.0, 0.0, 360.0)
        for hit in [tree.query(shapely.transform(flat, lambda c, shift=shift: c + np.array([shift, 0.0])), predicate="intersects")]
    ]
    track, piece, tile = np.concatenate(found, axis=1)
    order = np.lexsort((piece, tile, track))
    track, piece, tile = track[order], piece[order], tile[order]
    start = np.flatnonzero(np.r_[True, (np.diff(track) != 0) | (np.diff(tile) != 0)])
    middle = np.add.reduceat(piece, start) // np.diff(np.r_[start, len(piece)])
    track, tile = track[start], tile[start]
    # The swath around the tile, as one polygon: intersecting with the whole pass would be slow
    window = np.clip(middle[:, None] + np.arange(-3, 5), 0, len(angle) - 1)
    swath_lon = np.concatenate([left_lon[window], right_lon[window[:, ::-1]]], axis=1) + node[track][:, None]
    swath_lat = np.concatenate([left_lat[window], right_lat[window[:, ::-1]]], axis=1)
    swath_lon += 360 * np.round((lon[tile].mean(-1, keepdims=True) - swath_lon[:, [3, 11]].mean(-1, keepdims=True)) / 360)
    swath = shapely.polygons(np.stack([swath_lon, swath_lat], -1))
    seen = shapely.intersection(tiles[tile], shapely.make_valid(swath))
    keep = (shapely.get_type_id(seen) == 3) & (shapely.area(seen) > _TILE_MIN_SHARE * shapely.area(tiles[tile]))
    track, tile, seen, along = track[keep], tile[keep], seen[keep], angle[middle[keep]]
    seen = shapely.transform(seen, lambda c: np.round(c, 5))
    bounds = shapely.bounds(seen)
    crossing = (bounds[:, 0] < -180) | (bounds[:, 2] > 180)
    seen[crossing] = _split(seen[crossing])
    # A datatake ends where nothing is seen for some degrees of track; its first tile gives its start, as identifiers name it
    order = np.lexsort((tile, along, track))
    track, tile, seen, along = track[order], tile[order], seen[order], along[order]
    first = np.r_[True, (np.diff(track) != 0) | (np.diff(along) > 6)]
    begin = along[first][np.cumsum(first) - 1]
    return {
        "track": track, "along": along, "begin": begin, "geometry": seen, "frame": names[tile],
        "lat": lat[tile].mean(-1), "lon": _wrapped(lon[tile].mean(-1)),
    }  # fmt: skip


def _sentinel_2(mission: Mission, month: Month, density: float, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    scenes = _sentinel_2_scenes()
    orbits = _kept_orbits(mission, month, density)
    which, row = _expand(orbits, orbits % mission.orbits, scenes["track"])
    orbit = orbits[which]
    sensed = _times(mission, orbit, scenes["along"][row])
    imaged = _sun_elevation(sensed, scenes["lat"][row], scenes["lon"][row]) > mission.min_sun
    if mission.whole_within is not None:
        west, south, east, north = mission.whole_within
        lon, lat = scenes["lon"][row], scenes["lat"][row]
        within = (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
        imaged &= within | (orbit // mission.orbits % 2 == 0)
    orbit, row, sensed = orbit[imaged], row[imaged], sensed[imaged]
    taken = _times(mission, orbit, scenes["begin"][row])
    table = _table(mission, orbit, taken, geometry=scenes["geometry"][row], frame=scenes["frame"][row])
    table["end"] = pd.Series(sensed, index=np.arange(len(sensed))).loc[table.index].to_numpy()
    return table


def _with_parts_and_copies(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Some scenes in two parts (two datastrips), some listed again after reprocessing."""
    geometry = table["geometry"].to_numpy()
    south, north = shapely.bounds(geometry)[:, [1, 3]].T
    # A sliver would have nothing left to cut
    split = np.flatnonzero((rng.random(len(table)) < _SPLIT_SHARE) & (north - south > 0.3))
    cut = np.round(south[split] + (north - south)[split] * rng.uniform(0.3, 0.7, len(split)), 5)
    upper = shapely.intersection(geometry[split], shapely.box(-180, cut, 180, 90))
    lower = shapely.intersection(geometry[split], shapely.box(-180, -90, 180, cut))
    second = table.iloc[split].assign(part=1)
    for one, other in ((table, upper), (second, lower)):
        target = one["geometry"].to_numpy().copy()
        target[split if one is table else slice(None)] = other
        one["geometry"] = target
    again = table.iloc[np.flatnonzero(rng.random(len(table)) < _COPY_SHARE)].assign(copy=1)
    again = again[~again["scene"].isin(second["scene"])]
    return pd.concat([table, second, again], ignore_index=True).sort_values(
        ["datetime", "scene", "part", "copy"], kind="stable", ignore_index=True
    )


def _emit(mission: Mission, month: Month, density: float, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    """Runs of scenes by daylight over land: the instrument images a target mask, mostly drylands, and pauses for its data volume."""
    orbits = mission.orbits_of(month)
    angle = np.arange(-180.0, 180.0, math.degrees(mission.frame_km / _EARTH_RADIUS_KM) * 0.98)
    run = np.arange(len(angle)) // 12
    wanted = np.random.default_rng([seed, 11, month.year, month.month]).random((len(orbits), run[-1] + 1))
    on = np.isin(orbits, _kept_orbits(mission, month, density))
    orbit, number = (axis.ravel() for axis in np.meshgrid(orbits[on], np.arange(len(angle)), indexing="ij"))
    chance = wanted[on][:, run].ravel()
    likely = chance < 0.5
    orbit, number, chance = orbit[likely], number[likely], chance[likely]
    time = _times(mission, orbit, angle[number])
    lat, dlon = mission.ground(angle[number])
    lon = _wrapped(dlon + mission.node_lon(orbit))
    keep = (lat >= mission.reach[0]) & (lat <= mission.reach[1]) & _on_land(lat, lon)
    keep &= _sun_elevation(time, lat, lon) > mission.min_sun
    dryness = -_climate(lat, np.zeros(len(lat))) + 0.8 * _noise(lat, lon, np.zeros(len(lat)), seed + 1, 1.0)
    keep &= chance < 0.31 / (1 + np.exp(-2.0 * dryness))
    orbit, number, time = orbit[keep], number[keep], time[keep]
    _, _, footprint = _frames(mission, angle[number], mission.node_lon(orbit))
    scene = pd.Series(orbit).groupby(orbit).cumcount().to_numpy() + 1
    return _table(mission, orbit, time, geometry=footprint, number=scene, frame="")


def _tasked(mission: Mission, month: Month, density: float, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    """Short strips on random land targets within reach of a pass, more of them where many ask."""
    strips = max(1, round((_ENMAP_STRIPS if mission.key == "enmap" else _PRISMA_STRIPS) * density))
    orbits = mission.orbits_of(month)[1:-1]
    tries = 40 * strips
    orbit = rng.choice(orbits, tries)
    along, cross = rng.uniform(-85, 85, tries), rng.uniform(-mission.look_km, mission.look_km, tries)
    length = np.minimum(rng.geometric(0.12 if mission.key == "enmap" else 0.65, tries), 33)  # 33 tiles: a strip of 1000 km
    lat, dlon = mission.ground(along, cross)
    lon = _wrapped(dlon + mission.node_lon(orbit))
    time = _times(mission, orbit, along)
    keep = _on_land(lat, lon) & (_sun_elevation(time, lat, lon) > mission.min_sun)
    keep &= (time >= month.to_datetime64()) & (time < month.shift(1).to_datetime64())
    # Passes crowd together towards the poles; requests do not
    demand = np.cos(np.radians(lat)) / (1 + np.exp(-2.5 * (_noise(lat, lon, np.zeros(tries), seed + 2, 1.0) - 0.6)))
    chosen = np.flatnonzero(keep & (rng.random(tries) < demand))[:strips]
    chosen = chosen[np.argsort(time[chosen], kind="stable")]
    strip = np.repeat(np.arange(len(chosen)), length[chosen])
    number = np.arange(len(strip)) - np.repeat(np.cumsum(length[chosen]) - length[chosen], length[chosen])
    tile_along = along[chosen][strip] + number * math.degrees(mission.frame_km / _EARTH_RADIUS_KM) * 0.97
    tile_orbit = orbit[chosen][strip]
    lat, lon, footprint = _frames(mission, tile_along, mission.node_lon(tile_orbit), cross[chosen][strip])
    time = _times(mission, tile_orbit, tile_along)
    keep = (lat >= mission.reach[0]) & (lat <= mission.reach[1]) & _on_land(lat, lon) & (np.abs(tile_along) < 89)
    keep &= _sun_elevation(time, lat, lon) > mission.min_sun
    # Datatake numbers grow by 2,500 a month from a real one: DT0000080454 of 2024-06-30
    base = 80_454 + 2_500 * ((month.year - 2024) * 12 + month.month - 6)
    return _table(
        mission,
        tile_orbit[keep],
        time[keep],
        geometry=footprint[keep],
        number=number[keep] + 1,
        frame=np.char.mod("%d", base + strip[keep]),
    )


_MAKERS: Mapping[str, Callable[[Mission, Month, float, int, np.random.Generator], pd.DataFrame]] = {
    "sentinel-2": _sentinel_2,
    "landsat-8-9": _landsat,
    "emit": _emit,
    "enmap": _tasked,
    "prisma": _tasked,
}


# --- weather --------------------------------------------------------------------------------------------------------------------


def _noise(lat: Floats, lon: Floats, day: Floats, seed: int, scale: float) -> Floats:
    """Smooth noise on the sphere and in time, about standard normal: a sum of plane waves through 3-D space.

    Waves through space know no seam and no pole. ``scale`` 1 means features of some 1,500 km that live for about three days.
    """
    rng = np.random.default_rng([seed, 5])
    phi, lam = np.radians(lat), np.radians(lon)
    where = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi), day], axis=-1).astype(np.float32)
    waves = np.column_stack([rng.normal(0, 6 * scale, (40, 3)), rng.normal(0, 0.9, 40)]).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 40).astype(np.float32)
    total = np.zeros(len(where), np.float32)
    for wave, phase in zip(waves, phases, strict=True):
        total += np.cos(where @ wave + phase)
    return (total * math.sqrt(2 / 40)).astype(np.float64)


def _climate(lat: Floats, season: Floats) -> Floats:
    """Cloudiness by latitude and season, about -1.5 (subtropical deserts) .. 1.5 (rain belts); season -1 (January) .. 1 (July).

    The zonal means follow MODIS (King et al. 2013, doi:10.1109/TGRS.2012.2227333): a maximum at the rain belt, which follows the sun,
    minima near 20-25°, maxima over the storm tracks at 50-60°, and less over the ice.
    """
    belt = np.exp(-(((lat - 3 - 8 * season) / 9) ** 2))
    north, south = np.exp(-(((lat - 55 + 5 * season) / 14) ** 2)), np.exp(-(((lat + 57 - 3 * season) / 12) ** 2))
    dry = np.exp(-(((np.abs(lat - 3 * season) - 23) / 8) ** 2))
    return 1.3 * belt + 1.1 * north * (1 - 0.25 * season) + 1.5 * south - 1.3 * dry


def _cloud(table: pd.DataFrame, seed: int, rng: np.random.Generator, unknown: float) -> Floats:
    """Cloud percentage of each scene: mostly near 0 or near 100, as real scenes are; NaN where unknown.

    The weather depends on the seed, the place and the instant alone, so two sensors that pass on one day see the same clouds.
    """
    if not len(table):
        return np.zeros(0)
    bounds = shapely.bounds(table["geometry"].to_numpy())
    lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    time = table["datetime"].to_numpy("datetime64[ms]")
    day = (time - np.datetime64("2020-01-01")) / np.timedelta64(1, "D")
    season = -np.cos(2 * np.pi * (day - 15) / 365.25)
    weather = _noise(lat, lon, day, seed, 1.0) + 0.5 * _noise(lat, lon, day, seed + 3, 3.0)
    odds = 1.2 * _climate(lat, season) + 2.4 * weather + 0.8 * rng.normal(size=len(lat)) + 0.1
    percent = np.clip(104 / (1 + np.exp(-odds)) - 2, 0, 100)
    percent[rng.random(len(percent)) < unknown] = np.nan
    return np.round(percent, 6)


# --- items ----------------------------------------------------------------------------------------------------------------------


def _iso(time: np.datetime64, unit: Literal["s", "ms"] = "ms") -> str:
    return f"{np.datetime_as_string(time, unit=unit)}Z"


def _compact(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="s")).replace("-", "").replace(":", "")


def _items(sensor_key: str, table: gpd.GeoDataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    describe = _DESCRIBERS[sensor_key]
    geometries = table.geometry.to_numpy()
    starts = table["datetime"].dt.tz_localize(None).to_numpy("datetime64[ms]")
    ends = table["end"].dt.tz_localize(None).to_numpy("datetime64[ms]")
    columns = [table[name].tolist() for name in ("cloud", "platform", "orbit", "frame", "number", "part", "copy")]
    luck = rng.random(len(table)).tolist()
    boxes = np.round(shapely.bounds(geometries), 5).tolist()
    shapes = shapely.to_geojson(geometries)
    collection = _COLLECTIONS[sensor_key]
    for k, (cloud, platform, orbit, frame, number, part, copy) in enumerate(zip(*columns, strict=True)):
        scene = _Scene(
            starts[k],
            ends[k],
            None if cloud != cloud else cloud,
            MISSIONS[platform],
            orbit,
            frame,
            number,
            part,
            copy,
            luck[k],
        )
        name, properties = describe(scene)
        geometry, box = json.loads(shapes[k]), boxes[k]
        if geometry["type"] == "MultiPolygon" and box[2] - box[0] > 180:
            geometry, box = _across(sensor_key, scene, geometry, box, geometries[k])
        yield {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": collection,
            "geometry": geometry,
            "bbox": box,
            "properties": {**properties, "simulated": True},
            "links": [],
            "assets": {},
        }


def _across(
    sensor_key: str, scene: _Scene, geometry: dict[str, Any], box: list[float], footprint: shapely.MultiPolygon
) -> tuple[dict[str, Any], list[float]]:
    """A footprint across the antimeridian as providers give it, with its bbox."""
    if sensor_key == "landsat-8-9" and int(scene.frame[3:]) % 2:
        whole = shapely.union_all(
            shapely.transform(np.array(footprint.geoms, dtype=object), lambda c: np.column_stack([c[:, 0] % 360, c[:, 1]]))
        )
        if whole.geom_type == "Polygon":  # in one ring, with edges that span the map
            ring = shapely.get_coordinates(whole.simplify(1e-4))
            ring[:, 0] = np.where(ring[:, 0] > 180, ring[:, 0] - 360, ring[:, 0])
            return {"type": "Polygon", "coordinates": [np.round(ring, 5).tolist()]}, box
    edges = shapely.bounds(np.array(footprint.geoms, dtype=object))
    east = edges[:, 0] > 0
    # RFC 7946, 5.2: the western edge comes first, so west > east
    return geometry, [float(edges[east, 0].min()), box[1], float(edges[~east, 2].max()), box[3]]


@dataclass(frozen=True, slots=True)
class _Scene:
    start: np.datetime64
    end: np.datetime64
    cloud: float | None
    mission: Mission
    orbit: int
    frame: str
    number: int
    part: int
    copy: int
    luck: float


def _describe_sentinel_2(scene: _Scene) -> tuple[str, dict[str, Any]]:
    """As Planetary Computer: ``datetime`` is the datatake's start; copies share the datastrip's sensing start, parts do not."""
    letter = scene.mission.platform[-1].upper()
    taken = _compact(scene.start)
    relative = (scene.orbit - scene.mission.epoch_orbit) % scene.mission.orbits + 1
    made = scene.end + np.timedelta64(int(3600 * (3 + 5 * scene.luck)) + 1800 * scene.part, "s")
    baseline = 510 if scene.start < np.datetime64("2024-07-23") else 511  # https://sentiwiki.copernicus.eu/web/s2-processing
    if scene.copy:
        made, baseline = made + np.timedelta64(20 + int(300 * scene.luck), "D"), baseline + 1
    strip = _compact(scene.start + np.timedelta64((150 if scene.part else 0) + 1, "s"))
    version, generated = f"{baseline // 100:02d}.{baseline % 100:02d}", _compact(made)
    satellite, orbit = f"S2{letter}", f"R{relative:03d}"
    return f"{satellite}_MSIL2A_{taken}_{orbit}_T{scene.frame}_{generated}", {
        "datetime": _iso(scene.start),
        "platform": f"Sentinel-2{letter}",
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "eo:cloud_cover": scene.cloud,
        "sat:orbit_state": "descending",
        "sat:relative_orbit": relative,
        "s2:mgrs_tile": scene.frame,
        "s2:product_type": "S2MSI2A",
        "s2:datatake_id": f"G{satellite}_{taken}_{scene.orbit:06d}_N{version}",
        "s2:datatake_type": "INS-NOBS",
        "s2:datastrip_id": f"{satellite}_OPER_MSI_L2A_DS_2BPS_{generated}_S{strip}_N{version}",
        "s2:product_uri": f"{satellite}_MSIL2A_{taken}_N{baseline:04d}_{orbit}_T{scene.frame}_{generated}.SAFE",
        "s2:generation_time": _iso(made),
        "s2:processing_baseline": version,
    }


def _describe_landsat(scene: _Scene) -> tuple[str, dict[str, Any]]:
    number = scene.mission.key[-1]
    path, row = scene.frame[:3], scene.frame[3:]
    day = _compact(scene.start)[:8]
    category = "T2" if scene.luck < 0.12 else "T1"
    date = scene.start.astype("datetime64[s]").item()
    return f"LC0{number}_L2SP_{scene.frame}_{day}_02_{category}", {
        "datetime": _iso(scene.start),
        "platform": scene.mission.platform,
        "instruments": ["oli", "tirs"],
        "gsd": 30,
        "eo:cloud_cover": -1 if scene.cloud is None else round(scene.cloud, 2),
        "view:off_nadir": 0,
        "landsat:wrs_type": "2",
        "landsat:wrs_path": path,
        "landsat:wrs_row": row,
        "landsat:scene_id": f"LC{number}{scene.frame}{date:%Y%j}LGN00",
        "landsat:correction": "L2SP",
        "landsat:collection_number": "02",
        "landsat:collection_category": category,
    }


def _describe_enmap(scene: _Scene) -> tuple[str, dict[str, Any]]:
    made = scene.end + np.timedelta64(int(86_400 * (0.6 + scene.luck)), "s")
    datatake = int(scene.frame)
    version = "01.04.02"
    name = f"ENMAP01-____L2A-DT{datatake:010d}_{_compact(scene.start)}Z_{scene.number:03d}_V010402_{_compact(made)}Z"
    return name, {
        "datetime": _iso(scene.start, "s"),
        "start_datetime": _iso(scene.start),
        "end_datetime": _iso(scene.end),
        "created": _iso(made),
        "platform": "enmap",
        "version": version,
        "eo:cloud_cover": None if scene.cloud is None else f"{scene.cloud:.0f}",
        "eo:instrument": "HSI",
        "sat:orbit_state": "DESCENDING",
        "processing:level": "L2A",
        "enmap:datatakeID": f"{datatake:010d}",
        "enmap:tileID": f"{scene.number:02d}",
        "enmap:processingDate": _iso(made),
    }


def _describe_emit(scene: _Scene) -> tuple[str, dict[str, Any]]:
    date = scene.start.astype("datetime64[s]").item()
    midnight = scene.start.astype("datetime64[D]").astype("datetime64[ms]")
    revolution = int((scene.start - midnight) / np.timedelta64(1, "s") // scene.mission.period_s) + 1
    # The scene's own start second is in the name, so that a number counted per orbit cannot make two scenes of one name
    name = f"EMIT_L2A_RFL_001_{_compact(scene.start)}_{date:%y%j}{revolution:02d}_{scene.number:03d}"
    return name, {
        "datetime": _iso(scene.start, "s"),
        "start_datetime": _iso(scene.start, "s"),
        "end_datetime": _iso(scene.end, "s"),
        "platform": "ISS",
        "instruments": ["EMIT Imaging Spectrometer"],
        "eo:cloud_cover": None if scene.cloud is None else round(scene.cloud),
    }


_DESCRIBERS: Mapping[str, Callable[[_Scene], tuple[str, dict[str, Any]]]] = {
    "sentinel-2": _describe_sentinel_2,
    "landsat-8-9": _describe_landsat,
    "enmap": _describe_enmap,
    "emit": _describe_emit,
}


# --- holdings -------------------------------------------------------------------------------------------------------------------

# Where our projects are: west, south, east, north
_REGIONS = ((-130, 22, -60, 56), (-12, 35, 33, 62), (112, -40, 155, -10), (10, -35, 42, -4), (-12, 4, 16, 18))


def _percent(value: object) -> float:
    try:
        percent = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    return percent if 0 <= percent <= 100 else math.nan


def _from_geojson(geometries: Sequence[Mapping[str, Any]]) -> Geometries:
    found: Geometries = shapely.from_geojson(np.array([json.dumps(geometry) for geometry in geometries], dtype=object))
    return found


def _biased_subset(
    geometries: Geometries,
    times: NDArray[np.datetime64],
    clouds: Floats,
    ids: NDArray[np.object_],
    sensor: str,
    rng: np.random.Generator,
    share: float,
) -> gpd.GeoDataFrame:
    if not len(geometries):
        return _holdings([], [], [], [], sensor)
    bounds = shapely.bounds(geometries)
    lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    ours = np.zeros(len(lon), bool)
    for west, south, east, north in _REGIONS:
        ours |= (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
    weight = np.where(ours, 1.0, 0.12) * np.where(clouds < 10, 1.0, np.where(clouds < 30, 0.4, np.where(np.isnan(clouds), 0.15, 0.06)))
    factor = share / weight.mean()
    for _ in range(20):  # the chance ends at 1, so the factor for the wanted share is found step by step
        factor *= min(4.0, share / max(np.minimum(1, factor * weight).mean(), 1e-9))
    held = np.flatnonzero(rng.random(len(lon)) < np.minimum(1, factor * weight))
    shapes, when, cloud, names = geometries[held], times[held].copy(), clouds[held], ids[held].copy()
    nameless = np.flatnonzero(rng.random(len(held)) < 0.33)
    names[nameless] = None
    when[nameless] += rng.integers(-20_000, 20_001, len(nameless)).astype("timedelta64[ms]")
    shapes[nameless] = _moved(shapes[nameless], rng.uniform(-0.03, 0.03, (len(nameless), 2)))
    # Deliveries that no catalogue lists: a place we have, at another hour
    extra = rng.choice(len(held), size=min(len(held), 1 + len(held) // 100), replace=False) if len(held) else np.zeros(0, int)
    shapes = np.concatenate([shapes, shapes[extra]])
    when = np.concatenate([when, when[extra] + np.timedelta64(5, "h")])
    cloud, names = (
        np.concatenate([cloud, cloud[extra]]),
        np.concatenate([names, [f"DELIVERY-{sensor}-{k:04d}" for k in range(len(extra))]]),
    )
    order = np.argsort(when, kind="stable")
    return _holdings(when[order], cloud[order], names[order], shapes[order], sensor)


def _moved(footprints: Geometries, by: Floats) -> Geometries:
    """Footprints shifted by a share of their own width and height; those that would leave the map stay."""
    bounds = shapely.bounds(footprints)
    step = np.round(by * (bounds[:, 2:] - bounds[:, :2]), 5)
    inside = (bounds[:, 0] + step[:, 0] >= -180) & (bounds[:, 2] + step[:, 0] <= 180) & (bounds[:, 2] - bounds[:, 0] < 180)
    inside &= (bounds[:, 1] + step[:, 1] >= -90) & (bounds[:, 3] + step[:, 1] <= 90)
    step[~inside] = 0
    coordinates, owner = shapely.get_coordinates(footprints, return_index=True)
    moved: Geometries = shapely.set_coordinates(footprints.copy(), coordinates + step[owner]) if len(footprints) else footprints
    return moved


def _holdings(when: Any, cloud: Any, names: Any, shapes: Any, sensor: str) -> gpd.GeoDataFrame:
    columns = {
        "datetime": pd.to_datetime(np.asarray(when, dtype="datetime64[ms]"), utc=True).as_unit("us"),
        "sensor": pd.Series([sensor] * len(when), dtype=object),
        "cloud": np.asarray(cloud, dtype=np.float64),
        "scene_id": pd.Series(list(names), dtype=object),
    }
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(list(shapes)), crs="EPSG:4326")
