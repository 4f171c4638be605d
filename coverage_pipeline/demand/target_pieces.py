"""What can cover a target: listed scenes, holdings, and the missing parts of scenes held in part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coverage_pipeline.demand import target_days as kinds
from coverage_pipeline.demand.target_days import Pieces
from coverage_pipeline.geometry.wkb import wkb_bounds
from coverage_pipeline.matchup.held_cells import held_scenes
from coverage_pipeline.scenes.schema import TIME
from coverage_pipeline.scenes.statistics import is_clear
from coverage_pipeline.sensors.registry import CoverageSensor

_PIECE = pa.schema([pa.field("geometry", pa.binary()), pa.field("pass_time", TIME)])


def pieces_of(scenes: pa.Table, matchup: pa.Table, holdings: pa.Table, sensor: CoverageSensor, cloud_lt: float) -> Pieces:
    """All that can cover a target in a month of a sensor: the rows of ``scenes`` in their order, the holdings, then missing parts.

    ``scenes`` has the columns pass_time, in_month, cloud_cover and geometry, ``matchup`` (row by row the same scenes) holdings, share, held
    and missing; ``holdings`` is the extract. ``cloud_lt`` is in percent.
    """
    tables: list[tuple[pa.Table, NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]] = []

    def add(
        table: pa.Table,
        cloud: str,
        scene: NDArray[np.int64],
        always: int,
        if_clear: int | NDArray[np.integer[Any]],
        if_unknown: int,
        counts: Any = True,
    ) -> None:
        percent = table[cloud].to_numpy(zero_copy_only=False).astype(np.float64)
        clear = is_clear(percent, cloud_lt, sensor.cloud)
        bits = always | np.where(clear, if_clear, 0) | np.where(np.isnan(percent) & ~clear, if_unknown, 0)
        tables.append((table.select(_PIECE.names).cast(_PIECE), np.where(counts, bits, 0).astype(np.uint8), _bounds(table), scene))

    clear_anywhere = int(kinds.CLEAR_ANYWHERE | kinds.MAYBE_CLEAR)
    unclear = int(kinds.UNKNOWN_CLOUD | kinds.MAYBE_CLEAR)
    held_maybe = int(kinds.HELD_MAYBE_CLEAR)
    in_month = scenes["in_month"].to_numpy(zero_copy_only=False).astype(bool)
    in_part = matchup["missing"].is_valid().to_numpy()
    # A scene that is not held at all counts with its own outline, one held in part with what is missing.
    lacking = (matchup["held"].to_numpy(zero_copy_only=False) == np.False_) & ~in_part
    if_clear = int(kinds.CLEAR) | np.where(lacking, clear_anywhere, 0)
    add(scenes, "cloud_cover", np.arange(scenes.num_rows), int(kinds.AVAILABLE), if_clear, unclear, in_month)
    if holdings.num_rows:
        held = held_scenes(holdings, scenes, matchup)
        of_none = np.full(held.num_rows, -1, np.int64)
        add(held, "cloud", of_none, int(kinds.HELD), int(kinds.HELD_CLEAR) | clear_anywhere | held_maybe, unclear | held_maybe)
    rows = np.flatnonzero(in_month & in_part)
    if len(rows):
        missing = scenes.select(["pass_time", "cloud_cover"]).take(rows).append_column("geometry", matchup["missing"].take(rows))
        add(missing, "cloud_cover", rows, 0, clear_anywhere, 0)
    together = pa.concat_tables([table for table, *_ in tables])
    bits, bounds, scene = (np.concatenate([part[k] for part in tables]) for k in (1, 2, 3))
    bounds[bits == 0] = np.nan  # of neighbouring months
    day = pc.day(together["pass_time"]).to_numpy().astype(np.uint8)
    return Pieces(bounds, together["geometry"], day, bits, scene)


def _bounds(table: pa.Table) -> NDArray[np.float64]:
    """West, south, east, north of each row, from the ``bbox`` column that a GeoParquet file has, else from the outlines."""
    if "bbox" not in table.column_names:
        return wkb_bounds(table["geometry"])
    corners = [pc.struct_field(table["bbox"], name).to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")]
    return np.column_stack(corners)
