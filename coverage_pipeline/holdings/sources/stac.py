"""Holdings in a STAC API of one's own archive, scanned with the same guards as a catalogue."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import pyarrow as pa

from coverage_pipeline.catalog.collect import collect_items
from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.holdings.config import ArchiveSettings
from coverage_pipeline.holdings.errors import HoldingsUnreachable
from coverage_pipeline.holdings.rows import ROW_COLUMNS, judge_rejected
from coverage_pipeline.holdings.sources.earlier import EarlierMonths
from coverage_pipeline.redaction import host_of
from coverage_pipeline.scenes.items import by_reason
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor

log = logging.getLogger(__name__)


@dataclass
class StacHoldings:
    """Holdings as the items of collections. A truncated answer, or a window that failed, is an error: a hole would look like a gap."""

    archive: ArchiveSettings
    sensors: Mapping[str, CoverageSensor]
    """By key."""
    names: Mapping[str, str]
    """What the holdings of each sensor are called, by key."""
    options: ScanOptions
    earlier: EarlierMonths | None = None
    """Earlier extracts; None: nothing is asked of earlier months."""
    _read: dict[tuple[str, dt.datetime, dt.datetime], pd.DataFrame] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The API's host."""
        return f"STAC API {host_of(self.archive.endpoint)}"

    def _collections(self, satellites: Sequence[str] | None) -> list[tuple[str, CoverageSensor]]:
        wanted = None if satellites is None else set(satellites)
        return [
            (collection, self.sensors[key])
            for collection, key in self.archive.collections.items()
            if wanted is None or self.names[key] in wanted
        ]

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """See ``HoldingsSource``. Each span is asked for once."""
        frames = [self._items(collection, sensor, since, until) for collection, sensor in self._collections(satellites)]
        frames = [frame for frame in frames if len(frame)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({name: [] for name in ROW_COLUMNS}).astype(object)

    def _items(self, collection: str, sensor: CoverageSensor, since: dt.datetime, until: dt.datetime) -> pd.DataFrame:
        key = (collection, since, until)
        if key not in self._read:
            platforms = tuple(self.archive.platforms.get(collection, ()))
            source = AvailableSource("stac", self.archive.endpoint, collection, self.archive.cloud_field, platforms=platforms)
            one = replace(sensor, available_sources=(source,))
            try:
                items, rejected = collect_items(one, source, since, until, self.options, f"holdings of {sensor.key} {since:%Y-%m-%d}")
            except CatalogError as error:
                raise HoldingsUnreachable(f"{error}; check [holdings.stac]") from None
            what = f"items of the holdings ({self.name}, {collection})"
            if warning := judge_rejected(by_reason(rejected), items.num_rows + rejected.num_rows, what):
                log.warning("%s %s: %s", sensor.key, since.date(), warning)
            self._read = {key: self._frame(items, sensor, since, until)}  # months are read one after the other
        return self._read[key]

    def _frame(self, items: pa.Table, sensor: CoverageSensor, since: dt.datetime, until: dt.datetime) -> pd.DataFrame:
        times = items["acquired"].to_pandas()
        frame = pd.DataFrame(
            {
                "datetime": times,
                "sensor": self.names[sensor.key],
                "cloud": items["cloud_cover"].to_pandas(),
                "scene_id": pd.Series(items["item_id"].to_pylist(), dtype=object),
                "geometry": pd.Series(items["geometry"].to_pylist(), dtype=object),
                "misplaced": pd.Series([None] * items.num_rows, dtype=object),
            }
        )
        return frame[(times >= since) & (times < until)].reset_index(drop=True)

    def timeless(self, satellites: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
        """See ``HoldingsSource``: an API that is asked by time gives none without."""
        return pd.DataFrame({name: [] for name in ROW_COLUMNS}).astype(object), 0

    def last(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str]) -> pd.DataFrame | None:
        """See ``HoldingsSource``: an API has no grouped question, so earlier extracts answer; None where one of them is missing."""
        if self.earlier is None:
            return None
        keys = [key for key, name in self.names.items() if name in set(satellites)]
        return self.earlier.last(keys[0], since, until, lambda start, end: self.rows(start, end, satellites)) if keys else None

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """See ``HoldingsSource``: of what was asked for."""
        counts: dict[str, Any] = {}
        for (_, start, end), frame in self._read.items():
            if (start, end) == (since, until):
                for name, count in frame["sensor"].value_counts().items():
                    counts[str(name)] = counts.get(str(name), 0) + int(count)
        return counts
