"""The recorded items of real catalogues, served, scanned and built; then compared with a computation straight from their JSON.

The computation here shares nothing with the product: its own scene keys, its own months, footprints by the tests' oracle.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from coverage_pipeline.cube import dataset
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month, months_between
from coverage_pipeline.pipeline.build import PartitionDone, build_coverage_zarr
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor
from tests.grid_oracle import cells_touched
from tests.shared_data import read_items

pytestmark = pytest.mark.slow

LANDSAT = "planetary-computer__landsat-8-c2-l2.ndjson.gz"
SENTINEL = "planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet"
GRID = GridSpec(0.5)
PLACES = {"Groningen": (53.2, 6.6), "San Francisco": (37.8, -122.4), "Chatham Islands": (-43.9, -176.5)}


def _served_by(key: str, address: str, collection: str) -> CoverageSensor:
    source = AvailableSource("stac", address, collection, "eo:cloud_cover", page_size=100)
    return replace(COVERAGE_SENSORS[key], available_sources=(source,))


def _time(item: dict[str, Any]) -> dt.datetime:
    taken = re.search(r"_MSIL2A_(\d{8}T\d{6})_", item["id"])
    if taken:  # Sentinel-2: the datatake's start
        return dt.datetime.strptime(taken[1], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    own = dt.datetime.fromisoformat(item["properties"]["datetime"]).astimezone(dt.UTC)
    row = re.match(r"LC0\d_\w{4}_\d{3}(\d{3})_", item["id"])  # Landsat: the pass's crossing of the equator, by the row
    return own - dt.timedelta(seconds=(int(row[1]) - (60 if int(row[1]) <= 122 else 184)) * 23.92) if row else own


def _scenes(items: list[dict[str, Any]]) -> list[tuple[dt.datetime, float, Any]]:
    """Pass, cloud and footprint of each scene; Sentinel-2 products of one tile and datatake newest first, clouds by added area."""
    by_scene: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        s2 = re.fullmatch(r"(S2._MSIL2A_\d{8}T\d{6})_R\d{3}_(T\w{5})_\d{8}T\d{6}", item["id"])
        by_scene["".join(s2.groups()) if s2 else item["id"]].append(item)
    scenes = []
    for parts in by_scene.values():
        footprint, clouds, added = shapely.Polygon(), [], []
        for part in sorted(parts, key=lambda one: str(one["id"])[-15:], reverse=True):
            shape = shapely.geometry.shape(part["geometry"])
            news = shapely.difference(shape, footprint).area
            if news >= 0.02 * shape.area:
                footprint = shapely.union(footprint, shape)
                clouds.append(part["properties"]["eo:cloud_cover"])
                added.append(news)
        scenes.append((_time(parts[0]), float(np.average(clouds, weights=added)), footprint))
    return scenes


def _compare(ds: Any, key: str, scenes: list[tuple[dt.datetime, float, Any]]) -> None:
    """Every cell of every month of the cube: scenes, clear scenes, observation days and mean cloud."""
    touched = [tuple(np.array(cells_touched(footprint, GRID.resolution)).T) for _, _, footprint in scenes]
    for time in ds["time"].values:
        count, clear = np.zeros(GRID.shape, int), np.zeros(GRID.shape, int)
        days, cloud_sum = np.zeros(GRID.shape, np.uint32), np.zeros(GRID.shape)
        mine = [k for k, (when, _, _) in enumerate(scenes) if Month.of(when) == Month.of(time)]
        for k in mine:
            when, cloud, _ = scenes[k]
            count[touched[k]] += 1
            clear[touched[k]] += cloud < 10
            days[touched[k]] |= np.uint32(1 << (when.day - 1))
            cloud_sum[touched[k]] += cloud
        month = ds.sel(sensor=key, time=time)
        assert int(month["scenes_total"]) == len(mine)
        np.testing.assert_array_equal(month["scenes_count"].values, count)
        np.testing.assert_array_equal(month["cloud_free_scene_count"].values, clear)
        np.testing.assert_array_equal(month["available_days"].values, days)
        mean = np.divide(cloud_sum, count, out=np.full(GRID.shape, np.nan), where=count > 0)
        np.testing.assert_allclose(month["mean_scene_cloud_pct"].values, mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [
        (Month(2016, 8), Month(2016, 12), ["San Francisco", "Chatham Islands"]),
        (Month(2019, 1), Month(2019, 12), list(PLACES)),
        (Month(2022, 1), Month(2022, 3), list(PLACES)),
    ],
    ids=str,
)
def test_landsat_over_groningen_san_francisco_and_the_chatham_islands(
    first: Month, last: Month, names: list[str], serve_items: Callable[..., str], tmp_path: Path
) -> None:
    items = read_items(LANDSAT)
    months = months_between(first, last)
    sensor = _served_by("landsat-8-9", serve_items(items), "landsat-8-c2-l2")
    done: list[PartitionDone] = []
    build_coverage_zarr(
        [sensor],
        months[0].start.date(),
        months[-1].end.date() - dt.timedelta(days=1),
        GRID,
        dest=tmp_path / "coverage.zarr",
        parquet_dir=tmp_path / "catalog",
        on_partition=done.append,
    )
    assert [d.error for d in done] == [None] * len(months)
    _compare(dataset.open_coverage(tmp_path / "coverage.zarr"), sensor.key, _scenes(items))
    seen = dataset.open_coverage(tmp_path / "coverage.zarr")["scenes_count"].sum("time").isel(sensor=0).compute()
    for name in names:
        lat, lon = PLACES[name]
        assert float(seen.sel(lat=lat, lon=lon, method="nearest")) > 0, name


def test_sentinel_2_over_colorado_and_utah(serve_items: Callable[..., str], tmp_path: Path) -> None:
    items = read_items(SENTINEL)
    months = sorted({Month.of(_time(item)) for item in items})
    sensor = _served_by("sentinel-2", serve_items(items), "sentinel-2-l2a")
    build_coverage_zarr(
        [sensor],
        months[0].start.date(),
        months[-1].start.date(),
        GRID,
        dest=tmp_path / "coverage.zarr",
        parquet_dir=tmp_path / "catalog",
    )
    scenes = _scenes(items)
    assert len(scenes) == 987
    ds = dataset.open_coverage(tmp_path / "coverage.zarr")
    assert int(ds["scenes_total"].sum()) == 987
    _compare(ds, sensor.key, scenes)
    # Not in our holdings, which is a known zero: where a clear scene exists, the thing to do is download it.
    action = ds["action"].isel(sensor=0)
    clear = (ds["clear_days"].isel(sensor=0) != 0).compute()
    scoped = ds["in_scope"].isel(sensor=0).compute() != 0
    assert set(np.unique(action.where(clear & scoped, 2).values)) == {2}
    assert bool((clear & scoped).any())


def test_scan_of_a_box_leaves_the_rest_of_the_globe_unknown(serve_items: Callable[..., str], tmp_path: Path) -> None:
    sensor = _served_by("landsat-8-9", serve_items(read_items(LANDSAT)), "landsat-8-c2-l2")
    bbox = (4.0, 51.0, 9.0, 55.0)
    zarr = tmp_path / "coverage.zarr"
    build_coverage_zarr([sensor], "2020-01-01", "2020-01-31", GRID, dest=zarr, parquet_dir=tmp_path / "catalog", bbox=bbox)
    known = dataset.open_coverage(zarr)["scenes_count"].isel(sensor=0, time=0).notnull().compute()
    inside = (known["lat"] > 51) & (known["lat"] < 55) & (known["lon"] > 4) & (known["lon"] < 9)
    assert bool((known == inside).all())
    action = dataset.open_coverage(zarr)["action"].isel(sensor=0, time=0).compute()
    assert set(np.unique(action.where(~known, 0))) <= {0, 6}  # unknown or out of scope, never "none" or "task"
