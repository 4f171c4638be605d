"""``place()`` against the target statistics of the whole files, and the order of the files that lets it read a part of them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from coverage_pipeline.cli.app import app
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.place import outline_of, place
from coverage_pipeline.demand.target_stats import write_target_stats
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.scenes.order import ROWS_A_GROUP, along_the_curve
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import RowGroups, read_near, read_parquet, read_rows_of, write_parquet
from tests.pipeline.test_migrate import FEBRUARY, JANUARY, built, planner_in, world  # noqa: F401 fixtures

PLACES = [
    shapely.box(-180, -80, 180, 80),
    shapely.box(170, -20, 180, 20),
    shapely.MultiPolygon([shapely.box(175, 0, 180, 20), shapely.box(-180, 0, -175, 20)]),
    shapely.box(9, 40, 10, 41),
    *(shapely.Point(lon, lat).buffer(3) for lon, lat in ((0, 0), (60, 30), (-100, 45), (120, -60), (-20, 10))),
]


@pytest.mark.parametrize("shape", PLACES, ids=range(len(PLACES)))
def test_a_place_is_a_target(world: Path, shape: shapely.Geometry) -> None:  # noqa: F811
    """The figures read from some row groups are those of the whole files."""
    planner = planner_in(world)
    sensor = planner.sensors["mine"]
    targets = outline_of(shape)
    report = place(shape, "2025-01-01", "2025-02", [sensor], store=planner.store, desired={"mine": 2.0})
    assert [one.month for one in report.months] == [JANUARY, FEBRUARY]
    for one in report.months:
        write_target_stats(sensor, one.month, planner.store, targets, cloud_lt=10.0, default_desired=2.0)
        (row,) = read_parquet(planner.store.target_stats("mine", one.month))[0].to_pylist()
        assert (one.action, one.deficit) == (row["action"], row["deficit"])
        for name in ("available_days", "clear_days", "held_days", "held_clear_days", "ingestable_days", "check_days"):
            assert getattr(one, name) == {day for day in range(1, 32) if row[name] >> (day - 1) & 1}, name
        assert [(s.scene_key, s.day, s.held) for s in one.scenes] == [(s["scene_key"], s["day"], s["held"]) for s in row["scenes"]]
        assert one.why.endswith(".")
        assert "complete scan" in one.known


def test_months_without_files_are_not_known_and_say_what_to_make(world: Path) -> None:  # noqa: F811
    planner = planner_in(world)
    (one,) = place(PLACES[3], "2024-05-01", "2024-05", [planner.sensors["mine"]], store=planner.store, desired={"mine": 2.0}).months
    assert (one.action, one.deficit, one.available_days, one.held_days) == ("unknown", None, None, None)
    assert "availability, holdings, matchup" in one.known


def test_a_damaged_file_is_named(world: Path) -> None:  # noqa: F811
    planner = planner_in(world)
    path = Path(planner.store.scenes("mine", JANUARY).path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match=path.name):
        place(PLACES[0], "2025-01-01", "2025-01", [planner.sensors["mine"]], store=planner.store, desired={"mine": 2.0})


@pytest.mark.parametrize(
    ("shape", "radius", "word"),
    [
        (shapely.Point(9, 47), 0.0, "radius"),
        (shapely.Point(9, 97), 5.0, "latitude"),
        (shapely.Polygon(), 0.0, "no geometry"),
        (shapely.box(9, 47, 9, 48), 0.0, "area"),
        (shapely.box(9, 47, 10, 48), -1.0, "radius"),
    ],
)
def test_a_place_that_is_none(shape: shapely.Geometry, radius: float, word: str) -> None:
    with pytest.raises(LocationsError, match=word):
        outline_of(shape, radius)


boxes = st.tuples(st.floats(-179, 170), st.floats(-89, 80), st.floats(0.1, 8), st.floats(0.1, 8)).map(
    lambda b: shapely.box(b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def table_of(shapes: list[shapely.Geometry]) -> pa.Table:
    times = [dt.datetime(2025, 1, 1 + k % 28, tzinfo=dt.UTC) for k in range(len(shapes))]
    return pa.table(
        {
            "scene_key": [f"s{k}" for k in range(len(shapes))],
            "pass_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "geometry": pa.array([shapely.to_wkb(shape) for shape in shapes], pa.binary()),
        }
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(boxes, max_size=20), st.randoms())
def test_the_order_keeps_every_scene_and_does_not_depend_on_the_order_before(shapes: list[Any], chance: Any) -> None:
    table = table_of(shapes)
    rows = list(range(len(shapes)))
    chance.shuffle(rows)
    ordered = along_the_curve(table)
    assert ordered.equals(along_the_curve(table.take(pa.array(rows, pa.int64()))))
    assert sorted(ordered["scene_key"].to_pylist()) == sorted(table["scene_key"].to_pylist())


def test_a_place_is_in_few_row_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lon, lat = rng.uniform(-175, 175, 30_000), rng.uniform(-80, 80, 30_000)
    seam = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
    shapes = [*shapely.box(lon, lat, lon + 1, lat + 1), seam]
    path = Store.below(tmp_path).scenes("emit", JANUARY)
    ordered = as_geoparquet(along_the_curve(table_of(shapes)))
    write_parquet(path, ordered, {"a": 1}, rows_a_group=ROWS_A_GROUP)
    assert ordered["scene_key"][-1].as_py() == "s30000"
    near, _, groups = read_near(path, [(9.0, 47.0, 10.0, 48.0)], ["scene_key", "geometry"])
    assert len(groups.chosen) <= 3 < len(groups.sizes)
    hit = {k for k, shape in enumerate(shapes) if shape.intersects(shapely.box(9, 47, 10, 48))}
    assert {f"s{k}" for k in hit} <= set(near["scene_key"].to_pylist())
    # Another file with its rows in the same order, whatever its row groups.
    for size in (ROWS_A_GROUP, 1000, 100_000):
        other = tmp_path / "other.parquet"
        pq.write_table(ordered.select(["scene_key"]).replace_schema_metadata({b"coverage_planner": b"{}"}), other, row_group_size=size)
        rows, _ = read_rows_of(Store.below(tmp_path).root / "other.parquet", groups, ["scene_key"])
        assert rows["scene_key"].to_pylist() == near["scene_key"].to_pylist()
    with pytest.raises(StoreError, match="30,001 rows"):
        read_rows_of(Store.below(tmp_path).root / "other.parquet", RowGroups((0,), (5,)), ["scene_key"])


def test_the_command_prints_a_page_and_json(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("COVERAGE_DATA", str(world / "data"))
    monkeypatch.setenv("COVERAGE_SENSORS_DECLARED", json.dumps({"mine": {"nominal_revisit_days": 3, "default_desired_per_month": 2}}))
    common = ["--sensors", "mine", "--start", "2025-01", "--end", "2025-02"]
    result = CliRunner().invoke(app, ["place", "--bbox", "170,-20,-170,20", *common])
    assert result.exit_code == 0, result.output
    assert "mine" in result.output
    assert "complete scan" in result.output
    result = CliRunner().invoke(app, ["place", "--lon", "9.4", "--lat", "47.6", "--format", "json", *common])
    assert [one["month"] for one in json.loads(result.stdout)["months"]] == ["2025-01", "2025-02"]
    assert "a circle of 1 km" in result.stderr
    outline = tmp_path / "t.geojson"
    gpd.GeoDataFrame(geometry=[PLACES[3]], crs="EPSG:4326").to_file(outline)
    assert CliRunner().invoke(app, ["place", "--file", str(outline), *common]).exit_code == 0
    for wrong in ([], ["--lon", "9"], ["--lon", "9", "--lat", "47", "--bbox", "1,2,3,4"]):
        result = CliRunner().invoke(app, ["place", *wrong, *common])
        assert result.exit_code == 2
        assert "name one place" in result.output
