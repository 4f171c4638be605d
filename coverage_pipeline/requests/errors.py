"""Errors of requests and of the database that keeps them."""

from __future__ import annotations

from coverage_pipeline.errors import PlannerError


class RequestError(PlannerError, ValueError):
    """A request that cannot be recorded, or changed, as asked."""


class RequestConflict(RequestError):
    """Somebody else changed the request meanwhile: nothing was written."""


class RequestStoreError(RequestError):
    """The database of requests cannot be had: down, locked, full, read-only, or of a newer schema. Nothing was written."""
