"""The specification's names for target areas. For users: nothing inside the package imports this module."""

from coverage_pipeline.demand.targets import fetch_targets, targets_union

__all__ = ["fetch_targets", "targets_union"]
