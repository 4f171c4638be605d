"""Holdings from a real PostGIS table: odd names, kinds of time and geometry, and everything a database can refuse."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import sqlalchemy as sa
from psycopg2 import sql
from sqlalchemy import event

from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.holdings.errors import HoldingsUnavailable, HoldingsUnreachable
from coverage_pipeline.holdings.extract import HoldingsRefused, extract_month
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.pipeline.build import KeptFile, build
from coverage_pipeline.pipeline.fetch import fetch_holdings
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet
from tests.services import PostgisServer, postgis  # noqa: F401 a fixture

pytestmark = [pytest.mark.service, pytest.mark.slow]

JANUARY = Month(2025, 1)
PRISMA = COVERAGE_SENSORS["prisma"]
NAMES = {"geom": "geometry", "date": "datetime", "sensor": "sensor", "cloud": "cloud", "scene_id": "scene_id"}


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(frozen=True)
class Tiles:
    """A table of holdings in a database of its own, and what the environment must say of it."""

    server: PostgisServer
    database: str
    set_env: Callable[[str, str], None]
    schema: str = "public"
    table: str = "tiles"
    names: dict[str, str] = field(default_factory=lambda: dict(NAMES))

    def create(self, *, date: str = "timestamptz", geometry: str = "geometry", cloud: str = "double precision") -> Tiles:
        kinds = {"geom": geometry, "date": date, "sensor": "text", "cloud": cloud, "scene_id": "text"}
        columns = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(self.names[n]), sql.SQL(k)) for n, k in kinds.items())
        self.server.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.schema)), database=self.database)
        self.server.execute(sql.SQL("CREATE TABLE {} ({})").format(self.place, columns), database=self.database)
        self.point_settings_here()
        return self

    @property
    def place(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    def point_settings_here(self) -> None:
        server = {"HOST": self.server.host, "PORT": str(self.server.port), "NAME": self.database, "USER": self.server.user}
        for name, value in {**server, "PASSWORD": self.server.password, "SCHEMA": self.schema}.items():
            self.set_env(f"COVERAGE_DB_{name}", value)
        for name, value in {**self.names, "table": self.table}.items():
            self.set_env(f"COVERAGE_TILES_{name.upper()}", value)

    def add(self, when: Any, geometry: str | None, *, sensor: str = "PRISMA", cloud: Any = None, scene_id: str | None = None) -> None:
        """A row; ``geometry`` is EWKT."""
        values = {"geom": geometry, "date": when, "sensor": sensor, "cloud": cloud, "scene_id": scene_id}
        columns = sql.SQL(", ").join(sql.Identifier(self.names[name]) for name in values)
        literals = sql.SQL(", ").join(map(sql.Literal, values.values()))  # parameters would trip over a % in a name
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(self.place, columns, literals)
        with closing(self.server.connect(self.database)) as connection, connection.cursor() as cursor:
            cursor.execute("SET timezone TO 'UTC'")  # what a text without zone means here; the table keeps what it keeps
            cursor.execute(statement)


@pytest.fixture
def tiles(postgis: PostgisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiles]:  # noqa: F811
    database = postgis.create_database()
    yield Tiles(postgis, database, monkeypatch.setenv)
    postgis.execute(f"DROP DATABASE {database} WITH (FORCE)")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.below(tmp_path / "data")


def box(west: float, south: float, size: float = 1.0, srid: int | None = 4326) -> str:
    text = shapely.to_wkt(shapely.box(west, south, west + size, south + size), rounding_precision=-1)
    return text if srid is None else f"SRID={srid};{text}"


def january(**changes: Any) -> gpd.GeoDataFrame:
    return fetch_holdings(**{"start": "2025-01-01", "end": "2025-01-31", **changes})


@dataclass
class Statements:
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def statements() -> Iterator[Statements]:
    seen = Statements()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.asked.append(statement)

    event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    event.remove(sa.Engine, "before_cursor_execute", note)


# Names


ODD_NAMES = {
    "geom": 'The "Geom"; DROP TABLE "tiles"; --',
    "date": "Sensed at 100% (UTC)",
    "sensor": "%(sensor)s :sensor",
    "cloud": "Wolken'; ROLLBACK",
    "scene_id": "ID",
}


def test_every_name_is_quoted_never_formatted_in(tiles: Tiles, store: Store) -> None:
    odd = replace(tiles, schema='My "Schema"; %s', table="Tiles; DELETE FROM tiles", names=ODD_NAMES).create()
    odd.add("2025-01-15 10:00", box(5, 50), cloud=7, scene_id="a")
    frame = january()
    assert frame[["sensor", "cloud", "scene_id"]].values.tolist() == [["PRISMA", 7.0, "a"]]
    assert frame.geometry[0].equals(shapely.box(5, 50, 6, 51))
    assert extract_month(PRISMA, JANUARY, store, load_settings()).rows == 1


def test_an_address_in_one_variable(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.create().add("2025-01-15 10:00", box(5, 50))
    for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD", "SCHEMA"):
        monkeypatch.delenv(f"COVERAGE_DB_{name}")
    server = tiles.server
    # a plain postgresql:// goes to psycopg2 too, whatever SQLAlchemy's default driver is
    monkeypatch.setenv("COVERAGE_DB_URL", f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/{tiles.database}")
    assert len(january()) == 1


def test_session_options_of_the_address_are_kept(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = replace(tiles, schema="elsewhere").create(date="timestamp")
    odd.add("2025-01-31 23:59:59.5", box(5, 50))
    for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD", "SCHEMA"):
        monkeypatch.delenv(f"COVERAGE_DB_{name}")
    server = odd.server
    address = f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/{odd.database}"
    monkeypatch.setenv("COVERAGE_DB_URL", f"{address}?options=-csearch_path%3Delsewhere%2Cpublic%20-ctimezone%3DAsia/Tokyo")
    assert len(january()) == 1  # found by the search path, and in January by UTC


def test_optional_columns_may_be_absent(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.create().add("2025-01-15 10:00", box(5, 50))
    for column in ("cloud", "scene_id"):
        tiles.server.execute(f"ALTER TABLE tiles DROP COLUMN {column}", database=tiles.database)
        monkeypatch.setenv(f"COVERAGE_TILES_{column.upper()}", "")
    frame = january()
    assert len(frame) == 1
    assert frame["cloud"].isna().all()
    assert frame["scene_id"].isna().all()


# Time


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
@pytest.mark.parametrize("role_zone", [None, "Asia/Tokyo"])
def test_a_month_is_half_open_in_utc_whatever_zone_the_server_or_role_has(
    tiles: Tiles, store: Store, kind: str, role_zone: str | None
) -> None:
    tiles.create(date=kind)
    edges = ["2024-12-31 23:58:59", "2024-12-31 23:59:30", "2025-01-01 00:00:00", "2025-01-31 23:59:59.5", "2025-02-01 00:00:00"]
    for k, when in enumerate([*edges, "2025-02-01 00:00:30", "2025-02-01 00:01:00"]):
        tiles.add(when, box(k, 50), scene_id=when)
    if role_zone:
        tiles.server.execute(f"ALTER ROLE {tiles.server.user} IN DATABASE {tiles.database} SET timezone TO '{role_zone}'")
    assert list(january()["datetime"]) == [at(edges[2]), at(edges[3])]
    metadata = extract_month(PRISMA, JANUARY, store, load_settings())
    table, _ = read_parquet(store.holdings("prisma", JANUARY))
    rows = {row["scene_id"]: row["in_month"] for row in table.to_pylist()}
    # within an hour of the month a holding takes part in matching, but is not counted
    around = dict.fromkeys([edges[0], edges[1], edges[4], "2025-02-01 00:00:30", "2025-02-01 00:01:00"], False)
    assert rows == {**around, edges[2]: True, edges[3]: True}
    assert any("UTC assumed" in note for note in metadata.notes) == (kind == "timestamp")
    assert metadata.rows == 2
    assert not any(table["date_only"].to_pylist())
    last, _ = read_parquet(store.last_held("prisma", JANUARY))
    assert max(last["datetime"].to_pylist()) == at(edges[3])


def test_a_date_column_has_days_of_its_own(tiles: Tiles, store: Store) -> None:
    tiles.create(date="date")
    for day in ("2024-12-31", "2025-01-01", "2025-01-31", "2025-02-01"):
        tiles.add(day, box(5, 50), scene_id=day)
    assert january()["scene_id"].tolist() == ["2025-01-01", "2025-01-31"]
    extract_month(PRISMA, JANUARY, store, load_settings())
    table, _ = read_parquet(store.holdings("prisma", JANUARY))
    assert all(table["date_only"].to_pylist())
    assert table.filter(table["in_month"])["scene_id"].to_pylist() == ["2025-01-01", "2025-01-31"]


# Geometry


@pytest.mark.parametrize(
    ("column", "ewkt"),
    [
        ("geometry(Polygon, 4326)", box(5, 50)),
        ("geometry", box(5, 50, srid=None)),  # SRID 0: taken as longitude and latitude
        ("geography(Polygon, 4326)", box(5, 50)),
        ("geometry(PolygonZ, 4326)", "SRID=4326;POLYGON Z ((5 50 7, 6 50 7, 6 51 7, 5 51 7, 5 50 7))"),
        ("geometry(MultiPolygon, 4326)", "SRID=4326;MULTIPOLYGON (((5 50, 6 50, 6 51, 5 51, 5 50)))"),
    ],
)
def test_kinds_of_geometry_columns(tiles: Tiles, column: str, ewkt: str) -> None:
    tiles.create(geometry=column).add("2025-01-15 10:00", ewkt)
    shape = january().geometry[0]
    assert shape.equals(shapely.box(5, 50, 6, 51))
    assert not shape.has_z


def test_another_reference_system_becomes_degrees(tiles: Tiles) -> None:
    in_metres = gpd.GeoSeries([shapely.box(300_000, 5_600_000, 400_000, 5_700_000)], crs=32631)
    tiles.create(geometry="geometry(Polygon, 32631)").add("2025-01-15 10:00", f"SRID=32631;{in_metres[0].wkt}")
    assert january().geometry[0].equals_exact(in_metres.to_crs(4326)[0], tolerance=1e-6)


def test_null_geometry_date_and_cloud(tiles: Tiles, store: Store) -> None:
    tiles.create()
    tiles.add("2025-01-15 10:00", None, scene_id="no geometry")
    tiles.add(None, box(5, 50), scene_id="no date")
    for day in range(16, 26):
        tiles.add(f"2025-01-{day} 10:00", box(5, 50), scene_id=f"no cloud {day}")
    metadata = extract_month(PRISMA, JANUARY, store, load_settings())
    table, _ = read_parquet(store.holdings("prisma", JANUARY))
    assert table["scene_id"].to_pylist() == [f"no cloud {day}" for day in range(16, 26)]
    assert set(table["cloud"].to_pylist()) == {None}
    assert (metadata.rows, metadata.rejected, metadata.footprints) == (10, 2, 1)
    rejected, _ = read_parquet(sibling(store.holdings("prisma", JANUARY), ".rejected.parquet"))
    assert {row["scene_id"]: row["reason"] for row in rejected.to_pylist()} == {"no geometry": "geometry missing", "no date": "no time"}
    assert len(metadata.warnings) == 3  # of the rows of the month, of those without a time, and of those of the lookback


def _ten_good(tiles: Tiles) -> None:
    for day in range(10, 20):
        tiles.add(f"2025-01-{day} 10:00", box(day, 50))


CURVE = "CURVEPOLYGON(CIRCULARSTRING(0 0, 1 1, 2 0, 1 -1, 0 0))"


@pytest.mark.parametrize(
    ("ewkt", "reason"),
    [
        (f"SRID=4326;{CURVE}", "geometry is curved"),
        (CURVE, "geometry is curved"),
        (f"SRID=32631;{CURVE}", "geometry is curved"),
        ("POLYGON((300000 5600000, 400000 5600000, 400000 5700000, 300000 5600000))", "latitude beyond"),  # metres, SRID 0
        ("SRID=4326;POINT(5 50)", "not a polygon"),
        ("SRID=4326;POLYGON EMPTY", "empty"),
        ("SRID=32631;POLYGON((5 50, 6 50, 6 51, 5 50))", "smaller than a hectare"),  # degrees, said to be metres
    ],
)
def test_a_footprint_that_cannot_be_placed_rejects_its_row_alone(tiles: Tiles, store: Store, ewkt: str, reason: str) -> None:
    tiles.create()
    _ten_good(tiles)
    tiles.add("2025-01-15 11:00", ewkt, scene_id="odd")
    metadata = extract_month(PRISMA, JANUARY, store, load_settings())
    assert (metadata.rows, metadata.rejected) == (10, 1)
    rejected, _ = read_parquet(sibling(store.holdings("prisma", JANUARY), ".rejected.parquet"))
    assert rejected["scene_id"].to_pylist() == ["odd"]
    assert reason in rejected["reason"][0].as_py()


def test_rows_of_several_reference_systems_are_each_brought_into_degrees(tiles: Tiles, store: Store) -> None:
    tiles.create()
    metres = gpd.GeoSeries([shapely.box(300_000, 5_600_000, 400_000, 5_700_000)], crs=32631)
    tiles.add("2025-01-15 10:00", f"SRID=32631;{metres[0].wkt}")
    tiles.add("2025-01-16 10:00", box(5, 50))
    assert extract_month(PRISMA, JANUARY, store, load_settings()).rows == 2
    found = gpd.read_parquet(str(store.holdings("prisma", JANUARY)))
    assert found.geometry[0].equals_exact(metres.to_crs(4326)[0], tolerance=1e-6)


def test_a_reference_system_that_nobody_knows_rejects_its_rows(tiles: Tiles, store: Store) -> None:
    tiles.create()
    _ten_good(tiles)
    tiles.server.execute(
        "INSERT INTO spatial_ref_sys (srid, auth_name, auth_srid, srtext, proj4text) VALUES (990001, 'house', 1, 'no system', 'none')",
        database=tiles.database,
    )
    tiles.add("2025-01-15 11:00", box(5, 50, srid=990001))
    metadata = extract_month(PRISMA, JANUARY, store, load_settings())
    assert (metadata.rows, metadata.rejected_reasons) == (10, {"SRID 990001 is not known to the database": 1})


def test_a_sensor_spelt_otherwise_is_told(tiles: Tiles, store: Store) -> None:
    tiles.create()
    tiles.add("2025-01-15 10:00", box(5, 50), sensor="Prisma ")
    with pytest.raises(HoldingsRefused, match="sensor is spelt 'Prisma ', held_satellite 'PRISMA'"):
        extract_month(PRISMA, JANUARY, store, load_settings())
    assert not store.holdings("prisma", JANUARY).exists()


def test_a_sensor_that_never_occurs_is_told_with_those_that_do(tiles: Tiles, store: Store) -> None:
    tiles.create()
    tiles.add("2025-01-15 10:00", box(5, 50), sensor="ASI hyperspectral")
    metadata = extract_month(PRISMA, JANUARY, store, load_settings())
    assert metadata.rows == 0
    assert "'ASI hyperspectral' (1); if one of them is prisma, set its held_satellite" in metadata.warnings[0]


@pytest.mark.parametrize(
    ("kind", "given", "known"),
    [
        ("text", ["72", " 5 ", "-1", "101", "clear", None], [72, 5, None, None, None, None]),
        ("numeric(5,2)", [72.25, 0, 100, -1, 101, None], [72.25, 0, 100, None, None, None]),
        ("smallint", [72, 0, 100, -1, 101, None], [72, 0, 100, None, None, None]),
        ("boolean", [True, False, None], [None, None, None]),  # a flag is no percentage: 1 % would be clear
    ],
)
def test_cloud_of_any_type_is_a_percentage_or_not_known(tiles: Tiles, kind: str, given: list[Any], known: list[Any]) -> None:
    tiles.create(cloud=kind)
    for k, value in enumerate(given):
        tiles.add(f"2025-01-{10 + k} 10:00", box(5, 50), cloud=value)
    cloud = january().sort_values("datetime")["cloud"]
    assert [None if np.isnan(v) else v for v in cloud] == known


# The last instants held


def test_last_asks_one_grouped_question_within_the_lookback(tiles: Tiles, store: Store, statements: Statements) -> None:
    tiles.create()
    for when in ("2023-02-01 00:00", "2024-06-01 10:00", "2025-01-03 10:00", "2025-01-31 23:59:59.5", "2025-02-01 00:00"):
        tiles.add(when, box(5, 50))
    tiles.add("2023-01-31 23:59:59", box(20, 50))  # a second before the lookback
    tiles.add("2023-02-01 00:00", box(30, 50))
    tiles.add("2025-01-10 10:00", box(40, 50), sensor="EnMAP")
    metadata = extract_month(PRISMA, JANUARY, store, load_settings())
    asked = [text for text in statements.asked if "tiles" in text]
    # rows of the month, spellings of the sensor in it, rows without a time, and the last instants in one question
    assert len(asked) == 4
    assert sum("max(" in text and "GROUP BY" in text for text in asked) == 1
    last, _ = read_parquet(store.last_held("prisma", JANUARY))
    found = {shapely.from_wkb(row["geometry"]).bounds[0]: row["datetime"] for row in last.to_pylist()}
    assert found == {5: at("2025-01-31 23:59:59.5"), 30: at("2023-02-01")}
    assert metadata.lookback_months == 24
    assert metadata.footprints == 2


def test_a_thousand_footprints_are_one_question_too(tiles: Tiles, store: Store, statements: Statements) -> None:
    tiles.create()
    tiles.server.execute(
        "INSERT INTO tiles "
        "SELECT ST_MakeEnvelope(x/10.0, 0, x/10.0+1, 1, 4326), '2024-03-01'::timestamptz + d * interval '10 days', 'PRISMA' "
        "FROM generate_series(0, 999) x, generate_series(0, 4) d",
        database=tiles.database,
    )
    assert extract_month(PRISMA, JANUARY, store, load_settings()).footprints == 1000
    assert sum("max(" in text and "GROUP BY" in text for text in statements.asked) == 1


# The same as from a file


def test_database_and_file_give_the_same_extract(tiles: Tiles, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    tiles.create()
    rows = []
    for k in range(60):
        when = at("2024-12-20") + dt.timedelta(seconds=float(rng.uniform(0, 60 * 86_400)))
        shape = shapely.box(w := int(rng.integers(-170, 170)), s := int(rng.integers(-60, 60)), w + 1, s + 1)
        cloud = [None, -1, 101, float(rng.uniform(0, 100))][k % 4]
        rows.append((when, ["PRISMA", "EMIT"][k % 3 == 0], cloud, f"scene-{k}" if k % 5 else None, shape))
    rows.append((at("2025-01-31 23:59:59.5"), "PRISMA", 3.0, "edge", shapely.box(178, 0, 182, 1)))
    for when, sensor, cloud, scene_id, shape in rows:
        tiles.add(when, f"SRID=4326;{shapely.to_wkt(shape, rounding_precision=-1)}", sensor=sensor, cloud=cloud, scene_id=scene_id)
    columns = dict(zip(("datetime", "sensor", "cloud", "scene_id", "geometry"), zip(*rows, strict=True), strict=True))
    gpd.GeoDataFrame(columns, crs=4326).to_parquet(tmp_path / "holdings.parquet")

    from_database = extract_month(PRISMA, JANUARY, store, load_settings())
    monkeypatch.setenv("COVERAGE_HOLDINGS_PATH", str(tmp_path / "holdings.parquet"))
    other = Store.below(tmp_path / "other")
    from_file = extract_month(PRISMA, JANUARY, other, load_settings())

    assert from_database.source.startswith("table ")
    assert from_file.source.startswith("file ")
    assert from_database.rows == from_file.rows > 10
    for place in ("holdings", "last_held"):
        one, _ = read_parquet(getattr(store, place)("prisma", JANUARY))
        two, _ = read_parquet(getattr(other, place)("prisma", JANUARY))
        assert _rows(one) == _rows(two)
    assert january().drop(columns="geometry").equals(january().drop(columns="geometry"))


def _rows(table: Any) -> list[tuple[str, ...]]:
    # a row without id is named by its place, which is not the same in the two
    return sorted(tuple(str(row[n]) for n in table.column_names if n != "holding") for row in table.to_pylist())


# What can go wrong


def test_database_down_is_unreachable(tiles: Tiles, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    tiles.create()
    monkeypatch.setenv("COVERAGE_DB_PORT", str(free_port()))
    with pytest.raises(HoldingsUnreachable, match="COVERAGE_DB_HOST"):
        january()
    metadata = extract_month(PRISMA, JANUARY, store, load_settings())
    assert metadata.status == "off"
    assert "cannot be reached" in metadata.reason


def test_unreachable_after_a_good_extract_keeps_it(tiles: Tiles, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    tiles.create().add("2025-01-15 10:00", box(5, 50))
    extract_month(PRISMA, JANUARY, store, load_settings())
    before = store.holdings("prisma", JANUARY).read_bytes(), store.last_held("prisma", JANUARY).read_bytes()
    monkeypatch.setenv("COVERAGE_DB_PORT", str(free_port()))
    with pytest.raises(HoldingsUnreachable):
        extract_month(PRISMA, JANUARY, store, load_settings())
    assert (store.holdings("prisma", JANUARY).read_bytes(), store.last_held("prisma", JANUARY).read_bytes()) == before


SECRET = "not-the-right-secret"


def test_a_wrong_password_is_refused_not_off(
    tiles: Tiles, monkeypatch: pytest.MonkeyPatch, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tiles.create()
    monkeypatch.setenv("COVERAGE_DB_PASSWORD", SECRET)
    with caplog.at_level(logging.DEBUG), pytest.raises(HoldingsRefused, match="COVERAGE_DB_PASSWORD") as refused:
        extract_month(PRISMA, JANUARY, store, load_settings())
    assert not isinstance(refused.value, HoldingsUnavailable)
    assert not store.holdings("prisma", JANUARY).exists()
    assert SECRET not in _all_said(refused.value) + caplog.text


def test_no_password_is_refused_not_off(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.create()
    monkeypatch.delenv("COVERAGE_DB_PASSWORD")
    with pytest.raises(HoldingsRefused, match="COVERAGE_DB_PASSWORD"):
        january()


def test_a_server_without_tls_is_refused_where_tls_is_asked_for(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.create()
    monkeypatch.setenv("COVERAGE_DB_SSLMODE", "require")
    with pytest.raises(HoldingsRefused, match="COVERAGE_DB_SSLMODE"):
        january()


@pytest.mark.parametrize(
    ("address", "refusal"),
    [
        ("postgresql://me:{0}@{host}:{port}/{db}", HoldingsRefused),
        ("postgresql://me:x@{0}@{host}:{port}/{db}", SettingsError),
        ("postgresql://me:x/{0}@{host}:{port}/{db}", SettingsError),
    ],
)
def test_a_password_in_the_address_is_never_shown(
    tiles: Tiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, store: Store, address: str, refusal: type[PlannerError]
) -> None:
    tiles.create()
    server = tiles.server
    monkeypatch.setenv("COVERAGE_DB_URL", address.format(SECRET, host=server.host, port=server.port, db=tiles.database))
    with caplog.at_level(logging.DEBUG), pytest.raises(refusal, match="COVERAGE_DB") as refused:
        extract_month(PRISMA, JANUARY, store, load_settings())
    assert SECRET not in _all_said(refused.value) + caplog.text


def _all_said(error: BaseException | None) -> str:
    """The messages of an error and of all it came from, as a traceback would print them."""
    said = ""
    while error is not None:
        said += f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return said


def test_an_unknown_database_is_refused(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.create()
    monkeypatch.setenv("COVERAGE_DB_NAME", "elsewhere")
    with pytest.raises(HoldingsRefused, match="COVERAGE_DB_NAME"):
        january()


@pytest.mark.parametrize(
    ("variable", "value", "to_set"),
    [
        ("COVERAGE_TILES_TABLE", "nowhere", "COVERAGE_TILES_TABLE"),
        ("COVERAGE_DB_SCHEMA", "nowhere", "COVERAGE_DB_SCHEMA"),
        ("COVERAGE_TILES_GEOM", "nowhere", "COVERAGE_TILES_GEOM"),
        ("COVERAGE_TILES_GEOM", "sensor", "COVERAGE_TILES_GEOM"),  # text: only a row shows that it is no geometry
        ("COVERAGE_TILES_DATE", "nowhere", "COVERAGE_TILES_DATE"),
        ("COVERAGE_TILES_DATE", "cloud", "COVERAGE_TILES_DATE"),  # a number compared with times
        ("COVERAGE_TILES_SENSOR", "nowhere", "COVERAGE_TILES_SENSOR"),
        ("COVERAGE_TILES_CLOUD", "nowhere", "COVERAGE_TILES_CLOUD"),
        ("COVERAGE_TILES_SCENE_ID", "nowhere", "COVERAGE_TILES_SCENE_ID"),
    ],
)
def test_a_wrong_name_is_refused_and_says_what_to_set(
    tiles: Tiles, monkeypatch: pytest.MonkeyPatch, store: Store, variable: str, value: str, to_set: str
) -> None:
    tiles.create().add("2025-01-15 10:00", box(5, 50))
    monkeypatch.setenv(variable, value)
    with pytest.raises(HoldingsRefused, match=to_set) as refused:
        extract_month(PRISMA, JANUARY, store, load_settings())
    assert value in str(refused.value) or value != "nowhere"
    assert "prisma 2025-01" in str(refused.value)


def test_a_database_without_postgis_says_so(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tiles.server.create_database(extension=False)
    replace(tiles, database=plain).create(geometry="bytea")
    with pytest.raises(HoldingsRefused, match="CREATE EXTENSION postgis"):
        january()


def test_a_table_that_may_not_be_read_is_refused(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.create()
    role = f"guest_{tiles.database}"
    tiles.server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'guest-password'")
    monkeypatch.setenv("COVERAGE_DB_USER", role)
    monkeypatch.setenv("COVERAGE_DB_PASSWORD", "guest-password")
    with pytest.raises(HoldingsRefused, match=r"permission denied.*COVERAGE_DB_USER"):
        january()


# The build


def _planner(tmp_path: Path) -> Planner:
    settings = load_settings(
        overrides={
            "data": str(tmp_path / "data"),
            "sensors": {"keys": ["prisma"]},
            "window": {"start": "2025-01-01", "end": "2025-01-31"},
            "grid": {"resolution": 5.0},
            "area": {"scope": "all"},
        }
    )
    return Planner.from_settings(settings)


def test_the_build_goes_on_while_the_database_is_down(tiles: Tiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiles.create().add("2025-01-15 10:00", box(5, 50, 5), cloud=3)
    up, port = str(tiles.server.port), str(free_port())
    monkeypatch.setenv("COVERAGE_DB_PORT", port)
    reports = build(_planner(tmp_path))["2025-01|prisma"]
    assert reports["coverage"].holdings_status == "off"
    monkeypatch.setenv("COVERAGE_DB_PORT", up)
    reports = build(_planner(tmp_path))["2025-01|prisma"]
    assert reports["coverage"].holdings_status == "read"
    monkeypatch.setenv("COVERAGE_DB_PORT", port)
    reports = build(_planner(tmp_path))["2025-01|prisma"]
    assert isinstance(reports["holdings"], KeptFile)
    assert reports["coverage"].holdings_status == "read"  # an outage does not forget what was read


def test_the_build_names_the_partition_that_a_wrong_password_stops(tiles: Tiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiles.create()
    monkeypatch.setenv("COVERAGE_DB_PASSWORD", SECRET)
    with pytest.raises(PlannerError, match=r"2025-01\|prisma: .*COVERAGE_DB_PASSWORD") as failed:
        build(_planner(tmp_path))
    assert SECRET not in _all_said(failed.value)
