"""Holdings in a STAC API and as a list of ids: whole or an error, never a hole; and when a place was last held."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from coverage_pipeline.holdings.config import ArchiveSettings
from coverage_pipeline.holdings.errors import HoldingsUnavailable
from coverage_pipeline.holdings.extract import extract_month
from coverage_pipeline.holdings.metadata import HoldingsMetadata
from coverage_pipeline.holdings.sources.ids import IdHoldings
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.storage.tables import read_parquet
from tests.scenarios.world import JUNE, Catalogue, Lies, World, at, build_world, item, leaning, sensor

pytestmark = pytest.mark.slow
MAY = JUNE.shift(-1)
PLACE = leaning(2, 32, 1, 1)


def listed(month: str = "06") -> list[dict[str, Any]]:
    scenes = [item(f"b{month}-{day}", leaning(8, 32, 0.4, 0.4), at(f"2025-{month}-{day:02}T10:00")) for day in range(1, 30, 3)]
    return [*scenes, *(item(f"s{month}-{day}", PLACE, at(f"2025-{month}-{day:02}T10:00")) for day in (6, 12, 18))]


def archived(month: str = "06", days: tuple[int, ...] = (6, 12)) -> list[dict[str, Any]]:
    return [item(f"s{month}-{day}", PLACE, at(f"2025-{month}-{day:02}T10:00"), collection="ours", cloud=1.0) for day in days]


def archive_world(folder: Path, items: list[dict[str, Any]], lies: Any = None, **more: Any) -> World:
    archive = Catalogue({"ours": items}, lies={"ours": lies} if lies else {})
    given = more.pop("catalogue", [*listed("05"), *listed("06")])
    holdings = {"source": "stac", "path": None, "lookback_months": 2, "stac": {"endpoint": archive.url, "collections": {"ours": "mine"}}}
    declared = {"mine": sensor(Catalogue({"scenes": given}), held_satellite=None)}
    return build_world(folder, declared, holdings=None, where=holdings, **more)


def test_what_the_archive_lists_is_held(tmp_path: Path) -> None:
    world = archive_world(tmp_path, archived())
    assert world.error is None
    cell = world.cell("mine", 2.25, 32.75)
    assert cell["held_days"] == {6, 12}
    assert cell["ingestable_days"] == {18}
    assert cell["holdings_status"] == "read"
    elsewhere = world.cell("mine", 8.25, 32.25)
    assert elsewhere["held_days"] == set()  # a known zero


def test_when_a_place_was_last_held_needs_all_earlier_months(tmp_path: Path) -> None:
    world = archive_world(tmp_path / "one", archived())
    assert world.cell("mine", 2.25, 32.75)["days_since_last_held"] == pytest.approx(30 - 12 + 1 - 10 / 24, abs=0.01)
    assert world.cell("mine", 8.25, 32.25)["days_since_last_held"] is None  # May is not there: not known, and never the lookback
    both = archive_world(tmp_path / "two", [*archived("05", (20,)), *archived("06", ())], months=(MAY, JUNE))
    assert both.error is None
    assert both.cell("mine", 2.25, 32.75)["days_since_last_held"] == pytest.approx(12 - 10 / 24 + 30, abs=0.01)
    lookback = both.cell("mine", 8.25, 32.25)["days_since_last_held"]
    assert lookback == 61  # nothing in either month, which are the lookback


def test_a_truncated_archive_is_an_error_and_the_former_extract_stays(tmp_path: Path) -> None:
    many = [item(f"s{k}", PLACE, at(f"2025-06-{1 + k % 28:02}T10:{k // 28:02}"), collection="ours") for k in range(400)]
    honest = archive_world(tmp_path, many)
    former, _ = read_parquet(honest.planner.store.holdings("mine", JUNE), ["holding"])
    assert former.num_rows == 400
    cut = Catalogue({"ours": many}, lies={"ours": Lies(failing=(at("2025-06-10T00:00"), at("2025-06-11T00:00")))})
    was = honest.planner.settings
    wanted = was.holdings.model_copy(update={"stac": ArchiveSettings(endpoint=cut.url, collections={"ours": "mine"})})
    settings = was.model_copy(update={"holdings": wanted})
    with pytest.raises(HoldingsUnavailable, match=r"holdings of mine.*holdings\.stac"):
        extract_month(honest.planner.sensors["mine"], JUNE, honest.planner.store, settings)
    still, _ = read_parquet(honest.planner.store.holdings("mine", JUNE), ["holding"])
    assert still.num_rows == 400


def test_an_archive_that_is_down_is_not_known_and_never_a_zero(tmp_path: Path) -> None:
    world = archive_world(tmp_path, archived(), lies=Lies(dead=True))
    cell = world.cell("mine", 2.25, 32.75)
    assert cell["holdings_status"] == "off"
    assert cell["held_days"] is None
    assert cell["action"] == "unknown"


# Ids


def ids_world(folder: Path, text: str | bytes, **more: Any) -> World:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inventory.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    given = more.pop("catalogue", listed())
    holdings = {"source": "ids", "path": str(path), "lookback_months": 1}
    declared = {"mine": sensor(Catalogue({"scenes": given}), held_satellite=None)}
    return build_world(folder, declared, holdings=None, where=holdings, **more)


@pytest.mark.parametrize(
    "text",
    [
        "s06-6\ns06-12\n",
        '"bucket","scenes/s06-6/B04.tif","155"\n"bucket","scenes/s06-6/B08.tif"\n"bucket","scenes/s06-12.zip"\n',
        gzip.compress(b"s06-6\ns06-12\n"),
    ],
    ids=["lines", "inventory", "gzip"],
)
def test_ids_are_held_with_the_catalogue_s_footprints(text: str | bytes, tmp_path: Path) -> None:
    world = ids_world(tmp_path, text)
    assert world.error is None
    cell = world.cell("mine", 2.25, 32.75)
    assert (cell["held_days"], cell["held_clear_days"], cell["ingestable_days"]) == ({6, 12}, {6, 12}, {18})
    assert world.cell("mine", 8.25, 32.25)["held_days"] == set()
    assert world.cell("mine", 8.25, 32.25)["days_since_last_held"] == 30  # the lookback is this month, which is known
    match = world.matchup("mine")
    assert match.loc[match["scene_key"] == "s06-6", "held"].tolist() == [True]


def test_ids_without_a_scan_are_not_known(tmp_path: Path) -> None:
    world = ids_world(tmp_path, "s06-6\n")
    source = IdHoldings(str(tmp_path / "inventory.csv"), world.planner.sensors, {"mine": "mine"}, world.planner.store)
    with pytest.raises(HoldingsUnavailable, match="not scanned"):
        source.rows(at("2024-01-01T00:00"), at("2024-01-31T00:00"), ["mine"])
    prisma = COVERAGE_SENSORS["prisma"]
    with pytest.raises(HoldingsUnavailable, match="no public catalogue"):
        IdHoldings(str(tmp_path / "inventory.csv"), {"prisma": prisma}, {"prisma": "PRISMA"}, world.planner.store).rows(
            at("2025-06-01T00:00"), at("2025-07-01T00:00"), ["PRISMA"]
        )


def test_an_id_whose_scene_is_not_listed_is_rejected_by_name(tmp_path: Path) -> None:
    names = [f"LC08_L2SP_0440{k:02}_20250606_02_T1" for k in range(12)]
    scenes = [
        item(name, leaning(2 + k % 4, 32 + k // 4, 1, 1), at("2025-06-06T10:00"), platform="landsat-8") for k, name in enumerate(names)
    ]
    text = "\n".join([*names[:10], "LC08_L2SP_199030_20250607_02_T1"])
    path = tmp_path / "ids.txt"
    path.write_text(text)
    world = ids_world(tmp_path, text, catalogue=scenes)
    _, stored = read_parquet(world.planner.store.holdings("mine", JUNE), ["holding"])
    assert HoldingsMetadata.of(stored).rows == 10  # of a family without a rule, what is listed nowhere has no time and so no month
    landsat = {"mine": sensor(Catalogue({"scenes": scenes}), held_satellite=None, family="landsat")}
    holdings = {"source": "ids", "path": str(path), "lookback_months": 1}
    ruled = build_world(tmp_path / "ruled", landsat, holdings=None, where=holdings)
    _, stored = read_parquet(ruled.planner.store.holdings("mine", JUNE), ["holding"])
    made = HoldingsMetadata.of(stored)
    assert (made.rows, made.rejected) == (10, 1)
    assert any("not in the catalogue" in warning for warning in made.warnings)
