"""The choices of the sidebar: layer, metric, sensors, window, how months are united, and the month of a scrub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import panel as pn
import panel_material_ui as pmui

from coverage_dashboards import beside, palette, words
from coverage_dashboards.choices import AGGREGATION_TITLES, LAYER_TITLES, LAYERS, Choices, View, aggregations_of, metrics_of
from coverage_dashboards.escape import html
from coverage_dashboards.overlays import OVERS, Over
from coverage_dashboards.typed import at_once
from coverage_pipeline.cube.schema import METRICS

HELP = {
    "Layer": "Available: what the catalogues list. Acquired: what we hold. Gap: what is wanted and not held, and what to do about it.",
    "Metric": "What the colours of the map count.",
    "Sensors": "A map of several sensors unites them; of actions it shows the most urgent one.",
    "Window": "The months that count; times are UTC.",
    "Beside it": "A second map, of another sensor, metric or month, which moves with the first. Colours of one metric mean the same.",
    "Over the map": "Outlines of your targets, and of the scenes that the catalogues list for the sensors and the window.",
    "Over time": "How the months of the window become one value: their mean, sum, newest or worst; or one month after the other.",
}


class Sidebar:
    """The widgets. ``chosen`` is called with the view they ask for, and whether it is only another month of a scrub."""

    def __init__(
        self,
        choices: Choices,
        view: View,
        chosen: Callable[[View, bool], None],
        second: Callable[[str], None],
        lay: Callable[[tuple[Over, ...]], None],
    ) -> None:
        """``second`` is called with what is to stand beside the map (``beside.options``), ``lay`` with what is to lie over it."""
        self.choices, self._view, self._tell = choices, view, chosen
        self._wanted_sensors = view.sensors
        self._quiet = False
        months = len(choices.months) - 1
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.layer = pmui.RadioButtonGroup(
            label="Layer", options={LAYER_TITLES[k]: k for k in LAYERS}, color="primary", size="medium", **wide
        )
        self.metric = pmui.Select(label="Metric", **wide)
        self.sensors = pmui.CheckBoxGroup(label="Sensors", **wide)
        self.left_out = pn.pane.HTML("", margin=(0, 10, 5, 10), styles={"font-size": "14px"}, **wide)
        self.window_said = pmui.Typography("", variant="body1", margin=(0, 10, 0, 10), **wide)
        self.window = pmui.IntRangeSlider(
            label="Window", start=0, end=max(months, 1), step=1, value=(0, max(months, 1)),
            show_value=False, tooltips=False, disabled=months == 0,
            margin=(0, 18, 5, 18), **wide,
        )  # fmt: skip
        self.aggregation = pmui.Select(label="Over time", **wide)
        self.help = pn.pane.HTML("", css_classes=["help"], margin=(14, 10), stylesheets=[_HELP], **wide)
        self.month = pmui.DiscretePlayer(
            label="Month", options=[0], value=0, interval=900, loop_policy="loop", show_loop_controls=False,
            visible_buttons=["first", "previous", "pause", "play", "next", "last"], **wide,
        )  # fmt: skip
        self.beside = pmui.Select(label="Beside it", options={"Nothing": beside.NOTHING}, value=beside.NOTHING, **wide)
        self.beside.param.watch(lambda event: None if self._quiet else second(event.new or beside.NOTHING), "value")
        self.over = pmui.CheckBoxGroup(label="Over the map", options={title: kind for kind, title in OVERS.items()}, **wide)
        self.over.param.watch(lambda event: None if self._quiet else lay(tuple(event.new)), "value")
        for widget in (self.layer, self.metric, self.sensors, self.aggregation, self.month):
            widget.param.watch(self._chosen, "value")
        at_once(self.layer, self.metric, self.sensors, self.window, self.aggregation, self.month, self.beside, self.over)
        self.window.param.watch(self._chosen, "value_throttled")
        self.window.param.watch(self._say_window, "value")

    @property
    def wanted_sensors(self) -> tuple[str, ...]:
        """The sensors that were chosen, those included that the metric at hand does not have."""
        return self._wanted_sensors

    def objects(self) -> list[Any]:
        """What stands in the sidebar."""
        return [
            self.layer,
            pn.Spacer(height=8),
            self.metric,
            self.sensors,
            self.left_out,
            self.window,
            self.window_said,
            self.aggregation,
            self.month,
            self.beside,
            self.over,
            self.help,
        ]

    def show(
        self, view: View, choices: Choices, second: str = beside.NOTHING, over: tuple[Over, ...] = (), *, travelled: bool = False
    ) -> None:
        """Set the widgets to a view, to what stands beside it and what lies over it, without taking it for a planner's choice.

        ``travelled``: it came from an address.
        """
        self.choices, self._view = choices, view
        if travelled:
            self._wanted_sensors = view.sensors
        with self._quietly():
            months = choices.months
            self.layer.value = view.layer
            self.metric.param.update(options={METRICS[m].title: m for m in metrics_of(view.layer)}, value=view.metric)
            self.sensors.param.update(options=choices.labels_of(view.metric), value=list(view.sensors))
            last = len(months) - 1
            span = (months.index(view.first), months.index(view.last))
            self.window.param.update(end=max(last, 1), disabled=last == 0, value=span)
            self._say_window()
            titles = {AGGREGATION_TITLES[a]: a for a in aggregations_of(view.metric)}
            self.aggregation.param.update(options=titles, value=view.aggregation)
            shown = view.months
            self.month.param.update(options={words.month_in_words(m): k for k, m in enumerate(shown)}, value=shown.index(view.month))
            self.month.visible = view.aggregation == "scrub"
            self.over.value = list(over)
            offered = beside.options(choices, view)
            self.beside.param.update(options=offered, value=second if second in offered.values() else beside.NOTHING)

    def paint(self, dark: bool) -> None:
        """Say why some sensors are not offered, and what the choices mean, in the colours of the theme."""
        entries = "".join(f"<dt>{html(name)}</dt><dd>{html(text)}</dd>" for name, text in HELP.items())
        ink = palette.theme(dark).ink
        self.help.object = f'<details style="color:{ink}"><summary>What do these choices mean?</summary><dl>{entries}</dl></details>'
        left_out = words.left_out(self.choices, self._view.metric)
        self.left_out.object = words.paragraph(left_out, dark, quiet=True) if left_out else ""

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _say_window(self, *_: Any) -> None:
        months = self.choices.months
        first, last = (months[min(k, len(months) - 1)] for k in self.window.value)
        self.window_said.object = words.window_in_words(first, last)

    def _chosen(self, event: Any) -> None:
        if self._quiet:
            return
        if event.obj is self.sensors:
            # What is not offered for this metric stays wanted, for the metrics that have it.
            offered = set(self.choices.sensors_of(self._view.metric))
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
        shown = self._view.months
        month = shown[min(self.month.value, len(shown) - 1)]
        view = View(self.layer.value, metric, self._wanted_sensors, first, last, aggregation, month)
        self._tell(self.choices.settled(view), event.obj is self.month)


_HELP = """
summary { cursor: pointer; font-size: 14px; }
dl { font-size: 14px; margin: 8px 0; }
dt { font-weight: 600; }
dd { margin: 0 0 8px; }
"""
