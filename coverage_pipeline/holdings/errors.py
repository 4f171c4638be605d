"""Why the holdings cannot be had at all. The layer is off then, and the build goes on."""

from __future__ import annotations

from coverage_pipeline.errors import PlannerError


class HoldingsUnavailable(PlannerError, RuntimeError):
    """The holdings cannot be had at all: the layer is off and the build goes on. Its kinds say why."""


class HoldingsNotConfigured(HoldingsUnavailable):
    """No setting says where the holdings are."""


class HoldingsDriverMissing(HoldingsUnavailable):
    """The database's driver is not installed."""


class HoldingsUnreachable(HoldingsUnavailable):
    """The database does not answer, or the file's place cannot be reached."""

    may_pass = True
