"""Revisit figures of merit, derived on read from day masks: how often a place is seen, and how long it waits.

Time is whole UTC days, as in the masks: the instant within a day is not known. Two words carry every figure:

- The **stretch**: consecutive months that are on the time axis and known at a cell. A month that is not known or missing from the
  axis ends a stretch; its days count neither as wait nor as observation, and nothing is bridged over it.
- The **wait** of a day: days until the next day with an observation, 0 on such a day. Where the stretch ends first, the wait ends
  with it, as if the next day had an observation: what lies beyond is not known, so such a wait is a lower bound.

The figures are those of coverage analysis, in days instead of instants:

- J. R. Wertz, "Earth Coverage", section 7.2 of W. J. Larson and J. R. Wertz (eds.), *Space Mission Analysis and Design* (SMAD), 3rd
  edition, 1999: maximum coverage gap (= maximum response time), mean coverage gap, time average gap, mean response time.
- Ansys STK, Coverage, figures of merit *Revisit Time* (https://help.agi.com/stk/Content/cov/fom-05.htm) and *Response Time*
  (https://help.agi.com/stk/Content/cov/fom-11.htm), which cut gaps at the ends of the interval of analysis at its bounds, too.

Every function takes numpy or dask and gives the same back; with dask nothing is computed. Figures are NaN where not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid import daymask
from coverage_pipeline.months import Month

_COMMENT = "bit d-1 is set when the cell has it on day d of the month; bit 31 alone means not known"


class RevisitError(PlannerError, ValueError):
    """An array that does not hold day masks, or whose time axis is not one of months."""


def observations(mask: xr.DataArray) -> xr.DataArray:
    """Observations in each month: the days with one (``float32``, 1), the mask's popcount.

    NaN where the mask is not known. An observation is a day, not a scene: design section 4.
    """
    observations = xr.apply_ufunc(_observations, _masks(mask), dask="parallelized", output_dtypes=[np.float32])
    return _figure(observations, "observations", "days with an observation in the month", "1")


def combined(mask: xr.DataArray, dim: str = "sensor") -> xr.DataArray:
    """Days observed by any of the sensors along ``dim``: ``m₁ | m₂ | …`` (``uint32`` masks).

    The combined cadence of several sensors. Not known where any of them is not known: select the sensors that count first.
    """
    mask = _whole(_masks(mask), dim)
    combined = xr.apply_ufunc(_combined, mask, input_core_dims=[[dim]], dask="parallelized", output_dtypes=[np.uint32])
    return _mask(combined, "combined", f"days observed by any {dim}")


def lacking(available: xr.DataArray, held: xr.DataArray) -> xr.DataArray:
    """Days that exist and are not held: ``available & ~held`` (``uint32`` masks).

    Not known where either is not known. Both must have the same coordinates: months that only one has are refused by xarray,
    never dropped.
    """
    lacking = xr.apply_ufunc(_lacking, _masks(available), _masks(held), dask="parallelized", output_dtypes=[np.uint32])
    return _mask(lacking, "lacking", "days available and not held")


def longest_wait(mask: xr.DataArray) -> xr.DataArray:
    """Longest run of days without an observation within each month (``float32``, days): 0 to the month's length.

    ``max(rⱼ)`` over the month's runs of ``rⱼ`` free days: the maximum coverage gap of SMAD 7.2, the maximum revisit time of STK,
    with the month as the interval of analysis. NaN where the mask is not known. The length of the month is that of ``time``.
    """
    mask = _masks(mask)
    days = mask["time"].dt.days_in_month.astype(np.uint8)
    waits = xr.apply_ufunc(_longest_wait, mask, days, dask="parallelized", output_dtypes=[np.float32])
    return _figure(waits, "longest_wait", "longest run of days without an observation in the month", "days")


def longest_wait_across(mask: xr.DataArray, dim: str = "time") -> xr.DataArray:
    """Longest run of days without an observation over all months of ``dim`` together (``float32``, days).

    ``max(rⱼ)`` over the runs of ``rⱼ`` free days of each stretch: the maximum coverage gap, or maximum response time, of SMAD 7.2, the
    maximum revisit time of STK. It is the longest wait of any known day.

    Runs go on over month ends. They do not go on over a month that is not known or missing from the axis, so the figure is a lower
    bound where there is one. NaN only where no month is known.
    """
    return _across(_longest_wait_across, mask, dim, "longest_wait_across", "longest run of days without an observation")


def mean_revisit_time(mask: xr.DataArray, dim: str = "time") -> xr.DataArray:
    """Mean time from one day with an observation to the next, over all months of ``dim`` together (``float32``, days).

    ``Σ (lastₛ − firstₛ) / Σ (Nₛ − 1)`` over the stretches ``s`` with ``Nₛ ≥ 1`` days with an observation, ``firstₛ`` to ``lastₛ``. With
    one stretch this is the mean interval ``(last − first)/(N − 1)``: 1 for a place seen every day, 5 for every fifth day. NaN where no
    stretch has two.

    This counts from observation to observation. The mean coverage gap of SMAD 7.2 and the average revisit time of STK count the time
    in between, when nothing is seen, and leave out gaps of no length: in days, ``interval − 1`` over the intervals longer than a day.
    Time before the first and after the last observation of a stretch is no interval: a place seen twice in a week and never again
    has a short mean revisit time. ``longest_wait_across`` and ``mean_response_time`` count it.
    """
    return _across(_mean_revisit_time, mask, dim, "mean_revisit_time", "mean time between days with an observation")


def mean_response_time(mask: xr.DataArray, dim: str = "time") -> xr.DataArray:
    """Mean wait of the known days, over all months of ``dim`` together (``float32``, days).

    ``Σ rⱼ·(rⱼ + 1)/2 / T`` over the runs of ``rⱼ`` free days of each stretch, with ``T`` known days: from a known day drawn at random, the
    expected days until the next day with an observation, 0 on such a day. The mean response time of SMAD 7.2, the average response
    time of STK, which integrate over instants instead of adding days (``Σ gⱼ²/(2T)`` with gaps of duration ``gⱼ``).

    A run that a stretch's end cuts counts as if the next day had an observation, so the figure is a lower bound there: ``(T + 1)/2``
    where nothing was seen in one stretch. NaN only where no month is known.
    """
    return _across(_mean_response_time, mask, dim, "mean_response_time", "mean wait until the next day with an observation")


def _masks(array: xr.DataArray) -> xr.DataArray:
    # In floats or signed integers bit 31 is lost or a number: what is not known would read as never observed.
    if array.dtype != np.uint32:
        raise RevisitError(
            f"{array.name or 'the array'} has dtype {array.dtype}; day masks are uint32: take one of the cube's *_days variables, "
            "and hide cells with array.where(known, daymask.UNKNOWN), never with NaN"
        )
    return array


def _whole(mask: xr.DataArray, dim: str) -> xr.DataArray:
    """The mask with ``dim`` in one chunk: a task sees all of it for its cells. The cube has one chunk a sensor and month."""
    return mask if mask.chunks is None or dim not in mask.dims else mask.chunk({dim: -1})


def _across(kernel: Callable[..., NDArray[np.float32]], mask: xr.DataArray, dim: str, name: str, long_name: str) -> xr.DataArray:
    mask = _whole(_masks(mask), dim)
    months = tuple(Month.of(instant) for instant in np.atleast_1d(mask[dim].values))
    if len(set(months)) < len(months):
        raise RevisitError(f"{mask.name or 'the array'} has a month twice along {dim}; combine or drop one, then ask again")
    figures = xr.apply_ufunc(
        kernel, mask, input_core_dims=[[dim]], kwargs={"months": months}, dask="parallelized", output_dtypes=[np.float32]
    )
    return _figure(figures, name, long_name, "days")


def _figure(array: xr.DataArray, name: str, long_name: str, units: str) -> xr.DataArray:
    array.attrs = {"long_name": long_name, "units": units}  # the mask's own, its comment above all, are not true of the figure
    return array.rename(name)


def _mask(array: xr.DataArray, name: str, long_name: str) -> xr.DataArray:
    array.attrs = {"long_name": long_name, "units": "1", "comment": _COMMENT}
    return array.rename(name)


def _observations(mask: NDArray[np.uint32]) -> NDArray[np.float32]:
    return _or_nan(daymask.observations(mask), daymask.is_known(mask))


def _longest_wait(mask: NDArray[np.uint32], days: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _or_nan(daymask.longest_wait(mask, days), daymask.is_known(mask))


def _combined(masks: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return _alone(np.bitwise_or.reduce(masks, axis=-1))


def _lacking(available: NDArray[np.uint32], held: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return _alone((available & ~held) | ((available | held) & daymask.UNKNOWN))


def _alone(mask: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The mask with no days where it is not known."""
    return np.where(daymask.is_known(mask), mask, daymask.UNKNOWN)


def _or_nan(figure: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(known, figure, np.nan).astype(np.float32)


class _Step(NamedTuple):
    """One month of the scan over time; arrays have the shape of the cells."""

    mask: NDArray[np.uint32]
    days: np.int32
    known: NDArray[np.bool_]
    follows: bool
    """Whether the month before is on the axis."""
    start: np.int32
    """Days from the first month's start to this one's."""


def _in_order(masks: NDArray[np.uint32], months: tuple[Month, ...]) -> Iterator[_Step]:
    """The months of the last axis in order of time, whatever their order on the axis."""
    before: Month | None = None
    order = sorted(range(len(months)), key=months.__getitem__)
    for k in order:
        month, mask = months[k], masks[..., k]
        follows = before is not None and before.shift(1) == month
        yield _Step(mask, np.int32(month.days), daymask.is_known(mask), follows, np.int32((month.start - months[order[0]].start).days))
        before = month


def _with_waited(masks: NDArray[np.uint32], months: tuple[Month, ...]) -> Iterator[tuple[_Step, NDArray[np.int32], NDArray[np.uint8]]]:
    """Each month with the days that the run open at its start has already lasted, and the days by which the month prolongs it."""
    waited = np.zeros(masks.shape[:-1], np.int32)
    for step in _in_order(masks, months):
        if not step.follows:
            waited = np.zeros_like(waited)
        lead = daymask.leading_wait(step.mask, step.days)
        yield step, waited, lead
        open_run = np.where(lead == step.days, waited + lead, daymask.trailing_wait(step.mask, step.days))
        waited = np.where(step.known, open_run, np.int32(0))


def _longest_wait_across(masks: NDArray[np.uint32], months: tuple[Month, ...]) -> NDArray[np.float32]:
    longest = np.zeros(masks.shape[:-1], np.int32)
    known = np.zeros(longest.shape, np.bool_)
    for step, waited, lead in _with_waited(masks, months):
        run = np.maximum(waited + lead, daymask.longest_wait(step.mask, step.days))
        longest = np.where(step.known, np.maximum(longest, run), longest)
        known = known | step.known
    return _or_nan(longest, known)


def _mean_response_time(masks: NDArray[np.uint32], months: tuple[Month, ...]) -> NDArray[np.float32]:
    total = np.zeros(masks.shape[:-1], np.int64)
    days = np.zeros(total.shape, np.int32)
    for step, waited, lead in _with_waited(masks, months):
        # r(r + 1)/2 of a run of w + l days is that of w, that of l (both counted in their months) and w·l.
        total = total + np.where(step.known, daymask.summed_wait(step.mask, step.days) + waited * lead, 0)
        days = days + np.where(step.known, step.days, 0)
    return _or_nan(total / np.maximum(days, 1), days > 0)


def _mean_revisit_time(masks: NDArray[np.uint32], months: tuple[Month, ...]) -> NDArray[np.float32]:
    span = np.zeros(masks.shape[:-1], np.int32)
    intervals = np.zeros(span.shape, np.int32)
    none = np.int32(-1)
    last = np.full(span.shape, none)  # the stretch's latest day with an observation, counted from the first month's start
    for step in _in_order(masks, months):
        if not step.follows:
            last = np.full(span.shape, none)
        last = np.where(step.known, last, none)
        count = daymask.observations(step.mask)
        first_day = step.start + daymask.leading_wait(step.mask, step.days)
        last_day = step.start + step.days - 1 - daymask.trailing_wait(step.mask, step.days)
        some = step.known & (count > 0)
        opens = last == none  # a stretch's first observation ends no interval
        span = span + np.where(some, last_day - np.where(opens, first_day, last), 0)
        intervals = intervals + np.where(some, count - opens.astype(np.int32), 0)
        last = np.where(some, last_day, last)
    return _or_nan(span / np.maximum(intervals, 1), intervals > 0)
