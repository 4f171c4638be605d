"""What cannot be stored or read back."""

from __future__ import annotations

from coverage_pipeline.errors import PlannerError


class StoreError(PlannerError):
    """A file of ours cannot be read or written."""


MAKE_AGAIN = "materialise the asset that writes it again"
