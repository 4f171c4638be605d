"""Target statistics of one sensor and month: made from footprints, never from cells, because a small site is a corner of a cell."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from coverage_pipeline.cube.schema import ACTIONS
from coverage_pipeline.demand import target_days as kinds
from coverage_pipeline.demand.gap import gap_of_masks
from coverage_pipeline.demand.partition_files import read_partition_files
from coverage_pipeline.demand.target_days import Pieces, TargetDays, covered_days
from coverage_pipeline.demand.target_knowledge import Knowledge
from coverage_pipeline.demand.target_pieces import pieces_of
from coverage_pipeline.demand.target_schema import TARGET_SCENE, TARGET_STATS_SCHEMA, TargetStatsMetadata
from coverage_pipeline.demand.target_size import too_large
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.demand.weights import DEFAULT_WEIGHTS
from coverage_pipeline.geometry.bbox import split_bbox
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.grid.daymask import DAYS, UNKNOWN, observations
from coverage_pipeline.holdings.metadata import KNOWN_HOLDINGS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import ScanStatus
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import write_parquet


def target_statistics(
    targets: Targets,
    scenes: pa.Table,
    matchup: pa.Table,
    holdings: pa.Table,
    sensor: CoverageSensor,
    month: Month,
    known: Knowledge,
    *,
    cloud_lt: float,
    default_desired: float,
    in_group: bool = False,
) -> pa.Table:
    """Coverage, deficit and action of each target for a sensor and month (``TARGET_STATS_SCHEMA``), in the targets' order.

    ``scenes`` (``SCENE_COLUMNS``) and ``matchup`` (``MATCHUP_COLUMNS``) have one row a listed scene; ``holdings`` is the extract. A UTC day
    counts where its scenes together cover ``min_cover`` of the target. ``default_desired`` is the sensor's cadence, for targets that state
    none; ``in_group``: the sensor is a member of a group, so that a target's ``desired`` for every sensor is not wanted of it alone. The
    words are those of design section 4, with target in place of cell.
    """
    shapes = targets.table.geometry.to_numpy()
    min_cover = targets.table["min_cover"].to_numpy(np.float64)
    pieces = pieces_of(scenes, matchup, holdings, sensor, cloud_lt)
    days = covered_days(shapes, min_cover, pieces)
    of_scene = days.pair_piece < scenes.num_rows
    touched = np.zeros(len(targets), bool)
    touched[days.pair_target[of_scene]] = True
    catalog_known = _contained(shapes, known.bbox) & (known.scan_status not in ("not_scanned", "not_applicable"))
    if known.scan_status == "partial":  # what was found counts; that nothing was found says nothing
        catalog_known &= touched
    holdings_known = np.full(len(targets), known.holdings_status in KNOWN_HOLDINGS)
    masks = _masks(days, catalog_known, holdings_known, known.scan_status)
    in_reach = _in_reach(shapes, min_cover, sensor) & sensor.flies_in(month)
    desired = targets.desired(sensor.key, month, default_desired, own_only=in_group)
    applicable = known.scan_status != "not_applicable"
    absence_counts = catalog_known if known.scan_status == "complete" else np.full(len(targets), not applicable)
    deficit, _, action = gap_of_masks(
        masks["held_clear_days"],
        masks["ingestable_days"],
        masks["check_days"],
        np.full(len(targets), np.nan, np.float32),
        desired.astype(np.float32),
        np.array(month.days, np.uint8),
        in_reach,
        np.array(sensor.taskable),
        absence_counts,
        holdings_known,
        np.array(known.holdings_status == "not_held"),
        1.0,
        weights=DEFAULT_WEIGHTS,
    )
    deficit = np.where(np.isnan(deficit), -1, deficit).astype(np.int16)
    ingestable = np.where(masks["ingestable_days"] == UNKNOWN, -1, observations(masks["ingestable_days"]).astype(np.int16))
    remaining = np.where((deficit < 0) | (ingestable < 0), -1, np.maximum(0, deficit - ingestable))
    return pa.table(
        {
            "target": pa.array(targets.table["id"].to_list(), pa.string()),
            **{name: pa.array(mask, pa.uint32()) for name, mask in masks.items()},
            "best_share": pa.array(days.best_share, pa.float64(), mask=~catalog_known),
            "scenes": _scene_lists(days, of_scene, scenes, matchup, pieces, len(targets)),
            "desired": pa.array(np.where(in_reach, desired, 0.0), pa.float64()),
            "deficit": pa.array(deficit, pa.int16()),
            "ingestable": pa.array(ingestable.astype(np.int16), pa.int16()),
            "remaining": pa.array(remaining.astype(np.int16), pa.int16()),
            "action": pa.array(np.array(ACTIONS, dtype=object)[action], pa.string()),
            "catalog_known": pa.array(catalog_known),
            "holdings_known": pa.array(holdings_known),
            "in_reach": pa.array(in_reach),
            "too_large": pa.array(too_large(targets, sensor)),
            "area_km2": pa.array(targets.table["area_km2"].to_numpy(np.float64), pa.float64()),
        }
    ).cast(TARGET_STATS_SCHEMA)


def write_target_stats(
    sensor: CoverageSensor, month: Month, store: Store, targets: Targets, *, cloud_lt: float, default_desired: float, in_group: bool = False
) -> TargetStatsMetadata:
    """Make one partition's target statistics from its scenes, matchup and holdings, and write them; returns the file's metadata.

    Raises ``StoreError`` for a file that is missing or damaged, ``PlannerError`` where the matchup is of another scan or extract.
    """
    files = read_partition_files(sensor, month, store)
    table = target_statistics(
        targets,
        files.scenes,
        files.matchup,
        files.holdings,
        sensor,
        month,
        files.known,
        cloud_lt=cloud_lt,
        default_desired=default_desired,
        in_group=in_group,
    )
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(table["action"]).to_pylist()}
    metadata = TargetStatsMetadata(
        sensor=sensor.key,
        month=month.key,
        targets_digest=targets.digest,
        run=uuid.uuid4().hex,
        scan_run=files.scan.run,
        holdings_run=files.extract.run,
        matchup_run=files.match.run,
        scan_status=files.scan.status,
        holdings_status=files.extract.status,
        scanned_at=files.scan.scanned_at,
        cloud_lt=cloud_lt,
        targets=len(targets),
        actions={action: counts.get(action, 0) for action in ACTIONS},
    )
    write_parquet(store.target_stats(sensor.key, month), table, metadata)
    return metadata


def _masks(
    days: TargetDays, catalog_known: NDArray[np.bool_], holdings_known: NDArray[np.bool_], scan_status: ScanStatus
) -> dict[str, NDArray[np.uint32]]:
    """The day masks of the table, ``UNKNOWN`` where not known."""
    mask = days.masks
    held_clear = np.where(holdings_known, mask[kinds.HELD_CLEAR], np.uint32(0))
    ingestable = mask[kinds.CLEAR_ANYWHERE] & ~held_clear
    check = mask[kinds.MAYBE_CLEAR] & ~held_clear & ~ingestable
    both = catalog_known & holdings_known
    # Where the catalogue is not known, held scenes of unknown cloud are still worth a look.
    held_unclear = mask[kinds.HELD_MAYBE_CLEAR] & ~held_clear
    check_elsewhere = np.where((held_unclear == 0) & (scan_status != "not_applicable"), UNKNOWN, held_unclear)
    check_elsewhere = np.where(holdings_known, check_elsewhere, UNKNOWN)
    result = {
        "available_days": np.where(catalog_known, mask[kinds.AVAILABLE], UNKNOWN),
        "clear_days": np.where(catalog_known, mask[kinds.CLEAR], UNKNOWN),
        "held_days": np.where(holdings_known, mask[kinds.HELD], UNKNOWN),
        "held_clear_days": np.where(holdings_known, held_clear, UNKNOWN),
        "unknown_days": np.where(both, mask[kinds.UNKNOWN_CLOUD], UNKNOWN),
        "ingestable_days": np.where(both, ingestable, UNKNOWN),
        "check_days": np.where(both, check, check_elsewhere),
    }
    return {name: np.where(values == UNKNOWN, UNKNOWN, values & DAYS).astype(np.uint32) for name, values in result.items()}


def _contained(shapes: NDArray[np.object_], bbox: Sequence[float] | None) -> NDArray[np.bool_]:
    """Which targets the scanned box holds whole: scenes over what it cuts off were not asked for."""
    if bbox is None:
        return np.ones(len(shapes), bool)
    box = shapely.union_all([shapely.box(*part) for part in split_bbox(bbox)])
    return np.asarray(shapely.covers(box, shapes))


def _in_reach(shapes: NDArray[np.object_], min_cover: NDArray[np.float64], sensor: CoverageSensor) -> NDArray[np.bool_]:
    """Which targets the sensor can image, as to latitude: ``min_cover`` of the area lies within its reach."""
    south, north = sensor.reach
    bounds = shapely.bounds(shapes)
    inside = (bounds[:, 1] >= south) & (bounds[:, 3] <= north)
    cut = np.flatnonzero(~inside & (bounds[:, 1] < north) & (bounds[:, 3] > south))
    if len(cut):
        part = ellipsoid_km2(shapely.intersection(shapes[cut], shapely.box(-180, south, 180, north)))
        inside[cut] = part >= (min_cover[cut] - kinds.ROUNDING) * ellipsoid_km2(shapes[cut])
    return np.asarray(inside)


def _scene_lists(
    days: TargetDays, of_scene: NDArray[np.bool_], scenes: pa.Table, matchup: pa.Table, pieces: Pieces, targets: int
) -> pa.ListArray:
    """For each target its scenes, by day and key."""
    target, piece, share = days.pair_target[of_scene], days.pair_piece[of_scene], days.pair_share[of_scene]
    listed = (pieces.kinds[piece] & kinds.AVAILABLE) != 0
    target, piece, share = target[listed], piece[listed], share[listed]
    rank = pc.rank(scenes["scene_key"], tiebreaker="dense").to_numpy() if scenes.num_rows else np.empty(0, np.int64)
    order = np.lexsort((rank[piece], pieces.day[piece], target))
    target, piece, share = target[order], piece[order], share[order]
    bits = pieces.kinds[piece]
    values = pa.StructArray.from_arrays(
        [
            scenes["scene_key"].take(pa.array(piece)).combine_chunks(),
            pa.array(pieces.day[piece], pa.uint8()),
            pa.array(share.astype(np.float32)),
            pa.array((bits & kinds.CLEAR) != 0, mask=(bits & kinds.UNKNOWN_CLOUD) != 0),
            matchup["held"].take(pa.array(piece)).combine_chunks(),
        ],
        fields=list(TARGET_SCENE),
    )
    offsets = np.searchsorted(target, np.arange(targets + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
