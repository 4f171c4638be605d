"""Files behind an address: whole, in bounds, and without a login for hosts that were not named for it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.targets import fetch_targets
from coverage_pipeline.holdings.config import TilesSettings
from coverage_pipeline.holdings.errors import HoldingsUnreachable
from coverage_pipeline.holdings.sources.file import FileHoldings
from coverage_pipeline.storage.bounded_http import RemoteFile, TransferError, TransferMissing, local_copy
from tests.catalog.http_server import AnswerHandler, on_loopback

CONTENT = bytes(range(256)) * 1000
SITES = (
    b'{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"id": "a"}, '
    b'"geometry": {"type": "Point", "coordinates": [5, 50]}}]}'
)
KEY = "-".join(("hush", "hush"))


@contextmanager
def serving(content: bytes, *, ranges: bool = True, drip: str = "", to: str | None = None) -> Iterator[tuple[str, list[str | None]]]:
    """A server of one file, and the login of each request. ``drip`` names what it sends a byte at a time for ever."""
    logins: list[str | None] = []
    over = threading.Event()

    class Handler(AnswerHandler):
        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization"))
            asked = self.headers.get("Range")
            if self.path.startswith("/missing"):
                self.send((404, {}, b"no"))
            elif to is not None:
                self.send((302, {"Location": to}, b""))
            elif drip == "headers":
                self._drip(b"HTTP/1.1 200 OK\r\n", b"x")
            elif drip == "body" and asked != "bytes=0-0":
                self._drip(b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-99/256000\r\n\r\n", b" ")
            elif drip == "copy":
                self._drip(b"HTTP/1.1 200 OK\r\n\r\n", b" ")
            elif ranges and asked:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                part = content[int(first) : int(last) + 1]
                more = b"more than was asked for" * 10_000 if drip == "more" else b""
                told = {"Content-Range": f"bytes {first}-{last}/{len(content)}", "Content-Length": str(len(part + more))}
                self.send((206, told, part + more))
            else:
                self.send((200, {}, content))

        def _drip(self, head: bytes, piece: bytes) -> None:
            try:
                self.wfile.write(head)
                while not over.wait(0.02):
                    self.wfile.write(piece)
            except OSError:
                pass

    try:
        with on_loopback(Handler) as address:
            yield address, logins
    finally:
        over.set()


def opened(address: str, *, most: int = 1 << 20, netrc: bool = False) -> RemoteFile:
    return RemoteFile(address, most_bytes=most, seconds=0.5, copy_seconds=0.5, timeout=0.3, netrc=netrc)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_is_read_as_from_a_disk(ranges: bool) -> None:
    with serving(CONTENT, ranges=ranges) as (address, _), opened(f"{address}/f") as file:
        assert file.seek(0, io.SEEK_END) == len(CONTENT)
        file.seek(-100, io.SEEK_END)
        assert file.read(1000) == CONTENT[-100:]
        file.seek(5000)
        assert (file.read(300), file.tell()) == (CONTENT[5000:5300], 5300)
        file.seek(0)
        assert file.read() == CONTENT


def test_no_more_is_taken_than_was_asked_for() -> None:
    with serving(CONTENT, drip="more") as (address, _), opened(f"{address}/f") as file:
        assert file.read(10) == CONTENT[:10]


@pytest.mark.parametrize("drip", ["headers", "copy", "body"])
def test_whatever_is_dripped_ends_at_the_deadline(drip: str) -> None:
    with serving(CONTENT, drip=drip) as (address, _):
        began = time.monotonic()
        with (
            pytest.raises(TransferError, match=r"127\.0\.0\.1.*was not read within") as refused,
            opened(f"{address}/f?sig={KEY}") as file,
        ):
            file.read(100)
        assert time.monotonic() - began < 5
        assert KEY not in str(refused.value)


def test_a_copy_is_no_larger_than_it_may_be() -> None:
    with serving(CONTENT * 10, ranges=False) as (address, _), pytest.raises(TransferError, match="larger than 1 MB"):
        opened(f"{address}/f", most=1 << 20)


def test_what_is_missing_redirected_for_ever_or_elsewhere() -> None:
    with serving(b"") as (address, _), pytest.raises(TransferMissing):
        opened(f"{address}/missing")
    with serving(b"", to="/again") as (address, _), pytest.raises(TransferError, match="redirects in a circle"):
        opened(f"{address}/f")
    for to in ("file:///etc/passwd", f"ftp://me:{KEY}@other.example.org/x"):
        with serving(b"", to=to) as (address, _), pytest.raises(TransferError, match="not followed") as refused:
            opened(f"{address}/f")
        assert KEY not in str(refused.value)


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1 login me password {KEY}\nmachine localhost login me password {KEY}\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setenv("GDAL_HTTP_NETRC_FILE", str(path))


@pytest.mark.usefixtures("netrc")
def test_a_login_goes_to_the_host_that_was_named_for_it_and_to_no_other() -> None:
    with serving(CONTENT) as (other, seen):
        with serving(CONTENT) as (address, logins):
            opened(f"{address}/f").close()
            opened(f"{address}/f", netrc=True).close()
            assert logins[0] is None
            assert str(logins[1]).startswith("Basic ")
        with serving(CONTENT, to=f"{other.replace('127.0.0.1', 'localhost')}/f") as (address, logins):
            opened(f"{address}/f", netrc=True).close()
            assert str(logins[0]).startswith("Basic ")
        assert seen == [None]


@pytest.mark.usefixtures("netrc")
def test_targets_and_holdings_are_read_without_a_login() -> None:
    with serving(SITES) as (address, logins):
        assert list(fetch_targets(f"{address}/sites.geojson?sig={KEY}")["id"]) == ["a"]
        source = FileHoldings(f"{address}/sites.geojson?sig={KEY}", TilesSettings(date="id", sensor="id", cloud=None))
        assert len(source.timeless(None)[0]) == 1
        assert set(logins) == {None}
        with pytest.raises(LocationsError, match="does not exist") as refused:
            fetch_targets(f"{address}/missing.geojson?sig={KEY}")
        assert KEY not in str(refused.value)
        with pytest.raises(HoldingsUnreachable, match="COVERAGE_HOLDINGS_PATH") as gone:
            FileHoldings(f"{address}/missing.parquet?sig={KEY}", TilesSettings()).timeless(None)
        assert KEY not in str(gone.value) + source.name


def test_a_local_path_is_no_address(tmp_path: Path) -> None:
    for path in (str(tmp_path / "a#b?c@d.geojson"), "s3://bucket/a.geojson"):
        with local_copy(path) as local:
            assert local == path
