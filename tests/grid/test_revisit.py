"""Revisit figures against lists of dates, and what they promise to xarray and dask."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.grid import revisit
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.months import Month
from tests.cubes import QUARTER, cube_spec, known_fields, make_cube, write_partition

type Days = set[int] | None
"""Days of one month with an observation; None is not known."""
type History = Mapping[Month, Days]
"""One cell. A month that is missing from the axis is missing here."""

DAY = dt.timedelta(days=1)
JANUARY, FEBRUARY, LEAP_FEBRUARY = Month(2023, 1), Month(2023, 2), Month(2024, 2)
FIGURES = (revisit.observations, revisit.longest_wait)
ACROSS = (revisit.longest_wait_across, revisit.mean_revisit_time, revisit.mean_response_time)


def to_mask(days: Days) -> int:
    return int(UNKNOWN) if days is None else sum(2 ** (day - 1) for day in days)


def masks(cells: Sequence[History], months: Sequence[Month] | None = None) -> xr.DataArray:
    """Cells that share one axis, in the order of ``months`` (default: of the first cell)."""
    axis = list(months or cells[0])
    values = [[to_mask(cell[month]) for cell in cells] for month in axis]
    return xr.DataArray(
        np.array(values, np.uint32).reshape(len(axis), len(cells)),
        dims=("time", "cell"),
        coords={"time": [month.to_datetime64() for month in axis]},
        name="held_days",
        attrs={"long_name": "days with a holding", "comment": "bit d-1 …"},
    )


def in_one_row(cell: History) -> xr.DataArray:
    return masks([cell])


# The oracle: one cell, dates, no bits.


def dates_of(month: Month) -> list[dt.date]:
    days = (month.end - month.start).days
    return [month.start.date() + k * DAY for k in range(days)]


def stretches(cell: History) -> list[tuple[list[dt.date], set[dt.date]]]:
    """Days known without a break, and those of them with an observation."""
    found: list[tuple[list[dt.date], set[dt.date]]] = []
    for month in sorted(cell):
        days = cell[month]
        if days is None:
            continue
        dates = dates_of(month)
        if not found or found[-1][0][-1] + DAY != dates[0]:
            found.append(([], set()))
        found[-1][0].extend(dates)
        found[-1][1].update(dates[day - 1] for day in days)
    return found


def plain_waits(cell: History) -> list[int]:
    """Of every known day, the days until the next one with an observation, or until the stretch ends."""
    waits = []
    for known, seen in stretches(cell):
        for day in known:
            until = day
            while until not in seen and until <= known[-1]:
                until += DAY
            waits.append((until - day).days)
    return waits


def plain_intervals(cell: History) -> list[int]:
    found: list[int] = []
    for _, seen in stretches(cell):
        ordered = sorted(seen)
        found += [(b - a).days for a, b in itertools.pairwise(ordered)]
    return found


def plain_longest(cell: History) -> float:
    return max(plain_waits(cell), default=math.nan)


def mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else math.nan


@st.composite
def days_of(draw: st.DrawFn, month: Month) -> Days:
    length = (month.end - month.start).days
    known = draw(st.sampled_from((True, True, True, True, False)))
    sparse = st.sets(st.integers(1, length), max_size=3)
    return draw(sparse | st.sets(st.integers(1, length)) | st.just(set(range(1, length + 1)))) if known else None


@st.composite
def cells(draw: st.DrawFn) -> list[dict[Month, Days]]:
    """Cells over the same months, some of them missing, a leap February often among them."""
    first = draw(st.sampled_from((Month(2023, 12), Month(2024, 1), Month(2022, 11), Month(2024, 6), Month(1999, 12))))
    axis = [first.shift(k) for k in sorted(draw(st.sets(st.integers(0, 7), min_size=1)))]
    axis = draw(st.permutations(axis)) if draw(st.booleans()) else axis
    return draw(st.lists(st.fixed_dictionaries({month: days_of(month) for month in axis}), min_size=1, max_size=6))


@given(cells())
@example([{JANUARY: {31}, FEBRUARY: {1}}, {JANUARY: set(), FEBRUARY: set()}, {JANUARY: None, FEBRUARY: None}])
@example([{Month(2024, 1): {1}, LEAP_FEBRUARY: set(), Month(2024, 3): {1}}])
@example([{Month(2024, 1): {1}, LEAP_FEBRUARY: None, Month(2024, 3): {1}}])
@example([{Month(2024, 1): {1}, Month(2024, 3): {1}}])
@settings(deadline=None)
def test_figures_over_all_months_are_those_of_plain_dates(histories: list[dict[Month, Days]]) -> None:
    mask = masks(histories)
    expected = {
        revisit.longest_wait_across: [plain_longest(cell) for cell in histories],
        revisit.mean_revisit_time: [mean(plain_intervals(cell)) for cell in histories],
        revisit.mean_response_time: [mean(plain_waits(cell)) for cell in histories],
    }
    for figure, values in expected.items():
        np.testing.assert_array_equal(figure(mask).values, np.array(values, np.float32), err_msg=figure.__name__)


@given(cells())
@settings(deadline=None)
def test_figures_of_each_month_are_those_of_plain_dates(histories: list[dict[Month, Days]]) -> None:
    mask = masks(histories)
    months = list(histories[0])

    def plain(month: Month, of: Callable[[History], float]) -> list[float]:
        return [math.nan if cell[month] is None else of({month: cell[month]}) for cell in histories]

    counts = [plain(month, lambda cell: sum(len(seen) for _, seen in stretches(cell))) for month in months]
    waits = [plain(month, plain_longest) for month in months]
    np.testing.assert_array_equal(revisit.observations(mask).values, np.array(counts, np.float32))
    np.testing.assert_array_equal(revisit.longest_wait(mask).values, np.array(waits, np.float32))


@given(cells(), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_chunks_give_what_one_array_gives(histories: list[dict[Month, Days]], width: int) -> None:
    mask = masks(histories)
    for figure in (*FIGURES, *ACROSS):
        with dask.config.set(scheduler="sync"):
            xr.testing.assert_identical(figure(mask.chunk(time=1, cell=width)).compute(), figure(mask))


@pytest.mark.parametrize(("year", "days"), [(2023, 28), (2024, 29), (2000, 29), (2100, 28)])
def test_february_has_its_real_length(year: int, days: int) -> None:
    february = Month(year, 2)
    mask = in_one_row({february: set()})
    assert revisit.longest_wait(mask).item() == days
    assert revisit.longest_wait_across(mask).item() == days
    assert revisit.mean_response_time(mask).item() == (days + 1) / 2
    around = in_one_row({february: {1}, february.shift(1): {1}})
    assert revisit.longest_wait_across(around).item() == 30  # the rest of March
    assert revisit.mean_revisit_time(around).item() == days


def test_runs_go_on_over_month_ends_and_never_over_an_unknown_or_missing_month() -> None:
    january, february, march = Month(2023, 1), Month(2023, 2), Month(2023, 3)
    known = in_one_row({january: {1}, february: set(), march: {31}})
    unknown = in_one_row({january: {1}, february: None, march: {31}})
    missing = in_one_row({january: {1}, march: {31}})
    assert revisit.longest_wait_across(known).item() == 30 + 28 + 30
    assert revisit.mean_revisit_time(known).item() == 30 + 28 + 31
    for broken in (unknown, missing):
        assert revisit.longest_wait_across(broken).item() == 30
        assert math.isnan(revisit.mean_revisit_time(broken).item())
        assert revisit.mean_response_time(broken).item() == 15  # (30·31/2 + 30·31/2) / 62


def test_a_place_seen_at_a_steady_interval() -> None:
    start = Month(2024, 1).start.date()
    for interval in (1, 5, 16):
        seen = {start + k * DAY for k in range(0, 366, interval)}
        year = {Month(2024, m): {d.day for d in seen if d.month == m} for m in range(1, 13)}
        assert revisit.mean_revisit_time(in_one_row(year)).item() == interval
        assert revisit.longest_wait_across(in_one_row(year)).item() == interval - 1
        # (interval − 1)/2 but for the last, cut interval, which can only shorten it
        assert revisit.mean_response_time(in_one_row(year)).item() == pytest.approx((interval - 1) / 2, rel=0.05)


def test_long_axes_do_not_overflow() -> None:
    century = {Month(1970, 1).shift(k): set() for k in range(1200)}
    days = (Month(2070, 1).start - Month(1970, 1).start).days
    mask = in_one_row(century)
    assert revisit.longest_wait_across(mask).item() == days
    assert revisit.mean_response_time(mask).item() == (days + 1) / 2
    ends = in_one_row(century | {Month(1970, 1): {1}, Month(2069, 12): {31}})
    assert revisit.mean_revisit_time(ends).item() == days - 1


def sensors(values: Sequence[Sequence[Days]]) -> xr.DataArray:
    rows = np.array([[to_mask(days) for days in row] for row in values], np.uint32)
    return xr.DataArray(rows[:, None], dims=("sensor", "time", "cell"), coords={"sensor": ["a", "b"], "time": [JANUARY.to_datetime64()]})


def test_several_sensors_together_see_what_any_sees_and_know_what_all_know() -> None:
    both = revisit.combined(sensors([[{1, 5}, {1}, None, None], [{5, 31}, set(), {3}, None]]))
    assert both.dtype == np.uint32
    assert both.dims == ("time", "cell")
    assert both.values.tolist() == [[to_mask({1, 5, 31}), to_mask({1}), UNKNOWN, UNKNOWN]]


def test_lacking_is_what_exists_and_is_not_held_where_both_are_known() -> None:
    available = masks([{JANUARY: {1, 5, 31}}, {JANUARY: {1}}, {JANUARY: None}, {JANUARY: {1}}])
    held = masks([{JANUARY: {5, 6}}, {JANUARY: {1}}, {JANUARY: set()}, {JANUARY: None}])
    days = revisit.lacking(available, held)
    assert days.dtype == np.uint32
    assert days.values.tolist() == [[to_mask({1, 31}), 0, UNKNOWN, UNKNOWN]]
    with pytest.raises(ValueError, match="time"):  # months of one side only are no empty months
        revisit.lacking(available, held.assign_coords(time=[FEBRUARY.to_datetime64()]))


LAZY: tuple[Callable[[xr.DataArray], xr.DataArray], ...] = (
    *FIGURES,
    *ACROSS,
    revisit.combined,
    lambda mask: revisit.lacking(mask, mask.copy()),
    lambda mask: revisit.longest_wait_across(revisit.combined(mask)),
)


def cube() -> xr.DataArray:
    rng = np.random.default_rng(7)
    values = rng.integers(0, 2**28, (2, 14, 5, 7), np.uint32) & rng.integers(0, 2**28, (2, 14, 5, 7), np.uint32)
    values[rng.random(values.shape) < 0.1] = UNKNOWN
    return xr.DataArray(
        values,
        dims=("sensor", "time", "lat", "lon"),
        coords={"sensor": ["a", "b"], "time": [Month(2023, 9).shift(k).to_datetime64() for k in range(14)], "lat": np.arange(5.0)},
        name="held_days",
        attrs={"comment": "bit d-1 …", "grid_mapping": "spatial_ref"},
    )


@pytest.mark.parametrize("figure", LAZY)
def test_lazy_arrays_stay_lazy_and_nothing_is_read(figure: Callable[[xr.DataArray], xr.DataArray]) -> None:
    whole = cube()

    def refuse(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    never = da.from_array(whole.values, chunks=(1, 1, 3, 3)).map_blocks(refuse, dtype=np.uint32, meta=np.empty((0,) * 4, np.uint32))
    lazy = figure(whole.copy(data=never))
    assert isinstance(lazy.data, da.Array)
    with pytest.raises(AssertionError, match="computed"), dask.config.set(scheduler="sync"):
        lazy.compute()

    eager = figure(whole)
    assert isinstance(eager.data, np.ndarray)
    assert (lazy.dtype, lazy.dims, lazy.shape) == (eager.dtype, eager.dims, eager.shape)
    assert lazy.chunks is not None
    assert dict(zip(lazy.dims, lazy.chunks, strict=True))["lat"] == (3, 2)  # only the axis that is reduced is gathered
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_identical(figure(whole.chunk(sensor=1, time=1, lat=3, lon=3)).compute(), eager)


@pytest.mark.parametrize("order", [("sensor", "time", "lat", "lon"), ("lat", "time", "lon", "sensor")])
def test_dimensions_keep_their_order_and_coordinates(order: tuple[str, ...]) -> None:
    mask = cube().transpose(*order)
    for figure in FIGURES:
        assert figure(mask).dims == order
        xr.testing.assert_equal(figure(mask).transpose(*cube().dims), figure(cube()))
    for figure in ACROSS:
        found = figure(mask)
        assert found.dims == tuple(d for d in order if d != "time")
        assert set(found.coords) == {"sensor", "lat"}
    assert revisit.combined(mask).dims == tuple(d for d in order if d != "sensor")
    assert revisit.lacking(mask, mask).dims == order


def test_figures_say_what_they_are_and_keep_nothing_of_the_mask() -> None:
    for figure in (*FIGURES, *ACROSS):
        found = figure(cube())
        assert found.dtype == np.float32
        assert found.name == figure.__name__
        assert set(found.attrs) == {"long_name", "units"}
        assert found.attrs["units"] == ("1" if figure is revisit.observations else "days")
    for days in (revisit.combined(cube()), revisit.lacking(cube(), cube())):
        assert set(days.attrs) == {"long_name", "units", "comment"}
    assert cube().attrs["comment"] == "bit d-1 …"


def test_the_figures_of_a_cube_as_it_is_opened(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(["emit"]))
    for month, days in zip(QUARTER[:2], ({1, 31}, {28}), strict=True):  # March was not looked at
        write_partition(path, "emit", month, known_fields(available_days=to_mask(days), held_clear_days=to_mask(days - {31})))
    ds = open_coverage(path)
    available = ds["available_days"]
    assert revisit.longest_wait_across(available).chunks is not None
    here = {"sensor": "emit", "lat": 5, "lon": 5}
    assert revisit.observations(available).sel(here).values.tolist() == [2, 1, pytest.approx(math.nan, nan_ok=True)]
    assert revisit.longest_wait_across(available).sel(here).values == 29
    assert revisit.mean_revisit_time(available).sel(here).values == (30 + 28) / 2
    assert revisit.lacking(available, ds["held_clear_days"]).sel(here).values.tolist() == [to_mask({31}), 0, UNKNOWN]


def test_one_month_and_one_cell_are_enough() -> None:
    mask = masks([{LEAP_FEBRUARY: {2, 4}}])
    one = mask.isel(time=0, cell=0)
    assert (revisit.observations(one).item(), revisit.longest_wait(one).item()) == (2, 25)
    cell = mask.isel(cell=0)
    assert [figure(cell).item() for figure in ACROSS] == [25, 2, np.float32((1 + 1 + 25 * 26 / 2) / 29)]


def test_what_is_no_mask_is_refused() -> None:
    floats = in_one_row({JANUARY: {1}}).where(False)  # hidden with NaN: bit 31 is gone
    for figure in (*FIGURES, *ACROSS):
        with pytest.raises(revisit.RevisitError, match="held_days has dtype float64"):
            figure(floats)


def test_a_month_that_is_there_twice_is_refused() -> None:
    once = in_one_row({JANUARY: {1}})
    for figure in ACROSS:
        with pytest.raises(revisit.RevisitError, match="a month twice along time"):
            figure(xr.concat([once, once], "time"))
