"""Requests and their states: who asked for what, and what became of it. Rows of states are only ever added."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from coverage_pipeline.months import UTC
from coverage_pipeline.requests.database import RequestDatabase
from coverage_pipeline.requests.errors import RequestConflict, RequestError
from coverage_pipeline.requests.states import GIVEN_UP, RequestState, require_transition
from coverage_pipeline.requests.tables import REQUEST_STATES, REQUESTS


@dataclass(frozen=True)
class StateRow:
    """One row of a request's history."""

    number: int
    time: str
    """UTC, ISO 8601."""
    state: RequestState
    detail: str
    """The provider's own code; empty: ours says it."""
    who: str
    reason: str
    evidence: dict[str, Any]
    """What proves it: scene key, holdings, order number."""


@dataclass(frozen=True)
class Request:
    """A request as it stands."""

    id: str
    created: str
    who: str
    sensor: str
    kind: str
    """``ingest`` or ``task``."""
    window_start: dt.date
    window_end: dt.date
    """Last day."""
    geometry: dict[str, Any]
    """GeoJSON, EPSG:4326."""
    wanted_cloud: float | None
    """Percent that a scene must be below; None: what the settings call clear."""
    note: str
    scenes: tuple[str, ...]
    """Keys of the scenes to ingest, where they are known."""
    provider: str | None
    order_number: str | None
    version: int
    """Counts changes; a writer names the one it saw."""
    history: tuple[StateRow, ...]
    """Oldest first, never empty."""

    @property
    def state(self) -> RequestState:
        """The present state."""
        return self.history[-1].state


@dataclass(frozen=True)
class NewRequest:
    """What a planner asks for."""

    id: str
    sensor: str
    kind: str
    window_start: dt.date
    window_end: dt.date
    geometry: str
    """GeoJSON text."""
    who: str = ""
    note: str = ""
    wanted_cloud: float | None = None
    scenes: Sequence[str] = ()

    def id_of(self, attempt: int) -> str:
        """The id of the request as it is asked for the first, second, … time."""
        return self.id if attempt == 1 else hashlib.sha256(f"{self.id}\x1f{attempt}".encode()).hexdigest()[:16]


class Recorded(NamedTuple):
    """What became of a request that was to be recorded."""

    id: str
    is_new: bool
    """Else it was there already."""


class RequestStore:
    """The requests of one database."""

    def __init__(self, database: RequestDatabase) -> None:
        self.database = database

    @classmethod
    def at(cls, path: Path | str) -> RequestStore:
        """The store in an SQLite file."""
        return cls(RequestDatabase(sa.URL.create("sqlite", database=str(path)).render_as_string()))

    def add(self, request: NewRequest) -> Recorded:
        """Record a request as ``requested``. Where it is there already, that one stays as it is; where it was given up (cancelled,
        rejected, not collected, expired), it is asked for again, as a request of its own.

        Raises ``RequestStoreError``.
        """
        now = _now()
        values = {
            "created": now, "who": request.who, "sensor": request.sensor, "kind": request.kind,
            "window_start": request.window_start.isoformat(), "window_end": request.window_end.isoformat(), "geometry": request.geometry,
            "wanted_cloud": request.wanted_cloud, "note": request.note, "scenes": json.dumps(list(request.scenes)), "version": 1,
        }  # fmt: skip
        with self.database.transaction("record the request") as connection:
            if connection.dialect.name == "postgresql":  # two that add the same at once: the second finds it
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(int(request.id[:15], 16))))
            for attempt in itertools.count(1):
                key = request.id_of(attempt)
                last = sa.select(REQUEST_STATES.c.state).where(REQUEST_STATES.c.request_id == key).order_by(REQUEST_STATES.c.number.desc())
                state = connection.execute(last).scalars().first()
                if state is None:
                    break
                if state not in GIVEN_UP:
                    return Recorded(key, False)
            connection.execute(sa.insert(REQUESTS).values({"id": key, **values}))
            first = {"request_id": key, "number": 1, "time": now, "state": "requested", "who": request.who, "reason": request.note}
            connection.execute(sa.insert(REQUEST_STATES).values(first))
        return Recorded(key, True)

    def all(self, *, sensor: str | None = None, states: Sequence[RequestState] = (), who: str | None = None) -> list[Request]:
        """Requests, oldest first; none where there is no database yet. Raises ``RequestStoreError``."""
        if not self.database.exists():
            return []
        query = sa.select(REQUESTS).order_by(REQUESTS.c.created, REQUESTS.c.id)
        if sensor is not None:
            query = query.where(REQUESTS.c.sensor == sensor)
        if who is not None:
            query = query.where(REQUESTS.c.who == who)
        with self.database.transaction("read the requests", writes=False) as connection:
            rows = connection.execute(query).mappings().all()
            history = connection.execute(
                sa.select(REQUEST_STATES).order_by(REQUEST_STATES.c.request_id, REQUEST_STATES.c.number)
            ).mappings()
            by_request: dict[str, list[StateRow]] = {}
            for row in history:
                by_request.setdefault(row["request_id"], []).append(_state_row(dict(row)))
        found = [_request(dict(row), by_request.get(row["id"], [])) for row in rows]
        return [one for one in found if not states or one.state in states]

    def get(self, request_id: str) -> Request:
        """One request, by its id or by the beginning of it that no other has; raises ``RequestError`` where there is none."""
        found = [one for one in self.all() if one.id.startswith(request_id)] if request_id else []
        exact = [one for one in found if one.id == request_id]
        if len(exact or found) != 1:
            what = f"{len(found)} requests begin with" if found else "there is no request"
            raise RequestError(f"{what} {request_id!r}: coverage-planner requests list shows them")
        return (exact or found)[0]

    def move(
        self,
        request: Request,
        state: RequestState,
        *,
        who: str,
        reason: str = "",
        detail: str = "",
        evidence: Mapping[str, Any] | None = None,
        provider: str | None = None,
        order_number: str | None = None,
    ) -> Request:
        """Add a state to a request as it was read; returns it as it then is.

        Raises ``RequestError`` where the state cannot follow, ``RequestConflict`` where somebody changed the request since it was read.
        """
        require_transition(request.id, request.state, state)
        changes: dict[str, Any] = {}
        if provider is not None:
            changes["provider"] = provider
        if order_number is not None:
            changes["order_number"] = order_number
        row = {"state": state, "detail": detail, "who": who, "reason": reason, "evidence": json.dumps(dict(evidence or {}))}
        return self._change(request, changes, row, who)

    def annotate(self, request: Request, note: str, *, who: str) -> Request:
        """Set the note of a request as it was read; raises ``RequestConflict`` as ``move`` does."""
        return self._change(request, {"note": note}, None, who)

    def _change(self, request: Request, changes: Mapping[str, Any], row: Mapping[str, Any] | None, who: str) -> Request:
        with self.database.transaction(f"change request {request.id}") as connection:
            seen = sa.and_(REQUESTS.c.id == request.id, REQUESTS.c.version == request.version)
            done = connection.execute(sa.update(REQUESTS).where(seen).values(**changes, version=request.version + 1))
            if done.rowcount == 1 and row is not None:
                number = len(request.history) + 1
                connection.execute(sa.insert(REQUEST_STATES).values(request_id=request.id, number=number, time=_now(), **row))
        if done.rowcount != 1:
            now = self.get(request.id)
            last = now.history[-1]
            by = last.who or "somebody else"
            raise RequestConflict(
                f"request {request.id} was changed by {by} at {last.time} (now {now.state}) after {who or 'you'} read it; "
                "nothing was written: look at it again"
            )
        return self.get(request.id)


def _now() -> str:
    return dt.datetime.now(UTC).isoformat(timespec="seconds")


def _state_row(row: Mapping[str, Any]) -> StateRow:
    return StateRow(
        row["number"], row["time"], cast(RequestState, row["state"]), row["detail"], row["who"], row["reason"], json.loads(row["evidence"])
    )


def _request(row: Mapping[str, Any], history: Sequence[StateRow]) -> Request:
    return Request(
        id=row["id"],
        created=row["created"],
        who=row["who"],
        sensor=row["sensor"],
        kind=row["kind"],
        window_start=dt.date.fromisoformat(row["window_start"]),
        window_end=dt.date.fromisoformat(row["window_end"]),
        geometry=json.loads(row["geometry"]),
        wanted_cloud=row["wanted_cloud"],
        note=row["note"],
        scenes=tuple(json.loads(row["scenes"])),
        provider=row["provider"],
        order_number=row["order_number"],
        version=row["version"],
        history=tuple(history),
    )
