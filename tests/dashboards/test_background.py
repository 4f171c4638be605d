"""Answers of worker threads, and when they are shown."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from bokeh.document import Document

from coverage_dashboards import background as module
from coverage_dashboards.background import Background
from coverage_pipeline.errors import PlannerError


class _Context:
    """What Bokeh sets on a document that has a session."""


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> Document:
    """A document with a session whose next tick is now."""
    made = Document()
    made._session_context = _Context
    monkeypatch.setattr(Document, "session_context", property(lambda self: _Context()))
    monkeypatch.setattr(made, "add_next_tick_callback", lambda call: asyncio.run(call()))
    monkeypatch.setattr(type(module.pn.state), "curdoc", property(lambda self: made))
    return made


def test_without_a_browser_all_is_done_at_once() -> None:
    seen: list[Any] = []
    Background().run("a", lambda: 42, seen.append, seen.append)
    assert seen == [42]


def failing(error: Exception) -> Any:
    raise error


def test_a_failure_is_told_in_words_and_an_unforeseen_one_without_its_secrets() -> None:
    shown: list[Any] = []
    told: list[str] = []
    Background().run("a", lambda: failing(PlannerError("the reason")), shown.append, told.append)
    Background().run("a", lambda: failing(RuntimeError("password=geheim")), shown.append, told.append)
    assert shown == []
    assert told[0] == "the reason"
    assert "geheim" not in told[1]
    assert "log" in told[1]


@pytest.mark.usefixtures("document")
def test_answers_wait_until_the_page_is_loaded() -> None:
    """Regression: an answer that came while the session was made was lost, and the page said "Working" for ever."""
    one, seen, done = Background(), [], threading.Event()
    one.run("a", lambda: done.set() or 1, seen.append, seen.append)  # type: ignore[func-returns-value]
    assert done.wait(10)
    module._workers.submit(lambda: None).result(10)
    assert seen == []
    for _ in range(100):
        if one._waiting:
            break
        threading.Event().wait(0.05)
    one.begin()
    assert seen == [1]


@pytest.mark.usefixtures("document")
def test_only_the_newest_answer_of_a_kind_is_shown() -> None:
    one, seen = Background(), []
    one.begin()
    slow, shown = threading.Event(), threading.Event()
    one.run("a", lambda: slow.wait(10) and "old", seen.append, seen.append)
    one.run("b", lambda: "other", seen.append, seen.append)
    one.run("a", lambda: "new", lambda answer: (seen.append(answer), shown.set()), seen.append)
    assert shown.wait(10)
    slow.set()
    one.run("c", lambda: "last", seen.append, seen.append)
    for _ in range(100):
        if "last" in seen:
            break
        threading.Event().wait(0.05)
    threading.Event().wait(0.2)
    assert "old" not in seen
    assert sorted(seen) == ["last", "new", "other"]
    one.run("d", lambda: threading.Event().wait(0.1) or "gone", seen.append, seen.append)
    one.forget("d")
    threading.Event().wait(0.4)
    assert "gone" not in seen
