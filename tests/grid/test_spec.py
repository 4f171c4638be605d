"""The grid's axes, and the kernel against slow and exact ways to the same answer."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon, box
from shapely.geometry import shape

from coverage_pipeline.geometry.bbox import split_bbox
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid import kernel
from coverage_pipeline.grid.spec import GridSpec, bbox_to_index
from coverage_pipeline.grid.statistics import CellStatistics, cell_statistics, latest_in_cells, statistics_from_arrays
from coverage_pipeline.grid.touch import footprint_to_cells, touched
from tests.grid_oracle import cells_touched, cells_touched_exactly, edges
from tests.shared_data import item_files, read_items

RESOLUTIONS = [0.1, 0.5, 1.0]
ONE_DEGREE = GridSpec(1.0)
with np.errstate(invalid="ignore"):  # shapely warns on making it
    NOT_FINITE = Polygon([(0, 0), (np.nan, 1), (1, 1)])


def footprints_of(*geometries):
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    footprints, reasons = normalise_footprints(array)
    return footprints[reasons == None]  # noqa: E711


# --- axes ---


def test_default_grid_is_1800_by_3600_from_south_west_to_north_east():
    grid = GridSpec()
    assert grid.shape == (1800, 3600)
    assert (grid.lats[0], grid.lats[-1]) == (-89.95, 89.95)
    assert (grid.lons[0], grid.lons[-1]) == (-179.95, 179.95)
    assert (np.diff(grid.lats) > 0).all()
    assert (np.diff(grid.lons) > 0).all()
    assert (grid.lat_edges[0], grid.lat_edges[-1], grid.lon_edges[0], grid.lon_edges[-1]) == (-90, 90, -180, 180)


@pytest.mark.parametrize("resolution", [0.05, 0.1, 0.125, 0.25, 0.5, 1.0, 90.0])
def test_edges_are_k_times_extent_over_n_and_centres_lie_between(resolution):
    grid = GridSpec(resolution)
    n_lat, n_lon = grid.shape
    assert grid.lat_edges.tolist() == edges(n_lat, 180)
    assert grid.lon_edges.tolist() == edges(n_lon, 360)
    for centres, borders in ((grid.lats, grid.lat_edges), (grid.lons, grid.lon_edges)):
        assert (borders[:-1] < centres).all()
        assert (centres < borders[1:]).all()
        assert np.abs(centres - (borders[:-1] + borders[1:]) / 2).max() < 1e-13


def test_edges_are_not_k_times_resolution():
    edges_by_steps = np.arange(1801) * 0.1 - 90
    assert (edges_by_steps != GridSpec().lat_edges).sum() == 516


def test_centres_print_clean():
    grid = GridSpec()
    assert grid.lats.tolist() == [round(lat, 2) for lat in grid.lats.tolist()]
    assert grid.lons.tolist() == [round(lon, 2) for lon in grid.lons.tolist()]
    assert 0.05 in grid.lats


def test_axes_are_cached_and_read_only():
    grid = GridSpec(1.0)
    for name in ("lats", "lons", "lat_edges", "lon_edges"):
        assert getattr(grid, name) is getattr(grid, name)
        with pytest.raises(ValueError, match="read-only"):
            getattr(grid, name)[0] = 0


@pytest.mark.parametrize("resolution", [0.07, 0.0, -0.1, math.nan, math.inf, 360.0, 7.0, 1e-300])
def test_resolution_that_does_not_divide_the_globe_is_refused(resolution):
    with pytest.raises(ValueError, match=re.escape(repr(resolution))):
        GridSpec(resolution)


def test_refusal_names_resolutions_nearby():
    with pytest.raises(ValueError, match=r"0\.05.*0\.1"):
        GridSpec(0.07)
    with pytest.raises(ValueError, match=r"allowed are for example .*5"):
        GridSpec(7.0)


def test_thirds_are_whole_within_float_noise():
    assert GridSpec(1 / 3).shape == (540, 1080)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"crs": "EPSG:3857"}, "EPSG:3857"),
        ({"h3_res": 6}, "h3_res 6: a whole number from 0 to 5"),
        ({"h3_res": -1}, "h3_res -1"),
        ({"h3_res": True}, "h3_res True"),
        ({"h3_res": 3, "extent": (0, 0, 10, 10)}, "leave extent out"),
        ({"rule": "centre"}, "rule 'centre': use one of touch, center, fraction"),
        ({"min_fraction": 0.0}, "min_fraction 0.0"),
        ({"min_fraction": 1.5}, "min_fraction 1.5"),
        ({"min_fraction": math.nan}, "min_fraction nan"),
        ({"extent": (170, 0, -170, 10)}, "can't cross ±180"),
        ({"extent": (0, 0, 0, 10)}, "west must lie west of east"),
        ({"extent": (0, 0, 10, 91)}, "beyond"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(wish, message):
    with pytest.raises(ValueError, match=message):
        GridSpec(**wish)


# --- bbox ---


def test_bbox_takes_the_cells_whose_interior_it_meets():
    assert bbox_to_index((0, 0, 1, 1), ONE_DEGREE) == (slice(90, 91), slice(180, 181))
    assert bbox_to_index((-0.5, -0.5, 0.5, 1.5), ONE_DEGREE) == (slice(89, 92), slice(179, 181))
    assert bbox_to_index((-180, -90, 180, 90), ONE_DEGREE) == (slice(0, 180), slice(0, 360))


def test_bbox_edges_on_cell_edges_take_no_neighbour_at_a_tenth_of_a_degree():
    grid = GridSpec()
    for k in range(1, 1799):
        south, north = float(grid.lat_edges[k]), float(grid.lat_edges[k + 1])
        assert bbox_to_index((0, south, 1, north), grid)[0] == slice(k, k + 1)


def test_degenerate_bbox_is_half_open():
    assert bbox_to_index((5, 5, 5, 5), ONE_DEGREE) == (slice(95, 96), slice(185, 186))
    assert bbox_to_index((5, 5, 7, 5), ONE_DEGREE) == (slice(95, 96), slice(185, 187))
    assert bbox_to_index((180, 90, 180, 90), ONE_DEGREE) == (slice(179, 180), slice(359, 360))
    assert bbox_to_index((-180, -90, -180, -90), ONE_DEGREE) == (slice(0, 1), slice(0, 1))


@settings(deadline=None, max_examples=60)
@given(st.tuples(st.integers(-720, 720), st.integers(-360, 360), st.integers(1, 40), st.integers(1, 40)))
def test_bbox_agrees_with_the_kernel(corner):
    west, south = corner[0] / 4, corner[1] / 4
    east, north = min(west + corner[2] / 4, 180), min(south + corner[3] / 4, 90)
    assume(west < east and south < north)
    rows, columns = bbox_to_index((west, south, east, north), ONE_DEGREE)
    mask = np.zeros(ONE_DEGREE.shape, bool)
    mask[rows, columns] = True
    assert (mask == touched(footprints_of(box(west, south, east, north)), ONE_DEGREE)).all()


def test_bbox_beyond_limits_or_across_the_antimeridian_is_refused():
    with pytest.raises(ValueError, match="split_bbox"):
        bbox_to_index((170, 0, -170, 1), ONE_DEGREE)
    for bbox in ((-181, 0, 0, 1), (0, 0, 180.1, 1), (0, -91, 1, 0), (0, 0, 1, 91), (0, 0, math.nan, 1)):
        with pytest.raises(ValueError, match="beyond"):
            bbox_to_index(bbox, ONE_DEGREE)
    with pytest.raises(ValueError, match="miny"):
        bbox_to_index((0, 1, 1, 0), ONE_DEGREE)
    with pytest.raises(ValueError, match="four numbers"):
        bbox_to_index((0, 1, 1), ONE_DEGREE)


def test_split_bbox():
    assert split_bbox((0, 0, 1, 1)) == [(0, 0, 1, 1)]
    assert split_bbox((170, -5, -170, 5)) == [(170, -5, 180, 5), (-180, -5, -170, 5)]
    assert split_bbox((180, -5, -170, 5)) == [(-180, -5, -170, 5)]
    assert split_bbox((170, -5, -180, 5)) == [(170, -5, 180, 5)]
    assert split_bbox((180, -5, -180, 5)) == [(180, -5, 180, 5)]
    with pytest.raises(ValueError, match="beyond"):
        split_bbox((190, 0, 200, 1))


# --- which cells a footprint touches ---


def test_known_polygon():
    assert footprint_to_cells(box(0.25, 0.25, 1.25, 0.75), ONE_DEGREE) == [(90, 180), (90, 181)]
    assert footprint_to_cells(Polygon([(0, 0), (2, 0), (0, 2)]), ONE_DEGREE) == [(90, 180), (90, 181), (91, 180)]


def test_abutting_along_an_edge_or_a_corner_does_not_count():
    assert footprint_to_cells(box(0, 0, 1, 1), ONE_DEGREE) == [(90, 180)]
    grid = GridSpec()
    for row, column in ((0, 0), (901, 1805), (516, 33), (1799, 3599)):
        cell = box(grid.lon_edges[column], grid.lat_edges[row], grid.lon_edges[column + 1], grid.lat_edges[row + 1])
        assert footprint_to_cells(cell, grid) == [(row, column)]


def test_cells_are_plain_integers_in_row_major_order():
    cells = footprint_to_cells(MultiPolygon([box(170, 0, 180, 3), box(-180, 0, -175, 3)]), ONE_DEGREE)
    assert cells == sorted(set(cells))
    assert len(cells) == 45
    assert all(type(index) is int for cell in cells for index in cell)


def test_hole_leaves_out_only_cells_wholly_inside_it():
    ring = Polygon(box(0, 0, 5, 5).exterior, [box(1, 1, 4, 4).exterior.coords])
    assert len(footprint_to_cells(ring, ONE_DEGREE)) == 16
    ring = Polygon(box(0, 0, 5, 5).exterior, [box(1.1, 1.1, 3.9, 3.9).exterior.coords])
    assert (92, 182) not in footprint_to_cells(ring, ONE_DEGREE)
    assert len(footprint_to_cells(ring, ONE_DEGREE)) == 24


def test_sliver_between_upright_edges_inside_one_column():
    # no slanted or level edge in the middle rows: only the gap between the two upright edges touches the column
    assert footprint_to_cells(box(0.4, -2.5, 0.6, 2.5), ONE_DEGREE) == [(row, 180) for row in range(87, 93)]


def test_footprint_across_the_antimeridian():
    cells = footprint_to_cells(Polygon([(179.5, 0.2), (-179.5, 0.2), (-179.5, 0.8), (179.5, 0.8)]), ONE_DEGREE)
    assert cells == [(90, 0), (90, 359)]


@pytest.mark.parametrize("reverse", [False, True])
def test_footprint_that_holds_a_pole(reverse):
    ring = Polygon([(-135, 88.5), (-45, 88.5), (45, 88.5), (135, 88.5)])
    cells = footprint_to_cells(ring.reverse() if reverse else ring, ONE_DEGREE)
    assert cells == [(row, column) for row in (178, 179) for column in range(360)]


def test_unusable_footprint_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="geometry is not a polygon"):
        footprint_to_cells(shapely.Point(0, 0), ONE_DEGREE)
    with pytest.raises(ValueError, match="geometry missing"):
        footprint_to_cells(None, ONE_DEGREE)


def test_diagonals_through_corners_of_cells_where_geos_errs():
    # found by random snapped polygons: GEOS 3.14 adds a cell that the boundary only runs past
    wkt = "MULTIPOLYGON (((88 17, 89.5 17, 88.5 14.5, 87.5 15.5, 87 17, 88.4 17.7, 89 17.5, 88 17)), ((91 19, 88.4 17.7, 87.5 18, 91 19)))"
    geometry = shapely.from_wkt(wkt)
    assert footprint_to_cells(geometry, GridSpec(0.5)) == cells_touched_exactly(geometry, 0.5)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_diamond_with_corners_on_corners_of_cells(resolution):
    grid = GridSpec(resolution)
    row, column = grid.shape[0] // 3, grid.shape[1] // 5
    lon, lat = grid.lon_edges, grid.lat_edges
    diamond = Polygon(
        [
            (lon[column + 3], lat[row]),
            (lon[column + 6], lat[row + 3]),
            (lon[column + 3], lat[row + 6]),
            (lon[column], lat[row + 3]),
        ]
    )
    assert footprint_to_cells(diamond, grid) == cells_touched_exactly(diamond, resolution)


def test_exact_predicate_agrees_with_fractions():
    rng = np.random.default_rng(7)
    for _ in range(3000):
        a, b = rng.uniform(-180, 180, 2), rng.uniform(-180, 180, 2)
        c = a + rng.random() * (b - a)
        if rng.random() < 0.5:
            c = np.nextafter(c, rng.choice([-np.inf, np.inf], 2))
        (ax, ay), (bx, by), (cx, cy) = ([Fraction(value) for value in point.tolist()] for point in (a, b, c))
        determinant = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        assert kernel._side(*a, *b, *c) == (determinant > 0) - (determinant < 0)
        assert kernel._exact_side(*a, *b, *c) == (determinant > 0) - (determinant < 0)
    assert kernel._side(-1.5, -1.5, 3.0, 3.0, 0.75, 0.75) == 0


@st.composite
def polygons(draw, resolution):
    """Raw polygons of a few cells: any ring, star-shaped, with a hole, in parts; many vertices on edges of cells."""
    grid = GridSpec(resolution)
    n_lat, n_lon = grid.shape
    row = draw(st.sampled_from([0, n_lat - 7]) | st.integers(0, n_lat - 7))
    column = draw(st.sampled_from([0, n_lon - 7]) | st.integers(0, n_lon - 7))

    def along(borders, first):
        on_edge = st.integers(0, 7).map(lambda k: float(borders[min(first + k, len(borders) - 1)]))
        by_steps = st.integers(0, 14).map(lambda k: round(float(borders[first]) + k * resolution / 2, 6))
        between = st.floats(float(borders[first]), float(borders[first + 6]))
        beside = st.tuples(on_edge, st.sampled_from([-np.inf, np.inf])).map(lambda t: float(np.nextafter(*t)))
        limit = float(borders[-1])
        return (on_edge | by_steps | between | beside).map(lambda x: min(max(x, -limit), limit))

    point = st.tuples(along(grid.lon_edges, column), along(grid.lat_edges, row))
    kind = draw(st.sampled_from(["ring", "ring", "hull", "star", "hole", "parts", "sliver"]))
    points = draw(st.lists(point, min_size=3, max_size=8))
    ring = Polygon(points)
    if kind == "hull":
        return shapely.convex_hull(ring)
    if kind == "star":
        middle = np.mean(points, axis=0)
        return Polygon(sorted(points, key=lambda p: math.atan2(p[1] - middle[1], p[0] - middle[0])))
    if kind == "hole":
        outer = box(
            *(
                float(b)
                for b in (
                    grid.lon_edges[column],
                    grid.lat_edges[row],
                    grid.lon_edges[column + 6],
                    grid.lat_edges[row + 6],
                )
            )
        )
        return Polygon(outer.exterior, [ring.exterior.coords])
    if kind == "parts":
        return MultiPolygon([ring, Polygon(draw(st.lists(point, min_size=3, max_size=5)))])
    if kind == "sliver":
        a, b = points[:2]
        width = draw(st.sampled_from([1e-13, 1e-10, 1e-6]))
        return Polygon([a, b, (max(b[0] - width, -180), b[1]), (max(a[0] - width, -180), a[1])])
    return ring


def check_against_fractions(geometry, resolution):
    found = footprints_of(geometry)
    assume(len(found))
    cells = footprint_to_cells(found[0], GridSpec(resolution))
    assert cells == cells_touched_exactly(found[0], resolution)


@settings(deadline=None, max_examples=150)
@given(polygons(0.1))
def test_kernel_is_exact_at_a_tenth_of_a_degree(geometry):
    check_against_fractions(geometry, 0.1)


@settings(deadline=None, max_examples=80)
@given(polygons(0.5))
def test_kernel_is_exact_at_half_a_degree(geometry):
    check_against_fractions(geometry, 0.5)


@settings(deadline=None, max_examples=80)
@given(polygons(1.0))
def test_kernel_is_exact_at_one_degree(geometry):
    check_against_fractions(geometry, 1.0)


def recorded(name):
    return footprints_of(*(shape(item["geometry"]) if item.get("geometry") else None for item in read_items(name)))


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("name", item_files() or ["any"])
def test_recorded_footprints_touch_the_cells_that_geos_finds(name, resolution):
    grid = GridSpec(resolution)
    distinct = {shapely.to_wkb(footprint): footprint for footprint in recorded(name)}
    assert distinct
    for footprint in distinct.values():
        cells = footprint_to_cells(footprint, grid)
        if cells != cells_touched(footprint, resolution):  # GEOS is not exact; fractions are, but slow
            assert cells == cells_touched_exactly(footprint, resolution), footprint.wkt


# --- statistics ---


def accumulated(footprints, day, cloud, clear, grid, cells_of) -> dict[int, tuple]:
    """Statistics the plain way: a dictionary of cells, scene by scene."""
    scenes: dict[int, list[int]] = {}
    for i, footprint in enumerate(footprints):
        for row, column in cells_of(footprint):
            scenes.setdefault(row * grid.shape[1] + column, []).append(i)
    out = {}
    for cell, touching in sorted(scenes.items()):
        known = [cloud[i] for i in touching if not math.isnan(cloud[i])]
        is_clear = [i for i in touching if clear[i]]
        unknown = [i for i in touching if math.isnan(cloud[i]) and not clear[i]]
        out[cell] = (
            len(touching),
            len(is_clear),
            len(unknown),
            float(np.float32(math.fsum(known) / len(known))) if known else math.nan,
            *(sum({1 << (int(day[i]) - 1) for i in some}) for some in (touching, is_clear, unknown)),
        )
    return out


def as_dict(statistics: CellStatistics) -> dict[int, tuple]:
    rows = zip(
        statistics.cell.tolist(),
        *(
            getattr(statistics, name).tolist()
            for name in ("scenes", "clear", "unknown", "cloud_mean", "days", "clear_days", "unknown_days")
        ),
        strict=True,
    )
    return {cell: tuple(values) for cell, *values in rows}


def scene_values(n, seed=3):
    rng = np.random.default_rng(seed)
    cloud = np.where(rng.random(n) < 0.3, np.nan, np.round(rng.uniform(0, 100, n), 2))
    clear = np.where(np.isnan(cloud), rng.random(n) < 0.3, cloud < 10)  # radar: clear though cloud is not known
    return {"day": rng.integers(1, 32, n).astype(np.uint8), "cloud": cloud, "clear": clear}


def assert_same(found: dict[int, tuple], expected: dict[int, tuple]):
    assert found.keys() == expected.keys()
    for cell, values in expected.items():
        assert found[cell] == pytest.approx(values, rel=1e-6, nan_ok=True), cell


@pytest.mark.parametrize(
    "name",
    [
        "planetary-computer__landsat-8-c2-l2.ndjson.gz",
        "esa-stactools__sentinel-2-l2a.ndjson.gz",
        "emit__coverage-2022-08-10.js",
    ],
)
def test_statistics_are_what_a_plain_loop_over_the_oracle_gives(name):
    footprints = recorded(name)[:150]
    values = scene_values(len(footprints))
    grid = GridSpec(0.5)
    expected = accumulated(footprints, **values, grid=grid, cells_of=lambda geometry: cells_touched(geometry, 0.5))
    assert_same(as_dict(cell_statistics(footprints, **values, grid=grid)), expected)


@settings(deadline=None, max_examples=30)
@given(st.lists(polygons(1.0), min_size=1, max_size=6), st.integers(0, 99))
def test_statistics_of_any_footprints_are_the_sum_of_their_cells(geometries, seed):
    footprints = footprints_of(*geometries)
    values = scene_values(len(footprints), seed)
    expected = accumulated(footprints, **values, grid=ONE_DEGREE, cells_of=lambda g: footprint_to_cells(g, ONE_DEGREE))
    assert_same(as_dict(cell_statistics(footprints, **values, grid=ONE_DEGREE)), expected)


def overlapping(n, seed=5):
    rng = np.random.default_rng(seed)
    corner = rng.uniform([-20, -20], [20, 20], (n, 2))
    return shapely.box(corner[:, 0], corner[:, 1], corner[:, 0] + 7.3, corner[:, 1] + 5.1)


def test_order_of_scenes_does_not_change_a_bit():
    footprints, values = overlapping(400), scene_values(400)
    values["cloud"] = values["cloud"] / 3
    first = cell_statistics(footprints, **values, grid=ONE_DEGREE)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(400)
        shuffled = {name: value[order] for name, value in values.items()}
        again = cell_statistics(footprints[order], **shuffled, grid=ONE_DEGREE)
        for name in CellStatistics.__dataclass_fields__:
            assert getattr(first, name).tobytes() == getattr(again, name).tobytes(), name


def test_statistics_have_their_types_and_are_sorted():
    statistics = cell_statistics(overlapping(20), **scene_values(20), grid=ONE_DEGREE)
    types = {name: str(getattr(statistics, name).dtype) for name in CellStatistics.__dataclass_fields__}
    assert types == {
        "cell": "int64",
        "scenes": "int32",
        "clear": "int32",
        "unknown": "int32",
        "cloud_mean": "float32",
        "days": "uint32",
        "clear_days": "uint32",
        "unknown_days": "uint32",
    }
    assert (np.diff(statistics.cell) > 0).all()
    assert (statistics.scenes > 0).all()


def test_a_footprint_in_parts_counts_once_in_a_cell_that_two_parts_touch():
    parts = footprints_of(MultiPolygon([box(0.1, 0.1, 0.2, 0.9), box(0.5, 0.1, 0.6, 0.9)]))
    statistics = cell_statistics(parts, day=[31], cloud=[5.0], clear=[True], grid=ONE_DEGREE)
    assert as_dict(statistics) == {90 * 360 + 180: (1, 1, 0, 5.0, 1 << 30, 1 << 30, 0)}


def test_no_scenes_no_cells():
    statistics = cell_statistics(np.empty(0, object), day=[], cloud=[], clear=[], grid=ONE_DEGREE)
    assert len(statistics.cell) == 0
    assert not touched(np.empty(0, object), ONE_DEGREE).any()


def test_mixed_polygons_and_multipolygons():
    footprints = footprints_of(box(0, 0, 1, 1), MultiPolygon([box(5, 5, 6, 6), box(8, 8, 9, 9)]), box(0, 0, 2, 1))
    statistics = cell_statistics(footprints, day=[1, 2, 3], cloud=[0, 50, 100], clear=[1, 0, 0], grid=ONE_DEGREE)
    assert statistics.scenes.tolist() == [2, 1, 1, 1]
    assert statistics.cloud_mean.tolist() == [50, 100, 50, 50]
    assert statistics.days.tolist() == [5, 4, 2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"day": [0]}, "day must lie in 1..31, found 0"),
        ({"day": [32]}, "day must lie in 1..31, found 32"),
        ({"day": [1, 2]}, "day has shape"),
        ({"day": [1.5]}, "whole number"),
        ({"cloud": [-1.0]}, "percentage"),
        ({"cloud": [101.0]}, "percentage"),
        ({"cloud": [np.inf]}, "percentage"),
        ({"clear": [True, False]}, "clear has shape"),
    ],
)
def test_scene_values_out_of_range_are_refused(change, message):
    values = {"day": [1], "cloud": [5.0], "clear": [True]} | change
    with pytest.raises(ValueError, match=message):
        cell_statistics(footprints_of(box(0, 0, 1, 1)), **values, grid=ONE_DEGREE)


@pytest.mark.parametrize("geometry", [None, shapely.Point(0, 0), box(179, 0, 181, 1), box(0, 0, 1, 91), NOT_FINITE])
def test_footprints_that_were_not_normalised_are_refused(geometry):
    array = np.array([geometry], dtype=object)
    for call in (
        lambda: cell_statistics(array, day=[1], cloud=[5.0], clear=[True], grid=ONE_DEGREE),
        lambda: latest_in_cells(array, value=[1.0], grid=ONE_DEGREE),
        lambda: touched(array, ONE_DEGREE),
    ):
        with pytest.raises(ValueError, match="normalise_footprints"):
            call()


@pytest.mark.parametrize(
    ("coords", "offsets", "message"),
    [
        ([[0, 0], [1, 0], [1, 1], [0, 1]], ([0, 4], [0, 1], [0, 1]), "a ring of geometry 0 is open"),
        ([[0, 0], [1, 0], [1, 1], [0, 0]], ([0, 3], [0, 1], [0, 1]), "ring_offsets"),
        ([[0, 0], [1, 0], [1, 1], [0, 0]], ([0, 4], [0, 2], [0, 1]), "polygon_offsets"),
        ([[0, 0], [1, 0], [1, 1], [0, 0]], ([0, 4], [0, 1], []), "geometry_offsets"),
        ([0.0, 1.0], ([0, 4], [0, 1], [0, 1]), "coords"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(coords, offsets, message):
    with pytest.raises(ValueError, match=message):
        statistics_from_arrays(
            np.array(coords, float),
            *(np.array(o, np.int64) for o in offsets),
            day=[1],
            cloud=[1.0],
            clear=[True],
            grid=ONE_DEGREE,
        )


# --- masks and latest values ---


def test_latest_is_the_largest_value_of_the_footprints_that_touch():
    footprints, values = overlapping(60), np.random.default_rng(1).normal(size=60)
    latest = latest_in_cells(footprints, value=values, grid=ONE_DEGREE)
    expected = np.full(ONE_DEGREE.shape, np.nan)
    for footprint, value in zip(footprints, values, strict=True):
        for cell in cells_touched(footprint, 1.0):
            expected[cell] = np.fmax(expected[cell], value)
    np.testing.assert_array_equal(latest, expected)
    assert latest.dtype == np.float64


def test_latest_refuses_values_that_are_not_numbers():
    with pytest.raises(ValueError, match="NaN"):
        latest_in_cells(overlapping(1), value=[np.nan], grid=ONE_DEGREE)
    with pytest.raises(ValueError, match="shape"):
        latest_in_cells(overlapping(1), value=[1.0, 2.0], grid=ONE_DEGREE)


def test_mask_is_the_union_of_the_cells():
    footprints = overlapping(10)
    mask = touched(footprints, ONE_DEGREE)
    assert set(zip(*(index.tolist() for index in np.nonzero(mask)), strict=True)) == {
        cell for footprint in footprints for cell in cells_touched(footprint, 1.0)
    }
    assert mask.shape == ONE_DEGREE.shape


def test_mask_of_a_coastline_with_many_vertices():
    # thousands of edges in a row: the sort of extents and the growth of the list of ranges
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    radius = 5 + 3 * np.random.default_rng(0).random(len(angle))
    coast = Polygon(np.column_stack([10 + radius * np.cos(angle), radius * np.sin(angle)]))
    assert coast.is_valid
    mask = touched(footprints_of(coast), GridSpec(0.1))
    assert sorted(zip(*(index.tolist() for index in np.nonzero(mask)), strict=True)) == cells_touched(coast, 0.1)


def test_the_whole_globe_touches_every_cell():
    assert touched(footprints_of(box(-180, -90, 180, 90)), GridSpec(0.5)).all()
