"""``place()`` over a year of five sensors, and the command line's own time.

    python -m benchmarks.place [--months 12] [--share 1.0] [--keep FOLDER]

Prints one line of JSON. The archive is that of ``benchmarks.year`` with its matchups made; places lie on land at random. *Warm*: the median
of places whose files are in the page cache. *Cold*: the same process after the kernel was asked to drop the files' pages
(``posix_fadvise``), on a local disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import shapely

from benchmarks.archive import YEAR, settings_of, write_archive
from coverage_pipeline.demand.place import place
from coverage_pipeline.pipeline.planner import Planner

PLACES = ((9.4, 47.6), (-93.6, 42.4), (75.4, 30.9), (31.0, 30.8), (-55.5, -12.6), (117.9, -31.6))


def drop_pages(root: Path) -> None:
    """Ask the kernel to forget the pages of every file below a folder."""
    for path in root.rglob("*.parquet"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        months = YEAR[: options.months]
        if not (root / "catalog").exists():
            write_archive(root, months, share=options.share)
        settings = settings_of(root, months)
        planner = Planner.from_settings(settings)
        for sensor in planner.spec.sensors:
            for month in months:
                if not planner.store.matchup(sensor.key, month).exists():
                    planner.matchup(sensor, month)
        registry = settings.registry()
        desired = {sensor.key: settings.desired().for_sensor(sensor.key, registry) for sensor in planner.spec.sensors}

        def ask(lon: float, lat: float) -> float:
            began = time.perf_counter()
            place(
                shapely.Point(lon, lat),
                months[0].start.date(),
                months[-1].key,
                planner.spec.sensors,
                store=planner.store,
                desired=desired,
                radius_km=5,
            )
            return time.perf_counter() - began

        for lon, lat in PLACES:
            ask(lon, lat)
        warm = [ask(lon, lat) for lon, lat in PLACES]
        cold = []
        for lon, lat in PLACES:
            drop_pages(root)
            cold.append(ask(lon, lat))
        command = [sys.executable, "-m", "coverage_pipeline", "place", "--lon", "9.4", "--lat", "47.6", "--radius-km", "5"]
        window = ["--start", str(months[0].start.date()), "--end", months[-1].key]
        environment = {**os.environ, "COVERAGE_DATA": str(root)}
        began = time.perf_counter()
        subprocess.run([*command, *window], env=environment, check=True, capture_output=True)
        line = {
            "bench": "place",
            "months": len(months),
            "sensors": len(planner.spec.sensors),
            "warm_ms": round(1000 * statistics.median(warm)),
            "cold_ms": round(1000 * statistics.median(cold)),
            "slowest_ms": round(1000 * max(warm)),
            "command_seconds": round(time.perf_counter() - began, 2),
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
