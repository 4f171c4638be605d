"""The states of a request and what may follow what: the one place that says so (design section 12)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from coverage_pipeline.requests.errors import RequestError

RequestState = Literal["requested", "ordered", "rejected", "acquired", "closed", "cancelled", "not_collected", "expired"]
STATES: tuple[RequestState, ...] = get_args(RequestState)

TRANSITIONS: Mapping[RequestState, frozenset[RequestState]] = MappingProxyType(
    {
        # A scene may appear, and even be in the holdings, of a request that nobody ordered.
        "requested": frozenset({"ordered", "rejected", "acquired", "closed", "cancelled", "expired"}),
        # A provider goes through several codes while we call it ordered: each is a row of its own.
        "ordered": frozenset({"ordered", "rejected", "acquired", "closed", "cancelled", "not_collected", "expired"}),
        "acquired": frozenset({"closed"}),
        # Late scenes exist: what was given up may still be found in the archive, and then in the holdings.
        "expired": frozenset({"acquired", "closed"}),
        "not_collected": frozenset({"acquired", "closed"}),
        "rejected": frozenset(),
        "closed": frozenset(),
        "cancelled": frozenset(),
    }
)
"""For each state those that may follow it."""

GIVEN_UP: frozenset[RequestState] = frozenset({"rejected", "cancelled", "not_collected", "expired"})
"""States of a request that brought nothing: the same may be asked for again."""

STAPI_STATES: Mapping[str, RequestState] = MappingProxyType(
    {
        **dict.fromkeys(("received", "accepted", "scheduled", "held", "processing", "reserved", "tasked"), "ordered"),
        "rejected": "rejected",
        "completed": "acquired",
        "user_cancelled": "cancelled",
        "cancelled": "not_collected",
        "canceled": "not_collected",  # before STAPI 0.0.3
        "failed": "not_collected",
        "expired": "expired",
    }
)
"""Our state for each status code of STAPI 0.1."""


def require_transition(request_id: str, before: RequestState, after: RequestState) -> None:
    """Raise ``RequestError`` where ``after`` cannot follow ``before``."""
    if after not in TRANSITIONS[before]:
        possible = ", ".join(sorted(TRANSITIONS[before])) or "nothing"
        raise RequestError(f"request {request_id} is {before}: {after} cannot follow it, only {possible}")
