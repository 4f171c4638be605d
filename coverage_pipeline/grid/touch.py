"""Cells that a footprint covers, and the mask of cells that geometries touch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid import kernel

if TYPE_CHECKING:
    pass
from coverage_pipeline.grid.footprint_arrays import FootprintArrays, ragged_arrays
from coverage_pipeline.grid.spec import GridSpec, h3_cells


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
        covered = np.unique(h3_cells(grid.h3_res).pairs(footprints, grid.rule, grid.min_fraction)[1])
        ids: list[int] = grid.cell_ids[covered].tolist()
        return ids
    arrays = FootprintArrays.of(*ragged_arrays(footprints))
    row, _, column, _ = grid.window
    ranges = kernel.covered_ranges(*arrays.flat, np.zeros(1, np.int64), grid.kernel_grid())
    return [(int(r) - row, c - column) for _, r, first, last in ranges for c in range(first, last + 1)]


def touched(geometries: NDArray[np.object_], grid: GridSpec) -> NDArray[np.bool_]:
    """Whether any of the normalised footprints touches each cell, whatever the grid's rule: bool of shape ``grid.shape``.

    Raises ValueError: a geometry can't be used.
    """
    mask = np.zeros(grid.shape, np.bool_)
    footprints = FootprintArrays.of(*ragged_arrays(geometries))
    if grid.h3_res is not None:
        mask[h3_cells(grid.h3_res).pairs(footprints.objects(), "touch", 1.0)[1]] = True
        return mask
    kernel.mark(*footprints.flat, grid.kernel_grid(rule="touch"), mask)
    return mask
