"""Which scenes we hold: one holding a scene, the best pair first; and what exists and is not held is a difference of sets."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.geometry.polygons import united
from coverage_pipeline.grid.celltable import DAYS, AreaKnown, dense
from coverage_pipeline.grid.daymask import UNKNOWN, is_known
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HoldingsMetadata
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA, LAST_SCHEMA, place_rows
from coverage_pipeline.holdings.statistics import holdings_fields
from coverage_pipeline.holdings.united import mean_by_area
from coverage_pipeline.matchup.held_cells import write_holdings_stats
from coverage_pipeline.matchup.match import Match, match_scenes
from coverage_pipeline.matchup.metadata import MatchupMetadata
from coverage_pipeline.matchup.month import MATCHUP_SCHEMA, match_month
from coverage_pipeline.matchup.unheld import unheld_fields
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.scenes.items import SceneCollector
from coverage_pipeline.scenes.scene_key import scene_key
from coverage_pipeline.scenes.schema import SCENES_SCHEMA, SCENES_VERSION
from coverage_pipeline.scenes.statistics import known_area
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet, write_parquet
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
        "in_month": JANUARY.start <= when < JANUARY.end,
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
        "pass_time": when,
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
    """For each scene the number of the first holding that belongs to it, −1: none does."""
    how.setdefault("family", "emit")
    return first_holdings(match_scenes(scenes_table(scenes), holdings_rows(holdings), **how))


def first_holdings(match: Match) -> list[int]:
    return [next(iter(np.flatnonzero(match.scene_of_holding == s).tolist()), -1) for s in range(len(match.share))]


# The rules


def test_a_key_decides_whatever_time_and_place_say() -> None:
    far = shapely.box(100, 0, 101, 1)
    scenes = [scene("a"), scene("b")]
    assert held_by(scenes, [holding(NOON + seconds(9_999), far, key="b")]) == [-1, 0]
    # a holding whose key no scene has is another scene, however alike it looks
    assert held_by(scenes, [holding(key="c")]) == [-1, -1]


def test_a_scene_that_its_key_took_is_no_longer_free() -> None:
    near = NOON + seconds(1)  # not the same time: rows of one time and footprint are one holding
    match = match_scenes(scenes_table([scene("a"), scene("b")]), holdings_rows([holding(near), holding(key="a")]), family="emit")
    assert match.scene_of_holding.tolist() == [1, 0]
    assert match.by_key.tolist() == [False, True]
    assert np.isnan(match.iou[1])
    assert match.iou[0] == 1


def test_a_scene_held_twice_is_one_scene_held() -> None:
    match = match_scenes(scenes_table([scene("a")]), holdings_rows([holding(key="a"), holding(key="a")]), family="emit")
    assert match.scene_of_holding.tolist() == [0, 0]  # neither is missing from the catalogue
    assert match.counts.tolist() == [True, False]


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
    beside = shapely.box(5, 50, 7.01, 52)
    match = match_scenes(scenes_table(scenes), holdings_rows([holding(day, date_only=True), holding(day, beside, date_only=True)]))
    assert first_holdings(match) == [-1, 0, 1, -1]
    # a time is a time, at midnight too
    assert held_by(scenes[:1], [holding(day)]) == [0]
    assert held_by(scenes[:1], [holding(day, date_only=True)]) == [-1]


def test_nothing_to_match_on_either_side() -> None:
    assert held_by([], [holding()]) == []
    assert held_by([scene("a")], []) == [-1]


# Against a slow, plain reading of the rules


def _shared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _oracle(
    scenes: list[dict[str, Any]], holdings: list[dict[str, Any]], boxes: dict[bytes, tuple[int, ...]], tolerance: Fraction
) -> list[int]:
    """The scene of each holding. Repetitions first, then keys; then all pairs, taken one at a time, the best of those left each time.

    Exact arithmetic on whole degrees. All outlines are boxes: a scene is held whole where its boxes agree by nine tenths.
    """

    def alike(g: int, h: int) -> bool:
        return all(holdings[g][n] == holdings[h][n] for n in ("datetime", "date_only", "geometry"))

    def group(h: int) -> str | None:
        """Keys tell the passes of one date apart; a row without one counts with the first key of its kind."""
        if not holdings[h]["date_only"]:
            return None
        own = holdings[h]["scene_key"]
        return own or next((holdings[g]["scene_key"] for g in range(len(holdings)) if alike(g, h) and holdings[g]["scene_key"]), None)

    same = [next(g for g in range(h + 1) if alike(g, h) and group(g) == group(h)) for h in range(len(holdings))]
    listed = [one["scene_key"] for one in scenes]
    key = {}
    for h in set(same):
        ids = [holdings[g]["scene_key"] for g in range(len(holdings)) if same[g] == h and holdings[g]["scene_key"] is not None]
        key[h] = next((k for k in ids if k in listed), next(iter(ids), None))  # under two ids: the one that the catalogue lists
    of_holding = {h: next((s for s, one in enumerate(scenes) if one["scene_key"] == key[h]), -1) for h in key}
    closed = set()
    for s, one in enumerate(scenes):
        ours = [boxes[holdings[h]["geometry"]] for h in key if of_holding[h] == s]
        b = boxes[one["geometry"]]
        if ours:
            union = shapely.union_all([shapely.box(*o) for o in ours])
            box = tuple(int(v) for v in union.bounds)
            both = (b[2] - b[0]) * (b[3] - b[1]) + (box[2] - box[0]) * (box[3] - box[1]) - _shared(b, box)
            share = union.intersection(shapely.box(*b)).area / shapely.box(*b).area
            # whole degrees: nothing that is missing is narrower than two kilometres, and shares lie far from nine tenths but at 1
            if share > 0.99 or Fraction(_shared(b, box), both) >= Fraction(9, 10):
                closed.add(s)
    pairs = []
    for h in key:
        held = holdings[h]
        if key[h] is not None:
            continue
        for s, one in enumerate(scenes):
            if s in closed:
                continue
            apart = abs(held["datetime"] - one["acquired"])
            if held["date_only"]:
                if held["datetime"].date() != one["acquired"].date():
                    continue
            elif Fraction(apart // dt.timedelta(microseconds=1), 1_000_000) > tolerance:
                continue
            a, b = boxes[held["geometry"]], boxes[one["geometry"]]
            common = _shared(a, b)
            both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
            if Fraction(common, both) >= Fraction(1, 2):
                pairs.append((-Fraction(common, both), apart, h, s))
    taken: set[int] = set()
    for _, _, h, s in sorted(pairs):
        if of_holding[h] < 0 and s not in taken:
            of_holding[h] = s
            taken.add(s)
    return [of_holding[same[h]] for h in range(len(holdings))]


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
    match = match_scenes(scenes_table(available), holdings_rows(held), family="emit", tolerance_seconds=float(tolerance))
    expected = _oracle(available, held, boxes, tolerance)
    assert match.scene_of_holding.tolist() == expected


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
    match = match_scenes(scenes, _as_holdings(scenes, mine, rng), family="sentinel-2")
    assert np.array_equal(np.sort(match.scene_of_holding), mine)
    assert match.whole[mine].all()  # a kilometre off at the edges is how outlines are drawn
    assert match.whole.sum() == len(mine)


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
    match = match_scenes(others, _as_holdings(zone, mine, rng), family="sentinel-2")
    assert not (match.scene_of_holding >= 0).any()


# A month of a store


GRID = GridSpec(30.0)
SCANNED = {
    "run": "a scan", "scanned_at": "2025-03-01T00:00:00Z", "version": SCENES_VERSION, "sensor": "emit",
    "start": "2025-01-01T00:00:00Z", "end": "2025-02-01T00:00:00Z", "provider": "example.org", "scenes": 0,
}  # fmt: skip
EXTRACT = HoldingsMetadata(
    sensor="emit",
    month="2025-01",
    status="read",
    read_at="2025-03-01T00:00:00Z",
    run="an extract",
    source="a file",
    reason="",
    lookback_months=24,
)


NONE = np.zeros(GRID.shape, np.uint32)


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
) -> tuple[Store, MatchupMetadata]:
    """A store with a scan and an extract of January, matched."""
    store = Store.below(folder)
    rows = scenes_table(scenes)
    write_parquet(store.scenes(sensor.key, JANUARY), as_geoparquet(rows), SCANNED | {"status": scan, "bbox": bbox})
    write_parquet(store.holdings(sensor.key, JANUARY), as_geoparquet(holdings_rows(holdings)), replace(EXTRACT, status=status))
    return store, match_month(sensor, JANUARY, store, GRID, cloud_lt=10)


def acquired(store: Store, sensor: Any = EMIT) -> dict[str, Any]:
    """The Acquired variables of January, and the days with a held scene of unknown cloud."""
    last = as_geoparquet(LAST_SCHEMA.empty_table())
    write_parquet(store.last_held(sensor.key, JANUARY), last, {})
    write_holdings_stats(sensor, JANUARY, store, GRID, 10)
    table, _ = read_parquet(store.stats("held", sensor.key, JANUARY))
    unknown = dense(table, "unknown_days", GRID, DAYS, AreaKnown(everywhere=True))
    return {**holdings_fields(table, GRID, "read", JANUARY, 24), "held_unknown_days": unknown}


def matched(store: Store, sensor: Any = EMIT) -> list[dict[str, Any]]:
    table, _ = read_parquet(store.matchup(sensor.key, JANUARY))
    assert table.schema.equals(MATCHUP_SCHEMA)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


WHOLE = {"held": True, "share": 1.0, "missing": None}


def test_the_matchup_table_says_by_which_rule(tmp_path: Path) -> None:
    scenes = [scene("a"), scene("b", NOON + seconds(3_600)), scene("c", NOON + seconds(7_200))]
    store, metadata = month_of(tmp_path, scenes, [holding(NOON + seconds(3_610.1)), holding(key="a")])
    assert matched(store) == [
        WHOLE | {"scene_key": "a", "holdings": ["h1"], "rule": "key", "iou": None, "seconds_apart": None},
        WHOLE | {"scene_key": "b", "holdings": ["h0"], "rule": "footprint", "iou": 1.0, "seconds_apart": 10.1},
        {"scene_key": "c", "held": False, "share": 0.0, "holdings": [], "missing": None, "rule": None, "iou": None, "seconds_apart": None},
    ]
    assert (metadata.scenes, metadata.held, metadata.held_by_key, metadata.held_not_in_catalog) == (3, 2, 1, 0)


def test_a_holding_just_before_the_month_is_of_the_month_of_its_scene(tmp_path: Path) -> None:
    early = JANUARY.start - seconds(30)
    scenes = [scene("a", JANUARY.start)]
    store, metadata = month_of(tmp_path, scenes, [holding(early, in_month=False), holding(early - seconds(20), in_month=False)])
    assert metadata.held == 1
    assert metadata.held_not_in_catalog == 0  # the one that found nothing is of December
    assert acquired(store)["held_days"].max() == 1 << 0
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    assert unheld.num_rows == 0


def test_the_holding_of_a_neighbour_months_scene_counts_there_alone(tmp_path: Path) -> None:
    store, metadata = month_of(tmp_path, [scene("a", JANUARY.end + seconds(10))], [holding(JANUARY.end - seconds(20))])
    assert matched(store)[0]["held"] is True
    assert (metadata.scenes, metadata.held, metadata.held_not_in_catalog) == (0, 0, 0)
    assert (acquired(store)["held_count"] == 0).all()


def test_holdings_no_catalogue_lists_are_counted_apart_and_never_subtracted(tmp_path: Path) -> None:
    cell = cell_box(3, 6)
    unlisted = [holding(NOON + dt.timedelta(hours=k), cell) for k in range(5)]
    store, metadata = month_of(tmp_path, [scene("a", NOON - dt.timedelta(days=3), cell)], unlisted)
    assert metadata.held_not_in_catalog == 5
    assert metadata.held == 0
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    fields = unheld_fields(unheld, GRID, known_area("complete", None, GRID), NONE, NONE)
    assert fields["unmet_supply"][3, 6] == 1  # five holdings more than scenes: still one scene not held
    assert (fields["unmet_supply"] >= 0).all()


def test_holdings_outside_a_scanned_box_are_not_missing_from_the_catalogue(tmp_path: Path) -> None:
    holdings = [holding(shape=cell_box(3, 6)), holding(shape=cell_box(0, 0)), holding(shape=cell_box(3, 11)), holding(shape=cell_box(3, 0))]
    for name, bbox, count in [("a", [0, 0, 30, 30], 1), ("b", [165, 5, -165, 25], 2), ("c", None, 4)]:
        _, metadata = month_of(tmp_path / name, [], holdings, bbox=bbox)
        assert metadata.held_not_in_catalog == count, name


def test_a_sensor_without_catalogue_has_no_number_of_unlisted_holdings(tmp_path: Path) -> None:
    store, metadata = month_of(tmp_path, [], [holding()], scan="not_applicable", sensor=PRISMA)
    assert metadata.held_not_in_catalog is None
    assert matched(store, PRISMA) == []


def test_without_holdings_nothing_is_known_of_what_is_held(tmp_path: Path) -> None:
    store, metadata = month_of(tmp_path, [scene("a")], [], status="off")
    assert matched(store)[0]["held"] is None
    assert (metadata.held, metadata.held_by_key, metadata.held_not_in_catalog) == (None, None, None)
    assert read_parquet(store.stats("unheld", "emit", JANUARY))[0].num_rows == 0


def test_a_sensor_we_do_not_hold_lacks_every_scene(tmp_path: Path) -> None:
    store, metadata = month_of(tmp_path, [scene("a")], [], status="not_held")
    assert matched(store)[0]["held"] is False
    assert metadata.held == 0
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    fields = unheld_fields(unheld, GRID, known_area("complete", None, GRID), np.full(GRID.shape, UNKNOWN), np.full(GRID.shape, UNKNOWN))
    assert fields["unmet_supply"].sum() == 1
    assert fields["ingestable_days"].max() == 1 << 14


def test_an_empty_month_is_zero_and_a_month_not_scanned_is_not_known(tmp_path: Path) -> None:
    store, _ = month_of(tmp_path, [], [])
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    scanned = unheld_fields(unheld, GRID, known_area("complete", None, GRID), NONE, NONE)
    assert all((scanned[name] == 0).all() for name in ("unmet_supply", "ingestable_days", "check_days"))
    not_scanned = unheld_fields(unheld, GRID, known_area("not_scanned", None, GRID), NONE, NONE)
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
    held += [
        holding(on(day, 20) + seconds(k), cell_box(*cells), key=f"crop{k}", cloud=cloud) for k, (day, cells, cloud) in enumerate(crops)
    ]
    bbox = None if area is None else list(cell_box(*area).bounds)
    store, metadata = month_of(tmp_path_factory.mktemp("month"), available, held, bbox=bbox)

    ours = acquired(store)
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    fields = unheld_fields(unheld, GRID, known_area("complete", bbox, GRID), ours["held_clear_days"], ours["held_unknown_days"])

    def covers(cells: tuple[int, ...], row: int, column: int) -> bool:
        return cells[0] <= row < cells[0] + cells[2] and cells[1] <= column < cells[1] + cells[3]

    def held_here(row: int, column: int) -> list[tuple[int, float | None]]:
        ours = [(day, cloud) for k, (day, cells, cloud) in enumerate(scenes) if k in held_of_them and covers(cells, row, column)]
        return ours + [(day, cloud) for day, cells, cloud in crops if covers(cells, row, column)]

    def clear_days(rows: list[tuple[int, float | None]]) -> set[int]:
        return {day for day, cloud in rows if cloud is not None and cloud < 10}

    def mask(days: set[int]) -> int:
        return sum(1 << (day - 1) for day in days)

    for row in range(GRID.shape[0]):
        for column in range(GRID.shape[1]):
            found = {name: int(values[row, column]) for name, values in fields.items()}
            if area is not None and not covers(area, row, column):
                held_unclear = {day for day, cloud in held_here(row, column) if cloud is None} - clear_days(held_here(row, column))
                check_here = mask(held_unclear) if held_unclear else int(UNKNOWN)
                assert found == {"unmet_supply": -1, "ingestable_days": int(UNKNOWN), "check_days": check_here}
                continue
            here = [(k, day, cloud) for k, (day, cells, cloud) in enumerate(scenes) if covers(cells, row, column)]
            lacking = [(day, cloud) for k, day, cloud in here if k not in held_of_them]
            we_hold = held_here(row, column)
            clear_held = clear_days(we_hold)
            clear_lacking = [day for day, cloud in lacking if cloud is not None and cloud < 10]
            ingest = set(clear_lacking) - clear_held
            check = {day for day, cloud in lacking + we_hold if cloud is None} - clear_held - ingest
            assert found == {"unmet_supply": len(clear_lacking), "ingestable_days": mask(ingest), "check_days": mask(check)}
    known = is_known(fields["ingestable_days"])
    assert not (fields["ingestable_days"] & fields["check_days"])[known].any()
    assert metadata.held == len(held_of_them)


# Held whole or in part


def cover_of(shape: Any, *held: Any, **how: Any) -> tuple[float, bool, Any]:
    """Share, whether whole, and what is missing of one scene with these holdings of its key, each at another time."""
    rows = [holding(NOON + seconds(k), one, key="a") for k, one in enumerate(held)]
    match = match_scenes(scenes_table([scene("a", shape=shape)]), holdings_rows(rows), family="emit", **how)
    return float(match.share[0]), bool(match.whole[0]), match.missing[0]


SLANTED = shapely.Polygon([(5, 50), (7, 50.2), (7, 52), (5, 51.8)])


def test_a_crop_with_the_id_of_its_scene_holds_a_part() -> None:
    west = shapely.intersection(SLANTED, shapely.box(5, 49, 6, 53))
    share, whole, missing = cover_of(SLANTED, west)
    assert share == pytest.approx(0.5, abs=0.01)
    assert not whole
    assert shapely.difference(missing, shapely.difference(SLANTED, west)).area < 1e-9
    assert missing.area == pytest.approx(SLANTED.area / 2, rel=0.01)


def test_crops_that_cover_a_scene_together_hold_it_whole() -> None:
    parts = [shapely.intersection(SLANTED, shapely.box(5, 49, 6, 53)), shapely.intersection(SLANTED, shapely.box(5.9, 49, 7, 53))]
    assert cover_of(SLANTED, *parts)[1:] == (True, None)


@pytest.mark.parametrize(("height", "whole"), [(0.9, True), (0.89, False)])
def test_nine_tenths_are_the_whole(height: float, whole: bool) -> None:
    # Along the equator, where a share of the height is a share of the area. No box: a notch makes it none.
    shape = shapely.Polygon([(5, 0), (7, 0), (7, 1), (6, 1 - 1e-3), (5, 1)])
    part = shapely.intersection(shape, shapely.box(5, 0, 7, height))
    assert cover_of(shape, part)[1] is whole


@pytest.mark.parametrize(("km", "whole"), [(1.9, True), (2.1, False)])
def test_edges_drawn_differently_do_not_count(km: float, whole: bool) -> None:
    tall = shapely.Polygon([(5, 0), (5.1, 0), (5.1, 1), (5.05, 1.001), (5, 1)])  # 11 km wide: 2 km are a fifth
    held = shapely.intersection(tall, shapely.box(5 + km / 111.32, -1, 6, 2))
    share, is_whole, _ = cover_of(tall, held)
    assert share < 0.9
    assert is_whole is whole


def test_a_box_in_place_of_the_outline_is_the_whole_scene() -> None:
    assert cover_of(SLANTED, shapely.box(*SLANTED.bounds))[1]
    assert cover_of(shapely.box(5, 50, 7, 52), SLANTED)[1]  # their boxes agree
    assert not cover_of(SLANTED, shapely.box(5, 50, 6, 52))[1]  # a crop is often such a box


def test_a_holding_outside_its_scene_holds_nothing(tmp_path: Path) -> None:
    store, metadata = month_of(tmp_path, [scene("EMIT_1", shape=cell_box(3, 6))], [holding(shape=cell_box(3, 9), key="EMIT_1")])
    assert (metadata.held, metadata.held_in_part, metadata.held_not_in_catalog) == (0, 0, 0)
    assert "outside their footprint" in metadata.warnings[0]
    assert (acquired(store)["held_count"] == 0).all()


def test_what_is_missing_of_a_scene_is_unmet_and_what_is_held_is_held(tmp_path: Path) -> None:
    scenes = [scene("a", shape=cell_box(3, 6, columns=2))]
    store, metadata = month_of(tmp_path, scenes, [holding(shape=cell_box(3, 6), key="a", cloud=None)])
    assert (metadata.held, metadata.held_in_part) == (0, 1)
    row = matched(store)[0]
    assert row["held"] is False
    assert row["share"] == pytest.approx(0.5)
    missing = shapely.from_wkb(row["missing"])
    assert cell_box(3, 7).covers(missing)  # never more than what is missing: it would reach into the cell that is held
    assert missing.area == pytest.approx(cell_box(3, 7).area)
    ours = acquired(store)
    assert ours["held_clear_days"][3, 6:8].tolist() == [1 << 14, 0]  # the scene's cloud
    unheld, _ = read_parquet(store.stats("unheld", "emit", JANUARY))
    fields = unheld_fields(unheld, GRID, known_area("complete", None, GRID), ours["held_clear_days"], ours["held_unknown_days"])
    assert fields["ingestable_days"][3, 6:8].tolist() == [0, 1 << 14]
    assert fields["unmet_supply"][3, 6:8].tolist() == [0, 1]


def test_a_holding_counts_within_its_scene_alone(tmp_path: Path) -> None:
    slanted = shapely.Polygon([(1, 1), (29, 2), (29, 29), (1, 28)])  # one cell
    store, _ = month_of(tmp_path, [scene("a", shape=slanted)], [holding(shape=shapely.box(1, 1, 31, 29), key="a")])
    assert (acquired(store)["held_count"] > 0).sum() == 1


def test_a_row_that_comes_twice_is_one_holding_whatever_its_ids(tmp_path: Path) -> None:
    rows = [holding(key=None), holding(key="a"), holding(key="internal-7")]
    store, metadata = month_of(tmp_path, [scene("a")], rows)
    assert (metadata.held, metadata.held_not_in_catalog) == (1, 0)
    assert matched(store)[0]["holdings"] == ["h1"]
    assert acquired(store)["held_count"].max() == 1


OWN = replace(EMIT, key="own", family="other")


def test_a_house_id_does_not_keep_a_holding_from_its_scene(tmp_path: Path) -> None:
    scenes = [scene("SAR_20250115_001"), scene("SAR_20250115_002", NOON + dt.timedelta(hours=5))]
    _, metadata = month_of(tmp_path / "a", scenes, [holding(key="internal-7")], sensor=OWN)
    assert (metadata.held, metadata.house_ids, metadata.held_not_in_catalog) == (1, 1, 0)
    # spelt as the catalogue's, but not listed there: it never falls back
    _, metadata = month_of(tmp_path / "b", scenes, [holding(key="sar_20250115_977")], sensor=OWN)
    assert (metadata.held, metadata.house_ids, metadata.held_not_in_catalog) == (0, 0, 1)


def test_any_time_that_a_scene_states_will_do() -> None:
    late = scene("a") | {"pass_time": NOON - dt.timedelta(minutes=20), "datetime": NOON}
    for when in (NOON - dt.timedelta(minutes=20), NOON):
        assert held_by([late], [holding(when)]) == [0]
    assert held_by([late], [holding(NOON - dt.timedelta(minutes=10))]) == [-1]
    span = late | {"start_datetime": NOON - dt.timedelta(minutes=12), "end_datetime": NOON}
    assert held_by([span], [holding(NOON - dt.timedelta(minutes=10))]) == [0]


def test_the_parts_of_a_scene_are_each_found_by_their_own_outline() -> None:
    west, east = shapely.box(5, 50, 5.5, 52), shapely.box(5.5, 50, 7, 52)
    copies = [{"item_id": name, "datetime": NOON, "geometry": shapely.to_wkb(part)} for name, part in (("w", west), ("e", east))]
    match = match_scenes(
        scenes_table([scene("a") | {"copies": copies}]), holdings_rows([holding(shape=west), holding(NOON + seconds(1), east)])
    )
    assert match.scene_of_holding.tolist() == [0, 0]
    assert match.whole.tolist() == [True]
    alone = match_scenes(scenes_table([scene("a") | {"copies": copies}]), holdings_rows([holding(shape=west)]))
    assert alone.in_part.tolist() == [True]


def test_local_times_are_told_by_what_they_miss(tmp_path: Path) -> None:
    shapes = [cell_box(3, 6), cell_box(2, 6)]
    scenes = [scene(f"s{k}", NOON + dt.timedelta(days=k), shape) for k, shape in enumerate(shapes)]
    held = [holding(NOON + dt.timedelta(days=k, hours=-4), shape) for k, shape in enumerate(shapes)]
    _, metadata = month_of(tmp_path, scenes, held)
    assert metadata.held_not_in_catalog == 2
    assert "lie 4 h before a scene" in metadata.warnings[0]


def test_no_hair_of_an_overlay_reaches_into_what_is_held() -> None:
    """The cut of a slanted edge is rounded, so that the difference keeps a sliver along the rest of that edge."""
    slanted = shapely.Polygon([(2.05, 30.11), (3.45, 30.05), (3.45, 30.39), (2.05, 30.45)])
    share, whole, missing = cover_of(slanted, shapely.intersection(slanted, shapely.box(0, 29, 2.75, 31)))
    assert (round(share, 2), whole) == (0.5, False)
    assert missing.bounds[0] >= 2.75


def test_crops_that_span_the_box_of_a_scene_do_not_hold_it() -> None:
    """Two in opposite corners, a frame with a large hole, a thin strip along the diagonal: their boxes agree with the scene's."""
    scene_box = shapely.box(5, 50, 7, 52)
    corners = shapely.box(5, 50, 5.1, 50.1), shapely.box(6.9, 51.9, 7, 52)
    frame = shapely.difference(scene_box, shapely.box(5.2, 50.2, 6.8, 51.8))
    strip = shapely.Polygon([(5, 50), (5.1, 50), (7, 51.9), (7, 52), (6.9, 52), (5, 50.1)])
    for held in (corners, (frame,), (strip,)):
        share, whole, missing = cover_of(scene_box, *held)
        assert share < 0.5
        assert not whole
        assert missing is not None


def test_the_antimeridian_changes_nothing() -> None:
    box, outline = shapely.box(5, 0, 7, 2), shapely.Polygon([(5, 0.2), (6.8, 0), (7, 1.8), (5.2, 2)])
    strip = shapely.box(5.9, 0.2, 6.1, 1.8), shapely.Polygon([(5.8, 0), (6.2, 0), (6.2, 2), (6.0, 2.01), (5.8, 2)])

    def moved(shape: Any) -> Any:
        """To ±180, cut there as footprints are."""
        return normalise_footprints(np.array([shapely.transform(shape, lambda xy: xy + np.array([174.0, 0.0]))], dtype=object))[0][0]

    for scene_shape, held in ((box, outline), (outline, box), (strip[1], shapely.difference(strip[1], shapely.box(5.985, 0, 6.015, 3)))):
        share, whole, missing = cover_of(scene_shape, held)
        far_share, far_whole, far_missing = cover_of(moved(scene_shape), moved(held))
        assert far_whole is whole
        assert far_share == pytest.approx(share, abs=1e-6)
        assert (far_missing is None) is (missing is None)


def test_of_two_ids_of_one_row_the_listed_one_counts_whatever_their_order() -> None:
    for keys in (("b", "a"), ("a", "b")):
        match = match_scenes(scenes_table([scene("a")]), holdings_rows([holding(key=key) for key in keys]), family="emit")
        assert match.whole.tolist() == [True]
        assert match.scene_of_holding.tolist() == [0, 0]


def test_two_keys_of_one_day_are_two_holdings_where_only_the_date_is_known() -> None:
    day = NOON.replace(hour=0)
    scenes = [scene("a"), scene("b", NOON + dt.timedelta(hours=2))]
    match = match_scenes(scenes_table(scenes), holdings_rows([holding(day, key=k, date_only=True) for k in "ab"]), family="emit")
    assert match.whole.tolist() == [True, True]


def test_a_repeated_row_lends_its_cloud(tmp_path: Path) -> None:
    rows = [holding(key="a", cloud=None), holding(cloud=2.0)]
    store, _ = month_of(tmp_path, [scene("a", cloud=None)], rows)
    assert acquired(store)["held_clear_count"].max() == 1


def test_products_of_one_scene_are_ranked_as_the_catalogue_s_copies_are(tmp_path: Path) -> None:
    """The newest by the time of its making, not by its name: baseline 9999 marks a special processing."""
    ids = [f"S2A_MSIL2A_20250115T175231_{name}" for name in ("N9999_R141_T13TDE_20250120T000000", "N0511_R141_T13TDE_20250601T000000")]
    sensor = replace(COVERAGE_SENSORS["sentinel-2"], held_satellite="S2")
    key = scene_key("sentinel-2", ids[0])
    when = dt.datetime(2025, 1, 15, 17, 52, 31, tzinfo=UTC)
    frame = pd.DataFrame(
        {
            "datetime": [when, when + seconds(1)], "sensor": "S2", "cloud": [2.0, 60.0], "scene_id": ids,
            "geometry": [shapely.to_wkb(cell_box(3, 6))] * 2, "misplaced": [None, None],
        }
    )  # fmt: skip
    table = place_rows(frame, sensor).table
    store, _ = month_of(tmp_path, [scene(str(key), when, cell_box(3, 6))], table.to_pylist(), sensor=sensor)
    assert acquired(store, sensor)["held_clear_count"].max() == 0


def test_a_small_part_counts_with_its_cloud() -> None:
    """Two per cent are of the product's own area: a part of a twentieth of the scene adds all of itself."""
    large, small = shapely.box(0, 0, 10, 1), shapely.box(10, 0, 10.15, 1)
    group = np.zeros(2, np.int64)
    assert mean_by_area(np.array([large, small], object), np.array([9.9, 100.0]), group, 1)[0] == pytest.approx(11.23, abs=0.01)
    assert np.isnan(mean_by_area(np.array([large, small], object), np.array([2.0, np.nan]), group, 1)[0])
    assert mean_by_area(np.array([large, large], object), np.array([2.0, np.nan]), group, 1)[0] == 2  # a reprocessing adds nothing


def test_many_overlapping_crops_are_united_at_once() -> None:
    chips = np.array([shapely.box(k / 100, 0, k / 100 + 0.5, 1) for k in range(50)] * 2, dtype=object)
    group = np.repeat([0, 1], 50)
    assert [shape.bounds for shape in united(chips, group, 2)] == [(0, 0, 0.99, 1)] * 2
