"""What a table takes from others, and what it believes of the browser."""

from __future__ import annotations

from typing import Any

import pytest

from coverage_dashboards.row_table import MOST_ROWS, Column, Row, RowTable


def table(**callbacks: Any) -> RowTable:
    return RowTable([Column("name", link=True), Column("size", number=True)], label="things", **callbacks)


def test_addresses_are_links_only_where_they_are_http() -> None:
    one = table()
    hrefs = [
        "https://example.org/a",
        "http://example.org",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "//example.org",
        "",
        None,
    ]
    one.fill([Row(str(k), ["a", "1"], None, href) for k, href in enumerate(hrefs)], False)
    assert [row["href"] for row in one.rows] == ["https://example.org/a", "http://example.org", *[None] * 6]


def test_cells_are_one_line_of_visible_characters() -> None:
    one = table()
    one.fill([Row("k", ["a\nb\u202ec" + "x" * 1000, "1"])], False)
    assert one.rows[0]["cells"][0].startswith("a bcx")
    assert len(one.rows[0]["cells"][0]) <= 300


def test_only_rows_that_are_there_are_opened_pointed_at_and_ticked() -> None:
    seen: list[Any] = []
    one = table(opened=lambda key: seen.append(("open", key)), pointed=lambda key: seen.append(("point", key)), ticking=seen.append)
    one.fill([Row("a", ["x", "1"]), Row("b", ["y", "2"])], False, ticked=["a"])
    assert one.ticked == ["a"]
    for message in ({"type": "open", "key": "a"}, {"type": "point", "key": "b"}, {"type": "point", "key": None}):
        one._handle_msg(message)
    one._handle_msg({"type": "tick", "ticked": ["b", "nosuch", 3, None, "a"]})
    assert seen == [("open", "a"), ("point", "b"), ("point", None), ["a", "b"]]
    seen.clear()
    for strange in (None, "open", [], {}, {"type": "open", "key": "nosuch"}, {"type": "open", "key": ["a"]}, {"type": "drop table"}):
        one._handle_msg(strange)
    assert seen == []
    one._handle_msg({"type": "tick", "ticked": "ab"})
    assert seen == [[]]


@pytest.mark.parametrize("dark", [False, True])
def test_a_table_is_cut_before_it_drowns_the_browser(dark: bool) -> None:
    one = table()
    one.fill([Row(str(k), ["x", "1"]) for k in range(MOST_ROWS + 5)], dark)
    assert len(one.rows) == MOST_ROWS
