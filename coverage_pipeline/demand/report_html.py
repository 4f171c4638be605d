"""The report as one HTML file that needs nothing else: text, a map and charts as hand-written SVG. Every text is escaped by ``_text``."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Mapping, Sequence

import numpy as np
import shapely

from coverage_pipeline.demand.changes import TargetState
from coverage_pipeline.demand.report import MonthFigures, Report, SensorReport, change_words, closing_words
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.geometry.outlines import land

_COLOURS = {
    "met": "#1b7f5c", "missing": "#c8553d", "unknown": "#8a8f98", "too_large": "#b08900", "idle": "#c9ced6", "out_of_reach": "#c9ced6",
}  # fmt: skip
"""Of the states; each dot and bar says its state in words, too."""
_WIDTH, _HEIGHT = 720, 360
_CHART_HEIGHT, _BAR = 120, 28
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2129; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 }
table { border-collapse: collapse }
td, th { padding: .2rem .8rem; border-bottom: 1px solid #d8dce2; text-align: right }
td:first-child, th:first-child { text-align: left }
.small { color: #596270; font-size: .9rem }
svg { max-width: 100%; height: auto }
@media (prefers-color-scheme: dark) {
  body { color: #e6e9ee; background: #15181d }
  td, th { border-color: #3a404a }
  .small { color: #a0a8b4 }
}
"""


def _text(value: object) -> str:
    """Text of anybody, safe in HTML."""
    return html.escape(str(value), quote=True)


def report_html(
    report: Report, targets: Targets | None, states: Mapping[str, Mapping[str, TargetState]], *, note: str | None = None
) -> str:
    """The whole page. ``states`` are those of the targets by sensor key; ``note`` is what a reader must be told of the data."""
    scope = f"targets of {report.group}" if report.group else report.of
    made = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>Coverage of {_text(scope)}, {_text(report.month)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Coverage of {_text(scope)}, {_text(report.month)}</h1>",
        *([f"<p><strong>{_text(note)}</strong></p>"] if note else []),
        "<p class='small'>Shares are of the true area on the ellipsoid that wants something in the month. What is not known is never "
        f"counted as met or missing. Written {_text(made)}.</p>",
    ]
    parts.extend(_section(one, targets, states.get(one.key, {}), report.group) for one in report.sensors)
    parts.append("</body></html>")
    return "\n".join(parts)


def _section(one: SensorReport, targets: Targets | None, states: Mapping[str, TargetState], group: str | None) -> str:
    title = one.title
    parts = [f"<h2>{_text(title)}</h2>", f"<p><strong>{_text(one.headline)}.</strong></p>"]
    if one.now.row is not None:
        parts.append(f"<p>{_text(closing_words(one.now.row))}</p>")
    if one.now.made is not None:
        made = one.now.made
        parts.append(f"<p class='small'>Scan {_text(made.scan_status)}, holdings {_text(made.holdings_status)}, {_text(made.made_at)}.</p>")
    if targets is not None and states:
        parts.append(_map(targets, states, title, group))
    parts.append(_trend(one.trend, title))
    if one.since_month is not None:
        parts.append(f"<p>Since the month before: {_text(change_words(one.since_month))}.</p>")
    if one.since_run is not None:
        parts.append(f"<p>Since the run of {_text(one.run_before)}: {_text(change_words(one.since_run))}.</p>")
    return "\n".join(parts)


def _map(targets: Targets, states: Mapping[str, TargetState], title: str, group: str | None) -> str:
    """Where the targets stand on a plain longitude and latitude map; each is a dot, however small."""
    dots, table = [], targets.table
    points = shapely.point_on_surface(table.geometry.to_numpy())
    for name, label, of, point in zip(table["id"], table["name"], table["group"], points, strict=True):
        if name not in states or (group is not None and of != group):
            continue
        state = states[name].state
        x, y = (point.x + 180) * _WIDTH / 360, (90 - point.y) * _HEIGHT / 180
        words = f"{label or name}: {state.replace('_', ' ')}"
        mark = f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5' fill='{_COLOURS[state]}' stroke='#fff'>"
        dots.append(f"{mark}<title>{_text(words)}</title></circle>")
    shown = {states[name].state for name in table["id"] if name in states}
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' role='img' aria-label='{_text(f'Map of the targets of {title}')}'>"
        f"<path d='{_land_path()}' fill='#e3e7ec' stroke='#b8bfc9' stroke-width='.4'/>{''.join(dots)}</svg>{_legend(shown)}"
    )


def _land_path() -> str:
    """Coasts, to a quarter of a degree: half a pixel of the map."""
    shapes = shapely.simplify(shapely.get_parts(land()), 0.25)
    paths = []
    for ring in shapely.get_exterior_ring(shapes[shapely.area(shapes) > 1]):
        x, y = shapely.get_coordinates(ring).T
        points = np.column_stack([(x + 180) * _WIDTH / 360, (90 - y) * _HEIGHT / 180])
        paths.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points) + "Z")
    return "".join(paths)


def _legend(states: set[str]) -> str:
    entries = []
    for state, colour in _COLOURS.items():
        if state in states:
            dot = f"<svg width='12' height='12' aria-hidden='true'><circle cx='6' cy='6' r='5' fill='{colour}'/></svg>"
            entries.append(f"<span>{dot} {_text(state.replace('_', ' '))}</span>")
    return f"<p class='small'>{' &nbsp; '.join(entries)}</p>"


def _trend(trend: Sequence[MonthFigures], title: str) -> str:
    """Stacked bars of each month, and the same as a table: met, missing, not known."""
    bars, rows = [], []
    for number, one in enumerate(trend):
        met, unknown = one.met, one.unknown
        x = number * (_BAR + 8)
        if unknown is None:
            rows.append(f"<tr><td>{_text(one.month)}</td><td colspan='3'>nothing is wanted</td></tr>")
            continue
        pieces = (("met", met or 0.0), ("missing", 0.0 if met is None else 1 - met - unknown), ("unknown", unknown))
        y = float(_CHART_HEIGHT)
        for state, share in pieces:
            height = share * _CHART_HEIGHT
            y -= height
            words = f"{one.month}: {100 * share:.1f} % {'not known' if state == 'unknown' else state}"
            bar = f"<rect x='{x}' y='{y:.1f}' width='{_BAR}' height='{height:.1f}' fill='{_COLOURS[state]}'>"
            bars.append(f"{bar}<title>{_text(words)}</title></rect>")
        figures = ("not known", "not known") if met is None else (f"{100 * met:.1f} %", f"{100 * (1 - met - unknown):.1f} %")
        rows.append(f"<tr><td>{_text(one.month)}</td><td>{figures[0]}</td><td>{figures[1]}</td><td>{100 * unknown:.1f} %</td></tr>")
    width = max(len(trend) * (_BAR + 8), 100)
    label = _text(f"Share of the area of {title} that is met, missing and not known, by month")
    return (
        f"<svg viewBox='0 0 {width} {_CHART_HEIGHT}' width='{width}' role='img' aria-label='{label}'>{''.join(bars)}</svg>"
        "<table><thead><tr><th scope='col'>month</th><th scope='col'>met</th><th scope='col'>missing</th>"
        "<th scope='col'>not known</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
