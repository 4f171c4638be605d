"""Hexagonal cells against polygons made another way, and what footprints cover of them against one question a cell."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import h3.api.basic_int as h3
import numpy as np
import pytest
import shapely
import xarray as xr
import xdggs
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon, box
from shapely.affinity import translate
from shapely.geometry import shape

from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid import hexagons as grid_hex
from coverage_pipeline.grid.hexagons import hex_cells
from coverage_pipeline.grid.spec import GridSpec, cells_within
from coverage_pipeline.grid.statistics import cell_statistics, latest_in_cells
from coverage_pipeline.grid.touch import footprint_to_cells, touched
from tests.shared_data import item_files, read_items

pytestmark = pytest.mark.slow

RULES = ["touch", "center", "fraction"]
WORLD = box(-180, -90, 180, 90)
POLAR_CAP = Polygon([(lon, 85) for lon in range(-180, 180, 10)])


def footprints_of(*geometries):
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    footprints, reasons = normalise_footprints(array)
    return footprints[reasons == None]  # noqa: E711


# --- the oracle: one cell after the other, by its own unwrapping ---


def cell_polygon(cell):
    """A cell's polygon: its boundary unwrapped, closed over the pole where it goes around one, and its copies a turn away."""
    boundary = h3.cell_to_boundary(cell)
    unwrapped = [boundary[0][::-1]]
    for lat, lon in (*boundary[1:], boundary[0]):
        unwrapped.append((lon + 360 * round((unwrapped[-1][0] - lon) / 360), lat))
    if abs(unwrapped[-1][0] - unwrapped[0][0]) > 1:
        pole = 90 if h3.cell_to_latlng(cell)[0] > 0 else -90
        unwrapped += [(unwrapped[-1][0], pole), (unwrapped[0][0], pole)]
    turns = [translate(Polygon(unwrapped), 360 * turn) for turn in (-1, 0, 1)]
    return shapely.union_all([turn.intersection(WORLD) for turn in turns if turn.intersects(WORLD)])


def oracle_ids(res):
    return sorted(cell for base in h3.get_res0_cells() for cell in h3.cell_to_children(base, res))


@cache
def oracle_cells(res):
    """Polygons and centre points of all cells, ascending by id."""
    ids = oracle_ids(res)
    polygons = np.array([cell_polygon(cell) for cell in ids], dtype=object)
    centres = np.array([h3.cell_to_latlng(cell)[::-1] for cell in ids])
    return polygons, shapely.points(centres)


def oracle_shares(footprint, res):
    """What share of each cell the footprint covers, in the plane."""
    polygons, _ = oracle_cells(res)
    shares = np.zeros(len(polygons))
    near = np.flatnonzero(shapely.intersects(footprint, polygons))
    shares[near] = shapely.area(shapely.intersection(footprint, polygons[near])) / shapely.area(polygons[near])
    return shares


def oracle_covered(footprint, rule, min_fraction, res):
    """Cells that the footprint covers, and those of which rounding may say either."""
    polygons, centres = oracle_cells(res)
    shapely.prepare(footprint)
    shares = oracle_shares(footprint, res)
    if rule == "touch":
        slivers = shapely.intersects(footprint, polygons) & (shares < 1e-9)
        return set(np.flatnonzero(shapely.relate_pattern(footprint, polygons, "T********"))), set(np.flatnonzero(slivers))
    if rule == "center":
        return set(np.flatnonzero(shapely.covers(footprint, centres))), set()
    covered = (shares > 0) & (shares >= min_fraction)
    return set(np.flatnonzero(covered)), set(np.flatnonzero(np.abs(shares - min_fraction) < 1e-8))


def assert_agrees(footprints, rule, min_fraction, res):
    owner, cell = hex_cells(res).pairs(footprints, rule, min_fraction)
    assert owner.dtype == cell.dtype == np.int64
    assert (np.diff(owner * hex_cells(res).count + cell) > 0).all()  # ascending, each once
    for i, footprint in enumerate(footprints):
        expected, doubtful = oracle_covered(footprint, rule, min_fraction, res)
        assert set(cell[owner == i]) - doubtful == expected - doubtful


# --- cells ---


@pytest.mark.parametrize("res", [0, 1, 2, 3])
def test_cells_are_all_cells_of_h3_and_ascend(res):
    cells = hex_cells(res)
    ids = np.array(oracle_ids(res), np.uint64)
    assert cells.count == len(ids) == h3.get_num_cells(res)
    np.testing.assert_array_equal(cells.ids, ids)
    assert cells.ids.dtype == np.uint64
    np.testing.assert_array_equal(np.column_stack([cells.lats, cells.lons]), [h3.cell_to_latlng(cell) for cell in ids.tolist()])
    assert hex_cells(res) is cells
    for array in (cells.ids, cells.lats, cells.lons, cells.bounds, cells.areas_km2, cells.polygons):
        assert not array.flags.writeable
        assert len(array) == cells.count


@pytest.mark.parametrize("res", [0, 1, 2])
def test_polygons_are_those_of_the_oracle(res):
    difference = shapely.symmetric_difference(hex_cells(res).polygons, oracle_cells(res)[0])
    assert shapely.area(difference).max() < 1e-9
    np.testing.assert_allclose(hex_cells(res).bounds, shapely.bounds(oracle_cells(res)[0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("res", [0, 1, 2, 3])
def test_cells_are_watertight(res):
    polygons = hex_cells(res).polygons
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == pytest.approx(360 * 180, rel=1e-12)
    # every edge is some neighbour's edge or the map's, with the same vertices; so nothing overlaps and nothing is left out
    assert shapely.coverage_is_valid(polygons)
    outline = shapely.coverage_union_all(polygons)
    assert shapely.bounds(outline).tolist() == [-180, -90, 180, 90]
    assert sum(len(part.interiors) for part in shapely.get_parts(outline)) == 0


@pytest.mark.parametrize("res", [0, 1, 2, 3])
def test_neighbours_do_not_overlap(res):
    cells = hex_cells(res)
    for cell in np.random.default_rng(res).choice(cells.ids, 40).tolist():
        around = np.searchsorted(cells.ids, [n for n in h3.grid_disk(cell, 1) if n != cell])
        mine = cells.polygons[np.searchsorted(cells.ids, cell)]
        assert not shapely.relate_pattern(mine, cells.polygons[around], "T********").any()
        assert shapely.intersects(mine, cells.polygons[around]).any()


@pytest.mark.parametrize("res", [0, 1, 2, 3])
@pytest.mark.parametrize("pole", [90, -90])
def test_the_cell_around_a_pole_holds_it_on_every_meridian(res, pole):
    cells = hex_cells(res)
    [at] = np.flatnonzero(cells.ids == h3.latlng_to_cell(pole, 0, res))
    polygon = cells.polygons[at]
    assert shapely.covers(polygon, shapely.points([(lon, pole) for lon in range(-180, 181)])).all()
    assert cells.bounds[at, [0, 2]].tolist() == [-180, 180]
    assert np.flatnonzero(np.abs(cells.bounds[:, [1, 3]]).max(axis=1) == 90).tolist() == sorted(
        np.flatnonzero(np.isin(cells.ids, [h3.latlng_to_cell(90, 0, res), h3.latlng_to_cell(-90, 0, res)])).tolist()
    )


@pytest.mark.parametrize("res", [0, 1, 2, 3])
def test_cells_across_the_antimeridian_lie_on_both_sides_and_span_the_map(res):
    cells = hex_cells(res)
    rings = [[*ring, ring[0]] for ring in map(h3.cell_to_boundary, cells.ids.tolist())]
    across = np.array([any(abs(a[1] - b[1]) > 180 for a, b in pairwise(ring)) for ring in rings])
    spans = cells.bounds[:, 2] - cells.bounds[:, 0]
    np.testing.assert_array_equal(spans == 360, across)
    polar = np.abs(cells.bounds[:, [1, 3]]).max(axis=1) == 90
    for polygon in cells.polygons[across & ~polar]:
        assert isinstance(polygon, MultiPolygon)
        assert {np.sign(part.centroid.x) for part in polygon.geoms} == {-1, 1}
    assert spans[~across].max() < 180


@pytest.mark.parametrize("res", [0, 1, 2, 3])
def test_areas_add_up_to_the_globe_and_are_h3s_away_from_the_poles(res):
    cells = hex_cells(res)
    assert cells.areas_km2.sum() == pytest.approx(4 * np.pi * 6371.0072**2, rel=1e-9)
    if res >= 2:  # straight lines in lon/lat against great circles
        usual = np.abs(cells.lats) < 60
        true = [h3.cell_area(cell) for cell in cells.ids[usual].tolist()]
        np.testing.assert_allclose(cells.areas_km2[usual], true, rtol=2e-3)


@given(st.floats(-180, 180), st.floats(-90, 90), st.sampled_from([0, 1, 2, 3]))
@settings(max_examples=200, deadline=None)
def test_every_point_of_the_globe_lies_in_a_cell(lon, lat, res):
    place = hex_cells(res)._tree.query(shapely.Point(lon, lat), predicate="intersects")
    assert len(place)


@pytest.mark.parametrize("res", [-1, 6])
def test_other_resolutions_are_refused(res):
    with pytest.raises(ValueError, match="use 0 to 5"):
        hex_cells(res)


# --- footprints ---


@st.composite
def tiles(draw):
    """Rings around a point, some across the antimeridian or around a pole, one in two with a hole."""
    lon, lat, size = draw(st.floats(-180, 180)), draw(st.floats(-89, 89)), draw(st.floats(0.05, 40))
    n, turn = draw(st.integers(3, 8)), draw(st.floats(0, 6.28))
    radii = np.array(draw(st.lists(st.floats(0.3, 1), min_size=n, max_size=n))) * size
    angles = turn + np.arange(n) * 2 * np.pi / n
    ring = np.column_stack([lon + 2 * radii * np.cos(angles), np.clip(lat + radii * np.sin(angles), -90, 90)])
    hole = ring * 0.4 + ring.mean(axis=0) * 0.6
    return Polygon(ring, [hole] if draw(st.booleans()) else [])


@st.composite
def caps(draw):
    """Polar caps, their rims waved."""
    pole = draw(st.sampled_from([1, -1]))
    n = draw(st.integers(8, 24))
    lats = draw(st.lists(st.floats(50, 89.5), min_size=n, max_size=n))
    start = draw(st.floats(-180, 179))
    return Polygon([((start + 360 * k / n + 180) % 360 - 180, pole * lat) for k, lat in enumerate(lats)])


@st.composite
def boxes(draw):
    """Boxes up to the whole width of the map, also across ±180."""
    west, width = draw(st.floats(-180, 179)), draw(st.floats(0.5, 179))
    south = draw(st.floats(-90, 85))
    return box(west, south, west + width, min(90, south + draw(st.floats(0.5, 100))))


footprint_lists = st.lists(
    st.one_of(tiles(), caps(), boxes(), st.just(WORLD), st.floats(-80, 79).map(lambda south: box(-180, south, 180, south + 10))),
    min_size=1,
    max_size=3,
)


@given(footprint_lists, st.sampled_from(RULES), st.sampled_from([1e-6, 0.1, 0.5, 0.9, 1.0]), st.sampled_from([0, 1, 2]))
@settings(max_examples=200, deadline=None)
def test_pairs_are_those_of_the_oracle(geometries, rule, min_fraction, res):
    assert_agrees(footprints_of(*geometries), rule, min_fraction, res)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("res", [0, 1, 2, 3])
def test_the_globe_covers_every_cell(rule, res):
    owner, cell = hex_cells(res).pairs(footprints_of(WORLD), rule, 1.0)
    assert not owner.any()
    assert cell.tolist() == list(range(hex_cells(res).count))


def test_a_polar_cap_covers_all_cells_around_the_pole():
    """H3's own fill of this ring gives 20 cells."""
    cells = hex_cells(3)
    covered = set(cells.pairs(footprints_of(POLAR_CAP), "touch", 1.0)[1])
    assert len(covered) >= 72
    assert covered == set(np.flatnonzero(cells.bounds[:, 3] > 85))
    centred = cells.pairs(footprints_of(POLAR_CAP), "center", 1.0)[1]
    assert set(centred) == set(np.flatnonzero(cells.lats >= 85))


def test_a_footprint_that_is_a_cell_touches_no_other():
    cells = hex_cells(3)
    some = np.concatenate([np.arange(0, cells.count, 997), np.flatnonzero(cells.bounds[:, 2] - cells.bounds[:, 0] == 360)[::9]])
    for rule in RULES:
        owner, cell = cells.pairs(cells.polygons[some], rule, 1.0)
        np.testing.assert_array_equal(owner, np.arange(len(some)))
        np.testing.assert_array_equal(cell, some)


def test_a_centre_on_the_boundary_lies_inside():
    cells = hex_cells(2)
    x, y = cells.lons[1000], cells.lats[1000]
    for west, east in ((x - 1, x), (x, x + 1)):
        assert 1000 in cells.pairs(footprints_of(box(west, y - 1, east, y + 1)), "center", 1.0)[1]


def test_no_footprints_cover_nothing():
    cells = hex_cells(1)
    for rule in RULES:
        owner, cell = cells.pairs(np.empty(0, object), rule, 0.5)
        assert (len(owner), len(cell), owner.dtype, cell.dtype) == (0, 0, np.int64, np.int64)
        nothing = np.zeros(0, np.int64)
        columns = cells.statistics(np.empty(0, object), rule, 0.5, nothing.astype(np.uint32), nothing, *[nothing.astype(bool)] * 3)
        assert [len(column) for column in columns] == [0] * 8


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="use one of touch, center, fraction"):
        hex_cells(1).pairs(footprints_of(WORLD), "most", 0.5)


# --- statistics ---


def scenes(n, seed):
    rng = np.random.default_rng(seed)
    lon, lat, size = rng.uniform(-180, 180, n), rng.uniform(-85, 80, n), rng.uniform(0.2, 15, n)
    geometries = [box(x, y, x + 2 * s, min(90, y + s)) for x, y, s in zip(lon, lat, size, strict=True)]
    known = rng.random(n) < 0.8
    return {
        "geometries": footprints_of(*geometries, POLAR_CAP, WORLD)[-n:],
        "day": rng.integers(1, 32, n).astype(np.uint32),
        "units": np.where(known, rng.integers(0, 100_000_001, n), 0),
        "known": known,
        "clear": rng.random(n) < 0.3,
        "chosen": rng.random(n) < 0.9,
    }


def statistics(cells, rule, given_scenes):
    geometries, *values = given_scenes.values()
    return cells.statistics(geometries, rule, 0.25, *values)


@pytest.mark.parametrize("rule", RULES)
def test_statistics_are_those_of_plain_sums(rule):
    cells = hex_cells(2)
    given_scenes = scenes(60, 1)
    by_cell = {}
    for i in np.flatnonzero(given_scenes["chosen"]).tolist():
        for cell in cells.pairs(given_scenes["geometries"][i : i + 1], rule, 0.25)[1].tolist():
            by_cell.setdefault(cell, []).append({k: v[i] for k, v in given_scenes.items()})
    cell, n, clear, unknown, mean, days, clear_days, unknown_days = statistics(cells, rule, given_scenes)
    assert [column.dtype.name for column in (cell, n, clear, unknown, mean, days, clear_days, unknown_days)] == (
        ["int64", "int32", "int32", "int32", "float32", "uint32", "uint32", "uint32"]
    )
    assert cell.tolist() == sorted(by_cell)

    def mask(seen):
        return sum(1 << (day - 1) for day in {int(scene["day"]) for scene in seen})

    for row, place in enumerate(cell.tolist()):
        seen = by_cell[place]
        cloudless = [scene for scene in seen if scene["clear"]]
        doubtful = [scene for scene in seen if not scene["clear"] and not scene["known"]]
        percent = [int(scene["units"]) for scene in seen if scene["known"]]
        assert (n[row], clear[row], unknown[row]) == (len(seen), len(cloudless), len(doubtful))
        assert (days[row], clear_days[row], unknown_days[row]) == (mask(seen), mask(cloudless), mask(doubtful))
        expected = np.float32(sum(percent) / (len(percent) * 1_000_000) if percent else np.nan)
        np.testing.assert_array_equal(mean[row], expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_statistics_do_not_depend_on_order_or_batches(rule, seed, monkeypatch):
    cells = hex_cells(1)
    given_scenes = scenes(80, seed)
    expected = statistics(cells, rule, given_scenes)
    pairs = cells.pairs(given_scenes["geometries"], rule, 0.25)
    monkeypatch.setattr(grid_hex, "_PAIRS_AT_A_TIME", 500)
    monkeypatch.setattr(grid_hex, "_FOOTPRINTS_AT_A_TIME", 7)
    order = np.random.default_rng(seed).permutation(80)
    shuffled = statistics(cells, rule, {name: values[order] for name, values in given_scenes.items()})
    for one, other in zip(expected, shuffled, strict=True):
        assert one.tobytes() == other.tobytes()
    for one, other in zip(pairs, cells.pairs(given_scenes["geometries"], rule, 0.25), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rule", RULES)
def test_a_grid_of_hexagons_gives_what_its_cells_give(rule):
    grid = GridSpec(h3_res=2, rule=rule, min_fraction=0.25)
    given_scenes = scenes(40, 5)
    cells, footprints = hex_cells(2), given_scenes["geometries"]
    owner, cell = cells.pairs(footprints, rule, 0.25)
    cloud = np.where(given_scenes["known"], given_scenes["units"] / 1e6, np.nan)
    stats = cell_statistics(footprints, day=given_scenes["day"], cloud=cloud, clear=given_scenes["clear"], grid=grid)
    assert stats.scenes.sum() == len(cell)
    np.testing.assert_array_equal(stats.cell, np.unique(cell))
    assert footprint_to_cells(footprints[3], grid) == cells.ids[cell[owner == 3]].tolist()
    latest = latest_in_cells(footprints, value=np.arange(40.0), grid=grid)
    assert np.flatnonzero(~np.isnan(latest)).tolist() == stats.cell.tolist()
    assert latest[stats.cell[0]] == owner[cell == stats.cell[0]].max()
    np.testing.assert_array_equal(np.flatnonzero(touched(footprints, grid)), np.unique(cells.pairs(footprints, "touch", 1.0)[1]))


def test_cells_within_a_box_lie_in_it():
    grid = GridSpec(h3_res=2)
    within = cells_within((0, 40, 40, 60), grid)
    assert within.any()
    np.testing.assert_array_equal(within, shapely.covers(box(0, 40, 40, 60), hex_cells(2).polygons))
    cut = hex_cells(2).bounds[:, 2] - hex_cells(2).bounds[:, 0] == 360
    assert not (cells_within((-180, -90, 0, 90), grid) & cut).any()
    assert cells_within((-180, -90, 180, 90), grid).all()


# --- real footprints, and others' software ---


@pytest.mark.parametrize("name", item_files() or ["any"])
def test_recorded_footprints_cover_the_cells_of_the_oracle(name):
    geometries = [shape(item["geometry"]) for item in read_items(name) if item.get("geometry")]
    footprints = footprints_of(*geometries)
    some = footprints[:: max(1, len(footprints) // 8)]
    for rule in RULES:
        assert_agrees(some, rule, 0.1, 2)
    assert set(hex_cells(3).pairs(footprints, "touch", 1.0)[0]) == set(range(len(footprints)))


@pytest.mark.parametrize("res", [0, 2, 3])
def test_xdggs_reads_the_ids_unaided(res, tmp_path):
    """It needs ``grid_name`` and ``level`` on ``cell_ids``; any further attribute there is an error to it (0.7)."""
    cells = hex_cells(res)
    ids = ("cells", cells.ids, {"grid_name": "h3", "level": res})
    xr.Dataset({"n": ("cells", np.arange(cells.count))}, coords={"cell_ids": ids}).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "cube.zarr", consolidated=False) as stored:
        decoded = xdggs.decode(stored)
        centres = decoded.dggs.cell_centers()
        np.testing.assert_allclose(centres["latitude"], cells.lats, rtol=0, atol=1e-9)
        np.testing.assert_allclose((centres["longitude"] - cells.lons + 180) % 360 - 180, 0, rtol=0, atol=1e-9)
        place = cells.count // 2
        assert decoded.sel(cell_ids=cells.ids[place])["n"] == place
