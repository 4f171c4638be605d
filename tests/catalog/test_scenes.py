"""Every item ends in one of two tables: a scene with its own footprint, time and cloud, or rejected with a reason."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import numpy as np
import pytest
import shapely

from coverage_pipeline.catalog.scenes import SCENES_SCHEMA, SceneCollector, parse_cloud, scenes_from_items
from coverage_pipeline.sensors import COVERAGE_SENSORS
from tests.catalog.items import item, sensor, square
from tests.shared_data import read_items

S2 = COVERAGE_SENSORS["sentinel-2"]
COLORADO = "planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet"


def only(items: list[Any]) -> Any:
    scenes, rejected = scenes_from_items(items, sensor())
    assert len(rejected) == 0, rejected
    assert len(scenes) == 1
    return scenes.iloc[0]


def reason(one: Any) -> str:
    scenes, rejected = scenes_from_items([one], sensor())
    assert len(scenes) == 0
    assert len(rejected) == 1
    return str(rejected.reason.iloc[0])


def test_the_thousand_colorado_items_are_987_scenes() -> None:
    items = read_items(COLORADO)
    scenes, rejected = scenes_from_items(items, S2)
    assert (len(items), len(scenes), len(rejected)) == (1000, 987, 0)
    united = scenes[scenes.item_ids.map(len) > 1]
    assert len(united) == 13
    parts = {i["id"]: i for i in items}
    for scene in united.itertuples():
        shapes = [shapely.geometry.shape(parts[p]["geometry"]) for p in scene.item_ids]
        areas = [s.area for s in shapes]
        assert shapely.equals(shapely.normalize(scene.geometry), shapely.normalize(shapely.union_all(shapes)))
        clouds = [parts[p]["properties"]["eo:cloud_cover"] for p in scene.item_ids]
        assert scene.cloud_cover == pytest.approx(np.average(clouds, weights=areas))


def test_the_newest_reprocessing_of_one_datastrip_wins() -> None:
    original = read_items(COLORADO)[0]
    newer = json.loads(json.dumps(original))
    newer["id"] = newer["id"][:-15] + "20260101T000000"
    newer["properties"] |= {"s2:generation_time": "2026-01-01T00:00:00Z", "eo:cloud_cover": 77.0, "s2:processing_baseline": "05.12"}
    newer["geometry"] = square()
    for order in ([original, newer], [newer, original]):
        scenes, _ = scenes_from_items(order, S2)
        assert len(scenes) == 1
        assert scenes.iloc[0].cloud_cover == 77.0
        assert list(scenes.iloc[0].item_ids) == [newer["id"]]
        assert scenes.iloc[0].geometry.area == pytest.approx(1.0)


def test_copies_without_datastrip_unite_those_of_the_highest_baseline() -> None:
    name = "S2A_MSIL2A_20240828T174909_N{}_R141_T13TEF_2024082{}T214916"
    copies = [
        item(name.format("0500", 8), geometry=square(0)),
        item(name.format("0511", 8), geometry=square(10)),
        item(name.format("0511", 9), geometry=square(20)),
    ]
    scenes, _ = scenes_from_items(copies, S2)
    assert len(scenes) == 1
    assert scenes.iloc[0].geometry.area == pytest.approx(2.0)
    assert not scenes.iloc[0].geometry.intersects(shapely.box(0.2, 50.2, 0.8, 50.8))


def test_the_union_of_parts_is_unknown_cloud_where_one_is() -> None:
    name = "S2A_MSIL2A_20240828T174909_N0511_R141_T13TEF_2024082{}T214916"
    strip = "S2A_OPER_MSI_L2A_DS_2APS_20240828T214916_S20240828T18000{}_N05.11"
    parts = [
        item(name.format(k), geometry=square(10 * k), properties={"s2:datastrip_id": strip.format(k), "eo:cloud_cover": cloud})
        for k, cloud in ((0, 100.0), (1, None))
    ]
    assert math.isnan(scenes_from_items(parts, S2)[0].iloc[0].cloud_cover)


def test_the_mean_cloud_of_parts_never_passes_100() -> None:
    """Regression: the area-weighted mean of 100 and 100 came out as 100.00000000000001, which the grid refuses."""
    rng = np.random.default_rng(3)
    name = "S2A_MSIL2A_20240828T1749{:02d}_N0511_R141_T13TEF_2024082{}T214916"
    strip = "S2A_OPER_MSI_L2A_DS_2APS_20240828T214916_S20240828T18000{}_N05.11"
    items = [
        item(
            name.format(s, k),
            geometry=square(2 * k, size=float(rng.uniform(0.1, 1))),
            properties={"s2:datastrip_id": strip.format(k), "eo:cloud_cover": 100.0},
        )
        for s in range(60)
        for k in range(3)
    ]
    scenes, _ = scenes_from_items(items, S2)
    assert len(scenes) == 60
    assert (scenes.cloud_cover == 100.0).all()


def test_landsat_keeps_the_highest_tier_and_only_its_platforms() -> None:
    landsat = COVERAGE_SENSORS["landsat-8-9"]
    ids = ["LC08_L2SP_044034_20250130_02_RT", "LC08_L2SP_044034_20250130_02_T1", "LE07_L2SP_044034_20250130_02_T1"]
    platforms = ["landsat-8", "landsat-8", "landsat-7"]
    items = [item(i, properties={"platform": p}) for i, p in zip(ids, platforms, strict=True)]
    scenes, rejected = scenes_from_items(items, landsat)
    assert [list(ids) for ids in scenes.item_ids] == [["LC08_L2SP_044034_20250130_02_T1"]]
    assert len(rejected) == 0


def test_enmap_clouds_come_as_strings() -> None:
    scenes, _ = scenes_from_items(read_items("dlr__ENMAP_HSI_L2A.ndjson.gz"), COVERAGE_SENSORS["enmap"])
    assert scenes.cloud_cover.notna().all()
    assert scenes.cloud_raw.str.startswith('"').all()


@pytest.mark.parametrize(
    ("value", "cloud"),
    [("72", 72.0), (0, 0.0), (100, 100.0), (72.5, 72.5), (" 3 ", 3.0)],
)
def test_known_clouds(value: Any, cloud: float) -> None:
    assert parse_cloud(value) == cloud


@pytest.mark.parametrize("value", [None, -1, 101, "cloudy", "", True, math.nan, "nan", [5], {"a": 1}])
def test_unknown_clouds(value: Any) -> None:
    assert math.isnan(parse_cloud(value))


def test_coordinates_in_three_dimensions_are_flattened() -> None:
    flat = square()
    raised = {"type": "Polygon", "coordinates": [[[x, y, 12.5] for x, y in flat["coordinates"][0]]]}
    scene = only([item(geometry=raised)])
    assert not scene.geometry.has_z
    assert scene.geometry.equals(shapely.geometry.shape(flat))


def test_a_longitude_of_minus_190_is_170_east() -> None:
    scene = only([item(geometry=square(-190.5, size=1.0))])
    assert scene.geometry.bounds == pytest.approx((169.5, 50, 170.5, 51))


def test_a_footprint_across_the_antimeridian_is_split_not_dropped() -> None:
    ring = [[179.5, 0], [-179.5, 0], [-179.5, 1], [179.5, 1], [179.5, 0]]
    scene = only([item(geometry={"type": "Polygon", "coordinates": [ring]})])
    assert scene.geometry.geom_type == "MultiPolygon"
    assert scene.geometry.area == pytest.approx(1.0)


def test_a_ring_that_crosses_itself_is_mended() -> None:
    bowtie = {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}
    scene = only([item(geometry=bowtie)])
    assert scene.geometry.is_valid
    assert scene.geometry.area == pytest.approx(2.0)


def test_a_ring_that_is_not_closed_is_closed() -> None:
    open_ring = {"type": "Polygon", "coordinates": [square()["coordinates"][0][:-1]]}
    assert only([item(geometry=open_ring)]).geometry.area == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (item(when=None), "no time"),
        (item(when="yesterday"), "time cannot be read: 'yesterday'"),
        (item(geometry=None, bbox=None), "geometry missing"),
        (item(geometry={"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}), "geometry cannot be read"),
        (item(geometry={"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0], [0, 0]]]}), "geometry has no area"),
        (item(geometry={"type": "Polygon"}), "geometry cannot be read"),
        (item(geometry="POLYGON"), "geometry cannot be read"),
        (item(geometry={"type": "Point", "coordinates": [0, 0]}), "geometry is not a polygon"),
        (item(geometry=square(0, 89.5, 2)), "latitude beyond ±90"),
        (item(properties={"datetime": None, "start_datetime": "?"}), "time cannot be read: '?'"),
        ("a string", "not a STAC item"),
        (None, "not a STAC item"),
        ({"id": 5}, "not a STAC item: id or properties missing"),
        (item("half a character \ud800"), "not a STAC item: id or properties missing"),
        ({"id": "x", "properties": None}, "not a STAC item: id or properties missing"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_cannot_be_used_is_rejected_with_its_reason(broken: Any, expected: str) -> None:
    assert reason(broken) == expected


def test_a_bounding_box_serves_only_where_there_is_no_geometry_and_is_flagged() -> None:
    scene = only([item(geometry=None, bbox=[10, 20, 0, 11, 21, 5])])
    assert scene.geometry_source == "bbox"
    assert scene.geometry.bounds == (10, 20, 11, 21)
    assert only([item()]).geometry_source == "footprint"


def test_a_box_wider_than_half_the_globe_is_not_read_the_short_way_round() -> None:
    """Regression: [-170, -10, 170, 10] became the 20° strip at the antimeridian."""
    scene = only([item(geometry=None, bbox=[-170, -10, 170, 10])])
    assert scene.geometry.area == pytest.approx(340 * 20)
    across = only([item(geometry=None, bbox=[10, 0, -10, 1])])
    assert across.geometry.area == pytest.approx(340)


def test_texts_with_half_a_character_are_written_all_the_same() -> None:
    scene = only([item(properties={"platform": "p\ud800"}, collection="c\ud800", links=[{"rel": "self", "href": "https://x/\ud800"}])])
    assert (scene.platform, scene.collection, scene.item_href) == ("p?", "c?", "https://x/?")


def test_start_datetime_stands_in_for_a_null_datetime() -> None:
    scene = only([item(when=None, properties={"start_datetime": "2025-01-02T03:04:05Z", "end_datetime": "2025-01-02T03:04:17Z"})])
    assert scene.acquired == dt.datetime(2025, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def test_the_months_last_half_second_belongs_to_it() -> None:
    start, end = dt.datetime(2025, 1, 1, tzinfo=dt.UTC), dt.datetime(2025, 2, 1, tzinfo=dt.UTC)
    collector = SceneCollector(sensor(), start=start, end=end)
    collector.add([item("last", "2025-01-31T23:59:59.5Z"), item("next", "2025-02-01T00:00:00Z"), item("first", "2025-01-01T00:00:00Z")])
    assert [ids[0] for ids in collector.finish()["item_ids"].to_pylist()] == ["first", "last"]
    assert collector.outside == 1


def test_an_earth_search_scene_stays_in_the_month_of_its_datatake() -> None:
    """Earth Search's own time can lie up to 27 minutes later, on the other side of midnight."""
    product = "S2A_MSIL2A_20250131T235501_N0511_R141_T13TDE_20250201T030000.SAFE"
    late = item("S2A_13TDE_20250201_0_L2A", "2025-02-01T00:10:00Z", properties={"s2:product_uri": product})
    january = SceneCollector(S2, start=dt.datetime(2025, 1, 1, tzinfo=dt.UTC), end=dt.datetime(2025, 2, 1, tzinfo=dt.UTC))
    february = SceneCollector(S2, start=dt.datetime(2025, 2, 1, tzinfo=dt.UTC), end=dt.datetime(2025, 3, 1, tzinfo=dt.UTC))
    january.add([late])
    february.add([late])
    assert (january.finish().num_rows, february.finish().num_rows) == (1, 0)


def test_the_same_id_twice_is_one_item() -> None:
    collector = SceneCollector(sensor())
    assert collector.add([item("a"), item("a"), item("b")]) == 2
    assert collector.duplicates == 1
    assert collector.finish().num_rows == 2


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("planetary-computer__landsat-8-c2-l2.ndjson.gz", "landsat-8-9"),
        ("planetary-computer__sentinel-2-l2a.ndjson.gz", "sentinel-2"),
        ("earth-search__sentinel-2-l2a.ndjson.gz", "sentinel-2"),
        ("earth-search__sentinel-2-c1-l2a.ndjson.gz", "sentinel-2"),
        ("cdse-stac__sentinel-2-l2a.ndjson.gz", "sentinel-2"),
        ("esa-stactools__sentinel-2-l2a.ndjson.gz", "sentinel-2"),
        ("esa-stactools__sentinel-2-l1c.ndjson.gz", "sentinel-2"),
        ("dlr__ENMAP_HSI_L2A.ndjson.gz", "enmap"),
        ("dlr__ENMAP_HSI_L0_QL.ndjson.gz", "enmap"),
        ("cmr-stac__HLSL30.v1.5.ndjson.gz", "landsat-8-9"),
    ],
)
def test_every_recorded_item_is_in_exactly_one_table(name: str, key: str) -> None:
    items = read_items(name)
    collector = SceneCollector(COVERAGE_SENSORS[key])
    collector.add(items)
    scenes, rejected = collector.finish(), collector.rejected()
    assert scenes.schema.equals(SCENES_SCHEMA)
    listed = [i for ids in scenes["item_ids"].to_pylist() for i in ids]
    assert len(listed) == len(set(listed))
    assert len(listed) + collector.superseded + rejected.num_rows + collector.duplicates == len(items)
    assert shapely.is_valid(shapely.from_wkb(scenes["geometry"].to_numpy(zero_copy_only=False))).all()
