"""Held scenes as cells: how many, how many clear, on which days, and when each cell was last held."""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections.abc import Iterator
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import xarray as xr
from numpy.typing import NDArray

from coverage_pipeline.geometry.wkb import ragged_from_wkb
from coverage_pipeline.grid.bands import Engine, row_strips
from coverage_pipeline.grid.celltable import CELL_SCHEMA, COUNT, DAYS, AreaKnown, cell_table, dense
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import latest_in_bands, statistics_in_bands
from coverage_pipeline.holdings.rows import (
    LAST_SCHEMA,
    judge_rejected,
    place_rows,
    same_rows,
)
from coverage_pipeline.holdings.united import united_by_key
from coverage_pipeline.months import Month, window_months
from coverage_pipeline.scenes.schema import TIME
from coverage_pipeline.scenes.statistics import fields_dataset, is_clear
from coverage_pipeline.sensors.registry import CloudMeaning

log = logging.getLogger(__name__)

HELD_SCHEMA = CELL_SCHEMA.append(pa.field("last_held", pa.float64(), nullable=False))
"""Cell statistics of the held scenes, with the last instant held (seconds since 1970, NaN: none within the lookback)."""
HELD_VARIABLES = {
    "held_count": ("scenes", COUNT),
    "held_clear_count": ("clear", COUNT),
    "held_days": ("days", DAYS),
    "held_clear_days": ("clear_days", DAYS),
}
"""Acquired variables of the cube: the column of ``HELD_SCHEMA`` that each is made of, and its kind."""


def held_tables(
    held: pa.Table,
    last: pa.Table,
    grid: GridSpec,
    *,
    cloud_lt: float,
    cloud: CloudMeaning = "percentage",
    engine: Engine | None = None,
) -> Iterator[pa.Table]:
    """One row a cell (``HELD_SCHEMA``) that a held scene covers, or that was held within the lookback; piece by piece, ascending.

    ``held`` has ``HELD_SCENES_SCHEMA``, ``last`` ``LAST_SCHEMA``. ``last_held`` is the later of ``last`` and the month's own held scenes.
    """
    percent = held["cloud"].to_numpy(zero_copy_only=False).astype(np.float64)
    footprints = ragged_from_wkb(held["geometry"])
    day, clear = pc.day(held["pass_time"]).to_numpy().astype(np.uint8), is_clear(percent, cloud_lt, cloud)
    latest_of = pa.concat_tables([last.select(LAST_SCHEMA.names), _later_than(held, last)])
    last_footprints = ragged_from_wkb(latest_of["geometry"])
    seconds = latest_of["datetime"].cast(pa.int64()).to_numpy().astype(np.float64) / 1e6
    for rows in row_strips(grid, engine):
        bands = statistics_in_bands(*footprints, day=day, cloud=percent, clear=clear, grid=grid, rows=rows, engine=engine)
        stats = pa.concat_tables([CELL_SCHEMA.empty_table(), *(cell_table(band) for band in bands)])
        found = list(latest_in_bands(*last_footprints, value=seconds, grid=grid, rows=rows, engine=engine))
        seen = np.concatenate([np.empty(0, np.int64), *(cells for cells, _ in found)])
        latest = np.concatenate([np.empty(0), *(values for _, values in found)])
        held_cells = stats["cell"].to_numpy()
        first, strip = _strip_of(rows, grid)
        strip[held_cells - first] = True  # a union by marking: both are within the strip, and sorting or hashing millions takes seconds
        strip[seen - first] = True
        place = np.cumsum(strip) - 1
        cells = np.flatnonzero(strip) + first
        at = place[held_cells - first]
        last_held = np.full(len(cells), np.nan)
        last_held[place[seen - first]] = latest
        columns: dict[str, NDArray[Any]] = {"cell": cells, "last_held": last_held}
        for name in CELL_SCHEMA.names[1:]:
            values = stats[name].to_numpy()
            column = np.full(len(cells), np.nan if values.dtype.kind == "f" else 0, values.dtype)
            column[at] = values
            columns[name] = column
        yield pa.table({f.name: columns[f.name] for f in HELD_SCHEMA}, schema=HELD_SCHEMA)


def _later_than(held: pa.Table, last: pa.Table) -> pa.Table:
    """The held scenes that ``last`` does not have, or with an earlier time, as ``LAST_SCHEMA``."""
    own = pa.table({"datetime": held["pass_time"], "geometry": held["geometry"]}, schema=LAST_SCHEMA)
    if not own.num_rows or not last.num_rows:
        return own
    place = pc.index_in(own["geometry"], value_set=last["geometry"].combine_chunks())
    return own.filter(pc.fill_null(pc.less(last["datetime"].take(place), own["datetime"]), True))


def _strip_of(rows: tuple[int, int] | None, grid: GridSpec) -> tuple[int, NDArray[np.bool_]]:
    """The first cell of a strip of rows, and a mask of its cells."""
    if rows is None:
        return 0, np.zeros(math.prod(grid.shape), bool)
    return rows[0] * grid.shape[1], np.zeros((rows[1] - rows[0]) * grid.shape[1], bool)


def holdings_fields(
    table: pa.Table,
    grid: GridSpec,
    status: str,
    month: Month,
    lookback_months: int,
    rows: tuple[int, int] | None = None,
    *,
    last_known: bool = True,
) -> dict[str, NDArray[Any]]:
    """The cube's Acquired variables of one partition, each a field of the grid or of its ``rows`` (see ``celltable.dense``).

    All are fill unless the holdings were read. Without ``last_known`` a cell that the month does not hold has no ``days_since_last_held``.
    """
    known = AreaKnown(everywhere=status == "read")
    fields = {variable: dense(table, column, grid, kind, known, rows) for variable, (column, kind) in HELD_VARIABLES.items()}
    since = np.full(fields["held_count"].shape, np.nan, np.float32)
    if status == "read":
        # Nothing found within the lookback: at least that long ago (right-censored), which is not "not known".
        lookback = (month.end - month.shift(1 - lookback_months).start).total_seconds() / 86_400
        since[...] = lookback if last_known else np.nan
        seconds = table["last_held"].to_numpy()
        seen = ~np.isnan(seconds)
        days = np.float32((month.end.timestamp() - seconds[seen]) / 86_400)
        first = 0 if rows is None else rows[0] * grid.shape[1]
        since.reshape(-1)[table["cell"].to_numpy()[seen] - first] = days
    fields["days_since_last_held"] = since
    return fields


def holdings_stats(
    holdings: gpd.GeoDataFrame, start: str | dt.date, end: str | dt.date, grid: GridSpec, *, cloud_lt: float = 10.0
) -> xr.Dataset:
    """Holdings as ``fetch_holdings`` gives them, as a Dataset with held_count, held_clear_count and their day masks.

    Plain gridding, without a catalogue: every holding counts with its own footprint, day and cloud. Dims (time, lat, lon), one time a
    month of the window. Raises ``HoldingsRefused`` where too many rows cannot be placed.
    """
    lonlat = holdings if holdings.crs is None else holdings.to_crs("EPSG:4326")
    shapes = lonlat.geometry
    frame = pd.DataFrame(lonlat.drop(columns=shapes.name)).assign(geometry=shapes.to_wkb())
    for name in ("cloud", "scene_id"):
        if name not in frame:
            frame[name] = None
    placed = place_rows(frame, None)
    if warning := judge_rejected(placed.reasons, len(frame), "rows of the holdings"):
        log.warning("%s", warning)
    table = placed.table
    table = table.filter(pa.array(same_rows(table) == np.arange(table.num_rows)))
    when = table["pass_time"]
    months = []
    for month in window_months(start, end):
        inside = pc.and_(pc.greater_equal(when, pa.scalar(month.start, TIME)), pc.less(when, pa.scalar(month.end, TIME)))
        rows = united_by_key(table.filter(inside))
        cells = pa.concat_tables(held_tables(rows, LAST_SCHEMA.empty_table(), grid, cloud_lt=cloud_lt))
        known = AreaKnown(everywhere=True)
        fields = {variable: dense(cells, column, grid, kind, known) for variable, (column, kind) in HELD_VARIABLES.items()}
        months.append(fields_dataset(fields, ["held"], [month], grid))
    return xr.concat(months, dim="time").isel(sensor=0, drop=True)
