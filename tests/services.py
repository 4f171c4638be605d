"""Real services for tests: a PostGIS cluster that lives as long as the test session."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from coverage_pipeline.demo.stac_server import free_port
from tests.conftest import without_service

TEMPLATE = "with_postgis"


@dataclass(frozen=True)
class PostgisServer:
    """A throwaway cluster on loopback. Its own time zone is not UTC, so that who relies on it is found out."""

    port: int
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    user: str = "postgres"

    def connect(self, database: str = "postgres") -> Any:
        """An autocommitting connection of the superuser; the caller closes it."""
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=database, connect_timeout=10
        )
        connection.autocommit = True
        return connection

    def execute(self, sql: Any, values: Any = None, *, database: str = "postgres") -> None:
        """Run one statement as the superuser."""
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)

    def create_database(self, *, extension: bool = True) -> str:
        """A new database, with PostGIS or without; returns its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE if extension else 'template0'}")
        return name


def _binaries() -> Path | None:
    """Debian's folder of the newest PostgreSQL that has PostGIS."""
    found = [
        initdb.parent
        for initdb in Path("/usr/lib/postgresql").glob("*/bin/initdb")
        if Path(f"/usr/share/postgresql/{initdb.parts[-3]}/extension/postgis.control").exists()
    ]
    return max(found, key=lambda path: int(path.parts[-2]), default=None)


def _as_whom() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then as the user that its package made."""
    if os.getuid() != 0:
        return {}
    owner = pwd.getpwnam("postgres")
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


@contextmanager
def postgis_server() -> Iterator[PostgisServer]:
    """A cluster that is made, started, and at the end stopped and removed."""
    binaries = _binaries()
    if binaries is None:
        without_service("PostGIS")
        raise AssertionError("unreachable")
    whom = _as_whom()
    # Not below pytest's own folder: only its owner may enter that.
    folder = Path(tempfile.mkdtemp(prefix="coverage-postgis-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        secret = folder / "password"
        secret.write_text(password := secrets.token_hex(12))
        if whom:
            for path in (folder, secret):
                os.chown(path, whom["user"], whom["group"])
        initdb = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", str(secret)]
        made = subprocess.run(
            [*initdb, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"], cwd=folder, capture_output=True, check=False, **whom
        )
        assert made.returncode == 0, made.stderr.decode()
        for _ in range(3):  # another process may take the port between asking for it and listening
            port = free_port()
            settings = {
                "port": port,
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "timezone": "America/New_York",
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "shared_buffers": "32MB",
            }
            options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            with (folder / "log").open("wb") as log:
                command = [str(binaries / "postgres"), "-D", str(folder / "data"), *options]
                server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, **whom)
            running = PostgisServer(port, password)
            if _is_up(running, server):
                break
        else:
            raise AssertionError((folder / "log").read_text(errors="replace")[-2000:])
        running.execute(f"CREATE DATABASE {TEMPLATE}")
        running.execute("CREATE EXTENSION postgis", database=TEMPLATE)
        yield running
    finally:
        if server is not None and server.poll() is None:
            server.send_signal(signal.SIGINT)  # ends open sessions, then stops
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _is_up(server: PostgisServer, process: subprocess.Popen[bytes], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.connect().close()
        except psycopg2.OperationalError:
            time.sleep(0.05)
        else:
            return True
    return False


@pytest.fixture(scope="session")
def postgis() -> Iterator[PostgisServer]:
    """One cluster a session (under pytest-xdist: a worker); skips, or fails where services are required, without PostGIS."""
    with postgis_server() as server:
        yield server
