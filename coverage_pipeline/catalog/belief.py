"""Doubts about a scan that was read in full: reasons not to believe that there are no more scenes (design, section 6).

Pure functions on the result of a scan. ``scan`` checks each doubt with other providers. A month with a remaining doubt is *provisional*:
its empty cells are not known to be without scenes.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.scenes.scene_key import parse_time
from coverage_pipeline.sensors.registry import CoverageSensor

DoubtKind = Literal["unplaced", "silence", "emptiness", "thinness", "totals"]
AROUND_KINDS: tuple[DoubtKind, ...] = ("emptiness", "thinness")
"""Kinds of doubt that depend on neighbouring months, which may be scanned later."""

MONTHS_AROUND = 6
"""Neighbouring months on each side to compare a month with."""
_FEW_UNPLACED, _SHARE_UNPLACED = 2, 0.01
"""Number and share of unplaceable items that raise no doubt yet."""
_MOSTLY_TIMELESS = 0.5
"""Share of items without a time above which the month is doubted."""
_GAPS_OF_SILENCE = 2
"""A run of empty days raises a doubt beyond this multiple of the usual gap between scene days."""
_DAYS_FOR_A_GAP = 3
"""Smallest number of scene days from which the usual gap is estimated."""
_THIN = 0.3
"""Share of the median of the neighbouring months below which a month is too small."""
_ENOUGH_TO_MISS = 6
"""Median scenes of the neighbouring months from which an empty month of a pointed sensor raises a doubt: EnMAP truly has no scene of a
22 km box in most months."""
_MOST_RUNS_NAMED = 3


@dataclass(frozen=True)
class Doubt:
    """One reason to believe that scenes are missing."""

    kind: DoubtKind
    words: str
    """One sentence for the report."""
    days: tuple[dt.date, ...] = ()
    """Days to search at other providers: a scene confirms the doubt. Empty: no other provider can check it."""
    new: bool = False
    """Whether only a scene that the answer lacks confirms the doubt, because the answer has scenes on those days."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


@dataclass
class Placing:
    """Counts items of one window that cannot belong to it, page by page."""

    start: dt.datetime
    end: dt.datetime
    foreign: int = 0
    """Items with a time outside the window."""
    twins: int = 0
    """Items with a repeated id and another footprint."""
    _shapes: dict[str, int] = field(default_factory=dict)

    def add(self, page: Sequence[Any]) -> None:
        """Count the items of a page, as the provider returned them."""
        for item in page:
            if not isinstance(item, dict):
                continue
            item_id, shape = item.get("id"), _shape(item)
            if isinstance(item_id, str):
                former = self._shapes.setdefault(item_id, shape)
                if former != shape:
                    self.twins += 1
                    continue
            self.foreign += _is_foreign(item.get("properties"), self.start, self.end)


def _shape(item: dict[str, Any]) -> int:
    """Hash that distinguishes footprints; 0 for one that cannot be serialised."""
    geometry = item.get("geometry")
    if isinstance(geometry, bytes):
        return hash(geometry)
    try:
        return hash(orjson.dumps(geometry if geometry is not None else item.get("bbox")))
    except (TypeError, ValueError, RecursionError):
        return 0


def _is_foreign(properties: Any, start: dt.datetime, end: dt.datetime) -> bool:
    """Whether an item has a time or time span, and neither meets the window."""
    if not isinstance(properties, dict):
        return False
    when = parse_time(properties.get("datetime"))
    if when is not None and start <= when <= end:
        return False
    first, last = (parse_time(properties.get(name)) for name in ("start_datetime", "end_datetime"))
    first, last = first or last, last or first
    if first is None or last is None:
        return when is not None
    return first > end or last < start


def unplaced(*, came: int, timeless: int, rejected: int, foreign: int, most: str = "") -> str:
    """The doubt that too many items have no usable place or time; empty if there is none.

    ``came`` counts distinct items, ``timeless`` items without a time, ``rejected`` unusable items with a time, ``foreign`` items with a
    time outside the window. ``most`` is the commonest reason of a rejection.
    """
    timed, lost = came - timeless, rejected + foreign
    if lost > _FEW_UNPLACED and lost > _SHARE_UNPLACED * timed:
        parts = [
            f"{rejected:,} are rejected{f', most of them as {most!r}' if most else ''}" if rejected else "",
            f"{foreign:,} have a time outside the window" if foreign else "",
        ]
        return f"of {timed:,} items with a time, {' and '.join(part for part in parts if part)}: the month may have more scenes"
    if timeless > _MOSTLY_TIMELESS * came:
        return f"{timeless:,} of {came:,} items have no time: the month may have more scenes"
    return ""


def scene_days(table: pa.Table) -> NDArray[np.datetime64]:
    """UTC day of the pass of each row (n,); NaT for a row of a neighbouring month, which is kept only for the matchup."""
    column = "pass_time" if "pass_time" in table.schema.names else "acquired"
    times = table[column].cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us")).to_numpy()
    days: NDArray[np.datetime64] = times.astype("datetime64[us]").astype("datetime64[D]")
    if "in_month" in table.schema.names:
        days = np.where(table["in_month"].to_numpy(), days, np.datetime64("NaT", "D"))
    return days


def distinct_days(days: NDArray[np.datetime64]) -> list[dt.date]:
    """Distinct days in order, without NaT."""
    distinct: list[dt.date] = np.unique(days[~np.isnat(days)]).tolist()
    return distinct


def days_of(months: Sequence[Month]) -> list[dt.date]:
    """All days of consecutive months."""
    first, last = months[0].start.date(), months[-1].end.date()
    return [first + dt.timedelta(days=k) for k in range((last - first).days)]


def countable_days(sensor: CoverageSensor, months: Sequence[Month], bbox: BBox | None, known_to: dt.datetime) -> list[dt.date]:
    """Days on which scenes can be expected: published by ``known_to``, within the mission, and with enough sun in the area."""
    published = known_to - dt.timedelta(days=sensor.publication_lag_days)
    return [
        day
        for day in days_of(months)
        if dt.datetime(day.year, day.month, day.day, tzinfo=UTC) + dt.timedelta(days=1) <= published
        and sensor.flies_in(Month.of(day))
        and not is_dark(sensor, day, bbox)
    ]


def is_dark(sensor: CoverageSensor, day: dt.date, bbox: BBox | None) -> bool:
    """Whether the sun stays below the sensor's limit all day, everywhere in the area within its reach."""
    if sensor.min_sun is None:
        return False
    south, north = (sensor.reach[0], sensor.reach[1]) if bbox is None else (max(sensor.reach[0], bbox[1]), min(sensor.reach[1], bbox[3]))
    if south > north:
        return False  # out of reach, not dark
    declination = _declination(day)
    highest = 90 - abs(min(max(declination, south), north) - declination)
    return highest < sensor.min_sun


def _declination(day: dt.date) -> float:
    """Declination of the sun at noon UTC in degrees, within 0.05° (Spencer 1971, "Fourier series representation")."""
    turn = 2 * math.pi * (day.timetuple().tm_yday - 0.5) / (366 if day.year % 4 == 0 else 365)
    series = (0.006918, -0.399912, 0.070257, -0.006758, 0.000907, -0.002697, 0.00148)
    waves = (1, math.cos(turn), math.sin(turn), math.cos(2 * turn), math.sin(2 * turn), math.cos(3 * turn), math.sin(3 * turn))
    return math.degrees(sum(a * b for a, b in zip(series, waves, strict=True)))


def longest_silence(scene_days_found: Sequence[dt.date], revisit: float) -> int:
    """Longest run of empty days that raises no doubt, by the scene days found and the revisit in days."""
    gap = revisit
    if len(scene_days_found) >= _DAYS_FOR_A_GAP:
        gaps = [(b - a).days for a, b in pairwise(scene_days_found)]
        gap = min(statistics.median(gaps), revisit)
    return math.ceil(_GAPS_OF_SILENCE * gap)


@dataclass(frozen=True)
class Answer:
    """Result of a scan that read all its windows, as far as ``doubts`` needs it."""

    sensor: CoverageSensor
    months: Sequence[Month]
    bbox: BBox | None
    scenes: int
    days: Sequence[dt.date]
    """Days with a scene, in order."""
    known_to: dt.datetime
    """Latest time that the source can cover: the time of the reading, or of its newest item."""
    around: Sequence[int] = ()
    """Scene counts of the complete neighbouring months, of the same area."""
    unplaced: str = ""
    """Result of ``unplaced``."""
    totals: str = ""
    """How the provider's totals contradict the received items; empty if they do not."""
    twins: int = 0
    """Items with a repeated id and another footprint."""
    hollow: str = ""
    """Another reason to doubt an answer without scenes, such as a dump that may lack a file."""


def doubts(answer: Answer) -> list[Doubt]:
    """All doubts about an answer; empty: the scan is believed to have all scenes."""
    result = []
    everywhere = tuple(days_of(answer.months))
    if answer.unplaced:
        result.append(Doubt("unplaced", answer.unplaced, everywhere, new=True))
    if answer.totals:
        result.append(Doubt("totals", answer.totals, everywhere, new=True))
    if answer.twins:
        sentence = f"{answer.twins:,} items have a repeated id and another footprint: one of the footprints is missing"
        result.append(Doubt("totals", sentence))  # no days: other providers list the scene with either footprint
    smallness = too_few(answer)
    if smallness is not None:
        result.append(smallness)
    if answer.scenes and answer.sensor.systematic:
        result.extend(_silence(answer))
    return result


def _silence(answer: Answer) -> list[Doubt]:
    """Doubt about runs of empty days that exceed ``longest_silence``."""
    countable = set(countable_days(answer.sensor, answer.months, answer.bbox, answer.known_to))
    scene_days_found = set(answer.days)
    runs: list[list[dt.date]] = [[]]
    for day in days_of(answer.months):
        if day in scene_days_found:
            runs.append([])
        elif day in countable:
            runs[-1].append(day)
    silent, usual = [], 0
    for run in runs:
        limit = longest_silence(answer.days, answer.sensor.revisit_in(Month.of(run[0]))) if run else 0
        if len(run) > limit:
            silent.append(run)
            usual = limit
    if not silent:
        return []
    spans = ", ".join(_span(run) for run in silent[:_MOST_RUNS_NAMED])
    more = f" and {len(silent) - _MOST_RUNS_NAMED} more times" if len(silent) > _MOST_RUNS_NAMED else ""
    sentence = f"no scene on {spans}{more}; at most {usual} empty days in a row are expected"
    return [Doubt("silence", sentence, tuple(day for run in silent for day in run))]


def _span(run: Sequence[dt.date]) -> str:
    return f"{run[0]}" if len(run) == 1 else f"{run[0]}..{run[-1]} ({len(run)} days)"


def too_few(answer: Answer) -> Doubt | None:
    """Doubt about an answer that is empty, or much smaller than its neighbouring months; None if that is usual for the sensor."""
    all_days = days_of(answer.months)
    countable = countable_days(answer.sensor, answer.months, answer.bbox, answer.known_to)
    if not countable:
        return None  # polar night, or nothing is published yet
    settled = answer.known_to >= answer.months[-1].end + dt.timedelta(days=answer.sensor.publication_lag_days)
    usual = float(statistics.median(answer.around)) if answer.around else 0.0
    months = f"{len(answer.around)} month{'' if len(answer.around) == 1 else 's'}"
    compared = f"while the median of the {months} around is {usual:g}" if answer.around else ""
    if not answer.scenes:
        if answer.sensor.systematic:
            # A month that has just begun may have had no pass yet.
            remarkable = settled or len(countable) > _GAPS_OF_SILENCE * answer.sensor.revisit_in(answer.months[-1])
        else:
            remarkable = usual >= _ENOUGH_TO_MISS or (bool(answer.hollow) and settled)
        if not remarkable:
            return None
        why = "; ".join(part for part in (compared, answer.hollow) if part)
        return Doubt("emptiness", f"no scene at all{f', {why}' if why else ''}", tuple(countable))
    expected = usual * len(countable) / len(all_days)
    if answer.scenes >= _THIN * expected or not (answer.sensor.systematic or usual >= _ENOUGH_TO_MISS):
        return None
    scene_days_found = set(answer.days)
    empty = tuple(day for day in countable if day not in scene_days_found)
    sentence = f"{answer.scenes:,} scene{'' if answer.scenes == 1 else 's'}, {compared}"
    return Doubt("thinness", sentence, empty or tuple(countable), new=not empty)


def kind_of(sentence: str) -> str:
    """The kind of a doubt in a stored report."""
    return sentence.partition(":")[0]
