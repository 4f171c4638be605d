"""The database of requests: SQLite beside the data, or Postgres; opened, brought up to date, and its errors in words."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout

from coverage_pipeline.redaction import redact
from coverage_pipeline.requests.errors import RequestStoreError

_MIGRATIONS = Path(__file__).with_name("migrations")
_HEAD = "0002"
_KNOWN = ("0001", _HEAD)
_WAIT_SECONDS = 30
_LOCK_NUMBER = 7_243_905_117
"""Of the advisory lock that upgrades hold in Postgres; any number that no other program uses."""


class RequestDatabase:
    """Connections to one database of requests. Thread-safe; processes may share a database."""

    def __init__(self, url: str) -> None:
        """``url`` is an SQLAlchemy address of SQLite or PostgreSQL. Nothing is opened yet."""
        try:
            self._url = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise RequestStoreError(f"requests.url is no database address; write {_FORMS}") from None
        if self._url.get_backend_name() not in ("sqlite", "postgresql"):
            raise RequestStoreError(f"requests.url names a {self._url.get_backend_name()} database; write {_FORMS}")
        if self.path is None and self._url.get_backend_name() == "sqlite":
            raise RequestStoreError(f"requests.url names a database in memory, which forgets all; write {_FORMS}")
        self._upgraded = False
        self._upgrading = threading.Lock()
        options = {"timeout": _WAIT_SECONDS} if self.path is not None else {"connect_timeout": 10}
        self._engine = sa.create_engine(self._url, connect_args=options, poolclass=sa.NullPool, hide_parameters=True)
        if self.path is not None:
            sa.event.listen(self._engine, "connect", _strict_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database."""
        name = self._url.database
        is_file = self._url.get_backend_name() == "sqlite" and name and name != ":memory:"
        return Path(name) if is_file and name else None

    @property
    def place(self) -> str:
        """Where it is, without secrets."""
        return str(self.path) if self.path is not None else self._url.render_as_string(hide_password=True)

    def exists(self) -> bool:
        """Whether there may be requests: of SQLite, whether the file is there."""
        return self.path is None or self.path.exists()

    @contextlib.contextmanager
    def transaction(self, doing: str, *, writes: bool = True) -> Iterator[sa.Connection]:
        """A transaction on the newest schema; all of it is written or none. ``doing`` is said in errors: "record the request".

        One that only reads does not wait for a writer.

        Raises ``RequestStoreError`` where the database is down, locked, full or read-only, of a newer schema, or none at all.
        """
        try:
            self._upgrade()
            with self._engine.execution_options(writes=writes).begin() as connection:
                yield connection
        except (sa.exc.SQLAlchemyError, OSError, Timeout) as error:
            raise RequestStoreError(self._in_words(error, doing)) from None

    def _upgrade(self) -> None:
        with self._upgrading:
            if self._upgraded:
                return
            if not self._is_newest():
                with self._alone(), self._engine.execution_options(writes=True).begin() as connection:
                    if self.path is None:
                        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_NUMBER)))
                    if self._version(connection) != _HEAD:  # another may have been first
                        self._upgrade_on(connection)
            self._upgraded = True

    def _is_newest(self) -> bool:
        if not self.exists():
            return False
        with self._engine.begin() as connection:
            version = self._version(connection)
        if version not in (None, *_KNOWN):
            raise RequestStoreError(
                f"the requests in {self.place} have schema {version}, and this program knows {_HEAD}: a newer one wrote them; "
                "upgrade this one"
            )
        return version == _HEAD

    @staticmethod
    def _version(connection: sa.Connection) -> str | None:
        if not sa.inspect(connection).has_table("request_schema"):
            return None
        version: str | None = connection.execute(sa.text("SELECT version_num FROM request_schema")).scalar()
        return version

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Alone among processes, for SQLite: two that upgrade at once would both add the columns."""
        if self.path is None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=_WAIT_SECONDS):
            yield

    def _upgrade_on(self, connection: sa.Connection) -> None:
        from alembic import command  # only where something is to be upgraded
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    def _in_words(self, error: Exception, doing: str) -> str:
        words = redact(
            str(getattr(error, "orig", None) or error).strip().partition("\n")[0], self._url.render_as_string(hide_password=False)
        )
        if isinstance(error, Timeout) or "locked" in words:
            hint = "another program holds it: try again when that has ended"
        elif "full" in words or "No space" in words:
            hint = "make room on its disk"
        elif self.path is not None:
            hint = "check requests.url and who may write there"
        else:
            hint = "check requests.url (COVERAGE_REQUESTS_URL), and that the database is up"
        return f"cannot {doing} in {self.place}: {words}; nothing was written; {hint}"


_FORMS = "sqlite:////folder/requests.sqlite or postgresql://user:password@host:5432/name"


def _begin_sqlite(connection: sa.Connection) -> None:
    """A transaction that will write takes the lock at once, so that what it has read cannot be overtaken."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _strict_sqlite(connection: object, _: object) -> None:
    """``_begin_sqlite`` begins transactions, not the driver; foreign keys are checked."""
    connection.isolation_level = None  # type: ignore[attr-defined]
    connection.execute("PRAGMA foreign_keys = ON")  # type: ignore[attr-defined]
