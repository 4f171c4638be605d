"""Two maps side by side: what can stand beside a view, and that both move together and mean the same by their colours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards.beside import NOTHING, options, title, view_beside
from coverage_dashboards.choices import Choices, View
from coverage_dashboards.fields import open_cube
from coverage_dashboards.planner import _look_up
from coverage_dashboards.spot import Spot
from coverage_pipeline.cube.schema import METRICS
from tests.dashboards.browsing import caption, expect, legend, look, serve
from tests.dashboards.cubes import build_cube

pytestmark = [pytest.mark.service, pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_cube(tmp_path_factory.mktemp("beside") / "coverage.zarr", 4.0, 4)


@pytest.fixture(scope="module")
def choices(cube: Path) -> Choices:
    return Choices.of(open_cube(str(cube)).ds)


@pytest.fixture(scope="module")
def served(browser: Any, cube: Path) -> Iterator[str]:
    yield from serve(cube, cube.with_name("serve.log"))


def views(choices: Choices) -> Iterator[View]:
    first = choices.first_view()
    for metric in METRICS:
        yield choices.settled(
            View(METRICS[metric].layer, metric, choices.sensors, first.first, first.last, METRICS[metric].default, first.first)
        )


def test_whatever_is_offered_can_stand_beside_and_differs(choices: Choices) -> None:
    for view in views(choices):
        offered = options(choices, view)
        assert next(iter(offered.values())) == NOTHING
        assert len(set(offered.values())) == len(offered)
        for key in list(offered.values())[1:]:
            other = view_beside(choices, view, key)
            assert other is not None, key
            assert other.query() != view.query()
            assert title(view, other)[0] != title(view, other)[1]


@given(
    key=st.one_of(
        st.text(max_size=40),
        st.sampled_from(["sensor", "metric", "month"]).flatmap(lambda k: st.text(max_size=12).map(lambda t: f"{k}:{t}")),
    )
)
def test_any_other_key_stands_for_nothing(key: str, choices: Choices) -> None:
    view = choices.first_view()
    if key not in options(choices, view).values():
        other = view_beside(choices, view, key)
        assert other is None or other.query() == view.query() or key.startswith("month:")
    assert view_beside(choices, view, NOTHING) is None


def test_the_colours_of_one_metric_mean_the_same_in_both(choices: Choices, cube: Path) -> None:
    shown = open_cube(str(cube))
    view = choices.first_view()
    alone = _look_up(shown, choices, view, view.sensors, Spot())
    both = _look_up(shown, choices, view, view.sensors, Spot(beside="sensor:landsat-8-9"))
    assert alone.beside is None
    assert alone.drawn is not None
    assert both.drawn is not None
    assert both.beside is not None
    assert both.beside.limits == both.drawn.limits == alone.drawn.limits.and_(both.beside.field.limits)
    assert both.drawn.field.limits != both.beside.field.limits  # so that the test says something
    other = _look_up(shown, choices, view, view.sensors, Spot(beside="metric:mean_scene_cloud_pct"))
    assert other.beside is not None
    assert other.beside.limits == other.beside.field.limits


_VIEWS = """() => [...Bokeh.documents[0].all_models].filter(m => m.type == 'Figure').map(f =>
  [f.x_range.start, f.x_range.end, f.y_range.start, f.y_range.end, f.inner_width, f.inner_height])"""


def centres(page: Any) -> list[tuple[float, float, float]]:
    """Middle and metres a pixel of each map."""
    return [((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / w) for x0, x1, y0, y1, w, _ in page.evaluate(_VIEWS)]


def wait_until_linked(page: Any) -> None:
    page.wait_for_function(
        """() => {
          const fs = [...Bokeh.documents[0].all_models].filter(m => m.type == 'Figure')
          if (fs.length != 2) return false
          const [a, b] = fs.map(f => [(f.x_range.start + f.x_range.end) / 2, (f.y_range.start + f.y_range.end) / 2,
            (f.x_range.end - f.x_range.start) / f.inner_width])
          const slack = a[2] * 4
          return Math.abs(a[0] - b[0]) < slack && Math.abs(a[1] - b[1]) < slack && Math.abs(a[2] / b[2] - 1) < 0.02
        }"""
    )


def choose(page: Any, label: str) -> None:
    page.get_by_role("combobox", name="Beside it").click()
    page.get_by_text(label, exact=True).click()


def test_two_sensors_side_by_side(page: Any, served: str) -> None:
    page.goto(served)
    expect(caption(page)).to_contain_text("EMIT (ISS)")
    choose(page, "Sensor: Landsat 8/9")
    titles = page.locator(".map-title")
    expect(titles).to_have_text(["EMIT (ISS)", "Landsat 8/9"])
    expect(page).to_have_url(re.compile("beside=sensor%3Alandsat-8-9"))
    expect(page.locator(".legend-beside")).to_be_hidden()  # one metric, one legend
    wait_until_linked(page)
    before = centres(page)
    page.get_by_role("button", name="Zoom in").nth(1).click()
    page.wait_for_function(f"() => ({_VIEWS})()[0][1] - ({_VIEWS})()[0][0] < {before[0][2]} * 0.6 * ({_VIEWS})()[0][4]")
    wait_until_linked(page)
    look(page, "beside_sensors")
    # A reload shows the same, and back leads to one map.
    page.reload()
    expect(titles).to_have_text(["EMIT (ISS)", "Landsat 8/9"])
    choose(page, "Nothing")
    expect(titles.locator("visible=true")).to_have_count(0)
    page.go_back()
    expect(titles).to_have_text(["EMIT (ISS)", "Landsat 8/9"])


def test_two_metrics_have_two_legends(page: Any, served: str) -> None:
    page.goto(f"{served}?layer=gap&metric=action&sensors=emit&beside=metric:scenes_count")
    expect(page.locator(".map-title")).to_have_text(["Action", "Scenes"])
    expect(legend(page)).to_contain_text("Ingest")
    expect(page.locator(".legend-beside")).to_contain_text("Scenes (scenes a month)")
    look(page, "beside_metrics")
    page.get_by_role("button", name="Toggle theme").click()
    page.wait_for_timeout(1500)
    look(page, "beside_metrics_dark")


def test_two_months_and_a_place_in_both(page: Any, served: str) -> None:
    page.goto(f"{served}?sensors=emit&t0=2025-01&t1=2025-01&beside=month:2025-03&place=10,10")
    expect(page.locator(".map-title")).to_have_text(["January 2025", "March 2025"])
    expect(page.locator(".place-panel")).to_be_visible()
    expect(caption(page)).to_contain_text("beside it March 2025")
    wait_until_linked(page)
    page.wait_for_timeout(1500)
    look(page, "beside_months")


def test_a_second_map_that_cannot_be_is_told(page: Any, served: str) -> None:
    page.goto(f"{served}?sensors=emit&beside=sensor:%3Cb%3E")
    expect(page.get_by_text("(beside); it was left out")).to_be_visible()
    expect(page.locator(".map-title").locator("visible=true")).to_have_count(0)
