"""Grid available scenes to cells: number of scenes, clear scenes, and days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xarray as xr
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.geometry.wkb import ragged_from_wkb
from coverage_pipeline.grid.bands import Engine
from coverage_pipeline.grid.celltable import CELL_SCHEMA, COUNT, DAYS, NUMBER, AreaKnown, cell_coords, cell_table, dense
from coverage_pipeline.grid.spec import GridSpec, cells_within
from coverage_pipeline.grid.statistics import statistics_in_bands
from coverage_pipeline.months import Month, window_months
from coverage_pipeline.scenes.metadata import AvailableMetadata, ScenesMetadata
from coverage_pipeline.scenes.schema import SCAN_STATUS, SCENES_SCHEMA, SCENES_VERSION
from coverage_pipeline.sensors.registry import CloudMeaning, CoverageSensor
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.paths import storage_path
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_metadata, read_parquet, write_cells

STATISTICS_COLUMNS = ["pass_time", "in_month", "cloud_cover", "geometry"]
"""Columns of the scenes file that ``availability_tables`` reads."""


def is_clear(cloud: NDArray[np.float64], cloud_lt: float, meaning: CloudMeaning) -> NDArray[np.bool_]:
    """Clear scenes (n,): cloud below the threshold in percent, or a sensor that sees through cloud. Unknown (NaN) is never clear."""
    return np.ones(cloud.shape, bool) if meaning == "not_applicable" else cloud < cloud_lt


def read_scenes(path: UPath, columns: Sequence[str], extent: BBox | None = None) -> tuple[pa.Table, ScenesMetadata]:
    """Columns and metadata of a scenes file; with ``extent``, only the scenes whose bounding box meets it.

    ``extent`` is west, south, east, north in degrees. Raises ``StoreError`` if the file is missing, not a scenes file, or of another
    schema version.
    """
    filters = None
    if extent is not None:
        west, south, east, north = extent
        box = {corner: pc.field("bbox", corner) for corner in ("xmin", "ymin", "xmax", "ymax")}
        filters = (box["xmin"] < east) & (box["xmax"] > west) & (box["ymin"] < north) & (box["ymax"] > south)
    stored = read_metadata(path)
    if stored.get("version", SCENES_VERSION) != SCENES_VERSION:
        raise StoreError(f"{path} has schema version {stored['version']}, this program reads {SCENES_VERSION}: scan that month again")
    table, stored = read_parquet(path, list(columns), filters=filters)
    for name in columns:
        actual, expected = table.schema.field(name).type, SCENES_SCHEMA.field(name).type
        if actual != expected:
            raise StoreError(f"{path}: {name} is {actual}, not {expected}: scan that month again")
    return table, ScenesMetadata.of(stored)


def known_area(status: str, bbox: Sequence[float] | None, grid: GridSpec) -> AreaKnown:
    """The cells that a scan of this status and area makes known.

    A cell that the scanned box covers only partly is not known, because scenes over its other part were not searched. Raises
    ``ValueError`` for an unknown status.
    """
    if status not in SCAN_STATUS:
        raise ValueError(f"unknown scan status {status!r}; use one of {', '.join(SCAN_STATUS)}")
    if status in ("not_scanned", "not_applicable"):
        return AreaKnown(everywhere=False)
    partial = status == "partial"
    if bbox is None:
        return AreaKnown(everywhere=not partial, found_counts=partial)
    mask = cells_within(bbox, grid)
    return AreaKnown(everywhere=False, mask=mask, found_counts=partial)


def availability_tables(
    scenes: pa.Table, grid: GridSpec, *, cloud_lt: float, cloud: CloudMeaning = "percentage", engine: Engine | None = None
) -> Iterator[pa.Table]:
    """Cells covered by a scene of the month, one row per cell (``CELL_SCHEMA``), in pieces of ascending cells.

    ``scenes`` holds one month: columns pass_time, in_month, cloud_cover (percent, null: not known) and geometry (WKB, normalised). Only
    scenes with ``in_month`` count. ``cloud_lt`` is in percent. Raises ``ValueError`` if a geometry is unusable.
    """
    scenes = scenes.filter(scenes["in_month"])
    percent = scenes["cloud_cover"].to_numpy(zero_copy_only=False).astype(np.float64)
    bands = statistics_in_bands(
        *ragged_from_wkb(scenes["geometry"]),
        day=pc.day(scenes["pass_time"]).to_numpy().astype(np.uint8),
        cloud=percent,
        clear=is_clear(percent, cloud_lt, cloud),
        grid=grid,
        engine=engine,
    )
    return (cell_table(band) for band in bands)


def availability_table(scenes: pa.Table, grid: GridSpec, *, cloud_lt: float, cloud: CloudMeaning = "percentage") -> pa.Table:
    """``availability_tables`` as one table."""
    return pa.concat_tables([CELL_SCHEMA.empty_table(), *availability_tables(scenes, grid, cloud_lt=cloud_lt, cloud=cloud)])


def write_availability_stats(
    sensor: CoverageSensor, month: Month, store: Store, grid: GridSpec, cloud_lt: float, engine: Engine | None = None
) -> AvailableMetadata:
    """Grid the scenes of one sensor and month and write the file of cells; returns its metadata.

    Raises ``StoreError`` if the scenes file of the month is missing or damaged.
    """
    scenes, scan = read_scenes(store.scenes(sensor.key, month), STATISTICS_COLUMNS, grid.extent)
    tables = availability_tables(scenes, grid, cloud_lt=cloud_lt, cloud=sensor.cloud, engine=engine)
    metadata = AvailableMetadata(**asdict(scan), cloud=sensor.cloud, grid=grid.describe(), cloud_lt=cloud_lt, cells=0)
    return write_cells(store.stats("available", sensor.key, month), CELL_SCHEMA, tables, metadata)


_FIELDS = {
    "scenes_count": ("scenes", COUNT),
    "cloud_free_scene_count": ("clear", COUNT),
    "cloud_unknown_scene_count": ("unknown", COUNT),
    "mean_scene_cloud_pct": ("cloud_mean", NUMBER),
    "available_days": ("days", DAYS),
    "clear_days": ("clear_days", DAYS),
}
"""Available variables of the cube, each with its column of ``CELL_SCHEMA`` and its kind."""


def availability_fields(table: pa.Table, grid: GridSpec, known: AreaKnown, rows: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
    """Available variables of one partition, each a dense array on the grid or on its ``rows`` (see ``celltable.dense``)."""
    return {variable: dense(table, column, grid, kind, known, rows) for variable, (column, kind) in _FIELDS.items()}


def availability_stats(
    parquet: Path | UPath | str,
    grid: GridSpec,
    *,
    freq: str = "MS",
    cloud_lt: float = 10.0,
    cloud: CloudMeaning = "percentage",
) -> xr.Dataset:
    """Dataset of one scenes file with the cube's Available variables on (sensor, time, lat, lon), or (sensor, time, cells) for H3.

    Cells outside the scanned area are not known (NaN, bit 31). ``cloud_lt`` is the percentage below which a scene is clear. Raises
    ``ValueError`` for a ``freq`` other than "MS", ``StoreError`` for a file that this package did not write.
    """
    if freq != "MS":
        raise ValueError(f"freq {freq!r} is not supported: use 'MS', calendar months")
    path = storage_path(parquet)
    if "start" not in read_metadata(path):
        raise StoreError(f"{parquet} is not a file of scenes")
    table, metadata = read_scenes(path, STATISTICS_COLUMNS, grid.extent)
    last_day = dt.date.fromisoformat(metadata.end[:10]) - dt.timedelta(days=1)
    months = window_months(metadata.start[:10], last_day)
    frames = [_month_dataset(table, month, grid, metadata, cloud_lt, cloud) for month in months]
    return xr.concat(frames, dim="time").assign_attrs(sensor=metadata.sensor, scan_status=metadata.status)


def _month_dataset(
    table: pa.Table, month: Month, grid: GridSpec, metadata: ScenesMetadata, cloud_lt: float, cloud: CloudMeaning
) -> xr.Dataset:
    passed = table["pass_time"]
    inside = pc.and_(
        pc.greater_equal(passed, pa.scalar(month.start, passed.type)),
        pc.less(passed, pa.scalar(month.end, passed.type)),
    )
    cells = availability_table(table.filter(inside), grid, cloud_lt=cloud_lt, cloud=cloud)
    known = known_area(metadata.status, metadata.bbox, grid)
    return fields_dataset(availability_fields(cells, grid, known), [metadata.sensor], [month], grid)


def fields_dataset(fields: dict[str, NDArray[Any]], sensors: Sequence[str], months: Sequence[Month], grid: GridSpec) -> xr.Dataset:
    """Arrays of one partition as a decoded Dataset: counts as float32, NaN: not known."""
    coords: dict[str, Any] = {"sensor": np.array(sensors, dtype=object), "time": np.array([m.to_datetime64() for m in months])}
    ds = xr.Dataset(coords=coords | cell_coords(grid))
    for name, values in fields.items():
        decoded = values.astype(np.float32) if values.dtype.kind == "i" else values
        if values.dtype.kind == "i":
            decoded[values < 0] = np.nan
        ds[name] = (("sensor", "time", *grid.dims), decoded[None, None])
    return ds
