"""Targets that planners save on the page: kept, told apart, counted with those of the file, and never lost by two who save at once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.saved_targets import list_saved, remove_saved, save_target, saved_targets
from coverage_pipeline.demand.targets import read_targets
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.storage.store import Store

LAKE, FIELD = shapely.box(9.0, 47.4, 9.8, 47.8), shapely.box(30, -2, 31, -1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.below(tmp_path / "data")


def test_a_saved_target_is_counted_with_those_of_the_file(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "sites.geojson"
    gpd.GeoDataFrame({"id": [1, 2], "weight": [2.0, 1.0]}, geometry=[FIELD, shapely.box(0, 0, 1, 1)], crs="EPSG:4326").to_file(file)
    before = read_targets(str(file), COVERAGE_SENSORS)
    key = save_target(store, LAKE, "Lake  Constance", who="ann", group="lakes", desired=3)
    found = read_targets(str(file), COVERAGE_SENSORS, (), saved_targets(store))
    assert found.table["id"].to_list() == ["1", "2", key]
    assert found.table["name"].to_list()[2] == "Lake Constance"
    assert found.table["desired"].to_list()[2] == 3
    assert found.table["weight"].to_list() == [2.0, 1.0, 1.0]
    assert found.table.geometry.iloc[2].equals(LAKE)
    assert found.source.endswith("sites.geojson and 1 saved on the page")
    assert found.digest != before.digest
    (one,) = list_saved(store)
    assert (one.name, one.group, one.who) == ("Lake Constance", "lakes", "ann")
    assert one.area_km2 == pytest.approx(2_675, rel=0.01)
    # Without any saved one it is the file alone, with the digest it always had.
    remove_saved(store, key)
    assert read_targets(str(file), COVERAGE_SENSORS, (), saved_targets(store)).digest == before.digest


def test_without_a_file_the_saved_ones_are_all(store: Store) -> None:
    assert len(read_targets(None, COVERAGE_SENSORS, (), saved_targets(store))) == 0
    key = save_target(store, LAKE, "Lake", who="ann")
    found = read_targets(None, COVERAGE_SENSORS, (), saved_targets(store))
    assert found.table["id"].to_list() == [key]
    assert found.source == "1 saved on the page"


def test_what_cannot_be_saved_is_told(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LocationsError, match="needs a name"):
        save_target(store, LAKE, "   ", who="ann")
    with pytest.raises(LocationsError, match="at most 120 printable"):
        save_target(store, LAKE, "x" * 121, who="ann")
    with pytest.raises(LocationsError, match="printable"):
        save_target(store, LAKE, "a\x1b[31m", who="ann")
    for wrong in (-1.0, 32.0, float("nan")):
        with pytest.raises(LocationsError, match="not 0 to 31"):
            save_target(store, LAKE, "Lake", who="ann", desired=wrong)
    key = save_target(store, LAKE, "Lake", who="ann")
    with pytest.raises(LocationsError, match="is a target already: Lake, saved by ann"):
        save_target(store, shapely.reverse(LAKE), "Other", who="bob")  # the same outline, drawn the other way round
    with pytest.raises(LocationsError, match="no saved target has the id saved-00000000"):
        remove_saved(store, "saved-00000000")
    # An id that the file has too is told, and not silently one of the two.
    file = tmp_path / "sites.geojson"
    gpd.GeoDataFrame({"id": [key]}, geometry=[FIELD], crs="EPSG:4326").to_file(file)
    with pytest.raises(LocationsError, match=f"{key} is the id of a saved target and of one in"):
        read_targets(str(file), COVERAGE_SENSORS, (), saved_targets(store), skip_bad=True)


def test_a_broken_file_of_saved_targets_stops_the_build(store: Store) -> None:
    """Going on without them would want less than planners asked for."""
    save_target(store, LAKE, "Lake", who="ann")
    store.saved_targets.write_bytes(b"PAR1 not at all")
    with pytest.raises(LocationsError, match=r"saved targets cannot be read: .*saved_targets\.parquet"):
        saved_targets(store)
    with pytest.raises(LocationsError, match="cannot be read"):
        save_target(store, FIELD, "Field", who="ann")
    assert store.saved_targets.read_bytes() == b"PAR1 not at all"


def _save_ten(root: str, first: int) -> None:
    for k in range(first, first + 10):
        save_target(Store.below(root), shapely.box(k, 0, k + 1, 1), f"box {k}", who="somebody")


def test_processes_that_save_at_once_lose_nothing(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    savers = [context.Process(target=_save_ten, args=(str(store.root), first)) for first in (0, 10, 20)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join(120)
    assert [saver.exitcode for saver in savers] == [0, 0, 0]
    assert sorted(one.name for one in list_saved(store)) == sorted(f"box {k}" for k in range(30))
