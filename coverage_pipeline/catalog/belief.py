"""When the absence of scenes may be believed: the doubts that an answer leaves although all of it was read (design, section 6).

Pure functions on what a scan found. ``scan`` puts each doubt to other providers; a month with a doubt that stays is *provisional*, and its
empty cells are not known to be without scenes.
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
"""Doubts that the months around may raise or remove, when they are scanned later."""

MONTHS_AROUND = 6
"""Months on each side that a month is compared with."""
_FEW_UNPLACED, _SHARE_UNPLACED = 2, 0.01
"""So many items that cannot be placed, or such a share, still say nothing of the month."""
_MOSTLY_TIMELESS = 0.5
_GAPS_OF_SILENCE = 2
"""Empty days in a row are remarkable beyond this multiple of the usual gap between scene days."""
_DAYS_FOR_A_GAP = 3
"""Scene days from which the usual gap is taken from the answer itself."""
_THIN = 0.3
"""Share of the median of the months around below which a month is too small."""
_ENOUGH_TO_MISS = 6
"""Scenes a month (median of the months around) from which an empty month of a pointed sensor is remarkable: a 22 km box is truly empty
in most months of EnMAP."""
_MOST_RUNS_NAMED = 3


@dataclass(frozen=True)
class Doubt:
    """One reason not to believe that there are no more scenes."""

    kind: DoubtKind
    words: str
    """One sentence for the report."""
    days: tuple[dt.date, ...] = ()
    """Days on which another provider may have a scene that confirms the doubt; none: no other provider can be asked."""
    new: bool = False
    """Whether only a scene that the answer does not have confirms it, because it has others on those days."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


@dataclass
class Placing:
    """Which items of one window cannot belong to it, kept while its pages are read."""

    start: dt.datetime
    end: dt.datetime
    foreign: int = 0
    """Items whose own time lies outside the window that was asked for."""
    twins: int = 0
    """Items that came again under the same id with another footprint."""
    _shapes: dict[str, int] = field(default_factory=dict)

    def add(self, page: Sequence[Any]) -> None:
        """Take the items of a page as the provider gave them."""
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
    """Tells footprints apart; 0 for one that cannot be written down."""
    geometry = item.get("geometry")
    if isinstance(geometry, bytes):
        return hash(geometry)
    try:
        return hash(orjson.dumps(geometry if geometry is not None else item.get("bbox")))
    except (TypeError, ValueError, RecursionError):
        return 0


def _is_foreign(properties: Any, start: dt.datetime, end: dt.datetime) -> bool:
    """Whether neither an item's time nor the span that it names meets the window. An item without any time is not foreign."""
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
    """Why the items that came do not say where and when they lie; empty where they do.

    ``came`` counts distinct items, ``timeless`` those without any time, ``rejected`` the unusable ones that have a time, ``foreign``
    those whose own time is outside the window, ``most`` the commonest reason of a rejection.
    """
    timed, lost = came - timeless, rejected + foreign
    if lost > _FEW_UNPLACED and lost > _SHARE_UNPLACED * timed:
        parts = [
            f"{rejected:,} are rejected{f', most of them as {most!r}' if most else ''}" if rejected else "",
            f"{foreign:,} lie outside the time that was asked for" if foreign else "",
        ]
        return f"of {timed:,} items that have a time, {' and '.join(part for part in parts if part)}: what the month has is not known"
    if timeless > _MOSTLY_TIMELESS * came:
        return f"{timeless:,} of the {came:,} items that came have no time: what the month has is not known"
    return ""


def scene_days(table: pa.Table) -> NDArray[np.datetime64]:
    """The UTC day of the pass of each row (n,), NaT for a row of another month that the file keeps for the matchup."""
    column = "pass_time" if "pass_time" in table.schema.names else "acquired"
    times = table[column].cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us")).to_numpy()
    days: NDArray[np.datetime64] = times.astype("datetime64[us]").astype("datetime64[D]")
    if "in_month" in table.schema.names:
        days = np.where(table["in_month"].to_numpy(), days, np.datetime64("NaT", "D"))
    return days


def distinct_days(days: NDArray[np.datetime64]) -> list[dt.date]:
    """The days that occur, in order."""
    distinct: list[dt.date] = np.unique(days[~np.isnat(days)]).tolist()
    return distinct


def days_of(months: Sequence[Month]) -> list[dt.date]:
    """All days of consecutive months."""
    first, last = months[0].start.date(), months[-1].end.date()
    return [first + dt.timedelta(days=k) for k in range((last - first).days)]


def countable_days(sensor: CoverageSensor, months: Sequence[Month], bbox: BBox | None, known_to: dt.datetime) -> list[dt.date]:
    """Days whose lack of scenes means something: published by ``known_to``, of the mission's months, and light enough in the area."""
    published = known_to - dt.timedelta(days=sensor.publication_lag_days)
    return [
        day
        for day in days_of(months)
        if dt.datetime(day.year, day.month, day.day, tzinfo=UTC) + dt.timedelta(days=1) <= published
        and sensor.flies_in(Month.of(day))
        and not is_dark(sensor, day, bbox)
    ]


def is_dark(sensor: CoverageSensor, day: dt.date, bbox: BBox | None) -> bool:
    """Whether the sun stays below the sensor's limit all day, everywhere in the area that it can image."""
    if sensor.min_sun is None:
        return False
    south, north = (sensor.reach[0], sensor.reach[1]) if bbox is None else (max(sensor.reach[0], bbox[1]), min(sensor.reach[1], bbox[3]))
    if south > north:
        return False  # out of reach, which is another matter than darkness
    declination = _declination(day)
    highest = 90 - abs(min(max(declination, south), north) - declination)
    return highest < sensor.min_sun


def _declination(day: dt.date) -> float:
    """Degrees that the sun stands north of the equator at noon UTC, within 0.05° (Spencer 1971, "Fourier series representation")."""
    turn = 2 * math.pi * (day.timetuple().tm_yday - 0.5) / (366 if day.year % 4 == 0 else 365)
    series = (0.006918, -0.399912, 0.070257, -0.006758, 0.000907, -0.002697, 0.00148)
    waves = (1, math.cos(turn), math.sin(turn), math.cos(2 * turn), math.sin(2 * turn), math.cos(3 * turn), math.sin(3 * turn))
    return math.degrees(sum(a * b for a, b in zip(series, waves, strict=True)))


def longest_silence(scene_days_found: Sequence[dt.date], revisit: float) -> int:
    """How many empty days in a row are nothing remarkable, by the answer's own scene days and the revisit."""
    gap = revisit
    if len(scene_days_found) >= _DAYS_FOR_A_GAP:
        gaps = [(b - a).days for a, b in pairwise(scene_days_found)]
        gap = min(statistics.median(gaps), revisit)
    return math.ceil(_GAPS_OF_SILENCE * gap)


@dataclass(frozen=True)
class Answer:
    """What a scan that read all its windows found, as far as belief needs it."""

    sensor: CoverageSensor
    months: Sequence[Month]
    bbox: BBox | None
    scenes: int
    days: Sequence[dt.date]
    """Days with a scene, in order."""
    known_to: dt.datetime
    """Until when the source could know: the time it was read, or of its newest item."""
    around: Sequence[int] = ()
    """Scenes of the complete months of the same area around this one."""
    unplaced: str = ""
    totals: str = ""
    """How the provider's totals contradict what came."""
    twins: int = 0
    """Items that came again with another footprint under the same id."""
    hollow: str = ""
    """Another reason why an answer without scenes says nothing, such as a dump that may lack a file."""


def doubts(answer: Answer) -> list[Doubt]:
    """All doubts of an answer; none: the absence of more scenes is believed."""
    doubts = []
    everywhere = tuple(days_of(answer.months))
    if answer.unplaced:
        doubts.append(Doubt("unplaced", answer.unplaced, everywhere, new=True))
    if answer.totals:
        doubts.append(Doubt("totals", answer.totals, everywhere, new=True))
    if answer.twins:
        words = f"{answer.twins:,} items came again with another footprint under the same id: one of the footprints is missing"
        doubts.append(Doubt("totals", words))  # other providers list the scene, too, whichever its footprint
    smallness = too_few(answer)
    if smallness is not None:
        doubts.append(smallness)
    if answer.scenes and answer.sensor.systematic:
        doubts.extend(_silence(answer))
    return doubts


def _silence(answer: Answer) -> list[Doubt]:
    """Empty days in a row, more than the answer's own rhythm and the sensor's revisit explain."""
    countable = set(countable_days(answer.sensor, answer.months, answer.bbox, answer.known_to))
    has = set(answer.days)
    runs: list[list[dt.date]] = [[]]
    for day in days_of(answer.months):
        if day in has:
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
    named = ", ".join(_span(run) for run in silent[:_MOST_RUNS_NAMED])
    more = f" and {len(silent) - _MOST_RUNS_NAMED} more times" if len(silent) > _MOST_RUNS_NAMED else ""
    words = f"no scene on {named}{more}, where {usual} empty days in a row are the most to be expected"
    return [Doubt("silence", words, tuple(day for run in silent for day in run))]


def _span(run: Sequence[dt.date]) -> str:
    return f"{run[0]}" if len(run) == 1 else f"{run[0]}..{run[-1]} ({len(run)} days)"


def too_few(answer: Answer) -> Doubt | None:
    """Whether the answer is empty, or much smaller than the months around it, where that is remarkable for the sensor."""
    every = days_of(answer.months)
    countable = countable_days(answer.sensor, answer.months, answer.bbox, answer.known_to)
    if not countable:
        return None  # a polar night, or nothing of it is published yet
    settled = answer.known_to >= answer.months[-1].end + dt.timedelta(days=answer.sensor.publication_lag_days)
    usual = float(statistics.median(answer.around)) if answer.around else 0.0
    months = f"{len(answer.around)} month{'' if len(answer.around) == 1 else 's'}"
    compared = f"where the {months} around have a median of {usual:g}" if answer.around else ""
    if not answer.scenes:
        if answer.sensor.systematic:
            # A month that has just begun may well have had no pass yet.
            remarkable = settled or len(countable) > _GAPS_OF_SILENCE * answer.sensor.revisit_in(answer.months[-1])
        else:
            remarkable = usual >= _ENOUGH_TO_MISS or (bool(answer.hollow) and settled)
        if not remarkable:
            return None
        why = "; ".join(part for part in (compared, answer.hollow) if part)
        return Doubt("emptiness", f"no scene at all{f', {why}' if why else ''}", tuple(countable))
    expected = usual * len(countable) / len(every)
    if answer.scenes >= _THIN * expected or not (answer.sensor.systematic or usual >= _ENOUGH_TO_MISS):
        return None
    has = set(answer.days)
    empty = tuple(day for day in countable if day not in has)
    words = f"{answer.scenes:,} scene{'' if answer.scenes == 1 else 's'}, {compared}"
    return Doubt("thinness", words, empty or tuple(countable), new=not empty)


def kind_of(sentence: str) -> str:
    """The kind that a doubt in a stored report names."""
    return sentence.partition(":")[0]
