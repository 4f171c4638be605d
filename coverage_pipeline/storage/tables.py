"""Tables as Parquet files with metadata: scenes, holdings, and cell statistics."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from coverage_pipeline.redaction import error_words
from coverage_pipeline.storage.errors import MAKE_AGAIN, StoreError
from coverage_pipeline.storage.files import whole_file, write_bytes
from coverage_pipeline.storage.metadata import METADATA_KEY, CellsMetadata, FileMetadata, StoredMetadata, metadata_of


def write_parquet(path: UPath, table: pa.Table, metadata: FileMetadata | Mapping[str, Any] | None = None) -> None:
    """Write a table as Parquet (zstd), with ``metadata`` as JSON under ``METADATA_KEY``."""
    write_bytes(path, parquet_bytes(table, metadata))


def parquet_bytes(table: pa.Table, metadata: FileMetadata | Mapping[str, Any] | None = None) -> bytes:
    """A table as the bytes of a Parquet file (zstd), with ``metadata`` as JSON under ``METADATA_KEY``."""
    if metadata is not None:
        kept = dict(table.schema.metadata or {})
        table = table.replace_schema_metadata(
            {**kept, METADATA_KEY: json.dumps(metadata.as_json() if isinstance(metadata, FileMetadata) else dict(metadata)).encode()}
        )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
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
