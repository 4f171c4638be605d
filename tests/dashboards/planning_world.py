"""A small world that a planner can ask every question of: catalogues over HTTP, holdings, targets and requests, really built.

Over the Permian basin EMIT has a clear scene that is held in April 2025, clear ones that are not in May, and a cloudy one in June. Over the
Netherlands Landsat and Sentinel-2 take turns. In June the catalogue of Landsat cannot be read. The scans of EMIT are provisional: in each
month it lists items that are too large to be its scenes, and are rejected.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from coverage_pipeline.demo.items import DESCRIBERS, SimulatedScene
from coverage_pipeline.demo.missions import MISSIONS
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.requests.database import RequestDatabase
from coverage_pipeline.requests.flags import flag_for_request
from coverage_pipeline.requests.store import RequestStore
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.storage.store import Store
from tests.scenarios.catalogue import UTC, Catalogue, Lies
from tests.scenarios.world import write_holdings

PERMIAN = shapely.box(-103.2, 31.2, -102.8, 31.6)
NETHERLANDS = shapely.box(5.0, 52.0, 5.5, 52.3)
FIRST, LAST = Month(2025, 4), Month(2025, 6)
_MISSION = {"emit": "emit", "landsat-8-9": "landsat-9", "sentinel-2": "sentinel-2b"}


@dataclass
class PlanningWorld:
    """Where it lies, and what serves it."""

    folder: Path
    config: Path
    catalogue: Catalogue
    requests: RequestStore

    @property
    def store(self) -> Store:
        """Its files."""
        return Store.below(self.folder / "data")

    @property
    def environment(self) -> dict[str, str]:
        """Of a server of its page."""
        return {"COVERAGE_CONFIG": str(self.config)}


def _item(sensor: str, when: dt.datetime, place: Any, cloud: float, frame: str, number: int, href: str) -> dict[str, Any]:
    start = np.datetime64(when.replace(tzinfo=None), "ms")
    mission = MISSIONS[_MISSION[sensor]]
    scene = SimulatedScene(start, start + np.timedelta64(20, "s"), cloud, mission, 20_000 + number, frame, number, 0, 0, 0.5)
    name, properties = DESCRIBERS[sensor](scene)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": sensor,
        "geometry": json.loads(shapely.to_geojson(place)),
        "bbox": list(place.bounds),
        "properties": properties,
        "links": [],
        "assets": {"data": {"href": f"{href}{name}.tif", "roles": ["data"], "file:size": 5_000_000}},
    }


def _day(month: int, day: int, hour: int = 10) -> dt.datetime:
    return dt.datetime(2025, month, day, hour, tzinfo=UTC)


def _around(place: Any, margin: float = 0.4) -> Any:
    west, south, east, north = place.bounds
    return shapely.Polygon(
        [
            (west - margin, south - margin),
            (east + margin, south - margin / 2),
            (east + margin, north + margin),
            (west - margin, north + margin),
        ]
    )


def _archive() -> dict[str, list[dict[str, Any]]]:
    """Items by collection."""
    base = "https://data.example/"
    permian, dutch = _around(PERMIAN, 0.2), _around(NETHERLANDS)
    far = shapely.box(20, -30, 22, -28)
    emit, landsat, sentinel = [], [], []
    for k, (month, day, cloud) in enumerate([(4, 8, 3.0), (5, 6, 4.0), (5, 18, 8.0), (6, 11, 70.0)]):
        emit.append(_item("emit", _day(month, day, 16), permian, cloud, "", k, base))
    for month in (4, 5, 6):
        for day in range(1, 31):
            emit.append(_item("emit", _day(month, day, 9), far, 50.0, "", 100 + day, base))
            landsat.append(_item("landsat-8-9", _day(month, day), far, 60.0, f"{170 + day % 8:03d}080", day, base))
            sentinel.append(_item("sentinel-2", _day(month, day), far, 60.0, "35JKL", day, base))
        for day in (4, 20):
            landsat.append(_item("landsat-8-9", _day(month, day, 11), dutch, 5.0, "198024", 50 + day, base))
        for day in (9, 14, 24):
            sentinel.append(_item("sentinel-2", _day(month, day, 11), dutch, 6.0 if day != 14 else 90.0, "31UFT", 50 + day, base))
    return {"emit": emit, "landsat-8-9": landsat, "sentinel-2": sentinel}


def _write_settings(folder: Path, address: str, targets: Path, holdings: Path) -> Path:
    lines = [
        f'data = "{folder / "data"}"', f'targets = "{targets}"', "[grid]", "resolution = 1.0", "threads = 1", "[window]",
        "start = 2025-04-01", "end = 2025-06-30", "[sensors]", 'keys = ["emit", "prisma", "landsat-8-9", "sentinel-2"]',
        "[gap.groups.optical]", 'sensors = ["landsat-8-9", "sentinel-2"]', "desired = 3", "[holdings]", f'path = "{holdings}"',
        "[scan]", "retries = 0", "backoff_seconds = 0", '[providers."127.0.0.1"]', "requests_per_second = 1000",
    ]  # fmt: skip
    for sensor in ("emit", "landsat-8-9", "sentinel-2"):
        lines += [f"[[sensors.sources.{sensor}]]", 'kind = "stac"', f'endpoint = "{address}"', f'collection_id = "{sensor}"']
    config = folder / "build.toml"
    config.write_text("\n".join(lines) + "\n")
    return config


def _held(items: Sequence[dict[str, Any]], sensor: str) -> list[dict[str, Any]]:
    return [
        {
            "datetime": dt.datetime.fromisoformat(item["properties"]["datetime"].replace("Z", "+00:00")),
            "sensor": sensor,
            "cloud": float(item["properties"]["eo:cloud_cover"]),
            "scene_id": item["id"],
            "geometry": shapely.from_geojson(json.dumps(item["geometry"])),
        }
        for item in items
    ]


@contextmanager
def planning_world(folder: Path) -> Iterator[PlanningWorld]:
    """Build it in ``folder``; its catalogue is served until the end."""
    archive = _archive()
    broken = (dt.datetime(2025, 6, 18, tzinfo=UTC), dt.datetime(2025, 6, 19, tzinfo=UTC))
    catalogue = Catalogue(archive, {"landsat-8-9": Lies(failing=broken)})
    try:
        targets = folder / "targets.geojson"
        rows = {
            "id": ["permian", "dutch"],
            "name": ["Permian basin", "Netherlands"],
            "group": ["methane", "crops"],
            "desired_emit": [1.0, 0.0],
        }
        gpd.GeoDataFrame(rows, geometry=[PERMIAN, NETHERLANDS], crs=4326).to_file(targets)
        held = _held([archive["emit"][0]], "EMIT") + _held([i for i in archive["landsat-8-9"] if "198024" in i["id"]][:1], "Landsat")
        config = _write_settings(folder, catalogue.url, targets, write_holdings(folder / "holdings.parquet", held))
        settings = load_settings(config, environment=False)
        planner = Planner.from_settings(settings)
        with pytest.raises(PlannerError, match="landsat-8-9"):  # its June, which is meant to fail
            build(planner)
        requests = RequestStore(RequestDatabase(settings.request_database()))
        window = (dt.date(2035, 3, 1), dt.date(2035, 3, 31))
        flag_for_request(PERMIAN, window, "emit", "task", store=requests, sensors=settings.registry(), who="ana", note="well pads")
        yield PlanningWorld(folder, config, catalogue, requests)
    finally:
        catalogue.close()
