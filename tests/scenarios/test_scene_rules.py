"""Design section 4, "Scene" and "Pass time", on real items where they are recorded, by hand where they are not."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.scenes.items import scenes_from_items
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.scenarios.world import at, item, leaning
from tests.shared_data import read_items

SENTINEL_2 = COVERAGE_SENSORS["sentinel-2"]
LANDSAT = COVERAGE_SENSORS["landsat-8-9"]
WHOLE = leaning(5.0, 50.5, 1.4, 1.0)
COLORADO = "planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet"


def product(baseline: str = "0511", generated: str = "20250611T150000", tile: str = "31UFS", start: str = "20250611T104021") -> str:
    return f"S2A_MSIL2A_{start}_N{baseline}_R008_T{tile}_{generated}"


def copy(
    name: str, geometry: BaseGeometry | None, cloud: float | None = 5.0, when: str = "2025-06-11T10:40:21", **properties: Any
) -> dict[str, Any]:
    return item(name, geometry, at(when), cloud=cloud, **{"platform": "sentinel-2a", **properties})


def one_scene(items: list[dict[str, Any]], sensor: Any = SENTINEL_2) -> Any:
    scenes, rejected = scenes_from_items(items, sensor)
    assert len(rejected) == 0
    assert len(scenes) == 1
    return scenes.iloc[0]


def west_of(geometry: BaseGeometry, share: float) -> BaseGeometry:
    west, south, east, north = geometry.bounds
    return geometry & shapely.box(west, south, west + share * (east - west), north)


def footprint(some: dict[str, Any]) -> BaseGeometry:
    return shapely.make_valid(shapely.from_geojson(json.dumps(some["geometry"])))


# Scene: which copies make it up


def test_a_reprocessing_adds_nothing_and_its_cloud_counts_for_nothing() -> None:
    """Design: "Copies of one scene key are taken newest first, by generation time"; "a reprocessing adds nothing"."""
    row = one_scene([copy(product("0500", "20250611T120000"), WHOLE, 90.0), copy(product("0511", "20251001T000000"), WHOLE, 3.0)])
    assert list(row["item_ids"]) == [product("0511", "20251001T000000")]
    assert row["cloud_cover"] == pytest.approx(3.0)


def test_generation_time_goes_before_the_baseline() -> None:
    """Design: "by generation time …, then baseline (Sentinel-2's 9999 marks a special processing, no successor)"."""
    row = one_scene([copy(product("9999", "20250611T120000"), WHOLE, 90.0), copy(product("0500", "20251001T000000"), WHOLE, 3.0)])
    assert list(row["item_ids"]) == [product("0500", "20251001T000000")]
    row = one_scene([copy(product("0511", "20250611T120000"), WHOLE, 90.0), copy(product("0500", "20251001T000000"), WHOLE, 3.0)])
    assert row["cloud_cover"] == pytest.approx(3.0)


def test_a_special_processing_of_the_same_instant_is_no_successor() -> None:
    """Design: "Sentinel-2's 9999 marks a special processing, no successor": with one generation time the ordinary baseline is the newer."""
    row = one_scene([copy(product("9999"), WHOLE, 90.0), copy(product("0511"), WHOLE, 3.0)])
    assert row["cloud_cover"] == pytest.approx(3.0)


def test_an_older_copy_adds_its_part_alone() -> None:
    """Design: "A copy adds only the area that newer ones do not cover"; "cloud = mean of those copies, weighted by the area each added"."""
    new, old = west_of(WHOLE, 0.4), WHOLE
    row = one_scene([copy(product("0511", "20251001T000000"), new, 0.0), copy(product("0500", "20250611T120000"), old, 50.0)])
    assert row.geometry.symmetric_difference(WHOLE).area < 1e-6
    added = (WHOLE - new).area
    assert row["cloud_cover"] == pytest.approx(50.0 * added / (added + new.area), rel=1e-3)
    assert set(row["item_ids"]) == {product("0511", "20251001T000000"), product("0500", "20250611T120000")}


def test_the_cloud_of_a_scene_is_unknown_if_one_of_its_parts_is() -> None:
    """Design: "unknown if one's is"; a copy that adds nothing has no say."""
    parts = [copy(product(generated="20250611T150000"), west_of(WHOLE, 0.5), 2.0)]
    parts.append(copy(product(generated="20250611T190000"), WHOLE - west_of(WHOLE, 0.5), None))
    assert np.isnan(one_scene(parts)["cloud_cover"])
    superseded = copy(product("0500", "20250611T120000"), WHOLE, None)
    assert one_scene([copy(product(), WHOLE, 2.0), superseded])["cloud_cover"] == pytest.approx(2.0)


@pytest.mark.parametrize(("extra", "added"), [(0.01, False), (0.03, True)])
def test_less_than_2_percent_of_its_own_area_adds_nothing(extra: float, added: bool) -> None:
    """Design: "and nothing when that is less than 2 % of its own area (reprocessing jitter is 0.005 % …)"."""
    newer = west_of(WHOLE, 1 - extra)
    row = one_scene([copy(product("0511", "20251001T000000"), newer), copy(product("0500", "20250611T120000"), WHOLE)])
    assert len(row["item_ids"]) == (2 if added else 1)
    assert row.geometry.area == pytest.approx((WHOLE if added else newer).area, rel=1e-3)


def test_a_small_part_of_a_scene_is_kept() -> None:
    """Design: "real parts can be 0.75 % of a scene": it is 2 % of the *copy's* own area that counts."""
    small = west_of(WHOLE, 0.0075)
    big = WHOLE - small
    row = one_scene([copy(product(generated="20250611T190000"), big), copy(product(generated="20250611T150000"), small)])
    assert len(row["item_ids"]) == 2
    assert row.geometry.symmetric_difference(WHOLE).area < 1e-6


def test_a_bounding_box_adds_nothing_to_a_real_footprint() -> None:
    """Design: "Copies whose geometry is a bounding box … come last and add nothing to a real footprint", however new they are."""
    real = leaning(5.0, 50.5, 1.4, 1.0, lean=0.3)
    boxed = copy(product("0511", "20251001T000000"), None, 90.0) | {"bbox": list(real.bounds)}
    row = one_scene([boxed, copy(product("0500", "20250611T120000"), real, 3.0)])
    assert row.geometry.symmetric_difference(real).area < 1e-6
    assert row["cloud_cover"] == pytest.approx(3.0)
    assert row["geometry_source"] != one_scene([boxed])["geometry_source"]


def test_landsat_tiers_follow_where_nothing_says_when_they_were_made() -> None:
    """Design: "then baseline …, Landsat tier": of one acquisition's real-time and tier-1 products the tier-1 is the newer."""
    t1, rt = "LC08_L2SP_180031_20250603_20250610_02_T1", "LC08_L2SP_180031_20250603_20250610_02_RT"
    when = "2025-06-03T09:10:00"
    row = one_scene([copy(rt, WHOLE, 90.0, when, platform="landsat-8"), copy(t1, WHOLE, 3.0, when, platform="landsat-8")], LANDSAT)
    assert list(row["item_ids"]) == [t1]


# The same on real items


def groups(items: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Recorded Sentinel-2 items by satellite and datatake start, and tile, read from the product id."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for some in items:
        name = some["properties"].get("s2:product_uri") or some["id"]
        mission, _, start, _, _, tile = name.removesuffix(".SAFE").split("_")[:6] if name.count("_") >= 6 else ("", "", "", "", "", "")
        if not mission:  # Planetary Computer leaves the baseline out of its ids
            mission, _, start, _, tile = name.split("_")[:5]
        found[(f"{mission}_{start}", tile)].append(some)
    return found


def test_no_area_of_colorado_is_lost() -> None:
    """Design: "Taking the newest product alone loses up to 97 % of a scene": the union of a scene's items is kept, but for jitter."""
    items = read_items(COLORADO)
    scenes, rejected = scenes_from_items(items, SENTINEL_2)
    assert len(rejected) == 0
    taken = {name: row for row in scenes.itertuples() for name in row.item_ids}
    for some in groups(items).values():
        outlines = [footprint(one) for one in some]
        union = shapely.union_all(outlines)
        rows = {row.scene_key: row for one in some if (row := taken.get(one["id"])) is not None}
        assert len(rows) == 1, [one["id"] for one in some]
        (row,) = rows.values()
        assert (union - row.geometry).area <= 0.021 * max(outline.area for outline in outlines), row.scene_key
        assert (row.geometry - union.buffer(1e-6)).area < 1e-9, row.scene_key


def test_colorados_thousand_items_give_12_scenes_of_two_parts() -> None:
    """Design: "Colorado's 1,000 items give 12 scenes of two parts (13SCC's twin adds nothing) and keep 13SDD's small part"."""
    items = read_items(COLORADO)
    assert len(items) == 1000
    scenes, _ = scenes_from_items(items, SENTINEL_2)
    parts = scenes[scenes["item_ids"].map(len) == 2]
    assert len(parts) == 12
    assert scenes["item_ids"].map(len).max() == 2
    assert len(scenes) == len(groups(items))
    twins = [some for (_, tile), some in groups(items).items() if tile == "T13SCC" and len(some) > 1]
    assert twins, "13SCC has a twin"
    adds_nothing = 0
    for some in twins:
        names = {one["id"] for one in some}
        rows = scenes[scenes["item_ids"].map(lambda ids, names=names: bool(names & set(ids)))]
        assert len(rows) == 1
        adds_nothing += len(rows.iloc[0]["item_ids"]) == 1
    assert adds_nothing == 1
    small = [some for (_, tile), some in groups(items).items() if tile == "T13SDD" and len(some) > 1]
    assert small, "13SDD has parts"
    for some in small:
        names = {one["id"] for one in some}
        row = scenes[scenes["item_ids"].map(lambda ids, names=names: bool(names & set(ids)))].iloc[0]
        assert set(row["item_ids"]) == names, "the small part is kept"
        union = shapely.union_all([footprint(one) for one in some])
        assert row.geometry.symmetric_difference(union).area < 1e-6


@pytest.mark.parametrize(
    "name",
    ["cdse-stac__sentinel-2-l2a.ndjson.gz", "planetary-computer__sentinel-2-l2a.ndjson.gz", "earth-search__sentinel-2-l2a.ndjson.gz"],
)
def test_no_area_of_a_recorded_series_is_lost(name: str) -> None:
    """Design: "CDSE-like series lose no area": over all its scenes, tile by tile and datatake by datatake."""
    items = read_items(name)
    scenes, rejected = scenes_from_items(items, SENTINEL_2)
    gone = set(rejected["item_id"]) if len(rejected) else set()
    listed = [some for some in items if some["id"] not in gone and some.get("geometry")]
    for some in groups_or_alone(listed).values():
        union = shapely.union_all([footprint(one) for one in some])
        names_of = {one["id"] for one in some}
        rows = scenes[scenes["item_ids"].map(lambda ids, names_of=names_of: bool(names_of & set(ids)))]
        assert len(rows) >= 1
        covered = shapely.union_all(list(rows.geometry))
        assert (union - covered).area <= 0.021 * union.area


def groups_or_alone(items: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for some in items:
        try:
            key: Any = next(iter(groups([some])))
        except ValueError:
            key = some["id"]
        found[key].append(some)
    return found


def series_like_cdse() -> list[dict[str, Any]]:
    """A year of one tile as the Copernicus Data Space lists it: a reprocessing of everything, and every fourth pass in two parts."""
    items = []
    for k in range(36):
        day = dt.datetime(2025, 1, 3, tzinfo=dt.UTC) + dt.timedelta(days=10 * k)
        start = f"{day:%Y%m%d}T104021"
        parts = [WHOLE] if k % 4 else [west_of(WHOLE, 0.0075 + 0.1 * (k % 9)), WHOLE - west_of(WHOLE, 0.0075 + 0.1 * (k % 9))]
        for baseline, year in (("0500", "2025"), ("0511", "2026")):
            for n, part in enumerate(parts):
                name = product(baseline, f"{year}{day:%m%d}T1{n}0000", start=start)
                strip = f"S2A_OPER_MSI_L2A_DS_2APS_{year}{day:%m%d}T1{n}0000_S{day:%Y%m%d}T104020_N0{baseline[1]}.{baseline[2:]}"
                items.append(copy(name, part, 5.0, f"{day:%Y-%m-%d}T10:40:21", **{"s2:datastrip_id": strip}))
    return items


def test_a_series_like_cdses_loses_no_area() -> None:
    """The same by hand: whatever datastrips say, every pass has its whole footprint, of the newer products alone."""
    scenes, rejected = scenes_from_items(series_like_cdse(), SENTINEL_2)
    assert (len(scenes), len(rejected)) == (36, 0)
    for row in scenes.itertuples():
        assert row.geometry.symmetric_difference(WHOLE).area < 1e-6, row.scene_key
        assert not [name for name in row.item_ids if "_N0500_" in name], row.scene_key


# Pass time


def landsat_pass(path: int, rows: range, crossing: dt.datetime) -> list[dict[str, Any]]:
    """Rows of one descending pass: row 60 is passed at the crossing of the equator, 23.92 s a row (design section 4)."""
    items = []
    for row in rows:
        when = crossing + dt.timedelta(seconds=23.92 * (row - 60))
        outline = leaning(150.0, -1.55 * (row - 60), 1.7, 1.6)
        name = f"LC09_L2SP_{path:03}{row:03}_{when:%Y%m%d}_20250610_02_T1"
        items.append(item(name, outline, when, platform="landsat-9"))
    return items


def test_a_landsat_pass_across_midnight_is_one_observation() -> None:
    """Design: "for Landsat the path's crossing of the equator (rows 1-122: own time − (row − 60) × 23.92 s …): eastern Australia is
    passed at
    midnight UTC, and two rows of one pass are one observation"."""
    crossing = at("2025-06-02T23:51:00")
    items = landsat_pass(90, range(76, 90), crossing)
    own = {some["properties"]["datetime"][:10] for some in items}
    assert own == {"2025-06-02", "2025-06-03"}, "the pass is made across midnight"
    scenes, rejected = scenes_from_items(items, LANDSAT)
    assert (len(scenes), len(rejected)) == (14, 0)
    assert {str(time)[:10] for time in scenes["pass_time"]} == {"2025-06-02"}
    for time in scenes["pass_time"]:
        assert abs((time.to_pydatetime() - crossing).total_seconds()) < 0.1
    # "All times that an item gives are kept", and "The scene key keeps the id's date".
    assert sorted(str(time)[:19] for time in scenes["acquired"]) == sorted(
        str(at(some["properties"]["datetime"][:19]))[:19] for some in items
    )
    keys = " ".join(scenes["scene_key"])
    assert "20250602" in keys
    assert "20250603" in keys


def test_an_ascending_landsat_pass_has_its_crossing_too() -> None:
    """Design: "rows 123-248, ascending: own time − (row − 184) × 23.92 s"."""
    own = at("2025-06-03T00:05:00")
    row = one_scene([item("LC09_L2SP_090200_20250603_20250610_02_T1", WHOLE, own, platform="landsat-9")], LANDSAT)
    expected = own - dt.timedelta(seconds=16 * 23.92)
    assert abs((row["pass_time"].to_pydatetime() - expected).total_seconds()) < 0.1


def test_path_and_row_come_from_properties_where_the_id_has_none() -> None:
    """Design: "path and row from the id or `landsat:wrs_*`, neither: own time"."""
    own = at("2025-06-03T00:05:00")
    with_row = item("scene-a", WHOLE, own, platform="landsat-9", **{"landsat:wrs_path": "090", "landsat:wrs_row": "078"})
    expected = own - dt.timedelta(seconds=18 * 23.92)
    assert abs((one_scene([with_row], LANDSAT)["pass_time"].to_pydatetime() - expected).total_seconds()) < 0.1
    without = item("scene-b", WHOLE, own, platform="landsat-9")
    assert one_scene([without], LANDSAT)["pass_time"].to_pydatetime() == own


def test_real_landsat_scenes_keep_the_16_day_calendar() -> None:
    """Design: "(116 real passes agree within 0.36 s; 865 of 865 real scenes keep the 16-day calendar.)": rows of one path and day have one
    crossing, and crossings of a satellite's path lie 16 days apart."""
    items = [some for some in read_items("planetary-computer__landsat-8-c2-l2.ndjson.gz") if some.get("geometry")]
    scenes, _ = scenes_from_items(items, LANDSAT)
    passes: dict[tuple[str, str], list[dt.datetime]] = defaultdict(list)
    for row in scenes.itertuples():
        mission, _, place, *_ = row.item_ids[0].split("_")
        passes[(mission, place[:3])].append(row.pass_time.to_pydatetime())
    assert passes
    for (mission, path), times in passes.items():
        days = sorted({time.date() for time in times})
        assert {(day - days[0]).days % 16 for day in days} == {0}, (mission, path)
        for time in times:
            same = [other for other in times if other.date() == time.date()]
            assert (max(same) - min(same)).total_seconds() < 1.0, (mission, path, time)


def test_the_pass_of_a_sentinel_2_scene_is_its_datatakes_start() -> None:
    """Design: "For Sentinel-2 the datatake's start (from product_uri, datatake id or id) whatever `datetime` says"."""
    own = "2025-06-11T11:02:10"
    start = at("2025-06-11T10:40:21")
    short = copy("S2A_31UFS_20250611_0_L2A", WHOLE, when=own, **{"s2:product_uri": f"{product()}.SAFE"})
    assert one_scene([short])["pass_time"].to_pydatetime() == start
    by_datatake = copy("S2A_31UFS_20250611_0_L2A", WHOLE, when=own, **{"s2:datatake_id": "GS2A_20250611T104021_051234_N05.11"})
    assert one_scene([by_datatake])["pass_time"].to_pydatetime() == start
    named = one_scene([copy(product(), WHOLE, when=own)])
    assert named["pass_time"].to_pydatetime() == start
    assert named["acquired"].to_pydatetime() == at(own)


def test_for_other_sensors_the_pass_is_the_acquisition() -> None:
    """Design: "for the rest the acquisition time": "`datetime`, else `start_datetime`"."""
    some = item("a", WHOLE, None, start_datetime="2025-06-11T10:00:00Z", end_datetime="2025-06-11T10:20:00Z")
    row = one_scene([some], COVERAGE_SENSORS["emit"])
    assert row["acquired"].to_pydatetime() == row["pass_time"].to_pydatetime() == at("2025-06-11T10:00:00")


# Outlines


def test_holes_outside_their_shell_or_around_it_are_repaired_by_structure() -> None:
    """Issue 13, item 13: "Holes outside their shell, holes around it: repaired by structure": a hole takes away what it covers of its
    shell, and never adds area."""
    shell = [[5.0, 50.0], [6.0, 50.0], [6.0, 51.0], [5.0, 51.0], [5.0, 50.0]]
    outside = [[8.0, 50.2], [8.4, 50.2], [8.4, 50.6], [8.0, 50.6], [8.0, 50.2]]
    inside = [[5.2, 50.2], [5.2, 50.6], [5.6, 50.6], [5.6, 50.2], [5.2, 50.2]]
    around = [[4.0, 49.0], [4.0, 52.0], [7.0, 52.0], [7.0, 49.0], [4.0, 49.0]]
    square = shapely.Polygon(shell)

    def of(*rings: Any) -> tuple[Any, Any]:
        some = copy(product(), WHOLE)
        some["geometry"] = {"type": "Polygon", "coordinates": list(rings)}
        some["bbox"] = [5.0, 50.0, 6.0, 51.0]
        return scenes_from_items([some], SENTINEL_2)

    scenes, _ = of(shell, outside)
    assert scenes.iloc[0].geometry.symmetric_difference(square).area < 1e-9
    scenes, _ = of(shell, inside, outside)
    assert scenes.iloc[0].geometry.symmetric_difference(square - shapely.Polygon(inside)).area < 1e-9
    scenes, rejected = of(shell, around)
    # A hole around its shell leaves nothing, or is no hole of it: never the ring between the two.
    if len(scenes):
        assert (scenes.iloc[0].geometry - square).area < 1e-9
    else:
        assert len(rejected) == 1
