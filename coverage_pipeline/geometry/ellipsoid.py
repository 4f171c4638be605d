"""Area on the ellipsoid of polygons whose edges are straight in longitude and latitude.

Own code, because the libraries take an edge for another line: ``pyproj.Geod`` for a geodesic, a projected shapely polygon for a straight
line of the projection, which comes near only with densified edges. Here an edge is integrated as the straight lon/lat line that it is.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

WGS84_A_KM = 6378.137
"""Semi-major axis of WGS 84, km."""
_E2 = 0.00669437999014132
"""Square of its first eccentricity (NIMA TR 8350.2)."""
ECCENTRICITY = _E2**0.5
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
"""Gauss-Legendre on an edge: exact to rounding for edges of up to 30° of latitude."""


def zone_km2(latitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area from the equator to a latitude (degrees), km² a radian of longitude; negative in the south.

    a²·q/2 with q of Snyder, Map Projections: A Working Manual (USGS Professional Paper 1395), equation 3-12.
    """
    sine = np.sin(np.radians(latitude))
    scaled = ECCENTRICITY * sine
    q = (1 - _E2) * (sine / (1 - scaled * scaled) + np.arctanh(scaled) / ECCENTRICITY)
    return np.asarray(WGS84_A_KM**2 * q / 2)


def ellipsoid_km2(polygons: NDArray[np.object_]) -> NDArray[np.float64]:
    """Area on WGS 84 of each polygon, km², float64 in the shape of ``polygons``; 0 for None and for what has no area.

    ``polygons`` is an object array of Polygons, MultiPolygons (valid, degrees within ±180 and ±90) or None.
    """
    flat = np.asarray(polygons, dtype=object).reshape(-1)
    areas = np.zeros(len(flat))
    parts, owner = shapely.get_parts(flat, return_index=True)
    polygonal = shapely.get_type_id(parts) == 3  # an overlay may leave lines and points
    parts, owner = parts[polygonal], owner[polygonal]
    if len(parts):
        rings, part = shapely.get_rings(parts, return_index=True)
        shell = np.diff(part, prepend=-1) != 0  # the first ring of a polygon is its shell
        np.add.at(areas, owner[part], np.where(shell, 1.0, -1.0) * _ring_km2(rings))
    return areas.reshape(np.shape(polygons))


def _ring_km2(rings: NDArray[np.object_]) -> NDArray[np.float64]:
    """Area within each closed ring, km²: the zone under every edge, integrated along the edge."""
    coords, owner = shapely.get_coordinates(rings, return_index=True)
    lon, lat = coords.T
    width = np.radians(np.diff(lon))
    same = owner[1:] == owner[:-1]
    edges = np.flatnonzero(same & (width != 0))
    middle, half = (lat[edges] + lat[edges + 1]) / 2, (lat[edges + 1] - lat[edges]) / 2
    mean = np.zeros(len(edges))
    flat = half == 0  # as the sides of boxes are
    mean[flat] = zone_km2(middle[flat])
    tilted = np.flatnonzero(~flat)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        mean[tilted] += weight / 2 * zone_km2(middle[tilted] + node * half[tilted])
    return np.abs(np.bincount(owner[edges], width[edges] * mean, len(rings)))
