"""The documented views over pgstac and the Open Data Cube: made as the docs have them, and read as holdings."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from coverage_pipeline.holdings.fetch import holdings_between
from coverage_pipeline.months import UTC
from coverage_pipeline.settings.load import load_settings
from tests.services import PostgisServer, postgis  # noqa: F401 a fixture

pytestmark = pytest.mark.service
SQL = Path(__file__).parents[2] / "docs" / "sql"
PLACE = shapely.box(9, 47, 10, 48)
WHEN = dt.datetime(2025, 3, 5, 10, tzinfo=UTC)
GIVEN = "00000000-0000-0000-0000-00000000000"
METADATA = json.dumps({"properties": {"datetime": WHEN.isoformat(), "eo:cloud_cover": 7.5}})

# As facts of each system's released schema say; only what the views read.
PGSTAC = """CREATE SCHEMA pgstac;
CREATE TABLE pgstac.items (id text, geometry geometry, collection text, datetime timestamptz, end_datetime timestamptz, content jsonb)
PARTITION BY LIST (collection);
CREATE TABLE pgstac._items_1 PARTITION OF pgstac.items DEFAULT"""
AGDC = """CREATE SCHEMA agdc;
CREATE TABLE agdc.dataset_type (id smallint PRIMARY KEY, name text);
CREATE TABLE agdc.dataset (id uuid PRIMARY KEY, dataset_type_ref smallint, metadata jsonb, archived timestamptz);
INSERT INTO agdc.dataset_type VALUES (1, 's2a_ard')"""
ODC = """CREATE SCHEMA odc;
CREATE TABLE odc.product (id smallint PRIMARY KEY, name text);
CREATE TABLE odc.dataset (id uuid PRIMARY KEY, product_ref smallint, metadata jsonb, archived timestamptz);
CREATE TABLE odc.spatial_4326 (dataset_ref uuid, extent geometry(MultiPolygon, 4326));
CREATE TABLE odc.dataset_search_datetime (dataset_ref uuid, search_key text, search_val tstzrange);
INSERT INTO odc.product VALUES (1, 's2a_ard')"""
EXPLORER = f"""{AGDC}; CREATE SCHEMA cubedash;
CREATE TABLE cubedash.dataset_spatial (id uuid, dataset_type_ref smallint, center_time timestamptz, footprint geometry)"""


def read(server: PostgisServer, name: str) -> list[tuple[Any, ...]]:
    db = {"host": server.host, "port": server.port, "name": name, "user": server.user, "password": server.password}
    overrides = {
        "db": db,
        "tiles": {"table": "coverage_tiles", "scene_id": "scene_id"},
        "holdings": {"sensors": {"s2a_ard": "sentinel-2", "sentinel-2-l2a": "sentinel-2"}},
    }
    frame = holdings_between(load_settings(None, overrides, environment=False), "2025-03-01", "2025-03-31")
    assert all(abs(a - b) < 1e-6 for shape in frame.geometry for a, b in zip(shape.bounds, PLACE.bounds, strict=True))
    rows = frame[["scene_id", "sensor", "datetime", "cloud"]].to_numpy().tolist()
    return [(row[0], row[1], row[2].to_pydatetime(), None if row[3] != row[3] else row[3]) for row in rows]


def make(server: PostgisServer, schema: str, view: str) -> str:
    name = server.create_database()
    server.execute(schema, database=name)
    server.execute((SQL / view).read_text(encoding="utf-8"), database=name)
    return name


def test_pgstac(postgis: PostgisServer) -> None:  # noqa: F811
    name = make(postgis, PGSTAC, "pgstac.sql")
    postgis.execute(
        "INSERT INTO pgstac.items VALUES ('S2A_X', ST_GeomFromText(%s, 4326), 'sentinel-2-l2a', %s, %s, %s)",
        (PLACE.wkt, WHEN, WHEN, METADATA),
        database=name,
    )
    assert read(postgis, name) == [("S2A_X", "sentinel-2", WHEN, 7.5)]


def test_odc_classic_leaves_out_what_is_archived_and_transforms(postgis: PostgisServer) -> None:  # noqa: F811
    name = make(postgis, AGDC, "odc_agdc.sql")
    content = json.loads(METADATA) | {"geometry": shapely.geometry.mapping(PLACE), "crs": "epsg:4326"}
    for number, archived in ((1, None), (2, WHEN)):
        postgis.execute(
            "INSERT INTO agdc.dataset VALUES (%s, 1, %s, %s)", (f"{GIVEN}{number}", json.dumps(content), archived), database=name
        )
    assert read(postgis, name) == [(f"{GIVEN}1", "sentinel-2", WHEN, 7.5)]


def test_odc_postgis_driver(postgis: PostgisServer) -> None:  # noqa: F811
    name = make(postgis, ODC, "odc_postgis.sql")
    for number, archived in ((1, None), (2, WHEN)):
        key = f"{GIVEN}{number}"
        postgis.execute("INSERT INTO odc.dataset VALUES (%s, 1, %s, %s)", (key, METADATA, archived), database=name)
        postgis.execute("INSERT INTO odc.spatial_4326 VALUES (%s, ST_Multi(ST_GeomFromText(%s, 4326)))", (key, PLACE.wkt), database=name)
        postgis.execute(
            "INSERT INTO odc.dataset_search_datetime VALUES (%s, 'time', tstzrange(%s, %s, '[]'))", (key, WHEN, WHEN), database=name
        )
    assert read(postgis, name) == [(f"{GIVEN}1", "sentinel-2", WHEN, 7.5)]


def test_odc_explorer_with_footprints_in_their_own_crs(postgis: PostgisServer) -> None:  # noqa: F811
    name = make(postgis, EXPLORER, "odc_explorer.sql")
    postgis.execute("INSERT INTO agdc.dataset VALUES (%s, 1, %s, NULL)", (f"{GIVEN}1", METADATA), database=name)
    postgis.execute(
        "INSERT INTO cubedash.dataset_spatial VALUES (%s, 1, %s, ST_Transform(ST_GeomFromText(%s, 4326), 3857))",
        (f"{GIVEN}1", WHEN, PLACE.wkt),
        database=name,
    )
    assert read(postgis, name) == [(f"{GIVEN}1", "sentinel-2", WHEN, None)]
