"""HTTP to a provider: what is asked again, what is not, and that no answer takes all the time or memory."""

from __future__ import annotations

import datetime as dt
import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from typing import Any

import pytest

from coverage_pipeline.catalog import CatalogError, CatalogUnavailable, CatalogUnreadable, wire
from coverage_pipeline.catalog.providers import LOOPBACK
from coverage_pipeline.catalog.wire import Patience, Wire
from tests.catalog.http_server import Answer, AnswerHandler, on_loopback

QUICK = Patience(timeout_seconds=0.5, retries=2, backoff_seconds=0.01, deadline_seconds=30)
JSON = {"Content-Type": "application/json"}


@contextmanager
def answering(answer: Callable[[str, int], Answer | None], patience: Patience = QUICK) -> Iterator[tuple[Wire, str]]:
    """A wire to a server that answers the n-th request for a path so."""
    count = 0

    class Handler(AnswerHandler):
        def do_GET(self) -> None:
            nonlocal count
            count += 1
            self.send(answer(self.path, count))

    def fail(kind: type[CatalogError], message: str) -> CatalogError:
        return kind(f"test 2025-01: {message}")

    with on_loopback(Handler) as address, Wire(address.removeprefix("http://"), LOOPBACK, patience, fail) as one:
        yield one, address


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("17", 17.0), ("", None), ("soon", None), ("-5", None), ("1" * 12, None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert wire._retry_after({"Retry-After": value}) == seconds


def test_retry_after_as_a_date() -> None:
    soon = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90), usegmt=True)
    assert wire._retry_after({"Retry-After": soon}) == pytest.approx(90, abs=2)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again_as_often_as_allowed(status: int) -> None:
    with answering(lambda path, n: (status, {}, b"busy") if n <= 2 else (200, JSON, b'{"a": 1}')) as (one, address):
        assert one.fetch(address, doing="asking").content == {"a": 1}
        assert (one.requests, one.retried) == (3, {str(status): 2})
    with answering(lambda path, n: (status, {}, b"busy")) as (one, address):
        with pytest.raises(CatalogUnavailable, match=f"answered {status}: busy"):
            one.fetch(address, doing="asking")
        assert one.requests == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_what_cannot_pass_is_an_error_at_once(status: int) -> None:
    with answering(lambda path, n: (status, JSON, b'{"description": "no such thing"}')) as (one, address):
        with pytest.raises(CatalogUnavailable, match=f"answered {status}: no such thing") as caught:
            one.fetch(address, doing="asking", way="check the collection")
        assert one.requests == 1
        assert str(caught.value).endswith("check the collection")
        assert caught.value.status == status


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "text/html"}, b"<html>Scheduled maintenance</html>"),
        (JSON, b'{"features": [{"id": "a"'),
        (JSON, b""),
        (JSON, b"[" * 100_000),
        (JSON, b"\xff\xfe\x00"),
    ],
)
def test_what_is_no_json_is_asked_again_and_then_unreadable(headers: dict[str, str], body: bytes) -> None:
    with answering(lambda path, n: (200, headers, body)) as (one, address):
        with pytest.raises(CatalogUnreadable, match="did not answer with JSON"):
            one.fetch(address, doing="asking")
        assert one.requests == 3


def test_json_that_only_python_takes_is_taken() -> None:
    """NaN, half a character, and a number beyond 64 bits: servers were seen to send each."""
    body = b'{"cloud": NaN, "name": "\\ud800", "number": 123456789012345678901234567890}'
    with answering(lambda path, n: (200, JSON, body)) as (one, address):
        found = one.fetch(address, doing="asking").content
    assert found["cloud"] != found["cloud"]
    assert found["name"] == "\ud800"
    assert found["number"] == pytest.approx(1.2345678901234568e29)


def test_a_compressed_answer_that_breaks_off() -> None:
    whole = gzip.compress(b'{"a": "' + b"x" * 10_000 + b'"}')
    headers = {**JSON, "Content-Encoding": "gzip"}
    with answering(lambda path, n: (200, headers, whole[: len(whole) // 2] if n == 1 else whole)) as (one, address):
        assert len(one.fetch(address, doing="asking").content["a"]) == 10_000
        assert one.retried.total() == 1
    with answering(lambda path, n: (200, headers, b"no gzip")) as (one, address), pytest.raises(CatalogUnavailable):
        one.fetch(address, doing="asking")


def test_an_answer_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_LONGEST_ANSWER", 1 << 20)
    refused = pytest.raises(CatalogUnavailable, match="more than 1 MB")
    with answering(lambda path, n: (200, JSON, b" " * (2 << 20))) as (one, address), refused:
        one.fetch(address, doing="asking")


def test_a_server_that_drips_is_left() -> None:
    """Each byte comes within the timeout, the answer never does."""

    class Handler(AnswerHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.02)
            except OSError:
                pass

    def fail(kind: type[CatalogError], message: str) -> CatalogError:
        return kind(message)

    patience = Patience(timeout_seconds=0.1, retries=1, backoff_seconds=0.01)
    with on_loopback(Handler) as address, Wire("here", LOOPBACK, patience, fail) as one:
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match="no answer within"):
            one.fetch(address, doing="asking")
        assert time.monotonic() - began < 5
        assert one.retried == {"timeout": 1}


def test_a_redirect_on_the_same_host_is_followed_and_one_to_another_is_not() -> None:
    def answer(path: str, n: int) -> Answer:
        return (301, {"Location": "/v1/"}, b"") if path == "/v1" else (200, JSON, b'{"here": true}')

    with answering(answer) as (one, address):
        assert one.fetch(f"{address}/v1", doing="asking").url == f"{address}/v1/"
    elsewhere, farther = "https://login.example.org/", pytest.raises(CatalogUnavailable, match="in a circle")
    refused = pytest.raises(CatalogUnavailable, match=r"redirects to login\.example\.org")
    with answering(lambda path, n: (302, {"Location": elsewhere}, b"")) as (one, address), refused:
        one.fetch(address, doing="asking")
    with answering(lambda path, n: (302, {"Location": path + "x"}, b"")) as (one, address), farther:
        one.fetch(address, doing="asking")


def test_waits_are_drawn_below_a_bound_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full jitter: anywhere from no wait at all to the bound, so that many clients do not come back together."""
    bounds: list[float] = []

    def drawn(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return 0.0

    monkeypatch.setattr(wire.random, "uniform", drawn)
    patience = Patience(timeout_seconds=1, retries=9, backoff_seconds=0.5)
    with answering(lambda path, n: (503, {}, b"")) as (unused, address):
        del unused
        made: Any = lambda kind, message: kind(message)  # noqa: E731
        with Wire("here", LOOPBACK, patience, made) as one, pytest.raises(CatalogUnavailable):
            one.fetch(address, doing="asking")
    assert bounds[:9] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
