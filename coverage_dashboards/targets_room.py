"""The room of the targets: how many have what is wanted of them, and where each one stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
import shapely
from numpy.typing import NDArray

from coverage_dashboards import palette, words
from coverage_dashboards.choices import title_of
from coverage_dashboards.desk import Desk
from coverage_dashboards.escape import html
from coverage_dashboards.gazetteer import target_found, target_label
from coverage_dashboards.planning import planning
from coverage_dashboards.row_table import Column, Row, RowTable
from coverage_dashboards.words import ACTION_TITLES, month_in_words, percent
from coverage_pipeline.cube.schema import ACTIONS, URGENCY
from coverage_pipeline.demand.report import NoSummary, Report, SensorReport, closing_words, make_report
from coverage_pipeline.demand.summary_schema import STATES
from coverage_pipeline.demand.target_overview import TargetOverview, target_overview
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.requests.errors import RequestStoreError
from coverage_pipeline.requests.states import RequestState
from coverage_pipeline.requests.store import RequestStore

STATE_SIGNS = {"met": "✓", "missing": "✗", "unknown": "?", "too_large": "▢", "idle": "·", "out_of_reach": "–"}
SIGNS_IN_WORDS = (
    "✓ has what is wanted, ✗ lacks some, ? not known, ▢ no single pass can cover it, · nothing wanted, – out of the sensor's reach"
)
_URGENCY = np.array([URGENCY.index(name) for name in ACTIONS])
_GROUPS = {"no group": -1, "sensor": 1, "group of targets": 2, "action": 4}
OPEN_STATES: tuple[RequestState, ...] = ("requested", "ordered", "acquired")


@dataclass(frozen=True)
class Standing:
    """What the room shows."""

    targets: Targets
    overview: TargetOverview
    report: Report | None
    requests: NDArray[np.int64]
    """Open requests that touch each target, ``(sensors, targets)``; -1: the requests cannot be read."""


class TargetsRoom:
    """Headline tiles over a table; a row opens the place panel."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._standing: Standing | None = None
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.tiles = pn.pane.HTML("", css_classes=["tiles"], stylesheets=[_TILES], margin=(4, 2, 10, 2), **wide)
        self.said = pn.pane.HTML("", margin=(0, 2, 6, 2), styles={"font-size": "14px"}, **wide)
        self.grouping = pmui.Select(label="Group by", options=list(_GROUPS), value="no group", size="small", width=200)
        self.grouping.param.watch(self._group, "value")
        columns = [
            Column("target"),
            Column("sensor"),
            Column("group"),
            Column("met", number=True, help="Months that had what was wanted, of those that wanted something"),
            Column("action", help="The most urgent of the window's months"),
            Column("trend", help=SIGNS_IN_WORDS),
            Column("missing", number=True, help="Clear observations missing over the window, in its known months"),
            Column("to download", number=True, help="What clear scenes that we do not hold would add"),
            Column("remaining", number=True, help="What no download adds"),
            Column("requests", number=True, help="Open requests that touch the target"),
            Column("km²", number=True),
        ]
        self.table = RowTable(columns, opened=self._opened, label="targets", margin=(0, 2), **wide)
        self.view = pn.Column(
            self.tiles, pn.Row(self.grouping, self.said, margin=(8, 0, 0, 0), **wide), self.table, sizing_mode="stretch_both", margin=0,
            styles={"overflow-y": "auto"},
        )  # fmt: skip

    def refresh(self) -> None:
        """Ask where the targets stand in the window."""
        desk, view = self.desk, self.desk.view
        sensors = tuple(desk.sensors)
        self.said.object = words.paragraph("Looking it up …", desk.dark, quiet=True)
        desk.background.run("targets", lambda: _ask(desk, sensors, view), self._show, self._fail)

    def _fail(self, text: str) -> None:
        self._standing = None
        self.tiles.object = ""
        self.said.object = words.paragraph(text, self.desk.dark)
        self.table.fill([], self.desk.dark)

    def _show(self, standing: Standing | None) -> None:
        dark = self.desk.dark
        if standing is None:
            self._fail("This build has no targets: set COVERAGE_TARGETS to a file of the areas you care about, and build (see the README).")
            return
        self._standing = standing
        self.tiles.object = tiles(standing.report, dark)
        unread = standing.overview.unread
        doubt = f" {len(unread)} of its months could not be read, which makes them not known; the first: {unread[0]}" if unread else ""
        self.said.object = words.paragraph(f"{SIGNS_IN_WORDS}.{doubt}", dark, quiet=True)
        self.table.fill(rows_of(standing), dark, tall="max(300px, calc(100vh - 380px))")

    def _group(self, *_: Any) -> None:
        self.table.grouped = _GROUPS[self.grouping.value]

    def _opened(self, key: str) -> None:
        if self._standing is None:
            return
        self.desk.open_place(target_found(self._standing.targets.table.iloc[int(key.split(":")[1])]))


def _ask(desk: Desk, sensors: tuple[str, ...], view: Any) -> Standing | None:
    targets = desk.targets()
    if targets is None:
        return None
    plan = planning()
    chosen = plan.sensors(sensors)
    stamp = ("overview", desk.stamp, sensors, view.first, view.last)
    overview = plan.places.get(stamp, lambda: target_overview(chosen, view.months, plan.store, targets))
    try:
        report = plan.places.get(
            ("report", *stamp), lambda: make_report(chosen, view.months, view.last, plan.store, None, plan.groups(sensors))
        )
    except NoSummary:
        report = None
    return Standing(targets, overview, report, open_requests(plan.requests, sensors, targets))


def open_requests(store: RequestStore, sensors: tuple[str, ...], targets: Targets) -> NDArray[np.int64]:
    """Open requests that touch each target, int64 ``(sensors, targets)``; -1 where they cannot be read."""
    counts = np.zeros((len(sensors), len(targets)), np.int64)
    try:
        found = [one for one in store.all(states=OPEN_STATES) if one.sensor in sensors]
    except RequestStoreError:
        return counts - 1
    if found:
        tree = shapely.STRtree(targets.table.geometry.to_numpy())
        places = np.array([shapely.geometry.shape(one.geometry) for one in found], dtype=object)
        request, target = tree.query(places, predicate="intersects")
        row = np.array([sensors.index(one.sensor) for one in found])
        np.add.at(counts, (row[request], target), 1)
    return counts


def rows_of(standing: Standing) -> list[Row]:
    """A row for each target and sensor that has anything to do with it."""
    overview, table = standing.overview, standing.targets.table
    met, unknown = (overview.state == STATES.index(name) for name in ("met", "unknown"))
    wants = met | unknown | (overview.state == STATES.index("missing"))
    signs = np.array([STATE_SIGNS[name] for name in STATES])
    sums = [np.where(part < 0, 0, part).sum(axis=1) for part in (overview.deficit, overview.ingestable, overview.remaining)]
    known = (overview.deficit >= 0).any(axis=1)
    month = _URGENCY[overview.action].argmax(axis=1)
    urgent = np.take_along_axis(overview.action, month[:, None], axis=1)[:, 0]
    rows = []
    names, ids, groups = (table[column].astype(str).to_list() for column in ("name", "id", "group"))
    area = table["area_km2"].to_numpy()
    for s, sensor in enumerate(overview.sensors):
        for t in np.flatnonzero((overview.state[s] != STATES.index("out_of_reach")).any(axis=0)):
            months, got, doubt = int(wants[s, :, t].sum()), int(met[s, :, t].sum()), int(unknown[s, :, t].sum())
            share = f"{got} of {months}" + (f" (? {doubt})" if doubt else "") if months else "–"
            numbers = [int(part[s, t]) for part in sums]
            asked = int(standing.requests[s, t])
            action = ACTION_TITLES[ACTIONS[int(urgent[s, t])]]
            shown = [f"{n}" for n in numbers] if known[s, t] else ["?"] * 3
            name = target_label(ids[t], names[t])
            cells = [name, title_of(sensor), groups[t], share, action, "".join(signs[overview.state[s, :, t]]), *shown,
                     "?" if asked < 0 else str(asked), f"{area[t]:,.0f}"]  # fmt: skip
            values: list[float | str | None] = [
                name, title_of(sensor), groups[t], got / months if months else None, float(_URGENCY[int(urgent[s, t])]), cells[5],
                *(numbers if known[s, t] else [None] * 3), asked if asked >= 0 else None, float(area[t]),
            ]  # fmt: skip
            rows.append(Row(f"{s}:{t}", cells, values))
    return rows


def tiles(report: Report | None, dark: bool) -> str:
    """The headline of each sensor: what share met its cadence, how much is not known, and how it was the month before."""
    around = palette.theme(dark)
    if report is None:
        return f'<div style="color:{around.ink}">Nothing is summed up for this month yet: build it (coverage-planner build).</div>'
    return f'<div class="row" style="color:{around.ink}">{"".join(_tile(one, around) for one in report.sensors)}</div>'


def _tile(one: SensorReport, around: palette.Theme) -> str:
    met, unknown = one.now.met, one.now.unknown
    month = month_in_words(one.now.month)
    if unknown is None:
        big, small = "–", f"nothing is wanted in {month}"
    elif met is None:
        big, small = "?", f"not known in {month} (100 % of the area)"
    else:
        big, small = percent(met), f"of the area met its cadence in {month}; {percent(unknown)} not known"
    before = [figure for figure in one.trend if figure.month == one.now.month.shift(-1)]
    trend = ""
    if before and before[0].met is not None and met is not None:
        change = met - before[0].met
        how = "better" if change > 0.005 else "worse" if change < -0.005 else "as good"
        than = "as" if how == "as good" else "than"
        trend = f"{how} {than} {month_in_words(before[0].month)} ({percent(before[0].met)}, {percent(before[0].unknown or 0)} not known)"
    closing = closing_words(one.now.row) if one.now.row is not None else ""
    lines = "".join(f'<div class="small">{html(line)}</div>' for line in (small, trend, closing) if line)
    return f'<div class="tile" style="border-color:{around.ink}33"><b>{html(one.title)}</b><div class="big">{html(big)}</div>{lines}</div>'


_TILES = """
.row { display: flex; flex-wrap: wrap; gap: 12px; }
.tile { border: 1px solid; border-radius: 8px; padding: 8px 14px; flex: 1 1 220px; max-width: 380px; font-size: 14px; }
.big { font-size: 30px; line-height: 1.15; }
.small { font-size: 13px; line-height: 1.3; margin-top: 2px; }
"""
