"""Building every partition of a window: step after step, with a report for each partition and each failure named."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from upath import UPath

from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import CubeSpec, PartitionMoved
from coverage_pipeline.demand.partition_files import PartitionFilesMixed
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.errors import HoldingsUnavailable
from coverage_pipeline.months import Month, window_months
from coverage_pipeline.pipeline.planner import RETRY_PAUSES, Planner
from coverage_pipeline.pipeline.steps import CUBE_STEPS, GRIDDING_STEPS, HOLDINGS_STEPS, REDONE_STEPS, STEPS, Step
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.paths import storage_path
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_metadata

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class KeptFile:
    """Why a step made nothing, and the file of an earlier run stays."""

    reason: str
    made_at: str | None = None
    """When the file that stays was made, UTC, where that is known."""


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


def in_words(done: PartitionDone) -> list[str]:
    """What a partition's scan, holdings and matchup came to, a line each, for a person who watches a build."""
    lines, month = [], f"{done.sensor.key} {done.month}"
    scan, extract, match = (done.reports.get(step) for step in ("availability", "holdings", "matchup"))
    if isinstance(scan, ScanReport):
        lines.append(scan.in_words())
    elif isinstance(scan, KeptFile):
        lines.append(f"{month}: the scan of {scan.made_at} stays")
    if isinstance(extract, KeptFile):
        lines.append(f"{month}: holdings kept: {extract.reason}")
    elif extract is not None and extract.status == "off":
        lines.append(f"{month}: holdings off: {extract.reason}")
    elif extract is not None and extract.status == "read":
        held = f"{match.held} scenes held, {match.held_in_part} in part" if match is not None else f"{extract.rows} rows"
        unlisted = f", {match.held_not_in_catalog} not in the catalogue" if match is not None and match.held_not_in_catalog else ""
        lines.append("; ".join([f"{month}: {held}{unlisted}, from {extract.source}", *extract.notes]))
    return lines


@dataclass
class _PartitionBuild:
    """One partition of a build while it is made."""

    planner: Planner
    sensor: CoverageSensor
    month: Month
    reports: dict[Step, Any] = field(default_factory=dict)
    error: PlannerError | None = None
    seconds: float = 0.0
    stopped: bool = False
    """Whether a step failed, so that the steps that follow are left out."""

    def _former_scan(self, failure: PlannerError) -> bool:
        """Whether the catalogue failed and an earlier scan is there: the holdings are then matched with that scan."""
        try:
            former = read_metadata(self.planner.store.scenes(self.sensor.key, self.month))
        except StoreError:
            return False
        if not isinstance(failure, CatalogError):
            return False
        kept = KeptFile(str(failure), former.get("scanned_at"))
        log.warning("%s %s: going on with the scan of %s", self.sensor.key, self.month, kept.made_at)
        self.reports["availability"] = kept
        return True

    def run(self, steps: Sequence[Step]) -> _PartitionBuild:
        """Make some steps, unless one failed before."""
        began = time.monotonic()
        for step in steps:
            if self.stopped:
                break
            try:
                self.reports[step] = self._made(step)
            except HoldingsUnavailable as unavailable:
                log.warning("%s %s: %s; the extract of an earlier run stays", self.sensor.key, self.month, unavailable)
                self.reports[step] = KeptFile(str(unavailable))
            except PlannerError as failure:
                self.error = self.error or failure
                self.stopped = step != "availability" or not self._former_scan(failure)
        pa.default_memory_pool().release_unused()  # Arrow keeps what it has had, and the next partition needs room
        self.seconds += time.monotonic() - began
        return self

    def _made(self, step: Step) -> Any:
        """The report of one step. Two builds of one root replace each other's files: what no longer goes together is gridded anew."""
        from coverage_pipeline.cube.merge import StatisticsMixed

        for pause in RETRY_PAUSES if step in REDONE_STEPS else ():
            try:
                return getattr(self.planner, step)(self.sensor, self.month)
            except PartitionMoved as moved:
                log.info("%s; reading it again", moved)
                time.sleep(pause)
            except (StatisticsMixed, PartitionFilesMixed) as mixed:
                log.info("%s; another build wrote meanwhile, so they are made again", mixed)
                time.sleep(random.uniform(0, pause))  # noqa: S311 two builds that keep undoing each other's files get out of step
                for again in GRIDDING_STEPS:
                    if again not in CUBE_STEPS:
                        self.reports[again] = getattr(self.planner, again)(self.sensor, self.month)
        return getattr(self.planner, step)(self.sensor, self.month)


def build(
    planner: Planner, *, steps: Iterable[Step] = STEPS, on_partition: Callable[[PartitionDone], None] | None = None
) -> dict[str, dict[Step, Any]]:
    """Build every partition of the planner's window; returns the reports by partition key.

    A partition that fails is named and the others go on; raises ``BuildFailed`` at the end. Holdings that cannot be had
    turn their layer off, or leave an earlier extract as it is.
    """
    steps = tuple(step for step in steps if planner.include_holdings or step not in HOLDINGS_STEPS)
    if "holdings" in steps and planner.include_holdings:
        from coverage_pipeline.holdings.sources.configured import holdings_source  # clients of databases take long to import

        with contextlib.suppress(HoldingsUnavailable):  # that is a layer off; an address that is none is an error before any scan
            _ = holdings_source(planner.settings).name
    if "target_stats" in steps:
        _ = planner.targets  # a file that cannot be used is an error before any scan
    if "coverage" not in steps and "gap" in steps:
        open_coverage(planner.store.zarr)  # a cube that is not there is a wrong path, not a reason to make one
    planner.ensure_cube()
    reports: dict[str, dict[Step, Any]] = {}
    failures: dict[str, str] = {}
    parts = [(sensor, month) for sensor in planner.spec.sensors for month in planner.spec.months]

    def settle(part: _PartitionBuild, number: int) -> None:
        key = f"{part.month.key}|{part.sensor.key}"
        reports[key] = part.reports
        if part.error is not None:
            failures[key] = str(part.error)
        if on_partition:
            on_partition(PartitionDone(part.sensor, part.month, part.reports, part.error, part.seconds, number, len(parts)))

    planner = replace(planner, share=2)
    files, cube = ([step for step in steps if (step in CUBE_STEPS) is in_cube] for in_cube in (False, True))
    # The files of a partition are made while the one before is written to the cube: the one computes, the other waits for the disk.
    with ThreadPoolExecutor(1, "cube") as writer:
        before: Future[_PartitionBuild] | None = None
        for number, (sensor, month) in enumerate(parts):
            part = _PartitionBuild(planner, sensor, month).run(files)
            if before is not None:
                settle(before.result(), number)
            before = writer.submit(part.run, cube)
        if before is not None:
            settle(before.result(), len(parts))
    if "availability" in steps:
        # A month scanned first had nothing to be compared with: now that all are scanned, some are doubted, or no longer.
        remade = tuple(step for step in steps if step not in ("availability", "holdings"))
        for sensor in planner.spec.sensors:
            for month, report in planner.settle_doubts(sensor, planner.spec.months).items():
                key = f"{month.key}|{sensor.key}"
                log.warning("%s", report.in_words())
                again = _PartitionBuild(planner, sensor, month, reports.setdefault(key, {})).run(remade)
                again.reports["availability"] = report
                if again.error is not None:
                    failures.setdefault(key, str(again.error))
    if "matchup" in steps:
        for sensor, month in parts:
            for moved in planner.settled(sensor, month):
                log.info("request %s is %s: %s", moved.request, moved.state, moved.reason)
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
    target = storage_path(dest)
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
    store = Store.below(target.parent, zarr=target, parquet_dir=parquet_dir)
    planner = Planner(settings, store, spec, include_holdings, planner.options, bbox)
    build(planner, on_partition=on_partition)
    return dest if isinstance(dest, Path | UPath) else Path(dest)
