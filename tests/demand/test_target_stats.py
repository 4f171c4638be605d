"""Target statistics against a slow reading of the design: one target and one day at a time, in an equal-area plane about the target."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from coverage_pipeline.demand.target_size import narrow_side_km
from coverage_pipeline.demand.target_stats import Knowledge, target_statistics
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.geometry.wkb import wkb_bounds
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.shared_data import item_files, shared_data

MONTH = Month(2025, 4)
EMIT, LANDSAT, PRISMA = (COVERAGE_SENSORS[key] for key in ("emit", "landsat-8-9", "prisma"))
GLOBE = Knowledge("complete", None, "read")


def make_targets(*shapes: shapely.Geometry, min_cover: float = 0.95, **columns: Any) -> Targets:
    """Targets of these outlines, cut at the antimeridian."""
    geometry, reasons = normalise_footprints(np.array(shapes, dtype=object))
    assert all(reason is None for reason in reasons)
    n = len(shapes)
    table = gpd.GeoDataFrame(
        {
            "id": [f"t{k}" for k in range(n)], "name": "", "group": "", "weight": 1.0, "desired": np.nan, "season": "",
            "min_cover": min_cover, "area_km2": ellipsoid_km2(geometry), **columns,
        },
        geometry=geometry, crs="EPSG:4326",
    )  # fmt: skip
    return Targets(table, "digest")


def scene(shape: shapely.Geometry, day: int, cloud: float | None = 0.0, held: str = "no", **more: Any) -> dict[str, Any]:
    """One listed scene: ``held`` is no, whole, or half (its western half)."""
    return {"shape": normalised(shape), "day": day, "cloud": cloud, "held": held, **more}


def normalised(shape: shapely.Geometry) -> shapely.Geometry:
    (fine,), (reason,) = normalise_footprints(np.array([shape], dtype=object))
    assert reason is None
    return fine


def at(day: int) -> dt.datetime:
    return dt.datetime(2025, 4, day, 10, tzinfo=dt.UTC)


def west_and_east(shape: shapely.Geometry) -> tuple[shapely.Geometry, shapely.Geometry]:
    west, south, east, north = shape.bounds
    middle = (west + east) / 2
    halves = [shapely.intersection(shape, shapely.box(*b)) for b in ((west, south, middle, north), (middle, south, east, north))]
    return halves[0], halves[1]


def tables(
    scenes: list[dict[str, Any]], unlisted: list[dict[str, Any]] = (), holdings_known: bool = True
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The scenes file, the matchup and the extract, as their steps would write them."""
    shapes = [s["shape"] for s in scenes]
    listed = pa.table(
        {
            "scene_key": pa.array([f"s{k:03}" for k in range(len(scenes))], pa.string()),
            "pass_time": pa.array([at(s["day"]) for s in scenes], pa.timestamp("us", tz="UTC")),
            "in_month": pa.array([s.get("in_month", True) for s in scenes], pa.bool_()),
            "cloud_cover": pa.array([s["cloud"] for s in scenes], pa.float64()),
            "geometry": pa.array([shapely.to_wkb(shape) for shape in shapes], pa.binary()),
        }
    )
    rows, names, shares, held, missing = [], [], [], [], []
    for k, s in enumerate(scenes):
        if s["held"] == "no" or not holdings_known:
            names.append([])
            shares.append(0.0 if holdings_known else None)
            held.append(False if holdings_known else None)
            missing.append(None)
            continue
        part, rest = (s["shape"], None) if s["held"] == "whole" else west_and_east(s["shape"])
        names.append([f"h{k}"])
        shares.append(1.0 if rest is None else 0.5)
        held.append(rest is None)
        missing.append(None if rest is None else shapely.to_wkb(rest))
        rows.append({"holding": f"h{k}", "shape": part, "day": s["day"], "cloud": None})
    for k, h in enumerate(unlisted):
        rows.append({"holding": f"u{k}", **h})
    extract = pa.table(
        {
            "holding": pa.array([r["holding"] for r in rows], pa.string()),
            "scene_id": pa.array([None] * len(rows), pa.string()),
            "scene_key": pa.array([None] * len(rows), pa.string()),
            "rank": pa.array([None] * len(rows), pa.string()),
            "datetime": pa.array([at(r["day"]) for r in rows], pa.timestamp("us", tz="UTC")),
            "pass_time": pa.array([at(r["day"]) for r in rows], pa.timestamp("us", tz="UTC")),
            "date_only": pa.array([False] * len(rows)),
            "sensor": pa.array(["X"] * len(rows), pa.string()),
            "cloud": pa.array([r["cloud"] for r in rows], pa.float64()),
            "in_month": pa.array([True] * len(rows)),
            "geometry": pa.array([shapely.to_wkb(r["shape"]) for r in rows], pa.binary()),
        },
        schema=HOLDINGS_SCHEMA,
    )  # fmt: skip
    matchup = pa.table(
        {
            "holdings": pa.array(names, pa.list_(pa.string())),
            "share": pa.array(shares, pa.float64()),
            "held": pa.array(held, pa.bool_()),
            "missing": pa.array(missing, pa.binary()),
        }
    )
    return listed, matchup, extract


def statistics(
    targets: Targets,
    scenes: list[dict[str, Any]],
    known: Knowledge = GLOBE,
    *,
    sensor: Any = LANDSAT,
    unlisted: Any = (),
    desired: float = 3.0,
) -> list[dict[str, Any]]:
    files = tables(scenes, unlisted, known.holdings_status in ("read", "not_held"))
    rows: list[dict[str, Any]] = target_statistics(
        targets, *files, sensor, MONTH, known, cloud_lt=10.0, default_desired=desired
    ).to_pylist()
    return rows


class Oracle:
    """The share of one target under a union, in an equal-area plane, edges densified."""

    def __init__(self, target: shapely.Geometry) -> None:
        point = target.representative_point()
        crs = f"+proj=laea +lat_0={point.y} +lon_0={point.x} +ellps=WGS84"
        self.plane = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform
        self.target = self.flat(target)

    def flat(self, shape: shapely.Geometry) -> shapely.Geometry:
        dense = shapely.segmentize(shape, 0.05)
        moved = shapely.transform(dense, lambda xy: np.column_stack(self.plane(xy[:, 0], xy[:, 1])))
        return shapely.make_valid(moved)

    def share(self, shapes: list[shapely.Geometry]) -> float:
        covered = shapely.Polygon()
        for shape in shapes:
            covered = covered.union(self.flat(shape))
        return float(self.target.intersection(covered).area / self.target.area)


def days_of(mask: int) -> set[int]:
    return {day for day in range(1, 32) if mask >> (day - 1) & 1}


def slow_days(
    target: shapely.Geometry, scenes: list[dict[str, Any]], unlisted: list[dict[str, Any]], min_cover: float
) -> dict[str, dict[int, float]]:
    """Shares by day of each kind, straight from the design's words."""
    oracle = Oracle(target)
    shares: dict[str, dict[int, float]] = {
        name: {} for name in ("available", "clear", "held", "held_clear", "with_unheld", "with_unknown", "unknown")
    }
    for day in range(1, 31):
        todays = [s for s in scenes if s["day"] == day and s.get("in_month", True)]
        if not todays and not [h for h in unlisted if h["day"] == day]:
            continue
        held, held_clear, unheld_clear, unknown = [], [], [], []
        for s in todays:
            clear = s["cloud"] is not None and s["cloud"] < 10
            mine, rest = {"no": (None, s["shape"]), "whole": (s["shape"], None), "half": west_and_east(s["shape"])}[s["held"]]
            held += [mine] if mine is not None else []
            held_clear += [mine] if mine is not None and clear else []
            unheld_clear += [rest] if rest is not None and clear else []
            unknown += [s["shape"]] if s["cloud"] is None else []
        for h in unlisted:
            if h["day"] == day:
                held.append(h["shape"])
                held_clear += [h["shape"]] if h["cloud"] is not None and h["cloud"] < 10 else []
                unknown += [h["shape"]] if h["cloud"] is None else []
        clear_scenes = [s["shape"] for s in todays if s["cloud"] is not None and s["cloud"] < 10]
        for name, shapes in (
            ("available", [s["shape"] for s in todays]), ("clear", clear_scenes), ("held", held), ("held_clear", held_clear),
            ("with_unheld", held_clear + unheld_clear), ("with_unknown", held_clear + unheld_clear + unknown), ("unknown", unknown),
        ):  # fmt: skip
            shares[name][day] = oracle.share(shapes)
    return shares


def compare(row: dict[str, Any], shares: dict[str, dict[int, float]], min_cover: float) -> None:
    """The row's masks and best share are those of the shares; days at the threshold are left open (the oracle is not exact)."""
    near = {day for by_day in shares.values() for day, share in by_day.items() if abs(share - min_cover) < 2e-5}

    def reached(name: str) -> set[int]:
        return {day for day, share in shares[name].items() if share >= min_cover}

    right = {
        "available_days": reached("available"),
        "clear_days": reached("clear"),
        "held_days": reached("held"),
        "held_clear_days": reached("held_clear"),
        "unknown_days": reached("unknown"),
        "ingestable_days": reached("with_unheld") - reached("held_clear"),
        "check_days": reached("with_unknown") - reached("with_unheld") - reached("held_clear"),
    }
    for name, days in right.items():
        assert days_of(row[name]) - near == days - near, name
    assert row["best_share"] == pytest.approx(max(shares["available"].values(), default=0.0), abs=2e-5)


outlines = st.builds(
    lambda lon, lat, w, h, slant: shapely.Polygon([(lon, lat), (lon + w, lat + slant), (lon + w, lat + h + slant), (lon, lat + h)]),
    st.floats(8, 10), st.floats(48, 50), st.floats(0.2, 2), st.floats(0.2, 2), st.floats(-0.4, 0.4),
)  # fmt: skip
listed_scenes = st.builds(
    scene, outlines, st.integers(1, 3), st.sampled_from([0.0, 5.0, 50.0, None]), st.sampled_from(["no", "whole", "half"])
)
holdings_alone = st.builds(
    lambda shape, day, cloud: {"shape": shape, "day": day, "cloud": cloud}, outlines, st.integers(1, 3), st.sampled_from([0.0, None])
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(outlines, min_size=1, max_size=3),
    st.lists(listed_scenes, max_size=8),
    st.lists(holdings_alone, max_size=2),
    st.sampled_from([0.3, 0.6, 0.95, 1.0]),
)
def test_days_are_those_of_one_target_and_day_at_a_time(shapes: Any, scenes: Any, unlisted: Any, min_cover: float) -> None:
    targets = make_targets(*shapes, min_cover=min_cover)
    for row, shape in zip(statistics(targets, scenes, unlisted=unlisted), targets.table.geometry, strict=True):
        compare(row, slow_days(shape, scenes, unlisted, min_cover), min_cover)


@pytest.mark.parametrize("name", [n for n in item_files() if "parquet" not in n and ("landsat" in n or "sentinel-2" in n)])
def test_real_footprints_over_the_recorded_areas(name: str) -> None:
    """Days of the recorded areas and of sites beside them, by the footprints of every recorded item."""
    areas = [*gpd.read_file(shared_data() / "aoi" / "vitals_dangermond_boundary.geojson").to_crs(4326).geometry]
    areas += [*gpd.read_file(shared_data() / "aoi" / "vitals_agu_workshop_roi.geojson").to_crs(4326).geometry]
    import gzip
    import json

    with gzip.open(shared_data() / "items" / name, "rt") as file:
        items = [json.loads(line) for line in file]
    shapes = [shapely.from_geojson(json.dumps(i["geometry"])) if i.get("geometry") else None for i in items]
    usable, _ = normalise_footprints(np.array(shapes, dtype=object))
    scenes = [
        scene(
            shape,
            int(item["properties"]["datetime"][8:10]) if item["properties"].get("datetime") else 1,
            item["properties"].get("eo:cloud_cover"),
        )
        for shape, item in zip(usable, items, strict=True)
        if shape is not None
    ]
    scenes = [s if s["day"] <= 30 else s | {"day": 30} for s in scenes]
    middles = [s["shape"].representative_point().buffer(0.3) for s in scenes[:: max(1, len(scenes) // 6)]]
    targets = make_targets(*areas, *middles, min_cover=0.6)
    rows = statistics(targets, scenes)
    tree = shapely.STRtree([s["shape"] for s in scenes])
    for row, shape in zip(rows, targets.table.geometry, strict=True):
        over = [scenes[k] for k in tree.query(shape, predicate="intersects")]
        compare(row, slow_days(shape, over, [], 0.6), 0.6)
        assert len(row["scenes"]) == sum(1 for s in over if s["shape"].intersection(shape).area > 0)


SITE = shapely.box(9, 49, 9.2, 49.2)
WIDE, EAST = shapely.box(8, 48, 10, 50), shapely.box(9.1, 48, 10, 50)


@pytest.mark.parametrize(
    ("scenes", "known", "sensor", "action", "deficit"),
    [
        ([scene(WIDE, 1, held="whole")], GLOBE, LANDSAT, "met", 0),
        ([scene(WIDE, 1)], GLOBE, LANDSAT, "ingest", 1),
        ([scene(WIDE, 1, held="half")], GLOBE, LANDSAT, "ingest", 1),
        ([scene(WIDE, 1, None)], GLOBE, LANDSAT, "check", 1),
        ([scene(WIDE, 1, None, held="whole")], GLOBE, LANDSAT, "check", 1),
        ([scene(WIDE, 1, 80.0)], GLOBE, LANDSAT, "none", 1),
        ([scene(EAST, 1)], GLOBE, LANDSAT, "none", 1),
        ([], GLOBE, LANDSAT, "none", 1),
        ([], GLOBE, EMIT, "task", 1),
        ([], replace(GLOBE, scan_status="provisional"), EMIT, "unknown", 1),
        ([], replace(GLOBE, scan_status="partial"), EMIT, "unknown", 1),
        ([scene(WIDE, 1)], replace(GLOBE, scan_status="partial"), LANDSAT, "ingest", 1),
        ([], replace(GLOBE, scan_status="not_scanned"), EMIT, "unknown", 1),
        ([], replace(GLOBE, scan_status="not_applicable"), PRISMA, "task", 1),
        ([scene(WIDE, 1)], replace(GLOBE, holdings_status="off"), LANDSAT, "unknown", -1),
        ([scene(WIDE, 1)], replace(GLOBE, holdings_status="not_held"), LANDSAT, "ingest", 1),
        ([scene(WIDE, 1)], replace(GLOBE, bbox=(8.0, 48.0, 9.1, 50.0)), LANDSAT, "unknown", 1),
        ([scene(WIDE, 1)], replace(GLOBE, bbox=(8.0, 48.0, 9.2, 50.0)), LANDSAT, "ingest", 1),
        ([scene(WIDE, 1, in_month=False)], GLOBE, LANDSAT, "none", 1),
    ],
)  # fmt: skip
def test_the_action_of_a_target(scenes: Any, known: Knowledge, sensor: Any, action: str, deficit: int) -> None:
    (row,) = statistics(make_targets(SITE), scenes, known, sensor=sensor, desired=1.0)
    assert (row["action"], row["deficit"]) == (action, deficit)


def test_two_tiles_of_a_day_cover_together_what_neither_covers_alone() -> None:
    west = shapely.box(8, 48, 9.1, 50)
    (row,) = statistics(make_targets(SITE), [scene(west, 3), scene(EAST, 3), scene(west, 4)], desired=2.0)
    assert days_of(row["ingestable_days"]) == {3}
    assert (row["deficit"], row["ingestable"], row["remaining"]) == (2, 1, 1)
    assert [(s["scene_key"], s["day"], s["held"]) for s in row["scenes"]] == [("s000", 3, False), ("s001", 3, False), ("s002", 4, False)]
    assert [s["share"] for s in row["scenes"]] == pytest.approx([0.5, 0.5, 0.5], abs=0.01)


def test_a_held_half_and_the_missing_half_make_a_day() -> None:
    """The design: a day is ingestable where held clear < min_cover <= held clear with unheld clear."""
    (row,) = statistics(make_targets(SITE), [scene(shapely.box(8.9, 48, 9.3, 50), 5, held="half")])
    assert (days_of(row["held_clear_days"]), days_of(row["ingestable_days"])) == (set(), {5})


def test_a_holding_that_no_catalogue_lists_counts_on_its_own_day() -> None:
    (row,) = statistics(make_targets(SITE), [], unlisted=[{"shape": WIDE, "day": 9, "cloud": 1.0}], desired=1.0)
    assert (days_of(row["held_clear_days"]), row["action"]) == ({9}, "met")


def test_where_the_catalogue_is_not_known_held_scenes_of_unknown_cloud_are_worth_a_look() -> None:
    held = [{"shape": WIDE, "day": 9, "cloud": None}]
    known = replace(GLOBE, scan_status="not_applicable")
    (row,) = statistics(make_targets(SITE), [], known, sensor=PRISMA, unlisted=held, desired=1.0)
    assert (days_of(row["check_days"]), row["action"], row["ingestable"]) == ({9}, "check", -1)


def test_cadence_season_and_reach() -> None:
    targets = make_targets(
        SITE, SITE, SITE, shapely.box(9, 75, 9.2, 75.2), desired=[np.nan, 0.0, np.nan, np.nan], season=["", "", "11-2", ""]
    )
    rows = statistics(targets, [], sensor=EMIT, desired=2.0)
    assert [row["action"] for row in rows] == ["task", "met", "met", "out_of_scope"]
    assert [row["desired"] for row in rows] == [2.0, 0.0, 0.0, 0.0]
    before = target_statistics(targets, *tables([]), EMIT, Month(2022, 7), GLOBE, cloud_lt=10.0, default_desired=2.0)
    assert set(before["action"].to_pylist()) == {"out_of_scope"}  # before the mission


def test_a_column_for_a_sensor_wins_over_the_column_for_all() -> None:
    targets = make_targets(SITE, SITE, desired=[1.0, 1.0], desired_emit=[4.0, np.nan])
    assert [row["desired"] for row in statistics(targets, [], sensor=EMIT)] == [4.0, 1.0]


def test_a_target_across_the_antimeridian_and_one_over_the_pole() -> None:
    fiji = shapely.box(179.5, -17.5, 180.5, -16.5)
    cap = shapely.Polygon([(lon, 86.0) for lon in range(-180, 180, 10)])
    scenes = [
        scene(shapely.box(179, -18, 181, -16), 1),
        scene(shapely.Polygon([(lon, 85.0) for lon in range(-180, 180, 10)]), 2),
        scene(shapely.box(179, -18, 180, -16), 3),
    ]
    targets = make_targets(fiji, cap)
    rows = statistics(targets, scenes, sensor=replace(LANDSAT, reach=(-90.0, 90.0)))
    assert [days_of(row["ingestable_days"]) for row in rows] == [{1}, {2}]
    assert rows[0]["scenes"][1]["share"] == pytest.approx(0.5)


def test_a_target_wider_than_the_swath_is_too_large() -> None:
    square = shapely.box(9, 49, 9 + 300 / 73, 49 + 300 / 111.2)
    ribbon = shapely.box(9, 49, 9.2, 54)
    assert [row["too_large"] for row in statistics(make_targets(square, ribbon, SITE), [])] == [True, False, False]
    assert not statistics(make_targets(square, min_cover=0.5), [])[0]["too_large"]
    assert narrow_side_km(square) == pytest.approx(295, rel=0.05)


def test_no_targets_and_no_scenes() -> None:
    assert statistics(make_targets(SITE).__class__(make_targets(SITE).table.iloc[:0], "none"), [scene(WIDE, 1)]) == []
    assert wkb_bounds(pa.chunked_array([[]], pa.binary())).shape == (0, 4)


@given(st.lists(outlines, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_bounds_are_those_of_geos(shapes: list[shapely.Geometry]) -> None:
    np.testing.assert_array_equal(wkb_bounds(pa.chunked_array([pa.array(shapely.to_wkb(shapes), pa.binary())])), shapely.bounds(shapes))


def test_the_area_of_the_ellipsoid() -> None:
    globe, hole = shapely.box(-180, -90, 180, 90), shapely.box(0, 0, 4, 4) - shapely.box(1, 1, 2, 2)
    areas = ellipsoid_km2(np.array([globe, hole, None, shapely.box(0, 0, 4, 4), shapely.box(1, 1, 2, 2)], dtype=object))
    assert areas[0] == pytest.approx(510_065_621.724, abs=0.01)  # WGS 84, NIMA TR 8350.2
    assert areas[1] == pytest.approx(areas[3] - areas[4], rel=1e-12)
    assert areas[2] == 0
    assert not math.isnan(areas.sum())
