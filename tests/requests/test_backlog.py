"""The backlog of a small world that is built whole: chosen scenes, budgets, filters, and exports that real tools take in."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rustac
import shapely
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from typer.testing import CliRunner

from coverage_pipeline.cli.app import app
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demo.stac_server import stac_api
from coverage_pipeline.requests.backlog import BACKLOG_SCHEMA, Backlog, merged, within_budget
from coverage_pipeline.requests.backlog_query import BacklogAnswer, BacklogQuery, backlog_of
from coverage_pipeline.requests.backlog_schema import BacklogMetadata
from coverage_pipeline.requests.export import Export, ExportError, export_items, rendered
from coverage_pipeline.storage.tables import read_parquet
from tests.conftest import without_service
from tests.scenarios.world import JUNE, World, at, build_world, holding, item, leaning, sensor, write_holdings

pytestmark = pytest.mark.slow
# Two sites; the second is covered by two scenes of one day together only, the first by either of three single ones.
WEST, EAST = shapely.box(2.2, 32.2, 2.4, 32.4), shapely.box(5.2, 32.2, 5.8, 32.4)
SCENES = {
    "small": (leaning(2, 32, 1, 1), 6, 2.0),
    "cloudy": (leaning(2, 32, 1, 1), 7, 60.0),
    "other": (leaning(2, 32, 1, 1), 8, 1.0),
    "third": (leaning(2, 32, 1, 1), 9, 3.0),
    "left": (leaning(5, 32, 0.55, 1), 6, 2.0),
    "right": (leaning(5.45, 32, 0.55, 1), 6, 2.0),
    "lonely": (leaning(5, 32, 0.5, 1), 12, 0.0),  # half of the site: closes nothing
    "held": (leaning(2, 32, 1, 1), 20, 2.0),
    "far": (leaning(9, 38, 1, 1), 6, 2.0),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder served over HTTP, with one file a scene and asset."""
    folder = tmp_path_factory.mktemp("files")
    for name in SCENES:
        for band in ("B04", "B08"):
            (folder / f"{name}_{band}.tif").write_bytes(f"{name} {band}".encode() * 10)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def catalogue(files: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real STAC API of the scenes."""
    _, address = files
    features = []
    for name, (shape, day, cloud) in SCENES.items():
        one = item(name, shape, at(f"2025-06-{day:02}T10:00"), cloud=cloud)
        for band in ("B04", "B08"):
            one["assets"][band] = {"href": f"{address}/{name}_{band}.tif", "roles": ["data"], "file:size": 10 * len(f"{name} {band}")}
        one["assets"]["thumbnail"] = {"href": f"{address}/{name}.png", "roles": ["thumbnail"]}
        features.append(one)
    beacons = [item(f"b{day}", leaning(8, 32, 0.4, 0.4), at(f"2025-06-{day:02}T10:00")) for day in range(1, 30, 3)]
    path = tmp_path_factory.mktemp("archive") / "scenes.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features + beacons}))
    with stac_api([path]) as address:
        yield address


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sites") / "sites.geojson"
    table = gpd.GeoDataFrame(
        {"id": ["west", "east"], "name": ["West", "East"], "group": ["a", "b"], "desired": [3.0, 1.0], "weight": [1.0, 5.0]},
        geometry=[WEST, EAST],
        crs="EPSG:4326",
    )
    path.write_text(table.to_json())
    return path


@pytest.fixture(scope="module")
def world(catalogue: str, sites: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    rows = [holding(at("2025-06-20T10:00"), SCENES["held"][0], scene_id="held")]
    built = build_world(
        folder,
        {"mine": sensor(catalogue)},
        holdings=write_holdings(folder / "holdings.parquet", rows),
        targets=str(sites),
        tiles={"scene_id": "scene_id"},
    )
    assert built.error is None
    return built


def ask(world: World, **changes: Any) -> BacklogAnswer:
    planner = world.planner
    query = BacklogQuery(planner.spec.sensors, [JUNE], **changes)
    return backlog_of(
        query,
        planner.store,
        planner.targets,
        planner.grid,
        cloud_lt=10.0,
        desired=planner.settings.desired(),
        registry=planner.settings.registry(),
    )


def names(backlog: Backlog) -> list[str]:
    return backlog.chosen["scene_key"].to_pylist()


def test_what_is_chosen_closes_what_can_be_closed_and_nothing_else_is_taken(world: World) -> None:
    """West wants three and holds one; east wants one, weighs five, and needs both halves of a day."""
    answer = ask(world)
    assert answer.unknown == []
    assert names(answer.backlog) == ["left", "right", "other", "small"]  # by weight a byte, then cloud
    rows = answer.backlog.chosen.to_pylist()
    assert [row["offer"] for row in rows] == [1, 1, 2, 3]
    assert rows[0]["closes"] == rows[1]["closes"] == [{"of": "mine", "target": "east", "day": 6}]
    assert rows[2]["closes"] == [{"of": "mine", "target": "west", "day": 8}]
    assert [row["value"] for row in rows] == [2.5, 2.5, 1.0, 1.0]  # one gigabyte a scene where nobody says more
    others = set(answer.backlog.table["scene_key"].to_pylist()) - set(names(answer.backlog))
    assert others == {"third", "lonely"}  # clear, not held, over a site that lacks something
    assert (answer.backlog.days_wanted, answer.backlog.days_closed) == (3, 3)
    assert (answer.backlog.bytes_chosen, answer.backlog.bytes_candidates) == (4 * 10**9, 6 * 10**9)


def test_the_step_writes_the_same(world: World) -> None:
    table, stored = read_parquet(world.planner.store.backlog("mine", JUNE), BACKLOG_SCHEMA.names)
    made = BacklogMetadata.of(stored)
    assert table.equals(ask(world).backlog.table.cast(table.schema))
    assert (made.places, made.chosen, made.candidates, made.days_wanted, made.days_closed) == ("targets", 4, 6, 3, 3)


def test_another_order_of_the_scenes_gives_the_same_backlog(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from coverage_pipeline.requests import backlog_query

    original = backlog_query.read_backlog_files
    first = ask(world).backlog.table

    def shuffled(*arguments: Any) -> Any:
        part = original(*arguments)
        order = np.random.default_rng(3).permutation(part.scenes.num_rows)
        return replace(part, scenes=part.scenes.take(order), matchup=part.matchup.take(order))

    monkeypatch.setattr(backlog_query, "read_backlog_files", shuffled)
    assert ask(world).backlog.table.equals(first)


def test_budgets_cut_between_offers_and_try_the_next(world: World) -> None:
    backlog = ask(world).backlog
    assert within_budget(backlog, max_gb=1.5)["scene_key"].to_pylist() == ["other"]  # the first offer needs two
    assert within_budget(backlog, max_scenes=3)["scene_key"].to_pylist() == ["left", "right", "other"]
    assert within_budget(backlog, max_gb=0).num_rows == 0
    assert within_budget(backlog).num_rows == 4


def test_filters_ask_for_some_targets_and_refuse_unknown_ones(world: World) -> None:
    assert names(ask(world, target_ids=["West"]).backlog) == ["other", "small"]
    assert names(ask(world, target_groups=["b"]).backlog) == ["left", "right"]
    assert names(ask(world, bbox=(2, 32, 3, 33)).backlog) == ["other", "small"]
    for wrong in ({"target_ids": ["nowhere"]}, {"target_groups": ["z"]}, {"bbox": (20, 50, 21, 51)}):
        with pytest.raises(LocationsError):
            ask(world, **wrong)


def test_a_month_that_is_not_there_is_named_and_the_others_go_on(world: World) -> None:
    planner = world.planner
    query = BacklogQuery(planner.spec.sensors, [JUNE.shift(-1), JUNE])
    answer = backlog_of(query, planner.store, planner.targets, planner.grid, cloud_lt=10.0, desired=planner.settings.desired(),
                        registry=planner.settings.registry())  # fmt: skip
    assert len(answer.unknown) == 1
    assert "2025-05" in answer.unknown[0]
    assert len(names(answer.backlog)) == 4


def test_months_are_merged_by_value(world: World) -> None:
    backlog = ask(world).backlog
    both = merged([backlog, backlog])
    assert names(both) == ["left", "right", "left", "right", "other", "small", "other", "small"]
    assert both.chosen["offer"].to_pylist() == [1, 1, 2, 2, 3, 4, 5, 6]
    assert both.chosen["rank"].to_pylist() == list(range(1, 9))
    assert both.days_closed == 6


def exported(world: World, **changes: Any) -> Export:
    planner = world.planner
    return export_items(ask(world, **changes).backlog.chosen, planner.settings.registry(), planner.settings.scan_options())


def test_the_item_collection_is_read_by_pystac_and_keeps_the_provider_s_own_words(world: World, tmp_path: Path) -> None:
    export = exported(world)
    assert export.problems == []
    path = tmp_path / "backlog.json"
    path.write_bytes(rendered(export, "itemcollection"))
    items = list(pystac.ItemCollection.from_file(str(path)))
    assert [one.id for one in items] == ["left", "right", "other", "small"]
    for one in items:  # by the schemas that pystac brings along
        JsonSchemaSTACValidator().validate_core(one.to_dict(include_self_link=False), pystac.STACObjectType.ITEM, "1.1.0")
    assert set(items[0].assets) == {"B04", "B08"}  # the data, not the thumbnail
    assert items[0].properties["eo:cloud_cover"] == 2.0
    assert items[0].properties["planner:closes"] == ["east 2025-06-06 (mine)"]
    assert (items[0].properties["planner:bytes"], items[0].properties["planner:bytes_stated"]) == (160, True)


def test_stac_asset_downloads_the_collection_into_the_right_folders(world: World, files: tuple[Path, str], tmp_path: Path) -> None:
    path = tmp_path / "backlog.json"
    path.write_bytes(rendered(exported(world), "itemcollection"))
    program = Path(sys.executable).with_name("stac-asset")
    folders = "${collection}/${id}"
    done = subprocess.run(
        [program, "download", path, tmp_path / "out", "-p", folders, "--quiet"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("left", "right", "other", "small"):
        for band in ("B04", "B08"):
            got = list((tmp_path / "out" / "scenes" / name).glob(f"*{band}*"))
            assert len(got) == 1
            assert got[0].read_bytes() == (files[0] / f"{name}_{band}.tif").read_bytes()


def test_aria2_downloads_the_list(world: World, files: tuple[Path, str], tmp_path: Path) -> None:
    program = shutil.which("aria2c")
    if program is None:
        without_service("aria2c is not installed (make services)")
    path = tmp_path / "aria2.txt"
    path.write_bytes(rendered(exported(world), "aria2"))
    done = subprocess.run([program, "-i", path, "-q"], cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0
    assert (tmp_path / "scenes" / "left" / "left_B04.tif").read_bytes() == (files[0] / "left_B04.tif").read_bytes()
    assert len(list((tmp_path / "scenes").rglob("*.tif"))) == 8


def test_stac_geoparquet_is_read_by_rustac_and_geopandas(world: World, tmp_path: Path) -> None:
    path = tmp_path / "backlog.parquet"
    path.write_bytes(rendered(exported(world), "geoparquet"))
    table = gpd.read_parquet(path)
    assert table["id"].tolist() == ["left", "right", "other", "small"]
    assert table.crs is not None
    assert table.crs.equals("OGC:CRS84")
    assert table.geometry.iloc[0].equals_exact(SCENES["left"][0], 1e-9)

    async def read() -> dict[str, Any]:
        found: dict[str, Any] = await rustac.read(str(path))
        return found

    again = asyncio.run(read())
    assert [one["id"] for one in again["features"]] == table["id"].tolist()


def test_lists_have_their_documented_form(world: World) -> None:
    export = exported(world, target_ids=["east"])
    links = rendered(export, "earthaccess").decode().splitlines()
    assert len(links) == 4
    assert all(link.startswith("http://127.0.0.1:") and link.endswith(".tif") for link in links)
    rows = rendered(export, "csv").decode().splitlines()
    assert rows[0].startswith("rank,sensor,scene_key,item_id")
    assert len(rows) == 5
    with pytest.raises(ExportError, match="s3 link"):
        rendered(export, "s5cmd")
    for one in export.items:
        for key, asset in one["assets"].items():
            asset["alternate"] = {"s3": {"href": f's3://bucket/{one["id"]}/{key} odd".tif'.replace(' odd"', "")}}
    assert rendered(export, "s5cmd").decode().splitlines()[0] == 'cp "s3://bucket/left/B04.tif" "scenes/left/B04.tif"'


def test_a_vanished_item_and_a_lacking_asset_are_named(world: World) -> None:
    from coverage_pipeline.sensors.downloads import Download

    planner = world.planner
    chosen = ask(world).backlog.chosen
    ids = [["gone"] if key == "other" else [key] for key in chosen["scene_key"].to_pylist()]
    import pyarrow as pa

    chosen = chosen.set_column(chosen.schema.get_field_index("item_ids"), "item_ids", pa.array(ids))
    export = export_items(
        chosen, planner.settings.registry(), planner.settings.scan_options(), downloads={"mine": Download(("B04", "B99"))}
    )
    assert [one["id"] for one in export.items] == ["left", "right", "small"]
    assert [list(one["assets"]) for one in export.items] == [["B04"]] * 3
    assert sum("gone" in problem for problem in export.problems) == 1
    assert sum("no asset B99" in problem for problem in export.problems) == 3


def test_without_targets_cells_are_closed(catalogue: str, tmp_path: Path) -> None:
    rows = [holding(at("2025-06-20T10:00"), SCENES["held"][0], scene_id="held")]
    world = build_world(
        tmp_path, {"mine": sensor(catalogue)}, holdings=write_holdings(tmp_path / "holdings.parquet", rows), tiles={"scene_id": "scene_id"}
    )
    assert world.error is None
    answer = ask(world)
    cube = world.cube
    deficit = cube["deficit"].values[0, 0]
    mask = cube["ingestable_days"].values[0, 0].astype(np.uint32)
    closable = np.minimum(np.nan_to_num(deficit), np.bitwise_count(mask & np.uint32((1 << 31) - 1)))
    assert answer.backlog.days_wanted == int(closable.sum())
    assert answer.backlog.days_closed == answer.backlog.days_wanted > 0
    assert "cloudy" not in answer.backlog.table["scene_key"].to_pylist()


def test_too_many_scenes_for_cells_are_left_to_who_asks(catalogue: str, tmp_path: Path) -> None:
    rows = [holding(at("2025-06-20T10:00"), SCENES["held"][0], scene_id="held")]
    path = write_holdings(tmp_path / "holdings.parquet", rows)
    world = build_world(tmp_path, {"mine": sensor(catalogue)}, holdings=path, requests={"most_cell_scenes": 3})
    assert world.error is None
    store = world.planner.store
    table, stored = read_parquet(store.backlog("mine", JUNE), BACKLOG_SCHEMA.names)
    assert table.num_rows == 0
    assert "most_cell_scenes (3)" in BacklogMetadata.of(stored).note
    summary, _ = read_parquet(store.summary("mine", JUNE), ["scenes_to_get", "bytes_to_get"])
    assert summary.to_pylist() == [{"scenes_to_get": None, "bytes_to_get": None}]  # not known, and no zero
    assert ask(world).backlog.days_closed > 0


def test_the_command_line_lists_and_writes(world: World, sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "build.toml"
    settings = world.planner.settings
    source = settings.registry()["mine"].available_sources[0]
    config.write_text(
        f"""data = "{settings.data}"
targets = "{sites}"
[grid]
resolution = 0.5
extent = [0, 30, 12, 42]
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
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["backlog", "--config", str(config), "--max-gb", "2"])
    assert shown.exit_code == 0, shown.output
    words = shown.output.replace("\n", " ")
    assert "2 scenes, 2.0 GB (estimated), close 1 of 3 days that can be downloaded. Without a budget: 4 scenes, 4.0 GB, 3 days." in words
    out = tmp_path / "to_get.json"
    done = CliRunner().invoke(app, ["backlog", "--config", str(config), "--format", "itemcollection", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert len(json.loads(out.read_text())["features"]) == 4
    unknown = CliRunner().invoke(app, ["backlog", "--config", str(config), "--start", "2025-05", "--end", "2025-06"])
    assert unknown.exit_code == 1
    assert "2025-05" in unknown.output
    assert CliRunner().invoke(app, ["backlog", "--config", str(config), "--format", "zip"]).exit_code == 2
