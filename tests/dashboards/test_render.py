"""The notebook's map, and what the page must not import."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import numpy as np
import pytest

from coverage_dashboards import palette
from coverage_dashboards.render import to_geoviews
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import ACTION_ORDER, ACTIONS, URGENCY, CoverageError, CoverageQuery
from coverage_pipeline.cube.select import select
from coverage_pipeline.grid.spec import GridSpec
from tests.cubes import JANUARY, cube_spec, known_fields, make_cube, memory_cube, write_partition
from tests.dashboards.cubes import build_cube

pytestmark = pytest.mark.slow


def test_the_page_imports_neither_geoviews_nor_dagster():
    never = {"geoviews", "hvplot", "dagster", "cartopy"}
    code = f"import sys, coverage_dashboards.planner; print({never} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")


def test_a_selection_becomes_a_map_in_a_notebook(tmp_path):
    pytest.importorskip("geoviews")
    import holoviews as hv

    ds = open_coverage(build_cube(tmp_path / "coverage.zarr", 20.0, 1, ("emit",)))
    day = dt.date(2025, 1, 1)
    plot = hv.render(to_geoviews(select(ds, CoverageQuery("gap", "deficit", ["emit"], day, day, "worst"))), backend="bokeh")
    assert "Deficit" in plot.title.text


def shown_by(plot):
    """The picture of a figure, northernmost row last, and the longitudes and latitudes of its pixels' edges."""
    (renderer,) = [r for r in plot.renderers if "image" in getattr(r.data_source, "data", {})]
    data = {name: column[0] for name, column in renderer.data_source.data.items()}
    picture = np.asarray(data["image"], float)
    x = np.linspace(data["x"], data["x"] + data["dw"], picture.shape[1] + 1)
    y = np.linspace(data["y"], data["y"] + data["dh"], picture.shape[0] + 1)
    return picture, np.degrees(x / 6378137.0), np.degrees(2 * np.arctan(np.exp(y / 6378137.0)) - np.pi / 2), renderer.glyph.color_mapper


@pytest.mark.parametrize("quiet", ["none", "met", "out_of_scope", "unknown", "task", "check"])
def test_one_cell_to_download_is_seen_among_all_others(quiet):
    """A pixel over many cells shows the most urgent of their actions, whatever the order of the flag values."""
    pytest.importorskip("geoviews")
    import holoviews as hv

    assert tuple(reversed(ACTION_ORDER)) == URGENCY
    grid = GridSpec(0.5)
    codes = np.full(grid.shape, ACTIONS.index(quiet), np.uint8)
    rng = np.random.default_rng(13)
    rows, columns = rng.integers(12, grid.shape[0] - 12, 60), rng.integers(0, grid.shape[1], 60)  # within 84°: the map ends at 85.05°
    codes[rows, columns] = ACTIONS.index("ingest")
    ds = memory_cube({"action": codes}, months=[JANUARY], grid=grid)
    action = select(ds, CoverageQuery("gap", "action", ["emit"], dt.date(2025, 1, 1), dt.date(2025, 1, 31), "recent"))
    figure = hv.render(to_geoviews(action, width=120, height=60), backend="bokeh")
    picture, lons, lats, mapper = shown_by(figure)
    assert picture.size < codes.size / 4  # a pixel is several cells, and at least one in the narrow rows far north, too
    assert np.diff(lats)[1:-1].min() > grid.resolution
    # Which pixels must show it: those that hold the centre of a cell to download. All others must not.
    wanted = np.full(picture.shape, URGENCY.index(quiet), float)
    across, up = np.searchsorted(lons, grid.lons[columns]) - 1, np.searchsorted(lats, grid.lats[rows]) - 1
    wanted[up, across] = URGENCY.index("ingest")
    np.testing.assert_array_equal(picture, wanted)
    assert mapper.palette[URGENCY.index("ingest")] == palette.ACTION_COLOURS["ingest"]
    assert (mapper.low, mapper.high) == (-0.5, len(mapper.palette) - 0.5)


def test_a_zoom_into_the_map_shows_the_cells_there():
    pytest.importorskip("geoviews")
    import holoviews as hv

    grid = GridSpec(0.5)
    counts = np.arange(grid.shape[0] * grid.shape[1], dtype=np.uint16).reshape(grid.shape) % 9
    ds = memory_cube({"scenes_count": counts}, months=[JANUARY], grid=grid)
    day = dt.date(2025, 1, 1)
    drawn = to_geoviews(select(ds, CoverageQuery("available", "scenes_count", ["emit"], day, day, "total")), width=300, height=160)
    plot = hv.renderer("bokeh").get_plot(drawn)
    (ranges,) = {s for part in plot.subplots.values() for s in part.streams if isinstance(s, hv.streams.RangeXY)}
    edge = 6378137.0 * np.pi
    ranges.event(x_range=(edge / 18, edge / 9), y_range=(0.0, edge / 18))  # 10°..20° east, north of the equator
    picture, lons, lats, _ = shown_by(plot.state)
    assert picture.shape == (160, 300)
    assert (lons[0], lons[-1], lats[0]) == (pytest.approx(10), pytest.approx(20), pytest.approx(0, abs=1e-9))
    middle_lons, middle_lats = (lons[:-1] + lons[1:]) / 2, (lats[:-1] + lats[1:]) / 2
    row, column = np.floor((middle_lats + 90) * 2).astype(int), np.floor((middle_lons + 180) * 2).astype(int)
    inside = counts[np.ix_(row, column)]
    assert np.mean(picture == inside) > 0.99  # a pixel on the edge of two cells may show either


def test_a_selection_across_the_antimeridian_leaves_the_rest_of_the_world_empty():
    pytest.importorskip("geoviews")
    import holoviews as hv

    grid = GridSpec(2.0)
    ds = memory_cube({"scenes_count": np.full(grid.shape, 3, np.uint16)}, months=[JANUARY], grid=grid)
    day = dt.date(2025, 1, 1)
    query = CoverageQuery("available", "scenes_count", ["emit"], day, day, "total", (170.0, -20.0, -160.0, 20.0))
    picture, lons, _, mapper = shown_by(hv.render(to_geoviews(select(ds, query), width=180, height=60), backend="bokeh"))
    middle = (lons[:-1] + lons[1:]) / 2
    there = (middle > 170) | (middle < -160)
    assert (picture[:, there] == 3).all()
    assert (picture[:, ~there] == -np.inf).all()
    assert mapper.low_color == palette.LIGHT.page
    assert mapper.nan_color == palette.LIGHT.unknown


def test_every_month_of_a_scrub_is_a_picture_of_its_own():
    pytest.importorskip("geoviews")
    import holoviews as hv

    grid = GridSpec(5.0)
    counts = np.stack([np.full(grid.shape, n, np.uint16) for n in (2, 7)])
    ds = memory_cube({"scenes_count": counts}, months=[JANUARY, JANUARY.shift(1)], grid=grid)
    query = CoverageQuery("available", "scenes_count", ["emit"], dt.date(2025, 1, 1), dt.date(2025, 2, 28), "scrub")
    drawn = to_geoviews(select(ds, query), width=60, height=60)
    assert drawn.kdims[0].values == ["2025-01", "2025-02"]
    for month, count in (("2025-01", 2), ("2025-02", 7)):
        picture, *_, mapper = shown_by(hv.render(drawn[month], backend="bokeh"))
        assert (picture == count).all()
        assert mapper.high == 7


def test_a_map_of_h3_cells_is_refused_in_words(tmp_path):
    pytest.importorskip("geoviews")
    grid = GridSpec(h3_res=0)
    path = make_cube(tmp_path / "h3.zarr", cube_spec(["emit"], [JANUARY], grid))
    write_partition(path, "emit", JANUARY, known_fields(grid, scenes_count=1))
    day = dt.date(2025, 1, 1)
    with pytest.raises(CoverageError, match="this map draws cells of latitude and longitude, not cells"):
        to_geoviews(select(open_coverage(path), CoverageQuery("available", "scenes_count", ["emit"], day, day, "recent")))


def test_a_map_says_that_months_are_provisional(tmp_path):
    pytest.importorskip("geoviews")
    import holoviews as hv

    path = make_cube(tmp_path / "coverage.zarr", cube_spec(["emit"], [JANUARY]))
    write_partition(path, "emit", JANUARY, scan="provisional")
    day = dt.date(2025, 1, 1)
    counts = select(open_coverage(path), CoverageQuery("available", "scenes_count", ["emit"], day, day, "recent"))
    title = hv.render(to_geoviews(counts), backend="bokeh").title.text
    assert title.endswith("1 of 1 months provisional: 0 means none found yet")
