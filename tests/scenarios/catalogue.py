"""A STAC API on loopback, honest by default, with the lies that real catalogues have been seen to tell.

It knows nothing of the product: it answers ``/``, ``/collections``, ``/collections/{id}``, its items by id and ``/search`` as the STAC API
specification says, except for what ``Lies`` names.
"""

from __future__ import annotations

import datetime as dt
import http.server
import json
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

UTC = dt.UTC
Item = dict[str, Any]


@dataclass(frozen=True)
class Lies:
    """What a catalogue does wrong. The default is an honest one."""

    cap: int | None = None
    """No query ever gives more items than this, and nothing says that there are more."""
    ignores_time: bool = False
    """The ``datetime`` of a query is ignored: every item of the collection comes."""
    failing: tuple[dt.datetime, dt.datetime] | None = None
    """Queries that touch this span of time are answered with status 500."""
    dead: bool = False
    """Every search is answered with status 503."""
    totals: int | None = None
    """``numberMatched`` is larger than the truth by so many; ``None``: no total is given."""


def instant(text: str) -> dt.datetime:
    """An RFC 3339 time; without a zone, UTC."""
    time = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _span(item: Mapping[str, Any]) -> tuple[dt.datetime, dt.datetime] | None:
    properties = item["properties"]
    start = properties.get("start_datetime") or properties.get("datetime")
    end = properties.get("end_datetime") or properties.get("datetime")
    return (instant(start), instant(end)) if start and end else None


@dataclass
class Catalogue:
    """Collections of items, served until ``close``; ``log`` keeps every search that was asked."""

    collections: Mapping[str, Sequence[Item]]
    lies: Mapping[str, Lies] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _send(self, body: Any, status: int = 200) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/geo+json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                address = urllib.parse.urlsplit(self.path)
                path = address.path.rstrip("/")
                if path == "":
                    return self._send(outer._landing())
                if path == "/collections":
                    return self._send({"collections": [outer._collection(name) for name in outer.collections], "links": []})
                if path.startswith("/collections/") and path.count("/") == 2:
                    name = urllib.parse.unquote(path.rsplit("/", 1)[1])
                    return self._send(outer._collection(name)) if name in outer.collections else self._send({"code": "NotFound"}, 404)
                if path.startswith("/collections/") and path.count("/") == 4 and path.split("/")[3] == "items":
                    _, _, name, _, wanted = (urllib.parse.unquote(part) for part in path.split("/"))
                    named = [item for item in outer.collections.get(name, ()) if item["id"] == wanted]
                    return self._send(named[0]) if named else self._send({"code": "NotFound"}, 404)
                if path == "/search":
                    query: dict[str, Any] = dict(urllib.parse.parse_qsl(address.query))
                    for name in ("collections", "ids"):
                        if name in query:
                            query[name] = query[name].split(",")
                    if "bbox" in query:
                        query["bbox"] = [float(part) for part in query["bbox"].split(",")]
                    return self._send(*outer._search(query, "GET"))
                return self._send({"code": "NotFound"}, 404)

            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                self._send(*outer._search(query, "POST"))

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _landing(self) -> dict[str, Any]:
        api = "https://api.stacspec.org/v1.0.0"
        search = [{"rel": "search", "href": f"{self.url}search", "method": m, "type": "application/geo+json"} for m in ("GET", "POST")]
        links = [{"rel": "self", "href": self.url}, {"rel": "root", "href": self.url}, {"rel": "data", "href": f"{self.url}collections"}]
        conforms = [f"{api}/core", f"{api}/item-search", f"{api}/collections", f"{api}/ogcapi-features"]
        landing = {"type": "Catalog", "stac_version": "1.0.0", "id": "scenarios", "description": "scenarios"}
        return {**landing, "conformsTo": conforms, "links": [*links, *search]}

    @staticmethod
    def _collection(name: str) -> dict[str, Any]:
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2000-01-01T00:00:00Z", None]]}}
        collection = {"type": "Collection", "stac_version": "1.0.0", "id": name, "description": name, "license": "other"}
        return {**collection, "extent": extent, "links": []}

    def _search(self, query: dict[str, Any], method: str) -> tuple[dict[str, Any], int]:
        self.log.append(query)
        names = query.get("collections") or list(self.collections)
        lies = self.lies.get(names[0], Lies())
        start, end = self._window(query)
        if lies.dead:
            return {"code": "ServiceUnavailable", "description": "try later"}, 503
        if lies.failing and start <= lies.failing[1] and end >= lies.failing[0]:
            return {"code": "InternalServerError", "description": "failed"}, 500
        found = [item for name in names for item in self.collections.get(name, ())]
        if not lies.ignores_time:
            found = [item for item in found if (span := _span(item)) is None or (span[0] <= end and span[1] >= start)]
        if query.get("ids"):
            found = [item for item in found if item["id"] in query["ids"]]
        if query.get("bbox"):
            west, south, east, north = query["bbox"]
            found = [
                item
                for item in found
                if not (box := item.get("bbox")) or (box[0] <= east and box[2] >= west and box[1] <= north and box[3] >= south)
            ]
        found.sort(key=lambda item: (item["properties"].get("datetime") or "", item["id"]))
        total = len(found)
        found = found[: lies.cap]
        limit, offset = int(query.get("limit", 10)), int(query.get("token", 0))
        answer: dict[str, Any] = {"type": "FeatureCollection", "features": found[offset : offset + limit], "links": []}
        if lies.totals is not None:
            answer["numberMatched"] = total + lies.totals
        if offset + limit < len(found):
            following = {**query, "token": str(offset + limit)}
            if method == "POST":
                answer["links"] = [{"rel": "next", "href": f"{self.url}search", "method": "POST", "body": following}]
            else:
                flat = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in following.items()}
                answer["links"] = [{"rel": "next", "href": f"{self.url}search?{urllib.parse.urlencode(flat)}", "method": "GET"}]
        return answer, 200

    @staticmethod
    def _window(query: Mapping[str, Any]) -> tuple[dt.datetime, dt.datetime]:
        first, _, last = str(query.get("datetime", "../..")).partition("/")
        start = instant(first) if first not in ("", "..") else dt.datetime(1900, 1, 1, tzinfo=UTC)
        end = instant(last or first) if (last or first) not in ("", "..") else dt.datetime(2999, 1, 1, tzinfo=UTC)
        return start, end
