"""What is missing against the cadence we want, how much it matters, and which action the month's evidence asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from coverage_pipeline import daymask
from coverage_pipeline.coverage import (
    ACTIONS,
    HOLDINGS_STATUS,
    SCAN_STATUS,
    SCHEMA,
    CoverageError,
    DesiredCadence,
)
from coverage_pipeline.months import Month
from coverage_pipeline.sensors import COVERAGE_SENSORS, CoverageSensor

DEFAULT_WEIGHTS: Mapping[str, float] = {"deficit": 0.4, "staleness": 0.3, "unmet": 0.2, "wait": 0.1}
"""Shares of the priority: how much is missing, how old the newest holding is, how much downloading would close, and the
longest run of days without a clear observation held."""

_NEEDED = ("unmet_supply", "ingestable_days", "check_days", "held_clear_days", "days_since_last_held")
GAP_INPUTS = (*_NEEDED, "scenes_count")
"""What ``compute_gap`` reads of a partition."""
_CODE = {name: np.uint8(code) for code, name in enumerate(ACTIONS)}


class GapError(CoverageError):
    """The gap cannot be computed from what is there."""


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights if they are the four of ``DEFAULT_WEIGHTS``, none negative, summing to 1; raises ``GapError`` if not."""
    if set(weights) != set(DEFAULT_WEIGHTS):
        raise GapError(f"weights must be {', '.join(DEFAULT_WEIGHTS)}; got {', '.join(weights) or 'none'}")
    if any(not w >= 0 for w in weights.values()) or not math.isclose(sum(weights.values()), 1.0, abs_tol=1e-6):
        raise GapError(f"weights must not be negative and sum to 1; got {dict(weights)}, sum {sum(weights.values()):g}")
    return {name: float(weights[name]) for name in DEFAULT_WEIGHTS}


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
        _gap,
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


def _gap(
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
    """Deficit, priority and action of arrays that broadcast against each other. The order of the table is the order here."""
    flies = ~np.isnan(desired)
    scope = in_scope & flies
    wanted = np.where(flies, desired, np.float32(0))
    held = np.where(not_held, np.uint32(0), held_clear_days)  # a sensor that is not in our holdings is a known zero
    known = held_known & scope
    missing = np.ceil(np.maximum(np.float32(0), wanted - daymask.observations(held)))
    deficit = np.where(known, missing, np.where(scope, np.nan, 0)).astype(np.float32)

    found = np.where(daymask.is_known(ingestable_days), daymask.observations(ingestable_days), 0)
    unclear = np.where(daymask.is_known(check_days), daymask.observations(check_days), 0)
    lacking = known & (missing > 0)
    action = np.select(
        [~scope, ~known, ~lacking, found > 0, unclear > 0, absence_counts & taskable, absence_counts],
        [_CODE[n] for n in ("out_of_scope", "unknown", "met", "ingest", "check", "task", "none")],
        _CODE["unknown"],
    ).astype(np.uint8)

    # Never held counts as fully stale, whether the lookback found nothing or the sensor is not in our holdings.
    stale = np.where(np.isnan(days_since) | not_held, 1.0, np.minimum(1.0, days_since / lookback_days))
    safe_missing = np.where(lacking, missing, 1)
    score = (
        weights["deficit"] * np.minimum(1.0, missing / np.where(lacking, wanted, 1))
        + weights["staleness"] * stale
        + weights["unmet"] * np.minimum(1.0, found / safe_missing)
        + weights["wait"] * daymask.longest_wait(held, month_days) / month_days
    )
    priority = np.where(lacking, score, 0.0)
    priority = np.where(action == _CODE["unknown"], np.nan, priority).astype(np.float32)
    return deficit, priority, action
