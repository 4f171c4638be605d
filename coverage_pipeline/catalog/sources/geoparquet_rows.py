"""Convert rows of a GeoParquet dump to STAC items one by one, so that an unreadable row is rejected alone.

Libraries fail on a file with one bad row: rustac 0.9 reads a missing geometry as an empty polygon, and rejects the whole file for one
broken WKB; stac-geoparquet 0.8 rejects the whole file for either. On the recorded dumps rustac read the same times as this module.
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
    """Columns to read from one file, by Parquet name."""

    chosen_by: list[str]
    """Columns that decide whether a row belongs to the collection, window and area."""
    all: list[str]
    """All columns to read."""
    properties: list[str]
    """Top-level columns that are properties."""


class Rows:
    """Rows of one batch, with columns as plain arrays."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = pa.RecordBatch.from_arrays([plain_values(column) for column in batch.columns], names=batch.schema.names)
        self._nested: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def top(self, name: str) -> pa.Array | None:
        """A top-level column without extension type and dictionary; None if the file lacks it."""
        return self.batch.column(name) if name in self.batch.schema.names else None

    @property
    def nested(self) -> list[dict[str, Any]] | None:
        """Values of the column ``properties`` (some writers do not flatten it); None if the file lacks it."""
        column = self.top("properties")
        if self._nested is None and column is not None:
            if pa.types.is_struct(column.type):
                names = [f.name for f in column.type]
                records = dicts(names, [column_values(pc.struct_field(column, name)) for name in names], len(self))
                self._nested = [{k: v for k, v in row.items() if v is not None} for row in records]
            else:
                self._nested = [_json_object(text) for text in column.to_pylist()]
        return self._nested

    def times(self, name: str) -> NDArray[np.datetime64]:
        """UTC times (n,) in microseconds; NaT if missing or unreadable."""
        instants = np.full(len(self), np.datetime64("NaT", "us"))
        column = self.top(name)
        if column is not None:
            instants = _instants(column)
        if self.nested is not None:
            texts = [value if isinstance(value := row.get(name), str) else None for row in self.nested]
            instants = np.where(np.isnat(instants), _instants(pa.array(texts, pa.string())), instants)
        return instants


def plain_values(column: pa.Array) -> pa.Array:
    """The column in a type that all Arrow functions accept."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    plain = _plain_type(column.type)
    return column if plain == column.type else column.cast(plain)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type with views and dictionaries replaced by plain types, at any depth."""
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_plain_type(f.type)) for f in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        value_field = kind.value_field.with_type(_plain_type(kind.value_type))
        return pa.list_(value_field) if pa.types.is_list(kind) else pa.large_list(value_field)
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
    """Columns of ``links`` to read: href and rel of each link, or the whole column if it is JSON text."""
    if kind is None:
        return []
    if is_text(kind):
        return ["links"]
    schema = metadata.schema
    paths = [schema.column(k).path for k in range(metadata.num_columns)]
    return [path for path in paths if path.startswith("links.") and path.rpartition(".")[2] in ("href", "rel")]


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Timestamps as naive ``timestamp[us]`` in UTC; naive input is UTC already, as in STAC."""
    whole = column.cast(pa.timestamp("us", tz=column.type.tz), safe=column.type.unit != "ns")
    return whole.cast(pa.int64()).cast(pa.timestamp("us"))


def _instants(column: pa.Array) -> NDArray[np.datetime64]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        values = _in_microseconds(column).to_numpy(zero_copy_only=False)
    elif pa.types.is_date(kind):
        values = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    elif is_text(kind):
        texts = pc.utf8_upper(pc.utf8_trim_whitespace(column)).to_pylist()
        parsed = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", utc=True, errors="coerce")
        values = parsed.dt.tz_localize(None).to_numpy()
    else:
        values = np.full(len(column), np.datetime64("NaT", "us"))
    instants: NDArray[np.datetime64] = values.astype("datetime64[us]")
    return instants


def column_values(column: pa.Array) -> list[Any]:
    """Column values as in JSON, with times as RFC 3339 text in UTC."""
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
    """The object in a JSON text, empty for any other JSON; raises ``ValueError`` for invalid JSON."""
    value = orjson.loads(text) if text is not None else {}
    return value if isinstance(value, dict) else {}


def row_boxes(rows: Rows) -> list[list[float] | None]:
    """STAC bbox of each row, 4 or 6 numbers; None if missing."""
    column = rows.top("bbox")
    if column is None or not (pa.types.is_struct(column.type) or pa.types.is_nested(column.type)):
        return [None] * len(rows)
    if not pa.types.is_struct(column.type):
        return [box if box is not None and None not in box else None for box in column.to_pylist()]
    members = {f.name for f in column.type}
    boxes: list[list[float] | None] = [None] * len(rows)
    for corners in (_CORNERS, _CORNERS_3D):  # 3D corners replace 2D ones if complete
        if members.issuperset(corners):
            corner_values = zip(*(pc.struct_field(column, name).to_pylist() for name in corners), strict=True)
            boxes = [list(box) if None not in box else former for box, former in zip(corner_values, boxes, strict=True)]
    return boxes


def row_bounds(rows: Rows) -> NDArray[np.float64]:
    """Bounds (n, 4) of each row's bbox: west, south, east, north in degrees; NaN if missing."""
    bounds = np.full((len(rows), 4), np.nan)
    column = rows.top("bbox")
    if column is None:
        return bounds
    if pa.types.is_struct(column.type):
        if {f.name for f in column.type}.issuperset(_CORNERS):
            for k, name in enumerate(_CORNERS):
                bounds[:, k] = pc.struct_field(column, name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return bounds
    for k, box in enumerate(row_boxes(rows)):
        if box is not None and len(box) in (4, 6):
            bounds[k] = flat_bbox(box)
    return bounds


def self_links(rows: Rows) -> list[str | None]:
    """``self`` link of each row; None if missing."""
    hrefs: list[str | None] = [None] * len(rows)
    links = rows.top("links")
    if links is None:
        return hrefs
    if is_text(links.type):
        return [self_href(orjson.loads(text)) if text is not None else None for text in links.to_pylist()]
    if not pa.types.is_list(links.type) and not pa.types.is_large_list(links.type):
        return hrefs
    each = pc.list_flatten(links)
    if not pa.types.is_struct(each.type) or not {f.name for f in each.type}.issuperset(("href", "rel")):
        return hrefs
    rel, href = (pc.struct_field(each, name) for name in ("rel", "href"))
    is_self = pc.and_(pc.fill_null(pc.equal(rel, "self"), False), pc.is_valid(href))
    owners = pc.list_parent_indices(links).filter(is_self).to_pylist()
    for owner, address in zip(reversed(owners), reversed(href.filter(is_self).to_pylist()), strict=True):
        hrefs[owner] = address  # reversed order: the first of several links wins
    return hrefs
