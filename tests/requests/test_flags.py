"""From a gap to a request: which kind, who may be pointed, and a record that the same request never enters twice."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import xarray as xr

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.requests.flags import (
    RequestError,
    RequestKind,
    flag_for_request,
    flagged_requests,
    request_kind,
    submit_request,
    taskable_mask,
)
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, SensorError
from tests.cubes import cube_spec, make_cube

TODAY = dt.date(2025, 6, 15)
NEXT_MONTH = (dt.date(2025, 7, 1), dt.date(2025, 7, 31))
SITE = shapely.box(-104.0, 31.9, -103.96, 31.94)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "deeper" / "requests.sqlite"


def flag(store: Path, geometry: Any = SITE, window: Any = NEXT_MONTH, sensor: str = "emit", kind: RequestKind = "task") -> str:
    return flag_for_request(geometry, window, sensor, kind, store=store, today=TODAY)


# Which request


@pytest.mark.parametrize(
    ("sensor", "unmet_supply", "kind"),
    [
        ("emit", 3, "ingest"),
        ("emit", 0, "task"),
        ("enmap", 1, "ingest"),
        ("enmap", 0, "task"),
        ("prisma", 0, "task"),
        ("landsat-8-9", 1, "ingest"),
        ("landsat-8-9", 0, "none"),
        ("sentinel-2", 40, "ingest"),
        ("sentinel-2", 0, "none"),
    ],
)
def test_request_kind(sensor: str, unmet_supply: int, kind: str) -> None:
    assert request_kind(sensor, unmet_supply=unmet_supply) == kind


def test_no_request_follows_from_what_is_not_known() -> None:
    with pytest.raises(ValueError, match="not known"):
        request_kind("emit", unmet_supply=-1)
    with pytest.raises(SensorError, match=r"unknown sensor 'emitt': known are .*emit"):
        request_kind("emitt", unmet_supply=0)


def test_taskable_mask_lies_on_the_datasets_grid() -> None:
    ds = xr.Dataset(coords={"lat": [-45.0, 45.0], "lon": [-120.0, 0.0, 120.0]})
    keys = ["sentinel-2", "prisma", "emit", "landsat-8-9", "enmap"]
    mask = taskable_mask(ds, keys)
    assert mask.dims == ("sensor", "lat", "lon")
    assert mask.dtype == bool
    assert mask.sizes == {"sensor": 5, "lat": 2, "lon": 3}
    assert list(mask["sensor"].values) == keys
    assert np.array_equal(mask.values, np.broadcast_to(np.array([0, 1, 1, 0, 1], bool)[:, None, None], (5, 2, 3)))
    with pytest.raises(SensorError, match="unknown sensor"):
        taskable_mask(ds, ["emit", "hubble"])


def test_taskable_mask_lies_on_h3_cells(tmp_path: Path) -> None:
    grid = GridSpec(h3_res=0)
    ds = open_coverage(make_cube(tmp_path / "h3.zarr", cube_spec(grid=grid)))
    mask = taskable_mask(ds, ["emit", "landsat-8-9"])
    assert mask.dims == ("sensor", "cells")
    assert mask["cell_ids"].values.tolist() == grid.cell_ids.tolist()
    assert mask.values.tolist() == [[True] * 122, [False] * 122]  # H3 has 122 cells of resolution 0
    some = taskable_mask(ds.isel(cells=slice(3, 5)), ["emit"])
    assert some["cell_ids"].values.tolist() == grid.cell_ids[3:5].tolist()
    # It goes with the cube's own arrays.
    assert (ds["in_scope"].sel(sensor="emit") * mask.sel(sensor="emit")).dims == ("cells",)


def test_taskable_mask_of_something_else_is_refused() -> None:
    with pytest.raises(RequestError, match="no dimension 'lat': give a cube as open_coverage opens it"):
        taskable_mask(xr.Dataset(coords={"y": [0.0]}), ["emit"])


# The record


def test_a_request_is_recorded_as_asked(store: Path) -> None:
    request = flag(store)
    (row,) = flagged_requests(store)
    assert row["id"] == request
    assert (row["sensor"], row["kind"], row["window_start"], row["window_end"]) == ("emit", "task", "2025-07-01", "2025-07-31")
    assert shapely.from_geojson(row["geometry"]).equals(SITE)
    assert dt.datetime.fromisoformat(row["created"]).tzinfo is not None


def test_no_store_means_no_requests_and_makes_none(store: Path) -> None:
    assert flagged_requests(store) == []
    assert not store.exists()


RING = [(-104.0, 31.9), (-103.96, 31.9), (-103.96, 31.94), (-104.0, 31.94)]
SAME_PLACE = {
    "shapely": shapely.Polygon(RING),
    "geojson": {"type": "Polygon", "coordinates": [[list(p) for p in [*RING, RING[0]]]]},
    "from another corner": shapely.Polygon(RING[2:] + RING[:2]),
    "the other way round": shapely.Polygon(RING[::-1]),
    "with heights": shapely.force_3d(shapely.Polygon(RING), 300.0),
    "rounded elsewhere": shapely.Polygon([(x + 1e-12 * k, y - 1e-12 * k) for k, (x, y) in enumerate(RING)]),
    "rounded otherwise": shapely.Polygon([(x - 1e-12 * k, y + 1e-12 * (k % 2)) for k, (x, y) in enumerate(RING)]),
}


@pytest.mark.parametrize("spelling", SAME_PLACE)
def test_the_same_request_is_one_row_however_it_is_drawn(store: Path, spelling: str) -> None:
    first = flag(store)
    assert flag(store, SAME_PLACE[spelling]) == first
    assert len(flagged_requests(store)) == 1


def test_different_requests_are_different_rows(store: Path) -> None:
    ids = {
        flag(store),
        flag(store, shapely.box(0, 0, 1, 1)),
        flag(store, sensor="enmap"),
        flag(store, kind="ingest"),
        flag(store, window=(NEXT_MONTH[0], dt.date(2025, 8, 1))),
    }
    assert len(ids) == 5
    assert {row["id"] for row in flagged_requests(store)} == ids


def test_a_site_may_be_a_point_and_an_area_may_cross_the_antimeridian(store: Path) -> None:
    flag(store, shapely.Point(5, 50))
    flag(store, shapely.box(179, 0, 181, 1))
    assert len(flagged_requests(store)) == 2


# What is refused


@pytest.mark.parametrize("first", [dt.date(2025, 6, 15), dt.date(2025, 6, 1), dt.date(2024, 7, 1)])
def test_nobody_can_task_the_past(store: Path, first: dt.date) -> None:
    with pytest.raises(RequestError, match=r"past.*2025-06-15"):
        flag(store, window=(first, dt.date(2025, 7, 31)))
    assert flagged_requests(store) == []
    flag(store, window=(first, dt.date(2025, 7, 31)), kind="ingest")  # what exists may be fetched at any time
    flag(store, window=(dt.date(2025, 6, 16), dt.date(2025, 7, 31)))


def test_today_is_the_day_in_utc_unless_told(store: Path) -> None:
    tomorrow = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    flag_for_request(SITE, (tomorrow + dt.timedelta(days=1),) * 2, "emit", "task", store=store)
    with pytest.raises(RequestError, match="past"):
        flag_for_request(SITE, (tomorrow - dt.timedelta(days=2),) * 2, "emit", "task", store=store)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window": NEXT_MONTH[::-1]}, "reversed"),
        ({"kind": "none"}, "asks for nothing"),
        ({"kind": "order"}, "'ingest' or 'task'"),
        ({"sensor": "sentinel-2"}, "cannot be pointed"),
        ({"sensor": "prisma", "kind": "ingest"}, "no public catalogue"),
        ({"geometry": shapely.Polygon()}, "empty"),
        ({"geometry": {"type": "Polygon", "coordinates": []}}, "empty"),
        ({"geometry": shapely.box(0, 0, 1e-9, 1e-9)}, "empty"),
        ({"geometry": {"type": "Polygon"}}, "not GeoJSON"),
        ({"geometry": {"type": "Feature", "geometry": None}}, "not GeoJSON"),
        ({"geometry": {"type": "Point", "coordinates": ["a", "b"]}}, "not GeoJSON"),
        ({"geometry": "POINT (1 1)"}, "not GeoJSON"),
        ({"geometry": shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])}, "not valid.*Self-intersection"),
        ({"geometry": shapely.box(300_000, 5_600_000, 400_000, 5_700_000)}, "EPSG:4326"),
        ({"geometry": {"type": "Point", "coordinates": [float("nan"), 0.0]}}, "EPSG:4326"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(store: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        flag(store, **changes)
    assert flagged_requests(store) == []


def test_an_unknown_sensor_is_refused(store: Path) -> None:
    with pytest.raises(SensorError, match="unknown sensor 'hubble'"):
        flag(store, sensor="hubble")


def test_a_store_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "requests.sqlite", tmp_path):  # below a file; a folder
        with pytest.raises(RequestError, match="cannot record the request in"):
            flag(place)


def test_a_store_that_is_something_else_is_refused(store: Path) -> None:
    store.parent.mkdir()
    store.write_text("not a database, however long it goes on" * 100)
    with pytest.raises(RequestError, match="not a database"):
        flag(store)
    with pytest.raises(RequestError, match="not a database"):
        flagged_requests(store)


# Many at once


def _flag_some(task: tuple[str, int]) -> list[str]:
    place, number = task
    # every writer records the same ten and one of its own
    sites = [shapely.box(k, 0, k + 1, 1) for k in range(10)] + [shapely.box(number, 20, number + 1, 21)]
    return [flag(Path(place), site) for site in sites]


def test_threads_and_processes_writing_at_once_lose_and_double_nothing(store: Path) -> None:
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(_flag_some, [(str(store), k) for k in range(6)]))
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("forkserver")) as processes:
        made += list(processes.map(_flag_some, [(str(store), k) for k in range(6, 9)]))
    rows = [row["id"] for row in flagged_requests(store)]
    assert len(rows) == 10 + 9
    assert set(rows) == {request for ids in made for request in ids}


def test_a_reader_meets_a_store_that_another_is_writing(store: Path) -> None:
    flag(store)
    with sqlite3.connect(store) as other:
        other.execute("BEGIN IMMEDIATE")
        assert len(flagged_requests(store)) == 1
        other.rollback()


# Sending


def test_nothing_is_sent_yet_and_the_way_forward_is_said() -> None:
    with pytest.raises(NotImplementedError, match="flag_for_request"):
        submit_request("emit", SITE, NEXT_MONTH)


def test_every_sensor_has_the_kind_its_registry_entry_says() -> None:
    for key, sensor in COVERAGE_SENSORS.items():
        assert request_kind(key, unmet_supply=0) == ("task" if sensor.taskable else "none")
