"""Sparse tables of touched cells, and the dense fields they become: not known is never zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from coverage_pipeline.cube.schema import SCHEMA
from coverage_pipeline.grid.celltable import CELL_SCHEMA, COUNT, DAYS, NUMBER, AreaKnown, cell_table, dense
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import cell_statistics
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.scenes.statistics import known_area
from tests.cubes import GRID

ALL = AreaKnown(everywhere=True)
VARIABLES = {"scenes_count": ("scenes", COUNT), "mean_scene_cloud_pct": ("cloud_mean", NUMBER), "available_days": ("days", DAYS)}


def table(rows: dict[int, int]) -> pa.Table:
    """Cells with so many scenes, all on the third of the month and half cloudy."""
    cells = np.array(sorted(rows), np.int64)
    n = np.array([rows[int(c)] for c in cells], np.int32)
    columns: dict[str, Any] = {"cell": cells, "scenes": n, "clear": n, "unknown": n, "cloud_mean": np.full(len(n), 50, np.float32)}
    columns |= {name: np.full(len(n), 4, np.uint32) for name in ("days", "clear_days", "unknown_days")}
    return pa.table(columns, schema=CELL_SCHEMA)


def is_fill(values: np.ndarray[Any, Any], variable: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.isnan(values) if values.dtype.kind == "f" else values == SCHEMA[variable].fill


def test_a_table_has_one_row_a_touched_cell() -> None:
    footprints = np.array([shapely.box(0, 0, 20, 10), shapely.box(12, 2, 18, 8)], object)
    statistics = cell_statistics(
        footprints, day=np.array([1, 31], np.uint8), cloud=np.array([5.0, np.nan]), clear=np.array([True, False]), grid=GRID
    )
    made = cell_table(statistics)
    assert made.schema == CELL_SCHEMA
    row = GRID.shape[0] // 2
    assert made["cell"].to_pylist() == [row * 36 + 18, row * 36 + 19]
    assert made["scenes"].to_pylist() == [1, 2]
    assert made["unknown"].to_pylist() == [0, 1]
    assert made["days"].to_pylist() == [1, 1 + 2**30]
    assert made["unknown_days"].to_pylist() == [0, 2**30]
    field = dense(made, "scenes", GRID, COUNT, ALL)
    assert field.dtype == np.int16
    assert field.sum() == 3
    assert (field[row, 18], field[row, 19]) == (1, 2)


@pytest.mark.parametrize("variable", VARIABLES)
def test_where_nothing_touches_a_scan_of_everywhere_says_zero(variable: str) -> None:
    field = dense(table({7: 3}), VARIABLES[variable][0], GRID, VARIABLES[variable][1], known_area("complete", None, GRID))
    assert field.dtype == np.dtype(SCHEMA[variable].dtype)
    others = np.delete(field.reshape(-1), 7)
    if variable == "mean_scene_cloud_pct":  # a mean over no scenes is no number
        assert np.isnan(others).all()
    else:
        assert (others == 0).all()
    assert field.reshape(-1)[7] == {"scenes_count": 3, "mean_scene_cloud_pct": 50, "available_days": 4}[variable]


@pytest.mark.parametrize("status", ["not_scanned", "not_applicable"])
@pytest.mark.parametrize("variable", VARIABLES)
def test_where_nobody_looked_nothing_is_known(status: str, variable: str) -> None:
    for bbox in (None, (-180.0, -90.0, 180.0, 90.0)):
        field = dense(table({7: 3}), VARIABLES[variable][0], GRID, VARIABLES[variable][1], known_area(status, bbox, GRID))
        assert is_fill(field, variable).all()


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_partial_scan_knows_what_it_found_and_nothing_else(variable: str) -> None:
    field = dense(table({7: 3}), VARIABLES[variable][0], GRID, VARIABLES[variable][1], known_area("partial", None, GRID))
    known = ~is_fill(field, variable).reshape(-1)
    assert np.flatnonzero(known).tolist() == [7]


def test_a_partial_scan_of_a_box_knows_what_it_found_inside() -> None:
    inside, outside = 9 * 36 + 18, 9 * 36 + 25
    area = known_area("partial", (0.0, 0.0, 10.0, 10.0), GRID)
    field = dense(table({inside: 3, outside: 2}), "scenes", GRID, COUNT, area).reshape(-1)
    assert field[inside] == 3
    assert (np.delete(field, inside) == -1).all()


@pytest.mark.parametrize("status", ["complete", "provisional"])
def test_a_box_knows_only_cells_that_lie_wholly_inside(status: str) -> None:
    area = known_area(status, (-15.0, 0.0, 20.0, 30.0), GRID)
    cut, inside = 9 * 36 + 16, 9 * 36 + 17  # -20..-10 is cut by the box, -10..0 is not
    field = dense(table({cut: 5, inside: 5}), "scenes", GRID, COUNT, area)
    rows, columns = np.nonzero(field >= 0)
    assert set(rows.tolist()) == {9, 10, 11}
    assert set(columns.tolist()) == {17, 18, 19}
    assert field.reshape(-1)[inside] == 5
    assert field.reshape(-1)[cut] == -1
    assert field[10, 18] == 0


def test_a_box_across_the_antimeridian() -> None:
    area = known_area("complete", (165.0, -10.0, -160.0, 10.0), GRID)
    field = dense(table({}), "scenes", GRID, COUNT, area)
    rows, columns = np.nonzero(field == 0)
    assert set(columns.tolist()) == {0, 1, 35}
    assert set(rows.tolist()) == {8, 9}


@given(
    st.tuples(st.integers(-1800, 1800), st.integers(-900, 900), st.integers(-1800, 1800), st.integers(-900, 900)),
    st.sampled_from([0.5, 1.0, 10.0]),
)
@settings(max_examples=60, deadline=None)
def test_the_cells_of_a_box_are_those_of_plain_arithmetic(box: tuple[int, int, int, int], resolution: float) -> None:
    """In whole tenths of a degree, where nothing rounds."""
    west, south, east, north = box
    south, north = min(south, north), max(south, north)
    grid = GridSpec(resolution)
    area = known_area("complete", (west / 10, south / 10, east / 10, north / 10), grid)
    assert area.mask is not None
    step = round(resolution * 10)

    def within(edge: int) -> bool:
        if west <= east:
            return west <= edge and edge + step <= east
        return west <= edge or edge + step <= east

    rows = [south <= k * step - 900 and k * step - 900 + step <= north for k in range(grid.shape[0])]
    columns = [within(k * step - 1800) for k in range(grid.shape[1])]
    assert np.array_equal(area.mask, np.outer(rows, columns))


@pytest.mark.parametrize("resolution", [0.1, 0.05, 1 / 3])
def test_a_box_written_in_decimals_covers_the_cells_it_names(resolution: float) -> None:
    """Edges such as 0.1 are not float64 numbers; rounding must not lose the box's outer cells."""
    grid = GridSpec(resolution)
    edges = [round(float(e), 10) for e in (grid.lon_edges[1], grid.lat_edges[1], grid.lon_edges[-2], grid.lat_edges[-2])]
    area = known_area("complete", edges, grid)
    assert area.mask is not None
    assert area.mask[1:-1, 1:-1].all()
    assert area.mask.sum() == (grid.shape[0] - 2) * (grid.shape[1] - 2)


def test_an_unknown_status_is_no_licence_to_write_zeros() -> None:
    for status in SCAN_STATUS:
        known_area(status, None, GRID)
    with pytest.raises(ValueError, match="unknown scan status 'failed'"):
        known_area("failed", None, GRID)


@pytest.mark.parametrize(("scenes", "fits"), [(32767, True), (32768, False)])
def test_a_count_that_does_not_fit_is_refused(scenes: int, fits: bool) -> None:
    if fits:
        assert dense(table({0: scenes}), "scenes", GRID, COUNT, ALL).max() == scenes
        return
    with pytest.raises(OverflowError, match=r"scenes: 32768 scenes in one cell do not fit int16"):
        dense(table({0: scenes}), "scenes", GRID, COUNT, ALL)


@given(st.dictionaries(st.integers(0, 36 * 18 - 1), st.integers(1, 99), max_size=30), st.sampled_from(SCAN_STATUS))
@settings(max_examples=40, deadline=None)
def test_every_cell_is_found_zero_or_not_known(rows: dict[int, int], status: str) -> None:
    field = dense(table(rows), "scenes", GRID, COUNT, known_area(status, None, GRID)).reshape(-1)
    for cell in range(field.size):
        assert field[cell] == expected(rows, status, cell)


def expected(rows: dict[int, int], status: str, cell: int) -> int:
    absent: Sequence[str] = ("complete", "provisional")
    if cell in rows and status in (*absent, "partial"):
        return rows[cell]
    return 0 if status in absent else -1
