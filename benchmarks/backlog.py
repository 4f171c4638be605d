"""A backlog of 100,000 candidates for 10,000 targets: how long, and what it saves against taking every overlapping scene.

``python -m benchmarks.backlog`` prints a JSON line, and one for cells in place of targets. Asked: at most 20 s.
"""

from __future__ import annotations

import json
import resource
import time

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely

from coverage_pipeline.demand.partition_files import PartitionFiles
from coverage_pipeline.demand.target_stats import target_statistics
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.geometry.wkb import wkb_bounds
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HoldingsMetadata
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA
from coverage_pipeline.matchup.metadata import MatchupMetadata
from coverage_pipeline.months import Month
from coverage_pipeline.requests.backlog import make_backlog
from coverage_pipeline.requests.demands import demand_of
from coverage_pipeline.requests.places import CellPlaces, TargetPlaces
from coverage_pipeline.scenes.metadata import ScenesMetadata
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS

MONTH = Month(2025, 4)
SENSOR = COVERAGE_SENSORS["sentinel-2"]


def made_targets(number: int, rng: np.random.Generator) -> Targets:
    """Circles of 2 to 50 km across on land-like latitudes."""
    lon, lat = rng.uniform(-120, 140, number), rng.uniform(-40, 60, number)
    radius = rng.uniform(1, 25, number) / 111.2
    shapes, _ = normalise_footprints(shapely.buffer(shapely.points(lon, lat), radius, quad_segs=8))
    table = gpd.GeoDataFrame(
        {
            "id": [f"t{k}" for k in range(number)], "name": "", "group": "", "weight": rng.choice([1.0, 2.0, 5.0], number),
            "desired": 3.0, "season": "", "min_cover": 0.95, "area_km2": ellipsoid_km2(shapes),
        },
        geometry=shapes, crs="EPSG:4326",
    )  # fmt: skip
    return Targets(table, "made")


def made_scenes(targets: Targets, number: int, rng: np.random.Generator) -> pa.Table:
    """Tiles of 110 km near the targets, clear, ten a target, on the days of a 5-day repeat."""
    near = rng.integers(0, len(targets), number)
    centre = shapely.get_coordinates(shapely.centroid(targets.table.geometry.to_numpy()[near]))
    middle = centre + rng.uniform(-0.5, 0.5, (number, 2))
    lean = rng.uniform(0, 0.1, number)
    west, south = middle[:, 0] - 0.5, middle[:, 1] - 0.5
    corners = np.stack(
        [np.column_stack([west + lean, south]), np.column_stack([west + 1, south + lean]), np.column_stack([west + 1 - lean, south + 1]),
         np.column_stack([west, south + 1 - lean])], axis=1,
    )  # fmt: skip
    shapes = shapely.polygons(corners)
    day = rng.integers(0, 6, number) * 5 + near % 5
    when = np.datetime64("2025-04-01T10:00") + day.astype("timedelta64[D]") + rng.integers(0, 600, number).astype("timedelta64[s]")
    wkb = pa.array(shapely.to_wkb(shapes), pa.binary())
    bounds = wkb_bounds(pa.chunked_array([wkb]))
    box = pa.StructArray.from_arrays([pa.array(bounds[:, k]) for k in range(4)], names=["xmin", "ymin", "xmax", "ymax"])
    return pa.table(
        {
            "scene_key": pa.array([f"s{k:06}" for k in range(number)], pa.string()),
            "pass_time": pa.array(when.astype("datetime64[us]"), pa.timestamp("us", tz="UTC")),
            "in_month": pa.array(np.ones(number, bool)),
            "cloud_cover": pa.array(rng.uniform(0, 9.9, number)),
            "geometry": wkb,
            "item_ids": pa.array([[f"i{k}"] for k in range(number)], pa.list_(pa.string())),
            "item_href": pa.nulls(number, pa.string()),
            "collection": pa.array(["made"] * number, pa.string()),
            "provider": pa.array(["stac.example.org"] * number, pa.string()),
            "bbox": box,
        }
    )


def made_part(scenes: pa.Table) -> PartitionFiles:
    """The files of a month without holdings."""
    number = scenes.num_rows
    matchup = pa.table(
        {
            "holdings": pa.array([[]] * number, pa.list_(pa.string())),
            "share": pa.array(np.zeros(number)),
            "held": pa.array(np.zeros(number, bool)),
            "missing": pa.nulls(number, pa.binary()),
        }
    )
    scan = ScenesMetadata(
        sensor=SENSOR.key, start="2025-04-01T00:00:00Z", end="2025-05-01T00:00:00Z", status="complete", scanned_at=None, run="r", bbox=None,
        provider=None, scenes=number,
    )  # fmt: skip
    match = MatchupMetadata.__new__(MatchupMetadata)
    extract = HoldingsMetadata(
        sensor=SENSOR.key, month=MONTH.key, status="not_held", read_at="", run="r", source="", reason="", lookback_months=24
    )
    return PartitionFiles(SENSOR, MONTH, scenes, scan, matchup, match, HOLDINGS_SCHEMA.empty_table(), extract)


def measure_cells(number: int = 450_000) -> dict[str, object]:
    """The same for cells of 0.1°: a month of 450,000 tiles on all land-like latitudes, of which nothing is held."""
    rng = np.random.default_rng(4)
    grid = GridSpec(0.1)
    scenes = made_scenes(made_targets(30_000, rng), number, rng)
    part = made_part(scenes)
    places = CellPlaces(grid)
    wanted = np.full(len(places.weight), 6, np.int64)
    days = np.full(len(wanted), (1 << 30) - 1, np.uint32)
    demand = demand_of(SENSOR.key, [SENSOR.key], wanted, days)
    began = time.perf_counter()
    backlog = make_backlog([part], [demand], places, cloud_lt=10.0)
    return {
        "benchmark": "backlog_cells",
        "candidates": backlog.table.num_rows,
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "chosen": backlog.chosen.num_rows,
        "cell_days_closed": backlog.days_closed,
    }


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(3)
    targets = made_targets(10_000, rng)
    scenes = made_scenes(targets, 100_000, rng)
    part = made_part(scenes)
    began = time.perf_counter()
    stats = target_statistics(
        targets, part.scenes, part.matchup, part.holdings, SENSOR, MONTH, part.known, cloud_lt=10.0, default_desired=3.0
    )
    statistics = time.perf_counter() - began
    deficit, days = stats["deficit"].to_numpy().astype(np.int64), stats["ingestable_days"].to_numpy().astype(np.uint32)
    demand = demand_of(SENSOR.key, [SENSOR.key], deficit, days)
    places = TargetPlaces(targets)
    make_backlog([part], [demand], places, cloud_lt=10.0)  # compiles
    began = time.perf_counter()
    backlog = make_backlog([part], [demand], places, cloud_lt=10.0)
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "benchmark": "backlog",
                "targets": len(targets),
                "candidates": backlog.table.num_rows,
                "seconds": round(seconds, 2),
                "statistics_seconds": round(statistics, 2),
                "chosen": backlog.chosen.num_rows,
                "days_closed": backlog.days_closed,
                "days_wanted": backlog.days_wanted,
                "gb_chosen": round(backlog.bytes_chosen / 1e9),
                "gb_every_overlapping": round(backlog.bytes_candidates / 1e9),
            }
        )
    )


if __name__ == "__main__":
    main()
    print(json.dumps(measure_cells()))
