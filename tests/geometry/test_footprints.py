"""Footprints as catalogues give them become flat, valid polygons that stay on the map."""

from __future__ import annotations

import gzip
import re
import warnings

import antimeridian
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Point, Polygon, box
from shapely.geometry import shape

from coverage_pipeline.geometry.footprints import area_km2, normalise_footprints
from tests.shared_data import item_files, read_items, shared_data

POLE_RING = [(-135, 80), (-45, 80), (45, 80), (135, 80)]


with np.errstate(invalid="ignore"):  # shapely warns on making them
    NOT_FINITE = Polygon([(0, 0), (1, np.nan), (1, 1)])
    INFINITE = Polygon([(0, 0), (np.inf, 0), (1, 1)])


def normalise(*geometries):
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    return normalise_footprints(array)


def one(geometry):
    footprints, reasons = normalise(geometry)
    assert reasons[0] is None, reasons[0]
    assert_fit(footprints[0])
    return footprints[0]


def assert_fit(geometry):
    assert geometry.geom_type in ("Polygon", "MultiPolygon")
    assert geometry.is_valid
    assert not geometry.is_empty
    assert not geometry.has_z
    west, south, east, north = geometry.bounds
    assert -180 <= west <= east <= 180
    assert -90 <= south <= north <= 90
    assert geometry.area > 0


def assert_same_area(a, b, tolerance=1e-6):
    assert a.symmetric_difference(b).area <= tolerance, (a.wkt, b.wkt)


def test_usual_footprints_pass_through_as_the_same_objects():
    split = MultiPolygon([box(179, 0, 180, 1), box(-180, 0, -179, 1)])
    given_ = [
        box(0, 0, 1, 1),
        box(0, 0, 1, 1).reverse(),
        split,
        box(-180, -90, 0, 90),
        Polygon(box(0, 0, 9, 9).exterior, [box(1, 1, 2, 2).exterior.coords]),
    ]
    footprints, reasons = normalise(*given_)
    assert [a is b for a, b in zip(footprints, given_, strict=True)] == [True] * 5
    assert list(reasons) == [None] * 5


def test_input_array_stays_as_it_was():
    array = np.array([None, box(0, 0, 1, 1), Polygon([(170, 0), (-170, 0), (-170, 9), (170, 9)])], dtype=object)
    before = list(array)
    normalise_footprints(array)
    assert all(a is b for a, b in zip(array, before, strict=True))


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (None, "geometry missing"),
        (Polygon(), "geometry empty"),
        (MultiPolygon(), "geometry empty"),
        (Point(1, 1), "geometry is not a polygon"),
        (shapely.LineString([(0, 0), (1, 1)]), "geometry is not a polygon"),
        (shapely.GeometryCollection([box(0, 0, 1, 1)]), "geometry is not a polygon"),
        (NOT_FINITE, "coordinates not finite"),
        (INFINITE, "coordinates not finite"),
        (box(0, 89, 1, 90.5), "latitude beyond ±90"),
        (box(0, -91, 1, 0), "latitude beyond ±90"),
        (box(1000, 0, 1001, 1), "longitude beyond ±720"),
        (Polygon([(0, 0), (1, 1), (0, 0)]), "geometry has no area"),
        (Polygon([(0, 0), (1, 1), (2, 2), (0, 0)]), "geometry has no area"),
        (Polygon([(179, 0), (-179, 0), (179, 0)]), "geometry has no area"),
    ],
)
def test_unusable_footprints_come_back_with_a_reason(geometry, reason):
    footprints, reasons = normalise(box(0, 0, 1, 1), geometry)
    assert footprints[1] is None
    assert reasons[1] == reason
    assert reasons[0] is None


def test_empty_parts_and_rings_of_neighbours_make_no_jump():
    west, east = MultiPolygon([box(-179, 0, -178, 1), Polygon()]), MultiPolygon([Polygon(), box(178, 0, 179, 1)])
    footprints, reasons = normalise(west, east, west)
    assert list(reasons) == [None] * 3
    assert [footprint.bounds[0] for footprint in footprints] == [-179, 178, -179]


def test_nothing_in_nothing_out():
    footprints, reasons = normalise()
    assert len(footprints) == len(reasons) == 0
    assert normalise(None)[1][0] == "geometry missing"


def test_heights_are_dropped():
    fixed = one(Polygon([(0, 0, 5), (1, 0, 5), (1, 1, 5)]))
    assert fixed.equals(Polygon([(0, 0), (1, 0), (1, 1)]))


@pytest.mark.parametrize("reverse", [False, True])
def test_ring_across_the_antimeridian_is_split_whichever_way_it_is_wound(reverse):
    ring = Polygon([(170, 0), (-170, 0), (-170, 10), (170, 10)])
    fixed = one(ring.reverse() if reverse else ring)
    assert_same_area(fixed, MultiPolygon([box(170, 0, 180, 10), box(-180, 0, -170, 10)]))


@pytest.mark.parametrize("shift", [-360, 0, 360])
def test_longitudes_beyond_180_are_wrapped(shift):
    expected = MultiPolygon([box(170, 0, 180, 10), box(-180, 0, -170, 10)])
    assert_same_area(one(shapely.transform(box(170, 0, 190, 10), lambda xy: np.add(xy, (shift, 0)))), expected)


def test_longitude_of_minus_190_is_wrapped_as_a_whole():
    assert one(box(-195, 0, -190, 5)).equals(box(165, 0, 170, 5))


@pytest.mark.parametrize("latitude", [80, -80])
@pytest.mark.parametrize("reverse", [False, True])
def test_ring_around_a_pole_holds_the_pole_and_not_the_rest_of_the_globe(latitude, reverse):
    ring = Polygon([(x, latitude) for x, _ in POLE_RING])
    fixed = one(ring.reverse() if reverse else ring)
    cap = box(-180, 80, 180, 90) if latitude > 0 else box(-180, -90, 180, -80)
    assert_same_area(fixed, cap)


def test_ring_around_a_pole_that_names_the_seam_twice():
    ring = Polygon([(-180, 80), (-90, 75), (0, 78), (90, 75), (180, 80)])
    assert_same_area(one(ring), Polygon([*ring.exterior.coords[:-1], (180, 90), (-180, 90)]))


def test_hole_around_the_pole_leaves_a_belt():
    shell, hole = [(x, 70) for x, _ in POLE_RING], [(x, 85) for x, _ in POLE_RING]
    assert_same_area(one(Polygon(shell, [hole])), box(-180, 70, 180, 85))


def test_polygon_already_closed_over_the_pole_stays_as_it_is():
    closed = Polygon([(-180, 70), (0, 75), (180, 70), (180, 90), (-180, 90)])
    assert one(closed).equals(closed)


def test_belts_around_the_globe_stay_belts():
    assert one(box(-180, -60, 180, 60)).equals(box(-180, -60, 180, 60))
    belt = Polygon([(-180, -60), (0, -60), (180, -60), (180, 60), (-180, 60)])
    assert one(belt).equals(box(-180, -60, 180, 60))
    assert_same_area(one(box(0, 10, 360, 20)), box(-180, 10, 180, 20))


def test_seam_written_as_two_points_of_360_degrees_apart_is_no_edge():
    ring = Polygon([(170, 0), (180, 0), (-180, 0), (-170, 0), (-170, 10), (-180, 10), (180, 10), (170, 10)])
    assert_same_area(one(ring), MultiPolygon([box(170, 0, 180, 10), box(-180, 0, -170, 10)]))


def test_ring_that_starts_on_the_seam_leaves_no_line_on_the_far_side():
    # antimeridian 0.4.9 leaves a part without area there
    assert one(Polygon([(180, 0), (180, 10), (-175, 10), (-175, 0)])).equals(box(-180, 0, -175, 10))


def ring_of(rectangle, shift=0):
    west, south, east, north = rectangle
    return [(west + shift, south), (east + shift, south), (east + shift, north), (west + shift, north)]


@pytest.mark.parametrize("shift", [0, 174], ids=["on the map", "across the antimeridian"])
@pytest.mark.parametrize(
    ("hole", "area"),
    [((8, 0, 9, 1), 16), ((3, 3, 9, 9), 15), ((4, 0, 8, 4), 16), ((1, 1, 2, 2), 15), ((2, -9, 3, 9), 12)],
    ids=["outside", "across a corner", "beside", "inside", "through"],
)
def test_a_hole_takes_area_away_and_never_adds_any(hole, area, shift):
    footprint = one(Polygon(ring_of((0, 0, 4, 4), shift), [ring_of(hole, shift)]))
    assert footprint.area == pytest.approx(area)
    if shift == 0:
        assert box(0, 0, 4, 4).covers(footprint)


@pytest.mark.parametrize("shift", [0, 174], ids=["on the map", "across the antimeridian"])
@pytest.mark.parametrize("hole", [(-1, -1, 9, 9), (0, 0, 4, 4)], ids=["around", "the same ring"])
def test_a_shell_within_its_hole_is_rejected_not_turned_inside_out(hole, shift):
    footprints, reasons = normalise(Polygon(ring_of((0, 0, 4, 4), shift), [ring_of(hole, shift)]))
    assert footprints[0] is None
    assert reasons[0] == "geometry has no area"


RECTANGLES = st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 6)] * 2).map(lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3]))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(RECTANGLES, st.lists(RECTANGLES, max_size=3)), min_size=1, max_size=2), st.sampled_from([0, 172]), st.booleans())
def test_a_point_is_covered_where_it_lies_in_a_shell_and_in_none_of_its_holes(parts, shift, reverse):
    """The oracle counts unit squares by comparing whole numbers; it knows no geometry library."""

    def within(rectangle, x, y):
        return rectangle[0] <= x < rectangle[2] and rectangle[1] <= y < rectangle[3]

    wanted = {
        (x, y) for x in range(16) for y in range(16) for shell, holes in parts
        if within(shell, x, y) and not any(within(hole, x, y) for hole in holes)
    }  # fmt: skip
    polygons = [Polygon(ring_of(shell, shift), [ring_of(hole, shift) for hole in holes]) for shell, holes in parts]
    footprints, reasons = normalise(MultiPolygon([p.reverse() for p in polygons] if reverse else polygons))
    if not wanted:
        assert reasons[0] == "geometry has no area"
        return
    assert reasons[0] is None
    assert_fit(footprints[0])
    assert footprints[0].area == pytest.approx(len(wanted))
    for x in range(16):
        for y in range(16):
            lon = (x + shift + 0.5 + 180) % 360 - 180
            assert footprints[0].covers(Point(lon, y + 0.5)) == ((x, y) in wanted)


def test_hole_beyond_180_is_cut_out():
    # antimeridian 0.4.9 fails on both
    across = Polygon(box(170, 0, 190, 10).exterior, [box(182, 2, 184, 4).exterior.coords])
    assert_same_area(one(across), MultiPolygon([box(170, 0, 180, 10), box(-180, 0, -170, 10) - box(-178, 2, -176, 4)]))
    beyond = Polygon(box(185, 0, 195, 10).exterior, [box(188, 2, 190, 4).exterior.coords])
    assert_same_area(one(beyond), box(-175, 0, -165, 10) - box(-172, 2, -170, 4))
    other_turn = Polygon(box(185, 0, 195, 10).exterior, [box(-172, 2, -170, 4).exterior.coords])
    assert_same_area(one(other_turn), box(-175, 0, -165, 10) - box(-172, 2, -170, 4))


def test_rounding_noise_at_the_seam_makes_no_sliver_on_the_far_side():
    assert one(box(179, 0, 180 + 1e-12, 1)).equals(box(179, 0, 180, 1))


def test_vertices_keep_their_bits_when_a_ring_is_cut():
    ring = Polygon([(100.3, 10.1), (-100.7, 10.1), (-100.7, 20.3), (100.3, 20.3)])
    kept = {tuple(xy) for xy in shapely.get_coordinates(one(ring)).tolist()}
    assert set(ring.exterior.coords) <= kept


def test_bowtie_becomes_two_triangles():
    assert_same_area(
        one(Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])),
        MultiPolygon([Polygon([(0, 0), (1, 1), (0, 2)]), Polygon([(2, 0), (2, 2), (1, 1)])]),
    )
    assert_same_area(
        one(Polygon([(179, 0), (-179, 2), (-179, 0), (179, 2)])),
        MultiPolygon([Polygon([(179, 0), (180, 1), (179, 2)]), Polygon([(-179, 0), (-179, 2), (-180, 1)])]),
    )


def test_overlapping_parts_are_one_area_not_a_hole():
    assert_same_area(one(MultiPolygon([box(0, 0, 2, 2), box(1, 0, 3, 2)])), box(0, 0, 3, 2))
    assert_same_area(one(MultiPolygon([box(0, 0, 2, 2), box(2, 0, 3, 2)])), box(0, 0, 3, 2))
    assert_same_area(one(MultiPolygon([box(0, 0, 3, 3), box(1, 1, 2, 2)])), box(0, 0, 3, 3))


def test_repairs_keep_only_polygons():
    spike = Polygon([(0, 0), (2, 0), (2, 2), (2, 5), (2, 2), (0, 2)])
    assert one(spike).equals(box(0, 0, 2, 2))


def test_no_warning_reaches_the_caller():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normalise(
            Polygon([(170, 0), (170, 9), (-170, 9), (-170, 0)]),
            NOT_FINITE,
            None,
            Polygon([(0, 0), (2, 2), (2, 0), (0, 2)]),
            Polygon([(-1e308, 0), (1e308, 0), (1, 1)]),  # regression: the width of this overflows
        )


@st.composite
def rings_near_the_seam(draw):
    """Star-shaped rings around a centre near ±180, unwrapped."""
    n = draw(st.integers(3, 9))
    centre = draw(st.sampled_from([-180, 180])) + draw(st.integers(-12, 12)), draw(st.integers(-70, 70))
    radii = draw(st.lists(st.integers(1, 15), min_size=n, max_size=n))
    angles = 2 * np.pi * np.arange(n) / n
    return Polygon(np.round(np.column_stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)]), 3))


@settings(deadline=None, max_examples=60)
@given(rings_near_the_seam(), st.booleans(), st.booleans())
def test_cut_agrees_with_antimeridian_and_with_a_plain_shift(ring, wrapped, reverse):
    if not ring.is_valid:
        return
    pieces = [
        shapely.intersection(shapely.transform(ring, lambda xy, s=s: np.add(xy, (s, 0))), box(-180, -90, 180, 90)) for s in (-360, 0, 360)
    ]
    expected = shapely.union_all(pieces)
    given_ = shapely.transform(ring, lambda xy: np.column_stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]])) if wrapped else ring
    fixed = one(given_.reverse() if reverse else given_)
    assert_same_area(fixed, expected)
    other = antimeridian.fix_polygon(given_, fix_winding=True, great_circle=False)
    if other.is_valid:  # parts without area where a vertex lies on the seam
        assert_same_area(fixed, other, tolerance=1e-4)  # it rounds latitudes at the seam to 7 decimals


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(-8, 8).map(lambda k: 45.0 * k), st.integers(-6, 6).map(lambda k: 15.0 * k)),
        min_size=3,
        max_size=7,
    )
)
def test_whatever_ring_comes_the_result_is_fit_or_has_a_reason(points):
    footprints, reasons = normalise(Polygon(points))
    if reasons[0] is None:
        assert_fit(footprints[0])
        assert normalise(footprints[0])[0][0] is footprints[0]
    else:
        assert footprints[0] is None


def test_what_is_fit_stays_fit_alone_and_united():
    """Regression: an edge of the result spanned 210° of longitude; coming again, it was read the short way round."""
    around = one(Polygon([(30, 20), (-150, 40), (120, 20), (150, -20)]))
    assert one(around) is around
    united = shapely.union(around, box(-170, -60, 0, -50))
    assert_same_area(one(united), united)


@pytest.mark.parametrize("name", item_files() or ["any"])
def test_every_recorded_footprint_is_usable_or_absent(name):
    items = read_items(name)
    geometries = [shape(item["geometry"]) if item.get("geometry") else None for item in items]
    footprints, reasons = normalise(*geometries)
    for geometry, footprint, reason in zip(geometries, footprints, reasons, strict=True):
        if geometry is None:
            assert reason == "geometry missing"
        else:
            assert reason is None
            assert_fit(footprint)
            assert footprint.area == pytest.approx(geometry.area)


def test_recorded_multipolygons_at_the_antimeridian_pass_through_unchanged():
    items = read_items("esa-stactools__sentinel-2-l2a.ndjson.gz") + read_items("esa-stactools__sentinel-2-l1c.ndjson.gz")
    split = [shape(item["geometry"]) for item in items if item["geometry"]["type"] == "MultiPolygon"]
    assert split
    footprints, _ = normalise(*split)
    assert all(a is b for a, b in zip(footprints, split, strict=True))


def test_acquisition_plans_with_unwrapped_longitudes_are_cut_not_dropped():
    rings = []
    for path in sorted((shared_data() / "plans").glob("*.kml.gz")):
        text = gzip.decompress(path.read_bytes()).decode()
        for block in re.findall(r"<LinearRing>.*?<coordinates>(.*?)</coordinates>", text, re.DOTALL):
            rings.append(Polygon([tuple(map(float, vertex.split(",")[:2])) for vertex in block.split()]))
    beyond = [ring for ring in rings if ring.bounds[0] < -180 or ring.bounds[2] > 180]
    assert beyond
    footprints, reasons = normalise(*beyond)
    assert set(reasons) == {None}
    for ring, footprint in zip(beyond, footprints, strict=True):
        assert_fit(footprint)
        assert footprint.area == pytest.approx(shapely.make_valid(ring).area)


def test_recorded_chatham_islands_scenes_stay_small():
    items = read_items("planetary-computer__landsat-8-c2-l2.ndjson.gz")
    near = [shape(item["geometry"]) for item in items if abs(shape(item["geometry"]).bounds[0]) > 175]
    assert len(near) > 100
    footprints, _ = normalise(*near)
    assert max(footprint.area for footprint in footprints) < 6


RADIUS = 6371.0072


def band(width, south, north):
    """Area between two parallels, km²: a piece of a spherical zone (Archimedes)."""
    return RADIUS**2 * np.radians(width) * (np.sin(np.radians(north)) - np.sin(np.radians(south)))


def areas(*geometries):
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    return area_km2(array)


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        (box(0, 0, 1, 1), band(1, 0, 1)),
        (box(0, 0, 1, 1).reverse(), band(1, 0, 1)),
        (box(5, 60, 6, 61), band(1, 60, 61)),
        (box(-180, 0, 180, 90), 2 * np.pi * RADIUS**2),
        (box(-180, -90, 0, 90), 2 * np.pi * RADIUS**2),
        (box(-180, -90, 180, 90), 4 * np.pi * RADIUS**2),
        (Polygon(box(0, 0, 9, 9).exterior, [box(1, 1, 2, 2).exterior.coords]), band(9, 0, 9) - band(1, 1, 2)),
        (MultiPolygon([box(170, 0, 180, 10), box(-180, 0, -170, 10)]), band(20, 0, 10)),
        (box(-180, 80, 180, 90), band(360, 80, 90)),
        (Polygon([(0, 0), (1, 0), (1, 1), (0, 1)]), band(1, 0, 1)),
    ],
)
def test_known_areas(geometry, expected):
    assert areas(geometry)[0] == pytest.approx(expected, rel=1e-12)


def test_known_areas_in_figures():
    cell, half, globe = areas(box(0, 0, 1, 1), box(-180, 0, 180, 90), box(-180, -90, 180, 90))
    assert cell == pytest.approx(12_363.7, abs=0.1)
    assert half == pytest.approx(globe / 2)
    assert globe == pytest.approx(510_065_600, rel=1e-6)  # the ellipsoid's


def test_an_area_that_is_missing_is_not_known():
    assert np.isnan(areas(None)[0])
    assert list(np.isnan(areas(None, box(0, 0, 1, 1), None))) == [True, False, True]
    assert areas().shape == (0,)
    assert areas().dtype == np.float64


def test_areas_leave_the_footprints_as_they_were():
    given_ = np.array([box(0, 0, 1, 1), None], dtype=object)
    before = list(given_)
    area_km2(given_)
    assert all(a is b for a, b in zip(given_, before, strict=True))
    assert given_[0].equals(box(0, 0, 1, 1))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(rings_near_the_seam())
def test_areas_agree_with_geodesics_on_the_same_sphere(ring):
    footprint = normalise(ring)[0][0]
    # Edges straight on the cylinder, so dense that a geodesic between two vertices is as good as the line between them.
    cylinder = shapely.transform(footprint, lambda xy: np.column_stack([xy[:, 0], np.degrees(np.sin(np.radians(xy[:, 1])))]))
    dense = shapely.segmentize(shapely.orient_polygons(cylinder), 0.02)
    dense = shapely.transform(dense, lambda xy: np.column_stack([xy[:, 0], np.degrees(np.arcsin(np.radians(xy[:, 1])))]))
    geodesic, _ = pyproj.Geod(a=RADIUS * 1000, b=RADIUS * 1000).geometry_area_perimeter(dense)
    assert areas(footprint)[0] == pytest.approx(geodesic / 1e6, rel=1e-4)


def test_areas_of_recorded_tiles_agree_with_the_ellipsoid():
    items = read_items("planetary-computer__sentinel-2-l2a.ndjson.gz")
    footprints, _ = normalise(*(shape(item["geometry"]) for item in items))
    geod = pyproj.Geod(ellps="WGS84")
    expected = [abs(geod.geometry_area_perimeter(footprint)[0]) / 1e6 for footprint in footprints]
    np.testing.assert_allclose(area_km2(footprints), expected, rtol=0.01, atol=1)
