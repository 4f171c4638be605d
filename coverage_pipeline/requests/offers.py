"""Which scenes of a day together cover a target: the offers that a cover chooses among."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from coverage_pipeline.demand import target_days as kinds
from coverage_pipeline.demand.target_days import Pieces, TargetCover, near_pairs
from coverage_pipeline.grid.daymask import day_bit


@dataclass(frozen=True)
class Offers:
    """Sets of scenes, each of which closes one day of one target, and the scenes that touch a target at all."""

    target: NDArray[np.integer[Any]]
    """Target, or cell, of each offer, ``(offers,)``."""
    day: NDArray[np.integer[Any]]
    """Day of the month, 1..31."""
    scenes: NDArray[np.integer[Any]]
    """Rows of the scenes of all offers, one after the other, ascending within each."""
    offsets: NDArray[np.int64]
    """Where each offer's scenes begin, ``(offers + 1,)``."""
    touching: NDArray[np.int64]
    """Scenes, clear and not held, that overlap a target with a deficit; each once, ascending."""
    touched: NDArray[np.int64]
    """How many such targets each of them overlaps."""


def target_offers(
    shapes: NDArray[np.object_],
    min_cover: NDArray[np.float64],
    pieces: Pieces,
    lacking: NDArray[np.bool_],
    wanted_days: NDArray[np.uint32],
    size: NDArray[np.float64],
    cloud: NDArray[np.float64],
    rank: NDArray[np.int64],
) -> Offers:
    """One offer for each wanted day of each target: that day's scenes by gained area per byte until ``min_cover`` is reached.

    What is held clear that day counts from the start. ``shapes`` and ``min_cover`` are the targets', ``lacking`` says which have a deficit,
    ``wanted_days`` which days of theirs downloading would add; ``size`` (bytes), ``cloud`` (percent) and ``rank`` (of the key) are those of
    the scenes that ``pieces.scene`` numbers. Ties by cloud, then rank.
    """
    held = (pieces.kinds & kinds.HELD_CLEAR) != 0
    offered, scene = pieces.offered()
    of_interest = np.where((held | offered)[:, None], pieces.bounds, np.nan)
    rows = np.flatnonzero(lacking)
    target, piece = near_pairs(shapes[rows], of_interest)
    target = rows[target]
    used, place = np.unique(piece, return_inverse=True)
    cover = TargetCover(shapes, shapely.from_wkb(pieces.wkb.take(pa.array(used)).to_numpy(zero_copy_only=False)))
    share = cover.shares(target, place, np.arange(len(target) + 1))
    overlaps = share > kinds.ROUNDING
    target, piece, place, share = target[overlaps], piece[overlaps], place[overlaps], share[overlaps]
    touching, touched = np.unique(scene[piece[offered[piece]]], return_counts=True)
    wanted = (wanted_days[target] & day_bit(pieces.day[piece])) != 0
    target, piece, place, share = target[wanted], piece[wanted], place[wanted], share[wanted]
    keys, group = np.unique(target * 32 + pieces.day[piece], return_inverse=True)
    chosen = _chosen(
        cover, keys // 32, min_cover[keys // 32] - kinds.ROUNDING, group, place, share, held[piece], scene[piece], size, cloud, rank
    )
    in_offer = np.flatnonzero(chosen)
    order = in_offer[np.lexsort((scene[piece[in_offer]], group[in_offer]))]
    groups, first = np.unique(group[order], return_index=True)
    return Offers(
        keys[groups] // 32,
        keys[groups] % 32,
        scene[piece[order]],
        np.append(first, len(order)).astype(np.int64),
        touching.astype(np.int64),
        touched.astype(np.int64),
    )


def _chosen(
    cover: TargetCover,
    target: NDArray[np.int64],
    wanted: NDArray[np.float64],
    group: NDArray[np.int64],
    place: NDArray[np.int64],
    alone: NDArray[np.float64],
    held: NDArray[np.bool_],
    scene: NDArray[np.int64],
    size: NDArray[np.float64],
    cloud: NDArray[np.float64],
    rank: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which pairs (of a group, a target's day, and a piece) are in their group's offer; all groups at once, a scene of each a round."""
    chosen, counts = np.zeros(len(group), bool), held.copy()
    open_ = np.ones(len(target), bool)
    share = np.zeros(len(target))
    if held.any():
        share = _union_shares(cover, target, np.flatnonzero(held), group[held], place, share)
        open_ &= share < wanted
    while True:
        rest = np.flatnonzero(~counts & open_[group])
        if not len(rest):
            break
        gained = _with_each(cover, target, group, place, alone, counts, rest) - share[group[rest]]
        useful = gained > kinds.ROUNDING
        rest, gained = rest[useful], gained[useful]
        order = np.lexsort((rank[scene[rest]], cloud[scene[rest]], -gained / size[scene[rest]], group[rest]))
        rest, gained = rest[order], gained[order]
        groups, first = np.unique(group[rest], return_index=True)
        best = rest[first]
        chosen[best] = counts[best] = True
        share[groups] += gained[first]
        stuck = open_.copy()
        stuck[groups] = False  # nothing left gains anything there
        open_ &= ~stuck & (share < wanted)
        chosen[stuck[group]] = False
    return chosen


def _union_shares(
    cover: TargetCover,
    target: NDArray[np.int64],
    rows: NDArray[np.int64],
    group: NDArray[np.int64],
    place: NDArray[np.int64],
    share: NDArray[np.float64],
) -> NDArray[np.float64]:
    order = np.argsort(group, kind="stable")
    groups, first = np.unique(group[order], return_index=True)
    out = share.copy()
    out[groups] = cover.shares(target[groups], place[rows[order]], np.append(first, len(order)).astype(np.int64))
    return out


def _with_each(
    cover: TargetCover,
    target: NDArray[np.int64],
    group: NDArray[np.int64],
    place: NDArray[np.int64],
    alone: NDArray[np.float64],
    counts: NDArray[np.bool_],
    rest: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Share of the target under what counts already and one pair of ``rest`` more, for each of these."""
    result = alone[rest].copy()
    had = np.flatnonzero(counts)
    had = had[np.argsort(group[had], kind="stable")]
    begin = np.searchsorted(group[had], np.arange(len(target) + 1))
    number = np.diff(begin)[group[rest]]
    joint = np.flatnonzero(number)
    if len(joint):
        sizes = number[joint] + 1
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        is_own = within == np.repeat(number[joint], sizes)
        source = np.where(is_own, 0, np.repeat(begin[group[rest[joint]]], sizes) + within)
        pieces = np.where(is_own, np.repeat(place[rest[joint]], sizes), place[had[np.minimum(source, len(had) - 1)]])
        result[joint] = cover.shares(target[group[rest[joint]]], pieces, offsets)
    return result
