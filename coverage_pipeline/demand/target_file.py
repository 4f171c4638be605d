"""Reading a file of targets, of any format, into one table in degrees of longitude and latitude."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from urllib.parse import urlsplit

import geopandas as gpd
import pandas as pd
import pyogrio
import shapely

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.redaction import public_address, redact
from coverage_pipeline.storage.bounded_http import local_copy
from coverage_pipeline.storage.paths import is_local, storage_path, vector_source

ENVIRONMENT = "COVERAGE_TARGETS"
FORMATS = "GeoJSON, GeoParquet, GeoPackage, Shapefile (zipped too), KML or CSV (lon and lat, or WKT)"
MOST_TARGETS = 100_000
MOST_VERTICES = 20_000_000
_WKT_COLUMNS = ("wkt", "geometry", "geom")
_LON_COLUMNS, _LAT_COLUMNS = ("lon", "longitude", "x"), ("lat", "latitude", "y")
_log = logging.getLogger(__name__)


def read_target_file(source: str) -> gpd.GeoDataFrame:
    """The rows of a file of targets with their columns, in EPSG:4326, index 0 to n − 1; nothing is checked but the CRS and the size.

    Raises ``LocationsError`` for a file that is missing, unreadable, empty or too large; for one without geometry, or of several layers
    (the folders of a KML are read together); and for one that names no CRS and whose coordinates are not degrees.
    """
    place = public_address(source)
    table = _read(source, place)
    if not len(table):
        raise LocationsError(f"targets in {place}: no rows; give a file with at least one area, or unset {ENVIRONMENT}")
    if len(table) > MOST_TARGETS:
        raise LocationsError(
            f"targets in {place}: {len(table):,} rows; at most {MOST_TARGETS:,} targets can be used: dissolve or split them"
        )
    vertices = int(shapely.get_num_coordinates(table.geometry.to_numpy()).sum())
    if vertices > MOST_VERTICES:
        raise LocationsError(f"targets in {place}: {vertices:,} vertices; at most {MOST_VERTICES:,} can be used: simplify the outlines")
    return _in_degrees(_lower_case(table.reset_index(drop=True)), place)


def _lower_case(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Column names in lower case, as KML and many shapefiles do not write them; of two that would be one the lower-case one stays."""
    geometry = table.active_geometry_name
    new = {column: str(column).strip().lower() for column in table.columns if column != geometry}
    return table.rename(columns={column: name for column, name in new.items() if name not in table.columns})


def _read(source: str, place: str) -> gpd.GeoDataFrame:
    local = storage_path(source) if is_local(storage_path(source)) else None
    if local is not None and not Path(local.path).exists():
        raise LocationsError(f"targets: no file at {place}; set {ENVIRONMENT} to a file: {FORMATS}")
    name = (urlsplit(source).path if local is None else local.path).lower()
    try:
        if local is not None:
            table = _read_local(local.path if name.endswith((".parquet", ".geoparquet", ".csv")) else vector_source(local), name)
        else:
            with local_copy(source, vector=True) as copy:
                table = _read_local(copy, name)
    except LocationsError as error:
        raise LocationsError(f"targets in {place}: {error}") from None
    except Exception as error:
        words = redact(str(error), source)
        raise LocationsError(
            f"targets in {place} cannot be read ({type(error).__name__}: {words}); set {ENVIRONMENT} to a file: {FORMATS}"
        ) from None
    if not isinstance(table, gpd.GeoDataFrame) or table.active_geometry_name is None:
        raise LocationsError(f"targets in {place}: a table without geometry; give a file of areas")
    return table


def _read_local(file: object, name: str) -> gpd.GeoDataFrame:
    if name.endswith((".parquet", ".geoparquet")):
        return gpd.read_parquet(file)
    if name.endswith(".csv"):
        return _read_csv(Path(str(file)).read_bytes())
    # By number: the layer of a GeoJSON that is read from memory has another name each time.
    layers = {number: str(layer) for number, (layer, kind) in enumerate(pyogrio.list_layers(file)) if kind is not None}
    if len(layers) > 1 and not name.endswith((".kml", ".kmz")):
        raise LocationsError(f"{len(layers)} layers ({', '.join(list(layers.values())[:6])}); give a file with one layer of areas")
    if isinstance(file, io.BytesIO):
        file.seek(0)
    tables = [gpd.read_file(file, layer=layer) for layer in layers] or [gpd.read_file(file)]
    if len(tables) == 1:
        return tables[0]
    return gpd.GeoDataFrame(pd.concat([table for table in tables if len(table)], ignore_index=True), crs=tables[0].crs)


def _read_csv(content: bytes) -> gpd.GeoDataFrame:
    """Rows of text; columns ``lon`` and ``lat`` in degrees, or WKT in ``wkt`` or ``geometry``."""
    text = content.decode("utf-8-sig")
    header = text.split("\n", 1)[0]
    separator = max((",", ";", "\t"), key=header.count)
    frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, na_values=[""], skipinitialspace=True)
    by_name = {str(column).strip().lower(): column for column in frame.columns}
    frame = frame.rename(columns={column: name for name, column in by_name.items()})
    wkt = next((name for name in _WKT_COLUMNS if name in by_name), None)
    lon, lat = (next((name for name in names if name in by_name), None) for names in (_LON_COLUMNS, _LAT_COLUMNS))
    if wkt is not None:
        shapes = shapely.from_wkt(frame[wkt].to_numpy(dtype=object), on_invalid="ignore")
        frame = frame.drop(columns=[wkt])
    elif lon is not None and lat is not None:
        x, y = (pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float) for name in (lon, lat))
        shapes = shapely.points(x, y)
        shapes[pd.isna(x) | pd.isna(y)] = None
        frame = frame.drop(columns=[lon, lat])
    else:
        raise LocationsError(f"a CSV with the columns {', '.join(map(str, frame.columns[:12]))}; it needs lon and lat, or wkt")
    return gpd.GeoDataFrame(frame, geometry=shapes)


def _in_degrees(table: gpd.GeoDataFrame, place: str) -> gpd.GeoDataFrame:
    if table.crs is not None:
        return table.to_crs("EPSG:4326")
    west, south, east, north = table.total_bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        if all(math.isnan(bound) for bound in (west, south, east, north)):
            return table.set_crs("EPSG:4326")  # only empty geometries: their rows are named later
        raise LocationsError(
            f"targets in {place}: no CRS, and bounds {west:g} {south:g} {east:g} {north:g} are not degrees; add the CRS "
            "(a .prj beside a shapefile)"
        )
    if not place.lower().endswith(".csv"):  # whose coordinates are degrees by definition
        _log.warning("targets in %s have no CRS; their bounds fit longitude and latitude, so they are taken as EPSG:4326", place)
    return table.set_crs("EPSG:4326")
