"""Target statistics of a month of footprints, and ``geopandas.overlay`` by day of the same.

    python -m benchmarks.targets [--targets 1000] [--footprints 450000] [--side-km 50] [--peer-days 1]

Prints one line of JSON. A tenth of the footprints is held, half are clear. The peer overlays the targets with the footprints of one day
at a time and dissolves the pieces by target, for the four kinds that differ here: listed, clear, held, held and clear. It runs on
``--peer-days`` of the 30 days and is scaled. The kernel is compiled and loaded before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from benchmarks.archive import squares
from benchmarks.memory import peak_rss_mb
from benchmarks.timing import taken_by
from coverage_pipeline.demand.target_stats import Knowledge, target_statistics
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS

MONTH = Month(2025, 6)
TIME = pa.timestamp("us", tz="UTC")


def made_targets(n: int, side_km: float, vertices: int, rng: np.random.Generator) -> Targets:
    """Ragged outlines of up to ``side_km``, as watersheds and districts are."""
    squares_around = squares(n, side_km, 10, (-50, 65), rng)
    west, south, east, north = shapely.bounds(squares_around).T
    angle = np.sort(rng.uniform(0, 2 * np.pi, (n, vertices)), axis=1)
    radius = rng.uniform(0.6, 1.0, (n, vertices)) / 2
    x = ((west + east) / 2)[:, None] + radius * np.cos(angle) * (east - west)[:, None]
    y = ((south + north) / 2)[:, None] + radius * np.sin(angle) * (north - south)[:, None]
    shapes = shapely.make_valid(shapely.polygons(np.stack([x, y], axis=-1)))
    columns = {"id": [f"t{k}" for k in range(n)], "desired": 3.0, "season": "", "min_cover": 0.95, "area_km2": ellipsoid_km2(shapes)}
    return Targets(gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326"), "benchmark")


def made_files(footprints: NDArray[np.object_], rng: np.random.Generator) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Scenes, matchup and extract as the target statistics read them."""
    n = len(footprints)
    day = rng.integers(1, 31, n)
    times = pa.array(np.datetime64(MONTH.start.replace(tzinfo=None), "us") + (day - 1) * np.timedelta64(86_400_000_000, "us"), TIME)
    wkb = pa.array(shapely.to_wkb(footprints), pa.binary())
    held = rng.random(n) < 0.1
    rows = np.flatnonzero(held)
    names = pa.array([f"h{k}" for k in rows], pa.string())
    offsets = np.concatenate([[0], np.cumsum(held)]).astype(np.int32)
    scenes = pa.table(
        {
            "scene_key": pa.array([f"s{k}" for k in range(n)]),
            "pass_time": times,
            "in_month": pa.array(np.ones(n, bool)),
            "cloud_cover": pa.array(np.where(rng.random(n) < 0.5, 2.0, 60.0)),
            "geometry": wkb,
            "bbox": pa.StructArray.from_arrays(list(map(pa.array, shapely.bounds(footprints).T)), names=["xmin", "ymin", "xmax", "ymax"]),
        }
    )
    nothing = pa.nulls(len(rows), pa.string())
    extract = pa.table(
        {
            "holding": names,
            "scene_id": nothing,
            "scene_key": nothing,
            "rank": nothing,
            "datetime": times.take(pa.array(rows)),
            "pass_time": times.take(pa.array(rows)),
            "date_only": pa.array(np.zeros(len(rows), bool)),
            "sensor": pa.array(["S"] * len(rows)),
            "cloud": pa.nulls(len(rows), pa.float64()),
            "in_month": pa.array(np.ones(len(rows), bool)),
            "geometry": wkb.take(pa.array(rows)),
        },
        schema=HOLDINGS_SCHEMA,
    )
    matchup = pa.table(
        {
            "holdings": pa.ListArray.from_arrays(pa.array(offsets), names),
            "share": pa.array(held.astype(float)),
            "held": pa.array(held),
            "missing": pa.nulls(n, pa.binary()),
        }
    )
    return scenes, matchup, extract


def overlay_by_day(targets: Targets, footprints: NDArray[np.object_], scenes: pa.Table, held: NDArray[np.bool_], days: int) -> float:
    """Seconds that the peer takes for its days."""
    day = np.asarray(scenes["pass_time"].to_pandas().dt.day)
    clear = scenes["cloud_cover"].to_numpy() < 10
    equal_area = targets.table[["id", "geometry"]].to_crs("EPSG:6933")
    flat = gpd.GeoSeries(footprints, crs="EPSG:4326").to_crs("EPSG:6933")
    began = time.perf_counter()
    for d in range(1, days + 1):
        of_day = day == d
        scenes_of_day = gpd.GeoDataFrame({"clear": clear[of_day], "held": held[of_day]}, geometry=flat[of_day].to_numpy(), crs=flat.crs)
        pieces = gpd.overlay(equal_area, scenes_of_day, how="intersection", keep_geom_type=True)
        for kind in (pieces, pieces[pieces.clear], pieces[pieces.held], pieces[pieces.held & pieces.clear]):
            _ = kind.dissolve("id").area
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--footprints", type=int, default=450_000)
    parser.add_argument("--side-km", type=float, default=50.0)
    parser.add_argument("--vertices", type=int, default=100)
    parser.add_argument("--peer-days", type=int, default=1)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(15)
    targets = made_targets(options.targets, options.side_km, options.vertices, rng)
    footprints = squares(options.footprints, 110, 12, (-56, 80), rng)
    scenes, matchup, extract = made_files(footprints, rng)
    sensor = COVERAGE_SENSORS["landsat-8-9"]
    known = Knowledge("complete", None, "read")
    result: list[pa.Table] = []
    target_statistics(targets, scenes[:1000], matchup[:1000], extract[:0], sensor, MONTH, known, cloud_lt=10.0, default_desired=3.0)
    taken = taken_by(
        lambda: result.append(
            target_statistics(targets, scenes, matchup, extract, sensor, MONTH, known, cloud_lt=10.0, default_desired=3.0)
        )
    )
    peak = peak_rss_mb()
    line = {
        "bench": "targets",
        "targets": options.targets,
        "side_km": options.side_km,
        "footprints": options.footprints,
        "pairs": sum(len(row) for row in result[-1]["scenes"].to_pylist()),
        "seconds": round(taken.wall, 2),
        "cpu_seconds": round(taken.cpu, 2),
        "peak_mb": peak,
    }
    if options.peer_days:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = overlay_by_day(targets, footprints, scenes, matchup["held"].to_numpy(), options.peer_days) * 30 / options.peer_days
        line |= {"peer_days": options.peer_days, "overlay_seconds": round(peer, 1), "overlay_ratio": round(peer / taken.wall, 1)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
