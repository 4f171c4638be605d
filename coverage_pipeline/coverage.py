"""The specification's names for building and reading a cube. For users: nothing inside the package imports this module."""

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import CoverageQuery, DesiredCadence
from coverage_pipeline.cube.select import select
from coverage_pipeline.demand.gap import compute_gap
from coverage_pipeline.pipeline.build import build_coverage_zarr

__all__ = ["CoverageQuery", "DesiredCadence", "build_coverage_zarr", "compute_gap", "open_coverage", "select"]
