"""Holdings as the scenes that they belong to, and from these the file of held cells of one sensor and month.

A holding that belongs to a scene of the catalogue counts as that scene: on its day, within its footprint, with its cloud where the holding
carries none. The others count with what they say of themselves.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.geometry.polygons import common, is_box
from coverage_pipeline.grid.bands import Engine
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HeldMetadata, HoldingsMetadata
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA, LAST_SCHEMA, same_rows
from coverage_pipeline.holdings.statistics import HELD_SCHEMA, held_tables
from coverage_pipeline.holdings.united import HELD_SCENES_SCHEMA, one_row_a_group, united_by_key
from coverage_pipeline.matchup.metadata import MatchupMetadata
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.statistics import read_scenes
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet, write_cells


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
    own = holdings.take(pa.array(rows))
    cloud = own["cloud"].to_numpy(zero_copy_only=False).astype(np.float64)
    inherited = scenes["cloud_cover"].to_numpy(zero_copy_only=False).astype(np.float64)[owner]
    cloud = np.where(np.isnan(cloud), inherited, cloud)
    own = own.set_column(own.schema.get_field_index("cloud"), HOLDINGS_SCHEMA.field("cloud"), pa.array(cloud, from_pandas=True))
    own = own.set_column(
        own.schema.get_field_index("pass_time"), HOLDINGS_SCHEMA.field("pass_time"), scenes["pass_time"].take(pa.array(owner))
    )
    held = one_row_a_group(own, owner)
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


def write_holdings_stats(
    sensor: CoverageSensor, month: Month, store: Store, grid: GridSpec, cloud_lt: float, engine: Engine | None = None
) -> HeldMetadata:
    """Grid one partition's holdings as the scenes that the matchup says they are; returns the table's metadata.

    Raises ``PlannerError`` where the matchup was made from another scan or extract than those that stand there.
    """
    holdings, stored = read_parquet(store.holdings(sensor.key, month), HOLDINGS_SCHEMA.names)
    extract = HoldingsMetadata.of(stored)
    last, _ = read_parquet(store.last_held(sensor.key, month), LAST_SCHEMA.names)
    path = store.scenes(sensor.key, month)
    # Without holdings no scene is held, and none need be read.
    columns = ["pass_time", "in_month", "cloud_cover", "geometry"] if holdings.num_rows else []
    scenes, scan = read_scenes(path, columns)
    matchup, stored = read_parquet(store.matchup(sensor.key, month), ["holdings", "share"])
    match = MatchupMetadata.of(stored)
    for name, made_from, run in (("scan", match.scan_run, scan.run), ("extract", match.holdings_run, extract.run)):
        if made_from != run:
            raise PlannerError(
                f"{sensor.key} {month}: matchup was made from another {name} than the one that is there; materialise matchup again"
            )
    held = held_scenes(holdings, scenes, matchup) if holdings.num_rows else HELD_SCENES_SCHEMA.empty_table()
    tables = held_tables(held, last, grid, cloud_lt=cloud_lt, cloud=sensor.cloud, engine=engine)
    return write_cells(
        store.stats("held", sensor.key, month),
        HELD_SCHEMA,
        tables,
        HeldMetadata(**asdict(extract), matchup_run=match.run, grid=grid.describe(), cloud_lt=cloud_lt, cells=0),
    )
