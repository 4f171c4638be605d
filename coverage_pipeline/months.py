"""Calendar months in UTC: the time axis of everything here."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from dataclasses import dataclass

import numpy as np

from coverage_pipeline.errors import PlannerError

UTC = dt.UTC
NEIGHBOUR_MARGIN = dt.timedelta(hours=1)
"""Scenes and holdings within this of a month are kept for the matchup of that month, though they do not count in it (design section 4)."""
_KEY = re.compile(r"(\d{4})-(\d{2})")


class MonthError(PlannerError, ValueError):
    """A date or window that does not name calendar months."""

    exit_code = 2


@dataclass(frozen=True, order=True)
class Month:
    """One UTC calendar month, half-open: ``start <= instant < end``."""

    year: int
    month: int

    def __post_init__(self) -> None:
        if not (1 <= self.month <= 12 and 1900 <= self.year <= 2999):
            raise MonthError(f"{self.year}-{self.month} is no calendar month")

    @classmethod
    def parse(cls, text: str) -> Month:
        """The month of a key such as ``2025-03``."""
        match = _KEY.fullmatch(text.strip())
        if not match:
            raise MonthError(f"{text!r} is not a month; write it as YYYY-MM, for example 2025-03")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, instant: dt.date | dt.datetime | np.datetime64) -> Month:
        """The month an instant lies in; a datetime without a zone is taken as UTC."""
        if isinstance(instant, np.datetime64):
            day: dt.date = instant.astype("datetime64[D]").item()
            return cls(day.year, day.month)
        if isinstance(instant, dt.datetime) and instant.tzinfo is not None:
            instant = instant.astimezone(UTC)
        return cls(instant.year, instant.month)

    @property
    def key(self) -> str:
        """``YYYY-MM``, as in partition keys and file names."""
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def days(self) -> int:
        """Days in the month, 28..31."""
        return calendar.monthrange(self.year, self.month)[1]

    @property
    def start(self) -> dt.datetime:
        """First instant, UTC."""
        return dt.datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def end(self) -> dt.datetime:
        """First instant of the next month, UTC (exclusive)."""
        return self.shift(1).start

    def shift(self, months: int) -> Month:
        """The month so many months later (earlier if negative)."""
        index = self.year * 12 + self.month - 1 + months
        return Month(index // 12, index % 12 + 1)

    def to_datetime64(self) -> np.datetime64:
        """First instant as ``datetime64[ns]`` without zone: the cube's time coordinate."""
        return np.datetime64(f"{self.key}-01", "ns")

    def __str__(self) -> str:
        return self.key


def months_between(first: Month, last: Month) -> list[Month]:
    """All months from ``first`` to ``last``, both included."""
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    return [first.shift(k) for k in range(count)]


def as_date(value: str | dt.date | dt.datetime) -> dt.date:
    """A date from ``YYYY-MM-DD`` or ``YYYY-MM`` text, a date or a datetime (UTC)."""
    if isinstance(value, dt.datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).date()
    if isinstance(value, dt.date):
        return value
    text = value.strip()
    try:
        return dt.date.fromisoformat(text if len(text) > 7 else f"{text}-01")
    except ValueError:
        raise MonthError(f"{value!r} is not a date; write YYYY-MM-DD, for example 2025-03-31") from None


def window_months(start: str | dt.date, end: str | dt.date) -> list[Month]:
    """The whole calendar months that a window touches (its end day included).

    A start or end inside a month widens to the whole month. Raises ``MonthError`` where the window is reversed.
    """
    first, last = as_date(start), as_date(end)
    if isinstance(end, str) and len(end.strip()) == 7:
        last = Month.of(last).end.date() - dt.timedelta(days=1)
    if last < first:
        raise MonthError(f"the window is reversed: start {first} is after end {last}; swap window.start and window.end")
    return months_between(Month.of(first), Month.of(last))


def widened(start: str | dt.date, end: str | dt.date) -> str | None:
    """What to tell a person whose window did not name whole months; None where it did."""
    months = window_months(start, end)
    first, last = as_date(start), as_date(end)
    if isinstance(end, str) and len(end.strip()) == 7:
        last = months[-1].end.date() - dt.timedelta(days=1)
    whole_end = months[-1].end.date() - dt.timedelta(days=1)
    if first == months[0].start.date() and last == whole_end:
        return None
    return f"window {first}..{last} widened to whole months: {months[0].start.date()}..{whole_end}"
