"""The order of a file of scenes: along a Hilbert curve, so that the scenes of a place lie in few row groups."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely

from coverage_pipeline.geometry.wkb import wkb_bounds

ROWS_A_GROUP = 1024
"""Rows of a row group of scenes, and of the matchup beside it. Smaller groups make the file's metadata longer than what they spare."""
_LEVEL = 16
_GLOBE = (-180.0, -90.0, 180.0, 90.0)


def along_the_curve(scenes: pa.Table) -> pa.Table:
    """The scenes by the Hilbert distance of the middle of their bounding boxes, then by pass time and scene key.

    Footprints that are cut at the antimeridian have boxes around the globe: they come last, so that they are in few row groups.
    """
    if not scenes.num_rows:
        return scenes
    west, south, east, north = wkb_bounds(scenes["geometry"]).T
    middles = gpd.GeoSeries(shapely.points((west + east) / 2, (south + north) / 2))
    distance = middles.hilbert_distance(total_bounds=_GLOBE, level=_LEVEL).to_numpy().astype(np.int64)
    place = np.where(east - west > 180, np.iinfo(np.int64).max, distance)
    keys = pa.table({"place": place, "pass_time": scenes["pass_time"], "scene_key": scenes["scene_key"], "row": np.arange(scenes.num_rows)})
    rows = keys.sort_by([("place", "ascending"), ("pass_time", "ascending"), ("scene_key", "ascending")])["row"]
    return scenes.take(rows)
