"""WKB columns as flat coordinate arrays, straight from the Arrow buffers: no object a footprint.

The column comes from a file, so nothing in it is believed: the walk over the bytes checks every count against the bytes that
are left before it reads or reserves anything. It runs twice, to count and then to fill.

shapely lost: ``from_wkb`` and ``to_ragged_array`` give the same arrays, with an object for each footprint in between: 0.48 s in place of
0.06 s for 450,000 footprints (``python -m benchmarks.gridding``).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

RaggedArrays = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

_POLYGON, _MULTIPOLYGON = 3, 6
_OUTSIDE, _HEADER, _ORDER, _KIND, _PART, _COUNT, _EMPTY, _SHORT_RING, _OPEN_RING, _TRAILING = range(1, 11)
_REASONS = {
    _OUTSIDE: "the Arrow offsets lead outside the data",
    _HEADER: "ends within a header or a count, {} bytes too early",
    _ORDER: "byte order {}, which is neither 0 nor 1",
    _KIND: "type code {}, which is no Polygon or MultiPolygon",
    _PART: "a part of the MultiPolygon has type code {}, which is no Polygon",
    _COUNT: "counts {} parts, rings or vertices, more than its bytes can hold",
    _EMPTY: "empty, or a part of it is",
    _SHORT_RING: "a ring has {} vertices, fewer than 3",
    _OPEN_RING: "a ring is open: its last vertex must repeat its first",
    _TRAILING: "{} bytes follow its end",
}


def ragged_from_wkb(column: pa.Array | pa.ChunkedArray) -> RaggedArrays:
    """Coordinates, ring, polygon and geometry offsets of a column of WKB, as ``shapely.to_ragged_array`` gives for MultiPolygons.

    ``column`` is binary or large_binary; each value is a Polygon (which counts as a MultiPolygon of one part) or a MultiPolygon, of
    either byte order, ISO WKB or EWKB, with or without Z, M and SRID, which are left out.

    - ``coords``: ``(vertices, 2)`` float64, x and y, bit for bit as written; every ring is closed and has at least 3 vertices.
    - ``ring_offsets, polygon_offsets, geometry_offsets``: int64, from 0; ring i is ``coords[ring_offsets[i]:ring_offsets[i + 1]]``,
      polygon i owns such a range of rings, row i of the column such a range of polygons.

    Coordinates may be anything, NaN too: the caller checks them. Raises ValueError, which names the row and why: a value is null,
    empty, truncated, longer than its geometry, of another kind, or otherwise no sound WKB. Also where the column is not binary.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise ValueError(f"a WKB column is binary or large_binary, this one is {column.type}")
    if column.null_count:
        raise ValueError(f"geometry of row {pc.index(column.is_null(), True).as_py()} is missing")
    buffers = [_buffers(chunk) for chunk in chunks if len(chunk)]
    nothing, no_coords = np.zeros(0, np.int64), np.zeros((0, 2))
    sizes = np.zeros(4, np.int64)
    for data, offsets in buffers:
        problem, count = _walk(data, offsets, sizes, no_coords, nothing, nothing, nothing, False)
        if problem:
            raise ValueError(f"geometry of row {sizes[3]} can't be read from its WKB: {_REASONS[problem].format(count)}")
    # The walk found room in the bytes for all it counted, so these are never larger than a small multiple of the column.
    coords = np.empty((sizes[0], 2))
    ring_offsets, polygon_offsets, geometry_offsets = (np.zeros(size + 1, np.int64) for size in sizes[1:])
    sizes[:] = 0
    for data, offsets in buffers:
        _walk(data, offsets, sizes, coords, ring_offsets, polygon_offsets, geometry_offsets, True)
    return coords, ring_offsets, polygon_offsets, geometry_offsets


def wkb_bounds(geometry: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """West, south, east, north of each outline (WKB polygons), ``(rows, 4)`` in degrees, without making a geometry of any."""
    if not len(geometry):
        return np.empty((0, 4))
    coords, rings, polygons, geometries = ragged_from_wkb(geometry)
    first = rings[polygons[geometries[:-1]]]
    return np.column_stack([np.minimum.reduceat(coords, first, axis=0), np.maximum.reduceat(coords, first, axis=0)])


def _buffers(chunk: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of a chunk, a view, and where its values begin and end in them, ``len(chunk) + 1``."""
    _, starts, data = chunk.buffers()
    width = np.dtype("int64" if pa.types.is_large_binary(chunk.type) else "int32")
    offsets = np.frombuffer(starts, width, len(chunk) + 1, chunk.offset * width.itemsize)
    bytes_ = np.frombuffer(data if data is not None else b"", np.uint8)
    bytes_.flags.writeable = False  # one type for the compiler, whether or not Arrow owns them
    return bytes_, offsets.astype(np.int64)


# ----------------------------------------------------------------------------------------------------------------------
# The kernel. Bytes are put together one by one (the compiler makes one load of them): nothing in WKB is aligned.
# ----------------------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _uint32(data, at, little):  # type: ignore[no-untyped-def]
    value = np.int64(0)
    for k in range(4):
        value |= np.int64(data[at + k]) << np.int64(8 * k if little else 24 - 8 * k)
    return value


@njit(cache=True, nogil=True)
def _float64(data, at, little):  # type: ignore[no-untyped-def]
    bits = np.uint64(0)
    if little:
        for k in range(8):
            bits |= np.uint64(data[at + k]) << np.uint64(8 * k)
    else:
        for k in range(8):
            bits |= np.uint64(data[at + k]) << np.uint64(56 - 8 * k)
    return np.uint64(bits).view(np.float64)


@njit(cache=True, nogil=True)
def _header(data, at, end):  # type: ignore[no-untyped-def]
    """Problem (0: none), its detail or the type code, kind (0: neither), bytes a vertex, byte order, and where the count is."""
    if end - at < 5:
        return _HEADER, 5 - (end - at), 0, 16, True, at
    if data[at] > 1:
        return _ORDER, np.int64(data[at]), 0, 16, True, at
    little = data[at] == 1
    code = _uint32(data, at + 1, little)
    at += 5
    if code & 0x20000000:  # EWKB: an SRID follows
        if end - at < 4:
            return _HEADER, 4 - (end - at), 0, 16, True, at
        at += 4
    dimensions, kind = divmod(code & 0x1FFFFFFF, 1000)  # ISO: 1003 has Z, 2003 M, 3003 both
    if dimensions > 3 or (kind != _POLYGON and kind != _MULTIPOLYGON):
        return 0, code, 0, 16, little, at
    size = 16
    if code & 0x80000000 or dimensions == 1 or dimensions == 3:
        size += 8
    if code & 0x40000000 or dimensions >= 2:
        size += 8
    return 0, code, kind, size, little, at


@njit(cache=True, nogil=True)
def _count(data, at, end, little, size):  # type: ignore[no-untyped-def]
    """Problem (0: none), and its detail or how many things of at least ``size`` bytes follow."""
    if end - at < 4:
        return _HEADER, 4 - (end - at)
    count = _uint32(data, at, little)
    if count == 0:
        return _EMPTY, count
    if count > (end - at - 4) // size:
        return _COUNT, count
    return 0, count


@njit(cache=True, nogil=True)
def _walk(data, offsets, sizes, coords, ring_offsets, polygon_offsets, geometry_offsets, fill):  # type: ignore[no-untyped-def]
    """Walk the values of one chunk, adding its vertices, rings, polygons and rows to ``sizes``; with ``fill`` write them, too.

    Returns the first problem (0: none) and its detail; ``sizes[3]`` is then the row that has it.
    """
    vertex, ring, polygon = sizes[0], sizes[1], sizes[2]
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        if not 0 <= at <= end <= len(data):
            return _OUTSIDE, np.int64(0)
        problem, detail, kind, size, little, at = _header(data, at, end)
        if problem:
            return problem, detail
        if kind == 0:
            return _KIND, detail
        parts = np.int64(1)
        if kind == _MULTIPOLYGON:
            problem, parts = _count(data, at, end, little, 9)  # a header and a count
            if problem:
                return problem, parts
            at += 4
        for _ in range(parts):
            if kind == _MULTIPOLYGON:  # each part has a header of its own
                problem, detail, part_kind, size, little, at = _header(data, at, end)
                if problem:
                    return problem, detail
                if part_kind != _POLYGON:
                    return _PART, detail
            problem, rings = _count(data, at, end, little, 4)
            if problem:
                return problem, rings
            at += 4
            for _ in range(rings):
                problem, vertices = _count(data, at, end, little, size)
                if problem:
                    return problem, vertices
                if vertices < 3:
                    return _SHORT_RING, vertices
                at += 4
                last = at + (vertices - 1) * size
                for ordinate in range(2):
                    if _float64(data, at + 8 * ordinate, little) != _float64(data, last + 8 * ordinate, little):  # NaN, too
                        return _OPEN_RING, np.int64(0)
                if fill:
                    for i in range(vertices):
                        coords[vertex + i, 0] = _float64(data, at + i * size, little)
                        coords[vertex + i, 1] = _float64(data, at + i * size + 8, little)
                    ring_offsets[ring + 1] = vertex + vertices
                at = last + size
                vertex += vertices
                ring += 1
            polygon += 1
            if fill:
                polygon_offsets[polygon] = ring
        if at < end:
            return _TRAILING, end - at
        if fill:
            geometry_offsets[sizes[3] + 1] = polygon
        sizes[3] += 1
    sizes[0], sizes[1], sizes[2] = vertex, ring, polygon
    return 0, np.int64(0)
