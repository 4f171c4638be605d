"""Store the finished windows of a scan on disk, so that an interrupted scan can resume."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from upath import UPath

from coverage_pipeline import __version__
from coverage_pipeline.catalog.sources.base import Window
from coverage_pipeline.months import UTC
from coverage_pipeline.scenes.schema import REJECTED_ROWS_SCHEMA, ROWS_SCHEMA
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.files import write_bytes
from coverage_pipeline.storage.tables import read_parquet, write_parquet

FINISHED_WINDOWS_VERSION = 2
"""Version of the files of finished windows; a scan does not resume from another version."""
_QUERY_FILE = "query.json"


@dataclass(frozen=True)
class FinishedWindow:
    """Counts of one finished window, stored as metadata of the file with its rows."""

    window: tuple[dt.datetime, dt.datetime]
    read_at: dt.datetime
    pages: int
    announced: int | None
    received: int
    """Number of distinct items."""
    duplicates: int
    outside: int
    other_platform: int
    rejected: int
    foreign: int = 0
    """Items with a time outside the window."""
    twins: int = 0
    """Items with a repeated id and another footprint."""
    overfull: int = 0
    """Boxes with more items than announced."""
    capped: int = 0
    """Boxes with a round number of items in a window that was halved before: the provider may cap its results."""
    platforms: dict[str, int] = field(default_factory=dict)
    """Number of items kept, by platform as the provider writes it."""
    other_platforms: dict[str, int] = field(default_factory=dict)
    """Number of items left out, by platform."""
    resumed: bool = False
    """Whether an earlier run read the window."""


@dataclass(frozen=True)
class FinishedWindows:
    """The folder of finished windows of one query, beside the scan's target."""

    folder: UPath

    @classmethod
    def beside(cls, target: UPath, query: Mapping[str, Any]) -> FinishedWindows:
        """The folder of a query. Its name is a hash of the query, so that queries never share windows."""
        text = json.dumps({"version": [FINISHED_WINDOWS_VERSION, __version__], **query}, sort_keys=True, default=str)
        return cls(finished_windows_folder(target) / hashlib.sha256(text.encode()).hexdigest()[:16])

    def begin(self, lifetime: dt.timedelta) -> None:
        """Keep existing windows unless they are older than ``lifetime``: the catalogue may have changed since."""
        begun, now = self._begun(), dt.datetime.now(UTC)
        if begun is None or not dt.timedelta(0) <= now - begun <= lifetime:  # a start in the future, by a wrong clock, would never expire
            self.clear()
            write_bytes(self.folder / _QUERY_FILE, json.dumps({"begun": now.isoformat()}).encode())

    def _begun(self) -> dt.datetime | None:
        try:
            begun = dt.datetime.fromisoformat(json.loads((self.folder / _QUERY_FILE).read_text())["begun"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return begun if begun.tzinfo is not None else None

    def _path(self, window: tuple[dt.datetime, dt.datetime]) -> UPath:
        return self.folder / f"{Window(*window, 1).name}.parquet"

    def write(self, part: FinishedWindow, rows: pa.Table, rejected: pa.Table) -> None:
        """Write rejected rows first, so that a reader who sees the rows also finds them."""
        path = self._path(part.window)
        if rejected.num_rows:
            write_parquet(_rejected_path(path), rejected, {})
        write_parquet(
            path, rows, {"part": {**asdict(part), "window": [t.isoformat() for t in part.window], "read_at": part.read_at.isoformat()}}
        )

    def found(self) -> list[FinishedWindow]:
        """Windows finished by an earlier run. Unreadable ones are skipped, and so read again."""
        parts = []
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.name.endswith(".parquet") and ".rejected." not in path.name)
        except OSError:
            return []
        for path in paths:
            try:
                table, metadata = read_parquet(path, columns=["item_id"])
                fields = metadata["part"]
                start, end = (dt.datetime.fromisoformat(t) for t in fields.pop("window"))
                part = FinishedWindow(
                    **{**fields, "window": (start, end), "read_at": dt.datetime.fromisoformat(fields["read_at"]), "resumed": True}
                )
                if part.rejected and read_parquet(_rejected_path(path), columns=["reason"])[0].num_rows != part.rejected:
                    continue
            except (StoreError, KeyError, TypeError, ValueError):
                continue
            now = dt.datetime.now(UTC)
            if self._path(part.window).name == path.name and table.num_rows <= part.received and part.read_at <= now:
                parts.append(part)
        return parts

    def rows(self, parts: list[FinishedWindow]) -> tuple[pa.Table, pa.Table]:
        """Rows (``ROWS_SCHEMA``) and rejected rows (``REJECTED_ROWS_SCHEMA``) of the windows in order, repeated items included.

        Raises ``StoreError`` if another scan has removed a file.
        """
        rows, rejected = [ROWS_SCHEMA.empty_table()], [REJECTED_ROWS_SCHEMA.empty_table()]
        for part in parts:
            path = self._path(part.window)
            try:
                rows.append(read_parquet(path)[0].replace_schema_metadata(None).cast(ROWS_SCHEMA))
                if part.rejected:
                    rejected.append(read_parquet(_rejected_path(path))[0].replace_schema_metadata(None).cast(REJECTED_ROWS_SCHEMA))
            except StoreError as error:  # an object store has no lock between two scans of one month
                raise StoreError(f"another scan of this month removed {path}; run one scan at a time ({error})") from error
        return pa.concat_tables(rows), pa.concat_tables(rejected)

    def clear(self) -> None:
        """Remove all windows of the query."""
        if self.folder.exists():
            self.folder.fs.rm(self.folder.path, recursive=True)


def finished_windows_folder(target: UPath) -> UPath:
    """Folder of the finished windows of a scan into ``target``, until the scan is complete."""
    return target.parent / f".{target.name}.parts"


def clear_finished_windows(target: UPath, *, older_than: dt.timedelta | None = None) -> None:
    """Remove the finished windows of all scans of a target, or only of scans begun longer ago than ``older_than``."""
    folder = finished_windows_folder(target)
    if not folder.exists():
        return
    if older_than is None:
        folder.fs.rm(folder.path, recursive=True)
        return
    now = dt.datetime.now(UTC)
    for query in list(folder.iterdir()):
        begun = FinishedWindows(query)._begun()
        if begun is None or not dt.timedelta(0) <= now - begun <= older_than:
            query.fs.rm(query.path, recursive=True)


def _rejected_path(path: UPath) -> UPath:
    return path.parent / path.name.replace(".parquet", ".rejected.parquet")
