"""What the place panel says: days, figures, waits, and what is not known."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards.place_panel import row_of, scenes_of, series_table
from coverage_dashboards.place_words import DAYS, answer, day_of, figures, figures_table, knownness, strip, together, waits
from coverage_pipeline.demand.place import PlaceMonth, PlaceReport, PlaceScene, longest_wait
from coverage_pipeline.months import Month

JUNE = Month(2025, 6)


def days(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


def month(**changes: Any) -> PlaceMonth:
    known = PlaceMonth(
        sensor="emit", month=JUNE, available_days=days(1, 2, 3, 4), clear_days=days(1, 2), held_days=days(1), held_clear_days=days(1),
        ingestable_days=days(2), check_days=days(4), desired=3.0, deficit=2, action="ingest", why="Why.", known="Known.",
        scan_status="complete", holdings_status="read", too_large=False, scenes=(),
    )  # fmt: skip
    return replace(known, **changes)


def scene(day: int = 7, **changes: Any) -> PlaceScene:
    plain = PlaceScene("KEY", day, 0.5, 12.4, False, False, "https://example.org/i", "p", shapely.box(0, 0, 1, 1))
    return replace(plain, **changes)


def unknown(**changes: Any) -> PlaceMonth:
    nothing = dict.fromkeys(("available_days", "clear_days", "held_days", "held_clear_days", "ingestable_days", "check_days", "deficit"))
    return month(**nothing, action="unknown", scan_status=None, holdings_status=None, **changes)


def test_each_day_is_what_it_is() -> None:
    one = month(scenes=(scene(7),))
    found = {day: day_of(one, day) for day in (1, 2, 3, 4, 7, 9)}
    assert found == {1: "held", 2: "clear", 3: "cloudy", 4: "check", 7: "part", 9: "none"}
    assert day_of(month(scan_status="provisional"), 9) == "unproven"
    assert day_of(month(scan_status="partial"), 9) == "unproven"
    assert day_of(unknown(), 9) == "unknown"
    # What we hold is known without a catalogue; what exists beside it is not.
    assert [day_of(replace(unknown(), held_clear_days=days(5)), day) for day in (5, 6)] == ["held", "unknown"]
    # Clear scenes exist; whether they are held is not known.
    assert day_of(month(held_clear_days=None, held_days=None, ingestable_days=None), 2) == "unknown"


def test_a_strip_has_a_titled_square_for_each_day_of_each_month() -> None:
    html = strip((month(month=Month(2025, 2)), month()), False)
    assert html.count("<i title=") == 28 + 30
    assert html.count("<i></i>") == 3 + 1
    assert 'title="1 February 2025: clear, and held"' in html
    assert re.search(r'aria-label="Days of EMIT \(ISS\): 2 clear, and held, 2 clear, not held, 2 cloud not known, not held', html)


def test_figures_are_sums_of_what_is_known_and_say_of_how_much() -> None:
    f = figures((month(), month(month=Month(2025, 7), deficit=0, action="met", ingestable_days=days()), unknown(month=Month(2025, 8))))
    assert (f.desired, f.held, f.missing, f.ingestable, f.remaining, f.counted, f.known, f.months) == (6, 2, 2, 1, 1, 2, 2, 3)
    assert f.action == "ingest"
    table = figures_table(PlaceReport(shapely.box(0, 0, 1, 1), 1.0, (unknown(),)), False)
    assert table.count("<td>?</td>") == 6
    assert "0 of 1" in table


def test_what_remains_is_at_most_so_much_where_a_scan_is_not_believed() -> None:
    report = PlaceReport(shapely.box(0, 0, 1, 1), 1.0, (month(action="unknown", scan_status="provisional", ingestable_days=days()),))
    assert "<td>≤ 2</td>" in figures_table(report, False)


def test_the_answer_names_the_most_urgent_action_and_its_reason() -> None:
    report = PlaceReport(
        shapely.box(0, 0, 1, 1), 1.0, (month(month=Month(2025, 4), action="met", why="Has all."), month(), unknown(month=Month(2025, 7)))
    )
    html = answer(report, False)
    assert "EMIT (ISS): Ingest</b> in 1 of 3 months. June 2025: Why." in html
    grey = knownness(report, False)
    assert "Why is this grey?" in grey
    assert "July 2025: Why." in grey
    assert "Why is this grey?" not in knownness(PlaceReport(report.geometry, 1.0, (month(),)), False)
    assert "No single pass of this sensor can cover" in answer(PlaceReport(report.geometry, 1.0, (month(too_large=True),)), False)


def test_text_of_others_is_text() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    report = PlaceReport(shapely.box(0, 0, 1, 1), 1.0, (unknown(sensor=hostile, why=hostile, known=hostile),))
    for html in (
        answer(report, False),
        figures_table(report, False),
        waits(report, False),
        knownness(report, False),
        strip(report.months, True),
    ):
        assert "<img" not in html
        assert "&lt;img" in html


def test_waits_and_together_say_what_is_not_known() -> None:
    two = (month(), month(sensor="landsat-8-9", clear_days=days(10, 20), held_clear_days=None))
    report = PlaceReport(shapely.box(0, 0, 1, 1), 1.0, two)
    assert "EMIT (ISS): longest wait for a clear scene that we hold 29 days; last clear scene held on 1 June 2025." in waits(report, False)
    assert "Landsat 8/9: our holdings are not known in the window" in waits(report, False)
    html = together(report, False)
    assert "On 4 days a month clear scenes exist; longest wait 10 days." in html
    assert "On how many days clear scenes are held is not known" in html
    assert together(PlaceReport(report.geometry, 1.0, (month(),)), False) == ""


def test_the_series_has_no_number_where_none_is_known() -> None:
    table = series_table((month(), unknown(month=Month(2025, 7))))
    assert table["month"].to_list() == ["Jun 25", "Jul 25 ?"]
    assert table[["clear", "held", "missing"]].iloc[0].to_list() == [2, 1, 2]
    assert table[["clear", "held", "missing"]].iloc[1].isna().all()


def test_scenes_come_newest_first_and_say_what_is_not_known() -> None:
    listed = scenes_of((month(scenes=(scene(1), scene(9, cloud_cover=None, held=None))),))
    assert [one.day for _, one in listed] == [9, 1]
    assert row_of("0", *listed[0]).cells == ["2025-06-09", "EMIT (ISS)", "not known", "50 %", "not known", "KEY"]


@given(st.lists(st.none() | st.frozensets(st.integers(1, 28), max_size=6), min_size=1, max_size=6))
def test_the_longest_wait_is_what_counting_days_gives(seen: list[frozenset[int] | None]) -> None:
    months = [(Month(2025, 1).shift(k), one) for k, one in enumerate(seen)]
    line = "".join("?" if one is None else "".join("x" if day in one else "." for day in range(1, when.days + 1)) for when, one in months)
    longest = max((len(run) for run in re.split("[x?]", line)), default=0)
    wait = longest_wait(months)
    if all(one is None for one in seen):
        assert wait is None
    else:
        assert wait is not None
        assert (wait.days, wait.unknown_months) == (longest, seen.count(None))


@pytest.mark.parametrize("dark", [False, True])
def test_every_kind_of_day_has_a_look_of_its_own(dark: bool) -> None:
    from coverage_dashboards.place_words import day_colour

    assert len({day_colour(kind, dark) for kind in DAYS}) == len(DAYS)
