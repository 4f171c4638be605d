"""H3 cubes on the map: every point has the value of the cell that H3 says it lies in, and numbers are counted by cell."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h3.api.basic_int as h3
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards.choices import Choices
from coverage_dashboards.exports import hex_csv
from coverage_dashboards.fields import Cube, FieldCache, change_field, field_of, open_cube, shares_within
from coverage_dashboards.hexmap import STEPS, hex_map, hexagon_at
from coverage_pipeline.cube.schema import ACTIONS, CoverageQuery
from coverage_pipeline.cube.select import select
from coverage_pipeline.grid.cell_area import cell_km2
from coverage_pipeline.grid.spec import GridSpec, h3_cells
from tests.dashboards.browsing import canvas, caption, expect, legend, look, point_at, serve
from tests.dashboards.cubes import build_cube

RES = 2


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    return open_cube(str(build_cube(tmp_path_factory.mktemp("hex") / "coverage.zarr", months=3, h3_res=RES)))


def action(cube: Cube) -> CoverageQuery:
    months = Choices.of(cube.ds).months
    return CoverageQuery("gap", "action", ["emit"], months[0].start.date(), months[-1].start.date(), "recent")


@pytest.mark.parametrize("res", range(4))
def test_each_point_lies_in_its_cell(res: int) -> None:
    found = hex_map(res)
    ids = GridSpec(h3_res=res).lats.size
    assert found.cells.shape == found.grid.shape == (round(180 / STEPS[res]), round(360 / STEPS[res]))
    assert ids == found.count == h3.get_num_cells(res)
    rng = np.random.default_rng(res)
    order = sorted(h3.uncompact_cells(h3.get_res0_cells(), res))
    for row, column in zip(rng.integers(0, found.cells.shape[0], 200), rng.integers(0, found.cells.shape[1], 200), strict=True):
        lat, lon = float(found.grid.lats[row]), float(found.grid.lons[column])
        assert order[found.cells[row, column]] == h3.latlng_to_cell(lat, lon, res)
    assert np.unique(found.cells).size == found.count  # no cell is lost between the points


@given(lon=st.floats(-180, 180), lat=st.floats(-60, 60), res=st.integers(0, 5))
def test_the_outline_of_a_cell_holds_its_point(lon: float, lat: float, res: int) -> None:
    name, outline = hexagon_at(lon, lat, res)
    assert h3.str_to_int(name) == h3.latlng_to_cell(lat, lon, res)
    assert outline.is_valid
    west, _, east, _ = outline.bounds
    assert -180 <= west <= east <= 180
    # H3's sides are great circles, ours straight in degrees: a point close to a side may fall beside it.
    assert outline.distance(shapely.Point(lon, lat)) <= 1.5 / 2**res


def test_a_field_shows_what_select_says_and_shares_are_of_cells(cube: Cube) -> None:
    field = field_of(cube, action(cube), FieldCache())
    assert field.values.shape == cube.grid.shape
    by_cell = select(cube.ds, action(cube)).values
    by_cell = np.where(np.isnan(by_cell), ACTIONS.index("unknown"), by_cell)
    np.testing.assert_array_equal(field.values, by_cell[hex_map(RES).cells])
    area = np.broadcast_to(cell_km2(GridSpec(h3_res=RES)), by_cell.shape)
    scope = by_cell != ACTIONS.index("out_of_scope")
    for name, share in field.shares.items():
        of_class = by_cell == ACTIONS.index(name)
        assert share.cells == of_class.sum()
        if name != "out_of_scope":
            assert share.of_scope == pytest.approx(area[of_class].sum() / area[scope].sum())
    everything = shares_within(field, cube, slice(None), np.arange(field.values.shape[1]))
    assert everything == field.shares
    part = shares_within(field, cube, slice(600, 700), np.arange(100, 200))
    assert 0 < sum(share.cells for share in part.values()) < 80


def test_what_changed_is_drawn_too(cube: Cube) -> None:
    months = Choices.of(cube.ds).months
    field = change_field(cube, "emit", months[0], months[1], FieldCache())
    assert field.values.shape == cube.grid.shape
    assert sum(share.cells for share in field.shares.values()) == cube.ds.sizes["cells"]


@pytest.fixture(scope="module")
def served(browser: Any, cube: Cube) -> Iterator[str]:
    yield from serve(Path(cube.location), Path(cube.location).with_name("serve.log"))


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_page_shows_hexagons_and_tells_of_one(page: Any, served: str) -> None:
    page.goto(f"{served}?layer=gap&metric=action&sensors=emit&view=-30,-40,60,60")
    expect(caption(page)).to_contain_text("Gap · Action")
    expect(legend(page)).to_contain_text("cells")
    look(page, "h3_map")
    expect(point_at(page, 10, 10)).to_contain_text("° N")
    page.get_by_label("Go to a place").fill("10, 10")
    page.get_by_label("Go to a place").press("Enter")
    expect(page.locator(".place-panel")).to_contain_text(re.compile(r"H3 cell 82[0-9a-f]+ about 10.00° N, 10.00° E"))
    page.wait_for_timeout(1500)
    look(page, "h3_place")
    assert canvas(page).is_visible()


def test_a_csv_has_a_row_for_each_cell_that_is_seen(cube: Cube) -> None:
    field, hexes = field_of(cube, action(cube)), cube.hexes
    assert hexes is not None
    table = pd.read_csv(io.BytesIO(hex_csv(field, hexes, None)))
    ids = [h3.int_to_str(int(cell)) for cell in h3_cells(RES).ids]
    assert sorted(table["h3"]) == sorted(ids)
    wanted = select(cube.ds, action(cube))
    names = dict(zip(ids, (ACTIONS[int(code)] for code in np.nan_to_num(wanted.values)), strict=True))
    outside = {name for name, scope in zip(ids, cube.ds["in_scope"].sel(sensor="emit").values, strict=True) if not scope}
    for row in table.itertuples():
        assert (row.lat, row.lon) == pytest.approx(h3.cell_to_latlng(h3.str_to_int(row.h3)), abs=1e-8)
        assert row.action == ("out_of_scope" if row.h3 in outside else names[row.h3])
    part = pd.read_csv(io.BytesIO(hex_csv(field, hexes, (0.0, 40.0, 10.0, 50.0))))
    seen = {h3.int_to_str(h3.latlng_to_cell(lat, lon, RES)) for lat in np.arange(40.25, 50, 0.5) for lon in np.arange(0.25, 10, 0.5)}
    assert seen <= set(part["h3"]) < set(ids)
