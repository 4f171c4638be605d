"""The notebook's map, and what the page must not import."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import numpy as np
import pytest

from coverage_dashboards import palette
from coverage_dashboards.render import to_geoviews
from coverage_dashboards.viewport import URGENCY
from coverage_pipeline.coverage import ACTIONS, CoverageError, CoverageQuery, open_coverage, select
from coverage_pipeline.cube_schema import ACTION_ORDER
from coverage_pipeline.grid import GridSpec
from tests.cubes import JANUARY, cube_spec, known_fields, make_cube, memory_cube, write_partition
from tests.dashboards.cubes import build_cube


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


def test_one_cell_to_download_is_seen_among_all_others():
    """A pixel over many cells shows the most urgent of their actions, whatever the order of the flag values."""
    pytest.importorskip("geoviews")
    import holoviews as hv

    assert tuple(reversed(ACTION_ORDER)) == URGENCY
    grid = GridSpec(1.0)
    for quiet in ("none", "met", "out_of_scope", "unknown"):
        codes = np.full(grid.shape, ACTIONS.index(quiet), np.uint8)
        codes[::6, ::6] = ACTIONS.index("ingest")  # one cell in each block of six by six
        ds = memory_cube({"action": codes}, months=[JANUARY], grid=grid)
        action = select(ds, CoverageQuery("gap", "action", ["emit"], dt.date(2025, 1, 1), dt.date(2025, 1, 31), "recent"))
        figure = hv.render(to_geoviews(action, width=60, height=30), backend="bokeh")
        pictures = [r.data_source.data["image"][0] for r in figure.renderers if "image" in getattr(r.data_source, "data", {})]
        (picture,) = pictures
        shown = np.asarray(picture, float)
        shown = shown[np.isfinite(shown)]
        assert shown.size
        assert np.mean(shown == URGENCY.index("ingest")) > 0.9, quiet
        mapper = next(r.glyph.color_mapper for r in figure.renderers if "image" in getattr(r.data_source, "data", {}))
        assert mapper.palette[URGENCY.index("ingest")] == palette.ACTION_COLOURS["ingest"]


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
