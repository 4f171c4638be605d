"""Errors of catalogues. After each of them nothing is written and the former file stays."""

from __future__ import annotations

from coverage_pipeline.errors import PlannerError


class CatalogError(PlannerError):
    """The scan of a sensor and month failed at a provider."""

    narrower_may_help = False
    """Whether a shorter window may succeed: an overloaded catalogue often answers a smaller search."""
    status: int | None = None
    """HTTP status of the refusal, if there was one."""


class CatalogUnavailable(CatalogError):
    """The provider could not be reached, refused, timed out, or still answered with an error after all retries."""

    may_pass = True


class CatalogUnreadable(CatalogError):
    """The answer is not a page of STAC items, but for example a maintenance page."""

    may_pass = True


class CatalogTruncated(CatalogError):
    """The answer is incomplete: fewer scenes than announced, or a full last page without a next link."""

    may_pass = True
    narrower_may_help = True


class CatalogDisagreement(CatalogError):
    """Another provider has scenes of a month that looks empty or much too small here."""

    may_pass = True
