"""Each step of one sensor and month, with the settings of a build and its store.

A step imports what it needs when it runs: a command that computes the gap again starts without the clients of catalogues and databases.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from shapely.errors import ShapelyError
from upath import UPath

from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.report import ScanReport, stored_report
from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.description import update_snapshot
from coverage_pipeline.cube.levels import strip_rows
from coverage_pipeline.cube.locking import metadata_lock
from coverage_pipeline.cube.read import partition_revision, read_partition
from coverage_pipeline.cube.schema import ACTIONS, HOLDINGS_STATUS, CubeSpec, PartitionMoved
from coverage_pipeline.cube.write import write_coverage, write_gap
from coverage_pipeline.demand.gap import GAP_INPUTS, compute_gap
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.grid.bands import Engine, refuse_too_large, row_strips
from coverage_pipeline.grid.celltable import CELL_SCHEMA, DAYS, AreaKnown, dense
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import CoverageSensor, registry
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.storage.errors import MAKE_AGAIN, StoreError
from coverage_pipeline.storage.leftovers import clean_files
from coverage_pipeline.storage.paths import is_local, sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_cells, read_metadata, write_cells

if TYPE_CHECKING:
    from coverage_pipeline.catalog.scan_job import OnProgress

log = logging.getLogger(__name__)
RETRY_PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds before what another run rewrote is read again, so often."""


class StatisticsMoved(PlannerError):
    """A file of statistics was replaced by another run between two readings of it."""


class StatisticsMixed(PlannerError):
    """The statistics and the matchup of a partition come from different scans or extracts."""


@contextlib.contextmanager
def _naming(sensor: CoverageSensor, month: Month) -> Iterator[None]:
    """What a file's contents make impossible, named by the partition: a footprint off the map, a count too large for its type."""
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
    def _area(self) -> NDArray[np.bool_]:
        from coverage_pipeline.demand.scope import area_mask
        from coverage_pipeline.demand.targets import fetch_targets

        area = self.settings.area
        targets = fetch_targets(self.settings.targets) if area.scope == "targets" else None
        return area_mask(area.scope, self.grid, coastal_margin_km=area.coastal_margin_km, targets=targets)

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

    def holdings(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Extract the month's holdings and the last instants held."""
        from coverage_pipeline.holdings.extract import extract_month

        return extract_month(sensor, month, self.store, self.settings)

    def availability_stats(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Grid the scenes that exist."""
        from coverage_pipeline.scenes.statistics import STATISTICS_COLUMNS, availability_tables, read_scenes

        with _naming(sensor, month):
            path = self.store.scenes(sensor.key, month)
            scenes, scan = read_scenes(path, STATISTICS_COLUMNS, self.grid.extent)
            tables = availability_tables(scenes, self.grid, cloud_lt=self.spec.cloud_lt, cloud=sensor.cloud, engine=self.engine)
            metadata = {**scan, "cloud": sensor.cloud, "grid": self.grid.describe(), "cloud_lt": self.spec.cloud_lt}
            return write_cells(self.store.stats("available", sensor.key, month), CELL_SCHEMA, tables, metadata)

    def holdings_stats(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Grid the scenes we hold, as the matchup says which they are."""
        from coverage_pipeline.matchup.held_cells import write_holdings_stats

        with _naming(sensor, month):
            return write_holdings_stats(sensor, month, self.store, self.grid, self.spec.cloud_lt, self.engine)

    def matchup(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
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

    def coverage(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Merge the three statistics into the partition's region of the cube; from the start where another run rewrote one of them."""
        for pause in RETRY_PAUSES:
            try:
                return self._coverage(sensor, month)
            except StatisticsMoved as moved:
                log.info("%s %s: %s; reading them again", sensor.key, month, moved)
                time.sleep(pause)
        return self._coverage(sensor, month)

    def _coverage(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        from coverage_pipeline.holdings.extract import KNOWN_HOLDINGS
        from coverage_pipeline.holdings.statistics import HELD_SCHEMA, holdings_fields
        from coverage_pipeline.matchup.month import UNHELD_SCHEMA
        from coverage_pipeline.matchup.unheld import unheld_fields
        from coverage_pipeline.scenes.statistics import availability_fields, known_area

        available = self.store.stats("available", sensor.key, month)
        scan = read_metadata(available)
        scan.require(status=str, scanned_at=(str, type(None)), scenes=int, provider=(str, type(None)), cells=int, run=(str, type(None)))
        if scan["status"] not in SCAN_STATUS:
            raise StoreError(f"{available}: its status is {scan['status']!r:.60}, none of {', '.join(SCAN_STATUS)}; {MAKE_AGAIN}")
        layers = self._holdings_layers(sensor, month)
        self._refuse_mixture(sensor, month, scan, layers)
        known = known_area(scan["status"], scan["bbox"], self.grid)
        status = layers.status
        scanned = scan["status"] != "not_applicable"
        unheld_known = known if status in KNOWN_HOLDINGS else known_area("not_scanned", None, self.grid)

        def piece(rows: tuple[int, int] | None) -> dict[str, NDArray[Any]]:
            # one layer after the other: a table is let go before the next is read
            fields = availability_fields(self._cells(available, scan, rows, CELL_SCHEMA), self.grid, known, rows)
            acquired = self._cells(layers.held_path, layers.held, rows, HELD_SCHEMA)
            fields |= holdings_fields(acquired, self.grid, status, month, self.spec.lookback_months, rows)
            held_unclear = dense(acquired, "unknown_days", self.grid, DAYS, AreaKnown(everywhere=status == "read"), rows)
            del acquired
            unheld = self._cells(layers.unheld_path, layers.match, rows, UNHELD_SCHEMA)
            fields |= unheld_fields(
                unheld,
                self.grid,
                unheld_known,
                fields["held_clear_days"],
                held_unclear,
                rows,
                applicable=scanned or status not in KNOWN_HOLDINGS,
            )
            return fields

        with _naming(sensor, month):
            not_in_catalog = layers.match.get("held_not_in_catalog")
            provenance = {
                "scan_status": SCAN_STATUS.index(scan["status"]),
                "holdings_status": HOLDINGS_STATUS.index(status),
                "scenes_total": scan["scenes"] if scanned else -1,
                "held_not_in_catalog": -1 if not_in_catalog is None else not_in_catalog,
                "scanned_at": int(dt.datetime.fromisoformat(scan["scanned_at"]).timestamp()) if scanned else -1,
                "provider": scan["provider"],
            }
        pieces = ((rows, piece(rows)) for rows in self.strips())
        with _naming(sensor, month):
            write_coverage(self.store.zarr, sensor.key, month, pieces, provenance)
        return {
            "scan_status": scan["status"],
            "holdings_status": status,
            "provider": scan["provider"],
            "scenes": scan["scenes"],
            "scenes_held": layers.match.get("held"),
            "scenes_held_in_part": layers.match.get("held_in_part"),
            "held_not_in_catalog": not_in_catalog,
            "cells_with_scenes": scan["cells"],
        }

    def _holdings_layers(self, sensor: CoverageSensor, month: Month) -> _HoldingsLayers:
        if not self.include_holdings:
            return _HoldingsLayers("not_read", None, {}, None, {})
        held_path, unheld_path = (self.store.stats(layer, sensor.key, month) for layer in ("held", "unheld"))
        kept, match = read_metadata(held_path), read_metadata(unheld_path)
        kept.require(status=str, run=(str, type(None)), matchup_run=(str, type(None)))
        match.require(holdings_status=str, run=(str, type(None)), held=(int, type(None)), held_not_in_catalog=(int, type(None)))
        if kept["status"] not in HOLDINGS_STATUS:
            raise StoreError(f"{held_path}: its status is {kept['status']!r:.60}, none of {', '.join(HOLDINGS_STATUS)}; {MAKE_AGAIN}")
        return _HoldingsLayers(kept["status"], held_path, kept, unheld_path, match)

    def strips(self) -> list[tuple[int, int] | None]:
        """Rows of the pieces that a partition is merged in."""
        return row_strips(self.grid, self.engine, multiple_of=strip_rows(self.grid))

    def _cells(self, path: UPath | None, metadata: dict[str, Any], rows: tuple[int, int] | None, schema: pa.Schema) -> pa.Table:
        """The cells of a piece, of the very file whose metadata was read before; none where there is no file."""
        if path is None:
            return schema.empty_table()
        n_lon = self.grid.shape[-1]
        table, now = read_cells(path, *(() if rows is None else (rows[0] * n_lon, rows[1] * n_lon)), schema=schema)
        if now != metadata:
            raise StatisticsMoved(f"{path} is being written by another run; materialise coverage again when that has ended")
        return table

    def _refuse_mixture(self, sensor: CoverageSensor, month: Month, scan: dict[str, Any], layers: _HoldingsLayers) -> None:
        """Statistics of other settings, or of another scan, extract or matchup, would say that nothing is missing where it is."""
        wanted, kept, match = self.settings.holdings, layers.held, layers.match
        made = [("availability_stats", scan), ("holdings_stats", kept), ("matchup", match)][: 3 if self.include_holdings else 1]
        expected: list[tuple[str, str, Any, Any]] = [
            (name, setting, metadata.get(setting), value)
            for name, metadata in made
            for setting, value in (("grid", self.grid.describe()), ("cloud_lt", self.spec.cloud_lt))
        ]
        if self.include_holdings:
            expected += [
                ("matchup", "min_iou", match.get("min_iou"), wanted.min_iou),
                ("matchup", "min_cover", match.get("min_cover"), wanted.min_cover),
                ("matchup", "tolerance_seconds", match.get("tolerance_seconds"), wanted.match_tolerance_seconds),
            ]
        if layers.status == "read":
            expected.append(("holdings", "lookback_months", kept.get("lookback_months"), self.spec.lookback_months))
        for name, setting, found, value in expected:
            if found != value:
                raise PlannerError(
                    f"{sensor.key} {month}: {name} was made with {setting} {found}, the settings say {value}; materialise {name} again"
                )
        if not self.include_holdings:
            return
        for name, found, value in (
            ("matchup was made from another scan than availability_stats", match.get("scan_run"), scan["run"]),
            ("matchup was made from another extract of the holdings than holdings_stats", match.get("holdings_run"), kept.get("run")),
            ("holdings_stats was made from another matchup", kept.get("matchup_run"), match.get("run")),
        ):
            if found != value:
                raise StatisticsMixed(f"{sensor.key} {month}: {name}; materialise availability_stats, matchup and holdings_stats again")

    def gap(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
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

    def _gap(self, sensor: CoverageSensor, month: Month) -> dict[str, Any] | None:
        """The cells of each action; None where the coverage was rewritten meanwhile, so that the gap is not written."""
        desired = self.settings.desired()
        cells = np.zeros(len(ACTIONS), np.int64)
        revision = partition_revision(self.store.zarr, sensor.key, month)
        wanted = desired.for_sensor(sensor.key, self.sensors) if sensor.flies_in(month) else float("nan")

        def piece(rows: tuple[int, int] | None) -> dict[str, NDArray[Any]]:
            part, _ = read_partition(self.store.zarr, sensor.key, month, GAP_INPUTS, rows=rows, revision=revision)
            made = compute_gap(part, desired, weights=self.spec.weights, sensors=self.sensors)
            deficit = made["deficit"].values[0, 0]
            action = made["action"].values[0, 0]
            np.add(cells, np.bincount(action.reshape(-1), minlength=len(ACTIONS)), out=cells)
            return {
                "deficit": np.where(np.isnan(deficit), -1, deficit).astype(np.int16),
                "priority_score": made["priority_score"].values[0, 0],
                "action": action,
            }

        pieces = ((rows, piece(rows)) for rows in self.strips())
        written = write_gap(self.store.zarr, sensor.key, month, pieces, desired=wanted, made_from=revision, meaning=self.spec.meaning())
        if not written:
            return None
        return {f"cells_{name}": int(count) for name, count in zip(ACTIONS, cells, strict=True)}

    def finish(self) -> str:
        """Bring the cube's ``catalog_snapshot`` up to date; returns it."""
        return update_snapshot(self.store.zarr)


@dataclass(frozen=True)
class _HoldingsLayers:
    """What the holdings say of a partition: two files of cells with their metadata, none where holdings are left out."""

    status: str
    held_path: UPath | None
    held: dict[str, Any]
    unheld_path: UPath | None
    match: dict[str, Any]
