"""Pages of a STAC API search: requests, checks, and next links."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import requests
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from coverage_pipeline.catalog.answers import FetchedAnswer
from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.http import HttpSession

_PROTECTED_HEADERS = ("authorization", "cookie", "host", "proxy-authorization")
"""Headers that a ``next`` link must not set: the server writes the link, but this program sets these headers."""


class SessionIO(StacApiIO):  # type: ignore[misc]
    """Sends the requests of pystac-client through ``HttpSession``, with its retries and limits."""

    def __init__(self, session: HttpSession, hint: str, checked: Callable[[str, str], str]) -> None:
        super().__init__()
        self.http, self.hint, self.checked = session, hint, checked
        self._read: dict[str, str] = {}

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Fetch a catalogue or collection document, cached with or without a trailing slash. Items are never fetched here."""
        href = self.checked(href, "its collections")
        page = href.rstrip("/")
        if page not in self._read:
            params = [(k, str(v)) for k, v in (parameters or {}).items()]
            try:
                answer = self.http.fetch(href, doing="opening it", params=params, headers=headers, hint=self.hint)
            except CatalogError as error:
                error.narrower_may_help = False
                if error.status == 404:  # pystac-client reads a 404 as "no such collection"
                    absent = APIError(str(error))
                    absent.status_code = 404
                    raise absent from error
                raise
            self._read[page] = json.dumps(answer.content)
        return self._read[page]


@dataclass(frozen=True)
class PageRequest:
    """Request of one page."""

    url: str
    method: str
    content: Any
    """Body of a POST, parameters of a GET."""
    headers: Mapping[str, str] | None = None

    def without_fields(self) -> PageRequest:
        """The same request with all members of its items."""
        content = {k: v for k, v in self.content.items() if k != "fields"} if isinstance(self.content, dict) else self.content
        parts = urlsplit(self.url)
        query = urlencode([(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k != "fields"])
        return PageRequest(parts._replace(query=query).geturl(), self.method, content, self.headers)


def content_of(feature: Any) -> bytes:
    """Digest that distinguishes items without an id."""
    try:
        return hashlib.sha256(repr(feature).encode("utf-8", "replace")).digest()
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return uuid.uuid4().bytes


def is_whole(feature: Any) -> bool:
    """Whether an item has a geometry and properties."""
    return isinstance(feature, dict) and feature.get("geometry") is not None and isinstance(feature.get("properties"), dict)


def next_request(link: Mapping[str, Any], url: str, first: PageRequest) -> PageRequest:
    """Request of a ``next`` link (STAC API paging: href, method, headers, body, merge)."""
    link_headers = link.get("headers")
    headers = (
        {k: v for k, v in link_headers.items() if isinstance(v, str) and k.lower() not in _PROTECTED_HEADERS}
        if isinstance(link_headers, dict)
        else None
    )
    href = urljoin(url, link["href"])
    if str(link.get("method", "GET")).upper() != "POST":
        return PageRequest(href, "GET", None, headers)
    body = link.get("body")
    if not isinstance(body, dict):
        body = first.content
    elif link.get("merge") is True:
        body = {**first.content, **body}
    return PageRequest(href, "POST", body, headers)


def read_page(page: FetchedAnswer) -> tuple[list[Any], dict[str, Any] | None, int | None]:
    """Features, next link and announced total of a page; the next link is in the body, or else in the HTTP ``Link`` header.

    OGC API - Features, 7.15.4, allows a next link in the header alone: https://docs.ogc.org/is/17-069r4/17-069r4.html#_response_6
    """
    features, following, total = checked_page(page.content)
    return features, following or _header_link(page.headers.get("Link", "")), total


def _header_link(header: str) -> dict[str, Any] | None:
    """The ``next`` link of a ``Link`` header (RFC 8288) in the form of a link in a body; None if missing."""
    for link in requests.utils.parse_header_links(header):
        if "next" in str(link.get("rel", "")).lower().split() and link.get("url"):
            return {"rel": "next", "href": link["url"]}
    return None


def checked_page(page: Any) -> tuple[list[Any], dict[str, Any] | None, int | None]:
    """Features, next link and announced total of a page; raises ``ValueError`` if it is no feature collection."""
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
    totals = [_number(page.get("numberMatched")), _number(context.get("matched") if isinstance(context, dict) else None)]
    return page["features"], following[0] if following else None, max((total for total in totals if total is not None), default=None)


def _number(value: Any) -> int | None:
    """A total, written as a number or as text; None for any other value."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15 and value == int(value):
        return int(value)
    return None
