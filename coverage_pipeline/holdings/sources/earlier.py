"""When footprints were last held, from the files of earlier months: for sources that have no grouped question."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from coverage_pipeline.holdings.metadata import KNOWN_HOLDINGS, HoldingsMetadata
from coverage_pipeline.months import Month
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

ReadRows = Callable[[dt.datetime, dt.datetime], pd.DataFrame]
"""Rows of a span, as ``HoldingsSource.rows`` gives them."""


@dataclass(frozen=True)
class EarlierMonths:
    """The extracts of earlier months of a sensor, which is the one place where a partition reads others' output (design section 12)."""

    store: Store

    def last(self, key: str, since: dt.datetime, until: dt.datetime, rows: ReadRows) -> pd.DataFrame | None:
        """Per distinct footprint the last ``datetime`` before ``until``, from the extracts since ``since`` and ``rows`` of the last month.

        None where the extract of an earlier month is missing or was not read: then nobody knows how long ago something was held.
        """
        this = Month.of(until - dt.timedelta(seconds=1))
        frames = []
        month = Month.of(since)
        while month < this:
            path = self.store.holdings(key, month)
            if not path.exists():
                return None
            table, stored = read_parquet(path, ["datetime", "geometry"])
            if HoldingsMetadata.of(stored).status not in KNOWN_HOLDINGS:
                return None
            frames.append(table.to_pandas())
            month = month.shift(1)
        frames.append(rows(this.start, until)[["datetime", "geometry"]])
        together = pd.concat([frame for frame in frames if len(frame)] or frames[-1:], ignore_index=True)
        return grouped(together)


def grouped(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with ``datetime`` and ``geometry`` (WKB) as ``HoldingsSource.last`` gives them."""
    whole = frame.assign(misplaced=None)
    groups = whole.groupby(["geometry", "misplaced"], as_index=False, dropna=False)
    return groups.agg(datetime=("datetime", "max"), rows=("datetime", "size"))
