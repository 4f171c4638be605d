"""Design section 4, sentence by sentence: what is held, of which scene, when, how clear, and what is lacking."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.matchup.metadata import MatchupMetadata
from tests.scenarios.world import (
    JUNE,
    Catalogue,
    Month,
    World,
    at,
    build_world,
    holding,
    item,
    leaning,
    sensor,
    write_holdings,
)

pytestmark = pytest.mark.slow

MAY, JULY = Month(2025, 5), Month(2025, 7)
NOON = at("2025-06-11T10:40:21")
MATCHING = ("availability", "holdings", "matchup")
STEPS_ALL = ("availability", "holdings", "matchup", "availability_stats", "holdings_stats", "coverage", "gap")
PLACE = leaning(1.05, 31.05, 1.4, 1.4)
SLOW = settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def scene(name: str = "SCENE-11", geometry: BaseGeometry = PLACE, when: dt.datetime | None = NOON, **changes: Any) -> dict[str, Any]:
    return item(name, geometry, when, **changes)


@pytest.fixture(scope="module")
def serve() -> Iterator[Any]:
    """One server for the module; every call serves other items under a collection of its own."""
    catalogue = Catalogue({})
    collections: dict[str, Any] = {}
    catalogue.collections = collections

    def start(items: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
        name = f"scenes-{len(collections)}"
        collections[name] = [{**some, "collection": name} for some in items]
        return sensor(catalogue, name, **facts)

    yield start
    catalogue.close()


def build(
    folder: Path, declared: dict[str, Any], rows: list[dict[str, Any]], *, ids: bool = True, dates: bool = False, **options: Any
) -> World:
    """A build of one sensor, ``a``; by default only as far as the match."""
    path = write_holdings(folder / "holdings.parquet", rows, ids=ids, dates=dates)
    world = build_world(folder, {"a": declared}, holdings=path, **{"steps": MATCHING, **options})
    assert world.error is None, world.error
    return world


def only(world: World, month: Month = JUNE) -> pd.Series[Any]:
    """The one scene of the match."""
    match = world.matchup("a", month)
    assert len(match) == 1
    return match.iloc[0]


def said(world: World, month: Month = JUNE) -> MatchupMetadata:
    report: MatchupMetadata = world.reports[f"{month.key}|a"]["matchup"]
    return report


def part_of(geometry: BaseGeometry, share: float) -> BaseGeometry:
    """The western part of a footprint that has that share of its width."""
    west, south, east, north = geometry.bounds
    return geometry & shapely.box(west, south, west + share * (east - west), north)


# Held whole or in part


@pytest.mark.parametrize(("share", "whole"), [(1.0, True), (0.94, True), (0.86, False), (0.3, False)])
def test_a_share_of_min_cover_holds_the_whole(tmp_path: Path, serve: Any, share: float, whole: bool) -> None:
    """Design: "Held whole: share ≥ `holdings.min_cover` (0.9)". "Held in part: 0 < share otherwise." ``missing`` is there "where held
    in part"."""
    world = build(tmp_path, serve([scene()]), [holding(NOON, part_of(PLACE, share), scene_id="SCENE-11")])
    row = only(world)
    assert row["share"] == pytest.approx(share, abs=0.01)
    assert bool(row["held"]) is whole
    if whole:
        assert row["missing"] is None
    else:
        missing = shapely.from_wkb(row["missing"])
        expected = PLACE - part_of(PLACE, share)
        # "(footprint − holdings, shrunk and grown again by 1 km)": only corners are lost.
        assert missing.area == pytest.approx(expected.area, rel=0.01)
        assert (missing - expected.buffer(0.001)).is_empty
    assert (said(world).held, said(world).held_in_part) == ((1, 0) if whole else (0, 1))


def test_min_cover_is_a_setting(tmp_path: Path, serve: Any) -> None:
    """Design: "`holdings.min_cover`" is a setting, "in its [the matchup's] metadata"."""
    path = write_holdings(tmp_path / "h.parquet", [holding(NOON, part_of(PLACE, 0.86), scene_id="SCENE-11")])
    strict = build_world(tmp_path / "strict", {"a": serve([scene()])}, holdings=path, steps=MATCHING)
    assert not only(strict)["held"]
    assert said(strict).min_cover == 0.9
    loose = build_world(tmp_path / "loose", {"a": serve([scene()])}, holdings=path, steps=MATCHING, min_cover=0.8)
    assert only(loose)["held"]
    assert said(loose).min_cover == 0.8


@pytest.mark.parametrize(("kilometres", "whole"), [(1.6, True), (3.0, False)])
def test_what_vanishes_when_shrunk_by_1_km_is_not_missing(tmp_path: Path, serve: Any, kilometres: float, whole: bool) -> None:
    """Design: "or what is missing vanishes when it is shrunk by 1 km (catalogue and holdings draw edges differently)": of a small scene, of
    some 10 km, a strip of 1.6 km is more than a tenth and vanishes; one of 3 km stays."""
    small = leaning(1.05, 31.05, 0.11, 0.1, lean=0.001)
    west, south, east, north = small.bounds
    held = small & shapely.box(west, south + kilometres / 110.9, east, north)
    assert held.area / small.area < 0.88
    row = only(build(tmp_path, serve([scene(geometry=small)]), [holding(NOON, held, scene_id="SCENE-11")]))
    assert bool(row["held"]) is whole
    assert row["share"] == pytest.approx(held.area / small.area, abs=0.01)


def test_a_footprint_holds_a_scene_that_is_listed_as_its_box(tmp_path: Path, serve: Any) -> None:
    """Design: "or one of the two outlines is a box along the axes and the IoU of their boxes is ≥ `holdings.min_cover`"."""
    tilted = leaning(1.0, 31.0, 1.4, 1.4, lean=0.35)
    box = shapely.box(*tilted.bounds)
    assert tilted.area / box.area < 0.8
    row = only(build(tmp_path, serve([scene(geometry=box)]), [holding(NOON, tilted, scene_id="SCENE-11")]))
    assert row["held"]
    assert row["missing"] is None


def test_a_crop_that_is_a_box_holds_a_part(tmp_path: Path, serve: Any) -> None:
    """Design: "(agreeing by key alone is not enough: a crop is often such a box)"."""
    row = only(build(tmp_path, serve([scene()]), [holding(NOON, shapely.box(1.2, 31.2, 1.9, 31.9), scene_id="SCENE-11")]))
    assert not row["held"]
    assert row["share"] == pytest.approx(0.49 / PLACE.area, abs=0.01)


def test_several_holdings_of_a_scene_count_together(tmp_path: Path, serve: Any) -> None:
    """Design: "share = area(union of its holdings ∩ footprint) / area(footprint)"."""
    rows = [
        holding(NOON, part_of(PLACE, 0.6), scene_id="SCENE-11"),
        holding(NOON, PLACE - part_of(PLACE, 0.5), scene_id="SCENE-11"),
        holding(NOON, part_of(PLACE, 0.55), scene_id="SCENE-11"),
    ]
    row = only(build(tmp_path, serve([scene()]), rows))
    assert row["held"]
    assert row["share"] == pytest.approx(1.0, abs=1e-3)
    assert len(row["holdings"]) >= 2


@st.composite
def cuts(draw: st.DrawFn) -> tuple[BaseGeometry, list[BaseGeometry]]:
    """A scene of any size and lean, and up to three boxes that are held of it."""
    width, height = draw(st.floats(0.3, 1.8)), draw(st.floats(0.3, 1.2))
    footprint = leaning(1.013, 31.007, width, height, lean=draw(st.floats(0.02, 0.2)))
    boxes = []
    for _ in range(draw(st.integers(0, 3))):
        west, south = draw(st.floats(-0.2, 0.9)), draw(st.floats(-0.2, 0.9))
        size = st.floats(0.05, 1.2)
        box = shapely.box(1 + west * width, 31 + south * height, 1 + (west + draw(size)) * width, 31 + (south + draw(size)) * height)
        if (box & footprint).area > 0:
            boxes.append(box)
    return footprint, boxes


def kilometres(geometry: BaseGeometry) -> BaseGeometry:
    """A footprint near 31.5° N in kilometres, by the plainest of projections."""
    return shapely.transform(geometry, lambda xy: np.column_stack([xy[:, 0] * 111.32 * np.cos(np.radians(31.5)), xy[:, 1] * 110.9]))


@pytest.mark.timeout(900)
@SLOW
@given(st.lists(cuts(), min_size=8, max_size=14))
def test_any_holdings_of_any_scene(serve: Any, some: list[tuple[BaseGeometry, list[BaseGeometry]]]) -> None:
    """The same sentences for any rectangles, against plain shapely; only what lies within a hair of a threshold is left out."""
    items = [scene(f"SCENE-{k}", footprint, at(f"2025-06-{k + 1:02}T10:40:21")) for k, (footprint, _) in enumerate(some)]
    rows = [
        holding(at(f"2025-06-{k + 1:02}T10:40:21"), box, scene_id=f"SCENE-{k}") for k, (_, boxes) in enumerate(some) for box in boxes
    ] or [holding(NOON, shapely.box(8, 38, 9, 39), scene_id="SCENE-999")]
    with tempfile.TemporaryDirectory() as folder:
        match = build(Path(folder), serve(items), rows).matchup("a").set_index("scene_key")
    for k, (footprint, boxes) in enumerate(some):
        row = match[match["item_ids"].map(lambda ids, k=k: f"SCENE-{k}" in list(ids))].iloc[0]
        union = shapely.union_all(boxes)
        share = (union & footprint).area / footprint.area
        assert row["share"] == pytest.approx(share, abs=0.01), k
        missing = kilometres(footprint - union)
        boxed = False
        if len(boxes) == 1:
            one, two = shapely.box(*boxes[0].bounds), shapely.box(*footprint.bounds)
            iou = (one & two).area / (one | two).area
            if 0.85 < iou < 0.95:
                continue
            boxed = iou >= 0.9
        elif boxes:
            one, two = shapely.box(*union.bounds), shapely.box(*footprint.bounds)
            if (one & two).area / (one | two).area > 0.8:
                continue  # whether several boxes make one outline the design does not say
        if abs(share - 0.9) < 0.02 or missing.buffer(-0.9).is_empty != missing.buffer(-1.1).is_empty:
            continue
        whole = share > 0 and (share >= 0.9 or missing.buffer(-1.0).is_empty or boxed)
        assert bool(row["held"]) is whole, (k, share)
        assert (row["missing"] is not None) is (not whole and share > 0), k


# To which scene a holding belongs


def test_an_id_in_a_known_spelling_that_is_not_listed_never_falls_back(tmp_path: Path, serve: Any) -> None:
    """Design: "An id in a known spelling whose scene the catalogue does not list is *not in the catalogue*, and never falls back.":
    time and
    footprint are those of a listed scene, and the digits of the id differ."""
    for name in ("SCENE-12", "SCENE-4711", "scene-12"):
        world = build(tmp_path / name, serve([scene()]), [holding(NOON, PLACE, scene_id=name)])
        assert not only(world)["held"], name
        assert only(world)["share"] == 0, name
        assert said(world).held_not_in_catalog == 1, name


@pytest.mark.parametrize(
    ("family", "listed", "other"),
    [
        (
            "sentinel-2",
            "S2A_MSIL2A_20250611T104021_N0511_R008_T31UFS_20250611T150000",
            "S2A_MSIL2A_20250611T104021_N0511_R008_T31UFT_20250611T150000",
        ),
        ("landsat", "LC08_L2SP_180031_20250611_20250620_02_T1", "LC08_L2SP_180032_20250611_20250620_02_T1"),
    ],
)
def test_an_id_that_the_familys_rule_reads_never_falls_back(tmp_path: Path, serve: Any, family: str, listed: str, other: str) -> None:
    """Design: "for families with a rule, [a house id is] one that the rule cannot read": the neighbour's product id is read, and is
    not listed."""
    declared = serve([scene(listed)], family=family)
    world = build(tmp_path / "other", declared, [holding(NOON, PLACE, scene_id=other)])
    assert not only(world)["held"]
    assert said(world).held_not_in_catalog == 1
    world = build(tmp_path / "house", declared, [holding(NOON, PLACE, scene_id="internal-7")])
    assert only(world)["held"]
    assert said(world).held_not_in_catalog == 0


def test_a_house_id_falls_back_to_time_and_footprint_beside_product_ids(tmp_path: Path, serve: Any) -> None:
    """Design: "One without an id, or with a house id, belongs to the scene of its sensor that agrees in time … and footprint": in one
    extract with rows that have the product's id, and rows that have none."""
    items = [scene(f"SCENE-{k}", PLACE, at(f"2025-06-{k:02}T10:40:21")) for k in (11, 12, 13, 14)]
    rows = [
        holding(at("2025-06-11T10:40:21"), PLACE, scene_id="SCENE-11"),
        holding(at("2025-06-12T10:40:41"), PLACE, scene_id="internal-7"),
        holding(at("2025-06-13T10:40:01"), PLACE, scene_id=None),
    ]
    world = build(tmp_path, serve(items), rows)
    match = world.matchup("a")
    held = {name for ids, whole in zip(match["item_ids"], match["held"], strict=True) if whole for name in ids}
    assert held == {"SCENE-11", "SCENE-12", "SCENE-13"}
    assert said(world).held_not_in_catalog == 0


@pytest.mark.parametrize(("seconds", "found"), [(0, True), (58, True), (-58, True), (63, False), (-63, False)])
def test_time_agrees_within_60_seconds(tmp_path: Path, serve: Any, seconds: int, found: bool) -> None:
    """Design: "agrees in time (setting, default 60 s …)"."""
    world = build(tmp_path, serve([scene()]), [holding(NOON + dt.timedelta(seconds=seconds), PLACE)])
    assert bool(only(world)["held"]) is found
    assert said(world).held_not_in_catalog == (0 if found else 1)


@pytest.mark.parametrize(("minutes", "found"), [(-5, False), (-0.9, True), (7, True), (19, True), (20.9, True), (25, False)])
def test_time_agrees_between_start_and_end(tmp_path: Path, serve: Any, minutes: float, found: bool) -> None:
    """Design: "All times that an item gives are kept (own time, start, end, pass): a holding without an id agrees in time when it is within
    the tolerance of any of them, or between start and end": an item of 20 minutes."""
    end = NOON + dt.timedelta(minutes=20)
    some = scene(when=None, start_datetime=NOON.isoformat().replace("+00:00", "Z"), end_datetime=end.isoformat().replace("+00:00", "Z"))
    world = build(tmp_path, serve([some]), [holding(NOON + dt.timedelta(minutes=minutes), PLACE)])
    assert bool(only(world)["held"]) is found


@pytest.mark.parametrize(("day", "found"), [(10, False), (11, True), (12, False)])
def test_a_date_alone_agrees_on_the_same_utc_day(tmp_path: Path, serve: Any, day: int, found: bool) -> None:
    """Design: "the same UTC day, of the scene or its pass, where holdings carry a date only"."""
    world = build(tmp_path, serve([scene(when=at("2025-06-11T22:40:21"))]), [holding(dt.date(2025, 6, day), PLACE)], dates=True)
    assert bool(only(world)["held"]) is found


def test_a_sentinel_2_holding_agrees_with_the_tiles_time_and_with_the_datatakes(tmp_path: Path, serve: Any) -> None:
    """Design: "For Sentinel-2 the datatake's start … Earth Search the tile's own time, up to 27 minutes later"; a holding agrees with
    any."""
    product = "S2B_MSIL2A_20250611T104021_N0511_R008_T31UFS_20250611T150000"
    own = at("2025-06-11T11:02:10")
    declared = serve([scene("S2B_31UFS_20250611_0_L2A", when=own, **{"s2:product_uri": f"{product}.SAFE"})], family="sentinel-2")
    for name, when, found in (("own", own, True), ("pass", at("2025-06-11T10:40:21"), True), ("between", at("2025-06-11T10:50:00"), False)):
        world = build(tmp_path / name, declared, [holding(when, PLACE)])
        assert bool(only(world)["held"]) is found, name
    # With its id the time does not matter.
    world = build(tmp_path / "id", declared, [holding(at("2025-06-11T10:50:00"), PLACE, scene_id=product)])
    assert only(world)["held"]


@pytest.mark.parametrize(("iou", "found"), [(0.6, True), (0.4, False)])
def test_footprints_agree_from_a_half_on(tmp_path: Path, serve: Any, iou: float, found: bool) -> None:
    """Design: "footprint (IoU ≥ 0.5 with the scene …); below that it belongs to none"."""
    world = build(tmp_path, serve([scene()]), [holding(NOON, part_of(PLACE, iou))])
    assert (only(world)["share"] > 0) == found
    assert said(world).held_not_in_catalog == (0 if found else 1)


def test_each_holding_belongs_to_one_scene_best_first(tmp_path: Path, serve: Any) -> None:
    """Design: "each holding to one scene … best first (neighbouring Sentinel-2 tiles overlap by up to half: anything looser marks unheld
    scenes as held)"."""
    neighbour = shapely.transform(PLACE, lambda xy: xy + np.array([0.4, 0.0]))
    world = build(tmp_path, serve([scene("SCENE-1"), scene("SCENE-2", neighbour)]), [holding(NOON, neighbour)])
    match = world.matchup("a")
    shares = {next(iter(ids)): share for ids, share in zip(match["item_ids"], match["share"], strict=True)}
    assert shares == {"SCENE-1": 0, "SCENE-2": pytest.approx(1.0)}


def test_each_copy_belongs_to_one_holding(tmp_path: Path, serve: Any) -> None:
    """Design: "and each copy to one holding, best first": the second best belongs to none."""
    rows = [holding(NOON, part_of(PLACE, 0.7)), holding(NOON, part_of(PLACE, 0.95))]
    world = build(tmp_path, serve([scene()]), rows)
    assert only(world)["share"] == pytest.approx(0.95, abs=0.01)
    assert said(world).held_not_in_catalog == 1


def test_a_nameless_holding_agrees_with_one_of_the_copies_that_make_a_scene_up(tmp_path: Path, serve: Any) -> None:
    """Design: "IoU ≥ 0.5 with the scene, or with one of the copies that make it up, whose outlines the scenes file keeps"."""
    product = "S2B_MSIL2A_20250611T104021_N0511_R008_T31UFS_20250611T1{}0000"
    west = part_of(PLACE, 0.4)
    declared = serve([scene(product.format(5), west), scene(product.format(9), PLACE - west)], family="sentinel-2")
    world = build(tmp_path / "one", declared, [holding(NOON, west)])
    assert only(world)["share"] == pytest.approx(west.area / PLACE.area, abs=0.01)
    assert not only(world)["held"]
    assert said(world).held_not_in_catalog == 0
    world = build(tmp_path / "both", declared, [holding(NOON, west), holding(NOON, PLACE - west)])
    assert only(world)["held"]
    assert said(world).held_not_in_catalog == 0


@pytest.mark.parametrize(
    "ids", [(None, None), ("SCENE-11", "SCENE-11"), ("internal-1", "internal-2")], ids=["no ids", "one id", "house ids"]
)
def test_rows_of_one_sensor_time_and_footprint_are_one_holding(tmp_path: Path, serve: Any, ids: tuple[str | None, ...]) -> None:
    """Design: "Rows of one sensor, time and footprint are one holding, whatever their ids; the report counts them as duplicates"."""
    rows = [holding(NOON, PLACE, scene_id=name) for name in ids]
    world = build(tmp_path, serve([scene()]), rows, steps=STEPS_ALL)
    assert only(world)["held"]
    assert said(world).held_not_in_catalog == 0
    assert world.cell("a", 1.75, 31.75)["held_count"] == 1
    assert world.reports["2025-06|a"]["holdings"].duplicates == 1


def test_rows_of_another_footprint_or_time_are_no_duplicates(tmp_path: Path, serve: Any) -> None:
    """The same: another footprint, another time, another sensor are holdings of their own."""
    rows = [
        holding(NOON, PLACE),
        holding(NOON, shapely.transform(PLACE, lambda xy: xy + np.array([4.0, 0.0]))),
        holding(NOON + dt.timedelta(hours=3), PLACE),
        holding(NOON, PLACE, sensor="THEIRS"),
    ]
    world = build(tmp_path, serve([scene()]), rows)
    assert world.reports["2025-06|a"]["holdings"].duplicates == 0
    assert said(world).held_not_in_catalog == 2


# Where a holding counts


def test_a_border_cell_may_show_held_1_and_unmet_1(tmp_path: Path, serve: Any) -> None:
    """Design: "A border cell may show held 1 and unmet 1"; "`scenes_held` counts whole ones, `scenes_held_in_part` stands beside it"."""
    held = PLACE & shapely.box(0, 30, 1.75, 33)
    world = build(tmp_path, serve([scene()]), [holding(NOON, held, scene_id="SCENE-11")], steps=STEPS_ALL)
    border, west, east = (world.cell("a", lon, 31.75) for lon in (1.75, 1.25, 2.25))
    assert (border["held_count"], border["unmet_supply"], border["held_days"], border["ingestable_days"]) == (1, 1, {11}, set())
    assert (west["held_count"], west["unmet_supply"]) == (1, 0)
    assert (east["held_count"], east["unmet_supply"], east["ingestable_days"]) == (0, 1, {11})
    report = world.reports["2025-06|a"]["coverage"]
    assert (report.scenes_held, report.scenes_held_in_part) == (0, 1)


@pytest.mark.parametrize("box", [False, True], ids=["outline", "box"])
def test_a_holding_counts_only_within_its_scene_unless_that_is_a_box(tmp_path: Path, serve: Any, box: bool) -> None:
    """Design: "A holding that belongs to a scene counts only within the scene's footprint, unless that is a box"."""
    footprint = shapely.box(1.05, 31.05, 2.45, 32.45) if box else PLACE
    wider = leaning(1.05, 31.05, 2.4, 1.4)
    world = build(tmp_path, serve([scene(geometry=footprint)]), [holding(NOON, wider, scene_id="SCENE-11")], steps=STEPS_ALL)
    assert world.cell("a", 1.75, 31.75)["held_days"] == {11}
    assert world.cell("a", 3.25, 31.75)["held_days"] == ({11} if box else set())


# When a holding counts


def test_a_holding_has_the_month_and_day_of_its_scene(tmp_path: Path, serve: Any) -> None:
    """Design: "one that belongs to a scene has the scene's month and day … so that the holding of a neighbour month's scene is counted
    there
    alone": a row seconds before midnight whose scene lies in July."""
    rows = [holding(at("2025-06-30T23:59:50"), PLACE)]
    declared = serve([scene("SCENE-1", when=at("2025-07-01T00:00:05")), scene("SCENE-2", leaning(7, 36, 1, 1))])
    world = build(tmp_path, declared, rows, months=(JUNE, JULY), steps=STEPS_ALL)
    june, july = world.cell("a", 1.75, 31.75), world.cell("a", 1.75, 31.75, JULY)
    assert (june["held_days"], june["held_count"]) == (set(), 0)
    assert (july["held_days"], july["held_count"], july["available_days"]) == ({1}, 1, {1})
    assert july["ingestable_days"] == set()
    assert july["days_since_last_held"] == pytest.approx(31, abs=0.05)
    assert [int(n) for n in world.cube["held_not_in_catalog"].values[0]] == [0, 0]


@pytest.mark.parametrize("named", [True, False], ids=["with id", "without id"])
def test_at_a_months_end_held_count_and_days_since_last_held_agree(tmp_path: Path, serve: Any, named: bool) -> None:
    """Design: "`days_since_last_held` is the later of `last` and the month's own held cells": a Sentinel-2 pass of 30 June, whose tile and
    holding have a time of 1 July. June has held 1, so that it cannot say "never held"."""
    product = "S2B_MSIL2A_20250630T235739_N0511_R130_T56LQM_20250701T012345"
    own = at("2025-07-01T00:00:12")
    declared = serve([scene("S2B_T56LQM_20250630T235736_L2A", when=own, **{"s2:product_uri": f"{product}.SAFE"})], family="sentinel-2")
    rows = [holding(own, PLACE, scene_id=product if named else None)]
    world = build(tmp_path, declared, rows, months=(JUNE, JULY), steps=STEPS_ALL)
    june, july = world.cell("a", 1.75, 31.75), world.cell("a", 1.75, 31.75, JULY)
    assert (june["held_days"], june["held_count"]) == ({30}, 1)
    assert 0 <= june["days_since_last_held"] <= 1
    assert (july["held_days"], july["held_count"]) == (set(), 0)
    assert july["days_since_last_held"] == pytest.approx(31, abs=1)


@pytest.mark.parametrize("when", ["2025-06-30T23:30:00", "2025-07-01T00:30:00"], ids=["June's last hour", "July's first hour"])
def test_a_holding_of_no_scene_counts_in_its_own_month_alone(tmp_path: Path, serve: Any, when: str) -> None:
    """Design: "A holding that belongs to no scene has its own day and counts in that month alone"."""
    month = Month.of(at(when))
    declared = serve([scene("SCENE-1", leaning(7, 36, 1, 1)), scene("SCENE-2", leaning(7, 36, 1, 1), at("2025-07-05T10:00:00"))])
    world = build(tmp_path, declared, [holding(at(when), PLACE)], months=(JUNE, JULY), steps=STEPS_ALL)
    for some in (JUNE, JULY):
        cell = world.cell("a", 1.75, 31.75, some)
        assert cell["held_days"] == ({at(when).day} if some == month else set()), some
        assert int(world.cube["held_not_in_catalog"].sel(sensor="a", time=some.to_datetime64())) == (some == month), some


def test_days_since_last_held_is_the_later_of_last_and_the_month(tmp_path: Path, serve: Any) -> None:
    """Design: "days from the last holding that touches the cell, before the month's end, to the month's end (exclusive)"."""
    rows = [
        holding(at("2025-04-11T12:00:00"), shapely.box(1, 31, 4, 32)),
        holding(at("2025-06-20T12:00:00"), shapely.box(1, 31, 2, 32)),
        holding(at("2025-07-02T12:00:00"), shapely.box(1, 31, 4, 32)),
        holding(at("2023-04-02T12:00:00"), shapely.box(5, 31, 6, 32)),
    ]
    world = build(tmp_path, serve([scene("SCENE-1", leaning(7, 36, 1, 1))]), rows, steps=STEPS_ALL)
    assert world.cell("a", 1.25, 31.25)["days_since_last_held"] == pytest.approx(10.5, abs=0.01)
    assert world.cell("a", 3.25, 31.25)["days_since_last_held"] == pytest.approx(80.5, abs=0.01)
    lookback = (JULY.start - JULY.shift(-24).start).days
    assert world.cell("a", 5.25, 31.25)["days_since_last_held"] == pytest.approx(lookback, abs=1)


# Cloud, unmet supply, ingestable and check days, cell by cell


def test_a_holdings_own_cloud_wins_over_its_scenes(tmp_path: Path, serve: Any) -> None:
    """Design: "Cloud of a holding that carries none is that of the scene it belongs to": one that carries its own keeps it."""
    items = [
        scene(f"SCENE-{k}", PLACE, at(f"2025-06-{k}T10:40:21"), cloud=cloud) for k, cloud in ((11, 2.0), (12, 80.0), (13, 2.0), (14, None))
    ]
    rows = [
        holding(at(f"2025-06-{k}T10:40:21"), PLACE, scene_id=f"SCENE-{k}", cloud=cloud)
        for k, cloud in ((11, 80.0), (12, 2.0), (13, None), (14, None))
    ]
    cell = build(tmp_path, serve(items), rows, steps=STEPS_ALL).cell("a", 1.75, 31.75)
    assert cell["held_days"] == {11, 12, 13, 14}
    assert cell["held_clear_days"] == {12, 13}
    assert (cell["unmet_supply"], cell["ingestable_days"], cell["check_days"]) == (0, set(), {14})


def test_holdings_without_any_cloud_column_inherit_it(tmp_path: Path, serve: Any) -> None:
    """The same where the holdings have no column of cloud at all (issue 13, item 2: "`task` out of `met`")."""
    path = write_holdings(tmp_path / "h.parquet", [holding(NOON, PLACE, scene_id="SCENE-11")], clouds=False)
    world = build_world(tmp_path, {"a": serve([scene()], default_desired_per_month=1, taskable=True)}, holdings=path, tiles={"cloud": None})
    assert world.error is None
    cell = world.cell("a", 1.75, 31.75)
    assert (cell["held_clear_days"], cell["action"]) == ({11}, "met")


lattice = st.integers(0, 60).map(lambda k: k * 0.11 + 0.017)


@st.composite
def supplies(draw: st.DrawFn) -> list[tuple[int, BaseGeometry, float | None, float, float | None]]:
    """Scenes as (day, footprint, cloud, share held from the west, cloud of the holding)."""
    found = []
    for _ in range(draw(st.integers(3, 10))):
        west, south = draw(lattice), 30 + draw(lattice)
        footprint = leaning(west, south, draw(st.sampled_from([0.7, 1.3, 2.9])), draw(st.sampled_from([0.6, 1.9])))
        cloud = draw(st.sampled_from([2.0, 9.9, 10.0, 80.0, None]))
        share = draw(st.sampled_from([0.0, 0.0, 0.5, 1.0]))
        found.append((draw(st.integers(1, 30)), footprint, cloud, share, draw(st.sampled_from([None, 3.0, 60.0]))))
    return found


@pytest.mark.timeout(900)
@SLOW
@given(supplies())
def test_every_cell_of_any_supply(serve: Any, some: list[tuple[int, BaseGeometry, float | None, float, float | None]]) -> None:
    """Unmet supply, ingestable days, check days, held and held clear days of every cell, against sets of days and plain shapely.

    A cell that a missing part merely grazes (within some 3 km) may count it or not: the part is "shrunk and grown again by 1 km".
    """
    items, rows = [], []
    for k, (day, footprint, cloud, share, own) in enumerate(some):
        when = at(f"2025-06-{day:02}T10:{k:02}:21")
        items.append(scene(f"SCENE-{k}", footprint, when, cloud=cloud))
        if share:
            rows.append(holding(when, part_of(footprint, share), scene_id=f"SCENE-{k}", cloud=own))
    rows = rows or [holding(NOON, shapely.box(11, 41, 11.4, 41.4), scene_id="SCENE-999")]
    with tempfile.TemporaryDirectory() as folder:
        world = build(Path(folder), serve(items), rows, steps=STEPS_ALL)
        _ = world.cube
    for lon in np.arange(0.25, 11, 0.5):
        for lat in np.arange(30.25, 41, 0.5):
            square = shapely.box(lon - 0.25, lat - 0.25, lon + 0.25, lat + 0.25)
            touched = [one for one in some if (one[1] & square).area > 0]
            cell = world.cell("a", lon, lat)
            held, held_clear, unknown, perhaps_unknown = set(), set(), set(), set()
            surely: list[int] = []
            perhaps: list[int] = []
            for day, footprint, cloud, share, own in touched:
                part = part_of(footprint, share) if share else shapely.Polygon()
                if share and (part & square).area > 0:
                    held.add(day)
                    of_holding = cloud if own is None else own
                    if of_holding is not None and of_holding < 10:
                        held_clear.add(day)
                missing = footprint - part if share < 1 else shapely.Polygon()
                lacks = (missing & square).area > 0 and (share == 0 or (missing.buffer(-0.03) & square).area > 0)
                may_lack = (missing.buffer(0.03) & square).area > 0
                # "A held scene whose cloud stays unknown": where the holding carries one, it does not.
                if cloud is None and (lacks or (share and (part & square).area > 0 and own is None)):
                    unknown.add(day)
                elif cloud is None and may_lack:
                    perhaps_unknown.add(day)
                if cloud is not None and cloud < 10:
                    if lacks:
                        surely.append(day)
                    elif may_lack:
                        perhaps.append(day)
            assert cell["held_days"] == held
            assert cell["held_clear_days"] == held_clear
            assert len(surely) <= cell["unmet_supply"] <= len(surely) + len(perhaps)
            assert set(surely) - held_clear <= cell["ingestable_days"] <= (set(surely) | set(perhaps)) - held_clear
            elsewhere = cell["ingestable_days"] | held_clear
            assert unknown - elsewhere <= cell["check_days"] <= (unknown | perhaps_unknown) - elsewhere
            assert cell["deficit"] == max(0, 2 - len(held_clear))
