"""The coverage planner's page: a sidebar of choices, the map, its caption and its legend."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import panel as pn
import panel_material_ui as pmui

from coverage_dashboards import words
from coverage_dashboards.address_bar import AddressBar, parameters_of
from coverage_dashboards.choices import (
    AGGREGATION_TITLES,
    LAYER_TITLES,
    LAYERS,
    Choices,
    View,
    address_of,
    aggregations_of,
    metrics_of,
)
from coverage_dashboards.doubts import doubts_in_words, provisional_partitions
from coverage_dashboards.escape import html
from coverage_dashboards.fields import Cube, Field, Limits, extent_of, field_of, frames_limits, open_cube
from coverage_dashboards.outlines import prepare_outlines
from coverage_dashboards.viewport import compile_kernels
from coverage_dashboards.worldmap import Shown, WorldMap, op_of
from coverage_pipeline.cube.schema import METRICS, CoverageError
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.store import Store

log = logging.getLogger(__name__)

TITLE = "Coverage planner"
_PIXELS = {
    "mean": "zoomed out, a pixel shows the mean of its cells",
    "max": "zoomed out, a pixel shows the highest of its cells",
    "urgent": "",
    "min": "",
}

pn.extension(notifications=False)


def cube_location() -> str:
    """Where the settings say the cube is; raises ``SettingsError`` where they are wrong."""
    return str(load_settings(holdings=False).store().zarr)


def store_at_hand() -> Store | None:
    """Where the settings say that the scan reports are; None where they are wrong, which the page says elsewhere."""
    try:
        return load_settings().store()
    except SettingsError:
        return None


@cache
def warm() -> None:
    """Have ready what every planner needs, once for the process: compiled code, outlines."""
    compile_kernels()
    prepare_outlines()


def page() -> pmui.Page:
    """The page for one planner, as their address asks for; a friendly one where there is no cube."""
    warm()
    try:
        cube = open_cube(cube_location())
    except (CoverageError, SettingsError) as error:
        log.warning("%s", error)
        return _no_cube(error)
    return Planner(cube, pn.state.session_args or {}).page


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
    card = pmui.Paper(pn.pane.HTML(how, styles={"font-size": "16px"}), elevation=1, margin=30, max_width=820)
    return pmui.Page(title=TITLE, main=[card])


class Planner:
    """One planner's session."""

    def __init__(self, cube: Cube, parameters: Mapping[str, Sequence[bytes | str]]) -> None:
        self.cube = cube
        self.choices = Choices.of(cube.ds)
        view, refused = self.choices.from_address(parameters)
        self.view: View = view
        self._wanted_sensors = view.sensors
        self._quiet = False
        self._drawn: tuple[Field, Limits] | None = None
        self._problem: str | None = None

        self.address = AddressBar(self._travelled, width=0, height=0, margin=0)
        self.map = WorldMap(extent=extent_of(cube))
        self._make_widgets()
        self._make_places(refused)
        self.page = pmui.Page(
            title=TITLE,
            header=[self.simulated, self.address],
            sidebar=self._sidebar(),
            main=[self._main()],
            sidebar_width=330,
            sidebar_resizable=False,
            theme_config=_THEME,
        )
        self.page.param.watch(self._themed, "dark_theme")
        self._show(view)
        if parameters:  # an address that asks for nothing stays short
            self.address.write(address_of(view), push=False)
        pn.state.onload(self._repaint_soon)

    # --- the sidebar

    def _make_widgets(self) -> None:
        months = len(self.choices.months) - 1
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.layer = pmui.RadioButtonGroup(
            label="Layer", options={LAYER_TITLES[k]: k for k in LAYERS}, color="primary", size="medium", **wide
        )
        self.metric = pmui.Select(label="Metric", **wide)
        self.sensors = pmui.CheckBoxGroup(label="Sensors", **wide)
        self.left_out = pn.pane.HTML("", margin=(0, 10, 5, 10), styles={"font-size": "14px"}, **wide)
        self.window_said = pmui.Typography("", variant="body1", margin=(0, 10, 0, 10), **wide)
        self.window = pmui.IntRangeSlider(
            label="", start=0, end=max(months, 1), step=1, value=(0, max(months, 1)),
            show_value=False, tooltips=False, disabled=months == 0,
            margin=(0, 18, 5, 18), **wide,
        )  # fmt: skip
        self.aggregation = pmui.Select(label="Over time", **wide)
        self.month = pmui.DiscretePlayer(
            label="Month", options=[0], value=0, interval=900, loop_policy="loop", show_loop_controls=False,
            visible_buttons=["first", "previous", "pause", "play", "next", "last"], **wide,
        )  # fmt: skip
        for widget in (self.layer, self.metric, self.sensors, self.aggregation, self.month):
            widget.param.watch(self._chosen, "value")
        self.window.param.watch(self._chosen, "value_throttled")
        self.window.param.watch(self._say_window, "value")

    def _sidebar(self) -> list[Any]:
        return [
            self.layer,
            pn.Spacer(height=8),
            self.metric,
            self.sensors,
            self.left_out,
            pmui.Typography("Window", variant="body1", margin=(12, 10, 0, 10), sx={"opacity": 0.8}),
            self.window_said,
            self.window,
            self.aggregation,
            self.month,
        ]

    def _make_places(self, refused: list[str]) -> None:
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.simulated = pn.pane.HTML("", margin=(0, 10), styles=_BADGE)
        self._say_simulated()
        self.notice = pmui.Alert(object="", severity="info", visible=False, closeable=True, margin=(0, 0, 6, 0), **wide)
        self._say_refused(refused)
        self.caption = pn.pane.HTML("", css_classes=["caption"], margin=(0, 2, 8, 2), styles={"font-size": "16px"}, **wide)
        self.doubts = pn.pane.HTML(
            "", css_classes=["doubts"], visible=False, margin=(0, 2, 8, 2),
            styles={"font-size": "14px", "flex": "none", "max-height": "120px", "overflow-y": "auto"}, **wide,
        )  # fmt: skip
        self.said = pn.pane.HTML("", margin=0, styles={"font-size": "15px"}, **wide)
        self.message = pmui.Alert(self.said, severity="info", visible=False, margin=(20, 0, 20, 0), **wide)
        # The map takes what caption and legend leave, and never pushes the legend off the page.
        figure = pn.pane.HoloViews(self.map.plot, sizing_mode="stretch_both", margin=0)
        self.canvas = pn.Column(
            figure, sizing_mode="stretch_both",
            styles={"flex": "1 1 0", "min-height": "260px", "overflow": "hidden"},
        )  # fmt: skip
        self.legend = pn.pane.HTML("", css_classes=["legend"], margin=(8, 2, 0, 2), styles={"flex": "none"}, **wide)

    def _main(self) -> pn.Column:
        return pn.Column(
            self.notice, self.caption, self.doubts, self.message, self.canvas, self.legend,
            sizing_mode="stretch_both", margin=(10, 16, 10, 16), styles={"height": "calc(100vh - 84px)", "min-height":
            "520px"},
        )  # fmt: skip

    # --- what happens

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Set widgets without taking it for a planner's choice."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _say_window(self, *_: Any) -> None:
        first, last = (self.choices.months[min(k, len(self.choices.months) - 1)] for k in self.window.value)
        self.window_said.object = words.window_in_words(first, last)

    def _chosen(self, event: Any) -> None:
        if self._quiet:
            return
        self.notice.visible = False  # it was about the address, which is no longer what is shown
        if event.obj is self.sensors:
            # What is not offered for this metric stays wanted, for the metrics that have it.
            offered = set(self.choices.sensors_of(self.view.metric))
            self._wanted_sensors = tuple(
                s for s in self.choices.sensors if s in event.new or (s in self._wanted_sensors and s not in offered)
            )
        months = self.choices.months
        first, last = (months[min(k, len(months) - 1)] for k in self.window.value)
        metric, aggregation = self.metric.value, self.aggregation.value
        if event.obj is self.layer:
            metric = metrics_of(event.new)[0]
        if event.obj in (self.layer, self.metric):
            aggregation = METRICS[metric].default
        shown = self.view.months
        month = shown[min(self.month.value, len(shown) - 1)]
        self._show(self.choices.settled(View(self.layer.value, metric, self._wanted_sensors, first, last, aggregation, month)))
        # A month that plays by would fill the history with a hundred entries.
        self.address.write(address_of(self.view), push=event.obj is not self.month)

    def _travelled(self, search: object) -> None:
        """Show what the address asks for that *back* or *forward* led to."""
        parameters = parameters_of(search)
        view, refused = self.choices.from_address(parameters or {})
        if parameters is None:
            refused = ["address"]
        self._say_refused(refused)
        self._wanted_sensors = view.sensors
        self._show(view)
        if refused:
            self.address.write(address_of(self.view), push=False)

    def _say_refused(self, refused: Sequence[str]) -> None:
        if refused:
            self.notice.object = f"The link asked for something this cube does not have ({', '.join(refused)}); it was left out."
        self.notice.visible = bool(refused)

    def _say_simulated(self) -> None:
        attrs = self.cube.ds.attrs
        simulated = words.is_simulated(attrs)
        self.simulated.param.update(object=words.simulated(attrs) if simulated else "", visible=simulated)

    def _follow_cube(self) -> None:
        """Take over what stands in the cube's place now: the same cube after a run, a grown one, or another one."""
        cube = open_cube(self.cube.location)
        if cube is self.cube:
            return
        self.cube, self.choices = cube, Choices.of(cube.ds)
        self.map.look_at(extent_of(cube))
        self._say_simulated()

    def _show(self, view: View) -> None:
        trouble: str | None = None
        try:
            self._follow_cube()
        except CoverageError as error:
            log.warning("%s", error)
            trouble = str(error)
        view = self.choices.settled(view)
        self.view = view
        with self._quietly():
            self._set_widgets(view)
        severity = "info"
        self._drawn = None
        try:
            problem = trouble or self._look_up(view)
        except CoverageError as error:
            log.warning("%s", error)
            problem = trouble = str(error)
        if trouble:
            severity = "error"
        self._problem = problem
        self._draw(problem, severity)

    def _look_up(self, view: View) -> str | None:
        """Find what to draw; else say in words why there is nothing."""
        if not view.sensors:
            unable = [s for s in self._wanted_sensors if self.choices.lacks(s, view.metric)]
            reasons = ". ".join(str(self.choices.lacks(s, view.metric)) for s in unable)
            return f"{reasons + '. ' if reasons else ''}Choose at least one sensor on the left."
        field = field_of(self.cube, view.query())
        limits = field.limits
        if view.aggregation == "scrub":
            limits = frames_limits(self.cube, [view.frame(m) for m in view.months])
        self._drawn = (field, limits)
        if field.known_range[1] == 0:
            return words.nothing_known(view, self.cube.ds)
        return None

    def _draw(self, problem: str | None, severity: str) -> None:
        dark = bool(self.page.dark_theme)
        self.said.object, self.message.severity = words.paragraph(problem or "", dark), severity
        self.message.visible = problem is not None
        self.left_out.object = words.paragraph(words.left_out(self.choices, self.view.metric), dark, quiet=True)
        self._say_doubts(dark)
        self.legend.visible = self._drawn is not None
        # Where no sensor is chosen, coasts and view stay for the one that will be.
        self.canvas.visible = self._drawn is not None or severity != "error"
        if self._drawn is None:
            self.map.show(None)
            self.caption.object = words.paragraph(f"{LAYER_TITLES[self.view.layer]} · {METRICS[self.view.metric].title}", dark)
            return
        field, limits = self._drawn
        snapshot = self.cube.ds.attrs.get("catalog_snapshot")
        text = words.caption(self.view, field)
        if self.view.layer != "acquired":
            text += f" · catalogue as of {snapshot}" if snapshot else " · catalogue not asked yet"
        self.caption.object = words.paragraph(text, dark)
        pixels = _PIXELS[op_of(field.metric)]
        self.legend.object = words.legend(field, limits, pixels, words.lookback_months(self.cube.ds.attrs), dark)
        self.map.show(Shown(field, limits, dark))

    def _say_doubts(self, dark: bool) -> None:
        """Name the doubts of the provisional months that are shown; what we hold does not depend on them."""
        shown = self._drawn is not None and self.view.layer != "acquired"
        provisional = provisional_partitions(self.view, self.cube.ds) if shown else []
        lines = doubts_in_words(provisional, self.cube.ds, store_at_hand()) if provisional else []
        self.doubts.param.update(object=words.doubts(lines, dark) if lines else "", visible=bool(lines))

    def _themed(self, *_: Any) -> None:
        self._draw(self._problem, self.message.severity)
        self._repaint_soon()

    def _repaint_soon(self) -> None:
        """While the browser builds the map, the end of a held painting may be lost: it is said again (``WorldMap.repaint``)."""
        document = pn.state.curdoc
        if document is not None and document.session_context is not None:
            for milliseconds in _REPAINT_AFTER:
                document.add_timeout_callback(self.map.repaint, milliseconds)

    def _set_widgets(self, view: View) -> None:
        months = self.choices.months
        self.layer.value = view.layer
        self.metric.param.update(options={METRICS[m].title: m for m in metrics_of(view.layer)}, value=view.metric)
        self.sensors.param.update(options=self.choices.labels_of(view.metric), value=list(view.sensors))
        self.left_out.visible = bool(words.left_out(self.choices, view.metric))
        last = len(months) - 1
        span = (months.index(view.first), months.index(view.last))
        self.window.param.update(end=max(last, 1), disabled=last == 0, value=span)
        self._say_window()
        self.aggregation.param.update(options={AGGREGATION_TITLES[a]: a for a in aggregations_of(view.metric)}, value=view.aggregation)
        shown = view.months
        self.month.param.update(options={words.month_in_words(m): k for k, m in enumerate(shown)}, value=shown.index(view.month))
        self.month.visible = view.aggregation == "scrub"


_REPAINT_AFTER = (600, 2_500, 8_000)
"""Milliseconds after the page was loaded or its theme changed: soon, and again for slow browsers."""
_THEME = {
    "light": {"palette": {"primary": {"main": "#0b5394", "contrastText": "#ffffff"}}},
    "dark": {"palette": {"primary": {"main": "#2b74b8", "contrastText": "#ffffff"}}},
}
_BADGE = {
    "background": "#ffb300",
    "color": "#1c1c1c",
    "padding": "4px 14px",
    "border-radius": "16px",
    "font-size": "15px",
}

__all__ = ["Planner", "cube_location", "page"]
