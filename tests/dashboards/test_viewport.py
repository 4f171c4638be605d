"""The viewport against a slow oracle, and what it promises of every picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coverage_dashboards.viewport import EDGE, LATITUDE_LIMIT, OUT_OF_SCOPE, fit_extent, fit_world, mercator_x, refit, viewport
from coverage_pipeline.cube.schema import ACTION_ORDER, ACTIONS, URGENCY

RANKS = np.zeros(256, np.int64)
for _code, _name in enumerate(ACTIONS):
    RANKS[_code] = URGENCY.index(_name)


def latitude(y: float) -> float:
    return math.degrees(2 * math.atan(math.exp(y / 6378137.0)) - math.pi / 2)


def slow(field, x_range, y_range, width, height, op):
    """Pixel by pixel: the cells whose centres lie in it, or the one under its own centre."""
    rows, columns = field.shape
    lats = [-90 + (k + 0.5) * 180 / rows for k in range(rows)]
    lons = [-180 + (k + 0.5) * 360 / columns for k in range(columns)]
    dx, dy = (x_range[1] - x_range[0]) / width, (y_range[1] - y_range[0]) / height
    picture = {}
    for i in range(height):
        for j in range(width):
            x, y = x_range[0] + (j + 0.5) * dx, y_range[0] + (i + 0.5) * dy
            if abs(x) > EDGE or abs(y) > EDGE:
                continue
            west, east = ((x + s * dx / 2) / EDGE * 180 for s in (-1, 1))
            south, north = (latitude(y + s * dy / 2) for s in (-1, 1))
            across = [k for k, v in enumerate(lons) if west <= v < east] or [min(int((x / EDGE + 1) * columns / 2), columns - 1)]
            up = [k for k, v in enumerate(lats) if south <= v < north] or [min(int((latitude(y) + 90) * rows / 180), rows - 1)]
            cells = [float(field[r, c]) for r in up for c in across]
            if op == "urgent":
                picture[i, j] = max((0 if math.isnan(c) else int(c) for c in cells), key=lambda c: RANKS[c])
                continue
            numbers = [c for c in cells if math.isfinite(c)]
            if numbers:
                picture[i, j] = {"mean": lambda n: sum(n) / len(n), "max": max, "min": min}[op](numbers)
            else:
                picture[i, j] = math.nan if any(math.isnan(c) for c in cells) else -math.inf
    return picture


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 24),
    size=st.tuples(st.integers(1, 17), st.integers(1, 13)),
    centre=st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2)),
    span=st.floats(0.003, 3.0),
    op=st.sampled_from(["mean", "max", "min", "urgent"]),
)
def test_every_pixel_shows_the_cells_it_holds(seed, rows, size, centre, span, op):
    rng = np.random.default_rng(seed)
    field = rng.integers(0, 7, (rows, 2 * rows)).astype(np.float32)
    field[rng.random(field.shape) < 0.2] = np.nan
    if op != "urgent":
        field[rng.random(field.shape) < 0.2] = OUT_OF_SCOPE
    width, height = size
    # Off the round numbers, where a cell's centre lies on a pixel's edge and either neighbour may have it.
    centre, span = (centre[0] + 0.0123457, centre[1] - 0.0234571), span * 1.00117
    x_range = ((centre[0] - span) * EDGE, (centre[0] + span) * EDGE)
    y_range = ((centre[1] - span) * EDGE, (centre[1] + span) * EDGE)
    wanted = slow(field, x_range, y_range, width, height, op)
    picture = viewport(field, x_range, y_range, width, height, op, RANKS)
    if not wanted:
        assert picture is None
        return
    assert picture is not None
    top, left = min(i for i, _ in wanted), min(j for _, j in wanted)
    expected = np.full(picture.values.shape, 99, np.float32)
    for (i, j), value in wanted.items():
        expected[i - top, j - left] = value
    np.testing.assert_allclose(picture.values, expected, rtol=1e-5)


@pytest.mark.parametrize("width", [1, 3, 7, 36, 50])
def test_no_single_cell_is_lost_at_any_zoom(width):
    for row, column in ((9, 0), (9, 35), (4, 17), (14, 20)):
        field = np.zeros((18, 36), np.float32)
        field[row, column] = 5
        picture = viewport(field, (-EDGE, EDGE), (-EDGE, EDGE), width, width, "max")
        assert picture is not None
        assert picture.values.max() == 5


def test_a_pixel_of_many_actions_shows_the_most_urgent_and_no_mean():
    field = np.full((18, 36), ACTIONS.index("met"), np.float32)
    field[9, 18], field[9, 19] = ACTIONS.index("ingest"), ACTIONS.index("out_of_scope")
    picture = viewport(field, (-EDGE, EDGE), (-EDGE, EDGE), 1, 1, "urgent", RANKS)
    assert picture is not None
    assert ACTIONS[int(picture.values[0, 0])] == "ingest"


def test_urgency_is_the_order_in_which_months_and_sensors_are_united():
    assert tuple(reversed(ACTION_ORDER)) == URGENCY


def test_an_unknown_cell_does_not_hide_a_known_one_nor_scope_an_unknown_one():
    field = np.full((2, 4), np.nan, np.float32)
    field[0, 0] = OUT_OF_SCOPE
    view = ((-EDGE, 0.0), (-EDGE, EDGE))
    assert math.isnan(viewport(field, *view, 1, 1, "mean").values[0, 0])
    field[1, 1] = 3
    assert viewport(field, *view, 1, 1, "mean").values[0, 0] == 3
    field[:] = OUT_OF_SCOPE
    assert viewport(field, *view, 1, 1, "mean").values[0, 0] == -np.inf


def test_a_view_beside_the_world_or_of_nonsense_is_no_picture():
    field = np.zeros((2, 4), np.float32)
    assert viewport(field, (2 * EDGE, 3 * EDGE), (0, EDGE), 10, 10, "mean") is None
    assert viewport(field, (math.nan, 1), (0, 1), 10, 10, "mean") is None
    assert viewport(field, (1, 0), (0, 1), 10, 10, "mean") is None
    assert viewport(field, (-EDGE, EDGE), (-EDGE, EDGE), 10**9, 1, "mean").values.shape[1] <= 4096


def test_views_have_square_pixels_and_hold_the_inhabited_world():
    for width, height in ((1100, 700), (1900, 400), (300, 900)):
        (west, east), (south, north) = fit_world(width, height)
        assert (east - west) / width == pytest.approx((north - south) / height)
        assert east >= EDGE * 0.999
        assert latitude(north) >= 75.9
        assert latitude(south) <= -57.9
        (w, e), (s, n) = refit((west, east), (south, north), 500, 400, 1000.0)
        assert (e - w, n - s) == (pytest.approx(500_000), pytest.approx(400_000))


def test_the_map_ends_where_mercator_does():
    assert pytest.approx(85.0511287798) == LATITUDE_LIMIT


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    corner=st.tuples(st.integers(0, 14), st.integers(3, 9)),
    size=st.tuples(st.integers(2, 9), st.integers(2, 6)),
    op=st.sampled_from(["mean", "max", "urgent"]),
)
def test_a_region_is_drawn_where_the_globe_would_have_it(seed, corner, size, op):
    """Zoomed in, so that no pixel at the region's rim shows cells beyond it."""
    field = np.random.default_rng(seed).integers(0, 7, (18, 36)).astype(np.float32)
    (column, row), (columns, rows) = corner, size
    part = field[row : row + rows, column : column + columns]
    extent = (column * 10 - 180.0, row * 10 - 90.0, (column + columns) * 10 - 180.0, (row + rows) * 10 - 90.0)
    x_range, y_range = fit_extent(extent, 200, 200)
    region = viewport(part, x_range, y_range, 200, 200, op, RANKS, extent)
    globe = viewport(field, x_range, y_range, 200, 200, op, RANKS)
    assert region is not None
    assert globe is not None
    step_x, step_y = (x_range[1] - x_range[0]) / 200, (y_range[1] - y_range[0]) / 200
    left, bottom = round((region.x_range[0] - globe.x_range[0]) / step_x), round((region.y_range[0] - globe.y_range[0]) / step_y)
    inside = globe.values[bottom : bottom + region.values.shape[0], left : left + region.values.shape[1]]
    inner = (slice(2, -2), slice(2, -2))  # a pixel on the rim may hold a centre beyond it
    assert np.array_equal(region.values[inner], inside[inner])
    assert region.values.shape[0] > 20
    assert x_range[0] < region.x_range[0] < region.x_range[1] < x_range[1]
    assert viewport(part, (1.9e7, 1.95e7), (0, 1e6), 50, 50, op, RANKS, (-180.0, -60.0, -120.0, 0.0)) is None


@given(st.integers(-300, 300), st.integers(3, 170))
def test_the_world_goes_on_beyond_the_antimeridian(west: int, width: int) -> None:
    """A view across it shows the cells on both sides, each where it is: as the same view of a field that was turned."""
    field = np.arange(36 * 72, dtype=np.float32).reshape(36, 72)
    # Off the round numbers, where a cell's centre lies on a pixel's edge and either neighbour may have it.
    start, stop = west + 0.0123457, west + 0.0123457 + width * 1.00117
    turns = math.floor((west + 180) / 5)  # whole cells to the west

    def seen(of: NDArray[np.float32], degrees: float) -> Any:
        x_range = (float(mercator_x(start - degrees)), float(mercator_x(stop - degrees)))
        return viewport(of, x_range, (-1.01e6, 4.02e6), 60, 20, "max", endless=True)

    beyond, inside = seen(field, 0.0), seen(np.roll(field, -(turns % 72), axis=1), turns * 5.0)
    assert beyond.values.shape == (20, 60)
    np.testing.assert_array_equal(beyond.values, inside.values)
