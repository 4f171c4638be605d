"""Which scene each holding belongs to, which share of a scene is held, and what of it is missing (design section 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from coverage_pipeline.geometry.footprints import area_km2
from coverage_pipeline.geometry.polygons import common, iou_of_boxes, is_box, is_outline, lacking, opened, united
from coverage_pipeline.holdings.rows import same_rows
from coverage_pipeline.sensors.registry import SceneFamily

MISSING_KM = 1.0
"""What is missing of a scene counts where it is wider than twice this: catalogue and holdings draw edges differently (design section 4)."""
_TIMES = ("acquired", "datetime", "start_datetime", "end_datetime", "pass_time")
_DAY = 86_400_000_000  # microseconds
_AT_ONCE = 2048
"""Nameless holdings whose pairs are held in memory at once."""
_NO_INSTANT = np.iinfo(np.int64).min
_ROUNDING = 1e-9  # of a share of areas
_OUTLINE_FILL = 0.4  # of its box: recorded footprints fill 0.43 and more, but for slivers at the swath's edge (`shared/data/items`)


@dataclass(frozen=True)
class Match:
    """For every holding the scene that it belongs to, and how much of every scene its holdings cover."""

    scene_of_holding: NDArray[np.int64]
    """Index of the scene; −1 where the holding belongs to none. A row that repeats another's time and footprint has that one's."""
    counts: NDArray[np.bool_]
    """Which holdings are not such a repetition."""
    by_key: NDArray[np.bool_]
    """Which holdings belong by their key, the others by time and footprint."""
    iou: NDArray[np.float64]
    """Of the footprints, where they decided; else NaN."""
    seconds_apart: NDArray[np.float64]
    house_ids: int
    """Holdings whose id is in no spelling of the catalogue's."""
    share: NDArray[np.float64]
    """For every scene the share of its footprint's area that its holdings cover."""
    whole: NDArray[np.bool_]
    """For every scene whether it is held whole."""
    missing: NDArray[np.object_]
    """For every scene held in part the footprint that is not held; None elsewhere."""

    @property
    def in_part(self) -> NDArray[np.bool_]:
        """For every scene whether it is held in part."""
        return (self.share > 0) & ~self.whole


@dataclass
class _Cover:
    """How much of every scene is held, as ``Match`` has it."""

    share: NDArray[np.float64]
    whole: NDArray[np.bool_]
    missing: NDArray[np.object_]


def match_scenes(
    scenes: pa.Table,
    holdings: pa.Table,
    *,
    family: SceneFamily = "other",
    tolerance_seconds: float = 60.0,
    min_iou: float = 0.5,
    min_cover: float = 0.9,
) -> Match:
    """Match scenes (``SCENES_SCHEMA``) with holdings of the same sensor (``HOLDINGS_SCHEMA``), by design section 4, "Held".

    A holding with a key belongs to its key's scene, or to none. One without an id, or with a house id, belongs to the scene that agrees in
    time (within ``tolerance_seconds`` of a time that the scene or a copy of it states, or between start and end; on the same UTC day where
    the holding carries a date only) and whose footprint, or that of a copy, has the largest intersection over union, at least ``min_iou``;
    one to one, best first: neighbouring Sentinel-2 tiles overlap by up to half, and anything looser marks unheld scenes as held.

    A scene is held whole where the share of its area under its holdings is at least ``min_cover``, where what is missing is nowhere wider
    than 2 km, or where one of the outlines is a box along the axes and their boxes agree by ``min_cover``.
    """
    n, m = scenes.num_rows, holdings.num_rows
    first = same_rows(holdings)
    counts = first == np.arange(m)
    owner = np.full(m, -1, np.int64)
    iou, apart = np.full(m, np.nan), np.full(m, np.nan)
    keys = _known_keys(scenes, holdings, family)
    listed = pd.Index(scenes["scene_key"].to_pandas())
    place = listed.get_indexer(pd.Index(keys, dtype=object)) if n else np.full(m, -1)
    _take_keys_of_repetitions(keys, place, first)
    keyed = np.array([key is not None for key in keys], bool)
    by_key = keyed & (place >= 0) & counts
    owner[by_key] = place[by_key]
    shapes = shapely.from_wkb(holdings["geometry"].to_numpy(zero_copy_only=False)) if m else np.empty(0, object)
    cover = _cover(scenes, shapes, owner, min_cover)
    nameless = np.flatnonzero(~keyed & counts)
    if len(nameless) and n:
        _match_footprints(scenes, holdings, shapes, nameless, cover.whole, owner, iou, apart, tolerance_seconds, min_iou)
        if (owner[nameless] >= 0).any():
            cover = _cover(scenes, shapes, owner, min_cover)
    owner = owner[first]  # a repetition is its first row's holding
    house = int((~keyed & holdings["scene_id"].is_valid().to_numpy() & counts).sum()) if m else 0
    return Match(owner, counts, by_key, iou, apart, house, cover.share, cover.whole, cover.missing)


def _known_keys(scenes: pa.Table, holdings: pa.Table, family: SceneFamily) -> NDArray[np.object_]:
    """Keys of the holdings whose id is in a spelling of the catalogue's; None where there is none, or a house id.

    A family with a rule knows its spellings. Else an id is a house id where no scene of the partition is spelt alike: case folded, each run
    of digits one 0. With no scenes every spelling is known.
    """
    keys = holdings["scene_key"].to_numpy(zero_copy_only=False).copy()
    if family == "other" and scenes.num_rows and len(keys):
        spelt = {_spelling(key) for key in scenes["scene_key"].to_pylist()}
        keys[[key is not None and _spelling(key) not in spelt for key in keys]] = None
    return np.asarray(keys, dtype=object)


def _spelling(key: str) -> str:
    return re.sub(r"\d+", "0", key.casefold())


def _take_keys_of_repetitions(keys: NDArray[np.object_], place: NDArray[np.int64], first: NDArray[np.int64]) -> None:
    """A row that comes twice under two ids has the key of the one that the catalogue lists, else a known one."""
    for k in np.flatnonzero(first != np.arange(len(first))):
        stands = first[k]
        if (place[stands] < 0 <= place[k]) or (keys[stands] is None and keys[k] is not None):
            keys[stands], place[stands] = keys[k], place[k]


def _cover(scenes: pa.Table, shapes: NDArray[np.object_], owner: NDArray[np.int64], min_cover: float) -> _Cover:
    """How much of every scene the holdings cover that belong to it."""
    n = scenes.num_rows
    cover = _Cover(np.zeros(n), np.zeros(n, bool), np.full(n, None, dtype=object))
    rows = np.flatnonzero(owner >= 0)
    if not len(rows):
        return cover
    held, group = np.unique(owner[rows], return_inverse=True)
    own = united(shapes[rows], group, len(held))
    footprints = shapely.from_wkb(scenes["geometry"].take(pa.array(held)).to_numpy(zero_copy_only=False))
    equal = np.asarray(shapely.equals_exact(own, footprints, 0.0))
    cover.share[held[equal]], cover.whole[held[equal]] = 1.0, True
    held, own, footprints = held[~equal], own[~equal], footprints[~equal]
    if not len(held):
        return cover
    share = np.minimum(area_km2(common(own, footprints)) / area_km2(footprints), 1.0)
    whole = share >= min_cover - _ROUNDING
    share[share < _ROUNDING] = 0.0  # neighbours that touch share a hair
    boxes_agree = (is_box(own) | is_box(footprints)) & (iou_of_boxes(own, footprints) >= min_cover - _ROUNDING)
    # Crops in opposite corners span a box and are no outline of it, and a strip along its diagonal is too thin.
    whole |= boxes_agree & is_outline(own) & (share >= _OUTLINE_FILL)
    partly = np.flatnonzero(~whole & (share > 0))
    missing = opened(lacking(footprints[partly], own[partly]), MISSING_KM)
    vanished = shapely.is_empty(missing)
    whole[partly[vanished]] = True
    cover.share[held], cover.whole[held] = share, whole & (share > 0)
    cover.missing[held[partly[~vanished]]] = missing[~vanished]
    return cover


@dataclass(frozen=True)
class _Outlines:
    """Footprints that a holding may agree with: of every scene, and of every copy that makes one up with others."""

    scene: NDArray[np.int64]
    shapes: NDArray[np.object_]
    times: NDArray[np.int64]
    """Microseconds since 1970, one row an outline, one column a time of ``_TIMES``; ``_NO_INSTANT`` where it is not stated."""


def _outlines(scenes: pa.Table, free: NDArray[np.int64]) -> _Outlines:
    chosen = scenes.take(pa.array(free))
    tables, owners = [chosen], [free]
    copies = chosen["copies"].combine_chunks()
    flat = pc.list_flatten(copies)
    if len(flat):
        parts = pa.table(
            {name: pc.struct_field(flat, name) for name in ("datetime", "start_datetime", "end_datetime", "pass_time", "geometry")}
        )
        tables.append(parts.append_column("acquired", parts["datetime"]))
        owners.append(free[pc.list_parent_indices(copies).to_numpy()])
    times, shapes = [], []
    for table in tables:
        times.append(np.column_stack([pc.fill_null(table[name].cast(pa.int64()), _NO_INSTANT).to_numpy() for name in _TIMES]))
        shapes.append(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))
    return _Outlines(np.concatenate(owners), np.concatenate(shapes), np.concatenate(times))


def _match_footprints(
    scenes: pa.Table,
    holdings: pa.Table,
    shapes: NDArray[np.object_],
    nameless: NDArray[np.int64],
    whole: NDArray[np.bool_],
    owner: NDArray[np.int64],
    iou: NDArray[np.float64],
    apart: NDArray[np.float64],
    tolerance: float,
    min_iou: float,
) -> None:
    """Give each nameless holding the free outline that it agrees with best; writes ``owner``, ``iou`` and ``apart``.

    A scene that its keyed holdings hold whole is not free. One that they hold in part is: the rest of it may have no name.
    """
    free = np.flatnonzero(~whole)
    if not len(free):
        return
    outlines = _outlines(scenes, free)
    own = shapes[nameless]
    tree = shapely.STRtree(outlines.shapes)
    when = holdings["datetime"].cast(pa.int64()).to_numpy()[nameless]
    date_only = holdings["date_only"].to_numpy(zero_copy_only=False)[nameless]
    pairs = []
    for start in range(0, len(own), _AT_ONCE):  # a place that is passed often has many pairs
        h, s = tree.query(own[start : start + _AT_ONCE])
        h += start
        agrees, seconds = _agree_in_time(when[h], date_only[h], outlines.times[s], tolerance)
        h, s, seconds = h[agrees], s[agrees], seconds[agrees]
        ratio = _iou(own[h], outlines.shapes[s])
        good = ratio >= min_iou
        pairs.append((h[good], s[good], seconds[good], ratio[good]))
    h, s, seconds, ratio = (np.concatenate(column) for column in zip(*pairs, strict=True))
    order = np.lexsort((s, h, seconds, -ratio))  # best first; ties by time, then by place in the tables
    h, s, seconds, ratio = h[order], s[order], seconds[order], ratio[order]
    while len(h):
        # The first pair of a holding that is also the first of its outline is what taking the best pairs in turn would take.
        first = np.zeros(len(h), bool)
        first[np.intersect1d(np.unique(h, return_index=True)[1], np.unique(s, return_index=True)[1])] = True
        row = nameless[h[first]]
        owner[row], iou[row], apart[row] = outlines.scene[s[first]], ratio[first], seconds[first]
        left = ~np.isin(h, h[first]) & ~np.isin(s, s[first])
        h, s, seconds, ratio = h[left], s[left], seconds[left], ratio[left]


def _iou(a: NDArray[np.object_], b: NDArray[np.object_]) -> NDArray[np.float64]:
    """Intersection over union of each pair, in the plane of longitude and latitude."""
    shared = shapely.area(shapely.intersection(a, b))
    return np.asarray(shared / (shapely.area(a) + shapely.area(b) - shared))


def _agree_in_time(
    when: NDArray[np.int64], date_only: NDArray[np.bool_], times: NDArray[np.int64], tolerance: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each holding's time (microseconds) agrees with one of the times of its outline, and the seconds to the nearest of them."""
    stated = times != _NO_INSTANT
    # Whole microseconds: as seconds since 1970 in float64 a difference is off by up to 0.2 µs, and the tolerance is inclusive.
    away = np.where(stated, np.abs(np.where(stated, times, 0) - when[:, None]), np.iinfo(np.int64).max)
    seconds = away.min(axis=1) / 1e6
    start, end = times[:, _TIMES.index("start_datetime")], times[:, _TIMES.index("end_datetime")]
    spans = (start != _NO_INSTANT) & (end != _NO_INSTANT)
    within = spans & (start <= when) & (when <= end)
    same_day = (stated & (times // _DAY == when[:, None] // _DAY)).any(axis=1)
    same_day |= spans & (start // _DAY <= when // _DAY) & (when // _DAY <= end // _DAY)
    seconds = np.where(within, 0.0, seconds)
    return np.where(date_only, same_day, within | (seconds <= tolerance)), seconds


def hours_apart(scenes: pa.Table, holdings: pa.Table, match: Match, min_iou: float) -> str:
    """A hint where the holdings that belong to no scene all miss one of the same footprint by the same hours: their times are local."""
    lost = np.flatnonzero(match.counts & (match.scene_of_holding < 0) & ~holdings["date_only"].to_numpy(zero_copy_only=False))[:1000]
    some_agree = not np.isnan(match.seconds_apart).all()  # local times would keep every nameless holding from its scene
    if len(lost) < 2 or not scenes.num_rows or some_agree:
        return ""
    shapes = shapely.from_wkb(holdings["geometry"].take(pa.array(lost)).to_numpy(zero_copy_only=False))
    outlines = shapely.from_wkb(scenes["geometry"].to_numpy(zero_copy_only=False))
    h, s = shapely.STRtree(outlines).query(shapes)
    offset = (scenes["acquired"].cast(pa.int64()).to_numpy()[s] - holdings["datetime"].cast(pa.int64()).to_numpy()[lost][h]) / 1e6
    near = np.abs(offset) <= _FURTHEST_ZONE
    h, s, offset = h[near], s[near], offset[near]
    alike = _iou(shapes[h], outlines[s]) >= min_iou
    h, offset = h[alike], offset[alike]
    quarters = np.rint(offset / 900)
    whole = (np.abs(offset - quarters * 900) <= 60) & (quarters != 0)
    if not whole.any():
        return ""
    values, counts = np.unique(quarters[whole], return_counts=True)
    best = values[counts.argmax()]
    share = len(np.unique(h[whole & (quarters == best)])) / len(lost)
    if share < 0.8:
        return ""
    hours = best / 4
    return (
        f"{share:.0%} of the holdings that belong to no scene lie {abs(hours):g} h {'before' if hours > 0 else 'after'} a scene of the "
        "same footprint: their times look local, not UTC; give the date column a zone (PostGIS: timestamptz, or a view)"
    )


_FURTHEST_ZONE = 14.5 * 3600
"""Seconds; no time zone is further from UTC."""
