"""What a month that has not changed costs when it is made again, as a share of the first time.

``python -m benchmarks.year`` prints this line, for one month of Sentinel-2 of the year's archive: availability_stats to gap, in a
process that is warm (compiled, and the cube's axes are there). Medians of rounds, each below a root of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.archive import YEAR, settings_of
from benchmarks.timing import Taken, median_of, taken_by
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.pipeline.steps import GRIDDING_STEPS

SENSOR, MONTH = "sentinel-2", YEAR[0]


def _copied(archive: Path, root: Path) -> Planner:
    """A planner below a new root with the month's files of scenes and holdings, and an empty cube."""
    for part in ("catalog", "holdings"):
        (root / part / SENSOR).mkdir(parents=True)
        for file in (archive / part / SENSOR).glob(f"{MONTH.key}.*"):
            shutil.copy2(file, root / part / SENSOR)
    planner = Planner.from_settings(settings_of(root, [MONTH], [SENSOR]))
    planner.ensure_cube()
    return planner


def measure(archive: Path, folder: Path, rounds: int = 3) -> dict[str, Any]:
    """Seconds of both, of the first month below ``archive``; works in a folder of its own below ``folder``."""
    first: list[Taken] = []
    again: list[Taken] = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for turn in range(rounds + 1):
            planner = _copied(archive, Path(place) / str(turn))
            taken = [taken_by(lambda planner=planner: build(planner, steps=GRIDDING_STEPS)) for _ in range(2)]
            if turn:  # the first round warms
                first.append(taken[0])
                again.append(taken[1])
    one, two = median_of(first), median_of(again)
    return {
        "bench": "rerun",
        "sensor": SENSOR,
        "first_s": round(one.wall, 2),
        "again_s": round(two.wall, 2),
        "share": round(two.wall / one.wall, 3),
        "first_cpu_s": round(one.cpu, 2),
        "again_cpu_s": round(two.cpu, 2),
        "cpu_share": round(two.cpu / one.cpu, 3),
    }
