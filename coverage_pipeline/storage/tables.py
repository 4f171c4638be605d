"""Tables as Parquet files with metadata: scenes, holdings, and cell statistics."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from coverage_pipeline.redaction import error_words
from coverage_pipeline.storage.errors import MAKE_AGAIN, StoreError
from coverage_pipeline.storage.files import whole_file, write_bytes
from coverage_pipeline.storage.footers import Footer, footer_of
from coverage_pipeline.storage.metadata import METADATA_KEY, CellsMetadata, FileMetadata, StoredMetadata, metadata_of


def write_parquet(
    path: UPath, table: pa.Table, metadata: FileMetadata | Mapping[str, Any] | None = None, *, rows_a_group: int | None = None
) -> None:
    """Write a table as Parquet (zstd), with ``metadata`` as JSON under ``METADATA_KEY``."""
    write_bytes(path, parquet_bytes(table, metadata, rows_a_group=rows_a_group))


def parquet_bytes(table: pa.Table, metadata: FileMetadata | Mapping[str, Any] | None = None, *, rows_a_group: int | None = None) -> bytes:
    """A table as the bytes of a Parquet file (zstd), with ``metadata`` as JSON under ``METADATA_KEY``."""
    if metadata is not None:
        kept = dict(table.schema.metadata or {})
        table = table.replace_schema_metadata(
            {**kept, METADATA_KEY: json.dumps(metadata.as_json() if isinstance(metadata, FileMetadata) else dict(metadata)).encode()}
        )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=rows_a_group)
    return buffer.getvalue()


_ROWS_A_GROUP = 1 << 18


def write_cells[M: CellsMetadata](path: UPath, schema: pa.Schema, tables: Iterable[pa.Table], metadata: M) -> M:
    """Write cell statistics that come piece by piece, ascending by ``cell``; returns the metadata, with the number of ``cells``.

    Never more than a piece is in memory. Sorted, delta-coded and small row groups, so that a month is small and a band of it is
    read alone. The file is complete or absent.
    """
    cells = 0
    with (
        whole_file(path) as file,
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
        whole = replace(metadata, cells=cells)
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(whole.as_json()).encode()})
    return whole


def read_cells(
    path: UPath, first: int | None = None, end: int | None = None, *, schema: pa.Schema | None = None
) -> tuple[pa.Table, StoredMetadata]:
    """Cell statistics and their metadata: all of them, or those from cell ``first`` to before ``end``."""
    names = None if schema is None else schema.names
    if first is None or end is None:
        return read_parquet(path, names)
    return read_parquet(path, names, filters=(pc.field("cell") >= first) & (pc.field("cell") < end))


def read_parquet(path: UPath, columns: list[str] | None = None, *, filters: pc.Expression | None = None) -> tuple[pa.Table, StoredMetadata]:
    """A table written by this package and its metadata.

    Raises ``StoreError`` for a file that is missing, was written by another program, or lacks one of the columns.

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
    return table, metadata_of(path, kept)


def read_metadata(path: UPath) -> StoredMetadata:
    """Only the metadata of a file written by this package; raises ``StoreError`` as ``read_parquet`` does."""
    try:
        with path.open("rb") as file:
            return metadata_of(path, pq.read_metadata(file).metadata)
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist yet: materialise the asset that writes it first") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot read {path}: {error_words(error)}; if the file is damaged, {MAKE_AGAIN}") from None


@dataclass(frozen=True)
class RowGroups:
    """Some row groups of a file: enough to read the same rows of another file that has its rows in the same order."""

    chosen: tuple[int, ...]
    sizes: tuple[int, ...]
    """Rows of every row group of the file."""


def read_near(path: UPath, boxes: Sequence[Sequence[float]], columns: list[str]) -> tuple[pa.Table, StoredMetadata, RowGroups]:
    """The row groups of a GeoParquet file in which a row's ``bbox`` may meet one of ``boxes`` (west, south, east, north, degrees).

    Raises ``StoreError`` as ``read_parquet``.
    """
    with _opened(path) as (parquet, footer):
        groups = RowGroups(tuple(footer.near(np.asarray(boxes, np.float64).reshape(-1, 4)).tolist()), footer.sizes)
        table = _read_groups(path, parquet, groups, columns)
        return table, metadata_of(path, parquet.metadata.metadata), groups


def read_rows_of(path: UPath, groups: RowGroups, columns: list[str]) -> tuple[pa.Table, StoredMetadata]:
    """The rows of a file that stand where those of ``groups`` stand in the other file.

    A file with other row groups, as former versions wrote it, is read whole. Raises ``StoreError`` as ``read_parquet`` does.
    """
    with _opened(path) as (parquet, footer):
        metadata, sizes = metadata_of(path, footer.metadata.metadata), footer.sizes
        if sizes == groups.sizes:
            return _read_groups(path, parquet, groups, columns), metadata
        if sum(sizes) != sum(groups.sizes):
            raise StoreError(f"{path} has {sum(sizes):,} rows, the file it was made from {sum(groups.sizes):,}: {MAKE_AGAIN}")
        ends = np.cumsum((0, *groups.sizes))
        rows = [np.arange(ends[k], ends[k + 1]) for k in groups.chosen]
        whole = _read_groups(path, parquet, RowGroups(tuple(range(len(sizes))), sizes), columns)
        return whole.take(pa.array(np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64))), metadata


@contextlib.contextmanager
def _opened(path: UPath) -> Iterator[tuple[pq.ParquetFile, Footer]]:
    try:
        with path.open("rb") as file:
            footer = footer_of(path, file)
            yield pq.ParquetFile(file, metadata=footer.metadata), footer
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist yet: materialise the asset that writes it first") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot read {path}: {error_words(error)}; if the file is damaged, {MAKE_AGAIN}") from None


def _read_groups(path: UPath, parquet: pq.ParquetFile, groups: RowGroups, columns: list[str]) -> pa.Table:
    if missing := [name for name in columns if name not in parquet.schema_arrow.names]:
        raise StoreError(f"{path} has no {', '.join(missing)}: another version wrote it; materialise the asset that writes it again")
    return parquet.read_row_groups(list(groups.chosen), columns=columns)
