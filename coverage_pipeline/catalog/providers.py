"""Provider profiles: page size, request rate, and the API features that work as documented.

A profile is looked up by the host of a source's endpoint. ``[providers."host"]`` in ``config/build.toml`` overrides its fields, or
describes an unknown host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.sensors.registry import AvailableSource

SearchFeature = Literal["fields", "sort", "query", "filter"]
SearchMethod = Literal["POST", "GET"]


class ProviderError(PlannerError, ValueError):
    """A provider profile has an invalid setting."""


@dataclass(frozen=True)
class ProviderProfile:
    """Request parameters of one provider. Raises ``ProviderError`` for a value out of range."""

    page_size: int = 250
    """Items per page, unless the source sets its own."""
    requests_per_second: float | None = 5.0
    """Most requests per second, over all scans of this process; None: no limit."""
    parallel: int = 4
    """Windows read in parallel."""
    throttle_statuses: tuple[int, ...] = (429,)
    """HTTP statuses that mean "too many requests" rather than a refusal."""
    features: tuple[SearchFeature, ...] = ()
    """Search extensions that work as documented. Only ``fields`` is used, to omit the assets, which are most of an item."""
    method: SearchMethod = "POST"
    """HTTP method of the search, and thus of its ``next`` links."""
    window_hours: float | None = None
    """Length of the first windows of a global scan, for providers at which a month is known to be too large; None: start with the whole
    span, and divide it if it is too large."""
    netrc: bool = False
    """Whether to send the login for this host from ``~/.netrc`` (or the file that ``NETRC`` names), to this host alone."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Page that documents each value, by field name."""

    def __post_init__(self) -> None:
        if not 1 <= self.page_size <= 10_000:
            raise ProviderError(f"page_size {self.page_size} must be 1..10000")
        if self.requests_per_second is not None and not 0 < self.requests_per_second <= 1000:
            raise ProviderError(f"requests_per_second {self.requests_per_second} must be > 0 and at most 1000")
        if not 1 <= self.parallel <= 32:
            raise ProviderError(f"parallel {self.parallel} must be 1..32")
        if invalid_statuses := [s for s in self.throttle_statuses if not 400 <= s <= 599]:
            raise ProviderError(f"throttle_statuses {invalid_statuses} must be HTTP errors (400..599)")
        if unknown_features := sorted(set(self.features) - set(get_args(SearchFeature))):
            raise ProviderError(f"unknown features {', '.join(unknown_features)}: known are {', '.join(get_args(SearchFeature))}")
        if self.window_hours is not None and not 1 <= self.window_hours <= 24 * 366:
            raise ProviderError(f"window_hours {self.window_hours} must be 1..8784")
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))


UNKNOWN = ProviderProfile()
"""Defaults for an unknown host: low request rate, no optional features assumed."""

LOOPBACK = ProviderProfile(page_size=1000, requests_per_second=None, parallel=2)
"""A server on this machine: no rate limit."""

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
"""Profiles by host. Fields that are not set have the values of ``UNKNOWN``."""

_PROFILE = TypeAdapter(ProviderProfile)
_SETTABLE = tuple(f.name for f in fields(ProviderProfile) if f.name != "sources")


def overridden(host: str, changes: Mapping[str, Any]) -> ProviderProfile:
    """The profile of a host with some fields changed; raises ``ProviderError`` for an unknown field or an invalid value."""
    unknown = sorted(set(changes) - set(_SETTABLE))
    if unknown:
        raise ProviderError(f"{host}: no such setting {', '.join(unknown)}; use one of {', '.join(_SETTABLE)}")
    base = _known(host)
    try:
        return _PROFILE.validate_python({**{name: getattr(base, name) for name in _SETTABLE}, "sources": dict(base.sources), **changes})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field_path = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ProviderError(f"{host}: {f'{field_path}: ' if field_path else ''}{message}") from None


def _known(host: str) -> ProviderProfile:
    return PROVIDERS.get(host) or (LOOPBACK if is_loopback(host) else UNKNOWN)


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine as it calls itself; an empty one is every address."""
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0] if name.count(":") == 1 else name
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def profile_of(source: AvailableSource, overrides: Mapping[str, ProviderProfile] | None = None) -> ProviderProfile:
    """The profile of a source: the override of its host, else the known one, with the page size of the source if it sets one."""
    host = source.provider
    profile = (overrides or {}).get(host) or _known(host)
    return replace(profile, page_size=source.page_size) if source.page_size else profile
