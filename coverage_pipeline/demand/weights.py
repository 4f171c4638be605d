"""Weights of the priority."""

from __future__ import annotations

import math
from collections.abc import Mapping

from coverage_pipeline.cube.schema import CoverageError

DEFAULT_WEIGHTS: Mapping[str, float] = {"deficit": 0.4, "staleness": 0.3, "unmet": 0.2, "wait": 0.1}
"""Shares of the priority: how much is missing, how old the newest holding is, how much downloading would close, and the
longest run of days without a clear observation held."""


class GapError(CoverageError):
    """The gap cannot be computed from what is there."""


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights if they are the four of ``DEFAULT_WEIGHTS``, none negative, summing to 1; raises ``GapError`` if not."""
    if set(weights) != set(DEFAULT_WEIGHTS):
        raise GapError(f"weights must be {', '.join(DEFAULT_WEIGHTS)}; got {', '.join(weights) or 'none'}")
    if any(not w >= 0 for w in weights.values()) or not math.isclose(sum(weights.values()), 1.0, abs_tol=1e-6):
        raise GapError(f"weights must not be negative and sum to 1; got {dict(weights)}, sum {sum(weights.values()):g}")
    return {name: float(weights[name]) for name in DEFAULT_WEIGHTS}
