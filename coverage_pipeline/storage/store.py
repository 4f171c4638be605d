"""Where everything lies: one root, a path for every sensor and month, and files that are complete or absent."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month
from coverage_pipeline.redaction import error_words

METADATA_KEY = b"coverage_planner"
"""Key of our JSON in a Parquet file's metadata: what was scanned, when, and how it ended."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_FILE_URL = re.compile(r"(file|local):/", re.IGNORECASE)

StatsLayer = Literal["available", "held", "unheld"]


class StoreError(PlannerError):
    """A file of ours cannot be read or written."""


@dataclass(frozen=True)
class Store:
    """The paths of one root, each a local folder or an object store's URL."""

    root: UPath
    zarr: UPath
    parquet_dir: UPath
    derived: UPath | None = None
    """Where statistics and matchups lie, which follow from scenes, holdings and settings; None: the root."""

    @classmethod
    def below(
        cls,
        root: str | Path | UPath,
        *,
        zarr: str | Path | UPath | None = None,
        parquet_dir: str | Path | UPath | None = None,
    ) -> Store:
        """The store below a root; ``zarr`` and ``parquet_dir`` may lie elsewhere."""
        base = storage_path(root)
        return cls(
            root=base,
            zarr=storage_path(zarr) if zarr else base / "coverage.zarr",
            parquet_dir=storage_path(parquet_dir) if parquet_dir else base / "catalog",
        )

    def scenes(self, sensor: str, month: Month) -> UPath:
        """Available scenes, GeoParquet; the rejected table and the scan report stand beside it."""
        return self.parquet_dir / sensor / f"{month.key}.parquet"

    def timeless(self, sensor: str) -> UPath:
        """Catalogue items of a sensor that have no time, and so belong to no month."""
        return self.parquet_dir / sensor / "timeless.parquet"

    def holdings(self, sensor: str, month: Month) -> UPath:
        """Holdings of the month (and of the match tolerance on either side), GeoParquet."""
        return self.root / "holdings" / sensor / f"{month.key}.parquet"

    def last_held(self, sensor: str, month: Month) -> UPath:
        """For every distinct footprint, the last instant held before the month's end."""
        return self.root / "holdings" / sensor / f"{month.key}.last.parquet"

    def stats(self, layer: StatsLayer, sensor: str, month: Month) -> UPath:
        """Cell statistics, one row a touched cell."""
        return (self.derived or self.root) / "stats" / layer / sensor / f"{month.key}.parquet"

    def matchup(self, sensor: str, month: Month) -> UPath:
        """One row an available scene: held or not, by which holding and rule."""
        return (self.derived or self.root) / "matchup" / sensor / f"{month.key}.parquet"

    @property
    def requests(self) -> Path:
        """The request store, a local SQLite file (below the root, or ``data`` where the root is an object store)."""
        return Path(self.root.path if is_local(self.root) else "data") / "requests.sqlite"


def storage_path(address: str | Path | UPath) -> UPath:
    """The place that a setting, an option or an argument names; every path from outside goes through here.

    A plain path is taken as it stands: ``#``, ``?`` and ``%`` are letters of a name, and only a leading ``~/`` is the home folder.
    A ``file://`` address is decoded as the URL that it is. Any other ``scheme://`` belongs to fsspec. A local path that contains
    ``..`` is resolved as the system resolves it, so that files which stand beside the place are made where it really lies.

    Raises ``StoreError`` for an address that names no place, or not clearly one.
    """
    if isinstance(address, UPath):
        return _local(address.path) if is_local(address) else address
    if isinstance(address, Path):
        return _local(str(address))
    if not address.strip() or "\0" in address:
        raise StoreError(f"{address!r} is no path: name a folder, a file, or the URL of one")
    if _FILE_URL.match(address):
        return _local(_path_of_file_url(address))
    url = _URL.match(address)
    if url is None:
        return _local(str(Path(address).expanduser()) if address == "~" or address.startswith("~/") else address)
    try:
        path = UPath(address)
        _ = path.path
    except Exception as error:  # whatever the client of that protocol raises; its words may repeat a login
        raise StoreError(f"cannot use an address that begins with {url[0]}: {type(error).__name__}; give a path or s3://…") from None
    return path


def _path_of_file_url(address: str) -> str:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise StoreError(f"{address} names the machine {parts.netloc!r}: write file:///… with three slashes, or the plain path")
    if parts.query or parts.fragment or address.endswith(("?", "#")):
        raise StoreError(f"{address} is not clear: in a file:// address # is written %23 and ? is written %3F; or give the plain path")
    path = unquote(parts.path, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise StoreError(f"{address} names no file or folder: write file:///… with three slashes, or the plain path")
    return path


def _local(path: str) -> UPath:
    """A local path; ``..`` is resolved, for ``x/..`` has no name and no folder that it stands in."""
    parts = Path(path).parts
    if ".." in parts:
        last = len(parts) - 1 - parts[::-1].index("..")
        return UPath(Path(*parts[: last + 1]).resolve().joinpath(*parts[last + 1 :]))
    return UPath(Path(path))


def is_local(path: UPath) -> bool:
    """Whether a path lies in the machine's own file system."""
    return path.protocol in ("", "file", "local")


def vector_source(path: UPath) -> str | BinaryIO:
    """A local vector file as geopandas can be given it: GDAL's reader cuts a path at ``;`` and ``!``, so such a file goes as its bytes."""
    if "!" in path.path or ";" in path.path:
        return io.BytesIO(Path(path.path).read_bytes())
    return str(path.path)


def sibling(path: UPath, suffix: str) -> UPath:
    """The file beside ``….parquet`` that ends in ``suffix`` instead."""
    return path.parent / (path.name.removesuffix(".parquet") + suffix)


def write_bytes(path: UPath, content: bytes) -> None:
    """Write a file so that it is complete or absent, and a former one stays until the new one is whole."""
    write_together([(path, content)])


def write_together(files: Sequence[tuple[UPath, bytes]]) -> None:
    """Write files that belong together, each complete or absent, in their order: the last one is the one that readers go by.

    On a disk none takes its place before all are written, so that a full one leaves the former files as they were. An object store gives
    no such promise: there each is one PUT after the other.
    """
    ready: list[tuple[Path, UPath]] = []
    at: UPath | None = None
    try:
        for path, content in files:
            at = path
            if is_local(path):
                ready.append((_temporary(Path(path.path)), path))
                _write_through(ready[-1][0], content)
        for temporary, path in ready:
            at = path
            temporary.replace(Path(path.path))
        for path, content in files:
            at = path
            if not is_local(path):
                _put(path, content)
    except OSError as error:
        raise StoreError(f"cannot write {at}: {error}; check COVERAGE_DATA and the output settings") from None
    finally:
        for temporary, _ in ready:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _temporary(local: Path) -> Path:
    """Where a file is written before it takes its place; ``leftovers`` knows these names."""
    return local.parent / f".{local.name}.{uuid.uuid4().hex}.tmp"


def _write_through(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def _put(path: UPath, content: bytes) -> None:
    """One PUT. The clients of the stores have no root of their errors in common, so any is taken for the store's."""
    try:
        path.write_bytes(content)
    except OSError:
        raise
    except Exception as error:
        raise StoreError(f"cannot write {path}: {error_words(error)}; check COVERAGE_DATA and the output settings") from error


def write_parquet(path: UPath, table: pa.Table, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a table as Parquet (zstd), with ``metadata`` as JSON under ``METADATA_KEY``."""
    write_bytes(path, parquet_bytes(table, metadata))


def parquet_bytes(table: pa.Table, metadata: Mapping[str, Any] | None = None) -> bytes:
    """A table as the bytes of a Parquet file (zstd), with ``metadata`` as JSON under ``METADATA_KEY``."""
    if metadata is not None:
        kept = dict(table.schema.metadata or {})
        table = table.replace_schema_metadata({**kept, METADATA_KEY: json.dumps(dict(metadata)).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


_ROWS_A_GROUP = 1 << 18


def write_cells(path: UPath, schema: pa.Schema, tables: Iterable[pa.Table], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Write cell statistics that come piece by piece, ascending by ``cell``; returns the metadata, with the number of ``cells``.

    Never more than a piece is in memory. Sorted, delta-coded and small row groups, so that a month is small and a band of it is
    read alone. The file is complete or absent.
    """
    cells = 0
    with (
        _whole_file(path) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=[field.name for field in schema if field.name != "cell" and not pa.types.is_floating(field.type)],
            column_encoding={"cell": "DELTA_BINARY_PACKED"},
            sorting_columns=[pq.SortingColumn(schema.get_field_index("cell"))],
        ) as writer,
    ):
        for table in tables:
            cells += table.num_rows
            writer.write_table(table, row_group_size=_ROWS_A_GROUP)
        whole = {**metadata, "cells": cells}
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(whole).encode()})
    return whole


@contextlib.contextmanager
def _whole_file(path: UPath) -> Iterator[BinaryIO]:
    """A file to write into that takes its place when it is whole, and never if it does not become so."""
    local = Path(path.path) if is_local(path) else Path(tempfile.gettempdir()) / path.name
    temporary = _temporary(local)
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if is_local(path):
            temporary.replace(local)
        else:
            path.fs.put_file(str(temporary), path.path)  # no PUT of half a file
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; check COVERAGE_DATA and the output settings") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_cells(
    path: UPath, first: int | None = None, end: int | None = None, *, schema: pa.Schema | None = None
) -> tuple[pa.Table, FileMetadata]:
    """Cell statistics and their metadata: all of them, or those from cell ``first`` to before ``end``."""
    names = None if schema is None else schema.names
    if first is None or end is None:
        return read_parquet(path, names)
    return read_parquet(path, names, filters=(pc.field("cell") >= first) & (pc.field("cell") < end))


def read_parquet(path: UPath, columns: list[str] | None = None, *, filters: pc.Expression | None = None) -> tuple[pa.Table, FileMetadata]:
    """A table of ours and its metadata; raises ``StoreError`` for a file that is missing, not ours, or without one of the columns.

    ``columns`` and ``filters`` say what of it is read; row groups that can't match are not.
    """
    try:
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file)
            kept, names = parquet.metadata.metadata, parquet.schema_arrow.names
            missing = [name for name in columns or () if name not in names]
            if missing:  # before reading: the reader's own words are its whole schema
                raise StoreError(
                    f"{path} has no {', '.join(missing)}: another version wrote it; materialise the asset that writes it again"
                )
            file.seek(0)
            table = pq.read_table(file, columns=columns, filters=filters)
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist yet: materialise the asset that writes it first") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot read {path}: {error_words(error)}; if the file is damaged, {MAKE_AGAIN}") from None
    return table, _metadata(path, kept)


def read_metadata(path: UPath) -> FileMetadata:
    """Only the metadata of a file of ours."""
    try:
        with path.open("rb") as file:
            return _metadata(path, pq.read_metadata(file).metadata)
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist yet: materialise the asset that writes it first") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot read {path}: {error_words(error)}; if the file is damaged, {MAKE_AGAIN}") from None


class FileMetadata(dict[str, Any]):
    """The metadata of a file of ours; what it lacks is an error that names the file."""

    def __init__(self, path: UPath, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise StoreError(f"{self.path}: its metadata has no {key!r}; it was changed, or another version wrote it; {MAKE_AGAIN}")

    def require(self, **types: type | tuple[type, ...]) -> None:
        """Raise ``StoreError`` where a value is not there or of another type than is named; a number is never a truth value."""
        for key, wanted in types.items():
            allowed = wanted if isinstance(wanted, tuple) else (wanted,)
            value = self[key]
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise StoreError(f"{self.path}: {key!r} in its metadata is {_shown(value)}, which is no such thing; {MAKE_AGAIN}")


MAKE_AGAIN = "materialise the asset that writes it again"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _metadata(path: UPath, kept: Mapping[bytes, bytes] | None) -> FileMetadata:
    raw = (kept or {}).get(METADATA_KEY)
    if raw is None:
        raise StoreError(f"{path} was not written by the coverage planner (its metadata has no {METADATA_KEY.decode()!r})")
    try:
        metadata = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: its metadata is not JSON ({error}); the file is damaged: {MAKE_AGAIN}") from None
    if not isinstance(metadata, dict):
        raise StoreError(f"{path}: its metadata is {_shown(metadata)}, not an object; the file is damaged: {MAKE_AGAIN}")
    return FileMetadata(path, metadata)
