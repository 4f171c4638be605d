"""Day masks: one ``uint32`` a cell and month, bit *d − 1* set when the cell is observed on day *d*.

Bit 31 alone means *not known*. Masks make cadence exact: the number of observations is a popcount, the cadence of several
sensors an OR, what downloading would add an AND NOT, the longest wait the longest run of zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNKNOWN = np.uint32(1 << 31)
"""The mask of a cell that nobody looked at."""

_DAYS = np.uint32((1 << 31) - 1)


def is_known(mask: ArrayLike) -> NDArray[np.bool_]:
    """Where the mask (``uint32``) is known."""
    known: NDArray[np.bool_] = np.equal(np.asarray(mask, np.uint32) & UNKNOWN, 0)
    return known


def day_bit(day: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
    """The mask of single days of the month, 1..31."""
    return np.left_shift(np.uint32(1), (np.asarray(day) - 1).astype(np.uint32)).astype(np.uint32)


def observations(mask: ArrayLike) -> NDArray[np.uint8]:
    """Observations in a month: the number of days set. Meaningless where the mask is not known; test that first."""
    return np.bitwise_count(np.asarray(mask, np.uint32) & _DAYS)


def longest_wait(mask: ArrayLike, days: ArrayLike) -> NDArray[np.uint8]:
    """Longest run of days of the month without an observation, 0..``days``.

    ``mask`` is ``uint32``, ``days`` the length of its month (broadcast against it).
    """
    seen, days = np.broadcast_arrays(np.asarray(mask, np.uint32) & _DAYS, np.asarray(days, np.uint8))
    wait = days.copy()
    some = seen != 0  # most cells of a month have no holding at all: their wait is the whole month
    if not some.any():
        return wait
    month = np.left_shift(np.uint64(1), days[some].astype(np.uint64)) - np.uint64(1)
    free = ~seen[some] & month.astype(np.uint32)
    run = np.zeros(free.shape, np.uint8)
    # Each step shortens every run of free days by one; a cell's longest run is the number of steps it survives.
    while free.any():
        run += free != 0
        free &= free >> np.uint32(1)
    wait[some] = run
    return wait
