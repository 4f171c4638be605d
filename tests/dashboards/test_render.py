"""The notebook's map, and what the page must not import."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import pytest

from coverage_dashboards.render import to_geoviews
from coverage_pipeline.coverage import CoverageQuery, open_coverage, select
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
