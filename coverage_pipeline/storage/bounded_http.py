"""HTTP that ends: at a deadline, whatever the server sends or does not send, and with no more in memory than was asked for.

A login from ``~/.netrc`` goes to no host that was not named for it. Catalogues are asked by ``catalog.http``, which repeats and checks;
here is what it shares with files behind an address: dumps of a catalogue, targets, holdings.

requests and fsspec lost for this: their timeouts count from one byte to the next, so that a server that drips bytes holds a reader,
and neither bounds what a compressed answer becomes.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Self
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from coverage_pipeline.redaction import public_address, quiet_about_secrets, redact
from coverage_pipeline.storage.foreign_files import ForeignFileError, safe_vector_file

quiet_about_secrets("urllib3.connectionpool", "urllib3.connection", "urllib3.response")

CHUNK = 1 << 18
"""Bytes read, and decompressed, at a time."""
_MOST_REDIRECTS = 5
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class TransferError(OSError):
    """A file behind an address cannot be had; the message names the address without its secrets. No ``errno``: nothing of the disk."""


class TransferMissing(TransferError, FileNotFoundError):
    """The server says that there is no such file."""


class Exchange:
    """One request and its answer, which end at a deadline whatever the server does.

    A timeout of a socket starts anew with every byte, so that a server which sends a byte a second is never too late. A watchdog shuts the
    socket down instead. It holds a duplicate of the socket's number: so it also ends a TLS handshake, during which nothing else holds it.
    """

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.over = False
        """Whether the deadline is over, or the exchange was given up; what was read may then be cut short."""
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._watchdog = self._timer(seconds)

    def __enter__(self) -> Self:
        self._watchdog.start()
        _exchanges.current = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _exchanges.current = None
        self._watchdog.cancel()
        with self._lock:
            for held in self._sockets:
                held.close()
            self._sockets.clear()

    def _timer(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(max(seconds, 0.0), self.end)
        timer.daemon = True
        return timer

    def extend(self, seconds: float) -> None:
        """Let so many seconds begin now: the answer turned out to be a long one. What is over stays over."""
        self._watchdog.cancel()
        if self.over:
            return
        self.ends = time.monotonic() + seconds
        self._watchdog = self._timer(seconds)
        self._watchdog.start()

    def watch(self, sock: socket.socket) -> None:
        """Shut this socket down, too, when the time is over."""
        with self._lock:
            held = socket.socket(fileno=os.dup(sock.fileno()))
            self._sockets.append(held)
            if self.over:
                _shut(held)

    def end(self) -> None:
        """Shut down whatever is open; from any thread."""
        with self._lock:
            self.over = True
            for held in self._sockets:
                _shut(held)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        sock.shutdown(socket.SHUT_RDWR)


class _Exchanges(threading.local):
    current: Exchange | None = None


_exchanges = _Exchanges()
"""The exchange of each thread: urllib3 makes its connections where no argument can be handed over."""


class _Watched(HTTPConnection):
    """A connection whose socket the thread's exchange knows, from the first packet on and also where it is used again."""

    def _new_conn(self) -> socket.socket:
        exchange = _exchanges.current
        if exchange is None:
            return super()._new_conn()
        name, timeout, failure = self._dns_host, self.timeout, None
        try:
            # urllib3 tries each address for the whole timeout, and a host may have many. Only looking up the name takes what it takes.
            addresses = socket.getaddrinfo(name.strip("[]"), self.port, allowed_gai_family(), socket.SOCK_STREAM)
            for address in dict.fromkeys(str(entry[4][0]) for entry in addresses):
                left = max(0.01, exchange.ends - time.monotonic())
                self._dns_host, self.timeout = address, min(timeout, left) if isinstance(timeout, int | float) else left
                try:
                    sock = super()._new_conn()
                except (NewConnectionError, ConnectTimeoutError) as error:
                    failure = error
                    if exchange.over:
                        break
                else:
                    exchange.watch(sock)
                    return sock
        except (OSError, UnicodeError):
            pass  # urllib3 asks again and says why not
        finally:
            self._dns_host, self.timeout = name, timeout
        if failure is not None:
            raise failure
        return super()._new_conn()

    def request(self, *args: Any, **kwargs: Any) -> None:
        exchange = _exchanges.current
        if exchange is not None and self.sock is not None:
            exchange.watch(self.sock)
        super().request(*args, **kwargs)


class _WatchedTls(_Watched, HTTPSConnection):
    """The same with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


class _Adapter(HTTPAdapter):
    """Makes watched connections, to the host as to a proxy."""

    _POOLS: ClassVar = {"http": _Pool, "https": _TlsPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        if "SOCKS" not in type(manager).__name__:  # its connections are another library's, and only their timeouts hold
            manager.pool_classes_by_scheme = self._POOLS
        return manager


class _Session(requests.Session):
    """A session that leaves redirects to us: requests reads the whole body of one, however long, to find out where it leads."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _without_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def bounded_session(*, netrc: bool = False, parallel: int = 4) -> requests.Session:
    """A session whose requests end with the thread's ``Exchange``; a login from ``~/.netrc`` is sent only where ``netrc`` allows it."""
    session = _Session()
    adapter = _Adapter(pool_connections=2, pool_maxsize=parallel)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers["User-Agent"] = "coverage-planner"
    if not netrc:
        # requests takes a login for the host from ~/.netrc wherever no other authentication is set, and people who download from NASA have
        # one there. Leaving trust_env off would keep it back, too, but with it the proxy and the certificates.
        session.auth = _without_login
    return session


class RemoteFile(io.RawIOBase):
    """A file behind an http(s) address, read in ranges where the server gives them, else copied once to a temporary file.

    Each range, and the copy, ends at its deadline and is no longer than was asked for. Redirects are followed, but not from https to http,
    and no login goes along to another host.
    """

    def __init__(self, address: str, *, most_bytes: int, seconds: float, copy_seconds: float, timeout: float, netrc: bool = False) -> None:
        """``most_bytes`` and ``copy_seconds`` bound a copy; ``seconds`` each other answer, from connecting to its last byte."""
        super().__init__()
        self.address, self._most, self._seconds, self._timeout = address, most_bytes, seconds, timeout
        self._copy_seconds = copy_seconds
        self._sessions = {True: bounded_session(netrc=netrc), False: bounded_session()}
        self._host = urlsplit(address).netloc
        self._at = 0
        self._copy: IO[bytes] | None = None
        self._size = 0
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        with self._answer({"Range": "bytes=0-0", "Accept-Encoding": "identity"}) as (answer, exchange):
            match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            if answer.status_code == 206 and match is not None:
                self._size = int(match[3])
                return
            if answer.status_code == 416:  # of an empty file no byte can be had
                return
            exchange.extend(self._copy_seconds)
            self._copy = tempfile.TemporaryFile()  # noqa: SIM115 closed with this file
            while chunk := answer.raw.read1(CHUNK, decode_content=True):
                self._size += len(chunk)
                if self._size > self._most:
                    raise self._failed(f"is larger than {self._most >> 20} MB, and the server gives no parts of it")
                self._copy.write(chunk)

    @contextmanager
    def _answer(self, headers: Mapping[str, str]) -> Iterator[tuple[requests.Response, Exchange]]:
        """An answer with status 200, 206 or 416, while it is read."""
        exchange = Exchange(self._seconds)
        began = time.monotonic()
        try:
            with exchange:
                url = self.address
                for _ in range(_MOST_REDIRECTS):
                    with self._sessions[urlsplit(url).netloc == self._host].get(
                        url, headers=dict(headers), timeout=(min(10.0, self._timeout), self._timeout), allow_redirects=False, stream=True
                    ) as answer:
                        if 300 <= answer.status_code < 400 and "Location" in answer.headers:
                            url = self._redirected(url, answer.headers["Location"])
                            continue
                        if answer.status_code in (404, 410):
                            raise TransferMissing(f"{public_address(self.address)} does not exist (answered {answer.status_code})")
                        if answer.status_code not in (200, 206, 416):
                            raise self._failed(f"answered {answer.status_code}")
                        yield answer, exchange
                        break
                else:
                    raise self._failed("redirects in a circle")
        except TransferError:
            if not exchange.over:
                raise
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            if not exchange.over:
                raise self._failed(f"cannot be read: {self._words(error)}") from None
        if exchange.over:  # also where an answer without a length was cut, which looks whole
            raise self._failed(f"was not read within {exchange.ends - began:.3g} s")

    def _words(self, error: Exception) -> str:
        if isinstance(error, requests.Timeout):
            return f"no answer within {self._timeout:g} s"
        inner = error.args[0] if error.args else error
        return redact(str(getattr(inner, "reason", None) or error), self.address)

    def _redirected(self, url: str, location: str) -> str:
        to = urljoin(url, location)
        if urlsplit(to).scheme not in ("http", "https") or (url.startswith("https:") and not to.startswith("https:")):
            raise self._failed(f"redirects to {public_address(to)[:200]}, which is not followed")
        return to

    def _failed(self, why: str) -> TransferError:
        return TransferError(f"{public_address(self.address)} {why}")

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where the next byte is read, from the start, from here or from the end."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill as much of a buffer as the file has."""
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        if self._copy is not None:
            self._copy.seek(self._at)
            read = self._copy.readinto(view[: end - self._at])  # type: ignore[attr-defined]
        else:
            read = self._range(view, end)
        self._at += read
        return int(read)

    def _range(self, view: memoryview, end: int) -> int:
        wanted = end - self._at
        with self._answer({"Range": f"bytes={self._at}-{end - 1}", "Accept-Encoding": "identity"}) as (answer, _):
            match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            if answer.status_code != 206 or match is None or (int(match[1]), int(match[3])) != (self._at, self._size):
                raise self._failed("was changed while it was read, or its server gives other parts than those asked for")
            read = 0
            while read < wanted and (chunk := answer.raw.read1(min(CHUNK, wanted - read), decode_content=False)):
                view[read : read + len(chunk)] = chunk
                read += len(chunk)
        if read < wanted:
            raise self._failed(f"broke off after {read} of {wanted} bytes")
        return read

    def close(self) -> None:
        """Let connections and the copy go."""
        if not self.closed:
            for session in self._sessions.values():
                session.close()
            if self._copy is not None:
                self._copy.close()
        super().close()


MOST_FILE_MB = 1024
"""The largest file of targets or holdings that is copied from an http(s) address."""


@contextmanager
def local_copy(
    address: str, *, vector: bool = False, most_mb: int = MOST_FILE_MB, seconds: float = 600.0, timeout: float = 60.0
) -> Iterator[str]:
    """A file behind an http(s) address as a local path, of the same ending; any other address or path as it is.

    For readers that would open an address by means of their own, which have no deadline and offer ``~/.netrc`` to every host (GDAL's does).
    A ``vector`` file is made safe for GDAL (``foreign_files``). Raises ``TransferError``.
    """
    if urlsplit(address).scheme.lower() not in ("http", "https"):
        yield address
        return
    ending = "".join(re.findall(r"\.\w{1,12}$", urlsplit(address).path))
    with (
        tempfile.TemporaryDirectory(prefix="coverage-copy-") as folder,
        tempfile.NamedTemporaryFile(suffix=ending) as file,
        RemoteFile(address, most_bytes=most_mb << 20, seconds=seconds, copy_seconds=seconds, timeout=timeout) as remote,
    ):
        if remote.seek(0, io.SEEK_END) > most_mb << 20:
            raise TransferError(f"{public_address(address)} is larger than {most_mb} MB")
        remote.seek(0)
        while chunk := remote.read(16 << 20):
            file.write(chunk)
        file.flush()
        try:
            ready = safe_vector_file(Path(file.name), Path(folder)) if vector else Path(file.name)
        except ForeignFileError as error:
            raise TransferError(f"{public_address(address)}: {error}") from None
        yield str(ready)
