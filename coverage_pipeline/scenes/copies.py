"""Copies of one scene become one row: the newest copy, and the area that older ones add."""

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
"""Share of its own area that a copy must add: reprocessing jitter is 0.005 % (design section 4)."""
_TILE_KM2 = 109.8**2
_WHOLE_TILE = 0.98 * _TILE_KM2
"""Smallest area of a Sentinel-2 tile's whole square: the areas on the sphere are up to 0.9 % off, UTM's scale up to 0.3 %."""
_CORNER_DEGREES = 0.005
"""Tolerance at which the outline of a whole tile has its four corners and no other vertex."""
_MOST_NODATA = 1.0
"""Percent without data from which a whole tile's outline cannot be the footprint."""


def merge_copies(table: pa.Table) -> tuple[pa.Table, int, int]:
    """One row a scene key: the newest copy, and what older copies add to its area.

    ``table`` has ``ROWS_SCHEMA``. Returns the scenes, how many copies added nothing, and how many added area beyond the first of
    their scene.

    Newest first, a copy adds the area that the scene does not cover yet, and nothing where that is less than 2 % of its own. Copies
    that are no real footprint (a bounding box, or a tile's outline in place of one) come last, and add nothing where another copy
    is real. The footprint is the union of the copies that added, the cloud their mean weighted by the area each added, unknown where
    one's is; the rest of the row is the newest one's. (Areas in square degrees: all copies show one place.)
    """
    keys = table["scene_key"].to_pandas()
    copied = keys.duplicated(keep=False).to_numpy()
    if not copied.any():
        return table.select(SCENES_SCHEMA.names), 0, 0
    single = table.select(SCENES_SCHEMA.names).filter(pa.array(~copied))
    rows = table.filter(pa.array(copied))
    del table, keys  # of a large month it is most of the memory, where the caller has let go of it, too
    group = rows["scene_key"].combine_chunks().dictionary_encode().indices.to_numpy()
    shapes = shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False))
    stand_in = _is_stand_in(rows, group, shapes)
    newest_first = np.lexsort((-_dense_rank(rows["rank"]), stand_in, group))
    rows, group, shapes = rows.take(pa.array(newest_first)), group[newest_first], shapes[newest_first]
    footprint, added = _added_area(group, shapes, stand_in[newest_first])

    makes = added > 0
    owner, members = group[makes], np.bincount(group[makes])
    starts = np.concatenate([[0], np.cumsum(members)])
    made_of = rows.filter(pa.array(makes))
    newest = made_of.take(pa.array(starts[:-1])).select(SCENES_SCHEMA.names)
    several = members > 1
    cloud = made_of["cloud_cover"].to_numpy(zero_copy_only=False).astype(np.float64)  # NaN: not known
    mean = np.bincount(owner, cloud * added[makes]) / np.bincount(owner, added[makes])
    # Rounding must not leave the copies' range: 10 and 10 is not clear at a threshold of 10, and nothing passes 100.
    mean = np.clip(mean, np.minimum.reduceat(cloud, starts[:-1]), np.maximum.reduceat(cloud, starts[:-1]))
    footprint[several], reasons = normalise_footprints(footprint[several])
    assert not shapely.is_missing(footprint).any(), set(reasons)  # a union of usable footprints is usable
    offsets = pa.array(starts.astype(np.int32))
    changed = {
        "item_ids": pa.ListArray.from_arrays(offsets, made_of["item_id"].combine_chunks()),
        "cloud_cover": pa.array(mean, pa.float64(), from_pandas=True),
        "copies": pa.ListArray.from_arrays(
            offsets,
            pa.StructArray.from_arrays([made_of[field.name].combine_chunks() for field in COPY], fields=list(COPY)),
            mask=pa.array(~several),
        ),
        "geometry": pa.array(shapely.to_wkb(footprint), pa.binary()),
    }
    merged = pa.table({name: changed.get(name, newest[name]) for name in SCENES_SCHEMA.names}, schema=SCENES_SCHEMA)
    return pa.concat_tables([single, merged]), int((~makes).sum()), int((members - 1).sum())


def _dense_rank(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The place of each text among them all, in ascending order."""
    ranks: NDArray[np.int64] = pc.rank(column, tiebreaker="dense").to_numpy().astype(np.int64)
    return ranks


def _is_stand_in(rows: pa.Table, group: NDArray[np.int64], shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which copies have no footprint of their own: a bounding box, or the square of the tile where the footprint is less.

    Real footprints are often the whole tile, and another product of that datatake may have a part of it (13SDD of 2024-07-19 in the
    recorded items: 415 of 12,054 km²). The square is no footprint where the item states pixels without data, or where nothing is
    stated and a copy of another baseline is smaller. Products of one baseline are parts, not reprocessings of each other.
    """
    box: NDArray[np.bool_] = pc.equal(rows["geometry_source"], "bbox").to_numpy()
    whole = ~box & pc.starts_with(rows["scene_key"], "S2").to_numpy()
    whole[whole] = area_km2(shapes[whole]) >= _WHOLE_TILE
    whole[whole] = shapely.get_num_coordinates(shapely.simplify(shapes[whole], _CORNER_DEGREES)) == 5
    if not whole.any():
        return box
    frame = pd.DataFrame({"group": group, "baseline": rows["baseline"].to_pandas().fillna("")})
    smaller = frame[~whole & ~box]
    is_beside_smaller = frame["group"].isin(smaller["group"]).to_numpy()
    same = pd.MultiIndex.from_frame(frame).isin(pd.MultiIndex.from_frame(smaller)) & (frame["baseline"] != "").to_numpy()
    nodata = rows["nodata"].to_numpy(zero_copy_only=False).astype(np.float64)
    no_footprint = np.where(np.isnan(nodata), ~same, nodata > _MOST_NODATA)
    square: NDArray[np.bool_] = whole & is_beside_smaller & no_footprint
    return box | square


def _added_area(
    group: NDArray[np.int64], shapes: NDArray[np.object_], stand_in: NDArray[np.bool_]
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """The footprint of each group, and the area that each copy adds to its group's, square degrees; 0: it adds nothing.

    Copies come group by group, in the order in which they are taken. All second copies are looked at together, then all third ones.
    """
    first = np.flatnonzero(np.diff(group, prepend=-1))
    turn = np.arange(len(group)) - np.repeat(first, np.diff(first, append=len(group)))
    own = shapely.area(shapes)
    added = np.where(turn == 0, own, 0.0)
    footprint = shapes[first].copy()
    may_add = ~(stand_in & ~stand_in[first][group])  # the first is a stand-in only where all of its group are
    for number in range(1, int(turn.max(initial=0)) + 1):
        copy = np.flatnonzero((turn == number) & may_add)
        copy = copy[~shapely.equals_exact(shapes[copy], footprint[group[copy]])]
        news = shapely.area(shapely.difference(shapes[copy], footprint[group[copy]]))
        enough = news >= _LEAST_ADDED * own[copy]
        copy, news = copy[enough], news[enough]
        added[copy] = news
        footprint[group[copy]] = shapely.union(footprint[group[copy]], shapes[copy])
    return footprint, added
