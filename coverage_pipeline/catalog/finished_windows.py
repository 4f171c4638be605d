"""Windows that a scan has finished, kept on disk so that a stopped scan goes on from them."""

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
"""Version of what a finished window leaves; another one's is not gone on from."""
_QUERY_FILE = "query.json"


@dataclass(frozen=True)
class FinishedWindow:
    """What one finished window gave, but for its rows, which lie in the part's file."""

    window: tuple[dt.datetime, dt.datetime]
    read_at: dt.datetime
    pages: int
    announced: int | None
    received: int
    """Distinct items of the window."""
    duplicates: int
    outside: int
    other_platform: int
    rejected: int
    foreign: int = 0
    """Items whose own time lies outside the window."""
    twins: int = 0
    """Items that came again with another footprint under the same id."""
    overfull: int = 0
    """Boxes that gave more items than were announced for them."""
    capped: int = 0
    """Boxes that still end on a round number of items, and cannot be cut any further."""
    platforms: dict[str, int] = field(default_factory=dict)
    """Items taken, by platform as the provider writes it."""
    other_platforms: dict[str, int] = field(default_factory=dict)
    """Items left out, by platform."""
    resumed: bool = False
    """Whether an earlier run read it."""


@dataclass(frozen=True)
class FinishedWindows:
    """The folder of finished windows of one query, beside the scan's target."""

    folder: UPath

    @classmethod
    def beside(cls, target: UPath, query: Mapping[str, Any]) -> FinishedWindows:
        """The folder of a query: another one's windows are never taken for its."""
        text = json.dumps({"version": [FINISHED_WINDOWS_VERSION, __version__], **query}, sort_keys=True, default=str)
        return cls(finished_windows_folder(target) / hashlib.sha256(text.encode()).hexdigest()[:16])

    def begin(self, lifetime: dt.timedelta) -> None:
        """Go on from what is there, unless it is older than ``lifetime``: by then the catalogue may have changed."""
        begun, now = self._begun(), dt.datetime.now(UTC)
        if begun is None or not dt.timedelta(0) <= now - begun <= lifetime:  # a clock that was ahead would keep them for ever
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
        """The windows that an earlier run finished. One that cannot be read is as if it were not there."""
        parts = []
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.name.endswith(".parquet") and ".rejected." not in path.name)
        except OSError:
            return []
        for path in paths:
            try:
                table, metadata = read_parquet(path, columns=["item_id"])
                lines = metadata["part"]
                start, end = (dt.datetime.fromisoformat(t) for t in lines.pop("window"))
                part = FinishedWindow(
                    **{**lines, "window": (start, end), "read_at": dt.datetime.fromisoformat(lines["read_at"]), "resumed": True}
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
        """Rows (``ROWS_SCHEMA``) and rejected (``REJECTED_ROWS_SCHEMA``) of the windows, in their order; what came in two, twice."""
        rows, rejected = [ROWS_SCHEMA.empty_table()], [REJECTED_ROWS_SCHEMA.empty_table()]
        for part in parts:
            path = self._path(part.window)
            try:
                rows.append(read_parquet(path)[0].replace_schema_metadata(None).cast(ROWS_SCHEMA))
                if part.rejected:
                    rejected.append(read_parquet(_rejected_path(path))[0].replace_schema_metadata(None).cast(REJECTED_ROWS_SCHEMA))
            except StoreError as error:  # in an object store nothing keeps two scans of one month apart
                raise StoreError(f"another scan of this month has cleared {path}; run again, one at a time ({error})") from error
        return pa.concat_tables(rows), pa.concat_tables(rejected)

    def clear(self) -> None:
        """Remove them all."""
        if self.folder.exists():
            self.folder.fs.rm(self.folder.path, recursive=True)


def finished_windows_folder(target: UPath) -> UPath:
    """Where the finished windows of a scan into ``target`` lie while it is not done."""
    return target.parent / f".{target.name}.parts"


def clear_finished_windows(target: UPath, *, older_than: dt.timedelta | None = None) -> None:
    """Remove the finished windows of all scans of a target, or of those that were begun so long ago."""
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
