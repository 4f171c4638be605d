"""What is missing against the cadence we want, how much it matters, and which action the month's evidence asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import xarray as xr
from numba import guvectorize, njit
from numpy.typing import NDArray

from coverage_pipeline.cube.schema import ACTIONS, SCHEMA, DesiredCadence
from coverage_pipeline.demand.weights import DEFAULT_WEIGHTS, GapError, check_weights
from coverage_pipeline.grid import daymask
from coverage_pipeline.grid.daymask import DAYS, UNKNOWN
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor

_NEEDED = ("unmet_supply", "ingestable_days", "check_days", "held_clear_days", "days_since_last_held")
GAP_INPUTS = (*_NEEDED, "scenes_count")
"""What ``compute_gap`` reads of a partition."""
_CODE = {name: np.uint8(code) for code, name in enumerate(ACTIONS)}


def compute_gap(
    ds: xr.Dataset,
    desired: DesiredCadence,
    *,
    weights: Mapping[str, float] | None = None,
    lookback_days: float | None = None,
    sensors: Mapping[str, CoverageSensor] = COVERAGE_SENSORS,
) -> xr.Dataset:
    """The dataset with ``deficit``, ``priority_score``, ``action``, ``desired`` and ``taskable`` added (design section 4).

    ``ds`` has the cube's dims and variables as ``open_coverage`` gives them; lazy in, lazy out. ``unmet_supply`` and the
    masks must be there: what exists and is not held is a difference of sets of scenes, which counts cannot give.
    ``in_scope``, ``scan_status`` and ``holdings_status`` default to: everywhere; complete (read) where the counts are known.
    ``lookback_days`` (default: the months of the dataset's settings, else 24, to each month's end) scales staleness.

    deficit = ceil(max(0, desired − held clear observations)), −1 (NaN) where not known;
    priority = w_deficit·min(1, deficit/desired) + w_staleness·min(1, days_since_last_held/lookback)
    + w_unmet·min(1, ingestable days/deficit) + w_wait·(longest wait/days of the month); 0 where met, NaN where unknown.

    Raises ``GapError`` for a missing variable or wrong weights.
    """
    missing = [name for name in _NEEDED if name not in ds]
    if missing:
        raise GapError(
            f"the dataset lacks {', '.join(missing)}: counts alone cannot tell what exists and is not held; "
            "open a cube with open_coverage, or build one"
        )
    shares = check_weights(weights if weights is not None else DEFAULT_WEIGHTS)
    keys = [str(k) for k in np.atleast_1d(ds["sensor"].values)]
    months = [Month.of(t) for t in np.atleast_1d(ds["time"].values)]
    partition = {"sensor": ds["sensor"], "time": ds["time"]}

    def flies(key: str, month: Month) -> bool:
        return key not in sensors or sensors[key].flies_in(month)

    wanted = xr.DataArray(
        # Nothing can be desired of a sensor that does not fly yet, or no longer: NaN, and out of scope.
        [[desired.for_sensor(k, sensors) if flies(k, m) else np.nan for m in months] for k in keys],
        dims=("sensor", "time"),
        coords=partition,
    ).astype(np.float32)
    taskable = xr.DataArray([k in sensors and sensors[k].taskable for k in keys], dims="sensor", coords={"sensor": ds["sensor"]})
    days = xr.DataArray(np.array([m.days for m in months], np.uint8), dims="time", coords={"time": ds["time"]})
    in_scope = ds["in_scope"] != 0 if "in_scope" in ds else xr.DataArray(True)
    applicable, conclusive, catalog_cell = _catalog_knowledge(ds)
    held_known, not_held = _holdings_knowledge(ds)

    deficit, priority, action = xr.apply_ufunc(
        gap_of_masks,
        ds["held_clear_days"],
        ds["ingestable_days"],
        ds["check_days"],
        ds["days_since_last_held"],
        wanted,
        days,
        in_scope,
        taskable,
        ~applicable | (conclusive & catalog_cell),
        held_known,
        not_held,
        _lookback_days(ds, months) if lookback_days is None else lookback_days,
        kwargs={"weights": shares},
        output_core_dims=[[], [], []],
        dask="parallelized",
        output_dtypes=[np.float32, np.float32, np.uint8],
    )
    order = ("sensor", "time", ...)
    added = {"deficit": deficit, "priority_score": priority, "action": action}
    out = ds.assign({name: values.transpose(*order) for name, values in added.items()})
    out = out.assign(desired=wanted, taskable=taskable.astype(np.int8))
    for name in (*added, "desired", "taskable"):
        out[name].attrs = {"long_name": SCHEMA[name].long_name} | ({"units": SCHEMA[name].units} if SCHEMA[name].units else {})
    out.encoding = {**ds.encoding, "gap_computed": True}  # `select` must not put the cube's own gap in its place
    out["action"].attrs |= {"flag_values": list(range(len(ACTIONS))), "flag_meanings": " ".join(ACTIONS)}
    return out


def _lookback_days(ds: xr.Dataset, months: list[Month]) -> xr.DataArray:
    """Days of the lookback that ends with each month: what ``days_since_last_held`` is where nothing was found in it."""
    settings = json.loads(ds.attrs["settings"]) if "settings" in ds.attrs else {}
    lookback = int(settings.get("lookback_months", 24))
    days = [(month.end - month.shift(1 - lookback).start).days for month in months]
    return xr.DataArray(np.array(days, np.float32), dims="time", coords={"time": ds["time"]})


def _catalog_knowledge(ds: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Whether a catalogue can be asked at all; whether finding nothing in it is conclusive; whether it covers the cell."""
    # What is not held must be known, too: a matchup made while the holdings were off leaves it unknown.
    cell = ds["unmet_supply"].notnull() & (((ds["ingestable_days"] | ds["check_days"]) & daymask.UNKNOWN) == 0)
    if "scenes_count" in ds:
        cell = cell & ds["scenes_count"].notnull()
    if "scan_status" not in ds:
        return xr.DataArray(True), xr.DataArray(True), cell
    status = ds["scan_status"]
    return status != SCAN_STATUS.index("not_applicable"), status == SCAN_STATUS.index("complete"), cell


def _holdings_knowledge(ds: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Where the holdings are known, and for which partitions they are a known zero."""
    cell = (ds["held_clear_days"] & daymask.UNKNOWN) == 0
    if "holdings_status" not in ds:
        return cell, xr.DataArray(False)
    status = ds["holdings_status"]
    not_held = status == HOLDINGS_STATUS.index("not_held")
    return ((status == HOLDINGS_STATUS.index("read")) & cell) | not_held, not_held


def gap_of_masks(
    held_clear_days: NDArray[np.uint32],
    ingestable_days: NDArray[np.uint32],
    check_days: NDArray[np.uint32],
    days_since: NDArray[np.float32],
    desired: NDArray[np.float32],
    month_days: NDArray[np.uint8],
    in_scope: NDArray[np.bool_],
    taskable: NDArray[np.bool_],
    absence_counts: NDArray[np.bool_],
    held_known: NDArray[np.bool_],
    not_held: NDArray[np.bool_],
    lookback_days: NDArray[np.float32] | float,
    *,
    weights: Mapping[str, float],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Deficit, priority and action (places in ``ACTIONS``) of arrays that broadcast against each other, by the table of design section 4.

    Masks are ``uint32`` day masks, bit 31 where not known. ``absence_counts``: nothing found means that nothing exists. ``not_held``: the
    sensor is not in the holdings at all, a known zero. A NaN in ``desired`` is out of scope; a deficit that is not known is NaN.
    """
    result: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]
    with np.errstate(invalid="ignore"):  # the compiler divides before it asks whether there is a number
        result = _gap_of_cell(
            held_clear_days,
            ingestable_days,
            check_days,
            np.asarray(days_since, np.float32),
            np.asarray(desired, np.float32),
            month_days,
            in_scope,
            taskable,
            absence_counts,
            held_known,
            not_held,
            np.asarray(lookback_days, np.float32),
            np.array([weights[name] for name in DEFAULT_WEIGHTS]),
        )
    return result


_UNKNOWN, _MET, _INGEST, _CHECK, _TASK, _NONE, _OUT_OF_SCOPE = (
    int(_CODE[name]) for name in ("unknown", "met", "ingest", "check", "task", "none", "out_of_scope")
)
_DAYS, _BIT_31 = DAYS, UNKNOWN  # numba takes globals of the module for constants


@njit(cache=True, nogil=True)
def _popcount(mask):  # type: ignore[no-untyped-def]
    count = 0
    while mask:
        mask &= mask - np.uint32(1)
        count += 1
    return count


# One pass over the cells in place of some thirty: each of those would write and read an array of the globe.
@guvectorize(
    "(u4,u4,u4,f4,f4,u1,b1,b1,b1,b1,b1,f4,f8[:],f4[:],f4[:],u1[:])",
    "(),(),(),(),(),(),(),(),(),(),(),(),(w)->(),(),()",
    nopython=True,
    cache=True,
)
def _gap_of_cell(  # type: ignore[no-untyped-def]
    held_clear, ingestable, check, since, desired, month_days, in_scope, taskable, absence_counts, held_known, not_held, lookback, weights,
    deficit, priority, action,
):  # fmt: skip
    if not in_scope or np.isnan(desired):
        deficit[0], priority[0], action[0] = 0, 0, _OUT_OF_SCOPE
        return
    if not held_known:
        deficit[0], priority[0], action[0] = np.nan, np.nan, _UNKNOWN
        return
    held = np.uint32(0) if not_held else held_clear & _DAYS  # a sensor that is not in our holdings is a known zero
    missing = math.ceil(max(0.0, desired - _popcount(held)))
    deficit[0] = missing
    if missing == 0:
        priority[0], action[0] = 0, _MET
        return
    days = 0 if ingestable & _BIT_31 else _popcount(ingestable)
    unclear = 0 if check & _BIT_31 else _popcount(check)
    if days:
        action[0] = _INGEST
    elif unclear:
        action[0] = _CHECK
    elif absence_counts:
        action[0] = _TASK if taskable else _NONE
    else:
        action[0], priority[0] = _UNKNOWN, np.nan
        return
    free = ~held & ((np.uint32(1) << np.uint32(month_days)) - np.uint32(1))
    wait = 0
    while free:  # each step shortens every run of free days by one
        wait += 1
        free &= free >> np.uint32(1)
    # Never held counts as fully stale, whether the lookback found nothing or the sensor is not in our holdings.
    stale = 1.0 if np.isnan(since) or not_held else min(1.0, since / lookback)
    priority[0] = (
        weights[0] * min(1.0, missing / desired)
        + weights[1] * stale
        + weights[2] * min(1.0, days / missing)
        + weights[3] * wait / month_days
    )
