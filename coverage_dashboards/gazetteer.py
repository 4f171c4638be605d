"""What a planner may type to get to a place: coordinates, a target, a country, a Sentinel-2 tile or a Landsat path and row.

Nothing is asked of the internet. Coordinates are read by geopy, latitude first as maps and the page itself write them, tiles by NGA's MGRS
library (``mgrs``). WRS-2 has no library: its frames follow from the orbit (``wrs2_frame``).
"""

from __future__ import annotations

import difflib
import math
import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import mgrs
import numpy as np
import pyproj
import shapely
from geopy.point import Point
from mgrs._native import MGRSError

from coverage_dashboards.hexmap import hexagon_at
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry import outlines
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid.spec import GridSpec

LONGEST = 200
"""Characters of what is typed."""
_TILE = re.compile(r"T?((?:0?[1-9]|[1-5][0-9]|60)[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])", re.IGNORECASE | re.ASCII)
_PATH_ROW = re.compile(r"(?:wrs-?2?\s*)?(?:path\s*)?(\d{1,3})\s*/\s*(?:row\s*)?(\d{1,3})", re.IGNORECASE | re.ASCII)

Kind = Literal["cell", "target", "tile", "frame", "country", "request", "area"]


class NoSuchPlace(PlannerError):
    """What was typed is no place that is known."""


@dataclass(frozen=True)
class Found:
    """A place, as somebody named it."""

    kind: Kind
    title: str
    text: str
    """What leads to it again."""
    outline: shapely.Geometry
    """In degrees, valid, cut at the antimeridian."""


def find(text: str, grid: GridSpec, targets: Targets | None) -> Found:
    """The place that ``text`` names; of coordinates the grid's cell that contains them.

    Raises ``NoSuchPlace`` that says what can be typed.
    """
    text = " ".join(text[:LONGEST].split())
    for one in (_target(text, targets), _path_row(text), _tile(text), _coordinates(text, grid), _country(text)):
        if one is not None:
            return one
    raise NoSuchPlace(_unknown(text, targets))


def cell_at(lon: float, lat: float, grid: GridSpec) -> Found:
    """The grid's cell that contains a point; raises ``NoSuchPlace`` beside the grid."""
    west, south, east, north = grid.bounds
    if grid.h3_res is not None and math.isfinite(lon) and abs(lon) <= 180 and math.isfinite(lat) and abs(lat) <= 90:
        name, outline = hexagon_at(lon, lat, grid.h3_res)
        return Found("cell", f"H3 cell {name} about {position(lat, lon)}", f"{lat:.4f},{lon:.4f}", outline)
    if not (math.isfinite(lon) and math.isfinite(lat)) or not (west <= lon <= east and south <= lat <= north):
        raise NoSuchPlace("This place is beside the area that the cube covers.")
    step = grid.resolution
    slack = 1e-9  # 47.6 is an edge of cells of 0.1°, and not a hair south of it
    column = min(int((lon - west) / step + slack), grid.shape[1] - 1)
    row = min(int((lat - south) / step + slack), grid.shape[0] - 1)
    box = shapely.box(west + column * step, south + row * step, west + (column + 1) * step, south + (row + 1) * step)
    middle = box.centroid
    digits = max(0, len(f"{step / 2:.6f}".rstrip("0").split(".")[1]))
    title = f"Cell of {step:g}° about {position(middle.y, middle.x, digits)}"
    return Found("cell", title, f"{middle.y:.{digits}f},{middle.x:.{digits}f}", box)


def position(lat: float, lon: float, digits: int = 2) -> str:
    """For example ``47.65° N, 9.35° E``."""
    return f"{abs(lat):.{digits}f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.{digits}f}° {'E' if lon >= 0 else 'W'}"


def _target(text: str, targets: Targets | None) -> Found | None:
    if targets is None:
        return None
    wanted = text.removeprefix("target:").strip().casefold()
    table = targets.table
    for column in ("id", "name"):
        same = np.flatnonzero([str(value).casefold() == wanted for value in table[column]])
        if same.size:
            return target_found(table.iloc[int(same[0])])
    return None


def target_label(key: str, name: str) -> str:
    """What a target is called: by its name, and by its id where that is another."""
    return name if name == key else f"{name} ({key})"


def target_found(row: Any) -> Found:
    """A row of the table of targets as a place."""
    key = str(row["id"])
    return Found("target", target_label(key, str(row["name"])), f"target:{key}", row["geometry"])


def _coordinates(text: str, grid: GridSpec) -> Found | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a longitude beyond 180 is a slip of the pen, not a turn around the world
            point = Point.from_string(text)
    except (ValueError, UserWarning):
        return None
    if not re.search(r"\d", text) or abs(point.longitude) > 180:
        return None
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    if len(numbers) == 2 and abs(float(numbers[1])) > 180:
        raise NoSuchPlace(f"Longitude {numbers[1]} is beyond 180°: write latitude, then longitude, such as 47.65, 9.35")
    return cell_at(point.longitude, point.latitude, grid)


def _tile(text: str) -> Found | None:
    match = _TILE.fullmatch(text)
    if match is None:
        return None
    name = match[1].upper().zfill(5)
    outline = sentinel2_tile(name)
    return None if outline is None else Found("tile", f"Sentinel-2 tile {name}", name, outline)


TILE_METRES = 109_800.0
"""Side of a Sentinel-2 tile: 5490 pixels of 20 m (Sentinel-2 Products Specification Document, tiling)."""
_TILE_NORTH_WEST = 20.0
"""Metres that a tile reaches west and north beyond its square of 100 km, as ESA's tiling grid has it."""

_BANDS = "CDEFGHJKLMNPQRSTUVWX"  # of latitude, 8° each from 80° S
_METRES_A_DEGREE = 110_900.0  # along a meridian in UTM, to a kilometre


@cache
def sentinel2_tile(name: str) -> shapely.Geometry | None:
    """The outline of a tile such as ``32TNS``, degrees; None where MGRS has no such square."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a square at the edge of its latitude band, see below
            zone, hemisphere, easting, northing = mgrs.MGRS().MGRSToUTM(name)
    except MGRSError:
        return None
    # The letters of rows repeat every 2,000 km, and at a band's edge the library may take the next one: the band tells which is meant.
    falsely = 0 if hemisphere == "N" else 10_000_000
    middle = (8 * _BANDS.index(name[2]) - 76) * _METRES_A_DEGREE + falsely
    northing += round((middle - northing) / 2_000_000) * 2_000_000
    west = math.floor(easting / 100_000) * 100_000 - _TILE_NORTH_WEST
    top = math.floor(northing / 100_000) * 100_000 + 100_000 + _TILE_NORTH_WEST
    ring = shapely.segmentize(shapely.box(west, top - TILE_METRES, west + TILE_METRES, top), 10_000)
    utm = pyproj.CRS.from_epsg((32600 if hemisphere == "N" else 32700) + int(zone))
    lon, lat = pyproj.Transformer.from_crs(utm, "EPSG:4326", always_xy=True).transform(*shapely.get_coordinates(ring).T)
    return _usable(shapely.Polygon(np.column_stack([lon, lat])))


def _path_row(text: str) -> Found | None:
    match = _PATH_ROW.fullmatch(text)
    if match is None:
        return None
    path, row = int(match[1]), int(match[2])
    if not (1 <= path <= WRS2_PATHS and 1 <= row <= WRS2_ROWS):
        raise NoSuchPlace(f"WRS-2 has paths 1 to {WRS2_PATHS} and rows 1 to {WRS2_ROWS}, so there is no {path}/{row}.")
    return Found("frame", f"Landsat path {path}, row {row}", f"{path:03d}/{row:03d}", wrs2_frame(path, row))


WRS2_PATHS, WRS2_ROWS = 233, 248
_INCLINATION = math.radians(98.2)
_ECCENTRICITY2 = 0.006694379990141  # of WGS 84
_FIRST_NODE = -64.6
"""Degrees east where path 1 crosses the equator southward, in row 60 (Landsat 8 Data Users Handbook, section 2.4)."""
_HALF_WIDTH, _HALF_LENGTH = math.radians(0.84), math.radians(0.78)
"""Half of a frame, 185 km across and 180 km along the track with its overlap (the same handbook), as angles at the Earth's centre."""


@cache
def wrs2_frame(path: int, row: int) -> shapely.Geometry:
    """The outline of a frame of the Worldwide Reference System 2, degrees, to about 10 km.

    From the orbit alone: 233 revolutions of 248 rows in 16 days, inclined by 98.2°, of which row 60 crosses the equator southward.
    """
    turn = 2 * math.pi * 16 / WRS2_PATHS  # of the Earth during one revolution
    node = math.radians(_FIRST_NODE - (path - 1) * 360 / WRS2_PATHS)
    along = math.radians((row - 60) * 360 / WRS2_ROWS)
    corners = []
    for ahead, aside in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
        u, w = along + ahead * _HALF_LENGTH, aside * _HALF_WIDTH
        # In the plane of the orbit: x to the descending node, y along the motion there, z to the orbit's normal.
        x, y, z = math.cos(w) * math.cos(u), math.cos(w) * math.sin(u), math.sin(w)
        # A descending node leads south-west: the motion there has the inclination's supplement to the equator.
        east, north = y * math.cos(_INCLINATION) + z * math.sin(_INCLINATION), -y * math.sin(_INCLINATION) + z * math.cos(_INCLINATION)
        longitude = node + math.atan2(east, x) - turn * u / (2 * math.pi)
        # From the angle at the Earth's centre to the latitude of maps (WGS 84).
        latitude = math.atan2(north, (1 - _ECCENTRICITY2) * math.hypot(east, x))
        corners.append((math.degrees(longitude), math.degrees(latitude)))
    lon, lat = np.array(corners).T
    lon = np.unwrap(lon, period=360.0)
    lon -= 360 * round(float(lon.mean()) / 360)
    return _usable(shapely.Polygon(np.column_stack([lon, lat])))


def _country(text: str) -> Found | None:
    wanted = text.casefold()
    for name, outline in outlines.countries().items():
        if name.casefold() == wanted:
            return Found("country", name, name, outline)
    return None


def _usable(outline: shapely.Geometry) -> shapely.Geometry:
    """Valid, and cut at the antimeridian."""
    (usable,), _ = normalise_footprints(np.array([outline], dtype=object))
    return usable


def _unknown(text: str, targets: Targets | None) -> str:
    names = list(outlines.countries())
    if targets is not None:
        names += [*map(str, targets.table["name"]), *map(str, targets.table["id"])]
    near = difflib.get_close_matches(text.casefold(), {name.casefold(): name for name in names}, 3, 0.7)
    spelling = {name.casefold(): name for name in names}
    meant = f" Did you mean {', '.join(spelling[name] for name in near)}?" if near else ""
    return (
        f"“{text}” is no place that is known here.{meant} Type coordinates (47.65, 9.35 or 47.65 N 9.35 E or 47°39'N 9°21'E), a target, a "
        "country, a Sentinel-2 tile (32TNS) or a Landsat path/row (193/027)."
    )
