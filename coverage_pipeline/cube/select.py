"""One metric of an opened cube over a window, as one field."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from coverage_pipeline.cube.combine import UNKNOWN_RANK, combined, from_urgency, mean_of
from coverage_pipeline.cube.dataset import (
    READ_ATTEMPTS,
    axis_positions,
    is_current,
    months_of,
    opened_again,
    partition_values,
    query_partitions,
    stored_cube,
)
from coverage_pipeline.cube.read import decoded
from coverage_pipeline.cube.schema import (
    ACTIONS,
    AGGREGATIONS,
    GAP_VARIABLES,
    KNOWN_SHARES,
    METRICS,
    SCHEMA,
    CoverageError,
    CoverageQuery,
    CubeDamaged,
)
from coverage_pipeline.cube.selected_area import SelectedArea, selected_area
from coverage_pipeline.grid import daymask
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS

# Months of a window are read together while they are no larger than this.
_BYTES_AT_ONCE = 32 << 20


def select(ds: xr.Dataset, q: CoverageQuery, *, resolution: float | None = None) -> xr.DataArray:
    """One metric over the window's months, as ``(lat, lon)`` or ``(cells,)`` float32 (with ``time`` before them for ``scrub``).

    ``rate`` is the mean over the known months, ``total`` their sum, ``recent`` the latest known one, ``worst`` the worse
    direction for that metric, ``scrub`` every month. NaN where no month is known; the coordinate ``known_months`` says how
    many are. Several sensors become one by the metric's rule (``METRICS``): a cell's month is known where every sensor
    that has the metric at all is known there. ``action`` gives flag values (``ACTIONS``). The attribute ``provisional_months`` counts the
    months whose scan is provisional: a 0 of such a month means "none found yet", not "none". Only what is asked for is read. A
    ``bbox`` across the antimeridian (west > east) gives its cells from west to east, so that ``lon`` falls once.

    ``resolution``, in degrees, lets a coarser level of the cube answer: the coarsest whose cells are not larger. There, counts and
    means are means over the known cells by area, deficit and priority the largest, actions the most urgent, and the coordinate
    ``known_share`` is the share of the area, over the window's months, that is known. Without such a level (metrics derived from
    day masks, H3 cells, a dataset that is not the cube as opened) the cells themselves answer.

    Should a partition be rewritten meanwhile, the selection is made again, so that old and new are never mixed.
    Raises ``CoverageError`` for an unknown metric, sensor or aggregation, or a window or box outside the cube.
    """
    current = ds
    for _ in range(READ_ATTEMPTS):
        try:
            result = _select(current, q, resolution)
        except (KeyError, IndexError, ValueError, RuntimeError, FileNotFoundError, CubeDamaged) as error:
            if is_current(current, q):
                _name_damage(current, q, error)
                raise
        else:
            if is_current(current, q):
                return result
        current = opened_again(current)
    raise CoverageError("the cube is being rewritten faster than it can be read; try again when the runs have ended")


def _name_damage(ds: xr.Dataset, q: CoverageQuery, error: Exception) -> None:
    """Raise ``CubeDamaged`` where a chunk that a selection needs cannot be read; nothing where the fault is another."""
    stored = stored_cube(ds)
    if stored is None or isinstance(error, CubeDamaged) or q.metric not in METRICS:
        return
    sensors, months = query_partitions(ds, q)
    for sensor, month in itertools.product(sensors, months):
        at = stored.sensors.index(sensor), stored.months.index(month)
        stored.arrays[METRICS[q.metric].variable(q.metric)].refuse_damage(at)


def _check(ds: xr.Dataset, q: CoverageQuery) -> list[Month]:
    if q.metric not in METRICS or METRICS[q.metric].variable(q.metric) not in ds:
        available = ", ".join(name for name, metric in METRICS.items() if metric.variable(name) in ds)
        raise CoverageError(f"unknown metric {q.metric!r}: choose one of {available}")
    if METRICS[q.metric].layer != q.layer:
        raise CoverageError(f"metric {q.metric!r} belongs to the layer {METRICS[q.metric].layer!r}, not {q.layer!r}")
    if q.aggregation not in AGGREGATIONS:
        raise CoverageError(f"unknown aggregation {q.aggregation!r}: choose one of {', '.join(AGGREGATIONS)}")
    if q.metric == "action" and q.aggregation in ("rate", "total"):
        raise CoverageError(f"actions have no {q.aggregation}: choose recent, worst or scrub")
    sensors = {str(s) for s in ds["sensor"].values}
    unknown = [s for s in q.sensors if s not in sensors]
    if unknown or not q.sensors:
        raise CoverageError(f"choose sensors of the cube ({', '.join(sorted(sensors))}); not there: {', '.join(unknown) or 'none chosen'}")
    weights = ("scenes_count", "cloud_unknown_scene_count")
    if METRICS[q.metric].across_sensors == "mean" and len(set(q.sensors)) > 1 and (missing := [name for name in weights if name not in ds]):
        raise CoverageError(
            f"{q.metric} of several sensors is weighted by their scenes of known cloud, and the dataset lacks {' and '.join(missing)}: "
            "add them, or choose one sensor"
        )
    _, chosen = query_partitions(ds, q)
    if not chosen:
        months = months_of(ds)
        raise CoverageError(f"the window {q.t0}..{q.t1} holds no month of the cube ({months[0]}..{months[-1]})")
    return chosen


def _applies(ds: xr.Dataset, metric: str, sensor: str, months: Sequence[Month]) -> list[bool]:
    """Whether a sensor has that metric at all in each month: PRISMA has no catalogue, Sentinel-2 may not be held."""
    lacking = []
    if METRICS[metric].needs in ("catalogue", "both"):
        lacking.append(("scan_status", SCAN_STATUS.index("not_applicable")))
    if METRICS[metric].layer == "acquired":  # for the gap, a sensor that is not in our holdings is a known zero
        lacking.append(("holdings_status", HOLDINGS_STATUS.index("not_held")))
    applies = np.ones(len(months), bool)
    for status, code in lacking:
        if status in ds:
            applies &= partition_values(ds, status, axis_positions(ds, [sensor], months))[0] != code
    return [bool(one) for one in applies]


def _provisional_months(ds: xr.Dataset, q: CoverageQuery, months: Sequence[Month]) -> int:
    """Months of the window in which the scan of a sensor that the metric needs is provisional: a zero there is no known none."""
    if METRICS[q.metric].needs == "holdings" or "scan_status" not in ds:
        return 0
    status = partition_values(ds, "scan_status", axis_positions(ds, list(dict.fromkeys(q.sensors)), months))
    return int((status == SCAN_STATUS.index("provisional")).any(axis=0).sum())


def _fields(
    ds: xr.Dataset, place: SelectedArea, name: str, metric: str, sensor: str, months: Sequence[Month]
) -> Iterator[NDArray[Any] | None]:
    """A variable of a sensor month by month, decoded; None where the sensor does not have the metric at all that month."""
    applies = _applies(ds, metric, sensor, months)
    if place.stored is None:
        for month, flies in zip(months, applies, strict=True):
            one = ds[name].sel(sensor=sensor, time=month.to_datetime64())
            yield np.concatenate([one.isel(dict(zip(place.dims, p, strict=True))).values for p in place.within], -1) if flies else None
        return
    stored = place.stored
    array = stored.arrays[name if place.group is None else f"{place.group}/{name}"]
    s, times = stored.sensors.index(sensor), [stored.months.index(m) for m in months]
    places = axis_positions(ds, [sensor], months)
    revision, gap_revision = (partition_values(ds, n, places)[0] for n in ("revision", "gap_revision"))
    of_gap = KNOWN_SHARES.get(name, (name,))[0] in GAP_VARIABLES  # what an overview says is known of a stale gap is stale, too
    whole = (revision != 0) & ((gap_revision == revision) | (not of_gap))
    most = max(1, _BYTES_AT_ONCE // (math.prod(place.shape) * array.dtype.itemsize))
    i = 0
    while i < len(months):
        if not (applies[i] and whole[i]):
            yield _nothing(array.dtype, place.shape) if applies[i] else None
            i += 1
            continue
        n = 1  # months that follow each other are read together
        while n < most and i + n < len(months) and applies[i + n] and whole[i + n] and times[i + n] == times[i] + n:
            n += 1
        pieces = [array.outer((s, slice(times[i], times[i] + n), *piece)) for piece in place.within]
        block = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)
        for values in block:
            yield decoded(values)
        i += n


def _nothing(dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A field that is not known, decoded."""
    if dtype == np.uint32:
        return np.full(shape, daymask.UNKNOWN)
    return np.zeros(shape, dtype) if dtype == np.uint8 else np.full(shape, np.nan, np.float32)


def _by_month(
    ds: xr.Dataset, q: CoverageQuery, place: SelectedArea, months: Sequence[Month]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Each month of the metric, its sensors combined, NaN where it has no value; and where it is known."""
    metric = METRICS[q.metric]
    sensors = list(dict.fromkeys(q.sensors))
    # A cell without a scene has no mean cloud and was looked at all the same.
    of_several = metric.across_sensors == "mean" and len(sensors) > 1
    by_scenes = q.metric == "mean_scene_cloud_pct" and (of_several or "scenes_count" in ds)
    names = [metric.variable(q.metric), *(["scenes_count"] if by_scenes else []), *(["cloud_unknown_scene_count"] if of_several else [])]
    streams = [[_fields(ds, place, name, q.metric, s, months) for s in sensors] for name in names]
    for month, *by_name in zip(months, *(zip(*stream, strict=True) for stream in streams), strict=True):
        # A sensor lacks all of them or none: they have the metric's layer.
        fields, *counts = [[f for f in by_sensor if f is not None] for by_sensor in by_name]
        if of_several and len(fields) > 1:
            values = mean_of(fields, counts[0], counts[1], place.shape)
        else:
            values = combined(metric, q.metric, month, fields, place.shape)
        known = ~np.isnan(values)
        if q.metric == "action":
            # The most urgent action is shown, but the cell's month is known only where every sensor's action is.
            known &= np.logical_and.reduce([f != ACTIONS.index("unknown") for f in fields]) if fields else False
        elif by_scenes and fields:
            known = ~np.isnan(combined(METRICS["scenes_count"], "scenes_count", month, counts[0], place.shape))
        yield values, known


def _select(ds: xr.Dataset, q: CoverageQuery, resolution: float | None = None) -> xr.DataArray:
    months = _check(ds, q)
    place = selected_area(ds, q, resolution)
    metric = METRICS[q.metric]
    worst = np.fmax if metric.worse == "high" else np.fmin
    known_months, count = np.zeros(place.shape, np.int16), np.zeros(place.shape, np.int16)
    frames: list[NDArray[np.float32]] = []
    result = np.full(place.shape, 0 if q.aggregation in ("rate", "total") else np.nan, np.float32)
    for values, known in _by_month(ds, q, place, months):
        is_known = ~np.isnan(values)
        known_months += known
        count += is_known
        match q.aggregation:
            case "scrub":
                frames.append(values)
            case "recent":
                newer = is_known & (values != UNKNOWN_RANK) if q.metric == "action" else known & is_known
                np.copyto(result, values, where=newer | np.isnan(result))
            case "worst":
                result = worst(result, values)
            case _:
                np.add(result, values, out=result, where=is_known)
    if q.aggregation in ("rate", "total"):
        result[count == 0] = np.nan
    if q.aggregation == "rate":
        np.divide(result, count, out=result, where=count > 0)
    data = np.stack(frames) if q.aggregation == "scrub" else result
    if q.metric == "action":
        data = from_urgency(data)
    dims = place.dims
    coords = dict(place.coords)
    coords["known_months"] = (dims, known_months, {"long_name": "months of the window that are known"})
    if place.group is not None:
        coords["known_share"] = (dims, _known_share(ds, q, place, months), {"long_name": "share of area and window that is known"})
    if q.aggregation == "scrub":
        dims = ("time", *dims)
        coords["time"] = np.array([m.to_datetime64() for m in months])
    attrs = {
        "long_name": metric.title if metric.mask else SCHEMA[q.metric].long_name,
        "units": "1" if metric.mask else SCHEMA[q.metric].units or "1",
        "unit_in_words": f"{metric.unit} a month" if q.aggregation == "rate" and metric.across_sensors in ("sum", "or") else metric.unit,
        "layer": q.layer,
        "aggregation": q.aggregation,
        "sensors": ", ".join(q.sensors),
        "months": len(months),
        "provisional_months": _provisional_months(ds, q, months),
        "window": f"{months[0]}..{months[-1]}",
    }
    return xr.DataArray(data, coords=coords, dims=dims, name=q.metric, attrs=attrs)


def _known_share(ds: xr.Dataset, q: CoverageQuery, place: SelectedArea, months: Sequence[Month]) -> NDArray[np.float32]:
    """Share of the area of a level's cells that is known, over months; of several sensors, of the one least known."""
    of = {"acquired": "held_known", "available": "available_known"}.get(
        q.layer, "unmet_known" if q.metric == "unmet_supply" else "gap_known"
    )
    streams = [_fields(ds, place, of, q.metric, sensor, months) for sensor in dict.fromkeys(q.sensors)]
    share = np.zeros(place.shape, np.float32)
    for both in zip(*streams, strict=True):
        known = [np.nan_to_num(s) for s in both if s is not None]
        if known:
            share += np.minimum.reduce(known)
    return share / np.float32(len(months))
