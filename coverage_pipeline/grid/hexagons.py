"""Hexagonal cells: all H3 cells of one resolution as polygons in the plane of longitude and latitude, and what footprints cover of them.

H3 (https://h3geo.org) divides the globe into hexagons and twelve pentagons; xdggs and DGGS tools read its ids. Vertices and centres
are H3's own. Lines between vertices are straight in lon/lat, as those of footprints are, and cells at the antimeridian and the
poles are cut and closed by the code that cuts footprints: H3's own fill of polygons errs there. Neighbours share their vertices to
the last bit, so that the cells leave no gap and nowhere overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import h3.api.basic_int as h3
import h3.api.numpy_int as h3_arrays
import numpy as np
import shapely
from numpy.typing import NDArray

from coverage_pipeline.geometry.footprints import area_km2, normalise_footprints
from coverage_pipeline.grid import kernel

MAX_RES = 5
"""The finest resolution whose cells are all held at once: 2,016,842; the next has 14 million."""

# H3 computes a vertex anew for each of its two or three cells; they differ by up to 1.5e-13 degrees; neighbouring ones
# at resolution 5 lie 0.02 degrees apart and more.
_SAME_VERTEX = 1e-10
# Cells whose vertices are Python objects at a time.
_CELLS_AT_A_TIME = 50_000
# A batch of footprints: about so many pairs, and so few footprints, each of which GEOS indexes.
_PAIRS_AT_A_TIME, _FOOTPRINTS_AT_A_TIME = 1_000_000, 10_000
# Candidates are looked up this many degrees beyond a footprint's bounds; the exact test comes after.
_MARGIN = 1e-6

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@lru_cache(maxsize=MAX_RES + 1)
def hex_cells(res: int) -> HexCells:
    """All H3 cells of a resolution 0..5, the same object on every call: its arrays are made when first asked for, and kept.

    Raises ValueError: there is no such resolution, or its cells are too many.
    """
    return HexCells(res)


class HexCells:
    """All H3 cells of one resolution, ascending by id, and the footprints' way to them.

    A cell's place among ``ids`` is its number in every array here. All arrays are read-only.

    Raises ValueError: ``res`` is not 0..5.
    """

    res: int
    """Resolution: 0 has cells of 4.4 million km², each further one a seventh of that."""
    count: int
    """Number of cells."""

    def __init__(self, res: int) -> None:
        if not 0 <= res <= MAX_RES:
            raise ValueError(f"H3 resolution {res!r}: use 0 to {MAX_RES}")
        self.res = res
        self.count = h3.get_num_cells(res)

    @cached_property
    def ids(self) -> NDArray[np.uint64]:
        """H3 ids, uint64 of shape ``(count,)``, ascending."""
        ids = np.asarray(h3_arrays.uncompact_cells(h3_arrays.get_res0_cells(), self.res), dtype=np.uint64)
        return _frozen(np.sort(ids))

    @cached_property
    def _centres(self) -> NDArray[np.float64]:
        return np.fromiter(map(h3.cell_to_latlng, self.ids.tolist()), np.dtype((np.float64, 2)), self.count)

    @cached_property
    def lats(self) -> NDArray[np.float64]:
        """Latitudes of H3's centre points, degrees, float64 of shape ``(count,)``."""
        return _frozen(self._centres[:, 0].copy())

    @cached_property
    def lons(self) -> NDArray[np.float64]:
        """Longitudes of H3's centre points, degrees, float64 of shape ``(count,)``."""
        return _frozen(self._centres[:, 1].copy())

    @cached_property
    def polygons(self) -> NDArray[np.object_]:
        """Valid Polygons, or MultiPolygons on both sides of the antimeridian, within ±180 and ±90; object array ``(count,)``.

        Each has H3's vertices, in degrees of longitude and latitude, joined by straight lines there. The two cells around the
        poles reach up to ±90 along the whole width of the map.
        """
        coords, ends = _closed_rings(*_boundaries(self.ids))
        polygons: NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, coords, (np.append(0, ends), np.arange(self.count + 1))
        )
        jumps = np.flatnonzero(np.abs(np.diff(coords[:, 0])) > 180)
        jumps = jumps[~np.isin(jumps, ends - 1)]  # from one ring's last vertex to the next ring's first: not an edge
        cut = np.unique(np.searchsorted(ends, jumps, side="right"))
        polygons[cut], reasons = normalise_footprints(polygons[cut])
        assert not reasons.astype(bool).any(), f"H3 cells {self.ids[cut][reasons.astype(bool)]} can't be put on the map"
        return _frozen(polygons)

    @cached_property
    def bounds(self) -> NDArray[np.float64]:
        """West, south, east, north of each cell, degrees, float64 ``(count, 4)``; a cell cut at ±180 spans -180 to 180."""
        return _frozen(shapely.bounds(self.polygons))

    @cached_property
    def areas_km2(self) -> NDArray[np.float64]:
        """Area of each cell's polygon, km², float64 ``(count,)``, by `footprints.area_km2`; they add up to the globe.

        Not H3's `cell_area`, whose sides are great circles: a footprint is judged against the polygons as they are here. The two
        differ where cells are wide in longitude: by a quarter to two fifths in a cell around a pole; at resolution 3 by 0.04 % or less
        in 99 of 100.
        """
        starts = range(0, self.count, _CELLS_AT_A_TIME)
        return _frozen(np.concatenate([area_km2(self.polygons[start : start + _CELLS_AT_A_TIME]) for start in starts]))

    @cached_property
    def _pieces(self) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
        """Polygons without Multi, whose bounds are tight at the antimeridian, and the cell of each."""
        split = shapely.get_type_id(self.polygons) == shapely.GeometryType.MULTIPOLYGON
        parts, owner = shapely.get_parts(self.polygons[split], return_index=True)
        whole = np.flatnonzero(~split)
        return np.concatenate([self.polygons[whole], parts]), np.concatenate([whole, np.flatnonzero(split)[owner]])

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self._pieces[0])

    @cached_property
    def _corners(self) -> NDArray[np.float64]:
        """The first six vertices of each piece, fewer ones repeated: ``(6, pieces, 2)``."""
        sizes = shapely.get_num_coordinates(self._pieces[0])
        starts = np.cumsum(sizes) - sizes
        corners: NDArray[np.float64] = shapely.get_coordinates(self._pieces[0])[starts + np.minimum(np.arange(6)[:, None], sizes - 2)]
        return corners

    @cached_property
    def _bands(self) -> tuple[float, NDArray[np.int64], NDArray[np.float64]]:
        """Height of bands of latitude, degrees; cells by band, then longitude; and the key that they are sorted by.

        The key is 1000 a band plus the longitude.
        """
        height = 180 / max(1, round(np.sqrt(self.count) / 2))
        key = 1000 * np.floor((self.lats + 90) / height) + self.lons
        order = np.argsort(key, kind="stable")
        return height, order, key[order]

    def pairs(self, geometries: NDArray[np.object_], rule: str, min_fraction: float) -> Pairs:
        """Which footprint covers which cell: their indices, two int64 arrays, ascending by footprint, then by cell.

        - ``geometries``: object array of Polygons and MultiPolygons as `normalise_footprints` returns them, without None.
        - ``rule``: ``touch``, the interiors intersect; ``center``, H3's centre point lies within the footprint or on its boundary;
          ``fraction``, the footprint covers at least ``min_fraction`` (above 0, at most 1) of the cell's area in the plane of
          longitude and latitude.

        Raises ValueError: there is no such rule.
        """
        batches = list(self._batches(geometries, rule, min_fraction))
        if not batches:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate([owner for owner, _ in batches]), np.concatenate([cell for _, cell in batches])

    def holding(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        """Cells that hold any of the points, ``(points, 2)`` longitude and latitude, their borders included; places among ``ids``."""
        return self.crossed(shapely.points(points))

    def crossed(self, shapes: NDArray[np.object_]) -> NDArray[np.int64]:
        """Cells that points or lines (within ±180 and ±90) meet; places among ``ids``, ascending.

        A line whose vertices lie more than 180° of longitude apart goes the short way round, across the antimeridian.
        """
        lines = np.asarray(shapes, dtype=object)
        vertices, owner = shapely.get_coordinates(lines, return_index=True)
        far = np.zeros(len(lines), bool)
        far[owner[1:][(np.abs(np.diff(vertices[:, 0])) > 180) & (owner[1:] == owner[:-1])]] = True
        if far.any():  # on the unwrapped map, and again a turn to either side
            # a person's targets, never footprints: one at a time is fast enough
            unwrapped = [shapely.transform(line, _unwrapped) for line in lines[far]]
            again = [shapely.transform(unwrapped, lambda xy, turn=turn: xy + np.array([turn, 0.0])) for turn in (-360.0, 0.0, 360.0)]
            lines = np.concatenate([lines[~far], *again])
        _, pieces = self._tree.query(lines, predicate="intersects")
        cells: NDArray[np.int64] = np.unique(self._pieces[1][pieces])
        return cells

    def statistics(
        self,
        geometries: NDArray[np.object_],
        rule: str,
        min_fraction: float,
        day: NDArray[np.uint32],
        units: NDArray[np.int64],
        known: NDArray[np.bool_],
        clear: NDArray[np.bool_],
        chosen: NDArray[np.bool_],
    ) -> tuple[NDArray[Any], ...]:
        """The columns of `grid.CellStatistics`, in its order; independent of the order of the scenes, to the last bit.

        - ``geometries, rule, min_fraction``: as for `pairs`, one footprint a scene.
        - ``day``: UTC day of the month of each scene, 1..31.
        - ``units``: cloud percentage of each scene in whole units of 1e-6 percent, any number where unknown.
        - ``known, clear, chosen``: whether its cloud is known, whether it counts as clear, and whether to count it at all.

        Raises ValueError: there is no such rule.
        """
        scenes, clears, unknowns, knowns, clouds = np.zeros((5, self.count), np.int64)
        days, clear_days, unknown_days = np.zeros((3, self.count), np.uint32)
        which = np.flatnonzero(chosen)
        for owner, cell in self._batches(geometries[which], rule, min_fraction):
            scene = which[owner]
            bit = np.uint32(1) << (day[scene] - np.uint32(1))
            for some, tally, mask in (
                (slice(None), scenes, days),
                (clear[scene], clears, clear_days),
                (~clear[scene] & ~known[scene], unknowns, unknown_days),
            ):
                np.add.at(tally, cell[some], 1)
                np.bitwise_or.at(mask, cell[some], bit[some])
            seen = known[scene]
            np.add.at(knowns, cell[seen], 1)
            np.add.at(clouds, cell[seen], units[scene[seen]])
        at = np.flatnonzero(scenes)
        mean = np.full(len(at), np.nan)
        np.divide(clouds[at], knowns[at] * kernel.CLOUD_UNITS, out=mean, where=knowns[at] > 0)
        tallies = (tally[at].astype(np.int32) for tally in (scenes, clears, unknowns))
        return at, *tallies, mean.astype(np.float32), days[at], clear_days[at], unknown_days[at]

    def _batches(self, geometries: NDArray[np.object_], rule: str, min_fraction: float) -> Iterator[Pairs]:
        """`pairs` in batches of footprints, ascending, none of them large whatever the footprints are."""
        covered = {"touch": self._touched, "center": self._centred, "fraction": self._shared}.get(rule)
        if covered is None:
            raise ValueError(f"rule {rule!r}: use one of touch, center, fraction")
        shares = shapely.bounds(geometries) / (360, 180, 360, 180)
        width, height = shares[:, 2] - shares[:, 0], shares[:, 3] - shares[:, 1]
        on_sphere = (np.sin(np.pi * shares[:, 3]) - np.sin(np.pi * shares[:, 1])) / 2
        # cells inside the bounds, and those along them
        pairs = np.cumsum(width * on_sphere * self.count + 2 * (width + height) * np.sqrt(self.count) + 1)
        start = 0
        while start < len(geometries):
            done = pairs[start - 1] if start else 0.0
            end = int(np.searchsorted(pairs, done + _PAIRS_AT_A_TIME))
            end = min(max(end, start + 1), start + _FOOTPRINTS_AT_A_TIME, len(geometries))
            # part by part: the bounds of a footprint cut at ±180 would be the whole width of the map
            parts, owner = shapely.get_parts(geometries[start:end], return_index=True)
            shapely.prepare(parts)
            part, cell, share = covered(parts)
            key = owner[part] * self.count + cell
            if rule == "fraction":
                order = np.argsort(key, kind="stable")
                key, first = np.unique(key[order], return_index=True)
                share = np.add.reduceat(share[order], first) if len(first) else share[order]
                key = key[share >= min_fraction - kernel.SHARE_ROUNDING]
            else:
                key = np.unique(key)
            yield start + key // self.count, key % self.count
            start = end

    def _meeting(self, parts: NDArray[np.object_]) -> Pairs:
        """Parts of footprints and pieces of cells whose interiors intersect; the parts are prepared."""
        pieces = self._pieces[0]
        part, piece = self._tree.query(parts)
        # A corner of the cell strictly within the footprint has some of the cell's interior around it: that settles most pairs
        # at a tenth of the time of GEOS's predicates on areas, which judge the rest.
        meet = np.zeros(len(part), np.bool_)
        open_ = np.arange(len(part))
        for corner in self._corners:
            x, y = corner[piece[open_]].T
            within = shapely.contains_xy(parts[part[open_]], x, y)
            meet[open_[within]] = True
            open_ = open_[~within]
        open_ = open_[shapely.intersects(parts[part[open_]], pieces[piece[open_]])]
        meet[open_[~shapely.touches(parts[part[open_]], pieces[piece[open_]])]] = True
        return part[meet], piece[meet]

    def _touched(self, parts: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        part, piece = self._meeting(parts)
        return part, self._pieces[1][piece], np.empty(0)

    def _shared(self, parts: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        part, piece = self._meeting(parts)
        polygons, cells = self._pieces
        cell = cells[piece]
        area = shapely.area(polygons[piece])
        some = np.flatnonzero(~shapely.covers(parts[part], polygons[piece]))
        area[some] = shapely.area(shapely.intersection(parts[part[some]], polygons[piece[some]]))
        return part, cell, area / shapely.area(self.polygons[cell])

    def _centred(self, parts: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        height, order, keys = self._bands
        west, south, east, north = shapely.bounds(parts).T
        lowest, highest = np.floor((south + 90) / height), np.floor((north + 90) / height)
        band, part = _spread(lowest.astype(np.int64), (highest - lowest).astype(np.int64) + 1)
        first = np.searchsorted(keys, 1000 * band + west[part] - _MARGIN)
        end = np.searchsorted(keys, 1000 * band + east[part] + _MARGIN)
        place, row = _spread(first, end - first)
        part, cell = part[row], order[place]
        inside = shapely.intersects_xy(parts[part], self.lons[cell], self.lats[cell])
        return part[inside], cell[inside], np.empty(0)


def _unwrapped(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """One line's vertices with longitudes that run on past ±180 instead of jumping."""
    return np.column_stack([np.unwrap(line[:, 0], period=360), line[:, 1]])


def _frozen[T: np.generic](array: NDArray[T]) -> NDArray[T]:
    array.flags.writeable = False
    return array


def _spread(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Pairs:
    """All numbers of the ranges, one range after the other, and the range of each."""
    ends = np.cumsum(lengths)
    owner = np.repeat(np.arange(len(starts)), lengths)
    return np.arange(len(owner)) - (ends - lengths - starts)[owner], owner


def _boundaries(ids: NDArray[np.uint64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices of all cells, longitude and latitude, ``(n, 2)``, and how many each cell has: 5 to 10."""
    vertices, sizes = [], []
    for start in range(0, len(ids), _CELLS_AT_A_TIME):
        boundaries = [h3.cell_to_boundary(cell) for cell in ids[start : start + _CELLS_AT_A_TIME].tolist()]
        size = np.fromiter(map(len, boundaries), np.int64, len(boundaries))
        vertices.append(np.fromiter(chain.from_iterable(boundaries), np.dtype((np.float64, 2)), int(size.sum()))[:, ::-1])
        sizes.append(size)
    return np.concatenate(vertices), np.concatenate(sizes)


def _closed_rings(vertices: NDArray[np.float64], sizes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices with each ring's first repeated at its end, the same vertex with the same bits in all its cells; and the rings' ends."""
    by_lon = np.argsort(vertices[:, 0], kind="stable")
    near_lon = np.empty(len(vertices), np.int64)
    near_lon[by_lon] = np.cumsum(np.diff(vertices[by_lon, 0], prepend=-np.inf) > _SAME_VERTEX)
    order = np.lexsort((vertices[:, 1], near_lon))
    new = (np.diff(near_lon[order], prepend=-1) > 0) | (np.diff(vertices[order, 1], prepend=-np.inf) > _SAME_VERTEX)
    vertex = np.empty(len(vertices), np.int64)
    vertex[order] = order[new][np.cumsum(new) - 1]  # one of the two or three stands for all
    ends = np.cumsum(sizes)
    closed = vertices[np.insert(vertex, ends, vertex[ends - sizes])]
    return closed, ends + np.arange(1, len(sizes) + 1)
