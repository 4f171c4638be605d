"""How long footprints take to become cell statistics at 0.1°, beside DuckDB and rasterio on a sample of them.

    python -m benchmarks.gridding [--footprints 450000] [--peer-sample 5000]

Prints one line of JSON. The peers run on the sample and their time is scaled linearly to all footprints; the ratios
are peer seconds over kernel seconds. Both peers do less than the kernel: DuckDB's core has no exact predicate between
geometries (the spatial extension is not part of it), so it counts the cells of bounding boxes; rasterio makes one
count, no masks.

``seconds`` is the way from shapely objects; the pipeline's own is from the WKB column of a GeoParquet file, and its time stands
beside that of making objects of the column first. Each of these is the best of three.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import rasterio.features
import rasterio.transform
import shapely
from numpy.typing import NDArray
from rasterio.enums import MergeAlg

from coverage_pipeline.footprints import normalise_footprints
from coverage_pipeline.grid import CellStatistics, GridSpec, cell_statistics, statistics_from_arrays
from coverage_pipeline.wkb import ragged_from_wkb

GRID = GridSpec(0.1)
Scenes = dict[str, NDArray[Any]]


def sentinel2_like(n: int, seed: int = 2025) -> tuple[NDArray[np.object_], Scenes]:
    """Squares of about 110 km, slightly turned as UTM tiles are, between 56° S and 72° N; day, cloud and clear."""
    rng = np.random.default_rng(seed)
    # land lies north: a mixture that is dense between 20° and 65° N
    lat = np.where(rng.random(n) < 0.65, rng.normal(42, 17, n), rng.uniform(-56, 72, n)).clip(-56, 72)
    lon = rng.uniform(-178, 178, n)
    half = 110 / 111.2 / 2
    turn = np.deg2rad(rng.uniform(-3, 3, n))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * half
    x = corners[:, 0] * np.cos(turn)[:, None] - corners[:, 1] * np.sin(turn)[:, None]
    y = corners[:, 0] * np.sin(turn)[:, None] + corners[:, 1] * np.cos(turn)[:, None]
    rings = np.stack([lon[:, None] + x / np.cos(np.deg2rad(lat))[:, None], lat[:, None] + y], axis=-1)
    cloud = np.where(rng.random(n) < 0.05, np.nan, rng.uniform(0, 100, n))
    scenes = {
        "day": rng.integers(1, 31, n).astype(np.uint8),
        "cloud": cloud,
        "clear": np.nan_to_num(cloud, nan=100) < 10,
    }
    return shapely.polygons(rings), scenes


def duckdb_seconds(footprints: NDArray[np.object_], scenes: Scenes) -> tuple[float, float]:
    """Bounding boxes expanded to cells and grouped to the kernel's statistics: with and without ST_Intersects_Extent.

    The cells' own geometries are made before the clock starts.
    """
    bounds = shapely.bounds(footprints)
    columns = {"xmin": bounds[:, 0], "ymin": bounds[:, 1], "xmax": bounds[:, 2], "ymax": bounds[:, 3], **scenes}
    wkb = np.array(shapely.to_wkb(footprints), dtype=object)
    expanded = """
        WITH expanded AS (
          SELECT footprint, day, clear, if(isnan(cloud), NULL, cloud) AS cloud,
                 unnest(range(floor((ymin + 90) * 10)::INT, ceil((ymax + 90) * 10)::INT)) AS r,
                 floor((xmin + 180) * 10)::INT AS c0, ceil((xmax + 180) * 10)::INT AS c1
          FROM scenes),
        pairs AS (SELECT footprint, day, clear, cloud, r * 3600 + unnest(range(c0, c1)) AS cell FROM expanded)"""
    statistics = """
        SELECT cell, count(*) AS scenes, count(*) FILTER (clear) AS clear,
               count(*) FILTER (cloud IS NULL AND NOT clear) AS unknown, avg(cloud) AS cloud_mean,
               bit_or(1::UINTEGER << (day - 1)::UINTEGER) AS days,
               bit_or(1::UINTEGER << (day - 1)::UINTEGER) FILTER (clear) AS clear_days,
               bit_or(1::UINTEGER << (day - 1)::UINTEGER) FILTER (cloud IS NULL AND NOT clear) AS unknown_days
        FROM pairs"""
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.register("numpy_scenes", {**columns, "wkb": wkb})
        connection.execute("CREATE TABLE scenes AS SELECT * EXCLUDE (wkb), ST_GeomFromWKB(wkb::BLOB) AS footprint FROM numpy_scenes")
        connection.execute(
            f"""CREATE TABLE cells AS {expanded}, wanted AS (SELECT DISTINCT cell FROM pairs), corners AS (
            SELECT cell, (cell % 3600) / 10.0 - 180 AS x, (cell // 3600) / 10.0 - 90 AS y FROM wanted)
            SELECT cell, format('POLYGON(({{0}} {{1}},{{2}} {{1}},{{2}} {{3}},{{0}} {{3}},{{0}} {{1}}))',
                                x, y, x + 0.1, y + 0.1)::GEOMETRY AS box FROM corners"""
        )
        started = time.perf_counter()
        connection.execute(f"CREATE TABLE by_bounds AS {expanded} {statistics} GROUP BY cell")
        between = time.perf_counter()
        connection.execute(
            f"CREATE TABLE by_extent AS {expanded} {statistics} JOIN cells USING (cell)"
            " WHERE ST_Intersects_Extent(footprint, box) GROUP BY cell"
        )
        return time.perf_counter() - between, between - started


def rasterio_seconds(footprints: NDArray[np.object_]) -> float:
    """One count by GDAL's rasteriser, all_touched."""
    rows, columns = GRID.shape
    started = time.perf_counter()
    rasterio.features.rasterize(
        footprints.tolist(),
        out_shape=(rows, columns),
        transform=rasterio.transform.from_bounds(-180, -90, 180, 90, columns, rows),
        all_touched=True,
        merge_alg=MergeAlg.add,
        default_value=1,
        dtype="int32",
    )
    return time.perf_counter() - started


def _best[T](call: Callable[[], T]) -> tuple[float, T]:
    """Least seconds of three calls, and what the last one gave."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def wkb_seconds(footprints: NDArray[np.object_], scenes: Scenes) -> dict[str, float]:
    """Both ways from a WKB column to the statistics: the decoding alone, and all of it; they must agree to the last bit."""
    column = pa.array(shapely.to_wkb(footprints), pa.binary())

    def objects() -> NDArray[np.object_]:
        decoded: NDArray[np.object_] = shapely.from_wkb(column.to_numpy(zero_copy_only=False))
        return decoded

    ragged_from_wkb(column[:10])  # compile
    decode, _ = _best(lambda: ragged_from_wkb(column))
    total, direct = _best(lambda: statistics_from_arrays(*ragged_from_wkb(column), **scenes, grid=GRID))
    decode_objects, _ = _best(lambda: shapely.to_ragged_array(objects(), include_z=False))
    total_objects, detour = _best(lambda: cell_statistics(objects(), **scenes, grid=GRID))
    for name in CellStatistics.__dataclass_fields__:
        assert getattr(direct, name).tobytes() == getattr(detour, name).tobytes(), name
    return {
        "from_wkb_seconds": round(total, 3),
        "from_wkb_decode_seconds": round(decode, 3),
        "from_wkb_by_objects_seconds": round(total_objects, 3),
        "from_wkb_by_objects_decode_seconds": round(decode_objects, 3),
    }


def measure(footprints: int, peer_sample: int) -> dict[str, Any]:
    """Seconds of the kernel (warm) and of the peers, scaled."""
    geometries, scenes = sentinel2_like(footprints)
    cell_statistics(geometries[:10], **{name: values[:10] for name, values in scenes.items()}, grid=GRID)  # compile
    started = time.perf_counter()
    usable, _ = normalise_footprints(geometries)
    normalise = time.perf_counter() - started
    started = time.perf_counter()
    cells = cell_statistics(usable, **scenes, grid=GRID)
    seconds = time.perf_counter() - started
    k = min(peer_sample, footprints)
    some = {name: values[:k] for name, values in scenes.items()}
    extent, bounds = (each * footprints / k for each in duckdb_seconds(geometries[:k], some))
    raster = rasterio_seconds(geometries[:k]) * footprints / k
    return {
        "bench": "gridding",
        "footprints": footprints,
        "resolution": GRID.resolution,
        "cells": len(cells.cell),
        "pairs": int(cells.scenes.sum()),
        "seconds": round(seconds, 3),
        "normalise_seconds": round(normalise, 3),
        **wkb_seconds(usable, scenes),
        "peer_sample": k,
        "peers_scaled_linearly": True,
        "duckdb_seconds": round(extent, 2),
        "duckdb_ratio": round(extent / seconds, 1),
        "duckdb_method": "bbox expansion joined to cells by ST_Intersects_Extent + GROUP BY, 2 threads; not exact: "
        "DuckDB's core has no exact predicate",
        "duckdb_bounds_only_seconds": round(bounds, 2),
        "duckdb_bounds_only_ratio": round(bounds / seconds, 1),
        "rasterio_seconds": round(raster, 2),
        "rasterio_ratio": round(raster / seconds, 1),
        "rasterio_method": "rasterize(all_touched, add), one count only",
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footprints", type=int, default=int(os.environ.get("BENCH_FOOTPRINTS", "450000")))
    parser.add_argument("--peer-sample", type=int, default=int(os.environ.get("BENCH_PEER_SAMPLE", "5000")))
    arguments = parser.parse_args(arguments)
    print(json.dumps(measure(arguments.footprints, arguments.peer_sample)))


if __name__ == "__main__":
    main()
