"""A proxy before a real catalogue that plays faults by a schedule: what providers were seen to do, and what they might.

It forwards every request to its upstream (``rustac serve``, or the tests' CMR) and gives the upstream's answer with its own address
in it, so that paging leads back here. A ``Fault`` says which requests it hits (``When``) and what becomes of their answers (``Act``).
The words of the errors are the providers' own (``api/REAL_ERRORS.md`` of the recorded data).
"""

from __future__ import annotations

import datetime as dt
import json
import socket
import struct
import threading
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import format_datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import orjson
import urllib3

from tests.catalog.cmr_server import COLLECTIONS, GRANULES, Cmr
from tests.catalog.http_server import Answer, AnswerHandler, on_loopback

Place = Literal["search", "landing", "collection"]
Page = dict[str, Any]
Play = Callable[[AnswerHandler], None]
"""Sends something that is no ordinary answer, or nothing."""
Act = Callable[["FaultProxy", "Asked", Answer], Answer | Play]
"""Given the true answer (with what faults before it made of it): another one, or how to break off."""

UTC = dt.UTC
FIELDS = "https://api.stacspec.org/v1.0.0/item-search#fields"
_HOP = ("content-length", "transfer-encoding", "connection", "date", "server")


@dataclass(frozen=True)
class Asked:
    """One request as the faults see it."""

    place: Place
    number: int
    """1, 2, … among the requests for that place."""
    page: int = 1
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    limit: int = 0
    fields: bool = False
    """Whether the search asks for a part of the items' members."""

    @property
    def hours(self) -> float:
        """Width of the window searched."""
        return (self.end - self.start) / dt.timedelta(hours=1) if self.start and self.end else 0.0

    @property
    def search(self) -> tuple[Any, ...]:
        """What pages of one search have in common."""
        return self.start, self.end, self.limit


@dataclass(frozen=True)
class When:
    """Which requests a fault hits."""

    words: str
    hits: Callable[[Asked], bool]

    def __repr__(self) -> str:
        return self.words


ALWAYS = When("always", lambda asked: True)
LATER_PAGES = When("on every page after the first", lambda asked: asked.page > 1)
WITH_FIELDS = When("whenever a part of the members is asked for", lambda asked: asked.fields)


def at(n: int) -> When:
    """Once."""
    return When(f"once, at request {n}", lambda asked: asked.number == n)


def first(k: int) -> When:
    """From the start."""
    return When("once, at the first request" if k == 1 else f"the first {k} times", lambda asked: asked.number <= k)


def every(m: int) -> When:
    """Again and again."""
    return When(f"every {m}{'nd' if m == 2 else 'rd' if m == 3 else 'th'} time", lambda asked: asked.number % m == 0)


def wider_than(hours: float) -> When:
    """A search that is too much."""
    return When(f"for windows wider than {hours:g} h", lambda asked: asked.hours > hours)


def larger_than(limit: int) -> When:
    """A page that is too much."""
    return When(f"for pages of more than {limit}", lambda asked: asked.limit > limit)


def from_then_on(trigger: Callable[[Asked], bool], words: str) -> When:
    """Always, once a request was met; to be made anew for each proxy, as it remembers."""
    met = threading.Event()

    def hits(asked: Asked) -> bool:
        if trigger(asked):
            met.set()
        return met.is_set()

    return When(words, hits)


@dataclass(frozen=True)
class Fault:
    """What a server does, and when."""

    name: str
    does: str
    """In plain words."""
    act: Act
    when: When = ALWAYS
    place: Place = "search"
    most: int | None = None
    """A page holds no more items than this, whatever is asked: the upstream is asked for so many."""

    def __repr__(self) -> str:
        return f"{self.name} ({self.place}, {self.when})"


@dataclass
class FaultProxy:
    """One provider that misbehaves."""

    upstream: str
    faults: Sequence[Fault] = ()
    times: Mapping[str, Sequence[dt.datetime]] = field(default_factory=dict)
    """Sorted times of the upstream's items by collection, to announce totals (``rustac serve`` gives none); empty: none announced."""
    fields: bool = False
    """Whether the landing page claims the ``fields`` extension."""
    address: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    """Requests received, by place."""
    sent: dict[tuple[Any, ...], list[Any]] = field(default_factory=dict)
    """The true items of the last page of each search."""
    first_token: str = ""
    """CMR's token of the last first page."""
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._pool = urllib3.PoolManager(maxsize=8, retries=False)
        self._lock = threading.Lock()
        self._pages: dict[str, int] = {}

    @property
    def host(self) -> str:
        """As errors and reports name it."""
        return urlsplit(self.address).netloc

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | Play:
        """The upstream's answer, and what the faults make of it."""
        url = urlsplit(path)
        place: Place | None = (
            "landing"
            if not url.path.strip("/")
            else "search"
            if url.path in ("/search", GRANULES)
            else "collection"
            if url.path.startswith("/collections/") or url.path == COLLECTIONS
            else None
        )
        if place is None:
            return self._forward(method, path, headers, body)
        with self._lock:
            self.counts[place] += 1
            asked = Asked(place, self.counts[place])
        content = json.loads(body) if body and place == "search" else None
        if place == "search":
            asked = self._described(asked, content, parse_qs(url.query), headers)
        hit = [fault for fault in self.faults if fault.place == place and fault.when.hits(asked)]
        if content is not None:
            content.pop("fields", None)
            limits = [content["limit"], *(fault.most for fault in hit if fault.most)]
            body = json.dumps({**content, "limit": min(limits)}).encode()
        answer = self._forward(method, path, headers, body)
        if answer[0] == 200 and place == "landing" and self.fields:
            answer = changed(answer, lambda page: page["conformsTo"].append(FIELDS))
        if answer[0] == 200 and content is not None:
            answer = self._with_total(answer, content, asked)
        kept = json.loads(answer[2])[_items_of(answer)] if place == "search" and answer[0] == 200 else []
        for fault in hit:
            played = fault.act(self, asked, answer)
            if callable(played):
                return played
            answer = played
        self.sent[asked.search] = kept
        if token := answer[1].get("CMR-Search-After"):
            self._pages[token] = asked.page + 1
        return answer

    def _described(self, asked: Asked, content: Any, params: Mapping[str, list[str]], headers: Mapping[str, str]) -> Asked:
        if content is None:
            span, limit = params["temporal[]"][0].split(",") if "temporal[]" in params else None, int(params["page_size"][0])
            page = self._pages.get(headers.get("CMR-Search-After", ""), 1)
        else:
            span, limit = content["datetime"].split("/"), int(content["limit"])
            page = content.get("skip", 0) // limit + 1
        start, end = (dt.datetime.fromisoformat(t) for t in span) if span else (None, None)
        return replace(asked, page=page, start=start, end=end, limit=limit, fields=content is not None and "fields" in content)

    def _with_total(self, answer: Answer, content: Mapping[str, Any], asked: Asked) -> Answer:
        times = self.times.get(content["collections"][0])
        if times is None:
            return answer
        total = bisect_right(times, asked.end) - bisect_left(times, asked.start)  # type: ignore[type-var]
        return changed(answer, lambda page: page.update(numberMatched=total))

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        passed = {name: headers[name] for name in ("Content-Type", "CMR-Search-After") if name in headers}
        answer = self._pool.request(method, self.upstream + path, headers=passed, body=body or None)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        return answer.status, kept, answer.data.replace(self.upstream.encode(), self.address.encode())


@contextmanager
def serve(proxy: FaultProxy) -> Iterator[FaultProxy]:
    """Serve it on loopback until the end of the block; whoever hangs is let go then."""

    class Handler(AnswerHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = proxy.answer(self.command, self.path, self.headers, body)  # type: ignore[arg-type]
            if callable(answer):
                with suppress(OSError):
                    answer(self)
            else:
                self.send(answer)

        do_GET = do_POST = _do

    with on_loopback(Handler) as address:
        proxy.address = address
        try:
            yield proxy
        finally:
            proxy.closing.set()
            proxy._pool.clear()


class TimedCmr(Cmr):
    """The tests' CMR, giving only what lies in the window asked for: windows are halved here."""

    def search(self, params: Mapping[str, list[str]], after: str | None) -> Answer:
        start, end = (dt.datetime.fromisoformat(t) for t in params["temporal[]"][0].split(","))
        there = [granule for granule in self.granules if start <= _begins(granule) <= end]
        return Cmr.search(replace(self, granules=there), params, after)


def _begins(granule: Mapping[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(granule["umm"]["TemporalExtent"]["RangeDateTime"]["BeginningDateTime"])


def _items_of(answer: Answer) -> str:
    return "items" if "CMR-Hits" in answer[1] else "features"


def changed(answer: Answer, change: Callable[[Page], Any]) -> Answer:
    """The answer with its JSON changed in place; an answer that is none any more stays as it is."""
    if answer[0] != 200:
        return answer
    try:
        page = orjson.loads(answer[2])
    except orjson.JSONDecodeError:
        return answer
    change(page)
    return answer[0], answer[1], orjson.dumps(page)


def page_act(change: Callable[[FaultProxy, Asked, Page], Any]) -> Act:
    """An act that changes a page of STAC items, where there is still one."""

    def act(proxy: FaultProxy, asked: Asked, answer: Answer) -> Answer:
        def on(page: Page) -> None:
            if isinstance(page.get("features"), list):
                change(proxy, asked, page)

        return changed(answer, on)

    return act


# Answers that are none


def status(code: int, body: bytes | str, kind: str = "application/json", **headers: str) -> Act:
    """An error."""
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda proxy, asked, answer: (code, {"Content-Type": kind, **named}, content)


def until(seconds: int) -> Act:
    """429 with ``Retry-After`` as a date."""

    def act(proxy: FaultProxy, asked: Asked, answer: Answer) -> Answer:
        when = format_datetime(dt.datetime.now(UTC) + dt.timedelta(seconds=seconds), usegmt=True)
        return 429, {"Content-Type": "application/json", "Retry-After": when}, b'{"message":"Too Many Requests"}'

    return act


def hang(seconds: float) -> Act:
    """No answer, until the client has gone."""

    def act(proxy: FaultProxy, asked: Asked, answer: Answer) -> Play:
        def play(handler: AnswerHandler) -> None:
            proxy.closing.wait(seconds)
            handler.send(None)

        return play

    return act


def _head(handler: AnswerHandler, answer: Answer) -> None:
    handler.send_response(answer[0])
    for name, value in answer[1].items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(answer[2])))
    handler.end_headers()


def drip(seconds: float) -> Act:
    """The answer byte by byte for so long, and then the rest of it."""

    def act(proxy: FaultProxy, asked: Asked, answer: Answer) -> Play:
        def play(handler: AnswerHandler) -> None:
            _head(handler, answer)
            ends, sent = time.monotonic() + seconds, 0
            while time.monotonic() < ends and sent < len(answer[2]) and not proxy.closing.wait(0.02):
                handler.wfile.write(answer[2][sent : sent + 1])
                sent += 1
            handler.wfile.write(answer[2][sent:])

        return play

    return act


def _reset(proxy: FaultProxy, asked: Asked, answer: Answer) -> Play:
    def play(handler: AnswerHandler) -> None:
        _head(handler, answer)
        handler.wfile.write(answer[2][: len(answer[2]) // 2])
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        socket.close(handler.connection.detach())  # at once, past the FIN that an orderly end would send

    return play


def _hang_up(proxy: FaultProxy, asked: Asked, answer: Answer) -> Play:
    return lambda handler: handler.send(None)


def _chunk(proxy: FaultProxy, asked: Asked, answer: Answer) -> Play:
    def play(handler: AnswerHandler) -> None:
        handler.send_response(answer[0])
        for name, value in {**answer[1], "Transfer-Encoding": "chunked"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        half = answer[2][: len(answer[2]) // 2]
        handler.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n")
        handler.send(None)

    return play


HANG_UP: Act = _hang_up
LAST_CHUNK_LOST: Act = _chunk
BAD_GZIP: Act = lambda proxy, asked, answer: (answer[0], {**answer[1], "Content-Encoding": "gzip"}, answer[2])  # noqa: E731
RESET: Act = _reset
SHORT_BODY: Act = lambda proxy, asked, answer: (  # noqa: E731 as the others of its kind
    answer[0], {**answer[1], "Content-Length": str(len(answer[2]) + 100)}, answer[2]
)  # fmt: skip
TWO_LENGTHS: Act = lambda proxy, asked, answer: (  # noqa: E731
    answer[0], {**answer[1], "Content-Length": f"{len(answer[2])}, {len(answer[2]) + 100}"}, answer[2]
)  # fmt: skip
HALF_JSON: Act = lambda proxy, asked, answer: (answer[0], answer[1], answer[2][: len(answer[2]) // 2])  # noqa: E731
EMPTY: Act = lambda proxy, asked, answer: (answer[0], answer[1], b"")  # noqa: E731
HTML = status(200, "<!DOCTYPE html><html><head><title>Maintenance</title></head><body>Back soon.</body></html>", "text/html")

# Pages that lie


def _next(page: Page) -> dict[str, Any] | None:
    return next((link for link in page["links"] if link["rel"] == "next"), None)


def _drop_next(proxy: FaultProxy, asked: Asked, page: Page) -> None:
    page["links"] = [link for link in page["links"] if link["rel"] != "next"]


def _loop(proxy: FaultProxy, asked: Asked, page: Page) -> None:
    """The next link leads to this page."""
    if link := _next(page):
        link["body"] = {**link["body"], "skip": link["body"]["skip"] - link["body"]["limit"]}


def _other_host(proxy: FaultProxy, asked: Asked, page: Page) -> None:
    if link := _next(page):
        link["href"] = "http://127.0.0.2:9/search"


def _merge(proxy: FaultProxy, asked: Asked, page: Page) -> None:
    if link := _next(page):
        link["body"], link["merge"] = {"skip": link["body"]["skip"]}, True


def _repeat(proxy: FaultProxy, asked: Asked, page: Page) -> None:
    if asked.page > 1:
        page["features"] = proxy.sent.get(asked.search, page["features"])


def _overlap(proxy: FaultProxy, asked: Asked, page: Page) -> None:
    if asked.page > 1:
        page["features"] = proxy.sent.get(asked.search, [])[-5:] + page["features"]


def _shift(proxy: FaultProxy, asked: Asked, page: Page) -> None:
    """As if items were put in before this page between two requests, for this page alone: some come again, as many are lost."""
    before = proxy.sent.get(asked.search, [])[-5:] if asked.page > 1 else []
    page["features"] = before + page["features"][: len(page["features"]) - len(before)]


def _without_geometry(_: FaultProxy, asked: Asked, page: Page) -> None:
    for feature in page["features"]:
        feature["geometry"] = None


def _bare(_: FaultProxy, asked: Asked, page: Page) -> None:
    for feature in page["features"]:
        feature["properties"] = {"datetime": feature["properties"]["datetime"]}


def _foreign(_: FaultProxy, asked: Asked, page: Page) -> None:
    """An item of another collection at the end, as of a server that does not know ours and searches all that it has."""
    for feature in page["features"][-1:]:
        tile = feature["properties"]["s2:mgrs_tile"]
        stray = json.loads(json.dumps({**feature, "collection": "other"}).replace(tile, f"60{tile[2:]}"))
        page["features"] = [*page["features"], stray]


def total(change: Callable[[Asked, Page], Any]) -> Act:
    """Another ``numberMatched``."""
    return page_act(lambda proxy, asked, page: page.update(numberMatched=change(asked, page)))


DROP_NEXT = page_act(_drop_next)
LOOP = page_act(_loop)
OTHER_HOST = page_act(_other_host)
MERGE = page_act(_merge)
REPEAT = page_act(_repeat)
OVERLAP = page_act(_overlap)
SHIFT = page_act(_shift)
EMPTY_PAGE = page_act(lambda proxy, asked, page: page.update(features=[]) if _next(page) else None)
EMPTY_END = page_act(lambda proxy, asked, page: None if _next(page) else page.update(features=[]))
SHORT_PAGE = page_act(lambda proxy, asked, page: page.update(features=page["features"][:-7]))
NO_GEOMETRY = page_act(_without_geometry)
NO_PROPERTIES = page_act(_bare)
FOREIGN = page_act(_foreign)
NO_FEATURES = page_act(lambda proxy, asked, page: page.pop("features"))
NULL_FEATURES = page_act(lambda proxy, asked, page: page.update(features=None))
ERROR_BODY = status(200, '{"message": "Internal server error"}')
AS_IT_IS: Act = lambda proxy, asked, answer: answer  # noqa: E731
TOO_HIGH = total(lambda asked, page: page.get("numberMatched", 100) + 1)
TOO_LOW = total(lambda asked, page: max(0, page.get("numberMatched", 100) - 30))
AS_THE_PAGE = total(lambda asked, page: len(page["features"]))
CHANGING = total(lambda asked, page: page.get("numberMatched", 100) + (asked.number % 3 - 1) * 10)
NULL_TOTAL = total(lambda asked, page: None)

# What CMR does


def cmr_page(change: Callable[[Page, dict[str, str]], object]) -> Act:
    """Another page of granules, or another header with it."""

    def act(proxy: FaultProxy, asked: Asked, answer: Answer) -> Answer:
        headers = dict(answer[1])

        def on(page: Page) -> None:
            if isinstance(page, dict) and isinstance(page.get("items"), list):
                change(page, headers)

        made = changed(answer, on)
        return made[0], headers, made[2]

    return act


def _same_token(proxy: FaultProxy, asked: Asked, answer: Answer) -> Answer:
    """The token of the first page, for ever."""
    if asked.page == 1:
        proxy.first_token = answer[1].get("CMR-Search-After", "")
    return (answer[0], {**answer[1], "CMR-Search-After": proxy.first_token}, answer[2]) if proxy.first_token else answer


def _hits(by: int) -> Callable[[Page, dict[str, str]], None]:
    def change(page: Page, headers: dict[str, str]) -> None:
        page["hits"] = max(0, page.get("hits", 0) + by)
        headers["CMR-Hits"] = str(page["hits"])

    return change


CMR_LOST = cmr_page(lambda page, headers: page.update(items=page["items"][:-2]))
CMR_NO_HITS_HEADER = cmr_page(lambda page, headers: headers.pop("CMR-Hits", None))
CMR_NO_HITS = cmr_page(lambda page, headers: page.pop("hits", None))
CMR_NO_TOKEN = cmr_page(lambda page, headers: headers.pop("CMR-Search-After", None))
CMR_TIMED_OUT = cmr_page(lambda page, headers: headers.update({"CMR-Time-Out": "true"}) or page.update(items=page["items"][:1]))
CMR_SAME_TOKEN: Act = _same_token
CMR_HITS_HIGH, CMR_HITS_LOW = cmr_page(_hits(7)), cmr_page(_hits(-30))
CMR_OOPS = status(
    500,
    '{"errors":["Oops! Something has gone wrong. We have been alerted and are working to resolve the problem. '
    'Please try your request again later."]}',
)
