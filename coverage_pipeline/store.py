"""Where everything lies: one root, a path for every sensor and month, and files that are complete or absent."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month

METADATA_KEY = b"coverage_planner"
"""Key of our JSON in a Parquet file's metadata: what was scanned, when, and how it ended."""

StatsLayer = Literal["available", "held", "unheld"]


class StoreError(PlannerError):
    """A file of ours cannot be read or written."""


@dataclass(frozen=True)
class Store:
    """The paths of one root, each a local folder or an object store's URL."""

    root: UPath
    zarr: UPath
    parquet_dir: UPath

    @classmethod
    def below(
        cls,
        root: str | Path | UPath,
        *,
        zarr: str | Path | UPath | None = None,
        parquet_dir: str | Path | UPath | None = None,
    ) -> Store:
        """The store below a root; ``zarr`` and ``parquet_dir`` may lie elsewhere."""
        base = UPath(root)
        return cls(
            root=base,
            zarr=UPath(zarr) if zarr else base / "coverage.zarr",
            parquet_dir=UPath(parquet_dir) if parquet_dir else base / "catalog",
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
        return self.root / "stats" / layer / sensor / f"{month.key}.parquet"

    def matchup(self, sensor: str, month: Month) -> UPath:
        """One row an available scene: held or not, by which holding and rule."""
        return self.root / "matchup" / sensor / f"{month.key}.parquet"

    @property
    def requests(self) -> Path:
        """The request store, a local SQLite file (below the root, or ``data`` where the root is an object store)."""
        return Path(self.root.path if is_local(self.root) else "data") / "requests.sqlite"


def is_local(path: UPath) -> bool:
    """Whether a path lies in the machine's own file system."""
    return path.protocol in ("", "file", "local")


def sibling(path: UPath, suffix: str) -> UPath:
    """The file beside ``….parquet`` that ends in ``suffix`` instead."""
    return path.parent / (path.name.removesuffix(".parquet") + suffix)


def write_bytes(path: UPath, content: bytes) -> None:
    """Write a file so that it is complete or absent, and a former one stays until the new one is whole."""
    write_together([(path, content)])


def write_together(files: Sequence[tuple[UPath, bytes]]) -> None:
    """Write files that belong together, each complete or absent, in their order.

    On a disk none takes its place before all are written, so that a full one leaves the former files as they were.
    """
    ready: list[tuple[Path, Path]] = []
    path = files[0][0]
    try:
        for path, content in files:
            if not is_local(path):
                path.write_bytes(content)  # one PUT
                continue
            local = Path(path.path)
            local.parent.mkdir(parents=True, exist_ok=True)
            temporary = local.parent / f".{local.name}.{uuid.uuid4().hex}.tmp"
            ready.append((temporary, local))
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for temporary, local in ready:
            temporary.replace(local)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; check COVERAGE_DATA and the output settings") from None
    finally:
        for temporary, _ in ready:
            temporary.unlink(missing_ok=True)


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
    temporary = local.parent / f".{local.name}.{uuid.uuid4().hex}.tmp"
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
) -> tuple[pa.Table, dict[str, Any]]:
    """Cell statistics and their metadata: all of them, or those from cell ``first`` to before ``end``."""
    names = None if schema is None else schema.names
    if first is None or end is None:
        return read_parquet(path, names)
    return read_parquet(path, names, filters=(pc.field("cell") >= first) & (pc.field("cell") < end))


def read_parquet(path: UPath, columns: list[str] | None = None, *, filters: pc.Expression | None = None) -> tuple[pa.Table, dict[str, Any]]:
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
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"cannot read {path}: {error}") from None
    return table, _metadata(path, kept)


def read_metadata(path: UPath) -> dict[str, Any]:
    """Only the metadata of a file of ours."""
    try:
        with path.open("rb") as file:
            return _metadata(path, pq.read_metadata(file).metadata)
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist yet: materialise the asset that writes it first") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"cannot read {path}: {error}") from None


def _metadata(path: UPath, kept: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    raw = (kept or {}).get(METADATA_KEY)
    if raw is None:
        raise StoreError(f"{path} was not written by the coverage planner (its metadata has no {METADATA_KEY.decode()!r})")
    metadata: dict[str, Any] = json.loads(raw)
    return metadata
