"""Files of targets in every format, and every row that cannot be used named in one report."""

from __future__ import annotations

import json
import logging
import math
import time
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import Geod

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.target_table import season_holds
from coverage_pipeline.demand.targets import checked_targets, keep_targets, load_targets, read_targets
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.storage.store import Store

SENSORS = tuple(COVERAGE_SENSORS)
BOX = shapely.box(9, 49, 9.5, 49.5)


def frame(*shapes: Any, crs: str | None = "EPSG:4326", **columns: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def saved(table: gpd.GeoDataFrame, path: Path) -> str:
    match path.suffix:
        case ".parquet":
            table.to_parquet(path)
        case ".csv":
            table.assign(wkt=table.geometry.to_wkt()).drop(columns="geometry").to_csv(path, index=False)
        case ".kml":
            features = "".join(
                f"<Placemark><name>{name}</name><Polygon><outerBoundaryIs><LinearRing><coordinates>"
                + " ".join(f"{x},{y},0" for x, y in shape.exterior.coords)
                + "</coordinates></LinearRing></outerBoundaryIs></Polygon></Placemark>"
                for name, shape in zip(table["name"], table.geometry, strict=True)
            )
            path.write_text(
                f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document><Folder><name>f</name>{features}</Folder></Document></kml>'
            )
        case ".zip":
            table.to_file(path.with_suffix(".shp"))
            with zipfile.ZipFile(path, "w") as archive:
                for part in path.parent.glob(f"{path.stem}.*"):
                    if part.suffix != ".zip":
                        archive.write(part, part.name)
        case _:
            table.to_file(path)
    return str(path)


@pytest.mark.parametrize("suffix", [".geojson", ".parquet", ".gpkg", ".shp", ".zip", ".kml", ".csv"])
def test_every_format_gives_the_same_targets(suffix: str, tmp_path: Path) -> None:
    table = frame(BOX, shapely.box(20, -5, 21, -4), id=["a", "b"], name=["Aa", "Bb"])
    targets = read_targets(saved(table, tmp_path / f"sites{suffix}"), SENSORS)
    assert targets.table["name"].tolist() == ["Aa", "Bb"]
    if suffix != ".kml":  # which has no id
        assert targets.table["id"].tolist() == ["a", "b"]
    assert all(shapely.equals(a, b) for a, b in zip(targets.table.geometry, table.geometry, strict=True))
    assert targets.table["min_cover"].tolist() == [0.95, 0.95]
    assert targets.table["weight"].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(targets.table["area_km2"], ellipsoid_km2(table.geometry.to_numpy()))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_of_points(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    lines = ["id,lon,lat,buffer_km,desired,season", "001,7.5,50.5,10,4,4-10", "2,-120.25,38,2.5,,"]
    path.write_text("\ufeff" + "\n".join(lines).replace(",", separator), encoding="utf-8")
    targets = read_targets(str(path), SENSORS)
    assert targets.table["id"].tolist() == ["001", "2"]
    assert targets.table["area_km2"].tolist() == pytest.approx([math.pi * 100, math.pi * 6.25], rel=2e-3)
    assert targets.desired("emit", Month(2025, 5), 2.0).tolist() == [4.0, 2.0]
    assert targets.desired("emit", Month(2025, 11), 2.0).tolist() == [0.0, 2.0]


@pytest.mark.parametrize("place", [(10.0, 50.0), (180.0, -17.0), (-179.99, 66.0), (30.0, 89.9), (0.0, -90.0)])
def test_a_buffer_is_a_circle_on_the_ellipsoid(place: tuple[float, float], tmp_path: Path) -> None:
    """Also across the antimeridian and over a pole: each spot is inside where it is nearer than the buffer."""
    targets = read_targets(saved(frame(shapely.Point(place), buffer_km=[50.0]), tmp_path / "p.parquet"), SENSORS)
    (circle,) = targets.table.geometry
    assert targets.table["area_km2"][0] == pytest.approx(math.pi * 2500, rel=3e-3)
    rng, geod = np.random.default_rng(1), Geod(ellps="WGS84")
    for azimuth, km in zip(rng.uniform(0, 360, 60), rng.uniform(1, 100, 60), strict=True):
        lon, lat, _ = geod.fwd(*place, azimuth, km * 1000)
        if abs(km - 50) > 1:
            assert shapely.intersects_xy(circle, lon, lat) == (km < 50), (azimuth, km)


def test_lines_and_polygons_grow_by_their_buffer(tmp_path: Path) -> None:
    line = shapely.LineString([(9, 49), (9, 50)])
    targets = read_targets(saved(frame(line, BOX, buffer_km=[5.0, 5.0]), tmp_path / "l.parquet"), SENSORS)
    length = Geod(ellps="WGS84").geometry_length(line) / 1000
    assert targets.table["area_km2"][0] == pytest.approx(length * 10 + math.pi * 25, rel=5e-3)
    assert targets.table["area_km2"][1] > ellipsoid_km2(np.array([BOX], dtype=object))[0] * 1.2
    assert targets.table.geometry[1].contains(BOX)


def test_every_bad_row_is_named_in_one_report(tmp_path: Path) -> None:
    bow = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    table = frame(
        BOX, BOX, None, shapely.Polygon(), shapely.Point(1, 1), shapely.box(5, 5, 5, 6), BOX, BOX, BOX, BOX, BOX, BOX, BOX, bow,
        id=["a", "a", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "bow"],
        season=["", "", "", "", "", "", "4-13", "", "", "", "", "", "", ""],
        min_cover=[1, 1, 1, 1, 1, 1, 1, 0, 2, 1, 1, 1, 1, 1],
        weight=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1],
        desired=[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, 32, 0, 1],
        desired_hubble=[1] * 14,
    )  # fmt: skip
    path = saved(table, tmp_path / "bad.parquet")
    with pytest.raises(LocationsError) as refused:
        read_targets(path, SENSORS)
    lines = str(refused.value).split("\n")[1:]
    right = {
        "1 (id 'a')": "twice", "2 (id 'c')": "no geometry", "3 (id 'd')": "no geometry", "4 (id 'e')": "buffer_km", "5 (id 'f')": "area",
        "6 (id 'g')": "'4-13'", "7 (id 'h')": "min_cover", "8 (id 'i')": "min_cover", "9 (id 'j')": "weight", "10 (id 'k')": "desired",
        "11 (id 'l')": "desired",
    }  # fmt: skip
    assert "names no sensor" in lines[0]
    assert len(lines) == 1 + len(right)
    for line, (row, word) in zip(lines[1:], right.items(), strict=True):
        assert f"row {row}" in line
        assert word in line
    targets, problems = checked_targets(path, SENSORS)
    assert targets.table["id"].tolist() == ["a", "m", "bow"]
    assert len(problems) == len(lines)


def test_the_others_go_on_only_where_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(frame(BOX, shapely.Point(1, 1), id=["good", "bad"]), tmp_path / "t.parquet")
    with pytest.raises(LocationsError, match=r"row 1 .*without a buffer_km"):
        read_targets(path, SENSORS)
    with caplog.at_level(logging.WARNING):
        assert read_targets(path, SENSORS, skip_bad=True).table["id"].tolist() == ["good"]
    assert "'bad'" in caplog.text
    column = saved(frame(BOX, desired_sentinel2=[1]), tmp_path / "c.parquet")
    with pytest.raises(LocationsError, match="desired_sentinel2 names no sensor"):
        read_targets(column, SENSORS, skip_bad=True)  # else the wish would be dropped without a word
    with pytest.raises(LocationsError, match="without a buffer_km"):
        read_targets(saved(frame(shapely.Point(1, 1)), tmp_path / "none.parquet"), SENSORS, skip_bad=True)


@pytest.mark.parametrize(("column", "value"), [("desired", "many"), ("weight", "heavy"), ("buffer_km", "far"), ("min_cover", "all")])
def test_text_in_the_place_of_a_number_is_named(column: str, value: str, tmp_path: Path) -> None:
    path = saved(frame(BOX, **{column: [value]}), tmp_path / "t.parquet")
    with pytest.raises(LocationsError, match=f"{column} '{value}', which is no number"):
        read_targets(path, SENSORS)


def test_ids_that_a_format_keeps_as_floats_stay_numbers(tmp_path: Path) -> None:
    path = saved(frame(BOX, BOX, BOX, id=[1.0, 2.5, None]), tmp_path / "t.parquet")
    assert read_targets(path, SENSORS).table["id"].tolist() == ["1", "2.5", "2"]


def test_layers_and_columns_that_leave_a_choice_are_refused(tmp_path: Path) -> None:
    for layer in ("fields", "roads"):
        frame(BOX, name=["x"]).to_file(tmp_path / "two.gpkg", layer=layer)
    with pytest.raises(LocationsError, match=r"2 layers \(fields, roads\)"):
        read_targets(str(tmp_path / "two.gpkg"), SENSORS)
    (tmp_path / "t.csv").write_text("id,place\n1,here\n")
    with pytest.raises(LocationsError, match="it needs lon and lat, or wkt"):
        read_targets(str(tmp_path / "t.csv"), SENSORS)
    with pytest.raises(LocationsError, match="not degrees"):
        read_targets(saved(frame(shapely.box(5e5, 0, 6e5, 1e5), crs=None), tmp_path / "m.parquet"), SENSORS)


def test_twenty_thousand_targets_and_one_of_a_hundred_thousand_vertices(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    points = shapely.points(rng.uniform(-180, 180, 20_000), rng.uniform(-89, 89, 20_000))
    path = saved(frame(*points, buffer_km=np.full(20_000, 5.0)), tmp_path / "many.parquet")
    began = time.perf_counter()
    assert len(read_targets(path, SENSORS)) == 20_000
    assert time.perf_counter() - began < 60
    angle = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    coast = shapely.Polygon(np.column_stack([10 + np.cos(angle), 50 + np.sin(angle)]))
    assert len(read_targets(saved(frame(coast), tmp_path / "coast.parquet"), SENSORS)) == 1


def test_the_targets_are_kept_with_a_digest_that_tells_them_apart(tmp_path: Path) -> None:
    store = Store.below(tmp_path / "data")
    table = frame(BOX, shapely.box(179, 0, 181, 1), id=["a", "b"], desired_emit=[3.0, None], season=["11-2", ""], group=["g", None])
    targets = read_targets(saved(table, tmp_path / "t.parquet"), SENSORS)
    keep_targets(store, targets)
    kept = load_targets(store)
    assert (kept.digest, kept.source) == (targets.digest, targets.source)
    assert kept.table.drop(columns="geometry").equals(targets.table.drop(columns="geometry"))
    assert kept.desired("emit", Month(2025, 1), 2.0).tolist() == [3.0, 2.0]
    written = Path(store.targets.path).stat().st_mtime_ns
    keep_targets(store, targets)
    assert Path(store.targets.path).stat().st_mtime_ns == written
    moved = read_targets(saved(table.assign(desired_emit=[4.0, None]), tmp_path / "u.parquet"), SENSORS)
    keep_targets(store, moved)
    assert load_targets(store).digest == moved.digest != targets.digest


def test_without_a_file_there_are_none() -> None:
    targets = read_targets(None, SENSORS)
    assert len(targets) == 0
    assert targets.desired("emit", Month(2025, 1), 2.0).shape == (0,)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "t.geojson"
    hostile = "\x1b[31mred\n<script>"
    feature = {"type": "Feature", "properties": {"id": hostile, "desired": "x"}, "geometry": shapely.geometry.mapping(BOX)}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(LocationsError) as refused:
        read_targets(str(path), SENSORS)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize(
    ("season", "months"),
    [("", range(1, 13)), ("4-10", range(4, 11)), ("11-2", (11, 12, 1, 2)), ("7", (7,)), (" 1 - 12 ", range(1, 13)), ("3-3", (3,))],
)
def test_a_season_may_go_over_new_year(season: str, months: Any) -> None:
    assert [month for month in range(1, 13) if season_holds(season, month)] == sorted(months)


@pytest.mark.parametrize("season", ["0-3", "4-13", "spring", "4-", "-4", "4-5-6", "4,5"])
def test_a_season_that_is_none(season: str) -> None:
    with pytest.raises(ValueError, match="is no season"):
        season_holds(season, 1)
