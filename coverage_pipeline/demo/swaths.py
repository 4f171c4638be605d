"""Footprints along an orbit by spherical geometry, which of them lie on land, and the sun above them."""

from __future__ import annotations

import math
import zlib
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from coverage_pipeline.demand.scope import land_mask
from coverage_pipeline.demo.missions import Floats, Geometries, Ints, Mission, wrapped
from coverage_pipeline.geometry import outlines as geodata
from coverage_pipeline.geometry.footprints import EARTH_RADIUS_KM
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month

_COLUMNS = ("datetime", "end", "geometry", "cloud", "platform", "orbit", "frame", "number", "scene", "part", "copy")


def swath_footprints(lon: Floats, lat: Floats) -> Geometries:
    """Valid polygons of rings (n, vertices) in unwrapped longitudes, split where they cross ±180 (RFC 7946, 3.1.9)."""
    lon = np.round(lon - 360 * np.floor((lon.mean(axis=1, keepdims=True) + 180) / 360), 5)
    polygons: Geometries = shapely.polygons(np.stack([lon, np.round(lat, 5)], axis=-1))
    crossing = np.flatnonzero((lon.max(axis=1) > 180) | (lon.min(axis=1) < -180))
    if len(crossing):
        polygons[crossing] = split_at_antimeridian(polygons[crossing])
    return polygons


def split_at_antimeridian(polygons: Geometries) -> Geometries:
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


def frame_footprints(
    mission: Mission, along: Floats, node_lon: Floats, cross_km: Floats | float = 0.0
) -> tuple[Floats, Floats, Geometries]:
    """Scenes centred at those angles along the track: centre latitude, centre longitude, footprint."""
    half = math.degrees(mission.frame_km / EARTH_RADIUS_KM) / 2
    side = mission.swath_km / 2
    lat, lon = mission.ground(along, cross_km)
    corners = [mission.ground(along + du, cross_km + dc) for du, dc in ((-half, side), (half, side), (half, -side), (-half, -side))]
    lats = np.stack([corner[0] for corner in corners], axis=-1)
    lons = np.stack([lon + wrapped(corner[1] - lon) for corner in corners], axis=-1) + node_lon[:, None]
    return lat, wrapped(lon + node_lon), swath_footprints(lons, lats)


@cache
def _land_tree() -> shapely.STRtree:
    """Land in pieces of ten degrees: whole continents make every question slow."""
    tiles = [(x, y) for x in range(-180, 180, 10) for y in range(-90, 90, 10)]
    parts = np.array(geodata.land().geoms, dtype=object)
    pieces = [shapely.clip_by_rect(parts, x, y, x + 10, y + 10) for x, y in tiles]
    flat = np.concatenate(pieces)
    return shapely.STRtree(shapely.make_valid(flat[~shapely.is_empty(flat)]))


def touches_land(footprints: Geometries) -> NDArray[np.bool_]:
    on_land = np.zeros(len(footprints), bool)
    on_land[_land_tree().query(footprints, predicate="intersects")[0]] = True
    return on_land


def on_land(lat: Floats, lon: Floats) -> NDArray[np.bool_]:
    grid = GridSpec(0.25)
    row = np.clip(((lat + 90) * 4).astype(int), 0, grid.shape[0] - 1)
    column = np.clip(((lon + 180) * 4).astype(int), 0, grid.shape[1] - 1)
    found: NDArray[np.bool_] = land_mask(grid, 0.0)[row, column]
    return found


def sun_elevation(time: NDArray[np.datetime64], lat: Floats, lon: Floats) -> Floats:
    """Degrees above the horizon, by mean solar time and a sinusoidal declination (within about 1°, Cooper 1969)."""
    day = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    declination = np.radians(23.44) * np.sin(2 * np.pi * (day - 80) / 365.24)
    hour = np.radians(15 * (day % 1 * 24 - 12) + lon)
    phi = np.radians(lat)
    sine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)
    elevation: Floats = np.degrees(np.arcsin(np.clip(sine, -1, 1)))
    return elevation


# --- passes and scenes ----------------------------------------------------------------------------------------------------------


def pass_times(mission: Mission, orbit: Ints, along: Floats) -> NDArray[np.datetime64]:
    flown = np.rint(along / 360 * mission.period_s * 1000).astype("timedelta64[ms]")
    times: NDArray[np.datetime64] = mission.node_time(orbit) + flown
    return times


def scene_table(mission: Mission, orbit: Ints, start: NDArray[np.datetime64], **columns: Any) -> pd.DataFrame:
    """Scenes within the mission's life, in the common columns."""
    seconds = mission.frame_km / (2 * math.pi * EARTH_RADIUS_KM) * mission.period_s
    table = pd.DataFrame({"datetime": start, "orbit": orbit + mission.epoch_orbit, "platform": mission.key, **columns})
    table["end"] = table["datetime"] + np.timedelta64(round(seconds * 1000), "ms")
    for name in _COLUMNS:
        if name not in table.columns:
            table[name] = 0
    alive = start >= np.datetime64(mission.first)
    if mission.last:
        alive &= start < np.datetime64(mission.last)
    return table[alive]


def kept_orbits(mission: Mission, month: Month, density: float) -> Ints:
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


def expand(orbits: Ints, tracks: Ints, track_of_row: Ints) -> tuple[Ints, Ints]:
    """For each orbit all rows of its track: (index into orbits, row). ``track_of_row`` ascends."""
    first = np.searchsorted(track_of_row, tracks, side="left")
    count = np.searchsorted(track_of_row, tracks, side="right") - first
    which = np.repeat(np.arange(len(orbits)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return which, row
