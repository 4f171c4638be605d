"""The STAC collection beside a cube, by which others find it, and the day that its catalogue answers are of."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
from upath import UPath

from coverage_pipeline.cube.arrays import Arrays, open_group
from coverage_pipeline.cube.axes import axes_of, grid_in, set_attributes
from coverage_pipeline.cube.levels import dims_on, levels
from coverage_pipeline.cube.locking import metadata_lock
from coverage_pipeline.cube.schema import SCHEMA
from coverage_pipeline.months import UTC
from coverage_pipeline.storage.files import write_bytes
from coverage_pipeline.storage.paths import storage_path


def description_path(path: UPath) -> UPath:
    """The STAC collection beside the cube, ``….stac.json``."""
    return path.parent / f"{path.name.removesuffix('.zarr')}.stac.json"


def update_snapshot(path: UPath | Path | str) -> str:
    """Set ``catalog_snapshot`` to the day of the oldest catalogue answer in the cube (no later than which all is known), and bring the
    description beside the cube up to date.
    """
    path = storage_path(path)
    with metadata_lock(path):
        group = open_group(path, "r+")
        scanned = np.atleast_1d(Arrays(group, path, grid_in(group, path))["scanned_at"][...])
        known = scanned[scanned >= 0]
        snapshot = dt.datetime.fromtimestamp(int(known.min()), UTC).date().isoformat() if known.size else ""
        if group.attrs.get("catalog_snapshot") != snapshot:
            set_attributes(path, catalog_snapshot=snapshot)
        describe(path)
    return snapshot


def describe(path: UPath) -> None:
    """Write the STAC collection beside the cube; the caller holds the lock of its axes."""
    from coverage_pipeline.cube.stac_collection import (  # pystac takes long to import
        HexagonCells,
        ProductVariable,
        RegularCells,
        collection,
    )

    group = open_group(path, "r")
    grid = grid_in(group, path)
    sensors, months = axes_of(group)
    cells: RegularCells | HexagonCells
    cells = RegularCells(grid.bounds, grid.resolution) if grid.h3_res is None else HexagonCells(grid.h3_res, grid.shape[0])
    document_of_cube = collection(
        identifier=path.name.removesuffix(".zarr"),
        title=str(group.attrs.get("title", "Coverage")),
        description=str(
            group.attrs.get("comment", "Which satellite scenes exist, which are held, and what is missing, by sensor, month and cell.")
        ),
        variables={
            name: ProductVariable(dims_on(grid, v), v.dtype, v.long_name, v.units, None if isinstance(v.fill, str) else float(v.fill))
            for name, v in SCHEMA.items()
        },
        sensors=sensors,
        months=(months[0], months[-1]),
        cells=cells,
        updated=dt.datetime.now(UTC),
        catalog_snapshot=str(group.attrs.get("catalog_snapshot", "")),
        href=f"./{path.name}",
        overviews=[level.group for level in levels(grid)],
    )
    document = json.dumps(document_of_cube.to_dict(include_self_link=False), indent=1, allow_nan=False)
    write_bytes(description_path(path), document.encode())
