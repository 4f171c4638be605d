"""What the place panel says and draws of a ``PlaceReport``: the answer, the figures, and a strip of days for each sensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from coverage_dashboards import palette
from coverage_dashboards.choices import title_of
from coverage_dashboards.escape import html
from coverage_dashboards.words import ACTION_TITLES, month_in_words
from coverage_pipeline.cube.schema import ACTIONS, URGENCY
from coverage_pipeline.demand.place import PlaceMonth, PlaceReport, longest_wait

Day = Literal["held", "clear", "check", "cloudy", "part", "none", "unproven", "unknown"]
DAYS: tuple[Day, ...] = get_args(Day)
DAY_WORDS: dict[Day, str] = {
    "held": "clear, and held",
    "clear": "clear, not held",
    "check": "cloud not known, not held",
    "cloudy": "cloudy",
    "part": "scenes cover only a part",
    "none": "no scene",
    "unproven": "no scene found yet",
    "unknown": "not known",
}
_HATCH = "repeating-linear-gradient(45deg,{0} 0 3px,{1} 3px 6px)"


def day_of(month: PlaceMonth, day: int) -> Day:
    """What one UTC day of a sensor is at the place."""
    if month.held_clear_days and day in month.held_clear_days:
        return "held"
    if month.available_days is None:
        return "unknown"
    if month.clear_days and day in month.clear_days:
        return "clear" if month.held_clear_days is not None else "unknown"
    if month.check_days and day in month.check_days:
        return "check"
    if day in month.available_days:
        return "cloudy"
    if any(scene.day == day for scene in month.scenes):
        return "part"
    return "none" if month.scan_status == "complete" else "unproven"


def day_colour(day: Day, dark: bool) -> str:
    """CSS background of a day."""
    around = palette.theme(dark)
    return {
        "held": palette.ACTION_COLOURS["met"],
        "clear": palette.ACTION_COLOURS["ingest"],
        "check": palette.ACTION_COLOURS["check"],
        "cloudy": "#b9c3cd" if not dark else "#56606b",
        "part": _HATCH.format("#b9c3cd" if not dark else "#56606b", around.page),
        "none": around.page,
        "unproven": _HATCH.format(around.page, around.out_of_scope),
        "unknown": around.unknown,
    }[day]


def strip(months: Sequence[PlaceMonth], dark: bool) -> str:
    """One sensor's days over the window, a row a month, each day with what it is as its title."""
    around = palette.theme(dark)
    rows = []
    for month in months:
        cells = []
        for day in range(1, 32):
            if day > month.month.days:
                cells.append("<i></i>")
                continue
            kind = day_of(month, day)
            title = f"{day} {month_in_words(month.month)}: {DAY_WORDS[kind]}"
            if kind in ("unknown", "none") and month.scan_status == "not_applicable":
                title = f"{day} {month_in_words(month.month)}: no catalogue can be asked"
            cells.append(f'<i title="{html(title)}" style="background:{day_colour(kind, dark)};border-color:{around.ink}44"></i>')
        rows.append(f"<span>{html(month_in_words(month.month)[:3])} {month.month.year % 100:02d}</span>{''.join(cells)}")
    words = html(f"Days of {title_of(months[0].sensor)}: {_counted(months)}")
    return f'<div class="strip" role="img" aria-label="{words}" style="color:{around.ink}">{"".join(rows)}</div>'


def _counted(months: Sequence[PlaceMonth]) -> str:
    found = Counter(day_of(month, day) for month in months for day in range(1, month.month.days + 1))
    return ", ".join(f"{found[kind]} {DAY_WORDS[kind]}" for kind in DAYS if found[kind])


def strip_legend(dark: bool) -> str:
    """What the colours of the strips mean."""
    around = palette.theme(dark)
    entries = "".join(
        f'<span><i style="background:{day_colour(kind, dark)};border-color:{around.ink}66"></i>{html(DAY_WORDS[kind])}</span>'
        for kind in DAYS
    )
    return f'<div class="strip-legend" style="color:{around.ink}">{entries}</div>'


@dataclass(frozen=True)
class Figures:
    """One sensor over the window, of the months whose holdings are known."""

    sensor: str
    action: str
    """The most urgent of the window's months."""
    desired: float
    held: int
    ingestable: int
    check: int
    remaining: int
    missing: int
    counted: int
    """Months that are in the sums."""
    known: int
    """Months of which what to do is known."""
    months: int


def figures(months: Sequence[PlaceMonth]) -> Figures:
    """One sensor's sums over the months that are known."""
    known = [m for m in months if m.deficit is not None]
    return Figures(
        months[0].sensor,
        most_urgent(months).action,
        sum(m.desired for m in known),
        sum(len(m.held_clear_days or ()) for m in known),
        sum(len(m.ingestable_days or ()) for m in known),
        sum(len(m.check_days or ()) for m in known),
        sum(m.remaining or 0 for m in known),
        sum(m.deficit or 0 for m in known),
        len(known),
        sum(m.action != "unknown" for m in months),
        len(months),
    )


def most_urgent(months: Sequence[PlaceMonth]) -> PlaceMonth:
    """The newest of the months with the most urgent action."""
    return max(months, key=lambda m: (URGENCY.index(m.action), m.month))


def answer(report: PlaceReport, dark: bool) -> str:
    """What to do, sensor by sensor, and why."""
    around = palette.theme(dark)
    colours = dict(zip(ACTIONS, palette.action_colours(ACTIONS, dark), strict=True))
    parts = []
    for sensor in dict.fromkeys(month.sensor for month in report.months):
        months = report.of(sensor)
        worst = most_urgent(months)
        same = sum(m.action == worst.action for m in months)
        when = f"in {same} of {len(months)} months" if len(months) > 1 else f"in {month_in_words(worst.month)}"
        why = worst.why if len(months) == 1 else f"{month_in_words(worst.month)}: {worst.why}"
        if worst.too_large:
            why = f"No single pass of this sensor can cover 95 % of a place this large, so no day of it counts. {why}"
        chip = f'<span class="chip" style="background:{colours[worst.action]};border:1px solid {around.ink}55"></span>'
        parts.append(
            f'<div class="answer">{chip}<div><b>{html(title_of(sensor))}: {html(ACTION_TITLES[worst.action])}</b> {html(when)}. '
            f"{html(why)}</div></div>"
        )
    return f'<div style="color:{around.ink}">{"".join(parts)}</div>'


def figures_table(report: PlaceReport, dark: bool) -> str:
    """Desired, held, ingestable, check and remaining, a row a sensor."""
    around = palette.theme(dark)
    head = "".join(
        f'<th scope="col" title="{html(words)}">{html(title)}</th>'
        for title, words in (
            ("", "Sensor"),
            ("wanted", "Clear observations wanted over the window"),
            ("held", "Days with clear scenes that we hold"),
            ("missing", "Wanted and not held"),
            ("to download", "Days that clear scenes we do not hold would add"),
            ("to check", "Days whose scenes have no known cloud cover"),
            ("remaining", "Missing even when all that is clear was downloaded"),
            ("known", "Months of the window of which it is known what to do"),
        )
    )
    body = ""
    for sensor in dict.fromkeys(month.sensor for month in report.months):
        f = figures(report.of(sensor))
        # Where a scan is not believed to be whole, more scenes may be found, and less remains.
        remaining = f"{'≤ ' if f.remaining and f.known < f.counted else ''}{f.remaining}"
        numbers = [f"{f.desired:g}", f.held, f.missing, f.ingestable, f.check, remaining] if f.counted else ["?"] * 6
        cells = "".join(f"<td>{html(n)}</td>" for n in [*numbers, f"{f.known} of {f.months}"])
        body += f'<tr><th scope="row">{html(title_of(sensor))}</th>{cells}</tr>'
    return f'<table class="figures" style="color:{around.ink}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def waits(report: PlaceReport, dark: bool) -> str:
    """Longest wait for a clear scene that we hold, and when the last one was, a line a sensor."""
    around = palette.theme(dark)
    lines = []
    for sensor in dict.fromkeys(month.sensor for month in report.months):
        months = report.of(sensor)
        wait = longest_wait([(m.month, m.held_clear_days) for m in months])
        if wait is None:
            lines.append(f"{title_of(sensor)}: our holdings are not known in the window, so neither is how long we waited.")
            continue
        doubt = f" ({wait.unknown_months} of {len(months)} months are not known, so it may be longer)" if wait.unknown_months else ""
        last = next((f"{max(m.held_clear_days)} {month_in_words(m.month)}" for m in reversed(months) if m.held_clear_days), None)
        said = f"last clear scene held on {last}" if last else "no clear scene held in the window"
        lines.append(f"{title_of(sensor)}: longest wait for a clear scene that we hold {wait.days} days{doubt}; {said}.")
    return f'<div style="color:{around.ink}">{"".join(f"<div>{html(line)}</div>" for line in lines)}</div>'


def together(report: PlaceReport, dark: bool) -> str:
    """What several sensors give as one: days a month with a clear scene of any, and the longest wait; empty for one sensor."""
    sensors = list(dict.fromkeys(month.sensor for month in report.months))
    if len(sensors) < 2:
        return ""
    around = palette.theme(dark)
    rows = list(zip(*(report.of(sensor) for sensor in sensors), strict=True))
    lines = []
    for words, of in (("clear scenes exist", "clear_days"), ("clear scenes are held", "held_clear_days")):
        # One sensor of several that is not known leaves a month not known: others may have seen what it saw.
        days = [None if any(getattr(m, of) is None for m in row) else frozenset().union(*(getattr(m, of) for m in row)) for row in rows]
        known = [one for one in days if one is not None]
        wait = longest_wait(list(zip((row[0].month for row in rows), days, strict=True)))
        if wait is None:
            lines.append(f"On how many days {words} is not known: in no month of the window are all of these sensors known.")
            continue
        mean = sum(map(len, known)) / len(known)
        doubt = f" Known in {len(known)} of {len(rows)} months." if wait.unknown_months else ""
        lines.append(f"On {mean:.3g} days a month {words}; longest wait {wait.days} days.{doubt}")
    title = " and ".join(title_of(sensor) for sensor in sensors)
    text = "".join(f"<div>{html(line)}</div>" for line in lines)
    return f'<div style="color:{around.ink}"><b>{html(title)} together</b>{text}</div>'


def knownness(report: PlaceReport, dark: bool) -> str:
    """How well each month is known; what is not known comes first and open."""
    around = palette.theme(dark)
    grey = [m for m in report.months if m.action == "unknown"]
    parts = []
    if grey:
        lines = "".join(f"<li>{html(title_of(m.sensor))}, {html(month_in_words(m.month))}: {html(m.why)}</li>" for m in grey[:6])
        more = f"<li>and {len(grey) - 6} more months</li>" if len(grey) > 6 else ""
        parts.append(f'<div class="grey"><b>Why is this grey?</b><ul>{lines}{more}</ul></div>')
    lines = "".join(f"<li>{html(title_of(m.sensor))}, {html(month_in_words(m.month))}: {html(m.known)}</li>" for m in report.months)
    parts.append(f"<details><summary>How well each month is known ({len(report.months)})</summary><ul>{lines}</ul></details>")
    return f'<div style="color:{around.ink}">{"".join(parts)}</div>'


STYLES = """
.strip { display: grid; grid-template-columns: 52px repeat(31, minmax(4px, 1fr)); gap: 1px; font-size: 12px; align-items: center; }
.strip i, .strip-legend i { height: 13px; border: 1px solid transparent; border-radius: 2px; display: block; box-sizing: border-box; }
.strip-legend { display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 13px; }
.strip-legend span { display: inline-flex; align-items: center; gap: 5px; }
.strip-legend i { width: 14px; }
.answer { display: flex; gap: 8px; margin-bottom: 6px; }
.chip { flex: none; width: 16px; height: 16px; border-radius: 4px; margin-top: 2px; box-sizing: border-box; }
.figures { border-collapse: collapse; width: 100%; font-size: 13px; }
.figures th, .figures td { padding: 3px 5px; text-align: right; border-bottom: 1px solid #8886; }
.figures th:first-child { text-align: left; }
.figures thead th { font-weight: 500; vertical-align: bottom; }
.grey { border-left: 4px solid #8a8a8a; padding-left: 10px; margin-bottom: 6px; }
ul { margin: 4px 0; padding-left: 18px; }
summary { cursor: pointer; }
"""
"""Of the panes that show this HTML."""
