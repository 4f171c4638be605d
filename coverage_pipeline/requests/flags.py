"""From a gap to a request: which action, who may be pointed, and a local record of what was asked for."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import shapely
import xarray as xr
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.months import UTC, as_date
from coverage_pipeline.requests.errors import RequestError
from coverage_pipeline.requests.store import NewRequest, RequestStore
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor, SensorError

RequestKind = Literal["ingest", "task", "none"]


def _sensor(key: str, sensors: Mapping[str, CoverageSensor]) -> CoverageSensor:
    if key not in sensors:
        raise SensorError(f"unknown sensor {key!r}: known are {', '.join(sorted(sensors))}")
    return sensors[key]


def request_kind(sensor: str, *, unmet_supply: int, sensors: Mapping[str, CoverageSensor] = COVERAGE_SENSORS) -> RequestKind:
    """Which request closes the gap at one place: ``ingest`` where clear scenes exist that we lack, else ``task`` for a sensor
    that can be pointed, else ``none`` (a systematic sensor: wait). The cube's ``action`` knows more; this serves single places.

    Raises ``SensorError`` for an unknown sensor and ``ValueError`` for a supply that is not known (negative).
    """
    known = _sensor(sensor, sensors)
    if unmet_supply < 0:
        raise ValueError(f"unmet_supply {unmet_supply} means not known: no request follows from it")
    if unmet_supply > 0:
        return "ingest"
    return "task" if known.taskable else "none"


def taskable_mask(ds: xr.Dataset, sensors: Sequence[str], known: Mapping[str, CoverageSensor] = COVERAGE_SENSORS) -> xr.DataArray:
    """Whether each of ``sensors`` can be pointed, as booleans over the dataset's cells: ``(sensor, lat, lon)``, of H3 cells
    ``(sensor, cells)``.
    """
    flags = xr.DataArray(
        [_sensor(key, known).taskable for key in sensors], dims="sensor", coords={"sensor": list(sensors)}, name="taskable"
    )
    dims = ("cells",) if "cells" in ds.dims else ("lat", "lon")
    if missing := [dim for dim in dims if dim not in ds.dims]:
        raise RequestError(f"the dataset has no dimension {missing[0]!r}: give a cube as open_coverage opens it")
    coords = {name: ds[name] for name in ("lat", "lon", "cell_ids") if name in ds.coords and set(ds[name].dims) <= set(dims)}
    field = xr.DataArray(np.ones([ds.sizes[dim] for dim in dims], bool), dims=dims, coords=coords)
    return (flags & field).rename("taskable")


def new_request(
    geometry: BaseGeometry | Mapping[str, Any], window: tuple[dt.date, dt.date], sensor: str, kind: RequestKind,
    sensors: Mapping[str, CoverageSensor] = COVERAGE_SENSORS, *, today: dt.date | None = None,
) -> NewRequest:  # fmt: skip
    """What is asked for, checked, with the id that follows from it; nobody asks for it yet, and nothing is recorded.

    ``geometry`` is a shapely geometry or GeoJSON in EPSG:4326, ``window`` its first and last day. Raises ``RequestError`` for ``none``, a
    window that is reversed or, for ``task``, not wholly in the future, and a geometry that is empty; ``SensorError`` for a sensor that is
    unknown.
    """
    known = _sensor(sensor, sensors)
    if kind not in get_args(RequestKind) or kind == "none":
        raise RequestError(f"kind {kind!r} asks for nothing: use 'ingest' or 'task'")
    if kind == "task" and not known.taskable:
        raise RequestError(f"{sensor} cannot be pointed: it images everything on fixed orbits; wait, or ingest what exists")
    if kind == "ingest" and not known.available_sources:
        raise RequestError(f"{sensor} has no public catalogue to ingest from")
    first, last = as_date(window[0]), as_date(window[1])
    if last < first:
        raise RequestError(f"the window is reversed: {first} is after {last}")
    now = today or dt.datetime.now(UTC).date()
    if kind == "task" and first <= now:
        raise RequestError(f"nobody can task the past: the window must start after {now}, not on {first}")
    shape = _canonical(geometry if isinstance(geometry, BaseGeometry) else _from_geojson(geometry))
    text = shapely.to_geojson(shape)
    parts = (sensor, kind, first.isoformat(), last.isoformat(), text)
    request_id = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
    return NewRequest(request_id, sensor, kind, first, last, text)


def flag_for_request(
    geometry: BaseGeometry | Mapping[str, Any],
    window: tuple[dt.date, dt.date],
    sensor: str,
    kind: RequestKind,
    *,
    store: RequestStore | Path | str,
    sensors: Mapping[str, CoverageSensor] = COVERAGE_SENSORS,
    today: dt.date | None = None,
    who: str = "",
    note: str = "",
    wanted_cloud: float | None = None,
    scenes: Sequence[str] = (),
) -> str:
    """Record an intent in ``store`` (or the SQLite file of that path); returns its id. Nothing is sent anywhere.

    ``geometry`` is a shapely geometry or GeoJSON in EPSG:4326, ``window`` its first and last day, ``wanted_cloud`` the percentage that a
    scene must be below, ``scenes`` the keys of the scenes to ingest. The same request recorded twice is one row, but where the first was
    given up. Raises what ``new_request`` raises, and ``RequestError`` for a store that cannot be written.
    """
    new = replace(
        new_request(geometry, window, sensor, kind, sensors, today=today), who=who, note=note, wanted_cloud=wanted_cloud, scenes=scenes
    )
    return (store if isinstance(store, RequestStore) else RequestStore.at(store)).add(new).id


def _canonical(shape: BaseGeometry) -> BaseGeometry:
    """One spelling of a place: flat, rounded to 1e-7° (a centimetre), in normal order, so that it is one request however drawn."""
    flat = shapely.force_2d(shape)
    lon, lat = shapely.get_coordinates(flat).T
    # ±360: an outline across the antimeridian may run on past ±180.
    if not ((np.abs(lon) <= 360).all() and (np.abs(lat) <= 90).all()):
        raise RequestError("the geometry is not in degrees of longitude and latitude (EPSG:4326)")
    try:
        flat = shapely.normalize(shapely.set_precision(flat, 1e-7))
    except shapely.errors.GEOSException as error:
        raise RequestError(f"the geometry is not valid: {shapely.is_valid_reason(shape)}") from error
    if flat.is_empty:
        raise RequestError("the geometry is empty: nothing to request")
    return flat


def _from_geojson(geometry: Mapping[str, Any]) -> BaseGeometry:
    try:
        return shapely.geometry.shape(geometry)
    except (ValueError, TypeError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
        raise RequestError(f"the geometry is not GeoJSON: {error}") from error


def flagged_requests(store: RequestStore | Path | str) -> list[dict[str, Any]]:
    """Every recorded request, oldest first; empty where none was ever recorded. Raises ``RequestError`` where the store can't be read."""
    found = (store if isinstance(store, RequestStore) else RequestStore.at(store)).all()
    return [
        {
            "id": one.id,
            "created": one.created,
            "sensor": one.sensor,
            "kind": one.kind,
            "window_start": one.window_start.isoformat(),
            "window_end": one.window_end.isoformat(),
            "geometry": json.dumps(one.geometry),
            "state": one.state,
            "who": one.who,
            "note": one.note,
        }
        for one in found
    ]


def submit_request(provider: str, geometry: BaseGeometry | Mapping[str, Any], window: tuple[dt.date, dt.date]) -> None:
    """Raises ``NotImplementedError`` that says what to do: EMIT, EnMAP and PRISMA take requests in portals.

    A provider that ``[tasking."host"]`` declares with a STAPI address is ordered from with ``stapi.send_request`` (``coverage-planner
    requests order``), which needs a recorded request: an order without a record would be sent twice one day.
    """
    raise NotImplementedError(
        f"{provider} is not asked from here. Record the intent with flag_for_request, then order it: with coverage-planner requests order "
        'where [tasking."host"] declares its STAPI address, else in its own portal: EMIT at earth.jpl.nasa.gov/emit, EnMAP at '
        "planning.enmap.org, PRISMA at prisma.asi.it."
    )
