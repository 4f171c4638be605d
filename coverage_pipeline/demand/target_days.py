"""Which days cover each target: the share of its area under the union of a day's scenes, for several kinds of scenes at once.

Overlays stay in longitude and latitude, where the edges of targets and footprints are straight by definition (design section 4). Areas are
measured on the ellipsoid (``geometry.ellipsoid``). An equal-area projection with densified edges gives the same shares, more slowly.
``geopandas.overlay`` lost: it makes a geometry of every intersection, and has no union by day.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from coverage_pipeline.demand.target_kernel import convex_parts, rings_of, uncovered_km2
from coverage_pipeline.grid.daymask import day_bit

ROUNDING = 1e-9
"""A share this much below ``min_cover`` still reaches it: areas are sums of many terms."""

_THREADS = min(4, os.cpu_count() or 1)
_CHUNKS = 64
"""Pieces of work that the threads take: groups differ in size by orders of magnitude."""

_FEW_PIECES, _FEW_GROUPS = 20_000, 2_000
"""Fewer are done at once, without a table of bins or threads."""
_BINS = 4
"""Bins a degree in which footprints near a target are looked for."""

# Kinds of scenes, as bits of ``Pieces.kinds``.
KINDS = tuple(np.uint8(1 << bit) for bit in range(8))
AVAILABLE, CLEAR, HELD, HELD_CLEAR, UNKNOWN_CLOUD, CLEAR_ANYWHERE, MAYBE_CLEAR, HELD_MAYBE_CLEAR = KINDS
"""Listed; listed and clear; held; held and clear; of unknown cloud, listed or held; held clear, or clear and not held; that or of unknown
cloud; held and clear or of unknown cloud."""


@dataclass(frozen=True)
class Pieces:
    """Footprints of scenes, of holdings, and of missing parts: all that can cover a target on some day."""

    bounds: NDArray[np.float64]
    """West, south, east, north of each, ``(pieces, 4)``, degrees."""
    wkb: pa.ChunkedArray
    """Each one's outline as WKB, EPSG:4326, normalised."""
    day: NDArray[np.uint8]
    """UTC day of the month, 1..31."""
    kinds: NDArray[np.uint8]
    """Bits of the kinds that it counts for."""
    scene: NDArray[np.int64] | None = None
    """Row of the listed scene that it is, or that it is the missing part of; -1: a holding. None where nobody asks."""

    def offered(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which pieces downloading would add (clear, of a listed scene, not held), ``(pieces,)``; and ``scene``, which must be there."""
        if self.scene is None:
            raise ValueError("pieces without the rows of their scenes")
        return ((self.kinds & CLEAR_ANYWHERE) != 0) & ((self.kinds & HELD_CLEAR) == 0) & (self.scene >= 0), self.scene


@dataclass(frozen=True)
class TargetDays:
    """What covers the targets, day by day."""

    masks: dict[np.uint8, NDArray[np.uint32]]
    """By kind the days on which the union of its pieces reaches ``min_cover``, ``(targets,)``."""
    best_share: NDArray[np.float64]
    """Largest share of one day under listed scenes, ``(targets,)``."""
    pair_target: NDArray[np.int64]
    """Index of the target of each pair of a target and a piece whose interiors meet, ascending."""
    pair_piece: NDArray[np.int64]
    pair_share: NDArray[np.float64]
    """Share of the target's area under that piece alone."""


def covered_days(targets: NDArray[np.object_], min_cover: NDArray[np.float64], pieces: Pieces) -> TargetDays:
    """The days on which each kind of pieces covers each target.

    ``targets`` are Polygons or MultiPolygons in degrees, cut at the antimeridian, ``(targets,)``; ``min_cover`` their shares, 0..1.
    """
    target, piece = near_pairs(targets, pieces.bounds)
    used, place = np.unique(piece, return_inverse=True)
    shapes = shapely.from_wkb(pieces.wkb.take(pa.array(used)).to_numpy(zero_copy_only=False))
    cover = TargetCover(targets, shapes)
    share = cover.shares(target, place, np.arange(len(target) + 1))
    overlaps = share > ROUNDING  # others share a border only, or nothing
    target, piece, place, share = target[overlaps], piece[overlaps], place[overlaps], share[overlaps]
    # One group a target and day, in that order.
    group_key = target * 32 + pieces.day[piece]
    order = np.lexsort((piece, group_key))
    target, piece, place, share, group_key = target[order], piece[order], place[order], share[order], group_key[order]
    keys, group = np.unique(group_key, return_inverse=True)
    group_target = keys // 32
    day = day_bit(keys % 32)
    reached = {}
    unions = _Unions(cover, target, place, share, group, len(keys))
    best = np.zeros(len(targets))
    for kind in KINDS:
        members = (pieces.kinds[piece] & kind) != 0
        wanted = min_cover[group_target] - ROUNDING
        shares = unions.shares(members, None if kind == AVAILABLE else wanted)
        if kind == AVAILABLE:
            np.maximum.at(best, group_target, shares)
        mask = np.zeros(len(targets), np.uint32)
        np.bitwise_or.at(mask, group_target, np.where((shares >= wanted) & (shares > 0), day, np.uint32(0)))
        reached[kind] = mask
    return TargetDays(reached, np.minimum(best, 1.0), target, piece, share)


def near_pairs(targets: NDArray[np.object_], bounds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a target and a piece whose bounding boxes meet, each once, by target and piece; ``bounds`` as in ``Pieces``."""
    parts, owner = shapely.get_parts(targets, return_index=True)  # a target cut at ±180 has a box around the globe
    if not len(parts) or not len(bounds):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    some = np.flatnonzero(~np.isnan(bounds[:, 0]))
    near = some if len(some) < _FEW_PIECES else np.flatnonzero(_near(shapely.bounds(parts), bounds))
    piece, part = shapely.STRtree(parts).query(shapely.box(*bounds[near].T))
    piece = near[piece]
    pairs = np.unique(owner[part].astype(np.int64) * len(bounds) + piece)
    return pairs // len(bounds), pairs % len(bounds)


def _near(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of ``others`` meet a quarter of a degree that one of ``boxes`` meets; both ``(n, 4)``, degrees. NaN meets nothing.

    A table of sums answers each in four look-ups: most footprints of a month are nowhere near a target, and need no geometry.
    """
    rows, columns = 180 * _BINS, 360 * _BINS
    touched = np.zeros((rows + 1, columns + 1), np.int32)
    west, south, east, north = _bins(boxes)
    np.add.at(touched, (south, west), 1)
    np.add.at(touched, (north + 1, west), -1)
    np.add.at(touched, (south, east + 1), -1)
    np.add.at(touched, (north + 1, east + 1), 1)
    covered = (touched.cumsum(axis=0).cumsum(axis=1) > 0)[:rows, :columns]
    sums = np.zeros((rows + 1, columns + 1), np.int64)
    sums[1:, 1:] = covered.cumsum(axis=0).cumsum(axis=1)
    finite = ~np.isnan(others[:, 0])
    result = np.zeros(len(others), bool)
    west, south, east, north = _bins(others[finite])
    inside = sums[north + 1, east + 1] - sums[south, east + 1] - sums[north + 1, west] + sums[south, west]
    result[finite] = inside > 0
    return result


def _bins(boxes: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
    """First and last quarter of a degree of each box: west, south, east, north, from 0."""
    most = np.array([360, 180, 360, 180]) * _BINS - 1
    edges = np.floor((boxes + np.array([180.0, 90.0, 180.0, 90.0])) * _BINS).astype(np.int64)
    return tuple(np.clip(edges, 0, most).T)


class TargetCover:
    """Shares of targets under unions of pieces, exact on the ellipsoid."""

    def __init__(self, targets: NDArray[np.object_], shapes: NDArray[np.object_]) -> None:
        """``targets`` and the pieces' ``shapes`` are Polygons or MultiPolygons in degrees."""
        self.rings, self.parts = rings_of(targets), convex_parts(shapes)
        nothing = np.zeros(len(targets) + 1, np.int64)
        self.area = self._uncovered(np.arange(len(targets)), nothing[:0], nothing)

    def shares(self, target: NDArray[np.int64], piece: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of each group's ``target`` under the union of its pieces ``piece[offsets[g]:offsets[g + 1]]``, 0..1."""
        first = self.parts.first
        count = (first[piece + 1] - first[piece]).astype(np.int64)
        begin = np.concatenate([[0], np.cumsum(count)])
        parts = np.repeat(first[piece] - begin[:-1], count) + np.arange(begin[-1])
        uncovered = self._uncovered(target, parts, begin[offsets])
        return np.clip(1.0 - uncovered / self.area[target], 0.0, 1.0)

    def _uncovered(self, target: NDArray[np.int64], parts: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        out = np.empty(len(target))
        arguments = (
            *self.rings,
            self.parts.coords,
            self.parts.offsets,
            target.astype(np.int64),
            parts.astype(np.int64),
            offsets.astype(np.int64),
        )
        if len(target) < _FEW_GROUPS:
            uncovered_km2(*arguments, 0, len(target), out)
            return out
        cuts = np.linspace(0, len(target), _CHUNKS + 1).astype(np.int64)
        with ThreadPoolExecutor(_THREADS) as pool:  # the kernel lets go of the interpreter's lock
            for _ in pool.map(lambda k: uncovered_km2(*arguments, cuts[k], cuts[k + 1], out), range(_CHUNKS)):
                pass
        return out


class _Unions:
    """Shares of groups of pairs under the union of some of their pieces, each union made once."""

    def __init__(
        self,
        cover: TargetCover,
        target: NDArray[np.int64],
        piece: NDArray[np.int64],
        share: NDArray[np.float64],
        group: NDArray[np.int64],
        groups: int,
    ) -> None:
        self.cover, self.target, self.piece, self.share, self.group, self.groups = cover, target, piece, share, group, groups
        # A sum of random numbers tells sets of pieces apart, so that the kinds of a cloudless day share one union.
        self.token = np.random.default_rng(0).integers(1, 1 << 62, len(piece), dtype=np.int64)
        self.known_token = np.empty(0, np.int64)
        self.known_share = np.empty(0)

    def shares(self, members: NDArray[np.bool_], wanted: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """The share of each group's target under the union of its members, ``(groups,)``.

        With ``wanted`` the share only tells whether that is reached: a union is made where neither the largest member nor the sum of all
        members decides.
        """
        rows = np.flatnonzero(members)
        group = self.group[rows]
        share = self.share[rows]
        largest, total = np.zeros(self.groups), np.zeros(self.groups)
        np.maximum.at(largest, group, share)
        np.add.at(total, group, share)
        count = np.bincount(group, minlength=self.groups)
        open_ = (count > 1) & (largest < 1.0)
        if wanted is not None:
            open_ &= (largest < wanted) & (total >= wanted)
        rows = rows[open_[group]]
        if len(rows):
            numbers, inner = np.unique(self.group[rows], return_inverse=True)
            token = np.zeros(len(numbers), np.int64)
            np.add.at(token, inner, self.token[rows])
            place = np.searchsorted(self.known_token, token)
            place_in = np.minimum(place, max(len(self.known_token) - 1, 0))
            seen = self.known_token[place_in] == token if len(self.known_token) else np.zeros(len(token), bool)
            largest[numbers[seen]] = self.known_share[place_in[seen]]
            new = np.flatnonzero(~seen)
            if len(new):
                chosen = ~seen[inner]
                _, again = np.unique(inner[chosen], return_inverse=True)
                result = self._union_shares(rows[chosen], again, len(new))
                largest[numbers[new]] = result
                tokens, results = np.concatenate([self.known_token, token[new]]), np.concatenate([self.known_share, result])
                sort = np.argsort(tokens)
                self.known_token, self.known_share = tokens[sort], results[sort]
        return largest

    def _union_shares(self, rows: NDArray[np.int64], group: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
        """Exact shares of the unions of ``rows``, which belong to groups 0 … ``groups`` − 1, in order."""
        offsets = np.searchsorted(group, np.arange(groups + 1))
        return self.cover.shares(self.target[rows[offsets[:-1]]], self.piece[rows], offsets)
