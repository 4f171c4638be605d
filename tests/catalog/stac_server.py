"""A STAC API over real HTTP that pages its items as told, and fails as real ones were seen to fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from coverage_pipeline.scenes.scene_key import parse_time
from tests.catalog.http_server import Answer, AnswerHandler, on_loopback

Fault = Callable[["Catalog", int, Answer], Answer | None]
"""Given the catalogue, the number of the search request (1, 2, …) and the true answer: another one; None hangs up."""


@dataclass
class Catalog:
    """What the server holds and how it behaves."""

    items: Sequence[Any]
    fault: Fault | None = None
    matched: bool = True
    """Whether it announces its total."""
    collections: tuple[str, ...] = ("scenes",)
    address: str = ""
    searches: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the search requests received."""

    def landing(self) -> dict[str, Any]:
        core = "https://api.stacspec.org/v1.0.0"
        return {
            "type": "Catalog",
            "id": "faulty",
            "stac_version": "1.0.0",
            "description": "a catalogue under test",
            "conformsTo": [f"{core}/core", f"{core}/item-search", f"{core}/collections"],
            "links": [
                {"rel": "self", "href": self.address},
                {"rel": "root", "href": self.address},
                {"rel": "data", "href": f"{self.address}/collections"},
                {"rel": "search", "href": f"{self.address}/search", "method": "POST", "type": "application/geo+json"},
            ],
        }

    def page(self, body: Mapping[str, Any]) -> dict[str, Any]:
        limit, offset = int(body.get("limit", 10)), int(body.get("offset", 0))
        there = [item for item in self.items if body.get("collections", [None])[0] in self.collections and _within(item, body)]
        some = there[offset : offset + limit]
        links = []
        if offset + limit < len(there):
            following = {**body, "offset": offset + limit}
            links = [{"rel": "next", "href": f"{self.address}/search", "method": "POST", "body": following}]
        page: dict[str, Any] = {"type": "FeatureCollection", "features": some, "links": links}
        if self.matched:
            page["numberMatched"] = len(there)
        return page


def _within(item: Any, body: Mapping[str, Any]) -> bool:
    """Whether the item's time lies in the interval asked for; servers give items without a time for every one."""
    properties = item.get("properties") if isinstance(item, dict) else None
    when = parse_time(properties.get("datetime")) if isinstance(properties, dict) else None
    if when is None or "datetime" not in body:
        return True
    start, end = (parse_time(t) for t in body["datetime"].split("/"))
    assert start is not None
    assert end is not None
    return start <= when <= end


@contextmanager
def serve(catalog: Catalog) -> Iterator[Catalog]:
    """Serve the catalogue on loopback until the end of the block."""

    class Handler(AnswerHandler):
        def _json(self, content: Any, status: int = 200) -> Answer:
            return status, {"Content-Type": "application/json"}, json.dumps(content).encode()

        def do_GET(self) -> None:
            self.path = self.path.partition("?")[0]
            if self.path.rstrip("/") == "":
                self.send(self._json(catalog.landing()))
            elif self.path.startswith("/collections/"):
                name = self.path.rsplit("/", 1)[1]
                if name in catalog.collections:
                    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
                    collection = {"type": "Collection", "id": name, "stac_version": "1.0.0", "description": name}
                    self.send(self._json({**collection, "license": "other", "extent": extent, "links": []}))
                else:
                    self.send(self._json({"code": "NotFound", "description": "Not Found"}, 404))
            else:
                self.send(self._json({"code": "NotFound"}, 404))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            catalog.searches.append(body)
            answer: Answer | None = self._json(catalog.page(body))
            if catalog.fault is not None:
                assert answer is not None
                answer = catalog.fault(catalog, len(catalog.searches), answer)
            self.send(answer)

    with on_loopback(Handler) as address:
        catalog.address = address
        yield catalog


def changed(answer: Answer, change: Callable[[dict[str, Any]], Any]) -> Answer:
    """The answer with its JSON changed in place (or replaced by what ``change`` returns)."""
    page = json.loads(answer[2])
    other = change(page)
    return answer[0], {"Content-Type": "application/json"}, json.dumps(page if other is None else other).encode()
