"""Targets that planners saved on the page: kept beside the data, and read together with the file or table that the settings name.

That file or table is its owner's, and never written.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely
from upath import UPath

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.redaction import printable
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.locks import LockError, LockTimeout, exclusive
from coverage_pipeline.storage.metadata import FileMetadata
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet, write_parquet

PREFIX = "saved-"
"""Of the ids of saved targets; the rest is a digest of the outline."""
MOST_SAVED = 1_000
LONGEST_NAME, LONGEST_GROUP = 120, 60
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("group", pa.string()),
        ("desired", pa.float64()),
        ("who", pa.string()),
        ("saved_at", pa.string()),
        ("geometry", pa.binary()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class SavedTargetsMetadata(FileMetadata):
    """What ``saved_targets.parquet`` says of itself."""

    changed_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True)
class SavedTarget:
    """One saved target."""

    id: str
    name: str
    group: str
    desired: float | None
    """Clear observations a month for every sensor; None: the sensor's own cadence."""
    who: str
    saved_at: str
    """UTC, ISO 8601."""
    area_km2: float


def saved_targets(store: Store) -> gpd.GeoDataFrame:
    """The saved targets as rows of a file of targets, in the order they were saved, EPSG:4326; no rows where none is.

    Raises ``LocationsError`` for a file that cannot be read: to go on without them would be to want less than planners asked for.
    """
    table = _read(store.saved_targets)
    shapes = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    columns = {name: table[name].to_pandas() for name in ("id", "name", "group", "desired")}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


def list_saved(store: Store) -> list[SavedTarget]:
    """Who saved what, in the order they were saved; raises ``LocationsError`` as ``saved_targets`` does."""
    table = _read(store.saved_targets)
    sizes = ellipsoid_km2(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))
    rows = table.drop_columns(["geometry"]).to_pylist()
    return [SavedTarget(**row, area_km2=float(size)) for row, size in zip(rows, sizes, strict=True)]


def save_target(store: Store, outline: shapely.Geometry, name: str, *, who: str, group: str = "", desired: float | None = None) -> str:
    """Keep an outline (degrees, valid, an area) as a target, which counts from the next build on; its id.

    Raises ``LocationsError`` for a name that is empty or too long, a ``desired`` that is not 0 to 31, an outline that is saved already, and
    where it cannot be written.
    """
    name, group = (" ".join(text.split()) for text in (name, group))
    for text, most, what in ((name, LONGEST_NAME, "name"), (group, LONGEST_GROUP, "group")):
        if len(text) > most or text != printable(text, 10 * most):
            raise LocationsError(f"the {what} of a target has at most {most} printable characters")
    if not name:
        raise LocationsError("a target needs a name: type one")
    if desired is not None and not (math.isfinite(desired) and 0 <= desired <= 31):
        raise LocationsError(f"{desired:g} clear observations a month are not 0 to 31")
    wkb = shapely.to_wkb(shapely.normalize(outline))
    key = PREFIX + hashlib.sha256(wkb).hexdigest()[:8]
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    row = {"id": key, "name": name, "group": group, "desired": desired, "who": who, "saved_at": now, "geometry": wkb}
    with _alone(store):
        before = _read(store.saved_targets)
        for other, title, by in zip(*(before[column].to_pylist() for column in ("id", "name", "who")), strict=True):
            if other == key:
                raise LocationsError(f"this area is a target already: {printable(title, LONGEST_NAME)}, saved by {printable(by, 80)}")
        if before.num_rows >= MOST_SAVED:
            raise LocationsError(
                f"{MOST_SAVED:,} targets are saved, which is the most: remove some, or keep them in a file (COVERAGE_TARGETS)"
            )
        _write(store.saved_targets, pa.concat_tables([before, pa.Table.from_pylist([row], schema=_SCHEMA)]), now)
    return key


def remove_saved(store: Store, key: str) -> None:
    """Let go of a saved target; raises ``LocationsError`` where there is none of that id, and where it cannot be written."""
    with _alone(store):
        before = _read(store.saved_targets)
        others = np.array(before["id"].to_pylist(), dtype=object) != key
        if others.all():
            raise LocationsError(
                f"no saved target has the id {printable(key, 40)}: it is in the file or table of targets, or removed already"
            )
        _write(store.saved_targets, before.filter(pa.array(others, pa.bool_())), dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))


def _read(path: UPath) -> pa.Table:
    try:
        if not path.exists():
            return _SCHEMA.empty_table()
        table, stored = read_parquet(path, _SCHEMA.names)
        SavedTargetsMetadata.of(stored)
        return table.select(_SCHEMA.names).cast(_SCHEMA)
    except (StoreError, OSError, pa.ArrowException) as error:
        words = printable(error)
        raise LocationsError(f"the saved targets cannot be read: {words}; mend {path}, or move it away to go on without them") from None


def _write(path: UPath, table: pa.Table, now: str) -> None:
    try:
        write_parquet(path, as_geoparquet(table), SavedTargetsMetadata(changed_at=now))
    except (StoreError, OSError) as error:
        raise LocationsError(f"the target cannot be saved: {printable(error)}; check COVERAGE_DATA") from None


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """One writer at a time: two who save at once both find theirs kept."""
    path = store.saved_targets
    try:
        with exclusive(path.parent / f".{path.name}.lock", label="the saved targets", timeout=60.0):
            yield
    except (LockError, LockTimeout) as error:
        raise LocationsError(f"the targets cannot be changed now: {printable(error)}") from None
