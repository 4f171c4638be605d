"""Choices of rows under a short id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards import selections
from coverage_dashboards.selections import keep_selection, selected


@given(st.lists(st.text(min_size=1), unique=True), st.data())
def test_a_choice_is_found_again_whatever_the_order(keys: list[str], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    name = keep_selection(some)
    assert name == keep_selection(some[::-1])
    assert selected(name, keys) == [key for key in keys if key in some]


def test_what_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selected("nosuch", ["a"]) is None
    monkeypatch.setattr(selections, "MOST_KEPT", 3)
    names = [keep_selection([str(k)]) for k in range(5)]
    assert [selected(name, ["0", "1", "2", "3", "4"]) for name in names] == [None, None, ["2"], ["3"], ["4"]]
    monkeypatch.setattr(selections, "MOST_ROWS", 2)
    assert keep_selection(["a", "b", "c"]) == ""
