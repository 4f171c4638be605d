"""How fast the cube of a year answers: maps, series, windows and views of the world.

``python -m benchmarks.year`` builds the cube and prints this line. Everything goes through ``open_coverage`` and ``select`` on a cube
that stays open, as the dashboard's does; medians of warm calls.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from benchmarks.timing import medians, taken_by
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import AGGREGATIONS, METRICS, Aggregation, CoverageQuery
from coverage_pipeline.cube.select import select
from coverage_pipeline.months import Month

CELL = (10.05, 45.05, 10.05, 45.05)
WINDOW = (5.0, 40.0, 15.0, 50.0)
WORLD = 0.5
"""Degrees of a cell in a view of the world."""
CALLS = 20
METRIC = "cloud_free_scene_count"
MASK_METRIC = "clear_observations"
"""Made of day masks, which the coarser levels do not answer."""


def _query(metric: str, sensors: Sequence[str], months: Sequence[Month], aggregation: Aggregation, bbox: Any = None) -> CoverageQuery:
    assert aggregation in AGGREGATIONS
    last = months[-1].end.date() - dt.timedelta(days=1)
    return CoverageQuery(METRICS[metric].layer, metric, list(sensors), months[0].start.date(), last, aggregation, bbox)


def measure(root: Path, months: Sequence[Month], sensor: str = "sentinel-2") -> dict[str, Any]:
    """Milliseconds of each kind of question to the cube below ``root``."""
    ds = open_coverage(root / "coverage.zarr")
    one = months[:1]
    all_sensors = [str(key) for key in ds["sensor"].values]

    def ask(metric: str, when: Sequence[Month], how: Aggregation, bbox: Any = None, **more: Any) -> Callable[[], xr.DataArray]:
        asked = more.pop("sensors", [sensor])
        return partial(select, ds, _query(metric, asked, when, how, bbox), **more)

    calls: dict[str, Callable[[], object]] = {
        "map": ask(METRIC, one, "rate"),
        "map12": ask(METRIC, months, "rate"),
        "map12_mask": ask(MASK_METRIC, months, "rate"),
        "map_all_sensors": ask("action", one, "recent", sensors=all_sensors),
        "series": ask(METRIC, months, "scrub", CELL),
        "window": ask(METRIC, months, "rate", WINDOW),
        "world1": ask(METRIC, one, "rate", resolution=WORLD),
        "world12": ask(METRIC, months, "rate", resolution=WORLD),
        "world12_mask": ask(MASK_METRIC, months, "rate", resolution=WORLD),
        "world1_all_sensors": ask("action", one, "recent", sensors=all_sensors, resolution=WORLD),
    }
    for call in calls.values():
        call()
    warm = {name: round(taken.wall * 1000, 1) for name, taken in medians(calls, CALLS).items()}
    found = {f"{name}_ms": taken for name, taken in warm.items()}
    opening = taken_by(partial(open_coverage, root / "coverage.zarr")).wall
    return {
        "bench": "cube-read",
        "sensors": len(all_sensors),
        "months": len(months),
        "metric": METRIC,
        "open_ms": round(opening * 1000, 1),
        **found,
        "world_ms": found["world12_ms"],
    }
