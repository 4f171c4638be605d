"""Holdings for a person: those that the settings name, in an area and a window."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import geopandas as gpd
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.holdings.fetch import holdings_between
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings


def fetch_holdings(
    *,
    bbox: BBox | None = None,
    aoi: BaseGeometry | None = None,
    start: str | dt.date,
    end: str | dt.date,
    satellites: Sequence[str] | None = None,
    settings: PlannerSettings | None = None,
) -> gpd.GeoDataFrame:
    """Holdings that meet the area within ``start``..``end`` (a day or month as end is included; an instant is not).

    ``bbox`` (degrees, west > east across the antimeridian) and ``aoi`` (EPSG:4326) narrow the area, ``satellites`` the sensor
    column. Returns a GeoDataFrame with datetime (UTC), sensor, cloud (percent, NaN unknown), scene_id and geometry.

    ``settings`` are those of the configuration and the environment where none are given.

    Raises ``HoldingsUnavailable`` (not configured, driver missing, unreachable) or ``HoldingsRefused`` (wrong password, table,
    column or file, or too many rows that cannot be placed), ``MonthError`` for a window that is reversed.
    """
    return holdings_between(settings or load_settings(), start, end, bbox=bbox, aoi=aoi, satellites=satellites)
