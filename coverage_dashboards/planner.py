"""The coverage planner's page: a sidebar of choices, a search field, and the rooms."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import panel as pn
import panel_material_ui as pmui
from panel.util import edit_readonly

from coverage_dashboards import areas, words
from coverage_dashboards.address_bar import AddressBar, parameters_of
from coverage_dashboards.background import later
from coverage_dashboards.backlog_room import BacklogRoom
from coverage_dashboards.beside import view_beside
from coverage_dashboards.changes_room import ChangesRoom
from coverage_dashboards.choices import Choices, View, address_of
from coverage_dashboards.desk import Desk, Room
from coverage_dashboards.escape import html, plain
from coverage_dashboards.fields import Cube, change_field, field_of, frames_limits, is_at_hand, open_cube
from coverage_dashboards.gazetteer import Found, NoSuchPlace, find
from coverage_dashboards.known_room import KnownRoom
from coverage_dashboards.map_room import NARROW, Drawn, MapRoom
from coverage_dashboards.outlines import prepare_outlines
from coverage_dashboards.overlays import OVERS, Over, compile_datashader
from coverage_dashboards.people import Person, access, person
from coverage_dashboards.requests_room import RequestsRoom
from coverage_dashboards.sidebar import Sidebar
from coverage_dashboards.spot import ROOMS, Spot, spot_address, spot_from_address
from coverage_dashboards.targets_room import TargetsRoom
from coverage_dashboards.typed import at_once, typed
from coverage_dashboards.viewport import compile_kernels
from coverage_pipeline.cube.dataset import grid_of
from coverage_pipeline.cube.schema import CoverageError
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.settings.access import Role
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.sources import SettingsError

log = logging.getLogger(__name__)

TITLE = "Coverage planner"
LOOK_FOR_A_REBUILD = 20_000
"""Milliseconds after which an open page looks whether the cube was rewritten under it."""

pn.extension(notifications=False)


def cube_location() -> str:
    """Where the settings say the cube is; raises ``SettingsError`` where they are wrong."""
    return str(load_settings(holdings=False).store().zarr)


@cache
def warm() -> None:
    """Have ready what every planner needs, once for the process: compiled code, outlines, the library of charts."""
    compile_kernels()
    prepare_outlines()
    compile_datashader()
    import hvplot.pandas  # noqa: F401 takes seconds


def page() -> pmui.Page:
    """The page for one planner, as their address asks for; a friendly one where there is no cube."""
    warm()
    try:
        who = person()
        who.must_be(Role.READER, "this page")
    except PlannerError as error:
        log.warning("%s", error)
        leave = '<p><a href="/logout">Sign out</a></p>' if access().sign_in == "oidc" else ""
        return _card(f"<h2>This page is not open to you</h2><p>{html(error)}</p>{leave}")
    try:
        cube = open_cube(cube_location())
    except (CoverageError, SettingsError) as error:
        log.warning("%s", error)
        return _no_cube(error)
    return Planner(cube, pn.state.session_args or {}, who).page


def _no_cube(error: PlannerError) -> pmui.Page:
    how = f"""
<h2>There is no coverage to show yet</h2>
<p>The planner draws what the pipeline builds, and found nothing to draw: <em>{html(error)}</em></p>
<p>Build one, then load this page again:</p>
<ul>
<li><code>make demo</code> makes a small simulated one in a few minutes, without the internet;</li>
<li><code>coverage-planner build</code> makes the real one, from the settings in <code>config/build.toml</code>.</li>
</ul>
<p>If it is already built somewhere else, set <code>COVERAGE_OUTPUT_ZARR</code> to its path.</p>
"""
    return _card(how)


def _who(who: Person) -> list[pn.pane.HTML]:
    """Who is signed in, for the page's head; nothing where nobody signs in."""
    if not who.access.signed_in:
        return []
    leave = ' <a href="/logout" style="color:inherit">Sign out</a>' if who.access.sign_in == "oidc" else ""
    said = f'<span class="who">{html(who.name)}<span class="rest"> ({who.role.name.lower()})</span></span>{leave}'
    return [
        pn.pane.HTML(
            said, margin=(0, 10), styles={"font-size": "15px", "margin-left": "auto", "color": "inherit"}, stylesheets=[_BADGE_REST]
        )
    ]


def _card(text: str) -> pmui.Page:
    card = pmui.Paper(pn.pane.HTML(text, styles={"font-size": "16px"}), elevation=1, margin=30, max_width=820)
    return pmui.Page(title=TITLE, main=[card], theme_config=_THEME)


@dataclass(frozen=True)
class Answer:
    """What the map is to show, or why there is nothing."""

    cube: Cube
    """The one that now stands there; where it is not the one that was asked, the rest says nothing."""
    drawn: Drawn | None = None
    problem: str | None = None
    beside: Drawn | None = None
    """What the second map is to show."""


class Planner:
    """One planner's session."""

    def __init__(self, cube: Cube, parameters: Mapping[str, Sequence[bytes | str]], who: Person) -> None:
        self._making = True
        choices = Choices.of(cube.ds)
        view, spot, refused = asked_for(choices, parameters)
        self.desk = Desk(
            cube, choices, view, spot, self._box, self._open_place, self._open_room, self._tell, who, self._show_changes, self._tick
        )
        self.address = AddressBar(self._travelled, self._measured, width=0, height=0, margin=0)
        self.sidebar = Sidebar(choices, view, self._chosen, self._compare, self._lay)
        self.map_room = MapRoom(self.desk, self._moved, self._close_place)
        self.rooms: dict[str, Room] = {"map": self.map_room}
        self._holders: dict[str, pn.Column] = {}
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.simulated = pn.pane.HTML("", margin=(0, 10), styles=_BADGE, stylesheets=[_BADGE_REST])
        self._say_simulated()
        self.notice_said = pn.pane.HTML("", margin=0, styles={"font-size": "15px"}, **wide)
        self.notice = pmui.Alert(self.notice_said, severity="info", visible=False, closeable=True, margin=(0, 0, 6, 0), **wide)
        said = self._say_refused(refused)
        self.tabs = pmui.TabMenu(items=list(ROOMS.values()), active=list(ROOMS).index(spot.room), scroll_buttons="auto", margin=0)
        self.tabs.param.watch(self._entered, "active")
        self.search = pmui.TextInput(
            label="Go to a place", placeholder="47.65, 9.35 · target · country · 32TNS · 193/027", size="small",
            margin=(2, 0), width=340, max_width=340, width_policy="max",
        )  # fmt: skip
        at_once(self.search)
        self.search.param.watch(self._searched, "enter_pressed")
        self.page = pmui.Page(
            title=TITLE,
            header=[self.simulated, *_who(who), self.address],
            sidebar=self.sidebar.objects(),
            main=[self._main()],
            sidebar_width=330,
            sidebar_resizable=False,
            theme_config=_THEME,
            dark_theme=spot.dark,
        )
        with edit_readonly(self.page):
            # It follows the process's own busy state: each event of anybody would be told to every page, a third of the server's time with
            # twenty of them, and the process would know each page for ever. The map says itself that it is at work.
            self.page.busy = self.page.param.loading
        self.page.param.watch(self._themed, "dark_theme")
        self._enter(spot.room, ask=False)
        self._show(view)
        self._go(spot, said)
        if parameters:  # an address that asks for nothing stays short
            self._write(push=False)
        self._making = False
        pn.state.onload(self._loaded)
        pn.state.on_session_destroyed(self._left)

    def _main(self) -> pn.Column:
        top = pn.Row(self.tabs, pn.HSpacer(), self.search, sizing_mode="stretch_width", stylesheets=[_TOP], margin=0)
        for key in ROOMS:
            self._holders[key] = pn.Column(visible=False, sizing_mode="stretch_both", margin=0, css_classes=[f"room-{key}"])
        self._holders["map"].append(self.map_room.view)
        return pn.Column(top, self.notice, *self._holders.values(), sizing_mode="stretch_both", margin=(4, 16, 10, 16), stylesheets=[_MAIN])

    # --- where the planner is

    def _measured(self, width: int) -> None:
        """On a narrow page the sidebar would cover all else: it waits to be opened."""
        if width < NARROW:
            self.page.sidebar_open = False

    def _box(self) -> Any:
        return self.map_room.map.box

    def _open_room(self, room: str) -> None:
        self.tabs.active = list(ROOMS).index(room)

    def _entered(self, event: Any) -> None:
        room = list(ROOMS)[min(max(int(event.new or 0), 0), len(ROOMS) - 1)]
        if room == self.desk.spot.room and self._holders[room].visible:
            return
        self.desk.spot = replace(self.desk.spot, room=room)
        self._enter(room)
        self._write(push=True)

    def _enter(self, room: str, *, ask: bool = True) -> None:
        for key, holder in self._holders.items():
            holder.visible = key == room
        if room not in self.rooms:
            self.rooms[room] = self._make_room(room)
            self._holders[room].append(self.rooms[room].view)
        if ask and room != "map":
            self.rooms[room].refresh()

    def _make_room(self, room: str) -> Room:
        return _ROOM_OF[room](self.desk)

    def _open_place(self, found: Found, *, move: bool = True) -> None:
        """Show a place, from wherever it was named; ``move``: the map goes there."""
        self._place(found, move=move)
        self.desk.spot = replace(self.desk.spot, place=found.text, box=self.map_room.map.reach)
        self.map_room.say_shares()
        if self.desk.spot.room != "map":
            self._open_room("map")
        else:
            self._write(push=True)

    def _place(self, found: Found, *, move: bool) -> None:
        if found.kind == "country":
            self.map_room.close_place()
            self.map_room.show_region(found)
            self._tell(f"{found.title}: click a place in it to see what there is.", "info")
        else:
            self.map_room.show_place(found, move=move)

    def _close_place(self) -> None:
        self.desk.spot = replace(self.desk.spot, place="")
        self.map_room.close_place()
        self._write(push=True)

    def _searched(self, *_: Any) -> None:
        def look() -> None:
            self._find(typed(self.search), self._found_by_search)

        if not later(_AFTER_ENTER, look):
            look()

    def _found_by_search(self, found: Found) -> None:
        self._tell("", "info")
        self._open_place(found)

    def _find(self, text: str, show: Any, said: str = "") -> None:
        """Look a place up; ``said`` stands before what is said where there is none."""
        if not text.strip():
            return
        grid = grid_of(self.desk.cube.ds)

        def look() -> Found:
            if text.startswith("area:"):
                area = areas.kept(text.removeprefix("area:").strip())
                if area is None:
                    raise NoSuchPlace("That area is not kept any more, for the server was started since: draw or upload it again.")
                return area
            try:
                targets = self.desk.targets()
            except PlannerError:
                targets = None  # the room of the targets says why
            return find(text, grid, targets)

        self.desk.background.run("find", look, show, lambda problem: self._tell(f"{said} {problem}".strip(), "info"))

    def _go(self, spot: Spot, said: str = "") -> None:
        """Show what an address asks for beside the view; ``said``: what was said of the rest of it."""
        if spot.box is not None:
            self.map_room.go_to(spot.box, 0.0)
        if spot.place:
            self._find(spot.place, lambda found: self._place(found, move=spot.box is None), said)
        else:
            self.map_room.close_place()

    def _moved(self) -> None:
        self.desk.spot = replace(self.desk.spot, box=self.map_room.map.reach)
        self.map_room.say_shares()
        self._write(push=False)

    def _write(self, *, push: bool) -> None:
        self.address.write(address_of(self.desk.view) | spot_address(self.desk.spot), push=push)

    def _travelled(self, search: object) -> None:
        """Show what the address asks for that *back* or *forward* led to."""
        parameters = parameters_of(search)
        view, spot, refused = asked_for(self.desk.choices, parameters or {})
        spot = replace(spot, dark=self.desk.dark)
        if parameters is None:
            refused = ["address"]
        said = self._say_refused(refused)
        self.desk.spot = spot
        if list(ROOMS)[self.tabs.active] != spot.room:
            self._enter(spot.room)
            self.tabs.active = list(ROOMS).index(spot.room)
        self._show(view, travelled=True)
        if spot.box is None:
            self.map_room.home()
        self._go(spot, said)
        if refused:
            self._write(push=False)

    # --- what is chosen

    def _chosen(self, view: View, played: bool) -> None:
        self._tell("", "info")  # what was said was about what was shown before
        before = self.desk.view
        if (view.layer, view.metric, view.aggregation) != (before.layer, before.metric, before.aggregation):
            self.desk.spot = replace(self.desk.spot, changes=False)
        self._show(view)
        # A month that plays by would fill the history with a hundred entries.
        self._write(push=not played)

    def _show(self, view: View, *, travelled: bool = False) -> None:
        desk = self.desk
        desk.view = view = desk.choices.settled(view)
        if desk.spot.beside:
            self.map_room.make_second()
        self.sidebar.show(view, desk.choices, desk.spot.beside, desk.spot.over, travelled=travelled)
        self.sidebar.paint(desk.dark)
        self.map_room.working()
        cube, wanted, spot = desk.cube, self.sidebar.wanted_sensors, desk.spot
        if self._making and _is_at_hand(cube, view, spot):
            # The page comes with its map; a moment's work, and the rest of the page is being made in the same turn of the loop.
            try:
                self._answered(_look_up(cube, desk.choices, view, wanted, spot))
            except PlannerError as error:
                self._failed(str(error))
        else:
            desk.background.run("map", lambda: _look_up(cube, desk.choices, view, wanted, spot), self._answered, self._failed)
        if desk.spot.over or travelled:
            self.map_room.lay(desk.spot.over)
        self._refresh_rooms()

    def _lay(self, over: tuple[Over, ...]) -> None:
        """Lay outlines over the map."""
        self.desk.spot = replace(self.desk.spot, over=tuple(kind for kind in OVERS if kind in over))
        self.map_room.lay(self.desk.spot.over)
        self._write(push=True)

    def _tick(self, ticked: str) -> None:
        """Other scenes of the backlog are ticked."""
        if ticked != self.desk.spot.ticked:
            self.desk.spot = replace(self.desk.spot, ticked=ticked)
            self._write(push=False)

    def _compare(self, second: str) -> None:
        """Show another map beside the first, or none."""
        self.desk.spot = replace(self.desk.spot, beside=second)
        self._show(self.desk.view)
        self._write(push=True)

    def _show_changes(self) -> None:
        self.desk.spot = replace(self.desk.spot, changes=True)
        self._show(self.desk.view)
        self._open_room("map")

    def _refresh_rooms(self) -> None:
        self.rooms[self.desk.spot.room].refresh()
        if self.desk.spot.room != "map":
            self.map_room.refresh()

    def _answered(self, answer: Answer) -> None:
        if answer.cube is not self.desk.cube:
            self._take_over(answer.cube)
            return
        self.map_room.draw(answer.drawn, answer.problem, "info", answer.beside)

    def _failed(self, problem: str) -> None:
        self.map_room.draw(None, problem, "error")

    def _take_over(self, cube: Cube) -> None:
        """Show what stands in the cube's place now: the same cube after a run, a grown one, or another one."""
        desk = self.desk
        desk.cube, desk.choices = cube, Choices.of(cube.ds)
        self.map_room.follow_cube()
        self._say_simulated()
        self._show(replace(desk.view, sensors=self.sidebar.wanted_sensors))

    def _look_again(self) -> None:
        """Whether the cube was rewritten while the page was open."""
        cube = self.desk.cube

        def compared(now: Cube) -> None:
            if now is not self.desk.cube and cube is self.desk.cube:
                self._take_over(now)
                self._tell("The cube was built anew; this is the new one.", "success")

        self.desk.background.run("rebuild", lambda: open_cube(cube.location), compared, lambda _: None)

    # --- what is said

    def _say_refused(self, refused: Sequence[str]) -> str:
        text = f"The link asked for something this cube does not have ({', '.join(refused)}); it was left out." if refused else ""
        self._tell(text, "info")
        return text

    def _tell(self, text: str, severity: str) -> None:
        self.notice_said.object = words.paragraph(plain(text), self.desk.dark)
        self.notice.param.update(severity=severity, visible=bool(text))

    def _say_simulated(self) -> None:
        attrs = self.desk.cube.ds.attrs
        simulated = words.is_simulated(attrs)
        self.simulated.param.update(object=words.simulated(attrs) if simulated else "", visible=simulated)

    def _themed(self, *_: Any) -> None:
        self.desk.spot = replace(self.desk.spot, dark=bool(self.page.dark_theme))
        self.sidebar.paint(self.desk.dark)
        self.map_room.repaint()
        self._refresh_rooms()
        self._write(push=False)
        self._repaint_soon()

    def _loaded(self) -> None:
        self.map_room.begin()
        self.desk.background.begin()
        self._repaint_soon()
        pn.state.add_periodic_callback(self._look_again, period=LOOK_FOR_A_REBUILD)

    def _left(self, _: Any) -> None:
        """The session ended: let go of what tables of the process still know of it."""
        self.map_room.close()

    def _repaint_soon(self) -> None:
        """While the browser builds the map, the end of a held painting may be lost: it is said again (``WorldMap.repaint``)."""
        for milliseconds in _REPAINT_AFTER:
            later(milliseconds, self.map_room.browser_repaint)


def asked_for(choices: Choices, parameters: Mapping[str, Sequence[bytes | str]]) -> tuple[View, Spot, list[str]]:
    """View and spot that an address asks for, and which of its parts had to be left out."""
    view, refused = choices.from_address(parameters)
    spot, refused_too = spot_from_address(parameters)
    if spot.beside and view_beside(choices, view, spot.beside) is None:
        spot = replace(spot, beside="")
        refused_too = [*refused_too, "beside"]
    return view, spot, [*refused, *refused_too]


def _look_up(cube: Cube, choices: Choices, view: View, wanted: Sequence[str], spot: Spot) -> Answer:
    """Find what to draw; else say in words why there is nothing. Raises ``CoverageError``."""
    now = open_cube(cube.location)
    if now is not cube:
        return Answer(now)
    if not view.sensors:
        unable = [s for s in wanted if choices.lacks(s, view.metric)]
        reasons = ". ".join(str(choices.lacks(s, view.metric)) for s in unable)
        return Answer(cube, problem=f"{reasons + '. ' if reasons else ''}Choose at least one sensor on the left.")
    if spot.changes:
        field = change_field(cube, view.sensors[0], view.last.shift(-1), view.last)
        return Answer(cube, Drawn(view, field, field.limits))
    drawn = _drawn(cube, view)
    problem = words.nothing_known(view, cube.ds) if drawn.field.known_range[1] == 0 else None
    other = view_beside(choices, view, spot.beside)
    if other is None:
        return Answer(cube, drawn, problem)
    second = _drawn(cube, other)
    if other.metric == view.metric:  # the colours mean the same in both
        limits = drawn.limits.and_(second.limits)
        drawn, second = replace(drawn, limits=limits), replace(second, limits=limits)
    return Answer(cube, drawn, problem, second)


def _is_at_hand(cube: Cube, view: View, spot: Spot) -> bool:
    """Whether what is to be drawn needs no look at the cube."""
    return bool(view.sensors) and view.aggregation != "scrub" and not spot.changes and not spot.beside and is_at_hand(cube, view.query())


def _drawn(cube: Cube, view: View) -> Drawn:
    field = field_of(cube, view.query())
    limits = frames_limits(cube, [view.frame(month) for month in view.months]) if view.aggregation == "scrub" else field.limits
    return Drawn(view, field, limits)


_ROOM_OF: Mapping[str, Callable[[Desk], Room]] = {
    "targets": TargetsRoom,
    "backlog": BacklogRoom,
    "requests": RequestsRoom,
    "changes": ChangesRoom,
    "known": KnownRoom,
}
_AFTER_ENTER = 30
"""Milliseconds: the browser tells of the key before it tells of the last characters."""
_REPAINT_AFTER = (600, 2_500, 8_000)
"""Milliseconds after the page was loaded or its theme changed: soon, and again for slow browsers."""
_MAIN = """
:host { height: calc(100vh - 84px); min-height: 520px; }
@media (max-width: 900px) { :host { height: auto !important; min-height: 100vh; } }
"""
_TOP = ":host { align-items: center; flex-wrap: wrap; gap: 4px 12px; flex: none; max-width: 100%; overflow: hidden; }"
_NAMED = {"MuiLinearProgress": {"defaultProps": {"aria-label": "The server is at work"}}}
_DARK_HEAD = {"MuiAppBar": {"styleOverrides": {"root": {"backgroundColor": "#0b3a66", "color": "#ffffff"}}}}
"""The page's title is white whatever the theme."""
_THEME = {
    "light": {"palette": {"primary": {"main": "#0b5394", "contrastText": "#ffffff"}}, "components": _NAMED},
    "dark": {"palette": {"primary": {"main": "#6aaae4", "contrastText": "#0b1622"}}, "components": _NAMED | _DARK_HEAD},
}
_BADGE_REST = f"@media (max-width: {NARROW}px) {{ .rest {{ display: none; }} }}"
_BADGE = {
    "background": "#ffb300",
    "color": "#1c1c1c",
    "padding": "4px 14px",
    "border-radius": "16px",
    "font-size": "15px",
}

__all__ = ["Planner", "cube_location", "page"]
