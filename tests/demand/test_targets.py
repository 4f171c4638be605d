"""Targets, areas of interest and reach, on real site outlines and on made ones."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.scope import area_mask, land_mask, reach_mask, require_in_reach, scope_mask
from coverage_pipeline.demand.targets import fetch_targets, targets_union
from coverage_pipeline.geometry import outlines as geodata
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.touch import touched
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.shared_data import shared_data

TENTH = GridSpec(0.1)
DEGREE = GridSpec(1.0)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVERAGE_TARGETS", raising=False)


def write(path: Path, *geometries: shapely.Geometry | None, crs: str | None = "EPSG:4326", **columns: list[object]) -> str:
    gpd.GeoDataFrame(columns, geometry=list(geometries), crs=crs).to_parquet(path)
    return str(path)


def test_without_a_source_there_are_no_targets_and_the_schema_is_the_same() -> None:
    targets = fetch_targets()
    assert list(targets.columns) == ["id", "name", "geometry"]
    assert len(targets) == 0
    assert targets.crs == "EPSG:4326"
    assert targets_union(targets).is_empty
    assert targets_union(targets).geom_type == "GeometryCollection"


def test_the_environment_counts_only_where_no_source_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_TARGETS", write(tmp_path / "env.parquet", shapely.Point(1, 2)))
    here = write(tmp_path / "here.parquet", shapely.box(0, 0, 1, 1), name=["here"])
    assert fetch_targets()["id"].tolist() == ["0"]
    assert fetch_targets(here)["name"].tolist() == ["here"]


@pytest.mark.parametrize(
    "name",
    ["vitals_dangermond_boundary.geojson", "vitals_agu_workshop_roi.geojson", "permian/PermianBasin_Extent_201712.shp"],
)
def test_real_site_outlines(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        targets = fetch_targets(str(shared_data() / "aoi" / name))
    assert len(targets) >= 1
    assert targets.crs == "EPSG:4326"
    assert targets["id"].is_unique
    assert targets["name"].notna().all()
    assert targets.geometry.is_valid.all()
    west, south, east, north = targets.total_bounds
    assert -125 < west < east < -100
    assert 29 < south < north < 42
    mask = area_mask("targets", TENTH, targets=targets)
    assert mask.any()
    assert not (mask & ~land_mask(TENTH)).any()
    assert ("no CRS" in caplog.text) == name.endswith(".shp")


def test_ids_and_names_are_filled(tmp_path: Path) -> None:
    boxes = [shapely.box(k, 0, k + 1, 1) for k in range(3)]
    targets = fetch_targets(write(tmp_path / "a.parquet", *boxes, id=["x", None, "z"], name=[None, None, "Zed"]))
    assert targets["id"].tolist() == ["x", "1", "z"]
    assert targets["name"].tolist() == ["x", "1", "Zed"]


def test_another_crs_is_reprojected(tmp_path: Path) -> None:
    path = write(tmp_path / "utm.parquet", shapely.box(500_000, 0, 600_000, 100_000), crs="EPSG:32633")
    assert fetch_targets(path).total_bounds[0] == pytest.approx(15.0, abs=1e-6)


def test_a_geojson_of_every_kind_is_read(tmp_path: Path) -> None:
    features = [
        {
            "type": "Feature",
            "properties": {"name": "p"},
            "geometry": {"type": "Point", "coordinates": [10.05, 50.05, 3]},
        },
        {
            "type": "Feature",
            "properties": {"name": "l"},
            "geometry": {"type": "LineString", "coordinates": [[0, 0], [3, 0.5]]},
        },
    ]
    path = tmp_path / "t.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    targets = fetch_targets(str(path))
    assert targets.geom_type.tolist() == ["Point", "LineString"]
    mask = area_mask("targets", DEGREE, targets=targets)
    rows, columns = np.nonzero(mask)
    found = sorted(zip(rows.tolist(), columns.tolist(), strict=True))
    assert found == [(90, 180), (90, 181), (90, 182), (140, 190)]


@pytest.mark.parametrize("place", ["missing.geojson", "https://user:secret@127.0.0.1:1/t.geojson?token=secret"])
def test_a_file_that_is_not_there_says_what_to_set(place: str) -> None:
    with pytest.raises(LocationsError, match="COVERAGE_TARGETS") as error:
        fetch_targets(place)
    assert "secret" not in str(error.value)


def test_unusable_files_say_why(tmp_path: Path) -> None:
    (tmp_path / "bad.geojson").write_text("not json")
    with pytest.raises(LocationsError, match=r"bad\.geojson cannot be read"):
        fetch_targets(str(tmp_path / "bad.geojson"))
    (tmp_path / "none.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(LocationsError, match="no rows"):
        fetch_targets(str(tmp_path / "none.geojson"))
    with pytest.raises(LocationsError, match=r"row 1 \(id 'b'\) has no geometry"):
        fetch_targets(write(tmp_path / "e.parquet", shapely.box(0, 0, 1, 1), shapely.Polygon(), id=["a", "b"]))
    with pytest.raises(LocationsError, match="no geometry"):
        fetch_targets(write(tmp_path / "n.parquet", shapely.box(0, 0, 1, 1), None))
    with pytest.raises(LocationsError, match="not degrees"):
        fetch_targets(write(tmp_path / "m.parquet", shapely.box(5e5, 0, 6e5, 1e5), crs=None))
    with pytest.raises(LocationsError, match="comes twice"):
        fetch_targets(write(tmp_path / "d.parquet", shapely.Point(0, 0), shapely.Point(1, 1), id=["a", "a"]))


def test_points_belong_to_the_half_open_cell_and_the_last_edges_to_the_last_cell() -> None:
    targets = gpd.GeoDataFrame(geometry=[shapely.Point(10, 20), shapely.MultiPoint([(180, 90), (-180, -90)])], crs="EPSG:4326")
    mask = area_mask("targets", DEGREE, targets=targets)
    assert sorted(map(tuple, np.argwhere(mask).tolist())) == [(0, 0), (110, 190), (179, 359)]


def test_lines_mark_the_cells_they_run_through_also_across_the_antimeridian() -> None:
    line = shapely.LineString([(179.5, 0.5), (-178.5, 0.5)])
    mask = area_mask("targets", DEGREE, targets=gpd.GeoDataFrame(geometry=[line], crs="EPSG:4326"))
    assert sorted(map(tuple, np.argwhere(mask).tolist())) == [(90, 0), (90, 1), (90, 359)]
    slanted = shapely.LineString([(0.5, 0.1), (1.5, 1.1)])
    mask = area_mask("targets", DEGREE, targets=gpd.GeoDataFrame(geometry=[slanted], crs="EPSG:4326"))
    assert sorted(map(tuple, np.argwhere(mask).tolist())) == [(90, 180), (90, 181), (91, 181)]


def test_target_polygons_touch_by_interior_only() -> None:
    box = gpd.GeoDataFrame(geometry=[shapely.box(10, 20, 12, 21)], crs="EPSG:4326")
    assert area_mask("targets", DEGREE, targets=box).sum() == 2


def test_targets_wanted_and_not_there_says_what_to_set() -> None:
    with pytest.raises(LocationsError, match="COVERAGE_TARGETS"):
        area_mask("targets", DEGREE, targets=fetch_targets())
    with pytest.raises(LocationsError, match="unknown area"):
        area_mask("sea", DEGREE)  # type: ignore[arg-type]


def test_reach_takes_rows_by_their_centre() -> None:
    mask = reach_mask(COVERAGE_SENSORS["emit"], TENTH)
    lats = TENTH.lats[mask[:, 0]]
    assert lats[0] == pytest.approx(-51.95)
    assert lats[-1] == pytest.approx(51.95)
    assert (mask == mask[:, :1]).all()


def test_scope_is_reach_within_the_area() -> None:
    land = area_mask("land", DEGREE, coastal_margin_km=0)
    scope = scope_mask(COVERAGE_SENSORS["emit"], land, DEGREE)
    assert (scope == (land & (np.abs(DEGREE.lats) <= 52)[:, None])).all()
    assert area_mask("all", DEGREE).all()


def cell(lon: float, lat: float) -> tuple[int, int]:
    return math.floor((lat + 90) * 10), math.floor((lon + 180) * 10)


def test_land_reaches_the_pole_and_knows_the_sea() -> None:
    land = land_mask(TENTH)
    assert land[0].all()
    assert not land[-1].any()
    assert land[cell(10.05, 50.05)]
    assert land[cell(179.95, 68.5)]
    assert land[cell(-179.95, 68.5)]
    assert not land[cell(-30.05, 40.05)]
    assert not land[cell(-150.05, 0.05)]
    assert 0.28 < np.average(land.mean(axis=1), weights=np.cos(np.radians(TENTH.lats))) < 0.36


def unit(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    phi, lam = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def test_the_margin_grows_by_kilometres_not_degrees() -> None:
    near, far = land_mask(TENTH, 0.0), land_mask(TENTH, 50.0)
    assert (far >= near).all()
    sea = np.argwhere(~near)
    marked = np.argwhere(near)
    inside = outside = 0
    for i, j in sea[np.random.default_rng(1).permutation(len(sea))[:150]]:
        nearby = marked[np.abs(marked[:, 0] - i) <= 8]
        if not len(nearby):
            continue
        chord = np.linalg.norm(unit(TENTH.lats[nearby[:, 0]], TENTH.lons[nearby[:, 1]]) - unit(TENTH.lats[i], TENTH.lons[j]), axis=1)
        km = 6371.0 * 2 * np.arcsin(chord.min() / 2)
        if km <= 50:
            assert far[i, j]
            inside += 1
        elif km > 50 + 2 * 11.2 * math.sqrt(2):
            assert not far[i, j]
            outside += 1
    assert inside > 0
    assert outside > 50


def test_a_mark_grows_around_the_globe_and_over_the_pole() -> None:
    from coverage_pipeline.demand.scope import _grown

    mask = np.zeros(DEGREE.shape, bool)
    mask[90, 0] = True
    grown = _grown(mask, DEGREE, 120.0)
    assert grown[90, 359]
    assert grown[90, 1]
    assert grown[89, 0]
    mask[:] = False
    mask[179, 10] = True
    assert _grown(mask, DEGREE, 120.0)[179].all()


def test_the_land_mask_is_kept_and_quick() -> None:
    start = time.perf_counter()
    assert land_mask(TENTH) is land_mask(TENTH)
    assert time.perf_counter() - start < 5
    assert not land_mask(TENTH).flags.writeable
    with pytest.raises(LocationsError, match="coastal_margin_km"):
        land_mask(TENTH, -1)


def test_shipped_layers_are_sound() -> None:
    assert geodata.land().is_valid
    assert geodata.land().bounds[:2] == (-180.0, -90.0)
    assert touched(np.array(geodata.land().geoms, dtype=object), DEGREE)[0].all()
    for lines in (geodata.coastlines(), geodata.borders()):
        coordinates, owner = shapely.get_coordinates(np.array(lines.geoms, dtype=object), return_index=True)
        steps = np.abs(np.diff(coordinates[:, 0]))[np.diff(owner) == 0]
        assert steps.max() < 180
        on_seam = np.abs(coordinates[:, 0]) > 179.999
        assert not (on_seam[1:] & on_seam[:-1] & (np.diff(owner) == 0)).any()
    assert (Path(geodata.__file__).parent / "natural_earth.parquet").stat().st_size < 1_500_000


EUROPE = GridSpec(1.0, extent=(5.0, 45.0, 16.0, 56.0))


@pytest.mark.parametrize(
    "geometry",
    [shapely.box(100, -10, 101, -9), shapely.Point(100, -10), shapely.LineString([(100, -10), (110, -10)]), shapely.box(16, 45, 17, 46)],
    ids=["polygon", "point", "line", "polygon that abuts"],
)
def test_targets_wholly_outside_the_grid_are_refused(geometry: shapely.Geometry, tmp_path: Path) -> None:
    """Everything would be out of scope, without a word."""
    targets = fetch_targets(write(tmp_path / "far.parquet", geometry, id=["far"]))
    with pytest.raises(LocationsError) as error:
        area_mask("targets", EUROPE, targets=targets)
    said = str(error.value)
    assert "none of the 1 targets (first id 'far') lies in the grid's extent 5, 45, 16, 56" in said
    assert "COVERAGE_GRID_EXTENT" in said
    assert "\n" not in said


def test_targets_of_which_some_lie_outside_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write(tmp_path / "some.parquet", shapely.Point(100, -10), shapely.Point(7.5, 50.5), id=["far", "near"])
    with caplog.at_level(logging.WARNING):
        mask = area_mask("targets", EUROPE, targets=fetch_targets(source))
    assert mask.sum() == 1
    assert "1 of 2 targets lie outside the grid's extent" in caplog.text
    assert "id far" in caplog.text
    assert "near" not in caplog.text


def test_targets_beyond_every_sensors_reach_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = area_mask("targets", DEGREE, targets=fetch_targets(write(tmp_path / "north.parquet", shapely.box(10, 75, 12, 77))))
    emit, landsat = COVERAGE_SENSORS["emit"], COVERAGE_SENSORS["landsat-8-9"]
    with pytest.raises(LocationsError, match=r"outside the latitudes that the sensors reach \(emit -52\.\.52\)"):
        require_in_reach([emit], mask, DEGREE)
    with caplog.at_level(logging.WARNING):
        require_in_reach([emit, landsat], mask, DEGREE)
    assert "emit -52..52" in caplog.text
    assert "landsat" not in caplog.text


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_source_is_none(blank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_TARGETS", blank)
    assert len(fetch_targets(blank)) == 0
    monkeypatch.setenv("COVERAGE_TARGETS", write(tmp_path / "env.parquet", shapely.Point(1, 2)))
    assert len(fetch_targets(blank)) == 1
