"""A whole build of a small world through the public API: catalogues and holdings in, single cells out."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import shapely
import xarray as xr
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.pipeline.steps import STEPS
from coverage_pipeline.settings.load import load_settings
from tests.scenarios.catalogue import UTC, Catalogue, Item, Lies

# Design section 5: "`action` | uint8 flag: 0 unknown, 1 met, 2 ingest, 3 check, 4 task, 5 none, 6 out_of_scope, 7 fuse".
ACTIONS = ("unknown", "met", "ingest", "check", "task", "none", "out_of_scope", "fuse")
NOT_KNOWN = 1 << 31  # Design section 4: "bit 31 alone means *not known*".
MASKS = ("available_days", "clear_days", "held_days", "held_clear_days", "ingestable_days", "check_days")
NUMBERS = (
    "scenes_count",
    "cloud_free_scene_count",
    "cloud_unknown_scene_count",
    "held_count",
    "held_clear_count",
    "days_since_last_held",
    "unmet_supply",
    "deficit",
)
JUNE = Month(2025, 6)


def at(text: str) -> dt.datetime:
    """A UTC time."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


def stamp(time: dt.datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def leaning(west: float, south: float, width: float, height: float, lean: float = 0.06) -> BaseGeometry:
    """A quadrilateral that no box along the axes equals, inside the box of that size."""
    return shapely.Polygon(
        [
            (west, south + lean),
            (west + width, south),
            (west + width, south + height - lean),
            (west, south + height),
        ]
    )


def item(
    name: str,
    geometry: BaseGeometry | None,
    when: dt.datetime | None,
    *,
    collection: str = "scenes",
    cloud: Any = 2.0,
    box: Sequence[float] | None = None,
    **properties: Any,
) -> Item:
    """A STAC item; ``cloud=None`` leaves its cloud out."""
    own: dict[str, Any] = {"datetime": stamp(when) if when else None}
    if cloud is not None:
        own["eo:cloud_cover"] = cloud
    feature: Item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "geometry": json.loads(shapely.to_geojson(geometry)) if geometry is not None else None,
        "properties": {**own, **properties},
        "links": [],
        "assets": {},
    }
    if box is not None or (geometry is not None and not geometry.is_empty):
        feature["bbox"] = list(box if box is not None else geometry.bounds)  # type: ignore[union-attr]
    return feature


def holding(
    when: dt.datetime | dt.date | None,
    geometry: BaseGeometry | None,
    *,
    sensor: str = "OURS",
    cloud: float | None = 2.0,
    scene_id: str | None = None,
) -> dict[str, Any]:
    """One row of holdings."""
    return {"datetime": when, "sensor": sensor, "cloud": cloud, "scene_id": scene_id, "geometry": geometry}


def write_holdings(path: Path, rows: Sequence[Mapping[str, Any]], *, ids: bool = True, clouds: bool = True, dates: bool = False) -> Path:
    """Holdings as GeoParquet with the specification's columns. ``dates`` writes dates without a time of day."""
    columns: dict[str, Any] = {"sensor": [row["sensor"] for row in rows]}
    times = [row["datetime"] for row in rows]
    if dates:
        columns["datetime"] = pd.Series(times, dtype="object")
    else:
        columns["datetime"] = pd.to_datetime(pd.Series(times, dtype="object"), utc=True).dt.as_unit("us")
    if clouds:
        columns["cloud"] = pd.Series([row["cloud"] for row in rows], dtype="float64")
    if ids:
        columns["scene_id"] = pd.Series([row["scene_id"] for row in rows], dtype="string")
    frame = gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries([row["geometry"] for row in rows], crs=4326), crs=4326)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)
    return path


def sensor(catalogue: Catalogue | str | None, collection: str = "scenes", **changes: Any) -> dict[str, Any]:
    """A declared sensor, systematic, with one STAC source (``None``: without a catalogue)."""
    address = catalogue.url if isinstance(catalogue, Catalogue) else catalogue
    source = {"kind": "stac", "endpoint": address, "collection_id": collection, "cloud_field": "eo:cloud_cover"}
    values: dict[str, Any] = {
        "title": "a sensor",
        "held_satellite": "OURS",
        "nominal_revisit_days": 5,
        "default_desired_per_month": 2,
        "taskable": False,
        "available_sources": [source] if address else [],
    }
    return {k: v for k, v in {**values, **changes}.items() if v is not None}


@dataclass
class World:
    """A built world. ``reports`` are those of ``build``, by partition key; ``error`` is what it raised."""

    planner: Planner
    reports: dict[str, Any] = field(default_factory=dict)
    error: PlannerError | None = None

    @cached_property
    def cube(self) -> xr.Dataset:
        """The cube as it opens, read once: a world is built once."""
        return open_coverage(self.planner.store.zarr).load()

    def cell(self, key: str, lon: float, lat: float, month: Month = JUNE) -> dict[str, Any]:
        """One cell: action by name, masks as sets of days (``None``: not known), numbers (``None``: not known)."""
        row, column = (int(np.abs(self.cube[axis].values - value).argmin()) for axis, value in (("lat", lat), ("lon", lon)))
        place = self._slice(key, month, row, column)
        cell: dict[str, Any] = {"action": ACTIONS[int(place["action"])]}
        for name in MASKS:
            mask = int(place[name])
            cell[name] = None if mask == NOT_KNOWN else {day for day in range(1, 32) if mask >> (day - 1) & 1}
        for name in NUMBERS:
            value = float(place[name])
            cell[name] = None if np.isnan(value) or value < 0 else value
        cell["scan_status"] = self.status(key, month)
        cell["holdings_status"] = self.status(key, month, "holdings_status")
        return cell

    def _slice(self, key: str, month: Month, row: int, column: int) -> dict[str, Any]:
        at_sensor = list(self.cube["sensor"].values).index(key)
        at_time = list(self.cube["time"].values).index(month.to_datetime64())
        return {name: self.cube[name].values[at_sensor, at_time, row, column] for name in ("action", *MASKS, *NUMBERS)}

    def status(self, key: str, month: Month = JUNE, name: str = "scan_status") -> str:
        """A status by the name that the cube's own attributes give it."""
        variable = self.cube[name]
        words = dict(zip(np.atleast_1d(variable.attrs["flag_values"]).tolist(), variable.attrs["flag_meanings"].split(), strict=True))
        return str(words[int(variable.sel(sensor=key, time=month.to_datetime64()))])

    def actions(self, key: str, month: Month = JUNE) -> set[str]:
        """Every action that the partition shows anywhere."""
        values = self.cube["action"].sel(sensor=key, time=month.to_datetime64()).values
        return {ACTIONS[value] for value in np.unique(values).tolist()}

    def scan_report(self, key: str, month: Month = JUNE) -> dict[str, Any]:
        """The scan report as it stands beside the scenes."""
        scenes = self.planner.store.scenes(key, month)
        report: dict[str, Any] = json.loads((scenes.parent / f"{month.key}.scan.json").read_text())
        return report

    def scenes(self, key: str, month: Month = JUNE) -> pd.DataFrame:
        return pq.read_table(str(self.planner.store.scenes(key, month))).to_pandas()

    def matchup(self, key: str, month: Month = JUNE) -> pd.DataFrame:
        """The match of the scenes of the month alone, with the scenes' own columns beside it."""
        match = pq.read_table(str(self.planner.store.matchup(key, month))).to_pandas()
        scenes = self.scenes(key, month)
        assert list(match["scene_key"]) == list(scenes["scene_key"]), "one row a row of the availability file, in its order"
        return pd.concat([match, scenes.drop(columns="scene_key")], axis=1)


def settings_of(folder: Path, declared: Mapping[str, Any], *, holdings: Path | str | None, months: Sequence[Month], **changes: Any) -> Any:
    """Settings of a world: nothing from outside, everything in scope, a coarse region."""
    config = folder / "build.toml"
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text("")
    where: dict[str, Any] = {"source": "file", "path": str(holdings)}
    if holdings is None or holdings == "postgis":
        where = {"source": holdings or "off"}
    overrides: dict[str, Any] = {
        "data": str(folder / "data"),
        "grid": {"resolution": 0.5, "extent": [0, 30, 12, 42], "threads": 1},
        "window": {"start": min(months).start.date(), "end": max(months).end.date() - dt.timedelta(days=1)},
        "sensors": {"keys": list(declared), "declared": dict(declared)},
        "area": {"scope": "all"},
        "holdings": where,
        "scan": {"retries": 0, "backoff_seconds": 0, "timeout_seconds": 20},
        "providers": {"127.0.0.1": {"requests_per_second": 1000}},
    }
    where = changes.pop("where", where)
    overrides["holdings"] = where
    if "min_cover" in changes:
        where["min_cover"] = changes.pop("min_cover")
    for section, values in changes.items():
        overrides[section] = {**overrides.get(section, {}), **values} if isinstance(values, Mapping) else values
    return load_settings(config, overrides, environment=False)


def build_world(
    folder: Path,
    declared: Mapping[str, Any],
    *,
    holdings: Path | str | None,
    months: Sequence[Month] = (JUNE,),
    steps: Sequence[str] = STEPS,
    bbox: tuple[float, float, float, float] | None = None,
    **changes: Any,
) -> World:
    """Build the sensors over the months.

    ``holdings`` is a file, ``"postgis"``, or ``None``, which turns the source of holdings off; ``changes`` are settings by section.
    """
    world = World(Planner.from_settings(settings_of(folder, declared, holdings=holdings, months=months, **changes), bbox=bbox))
    try:
        world.reports = build(world.planner, steps=steps)  # type: ignore[arg-type]
    except PlannerError as error:
        world.error = error
    return world


__all__ = [
    "ACTIONS",
    "JUNE",
    "UTC",
    "Catalogue",
    "Lies",
    "Month",
    "World",
    "at",
    "build_world",
    "holding",
    "item",
    "leaning",
    "sensor",
    "settings_of",
    "stamp",
    "write_holdings",
]
