"""The demo: a simulated archive, served, scanned and built through the assets, as a deployment would do it."""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import geopandas as gpd
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import ACTIONS
from coverage_pipeline.definitions import planner_definitions
from coverage_pipeline.demand.summary_schema import SummaryMetadata
from coverage_pipeline.demand.target_schema import TargetStatsMetadata
from coverage_pipeline.demo.archive import write_archive
from coverage_pipeline.demo.holdings import simulated_holdings, simulated_holdings_without_catalog
from coverage_pipeline.demo.requests import write_requests
from coverage_pipeline.demo.stac_server import stac_api
from coverage_pipeline.demo.targets import write_targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month, months_between
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.storage.tables import read_metadata

NOTE = "Simulated data: scenes, clouds and holdings are made up for the demo; nothing here was observed."
MONTHS = tuple(months_between(Month(2025, 1), Month(2025, 6)))
# Systematic missions are thinned so that the demo ends in minutes; the pointed ones have about their real volume.
DENSITY = {"emit": 1.0, "enmap": 1.0, "landsat-8-9": 0.4, "sentinel-2": 0.05}
_HELD_SHARE = {"emit": 0.35, "enmap": 0.4, "landsat-8-9": 0.3}
_COLLECTION = {
    "emit": "EMITL2ARFL",
    "enmap": "ENMAP_HSI_L2A",
    "landsat-8-9": "landsat-c2-l2",
    "sentinel-2": "sentinel-2-l2a",
}
_PAGE_SIZE = 1000
_MARK = ".coverage-demo"
_WRITTEN = (
    "archive",
    "holdings.parquet",
    "targets.geojson",
    "targets.parquet",
    "targets",
    "backlog",
    "summary",
    "requests.sqlite",
    ".requests.sqlite.lock",
    "build.toml",
    "catalog",
    "holdings",
    "stats",
    "matchup",
    "coverage.zarr",
    ".coverage.zarr.lock",
    "dagster",
)


@dataclass(frozen=True)
class Demo:
    """A built demo."""

    root: Path
    config: Path
    seconds: float

    @property
    def zarr(self) -> Path:
        """The cube."""
        return self.root / "coverage.zarr"


def _config(root: Path, address: str, resolution: float, months: Sequence[Month]) -> str:
    sources = "\n".join(
        f'[[sensors.sources.{key}]]\nkind = "stac"\nendpoint = "{address}"\ncollection_id = "{collection}"\npage_size = {_PAGE_SIZE}\n'
        for key, collection in _COLLECTION.items()
    )
    return f"""# Written by the demo. Everything it describes is simulated. Its catalogue is served while the demo is made, and by
# `coverage-planner demo --archive` after it; `coverage-planner serve --config THIS_FILE` shows the cube.
data = {json.dumps(str(root))}
note = {json.dumps(NOTE)}
targets = {json.dumps(str(root / "targets.geojson"))}

[grid]
resolution = {resolution}

[window]
start = {months[0].start.date()}
end = {months[-1].end.date() - dt.timedelta(days=1)}

[sensors]
keys = ["emit", "enmap", "prisma", "landsat-8-9", "sentinel-2"]

[holdings]
path = {json.dumps(str(root / "holdings.parquet"))}

[tiles]
scene_id = "scene_id"

[orchestration]
backfill = "ranges"
automation = false
retry_delay_seconds = 1

{sources}"""


def _holdings(files: Sequence[Path], months: Sequence[Month]) -> gpd.GeoDataFrame:
    frames = []
    for file in files:
        sensor = COVERAGE_SENSORS[file.stem]
        if sensor.held_satellite is None:
            continue
        items = json.loads(file.read_text())["features"]
        frames.append(simulated_holdings(items, sensor, share=_HELD_SHARE[sensor.key]))
    prisma = COVERAGE_SENSORS["prisma"]
    frames += [simulated_holdings_without_catalog(prisma, month) for month in months]
    together = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    return gpd.GeoDataFrame(together, geometry="geometry", crs="EPSG:4326")


def _clear(root: Path) -> None:
    """Remove an earlier demo's files, and nothing else; refuse a folder that holds anything but a demo."""
    mark = root / _MARK
    if root.exists() and any(root.iterdir()) and not mark.exists():
        raise PlannerError(f"{root} is not empty and holds no earlier demo; name another folder")
    for name in _WRITTEN:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    mark.write_text("The demo's folder: what it wrote here is replaced when it is made again.\n")


def build_demo(
    root: Path,
    *,
    console: Console,
    resolution: float = 0.1,
    months: Sequence[Month] = MONTHS,
    density: Mapping[str, float] = DENSITY,
) -> Demo:
    """Make, serve, scan and build everything below ``root``, where an earlier demo is replaced.

    ``density`` is each sensor's share of its real volume, 0..1. Raises ``PlannerError`` if a run fails, or where ``root`` holds something
    else.
    """
    began = time.monotonic()
    root = root.resolve()
    _clear(root)
    config = root / "build.toml"
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("simulating an archive", total=2)
        files = write_archive(root / "archive", months, list(_COLLECTION), density=density)
        progress.advance(task)
        _holdings(files, months).to_parquet(root / "holdings.parquet")
        write_targets(root / "targets.geojson")
        progress.advance(task)
        task = progress.add_task("serving it as a STAC API", total=1)
        with stac_api(files) as address:
            progress.advance(task)
            config.write_text(_config(root, address, resolution, months))
            settings = load_settings(config, environment=False)
            task = progress.add_task("scanning and building through Dagster", total=len(settings.sensors.keys) * len(months))
            for sensor in _materialise(settings, config, root / "dagster"):
                progress.update(task, advance=len(months), description=f"scanned and built {sensor.title}")
    return Demo(root, config, time.monotonic() - began)


def _materialise(settings: PlannerSettings, config: Path, home: Path) -> Iterator[CoverageSensor]:
    """One run a sensor over all its months, as a ranged backfill would launch them."""
    home.mkdir(parents=True)
    logging.getLogger("dagster").setLevel(logging.ERROR)
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\nnux:\n  enabled: false\npython_logs:\n  python_log_level: ERROR\n")
    definitions = planner_definitions(settings, str(config), environment=False)
    job = definitions.resolve_job_def("everything")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for sensor in settings.chosen_sensors():
            first, last = (f"{month}|{sensor.key}" for month in (settings.months()[0], settings.months()[-1]))
            result = job.execute_in_process(
                instance=instance,
                raise_on_error=False,
                tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
            )
            if not result.success:
                failed = [event.step_failure_data for event in result.all_events if event.is_step_failure]
                why = "; ".join(str(data.error.message if data.error else data.user_failure_data) for data in failed)
                raise PlannerError(f"the demo's run for {sensor.key} failed: {why}")
            yield sensor


def serve_archive(root: Path) -> Iterator[str]:
    """Serve the archive of a demo that is there, at the address that its configuration names, while the iterator is open.

    Raises ``PlannerError`` where there is no demo, or another program has its port.
    """
    config = root / "build.toml"
    if not config.exists():
        raise PlannerError(f"no demo in {root}: make one first (coverage-planner demo --root {root})")
    files = sorted((root / "archive").glob("*.json"))
    sources = load_settings(config, environment=False).registry()["landsat-8-9"].available_sources
    port = urlsplit(sources[0].endpoint).port
    with stac_api(files, port=port) as address:
        yield address


def requests_summary(demo: Demo) -> list[str]:
    """The demo's requests with their states, a line each; they are recorded here."""
    found = write_requests(load_settings(demo.config, environment=False))
    return [f"{one.id[:8]} {one.state}: {one.kind} {one.sensor}, {one.window_start}..{one.window_end}, {one.note}" for one in found]


def headlines(demo: Demo) -> list[str]:
    """What the demo's targets have of each sensor in the last month, a sentence each, with what is not known."""
    settings = load_settings(demo.config, environment=False)
    month = settings.months()[-1]
    return [SummaryMetadata.of(read_metadata(settings.store().summary(sensor.key, month))).headline for sensor in settings.chosen_sensors()]


def targets_summary(demo: Demo) -> Table:
    """How many of the demo's targets have what they want of each sensor in the last month, and what the others need."""
    settings = load_settings(demo.config, environment=False)
    month = settings.months()[-1]
    shown = ("met", "ingest", "check", "task", "none", "unknown", "out_of_scope")
    table = Table(title=f"Targets in {month}, by what to do", caption="coverage-planner targets show SENSOR MONTH names them")
    for title in ("sensor", *shown):
        table.add_column(title.replace("_", " "), justify="left" if title == "sensor" else "right", no_wrap=True)
    for sensor in settings.chosen_sensors():
        made = TargetStatsMetadata.of(read_metadata(settings.store().target_stats(sensor.key, month)))
        table.add_row(sensor.key, *(str(made.actions[action]) for action in shown))
    return table


def summary(demo: Demo) -> Table:
    """What the demo's cube holds, a line a sensor."""
    ds = open_coverage(demo.zarr)
    table = Table(
        title=f"Simulated, {ds.sizes['time']} months, made in {demo.seconds:.0f} s", caption="actions in percent of the cells in scope"
    )
    shown = ("met", "ingest", "check", "task", "none", "unknown")
    table.add_column("sensor", no_wrap=True)
    table.add_column("scenes", justify="right", no_wrap=True)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for key in ds["sensor"].to_numpy():
        one = ds.sel(sensor=key)
        actions = np.zeros(len(ACTIONS), np.int64)
        for month in range(one.sizes["time"]):
            actions += np.bincount(one["action"].isel(time=month).to_numpy().reshape(-1), minlength=len(ACTIONS))
        within = actions.sum() - actions[ACTIONS.index("out_of_scope")]
        scenes = one["scenes_total"].to_numpy()
        total = "not listed" if np.isnan(scenes).all() else f"{int(np.nansum(scenes)):,}"
        shares = [f"{100 * actions[ACTIONS.index(name)] / within:.1f}" for name in shown]
        table.add_row(str(key), total, *shares)
    return table
