"""Checking the rows of a file of targets: each row that cannot be used is named with its reason, all of them in one report."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer

from coverage_pipeline.demand.target_table import season_months
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.redaction import printable

DEFAULT_MIN_COVER = 0.95
_POLYGONAL = (3, 6)
_POINTS = (0, 4)
_BUFFERABLE = (0, 1, 3, 4, 5, 6)
_CIRCLE = 128
"""Vertices of a circle: its polygon lacks 0.04 % of the circle's area."""
_MOST_BUFFER_KM = 2_000.0


@dataclass(frozen=True)
class TargetProblem:
    """Why a row, or a column, of the targets cannot be used."""

    row: int | None
    """From 0; None: the whole file."""
    id: str
    reason: str

    def __str__(self) -> str:
        name = printable(self.id, 60)
        return f"row {self.row} (id '{name}') {self.reason}" if self.row is not None else self.reason


class _Rows:
    """A table under check: which of its rows are usable so far."""

    def __init__(self, table: gpd.GeoDataFrame) -> None:
        self.table = table
        self.ids = ids_of(table)
        self.problems: list[TargetProblem] = []
        self.good = np.ones(len(table), bool)

    def refuse(self, rows: NDArray[np.bool_] | NDArray[np.intp], reason: str | NDArray[np.object_]) -> None:
        for row in np.flatnonzero(rows) if np.asarray(rows).dtype == bool else rows:
            self.good[row] = False
            self.problems.append(TargetProblem(int(row), str(self.ids[row]), reason if isinstance(reason, str) else str(reason[row])))

    def numbers(self, column: str, fill: float) -> NDArray[np.float64]:
        """A column of numbers, ``fill`` where none is given; rows with other text are refused."""
        if column not in self.table.columns:
            return np.full(len(self.table), fill)
        given = self.table[column]
        values = pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64)
        empty = given.isna().to_numpy() | (given.astype("string").str.strip() == "").fillna(True).to_numpy(dtype=bool)
        wrong = ~empty & ~np.isfinite(values)
        self.refuse(wrong, _quoted(given, f"has the {column} {{}}, which is no number"))
        return np.where(empty, fill, values)

    def texts(self, column: str) -> NDArray[np.object_]:
        if column not in self.table.columns:
            return np.full(len(self.table), "", dtype=object)
        given = self.table[column]
        texts = _as_text(given)
        return np.where(pd.isna(texts), "", texts).astype(object)


def _quoted(given: pd.Series, words: str) -> NDArray[np.object_]:
    return np.array([words.format(repr(printable(value, 40))) for value in given], dtype=object)


def _as_text(given: pd.Series) -> NDArray[np.object_]:
    """Values as text, None where missing; a whole number that a format keeps as a float (1.0) is that number (1)."""
    if pd.api.types.is_float_dtype(given):
        return np.array([None if pd.isna(v) else str(int(v)) if float(v).is_integer() else str(v) for v in given], dtype=object)
    return np.array([None if pd.isna(v) else str(v).strip() for v in given], dtype=object)


def ids_of(table: gpd.GeoDataFrame) -> NDArray[np.object_]:
    """Each row's ``id`` as text, or its number from 0 where it has none."""
    numbers = np.array([str(row) for row in range(len(table))], dtype=object)
    if "id" not in table.columns:
        return numbers
    ids = _as_text(table["id"])
    return np.where([text is None or text == "" for text in ids], numbers, ids).astype(object)


def check_outlines(
    table: gpd.GeoDataFrame, *, buffer_needed: bool
) -> tuple[NDArray[np.object_], NDArray[np.object_], NDArray[np.bool_], list[TargetProblem]]:
    """Ids and usable outlines of a table in EPSG:4326, which rows are usable, and why the others are not.

    Polygons come back valid and cut at the antimeridian. ``buffer_km`` grows a shape; with ``buffer_needed`` a point or line without one is
    refused, else it stays as it is.
    """
    rows = _Rows(table)
    shapes = _outlines(rows, buffer_needed)
    return rows.ids, shapes, rows.good, rows.problems


def check_targets(
    table: gpd.GeoDataFrame, sensors: Collection[str], groups: Collection[str] = ()
) -> tuple[gpd.GeoDataFrame, list[TargetProblem]]:
    """The usable rows as the table of ``target_table.Targets``, and the problems of all others.

    ``sensors`` and ``groups`` are the names that a column ``desired_<name>`` may have.
    """
    rows = _Rows(table)
    shapes = _outlines(rows, buffer_needed=True)
    names = rows.texts("name")
    columns: dict[str, NDArray[np.float64] | NDArray[np.object_]] = {
        "id": rows.ids,
        "name": np.where(names == "", rows.ids, names),
        "group": rows.texts("group"),
        "weight": rows.numbers("weight", 1.0),
        "desired": rows.numbers("desired", np.nan),
    }
    rows.refuse(columns["weight"] <= 0, "has a weight that is not above 0")
    known = [*sensors, *groups]
    for column in (str(name) for name in table.columns):
        if not column.startswith("desired_"):
            continue
        if column.removeprefix("desired_") not in known:
            reason = f"column {printable(column, 60)} names no sensor and no group; known are {', '.join(known)}"
            rows.problems.append(TargetProblem(None, "", reason))
            continue
        columns[column] = rows.numbers(column, np.nan)
    for column, values in columns.items():
        if column.startswith("desired"):
            rows.refuse((values < 0) | (values > 31), f"has a {column} that is not 0 to 31 observations a month")
    season, min_cover = rows.texts("season"), rows.numbers("min_cover", DEFAULT_MIN_COVER)
    rows.refuse(_no_season(season), _quoted(pd.Series(season), "has the season {}: write months such as 4-10 or 11-2"))
    rows.refuse(~((min_cover > 0) & (min_cover <= 1)), "has a min_cover that is not a share above 0 and up to 1")
    columns |= {"season": season, "min_cover": min_cover}
    columns["area_km2"] = ellipsoid_km2(shapes)
    frame = gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")
    problems = sorted(rows.problems, key=lambda problem: -1 if problem.row is None else problem.row)
    return frame[rows.good].reset_index(drop=True), problems


def _no_season(seasons: NDArray[np.object_]) -> NDArray[np.bool_]:
    wrong = np.zeros(len(seasons), bool)
    for text in {str(season) for season in seasons}:
        try:
            season_months(text)
        except ValueError:
            wrong |= seasons == text
    return wrong


def _outlines(rows: _Rows, buffer_needed: bool) -> NDArray[np.object_]:
    """Each row's usable outline, None where refused."""
    ids = pd.Series(rows.ids)
    rows.refuse(ids.duplicated().to_numpy(), "comes twice; ids must be unique")
    shapes: NDArray[np.object_] = shapely.force_2d(rows.table.geometry.to_numpy())
    none = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    rows.refuse(none, "has no geometry")
    buffer = rows.numbers("buffer_km", 0.0)
    rows.refuse(~((buffer >= 0) & (buffer <= _MOST_BUFFER_KM)), f"has a buffer_km that is not 0 to {_MOST_BUFFER_KM:g}")
    kinds = shapely.get_type_id(shapes)
    polygonal = np.isin(kinds, _POLYGONAL)
    rows.refuse(~none & ~np.isin(kinds, _BUFFERABLE), "cannot be used: it is neither a polygon, a line nor a point")
    bounds = shapely.bounds(shapes)
    with np.errstate(invalid="ignore"):
        outside = ~((np.abs(bounds[:, [0, 2]]) <= 180).all(axis=1) & (np.abs(bounds[:, [1, 3]]) <= 90).all(axis=1))
    rows.refuse(outside & ~none & ~polygonal, "leaves longitude ±180 or latitude ±90")
    if buffer_needed:
        rows.refuse(~none & ~polygonal & np.isin(kinds, _BUFFERABLE) & ~(buffer > 0), "is a point or line without a buffer_km")
    usable = shapes.copy()
    _normalise(rows, usable, rows.good & polygonal)
    grown = rows.good & (buffer > 0)
    points = np.flatnonzero(grown & (kinds == 0))
    usable[points] = _circles(shapes[points], buffer[points])
    for row in np.flatnonzero(grown & (kinds != 0)):
        usable[row] = _grown(usable[row], float(buffer[row]))
    _normalise(rows, usable, grown)
    usable[~rows.good] = None
    return usable


def _normalise(rows: _Rows, shapes: NDArray[np.object_], chosen: NDArray[np.bool_]) -> None:
    """Make the chosen polygons fit for the map, in place; refuse those that cannot be."""
    places = np.flatnonzero(chosen)
    shapes[places], reasons = normalise_footprints(shapes[places])
    for row, reason in zip(places, reasons, strict=True):
        if reason is not None:
            rows.refuse(np.array([row]), f"cannot be used: {reason}")


def _circles(points: NDArray[np.object_], km: NDArray[np.float64]) -> NDArray[np.object_]:
    """Circles on the ellipsoid about points, as polygons; longitudes may pass ±180."""
    if not len(points):
        return points
    x, y = shapely.get_coordinates(points).T
    azimuth = np.linspace(360, 0, _CIRCLE, endpoint=False)
    n = len(points)
    lon, lat, _ = Geod(ellps="WGS84").fwd(np.repeat(x, _CIRCLE), np.repeat(y, _CIRCLE), np.tile(azimuth, n), np.repeat(km * 1000, _CIRCLE))
    return np.asarray(shapely.polygons(np.stack([np.reshape(lon, (n, _CIRCLE)), np.reshape(lat, (n, _CIRCLE))], axis=-1)))


def _grown(shape: shapely.Geometry, km: float) -> shapely.Geometry:
    """A shape grown by a distance, in an azimuthal equidistant plane about its middle."""
    middle = shape.representative_point()
    plane = Transformer.from_crs("EPSG:4326", f"+proj=aeqd +lat_0={middle.y} +lon_0={middle.x} +ellps=WGS84", always_xy=True)
    flat = shapely.transform(shapely.segmentize(shape, 0.1), lambda xy: np.column_stack(plane.transform(xy[:, 0], xy[:, 1])))
    grown = flat.buffer(km * 1000, quad_segs=32)
    return shapely.transform(grown, lambda xy: np.column_stack(plane.transform(xy[:, 0], xy[:, 1], direction="INVERSE")))
