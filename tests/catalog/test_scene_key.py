"""One acquisition has one key, however its provider spells it."""

from __future__ import annotations

import datetime as dt

import pytest

from coverage_pipeline.catalog.scene_key import parse_time, scene_identity, scene_key
from tests.shared_data import read_items

UTC = dt.UTC


def test_sentinel_2_has_one_key_and_time_at_every_provider() -> None:
    """Ids as Planetary Computer, CDSE and Earth Search give them for one tile and datatake."""
    planetary = scene_identity("sentinel-2", "S2A_MSIL2A_20231008T175231_R141_T13TDE_20231008T233154")
    cdse = scene_identity("sentinel-2", "S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154.SAFE")
    found = next(i for i in read_items("earth-search__sentinel-2-l2a.ndjson.gz") if i["id"] == "S2A_13TDE_20231008_0_L2A")
    earth_search = scene_identity("sentinel-2", found["id"], found["properties"])
    assert planetary.key == cdse.key == earth_search.key == "S2A_20231008T175231_T13TDE"
    assert planetary.acquired == earth_search.acquired == dt.datetime(2023, 10, 8, 17, 52, 31, tzinfo=UTC)
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


def test_landsat_tiers_and_processing_order_copies() -> None:
    ranks = [
        scene_identity("landsat", f"LC09_L2SP_044034_20240830_{made}_02_{tier}").rank
        for made, tier in (("20240830", "RT"), ("20240905", "T2"), ("20240831", "T1"), ("20240910", "T1"))
    ]
    assert ranks == sorted(ranks)


def test_emit_and_enmap() -> None:
    assert scene_key("emit", "EMIT_L2A_RFL_001_20220810T034103_2222203_002") == "EMIT_20220810T034103_2222203_002"
    old = scene_identity("emit", "EMIT_L2A_RFL_001_20220810T034103_2222203_002")
    new = scene_identity("emit", "EMIT_L2A_RFL_002_20220810T034103_2222203_002")
    assert new.key == old.key
    assert new.rank > old.rank
    l2a = "ENMAP01-____L2A-DT0000142249_20250708T055412Z_003_V010502_20250709T032346Z"
    l0 = "ENMAP01-_____L0-DT0000142249_20250708T055404Z_003_V010502_20250708T215101Z"
    assert scene_key("enmap", l2a) == "ENMAP_L2A_DT0000142249_003"
    assert scene_key("enmap", l0) == "ENMAP_L0_DT0000142249_003"  # levels are apart


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
