"""Rows of a source of holdings made into a table with a declared schema; rows that cannot be placed are rejected with a reason.

Every source gives the same frame (``ROW_COLUMNS``). A row is *placed* where its time, footprint and sensor can be read.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.footprints import (
    EMPTY,
    LATITUDE,
    LONGITUDE,
    MISSING,
    NO_AREA,
    NOT_A_POLYGON,
    NOT_FINITE,
    area_km2,
    normalise_footprints,
)
from coverage_pipeline.scenes.scene_key import SceneIdentity, scene_identity
from coverage_pipeline.scenes.schema import TIME
from coverage_pipeline.sensors.registry import CoverageSensor, SceneFamily

ROW_COLUMNS = ("datetime", "sensor", "cloud", "scene_id", "geometry", "misplaced")
"""A source's frame: ``geometry`` is WKB in degrees of longitude and latitude, or None; ``misplaced`` the reason why a source could not
bring a geometry into degrees, None elsewhere."""

HOLDINGS_SCHEMA = pa.schema(
    [
        pa.field("holding", pa.string(), nullable=False),  # names the row within its file: the scene id, or the row's number
        pa.field("scene_id", pa.string()),
        pa.field("scene_key", pa.string()),  # null: no id, or one that the rule of the sensor's family cannot read
        pa.field("rank", pa.string()),  # the largest is the newest product of its scene, as for a catalogue's copies
        pa.field("datetime", TIME, nullable=False),  # the row's own time
        pa.field("pass_time", TIME, nullable=False),  # its month and day, where no scene of the catalogue says otherwise
        pa.field("date_only", pa.bool_(), nullable=False),  # the source gives a day without a time
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("cloud", pa.float64()),  # percent; null: not known
        pa.field("in_month", pa.bool_(), nullable=False),  # whether pass_time lies in the month; false: in the margin around it
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)
LAST_SCHEMA = pa.schema([pa.field("datetime", TIME, nullable=False), pa.field("geometry", pa.binary(), nullable=False)])
"""Per distinct footprint the last instant held."""
REJECTED_HOLDINGS_SCHEMA = pa.schema(
    [
        pa.field("scene_id", pa.string()),
        pa.field("datetime", pa.string()),  # as the source wrote it
        pa.field("sensor", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

WARN_REJECTED = 0.01
"""Share of rejected rows beyond which a warning says so (design section 4, issue "Held means held")."""
MOST_REJECTED = 0.2
"""Share of rejected rows beyond which the holdings are refused."""

NO_TIME = "no time"
NO_SENSOR = "no sensor"
UNREADABLE_TIME = "time cannot be read"
CURVED = "geometry is curved"
UNREADABLE_GEOMETRY = "geometry cannot be read"
OTHER_TIME = "its time and the time in its id are more than two days apart"
MOST_APART = dt.timedelta(days=2)
"""How far a row's own time may lie from the one in its id: an id may state a day only, and a time may be local."""

TOO_SMALL = "footprint smaller than a hectare"
_LEAST_KM2 = 0.01  # degrees taken for metres shrink a scene to less than a square metre; no chip of imagery is that small

_HINTS: Mapping[str, str] = {
    NO_TIME: "COVERAGE_TILES_DATE names the column of acquisition times",
    UNREADABLE_TIME: "COVERAGE_TILES_DATE names a column of timestamps, dates or ISO 8601 text",
    OTHER_TIME: "COVERAGE_TILES_DATE must name the acquisition time, not the time of download",
    NO_SENSOR: "COVERAGE_TILES_SENSOR names the column of sensors",
    MISSING: "COVERAGE_TILES_GEOM names the column of footprints",
    CURVED: "store its straight form (PostGIS: ST_CurveToLine)",
    LATITUDE: "are these metres, or degrees in the order latitude, longitude? State the CRS (PostGIS: the SRID)",
    LONGITUDE: "are these metres? State the CRS (PostGIS: the SRID)",
    TOO_SMALL: "are these degrees, and the CRS (PostGIS: the SRID) one of metres?",
    NOT_FINITE: "is the CRS (PostGIS: the SRID) the one that the coordinates are in?",
    NOT_A_POLYGON: "footprints are polygons",
    EMPTY: "footprints are polygons",
    NO_AREA: "footprints are polygons",
}
"""What to do about a reason."""


class HoldingsRefused(PlannerError):
    """The holdings are there but do not fit the settings: wrong password, table, column or file. This is an error, not *off*."""


@dataclass
class PlacedRows:
    """Rows of a source, split into those that could be placed and those that could not."""

    table: pa.Table
    """``HOLDINGS_SCHEMA``; ``in_month`` true throughout."""
    rejected: pa.Table
    """``REJECTED_HOLDINGS_SCHEMA``."""
    zoneless: int = 0
    """Rows whose time carries no zone: taken as UTC."""
    reasons: dict[str, int] = field(default_factory=dict)
    """How many rows were rejected, by reason."""


def same_spelling(text: str) -> str:
    """A name without case, spaces and punctuation: two names that agree in it are one name, spelt otherwise."""
    return re.sub(r"[\W_]+", "", text).casefold()


def as_utc(values: pd.Series[Any]) -> pd.Series[Any]:
    """Times as UTC, ``datetime64[us, UTC]``; a time without zone is taken as UTC, text must be ISO 8601, anything else becomes NaT.

    A month or a year as text is no time: pandas would make it the first of its days.

    Raises ``HoldingsRefused`` for a column of numbers: pandas would take them as nanoseconds since 1970, and every month would be empty.
    """
    given = values.dropna()
    if pd.api.types.is_numeric_dtype(given) or (given.dtype == object and any(isinstance(v, Number) for v in given)):
        if len(given):
            raise HoldingsRefused(f"the holdings' date column holds numbers such as {given.iloc[0]}, not times; set COVERAGE_TILES_DATE")
        values = pd.Series(pd.NaT, index=values.index)
    if values.dtype == object or isinstance(values.dtype, pd.StringDtype):
        values = values.map(lambda v: None if isinstance(v, str) and len(v.strip()) < len("20250131") else v)
    try:
        read = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
    except (ValueError, TypeError) as error:
        raise HoldingsRefused(f"the holdings' date column holds something that is no time: {error}; set COVERAGE_TILES_DATE") from None
    return read.astype("datetime64[us, UTC]")


def localised(values: pd.Series[Any], zone: str | None) -> pd.Series[Any]:
    """Times that carry no zone as UTC instants, taken as local times of ``zone`` (IANA); the others, dates and null as they are.

    Of an hour that comes twice the earlier is taken, one that a clock skips is moved to its end. None leaves all as they are.
    """
    naive = (_has_no_zone(values) & values.notna().to_numpy()) if zone is not None else np.zeros(len(values), bool)
    if not naive.any():
        return values
    local = pd.to_datetime(values[naive], format="ISO8601", errors="coerce").dt.tz_localize(None)
    utc = local.dt.tz_localize(zone, ambiguous=np.ones(len(local), bool), nonexistent="shift_forward").dt.tz_convert("UTC")
    if naive.all():
        return utc
    out = values.astype(object)
    readable = utc.notna()  # what cannot be read stays, and is rejected with its own words
    out[utc.index[readable]] = utc[readable].map(lambda when: when.to_pydatetime())
    return out


def is_date(values: pd.Series[Any]) -> NDArray[np.bool_]:
    """Which values are a day without a time, as a date or as text; bool, one a value."""
    if not (values.dtype == object or isinstance(values.dtype, pd.StringDtype)):
        return np.full(len(values), str(values.dtype).startswith("date32"))
    return np.array(
        [
            len(v.strip()) <= len("2025-01-31") if isinstance(v, str) else isinstance(v, dt.date) and not isinstance(v, dt.datetime)
            for v in values
        ],
        bool,
    )


def _has_no_zone(values: pd.Series[Any]) -> NDArray[np.bool_]:
    """Which values are a time of day without a zone."""
    if pd.api.types.is_datetime64_any_dtype(values.dtype) or str(values.dtype).startswith("timestamp"):
        return np.full(len(values), "UTC" not in str(values.dtype) and ", " not in str(values.dtype) and "tz=" not in str(values.dtype))
    zoned = re.compile(r"(?:[zZ]|[+-]\d{2}:?(?:\d{2})?)$")
    return np.array(
        [
            (isinstance(v, dt.datetime) and v.tzinfo is None)
            or (isinstance(v, str) and len(v.strip()) > len("2025-01-31") and not zoned.search(v.strip()))
            for v in values
        ],
        bool,
    )


def read_wkb(values: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Geometries of WKB (bytes or None, 1-D object), and why one cannot be read (None where it can): object arrays of the same length.

    A curved geometry, which shapely has no type for, is a reason for its row alone.
    """
    values = _none_for_nan(values)
    reasons = np.full(len(values), None, dtype=object)
    try:
        shapes = shapely.from_wkb(values, on_invalid="ignore")
    except NotImplementedError:  # one curve ends the reading of all
        shapes = np.full(len(values), None, dtype=object)
        for k, value in enumerate(values):
            try:
                shapes[k] = shapely.from_wkb(value, on_invalid="ignore")
            except NotImplementedError:
                reasons[k] = CURVED
    unreadable = shapely.is_missing(shapes) & np.array([v is not None for v in values], bool) & (reasons == None)  # noqa: E711
    reasons[unreadable] = UNREADABLE_GEOMETRY
    return shapes, reasons


def _none_for_nan(values: NDArray[np.object_]) -> NDArray[np.object_]:
    """A copy in which what is missing is None: pandas groups and joins with NaN."""
    out = values.copy()
    out[pd.isna(values)] = None
    return out


def usable_footprints(values: NDArray[np.object_], misplaced: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Footprints of WKB in degrees, None where unusable, and the reasons (None where usable); ``misplaced`` goes before other reasons."""
    read, unreadable = read_wkb(values)
    misplaced = _none_for_nan(misplaced)
    shapes, reasons = normalise_footprints(read)
    usable = np.flatnonzero(~shapely.is_missing(shapes))
    reasons[usable[area_km2(shapes[usable]) < _LEAST_KM2]] = TOO_SMALL
    reasons = np.where(unreadable != None, unreadable, reasons)  # noqa: E711 (elementwise)
    reasons = np.where(misplaced != None, misplaced, reasons)  # noqa: E711
    shapes[reasons != None] = None  # noqa: E711
    return shapes, reasons


def place_rows(frame: pd.DataFrame, sensor: CoverageSensor | None) -> PlacedRows:
    """Rows of a source (``ROW_COLUMNS``; a missing ``misplaced`` is None throughout) as ``HOLDINGS_SCHEMA``, and the rejected ones.

    ``sensor`` says which rule reads the ids; without one an id is its own key.
    """
    frame = frame.reset_index(drop=True)
    misplaced = frame["misplaced"].to_numpy(dtype=object) if "misplaced" in frame else np.full(len(frame), None, dtype=object)
    shapes, reasons = usable_footprints(frame["geometry"].to_numpy(dtype=object), misplaced)
    times = as_utc(frame["datetime"])
    given = frame["datetime"].notna().to_numpy()
    reasons = np.where(given & times.isna().to_numpy(), UNREADABLE_TIME, reasons)
    reasons = np.where(given, reasons, NO_TIME)
    date_only = is_date(frame["datetime"])
    family = sensor.family if sensor else "other"
    ids = [_as_id(v) for v in frame["scene_id"]]
    # A date has no time of day from which a pass could be counted back.
    own_times = [None if day or pd.isna(when) else when.to_pydatetime() for when, day in zip(times, date_only, strict=True)]
    identities = [_identity(family, v, own) for v, own in zip(ids, own_times, strict=True)]
    apart = np.array(
        [one.stated is not None and abs(one.stated - when) > MOST_APART for one, when in zip(identities, times, strict=True)], bool
    )
    reasons = np.where((reasons == None) & apart, OTHER_TIME, reasons)  # noqa: E711 (elementwise)
    usable = np.array([reason is None for reason in reasons], bool)
    kept = frame[usable].reset_index(drop=True)
    percent = kept["cloud"].map(lambda v: None if isinstance(v, bool) else v)  # a flag is no percentage
    cloud = pd.to_numeric(percent, errors="coerce").astype("float64")
    cloud = cloud.where(cloud.between(0, 100))
    chosen = np.flatnonzero(usable)
    table = pa.table(
        {
            "holding": _names([ids[k] for k in chosen]),
            "scene_id": pa.array([ids[k] for k in chosen], pa.string()),
            "scene_key": pa.array([identities[k].key for k in chosen], pa.string()),
            "rank": pa.array(["\x1f".join(identities[k].rank) for k in chosen], pa.string()),
            "datetime": pa.array(times[usable], TIME),
            "pass_time": pa.array([identities[k].pass_time or times[k] for k in chosen], TIME),
            "date_only": date_only[usable],
            "sensor": pa.array(kept["sensor"].astype(str), pa.string()),
            "cloud": pa.array(cloud.to_numpy(), pa.float64(), from_pandas=True),
            "in_month": np.full(len(kept), True),
            "geometry": pa.array(shapely.to_wkb(shapes[usable]), pa.binary()),
        },
        schema=HOLDINGS_SCHEMA,
    )
    rejected = rejected_rows(frame[~usable], [str(reason) for reason in reasons[~usable]])
    return PlacedRows(table, rejected, int(_has_no_zone(kept["datetime"]).sum()), dict(Counter(rejected["reason"].to_pylist())))


_SLACK = dt.timedelta(hours=1)  # a tile's own time follows its datatake by up to 27 minutes


def _identity(family: SceneFamily, scene_id: str | None, own_time: dt.datetime | None) -> SceneIdentity:
    """What an id says; where the row's own time is hours from the time that the id states (local time, say), the id's time goes before."""
    if not scene_id:
        return SceneIdentity(None)
    one = scene_identity(family, scene_id, own_time=own_time)
    if one.stated is not None and own_time is not None and abs(one.stated - own_time) > _SLACK:
        return scene_identity(family, scene_id, own_time=one.stated)
    return one


def rejected_rows(frame: pd.DataFrame, reasons: list[str]) -> pa.Table:
    """Rows of a source as ``REJECTED_HOLDINGS_SCHEMA``, each with its reason."""
    return pa.table(
        {
            "scene_id": pa.array([_as_id(v) for v in frame["scene_id"]], pa.string()),
            "datetime": pa.array([None if pd.isna(v) else str(v) for v in frame["datetime"]], pa.string()),
            "sensor": pa.array([None if pd.isna(v) else str(v) for v in frame["sensor"]], pa.string()),
            "reason": pa.array(reasons, pa.string()),
        },
        schema=REJECTED_HOLDINGS_SCHEMA,
    )


def same_rows(table: pa.Table) -> NDArray[np.int64]:
    """For each row of a ``HOLDINGS_SCHEMA`` table the row that stands for its time and footprint: itself where these come once.

    Rows of one sensor, time and footprint are one holding, whatever their ids (design section 4): an index has rows twice where a scene was
    registered again. The row with a key stands for them, then one with a cloud, then the first. Where the time is a date only, two passes
    of one day look alike: different keys are different holdings there.
    """
    n = table.num_rows
    stands = np.arange(n)
    times = table["datetime"].cast(pa.int64()).to_numpy()
    again = pd.Series(times).duplicated(keep=False).to_numpy()
    if again.any():
        rows = np.flatnonzero(again)
        poor = ~np.column_stack([table[name].is_valid().to_numpy()[rows] for name in ("scene_key", "cloud")])
        rows = rows[np.lexsort((rows, poor[:, 1], poor[:, 0]))]
        shapes = shapely.normalize(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)[rows]))
        sensor = table["sensor"].to_pandas()[rows].to_numpy()
        key = table["scene_key"].to_pandas()[rows].to_numpy(dtype=object)
        day = table["date_only"].to_numpy(zero_copy_only=False)[rows]
        frame = pd.DataFrame({"time": times[rows], "day": day, "shape": shapely.to_wkb(shapes), "sensor": sensor, "row": rows, "key": key})
        alike = ["time", "day", "shape", "sensor"]  # a date is not the instant at which its day begins
        key_of_alike = frame["key"].fillna(frame.groupby(alike, sort=False)["key"].transform("first"))
        frame["key"] = key_of_alike.where(frame["day"], "").fillna("")
        stands[rows] = frame.groupby([*alike, "key"], sort=False)["row"].transform("first").to_numpy()
    return stands


def in_words(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts, the most frequent first, and what to do about that one."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    hint = next((_HINTS[reason] for reason, _ in ordered if reason in _HINTS), "")
    return ", ".join(f"{count:,} × {reason}" for reason, count in ordered) + (f" ({hint})" if hint else "")


def judge_rejected(reasons: Mapping[str, int], rows: int, label: str) -> str:
    """A warning in words where many of ``rows`` rows (those rejected among them) could not be placed, else nothing.

    Raises ``HoldingsRefused`` where more than a fifth could not, or none could: what could not be placed would look like a gap.
    """
    rejected = sum(reasons.values())
    if rejected == 0 or rows == 0:
        return ""
    lines = f"{rejected:,} of {rows:,} {label} cannot be placed: {in_words(reasons)}"
    if rejected >= rows or rejected > MOST_REJECTED * rows:
        raise HoldingsRefused(f"{lines}; what cannot be placed would look like a gap, so nothing was written. Mend these rows first")
    return lines if rejected > WARN_REJECTED * rows else ""


def _names(ids: list[str | None]) -> list[str]:
    """A name for each row that no other has: its id, or its number."""
    counts = Counter(ids)
    alone = [v is not None and counts[v] == 1 and not v.startswith("row ") for v in ids]
    return [f"row {k}" if v is None else v if alone[k] else f"{v} (row {k})" for k, v in enumerate(ids)]


def _as_id(value: Any) -> str | None:
    """A scene id as text, as the database gives it; None where there is none."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None
