"""The room of the backlog: which scenes to get, for how many gigabytes, with what login; to be exported, or flagged as requests."""

from __future__ import annotations

from typing import Any, cast, get_args

import panel as pn
import panel_material_ui as pmui
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from coverage_dashboards import words
from coverage_dashboards.acts import flag_scenes
from coverage_dashboards.choices import title_of
from coverage_dashboards.desk import Desk
from coverage_dashboards.downloader import Downloader
from coverage_dashboards.planning import planning
from coverage_dashboards.row_table import Column, Row, RowTable
from coverage_dashboards.selections import keep_selection, selected
from coverage_dashboards.typed import at_once, typed
from coverage_pipeline.requests.backlog import within_budget
from coverage_pipeline.requests.backlog_query import BacklogAnswer
from coverage_pipeline.requests.backlog_words import backlog_in_words, closes_in_words
from coverage_pipeline.requests.export import EXPORT_SUFFIX, Export, ExportFormat, export_items, rendered
from coverage_pipeline.requests.store import Recorded

FORMATS = {
    "STAC ItemCollection": "itemcollection",
    "stac-geoparquet": "geoparquet",
    "CSV": "csv",
    "aria2 list": "aria2",
    "s5cmd list": "s5cmd",
    "earthaccess list": "earthaccess",
}
EVERYTHING, SEEN, PLACE = "all targets", "targets that the map shows", "the place that is open"
_MEDIA = {"itemcollection": "application/geo+json", "geoparquet": "application/vnd.apache.parquet", "csv": "text/csv"}


class BacklogRoom:
    """The cover's choice in the window, a budget, ticks, and what becomes of the ticked scenes."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._answer: BacklogAnswer | None = None
        self._chosen: pa.Table | None = None
        self._ticked: list[str] = []
        self._applied: float | None = None
        """The budget by which the list is made."""
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.scope = pmui.Select(label="Scenes for", options=[EVERYTHING, SEEN, PLACE], value=EVERYTHING, size="small", width=230)
        self.scope.param.watch(lambda _: self.refresh(), "value")
        self.budget = pmui.FloatSlider(label="Budget (GB)", start=0.0, end=1.0, value=1.0, step=0.1, width=340, margin=(0, 20))
        self.budget.param.watch(self._set_budget, "value_throttled")
        self.form = pmui.Select(label="Format", options=FORMATS, value="itemcollection", size="small", width=220)
        self.export = pmui.Button(label="Export the ticked scenes", icon="download", variant="contained", disabled=True)
        self.export.on_click(self._export)
        self.note = pmui.TextInput(label="Note of the request", size="small", width=230, max_length=500)
        at_once(self.budget, self.note)
        self.flag = pmui.Button(label="Flag them as requests", icon="flag", variant="outlined", disabled=True)
        self.flag.on_click(self._flag)
        self.said = pn.pane.HTML("", css_classes=["backlog-said"], margin=(0, 2, 6, 2), styles={"font-size": "15px"}, **wide)
        self.unknown = pn.pane.HTML("", margin=(0, 2, 6, 2), styles={"font-size": "14px"}, visible=False, **wide)
        self.saver = Downloader()
        columns = [
            Column("rank", number=True), Column("scene", link=True), Column("sensor"), Column("day"),
            Column("cloud", number=True, help="Percent of the scene, not of the place"),
            Column("GB", number=True, help="est.: not stated by the provider, but estimated"),
            Column("closes", help="Targets of which it closes a day"), Column("login", help="What the download needs beside the link"),
        ]  # fmt: skip
        self.table = RowTable(columns, ticking=self._ticking, label="scenes to get", named=1, margin=(0, 2), **wide)
        self.view = pn.Column(
            pn.Row(self.scope, self.budget, margin=0, stylesheets=[_WRAP], **wide),
            pn.Row(self.form, self.export, pn.Spacer(width=20), self.note, self.flag, self.saver, margin=0, stylesheets=[_WRAP], **wide),
            self.said, self.unknown, self.table, sizing_mode="stretch_both", margin=0, styles={"overflow-y": "auto"},
        )  # fmt: skip

    def refresh(self) -> None:
        """Ask for the backlog of the window."""
        desk, view = self.desk, self.desk.view
        sensors, stamp, scope = tuple(desk.sensors), desk.stamp, self.scope.value
        box, found = (desk.box() if scope == SEEN else None), desk.found
        ids: tuple[str, ...] = ()
        if scope == PLACE:
            if found is None:
                self._fail("No place is open: choose a target, click the map, or type a place in the field above.")
                return
            if found.kind == "target":
                ids = (found.text.removeprefix("target:"),)
            else:
                box = tuple(shapely.bounds(found.outline))
        self.said.object = words.paragraph("Choosing scenes …", desk.dark, quiet=True)
        desk.background.run("backlog", lambda: planning().backlog(sensors, view.months, box, ids, stamp), self._show, self._fail)

    def _fail(self, text: str) -> None:
        self._answer = None
        self.said.object = words.paragraph(text, self.desk.dark)
        self.unknown.visible = False
        self._fill(None)

    def _show(self, answer: BacklogAnswer) -> None:
        new = answer is not self._answer
        self._answer = answer
        dark = self.desk.dark
        if new:
            most = max(round(answer.backlog.bytes_chosen / 1e9 + 0.05, 1), 0.1)
            self._applied = most  # the slider tells of it as of a choice
            self.budget.param.update(end=most, value=most, step=round(max(most / 200, 0.1), 1))
        lines = answer.unknown[:5] + ([f"and {len(answer.unknown) - 5} more"] if len(answer.unknown) > 5 else [])
        self.unknown.param.update(object=words.doubts(lines, dark, "Not known, so not in the list") if lines else "", visible=bool(lines))
        self._budgeted()

    def _set_budget(self, *_: Any) -> None:
        if self.budget.value == self._applied:
            return
        self.desk.tick("")  # another budget, another list, and all of it ticked
        self._budgeted()

    def _budgeted(self) -> None:
        if self._answer is None:
            return
        self._applied = self.budget.value
        unlimited = self.budget.value >= self.budget.end
        chosen = within_budget(self._answer.backlog, max_gb=None if unlimited else self.budget.value)
        self.said.object = words.paragraph(backlog_in_words(self._answer.backlog, chosen), self.desk.dark)
        self._fill(chosen)

    def _fill(self, chosen: pa.Table | None) -> None:
        self._chosen = chosen
        rows = [] if chosen is None else rows_of(chosen)
        self._ticked = self._ticked_of([row.key for row in rows])
        self.table.empty = "No scene to get."
        self.table.fill(rows, self.desk.dark, ticked=self._ticked, tall="max(280px, calc(100vh - 360px))")
        self._say_ticked()

    def _ticked_of(self, keys: list[str]) -> list[str]:
        """Which of the rows are ticked: all, or those that the address names."""
        name = self.desk.spot.ticked
        if not name or not keys:
            return keys
        some = selected(name, keys)
        if some is None:
            self.desk.tell(
                "The scenes that this address ticks are not kept any more, for the server was started since: all are ticked.", "info"
            )
            self.desk.tick("")
            return keys
        return some

    def _ticking(self, keys: list[str]) -> None:
        self._ticked = keys
        everything = self._chosen is not None and len(keys) == self._chosen.num_rows
        self.desk.tick("" if everything else keep_selection(keys))
        self._say_ticked()

    def _say_ticked(self) -> None:
        some = self._rows()
        number = 0 if some is None else some.num_rows
        size = 0.0 if some is None else float(pc.sum(some["bytes"]).as_py() or 0) / 1e9
        noun = "scene" if number == 1 else "scenes"
        self.export.param.update(disabled=not number, label=f"Export {number} {noun} ({size:,.1f} GB)" if number else "Export")
        self.flag.param.update(disabled=not number, label=f"Flag {number} {noun} as requests" if number else "Flag as requests")

    def _rows(self) -> pa.Table | None:
        """The ticked rows of the backlog."""
        if self._chosen is None:
            return None
        ticked = set(self._ticked)
        keys = [f"{sensor}/{key}" for sensor, key in zip(*(self._chosen[c].to_pylist() for c in ("sensor", "scene_key")), strict=True)]
        return self._chosen.filter(pa.array([key in ticked for key in keys], pa.bool_()))

    def _export(self, *_: Any) -> None:
        some, form = self._rows(), cast(ExportFormat, self.form.value)
        if some is None or form not in get_args(ExportFormat):
            return
        self.export.disabled = True
        self.desk.tell(f"Asking the providers for {some.num_rows} items …", "info")

        def make() -> tuple[Export, bytes]:
            plan = planning()
            settings = plan.settings
            export = export_items(some, plan.registry, settings.scan_options(), downloads=settings.sensors.download_overrides())
            return export, rendered(export, form) if export.items else b""

        self.desk.background.run("export", make, lambda made: self._save(*made, form), self._not_exported)

    def _save(self, export: Export, data: bytes, form: ExportFormat) -> None:
        self._say_ticked()
        lacking = f" {len(export.problems)} could not be had; the first: {export.problems[0]}" if export.problems else ""
        if not export.items:
            self.desk.tell(f"Nothing was exported.{lacking}", "error")
            return
        name = f"backlog.{EXPORT_SUFFIX[form]}"
        try:
            self.saver.save(name, data, _MEDIA.get(form, "text/plain"))
        except ValueError as error:
            self.desk.tell(str(error), "error")
            return
        self.desk.tell(f"Saved {name}: {len(export.items)} items.{lacking}", "warning" if lacking else "success")

    def _not_exported(self, text: str) -> None:
        self._say_ticked()
        self.desk.tell(text, "error")

    def _flag(self, *_: Any) -> None:
        some, who, note = self._rows(), self.desk.person, typed(self.note)
        if some is None:
            return
        self.desk.background.run("flag", lambda: flag_scenes(planning(), some, who, note), self._flagged, self._not_exported)

    def _flagged(self, recorded: list[Recorded]) -> None:
        new = sum(one.is_new for one in recorded)
        noun = "request is" if new == 1 else "requests are"
        there = len(recorded) - new
        others = f" {there} {'was' if there == 1 else 'were'} there already." if there else ""
        self.desk.tell(
            f"{new} {noun} recorded, one for each sensor and day: see the room of the requests.{others}", "info" if there else "success"
        )


def rows_of(chosen: pa.Table) -> list[Row]:
    """Rows of a backlog (``BACKLOG_SCHEMA``) as the browser gets them."""
    rows = []
    for row in chosen.to_pylist():
        cloud = "not known" if row["cloud_cover"] is None else f"{row['cloud_cover']:.0f} %"
        size = f"{row['bytes'] / 1e9:.2f}{'' if row['bytes_stated'] else ' est.'}"
        day = f"{row['pass_time']:%Y-%m-%d}"
        name = row["scene_key"] + (" (newer version)" if row["upgrade"] else "")
        sensor, closes, login = title_of(row["sensor"]), closes_in_words(row), row["login"] or "none"
        cells = [str(row["rank"]), name, sensor, day, cloud, size, closes, login]
        values: list[float | str | None] = [row["rank"], name, sensor, day, row["cloud_cover"], row["bytes"], closes, login]
        rows.append(Row(f"{row['sensor']}/{row['scene_key']}", cells, values, row["item_href"]))
    return rows


_WRAP = ":host { flex-wrap: wrap; align-items: center; gap: 4px 8px; flex: none; padding-top: 8px; }"
