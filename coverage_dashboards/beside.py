"""What a second map beside the first one shows: another sensor, another metric, or one month."""

from __future__ import annotations

from dataclasses import replace

from coverage_dashboards import words
from coverage_dashboards.choices import Choices, View, title_of
from coverage_dashboards.escape import plain
from coverage_pipeline.cube.schema import METRICS
from coverage_pipeline.months import Month, MonthError

NOTHING = ""
LONGEST = 100
"""Characters of a key in an address."""


def options(choices: Choices, view: View) -> dict[str, str]:
    """What can stand beside a view: key by what is offered, ``NOTHING`` first. No two labels are the same."""
    found = {"Nothing": NOTHING}
    for label, sensor in choices.labels_of(view.metric).items():
        if view.sensors != (sensor,):
            found[f"Sensor: {label}"] = f"sensor:{sensor}"
    for name, metric in METRICS.items():
        if name != view.metric and any(choices.lacks(sensor, name) is None for sensor in view.sensors):
            found[f"Metric: {metric.title}"] = f"metric:{name}"
    for month in reversed(choices.months):
        if not (view.first == view.last == month):
            found[f"Month: {words.month_in_words(month)}"] = f"month:{month.key}"
    return found


def view_beside(choices: Choices, view: View, key: str) -> View | None:
    """The view that a key stands for; None for ``NOTHING``, and for what does not go with the view (any more)."""
    kind, _, what = key.partition(":")
    other: View | None = None
    if kind == "sensor" and what in choices.sensors_of(view.metric):
        other = replace(view, sensors=(what,))
    elif kind == "metric" and what in METRICS:
        other = replace(view, layer=METRICS[what].layer, metric=what, aggregation=METRICS[what].default)
        if view.aggregation == "scrub":  # both go through the months together
            other = replace(other, aggregation="scrub")
    elif kind == "month":
        try:
            month = Month.parse(what)
        except MonthError:
            return None
        if month in choices.months:
            other = replace(view, first=month, last=month, month=month)
    if other is None:
        return None
    other = choices.settled(other)
    return other if other.sensors else None


def title(view: View, other: View) -> tuple[str, str]:
    """What stands over the two maps: that in which they differ."""
    if view.metric != other.metric:
        return METRICS[view.metric].title, METRICS[other.metric].title
    if view.sensors != other.sensors:
        named = [", ".join(plain(title_of(sensor)) for sensor in one.sensors) for one in (view, other)]
        return named[0], named[1]
    return _months(view), _months(other)


def _months(view: View) -> str:
    return words.month_in_words(view.month) if view.aggregation == "scrub" else words.window_in_words(view.first, view.last)
