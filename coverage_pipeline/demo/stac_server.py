"""A STAC API on loopback: `rustac serve` over files of items, for the demo, air-gapped trials and tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from coverage_pipeline.errors import PlannerError


class ServingError(PlannerError):
    """The local STAC API did not come up."""


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rustac() -> str:
    beside = Path(sys.executable).with_name("rustac")
    program = str(beside) if beside.exists() else shutil.which("rustac")
    if not program:
        raise ServingError("the command rustac is missing: install the extra demo (pip install 'coverage-planner[demo]')")
    return program


@contextmanager
def stac_api(files: Sequence[Path], *, port: int | None = None, seconds: float = 120, advertised: str | None = None) -> Iterator[str]:
    """Serve item collections (GeoJSON or stac-geoparquet) from memory; yields the API's address, stops it at the end.

    ``advertised`` is the address that its links name, where it stands behind another server.

    Raises ``ServingError`` where it does not answer within ``seconds``, with what it said.
    """
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    command = [_rustac(), "serve", "--create-collections", "--use-duckdb", "false"]
    command += ["--bind", f"127.0.0.1:{port}", "--addr", advertised or f"127.0.0.1:{port}", *map(str, files)]
    with TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603 our own arguments
        try:
            _wait(server, address, seconds, log)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-500:]


def _wait(server: subprocess.Popen[bytes], address: str, seconds: float, log: IO[bytes]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServingError(f"rustac serve ended at once: {_text(log)}")
        try:
            with urllib.request.urlopen(f"{address}/conformance", timeout=5):  # noqa: S310 loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise ServingError(f"rustac serve did not answer on {address} within {seconds:g} s: {_text(log)}")
