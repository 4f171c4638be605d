"""What we hold, from a file: the same months, times and clouds as from a database; and what makes the layer *off*, or an error."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.errors import HoldingsDriverMissing, HoldingsNotConfigured, HoldingsUnavailable, HoldingsUnreachable
from coverage_pipeline.holdings.extract import extract_month
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA, LAST_SCHEMA, HoldingsRefused
from coverage_pipeline.holdings.sources.configured import holdings_source
from coverage_pipeline.holdings.sources.file import FileHoldings
from coverage_pipeline.holdings.sources.postgis import PostgisHoldings
from coverage_pipeline.holdings.statistics import HELD_SCHEMA, held_tables, holdings_fields, holdings_stats
from coverage_pipeline.holdings.united import united_by_key
from coverage_pipeline.months import UTC, Month, MonthError
from coverage_pipeline.pipeline.fetch import fetch_holdings
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

JANUARY = Month(2025, 1)
EMIT, PRISMA, SENTINEL_2 = (COVERAGE_SENSORS[key] for key in ("emit", "prisma", "sentinel-2"))
GRID = GridSpec(1.0)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


def frame(times: Sequence[Any], *, crs: Any = 4326, **columns: Any) -> gpd.GeoDataFrame:
    """Holdings of PRISMA, each over a square of its own at 5° east, unless ``columns`` say otherwise."""
    shapes = columns.pop("geometry", [shapely.box(5, 50 - k, 6, 51 - k) for k in range(len(times))])
    given = {"datetime": list(times), "sensor": "PRISMA", "cloud": 3.0, "scene_id": [None] * len(times), **columns}
    return gpd.GeoDataFrame({name: value for name, value in given.items() if value is not None}, geometry=shapes, crs=crs)


def settings_for(path: Path, **overrides: Any) -> PlannerSettings:
    return load_settings(overrides={"holdings": {"path": str(path)}, "tiles": {"scene_id": "scene_id"}, **overrides})


def fetched(path: Path, **changes: Any) -> gpd.GeoDataFrame:
    changes.setdefault("settings", settings_for(path))
    return fetch_holdings(**{"start": "2025-01-01", "end": "2025-01-31", **changes})


@pytest.fixture
def holdings_file(tmp_path: Path) -> Path:
    return tmp_path / "holdings.parquet"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.below(tmp_path / "data")


# Months and times


EDGES = ["2024-12-31T23:59:30", "2025-01-01T00:00:00", "2025-01-31T23:59:59.500", "2025-02-01T00:00:00", "2025-02-01T00:01:00"]


def _as_text(times: list[dt.datetime]) -> list[str]:
    return [when.isoformat() if k % 2 else when.isoformat().replace("+00:00", "Z") for k, when in enumerate(times)]


@pytest.mark.parametrize(
    "written_as",
    [
        lambda times: times,
        lambda times: [when.replace(tzinfo=None) for when in times],  # without zone: UTC
        lambda times: [when.astimezone(dt.timezone(dt.timedelta(hours=9))) for when in times],
        _as_text,  # with and without fractions of a second, as JSON has them
    ],
    ids=["utc", "without-zone", "tokyo", "text"],
)
def test_a_month_is_half_open_in_utc(written_as: Any, holdings_file: Path, store: Store) -> None:
    frame(written_as([at(e) for e in EDGES]), scene_id=EDGES).to_parquet(holdings_file)
    assert fetched(holdings_file)["scene_id"].tolist() == EDGES[1:3]
    metadata = extract_month(PRISMA, JANUARY, store, settings_for(holdings_file))
    table, _ = read_parquet(store.holdings("prisma", JANUARY))
    assert table.schema.remove(table.schema.get_field_index("bbox")).equals(HOLDINGS_SCHEMA)
    rows = {row["scene_id"]: row["in_month"] for row in table.to_pylist()}
    # within an hour of the month a holding takes part in matching, but is not of the month
    assert rows == {EDGES[0]: False, EDGES[1]: True, EDGES[2]: True, EDGES[3]: False, EDGES[4]: False}
    assert metadata.rows == 2
    assert table["datetime"].to_pylist()[2] == at(EDGES[2])


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2025-01-01", "2025-01-31", 2),  # a day as end is included
        ("2025-01", "2025-01", 2),  # and so is a month
        (dt.date(2025, 1, 1), dt.date(2025, 1, 31), 2),
        (at("2025-01-01T00:00:00"), at("2025-01-31T23:59:59.500"), 1),  # an instant is not
        ("2025-01-01T00:00:00+00:00", "2025-02-01T00:00:00+00:00", 2),
        ("2024-12-31", "2025-02-01", 5),
    ],
)
def test_windows_of_fetch_holdings(holdings_file: Path, start: Any, end: Any, expected: int) -> None:
    frame([at(e) for e in EDGES]).to_parquet(holdings_file)
    assert len(fetched(holdings_file, start=start, end=end)) == expected


def test_a_reversed_window_is_refused(holdings_file: Path) -> None:
    frame([at(EDGES[1])]).to_parquet(holdings_file)
    with pytest.raises(MonthError, match="reversed"):
        fetched(holdings_file, start="2025-03-01", end="2025-01-31")


@pytest.mark.parametrize("suffix", ["parquet", "geojson", "gpkg"])
@pytest.mark.parametrize("written_as", ["date", "text"])
def test_days_without_a_time_are_days(tmp_path: Path, store: Store, suffix: str, written_as: str) -> None:
    days = [dt.date(2024, 12, 31), dt.date(2025, 1, 1), dt.date(2025, 1, 31), dt.date(2025, 2, 1)]
    path = tmp_path / f"holdings.{suffix}"
    holdings = frame([day.isoformat() for day in days] if written_as == "text" else days, scene_id=[f"of {day}" for day in days])
    if suffix == "parquet":
        holdings.to_parquet(path)
    else:
        holdings.to_file(path)
    extract_month(PRISMA, JANUARY, store, settings_for(path))
    table, _ = read_parquet(store.holdings("prisma", JANUARY))
    assert all(table["date_only"].to_pylist())
    assert table.filter(table["in_month"])["scene_id"].to_pylist() == ["of 2025-01-01", "of 2025-01-31"]


@pytest.mark.parametrize("suffix", ["geojson", "gpkg"])
def test_other_vector_files_give_the_same_extract(tmp_path: Path, store: Store, suffix: str) -> None:
    holdings = frame([at(e) for e in EDGES], scene_id=[f"of {e}" for e in EDGES], cloud=["5", None, "x", "100", "-1"])
    holdings.to_parquet(tmp_path / "holdings.parquet")
    holdings.to_file(tmp_path / f"holdings.{suffix}")
    other = Store.below(tmp_path / "other")
    extract_month(PRISMA, JANUARY, store, settings_for(tmp_path / "holdings.parquet"))
    extract_month(PRISMA, JANUARY, other, settings_for(tmp_path / f"holdings.{suffix}"))
    for place in ("holdings", "last_held"):
        one, two = (read_parquet(getattr(s, place)("prisma", JANUARY))[0] for s in (store, other))
        assert one.num_rows >= 3
        assert one.to_pylist() == two.to_pylist()


@pytest.mark.parametrize("times", [[2025], [1_736_935_200], [20250115.0], ["15.01.2025"], ["01/02/2025"], ["soon"]])
def test_what_is_no_time_is_refused(holdings_file: Path, times: list[Any]) -> None:
    # numbers would be taken as nanoseconds since 1970: every month empty, and nobody the wiser
    frame(times).to_parquet(holdings_file)
    with pytest.raises(HoldingsRefused, match="COVERAGE_TILES_DATE"):
        fetched(holdings_file)


# Footprints


@pytest.mark.parametrize("crs", [4326, "OGC:CRS84", None])
def test_degrees_are_taken_as_they_are(holdings_file: Path, crs: Any) -> None:
    frame([at(EDGES[1])], crs=crs).to_parquet(holdings_file)
    assert fetched(holdings_file).geometry[0].equals(shapely.box(5, 50, 6, 51))


def test_another_reference_system_becomes_degrees(holdings_file: Path) -> None:
    metres = gpd.GeoSeries([shapely.box(300_000, 5_600_000, 400_000, 5_700_000)], crs=32631)
    frame([at(EDGES[1])], crs=32631, geometry=metres).to_parquet(holdings_file)
    found = fetched(holdings_file)
    assert found.crs == "EPSG:4326"
    assert found.geometry[0].equals_exact(metres.to_crs(4326)[0], tolerance=1e-9)


def test_unusable_footprints_are_counted_not_held(holdings_file: Path, store: Store) -> None:
    shapes = [shapely.box(5, 50, 6, 51), None, shapely.Point(1, 1), shapely.Polygon(), shapely.box(178, 0, 182, 1)]
    raised = shapely.force_3d(shapely.box(9, 9, 10, 10), 7.0)
    good = [shapely.box(k, 20, k + 1, 21) for k in range(10)]
    frame([at("2025-01-15T10:00:00")] * 16, geometry=[*shapes, raised, *good]).to_parquet(holdings_file)
    metadata = extract_month(PRISMA, JANUARY, store, settings_for(holdings_file))
    assert (metadata.rows, metadata.rejected, metadata.footprints) == (13, 3, 13)
    table, _ = read_parquet(store.holdings("prisma", JANUARY))
    found = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    assert not shapely.has_z(found).any()
    assert found[1].bounds == (-180, 0, 180, 1)  # cut at the antimeridian, not stretched
    assert found[1].area == pytest.approx(4)


def test_area_and_satellites_narrow_the_holdings(holdings_file: Path) -> None:
    shapes = [shapely.box(5, 50, 6, 51), shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)]
    frame([at(EDGES[1])] * 3, geometry=shapes, sensor=["PRISMA", "EMIT", "EnMAP"]).to_parquet(holdings_file)
    assert set(fetched(holdings_file, bbox=(178, -1, -178, 2))["sensor"]) == {"EMIT", "EnMAP"}
    assert set(fetched(holdings_file, bbox=(0, 0, 10, 60))["sensor"]) == {"PRISMA"}
    assert set(fetched(holdings_file, aoi=shapely.Point(5.5, 50.5).buffer(0.1))["sensor"]) == {"PRISMA"}
    assert set(fetched(holdings_file, satellites=["EMIT", "EnMAP"])["sensor"]) == {"EMIT", "EnMAP"}
    assert list(fetched(holdings_file).columns) == ["datetime", "sensor", "cloud", "scene_id", "geometry"]


# Cloud and ids


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (["72", " 5 ", "-1", "101", "clear", None], [72, 5, None, None, None, None]),
        ([72.25, 0.0, 100.0, -1.0, 101.0, None], [72.25, 0, 100, None, None, None]),
        ([72, 0, 100, -1, 101, 5], [72, 0, 100, None, None, 5]),
        ([True, False], [None, None]),  # a flag is no percentage: 1 % would be clear
        ([float("inf"), float("nan")], [None, None]),
    ],
)
def test_cloud_is_a_percentage_or_not_known(holdings_file: Path, given: list[Any], known: list[Any]) -> None:
    frame([at(EDGES[1])] * len(given), cloud=given).to_parquet(holdings_file)
    cloud = fetched(holdings_file)["cloud"]
    assert [None if np.isnan(v) else v for v in cloud] == known


def test_ids_are_text_and_make_keys(holdings_file: Path, store: Store) -> None:
    ids = ["EMIT_L2A_RFL_001_20250101T034103_2500103_002", "our own name", "", None]
    frame([at(EDGES[1])] * 4, sensor="EMIT", scene_id=ids).to_parquet(holdings_file)
    extract_month(EMIT, JANUARY, store, settings_for(holdings_file))
    table, _ = read_parquet(store.holdings("emit", JANUARY))
    assert table["scene_key"].to_pylist() == ["EMIT_20250101T034103_2500103_002", None, None, None]
    assert table["scene_id"].to_pylist() == [ids[0], ids[1], None, None]
    assert table["holding"].to_pylist() == [ids[0], ids[1], "row 2", "row 3"]


def test_numbers_as_ids_are_text_too(holdings_file: Path) -> None:
    frame([at(EDGES[1])] * 2, scene_id=[7, 8]).to_parquet(holdings_file)
    assert fetched(holdings_file)["scene_id"].tolist() == ["7", "8"]


# What can go wrong


def test_nothing_configured_is_unavailable_and_says_what_to_set() -> None:
    with pytest.raises(HoldingsNotConfigured, match=r"COVERAGE_HOLDINGS_PATH.*COVERAGE_DB_URL"):
        fetch_holdings(start="2025-01-01", end="2025-01-31")
    assert issubclass(HoldingsNotConfigured, HoldingsUnavailable)
    assert issubclass(HoldingsUnavailable, RuntimeError)  # as the specification has it
    assert not issubclass(HoldingsRefused, HoldingsUnavailable)


@pytest.mark.parametrize(("source", "says"), [("off", "is off"), ("file", "COVERAGE_HOLDINGS_PATH"), ("postgis", "COVERAGE_DB_HOST")])
def test_a_source_that_is_not_configured_says_what_to_set(source: str, says: str) -> None:
    with pytest.raises(HoldingsNotConfigured, match=says):
        holdings_source(load_settings(overrides={"holdings": {"source": source}}))


def test_which_source_is_taken(monkeypatch: pytest.MonkeyPatch, holdings_file: Path) -> None:
    monkeypatch.setenv("COVERAGE_DB_HOST", "db.example.org")
    monkeypatch.setenv("COVERAGE_DB_NAME", "eo")
    assert isinstance(holdings_source(load_settings()), PostgisHoldings)
    monkeypatch.setenv("COVERAGE_HOLDINGS_PATH", str(holdings_file))
    assert isinstance(holdings_source(load_settings()), FileHoldings)
    assert isinstance(holdings_source(load_settings(overrides={"holdings": {"source": "postgis"}})), PostgisHoldings)


@pytest.mark.parametrize(
    ("setting", "column"),
    [
        ("COVERAGE_TILES_DATE", "datetime"),
        ("COVERAGE_TILES_SENSOR", "sensor"),
        ("COVERAGE_TILES_GEOM", "geometry"),
        ("COVERAGE_TILES_CLOUD", "cloud_pct"),
        ("COVERAGE_TILES_SCENE_ID", "product"),
    ],
)
def test_a_missing_column_names_its_setting(holdings_file: Path, monkeypatch: pytest.MonkeyPatch, setting: str, column: str) -> None:
    frame([at(EDGES[1])]).rename_geometry("shape").rename(columns={"datetime": "when", "sensor": "platform"}).to_parquet(holdings_file)
    names = {"DATE": "when", "SENSOR": "platform", "GEOM": "shape"}
    for name, value in {f"COVERAGE_TILES_{k}": v for k, v in names.items()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COVERAGE_HOLDINGS_PATH", str(holdings_file))
    assert len(fetched(holdings_file, settings=load_settings())) == 1
    monkeypatch.setenv(setting, column)
    with pytest.raises(HoldingsRefused, match=rf"no column '{column}'.*set {setting}$"):
        fetched(holdings_file, settings=load_settings())


def test_a_column_without_footprints_names_its_setting(holdings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame([at(EDGES[1])]).to_parquet(holdings_file)
    monkeypatch.setenv("COVERAGE_TILES_GEOM", "sensor")
    with pytest.raises(HoldingsRefused, match="COVERAGE_TILES_GEOM"):
        fetched(holdings_file)


def test_cloud_and_id_columns_are_optional(holdings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame([at(EDGES[1])], cloud=None, scene_id=None).to_parquet(holdings_file)
    monkeypatch.setenv("COVERAGE_HOLDINGS_PATH", str(holdings_file))
    assert fetched(holdings_file, settings=load_settings())["cloud"].isna().all()
    for name in ("CLOUD", "SCENE_ID"):  # empty: there is none
        monkeypatch.setenv(f"COVERAGE_TILES_{name}", "")
    found = fetched(holdings_file, settings=load_settings())
    assert found[["cloud", "scene_id"]].isna().all(axis=None)


def test_a_missing_file_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(HoldingsUnreachable, match="COVERAGE_HOLDINGS_PATH"):
        fetched(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize("name", ["holdings.parquet", "holdings.geojson"])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not what it says")
    with pytest.raises(HoldingsRefused, match="cannot be read"):
        fetched(tmp_path / name)


def test_parquet_without_geometry_is_refused(holdings_file: Path) -> None:
    pq.write_table(pa.table({"datetime": [1], "sensor": ["PRISMA"], "geometry": [b""]}), holdings_file)
    with pytest.raises(HoldingsRefused, match="GeoParquet"):
        fetched(holdings_file)


def test_a_missing_driver_is_unavailable(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv("COVERAGE_DB_HOST", "127.0.0.1")
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(HoldingsDriverMissing, match="psycopg2-binary"):
        fetch_holdings(start="2025-01-01", end="2025-01-31")
    assert extract_month(PRISMA, JANUARY, store, load_settings()).status == "off"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hush-hush@db:54x/eo",
        "postgresql://me:hush@hush@db/eo",
        "mysql://me:hush-hush@db/eo",
        "hush-hush",
    ],
)
def test_an_address_that_is_none_is_refused_without_showing_it(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COVERAGE_DB_URL", address)
    with caplog.at_level(logging.DEBUG), pytest.raises(SettingsError, match="COVERAGE_DB_URL") as refused:
        fetch_holdings(start="2025-01-01", end="2025-01-31")
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert "hush" not in str(refused.value) + caplog.text


# A partition's extract


def test_a_sensor_we_never_hold_is_a_known_zero(store: Store) -> None:
    metadata = extract_month(SENTINEL_2, JANUARY, store, load_settings())  # without any source configured
    assert metadata.status == "not_held"
    assert read_parquet(store.holdings("sentinel-2", JANUARY))[0].num_rows == 0


def test_holdings_that_cannot_be_had_are_off_with_the_reason(store: Store, tmp_path: Path) -> None:
    metadata = extract_month(PRISMA, JANUARY, store, settings_for(tmp_path / "nowhere.parquet"))
    assert metadata.status == "off"
    assert "nowhere.parquet" in metadata.reason
    assert read_parquet(store.last_held("prisma", JANUARY))[1]["status"] == "off"


def test_an_earlier_extract_outlives_an_outage(holdings_file: Path, store: Store) -> None:
    frame([at(EDGES[1])]).to_parquet(holdings_file)
    settings = settings_for(holdings_file)
    extract_month(PRISMA, JANUARY, store, settings)
    before = store.holdings("prisma", JANUARY).read_bytes()
    holdings_file.unlink()
    with pytest.raises(HoldingsUnreachable):
        extract_month(PRISMA, JANUARY, store, settings)
    assert store.holdings("prisma", JANUARY).read_bytes() == before
    # one that was off is worth nothing and is written again
    extract_month(PRISMA, Month(2025, 2), store, settings)
    assert extract_month(PRISMA, Month(2025, 2), store, settings).status == "off"
    # and whoever turns the holdings off means it
    assert extract_month(PRISMA, JANUARY, store, load_settings(overrides={"holdings": {"source": "off"}})).status == "off"


def test_what_does_not_fit_the_settings_writes_nothing(holdings_file: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    frame([at(EDGES[1])]).to_parquet(holdings_file)
    monkeypatch.setenv("COVERAGE_TILES_DATE", "when")
    with pytest.raises(HoldingsRefused, match=r"prisma 2025-01: .*COVERAGE_TILES_DATE"):
        extract_month(PRISMA, JANUARY, store, settings_for(holdings_file))
    assert not store.holdings("prisma", JANUARY).exists()


def test_last_is_the_latest_instant_of_each_footprint_within_the_lookback(holdings_file: Path, store: Store) -> None:
    here, there, long_ago = shapely.box(5, 50, 6, 51), shapely.box(20, 50, 21, 51), shapely.box(40, 50, 41, 51)
    times = [
        "2024-11-01T00:00:00",
        "2025-01-03T10:00:00",
        "2025-01-31T23:59:59.5",
        "2025-02-01T00:00:00",
        "2024-11-01T00:00:00",
        "2024-10-31T23:59:59",
    ]
    frame([at(t) for t in times], geometry=[here, here, here, here, there, long_ago]).to_parquet(holdings_file)
    settings = settings_for(holdings_file, holdings={"path": str(holdings_file), "lookback_months": 3})
    extract_month(PRISMA, JANUARY, store, settings)
    last, _ = read_parquet(store.last_held("prisma", JANUARY))
    found = {shapely.from_wkb(row["geometry"]).bounds[0]: row["datetime"] for row in last.to_pylist()}
    assert found == {5: at("2025-01-31T23:59:59.5"), 20: at("2024-11-01T00:00:00")}


# Cells


def holdings_table(holdings: pa.Table, last: pa.Table, grid: GridSpec, **how: Any) -> pa.Table:
    """The cells of a month's holdings that no catalogue lists."""
    held = united_by_key(holdings.filter(holdings["in_month"]))
    return pa.concat_tables(held_tables(held, last, grid, **how))


def holdings_rows(*rows: tuple[str, float | None, Any, bool]) -> pa.Table:
    """Rows of (time, cloud, footprint, in_month) as ``HOLDINGS_SCHEMA``."""
    made = [
        {
            "holding": str(k),
            "scene_id": None,
            "scene_key": None,
            "datetime": at(when),
            "pass_time": at(when),
            "date_only": False,
            "sensor": "PRISMA",
            "cloud": cloud,
            "in_month": inside,
            "geometry": shapely.to_wkb(shape),
        }
        for k, (when, cloud, shape, inside) in enumerate(rows)
    ]
    return pa.Table.from_pylist(made, schema=HOLDINGS_SCHEMA)


def last_rows(*rows: tuple[str, Any]) -> pa.Table:
    made = [{"datetime": at(when), "geometry": shapely.to_wkb(shape)} for when, shape in rows]
    return pa.Table.from_pylist(made, schema=LAST_SCHEMA)


CELL, OTHER = (140, 185), (140, 200)  # of the 1° grid: 50..51 N at 5..6 E and 20..21 E
HERE, THERE = shapely.box(5, 50, 6, 51), shapely.box(20, 50, 21, 51)


def test_held_variables_and_days_since() -> None:
    month = holdings_rows(
        ("2025-01-10T12:00:00", 3.0, HERE, True),
        ("2025-01-10T13:00:00", 50.0, HERE, True),
        ("2025-01-20T12:00:00", None, HERE, True),
        ("2024-12-31T23:59:40", 3.0, HERE, False),  # matches, but is not of the month
    )
    table = holdings_table(month, last_rows(("2025-01-20T12:00:00", HERE), ("2024-12-01T00:00:00", THERE)), GRID, cloud_lt=10)
    assert table.schema.equals(HELD_SCHEMA)
    fields = holdings_fields(table, GRID, "read", JANUARY, lookback_months=24)
    assert {name: values[CELL] for name, values in fields.items() if name != "days_since_last_held"} == {
        "held_count": 3,
        "held_clear_count": 1,
        "held_days": (1 << 9) | (1 << 19),
        "held_clear_days": 1 << 9,
    }
    since = fields["days_since_last_held"]
    assert since[CELL] == 11.5  # to the month's end: 20 January noon to 1 February
    assert since[OTHER] == 62  # held before the month
    assert fields["held_count"][OTHER] == 0
    # nothing found in 24 months is at least as long as they are: 2023-02-01 to 2025-02-01
    assert since[0, 0] == 731
    assert (np.isnan(since) == False).all()  # noqa: E712
    assert int((fields["held_count"] > 0).sum()) == 1


def test_an_observation_at_the_months_last_instant() -> None:
    when = "2025-01-31T23:59:59.500"
    table = holdings_table(holdings_rows((when, 1.0, HERE, True)), last_rows((when, HERE)), GRID, cloud_lt=10)
    fields = holdings_fields(table, GRID, "read", JANUARY, 24)
    assert fields["held_days"][CELL] == 1 << 30
    assert fields["days_since_last_held"][CELL] == pytest.approx(0.5 / 86_400, rel=1e-3)


def test_clear_means_known_and_below_the_threshold() -> None:
    rows = [("2025-01-05T00:00:00", cloud, HERE, True) for cloud in (9.999, 10.0, None)]
    last = last_rows(("2025-01-05T00:00:00", HERE))
    assert holdings_table(holdings_rows(*rows), last, GRID, cloud_lt=10)["clear"].to_pylist() == [1]
    assert holdings_table(holdings_rows(*rows), last, GRID, cloud_lt=10, cloud="not_applicable")["clear"].to_pylist() == [3]


@pytest.mark.parametrize("status", ["not_held", "off", "not_read"])
def test_without_a_reading_everything_is_fill(status: str) -> None:
    empty = holdings_table(HOLDINGS_SCHEMA.empty_table(), LAST_SCHEMA.empty_table(), GRID, cloud_lt=10)
    assert empty.num_rows == 0
    fields = holdings_fields(empty, GRID, status, JANUARY, 24)
    assert (fields["held_count"] == -1).all()
    assert (fields["held_clear_count"] == -1).all()
    assert (fields["held_days"] == UNKNOWN).all()
    assert (fields["held_clear_days"] == UNKNOWN).all()
    assert np.isnan(fields["days_since_last_held"]).all()


def test_read_and_nothing_found_is_zero_everywhere() -> None:
    empty = holdings_table(HOLDINGS_SCHEMA.empty_table(), LAST_SCHEMA.empty_table(), GRID, cloud_lt=10)
    fields = holdings_fields(empty, GRID, "read", JANUARY, 12)
    assert (fields["held_count"] == 0).all()
    assert (fields["held_days"] == 0).all()
    assert (fields["days_since_last_held"] == 366).all()  # February 2024 had 29 days


def test_holdings_stats_for_a_person(holdings_file: Path) -> None:
    times = [at("2025-01-10T10:00:00"), at("2025-02-28T10:00:00"), at("2025-03-01T00:00:00")]
    frame(times, geometry=[HERE, HERE, HERE], cloud=[3, None, 3]).to_parquet(holdings_file)
    ds = holdings_stats(fetched(holdings_file, end="2025-12-31"), "2025-01-01", "2025-02-28", GRID)
    assert ds["held_count"].dims == ("time", "lat", "lon")
    assert ds.sizes == {"time": 2, "lat": 180, "lon": 360}
    assert list(ds["time"].values) == [np.datetime64("2025-01-01"), np.datetime64("2025-02-01")]
    here = ds.sel(lat=50.5, lon=5.5)
    assert here["held_count"].values.tolist() == [1, 1]
    assert here["held_clear_count"].values.tolist() == [1, 0]
    assert here["held_days"].values.tolist() == [1 << 9, 1 << 27]
    assert ds["held_count"].sum() == 2


def test_a_frame_without_cloud_has_no_clear_scene() -> None:
    bare = gpd.GeoDataFrame({"datetime": [at("2025-01-10T10:00:00")], "sensor": ["PRISMA"]}, geometry=[HERE], crs=4326)
    ds = holdings_stats(bare, "2025-01", "2025-01", GRID)
    assert (ds["held_count"].sum(), ds["held_clear_count"].sum()) == (1, 0)


def test_extracts_are_geoparquet(holdings_file: Path, store: Store) -> None:
    frame([at(EDGES[1])]).to_parquet(holdings_file)
    extract_month(PRISMA, JANUARY, store, settings_for(holdings_file))
    found = gpd.read_parquet(str(store.holdings("prisma", JANUARY)))
    assert found.crs == "EPSG:4326"
    assert found.geometry[0].equals(shapely.box(5, 50, 6, 51))
    assert as_geoparquet(LAST_SCHEMA.empty_table()).num_rows == 0


def test_a_sentinel_2_holding_lies_in_the_month_and_day_of_its_datatake(tmp_path: Path) -> None:
    """Its own time is the tile's, up to 27 minutes later, as Earth Search gives it: else a held scene of midnight is never matched."""
    sensor = replace(COVERAGE_SENSORS["sentinel-2"], held_satellite="S2")
    product = "S2A_MSIL2A_20250131T235501_N0511_R141_T13TDE_20250201T030000"
    frame = gpd.GeoDataFrame(
        {"datetime": pd.to_datetime(["2025-02-01T00:10:00Z"]), "sensor": ["S2"], "cloud": [1.0], "id": [product]},
        geometry=[shapely.box(0, 0, 1, 1)],
        crs="EPSG:4326",
    )
    path = tmp_path / "held.parquet"
    frame.to_parquet(path)
    settings = load_settings(overrides={"holdings": {"path": str(path)}, "tiles": {"scene_id": "id"}})
    store = Store.below(tmp_path / "data")
    rows = {m: extract_month(sensor, Month(2025, m), store, settings).rows for m in (1, 2)}
    assert rows == {1: 1, 2: 0}
    held, _ = read_parquet(store.holdings("sentinel-2", Month(2025, 1)))
    assert held["pass_time"][0].as_py() == dt.datetime(2025, 1, 31, 23, 55, 1, tzinfo=dt.UTC)
    assert held["datetime"][0].as_py() == dt.datetime(2025, 2, 1, 0, 10, tzinfo=dt.UTC)


def test_two_products_of_one_scene_are_one_scene_held(tmp_path: Path) -> None:
    """Regression: a reprocessed copy counted twice. Crops of one scene over two sites still hold their days in both."""
    ids = ["LC08_L2SP_044034_20250105_20250110_02_T1", "LC08_L2SP_044034_20250105_20250301_02_T1"]
    frame = gpd.GeoDataFrame(
        {"datetime": pd.to_datetime(["2025-01-05T18:00:00Z"] * 2), "sensor": ["Landsat"] * 2, "cloud": [80.0, 2.0], "scene_id": ids},
        geometry=[shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1)],
        crs="EPSG:4326",
    )
    path = tmp_path / "held.parquet"
    frame.to_parquet(path)
    settings = load_settings(overrides={"holdings": {"path": str(path)}})  # the file's own scene_id column is taken
    store, grid = Store.below(tmp_path / "data"), GridSpec(1.0)
    landsat = COVERAGE_SENSORS["landsat-8-9"]
    extract_month(landsat, Month(2025, 1), store, settings)
    held, _ = read_parquet(store.holdings(landsat.key, Month(2025, 1)))
    last, _ = read_parquet(store.last_held(landsat.key, Month(2025, 1)))
    table = holdings_table(held, last, grid, cloud_lt=10).to_pandas()
    assert table["scenes"].tolist() == [1, 1, 1]
    # the newest adds two thirds of the area at 2 %, the older one a third at 80 %: 28 %, as for the copies of a catalogue's scene
    assert table["clear"].tolist() == [0, 0, 0]
    assert table["days"].tolist() == [1 << 4] * 3


# What pandas and files do to columns


def _extract(path: Path, store: Store, sensor: Any = PRISMA, **overrides: Any) -> list[dict[str, Any]]:
    extract_month(sensor, JANUARY, store, settings_for(path, **overrides))
    return read_parquet(store.holdings(sensor.key, JANUARY))[0].to_pylist()


def test_ids_that_pandas_made_the_index_are_ids(holdings_file: Path, store: Store) -> None:
    frame([at(EDGES[1])], scene_id=["a"]).set_index("scene_id").to_parquet(holdings_file)
    assert [row["scene_id"] for row in _extract(holdings_file, store)] == ["a"]


def test_whole_numbers_with_a_null_among_them_stay_ids(holdings_file: Path, store: Store) -> None:
    frame([at(EDGES[1])] * 2, scene_id=pd.array([9_007_199_254_740_993, None], dtype="Int64")).to_parquet(holdings_file)
    assert [row["scene_id"] for row in _extract(holdings_file, store)] == ["9007199254740993", None]


def test_a_dictionary_of_dates_is_days(holdings_file: Path, store: Store) -> None:
    frame(["2025-01-15"] * 2, datetime=pd.Categorical(["2025-01-15"] * 2)).to_parquet(holdings_file)
    assert [row["date_only"] for row in _extract(holdings_file, store)] == [True, True]


def test_each_time_of_a_vector_file_keeps_its_own_zone(tmp_path: Path, store: Store) -> None:
    times = ["2025-01-01T10:00:00+02:00", "2025-01-02T10:00:00Z", "2025-01-03T10:00:00"]
    path = tmp_path / "holdings.geojson"
    features = [
        {
            "type": "Feature",
            "properties": {"datetime": when, "sensor": "PRISMA", "cloud": 1.0, "scene_id": f"scene {k}"},
            "geometry": shapely.geometry.mapping(shapely.box(5, 50, 6, 51)),
        }
        for k, when in enumerate(times)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    rows = {row["scene_id"]: row["datetime"] for row in _extract(path, store)}
    assert rows == {
        "scene 0": at("2025-01-01T08:00:00"),
        "scene 1": at("2025-01-02T10:00:00"),
        "scene 2": at("2025-01-03T10:00:00"),
    }


@pytest.mark.parametrize("text", ["2025-01", "2025"])
def test_a_month_is_no_time(holdings_file: Path, store: Store, text: str) -> None:
    frame([text, *["2025-01-05"] * 9]).to_parquet(holdings_file)
    assert len(_extract(holdings_file, store)) == 9


def test_rows_without_a_sensor_are_told(holdings_file: Path, store: Store) -> None:
    frame([at(EDGES[1])] * 20, sensor=[None, *["PRISMA"] * 19]).to_parquet(holdings_file)
    assert "1 × no sensor" in extract_month(PRISMA, JANUARY, store, settings_for(holdings_file)).warnings[0]
    frame([at(EDGES[1])] * 20, sensor=[*[None] * 9, *["PRISMA"] * 11]).to_parquet(holdings_file)
    with pytest.raises(HoldingsRefused, match=r"9 × no sensor \(COVERAGE_TILES_SENSOR"):
        extract_month(PRISMA, JANUARY, store, settings_for(holdings_file))


def test_a_row_spelt_otherwise_counts_in_its_own_month_alone(holdings_file: Path, store: Store) -> None:
    frame([at("2025-01-15T10:00:00"), at("2025-02-01T12:00:00")], sensor=["PRISMA", "prisma"]).to_parquet(holdings_file)
    assert len(_extract(holdings_file, store)) == 1


@pytest.mark.parametrize("own", ["2025-02-01T05:20:21", "2025-01-31T17:50:21", "2025-02-02T10:00:00"])
def test_a_named_holding_is_read_in_the_month_that_its_id_states(holdings_file: Path, store: Store, own: str) -> None:
    """Its own time is local, or that of its download."""
    sensor = replace(SENTINEL_2, held_satellite="S2")
    product = "S2A_MSIL2A_20250131T235021_N0511_R141_T13TDE_20250201T030000"
    frame([at(own)], sensor="S2", scene_id=[product]).to_parquet(holdings_file)
    assert [row["in_month"] for row in _extract(holdings_file, store, sensor)] == [True]


def test_the_holdings_of_a_site_s_name_are_one_observation_a_day() -> None:
    rows = [("2025-01-05T10:00:00", 1.0, HERE, True), ("2025-01-09T10:00:00", 1.0, HERE, True)]
    table = holdings_rows(*rows)
    named = table.set_column(table.schema.get_field_index("scene_key"), "scene_key", pa.array(["site-A", "site-A"]))
    cells = holdings_table(named, LAST_SCHEMA.empty_table(), GRID, cloud_lt=10)
    assert (cells["scenes"].to_pylist(), cells["days"].to_pylist()) == ([2], [(1 << 4) | (1 << 8)])


def test_holdings_stats_takes_the_reference_system_of_its_frame() -> None:
    metres = gpd.GeoDataFrame({"datetime": [at("2025-01-10T10:00:00")], "sensor": ["PRISMA"]}, geometry=[HERE], crs=4326).to_crs(3857)
    assert holdings_stats(metres.rename_geometry("outline"), "2025-01", "2025-01", GRID)["held_count"].sum() >= 1
