"""What is known of each provider's service: how much it gives a page, how often it may be asked, what of its API is to be trusted.

A profile is looked up by the host of a source's endpoint. ``[providers."host"]`` in ``config/build.toml`` changes any of it, or
describes a host that is not known here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.sensors.registry import AvailableSource

SearchFeature = Literal["fields", "sort", "query", "filter"]
SearchMethod = Literal["POST", "GET"]


class ProviderError(PlannerError, ValueError):
    """A provider is described in a way that cannot be used."""


@dataclass(frozen=True)
class ProviderProfile:
    """How one provider is asked."""

    page_size: int = 250
    """Items asked for a page, where the source does not say."""
    requests_per_second: float | None = 5.0
    """The most requests a second, over all scans of this process; None: no limit."""
    parallel: int = 4
    """Windows read at the same time."""
    throttle_statuses: tuple[int, ...] = (429,)
    """HTTP statuses that mean "slower" rather than "no"."""
    features: tuple[SearchFeature, ...] = ()
    """Extensions of the search that do what they say. Only ``fields`` is used, to leave the assets out, which are most of an item."""
    method: SearchMethod = "POST"
    """How a search is sent, and with it how its ``next`` link leads on."""
    window_hours: float | None = None
    """Length of the windows in which the globe is asked for from the start, where it is known that a month is too much; None: the whole is
    asked for, and cut where it turns out too large."""
    netrc: bool = False
    """Whether a login for the host is taken from ``~/.netrc`` (or the file that ``NETRC`` names) and sent, to this host alone."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Page that each fact above was taken from, by field name."""

    def __post_init__(self) -> None:
        if not 1 <= self.page_size <= 10_000:
            raise ProviderError(f"page_size {self.page_size} must be 1..10000")
        if self.requests_per_second is not None and not 0 < self.requests_per_second <= 1000:
            raise ProviderError(f"requests_per_second {self.requests_per_second} must be > 0 and at most 1000")
        if not 1 <= self.parallel <= 32:
            raise ProviderError(f"parallel {self.parallel} must be 1..32")
        if wrong := [s for s in self.throttle_statuses if not 400 <= s <= 599]:
            raise ProviderError(f"throttle_statuses {wrong} are no HTTP errors (400..599)")
        if wrong_features := sorted(set(self.features) - set(get_args(SearchFeature))):
            raise ProviderError(f"unknown features {', '.join(wrong_features)}: known are {', '.join(get_args(SearchFeature))}")
        if self.window_hours is not None and not 1 <= self.window_hours <= 24 * 366:
            raise ProviderError(f"window_hours {self.window_hours} must be 1..8784")
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))


UNKNOWN = ProviderProfile()
"""A host that nothing is known of: polite, and trusted in nothing."""

LOOPBACK = ProviderProfile(page_size=1000, requests_per_second=None, parallel=2)
"""A server on this machine: no limit of rate."""

PROVIDERS: Mapping[str, ProviderProfile] = MappingProxyType(
    {
        "planetarycomputer.microsoft.com": ProviderProfile(
            requests_per_second=4,
            parallel=3,  # heavy users were banned, and searches that take 30 s end in 504
            features=("fields", "sort", "query"),
            window_hours=24,
            sources={
                "requests_per_second": "https://github.com/microsoft/PlanetaryComputer/issues/427",
                "parallel": "https://github.com/microsoft/PlanetaryComputer/issues/240",
                "features": "https://planetarycomputer.microsoft.com/api/stac/v1/conformance",
            },
        ),
        "earth-search.aws.element84.com": ProviderProfile(
            page_size=250,
            requests_per_second=5,
            throttle_statuses=(403, 429),
            features=("fields", "sort", "query"),  # a `filter` is accepted and ignored
            sources={
                "page_size": "https://github.com/Element84/earth-search/issues/60",
                "throttle_statuses": "https://github.com/Element84/earth-search/issues/19",
                "features": "https://earth-search.aws.element84.com/v1/conformance",
            },
        ),
        "stac.dataspace.copernicus.eu": ProviderProfile(
            page_size=100,
            requests_per_second=4,  # 5 are allowed; 429 with Retry-After beyond
            parallel=3,
            features=("fields", "sort", "query"),
            window_hours=24,
            sources={
                "requests_per_second": "https://github.com/e-sensing/sits/issues/1560",
                "features": "https://stac.dataspace.copernicus.eu/v1/conformance",
            },
        ),
        "geoservice.dlr.de": ProviderProfile(
            page_size=100,
            requests_per_second=4,
            parallel=2,
            features=("fields", "sort", "filter"),  # no `query`
            sources={"features": "https://geoservice.dlr.de/eoc/ogc/stac/v1/conformance"},
        ),
        "cmr.earthdata.nasa.gov": ProviderProfile(
            page_size=2000,
            requests_per_second=10,
            parallel=3,
            method="GET",
            sources={
                "page_size": "https://cmr.earthdata.nasa.gov/search/site/docs/search/api.html#query-parameters",
            },
        ),
        "cmr.uat.earthdata.nasa.gov": ProviderProfile(page_size=2000, parallel=3, method="GET"),
        "landsatlook.usgs.gov": ProviderProfile(features=("fields", "sort", "query")),
    }
)
"""By host. A search is asked within what these say; what they do not say is ``UNKNOWN``'s."""

_PROFILE = TypeAdapter(ProviderProfile)
_SETTABLE = tuple(f.name for f in fields(ProviderProfile) if f.name != "sources")


def overridden(host: str, changes: Mapping[str, Any]) -> ProviderProfile:
    """The profile of a host with some of its fields changed; raises ``ProviderError`` for what is no field, or no value of it."""
    unknown = sorted(set(changes) - set(_SETTABLE))
    if unknown:
        raise ProviderError(f"{host}: no such setting {', '.join(unknown)}; known here: {', '.join(_SETTABLE)}")
    base = _known(host)
    try:
        return _PROFILE.validate_python({**{name: getattr(base, name) for name in _SETTABLE}, "sources": dict(base.sources), **changes})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ProviderError(f"{host}: {f'{where}: ' if where else ''}{message}") from None


def _known(host: str) -> ProviderProfile:
    return PROVIDERS.get(host) or (LOOPBACK if _is_loopback(host) else UNKNOWN)


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def profile_of(source: AvailableSource, overrides: Mapping[str, ProviderProfile] | None = None) -> ProviderProfile:
    """How a source is asked: what is set for its host, else what is known of it; a page size that the source names wins."""
    host = source.provider
    profile = (overrides or {}).get(host) or _known(host)
    return replace(profile, page_size=source.page_size) if source.page_size else profile
