"""The compiled kernel: from the rings of footprints to the cells they cover, and to the statistics of those cells.

`docs/kernel.md` explains it with figures. In short: a footprint's edges are swept row by row; in each row a *rule* turns the
edges that reach into it into ranges of columns. Ranges go into difference arrays (counts, cloud) and are OR-ed into day masks;
one running sum along the rows makes the counts at the end.

All work happens in a *window* of the globe's rows and columns: a region, or a band of it. Edges below a window enter it at its
first row by the same crossing that the sweep would have computed there, so a result never depends on how it was cut.

No fastmath anywhere: the exact predicate relies on the rounding of every single operation.

Longer than 400 lines: numba inlines these functions into one another, and they share the invariants of one sweep.
"""

from __future__ import annotations

import numpy as np
from numba import njit

TOUCH, CENTER, FRACTION = range(3)

# Far above the rounding of a crossing point (some 1e-13 degrees), far below any cell: closer than this the exact
# predicate decides.
_NEAR = 1e-9
# Shares of a cell's area are summed in whole units of 2**-44 of it, so that a sum does not depend on the order of the edges.
SHARE_UNITS = 1 << 44
# They are sums of rounded pieces (some 1e-12 of the cell): a share this little below the limit reaches it.
SHARE_ROUNDING = 1e-9
# Cloud cover is summed in whole units of 1e-6 percent, so that a sum does not depend on the order of the scenes.
CLOUD_UNITS = 1_000_000


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
    """Sign of the cross product of b-a and c-a, by an exact sum of twelve terms (Shewchuk 1997, grow-expansion).

    Exact unless a product underflows: for coordinates below 1e-100 that are not 0, which no footprint has.
    """
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
    # edges ascend evenly: the guess is right but for rounding
    k = np.int64((x - edges[0]) * (n / (edges[n] - edges[0])))
    k = min(max(k, np.int64(0)), np.int64(n - 1))
    if edges[k] > x:
        while k > 0 and edges[k] > x:
            k -= 1
    elif edges[k + 1] <= x:
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
def _crossing(ax, ay, bx, by, slope, y, lon_edges):  # type: ignore[no-untyped-def]
    """Where the segment rising from a to b crosses y between them, strictly: on the right side of every column edge.

    ``slope`` is the change of x over that of y.
    """
    if ax == bx:
        return ax
    x = ax + (y - ay) * slope
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
def _first_centre(x, centres):  # type: ignore[no-untyped-def]
    """First column whose centre is >= x, which lies on the right side of every centre; one more than the last if none is."""
    n = len(centres)
    if x <= centres[0]:
        return 0
    if x > centres[n - 1]:
        return n
    k = _cell_at(x, centres)  # centres ascend evenly, so they serve as edges
    while k < n and centres[k] < x:
        k += 1
    return k


@njit(cache=True, nogil=True)
def ring_areas(coords, ring_offsets):  # type: ignore[no-untyped-def]
    """Signed area of every ring, positive where it is counter-clockwise.

    The sum that GEOS takes (Area::ofRingSigned), term by term: what has an area there has one here.
    """
    areas = np.zeros(len(ring_offsets) - 1)
    for ring in range(len(ring_offsets) - 1):
        first, end = ring_offsets[ring], ring_offsets[ring + 1]
        if end - first < 3:
            continue
        x0 = coords[first, 0]
        total = 0.0
        for i in range(first + 1, end - 1):
            total += (coords[i, 0] - x0) * (coords[i - 1, 1] - coords[i + 1, 1])
        areas[ring] = -total / 2
    return areas


@njit(cache=True, nogil=True)
def ring_signs(areas, polygon_offsets):  # type: ignore[no-untyped-def]
    """What turns a ring's own direction into its part of the polygon: 1 or -1; the first ring of each polygon is its shell."""
    signs = np.ones(len(areas))
    for polygon in range(len(polygon_offsets) - 1):
        for ring in range(polygon_offsets[polygon], polygon_offsets[polygon + 1]):
            signs[ring] = 1.0 if (areas[ring] > 0) == (ring == polygon_offsets[polygon]) else -1.0
    return signs


@njit(cache=True, nogil=True)
def without_area(areas, polygon_offsets, geometry_offsets):  # type: ignore[no-untyped-def]
    """The first geometry whose area is not above 0, or -1."""
    for g in range(len(geometry_offsets) - 1):
        total = 0.0
        for polygon in range(geometry_offsets[g], geometry_offsets[g + 1]):
            for ring in range(polygon_offsets[polygon], polygon_offsets[polygon + 1]):
                total += abs(areas[ring]) if ring == polygon_offsets[polygon] else -abs(areas[ring])
        if not total > 0:
            return g
    return -1


@njit(cache=True, nogil=True)
def extents(coords, ring_offsets, geometry_rings, lat_edges, lon_edges):  # type: ignore[no-untyped-def]
    """Rows and columns that each footprint's bounds reach: ``(footprints, 4)``, first and last row, first and last column."""
    spans = np.empty((len(geometry_rings) - 1, 4), np.int64)
    for g in range(len(geometry_rings) - 1):
        west, south, east, north = np.inf, np.inf, -np.inf, -np.inf
        for i in range(ring_offsets[geometry_rings[g]], ring_offsets[geometry_rings[g + 1]]):
            west, east = min(west, coords[i, 0]), max(east, coords[i, 0])
            south, north = min(south, coords[i, 1]), max(north, coords[i, 1])
        spans[g, 0], spans[g, 1] = _cell_at(south, lat_edges), _cell_below(north, lat_edges)
        spans[g, 2], spans[g, 3] = _cell_at(west, lon_edges), _cell_below(east, lon_edges)
    return spans


@njit(cache=True, nogil=True)
def _workspace(edges, rows, columns):  # type: ignore[no-untyped-def]
    """Buffers for one footprint: edge ends, (x at the row's lower border, direction, slope), links, active list, heads, extents,
    flags, and for shares (within the column, to the right of it).
    """
    return (
        np.empty((edges, 4)),
        np.empty((edges, 3)),
        np.empty(edges, np.int64),
        np.empty(edges, np.int64),
        np.full(rows, -1, np.int64),
        np.empty((edges, 2)),
        np.empty((edges, 2), np.bool_),
        np.zeros((columns + 1, 2), np.int64),
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
def _add_range(ranges, count, row, first, last):  # type: ignore[no-untyped-def]
    """Append the columns first..last of a row, joined to the range before where the two meet; and the new number of ranges."""
    if count and ranges[count - 1, 0] == row and first <= ranges[count - 1, 2] + 1:
        ranges[count - 1, 2] = max(ranges[count - 1, 2], last)
        return count
    ranges[count, 0], ranges[count, 1], ranges[count, 2] = row, first, last
    return count + 1


@njit(cache=True, nogil=True)
def _touched(row, extents, flags, n, window, lon_edges, ranges, count):  # type: ignore[no-untyped-def]
    """Columns whose interior meets the footprint's within the open row: the x-extents of its clipped edges, and the gaps between
    them that lie inside (even-odd).
    """
    if n == 2 and flags[0, 0] and flags[1, 0]:  # nearly every row of nearly every footprint: in at one edge, out at the other
        left, right = min(extents[0, 0], extents[1, 0]), max(extents[0, 1], extents[1, 1])
        if left < right or flags[0, 1] or flags[1, 1]:  # a slanted edge has a width, however little rounding leaves of it
            first = _cell_at(left, lon_edges)
            last = max(first, _cell_below(right, lon_edges))
            first, last = max(first, window[2]), min(last, window[3] - 1)
            if first <= last:
                count = _add_range(ranges, count, row, first, last)
        return count
    _sort_extents(extents, flags, n)
    inside = False
    reached = -np.inf
    for i in range(n):
        left, right = extents[i, 0], extents[i, 1]
        for step in range(2):
            if step == 0:  # the gap before this extent
                if not (inside and left > reached):
                    continue
                first, last = _cell_at(reached, lon_edges), _cell_below(left, lon_edges)
            else:  # the extent, unless its edge is upright: then it has no width
                if not flags[i, 1]:
                    continue
                first = _cell_at(left, lon_edges)
                last = max(first, _cell_below(right, lon_edges))
            first, last = max(first, window[2]), min(last, window[3] - 1)
            if first <= last:
                count = _add_range(ranges, count, row, first, last)
        reached = max(reached, right)
        inside ^= flags[i, 0]
    return count


@njit(cache=True, nogil=True)
def _centred(row, extents, flags, n, window, ranges, count):  # type: ignore[no-untyped-def]
    """Columns whose centre lies inside: between every odd crossing of the row's middle and the next. The extents' left ends are
    the first columns whose centre is not left of a crossing, so whole numbers.
    """
    _sort_extents(extents, flags, n)
    for i in range(0, n - 1, 2):
        first, last = max(np.int64(extents[i, 0]), window[2]), min(np.int64(extents[i + 1, 0]), window[3]) - 1
        if first <= last:
            count = _add_range(ranges, count, row, first, last)
    return count


@njit(cache=True, nogil=True)
def _add_share(x0, y0, x1, y1, weight, lon_edges, shares):  # type: ignore[no-untyped-def]
    """Add what an edge's piece within a row has to its right: in its own columns a part, in all further ones its height.

    Heights are in rows, so that a full cell comes to 1.
    """
    if x0 > x1:  # from left to right; only the height counts
        x0, y0, x1, y1 = x1, y1, x0, y0
    first = _cell_at(x0, lon_edges)
    last = max(first, _cell_below(x1, lon_edges))
    y = y0
    for column in range(first, last + 1):
        west, east = lon_edges[column], lon_edges[column + 1]
        a, b = max(x0, west), min(x1, east)
        to = y1 if column == last else y0 + (b - x0) / (x1 - x0) * (y1 - y0)
        height = abs(to - y) * weight
        shares[column, 0] += np.int64(np.rint(height * (east - 0.5 * (a + b)) / (east - west) * SHARE_UNITS))
        shares[column, 1] += np.int64(np.rint(height * SHARE_UNITS))
        y = to
    return first, last


@njit(cache=True, nogil=True)
def _covered(row, low, high, window, min_share, shares, ranges, count):  # type: ignore[no-untyped-def]
    """Columns of which the footprint covers at least that share, from the columns between the row's outermost edges."""
    right = np.int64(0)
    least = np.int64(np.rint(min_share * SHARE_UNITS))
    for column in range(low, high + 1):
        if right + shares[column, 0] >= least and window[2] <= column < window[3]:
            count = _add_range(ranges, count, row, column, column)
        right += shares[column, 1]
        shares[column, 0] = shares[column, 1] = 0
    return count


@njit(cache=True, nogil=True)
def _footprint_ranges(coords, ring_offsets, signs, ring_from, ring_to, grid, workspace, ranges):  # type: ignore[no-untyped-def]
    """Ranges (row, first column, last column) that one footprint covers in the window, row-major, disjoint; and their number.

    Rows are swept upwards. An edge joins the active list in its first row and leaves it after its last, so that the
    work is the number of edge-row pairs and the memory that of the edges.
    """
    lat_edges, lon_edges, lats, lons, window, rule, min_share = grid
    ends, state, links, active, starting, extents, flags, shares = workspace
    row_from, row_to = window[1], window[0] - 1
    edges = 0
    for ring in range(ring_from, ring_to):
        for i in range(ring_offsets[ring], ring_offsets[ring + 1] - 1):
            ax, ay, bx, by = coords[i, 0], coords[i, 1], coords[i + 1, 0], coords[i + 1, 1]
            sign = signs[ring]
            if ay > by:
                ax, ay, bx, by = bx, by, ax, ay
                sign = -sign
            first = _cell_at(ay, lat_edges)
            if ay == by:
                # a level edge on the border of two rows lies in neither of the open rows; without length it is no edge
                if rule != TOUCH or ax == bx or ay == lat_edges[first] or ay == lat_edges[first + 1]:
                    continue
                last = first
            else:
                last = _cell_below(by, lat_edges)
            if last < window[0] or first >= window[1]:
                continue
            slope = (bx - ax) / (by - ay) if ay != by else 0.0
            low = ax
            if first < window[0]:
                first = window[0]
                low = _crossing(ax, ay, bx, by, slope, lat_edges[first], lon_edges)
            ends[edges, 0], ends[edges, 1], ends[edges, 2], ends[edges, 3] = ax, ay, bx, by
            state[edges, 0], state[edges, 1], state[edges, 2] = low, sign, slope
            links[edges] = starting[first]
            starting[first] = edges
            edges += 1
            row_from, row_to = min(row_from, first), max(row_to, min(last, window[1] - 1))
    count = 0
    n_active = 0
    for row in range(row_from, row_to + 1):
        edge = starting[row]
        starting[row] = -1
        while edge >= 0:
            active[n_active] = edge
            n_active += 1
            edge = links[edge]
        bottom, top = lat_edges[row], lat_edges[row + 1]
        middle = 0.5 * (bottom + top)
        n = n_active
        n_active = 0
        most = 2 * n + 1 if rule != FRACTION else window[3] - window[2] + 1
        if count + most > len(ranges):
            grown = np.empty((2 * len(ranges) + most, 3), np.int64)
            grown[:count] = ranges[:count]
            ranges = grown
        crossings = 0
        west, east = len(lons), -1
        for i in range(n):
            edge = active[i]
            ax, ay, bx, by = ends[edge, 0], ends[edge, 1], ends[edge, 2], ends[edge, 3]
            low = state[edge, 0]
            high = bx if by <= top else _crossing(ax, ay, bx, by, state[edge, 2], top, lon_edges)
            if rule == TOUCH:
                extents[i, 0], extents[i, 1] = min(low, high), max(low, high)
                flags[i, 0] = (ay <= middle) != (by <= middle)
                flags[i, 1] = ax != bx
            elif rule == CENTER:
                if (ay <= lats[row]) != (by <= lats[row]):
                    extents[crossings, 0] = _first_centre(_crossing(ax, ay, bx, by, state[edge, 2], lats[row], lons), lons)
                    crossings += 1
            else:
                height = top - bottom
                first, last = _add_share(
                    low, (max(ay, bottom) - bottom) / height, high, (min(by, top) - bottom) / height, -state[edge, 1], lon_edges, shares
                )
                west, east = min(west, first), max(east, last)
            if by > top:
                state[edge, 0] = high
                active[n_active] = edge
                n_active += 1
        if rule == TOUCH:
            count = _touched(row, extents, flags, n, window, lon_edges, ranges, count)
        elif rule == CENTER:
            count = _centred(row, extents, flags, crossings, window, ranges, count)
        else:
            count = _covered(row, west, east, window, min_share, shares, ranges, count)
    return ranges, count


@njit(cache=True, nogil=True)
def gathered(coords, ring_offsets, geometry_rings, signs, which):  # type: ignore[no-untyped-def]
    """The footprints ``which``, one after the other in memory: coordinates, ring offsets, rings of each, signs."""
    rings = vertices = 0
    for g in which:
        first, end = geometry_rings[g], geometry_rings[g + 1]
        rings += end - first
        vertices += ring_offsets[end] - ring_offsets[first]
    near_coords = np.empty((vertices, 2))
    near_offsets = np.zeros(rings + 1, np.int64)
    near_geometries = np.zeros(len(which) + 1, np.int64)
    near_signs = np.empty(rings)
    ring = vertex = 0
    for j, g in enumerate(which):
        for r in range(geometry_rings[g], geometry_rings[g + 1]):
            for i in range(ring_offsets[r], ring_offsets[r + 1]):
                near_coords[vertex, 0], near_coords[vertex, 1] = coords[i, 0], coords[i, 1]
                vertex += 1
            near_signs[ring] = signs[r]
            ring += 1
            near_offsets[ring] = vertex
        near_geometries[j + 1] = ring
    return near_coords, near_offsets, near_geometries, near_signs


@njit(cache=True, nogil=True)
def covered_ranges(coords, ring_offsets, geometry_rings, signs, which, grid):  # type: ignore[no-untyped-def]
    """All ranges of the footprints ``which``, ``(n, 4)``: footprint, row, first and last column."""
    workspace = _workspace(_most_edges(ring_offsets, geometry_rings), len(grid[2]), len(grid[3]))
    ranges = np.empty((64, 3), np.int64)
    out = np.empty((64, 4), np.int64)
    size = 0
    for g in which:
        ranges, count = _footprint_ranges(coords, ring_offsets, signs, geometry_rings[g], geometry_rings[g + 1], grid, workspace, ranges)
        if size + count > len(out):
            grown = np.empty((2 * len(out) + count, 4), np.int64)
            grown[:size] = out[:size]
            out = grown
        for i in range(count):
            out[size, 0], out[size, 1], out[size, 2], out[size, 3] = g, ranges[i, 0], ranges[i, 1], ranges[i, 2]
            size += 1
    return out[:size]


@njit(cache=True, nogil=True)
def mark(coords, ring_offsets, geometry_rings, signs, grid, mask):  # type: ignore[no-untyped-def]
    """Set the cells of ``mask``, an array of the window, that any footprint covers."""
    window = grid[4]
    workspace = _workspace(_most_edges(ring_offsets, geometry_rings), len(grid[2]), len(grid[3]))
    ranges = np.empty((64, 3), np.int64)
    for g in range(len(geometry_rings) - 1):
        ranges, count = _footprint_ranges(coords, ring_offsets, signs, geometry_rings[g], geometry_rings[g + 1], grid, workspace, ranges)
        for i in range(count):
            mask[ranges[i, 0] - window[0], ranges[i, 1] - window[2] : ranges[i, 2] - window[2] + 1] = True


@njit(cache=True, nogil=True)
def latest(coords, ring_offsets, geometry_rings, signs, grid, values):  # type: ignore[no-untyped-def]
    """The largest value of the footprints that cover each cell of the window; NaN where none does."""
    window = grid[4]
    found_latest = np.full((window[1] - window[0], window[3] - window[2]), np.nan)
    workspace = _workspace(_most_edges(ring_offsets, geometry_rings), len(grid[2]), len(grid[3]))
    ranges = np.empty((64, 3), np.int64)
    for g in range(len(geometry_rings) - 1):
        value = values[g]
        ranges, count = _footprint_ranges(coords, ring_offsets, signs, geometry_rings[g], geometry_rings[g + 1], grid, workspace, ranges)
        for i in range(count):
            row = found_latest[ranges[i, 0] - window[0]]
            for column in range(ranges[i, 1] - window[2], ranges[i, 2] - window[2] + 1):
                if not row[column] >= value:  # NaN, too
                    row[column] = value
    return found_latest


@njit(cache=True, nogil=True)
def statistics(coords, ring_offsets, geometry_rings, signs, grid, day, cloud, known, clear):  # type: ignore[no-untyped-def]
    """The columns of `CellStatistics`, in its order; cells count from the window's first.

    A range adds at its first column and takes off behind its last; running sums along the rows make the counts at the
    end.
    """
    window = grid[4]
    n_lat, n_lon = window[1] - window[0], window[3] - window[2]
    # Side by side, one cache line a step: scenes and clear ones, unknown and known ones (two counts in one number, the second in
    # its upper half, for sums of sums are the sums of either), and cloud.
    tallies = np.zeros((n_lat, n_lon + 1, 3), np.int64)
    days = np.zeros((n_lat, n_lon), np.uint32)
    clear_days = np.zeros((n_lat, n_lon), np.uint32)
    unknown_days = np.zeros((n_lat, n_lon), np.uint32)
    row_touched = np.zeros(n_lat, np.bool_)
    workspace = _workspace(_most_edges(ring_offsets, geometry_rings), len(grid[2]), len(grid[3]))
    ranges = np.empty((64, 3), np.int64)
    for g in range(len(geometry_rings) - 1):
        bit = np.uint32(1) << np.uint32(day[g] - 1)
        is_clear, is_unknown = clear[g], not clear[g] and not known[g]
        seen = np.int64(1) + (np.int64(is_clear) << 32)
        lines = np.int64(is_unknown) + (np.int64(known[g]) << 32)
        percent = cloud[g] if known[g] else np.int64(0)
        ranges, count = _footprint_ranges(coords, ring_offsets, signs, geometry_rings[g], geometry_rings[g + 1], grid, workspace, ranges)
        for i in range(count):
            row, first, end = ranges[i, 0] - window[0], ranges[i, 1] - window[2], ranges[i, 2] + 1 - window[2]
            row_touched[row] = True
            tallies[row, first, 0] += seen
            tallies[row, first, 1] += lines
            tallies[row, first, 2] += percent
            tallies[row, end, 0] -= seen
            tallies[row, end, 1] -= lines
            tallies[row, end, 2] -= percent
            for column in range(first, end):
                days[row, column] |= bit
            if is_clear:
                for column in range(first, end):
                    clear_days[row, column] |= bit
            elif is_unknown:
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
        seen = lines = cloud_sum = np.int64(0)
        for column in range(n_lon):
            seen += tallies[row, column, 0]
            lines += tallies[row, column, 1]
            cloud_sum += tallies[row, column, 2]
            if seen > 0:
                n_known = lines >> 32
                cell[at] = row * n_lon + column
                scenes[at], clears[at], unknowns[at] = seen & 0xFFFFFFFF, seen >> 32, lines & 0xFFFFFFFF
                cloud_mean[at] = cloud_sum / (n_known * CLOUD_UNITS) if n_known > 0 else np.nan
                masks[0, at] = days[row, column]
                masks[1, at] = clear_days[row, column]
                masks[2, at] = unknown_days[row, column]
                at += 1
    return cell, scenes, clears, unknowns, cloud_mean, masks[0], masks[1], masks[2]
