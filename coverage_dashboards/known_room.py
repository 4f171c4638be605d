"""The room of what is known: sensor by sensor and month by month what was scanned, when, from whom, and how far it is believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import panel as pn

from coverage_dashboards import words
from coverage_dashboards.choices import View, title_of
from coverage_dashboards.desk import Desk
from coverage_dashboards.doubts import scan_report_of
from coverage_dashboards.fields import Cube
from coverage_dashboards.map_room import store_at_hand
from coverage_dashboards.row_table import Column, Row, RowTable
from coverage_dashboards.words import month_in_words
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.scenes.schema import SCAN_STATUS

SCAN_WORDS = {
    "complete": "complete",
    "provisional": "provisional: absence is not believed yet",
    "partial": "partial: a part could not be read",
    "not_scanned": "not scanned",
    "not_applicable": "no catalogue can be asked",
}
HOLDINGS_WORDS = {
    "read": "read",
    "not_held": "this sensor is not in our holdings",
    "off": "could not be reached",
    "not_read": "not read",
}
WHY_GREY = (
    "A place is grey where the catalogue of a month was not scanned, only in part, or not for this area; where a scan that found nothing "
    "is provisional; or where our holdings could not be read. Each row says which."
)


class KnownRoom:
    """A row for each sensor and month."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.said = pn.pane.HTML("", css_classes=["known-said"], margin=(6, 2, 8, 2), styles={"font-size": "15px"}, **wide)
        columns = [
            Column("sensor"), Column("month"), Column("scan"), Column("scanned", help="UTC"), Column("from"), Column("scenes", number=True),
            Column("rejected", number=True, help="Items that could not be used"), Column("holdings"),
            Column("area", help="Where the scan looked: degrees west, south, east, north"), Column("doubts"),
        ]  # fmt: skip
        self.table = RowTable(columns, label="what is known", margin=(0, 2), **wide)
        self.view = pn.Column(self.said, self.table, sizing_mode="stretch_both", margin=0, styles={"overflow-y": "auto"})

    def refresh(self) -> None:
        """Read again what is known of the window."""
        desk, view, cube = self.desk, self.desk.view, self.desk.cube
        sensors = tuple(desk.sensors)
        self.said.object = words.paragraph(WHY_GREY, desk.dark, quiet=True)
        desk.background.run("known", lambda: rows_of(cube, sensors, view), self._show, self._fail)

    def _show(self, rows: list[Row]) -> None:
        self.table.fill(rows, self.desk.dark, tall="max(300px, calc(100vh - 230px))")

    def _fail(self, text: str) -> None:
        self.said.object = words.paragraph(text, self.desk.dark)
        self.table.fill([], self.desk.dark)


def rows_of(cube: Cube, sensors: Sequence[str], view: View) -> list[Row]:
    """What the cube says of each sensor and month, newest first, with what the scan reports add."""
    window = cube.ds.sel(sensor=list(sensors), time=[month.to_datetime64() for month in view.months])
    names = ("scan_status", "holdings_status", "scenes_total", "provider")
    status, held, total, provider = (window[name].values for name in names)
    scanned = window["scanned_at"].values
    store = store_at_hand()
    rows = []
    for s, sensor in enumerate(sensors):
        for t, month in reversed(list(enumerate(view.months))):
            scan = SCAN_STATUS[int(status[s, t])]
            report = scan_report_of(store, cube.ds, sensor, month) if store is not None else None
            when = "" if report is None else report.scanned_at[:16].replace("T", " ")
            if not when and scan not in ("not_scanned", "not_applicable"):
                when = _instant(scanned[s, t])
            looked = scan not in ("not_scanned", "not_applicable")
            where = report.bbox if report is not None and looked else ""
            rejected = "" if report is None or not looked else f"{report.rejected:,}"
            cells = [
                title_of(sensor), month_in_words(month), SCAN_WORDS.get(scan, scan), when, str(provider[s, t]) if looked else "",
                f"{int(total[s, t]):,}" if looked else "", rejected, HOLDINGS_WORDS.get(HOLDINGS_STATUS[int(held[s, t])], "not known"),
                where, "; ".join(report.doubts) if report is not None else "",
            ]  # fmt: skip
            values: list[float | str | None] = [
                cells[0], month.key, cells[2], cells[3], cells[4], float(total[s, t]) if looked else None,
                float(report.rejected) if rejected and report is not None else None, cells[7], cells[8], cells[9],
            ]  # fmt: skip
            rows.append(Row(f"{s}:{month.key}", cells, values))
    return rows


def _instant(value: Any) -> str:
    """A time of the cube, to the minute."""
    when = np.datetime64(int(value), "s") if value.dtype.kind != "M" and np.isfinite(value) else value
    return "" if np.isnat(when) else str(when.astype("datetime64[m]")).replace("T", " ")
