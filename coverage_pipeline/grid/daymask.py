"""Day masks: one ``uint32`` a cell and month, bit *d − 1* set when the cell is observed on day *d*.

Bit 31 alone means *not known*. Masks make cadence exact: the number of observations is a popcount, the cadence of several
sensors an OR, what downloading would add an AND NOT, the longest wait the longest run of zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNKNOWN = np.uint32(1 << 31)
"""The mask of a cell that is not known."""

DAYS = np.uint32((1 << 31) - 1)
"""The bits of all days."""


def is_known(mask: ArrayLike) -> NDArray[np.bool_]:
    """Where the mask (``uint32``) is known."""
    known: NDArray[np.bool_] = np.equal(np.asarray(mask, np.uint32) & UNKNOWN, 0)
    return known


def day_bit(day: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
    """The mask of single days of the month, 1..31."""
    return np.left_shift(np.uint32(1), (np.asarray(day) - 1).astype(np.uint32)).astype(np.uint32)


def observations(mask: ArrayLike) -> NDArray[np.uint8]:
    """Observations in a month: the number of days set. Meaningless where the mask is not known; test that first."""
    return np.bitwise_count(np.asarray(mask, np.uint32) & DAYS)


def known_observations(mask: ArrayLike) -> NDArray[np.int64]:
    """Observations in a month, 0 where the mask is not known: what is sure to be there."""
    return np.where(is_known(mask), observations(mask), 0).astype(np.int64)


def longest_wait(mask: ArrayLike, days: ArrayLike) -> NDArray[np.uint8]:
    """Longest run of days of the month without an observation, 0..``days``.

    ``mask`` is ``uint32``, ``days`` the length of its month (broadcast against it).
    """
    seen, days = np.broadcast_arrays(np.asarray(mask, np.uint32) & DAYS, np.asarray(days, np.uint8))
    wait = days.copy()
    some = seen != 0  # most cells of a month have no holding at all: their wait is the whole month
    if not some.any():
        return wait
    free = ~seen[some] & _month_bits(days[some])
    run = np.zeros(free.shape, np.uint8)
    # Each step shortens every run of free days by one; a cell's longest run is the number of steps it survives.
    while free.any():
        run += free != 0
        free &= free >> np.uint32(1)
    wait[some] = run
    return wait


def summed_wait(mask: ArrayLike, days: ArrayLike) -> NDArray[np.uint16]:
    """Sum over the days of the month of the days until the next observation, or until the month ends.

    A day with an observation waits 0 days, so a run of ``r`` free days gives ``r·(r + 1)/2``: 0..496 a month.
    """
    seen, days = np.broadcast_arrays(np.asarray(mask, np.uint32) & DAYS, np.asarray(days, np.uint8))
    total = days.astype(np.uint16)
    total *= total + np.uint16(1)
    total //= np.uint16(2)
    some = seen != 0  # as in longest_wait: a month without an observation is one run
    if not some.any():
        return total
    free = ~seen[some] & _month_bits(days[some])
    waits = np.zeros(free.shape, np.uint16)
    # A run of r days is counted with r, r − 1, … 1 days while it shrinks.
    while free.any():
        waits += np.bitwise_count(free)
        free &= free >> np.uint32(1)
    total[some] = waits
    return total


def leading_wait(mask: ArrayLike, days: ArrayLike) -> NDArray[np.uint8]:
    """Days of the month before its first observation; ``days`` where it has none."""
    seen, days = np.broadcast_arrays(np.asarray(mask, np.uint32) & DAYS, np.asarray(days, np.uint8))
    below = ~seen & (seen - np.uint32(1))  # the bits below the lowest one set; all 32 where none is
    lead: NDArray[np.uint8] = np.minimum(np.bitwise_count(below), days)
    return lead


def trailing_wait(mask: ArrayLike, days: ArrayLike) -> NDArray[np.uint8]:
    """Days of the month after its last observation; ``days`` where it has none."""
    masks, days = np.broadcast_arrays(np.asarray(mask, np.uint32), np.asarray(days, np.uint8))
    up_to_last = masks & _month_bits(days)
    for shift in (1, 2, 4, 8, 16):  # fills every bit below the highest one set
        up_to_last |= up_to_last >> np.uint32(shift)
    trail: NDArray[np.uint8] = days - np.bitwise_count(up_to_last)
    return trail


def _month_bits(days: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The mask of a month observed every day."""
    return np.asarray(np.left_shift(np.uint32(1), days.astype(np.uint32)) - np.uint32(1), np.uint32)
