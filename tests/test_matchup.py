"""Which scenes we hold: one holding a scene, the best pair first; and what exists and is not held is a difference of sets."""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from coverage_pipeline.catalog.scenes import SCENES_SCHEMA, SceneCollector
from coverage_pipeline.celltable import known_area
from coverage_pipeline.daymask import UNKNOWN, is_known
from coverage_pipeline.geoparquet import as_geoparquet
from coverage_pipeline.grid import GridSpec
from coverage_pipeline.holdings import HOLDINGS_SCHEMA, LAST_SCHEMA, holdings_fields, holdings_table
from coverage_pipeline.matchup import MATCHUP_SCHEMA, match_month, match_scenes, unheld_fields
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.sensors import COVERAGE_SENSORS
from coverage_pipeline.store import Store, read_parquet, write_parquet
from tests.shared_data import read_items

JANUARY = Month(2025, 1)
NOON = dt.datetime(2025, 1, 15, 12, tzinfo=UTC)
EMIT, PRISMA = COVERAGE_SENSORS["emit"], COVERAGE_SENSORS["prisma"]
HERE = shapely.box(5, 50, 7, 52)


def seconds(number: float) -> dt.timedelta:
    return dt.timedelta(seconds=number)


def scene(key: str, when: dt.datetime = NOON, shape: Any = HERE, cloud: float | None = 3.0) -> dict[str, Any]:
    return {
        "scene_key": key,
        "item_ids": [key],
        "acquired": when,
        "pass_time": when,
        "in_month": True,
        "cloud_cover": cloud,
        "geometry_source": "footprint",
        "geometry": shapely.to_wkb(shape),
    }


def holding(
    when: dt.datetime = NOON,
    shape: Any = HERE,
    *,
    key: str | None = None,
    date_only: bool = False,
    in_month: bool = True,
    cloud: float | None = 3.0,
) -> dict[str, Any]:
    return {
        "scene_id": key,
        "scene_key": key,
        "datetime": when,
        "date_only": date_only,
        "sensor": "EMIT",
        "cloud": cloud,
        "in_month": in_month,
        "geometry": shapely.to_wkb(shape),
    }


def scenes_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCENES_SCHEMA)


def holdings_rows(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([{"holding": f"h{k}", **row} for k, row in enumerate(rows)], schema=HOLDINGS_SCHEMA)


def held_by(scenes: list[dict[str, Any]], holdings: list[dict[str, Any]], **how: Any) -> list[int]:
    """For each scene the number of the holding that is it, −1: not held."""
    match = match_scenes(scenes_table(scenes), holdings_rows(holdings), **how)
    return match.holding_of_scene.tolist()


# The rules


def test_a_key_decides_whatever_time_and_place_say() -> None:
    far = shapely.box(100, 0, 101, 1)
    scenes = [scene("a"), scene("b")]
    assert held_by(scenes, [holding(NOON + seconds(9_999), far, key="b")]) == [-1, 0]
    # a holding whose key no scene has is another scene, however alike it looks
    assert held_by(scenes, [holding(key="c")]) == [-1, -1]


def test_a_scene_that_its_key_took_is_no_longer_free() -> None:
    match = match_scenes(scenes_table([scene("a"), scene("b")]), holdings_rows([holding(), holding(key="a")]))
    assert match.holding_of_scene.tolist() == [1, 0]
    assert match.by_key.tolist() == [True, False]
    assert np.isnan(match.iou[0])
    assert match.iou[1] == 1


def test_a_scene_held_twice_is_one_scene_held() -> None:
    match = match_scenes(scenes_table([scene("a")]), holdings_rows([holding(key="a"), holding(key="a")]))
    assert match.holding_of_scene[0] in (0, 1)
    assert match.holding_matched.all()  # neither is missing from the catalogue


@pytest.mark.parametrize(
    ("apart", "tolerance", "found"),
    [(60.0, 60.0, True), (60.000001, 60.0, False), (-60.0, 60.0, True), (-60.000001, 60.0, False), (0.1, 0.1, True), (0.0, 0.0, True)],
)
@pytest.mark.parametrize("when", [NOON, NOON + dt.timedelta(microseconds=123_457)])
def test_the_tolerance_is_inclusive_to_the_microsecond(when: dt.datetime, apart: float, tolerance: float, found: bool) -> None:
    rows = [scene("a", when)], [holding(when + seconds(apart))]
    assert held_by(*rows, tolerance_seconds=tolerance) == [0 if found else -1]


@pytest.mark.parametrize(
    ("east", "found"),
    [
        (5 + 2 / 3, True),  # 2°-wide boxes shifted by two thirds overlap in half of what they cover together
        (5 + 2 / 3 + 1e-6, False),
    ],
)
def test_footprints_must_share_half_of_what_they_cover(east: float, found: bool) -> None:
    shifted = shapely.box(east, 50, east + 2, 52)
    assert held_by([scene("a")], [holding(shape=shifted)], min_iou=0.5 - 1e-12) == [0 if found else -1]


def test_a_crop_over_a_site_does_not_hold_its_scene() -> None:
    assert held_by([scene("a")], [holding(shape=shapely.box(5.5, 50.5, 6, 51))]) == [-1]


def test_one_holding_is_one_scene_the_best_first() -> None:
    near, better = shapely.box(5.2, 50, 7.2, 52), shapely.box(5.1, 50, 7.1, 52)
    assert held_by([scene("a", shape=near), scene("b", shape=better)], [holding()]) == [-1, 0]
    # the holding that fits a scene best has it; the other takes what is left
    assert held_by([scene("a", shape=near), scene("b")], [holding(shape=better), holding()]) == [0, 1]
    # footprints alike: the nearer in time
    assert held_by([scene("a", NOON + seconds(20)), scene("b", NOON + seconds(10))], [holding()]) == [-1, 0]


def test_days_without_a_time_match_on_their_utc_day_alone() -> None:
    day = dt.datetime(2025, 1, 15, tzinfo=UTC)
    first, last, after = day, day + seconds(86_399.999999), day + dt.timedelta(days=1)
    before = day - dt.timedelta(microseconds=1)
    scenes = [scene(str(k), when) for k, when in enumerate((before, first, last, after))]
    match = match_scenes(scenes_table(scenes), holdings_rows([holding(day, date_only=True), holding(day, date_only=True)]))
    assert match.holding_of_scene.tolist() == [-1, 0, 1, -1]
    # a time is a time, at midnight too
    assert held_by(scenes[:1], [holding(day)]) == [0]
    assert held_by(scenes[:1], [holding(day, date_only=True)]) == [-1]


def test_nothing_to_match_on_either_side() -> None:
    assert held_by([], [holding()]) == []
    assert held_by([scene("a")], []) == [-1]


# Against a slow, plain reading of the rules


def _oracle(
    scenes: list[dict[str, Any]], holdings: list[dict[str, Any]], boxes: dict[bytes, tuple[int, ...]], tolerance: Fraction
) -> list[int]:
    """Keys first; then all pairs, taken one at a time, the best of those left each time. Exact arithmetic on whole degrees."""
    of_scene = [-1] * len(scenes)
    for h, held in enumerate(holdings):
        for s, one in enumerate(scenes):
            if held["scene_key"] is not None and held["scene_key"] == one["scene_key"]:
                of_scene[s] = h
    pairs = []
    for h, held in enumerate(holdings):
        if held["scene_key"] is not None:
            continue
        for s, one in enumerate(scenes):
            if of_scene[s] >= 0:
                continue
            apart = abs(held["datetime"] - one["acquired"])
            if held["date_only"]:
                if held["datetime"].date() != one["acquired"].date():
                    continue
            elif Fraction(apart // dt.timedelta(microseconds=1), 1_000_000) > tolerance:
                continue
            a, b = boxes[held["geometry"]], boxes[one["geometry"]]
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            common = max(width, 0) * max(height, 0)
            both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
            if Fraction(common, both) >= Fraction(1, 2):
                pairs.append((-Fraction(common, both), apart, h, s))
    taken: set[int] = set()
    for _, _, h, s in sorted(pairs):
        if h not in taken and of_scene[s] < 0:
            of_scene[s] = h
            taken.add(h)
    return of_scene


_boxes = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(2, 5), st.integers(2, 5)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
# Around a midnight, and whole seconds as often as odd microseconds, so that edges are met
_times = st.one_of(
    st.integers(-90, 90).map(lambda s: dt.datetime(2025, 1, 15, tzinfo=UTC) + seconds(s)),
    st.integers(-90_000_000, 90_000_000).map(lambda us: dt.datetime(2025, 1, 15, tzinfo=UTC) + dt.timedelta(microseconds=us)),
)


@settings(max_examples=200, deadline=None)
@given(
    scenes=st.lists(st.tuples(_times, _boxes), max_size=9),
    holdings=st.lists(st.tuples(_times, _boxes, st.one_of(st.none(), st.integers(0, 12)), st.booleans()), max_size=9),
    tolerance=st.sampled_from([Fraction(0), Fraction(1, 10), Fraction(30), Fraction(60)]),
)
def test_matches_are_those_of_the_plain_reading(scenes: list[Any], holdings: list[Any], tolerance: Fraction) -> None:
    boxes = {shapely.to_wkb(shapely.box(*b)): b for _, b, *_ in [*scenes, *holdings]}
    available = [scene(str(k), when, shapely.box(*b)) for k, (when, b) in enumerate(scenes)]
    held = []
    for when, b, number, is_day in holdings:
        key = None if number is None or any(h["scene_key"] == str(number) for h in held) else str(number)
        if is_day:
            when = dt.datetime(when.year, when.month, when.day, tzinfo=UTC)
        held.append(holding(when, shapely.box(*b), key=key, date_only=is_day))
    match = match_scenes(scenes_table(available), holdings_rows(held), tolerance_seconds=float(tolerance))
    expected = _oracle(available, held, boxes, tolerance)
    assert match.holding_of_scene.tolist() == expected
    assert set(np.flatnonzero(match.holding_matched)) == {h for h in expected if h >= 0}


# Real Sentinel-2 tiles


@cache
def _tiles() -> pa.Table:
    collector = SceneCollector(COVERAGE_SENSORS["sentinel-2"])
    collector.add(read_items("planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet"))
    return collector.finish()


def _as_holdings(scenes: pa.Table, which: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Those scenes as holdings without ids: their outlines a little smaller, their times some seconds off, in any order."""
    rows = scenes.take(pa.array(rng.permutation(which))).to_pylist()
    shapes = shapely.buffer(shapely.from_wkb([row["geometry"] for row in rows]), -0.01)
    return holdings_rows([holding(row["acquired"] + seconds(rng.uniform(-20, 20)), shape) for row, shape in zip(rows, shapes, strict=True)])


def test_real_neighbouring_tiles_are_never_taken_for_each_other() -> None:
    scenes, rng = _tiles(), np.random.default_rng(1)
    # slivers at the swath's edge vanish when their outline shrinks: they are no tiles to hold
    large = np.flatnonzero(shapely.area(shapely.from_wkb(scenes["geometry"].to_numpy(zero_copy_only=False))) > 0.3)
    assert len(large) > 800
    mine = np.sort(rng.choice(large, len(large) // 2, replace=False))
    match = match_scenes(scenes, _as_holdings(scenes, mine, rng))
    assert np.array_equal(np.flatnonzero(match.holding_of_scene >= 0), mine)
    assert match.holding_matched.all()


def test_a_real_tile_that_is_missing_is_not_found_in_its_neighbours() -> None:
    # Of one UTM zone: where two zones meet, their tiles lie on top of each other (0.93 of 13TGF and 14TKL), and only ids tell them apart.
    zone = _tiles().filter(pa.compute.match_substring(_tiles()["scene_key"], "_T13"))
    shapes = shapely.from_wkb(zone["geometry"].to_numpy(zero_copy_only=False))
    whole = np.flatnonzero(shapely.area(shapes) > 1.0)
    rng = np.random.default_rng(2)
    mine = np.sort(rng.choice(whole, len(whole) // 2, replace=False))
    others = zone.take(pa.array(np.setdiff1d(np.arange(zone.num_rows), mine)))
    near = shapely.STRtree(shapes[mine]).query(shapely.from_wkb(others["geometry"].to_numpy(zero_copy_only=False)))
    assert near.shape[1] > 1000  # they do overlap
    match = match_scenes(others, _as_holdings(zone, mine, rng))
    assert not (match.holding_of_scene >= 0).any()


# A month of a store


GRID = GridSpec(30.0)


def cell_box(row: int, column: int, rows: int = 1, columns: int = 1) -> Any:
    """The outline of cells of ``GRID``, and of no others."""
    west, south = -180 + 30 * column, -90 + 30 * row
    return shapely.box(west, south, west + 30 * columns, south + 30 * rows)


def month_of(
    folder: Path,
    scenes: list[dict[str, Any]],
    holdings: list[dict[str, Any]],
    *,
    scan: str = "complete",
    status: str = "read",
    bbox: list[float] | None = None,
    sensor: Any = EMIT,
) -> tuple[Store, dict[str, Any]]:
    """A store with a scan and an extract of January, matched."""
    store = Store.below(folder)
    rows = scenes_table(scenes)
    write_parquet(store.scenes(sensor.key, JANUARY), as_geoparquet(rows), {"run": "a scan", "status": scan, "bbox": bbox})
    write_parquet(store.holdings(sensor.key, JANUARY), as_geoparquet(holdings_rows(holdings)), {"run": "an extract", "status": status})
    return store, match_month(sensor, JANUARY, store, GRID, cloud_lt=10)


def matched(store: Store, sensor: Any = EMIT) -> list[dict[str, Any]]:
    table, _ = read_parquet(store.matchup(sensor.key, JANUARY))
    assert table.schema.equals(MATCHUP_SCHEMA)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_the_matchup_table_says_by_which_rule(tmp_path: Path) -> None:
    scenes = [scene("a"), scene("b", NOON + seconds(3_600)), scene("c", NOON + seconds(7_200))]
    store, metadata = month_of(tmp_path, scenes, [holding(NOON + seconds(3_610.1)), holding(key="a")])
    assert matched(store) == [
        {"scene_key": "a", "held": True, "holding": "h1", "rule": "key", "iou": None, "seconds_apart": None},
        {"scene_key": "b", "held": True, "holding": "h0", "rule": "footprint", "iou": 1.0, "seconds_apart": 10.1},
        {"scene_key": "c", "held": False, "holding": None, "rule": None, "iou": None, "seconds_apart": None},
    ]
    assert (metadata["scenes"], metadata["held"], metadata["held_by_key"], metadata["held_not_in_catalog"]) == (3, 2, 1, 0)


def test_a_holding_just_before_the_month_holds_its_scene_but_is_not_of_the_month(tmp_path: Path) -> None:
    early = JANUARY.start - seconds(30)
    scenes = [scene("a", JANUARY.start)]
    store, metadata = month_of(tmp_path, scenes, [holding(early, in_month=False), holding(early - seconds(20), in_month=False)])
    assert metadata["held"] == 1
    assert metadata["held_not_in_catalog"] == 0  # the one that found nothing is of December
    held, _ = read_parquet(store.holdings("emit", JANUARY))
    assert holdings_table(held, LAST_SCHEMA.empty_table(), GRID, cloud_lt=10).num_rows == 0
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    assert unheld.num_rows == 0


def test_holdings_no_catalogue_lists_are_counted_apart_and_never_subtracted(tmp_path: Path) -> None:
    cell = cell_box(3, 6)
    unlisted = [holding(NOON + dt.timedelta(hours=k), cell) for k in range(5)]
    store, metadata = month_of(tmp_path, [scene("a", NOON - dt.timedelta(days=3), cell)], unlisted)
    assert metadata["held_not_in_catalog"] == 5
    assert metadata["held"] == 0
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    fields = unheld_fields(unheld, GRID, known_area("complete", None, GRID), np.zeros(GRID.shape, np.uint32))
    assert fields["unmet_supply"][3, 6] == 1  # five holdings more than scenes: still one scene not held
    assert (fields["unmet_supply"] >= 0).all()


def test_holdings_outside_a_scanned_box_are_not_missing_from_the_catalogue(tmp_path: Path) -> None:
    holdings = [holding(shape=cell_box(3, 6)), holding(shape=cell_box(0, 0)), holding(shape=cell_box(3, 11)), holding(shape=cell_box(3, 0))]
    for name, bbox, count in [("a", [0, 0, 30, 30], 1), ("b", [165, 5, -165, 25], 2), ("c", None, 4)]:
        _, metadata = month_of(tmp_path / name, [], holdings, bbox=bbox)
        assert metadata["held_not_in_catalog"] == count, name


def test_a_sensor_without_catalogue_has_no_number_of_unlisted_holdings(tmp_path: Path) -> None:
    store, metadata = month_of(tmp_path, [], [holding()], scan="not_applicable", sensor=PRISMA)
    assert metadata["held_not_in_catalog"] is None
    assert matched(store, PRISMA) == []


def test_without_holdings_nothing_is_known_of_what_is_held(tmp_path: Path) -> None:
    store, metadata = month_of(tmp_path, [scene("a")], [], status="off")
    assert matched(store)[0]["held"] is None
    assert (metadata["held"], metadata["held_by_key"], metadata["held_not_in_catalog"]) == (None, None, None)
    assert read_parquet(store.stats("unheld", "emit", JANUARY))[0].num_rows == 0


def test_a_sensor_we_do_not_hold_lacks_every_scene(tmp_path: Path) -> None:
    store, metadata = month_of(tmp_path, [scene("a")], [], status="not_held")
    assert matched(store)[0]["held"] is False
    assert metadata["held"] == 0
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    fields = unheld_fields(unheld, GRID, known_area("complete", None, GRID), np.full(GRID.shape, UNKNOWN))
    assert fields["unmet_supply"].sum() == 1
    assert fields["ingestable_days"].max() == 1 << 14


def test_an_empty_month_is_zero_and_a_month_not_scanned_is_not_known(tmp_path: Path) -> None:
    store, _ = month_of(tmp_path, [], [])
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    none_held = np.zeros(GRID.shape, np.uint32)
    scanned = unheld_fields(unheld, GRID, known_area("complete", None, GRID), none_held)
    assert all((scanned[name] == 0).all() for name in ("unmet_supply", "ingestable_days", "check_days"))
    not_scanned = unheld_fields(unheld, GRID, known_area("not_scanned", None, GRID), none_held)
    assert (not_scanned["unmet_supply"] == -1).all()
    assert (not_scanned["ingestable_days"] == UNKNOWN).all()
    assert (not_scanned["check_days"] == UNKNOWN).all()


# What downloading would add, against sets of days kept cell by cell

_cells = st.tuples(st.integers(0, 4), st.integers(0, 10), st.integers(1, 2), st.integers(1, 2))
_clouds = st.sampled_from([0.0, 9.99, 10.0, 80.0, None])
_days = st.integers(1, 5)


@settings(max_examples=60, deadline=None)
@given(
    scenes=st.lists(st.tuples(_days, _cells, _clouds), max_size=8),
    held_of_them=st.sets(st.integers(0, 7)),
    crops=st.lists(st.tuples(_days, _cells, _clouds), max_size=4),
    area=st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(1, 2), st.integers(1, 3))),
)
def test_masks_are_what_sets_of_days_say(
    scenes: list[Any], held_of_them: set[int], crops: list[Any], area: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def on(day: int, k: int) -> dt.datetime:
        return dt.datetime(2025, 1, day, k, tzinfo=UTC)

    available = [scene(f"s{k}", on(day, k), cell_box(*cells), cloud) for k, (day, cells, cloud) in enumerate(scenes)]
    held_of_them = {k for k in held_of_them if k < len(scenes)}
    held = [holding(on(scenes[k][0], k), cell_box(*scenes[k][1]), key=f"s{k}", cloud=scenes[k][2]) for k in sorted(held_of_them)]
    held += [holding(on(day, 20), cell_box(*cells), key=f"crop{k}", cloud=cloud) for k, (day, cells, cloud) in enumerate(crops)]
    bbox = None if area is None else list(cell_box(*area).bounds)
    store, metadata = month_of(tmp_path_factory.mktemp("month"), available, held, bbox=bbox)

    extract, _ = read_parquet(store.holdings("emit", JANUARY))
    acquired = holdings_fields(holdings_table(extract, LAST_SCHEMA.empty_table(), GRID, cloud_lt=10), GRID, "read", JANUARY, 24)
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    fields = unheld_fields(unheld, GRID, known_area("complete", bbox, GRID), acquired["held_clear_days"])

    def covers(cells: tuple[int, ...], row: int, column: int) -> bool:
        return cells[0] <= row < cells[0] + cells[2] and cells[1] <= column < cells[1] + cells[3]

    def mask(days: set[int]) -> int:
        return sum(1 << (day - 1) for day in days)

    for row in range(GRID.shape[0]):
        for column in range(GRID.shape[1]):
            found = {name: int(values[row, column]) for name, values in fields.items()}
            if area is not None and not covers(area, row, column):
                assert found == {"unmet_supply": -1, "ingestable_days": int(UNKNOWN), "check_days": int(UNKNOWN)}
                continue
            here = [(k, day, cloud) for k, (day, cells, cloud) in enumerate(scenes) if covers(cells, row, column)]
            lacking = [(day, cloud) for k, day, cloud in here if k not in held_of_them]
            we_hold = [(day, cloud) for k, day, cloud in here if k in held_of_them]
            we_hold += [(day, cloud) for day, cells, cloud in crops if covers(cells, row, column)]
            clear_held = {day for day, cloud in we_hold if cloud is not None and cloud < 10}
            clear_lacking = [day for day, cloud in lacking if cloud is not None and cloud < 10]
            ingest = set(clear_lacking) - clear_held
            check = {day for day, cloud in lacking if cloud is None} - clear_held - ingest
            assert found == {"unmet_supply": len(clear_lacking), "ingestable_days": mask(ingest), "check_days": mask(check)}
    known = is_known(fields["ingestable_days"])
    assert not (fields["ingestable_days"] & fields["check_days"])[known].any()
    assert metadata["held"] == len(held_of_them)
