"""The map as two threads draw it: Bokeh runs a widget's callback on a worker thread while HoloViews reports ranges and sizes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from coverage_dashboards.fields import Field, Limits
from coverage_dashboards.viewport import EDGE
from coverage_dashboards.worldmap import Shown, WorldMap

WHOLE = ((-EDGE, EDGE), (-EDGE, EDGE))


def shown_field() -> Shown:
    values = np.tile(np.arange(1800, dtype=np.float32)[:, None], (1, 3600))
    known = np.ones((1800, 3600), np.uint8)
    return Shown(Field("scenes_count", values, known, 1, (1, 1), Limits(0, 1800), "scenes"), Limits(0, 1800), False)


def test_maps_drawn_by_two_threads_are_each_of_one_size():
    world = WorldMap()
    world.show(shown_field())
    world._draw(0, *WHOLE, 1058, 546, 1.0)
    start = threading.Barrier(2)

    def draw(height: int) -> list[tuple[int, ...]]:
        start.wait()
        shapes = []
        for _ in range(20):
            image = world._draw(1, *WHOLE, 1058, height, 1.0)
            shapes.append((len(image.dimension_values("y", expanded=False)), *image.dimension_values("value", flat=False).shape))
        return shapes

    with ThreadPoolExecutor(2) as pool:
        of_546, of_400 = pool.map(draw, (546, 400))
    assert {rows for rows, *_ in of_546} == {rows for _, rows, _ in of_546}
    assert {rows for rows, *_ in of_400} == {rows for _, rows, _ in of_400}
