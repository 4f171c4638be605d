"""Where a planner is on the page: room, place, part of the map and theme, as the address carries them beside the view.

An address is untrusted, as in ``choices``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coverage_dashboards import beside, gazetteer
from coverage_dashboards.overlays import OVERS, Over
from coverage_pipeline.geometry.bbox import BBox

ROOMS: Mapping[str, str] = {
    "map": "Map",
    "targets": "Targets",
    "backlog": "Backlog",
    "requests": "Requests",
    "changes": "Changes",
    "known": "Knownness",
}
"""Rooms of the page by key, in the order of their tabs."""

_LONGEST_ID = 40


@dataclass(frozen=True)
class Spot:
    """Where somebody is."""

    room: str = "map"
    place: str = ""
    """What leads to the place that is open (``gazetteer.find``); empty: none is."""
    box: BBox | None = None
    """Part of the map that is seen, with longitudes that go on beyond ±180; None: all of the cube."""
    dark: bool = False
    changes: bool = False
    """Whether the map shows what changed against the month before, in place of the metric."""
    beside: str = ""
    """What a second map shows (``beside.view_beside``); empty: there is none."""
    over: tuple[Over, ...] = ()
    """What lies over the map."""
    ticked: str = ""
    """Which scenes of the backlog are ticked (``selections``); empty: all."""


def spot_from_address(parameters: Mapping[str, Sequence[bytes | str]]) -> tuple[Spot, list[str]]:
    """The spot that an address asks for, and which of its parts had to be left out."""
    refused = []

    def value(name: str) -> str:
        given = parameters.get(name)
        last = given[-1] if given else ""
        return last.decode("utf-8", "replace") if isinstance(last, bytes) else str(last)

    room = value("room") or "map"
    if room not in ROOMS:
        refused.append("room")
        room = "map"
    place = value("place")
    if len(place) > gazetteer.LONGEST:
        refused.append("place")
        place = ""
    box = _box(value("view"))
    if box is None and value("view"):
        refused.append("view")
    theme = value("theme")
    if theme not in ("", "light", "dark"):
        refused.append("theme")
    changes = value("changes")
    if changes not in ("", "1"):
        refused.append("changes")
    second = value("beside")
    if len(second) > beside.LONGEST:
        refused.append("beside")
        second = ""
    asked = [name for name in value("over").split(",") if name]
    over = tuple(kind for kind in OVERS if kind in asked)
    if len(asked) != len(over):
        refused.append("over")
    ticked = value("ticked")
    if len(ticked) > _LONGEST_ID:
        refused.append("ticked")
        ticked = ""
    return Spot(room, place, box, theme == "dark", changes == "1", second, over, ticked), refused


def spot_address(spot: Spot) -> dict[str, str]:
    """The part of an address that ``spot_from_address`` makes the same spot of."""
    parts = {
        "room": spot.room if spot.room != "map" else "",
        "place": spot.place,
        "view": ",".join(f"{degrees:.3f}".rstrip("0").rstrip(".") for degrees in spot.box) if spot.box else "",
        "theme": "dark" if spot.dark else "",
        "changes": "1" if spot.changes else "",
        "beside": spot.beside,
        "over": ",".join(spot.over),
        "ticked": spot.ticked,
    }
    return {name: text for name, text in parts.items() if text}


def _box(text: str) -> BBox | None:
    if not text or len(text) > 100:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        return None
    fits = all(map(math.isfinite, (west, south, east, north))) and -360 <= west < east <= 360 and -90 <= south < north <= 90
    return (west, south, east, north) if fits else None
