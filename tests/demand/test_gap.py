"""What is missing and what to do about it: the action table row by row, and every number against plain Python."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import ACTIONS, CoverageError, DesiredCadence
from coverage_pipeline.demand.gap import GAP_INPUTS, compute_gap
from coverage_pipeline.demand.weights import DEFAULT_WEIGHTS, GapError, check_weights
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.cubes import FEBRUARY, JANUARY, cube_spec, make_cube, random_fields, write_partition

NAN = math.nan
LOOKBACK = 24


@dataclass(frozen=True)
class Cell:
    """What is known of one cell; days are sets, None is not known."""

    held: set[int] | None = field(default_factory=set)
    ingestable: set[int] | None = field(default_factory=set)
    check: set[int] | None = field(default_factory=set)
    since: float = 700.0
    scenes: float = 0.0
    in_scope: bool = True


def mask(days: set[int] | None) -> int:
    return int(UNKNOWN) if days is None else sum(2 ** (d - 1) for d in days)


def dataset(
    cells: Sequence[Cell], *, sensor: str = "emit", month: Month = JANUARY, scan: str = "complete", holdings: str = "read"
) -> xr.Dataset:
    """One partition, its cells in one row."""

    def row(values: Sequence[Any], dtype: str) -> tuple[tuple[str, ...], np.ndarray[Any, Any]]:
        return ("sensor", "time", "lat", "lon"), np.array(values, dtype).reshape(1, 1, 1, -1)

    unmet = [NAN if c.ingestable is None else float(len(c.ingestable)) for c in cells]
    return xr.Dataset(
        {
            "held_clear_days": row([mask(c.held) for c in cells], "uint32"),
            "ingestable_days": row([mask(c.ingestable) for c in cells], "uint32"),
            "check_days": row([mask(c.check) for c in cells], "uint32"),
            "days_since_last_held": row([c.since for c in cells], "float32"),
            "scenes_count": row([c.scenes for c in cells], "float32"),
            "unmet_supply": row(unmet, "float32"),
            "in_scope": (("sensor", "lat", "lon"), np.array([c.in_scope for c in cells], np.int8).reshape(1, 1, -1)),
            "scan_status": (("sensor", "time"), np.array([[SCAN_STATUS.index(scan)]], np.uint8)),
            "holdings_status": (("sensor", "time"), np.array([[HOLDINGS_STATUS.index(holdings)]], np.uint8)),
        },
        coords={"sensor": np.array([sensor], dtype=object), "time": [month.to_datetime64()]},
        attrs={"settings": json.dumps({"lookback_months": LOOKBACK})},
    )


def gap_of(cells: Sequence[Cell], desired: float | None = None, **given: Any) -> list[tuple[str, float, float]]:
    """Action, deficit and priority of each cell."""
    ds = dataset(cells, **given)
    cadence = DesiredCadence({} if desired is None else {given.get("sensor", "emit"): desired})
    made = compute_gap(ds, cadence)
    columns = [made[name].values.reshape(-1).tolist() for name in ("action", "deficit", "priority_score")]
    return [(ACTIONS[int(action)], deficit, priority) for action, deficit, priority in zip(*columns, strict=True)]


def action(cell: Cell, desired: float | None = None, **given: Any) -> str:
    return gap_of([cell], desired, **given)[0][0]


# --- the action table, in its order: each row wins over all that come after it -------------------------------------------

EVERYTHING = Cell(ingestable={1, 2}, check={3}, scenes=5)
NOTHING = Cell()


@pytest.mark.parametrize("scan", SCAN_STATUS)
@pytest.mark.parametrize("holdings", HOLDINGS_STATUS)
def test_1_out_of_scope_comes_before_all(scan: str, holdings: str) -> None:
    cell = replace(EVERYTHING, in_scope=False)
    assert gap_of([cell], scan=scan, holdings=holdings) == [("out_of_scope", 0, 0)]


@pytest.mark.parametrize("scan", SCAN_STATUS)
@pytest.mark.parametrize("holdings", ["not_read", "off"])
def test_2_without_holdings_nothing_is_known(scan: str, holdings: str) -> None:
    assert action(EVERYTHING, scan=scan, holdings=holdings) == "unknown"
    assert action(EVERYTHING, 0, scan=scan, holdings=holdings) == "unknown"  # not even that it is met


def test_2_a_cell_whose_holdings_are_not_known_is_not_either() -> None:
    [(what, deficit, priority)] = gap_of([replace(EVERYTHING, held=None)])
    assert what == "unknown"
    assert math.isnan(deficit)
    assert math.isnan(priority)


@pytest.mark.parametrize("scan", SCAN_STATUS)
def test_3_met_comes_before_what_else_exists(scan: str) -> None:
    assert gap_of([replace(EVERYTHING, held={8, 20})], 2, scan=scan) == [("met", 0, 0)]
    assert gap_of([replace(EVERYTHING, held={8, 20, 21})], 2, scan=scan) == [("met", 0, 0)]
    assert gap_of([EVERYTHING], 0, scan=scan) == [("met", 0, 0)]


@pytest.mark.parametrize("sensor", ["emit", "landsat-8-9"])
@pytest.mark.parametrize("scan", ["partial", "provisional", "complete"])
def test_4_ingest_wherever_a_clear_scene_was_found(sensor: str, scan: str) -> None:
    assert action(EVERYTHING, sensor=sensor, scan=scan) == "ingest"


@pytest.mark.parametrize("scan", ["partial", "provisional", "complete"])
def test_5_check_where_only_scenes_of_unknown_cloud_exist(scan: str) -> None:
    assert action(replace(EVERYTHING, ingestable=set()), scan=scan) == "check"


@pytest.mark.parametrize(("sensor", "expected"), [("emit", "task"), ("enmap", "task"), ("landsat-8-9", "none")])
def test_6_and_7_absence_asks_for_tasking_or_for_patience(sensor: str, expected: str) -> None:
    assert action(NOTHING, sensor=sensor) == expected


@pytest.mark.parametrize("scan", ["not_scanned", "partial", "provisional"])
@pytest.mark.parametrize("sensor", ["emit", "landsat-8-9"])
def test_8_absence_counts_only_in_a_complete_scan(scan: str, sensor: str) -> None:
    [(what, deficit, priority)] = gap_of([NOTHING], 2, sensor=sensor, scan=scan)
    assert what == "unknown"
    assert deficit == 2  # holdings alone say that
    assert math.isnan(priority)


def test_8_a_cell_outside_the_scanned_box_is_unknown_in_a_complete_scan() -> None:
    outside = Cell(ingestable=None, check=None, scenes=NAN)
    assert action(outside) == "unknown"


def test_8_absence_is_not_known_where_nobody_knows_what_is_not_held() -> None:
    """The catalogue is read and so are the holdings, but the matchup is older and was made without them."""
    assert action(Cell(ingestable=None, check=None, scenes=4)) == "unknown"
    assert action(Cell(ingestable=set(), check=None, scenes=4)) == "unknown"


def test_prisma_is_tasked_from_holdings_alone() -> None:
    blind = Cell(ingestable=None, check=None, scenes=NAN)
    [(what, deficit, priority)] = gap_of([blind], 2, sensor="prisma", scan="not_applicable")
    assert (what, deficit) == ("task", 2)
    assert 0 < priority <= 1 - DEFAULT_WEIGHTS["unmet"]  # a catalogue that cannot be asked is a zero term
    assert action(replace(blind, held={1, 2}), 2, sensor="prisma", scan="not_applicable") == "met"


def test_sentinel_2_which_we_do_not_hold_is_all_ingest_where_scenes_exist() -> None:
    cells = [Cell(held=None, since=NAN, ingestable={1, 6, 11}, scenes=3), Cell(held=None, since=NAN)]
    (what, deficit, priority), (elsewhere, _, _) = gap_of(cells, sensor="sentinel-2", holdings="not_held")
    assert (what, deficit) == ("ingest", 6)
    expected = 0.4 + 0.3 + 0.2 * 3 / 6 + 0.1
    assert priority == pytest.approx(expected, abs=1e-6)
    assert elsewhere == "none"


@pytest.mark.parametrize(("sensor", "month"), [("emit", Month(2022, 7)), ("enmap", Month(2019, 1)), ("sentinel-2", Month(2015, 5))])
def test_before_the_mission_there_is_no_deficit(sensor: str, month: Month) -> None:
    ds = dataset([EVERYTHING], sensor=sensor, month=month, scan="not_applicable")
    made = compute_gap(ds, DesiredCadence({sensor: 5}))
    assert ACTIONS[int(made["action"].item())] == "out_of_scope"
    assert (made["deficit"].item(), made["priority_score"].item()) == (0, 0)
    assert np.isnan(made["desired"].item())
    first = COVERAGE_SENSORS[sensor].first_month
    assert first is not None
    assert action(EVERYTHING, sensor=sensor, month=first) == "ingest"


def test_after_the_mission_too() -> None:
    ended = {"emit": replace(COVERAGE_SENSORS["emit"], last_month=JANUARY)}
    for month, expected in ((JANUARY, "task"), (FEBRUARY, "out_of_scope")):
        made = compute_gap(dataset([NOTHING], month=month), DesiredCadence(), sensors=ended)
        assert ACTIONS[int(made["action"].item())] == expected


# --- deficits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("desired", "held", "deficit"),
    [(2, 0, 2), (2, 1, 1), (2, 2, 0), (2, 9, 0), (0, 0, 0), (0.5, 0, 1), (1.5, 1, 1), (1.5, 2, 0), (2.1, 0, 3), (31, 0, 31)],
)
def test_a_deficit_is_whole_observations(desired: float, held: int, deficit: int) -> None:
    assert gap_of([Cell(held=set(range(1, held + 1)))], desired)[0][1] == deficit


def test_the_deficit_counts_days_and_not_scenes() -> None:
    """Two tiles of one pass are one observation: the mask has one bit."""
    assert gap_of([Cell(held={4}, scenes=2)], 2)[0][1] == 1


def test_without_a_wish_the_registry_s_cadence_holds() -> None:
    assert [gap_of([NOTHING], sensor=s)[0][1] for s in ("emit", "landsat-8-9", "sentinel-2")] == [2, 3, 6]


def test_remaining_after_ingest_never_falls_below_zero() -> None:
    """What the page shows beside an ingest: downloading may close only a part."""
    made = compute_gap(dataset([Cell(ingestable={1}), Cell(ingestable={1, 2, 3, 4})]), DesiredCadence({"emit": 3}))
    found = np.bitwise_count(made["ingestable_days"].values)
    remaining = np.maximum(0, made["deficit"].values - found)
    assert remaining.reshape(-1).tolist() == [2, 0]


# --- priority -----------------------------------------------------------------------------------------------------------


def test_the_terms_one_by_one() -> None:
    lookback = (Month(2025, 1).end - Month(2023, 2).start).days  # 24 months to the end of January
    cells = [
        Cell(held={1}, since=30),
        Cell(held={1}, since=30, ingestable={5}),
        Cell(held={16}, since=15, ingestable={5, 6, 7}),
        Cell(since=lookback),  # never held
        Cell(since=NAN),
    ]
    priorities = [p for _, _, p in gap_of(cells, 2)]
    assert priorities == pytest.approx(
        [
            0.4 * 1 / 2 + 0.3 * 30 / lookback + 0.1 * 30 / 31,
            0.4 * 1 / 2 + 0.3 * 30 / lookback + 0.2 + 0.1 * 30 / 31,
            0.4 * 1 / 2 + 0.3 * 15 / lookback + 0.2 + 0.1 * 15 / 31,
            0.4 + 0.3 + 0.1,
            0.4 + 0.3 + 0.1,
        ],
        abs=1e-6,
    )


@pytest.mark.parametrize("lookback", [1, 3, 24])
@pytest.mark.parametrize("month", [JANUARY, FEBRUARY, Month(2023, 12)])
def test_never_held_is_a_full_staleness_term_in_every_month(lookback: int, month: Month) -> None:
    """What is found nowhere in the lookback is as old as the lookback, whose length in days is not always the same."""
    ds = dataset([Cell(since=(month.end - month.shift(1 - lookback).start).days)], month=month)
    ds.attrs["settings"] = json.dumps({"lookback_months": lookback})
    weights = {"deficit": 0.0, "staleness": 1.0, "unmet": 0.0, "wait": 0.0}
    assert compute_gap(ds, DesiredCadence(), weights=weights)["priority_score"].item() == 1


def test_weights_and_lookback_can_be_given() -> None:
    weights = {"deficit": 0.0, "staleness": 1.0, "unmet": 0.0, "wait": 0.0}
    made = compute_gap(dataset([Cell(since=50)]), DesiredCadence(), weights=weights, lookback_days=200)
    assert made["priority_score"].item() == 0.25


def plain(cell: Cell, desired: float, days: int, lookback: float, scan: str, holdings: str, taskable: bool) -> tuple[str, float, float]:
    """Design section 4, read aloud."""
    held = set() if holdings == "not_held" else cell.held
    if not cell.in_scope:
        return "out_of_scope", 0, 0
    if holdings in ("off", "not_read") or held is None:
        return "unknown", NAN, NAN
    deficit = math.ceil(max(0, desired - len(held)))
    if deficit == 0:
        return "met", 0, 0
    absent = scan == "not_applicable"
    if scan == "complete":
        absent = cell.ingestable is not None and cell.check is not None and not math.isnan(cell.scenes)
    if cell.ingestable:
        what = "ingest"
    elif cell.check:
        what = "check"
    elif absent:
        what = "task" if taskable else "none"
    else:
        return "unknown", deficit, NAN
    longest = run = 0
    for day in range(1, days + 1):
        run = 0 if day in held else run + 1
        longest = max(longest, run)
    never = holdings == "not_held" or math.isnan(cell.since)
    score = (
        0.4 * min(1, deficit / desired)
        + 0.3 * (1 if never else min(1, cell.since / lookback))
        + 0.2 * min(1, len(cell.ingestable or ()) / deficit)
        + 0.1 * longest / days
    )
    return what, deficit, score


DAYS = st.sets(st.integers(1, 28), max_size=6)
MAYBE_DAYS = st.one_of(st.none(), DAYS)
CELLS = st.builds(
    Cell,
    held=MAYBE_DAYS,
    ingestable=MAYBE_DAYS,
    check=MAYBE_DAYS,
    since=st.one_of(st.just(NAN), st.integers(0, 900).map(float)),
    scenes=st.one_of(st.just(NAN), st.integers(0, 9).map(float)),
    in_scope=st.booleans(),
)


@given(
    st.lists(CELLS, min_size=1, max_size=12),
    st.sampled_from(["emit", "landsat-8-9", "sentinel-2", "prisma"]),
    st.sampled_from([Month(2024, 2), FEBRUARY, JANUARY, Month(2025, 4)]),
    st.integers(0, 16).map(lambda n: n / 2),
    st.sampled_from(SCAN_STATUS),
    st.sampled_from(HOLDINGS_STATUS),
)
@example([Cell(held=set(range(1, 29)), ingestable={28})], "emit", FEBRUARY, 29.0, "complete", "read")
@settings(max_examples=150, deadline=None)
def test_every_cell_agrees_with_plain_python(
    cells: list[Cell], sensor: str, month: Month, desired: float, scan: str, holdings: str
) -> None:
    found = gap_of(cells, desired, sensor=sensor, month=month, scan=scan, holdings=holdings)
    lookback = (month.end - month.shift(1 - LOOKBACK).start).days
    taskable = sensor in ("emit", "prisma")
    for cell, (what, deficit, priority) in zip(cells, found, strict=True):
        expected = plain(cell, desired, month.days, lookback, scan, holdings, taskable)
        assert what == expected[0]
        assert deficit == pytest.approx(expected[1], nan_ok=True)
        assert priority == pytest.approx(expected[2], abs=1e-6, nan_ok=True)
        assert math.isnan(priority) or 0 <= priority <= 1 + 1e-6
        assert (what == "unknown") == math.isnan(priority)


# --- what must be there, and what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unmet_supply", "ingestable_days", "check_days", "held_clear_days", "days_since_last_held"])
def test_counts_alone_cannot_give_a_gap(name: str) -> None:
    with pytest.raises(GapError, match=f"the dataset lacks {name}: counts alone cannot tell") as error:
        compute_gap(dataset([NOTHING]).drop_vars(name), DesiredCadence())
    assert isinstance(error.value, CoverageError)


def test_without_statuses_and_scope_a_dataset_counts_as_whole() -> None:
    bare = ["in_scope", "scan_status", "holdings_status", "scenes_count"]
    cells = [NOTHING, EVERYTHING, Cell(held=None), Cell(ingestable=None, check=None)]
    made = compute_gap(dataset(cells).drop_vars(bare), DesiredCadence())
    assert [ACTIONS[int(a)] for a in made["action"].values.reshape(-1)] == ["task", "ingest", "unknown", "unknown"]


def test_a_sensor_nobody_declared_is_refused() -> None:
    with pytest.raises(CoverageError, match=r"no desired cadence for sensor 'mine'.*gap\.desired"):
        compute_gap(dataset([NOTHING], sensor="mine"), DesiredCadence())
    assert action(NOTHING, 2, sensor="mine") == "none"  # with a cadence it is one that cannot be pointed


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "got none"),
        ({"deficit": 1.0}, "weights must be deficit, staleness, unmet, wait"),
        ({**DEFAULT_WEIGHTS, "more": 0.0}, "weights must be deficit, staleness, unmet, wait"),
        ({**DEFAULT_WEIGHTS, "wait": 0.2}, r"sum 1\.1"),
        ({"deficit": 1.2, "staleness": -0.2, "unmet": 0.0, "wait": 0.0}, "not be negative"),
        ({**DEFAULT_WEIGHTS, "wait": NAN}, "not be negative"),
    ],
)
def test_wrong_weights_are_refused(weights: dict[str, float], message: str) -> None:
    for use in (check_weights, lambda w: compute_gap(dataset([NOTHING]), DesiredCadence(), weights=w)):
        with pytest.raises(GapError, match=message):
            use(weights)


def test_the_default_weights_are_accepted_in_any_order() -> None:
    assert check_weights(dict(reversed(list(DEFAULT_WEIGHTS.items())))) == DEFAULT_WEIGHTS
    assert sum(DEFAULT_WEIGHTS.values()) == pytest.approx(1)


def test_what_comes_out_is_described_and_the_input_untouched() -> None:
    ds = dataset([NOTHING, EVERYTHING])
    before = ds.copy(deep=True)
    made = compute_gap(ds, DesiredCadence())
    xr.testing.assert_identical(ds, before)
    assert made["action"].dtype == np.uint8
    assert made["deficit"].dtype == made["priority_score"].dtype == np.float32
    assert made["action"].attrs["flag_meanings"].split()[int(made["action"][0, 0, 0, 1])] == "ingest"
    assert made["action"].dims == made["deficit"].dims == ("sensor", "time", "lat", "lon")
    assert (made["taskable"].values.tolist(), made["desired"].values.tolist()) == ([1], [[2]])
    assert made["deficit"].attrs["units"] == "1"


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(["emit", "landsat-8-9", "sentinel-2"]))
    states = [("complete", "read"), ("partial", "read"), ("complete", "not_held"), ("complete", "off"), ("not_applicable", "read")]
    for number, (scan, holdings) in enumerate(states):
        sensor, month = ["emit", "landsat-8-9", "sentinel-2"][number % 3], [JANUARY, FEBRUARY][number // 3]
        write_partition(path, sensor, month, random_fields(number), scan=scan, holdings=holdings)
    return path


def test_lazy_in_lazy_out_and_equal_to_eager(cube: Path) -> None:
    lazy = open_coverage(cube).drop_vars(["deficit", "priority_score", "action"])
    made = compute_gap(lazy, DesiredCadence())
    for name in ("deficit", "priority_score", "action"):
        assert made[name].chunks is not None, name
    eager = compute_gap(lazy.load(), DesiredCadence())
    assert eager["deficit"].chunks is None
    for name in ("deficit", "priority_score", "action"):
        assert np.array_equal(made[name], eager[name], equal_nan=True), name
        assert made[name].dtype == eager[name].dtype, name


def test_the_gap_in_the_cube_is_the_gap_of_the_cube(cube: Path) -> None:
    """Materialised partition by partition, or computed on read: the same."""
    there = open_coverage(cube).load()
    made = compute_gap(there, DesiredCadence())
    written = there["gap_revision"].values != 0
    assert written.sum() == 5
    for name in ("deficit", "priority_score", "action"):
        assert np.array_equal(made[name].values[written], there[name].values[written], equal_nan=True), name
    assert len(np.unique(made["action"])) >= 4
    assert set(GAP_INPUTS) < set(there)
