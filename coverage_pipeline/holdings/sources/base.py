"""A source of holdings: what it answers, and footprints in degrees."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from coverage_pipeline.holdings.rows import (
    read_wkb,
)


class HoldingsSource(Protocol):
    """A place that lists holdings. Whatever it cannot give whole is an error: a hole in the holdings would look like a gap."""

    @property
    def name(self) -> str:
        """For reports; never holds a secret."""
        ...

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """Holdings with ``since <= datetime < until`` (``holdings.rows.ROW_COLUMNS``), whose sensor is one of ``satellites``."""
        ...

    def timeless(self, satellites: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
        """Holdings of these sensors whose time is missing or cannot be read (``ROW_COLUMNS``), and how many they have in all
        (0: not counted, as none is timeless).
        """
        ...

    def last(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str]) -> pd.DataFrame | None:
        """Per distinct footprint the last ``datetime`` with ``since <= datetime < until``, and how many rows have it.

        Columns datetime, rows, geometry, misplaced. None: not known.
        """
        ...

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """How many holdings with ``since <= datetime < until`` there are, by what their sensor column says; empty where it is null."""
        ...


def in_degrees(
    values: NDArray[np.object_], srid: NDArray[np.integer[Any]], systems: Mapping[int, CRS | None]
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Footprints as WKB in degrees of longitude and latitude (EPSG:4326), and why one could not be brought there (None where it was).

    ``values`` holds WKB (bytes or None), ``srid`` the key of each one's system in ``systems``; a system of None means that nothing is
    stated: then the numbers are taken for degrees, which ``normalise_footprints`` checks. A key that ``systems`` lacks is a reason.
    """
    out, reasons = values.copy(), np.full(len(values), None, dtype=object)
    for key in np.unique(srid) if len(srid) else ():
        chosen = srid == key
        if int(key) not in systems:
            reasons[chosen] = f"SRID {key} is not known to the database"
            continue
        crs = systems[int(key)]
        if crs is None or crs.equals("EPSG:4326", ignore_axis_order=True) or crs.equals("OGC:CRS84"):
            continue
        shapes, unreadable = read_wkb(values[chosen])
        moved = gpd.GeoSeries(shapes, crs=crs).to_crs("EPSG:4326").to_numpy()
        out[chosen] = np.where(unreadable == None, shapely.to_wkb(moved), values[chosen])  # noqa: E711 (elementwise)
    return out, reasons
