"""What a planner can choose, as the cube has it, and the address that holds a choice.

An address is untrusted: what it names that the cube lacks is left out, and the page says which
part.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import get_args

import xarray as xr

from coverage_dashboards.escape import plain
from coverage_pipeline.cube.schema import AGGREGATIONS, METRICS, Aggregation, CoverageQuery, Layer
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month, MonthError, months_between
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.sources import SettingsError

LAYERS: tuple[Layer, ...] = get_args(Layer)
LAYER_TITLES: Mapping[Layer, str] = {"available": "Available", "acquired": "Acquired", "gap": "Gap"}
AGGREGATION_TITLES: Mapping[Aggregation, str] = {
    "rate": "Rate: mean of the known months",
    "total": "Total of the known months",
    "recent": "Recent: latest known month",
    "worst": "Worst month",
    "scrub": "Scrub: month by month",
}
FIRST_SENSOR = "emit"
FIRST_MONTHS = 6
LONGEST_ADDRESS_VALUE = 400


@dataclass(frozen=True)
class View:
    """One choice of everything in the sidebar."""

    layer: Layer
    metric: str
    sensors: tuple[str, ...]
    first: Month
    last: Month
    aggregation: Aggregation
    month: Month
    """The one shown while scrubbing; within the window."""

    @property
    def months(self) -> list[Month]:
        """The window's months."""
        return months_between(self.first, self.last)

    def query(self) -> CoverageQuery:
        """The question to the cube; of a scrub, the month that is shown."""
        if self.aggregation == "scrub":
            return self.frame(self.month)
        return self._query(self.first, self.last, self.aggregation)

    def frame(self, month: Month) -> CoverageQuery:
        """The question for one month of a scrub."""
        return self._query(month, month, "recent")

    def _query(self, first: Month, last: Month, aggregation: Aggregation) -> CoverageQuery:
        return CoverageQuery(self.layer, self.metric, list(self.sensors), _day(first), _day(last), aggregation)


def _day(month: Month) -> dt.date:
    return month.start.date()


def metrics_of(layer: Layer) -> list[str]:
    """The layer's metrics in the order they are offered."""
    return [name for name, metric in METRICS.items() if metric.layer == layer]


def aggregations_of(metric: str) -> list[Aggregation]:
    """What makes sense of a metric over time: actions have no mean and no sum."""
    return [a for a in AGGREGATIONS if metric != "action" or a not in ("rate", "total")]


@cache
def _known_sensors() -> Mapping[str, CoverageSensor]:
    """The registry with the sensors that the settings declare, as they were when the server started."""
    try:
        return load_settings(holdings=False).registry()
    except SettingsError:  # the page says what is wrong; names need not
        return COVERAGE_SENSORS


def title_of(sensor: str) -> str:
    """A sensor's name for people."""
    known = _known_sensors().get(sensor)
    return known.title if known and known.title else sensor


@dataclass(frozen=True)
class Choices:
    """The sensors and months of a cube, and what each sensor lacks."""

    sensors: tuple[str, ...]
    months: tuple[Month, ...]
    without_catalogue: frozenset[str]
    not_held: frozenset[str]

    @classmethod
    def of(cls, ds: xr.Dataset) -> Choices:
        """What this cube has."""
        keys = tuple(str(k) for k in ds["sensor"].values)
        no_catalogue = (ds["scan_status"] == SCAN_STATUS.index("not_applicable")).all("time").values
        no_holdings = (ds["holdings_status"] == HOLDINGS_STATUS.index("not_held")).all("time").values
        return cls(
            keys,
            tuple(Month.of(t) for t in ds["time"].values),
            frozenset(k for k, none in zip(keys, no_catalogue, strict=True) if none),
            frozenset(k for k, none in zip(keys, no_holdings, strict=True) if none),
        )

    def lacks(self, sensor: str, metric: str) -> str | None:
        """Why a sensor has no such metric, in words; None where it has."""
        if METRICS[metric].needs in ("catalogue", "both") and sensor in self.without_catalogue:
            return f"{title_of(sensor)} has no public catalogue"
        if METRICS[metric].layer == "acquired" and sensor in self.not_held:
            return f"{title_of(sensor)} is not in our holdings"
        return None

    def sensors_of(self, metric: str) -> list[str]:
        """Sensors that have the metric."""
        return [s for s in self.sensors if self.lacks(s, metric) is None]

    def labels_of(self, metric: str) -> dict[str, str]:
        """What stands beside each box of a sensor that has the metric, and its key. No two labels are the same."""
        keys = self.sensors_of(metric)
        labels = [plain(title_of(key)) for key in keys]
        return {
            label if labels.count(label) == 1 else f"{label} ({number}: {plain(key)})": key
            for number, (label, key) in enumerate(zip(labels, keys, strict=True), start=1)
        }

    def first_view(self) -> View:
        """What a planner sees who asks for nothing: scenes of EMIT over the first half year."""
        metric = next(iter(METRICS))
        has = self.sensors_of(metric) or list(self.sensors)
        sensor = FIRST_SENSOR if FIRST_SENSOR in has else has[0]
        first, last = self.months[0], self.months[min(FIRST_MONTHS, len(self.months)) - 1]
        return View(METRICS[metric].layer, metric, (sensor,), first, last, METRICS[metric].default, first)

    def settled(self, view: View) -> View:
        """The view with everything that no longer fits set to what does: metric to layer, sensors to metric, month to
        window.
        """
        metric = view.metric if view.metric in metrics_of(view.layer) else metrics_of(view.layer)[0]
        aggregation = view.aggregation if view.aggregation in aggregations_of(metric) else METRICS[metric].default
        has = self.sensors_of(metric)
        sensors = tuple(s for s in self.sensors if s in view.sensors and s in has)
        first, last = (min(max(month, self.months[0]), self.months[-1]) for month in (view.first, view.last))
        month = min(max(view.month, first), last)
        return replace(view, metric=metric, aggregation=aggregation, sensors=sensors, first=first, last=last, month=month)

    def from_address(self, parameters: Mapping[str, Sequence[bytes | str]]) -> tuple[View, list[str]]:
        """The view an address asks for, and which of its parts had to be left out (the setting's names, never the address's own
        words).
        """
        view, refused = self.first_view(), []

        def value(name: str) -> str | None:
            given = parameters.get(name)
            if not given:
                return None
            last = given[-1]
            text = last.decode("utf-8", "replace") if isinstance(last, bytes) else str(last)
            return text if len(text) <= LONGEST_ADDRESS_VALUE else "\0"

        layer = value("layer")
        if layer is not None:
            if layer in LAYERS:
                view = replace(view, layer=layer, metric=metrics_of(layer)[0])
            else:
                refused.append("layer")
        metric = value("metric")
        if metric is not None:
            fits = metric in METRICS and (layer is None or layer not in LAYERS or METRICS[metric].layer == layer)
            if fits:
                view = replace(view, layer=METRICS[metric].layer, metric=metric)
            else:
                refused.append("metric")
        view = replace(view, aggregation=METRICS[view.metric].default)
        aggregation = value("agg")
        if aggregation is not None:
            if aggregation in aggregations_of(view.metric):
                view = replace(view, aggregation=aggregation)
            else:
                refused.append("aggregation")
        sensors = value("sensors")
        if sensors is not None:
            named = [s for s in sensors.split(",") if s]
            available = tuple(s for s in self.sensors if s in named and self.lacks(s, view.metric) is None)
            if set(named) - set(available):
                refused.append("sensors")
            if available or not named:
                view = replace(view, sensors=available)
        first, last = (self._month(value(name), default) for name, default in (("t0", view.first), ("t1", view.last)))
        if first is None or last is None or first > last:
            refused.append("window")
        else:
            view = replace(view, first=first, last=last)
        month = self._month(value("month"), view.month)
        if month is None or (value("month") is not None and not view.first <= month <= view.last):
            refused.append("month")
        else:
            view = replace(view, month=month)
        return self.settled(view), refused

    def _month(self, text: str | None, default: Month) -> Month | None:
        if text is None:
            return default
        try:
            month = Month.parse(text)
        except MonthError:
            return None
        return month if month in self.months else None


def address_of(view: View) -> dict[str, str]:
    """The address that ``Choices.from_address`` makes the same view of."""
    parts = {
        "layer": view.layer,
        "metric": view.metric,
        "sensors": ",".join(view.sensors),
        "t0": view.first.key,
        "t1": view.last.key,
        "agg": view.aggregation,
    }
    return parts | ({"month": view.month.key} if view.aggregation == "scrub" else {})
