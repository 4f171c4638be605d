"""One acquisition has one key, however its provider spells it."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely

from coverage_pipeline.scenes.scene_key import parse_time, scene_identity, scene_key
from coverage_pipeline.sensors.registry import SceneFamily, platform_name
from tests.shared_data import item_files, read_items, shared_data

UTC = dt.UTC


def test_sentinel_2_has_one_key_and_time_at_every_provider() -> None:
    """Ids as Planetary Computer, CDSE and Earth Search give them for one tile and datatake."""
    planetary = scene_identity("sentinel-2", "S2A_MSIL2A_20231008T175231_R141_T13TDE_20231008T233154")
    cdse = scene_identity("sentinel-2", "S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154.SAFE")
    found = next(i for i in read_items("earth-search__sentinel-2-l2a.ndjson.gz") if i["id"] == "S2A_13TDE_20231008_0_L2A")
    earth_search = scene_identity("sentinel-2", found["id"], found["properties"])
    assert planetary.key == cdse.key == earth_search.key == "S2A_20231008T175231_T13TDE"
    assert planetary.pass_time == earth_search.pass_time == dt.datetime(2023, 10, 8, 17, 52, 31, tzinfo=UTC)
    own = dt.datetime(2023, 10, 8, 18, 2, 55, tzinfo=UTC)
    assert scene_identity("sentinel-2", found["id"], found["properties"], own).pass_time == planetary.pass_time
    # Earth Search's own time is the tile's, ten minutes later.
    assert parse_time(found["properties"]["datetime"]) == dt.datetime(2023, 10, 8, 18, 2, 55, 276000, tzinfo=UTC)


def test_sentinel_2_without_product_name_takes_datatake_and_tile() -> None:
    properties = {"s2:datatake_id": "GS2B_20250312T014549_041856_N05.11", "grid:code": "MGRS-53NKG"}
    assert scene_key("sentinel-2", "some-id", properties) == "S2B_20250312T014549_T53NKG"


def test_sentinel_2_of_unknown_spelling_has_no_key() -> None:
    assert scene_key("sentinel-2", "S2A_T13TDE_20250711T175745_L2A") is None  # that time is the datastrip's
    assert scene_key("sentinel-2", "S2A_OPER_MSI_L2A_TL_SGS__20181231T210250_A018414_T10SDG") is None


@pytest.mark.parametrize(
    "item_id",
    [
        "LC08_L2SP_044034_20160830_02_T1",
        "LC08_L2SP_044034_20160830_20200906_02_T1_SR",
        "LC08_L2SR_044034_20160830_20200906_02_T1_ST",
        "LC08_L1TP_044034_20160830_20170321_01_RT",
        "LC80440342016243LGN01",
    ],
)
def test_landsat_spellings_of_one_scene(item_id: str) -> None:
    assert scene_key("landsat", item_id) == "landsat-8_044034_20160830"


@pytest.mark.parametrize(
    ("item_id", "key"),
    [
        ("S2D_MSIL2A_20270828T174909_N0611_R141_T13TEF_20270829T000000", "S2D_20270828T174909_T13TEF"),
        ("S2Z_MSIL1C_20470828T174909_R141_T13TEF_20470829T000000", "S2Z_20470828T174909_T13TEF"),
        ("LC10_L2SP_044034_20310830_20310906_02_T1", "landsat-10_044034_20310830"),
        ("LC10_L2SP_044034_20310830_02_T1", "landsat-10_044034_20310830"),
        ("LE07_L1TP_044034_20160830_02_T1", "landsat-7_044034_20160830"),
    ],
)
def test_satellites_to_come_have_keys(item_id: str, key: str) -> None:
    family: SceneFamily = "sentinel-2" if item_id.startswith("S2") else "landsat"
    assert scene_key(family, item_id) == key
    platform = scene_identity(family, item_id).platform
    assert platform is not None
    assert platform == platform_name(item_id[:4].rstrip("_"))


def test_a_datatake_of_a_satellite_to_come_has_a_key() -> None:
    for name in ("s2:datatake_id", "eopf:datatake_id"):
        properties = {name: "GS2D_20270312T014549_041856_N06.11", "grid:code": "MGRS-53NKG"}
        assert scene_key("sentinel-2", "some-id", properties) == "S2D_20270312T014549_T53NKG"


def test_landsat_copies_by_processing_date_then_tier() -> None:
    """Design section 4: generation time goes first, so that a tier of later processing is believed."""
    ranks = [
        scene_identity("landsat", f"LC09_L2SP_044034_20240830_{made}02_{tier}").rank
        for made, tier in (
            ("", "RT"), ("", "T2"), ("", "T1"), ("20240830_", "RT"), ("20240831_", "T2"), ("20240831_", "T1"), ("20240905_", "T2"),
            ("20240910_", "T1"),
        )
    ]  # fmt: skip
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("row", "crossing"),
    [(60, 0), (61, 23.92), (1, -59 * 23.92), (122, 62 * 23.92), (123, -61 * 23.92), (184, 0), (248, 64 * 23.92)],
)
def test_a_landsat_pass_is_timed_at_the_equator(row: int, crossing: float) -> None:
    own = dt.datetime(2025, 3, 10, 0, 5, tzinfo=UTC)
    expected = own - dt.timedelta(seconds=crossing)
    assert scene_identity("landsat", f"LC09_L2SP_091{row:03}_20250310_02_T1", own_time=own).pass_time == expected
    for wrs in (("091", f"{row:03}"), (91, row)):
        properties = dict(zip(("landsat:wrs_path", "landsat:wrs_row"), wrs, strict=True))
        assert scene_identity("landsat", "a-house-id", properties, own).pass_time == expected
    # The id goes before the properties, and its date stays the key's.
    found = scene_identity("landsat", f"LC09_L2SP_091{row:03}_20250310_02_T1", {"landsat:wrs_path": "1", "landsat:wrs_row": "1"}, own)
    assert (found.pass_time, found.key) == (expected, f"landsat-9_091{row:03}_20250310")


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"landsat:wrs_path": "091"},
        {"landsat:wrs_path": "091", "landsat:wrs_row": "249"},
        {"landsat:wrs_path": "x", "landsat:wrs_row": True},
    ],
)
def test_a_landsat_scene_of_unknown_row_passes_at_its_own_time(properties: dict[str, object]) -> None:
    own = dt.datetime(2025, 3, 10, 0, 5, tzinfo=UTC)
    assert scene_identity("landsat", "a-house-id", properties, own).pass_time == own
    assert scene_identity("landsat", "a-house-id", properties).pass_time is None


def test_real_landsat_scenes_keep_the_sixteen_day_calendar_of_their_paths() -> None:
    """Landsat 8 passes a path on days d with (d − 2013-01-01 − ACQDayL8) mod 16 = 7, Landsat 9 with 15 (the recorded data's README)."""
    grid = pq.read_table(shared_data() / "grids" / "landsat-wrs2-descending.parquet", columns=["PATH", "ACQDayL8"]).to_pydict()
    day_of = dict(zip(grid["PATH"], map(int, grid["ACQDayL8"]), strict=True))
    seen = set()
    for name in item_files():
        for one in read_items(name) if "landsat" in name else ():
            found = re.match(r"LC0([89])_\w{4}_(\d{3})\d{3}_\d{8}", one["id"])
            if found is None or found[0] in seen:
                continue
            seen.add(found[0])
            passed = scene_identity("landsat", one["id"], one["properties"], parse_time(one["properties"]["datetime"])).pass_time
            assert passed is not None
            days = (passed.date() - dt.date(2013, 1, 1)).days - day_of[int(found[2])]
            assert days % 16 == {"8": 7, "9": 15}[found[1]], one["id"]
    assert len(seen) == 865


def test_emit_and_enmap() -> None:
    assert scene_key("emit", "EMIT_L2A_RFL_001_20220810T034103_2222203_002") == "EMIT_20220810T034103_2222203_002"
    old = scene_identity("emit", "EMIT_L2A_RFL_001_20220810T034103_2222203_002")
    new = scene_identity("emit", "EMIT_L2A_RFL_002_20220810T034103_2222203_002")
    assert new.key == old.key
    assert new.rank > old.rank


@pytest.mark.parametrize(
    ("family", "ids"),
    [
        ("emit", ["EMIT_L1B_RAD_001_20220810T034103_2222203_002", "EMIT_L2A_RFL_001_20220810T034103_2222203_002",
                  "EMIT_L2B_CH4ENH_002_20220810T034103_2222203_002"]),
        ("enmap", ["ENMAP01-____L2A-DT0000142249_20250708T055412Z_003_V010502_20250709T032346Z",
                   "ENMAP01-____L1B-DT0000142249_20250708T055412Z_003_V010400_20250709T032346Z",
                   "ENMAP01-_____L0-DT0000142249_20250708T055404Z_003_V010502_20250708T215101Z"]),
        ("landsat", ["LC09_L1TP_044034_20240830_20240831_02_T1", "LC09_L2SP_044034_20240830_20240910_02_T1", "LC90440342024243LGN00"]),
        ("sentinel-2", ["S2A_MSIL1C_20231008T175231_N0509_R141_T13TDE_20231008T213154",
                        "S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154"]),
    ],
)  # fmt: skip
def test_the_processing_level_is_no_part_of_a_key(family: SceneFamily, ids: list[str]) -> None:
    """A holding of L1B and a catalogue's scene of L2A are one acquisition."""
    keys = {scene_key(family, item_id) for item_id in ids}
    assert len(keys) == 1
    assert None not in keys


def test_enmaps_levels_number_the_tiles_of_a_datatake_alike() -> None:
    """What the key relies on: the recorded quicklooks (L0) and L2A scenes of one key show one place."""
    place: dict[str, list[Any]] = {}
    for name in ("dlr__ENMAP_HSI_L2A.ndjson.gz", "dlr__ENMAP_HSI_L0_QL.ndjson.gz"):
        for one in read_items(name):
            key = scene_key("enmap", one["id"])
            assert key is not None
            place.setdefault(key, []).append(shapely.geometry.shape(one["geometry"]))
    pairs = [shapes for shapes in place.values() if len(shapes) == 2]
    assert len(pairs) == 9
    for one, other in pairs:
        assert one.intersection(other).area > 0.95 * one.union(other).area


def test_what_an_id_states_stands_in_for_a_time_that_is_not_given() -> None:
    own = dt.datetime(2025, 7, 8, 5, 54, 12, 874000, tzinfo=UTC)
    for family, item_id, stated in (
        ("emit", "EMIT_L2A_RFL_001_20220810T034103_2222203_002", dt.datetime(2022, 8, 10, 3, 41, 3, tzinfo=UTC)),
        ("enmap", "ENMAP01-____L2A-DT0000142249_20250708T055412Z_003_V010502_20250709T032346Z", own.replace(microsecond=0)),
    ):
        assert scene_identity(family, item_id).pass_time == stated  # type: ignore[arg-type]
        assert scene_identity(family, item_id, own_time=own).pass_time == own  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-31T23:59:59.5Z", dt.datetime(2025, 1, 31, 23, 59, 59, 500000, tzinfo=UTC)),
        ("2025-07-08T10:44:07.036+00:00", dt.datetime(2025, 7, 8, 10, 44, 7, 36000, tzinfo=UTC)),
        ("2025-02-01T01:30:00+02:00", dt.datetime(2025, 1, 31, 23, 30, tzinfo=UTC)),
        ("2025-01-01T00:00:00", dt.datetime(2025, 1, 1, tzinfo=UTC)),
        ("2025-01-01t00:00:00z", dt.datetime(2025, 1, 1, tzinfo=UTC)),
        ("not a time", None),
        (None, None),
        (20250101, None),
    ],
)
def test_parse_time(text: object, expected: dt.datetime | None) -> None:
    assert parse_time(text) == expected
