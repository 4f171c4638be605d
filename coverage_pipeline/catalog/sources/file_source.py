"""Shared code of sources that are read from files: their errors, and the rows of a window and area."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.catalog.sources.base import Window
from coverage_pipeline.geometry.bbox import BBox, split_bbox
from coverage_pipeline.months import NEIGHBOUR_MARGIN
from coverage_pipeline.sensors.registry import AvailableSource

PAGE = 1000
"""Most items per page."""
AHEAD = dt.timedelta(days=1)
"""An item further in the future has a wrong time, which must not make its dump look recent."""


@dataclass
class Survey:
    """Contents of a whole dump, for any month and area."""

    items: int = 0
    """Number of items of the source's collection."""
    oldest: dt.datetime | None = None
    newest: dt.datetime | None = None
    collections: set[str] = field(default_factory=set)
    """Ids of all collections in the dump."""

    def add(self, items: int, oldest: dt.datetime | None, newest: dt.datetime | None) -> None:
        """Add items of the source's collection, with their first and last time (None: no item has a time)."""
        self.items += items
        if oldest is not None:
            self.oldest = oldest if self.oldest is None else min(self.oldest, oldest)
        if newest is not None:
            self.newest = newest if self.newest is None else max(self.newest, newest)


class FileSource:
    """Base of sources that are read from files: error messages, and checks that a dump covers a month."""

    windowed = False
    item_root: str | None = None

    def __init__(self, source: AvailableSource, profile: ProviderProfile, patience: Patience, label: str) -> None:
        """``label`` names the sensor and month in every error."""
        self.source = source
        self.profile = profile
        self.patience = patience
        self.label = label
        self._section = f"[[sensors.sources.{label.split()[0]}]]"
        self._hint = f"check endpoint in {self._section}"

    def _failed(self, kind: type[CatalogError], message: str) -> CatalogError:
        return kind(self.source.public(f"{self.label}: {self.source.provider} ({self.source.collection_id}) {message}"))

    def _require_items(self, survey: Survey) -> None:
        wanted = self.source.collection_id
        if survey.collections and wanted not in survey.collections:
            others = sorted(survey.collections)
            shown = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
            raise self._failed(CatalogUnavailable, f"has no collection {wanted}; it has: {shown}; check collection_id in {self._section}")
        if not survey.items:
            raise self._failed(CatalogTruncated, f"has no items at all, so no month can be judged; {self._hint}, or renew the dump")

    def _require_month(self, survey: Survey, window: Window) -> None:
        """Raise ``CatalogError`` if the dump has no items of the collection, ends before the window's months, or begins after them."""
        self._require_items(survey)
        if survey.oldest is None or survey.newest is None:
            raise self._failed(
                CatalogTruncated,
                f"has a usable time for none of its {survey.items} items (a time in the future is not usable), so this month cannot be "
                f"judged; {self._hint}",
            )
        if survey.newest < window.start + NEIGHBOUR_MARGIN:
            raise self._failed(
                CatalogTruncated,
                f"ends before this month: its newest item is of {survey.newest:%Y-%m-%d}; renew the dump",
            )
        if survey.oldest >= window.end - NEIGHBOUR_MARGIN:
            raise self._failed(
                CatalogTruncated,
                f"begins after this month, on {survey.oldest:%Y-%m-%d}; use a dump that covers it, or another source",
            )


def query_boxes(bbox: BBox | None) -> list[BBox] | None:
    """A box as one or two boxes with west <= east; None: anywhere."""
    return None if bbox is None else [(b[0], b[1], b[2], b[3]) for b in split_bbox(bbox)]


def meets_boxes(bounds: NDArray[np.float64], boxes: Sequence[BBox]) -> NDArray[np.bool_]:
    """Mask (n,) of bounds that may touch one of the boxes (west <= east); unknown bounds (NaN) do.

    ``bounds`` (n, 4) are west, south, east, north in degrees; west > east crosses the antimeridian. Bounds wider than 180° match any
    longitude: they belong to a scene across the antimeridian, and were computed without regard to it.
    """
    west, south, east, north = bounds.T
    east = np.where(west > east, east + 360, east)
    unknown = ~np.isfinite(bounds).all(axis=1) | (south > north)
    anywhere = east - west > 180
    meets: NDArray[np.bool_] = unknown.copy()
    for box_west, box_south, box_east, box_north in boxes:
        meets_longitudes = anywhere.copy()
        for turn in (-720, -360, 0, 360, 720):  # some providers write longitudes beyond ±180
            meets_longitudes |= (west + turn <= box_east) & (east + turn >= box_west)
        meets |= meets_longitudes & (south <= box_north) & (north >= box_south)
    return meets


def bounds_of(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """Bounds (n, 4) of geometries in degrees; NaN (anywhere) for a missing geometry, or one so wide that it may enclose a pole."""
    bounds: NDArray[np.float64] = shapely.bounds(shapes)
    bounds[bounds[:, 2] - bounds[:, 0] > 180] = np.nan
    return bounds


TIMES = ("datetime", "start_datetime", "end_datetime")
