"""The room of the changes: which gaps opened and closed since the month before, or since the last build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import panel as pn
import panel_material_ui as pmui

from coverage_dashboards import palette, words
from coverage_dashboards.choices import View, title_of
from coverage_dashboards.desk import Desk
from coverage_dashboards.escape import html
from coverage_dashboards.gazetteer import target_found, target_label
from coverage_dashboards.planning import planning
from coverage_dashboards.row_table import Column, Row, RowTable
from coverage_dashboards.words import month_in_words
from coverage_pipeline.cube.dataset import grid_of
from coverage_pipeline.demand.cell_changes import change_areas, change_layer
from coverage_pipeline.demand.changes import Change, NothingToCompare, TargetState, counts, since_last_run, since_month
from coverage_pipeline.demand.report import change_words
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.errors import PlannerError

SINCE_MONTH, SINCE_BUILD = "the month before", "the last build"
KINDS_IN_WORDS = {
    "opened": "had what was wanted, and now lacks some",
    "closed": "lacked some, and now has what is wanted",
    "better": "lacks less than before",
    "worse": "lacks more than before",
    "became known": "what it lacks is known now",
    "became not known": "what it lacks is not known any more",
    "new": "was not a target before",
    "gone": "is no target any more",
}


@dataclass(frozen=True)
class Compared:
    """What changed for one sensor, or why that cannot be told."""

    sensor: str
    against: str
    changes: Sequence[Change]
    words: str
    """Counts and areas, or why there is nothing to compare."""
    targets: Targets | None = None
    cells: str = ""
    """The same for cells, where two months are compared."""


class ChangesRoom:
    """What changed for targets and cells in the window's last month, sensor by sensor."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._targets: Targets | None = None
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.since = pmui.RadioButtonGroup(label="Changed since", options=[SINCE_MONTH, SINCE_BUILD], value=SINCE_MONTH, size="small")
        self.since.param.watch(lambda _: self.refresh(), "value")
        self.layer = pmui.Button(label="Show the changes on the map", icon="map", variant="outlined", size="small")
        self.layer.on_click(lambda _: desk.show_changes())
        self.said = pn.pane.HTML("", css_classes=["changes-said"], margin=(6, 2, 8, 2), stylesheets=["div { font-size: 15px; }"], **wide)
        columns = [
            Column("target"), Column("sensor"), Column("change"), Column("missing before", number=True), Column("missing now", number=True),
            Column("km²", number=True),
        ]  # fmt: skip
        self.table = RowTable(columns, opened=self._opened, label="changes", margin=(0, 2), **wide)
        self.view = pn.Column(
            pn.Row(self.since, self.layer, margin=0, stylesheets=[_WRAP], **wide), self.said, self.table,
            sizing_mode="stretch_both", margin=0, styles={"overflow-y": "auto"},
        )  # fmt: skip

    def refresh(self) -> None:
        """Compare again."""
        desk, view, by_month = self.desk, self.desk.view, self.since.value == SINCE_MONTH
        sensors = tuple(desk.sensors)
        self.layer.visible = by_month
        self.said.object = words.paragraph("Comparing …", desk.dark, quiet=True)
        desk.background.run("changes", lambda: _compare(desk, sensors, view, by_month), self._show, self._fail)

    def _fail(self, text: str) -> None:
        self.said.object = words.paragraph(text, self.desk.dark)
        self.table.fill([], self.desk.dark)

    def _show(self, found: list[Compared]) -> None:
        dark = self.desk.dark
        month = month_in_words(self.desk.view.last)
        ink = palette.theme(dark).ink
        lines = []
        for one in found:
            text = f"{title_of(one.sensor)}, {month} against {one.against}: {one.words}."
            lines.append(f"<div><b>{html(text)}</b>{'<br>' + html(one.cells) if one.cells else ''}</div>")
        self.said.object = f'<div style="color:{ink}">{"".join(lines)}</div>'
        self._targets = next((one.targets for one in found if one.targets is not None), None)
        names = {} if self._targets is None else dict(zip(self._targets.table["id"], self._targets.table["name"], strict=True))
        rows = [_row(one.sensor, change, str(names.get(change.target, change.target))) for one in found for change in one.changes]
        self.table.empty = "No target changed, or there is nothing to compare with."
        self.table.fill(rows, dark, tall="max(300px, calc(100vh - 330px))")

    def _opened(self, key: str) -> None:
        if self._targets is None:
            return
        table = self._targets.table
        same = table[table["id"] == key.split("/", 1)[1]]
        if len(same):
            self.desk.open_place(target_found(same.iloc[0]))


def _row(sensor: str, change: Change, name: str) -> Row:
    def lacks(state: TargetState | None) -> int | None:
        return None if state is None else state.lacks

    def shown(state: TargetState | None) -> str:
        return "–" if state is None else "?" if state.lacks is None else str(state.lacks)

    label = target_label(change.target, name)
    what = f"{change.kind}: {KINDS_IN_WORDS[change.kind]}"
    cells = [label, title_of(sensor), what, shown(change.before), shown(change.after), f"{change.area_km2:,.0f}"]
    values: list[float | str | None] = [label, title_of(sensor), what, lacks(change.before), lacks(change.after), change.area_km2]
    return Row(f"{sensor}/{change.target}", cells, values)


def _compare(desk: Desk, sensors: Sequence[str], view: View, by_month: bool) -> list[Compared]:
    store, after = planning().store, view.last
    before = after.shift(-1)
    targets = desk.targets()
    result = []
    for sensor in sensors:
        changes: Sequence[Change] = ()
        against, cells = month_in_words(before) if by_month else "the build before", ""
        try:
            if by_month:
                changes = since_month(store, sensor, before, after)
            else:
                changes, made = since_last_run(store, sensor, after)
                against = f"the build of {made[:16].replace('T', ' ')} UTC"
            said = change_words(counts(changes))
        except NothingToCompare as nothing:
            said = str(nothing)
        if by_month:
            try:
                layer = change_layer(desk.cube.ds, sensor, before, after)
                areas = change_areas(layer, grid_of(desk.cube.ds))
                cells = "Cells: " + (", ".join(f"{kind} {km2:,.0f} km²" for kind, km2 in areas.items() if km2) or "no cell changed")
            except PlannerError as error:
                cells = f"Cells: {error}"
        result.append(Compared(sensor, against, changes, said, targets, cells))
    return result


_WRAP = ":host { flex-wrap: wrap; align-items: center; gap: 4px 12px; flex: none; padding-top: 8px; }"
