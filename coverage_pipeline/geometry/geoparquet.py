"""GeoParquet 1.1: WKB in EPSG:4326 with a bounding-box column, so that readers prune rows without opening geometries."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import shapely
from pyproj import CRS

_BOX = ("xmin", "ymin", "xmax", "ymax")


def as_geoparquet(table: pa.Table) -> pa.Table:
    """The table with a ``bbox`` struct column and the file metadata of GeoParquet 1.1.0.

    ``table`` has a ``geometry`` column of WKB polygons; everything else stays as it is. The specification is at
    https://geoparquet.org/releases/v1.1.0/.
    """
    geometries = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    bounds = shapely.bounds(geometries).reshape(-1, 4)
    box = pa.StructArray.from_arrays([pa.array(bounds[:, k], pa.float64()) for k in range(4)], names=list(_BOX))
    codes = {0: "Point", 3: "Polygon", 6: "MultiPolygon"}
    types = {codes.get(int(c), "GeometryCollection") for c in np.unique(shapely.get_type_id(geometries))}
    column = {
        "encoding": "WKB",
        "geometry_types": sorted(types),
        "crs": CRS.from_epsg(4326).to_json_dict(),
        "edges": "planar",
        "covering": {"bbox": {corner: ["bbox", corner] for corner in _BOX}},
    }
    if len(bounds):
        column["bbox"] = [*bounds[:, :2].min(axis=0).tolist(), *bounds[:, 2:].max(axis=0).tolist()]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    metadata = {**(table.schema.metadata or {}), b"geo": json.dumps(geo).encode()}
    return table.append_column("bbox", box).replace_schema_metadata(metadata)
