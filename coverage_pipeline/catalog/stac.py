"""A STAC API as a source: pages of item dictionaries, each checked before it is believed.

pystac-client finds the search endpoint and words the query. Its paging is not used: it takes a page without ``features``, such
as an error body sent with status 200, for the end of the results.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from pystac import Link
from pystac.errors import STACError
from pystac_client import Client, ItemSearch
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3 import Retry

from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.grid import split_bbox
from coverage_pipeline.sensors import AvailableSource

BBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Patience:
    """How long and how often a catalogue is asked before a scan fails."""

    timeout_seconds: float = 60.0
    retries: int = 5
    backoff_seconds: float = 1.0

    @property
    def timeouts(self) -> tuple[float, float]:
        """Seconds to connect and to wait for the next bytes, as requests takes them."""
        return min(10.0, self.timeout_seconds), self.timeout_seconds

    def retry(self) -> Retry:
        """For GET and POST alike (a search changes nothing), on every status that a busy catalogue answers with."""
        return Retry(
            total=self.retries,
            # A host that cannot be found or refuses is not busy but away: a build of many months should not wait long for each.
            connect=min(self.retries, 2),
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            backoff_factor=self.backoff_seconds,
            backoff_jitter=self.backoff_seconds,
            respect_retry_after_header=True,
            raise_on_status=False,  # the last answer's own words are worth more than "too many 504 error responses"
        )


class _CountingIO(StacApiIO):  # type: ignore[misc]
    """pystac-client's HTTP, counting what was asked and received."""

    def __init__(self, patience: Patience) -> None:
        super().__init__(max_retries=patience.retry(), timeout=patience.timeouts)
        self.requests = 0
        self.bytes = 0

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        self.requests += 1
        text: str = super().request(href, method, headers, parameters)
        self.bytes += len(text)
        return text


def excerpt(text: str) -> str:
    """The text on one line, cut where it gets long: an answer may be a whole page."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= 200 else f"{flat[:200]}…"


def cause(error: BaseException) -> str:
    """Why there is no answer. urllib3 says it after the whole address, where an excerpt no longer reaches.

    pystac-client words the error of requests anew, and raises its own while that is being handled.
    """
    if isinstance(error, APIError) and error.__context__ is not None:
        error = error.__context__
    inner = error.args[0] if error.args else error
    return excerpt(str(getattr(inner, "reason", None) or error))


class StacSource:
    """One STAC API and collection, asked for one window."""

    def __init__(self, source: AvailableSource, patience: Patience, what: str) -> None:
        """``what`` names the sensor and month in every error."""
        self.source = source
        self.what = what
        self._sensor = what.split()[0]
        self._io = _CountingIO(patience)
        self.announced: int | None = None
        """Matches the provider announced, over all boxes; None where it gives no total."""
        self.pages = 0

    @property
    def requests(self) -> int:
        """Requests made, retries apart."""
        return self._io.requests

    @property
    def bytes(self) -> int:
        """Characters of all answers."""
        return self._io.bytes

    def _failed(self, kind: type[CatalogError], message: str) -> CatalogError:
        return kind(f"{self.what}: {self.source.provider} ({self.source.collection_id}) {message}")

    @contextlib.contextmanager
    def _failures_named(self, doing: str) -> Iterator[None]:
        try:
            yield
        except CatalogError:
            raise
        except APIError as error:
            status = getattr(error, "status_code", None)
            said = f"answered {status}: {excerpt(str(error))}" if status else f"could not be reached: {cause(error)}"
            way = "check the collection and endpoint" if status in (400, 401, 403, 404) else "try again later, or name another source"
            raise self._failed(CatalogUnavailable, f"{said} ({doing}); {way} in [[sensors.sources.{self._sensor}]]") from error
        except (requests.RequestException, OSError) as error:
            raise self._failed(CatalogUnavailable, f"could not be reached: {cause(error)} ({doing})") from error
        except json.JSONDecodeError as error:
            raise self._failed(
                CatalogUnreadable,
                f"answered with something that is not JSON: {excerpt(error.doc)!r} ({doing}); try again later, or name another source "
                f"in [[sensors.sources.{self._sensor}]]",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, STACError, NotImplementedError) as error:
            raise self._failed(
                CatalogUnreadable,
                f"did not answer as a STAC API: {type(error).__name__}: {excerpt(str(error))} ({doing})",
            ) from error

    def items(self, start: dt.datetime, end: dt.datetime, bbox: BBox | None = None) -> Iterator[list[Any]]:
        """Pages of raw features acquired between ``start`` and ``end`` (inclusive, UTC) that meet ``bbox`` (degrees; None: anywhere).

        A box across the antimeridian (west > east) is asked as two. Raises ``CatalogUnavailable``, ``CatalogUnreadable`` or
        ``CatalogTruncated``; a consumer that saw every page without one has all there is.
        """
        with self._failures_named("opening its landing page"):
            # open() sets the timeout of the IO it is given, to none where it is given none.
            client = Client.open(self.source.endpoint, stac_io=self._io, timeout=self._io.timeout)
        boxes: list[BBox | None] = [None] if bbox is None else list(_boxes(bbox))
        received = 0
        for box in boxes:
            for page in self._pages(client, start, end, box):
                received += len(page)
                yield page
        if received == 0:
            self._require_collection(client)

    def _require_collection(self, client: Client) -> None:
        """Nothing found is believed only of a collection that exists: many servers answer a misspelt one with an empty page."""
        with self._failures_named("looking up its collection, as nothing was found in it"):
            found = client.get_collection(self.source.collection_id)
        if found is None or found.id != self.source.collection_id:
            raise self._failed(CatalogUnavailable, f"has no such collection; check collection_id in [[sensors.sources.{self._sensor}]]")

    def _search(self, client: Client, start: dt.datetime, end: dt.datetime, bbox: BBox | None, limit: int) -> ItemSearch:
        with self._failures_named("wording the search"):
            return client.search(collections=[self.source.collection_id], datetime=[start, end], bbox=bbox, limit=limit)

    def _pages(
        self, client: Client, start: dt.datetime, end: dt.datetime, bbox: BBox | None, limit: int | None = None
    ) -> Iterator[list[Any]]:
        limit = limit or self.source.page_size
        first_try = limit == self.source.page_size
        search = self._search(client, start, end, bbox, limit)
        request: tuple[str | Link, str | None, dict[str, Any] | None]
        request = (search.url, search.method, search.get_parameters())
        ids: set[str] = set()
        unnamed = 0
        announced: int | None = None
        asked: set[str] = set()
        number = 0
        while True:
            number += 1
            doing = f"page {number}"
            with self._failures_named(doing):
                page = self._io.read_json(request[0], method=request[1], parameters=request[2])
                features, next_link, total = _checked_page(page)
            self.pages += 1
            announced = total if total is not None else announced
            new = {f["id"] for f in features if isinstance(f, dict) and isinstance(f.get("id"), str)} - ids
            unnamed += sum(not (isinstance(f, dict) and isinstance(f.get("id"), str)) for f in features)
            if features and ids and not new:
                raise self._truncated(f"page {number} brought only items already seen", announced, len(ids))
            ids |= new
            yield features
            if next_link is None:
                break
            self._require_same_host(next_link)
            fingerprint = json.dumps(next_link, sort_keys=True, default=str)
            if fingerprint in asked:
                raise self._truncated(f"page {number} leads back to a page already seen", announced, len(ids))
            asked.add(fingerprint)
            request = (Link.from_dict(next_link), None, None)
        received = len(ids) + unnamed
        if announced is not None and received < announced:
            raise self._truncated("it stopped short", announced, received)
        if announced is None and len(features) == limit:
            if not first_try:
                raise self._truncated("its last page is full at every page size, with no next and no total", None, received)
            self._ask_again(client, start, end, bbox, limit, ids)
        if announced is not None and first_try:
            self.announced = (self.announced or 0) + announced

    def _ask_again(self, client: Client, start: dt.datetime, end: dt.datetime, bbox: BBox | None, limit: int, ids: set[str]) -> None:
        """A full last page with no way on is how truncation looks, and how an exact multiple looks. Another page size tells."""
        sizes = [*range(limit - 1, 1, -1), *range(limit + 1, 2 * limit + 3)]
        other = next(size for size in sizes if len(ids) % size)
        again = {
            f["id"]
            for page in self._pages(client, start, end, bbox, other)
            for f in page
            if isinstance(f, dict) and isinstance(f.get("id"), str)
        }
        if again != ids:
            raise self._truncated("a full last page had no next, and another page size gave other items", None, len(ids))

    def _truncated(self, what: str, announced: int | None, received: int) -> CatalogError:
        total = "no total announced" if announced is None else f"{announced} announced"
        return self._failed(CatalogTruncated, f"gave an incomplete answer: {what} ({total}, {received} received); nothing was written")

    def _require_same_host(self, link: Mapping[str, Any]) -> None:
        host = urlsplit(str(link.get("href"))).netloc
        if host and host != self.source.provider:
            raise self._failed(CatalogUnreadable, f"points its next page to another host, {host}; not followed")


def _boxes(bbox: BBox) -> list[BBox]:
    return [(b[0], b[1], b[2], b[3]) for b in split_bbox(bbox)]


def _checked_page(page: Any) -> tuple[list[Any], dict[str, Any] | None, int | None]:
    """Features, the next link and the announced total of a page; raises ``ValueError`` where it is not a feature collection."""
    if not isinstance(page, dict) or not isinstance(page.get("features"), list):
        keys = ", ".join(sorted(map(str, page))[:8]) if isinstance(page, dict) else type(page).__name__
        raise ValueError(f"the page has no list of features (it has: {keys})")
    links = page.get("links") or []
    if not isinstance(links, list):
        raise ValueError("the page's links are not a list")
    following = [link for link in links if isinstance(link, dict) and link.get("rel") == "next"]
    if following and not isinstance(following[0].get("href"), str):
        raise ValueError("the page's next link has no address")
    context = page.get("context")
    total = page.get("numberMatched", context.get("matched") if isinstance(context, dict) else None)
    return (
        page["features"],
        following[0] if following else None,
        total if isinstance(total, int) and total >= 0 else None,
    )
