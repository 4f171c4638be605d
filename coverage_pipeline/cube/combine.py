"""Fields of several sensors become one field: sums, means, shares, and the most urgent action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.cube.schema import ACTIONS, URGENCY, Metric
from coverage_pipeline.grid import daymask
from coverage_pipeline.months import Month


def combined(metric: Metric, name: str, month: Month, fields: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One month of several sensors by the metric's rule; NaN where not known."""
    if not fields:
        return np.full(shape, np.nan, np.float32)
    if metric.mask is not None:
        days = fields[0]
        for more in fields[1:]:
            days = days | more
        known = daymask.is_known(days)
        figure = daymask.longest_wait(days, month.days) if metric.measure == "longest_wait" else daymask.observations(days)
        return np.where(known, figure, np.nan).astype(np.float32)
    values = [_urgency(f) if name == "action" else f.astype(np.float32, copy=False) for f in fields]
    combined = values[0]
    for more in values[1:]:
        match metric.across_sensors:
            case "sum":
                combined = combined + more
            case "min":
                combined = np.minimum(combined, more)
            case _:
                combined = np.maximum(combined, more)
    return combined


def mean_of(
    fields: Sequence[NDArray[Any]], scenes: Sequence[NDArray[Any]], unclear: Sequence[NDArray[Any]], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The sensors' means, each weighted by its scenes of known cloud; not known where a sensor was not looked at. A sensor without such
    a scene in a cell has no mean there, which hides nothing.
    """
    total, weight, looked = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.ones(shape, bool)
    for values, count, unknown in zip(fields, scenes, unclear, strict=True):
        known = count - unknown  # NaN where either is not known
        is_known = known > 0
        np.add(total, values * known, out=total, where=is_known)
        np.add(weight, known, out=weight, where=is_known)
        looked &= ~np.isnan(known)
    return np.divide(total, weight, out=np.full(shape, np.nan, np.float32), where=looked & (weight > 0))


def _urgency(action: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Actions ranked so that the larger one is the one to see; unknown ranks above ``none``: it must not vanish."""
    rank = np.array([URGENCY.index(name) for name in ACTIONS], np.float32)
    return rank[action]


UNKNOWN_RANK = np.float32(URGENCY.index("unknown"))


def from_urgency(rank: NDArray[np.float32]) -> NDArray[np.float32]:
    code = np.array([ACTIONS.index(name) for name in URGENCY], np.float32)
    known = ~np.isnan(rank)
    out = np.full(rank.shape, np.nan, np.float32)
    out[known] = code[rank[known].astype(np.int64)]
    return out
