"""CMR gives all granules or a named error, over real HTTP; and each granule becomes a scene or a row of the rejected table."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import math
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely
import yaml

from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import profile_of
from coverage_pipeline.catalog.sources.base import SEARCH_HALVINGS, Window, WindowCount
from coverage_pipeline.catalog.sources.cmr import CmrSource
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.scenes.items import SceneCollector, as_geodataframe, by_reason
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor
from tests.catalog.cmr_server import COLLECTIONS, GRANULES, Answer, Cmr, changed, place, serve
from tests.catalog.items import sensor
from tests.shared_data import read_items, shared_data

UTC = dt.UTC
JANUARY = dt.datetime(2025, 1, 1, tzinfo=UTC), dt.datetime(2025, 2, 1, tzinfo=UTC)
ALWAYS = dt.datetime(2000, 1, 1, tzinfo=UTC), dt.datetime(2100, 1, 1, tzinfo=UTC)
IMPATIENT = Patience(timeout_seconds=2, retries=1, backoff_seconds=0.01)
TELLUS = "earthaccess/TestResults.test_get_all_less_than_2k.yaml", 1
HLS = "titiler-cmr-cassettes/test_backend/test_get_assets.yaml", 0


@dataclass
class Scan:
    scenes: gpd.GeoDataFrame
    rejected: dict[str, str]
    collector: SceneCollector
    source: CmrSource
    window_count: WindowCount

    @property
    def keys(self) -> list[str]:
        return sorted(self.scenes.scene_key)

    @property
    def scene(self) -> Any:
        assert self.rejected == {}
        assert len(self.scenes) == 1
        return self.scenes.iloc[0]


def source_of(cmr: Cmr, short_name: str = "SCENES", version: str | None = "001", **changes: Any) -> AvailableSource:
    return AvailableSource("cmr", cmr.address, short_name, version=version, **{"page_size": 4, **changes})


def scan(
    cmr: Cmr,
    *,
    window: tuple[dt.datetime, dt.datetime] = JANUARY,
    bbox: BBox | None = None,
    of: CoverageSensor | None = None,
    patience: Patience = IMPATIENT,
    **changes: Any,
) -> Scan:
    """What a scan of that window through the served CMR finds."""
    with serve(cmr):
        source = source_of(cmr, **changes)
        collector = SceneCollector(
            of or sensor(),
            provider=source.provider,
            cloud_field=source.cloud_field,
            platforms=source.platforms,
            start=window[0],
            end=window[1],
        )
        window_count = WindowCount()
        api = source_for(source, patience)
        for page in pages(api, window, bbox, window_count):
            collector.add(page)
    scenes = as_geodataframe(collector.finish())
    rejected = {row["item_id"] or row["item_href"] or "": row["reason"] for row in collector.rejected().to_pylist()}
    return Scan(scenes, rejected, collector, api, window_count)


def source_for(source: AvailableSource, patience: Patience = IMPATIENT) -> CmrSource:
    return CmrSource(source, profile_of(source), patience, "test 2025-01")


def pages(
    api: CmrSource, window: tuple[dt.datetime, dt.datetime], bbox: BBox | None = None, window_count: WindowCount | None = None
) -> Iterator[list[Any]]:
    """What the scanner asks for a window that it does not cut, with the check of an empty answer."""
    limit = api.session.profile.page_size
    received = 0
    for page in api.pages(Window(*window, limit, failures=SEARCH_HALVINGS), bbox, window_count or WindowCount()):
        received += len(page)
        yield page
    if not received:
        api.require_collection()


def ring(*points: tuple[float, float]) -> dict[str, Any]:
    return {"Points": [{"Longitude": x, "Latitude": y} for x, y in (*points, points[0])]}


def square(west: float = 5.0, south: float = 50.0, size: float = 1.0) -> dict[str, Any]:
    return ring((west, south), (west + size, south), (west + size, south + size), (west, south + size))


def rectangle(west: float, south: float, east: float | None, north: float) -> dict[str, Any]:
    sides = ("WestBoundingCoordinate", west), ("SouthBoundingCoordinate", south), ("EastBoundingCoordinate", east)
    return dict((*sides, ("NorthBoundingCoordinate", north)))


def extent(**geometry: Any) -> dict[str, Any]:
    return {"HorizontalSpatialDomain": {"Geometry": geometry}}


def granule(number: int = 1, ur: str | None = None, day: int = 15, *, meta: dict[str, Any] | None = None, **umm: Any) -> dict[str, Any]:
    """A usable granule with the recorded ones' parts; ``umm`` replaces those of its metadata, None leaves one out."""
    start, end = f"2025-01-{day:02d}T10:00:00.000Z", f"2025-01-{day:02d}T10:00:12.000Z"
    whole: dict[str, Any] = {
        "GranuleUR": ur or f"scene-{number}",
        "CollectionReference": {"ShortName": "SCENES", "Version": "001"},
        "TemporalExtent": {"RangeDateTime": {"BeginningDateTime": start, "EndingDateTime": end}},
        "SpatialExtent": extent(GPolygons=[{"Boundary": square()}]),
        "CloudCover": 5,
        "DataGranule": {"ProductionDateTime": "2025-01-20T00:00:00.000Z"},
        **umm,
    }
    described = {
        "concept-type": "granule",
        "concept-id": f"G{number}-TEST",
        "revision-id": 1,
        "native-id": whole["GranuleUR"],
        "provider-id": "TEST",
        "revision-date": "2025-01-21T00:00:00.000Z",
    }
    return {"meta": {**described, **(meta or {})}, "umm": {k: v for k, v in whole.items() if v is not None}}


TEN = [granule(k, day=k) for k in range(1, 11)]
ALL_TEN = sorted(f"scene-{k}" for k in range(1, 11))


@cache
def _cassette(name: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((shared_data() / "cmr" / name).read_text(), loader)["interactions"]


def recorded(name: str, number: int) -> Answer:
    """One answer as it was recorded: status, headers and body, compressed where it was."""
    response = _cassette(name)[number]["response"]
    body = response["body"]["string"]
    skipped = ("transfer-encoding", "content-length", "connection")
    headers = {key: values[0] for key, values in response["headers"].items() if key.lower() not in skipped}
    return response["status"]["code"], headers, body.encode() if isinstance(body, str) else body


def granules_of(answer: Answer) -> list[dict[str, Any]]:
    content = gzip.decompress(answer[2]) if answer[2][:2] == b"\x1f\x8b" else answer[2]
    granules: list[dict[str, Any]] = json.loads(content)["items"]
    return granules


def _first(answer: Answer) -> Any:
    return lambda cmr, number, truth: answer if number == 1 else truth


# What CMR really answered


def test_a_recorded_page_of_landsat_granules_becomes_scenes() -> None:
    answer = recorded(*HLS)
    cmr = Cmr(granules_of(answer), fault=_first(answer), collections=(("HLSL30", "2.0"),))
    found = scan(cmr, window=ALWAYS, short_name="HLSL30", version="2.0", platforms=("landsat-8", "landsat-9"))
    assert found.keys == ["HLS.L30.T15UWP.2024042T165831.v2.0", "HLS.L30.T15UXP.2024042T165831.v2.0"]
    assert found.rejected == {}
    one = found.scenes.set_index("scene_key").loc["HLS.L30.T15UXP.2024042T165831.v2.0"]
    assert one.acquired == dt.datetime(2024, 2, 11, 16, 58, 31, 150000, tzinfo=UTC)
    assert (one.cloud_cover, one.cloud_raw) == (100, '"100"')  # an additional attribute, as a string
    assert (one.platform, one.collection) == ("LANDSAT-9", "HLSL30_2.0")
    assert one.item_href == f"{cmr.address}/search/concepts/G2865703539-LPCLOUD.umm_json"
    assert one.geometry_source == "footprint"
    assert one.geometry.equals(
        shapely.Polygon(
            [(-91.11111937, 47.74962083), (-90.97433358, 48.07607015), (-91.65417909, 48.20130094), (-91.66566865, 47.75740974)]
        )
    )
    assert [h.get("cmr-search-after") for h in cmr.headers] == [None, '["lpcloud",1707670711150,2865703626]']
    assert (found.window_count.announced, found.source.session.requests, found.window_count.pages) == (2, 2, 2)


def test_every_recorded_cassette_gives_its_granules() -> None:
    files = sorted((shared_data() / "cmr" / "titiler-cmr-cassettes").rglob("*.yaml"))
    assert len(files) == 4
    for path in files:
        answer = recorded(str(path.relative_to(shared_data() / "cmr")), 0)
        cmr = Cmr(granules_of(answer), fault=_first(answer), collections=(("HLSL30", "2.0"),))
        found = scan(cmr, window=ALWAYS, short_name="HLSL30", version="2.0")
        assert found.keys == sorted(g["umm"]["GranuleUR"] for g in granules_of(answer))
        assert found.scenes.cloud_cover.notna().all()


def test_a_recorded_archive_of_163_granules_whole_and_in_pages() -> None:
    """Its one page has a token, as the last page of CMR has: the search ends with an empty page without one."""
    answer = recorded(*TELLUS)
    granules = granules_of(answer)
    urs = sorted(g["umm"]["GranuleUR"] for g in granules)
    names: dict[str, Any] = {"short_name": "TELLUS_GRAC_L3_JPL_RL06_LND_v04", "version": "RL06v04"}
    assert answer[1]["CMR-Search-After"] == json.dumps(place(granules[-1]), separators=(",", ":"))
    for fault, size, pages in ((_first(answer), 2000, 2), (None, 50, 5)):
        cmr = Cmr(granules, fault=fault, collections=((names["short_name"], names["version"]),))
        found = scan(cmr, window=ALWAYS, page_size=size, **names)
        assert found.keys == urs
        assert (found.window_count.announced, found.window_count.pages, found.collector.duplicates) == (163, pages, 0)
        # two rectangles of one granule, which abut at the antimeridian, are one box
        assert set(found.scenes.geometry_source) == {"bbox"}
        assert found.scenes.cloud_cover.isna().all()


def test_a_recorded_granule_across_the_antimeridian_has_a_box_across_it() -> None:
    answer = recorded(*TELLUS)
    cmr = Cmr(granules_of(answer)[:1], collections=(("TELLUS", "1"),))
    with serve(cmr):
        cmr.granules[0]["umm"]["CollectionReference"] = {"ShortName": "TELLUS", "Version": "1"}
        api = source_for(source_of(cmr, "TELLUS", "1"))
        (item,) = [item for page in pages(api, ALWAYS) for item in page]
    assert item["geometry"] is None
    assert item["bbox"] == [0.5, -89.5, -0.5, 89.5]


def test_the_73_real_emit_footprints_come_back_unchanged() -> None:
    """Their real outlines and times; ids made in EMIT's way, as the file has none."""
    shapes = read_items("emit__coverage-2022-08-10.js")
    granules = []
    for k, one in enumerate(shapes):
        start, end = one["properties"]["start_time"], one["properties"]["end_time"]
        ur = f"EMIT_L2A_RFL_001_{start[:19].replace('-', '').replace(':', '')}_2222203_{k:03d}"
        points = one["geometry"]["coordinates"][0]
        granules.append(
            granule(
                k + 1,
                ur,
                CollectionReference={"ShortName": "EMITL2ARFL", "Version": "001"},
                TemporalExtent={"RangeDateTime": {"BeginningDateTime": start, "EndingDateTime": end}},
                SpatialExtent=extent(GPolygons=[{"Boundary": {"Points": [{"Longitude": x, "Latitude": y} for x, y in points]}}]),
                CloudCover=k,
                Platforms=[{"ShortName": "ISS", "Instruments": [{"ShortName": "EMIT Imaging Spectrometer"}]}],
            )
        )
    cmr = Cmr(granules, collections=(("EMITL2ARFL", "001"),))
    window = dt.datetime(2022, 8, 1, tzinfo=UTC), dt.datetime(2022, 9, 1, tzinfo=UTC)
    found = scan(cmr, window=window, of=COVERAGE_SENSORS["emit"], short_name="EMITL2ARFL", page_size=10)
    assert (len(found.scenes), found.rejected, found.window_count.pages) == (73, {}, 9)
    assert found.scenes.scene_key.iloc[0] == "EMIT_20220810T034103_2222203_000"
    assert set(found.scenes.platform) == {"ISS"}
    by_cloud = found.scenes.set_index("cloud_cover").geometry
    for k, one in enumerate(shapes):
        assert by_cloud[k].equals(shapely.geometry.shape(one["geometry"])), k


def test_of_two_builds_of_an_emit_acquisition_the_newer_is_the_scene() -> None:
    old = granule(1, "EMIT_L2A_RFL_001_20250115T100000_2501510_004", SpatialExtent=extent(GPolygons=[{"Boundary": square(5)}]))
    new = granule(2, "EMIT_L2A_RFL_002_20250115T100000_2501510_004", SpatialExtent=extent(GPolygons=[{"Boundary": square(5.01)}]))
    for pair in ([old, new], [new, old]):
        found = scan(Cmr(pair), of=COVERAGE_SENSORS["emit"])
        assert found.scene.item_ids == ["EMIT_L2A_RFL_002_20250115T100000_2501510_004"]
        assert found.scene.geometry.bounds[0] == pytest.approx(5.01)
        assert found.collector.superseded == 1


# What is asked


def test_the_search_names_collection_window_order_and_nothing_else() -> None:
    cmr = Cmr(TEN)
    assert scan(cmr).keys == ALL_TEN
    assert cmr.searches[0] == {
        "short_name": ["SCENES"],
        "version": ["001"],
        "temporal[]": ["2025-01-01T00:00:00Z,2025-02-01T00:00:00Z"],
        "page_size": ["4"],
        "sort_key[]": ["start_date", "granule_ur"],
    }
    assert all(search == cmr.searches[0] for search in cmr.searches)  # search-after wants the same parameters each time
    assert cmr.paths == [GRANULES] * 4  # 4, 4, 2 granules, and the empty page that ends it


def test_a_window_with_fractions_of_a_second_is_widened() -> None:
    cmr = Cmr(TEN)
    scan(cmr, window=(JANUARY[0] + dt.timedelta(milliseconds=1), JANUARY[1] - dt.timedelta(milliseconds=1)))
    assert cmr.searches[0]["temporal[]"] == ["2025-01-01T00:00:00Z,2025-02-01T00:00:00Z"]


def test_a_page_is_never_larger_than_cmr_allows() -> None:
    cmr = Cmr(TEN)
    assert scan(cmr, page_size=9000).keys == ALL_TEN
    assert cmr.searches[0]["page_size"] == ["2000"]


def test_without_a_version_none_is_asked_for() -> None:
    cmr = Cmr(TEN)
    found = scan(cmr, version=None)
    assert "version" not in cmr.searches[0]
    assert set(found.scenes.collection) == {"SCENES"}


def test_a_box_is_asked_and_one_across_the_antimeridian_as_two() -> None:
    cmr = Cmr(TEN)
    scan(cmr, bbox=(-0.00000012, -10, 10, 10.5))
    assert {s["bounding_box"][0] for s in cmr.searches} == {"-0.00000012,-10,10,10.5"}
    cmr = Cmr(TEN)
    found = scan(cmr, bbox=(170, -10, -170, 10))
    assert [s["bounding_box"][0] for s in cmr.searches] == ["170,-10,180,10"] * 4 + ["-180,-10,-170,10"] * 4
    # this server ignores boxes: each granule came twice, and counts once
    assert (found.window_count.announced, len(found.scenes), found.collector.duplicates) == (20, 10, 10)


def test_no_login_is_sent_though_netrc_has_one_and_the_proxy_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\nmachine cmr.example.org login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    cmr = Cmr(TEN)
    assert scan(cmr).keys == ALL_TEN
    assert all("authorization" not in headers and "cookie" not in headers for headers in cmr.headers)
    with serve(Cmr(TEN)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        api = source_for(AvailableSource("cmr", "http://cmr.example.org", "SCENES", version="001"))
        assert sum(map(len, pages(api, JANUARY))) == 10
        assert all("authorization" not in headers for headers in proxy.headers)


# All of it, or a named error


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 12])
def test_any_number_of_granules(count: int) -> None:
    granules = [granule(k) for k in range(1, count + 1)]  # all at one instant: no two pages may share or skip one
    found = scan(Cmr(granules))
    assert found.keys == sorted(g["umm"]["GranuleUR"] for g in granules)
    assert found.window_count.announced == count


@pytest.mark.parametrize("short", [{1: 1}, {2: 1}, {2: 3, 3: 1}, {1: 1, 2: 1, 3: 1, 4: 1}])
def test_a_short_page_is_not_the_end(short: dict[int, int]) -> None:
    assert scan(Cmr(TEN, sizes=short)).keys == ALL_TEN


def test_a_short_page_with_a_granule_lost_for_good_is_no_complete_answer() -> None:
    with pytest.raises(CatalogTruncated, match=r"page 4 .*\(10 announced, 9 received\)"):
        scan(Cmr(TEN, lost=frozenset({"G6-TEST"})))


def test_an_empty_month_of_a_collection_that_exists_is_empty() -> None:
    cmr = Cmr([])
    found = scan(cmr)
    assert (found.keys, found.window_count.announced) == ([], 0)
    assert cmr.paths == [GRANULES, COLLECTIONS]


@pytest.mark.parametrize("wrong", [{"short_name": "SCENE"}, {"version": "1"}])
def test_an_empty_answer_of_a_collection_that_is_not_there_is_no_empty_month(wrong: dict[str, str]) -> None:
    with pytest.raises(CatalogUnavailable, match="no such collection"):
        scan(Cmr(TEN), **wrong)


def _drop_token(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, after=None)


def _same_token(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, after=json.dumps(place(TEN[3]))) if number < 3 else answer


def _deaf_to_tokens(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return cmr.search(cmr.searches[0], None)


def _repeated_page(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, items=TEN[:4], after=f'["test",{number},1]')


def _empty_page(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, items=[]) if number == 2 else answer


def _one_more_announced(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, hits=11)


def _rising(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, hits=10 if number == 1 else 11)


def _total_falls_once(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, hits=4, after=None) if number == 2 else answer


def _archive_vanishes(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, hits=0, items=[], after=None) if number > 1 else answer


def _header_low(cmr: Cmr, number: int, answer: Answer) -> Answer:
    status, headers, content = changed(answer, after=None)
    return status, {**headers, "CMR-Hits": "4"}, content


def _timed_out(name: str) -> Any:
    def fault(cmr: Cmr, number: int, answer: Answer) -> Answer:
        status, headers, content = changed(answer, hits=4, after=None)
        return status, {**headers, name: "true"}, content

    return fault


def _body(content: Any, status: int = 200, kind: str = "application/json", after: int = 0) -> Any:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda cmr, number, answer: (status, {"Content-Type": kind}, raw) if number > after else answer


def _cut_json(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return (answer[0], answer[1], answer[2][: len(answer[2]) // 2]) if number > 1 else answer


def _cut_connection(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return (answer[0], {**answer[1], "Content-Length": str(len(answer[2]) + 100)}, answer[2]) if number > 1 else answer


def _another_collection(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, items=[granule(k, CollectionReference={"ShortName": "OTHER", "Version": "001"}) for k in range(10)])


def _another_version(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return changed(answer, items=[granule(k, CollectionReference={"ShortName": "SCENES", "Version": "002"}) for k in range(10)])


def _login(cmr: Cmr, number: int, answer: Answer) -> Answer:
    return 302, {"Location": "https://urs.earthdata.nasa.gov/oauth/authorize?client_id=1&state=secret"}, b""


OOPS = {"errors": ["Oops! Something has gone wrong. We have been alerted and are working to resolve the problem."]}
INVALID = {"errors": [{"path": ["Temporal"], "errors": ["temporal start is no date"]}, "page_size must be a number"]}
HTML = b"<html><body>Scheduled maintenance</body></html>"

FAULTS: list[tuple[str, Any, type[CatalogError], str]] = [
    ("token dropped", _drop_token, CatalogTruncated, r"page 1 .*\(10 announced, 4 received\)"),
    ("the same token again", _same_token, CatalogTruncated, r"page 2 .* leads back .*\(10 announced, 8 received\)"),
    (
        "token not heard",
        _deaf_to_tokens,
        CatalogTruncated,
        r"page 2 .* has no new granule \(10 announced, 4 received\)",
    ),
    ("the first page again and again", _repeated_page, CatalogTruncated, r"page 2 .* has no new granule"),
    ("an empty page in the middle", _empty_page, CatalogTruncated, r"page 2 .* is empty \(10 announced, 4 received\)"),
    ("more announced than there are", _one_more_announced, CatalogTruncated, r"stopped short at page 4|page 4 is empty"),
    ("a total that rises, and one does not come", _rising, CatalogTruncated, r"\(11 announced, 10 received\)"),
    ("a total that falls in one answer", _total_falls_once, CatalogTruncated, r"is 10 in a new search \(10 announced, 8 received\)"),
    ("an archive that vanishes", _archive_vanishes, CatalogTruncated, r"is 0 in a new search \(10 announced, 4 received\)"),
    ("part of a query that timed out", _timed_out("CMR-Time-Out"), CatalogTruncated, "timed out"),
    ("the same, in the other spelling", _timed_out("CMR-Timed-Out"), CatalogTruncated, "timed out"),
    ("HTML instead of JSON", _body(HTML, kind="text/html"), CatalogUnreadable, r"text/html.*Scheduled maintenance"),
    ("an error body with status 200", _body(OOPS, after=1), CatalogUnreadable, r"it has: errors \(.*page 2\)"),
    ("a list", _body([1]), CatalogUnreadable, "it is a list"),
    ("totals that disagree", _header_low, CatalogTruncated, r"page 1 .*\(10 announced, 4 received\)"),
    ("no granules", _body({"hits": 0, "items": None}), CatalogUnreadable, "no hits and items"),
    ("no total", _body({"items": []}), CatalogUnreadable, "no hits and items"),
    ("JSON without end", _body(b"[" * 100_000), CatalogUnreadable, "did not answer with JSON"),
    ("half a JSON", _cut_json, CatalogUnreadable, "page 2"),
    ("granules of another collection", _another_collection, CatalogUnreadable, "ShortName OTHER"),
    ("granules of another version", _another_version, CatalogUnreadable, "Version 002"),
    ("a body that ends early", _cut_connection, CatalogUnavailable, "broke off in the middle of its answer"),
    ("hanging up", lambda cmr, number, answer: None, CatalogUnavailable, "could not be reached"),
    ("500 in CMR's words", _body(OOPS, 500), CatalogUnavailable, r"answered 500: Oops! .*try again later"),
    ("429 without end", _body({"errors": ["Too many requests"]}, 429), CatalogUnavailable, r"answered 429.*try again later"),
    ("400 with paths", _body(INVALID, 400), CatalogUnavailable, r"400: temporal start is no date; page_size must be.*check collection_id"),
    ("504 in plain text", _body(b"The request exceeded the maximum allowed time", 504), CatalogUnavailable, "exceeded the maximum"),
    ("a redirect to the login", _login, CatalogUnavailable, r"redirects to urs\.earthdata\.nasa\.gov"),
]


@pytest.mark.parametrize(("fault", "error", "words"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_failing_cmr_is_a_named_error(fault: Any, error: type[CatalogError], words: str) -> None:
    cmr = Cmr(TEN, fault=fault)
    with pytest.raises(CatalogError, match=words) as caught:
        scan(cmr)
    assert type(caught.value) is error
    message = str(caught.value)
    assert message.startswith(f"test 2025-01: {cmr.address.removeprefix('http://')} (SCENES_001) ")
    assert "secret" not in message


def test_a_total_that_rises_is_fine_if_all_came() -> None:
    def ingested(cmr: Cmr, number: int, answer: Answer) -> Answer:
        if number == 1:
            cmr.granules = [*TEN, granule(11, day=20)]
        return answer

    found = scan(Cmr(TEN, fault=ingested))
    assert (len(found.scenes), found.window_count.announced) == (11, 11)


def test_a_total_that_falls_is_fine_if_it_stays_so() -> None:
    def deleted(cmr: Cmr, number: int, answer: Answer) -> Answer:
        if number == 1:
            cmr.granules = TEN[:8]
        return answer

    cmr = Cmr(TEN, fault=deleted)
    found = scan(cmr)
    assert (len(found.scenes), found.window_count.announced) == (8, 8)
    assert cmr.headers[-1].get("cmr-search-after") is None  # asked once more, from the start


def test_an_empty_page_ends_the_search_though_it_has_a_token() -> None:
    found = scan(Cmr(TEN, fault=lambda cmr, number, answer: changed(answer, after=f'["test",{number},1]') if number > 3 else answer))
    assert (found.keys, found.window_count.pages) == (ALL_TEN, 4)


def test_a_granule_revised_during_the_scan_may_come_again() -> None:
    """Its start was corrected, so that it stands on a later page, alone: it is news, though its concept is known."""

    def revised(cmr: Cmr, number: int, answer: Answer) -> Answer:
        if number == 1:
            cmr.granules = [*TEN[1:8], granule(1, day=28, meta={"revision-id": 2})]
        return answer

    found = scan(Cmr(TEN[:8], fault=revised))
    assert (len(found.scenes), found.collector.duplicates) == (8, 1)
    # and it does not stand in for one that never came
    with pytest.raises(CatalogTruncated, match=r"\(8 announced, 7 received\)"):
        scan(Cmr(TEN[:8], fault=revised, lost=frozenset({"G8-TEST"})))


def test_a_passing_failure_is_tried_again() -> None:
    def once(cmr: Cmr, number: int, answer: Answer) -> Answer:
        return (429, {"Retry-After": "0"}, b'{"errors":["Too many requests"]}') if number == 2 else answer

    found = scan(Cmr(TEN, fault=once))
    assert found.keys == ALL_TEN
    assert (found.source.session.requests, dict(found.source.session.retried)) == (5, {"429": 1})


def test_a_redirect_is_not_followed() -> None:
    with serve(Cmr(TEN)) as other:
        cmr = Cmr(TEN, fault=lambda cmr, number, answer: (307, {"Location": f"{other.address}{GRANULES}"}, b""))
        with pytest.raises(CatalogUnavailable, match=f"redirects to {other.address.removeprefix('http://')}"):
            scan(cmr)
        assert other.paths == []


def test_a_cmr_that_is_down_or_hangs() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        silent = Cmr([], address=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        down = source_for(source_of(silent))
        with pytest.raises(CatalogUnavailable, match=r"could not be reached: .*refused"):
            list(pages(down, JANUARY))
        deaf.listen(5)
        hanging = source_for(source_of(silent), Patience(timeout_seconds=0.3, retries=0))
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match=r"could not be reached: no answer within 0.3 s"):
            list(pages(hanging, JANUARY))
        assert time.monotonic() - began < 3


# What a granule becomes


def one(**umm: Any) -> Scan:
    return scan(Cmr([granule(**umm)]))


def test_a_hole_is_not_covered() -> None:
    zone = {"Boundaries": [square(5.4, 50.4, 0.2), square(5.8, 50.8, 0.1)]}
    found = one(SpatialExtent=extent(GPolygons=[{"Boundary": square(), "ExclusiveZone": zone}])).scene
    assert found.geometry.area == pytest.approx(1 - 0.04 - 0.01)
    assert not found.geometry.covers(shapely.Point(5.5, 50.5))


def test_several_polygons_are_one_footprint() -> None:
    found = one(SpatialExtent=extent(GPolygons=[{"Boundary": square(5)}, {"Boundary": square(8)}])).scene
    assert found.geometry.geom_type == "MultiPolygon"
    assert found.geometry.area == 2


@pytest.mark.parametrize("east", [-179.0, 181.0], ids=["crossing", "unwrapped"])
def test_a_ring_across_the_antimeridian_is_cut_there(east: float) -> None:
    boundary = ring((179, 10), (east, 10), (east, 11), (179, 11))
    found = one(SpatialExtent=extent(GPolygons=[{"Boundary": boundary}])).scene
    assert found.geometry.bounds == (-180, 10, 180, 11)
    assert found.geometry.area == pytest.approx(2)
    assert found.geometry_source == "footprint"


@pytest.mark.parametrize(
    ("rectangles", "box"),
    [
        ([(5, 50, 7, 51)], [5, 50, 7, 51]),
        ([(5, 50, 7, 51), (7, 49, 8, 50)], [5, 49, 8, 51]),
        ([(170, 50, 180, 51)], [170, 50, 180, 51]),
        # across the antimeridian: as one, as two that abut there, and with a third behind it
        ([(179, 50, -179, 51)], [179, 50, -179, 51]),
        ([(-180, 50, -178, 51), (179, 50, 180, 51)], [179, 50, -178, 51]),
        ([(-179, 50, -178, 51), (179, 50, -179, 51)], [179, 50, -178, 51]),
        ([(-180, 50, -178, 51), (-177, 50, -176, 51), (178, 50, 180, 51)], [178, 50, -176, 51]),
        # one within another
        ([(-170, 0, 100, 1), (-160, 0, -150, 1), (110, 0, 170, 1)], [-170, 0, 170, 1]),
        # the whole circle
        ([(-180, -90, 180, 90)], [-180, -90, 180, 90]),
        ([(-180, -90, 0, 90), (0, -90, 180, 90)], [-180, -90, 180, 90]),
        ([(-180, -90, 180, 90), (170, -90, -170, 90)], [-180, -90, 180, 90]),
        # one that is none: no box around the others
        ([(5, 50, 7, 51), (7, 50, None, 51)], None),
    ],
)
def test_rectangles_are_the_smallest_box_around_them(rectangles: list[tuple[Any, ...]], box: list[float] | None) -> None:
    with serve(Cmr([granule(SpatialExtent=extent(BoundingRectangles=[rectangle(*r) for r in rectangles]))])) as cmr:
        ((item,),) = list(pages(source_for(source_of(cmr)), JANUARY))
    assert item["geometry"] is None
    assert item.get("bbox") == box


@pytest.mark.parametrize(
    ("rectangles", "area"),
    [([(5, 50, 7, 51)], 2), ([(179, 50, -179, 51)], 2), ([(-180, -90, 180, 90)], 360 * 180)],
)
def test_a_box_is_flagged_in_the_scenes(rectangles: list[tuple[Any, ...]], area: float) -> None:
    found = one(SpatialExtent=extent(BoundingRectangles=[rectangle(*r) for r in rectangles])).scene
    assert found.geometry_source == "bbox"
    assert found.geometry.area == pytest.approx(area)


def test_polygons_go_before_rectangles() -> None:
    both = extent(GPolygons=[{"Boundary": square()}], BoundingRectangles=[rectangle(0, 0, 90, 90)])
    assert one(SpatialExtent=both).scene.geometry.area == 1


BROKEN = {"Boundary": {"Points": [{"Longitude": 5.0, "Latitude": 50.0}, {"Longitude": None, "Latitude": 50.0}, "?", {}]}}


@pytest.mark.parametrize(
    "spatial",
    [
        {"HorizontalSpatialDomain": {"Orbit": {"AscendingCrossing": 12.3, "StartLatitude": -50, "EndLatitude": 50}}},
        {"VerticalSpatialDomains": [{"Type": "Atmosphere Layer", "Value": "1"}]},
        extent(Points=[{"Longitude": 5, "Latitude": 50}]),
        extent(BoundingRectangles=[{**rectangle(5, 50, 7, 51), "EastBoundingCoordinate": None}]),
        extent(GPolygons=[{"Boundary": square()}, BROKEN]),  # never the half that can be read
        extent(GPolygons=[{"Boundary": square(), "ExclusiveZone": {"Boundaries": [BROKEN["Boundary"]]}}]),
        extent(GPolygons=["?"]),
        extent(GPolygons=[{}]),
        "?",
        None,
    ],
)
def test_a_granule_without_a_usable_footprint_is_rejected_not_dropped(spatial: Any) -> None:
    found = one(SpatialExtent=spatial)
    assert len(found.scenes) == 0
    assert list(found.rejected) == ["scene-1"]
    assert found.rejected["scene-1"].startswith(("geometry", "coordinates"))
    assert found.window_count.announced == found.collector.received == 1


def attributes(**named: Any) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": values} for name, values in named.items()]


@pytest.mark.parametrize(
    ("umm", "cloud", "raw"),
    [
        ({"CloudCover": 42}, 42, "42"),
        ({"CloudCover": 0}, 0, "0"),
        ({"CloudCover": "7.5"}, 7.5, '"7.5"'),
        ({"CloudCover": -1}, None, "-1"),
        ({"CloudCover": 101}, None, "101"),
        ({"CloudCover": None}, None, None),
        ({"CloudCover": None, "AdditionalAttributes": attributes(SENSOR=["x"], CLOUD_COVERAGE=["63"])}, 63, '"63"'),
        ({"CloudCover": None, "AdditionalAttributes": attributes(Cloud_Coverage=[12])}, 12, "12"),
        ({"CloudCover": 3, "AdditionalAttributes": attributes(CLOUD_COVERAGE=["63"])}, 3, "3"),
        ({"CloudCover": -1, "AdditionalAttributes": attributes(CLOUD_COVERAGE=["63"])}, 63, '"63"'),
        ({"CloudCover": -1, "AdditionalAttributes": attributes(CLOUD_COVERAGE=["n/a"])}, None, "-1"),
        ({"CloudCover": None, "AdditionalAttributes": attributes(CLOUD_COVERAGE=[])}, None, None),
        ({"CloudCover": None, "AdditionalAttributes": ["?", {"Values": ["1"]}]}, None, None),
    ],
)
def test_cloud(umm: dict[str, Any], cloud: float | None, raw: str | None) -> None:
    found = one(**umm).scenes
    assert [value if isinstance(value, str) else None for value in found.cloud_raw] == [raw]
    assert found.cloud_cover.to_list() == pytest.approx([math.nan if cloud is None else cloud], nan_ok=True)


def test_a_source_may_name_another_cloud_attribute() -> None:
    cmr = Cmr([granule(CloudCover=None, AdditionalAttributes=attributes(CLOUD_COVERAGE=["1"], Scene_Clouds=["2"]))])
    assert scan(cmr, cloud_field="scene_clouds").scene.cloud_cover == 2


def test_times_and_creation() -> None:
    with serve(Cmr([])) as cmr:
        api = source_for(source_of(cmr))

        def properties(**umm: Any) -> Any:
            cmr.granules = [granule(**umm)]
            ((item,),) = list(pages(api, JANUARY))
            return item["properties"]

        ranged = properties(ProviderDates=[{"Type": "Update", "Date": "2030-01-01T00:00:00Z"}])
        assert ranged["datetime"] == ranged["start_datetime"] == "2025-01-15T10:00:00.000Z"
        assert ranged["end_datetime"] == "2025-01-15T10:00:12.000Z"
        assert ranged["created"] == "2025-01-20T00:00:00.000Z"
        single = properties(TemporalExtent={"SingleDateTime": "2025-01-15T11:00:00Z"}, DataGranule={"DayNightFlag": "Day"})
        assert (single["datetime"], single["start_datetime"], single["end_datetime"]) == ("2025-01-15T11:00:00Z", None, None)
        assert single["created"] is None
        dates = [{"Type": kind, "Date": f"2025-01-1{k}T00:00:00Z"} for k, kind in enumerate(("Create", "Insert", "Update", "Delete"))]
        assert properties(DataGranule=None, ProviderDates=dates)["created"] == "2025-01-12T00:00:00Z"
        assert properties(DataGranule=None, ProviderDates=dates[:2])["created"] == "2025-01-11T00:00:00Z"


@pytest.mark.parametrize("temporal", [None, {}, "?", {"RangeDateTime": {"EndingDateTime": "2025-01-15T10:00:00Z"}}])
def test_a_granule_without_a_beginning_is_rejected(temporal: Any) -> None:
    assert one(TemporalExtent=temporal).rejected == {"scene-1": "no time"}


def test_other_platforms_of_a_shared_collection_are_not_ours() -> None:
    def of(*names: str) -> list[dict[str, str]]:
        return [{"ShortName": name} for name in names]

    cmr = Cmr(
        [granule(1, Platforms=of("LANDSAT-7")), granule(2, Platforms=of("LANDSAT-8")), granule(3, Platforms=of("Terra", "LANDSAT-9"))]
    )
    found = scan(cmr, platforms=("landsat-8", "landsat-9"))
    assert found.keys == ["scene-2", "scene-3"]
    assert found.collector.other_platform == 1


def test_the_newest_revision_in_a_page_is_the_scene_and_the_other_is_counted() -> None:
    old, new = (granule(1, "same", meta={"revision-id": k}, CloudCover=k) for k in (9, 10))
    elsewhere = granule(2, "other")
    for pair in ([old, new], [new, old]):
        # as one entry a revision, which CMR does not give, and as two concepts of two providers, which it does
        copies = [pair[0], {**pair[1], "meta": {**pair[1]["meta"], "concept-id": "G3-OTHER"}}, elsewhere]
        found = scan(Cmr(copies))
        assert found.keys == ["other", "same"]
        assert found.scenes.set_index("scene_key").cloud_cover["same"] == 10
        assert (found.collector.duplicates, found.window_count.announced) == (1, 3)


def test_what_is_no_granule_is_rejected_and_counted() -> None:
    """CMR gives a deleted concept as its ``meta`` alone."""
    nameless = granule(3)
    del nameless["umm"]["GranuleUR"]
    strange = ["?", None, {"meta": {"concept-id": "G2-TEST", "revision-id": 4}}, nameless, {"umm": {"GranuleUR": 5}}]
    cmr = Cmr(TEN[:1], fault=lambda cmr, number, answer: changed(answer, items=[*TEN[:1], *strange], hits=6) if number == 1 else answer)
    found = scan(cmr)
    assert found.keys == ["scene-1"]
    assert sum(by_reason(found.collector.rejected()).values()) == 5
    assert f"{cmr.address}/search/concepts/G2-TEST.umm_json" in found.rejected


JUNK: list[Any] = [None, "", "?", -1, True, math.nan, 10**30, 720.5, [], {}, [[]], [None], ["1", 2], {"a": 1}, "2025-13-45T99:00:00Z"]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places_in(part, (*path, key))


def spoiled(whole: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """A copy with one to three of its parts removed, or replaced by something else."""
    copy = json.loads(json.dumps(whole))
    for _ in range(dice.choice((1, 1, 2, 3))):
        *hint, last = dice.choice(list(places_in(copy["umm"])))
        inside = copy["umm"]
        for key in hint:
            inside = inside[key]
        if dice.random() < 0.25:
            del inside[last]
        else:
            inside[last] = json.loads(json.dumps(dice.choice(JUNK)))
    return copy


def test_a_spoiled_granule_is_in_exactly_one_table() -> None:
    dice = random.Random(7)
    whole = [g for name in (HLS, TELLUS) for g in granules_of(recorded(*name))[:2]]
    whole.append(granule(AdditionalAttributes=attributes(CLOUD_COVERAGE=["3"]), Platforms=[{"ShortName": "ISS"}]))
    for g in whole:  # what a scan does not read; and another collection ends it
        g["umm"] = {k: v for k, v in g["umm"].items() if k not in ("RelatedUrls", "CollectionReference")}
    mutants = [spoiled(dice.choice(whole), dice) for _ in range(600)]
    for k, mutant in enumerate(mutants):
        mutant["meta"]["concept-id"] = f"G{k}-TEST"
        if isinstance(mutant["umm"].get("GranuleUR"), str):
            mutant["umm"]["GranuleUR"] += f"-{k}"
    cmr = Cmr([], fault=lambda cmr, number, answer: changed(answer, items=mutants, hits=len(mutants), after=None))
    found = scan(cmr, window=ALWAYS)
    named = set(found.scenes.scene_key) | {row["item_id"] for row in found.collector.rejected().to_pylist()}
    assert {m["umm"]["GranuleUR"] for m in mutants if m["umm"].get("GranuleUR") and isinstance(m["umm"]["GranuleUR"], str)} <= named
    assert len(found.scenes) + found.collector.outside + sum(by_reason(found.collector.rejected()).values()) == 600
    assert min(len(found.scenes), len(found.rejected)) > 50  # both tables were met
