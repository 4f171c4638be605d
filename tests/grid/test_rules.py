"""The three rules by which a footprint covers cells, against slow ways to the same answer; and that pieces make the whole.

Expected cells come from `grid_oracle`: shares of area and crossings in exact fractions, or GEOS where footprints are many.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon, box
from shapely.affinity import translate
from shapely.geometry import shape

from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid.bands import Engine
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import (
    CellStatistics,
    cell_statistics,
    latest_in_bands,
    latest_in_cells,
    statistics_from_arrays,
    statistics_in_bands,
)
from coverage_pipeline.grid.touch import footprint_to_cells
from tests.grid_oracle import cells_centred, cells_touched, cells_touched_exactly, centres, edges, exact_shares, shares_by_geos
from tests.shared_data import item_files, read_items

pytestmark = pytest.mark.slow

RULES = ("touch", "center", "fraction")
COLUMNS = tuple(CellStatistics.__dataclass_fields__)
# A share this little below the limit counts as reached: shares are sums of rounded pieces.
TOLERANCE = 1e-9


def beside(x, direction):
    """The next float64; beside 0, where products of the next one would underflow and exact arithmetic ends, ±1e-100."""
    return math.copysign(1e-100, direction) if x == 0 else math.nextafter(x, direction)


def footprints_of(*geometries):
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    footprints, reasons = normalise_footprints(array)
    return footprints[reasons == None]  # noqa: E711


def flat(geometries):
    """Coordinates and offsets of multipolygons, as the engine takes them."""
    whole = np.array([MultiPolygon(shapely.get_parts(geometry).tolist()) for geometry in geometries], dtype=object)
    _, coords, offsets = shapely.to_ragged_array(whole)
    return coords, *offsets


def planar_cells(geometry, grid):
    """Cells of a polygon as it stands in the plane: an edge of more than 180° is not read the short way round."""
    found = cell_statistics(np.array([geometry], dtype=object), day=[1], cloud=[0.0], clear=[True], grid=grid).cell
    return [divmod(cell, grid.shape[1]) for cell in found.tolist()]


def scene_values(n, seed=3):
    rng = np.random.default_rng(seed)
    cloud = np.where(rng.random(n) < 0.3, np.nan, rng.uniform(0, 100, n))
    clear = np.where(np.isnan(cloud), rng.random(n) < 0.3, cloud < 10)  # radar: clear though cloud is not known
    return {"day": rng.integers(1, 32, n), "cloud": cloud, "clear": clear}


def assert_same_bits(found, expected):
    for name in COLUMNS:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes(), name


# --- each rule is what it says ---


def check_rules(footprint, resolution, min_fraction):
    """All three rules on one normalised footprint, exactly."""
    shares = exact_shares(footprint, resolution)
    touch = footprint_to_cells(footprint, GridSpec(resolution))
    assert touch == sorted(shares)
    center = footprint_to_cells(footprint, GridSpec(resolution, rule="center"))
    assert center == cells_centred(footprint, resolution)
    assert set(center) <= set(touch)
    fraction = footprint_to_cells(footprint, GridSpec(resolution, rule="fraction", min_fraction=min_fraction))
    assert fraction == sorted(fraction)
    limit = Fraction(min_fraction)
    reached = {cell for cell, share in shares.items() if share >= limit}
    nearly = {cell for cell, share in shares.items() if share >= limit - Fraction(2 * TOLERANCE)}
    assert reached <= set(fraction) <= nearly


@st.composite
def local_polygons(draw, resolution, span=6):
    """Raw polygons of a few cells, many vertices on borders, corners and centres of cells, or one float64 beside them."""
    n = round(180 / resolution)
    lat_edges, lon_edges, lats, lons = edges(n, 180), edges(2 * n, 360), centres(n, 180), centres(2 * n, 360)
    span = min(span, n)
    row = draw(st.sampled_from([0, n - span]) | st.integers(0, n - span))
    column = draw(st.sampled_from([0, 2 * n - span]) | st.integers(0, 2 * n - span))

    def along(borders, middles, first):
        on_edge = st.integers(0, span).map(lambda k: borders[first + k])
        on_centre = st.integers(0, span - 1).map(lambda k: middles[first + k])
        next_to = st.tuples(on_edge | on_centre, st.sampled_from([-math.inf, math.inf])).map(lambda t: beside(*t))
        quarters = st.integers(0, 4 * span).map(lambda k: borders[first] + k * resolution / 4)
        between = st.floats(borders[first], borders[first + span]).map(lambda x: x if abs(x) > 1e-100 else 0.0)
        return (on_edge | on_centre | next_to | quarters | between).map(lambda x: min(max(x, borders[0]), borders[-1]))

    point = st.tuples(along(lon_edges, lons, column), along(lat_edges, lats, row))
    points = draw(st.lists(point, min_size=3, max_size=9))
    ring = Polygon(points)
    frame = box(lon_edges[column], lat_edges[row], lon_edges[column + span], lat_edges[row + span])
    kind = draw(st.sampled_from(["ring", "convex", "star", "holes", "parts", "sliver", "tiny", "comb", "seam"]))
    if kind == "convex":
        return shapely.convex_hull(ring)
    if kind == "star":
        middle = np.mean(points, axis=0)
        return Polygon(sorted(points, key=lambda p: math.atan2(p[1] - middle[1], p[0] - middle[0])))
    if kind == "holes":
        return Polygon(frame.exterior, [ring.exterior.coords, draw(st.lists(point, min_size=3, max_size=4))])
    if kind == "parts":
        return MultiPolygon([ring, Polygon(draw(st.lists(point, min_size=3, max_size=5)))])
    if kind == "sliver":  # thinner than a cell, down to the rounding of a coordinate
        (ax, ay), (bx, by) = points[:2]
        width = resolution * draw(st.sampled_from([1e-11, 1e-6, 0.01, 0.5]))
        return Polygon([(ax, ay), (bx, by), (max(bx - width, -180), max(by - width / 3, -90)), (max(ax - width, -180), ay)])
    if kind == "tiny":
        side = resolution * draw(st.sampled_from([1e-6, 0.01, 0.3]))
        west, south = points[0]
        return Polygon([(west, south), (min(west + side, 180), south), (west, min(south + side, 90))])
    if kind == "comb":
        west, south, _, north = frame.bounds
        teeth = sorted({x for x, _ in points})
        outline = [(x, y) for i, x in enumerate(teeth) for y in ((points[0][1], north) if i % 2 else (north, points[0][1]))]
        return Polygon([(west, south), *outline, (teeth[-1], south)])
    if kind == "seam":  # unwrapped beyond 180, as tracks are written
        return translate(ring, xoff=180 - ring.centroid.x if ring.area else 0.0)
    return ring


@st.composite
def wide_polygons(draw):
    """Polar caps, bands round the globe, the globe with holes, and polygons from anywhere to anywhere."""
    kind = draw(st.sampled_from(["cap", "band", "globe", "wide"]))
    if kind == "cap":
        corners = draw(st.integers(3, 9))
        pole = draw(st.sampled_from([-1, 1]))
        jitter = draw(st.lists(st.sampled_from([0.0, 5.0, 7.5]) | st.floats(0, 20), min_size=corners, max_size=corners))
        heights = draw(st.lists(st.sampled_from([85.0, 80.0, 60.0]) | st.floats(40, 89.9), min_size=corners, max_size=corners))
        return Polygon([(-180 + 360 * i / corners + jitter[i], pole * heights[i]) for i in range(corners)])
    south = draw(st.sampled_from([-90.0, -45.0, -5.0, 0.0]) | st.floats(-90, 0))
    north = draw(st.sampled_from([90.0, 45.0, 5.0, 30.0]) | st.floats(1, 90))
    if kind == "band":
        return box(-180, south, 180, north)
    lon = st.integers(-72, 72).map(lambda k: k * 2.5) | st.floats(-180, 180).map(lambda x: x if abs(x) > 1e-100 else 0.0)
    lat = st.integers(-36, 36).map(lambda k: k * 2.5) | st.floats(-90, 90).map(lambda x: x if abs(x) > 1e-100 else 0.0)
    ring = Polygon(draw(st.lists(st.tuples(lon, lat), min_size=3, max_size=8)))
    return ring if kind == "wide" else Polygon(box(-180, -90, 180, 90).exterior, [ring.exterior.coords])


limits = st.sampled_from([0.5, 1.0, 0.25, 0.125, 0.75, 1 / 3, 0.01, 1e-6]) | st.floats(1e-4, 1)


def check_any(geometry, resolution, min_fraction):
    found = footprints_of(geometry)
    assume(len(found))
    check_rules(found[0], resolution, min_fraction)


@settings(deadline=None, max_examples=150)
@given(local_polygons(0.1), limits)
def test_rules_are_exact_at_a_tenth_of_a_degree(geometry, min_fraction):
    check_any(geometry, 0.1, min_fraction)


@settings(deadline=None, max_examples=150)
@given(local_polygons(1.0), limits)
def test_rules_are_exact_at_one_degree(geometry, min_fraction):
    check_any(geometry, 1.0, min_fraction)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([10.0, 30.0, 60.0, 90.0, 180.0]), st.data(), limits)
def test_rules_are_exact_in_cells_of_ten_degrees_and_more(resolution, data, min_fraction):
    check_any(data.draw(local_polygons(resolution)), resolution, min_fraction)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([10.0, 30.0, 180.0]), wide_polygons(), limits)
def test_rules_are_exact_for_caps_bands_and_the_globe(resolution, geometry, min_fraction):
    check_any(geometry, resolution, min_fraction)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("resolution", [0.5, 10, 180])
def test_the_whole_globe_covers_every_cell_by_every_rule(resolution, rule):
    grid = GridSpec(resolution, rule=rule, min_fraction=1.0)
    assert len(footprint_to_cells(box(-180, -90, 180, 90), grid)) == math.prod(grid.shape)


def test_a_centre_on_the_left_or_lower_boundary_counts_and_on_the_right_or_upper_does_not():
    grid = GridSpec(1.0, rule="center")
    assert footprint_to_cells(box(0.5, 0.5, 2.5, 2.5), grid) == [(90, 180), (90, 181), (91, 180), (91, 181)]
    # a diamond with centres for corners: a hair east of the lowest, the highest and the rightmost lies outside
    assert footprint_to_cells(Polygon([(0.5, 1.5), (1.5, 0.5), (2.5, 1.5), (1.5, 2.5)]), grid) == [(91, 180), (91, 181)]
    diamond = Polygon([(0.5, 2.5), (2.5, 0.5), (4.5, 2.5), (2.5, 4.5)])  # lower sides through (1.5, 1.5) and (3.5, 1.5)
    cells = footprint_to_cells(diamond, grid)
    assert [(91, 181) in cells, (91, 183) in cells] == [True, False]
    assert [(93, 181) in cells, (93, 183) in cells] == [True, False]


@pytest.mark.parametrize("rule", ["touch", "center"])
def test_an_edge_one_float_beside_a_corner_or_a_centre_takes_its_right_side(rule):
    # the crossing rounds to the very longitude of the corner or centre: only the exact predicate tells the sides apart
    rng = np.random.default_rng(11)
    tried = 0
    while tried < 250:
        x, y = (rng.integers(-8, 9, 2) / 2).tolist()
        dx, dy = (rng.integers(1, 6, 2) / rng.integers(1, 4)).tolist()
        ends = np.array([(x - dx, y - dy), (x + dx, y + dy)])
        moved = tuple(rng.integers(0, 2, 2))
        ends[moved] = beside(float(ends[moved]), rng.choice([-np.inf, np.inf]))
        triangle = Polygon([*ends.tolist(), (x + 4, y + 4 * rng.choice([-1, 1]))])
        if not triangle.area > 0:
            continue
        expected = cells_touched_exactly(triangle, 1.0) if rule == "touch" else cells_centred(triangle, 1.0)
        assert planar_cells(triangle, GridSpec(1.0, rule=rule)) == expected, triangle.wkt
        tried += 1


# --- recorded footprints ---


def recorded(name):
    found = footprints_of(*(shape(item["geometry"]) if item.get("geometry") else None for item in read_items(name)))
    return list({footprint.wkb: footprint for footprint in found}.values())


@pytest.mark.parametrize("name", item_files() or ["any"])
def test_recorded_footprints_by_every_rule(name):
    resolution = 0.25
    footprints = recorded(name)
    assert footprints
    for footprint in footprints:
        touch = footprint_to_cells(footprint, GridSpec(resolution))
        if touch != cells_touched(footprint, resolution):  # GEOS is not exact; fractions are, but slow
            assert touch == cells_touched_exactly(footprint, resolution), footprint.wkt
        center = footprint_to_cells(footprint, GridSpec(resolution, rule="center"))
        assert center == cells_centred(footprint, resolution), footprint.wkt
        shares = shares_by_geos(footprint, resolution)
        covered = [set(touch)]
        for min_fraction in (0.001, 0.5, 0.9):
            cells = set(footprint_to_cells(footprint, GridSpec(resolution, rule="fraction", min_fraction=min_fraction)))
            sure = {cell for cell, share in shares.items() if abs(share - min_fraction) > 1e-7}
            assert cells & sure == {cell for cell in sure if shares[cell] > min_fraction}, footprint.wkt
            covered.append(cells)
        assert all(larger >= smaller for larger, smaller in pairwise(covered))


@pytest.mark.parametrize("resolution", [0.05, 1.0])
@pytest.mark.parametrize("name", item_files() or ["any"])
def test_some_recorded_footprints_in_fine_and_coarse_cells(name, resolution):
    for footprint in recorded(name)[::90]:
        check_rules(footprint, resolution, 0.5)


# --- what holds for every rule ---


@settings(deadline=None, max_examples=60)
@given(local_polygons(1.0), st.lists(limits, min_size=2, max_size=4))
def test_a_higher_share_covers_fewer_cells_and_none_that_is_not_touched(geometry, shares):
    found = footprints_of(geometry)
    assume(len(found))
    covered = [set(footprint_to_cells(found[0], GridSpec(1.0)))]
    covered += [set(footprint_to_cells(found[0], GridSpec(1.0, rule="fraction", min_fraction=share))) for share in sorted(shares)]
    assert all(more >= fewer for more, fewer in pairwise(covered))


@pytest.mark.parametrize("min_fraction", [1e-8, 1e-9, 1e-12])
def test_the_smallest_shares_do_not_cover_cells_without_any(min_fraction):
    # two parts in one row: the columns between them have no share at all, so no limit above 0 reaches them
    parts = MultiPolygon([box(0, 0, 1, 1), box(5, 0, 6, 1)])
    assert footprint_to_cells(parts, GridSpec(1.0, rule="fraction", min_fraction=min_fraction)) == [(90, 180), (90, 185)]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([0.1, 1 / 3, 1.0, 30.0]), st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_the_full_share_of_whole_cells_is_these_cells(resolution, seed, density):
    rng = np.random.default_rng(seed)
    grid = GridSpec(resolution, rule="fraction", min_fraction=1.0)
    rows, columns = min(8, grid.shape[0]), min(8, grid.shape[1])
    row, column = rng.integers(0, grid.shape[0] - rows + 1), rng.integers(0, grid.shape[1] - columns + 1)
    r, c = (index + first for index, first in zip(np.nonzero(rng.random((rows, columns)) < density), (row, column), strict=True))
    assume(len(r))
    union = shapely.union_all(shapely.box(grid.lon_edges[c], grid.lat_edges[r], grid.lon_edges[c + 1], grid.lat_edges[r + 1]))
    expected = list(zip(r.tolist(), c.tolist(), strict=True))
    for rule in RULES:  # nothing of any other cell, so the rules agree
        assert planar_cells(union, GridSpec(resolution, rule=rule, min_fraction=1.0)) == expected


def cut_into_boxes(rng, resolution, pieces):
    """The globe as boxes cut anywhere: through centres, along borders, one float64 beside them, or between."""
    n = round(180 / resolution)
    special = [edges(2 * n, 360) + centres(2 * n, 360), edges(n, 180) + centres(n, 180)]
    boxes = [(-180.0, -90.0, 180.0, 90.0)]
    while len(boxes) < pieces:
        bounds = boxes.pop(rng.integers(len(boxes)))
        axis = rng.integers(2)
        low, high = bounds[axis], bounds[axis + 2]
        within = [x for x in special[axis] if low < x < high]
        at = rng.choice(within) if within and rng.random() < 0.7 else rng.uniform(low, high)
        at = beside(float(at), rng.choice([-np.inf, np.inf])) if rng.random() < 0.2 else float(at)
        if not low < at < high:  # too narrow to cut
            boxes.append(bounds)
            continue
        boxes += [
            tuple(at if i == axis + 2 else x for i, x in enumerate(bounds)),
            tuple(at if i == axis else x for i, x in enumerate(bounds)),
        ]
    return shapely.box(*np.array(boxes).T)


def cut_into_triangles(rng, resolution, pieces):
    """The globe as triangles, each cut into three at a point within: slanted edges that neighbours share, many through centres."""
    n = round(180 / resolution)
    corners = [(-180.0, -90.0), (180.0, -90.0), (180.0, 90.0), (-180.0, 90.0)]
    triangles = [tuple(corners[:3]), (corners[0], corners[2], corners[3])]
    lons, lats = np.array(centres(2 * n, 360)), np.array(centres(n, 180))

    def twice_the_area(a, b, c):
        (ax, ay), (bx, by), (cx, cy) = (tuple(map(Fraction, map(float, point))) for point in (a, b, c))
        return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)

    while len(triangles) < pieces:
        a, b, c = triangles.pop(rng.integers(len(triangles)))
        weights = rng.dirichlet([1, 1, 1])
        x, y = (float(v) for v in weights @ np.array([a, b, c]))
        if rng.random() < 0.6:
            x, y = float(lons[np.abs(lons - x).argmin()]), float(lats[np.abs(lats - y).argmin()])
        thirds = [(a, b, (x, y)), (b, c, (x, y)), (c, a, (x, y))]
        triangles += thirds if all(twice_the_area(*third) > 0 for third in thirds) else [(a, b, c)]
    return np.array([Polygon(triangle) for triangle in triangles], dtype=object)


@pytest.mark.parametrize("cut", [cut_into_boxes, cut_into_triangles])
@pytest.mark.parametrize("resolution", [0.5, 1 / 3, 10.0])
def test_every_centre_lies_in_exactly_one_piece_of_a_partition_of_the_globe(cut, resolution):
    grid = GridSpec(resolution, rule="center")
    for seed in range(12):
        pieces = cut(np.random.default_rng(seed), resolution, 400)
        found = cell_statistics(pieces, **scene_values(len(pieces)), grid=grid)
        assert len(found.cell) == math.prod(grid.shape)
        assert (found.scenes == 1).all()


# --- pieces make the whole ---


def many_footprints(n=160, seed=8):
    """Tracks, boxes and triangles of all sizes, some across the antimeridian, over a pole, with holes, or thin."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        x, y, size = rng.uniform(-180, 180), rng.uniform(-85, 85), 10 ** rng.uniform(-1, 1.5)
        ring = np.array([x, y]) + size * rng.normal(size=(rng.integers(3, 9), 2))
        ring[:, 1] = np.clip(ring[:, 1], -90, 90)
        if i % 3 == 0:
            ring = np.round(ring * 2) / 2
        angle = np.arctan2(*(ring - ring.mean(0)).T)
        polygon = Polygon(ring[np.argsort(angle)])
        hole = Polygon(ring.mean(0) + 0.3 * (ring - ring.mean(0)))
        found.append(Polygon(polygon.exterior, [hole.exterior.coords]) if i % 7 == 0 and polygon.is_valid else polygon)
    found += [Polygon([(-120, 70), (0, 80), (120, 60)]), box(-180, -90, 180, -60), box(-180, -90, 180, 90)]
    return footprints_of(*found)


def grids(**which):
    return [GridSpec(rule=rule, min_fraction=0.4, **which) for rule in RULES]


@pytest.mark.parametrize("grid", grids(resolution=1.0), ids=RULES)
def test_a_region_is_the_same_cells_of_the_globe(grid):
    footprints = many_footprints()
    arrays, values = flat(footprints), scene_values(len(footprints))
    whole = statistics_from_arrays(*arrays, **values, grid=grid)
    instants = np.random.default_rng(2).normal(size=len(footprints))
    latest = latest_in_cells(footprints, value=instants, grid=grid)
    row, column = np.divmod(whole.cell, grid.shape[1])
    rng = np.random.default_rng(4)
    extents = [(-180, -90, 10, 0), (-0.5, -0.5, 0.5, 0.5), (170, 80, 180, 90)]
    for _ in range(25):
        (west, east), (south, north) = np.sort(rng.uniform([-180, -90], [180, 90], (2, 2)), axis=0).T
        extents.append((west, south, east, north))
    for extent in extents:
        region = GridSpec(grid.resolution, extent=extent, rule=grid.rule, min_fraction=grid.min_fraction)
        first, end, first_column, end_column = region.window
        assert region.lats.tolist() == grid.lats[first:end].tolist()
        assert region.lons.tolist() == grid.lons[first_column:end_column].tolist()
        inside = (row >= first) & (row < end) & (column >= first_column) & (column < end_column)
        columns = {name: getattr(whole, name)[inside] for name in COLUMNS}
        columns["cell"] = (row[inside] - first) * region.shape[1] + column[inside] - first_column
        assert_same_bits(statistics_from_arrays(*arrays, **values, grid=region), CellStatistics(**columns))
        in_region = latest_in_cells(footprints, value=instants, grid=region)
        assert in_region.tobytes() == latest[first:end, first_column:end_column].tobytes()
        for i in range(0, len(footprints), 20):
            everywhere = footprint_to_cells(footprints[i], grid)
            here = [(r - first, c - first_column) for r, c in everywhere if first <= r < end and first_column <= c < end_column]
            assert footprint_to_cells(footprints[i], region) == here


ENGINES = [Engine(memory_bytes=memory, threads=threads) for memory, threads in product((1, 600_000, 4_000_000), (1, 2, 4))]


@pytest.mark.parametrize("extent", [None, (-170.0, -70.0, 95.0, 90.0)], ids=["globe", "region"])
@pytest.mark.parametrize("rule", RULES)
def test_bands_and_threads_never_change_a_bit(rule, extent):
    grid = GridSpec(1.0, rule=rule, min_fraction=0.4, extent=extent)
    footprints = many_footprints()
    arrays, values = flat(footprints), scene_values(len(footprints))
    instants = np.random.default_rng(2).normal(size=len(footprints))
    only = np.random.default_rng(6).random(len(footprints)) < 0.5
    ample = Engine(memory_bytes=1 << 30, threads=1)

    def latest(rows, engine):
        pieces = list(latest_in_bands(*arrays, value=instants, grid=grid, rows=rows, engine=engine))
        return (np.concatenate([cells for cells, _ in pieces]), np.concatenate([values for _, values in pieces])), len(pieces)

    for rows in (None, (0, 1), (17, 120)):
        (one,) = statistics_in_bands(*arrays, **values, grid=grid, only=only, rows=rows, engine=ample)
        assert len(one.cell)
        (cells, newest), pieces = latest(rows, ample)
        assert pieces == 1
        for engine in ENGINES:
            bands = list(statistics_in_bands(*arrays, **values, grid=grid, only=only, rows=rows, engine=engine))
            if engine.memory_bytes == 1 and rows != (0, 1):
                assert len(bands) > 100  # a row each
            assert_same_bits(CellStatistics.joined(bands), one)
            (cells_again, newest_again), _ = latest(rows, engine)
            assert cells_again.tobytes() == cells.tobytes()
            assert newest_again.tobytes() == newest.tobytes()


@pytest.mark.parametrize("grid", grids(resolution=1.0), ids=RULES)
def test_rows_are_these_rows_of_the_whole(grid):
    footprints = many_footprints()
    arrays, values = flat(footprints), scene_values(len(footprints))
    whole = statistics_from_arrays(*arrays, **values, grid=grid)
    row = whole.cell // grid.shape[1]
    for first, end in ((0, 180), (0, 1), (60, 61), (33, 97), (179, 180)):
        inside = (row >= first) & (row < end)
        pieces = statistics_in_bands(*arrays, **values, grid=grid, rows=(first, end), engine=Engine(memory_bytes=600_000, threads=2))
        assert_same_bits(CellStatistics.joined(list(pieces)), CellStatistics(**{name: getattr(whole, name)[inside] for name in COLUMNS}))
    assert CellStatistics.joined(list(statistics_in_bands(*arrays, **values, grid=grid, rows=(5, 5)))).cell.tolist() == []


@pytest.mark.parametrize("rows", [(-3, 4), (5, 15), (8, 3)])
def test_rows_that_a_region_does_not_have_are_refused(rows):
    # cells counted from the region's first row would be those of another place
    region = GridSpec(1.0, extent=(0, 0, 10, 10))
    arrays = flat([box(-20, -20, 20, 20)])
    with pytest.raises(ValueError, match="rows"):
        statistics_in_bands(*arrays, day=[1], cloud=[0.0], clear=[True], grid=region, rows=rows)
    with pytest.raises(ValueError, match="rows"):
        latest_in_bands(*arrays, value=[1.0], grid=region, rows=rows)


def test_a_share_at_the_very_limit_is_judged_alike_in_every_band():
    # Many pieces add up in one cell. A band that begins there meets the edges in another order than a sweep from below, and
    # sums in another order may differ in their last bit.
    rng = np.random.default_rng(0)
    tried, differing = 0, []
    while tried < 150:
        teeth = np.sort(rng.uniform(0, 1, 14)).tolist()
        outline = [(x, 2.0 if i % 2 else rng.uniform(-2, 0)) for i, x in enumerate(teeth)]
        comb = Polygon([*outline, (1.0, 2.5), (0.0, 2.5)])
        if not comb.is_valid:
            continue
        for step in range(-6, 7):
            limit = float(exact_shares(comb, 1.0)[91, 180]) + TOLERANCE + step * 2**-54
            if not 0 < limit <= 1:
                continue
            grid = GridSpec(1.0, rule="fraction", min_fraction=limit)
            one, bands = (
                statistics_from_arrays(*flat([comb]), day=[1], cloud=[0.0], clear=[True], grid=grid, engine=engine).cell.tolist()
                for engine in (Engine(threads=1), Engine(memory_bytes=1, threads=1))
            )
            tried += 1
            if one != bands:
                differing.append((comb.wkt, limit))
    assert not differing


@pytest.mark.parametrize("grid", grids(resolution=2.0), ids=RULES)
def test_the_order_of_scenes_never_changes_a_bit(grid):
    footprints = many_footprints()
    values = scene_values(len(footprints))
    instants = np.random.default_rng(2).normal(size=len(footprints))
    first, newest = cell_statistics(footprints, **values, grid=grid), latest_in_cells(footprints, value=instants, grid=grid)
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(len(footprints))
        again = cell_statistics(footprints[order], **{name: value[order] for name, value in values.items()}, grid=grid)
        assert_same_bits(again, first)
        assert latest_in_cells(footprints[order], value=instants[order], grid=grid).tobytes() == newest.tobytes()


@pytest.mark.parametrize("grid", grids(resolution=2.0), ids=RULES)
def test_platforms_add_up_to_the_whole(grid):
    footprints = many_footprints()
    arrays, values = flat(footprints), scene_values(len(footprints))
    whole = statistics_from_arrays(*arrays, **values, grid=grid)
    platform = np.random.default_rng(9).integers(0, 3, len(footprints))
    fields = {name: np.zeros(grid.shape, getattr(whole, name).dtype).reshape(-1) for name in COLUMNS if name not in ("cell", "cloud_mean")}
    for which in range(3):
        only = platform == which
        part = statistics_from_arrays(*arrays, **values, grid=grid, only=only)
        filtered = {name: value[only] for name, value in values.items()}
        assert_same_bits(part, cell_statistics(footprints[only], **filtered, grid=grid))
        for name, field in fields.items():
            if name.endswith("days"):
                field[part.cell] |= getattr(part, name)
            else:
                field[part.cell] += getattr(part, name)
    assert np.flatnonzero(fields["scenes"]).tolist() == whole.cell.tolist()
    for name, field in fields.items():
        assert field[whole.cell].tobytes() == getattr(whole, name).tobytes(), name
    nothing = statistics_from_arrays(*arrays, **values, grid=grid, only=np.zeros(len(footprints), bool))
    assert not len(nothing.cell)


@pytest.mark.parametrize("rule", RULES)
def test_a_hundredth_of_a_degree_in_a_few_megabytes(rule):
    grid = GridSpec(0.01, extent=(5.0, 50.0, 9.0, 53.0), rule=rule)
    rng = np.random.default_rng(5)
    corners = rng.uniform([4.5, 49.5], [8.8, 52.8], (60, 2))
    footprints = np.array([translate(Polygon([(0, 0), (0.9, -0.2), (1.1, 0.8), (0.2, 1.0)]), x, y) for x, y in corners], dtype=object)
    arrays, values = flat(footprints), scene_values(60)
    (one,) = statistics_in_bands(*arrays, **values, grid=grid, engine=Engine(threads=1))
    assert len(one.cell) > 50_000
    for threads in (1, 2):
        engine = Engine(memory_bytes=3 << 20, threads=threads)
        bands = list(statistics_in_bands(*arrays, **values, grid=grid, engine=engine))
        assert len(bands) > 3
        # what comes out is within the budget, too
        assert max(sum(getattr(band, name).nbytes for name in COLUMNS) for band in bands) < engine.memory_bytes
        assert_same_bits(CellStatistics.joined(bands), one)


# --- what can't be used is refused, by its number ---

SQUARE = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]


def ragged(*rings):
    """Arrays of single-ring geometries as they are, right or wrong; None: a geometry without any polygon."""
    coords = np.array([vertex for ring in rings for vertex in ring or []], dtype=float).reshape(-1, 2)
    sizes = [len(ring) for ring in rings if ring is not None]
    geometries = np.cumsum([0, *(ring is not None for ring in rings)])
    return coords, np.cumsum([0, *sizes]), np.arange(len(sizes) + 1), geometries


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("ring", "message"),
    [
        ([(0, 0), (1, math.nan), (1, 1), (0, 0)], "geometry {}.*not finite.*nan"),
        ([(0, 0), (math.inf, 0), (1, 1), (0, 0)], "geometry {}.*not finite.*inf"),
        ([(0, 0), (180.0000001, 0), (1, 1), (0, 0)], "geometry {}.*beyond ±180"),
        ([(0, 0), (-181, 0), (1, 1), (0, 0)], "geometry {}.*beyond ±180"),
        ([(0, 0), (1, 90.0000001), (1, 1), (0, 0)], "geometry {}.*beyond ±180, ±90"),
        ([(0, 0), (1, -91), (1, 1), (0, 0)], "geometry {}.*beyond ±180, ±90"),
        (None, "geometry {} is empty or has no area"),
        ([], "geometry {} is empty or has no area"),
        ([(0, 0), (1, 1), (2, 2), (0, 0)], "geometry {} is empty or has no area"),
        ([(0, 0), (1, 0), (0, 0)], "geometry {} is empty or has no area"),
        ([(3, 3)], "geometry {} is empty or has no area"),
        ([(0, 0), (1, 0), (1, 1), (0, 1)], "geometry {}.*open"),
    ],
)
def test_a_footprint_that_cannot_be_used_is_refused_by_its_number(ring, message, place):
    rings = [SQUARE, SQUARE, SQUARE]
    rings[place] = ring
    arrays = ragged(*rings)
    refused = pytest.raises(ValueError, match=message.format(place))
    with refused:
        statistics_from_arrays(*arrays, **scene_values(3), grid=GridSpec(1.0))
    with refused:  # when called, not when the first band is asked for
        statistics_in_bands(*arrays, **scene_values(3), grid=GridSpec(1.0))
    with refused:
        latest_in_bands(*arrays, value=[1.0, 2.0, 3.0], grid=GridSpec(1.0))


def test_an_empty_geometry_before_a_wrong_coordinate_does_not_shift_the_number():
    with pytest.raises(ValueError, match="geometry 3 is not finite"):
        statistics_from_arrays(
            *ragged(None, SQUARE, None, [(0, 0), (1, math.nan), (1, 1), (0, 0)], None), **scene_values(5), grid=GridSpec(1.0)
        )


@pytest.mark.parametrize("position", [1, 2, 3])
@pytest.mark.parametrize("wrong", [[0], [0, 1], [1, 2], [0, 99], [0, 2, 1, 99], [-1, 1], []])
def test_offsets_that_do_not_fit_are_refused_by_their_name(position, wrong):
    arrays = list(ragged(SQUARE, SQUARE))
    arrays[position] = np.array(wrong, dtype=np.int64)
    name = ("ring_offsets", "polygon_offsets", "geometry_offsets")[position - 1]
    # fewer or more rings than the polygons own are found at the next offsets
    with pytest.raises(ValueError, match=rf"{name} must rise from 0|polygon_offsets must rise from 0|geometry_offsets must rise from 0"):
        statistics_from_arrays(*arrays, **scene_values(2), grid=GridSpec(1.0))


@pytest.mark.parametrize("name", ["day", "cloud", "clear", "only"])
@pytest.mark.parametrize("length", [0, 1, 3])
def test_one_value_a_scene_is_wanted(name, length):
    values = {**scene_values(2), "only": np.ones(2, bool)}
    values[name] = np.resize(values[name], length)
    with pytest.raises(ValueError, match=re.escape(f"{name} has shape ({length},), but there are 2 geometries")):
        statistics_from_arrays(*ragged(SQUARE, SQUARE), **values, grid=GridSpec(1.0))
    with pytest.raises(ValueError, match="value has shape"):
        latest_in_bands(*ragged(SQUARE, SQUARE), value=np.zeros(length), grid=GridSpec(1.0))
