"""What each mission images in a month: scenes of WRS-2, tiles of MGRS, frames of a pointed instrument."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from coverage_pipeline.demo.clouds import climate, noise
from coverage_pipeline.demo.missions import MISSIONS, Floats, Mission, wrapped
from coverage_pipeline.demo.swaths import (
    expand,
    frame_footprints,
    kept_orbits,
    on_land,
    pass_times,
    scene_table,
    split_at_antimeridian,
    sun_elevation,
    swath_footprints,
    touches_land,
)
from coverage_pipeline.geometry.footprints import EARTH_RADIUS_KM
from coverage_pipeline.months import Month

# Parts: 13 pairs among 1,000 real Sentinel-2 items of Colorado. Copies: an assumption, they vary with the provider.
_SPLIT_SHARE, _COPY_SHARE = 0.013, 0.01
_TILE_MIN_SHARE = 0.01  # of a tile that a pass must cover to give a product
_ENMAP_STRIPS, _PRISMA_STRIPS = 430, 260  # datatakes a month, assumed: some 3,000 and 400 scenes


@cache
def _wrs2() -> dict[str, Any]:
    """Descending land scenes of the WRS-2, in track order (track = orbit mod 233; path = 1 + 16·track mod 233)."""
    mission = MISSIONS["landsat-8"]
    track, row = (axis.ravel() for axis in np.meshgrid(np.arange(233), np.arange(1, 123), indexing="ij"))
    along = (row - 60) * 360 / 248  # row 60 is the equator, 248 rows an orbit
    lat, lon, footprint = frame_footprints(mission, along, mission.node_lon(track))
    keep = (lat >= mission.reach[0]) & (lat <= mission.reach[1])
    keep[keep] = touches_land(footprint[keep])
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
    orbits = kept_orbits(mission, month, density)
    which, row = expand(orbits, orbits % mission.orbits, frames["track"])
    orbit = orbits[which]
    time = pass_times(mission, orbit, frames["along"][row])
    lit = sun_elevation(time, frames["lat"][row], frames["lon"][row]) > mission.min_sun
    row = row[lit]
    return scene_table(mission, orbit[lit], time[lit], geometry=frames["geometry"][row], frame=frames["frame"][row])


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
    keep[keep] = touches_land(swath_footprints(all_lon[keep], all_lat[keep]))
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
    acquisitions = [
        np.stack([track_of[hit[0]], piece_of[hit[0]], hit[1]])
        for shift in (-360.0, 0.0, 360.0)
        for hit in [tree.query(shapely.transform(flat, lambda c, shift=shift: c + np.array([shift, 0.0])), predicate="intersects")]
    ]
    track, piece, tile = np.concatenate(acquisitions, axis=1)
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
    seen[crossing] = split_at_antimeridian(seen[crossing])
    # A datatake ends where nothing is seen for some degrees of track; its first tile gives its start, as identifiers name it
    order = np.lexsort((tile, along, track))
    track, tile, seen, along = track[order], tile[order], seen[order], along[order]
    first = np.r_[True, (np.diff(track) != 0) | (np.diff(along) > 6)]
    begin = along[first][np.cumsum(first) - 1]
    return {
        "track": track, "along": along, "begin": begin, "geometry": seen, "frame": names[tile],
        "lat": lat[tile].mean(-1), "lon": wrapped(lon[tile].mean(-1)),
    }  # fmt: skip


def _sentinel_2(mission: Mission, month: Month, density: float, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    scenes = _sentinel_2_scenes()
    orbits = kept_orbits(mission, month, density)
    which, row = expand(orbits, orbits % mission.orbits, scenes["track"])
    orbit = orbits[which]
    sensed = pass_times(mission, orbit, scenes["along"][row])
    imaged = sun_elevation(sensed, scenes["lat"][row], scenes["lon"][row]) > mission.min_sun
    if mission.whole_within is not None:
        west, south, east, north = mission.whole_within
        lon, lat = scenes["lon"][row], scenes["lat"][row]
        within = (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
        imaged &= within | (orbit // mission.orbits % 2 == 0)
    orbit, row, sensed = orbit[imaged], row[imaged], sensed[imaged]
    taken = pass_times(mission, orbit, scenes["begin"][row])
    table = scene_table(mission, orbit, taken, geometry=scenes["geometry"][row], frame=scenes["frame"][row])
    table["end"] = pd.Series(sensed, index=np.arange(len(sensed))).loc[table.index].to_numpy()
    return table


def with_parts_and_copies(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
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
    angle = np.arange(-180.0, 180.0, math.degrees(mission.frame_km / EARTH_RADIUS_KM) * 0.98)
    run = np.arange(len(angle)) // 12
    wanted = np.random.default_rng([seed, 11, month.year, month.month]).random((len(orbits), run[-1] + 1))
    on = np.isin(orbits, kept_orbits(mission, month, density))
    orbit, number = (axis.ravel() for axis in np.meshgrid(orbits[on], np.arange(len(angle)), indexing="ij"))
    chance = wanted[on][:, run].ravel()
    likely = chance < 0.5
    orbit, number, chance = orbit[likely], number[likely], chance[likely]
    time = pass_times(mission, orbit, angle[number])
    lat, dlon = mission.ground(angle[number])
    lon = wrapped(dlon + mission.node_lon(orbit))
    keep = (lat >= mission.reach[0]) & (lat <= mission.reach[1]) & on_land(lat, lon)
    keep &= sun_elevation(time, lat, lon) > mission.min_sun
    dryness = -climate(lat, np.zeros(len(lat))) + 0.8 * noise(lat, lon, np.zeros(len(lat)), seed + 1, 1.0)
    keep &= chance < 0.31 / (1 + np.exp(-2.0 * dryness))
    orbit, number, time = orbit[keep], number[keep], time[keep]
    _, _, footprint = frame_footprints(mission, angle[number], mission.node_lon(orbit))
    scene = pd.Series(orbit).groupby(orbit).cumcount().to_numpy() + 1
    return scene_table(mission, orbit, time, geometry=footprint, number=scene, frame="")


def _tasked(mission: Mission, month: Month, density: float, seed: int, rng: np.random.Generator) -> pd.DataFrame:
    """Short strips on random land targets within reach of a pass, more of them where many ask."""
    strips = max(1, round((_ENMAP_STRIPS if mission.key == "enmap" else _PRISMA_STRIPS) * density))
    orbits = mission.orbits_of(month)[1:-1]
    tries = 40 * strips
    orbit = rng.choice(orbits, tries)
    along, cross = rng.uniform(-85, 85, tries), rng.uniform(-mission.look_km, mission.look_km, tries)
    length = np.minimum(rng.geometric(0.12 if mission.key == "enmap" else 0.65, tries), 33)  # 33 tiles: a strip of 1000 km
    lat, dlon = mission.ground(along, cross)
    lon = wrapped(dlon + mission.node_lon(orbit))
    time = pass_times(mission, orbit, along)
    keep = on_land(lat, lon) & (sun_elevation(time, lat, lon) > mission.min_sun)
    keep &= (time >= month.to_datetime64()) & (time < month.shift(1).to_datetime64())
    # Passes crowd together towards the poles; requests do not
    demand = np.cos(np.radians(lat)) / (1 + np.exp(-2.5 * (noise(lat, lon, np.zeros(tries), seed + 2, 1.0) - 0.6)))
    chosen = np.flatnonzero(keep & (rng.random(tries) < demand))[:strips]
    chosen = chosen[np.argsort(time[chosen], kind="stable")]
    strip = np.repeat(np.arange(len(chosen)), length[chosen])
    number = np.arange(len(strip)) - np.repeat(np.cumsum(length[chosen]) - length[chosen], length[chosen])
    tile_along = along[chosen][strip] + number * math.degrees(mission.frame_km / EARTH_RADIUS_KM) * 0.97
    tile_orbit = orbit[chosen][strip]
    lat, lon, footprint = frame_footprints(mission, tile_along, mission.node_lon(tile_orbit), cross[chosen][strip])
    time = pass_times(mission, tile_orbit, tile_along)
    keep = (lat >= mission.reach[0]) & (lat <= mission.reach[1]) & on_land(lat, lon) & (np.abs(tile_along) < 89)
    keep &= sun_elevation(time, lat, lon) > mission.min_sun
    # Datatake numbers grow by 2,500 a month from a real one: DT0000080454 of 2024-06-30
    base = 80_454 + 2_500 * ((month.year - 2024) * 12 + month.month - 6)
    return scene_table(
        mission,
        tile_orbit[keep],
        time[keep],
        geometry=footprint[keep],
        number=number[keep] + 1,
        frame=np.char.mod("%d", base + strip[keep]),
    )


MAKERS: Mapping[str, Callable[[Mission, Month, float, int, np.random.Generator], pd.DataFrame]] = {
    "sentinel-2": _sentinel_2,
    "landsat-8-9": _landsat,
    "emit": _emit,
    "enmap": _tasked,
    "prisma": _tasked,
}
