"""One reading of a month of holdings: its rows, its rejected rows, and the doubts that go with them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from coverage_pipeline.holdings.config import HoldingsSettings
from coverage_pipeline.holdings.rows import (
    HOLDINGS_SCHEMA,
    LAST_SCHEMA,
    MOST_APART,
    NO_SENSOR,
    NO_TIME,
    REJECTED_HOLDINGS_SCHEMA,
    UNREADABLE_TIME,
    as_utc,
    is_date,
    judge_rejected,
    place_rows,
    rejected_rows,
    same_spelling,
    usable_footprints,
)
from coverage_pipeline.holdings.sources.base import HoldingsSource
from coverage_pipeline.months import NEIGHBOUR_MARGIN, Month
from coverage_pipeline.scenes.schema import TIME
from coverage_pipeline.sensors.registry import CoverageSensor

_DATE_MARGIN = dt.timedelta(days=1)
"""In place of ``NEIGHBOUR_MARGIN`` for holdings that carry a date only."""


@dataclass
class MonthReading:
    """One month of a source."""

    table: pa.Table = field(default_factory=HOLDINGS_SCHEMA.empty_table)
    last: pa.Table = field(default_factory=LAST_SCHEMA.empty_table)
    rejected: pa.Table = field(default_factory=REJECTED_HOLDINGS_SCHEMA.empty_table)
    last_known: bool = True
    """Whether ``last`` is known: an archive without a grouped question needs the extracts of all earlier months."""
    zoneless: int = 0
    warnings: list[str] = field(default_factory=list)

    def notes(self, rows: int, duplicates: int) -> list[str]:
        """What a person should know of the reading that is no warning."""
        lines = []
        if self.zoneless:
            lines.append(f"{self.zoneless:,} of {self.table.num_rows:,} times carry no zone: UTC assumed")
        if not self.last_known:
            lines.append("when a place was last held before this month is not known: extracts of earlier months are missing")
        if duplicates:
            lines.append(f"{duplicates:,} of {rows:,} rows repeat another row's time and footprint: each is one holding")
        if self.rejected.num_rows:
            lines.append(f"{self.rejected.num_rows:,} rows are rejected; they and the reasons are in the rejected table beside the extract")
        return lines


def read_month_of(source: HoldingsSource, sensor: CoverageSensor, satellite: str, month: Month, wanted: HoldingsSettings) -> MonthReading:
    margin = max(dt.timedelta(seconds=wanted.match_tolerance_seconds), NEIGHBOUR_MARGIN)
    # Holdings with an id are looked for as far around the month as their own time may lie from the one in the id.
    first, end = month.start - MOST_APART, month.end + MOST_APART

    def is_near(frame: pd.DataFrame) -> NDArray[np.bool_]:
        when = as_utc(frame["datetime"])

        def within(around: dt.timedelta) -> NDArray[np.bool_]:
            return np.asarray((when >= month.start - around) & (when < month.end + around), bool)

        return np.where(is_date(frame["datetime"]), within(max(margin, _DATE_MARGIN)), within(margin))

    frame = source.rows(first, end, [satellite])
    near = is_near(frame)
    further = place_rows(frame[~near], sensor).table
    frame = frame[near]
    placed = place_rows(frame, sensor)
    table = _together(placed.table, further.filter(further["scene_key"].is_valid()))
    inside = pc.and_(
        pc.greater_equal(table["pass_time"], pa.scalar(month.start, TIME)), pc.less(table["pass_time"], pa.scalar(month.end, TIME))
    )
    reading = MonthReading(
        table.set_column(table.schema.get_field_index("in_month"), HOLDINGS_SCHEMA.field("in_month"), inside),
        zoneless=placed.zoneless,
    )
    spelt = source.spellings(first, end)
    nameless = spelt.pop("", 0)
    otherwise = _spelt_otherwise(source, satellite, spelt, first, end, is_near)
    timeless, total = source.timeless([satellite])
    without_time = rejected_rows(timeless, [UNREADABLE_TIME if given else NO_TIME for given in timeless["datetime"].notna()])
    reading.rejected = pa.concat_tables([placed.rejected, otherwise, without_time])
    since = month.shift(1 - wanted.lookback_months).start
    asked = source.last(since, month.end, [satellite])
    reading.last_known = asked is not None
    latest = pd.DataFrame({name: [] for name in ("datetime", "rows", "geometry", "misplaced")}).astype(object) if asked is None else asked
    shapes, reasons = usable_footprints(latest["geometry"].to_numpy(dtype=object), latest["misplaced"].to_numpy(dtype=object))
    usable = ~shapely.is_missing(shapes)
    reading.last = pa.table(
        {
            "datetime": pa.array(as_utc(latest["datetime"][usable]), TIME),
            "geometry": pa.array(shapely.to_wkb(shapes[usable]), pa.binary()),
        },
        schema=LAST_SCHEMA,
    )
    lookback_reasons = {str(k): int(v) for k, v in latest["rows"][~usable].groupby(reasons[~usable]).sum().items()}
    month_reasons = Counter(placed.rejected["reason"].to_pylist()) + Counter(otherwise["reason"].to_pylist())
    warnings = (
        judge_rejected(month_reasons, len(frame) + otherwise.num_rows, f"rows of the holdings ({source.name}) in the month"),
        judge_rejected(Counter(without_time["reason"].to_pylist()), total, f"rows of the holdings ({source.name}) of {satellite!r}"),
        judge_rejected(lookback_reasons, int(latest["rows"].sum()), f"rows of the holdings ({source.name}) in the lookback"),
        judge_rejected({NO_SENSOR: nameless} if nameless else {}, nameless + sum(spelt.values()), f"rows of the holdings ({source.name})"),
        "" if len(frame) or len(latest) else _never_occurs(source, sensor, satellite, since, end, spelt),
    )
    reading.warnings = [warning for warning in warnings if warning]
    return reading


def _together(near: pa.Table, further: pa.Table) -> pa.Table:
    """Rows near the month, and rows up to two days from it whose id may name a scene of it: their own time may be local, or a later one.

    Names stay apart: a nameless row's number is that of its part.
    """
    taken = set(near["holding"].to_pylist())
    names = [name if name not in taken else f"{name} (further)" for name in further["holding"].to_pylist()]
    place = further.schema.get_field_index("holding")
    return pa.concat_tables([near, further.set_column(place, HOLDINGS_SCHEMA.field("holding"), pa.array(names, pa.string()))])


def _spelt_otherwise(
    source: HoldingsSource,
    satellite: str,
    spelt: Mapping[str, int],
    since: dt.datetime,
    until: dt.datetime,
    is_near: Callable[[pd.DataFrame], NDArray[np.bool_]],
) -> pa.Table:
    """Rows near the month whose sensor is the satellite in another spelling, rejected."""
    alike = [name for name in spelt if name != satellite and same_spelling(name) == same_spelling(satellite)]
    if not alike:
        return REJECTED_HOLDINGS_SCHEMA.empty_table()
    frame = source.rows(since, until, alike)
    frame = frame[is_near(frame)]
    return rejected_rows(frame, [f"sensor is spelt {name!r}, held_satellite {satellite!r}" for name in frame["sensor"]])


def _never_occurs(
    source: HoldingsSource, sensor: CoverageSensor, satellite: str, since: dt.datetime, until: dt.datetime, near: Mapping[str, int]
) -> str:
    spelt = {**source.spellings(since, until), **near}
    if satellite in spelt:  # in the days after the month
        return ""
    spelt = {name or "(none)": count for name, count in spelt.items()}
    some = ", ".join(f"{name[:40]!r} ({count:,})" for name, count in sorted(spelt.items(), key=lambda item: -item[1])[:8])
    span = f"from {since:%Y-%m} to {until:%Y-%m}"
    if not spelt:
        return f"the holdings ({source.name}) list nothing of any sensor {span}"
    return (
        f"no row of the holdings ({source.name}) {span} has {satellite!r} in its sensor column, which has {some}; "
        f"if one of them is {sensor.key}, set its held_satellite, or name it in holdings.sensors"
    )
