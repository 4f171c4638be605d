"""Medians of alternating runs, so that a machine that others use slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Taken(NamedTuple):
    """What a call took, seconds."""

    wall: float
    cpu: float
    """Of all threads: says more than the clock where others use the machine."""


def taken_by(call: Callable[[], object]) -> Taken:
    """What one call takes."""
    began, cpu = time.perf_counter(), time.process_time()
    call()
    return Taken(time.perf_counter() - began, time.process_time() - cpu)


def median_of(runs: Sequence[Taken]) -> Taken:
    """Medians of both, each for itself."""
    return Taken(statistics.median(run.wall for run in runs), statistics.median(run.cpu for run in runs))


def medians(calls: Mapping[str, Callable[[], object]], runs: int) -> dict[str, Taken]:
    """Medians of each call; they take turns."""
    taken: dict[str, list[Taken]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            taken[name].append(taken_by(call))
    return {name: median_of(some) for name, some in taken.items()}
