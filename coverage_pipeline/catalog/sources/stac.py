"""A STAC API as a source: checked pages of item dictionaries.

pystac-client finds the search endpoint and formats the query. Its paging is not used: it reads a page without ``features``, such as an
error body with status 200, as the end of the results.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from pystac_client import Client

from coverage_pipeline.catalog.answers import Cancelled, FetchedAnswer
from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.http import LATER, HttpSession
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.catalog.sources.base import Window, WindowCount
from coverage_pipeline.catalog.sources.stac_pages import PageRequest, SessionIO, checked_page, content_of, is_whole, next_request, read_page
from coverage_pipeline.geometry.bbox import BBox, split_bbox
from coverage_pipeline.redaction import excerpt
from coverage_pipeline.sensors.registry import AvailableSource

_ROUND = 50
"""Divisor of the page sizes at which servers silently cap results: 100, 250, 10,000."""
_SOME = 3
"""Number of items that test whether ``fields`` leaves out the assets and nothing else."""
_NEEDED = ("geometry", "bbox", "properties", "collection")
"""Members that ``fields`` must not leave out."""


class StacSource:
    """One collection of a STAC API."""

    windowed = True

    def __init__(self, source: AvailableSource, profile: ProviderProfile, patience: Patience, label: str) -> None:
        """``label`` names the sensor and month in every error."""
        self.source = source
        self.profile = profile
        self.label = label
        self._hint = f"check collection_id and endpoint in [[sensors.sources.{label.split()[0]}]]"
        self.session = HttpSession(source.provider, profile, patience, self._failed)
        self.item_root = f"{source.endpoint.partition('?')[0].rstrip('/')}/collections/{source.collection_id}/items"
        self._opened: Client | None = None
        self._opening = threading.Lock()
        self._fields = False
        """Whether requests leave out the assets."""
        self._fields_checked = False
        self._checking = threading.Lock()

    def _failed(self, kind: type[CatalogError], message: str) -> CatalogError:
        return kind(self.source.public(f"{self.label}: {self.source.provider} ({self.source.collection_id}) {message}"))

    def open(self) -> Client:
        """The client of the API's landing page, which is fetched once; raises ``CatalogError``."""
        with self._opening:
            if self._opened is not None:
                return self._opened
            try:
                client = Client.open(self.source.endpoint, stac_io=SessionIO(self.session, self._hint, self._checked))
            except (CatalogError, Cancelled):
                raise
            except Exception as error:  # pystac-client raises many types for a page that is no catalogue
                if isinstance(error.__cause__, CatalogError):
                    raise error.__cause__ from None
                raise self._failed(
                    CatalogUnreadable,
                    f"has no STAC landing page: {type(error).__name__}: {excerpt(str(error))}; check endpoint in "
                    f"[[sensors.sources.{self.label.split()[0]}]]",
                ) from None
            self._fields = "fields" in self.profile.features and client.conforms_to("FIELDS")
            self._opened = client
            return client

    def newest(self) -> dt.datetime | None:
        """None: an API is a live source."""
        return None

    def pages(self, window: Window, bbox: BBox | None, window_count: WindowCount) -> Iterator[list[Any]]:
        """Pages of raw features acquired in the window (both ends included) that meet ``bbox`` (degrees; None: anywhere).

        A box across the antimeridian (west > east) is searched as two. Raises ``CatalogUnavailable``, ``CatalogUnreadable`` or
        ``CatalogTruncated``; all pages without an error are all items.
        """
        tries = window.tries
        for box in _boxes(bbox):
            yield from self._pages(window, box, window.limit, window_count, tries)

    def require_collection(self) -> None:
        """Raise ``CatalogError`` if the collection does not exist: many servers answer a misspelt name with an empty page."""
        client = self.open()
        try:
            collection = client.get_collection(self.source.collection_id)
        except (CatalogError, Cancelled):
            raise
        except Exception as error:
            raise self._failed(CatalogUnreadable, f"gave an unusable collection: {excerpt(str(error))}; {self._hint}") from None
        if collection is None or collection.id != self.source.collection_id:
            raise self._failed(CatalogUnavailable, f"has no such collection; {self._hint}")

    def total(self, window: Window, bbox: BBox | None) -> int:
        """Number of announced matches; without totals the number of items on the first page of each box."""
        matches = 0
        for box in _boxes(bbox):
            page = self._fetch(self._first(window, box, window.limit), "counting its items", None)
            features, _, total = checked_page(page.content)
            matches += len(features) if total is None else total
        return matches

    def _first(self, window: Window, box: BBox | None, limit: int) -> PageRequest:
        client = self.open()
        try:
            search = client.search(
                method=self.profile.method,
                collections=[self.source.collection_id],
                datetime=[window.start, window.end],
                bbox=box,
                limit=limit,
                fields=["-assets"] if self._fields else None,
            )
            content = search.get_parameters()
        except (CatalogError, Cancelled):
            raise
        except Exception as error:
            raise self._failed(CatalogUnreadable, f"cannot be searched: {excerpt(str(error))}; {self._hint}") from None
        self._require_same_host(str(search.url), "its search")
        return PageRequest(self._safe(str(search.url)), self.profile.method, content)

    def _fetch(self, request: PageRequest, doing: str, tries: int | None) -> FetchedAnswer:
        params = [(k, str(v)) for k, v in request.content.items()] if request.method == "GET" and request.content else None
        return self.session.fetch(
            request.url,
            doing=doing,
            method=request.method,
            params=params,
            body=request.content if request.method == "POST" else None,
            headers=request.headers,
            check=lambda answer, _: checked_page(answer),
            tries=tries,
            hint=self._hint,
        )

    def _check_fields(self, window: Window, box: BBox | None, tries: int | None) -> None:
        """Test once whether ``fields`` leaves out only the assets, by a few items requested with and without it."""
        self.open()
        with self._checking:
            if not self._fields or self._fields_checked:
                return
            request = self._first(window, box, _SOME)
            try:
                lean = self._fetch(request, "testing a request without assets", tries).content["features"]
            except CatalogError as error:
                if error.status != 400:
                    raise
                self._fields = False
                return
            whole = self._fetch(request.without_fields(), "testing a request with assets", tries).content["features"]
            whole_by_id = {name: item for item in whole if (name := _name(item)) is not None}
            pairs = [(item, whole_by_id[name]) for item in lean if (name := _name(item)) in whole_by_id]
            if lean and not pairs:  # nothing to compare, so do not use it
                self._fields = False
                return
            self._fields_checked = bool(pairs)
            self._fields = all(item.get(part) == whole_item.get(part) for item, whole_item in pairs for part in _NEEDED)

    def _whole_page(self, request: PageRequest, doing: str, tries: int | None) -> FetchedAnswer:
        """A page whose items are whole. If the server drops needed members, request all members from now on."""
        lean = self._fields  # another thread may turn it off meanwhile
        page = self._fetch(request if lean else request.without_fields(), doing, tries)
        if lean and not all(is_whole(feature) for feature in page.content["features"]):
            self._fields = False
            page = self._fetch(request.without_fields(), f"{doing} with all fields", tries)
        return page

    def _pages(
        self, window: Window, box: BBox | None, limit: int, window_count: WindowCount | None, tries: int | None
    ) -> Iterator[list[Any]]:
        """The pages of one box. Without ``window_count`` they verify another result, and are not verified themselves."""
        self._check_fields(window, box, tries)
        request = first = self._first(window, box, limit)
        ids: set[str] = set()
        seen: set[bytes] = set()
        unnamed = repeated = empty_pages = 0
        announced: int | None = None
        before = window_count.announced if window_count is not None else None
        link_fingerprints: set[str] = set()
        number = longest = 0
        while True:
            number += 1
            doing = f"{window.name}, page {number}"
            page = self._whole_page(request, doing, tries)
            features, next_link, total = read_page(page)
            if not features and (next_link is not None or total is None):
                # An empty page with a next link, or without a total, may be a slip: request it again, and check a second one below.
                page = self._whole_page(request, f"{doing} again, as it was empty", tries)
                features, next_link, total = read_page(page)
                empty_pages += not features and next_link is not None
            self._require_collection_of(features, doing)
            if total is not None:
                announced = max(total, announced or 0)
            if window_count is not None:
                window_count.pages += 1
                if announced is not None:
                    window_count.announced = (before or 0) + announced
            named = [_name(feature) for feature in features]
            new = {name for name in named if name is not None} - ids
            nameless = {content_of(feature) for feature, name in zip(features, named, strict=True) if name is None}
            unnamed += sum(name is None for name in named)
            if features and number > 1 and not new and nameless <= seen:
                raise self._truncated(f"page {number} of {window.name} has only items of former pages", announced, len(ids))
            repeated += len({name for name in named if name is not None} & ids)
            ids |= new
            seen |= nameless
            longest = max(longest, len(features))
            yield features
            if next_link is None:
                break
            self._require_same_host(next_link["href"], "its next page")
            fingerprint = json.dumps(next_link, sort_keys=True, default=str)
            if fingerprint in link_fingerprints:
                raise self._truncated(f"page {number} of {window.name} leads back to a page already seen", announced, len(ids))
            link_fingerprints.add(fingerprint)
            following = next_request(next_link, page.url, first)
            request = replace(following, url=self._safe(following.url))
        received = len(ids) + unnamed
        if announced is not None and received < announced:
            raise self._truncated(f"it stopped short at page {number} of {window.name}", announced, received)
        if window_count is None:
            # The page size does not divide the number of items, so that a full last page means a cut-off.
            if features and len(features) >= limit:
                raise self._truncated(f"the last page of {window.name} is full at every page size, with no next", announced, received)
            return
        full = len(features) >= (min(longest, limit) if number > 1 else limit)
        rounded = announced is None and len(features) % _ROUND == 0
        # A repeated item or an empty page may hide another item.
        suspicious = (repeated or empty_pages) and received != announced
        if suspicious or (features and (full or rounded)):
            self._verify_with_other_page_size(window, box, min(limit, longest), ids, received, announced, tries)
        window_count.boxes.append((received, announced))

    def _verify_with_other_page_size(
        self, window: Window, box: BBox | None, limit: int, ids: set[str], received: int, announced: int | None, tries: int | None
    ) -> None:
        """Raise ``CatalogTruncated`` if another page size gives other items.

        A full last page without next link is either a cut-off or an exact multiple of the page size; another page size distinguishes them.
        It also finds items that repeated ones have displaced.
        """
        sizes = [*range(limit - 1, 1, -1), *range(limit + 1, 2 * limit + 3)]
        page_size = next((size for size in sizes if received % size), received + 1)
        other_ids = {
            name for page in self._pages(window, box, page_size, None, tries) for feature in page if (name := _name(feature)) is not None
        }
        if other_ids != ids:
            label = f"pages of {window.name} end or repeat oddly, and another page size gave other items"
            raise self._truncated(label, announced, received)

    def _truncated(self, label: str, announced: int | None, received: int) -> CatalogError:
        total = "no total announced" if announced is None else f"{announced} announced"
        return self._failed(
            CatalogTruncated, f"gave an incomplete answer: {label} ({total}, {received} received); nothing was written; {LATER}"
        )

    def _checked(self, href: str, label: str) -> str:
        self._require_same_host(href, label)
        return self._safe(href)

    def _safe(self, href: str) -> str:
        """The address with https if the endpoint has it: many servers behind a proxy write http links."""
        return f"https{href[4:]}" if self.source.endpoint.startswith("https:") and href.startswith("http:") else href

    def _require_same_host(self, href: str, label: str) -> None:
        host = urlsplit(href).netloc
        if host and host != self.source.provider:
            raise self._failed(
                CatalogUnreadable, f"points {label} to another host, {excerpt(host)}; not followed: name that as endpoint if it is right"
            )

    def _require_collection_of(self, features: list[Any], doing: str) -> None:
        """Raise ``CatalogUnreadable`` for an item of another collection: a server may ignore ``collections``."""
        for feature in features:
            collection = feature.get("collection") if isinstance(feature, dict) else None
            if isinstance(collection, str) and collection != self.source.collection_id:
                text = f"gave an item of another collection, {excerpt(collection)!r} ({doing}); {self._hint}"
                raise self._failed(CatalogUnreadable, text)


def _boxes(bbox: BBox | None) -> list[BBox | None]:
    return [None] if bbox is None else [(b[0], b[1], b[2], b[3]) for b in split_bbox(bbox)]


def _name(feature: Any) -> str | None:
    return feature["id"] if isinstance(feature, dict) and isinstance(feature.get("id"), str) else None
