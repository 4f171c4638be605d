"""The grid, the rule by which a footprint covers its cells, and the statistics of the cells.

By default a footprint touches a cell when their interiors intersect, exactly so on the float64 coordinates. The compiled part
is in `grid_kernel`, hexagonal cells are in `grid_hex`; `docs/kernel.md` shows how it works.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid import kernel

if TYPE_CHECKING:
    from coverage_pipeline.grid.hexagons import HexCells

BBox = tuple[float, float, float, float]
GLOBE: BBox = (-180.0, -90.0, 180.0, 90.0)
"""West, south, east, north, degrees."""
CoverageRule = Literal["touch", "center", "fraction"]
"""When a footprint covers a cell: their interiors meet; the cell's centre lies inside; at least a share of its area does."""

# fmt: off
_USUAL_RESOLUTIONS = (
    0.01, 0.02, 0.025, 0.05, 0.1, 0.125, 0.2, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 30.0, 90.0,
)
# fmt: on
# Edges of a box are written by people in decimals, cell edges are computed: closer than this they are the same.
_SAME_EDGE = 1e-9
# H3 resolutions whose cells can all be held as polygons: 2,016,842 of them at 5, 14 million at 6.
_MAX_H3_RES = 5


@dataclass(frozen=True)
class GridSpec:
    """A grid, and the rule by which footprints cover its cells.

    A regular one in degrees, over the globe or a region, latitude and longitude ascending; or the H3 cells of one resolution.

    Raises ValueError: ``resolution`` does not divide 180 degrees into whole cells; ``crs``, ``h3_res``, ``extent``, ``rule`` or
    ``min_fraction`` ask for what there is not.
    """

    resolution: float = 0.1
    """Side of a cell in degrees; not used with ``h3_res``."""
    crs: str = "EPSG:4326"
    """Only EPSG:4326."""
    h3_res: int | None = None
    """Resolution of H3 cells, 0..5; None: a regular grid."""
    extent: BBox | None = None
    """West, south, east, north of a region, widened to whole cells; None: the globe."""
    rule: CoverageRule = "touch"
    """When a footprint covers a cell."""
    min_fraction: float = 0.5
    """The share of a cell's area, above 0 to 1, in the plane of longitude and latitude; for the rule ``fraction`` only."""

    def __post_init__(self) -> None:
        if self.crs != "EPSG:4326":
            raise ValueError(
                f"crs {self.crs!r}: the grid is in degrees, so only 'EPSG:4326' is possible; reproject what you read from it instead"
            )
        if self.rule not in get_args(CoverageRule):
            raise ValueError(f"rule {self.rule!r}: use one of {', '.join(get_args(CoverageRule))}")
        if not 0 < self.min_fraction <= 1:
            raise ValueError(f"min_fraction {self.min_fraction!r}: a share of a cell's area, above 0 and at most 1")
        if self.h3_res is not None:
            if isinstance(self.h3_res, bool) or not (isinstance(self.h3_res, int) and 0 <= self.h3_res <= _MAX_H3_RES):
                raise ValueError(
                    f"h3_res {self.h3_res!r}: a whole number from 0 to {_MAX_H3_RES}; finer ones have 14 million cells and more"
                )
            if self.extent is not None:
                raise ValueError("extent: a grid of H3 cells covers the globe; leave extent out, or use a resolution in degrees")
            return
        rows = 180 / self.resolution if math.isfinite(self.resolution) and self.resolution > 0 else math.nan
        # 0.1 and 1/3 are not float64 numbers, so 180/resolution is whole only up to rounding
        if not (rows < 2**31 and round(rows) >= 1 and abs(rows - round(rows)) <= 1e-9 * rows):
            allowed = ", ".join(f"{value:g}" for value in _resolutions_near(self.resolution))
            raise ValueError(
                f"resolution {self.resolution!r}: 180 degrees must be a whole number of cells, and "
                f"180/{self.resolution!r} is {rows:g}; allowed are for example {allowed}"
            )
        if self.extent is not None:
            object.__setattr__(self, "extent", self._whole_cells(self.extent))

    def _whole_cells(self, extent: Sequence[float]) -> BBox | None:
        west, south, east, north = _checked_bbox(extent, "extent")
        if not (west < east and south < north):
            raise ValueError(f"extent {tuple(extent)}: west must lie west of east and south south of north; a region can't cross ±180")
        rows, columns = self._global_edges
        first_row, last_row = _index_range(south, north, rows)
        first_column, last_column = _index_range(west, east, columns)
        whole = (float(columns[first_column]), float(rows[first_row]), float(columns[last_column]), float(rows[last_row]))
        return None if whole == GLOBE else whole

    @property
    def bounds(self) -> BBox:
        """West, south, east, north of the grid, degrees."""
        return self.extent or GLOBE

    def centres_of(self, cell: NDArray[np.integer[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latitudes and longitudes of the centres of cells, degrees; ``cell`` are flat indices, as in `CellStatistics`."""
        rows, columns = (cell, cell) if self.h3_res is not None else np.divmod(cell, self.shape[1])
        return self.lats[rows], self.lons[columns]

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of a field: ``("lat", "lon")`` or ``("cells",)``."""
        return ("lat", "lon") if self.h3_res is None else ("cells",)

    @property
    def global_shape(self) -> tuple[int, int]:
        """Rows and columns of the regular grid over the whole globe."""
        n_lat = round(180 / self.resolution)
        return n_lat, 2 * n_lat

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """First row, end row, first column, end column of the region in the grid of the whole globe."""
        if self.extent is None:
            return 0, self.global_shape[0], 0, self.global_shape[1]
        west, south, east, north = self.extent
        rows, columns = self._global_edges
        return (
            int(np.searchsorted(rows, south)),
            int(np.searchsorted(rows, north)),
            int(np.searchsorted(columns, west)),
            int(np.searchsorted(columns, east)),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a field: rows and columns, ``(n_lat, n_lon)``, or the number of H3 cells."""
        if self.h3_res is not None:
            return (_hex_cells(self.h3_res).count,)
        row, row_end, column, column_end = self.window
        return row_end - row, column_end - column

    @cached_property
    def _global_edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        n_lat, n_lon = self.global_shape
        return _edges(n_lat, 180), _edges(n_lon, 360)

    def _regular(self, what: str) -> None:
        if self.h3_res is not None:
            raise ValueError(f"H3 cells have no {what}")

    @cached_property
    def lats(self) -> NDArray[np.float64]:
        """Latitudes of the cell centres, degrees, read-only: of the rows, ascending, or of each H3 cell."""
        if self.h3_res is not None:
            return _hex_cells(self.h3_res).lats
        return _centres(self.global_shape[0], 180)[self.window[0] : self.window[1]]

    @cached_property
    def lons(self) -> NDArray[np.float64]:
        """Longitudes of the cell centres, degrees, read-only: of the columns, ascending, or of each H3 cell."""
        if self.h3_res is not None:
            return _hex_cells(self.h3_res).lons
        return _centres(self.global_shape[1], 360)[self.window[2] : self.window[3]]

    @property
    def cell_ids(self) -> NDArray[np.uint64]:
        """Ids of the H3 cells, ascending; read-only. Raises ValueError: the grid is a regular one."""
        if self.h3_res is None:
            raise ValueError("cells of a regular grid have no ids")
        return _hex_cells(self.h3_res).ids

    @cached_property
    def lat_edges(self) -> NDArray[np.float64]:
        """Edges of the rows, one more than these: edge k of n over the globe is ``k*180/n - 90`` in float64; read-only."""
        self._regular("rows")
        return self._global_edges[0][self.window[0] : self.window[1] + 1]

    @cached_property
    def lon_edges(self) -> NDArray[np.float64]:
        """Edges of the columns, one more than these: edge k of n over the globe is ``k*360/n - 180`` in float64; read-only."""
        self._regular("columns")
        return self._global_edges[1][self.window[2] : self.window[3] + 1]

    @property
    def centre_latitudes(self) -> NDArray[np.float64]:
        """Latitude of every cell's centre, in a shape that broadcasts against a field."""
        return self.lats[:, None] if self.h3_res is None else self.lats

    def in_words(self) -> str:
        """Cells, region and rule, as they stand in the cube's attributes and in messages."""
        cells = f"{self.resolution:g} degrees" if self.h3_res is None else f"H3 resolution {self.h3_res}"
        where = "" if self.extent is None else f" within {', '.join(f'{bound:g}' for bound in self.extent)}"
        rule = f"{self.rule} (at least {self.min_fraction:g})" if self.rule == "fraction" else self.rule
        return f"{cells}{where}, rule {rule}"

    def describe(self) -> dict[str, Any]:
        """What tells this grid from another, as JSON; `from_description` makes it a grid again."""
        cells: dict[str, Any] = {"resolution": self.resolution} if self.h3_res is None else {"h3_res": self.h3_res}
        cells |= {} if self.extent is None else {"extent": list(self.extent)}
        return {**cells, "crs": self.crs, "rule": self.rule} | ({"min_fraction": self.min_fraction} if self.rule == "fraction" else {})

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> GridSpec:
        """The grid that `describe` described; raises ValueError as the grid itself, TypeError for a description that is none."""
        extent = description.get("extent")
        return cls(**{**description, "extent": None if extent is None else tuple(extent)})

    def kernel_grid(self, rows: tuple[int, int] | None = None, *, rule: CoverageRule | None = None) -> tuple[Any, ...]:
        """What the kernel wants of a regular grid: edges and centres of the globe, the window (or some rows of it), the rule."""
        self._regular("rows")
        first, end, column, column_end = self.window
        if rows is not None:
            first, end = rows
        n_lat, n_lon = self.global_shape
        code = {"touch": kernel.TOUCH, "center": kernel.CENTER, "fraction": kernel.FRACTION}[rule or self.rule]
        return (
            *self._global_edges,
            _centres(n_lat, 180),
            _centres(n_lon, 360),
            np.array([first, end, column, column_end], np.int64),
            code,
            max(self.min_fraction - kernel.SHARE_ROUNDING, kernel.SHARE_ROUNDING),  # what rounding leaves is no share
        )


def _hex_cells(res: int) -> HexCells:
    from coverage_pipeline.grid.hexagons import hex_cells  # h3 and two million polygons: only for who wants them

    return hex_cells(res)


def _resolutions_near(resolution: float) -> list[float]:
    if not (math.isfinite(resolution) and resolution > 0):
        return [0.05, 0.1, 0.25]
    return sorted(sorted(_USUAL_RESOLUTIONS, key=lambda usual: abs(math.log(usual / resolution)))[:3])


@lru_cache(maxsize=16)
def _edges(n: int, extent: int) -> NDArray[np.float64]:
    edges = np.arange(n + 1, dtype=np.float64) * extent / n - extent / 2
    edges.flags.writeable = False
    return edges


@lru_cache(maxsize=16)
def _centres(n: int, extent: int) -> NDArray[np.float64]:
    # One division of whole numbers rounds once, so 0.05 is 0.05; (k + 0.5)*extent/n - extent/2 is 0.04999999999999716.
    centres = (2.0 * np.arange(n) + 1 - n) * (extent // 2) / n
    centres.flags.writeable = False
    return centres


def footprint_to_cells(geom: BaseGeometry, grid: GridSpec) -> list[tuple[int, int]] | list[int]:
    """Cells that the footprint covers by the grid's rule: ``(lat_idx, lon_idx)`` in row-major order, or ids of H3 cells, ascending.

    The footprint may cross the antimeridian or hold a pole. By the rule ``touch``, touching only along an edge or a corner does
    not count, so that two cells never share a footprint that merely abuts them.

    Raises ValueError: the footprint can't be used; the message says why.
    """
    footprints, reasons = normalise_footprints(np.array([geom], dtype=object))
    if reasons[0] is not None:
        raise ValueError(f"footprint can't be placed on the grid: {reasons[0]}")
    if grid.h3_res is not None:
        covered = np.unique(_hex_cells(grid.h3_res).pairs(footprints, grid.rule, grid.min_fraction)[1])
        ids: list[int] = grid.cell_ids[covered].tolist()
        return ids
    arrays = _Footprints.of(*_ragged(footprints))
    row, _, column, _ = grid.window
    ranges = kernel.covered_ranges(*arrays.flat, np.zeros(1, np.int64), grid.kernel_grid())
    return [(int(r) - row, c - column) for _, r, first, last in ranges for c in range(first, last + 1)]


def bbox_to_index(bbox: Sequence[float], grid: GridSpec) -> tuple[slice, slice]:
    """Rows and columns whose cells' interior meets the interior of ``(minx, miny, maxx, maxy)``.

    A bbox without width or height counts as half-open there: the cell that begins at that coordinate or contains it
    (90 and 180 belong to the last cell).

    The two slices index latitude and longitude of an array of shape ``grid.shape``.

    Raises ValueError: the bbox crosses the antimeridian (minx > maxx), has miny > maxy, goes beyond ±180 or ±90, or lies outside
    the grid's region; the grid is one of H3 cells.
    """
    minx, miny, maxx, maxy = _checked_bbox(bbox)
    if minx > maxx:
        raise ValueError(f"bbox {tuple(bbox)} crosses the antimeridian (minx > maxx): split it with split_bbox")
    slices = []
    for low, high, edges in ((miny, maxy, grid.lat_edges), (minx, maxx, grid.lon_edges)):
        if (low > edges[-1] or high < edges[0]) if low == high else (low >= edges[-1] or high <= edges[0]):
            raise ValueError(f"bbox {tuple(bbox)} lies outside the grid ({grid.in_words()})")
        slices.append(slice(*_index_range(max(low, edges[0]), min(high, edges[-1]), edges)))
    return slices[0], slices[1]


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


def cells_within(bbox: Sequence[float], grid: GridSpec) -> NDArray[np.bool_]:
    """Cells that lie within ``(minx, miny, maxx, maxy)`` with all of their area: bool of shape ``grid.shape``.

    Raises ValueError: as `split_bbox`.
    """
    mask = np.zeros(grid.shape, bool)
    for west, south, east, north in split_bbox(bbox):
        if grid.h3_res is not None:
            bounds = _hex_cells(grid.h3_res).bounds
            mask |= (
                (bounds[:, :2] >= (west - _SAME_EDGE, south - _SAME_EDGE)) & (bounds[:, 2:] <= (east + _SAME_EDGE, north + _SAME_EDGE))
            ).all(1)
            continue
        rows = (grid.lat_edges[:-1] >= south - _SAME_EDGE) & (grid.lat_edges[1:] <= north + _SAME_EDGE)
        columns = (grid.lon_edges[:-1] >= west - _SAME_EDGE) & (grid.lon_edges[1:] <= east + _SAME_EDGE)
        mask |= rows[:, None] & columns[None, :]
    return mask


def _checked_bbox(bbox: Sequence[float], name: str = "bbox") -> BBox:
    values = tuple(float(value) for value in bbox)
    if len(values) != 4:
        raise ValueError(f"{name} {values}: four numbers wanted, minx, miny, maxx, maxy")
    minx, miny, maxx, maxy = values
    if not (abs(minx) <= 180 and abs(maxx) <= 180 and abs(miny) <= 90 and abs(maxy) <= 90):
        raise ValueError(f"{name} {values} goes beyond ±180 of longitude or ±90 of latitude")
    if miny > maxy:
        raise ValueError(f"{name} {values}: miny lies north of maxy")
    return minx, miny, maxx, maxy


def _index_range(low: float, high: float, edges: NDArray[np.float64]) -> tuple[int, int]:
    """First cell and end of the cells that the interval's interior meets."""
    last = len(edges) - 2
    start = min(int(np.searchsorted(edges, low, side="right")) - 1, last)
    if low == high:
        return start, start + 1
    return start, int(np.searchsorted(edges, high, side="left"))


@dataclass(frozen=True, eq=False)
class CellStatistics:
    """What the scenes of one sensor and month come to in the covered cells; all arrays are sorted by ``cell``."""

    cell: NDArray[np.int64]
    """Flat index, ``lat_idx * n_lon + lon_idx``, or the place among the grid's ``cell_ids``."""
    scenes: NDArray[np.int32]
    """Scenes covering the cell, at least 1."""
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

    @classmethod
    def joined(cls, parts: Sequence[CellStatistics]) -> CellStatistics:
        """Statistics of bands as one; ``parts`` ascend."""
        if len(parts) == 1:
            return parts[0]
        names = cls.__dataclass_fields__
        if not parts:
            kinds = {"cell": np.int64, "cloud_mean": np.float32}
            return cls(**{n: np.empty(0, kinds.get(n, np.uint32 if n.endswith("days") else np.int32)) for n in names})
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class Engine:
    """How much of the machine a gridding may take. The result never depends on it."""

    memory_bytes: int = 1 << 30
    """Budget of the arrays; where they would be larger the work is cut into bands of latitude."""
    threads: int = min(4, os.cpu_count() or 1)
    """Bands that are worked on at a time."""


class GridTooLarge(PlannerError):
    """A grid has more cells than the memory budget can hold one mask of."""


def refuse_too_large(grid: GridSpec, memory_bytes: int) -> None:
    """Raise ``GridTooLarge`` where one mask of the grid, a byte a cell, is more than the budget: the scope is a mask of all cells."""
    cells = math.prod(grid.shape)
    if cells > memory_bytes:
        cure = "choose a coarser grid.resolution" + ("" if grid.extent is not None else ", a region (grid.extent)")
        raise GridTooLarge(
            f"a grid of {grid.in_words()} has {cells:,} cells, so one mask of it takes {-(-cells >> 20):,} MiB, and grid.memory_mb allows "
            f"{memory_bytes >> 20:,}: {cure} or more memory (COVERAGE_GRID_MEMORY_MB)"
        )


# Bytes a cell of a partition's fields: fourteen variables of up to 4 bytes, and a table of cells on the way to them.
_BYTES_OF_FIELDS = 150


def row_strips(grid: GridSpec, engine: Engine | None = None, *, multiple_of: int = 1) -> list[tuple[int, int] | None]:
    """First and end rows of the pieces that a partition's fields are made in, so that they keep to the memory budget.

    One piece, None, where all fits (and for H3 cells). Pieces are a multiple of ``multiple_of`` rows, but for the last.
    """
    if grid.h3_res is not None:
        return [None]
    n_lat, n_lon = grid.shape
    rows = (engine or Engine()).memory_bytes // (n_lon * _BYTES_OF_FIELDS)
    rows = max(1, rows // multiple_of) * multiple_of
    if rows >= n_lat:
        return [None]
    return [(first, min(first + rows, n_lat)) for first in range(0, n_lat, rows)]


# Bytes a cell of a band: difference arrays, day masks and the columns that come out; and of the last alone.
_BYTES_AT_WORK, _BYTES_OF_RESULT = 72, 36
# Fewer footprint-cell pairs than this are done before a second thread has begun.
_WORTH_A_THREAD = 1_000_000


@dataclass(frozen=True)
class _Footprints:
    """Checked flat arrays, as the kernel wants them."""

    coords: NDArray[np.float64]
    rings: NDArray[np.int64]
    geometry_rings: NDArray[np.int64]
    signs: NDArray[np.float64]
    polygons: NDArray[np.int64]
    geometries: NDArray[np.int64]

    @property
    def count(self) -> int:
        return len(self.geometry_rings) - 1

    @property
    def flat(self) -> tuple[NDArray[Any], ...]:
        return self.coords, self.rings, self.geometry_rings, self.signs

    def near(self, which: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """``flat`` of some of them, one after the other in memory."""
        some: tuple[NDArray[Any], ...] = kernel.gathered(*self.flat, which)
        return some

    @classmethod
    def of(
        cls,
        coords: NDArray[np.float64],
        ring_offsets: NDArray[np.integer[Any]],
        polygon_offsets: NDArray[np.integer[Any]],
        geometry_offsets: NDArray[np.integer[Any]],
    ) -> _Footprints:
        flat = np.ascontiguousarray(coords, dtype=np.float64)
        rings, polygons, geometries = (
            np.ascontiguousarray(offsets, dtype=np.int64) for offsets in (ring_offsets, polygon_offsets, geometry_offsets)
        )
        if flat.ndim != 2 or flat.shape[1] != 2:
            raise ValueError(f"coords must have shape (vertices, 2), found {flat.shape}")
        for name, offsets, end in (
            ("ring_offsets", rings, len(flat)),
            ("polygon_offsets", polygons, len(rings) - 1),
            ("geometry_offsets", geometries, len(polygons) - 1),
        ):
            if not len(offsets) or offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
                raise ValueError(f"{name} must rise from 0 to {end}")
        # NaN fails too
        on_the_map = (np.abs(flat[:, 0]) <= 180) & (np.abs(flat[:, 1]) <= 90)
        if not on_the_map.all():
            at = int(np.argmin(on_the_map))
            owner = int(np.searchsorted(rings[polygons[geometries]], at, side="right")) - 1
            raise ValueError(
                f"a coordinate of geometry {owner} is not finite or lies beyond ±180, ±90 ({flat[at, 0]:g}, {flat[at, 1]:g}): "
                "pass footprints through normalise_footprints"
            )
        filled = np.diff(rings) > 0
        closed = (flat[rings[:-1][filled]] == flat[rings[1:][filled] - 1]).all(axis=1)
        if not closed.all():
            ring = np.flatnonzero(filled)[int(np.argmin(closed))]
            owner = int(np.searchsorted(polygons[geometries], ring, side="right")) - 1
            raise ValueError(f"a ring of geometry {owner} is open: its last vertex must repeat its first")
        areas = kernel.ring_areas(flat, rings)
        flat_one = kernel.without_area(areas, polygons, geometries)
        if flat_one >= 0:
            raise ValueError(f"geometry {flat_one} is empty or has no area: use normalise_footprints and drop what it rejects")
        return cls(flat, rings, polygons[geometries], kernel.ring_signs(areas, polygons), polygons, geometries)

    def objects(self) -> NDArray[np.object_]:
        """As shapely MultiPolygons."""
        shapes: NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON, self.coords, (self.rings, self.polygons, self.geometries)
        )
        return shapes


def cell_statistics(
    geometries: NDArray[np.object_], *, day: ArrayLike, cloud: ArrayLike, clear: ArrayLike, grid: GridSpec
) -> CellStatistics:
    """Statistics of every cell that a footprint covers; independent of the order of the scenes, to the last bit.

    - ``geometries``: object array of Polygons and MultiPolygons as `normalise_footprints` returns them, one a scene,
      without None.
    - ``day``: UTC day of the month of each scene, 1..31.
    - ``cloud``: cloud percentage 0..100 of each scene, float64; NaN where unknown.
    - ``clear``: whether each scene counts as clear, bool: the caller's decision. Not clear and NaN makes *unknown*.

    Raises ValueError: lengths differ, a geometry is missing, empty, without area or no polygon, a coordinate is not finite or off
    the map, a day or a cloud percentage is out of range.
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
    only: NDArray[np.bool_] | None = None,
    engine: Engine | None = None,
) -> CellStatistics:
    """`cell_statistics` on flat arrays, as `shapely.to_ragged_array` lays out MultiPolygons.

    - ``coords``: ``(vertices, 2)`` float64, longitude and latitude; every ring is closed.
    - ``ring_offsets, polygon_offsets, geometry_offsets``: ring i is ``coords[ring_offsets[i]:ring_offsets[i + 1]]``,
      polygon i owns such a range of rings, scene i such a range of polygons.
    - ``day, cloud, clear, grid``: as in `cell_statistics`.
    - ``only``: the scenes to count, bool: those of one platform, say. None: all.

    Raises ValueError: as `cell_statistics`; also where the offsets do not fit each other or a ring is open.
    """
    bands = statistics_in_bands(
        coords, ring_offsets, polygon_offsets, geometry_offsets, day=day, cloud=cloud, clear=clear, grid=grid, only=only, engine=engine
    )
    return CellStatistics.joined(list(bands))


def statistics_in_bands(
    coords: NDArray[np.float64],
    ring_offsets: NDArray[np.integer[Any]],
    polygon_offsets: NDArray[np.integer[Any]],
    geometry_offsets: NDArray[np.integer[Any]],
    *,
    day: ArrayLike,
    cloud: ArrayLike,
    clear: ArrayLike,
    grid: GridSpec,
    only: NDArray[np.bool_] | None = None,
    rows: tuple[int, int] | None = None,
    engine: Engine | None = None,
) -> Iterator[CellStatistics]:
    """`statistics_from_arrays` piece by piece, ascending, each a band of latitude: what does not fit in memory at once.

    ``rows`` is the first and the end row of the cells wanted; None: all. Arguments are checked before this returns; raises
    ValueError as there.
    """
    footprints = _Footprints.of(coords, ring_offsets, polygon_offsets, geometry_offsets)
    _check_rows(rows, grid)
    days = np.asarray(day)
    percent = np.asarray(cloud, dtype=np.float64)
    is_clear = np.ascontiguousarray(clear, dtype=np.bool_)
    chosen = np.ones(footprints.count, np.bool_) if only is None else np.asarray(only, dtype=np.bool_)
    for name, values in (("day", days), ("cloud", percent), ("clear", is_clear), ("only", chosen)):
        if values.shape != (footprints.count,):
            raise ValueError(f"{name} has shape {values.shape}, but there are {footprints.count} geometries")
    if footprints.count and days.dtype.kind not in "iu":
        raise ValueError(f"day must be a whole number, found {days.dtype}")
    if footprints.count and not ((days >= 1) & (days <= 31)).all():
        raise ValueError(f"day must lie in 1..31, found {days[~((days >= 1) & (days <= 31))][0]}")
    known = ~np.isnan(percent)
    if not ((percent[known] >= 0) & (percent[known] <= 100)).all():
        raise ValueError("cloud must be a percentage, 0..100, or NaN where it is not known")
    units = np.rint(np.where(known, percent, 0) * kernel.CLOUD_UNITS).astype(np.int64)
    per_scene = days.astype(np.uint32), units, known, is_clear
    if grid.h3_res is not None:
        columns = _hex_cells(grid.h3_res).statistics(footprints.objects(), grid.rule, grid.min_fraction, *per_scene, chosen)
        return iter([CellStatistics(*columns)])

    def work(which: NDArray[np.int64], band: tuple[int, int]) -> CellStatistics:
        cell, *others = kernel.statistics(*footprints.near(which), grid.kernel_grid(band), *(each[which] for each in per_scene))
        cell += (band[0] - grid.window[0]) * grid.shape[1]
        return CellStatistics(cell, *others)

    return _in_bands(footprints, np.flatnonzero(chosen), grid, rows, engine or Engine(), work)


def latest_in_cells(geometries: NDArray[np.object_], *, value: ArrayLike, grid: GridSpec) -> NDArray[np.float64]:
    """The largest ``value`` among the footprints that cover each cell; NaN where none does.

    - ``geometries``: normalised footprints, as for `cell_statistics`.
    - ``value``: one number a footprint, for example a time.

    The result is float64 of shape ``grid.shape``, in the unit of ``value``.

    Raises ValueError: lengths differ, a value is NaN, or a geometry can't be used.
    """
    latest = np.full(grid.shape, np.nan)
    for cells, values in latest_in_bands(*_ragged(geometries), value=value, grid=grid):
        latest.reshape(-1)[cells] = values
    return latest


def latest_in_bands(
    coords: NDArray[np.float64],
    ring_offsets: NDArray[np.integer[Any]],
    polygon_offsets: NDArray[np.integer[Any]],
    geometry_offsets: NDArray[np.integer[Any]],
    *,
    value: ArrayLike,
    grid: GridSpec,
    rows: tuple[int, int] | None = None,
    engine: Engine | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """`latest_in_cells` on flat arrays and piece by piece: flat indices of covered cells, ascending, and their values.

    Arrays are laid out as for `statistics_from_arrays`; raises ValueError as either does.
    """
    footprints = _Footprints.of(coords, ring_offsets, polygon_offsets, geometry_offsets)
    _check_rows(rows, grid)
    values = np.ascontiguousarray(value, dtype=np.float64)
    if values.shape != (footprints.count,):
        raise ValueError(f"value has shape {values.shape}, but there are {footprints.count} geometries")
    if np.isnan(values).any():
        raise ValueError("value must be a number for every footprint, found NaN")
    if grid.h3_res is not None:
        owner, cell = _hex_cells(grid.h3_res).pairs(footprints.objects(), grid.rule, grid.min_fraction)
        latest = np.full(grid.shape, -np.inf)
        np.maximum.at(latest, cell, values[owner])
        cells = np.unique(cell)
        return iter([(cells, latest[cells])])

    def work(which: NDArray[np.int64], band: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        found = kernel.latest(*footprints.near(which), grid.kernel_grid(band), values[which]).reshape(-1)
        cells = np.flatnonzero(~np.isnan(found))
        return cells + (band[0] - grid.window[0]) * grid.shape[1], found[cells]

    return _in_bands(footprints, np.arange(footprints.count), grid, rows, engine or Engine(), work)


def touched(geometries: NDArray[np.object_], grid: GridSpec) -> NDArray[np.bool_]:
    """Whether any of the normalised footprints touches each cell, whatever the grid's rule: bool of shape ``grid.shape``.

    Raises ValueError: a geometry can't be used.
    """
    mask = np.zeros(grid.shape, np.bool_)
    footprints = _Footprints.of(*_ragged(geometries))
    if grid.h3_res is not None:
        mask[_hex_cells(grid.h3_res).pairs(footprints.objects(), "touch", 1.0)[1]] = True
        return mask
    kernel.mark(*footprints.flat, grid.kernel_grid(rule="touch"), mask)
    return mask


def _check_rows(rows: tuple[int, int] | None, grid: GridSpec) -> None:
    if rows is not None and (grid.h3_res is not None or not 0 <= rows[0] <= rows[1] <= grid.shape[0]):
        there = "H3 cells have no rows" if grid.h3_res is not None else f"the grid has rows 0 to {grid.shape[0]}"
        raise ValueError(f"rows {rows}: {there}")


def _in_bands[T](
    footprints: _Footprints,
    which: NDArray[np.int64],
    grid: GridSpec,
    rows: tuple[int, int] | None,
    engine: Engine,
    work: Callable[[NDArray[np.int64], tuple[int, int]], T],
) -> Iterator[T]:
    """``work`` on each band's footprints and rows, in the order of the bands, several at a time."""
    first, end, column, column_end = grid.window
    if rows is not None:
        first, end = first + rows[0], first + rows[1]
    spans = kernel.extents(footprints.coords, footprints.rings, footprints.geometry_rings, *grid._global_edges)[which]
    inside = (first < end) & (spans[:, 0] < end) & (spans[:, 1] >= first) & (spans[:, 2] < column_end) & (spans[:, 3] >= column)
    # Neighbours one after the other find what they need in the cache; no result depends on the order.
    order = np.argsort((spans[inside, 0] // 8) * grid.global_shape[1] + spans[inside, 2])
    which, spans = which[inside][order], spans[inside][order]
    rows_from, rows_to = np.maximum(spans[:, 0], first), np.minimum(spans[:, 1], end - 1)
    bands = _bands(
        rows_from, rows_to, np.minimum(spans[:, 3], column_end - 1) - np.maximum(spans[:, 2], column) + 1, column_end - column, engine
    )
    jobs = ((which[(rows_from < b) & (rows_to >= a)], (a, b)) for a, b in bands)
    if len(bands) < 2 or engine.threads < 2:
        yield from (work(*job) for job in jobs)
        return
    with ThreadPoolExecutor(engine.threads) as pool:
        waiting: deque[Future[T]] = deque()
        for job in jobs:
            if len(waiting) == engine.threads:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, *job))
        while waiting:
            yield waiting.popleft().result()


def _bands(
    rows_from: NDArray[np.int64], rows_to: NDArray[np.int64], columns: NDArray[np.int64], n_lon: int, engine: Engine
) -> list[tuple[int, int]]:
    """Bands of rows of about equal work, none too large for the budget; rows outside all footprints are in none."""
    if not len(rows_from):
        return []
    first, end = int(rows_from.min()), int(rows_to.max()) + 1
    change = np.bincount(rows_from - first, columns, end - first + 1) - np.bincount(rows_to + 1 - first, columns, end - first + 1)
    work = np.cumsum(np.cumsum(change)[:-1])
    bytes_a_row = n_lon * (engine.threads * _BYTES_AT_WORK + _BYTES_OF_RESULT)
    most = max(1, engine.memory_bytes // bytes_a_row)
    share = 2 * engine.threads if engine.threads > 1 and work[-1] > _WORTH_A_THREAD else 1  # twice: bands are not quite equal
    cuts = [0, *(int(at) for at in np.searchsorted(work, work[-1] * np.arange(1, share) / share)), end - first]
    bands = []
    for a, b in itertools.pairwise(cuts):
        pieces = math.ceil((b - a) / most)
        bands += [(first + a + (b - a) * i // pieces, first + a + (b - a) * (i + 1) // pieces) for i in range(pieces)]
    return bands


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
