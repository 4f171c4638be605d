"""What a planner may type to get to a place."""

from __future__ import annotations

import contextlib
import math

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards.gazetteer import NoSuchPlace, cell_at, find, position, sentinel2_tile, wrs2_frame
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.grid.spec import GridSpec
from tests.shared_data import shared_data

GRID = GridSpec(0.1)
TARGETS = Targets(
    gpd.GeoDataFrame({"id": ["a-1", "b-2"], "name": ["Bodensee", "b-2"]}, geometry=[shapely.box(9, 47, 10, 48)] * 2, crs=4326), "digest"
)


@pytest.mark.parametrize(
    "text", ["47.65, 9.35", "47.65 9.35", "47.65 N 9.35 E", "47.65N, 9.35E", "47°39'N 9°21'E", "47°39′00″ N, 9°21′00″ E", " 47.65,  9.35 "]
)
def test_coordinates_in_their_notations(text: str) -> None:
    found = find(text, GRID, None)
    assert (found.kind, found.title, found.text) == ("cell", "Cell of 0.1° about 47.65° N, 9.35° E", "47.65,9.35")
    assert shapely.equals_exact(found.outline.normalize(), shapely.box(9.3, 47.6, 9.4, 47.7).normalize(), 1e-9)


NOWHERE = ["95, 9", "12, 400", "nan, 3", "inf, 3", "", "   ", "5", "<script>", "34 N", "99ZZZ", "0/0", "234/1", "193/249"]


@pytest.mark.parametrize("text", NOWHERE)
def test_what_is_no_place_is_told(text: str) -> None:
    with pytest.raises(NoSuchPlace):
        find(text, GRID, TARGETS)


def test_targets_by_id_and_name_win_over_all_else() -> None:
    for text in ("a-1", "A-1", "bodensee", "target:a-1", "  Bodensee "):
        found = find(text, GRID, TARGETS)
        assert (found.kind, found.title, found.text) == ("target", "Bodensee (a-1)", "target:a-1")
    assert find("b-2", GRID, TARGETS).title == "b-2"


def test_countries_and_misspelt_names() -> None:
    assert find("fiji", GRID, None).kind == "country"
    with pytest.raises(NoSuchPlace, match="Did you mean Switzerland"):
        find("Switzerlnd", GRID, None)
    with pytest.raises(NoSuchPlace, match="Did you mean Bodensee"):
        find("Bodense", GRID, TARGETS)


@given(st.text(max_size=300))
def test_any_text_is_a_place_or_told(text: str) -> None:
    with contextlib.suppress(NoSuchPlace):
        found = find(text, GRID, TARGETS)
        assert find(found.text, GRID, TARGETS).outline.equals(found.outline)


@given(st.floats(-180, 180), st.floats(-90, 90), st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0]))
def test_a_cell_holds_its_point_and_leads_to_itself(lon: float, lat: float, resolution: float) -> None:
    grid = GridSpec(resolution)
    found = cell_at(lon, lat, grid)
    west, south, east, north = found.outline.bounds
    assert west - 1e-6 <= lon <= east + 1e-6
    assert south - 1e-6 <= lat <= north + 1e-6
    assert (east - west, north - south) == pytest.approx((resolution, resolution))
    again = find(found.text, grid, None)
    assert again.outline.equals_exact(found.outline, 1e-9)


@pytest.mark.parametrize(("lon", "lat"), [(181, 0), (0, 91), (math.nan, 0), (0, -math.inf)])
def test_beside_the_grid_there_is_no_cell(lon: float, lat: float) -> None:
    with pytest.raises(NoSuchPlace, match="beside the area"):
        cell_at(lon, lat, GRID)


def test_a_region_has_no_cells_beside_it() -> None:
    grid = GridSpec(0.5, extent=(0.0, 30.0, 12.0, 42.0))
    assert cell_at(11.9, 41.9, grid).text == "41.75,11.75"
    with pytest.raises(NoSuchPlace):
        cell_at(13, 35, grid)


def test_positions_in_words() -> None:
    assert position(-4.0, 22.5, 1) == "4.0° S, 22.5° E"
    assert position(31.4, -103.0) == "31.40° N, 103.00° W"


def overlap(a: shapely.Geometry, b: shapely.Geometry) -> float:
    return float(shapely.area(shapely.intersection(a, b)) / shapely.area(shapely.union(a, b)))


def within_180(box: BBox) -> bool:
    return box[2] - box[0] < 180


def test_frames_of_landsat_are_those_of_usgs() -> None:
    """Against the published outlines: less than a kilometre between the middles, and 96 % of the area in common."""
    table = pq.read_table(shared_data() / "grids/landsat-wrs2-descending.parquet", columns=["PATH", "ROW", "geometry"])
    some = table.take(np.random.default_rng(0).choice(table.num_rows, 400, replace=False)).to_pylist()
    checked = 0
    for row in some:
        published = shapely.from_wkb(row["geometry"])
        ours = wrs2_frame(row["PATH"], row["ROW"])
        if within_180(published.bounds):
            assert overlap(ours, published) > 0.96, row
            off = ours.centroid.distance(published.centroid)
            assert off * math.cos(math.radians(published.centroid.y)) < 0.01, row
            checked += 1
    assert checked > 350


def test_tiles_of_sentinel_2_are_those_of_esa() -> None:
    table = pq.read_table(shared_data() / "grids/sentinel2-mgrs-land.parquet", columns=["tile", "geometry"])
    some = table.take(np.random.default_rng(1).choice(table.num_rows, 600, replace=False)).to_pylist()
    missing = 0
    for row in some:
        ours, published = sentinel2_tile(row["tile"]), shapely.from_wkb(row["geometry"])
        if ours is None:  # ESA names a few squares at 80° S that MGRS has under another letter
            missing += 1
        elif within_180(published.bounds):
            assert overlap(ours, published) > 0.97, row["tile"]
    assert missing <= 3
