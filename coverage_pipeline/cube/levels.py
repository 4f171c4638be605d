"""Dimensions and levels of a cube: which variables the coarser levels hold, and how blocks of cells become one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.cube import overviews
from coverage_pipeline.cube import schema as cube_schema
from coverage_pipeline.cube.schema import ACTION_ORDER, ACTIONS, CELL_DIMS, KNOWN_SHARES, PARTITION_DIMS, SCHEMA, Variable
from coverage_pipeline.grid.spec import GridSpec

Rows = tuple[int, int] | None
"""First and end row of a piece of a field; None: all of it."""


@dataclass(frozen=True)
class Level:
    """A coarser level of the cube, for maps of the world."""

    factor: int
    shape: tuple[int, int]

    @property
    def group(self) -> str:
        """Its path below the root."""
        return overviews.level_group(self.factor)


def levels(grid: GridSpec) -> list[Level]:
    """The coarser levels of a cube on that grid, the finest first; none of H3 cells."""
    if grid.h3_res is not None:
        return []
    n_lat, n_lon = grid.shape
    return [Level(f, (n_lat // f, n_lon // f)) for f in overviews.factors((n_lat, n_lon))]


def strip_rows(grid: GridSpec) -> int:
    """Rows that a piece of a partition must be a multiple of: whole chunks, and whole blocks of every level."""
    return math.lcm(cube_schema.CHUNK, *(level.factor for level in levels(grid)))


def level_variable(name: str) -> Variable:
    """A variable as the levels hold it: a mean is float32, also of counts."""
    variable = SCHEMA[name]
    over_area = {"mean": "area: mean", "max": "area: maximum"}.get(_how(name))
    methods = " ".join(method for method in (variable.cell_methods, over_area) if method) or None
    if _how(name) == "mean":
        return Variable(variable.dims, "float32", float("nan"), variable.long_name, variable.units, methods, attrs=variable.attrs)
    return replace(variable, cell_methods=methods)


def _how(name: str) -> overviews.How:
    """How a block of cells becomes one: the most urgent action, the largest deficit or priority, the union of days, else the mean."""
    if name == "action":
        return "urgent"
    if name in ("deficit", "priority_score", "in_scope"):
        return "max"
    return "or" if SCHEMA[name].dtype == "uint32" else "mean"


def coarse_values(name: str, values: NDArray[Any], weights: NDArray[np.float64], factor: int) -> NDArray[Any]:
    how, fill = _how(name), SCHEMA[name].fill
    fill = None if isinstance(fill, float) and math.isnan(fill) else fill
    order = [ACTIONS.index(action) for action in ACTION_ORDER] if how == "urgent" else []
    return overviews.coarsen(values, None if how == "or" or name == "in_scope" else fill, weights, factor, how, order)


def dims_on(grid: GridSpec, variable: Variable) -> tuple[str, ...]:
    """The dimensions of a variable in a cube on that grid."""
    if "lat" not in variable.dims or grid.h3_res is None:
        return variable.dims
    return (*(d for d in variable.dims if d not in ("lat", "lon")), *grid.dims)


def level_schema() -> dict[str, Variable]:
    """The variables of a level."""
    names = [n for n, v in SCHEMA.items() if v.dims == CELL_DIMS or n == "in_scope"]
    shares = {
        name: Variable(CELL_DIMS, "float32", float("nan"), f"share of the area where {words} are known", "1", "area: mean")
        for name, (_, words) in KNOWN_SHARES.items()
    }
    return {name: level_variable(name) for name in names} | shares


def partition_arrays(grid: GridSpec) -> list[str]:
    """The arrays of which every partition has its own chunks, those of the levels among them."""
    of_levels = [name for name, variable in level_schema().items() if variable.dims[:2] == PARTITION_DIMS]
    names = [name for name, variable in SCHEMA.items() if variable.dims[:2] == PARTITION_DIMS]
    return names + [f"{level.group}/{name}" for level in levels(grid) for name in of_levels]


def levels_with_weights(grid: GridSpec, rows: Rows = None) -> list[tuple[Level, NDArray[np.float64]]]:
    """Each level with the relative areas of the cells of a piece's rows."""
    sizes = levels(grid)
    return [(level, overviews.row_areas(grid.lat_edges)[slice(*(rows or (None, None)))]) for level in sizes]
