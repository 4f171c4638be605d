"""Calendar months in UTC."""

from __future__ import annotations

import calendar
import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import UTC, Month, MonthError, as_date, months_between, widened, window_months

MONTHS = st.builds(Month, st.integers(1950, 2200), st.integers(1, 12))


@given(MONTHS, st.integers(-500, 500))
def test_shifting_there_and_back_is_the_same_month(month: Month, months: int) -> None:
    assert month.shift(months).shift(-months) == month
    assert (month.shift(months) > month) == (months > 0)


@given(MONTHS)
def test_a_month_ends_where_the_next_begins(month: Month) -> None:
    assert month.end == month.shift(1).start
    assert (month.end - month.start).days == month.days == calendar.monthrange(month.year, month.month)[1]
    assert Month.parse(month.key) == Month.of(month.start) == Month.of(month.to_datetime64()) == month
    assert Month.of(month.end - dt.timedelta(microseconds=1)) == month


def test_the_month_of_an_instant_is_that_of_utc() -> None:
    tokyo = dt.timezone(dt.timedelta(hours=9))
    assert Month.of(dt.datetime(2025, 3, 1, 8, 59, tzinfo=tokyo)) == Month(2025, 2)
    assert Month.of(dt.datetime(2025, 2, 28, 23, 59, 59, 500_000)) == Month(2025, 2)  # without a zone: UTC
    assert Month.of(np.datetime64("2025-02-28T23:59:59.5")) == Month(2025, 2)
    assert as_date(dt.datetime(2025, 3, 1, 8, tzinfo=tokyo)) == dt.date(2025, 2, 28)


@pytest.mark.parametrize("text", ["2025", "2025-3", "2025-13", "2025-00", "25-03", "2025-03-01", "0000-01", "", "2025/03"])
def test_a_key_that_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(MonthError) as error:
        Month.parse(text)
    assert isinstance(error.value, PlannerError)


@pytest.mark.parametrize(
    ("start", "end", "keys", "said"),
    [
        ("2025-01-01", "2025-03-31", ["2025-01", "2025-02", "2025-03"], None),
        ("2025-01", "2025-02", ["2025-01", "2025-02"], None),
        ("2024-12-31", "2025-01-01", ["2024-12", "2025-01"], "2024-12-01..2025-01-31"),
        ("2025-02-01", "2025-02-01", ["2025-02"], "2025-02-01..2025-02-28"),
        (dt.date(2024, 2, 1), dt.datetime(2024, 2, 29, 23, tzinfo=UTC), ["2024-02"], None),
    ],
)
def test_a_window_is_widened_to_whole_months_and_that_is_said(
    start: str | dt.date, end: str | dt.date, keys: list[str], said: str | None
) -> None:
    assert [m.key for m in window_months(start, end)] == keys
    message = widened(start, end)
    assert message is None if said is None else message is not None and message.endswith(said)


def test_a_reversed_window_and_a_date_that_is_none_are_refused() -> None:
    with pytest.raises(MonthError, match=r"reversed: start 2025-02-02 is after end 2025-02-01"):
        window_months("2025-02-02", "2025-02-01")
    for text in ("March", "2025-02-30", "2025-1", ""):
        with pytest.raises(MonthError, match="YYYY-MM-DD"):
            as_date(text)


@given(MONTHS, st.integers(0, 60))
def test_months_between_holds_both_ends(first: Month, count: int) -> None:
    months = months_between(first, first.shift(count))
    assert months[0] == first
    assert months[-1] == first.shift(count)
    assert months == sorted(set(months))
    assert len(months) == count + 1
