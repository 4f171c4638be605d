"""What the page writes: requests, and areas saved as targets. No other code of the page writes anything.

Each function is told who does it, and refuses what their role does not allow (``NotAllowed``): a button that is hidden protects nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pyarrow as pa
import shapely

from coverage_dashboards.people import Person
from coverage_dashboards.planning import Planning
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.saved_targets import list_saved, remove_saved, save_target
from coverage_pipeline.redaction import printable
from coverage_pipeline.requests.errors import RequestError
from coverage_pipeline.requests.flags import new_request
from coverage_pipeline.requests.store import Recorded, Request
from coverage_pipeline.settings.access import Role

MOST_FLAGGED = 500
"""Scenes that one click may flag."""


def flag_scenes(plan: Planning, rows: pa.Table, who: Person, note: str) -> list[Recorded]:
    """Record requests to ingest the scenes of a backlog, one for each sensor and UTC day. Planners may.

    Raises ``NotAllowed``, ``RequestError`` for more than ``MOST_FLAGGED`` scenes, ``RequestStoreError`` where they cannot be written.
    """
    who.must_be(Role.PLANNER, "flagging scenes")
    if rows.num_rows > MOST_FLAGGED:
        raise RequestError(f"{rows.num_rows} scenes are more than the {MOST_FLAGGED} that are flagged at once: tick fewer, or set a budget")
    by_day = defaultdict(list)
    for row in rows.to_pylist():
        by_day[row["sensor"], row["pass_time"].date()].append(row)
    recorded = []
    for (sensor, day), scenes in by_day.items():
        place = shapely.union_all(shapely.from_wkb([row["geometry"] for row in scenes]))
        keys = sorted(row["scene_key"] for row in scenes)
        asked = new_request(place, (day, day), sensor, "ingest", plan.registry)
        recorded.append(plan.requests.add(replace(asked, who=who.name, note=note, scenes=keys)))
    return recorded


def cancel_request(plan: Planning, request: Request, who: Person, reason: str) -> Request:
    """Cancel a request as it was read: planners their own, admins everybody's.

    Raises ``NotAllowed``, ``RequestError`` where its state allows it no more, ``RequestConflict`` where somebody changed it since.
    """
    _may_change(who, request, "cancelling a request")
    return plan.requests.move(request, "cancelled", who=who.name, reason=reason)


def annotate_request(plan: Planning, request: Request, who: Person, note: str) -> Request:
    """Set the note of a request as it was read: planners their own, admins everybody's.

    Raises ``NotAllowed``, ``RequestConflict`` where somebody changed it since.
    """
    _may_change(who, request, "a note")
    return plan.requests.annotate(request, note, who=who.name)


def save_area(plan: Planning, outline: shapely.Geometry, who: Person, name: str, group: str, desired: str) -> str:
    """Save an outline as a target, with the clear observations a month that were typed (none: the sensor's own); its id. Planners may.

    Raises ``NotAllowed``, ``LocationsError`` that says what is wrong with what was typed, or why it cannot be written.
    """
    who.must_be(Role.PLANNER, "saving a target")
    wanted = None
    if desired.strip():
        try:
            wanted = float(desired.strip().replace(",", "."))
        except ValueError:
            raise LocationsError(f"{printable(desired, 20)} is no number of clear observations a month: type 0 to 31, or nothing") from None
    return save_target(plan.store, outline, name, who=who.name, group=group, desired=wanted)


def remove_area(plan: Planning, key: str, who: Person) -> None:
    """Remove a target that was saved on the page: planners their own, admins everybody's.

    Raises ``NotAllowed``, ``LocationsError`` where there is none of that id or it cannot be written.
    """
    who.must_be(Role.PLANNER, "removing a target")
    by = next((one.who for one in list_saved(plan.store) if one.id == key), who.name)
    if by != who.name:
        who.must_be(Role.ADMIN, f"removing a target of {by}")
    remove_saved(plan.store, key)


def _may_change(who: Person, request: Request, to: str) -> None:
    who.must_be(Role.PLANNER, to)
    if request.who != who.name:
        who.must_be(Role.ADMIN, f"{to} of {request.who or 'nobody named'}")
