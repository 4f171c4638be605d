"""The backlog of a window: several sensors and months, of all targets or some of them, with what could not be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely

from coverage_pipeline.cube.schema import CoverageError, DesiredCadence
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.groups import SensorGroup
from coverage_pipeline.demand.partition_files import PartitionFiles
from coverage_pipeline.demand.target_months import TargetMonth, read_target_month
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.bbox import BBox, split_bbox
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.requests.backlog import Backlog, make_backlog, merged, read_backlog_files
from coverage_pipeline.requests.cell_demand import cell_demand, cell_group_demand
from coverage_pipeline.requests.demands import Demand, group_demand, sensor_demand
from coverage_pipeline.requests.places import CellPlaces, Places, TargetPlaces
from coverage_pipeline.sensors.downloads import Download
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store


@dataclass(frozen=True)
class BacklogQuery:
    """Which backlog is asked for."""

    sensors: Sequence[CoverageSensor]
    months: Sequence[Month]
    groups: Sequence[SensorGroup] = ()
    """Groups of sensors whose cadence counts, too; those whose members are all among ``sensors``."""
    target_ids: Sequence[str] = ()
    """Ids or names of targets; empty: all."""
    target_groups: Sequence[str] = ()
    """Groups of targets; empty: all."""
    bbox: BBox | None = None
    """Only targets that meet it, or cells within it; degrees."""


@dataclass(frozen=True)
class BacklogAnswer:
    """The backlog, and which partitions say nothing."""

    backlog: Backlog
    unknown: list[str] = field(default_factory=list)
    """Partitions that could not be asked, or are not known, a sentence each: what they lack is not in the backlog."""


def backlog_of(
    query: BacklogQuery,
    store: Store,
    targets: Targets,
    grid: GridSpec,
    *,
    cloud_lt: float,
    desired: DesiredCadence,
    registry: Mapping[str, CoverageSensor],
    downloads: Mapping[str, Download] | None = None,
    on_month: Callable[[Month], None] | None = None,
) -> BacklogAnswer:
    """The scenes worth getting for what is asked; of ``targets`` where there are some, else of the cells of ``grid``.

    A month is a cover of its own, because no scene closes a day of another month. Raises ``LocationsError`` for targets that do not exist.
    """
    wanted = wanted_targets(query, targets) if len(targets) else None
    places: Places = CellPlaces(grid) if wanted is None else TargetPlaces(targets)
    inside = _cells_within(query.bbox, grid) if wanted is None else wanted
    backlogs: list[Backlog] = []
    unknown: list[str] = []
    for month in query.months:
        parts, demands = [], []
        members: dict[str, TargetMonth] = {}
        for sensor in query.sensors:
            try:
                parts.append(_read(sensor, month, store, unknown))
                if wanted is not None:
                    members[sensor.key] = read_target_month(sensor, month, store, targets)
                    demands.append(sensor_demand(members[sensor.key]))
                else:
                    demands.append(cell_demand(sensor, month, store.zarr, desired, registry))
            except PlannerError as error:
                unknown.append(f"{sensor.key} {month}: {error}")
        for group in query.groups:
            try:
                if wanted is not None:
                    demands.append(group_demand(group, month, members, targets))
                else:
                    demands.append(cell_group_demand(group, month, store.zarr, [sensor.key for sensor in query.sensors]))
            except CoverageError as error:
                unknown.append(f"{group.key} {month}: {error}")
        some = [_restricted(demand, inside) for demand in demands]
        backlogs.append(make_backlog(parts, some, places, cloud_lt=cloud_lt, downloads=downloads))
        if on_month:
            on_month(month)
    return BacklogAnswer(merged(backlogs), unknown)


def _read(sensor: CoverageSensor, month: Month, store: Store, unknown: list[str]) -> PartitionFiles:
    part = read_backlog_files(sensor, month, store)
    if part.extract.status not in ("read", "not_held"):
        unknown.append(f"{sensor.key} {month}: the holdings are not known ({part.extract.status}), so nothing is known to be missing")
    elif part.scan.status in ("partial", "not_scanned"):
        unknown.append(f"{sensor.key} {month}: the scan is {part.scan.status}; more scenes may exist than are listed")
    return part


def wanted_targets(query: BacklogQuery, targets: Targets) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which targets a query is about, ``(targets,)``.

    Raises ``LocationsError`` where an id, name or group does not exist, or no target is left.
    """
    table = targets.table
    chosen = np.ones(len(targets), bool)
    if query.target_ids:
        known = set(table["id"]) | set(table["name"])
        if missing := sorted(set(query.target_ids) - known):
            raise LocationsError(f"no target {', '.join(missing)}; coverage-planner targets check lists them")
        chosen &= table["id"].isin(list(query.target_ids)).to_numpy() | table["name"].isin(list(query.target_ids)).to_numpy()
    if query.target_groups:
        if missing := sorted(set(query.target_groups) - set(table["group"])):
            raise LocationsError(f"no group of targets {', '.join(missing)}; there are {', '.join(sorted(set(table['group']) - {''}))}")
        chosen &= table["group"].isin(list(query.target_groups)).to_numpy()
    if query.bbox is not None:
        box = shapely.union_all([shapely.box(*part) for part in split_bbox(query.bbox)])
        chosen &= shapely.intersects(table.geometry.to_numpy(), box)
    if not chosen.any():
        raise LocationsError("no target is left by --targets, --groups and --bbox together")
    return chosen


def _cells_within(bbox: BBox | None, grid: GridSpec) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if bbox is None:
        return np.ones(int(np.prod(grid.shape)), bool)
    from coverage_pipeline.grid.spec import cells_within

    return cells_within(bbox, grid).reshape(-1)


def _restricted(demand: Demand, inside: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Demand:
    return Demand(demand.of, demand.sensors, np.where(inside, demand.deficit, 0), np.where(inside, demand.days, np.uint32(0)))
