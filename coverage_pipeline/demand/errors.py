"""Errors of what is wanted."""

from __future__ import annotations

from coverage_pipeline.errors import PlannerError


class LocationsError(PlannerError):
    """Target areas that cannot be read or used, or an area of interest that needs them where there are none."""

    exit_code = 2
