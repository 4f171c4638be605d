"""How long a month of footprints takes to become cell statistics at 0.1°, beside DuckDB, rasterio, shapely and a floor.

    python -m benchmarks.gridding [--footprints 450000] [--peer-sample 5000]

Prints one line of JSON; each ratio is the other's seconds over ours, but for the floor's, which is ours over the floor's.

* Ours: from a GeoParquet file, as the pipeline writes scenes, to all statistics and day masks of every cell, with the default engine.
* The floor: the same read and the same decoding of WKB, and then no more than one OR of a 32-bit mask for every footprint-cell pair into
  one array, in one compiled loop over ranges that were computed beforehand: what any way of making a single mask costs.
* DuckDB: from a Parquet file to the same statistics, on all threads: bounds expanded to cells, these joined to boxes made beforehand, the
  spatial extension's exact ``ST_Intersects``, GROUP BY (``benchmarks.spatial_sql``). ``duckdb_inline`` makes the boxes in the query,
  ``duckdb_spatial_join`` has ``ST_Intersects`` as the join's condition.
* rasterio: ``rasterize(all_touched, add)``, one count and no masks.
* shapely: prepared footprints, ``intersects`` with the boxes of the cells of their bounds in one call; one count and no masks.

Medians of five rounds in which all take turns; ``cpu_`` figures are of processor time. The peers run on a sample, and their time is
scaled linearly, less what a single footprint costs (DuckDB's grows linearly up to ten times the sample, as tried). Some of their work is
done before their clocks start: the cells' boxes are made, and for rasterio and shapely the file is read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numba import njit
from numpy.typing import NDArray
from upath import UPath

from benchmarks.archive import cloud_covers, scenes_table, squares, times_in, write_scenes
from benchmarks.memory import peak_rss_mb
from benchmarks.spatial_sql import NoSpatialSql, Scenes, compare, snapped_squares, statistics_by_sql
from benchmarks.timing import Taken, median_of, taken_by
from coverage_pipeline.geometry.wkb import RaggedArrays, ragged_from_wkb
from coverage_pipeline.grid import kernel
from coverage_pipeline.grid.bands import Engine
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import CellStatistics, statistics_in_bands
from coverage_pipeline.months import Month
from coverage_pipeline.storage.tables import read_parquet

GRID = GridSpec(0.1)
MONTH = Month(2025, 1)
CLOUD_LT = 10.0
COLUMNS = ["pass_time", "cloud_cover", "geometry"]
RUNS = 5
_SNAPPED = 200


def sentinel2_like(n: int, seed: int = 2025) -> Scenes:
    """Squares of about 110 km, slightly turned as UTM tiles are, between 56° S and 72° N; day, cloud and clear."""
    rng = np.random.default_rng(seed)
    footprints = squares(n, 110, 3, (-56, 72), rng, longitudes=178)
    cloud = cloud_covers(n, rng)
    return Scenes(footprints, rng.integers(1, 32, n).astype(np.uint8), cloud, np.nan_to_num(cloud, nan=100) < CLOUD_LT)


def write_month(path: UPath, scenes: Scenes) -> None:
    """The scenes as the pipeline has them on disk: in the order of their acquisition, at any time of day."""
    order = np.argsort(scenes.day, kind="stable")
    within = times_in(MONTH.start, MONTH.start.replace(day=2), len(order), np.random.default_rng(1)).cast(pa.int64()).to_numpy()
    acquired = pa.array(np.sort(within + (scenes.day[order].astype(np.int64) - 1) * 86_400_000_000)).cast(pa.timestamp("us", tz="UTC"))
    geometry = pa.array(shapely.to_wkb(scenes.footprints[order]), pa.binary())
    write_scenes(path, "sentinel-2", MONTH, scenes_table("S2", acquired, scenes.cloud[order], geometry))


def _read(path: UPath) -> tuple[RaggedArrays, NDArray[np.uint8], NDArray[np.float64]]:
    """Decoded footprints, day and cloud."""
    table, _ = read_parquet(path, COLUMNS)
    day = pc.day(table["pass_time"]).to_numpy().astype(np.uint8)
    return ragged_from_wkb(table["geometry"]), day, table["cloud_cover"].to_numpy(zero_copy_only=False).astype(np.float64)


def ours(path: UPath, engine: Engine | None = None) -> list[CellStatistics]:
    """From the file to all statistics, as the bands come."""
    footprints, day, cloud = _read(path)
    return list(statistics_in_bands(*footprints, day=day, cloud=cloud, clear=cloud < CLOUD_LT, grid=GRID, engine=engine))


def covered(path: UPath) -> NDArray[np.int32]:
    """Ranges that the footprints cover: footprint, row, first and last column."""
    (coords, rings, polygons, geometries), _, _ = _read(path)
    geometry_rings = polygons[geometries]
    signs = kernel.ring_signs(kernel.ring_areas(coords, rings), polygons)
    which = np.arange(len(geometry_rings) - 1)
    ranges: NDArray[np.int32] = kernel.covered_ranges(coords, rings, geometry_rings, signs, which, GRID.kernel_grid()).astype(np.int32)
    return ranges


@njit(cache=True)
def _one_or_a_pair(ranges, bits, out):  # type: ignore[no-untyped-def]
    for i in range(len(ranges)):
        bit = bits[ranges[i, 0]]
        row = out[ranges[i, 1]]
        for column in range(ranges[i, 2], ranges[i, 3] + 1):
            row[column] |= bit


def floor(path: UPath, ranges: NDArray[np.int32]) -> NDArray[np.uint32]:
    """The days of every cell, where the ranges are known already."""
    _, day, _ = _read(path)
    days = np.zeros(GRID.shape, np.uint32)
    _one_or_a_pair(ranges, np.left_shift(np.uint32(1), day.astype(np.uint32) - 1), days)
    return days


def rasterio_count(footprints: NDArray[np.object_]) -> Callable[[], object]:
    """One count by GDAL's rasteriser, all_touched, ready to be called."""
    import rasterio.features
    import rasterio.transform
    from rasterio.enums import MergeAlg

    rows, columns = GRID.shape
    transform = rasterio.transform.from_bounds(-180, -90, 180, 90, columns, rows)
    options = {"out_shape": (rows, columns), "transform": transform, "default_value": 1, "dtype": "int32", "merge_alg": MergeAlg.add}
    return partial(rasterio.features.rasterize, footprints.tolist(), all_touched=True, **options)


def _in_bounds(footprints: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each footprint with each cell that its bounds reach: places of the footprints, and flat cells."""
    west, south, east, north = shapely.bounds(footprints).T
    first_row, end_row = np.searchsorted(GRID.lat_edges, south, "right") - 1, np.searchsorted(GRID.lat_edges, north, "left")
    first, end = np.searchsorted(GRID.lon_edges, west, "right") - 1, np.searchsorted(GRID.lon_edges, east, "left")
    wide = end - first
    counts = (end_row - first_row) * wide
    owner = np.repeat(np.arange(len(footprints)), counts)
    row, column = np.divmod(np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts), wide[owner])
    return owner, (first_row[owner] + row) * GRID.shape[1] + first[owner] + column


def shapely_count(footprints: NDArray[np.object_]) -> Callable[[], object]:
    """One count by prepared footprints, all pairs in one vectorised call, ready to be called."""
    cells, place = np.unique(_in_bounds(footprints)[1], return_inverse=True)
    row, column = np.divmod(cells, GRID.shape[1])
    boxes = shapely.box(GRID.lon_edges[column], GRID.lat_edges[row], GRID.lon_edges[column + 1], GRID.lat_edges[row + 1])

    def count() -> None:
        mine = footprints.copy()
        owner, cell = _in_bounds(mine)
        shapely.prepare(mine)
        met = shapely.intersects(mine[owner], boxes[place])
        np.bincount(cell[met], minlength=GRID.shape[0] * GRID.shape[1])
        shapely.destroy_prepared(mine)

    return count


def _peak_mb(path: UPath) -> int:
    """The most memory that ours takes, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gridding", "--only", str(path)]
    return int(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["peak_mb"])


def _first(scenes: Scenes, count: int) -> Scenes:
    return Scenes(scenes.footprints[:count], scenes.day[:count], scenes.cloud[:count], scenes.clear[:count])


def _compared(sample: Scenes) -> dict[str, Any]:
    """Whether DuckDB finds the same, of the sample and of boxes on the grid's own edges."""
    n = _SNAPPED
    more = sentinel2_like(n, seed=1)
    found = compare(
        Scenes(
            np.concatenate([sample.footprints, snapped_squares(n)]),
            np.concatenate([sample.day, more.day]),
            np.concatenate([sample.cloud, more.cloud]),
            np.concatenate([sample.clear, more.clear]),
        )
    )
    return {
        "compared_cells": found.cells,
        "compared_snapped_boxes": n,
        "differing_cells": found.differing,
        "explained_by_edge_rule": found.explained,
    }


def _turns(path: UPath, ranges: NDArray[np.int32], sample: Scenes) -> tuple[dict[str, Taken], str]:
    """Medians of all, which take turns; and why DuckDB is not among them, where it is not to be had."""
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(path),
        "floor": lambda: floor(path, ranges),
        "one_thread": lambda: ours(path, Engine(threads=1)),
        "read": lambda: read_parquet(path, COLUMNS),
        "read_decode": lambda: _read(path),
        "rasterio": rasterio_count(sample.footprints),
        "rasterio_of_one": rasterio_count(sample.footprints[:1]),
        "shapely": shapely_count(sample.footprints),
        "shapely_of_one": shapely_count(sample.footprints[:1]),
    }
    for call in calls.values():
        call()  # compile, and fill caches
    taken: dict[str, list[Taken]] = defaultdict(list)
    reason = ""
    for _ in range(RUNS):
        for name, call in calls.items():
            taken[name].append(taken_by(call))
        try:
            for name, one in (statistics_by_sql(sample)[0] if not reason else {}).items():
                taken[f"duckdb_{name}"].append(one)
        except NoSpatialSql as why:
            reason = str(why)
    return {name: median_of(some) for name, some in taken.items()}, reason


def measure(footprints: int, peer_sample: int) -> dict[str, Any]:
    """All of it."""
    scenes = sentinel2_like(footprints)
    sample = _first(scenes, min(peer_sample, footprints))
    with tempfile.TemporaryDirectory() as folder:
        path = UPath(folder) / "month.parquet"
        write_month(path, scenes)
        del scenes
        ranges = covered(path)
        taken, reason = _turns(path, ranges, sample)
        cells = CellStatistics.joined(ours(path))
        pairs = int(cells.scenes.sum())
        assert pairs == int((ranges[:, 3] - ranges[:, 2] + 1).sum())
        days = floor(path, ranges).reshape(-1)
        assert np.array_equal(days[cells.cell], cells.days)
        assert np.count_nonzero(days) == len(cells.cell)
        peak = _peak_mb(path)
    mine, least = taken["ours"], taken["floor"]
    line: dict[str, Any] = {
        "bench": "gridding",
        "footprints": footprints,
        "resolution": GRID.resolution,
        "cells": len(cells.cell),
        "pairs": pairs,
        "seconds": round(mine.wall, 3),
        "cpu_seconds": round(mine.cpu, 3),
        "footprints_per_s": round(footprints / mine.wall),
        "peak_mb": peak,
        "threads": Engine().threads,
        "seconds_one_thread": round(taken["one_thread"].wall, 3),
        "read_seconds": round(taken["read"].wall, 3),
        "read_decode_seconds": round(taken["read_decode"].wall, 3),
        "floor_seconds": round(least.wall, 3),
        "floor_ratio": round(mine.wall / least.wall, 2),
        "floor_cpu_ratio": round(mine.cpu / least.cpu, 2),
        "peer_sample": len(sample.footprints),
    }
    scale = footprints / len(sample.footprints)
    for name, of in (("duckdb", "duckdb_join"), ("rasterio", "rasterio"), ("shapely", "shapely")):
        if of not in taken:
            line |= {f"{name}_ratio": None, f"{name}_reason": reason}
            continue
        fixed = taken.get(f"{of}_of_one", Taken(0, 0))
        wall, cpu = ((some - once) * scale + once for some, once in zip(taken[of], fixed, strict=True))
        line |= {
            f"{name}_seconds": round(wall, 1),
            f"{name}_ratio": round(wall / mine.wall, 1),
            f"{name}_cpu_ratio": round(cpu / mine.cpu, 1),
        }
    if not reason:
        line |= {f"{name}_seconds": round(taken[name].wall * scale, 1) for name in ("duckdb_inline", "duckdb_spatial_join")}
        line |= _compared(sample)
    return line


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footprints", type=int, default=int(os.environ.get("BENCH_FOOTPRINTS", "450000")))
    parser.add_argument("--peer-sample", type=int, default=int(os.environ.get("BENCH_PEER_SAMPLE", "5000")))
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.only:
        ours(UPath(chosen.only))
        print(json.dumps({"peak_mb": peak_rss_mb()}))
        return
    print(json.dumps(measure(chosen.footprints, chosen.peer_sample)), flush=True)


if __name__ == "__main__":
    main()
