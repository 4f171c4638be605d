"""Holdings of an area and a window, straight from their source."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from collections.abc import Sequence

import geopandas as gpd
import shapely
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.geometry.bbox import BBox, split_bbox
from coverage_pipeline.holdings.config import HoldingsConfig
from coverage_pipeline.holdings.rows import (
    NO_TIME,
    UNREADABLE_TIME,
    judge_rejected,
    place_rows,
)
from coverage_pipeline.holdings.sources.configured import holdings_source
from coverage_pipeline.months import UTC, Month, MonthError, as_date
from coverage_pipeline.scenes.items import as_geodataframe

log = logging.getLogger(__name__)


def holdings_between(
    config: HoldingsConfig,
    start: str | dt.date,
    end: str | dt.date,
    *,
    bbox: BBox | None = None,
    aoi: BaseGeometry | None = None,
    satellites: Sequence[str] | None = None,
) -> gpd.GeoDataFrame:
    """Holdings as ``pipeline.fetch.fetch_holdings`` gives them, of the source that ``config`` names."""
    since, until = _instant(start, is_end=False), _instant(end, is_end=True)
    if until < since:
        raise MonthError(f"the window is reversed: start {start} is after end {end}")
    source = holdings_source(config)
    rows = source.rows(since, until, satellites)
    placed = place_rows(rows, None)
    timeless, total = source.timeless(satellites)
    without_time = Counter(UNREADABLE_TIME if given else NO_TIME for given in timeless["datetime"].notna())
    for reasons, of in ((placed.reasons, len(rows)), (without_time, total)):
        warning = judge_rejected(reasons, of, f"rows of the holdings ({source.name})")
        if warning:
            log.warning("%s", warning)
    table = placed.table
    frame = as_geodataframe(table)[["datetime", "sensor", "cloud", "scene_id", "geometry"]]
    if bbox is not None:
        area = shapely.union_all([shapely.box(*part) for part in split_bbox(bbox)])
        frame = frame[frame.intersects(area)]
    if aoi is not None:
        frame = frame[frame.intersects(aoi)]
    return frame.reset_index(drop=True)


def _instant(value: str | dt.date, *, is_end: bool) -> dt.datetime:
    if isinstance(value, str) and len(value) > 10:
        value = dt.datetime.fromisoformat(value)
    if is_end and isinstance(value, str) and len(value.strip()) == 7:
        return Month.parse(value).end
    if isinstance(value, dt.datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    day = as_date(value)
    start = dt.datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start + dt.timedelta(days=1) if is_end else start
