"""Compiling the numba kernels once, in set-up, so that neither the first build nor a test waits for it.

``python -m coverage_pipeline.pipeline.kernels`` calls each kernel with the types that the pipeline gives it. Numba keeps the machine code
in ``__pycache__``.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pyarrow as pa
import shapely

import coverage_pipeline.demand.gap  # noqa: F401 its kernel is compiled when it is imported
from coverage_pipeline.cube.levels import coarse_values, level_schema
from coverage_pipeline.cube.overviews import known_share
from coverage_pipeline.cube.schema import KNOWN_SHARES, SCHEMA
from coverage_pipeline.demand.target_days import Pieces, covered_days
from coverage_pipeline.geometry.wkb import ragged_from_wkb
from coverage_pipeline.grid.footprint_arrays import FootprintArrays, ragged_arrays
from coverage_pipeline.grid.kernel import covered_ranges
from coverage_pipeline.grid.spec import CoverageRule, GridSpec
from coverage_pipeline.grid.statistics import cell_statistics, latest_in_cells
from coverage_pipeline.grid.touch import footprint_to_cells, touched
from coverage_pipeline.requests.cover import CoverProblem, cover


def compile_kernels() -> None:
    """Call every kernel once on two small footprints."""
    footprints = np.array([shapely.box(0, 0, 20, 10), shapely.box(12, 2, 18, 8)], dtype=object)
    days, cloud, clear = np.array([1, 31], np.uint8), np.array([5.0, np.nan]), np.array([True, False])
    ragged_from_wkb(pa.array(shapely.to_wkb(footprints)))
    for rule in get_args(CoverageRule):
        grid = GridSpec(10.0, rule=rule)
        cell_statistics(footprints, day=days, cloud=cloud, clear=clear, grid=grid)
        latest_in_cells(footprints, value=np.array([0.0, 1.0]), grid=grid)
        footprint_to_cells(footprints[0], grid)
    touched(footprints, GridSpec(10.0))
    weights = np.ones(36)
    for name in level_schema():
        if name in SCHEMA:
            coarse_values(name, np.zeros((36, 72), SCHEMA[name].dtype), weights, 6)
    outlines = pa.chunked_array([pa.array(shapely.to_wkb(footprints))])
    pieces = Pieces(shapely.bounds(footprints), outlines, np.array([1, 1], np.uint8), np.array([1, 1], np.uint8))
    covered_days(footprints[:1], np.array([0.9]), pieces)
    nothing = np.zeros(1, np.int64)
    some = np.array([0, 1], np.int64)
    cover(CoverProblem(np.ones(1), np.zeros(1), nothing, nothing, some, np.ones(1, np.int64), some, np.ones(1, np.int64), np.ones(1)))
    covered_ranges(*FootprintArrays.of(*ragged_arrays(footprints)).flat, np.arange(2), GridSpec(10.0).kernel_grid())
    for of, _ in KNOWN_SHARES.values():
        known_share(np.zeros((36, 72), SCHEMA[of].dtype), SCHEMA[of].fill, weights, 6)


if __name__ == "__main__":
    compile_kernels()
