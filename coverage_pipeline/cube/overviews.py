"""Coarser levels of the cube, for maps of the world: blocks of cells become one.

Every level is made from the full resolution, never from another level, and means are weighted by area: the mean over the globe
is the same at every level, so colours do not jump with the zoom.

The full resolution stays where it is, in the root group; a level lives in ``overviews/<factor>``. `multiscales` gives the
attributes by which other software finds them: the Zarr conventions *multiscales*, *spatial* and *proj*, in their release v0.1
(https://github.com/zarr-conventions). Their texts speak of v1 in places; no such release exists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS

from coverage_pipeline.grid.daymask import UNKNOWN

How = Literal["mean", "max", "or", "urgent"]

TARGETS = (5, 25)
"""Sides of a block in cells that are aimed at: half a degree and 2.5 degrees at 0.1°."""

MIN_SIDE = 8
"""A level with fewer rows or columns shows nothing."""

_UNKNOWN = int(UNKNOWN)
# The largest float32 below 1: a share that is not whole must not round to it.
_ALMOST_ALL = float(np.nextafter(np.float32(1), np.float32(0)))


def factors(shape: tuple[int, int]) -> tuple[int, ...]:
    """Sides of the blocks, in cells, of the levels of a grid of ``(n_lat, n_lon)`` cells; ascending, at most two.

    A side divides rows and columns, is 2 or more, and leaves at least `MIN_SIDE` of both. Of these, the nearest in ratio to 5 and
    to 25 (the smaller of two equally near): ``(5, 25)`` for the globe at 0.1°. One where both are nearest to the same, none where
    there is no such side.
    """
    n_lat, n_lon = shape
    common = math.gcd(n_lat, n_lon)
    possible = [d for d in range(2, min(n_lat, n_lon) // MIN_SIDE + 1) if common % d == 0]
    if not possible:
        return ()
    return tuple(sorted({min(possible, key=lambda d: (max(d / target, target / d), d)) for target in TARGETS}))


def row_areas(lat_edges: ArrayLike) -> NDArray[np.float64]:
    """Relative area of a cell of each row, ``(n_lat,)``: sin(north edge) − sin(south edge), from ``n_lat + 1`` edges in degrees.

    Raises ValueError: the edges do not ascend.
    """
    edges = np.radians(np.asarray(lat_edges, np.float64))
    areas: NDArray[np.float64] = 2 * np.cos((edges[1:] + edges[:-1]) / 2) * np.sin((edges[1:] - edges[:-1]) / 2)
    if not (areas > 0).all():
        raise ValueError("latitude edges must ascend, within -90..90 degrees")
    return areas


def coarsen(
    values: NDArray[Any], fill: float | None, weights: NDArray[np.float64], factor: int, how: How, order: Sequence[int] = ()
) -> NDArray[Any]:
    """One level of a field ``(lat, lon)``: what blocks of ``factor`` × ``factor`` cells come to, ``(lat/factor, lon/factor)``.

    A cell is known where it is neither ``fill`` nor NaN (``fill`` None: NaN only), a day mask where bit 31 is clear. ``weights``
    are the relative areas of a row's cells, ``(lat,)``, as from `row_areas`.

    - ``mean``: mean over the known cells, weighted by area; float32, NaN where no cell is known.
    - ``max``: the largest known value; same type, ``fill`` where no cell is known.
    - ``or``: the days of any known cell, of day masks (uint32); bit 31 alone where no cell is known.
    - ``urgent``: of codes (uint8), the first one of ``order`` that occurs; ``fill`` where none of them does.

    Raises ValueError: the shapes do not fit, the type does not go with ``how``, ``order`` is missing or repeats a code.
    """
    values, weights = _checked(values, weights, factor)
    if how == "mean":
        out: NDArray[Any] = np.empty((values.shape[0] // factor, values.shape[1] // factor), np.float32)
        _mean(values, *_fill(values, fill), weights, factor, out)
        return out
    out = np.empty((values.shape[0] // factor, values.shape[1] // factor), values.dtype)
    if how == "max":
        if fill is None and values.dtype.kind == "f":
            fill = math.nan
        _max(values, *_fill(values, fill), factor, out)
    elif how == "or":
        if values.dtype != np.uint32:
            raise ValueError(f"how 'or' is for day masks, uint32, and these values are {values.dtype}")
        _or(values, factor, out)
    elif how == "urgent":
        if values.dtype != np.uint8:
            raise ValueError(f"how 'urgent' is for codes, uint8, and these values are {values.dtype}")
        if not order or len(set(order)) != len(order) or not all(0 <= code <= 255 for code in order) or fill is None:
            raise ValueError(f"how 'urgent' needs an order of different codes 0..255 and a fill, and has {tuple(order)} and {fill}")
        ranks = np.full(256, len(order), np.uint16)
        ranks[list(order)] = np.arange(len(order))
        _urgent(values, ranks, np.array([*order, int(fill)], np.uint8), factor, out)
    else:
        raise ValueError(f"how {how!r}: use one of {', '.join(get_args(How))}")
    return out


def known_share(values: NDArray[Any], fill: float | None, weights: NDArray[np.float64], factor: int) -> NDArray[np.float32]:
    """Share of the area of each block whose cells are known, 0..1, ``(lat/factor, lon/factor)``; arguments as for `coarsen`.

    Exactly 1 where all cells are known and only there, exactly 0 where none is. Values of uint32 are taken as day masks.
    Raises ValueError: the shapes do not fit.
    """
    values, weights = _checked(values, weights, factor)
    out = np.empty((values.shape[0] // factor, values.shape[1] // factor), np.float32)
    _share(values, *_fill(values, fill), values.dtype == np.uint32, weights, factor, out)
    return out


def _checked(values: NDArray[Any], weights: NDArray[np.float64], factor: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    values, weights = np.ascontiguousarray(values), np.ascontiguousarray(weights, np.float64)
    if values.ndim != 2 or factor < 1 or values.shape[0] % factor or values.shape[1] % factor:
        raise ValueError(f"a field of shape {values.shape} does not divide into blocks of {factor} x {factor} cells")
    if weights.shape != values.shape[:1]:
        raise ValueError(f"weights of shape {weights.shape} for {values.shape[0]} rows: one weight a row")
    return values, weights


def _fill(values: NDArray[Any], fill: float | None) -> tuple[Any, bool]:
    """The fill in the values' own type, and whether there is one."""
    return values.dtype.type(0 if fill is None else fill), fill is not None


# A row of blocks is filled row of cells by row of cells: the field is read once, in the order it lies in memory.


@njit(cache=True, nogil=True)
def _mean(values, fill, has_fill, weights, factor, out):  # type: ignore[no-untyped-def]
    sums, areas = np.empty(out.shape[1]), np.empty(out.shape[1])
    for block_row in range(out.shape[0]):
        sums[:] = 0.0
        areas[:] = 0.0
        for row in range(block_row * factor, (block_row + 1) * factor):
            weight = weights[row]
            line = values[row]
            for block in range(out.shape[1]):
                total = 0.0
                count = 0
                for k in range(block * factor, (block + 1) * factor):
                    value = line[k]
                    if not (value != value or (has_fill and value == fill)):
                        total += value
                        count += 1
                sums[block] += weight * total
                areas[block] += weight * count
        for block in range(out.shape[1]):
            out[block_row, block] = sums[block] / areas[block] if areas[block] > 0 else np.nan


@njit(cache=True, nogil=True)
def _max(values, fill, has_fill, factor, out):  # type: ignore[no-untyped-def]
    is_known = np.empty(out.shape[1], np.bool_)
    for block_row in range(out.shape[0]):
        is_known[:] = False
        best = out[block_row]
        best[:] = fill
        for row in range(block_row * factor, (block_row + 1) * factor):
            line = values[row]
            for block in range(out.shape[1]):
                largest = best[block]
                some = is_known[block]
                for k in range(block * factor, (block + 1) * factor):
                    value = line[k]
                    if not (value != value or (has_fill and value == fill)) and (not some or value > largest):
                        largest = value
                        some = True
                best[block] = largest
                is_known[block] = some


@njit(cache=True, nogil=True)
def _or(values, factor, out):  # type: ignore[no-untyped-def]
    unknown = np.uint32(_UNKNOWN)
    for block_row in range(out.shape[0]):
        masks = out[block_row]
        masks[:] = unknown
        for row in range(block_row * factor, (block_row + 1) * factor):
            line = values[row]
            for block in range(out.shape[1]):
                days = np.uint32(0)
                all_unknown = unknown
                for k in range(block * factor, (block + 1) * factor):
                    value = line[k]
                    all_unknown &= value
                    if value & unknown == 0:
                        days |= value
                # bit 31 stays only while no cell is known
                masks[block] = ((masks[block] & ~unknown) | days) | (masks[block] & all_unknown)


@njit(cache=True, nogil=True)
def _urgent(values, ranks, codes, factor, out):  # type: ignore[no-untyped-def]
    least = np.empty(out.shape[1], np.uint16)
    for block_row in range(out.shape[0]):
        least[:] = len(codes) - 1
        for row in range(block_row * factor, (block_row + 1) * factor):
            line = values[row]
            for block in range(out.shape[1]):
                rank = least[block]
                for k in range(block * factor, (block + 1) * factor):
                    rank = min(rank, ranks[line[k]])
                least[block] = rank
        for block in range(out.shape[1]):
            out[block_row, block] = codes[least[block]]


@njit(cache=True, nogil=True)
def _share(values, fill, has_fill, masks, weights, factor, out):  # type: ignore[no-untyped-def]
    areas, counts = np.empty(out.shape[1]), np.empty(out.shape[1], np.int64)
    for block_row in range(out.shape[0]):
        areas[:] = 0.0
        counts[:] = 0
        whole = 0.0
        for row in range(block_row * factor, (block_row + 1) * factor):
            whole += weights[row] * factor
            line = values[row]
            for block in range(out.shape[1]):
                count = 0
                for k in range(block * factor, (block + 1) * factor):
                    value = line[k]
                    if masks:
                        count += int(value) < _UNKNOWN
                    else:
                        count += not (value != value or (has_fill and value == fill))
                areas[block] += weights[row] * count
                counts[block] += count
        for block in range(out.shape[1]):
            if counts[block] == factor * factor:
                out[block_row, block] = 1.0
            else:
                out[block_row, block] = min(areas[block] / whole, _ALMOST_ALL)


def level_group(factor: int) -> str:
    """Path of a level's group below the cube's root, such as ``overviews/5``."""
    return f"overviews/{factor}"


def _convention(name: str, uuid: str, description: str) -> dict[str, str]:
    # The schemas allow no other word than these.
    return {
        "uuid": uuid,
        "name": name,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "description": description,
    }


_MULTISCALES = _convention("multiscales", "d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets")
_SPATIAL = _convention("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information")
_PROJ = _convention("proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data")

Extent = tuple[float, float, float, float]


def _placed(shape: tuple[int, int], extent: Extent) -> dict[str, Any]:
    west, south, east, north = extent
    # Latitude ascends, so the first row is the southernmost and the height of a cell is positive.
    transform = [(east - west) / shape[1], 0.0, west, 0.0, (north - south) / shape[0], south]
    return {"spatial:shape": list(shape), "spatial:transform": transform}


def _referenced(extent: Extent, crs: str) -> dict[str, Any]:
    return {
        "proj:code": crs,
        "proj:wkt2": CRS.from_user_input(crs).to_wkt(),
        "spatial:dimensions": ["lat", "lon"],
        "spatial:bbox": list(extent),
        "spatial:registration": "pixel",
    }


def georeference(shape: tuple[int, int], extent: Extent, crs: str = "EPSG:4326") -> dict[str, Any]:
    """Attributes of a group whose arrays end in ``lat, lon`` of that ``shape``: a level, or a cube without levels.

    ``extent`` is west, south, east, north of the outer edges. A level needs its own: conventions do not reach down from a group
    into the groups below it.
    """
    return {"zarr_conventions": [dict(_PROJ), dict(_SPATIAL)]} | _referenced(extent, crs) | _placed(shape, extent)


def multiscales(factors: Sequence[int], shape: tuple[int, int], extent: Extent, crs: str = "EPSG:4326") -> dict[str, Any]:
    """Attributes of the root group of a cube with levels; without any, those of `georeference`.

    ``shape`` is that of the full resolution, ``(n_lat, n_lon)``, ``extent`` west, south, east, north of its outer edges. The full
    resolution is the asset ``.``, the root group itself: the schema admits it, but zarr-python does not open ``.`` as a path.
    Scales are of latitude and longitude; sensors and months stay as they are.
    No ``resampling_method``: it differs from variable to variable.
    Raises ValueError: a factor does not divide the shape.
    """
    if not factors:
        return georeference(shape, extent, crs)
    if any(shape[0] % factor or shape[1] % factor for factor in factors):
        raise ValueError(f"levels {tuple(factors)} do not divide a grid of {shape[0]} x {shape[1]} cells")
    # Shape and transform stand with every level and not beside them, which v0.1 allows and the drafts after it demand.
    layout = [{"asset": ".", "transform": {"scale": [1.0, 1.0], "translation": [0.0, 0.0]}} | _placed(shape, extent)]
    layout += [
        {
            "asset": level_group(factor),
            "derived_from": ".",
            "transform": {"scale": [float(factor)] * 2, "translation": [0.0, 0.0]},
        }
        | _placed((shape[0] // factor, shape[1] // factor), extent)
        for factor in factors
    ]
    conventions = [dict(_MULTISCALES), dict(_PROJ), dict(_SPATIAL)]
    return {"zarr_conventions": conventions, "multiscales": {"layout": layout}} | _referenced(extent, crs)
