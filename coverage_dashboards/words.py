"""Everything the dashboard says: captions, legends and what the pointer tells, in the words of a planner."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from coverage_dashboards import palette
from coverage_dashboards.choices import LAYER_TITLES, Choices, View, title_of
from coverage_dashboards.coding import NOT_KNOWN, class_colours
from coverage_dashboards.escape import html, plain
from coverage_dashboards.fields import CHANGE, CHANGES, Field, Limits, Share, classes_of
from coverage_pipeline.cube.schema import ACTIONS, GAP_VARIABLES, METRICS
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS

ACTION_TITLES: Mapping[str, str] = {
    "ingest": "Ingest",
    "check": "Check",
    "task": "Task",
    "none": "None",
    "met": "Met",
    "unknown": "Unknown",
    "out_of_scope": "Out of scope",
}
ACTION_WORDS: Mapping[str, str] = {
    "ingest": "a clear scene exists that we do not hold – download it",
    "check": "scenes of unknown cloud exist – look first",
    "task": "none exists, the sensor can be pointed",
    "none": "wait for the next pass",
    "met": "we hold what we want",
    "unknown": "could not be looked up, or a scan found nothing and is provisional",
    "out_of_scope": "nobody wants it here",
}
"""What to do, in the order of the legend: first what must not be overlooked."""

_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
MOST_URGENT = " (the most urgent action of any of them)"
_OVER_TIME = {"rate": "rate (mean month)", "total": "total", "recent": "latest known month", "worst": "worst month"}


def month_in_words(month: Month) -> str:
    """For example ``March 2025``."""
    return f"{_MONTHS[month.month - 1]} {month.year}"


def window_in_words(first: Month, last: Month) -> str:
    """For example ``January to June 2025``."""
    if first == last:
        return month_in_words(first)
    if first.year == last.year:
        return f"{_MONTHS[first.month - 1]} to {month_in_words(last)}"
    return f"{month_in_words(first)} to {month_in_words(last)}"


def known_in_words(known: tuple[int, int], months: int) -> str:
    """How much of the window is known, over the cells of the map."""
    fewest, most = known
    if most == 0:
        return "not known in any month"
    if fewest == most == months:
        return f"known in all {months} of {months} months" if months > 1 else "known in the month"
    if fewest == most:
        return f"known in {most} of {months} months"
    if months == 1:
        return "known in part of the world"
    return f"between {fewest} and {most} of {months} months known"


def caption(view: View, field: Field) -> str:
    """What the map shows: layer, metric, aggregation, sensors, window and how much of it is known."""
    scrub = view.aggregation == "scrub"
    over = f"month by month, {month_in_words(view.month)}" if scrub else _OVER_TIME[view.aggregation]
    parts = [
        LAYER_TITLES[view.layer],
        METRICS[view.metric].title,
        over,
        ", ".join(title_of(s) for s in view.sensors) + (MOST_URGENT if view.metric == "action" and len(view.sensors) > 1 else ""),
        window_in_words(view.first, view.last),
        known_in_words(field.known_range, field.months),
    ]
    if field.provisional:
        parts.append(provisional_in_words(field))
    return plain(" · ".join(parts))


def provisional_in_words(field: Field) -> str:
    """In how many of the months the scan is provisional."""
    if field.provisional == field.months:
        return "the scan is provisional" if field.months == 1 else "the scans of all months are provisional"
    return f"the scan of {field.provisional} of {field.months} months is provisional"


def none_found(field: Field) -> str:
    """What a zero of the map means where a scan is provisional; nothing where all scans are believed."""
    return f"none found yet; {provisional_in_words(field)}" if field.provisional else ""


def action_words(name: str, field: Field) -> str:
    """What an action means on this map. Where no archive can be asked, it is not known that no scene exists."""
    if name != "task" or not field.without_catalogue:
        return ACTION_WORDS[name]
    titles = ", ".join(title_of(sensor) for sensor in field.without_catalogue)
    unasked = f"{titles}: from our holdings alone, the archive cannot be asked"
    if len(field.without_catalogue) == field.sensors:
        return plain(f"we hold too few, the sensor can be pointed ({unasked})")
    return plain(f"{ACTION_WORDS[name]} ({unasked})")


def nothing_known(view: View, ds: Any) -> str:
    """Why a map would be empty: what was not looked up, for which sensor."""
    reasons = []
    window = ds.sel(sensor=list(view.sensors), time=[m.to_datetime64() for m in view.months])
    needs = METRICS[view.metric].needs
    catalogue, holdings = needs in ("catalogue", "both"), needs in ("holdings", "both")
    for sensor in view.sensors:
        scans = {int(v) for v in window["scan_status"].sel(sensor=sensor).values}
        held = {int(v) for v in window["holdings_status"].sel(sensor=sensor).values}
        if catalogue and scans <= {SCAN_STATUS.index("not_applicable")}:
            reasons.append(f"{title_of(sensor)} has no public catalogue")
        elif catalogue and scans <= {SCAN_STATUS.index("not_scanned"), SCAN_STATUS.index("not_applicable")}:
            reasons.append(f"the catalogue of {title_of(sensor)} has not been scanned")
        elif holdings and HOLDINGS_STATUS.index("off") in held:
            reasons.append(f"the holdings of {title_of(sensor)} could not be reached")
        elif holdings and held <= {HOLDINGS_STATUS.index("not_read")}:
            reasons.append(f"the holdings of {title_of(sensor)} have not been read")
        elif METRICS[view.metric].variable(view.metric) in GAP_VARIABLES:
            revisions = window["gap_revision"].sel(sensor=sensor).values
            stale = bool((revisions != 0).any())
            reasons.append(f"the gap of {title_of(sensor)} has not been made{' since its coverage changed' if stale else ''}")
        else:
            reasons.append(f"no cell of {title_of(sensor)} was looked up")
    return plain(f"Nothing is known here yet: {'; '.join(reasons)} ({window_in_words(view.first, view.last)}).")


def change_caption(sensor: str, before: Month, after: Month, field: Field) -> str:
    """What a map of changes shows."""
    months = f"{month_in_words(after)} against {month_in_words(before)}"
    return plain(f"Changes of the gap · {title_of(sensor)} · {months} · {known_in_words(field.known_range, field.months)}")


def beside_in_words(field: Field) -> str:
    """What a known cell without a value means: nothing is desired there, or there is no scene to take a mean of."""
    if field.metric == CHANGE:
        return ""
    if METRICS[field.metric].layer == "gap":
        return "out of scope"
    if field.metric != "mean_scene_cloud_pct":
        return ""
    return "no scenes of known cloud" + (f": {none_found(field)}" if field.provisional else "")


def number(value: float) -> str:
    """A value of a colour bar."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def legend_title(field: Field) -> str:
    """Metric and unit."""
    title = METRICS[field.metric].title
    return f"{title} ({field.unit})" if field.unit and field.unit not in title.lower().split() else title


_BOX = "display:block;border-radius:3px;flex:none"
_ENTRY = "display:inline-flex;align-items:center;gap:8px"
_GRID = "display:grid;grid-template-columns:repeat(auto-fill,minmax(225px,1fr));gap:5px 16px;width:100%;font-size:13px;line-height:1.25"


def _swatch(colour: str, ink: str, label: str) -> str:
    box = f"{_BOX};width:18px;height:18px;border:1px solid {ink}55;background:{colour}"
    return f'<span style="{_ENTRY}"><span style="{box}"></span><span>{html(label)}</span></span>'


def _action_swatch(colour: str, around: palette.Theme, title: str, words: str, amount: str) -> str:
    box = f"{_BOX};width:18px;height:18px;border:1px solid {around.ink}55;background:{colour}"
    text = f"<b>{html(title)}</b>: {html(words)} <span style='color:{around.quiet_ink}'>({html(amount)})</span>"
    return f'<span style="{_ENTRY}"><span style="{box};align-self:start;margin-top:1px"></span><span>{text}</span></span>'


def legend(field: Field, limits: Limits, pixels: str, lookback_months: int, dark: bool, here: Mapping[str, Share] | None = None) -> str:
    """The colour bar, or the list of actions, as HTML; ``here`` are the shares of what the map shows, where it shows a part."""
    around = palette.theme(dark)
    if classes_of(field.metric):
        return _class_legend(field, dark, here)
    ramp = palette.ramp(field.metric, dark)
    stops = ",".join(ramp[round(k * (len(ramp) - 1) / 15)] for k in range(16))
    ticks = [limits.low + (limits.high - limits.low) * k / 4 for k in range(5)]
    if limits.high <= 4 and limits.high == int(limits.high) and field.unit not in ("score 0 to 1",) and limits.high != 1:
        ticks = [float(k) for k in range(int(limits.high) + 1)]
    labels = [number(t) for t in ticks]
    if limits.above:
        labels[-1] = f"≥ {labels[-1]}"
    row = "".join(f"<span>{label}</span>" for label in labels)
    swatches = [_swatch(palette.hatched(around), around.ink, "not known")]
    if beside := beside_in_words(field):
        swatches.append(_swatch(around.out_of_scope, around.ink, beside))
    notes = [pixels]
    if field.provisional and field.metric != "mean_scene_cloud_pct":
        notes.append(f"0: {none_found(field)}")
    if field.metric == "days_since_last_held":
        notes.append(f"never held within {lookback_months} months counts as that long")
    bar = (
        '<div style="flex:1 1 300px;max-width:520px;min-width:220px">'
        f'<div style="font-weight:600;margin-bottom:4px">{html(legend_title(field))}</div>'
        f'<div style="{_BOX};height:16px;border:1px solid {around.ink}55;'
        f'background:linear-gradient(to right,{stops})"></div>'
        f'<div style="display:flex;justify-content:space-between;margin-top:2px">{row}</div></div>'
    )
    words = f'<span style="color:{around.quiet_ink}">{html("; ".join(n for n in notes if n))}</span>'
    side = f'<div style="display:flex;gap:8px 24px;flex-wrap:wrap;align-items:center">{"".join(swatches)}{words}</div>'
    return _frame(f'{bar}<div style="flex:1 1 320px;align-self:center">{side}</div>', around)


def _frame(body: str, around: palette.Theme) -> str:
    style = f"display:flex;gap:12px 32px;flex-wrap:wrap;font:15px/1.35 inherit;font-size:15px;color:{around.ink}"
    style += ";max-height:100%;overflow-y:auto"
    return f'<div role="region" aria-label="Legend" tabindex="0" style="{style}">{body}</div>'


CHANGE_WORDS: Mapping[str, str] = {
    "opened": "had what is wanted, now lacks some",
    "worse": "lacks more than before",
    "better": "lacks less than before",
    "closed": "lacked some, now has what is wanted",
    "became known": "what it lacks is known now",
    "became not known": "what it lacks is not known any more",
    "same": "nothing changed",
    "not known": "in neither month",
    "out of scope": "nobody wants it here",
}
"""Kinds of change in the order of the legend."""


def _class_legend(field: Field, dark: bool, here: Mapping[str, Share] | None) -> str:
    """Of a map of classes: each with its colour, what it means, and how much of the area has it."""
    around = palette.theme(dark)
    changes = field.metric == CHANGE
    colours = dict(zip(classes_of(field.metric), class_colours(field.metric, dark), strict=True))
    entries = []
    for name in CHANGE_WORDS if changes else ACTION_WORDS:
        title, meaning = (name.capitalize(), CHANGE_WORDS[name]) if changes else (ACTION_TITLES[name], action_words(name, field))
        colour = palette.hatched(around) if name in NOT_KNOWN else colours[name]
        entries.append(_action_swatch(colour, around, title, meaning, _amount(name, field, here)))
    head = "What changed for the gap" if changes else "Action the evidence asks for"
    return _frame(f'<div style="font-weight:600;width:100%">{head}</div><div style="{_GRID}">{"".join(entries)}</div>', around)


def _amount(name: str, field: Field, here: Mapping[str, Share] | None) -> str:
    """How much of the cube, and of what the map shows, has a class."""
    share = field.shares[name]
    if name in ("out_of_scope", "out of scope"):
        return f"{share.cells:,} cells"
    if here is None:
        return f"{percent(share.of_scope)} of the area in scope, {share.cells:,} cells"
    return f"{percent(here[name].of_scope)} of the area in scope on this map, {percent(share.of_scope)} of all"


def percent(part: float) -> str:
    """A share in words that never calls something nothing."""
    if part == 0:
        return "0 %"
    if part < 0.01:
        return "under 1 %"
    if part > 0.99 and part < 1:
        return "over 99 %"
    return f"{part * 100:.0f} %"


HOVER_CODE = """
const degrees = (v, plus, minus) => Math.abs(v).toFixed(said.digits) + '° ' + (v >= 0 ? plus : minus)
const snap = (v, from) => from + (Math.floor((v - from) / said.resolution) + 0.5) * said.resolution
// The middle of the pixel, not the pointer: else a cell's edge would name one place with its neighbour's value.
const {i, j, flat_index} = special_vars.image_index
const {image, x, y, dw, dh} = source.data
const [rows, columns] = image[0].shape
const across = (x[0] + (i + 0.5) * dw[0] / columns) / 6378137, up = (y[0] + (j + 0.5) * dh[0] / rows) / 6378137
if (format == 'lat') return degrees(snap(Math.atan(Math.sinh(up)) * 180 / Math.PI, -90), 'N', 'S')
const turned = ((across * 180 / Math.PI + 180) % 360 + 360) % 360 - 180  // the world goes on beyond the antimeridian
if (format == 'lon') return degrees(snap(turned, -180), 'E', 'W')
const code = image[0][flat_index]
if (code == null || Number.isNaN(code)) return ''
const known = code % said.span, seenAs = Math.floor(code / said.span)
const kind = seenAs == said.values + 2 ? said.unknown : seenAs  // under a line of the hatch
if (format == 'known') {
  if (said.months == 1) return known > 0 ? 'known in the month' : ''
  return (said.many && known < said.months ? 'at least ' : '') + known + ' of ' + said.months + ' months known'
}
if (kind == said.values + 1) return 'not known'
if (kind == said.values) return said.beside
if (said.actions.length) return said.actions[kind]
const seen = kind * said.step
if (seen === 0 && said.none) return '0 ' + said.unit + ': ' + said.none
const text = Math.abs(seen) >= 100 ? seen.toFixed(0) : Number(Number(seen.toPrecision(3)).toFixed(said.decimals)).toString()
return text + (said.unit == '%' ? ' %' : ' ' + said.unit) + said.pixel
"""
"""What the pointer says, in the browser: the server is not asked, however fast the pointer moves."""


def hover_words(field: Field, pixel: str, many: bool) -> dict[str, Any]:
    """What ``HOVER_CODE`` needs to know of the map."""
    resolution = field.resolution
    digits = max(0, len(f"{resolution / 2:.6f}".rstrip("0").split(".")[1]))
    return {
        "resolution": resolution,
        "digits": digits,
        "months": field.months,
        "many": many,
        "unit": field.unit,
        "pixel": pixel,
        "beside": beside_in_words(field),
        "none": none_found(field),
        "actions": _classes(field),
    }


def _classes(field: Field) -> list[str]:
    """What each class means, of maps of classes."""
    if field.metric == "action":
        return [f"{ACTION_TITLES[a]}: {action_words(a, field)}" for a in ACTIONS]
    return [f"{name.capitalize()}: {CHANGE_WORDS[name]}" for name in CHANGES] if field.metric == CHANGE else []


def is_simulated(attrs: Mapping[str, Any]) -> bool:
    """Whether the cube says that its data are made up."""
    return "simulat" in str(attrs.get("comment", "")).lower()


def simulated(attrs: Mapping[str, Any]) -> str:
    """The badge of a cube of made-up data, with what the cube itself says of them."""
    text = str(attrs.get("comment", "")).strip()
    rest = text.split(":", 1)[1].strip() if text.lower().startswith("simulated data:") else text
    return f'<b>Simulated data</b><span class="rest"> – {html(rest)}</span>'


def paragraph(text: str, dark: bool, *, quiet: bool = False) -> str:
    """Text that may come from anybody, as HTML for a pane."""
    around = palette.theme(dark)
    return f'<div style="color:{around.quiet_ink if quiet else around.ink}">{html(text)}</div>'


PROVISIONAL = "Provisional: nothing found there is no proof that nothing exists"


def doubts(lines: Sequence[str], dark: bool, title: str = PROVISIONAL) -> str:
    """Doubts as HTML under a title, a line each."""
    around = palette.theme(dark)
    text = "".join(f"<div>{html(line)}</div>" for line in lines)
    style = f"color:{around.ink};border-left:4px solid #ffb300;padding-left:10px;max-height:120px;overflow-y:auto"
    return f'<div role="region" aria-label="Doubts" tabindex="0" style="{style}"><b>{html(title)}</b>{text}</div>'


def lookback_months(attrs: Mapping[str, Any]) -> int:
    """How far back the holdings were searched."""
    try:
        return int(json.loads(attrs.get("settings", "{}")).get("lookback_months", 24))
    except (TypeError, ValueError):
        return 24


def left_out(choices: Choices, metric: str) -> str:
    """Why some sensors are not offered, one sentence each."""
    reasons = [reason for s in choices.sensors if (reason := choices.lacks(s, metric))]
    return plain(" ".join(f"{reason}." for reason in reasons))
