"""How a catalogue fails. In every case nothing is written and the former file stays."""

from __future__ import annotations

from coverage_pipeline.errors import PlannerError


class CatalogError(PlannerError):
    """A provider did not answer as it should; the scan of that sensor and month failed."""

    narrower_may_help = False
    """Whether the same question about a shorter time may succeed: a catalogue that is overloaded or breaks off often answers less."""
    status: int | None = None
    """The HTTP status that refused, where one did."""


class CatalogUnavailable(CatalogError):
    """The provider could not be reached, refused, timed out or answered with an error after all retries."""

    may_pass = True


class CatalogUnreadable(CatalogError):
    """The provider answered with something that is not a page of STAC items, such as a maintenance page."""

    may_pass = True


class CatalogTruncated(CatalogError):
    """A provider stopped short: it gave fewer scenes than it announced, or a full page with no way on."""

    may_pass = True
    narrower_may_help = True


class CatalogDisagreement(CatalogError):
    """A month that looks empty or much too small here is none at the next provider."""

    may_pass = True
