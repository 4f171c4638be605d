"""HTTP to a provider: what is asked again, what is not, and that no answer takes all the time or memory."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import socket
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from coverage_pipeline.catalog import answers
from coverage_pipeline.catalog import http as session
from coverage_pipeline.catalog.answers import Cancelled
from coverage_pipeline.catalog.errors import CatalogError, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.http import HttpSession
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import LOOPBACK, overridden
from tests.catalog.http_server import Answer, AnswerHandler, on_loopback

pytestmark = pytest.mark.slow

QUICK = Patience(timeout_seconds=0.5, retries=2, backoff_seconds=0.01, deadline_seconds=30)
JSON = {"Content-Type": "application/json"}


@contextmanager
def answering(answer: Callable[[str, int], Answer | None], patience: Patience = QUICK) -> Iterator[tuple[HttpSession, str]]:
    """An HTTP session with a server that answers the n-th request for a path so."""
    count = 0

    class Handler(AnswerHandler):
        def do_GET(self) -> None:
            nonlocal count
            count += 1
            self.send(answer(self.path, count))

    def fail(kind: type[CatalogError], message: str) -> CatalogError:
        return kind(f"test 2025-01: {message}")

    with on_loopback(Handler) as address, HttpSession(address.removeprefix("http://"), LOOPBACK, patience, fail) as one:
        yield one, address


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("17", 17.0), ("", None), ("soon", None), ("-5", None), ("1" * 12, None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert answers.retry_after({"Retry-After": value}) == seconds


def test_retry_after_as_a_date() -> None:
    soon = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90), usegmt=True)
    assert answers.retry_after({"Retry-After": soon}) == pytest.approx(90, abs=2)


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
            one.fetch(address, doing="asking", hint="check the collection")
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


def test_an_answer_of_more_than_the_setting_allows_is_refused() -> None:
    refused = pytest.raises(CatalogUnavailable, match=r"more than scan\.max_answer_mb = 1 MB")
    with answering(lambda path, n: (200, JSON, b" " * (2 << 20)), replace(QUICK, max_answer_mb=1)) as (one, address), refused:
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
    with on_loopback(Handler) as address, HttpSession("here", LOOPBACK, patience, fail) as one:
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match="no whole answer within"):
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

    monkeypatch.setattr(session.random, "uniform", drawn)
    patience = Patience(timeout_seconds=1, retries=9, backoff_seconds=0.5)
    with answering(lambda path, n: (503, {}, b"")) as (unused, address):
        del unused
        made: Any = lambda kind, message: kind(message)  # noqa: E731
        with HttpSession("here", LOOPBACK, patience, made) as one, pytest.raises(CatalogUnavailable):
            one.fetch(address, doing="asking")
    assert bounds[:9] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


# Bounds that hold, whatever a server sends


@contextmanager
def speaking(talk: Callable[[socket.socket], None], *, listens: bool = True) -> Iterator[str]:
    """A server of bare sockets: what ``talk`` does with each connection, once its first bytes have come (unless it does not listen)."""
    server = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if listens:
                connection.recv(1 << 16)
            talk(connection)
            over.wait(10)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        over.set()
        server.close()


def dripping(at_once: bytes, over_and_over: bytes, pause: float = 0.02) -> Callable[[socket.socket], None]:
    """Some bytes at once, and then byte by byte for ever: each comes long before the timeout."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(at_once)
        while True:
            for byte in over_and_over:
                connection.sendall(bytes([byte]))
                time.sleep(pause)

    return talk


OK_LINE = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "status line": (b"", b"H"),
    "header line": (OK_LINE, b"x"),
    "header lines": (OK_LINE, b"X: y\r\n"),
    "1xx answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk size": (CHUNKED, b"0"),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "body without a length": (OK_LINE + b"\r\n[", b" "),
    "body with a length": (OK_LINE + b"Content-Length: 100000\r\n\r\n[", b" "),
    "body of a redirect": (b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 100000\r\n\r\n", b" "),
    "body of an error": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 100000\r\n\r\n", b" "),
}
HASTY = Patience(timeout_seconds=0.25, retries=0, backoff_seconds=0.01, deadline_seconds=30)
"""A whole answer may take 1.25 s."""


def _failed(kind: type[CatalogError], message: str) -> CatalogError:
    return kind(f"emit 2025-01: test {message}")


@pytest.mark.parametrize("label", DRIPS)
def test_whatever_is_dripped_ends_at_the_deadline(label: str) -> None:
    with speaking(dripping(*DRIPS[label])) as host, HttpSession(host, LOOPBACK, HASTY, _failed) as one:
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match=r"emit 2025-01: test gave no whole answer within 1\.25 s"):
            one.fetch(f"http://{host}/a", doing="asking")
        assert 1.2 < time.monotonic() - began < 5


def test_a_handshake_that_is_dripped_ends_at_the_deadline() -> None:
    """Nobody but the library has the socket while TLS is agreed on. A busy machine may let its own timeout of a byte come first."""
    record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"  # the start of a long ServerHello
    with speaking(dripping(record, b"\x00")) as host, HttpSession(host, LOOPBACK, HASTY, _failed) as one:
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match=r"no (whole )?answer within"):
            one.fetch(f"https://{host}/a", doing="asking")
        assert time.monotonic() - began < 5


def test_a_connection_that_is_used_again_is_watched_too() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(OK_LINE + b"Content-Length: 2\r\n\r\n{}")
        connection.recv(1 << 16)
        dripping(OK_LINE, b"x")(connection)

    with speaking(talk) as host, HttpSession(host, LOOPBACK, HASTY, _failed) as one:
        assert one.fetch(f"http://{host}/a", doing="asking").content == {}
        with pytest.raises(CatalogUnavailable, match="gave no whole answer within"):
            one.fetch(f"http://{host}/a", doing="asking")


def test_the_deadline_of_the_scan_ends_an_answer_too() -> None:
    patience = Patience(timeout_seconds=60, retries=3, backoff_seconds=0.01, deadline_seconds=0.5)
    with speaking(dripping(OK_LINE, b"x")) as host, HttpSession(host, LOOPBACK, patience, _failed) as one:
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match=r"took longer than scan\.deadline_seconds = 0\.5"):
            one.fetch(f"http://{host}/a", doing="asking")
        assert time.monotonic() - began < 5


def test_who_cancels_need_not_wait_for_an_answer() -> None:
    patience = Patience(timeout_seconds=60, retries=0)
    with speaking(dripping(OK_LINE, b"x")) as host, HttpSession(host, LOOPBACK, patience, _failed) as one:
        threading.Timer(0.3, one.cancel).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            one.fetch(f"http://{host}/a", doing="asking")
        assert time.monotonic() - began < 5


def test_an_answer_that_ends_in_time_is_whole_though_it_is_slow() -> None:
    def talk(connection: socket.socket) -> None:
        for byte in OK_LINE + b'Content-Length: 8\r\n\r\n{"a": 1}':
            connection.sendall(bytes([byte]))
            time.sleep(0.002)

    with speaking(talk) as host, HttpSession(host, LOOPBACK, replace(HASTY, timeout_seconds=2), _failed) as one:
        assert one.fetch(f"http://{host}/a", doing="asking").content == {"a": 1}


MEMORY = """
import sys
from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.providers import LOOPBACK, overridden
from coverage_pipeline.catalog.http import HttpSession, Patience

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(name))

def failed(kind, said):
    return kind(f"emit 2025-01: stac.example.org {said}")

before = status("VmHWM")
for address in sys.argv[1:]:
    with HttpSession("stac.example.org", LOOPBACK, Patience(timeout_seconds=60, retries=0), failed) as one:
        try:
            one.fetch(address, doing="page 1")
        except CatalogError as error:
            print(status("VmHWM") - before, error, sep="|")
"""
FIVE_GB = 5 << 30


def _flood(head: bytes, piece: bytes, pieces: int) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(pieces):
            connection.sendall(piece)

    return talk


def _zeros() -> bytes:
    """A piece of a gzip stream that holds 64 MB of spaces in 64 kB, at a block's end; as often as wanted in a row."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(b" " * (64 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)


GZIP_HEAD = bytes.fromhex("1f8b0800000000000003")
FLOODS: dict[str, Callable[[], Callable[[socket.socket], None]]] = {
    "chunked": lambda: _flood(CHUNKED, b"100000\r\n" + b'{"a": 1},' * 116508 + b"    " + b"\r\n", FIVE_GB >> 20),
    "without a length": lambda: _flood(OK_LINE + b"\r\n[", b"[]," * (1 << 18), FIVE_GB // (3 << 18)),
    "gzip of spaces": lambda: _flood(OK_LINE + b"Content-Encoding: gzip\r\n\r\n" + GZIP_HEAD, _zeros(), FIVE_GB // (64 << 20)),
    "gzip in chunks": lambda: _flood(
        OK_LINE + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\na\r\n" + GZIP_HEAD + b"\r\n",
        (piece := _zeros()) and b"%x\r\n%s\r\n" % (len(piece), piece),
        FIVE_GB // (64 << 20),
    ),
    "a redirect's body": lambda: _flood(b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n", b" " * (1 << 20), FIVE_GB >> 20),
    "an error's body": lambda: _flood(b"HTTP/1.1 500 Oops\r\n\r\n", b" " * (1 << 20), FIVE_GB >> 20),
    "small values below the limit": lambda: _flood(
        OK_LINE + b"Content-Length: %d\r\n\r\n" % (31 << 20), b"[" + b"[]," * ((31 << 20) // 3 - 1) + b"[]]" + b" " * 4, 1
    ),
}


def test_an_answer_of_5_gb_takes_little_memory() -> None:
    """At most about ten times the limit of 32 MB, measured as a process's peak; the error says who, how much and which setting."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(speaking(flood())) for flood in FLOODS.values()]
        addresses = [f"http://{host}/a" for host in hosts]
        ended = subprocess.run([sys.executable, "-c", MEMORY, *addresses], capture_output=True, text=True, timeout=240, check=True)
    lines = [line.partition("|") for line in ended.stdout.splitlines()]
    assert len(lines) == len(FLOODS), ended.stdout
    for how, (peak, _, said) in zip(FLOODS, lines, strict=True):
        assert said.startswith("emit 2025-01: stac.example.org gave an answer of "), how
        assert "scan.max_answer_mb = 32 MB (page 1)" in said, how
        assert int(peak) < 150, how  # MB: far below 320


def test_a_length_beyond_the_limit_is_refused_before_it_is_read() -> None:
    head = OK_LINE + b"Content-Length: 5000000000\r\n\r\n"
    with speaking(_flood(head, b"", 0)) as host, HttpSession(host, LOOPBACK, replace(HASTY, timeout_seconds=30), _failed) as one:
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match=r"of more than scan\.max_answer_mb = 32 MB"):
            one.fetch(f"http://{host}/a", doing="asking")
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "body", [b"[" * 3_000_000, b'{"a":' * 1_000_000, b"9" * 1_000_000, b"[1e99999999, -" + b"9" * 100_000 + b"]", b'"\\ud800' * 10_000]
)
def test_nesting_and_numbers_without_end_are_an_error(body: bytes) -> None:
    with answering(lambda path, n: (200, JSON, body)) as (one, address), pytest.raises(CatalogUnreadable, match="did not answer with JSON"):
        one.fetch(address, doing="asking")


def test_a_number_too_large_for_a_check_is_no_crash() -> None:
    def check(answer: Any, _: Any) -> None:
        int(answer["numberMatched"])

    refused = pytest.raises(CatalogUnreadable, match="did not answer as asked")
    with answering(lambda path, n: (200, JSON, b'{"numberMatched": 1e999}')) as (one, address), refused:
        one.fetch(address, doing="asking", check=check)


# Logins


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A login for this machine, and one for all others."""
    path = tmp_path / "netrc"
    path.write_text(
        "machine 127.0.0.1 login me password hush-hush\n"
        "machine localhost login me password hush-hush\n"
        "default login any password hush-hush\n"
    )
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    return path


@contextmanager
def listening(location: str | None = None) -> Iterator[tuple[str, list[str | None]]]:
    """A server that notes the login of each request, and redirects to ``location`` where one is given."""
    logins: list[str | None] = []

    class Handler(AnswerHandler):
        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization"))
            to = {"Location": location} if location and self.path == "/a" else {}
            self.send((302 if to else 200, {**JSON, **to}, b"{}"))

    with on_loopback(Handler) as address:
        yield address, logins


def test_a_login_of_netrc_is_sent_only_where_the_profile_says_so(netrc: Path) -> None:
    del netrc
    named = overridden("127.0.0.1", {"netrc": True})
    with listening() as (address, logins):
        for profile, login in ((LOOPBACK, None), (named, "Basic " + base64.b64encode(b"me:hush-hush").decode())):
            with HttpSession(address.removeprefix("http://"), profile, QUICK, _failed) as one:
                one.fetch(f"{address}/a", doing="asking")
            assert logins.pop() == login


def test_a_login_does_not_go_to_another_host_by_a_redirect(netrc: Path) -> None:
    del netrc
    with listening() as (other, seen):
        elsewhere = other.replace("127.0.0.1", "localhost")
        with listening(f"{elsewhere}/b") as (address, logins):
            refused = pytest.raises(CatalogUnavailable, match="redirects to localhost")
            with HttpSession(address.removeprefix("http://"), replace(LOOPBACK, netrc=True), QUICK, _failed) as one, refused:
                one.fetch(f"{address}/a", doing="asking")
            assert logins != [None]
    assert seen == []


def test_where_a_redirect_leads_is_said_without_its_login() -> None:
    for to in ("http://me:hush-hush@other.example.org/", "http://[half"):
        with answering(lambda path, n, to=to: (302, {"Location": to}, b"")) as (one, address):  # type: ignore[misc]
            with pytest.raises(CatalogUnavailable, match="redirects to") as refused:
                one.fetch(address, doing="asking")
            assert "hush" not in str(refused.value)


def test_the_key_of_an_address_is_in_no_traceback() -> None:
    """Whatever breaks: the library's own words repeat the address."""
    talks = [
        dripping(OK_LINE, b"x"),
        lambda connection: connection.close(),
        _flood(CHUNKED + b"xyz\r\n", b"", 0),
        _flood(b"nonsense\r\n\r\n", b"", 0),
    ]
    secret = "-".join(("hush", "hush"))  # a traceback prints the lines of this test, too
    for talk in talks:
        with speaking(talk) as host, HttpSession(host, LOOPBACK, HASTY, _failed) as one, pytest.raises(CatalogUnavailable) as refused:
            one.fetch(f"http://{host}/a?token={secret}", doing="asking", params=[("sig", secret)])
        assert secret not in "".join(traceback.format_exception(refused.value))
