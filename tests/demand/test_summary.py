"""Summaries, their history, changes and the report: the right figures, and no figure where nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from typer.testing import CliRunner

from coverage_pipeline.cli.app import app
from coverage_pipeline.cube.schema import CoverageError
from coverage_pipeline.demand.cell_changes import CELL_CHANGES, change_areas, change_layer
from coverage_pipeline.demand.changes import NothingToCompare, TargetState, changes_between, counts, since_last_run, since_month
from coverage_pipeline.demand.groups import group_dataset
from coverage_pipeline.demand.report import NoSummary, closing_words, make_report
from coverage_pipeline.demand.report_html import report_html
from coverage_pipeline.demand.summary import headline, shares
from coverage_pipeline.demand.summary_schema import HISTORY_SCHEMA, SUMMARY_SCHEMA, SummaryMetadata
from coverage_pipeline.demand.targets import load_targets
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.grid.cell_area import cell_km2
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.requests.backlog_query import BacklogQuery, backlog_of
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.tables import read_parquet
from tests.scenarios.world import JUNE, Catalogue, World, at, build_world, holding, item, leaning, sensor, write_holdings

pytestmark = pytest.mark.slow
SITES = {"met": shapely.box(2.2, 32.2, 2.4, 32.4), "lacking": shapely.box(5.2, 32.2, 5.6, 32.4), "idle": shapely.box(7.2, 32.2, 7.4, 32.4)}


def areas() -> dict[str, float]:
    return {name: float(ellipsoid_km2(np.array([shape], dtype=object))[0]) for name, shape in SITES.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    scenes = [item(f"s{day}", leaning(2, 32, 1, 1), at(f"2025-06-{day:02}T10:00")) for day in range(1, 30, 3)]
    scenes.append(item("e6", leaning(5, 32, 1, 1), at("2025-06-06T10:00")))
    catalogue = Catalogue({"scenes": scenes})
    sites = folder / "sites.geojson"
    table = gpd.GeoDataFrame(
        {"id": list(SITES), "group": ["a", "a", "b"], "desired": [1.0, 3.0, 1.0], "season": ["", "", "9-10"]},
        geometry=list(SITES.values()), crs="EPSG:4326",
    )  # fmt: skip
    sites.write_text(table.to_json())
    holdings = write_holdings(folder / "holdings.parquet", [holding(at("2025-06-07T10:00"), leaning(2, 32, 1, 1), scene_id="s7")])
    built = build_world(folder, {"mine": sensor(catalogue)}, holdings=holdings, targets=str(sites), tiles={"scene_id": "scene_id"})
    assert built.error is None
    return built


def rows_of(world: World) -> dict[tuple[str, str | None], dict[str, Any]]:
    table, _ = read_parquet(world.planner.store.summary("mine", JUNE), SUMMARY_SCHEMA.names)
    return {(row["of"], row["group"]): row for row in table.to_pylist()}


def test_targets_are_summed_by_state_and_group(world: World) -> None:
    rows, km2 = rows_of(world), areas()
    every = rows["targets", None]
    assert {name: every[f"{name}_count"] for name in ("met", "missing", "idle", "unknown")} == {
        "met": 1,
        "missing": 1,
        "idle": 1,
        "unknown": 0,
    }
    assert every["met_km2"] == pytest.approx(km2["met"])
    assert every["missing_km2"] == pytest.approx(km2["lacking"])
    assert every["ingest_km2"] == pytest.approx(km2["lacking"])
    assert (every["deficit_days"], every["ingestable_days"], every["remaining_days"]) == (3, 1, 2)
    assert (every["scenes_to_get"], every["bytes_to_get"], every["bytes_stated"]) == (1, 10**9, False)
    met, unknown = shares(every)
    assert met == pytest.approx(km2["met"] / (km2["met"] + km2["lacking"]))
    assert unknown == 0
    assert rows["targets", "b"]["idle_count"] == 1
    assert shares(rows["targets", "b"]) == (None, None)
    assert "nothing is wanted" in headline(rows["targets", "b"])


def test_cells_are_summed_by_their_true_area(world: World) -> None:
    row, cube = rows_of(world)["cells", None], world.cube
    area = np.broadcast_to(cell_km2(world.planner.grid), world.planner.grid.shape)
    met = cube["action"].values[0, 0] == 1
    assert row["met_km2"] == pytest.approx(float(area[met].sum()))
    assert row["met_count"] == int(met.sum())
    assert sum(row[f"{name}_km2"] for name in ("met", "missing", "unknown", "idle", "out_of_reach")) == pytest.approx(float(area.sum()))


@pytest.mark.parametrize("grid", [GridSpec(0.5), GridSpec(2.0, extent=(-10, 40, 20, 60)), GridSpec(h3_res=1)], ids=str)
def test_areas_of_cells_are_those_of_their_outlines(grid: GridSpec) -> None:
    area = np.broadcast_to(cell_km2(grid), grid.shape)
    if grid.h3_res is not None or grid.extent is None:
        assert float(area.sum()) == pytest.approx(510_065_621.724, rel=1e-9)  # of WGS 84
    if grid.h3_res is None:
        west, south, east, north = grid.lon_edges[3], grid.lat_edges[2], grid.lon_edges[4], grid.lat_edges[3]
        assert area[2, 3] == pytest.approx(float(ellipsoid_km2(np.array([shapely.box(west, south, east, north)], dtype=object))[0]))


def test_each_run_adds_to_the_history_and_changes_are_told(world: World) -> None:
    store = world.planner.store
    with pytest.raises(NothingToCompare, match="once"):
        since_last_run(store, "mine", JUNE)
    build(world.planner, steps=["summary"])
    changes, before = since_last_run(store, "mine", JUNE)
    assert changes == []
    assert before.startswith("20")
    table, _ = read_parquet(sibling(store.summary("mine", JUNE), ".history.parquet"), HISTORY_SCHEMA.names)
    assert table.num_rows == 2 * 4  # cells, all targets, two groups
    with pytest.raises(NothingToCompare, match="2025-05"):
        since_month(store, "mine", JUNE.shift(-1), JUNE)


def test_every_kind_of_change_is_told_apart() -> None:
    def state(deficit: int, name: str = "missing") -> TargetState:
        return TargetState("met" if deficit == 0 else "unknown" if deficit < 0 else name, deficit, 10.0)

    before = {"a": state(0), "b": state(2), "c": state(3), "d": state(1), "e": state(-1), "f": state(2), "g": state(1), "same": state(1)}
    after = {"a": state(1), "b": state(0), "c": state(1), "d": state(2), "e": state(0), "f": state(-1), "h": state(0), "same": state(1)}
    kinds = {change.target: change.kind for change in changes_between(before, after)}
    assert kinds == {
        "a": "opened", "b": "closed", "c": "better", "d": "worse", "e": "became known", "f": "became not known", "h": "new", "g": "gone",
    }  # fmt: skip
    assert all(value == (1, 10.0) for value in counts(changes_between(before, after)).values())


def test_holdings_that_are_off_give_no_figure(tmp_path: Path) -> None:
    catalogue = Catalogue({"scenes": [item(f"s{day}", leaning(2, 32, 1, 1), at(f"2025-06-{day:02}T10:00")) for day in range(1, 30, 3)]})
    sites = tmp_path / "sites.geojson"
    sites.write_text(gpd.GeoDataFrame({"id": ["a"]}, geometry=[SITES["met"]], crs="EPSG:4326").to_json())
    world = build_world(tmp_path, {"mine": sensor(catalogue)}, holdings=None, targets=str(sites))
    assert world.error is None
    row = rows_of(world)["targets", None]
    assert shares(row) == (None, 1.0)
    assert "not known for any" in headline(row)
    assert "0.0 %" not in headline(row)
    _, stored = read_parquet(world.planner.store.summary("mine", JUNE), ["sensor"])
    made = SummaryMetadata.of(stored)
    assert (made.met_share, made.unknown_share) == (None, 1.0)


def test_the_report_is_one_page_that_needs_nothing_else(world: World) -> None:
    planner = world.planner
    report = make_report(planner.spec.sensors, [JUNE.shift(-1), JUNE], JUNE, planner.store)
    (one,) = report.sensors
    assert one.trend[0].row is None
    assert one.trend[0].unknown == 1.0  # a month that was never built is not known
    assert closing_words(one.now.row or {}) == (
        "1 scene closes what can be downloaded, 1.0 GB (estimated); downloading can add 1 of 3 missing days; "
        "2 days remain to task or to wait for."
    )
    states = {"mine": {"met": TargetState("met", 0, 1.0), "lacking": TargetState("missing", 3, 1.0)}}
    page = report_html(report, load_targets(planner.store), states, note="<script>alert(1)</script>")
    assert "<script" not in page
    assert "&lt;script" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<circle") >= 2
    with pytest.raises(NoSummary, match="2025-05"):
        make_report(planner.spec.sensors, [JUNE], JUNE.shift(-1), planner.store)
    with pytest.raises(NoSummary, match="groups are a, b"):
        make_report(planner.spec.sensors, [JUNE], JUNE, planner.store, "zebra")


def test_the_commands_print_it(world: World, tmp_path: Path) -> None:
    settings = world.planner.settings
    source = settings.registry()["mine"].available_sources[0]
    config = tmp_path / "build.toml"
    config.write_text(
        f"""data = "{settings.data}"
[window]
start = 2025-06-01
end = 2025-06-30
[sensors]
keys = ["mine"]
[sensors.declared.mine]
held_satellite = "OURS"
nominal_revisit_days = 5
default_desired_per_month = 2
available_sources = [{{ kind = "stac", endpoint = "{source.endpoint}", collection_id = "scenes" }}]
"""
    )
    page = tmp_path / "report.html"
    shown = CliRunner().invoke(app, ["report", "--config", str(config), "--html", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "33.3 %" in shown.output
    assert page.read_text().startswith("<!doctype html>")
    assert CliRunner().invoke(app, ["report", "--config", str(config), "--group", "zebra"]).exit_code == 1
    assert CliRunner().invoke(app, ["changes", "--config", str(config), "--against", "2024-01"]).exit_code == 1


def test_cells_that_changed_are_a_layer_with_true_areas() -> None:
    grid = GridSpec(90.0)
    rows = [[0.0, 2.0, 3.0, 1.0], [np.nan, 1.0, np.nan, 1.0]], [[1.0, 0.0, 1.0, 2.0], [0.0, np.nan, np.nan, 1.0]]
    months = [JUNE.shift(-1), JUNE]
    ds = xr.Dataset(
        {"deficit": (("sensor", "time", "lat", "lon"), np.array([rows]))},
        coords={"sensor": ["mine"], "time": [month.to_datetime64() for month in months], "lat": grid.lats, "lon": grid.lons},
    )
    layer = change_layer(ds, "mine", *months)
    words = [CELL_CHANGES[code] for code in layer.values.reshape(-1)]
    assert words == ["opened", "closed", "better", "worse", "became known", "became not known", "same", "same"]
    areas = change_areas(layer, grid)
    assert all(km2 == pytest.approx(510_065_621.724 / 8) for km2 in areas.values())
    with pytest.raises(CoverageError, match="2024-01"):
        change_layer(ds, "mine", Month(2024, 1), JUNE)


def test_groups_of_sensors_are_wanted_in_backlog_and_report_as_one(tmp_path: Path) -> None:
    """Two sensors over one place: each has one clear day that is not held, the group wants two, neither wants anything of its own."""
    place = leaning(2, 32, 1, 1)
    beacons = [item(f"b{day}", leaning(8, 32, 0.4, 0.4), at(f"2025-06-{day:02}T10:00")) for day in range(1, 30, 3)]
    first = Catalogue({"scenes": [*beacons, item("one", place, at("2025-06-06T10:00"))]})
    second = Catalogue({"scenes": [*beacons, item("two", place, at("2025-06-08T10:00")), item("again", place, at("2025-06-06T12:00"))]})
    sites = tmp_path / "sites.geojson"
    sites.write_text(gpd.GeoDataFrame({"id": ["a"]}, geometry=[SITES["met"]], crs="EPSG:4326").to_json())
    holdings = write_holdings(tmp_path / "holdings.parquet", [holding(at("2025-06-01T10:00"), leaning(8, 32, 0.4, 0.4), scene_id="b1")])
    world = build_world(
        tmp_path, {"first": sensor(first), "second": sensor(second)}, holdings=holdings, targets=str(sites), tiles={"scene_id": "scene_id"},
        gap={"groups": {"both": {"sensors": ["first", "second"], "desired": 2.0}}},
    )  # fmt: skip
    assert world.error is None
    planner = world.planner
    groups = list(planner.settings.groups().values())
    query = BacklogQuery(planner.spec.sensors, [JUNE], groups)
    answer = backlog_of(
        query, planner.store, planner.targets, planner.grid, cloud_lt=10.0, desired=planner.settings.desired(),
        registry=planner.settings.registry(),
    )  # fmt: skip
    chosen = answer.backlog.chosen.to_pylist()
    assert {one["of"] for row in chosen for one in row["closes"]} == {"both"}
    assert sorted(one["day"] for row in chosen for one in row["closes"]) == [6, 8]  # one scene of the 6th is enough
    assert len(chosen) == 2
    report = make_report(planner.spec.sensors, [JUNE], JUNE, planner.store, sensor_groups=groups)
    by_key = {one.key: one for one in report.sensors}
    assert "nothing is wanted" in by_key["first"].headline
    row = by_key["both"].now.row or {}
    assert (row["missing_count"], row["deficit_days"], row["ingestable_days"]) == (1, 2, 2)
    cells = group_dataset(world.cube, groups[0])
    assert float(cells["deficit"].sel(lat=32.75, lon=2.25, method="nearest").values[0, 0]) == 2.0
