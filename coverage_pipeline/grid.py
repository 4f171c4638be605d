"""The grid, and the kernel that turns footprints into statistics of cells.

A footprint touches a cell when their interiors intersect. For each grid row the kernel finds the columns whose open
interval meets the projection of the footprint's interior within the open row: the x-extents of the clipped edges, and
the gaps between them that lie inside (even-odd). Crossing points are rounded, so wherever one falls next to a column
edge an exact predicate decides on which side: the answer is that of exact arithmetic on the float64 coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numba import njit
from numpy.typing import ArrayLike, NDArray
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.footprints import normalise_footprints

BBox = tuple[float, float, float, float]

# Far above the rounding of a crossing point (some 1e-13 degrees), far below any cell: closer than this the exact
# predicate decides.
_NEAR = 1e-9
# Cloud cover is summed in whole units of 1e-6 percent, so that a sum does not depend on the order of the scenes.
_CLOUD_UNITS = 1_000_000
# fmt: off
_USUAL_RESOLUTIONS = (
    0.01, 0.02, 0.025, 0.05, 0.1, 0.125, 0.2, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 30.0, 90.0,
)
# fmt: on


@dataclass(frozen=True)
class GridSpec:
    """A regular grid over the whole globe; latitude and longitude ascend.

    Raises ValueError: ``resolution`` does not divide 180 degrees into whole cells, or ``crs`` or ``h3_res`` ask for
    another kind of grid.
    """

    resolution: float = 0.1
    """Side of a cell in degrees."""
    crs: str = "EPSG:4326"
    """Only EPSG:4326."""
    h3_res: int | None = None
    """Only None."""

    def __post_init__(self) -> None:
        if self.crs != "EPSG:4326":
            raise ValueError(
                f"crs {self.crs!r}: the grid is in degrees, so only 'EPSG:4326' is possible; reproject what you read from it instead"
            )
        if self.h3_res is not None:
            raise ValueError(f"h3_res {self.h3_res!r}: not yet: hex cells have no rows and columns for the cube; leave it None")
        rows = 180 / self.resolution if math.isfinite(self.resolution) and self.resolution > 0 else math.nan
        # 0.1 and 1/3 are not float64 numbers, so 180/resolution is whole only up to rounding
        if not (rows < 2**31 and round(rows) >= 1 and abs(rows - round(rows)) <= 1e-9 * rows):
            allowed = ", ".join(f"{value:g}" for value in _resolutions_near(self.resolution))
            raise ValueError(
                f"resolution {self.resolution!r}: 180 degrees must be a whole number of cells, and "
                f"180/{self.resolution!r} is {rows:g}; allowed are for example {allowed}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, ``(n_lat, n_lon)``."""
        n_lat = round(180 / self.resolution)
        return n_lat, 2 * n_lat

    @cached_property
    def lats(self) -> NDArray[np.float64]:
        """Latitudes of the cell centres, ascending, degrees; read-only."""
        return _centres(self.shape[0], 180)

    @cached_property
    def lons(self) -> NDArray[np.float64]:
        """Longitudes of the cell centres, ascending, degrees; read-only."""
        return _centres(self.shape[1], 360)

    @cached_property
    def lat_edges(self) -> NDArray[np.float64]:
        """Edges of the rows, ``n_lat + 1``: edge k is ``k*180/n_lat - 90`` in float64; read-only."""
        return _edges(self.shape[0], 180)

    @cached_property
    def lon_edges(self) -> NDArray[np.float64]:
        """Edges of the columns, ``n_lon + 1``: edge k is ``k*360/n_lon - 180`` in float64; read-only."""
        return _edges(self.shape[1], 360)


def _resolutions_near(resolution: float) -> list[float]:
    if not (math.isfinite(resolution) and resolution > 0):
        return [0.05, 0.1, 0.25]
    return sorted(sorted(_USUAL_RESOLUTIONS, key=lambda usual: abs(math.log(usual / resolution)))[:3])


def _edges(n: int, extent: int) -> NDArray[np.float64]:
    edges = np.arange(n + 1, dtype=np.float64) * extent / n - extent / 2
    edges.flags.writeable = False
    return edges


def _centres(n: int, extent: int) -> NDArray[np.float64]:
    # One division of whole numbers rounds once, so 0.05 is 0.05; (k + 0.5)*extent/n - extent/2 is 0.04999999999999716.
    centres = (2.0 * np.arange(n) + 1 - n) * (extent // 2) / n
    centres.flags.writeable = False
    return centres


def footprint_to_cells(geom: BaseGeometry, grid: GridSpec) -> list[tuple[int, int]]:
    """Cells whose interior meets the footprint's, as ``(lat_idx, lon_idx)`` in row-major order.

    The footprint may cross the antimeridian or hold a pole. Touching only along an edge or a corner does not count,
    so that two cells never share a footprint that merely abuts them.

    Raises ValueError: the footprint can't be used; the message says why.
    """
    footprints, reasons = normalise_footprints(np.array([geom], dtype=object))
    if reasons[0] is not None:
        raise ValueError(f"footprint can't be placed on the grid: {reasons[0]}")
    ranges = _ranges(*_kernel_arrays(*_ragged(footprints)), grid.lat_edges, grid.lon_edges)
    return [(int(row), column) for row, first, last in ranges for column in range(first, last + 1)]


def bbox_to_index(bbox: Sequence[float], grid: GridSpec) -> tuple[slice, slice]:
    """Rows and columns whose cells' interior meets the interior of ``(minx, miny, maxx, maxy)``.

    A bbox without width or height counts as half-open there: the cell that begins at that coordinate or contains it
    (90 and 180 belong to the last cell).

    The two slices index latitude and longitude of an array of shape ``grid.shape``.

    Raises ValueError: the bbox crosses the antimeridian (minx > maxx), has miny > maxy, or goes beyond ±180 or ±90.
    """
    minx, miny, maxx, maxy = _checked_bbox(bbox)
    if minx > maxx:
        raise ValueError(f"bbox {tuple(bbox)} crosses the antimeridian (minx > maxx): split it with split_bbox")
    return _index_slice(miny, maxy, grid.lat_edges), _index_slice(minx, maxx, grid.lon_edges)


def split_bbox(bbox: Sequence[float]) -> list[BBox]:
    """The one or two boxes with minx <= maxx that ``(minx, miny, maxx, maxy)`` is made of, the western one first.

    Raises ValueError: miny > maxy, or a coordinate beyond ±180 or ±90.
    """
    minx, miny, maxx, maxy = _checked_bbox(bbox)
    if minx <= maxx:
        return [(minx, miny, maxx, maxy)]
    halves: list[BBox] = [(minx, miny, 180.0, maxy), (-180.0, miny, maxx, maxy)]
    # a half without width is the seam itself; (180, …, -180, …) is nothing but seam and keeps one
    return [half for half in halves if half[0] < half[2]] or halves[:1]


def _checked_bbox(bbox: Sequence[float]) -> BBox:
    values = tuple(float(value) for value in bbox)
    if len(values) != 4:
        raise ValueError(f"bbox {values}: four numbers wanted, minx, miny, maxx, maxy")
    minx, miny, maxx, maxy = values
    if not (abs(minx) <= 180 and abs(maxx) <= 180 and abs(miny) <= 90 and abs(maxy) <= 90):
        raise ValueError(f"bbox {values} goes beyond ±180 of longitude or ±90 of latitude")
    if miny > maxy:
        raise ValueError(f"bbox {values}: miny lies north of maxy")
    return minx, miny, maxx, maxy


def _index_slice(low: float, high: float, edges: NDArray[np.float64]) -> slice:
    last = len(edges) - 2
    start = min(int(np.searchsorted(edges, low, side="right")) - 1, last)
    if low == high:
        return slice(start, start + 1)
    return slice(start, int(np.searchsorted(edges, high, side="left")))


@dataclass(frozen=True, eq=False)
class CellStatistics:
    """What the scenes of one sensor and month come to in the touched cells; all arrays are sorted by ``cell``."""

    cell: NDArray[np.int64]
    """Flat index, ``lat_idx * n_lon + lon_idx``."""
    scenes: NDArray[np.int32]
    """Scenes touching the cell, at least 1."""
    clear: NDArray[np.int32]
    """Of these, clear."""
    unknown: NDArray[np.int32]
    """Of these, of unknown cloud and not clear."""
    cloud_mean: NDArray[np.float32]
    """Mean cloud percentage over the scenes whose cloud is known; NaN where there is none."""
    days: NDArray[np.uint32]
    """Bit d-1 set: a scene on day d of the month."""
    clear_days: NDArray[np.uint32]
    """Bit d-1 set: a clear scene on day d."""
    unknown_days: NDArray[np.uint32]
    """Bit d-1 set: a scene of unknown cloud on day d."""


def cell_statistics(
    geometries: NDArray[np.object_], *, day: ArrayLike, cloud: ArrayLike, clear: ArrayLike, grid: GridSpec
) -> CellStatistics:
    """Statistics of every cell that a footprint touches; independent of the order of the scenes, to the last bit.

    - ``geometries``: object array of Polygons and MultiPolygons as `normalise_footprints` returns them, one a scene,
      without None.
    - ``day``: UTC day of the month of each scene, 1..31.
    - ``cloud``: cloud percentage 0..100 of each scene, float64; NaN where unknown.
    - ``clear``: whether each scene counts as clear, bool: the caller's decision. Not clear and NaN makes *unknown*.

    Raises ValueError: lengths differ, a geometry is missing or is no polygon, a coordinate is not finite or off the
    map, a day or a cloud percentage is out of range.
    """
    return statistics_from_arrays(*_ragged(geometries), day=day, cloud=cloud, clear=clear, grid=grid)


def statistics_from_arrays(
    coords: NDArray[np.float64],
    ring_offsets: NDArray[np.integer[Any]],
    polygon_offsets: NDArray[np.integer[Any]],
    geometry_offsets: NDArray[np.integer[Any]],
    *,
    day: ArrayLike,
    cloud: ArrayLike,
    clear: ArrayLike,
    grid: GridSpec,
) -> CellStatistics:
    """`cell_statistics` on flat arrays, as `shapely.to_ragged_array` lays out MultiPolygons.

    - ``coords``: ``(vertices, 2)`` float64, longitude and latitude; every ring is closed.
    - ``ring_offsets, polygon_offsets, geometry_offsets``: ring i is ``coords[ring_offsets[i]:ring_offsets[i + 1]]``,
      polygon i owns such a range of rings, scene i such a range of polygons.
    - ``day, cloud, clear, grid``: as in `cell_statistics`.

    Raises ValueError: as `cell_statistics`; also where the offsets do not fit each other or a ring is open.
    """
    flat, rings, scene_rings = _kernel_arrays(coords, ring_offsets, polygon_offsets, geometry_offsets)
    scenes = len(scene_rings) - 1
    days = np.asarray(day)
    percent = np.asarray(cloud, dtype=np.float64)
    is_clear = np.ascontiguousarray(clear, dtype=np.bool_)
    for name, values in (("day", days), ("cloud", percent), ("clear", is_clear)):
        if values.shape != (scenes,):
            raise ValueError(f"{name} has shape {values.shape}, but there are {scenes} geometries")
    if scenes and days.dtype.kind not in "iu":
        raise ValueError(f"day must be a whole number, found {days.dtype}")
    if scenes and not ((days >= 1) & (days <= 31)).all():
        raise ValueError(f"day must lie in 1..31, found {days[~((days >= 1) & (days <= 31))][0]}")
    known = ~np.isnan(percent)
    if not ((percent[known] >= 0) & (percent[known] <= 100)).all():
        raise ValueError("cloud must be a percentage, 0..100, or NaN where it is not known")
    units = np.rint(np.where(known, percent, 0) * _CLOUD_UNITS).astype(np.int64)
    return CellStatistics(
        *_statistics(flat, rings, scene_rings, days.astype(np.uint32), units, known, is_clear, grid.lat_edges, grid.lon_edges)
    )


def latest_in_cells(geometries: NDArray[np.object_], *, value: ArrayLike, grid: GridSpec) -> NDArray[np.float64]:
    """The largest ``value`` among the footprints that touch each cell; NaN where none does.

    - ``geometries``: normalised footprints, as for `cell_statistics`.
    - ``value``: one number a footprint, for example a time.

    The result is float64 of shape ``grid.shape``, in the unit of ``value``.

    Raises ValueError: lengths differ, a value is NaN, or a geometry can't be used.
    """
    return latest_from_arrays(*_ragged(geometries), value=value, grid=grid)


def latest_from_arrays(
    coords: NDArray[np.float64],
    ring_offsets: NDArray[np.integer[Any]],
    polygon_offsets: NDArray[np.integer[Any]],
    geometry_offsets: NDArray[np.integer[Any]],
    *,
    value: ArrayLike,
    grid: GridSpec,
) -> NDArray[np.float64]:
    """`latest_in_cells` on flat arrays, laid out as for `statistics_from_arrays`; raises ValueError as either does."""
    arrays = _kernel_arrays(coords, ring_offsets, polygon_offsets, geometry_offsets)
    footprints = len(arrays[2]) - 1
    values = np.ascontiguousarray(value, dtype=np.float64)
    if values.shape != (footprints,):
        raise ValueError(f"value has shape {values.shape}, but there are {footprints} geometries")
    if np.isnan(values).any():
        raise ValueError("value must be a number for every footprint, found NaN")
    latest: NDArray[np.float64] = _latest(*arrays, values, grid.lat_edges, grid.lon_edges)
    return latest


def touched(geometries: NDArray[np.object_], grid: GridSpec) -> NDArray[np.bool_]:
    """Whether any of the normalised footprints touches each cell: bool of shape ``grid.shape``.

    Raises ValueError: a geometry can't be used.
    """
    mask = np.zeros(grid.shape, np.bool_)
    _mark(*_kernel_arrays(*_ragged(geometries)), mask, grid.lat_edges, grid.lon_edges)
    return mask


def _ragged(
    geometries: NDArray[np.object_],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Coordinates, ring, polygon and geometry offsets, Polygons counting as MultiPolygons of one part."""
    footprints = np.asarray(geometries, dtype=object)
    if not len(footprints):
        start = np.zeros(1, np.int64)
        return np.empty((0, 2)), start, start, start
    polygonal = np.isin(shapely.get_type_id(footprints), (3, 6))
    if not polygonal.all():
        i = int(np.flatnonzero(~polygonal)[0])
        found = "missing" if footprints[i] is None else f"a {footprints[i].geom_type}"
        raise ValueError(f"geometry {i} is {found}, not a polygon: use normalise_footprints and drop what it rejects")
    _, coords, offsets = shapely.to_ragged_array(footprints, include_z=False)
    if len(offsets) == 2:
        offsets = (*offsets, np.arange(len(footprints) + 1))
    return coords, *offsets


def _kernel_arrays(
    coords: NDArray[np.float64],
    ring_offsets: NDArray[np.integer[Any]],
    polygon_offsets: NDArray[np.integer[Any]],
    geometry_offsets: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Checked coordinates, ring offsets, and the rings of each geometry; by even-odd the kernel needs no polygons."""
    flat = np.ascontiguousarray(coords, dtype=np.float64)
    rings, polygons, scenes = (
        np.ascontiguousarray(offsets, dtype=np.int64) for offsets in (ring_offsets, polygon_offsets, geometry_offsets)
    )
    if flat.ndim != 2 or flat.shape[1] != 2:
        raise ValueError(f"coords must have shape (vertices, 2), found {flat.shape}")
    for name, offsets, end in (
        ("ring_offsets", rings, len(flat)),
        ("polygon_offsets", polygons, len(rings) - 1),
        ("geometry_offsets", scenes, len(polygons) - 1),
    ):
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
            raise ValueError(f"{name} must rise from 0 to {end}")
    if not (np.abs(flat) <= (180, 90)).all():  # NaN fails too
        raise ValueError("a coordinate is not finite or lies beyond ±180, ±90: pass footprints through normalise_footprints")
    filled = np.diff(rings) > 0
    if not (flat[rings[:-1][filled]] == flat[rings[1:][filled] - 1]).all():
        raise ValueError("a ring is open: its last vertex must repeat its first")
    return flat, rings, polygons[scenes]


# ----------------------------------------------------------------------------------------------------------------------
# The kernel. No fastmath anywhere: the exact predicate relies on the rounding of every single operation.
# ----------------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _two_product(a, b):  # type: ignore[no-untyped-def]
    """a*b as a rounded product and its error, exactly (Dekker 1971, with Veltkamp's split)."""
    product = a * b
    carry = 134217729.0 * a  # 2**27 + 1
    a_high = carry - (carry - a)
    a_low = a - a_high
    carry = 134217729.0 * b
    b_high = carry - (carry - b)
    b_low = b - b_high
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


@njit(cache=True, nogil=True)
def _exact_side(ax, ay, bx, by, cx, cy):  # type: ignore[no-untyped-def]
    """Sign of the cross product of b-a and c-a, by an exact sum of twelve terms (Shewchuk 1997, grow-expansion)."""
    terms = np.empty(12)
    terms[0], terms[1] = _two_product(ax, by)
    terms[2], terms[3] = _two_product(-ay, bx)
    terms[4], terms[5] = _two_product(bx, cy)
    terms[6], terms[7] = _two_product(-by, cx)
    terms[8], terms[9] = _two_product(cx, ay)
    terms[10], terms[11] = _two_product(-cy, ax)
    expansion = np.zeros(12)
    for size in range(12):
        carried = terms[size]
        for i in range(size):
            total = carried + expansion[i]
            virtual = total - carried
            expansion[i] = (carried - (total - virtual)) + (expansion[i] - virtual)
            carried = total
        expansion[size] = carried
    for i in range(11, -1, -1):  # components grow and don't overlap: the last one that is not 0 has the sign of the sum
        if expansion[i] > 0:
            return 1
        if expansion[i] < 0:
            return -1
    return 0


@njit(cache=True, nogil=True)
def _side(ax, ay, bx, by, cx, cy):  # type: ignore[no-untyped-def]
    """1 where c lies left of the line from a to b, -1 right of it, 0 on it; exact."""
    left = (ax - cx) * (by - cy)
    right = (ay - cy) * (bx - cx)
    determinant = left - right
    # Shewchuk's bound for orient2d: (3 + 16 eps) eps, eps = 2**-53
    if abs(determinant) > 3.3306690738754716e-16 * (abs(left) + abs(right)):
        return 1 if determinant > 0 else -1
    return _exact_side(ax, ay, bx, by, cx, cy)


@njit(cache=True, nogil=True)
def _cell_at(x, edges):  # type: ignore[no-untyped-def]
    """Last cell whose lower edge is <= x."""
    n = len(edges) - 1
    k = int((x - edges[0]) / (edges[n] - edges[0]) * n)
    k = min(max(k, 0), n - 1)
    while k > 0 and edges[k] > x:
        k -= 1
    while k < n - 1 and edges[k + 1] <= x:
        k += 1
    return k


@njit(cache=True, nogil=True)
def _cell_below(x, edges):  # type: ignore[no-untyped-def]
    """Last cell whose lower edge is < x (the first cell if none is)."""
    k = _cell_at(x, edges)
    while k > 0 and edges[k] >= x:
        k -= 1
    return k


@njit(cache=True, nogil=True)
def _crossing(ax, ay, bx, by, y, lon_edges):  # type: ignore[no-untyped-def]
    """Where the segment rising from a to b crosses y between them, strictly: on the right side of every column edge."""
    if ax == bx:
        return ax
    x = ax + (y - ay) / (by - ay) * (bx - ax)
    x = min(max(x, min(ax, bx)), max(ax, bx))
    k = _cell_at(x, lon_edges)
    edge = lon_edges[k] if x - lon_edges[k] < lon_edges[k + 1] - x else lon_edges[k + 1]
    if abs(x - edge) < _NEAR:
        side = _side(ax, ay, bx, by, edge, y)
        if side == 0:
            return edge
        if side > 0:
            return x if x > edge else np.nextafter(edge, np.inf)
        return x if x < edge else np.nextafter(edge, -np.inf)
    return x


@njit(cache=True, nogil=True)
def _most_edges(ring_offsets, geometry_rings):  # type: ignore[no-untyped-def]
    most = 1
    for g in range(len(geometry_rings) - 1):
        most = max(most, ring_offsets[geometry_rings[g + 1]] - ring_offsets[geometry_rings[g]])
    return most


@njit(cache=True, nogil=True)
def _workspace(edges, rows):  # type: ignore[no-untyped-def]
    """Buffers for one footprint: edge ends, x at the row's lower border, links, active list, heads, extents, flags."""
    return (
        np.empty((edges, 4)),
        np.empty(edges),
        np.empty(edges, np.int64),
        np.empty(edges, np.int64),
        np.full(rows, -1, np.int64),
        np.empty((edges, 2)),
        np.empty((edges, 2), np.bool_),
    )


@njit(cache=True, nogil=True)
def _sort_extents(extents, flags, n):  # type: ignore[no-untyped-def]
    """Shell sort by the left end: a handful of extents as a rule, thousands for a land mask."""
    gap = 1
    while gap < n // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            left, right, crosses, slanted = extents[i, 0], extents[i, 1], flags[i, 0], flags[i, 1]
            j = i
            while j >= gap and extents[j - gap, 0] > left:
                extents[j, 0], extents[j, 1] = extents[j - gap, 0], extents[j - gap, 1]
                flags[j, 0], flags[j, 1] = flags[j - gap, 0], flags[j - gap, 1]
                j -= gap
            extents[j, 0], extents[j, 1], flags[j, 0], flags[j, 1] = left, right, crosses, slanted
        gap //= 3


@njit(cache=True, nogil=True)
def _footprint_ranges(coords, ring_offsets, ring_from, ring_to, lat_edges, lon_edges, workspace, ranges):  # type: ignore[no-untyped-def]
    """Ranges (row, first column, last column) that one footprint touches, row-major, disjoint; and their number.

    Rows are swept upwards. An edge joins the active list in its first row and leaves it after its last, so that the
    work is the number of edge-row pairs and the memory that of the edges.
    """
    ends, x_low, links, active, starting, extents, flags = workspace
    n_lat = len(lat_edges) - 1
    row_from, row_to = n_lat, -1
    edges = 0
    for ring in range(ring_from, ring_to):
        for i in range(ring_offsets[ring], ring_offsets[ring + 1] - 1):
            ax, ay, bx, by = coords[i, 0], coords[i, 1], coords[i + 1, 0], coords[i + 1, 1]
            if ay > by:
                ax, ay, bx, by = bx, by, ax, ay
            first = _cell_at(ay, lat_edges)
            if ay == by:
                # a level edge on the border of two rows lies in neither of the open rows; without length it is no edge
                if ax == bx or ay == lat_edges[first] or ay == lat_edges[first + 1]:
                    continue
                last = first
            else:
                last = _cell_below(by, lat_edges)
            ends[edges, 0], ends[edges, 1], ends[edges, 2], ends[edges, 3] = ax, ay, bx, by
            x_low[edges] = ax
            links[edges] = starting[first]
            starting[first] = edges
            edges += 1
            row_from, row_to = min(row_from, first), max(row_to, last)
    found = 0
    n_active = 0
    for row in range(row_from, row_to + 1):
        edge = starting[row]
        starting[row] = -1
        while edge >= 0:
            active[n_active] = edge
            n_active += 1
            edge = links[edge]
        top = lat_edges[row + 1]
        middle = 0.5 * (lat_edges[row] + top)
        n = n_active
        n_active = 0
        for i in range(n):
            edge = active[i]
            ax, ay, bx, by = ends[edge, 0], ends[edge, 1], ends[edge, 2], ends[edge, 3]
            low = x_low[edge]
            high = bx if by <= top else _crossing(ax, ay, bx, by, top, lon_edges)
            extents[i, 0], extents[i, 1] = min(low, high), max(low, high)
            flags[i, 0] = (ay <= middle) != (by <= middle)
            flags[i, 1] = ax != bx
            if by > top:
                x_low[edge] = high
                active[n_active] = edge
                n_active += 1
        if found + 2 * n > len(ranges):
            grown = np.empty((2 * len(ranges) + 2 * n, 3), np.int64)
            grown[:found] = ranges[:found]
            ranges = grown
        _sort_extents(extents, flags, n)
        inside = False
        reached = -np.inf
        first, last = 0, -2
        for i in range(n):
            left, right = extents[i, 0], extents[i, 1]
            for step in range(2):
                if step == 0:  # the gap before this extent
                    if not (inside and left > reached):
                        continue
                    c0, c1 = _cell_at(reached, lon_edges), _cell_below(left, lon_edges)
                else:  # the extent, unless its edge is upright: then it has no width
                    if not flags[i, 1]:
                        continue
                    c0 = _cell_at(left, lon_edges)
                    c1 = max(c0, _cell_below(right, lon_edges))
                if c0 <= last + 1:
                    last = max(last, c1)
                else:
                    if last >= first:
                        ranges[found, 0], ranges[found, 1], ranges[found, 2] = row, first, last
                        found += 1
                    first, last = c0, c1
            reached = max(reached, right)
            inside ^= flags[i, 0]
        if last >= first:
            ranges[found, 0], ranges[found, 1], ranges[found, 2] = row, first, last
            found += 1
    return ranges, found


@njit(cache=True, nogil=True)
def _ranges(coords, ring_offsets, geometry_rings, lat_edges, lon_edges):  # type: ignore[no-untyped-def]
    workspace = _workspace(_most_edges(ring_offsets, geometry_rings), len(lat_edges) - 1)
    ranges, found = _footprint_ranges(
        coords, ring_offsets, 0, geometry_rings[-1], lat_edges, lon_edges, workspace, np.empty((64, 3), np.int64)
    )
    return ranges[:found]


@njit(cache=True, nogil=True)
def _mark(coords, ring_offsets, geometry_rings, mask, lat_edges, lon_edges):  # type: ignore[no-untyped-def]
    workspace = _workspace(_most_edges(ring_offsets, geometry_rings), len(lat_edges) - 1)
    ranges = np.empty((64, 3), np.int64)
    for g in range(len(geometry_rings) - 1):
        ranges, found = _footprint_ranges(
            coords, ring_offsets, geometry_rings[g], geometry_rings[g + 1], lat_edges, lon_edges, workspace, ranges
        )
        for i in range(found):
            mask[ranges[i, 0], ranges[i, 1] : ranges[i, 2] + 1] = True


@njit(cache=True, nogil=True)
def _latest(coords, ring_offsets, geometry_rings, values, lat_edges, lon_edges):  # type: ignore[no-untyped-def]
    latest = np.full((len(lat_edges) - 1, len(lon_edges) - 1), np.nan)
    workspace = _workspace(_most_edges(ring_offsets, geometry_rings), len(lat_edges) - 1)
    ranges = np.empty((64, 3), np.int64)
    for g in range(len(geometry_rings) - 1):
        value = values[g]
        ranges, found = _footprint_ranges(
            coords, ring_offsets, geometry_rings[g], geometry_rings[g + 1], lat_edges, lon_edges, workspace, ranges
        )
        for i in range(found):
            row = latest[ranges[i, 0]]
            for column in range(ranges[i, 1], ranges[i, 2] + 1):
                if not row[column] >= value:  # NaN, too
                    row[column] = value
    return latest


@njit(cache=True, nogil=True)
def _statistics(coords, ring_offsets, geometry_rings, day, cloud, known, clear, lat_edges, lon_edges):  # type: ignore[no-untyped-def]
    """The columns of `CellStatistics`, in its order.

    A range adds at its first column and takes off behind its last; running sums along the rows make the counts at the
    end.
    """
    n_lat, n_lon = len(lat_edges) - 1, len(lon_edges) - 1
    tallies = np.zeros((n_lat, n_lon + 1, 4), np.int32)  # side by side: one cache line a step, not four
    clouds = np.zeros((n_lat, n_lon + 1), np.int64)
    days = np.zeros((n_lat, n_lon), np.uint32)
    clear_days = np.zeros((n_lat, n_lon), np.uint32)
    unknown_days = np.zeros((n_lat, n_lon), np.uint32)
    row_touched = np.zeros(n_lat, np.bool_)
    workspace = _workspace(_most_edges(ring_offsets, geometry_rings), n_lat)
    ranges = np.empty((64, 3), np.int64)
    for g in range(len(geometry_rings) - 1):
        bit = np.uint32(1) << np.uint32(day[g] - 1)
        ranges, found = _footprint_ranges(
            coords, ring_offsets, geometry_rings[g], geometry_rings[g + 1], lat_edges, lon_edges, workspace, ranges
        )
        for i in range(found):
            row, first, end = ranges[i, 0], ranges[i, 1], ranges[i, 2] + 1
            row_touched[row] = True
            tallies[row, first, 0] += 1
            tallies[row, end, 0] -= 1
            for column in range(first, end):
                days[row, column] |= bit
            if known[g]:
                tallies[row, first, 3] += 1
                tallies[row, end, 3] -= 1
                clouds[row, first] += cloud[g]
                clouds[row, end] -= cloud[g]
            if clear[g]:
                tallies[row, first, 1] += 1
                tallies[row, end, 1] -= 1
                for column in range(first, end):
                    clear_days[row, column] |= bit
            elif not known[g]:
                tallies[row, first, 2] += 1
                tallies[row, end, 2] -= 1
                for column in range(first, end):
                    unknown_days[row, column] |= bit
    cells = 0
    for row in range(n_lat):
        if row_touched[row]:
            for column in range(n_lon):
                cells += days[row, column] != 0
    cell = np.empty(cells, np.int64)
    scenes = np.empty(cells, np.int32)
    clears = np.empty(cells, np.int32)
    unknowns = np.empty(cells, np.int32)
    cloud_mean = np.empty(cells, np.float32)
    masks = np.empty((3, cells), np.uint32)
    at = 0
    for row in range(n_lat):
        if not row_touched[row]:
            continue
        n_scenes = n_clear = n_unknown = n_known = cloud_sum = np.int64(0)
        for column in range(n_lon):
            n_scenes += tallies[row, column, 0]
            n_clear += tallies[row, column, 1]
            n_unknown += tallies[row, column, 2]
            n_known += tallies[row, column, 3]
            cloud_sum += clouds[row, column]
            if n_scenes > 0:
                cell[at] = row * n_lon + column
                scenes[at], clears[at], unknowns[at] = n_scenes, n_clear, n_unknown
                cloud_mean[at] = cloud_sum / (n_known * _CLOUD_UNITS) if n_known > 0 else np.nan
                masks[0, at] = days[row, column]
                masks[1, at] = clear_days[row, column]
                masks[2, at] = unknown_days[row, column]
                at += 1
    return cell, scenes, clears, unknowns, cloud_mean, masks[0], masks[1], masks[2]
