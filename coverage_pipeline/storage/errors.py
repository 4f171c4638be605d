"""What cannot be stored or read back."""

from __future__ import annotations

from coverage_pipeline.errors import PlannerError


class StoreError(PlannerError):
    """A file written by this package cannot be read, or a file cannot be written."""


MAKE_AGAIN = "materialise the asset that writes it again"
