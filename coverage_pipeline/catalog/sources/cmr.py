"""NASA's Common Metadata Repository (CMR) as a source: pages of granules, converted to STAC-like items.

Searches use ``/search/granules.umm_json``, with paging by the ``CMR-Search-After`` header. CMR takes the hits of a page from its index,
and their metadata from a database. A granule that the database does not return is missing without a sign. A short page is therefore not
the end (earthaccess-dev/earthaccess#1445 lost 10,085 of 12,070 granules by this assumption): only the announced total shows it.

API: https://cmr.earthdata.nasa.gov/search/site/docs/search/api.html; granule format (UMM-G):
https://cdn.earthdata.nasa.gov/umm/granule/v1.6.6/umm-g-json-schema.json
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from coverage_pipeline.catalog.answers import FetchedAnswer, dict_of, dicts_of
from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.http import LATER, HttpSession
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.catalog.sources.base import Window, WindowCount
from coverage_pipeline.geometry.bbox import BBox, split_bbox
from coverage_pipeline.months import UTC
from coverage_pipeline.scenes.item_fields import parse_cloud
from coverage_pipeline.scenes.schema import DEFAULT_CLOUD_FIELD
from coverage_pipeline.sensors.registry import AvailableSource, platform_name

MAX_PAGE_SIZE = 2000
"""Most granules per page (CMR documentation, "Query Parameters"); CMR refuses more."""

CLOUD_ATTRIBUTES = ("CLOUD_COVERAGE",)
"""Additional attributes with the cloud percentage of a granule without ``CloudCover``, case-insensitive.

CMR's own cloud search falls back to the same name (nasa/Common-Metadata-Repository#1722), and recorded HLS granules have it. A
source's ``cloud_field`` adds another name.
"""

# Both are documented sort keys. A granule UR is unique in its collection, so that the order has no ties.
_SORT_KEYS = ("start_date", "granule_ur")

# CMR answers a query that runs for 170 s with a part of its hits and status 200. The documentation has two names of the header.
_TIMED_OUT_HEADERS = ("CMR-Time-Out", "CMR-Timed-Out")

# The provider's dates in order of closeness to the production time, closest first (UMM-G: ProviderDates/Type).
_PROVIDER_DATES = ("Update", "Insert", "Create")


@dataclass(frozen=True)
class _Page:
    """One answer to a granule search."""

    entries: list[Any]
    hits: int
    after: str | None
    """``CMR-Search-After`` value of the next page; None after the last page."""


class CmrSource:
    """One collection of CMR. A search needs no credentials, and sends none unless the profile sets ``netrc``."""

    windowed = True
    item_root: str | None = None  # the address of a granule contains its concept id

    def __init__(self, source: AvailableSource, profile: ProviderProfile, patience: Patience, label: str) -> None:
        """``label`` names the sensor and month in every error."""
        self.source = source
        self.label = label
        self.collection = f"{source.collection_id}_{source.version}" if source.version else source.collection_id
        """Short name and version as CMR's ``entry_id`` joins them."""
        self._hint = f"check collection_id, version and endpoint in [[sensors.sources.{label.split()[0]}]]"
        self.session: HttpSession = HttpSession(source.provider, profile, patience, self._failed)

    def newest(self) -> dt.datetime | None:
        """None: CMR is a live source."""
        return None

    def pages(self, window: Window, bbox: BBox | None, window_count: WindowCount) -> Iterator[list[Any]]:
        """Pages of granules as STAC-like items, acquired in the window (both ends included) and meeting ``bbox`` (degrees; None:
        anywhere).

        A box across the antimeridian (west > east) is searched as two. An entry that is no granule is passed on for the rejected table.
        Raises ``CatalogUnavailable``, ``CatalogUnreadable`` or ``CatalogTruncated``; all pages without an error are all granules.
        """
        for box in [None] if bbox is None else split_bbox(bbox):
            yield from self._pages(window, box, window_count)

    def total(self, window: Window, bbox: BBox | None) -> int:
        """Number of announced hits."""
        boxes = [None] if bbox is None else split_bbox(bbox)
        doing = "counting its granules"
        return sum(self._search([*self._params(window, box)[:-3], ("page_size", "1")], None, doing, None).hits for box in boxes)

    def _collection_params(self) -> list[tuple[str, str]]:
        version = [("version", self.source.version)] if self.source.version else []
        return [("short_name", self.source.collection_id), *version]

    def _params(self, window: Window, bbox: BBox | None) -> list[tuple[str, str]]:
        return [
            *self._collection_params(),
            ("temporal[]", f"{_instant(window.start)},{_instant(window.end, up=True)}"),
            *((("bounding_box", ",".join(map(_degrees, bbox))),) if bbox is not None else ()),
            ("page_size", str(min(window.limit, MAX_PAGE_SIZE))),
            *(("sort_key[]", key) for key in _SORT_KEYS),
        ]

    def _pages(self, window: Window, bbox: BBox | None, window_count: WindowCount) -> Iterator[list[Any]]:
        params = self._params(window, bbox)
        tries = window.tries
        before = window_count.announced or 0
        concepts: set[str] = set()
        revisions: set[tuple[str, Any]] = set()
        tokens: set[str] = set()
        unnamed = number = largest_total = 0
        after: str | None = None
        while True:
            number += 1
            doing = f"{window.name}, page {number}"
            page = self._search(params, after, doing, tries)
            window_count.pages += 1
            largest_total = max(largest_total, page.hits)
            window_count.announced = before + page.hits
            named = {concept for entry in page.entries if (concept := _concept(entry)) is not None}
            unnamed += sum(_concept(entry) is None for entry in page.entries)
            if page.entries and number > 1 and named <= revisions:
                raise self._truncated(f"page {number} of {window.name} has no new granule", page.hits, len(concepts) + unnamed)
            revisions |= named
            concepts |= {concept for concept, _ in named}
            received = len(concepts) + unnamed
            if page.entries:
                yield [self._item(entry, doing) for entry in _newest_first(page.entries)]
            if page.after is None or (not page.entries and received >= page.hits):
                break
            if not page.entries:
                raise self._truncated(f"page {number} of {window.name} is empty", page.hits, received)
            if page.after in tokens:
                raise self._truncated(f"page {number} of {window.name} leads back to a page already seen", page.hits, received)
            tokens.add(page.after)
            after = page.after
        if received < page.hits:
            raise self._truncated(f"it stopped short at page {number} of {window.name}", page.hits, received)
        if received < largest_total:
            self._require_fewer(params, largest_total, received)
        window_count.boxes.append((received, largest_total))

    def _require_fewer(self, params: list[tuple[str, str]], largest_total: int, received: int) -> None:
        """Check a total that fell during the scan with a new search: granules were deleted meanwhile, or an answer was wrong."""
        total = self._search(params, None, "checking its total", None).hits
        if not 0 < total <= received:
            raise self._truncated(f"its total fell during the scan, and is {total} in a new search", largest_total, received)

    def require_collection(self) -> None:
        """Raise ``CatalogUnavailable`` if the collection does not exist: CMR answers a misspelt name with 0 hits."""
        doing = "looking up its collection, as nothing was found in it"
        fetched = self._ask("collections", [*self._collection_params(), ("page_size", "1")], None, doing, None)
        if _total(fetched.content) == 0:
            raise self._failed(CatalogUnavailable, f"has no such collection; {self._hint}")

    def _search(self, params: list[tuple[str, str]], after: str | None, doing: str, tries: int | None) -> _Page:
        fetched = self._ask("granules", params, after, doing, tries)
        answer = fetched.content
        announced = fetched.headers.get("CMR-Hits", "")
        hits = max(_total(answer), int(announced) if announced.isdecimal() and len(announced) < 16 else 0)
        if any(fetched.headers.get(name, "").lower() == "true" for name in _TIMED_OUT_HEADERS):
            raise self._truncated(f"its query timed out ({doing})", hits, len(answer["items"]))
        return _Page(answer["items"], hits, fetched.headers.get("CMR-Search-After"))

    def _ask(self, concept: str, params: list[tuple[str, str]], after: str | None, doing: str, tries: int | None) -> FetchedAnswer:
        """A checked answer with ``hits`` and ``items``."""
        return self.session.fetch(
            f"{self._root}/{concept}.umm_json",
            doing=doing,
            params=params,
            headers={"Client-Id": "coverage-planner"} | ({"CMR-Search-After": after} if after is not None else {}),
            check=_checked,
            tries=tries,
            hint=self._hint,
        )

    @property
    def _root(self) -> str:
        return f"{self.source.endpoint.rstrip('/')}/search"

    def _item(self, entry: Any, doing: str) -> Any:
        """A granule as a STAC-like item. The collector rejects any other entry with a reason."""
        if not isinstance(entry, dict):
            return entry
        umm, meta = dict_of(entry.get("umm")), dict_of(entry.get("meta"))
        self._require_collection_of(dict_of(umm.get("CollectionReference")), doing)
        concept = meta.get("concept-id")
        href = f"{self._root}/concepts/{quote(str(concept), errors='replace')}.umm_json"
        geometry, bbox = _footprint(umm)
        item: dict[str, Any] = {
            "type": "Feature",
            "id": umm.get("GranuleUR"),
            "collection": self.collection,
            "geometry": geometry,
            "properties": {
                **_times(umm),
                "created": _production_time(umm),
                "platform": self._platform(umm),
                self.source.cloud_field or DEFAULT_CLOUD_FIELD: self._cloud(umm),
            },
            "links": [{"rel": "self", "type": "application/json", "href": href}] if isinstance(concept, str) else [],
        }
        if bbox is not None:
            item["bbox"] = bbox
        return item

    def _require_collection_of(self, reference: Mapping[str, Any], doing: str) -> None:
        """Raise for a granule of another collection: CMR searched all for an unknown short name (nasa/Common-Metadata-Repository#2302)."""
        for wanted, name in ((self.source.collection_id, "ShortName"), (self.source.version, "Version")):
            actual = reference.get(name)
            if wanted is not None and isinstance(actual, str) and actual.casefold() != wanted.casefold():
                raise self._failed(
                    CatalogUnreadable,
                    f"gave a granule of another collection ({name} {actual}, {doing}); {self._hint}",
                )

    def _platform(self, umm: Mapping[str, Any]) -> str | None:
        """Platform of a granule; of several, one of the sensor's."""
        names = [name for platform in dicts_of(umm.get("Platforms")) if isinstance(name := platform.get("ShortName"), str)]
        wanted = {platform_name(name) for name in self.source.platforms}
        own = [name for name in names if platform_name(name) in wanted]
        return next(iter(own or names), None)

    def _cloud(self, umm: Mapping[str, Any]) -> Any:
        """First usable cloud percentage as CMR writes it, else the first unusable value, so that the scene shows it; None: no value."""
        wanted = [name.casefold() for name in (self.source.cloud_field, *CLOUD_ATTRIBUTES) if name]
        attributes: dict[str, Any] = {}
        for attribute in dicts_of(umm.get("AdditionalAttributes")):
            values = attribute.get("Values")
            if isinstance(values, list) and values:
                attributes.setdefault(str(attribute.get("Name")).casefold(), values[0])
        values_found = [v for v in (umm.get("CloudCover"), *(attributes.get(name) for name in wanted)) if v is not None]
        return next((v for v in values_found if not math.isnan(parse_cloud(v))), values_found[0] if values_found else None)

    def _failed(self, kind: type[CatalogError], message: str) -> CatalogError:
        return kind(self.source.public(f"{self.label}: {self.source.provider} ({self.collection}) {message}"))

    def _truncated(self, label: str, announced: int, received: int) -> CatalogError:
        return self._failed(
            CatalogTruncated,
            f"gave an incomplete answer: {label} ({announced} announced, {received} received); nothing was written; {LATER}",
        )


def _checked(answer: Any, _: Mapping[str, str]) -> None:
    """Raise ``ValueError`` for an answer without hits and items."""
    if not isinstance(answer, dict) or not isinstance(answer.get("items"), list) or _total(answer) < 0:
        content = f"it has: {', '.join(sorted(answer)[:8])}" if isinstance(answer, dict) else f"it is a {type(answer).__name__}"
        raise ValueError(f"no hits and items; {content}")


def _instant(when: dt.datetime, *, up: bool = False) -> str:
    """A time in CMR's format, rounded down, or up, to whole seconds, so that the window never shrinks."""
    utc = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    if up and utc.microsecond:
        utc += dt.timedelta(seconds=1)
    return utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def _degrees(value: float) -> str:
    """A coordinate without exponent, which CMR does not accept."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _total(answer: Mapping[str, Any]) -> int:
    hits = answer.get("hits")
    return hits if isinstance(hits, int) and not isinstance(hits, bool) else -1


def _concept(entry: Any) -> tuple[str, Any] | None:
    """Concept id and revision, which CMR counts as hits; two providers may have concepts of the same granule UR."""
    meta = dict_of(dict_of(entry).get("meta"))
    concept, revision = meta.get("concept-id"), meta.get("revision-id")
    return (concept, revision if isinstance(revision, int) else None) if isinstance(concept, str) else None


def _newest_first(entries: list[Any]) -> list[Any]:
    """Entries sorted by revision, newest first, if a granule UR repeats: the collector keeps the first and counts the others."""
    urs = [ur for entry in entries if isinstance(ur := dict_of(dict_of(entry).get("umm")).get("GranuleUR"), str)]
    if len(set(urs)) == len(urs):
        return entries

    def revision(entry: Any) -> tuple[int, str]:
        meta = dict_of(dict_of(entry).get("meta"))
        number = meta.get("revision-id")
        return number if isinstance(number, int) else -1, str(meta.get("revision-date", ""))

    return sorted(entries, key=revision, reverse=True)


def _times(umm: Mapping[str, Any]) -> dict[str, Any]:
    """The three STAC times. ``datetime`` of a granule with a range is its beginning, as in CMR's own STAC."""
    extent = dict_of(umm.get("TemporalExtent"))
    span = dict_of(extent.get("RangeDateTime"))
    start, end = span.get("BeginningDateTime"), span.get("EndingDateTime")
    return {"datetime": extent.get("SingleDateTime") or start, "start_datetime": start, "end_datetime": end}


def _production_time(umm: Mapping[str, Any]) -> str | None:
    """Production date of the product, else the closest of the provider's dates."""
    produced = dict_of(umm.get("DataGranule")).get("ProductionDateTime")
    if isinstance(produced, str):
        return produced
    dates = {str(date.get("Type")): date.get("Date") for date in dicts_of(umm.get("ProviderDates"))}
    return next((found for kind in _PROVIDER_DATES if isinstance(found := dates.get(kind), str)), None)


def _footprint(umm: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[float] | None]:
    """GeoJSON geometry of the granule's polygons, else the bbox of its rectangles; (None, None) for an orbit, or without both.

    A rectangle may be the real shape (a global grid) or the bounding box of a tilted scene, and UMM-G does not distinguish them. As a
    footprint, a bounding box would show coverage where there is none. Rectangles therefore become ``bbox``, which the collector flags.
    """
    domain = dict_of(dict_of(umm.get("SpatialExtent")).get("HorizontalSpatialDomain"))
    geometry = dict_of(domain.get("Geometry"))
    polygons = geometry.get("GPolygons")
    if isinstance(polygons, list) and polygons:
        coordinates = [_rings(polygon) for polygon in polygons]
        if len(coordinates) == 1:
            return {"type": "Polygon", "coordinates": coordinates[0]}, None
        return {"type": "MultiPolygon", "coordinates": coordinates}, None
    rectangles = geometry.get("BoundingRectangles")
    return None, _box(rectangles) if isinstance(rectangles, list) and rectangles else None


def _rings(polygon: Any) -> list[list[list[Any]]]:
    """Boundary and holes of a GPolygon. Invalid numbers stay, because a dropped point would change the footprint silently."""
    holes = dict_of(dict_of(polygon).get("ExclusiveZone")).get("Boundaries")
    boundaries = [dict_of(polygon).get("Boundary"), *(holes if isinstance(holes, list) else [])]
    return [_points(dict_of(boundary).get("Points")) for boundary in boundaries]


def _points(points: Any) -> list[list[Any]]:
    return [[dict_of(point).get("Longitude"), dict_of(point).get("Latitude")] for point in points] if isinstance(points, list) else []


def _box(rectangles: list[Any]) -> list[float] | None:
    """Smallest box around all rectangles, west > east across the antimeridian; None if one of them is invalid.

    CMR's rectangles end at ±180, so that a granule across the antimeridian has two adjacent ones.
    """
    sides = [_sides(rectangle) for rectangle in rectangles]
    known = [side for side in sides if side is not None]
    if len(known) < len(sides):
        return None
    south, north = min(s for _, s, _, _ in known), max(n for _, _, _, n in known)
    # East >= west: beyond 180 for a rectangle across the antimeridian.
    spans = sorted((west, east if east >= west else east + 360) for west, _, east, _ in known)
    # The box is the complement of the widest gap between the spans. The first gap is the one behind the last span.
    east = max(end for _, end in spans)
    west = spans[0][0]
    widest, reach = west + 360 - east, spans[0][1]
    for start, end in spans[1:]:
        if start - reach > widest:
            widest, west, east = start - reach, start, reach
        reach = max(reach, end)
    if widest <= 0:
        return [-180.0, south, 180.0, north]
    return [west, south, east - 360 if east > 180 else east, north]


def _sides(rectangle: Any) -> tuple[float, float, float, float] | None:
    names = ("WestBoundingCoordinate", "SouthBoundingCoordinate", "EastBoundingCoordinate", "NorthBoundingCoordinate")
    numbers = [float(side) for name in names if isinstance(side := dict_of(rectangle).get(name), int | float) and math.isfinite(side)]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == len(names) else None
