"""Every path that a person names is that place and no other, whatever letters are in it; and nothing beside it is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import geopandas as gpd
import pytest
import shapely
import zarr
from typer.testing import CliRunner
from upath import UPath

from coverage_pipeline.cli.app import app
from coverage_pipeline.cube import arrays, create
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import CoverageError, CoverageMismatch
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.targets import fetch_targets
from coverage_pipeline.pipeline.migrate import migrate
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.paths import storage_path
from coverage_pipeline.storage.store import Store
from tests.cubes import GRID, JANUARY, cube_spec, everywhere, make_cube, write_partition
from tests.pipeline.test_migrate import STEPS, built, footprints, make, planner_in, scenes_of, world, write_scenes  # noqa: F401 fixtures

pytestmark = pytest.mark.slow

NAMES = ("data#2", "data?x=1", "data%2", "data%23", "my data", "dätä-データ", "data&a=b;c", "data[1]*", "data:8", "data@v2", "'data\"")


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Path]:
    """A folder ``data`` of somebody else, which must be the same afterwards."""
    folder = tmp_path / "data"
    (folder / "coverage.zarr" / "c").mkdir(parents=True)
    (folder / "letters.txt").write_text("years of work")
    (folder / "coverage.zarr" / "c" / "notes.txt").write_text("more of it")
    (folder / ".coverage.zarr.unfinished").mkdir()
    (folder / ".coverage.zarr.unfinished" / "draft.txt").write_text("a draft")
    before = files_in(folder)
    yield folder
    assert files_in(folder) == before


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def spellings(folder: Path) -> dict[str, str]:
    """Ways to name one folder: as it is, with a slash, with a detour, and as a URL."""
    return {
        "plain": str(folder),
        "slash": f"{folder}/",
        "detour": str(folder.parent / "elsewhere" / ".." / folder.name),
        "url": "file://" + quote(str(folder)),
        "short url": "file:" + quote(str(folder)),
        "localhost": "file://localhost" + quote(str(folder)),
    }


HOW = tuple(spellings(Path("/x")))
EACH = (*((name, "plain") for name in NAMES), *(("data#2 ä%23", how) for how in HOW))


@pytest.mark.parametrize(("name", "how"), EACH)
def test_a_cube_is_made_where_it_is_named(name: str, how: str, tmp_path: Path, neighbour: Path) -> None:
    root = tmp_path / name
    cube = Store.below(spellings(root)[how]).zarr
    make_cube(cube)
    write_partition(root / "coverage.zarr", "emit", JANUARY)
    assert (root / "coverage.zarr" / "zarr.json").is_file()
    assert int((open_coverage(spellings(root / "coverage.zarr")[how])["scenes_count"] == 0).sum()) == GRID.shape[0] * GRID.shape[1]
    assert {path.name for path in tmp_path.iterdir()} <= {"data", name, "elsewhere"}


@pytest.mark.parametrize("name", ["data#2", "data?x=1", "data%23", "my dätä", "data[1]*"])
def test_every_file_of_a_build_lies_below_the_root_that_is_named(name: str, tmp_path: Path, neighbour: Path, built: Path) -> None:  # noqa: F811
    """COVERAGE_DATA, output.zarr, output.parquet_dir, holdings.path and targets, each with the same letters."""
    folder = tmp_path / "work"
    folder.mkdir()
    places = {kind: tmp_path / f"{kind}-{name}" for kind in ("root", "cubes", "catalog")}
    holdings = tmp_path / f"{name}.parquet"
    holdings.write_bytes((built / "holdings.parquet").read_bytes())
    sites = tmp_path / f"{name}.geojson"
    targets = gpd.GeoDataFrame({"id": ["a"], "name": ["A"]}, geometry=[shapely.box(-30, -30, 30, 30)], crs="EPSG:4326")
    sites.write_text(targets.to_json())
    planner = planner_in(
        folder,
        data="file://" + quote(str(places["root"])),
        output={"zarr": str(places["cubes"] / "coverage.zarr"), "parquet_dir": f"{places['catalog']}/"},
        holdings={"path": str(holdings)},
        targets=str(sites),
        area={"scope": "targets"},
    )
    write_scenes(planner, JANUARY, scenes_of(JANUARY, 0))
    mine = planner.sensors["mine"]
    planner.ensure_cube()
    for step in STEPS[1:]:
        getattr(planner, step)(mine, JANUARY)
    planner.finish()
    assert set(files_in(places["root"])) == {
        "holdings/mine/2025-01.parquet", "holdings/mine/2025-01.last.parquet", "holdings/mine/2025-01.rejected.parquet",
        "matchup/mine/2025-01.parquet",
        "stats/available/mine/2025-01.parquet", "stats/held/mine/2025-01.parquet", "stats/unheld/mine/2025-01.parquet",
        "targets.parquet", "targets/mine/2025-01.parquet",
        "backlog/mine/2025-01.parquet", "summary/mine/2025-01.parquet", "summary/mine/2025-01.history.parquet",
    }  # fmt: skip
    assert "mine/2025-01.parquet" in files_in(places["catalog"])
    ds = open_coverage(places["cubes"] / "coverage.zarr")
    assert int(ds["scenes_total"].sel(sensor="mine", time="2025-01-01")) == scenes_of(JANUARY, 0).num_rows
    assert int(ds["held_count"].sel(sensor="mine", time="2025-01-01").max()) > 0
    in_scope = ds["in_scope"].sel(sensor="mine")
    assert 0 < int(in_scope.sum()) < in_scope.size
    assert {path.name for path in tmp_path.iterdir()} == {"data", "work", *(p.name for p in places.values()), holdings.name, sites.name}
    assert not list(folder.glob("data*"))


@pytest.mark.parametrize(("name", "how"), EACH)
def test_targets_are_read_from_the_file_that_is_named(name: str, how: str, tmp_path: Path) -> None:
    for suffix, write in ((".geojson", lambda t, p: p.write_text(t.to_json())), (".parquet", lambda t, p: t.to_parquet(p))):
        for other, west in (("data", 0.0), (name, 40.0)):
            table = gpd.GeoDataFrame({"id": [other], "name": [other]}, geometry=[shapely.box(west, 0, west + 1, 1)], crs="EPSG:4326")
            write(table, tmp_path / f"{other}{suffix}")
        if how == "slash":
            continue  # a file has none
        read = fetch_targets(spellings(tmp_path / f"{name}{suffix}")[how])
        assert read["id"].tolist() == [name]
        assert read.total_bounds.tolist() == [40, 0, 41, 1]


def test_targets_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LocationsError, match="no file at"):
        fetch_targets("file://" + quote(str(tmp_path / "sites.geojson")))


@pytest.mark.parametrize("name", ["data#2", "data?x=1 %23"])
def test_a_cube_is_moved_to_the_place_that_is_named(name: str, world: Path, tmp_path_factory: pytest.TempPathFactory) -> None:  # noqa: F811
    beside = tmp_path_factory.mktemp("beside")
    (beside / "data").mkdir()
    (beside / "data" / "letters.txt").write_text("years of work")
    result = CliRunner().invoke(app, ["migrate", "--config", str(_config(world)), "--to", str(beside / name / "new.zarr")])
    assert result.exit_code == 0, result.output
    assert (beside / name / "new.zarr" / "zarr.json").is_file()
    assert files_in(beside / "data") == {"letters.txt": b"years of work"}
    assert int((open_coverage(beside / name / "new.zarr")["revision"] != 0).sum()) == int(
        (open_coverage(world / "data" / "coverage.zarr")["revision"] != 0).sum()
    )


def _config(folder: Path) -> Path:
    """The settings of ``planner_in`` as a file."""
    config = folder / "settings.toml"
    config.write_text(f"""
data = {json.dumps(str(folder / "data"))}
[grid]
resolution = 30.0
[window]
start = 2025-01-01
end = 2025-02-28
[sensors]
keys = ["mine", "prisma"]
[area]
scope = "all"
[holdings]
path = {json.dumps(str(folder / "holdings.parquet"))}
[sensors.declared.mine]
held_satellite = "MINE"
nominal_revisit_days = 3
default_desired_per_month = 2
taskable = true
reach = [-75.0, 75.0]
available_sources = [{{ kind = "stac", endpoint = "http://127.0.0.1:9", collection_id = "scenes" }}]
""")
    return config


# What an address means


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/a/data#2", "/a/data#2"),
        ("/a/b%20c", "/a/b%20c"),
        ("/a/b?c", "/a/b?c"),
        ("file:///a/b%20c", "/a/b c"),
        ("file:///a/data%232", "/a/data#2"),
        ("FILE:///a/d%C3%A4", "/a/dä"),
        ("file:/a/b", "/a/b"),
        ("local:///a/b", "/a/b"),
        ("C:/data", "C:/data"),
        ("data:2/x", "data:2/x"),
        ("a::b", "a::b"),
        (Path("file:/a"), "file:/a"),
        (Path("/a/b%20c"), "/a/b%20c"),
        (UPath("file:///a/b%20c"), "/a/b%20c"),  # made by somebody else, who has decided what it means
    ],
)
def test_what_an_address_names(address: Any, path: str) -> None:
    found = storage_path(address)
    assert found.protocol == ""
    assert found.path == path


def test_home_and_detours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage_path("~/data").path == str(tmp_path / "data")
    assert storage_path("~data").path == "~data"  # a name like another
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    assert storage_path("link/../x").path == str(tmp_path / "real" / "x")  # as the system goes, not as the letters do
    assert storage_path("real/..").path == str(tmp_path)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "names? no path|is no path"),
        ("  ", "is no path"),
        ("a\0b", "is no path"),
        ("file:///data#2", "%23"),
        ("file:///data?x", "%3F"),
        ("file:///data#", "%23"),
        ("file://server/share", "'server'"),
        ("file://data/cube", "three slashes"),
        ("nosuch://bucket/x", "nosuch://"),
        ("nosuch://me:secret@bucket/x", "nosuch://"),
    ],
)
def test_an_address_that_is_not_clear_is_refused_in_a_sentence(address: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as refused:
        storage_path(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("address", ["s3://bucket/data#2", "s3://bucket/a?b", "s3://bucket/a%20b"])
def test_the_letters_of_an_object_store_s_keys_stay(address: str) -> None:
    assert storage_path(address).path == address.removeprefix("s3://")
    assert arrays.zarr_store(storage_path(address), read_only=True).path == address.removeprefix("s3://")  # type: ignore[attr-defined]


# Nothing is made over what stands there


def content_of(kind: str, place: Path) -> None:
    if kind == "file":
        place.write_text("mine")
    elif kind == "dangling link":
        place.symlink_to(place.parent / "nowhere")
    elif kind == "hidden file":
        place.mkdir()
        (place / ".notes").write_text("mine")
    elif kind == "link to a full folder":
        (place.parent / "full").mkdir()
        (place.parent / "full" / "notes.txt").write_text("mine")
        place.symlink_to(place.parent / "full")
    elif kind == "another zarr":
        zarr.create_group(str(place)).create_array("mine", shape=(3,), dtype="i4")
    else:
        (place / "empty").mkdir(parents=True)


@pytest.mark.parametrize("kind", ["file", "dangling link", "hidden file", "link to a full folder", "another zarr", "an empty folder in it"])
def test_a_cube_is_never_made_over_something(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "coverage.zarr"
    content_of(kind, place)
    before = {path: os.lstat(path).st_ino for path in tmp_path.rglob("*")}, files_in(tmp_path)
    with pytest.raises(CoverageMismatch, match="name another") as refused:
        create.ensure_cube(place, cube_spec(), everywhere())
    assert "\n" not in str(refused.value)
    after = {path: os.lstat(path).st_ino for path in tmp_path.rglob("*") if ".lock" not in path.name}, files_in(tmp_path)
    assert after[0] == before[0]
    assert {name: content for name, content in after[1].items() if ".lock" not in name} == before[1]


@pytest.mark.parametrize("kind", ["file", "hidden file", "another zarr", "link to a full folder"])
def test_a_migration_never_removes_what_stands_at_the_new_place(kind: str, world: Path) -> None:  # noqa: F811
    place = world / "new.zarr"
    content_of(kind, place)
    before = files_in(world)
    with pytest.raises(CoverageError, match="name another place"):
        migrate(planner_in(world), to=UPath(place))
    assert {name: content for name, content in files_in(world).items() if ".lock" not in name} == {
        name: content for name, content in before.items() if ".lock" not in name
    }


@pytest.mark.parametrize("to", ["data/coverage.zarr", "data/coverage.zarr/new.zarr", "data/x/../coverage.zarr/new.zarr", "data"])
def test_a_migration_does_not_go_into_the_old_cube_or_over_its_root(to: str, world: Path) -> None:  # noqa: F811
    before = files_in(world / "data")
    with pytest.raises(CoverageError, match="name another place"):
        migrate(planner_in(world), to=storage_path(str(world / to)))
    assert {name: content for name, content in files_in(world / "data").items() if ".lock" not in name} == {
        name: content for name, content in before.items() if ".lock" not in name
    }
