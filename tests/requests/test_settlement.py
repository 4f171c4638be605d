"""Requests are settled by what scans and holdings show, once, and never by what is not known; outlines to task; the commands."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

from coverage_pipeline.cli.app import app
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.requests.flags import flag_for_request
from coverage_pipeline.requests.outlines import task_outlines
from coverage_pipeline.requests.settlement import settle_requests
from coverage_pipeline.requests.store import Request, RequestStore
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.scenarios.world import JUNE, Catalogue, Lies, World, at, build_world, holding, item, leaning, sensor, write_holdings

pytestmark = pytest.mark.slow
PLACE, ELSEWHERE = shapely.box(2.2, 32.2, 2.4, 32.4), shapely.box(5.2, 36.2, 5.4, 36.4)
WINDOW = (dt.date(2025, 6, 5), dt.date(2025, 6, 25))
LATE = dt.date(2026, 1, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    scenes = [item(f"b{day}", leaning(8, 32, 0.4, 0.4), at(f"2025-06-{day:02}T10:00")) for day in range(1, 30, 3)]
    scenes += [
        item("early", leaning(2, 32, 1, 1), at("2025-06-02T10:00")),  # before the window
        item("cloudy", leaning(2, 32, 1, 1), at("2025-06-08T10:00"), cloud=40.0),
        item("clear", leaning(2, 32, 1, 1), at("2025-06-12T10:00"), cloud=5.0),
        item("half", leaning(5, 36, 0.3, 1), at("2025-06-12T10:00")),  # half of ELSEWHERE
    ]
    holdings = write_holdings(folder / "holdings.parquet", [holding(at("2025-06-01T10:00"), leaning(8, 32, 0.4, 0.4), scene_id="b1")])
    built = build_world(
        folder, {"mine": sensor(Catalogue({"scenes": scenes}), taskable=True)}, holdings=holdings, tiles={"scene_id": "scene_id"}
    )
    assert built.error is None
    return built


def ask(store: RequestStore, place: shapely.Geometry = PLACE, kind: Any = "task", window: Any = WINDOW, **more: Any) -> Request:
    sensors = {"mine": replace(COVERAGE_SENSORS["emit"], key="mine")}
    made = flag_for_request(place, window, "mine", kind, store=store, sensors=sensors, today=dt.date(2025, 1, 1), **more)
    return store.get(made)


def settle(world: World, store: RequestStore, today: dt.date = LATE) -> list[tuple[str, str]]:
    planner = world.planner
    moved = settle_requests(planner.sensors["mine"], JUNE, planner.store, store, cloud_lt=10.0, today=today)
    return [(one.request, one.state) for one in moved]


def test_a_clear_scene_in_the_window_acquires_and_doing_it_again_changes_nothing(world: World, tmp_path: Path) -> None:
    store = RequestStore.at(tmp_path / "requests.sqlite")
    one = ask(store)
    assert settle(world, store) == [(one.id, "acquired")]
    now = store.get(one.id)
    assert now.history[-1].evidence == {"day": "2025-06-12", "scene_keys": ["clear"], "holdings": []}
    assert now.history[-1].who == "evidence"
    assert settle(world, store) == []
    assert len(store.get(one.id).history) == 2


def test_the_cloud_that_a_request_wants_counts(world: World, tmp_path: Path) -> None:
    store = RequestStore.at(tmp_path / "requests.sqlite")
    strict, lax = ask(store, wanted_cloud=4.0, window=(WINDOW[0], dt.date(2025, 6, 24))), ask(store, wanted_cloud=50.0)
    assert dict(settle(world, store)) == {strict.id: "expired", lax.id: "acquired"}
    assert store.get(lax.id).history[-1].evidence["scene_keys"] == ["cloudy"]


def test_half_a_place_expires_when_all_is_over_and_not_before(world: World, tmp_path: Path) -> None:
    store = RequestStore.at(tmp_path / "requests.sqlite")
    one = ask(store, ELSEWHERE)
    assert settle(world, store, today=WINDOW[1]) == []
    assert settle(world, store) == [(one.id, "expired")]
    point = ask(store, shapely.Point(2.3, 32.3))  # a circle of 1 km
    assert settle(world, store) == [(point.id, "acquired")]


def test_a_window_over_a_month_that_was_never_scanned_does_not_expire(world: World, tmp_path: Path) -> None:
    store = RequestStore.at(tmp_path / "requests.sqlite")
    ask(store, ELSEWHERE, window=(dt.date(2025, 6, 5), dt.date(2025, 7, 5)))
    assert settle(world, store) == []


def test_scenes_that_were_named_are_closed_when_the_holdings_have_them(tmp_path: Path) -> None:
    scenes = [item(f"b{day}", leaning(8, 32, 0.4, 0.4), at(f"2025-06-{day:02}T10:00")) for day in range(1, 30, 3)]
    scenes.append(item("clear", leaning(2, 32, 1, 1), at("2025-06-12T10:00"), cloud=5.0))
    catalogue, path = Catalogue({"scenes": scenes}), tmp_path / "holdings.parquet"
    other = holding(at("2025-06-01T10:00"), leaning(8, 32, 0.4, 0.4), scene_id="b1")
    world = build_world(
        tmp_path, {"mine": sensor(catalogue, taskable=True)}, holdings=write_holdings(path, [other]), tiles={"scene_id": "scene_id"}
    )
    store = RequestStore.at(world.planner.store.requests)
    named, placed = ask(store, kind="ingest", scenes=["clear"]), ask(store, kind="task")
    assert dict(settle(world, store)) == {named.id: "acquired", placed.id: "acquired"}
    write_holdings(path, [other, holding(at("2025-06-12T10:00"), leaning(2, 32, 1, 1), scene_id="clear")])
    build(world.planner)  # which settles
    for one in (named, placed):
        now = store.get(one.id)
        assert now.state == "closed"
        assert now.history[-1].evidence["scene_keys"] == ["clear"]
        assert now.history[-1].evidence["holdings"] == ["clear"]


def test_a_partial_scan_or_unknown_holdings_prove_nothing_absent(tmp_path: Path) -> None:
    scenes = [item(f"b{day}", leaning(8, 32, 0.4, 0.4), at(f"2025-06-{day:02}T10:00")) for day in range(1, 30, 3)]
    catalogue = Catalogue({"scenes": scenes}, lies={"scenes": Lies(failing=(at("2025-06-20T00:00"), at("2025-06-21T00:00")))})
    world = build_world(tmp_path, {"mine": sensor(catalogue, taskable=True)}, holdings=None, scan={"publish_partial": True})
    assert world.status("mine") == "partial"
    store = RequestStore.at(world.planner.store.requests)
    ask(store)
    assert settle(world, store) == []


# Outlines


def test_cells_become_few_outlines_that_one_pass_can_image() -> None:
    grid = GridSpec(0.1, extent=(0, 40, 4, 44))
    to_task = np.zeros(grid.shape, bool)
    to_task[2:32, 3:35] = True
    to_task[38, 39] = True  # a lonely cell
    priority = np.where(to_task, 0.5, 0.0)
    priority[38, 39] = 0.9
    emit = COVERAGE_SENSORS["emit"]  # a swath of 75 km
    outlines = task_outlines(to_task, priority, grid, emit)
    assert sum(one.cells for one in outlines) == int(to_task.sum())
    assert 8 <= len(outlines) <= 40
    for one in outlines:
        west, south, east, north = one.geometry.bounds
        assert (north - south) * 111.2 <= 75 + 12  # a cell's height of slack: cells are not cut
        assert (east - west) * 111.2 * np.cos(np.radians(south)) <= 75 + 12
    assert [one.priority for one in outlines] == sorted((one.priority for one in outlines), reverse=True)
    west, south, east, north = grid.lon_edges[3], grid.lat_edges[2], grid.lon_edges[35], grid.lat_edges[32]
    whole = float(ellipsoid_km2(np.array([shapely.box(west, south, east, north)], dtype=object))[0])
    lonely = [one for one in outlines if one.cells == 1]
    assert sum(one.area_km2 for one in outlines) - sum(one.area_km2 for one in lonely) == pytest.approx(whole, rel=1e-6)
    assert task_outlines(to_task, priority, grid, emit, most=3) == outlines[:3]
    assert task_outlines(np.zeros(grid.shape, bool), priority, grid, emit) == []


# Commands


def test_the_commands(world: World, tmp_path: Path) -> None:
    settings = world.planner.settings
    source = settings.registry()["mine"].available_sources[0]
    config = tmp_path / "build.toml"
    config.write_text(
        f"""data = "{settings.data}"
[area]
scope = "all"
[grid]
resolution = 0.5
extent = [0, 30, 12, 42]
[window]
start = 2025-06-01
end = 2025-06-30
[requests]
url = "sqlite:///{tmp_path / "r.sqlite"}"
[sensors]
keys = ["mine"]
[sensors.declared.mine]
held_satellite = "OURS"
nominal_revisit_days = 5
default_desired_per_month = 2
taskable = true
available_sources = [{{ kind = "stac", endpoint = "{source.endpoint}", collection_id = "scenes" }}]
"""
    )

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["requests", *words, "--config", str(config)])
        assert done.exit_code == code, done.output
        return done.output

    assert "no requests" in run("list")
    window = ("--start", "2099-03-01", "--end", "2099-03-31")
    first = run("flag", "mine", *window, "--bbox", "2,32,3,33", "--note", "[red]x", "--who", "ann").strip()
    assert "[red]x" in run("show", first)
    assert "nobody can task the past" in run("flag", "mine", "--start", "2020-01-01", "--end", "2020-01-02", "--bbox", "2,32,3,33", code=1)
    run("flag", "mine", *window, code=1)
    shapes = json.loads(run("flag", "mine", *window, "--cells", "2025-06", "--most", "3", "--dry-run"))
    assert [feature["properties"]["rank"] for feature in shapes["features"]] == [1, 2, 3]
    assert len(run("flag", "mine", *window, "--cells", "2025-06", "--most", "3").split()) == 3
    assert "ordered N-1" in run("order", first[:8], "--number", "N-1", "--who", "bob")
    assert "nobody to ask" in run("poll")
    run("order", first, "--provider", "nowhere.example.org", code=1)
    run("note", first, "called them")
    assert "withdraw order N-1" in run("cancel", first, "--reason", "closed site")
    run("cancel", first, code=1)
    listed = json.loads(run("list", "--format", "json", "--state", "cancelled"))
    assert [(one["id"], one["note"], one["state"]) for one in listed] == [(first, "called them", "cancelled")]
    orders = json.loads(run("export"))["features"]
    assert {one["properties"]["planner:state"] for one in orders} == {"cancelled", "requested"}
    assert [one["properties"]["status"] for one in orders if one["properties"]["planner:state"] == "requested"] == [None] * 3
    assert [one["properties"]["status"]["status_code"] for one in orders if one["id"] == "N-1"] == ["user_cancelled"]
    run("settle")
    run("list", "--state", "none", code=1)
