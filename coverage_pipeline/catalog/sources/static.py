"""STAC items from a static catalogue: linked JSON files in a folder or on a host."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import numpy as np
import shapely

from coverage_pipeline.catalog.answers import parsed_json
from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.http import HttpSession
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.catalog.sources.base import Window, WindowCount
from coverage_pipeline.catalog.sources.file_source import (
    AHEAD,
    PAGE,
    TIMES,
    FileSource,
    Survey,
    bounds_of,
    meets_boxes,
    query_boxes,
)
from coverage_pipeline.geometry.bbox import BBox, flat_bbox
from coverage_pipeline.months import UTC
from coverage_pipeline.redaction import excerpt
from coverage_pipeline.scenes.item_fields import self_href
from coverage_pipeline.scenes.scene_key import parse_time
from coverage_pipeline.sensors.registry import AvailableSource
from coverage_pipeline.storage.paths import is_local, storage_path

_FOLLOWED = ("child", "item", "items")
_MEMBERS = ("type", "id", "collection", "geometry", "bbox", "properties")
_ENTRIES = ("catalog.json", "collection.json")
Fail = Callable[[type[CatalogError], str], CatalogError]


@dataclass(frozen=True)
class _Link:
    """A link to a document."""

    address: str
    named: str
    """Description for errors: the link and its document."""
    below: bool = False
    """Whether the document is below the source's collection, or is that collection."""
    again: bool = False
    """Whether the document was read before, through a link outside the collection."""
    further: bool = False
    """Whether the document is a further page of a feature collection."""
    parent: _Link | None = None
    """Link to the document that contains this link."""

    def leads_back(self) -> bool:
        """Whether the document is one of its own ancestors."""
        above = self.parent
        while above is not None and above.address != self.address:
            above = above.parent
        return above is not None


class _Tree(Protocol):
    """Access to the documents of a static catalogue."""

    first: str
    """Address of the catalogue's root document."""

    def follow(self, href: str, base: str, named: str) -> str:
        """Address of a link in the document at ``base``; raises ``CatalogUnreadable`` if it leaves the catalogue."""

    def read(self, link: _Link) -> Any:
        """Parsed JSON of a document; raises ``CatalogUnavailable`` or ``CatalogUnreadable``."""

    def href(self, address: str) -> str:
        """The address as a URL."""


class _Folder:
    """A catalogue on disk. Its links are untrusted: no file outside the folder of its root document is read."""

    def __init__(self, path: Path, fail: Fail, hint: str) -> None:
        self._fail, self._hint = fail, hint
        if path.is_dir():
            entries = [path / name for name in _ENTRIES if (path / name).is_file()]
            if not entries:
                raise fail(CatalogUnavailable, f"is a folder without {' or '.join(_ENTRIES)}: {path}; {hint}")
            path = entries[0]
        if not path.is_file():
            raise fail(CatalogUnavailable, f"is missing: {path} does not exist; {hint}")
        self.first = os.path.realpath(path)
        self._root = Path(self.first).parent

    def follow(self, href: str, base: str, named: str) -> str:
        try:
            parts = urlsplit(href)
            if parts.scheme == "file" and parts.netloc in ("", "localhost"):
                target = Path(unquote(parts.path))
            elif parts.scheme or parts.netloc:
                raise self._fail(CatalogUnreadable, f"leads out of its folder: {named} is no file; not followed; {self._hint}")
            else:
                target = Path(base).parent / href
                if not target.exists():  # most catalogues write plain paths, some percent-encoded ones
                    target = Path(base).parent / unquote(urldefrag(href).url)
            real = Path(os.path.realpath(target))
        except (ValueError, OSError) as error:
            if isinstance(error, CatalogError):
                raise
            raise self._fail(CatalogUnreadable, f"has a link that cannot be followed: {named}: {excerpt(str(error))}") from error
        if not real.is_relative_to(self._root):
            raise self._fail(
                CatalogUnreadable,
                f"leads out of its folder {self._root}: {named}; not followed; if it is right, name the catalogue's topmost "
                f"catalog.json as endpoint in {self._hint.rpartition(' ')[2]}",
            )
        return str(real)

    def read(self, link: _Link) -> Any:
        path = Path(link.address)
        try:
            if not path.is_file():  # a pipe would never end
                raise FileNotFoundError("no such file")
            content = path.read_bytes()
        except OSError as error:
            raise self._fail(
                CatalogUnavailable, f"is incomplete: {link.named} cannot be read: {excerpt(str(error))}; copy the catalogue again"
            ) from error
        try:
            return parsed_json(content)
        except ValueError as error:
            begins = excerpt(content[:200].decode(errors="replace"))
            raise self._fail(CatalogUnreadable, f"has a document that is not JSON: {link.named}: {begins!r}") from error

    def href(self, address: str) -> str:
        return Path(address).as_uri()


class _Host:
    """A catalogue over HTTP. Only the host of the endpoint is asked."""

    def __init__(self, endpoint: str, session: HttpSession, fail: Fail, hint: str) -> None:
        self.first = urldefrag(endpoint).url
        self._session, self._fail, self._hint = session, fail, hint
        self._own = urlsplit(endpoint)

    def follow(self, href: str, base: str, named: str) -> str:
        try:
            address = urldefrag(urljoin(base, href)).url
            parts = urlsplit(address)
        except ValueError as error:
            raise self._fail(CatalogUnreadable, f"has a link that cannot be followed: {named}: {excerpt(str(error))}") from error
        # A link from https to http would send the login unencrypted.
        scheme_fits = parts.scheme == self._own.scheme or parts.scheme == "https"
        if parts.netloc != self._own.netloc or not scheme_fits:
            to = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            raise self._fail(CatalogUnreadable, f"leads to another host, {to}: {named}; not followed; {self._hint}")
        return address

    def read(self, link: _Link) -> Any:
        return self._session.fetch(link.address, doing=f"reading {link.named}", hint=self._hint).content

    def href(self, address: str) -> str:
        return urlsplit(address)._replace(query="", fragment="").geturl()  # the query may contain a key


class StaticSource(FileSource):
    """A static STAC catalogue, on disk or over HTTP, read from its root document: every item, or an error that names the link.

    The whole catalogue is read, because only the items name their collection. To read less, set the endpoint to ``collection.json``.
    """

    def __init__(self, source: AvailableSource, profile: ProviderProfile, patience: Patience, label: str) -> None:
        super().__init__(source, profile, patience, label)
        over_http = urlsplit(source.endpoint).scheme in ("http", "https")
        self.session: HttpSession | None = HttpSession(source.provider, profile, patience, self._failed) if over_http else None
        self._known: Survey | None = None

    def pages(self, window: Window, bbox: BBox | None, window_count: WindowCount) -> Iterator[list[Any]]:
        """Pages of all items of the collection that meet ``bbox`` (degrees; None: anywhere), of any time.

        Raises ``CatalogUnavailable`` or ``CatalogUnreadable`` for a link that cannot be followed or read, and after the last page
        ``CatalogTruncated`` if the catalogue does not cover the window.
        """
        boxes = query_boxes(bbox)
        page: list[Any] = []
        for items in self._crawl():
            page.extend(items)
            while len(page) >= PAGE:
                window_count.pages += 1
                yield _meeting(page[:PAGE], boxes)
                page = page[PAGE:]
        if page:
            window_count.pages += 1
            yield _meeting(page, boxes)
        self._require_month(self._survey(), window)

    def require_collection(self) -> None:
        """Raise ``CatalogUnavailable`` if no collection or item has the id; reads the catalogue unless it was read before."""
        self._require_items(self._survey())

    def total(self, window: Window, bbox: BBox | None) -> int:
        """Number of items of the window that meet ``bbox``, after reading all; raises as ``pages`` does."""
        boxes = query_boxes(bbox)
        matches = sum(_is_in_window(item, window) for items in self._crawl() for item in _meeting(items, boxes))
        self._require_month(self._survey(), window)
        return matches

    def newest(self) -> dt.datetime | None:
        """Time of the collection's newest item, None if no item has a time; reads the catalogue unless it was read before."""
        return self._survey().newest

    def _survey(self) -> Survey:
        """Survey of the last full reading. A resumed scan has none yet, so that the catalogue is read here."""
        if self._known is None:
            for _ in self._crawl():
                pass
        assert self._known is not None
        return self._known

    def _tree(self) -> _Tree:
        if self.session is not None:
            return _Host(self.source.endpoint, self.session, self._failed, self._hint)
        path = storage_path(self.source.endpoint)
        if not is_local(path):
            raise self._failed(
                CatalogUnavailable, f"cannot be read from {path.protocol}: use a local path or an http(s) address; {self._hint}"
            )
        return _Folder(Path(path.path).expanduser(), self._failed, self._hint)

    def _crawl(self) -> Iterator[list[dict[str, Any]]]:
        """Items of the collection, document by document, breadth first. Sets the survey after the last one."""
        tree = self._tree()
        survey = Survey()
        todo = deque([_Link(tree.first, tree.first)])
        below = {tree.first: False}  # whether each document was read as part of the collection
        pool = ThreadPoolExecutor(self.profile.parallel, thread_name_prefix="static") if self.session is not None else None
        try:
            while todo:
                batch = [todo.popleft() for _ in range(min(len(todo), 16 * self.profile.parallel))]
                for link, document in zip(batch, (pool.map if pool else map)(tree.read, batch), strict=True):
                    items, links = self._content(tree, link, document, survey)
                    for child in links:
                        was_below = below.get(child.address)
                        if was_below is None or (child.below and not was_below and not child.leads_back()):
                            below[child.address] = child.below
                            todo.append(replace(child, again=was_below is not None))
                        elif child.further:
                            raise self._failed(CatalogTruncated, f"leads back to a page already read: {child.named}; {self._hint}")
                    if items:
                        yield items
        finally:
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
        self._known = survey

    def _content(self, tree: _Tree, link: _Link, document: Any, survey: Survey) -> tuple[list[dict[str, Any]], list[_Link]]:
        """Items of the collection in a document, and its links."""
        kind = document.get("type") if isinstance(document, dict) else None
        if kind == "Feature":
            return self._features_of_collection([document], tree, link, survey), []
        if kind == "FeatureCollection":
            features = document.get("features")
            if not isinstance(features, list):
                raise self._failed(CatalogUnreadable, f"has a FeatureCollection without features: {link.named}; {self._hint}")
            return self._features_of_collection(features, tree, link, survey), self._links(
                tree, link, document.get("links", []), ("next",), link.below
            )
        if kind not in ("Catalog", "Collection"):
            raise self._failed(
                CatalogUnreadable,
                f"has a document of type {excerpt(repr(kind))}, no Catalog, Collection, Feature or FeatureCollection: {link.named}; "
                f"{self._hint}",
            )
        below = link.below
        if kind == "Collection" and isinstance(document.get("id"), str):
            survey.collections.add(document["id"])
            below = below or document["id"] == self.source.collection_id
        return [], self._links(tree, link, document.get("links"), _FOLLOWED, below)

    def _links(self, tree: _Tree, link: _Link, links: Any, rels: tuple[str, ...], below: bool) -> list[_Link]:
        if not isinstance(links, list) or not all(isinstance(child, dict) for child in links):
            raise self._failed(CatalogUnreadable, f"has a document without a list of links: {link.named}; {self._hint}")
        followed = []
        for child in links:
            rel, href = child.get("rel"), child.get("href")
            if rel not in rels:
                continue
            named = f"the {rel} link {excerpt(repr(href))} of {link.address}"
            if not isinstance(href, str) or not href or str(child.get("method", "GET")).upper() != "GET":
                raise self._failed(CatalogUnreadable, f"has a link that cannot be followed: {named}; {self._hint}")
            followed.append(_Link(tree.follow(href, link.address, named), named, below, further=rel == "next", parent=link))
        return followed

    def _features_of_collection(self, features: Iterable[Any], tree: _Tree, link: _Link, survey: Survey) -> list[Any]:
        """Features of the collection, without assets and with a self link; adds them to the survey."""
        items: list[Any] = []
        for feature in features:
            collection = feature.get("collection") if isinstance(feature, dict) else None
            if isinstance(collection, str):
                survey.collections.add(collection)
            if collection != self.source.collection_id if collection is not None else not link.below:
                continue
            if collection is not None and link.again:
                continue  # it was returned by the former reading
            if not isinstance(feature, dict):
                items.append(feature)  # the collector rejects it with a reason
                survey.add(1, None, None)
                continue
            first, last = _span(feature)
            survey.add(1, first, last if last is not None and last <= dt.datetime.now(UTC) + AHEAD else None)
            href = self_href(feature.get("links"))
            if href is None or "://" not in href:  # a relative link is useless outside the catalogue
                href = tree.href(link.address)
            items.append({name: feature[name] for name in _MEMBERS if name in feature} | {"links": [{"rel": "self", "href": href}]})
        return items


def _times_of(item: Mapping[str, Any]) -> list[dt.datetime | None]:
    properties = item.get("properties")
    return [parse_time(properties.get(name)) if isinstance(properties, dict) else None for name in TIMES]


def _span(item: Mapping[str, Any]) -> tuple[dt.datetime | None, dt.datetime | None]:
    """First and last time of an item: ``datetime``, or else its start and end; None if unknown."""
    when, since, until = _times_of(item)
    return when or since or until, when or until or since


def _is_in_window(item: Any, window: Window) -> bool:
    """Whether an item has a time in the window."""
    if not isinstance(item, dict):
        return False
    when, since, until = _times_of(item)
    if when is not None:
        return window.start <= when <= window.end
    return since is not None and since <= window.end and max(since, until or since) >= window.start


def _meeting(items: list[Any], boxes: list[BBox] | None) -> list[Any]:
    """Items whose bbox, or else geometry, may touch one of the boxes; also items with neither."""
    if boxes is None or not items:
        return items
    bounds = np.full((len(items), 4), np.nan)
    shapes = np.full(len(items), None, dtype=object)
    for k, item in enumerate(items):
        box, geometry = (item.get("bbox"), item.get("geometry")) if isinstance(item, dict) else (None, None)
        if isinstance(box, list) and len(box) in (4, 6) and all(isinstance(side, int | float) for side in box):
            bounds[k] = flat_bbox(box)
        elif isinstance(geometry, dict):
            shapes[k] = json.dumps(geometry)
    without = ~np.isfinite(bounds).all(axis=1)
    bounds[without] = bounds_of(shapely.from_geojson(shapes[without], on_invalid="ignore"))
    return [item for item, meets in zip(items, meets_boxes(bounds, boxes), strict=True) if meets]
