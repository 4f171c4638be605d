"""Which scenes close what at the places of a backlog: targets, or cells where there are no targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from coverage_pipeline.demand.partition_files import PartitionFiles
from coverage_pipeline.demand.target_days import Pieces
from coverage_pipeline.demand.target_pieces import pieces_of
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.geometry.wkb import ragged_from_wkb
from coverage_pipeline.grid import kernel
from coverage_pipeline.grid.cell_area import cell_km2
from coverage_pipeline.grid.daymask import day_bit
from coverage_pipeline.grid.footprint_arrays import FootprintArrays
from coverage_pipeline.grid.spec import GridSpec, h3_cells
from coverage_pipeline.requests.offers import Offers, target_offers

_SCENES_AT_ONCE = 20_000
"""Scenes whose cells are in memory at once: a scene covers some hundreds."""


class Places(Protocol):
    """Where something is wanted."""

    @property
    def names(self) -> Sequence[str] | None:
        """Ids of the targets; None of cells."""
        ...

    @property
    def weight(self) -> NDArray[np.float64]:
        """Worth of a day at each place, ``(places,)``."""
        ...

    def offers(
        self,
        files: PartitionFiles,
        lacking: NDArray[np.bool_],
        days: NDArray[np.uint32],
        size: NDArray[np.float64],
        rank: NDArray[np.int64],
        cloud_lt: float,
    ) -> Offers:
        """The offers of a sensor and month: ``lacking`` says which places have a deficit, ``days`` which days would close it."""
        ...


@dataclass(frozen=True)
class TargetPlaces:
    """Targets: a day counts where its scenes together cover ``min_cover`` of the target."""

    targets: Targets

    @property
    def names(self) -> Sequence[str] | None:
        """Ids of the targets."""
        return [str(name) for name in self.targets.table["id"]]

    @property
    def weight(self) -> NDArray[np.float64]:
        """The targets' own weights."""
        return np.asarray(self.targets.table["weight"].to_numpy(np.float64))

    def offers(
        self,
        files: PartitionFiles,
        lacking: NDArray[np.bool_],
        days: NDArray[np.uint32],
        size: NDArray[np.float64],
        rank: NDArray[np.int64],
        cloud_lt: float,
    ) -> Offers:
        """See ``Places``."""
        table = self.targets.table
        pieces = pieces_of(files.scenes, files.matchup, files.holdings, files.sensor, cloud_lt)
        cloud = _cloud(files)
        return target_offers(table.geometry.to_numpy(), table["min_cover"].to_numpy(np.float64), pieces, lacking, days, size, cloud, rank)


@dataclass(frozen=True)
class CellPlaces:
    """Cells of the grid: a day counts where a scene touches the cell, so that each scene is an offer of its own."""

    grid: GridSpec

    @property
    def names(self) -> Sequence[str] | None:
        """Cells have no names."""
        return None

    @property
    def weight(self) -> NDArray[np.float64]:
        """Area of each cell, km², in the order of the flat grid."""
        return np.broadcast_to(cell_km2(self.grid), self.grid.shape).reshape(-1)

    def offers(
        self,
        files: PartitionFiles,
        lacking: NDArray[np.bool_],
        days: NDArray[np.uint32],
        size: NDArray[np.float64],
        rank: NDArray[np.int64],
        cloud_lt: float,
    ) -> Offers:
        """See ``Places``."""
        pieces = pieces_of(files.scenes, files.matchup, files.holdings, files.sensor, cloud_lt)
        offered, scene_of = pieces.offered()
        rows = np.flatnonzero(offered)
        some_rows = (rows[begin : begin + _SCENES_AT_ONCE] for begin in range(0, len(rows), _SCENES_AT_ONCE))
        parts = [_cell_offers(pieces, scene_of, some, self.grid, lacking, days) for some in some_rows]
        kinds_of = (np.int32, np.uint8, np.int32, np.int64, np.int64)  # a month of Sentinel-2 has tens of millions of pairs
        cell, day, scene, touching, touched = (
            np.concatenate([np.empty(0, kind), *(part[k].astype(kind) for part in parts)]) for k, kind in enumerate(kinds_of)
        )
        some = touched > 0
        order = np.argsort(touching[some], kind="stable")
        return Offers(cell, day, scene, np.arange(len(scene) + 1), touching[some][order], touched[some][order])


def _cloud(files: PartitionFiles) -> NDArray[np.float64]:
    return np.asarray(np.nan_to_num(files.scenes["cloud_cover"].to_numpy(zero_copy_only=False).astype(np.float64), nan=100.0))


def _cell_offers(
    pieces: Pieces,
    scene_of: NDArray[np.int64],
    rows: NDArray[np.int64],
    grid: GridSpec,
    lacking: NDArray[np.bool_],
    days: NDArray[np.uint32],
) -> tuple[NDArray[np.int64], ...]:
    """Cell, day and scene of each offer of some pieces; and the scenes, with the number of lacking cells that each touches."""
    wkb = pieces.wkb.take(pa.array(rows))
    number, cell = _cells(wkb, grid)
    scene, day = scene_of[rows], pieces.day[rows].astype(np.int64)
    wanting = lacking[cell]
    touched = np.bincount(number[wanting], minlength=len(rows))
    closes = (days[cell] & day_bit(day[number])) != 0
    return cell[closes], day[number[closes]], scene[number[closes]], scene, touched


def _cells(wkb: pa.ChunkedArray, grid: GridSpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a footprint and a flat cell that it covers by the grid's rule."""
    if grid.h3_res is not None:
        shapes = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
        number, cell = h3_cells(grid.h3_res).pairs(shapes, grid.rule, grid.min_fraction)
        return np.asarray(number, np.int64), np.asarray(cell, np.int64)
    arrays = FootprintArrays.of(*ragged_from_wkb(wkb))
    south, _, west, _ = grid.window
    ranges = kernel.covered_ranges(*arrays.flat, np.arange(len(wkb)), grid.kernel_grid())
    number, row, first, last = np.asarray(ranges, np.int64).reshape(-1, 4).T
    row, first, last = row - south, np.maximum(first - west, 0), np.minimum(last - west, grid.shape[1] - 1)
    inside = (row >= 0) & (row < grid.shape[0]) & (last >= first)
    number, row, first, last = number[inside], row[inside], first[inside], last[inside]
    length = last - first + 1
    ends = np.cumsum(length)
    column = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - length, length) + np.repeat(first, length)
    return np.repeat(number, length), np.repeat(row * grid.shape[1], length) + column
