"""What all sources that are read from files share: windows, areas, and which rows meet them."""

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
"""Items a page, at most."""
AHEAD = dt.timedelta(days=1)
"""An item later than so long from now has a wrong time, which must not make its dump look fresh."""


@dataclass
class Survey:
    """What a dump has, whichever month and place is asked for."""

    items: int = 0
    """Items of our collection."""
    oldest: dt.datetime | None = None
    newest: dt.datetime | None = None
    collections: set[str] = field(default_factory=set)
    """Ids of all collections in it."""

    def seen(self, items: int, oldest: dt.datetime | None, newest: dt.datetime | None) -> None:
        """Take more items of our collection, and the first and last of their times (None: none has one)."""
        self.items += items
        if oldest is not None:
            self.oldest = oldest if self.oldest is None else min(self.oldest, oldest)
        if newest is not None:
            self.newest = newest if self.newest is None else max(self.newest, newest)


class FileSource:
    """What both kinds share: how they fail, and when a dump can say nothing of a month."""

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
        own = self.source.collection_id
        if survey.collections and own not in survey.collections:
            others = sorted(survey.collections)
            shown = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
            raise self._failed(CatalogUnavailable, f"has no collection {own}; it has: {shown}; check collection_id in {self._section}")
        if not survey.items:
            raise self._failed(CatalogTruncated, f"has no items at all, which says nothing of any month; {self._hint}, or renew the dump")

    def _require_month(self, survey: Survey, window: Window) -> None:
        """Raise where the dump has nothing of the collection, or ends before the window's months or begins after them."""
        self._require_items(survey)
        if survey.oldest is None or survey.newest is None:
            raise self._failed(
                CatalogTruncated,
                f"says of none of its {survey.items} items when it was taken (or says a time that is still to come), so it cannot be told "
                f"whether it has this month; {self._hint}",
            )
        if survey.newest < window.start + NEIGHBOUR_MARGIN:
            raise self._failed(
                CatalogTruncated,
                f"cannot tell: its newest item is of {survey.newest:%Y-%m-%d}, before this month: the dump is older than what is asked "
                "for; renew it",
            )
        if survey.oldest >= window.end - NEIGHBOUR_MARGIN:
            raise self._failed(
                CatalogTruncated,
                f"cannot tell: it begins on {survey.oldest:%Y-%m-%d}, after this month; name a dump that has it, or another source",
            )


def query_boxes(bbox: BBox | None) -> list[BBox] | None:
    return None if bbox is None else [(b[0], b[1], b[2], b[3]) for b in split_bbox(bbox)]


def meets_boxes(bounds: NDArray[np.float64], boxes: Sequence[BBox]) -> NDArray[np.bool_]:
    """Which bounds, (n, 4): west, south, east, north in degrees, may touch one of the boxes (west <= east); those unknown (NaN) do.

    West > east crosses the antimeridian. More than half a turn is no scene but one across the antimeridian whose bounds were taken
    without regard to it, so that it may lie at any longitude.
    """
    west, south, east, north = bounds.T
    east = np.where(west > east, east + 360, east)
    unknown = ~np.isfinite(bounds).all(axis=1) | (south > north)
    anywhere = east - west > 180
    meets: NDArray[np.bool_] = unknown.copy()
    for box_west, box_south, box_east, box_north in boxes:
        beside = anywhere.copy()
        for turn in (-720, -360, 0, 360, 720):  # some write longitudes beyond ±180
            beside |= (west + turn <= box_east) & (east + turn >= box_west)
        meets |= beside & (south <= box_north) & (north >= box_south)
    return meets


def bounds_of(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """Bounds (n, 4) of geometries; NaN, which is anywhere, for none, and for one so wide that it may lie around a pole."""
    bounds: NDArray[np.float64] = shapely.bounds(shapes)
    bounds[bounds[:, 2] - bounds[:, 0] > 180] = np.nan
    return bounds


TIMES = ("datetime", "start_datetime", "end_datetime")
