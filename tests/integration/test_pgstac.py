"""The same real items from two STAC servers, stac-fastapi-pgstac on PostGIS and ``rustac serve``: the scanner must see no difference.

And what pgstac does where the STAC API leaves it open, which the scanner stands on: Planetary Computer runs it.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
import requests
from upath import UPath

from coverage_pipeline.catalog.errors import CatalogUnavailable
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.providers import ProviderProfile, SearchMethod
from coverage_pipeline.catalog.scan import build_availability_catalog, scan_month
from coverage_pipeline.demo.stac_server import stac_api
from coverage_pipeline.months import Month, months_between
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet
from tests.conftest import write_items
from tests.pgstac import PgstacDatabase
from tests.services import PostgisServer, postgis  # noqa: F401 a fixture
from tests.shared_data import read_items

pytestmark = [pytest.mark.service, pytest.mark.slow]

LANDSAT_8 = "planetary-computer__landsat-8-c2-l2.ndjson.gz"
COLORADO = "planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet"
ANTIMERIDIAN = "esa-stactools__sentinel-2-l2a.ndjson.gz"
WITHOUT_GEOMETRY = "earth-search__sentinel-2-c1-l2a.ndjson.gz"
BROKEN, EMPTY, REFUSED = "broken", "empty", "refused"

SCANNED: dict[str, tuple[str, list[Month]]] = {
    LANDSAT_8: ("landsat-8-9", [Month(2019, 7)]),
    COLORADO: ("sentinel-2", [Month(2024, 8)]),
    ANTIMERIDIAN: ("sentinel-2", [Month(2023, 6), Month(2024, 1)]),
    WITHOUT_GEOMETRY: ("sentinel-2", [Month(2025, 7)]),
    "cdse-stac__sentinel-2-l2a.ndjson.gz": ("sentinel-2", [Month(2020, 7)]),
    "cmr-stac__HLSL30.v1.5.ndjson.gz": ("landsat-8-9", [Month(2021, 1)]),
    "dlr__ENMAP_HSI_L2A.ndjson.gz": ("enmap", [Month(2025, 7)]),
    "earth-search__sentinel-2-l2a.ndjson.gz": ("sentinel-2", [Month(2020, 3)]),
    "esa-stactools__sentinel-2-l1c.ndjson.gz": ("sentinel-2", [Month(2020, 7)]),
    "planetary-computer__landsat-c2-l2.ndjson.gz": ("landsat-8-9", [Month(2025, 7)]),
    "planetary-computer__landsat-c2-l2__2024.parquet": ("landsat-8-9", [Month(2024, 2)]),
    "planetary-computer__sentinel-2-l2a.ndjson.gz": ("sentinel-2", [Month(2019, 1)]),
}
"""Sensor and months of each recorded file."""


def _named(name: str) -> str:
    """A collection's name for a file; some of its items have none, and files share theirs."""
    return name.split(".")[0]


def _in(collection: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**item, "collection": collection} for item in items]


def _polygon(*corners: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[list(corner) for corner in corners]]}


def _broken_items() -> list[dict[str, Any]]:
    """A real item spoilt in every way that both servers take."""
    item = next(item for item in read_items(LANDSAT_8) if item["properties"]["datetime"].startswith("2019-07"))
    geometries = {
        "a-whole-one": item["geometry"],
        "bow-tie": _polygon((0, 0), (1, 1), (1, 0), (0, 1), (0, 0)),
        "beyond-180": _polygon((179, 0), (181, 0), (181, 1), (179, 1), (179, 0)),
        "beyond-the-pole": _polygon((1, 80), (2, 80), (2, 95), (1, 95), (1, 80)),
        "no-area": _polygon((1, 1), (2, 2), (3, 3), (1, 1)),
        "not-closed": _polygon((0, 0), (1, 1), (1, 0), (0, 2)),
        "nothing-in-it": {"type": "Polygon", "coordinates": []},
        "point": {"type": "Point", "coordinates": [1, 2]},
    }
    items = [{**item, "id": name, "geometry": geometry} for name, geometry in geometries.items()]
    span = {"datetime": None, "start_datetime": "2019-07-03T10:00:00Z", "end_datetime": "2019-07-03T10:00:30Z"}
    items.append({**item, "id": "span-of-time", "properties": {**item["properties"], **span}})
    for name, cloud in {"cloud-null": None, "cloud-minus-1": -1, "cloud-text": "12.5"}.items():
        items.append({**item, "id": name, "properties": {**item["properties"], "eo:cloud_cover": cloud}})
    return _in(BROKEN, items)


@dataclass(frozen=True)
class Servers:
    """The same items on both servers."""

    pgstac: str
    hydrating: str
    """pgstac again, with items put together by the API."""
    rustac: str
    database: PgstacDatabase


@pytest.fixture(scope="module")
def servers(postgis: PostgisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:  # noqa: F811 the fixture
    """Both servers with every file, each as a collection of its own."""
    collections = {_named(name): _in(_named(name), read_items(name)) for name in SCANNED}
    collections[_named(WITHOUT_GEOMETRY)] = [item for item in collections[_named(WITHOUT_GEOMETRY)] if item.get("geometry") is not None]
    collections[BROKEN] = _broken_items()
    database = PgstacDatabase.create(postgis)
    for name, items in collections.items():
        database.add_collection(name, items)
    for name in (EMPTY, REFUSED):
        database.add_collection(name)
    everything = [item for items in collections.values() for item in items]
    with ExitStack() as stack:
        yield Servers(
            stack.enter_context(database.serve()),
            stack.enter_context(database.serve(hydrate=True)),
            stack.enter_context(stac_api(write_items(tmp_path_factory.mktemp("served"), everything))),
            database,
        )


def _sensor(key: str, address: str, collection: str, page_size: int = 250) -> CoverageSensor:
    """A known sensor that is catalogued there, whenever its scenes are from."""
    source = AvailableSource("stac", address, collection, "eo:cloud_cover", page_size=page_size)
    sensor = replace(COVERAGE_SENSORS[key], available_sources=(source,), first_month=None, last_month=None)
    # The spoilt ones are copies of one scene: as Landsat they would give way to each other.
    return replace(sensor, family="other") if collection == BROKEN else sensor


def _tables(scenes: UPath) -> tuple[pa.Table, pa.Table]:
    """Scenes and rejected items, but for who told us; the rejected have no order."""
    rejected = read_parquet(sibling(scenes, ".rejected.parquet"))[0].sort_by("item_id")
    return read_parquet(scenes)[0].drop_columns(["provider", "item_href"]), rejected.drop_columns(["provider", "item_href"])


def _assert_same(one: UPath, other: UPath) -> tuple[pa.Table, pa.Table]:
    """Every row and column; returns the tables."""
    (scenes, rejected), (other_scenes, other_rejected) = _tables(one), _tables(other)
    assert scenes.to_pylist() == other_scenes.to_pylist()
    assert rejected.to_pylist() == other_rejected.to_pylist()
    return scenes, rejected


def _scanned_alike(servers: Servers, key: str, collection: str, month: Month, folder: Path) -> tuple[pa.Table, pa.Table]:
    written = []
    for name, address in (("pgstac", servers.pgstac), ("rustac", servers.rustac)):
        store = Store.below(folder / name)
        scan_month(_sensor(key, address, collection), month, store)
        written.append(store.scenes(key, month))
    return _assert_same(*written)


def _ask(address: str, method: str = "POST", **what: Any) -> dict[str, Any]:
    """A search's page, as plain HTTP gives it; a GET's values are joined by commas."""
    if method == "POST":
        answer = requests.post(f"{address}/search", json=what, timeout=60)
    else:
        params = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in what.items()}
        answer = requests.get(f"{address}/search", params=params, timeout=60)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def _next(page: Mapping[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = next((link for link in page["links"] if link["rel"] == "next"), None)
    return found


MONTHS = [pytest.param(name, key, month, id=f"{_named(name)}-{month}") for name, (key, months) in SCANNED.items() for month in months]


@pytest.mark.parametrize(("name", "key", "month"), MONTHS)
def test_a_month_of_real_items_gives_the_same_scenes_from_both(name: str, key: str, month: Month, servers: Servers, tmp_path: Path) -> None:
    scenes, rejected = _scanned_alike(servers, key, _named(name), month, tmp_path)
    assert scenes.num_rows > 0
    assert rejected.num_rows == 0


def test_the_same_items_are_rejected_from_both(servers: Servers, tmp_path: Path) -> None:
    scenes, rejected = _scanned_alike(servers, "landsat-8-9", BROKEN, Month(2019, 7), tmp_path)
    reasons = {row["item_id"]: row["reason"] for row in rejected.to_pylist()}
    kept = set(scenes["scene_key"].to_pylist())
    assert set(reasons) | kept == {item["id"] for item in _broken_items()}
    assert set(reasons) >= {"beyond-the-pole", "no-area", "nothing-in-it", "point"}
    assert kept >= {"a-whole-one", "bow-tie", "beyond-180", "span-of-time", "cloud-null", "cloud-minus-1", "cloud-text"}


def test_a_window_of_many_months_gives_the_same_scenes_from_both(servers: Servers, tmp_path: Path) -> None:
    for name, address in (("pgstac", servers.pgstac), ("rustac", servers.rustac)):
        dest = tmp_path / f"{name}.parquet"
        sensor = _sensor("landsat-8-9", address, _named(LANDSAT_8))
        assert build_availability_catalog(sensor, "2020-01-01", "2020-03-31", dest=dest) == dest
    scenes, _ = _assert_same(UPath(tmp_path / "pgstac.parquet"), UPath(tmp_path / "rustac.parquet"))
    months = [str(month) for month in months_between(Month(2020, 1), Month(2020, 3))]
    items = [item for item in read_items(LANDSAT_8) if item["properties"]["datetime"][:7] in months]
    assert len(items) == 42
    assert sorted(i for ids in scenes["item_ids"].to_pylist() for i in ids) == sorted(item["id"] for item in items)


def test_an_items_address_leads_to_it(servers: Servers, tmp_path: Path) -> None:
    month = Month(2016, 8)
    store = Store.below(tmp_path)
    scan_month(_sensor("landsat-8-9", servers.pgstac, _named(LANDSAT_8)), month, store)
    rows = read_parquet(store.scenes("landsat-8-9", month))[0].to_pylist()
    assert len(rows) == 4
    for row in rows:
        assert row["item_href"].startswith(servers.pgstac)
        assert requests.get(row["item_href"], timeout=60).json()["id"] in row["item_ids"]


@pytest.mark.parametrize(
    ("name", "month", "items", "page_size"),
    [(ANTIMERIDIAN, Month(2022, 4), 3, 1), (COLORADO, Month(2024, 7), 441, 7), (COLORADO, Month(2024, 7), 441, 100)],
)
def test_small_pages_lose_nothing(name: str, month: Month, items: int, page_size: int, servers: Servers, tmp_path: Path) -> None:
    """One after the other by pgstac's tokens; 441 items are 63 pages of 7, all full, so that the last one looks cut off."""
    reports = {}
    for folder, address, size in (("large", servers.rustac, 1000), ("small", servers.pgstac, page_size)):
        sensor = _sensor("sentinel-2", address, _named(name), size)
        # The globe as a box: a search of a month without one may be cut into days, whose pages are few.
        reports[folder] = scan_month(sensor, month, Store.below(tmp_path / folder), bbox=(-180.0, -90.0, 180.0, 90.0))
    _assert_same(*(Store.below(tmp_path / folder).scenes("sentinel-2", month) for folder in reports))
    assert reports["small"].received == reports["large"].received == items
    assert reports["small"].pages >= items / page_size


@pytest.mark.parametrize("server", ["pgstac", "hydrating"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_scan_in_windows_that_leaves_the_assets_out_gives_the_same(
    server: str, method: SearchMethod, servers: Servers, tmp_path: Path
) -> None:
    """As Planetary Computer is asked: days from the start, several at a time, without assets, by tokens."""
    address = getattr(servers, server)
    name, key, month = _named(COLORADO), "sentinel-2", Month(2024, 8)
    profile = ProviderProfile(
        page_size=7, requests_per_second=None, parallel=3, features=("fields",), method=method, window_hours=24
    )  # fmt: skip
    options = ScanOptions(providers={address.removeprefix("http://"): profile})
    report = scan_month(_sensor(key, address, name, 7), month, Store.below(tmp_path / "windows"), options=options)
    scan_month(_sensor(key, servers.rustac, name), month, Store.below(tmp_path / "whole"))
    _assert_same(Store.below(tmp_path / "windows").scenes(key, month), Store.below(tmp_path / "whole").scenes(key, month))
    assert report.windows == 31
    assert report.scenes > 50
    assert report.bytes / report.received < 4_000  # an item with its assets has about 14 kB


def test_a_box_across_the_antimeridian(servers: Servers, tmp_path: Path) -> None:
    box = (170.0, -90.0, -170.0, 90.0)
    for name, address in (("pgstac", servers.pgstac), ("rustac", servers.rustac)):
        sensor = _sensor("sentinel-2", address, _named(ANTIMERIDIAN))
        build_availability_catalog(sensor, "2023-06-01", "2024-01-31", bbox=box, dest=tmp_path / f"{name}.parquet")
    scenes, _ = _assert_same(UPath(tmp_path / "pgstac.parquet"), UPath(tmp_path / "rustac.parquet"))
    tiles = [re.search(r"T\d\d[A-Z]{3}", ids[0]) for ids in scenes["item_ids"].to_pylist()]
    assert sorted(tile[0] for tile in tiles if tile) == ["T01KAB", "T01WCP", "T01WCS", "T60CWS"]
    # One search with that box would find what lies between -170 and 170, the other way round the globe.
    found = [item["id"] for item in _ask(servers.pgstac, collections=[_named(ANTIMERIDIAN)], bbox=box, limit=100)["features"]]
    assert any("T34VEL" in name for name in found)
    assert not any("T01KAB" in name for name in found)


def test_a_misspelt_collection_is_no_empty_month(servers: Servers, tmp_path: Path) -> None:
    assert _ask(servers.pgstac, collections=["landsat-8-c2-12"])["features"] == []  # not an error, for pgstac
    month, store = Month(2019, 7), Store.below(tmp_path)
    with pytest.raises(CatalogUnavailable, match="landsat-8-c2-12"):
        scan_month(_sensor("landsat-8-9", servers.pgstac, "landsat-8-c2-12"), month, store)
    assert not store.scenes("landsat-8-9", month).exists()


def test_a_collection_without_items_is_an_empty_month(servers: Servers, tmp_path: Path) -> None:
    """Of a systematic sensor: nobody else can be asked whether there is truly nothing."""
    month, store = Month(2019, 7), Store.below(tmp_path)
    report = scan_month(_sensor("landsat-8-9", servers.pgstac, EMPTY), month, store)
    assert (report.status, report.scenes) == ("provisional", 0)
    assert report.doubts[0].startswith("emptiness: ")
    assert read_parquet(store.scenes("landsat-8-9", month))[0].num_rows == 0


def _spoilt(**changes: Any) -> dict[str, Any]:
    """A real item with members replaced (``...``: removed); those with a time in their name are properties."""
    item: dict[str, Any] = {**read_items(LANDSAT_8)[0], "collection": REFUSED}
    item["properties"] = dict(item["properties"])
    for name, value in changes.items():
        where = item["properties"] if "datetime" in name else item
        where[name] = value
        if value is ...:
            del where[name]
    return item


NO_TIME = "Invalid datetime encountered"


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"geometry": None}, psycopg.errors.NotNullViolation, "geometry"),
        ({"geometry": ...}, psycopg.errors.NotNullViolation, "geometry"),
        ({"id": ...}, psycopg.errors.NotNullViolation, "id"),
        ({"datetime": None}, Exception, NO_TIME),
        ({"datetime": ...}, Exception, NO_TIME),
        ({"datetime": None, "start_datetime": "2020-01-01T00:00:00Z"}, Exception, NO_TIME),
        ({"datetime": None, "start_datetime": "2020-01-02T00:00:00Z", "end_datetime": "2020-01-01T00:00:00Z"}, Exception, "must be <"),
        ({"datetime": "yesterday-ish"}, psycopg.errors.InvalidDatetimeFormat, "yesterday-ish"),
        ({"properties": None}, AttributeError, "NoneType"),
        ({"collection": ...}, KeyError, "collection"),
        ({"collection": None}, Exception, "None"),
        ({"collection": "not-there"}, Exception, "not-there"),
    ],
    ids=str,
)
def test_what_pgstac_refuses_must_come_from_another_server(
    changes: dict[str, Any], kind: type[Exception], message: str, servers: Servers
) -> None:
    with pytest.raises(kind, match=message):
        servers.database.load([_spoilt(**changes)])
    assert _ask(servers.pgstac, collections=[REFUSED])["features"] == []


def test_real_items_without_geometry_are_refused_too(servers: Servers) -> None:
    items = [item for item in read_items(WITHOUT_GEOMETRY) if item.get("geometry") is None]
    assert len(items) == 10
    with pytest.raises(psycopg.errors.NotNullViolation, match="geometry"):
        servers.database.load(_in(REFUSED, items))
    assert _ask(servers.pgstac, collections=[REFUSED])["features"] == []


SEARCH: dict[str, Any] = {"collections": [_named(LANDSAT_8)], "datetime": "2019-07-01T00:00:00Z/2019-07-31T23:59:59Z", "limit": 10}


@pytest.mark.parametrize("server", ["pgstac", "hydrating"])
@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("POST", {"exclude": ["assets"]}),
        ("POST", {"include": [], "exclude": ["assets"]}),  # as pystac-client sends it
        ("GET", "-assets"),
    ],
    ids=str,
)
def test_items_without_their_assets_have_all_the_rest(method: str, fields: Any, server: str, servers: Servers) -> None:
    address = getattr(servers, server)
    whole, lean = _ask(address, method, **SEARCH), _ask(address, method, **SEARCH, fields=fields)
    assert len(whole["features"]) == 10
    for item, without in zip(whole["features"], lean["features"], strict=True):
        assert item["assets"]
        assert without == {name: value for name, value in item.items() if name != "assets"}
        hrefs = {link["rel"]: link["href"] for link in without["links"]}
        assert hrefs["self"] == f"{address}/collections/{item['collection']}/items/{item['id']}"
    assert len(json.dumps(lean)) < len(json.dumps(whole)) / 3
    # The next page is as lean: what `next` says is all that there is to send.
    following = _next(lean)
    assert following is not None
    assert following["method"] == method
    sent = {"json": following["body"]} if method == "POST" else {}
    second = requests.request(method, following["href"], timeout=60, **sent).json()["features"]
    assert len(second) == 5
    assert not any("assets" in item for item in second)
    assert {item["id"] for item in second}.isdisjoint(item["id"] for item in lean["features"])


@pytest.mark.parametrize("server", ["pgstac", "hydrating"])
def test_fields_included_are_all_that_there_is(server: str, servers: Servers) -> None:
    """So to include is not the way: what is forgotten is missing without a word."""
    page = _ask(getattr(servers, server), **SEARCH, fields={"include": ["geometry", "properties.datetime"]})
    for item in page["features"]:
        assert set(item["properties"]) == {"datetime"}
        assert {"geometry", "properties"} <= set(item) <= {"id", "collection", "geometry", "properties", "links"}


def test_it_announces_no_total(servers: Servers) -> None:
    page = _ask(servers.pgstac, **SEARCH)
    assert set(page) == {"type", "features", "links", "numberReturned"}
    assert page["numberReturned"] == 10
    # Whoever asks in pgstac's own dialect is told, at the price of a count.
    assert _ask(servers.pgstac, **SEARCH, conf={"context": "on"})["numberMatched"] == 15


def test_both_ends_of_a_time_window_belong_to_it(servers: Servers) -> None:
    collections, tick = [_named(LANDSAT_8)], dt.timedelta(microseconds=1)
    item = _ask(servers.pgstac, **SEARCH)["features"][5]
    at = dt.datetime.fromisoformat(item["properties"]["datetime"])
    day = dt.timedelta(days=1)
    for start, end, there in (
        (at - day, at, True),
        (at - day, at - tick, False),
        (at, at + day, True),
        (at + tick, at + day, False),
        (at, at, True),
    ):
        window = f"{start:%Y-%m-%dT%H:%M:%S.%fZ}/{end:%Y-%m-%dT%H:%M:%S.%fZ}"
        found = [found["id"] for found in _ask(servers.pgstac, collections=collections, datetime=window, limit=100)["features"]]
        assert (item["id"] in found) == there, window


def test_an_item_that_spans_time_is_found_wherever_its_span_reaches(servers: Servers) -> None:
    """From 10:00:00 to 10:00:30: the scanner, which asks for more than its window, must look at the start itself."""
    for second, there in (("00", True), ("10", True), ("30", True), ("31", False)):
        window = f"2019-07-03T10:00:{second}Z/2019-07-03T10:01:00Z"
        found = _ask(servers.pgstac, collections=[BROKEN], datetime=window, limit=100)["features"]
        assert [item["id"] for item in found] == ["span-of-time"] * there
        # A null is not given back: STAC asks for `datetime` to be there, and null.
        assert all("datetime" not in item["properties"] for item in found)


def test_the_newest_come_first(servers: Servers) -> None:
    page = _ask(servers.pgstac, collections=[_named(COLORADO)], limit=1000)
    order = [(item["properties"]["datetime"], item["id"]) for item in page["features"]]
    assert len(order) == 1000
    assert order == sorted(order, reverse=True)  # and within an instant by id, so that pages do not overlap
    assert _next(page) is None  # a full last page has no next


def test_a_page_may_be_of_any_size(servers: Servers) -> None:
    """Here. Planetary Computer refuses more than 1,000, and gives 250 where nothing is asked for."""
    assert (
        len(
            _ask(servers.pgstac, collections=[_named(COLORADO), _named(LANDSAT_8)], limit=20_000, fields={"exclude": ["assets"]})[
                "features"
            ]
        )
        == 1750
    )
    assert len(_ask(servers.pgstac, collections=[_named(COLORADO)])["features"]) == 10
    assert requests.post(f"{servers.pgstac}/search", json={"limit": 0}, timeout=60).status_code == 400
