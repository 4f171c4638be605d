"""Each step of one sensor and month, with the settings of a build and its store.

A step imports what it needs when it runs: a command that computes the gap again starts without the clients of catalogues and databases.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely.errors import ShapelyError

from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.report import ScanReport, stored_report
from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.description import update_snapshot
from coverage_pipeline.cube.levels import strip_rows
from coverage_pipeline.cube.locking import metadata_lock
from coverage_pipeline.cube.schema import CubeSpec, PartitionMoved
from coverage_pipeline.demand.partition import write_partition_gap
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.grid.bands import Engine, refuse_too_large, row_strips
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor, registry
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.storage.leftovers import clean_files
from coverage_pipeline.storage.paths import is_local, sibling
from coverage_pipeline.storage.store import Store

if TYPE_CHECKING:
    from coverage_pipeline.catalog.scan_job import OnProgress
    from coverage_pipeline.cube.merge import MergeReport
    from coverage_pipeline.demand.summary_schema import SummaryMetadata
    from coverage_pipeline.demand.target_schema import TargetStatsMetadata
    from coverage_pipeline.demand.target_table import Targets
    from coverage_pipeline.holdings.metadata import HeldMetadata, HoldingsMetadata
    from coverage_pipeline.matchup.metadata import MatchupMetadata
    from coverage_pipeline.requests.backlog_schema import BacklogMetadata
    from coverage_pipeline.requests.settlement import Settled
    from coverage_pipeline.requests.store import RequestStore
    from coverage_pipeline.scenes.metadata import AvailableMetadata

log = logging.getLogger(__name__)
RETRY_PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds before what another run rewrote is read again, so often."""


@contextlib.contextmanager
def _naming(sensor: CoverageSensor, month: Month) -> Iterator[None]:
    """Turn errors of a file's contents (a footprint off the map, a count too large for its type) into errors that name the partition."""
    try:
        yield
    except PlannerError:
        raise
    except (ValueError, OverflowError, ShapelyError) as error:
        raise PlannerError(f"{sensor.key} {month}: {error}; if a file was changed by hand, materialise it again") from error


@dataclass(frozen=True)
class Planner:
    """The settings of a build bound to its store: each method materialises one step of one sensor and month.

    Steps read what former steps wrote, never memory, so that any may be run alone, again, and in any order of partitions.
    Each returns what a person wants to know of it.
    """

    settings: PlannerSettings
    store: Store
    spec: CubeSpec
    include_holdings: bool = True
    """Whether holdings are read and matched. Where not, no file of them is written, and the cube says ``not_read``."""
    options: ScanOptions = field(default_factory=ScanOptions)
    bbox: BBox | None = None
    share: int = 1
    """Partitions under way at once, which share the memory budget."""

    @classmethod
    def from_settings(cls, settings: PlannerSettings | None = None, *, bbox: BBox | None = None) -> Planner:
        """The planner of a configuration."""
        settings = settings or load_settings()
        return cls(
            settings=settings,
            store=settings.store(),
            spec=settings.cube_spec(),
            options=settings.scan_options(),
            bbox=bbox,
        )

    @property
    def grid(self) -> GridSpec:
        """The cube's grid; raises ``GridTooLarge`` for one whose masks alone are more than the memory budget."""
        refuse_too_large(self.spec.grid, self.settings.engine().memory_bytes)
        return self.spec.grid

    @property
    def engine(self) -> Engine:
        """How much of the machine a gridding may take."""
        whole = self.settings.engine()
        return replace(whole, memory_bytes=whole.memory_bytes // self.share)

    @cached_property
    def sensors(self) -> dict[str, CoverageSensor]:
        """Sensors of this build by key."""
        return registry(self.spec.sensors)

    @cached_property
    def targets(self) -> Targets:
        """The targets that the settings name, none where they name none; raises ``LocationsError`` naming every row that cannot be used."""
        from coverage_pipeline.demand.targets import configured_targets

        return configured_targets(self.settings)

    @cached_property
    def _area(self) -> NDArray[np.bool_]:
        from coverage_pipeline.demand.scope import area_mask

        area = self.settings.area
        targets = self.targets.table if area.scope == "targets" else None
        return area_mask(area.scope, self.grid, coastal_margin_km=area.coastal_margin_km, targets=targets)

    @cached_property
    def _requests(self) -> RequestStore:
        from coverage_pipeline.requests.database import RequestDatabase
        from coverage_pipeline.requests.store import RequestStore

        return RequestStore(RequestDatabase(self.settings.request_database()))

    def ensure_cube(self) -> None:
        """Make the cube or grow its axes, so that every partition of this build has its place.

        Raises ``LocationsError`` before anything is made where no target lies in the grid, or within any sensor's reach.
        """
        from coverage_pipeline.demand.scope import require_in_reach, scope_mask

        grid = self.grid
        if self.settings.area.scope == "targets":
            require_in_reach(self.spec.sensors, self._area, grid)
        ensure_cube(self.store.zarr, self.spec, lambda sensor: scope_mask(sensor, self._area, grid))
        if is_local(self.store.root) or is_local(self.store.parquet_dir):
            with metadata_lock(self.store.zarr):
                clean_files(self.store, self.sensors)

    def availability(self, sensor: CoverageSensor, month: Month) -> ScanReport:
        """Scan the catalogue; raises ``CatalogError`` and keeps the former file where it fails."""
        return self.scan(sensor, month)

    def scan(
        self,
        sensor: CoverageSensor,
        month: Month,
        *,
        source_index: int | None = None,
        partial: bool | None = None,
        progress: OnProgress | None = None,
    ) -> ScanReport:
        """Scan as ``availability`` does: one source alone, publishing what was found of a scan that is not whole, or with progress."""
        from coverage_pipeline.catalog.scan import scan_month

        options = self.options if partial is None else replace(self.options, publish_partial=partial)
        return scan_month(sensor, month, self.store, bbox=self.bbox, source_index=source_index, options=options, progress=progress)

    def settle_doubts(self, sensor: CoverageSensor, months: Sequence[Month]) -> dict[Month, ScanReport]:
        """Judge again which scanned months are too empty, now that those around them are scanned; the new reports of those that changed."""
        from coverage_pipeline.catalog.settling import settle_doubts

        changed = settle_doubts(sensor, months, self.store, bbox=self.bbox, options=self.options)
        reports = {month: stored_report(sibling(self.store.scenes(sensor.key, month), ".scan.json")) for month in changed}
        return {month: report for month, report in reports.items() if report is not None}

    def holdings(self, sensor: CoverageSensor, month: Month) -> HoldingsMetadata:
        """Extract the month's holdings and the last instants held."""
        from coverage_pipeline.holdings.extract import extract_month

        return extract_month(sensor, month, self.store, self.settings)

    def availability_stats(self, sensor: CoverageSensor, month: Month) -> AvailableMetadata:
        """Grid the scenes that exist."""
        from coverage_pipeline.scenes.statistics import write_availability_stats

        with _naming(sensor, month):
            return write_availability_stats(sensor, month, self.store, self.grid, self.spec.cloud_lt, self.engine)

    def holdings_stats(self, sensor: CoverageSensor, month: Month) -> HeldMetadata:
        """Grid the scenes we hold, as the matchup says which they are."""
        from coverage_pipeline.matchup.held_cells import write_holdings_stats

        with _naming(sensor, month):
            return write_holdings_stats(sensor, month, self.store, self.grid, self.spec.cloud_lt, self.engine)

    def target_stats(self, sensor: CoverageSensor, month: Month) -> TargetStatsMetadata | None:
        """Coverage and action of each target; None where no targets are set. The targets themselves are kept beside, with their digest."""
        if not len(self.targets):
            return None
        from coverage_pipeline.demand.target_stats import write_target_stats
        from coverage_pipeline.demand.targets import keep_targets

        keep_targets(self.store, self.targets)
        with _naming(sensor, month):
            return write_target_stats(
                sensor,
                month,
                self.store,
                self.targets,
                cloud_lt=self.spec.cloud_lt,
                default_desired=self.settings.desired().for_sensor(sensor.key, self.sensors),
                in_group=any(sensor in group.members for group in self.settings.groups().values()),
            )

    def matchup(self, sensor: CoverageSensor, month: Month) -> MatchupMetadata:
        """Match scenes with holdings, and grid what exists and is not held."""
        from coverage_pipeline.matchup.month import match_month

        wanted = self.settings.holdings
        with _naming(sensor, month):
            return match_month(
                sensor,
                month,
                self.store,
                self.grid,
                cloud_lt=self.spec.cloud_lt,
                tolerance_seconds=wanted.match_tolerance_seconds,
                min_iou=wanted.min_iou,
                min_cover=wanted.min_cover,
                engine=self.engine,
            )

    def coverage(self, sensor: CoverageSensor, month: Month) -> MergeReport:
        """Merge the three statistics into the partition's region of the cube; from the start where another run rewrote one of them."""
        from coverage_pipeline.cube.merge import StatisticsMoved

        for pause in RETRY_PAUSES:
            try:
                return self._coverage(sensor, month)
            except StatisticsMoved as moved:
                log.info("%s %s: %s; reading them again", sensor.key, month, moved)
                time.sleep(pause)
        return self._coverage(sensor, month)

    def _coverage(self, sensor: CoverageSensor, month: Month) -> MergeReport:
        from coverage_pipeline.cube.merge import merge_partition

        holdings = self.settings.holdings if self.include_holdings else None
        with _naming(sensor, month):
            return merge_partition(sensor, month, self.store, self.spec, holdings, self.strips())

    def strips(self) -> list[tuple[int, int] | None]:
        """Rows of the pieces that a partition is merged in."""
        return row_strips(self.grid, self.engine, multiple_of=strip_rows(self.grid))

    def gap(self, sensor: CoverageSensor, month: Month) -> dict[str, int]:
        """Compute the gap of a partition from its region of the cube and write it beside it; again where another run rewrote that."""
        for pause in RETRY_PAUSES:
            try:
                cells = self._gap(sensor, month)
            except PartitionMoved as moved:
                log.info("%s; computing the gap again", moved)
                cells = None
            if cells is not None:
                return cells
            time.sleep(pause)
        raise PartitionMoved(
            f"partition {month.key}|{sensor.key} of {self.store.zarr} was rewritten by another run each time its gap was computed; "
            "materialise gap again when that run has ended"
        )

    def _gap(self, sensor: CoverageSensor, month: Month) -> dict[str, int] | None:
        return write_partition_gap(sensor, month, self.store.zarr, self.spec, self.settings.desired(), self.sensors, self.strips())

    def backlog(self, sensor: CoverageSensor, month: Month) -> BacklogMetadata:
        """Choose the scenes worth getting: for targets where there are some, else for cells."""
        from coverage_pipeline.demand.target_months import read_target_month
        from coverage_pipeline.requests.backlog import read_backlog_files, write_backlog, write_no_backlog
        from coverage_pipeline.requests.cell_demand import cell_demand
        from coverage_pipeline.requests.demands import sensor_demand
        from coverage_pipeline.requests.places import CellPlaces, Places, TargetPlaces

        with _naming(sensor, month):
            places: Places
            part = read_backlog_files(sensor, month, self.store)
            most = self.settings.requests.most_cell_scenes
            if not len(self.targets) and part.scenes.num_rows > most:
                words = f"no targets, and {part.scenes.num_rows:,} scenes are more than requests.most_cell_scenes ({most:,})"
                return write_no_backlog(part, self.store, f"{words}: coverage-planner backlog chooses for cells when it is asked")
            if len(self.targets):
                demand = sensor_demand(read_target_month(sensor, month, self.store, self.targets))
                places = TargetPlaces(self.targets)
            else:
                demand = cell_demand(sensor, month, self.store.zarr, self.settings.desired(), self.sensors)
                places = CellPlaces(self.grid)
            return write_backlog(
                part,
                demand,
                places,
                self.store,
                targets_digest=self.targets.digest if len(self.targets) else "",
                cloud_lt=self.spec.cloud_lt,
                downloads=self.settings.sensors.download_overrides(),
            )

    def summary(self, sensor: CoverageSensor, month: Month) -> SummaryMetadata:
        """Sum up what is met and what is missing, with what is not known; each run adds to the partition's history."""
        from coverage_pipeline.demand.summary import write_summary
        from coverage_pipeline.requests.summary_costs import backlog_costs

        with _naming(sensor, month):
            targets = self.targets if len(self.targets) else None
            costs = backlog_costs(sensor, month, self.store, targets)
            return write_summary(sensor, month, self.store, self.spec, self.settings.desired(), self.sensors, targets, costs, self.strips())

    def settle_requests(self, sensor: CoverageSensor, month: Month) -> list[Settled]:
        """Move the open requests of the partition by its evidence; nothing where no request was ever recorded."""
        from coverage_pipeline.requests.settlement import settle_requests

        with _naming(sensor, month):
            return settle_requests(sensor, month, self.store, self._requests, cloud_lt=self.spec.cloud_lt)

    def settled(self, sensor: CoverageSensor, month: Month) -> list[Settled]:
        """``settle_requests`` for runs: a database of requests that cannot be had holds up no build, and the next run settles them."""
        from coverage_pipeline.requests.errors import RequestError

        try:
            return self.settle_requests(sensor, month)
        except RequestError as error:
            log.warning("%s %s: requests are not settled: %s", sensor.key, month, error)
            return []

    def finish(self) -> str:
        """Bring the cube's ``catalog_snapshot`` up to date; returns it."""
        return update_snapshot(self.store.zarr)
