"""Footprints as catalogues give them, made fit for the grid: flat lon/lat polygons that never leave the map.

Nearly every footprint is fine and passes through untouched by vectorised checks. The odd ones are unwrapped along
longitude, closed over the pole where they go around one, cut at ±180 and repaired.

The package antimeridian 0.4 lost: it closes some rings over the wrong pole and loses holes that lie beyond ±180 (the tests keep it as a
peer for all else).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

_POLYGON, _MULTIPOLYGON = 3, 6
# Longitudes this close to ±180 are rounding noise of a reprojection; kept, they would be slivers on the far side.
_SEAM_NOISE = 1e-9
# Unwrapped tracks run past ±180 (ESA's acquisition plans reach −213); two turns out it is no longitude any more.
_LON_LIMIT = 720.0
EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth, IUGG (Moritz, Geodetic Reference System 1980), for distances."""
_AUTHALIC_RADIUS_KM = 6371.0072  # of the sphere with the ellipsoid's area, GRS 80 (Moritz, Geodetic Reference System 1980)

MISSING = "geometry missing"
EMPTY = "geometry empty"
NOT_A_POLYGON = "geometry is not a polygon"
NOT_FINITE = "coordinates not finite"
LATITUDE = "latitude beyond ±90"
LONGITUDE = "longitude beyond ±720"
NO_AREA = "geometry has no area"
WINDS_TWICE = "ring winds around the pole more than once"


class _Unusable(ValueError):
    """A footprint that no repair turns into an area; the message is the reason for the rejected table."""


def normalise_footprints(geometries: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Footprints that the grid can take, and why the others can't be used.

    ``geometries`` is a 1-D object array of shapely geometries or None, in degrees of longitude and latitude. Two object
    arrays of its length come back:

    - geometries: valid 2-D Polygons or MultiPolygons within ±180 and ±90 that have an area, or None where unusable. A
      footprint that is fine already is returned as the same object.
    - reasons: None where usable, else a short reason.

    Lines between vertices are straight in lon/lat. An edge that spans more than 180° of longitude goes the short way
    round, across the antimeridian. An edge of exactly 360° is a whole parallel where the ring makes sense that way. A
    ring that goes around the globe holds the pole on its smaller side, whichever way it is wound. A ring that crosses itself
    counts by even-odd. A hole only ever takes area away: one that lies outside its shell changes nothing, and a polygon whose hole
    lies around its shell has no area.
    """
    footprints = np.array(geometries, dtype=object).reshape(-1)
    reasons = np.full(len(footprints), None, dtype=object)

    def reject(mask: NDArray[np.bool_], reason: str) -> None:
        reasons[mask & (reasons == None)] = reason  # noqa: E711 (elementwise)

    kinds = shapely.get_type_id(footprints)
    reject(kinds == -1, MISSING)
    reject(shapely.is_empty(footprints), EMPTY)
    reject((kinds != _POLYGON) & (kinds != _MULTIPOLYGON), NOT_A_POLYGON)

    usable = np.flatnonzero(reasons == None)  # noqa: E711
    if len(usable):
        raised = usable[shapely.has_z(footprints[usable]) | shapely.has_m(footprints[usable])]
        footprints[raised] = shapely.force_2d(footprints[raised])
        for i in _odd(footprints, usable, reject):
            try:
                footprints[i] = _repaired(footprints[i])
            except _Unusable as unusable:
                reasons[i] = str(unusable)
        usable = np.flatnonzero(reasons == None)  # noqa: E711
        without_area = np.zeros(len(footprints), bool)
        without_area[usable] = ~(shapely.area(footprints[usable]) > 0)
        reject(without_area, NO_AREA)
    footprints[reasons != None] = None  # noqa: E711
    return footprints, reasons


def area_km2(footprints: NDArray[np.object_]) -> NDArray[np.float64]:
    """Area on the ground of each footprint, km²; NaN where there is no geometry.

    ``footprints`` is an object array, of any shape, of Polygons, MultiPolygons or None as ``normalise_footprints`` returns them:
    degrees of longitude and latitude within ±180 and ±90. The areas come back as float64 in that shape.

    The plane area in the cylindrical equal-area projection of the authalic sphere (Snyder, Map Projections: A Working Manual,
    USGS Professional Paper 1395, equations 10-1 and 10-2). It is exact on the sphere for edges that are straight in that
    projection, as meridians and parallels are; one that is straight in lon/lat differs by its width times the square of its
    height / 12, in radians (0.2 % of the worst recorded scene). The ellipsoid would differ by up to 0.9 %.
    """
    flat = shapely.transform(footprints, _cylindrical_equal_area)
    areas: NDArray[np.float64] = shapely.area(flat) * _AUTHALIC_RADIUS_KM**2
    return areas


def _cylindrical_equal_area(lonlat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitude and latitude, degrees, on the unit sphere's cylinder."""
    radians = np.radians(lonlat)
    return np.column_stack([radians[:, 0], np.sin(radians[:, 1])])


def _odd(footprints: NDArray[np.object_], usable: NDArray[np.intp], reject: Callable[[NDArray[np.bool_], str], None]) -> NDArray[np.intp]:
    """Indices of the footprints that need the slow path, after rejecting those with impossible coordinates."""
    _, coords, offsets = shapely.to_ragged_array(footprints[usable], include_z=False)
    ring_ends, first_ring = offsets[0], offsets[1] if len(offsets) == 2 else offsets[1][offsets[2]]
    owner = np.repeat(np.arange(len(usable)), np.diff(ring_ends[first_ring]))

    def any_of(coord_mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.bincount(owner[coord_mask], minlength=len(usable)) > 0

    def spread(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        whole = np.zeros(len(footprints), bool)
        whole[usable] = mask
        return whole

    infinite = any_of(~np.isfinite(coords).all(axis=1))
    with np.errstate(invalid="ignore", over="ignore"):
        beyond_lat = any_of(np.abs(coords[:, 1]) > 90)
        beyond_lon = any_of(np.abs(coords[:, 0]) > 180)
        senseless = any_of(np.abs(coords[:, 0]) > _LON_LIMIT)
        jump = np.abs(np.diff(coords[:, 0])) > 180
    between_rings = ring_ends[(ring_ends > 0) & (ring_ends < len(coords))] - 1
    jump[between_rings] = False  # from one ring's last vertex to the next ring's first: not an edge
    jumps = any_of(np.append(jump, False))
    reject(spread(infinite), NOT_FINITE)
    reject(spread(beyond_lat), LATITUDE)
    reject(spread(senseless), LONGITUDE)
    fit = ~(infinite | beyond_lat | senseless)
    wild = beyond_lon | jumps
    check = np.flatnonzero(fit & ~wild)
    wild[check] = ~shapely.is_valid(footprints[usable[check]])
    return usable[np.flatnonzero(fit & wild)]


def _repaired(geometry: BaseGeometry) -> BaseGeometry:
    """The part of the map that a footprint with wild longitudes or crossing lines covers."""
    if _stays_on_map(geometry):
        parts = [part if part.is_valid else _shell_without_holes(part) for part in shapely.get_parts(geometry)]
    else:
        parts = [_on_map(part) for part in shapely.get_parts(geometry)]
    polygons = [polygon for part in parts for polygon in shapely.get_parts(part)]
    if not polygons:
        raise _Unusable(NO_AREA)
    whole: BaseGeometry = polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
    if not whole.is_valid:  # parts of one footprint that overlap or share an edge
        whole = _polygonal(shapely.union_all(polygons))
    if not whole.is_valid:
        whole = _polygonal(shapely.make_valid(whole))
    # What is fit stays as it is: an edge of more than 180° would be read the short way round if this came here again.
    west, _, east, _ = whole.bounds
    if east - west > 180:
        whole = shapely.segmentize(whole, 180)
        if not whole.is_valid:  # a vertex set on a slanted edge is rounded
            whole = _polygonal(shapely.make_valid(whole))
    if whole.is_empty or not whole.area > 0:
        raise _Unusable(NO_AREA)
    return whole


def _shell_without_holes(polygon: Polygon) -> BaseGeometry:
    """The area of a polygon's shell outside its holes, wherever the holes lie.

    ``make_valid`` would turn a hole that lies outside its shell, or around it, into area: by even-odd over all rings, and with
    ``method="structure"`` too where hole and shell are apart.
    """
    shell, *holes = (_polygonal(shapely.make_valid(Polygon(ring))) for ring in (polygon.exterior, *polygon.interiors))
    return _polygonal(shapely.difference(shell, shapely.union_all(holes))) if holes else shell


def _stays_on_map(geometry: BaseGeometry) -> bool:
    west, _, east, _ = geometry.bounds
    if west < -180 or east > 180:
        return False
    rings = shapely.get_rings(shapely.get_parts(geometry))
    return all(np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])).max(initial=0) <= 180 for ring in rings)


def _on_map(polygon: Polygon) -> BaseGeometry:
    """One polygon, unwrapped, closed over the pole if it goes around one, cut at ±180; perhaps in several parts."""
    shell, pole = _ring_on_map(shapely.get_coordinates(polygon.exterior), 0)
    for hole in polygon.interiors:
        # ring by ring, so that a hole need not lie on the same turn of the globe as its shell
        shell = _polygonal(shapely.difference(shell, _ring_on_map(shapely.get_coordinates(hole), pole)[0]))
    return shell


def _ring_on_map(ring: NDArray[np.float64], pole: int) -> tuple[BaseGeometry, int]:
    """The area a ring encloses, and the pole it holds: 1 north, -1 south, 0 none. ``pole`` decides if not 0."""
    lon, lat = ring[:, 0].copy(), ring[:, 1]
    for seam in (-180.0, 180.0):
        lon[np.abs(lon - seam) <= _SEAM_NOISE] = seam
    turns = _turns(lon, lat)
    width = lon[-1] - lon[0] + 360.0 * (turns[-1] - turns[0])
    if abs(width) > 361:
        raise _Unusable(WINDS_TWICE)
    if abs(width) > 359:
        steps = np.diff(lon) + 360.0 * np.diff(turns)
        mean_lat = float(np.sum(steps * (lat[:-1] + lat[1:])) / (2 * width))
        pole = pole or (1 if mean_lat >= 0 else -1)
        # up to the pole on the last meridian and down on the first, which is the same one
        lon = np.append(lon, [lon[-1], lon[0]])
        lat = np.append(lat, [90.0 * pole, 90.0 * pole])
        turns = np.append(turns, [turns[-1], turns[0]])
    else:
        pole = 0
    unwrapped = lon + 360.0 * turns
    first, last = int(np.floor((unwrapped.min() + 180) / 360)), int(np.ceil((unwrapped.max() + 180) / 360))
    pieces = []
    for turn in range(first, max(last, first + 1)):
        # Shifted by whole turns vertex by vertex, so that a vertex inside this turn keeps its very bits.
        flat = Polygon(np.column_stack([lon + 360.0 * (turns - turn), lat]))
        if not flat.is_valid:
            flat = _polygonal(shapely.make_valid(flat))
        pieces.append(_polygonal(shapely.intersection(flat, shapely.box(-180, -90, 180, 90))))
    # a ring wider than the globe meets itself
    return _polygonal(shapely.union_all(pieces)) if len(pieces) > 1 else pieces[0], pole


def _turns(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole turns to add to each longitude so that no edge but a whole parallel spans more than 180°."""
    steps = np.diff(lon)
    shortest = np.rint(steps / 360.0)  # ±180 exactly stays as it is
    parallels = np.abs(steps) == 360
    if parallels.any():
        on_seam = np.abs(np.abs(lon[:-1]) - 180) == 0
        # (…, (180, y), (-180, y), …) and nothing else on the seam: one point written twice, on a ring around the pole
        one_point = parallels.sum() == 1 and on_seam.sum() == 2 and abs(lat[np.flatnonzero(parallels)[0]]) != 90
        whole = np.where(parallels, 0.0, shortest)
        planar = lon - 360.0 * np.concatenate([[0.0], np.cumsum(whole)])
        if not one_point and planar[0] == planar[-1] and Polygon(np.column_stack([planar, lat])).is_valid:
            shortest = whole
    turns: NDArray[np.float64] = -np.concatenate([[0.0], np.cumsum(shortest)])
    return turns


def _polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons of a geometry, without the lines and points that repairs and cuts leave behind."""
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    nested = shapely.get_parts(geometry)
    polygons = [p for part in nested for p in shapely.get_parts(part) if p.geom_type == "Polygon" and not p.is_empty]
    return MultiPolygon(polygons)
