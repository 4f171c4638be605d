"""How long a month of footprints takes to become cell statistics at 0.1°, beside DuckDB, rasterio, shapely and a floor.

    python -m benchmarks.gridding [--footprints 450000] [--peer-sample 5000]

Prints one line of JSON; each ratio is the other's seconds over ours, but for the floor's, which is ours over the floor's.

* Ours: from a GeoParquet file, as the pipeline writes scenes, to all statistics and day masks of every cell, with the default engine.
* The floor: the same read and the same decoding of WKB, and then no more than one OR of a 32-bit mask for every footprint-cell pair into
  one array, in one compiled loop over ranges that were computed beforehand: what any way of making a single mask costs.
* DuckDB: the spatial extension's exact ``ST_Intersects``, from a Parquet file to the same statistics (``benchmarks.spatial_sql``).
* rasterio: ``rasterize(all_touched, add)``, one count and no masks.
* shapely: prepared footprints against the boxes of the cells of their bounds, one count and no masks.

The peers run on a sample, and their time is scaled linearly (DuckDB's is linear up to ten times the sample, as tried). Some of their
work is done before their clocks start: the cells' boxes are made, and for rasterio and shapely the file is read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
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
from benchmarks.timing import medians
from coverage_pipeline import grid_kernel as kernel
from coverage_pipeline.grid import CellStatistics, Engine, GridSpec, statistics_in_bands
from coverage_pipeline.months import Month
from coverage_pipeline.store import read_parquet
from coverage_pipeline.wkb import RaggedArrays, ragged_from_wkb

GRID = GridSpec(0.1)
MONTH = Month(2025, 1)
CLOUD_LT = 10.0
COLUMNS = ["acquired", "cloud_cover", "geometry"]
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
    day = pc.day(table["acquired"]).to_numpy().astype(np.uint8)
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


def rasterio_seconds(footprints: NDArray[np.object_]) -> float:
    """One count by GDAL's rasteriser, all_touched; median of three."""
    import rasterio.features
    import rasterio.transform
    from rasterio.enums import MergeAlg

    rows, columns = GRID.shape
    shapes = footprints.tolist()
    transform = rasterio.transform.from_bounds(-180, -90, 180, 90, columns, rows)
    options = {"out_shape": (rows, columns), "transform": transform, "default_value": 1, "dtype": "int32"}
    return medians({"rasterio": lambda: rasterio.features.rasterize(shapes, all_touched=True, merge_alg=MergeAlg.add, **options)}, 3)[
        "rasterio"
    ]


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


def shapely_seconds(footprints: NDArray[np.object_]) -> float:
    """One count by prepared footprints, all pairs in one vectorised call; median of three."""
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

    return medians({"it": count}, 3)["it"]


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


def _duckdb(sample: Scenes, scale: float, seconds: float) -> dict[str, Any]:
    """DuckDB's part of the line; why not, where it is not to be had."""
    try:
        taken, _ = statistics_by_sql(sample, runs=3)
        compared = _compared(sample)
    except NoSpatialSql as why:
        return {"duckdb_ratio": None, "duckdb_reason": str(why)}
    return {
        "duckdb_ratio": round(taken["join"] * scale / seconds, 1),
        **{f"duckdb_{name}_seconds": round(one * scale, 1) for name, one in taken.items()},
        "duckdb_method": "join: bounds expanded to cells, joined to cells with boxes made before, ST_Intersects, GROUP BY; "
        "inline: the boxes made in the query; spatial_join: ST_Intersects as the join's condition; all threads",
        **compared,
    }


def measure(footprints: int, peer_sample: int) -> dict[str, Any]:
    """All of it."""
    scenes = sentinel2_like(footprints)
    sample = _first(scenes, min(peer_sample, footprints))
    with tempfile.TemporaryDirectory() as folder:
        path = UPath(folder) / "month.parquet"
        write_month(path, scenes)
        del scenes
        ranges = covered(path)
        ours(path), floor(path, ranges)  # compile
        alone = Engine(threads=1)
        taken = medians({"ours": lambda: ours(path), "floor": lambda: floor(path, ranges), "one": lambda: ours(path, alone)}, 5)
        parts = medians({"read": lambda: read_parquet(path, COLUMNS), "read_decode": lambda: _read(path)}, 3)
        cells = CellStatistics.joined(ours(path))
        pairs = int(cells.scenes.sum())
        assert pairs == int((ranges[:, 3] - ranges[:, 2] + 1).sum())
        days = floor(path, ranges).reshape(-1)
        assert np.array_equal(days[cells.cell], cells.days)
        assert np.count_nonzero(days) == len(cells.cell)
        peak = _peak_mb(path)
    seconds, scale = taken["ours"], footprints / len(sample.footprints)
    raster, prepared = (each(sample.footprints) * scale for each in (rasterio_seconds, shapely_seconds))
    return {
        "bench": "gridding",
        "footprints": footprints,
        "resolution": GRID.resolution,
        "cells": len(cells.cell),
        "pairs": pairs,
        "seconds": round(seconds, 3),
        "footprints_per_s": round(footprints / seconds),
        "peak_mb": peak,
        "threads": Engine().threads,
        "seconds_one_thread": round(taken["one"], 3),
        "read_seconds": round(parts["read"], 3),
        "read_decode_seconds": round(parts["read_decode"], 3),
        "floor_seconds": round(taken["floor"], 3),
        "floor_ratio": round(seconds / taken["floor"], 2),
        "peer_sample": len(sample.footprints),
        **_duckdb(sample, scale, seconds),
        "rasterio_seconds": round(raster, 1),
        "rasterio_ratio": round(raster / seconds, 1),
        "shapely_seconds": round(prepared, 1),
        "shapely_ratio": round(prepared / seconds, 1),
        "shapely_method": "prepared footprints, intersects over the cells of their bounds in one call, boxes made before; one count",
    }


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
