"""Every item ends in one of two tables: a scene with its own footprint, time and cloud, or rejected with a reason."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
import shapely.affinity

from coverage_pipeline.geometry.footprints import area_km2
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.scenes.item_fields import parse_cloud
from coverage_pipeline.scenes.items import SceneCollector, as_geodataframe, scenes_from_items
from coverage_pipeline.scenes.schema import SCENES_SCHEMA
from coverage_pipeline.scenes.statistics import availability_table
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.catalog.items import item, sensor, square
from tests.shared_data import read_items, shared_data

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


CASES = "cases/01a-s2-parts-same-strip-start"
NAME = "S2A_MSIL2A_20240828T174909_N{}_R141_T13TEF_{}"
"""An id of one tile and datatake: baseline and generation time."""


def rectangle(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    return json.loads(shapely.to_geojson(shapely.box(west, south, east, north)))  # type: ignore[no-any-return]


def copy_of(generated: str, geometry: Any, cloud: float | None = 5.0, baseline: str = "0511", **properties: Any) -> dict[str, Any]:
    return item(NAME.format(baseline, generated), geometry=geometry, properties={"eo:cloud_cover": cloud, **properties})


def collected(items: list[Any], key: str = "sentinel-2") -> SceneCollector:
    collector = SceneCollector(COVERAGE_SENSORS[key])
    collector.add(items)
    return collector


def test_the_thousand_colorado_items_are_987_scenes_twelve_of_them_of_two_parts() -> None:
    """The expected parts by the rule of design section 4, written out for pairs: what is left of the older outside the newer."""
    items = read_items(COLORADO)
    scenes, rejected = scenes_from_items(items, S2)
    assert (len(items), len(scenes), len(rejected)) == (1000, 987, 0)
    united = scenes[scenes.item_ids.map(len) > 1]
    assert len(united) == 12
    parts = {i["id"]: i for i in items}
    for scene in united.itertuples():
        newer, older = scene.item_ids
        assert newer[-15:] > older[-15:]  # generation times
        shapes = [shapely.geometry.shape(parts[p]["geometry"]) for p in (newer, older)]
        areas = [shapes[0].area, shapely.difference(shapes[1], shapes[0]).area]
        assert shapely.equals(shapely.normalize(scene.geometry), shapely.normalize(shapely.union_all(shapes)))
        clouds = [parts[p]["properties"]["eo:cloud_cover"] for p in scene.item_ids]
        assert scene.cloud_cover == pytest.approx(np.average(clouds, weights=areas))
        assert scene.item_href == next(link["href"] for link in parts[newer]["links"] if link["rel"] == "self")
        assert [one["item_id"] for one in scene.copies] == [newer, older]
        assert all(shapely.equals(shapely.from_wkb(one["geometry"]), s) for one, s in zip(scene.copies, shapes, strict=True))
    assert scenes.copies[scenes.item_ids.map(len) == 1].isna().all()


def test_colorados_13scc_needs_one_product_and_13sdd_both() -> None:
    scenes = scenes_from_items(read_items(COLORADO), S2)[0].set_index("scene_key")
    whole = scenes.loc["S2B_20240719T174909_T13SCC"]
    assert list(whole.item_ids) == ["S2B_MSIL2A_20240719T174909_R141_T13SCC_20240720T020024"]  # its twin's 538 km² lie within it
    assert whole.copies is None
    # Of 13SDD the newer product has 415 of 12,054 km²: taken alone it would lose 97 % of the scene.
    parted = scenes.loc["S2B_20240719T174909_T13SDD"]
    assert [name[-15:] for name in parted.item_ids] == ["20240720T014201", "20240720T012941"]
    assert area_km2(np.array([parted.geometry])) == pytest.approx(12_054, abs=1)
    small = scenes.loc["S2A_20240820T173901_T13SDD"]
    assert len(small.item_ids) == 2  # 0.75 % of the scene is the older product's alone: 5.3 % of its own area
    collector = collected(read_items(COLORADO))
    collector.finish()
    assert (collector.superseded, collector.united) == (1, 12)


def test_a_series_without_strips_and_pixel_statistics_loses_no_area() -> None:
    """The recorded items as a catalogue like CDSE's may give them: ids and footprints, and nothing of strips or missing pixels."""
    items = read_items(COLORADO)
    for one in items:
        properties = one["properties"]
        one["properties"] = {name: properties[name] for name in ("datetime", "eo:cloud_cover", "platform")}
        one["properties"]["processing:version"] = properties["s2:processing_baseline"]
    scenes, _ = scenes_from_items(items, S2)
    of_key: dict[str, list[Any]] = {}
    for one in items:
        mission, _, start, _, tile, _ = one["id"].split("_")
        of_key.setdefault(f"{mission}_{start}_{tile}", []).append(shapely.geometry.shape(one["geometry"]))
    assert len(scenes) == len(of_key)
    for scene in scenes.itertuples():
        lost = shapely.difference(shapely.union_all(of_key[scene.scene_key]), scene.geometry)
        assert lost.area <= 5e-5 * scene.geometry.area, scene.scene_key  # the jitter between two products' edges


@pytest.mark.parametrize("name", ["same_strip_disjoint", "old_copy_without_strip"])
@pytest.mark.parametrize("turned", [False, True])
def test_case_01a_two_halves_and_an_older_copy_of_one(name: str, turned: bool) -> None:
    items = json.loads((shared_data() / CASES / f"{name}.json").read_text())
    collector = collected(items[::-1] if turned else items)
    scene = as_geodataframe(collector.finish()).iloc[0]
    assert scene.cloud_cover == pytest.approx(50)
    assert len(scene.item_ids) == 2
    assert not any("_N0510_" in item_id for item_id in scene.item_ids)
    assert shapely.equals(scene.geometry, shapely.union_all([shapely.geometry.shape(one["geometry"]) for one in items]))
    assert (collector.superseded, collector.united) == (1, 1)


def test_a_newer_reprocessing_takes_the_place_of_the_older() -> None:
    original = read_items(COLORADO)[0]
    newer = json.loads(json.dumps(original))
    newer["id"] = newer["id"][:-15] + "20260101T000000"
    newer["properties"] |= {"s2:generation_time": "2026-01-01T00:00:00Z", "eo:cloud_cover": 77.0, "s2:processing_baseline": "05.12"}
    newer["properties"].pop("s2:product_uri")
    jitter = shapely.affinity.translate(shapely.geometry.shape(original["geometry"]), 1e-5, 1e-5)
    newer["geometry"] = json.loads(shapely.to_geojson(jitter))
    for order in ([original, newer], [newer, original]):
        scenes, _ = scenes_from_items(order, S2)
        assert len(scenes) == 1
        assert scenes.iloc[0].cloud_cover == 77.0
        assert list(scenes.iloc[0].item_ids) == [newer["id"]]
        assert shapely.equals(scenes.iloc[0].geometry, jitter)


def test_the_newest_is_the_one_made_last_whatever_its_baseline_says() -> None:
    """9999 marks a special processing: older than the 0500 beside it here, and in 36 of 102 real cases of one tile."""
    copies = [copy_of("20240829T000000", square(), 1.0, "0500"), copy_of("20240828T000000", square(), 2.0, "9999")]
    assert scenes_from_items(copies, S2)[0].cloud_cover.tolist() == [1.0]
    copies = [copy_of("20240829T000000", square(), 1.0, "0500"), copy_of("20240830T000000", square(), 2.0, "9999")]
    assert scenes_from_items(copies, S2)[0].cloud_cover.tolist() == [2.0]
    # Made at the same time: the baseline decides, and 9999 is no successor of any.
    for baseline, cloud in (("9999", 1.0), ("0511", 2.0)):
        copies = [copy_of("20240829T000000", square(), 1.0, "0500"), copy_of("20240829T000000", square(), 2.0, baseline)]
        assert scenes_from_items(copies, S2)[0].cloud_cover.tolist() == [cloud]


def test_a_copy_that_does_not_say_when_it_was_made_is_the_oldest() -> None:
    tile = {"s2:datatake_id": "GS2A_20240828T174909_048013_N05.11", "s2:mgrs_tile": "13TEF"}
    dated = item("dated", properties={**tile, "eo:cloud_cover": 1.0, "processing:datetime": "2024-08-29T00:00:00Z"})
    bare = item("zz-bare", properties={**tile, "eo:cloud_cover": 2.0, "s2:processing_baseline": "05.12"})
    scenes, _ = scenes_from_items([bare, dated], S2)
    assert list(scenes.iloc[0].item_ids) == ["dated"]
    revisions = [item(f"S2A_13TEF_20240828_{k}_L2A", properties={**tile, "eo:cloud_cover": float(k)}) for k in (0, 1, 10, 2)]
    scenes, _ = scenes_from_items(revisions, S2)
    assert scenes.cloud_cover.tolist() == [10.0]
    sequences = [item(f"copy-{k}", properties={**tile, "eo:cloud_cover": float(k), "s2:sequence": str(2 - k)}) for k in range(3)]
    scenes, _ = scenes_from_items(sequences, S2)
    assert scenes.cloud_cover.tolist() == [0.0]


@pytest.mark.parametrize(("share", "adds"), [(0.019, False), (0.021, True)])
def test_a_copy_adds_nothing_below_two_hundredths_of_its_own_area(share: float, adds: bool) -> None:
    newer = copy_of("20240829T000000", rectangle(5, 50, 6, 51), 0.0)
    older = copy_of("20240828T000000", rectangle(5 + share, 50, 6 + share, 51), 100.0)
    collector = collected([older, newer])
    scene = as_geodataframe(collector.finish()).iloc[0]
    assert scene.geometry.bounds == pytest.approx((5, 50, 6 + share * adds, 51))
    assert scene.cloud_cover == pytest.approx(100 * share / (1 + share) * adds)
    assert (collector.superseded, collector.united) == ((0, 1) if adds else (1, 0))


@pytest.mark.parametrize("seed", range(25))
def test_copies_of_many_scenes_are_merged_as_one_by_one(seed: int) -> None:
    """The oracle takes the copies of a scene in turn, on unit squares: sets of whole numbers instead of geometries."""
    rng = np.random.default_rng(seed)
    items, wanted = [], {}
    for scene in range(6):
        name = f"S2A_MSIL2A_202408{scene + 10}T174909_N0511_R141_T13TEF_{{}}"
        copies = []
        for k in range(int(rng.integers(1, 6))):
            w, s = rng.integers(0, 8, 2)
            e, n = w + rng.integers(1, 10), s + rng.integers(1, 10)
            cells = {(x, y) for x in range(w, e) for y in range(s, n)}
            cloud = None if rng.random() < 0.1 else float(rng.integers(0, 101))
            one = item(name.format(f"2024090{k}T000000"), geometry=rectangle(w / 10, s / 10, e / 10, n / 10))
            one["properties"]["eo:cloud_cover"] = cloud
            items.append(one)
            copies.append((one["id"], cells, cloud))
        covered: set[tuple[int, int]] = set()
        ids, clouds, weights = [], [], []
        for item_id, cells, cloud in reversed(copies):
            news = cells - covered
            if len(news) >= 0.02 * len(cells):
                ids.append(item_id)
                clouds.append(math.nan if cloud is None else cloud)
                weights.append(len(news))
                covered |= cells
        wanted[ids[0].split("_")[2]] = (ids, len(covered), float(np.average(clouds, weights=weights)))
    collector = collected([items[k] for k in rng.permutation(len(items))])
    scenes = as_geodataframe(collector.finish())
    assert len(scenes) == len(wanted)
    for found in scenes.itertuples():
        ids, cells, cloud = wanted[found.scene_key.split("_")[1]]
        assert list(found.item_ids) == ids
        assert found.geometry.area == pytest.approx(cells / 100)
        assert found.cloud_cover == pytest.approx(cloud, nan_ok=True)
    made_of = sum(len(ids) for ids, _, _ in wanted.values())
    assert (collector.superseded, collector.united) == (len(items) - made_of, made_of - len(wanted))


def test_a_bounding_box_comes_last_and_adds_nothing_to_a_footprint() -> None:
    box = item(NAME.format("0511", "20240901T000000"), geometry=None, bbox=[4.9, 49.9, 6.3, 51.2], properties={"eo:cloud_cover": 9.0})
    real = copy_of("20240828T000000", square(), 1.0)
    assert len(scenes_from_items([box], S2)[0]) == 1  # usable where it is all there is
    scene = scenes_from_items([box, real], S2)[0].iloc[0]
    assert (list(scene.item_ids), scene.geometry_source, scene.cloud_cover) == ([real["id"]], "footprint", 1.0)
    assert scene.geometry.bounds == (5, 50, 6, 51)
    older = {**box, "id": NAME.format("0511", "20240827T000000"), "bbox": [6.1, 49.9, 6.3, 51.2]}
    boxes = scenes_from_items([older, box], S2)[0].iloc[0]  # where there are but boxes they are all there is
    assert (list(boxes.item_ids), boxes.geometry_source) == ([box["id"]], "bbox")


# The square of tile 31UFT's size at 5° E, 52° N, and what a pass may have of it.
TILE = shapely.Polygon([(4.44, 52.30), (6.05, 52.27), (5.98, 51.28), (4.40, 51.31)])
STRIP = shapely.Polygon([(4.44, 52.30), (5.3, 52.284), (5.0, 51.298), (4.40, 51.31)])


@pytest.mark.parametrize(
    ("properties", "baseline", "is_footprint"),
    [
        ({}, "0510", False),  # a reprocessing of the same pass has less
        ({}, "0511", True),  # products of one baseline are parts
        ({"s2:nodata_pixel_percentage": 46.0}, "0511", False),  # half of its pixels are empty
        ({"statistics": {"nodata": 46.0}}, "0511", False),
        ({"s2:nodata_pixel_percentage": 0.0}, "0510", True),
    ],
)
def test_a_tiles_square_in_place_of_a_footprint_adds_nothing(properties: dict[str, Any], baseline: str, is_footprint: bool) -> None:
    assert area_km2(np.array([TILE])) == pytest.approx(109.8**2, rel=0.01)
    whole = copy_of("20240901T000000", json.loads(shapely.to_geojson(TILE)), 9.0, "0511", **properties)
    part = copy_of("20240828T000000", json.loads(shapely.to_geojson(STRIP)), 1.0, baseline)
    scene = scenes_from_items([whole, part], S2)[0].iloc[0]
    assert list(scene.item_ids) == [whole["id"] if is_footprint else part["id"]]
    assert shapely.equals(scene.geometry, TILE if is_footprint else STRIP)
    # Two squares are two footprints as good as each other.
    again = copy_of("20240828T000000", json.loads(shapely.to_geojson(TILE)), 1.0, baseline)
    assert list(scenes_from_items([whole, again], S2)[0].iloc[0].item_ids) == [whole["id"]]


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


def landsat_collector(*platforms: str) -> SceneCollector:
    return SceneCollector(COVERAGE_SENSORS["landsat-8-9"], platforms=platforms or ("landsat-8", "landsat-9"))


@pytest.mark.parametrize("spelling", ["landsat-8", "landsat8", "landsat_8", "LANDSAT_8", "Landsat 8", "LANDSAT-8", "landsat-08", "LC08"])
@pytest.mark.parametrize("declared", ["landsat-8", "LANDSAT_8"])
def test_every_spelling_of_a_platform_is_that_platform(spelling: str, declared: str) -> None:
    collector = landsat_collector(declared)
    collector.add([item("LC08_L2SP_180031_20250603_20250610_02_T1", properties={"platform": spelling})])
    assert collector.finish().num_rows == 1
    assert (collector.platforms, collector.other_platforms) == ({spelling: 1}, {})


@pytest.mark.parametrize(
    ("item_id", "platform", "named"),
    [
        ("LC08_L2SP_180031_20250603_20250610_02_T1", "OLI-TIRS satellite", None),  # a spelling that says nothing: the id does
        ("LC09_L2SP_180031_20250603_20250610_02_T1", None, None),
        ("LE07_L2SP_180031_20250603_20250610_02_T1", "OLI-TIRS satellite", "OLI-TIRS satellite"),
        ("LE07_L2SP_180031_20250603_20250610_02_T1", None, "landsat7"),
        ("LC10_L2SP_180031_20250603_20250610_02_T1", "landsat-10", "landsat-10"),
        ("LC10_L2SP_180031_20250603_20250610_02_T1", "landsat-next", "landsat-next"),
        ("a-house-id", "landsat-10", "landsat-10"),
        ("LC08_L2SP_180031_20250603_20250610_02_T1", "landsat-7", "landsat-7"),
        ("a-house-id", None, None),  # nothing is said: it counts as the sensor's
    ],
)
def test_what_is_left_out_is_named_by_its_platform(item_id: str, platform: str | None, named: str | None) -> None:
    collector = landsat_collector()
    collector.add([item(item_id, properties={} if platform is None else {"platform": platform})])
    assert collector.other_platforms == ({} if named is None else {named: 1})
    assert collector.other_platform == (named is not None)
    assert collector.finish().num_rows == (named is None)


def test_case_20_a_spelling_and_a_satellite_to_come() -> None:
    items = json.loads((shared_data() / "cases/20-platform-not-on-the-list/items.json").read_text())
    collector = landsat_collector()
    collector.add(items)
    given = Counter(one["properties"]["platform"] for one in items)
    ours = {name: n for name, n in given.items() if name in ("landsat-8", "landsat8")}
    assert collector.platforms == ours
    assert collector.other_platforms == {name: n for name, n in given.items() if name not in ours}
    assert len(collector.other_platforms) == 1
    assert collector.finish().num_rows == 2


@pytest.mark.parametrize("satellite", ["S2C", "S2D", "S2E"])
@pytest.mark.parametrize("spelling", ["Sentinel-2{}", "sentinel-2{}", "S2{}"])
def test_new_sentinels_are_taken_and_have_keys(satellite: str, spelling: str) -> None:
    name = f"{satellite}_MSIL2A_20270828T174909_N0611_R141_T13TEF_20270829T000000"
    platform = spelling.format(satellite[2])
    collector = collected([item(name, "2027-08-28T17:49:09Z", properties={"platform": platform})])
    assert collector.finish()["scene_key"].to_pylist() == [f"{satellite}_20270828T174909_T13TEF"]
    assert collector.platforms == {platform: 1}


def test_a_catalogue_of_many_platforms_leaves_a_short_report() -> None:
    collector = landsat_collector()
    collector.add([item(f"a{k}", properties={"platform": f"{k}-" + "x" * 100_000}) for k in range(200)])
    assert collector.other_platform == 200
    assert sum(map(len, collector.other_platforms)) < 5_000


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
        (item(geometry={"type": "Polygon", "coordinates": []}), "geometry empty"),
        (item(geometry={"type": "MultiPolygon", "coordinates": []}), "geometry empty"),
        (item(geometry={"type": "Polygon", "coordinates": [[[5, 50], [6, 51], [5, 50]]]}), "geometry has no area"),
        (item(geometry=None, bbox=[5, 50, 5, 51]), "geometry has no area"),
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
    found = {row["scene_key"]: row["in_month"] for row in collector.finish().to_pylist()}
    assert found == {"first": True, "last": True, "next": False}
    assert collector.outside == 0


def test_an_earth_search_scene_stays_in_the_month_of_its_datatake() -> None:
    """Earth Search's own time can lie up to 27 minutes later, on the other side of midnight."""
    product = "S2A_MSIL2A_20250131T235501_N0511_R141_T13TDE_20250201T030000.SAFE"
    late = item("S2A_13TDE_20250201_0_L2A", "2025-02-01T00:10:00Z", properties={"s2:product_uri": product})
    january = SceneCollector(S2, start=dt.datetime(2025, 1, 1, tzinfo=dt.UTC), end=dt.datetime(2025, 2, 1, tzinfo=dt.UTC))
    february = SceneCollector(S2, start=dt.datetime(2025, 2, 1, tzinfo=dt.UTC), end=dt.datetime(2025, 3, 1, tzinfo=dt.UTC))
    january.add([late])
    february.add([late])
    found = [collector.finish().to_pylist() for collector in (january, february)]
    assert [[row["in_month"] for row in rows] for rows in found] == [[True], [False]]
    for (row,) in found:
        assert row["pass_time"] == dt.datetime(2025, 1, 31, 23, 55, 1, tzinfo=dt.UTC)
        assert row["acquired"] == dt.datetime(2025, 2, 1, 0, 10, tzinfo=dt.UTC)


def test_passes_within_an_hour_of_the_window_are_kept_apart_and_others_are_outside() -> None:
    start, end = dt.datetime(2025, 1, 1, tzinfo=dt.UTC), dt.datetime(2025, 2, 1, tzinfo=dt.UTC)
    collector = SceneCollector(sensor(), start=start, end=end)
    times = ["2024-12-31T22:59:59.9Z", "2024-12-31T23:00:00Z", "2025-01-01T00:00:00Z", "2025-02-01T00:59:59.9Z", "2025-02-01T01:00:00Z"]
    collector.add([item(when, when) for when in times])
    found = {row["scene_key"]: row["in_month"] for row in collector.finish().to_pylist()}
    assert found == dict(zip(times[1:4], (False, True, False), strict=True))
    assert collector.outside == 2


def landsat_rows_of_one_pass(crossing: dt.datetime, rows: tuple[int, ...], path: int = 91) -> list[dict[str, Any]]:
    """Scenes of a pass over eastern Australia as a catalogue lists them: 23.92 s from row to row, each with its own date."""
    found = []
    for row in rows:
        own = crossing + dt.timedelta(seconds=(row - 60) * 23.92)
        name = f"LC09_L2SP_{path:03}{row:03}_{own:%Y%m%d}_02_T1"
        footprint = rectangle(148, -36 + (85 - row), 150, -34 + (85 - row))
        found.append(item(name, own.isoformat(), geometry=footprint, properties={"platform": "landsat-9"}))
    return found


def test_a_landsat_pass_across_midnight_is_one_observation() -> None:
    """Made by hand: none is recorded. Rows 84 and 86 lie on either side of midnight UTC; the pass crossed the equator before."""
    crossing = dt.datetime(2025, 3, 9, 23, 49, 57, tzinfo=dt.UTC)
    items = landsat_rows_of_one_pass(crossing, (84, 85, 86))
    assert [one["properties"]["datetime"][:10] for one in items] == ["2025-03-09", "2025-03-09", "2025-03-10"]
    scenes = collected(items, "landsat-8-9").finish()
    assert scenes["scene_key"].to_pylist() == ["landsat-9_091084_20250309", "landsat-9_091085_20250309", "landsat-9_091086_20250310"]
    for when in scenes["pass_time"].to_pylist():
        assert abs((when - crossing).total_seconds()) < 1e-3
    cells = availability_table(scenes, GridSpec(1.0), cloud_lt=10).to_pandas()
    assert set(cells["days"]) == {1 << 8}  # the ninth, and no other day, in every cell
    assert cells["scenes"].max() == 2


def test_a_landsat_pass_across_the_end_of_a_month_is_in_the_month_of_its_crossing() -> None:
    crossing = dt.datetime(2025, 1, 31, 23, 49, 57, tzinfo=dt.UTC)
    months = [(dt.datetime(2025, m, 1, tzinfo=dt.UTC), dt.datetime(2025, m + 1, 1, tzinfo=dt.UTC)) for m in (1, 2)]
    for (start, end), expected in zip(months, ([True] * 3, [False] * 3), strict=True):
        collector = SceneCollector(COVERAGE_SENSORS["landsat-8-9"], start=start, end=end)
        collector.add(landsat_rows_of_one_pass(crossing, (84, 85, 86)))
        scenes = collector.finish()
        assert scenes["in_month"].to_pylist() == expected
        cells = availability_table(scenes, GridSpec(1.0), cloud_lt=10)
        assert (cells.num_rows > 0) == expected[0]


def test_a_scene_of_a_null_time_has_the_time_that_its_id_states() -> None:
    name = "EMIT_L2A_RFL_001_20220810T034103_2222203_002"
    scene = scenes_from_items([item(name, None)], COVERAGE_SENSORS["emit"])[0].iloc[0]
    assert scene.acquired == scene.pass_time == dt.datetime(2022, 8, 10, 3, 41, 3, tzinfo=dt.UTC)
    assert scene.datetime is pd.NaT


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
