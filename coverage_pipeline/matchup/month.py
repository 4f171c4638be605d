"""The matchup of one sensor and month: its tables of matches and of scenes that are not held, and its report."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.geometry.bbox import split_bbox
from coverage_pipeline.grid.bands import Engine, row_strips
from coverage_pipeline.grid.celltable import CELL_SCHEMA
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import KNOWN_HOLDINGS, HoldingsMetadata
from coverage_pipeline.matchup.match import Match, hours_apart, match_scenes
from coverage_pipeline.matchup.metadata import MatchupMetadata, UnheldMetadata
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.metadata import AvailableMetadata, ScenesMetadata
from coverage_pipeline.scenes.order import ROWS_A_GROUP
from coverage_pipeline.scenes.statistics import availability_tables, read_scenes
from coverage_pipeline.sensors.registry import CloudMeaning, CoverageSensor
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_cells, read_metadata, read_parquet, write_cells, write_parquet

log = logging.getLogger(__name__)
MATCHUP_SCHEMA = pa.schema(
    [
        pa.field("scene_key", pa.string(), nullable=False),
        pa.field("held", pa.bool_()),  # whole; null: the holdings are not known
        pa.field("share", pa.float64()),  # of the footprint's area that its holdings cover; null: the holdings are not known
        pa.field("holdings", pa.list_(pa.string()), nullable=False),  # names of the rows of the extract that belong to it
        pa.field("missing", pa.binary()),  # WKB of what is not held, where the scene is held in part
        pa.field("rule", pa.string()),  # "key" or "footprint"
        pa.field("iou", pa.float64()),  # of the footprints, where that was the rule: the best of its holdings
        pa.field("seconds_apart", pa.float64()),
    ]
)
UNHELD_SCHEMA = pa.schema([CELL_SCHEMA.field(name) for name in ("cell", "clear", "clear_days", "unknown_days")])
"""What ``unheld_fields`` wants of the cells of what exists and is not held."""

# What is read of either file.
_SCENE_COLUMNS = [
    "scene_key", "pass_time", "acquired", "datetime", "start_datetime", "end_datetime", "in_month", "cloud_cover", "copies", "geometry",
]  # fmt: skip
_HOLDING_COLUMNS = ["holding", "scene_id", "scene_key", "datetime", "date_only", "in_month", "sensor", "cloud", "geometry"]


def match_month(
    sensor: CoverageSensor,
    month: Month,
    store: Store,
    grid: GridSpec,
    *,
    cloud_lt: float,
    tolerance_seconds: float = 60.0,
    min_iou: float = 0.5,
    min_cover: float = 0.9,
    engine: Engine | None = None,
) -> MatchupMetadata:
    """Match one partition and grid what exists and is not held; returns the metadata of both files.

    Where the holdings are not known, nothing is known of what is held: ``held`` and ``share`` are null and the unheld statistics say so.
    """
    scenes, scan = read_scenes(store.scenes(sensor.key, month), _SCENE_COLUMNS)
    holdings, stored = read_parquet(store.holdings(sensor.key, month), _HOLDING_COLUMNS)
    held = HoldingsMetadata.of(stored)
    known = held.status in KNOWN_HOLDINGS
    match = match_scenes(scenes, holdings, family=sensor.family, tolerance_seconds=tolerance_seconds, min_iou=min_iou, min_cover=min_cover)
    in_month = scenes["in_month"].to_numpy(zero_copy_only=False).astype(bool)
    elsewhere = _held_elsewhere(match)
    warnings = [text for text in (hours_apart(scenes, holdings, match, min_iou), _elsewhere_in_words(elsewhere)) if text]
    for warning in warnings:
        log.warning("%s %s: %s", sensor.key, month, warning)
    metadata = MatchupMetadata(
        sensor=sensor.key,
        month=month.key,
        run=uuid.uuid4().hex,
        scan_run=scan.run,
        scanned_at=scan.scanned_at,
        holdings_run=held.run,
        min_iou=min_iou,
        min_cover=min_cover,
        tolerance_seconds=tolerance_seconds,
        holdings_status=held.status,
        scan_status=scan.status,
        bbox=scan.bbox,
        scenes=int(in_month.sum()),
        held=int((match.whole & in_month).sum()) if known else None,
        held_in_part=int((match.in_part & in_month).sum()) if known else None,
        held_by_key=int(match.by_key.sum()) if known else None,
        house_ids=match.house_ids if known else None,
        held_not_in_catalog=_not_in_catalog(holdings, match, scan) if known else None,
        warnings=warnings,
        grid=grid.describe(),
        cloud_lt=cloud_lt,
    )
    unheld = (
        _all_listed(store.stats("available", sensor.key, month), scan, sensor.cloud, grid, cloud_lt, engine)
        if known and not (match.share[in_month].any())
        else None
    )
    if unheld is None:
        unheld = availability_tables(_not_held(scenes, match, in_month & known), grid, cloud_lt=cloud_lt, cloud=sensor.cloud, engine=engine)
    write_parquet(store.matchup(sensor.key, month), _matchup_table(scenes, holdings, match, known), metadata, rows_a_group=ROWS_A_GROUP)
    write_cells(store.stats("unheld", sensor.key, month), CELL_SCHEMA, unheld, UnheldMetadata(**asdict(metadata), cells=0))
    return metadata


def _matchup_table(scenes: pa.Table, holdings: pa.Table, match: Match, known: bool) -> pa.Table:
    """One row a scene (``MATCHUP_SCHEMA``)."""
    n = scenes.num_rows
    rows = np.flatnonzero(match.counts & (match.scene_of_holding >= 0))
    rows = rows[np.argsort(match.scene_of_holding[rows], kind="stable")]
    owner = match.scene_of_holding[rows]
    offsets = np.searchsorted(owner, np.arange(n + 1)).astype(np.int32)
    names = holdings["holding"].combine_chunks().take(pa.array(rows)) if holdings.num_rows else pa.array([], pa.string())
    by_key = np.zeros(n, bool)
    by_key[owner[match.by_key[rows]]] = True
    has = np.diff(offsets) > 0
    iou, apart = np.full(n, -np.inf), np.full(n, np.inf)
    np.fmax.at(iou, owner, match.iou[rows])
    np.fmin.at(apart, owner, match.seconds_apart[rows])
    unknown = np.full(n, not known)
    return pa.table(
        {
            "scene_key": scenes["scene_key"],
            "held": pa.array(match.whole, mask=unknown),
            "share": pa.array(match.share, mask=unknown),
            "holdings": pa.ListArray.from_arrays(pa.array(offsets), names),
            "missing": pa.array(shapely.to_wkb(match.missing), pa.binary()),
            "rule": pa.array(np.where(by_key, "key", "footprint"), pa.string(), mask=~has),
            "iou": pa.array(iou, pa.float64(), mask=~np.isfinite(iou)),
            "seconds_apart": pa.array(apart, pa.float64(), mask=~np.isfinite(apart)),
        },
        schema=MATCHUP_SCHEMA,
    )


def _not_held(scenes: pa.Table, match: Match, wanted: NDArray[np.bool_]) -> pa.Table:
    """The scenes of the month that are not held, those held in part with what is missing as their footprint."""
    rows = np.flatnonzero(wanted & ~match.whole)
    chosen = scenes.select(["pass_time", "in_month", "cloud_cover", "geometry"]).take(pa.array(rows))
    part = match.missing[rows]
    partly = ~pd.isna(part)
    if partly.any():
        geometry = chosen["geometry"].to_numpy(zero_copy_only=False).copy()
        geometry[partly] = shapely.to_wkb(part[partly])
        chosen = chosen.set_column(3, chosen.schema.field("geometry"), pa.array(geometry, pa.binary()))
    return chosen


def _held_elsewhere(match: Match) -> int:
    """Scenes whose holdings lie outside their footprint altogether."""
    owned = np.zeros(len(match.share), bool)
    owned[match.scene_of_holding[match.scene_of_holding >= 0]] = True
    return int((owned & (match.share == 0)).sum())


def _elsewhere_in_words(count: int) -> str:
    if not count:
        return ""
    return f"{count:,} scenes have a holding of their id that lies outside their footprint: it holds nothing of them; check its geometry"


def _all_listed(
    path: UPath, scan: ScenesMetadata, cloud: CloudMeaning, grid: GridSpec, cloud_lt: float, engine: Engine | None
) -> Iterator[pa.Table] | None:
    """The cells of all scenes of that very scan, where ``availability_stats`` has them: what is not held where nothing is."""
    try:
        result = AvailableMetadata.of(read_metadata(path))
    except StoreError:
        return None
    if (result.run, result.cloud, result.grid, result.cloud_lt) != (scan.run, cloud, grid.describe(), cloud_lt):
        return None
    n_lon = grid.shape[-1]
    pieces = ((None, None) if rows is None else (rows[0] * n_lon, rows[1] * n_lon) for rows in row_strips(grid, engine))
    return (read_cells(path, first, end, schema=CELL_SCHEMA)[0] for first, end in pieces)


def _not_in_catalog(holdings: pa.Table, match: Match, scan: ScenesMetadata) -> int | None:
    """Holdings of the month that the catalogue does not list, within the area it was asked for; None where it was not asked."""
    if scan.status == "not_applicable":
        return None
    missing = holdings["in_month"].to_numpy(zero_copy_only=False) & match.counts & (match.scene_of_holding < 0)
    bbox: Sequence[float] | None = scan.bbox
    if bbox is None or not missing.any():
        return int(missing.sum())
    area = shapely.union_all([shapely.box(*part) for part in split_bbox((bbox[0], bbox[1], bbox[2], bbox[3]))])
    shapes = shapely.from_wkb(holdings["geometry"].to_numpy(zero_copy_only=False)[missing])
    return int(shapely.intersects(shapes, area).sum())
