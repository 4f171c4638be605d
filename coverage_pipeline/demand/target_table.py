"""The targets as every step reads them: one table, with the digest that tells it from another."""

from __future__ import annotations

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.months import Month
from coverage_pipeline.storage.metadata import FileMetadata

TARGETS_VERSION = 1
"""Version of the columns of ``targets.parquet``."""


@dataclass(frozen=True, kw_only=True)
class TargetsMetadata(FileMetadata):
    """What ``targets.parquet`` says of itself."""

    digest: str
    """Tells these targets from others: SHA-256 of their rows, 16 hexadecimal digits."""
    source: str
    """Where they were read, without secrets."""
    read_at: str
    """UTC, ISO 8601."""
    targets: int


@dataclass(frozen=True)
class Targets:
    """The areas that planners care about, ready for use.

    ``table`` has one row a target, in the source's order, EPSG:4326:

    ================== ======== =========================================================================
    id                 str      unique, not empty
    name               str
    group              str      "" where none is given
    weight             float64  > 0, 1 where none is given
    desired            float64  clear observations a month for every sensor; NaN: the sensor's own cadence
    desired_<sensor>   float64  the same for one sensor or ``[gap.groups]`` name; NaN or no column: ``desired``
    season             str      such as "4-10" or "11-2" (across New Year); "": the whole year
    min_cover          float64  0 < share ≤ 1 of the target's area that a day must cover
    area_km2           float64  on the ellipsoid
    geometry           Polygon or MultiPolygon, valid, cut at the antimeridian; points and lines are buffered
    ================== ======== =========================================================================
    """

    table: gpd.GeoDataFrame
    digest: str
    source: str = ""

    def __len__(self) -> int:
        return len(self.table)

    def in_season(self, month: Month) -> NDArray[np.bool_]:
        """Which targets want something in this month, ``(targets,)``."""
        return np.array([season_holds(season, month.start.month) for season in self.table["season"]], dtype=bool)

    def desired(self, key: str, month: Month, default: float, *, own_only: bool = False) -> NDArray[np.float64]:
        """Clear observations that each target wants in a month of one sensor (or group) ``key``, float64 ``(targets,)``.

        ``desired_<key>``, else ``desired``, else ``default`` (the sensor's own cadence); 0 out of season. ``own_only`` leaves ``desired``
        out: of a member of a group, what a target wants of "every sensor" is wanted of the group.
        """
        wanted = np.full(len(self), np.nan) if own_only else self.table["desired"].to_numpy(np.float64)
        column = f"desired_{key}"
        if column in self.table.columns:
            own = self.table[column].to_numpy(np.float64)
            wanted = np.where(np.isnan(own), wanted, own)
        wanted = np.where(np.isnan(wanted), default, wanted)
        return np.where(self.in_season(month), wanted, 0.0)


def season_holds(season: str, month: int) -> bool:
    """Whether a season such as ``4-10`` or ``11-2`` holds a month (1..12); an empty season holds each.

    Raises ``ValueError`` for a text that is no season.
    """
    first, last = season_months(season)
    return first <= month <= last if first <= last else (month >= first or month <= last)


def season_months(season: str) -> tuple[int, int]:
    """First and last month of a season such as ``4-10``, ``11-2`` or ``7``; an empty season is (1, 12).

    Raises ``ValueError`` for a text that is no season.
    """
    if not season.strip():
        return 1, 12
    first, dash, last = season.strip().partition("-")
    months = (first.strip(), last.strip() if dash else first.strip())
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 12 for part in months):
        raise ValueError(f"{season!r} is no season: write two months such as 4-10, or 11-2 across New Year")
    return int(months[0]), int(months[1])
