"""Made-up scenes and holdings of the right number and size, written as the catalogue's and the holdings' steps write them.

Nothing is scanned: the files are there at once, with the columns and the metadata that the later steps read. Footprints lie at
random, so neighbouring rows of a file are nowhere near each other, which is the harder case for caches.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.catalog.scan import scan_month
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.holdings.extract import extract_month
from coverage_pipeline.holdings.metadata import HoldingsMetadata
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA, LAST_SCHEMA
from coverage_pipeline.months import Month, months_between
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.scenes.order import ROWS_A_GROUP, along_the_curve
from coverage_pipeline.scenes.schema import SCENES_SCHEMA, SCENES_VERSION, TIME
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import write_parquet

YEAR = tuple(months_between(Month(2025, 1), Month(2025, 12)))
LOOKBACK_MONTHS = 24


@dataclass(frozen=True)
class Volume:
    """What a sensor brings in a month."""

    side_km: float
    """Of a footprint, a square."""
    turn_degrees: float
    """By which footprints are turned, to either side."""
    latitudes: tuple[float, float]
    """Of their centres."""
    scenes: int
    """Listed by the catalogue."""
    held: float = 0.0
    """Share of the scenes that is held, by scene key."""
    only_held: int = 0
    """Holdings of a sensor without a catalogue."""


VOLUMES: dict[str, Volume] = {
    "emit": Volume(75, 45, (-51, 51), 5_000, held=0.15),
    "enmap": Volume(30, 12, (-70, 78), 8_000, held=0.15),
    "prisma": Volume(30, 12, (-69, 69), 0, only_held=2_000),
    "landsat-8-9": Volume(182, 14, (-78, 80), 45_000, held=0.15),
    "sentinel-2": Volume(110, 3, (-56, 72), 300_000),
}


def squares(
    n: int, side_km: float, turn_degrees: float, latitudes: tuple[float, float], rng: np.random.Generator, longitudes: float = 168.0
) -> NDArray[np.object_]:
    """Turned squares, dense between 20° and 65° N as land is; none reaches across the antimeridian."""
    lat = np.where(rng.random(n) < 0.65, rng.normal(42, 17, n), rng.uniform(*latitudes, n)).clip(*latitudes)
    lon = rng.uniform(-longitudes, longitudes, n)
    half = side_km / 111.2 / 2
    turn = np.deg2rad(rng.uniform(-turn_degrees, turn_degrees, n))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * half
    x = corners[:, 0] * np.cos(turn)[:, None] - corners[:, 1] * np.sin(turn)[:, None]
    y = corners[:, 0] * np.sin(turn)[:, None] + corners[:, 1] * np.cos(turn)[:, None]
    rings = np.stack([lon[:, None] + x / np.cos(np.deg2rad(lat))[:, None], lat[:, None] + y], axis=-1)
    made: NDArray[np.object_] = shapely.polygons(rings)
    return made


def cloud_covers(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Percentages, one in twenty not known (NaN)."""
    return np.where(rng.random(n) < 0.05, np.nan, rng.uniform(0, 100, n))


def times_in(start: dt.datetime, end: dt.datetime, n: int, rng: np.random.Generator) -> pa.Array:
    """Ascending instants."""
    first, last = (int(when.timestamp()) * 1_000_000 for when in (start, end))
    return pa.array(np.sort(rng.integers(first, last, n)), pa.int64()).cast(TIME)


def scenes_table(prefix: str, acquired: pa.Array, cloud: NDArray[np.float64], geometry: pa.Array) -> pa.Table:
    """Scenes with the columns of the catalogue's files."""
    n = len(acquired)
    keys = pa.array([f"{prefix}_{k:06d}" for k in range(n)], pa.string())
    known: dict[str, Any] = {
        "scene_key": keys,
        "item_ids": pa.ListArray.from_arrays(pa.array(np.arange(n + 1), pa.int32()), keys),
        "provider": pa.array(["benchmark"] * n, pa.string()),
        "acquired": acquired,
        "pass_time": acquired,
        "in_month": pa.array(np.ones(n, bool)),
        "datetime": acquired,
        "cloud_cover": pa.array(cloud, pa.float64(), from_pandas=True),
        "geometry_source": pa.array(["footprint"] * n, pa.string()),
        "geometry": geometry,
    }
    return pa.table({field.name: known.get(field.name, pa.nulls(n, field.type)) for field in SCENES_SCHEMA}, schema=SCENES_SCHEMA)


def write_scenes(path: Any, sensor: str, month: Month, scenes: pa.Table) -> None:
    """The file that a complete scan leaves."""
    start, end, scanned = (f"{when:%Y-%m-%dT%H:%M:%SZ}" for when in (month.start, month.end, month.end + dt.timedelta(days=40)))
    report = ScanReport(sensor, start, end, "complete", scanned, provider="benchmark", received=len(scenes), scenes=len(scenes))
    metadata = {"version": SCENES_VERSION, **report.as_json()}
    write_parquet(path, as_geoparquet(along_the_curve(scenes)), metadata, rows_a_group=ROWS_A_GROUP)


def settings_of(root: Path, months: Sequence[Month] = YEAR, sensors: Sequence[str] = tuple(VOLUMES)) -> PlannerSettings:
    """Settings of a build below ``root``: the product's defaults but for place, window and sensors."""
    last = months[-1].end.date() - dt.timedelta(days=1)
    return load_settings(
        overrides={
            "data": str(root),
            "window": {"start": months[0].start.date(), "end": last},
            "sensors": {"keys": list(sensors)},
            "holdings": {"lookback_months": LOOKBACK_MONTHS},
        },
        environment=False,
    )


def write_archive(
    root: Path, months: Sequence[Month] = YEAR, sensors: Sequence[str] = tuple(VOLUMES), *, share: float = 1.0, seed: int = 2025
) -> dict[str, int]:
    """Scenes and holdings of every sensor and month below ``root``; returns how many scenes and holdings there are.

    Every month has the same footprints, on other days. ``share`` is that of the volumes.
    """
    planner = Planner.from_settings(settings_of(root, months, sensors))
    total = {"scenes": 0, "holdings": 0}
    for number, key in enumerate(sensors):
        rng = np.random.default_rng([seed, number])
        for name, count in _write_sensor(planner, COVERAGE_SENSORS[key], VOLUMES[key], months, share, rng).items():
            total[name] += count
    return total


def _write_sensor(
    planner: Planner, sensor: CoverageSensor, volume: Volume, months: Sequence[Month], share: float, rng: np.random.Generator
) -> dict[str, int]:
    """Of one sensor."""
    n = round((volume.scenes or volume.only_held) * share)
    held = round(n * volume.held) if volume.scenes else n

    def some(count: int) -> pa.Array:
        return pa.array(shapely.to_wkb(squares(count, volume.side_km, volume.turn_degrees, volume.latitudes, rng)), pa.binary())

    footprints, cloud = some(n), cloud_covers(n, rng)
    # every scene has an outline of its own: as many footprints as were held within the lookback
    lately = some(held * LOOKBACK_MONTHS)
    for month in months:
        order = rng.permutation(n)
        acquired, clouds, geometry = times_in(month.start, month.end, n, rng), cloud[order], footprints.take(pa.array(order))
        scenes = scenes_table(f"{sensor.key}_{month.key}", acquired, clouds, geometry)
        if volume.scenes:
            write_scenes(planner.store.scenes(sensor.key, month), sensor.key, month, scenes)
        else:
            scan_month(sensor, month, planner.store)  # not applicable, and asks nobody
        if sensor.held_satellite is None:
            extract_month(sensor, month, planner.store, planner.settings)  # a known zero
            continue
        chosen = np.sort(rng.choice(n, held, replace=False))
        since = month.shift(1 - LOOKBACK_MONTHS).start
        last = pa.table({"datetime": times_in(since, month.end, len(lately), rng), "geometry": lately}, schema=LAST_SCHEMA)
        _write_holdings(planner.store, sensor, month, scenes.take(pa.array(chosen)), last)
    return {"scenes": (n if volume.scenes else 0) * len(months), "holdings": held * len(months)}


def _write_holdings(store: Store, sensor: CoverageSensor, month: Month, scenes: pa.Table, last: pa.Table) -> None:
    """The two files that an extract of the holdings leaves."""
    n = scenes.num_rows
    holdings = pa.table(
        {
            "holding": scenes["scene_key"],
            "scene_id": scenes["scene_key"],
            "scene_key": scenes["scene_key"],
            "rank": scenes["scene_key"],
            "datetime": scenes["acquired"],
            "pass_time": scenes["pass_time"],
            "date_only": np.zeros(n, bool),
            "sensor": pa.array([sensor.held_satellite] * n, pa.string()),
            "cloud": scenes["cloud_cover"],
            "in_month": np.ones(n, bool),
            "geometry": scenes["geometry"],
        },
        schema=HOLDINGS_SCHEMA,
    )
    metadata = HoldingsMetadata(
        sensor=sensor.key,
        month=month.key,
        status="read",
        read_at=f"{month.end:%Y-%m-%dT%H:%M:%SZ}",
        run=f"{sensor.key} {month.key}",
        source="benchmark",
        reason="",
        lookback_months=LOOKBACK_MONTHS,
        rows=n,
        footprints=last.num_rows,
    )
    write_parquet(store.last_held(sensor.key, month), as_geoparquet(last), metadata)
    write_parquet(store.holdings(sensor.key, month), as_geoparquet(holdings), metadata)
