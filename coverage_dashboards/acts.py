"""What the page writes: requests. Each function says who does it; no other code of the page writes anything."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
import shapely

from coverage_dashboards.planning import Planning
from coverage_pipeline.requests.errors import RequestError
from coverage_pipeline.requests.flags import flag_for_request
from coverage_pipeline.requests.store import Request

MOST_FLAGGED = 500
"""Scenes that one click may flag."""


def flag_scenes(plan: Planning, rows: pa.Table, who: str, note: str) -> list[str]:
    """Record requests to ingest the scenes of a backlog, one for each sensor and UTC day; returns their ids.

    Raises ``RequestError`` for more than ``MOST_FLAGGED`` scenes, ``RequestStoreError`` where they cannot be written.
    """
    if rows.num_rows > MOST_FLAGGED:
        raise RequestError(f"{rows.num_rows} scenes are more than the {MOST_FLAGGED} that are flagged at once: tick fewer, or set a budget")
    by_day = defaultdict(list)
    for row in rows.to_pylist():
        by_day[row["sensor"], row["pass_time"].date()].append(row)
    ids = []
    for (sensor, day), scenes in by_day.items():
        place = shapely.union_all(shapely.from_wkb([row["geometry"] for row in scenes]))
        keys = sorted(row["scene_key"] for row in scenes)
        made = flag_for_request(
            place, (day, day), sensor, "ingest", store=plan.requests, sensors=plan.registry, who=who, note=note, scenes=keys
        )
        ids.append(made)
    return ids


def cancel_request(plan: Planning, request: Request, who: str, reason: str) -> Request:
    """Cancel a request as it was read.

    Raises ``RequestError`` where its state allows it no more, ``RequestConflict`` where somebody changed it since it was read.
    """
    return plan.requests.move(request, "cancelled", who=who, reason=reason)


def annotate_request(plan: Planning, request: Request, who: str, note: str) -> Request:
    """Set the note of a request as it was read; raises ``RequestConflict`` where somebody changed it since."""
    return plan.requests.annotate(request, note, who=who)
