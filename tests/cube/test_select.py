"""One map from many months and sensors: each aggregation, what is known, and what other writers do meanwhile."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coverage_pipeline.cube import dataset
from coverage_pipeline.cube import select as coverage
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import ACTIONS, AGGREGATIONS, METRICS, SCHEMA, CoverageError, CoverageQuery, DesiredCadence
from coverage_pipeline.cube.select import select
from coverage_pipeline.demand.gap import compute_gap
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from tests.cubes import (
    FEBRUARY,
    GRID,
    JANUARY,
    MARCH,
    QUARTER,
    cube_spec,
    known_fields,
    make_cube,
    memory_cube,
    random_fields,
    write_partition,
)

pytestmark = pytest.mark.slow

NAN = math.nan
COARSE = GridSpec(90.0)  # two rows, four columns
STORED_METRICS = sorted(name for name, metric in METRICS.items() if metric.mask is None and name != "action")


def query(metric: str, aggregation: Any = "rate", **changes: Any) -> CoverageQuery:
    given: dict[str, Any] = {
        "layer": METRICS[metric].layer if metric in METRICS else "available",
        "metric": metric,
        "sensors": ["emit"],
        "t0": dt.date(2025, 1, 1),
        "t1": dt.date(2025, 3, 31),
        "aggregation": aggregation,
    }
    return CoverageQuery(**(given | changes))


def cells(metric: str, *sensors: list[list[float]], **more: Any) -> xr.Dataset:
    """A dataset of the coarse grid: for each sensor and month the values of its first cells, the others NaN."""
    keys = ["emit", "landsat-8-9", "sentinel-2"][: len(sensors)]
    values = np.full((len(sensors), 3, 8), NAN, np.float32)
    for s, months in enumerate(sensors):
        for t, month in enumerate(months):
            values[s, t, : len(month)] = month
    if metric == "action":
        values = np.nan_to_num(values)
    shaped = values.reshape(len(sensors), 3, 2, 4)
    return memory_cube({metric: shaped.astype(np.uint8) if metric == "action" else shaped}, keys, grid=COARSE).assign(more)


def first(result: xr.DataArray, n: int) -> list[float]:
    return [float(v) for v in result.values.reshape(-1)[:n]]


def known(result: xr.DataArray, n: int) -> list[int]:
    return [int(v) for v in result["known_months"].values.reshape(-1)[:n]]


def equal(found: list[float], expected: list[float]) -> bool:
    return np.array_equal(np.array(found, np.float32), np.array(expected, np.float32), equal_nan=True)


# --- the specification's acceptance: each aggregation on three months --------------------------------------------------

# Cells: all months known; the last unknown; only the second known; none known; zeros are numbers.
THREE = [[1, 4, NAN, NAN, 0], [2, 6, 3, NAN, 0], [6, NAN, NAN, NAN, 0]]
KNOWN = [3, 2, 1, 0, 3]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("rate", [3, 5, 3, NAN, 0]),
        ("total", [9, 10, 3, NAN, 0]),
        ("recent", [6, 6, 3, NAN, 0]),
        ("worst", [1, 4, 3, NAN, 0]),  # few scenes are worse
    ],
)
def test_each_aggregation_on_three_months(aggregation: str, expected: list[float]) -> None:
    result = select(cells("scenes_count", THREE), query("scenes_count", aggregation))
    assert result.dims == ("lat", "lon")
    assert result.dtype == np.float32
    assert equal(first(result, 5), expected)
    assert known(result, 5) == KNOWN
    assert result.name == "scenes_count"
    assert result.attrs["aggregation"] == aggregation
    assert (result.attrs["months"], result.attrs["window"]) == (3, "2025-01..2025-03")


def test_scrub_gives_every_month() -> None:
    result = select(cells("scenes_count", THREE), query("scenes_count", "scrub"))
    assert result.dims == ("time", "lat", "lon")
    assert [Month.of(t) for t in result["time"].values] == list(QUARTER)
    for month, values in enumerate(THREE):
        assert equal(first(result[month], 5), values)
    assert known(result, 5) == KNOWN


@pytest.mark.parametrize("metric", STORED_METRICS)
def test_worst_is_the_worse_direction_of_each_metric(metric: str) -> None:
    high = {"cloud_unknown_scene_count", "mean_scene_cloud_pct", "days_since_last_held", "deficit", "unmet_supply", "priority_score"}
    result = select(cells(metric, THREE), query(metric, "worst"))
    assert equal(first(result, 5), [6, 6, 3, NAN, 0] if metric in high else [1, 4, 3, NAN, 0])


def test_the_default_aggregations_are_the_specification_s() -> None:
    defaults = {name: metric.default for name, metric in METRICS.items()}
    assert defaults.pop("days_since_last_held") == "recent"
    assert defaults.pop("action") == "recent"
    assert defaults.pop("deficit") == defaults.pop("priority_score") == "worst"
    assert defaults.pop("longest_wait") == "worst"
    assert set(defaults.values()) == {"rate"}
    assert {metric.variable(name) for name, metric in METRICS.items()} <= set(SCHEMA)


def test_a_rate_is_said_to_be_one() -> None:
    assert select(cells("scenes_count", THREE), query("scenes_count")).attrs["unit_in_words"] == "scenes a month"
    assert select(cells("scenes_count", THREE), query("scenes_count", "total")).attrs["unit_in_words"] == "scenes"
    assert select(cells("mean_scene_cloud_pct", THREE), query("mean_scene_cloud_pct")).attrs["unit_in_words"] == "%"


# --- the window ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t0", "t1", "total"),
    [
        (dt.date(2025, 2, 28), dt.date(2025, 3, 1), 8),  # a day of a month is the month
        (dt.date(2025, 2, 1), dt.date(2025, 2, 1), 2),
        (dt.date(2020, 1, 1), dt.date(2030, 1, 1), 9),
        (dt.datetime(2025, 3, 31, 23, 59), dt.datetime(2025, 3, 31, 23, 59), 6),
    ],
)
def test_the_window_takes_whole_months(t0: dt.date, t1: dt.date, total: float) -> None:
    assert first(select(cells("scenes_count", THREE), query("scenes_count", "total", t0=t0, t1=t1)), 1) == [total]


@pytest.mark.parametrize(("t0", "t1"), [("2024-01-01", "2024-12-31"), ("2025-04-01", "2025-04-30"), ("2025-03-01", "2025-01-31")])
def test_a_window_without_a_month_of_the_cube_is_refused(t0: str, t1: str) -> None:
    window = {"t0": dt.date.fromisoformat(t0), "t1": dt.date.fromisoformat(t1)}
    with pytest.raises(CoverageError, match=rf"{t0}\.\.{t1} holds no month of the cube \(2025-01\.\.2025-03\)"):
        select(cells("scenes_count", THREE), query("scenes_count", **window))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "clouds"}, "unknown metric 'clouds': choose one of scenes_count"),
        ({"metric": "revision"}, "unknown metric 'revision'"),
        ({"metric": "deficit", "layer": "gap"}, "unknown metric 'deficit'"),  # not in this dataset
        ({"layer": "gap"}, "'scenes_count' belongs to the layer 'available', not 'gap'"),
        ({"aggregation": "median"}, "unknown aggregation 'median': choose one of rate, total"),
        ({"sensors": ["emit", "emmit"]}, r"choose sensors of the cube \(emit\); not there: emmit"),
        ({"sensors": []}, "none chosen"),
        ({"bbox": (0.0, 10.0, 10.0, -10.0)}, "miny"),
        ({"bbox": (0.0, 0.0, 999.0, 10.0)}, "beyond"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CoverageError, match=message):
        select(cells("scenes_count", THREE), query(**{"metric": "scenes_count"} | changes))


@pytest.mark.parametrize("aggregation", ["rate", "total"])
def test_actions_have_no_mean_and_no_sum(aggregation: str) -> None:
    with pytest.raises(CoverageError, match=f"actions have no {aggregation}"):
        select(cells("action", THREE), query("action", aggregation))


# --- several sensors -----------------------------------------------------------------------------------------------

OTHER = [[10, 10, 10, NAN, 5], [20, NAN, 20, NAN, 5], [30, 30, 30, NAN, 5]]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("scenes_count", [11, 14, NAN, NAN, 5]),
        ("unmet_supply", [11, 14, NAN, NAN, 5]),
        ("days_since_last_held", [1, 4, NAN, NAN, 0]),
        ("deficit", [10, 10, NAN, NAN, 5]),
        ("priority_score", [10, 10, NAN, NAN, 5]),
    ],
)
def test_several_sensors_become_one_by_the_metric_s_rule(metric: str, expected: list[float]) -> None:
    ds = cells(metric, THREE, OTHER)
    january = query(metric, "recent", sensors=["emit", "landsat-8-9"], t1=dt.date(2025, 1, 31))
    assert equal(first(select(ds, january), 5), expected)
    turned = query(metric, "recent", sensors=["landsat-8-9", "emit"], t1=dt.date(2025, 1, 31))
    assert equal(first(select(ds, turned), 5), expected)
    quarter = select(ds, query(metric, "scrub", sensors=["emit", "landsat-8-9"]))
    assert known(quarter, 5) == [3, 1, 1, 0, 3]  # a month is known where every sensor is


def clouds(means: tuple[Any, Any], counts: tuple[Any, Any], unclear: tuple[Any, Any]) -> xr.Dataset:
    """Mean cloud, scenes, and scenes of unknown cloud of two sensors, the same in each month."""
    named = {"mean_scene_cloud_pct": means, "scenes_count": counts, "cloud_unknown_scene_count": unclear}
    return xr.merge([cells(name, [one] * 3, [other] * 3) for name, (one, other) in named.items()])


BOTH = ["emit", "landsat-8-9"]


def test_the_mean_cloud_of_several_sensors_is_weighted_by_their_scenes_of_known_cloud() -> None:
    # 3 scenes of 40 % and 1 of 80 %; 2 of 6 scenes have a known cloud of 10 %, and 4 of 4 of 70 %; no scene of the second is known.
    ds = clouds(([40, 10, 30], [80, 70, NAN]), ([3, 6, 2], [1, 4, 5]), ([0, 4, 0], [0, 0, 5]))
    result = select(ds, query("mean_scene_cloud_pct", "recent", sensors=BOTH))
    assert first(result, 3) == pytest.approx([(3 * 40 + 80) / 4, (2 * 10 + 4 * 70) / 6, 30])
    assert known(result, 3) == [3, 3, 3]
    turned = query("mean_scene_cloud_pct", "rate", sensors=BOTH[::-1])
    assert first(select(ds, turned), 3) == pytest.approx(first(result, 3))


def test_a_sensor_without_a_scene_in_a_cell_does_not_hide_the_mean_cloud_of_others() -> None:
    """A mean over no scenes is NaN and yet known; a cell nobody looked at is another matter."""
    ds = clouds(([40, 40, 40, NAN], [60, NAN, NAN, NAN]), ([1, 1, 1, 0], [2, 0, NAN, 0]), ([0, 0, 0, 0], [0, 0, NAN, 0]))
    both = query("mean_scene_cloud_pct", "recent", sensors=BOTH)
    result = select(ds, both)
    assert first(result, 2) == pytest.approx([160 / 3, 40])
    assert equal(first(result, 4)[2:], [NAN, NAN])
    assert known(result, 4) == [3, 3, 0, 3]  # the last was looked at, and has no scene
    assert first(select(ds, replace(both, aggregation="rate")), 2) == pytest.approx([160 / 3, 40])


def test_a_mean_that_cannot_be_weighted_is_refused() -> None:
    with pytest.raises(
        CoverageError, match="weighted by their scenes of known cloud, and the dataset lacks scenes_count and cloud_unknown"
    ):
        select(cells("mean_scene_cloud_pct", THREE, OTHER), query("mean_scene_cloud_pct", sensors=BOTH))
    assert first(select(cells("mean_scene_cloud_pct", THREE, OTHER), query("mean_scene_cloud_pct")), 1) == [3]


def test_a_sensor_named_twice_counts_once() -> None:
    assert first(select(cells("scenes_count", THREE), query("scenes_count", "total", sensors=["emit", "emit"])), 1) == [9]


def status(name: str, words: tuple[str, ...], *sensors: str) -> dict[str, Any]:
    """The same status in every month of each sensor."""
    codes = np.array([[words.index(word)] * 3 for word in sensors], np.uint8)
    return {name: (("sensor", "time"), codes)}


def test_a_sensor_without_the_layer_does_not_hide_the_others() -> None:
    nothing: list[list[float]] = [[], [], []]
    ds = cells("scenes_count", THREE, nothing, **status("scan_status", SCAN_STATUS, "complete", "not_applicable"))
    both = query("scenes_count", "total", sensors=["emit", "landsat-8-9"])
    assert equal(first(select(ds, both), 5), [9, 10, 3, NAN, 0])
    alone = select(ds, query("scenes_count", "total", sensors=["landsat-8-9"]))
    assert np.isnan(alone).all()
    assert (alone["known_months"] == 0).all()
    # A scan that has not been made is another matter: it may hold anything.
    ds = cells("scenes_count", THREE, nothing, **status("scan_status", SCAN_STATUS, "complete", "not_scanned"))
    assert np.isnan(select(ds, both)).all()


def test_a_sensor_we_do_not_hold_does_not_hide_what_we_hold_of_others() -> None:
    ds = cells("held_count", THREE, [[], [], []], **status("holdings_status", HOLDINGS_STATUS, "read", "not_held"))
    assert equal(first(select(ds, query("held_count", "total", sensors=["emit", "landsat-8-9"])), 5), [9, 10, 3, NAN, 0])


# A sensor that cannot have a metric at all hides nothing of the others (design section 4, "Several sensors in one figure").

NO_CATALOGUE = {name for name, metric in METRICS.items() if metric.layer == "available"} | {"unmet_supply", "ingestable_observations"}
NOT_HELD = {name for name, metric in METRICS.items() if metric.layer == "acquired"}


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "action"])
def test_each_metric_of_a_sensor_and_prisma_is_known_where_it_is_known_for_those_that_can_have_it(tmp_path: Path, metric: str) -> None:
    """PRISMA has no public catalogue and is in the holdings; Sentinel-2 the other way round."""
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(["emit", "prisma", "sentinel-2"], [JANUARY]))
    some = {"scenes_count": 3, "mean_scene_cloud_pct": 5, "clear_days": 0b111, "ingestable_days": 0b110, "unmet_supply": 2}
    held = {"held_count": 1, "held_days": 1, "held_clear_days": 1, "held_clear_count": 1, "days_since_last_held": 30}
    unasked = {name: SCHEMA[name].fill for name in known_fields() if name not in held}
    unheld = dict.fromkeys(held, -1) | {"held_days": 1 << 31, "held_clear_days": 1 << 31, "days_since_last_held": NAN}
    write_partition(path, "emit", JANUARY, known_fields(**some, **held))
    write_partition(path, "prisma", JANUARY, known_fields(**unasked, **held), scan="not_applicable")
    write_partition(path, "sentinel-2", JANUARY, known_fields(**some, **unheld), holdings="not_held")
    ds = open_coverage(path)
    window = {"t1": dt.date(2025, 1, 31)}

    def known_of(*sensors: str) -> bool:
        return bool((select(ds, query(metric, "recent", sensors=list(sensors), **window))["known_months"] == 1).all())

    assert known_of("emit")
    assert known_of("emit", "prisma")
    assert known_of("emit", "sentinel-2")
    assert known_of("prisma") == (metric not in NO_CATALOGUE)
    assert known_of("sentinel-2") == (metric not in NOT_HELD)
    days = select(ds, query("ingestable_observations", "recent", sensors=["emit", "prisma"], **window))
    assert (days == 2).all()


def test_days_to_download_stay_unknown_where_a_sensor_that_can_have_them_is_unknown(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(["emit", "enmap"], [JANUARY]))
    write_partition(path, "emit", JANUARY, known_fields(ingestable_days=1))
    write_partition(path, "enmap", JANUARY, known_fields(ingestable_days=1 << 31), scan="not_scanned")
    both = query("ingestable_observations", "recent", sensors=["emit", "enmap"], t1=dt.date(2025, 1, 31))
    assert np.isnan(select(open_coverage(path), both)).all()


def codes(*names: str) -> list[float]:
    return [float(ACTIONS.index(name)) for name in names]


ORDER = ("ingest", "check", "task", "unknown", "none", "met", "out_of_scope")


@pytest.mark.parametrize("more", ORDER)
@pytest.mark.parametrize("less", ORDER)
def test_of_two_actions_the_one_to_see_wins(more: str, less: str) -> None:
    expected = ACTIONS.index(min(more, less, key=ORDER.index))
    sensors = cells("action", [codes(more)] * 3, [codes(less)] * 3)
    assert first(select(sensors, query("action", "recent", sensors=["emit", "landsat-8-9"])), 1) == [expected]
    months = cells("action", [codes(less), codes(more), codes(less)])
    assert first(select(months, query("action", "worst")), 1) == [expected]


def test_the_recent_action_is_the_latest_known_one() -> None:
    months = [codes("task", "unknown", "met"), codes("met", "unknown", "ingest"), codes("unknown", "unknown", "none")]
    result = select(cells("action", months), query("action", "recent"))
    assert first(result, 3) == codes("met", "unknown", "none")
    assert known(result, 3) == [2, 0, 3]
    scrubbed = select(cells("action", months), query("action", "scrub"))
    assert [first(month, 3) for month in scrubbed] == months


def test_a_month_of_actions_is_known_where_every_sensor_s_is() -> None:
    ds = cells("action", [codes("ingest", "ingest", "met")] * 3, [codes("unknown", "met", "unknown")] * 3)
    result = select(ds, query("action", "recent", sensors=["emit", "landsat-8-9"]))
    assert first(result, 3) == codes("ingest", "ingest", "unknown")  # what is to be done is not hidden by what is not known
    assert known(result, 3) == [0, 3, 0]


def test_the_latest_action_of_several_sensors_is_not_hidden_by_one_that_is_not_known() -> None:
    one = [codes("met"), codes("ingest"), codes("met")]
    other = [codes("met"), codes("unknown"), codes("unknown")]
    ds = cells("action", one, other)
    result = select(ds, query("action", "recent", sensors=["emit", "landsat-8-9"]))
    assert first(result, 1) == codes("ingest")
    assert known(result, 1) == [1]


@pytest.mark.parametrize(
    ("metric", "provisional"),
    [("scenes_count", 2), ("observations", 2), ("unmet_supply", 2), ("ingestable_observations", 2), ("held_count", 0), ("deficit", 0)],
)
def test_a_selection_says_how_many_of_its_months_are_provisional(tmp_path: Path, metric: str, provisional: int) -> None:
    """Where the scan is provisional a 0 means that nothing was found yet."""
    path = make_cube(tmp_path / "coverage.zarr")
    for sensor, status in (("emit", ("provisional", "complete", "complete")), ("landsat-8-9", ("provisional", "complete", "provisional"))):
        for month, scan in zip(QUARTER, status, strict=True):
            write_partition(path, sensor, month, scan=scan)
    ds = open_coverage(path)
    both = query(metric, sensors=["emit", "landsat-8-9"])
    assert select(ds, both).attrs["provisional_months"] == provisional
    assert select(ds, replace(both, sensors=["emit"], t0=dt.date(2025, 2, 1))).attrs["provisional_months"] == 0


# --- an independent implementation ----------------------------------------------------------------------------------

VALUES = st.one_of(st.just(NAN), st.integers(0, 300).map(float))
CUBES = hnp.arrays(np.float32, (2, 3, 2, 4), elements=VALUES.map(np.float32))


KNOWN_CLOUD = (3, 1)
"""Scenes of known cloud of each of the two sensors, in each cell."""


def weighted(means: Sequence[float]) -> float:
    weights = KNOWN_CLOUD[: len(means)]
    return sum(w * v for w, v in zip(weights, means, strict=True)) / sum(weights)


def plain(values: list[list[float]], metric: str, aggregation: str) -> tuple[float, int]:
    """One cell: ``values`` by sensor and month, reduced in plain Python."""
    across: dict[str, Callable[[Sequence[float]], float]] = {"sum": sum, "mean": weighted, "min": min, "max": max}
    rule = across[METRICS[metric].across_sensors]
    months = []
    for month in zip(*values, strict=True):
        if not any(math.isnan(v) for v in month):
            months.append(rule(month))
    if not months:
        return NAN, 0
    over_time: dict[str, Callable[[Sequence[float]], float]] = {
        "rate": lambda v: sum(v) / len(v),
        "total": sum,
        "recent": lambda v: v[-1],
        "worst": max if METRICS[metric].worse == "high" else min,
    }
    return over_time[aggregation](months), len(months)


@given(
    CUBES,
    st.sampled_from(STORED_METRICS),
    st.sampled_from([a for a in AGGREGATIONS if a != "scrub"]),
    st.sampled_from([["emit"], ["landsat-8-9"], ["emit", "landsat-8-9"]]),
)
@settings(max_examples=80, deadline=None)
def test_select_agrees_with_plain_python(values: np.ndarray[Any, Any], metric: str, aggregation: str, sensors: list[str]) -> None:
    ds = memory_cube({metric: values}, ["emit", "landsat-8-9"], grid=COARSE)
    if metric == "mean_scene_cloud_pct":
        # Five and two scenes, of which two and one have an unknown cloud; a cell without a mean was not looked at.
        for name, counts in (("scenes_count", (5, 2)), ("cloud_unknown_scene_count", (2, 1))):
            ds[name] = ds[metric] * 0 + np.reshape(counts, (2, 1, 1, 1)).astype(np.float32)
    result = select(ds, query(metric, aggregation, sensors=sensors))
    chosen = [["emit", "landsat-8-9"].index(s) for s in sensors]
    for row in range(2):
        for column in range(4):
            one = [[float(values[s, t, row, column]) for t in range(3)] for s in chosen]
            expected, months = plain(one, metric, aggregation)
            assert float(result[row, column]) == pytest.approx(expected, rel=1e-6, nan_ok=True)
            assert int(result["known_months"][row, column]) == months


# --- places --------------------------------------------------------------------------------------------------------

PLACES = np.arange(GRID.shape[0] * GRID.shape[1], dtype=np.float32).reshape(GRID.shape)


def test_a_box_takes_the_cells_it_touches() -> None:
    ds = memory_cube({"scenes_count": PLACES})
    result = select(ds, query("scenes_count", bbox=(-5.0, 0.0, 10.0, 12.0)))
    assert result["lat"].values.tolist() == [5, 15]
    assert result["lon"].values.tolist() == [-5, 5]
    assert np.array_equal(result, PLACES[9:11, 17:19])
    assert result["known_months"].shape == (2, 2)


def test_a_box_across_the_antimeridian_goes_from_west_to_east() -> None:
    ds = memory_cube({"scenes_count": PLACES})
    result = select(ds, query("scenes_count", bbox=(165.0, 0.0, -175.0, 10.0)))
    assert result["lon"].values.tolist() == [165, 175, -175]
    assert np.array_equal(result, PLACES[9:10, [34, 35, 0]])
    part = ds.isel(lon=slice(0, 20))
    assert select(part, query("scenes_count", bbox=(165.0, 0.0, -175.0, 10.0)))["lon"].values.tolist() == [-175]


def test_a_box_on_a_part_of_the_globe_means_the_same_place() -> None:
    ds = memory_cube({"scenes_count": PLACES})
    box = (-5.0, 0.0, 10.0, 12.0)
    part = ds.isel(lat=slice(6, 15), lon=slice(18, 30))
    result = select(part, query("scenes_count", bbox=box))
    assert result["lon"].values.tolist() == [5]
    assert np.array_equal(result, PLACES[9:11, 18:19])
    with pytest.raises(CoverageError, match="holds no cell of the dataset"):
        select(part, query("scenes_count", bbox=(-100.0, 0.0, -90.0, 10.0)))


# --- the cube on disk, and its writers ------------------------------------------------------------------------------


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    path = make_cube(tmp_path / "coverage.zarr")
    for number, month in enumerate(QUARTER, start=1):
        write_partition(path, "emit", month, known_fields(scenes_count=number, unmet_supply=number))
    return path


def test_partitions_that_are_not_written_do_not_make_a_total(cube: Path) -> None:
    write_partition(cube, "landsat-8-9", JANUARY, known_fields(scenes_count=10))
    ds = open_coverage(cube)
    both = select(ds, query("scenes_count", "total", sensors=["emit", "landsat-8-9"]))
    assert (both == 11).all()
    assert (both["known_months"] == 1).all()
    assert (select(ds, query("scenes_count", "total")) == 6).all()


def test_a_dataset_in_memory_gives_what_the_cube_gives(cube: Path) -> None:
    write_partition(cube, "emit", FEBRUARY, random_fields(3))
    lazy = open_coverage(cube)
    loaded = lazy.load().copy()
    loaded.encoding = {}
    for metric, aggregation in (("scenes_count", "total"), ("action", "worst"), ("days_since_last_held", "recent")):
        xr.testing.assert_identical(select(lazy, query(metric, aggregation)), select(loaded, query(metric, aggregation)))


def test_a_partition_rewritten_since_the_cube_was_opened_is_read_again(cube: Path) -> None:
    ds = open_coverage(cube)
    write_partition(cube, "emit", MARCH, known_fields(scenes_count=30))
    assert (select(ds, query("scenes_count", "total")) == 33).all()


def test_the_known_share_of_a_stale_gap_is_nothing(tmp_path: Path) -> None:
    """A coarser level kept the share that its gap had before the coverage was written anew."""
    grid = GridSpec(1.0)
    path = make_cube(tmp_path / "fine.zarr", cube_spec(["emit"], [JANUARY], grid))
    write_partition(path, "emit", JANUARY, known_fields(grid, scenes_count=1))
    window = {"t1": dt.date(2025, 1, 31)}
    for metric in ("deficit", "action", "priority_score"):
        fresh = select(open_coverage(path), query(metric, "recent", **window), resolution=10.0)
        assert (fresh["known_share"] == 1).all(), metric
    write_partition(path, "emit", JANUARY, known_fields(grid, scenes_count=2), gap=False)
    ds = open_coverage(path)
    for metric in ("deficit", "action", "priority_score"):
        stale = select(ds, query(metric, "recent", **window), resolution=10.0)
        assert (stale["known_share"] == 0).all(), metric
        assert (stale["known_months"] == 0).all(), metric
    for metric in ("scenes_count", "held_count", "unmet_supply"):  # these are not made from the gap
        assert (select(ds, query(metric, "recent", **window), resolution=10.0)["known_share"] == 1).all(), metric


def test_the_mean_cloud_of_several_sensors_is_weighted_on_coarser_levels_too(tmp_path: Path) -> None:
    grid = GridSpec(1.0)
    path = make_cube(tmp_path / "fine.zarr", cube_spec(["emit", "landsat-8-9"], [JANUARY], grid))
    write_partition(path, "emit", JANUARY, known_fields(grid, scenes_count=3, mean_scene_cloud_pct=40))
    write_partition(path, "landsat-8-9", JANUARY, known_fields(grid, scenes_count=2, cloud_unknown_scene_count=1, mean_scene_cloud_pct=80))
    both = query("mean_scene_cloud_pct", "recent", sensors=["emit", "landsat-8-9"], t1=dt.date(2025, 1, 31))
    for resolution in (None, 10.0):
        assert np.allclose(select(open_coverage(path), both, resolution=resolution), 50)


def test_a_part_of_an_h3_cube_stays_that_part_when_it_is_read_again(tmp_path: Path) -> None:
    grid = GridSpec(h3_res=0)
    path = make_cube(tmp_path / "h3.zarr", cube_spec(["emit"], [JANUARY], grid))
    write_partition(path, "emit", JANUARY, known_fields(grid, scenes_count=np.arange(122)))
    part = open_coverage(path).isel(cells=[5, 6, 40])
    write_partition(path, "emit", JANUARY, known_fields(grid, scenes_count=np.arange(122) * 2))
    result = select(part, query("scenes_count", "recent", t1=dt.date(2025, 1, 31)))
    assert result.values.tolist() == [10, 12, 80]
    assert result["cell_ids"].values.tolist() == grid.cell_ids[[5, 6, 40]].tolist()


def rewrite_while_loading(monkeypatch: pytest.MonkeyPatch, cube: Path, times: int) -> list[int]:
    """Another run rewrites March after each selection was loaded and before it is checked."""
    done: list[int] = []
    load = coverage._select

    def load_then_rewrite(ds: xr.Dataset, q: CoverageQuery, resolution: float | None) -> xr.DataArray:
        result = load(ds, q, resolution)
        if len(done) < times:
            done.append(40 + len(done))
            write_partition(cube, "emit", MARCH, known_fields(scenes_count=done[-1]), gap=False)
        return result

    monkeypatch.setattr(coverage, "_select", load_then_rewrite)
    return done


def test_a_partition_rewritten_while_it_is_read_is_read_again(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = rewrite_while_loading(monkeypatch, cube, times=2)
    assert (select(open_coverage(cube), query("scenes_count", "total")) == 1 + 2 + 41).all()
    assert done == [40, 41]


def test_a_cube_that_never_rests_is_said_to_be_so(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite_while_loading(monkeypatch, cube, times=1000)
    with pytest.raises(CoverageError, match="rewritten faster than it can be read"):
        select(open_coverage(cube), query("scenes_count", "total"))


def test_a_part_of_the_cube_stays_that_part_when_it_is_read_again(cube: Path) -> None:
    part = open_coverage(cube).isel(sensor=[0], time=slice(0, 2), lat=slice(3, 6))
    write_partition(cube, "emit", FEBRUARY, known_fields(scenes_count=20))
    result = select(part, query("scenes_count", "total"))
    assert (result == 21).all()  # March was not asked for
    assert result.shape == (3, 36)
    assert result.attrs["window"] == "2025-01..2025-02"


def test_a_cube_that_grew_is_not_read_again(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = open_coverage(cube)
    make_cube(cube, cube_spec(["emit", "landsat-8-9", "prisma"], [*QUARTER, Month(2025, 4)]))
    monkeypatch.setattr(dataset, "open_coverage", lambda _: pytest.fail("opened again"))
    assert (select(ds, query("scenes_count", "total")) == 6).all()


def test_another_cube_in_its_place_is_said_to_be_so(cube: Path, tmp_path: Path) -> None:
    ds = open_coverage(cube)
    cube.rename(tmp_path / "old.zarr")
    make_cube(cube, cube_spec(["prisma"], [Month(2020, 1)]))
    with pytest.raises(CoverageError, match="is another cube now: open it again"):
        select(ds, query("scenes_count", "total"))


def test_a_gap_computed_by_hand_is_never_replaced_by_the_cube_s(cube: Path) -> None:
    ds = compute_gap(open_coverage(cube), DesiredCadence({"emit": 9}))
    assert (select(ds, query("deficit")) == 9).all()
    write_partition(cube, "emit", MARCH, known_fields(scenes_count=30))  # the cube's own gap is for 2 a month
    with pytest.raises(CoverageError, match="open it and compute the gap again"):
        select(ds, query("deficit"))
