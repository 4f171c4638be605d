"""A CMR over real HTTP that pages its granules by ``CMR-Search-After`` as the real one does, and fails as told.

Recorded tokens are ``["pocloud",1495497600000,2658328520]``: provider, start in milliseconds and the concept's number of the
page's last granule. They are made here in the same way, so that a page cut anywhere has the token that CMR would give it.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.catalog.http_server import Answer, AnswerHandler, on_loopback

Fault = Callable[["Cmr", int, Answer], Answer | None]
"""Given the server, the number of the granule search (1, 2, …) and the true answer: another one; None hangs up."""

JSON = "application/vnd.nasa.cmr.umm_results+json;version=1.6.6; charset=utf-8"
GRANULES = "/search/granules.umm_json"
COLLECTIONS = "/search/collections.umm_json"


def place(granule: Mapping[str, Any]) -> list[Any]:
    """Where CMR sorts a granule, and the token of a page that ends with it."""
    meta = granule["meta"]
    extent = granule["umm"].get("TemporalExtent")
    span = extent.get("RangeDateTime", {}) if isinstance(extent, dict) else {}
    start = dt.datetime.fromisoformat(span.get("BeginningDateTime", "1970-01-01T00:00:00Z"))
    return [meta["provider-id"].lower(), round(start.timestamp() * 1000), int(re.sub(r"\D.*", "", meta["concept-id"][1:]))]


@dataclass
class Cmr:
    """What the server holds and how it behaves."""

    granules: Sequence[Any]
    fault: Fault | None = None
    collections: tuple[tuple[str, str], ...] = (("SCENES", "001"),)
    """Short names and versions it has."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Granules on the n-th page, where that is not what was asked for."""
    lost: frozenset[str] = frozenset()
    """Concepts that the index has and the database does not give: they count as hits, and are missing from their page."""
    address: str = ""
    searches: list[dict[str, list[str]]] = field(default_factory=list)
    """Parameters of the granule searches received."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Headers of every request received, names in lower case."""
    paths: list[str] = field(default_factory=list)
    """Paths of every request received."""

    def has(self, params: Mapping[str, list[str]]) -> bool:
        asked = params.get("short_name", [""])[0]
        version = params.get("version", [None])[0]
        return any(asked.lower() == name.lower() and version in (None, v) for name, v in self.collections)

    def search(self, params: Mapping[str, list[str]], after: str | None) -> Answer:
        size = int(params.get("page_size", ["10"])[0])
        if not 0 <= size <= 2000:
            return 400, {"Content-Type": JSON}, b'{"errors":["page_size must be a number between 0 and 2000"]}'
        there = sorted(self.granules, key=place) if self.has(params) else []
        ahead = [granule for granule in there if after is None or place(granule) > json.loads(after)]
        page = ahead[: self.sizes.get(len(self.searches), size)]
        headers = {"Content-Type": JSON, "CMR-Hits": str(len(there)), "CMR-Took": "87"}
        if page:  # also on the last page: only an empty one has no token
            headers["CMR-Search-After"] = json.dumps(place(page[-1]), separators=(",", ":"))
        items = [granule for granule in page if granule["meta"]["concept-id"] not in self.lost]
        return 200, headers, json.dumps({"hits": len(there), "took": 87, "items": items}).encode()


@contextmanager
def serve(cmr: Cmr) -> Iterator[Cmr]:
    """Serve it on loopback until the end of the block."""

    class Handler(AnswerHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            params = parse_qs(url.query)
            cmr.paths.append(url.path)
            cmr.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer: Answer | None = (404, {"Content-Type": "application/json"}, b'{"errors":["The resource does not exist."]}')
            if url.path == COLLECTIONS:
                hits = int(cmr.has(params))
                answer = 200, {"Content-Type": JSON, "CMR-Hits": str(hits)}, json.dumps({"hits": hits, "took": 1, "items": []}).encode()
            elif url.path == GRANULES:
                cmr.searches.append(params)
                truth = cmr.search(params, self.headers.get("CMR-Search-After"))
                answer = truth if cmr.fault is None else cmr.fault(cmr, len(cmr.searches), truth)
            self.send(answer)

    with on_loopback(Handler) as address:
        cmr.address = address
        yield cmr


def changed(answer: Answer, *, hits: int | None = None, after: str | None = "", items: Sequence[Any] | None = None) -> Answer:
    """The answer with another total (in header and body), another token (None: none), or other granules."""
    status, headers, content = answer
    page, new = json.loads(content), dict(headers)
    if hits is not None:
        page["hits"], new["CMR-Hits"] = hits, str(hits)
    if items is not None:
        page["items"] = list(items)
    if after is None:
        new.pop("CMR-Search-After", None)
    elif after:
        new["CMR-Search-After"] = after
    return status, new, json.dumps(page).encode()
