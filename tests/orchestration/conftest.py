"""A small planner's world for the assets: one served sensor, holdings in a file, a coarse grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely

from tests.catalog.items import item, square


def items_of(months: list[str]) -> list[dict[str, Any]]:
    """Five scenes a month along the equator, one of them cloudy, one of unknown cloud."""
    clouds: list[float | None] = [0.0, 5.0, 90.0, None, 9.9]
    return [
        item(f"{month}-{k}", f"{month}-{3 * k + 1:02d}T10:00:00Z", geometry=square(20 * k, 0, 10), properties={"eo:cloud_cover": cloud})
        for month in months
        for k, cloud in enumerate(clouds)
    ]


@pytest.fixture
def world(tmp_path: Path, serve_items: Callable[..., str]) -> Path:
    """A settings file: sensors `mine` (served, held, can be pointed) and `prisma` (no catalogue), January to March 2025."""
    months = ["2025-01", "2025-02", "2025-03"]
    address = serve_items(items_of(months))
    held = gpd.GeoDataFrame(
        {"datetime": ["2025-01-01T10:00:00Z", "2025-02-04T10:00:00Z"], "sensor": ["MINE", "MINE"], "cloud": [0.0, 5.0]},
        geometry=[shapely.geometry.shape(square(0, 0, 10)), shapely.geometry.shape(square(20, 0, 10))],
        crs="EPSG:4326",
    )
    held.to_parquet(tmp_path / "holdings.parquet")
    config = tmp_path / "build.toml"
    config.write_text(f"""
data = {json.dumps(str(tmp_path / "data"))}
[grid]
resolution = 5.0
[window]
start = 2025-01-01
end = 2025-03-31
[sensors]
keys = ["mine", "prisma"]
[sensors.declared.mine]
held_satellite = "MINE"
nominal_revisit_days = 3
default_desired_per_month = 2
taskable = true
available_sources = [{{ kind = "stac", endpoint = "{address}", collection_id = "scenes", cloud_field = "eo:cloud_cover" }}]
[area]
scope = "all"
[holdings]
path = {json.dumps(str(tmp_path / "holdings.parquet"))}
[scan]
retries = 0
[orchestration]
retries = 0
""")
    return config
