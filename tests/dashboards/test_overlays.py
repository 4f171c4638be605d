"""Outlines over the map: where they lie, what of them a view shows, and when datashader draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards.overlays import MOST_NAMES, MOST_POINTS, Shapes, drawing_of, footprint_shapes, shapes_of
from coverage_dashboards.viewport import EDGE, mercator_x, mercator_y
from coverage_pipeline.months import Month
from coverage_pipeline.storage.store import Store

WORLD = ((-EDGE, EDGE), (-EDGE, EDGE))
boxes = st.builds(
    lambda x, y, w, h: shapely.box(x, y, x + w, y + h), st.floats(-179, 170), st.floats(-80, 75), st.floats(0.1, 9), st.floats(0.1, 5)
)


def rings(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """What lies between the gaps."""
    points, ends = np.column_stack([x, y]), np.flatnonzero(np.isnan(x))
    return [points[begin:end] for begin, end in zip([0, *(ends + 1)], ends, strict=False)]


@given(st.lists(st.one_of(boxes, boxes.map(lambda b: shapely.MultiPolygon([b, shapely.box(-179, -80, -178, -79)]))), max_size=8))
def test_every_ring_is_there_in_metres_with_a_gap_after_it(outlines: list[shapely.Geometry]) -> None:
    shapes = shapes_of(outlines)
    assert len(shapes) == len(outlines)
    wanted = [np.asarray(ring.coords) for outline in outlines for ring in shapely.get_rings(outline)]
    found = rings(shapes.lines.x, shapes.lines.y)
    assert len(found) == len(wanted)
    for got, ring in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, np.column_stack([mercator_x(ring[:, 0]), mercator_y(ring[:, 1])]), rtol=1e-6, atol=1.5)
    assert np.isnan(shapes.lines.x).sum() == len(wanted)
    assert np.array_equal(np.isnan(shapes.lines.x), np.isnan(shapes.lines.y))


@given(st.lists(boxes, min_size=1, max_size=12), boxes)
def test_a_view_shows_the_outlines_that_meet_it(outlines: list[shapely.Geometry], seen: shapely.Geometry) -> None:
    west, south, east, north = seen.bounds
    view = ((float(mercator_x(west)), float(mercator_x(east))), (float(mercator_y(south)), float(mercator_y(north))))
    drawing = drawing_of("targets", shapes_of(outlines, [str(k) for k in range(len(outlines))]), view, (400, 300))
    wanted = {str(k) for k, outline in enumerate(outlines) if outline.intersects(seen)}
    assert {name for _, _, name in drawing.names} == wanted
    assert np.isnan(drawing.x).sum() == len(wanted)


def test_beyond_the_antimeridian_the_outlines_go_on() -> None:
    shapes = shapes_of([shapely.box(-179, -20, -177, -18)], ["Fiji"])
    drawing = drawing_of("targets", shapes, ((float(mercator_x(170)), float(mercator_x(190))), WORLD[1]), (400, 300))
    ((x, _, name),) = drawing.names
    assert (name, round(np.degrees(x / 6_378_137), 3)) == ("Fiji", 182.0)


def test_of_many_the_browser_gets_a_picture() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-170, 160, 6000), rng.uniform(0, 60, 6000)
    shapes = shapes_of(shapely.box(x, y, x + 1, y + 1), ["a"] * 6000)
    assert shapes.lines.x.size > MOST_POINTS
    drawing = drawing_of("footprints", shapes, WORLD, (500, 500))
    assert drawing.x.size == 0
    assert drawing.names == ()
    assert len(shapes) > MOST_NAMES
    assert drawing.picture is not None
    alpha = drawing.picture >> 24
    assert alpha.shape == (500, 500)
    row = int((mercator_y(-30) + EDGE) / (2 * EDGE) * 500)
    assert not alpha[:row].any()  # no outline in the south, and the first row is the southernmost
    assert (alpha[260:300] > 0).mean() > 0.3
    close = drawing_of("footprints", shapes, ((0.0, 1e6), (3e6, 4e6)), (500, 500))
    assert close.picture is None
    assert 0 < close.x.size <= MOST_POINTS


def test_names_are_plain_and_nothing_is_something(tmp_path: Path) -> None:
    (name,) = shapes_of([shapely.box(0, 0, 1, 1)], ["a\x1b[31m\u202eb"]).names
    assert name.isprintable()
    empty = footprint_shapes(Store.below(tmp_path), ["emit"], [Month(2025, 5)])
    assert isinstance(empty, Shapes)
    assert len(empty) == 0
    assert drawing_of("footprints", empty, WORLD, (10, 10)).x.size == 0


@pytest.mark.parametrize("shape", [shapely.Point(0, 0), shapely.Polygon()])
def test_what_has_no_ring_draws_nothing(shape: shapely.Geometry) -> None:
    assert shapes_of([shape]).lines.x.size == 0
