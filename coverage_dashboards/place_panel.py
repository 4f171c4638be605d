"""The place panel: everything that is known of one place, in words, days, months and scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import panel_material_ui as pmui
import shapely

from coverage_dashboards import palette, place_words, words
from coverage_dashboards.choices import title_of
from coverage_dashboards.escape import html, plain
from coverage_dashboards.gazetteer import Found
from coverage_dashboards.row_table import Column, Row, RowTable
from coverage_pipeline.demand.place import PlaceMonth, PlaceReport, PlaceScene

CLOUD_IS_THE_SCENE_S = "Cloud is that of the whole scene, not of this place."
_SERIES_HEIGHT = 150
_SERIES_WORDS = "clear (blue), held (green), missing (orange)"
MOST_SCENES = 300
"""Rows that the browser gets; the newest first."""


class PlacePanel:
    """One planner's panel. ``point`` draws a scene's footprint on the map, or none."""

    def __init__(
        self,
        point: Callable[[shapely.Geometry | None], None],
        closed: Callable[[], None],
        why_grey: Callable[[], None],
        below_title: pn.viewable.Viewable,
    ) -> None:
        self._point = point
        self._scenes: dict[str, PlaceScene] = {}
        self._report: PlaceReport | None = None
        self._dark = False
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.title = pmui.Typography("", variant="h6", margin=(0, 0, 0, 4), **wide)
        close = pmui.IconButton(icon="close", description="Close the place panel", size="small", margin=0, width=40)
        close.on_click(lambda _: closed())
        self._why = pmui.Button(label="What was scanned, when and from whom", variant="text", size="small", margin=0)
        self._why.on_click(lambda _: why_grey())
        pane = {"stylesheets": [place_words.STYLES], "styles": {"font-size": "14px"}, "margin": (0, 4, 10, 4), **wide}
        self.said = pn.pane.HTML("", **pane)
        self.answer = pn.pane.HTML("", css_classes=["place-answer"], **pane)
        self.figures = pn.pane.HTML("", css_classes=["place-figures"], **pane)
        self.strips = pn.pane.HTML("", css_classes=["place-days"], **pane)
        self.waits = pn.pane.HTML("", css_classes=["place-waits"], **pane)
        self.together = pn.pane.HTML("", css_classes=["place-together"], visible=False, **pane)
        self.known = pn.pane.HTML("", css_classes=["place-known"], **pane)
        self.series = pn.Column(margin=(0, 0, 6, 0), **wide)
        columns = [Column("day"), Column("sensor"), Column("cloud", number=True), Column("covers", number=True, help="Share of the place"),
                   Column("held"), Column("scene", link=True)]  # fmt: skip
        self.scenes = RowTable(columns, pointed=self._pointed, label="scenes", named=5, margin=(0, 4, 10, 4), **wide)
        self._body = pn.Column(
            self.answer, self.figures, self.strips, self.series, self.waits, self.together, self.known, self._why, self.scenes,
            visible=False, margin=0, **wide,
        )  # fmt: skip
        self.view = pn.Column(
            pn.Row(self.title, close, margin=0, **wide), below_title, self.said, self._body,
            visible=False, css_classes=["place-panel"], margin=0, width_policy="max",
        )  # fmt: skip

    @property
    def is_open(self) -> bool:
        """Whether it is seen."""
        return bool(self.view.visible)

    def wait(self, found: Found, dark: bool) -> None:
        """Show whose answer is on its way; what is there of the same place stays until it comes."""
        self.title.object = plain(found.title)
        self.said.param.update(object=words.paragraph("Looking it up …", dark, quiet=True), visible=True)
        self.view.visible = True

    def show(self, found: Found, report: PlaceReport, dark: bool) -> None:
        """Show what there is of the place."""
        same = report is self._report and dark == self._dark
        self._report, self._dark = report, dark
        self.title.object = plain(found.title)
        about = f"{report.area_km2:,.0f} km². Days are UTC. {CLOUD_IS_THE_SCENE_S}"
        self.said.object = words.paragraph(about, dark, quiet=True)
        if same:  # another layer or metric of the map asks for the place again
            self._body.visible = self.view.visible = True
            return
        self.answer.object = place_words.answer(report, dark)
        self.figures.object = place_words.figures_table(report, dark)
        sensors = dict.fromkeys(month.sensor for month in report.months)
        heads = [
            f"<div style='margin:8px 0 3px;font-weight:600'>{html(title_of(s))}</div>{place_words.strip(report.of(s), dark)}"
            for s in sensors
        ]
        ink = palette.theme(dark).ink
        self.strips.object = (
            f'<div style="color:{ink}">{"".join(heads)}</div><div style="height:8px"></div>{place_words.strip_legend(dark)}'
        )
        self.waits.object = place_words.waits(report, dark)
        combined = place_words.together(report, dark)
        self.together.param.update(object=combined, visible=bool(combined))
        self.known.object = place_words.knownness(report, dark)
        self.series.objects = [_series(report.of(s), dark) for s in sensors] if any(len(report.of(s)) > 1 for s in sensors) else []
        listed = scenes_of(report.months)
        self._scenes = {str(number): scene for number, (_, scene) in enumerate(listed)}
        self.scenes.empty = "No scene is listed here in the window."
        self.scenes.fill([row_of(str(number), *one) for number, one in enumerate(listed)], dark, tall="300px")
        self._body.visible = self.view.visible = True

    def fail(self, text: str, dark: bool) -> None:
        """Say why there is no answer."""
        self._report = None
        self._body.visible = False
        self.said.object = words.paragraph(text, dark)
        self.view.visible = True

    def close(self) -> None:
        """Show no place."""
        self._report, self._scenes = None, {}
        self.view.visible = self._body.visible = False
        self.series.objects = []

    def _pointed(self, key: str | None) -> None:
        scene = self._scenes.get(key or "")
        self._point(scene.footprint if scene else None)


def scenes_of(months: Sequence[PlaceMonth]) -> list[tuple[PlaceMonth, PlaceScene]]:
    """The scenes of a place, newest first."""
    listed = [(month, scene) for month in months for scene in month.scenes]
    return sorted(listed, key=lambda one: (one[0].month, one[1].day, one[1].scene_key), reverse=True)[:MOST_SCENES]


def row_of(key: str, month: PlaceMonth, scene: PlaceScene) -> Row:
    """A scene as a row of the table."""
    held = {True: "held", False: "not held", None: "not known"}[scene.held]
    cloud = "not known" if scene.cloud_cover is None else f"{scene.cloud_cover:.0f} %"
    day, sensor = f"{month.month.key}-{scene.day:02d}", title_of(month.sensor)
    cells = [day, sensor, cloud, f"{100 * scene.share:.0f} %", held, scene.scene_key]
    return Row(key, cells, [day, sensor, scene.cloud_cover, scene.share, held, scene.scene_key], scene.item_href)


def series_table(months: tuple[PlaceMonth, ...]) -> pd.DataFrame:
    """Days with clear scenes, days held and clear, and what is missing, a row a month; no number where it is not known."""
    return pd.DataFrame(
        {
            "month": [month.month.start.strftime("%b %y") + ("" if month.deficit is not None else " ?") for month in months],
            "clear": [None if m.clear_days is None else len(m.clear_days) for m in months],
            "held": [None if m.held_clear_days is None else len(m.held_clear_days) for m in months],
            "missing": [m.deficit for m in months],
        }
    ).astype({"clear": "float64", "held": "float64", "missing": "float64"})


def _series(months: tuple[PlaceMonth, ...], dark: bool) -> pn.viewable.Viewable:
    """The months of one sensor as bars."""
    import hvplot.pandas  # noqa: F401 takes seconds, which ``warm`` spends before the first planner

    around = palette.theme(dark)
    colours = [palette.ACTION_COLOURS["ingest"], palette.ACTION_COLOURS["met"], palette.ACTION_COLOURS["task"]]
    table = series_table(months)
    # Where nothing is known there is an axis all the same, from nothing up.
    top = float(np.fmax.reduce(table[["clear", "held", "missing"]].to_numpy(), axis=None, initial=1.0))
    bars = table.hvplot.bar(
        x="month", y=["clear", "held", "missing"], color=colours, height=_SERIES_HEIGHT, responsive=True, legend=False,
        ylim=(0, 1.05 * top),
        title=f"{plain(title_of(months[0].sensor))}: {_SERIES_WORDS}", xlabel="", ylabel="days a month", rot=0, fontscale=0.9,
    )  # fmt: skip

    def themed(plot: Any, _: Any) -> None:
        figure = plot.state
        figure.background_fill_color = figure.border_fill_color = None
        figure.outline_line_color = None
        figure.toolbar_location = None
        for axis in figure.axis:
            axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = around.quiet_ink
            axis.major_label_text_color = axis.axis_label_text_color = around.ink
            axis.major_label_text_font_size = "11px"
        figure.xaxis.group_text_color = around.ink
        figure.xaxis.group_text_font_size = "11px"
        figure.xaxis.major_label_text_font_size = "0px"  # the three names would lie over one another; the title says their order
        figure.xaxis.separator_line_color = None
        figure.title.text_color = around.ink
        figure.title.text_font_size = "12px"
        figure.grid.grid_line_alpha = 0.25

    return pn.pane.HoloViews(bars.opts(hooks=[themed]), sizing_mode="stretch_width", height=_SERIES_HEIGHT, margin=(4, 0))
