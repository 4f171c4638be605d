"""Where a deficit counts: the area of interest (land, everywhere or targets) within the reach of a sensor.

Masks are bool arrays of ``grid.shape``, a field of the grid. Outside the scope nothing is ever a deficit.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, get_args

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.target_file import ENVIRONMENT
from coverage_pipeline.geometry import outlines as geodata
from coverage_pipeline.geometry.footprints import EARTH_RADIUS_KM, normalise_footprints
from coverage_pipeline.grid.hexagons import hex_cells
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.touch import touched
from coverage_pipeline.sensors.registry import CoverageSensor

Area = Literal["land", "all", "targets"]
Mask = NDArray[np.bool_]
_LINEAR = (1, 2)

# Mean radius of the Earth, km (IUGG). An ellipsoid would change a 20 km margin by 0.1 km.

# Cells whose distances to land are worked out at a time.
_BLOCK_CELLS = 4_000_000
_log = logging.getLogger(__name__)


def reach_mask(sensor: CoverageSensor, grid: GridSpec) -> Mask:
    """Cells whose centre latitude the sensor can image, its limits included."""
    south, north = sensor.reach
    lats = grid.centre_latitudes
    return np.broadcast_to((lats >= south) & (lats <= north), grid.shape).copy()


def land_mask(grid: GridSpec, coastal_margin_km: float = 20.0) -> Mask:
    """Cells that land touches, and those within the margin of such a cell; read-only.

    Natural Earth's 1:50m land, Antarctica to the pole. Distances are along great circles on a sphere, between the nearest
    edges of two cells, longitude measured on the poleward edge. So a cell within the margin of the coast is never left out,
    and one that is marked lies at most about one cell beyond it. H3 cells are marked where land touches them, or where they hold
    the centre of a cell of 0.1° that is marked. Computed once per grid and margin.

    Raises
    ------
    LocationsError
        The margin is negative or not finite.

    """
    if not (math.isfinite(coastal_margin_km) and coastal_margin_km >= 0):
        raise LocationsError(f"coastal_margin_km {coastal_margin_km!r} must be 0 or more kilometres")
    return _land_mask(grid, float(coastal_margin_km))


def area_mask(area: Area, grid: GridSpec, *, coastal_margin_km: float = 20.0, targets: gpd.GeoDataFrame | None = None) -> Mask:
    """Cells of the area of interest: land with its coastal margin, the whole globe, or what the targets touch.

    A polygon touches a cell where their interiors meet; a point lies in the half-open cell that contains it; a line touches
    the cells it runs through.

    Raises
    ------
    LocationsError
        ``targets`` are asked for and there are none, or none lies in the grid's extent; or the area is unknown. Of several targets
        those outside are named in a warning.

    """
    match area:
        case "land":
            return land_mask(grid, coastal_margin_km)
        case "all":
            return np.ones(grid.shape, np.bool_)
        case "targets":
            if targets is None or not len(targets):
                raise LocationsError(
                    f"the area of interest is 'targets', but there are no targets: set {ENVIRONMENT} to a file of areas, "
                    "or choose 'land' or 'all'"
                )
            mask = _targets_mask(targets.geometry.to_numpy(), grid)
            _name_those_outside(targets, mask, grid)
            return mask
    raise LocationsError(f"unknown area {area!r}: use one of {', '.join(get_args(Area))}")


def scope_mask(sensor: CoverageSensor, area_mask: Mask, grid: GridSpec) -> Mask:
    """Cells where the sensor can be expected to have coverage: its reach within the area of interest."""
    return reach_mask(sensor, grid) & area_mask


def require_in_reach(sensors: Iterable[CoverageSensor], area_mask: Mask, grid: GridSpec) -> None:
    """Refuse targets that none of the sensors can image; warn for a sensor that can image none of them.

    Raises
    ------
    LocationsError
        No target lies within the reach of any sensor: everything would be out of scope.

    """
    sensors = list(sensors)
    blind = [sensor for sensor in sensors if not scope_mask(sensor, area_mask, grid).any()]
    reaches = ", ".join(f"{sensor.key} {sensor.reach[0]:g}..{sensor.reach[1]:g}" for sensor in blind)
    if blind and len(blind) == len(sensors):
        raise LocationsError(
            f"the targets lie outside the latitudes that the sensors reach ({reaches}): nothing would be in scope; "
            f"set {ENVIRONMENT} to places within reach, or choose other sensors"
        )
    if blind:
        _log.warning("no target lies within the latitudes that these sensors reach: %s; they are out of scope everywhere", reaches)


def _name_those_outside(targets: gpd.GeoDataFrame, mask: Mask, grid: GridSpec) -> None:
    """Refuse targets of which none has a cell in the grid, and name those of several that lie outside its extent."""
    if grid.extent is None and mask.any():
        return
    ids = (targets["id"] if "id" in targets.columns else targets.index.to_series()).astype(str)
    extent = "the globe" if grid.extent is None else "the grid's extent " + ", ".join(f"{edge:g}" for edge in grid.extent)
    if not mask.any():
        raise LocationsError(
            f"none of the {len(targets)} targets (first id {ids.iloc[0]!r}) lies in {extent} (west, south, east, north): nothing "
            f"would be in scope; set grid.extent (COVERAGE_GRID_EXTENT) to a region that holds them, or {ENVIRONMENT} to other places"
        )
    west, south, east, north = grid.bounds
    outside = ids[~shapely.intersects(targets.geometry.to_numpy(), shapely.box(west, south, east, north))].to_list()
    if outside:
        more = f" and {len(outside) - 5} more" if len(outside) > 5 else ""
        _log.warning("%d of %d targets lie outside %s: id %s%s", len(outside), len(targets), extent, ", ".join(outside[:5]), more)


def _targets_mask(geometries: NDArray[np.object_], grid: GridSpec) -> Mask:
    parts = shapely.get_parts(geometries)
    while (nested := shapely.get_type_id(parts) >= 4).any():  # multi-geometries and collections within collections
        parts = np.concatenate([parts[~nested], shapely.get_parts(parts[nested])])
    kinds = shapely.get_type_id(parts)
    polygons, reasons = normalise_footprints(parts[kinds == 3])
    if any(reason is not None for reason in reasons):
        raise LocationsError(f"a target cannot be placed on the grid: {next(r for r in reasons if r is not None)}")
    mask = touched(polygons, grid)
    points = shapely.get_coordinates(parts[kinds == 0])
    lines = parts[np.isin(kinds, _LINEAR)]
    if grid.h3_res is not None:
        cells = hex_cells(grid.h3_res)
        mask[cells.holding(points)] = True
        mask[cells.crossed(lines)] = True
        return mask
    coordinates = np.concatenate([points, *(_points_along(shapely.get_coordinates(line), grid) for line in lines)])
    # A point on the globe's last edge (90, 180) has no cell that begins there: it belongs to the last one.
    at = []
    for axis, edges, last in ((1, grid.lat_edges, 90.0), (0, grid.lon_edges, 180.0)):
        index = np.searchsorted(edges, coordinates[:, axis], side="right") - 1
        at.append(np.where((coordinates[:, axis] == last) & (edges[-1] == last), len(edges) - 2, index))
    inside = (at[0] >= 0) & (at[0] < grid.shape[0]) & (at[1] >= 0) & (at[1] < grid.shape[1])
    mask[at[0][inside], at[1][inside]] = True
    return mask


def _points_along(line: NDArray[np.float64], grid: GridSpec) -> NDArray[np.float64]:
    """One point in every cell that a line runs through: the middle of each piece between two grid lines."""
    pieces = [line[:1]]
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        dx, dy = x1 - x0, y1 - y0
        if abs(dx) > 180:  # the short way, across the antimeridian
            dx -= math.copysign(360, dx)
        cuts = [np.array([0.0, 1.0])]
        for start, step, edges in ((x0, dx, grid.lon_edges), (y0, dy, grid.lat_edges)):
            if step:
                wanted = edges if start + step <= 180 and start + step >= -180 else np.concatenate([edges - 360, edges, edges + 360])
                at = (wanted - start) / step
                cuts.append(at[(at > 0) & (at < 1)])
        t = np.unique(np.concatenate(cuts))
        middle = (t[:-1] + t[1:]) / 2
        x = x0 + middle * dx
        pieces.append(np.column_stack([np.where(np.abs(x) > 180, (x + 180) % 360 - 180, x), y0 + middle * dy]))
    return np.concatenate(pieces)


@lru_cache(maxsize=8)
def _land_mask(grid: GridSpec, margin_km: float) -> Mask:
    land, _ = normalise_footprints(shapely.get_parts(geodata.land()))
    if grid.h3_res is not None:
        fine = GridSpec(0.1)
        rows, columns = np.nonzero(_land_mask(fine, margin_km))
        mask = touched(land, grid)
        mask[hex_cells(grid.h3_res).holding(np.column_stack([fine.lons[columns], fine.lats[rows]]))] = True
    elif margin_km > 0:
        wide = _wider(grid, margin_km)
        row, column = (int(np.searchsorted(w, e[0])) for w, e in ((wide.lat_edges, grid.lat_edges), (wide.lon_edges, grid.lon_edges)))
        grown = _grown(touched(land, wide), wide, margin_km)
        mask = grown[row : row + grid.shape[0], column : column + grid.shape[1]].copy()
    else:
        mask = touched(land, grid)
    mask.flags.writeable = False
    return mask


def _wider(grid: GridSpec, margin_km: float) -> GridSpec:
    """The region with the margin around it, so that land outside counts; all longitudes where that crosses the antimeridian."""
    if grid.extent is None:
        return grid
    west, south, east, north = grid.extent
    margin = math.degrees(margin_km / EARTH_RADIUS_KM) + 2 * grid.resolution
    south, north = max(-90.0, south - margin), min(90.0, north + margin)
    # sin(width) = sin(margin) / cos(lat): the widest circle of the margin's radius; none that is wider holds a pole
    narrowest = math.cos(math.radians(max(abs(south), abs(north))))
    sine = math.sin(math.radians(min(margin, 90.0)))
    width = math.degrees(math.asin(sine / narrowest)) + 2 * grid.resolution if sine < narrowest else 360.0
    west, east = (west - width, east + width) if west - width >= -180 and east + width <= 180 else (-180.0, 180.0)
    return GridSpec(grid.resolution, extent=(west, south, east, north))


def _grown(mask: Mask, grid: GridSpec, margin_km: float) -> Mask:
    """The mask and all cells whose nearest edge is within the margin of a marked cell's.

    Each row's distance to its nearest marked column is found once; a row a few rows away then asks whether that distance lies
    within the half-width, in columns, that a circle of the margin's radius has there. That half-width follows from the
    spherical law of cosines; close to a pole it is the whole parallel, which also covers the way over the pole. Rows are taken
    some at a time: the distances of a fine grid would not fit in memory at once.
    """
    n_lat = grid.shape[0]
    step = 180 / grid.global_shape[0]
    angle = margin_km / EARTH_RADIUS_KM
    most = int(math.degrees(angle) / step) + 1
    grown = mask.copy()
    edges = np.radians(grid.lat_edges)
    around = grid.shape[1] == grid.global_shape[1]
    block = max(2 * most, _BLOCK_CELLS // grid.shape[1])
    for begin in range(0, n_lat, block):
        first, end = max(0, begin - most), min(n_lat, begin + block + most)
        columns = _columns_to_nearest(mask[first:end], around)
        for offset in range(-most, most + 1):
            target = np.arange(max(begin, first - offset), min(begin + block, n_lat, end - offset))
            source = target + offset
            # facing edges; within one row, and for rows that abut, the poleward edge, where columns are closest
            lower, upper = np.minimum(target, source), np.maximum(target, source)
            a, b = edges[lower + 1], edges[upper]
            if offset == 0:
                a = b = np.where(np.abs(edges[lower]) > np.abs(edges[lower + 1]), edges[lower], edges[lower + 1])
            with np.errstate(divide="ignore", invalid="ignore"):
                cosine = (math.cos(angle) - np.sin(a) * np.sin(b)) / (np.cos(a) * np.cos(b))
            near_pole = np.minimum(np.cos(a), np.cos(b)) < 1e-9
            too_far = np.abs(b - a) > angle
            width = np.degrees(np.arccos(np.clip(np.where(near_pole, -1.0, cosine), -1, 1)))
            reach = np.where(too_far, -1, np.floor(width / step + 1e-9) + 1)  # +1: from edge to edge, not centre to centre
            grown[target] |= columns[source - first] <= reach[:, None]
    return grown


def _columns_to_nearest(mask: Mask, around: bool) -> NDArray[np.int32]:
    """Columns from each cell to the nearest marked one of its row, around the globe if so; more than a row has where none is."""
    n_lon = mask.shape[1]
    far = np.int32(4 * n_lon)
    wide = np.concatenate([mask, mask], axis=1) if around else mask
    position = np.arange(wide.shape[1], dtype=np.int32)
    # around the globe the nearest marked column before a cell may lie in the copy before it, and the one after in the copy after
    before = np.maximum.accumulate(np.where(wide, position, -far), axis=1)[:, -n_lon:]
    after = np.minimum.accumulate(np.where(wide, position, far + 2 * n_lon)[:, ::-1], axis=1)[:, ::-1][:, :n_lon]
    nearest: NDArray[np.int32] = np.minimum(position[-n_lon:] - before, after - position[:n_lon])
    return nearest
