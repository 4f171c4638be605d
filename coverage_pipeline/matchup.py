"""Which of the scenes that exist we hold: by key, else by time and footprint, one to one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.catalog.statistics import availability_tables, read_scenes
from coverage_pipeline.celltable import CELL_SCHEMA, AreaKnown, dense
from coverage_pipeline.daymask import UNKNOWN, is_known
from coverage_pipeline.grid import Engine, GridSpec, row_strips, split_bbox
from coverage_pipeline.months import Month
from coverage_pipeline.sensors import CloudMeaning, CoverageSensor
from coverage_pipeline.store import Store, StoreError, read_cells, read_metadata, read_parquet, write_cells, write_parquet

MATCHUP_SCHEMA = pa.schema(
    [
        pa.field("scene_key", pa.string(), nullable=False),
        pa.field("held", pa.bool_()),  # null: the holdings are not known
        pa.field("holding", pa.string()),
        pa.field("rule", pa.string()),  # "key" or "footprint"
        pa.field("iou", pa.float64()),  # of the footprints, where that was the rule
        pa.field("seconds_apart", pa.float64()),
    ]
)

UNHELD_SCHEMA = pa.schema([CELL_SCHEMA.field(name) for name in ("cell", "clear", "clear_days", "unknown_days")])
"""What ``unheld_fields`` wants of the cells of what exists and is not held."""

# What is read of either file.
_SCENE_COLUMNS = ["scene_key", "acquired", "pass_time", "in_month", "cloud_cover", "geometry"]
_HOLDING_COLUMNS = ["holding", "scene_key", "datetime", "date_only", "in_month", "geometry"]
_KNOWN_HOLDINGS = ("read", "not_held")
_DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Match:
    """For every scene the holding that is it, and for every holding whether it found its scene."""

    holding_of_scene: NDArray[np.int64]
    """Index of the holding, −1 where the scene is not held."""
    by_key: NDArray[np.bool_]
    iou: NDArray[np.float64]
    seconds_apart: NDArray[np.float64]
    holding_matched: NDArray[np.bool_]


def match_scenes(scenes: pa.Table, holdings: pa.Table, *, tolerance_seconds: float = 60.0, min_iou: float = 0.5) -> Match:
    """Match scenes (``SCENES_SCHEMA``) with holdings of the same sensor (``HOLDINGS_SCHEMA``).

    A holding with a key is its key's scene, or none. One without matches the scene within ``tolerance_seconds`` (on the same UTC
    day where it carries a date only) whose footprint has the largest intersection over union, at least ``min_iou``; one to one, best
    first: neighbouring Sentinel-2 tiles overlap by up to half, and anything looser marks unheld scenes as held.
    """
    n = scenes.num_rows
    match = Match(np.full(n, -1), np.zeros(n, bool), np.full(n, np.nan), np.full(n, np.nan), np.zeros(holdings.num_rows, bool))
    if n == 0 or holdings.num_rows == 0:
        return match
    taken = pc.index_in(holdings["scene_key"], value_set=scenes["scene_key"].combine_chunks()).to_numpy(zero_copy_only=False)
    keyed = holdings["scene_key"].is_valid().to_numpy()
    found = keyed & ~np.isnan(taken.astype(np.float64))
    scene = taken[found].astype(np.int64)
    match.holding_matched[found] = True
    match.holding_of_scene[scene] = np.flatnonzero(found)
    match.by_key[scene] = True
    _match_footprints(scenes, holdings, np.flatnonzero(~keyed), match, tolerance_seconds, min_iou)
    return match


def _match_footprints(
    scenes: pa.Table, holdings: pa.Table, nameless: NDArray[np.int64], match: Match, tolerance: float, min_iou: float
) -> None:
    free = np.flatnonzero(match.holding_of_scene < 0)
    if not len(nameless) or not len(free):
        return
    scene_shapes = shapely.from_wkb(scenes["geometry"].to_numpy(zero_copy_only=False)[free])
    held_shapes = shapely.from_wkb(holdings["geometry"].to_numpy(zero_copy_only=False)[nameless])
    h, s = shapely.STRtree(scene_shapes).query(held_shapes)
    # Whole microseconds: as seconds since 1970 in float64 a difference is off by up to 0.2 µs, and the tolerance is inclusive.
    scene_times = [scenes[name].cast(pa.int64()).to_numpy()[free][s] for name in ("acquired", "pass_time")]
    held_time = holdings["datetime"].cast(pa.int64()).to_numpy()[nameless][h]
    date_only = holdings["date_only"].to_numpy(zero_copy_only=False)[nameless][h]
    apart = np.minimum(*(np.abs(time - held_time) for time in scene_times)) / 1e6
    same_day = np.logical_or(*(time // _DAY == held_time // _DAY for time in scene_times))
    near = np.where(date_only, same_day, apart <= tolerance)
    h, s, apart = h[near], s[near], apart[near]
    common = shapely.area(shapely.intersection(held_shapes[h], scene_shapes[s]))
    iou = common / (shapely.area(held_shapes[h]) + shapely.area(scene_shapes[s]) - common)
    good = iou >= min_iou
    h, s, apart, iou = h[good], s[good], apart[good], iou[good]
    order = np.lexsort((s, h, apart, -iou))  # best first; ties by time, then by place in the tables
    h, s, apart, iou = h[order], s[order], apart[order], iou[order]
    while len(h):
        # The first pair of a holding that is also the first of its scene is what taking the best pairs in turn would take.
        first = np.zeros(len(h), bool)
        first[np.intersect1d(np.unique(h, return_index=True)[1], np.unique(s, return_index=True)[1])] = True
        scene = free[s[first]]
        match.holding_of_scene[scene] = nameless[h[first]]
        match.iou[scene] = iou[first]
        match.seconds_apart[scene] = apart[first]
        match.holding_matched[nameless[h[first]]] = True
        left = ~np.isin(h, h[first]) & ~np.isin(s, s[first])
        h, s, apart, iou = h[left], s[left], apart[left], iou[left]


def match_month(
    sensor: CoverageSensor,
    month: Month,
    store: Store,
    grid: GridSpec,
    *,
    cloud_lt: float,
    tolerance_seconds: float = 60.0,
    min_iou: float = 0.5,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Match one partition and grid what exists and is not held; returns the metadata of both files.

    Where the holdings are not known, nothing is known of what is held: ``held`` is null and the unheld statistics say so.
    """
    scenes, scan = read_scenes(store.scenes(sensor.key, month), _SCENE_COLUMNS)
    holdings, held = read_parquet(store.holdings(sensor.key, month), _HOLDING_COLUMNS)
    known = held["status"] in _KNOWN_HOLDINGS
    match = match_scenes(scenes, holdings, tolerance_seconds=tolerance_seconds, min_iou=min_iou)
    is_held = match.holding_of_scene >= 0
    metadata: dict[str, Any] = {
        "sensor": sensor.key,
        "month": month.key,
        "scan_run": scan["run"],
        "holdings_run": held["run"],
        "min_iou": min_iou,
        "tolerance_seconds": tolerance_seconds,
        "holdings_status": held["status"],
        "scan_status": scan["status"],
        "bbox": scan["bbox"],
        "scenes": scenes.num_rows,
        "held": int(is_held.sum()) if known else None,
        "held_by_key": int(match.by_key.sum()) if known else None,
        "held_not_in_catalog": _not_in_catalog(holdings, match, scan) if known else None,
        "grid": grid.describe(),
        "cloud_lt": cloud_lt,
    }
    holding = holdings["holding"].take(pa.array(np.where(is_held, match.holding_of_scene, 0), mask=~is_held)) if len(holdings) else None
    rule = np.where(match.by_key, "key", "footprint")
    table = pa.table(
        {
            "scene_key": scenes["scene_key"],
            "held": pa.array(is_held, mask=np.full(len(is_held), not known)),
            "holding": holding if holding is not None else pa.nulls(scenes.num_rows, pa.string()),
            "rule": pa.array(rule, pa.string(), mask=~is_held),
            "iou": pa.array(match.iou, pa.float64(), from_pandas=True),
            "seconds_apart": pa.array(match.seconds_apart, pa.float64(), from_pandas=True),
        },
        schema=MATCHUP_SCHEMA,
    )
    unheld = (
        _all_listed(store.stats("available", sensor.key, month), scan, sensor.cloud, grid, cloud_lt, engine)
        if known and not is_held.any()
        else None
    )
    if unheld is None:
        lacking = scenes.filter(pa.array(~is_held if known else np.zeros(len(is_held), bool)))
        unheld = availability_tables(lacking, grid, cloud_lt=cloud_lt, cloud=sensor.cloud, engine=engine)
    write_parquet(store.matchup(sensor.key, month), table, metadata)
    write_cells(store.stats("unheld", sensor.key, month), CELL_SCHEMA, unheld, metadata)
    return metadata


def _all_listed(
    path: UPath, scan: dict[str, Any], cloud: CloudMeaning, grid: GridSpec, cloud_lt: float, engine: Engine | None
) -> Iterator[pa.Table] | None:
    """The cells of all scenes of that very scan, where ``availability_stats`` has them: what is not held where nothing is."""
    try:
        made = read_metadata(path)
    except StoreError:
        return None
    if [made.get(name) for name in ("run", "cloud", "grid", "cloud_lt")] != [scan["run"], cloud, grid.describe(), cloud_lt]:
        return None
    n_lon = grid.shape[-1]
    pieces = ((None, None) if rows is None else (rows[0] * n_lon, rows[1] * n_lon) for rows in row_strips(grid, engine))
    return (read_cells(path, first, end, schema=CELL_SCHEMA)[0] for first, end in pieces)


def _not_in_catalog(holdings: pa.Table, match: Match, scan: dict[str, Any]) -> int | None:
    """Holdings of the month that the catalogue does not list, within the area it was asked for; None where it was not asked."""
    if scan["status"] == "not_applicable":
        return None
    missing = holdings["in_month"].to_numpy(zero_copy_only=False) & ~match.holding_matched
    bbox: Sequence[float] | None = scan["bbox"]
    if bbox is None or not missing.any():
        return int(missing.sum())
    area = shapely.union_all([shapely.box(*part) for part in split_bbox((bbox[0], bbox[1], bbox[2], bbox[3]))])
    shapes = shapely.from_wkb(holdings["geometry"].to_numpy(zero_copy_only=False)[missing])
    return int(shapely.intersects(shapes, area).sum())


def unheld_fields(
    table: pa.Table, grid: GridSpec, known: AreaKnown, held_clear_days: NDArray[np.uint32], rows: tuple[int, int] | None = None
) -> dict[str, NDArray[Any]]:
    """The cube's ``unmet_supply``, ``ingestable_days`` and ``check_days`` of one partition, each a field of the grid or of its
    ``rows`` (see ``celltable.dense``).

    ``held_clear_days`` is the partition's mask; where it is not known (a sensor we do not hold) nothing is held.
    """
    held = np.where(is_known(held_clear_days), held_clear_days, np.uint32(0))
    clear = dense(table, "clear_days", grid, "ingestable_days", known, rows)
    unclear = dense(table, "unknown_days", grid, "check_days", known, rows)
    there = is_known(clear)
    ingestable = np.where(there, clear & ~held, UNKNOWN)
    return {
        "unmet_supply": dense(table, "clear", grid, "unmet_supply", known, rows),
        "ingestable_days": ingestable,
        "check_days": np.where(there, unclear & ~held & ~ingestable, UNKNOWN),
    }
