"""The doctor says of real providers' recorded pages that they work, and of each thing that is wrong what to do; over real HTTP."""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from coverage_pipeline.catalog import doctor
from coverage_pipeline.catalog.checks import Check, distinct
from coverage_pipeline.catalog.doctor import examine
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import PROVIDERS, ProviderProfile
from coverage_pipeline.months import Month
from coverage_pipeline.redaction import printable
from coverage_pipeline.scenes.scene_key import parse_time
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor
from tests.catalog import cmr_server
from tests.catalog.http_server import Answer, AnswerHandler, on_loopback
from tests.catalog.items import item, sensor
from tests.catalog.stac_server import Catalog, serve
from tests.shared_data import read_items, shared_data

TODAY = dt.date(2025, 4, 15)
"""So that February is looked at."""
FEBRUARY = "2025-02-14T10:00:00Z"
QUICK = Patience(timeout_seconds=2, retries=1, backoff_seconds=0.01)
PC, EARTH_SEARCH, CDSE, DLR = (
    "planetarycomputer.microsoft.com",
    "earth-search.aws.element84.com",
    "stac.dataspace.copernicus.eu",
    "geoservice.dlr.de",
)
ITEMS = {
    (PC, "landsat-c2-l2"): "planetary-computer__landsat-c2-l2.ndjson.gz",
    (PC, "sentinel-2-l2a"): "planetary-computer__sentinel-2-l2a.ndjson.gz",
    (EARTH_SEARCH, "landsat-c2-l2"): "earth-search__landsat-c2-l2.ndjson.gz",
    (EARTH_SEARCH, "sentinel-2-l2a"): "earth-search__sentinel-2-l2a.ndjson.gz",
    (CDSE, "sentinel-2-l2a"): "cdse-stac__sentinel-2-l2a.ndjson.gz",
    (DLR, "ENMAP_HSI_L2A"): "dlr__ENMAP_HSI_L2A.ndjson.gz",
}


def landing_page(host: str) -> tuple[str, dict[str, Any]]:
    """A recorded landing page and the address it was at."""
    recorded = json.loads((shared_data() / "api" / f"landing__{host}.json").read_text())
    return recorded["url"], recorded["body"]


def collection(host: str, name: str) -> dict[str, Any]:
    """A recorded collection; of those that are not recorded a bare one."""
    path = shared_data() / "api" / f"collection__{host}__{name}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2013-01-01T00:00:00Z", None]]}}
    bare = {"type": "Collection", "id": name, "stac_version": "1.0.0", "description": name, "license": "other"}
    return {**bare, "extent": extent, "links": []}


ANNOUNCE = ("earth-search.aws.element84.com", "landsatlook.usgs.gov")
"""Recorded hosts whose search says how many items match."""


@dataclass
class Recorded:
    """A provider's API as it was recorded, with the addresses in it made this server's."""

    host: str
    name: str
    items: list[dict[str, Any]]
    answers: Mapping[str, Answer | None] = field(default_factory=dict)
    """Other answers, by the last part of the path ("" for the landing page)."""
    page: dict[str, Any] = field(default_factory=dict)
    """Members of the landing page that are other than recorded."""
    collection: dict[str, Any] = field(default_factory=dict)
    address: str = ""
    searches: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """The recorded address at this server."""
        return self.address + urlsplit(landing_page(self.host)[0]).path

    @property
    def netloc(self) -> str:
        return urlsplit(self.address).netloc

    def rewritten(self, content: Any) -> Answer:
        text = json.dumps(content).replace(f"https://{self.host}", self.address)
        return 200, {"Content-Type": "application/json"}, text.encode()

    def answer(self, url: str, body: dict[str, Any] | None) -> Answer | None:
        path = unquote(urlsplit(url).path).rstrip("/")
        root = urlsplit(landing_page(self.host)[0]).path.rstrip("/")
        self.paths.append(path.removeprefix(root))
        last = path.removeprefix(root).rpartition("/")[2]
        if last in self.answers:
            return self.answers[last]
        if path == root:
            return self.rewritten({**landing_page(self.host)[1], **self.page})
        if path == f"{root}/collections/{self.name}":
            return self.rewritten({**collection(self.host, self.name), **self.collection})
        if path == f"{root}/search":
            asked = body if body is not None else dict(parse_qsl(urlsplit(url).query))
            self.searches.append(asked)
            return self.rewritten(self.found(asked))
        return 404, {"Content-Type": "application/json"}, b'{"code":"NotFound","description":"Not Found"}'

    def found(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        start, end = (parse_time(t) for t in asked["datetime"].split("/"))
        assert start
        assert end
        times = [(one, parse_time(one["properties"]["datetime"])) for one in self.items]
        some = [one for one, when in times if when and start <= when <= end]
        page = {"type": "FeatureCollection", "features": some[: int(asked["limit"])], "links": []}
        return {**page, "numberMatched": len(some)} if self.host in ANNOUNCE else page


@contextmanager
def recorded(api: Recorded) -> Iterator[Recorded]:
    """Serve it until the end of the block."""

    class Handler(AnswerHandler):
        def do_GET(self) -> None:
            self.send(api.answer(self.path, None))

        def do_POST(self) -> None:
            self.send(api.answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    with on_loopback(Handler) as address:
        api.address = address
        yield api


def api_of(host: str, name: str, **changes: Any) -> Recorded:
    """The recorded pages with one recorded item."""
    return Recorded(host, name, read_items(ITEMS[host, name])[:1], **changes)


def options_for(address: str, profile: ProviderProfile | None = None) -> ScanOptions:
    host = urlsplit(address).netloc
    return ScanOptions(QUICK, {host: replace(profile, requests_per_second=None)} if profile else {})


def sensor_of(host: str, name: str) -> tuple[CoverageSensor, AvailableSource]:
    """The registry's sensor and source."""
    return next(
        (sensor, source)
        for sensor in COVERAGE_SENSORS.values()
        for source in sensor.available_sources
        if (source.provider, source.collection_id) == (host, name)
    )


def examined(api: Recorded, *, collection_id: str | None = None, **changes: Any) -> dict[str, Check]:
    """What the doctor says of the served pages two months after their item was taken, as the registry asks for it."""
    sensor, source = sensor_of(api.host, api.name)
    with recorded(api):
        changed = replace(source, endpoint=api.endpoint, **({"collection_id": collection_id} if collection_id else {}), **changes)
        when = parse_time(api.items[0]["properties"]["datetime"])
        assert when
        today = Month.of(when).shift(2).start.date()
        return {c.name: c for c in examine(sensor, changed, options_for(api.address, PROVIDERS[api.host]), today=today)}


def said(checks: Mapping[str, Check], verdict: str) -> dict[str, str]:
    return {name: check.said for name, check in checks.items() if check.verdict == verdict}


# What was recorded works


@pytest.mark.parametrize(("host", "name"), list(ITEMS))
def test_recorded_providers_are_ok(host: str, name: str) -> None:
    api = api_of(host, name)
    checks = examined(api)
    assert {c.verdict for c in checks.values()} == {"ok"}, checks
    assert list(checks) == [
        "landing page",
        "conformance",
        "features",
        "collection",
        "search",
        "time span",
        "scene",
        "scene key",
        "cloud",
        "platform",
        "totals",
    ]
    assert "STAC API 1.0.0" in checks["landing page"].said
    assert all(int(search["limit"]) in (1, 3) for search in api.searches)
    # The landing page (by DLR's two addresses), the collection, three searches (one of them twice where nothing was found), and two for
    # each that show what `fields` does.
    assert len(api.paths) <= 10


def test_a_cmr_is_ok() -> None:
    granule = {
        "meta": {"concept-id": "G1-LPCLOUD", "revision-id": 1, "provider-id": "LPCLOUD"},
        "umm": {
            "GranuleUR": "EMIT_L2A_RFL_001_20250214T034103_2504502_002",
            "CollectionReference": {"ShortName": "EMITL2ARFL", "Version": "001"},
            "TemporalExtent": {"RangeDateTime": {"BeginningDateTime": FEBRUARY, "EndingDateTime": FEBRUARY}},
            "SpatialExtent": {
                "HorizontalSpatialDomain": {
                    "Geometry": {
                        "GPolygons": [
                            {"Boundary": {"Points": [{"Longitude": x, "Latitude": y} for x, y in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]}}
                        ]
                    }
                }
            },
            "CloudCover": 12,
        },
    }
    emit = COVERAGE_SENSORS["emit"]
    with cmr_server.serve(cmr_server.Cmr([granule], collections=(("EMITL2ARFL", "001"),))) as cmr:
        for source in emit.available_sources:
            here = replace(source, endpoint=cmr.address)
            checks = {c.name: c for c in examine(emit, here, ScanOptions(QUICK), today=TODAY)}
            assert {c.verdict for c in checks.values()} == {"ok"}, checks
            assert "EMIT_20250214T034103" in checks["scene key"].said
            assert "12 %" in checks["cloud"].said
        wrong = {c.name: c for c in examine(emit, replace(here, collection_id="EMITL2RFL"), ScanOptions(QUICK), today=TODAY)}
    assert list(wrong) == ["collection"]
    assert wrong["collection"].verdict == "wrong"
    assert "has no collection EMITL2RFL version 001" in wrong["collection"].said


# Configured wrongly


def test_a_wrong_collection_is_named_with_those_it_may_have_meant() -> None:
    checks = examined(api_of(PC, "landsat-c2-l2"), collection_id="landsat-c2l2")
    assert list(said(checks, "wrong")) == ["collection"]
    assert "has no collection landsat-c2l2; it has landsat-c2-l2" in checks["collection"].said
    assert "[[sensors.sources.landsat-8-9]]" in checks["collection"].said
    assert list(checks)[-1] == "collection"  # nothing more is asked


def test_collections_are_listed_where_the_landing_page_does_not() -> None:
    listed = json.dumps({"collections": [{"id": "sentinel-2-l2a"}, {"id": "sentinel-1-grd"}, {"id": 7}, None]}).encode()
    api = api_of(CDSE, "sentinel-2-l2a", answers={"collections": (200, {"Content-Type": "application/json"}, listed)})
    assert "it has sentinel-2-l2a" in examined(api, collection_id="sentinel2-l2a")["collection"].said


def test_a_wrong_cloud_field_is_named_with_the_properties_that_have_cloud_in_their_name() -> None:
    checks = examined(api_of(PC, "landsat-c2-l2"), cloud_field="cloud_cover")
    assert said(checks, "wrong") == {
        "cloud": "the scene has no cloud_cover, so none would count as clear; its properties with cloud in their name: eo:cloud_cover, "
        "landsat:cloud_cover_land: check cloud_field in [[sensors.sources.landsat-8-9]]"
    }


def test_a_platform_that_the_collection_does_not_list_is_wrong() -> None:
    checks = examined(api_of(PC, "landsat-c2-l2"), platforms=("landsat-8", "LC10"))
    assert list(said(checks, "wrong")) == ["collection"]
    assert "does not list lc10 among its platforms (landsat-4, landsat-5, landsat-7, landsat-8, landsat-9)" in checks["collection"].said


def test_a_platform_is_compared_with_the_scene_where_the_collection_lists_none() -> None:
    checks = examined(api_of(EARTH_SEARCH, "landsat-c2-l2"), platforms=("LANDSAT_10",))
    assert list(said(checks, "wrong")) == ["platform"]
    assert "the scene is of landsat-8, which platforms (landsat_10) lack" in checks["platform"].said


def test_a_feature_that_is_trusted_and_not_claimed_is_wrong() -> None:
    api = api_of(DLR, "ENMAP_HSI_L2A")
    sensor, source = sensor_of(DLR, "ENMAP_HSI_L2A")
    with recorded(api):
        options = options_for(api.address, replace(PROVIDERS[DLR], features=("fields", "query")))
        checks = {c.name: c for c in examine(sensor, replace(source, endpoint=api.endpoint), options, today=dt.date(2024, 8, 1))}
    assert said(checks, "wrong") == {
        "features": f'does not claim query, which its profile trusts: set features = ["fields"] in [providers."{api.netloc}"]'
    }


def test_another_collection_than_the_family_s_is_seen_by_its_ids() -> None:
    sensor, source = sensor_of(PC, "landsat-c2-l2")
    api = api_of(PC, "sentinel-2-l2a")
    with recorded(api):
        wrong = replace(source, endpoint=api.endpoint, collection_id="sentinel-2-l2a", platforms=())
        checks = {c.name: c for c in examine(sensor, wrong, options_for(api.address, PROVIDERS[PC]), today=dt.date(2015, 9, 1))}
    assert checks["scene key"].verdict == "wrong"
    assert 'no id of the family "landsat"' in checks["scene key"].said


def test_a_time_span_is_believed_only_where_the_months_agree() -> None:
    def with_interval(start: str | None, end: str | None) -> dict[str, Any]:
        return {"extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[start, end]]}}}

    late = examined(api_of(PC, "landsat-c2-l2", collection=with_interval("2020-01-01T00:00:00Z", None)))
    assert list(said(late, "wrong")) == ["time span"]
    assert "2020-01-01 to now, while the sensor delivers from 2013-03" in late["time span"].said
    stale = examined(api_of(PC, "landsat-c2-l2", collection=with_interval("1982-01-01T00:00:00Z", "2023-01-01T00:00:00Z")))
    assert stale["time span"].verdict == "ok"
    assert "though it has newer scenes" in stale["time span"].said

    ended = api_of(PC, "landsat-c2-l2", collection=with_interval("1982-01-01T00:00:00Z", "2023-01-01T00:00:00Z"))
    old = {**ended.items[0], "properties": {**ended.items[0]["properties"], "datetime": "2013-04-01T00:00:00Z"}}
    ended.items.append(old)
    sensor, source = sensor_of(PC, "landsat-c2-l2")
    with recorded(ended):
        options = options_for(ended.address, PROVIDERS[PC])
        checks = {c.name: c for c in examine(sensor, replace(source, endpoint=ended.endpoint), options, today=dt.date(2024, 1, 1))}
    assert list(said(checks, "wrong")) == ["time span"]
    assert "has no scenes of 2023-11, but of the sensor's first months" in checks["search"].said


def test_a_collection_with_nothing_of_the_sensor_s_months_is_wrong() -> None:
    with serve(Catalog([item(when="2019-01-01T00:00:00Z")])) as catalog:
        one = sensor(catalog.address, first_month=Month(2020, 1))
        checks = {c.name: c for c in examine(one, one.available_sources[0], ScanOptions(QUICK), today=TODAY)}
        assert len(catalog.searches) == 3
    assert checks["search"].verdict == "wrong"
    assert "has no scenes of 2025-02 or of the sensor's first months from 2020-01" in checks["search"].said


@pytest.mark.parametrize(
    ("answer", "verdict", "names"),
    [
        (
            (200, {"Content-Type": "text/html"}, b"<html><body>Welcome</body></html>"),
            "wrong",
            ["did not answer with JSON", "landing page, which is JSON"],
        ),
        ((200, {"Content-Type": "application/json"}, b'{"hello": "world"}'), "wrong", ["landing page, which is JSON"]),
        ((403, {}, b'{"message":"Forbidden"}'), "failed", ["answered 403: Forbidden", "may require a login"]),
        ((500, {}, b"oops"), "failed", ["answered 500: oops", "try again later"]),
        ((404, {}, b"no"), "wrong", ["404"]),
        ((302, {"Location": "https://example.org/stac"}, b""), "wrong", ["redirects to example.org", "name that address as the endpoint"]),
        (None, "failed", ["could not be reached"]),
    ],
)
def test_a_landing_page_that_is_none(answer: Answer | None, verdict: str, names: list[str]) -> None:
    # Planetary Computer's profile: Earth Search's takes a 403 for "too many requests", as it does say that way
    checks = examined(api_of(PC, "landsat-c2-l2", answers={"": answer}))
    assert list(checks) == ["landing page"]
    assert checks["landing page"].verdict == verdict, checks
    for name in names:
        assert name in checks["landing page"].said


def test_a_provider_that_is_down_or_silent_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        one = sensor(f"http://127.0.0.1:{port}")
        (check,) = examine(one, one.available_sources[0], ScanOptions(QUICK), today=TODAY)
        assert check.verdict == "failed"
        assert "could not be reached: " in check.said
        assert "refused" in check.said
        listening.listen()  # and never accept
        began = time.monotonic()
        patient = ScanOptions(replace(QUICK, timeout_seconds=60))
        monkeypatch.setattr(doctor, "_TIMEOUT", 0.2)
        (check,) = examine(one, one.available_sources[0], patient, today=TODAY)
        assert time.monotonic() - began < 5
        assert check.verdict == "failed"
        assert "a scan waits longer, 60 s" in check.said


def test_whoever_asks_for_a_long_wait_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "STEP_SECONDS", 0.3)
    api = api_of(PC, "landsat-c2-l2", answers={"search": (429, {"Retry-After": "1000"}, b"slow down")})
    checks = examined(api)
    assert checks["search"].verdict == "failed"
    assert "gave no answer within" in checks["search"].said
    assert checks["search"].seconds < 5


def test_a_slow_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SLOW_SECONDS", 0.0)
    checks = examined(api_of(PC, "landsat-c2-l2"))
    assert checks["search"].verdict == "slow"
    assert "took 0." in checks["search"].said


def test_a_search_that_is_refused_says_which_method_to_try() -> None:
    checks = examined(api_of(PC, "landsat-c2-l2", answers={"search": (405, {}, b'{"detail":"Method Not Allowed"}')}))
    assert checks["search"].verdict == "wrong"
    assert 'set method = "GET" in [providers."127.0.0.1' in checks["search"].said


def test_an_item_that_lacks_what_a_scene_needs_has_failed() -> None:
    for change, words in (({"geometry": None, "bbox": None}, "no geometry"), ({"id": 7}, "no id")):
        with serve(Catalog([{**item(when=FEBRUARY), **change}])) as catalog:
            one = sensor(catalog.address)
            checks = {c.name: c for c in examine(one, one.available_sources[0], ScanOptions(QUICK), today=TODAY)}
        assert checks["scene"].verdict == "failed"
        assert words in checks["scene"].said


def test_what_a_provider_says_is_made_harmless() -> None:
    evil = "\x1b[31mred\x07 [bold]not markup[/bold] \u202egnp.exe\ud800 " + "x" * 5000
    with serve(Catalog([item(evil, when=FEBRUARY, properties={"platform": evil, "eo:cloud_cover": evil})])) as catalog:
        one = sensor(catalog.address)
        checks = list(examine(one, one.available_sources[0], ScanOptions(QUICK), today=TODAY))
    for check in checks:
        assert check.said.isprintable()
        assert len(check.said) <= 501
    assert printable("a\nb\x1b[1mc") == "a b [1mc"


def test_a_signature_in_an_address_is_not_told() -> None:
    source = AvailableSource("static", "http://127.0.0.1:9/catalog.json?sig=hush-hush", "scenes")
    for check in examine(sensor(), source, ScanOptions(QUICK), today=TODAY):
        assert check.verdict == "failed"
        assert "hush" not in check.said


# Files


def test_a_static_catalogue_and_a_path_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**item(when="2024-06-15T10:00:00Z"), "links": []}))
    links = [{"rel": "item", "href": "./a.json"}]
    root = {"type": "Catalog", "id": "r", "stac_version": "1.0.0", "description": "r", "links": links}
    (tmp_path / "catalog.json").write_text(json.dumps(root))
    source = AvailableSource("static", str(tmp_path), "scenes")
    checks = {c.name: c for c in examine(sensor(), source, ScanOptions(QUICK), today=TODAY)}
    assert {c.verdict for c in checks.values()} == {"ok"}, checks
    assert "its newest item is of 2024-06-15: for later months renew it" in checks["files"].said
    assert "finds scenes of 2024-06" in checks["search"].said
    for wrong in (replace(source, collection_id="other"), replace(source, endpoint=str(tmp_path / "nowhere"))):
        (check,) = examine(sensor(), wrong, ScanOptions(QUICK), today=TODAY)
        assert (check.name, check.verdict) == ("files", "wrong")


# Which are asked


@pytest.fixture(scope="module", autouse=True)
def threads_before() -> int:
    """Threads that other modules' servers have left in this process."""
    return threading.active_count()


def test_each_source_is_asked_once(threads_before: int) -> None:
    one, two = sensor(key="one"), sensor(key="two")
    other = sensor("https://other.example.org", key="other")
    assert [([s.key for s in sensors], source.provider) for sensors, source in distinct([one, other, two])] == [
        (["one", "two"], "example.org"),
        (["other"], "other.example.org"),
    ]
    registry = distinct(list(COVERAGE_SENSORS.values()))
    assert len(registry) == 8
    assert threading.active_count() < threads_before + 50  # the examinations above have left none


def test_a_search_at_another_host_is_wrong() -> None:
    api = api_of(PC, "landsat-c2-l2")
    links = landing_page(PC)[1]["links"]
    api.page = {"links": [{**link, "href": "https://example.org/search"} if link["rel"] == "search" else link for link in links]}
    checks = examined(api)
    assert list(checks) == ["landing page", "conformance"]
    assert checks["conformance"].verdict == "wrong"
    assert "its search is at another host, example.org" in checks["conformance"].said
    assert not api.searches


def test_a_catalogue_that_claims_no_search_is_wrong() -> None:
    for claimed, words in ((["https://api.stacspec.org/v1.0.0/core"], "does not claim item-search"), ([], "claims to conform to nothing")):
        checks = examined(api_of(PC, "landsat-c2-l2", page={"conformsTo": claimed}))
        assert list(checks) == ["landing page", "conformance"]
        assert words in checks["conformance"].said
        assert 'kind = "static"' in checks["conformance"].said
