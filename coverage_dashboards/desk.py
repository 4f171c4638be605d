"""One planner's session as its rooms see it: what is chosen, where they are, and the few things that a room may ask of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import panel as pn

from coverage_dashboards.background import Background
from coverage_dashboards.choices import Choices, View
from coverage_dashboards.fields import Cube
from coverage_dashboards.gazetteer import Found
from coverage_dashboards.people import Person
from coverage_dashboards.planning import planning
from coverage_dashboards.spot import Spot
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.geometry.bbox import BBox


class OpenPlace(Protocol):
    """Shows a place."""

    def __call__(self, found: Found, *, move: bool = True) -> None:
        """``move``: the map goes there."""


@dataclass
class Desk:
    """What is chosen. The planner's page keeps it; rooms read it, and call ``open_place``, ``open_room`` and ``tell``."""

    cube: Cube
    choices: Choices
    view: View
    spot: Spot
    box: Callable[[], BBox | None]
    """The part of the map that is seen; None: all of it."""
    open_place: OpenPlace
    open_room: Callable[[str], None]
    tell: Callable[[str, str], None]
    """Say something (text, severity: info, success, warning, error) above every room."""
    person: Person
    """Who looks at the page."""
    show_changes: Callable[[], None]
    """Show what changed on the map."""
    tick: Callable[[str], None]
    """Write into the address which scenes are ticked (``Spot.ticked``)."""
    found: Found | None = None
    """The place that is open."""
    background: Background = field(default_factory=Background)

    @property
    def dark(self) -> bool:
        """Whether the page is dark."""
        return self.spot.dark

    @property
    def stamp(self) -> str:
        """Changes with every build."""
        return self.cube.stamp

    @property
    def sensors(self) -> Sequence[str]:
        """Sensors that are chosen; all of the cube where none is."""
        return self.view.sensors or self.choices.sensors

    def targets(self) -> Targets | None:
        """The targets of the newest build; None where it has none. Raises ``PlannerError``. May read a file."""
        plan = planning()
        targets: Targets | None = plan.places.get(("targets", self.stamp), plan.targets)
        return targets


class Room(Protocol):
    """A room of the page."""

    view: pn.viewable.Viewable

    def refresh(self) -> None:
        """Show what ``Desk`` asks for; called when the room is entered, and while it is open whenever something else is chosen."""
