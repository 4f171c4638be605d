"""Rows of a GeoParquet dump as STAC items, each row apart: a row that cannot be read is rejected, and the others stay.

The libraries lost on files with one bad row among good ones: rustac 0.9 reads a missing geometry as an empty polygon and fails the whole
file for one broken WKB; stac-geoparquet 0.8 fails the whole file for either. On the recorded dumps rustac read
the same times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coverage_pipeline.geometry.bbox import flat_bbox
from coverage_pipeline.scenes.item_fields import self_href

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_CORNERS_3D = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")


@dataclass(frozen=True)
class Layout:
    """Which columns of one file are read, as Parquet names them."""

    chosen_by: list[str]
    """Columns that show whether a row belongs to the collection and the window."""
    all: list[str]
    properties: list[str]
    """Top-level columns that are properties."""


class Rows:
    """Rows of one batch: its columns as plain arrays, wherever the file has them."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = pa.RecordBatch.from_arrays([plain_values(column) for column in batch.columns], names=batch.schema.names)
        self._nested: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def top(self, name: str) -> pa.Array | None:
        """A column, without extension type and dictionary; None where the file has none."""
        return self.batch.column(name) if name in self.batch.schema.names else None

    @property
    def nested(self) -> list[dict[str, Any]] | None:
        """What a column ``properties`` holds, where there is one: some writers do not spread it."""
        column = self.top("properties")
        if self._nested is None and column is not None:
            if pa.types.is_struct(column.type):
                names = [f.name for f in column.type]
                spread = dicts(names, [column_values(pc.struct_field(column, name)) for name in names], len(self))
                self._nested = [{k: v for k, v in row.items() if v is not None} for row in spread]
            else:
                self._nested = [_json_object(text) for text in column.to_pylist()]
        return self._nested

    def times(self, name: str) -> NDArray[np.datetime64]:
        """Instants (n,), UTC, microseconds; NaT where there is none or it cannot be read."""
        instants = np.full(len(self), np.datetime64("NaT", "us"))
        column = self.top(name)
        if column is not None:
            instants = _instants(column)
        if self.nested is not None:
            texts = [value if isinstance(value := row.get(name), str) else None for row in self.nested]
            instants = np.where(np.isnat(instants), _instants(pa.array(texts, pa.string())), instants)
        return instants


def plain_values(column: pa.Array) -> pa.Array:
    """The column as a type that all of Arrow's functions take."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    plain = _plain_type(column.type)
    return column if plain == column.type else column.cast(plain)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type with plain texts and binaries for views of such, and for dictionaries, at any depth."""
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_plain_type(f.type)) for f in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        within = kind.value_field.with_type(_plain_type(kind.value_type))
        return pa.list_(within) if pa.types.is_list(kind) else pa.large_list(within)
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def link_columns(kind: pa.DataType | None, metadata: pq.FileMetaData) -> list[str]:
    """What of ``links`` is read: address and relation of each; a text, in which some keep them, as a whole."""
    if kind is None:
        return []
    if is_text(kind):
        return ["links"]
    schema = metadata.schema
    paths = [schema.column(k).path for k in range(metadata.num_columns)]
    return [path for path in paths if path.startswith("links.") and path.rpartition(".")[2] in ("href", "rel")]


def _in_microseconds(column: pa.Array) -> pa.Array:
    """A column of timestamps as ``timestamp[us]`` without zone, in UTC; one without zone is UTC already, as STAC has it."""
    whole = column.cast(pa.timestamp("us", tz=column.type.tz), safe=column.type.unit != "ns")
    return whole.cast(pa.int64()).cast(pa.timestamp("us"))


def _instants(column: pa.Array) -> NDArray[np.datetime64]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        found = _in_microseconds(column).to_numpy(zero_copy_only=False)
    elif pa.types.is_date(kind):
        found = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    elif is_text(kind):
        texts = pc.utf8_upper(pc.utf8_trim_whitespace(column)).to_pylist()
        read = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", utc=True, errors="coerce")
        found = read.dt.tz_localize(None).to_numpy()
    else:
        found = np.full(len(column), np.datetime64("NaT", "us"))
    instants: NDArray[np.datetime64] = found.astype("datetime64[us]")
    return instants


def column_values(column: pa.Array) -> list[Any]:
    """A column as JSON would have it: times as RFC 3339 text in UTC."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = pc.strftime(_in_microseconds(column), format="%Y-%m-%dT%H:%M:%SZ")
    elif pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    values: list[Any] = column.to_pylist()
    return values


def dicts(names: Sequence[str], columns: Sequence[Sequence[Any]], rows: int) -> list[dict[str, Any]]:
    if not names:
        return [{} for _ in range(rows)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _json_object(text: str | None) -> dict[str, Any]:
    """Raises ``ValueError`` for a text that is not JSON."""
    properties = orjson.loads(text) if text is not None else {}
    return properties if isinstance(properties, dict) else {}


def row_boxes(rows: Rows) -> list[list[float] | None]:
    """The bbox of each row as STAC has it, 4 or 6 numbers; None where there is none."""
    column = rows.top("bbox")
    if column is None or not (pa.types.is_struct(column.type) or pa.types.is_nested(column.type)):
        return [None] * len(rows)
    if not pa.types.is_struct(column.type):
        return [box if box is not None and None not in box else None for box in column.to_pylist()]
    has = {f.name for f in column.type}
    boxes: list[list[float] | None] = [None] * len(rows)
    for corners in (_CORNERS, _CORNERS_3D):  # the second where it is whole
        if has.issuperset(corners):
            sides = zip(*(pc.struct_field(column, name).to_pylist() for name in corners), strict=True)
            boxes = [list(box) if None not in box else former for box, former in zip(sides, boxes, strict=True)]
    return boxes


def row_bounds(rows: Rows) -> NDArray[np.float64]:
    """West, south, east, north (n, 4) of each row's bbox; NaN where there is none."""
    boxes = np.full((len(rows), 4), np.nan)
    column = rows.top("bbox")
    if column is None:
        return boxes
    if pa.types.is_struct(column.type):
        if {f.name for f in column.type}.issuperset(_CORNERS):
            for k, name in enumerate(_CORNERS):
                boxes[:, k] = pc.struct_field(column, name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return boxes
    for k, box in enumerate(row_boxes(rows)):
        if box is not None and len(box) in (4, 6):
            boxes[k] = flat_bbox(box)
    return boxes


def self_links(rows: Rows) -> list[str | None]:
    """The address that each row gives of its item; None where it gives none."""
    texts: list[str | None] = [None] * len(rows)
    links = rows.top("links")
    if links is None:
        return texts
    if is_text(links.type):
        return [self_href(orjson.loads(text)) if text is not None else None for text in links.to_pylist()]
    if not pa.types.is_list(links.type) and not pa.types.is_large_list(links.type):
        return texts
    each = pc.list_flatten(links)
    if not pa.types.is_struct(each.type) or not {f.name for f in each.type}.issuperset(("href", "rel")):
        return texts
    rel, href = (pc.struct_field(each, name) for name in ("rel", "href"))
    own = pc.and_(pc.fill_null(pc.equal(rel, "self"), False), pc.is_valid(href))
    owners = pc.list_parent_indices(links).filter(own).to_pylist()
    for owner, address in zip(reversed(owners), reversed(href.filter(own).to_pylist()), strict=True):
        texts[owner] = address  # of several the first
    return texts
