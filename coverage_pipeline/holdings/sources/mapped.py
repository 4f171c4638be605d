"""A source whose spellings of sensors are mapped to ours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from coverage_pipeline.holdings.sources.base import HoldingsSource


@dataclass(frozen=True)
class MappedHoldings:
    """Another source, in which several spellings are one sensor: ``SENTINEL_2A`` and ``s2a_ard`` are ``sentinel-2``.

    Who asks names the sensor as ``names`` maps it; a spelling that is not mapped is its own name.
    """

    source: HoldingsSource
    names: Mapping[str, str]
    """Name by spelling."""

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    def _spelt(self, satellites: Sequence[str] | None) -> list[str] | None:
        if satellites is None:
            return None
        wanted = set(satellites)
        return [*satellites, *(spelling for spelling, name in self.names.items() if name in wanted and spelling not in wanted)]

    def _renamed(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(sensor=frame["sensor"].map(lambda spelling: self.names.get(spelling, spelling)))

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """See ``HoldingsSource``."""
        return self._renamed(self.source.rows(since, until, self._spelt(satellites)))

    def timeless(self, satellites: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
        """See ``HoldingsSource``."""
        frame, count = self.source.timeless(self._spelt(satellites))
        return self._renamed(frame), count

    def last(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str]) -> pd.DataFrame | None:
        """See ``HoldingsSource``."""
        return self.source.last(since, until, self._spelt(satellites) or [])

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """See ``HoldingsSource``: by name, where a spelling is mapped."""
        counts: dict[str, int] = {}
        for spelling, count in self.source.spellings(since, until).items():
            name = self.names.get(spelling, spelling)
            counts[name] = counts.get(name, 0) + count
        return counts
