"""Questions over all cell statistics on disk, answered by DuckDB in memory: which cells have the most of something."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
from upath import UPath

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HeldMetadata
from coverage_pipeline.matchup.metadata import UnheldMetadata
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.metadata import AvailableMetadata
from coverage_pipeline.scenes.schema import ScanStatus
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.paths import is_local
from coverage_pipeline.storage.store import StatsLayer, Store
from coverage_pipeline.storage.tables import read_metadata, read_parquet

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


_NOTES = b"notes"
"""Key of the table's metadata: what is not known of the partitions that were asked for, as a JSON list of sentences."""
_LAYER_WORDS: dict[StatsLayer, str] = {
    "available": "what exists",
    "held": "what is held",
    "unheld": "what exists and is not held",
}


_KINDS: dict[StatsLayer, type[AvailableMetadata] | type[HeldMetadata] | type[UnheldMetadata]] = {
    "available": AvailableMetadata,
    "held": HeldMetadata,
    "unheld": UnheldMetadata,
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
    (int64, the partitions in which the cell has a row). Partitions that are not materialised, or of which the layer is not known
    (holdings that could not be reached, no public catalogue), are left out; ``notes`` names them.

    Raises ``TopCellsError`` for an unknown ``by``, or where no partition is materialised, none is known, or one was made on another grid.
    """
    if by not in _SUMS:
        raise TopCellsError(f"top cells by {by!r}: choose one of {', '.join(get_args(TopBy))}")
    paths: list[UPath] = []
    unknown: list[str] = []
    missing: list[str] = []
    doubtful: list[str] = []
    for sensor in sensors:
        for month in months:
            path = store.stats(layer, sensor, month)
            try:
                stored = read_metadata(path)
            except StoreError:
                if path.exists():
                    raise
                missing.append(f"{sensor} {month}")
                continue
            metadata = _KINDS[layer].of(stored)
            if metadata.grid != grid.describe():
                raise TopCellsError(f"{path} was made on another grid than {grid.in_words()}, or by an older version: materialise it again")
            if reason := _not_known(metadata):
                unknown.append(f"{sensor} {month}: {reason}")
                continue
            if _scan_status(metadata) in ("provisional", "partial"):
                doubtful.append(f"{sensor} {month}")
            paths.append(path)
    if not paths and unknown:
        raise TopCellsError(f"{_LAYER_WORDS[layer]} is not known: {_listed(unknown, '; ')}")
    if not paths:
        window = f"{months[0]}..{months[-1]}" if months else "no month"
        raise TopCellsError(f"no {layer} statistics of {', '.join(sensors)} in {window} at {store.root}: materialise them first")
    for path in paths:
        read_parquet(path, ["cell", _COLUMNS[by]], filters=pads.field("cell") < 0)  # nulls in place of a column would be summed as nothing
    filesystem: Any = None if is_local(paths[0]) else paths[0].fs
    cells = pads.dataset([path.path for path in paths], format="parquet", filesystem=filesystem)
    totals = db.from_arrow(cells).aggregate(f"cell, {_SUMS[by]}::BIGINT AS value, count(*)::BIGINT AS partitions", "cell")
    top = totals.order("value DESC, cell").limit(limit).to_arrow_table()
    cell = top["cell"].to_numpy()
    lats, lons = grid.centres_of(cell)
    place = {"lat": lats, "lon": lons}
    if grid.h3_res is not None:
        place |= {"cell_id": grid.cell_ids[cell]}
    table = pa.table({**place, "value": top["value"], "partitions": top["partitions"]})
    notes = []
    if unknown:
        notes.append(f"{_LAYER_WORDS[layer]} is not known, and not counted here: {_listed(unknown, '; ')}")
    if missing:
        notes.append(f"not materialised, and not counted here: {_listed(missing)}")
    if doubtful:
        notes.append(f"the scan is provisional or partial, so a cell that is not listed may have some: {_listed(doubtful)}")
    if not table.num_rows:
        rest = "; more may be in what is not known" if notes else ""
        notes.insert(0, f"no cell has a scene in the {len(paths)} known {'partition' if len(paths) == 1 else 'partitions'}{rest}")
    return table.replace_schema_metadata({_NOTES: json.dumps(notes)})


def _scan_status(metadata: AvailableMetadata | HeldMetadata | UnheldMetadata) -> ScanStatus | None:
    """What is known of the catalogue; None of a layer that does not say."""
    match metadata:
        case AvailableMetadata():
            return metadata.status
        case UnheldMetadata():
            return metadata.scan_status
        case _:
            return None


def _not_known(metadata: AvailableMetadata | HeldMetadata | UnheldMetadata) -> str | None:
    """Why a partition says nothing of its layer; None where it does."""
    held = (
        metadata.status
        if isinstance(metadata, HeldMetadata)
        else metadata.holdings_status
        if isinstance(metadata, UnheldMetadata)
        else None
    )
    if held in ("off", "not_read"):
        return "the holdings could not be reached" if held == "off" else "the holdings have not been read"
    scan = _scan_status(metadata)
    if scan == "not_applicable":
        return "no public catalogue, or none in that month"
    return "the catalogue has not been scanned" if scan == "not_scanned" else None


def _listed(names: Sequence[str], between: str = ", ", most: int = 12) -> str:
    more = f"{between}and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def notes(table: pa.Table) -> list[str]:
    """What the answer of ``top_cells`` does not know, one sentence each; the first says so where no cell has a scene."""
    kept = (table.schema.metadata or {}).get(_NOTES)
    return [str(note) for note in json.loads(kept)] if kept else []
