"""A year of five sensors, from files of scenes and holdings on disk to the gap; reading the cube; and one month made again.

    python -m benchmarks.year [--months 12] [--share 1.0] [--keep FOLDER]

Prints three lines of JSON. The year is built by ``build`` with every step but the two that ask somebody, with default settings, in a
process of its own. The files are made before the clock starts (``benchmarks.archive``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import cube_read, rerun
from benchmarks.archive import VOLUMES, YEAR, settings_of, write_archive
from benchmarks.memory import peak_rss_mb
from coverage_pipeline.months import Month
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.pipeline.steps import GRIDDING_STEPS, Step
from coverage_pipeline.sensors.registry import CoverageSensor


def timed_planner(planner: Planner, by_step: Counter[str], by_sensor: Counter[str]) -> Planner:
    """A planner that adds the seconds of its steps to the two tables."""

    def timed(step: Step) -> Callable[[Planner, CoverageSensor, Month], Any]:
        def run(self: Planner, sensor: CoverageSensor, month: Month) -> Any:
            began = time.perf_counter()
            try:
                return getattr(Planner, step)(self, sensor, month)
            finally:
                took = time.perf_counter() - began
                by_step[step] += took  # type: ignore[assignment]
                by_sensor[sensor.key] += took  # type: ignore[assignment]

        return run

    kind = type("_TimedPlanner", (Planner,), {step: timed(step) for step in GRIDDING_STEPS})
    made: Planner = kind(planner.settings, planner.store, planner.spec, planner.include_holdings, planner.options, planner.bbox)
    return made


def _build_here(root: Path, months: int) -> dict[str, Any]:
    """Build in this process."""
    by_step: Counter[str] = Counter()
    by_sensor: Counter[str] = Counter()
    planner = timed_planner(Planner.from_settings(settings_of(root, YEAR[:months])), by_step, by_sensor)
    began, cpu = time.perf_counter(), time.process_time()
    build(planner, steps=GRIDDING_STEPS)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": peak_rss_mb(),
        "seconds_by_step": {step: round(by_step[step], 1) for step in GRIDDING_STEPS},
        "seconds_by_sensor": {key: round(taken, 1) for key, taken in by_sensor.items()},
        "seconds_besides": round(seconds - by_step.total(), 1),
    }


def _build_alone(root: Path, months: int) -> dict[str, Any]:
    """Build in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.year", "--build", str(root), "--months", str(months)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def measure(root: Path, months: int, share: float) -> dict[str, Any]:
    """Make the files below ``root`` and build them."""
    warm = root.parent / "warm"
    write_archive(warm, YEAR[:1], share=0.002)
    _build_alone(warm, 1)  # what numba compiles is on disk now
    made = write_archive(root, YEAR[:months], share=share)
    found = _build_alone(root, months)
    size = sum(file.stat().st_size for file in (root / "coverage.zarr").rglob("*") if file.is_file())
    return {"bench": "year", "sensors": len(VOLUMES), "months": months, **made, **found, "cube_mb": round(size / 1e6)}


def main(arguments: list[str] | None = None) -> None:
    """Print the three lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", type=int, default=len(YEAR))
    parser.add_argument("--share", type=float, default=1.0, help="of the real volumes")
    parser.add_argument("--keep", type=Path, help="a new folder that the archive and its cube stay in")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.build:
        print(json.dumps(_build_here(chosen.build, chosen.months)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = (chosen.keep or Path(folder)) / "year"
        print(json.dumps(measure(root, chosen.months, chosen.share)), flush=True)
        print(json.dumps(cube_read.measure(root, YEAR[: chosen.months])), flush=True)
        print(json.dumps(rerun.measure(root, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
