"""The room of the requests: who has asked for what, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import panel as pn
import panel_material_ui as pmui
import shapely

from coverage_dashboards import palette, words
from coverage_dashboards.acts import annotate_request, cancel_request
from coverage_dashboards.choices import title_of
from coverage_dashboards.desk import Desk
from coverage_dashboards.escape import html
from coverage_dashboards.gazetteer import Found
from coverage_dashboards.people import Person
from coverage_dashboards.planning import Planning, planning
from coverage_dashboards.row_table import Column, Row, RowTable
from coverage_dashboards.typed import at_once, retype, typed
from coverage_pipeline.requests.states import STATES, TRANSITIONS
from coverage_pipeline.requests.store import Request

MINE, ALL = "mine", "everybody's"
STATE_TITLES = {state: state.replace("_", " ") for state in STATES}


class RequestsRoom:
    """A board grouped by state; a row opens the request with its history."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._requests: dict[str, Request] = {}
        self._open: Request | None = None
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.whose = pmui.RadioButtonGroup(label="Requests", options=[ALL, MINE], value=ALL, size="small")
        self.state = pmui.Select(label="State", options=["any", *STATE_TITLES.values()], value="any", size="small", width=180)
        for widget in (self.whose, self.state):
            widget.param.watch(lambda _: self.refresh(), "value")
        self.said = pn.pane.HTML("", css_classes=["requests-said"], margin=(0, 2, 6, 2), styles={"font-size": "14px"}, **wide)
        columns = [
            Column("request"), Column("state"), Column("sensor"), Column("kind"), Column("days wanted"), Column("who"),
            Column("since", help="UTC"), Column("note"),
        ]  # fmt: skip
        self.table = RowTable(columns, opened=self._opened, label="requests", grouped=1, margin=(0, 2), **wide)
        self.history = pn.pane.HTML("", css_classes=["history"], margin=(0, 2, 6, 2), stylesheets=[_HISTORY], **wide)
        self.note = pmui.TextInput(label="Note", size="small", max_length=500, **wide)
        self.annotate = pmui.Button(label="Save the note", variant="outlined", size="small")
        self.annotate.on_click(self._annotate)
        self.reason = pmui.TextInput(label="Why it is cancelled", size="small", max_length=500, **wide)
        at_once(self.note, self.reason)
        self.cancel = pmui.Button(label="Cancel the request", variant="outlined", color="danger", size="small")
        self.cancel.on_click(self._cancel)
        self.place = pmui.Button(label="Show its place", icon="map", variant="text", size="small")
        self.place.on_click(self._show_place)
        self.close = pmui.Button(label="Close", variant="text", size="small")
        self.close.on_click(lambda _: self._shut())
        self.detail = pn.Column(
            pn.Row(self.place, self.close, margin=0), self.history, pn.Row(self.note, self.annotate, margin=0, **wide),
            pn.Row(self.reason, self.cancel, margin=0, **wide),
            visible=False, css_classes=["request-detail"], stylesheets=[_DETAIL], margin=0,
        )  # fmt: skip
        self.view = pn.Column(
            pn.Row(self.whose, self.state, margin=0, stylesheets=[_WRAP], **wide), self.said,
            pn.Row(self.table, self.detail, margin=0, stylesheets=[_BESIDE], **wide),
            sizing_mode="stretch_both", margin=0, styles={"overflow-y": "auto"},
        )  # fmt: skip

    def refresh(self) -> None:
        """Read the requests again."""
        mine, state, name = self.whose.value == MINE, self.state.value, self.desk.person.name
        wanted = [key for key, title in STATE_TITLES.items() if title == state]
        self.desk.background.run(
            "requests", lambda: planning().requests.all(states=wanted, who=name if mine else None), self._show, self._fail
        )

    def _fail(self, text: str) -> None:
        self._requests = {}
        self.said.object = words.paragraph(text, self.desk.dark)
        self.table.fill([], self.desk.dark)
        self._shut()

    def _show(self, found: list[Request]) -> None:
        dark = self.desk.dark
        self._requests = {one.id: one for one in found}
        noun = "request" if len(found) == 1 else "requests"
        mine = f" of {self.desk.person.name}" if self.whose.value == MINE else ""
        self.said.object = words.paragraph(f"{len(found)} {noun}{mine}. Times are UTC.", dark, quiet=True)
        self.table.empty = "Nobody has asked for anything yet: flag scenes in the room of the backlog."
        self.table.fill([row_of(one) for one in reversed(found)], dark, tall="max(300px, calc(100vh - 270px))")
        if self._open is not None:
            now = self._requests.get(self._open.id)
            if now is None:
                self._shut()
            else:
                self._detail(now)

    def _opened(self, key: str) -> None:
        if key in self._requests:
            self._detail(self._requests[key])

    def _detail(self, request: Request) -> None:
        again = self._open is not None and self._open.id == request.id
        self._open = request
        self.history.object = history(request, self.desk.dark)
        if not again:
            for field, text in ((self.note, request.note), (self.reason, "")):
                retype(field, text)
        can = "cancelled" in TRANSITIONS[request.state]
        self.cancel.disabled = self.reason.disabled = not can
        self.reason.placeholder = "" if can else f"It is {STATE_TITLES[request.state]}, and cannot be cancelled any more."
        self.detail.visible = True

    def _shut(self) -> None:
        self._open = None
        self.detail.visible = False

    def _annotate(self, *_: Any) -> None:
        self._change(annotate_request, self.note, "Its note is saved.")

    def _cancel(self, *_: Any) -> None:
        self._change(cancel_request, self.reason, "It is cancelled.")

    def _change(self, act: Callable[[Planning, Request, Person, str], Request], field: pmui.TextInput, said: str) -> None:
        """Change the open request as it was read, by what was typed."""
        request, who, text = self._open, self.desk.person, typed(field)
        if request is not None:
            self.desk.background.run(
                "change", lambda: act(planning(), request, who, text), lambda now: self._changed(now, said), self._refused
            )

    def _changed(self, now: Request, text: str) -> None:
        self._open = now
        self.desk.tell(f"Request {now.id[:8]}: {text}", "success")
        self.refresh()

    def _refused(self, text: str) -> None:
        self.desk.tell(text, "error")
        self.refresh()  # what somebody else wrote meanwhile

    def _show_place(self, *_: Any) -> None:
        if self._open is not None:
            outline = shapely.geometry.shape(self._open.geometry)
            middle = outline.representative_point()
            text = f"{middle.y:.4f},{middle.x:.4f}"
            self.desk.open_place(Found("request", f"Place of request {self._open.id[:8]}", text, outline))


def row_of(request: Request) -> Row:
    """A request as a row of the board."""
    window = f"{request.window_start} to {request.window_end}" if request.window_start != request.window_end else f"{request.window_start}"
    cells = [
        request.id[:8], STATE_TITLES[request.state], title_of(request.sensor), request.kind, window, request.who or "nobody named",
        request.history[-1].time[:16].replace("T", " "), request.note,
    ]  # fmt: skip
    return Row(request.id, cells)


def history(request: Request, dark: bool) -> str:
    """A request and what became of it, oldest first."""
    around = palette.theme(dark)
    order = f" Order {request.order_number} at {request.provider or 'a portal'}." if request.order_number else ""
    cloud = "" if request.wanted_cloud is None else f" Cloud below {request.wanted_cloud:g} %."
    scenes = f" Scenes: {', '.join(request.scenes)}." if request.scenes else ""
    head = f"{request.kind} {title_of(request.sensor)}, {request.window_start} to {request.window_end}.{cloud}{order}{scenes}"
    rows = []
    for row in request.history:
        detail = f" ({row.detail})" if row.detail else ""
        proof = f" Proof: {json.dumps(row.evidence)}" if row.evidence else ""
        by = row.who or "nobody named"
        text = f"{row.time[:16].replace('T', ' ')} {STATE_TITLES[row.state]}{detail} by {by}. {row.reason}{proof}"
        rows.append(f"<li>{html(text)}</li>")
    title = f"Request {request.id[:8]}: {STATE_TITLES[request.state]}"
    return f'<div style="color:{around.ink}"><b>{html(title)}</b><div>{html(head)}</div><ol>{"".join(rows)}</ol></div>'


_HISTORY = "div { font-size: 14px; overflow-wrap: anywhere; } ol { padding-left: 20px; margin: 6px 0; }"
_DETAIL = """
:host { flex: 0 0 400px; max-width: 45%; padding-left: 12px; border-left: 1px solid #8886; }
@media (max-width: 900px) { :host { flex: none; max-width: 100%; width: 100%; border-left: 0; padding: 8px 0 0; } }
"""
_BESIDE = ":host { align-items: stretch; } @media (max-width: 900px) { :host { flex-direction: column; } }"
_WRAP = ":host { flex-wrap: wrap; align-items: center; gap: 4px 8px; flex: none; padding-top: 8px; }"
