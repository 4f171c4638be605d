"""Bands of rows: how a field is cut so that the work on it fits the memory and the threads it may take."""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid import kernel

if TYPE_CHECKING:
    pass
from coverage_pipeline.grid.footprint_arrays import FootprintArrays
from coverage_pipeline.grid.spec import GridSpec


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


def check_rows(rows: tuple[int, int] | None, grid: GridSpec) -> None:
    if rows is not None and (grid.h3_res is not None or not 0 <= rows[0] <= rows[1] <= grid.shape[0]):
        rows_in_words = "H3 cells have no rows" if grid.h3_res is not None else f"the grid has rows 0 to {grid.shape[0]}"
        raise ValueError(f"rows {rows}: {rows_in_words}")


def run_in_bands[T](
    footprints: FootprintArrays,
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
