"""Target areas: read from a file or address, checked, and brought to degrees."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from urllib.parse import urlsplit

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.redaction import public_address, redact
from coverage_pipeline.storage.bounded_http import local_copy
from coverage_pipeline.storage.paths import is_local, storage_path, vector_source

ENVIRONMENT = "COVERAGE_TARGETS"
_POLYGONAL = (3, 6)
_log = logging.getLogger(__name__)


class LocationsError(PlannerError):
    """Target areas that cannot be read or used, or an area of interest that needs them where there are none."""

    exit_code = 2


def fetch_targets(source: str | None = None) -> gpd.GeoDataFrame:
    """The areas that planners care about, one row a target: ``id``, ``name``, ``geometry`` in EPSG:4326.

    Parameters
    ----------
    source
        Path or URL of a GeoJSON, GeoParquet, GeoPackage or Shapefile; None takes the environment's ``COVERAGE_TARGETS``.

    Returns
    -------
    No rows where neither is set: then nothing is clipped to targets. ``id`` is the file's own, or the row number from 0;
    ``name`` the file's own, or the id. Polygons are valid and cut at the antimeridian; points and lines stay as they are.

    Raises
    ------
    LocationsError
        The file is missing, unreadable or has no rows; a row has no usable geometry, or two have one id; there is no CRS and
        the coordinates are not degrees.

    """
    source = next((text for text in (source, os.environ.get(ENVIRONMENT)) if text and text.strip()), None)
    if source is None:
        return _no_targets()
    place = _place(source)
    table = _read(source, place)
    if not len(table):
        raise LocationsError(f"targets in {place}: no rows; give a file with at least one area, or unset {ENVIRONMENT}")
    table = _in_degrees(table.reset_index(drop=True), place)
    ids = table["id"].astype("string") if "id" in table.columns else pd.Series([None] * len(table), dtype="string")
    ids = ids.fillna(pd.Series([str(row) for row in range(len(table))], dtype="string"))
    names = table["name"].astype("string").fillna(ids) if "name" in table.columns else ids
    if ids.duplicated().any():
        raise LocationsError(f"targets in {place}: id {ids[ids.duplicated()].iloc[0]!r} comes twice; ids must be unique")
    columns = {"id": ids.astype(object), "name": names.astype(object)}
    return gpd.GeoDataFrame(columns, geometry=_usable(table.geometry.to_numpy(), ids.to_list(), place), crs="EPSG:4326")


def targets_union(targets: gpd.GeoDataFrame) -> BaseGeometry:
    """All targets as one geometry; an empty GeometryCollection where there is none."""
    return targets.geometry.union_all() if len(targets) else shapely.GeometryCollection()


def _no_targets() -> gpd.GeoDataFrame:
    empty = pd.Series([], dtype=object)
    return gpd.GeoDataFrame({"id": empty, "name": empty}, geometry=gpd.GeoSeries([], dtype="geometry"), crs="EPSG:4326")


def _is_url(source: str) -> bool:
    return not is_local(storage_path(source))


def _place(source: str) -> str:
    """The source as messages name it."""
    return public_address(source)


def _read(source: str, place: str) -> gpd.GeoDataFrame:
    local = None if _is_url(source) else storage_path(source)
    if local is not None and not Path(local.path).exists():
        raise LocationsError(f"targets: no file at {place}; set {ENVIRONMENT} to a GeoJSON, GeoParquet, GeoPackage or Shapefile")
    path = urlsplit(source).path if local is None else local.path
    try:
        read = gpd.read_parquet if path.lower().endswith((".parquet", ".geoparquet")) else gpd.read_file
        if local is not None:
            table = read(path if read is gpd.read_parquet else vector_source(local))
        else:
            with local_copy(source) as copy:
                table = read(copy)
    except Exception as error:
        words = redact(str(error), source)
        raise LocationsError(
            f"targets in {place} cannot be read ({type(error).__name__}: {words}); set {ENVIRONMENT} to a GeoJSON, GeoParquet, "
            "GeoPackage or Shapefile"
        ) from None
    if not isinstance(table, gpd.GeoDataFrame):
        raise LocationsError(f"targets in {place}: a table without geometry; give a file of areas")
    return table


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
    _log.warning("targets in %s have no CRS; their bounds fit longitude and latitude, so they are taken as EPSG:4326", place)
    return table.set_crs("EPSG:4326")


def _usable(geometries: NDArray[np.object_], ids: list[str], place: str) -> NDArray[np.object_]:
    """Each row's geometry, polygons made fit for the grid."""

    def refuse(row: int, why: str) -> LocationsError:
        return LocationsError(f"targets in {place}: row {row} (id {ids[row]!r}) {why}; mend or remove it")

    for row in np.flatnonzero(shapely.is_missing(geometries) | shapely.is_empty(geometries)):
        raise refuse(int(row), "has no geometry")
    usable: NDArray[np.object_] = shapely.force_2d(geometries)
    bounds = shapely.bounds(usable)
    kinds = shapely.get_type_id(usable)
    polygons = np.flatnonzero(np.isin(kinds, _POLYGONAL))
    normalised, reasons = normalise_footprints(usable[polygons])
    for row, reason in zip(polygons, reasons, strict=True):
        if reason is not None:
            raise refuse(int(row), f"cannot be used: {reason}")
    usable[polygons] = normalised
    with np.errstate(invalid="ignore"):
        outside = ~((np.abs(bounds[:, [0, 2]]) <= 180).all(axis=1) & (np.abs(bounds[:, [1, 3]]) <= 90).all(axis=1))
    outside[polygons] = False
    for row in np.flatnonzero(outside):
        raise refuse(int(row), "leaves longitude ±180 or latitude ±90")
    return usable
