"""Cell statistics at rest: a sparse table of covered cells, and how it becomes a dense field of the cube again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import CellStatistics


@dataclass(frozen=True)
class FieldType:
    """How one kind of value lies in a dense field."""

    dtype: str
    fill: float | int
    """The value that means *not known*."""


COUNT = FieldType("int16", -1)
NUMBER = FieldType("float32", float("nan"))
DAYS = FieldType("uint32", int(UNKNOWN))
"""A day mask: bit d-1 stands for day d of the month; bit 31 alone means not known."""

CELL_SCHEMA = pa.schema(
    [
        pa.field("cell", pa.int64(), nullable=False),  # lat_idx * n_lon + lon_idx, or the place among cell_ids; ascending
        pa.field("scenes", pa.int32(), nullable=False),
        pa.field("clear", pa.int32(), nullable=False),
        pa.field("unknown", pa.int32(), nullable=False),
        pa.field("cloud_mean", pa.float32(), nullable=False),  # percent, NaN where no scene's cloud is known
        pa.field("days", pa.uint32(), nullable=False),
        pa.field("clear_days", pa.uint32(), nullable=False),
        pa.field("unknown_days", pa.uint32(), nullable=False),
    ]
)


def cell_table(statistics: CellStatistics) -> pa.Table:
    """The statistics as a table of ``CELL_SCHEMA``, one row a covered cell."""
    return pa.table({f.name: getattr(statistics, f.name) for f in CELL_SCHEMA}, schema=CELL_SCHEMA)


def cell_coords(grid: GridSpec) -> dict[str, Any]:
    """Coordinates of a field's dimensions: ``lat`` and ``lon``, or ``cell_ids`` with what names their grid (as xdggs reads it)."""
    if grid.h3_res is None:
        return {"lat": grid.lats, "lon": grid.lons}
    return {"cell_ids": ("cells", grid.cell_ids, {"grid_name": "h3", "level": grid.h3_res})}


@dataclass(frozen=True)
class AreaKnown:
    """Where the absence of a row means zero."""

    everywhere: bool
    mask: NDArray[np.bool_] | None = None
    """A field, the cells that lie in the area asked for; None: all do, or none."""
    found_counts: bool = False
    """Whether only rows count, and absence never does (a partial scan)."""


def dense(
    table: pa.Table, column: str, grid: GridSpec, kind: FieldType, known: AreaKnown, rows: tuple[int, int] | None = None
) -> NDArray[Any]:
    """A column of a cell table as a field of the grid: ``kind.fill`` where not known, 0 where nothing covers the cell.

    A mean over no scenes is not 0: fields of ``NUMBER`` keep their fill there. ``rows`` is the first and the end row of the field that
    is wanted, and ``table`` holds no others; None: all rows. Returns an array of ``kind.dtype`` and ``grid.shape`` (or of its rows).

    Raises ``OverflowError`` where a count does not fit ``kind.dtype``.
    """
    dtype = np.dtype(kind.dtype)
    fill = dtype.type(kind.fill)
    zero = fill if dtype.kind == "f" else dtype.type(0)
    shape = grid.shape if rows is None else (rows[1] - rows[0], *grid.shape[1:])
    mask = known.mask if known.mask is None or rows is None else known.mask[slice(*rows)]
    out = np.full(shape, zero if known.everywhere else fill, dtype)
    if mask is not None and not known.found_counts:
        out[mask] = zero
    cell = table["cell"].to_numpy()
    if rows is not None:
        cell = cell - rows[0] * grid.shape[1]
    values = table[column].to_numpy()
    if mask is not None:
        inside = mask.reshape(-1)[cell]
        cell, values = cell[inside], values[inside]
    elif not (known.everywhere or known.found_counts):
        return out
    if dtype.kind == "i" and values.size and int(values.max()) > np.iinfo(dtype).max:
        raise OverflowError(f"{column}: {int(values.max())} scenes in one cell do not fit {dtype}; use a finer grid")
    out.reshape(-1)[cell] = values
    return out
