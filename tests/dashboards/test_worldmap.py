"""The map's view and size, as the browser reports them and the page sets them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bokeh.events import RangesUpdate

from coverage_dashboards.fields import Field, Limits
from coverage_dashboards.viewport import EDGE
from coverage_dashboards.worldmap import Shown, WorldMap

WHOLE = ((-EDGE, EDGE), (-EDGE, EDGE))


def shown_field() -> Shown:
    values = np.tile(np.arange(1800, dtype=np.float32)[:, None], (1, 3600))
    known = np.ones((1800, 3600), np.uint8)
    return Shown(Field("scenes_count", values, known, 1, (1, 1), Limits(0, 1800), "scenes"), Limits(0, 1800), False)


def test_a_map_drawn_while_its_size_changes_is_of_one_size():
    """A drawing takes view and size once, whatever the browser reports meanwhile."""
    world = WorldMap()
    world.show(shown_field())
    world._seen_size(1058, 546)
    start = threading.Barrier(2)

    def resize() -> None:
        start.wait()
        for k in range(200):
            world._seen_size(1058, 546 - k % 2 * 146)

    def draw() -> list[tuple[int, ...]]:
        start.wait()
        images = [world._draw(k) for k in range(40)]
        return [(len(image.dimension_values("y", expanded=False)), *image.dimension_values("code", flat=False).shape) for image in images]

    with ThreadPoolExecutor(2) as pool:
        drawn, _ = pool.submit(draw), pool.submit(resize)
        shapes = drawn.result()
    assert all(rows == shape for rows, shape, _ in shapes)


def ranges(x_range: tuple[float, float], y_range: tuple[float, float]) -> RangesUpdate:
    return RangesUpdate(None, x0=x_range[0], x1=x_range[1], y0=y_range[0], y1=y_range[1])


def test_only_a_planner_s_move_is_one():
    """Before the browser told its size it reports ranges of its own; afterwards it repeats those that it was given."""
    moves: list[None] = []
    world = WorldMap(on_view=lambda: moves.append(None))
    world.show(shown_field())
    world._ranged(ranges(*WHOLE))
    world._seen_size(1000, 500)
    world._ranged(ranges(*world._view))
    assert moves == []
    assert world.box is None
    world._ranged(ranges((0.0, 2e6), (0.0, 1e6)))
    assert len(moves) == 1
    assert world.box == pytest.approx((0, 0, 17.966, 8.947), abs=0.01)
    world.home()
    assert world.box is None


def test_a_place_is_gone_to_with_something_around_it():
    world = WorldMap()
    world._seen_size(1000, 500)
    world.go_to((9.3, 47.6, 9.4, 47.7))
    west, south, east, north = world.box or (0, 0, 0, 0)
    assert (west + east) / 2 == pytest.approx(9.35, abs=1e-6)
    assert 2 < east - west < 8
    assert 2 < north - south < 2.5
    world.zoom(0.5)
    nearer = world.box or (0, 0, 0, 0)
    assert nearer[2] - nearer[0] == pytest.approx((east - west) / 2, rel=1e-6)
