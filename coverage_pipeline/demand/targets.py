"""The areas that planners care about: read from a file, checked, and kept with a digest that tells one set from another."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.saved_targets import saved_targets
from coverage_pipeline.demand.target_file import ENVIRONMENT, read_target_file
from coverage_pipeline.demand.target_postgis import TargetsConfig, TargetTable
from coverage_pipeline.demand.target_rows import TargetProblem, check_outlines, check_targets
from coverage_pipeline.demand.target_table import Targets, TargetsMetadata
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.redaction import public_address
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_metadata, read_parquet, write_parquet

_MOST_NAMED = 20
_log = logging.getLogger(__name__)


def fetch_targets(source: str | None = None) -> gpd.GeoDataFrame:
    """The areas that planners care about, one row a target: ``id``, ``name``, ``geometry`` in EPSG:4326.

    Parameters
    ----------
    source
        Path or URL of a GeoJSON, GeoParquet, GeoPackage, Shapefile, KML or CSV; None takes the environment's ``COVERAGE_TARGETS``.

    Returns
    -------
    No rows where neither is set: then nothing is clipped to targets. ``id`` is the file's own, or the row number from 0;
    ``name`` the file's own, or the id. Polygons are valid and cut at the antimeridian; ``buffer_km`` grows them, and makes areas of points
    and lines; without it these stay as they are.

    Raises
    ------
    LocationsError
        The file is missing, unreadable or has no rows; rows have no usable geometry, or two have one id (all are named); there is no CRS
        and the coordinates are not degrees.

    """
    source = next((text for text in (source, os.environ.get(ENVIRONMENT)) if text and text.strip()), None)
    if source is None:
        return _no_targets()
    table = read_target_file(source)
    ids, shapes, _, problems = check_outlines(table, buffer_needed=False)
    if problems:
        raise _refusal(public_address(source), problems)
    names = table["name"].astype("string").fillna(pd.Series(ids, dtype="string")) if "name" in table.columns else ids
    return gpd.GeoDataFrame({"id": ids, "name": np.asarray(names, dtype=object)}, geometry=shapes, crs="EPSG:4326")


def targets_union(targets: gpd.GeoDataFrame) -> BaseGeometry:
    """All targets as one geometry; an empty GeometryCollection where there is none."""
    return targets.geometry.union_all() if len(targets) else shapely.GeometryCollection()


def checked_targets(
    source: str | TargetTable | None,
    sensors: Collection[str],
    groups: Collection[str] = (),
    saved: gpd.GeoDataFrame | None = None,
) -> tuple[Targets, list[TargetProblem]]:
    """The usable targets of a file or of a table, with those that were ``saved`` on the page, and why other rows cannot be used.

    ``sensors`` and ``groups`` are the names that a column ``desired_<name>`` may have. Raises ``LocationsError`` for a source that cannot
    be read at all.
    """
    if source is None:
        read, name = _no_targets(), ""
    elif isinstance(source, str):
        read, name = read_target_file(source), public_address(source)
    else:
        read, name = source.read(), source.name
    table, problems = check_targets(read, sensors, groups)
    if saved is not None and len(saved):
        more, refused = check_targets(saved, sensors, groups)
        twice = more["id"].isin(table["id"]).to_numpy()
        problems += [replace(problem, reason=f"of the saved targets {problem.reason}") for problem in refused]
        problems += [TargetProblem(None, key, f"{key} is the id of a saved target and of one in {name}") for key in more["id"][twice]]
        table = pd.concat([table, more[~twice]], ignore_index=True) if len(table) else more
        name = f"{name} and {len(more)} saved on the page" if name else f"{len(more)} saved on the page"
    return Targets(table, digest_of(table), name), problems


def target_source(settings: TargetsConfig) -> str | TargetTable | None:
    """Where the settings say that the targets are: a file, a table, or nowhere. Raises ``LocationsError`` where they name both."""
    named = settings.targets
    if named.table is None:
        return named.path
    if named.path is not None:
        raise LocationsError(f"targets.path and targets.table are both set; unset one ({ENVIRONMENT} sets the path)")
    return TargetTable(settings.db, named.table, named.geom)


def configured_targets(settings: TargetsConfig) -> Targets:
    """The targets that the settings name; raises as ``read_targets`` does."""
    saved = saved_targets(settings.store())
    return read_targets(target_source(settings), settings.registry(), settings.groups(), saved, skip_bad=settings.targets.skip_bad)


def read_targets(
    source: str | TargetTable | None,
    sensors: Collection[str],
    groups: Collection[str] = (),
    saved: gpd.GeoDataFrame | None = None,
    *,
    skip_bad: bool = False,
) -> Targets:
    """The targets that the settings name, and those that were saved on the page; none where there is neither.

    Raises ``LocationsError`` that names every row that cannot be used; with ``skip_bad`` the others go on, and those are in a warning. A
    column that names no sensor is an error in any case.
    """
    if isinstance(source, str) and not source.strip():
        source = None
    targets, problems = checked_targets(source, sensors, groups, saved)
    if problems:
        refusal = _refusal(targets.source, problems)
        if not skip_bad or any(problem.row is None for problem in problems) or not len(targets):
            raise refusal
        _log.warning("%s; the other %d targets go on (targets.skip_bad)", refusal, len(targets))
    return targets


def digest_of(table: gpd.GeoDataFrame) -> str:
    """Tells a table of targets from others: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(column for column in table.columns if column != "geometry"):
        digest.update(name.encode())
        digest.update("\x1f".join(map(repr, table[name].to_list())).encode())
    for wkb in shapely.to_wkb(table.geometry.to_numpy()):
        digest.update(wkb)
    return digest.hexdigest()[:16]


def keep_targets(store: Store, targets: Targets) -> None:
    """Keep the targets beside the statistics made from them (``targets.parquet``, GeoParquet), unless they stand there already."""
    try:
        if TargetsMetadata.of(read_metadata(store.targets)).digest == targets.digest:
            return
    except StoreError:
        pass  # there are none yet, or none that can be read
    columns = {name: pa.array(targets.table[name].to_list()) for name in targets.table.columns if name != "geometry"}
    columns["geometry"] = pa.array(shapely.to_wkb(targets.table.geometry.to_numpy()), pa.binary())
    metadata = TargetsMetadata(
        digest=targets.digest,
        source=targets.source,
        read_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        targets=len(targets),
    )
    write_parquet(store.targets, as_geoparquet(pa.table(columns)), metadata)


def load_targets(store: Store) -> Targets:
    """The targets that ``keep_targets`` kept; raises ``StoreError`` where there are none."""
    table, stored = read_parquet(store.targets)
    metadata = TargetsMetadata.of(stored)
    columns = {name: table[name].to_pandas() for name in table.column_names if name not in ("geometry", "bbox")}
    shapes = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    return Targets(gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326"), metadata.digest, metadata.source)


def _refusal(place: str, problems: Sequence[TargetProblem]) -> LocationsError:
    more = f"\n  and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
    if len(problems) == 1:
        return LocationsError(f"targets in {place}: {problems[0]}; mend or remove it")
    lines = "".join(f"\n  {problem}" for problem in problems[:_MOST_NAMED])
    return LocationsError(f"targets in {place}: {len(problems)} rows cannot be used; mend or remove them:{lines}{more}")


def _no_targets() -> gpd.GeoDataFrame:
    empty = pd.Series([], dtype=object)
    return gpd.GeoDataFrame({"id": empty, "name": empty}, geometry=gpd.GeoSeries([], dtype="geometry"), crs="EPSG:4326")
