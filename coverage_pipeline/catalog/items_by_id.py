"""Single items asked for again by id, with their assets: scans leave these out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from coverage_pipeline.catalog.answers import Cancelled, dict_of, dicts_of
from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.http import HttpSession
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.providers import profile_of
from coverage_pipeline.redaction import host_of
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor


@dataclass(frozen=True)
class WantedItem:
    """An item that a scenes file lists."""

    sensor: str
    provider: str | None
    collection: str | None
    item_id: str
    href: str | None
    """Its own address, where the catalogue stated one."""


@dataclass(frozen=True)
class ItemAnswer:
    """What came of asking for one item."""

    wanted: WantedItem
    item: dict[str, Any] | None
    """As the provider wrote it; None where it could not be had."""
    problem: str | None
    """Why not, a sentence that names sensor, provider and item."""


def fetch_items(wanted: Sequence[WantedItem], sensors: Mapping[str, CoverageSensor], options: ScanOptions) -> Iterator[ItemAnswer]:
    """Ask for items one by one, in order, several at once for each provider; a failure is an answer, never a shorter list.

    Only the host that a sensor's source names is asked: an address in a catalogue's answer may name any other.
    """
    with ExitStack() as stack:
        sessions: dict[tuple[str, str], tuple[AvailableSource, HttpSession]] = {}
        for one in wanted:
            source = _source(one, sensors)
            if source is not None and (one.sensor, source.provider) not in sessions:
                session = HttpSession(source.provider, profile_of(source, options.providers), options.patience, _failure_of(one, source))
                sessions[one.sensor, source.provider] = source, stack.enter_context(session)
        with ThreadPoolExecutor(max((session.profile.parallel for _, session in sessions.values()), default=1)) as pool:
            yield from pool.map(lambda one: _answer(one, sessions.get((one.sensor, one.provider or ""))), wanted)


def _source(one: WantedItem, sensors: Mapping[str, CoverageSensor]) -> AvailableSource | None:
    sources = sensors[one.sensor].available_sources if one.sensor in sensors else ()
    return next((source for source in sources if source.provider == one.provider), None)


def _failure_of(one: WantedItem, source: AvailableSource) -> Any:
    def fail(kind: type[CatalogError], message: str) -> CatalogError:
        return kind(source.public(f"{one.sensor}: {source.provider} ({source.collection_id}) {message}"))

    return fail


def _answer(one: WantedItem, known: tuple[AvailableSource, HttpSession] | None) -> ItemAnswer:
    name = f"{one.sensor} {one.item_id}"
    if known is None:
        where = one.provider or "its provider"
        return ItemAnswer(one, None, f"{name}: no source of the sensor is at {where} any more; scan the month again")
    source, session = known
    address = item_address(one, source)
    if address is None:
        return ItemAnswer(one, None, f"{name}: {source.provider} lists no address to ask for it again; take it from the provider by its id")
    if urlsplit(address).netloc != urlsplit(source.endpoint).netloc:
        return ItemAnswer(one, None, f"{name}: its address is at another host ({host_of(address)}), which is not asked")
    try:
        content = session.fetch(address, doing=f"giving item {one.item_id}").content
    except (CatalogError, Cancelled) as error:
        return ItemAnswer(one, None, f"{name} cannot be had: {error}")
    item = content if source.kind not in ("cmr", "earthaccess") else _of_granule(content, one, address)
    if not isinstance(item, dict) or item.get("type") != "Feature" or item.get("id") != one.item_id:
        return ItemAnswer(one, None, f"{name}: {source.provider} gave something else for it; scan the month again")
    return ItemAnswer(one, _with_collection_link(item, source), None)


def _with_collection_link(item: dict[str, Any], source: AvailableSource) -> dict[str, Any]:
    """The item with the link that STAC demands of one that names a collection; some catalogues leave it out."""
    links, collection = dicts_of(item.get("links")), item.get("collection")
    if not isinstance(collection, str) or any(link.get("rel") == "collection" for link in links):
        return item
    root, name = source.endpoint.partition("?")[0].rstrip("/"), quote(collection, safe="")
    address = f"{root}/search/collections.json?short_name={name}" if source.kind in ("cmr", "earthaccess") else f"{root}/collections/{name}"
    return {**item, "links": [*links, {"rel": "collection", "href": address, "type": "application/json"}]}


def item_address(one: WantedItem, source: AvailableSource) -> str | None:
    """Where an item is asked for: at the API by its id, else at its own address; None for a path or no address."""
    if source.kind == "stac":
        collection = quote(one.collection or source.collection_id, safe="")
        return f"{source.endpoint.partition('?')[0].rstrip('/')}/collections/{collection}/items/{quote(one.item_id, safe='')}"
    return one.href if one.href and urlsplit(one.href).scheme in ("http", "https") else None


def _of_granule(content: Any, one: WantedItem, address: str) -> dict[str, Any] | None:
    """A STAC item of a granule's UMM-G: CMR's own words in ``properties``, its "GET DATA" links as assets."""
    umm = content.get("umm", content) if isinstance(content, dict) else None
    if not isinstance(umm, dict) or umm.get("GranuleUR") != one.item_id:
        return None
    sizes = {}
    for part in dicts_of(dict_of(umm.get("DataGranule")).get("ArchiveAndDistributionInformation")):
        if isinstance(part.get("SizeInBytes"), int) and isinstance(part.get("Name"), str):
            sizes[part["Name"]] = part["SizeInBytes"]
    assets = {}
    for link in dicts_of(umm.get("RelatedUrls")):
        url = link.get("URL")
        if link.get("Type") != "GET DATA" or not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
            continue
        name = urlsplit(url).path.rpartition("/")[2]
        assets[name] = {"href": url, "roles": ["data"]} | ({"file:size": sizes[name]} if name in sizes else {})
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/file/v2.1.0/schema.json"],
        "id": one.item_id,
        "collection": one.collection,
        "geometry": None,
        "properties": {"datetime": None},
        "links": [{"rel": "via", "href": address, "type": "application/json"}],
        "assets": assets,
    }
