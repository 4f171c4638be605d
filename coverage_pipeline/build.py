"""The whole path as plain functions: what each asset does for one sensor and month, and all of it in one call."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from shapely.errors import ShapelyError
from upath import UPath

from coverage_pipeline import holdings as held
from coverage_pipeline import matchup
from coverage_pipeline.catalog import ScanReport, scan_month, settle_doubts
from coverage_pipeline.catalog.scan import OnProgress, ScanOptions
from coverage_pipeline.catalog.source import BBox
from coverage_pipeline.catalog.statistics import availability_fields, availability_tables, read_scenes
from coverage_pipeline.celltable import CELL_SCHEMA, known_area
from coverage_pipeline.coverage import (
    ACTIONS,
    HOLDINGS_STATUS,
    SCAN_STATUS,
    CubeSpec,
    ensure_cube,
    open_coverage,
    partition_revision,
    read_partition,
    strip_rows,
    update_snapshot,
    write_coverage,
    write_gap,
)
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.gap import GAP_INPUTS, compute_gap
from coverage_pipeline.grid import Engine, GridSpec, row_strips
from coverage_pipeline.locations import area_mask, fetch_targets, scope_mask
from coverage_pipeline.months import Month, window_months
from coverage_pipeline.sensors import CoverageSensor, registry
from coverage_pipeline.settings import PlannerSettings, load_settings
from coverage_pipeline.store import StatsLayer, Store, read_cells, read_metadata, write_cells

log = logging.getLogger(__name__)

Step = Literal["availability", "holdings", "availability_stats", "holdings_stats", "matchup", "coverage", "gap"]
STEPS: tuple[Step, ...] = ("availability", "holdings", "availability_stats", "holdings_stats", "matchup", "coverage", "gap")
"""In an order in which each finds what it needs."""
GRIDDING_STEPS = STEPS[2:]
"""Those that ask neither a catalogue nor the holdings' source: files on disk to the gap."""
_CUBE_STEPS: tuple[Step, ...] = ("coverage", "gap")
_STATS_LAYERS: tuple[StatsLayer, ...] = ("available", "held", "unheld")


class BuildFailed(PlannerError):
    """Some partitions could not be built; the others are, and what was there before of the failed ones stays."""

    def __init__(self, failures: Mapping[str, str], of: int) -> None:
        self.failures = dict(failures)
        self.of = of
        lines = "\n".join(f"  {key}: {why}" for key, why in failures.items())
        super().__init__(f"{self.in_words()}:\n{lines}")

    def in_words(self) -> str:
        """How many failed."""
        if len(self.failures) == self.of:
            return f"all {self.of} partitions failed"
        return f"{len(self.failures)} of {self.of} partitions failed, the others are built"


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
        """The cube's grid."""
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
        area = self.settings.area
        targets = fetch_targets(self.settings.targets) if area.scope == "targets" else None
        return area_mask(area.scope, self.grid, coastal_margin_km=area.coastal_margin_km, targets=targets)

    def ensure_cube(self) -> None:
        """Make the cube or grow its axes, so that every partition of this build has its place."""
        ensure_cube(self.store.zarr, self.spec, lambda sensor: scope_mask(sensor, self._area, self.grid))

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
        options = self.options if partial is None else replace(self.options, publish_partial=partial)
        return scan_month(sensor, month, self.store, bbox=self.bbox, source_index=source_index, options=options, progress=progress)

    def holdings(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Extract the month's holdings and the last instants held."""
        settings = self.settings
        if not self.include_holdings:
            settings = settings.model_copy(update={"holdings": settings.holdings.model_copy(update={"source": "off"})})
        return held.extract_month(sensor, month, self.store, settings)

    def availability_stats(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Grid the scenes that exist."""
        with _naming(sensor, month):
            path = self.store.scenes(sensor.key, month)
            scenes, scan = read_scenes(path, ["acquired", "cloud_cover", "geometry"], self.grid.extent)
            tables = availability_tables(scenes, self.grid, cloud_lt=self.spec.cloud_lt, cloud=sensor.cloud, engine=self.engine)
            metadata = {**scan, "cloud": sensor.cloud, "grid": self.grid.describe(), "cloud_lt": self.spec.cloud_lt}
            return write_cells(self.store.stats("available", sensor.key, month), CELL_SCHEMA, tables, metadata)

    def holdings_stats(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Grid the scenes we hold."""
        with _naming(sensor, month):
            return held.write_holdings_stats(sensor, month, self.store, self.grid, self.spec.cloud_lt, self.engine)

    def matchup(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Match scenes with holdings, and grid what exists and is not held."""
        wanted = self.settings.holdings
        with _naming(sensor, month):
            return matchup.match_month(
                sensor,
                month,
                self.store,
                self.grid,
                cloud_lt=self.spec.cloud_lt,
                tolerance_seconds=wanted.match_tolerance_seconds,
                min_iou=wanted.min_iou,
                engine=self.engine,
            )

    def coverage(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Merge the three statistics into the partition's region of the cube."""
        paths = {layer: self.store.stats(layer, sensor.key, month) for layer in _STATS_LAYERS}
        scan, kept, match = (read_metadata(path) for path in paths.values())
        self._refuse_mixture(sensor, month, scan, kept, match)
        known = known_area(scan["status"], scan["bbox"], self.grid)
        holdings_known = match["holdings_status"] in ("read", "not_held")
        unheld_known = known if holdings_known else known_area("not_scanned", None, self.grid)

        def piece(rows: tuple[int, int] | None) -> dict[str, NDArray[Any]]:
            # one layer after the other: a table is let go before the next is read
            fields = availability_fields(self._cells(paths["available"], scan, rows, CELL_SCHEMA), self.grid, known, rows)
            acquired = self._cells(paths["held"], kept, rows, held.HELD_SCHEMA)
            fields |= held.holdings_fields(acquired, self.grid, kept["status"], month, self.spec.lookback_months, rows)
            del acquired
            unheld = self._cells(paths["unheld"], match, rows, matchup.UNHELD_SCHEMA)
            fields |= matchup.unheld_fields(unheld, self.grid, unheld_known, fields["held_clear_days"], rows)
            return fields

        scanned = scan["status"] != "not_applicable"
        not_in_catalog = match["held_not_in_catalog"]
        provenance = {
            "scan_status": SCAN_STATUS.index(scan["status"]),
            "holdings_status": HOLDINGS_STATUS.index(kept["status"]),
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
            "holdings_status": kept["status"],
            "provider": scan["provider"],
            "scenes": scan["scenes"],
            "scenes_held": match["held"],
            "held_not_in_catalog": not_in_catalog,
            "cells_with_scenes": scan["cells"],
        }

    def strips(self) -> list[tuple[int, int] | None]:
        """Rows of the pieces that a partition is merged in."""
        return row_strips(self.grid, self.engine, multiple_of=strip_rows(self.grid))

    def _cells(self, path: UPath, metadata: dict[str, Any], rows: tuple[int, int] | None, schema: pa.Schema) -> pa.Table:
        """The cells of a piece, of the very file whose metadata was read before."""
        n_lon = self.grid.shape[-1]
        table, now = read_cells(path, *(() if rows is None else (rows[0] * n_lon, rows[1] * n_lon)), schema=schema)
        if now != metadata:
            raise PlannerError(f"{path} is being written by another run; materialise coverage again when that has ended")
        return table

    def _refuse_mixture(
        self, sensor: CoverageSensor, month: Month, scan: dict[str, Any], kept: dict[str, Any], match: dict[str, Any]
    ) -> None:
        """Statistics of other settings, or of another scan or extract than the matchup's, would say that nothing is missing where it is."""
        wanted = self.settings.holdings
        expected: list[tuple[str, str, Any, Any]] = [
            (name, setting, metadata.get(setting), value)
            for name, metadata in (("availability_stats", scan), ("holdings_stats", kept), ("matchup", match))
            for setting, value in (("grid", self.grid.describe()), ("cloud_lt", self.spec.cloud_lt))
        ]
        expected += [
            ("matchup", "min_iou", match["min_iou"], wanted.min_iou),
            ("matchup", "tolerance_seconds", match["tolerance_seconds"], wanted.match_tolerance_seconds),
        ]
        if kept["status"] == "read":
            expected.append(("holdings", "lookback_months", kept["lookback_months"], self.spec.lookback_months))
        for name, setting, found, value in expected:
            if found != value:
                raise PlannerError(
                    f"{sensor.key} {month}: {name} was made with {setting} {found}, the settings say {value}; materialise {name} again"
                )
        for name, found, value in (
            ("scan", match["scan_run"], scan["run"]),
            ("extract of the holdings", match["holdings_run"], kept["run"]),
        ):
            if found != value:
                raise PlannerError(
                    f"{sensor.key} {month}: matchup was made from another {name} than the statistics; "
                    "materialise availability_stats, holdings_stats and matchup again"
                )

    def gap(self, sensor: CoverageSensor, month: Month) -> dict[str, Any]:
        """Compute the gap of a partition from its region of the cube and write it beside it."""
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
        write_gap(self.store.zarr, sensor.key, month, pieces, desired=wanted, made_from=revision)
        return {f"cells_{name}": int(count) for name, count in zip(ACTIONS, cells, strict=True)}

    def finish(self) -> str:
        """Bring the cube's ``catalog_snapshot`` up to date; returns it."""
        return update_snapshot(self.store.zarr)


@dataclass(frozen=True)
class PartitionDone:
    """Progress of a build: one partition ended."""

    sensor: CoverageSensor
    month: Month
    reports: dict[Step, Any]
    error: PlannerError | None
    seconds: float
    number: int
    of: int


@dataclass
class _Part:
    """One partition of a build on its way."""

    planner: Planner
    sensor: CoverageSensor
    month: Month
    reports: dict[Step, Any] = field(default_factory=dict)
    error: PlannerError | None = None
    seconds: float = 0.0

    def run(self, steps: Sequence[Step]) -> _Part:
        """Make some steps, unless one failed before."""
        began = time.monotonic()
        try:
            for step in steps if self.error is None else ():
                try:
                    self.reports[step] = getattr(self.planner, step)(self.sensor, self.month)
                except held.HoldingsUnavailable as unavailable:
                    log.warning("%s %s: %s; the extract of an earlier run stays", self.sensor.key, self.month, unavailable)
                    self.reports[step] = {"status": "kept", "reason": str(unavailable)}
        except PlannerError as failure:
            self.error = failure
        pa.default_memory_pool().release_unused()  # Arrow keeps what it has had, and the next partition needs room
        self.seconds += time.monotonic() - began
        return self


def build(
    planner: Planner, *, steps: Iterable[Step] = STEPS, on_partition: Callable[[PartitionDone], None] | None = None
) -> dict[str, dict[Step, Any]]:
    """Build every partition of the planner's window; returns the reports by partition key.

    A partition that fails is named and the others go on; raises ``BuildFailed`` at the end. Holdings that cannot be had
    turn their layer off, or leave an earlier extract as it is.
    """
    steps = tuple(steps)
    if "holdings" in steps and planner.include_holdings:
        with contextlib.suppress(held.HoldingsUnavailable):  # that is a layer off; an address that is none is an error before any scan
            _ = held.holdings_source(planner.settings).name
    if "coverage" not in steps and "gap" in steps:
        open_coverage(planner.store.zarr)  # a cube that is not there is a wrong path, not a reason to make one
    planner.ensure_cube()
    reports: dict[str, dict[Step, Any]] = {}
    failures: dict[str, str] = {}
    parts = [(sensor, month) for sensor in planner.spec.sensors for month in planner.spec.months]

    def settle(part: _Part, number: int) -> None:
        key = f"{part.month.key}|{part.sensor.key}"
        reports[key] = part.reports
        if part.error is not None:
            failures[key] = str(part.error)
        if on_partition:
            on_partition(PartitionDone(part.sensor, part.month, part.reports, part.error, part.seconds, number, len(parts)))

    planner = replace(planner, share=2)
    files, cube = ([step for step in steps if (step in _CUBE_STEPS) is in_cube] for in_cube in (False, True))
    # The files of a partition are made while the one before is written to the cube: the one computes, the other waits for the disk.
    with ThreadPoolExecutor(1, "cube") as writer:
        before: Future[_Part] | None = None
        for number, (sensor, month) in enumerate(parts):
            part = _Part(planner, sensor, month).run(files)
            if before is not None:
                settle(before.result(), number)
            before = writer.submit(part.run, cube)
        if before is not None:
            settle(before.result(), len(parts))
    if "availability" in steps:
        # A month scanned first had nothing to be compared with: now that all are scanned, some are doubted, or no longer.
        remade = tuple(step for step in steps if step not in ("availability", "holdings"))
        for sensor in planner.spec.sensors:
            for month in settle_doubts(sensor, planner.spec.months, planner.store, bbox=planner.bbox, options=planner.options):
                key = f"{month.key}|{sensor.key}"
                again = _Part(planner, sensor, month, reports.setdefault(key, {})).run(remade)
                if again.error is not None:
                    failures.setdefault(key, str(again.error))
    if "coverage" in steps:
        planner.finish()
    if failures:
        raise BuildFailed(failures, len(parts))
    return reports


def build_coverage_zarr(
    sensors: Sequence[CoverageSensor],
    start: str | dt.date,
    end: str | dt.date,
    grid: GridSpec,
    *,
    dest: Path | UPath | str,
    parquet_dir: Path | UPath | str,
    include_holdings: bool = True,
    bbox: BBox | None = None,
    settings: PlannerSettings | None = None,
    on_partition: Callable[[PartitionDone], None] | None = None,
) -> Path | UPath:
    """Scan, read holdings, match, grid, merge and compute the gap of every sensor and month; returns ``dest``.

    Sensors, window (widened to whole months), grid and paths are the arguments'; all else (holdings, threshold, cadence, weights,
    area) comes from ``settings``, by default those of ``load_settings``. Intermediate files go beside ``dest``.

    Raises ``BuildFailed`` naming each partition whose catalogue could not be read in full; the others are built.
    """
    settings = settings or load_settings()
    target = UPath(dest)
    base = settings.cube_spec()
    planner = Planner.from_settings(settings, bbox=bbox)
    spec = CubeSpec(
        grid=grid,
        sensors=tuple(sensors),
        months=tuple(window_months(start, end)),
        cloud_lt=base.cloud_lt,
        lookback_months=base.lookback_months,
        match_tolerance_seconds=base.match_tolerance_seconds,
        weights=base.weights,
        area=base.area,
        note=base.note,
    )
    store = Store.below(target.parent, zarr=target, parquet_dir=UPath(parquet_dir))
    planner = Planner(settings, store, spec, include_holdings, planner.options, bbox)
    build(planner, on_partition=on_partition)
    return dest if isinstance(dest, Path | UPath) else Path(dest)
