"""Merge the copies of a scene into one row: the newest copy, plus the area that older copies add."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from coverage_pipeline.geometry.footprints import area_km2, normalise_footprints
from coverage_pipeline.scenes.schema import COPY, SCENES_SCHEMA

_LEAST_ADDED = 0.02
"""Smallest share of its own area that a copy must add: reprocessing jitter is 0.005 % (design section 4)."""
_TILE_KM2 = 109.8**2
_WHOLE_TILE = 0.98 * _TILE_KM2
"""Smallest area of a whole Sentinel-2 tile, km²: areas on the sphere are up to 0.9 % off, the scale of UTM up to 0.3 %."""
_CORNER_DEGREES = 0.005
"""Simplification tolerance that reduces the outline of a whole tile to its four corners."""
_MOST_NODATA = 1.0
"""Percent of pixels without data above which the outline of the whole tile cannot be the footprint."""


def merge_copies(table: pa.Table) -> tuple[pa.Table, int, int]:
    """One row per scene key: the newest copy, plus the area that older copies add.

    ``table`` has ``ROWS_SCHEMA``. Returns the scenes (``SCENES_SCHEMA``), the number of copies that added nothing, and the number that
    added area beyond the first copy of their scene.

    Copies are taken newest first. A copy adds the area that the scene does not cover yet, unless that is less than 2 % of its own area.
    Stand-ins (a bounding box, or a tile outline in place of a footprint) come last, and add nothing if another copy has a real footprint.
    The footprint is the union of the copies that added area. The cloud is their mean weighted by added area, unknown if any is unknown.
    All other columns come from the newest copy. Areas are in square degrees, because all copies show one place.
    """
    keys = table["scene_key"].to_pandas()
    copied = keys.duplicated(keep=False).to_numpy()
    if not copied.any():
        return table.select(SCENES_SCHEMA.names), 0, 0
    single = table.select(SCENES_SCHEMA.names).filter(pa.array(~copied))
    rows = table.filter(pa.array(copied))
    del table, keys  # frees most of the memory of a large month, if the caller holds no reference either
    group = rows["scene_key"].combine_chunks().dictionary_encode().indices.to_numpy()
    shapes = shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False))
    stand_in = _is_stand_in(rows, group, shapes)
    newest_first = np.lexsort((-_dense_rank(rows["rank"]), stand_in, group))
    rows, group, shapes = rows.take(pa.array(newest_first)), group[newest_first], shapes[newest_first]
    footprint, added = _added_area(group, shapes, stand_in[newest_first])

    contributes = added > 0
    owner, members = group[contributes], np.bincount(group[contributes])
    starts = np.concatenate([[0], np.cumsum(members)])
    contributing = rows.filter(pa.array(contributes))
    newest = contributing.take(pa.array(starts[:-1])).select(SCENES_SCHEMA.names)
    several = members > 1
    cloud = contributing["cloud_cover"].to_numpy(zero_copy_only=False).astype(np.float64)  # NaN: not known
    mean = np.bincount(owner, cloud * added[contributes]) / np.bincount(owner, added[contributes])
    # Clip rounding errors: the mean of two copies of 10 % must not be clear at a threshold of 10, and no mean may exceed 100.
    mean = np.clip(mean, np.minimum.reduceat(cloud, starts[:-1]), np.maximum.reduceat(cloud, starts[:-1]))
    footprint[several], reasons = normalise_footprints(footprint[several])
    assert not shapely.is_missing(footprint).any(), set(reasons)  # a union of usable footprints is usable
    offsets = pa.array(starts.astype(np.int32))
    changed = {
        "item_ids": pa.ListArray.from_arrays(offsets, contributing["item_id"].combine_chunks()),
        "cloud_cover": pa.array(mean, pa.float64(), from_pandas=True),
        "copies": pa.ListArray.from_arrays(
            offsets,
            pa.StructArray.from_arrays([contributing[field.name].combine_chunks() for field in COPY], fields=list(COPY)),
            mask=pa.array(~several),
        ),
        "geometry": pa.array(shapely.to_wkb(footprint), pa.binary()),
    }
    merged = pa.table({name: changed.get(name, newest[name]) for name in SCENES_SCHEMA.names}, schema=SCENES_SCHEMA)
    return pa.concat_tables([single, merged]), int((~contributes).sum()), int((members - 1).sum())


def _dense_rank(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Dense rank (n,) of each text, ascending from 1."""
    ranks: NDArray[np.int64] = pc.rank(column, tiebreaker="dense").to_numpy().astype(np.int64)
    return ranks


def _is_stand_in(rows: pa.Table, group: NDArray[np.int64], shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Copies (n,) without a real footprint: a bounding box, or the tile outline of a scene that covers less than the tile.

    A real footprint is often the whole tile, while another product of the datatake covers a part (13SDD of 2024-07-19 in the recorded
    items: 415 of 12,054 km²). The tile outline is a stand-in if the item states pixels without data, or if it states nothing and a copy
    of another baseline is smaller. Products of one baseline are parts, not reprocessings of each other.
    """
    box: NDArray[np.bool_] = pc.equal(rows["geometry_source"], "bbox").to_numpy()
    whole = ~box & pc.starts_with(rows["scene_key"], "S2").to_numpy()
    whole[whole] = area_km2(shapes[whole]) >= _WHOLE_TILE
    whole[whole] = shapely.get_num_coordinates(shapely.simplify(shapes[whole], _CORNER_DEGREES)) == 5
    if not whole.any():
        return box
    copies = pd.DataFrame({"group": group, "baseline": rows["baseline"].to_pandas().fillna("")})
    smaller = copies[~whole & ~box]
    is_beside_smaller = copies["group"].isin(smaller["group"]).to_numpy()
    has_smaller_sibling = pd.MultiIndex.from_frame(copies).isin(pd.MultiIndex.from_frame(smaller)) & (copies["baseline"] != "").to_numpy()
    nodata = rows["nodata"].to_numpy(zero_copy_only=False).astype(np.float64)
    no_footprint = np.where(np.isnan(nodata), ~has_smaller_sibling, nodata > _MOST_NODATA)
    square: NDArray[np.bool_] = whole & is_beside_smaller & no_footprint
    return box | square


def _added_area(
    group: NDArray[np.int64], shapes: NDArray[np.object_], stand_in: NDArray[np.bool_]
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """The footprint of each group, and the area (n,) that each copy adds to its group in square degrees; 0: nothing.

    Copies must be sorted by group, and by precedence within a group. All second copies are processed together, then all third copies.
    """
    first = np.flatnonzero(np.diff(group, prepend=-1))
    turn = np.arange(len(group)) - np.repeat(first, np.diff(first, append=len(group)))
    own = shapely.area(shapes)
    added = np.where(turn == 0, own, 0.0)
    footprint = shapes[first].copy()
    may_add = ~(stand_in & ~stand_in[first][group])  # the first copy is a stand-in only if all of its group are
    for number in range(1, int(turn.max(initial=0)) + 1):
        copy = np.flatnonzero((turn == number) & may_add)
        copy = copy[~shapely.equals_exact(shapes[copy], footprint[group[copy]])]
        new_area = shapely.area(shapely.difference(shapes[copy], footprint[group[copy]]))
        enough = new_area >= _LEAST_ADDED * own[copy]
        copy, new_area = copy[enough], new_area[enough]
        added[copy] = new_area
        footprint[group[copy]] = shapely.union(footprint[group[copy]], shapes[copy])
    return footprint, added
