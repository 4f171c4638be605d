"""The grid: its cells, its region, and the rule by which a footprint covers a cell.

By default a footprint covers a cell when their interiors intersect, exactly so on the float64 coordinates. The compiled part is in
``grid.kernel``, hexagonal cells are in ``grid.hexagons``; ``docs/kernel.md`` shows how it works.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.grid import kernel

if TYPE_CHECKING:
    from coverage_pipeline.grid.hexagons import HexCells
from coverage_pipeline.geometry.bbox import GLOBE, BBox, checked_bbox, split_bbox

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
        west, south, east, north = checked_bbox(extent, "extent")
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
            return (h3_cells(self.h3_res).count,)
        row, row_end, column, column_end = self.window
        return row_end - row, column_end - column

    @cached_property
    def _global_edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        n_lat, n_lon = self.global_shape
        return _edges(n_lat, 180), _edges(n_lon, 360)

    def _regular(self, label: str) -> None:
        if self.h3_res is not None:
            raise ValueError(f"H3 cells have no {label}")

    @cached_property
    def lats(self) -> NDArray[np.float64]:
        """Latitudes of the cell centres, degrees, read-only: of the rows, ascending, or of each H3 cell."""
        if self.h3_res is not None:
            return h3_cells(self.h3_res).lats
        return _centres(self.global_shape[0], 180)[self.window[0] : self.window[1]]

    @cached_property
    def lons(self) -> NDArray[np.float64]:
        """Longitudes of the cell centres, degrees, read-only: of the columns, ascending, or of each H3 cell."""
        if self.h3_res is not None:
            return h3_cells(self.h3_res).lons
        return _centres(self.global_shape[1], 360)[self.window[2] : self.window[3]]

    @property
    def cell_ids(self) -> NDArray[np.uint64]:
        """Ids of the H3 cells, ascending; read-only. Raises ValueError: the grid is a regular one."""
        if self.h3_res is None:
            raise ValueError("cells of a regular grid have no ids")
        return h3_cells(self.h3_res).ids

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


def h3_cells(res: int) -> HexCells:
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


def bbox_to_index(bbox: Sequence[float], grid: GridSpec) -> tuple[slice, slice]:
    """Rows and columns whose cells' interior meets the interior of ``(minx, miny, maxx, maxy)``.

    A bbox without width or height counts as half-open there: the cell that begins at that coordinate or contains it
    (90 and 180 belong to the last cell).

    The two slices index latitude and longitude of an array of shape ``grid.shape``.

    Raises ValueError: the bbox crosses the antimeridian (minx > maxx), has miny > maxy, goes beyond ±180 or ±90, or lies outside
    the grid's region; the grid is one of H3 cells.
    """
    minx, miny, maxx, maxy = checked_bbox(bbox)
    if minx > maxx:
        raise ValueError(f"bbox {tuple(bbox)} crosses the antimeridian (minx > maxx): split it with split_bbox")
    slices = []
    for low, high, edges in ((miny, maxy, grid.lat_edges), (minx, maxx, grid.lon_edges)):
        if (low > edges[-1] or high < edges[0]) if low == high else (low >= edges[-1] or high <= edges[0]):
            raise ValueError(f"bbox {tuple(bbox)} lies outside the grid ({grid.in_words()})")
        slices.append(slice(*_index_range(max(low, edges[0]), min(high, edges[-1]), edges)))
    return slices[0], slices[1]


def cells_within(bbox: Sequence[float], grid: GridSpec) -> NDArray[np.bool_]:
    """Cells that lie within ``(minx, miny, maxx, maxy)`` with all of their area: bool of shape ``grid.shape``.

    Raises ValueError: as `split_bbox`.
    """
    mask = np.zeros(grid.shape, bool)
    for west, south, east, north in split_bbox(bbox):
        if grid.h3_res is not None:
            bounds = h3_cells(grid.h3_res).bounds
            mask |= (
                (bounds[:, :2] >= (west - _SAME_EDGE, south - _SAME_EDGE)) & (bounds[:, 2:] <= (east + _SAME_EDGE, north + _SAME_EDGE))
            ).all(1)
            continue
        rows = (grid.lat_edges[:-1] >= south - _SAME_EDGE) & (grid.lat_edges[1:] <= north + _SAME_EDGE)
        columns = (grid.lon_edges[:-1] >= west - _SAME_EDGE) & (grid.lon_edges[1:] <= east + _SAME_EDGE)
        mask |= rows[:, None] & columns[None, :]
    return mask


def _index_range(low: float, high: float, edges: NDArray[np.float64]) -> tuple[int, int]:
    """First cell and end of the cells that the interval's interior meets."""
    last = len(edges) - 2
    start = min(int(np.searchsorted(edges, low, side="right")) - 1, last)
    if low == high:
        return start, start + 1
    return start, int(np.searchsorted(edges, high, side="left"))
