"""Settling requests by evidence: a scene appeared, the holdings have it, or the window is over and nothing came (design section 12)."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import shapely

from coverage_pipeline.demand.partition_files import SCENE_COLUMNS, PartitionFiles, PartitionFilesMixed, read_partition_files
from coverage_pipeline.demand.place import DEFAULT_RADIUS_KM, outline_of
from coverage_pipeline.demand.target_stats import target_statistics
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.months import UTC, Month, window_months
from coverage_pipeline.requests.errors import RequestConflict
from coverage_pipeline.requests.states import RequestState
from coverage_pipeline.requests.store import Request, RequestStore
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.store import Store

log = logging.getLogger(__name__)
EVIDENCE = "evidence"
"""Who moves a request that no person moves."""
_WATCHED: tuple[RequestState, ...] = ("requested", "ordered", "acquired", "expired", "not_collected")


@dataclass(frozen=True)
class Settled:
    """A request that evidence moved."""

    request: str
    state: RequestState
    reason: str


def settle_requests(
    sensor: CoverageSensor, month: Month, store: Store, requests: RequestStore, *, cloud_lt: float, today: dt.date | None = None
) -> list[Settled]:
    """Move the requests of a sensor whose window has days of the month, by what its files say; returns what moved.

    *Acquired*: the scenes of one UTC day in the window, clear (below the request's cloud, else ``cloud_lt``, percent), cover 0.95 of the
    place; or all scenes that the request names are listed. *Closed*: the same of what is held, with scene keys and holdings as proof.
    *Expired*: the window and the publication lag are over, every month of it is scanned completely, and nothing is there. A point is a
    circle of 1 km. Doing it again changes nothing. Files that are not there, or do not go together, settle nothing.
    """
    moved = []
    now = today or dt.datetime.now(UTC).date()
    files_of = cache(lambda when: _files(sensor, when, store))  # read once for all requests
    for request in requests.all(sensor=sensor.key, states=_WATCHED):
        if month not in window_months(request.window_start, request.window_end):
            continue
        found = _evidence(request, files_of(month), cloud_lt)
        if found is None and request.state in ("requested", "ordered") and _is_over(request, sensor, files_of, cloud_lt, now):
            found = "expired", f"window to {request.window_end} and publication lag are over, every month is scanned, nothing came", {}
        if found is None or found[0] == request.state:
            continue
        state, reason, evidence = found
        try:
            requests.move(request, state, who=EVIDENCE, reason=reason, evidence=evidence)
        except RequestConflict as conflict:  # a person was faster; the next run looks again
            log.info("%s", conflict)
            continue
        moved.append(Settled(request.id, state, reason))
    return moved


def _evidence(request: Request, files: PartitionFiles | None, cloud_lt: float) -> tuple[RequestState, str, dict[str, Any]] | None:
    """What a month's files prove: closed, acquired, or nothing."""
    if files is None:
        return None
    if request.scenes:
        return _of_scenes(request, files)
    month = files.month
    row = _row(request, files, request.wanted_cloud if request.wanted_cloud is not None else cloud_lt)
    for state, column in (("closed", "held_clear_days"), ("acquired", "clear_days")):
        days = _days_within(row[column], request, month)
        if days:
            day = days[0]
            keys = [scene["scene_key"] for scene in row["scenes"] if scene["day"] == day and scene["clear"]]
            evidence = {
                "day": f"{month.key}-{day:02}",
                "scene_keys": keys,
                "holdings": _holdings_of(files, keys) if state == "closed" else [],
            }
            words = "the holdings cover the place" if state == "closed" else "clear scenes cover the place"
            return state, f"{words} on {month.key}-{day:02}", evidence  # type: ignore[return-value]
    return None


def _of_scenes(request: Request, files: PartitionFiles) -> tuple[RequestState, str, dict[str, Any]] | None:
    chosen = pc.is_in(files.scenes["scene_key"], value_set=pa.array(list(request.scenes), pa.string()))
    listed, matched = files.scenes.filter(chosen), files.matchup.filter(chosen)
    if set(listed["scene_key"].to_pylist()) != set(request.scenes):
        return None
    keys = sorted(request.scenes)
    if all(held is True for held in matched["held"].to_pylist()):
        return "closed", "the holdings have its scenes", {"scene_keys": keys, "holdings": _holdings_of(files, keys)}
    return "acquired", "its scenes are listed", {"scene_keys": keys, "holdings": []}


def _holdings_of(files: PartitionFiles, keys: list[str]) -> list[str]:
    """Names of the holdings of some scenes: their own ids, else the row's."""
    chosen = pc.is_in(files.scenes["scene_key"], value_set=pa.array(keys, pa.string()))
    names = pc.list_flatten(files.matchup.filter(chosen)["holdings"]).to_pylist()
    ids: Mapping[Any, Any] = dict(zip(files.holdings["holding"].to_pylist(), files.holdings["scene_id"].to_pylist(), strict=True))
    return [str(ids.get(name) or name) for name in names]


def _is_over(
    request: Request, sensor: CoverageSensor, files_of: Callable[[Month], PartitionFiles | None], cloud_lt: float, today: dt.date
) -> bool:
    """Whether nothing can come any more: the time is over, and each month of the window was scanned completely in vain."""
    if today <= request.window_end + dt.timedelta(days=sensor.publication_lag_days):
        return False
    for month in window_months(request.window_start, request.window_end):
        files = files_of(month)
        if files is None or files.scan.status != "complete":
            return False
        row = _row(request, files, request.wanted_cloud if request.wanted_cloud is not None else cloud_lt)
        if not row["catalog_known"] or _days_within(row["clear_days"], request, month):
            return False
    return True


def _files(sensor: CoverageSensor, month: Month, store: Store) -> PartitionFiles | None:
    try:
        return read_partition_files(sensor, month, store, SCENE_COLUMNS)
    except (StoreError, PartitionFilesMixed) as error:
        log.info("%s %s: requests are not settled: %s", sensor.key, month, error)
        return None


def _row(request: Request, files: PartitionFiles, cloud_lt: float) -> dict[str, Any]:
    table = target_statistics(
        _place(request),
        files.scenes,
        files.matchup,
        files.holdings,
        files.sensor,
        files.month,
        files.known,
        cloud_lt=cloud_lt,
        default_desired=1.0,
    )
    (row,) = table.to_pylist()
    result: dict[str, Any] = row
    return result


def _place(request: Request) -> Targets:
    shape = shapely.geometry.shape(request.geometry)
    return outline_of(shape, 0.0 if shape.area > 0 else DEFAULT_RADIUS_KM)


def _days_within(mask: int, request: Request, month: Month) -> list[int]:
    """Days of a mask that lie in the request's window; none where it is not known."""
    if mask & int(UNKNOWN):
        return []
    first = month.start.date()
    days = [day for day in range(1, month.days + 1) if mask >> (day - 1) & 1]
    return [day for day in days if request.window_start <= first.replace(day=day) <= request.window_end]
