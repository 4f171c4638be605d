"""A scan gives all scenes or a named error, over real HTTP; and a failed one leaves what was there."""

from __future__ import annotations

import datetime as dt
import json
import socket
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.scan import build_availability_catalog, scan_month
from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCENES_SCHEMA
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor, SensorError, SourceKind
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_metadata
from tests.catalog import cmr_server
from tests.catalog.items import item, sensor, square
from tests.catalog.sources.test_cmr import TEN as CMR_TEN
from tests.catalog.stac_server import Answer, Catalog, changed, serve

JANUARY = Month(2025, 1)
IMPATIENT = ScanOptions(Patience(timeout_seconds=2, retries=1, backoff_seconds=0.01))
TEN = [item(f"scene-{k}", f"2025-01-{k + 1:02d}T10:00:00Z", geometry=square(10 * k)) for k in range(10)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.below(tmp_path)


def scan(store: Store, catalog: Catalog, **changes: Any) -> list[str]:
    """Keys found by a scan of January through the served catalogue."""
    with serve(catalog):
        scan_month(sensor(catalog.address, **changes), JANUARY, store, options=IMPATIENT)
    table = pq.read_table(str(store.scenes("test", JANUARY)))
    return sorted(table["scene_key"].to_pylist())


def test_all_pages_are_read_and_described(store: Store) -> None:
    catalog = Catalog(TEN)
    assert scan(store, catalog) == sorted(i["id"] for i in TEN)
    assert len(catalog.searches) == 3
    assert catalog.searches[0]["datetime"] == "2024-12-31T23:00:00Z/2025-02-01T01:00:00Z"  # an hour wider on each side
    assert "bbox" not in catalog.searches[0]  # a global scan sends none, or null geometries would vanish
    assert not {"query", "filter", "intersects"} & set(catalog.searches[0])  # clouds are never filtered by the server
    path = store.scenes("test", JANUARY)
    report = json.loads(sibling(path, ".scan.json").read_text())
    assert report == {k: v for k, v in read_metadata(path).items() if k != "version"}
    assert {k: report[k] for k in ("status", "announced", "received", "scenes", "pages", "bbox")} == {
        "status": "complete",
        "announced": 10,
        "received": 10,
        "scenes": 10,
        "pages": 3,
        "bbox": None,
    }
    assert report["provider"] in catalog.address


def test_the_file_is_geoparquet_with_a_covering_and_our_schema(store: Store) -> None:
    scan(store, Catalog(TEN))
    path = str(store.scenes("test", JANUARY))
    table = pq.read_table(path)
    assert table.select(SCENES_SCHEMA.names).schema.remove_metadata().equals(SCENES_SCHEMA)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert pq.read_metadata(path).row_group(0).column(0).compression == "ZSTD"
    frame = gpd.read_parquet(path, bbox=(20.2, 50.2, 20.4, 50.4))  # pruned by the covering
    assert list(frame.scene_key) == ["scene-2"]
    assert frame.crs.to_epsg() == 4326


def test_an_empty_month_is_complete_with_no_scenes(store: Store) -> None:
    assert scan(store, Catalog([])) == []
    metadata = read_metadata(store.scenes("test", JANUARY))
    assert (metadata["status"], metadata["scenes"]) == ("complete", 0)
    assert pq.read_table(str(store.scenes("test", JANUARY))).select(SCENES_SCHEMA.names).schema.remove_metadata().equals(SCENES_SCHEMA)


def test_an_empty_answer_of_a_collection_that_is_not_there_is_no_empty_month(store: Store) -> None:
    with pytest.raises(CatalogUnavailable, match="no such collection"):
        scan(store, Catalog(TEN, collections=("other",)))
    assert not store.scenes("test", JANUARY).exists()


@pytest.mark.parametrize("count", [3, 4, 5, 8, 12])
@pytest.mark.parametrize("matched", [True, False])
def test_any_number_of_items_with_and_without_totals(store: Store, count: int, matched: bool) -> None:
    """Exact multiples of the page size end in a full page without `next`, as truncation does; they are not refused."""
    some = [item(f"s{k:02d}") for k in range(count)]
    assert scan(store, Catalog(some, matched=matched)) == [i["id"] for i in some]


def _drop_next(catalog: Catalog, number: int, answer: Answer) -> Answer:
    return changed(answer, lambda page: page.update(links=[])) if number == 1 else answer


def _drop_next_always(catalog: Catalog, number: int, answer: Answer) -> Answer:
    return changed(answer, lambda page: page.update(links=[]))


def _loop(catalog: Catalog, number: int, answer: Answer) -> Answer:
    def back(page: dict[str, Any]) -> None:
        body = {"collections": ["scenes"], "limit": 4, "offset": 4}
        page["links"] = [{"rel": "next", "href": f"{catalog.address}/search", "method": "POST", "body": body}]

    return changed(answer, back)


def _repeat_first_page(catalog: Catalog, number: int, answer: Answer) -> Answer:
    return changed(answer, lambda page: page.update(features=list(TEN[:4])))


def _stop_with_error_body(catalog: Catalog, number: int, answer: Answer) -> Answer:
    return changed(answer, lambda _: {"message": "Internal server error"}) if number == 2 else answer


def _empty_page(catalog: Catalog, number: int, answer: Answer) -> Answer:
    return changed(answer, lambda page: page.update(features=[], links=[])) if number == 2 else answer


def _another_host(catalog: Catalog, number: int, answer: Answer) -> Answer:
    return changed(answer, lambda page: page.update(links=[{"rel": "next", "href": "http://127.0.0.2:9/search"}]))


def _html(catalog: Catalog, number: int, answer: Answer) -> Answer:
    return 200, {"Content-Type": "text/html"}, b"<html><body>Scheduled maintenance</body></html>"


def _status(status: int, body: bytes = b'{"detail": "canceling statement due to statement timeout"}') -> Any:
    return lambda catalog, number, answer: (status, {"Content-Type": "application/json"}, body)


def _cut_json(catalog: Catalog, number: int, answer: Answer) -> Answer:
    return (answer[0], answer[1], answer[2][: len(answer[2]) // 2]) if number == 2 else answer


def _cut_connection(catalog: Catalog, number: int, answer: Answer) -> Answer | None:
    if number < 2:
        return answer
    return answer[0], {**answer[1], "Content-Length": str(len(answer[2]) + 100)}, answer[2]


PASSING: list[tuple[str, Any, bool]] = [
    ("next dropped, total announced", _drop_next, True),
    ("next dropped always, no total", _drop_next_always, False),
    ("next dropped once, no total", _drop_next, False),
    ("an error body with status 200", _stop_with_error_body, True),
    ("an empty page in the middle", _empty_page, True),
    ("half a JSON", _cut_json, True),
]


@pytest.mark.parametrize(("fault", "matched"), [f[1:] for f in PASSING], ids=[f[0] for f in PASSING])
def test_what_a_second_or_a_narrower_question_mends_is_mended(store: Store, fault: Any, matched: bool) -> None:
    assert scan(store, Catalog(TEN, fault=fault, matched=matched)) == sorted(i["id"] for i in TEN)


FAULTS: list[tuple[str, Any, bool, type[CatalogError]]] = [
    ("next leads back", _loop, False, CatalogTruncated),
    ("the first page again and again", _repeat_first_page, False, CatalogTruncated),
    ("next on another host", _another_host, True, CatalogUnreadable),
    ("HTML instead of JSON", _html, True, CatalogUnreadable),
    ("500", _status(500), True, CatalogUnavailable),
    ("504 in plain text", _status(504, b"The request exceeded the maximum allowed time"), True, CatalogUnavailable),
    ("403 as throttling", _status(403, b'{"message":"Forbidden"}'), True, CatalogUnavailable),
    ("a body that ends early", _cut_connection, True, CatalogUnavailable),
    ("hanging up", lambda catalog, number, answer: None, True, CatalogUnavailable),
]


def _files(store: Store) -> dict[str, bytes]:
    """What anybody sees: what a scan that did not end has so far is hidden."""
    folder = Path(str(store.scenes("test", JANUARY).parent))
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize(("fault", "matched", "error"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_failing_provider_is_a_named_error_and_the_former_file_stays(
    store: Store, fault: Any, matched: bool, error: type[CatalogError]
) -> None:
    assert scan(store, Catalog(TEN[:3])) == ["scene-0", "scene-1", "scene-2"]
    former = _files(store)
    catalog = Catalog(TEN, fault=fault, matched=matched)
    with pytest.raises(error) as caught:
        scan(store, catalog)
    message = str(caught.value)
    assert "test 2025-01" in message
    assert catalog.address.removeprefix("http://") in message
    assert "former file stays" in message
    assert _files(store) == former


def test_a_passing_failure_is_tried_again(store: Store) -> None:
    """pystac-client alone never repeats a POST."""

    def once(catalog: Catalog, number: int, answer: Answer) -> Answer:
        return (503, {"Retry-After": "0"}, b"busy") if number == 2 else answer

    assert scan(store, Catalog(TEN, fault=once)) == sorted(i["id"] for i in TEN)


def test_a_server_that_is_down(store: Store) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(CatalogUnavailable, match="could not be reached") as caught:
        scan_month(sensor(address), JANUARY, store, options=IMPATIENT)
    assert "test 2025-01" in str(caught.value)
    assert not store.scenes("test", JANUARY).exists()


def test_a_server_that_hangs_times_out(store: Store) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(CatalogUnavailable):
            scan_month(sensor(address), JANUARY, store, options=ScanOptions(Patience(timeout_seconds=0.3, retries=0)))


def test_unusable_items_go_to_the_rejected_table(store: Store) -> None:
    broken = [item("no-time", None), item("no-place", geometry=None, bbox=None), item("fine")]
    assert scan(store, Catalog(broken)) == ["fine"]
    rejected = pq.read_table(str(sibling(store.scenes("test", JANUARY), ".rejected.parquet"))).to_pylist()
    assert {(r["item_id"], r["reason"]) for r in rejected} == {("no-place", "geometry missing")}
    metadata = read_metadata(store.scenes("test", JANUARY))
    assert (metadata["rejected"], metadata["timeless"]) == ({"geometry missing": 1}, 1)


def test_items_without_a_time_are_rejected_once_and_not_once_a_month(store: Store) -> None:
    def listed() -> list[str]:
        return sorted(pq.read_table(str(store.timeless("test")))["item_id"].to_pylist())

    with serve(Catalog([item("one", None), item("two", None), item("fine")])) as catalog:
        reports = [scan_month(sensor(catalog.address), Month(2025, k), store, options=IMPATIENT) for k in (1, 2, 3)]
    assert [(r.scenes, r.timeless, r.rejected) for r in reports] == [(1, 2, {}), (0, 2, {}), (0, 2, {})]
    assert listed() == ["one", "two"]
    with serve(Catalog([item("three", None), item("fine")])) as catalog:
        april = Month(2025, 4)
        scan_month(sensor(catalog.address), april, store, bbox=(0, 40, 10, 60), options=IMPATIENT)
        assert listed() == ["one", "three", "two"]  # the box may not have had the others, and they are another provider's
    with serve(Catalog([item("four", None), item("fine")])) as other:
        scan_month(sensor(other.address), Month(2025, 5), store, options=IMPATIENT)
        assert listed() == ["four", "one", "three", "two"]
        other.items = [item("five", None), item("fine")]
        scan_month(sensor(other.address), Month(2025, 5), store, options=IMPATIENT)
        assert listed() == ["five", "one", "three", "two"]  # its own of before are replaced
        Path(str(store.timeless("test"))).write_bytes(b"no")
        scan_month(sensor(other.address), Month(2025, 5), store, options=IMPATIENT)
        assert listed() == ["five"]


def test_a_box_across_the_antimeridian_is_asked_as_two(store: Store) -> None:
    catalog = Catalog(TEN)
    with serve(catalog):
        report = scan_month(sensor(catalog.address), JANUARY, store, bbox=(170, -10, -170, 10), options=IMPATIENT)
    assert [s["bbox"] for s in catalog.searches if "offset" not in s] == [[170, -10, 180, 10], [-180, -10, -170, 10]]
    assert report.bbox == [170, -10, -170, 10]
    assert (report.scenes, report.duplicates) == (10, 10)  # this server ignores boxes: each item came twice, and counts once


def test_sources_are_asked_in_order_until_one_answers(store: Store) -> None:
    down, up = Catalog(TEN, fault=_status(500)), Catalog(TEN)
    with serve(down), serve(up):
        both = sensor(down.address)
        both = sensor(available_sources=tuple(AvailableSource("stac", c.address, "scenes", page_size=4) for c in (down, up)))
        report = scan_month(both, JANUARY, store, options=IMPATIENT)
        assert report.provider in up.address
        assert list(report.failed_providers) == [f"stac {down.address.removeprefix('http://')} scenes"]
        with pytest.raises(CatalogUnavailable):
            scan_forced(both, store, 0)
        with pytest.raises(SensorError, match=r"sources 0\.\.1"):
            scan_forced(both, store, 2)


def scan_forced(one: CoverageSensor, store: Store, index: int) -> None:
    scan_month(one, JANUARY, store, source_index=index, options=IMPATIENT)


def test_every_source_failing_names_them_all(store: Store) -> None:
    first, second = Catalog(TEN, fault=_status(500)), Catalog(TEN, fault=_html)
    with serve(first), serve(second):
        both = sensor(available_sources=tuple(AvailableSource("stac", c.address, "scenes") for c in (first, second)))
        with pytest.raises(CatalogError) as caught:
            scan_month(both, JANUARY, store, options=IMPATIENT)
    assert all(c.address.removeprefix("http://") in str(caught.value) for c in (first, second))


def test_a_sensor_without_catalogue_or_before_its_mission_is_not_applicable(store: Store) -> None:
    prisma = COVERAGE_SENSORS["prisma"]
    assert build_availability_catalog(prisma, "2025-01-01", "2025-01-31", dest=Path("x.parquet")) is None
    assert scan_month(prisma, JANUARY, store).status == "not_applicable"
    report = scan_month(COVERAGE_SENSORS["emit"], Month(2021, 1), store)
    assert report.status == "not_applicable"
    assert "2022-08" in report.reason
    assert read_metadata(store.scenes("emit", Month(2021, 1)))["status"] == "not_applicable"


def test_a_recent_month_is_provisional(store: Store) -> None:
    this_month = Month.of(dt.datetime.now(dt.UTC))
    catalog = Catalog([])
    with serve(catalog):
        report = scan_month(sensor(catalog.address, publication_lag_days=3), this_month, store, options=IMPATIENT)
    assert report.status == "provisional"


def test_a_window_of_months_goes_into_one_file(tmp_path: Path) -> None:
    catalog = Catalog([item("jan", "2025-01-31T23:59:59.5Z"), item("feb", "2025-02-01T00:00:00Z"), item("mar", "2025-03-01T00:00:00Z")])
    with serve(catalog):
        path = build_availability_catalog(sensor(catalog.address), "2025-01-10", "2025-02-10", dest=tmp_path / "two.parquet")
    assert path == tmp_path / "two.parquet"
    rows = {row["scene_key"]: row["in_month"] for row in pq.read_table(path).select(["scene_key", "in_month"]).to_pylist()}
    assert rows == {"jan": True, "feb": True, "mar": False}  # within an hour of the window's end: for the matchup alone
    assert read_metadata(UPath(path))["scenes"] == 2


def test_an_empty_schema_is_the_declared_one() -> None:
    assert pa.schema([f for f in SCENES_SCHEMA if not f.nullable]).names == [
        "scene_key",
        "item_ids",
        "acquired",
        "pass_time",
        "in_month",
        "geometry_source",
        "geometry",
    ]


@pytest.mark.parametrize("kind", ["cmr", "earthaccess"])
def test_nasas_catalogue_is_scanned_like_any_other(store: Store, kind: SourceKind) -> None:
    cmr = cmr_server.Cmr(CMR_TEN)
    with cmr_server.serve(cmr):
        source = AvailableSource(kind, cmr.address, "SCENES", version="001", page_size=4)
        report = scan_month(sensor(available_sources=(source,)), JANUARY, store, options=IMPATIENT)
    assert (report.status, report.scenes, report.announced) == ("complete", 10, 10)
    assert report.provider in cmr.address
    assert read_metadata(store.scenes("test", JANUARY))["scenes"] == 10


@pytest.mark.parametrize("rel", ["search", "data"])
def test_a_landing_page_sends_nobody_to_another_host(store: Store, rel: str) -> None:
    class Elsewhere(Catalog):
        def landing(self) -> dict[str, Any]:
            page = super().landing()
            links = [{**link, "href": f"{other.address}/internal"} if link["rel"] == rel else link for link in page["links"]]
            return {**page, "links": links}

    with serve(Catalog(TEN)) as other, serve(Elsewhere([])) as catalog:
        with pytest.raises(CatalogUnreadable, match="to another host"):
            scan_month(sensor(catalog.address), JANUARY, store, options=IMPATIENT)
        assert other.searches == []


def test_a_landing_page_that_is_no_catalogue_is_a_named_error(store: Store) -> None:
    class Hello(Catalog):
        def landing(self) -> dict[str, Any]:
            return {"hello": "world"}

    with serve(Hello(TEN)) as catalog, pytest.raises(CatalogUnreadable, match="has no STAC landing page"):
        scan_month(sensor(catalog.address), JANUARY, store, options=IMPATIENT)


def test_a_key_in_the_address_is_told_to_nobody(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Signed addresses carry it behind the question mark."""
    with serve(Catalog(TEN, fault=lambda catalog, number, answer: answer if number < 4 else (500, {}, b"no"))) as catalog:
        source = AvailableSource("stac", f"{catalog.address}/?key=s3cret", "scenes", page_size=4)
        scan_month(sensor(available_sources=(source,)), JANUARY, store, options=IMPATIENT)
        told = [path.read_bytes() for path in Path(str(store.scenes("test", JANUARY).parent)).rglob("*") if path.is_file()]
        with pytest.raises(CatalogUnavailable) as caught:
            scan_month(sensor(available_sources=(source,)), JANUARY, store, options=IMPATIENT)
    missing = AvailableSource("geoparquet", f"http://127.0.0.1:{free_port()}/dump.parquet?sig=s3cret", "scenes")
    with pytest.raises(CatalogUnavailable) as unreachable:
        scan_month(sensor(available_sources=(missing,)), JANUARY, store, options=IMPATIENT)
    assert len(told) >= 3
    assert not any(b"s3cret" in text for text in (*told, str(caught.value).encode(), str(unreachable.value).encode(), caplog.text.encode()))
