"""A real STAC API for tests: stac-fastapi-pgstac on PostGIS, the software that Planetary Computer runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from psycopg.conninfo import make_conninfo
from pypgstac.db import PgstacDB
from pypgstac.load import Loader, Methods
from pypgstac.migrate import Migrate

from coverage_pipeline.demo.stac_server import free_port
from tests.services import PostgisServer


@dataclass(frozen=True)
class PgstacDatabase:
    """A database of its own with pgstac's schema, in a throwaway cluster."""

    server: PostgisServer
    name: str

    @classmethod
    def create(cls, server: PostgisServer) -> PgstacDatabase:
        """An empty catalogue."""
        database = cls(server, server.create_database())
        with database._connected() as db:
            Migrate(db).run_migration()
        return database

    @contextmanager
    def _connected(self) -> Iterator[PgstacDB]:
        server = self.server
        where = make_conninfo(host=server.host, port=server.port, user=server.user, password=server.password, dbname=self.name)
        db = PgstacDB(where)
        with closing(db.get_pool()), db:  # leaving `db` alone would not stop its pool's threads
            yield db

    def add_collection(self, name: str, items: Sequence[Mapping[str, Any]] = ()) -> None:
        """A collection, and its items.

        What the first item's assets say in general becomes the collection's ``item_assets``, as Planetary Computer has them: pgstac
        leaves it out of the items that it stores, and puts it back into those that it gives.
        """
        assets: Mapping[str, Mapping[str, Any]] = items[0].get("assets") or {} if items else {}
        collection = {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "proprietary",
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
            "item_assets": {key: {k: v for k, v in asset.items() if k in ("type", "roles", "title")} for key, asset in assets.items()},
            "links": [],
        }
        with self._connected() as db:
            Loader(db).load_collections(iter([collection]), insert_mode=Methods.insert)
        if items:
            self.load(items)

    def load(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Load items whose collections are there; raises what pypgstac or PostgreSQL raises where one is refused."""
        own = json.loads(json.dumps(items))  # pypgstac changes what it is given
        with self._connected() as db:
            Loader(db).load_items(iter(own), insert_mode=Methods.insert)

    @contextmanager
    def serve(self, *, hydrate: bool = False, seconds: float = 120) -> Iterator[str]:
        """stac-fastapi-pgstac as a process on loopback, as its own manual starts it; yields its address.

        ``hydrate``: items are put together by the API rather than by the database, which is other code.
        """
        port = free_port()
        address = f"http://{self.server.host}:{port}"
        environment = {
            **os.environ,
            "PGHOST": self.server.host,
            "PGPORT": str(self.server.port),
            "PGUSER": self.server.user,
            "PGPASSWORD": self.server.password,
            "PGDATABASE": self.name,
            "USE_API_HYDRATE": str(hydrate),
        }
        command = [sys.executable, "-m", "uvicorn", "stac_fastapi.pgstac.app:create_app", "--factory", "--no-access-log"]
        with TemporaryDirectory(prefix="coverage-pgstac-") as folder:
            said = Path(folder) / "log"
            with said.open("wb") as log:
                server = subprocess.Popen(
                    [*command, "--host", self.server.host, "--port", str(port)],
                    cwd=folder,  # it reads the `.env` of where it runs
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            try:
                _wait(server, address, seconds, said)
                yield address
            finally:
                server.terminate()
                try:
                    server.wait(10)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()


def _wait(server: subprocess.Popen[bytes], address: str, seconds: float, said: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/conformance", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"stac-fastapi-pgstac does not answer on {address}: {said.read_text(errors='replace')[-2000:]}")
