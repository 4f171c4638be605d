"""Check a provider before a long scan with a few small requests: what works, what is slow, what is configured wrongly.

The requests use the code of the scanner, so that a passed check means a working scan. Text of a provider is untrusted: it is shortened and
freed of control characters before it enters a ``Check``. The caller escapes the markup of its terminal library.

Longer than 400 lines, because the checks are one sequence, in which each needs the results of those before.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from coverage_pipeline.catalog.answers import Cancelled
from coverage_pipeline.catalog.checks import Check, Verdict, dicts_in, names_in_words, parsed_utc, similar_names, texts_in
from coverage_pipeline.catalog.errors import CatalogError, CatalogUnreadable
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.providers import profile_of
from coverage_pipeline.catalog.scan_job import SOURCES
from coverage_pipeline.catalog.sources.base import Source, Window, WindowCount
from coverage_pipeline.catalog.sources.cmr import CmrSource
from coverage_pipeline.catalog.sources.stac import StacSource
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.redaction import printable
from coverage_pipeline.scenes.item_fields import parse_cloud
from coverage_pipeline.scenes.items import other_platform
from coverage_pipeline.scenes.scene_key import parse_time, scene_identity
from coverage_pipeline.scenes.schema import DEFAULT_CLOUD_FIELD
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor, platform_name

SLOW_SECONDS = 5.0
"""A check that takes longer is slow: a scan sends thousands of larger requests, and gateways time out after 30 s."""
STEP_SECONDS = 30.0
"""Longest time of one check, with its retry and any wait that the provider asks for."""
_TIMEOUT = 12.0
"""Seconds for the next bytes of an answer: two tries fit into ``STEP_SECONDS``."""
_SEARCHED_DAYS = 3
"""Days in the middle of a month that are searched first: a global month is too large for some providers."""
_FIRST_MONTHS = 3
"""First months of the mission that are searched if the recent month has no scenes."""
_RECENTLY = dt.timedelta(days=92)
"""A collection whose time span ended longer ago is no longer continued."""
_WRONG_STATUSES = (400, 404, 405, 406, 410, 414, 415, 422)
"""HTTP statuses of a wrong request, rather than a refused or failed one."""
_ABSENT = ("has no such collection", "has no collection")
_ELSEWHERE = "not followed: name that address"


class _Wrong(Exception):
    """The configuration is wrong."""


class _Failed(Exception):
    """The provider failed."""


def examine(sensor: CoverageSensor, source: AvailableSource, options: ScanOptions, *, today: dt.date | None = None) -> Iterator[Check]:
    """Check one source of a sensor, step by step; stops at a failure that makes further checks pointless."""
    patience = replace(
        options.patience,
        timeout_seconds=min(_TIMEOUT, options.patience.timeout_seconds),
        retries=min(1, options.patience.retries),
        backoff_seconds=min(1.0, options.patience.backoff_seconds),
    )
    try:
        api = SOURCES[source.kind](source, profile_of(source, options.providers), patience, sensor.key)
    except PlannerError as error:
        yield Check("source", "wrong", printable(error))
        return
    with api.session or nullcontext():
        yield from _Examination(sensor, source, options, api, today or dt.datetime.now(UTC).date()).checks()


class _Examination:
    """The checks of one source, and their intermediate results."""

    def __init__(self, sensor: CoverageSensor, source: AvailableSource, options: ScanOptions, api: Source, today: dt.date) -> None:
        self.sensor, self.source, self.options, self.api = sensor, source, options, api
        self.profile = profile_of(source, options.providers)
        # The month before the last closed one, which is published by now whatever the lag.
        recent = Month.of(today).shift(-2)
        self.recent = recent if sensor.last_month is None else min(recent, sensor.last_month)
        self.today = today
        self.section = f"[[sensors.sources.{sensor.key}]]"
        self.provider_section = f'[providers."{source.provider}"]'
        self.platforms: list[str] | None = None
        """Platforms that the collection lists; None: no list."""
        self.span: tuple[dt.datetime | None, dt.datetime | None] | None = None
        """Begin and end of the collection, None: open; None: not stated."""
        self.item: dict[str, Any] | None = None
        """The item that the item checks examine."""
        self.found_in: Month | None = None
        self.announced: int | None = None

    def checks(self) -> Iterator[Check]:
        """All checks in order; ends after one that is wrong or failed, up to the search."""
        if isinstance(self.api, StacSource):
            steps: list[tuple[str, Callable[[], str]]] = [
                ("landing page", self._landing_page),
                ("conformance", self._item_search),
                ("collection", self._collection),
            ]
        elif isinstance(self.api, CmrSource):
            steps = [("collection", self._collection)]
        else:
            steps = [("files", self._files)]
        steps.append(("search", self._search))
        for name, ask in steps:
            check = self._step(name, ask)
            yield check
            if check.verdict in ("wrong", "failed"):
                return
            if name == "conformance":
                yield self._step("features", self._features)
        item_steps: list[tuple[str, Callable[[], str]]] = [
            ("time span", self._time_span),
            ("scene", self._scene),
            ("scene key", self._scene_key),
            ("cloud", self._cloud),
            ("platform", self._platform),
            ("totals", self._totals),
        ]
        for name, ask in item_steps:
            yield self._step(name, ask)

    def _step(self, name: str, ask: Callable[[], str]) -> Check:
        """Run one check, and cancel it after ``STEP_SECONDS``."""
        session = self.api.session
        before = Counter(session.retried) if session else Counter()
        watchdog = threading.Timer(STEP_SECONDS, session.cancel if session else lambda: None)
        watchdog.daemon = True
        watchdog.start()
        began = time.monotonic()
        verdict: Verdict = "ok"
        try:
            text = ask()
        except _Wrong as error:
            verdict, text = "wrong", str(error)
        except _Failed as error:
            verdict, text = "failed", str(error)
        except Cancelled:
            verdict, text = "failed", f"gave no answer within {STEP_SECONDS:.0f} s; try again later, or name another source"
        except PlannerError as error:
            verdict = "wrong" if self._is_wrong(name, error) else "failed"
            text = self._without_prefix(str(error)) + self._advice(name, error)
        except Exception as error:  # libraries raise anything for odd answers; other sources must still be checked
            verdict = "wrong" if name == "landing page" else "failed"
            text = f"gave an unusable answer: {type(error).__name__}: {error}" + self._advice(name, error)
        finally:
            watchdog.cancel()
        seconds = round(time.monotonic() - began, 3)
        again = Counter(session.retried) - before if session else Counter()
        if verdict == "wrong":
            text = text.replace("; try again later, or name another source", "")
        elif again and verdict == "ok":
            text += f"; needed a retry ({', '.join(again)})"
        if verdict == "ok" and seconds > SLOW_SECONDS:
            verdict = "slow"
            text += (
                f"; took {seconds:.1f} s: scans will be slow, and larger requests time out; scan small areas, or name another source first"
            )
        return Check(name, verdict, printable(self._without_secrets(text)), seconds)

    def _is_wrong(self, name: str, error: PlannerError) -> bool:
        text = str(error)
        if _ELSEWHERE in text or any(absent in text for absent in _ABSENT):
            return True
        if name == "landing page" and isinstance(error, CatalogUnreadable):
            return True
        if name == "files":  # a missing path or a file that is no dump: waiting does not help
            return self.api.session is None or not isinstance(error, CatalogError)
        return getattr(error, "status", None) in _WRONG_STATUSES

    def _advice(self, name: str, error: Exception) -> str:
        text, status = str(error), getattr(error, "status", None)
        if status in (401, 403):
            return "; it may require a login, or block your network"
        if name == "landing page" and (isinstance(error, CatalogUnreadable) or not isinstance(error, PlannerError)):
            return (
                "; set endpoint to the address of the API's landing page, which is JSON (if it is, the provider may be under maintenance)"
            )
        if name == "search" and status in (405, 415):
            other = "GET" if self.profile.method == "POST" else "POST"
            return f'; set method = "{other}" in {self.provider_section}'
        if "Failed to resolve" in text:
            return "; check the network, and the spelling of the host"
        waits = self.options.patience.timeout_seconds
        if "no answer within" in text and waits > _TIMEOUT:
            return f"; a scan waits longer, {waits:g} s"
        return ""

    def _without_prefix(self, text: str) -> str:
        """A message of the scanner without sensor, provider and collection, which the heading of the checks names."""
        collection = getattr(self.api, "collection", self.source.collection_id)
        text = text.replace(f"{self.sensor.key}: {self.source.provider} ({collection}) ", "")
        return text.replace(", as nothing was found in it", "")  # only true in a scan

    def _without_secrets(self, text: str) -> str:
        """A text without the signature that an address of a file may contain."""
        return self.source.public(text)

    # A STAC API

    def _client(self) -> Any:
        assert isinstance(self.api, StacSource)
        return self.api.open()

    def _landing_page(self) -> str:
        client = self._client()
        versions = [
            match[1] for uri in client.get_conforms_to() if (match := re.match(r"https://api\.stacspec\.org/v([^/]+)/core", str(uri)))
        ]
        version = f"STAC API {versions[0]}" if versions else "STAC API of unknown version"
        return f"answers: {version} ({printable(client.title or client.id, 60)})"

    def _item_search(self) -> str:
        client = self._client()
        if not client.conforms_to("ITEM_SEARCH"):
            claims = "claims to conform to nothing" if not client.get_conforms_to() else "does not claim item-search"
            raise _Wrong(f'{claims}: it cannot be searched; for a catalogue of files, set kind = "static" in {self.section}')
        link = client.get_search_link()
        host = urlsplit(link.absolute_href).netloc if link is not None else self.source.provider
        if host != self.source.provider:
            raise _Wrong(f"its search is at another host, {printable(host, 100)}: check endpoint in {self.section}")
        return "claims item-search"

    def _features(self) -> str:
        client = self._client()
        trusted = self.profile.features
        if absent := [name for name in trusted if not client.conforms_to(name.upper())]:
            kept = ", ".join(f'"{name}"' for name in trusted if name not in absent)
            raise _Wrong(
                f"does not claim {', '.join(absent)}, which its profile trusts: set features = [{kept}] in {self.provider_section}"
            )
        return f"claims what its profile trusts: {', '.join(trusted)}" if trusted else "its profile trusts no extension of the search"

    def _collection(self) -> str:
        try:
            self.api.require_collection()
        except CatalogError as error:
            if not any(absent in str(error) for absent in _ABSENT):
                raise
            similar = similar_names(self.source.collection_id, self._collection_ids())
            hint = f"; it has {', '.join(similar)}" if similar else ""
            raise _Wrong(f"has no collection {self._name}{hint}: check collection_id in {self.section}") from None
        if isinstance(self.api, StacSource):
            self._describe_stac()
        else:
            self._describe_cmr()
        wanted = self.source.platforms
        listed = f"; platforms {names_in_words(self.platforms)}" if self.platforms else ""
        if self.platforms and (unlisted := [p for p in wanted if platform_name(p) not in map(platform_name, self.platforms)]):
            raise _Wrong(
                f"does not list {', '.join(unlisted)} among its platforms ({names_in_words(self.platforms)}): scenes of other names "
                f"would be left out; set platforms in {self.section} to the catalogue's names"
            )
        return f"has {self._name}{listed}"

    @property
    def _name(self) -> str:
        return self.source.collection_id + (f" version {self.source.version}" if self.source.version else "")

    def _describe_stac(self) -> None:
        collection = self._client().get_collection(self.source.collection_id)  # cached by require_collection
        try:
            intervals = collection.extent.temporal.intervals
            starts, ends = [i[0] for i in intervals], [i[1] for i in intervals]
            self.span = (None if None in starts else min(map(parsed_utc, starts)), None if None in ends else max(map(parsed_utc, ends)))
        except (AttributeError, TypeError, ValueError, IndexError):
            self.span = None
        summaries = collection.summaries.to_dict() if collection.summaries is not None else {}
        self.platforms = texts_in(summaries.get("platform"))

    def _describe_cmr(self) -> None:
        entries = self._cmr_collections([("short_name", self.source.collection_id)])
        own = [umm for umm in entries if self.source.version in (None, umm.get("Version"))]
        if not own:
            return
        umm = own[0]
        self.platforms = texts_in([p.get("ShortName") for p in dicts_in(umm.get("Platforms"))])
        ranges = [span for extent in dicts_in(umm.get("TemporalExtents")) for span in dicts_in(extent.get("RangeDateTimes"))]
        present = any(extent.get("EndsAtPresentFlag") is True for extent in dicts_in(umm.get("TemporalExtents")))
        starts, ends = [[parse_time(r.get(name)) for r in ranges] for name in ("BeginningDateTime", "EndingDateTime")]
        if ranges:
            begin = min((t for t in starts if t), default=None) if None not in starts else None
            end = max((t for t in ends if t), default=None) if None not in ends and not present else None
            self.span = (begin, end)

    def _cmr_collections(self, params: list[tuple[str, str]]) -> list[dict[str, Any]]:
        assert self.api.session is not None
        answer = self.api.session.fetch(
            f"{self.source.endpoint.rstrip('/')}/search/collections.umm_json",
            doing="looking up its collections",
            params=[*params, ("page_size", "50")],
            tries=1,
        ).content
        entries = answer.get("items") if isinstance(answer, dict) else None
        return [umm for entry in dicts_in(entries) if isinstance(umm := entry.get("umm"), dict)]

    def _collection_ids(self) -> list[str]:
        """Ids of the provider's collections, as far as one request gives them; empty after an error."""
        wanted = self.source.collection_id
        try:
            if isinstance(self.api, CmrSource):
                beginning = [("short_name[]", f"{wanted[: max(3, len(wanted) // 2)]}*"), ("options[short_name][pattern]", "true")]
                entries = self._cmr_collections(beginning)
                return [f"{umm.get('ShortName')} version {umm.get('Version')}" for umm in entries]
            client = self._client()
            if children := [unquote(urlsplit(str(link.href)).path.rstrip("/").rpartition("/")[2]) for link in client.get_links("child")]:
                return children
            assert self.api.session is not None
            root, mark, query = self.source.endpoint.partition("?")  # the query may contain a key
            url = f"{root.rstrip('/')}/collections{mark}{query}"
            answer = self.api.session.fetch(url, doing="listing its collections", tries=1).content
            listed = answer.get("collections") if isinstance(answer, dict) else None
            return [entry["id"] for entry in dicts_in(listed) if isinstance(entry.get("id"), str)]
        except CatalogError:
            return []

    # Files

    def _files(self) -> str:
        self.api.require_collection()
        newest = self.api.newest()
        if newest is None:
            return "can be read; its items state no usable time"
        # The recent month of a dump is that of its newest item.
        self.recent = min(self.recent, Month.of(newest))
        old = "" if newest.date() >= self.today - _RECENTLY else ": for later months renew it"
        return f"can be read; its newest item is of {newest:%Y-%m-%d}{old}"

    # Items, from any kind of source

    def _first(self, window: Window) -> dict[str, Any] | None:
        window_count = WindowCount()
        pages = self.api.pages(window, None, window_count)
        try:
            page = next(pages, [])
        finally:
            if hasattr(pages, "close"):
                pages.close()  # request no further page
        self.announced = window_count.announced
        return next((item if isinstance(item, dict) else {} for item in page), None)

    def _search(self) -> str:
        middle = self.recent.start + dt.timedelta(days=(self.recent.days - _SEARCHED_DAYS) // 2)
        narrow = Window(middle, middle + dt.timedelta(days=_SEARCHED_DAYS), 1)
        windows = [(self.recent, narrow)] if self.api.windowed else []
        windows.append((self.recent, Window(self.recent.start, self.recent.end, 1)))
        first = self.sensor.first_month
        if first is not None and first < self.recent:
            windows.append((first, Window(first.start, min(first.shift(_FIRST_MONTHS), self.recent).start, 1)))
        for month, window in windows:
            self.item = self._first(window)
            if self.item is not None:
                self.found_in = month
                break
        if self.item is None:
            since = (
                f" or of the sensor's first months from {first}" if len(windows) > 1 and first is not None and first < self.recent else ""
            )
            raise _Wrong(
                f"has no scenes of {self.recent}{since}: check collection_id in {self.section}, and the sensor's first_month and last_month"
            )
        if self.found_in != self.recent:
            return f"has no scenes of {self.recent}, but of the sensor's first months: check whether the collection is still continued"
        return f"finds scenes of {self.recent}"

    def _time_span(self) -> str:
        if self.span is None:
            return "is not stated by the collection" if self.api.windowed else "of files is that of their items"
        begin, end = self.span
        text = f"{begin.date() if begin else 'always'} to {end.date() if end else 'now'}"
        first = self.sensor.first_month
        if begin is not None and first is not None and begin >= first.end:
            # Extents are often outdated, so search the months themselves.
            until = min(begin, first.shift(_FIRST_MONTHS).end)
            if self._first(Window(first.start, until, 1)) is None:
                raise _Wrong(
                    f"{text}, while the sensor delivers from {first}: earlier months would look empty; set the sensor's first_month, or "
                    "name a source with these months first"
                )
            return f"{text}, though it has older scenes"
        last = self.sensor.last_month
        needed = dt.datetime.combine(self.today - _RECENTLY, dt.time(), UTC) if last is None else last.start
        if end is not None and end < needed:
            if self.found_in != self.recent:
                raise _Wrong(f"{text}: the collection is not continued; name its successor in {self.section}")
            return f"{text}, though it has newer scenes"
        return f"{text}, as the sensor needs"

    @property
    def _properties(self) -> dict[str, Any]:
        properties = (self.item or {}).get("properties")
        return properties if isinstance(properties, dict) else {}

    @property
    def _id(self) -> str:
        item_id = (self.item or {}).get("id")
        return item_id if isinstance(item_id, str) else ""

    def _scene(self) -> str:
        item = self.item or {}
        missing = [
            *(["id"] if not self._id else []),
            *(["geometry"] if item.get("geometry") is None else []),
            *(["time"] if not any(parse_time(self._properties.get(name)) for name in ("datetime", "start_datetime")) else []),
        ]
        boxed = missing == ["geometry"] and isinstance(item.get("bbox"), list)
        if boxed:
            return f"{printable(self._id, 100)} has no geometry; its bounding box replaces it"
        if missing:
            raise _Failed(
                f"the scene ({printable(self._id, 100) or 'without id'}) has no {' and no '.join(missing)}: such scenes are rejected; "
                "name another source if all are"
            )
        return f"{printable(self._id, 100)} has id, geometry and time"

    def _scene_key(self) -> str:
        family = self.sensor.family
        if family == "other":
            return 'is the id, as the sensor\'s family is "other"'
        key = scene_identity(family, self._id, self._properties).key
        if key is None:
            raise _Wrong(
                f'{printable(self._id, 100)} is no id of the family "{family}": copies of a scene would be counted twice, and no holding '
                f"found; check collection_id in {self.section} and the sensor's family"
            )
        return f"{printable(key, 100)} is understood"

    def _cloud(self) -> str:
        if self.sensor.cloud == "not_applicable":
            return "is irrelevant to the sensor"
        name = self.source.cloud_field or DEFAULT_CLOUD_FIELD
        if name not in self._properties:
            cloud_properties = [str(key) for key in self._properties if "cloud" in str(key).lower()]
            alternatives = (
                f"; its properties with cloud in their name: {names_in_words(cloud_properties)}"
                if cloud_properties
                else "; none of its properties has cloud in its name"
            )
            raise _Wrong(f"the scene has no {name}, so none would count as clear{alternatives}: check cloud_field in {self.section}")
        value = self._properties[name]
        if math.isnan(parse_cloud(value)):
            shown_value = "nothing" if value is None else printable(repr(value), 40)
            return f"{name} has {shown_value} instead of a percentage: such scenes do not count as clear"
        return f"{name} is {parse_cloud(value):g} %"

    def _platform(self) -> str:
        given, own = self._properties.get("platform"), self.source.platforms
        if not isinstance(given, str):
            return "is not stated by the scene" + (": it counts as the sensor's" if own else "")
        if not own:
            return f"{printable(given, 60)}; all scenes of the collection are the sensor's"
        in_id = scene_identity(self.sensor.family, self._id, self._properties).platform
        if other_platform([platform_name(name) for name in own], given, in_id) is None:
            return f"{printable(given, 60)} is the sensor's"
        if self.platforms:  # the collection lists the sensor's platforms, so that the scene is another satellite's
            return f"{printable(given, 60)} is not the sensor's ({', '.join(own)}): such scenes are left out"
        raise _Wrong(
            f"the scene is of {printable(given, 60)}, which platforms ({', '.join(own)}) lack, so it is left out; set platforms in "
            f"{self.section} to the catalogue's names"
        )

    def _totals(self) -> str:
        if not self.api.windowed:
            return "of files are their numbers of items"
        return f"{'announces' if self.announced is not None else 'does not announce'} how many scenes there are"
