"""Simulated holdings: a biased part of the simulated archive."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from coverage_pipeline.demo.archive import simulated_footprints
from coverage_pipeline.demo.items import compact
from coverage_pipeline.demo.missions import Floats, Geometries
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor


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
        return holdings_table([], [], [], [], "")
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
        return holdings_table([], [], [], [], "")
    table = simulated_footprints(sensor.key, month, seed=seed)
    times = table["datetime"].dt.tz_localize(None).to_numpy("datetime64[ms]")
    ends = table["end"].dt.tz_localize(None).to_numpy("datetime64[ms]")
    names = [
        f"PRS_L2D_STD_{compact(a).replace('T', '')}_{compact(b).replace('T', '')}_{number:04d}"
        for a, b, number in zip(times, ends, table["number"], strict=True)
    ]
    rng = np.random.default_rng([seed, zlib.crc32(sensor.key.encode()), month.year, month.month, 3])
    ids = np.array(names, dtype=object)
    return _biased_subset(table.geometry.to_numpy(), times, table["cloud"].to_numpy(), ids, sensor.held_satellite, rng, share)


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
    footprints: Geometries = shapely.from_geojson(np.array([json.dumps(geometry) for geometry in geometries], dtype=object))
    return footprints


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
        return holdings_table([], [], [], [], sensor)
    bounds = shapely.bounds(geometries)
    lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    own = np.zeros(len(lon), bool)
    for west, south, east, north in _REGIONS:
        own |= (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
    weight = np.where(own, 1.0, 0.12) * np.where(clouds < 10, 1.0, np.where(clouds < 30, 0.4, np.where(np.isnan(clouds), 0.15, 0.06)))
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
    return holdings_table(when[order], cloud[order], names[order], shapes[order], sensor)


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


def holdings_table(when: Any, cloud: Any, names: Any, shapes: Any, sensor: str) -> gpd.GeoDataFrame:
    columns = {
        "datetime": pd.to_datetime(np.asarray(when, dtype="datetime64[ms]"), utc=True).as_unit("us"),
        "sensor": pd.Series([sensor] * len(when), dtype=object),
        "cloud": np.asarray(cloud, dtype=np.float64),
        "scene_id": pd.Series(list(names), dtype=object),
    }
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(list(shapes)), crs="EPSG:4326")
