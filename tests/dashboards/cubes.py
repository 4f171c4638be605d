"""Small synthetic cubes, written through the planner's own functions, for the dashboard's tests and for looking at
it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.description import update_snapshot
from coverage_pipeline.cube.read import read_partition
from coverage_pipeline.cube.schema import COVERAGE_VARIABLES, GAP_VARIABLES, SCHEMA, CubeSpec, DesiredCadence
from coverage_pipeline.cube.write import write_coverage, write_gap
from coverage_pipeline.demand.gap import compute_gap
from coverage_pipeline.demand.weights import DEFAULT_WEIGHTS
from coverage_pipeline.geometry import outlines as geodata
from coverage_pipeline.grid import daymask
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor

SENSORS = ("emit", "landsat-8-9", "prisma", "sentinel-2")
FIRST = Month(2025, 1)
NOTE = "simulated data: predicted passes with random cloud, for demonstration only"
UNKNOWN_LON = (20.0, 60.0)
"""EMIT's catalogue is not known between these longitudes in any month."""

_SWATH = {"emit": (7.0, 2.6), "enmap": (3.0, 2.3), "landsat-8-9": (24.0, 5.0), "prisma": (3.0, 2.1), "sentinel-2": (72.0, 4.4)}


def build_cube(
    path: Path,
    resolution: float = 2.0,
    months: int = 7,
    sensors: tuple[str, ...] = SENSORS,
    *,
    note: str | None = NOTE,
    h3_res: int | None = None,
) -> Path:
    """A cube whose sensors fly in slanted swaths, with all kinds of not knowing in it."""
    grid = GridSpec(resolution, h3_res=h3_res)
    chosen = tuple(COVERAGE_SENSORS[k] for k in sensors)
    axis = tuple(FIRST.shift(k) for k in range(months))
    lon, lat = grid.lons.astype(np.float32), grid.lats.astype(np.float32)
    if h3_res is None:
        lon, lat = np.meshgrid(lon, lat)
    land = shapely.contains_xy(geodata.land(), lon, lat)
    spec = CubeSpec(grid, chosen, axis, 10, 24, 60, DEFAULT_WEIGHTS, "land", note)
    ensure_cube(path, spec, lambda s: land & (lat >= s.reach[0]) & (lat <= s.reach[1]))
    for sensor in chosen:
        for number, month in enumerate(axis):
            fields, provenance = _partition(sensor, number, month, lon, lat)
            write_coverage(path, sensor.key, month, fields, provenance)
            part, revision = read_partition(path, sensor.key, month)
            gap = compute_gap(part, DesiredCadence())
            values = {n: gap[n].values[0, 0] for n in GAP_VARIABLES}
            values["deficit"] = np.nan_to_num(values["deficit"], nan=-1).astype(np.int16)
            write_gap(path, sensor.key, month, values, desired=float(gap["desired"].item()), made_from=revision)
    update_snapshot(path)
    return path


def _partition(
    sensor: CoverageSensor, number: int, month: Month, lon: NDArray[np.float32], lat: NDArray[np.float32]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    rng = np.random.default_rng([number, len(sensor.key)])
    width, slant = _SWATH[sensor.key]
    in_reach = (lat >= sensor.reach[0]) & (lat <= sensor.reach[1])
    available, clear, unclear, held = (np.zeros(lon.shape, np.uint32) for _ in range(4))
    wet = 0.35 + 0.4 * np.cos(np.radians(lat * 3)) + 0.25 * np.sin(np.radians(lon * 2 + number * 40 + lat))
    campaign = np.sin(np.radians(lon * 3 + 30)) + np.cos(np.radians(lat * 5)) > 0.4
    for day in range(1, month.days + 1):
        along = np.mod(lon + slant * lat / 3 + 47.3 * day + 13 * number, np.float32(360 if width > 10 else 180))
        bit = np.uint32(1 << (day - 1))
        seen = (along < width) & in_reach
        available |= np.where(seen, bit, np.uint32(0))
        cloud = rng.random() * 0.8 < 1 - wet
        clear |= np.where(seen & cloud, bit, np.uint32(0))
        unclear |= np.where(seen & ~cloud & (lat > 35) & (day % 3 == 0), bit, np.uint32(0))
        held |= np.where(seen & campaign & (day % 4 != 0), bit, np.uint32(0))
    held_clear = held & clear
    ingestable, check = clear & ~held_clear, unclear & ~held & ~clear
    count = daymask.observations
    days_since = np.where(campaign, 3 + np.abs(lat) * 2 + number, np.where(np.abs(lat) < 40, 200 + lon, 730.5))
    fields: dict[str, NDArray[Any]] = {
        "scenes_count": count(available) * 2,
        "cloud_free_scene_count": count(clear),
        "cloud_unknown_scene_count": count(unclear),
        "mean_scene_cloud_pct": np.where(available > 0, np.clip(wet * 100, 0, 100), np.nan),
        "available_days": available,
        "clear_days": clear,
        "held_count": count(held),
        "held_clear_count": count(held_clear),
        "held_days": held,
        "held_clear_days": held_clear,
        "days_since_last_held": days_since,
        "unmet_supply": count(ingestable),
        "ingestable_days": ingestable,
        "check_days": check,
    }
    scan, holdings = "complete", "read"
    catalogue = (
        "scenes_count",
        "cloud_free_scene_count",
        "cloud_unknown_scene_count",
        "mean_scene_cloud_pct",
        "available_days",
    )
    catalogue += ("clear_days", "unmet_supply", "ingestable_days", "check_days")
    ours = ("held_count", "held_clear_count", "held_days", "held_clear_days", "days_since_last_held")
    unknown = dict.fromkeys(fields, np.zeros(lon.shape, bool))
    everywhere = np.ones(lon.shape, bool)
    if not sensor.available_sources:
        scan = "not_applicable"
        unknown |= dict.fromkeys(catalogue, everywhere)
    elif sensor.key == "emit":
        scan = "partial"
        unknown |= dict.fromkeys(catalogue, (lon >= UNKNOWN_LON[0]) & (lon < UNKNOWN_LON[1]))
    if sensor.held_satellite is None:
        holdings = "not_held"
        unknown |= dict.fromkeys(ours, everywhere)
    elif sensor.key == "landsat-8-9" and number == 1:
        holdings = "off"
        unknown |= dict.fromkeys(ours, everywhere)
    out = {n: np.where(unknown[n], np.array(SCHEMA[n].fill, SCHEMA[n].dtype), v.astype(SCHEMA[n].dtype)) for n, v in fields.items()}
    if sensor.key == "emit":
        scan = "complete"  # so that absence elsewhere counts, and only the hole does not
    assert set(out) == set(COVERAGE_VARIABLES)
    provenance = {
        "scan_status": SCAN_STATUS.index(scan),
        "holdings_status": HOLDINGS_STATUS.index(holdings),
        "scenes_total": 1000,
        "held_not_in_catalog": 0,
        "scanned_at": 1_767_225_600,
        "provider": "archive.example" if scan != "not_applicable" else "",
    }
    return out, provenance


if __name__ == "__main__":
    build_cube(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 7)
