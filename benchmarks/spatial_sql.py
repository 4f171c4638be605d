"""DuckDB's spatial SQL as a peer of the kernel: how long it takes, and whether it finds the same.

The spatial extension cannot be downloaded where there is only a package index, but a package carries it, for DuckDB 1.5 and not for the
one that the product uses. So it has an environment of its own in the user's cache folder, made when it is first wanted.

The two rules differ in one point: ``ST_Intersects`` counts a cell that a footprint merely touches along an edge or at a corner; ours
wants interiors to meet. `compare` looks at every cell that differs, footprint by footprint, with shapely.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from benchmarks.timing import Taken
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import CellStatistics, cell_statistics

VERSION = "1.5.5"
PACKAGES = (f"duckdb=={VERSION}", f"duckdb-extension-spatial=={VERSION}")
GRID = GridSpec(0.1)
_SCRIPT = Path(__file__).with_name("spatial_sql_run.py")
_EXACT = ("scenes", "clear", "unknown", "days", "clear_days", "unknown_days")
# Percent: the mean is float32 with us and float64 with them, of clouds in whole units of 1e-6.
_SAME_MEAN = 1e-4


class NoSpatialSql(RuntimeError):
    """DuckDB's spatial extension is not to be had; the message says why."""


@cache
def environment() -> Path:
    """The Python of the environment, which is made where it is not there yet; raises ``NoSpatialSql``."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "coverage-planner" / f"duckdb-spatial-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    if _works(python):
        return python
    uv = next((str(found) for found in [Path(sys.executable).with_name("uv")] if found.exists()), shutil.which("uv"))
    if uv is None:
        raise NoSpatialSql("uv is not installed")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            made = Path(place) / "environment"
            commands = [
                [uv, "venv", "--quiet", "--python", sys.executable, str(made)],
                [uv, "pip", "install", "--quiet", "--python", str(made / "bin" / "python"), *PACKAGES],
            ]
            for command in commands:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    except subprocess.CalledProcessError as error:
        raise NoSpatialSql(f"{' and '.join(PACKAGES)} cannot be installed: {_last_line(error.stderr)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoSpatialSql(f"no environment for {' and '.join(PACKAGES)}: {error}") from None
    if not _works(python):
        raise NoSpatialSql("the extension does not load")
    return python


def _works(python: Path) -> bool:
    return python.exists() and subprocess.run([str(python), str(_SCRIPT), "--probe"], capture_output=True, check=False).returncode == 0


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")


@dataclass(frozen=True)
class Scenes:
    """What both sides are given: a day of the month, a cloud percentage (NaN: not known) and whether it is clear, a footprint."""

    footprints: NDArray[np.object_]
    day: NDArray[np.uint8]
    cloud: NDArray[np.float64]
    clear: NDArray[np.bool_]

    def write(self, path: Path) -> None:
        """As the script reads them."""
        columns = {
            "day": self.day,
            "cloud": pa.array(self.cloud, pa.float64(), from_pandas=True),
            "clear": self.clear,
            "wkb": pa.array(shapely.to_wkb(self.footprints), pa.binary()),
        }
        pq.write_table(pa.table(columns), path, compression="zstd")


def statistics_by_sql(scenes: Scenes, *, threads: int | None = None) -> tuple[dict[str, Taken], CellStatistics]:
    """What each way to ask took, and the statistics that they all give; raises ``NoSpatialSql``."""
    python = environment()
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "footprints.parquet", Path(folder) / "statistics.parquet"
        scenes.write(given)
        command = [str(python), str(_SCRIPT), str(given), str(found), str(threads or os.cpu_count() or 1)]
        taken = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        table = pq.read_table(found)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in CellStatistics.__dataclass_fields__}
    return {name: Taken(*one) for name, one in taken.items()}, CellStatistics(**columns)


@dataclass(frozen=True)
class Comparison:
    """What both sides say of the cells that either found."""

    cells: int
    differing: int
    """Cells of which the two do not say the same."""
    explained: int
    """Of these, where DuckDB counts just the footprints that share at least a boundary point with the cell, and we just those whose
    interior meets the cell's, as shapely finds them one by one.
    """
    unexplained: tuple[int, ...]
    """The others."""


def snapped_squares(n: int, seed: int = 7) -> NDArray[np.object_]:
    """Boxes whose sides lie on edges of the grid, so that the cells around them are touched and no more."""
    rng = np.random.default_rng(seed)
    row, column, high, wide = rng.integers(400, 1500, n), rng.integers(100, 3400, n), rng.integers(1, 12, n), rng.integers(1, 12, n)
    boxes: NDArray[np.object_] = shapely.box(
        GRID.lon_edges[column], GRID.lat_edges[row], GRID.lon_edges[column + wide], GRID.lat_edges[row + high]
    )
    return boxes


def compare(scenes: Scenes) -> Comparison:
    """Our statistics beside DuckDB's, cell by cell; raises ``NoSpatialSql``."""
    _, theirs = statistics_by_sql(scenes)
    usable, reasons = normalise_footprints(scenes.footprints)
    assert all(reason is None for reason in reasons)
    ours = cell_statistics(usable, day=scenes.day, cloud=scenes.cloud, clear=scenes.clear, grid=GRID)
    cells = np.union1d(ours.cell, theirs.cell)
    differ = ~_alike(_on(ours, cells), _on(theirs, cells))
    tree = shapely.STRtree(scenes.footprints)
    wrong = []
    for cell in cells[differ]:
        box = _box(int(cell))
        near = np.sort(tree.query(box))
        touching = near[shapely.intersects(scenes.footprints[near], box)]
        meeting = touching[shapely.relate_pattern(scenes.footprints[touching], box, "T********")]
        one = np.array([cell])
        same = [_alike(_on(side, one), _counted(scenes, which))[0] for side, which in ((theirs, touching), (ours, meeting))]
        if not all(same):
            wrong.append(int(cell))
    differing = int(differ.sum())
    return Comparison(len(cells), differing, differing - len(wrong), tuple(wrong))


def _box(cell: int) -> shapely.Polygon:
    row, column = divmod(cell, GRID.shape[1])
    return shapely.box(GRID.lon_edges[column], GRID.lat_edges[row], GRID.lon_edges[column + 1], GRID.lat_edges[row + 1])


Columns = dict[str, NDArray[np.generic]]


def _on(found: CellStatistics, cells: NDArray[np.int64]) -> Columns:
    """The statistics of those cells; 0 scenes where it has none."""
    at = np.minimum(np.searchsorted(found.cell, cells), max(0, len(found.cell) - 1))
    there = found.cell[at] == cells if len(found.cell) else np.zeros(len(cells), bool)
    columns: Columns = {}
    for name in (*_EXACT, "cloud_mean"):
        values = getattr(found, name)
        empty = np.nan if name == "cloud_mean" else 0
        columns[name] = np.where(there, values[at], values.dtype.type(empty)) if len(values) else np.full(len(cells), empty)
    return columns


def _counted(scenes: Scenes, which: NDArray[np.int64]) -> Columns:
    """The statistics of one cell, from the scenes that cover it."""
    cloud, clear = scenes.cloud[which], scenes.clear[which]
    unknown = np.isnan(cloud) & ~clear
    bits = np.left_shift(np.uint32(1), scenes.day[which].astype(np.uint32) - 1)
    counts = {"scenes": len(which), "clear": clear.sum(), "unknown": unknown.sum()}
    masks = {"days": bits, "clear_days": bits[clear], "unknown_days": bits[unknown]}
    known = cloud[~np.isnan(cloud)]
    columns: Columns = {name: np.array([count]) for name, count in counts.items()}
    columns |= {name: np.array([np.bitwise_or.reduce(values, initial=np.uint32(0))]) for name, values in masks.items()}
    return columns | {"cloud_mean": np.array([known.mean() if len(known) else np.nan])}


def _alike(a: Columns, b: Columns) -> NDArray[np.bool_]:
    same = np.isclose(a["cloud_mean"].astype(float), b["cloud_mean"].astype(float), rtol=0, atol=_SAME_MEAN, equal_nan=True)
    for name in _EXACT:
        same &= a[name] == b[name]
    return same
