"""Holdings as they really are: several spellings of one sensor, rows that are archived, local times, stac-geoparquet, other SRIDs."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import rustac
import shapely

from coverage_pipeline.holdings.extract import extract_month
from coverage_pipeline.holdings.fetch import holdings_between
from coverage_pipeline.holdings.rows import HoldingsRefused, localised
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet
from tests.services import PostgisServer, postgis  # noqa: F401 a fixture
from tests.shared_data import read_items

MARCH = Month(2025, 3)
PLACE = shapely.box(9, 47, 10, 48)
ROWS = [
    # sensor, time, status, archived
    ("S2A", dt.datetime(2025, 3, 5, 10), "active", None),
    ("s2b_ard", dt.datetime(2025, 3, 7, 10), "active", None),
    ("MODIS", dt.datetime(2025, 3, 9, 10), "active", None),
    ("S2A", dt.datetime(2025, 3, 11, 10), "withdrawn", dt.datetime(2025, 4, 1)),
    ("LC08", dt.datetime(2025, 3, 6, 10), "active", None),
]
SPELLINGS = {"S2A": "sentinel-2", "s2b_ard": "sentinel-2", "LC08": "landsat-8-9"}


def settings_of(where: Any, **holdings: Any) -> Any:
    overrides = {"holdings": {**holdings, **({"path": str(where)} if isinstance(where, Path) else {})}}
    if not isinstance(where, Path):
        overrides["db"] = where
    return load_settings(None, overrides, environment=False)


def days(settings: Any, tmp_path: Path, key: str = "sentinel-2") -> list[int]:
    """Days of the month's extract of a sensor."""
    store = Store.below(tmp_path / "data")
    extract_month(settings.registry()[key], MARCH, store, settings)
    table, _ = read_parquet(store.holdings(key, MARCH), ["datetime"])
    return sorted(when.day for when in table["datetime"].to_pylist())


@pytest.fixture(params=["file", pytest.param("postgis", marks=pytest.mark.service)])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The same rows as a file and as a table with a geography column: a path, or the settings of the database."""
    if request.param == "file":
        columns = {
            "sensor": [r[0] for r in ROWS],
            "datetime": [r[1] for r in ROWS],
            "status": [r[2] for r in ROWS],
            "archived": [r[3] for r in ROWS],
        }
        gpd.GeoDataFrame(columns, geometry=[PLACE] * len(ROWS), crs="EPSG:4326").to_parquet(tmp_path / "holdings.parquet")
        return tmp_path / "holdings.parquet"
    server: PostgisServer = request.getfixturevalue("postgis")
    name = server.create_database()
    server.execute(
        "CREATE TABLE tiles (sensor text, datetime timestamp, status text, archived timestamp, cloud float, geometry geography(Polygon))",
        database=name,
    )
    for sensor, when, status, archived in ROWS:
        server.execute(
            "INSERT INTO tiles VALUES (%s, %s, %s, %s, 1, ST_GeogFromText(%s))", (sensor, when, status, archived, PLACE.wkt), database=name
        )
    return {"host": server.host, "port": server.port, "name": name, "user": server.user, "password": server.password}


def test_several_spellings_are_one_sensor_and_a_map_says_that_it_is_held(source: Any, tmp_path: Path) -> None:
    settings = settings_of(source, sensors=SPELLINGS)
    assert days(settings, tmp_path) == [5, 7, 11]  # which the registry alone would call not held
    assert days(settings, tmp_path, "landsat-8-9") == [6]
    frame = holdings_between(settings, "2025-03-01", "2025-03-31")
    assert set(frame["sensor"]) == {"sentinel-2", "Landsat", "MODIS"}
    last, _ = read_parquet(Store.below(tmp_path / "data").last_held("sentinel-2", MARCH), ["datetime"])
    assert [when.day for when in last["datetime"].to_pylist()] == [11]


def test_rows_that_do_not_count_are_left_out_of_everything(source: Any, tmp_path: Path) -> None:
    by_status = settings_of(source, sensors=SPELLINGS, filter={"column": "status", "values": ["active"]})
    assert days(by_status, tmp_path) == [5, 7]
    last, _ = read_parquet(Store.below(tmp_path / "data").last_held("sentinel-2", MARCH), ["datetime"])
    assert [when.day for when in last["datetime"].to_pylist()] == [7]
    assert days(settings_of(source, sensors=SPELLINGS, filter={"column": "archived", "values": [""]}), tmp_path / "b") == [5, 7]
    with pytest.raises(HoldingsRefused, match=r"nowhere.*holdings\.filter"):
        days(settings_of(source, sensors=SPELLINGS, filter={"column": "nowhere", "values": ["x"]}), tmp_path / "c")


def test_local_times_are_those_of_the_zone_that_is_named(source: Any, tmp_path: Path) -> None:
    settings = settings_of(source, sensors=SPELLINGS, time_zone="Pacific/Auckland")  # 13 hours ahead in March
    days(settings, tmp_path)
    table, _ = read_parquet(Store.below(tmp_path / "data").holdings("sentinel-2", MARCH), ["datetime"])
    assert sorted(table["datetime"].to_pylist())[0] == dt.datetime(2025, 3, 4, 21, tzinfo=UTC)


def test_hours_that_come_twice_or_never() -> None:
    given = pd.Series(["2025-10-26T02:30:00", "2025-03-30T02:30:00", "2025-06-01T12:00:00Z", "2025-06-01", None, "rubbish that is none"])
    local = localised(given, "Europe/Berlin")
    assert local[0] == dt.datetime(2025, 10, 26, 0, 30, tzinfo=UTC)  # the earlier of the two
    assert local[1] == dt.datetime(2025, 3, 30, 1, 0, tzinfo=UTC)  # 3 o'clock, where the skipped hour ends
    assert local[2:].tolist()[:2] == ["2025-06-01T12:00:00Z", "2025-06-01"]
    assert local[5] == "rubbish that is none"
    assert localised(given, None) is given


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong, words in (
        ({"time_zone": "Mars/Olympus"}, "IANA"),
        ({"sensors": {"x": "nope"}}, "unknown sensor nope"),
        ({"filter": {"column": "a", "values": []}}, "values"),
    ):
        with pytest.raises(SettingsError, match=words):
            load_settings(None, {"holdings": wrong}, environment=False)


def test_stac_geoparquet_is_read_as_it_is(tmp_path: Path) -> None:
    items = [{**one, "collection": "sentinel-2-l2a"} for one in read_items("earth-search__sentinel-2-l2a.ndjson.gz")]

    async def write() -> None:
        await rustac.write(str(tmp_path / "ours.parquet"), items)

    asyncio.run(write())
    settings = settings_of(tmp_path / "ours.parquet", sensors={"sentinel-2-l2a": "sentinel-2"})
    when = pd.to_datetime([one["properties"]["datetime"] for one in items], utc=True, format="ISO8601")
    frame = holdings_between(settings, when.min().date(), when.max().date())
    assert len(frame) == len(items)
    assert set(frame["sensor"]) == {"sentinel-2"}
    assert sorted(frame["scene_id"]) == sorted(one["id"] for one in items)
    clouds = sorted(one["properties"]["eo:cloud_cover"] for one in items)
    assert sorted(frame["cloud"]) == pytest.approx(clouds)


@pytest.mark.service
def test_targets_are_read_from_a_table(postgis: PostgisServer) -> None:  # noqa: F811
    from coverage_pipeline.demand.errors import LocationsError
    from coverage_pipeline.demand.targets import configured_targets

    name = postgis.create_database()
    postgis.execute(
        'CREATE SCHEMA plan; CREATE TABLE plan."Sites" (id text, name text, "group" text, desired float, shape geometry)', database=name
    )
    postgis.execute(
        "INSERT INTO plan.\"Sites\" VALUES ('a', 'A', 'g', 2, ST_Transform(ST_SetSRID(ST_MakeEnvelope(9, 47, 9.1, 47.1), 4326), 32632))",
        database=name,
    )
    db = {"host": postgis.host, "port": postgis.port, "name": name, "user": postgis.user, "password": postgis.password}
    settings = load_settings(None, {"db": db, "targets": {"table": "plan.Sites", "geom": "shape"}}, environment=False)
    targets = configured_targets(settings)
    assert targets.table[["id", "name", "group", "desired"]].to_numpy().tolist() == [["a", "A", "g", 2.0]]
    assert targets.table.geometry.iloc[0].bounds == pytest.approx((9, 47, 9.1, 47.1), abs=1e-3)
    missing = load_settings(None, {"db": db, "targets": {"table": "plan.nowhere"}}, environment=False)
    with pytest.raises(LocationsError, match=r"table plan\.nowhere"):
        configured_targets(missing)
