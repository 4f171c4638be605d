"""Statistics of the footprints that cover each cell: scenes, clear, unknown, days, cloud, and the latest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coverage_pipeline.grid import kernel

if TYPE_CHECKING:
    pass
from coverage_pipeline.grid.bands import Engine, check_rows, run_in_bands
from coverage_pipeline.grid.footprint_arrays import FootprintArrays, ragged_arrays
from coverage_pipeline.grid.spec import GridSpec, h3_cells


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
    return statistics_from_arrays(*ragged_arrays(geometries), day=day, cloud=cloud, clear=clear, grid=grid)


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
    footprints = FootprintArrays.of(coords, ring_offsets, polygon_offsets, geometry_offsets)
    check_rows(rows, grid)
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
        columns = h3_cells(grid.h3_res).statistics(footprints.objects(), grid.rule, grid.min_fraction, *per_scene, chosen)
        return iter([CellStatistics(*columns)])

    def work(which: NDArray[np.int64], band: tuple[int, int]) -> CellStatistics:
        cell, *others = kernel.statistics(*footprints.near(which), grid.kernel_grid(band), *(each[which] for each in per_scene))
        cell += (band[0] - grid.window[0]) * grid.shape[1]
        return CellStatistics(cell, *others)

    return run_in_bands(footprints, np.flatnonzero(chosen), grid, rows, engine or Engine(), work)


def latest_in_cells(geometries: NDArray[np.object_], *, value: ArrayLike, grid: GridSpec) -> NDArray[np.float64]:
    """The largest ``value`` among the footprints that cover each cell; NaN where none does.

    - ``geometries``: normalised footprints, as for `cell_statistics`.
    - ``value``: one number a footprint, for example a time.

    The result is float64 of shape ``grid.shape``, in the unit of ``value``.

    Raises ValueError: lengths differ, a value is NaN, or a geometry can't be used.
    """
    latest = np.full(grid.shape, np.nan)
    for cells, values in latest_in_bands(*ragged_arrays(geometries), value=value, grid=grid):
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
    footprints = FootprintArrays.of(coords, ring_offsets, polygon_offsets, geometry_offsets)
    check_rows(rows, grid)
    values = np.ascontiguousarray(value, dtype=np.float64)
    if values.shape != (footprints.count,):
        raise ValueError(f"value has shape {values.shape}, but there are {footprints.count} geometries")
    if np.isnan(values).any():
        raise ValueError("value must be a number for every footprint, found NaN")
    if grid.h3_res is not None:
        owner, cell = h3_cells(grid.h3_res).pairs(footprints.objects(), grid.rule, grid.min_fraction)
        latest = np.full(grid.shape, -np.inf)
        np.maximum.at(latest, cell, values[owner])
        cells = np.unique(cell)
        return iter([(cells, latest[cells])])

    def work(which: NDArray[np.int64], band: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        instants = kernel.latest(*footprints.near(which), grid.kernel_grid(band), values[which]).reshape(-1)
        cells = np.flatnonzero(~np.isnan(instants))
        return cells + (band[0] - grid.window[0]) * grid.shape[1], instants[cells]

    return run_in_bands(footprints, np.arange(footprints.count), grid, rows, engine or Engine(), work)
