"""Held scenes as cells: how many, how many clear, on which days, and when each cell was last held.

A holding that belongs to a scene of the catalogue counts as that scene: on its day, within its footprint, with its cloud where the holding
carries none. The others count with what they say of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.footprints import area_km2, normalise_footprints
from coverage_pipeline.geometry.polygons import added_areas, common, is_box, united
from coverage_pipeline.geometry.wkb import ragged_from_wkb
from coverage_pipeline.grid.bands import Engine, row_strips
from coverage_pipeline.grid.celltable import CELL_SCHEMA, COUNT, DAYS, AreaKnown, cell_table, dense
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import latest_in_bands, statistics_in_bands
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA, LAST_SCHEMA, same_rows
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import TIME
from coverage_pipeline.scenes.statistics import is_clear, read_scenes
from coverage_pipeline.sensors.registry import CloudMeaning, CoverageSensor
from coverage_pipeline.storage.store import Store, read_parquet, write_cells

HELD_SCHEMA = CELL_SCHEMA.append(pa.field("last_held", pa.float64(), nullable=False))
"""Cell statistics of the held scenes, with the last instant held (seconds since 1970, NaN: none within the lookback)."""

HELD_SCENES_SCHEMA = pa.schema(
    [
        pa.field("pass_time", TIME, nullable=False),
        pa.field("cloud", pa.float64()),  # percent; null: not known
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)
"""What is gridded: one row a held scene of the month."""

HELD_VARIABLES = {
    "held_count": ("scenes", COUNT),
    "held_clear_count": ("clear", COUNT),
    "held_days": ("days", DAYS),
    "held_clear_days": ("clear_days", DAYS),
}
"""Acquired variables of the cube: the column of ``HELD_SCHEMA`` that each is made of, and its kind."""


def united_by_key(holdings: pa.Table) -> pa.Table:
    """Holdings of one scene key, day and sensor (reprocessings, parts, crops of several sites) as one row, the others as they are.

    The result has ``HELD_SCENES_SCHEMA``. The footprint is the union; the cloud is the mean of the products', the newest first, weighted by
    the area that each adds, and not known if one's is not that adds area. An id that names no scene may stand for a site: each day of it is
    an observation of its own.
    """
    key = holdings["scene_key"].to_pandas()
    frame = pd.DataFrame(
        {"key": key, "day": pc.floor_temporal(holdings["pass_time"], unit="day").to_pandas(), "sensor": holdings["sensor"].to_pandas()}
    )
    codes = frame.groupby(["key", "day", "sensor"], sort=False, dropna=False).ngroup().to_numpy(np.int64)
    return _one_a_group(holdings, np.where(key.isna(), len(codes) + np.arange(len(codes)), codes))


def _one_a_group(holdings: pa.Table, group: NDArray[np.int64]) -> pa.Table:
    """One row a group of holdings, in the order of the groups' numbers."""
    if holdings.num_rows == 0:
        return HELD_SCENES_SCHEMA.empty_table()
    _, group = np.unique(group, return_inverse=True)
    newest = np.lexsort((_descending(holdings["scene_id"]), _descending(holdings["rank"]), group))
    holdings, group = holdings.take(pa.array(newest)), group[newest]
    groups = int(group.max()) + 1
    first = np.unique(group, return_index=True)[1]
    rows = holdings.take(pa.array(first)).select(HELD_SCENES_SCHEMA.names)
    if groups < len(group):
        several = np.flatnonzero(np.bincount(group, minlength=groups)[group] > 1)
        numbers, inner = np.unique(group[several], return_inverse=True)
        shapes = shapely.from_wkb(holdings["geometry"].to_numpy(zero_copy_only=False)[several])
        percent = holdings["cloud"].to_numpy(zero_copy_only=False).astype(np.float64)[several]
        geometry = rows["geometry"].to_numpy(zero_copy_only=False).copy()
        whole, _ = normalise_footprints(united(shapes, inner, len(numbers)))
        geometry[numbers] = shapely.to_wkb(whole)
        cloud = rows["cloud"].to_numpy(zero_copy_only=False).astype(np.float64).copy()
        cloud[numbers] = mean_by_area(shapes, percent, inner, len(numbers))
        rows = rows.set_column(1, HELD_SCENES_SCHEMA.field("cloud"), pa.array(cloud, pa.float64(), from_pandas=True))
        rows = rows.set_column(2, HELD_SCENES_SCHEMA.field("geometry"), pa.array(geometry, pa.binary()))
    return rows.cast(HELD_SCENES_SCHEMA)


def _descending(ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Numbers that sort as the ids do from the last to the first; those without an id last."""
    codes: NDArray[np.int64] = pd.Categorical(ids.to_pandas(), ordered=True).codes.astype(np.int64)
    return -codes


_REPROCESSED = 0.02
"""A product that adds less than this share of its own area adds nothing: reprocessing moves edges (design section 4, "Scene")."""


def mean_by_area(shapes: NDArray[np.object_], percent: NDArray[np.float64], group: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """The mean cloud of each group of products, weighted by the area that each adds to those before it; float64, one a group.

    NaN where the cloud of a product that adds area is not known. Areas are measured only where the clouds differ.
    """
    low, high = np.full(groups, np.inf), np.full(groups, -np.inf)
    np.fmin.at(low, group, percent)
    np.fmax.at(high, group, percent)
    known = np.isfinite(low)
    some_unknown = np.bincount(group, np.isnan(percent), groups) > 0
    mean = np.where(known & ~some_unknown, low, np.nan)
    differ = known & (some_unknown | (low != high))
    rows = np.flatnonzero(differ[group])
    if len(rows):
        numbers, inner = np.unique(group[rows], return_inverse=True)
        area = added_areas(shapes[rows], inner, len(numbers))
        weight = np.where(area < _REPROCESSED * area_km2(shapes[rows]), 0.0, area)
        counted = np.where(weight > 0, percent[rows] * weight, 0.0)
        with np.errstate(invalid="ignore"):
            means = np.bincount(inner, counted, len(numbers)) / np.bincount(inner, weight, len(numbers))
        # Rounding must not leave the products' range: 10 and 10 is not clear at a threshold of 10.
        mean[numbers] = np.clip(means, low[numbers], high[numbers])
    return np.asarray(mean)


def held_scenes(holdings: pa.Table, scenes: pa.Table, matchup: pa.Table) -> pa.Table:
    """The held scenes of a month (``HELD_SCENES_SCHEMA``).

    ``holdings`` is the extract (``HOLDINGS_SCHEMA``), ``scenes`` the scenes file's columns pass_time, in_month, cloud_cover and geometry,
    and ``matchup`` the matchup's columns ``holdings`` and ``share``, one row a row of ``scenes``.
    """
    owner = np.full(holdings.num_rows, -1, np.int64)
    named = pc.list_flatten(matchup["holdings"])
    owner[pc.index_in(named, value_set=holdings["holding"]).to_numpy()] = pc.list_parent_indices(matchup["holdings"]).to_numpy()
    first = same_rows(holdings)
    own = first == np.arange(holdings.num_rows)
    holdings = _with_cloud_of_repetitions(holdings, first)
    # A holding that lies outside its scene altogether holds nothing of it.
    counts = scenes["in_month"].to_numpy(zero_copy_only=False).astype(bool) & (pc.fill_null(matchup["share"], 0.0).to_numpy() > 0)
    matched = np.flatnonzero(own & (owner >= 0))
    matched = matched[counts[owner[matched]]]
    # A repeated row is its first row's holding, which has the scene.
    unlisted = np.flatnonzero(own & (owner < 0) & holdings["in_month"].to_numpy(zero_copy_only=False) & ~_has_owner(first, owner))
    return pa.concat_tables([_as_scenes(holdings, scenes, matched, owner[matched]), united_by_key(holdings.take(pa.array(unlisted)))])


def _with_cloud_of_repetitions(holdings: pa.Table, first: NDArray[np.int64]) -> pa.Table:
    """The holdings, those that stand for others with the first cloud that is known of these."""
    cloud = holdings["cloud"].to_numpy(zero_copy_only=False).astype(np.float64).copy()
    again = np.flatnonzero((first != np.arange(len(first))) & ~np.isnan(cloud))[::-1]
    lacking = again[np.isnan(cloud[first[again]])]
    cloud[first[lacking]] = cloud[lacking]  # the last assignment, of the first such row, stays
    place = holdings.schema.get_field_index("cloud")
    return holdings.set_column(place, HOLDINGS_SCHEMA.field("cloud"), pa.array(cloud, pa.float64(), from_pandas=True))


def _has_owner(first: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a row or one that repeats it belongs to a scene."""
    owned = np.zeros(len(first), bool)
    owned[first[owner >= 0]] = True
    return owned[first]


def _as_scenes(holdings: pa.Table, scenes: pa.Table, rows: NDArray[np.int64], owner: NDArray[np.int64]) -> pa.Table:
    """Holdings that belong to scenes as those scenes."""
    if not len(rows):
        return HELD_SCENES_SCHEMA.empty_table()
    mine = holdings.take(pa.array(rows))
    cloud = mine["cloud"].to_numpy(zero_copy_only=False).astype(np.float64)
    inherited = scenes["cloud_cover"].to_numpy(zero_copy_only=False).astype(np.float64)[owner]
    cloud = np.where(np.isnan(cloud), inherited, cloud)
    mine = mine.set_column(mine.schema.get_field_index("cloud"), HOLDINGS_SCHEMA.field("cloud"), pa.array(cloud, from_pandas=True))
    mine = mine.set_column(
        mine.schema.get_field_index("pass_time"), HOLDINGS_SCHEMA.field("pass_time"), scenes["pass_time"].take(pa.array(owner))
    )
    held = _one_a_group(mine, owner)
    numbers = np.unique(owner)
    outline = scenes["geometry"].take(pa.array(numbers)).to_numpy(zero_copy_only=False)
    geometry = held["geometry"].to_numpy(zero_copy_only=False)
    other = np.flatnonzero(outline != geometry)
    if len(other):
        footprints, shapes = shapely.from_wkb(outline[other]), shapely.from_wkb(geometry[other])
        inside = np.where(is_box(footprints), shapes, common(footprints, shapes))
        inside, _ = normalise_footprints(inside)
        geometry = geometry.copy()
        geometry[other] = shapely.to_wkb(inside)
        held = held.set_column(2, HELD_SCENES_SCHEMA.field("geometry"), pa.array(geometry, pa.binary()))
    return held


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
        first, there = _strip_of(rows, grid)
        there[held_cells - first] = True  # a union by marking: both are within the strip, and sorting or hashing millions takes seconds
        there[seen - first] = True
        place = np.cumsum(there) - 1
        cells = np.flatnonzero(there) + first
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
    table: pa.Table, grid: GridSpec, status: str, month: Month, lookback_months: int, rows: tuple[int, int] | None = None
) -> dict[str, NDArray[Any]]:
    """The cube's Acquired variables of one partition, each a field of the grid or of its ``rows`` (see ``celltable.dense``).

    All are fill unless the holdings were read.
    """
    known = AreaKnown(everywhere=status == "read")
    fields = {variable: dense(table, column, grid, kind, known, rows) for variable, (column, kind) in HELD_VARIABLES.items()}
    since = np.full(fields["held_count"].shape, np.nan, np.float32)
    if status == "read":
        # Nothing found within the lookback: at least that long ago (right-censored), which is not "not known".
        lookback = (month.end - month.shift(1 - lookback_months).start).total_seconds() / 86_400
        since[...] = lookback
        seconds = table["last_held"].to_numpy()
        seen = ~np.isnan(seconds)
        days = np.float32((month.end.timestamp() - seconds[seen]) / 86_400)
        first = 0 if rows is None else rows[0] * grid.shape[1]
        since.reshape(-1)[table["cell"].to_numpy()[seen] - first] = days
    fields["days_since_last_held"] = since
    return fields


def write_holdings_stats(
    sensor: CoverageSensor, month: Month, store: Store, grid: GridSpec, cloud_lt: float, engine: Engine | None = None
) -> dict[str, Any]:
    """Grid one partition's holdings as the scenes that the matchup says they are; returns the table's metadata.

    Raises ``PlannerError`` where the matchup was made from another scan or extract than those that stand there.
    """
    holdings, metadata = read_parquet(store.holdings(sensor.key, month), HOLDINGS_SCHEMA.names)
    last, _ = read_parquet(store.last_held(sensor.key, month), LAST_SCHEMA.names)
    path = store.scenes(sensor.key, month)
    # Without holdings no scene is held, and none need be read.
    columns = ["pass_time", "in_month", "cloud_cover", "geometry"] if holdings.num_rows else []
    scenes, scan = read_scenes(path, columns)
    matchup, match = read_parquet(store.matchup(sensor.key, month), ["holdings", "share"])
    for name, made_from, found in (("scan", match.get("scan_run"), scan["run"]), ("extract", match.get("holdings_run"), metadata["run"])):
        if made_from != found:
            raise PlannerError(
                f"{sensor.key} {month}: matchup was made from another {name} than the one that is there; materialise matchup again"
            )
    held = held_scenes(holdings, scenes, matchup) if holdings.num_rows else HELD_SCENES_SCHEMA.empty_table()
    tables = held_tables(held, last, grid, cloud_lt=cloud_lt, cloud=sensor.cloud, engine=engine)
    return write_cells(
        store.stats("held", sensor.key, month),
        HELD_SCHEMA,
        tables,
        {**metadata, "matchup_run": match["run"], "grid": grid.describe(), "cloud_lt": cloud_lt},
    )
