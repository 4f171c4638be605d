"""Ten thousand real items, each broken in some way: none stops a scan, each ends in exactly one table, and none harms another.

A seed makes a batch, so that a failure's seed makes it again: ``batch_of(sensor, Random(seed))``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import geopandas as gpd
import pytest
import shapely
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from coverage_pipeline.geometry.footprints import area_km2
from coverage_pipeline.scenes.items import scenes_from_items
from coverage_pipeline.scenes.schema import REJECTED_SCHEMA, SCENES_SCHEMA
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor
from tests.catalog.items import item, sensor, square
from tests.sensors.test_registry import recorded_sensor
from tests.shared_data import item_files, read_items, shared_data

pytestmark = pytest.mark.slow

Item = dict[str, Any]

EXAMPLES, BATCH = 100, 100
MOST_OF_A_FILE = 40  # in one batch, so that small files with odd items are not lost among a thousand alike
HALF_A_CHARACTER = "\ud800"
FIXED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a smaller seed is no simpler batch
    suppress_health_check=list(HealthCheck),
)
SEEDS = st.integers(0, 2**32 - 1)


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 5, 101, 2**63, -(2**64), 10**30, 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf,
    "", " ", "x", "12.5", "null", "NaN", HALF_A_CHARACTER, "a\x00b", "\x1f", "\u202eabc", "٢٠٢٤", "é" * 5000, "A" * 100_000,
    [], [[]], [None], [5], ["a", 1], {}, {"a": None}, {"type": "Polygon"}, {"rel": "self", "href": 5}, nested(100),
    {"a": {"b": {"c": [1, {"d": HALF_A_CHARACTER}]}}},
)  # fmt: skip
TIMES: tuple[Any, ...] = (
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:60Z",
    "9999-12-31T23:59:59-14:00", "1600-01-01T00:00:00.123456Z", "2024-06-30T23:59:60Z", "2024-02-30T00:00:00Z", "2024-01-01T24:00:00Z",
    "2024-01-01T25:00:00Z", "tomorrow", "", "2024", "2024-01-01", "20240101T000000Z", "2024-W01-1", "2024-01-01t00:00:00z",
    "2024-01-01T00:00:00", "2024-01-01T00:00:00+14:00", "2024-01-01T00:00:00+99:00", "2024-01-01T00:00:00+25", "2024-01-01 00:00:00 Z",
    " 2024-01-01T00:00:00Z ", "2024-01-01T00:00:00.123456789Z", "2024-01-01T00:00:00,5Z", "2024-01-01T00:00:00Z/2024-01-02T00:00:00Z",
    "..", 0, 1704067200, 1.7e12, 10**30, math.nan, True, [], ["2024-01-01T00:00:00Z"], {"$date": 0}, HALF_A_CHARACTER,
    "2024-01-01T00:00:00Z\x00",
)  # fmt: skip
CLOUDS: tuple[Any, ...] = (
    "12.5", " 3 ", "1e1", "NaN", "inf", "1e400", "", "cloudy", "12,5", "12%", HALF_A_CHARACTER, -1, -0.0, 0, 100, 100.00000000000001, 101,
    None, True, False, [5], {"value": 5}, math.nan, math.inf, -math.inf, 1e308, 2**64, nested(100),
)  # fmt: skip
BOXES: tuple[Any, ...] = (
    [5, 50, 6, 51], [5, 50, 0, 6, 51, 900], [179, 0, -179, 1], [10, 0, -10, 1], [-180, -90, 180, 90], [6, 51, 5, 50], [5, 50, 5, 50],
    [5, 50, 6, 95], [185, 0, 190, 1], [1000, 0, 1001, 1], [True, False, True, True], ["5", "50", "6", "51"], [5, 50, 6], [5, 50, 6, 51, 7],
    [], None, {}, "5,50,6,51", [[5, 50], [6, 51]], [None] * 4, [5, 50, 6, math.nan],
)  # fmt: skip
TEXTS = ("s2:product_uri", "s2:datatake_id", "s2:datastrip_id", "s2:mgrs_tile", "grid:code", "s2:processing_baseline",
         "s2:generation_time", "processing:datetime", "landsat:scene_id", "landsat:collection_category", "landsat:product_generated",
         "created", "platform")  # fmt: skip
KEY_TEXTS: tuple[Any, ...] = (
    "S2A_MSIL2A_20241399T256199_N0511_R141_T13TDE_20231008T233154", "S2A_MSIL2A_00000000T000000_R141_T13TDE",
    "S2D_MSIL2A_99991231T235959_N9999_R999_T60XXX_00010101T000000.SAFE", "GS2A_20240828T174909_048013_N05.11", "GS2A_20249999T174909_1_N",
    "S2A_OPER_MSI_L2A_DS_2APS_20240828T214916_S20240828T180000_N05.11", "_S99999999T999999", "13TDE", "MGRS-13TDE", "05.11",
    "LC80440342024366LGN00", "LC80440342023366LGN00", "LC80440340000000AAA00", "T1", "RT", "LANDSAT-8", "landsat-7", "Sentinel-2A",
    "٢٠٢٤٠٨٢٨",
)  # fmt: skip


def _rings(geometry: Any) -> list[list[Any]]:
    """The rings of a geometry that is still one, to be changed in place."""
    if not isinstance(geometry, dict) or not isinstance(geometry.get("coordinates"), list):
        return []
    parts = geometry["coordinates"] if geometry.get("type") == "MultiPolygon" else [geometry["coordinates"]]
    return [ring for part in parts if isinstance(part, list) for ring in part if isinstance(ring, list) and ring]


def _star(rng: Random, count: int, radius: float) -> Item:
    """A ring of many vertices, at times across the antimeridian or the pole."""
    x, y = rng.uniform(-180, 180), rng.uniform(-90, 90)
    ring = [[x + radius * rng.uniform(0.5, 1) * math.cos(a), y + radius * math.sin(a)] for a in (6.283 * k / count for k in range(count))]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def change_geometry(rng: Random, one: Item) -> None:
    geometry = one.get("geometry")
    rings = _rings(geometry)
    if rings and rng.random() < 0.6:
        ring = rng.choice(rings)
        point = rng.randrange(len(ring))
        x, y = rng.uniform(-180, 180), rng.uniform(-90, 90)
        match rng.randrange(17):
            case 0:
                ring[:] = [p[::-1] if isinstance(p, list) else p for p in ring]
            case 1:
                ring[point] = [rng.choice([181, -190, 361, 721, 1e9, 1e308, -1e308, 2**63, math.inf, -math.inf, math.nan]), y]
            case 2:
                ring[point] = [x, rng.choice([90, 90.0000001, -91, 1e308, math.inf, math.nan])]
            case 3:
                ring.pop()
            case 4:
                del ring[rng.randrange(4) :]
            case 5:
                rng.shuffle(ring)
            case 6:
                ring.reverse()
            case 7:
                ring[:] = [[*p, rng.choice([0, 12.5, math.nan, -9999])] if isinstance(p, list) else p for p in ring]
            case 8:
                ring[point] = [x, y, 5.0]
            case 9:
                ring[point] = rng.choice(
                    [[], [x], [x, y, 1, 2], None, x, "a", {}, [None, y], ["5", "50"], [[x, y]], [True, False], [HALF_A_CHARACTER, y]]
                )
            case 10:
                ring[:] = [[str(v) for v in p] if isinstance(p, list) else p for p in ring]
            case 11:
                ring[:] = []
            case 12:
                ring[:] = [ring[0]] * rng.choice([1, 3, 4, 5])
            case 13:
                ring[point] = [x, y]
            case 14:
                ring[:] = [
                    [p[0] + rng.choice([-360, 180, 360]), *p[1:]] if isinstance(p, list) and p and isinstance(p[0], int | float) else p
                    for p in ring
                ]
            case 15:
                ring.insert(point, ring[point])
            case _:
                rings[0].extend(rings[-1])
        return
    text = rng.choice(
        ["Point", "LineString", "MultiPolygon", "polygon", "POLYGON", "Feature", "Circle", "", HALF_A_CHARACTER, 5, None, ["Polygon"]]
    )
    one["geometry"] = rng.choice(
        [
            None,
            geometry | {"type": text} if isinstance(geometry, dict) else text,
            {"type": "GeometryCollection", "geometries": [geometry]},
            {"type": "GeometryCollection", "geometries": []},
            {"type": "Feature", "geometry": geometry, "properties": {}},
            {"type": "FeatureCollection", "features": []},
            {"type": "Point", "coordinates": [5, 50]},
            {"type": "LineString", "coordinates": [[5, 50], [6, 51]]},
            {"type": "Polygon", "coordinates": []},
            {"type": "Polygon", "coordinates": [[]]},
            {"type": "MultiPolygon", "coordinates": [[], [[]]]},
            {"type": "Polygon", "coordinates": nested(200)},
            {"type": "Polygon"},
            {"type": "Polygon", "coordinates": square()["coordinates"] * 2},
            {"type": "MultiPolygon", "coordinates": [square()["coordinates"]] * 2},
            {"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]},
            _star(rng, 5000, rng.choice([1, 20])),
            _star(rng, 7, rng.choice([0.01, 1, 60])),
            "POLYGON ((0 0, 1 0, 1 1, 0 0))",
            [],
            {},
        ]
    )
    if rng.random() < 0.5:
        one["bbox"] = rng.choice(BOXES)
    elif rng.random() < 0.3:
        one.pop("bbox", None)


def change_time(rng: Random, one: Item) -> None:
    if isinstance(properties := one.get("properties"), dict):
        for name in rng.sample(["datetime", "start_datetime", "end_datetime", "created", "s2:generation_time"], rng.randint(1, 3)):
            properties[name] = rng.choice(TIMES)


def change_cloud(rng: Random, one: Item) -> None:
    if isinstance(properties := one.get("properties"), dict):
        properties["eo:cloud_cover"] = rng.choice(CLOUDS)


def change_key_text(rng: Random, one: Item) -> None:
    if isinstance(properties := one.get("properties"), dict):
        properties[rng.choice(TEXTS)] = rng.choice(KEY_TEXTS + JUNK)


def change_id(rng: Random, one: Item) -> None:
    old = one.get("id")
    change = rng.choice([None, 5, "", [], {}, True, f"{old}{HALF_A_CHARACTER}", f"{old}\x00", f"{old}" * 50, f" {old} ", "absent"])
    if change == "absent":
        one.pop("id", None)
    else:
        one["id"] = change


def change_anything(rng: Random, one: Item) -> None:
    """A key dropped, replaced or added at any depth; mostly where the code looks."""
    node: Any = one
    key: Any = rng.choice([k for k in ("geometry", "properties", "properties", "bbox", "links", "collection", "id") if k in one] or [None])
    key = rng.choice([*one, key]) if one else "new"
    while isinstance(inner := node.get(key) if isinstance(node, dict) else node[key], dict | list) and inner and rng.random() < 0.6:
        node, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    match rng.randrange(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[rng.choice(["new", "", HALF_A_CHARACTER, "datetime", "type"])] = rng.choice(JUNK)
        case _:
            node[key] = rng.choice(JUNK)


CHANGES: tuple[Callable[[Random, Item], None], ...] = (
    change_geometry, change_geometry, change_geometry, change_time, change_cloud, change_key_text, change_id, change_anything,
    change_anything,
)  # fmt: skip
NO_ITEMS: tuple[Any, ...] = (None, 5, "an item", [], ["id"], True, math.nan, HALF_A_CHARACTER, {}, {"type": "Feature"}, {"id": None})


def mutated(rng: Random, one: Item) -> Any:
    if rng.random() < 0.02:
        return rng.choice(NO_ITEMS)
    for change in rng.choices(CHANGES, k=rng.randint(1, 3)):
        if one:
            change(rng, one)
    return one


@cache
def _texts(name: str) -> tuple[str, ...]:
    """A file's items, to be parsed anew for each use; EMIT's footprints also as items, as CMR's granules become."""
    items = read_items(name)
    if name.startswith("emit"):
        for k, one in enumerate(items[: len(items) * 2 // 3]):
            start, end = one["properties"]["start_time"], one["properties"]["end_time"]
            one["id"] = f"EMIT_L2A_RFL_001_{start.translate(str.maketrans('', '', '-:Z'))}_2222203_{k:03}"
            one["properties"] |= {"datetime": start, "start_datetime": start, "end_datetime": end, "eo:cloud_cover": k}
    return tuple(json.dumps(one) for one in items)


def originals(which: CoverageSensor, rng: Random, count: int) -> list[Item]:
    """Recorded items of the sensor, with ids of their own."""
    files = [name for name in item_files() if recorded_sensor(name) is which]
    pool = [text for name in files for text in rng.sample(_texts(name), min(MOST_OF_A_FILE, len(_texts(name))))]
    texts = rng.sample(pool, min(count, len(pool)))
    found: list[Item] = [json.loads(text) for text in texts]
    for k in range(len(found), count):  # few were recorded: the same again as other scenes
        again: Item = json.loads(rng.choice(pool))
        if isinstance(again.get("id"), str):
            again["id"] = again["id"].replace("Z_001_V", f"Z_{k:03}_V").replace("_2222203_", f"_{k:07}_")
        found.append(again)
    seen = Counter[Any]()
    for one in found:
        seen[one.get("id")] += 1
        if seen[one.get("id")] > 1 and "id" in one:
            one["id"] += f"_again{seen[one['id']]}"
    return found


def batch_of(which: CoverageSensor, rng: Random, count: int = BATCH) -> list[Any]:
    """Broken items; a few have the id of another."""
    batch = [mutated(rng, one) for one in originals(which, rng, count)]
    for one in batch:
        if isinstance(one, dict) and rng.random() < 0.02 and isinstance(other := rng.choice(batch), dict):
            one["id"] = other.get("id")
    return batch


def usable_id(one: Any) -> str | None:
    name = one.get("id") if isinstance(one, dict) else None
    return name if isinstance(name, str) and name and name == name.encode("utf-8", "replace").decode() else None


def shown(one: Any) -> str:
    return ascii({k: v for k, v in one.items() if k not in ("assets", "stac_extensions")} if isinstance(one, dict) else one)[:3000]


def check_tables(scenes: gpd.GeoDataFrame, rejected: gpd.GeoDataFrame, which: CoverageSensor) -> None:
    assert sorted(scenes.columns) == sorted(SCENES_SCHEMA.names)
    assert sorted(rejected.columns) == sorted([*REJECTED_SCHEMA.names, "geometry"])
    assert rejected.reason.map(lambda reason: isinstance(reason, str) and bool(reason)).all()
    assert scenes.scene_key.is_unique
    assert str(scenes.acquired.dt.tz) == "UTC"
    assert scenes.acquired.notna().all()
    cloud = scenes.cloud_cover
    assert (cloud.isna() | cloud.between(0, 100)).all()
    geometry = scenes.geometry.to_numpy()
    assert set(shapely.get_type_id(geometry)) <= {3, 6}
    assert shapely.is_valid(geometry).all()
    assert not shapely.is_empty(geometry).any()
    assert not shapely.has_z(geometry).any()
    west, south, east, north = shapely.bounds(geometry).reshape(-1, 4).T
    assert ((west >= -180) & (east <= 180) & (south >= -90) & (north <= 90)).all()
    one_item = scenes.item_ids.map(len).to_numpy() == 1  # parts that are united add up
    assert (area_km2(geometry[one_item]) <= (which.max_scene_km2 or math.inf)).all()


def check_each_in_one_table(batch: list[Any], which: CoverageSensor) -> Counter[str]:
    scenes, rejected = scenes_from_items(batch, which)
    check_tables(scenes, rejected, which)
    listed = [name for ids in scenes.item_ids for name in ids]
    assert len(listed) == len(set(listed))
    first: dict[str, Item] = {}
    for one in batch:  # of several with one id the first counts
        if name := usable_id(one):
            first.setdefault(name, one)
    refused = [name for name in rejected.item_id if name in first]
    assert len(refused) == len(set(refused))
    assert set(listed) <= set(first)
    assert not set(listed) & set(refused)

    unusable = [one for one in batch if usable_id(one) is None]
    assert len(rejected) - len(refused) == len(unusable)

    platforms = which.available_sources[0].platforms
    window_count = Counter(items=len(batch), scene=len(listed), rejected=len(rejected))
    for name in first.keys() - set(listed) - set(refused):
        alone, alone_rejected = scenes_from_items([first[name]], which)
        assert len(alone_rejected) == 0, shown(first[name])
        if len(alone):  # a newer copy stands for it
            assert alone.scene_key.iloc[0] in set(scenes.scene_key), shown(first[name])
            window_count["copy"] += 1
        else:
            assert platforms, shown(first[name])
            assert str(first[name]["properties"]["platform"]).lower() not in platforms
            window_count["other platform"] += 1
    return window_count


CATALOGUED = [sensor for sensor in COVERAGE_SENSORS.values() if sensor.available_sources]


def test_ten_thousand_broken_items_are_each_in_one_table() -> None:
    shared_data()
    total = Counter[str]()

    @FIXED
    @given(SEEDS)
    def run(seed: int) -> None:
        rng = Random(seed)
        which = rng.choices(CATALOGUED, weights=[1 if s.key in ("emit", "enmap") else 3 for s in CATALOGUED])[0]
        batch = batch_of(which, rng)
        try:
            total.update(check_each_in_one_table(batch, which))
        except Exception as error:
            error.add_note(f"seed {seed}, {which.key}; the first item that fails alone: {_culprit(batch, which)}")
            raise

    run()
    assert total["items"] >= EXAMPLES * BATCH
    # The changes are neither all deadly nor all harmless.
    assert 0.2 < total["rejected"] / total["items"] < 0.8
    assert min(total["scene"], total["copy"], total["other platform"]) > 100


def _culprit(batch: list[Any], which: CoverageSensor) -> str:
    for one in batch:
        try:
            check_each_in_one_table([one], which)
        except Exception:
            return shown(one)
    return "none"


@settings(FIXED, max_examples=20)
@given(SEEDS)
def test_broken_items_do_not_harm_the_others_of_their_page(seed: int) -> None:
    shared_data()
    rng = Random(seed)
    which = rng.choice(CATALOGUED)
    whole = originals(which, rng, 40)
    broken = batch_of(which, rng, 40)
    taken = {one.get("id") for one in whole}
    broken = [one for one in broken if usable_id(one) not in taken]
    alone, alone_rejected = scenes_from_items(whole, which)
    keys = set(scenes_from_items(broken, which)[0].scene_key)  # a broken copy of a scene is a copy all the same
    page = [*whole, *broken]
    rng.shuffle(page)
    scenes, rejected = scenes_from_items(page, which)
    expected = alone[~alone.scene_key.isin(keys)].set_index("scene_key").sort_index()
    assert len(expected) or not len(alone)
    found = scenes.set_index("scene_key").loc[expected.index]
    for column in ("platform", "acquired", "pass_time", "cloud_cover", "cloud_raw", "item_href", "geometry_source"):
        assert found[column].equals(expected[column]), column
    assert [sorted(ids) for ids in found.item_ids] == [sorted(ids) for ids in expected.item_ids]
    assert shapely.equals(shapely.normalize(found.geometry.to_numpy()), shapely.normalize(expected.geometry.to_numpy())).all()
    assert set(alone_rejected.item_id.dropna()) <= set(rejected.item_id.dropna())


S2_NAME = "S2A_MSIL2A_20240828T174909_N0500_R141_T13TEF_20240828T214916"
NUMBER = 10**400  # JSON may carry it; no float does
LONG_NUMBER = 10**5000  # beyond what Python writes as text
DEEP = nested(50_000)


def _ring_to(x: Any) -> Item:
    return {"type": "Polygon", "coordinates": [[[0, 0], [x, 0], [1, 1], [0, 0]]]}


def case(name: str, items: list[Any], expected: int, where: str, which: str | None = None) -> Any:
    """``where`` it went wrong when it was found."""
    return pytest.param(items, expected, which, id=f"{name} ({where})")


@pytest.mark.parametrize(
    ("items", "expected", "which"),
    [
        case("cloud-400-digits", [item(properties={"eo:cloud_cover": NUMBER})], 1, "parse_cloud: OverflowError"),
        case("cloud-5000-digits", [item(properties={"eo:cloud_cover": LONG_NUMBER})], 1, "parse_cloud: OverflowError, then json.dumps"),
        case("cloud-deep", [item(properties={"eo:cloud_cover": DEEP})], 1, "_row: RecursionError in json.dumps(raw)"),
        case("time-5000-digits", [item(when=LONG_NUMBER)], 1, "_row: ValueError in str(given)"),  # type: ignore[arg-type]
        case("time-deep", [item(when=DEEP)], 1, "_row: RecursionError in str(given)"),  # type: ignore[arg-type]
        case("coordinate-400-digits", [item(geometry=_ring_to(NUMBER))], 1, "_read_geometries: OverflowError in shape()"),
        case("coordinate-5000-digits", [item(geometry=_ring_to(LONG_NUMBER))], 1, "_geometry: ValueError in json.dumps"),
        case("coordinates-deep", [item(geometry={"type": "Polygon", "coordinates": DEEP})], 1, "_geometry: RecursionError in json.dumps"),
        case("bbox-infinite", [item(geometry=None, bbox=[0, 0, math.inf, 1])], 1, "_geometry: OverflowError in math.ceil"),
        case("bbox-nan", [item(geometry=None, bbox=[math.nan, 0, 1, 1])], 1, "_geometry: ValueError in math.ceil"),
        case("bbox-1e300", [item(geometry=None, bbox=[0, 0, 1e300, 1])], 1, "_geometry: linspace of 1e298 longitudes"),
        case("bbox-400-digits", [item(geometry=None, bbox=[0, 0, NUMBER, 1])], 1, "_geometry: OverflowError in a division"),
        case("baseline-half-a-character", [item(S2_NAME, properties={"s2:processing_baseline": HALF_A_CHARACTER})], 1,
              "_add_rows: UnicodeEncodeError, the rank is not made writable", "sentinel-2"),
        case("two-empty-ids", [item(""), item("")], 2, "add: two items without a usable id are taken for one"),
    ],
)  # fmt: skip
def test_what_once_stopped_a_scan_or_left_an_item_out(items: list[Any], expected: int, which: str | None) -> None:
    scenes, rejected = scenes_from_items(items, COVERAGE_SENSORS[which] if which else sensor())
    assert len(scenes) + len(rejected) == expected
