"""Whatever a catalogue does, a scan ends with exactly its scenes, or with a named error and nothing changed.

``CASES`` is the table of faults, each played alone by a proxy before a real server that holds real items. ``docs/faults.md`` is made
from the table and from what the scans really did; it says how.
"""

from __future__ import annotations

import copy
import datetime as dt
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from coverage_pipeline.catalog import belief, pacing
from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import LOOPBACK
from coverage_pipeline.catalog.scan import build_availability_catalog, scan_month
from coverage_pipeline.demo.stac_server import stac_api
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.scene_key import parse_time, scene_key
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from tests.catalog import cmr_server, fault_proxy
from tests.catalog.fault_proxy import Act, Fault, FaultProxy, TimedCmr, When, at, every, first, larger_than, wider_than
from tests.catalog.sources.test_cmr import extent, granule
from tests.conftest import write_items
from tests.holdings.test_faults import MARK
from tests.shared_data import read_items, shared_data

pytestmark = pytest.mark.slow

WRITE_DOCS = os.environ.get("COVERAGE_WRITE_DOCS") == "1"  # here, as conftest.py takes it out of the environment of every test
DOCS = Path(__file__).resolve().parents[2] / "docs" / "faults.md"

Kind = Literal["month", "empty", "some", "cmr", "no granules"]
"""Which real data a case is played on."""
Error = type[CatalogError]

UTC = dt.UTC
S2 = COVERAGE_SENSORS["sentinel-2"]
LANDSAT = COVERAGE_SENSORS["landsat-8-9"]
EMIT = COVERAGE_SENSORS["emit"]
JULY, DESERTED, AUGUST_2022, WITHOUT = Month(2024, 7), Month(2024, 1), Month(2022, 8), Month(2023, 8)
YEAR = [Month(2020, month) for month in range(1, 13)]
COMPARED = ["scene_key", "item_ids", "acquired", "pass_time", "in_month", "cloud_cover", "cloud_raw", "geometry_source", "geometry"]
WAYS = ("try again later", "run again", "check ", "name another source", "name that as endpoint", "name that address as the endpoint")
"""Words of an error that say what to do."""


@dataclass(frozen=True)
class Data:
    """What is scanned in a case."""

    sensor: CoverageSensor
    month: Month
    collection: str
    page_size: int
    kind: Literal["stac", "cmr"] = "stac"


DATA: Mapping[Kind, Data] = {
    "month": Data(S2, JULY, "sentinel-2-l2a", 60),
    "empty": Data(S2, DESERTED, "sentinel-2-l2a", 60),
    "some": Data(S2, JULY, "some", 25),
    "cmr": Data(EMIT, AUGUST_2022, "EMITL2ARFL", 20, "cmr"),
    "no granules": Data(EMIT, WITHOUT, "EMITL2ARFL", 20, "cmr"),
}


DOUBTS_OF_THE_DATA: Mapping[Kind, list[str]] = {"month": ["silence"], "some": ["silence"], "empty": ["emptiness"]}
"""Doubts that a scan without faults has, too: the recorded items begin on 9 July."""


@dataclass(frozen=True)
class Case:
    """One fault, alone, and how the scan must end."""

    fault: Fault
    expect: Error | None = None
    """None: with exactly the true scenes."""
    totals: bool = False
    """Whether the server announces how many items match; CMR always does."""
    on: Kind = "month"
    fields: bool = False
    """Whether the provider is known for the ``fields`` extension, and claims it."""
    throttles: tuple[int, ...] = (429,)
    timeout: float = 10.0
    doubted: bool = False
    """Whether the true scenes come with a doubt, so that the month is provisional: its totals contradict what came (design section 6)."""
    wrong: str = ""
    """Why the scan does not end as it must: a known defect."""
    silent_on_way: str = ""
    """Why the error does not say what to do: a known defect."""

    @property
    def name(self) -> str:
        told = ", totals" if self.totals and self.on not in ("cmr", "no granules") else ""
        known = f", {self.throttles[0]} known as throttling" if self.throttles != (429,) else ""
        return f"{self.on}: {self.fault.name}, {self.fault.when}{told}{known}"


def _fault(name: str, does: str, act: Act, when: When = fault_proxy.ALWAYS, **more: Any) -> Fault:
    return Fault(name, does, act, when, **more)


STATEMENT = '{"detail": "canceling statement due to statement timeout"}'
TOO_LONG = (
    "The request exceeded the maximum allowed time, please try again. If the issue persists, please contact "
    "planetarycomputer@microsoft.com."
)
BUSY = '{"message":"Too Many Requests"}'
status = fault_proxy.status
THROTTLED = status(429, BUSY)
FORBIDDEN = status(403, '{"message":"Forbidden"}')
TIMEOUT_504 = status(504, TOO_LONG, "text/plain")
LARGE_413 = status(413, "<html><body>413 Request Entity Too Large</body></html>", "text/html")

F_429 = "says 429, too many requests"
F_403 = 'says 403 `{"message":"Forbidden"}`, which is how some say "too many requests"'
F_500 = 'says 500 `{"detail": "canceling statement due to statement timeout"}`'
F_502 = 'says 502 `{"message": "Internal server error"}`'
F_504 = "says 504 in plain text"
F_NEXT = "leaves out the link to the next page"
F_CAP = "gives at most {} items a page, whatever is asked for, {}"
F_TOTAL = "announces {} than there are"

CASES: list[Case] = [
    # Answers that are errors
    Case(_fault("429", F_429 + ", with `Retry-After: 1`", status(429, BUSY, Retry_After="1"), at(3))),
    Case(_fault("429 until a date", F_429 + ", with a date one second ahead in `Retry-After`", fault_proxy.until(1), at(3))),
    Case(_fault("429 without a time", F_429, THROTTLED, every(3))),
    Case(_fault("429 for an hour", F_429 + ", with `Retry-After: 3600`", status(429, BUSY, Retry_After="3600"), at(3)), CatalogUnavailable),
    Case(_fault("429 for ever", F_429, THROTTLED), CatalogUnavailable),
    Case(_fault("403", F_403, FORBIDDEN, at(1)), CatalogUnavailable),
    Case(_fault("403", F_403, FORBIDDEN, at(1)), throttles=(403, 429)),
    Case(_fault("403", F_403, FORBIDDEN, at(3))),
    Case(_fault("403", F_403, FORBIDDEN, every(2)), throttles=(403, 429)),
    Case(_fault("403 for ever", F_403, FORBIDDEN), CatalogUnavailable),
    Case(_fault("500", F_500, status(500, STATEMENT), first(2))),
    Case(_fault("500", F_500, status(500, STATEMENT), every(3))),
    Case(_fault("500 for ever", F_500, status(500, STATEMENT)), CatalogUnavailable),
    Case(_fault("500 on later pages", F_500, status(500, STATEMENT), fault_proxy.LATER_PAGES), CatalogUnavailable),
    Case(_fault("502", F_502, fault_proxy.status(502, '{"message": "Internal server error"}'), at(4))),
    Case(_fault("502 for large pages", F_502, fault_proxy.status(502, '{"message": "Internal server error"}'), larger_than(40))),
    Case(_fault("503", "says 503, busy", status(503, "busy", "text/plain"), first(2))),
    Case(_fault("504", F_504, TIMEOUT_504, at(2))),
    Case(_fault("504 for wide windows", F_504, TIMEOUT_504, wider_than(200))),
    Case(_fault("504 for ever", F_504, TIMEOUT_504), CatalogUnavailable),
    Case(_fault("413 for wide windows", "says 413, too large, in HTML", LARGE_413, wider_than(100))),
    Case(_fault("413 for ever", "says 413, too large, in HTML", LARGE_413), CatalogUnavailable),
    Case(_fault("404", 'says 404 `{"code":"NotFound"}`', status(404, '{"code":"NotFound","description":"Not Found"}')), CatalogUnavailable),
    # No answer, or a part of one
    Case(_fault("hang", "does not answer at all", fault_proxy.hang(1), at(3)), timeout=0.3),
    Case(_fault("hang on wide windows", "does not answer at all", fault_proxy.hang(1), wider_than(400)), timeout=0.3),
    Case(_fault("hang for ever", "does not answer at all", fault_proxy.hang(1)), CatalogUnavailable, timeout=0.12),
    Case(_fault("drip", "sends its answer byte by byte for 0.5 s, then the rest", fault_proxy.drip(0.5), at(3))),
    Case(_fault("reset", "resets the connection (TCP RST) in the middle of a page", fault_proxy.RESET, every(3))),
    Case(_fault("reset for ever", "resets the connection (TCP RST) in the middle of a page", fault_proxy.RESET), CatalogUnavailable),
    Case(_fault("short body", "ends the body before its announced length", fault_proxy.SHORT_BODY, at(3))),
    Case(_fault("short body for ever", "ends the body before its announced length", fault_proxy.SHORT_BODY), CatalogUnavailable),
    Case(_fault("hanging up", "closes the connection without an answer", fault_proxy.HANG_UP, every(4))),
    Case(_fault("hanging up for ever", "closes the connection without an answer", fault_proxy.HANG_UP), CatalogUnavailable),
    Case(_fault("last chunk lost", "closes the connection in the middle of a chunked body", fault_proxy.LAST_CHUNK_LOST, every(3))),
    Case(_fault("bad gzip", "says that its answer is gzip, which it is not", fault_proxy.BAD_GZIP, at(3))),
    Case(_fault("bad gzip for ever", "says that its answer is gzip, which it is not", fault_proxy.BAD_GZIP), CatalogUnavailable),
    Case(_fault("two lengths", "announces two lengths of its answer", fault_proxy.TWO_LENGTHS), CatalogUnavailable),
    Case(_fault("redirect", "redirects to another host", status(307, b"", Location="http://127.0.0.2:9/search")), CatalogUnavailable),
    # Answers with status 200 that are no page
    Case(_fault("maintenance", "sends an HTML page of maintenance with status 200", fault_proxy.HTML, at(2))),
    Case(_fault("maintenance for ever", "sends an HTML page of maintenance with status 200", fault_proxy.HTML), CatalogUnreadable),
    Case(_fault("half a JSON", "sends the first half of the JSON as if it were all", fault_proxy.HALF_JSON, every(3))),
    Case(_fault("half a JSON for ever", "sends the first half of the JSON as if it were all", fault_proxy.HALF_JSON), CatalogUnreadable),
    Case(_fault("empty body", "sends nothing with status 200", fault_proxy.EMPTY, at(3))),
    Case(_fault("empty body for ever", "sends nothing with status 200", fault_proxy.EMPTY), CatalogUnreadable),
    Case(_fault("no features", "sends a page without `features`", fault_proxy.NO_FEATURES, at(3))),
    Case(_fault("no features for ever", "sends a page without `features`", fault_proxy.NO_FEATURES), CatalogUnreadable),
    Case(_fault("features null", "sends a page whose `features` are null", fault_proxy.NULL_FEATURES, at(3))),
    Case(_fault("features null on later pages", "sends a page whose `features` are null", fault_proxy.NULL_FEATURES,
                fault_proxy.LATER_PAGES), CatalogUnreadable),
    Case(_fault("error with 200", 'sends `{"message": "Internal server error"}` with status 200', fault_proxy.ERROR_BODY, at(3))),
    Case(_fault("error with 200 for ever", 'sends `{"message": "Internal server error"}` with status 200', fault_proxy.ERROR_BODY),
         CatalogUnreadable),
    # Paging that leads astray
    *(Case(_fault("next dropped", F_NEXT, fault_proxy.DROP_NEXT, at(3)), totals=totals) for totals in (False, True)),
    *(Case(_fault("next dropped for ever", F_NEXT, fault_proxy.DROP_NEXT), totals=totals) for totals in (False, True)),
    Case(_fault("next dropped for wide windows", F_NEXT, fault_proxy.DROP_NEXT, wider_than(100))),
    Case(_fault("next in a circle", "links each page to itself as the next", fault_proxy.LOOP, at(3))),
    Case(_fault("next in a circle for ever", "links each page to itself as the next", fault_proxy.LOOP)),
    Case(_fault("pages of 5 in a circle", "gives at most 5 items a page, and links each to itself as the next", fault_proxy.LOOP, most=5),
         CatalogTruncated),
    Case(_fault("next elsewhere", "links to another host for the next page", fault_proxy.OTHER_HOST), CatalogUnreadable),
    Case(_fault("next to be merged", "gives only what differs in its link to the next page (`merge`)", fault_proxy.MERGE)),
    Case(_fault("repeated page", "sends the page before once more", fault_proxy.REPEAT, at(4))),
    Case(_fault("repeated page for ever", "sends the page before once more", fault_proxy.REPEAT)),
    Case(_fault("empty page", "sends an empty page in the middle, with a link to the next", fault_proxy.EMPTY_PAGE, at(3)), totals=True),
    Case(_fault("empty page", "sends an empty page in the middle, with a link to the next", fault_proxy.EMPTY_PAGE, at(3))),
    Case(_fault("empty page twice", "sends an empty page in the middle, with a link to the next", fault_proxy.EMPTY_PAGE,
                When("twice, at requests 3 and 4", lambda asked: asked.number in (3, 4)))),
    Case(_fault("empty pages", "sends an empty page wherever there is a next one", fault_proxy.EMPTY_PAGE, fault_proxy.LATER_PAGES)),
    *(Case(_fault("empty pages", "sends an empty page wherever there is a next one", fault_proxy.EMPTY_PAGE), totals=totals)
      for totals in (False, True)),
    Case(_fault("short page", "leaves out 7 items of a page", fault_proxy.SHORT_PAGE, at(3)), totals=True),
    Case(_fault("overlap", "sends 5 items of the page before again, with all of this one", fault_proxy.OVERLAP)),
    Case(_fault("shift", "sends 5 items of the page before again, in place of 5 of this one", fault_proxy.SHIFT, at(3)), totals=True),
    Case(_fault("shift", "sends 5 items of the page before again, in place of 5 of this one", fault_proxy.SHIFT, at(3))),
    Case(_fault("shift for ever", "sends 5 items of the page before again, in place of 5 of this one", fault_proxy.SHIFT), totals=True),
    *(Case(_fault(f"capped at {n}", F_CAP.format(n, "and pages on"), fault_proxy.AS_IT_IS, most=n)) for n in (37, 50)),
    *(
        Case(_fault(f"capped at {n}, no next", F_CAP.format(n, "and links to no next page"), fault_proxy.DROP_NEXT, most=n), totals=totals)
        for n, totals in ((50, False), (50, True), (37, True))
    ),
    Case(_fault("capped at 5, no next", F_CAP.format(5, "and links to no next page"), fault_proxy.DROP_NEXT, most=5), CatalogTruncated,
         totals=True),
    # Totals that are wrong
    Case(_fault("total too high", F_TOTAL.format("one more"), fault_proxy.TOO_HIGH), CatalogTruncated, totals=True),
    Case(_fault("total too high", F_TOTAL.format("one more"), fault_proxy.TOO_HIGH, at(3)), totals=True),
    Case(_fault("total too low", F_TOTAL.format("30 fewer"), fault_proxy.TOO_LOW), totals=True, doubted=True),
    Case(_fault("total of the page", "announces the length of the page as its total", fault_proxy.AS_THE_PAGE), totals=True, doubted=True),
    Case(_fault("total changes", "announces another total on each page: 10 too few, right, 10 too many", fault_proxy.CHANGING),
         totals=True, doubted=True),
    Case(_fault("total null", "announces null as its total", fault_proxy.NULL_TOTAL), totals=True),
    # Items that are not whole
    Case(_fault("no geometry", "leaves out the geometry, too, where it is asked to leave out the assets", fault_proxy.NO_GEOMETRY,
                fault_proxy.WITH_FIELDS), fields=True),
    Case(_fault("no properties", "leaves out all properties but the time, too, where it is asked to leave out the assets",
                fault_proxy.NO_PROPERTIES, fault_proxy.WITH_FIELDS), fields=True),
    Case(_fault("fields refused", "says 400 where it is asked to leave out the assets", status(400, '{"detail":"fields not supported"}'),
                fault_proxy.WITH_FIELDS), fields=True),
    Case(_fault("another collection", "adds an item of another collection to each page", fault_proxy.FOREIGN), CatalogUnreadable),
    # The pages beside the search
    Case(_fault("landing page fails", "says 500 for its landing page", status(500, STATEMENT), first(2), place="landing")),
    Case(_fault("landing page fails for ever", "says 500 for its landing page", status(500, STATEMENT), place="landing"),
         CatalogUnavailable),
    Case(_fault("landing page in HTML", "sends HTML for its landing page", fault_proxy.HTML, at(1), place="landing")),
    Case(_fault("landing page in HTML for ever", "sends HTML for its landing page", fault_proxy.HTML, place="landing"), CatalogUnreadable),
    Case(_fault("landing page is none", "sends other JSON for its landing page", status(200, '{"hello": "world"}'), place="landing"),
         CatalogUnreadable),
    Case(_fault("collection fails", "says 500 for the collection, and the month is empty", status(500, STATEMENT), first(2),
                place="collection"), on="empty"),
    Case(_fault("collection fails for ever", "says 500 for the collection, and the month is empty", status(500, STATEMENT),
                place="collection"), CatalogUnavailable, on="empty"),
    Case(_fault("collection unknown", "says 404 for the collection, and the month is empty", status(404, "{}"), place="collection"),
         CatalogUnavailable, on="empty"),
    Case(_fault("collection in HTML", "sends HTML for the collection, and the month is empty", fault_proxy.HTML, place="collection"),
         CatalogUnreadable, on="empty"),
    Case(_fault("collection is another", "sends another collection, and the month is empty",
                status(200, '{"type":"Collection","id":"other"}'), place="collection"), CatalogError, on="empty"),
    Case(_fault("collection fails, month is not empty", "says 500 for the collection", status(500, STATEMENT), place="collection")),
    # NASA's CMR
    Case(_fault("Oops", "says 500, Oops! Something has gone wrong", fault_proxy.CMR_OOPS, every(3)), on="cmr"),
    Case(_fault("Oops for ever", "says 500, Oops! Something has gone wrong", fault_proxy.CMR_OOPS), CatalogUnavailable, on="cmr"),
    Case(_fault("429", F_429 + ", with `Retry-After: 1`", status(429, '{"errors":["Too many requests"]}', Retry_After="1"), at(3)),
         on="cmr"),
    Case(_fault("504", F_504, TIMEOUT_504, wider_than(400)), on="cmr"),
    Case(_fault("maintenance", "sends an HTML page of maintenance with status 200", fault_proxy.HTML, at(2)), on="cmr"),
    Case(_fault("hanging up", "closes the connection without an answer", fault_proxy.HANG_UP, at(2)), on="cmr"),
    Case(_fault("reset", "resets the connection (TCP RST) in the middle of a page", fault_proxy.RESET, at(2)), on="cmr"),
    Case(_fault("short page", "gives fewer granules than asked for, and the others later", fault_proxy.AS_IT_IS, at(2)), on="cmr"),
    Case(_fault("lost granules", "leaves out 2 granules of a page that it counted", fault_proxy.CMR_LOST, at(2)), on="cmr"),
    Case(_fault("lost granules for ever", "leaves out 2 granules of each page that it counted", fault_proxy.CMR_LOST), CatalogTruncated,
         on="cmr"),
    Case(_fault("no CMR-Hits", "leaves the header `CMR-Hits` out", fault_proxy.CMR_NO_HITS_HEADER), on="cmr"),
    Case(_fault("no hits", "leaves `hits` out of a page", fault_proxy.CMR_NO_HITS, at(2)), on="cmr"),
    Case(_fault("no hits for ever", "leaves `hits` out of a page", fault_proxy.CMR_NO_HITS), CatalogUnreadable, on="cmr"),
    Case(_fault("no token", "leaves `CMR-Search-After` out of a page in the middle", fault_proxy.CMR_NO_TOKEN, at(2)), on="cmr"),
    Case(_fault("token repeated", "gives the first page's `CMR-Search-After` with each page", fault_proxy.CMR_SAME_TOKEN), CatalogTruncated,
         on="cmr"),
    Case(_fault("time-out", "gives a part of a page, with the header `CMR-Time-Out: true`", fault_proxy.CMR_TIMED_OUT, at(1)), on="cmr"),
    Case(_fault("time-out for ever", "gives a part of a page, with the header `CMR-Time-Out: true`", fault_proxy.CMR_TIMED_OUT),
         CatalogTruncated, on="cmr"),
    Case(_fault("hits too high", "announces 7 granules more than there are", fault_proxy.CMR_HITS_HIGH), CatalogTruncated, on="cmr"),
    Case(_fault("hits too high", "announces 7 granules more than there are", fault_proxy.CMR_HITS_HIGH, at(2)), on="cmr"),
    Case(_fault("hits too low", "announces 30 granules fewer than there are", fault_proxy.CMR_HITS_LOW), on="cmr", doubted=True),
    Case(_fault("collections fail", "says 500 for its collections, and the month is empty", status(500, STATEMENT), place="collection"),
         CatalogUnavailable, on="no granules"),
    Case(_fault("collections fail", "says 500 for its collections, and the month is empty", status(500, STATEMENT), first(2),
                place="collection"), on="no granules"),
]  # fmt: skip


# The real servers


def _granules() -> list[dict[str, Any]]:
    """EMIT's real outlines and times of a day; ids made in EMIT's way, as the file has none."""
    made = []
    for k, one in enumerate(read_items("emit__coverage-2022-08-10.js")):
        start, end = one["properties"]["start_time"], one["properties"]["end_time"]
        points = [{"Longitude": x, "Latitude": y} for x, y in one["geometry"]["coordinates"][0]]
        made.append(
            granule(
                k + 1,
                f"EMIT_L2A_RFL_001_{start[:19].replace('-', '').replace(':', '')}_2222203_{k:03d}",
                CollectionReference={"ShortName": "EMITL2ARFL", "Version": "001"},
                TemporalExtent={"RangeDateTime": {"BeginningDateTime": start, "EndingDateTime": end}},
                SpatialExtent=extent(GPolygons=[{"Boundary": {"Points": points}}]),
                CloudCover=k,
            )
        )
    return made


def _edge(real: Mapping[str, Any], month: Month, path: int, when: str) -> dict[str, Any]:
    """A real Landsat item, taken at another time on another path: in row 60, on the equator, where own time and pass time are one."""
    item = copy.deepcopy(dict(real))
    date = when[:10].replace("-", "")
    item["id"] = f"LC08_L2SP_{200 + path:03d}060_{date}_02_T1"
    item["properties"] = {**item["properties"], "datetime": when}
    del item["properties"]["landsat:scene_id"]
    return item


@cache
def landsat_year() -> list[dict[str, Any]]:
    """The recorded Landsat 8 scenes of 2020, and two at each end of each month."""
    recorded = [i for i in read_items("planetary-computer__landsat-8-c2-l2.ndjson.gz") if i["properties"]["datetime"].startswith("2020-")]
    edges = []
    for k, month in enumerate([*YEAR, Month(2021, 1)]):
        last = month.start - dt.timedelta(milliseconds=1)
        edges.append(_edge(recorded[2 * k], month, 2 * k + 1, f"{last:%Y-%m-%dT%H:%M:%S}.999Z"))
        edges.append(_edge(recorded[2 * k + 1], month, 2 * k + 2, f"{month.start:%Y-%m-%dT%H:%M:%S}Z"))
    return [{**item, "collection": "landsat"} for item in recorded + edges]


def _usgs(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same scenes under the ids of another provider, which have the processing date and the product."""
    return [{**i, "collection": "landsat-usgs", "id": f"{i['id'][:25]}_20210101{i['id'][25:]}_SR"} for i in items]


@dataclass
class Outcome:
    """How the scan of a case ended."""

    error: Exception | None
    scenes: int
    is_true: bool
    """Whether the scenes are those of a scan without faults."""
    untouched: bool
    """Whether what anybody sees beside the target is what was there before."""
    mended: bool
    """Whether a scan after the fault, from what is left of this one, gives the true scenes."""
    requests: int
    retried: dict[str, int] = field(default_factory=dict)
    address: str = ""
    seconds: float = 0.0
    doubted: bool = False
    """Whether the report has doubts that a scan without faults has not."""

    @property
    def words(self) -> str:
        """For the table."""
        if isinstance(self.error, CatalogError):
            return f"`{type(self.error).__name__}`; nothing is written"
        if self.error is not None:
            return f"`{type(self.error).__name__}`, which does not say what was scanned (known defect)"
        if self.is_true and self.doubted:
            return "all scenes, provisional"
        return "all scenes" if self.is_true else "**other scenes, and no error** (known defect)"


@dataclass(eq=False)
class Bench:
    """The real servers, and the scans made of them, each once a process."""

    stac: str
    cmr: str
    times: Mapping[str, Sequence[dt.datetime]]
    folder: Path
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def proxy(self, *faults: Fault, kind: Literal["stac", "cmr"] = "stac", totals: bool = False, fields: bool = False) -> FaultProxy:
        upstream = self.stac if kind == "stac" else self.cmr
        return FaultProxy(upstream, faults, self.times if totals else {}, fields)

    @cache  # noqa: B019 one bench a process
    def truth(self, on: Kind, totals: bool, fields: bool) -> tuple[list[dict[str, Any]], int, dict[str, bytes], list[str]]:
        """The true scenes, the requests that a scan without faults takes, the files that it writes, and its doubts: of an empty month."""
        data = DATA[on]
        with (
            TemporaryDirectory(dir=self.folder) as folder,
            fault_proxy.serve(self.proxy(kind=data.kind, totals=totals, fields=fields)) as p,
        ):
            store = Store.below(folder)
            report = scan_month(*asked_of(data, p), store, options=options(p, fields=fields))
            assert report.status == ("provisional" if report.doubts else "complete")
            assert [belief.kind_of(doubt) for doubt in report.doubts] == DOUBTS_OF_THE_DATA.get(on, [])
            assert report.retries == report.windows_cut == 0
            assert report.announced == (report.received if totals or data.kind == "cmr" else None)
            return rows(store, data), p.counts.total(), visible(store, data), report.doubts

    def play(
        self,
        faults: Sequence[Fault],
        on: Kind,
        *,
        totals: bool = False,
        fields: bool = False,
        throttles: tuple[int, ...] = (429,),
        timeout: float = 10.0,
        parallel: int = 1,
        former: bool = True,
    ) -> Outcome:
        """A scan with the faults, and one after them from what it left."""
        data = DATA[on]
        true_rows, _, files, doubts = self.truth(on, totals, fields)
        with (
            TemporaryDirectory(dir=self.folder) as folder,
            fault_proxy.serve(self.proxy(*faults, kind=data.kind, totals=totals, fields=fields)) as proxy,
        ):
            store = Store.below(folder)
            home = Path(str(store.scenes(data.sensor.key, data.month).parent))
            before = files if former else {}
            home.mkdir(parents=True)
            for name, content in before.items():
                (home / name).write_bytes(content)
            asked = asked_of(data, proxy)
            how = options(proxy, fields=fields, throttles=throttles, timeout=timeout, parallel=parallel)
            error: Exception | None = None
            retried: dict[str, int] = {}
            doubted = False
            began = time.monotonic()
            try:
                report = scan_month(*asked, store, options=how)
                assert report.status == ("provisional" if report.doubts else "complete")
                assert report.missing == []
                doubted = {*map(belief.kind_of, report.doubts)} > {*map(belief.kind_of, doubts)}
                retried = report.retried
            except Exception as caught:  # one that is not ours is a defect, which the cases tell
                error = caught
            seconds = time.monotonic() - began
            after = visible(store, data)
            found = rows(store, data) if after else []
            outcome = Outcome(
                error, len(found), found == true_rows, after == before, True, proxy.counts.total(), retried, proxy.host, seconds, doubted
            )
            if error is not None:
                pacing._PACES.pop(proxy.host, None)  # an hour's Retry-After is kept for the host
                proxy.faults = ()
                outcome.mended = scan_month(*asked, store, options=how).doubts == doubts and rows(store, data) == true_rows
            pacing._PACES.pop(proxy.host, None)
            return outcome

    def outcome(self, case: Case) -> Outcome:
        if case.name not in self.outcomes:
            self.outcomes[case.name] = self.play(
                [case.fault],
                case.on,
                totals=case.totals,
                fields=case.fields,
                throttles=case.throttles,
                timeout=case.timeout,
                former=not case.doubted,  # a scan with doubts does not replace a file without
            )
        return self.outcomes[case.name]


def asked_of(data: Data, proxy: FaultProxy) -> tuple[CoverageSensor, Month]:
    source = AvailableSource(data.kind, proxy.address, data.collection, page_size=data.page_size)
    return replace(data.sensor, available_sources=(source,)), data.month


def options(
    *proxies: FaultProxy, fields: bool = False, throttles: tuple[int, ...] = (429,), timeout: float = 10.0, parallel: int = 1
) -> ScanOptions:
    profile = replace(LOOPBACK, parallel=parallel, throttle_statuses=throttles, features=("fields",) if fields else ())
    patience = Patience(timeout_seconds=timeout, retries=2, backoff_seconds=0.01, deadline_seconds=60)
    return ScanOptions(patience, {p.host: profile for p in proxies}, window_pages=30, cross_check=False)


def rows(store: Store, data: Data) -> list[dict[str, Any]]:
    """What was found: scenes, and what was rejected with its reason."""
    path = store.scenes(data.sensor.key, data.month)
    rejected = pq.read_table(str(sibling(path, ".rejected.parquet")), columns=["item_id", "reason"]).to_pylist()
    return [*pq.read_table(str(path), columns=COMPARED).to_pylist(), *sorted(rejected, key=str)]


def visible(store: Store, data: Data) -> dict[str, bytes]:
    """The files that anybody sees: what a scan that did not end has so far is hidden."""
    home = Path(str(store.scenes(data.sensor.key, data.month).parent))
    return {path.name: path.read_bytes() for path in home.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    shared_data()
    july = read_items("planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet")
    july = [{**i, "collection": "sentinel-2-l2a"} for i in july if i["properties"]["datetime"].startswith("2024-07-")]
    some = [{**i, "collection": "some"} for i in july[::3]]
    items = [*july, *some, *landsat_year(), *_usgs(landsat_year())]
    times: dict[str, list[dt.datetime]] = {}
    for item in items:
        when = parse_time(item["properties"]["datetime"])
        assert when is not None
        times.setdefault(item["collection"], []).append(when)
    folder = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack:
        stac = stack.enter_context(stac_api(write_items(folder / "items", items)))
        cmr = stack.enter_context(cmr_server.serve(TimedCmr(_granules(), collections=(("EMITL2ARFL", "001"),))))
        yield Bench(stac, cmr.address, {name: sorted(found) for name, found in times.items()}, folder)


# Each fault alone


def _params(defect: Callable[[Case], str], cases: Sequence[Case] = CASES) -> list[Any]:
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.xfail(strict=True, reason=reason)] if (reason := defect(case)) else [])
        for case in cases
    ]


def test_every_case_has_its_own_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", _params(lambda case: case.wrong))
def test_a_fault_alone_ends_in_the_true_scenes_or_a_named_error(bench: Bench, case: Case) -> None:
    outcome = bench.outcome(case)
    if case.expect is None:
        assert outcome.error is None
        assert outcome.is_true, f"{outcome.scenes} scenes"
        assert not outcome.untouched
        assert outcome.doubted == case.doubted
        return
    assert isinstance(outcome.error, case.expect), outcome
    assert outcome.untouched
    assert outcome.mended
    data, message = DATA[case.on], str(outcome.error)
    assert f"{data.sensor.key} {data.month}" in message
    assert outcome.address in message
    assert "The former file stays" in message


@pytest.mark.parametrize("case", _params(lambda case: case.silent_on_way, [case for case in CASES if case.expect is not None]))
def test_an_error_says_what_to_do(bench: Bench, case: Case) -> None:
    message = str(bench.outcome(case).error)
    assert any(hint in message for hint in WAYS), message


def test_a_drip_is_cut_off(bench: Bench) -> None:
    """After five times the timeout, whatever it sends meanwhile."""
    drip = _fault("drip", "sends its answer byte by byte", fault_proxy.drip(2.5), at(3))
    outcome = bench.play([drip], "month", timeout=0.2)
    assert outcome.is_true
    assert outcome.seconds < 2.3


def test_a_failing_landing_page_is_not_asked_for_by_ever_narrower_windows(bench: Bench) -> None:
    """It is the same for all of them: three tries are all that the patience here has."""
    fails = _fault("landing", "", status(500, STATEMENT), place="landing")
    assert bench.play([fails], "month").requests == 3


# Several at once

TOGETHER: list[Any] = [
    pytest.param(
        [_fault("overlap", "", fault_proxy.OVERLAP, at(2)), _fault("next dropped", "", fault_proxy.DROP_NEXT, at(3))],
        id="a page with more than was asked for, then a full one without next",
    ),
    pytest.param(
        [_fault("overlap", "", fault_proxy.OVERLAP), _fault("next dropped", "", fault_proxy.DROP_NEXT, at(3))],
        id="pages with more than was asked for, one without next",
    ),
    pytest.param(
        [_fault("total", "", fault_proxy.TOO_LOW), _fault("next dropped", "", fault_proxy.DROP_NEXT, at(3))],
        id="a low total, and a full page without next",
    ),
    pytest.param(
        [_fault("total", "", fault_proxy.AS_THE_PAGE), _fault("next dropped", "", fault_proxy.DROP_NEXT, at(1))],
        id="a first page that says it is all",
    ),
    pytest.param(
        [_fault("hits", "", fault_proxy.CMR_HITS_LOW, fault_proxy.LATER_PAGES), _fault("lost", "", fault_proxy.CMR_LOST, at(2))],
        id="granules lost by CMR while its total falls",
    ),
]


@pytest.mark.parametrize("faults", TOGETHER)
def test_two_lies_at_once(bench: Bench, faults: list[Fault]) -> None:
    on: Kind = "cmr" if faults[0].name == "hits" else "month"
    outcome = bench.play(faults, on, totals=faults[0].name == "total")
    assert outcome.untouched if outcome.error is not None else outcome.is_true, f"{outcome.scenes} scenes"


UNNOTICED: list[tuple[str, Kind, bool, list[Fault]]] = [
    (
        "A server that announces no total, gives fewer items a page than it was asked for (and not a multiple of 50), and links to no next "
        "page: that is how every short answer looks.",
        "month", False, [_fault("cap", "", fault_proxy.DROP_NEXT, most=37)],
    ),
    (
        "A server that announces no total and leaves items out of a page in the middle, without giving others twice: many servers fill "
        "their pages unevenly.",
        "month", False, [_fault("short", "", fault_proxy.SHORT_PAGE, at(3))],
    ),
    (
        "A server that announces no total and sends the last page, or the only one, without its items whenever it is asked for: that is "
        "how the end looks.",
        "month", False, [_fault("end", "", fault_proxy.EMPTY_END)],
    ),
    (
        "A server that announces no total and keeps back the same items whatever the page size, such as the last five, with others twice "
        "in their place.",
        "month", False, [_fault("shift", "", fault_proxy.SHIFT)],
    ),
    (
        "A server that gives too few items and announces just as few: the length of its capped page as the total, with no next page.",
        "month", True, [_fault("cap", "", fault_proxy.DROP_NEXT, most=37), _fault("total", "", fault_proxy.AS_THE_PAGE)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "on", "totals", "faults"), UNNOTICED, ids=[row[0][:60] for row in UNNOTICED])
def test_what_no_client_can_notice_is_not_noticed(bench: Bench, words: str, on: Kind, totals: bool, faults: list[Fault]) -> None:
    """The page of the documentation that says so is true; should one of them be noticed one day, it goes from there."""
    outcome = bench.play(faults, on, totals=totals, former=False)
    assert outcome.error is None
    assert not outcome.is_true
    assert not outcome.doubted


ERRORS: dict[str, Act] = {
    "429": THROTTLED,
    "403": FORBIDDEN,
    "500": status(500, STATEMENT),
    "502": status(502, '{"message": "Internal server error"}'),
    "503": status(503, "busy", "text/plain", Retry_After="0"),
    "504": TIMEOUT_504,
    "413": LARGE_413,
    "400": status(400, '{"errors":["Request failed with status code 400"]}'),
    "hang": fault_proxy.hang(0.5),
    "reset": fault_proxy.RESET,
    "short body": fault_proxy.SHORT_BODY,
    "hanging up": fault_proxy.HANG_UP,
    "maintenance": fault_proxy.HTML,
    "half a JSON": fault_proxy.HALF_JSON,
    "empty body": fault_proxy.EMPTY,
    "error with 200": fault_proxy.ERROR_BODY,
}
STAC_LIES: dict[str, Act] = {
    "no features": fault_proxy.NO_FEATURES,
    "features null": fault_proxy.NULL_FEATURES,
    "next dropped": fault_proxy.DROP_NEXT,
    "next in a circle": fault_proxy.LOOP,
    "next elsewhere": fault_proxy.OTHER_HOST,
    "next to be merged": fault_proxy.MERGE,
    "repeated page": fault_proxy.REPEAT,
    "overlap": fault_proxy.OVERLAP,
    "shift": fault_proxy.SHIFT,
    "empty page": fault_proxy.EMPTY_PAGE,
    "short page": fault_proxy.SHORT_PAGE,
    "capped": fault_proxy.AS_IT_IS,
    "total too high": fault_proxy.TOO_HIGH,
    "total too low": fault_proxy.TOO_LOW,
    "total of the page": fault_proxy.AS_THE_PAGE,
    "total changes": fault_proxy.CHANGING,
    "total null": fault_proxy.NULL_TOTAL,
    "no geometry": fault_proxy.NO_GEOMETRY,
}
CMR_LIES: dict[str, Act] = {
    "lost granules": fault_proxy.CMR_LOST,
    "no CMR-Hits": fault_proxy.CMR_NO_HITS_HEADER,
    "no hits": fault_proxy.CMR_NO_HITS,
    "no token": fault_proxy.CMR_NO_TOKEN,
    "token repeated": fault_proxy.CMR_SAME_TOKEN,
    "time-out": fault_proxy.CMR_TIMED_OUT,
    "hits too high": fault_proxy.CMR_HITS_HIGH,
    "hits too low": fault_proxy.CMR_HITS_LOW,
}
NO_TOTAL = {"total too low", "total of the page", "total changes", "total null"}


def unnoticeable(faults: Sequence[Fault], totals: bool) -> bool:
    """Whether a mix may take scenes away and hide it: what the page of the documentation lists."""
    when = {fault.name: fault.when.words for fault in faults if fault.place == "search"}
    names = set(when)
    if not totals or names & NO_TOTAL:
        if "short page" in names or {"capped", "next dropped"} <= names:
            return True
        if not when.get("shift", "once").startswith("once"):  # the same may be lost when it is asked again with another page size
            return True
        if {"empty page", "next dropped"} <= names:  # where its link is gone, too, it is an end
            return True
    return "hits too low" in names and bool(names & {"lost granules", "no token"})


WHENS = st.one_of(
    st.integers(1, 8).map(at),
    st.integers(1, 4).map(first),
    st.integers(2, 5).map(every),
    st.sampled_from((24.0, 100.0, 400.0)).map(wider_than),
    st.sampled_from((8, 12, 20)).map(larger_than),
    st.sampled_from((fault_proxy.LATER_PAGES, fault_proxy.ALWAYS)),
)


@st.composite
def some_fault(draw: st.DrawFn, lies: Mapping[str, Act]) -> Fault:
    acts = {**ERRORS, **lies}
    name = draw(st.sampled_from(sorted(acts)))
    if name == "hang":  # as short as it is, it is the slowest of them
        return Fault(name, "", acts[name], draw(st.integers(1, 6).map(at)))
    if name == "no geometry":
        return Fault(name, "", acts[name], fault_proxy.WITH_FIELDS)
    most = draw(st.sampled_from((7, 10, 20))) if name == "capped" else None
    beside = name in ERRORS and name != "reset" and draw(st.integers(0, 5)) == 0
    return Fault(name, "", acts[name], draw(WHENS), "landing" if beside else "search", most)


EXAMPLES, CMR_EXAMPLES = 40, 15
MIXED = settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def _ends_well(bench: Bench, on: Kind, faults: list[Fault], **how: Any) -> None:
    names = {fault.name for fault in faults}
    outcome = bench.play(faults, on, timeout=0.3 if "hang" in names else 10.0, former=False, throttles=(403, 429), **how)
    if outcome.error is None:
        assert outcome.is_true or outcome.doubted, f"{outcome.scenes} scenes"
    else:
        assert isinstance(outcome.error, CatalogError)
        assert outcome.untouched
        assert outcome.mended
        assert any(hint in str(outcome.error) for hint in WAYS), str(outcome.error)


@MIXED
@given(
    faults=st.lists(some_fault(STAC_LIES), min_size=1, max_size=4, unique_by=lambda fault: fault.name),
    totals=st.booleans(),
    fields=st.booleans(),
    parallel=st.sampled_from((1, 3)),
)
def test_any_mix_of_faults_ends_well(bench: Bench, faults: list[Fault], totals: bool, fields: bool, parallel: int) -> None:
    assume(not unnoticeable(faults, totals))
    _ends_well(bench, "some", faults, totals=totals, fields=fields, parallel=parallel)


@settings(MIXED, max_examples=CMR_EXAMPLES)
@given(faults=st.lists(some_fault(CMR_LIES), min_size=1, max_size=3, unique_by=lambda fault: fault.name), parallel=st.sampled_from((1, 3)))
def test_any_mix_of_faults_of_cmr_ends_well(bench: Bench, faults: list[Fault], parallel: int) -> None:
    assume(not unnoticeable(faults, True))
    _ends_well(bench, "cmr", faults, parallel=parallel)


# A provider that dies in the middle of a year


def _dying(act: Act, page: int) -> list[Fault]:
    """Every page of it fails from a page of May on, for good."""
    may = YEAR[4].start - dt.timedelta(hours=1)
    when = fault_proxy.from_then_on(lambda a: a.start is not None and a.start >= may and a.page >= page, "from May on")
    return [Fault("dies", "", act, when), Fault("dies", "", act, when, "landing"), Fault("dies", "", act, when, "collection")]


def _true_year() -> dict[str, set[str]]:
    """Scene keys of 2020 by month, from the items themselves."""
    found: dict[str, set[str]] = {month.key: set() for month in YEAR}
    for item in landsat_year():
        when = parse_time(item["properties"]["datetime"])
        assert when is not None
        if when.year == 2020:
            key = scene_key("landsat", item["id"], item["properties"])
            assert key is not None
            found[Month.of(when).key].add(key)
    return found


DEATHS: list[tuple[str, Act, int]] = [
    ("hangs up", fault_proxy.HANG_UP, 2),
    ("breaks off", fault_proxy.RESET, 3),
    ("wants a login", FORBIDDEN, 1),
]


def _in_month(table: pa.Table) -> pa.Table:
    """Without the scenes of the hour around the months, which the file keeps for the matchup."""
    return table.filter(table["in_month"])


@pytest.mark.parametrize(("act", "page"), [row[1:] for row in DEATHS], ids=[row[0] for row in DEATHS])
def test_a_year_whose_first_provider_dies_in_may_has_every_scene_once(bench: Bench, tmp_path: Path, act: Act, page: int) -> None:
    true = _true_year()
    edges = {f"landsat-8_{200 + k:03d}060" for k in range(1, 27)}
    with fault_proxy.serve(bench.proxy(*_dying(act, page))) as dying, fault_proxy.serve(bench.proxy()) as sound:
        sources = tuple(AvailableSource("stac", p.address, name, page_size=4) for p, name in ((dying, "landsat"), (sound, "landsat-usgs")))
        sensor = replace(LANDSAT, available_sources=sources)
        store = Store.below(tmp_path)
        found: list[str] = []
        for k, month in enumerate(YEAR):
            report = scan_month(sensor, month, store, options=options(dying, sound))
            assert report.status in ("complete", "provisional")  # some months of the recorded year are thin
            assert report.provider == (dying if k < 4 else sound).host
            assert list(report.failed_providers) == ([] if k < 4 else [f"stac {dying.host} landsat"])
            table = _in_month(pq.read_table(str(store.scenes(LANDSAT.key, month))))
            assert set(table["provider"].to_pylist()) == {report.provider}  # nothing is left of the pages that came before it died
            assert set(table["scene_key"].to_pylist()) == true[month.key]
            found += table["scene_key"].to_pylist()
    assert len(found) == len(set(found)) == sum(map(len, true.values()))
    # Of the 26 scenes at the months' ends the first lies in 2019, and the last in 2021.
    assert len([key for key in found if key.rsplit("_", 1)[0] in edges]) == 24


def test_a_year_in_one_file_is_all_of_the_second_provider_where_the_first_dies(bench: Bench, tmp_path: Path) -> None:
    with fault_proxy.serve(bench.proxy(*_dying(fault_proxy.HANG_UP, 2))) as dying, fault_proxy.serve(bench.proxy()) as sound:
        sources = tuple(AvailableSource("stac", p.address, name, page_size=4) for p, name in ((dying, "landsat"), (sound, "landsat-usgs")))
        sensor = replace(LANDSAT, available_sources=sources)
        path = build_availability_catalog(sensor, "2020-01-01", "2020-12-31", dest=tmp_path / "2020.parquet", options=options(dying, sound))
        assert path is not None
        table = _in_month(pq.read_table(str(path)))
        assert sorted(table["scene_key"].to_pylist()) == sorted(key for keys in _true_year().values() for key in keys)
        assert set(table["provider"].to_pylist()) == {sound.host}


# The documentation

HEAD = """# What a scan does when a catalogue misbehaves

Public catalogues fail in many ways: they are busy, they break off, they announce a wrong total or forget a page. Whatever happens,
a scan of a month ends in one of two ways: the file has **exactly the scenes that the catalogue has**, or there is an error that names
the sensor, the month and the provider, and **the former file stays as it was**. A month with too few scenes would look like a gap in
supply: an answer that was not read in full is never written, and one that was but leaves a doubt is *provisional*, with the doubt named
in the report, so that no scene does not mean none. Where that is not so yet, the line says *known defect*.

Each line below is a fault that a proxy played before a real server with real scenes ({scenes} Sentinel-2 scenes of July 2024 in pages of
{page_size}; for CMR {granules} EMIT scenes in pages of {granule_page}), with 2 retries a request. Where a request fails again and again,
the scanner asks for half the time in half the page, and so on; where an answer was cut off, for half the time; where paging looks odd and
no total confirms it, all over in pages of another size.

This page is made by the tests, from what they saw:

    COVERAGE_WRITE_DOCS=1 .venv/bin/python -m pytest tests/catalog/test_faults.py -k docs"""
MIXES = """
## Several at once, and a provider that dies

Random mixes of these faults, {examples} of them, end in the same two ways; mixes with a known defect, or with what no client can notice,
are left out. A year whose first provider dies in the middle of May is read on from the second, each month from one of them alone: every
scene is there once, also those of 23:59:59.999 and 00:00:00 at the months' ends. After every error above a second scan, without
the fault, went on from what the first had finished and found all scenes.

## What no client can notice

Some lies fit together so well that only asking for everything twice, in another way, would show them:

{unnoticed}

The doubts (silent days, a month that is empty or much smaller than those around it) and the other providers that are asked about them
(`scan.cross_check`) catch these lies where enough is missing. A provider with totals is the better first source.
"""


def _row(bench: Bench, case: Case) -> str:
    outcome = bench.outcome(case)
    known = "; its profile says that 403 means too many" if 403 in case.throttles else ""
    totals = "–" if case.on in ("empty", "no granules") else "yes" if case.totals or case.on == "cmr" else "no"
    return f"| {case.fault.does}{known} | {case.fault.when} | {totals} | {outcome.words} |"


def rendered(bench: Bench) -> str:
    def scenes(on: Kind) -> int:
        return len(bench.truth(on, False, False)[0])

    lines = [
        HEAD.format(
            scenes=scenes("month"),
            page_size=DATA["month"].page_size,
            granules=scenes("cmr"),
            granule_page=DATA["cmr"].page_size,
        )
    ]
    for title, kind in (("STAC APIs", "stac"), ("NASA's CMR", "cmr")):
        lines += [f"\n## {title}\n", "| The server … | when | total announced | the scan ends with |", "|---|---|---|---|"]
        lines += [_row(bench, case) for case in CASES if DATA[case.on].kind == kind]
    lines.append(MIXES.format(examples=EXAMPLES + CMR_EXAMPLES, unnoticed="\n".join(f"- {row[0]}" for row in UNNOTICED)).rstrip("\n"))
    return "\n".join(lines) + "\n"


MOST_REQUESTS = 24
"""Times the requests of a scan without faults that a single fault may cost; windows are cut into halves, and pages too."""


def _table_rows(page: str) -> list[tuple[str, ...]]:
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in page.splitlines() if line.startswith("| ")]


def test_the_docs_say_what_the_scans_did(bench: Bench) -> None:
    """Every fault has its line, with the outcome that was seen; the words around the tables are free."""
    text = rendered(bench)
    page, mark, holdings = DOCS.read_text().partition("\n" + MARK)  # the part about holdings has a test of its own
    if WRITE_DOCS:
        DOCS.write_text(text + mark + holdings)
        page = text
    seen = _table_rows(text)
    assert len(seen) == len(CASES) + 2
    assert _table_rows(page) == seen, "docs/faults.md is not what the scans did; its first part says how it is made"
    most = max(bench.outcome(case).requests / bench.truth(case.on, case.totals, case.fields)[1] for case in CASES)
    assert most <= MOST_REQUESTS, "a fault makes the scan ask far more often than before"
    for scenes in (len(bench.truth("month", False, False)[0]), len(bench.truth("cmr", False, False)[0])):
        assert f"{scenes} " in page.partition("## STAC APIs")[0]
