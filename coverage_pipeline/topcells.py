"""Questions over all cell statistics on disk, answered by DuckDB in memory: which cells have the most of something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
from upath import UPath

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.store import StatsLayer, Store, StoreError, is_local, read_metadata, read_parquet

TopBy = Literal["scenes", "clear", "unknown", "observations", "clear_observations"]

# Constant text alone goes into the SQL: what a caller says chooses among these.
_SUMS: dict[TopBy, str] = {
    "scenes": "sum(scenes)",
    "clear": "sum(clear)",
    "unknown": "sum(unknown)",
    "observations": "sum(bit_count(days))",
    "clear_observations": "sum(bit_count(clear_days))",
}
# What each is the sum of.
_COLUMNS: dict[TopBy, str] = {
    "scenes": "scenes",
    "clear": "clear",
    "unknown": "unknown",
    "observations": "days",
    "clear_observations": "clear_days",
}


class TopCellsError(PlannerError):
    """The question cannot be asked, or there is nothing to ask it of."""


def top_cells(
    db: duckdb.DuckDBPyConnection,
    store: Store,
    layer: StatsLayer,
    by: TopBy,
    sensors: Sequence[str],
    months: Sequence[Month],
    grid: GridSpec,
    *,
    limit: int = 20,
) -> pa.Table:
    """The cells with the most ``by`` over the sensors and months, the most first; ties by cell.

    Columns: ``lat``, ``lon`` (of the centre, degrees), for H3 cells ``cell_id`` (uint64), and then ``value`` (int64) and ``partitions``
    (int64, the partitions in which the cell has a row). Partitions that are not materialised are left out.

    Raises ``TopCellsError`` for an unknown ``by``, or where no partition is materialised or one was made on another grid.
    """
    if by not in _SUMS:
        raise TopCellsError(f"top cells by {by!r}: choose one of {', '.join(get_args(TopBy))}")
    found: list[UPath] = []
    for sensor in sensors:
        for month in months:
            path = store.stats(layer, sensor, month)
            try:
                metadata = read_metadata(path)
            except StoreError:
                if path.exists():
                    raise
                continue
            if metadata.get("grid") != grid.describe():
                raise TopCellsError(f"{path} was made on another grid than {grid.in_words()}, or by an older version: materialise it again")
            found.append(path)
    if not found:
        window = f"{months[0]}..{months[-1]}" if months else "no month"
        raise TopCellsError(f"no {layer} statistics of {', '.join(sensors)} in {window} at {store.root}: materialise them first")
    for path in found:
        read_parquet(path, ["cell", _COLUMNS[by]], filters=pads.field("cell") < 0)  # nulls in place of a column would be summed as nothing
    filesystem: Any = None if is_local(found[0]) else found[0].fs
    cells = pads.dataset([path.path for path in found], format="parquet", filesystem=filesystem)
    asked = db.from_arrow(cells).aggregate(f"cell, {_SUMS[by]}::BIGINT AS value, count(*)::BIGINT AS partitions", "cell")
    top = asked.order("value DESC, cell").limit(limit).to_arrow_table()
    cell = top["cell"].to_numpy()
    lats, lons = grid.centres_of(cell)
    place = {"lat": lats, "lon": lons}
    if grid.h3_res is not None:
        place |= {"cell_id": grid.cell_ids[cell]}
    return pa.table({**place, "value": top["value"], "partitions": top["partitions"]})


def as_markdown(table: pa.Table) -> str:
    """The table as Markdown."""
    lines = [f"| {' | '.join(table.column_names)} |", f"|{'---|' * table.num_columns}"]
    lines += [
        f"| {' | '.join(f'{value:g}' if isinstance(value, float) else str(value) for value in row.values())} |" for row in table.to_pylist()
    ]
    return "\n".join(lines)
