"""Moving a cube: what was known stays known, the old cube stays until the new one is whole, and nothing half-made is left."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import shapely
import zarr
from numpy.typing import NDArray
from upath import UPath
from zarr.codecs import ZstdCodec

from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.cube.arrays import open_group
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.read import partition_revision, read_partition
from coverage_pipeline.cube.schema import (
    COVERAGE_VARIABLES,
    GAP_VARIABLES,
    PARTITION_DIMS,
    PROVENANCE,
    SCHEMA,
    CoverageError,
    CoverageMismatch,
)
from coverage_pipeline.cube.write import write_coverage
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.pipeline import migrate as module
from coverage_pipeline.pipeline.migrate import Migrated, migrate
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.pipeline.steps import STEPS, Step
from coverage_pipeline.scenes.schema import SCENES_SCHEMA, SCENES_VERSION
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.locks import LockTimeout
from coverage_pipeline.storage.tables import write_parquet
from tests.cubes import provenance as some_provenance
from tests.cubes import random_fields

pytestmark = pytest.mark.slow

JANUARY, FEBRUARY = Month(2025, 1), Month(2025, 2)
PARTITIONS = [("mine", JANUARY), ("mine", FEBRUARY), ("prisma", FEBRUARY)]
"""What is written; January of ``prisma`` is not, and must not seem so afterwards."""


# A planner's world in files: no catalogue and no database is there to be asked


def footprints(seed: int, number: int = 30) -> list[Any]:
    """Boxes that end anywhere within a cell, so that the rules differ; some cross the antimeridian."""
    rng = np.random.default_rng(seed)
    west, south = rng.uniform(-180, 150, number), rng.uniform(-80, 50, number)
    width, height = rng.uniform(2, 28, number), rng.uniform(2, 28, number)
    boxes = [shapely.box(w, s, w + dx, s + dy) for w, s, dx, dy in zip(west, south, width, height, strict=True)]
    return [*boxes, shapely.MultiPolygon([shapely.box(171, 3, 180, 14), shapely.box(-180, 3, -172, 14)])]


def scenes_of(month: Month, seed: int) -> pa.Table:
    """A month of scenes: clear, cloudy and of unknown cloud."""
    rng = np.random.default_rng(seed)
    shapes = footprints(seed)
    clouds = [None if rng.random() < 0.2 else float(rng.uniform(0, 100)) for _ in shapes]
    times = [month.start + dt.timedelta(days=int(rng.integers(0, 28)), hours=10) for _ in shapes]
    rows = [
        {
            "scene_key": f"{month}-{k}",
            "item_ids": [f"{month}-{k}"],
            "acquired": times[k],
            "pass_time": times[k],
            "in_month": True,
            "cloud_cover": cloud,
            "geometry_source": "footprint",
            "geometry": shapely.to_wkb(shape),
        }
        for k, (shape, cloud) in enumerate(zip(shapes, clouds, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=SCENES_SCHEMA)


def write_scenes(planner: Planner, month: Month, scenes: pa.Table) -> None:
    """The file that a scan of sensor ``mine`` leaves."""
    report = ScanReport(
        sensor="mine",
        start=month.start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        end=month.end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        status="complete",
        scanned_at="2025-04-02T00:00:00Z",
        provider="stac.example.org",
        scenes=scenes.num_rows,
    )
    write_parquet(planner.store.scenes("mine", month), as_geoparquet(scenes), {"version": SCENES_VERSION, **report.as_json()})


def planner_in(folder: Path, **overrides: Any) -> Planner:
    """The planner of that folder: sensor ``mine`` (listed, held, can be pointed) and ``prisma`` (in no catalogue), 30° cells."""
    settings: dict[str, Any] = {
        "data": str(folder / "data"),
        "grid": {"resolution": 30.0},
        "window": {"start": "2025-01-01", "end": "2025-02-28"},
        "sensors": {"keys": ["mine", "prisma"]},
        "area": {"scope": "all"},
        "holdings": {"path": str(folder / "holdings.parquet")},
    }
    for name, value in overrides.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    reach = settings["sensors"].pop("reach", (-75.0, 75.0))
    settings["sensors"]["declared"] = {
        "mine": {
            "held_satellite": "MINE",
            "nominal_revisit_days": 3,
            "default_desired_per_month": 2,
            "taskable": True,
            "reach": list(reach),
            "available_sources": [{"kind": "stac", "endpoint": "http://127.0.0.1:9", "collection_id": "scenes"}],
        }
    }
    config = folder / "build.toml"
    config.write_text("")
    return Planner.from_settings(load_settings(config, settings, environment=False))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two months of two sensors, built; copied by every test."""
    folder = tmp_path_factory.mktemp("built")
    planner = planner_in(folder)
    for seed, month in enumerate((JANUARY, FEBRUARY)):
        write_scenes(planner, month, scenes_of(month, seed))
    planner.availability(planner.sensors["prisma"], FEBRUARY)
    held = gpd.GeoDataFrame(
        {
            "datetime": [(month.start + dt.timedelta(days=d)).isoformat() for month in (JANUARY, FEBRUARY) for d in range(9)],
            "sensor": ["MINE"] * 18,
            "cloud": [float(d * 10) for d in range(9)] * 2,
        },
        geometry=footprints(7, 17),
        crs="EPSG:4326",
    )
    held.to_parquet(folder / "holdings.parquet")
    make(planner, STEPS[1:])
    return folder


def make(planner: Planner, steps: Sequence[Step]) -> None:
    """Those steps of every partition of the world."""
    planner.ensure_cube()
    for sensor, month in PARTITIONS:
        if sensor in planner.sensors:
            for step in steps:
                getattr(planner, step)(planner.sensors[sensor], month)
    planner.finish()


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Path:
    """That folder, for one test alone."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


Contents = dict[str, dict[str, NDArray[Any]]]


def contents(path: Path | UPath) -> Contents:
    """What a cube says of every partition that is written, at full resolution and in its levels, by ``YYYY-MM|sensor``."""
    group = open_group(UPath(path), "r")
    sensors = [str(s) for s in np.atleast_1d(group["sensor"][:])]
    days = np.atleast_1d(group["time"][:]).astype("datetime64[D]")
    found: Contents = {}
    arrays = {name: group[name] for name in (*COVERAGE_VARIABLES, *GAP_VARIABLES, *PROVENANCE, "desired")}
    if "overviews" in group:
        for factor, level in group["overviews"].groups():
            arrays |= {f"{factor}/{name}": level[name] for name in (*COVERAGE_VARIABLES, *GAP_VARIABLES)}
    for s, sensor in enumerate(sensors):
        for t, day in enumerate(days):
            revision, gap_revision = (int(group[name][s, t]) for name in ("revision", "gap_revision"))
            if revision:
                fields = {name: np.asarray(array[s, t]) for name, array in arrays.items()}
                fields["gap is known"] = np.array(gap_revision == revision)
                fields["in_scope"] = np.asarray(group["in_scope"][s])
                found[f"{str(day)[:7]}|{sensor}"] = fields
    return found


def assert_same(found: Contents, wanted: Contents, *, but: tuple[str, ...] = ()) -> None:
    assert set(found) == set(wanted)
    for key, fields in wanted.items():
        assert set(fields) == set(found[key])
        for name, values in fields.items():
            if name not in but:
                assert found[key][name].dtype == values.dtype, (key, name)
                np.testing.assert_array_equal(found[key][name], values, err_msg=f"{key} {name}")


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def left_over(data: Path) -> set[str]:
    """What stands beside the cube and is neither one, nor its description, nor a lock of its own, nor a folder of the pipeline."""
    usual = {
        "catalog",
        "holdings",
        "stats",
        "matchup",
        "backlog",
        "summary",
        "coverage.zarr",
        "coverage.stac.json",
        ".coverage.zarr.lock",
        ".coverage.zarr.locks",
    }
    return {p.name for p in data.iterdir()} - usual


def former_of(data: Path) -> list[Path]:
    return sorted(data.glob("coverage.before-*.zarr"))


def scratch(planner: Planner, folder: Path) -> Contents:
    """What a cube built from the same files with the planner's settings says."""
    anew = replace(planner, store=replace(planner.store, zarr=UPath(folder / "scratch.zarr")))
    make(anew, STEPS[2:])
    found = contents(folder / "scratch.zarr")
    shutil.rmtree(folder / "scratch.zarr")
    (folder / "scratch.stac.json").unlink()
    return found


# Copied


def test_partitions_are_copied_to_an_earlier_start_and_more_sensors(world: Path) -> None:
    data = world / "data"
    old = contents(data / "coverage.zarr")
    assert set(old) == {f"{month}|{sensor}" for sensor, month in PARTITIONS}
    assert all(fields["gap is known"] for fields in old.values())
    before = bytes_of(data / "coverage.zarr")
    planner = planner_in(world, window={"start": "2024-11-15"}, sensors={"keys": ["enmap", "mine", "prisma"]})
    with pytest.raises(CoverageMismatch, match="earlier start"):
        planner.ensure_cube()
    told: list[tuple[str, int, int]] = []
    done = migrate(planner, on_partition=lambda *label: told.append(label))
    assert [number for _, number, _ in told] == [1, 2, 3]
    assert {key for key, _, _ in told} == set(old)
    assert {of for *_, of in told} == {3}
    assert done == Migrated(planner.store.zarr, UPath(former_of(data)[0]), copied=3, made=0)

    assert_same(contents(data / "coverage.zarr"), old)
    ds = open_coverage(data / "coverage.zarr")
    assert ds["sensor"].values.tolist() == ["enmap", "mine", "prisma"]
    assert [str(t)[:7] for t in ds["time"].values] == ["2024-11", "2024-12", "2025-01", "2025-02"]
    assert np.isnan(ds["scenes_count"].sel(sensor="enmap").values).all()  # nobody looked: not known
    assert ds.attrs["catalog_snapshot"] == "2025-04-02"

    assert re.fullmatch(r"coverage\.before-\d{8}T\d{6}Z\.zarr", done.former.name)
    assert bytes_of(Path(done.former.path)) == before
    assert left_over(data) == {done.former.name}
    described = json.loads((data / "coverage.stac.json").read_text())
    assert described["id"] == "coverage"
    assert described["assets"]["zarr"]["href"] == "./coverage.zarr"
    assert described["cube:dimensions"]["sensor"]["values"] == ["enmap", "mine", "prisma"]
    assert described["catalog_snapshot"] == "2025-04-02"

    planner.ensure_cube()  # the cube is one of these settings, and can be built on
    for step in STEPS[2:]:
        getattr(planner, step)(planner.sensors["mine"], JANUARY)
    assert_same(contents(data / "coverage.zarr"), old)


def test_a_second_migration_right_after_copies_all_again(world: Path) -> None:
    """Both within a second: their names of the old cube must not meet."""
    planner, data = planner_in(world, window={"start": "2024-12-01"}), world / "data"
    old = contents(data / "coverage.zarr")
    frozen = dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "dt", SimpleNamespace(datetime=SimpleNamespace(now=lambda _: frozen), timedelta=dt.timedelta))
        first = migrate(planner)
        second = migrate(planner)
    assert first.former.name == "coverage.before-20260504T030201Z.zarr"
    assert (second.copied, second.made, second.dropped) == (3, 0, {})
    assert first.former != second.former
    for cube in (data / "coverage.zarr", Path(first.former.path), Path(second.former.path)):
        assert_same(contents(cube), old)
    assert left_over(data) == {first.former.name, second.former.name}


def test_the_sensors_and_months_of_the_old_cube_are_kept_where_the_settings_name_fewer(world: Path) -> None:
    old = contents(world / "data" / "coverage.zarr")
    done = migrate(planner_in(world, window={"start": "2025-02-01"}, sensors={"keys": ["prisma"]}))
    assert done.copied == 3
    assert_same(contents(world / "data" / "coverage.zarr"), old)


def test_a_gap_that_fits_no_longer_is_made_again(world: Path) -> None:
    data = world / "data"
    planner = planner_in(world, gap={"desired": {"mine": 9}})  # a gap made again says so; one that is copied does not
    whole = contents(data / "coverage.zarr")
    planner.coverage(planner.sensors["mine"], FEBRUARY)
    assert not contents(data / "coverage.zarr")["2025-02|mine"]["gap is known"]
    assert migrate(planner).copied == 3
    found = contents(data / "coverage.zarr")
    assert {key: float(fields["desired"]) for key, fields in found.items() if "mine" in key} == {"2025-01|mine": 2, "2025-02|mine": 9}
    again = found.pop("2025-02|mine")
    assert again["gap is known"]
    planner.gap(planner.sensors["mine"], FEBRUARY)
    assert_same({"2025-02|mine": again}, {"2025-02|mine": contents(data / "coverage.zarr")["2025-02|mine"]})
    del whole["2025-02|mine"]
    assert_same(found, whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"gap": {"weights": {"deficit": 0.1, "staleness": 0.1, "unmet": 0.1, "wait": 0.7}}},
        {"area": {"scope": "targets"}, "targets": "sites.geojson"},
        {"sensors": {"reach": (-35.0, 35.0)}},
    ],
    ids=["weights", "area", "reach"],
)
def test_a_gap_of_other_weights_or_another_scope_is_made_again(world: Path, changes: dict[str, Any]) -> None:
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(5, 5, 6, 6)], crs="EPSG:4326").to_file("sites.geojson")
    planner = planner_in(world, **changes)
    old = contents(world / "data" / "coverage.zarr")
    done = migrate(planner)
    assert (done.copied, done.made) == (3, 0)
    found = contents(world / "data" / "coverage.zarr")
    assert_same(found, scratch(planner, world))
    name = "priority_score" if "gap" in changes else "action"
    assert not np.array_equal(found["2025-01|mine"][name], old["2025-01|mine"][name], equal_nan=True)


def test_a_large_partition_is_copied_in_pieces(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips are whole chunks, and a chunk has 450 rows: two are the least that can be cut."""
    planner = planner_in(world, grid={"resolution": 0.2, "extent": [-10.0, -90.0, 10.0, 90.0]}, sensors={"keys": ["mine"]}, area={})
    shutil.rmtree(world / "data" / "coverage.zarr")
    make(planner, STEPS[2:])
    old = contents(world / "data" / "coverage.zarr")
    assert old["2025-01|mine"]["scenes_count"].shape == (900, 100)
    assert any(name.startswith(("5/", "25/")) for name in old["2025-01|mine"])
    strips = [(0, 450), (450, 900)]
    monkeypatch.setattr(Planner, "strips", lambda self: strips)
    assert migrate(planner).copied == 2
    assert_same(contents(world / "data" / "coverage.zarr"), old)


# Schema 1


def write_schema_1(source: Path, target: Path) -> None:
    """The cube of ``source`` as schema 1 had it: no levels, no rule, resolution and crs among the settings."""
    old = zarr.open_group(str(source), mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(str(target), mode="w")
        for name in (*SCHEMA, "sensor", "time", "lat", "lon", "spatial_ref"):
            array = old[name]
            dims = SCHEMA[name].dims if name in SCHEMA else () if name == "spatial_ref" else (name,)
            made = group.create_array(
                name,
                shape=array.shape,
                chunks=tuple(
                    1 if dim in PARTITION_DIMS and len(dims) > 1 else min(450, max(n, 1)) for dim, n in zip(dims, array.shape, strict=True)
                ),
                dtype=SCHEMA[name].dtype if name in SCHEMA else "string" if name == "sensor" else array.dtype,
                fill_value=SCHEMA[name].fill if name in SCHEMA else None,
                compressors=ZstdCodec(level=1) if "lat" in dims else None,
                dimension_names=dims,
                attributes=dict(array.attrs),
            )
            made[...] = array[...]
        settings = json.loads(old.attrs["settings"])
        grid = settings.pop("grid")
        assert set(grid) == {"resolution", "crs", "rule"}
        kept = ("Conventions", "title", "coordinates", "grid_resolution", "grid_shape", "software", "catalog_snapshot", "scopes")
        group.attrs.update({name: old.attrs[name] for name in kept})
        group.attrs.update(
            {"schema_version": 1, "settings": json.dumps({"resolution": grid["resolution"], "crs": grid["crs"], **settings})}
        )
        zarr.consolidate_metadata(group.store)


def test_a_cube_of_schema_1_is_read(world: Path) -> None:
    cube = world / "data" / "coverage.zarr"
    planner = planner_in(world, grid={"resolution": 10.0})  # fine enough for a level
    shutil.rmtree(cube)
    make(planner, STEPS[2:])
    as_it_was = contents(cube)
    write_schema_1(cube, world / "first.zarr")
    shutil.rmtree(cube)
    (world / "data" / "coverage.stac.json").unlink()
    (world / "first.zarr").rename(cube)
    with pytest.raises(CoverageMismatch, match="schema version 1, this program writes 2: run `coverage-planner migrate`"):
        planner.ensure_cube()
    for folder in ("catalog", "holdings", "stats", "matchup"):
        shutil.rmtree(world / "data" / folder)  # copied: nothing is needed of them
    done = migrate(planner)
    assert (done.copied, done.made, done.dropped) == (3, 0, {})
    assert any("/" in name for name in as_it_was["2025-01|mine"])
    assert_same(contents(cube), as_it_was)  # with the levels, which schema 1 had not
    assert zarr.open_group(str(cube), mode="r").attrs["schema_version"] == 2
    assert zarr.open_group(done.former.path, mode="r").attrs["schema_version"] == 1
    assert (world / "data" / "coverage.stac.json").exists()
    planner.ensure_cube()


def test_a_cube_of_schema_1_is_made_anew_for_another_rule(world: Path) -> None:
    cube = world / "data" / "coverage.zarr"
    write_schema_1(cube, world / "first.zarr")
    shutil.rmtree(cube)
    (world / "first.zarr").rename(cube)
    planner = planner_in(world, grid={"rule": "center"})
    assert migrate(planner).made == 3
    assert_same(contents(cube), scratch(planner, world))


# Made anew


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": {"resolution": 15.0}},
        {"grid": {"rule": "center"}},
        {"grid": {"rule": "fraction", "min_fraction": 0.8}},
        {"grid": {"extent": [-30.0, -40.0, 60.0, 50.0]}},
        {"grid": {"h3_res": 1}},
        {"cloud_lt": 60.0},
        {"holdings": {"match_tolerance_seconds": 5.0}},
    ],
    ids=["finer", "center", "fraction", "region", "h3", "cloud_lt", "tolerance"],
)
def test_a_cube_made_anew_is_the_one_built_from_scratch(world: Path, changes: dict[str, Any]) -> None:
    data = world / "data"
    planner = planner_in(world, **changes)
    old, before = contents(data / "coverage.zarr"), bytes_of(data / "coverage.zarr")
    with pytest.raises(CoverageMismatch, match="coverage-planner migrate"):
        planner.ensure_cube()
    done = migrate(planner)
    assert (done.copied, done.made, done.dropped) == (0, 3, {})
    found = contents(data / "coverage.zarr")
    assert_same(found, scratch(planner, world))
    if "holdings" not in changes:
        shape, values = (old["2025-01|mine"]["cloud_free_scene_count"], found["2025-01|mine"]["cloud_free_scene_count"])
        assert not np.array_equal(shape, values)
    assert bytes_of(Path(done.former.path)) == before
    assert left_over(data) == {done.former.name}
    assert not list(data.parent.rglob("*.tmp"))
    planner.ensure_cube()
    described = json.loads((data / "coverage.stac.json").read_text())
    assert set(planner.grid.dims) <= set(described["cube:dimensions"])


def test_a_month_without_a_scene_or_a_holding_goes_through_every_step(world: Path) -> None:
    planner = planner_in(world, window={"end": "2025-03-31"}, grid={"rule": "center"})
    march = Month(2025, 3)
    write_scenes(planner, march, SCENES_SCHEMA.empty_table())
    migrate(planner)
    mine = planner.sensors["mine"]
    for step in STEPS[1:]:
        getattr(planner, step)(mine, march)
    found = contents(world / "data" / "coverage.zarr")["2025-03|mine"]
    zeros = [n for n in COVERAGE_VARIABLES if n not in ("mean_scene_cloud_pct", "days_since_last_held")]
    assert all((found[name] == 0).all() for name in zeros)
    assert np.isnan(found["mean_scene_cloud_pct"]).all()
    assert (found["scan_status"], found["holdings_status"], found["scenes_total"]) == (3, 1, 0)
    deficit = found["deficit"][found["in_scope"] == 1]
    assert deficit.size
    assert (deficit == 2).all()
    assert migrate(planner_in(world, window={"end": "2025-03-31"}, grid={"resolution": 15.0})).made == 4
    assert (contents(world / "data" / "coverage.zarr")["2025-03|mine"]["scenes_count"] == 0).all()


# Files that are gone


@pytest.mark.parametrize("kind", ["scenes", "holdings", "last_held"])
def test_partitions_whose_files_are_gone_are_refused_and_nothing_changes(world: Path, kind: str) -> None:
    data = world / "data"
    planner = planner_in(world, grid={"rule": "center"})
    Path(getattr(planner.store, kind)("mine", FEBRUARY).path).unlink()
    before = bytes_of(data / "coverage.zarr")
    with pytest.raises(CoverageError, match="1 of 3 partitions cannot be carried over; the cube is as it was") as refused:
        migrate(planner)
    assert "--drop" in str(refused.value)
    assert re.search(r"\n  2025-02\|mine: .*2025-02.*does not exist yet", str(refused.value))
    assert bytes_of(data / "coverage.zarr") == before
    assert not former_of(data)
    assert left_over(data) == set()

    done = migrate(planner, drop=True)
    assert (done.copied, done.made) == (0, 2)
    assert list(done.dropped) == ["2025-02|mine"]
    assert "does not exist yet" in done.dropped["2025-02|mine"]
    found = contents(data / "coverage.zarr")
    assert set(found) == {"2025-01|mine", "2025-02|prisma"}
    assert np.isnan(open_coverage(data / "coverage.zarr")["scenes_count"].sel(sensor="mine", time="2025-02-01").values).all()


def test_files_that_are_gone_are_missed_before_any_work_is_done(world: Path) -> None:
    """A long history must not be gridded again only to be thrown away, nor the statistics of the cube that stays be replaced."""
    planner = planner_in(world, grid={"rule": "center"})
    Path(planner.store.scenes("prisma", FEBRUARY).path).unlink()  # the last of three
    before = bytes_of(world / "data" / "stats")
    with pytest.raises(CoverageError, match="cannot be carried over"):
        migrate(planner)
    assert bytes_of(world / "data" / "stats") == before


def test_a_shorter_lookback_needs_another_extract_and_says_so(world: Path) -> None:
    planner = planner_in(world, holdings={"lookback_months": 3})
    with pytest.raises(CoverageError, match=r"2025-01\|mine: .*lookback_months 24, the settings say 3; materialise holdings again"):
        migrate(planner)
    for sensor, month in PARTITIONS:
        planner.holdings(planner.sensors[sensor], month)
    assert migrate(planner).made == 3
    assert_same(contents(world / "data" / "coverage.zarr"), scratch(planner, world))


def test_a_scenes_file_that_cannot_be_gridded_is_a_partition_that_is_not_carried_over(world: Path) -> None:
    planner = planner_in(world, grid={"rule": "center"})
    scenes = scenes_of(FEBRUARY, 1)
    off = pa.array([*scenes["geometry"].to_pylist()[1:], shapely.to_wkb(shapely.box(0, 80, 10, 100))], pa.binary())
    write_scenes(planner, FEBRUARY, scenes.set_column(scenes.schema.get_field_index("geometry"), SCENES_SCHEMA.field("geometry"), off))
    before = bytes_of(world / "data" / "coverage.zarr")
    with pytest.raises(CoverageError, match=r"2025-02\|mine: .*90"):
        migrate(planner)
    assert bytes_of(world / "data" / "coverage.zarr") == before
    assert left_over(world / "data") == set()
    assert migrate(planner, drop=True).made == 2


def test_a_sensor_nobody_knows_any_more_is_not_carried_over(world: Path) -> None:
    data = world / "data"
    first = planner_in(world, window={"start": "2024-12-01"}, sensors={"keys": ["mine", "prisma", "enmap"]})
    migrate(first)
    with pytest.MonkeyPatch.context() as patch:
        kept = {k: v for k, v in first.settings.registry().items() if k != "mine"}
        planner = planner_in(world, window={"start": "2024-12-01"}, sensors={"keys": ["prisma"]})
        patch.setattr(type(planner.settings), "registry", lambda self: kept)
        with pytest.raises(CoverageError, match=r"2025-01\|mine: sensor mine is not known any more"):
            migrate(planner)
        assert len(former_of(data)) == 1
        done = migrate(planner, drop=True)
    assert set(done.dropped) == {"2025-01|mine", "2025-02|mine"}
    assert set(contents(data / "coverage.zarr")) == {"2025-02|prisma"}
    assert {"2025-01|mine", "2025-02|mine"} <= set(contents(Path(done.former.path)))


# Refused


def test_without_a_cube_there_is_nothing_to_migrate(tmp_path: Path) -> None:
    with pytest.raises(CoverageError, match=r"no coverage cube at .*coverage\.zarr: there is nothing to migrate"):
        migrate(planner_in(tmp_path))
    assert left_over(tmp_path / "data") <= {".coverage.zarr.lock"}


@pytest.mark.parametrize("version", [0, 3, None, "2"])
def test_a_schema_nobody_knows_is_refused(world: Path, version: Any) -> None:
    cube = world / "data" / "coverage.zarr"
    group = zarr.open_group(str(cube), mode="r+", use_consolidated=False)
    group.attrs["schema_version"] = version
    before = bytes_of(cube)
    with pytest.raises(CoverageMismatch, match=f"has schema version {version}; this program migrates 1 and 2"):
        migrate(planner_in(world))
    assert bytes_of(cube) == before
    assert left_over(world / "data") == set()


def test_a_cube_on_an_object_store_needs_another_name(world: Path) -> None:
    place = f"memory://migrate-{world.name}/coverage.zarr"
    planner = planner_in(world, output={"zarr": place})
    make(planner, STEPS[2:])
    old = contents(UPath(place))
    with pytest.raises(CoverageError, match="object store, which cannot rename a cube: name the new one with --to"):
        migrate(planner)
    done = migrate(planner_in(world, output={"zarr": place}, window={"start": "2024-12-01"}), to=UPath(place).parent / "second.zarr")
    assert (str(done.former), str(done.path)) == (place, place.replace("coverage.zarr", "second.zarr"))
    assert_same(contents(done.path), old)
    assert_same(contents(UPath(place)), old)
    described = json.loads((UPath(place).parent / "second.stac.json").read_text())
    assert (described["id"], described["assets"]["zarr"]["href"]) == ("second", "./second.zarr")


def test_another_name_leaves_the_old_cube_in_its_place(world: Path) -> None:
    data = world / "data"
    before, old = bytes_of(data / "coverage.zarr"), contents(data / "coverage.zarr")
    described = (data / "coverage.stac.json").read_bytes()
    planner = planner_in(world, window={"start": "2024-12-01"})
    done = migrate(planner, to=UPath(world / "elsewhere" / "second.zarr"))
    assert (Path(done.path.path), Path(done.former.path)) == (world / "elsewhere" / "second.zarr", data / "coverage.zarr")
    assert_same(contents(world / "elsewhere" / "second.zarr"), old)
    assert bytes_of(data / "coverage.zarr") == before
    assert (data / "coverage.stac.json").read_bytes() == described
    assert not former_of(data)
    with pytest.raises(CoverageError, match=r"second\.zarr is there already: name another place"):
        migrate(planner, to=UPath(world / "elsewhere" / "second.zarr"))
    with pytest.raises(CoverageError, match=r"coverage\.zarr is there already"):
        migrate(planner, to=UPath(data / "coverage.zarr"))


def test_a_refused_migration_to_another_name_leaves_nothing_there(world: Path) -> None:
    """The error says to go on with --drop: the same name must still be free."""
    planner, target = planner_in(world, grid={"rule": "center"}), UPath(world / "second.zarr")
    Path(planner.store.scenes("mine", FEBRUARY).path).unlink()
    with pytest.raises(CoverageError, match="--drop"):
        migrate(planner, to=target)
    assert not Path(target.path).exists()
    assert migrate(planner, to=target, drop=True).made == 2


# Meanwhile


def test_a_write_to_the_old_cube_is_noticed(world: Path) -> None:
    data = world / "data"
    running = planner_in(world)
    planner = planner_in(world, window={"start": "2024-12-01"})
    mine = running.sensors["mine"]

    def on_partition(key: str, number: int, of: int) -> None:
        if number == of:  # of one that is copied already
            running.coverage(mine, JANUARY)
            running.gap(mine, JANUARY)

    old = contents(data / "coverage.zarr")
    with pytest.raises(CoverageError, match="was written to during the migration and is as it was; run it again"):
        migrate(planner, on_partition=on_partition)
    assert_same(contents(data / "coverage.zarr"), old)
    assert not former_of(data)
    assert left_over(data) == set()
    assert migrate(planner).copied == 3


def test_a_gap_made_again_meanwhile_is_noticed(world: Path) -> None:
    planner = planner_in(world, window={"start": "2024-12-01"})
    wanting_more = planner_in(world, gap={"desired": {"mine": 9}})

    def on_partition(key: str, number: int, of: int) -> None:
        if number == of:
            wanting_more.gap(wanting_more.sensors["mine"], JANUARY)

    with pytest.raises(CoverageError, match="was written to during the migration"):
        migrate(planner, on_partition=on_partition)
    assert contents(world / "data" / "coverage.zarr")["2025-01|mine"]["desired"] == 9


def test_a_writer_that_began_before_and_ends_after_never_writes_into_the_new_cube(world: Path) -> None:
    """Its partition is not whole at the start nor at the end, so that revisions alone do not tell: its lock does."""
    cube = world / "data" / "coverage.zarr"
    fields = random_fields(5, planner_in(world).grid)
    began, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[Any]:
        yield None, fields  # as of the old rule
        began.set()
        assert go_on.wait(60)

    writer = threading.Thread(target=write_coverage, args=(cube, "mine", JANUARY, pieces(), some_provenance()))
    writer.start()
    try:
        assert began.wait(60)
        planner = planner_in(world, grid={"rule": "center"})
        with pytest.raises((CoverageError, LockTimeout)):
            migrate(planner)
    finally:
        go_on.set()
        writer.join()
    assert not former_of(world / "data")
    assert partition_revision(cube, "mine", JANUARY)
    written, _ = read_partition(cube, "mine", JANUARY, ["available_days"])
    np.testing.assert_array_equal(written["available_days"].values[0, 0], fields["available_days"])


def test_the_axes_do_not_grow_meanwhile(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coverage_pipeline.cube import locking
    from coverage_pipeline.storage import locks

    monkeypatch.setattr(locking, "exclusive", lambda path, label, **_: locks.exclusive(path, label=label, timeout=0.2))
    refused: list[str] = []

    def on_partition(key: str, number: int, of: int) -> None:
        def grow() -> None:
            try:
                planner_in(world, window={"end": "2025-03-31"}).ensure_cube()
            except LockTimeout as error:
                refused.append(str(error))

        if number == 1:
            thread = threading.Thread(target=grow)  # a lock of a file is a thread's own
            thread.start()
            thread.join()

    migrate(planner_in(world, window={"start": "2024-12-01"}), on_partition=on_partition)
    assert len(refused) == 1


# Killed


def test_a_migration_killed_midway_leaves_the_old_cube_and_the_next_works(world: Path) -> None:
    data = world / "data"
    before = bytes_of(data / "coverage.zarr")
    script = textwrap.dedent(
        """
        import os, pathlib, signal, sys
        from coverage_pipeline.pipeline.migrate import migrate
        from tests.pipeline.test_migrate import planner_in

        def killed(key, number, of):
            if number == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        migrate(planner_in(pathlib.Path(sys.argv[1]), grid={"rule": "center"}), on_partition=killed)
        """
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", script, str(world)], cwd=root, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert bytes_of(data / "coverage.zarr") == before
    assert not former_of(data)
    assert left_over(data)  # what it had made so far is there, and no cube to anyone
    assert not [p for p in data.iterdir() if p.name in left_over(data) and not p.name.startswith(".")]

    planner = planner_in(world, grid={"rule": "center"})
    done = migrate(planner)
    assert done.made == 3
    assert bytes_of(Path(done.former.path)) == before
    assert left_over(data) == {done.former.name}
    assert_same(contents(data / "coverage.zarr"), scratch(planner, world))


def test_a_migration_stopped_between_the_two_names_is_ended_by_the_next(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old cube has its new name and the new one not yet: a build would make an empty cube there."""
    data = world / "data"
    old = contents(data / "coverage.zarr")
    planner = planner_in(world, window={"start": "2024-12-01"})
    rename = Path.rename

    def stopped(self: Path, target: Any) -> Path:
        if self.name.endswith(".migrating"):
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            migrate(planner)
    assert len(former_of(data)) == 1
    migrate(planner)
    assert_same(contents(data / "coverage.zarr"), old)


def test_a_disk_that_is_full_leaves_the_old_cube_and_nothing_beside_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = world / "data"
    before = bytes_of(data / "coverage.zarr")

    def full(self: Planner, sensor: Any, month: Month) -> None:
        raise StoreError("cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Planner, "gap", full)
        with pytest.raises(StoreError, match="No space left"):
            migrate(planner_in(world, gap={"weights": {"deficit": 0.1, "staleness": 0.1, "unmet": 0.1, "wait": 0.7}}))
    assert bytes_of(data / "coverage.zarr") == before
    assert left_over(data) == set()
