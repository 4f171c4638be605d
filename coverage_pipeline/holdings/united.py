"""Holdings of one scene become one row: their footprints united, and their cloud the mean by area."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from coverage_pipeline.geometry.footprints import area_km2, normalise_footprints
from coverage_pipeline.geometry.polygons import added_areas, united
from coverage_pipeline.scenes.schema import TIME

HELD_SCENES_SCHEMA = pa.schema(
    [
        pa.field("pass_time", TIME, nullable=False),
        pa.field("cloud", pa.float64()),  # percent; null: not known
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)
"""What is gridded: one row a held scene of the month."""


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
    return one_row_a_group(holdings, np.where(key.isna(), len(codes) + np.arange(len(codes)), codes))


def one_row_a_group(holdings: pa.Table, group: NDArray[np.int64]) -> pa.Table:
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
