"""The cube under many processes at once, under writers killed at any instant, and on a disk that is full.

Everything here is written in constant patterns or seeded numbers, so that one look tells whose a partition is, or that it is a mixture.
"""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xarray as xr
import zarr
from upath import UPath

from coverage_pipeline.cube import arrays as arrays_module
from coverage_pipeline.cube import axes as axes_module
from coverage_pipeline.cube import levels
from coverage_pipeline.cube import schema as cube_schema
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.description import description_path, update_snapshot
from coverage_pipeline.cube.levels import strip_rows
from coverage_pipeline.cube.read import partition_revision, read_partition
from coverage_pipeline.cube.schema import COVERAGE_VARIABLES, GAP_VARIABLES, METRICS, SCHEMA, CoverageError, CoverageMismatch, CoverageQuery
from coverage_pipeline.cube.select import select
from coverage_pipeline.cube.write import write_coverage, write_gap
from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month, months_between
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.files import write_bytes
from coverage_pipeline.storage.locks import exclusive
from coverage_pipeline.storage.paths import storage_path
from coverage_pipeline.storage.tables import read_parquet, write_cells, write_parquet
from tests.cell_files import CellFile
from tests.cubes import FEBRUARY, JANUARY, MARCH, cube_spec, make_cube, provenance, random_fields, write_partition

pytestmark = pytest.mark.slow

# A fork server that has imported everything starts a process in some 50 ms. Importing starts no thread: zarr's begins with its first use.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])

GRID = GridSpec(5.0, extent=(0.0, -80.0, 80.0, 80.0))
"""32 x 16 cells, with one level."""
LEVEL = 10.0
SIDE = 16
"""Cells along a chunk's side here, so that a partition is written in two pieces, and each of its variables is two files."""
SENSORS = ("emit", "landsat-8-9", "prisma", "sentinel-2")
PARTITIONS = [(sensor, month) for sensor in SENSORS for month in (JANUARY, FEBRUARY)]
PATTERNS = range(1, 7)
WAIT = 90.0


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "disk" not in request.fixturenames:
        monkeypatch.setattr(cube_schema, "CHUNK", SIDE)


# --- processes ------------------------------------------------------------------------------------------------------


def reporting(report: Path, barrier: Any, target: Callable[..., None], *args: Any) -> None:
    """What a process does; an error of it goes to a file, and ends all who wait at the barrier."""
    cube_schema.CHUNK = SIDE
    try:
        target(*args)
    except BaseException:
        report.write_text(traceback.format_exc())
        if barrier is not None:
            barrier.abort()
        raise SystemExit(1) from None


@contextmanager
def at_once(folder: Path, *jobs: Sequence[Any], barrier: Any = None) -> Iterator[None]:
    """Processes, each a function with its arguments, that end with the block; an error of one of them is the block's."""
    reports = [folder / f"report-{number}.txt" for number in range(len(jobs))]
    processes = [PROCESSES.Process(target=reporting, args=(r, barrier, *job)) for r, job in zip(reports, jobs, strict=True)]
    for process in processes:
        process.start()
    try:
        yield
        for process in processes:
            process.join(WAIT)
    except threading.BrokenBarrierError:
        pass  # somebody's report says why
    finally:
        for process in processes:
            if process.is_alive():
                process.join(1)
                process.kill()
                process.join()
    said = [report.read_text() for report in reports if report.exists()]
    assert not said, "\n".join(said)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def in_rounds(barrier: Any, rounds: int, job: Callable[..., None], *args: Any) -> None:
    """The job again and again, begun at one instant with those of the others."""
    for number in range(rounds):
        barrier.wait(WAIT)
        job(number, *args)
        barrier.wait(WAIT)


def rounds_of(barrier: Any, rounds: int) -> Iterator[int]:
    """The rounds as their leader sees them: each is over when its number comes."""
    for number in range(rounds):
        barrier.wait(WAIT)
        barrier.wait(WAIT)
        yield number


# --- what stands there ----------------------------------------------------------------------------------------------


def content(path: Path) -> dict[str, Any]:
    """Every file of a cube but those of the random revisions: the very bytes of a chunk, metadata as JSON."""
    files: dict[str, Any] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            key = file.relative_to(path).as_posix()
            if name.endswith(".partial") or key.startswith(("revision/c", "gap_revision/c")):  # .partial: left by a killed writer
                continue
            files[key] = json.loads(file.read_text()) if name == "zarr.json" else file.read_bytes()
    return files


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def arrays(path: UPath | Path) -> dict[tuple[str, str, str], Any]:
    """Every array of the cube and its levels as stored, by sensor and month, whatever the order of the axes; revisions are left out."""
    root = arrays_module.open_group(storage_path(path), "r")
    keys, months = axes_module.axes_of(root)
    found: dict[tuple[str, str, str], Any] = {}
    for name, array in root.arrays():
        _parts(found, name, array, keys, months)
    grid = GridSpec.from_description(axes_module.settings_of(root, storage_path(path))["grid"])
    for level in levels.levels(grid):
        for name, array in root[level.group].arrays():
            _parts(found, f"{level.group}/{name}", array, keys, months)
    return found


def _parts(found: dict[tuple[str, str, str], Any], name: str, array: Any, keys: Sequence[str], months: Sequence[Month]) -> None:
    if name in ("revision", "gap_revision", "sensor") or name.endswith("/sensor"):
        return
    dims, values = array.metadata.dimension_names or (), np.asarray(array[...])
    if dims[:1] != ("sensor",):
        found[name, "", ""] = values
        return
    for s, key in enumerate(keys):
        if dims[1:2] == ("time",):
            found |= {(name, key, month.key): values[s, t] for t, month in enumerate(months)}
        else:
            found[name, key, ""] = values[s]


def unequal(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> list[Any]:
    def same(one: Any, other: Any) -> bool:
        return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")

    return sorted(k for k in a.keys() | b.keys() if k not in a or k not in b or not same(a[k], b[k]))


def revisions(path: Path, sensor: str, month: Month) -> tuple[int, int]:
    group = arrays_module.open_group(storage_path(path), "r")
    at = axes_module.partition_index(group, sensor, month)
    return int(group["revision"][at.sensor, at.time]), int(group["gap_revision"][at.sensor, at.time])


def assert_consolidated(path: Path) -> None:
    """What xarray and GDAL read of the axes and attributes is what stands there, levels included."""
    read, there = (arrays_module.open_group(storage_path(path), "r", consolidated=c) for c in (True, False))
    assert dict(read.attrs) == dict(there.attrs)
    ours, stored = ({n: (getattr(m, "shape", None), dict(m.attrs)) for n, m in g.members(max_depth=None)} for g in (read, there))
    assert ours == stored


# --- patterns -------------------------------------------------------------------------------------------------------


def constant(name: str, pattern: int) -> Any:
    """The one value of a variable in a pattern; 0 stands for what is not known."""
    dtype = np.dtype(SCHEMA[name].dtype)
    if dtype == np.uint32:
        return np.uint32((1 << pattern) - 1 if pattern else UNKNOWN)
    if dtype.kind == "f":
        return dtype.type(pattern / 8 if pattern else np.nan)
    return dtype.type(pattern if pattern or name == "action" else -1)


def sources(pattern: int) -> dict[str, Any]:
    return provenance(
        scan_status=1 + pattern % 3, holdings_status=1 + pattern % 2, scenes_total=1000 * pattern, held_not_in_catalog=pattern,
        scanned_at=1_740_000_000 + 86_400 * pattern, provider=f"host-{pattern} " * pattern,
    )  # fmt: skip


def fields(names: Sequence[str], pattern: int, grid: GridSpec = GRID) -> dict[str, Any]:
    return {name: np.full(grid.shape, constant(name, pattern)) for name in names}


def in_pieces(whole: Mapping[str, Any], grid: GridSpec = GRID) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    rows, step = grid.shape[0], strip_rows(grid)
    for first in range(0, rows, step):
        end = min(first + step, rows)
        yield (first, end), {name: values[first:end] for name, values in whole.items()}


def write_pattern(path: Path, sensor: str, month: Month, pattern: int, *, gap: bool = True) -> int:
    revision = write_coverage(path, sensor, month, in_pieces(fields(COVERAGE_VARIABLES, pattern)), sources(pattern))
    if gap:
        write_gap(path, sensor, month, in_pieces(fields(GAP_VARIABLES, pattern)), desired=pattern, made_from=revision)
    return revision


def shown(part: xr.Dataset, names: Sequence[str]) -> set[int]:
    """The patterns that all of these variables of an opened partition, of one value each, may come from."""
    possible = {0, *PATTERNS}
    for name in names:
        values = part[name].values
        if name in ("desired", *COVERAGE_VARIABLES, *GAP_VARIABLES):
            expected = {p: float(p or np.nan) if name == "desired" else constant(name, p) for p in possible}
            if SCHEMA[name].masked:
                expected[0] = np.nan
        else:
            nothing: Any = {"provider": "", "scan_status": 0, "holdings_status": 0}.get(name, np.nan)
            expected = {p: sources(p)[name] if p else nothing for p in possible}
            if name == "scanned_at":
                values = (values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
        possible = {p for p in possible if np.all((values == expected[p]) | ((values != values) & (expected[p] != expected[p])))}
    return possible


STATED = ("scan_status", "holdings_status", "scenes_total", "held_not_in_catalog", "scanned_at", "provider")
READ = ("scenes_count", "mean_scene_cloud_pct", "held_days", "check_days")


def told(path: Path, sensor: str, month: Month) -> tuple[int, int] | None:
    """The patterns of a partition's coverage and gap as an opened cube has them (0: not known); None where they moved meanwhile."""
    part = open_coverage(path).sel(sensor=sensor, time=month.to_datetime64())
    coverage, gap = shown(part, (*STATED, *READ)), shown(part, ("desired", *GAP_VARIABLES))
    if revisions(path, sensor, month) != (int(part["revision"]), int(part["gap_revision"])):
        return None
    assert len(coverage) == 1, f"{sensor} {month}: its variables are a mixture: {part.drop_vars(['in_scope']).load()}"
    assert len(gap) == 1, f"{sensor} {month}: its gap is a mixture: {part[['desired', *GAP_VARIABLES]].load()}"
    return coverage.pop(), gap.pop()


SELECTED = {"scenes_count": 1.0, "held_observations": 1.0, "mean_scene_cloud_pct": 1 / 8, "deficit": 1.0, "action": 1.0}
"""Metrics that tell the pattern, and what they say of pattern 1."""


def chosen(ds: xr.Dataset, metric: str, sensor: str, months: Sequence[Month], resolution: float | None) -> list[int]:
    """The pattern of every month as ``select`` has it; 0 where it is not known."""
    first, last = (m.to_datetime64().astype("datetime64[D]").astype(dt.date) for m in (months[0], months[-1]))
    q = CoverageQuery(METRICS[metric].layer, metric, [sensor], first, last, "scrub")
    patterns = []
    for frame in select(ds, q, resolution=resolution).values:
        value = np.unique(frame / SELECTED[metric])
        assert value.size == 1, f"{sensor} {months[0]}..{months[-1]}: {metric} at {resolution} is a mixture: {value}"
        patterns.append(0 if np.isnan(value[0]) else int(value[0]))
        assert patterns[-1] == 0 or (patterns[-1] == value[0] and patterns[-1] in PATTERNS)
    return patterns


# --- many partitions at once ----------------------------------------------------------------------------------------


def write_half(number: int, path: Path, own: int) -> None:
    """One partition of its own: its coverage in one round, its gap in the next, so that in every round half of all write either."""
    part, seed = PARTITIONS[own], 100 * own + (number + own) // 2 % 2
    if (number + own) % 2 == 0:
        write_coverage(path, *part, random_fields(seed, GRID), provenance(provider=f"host-{seed}", scenes_total=seed))
        return
    rng = np.random.default_rng(seed)
    gap = {
        "deficit": rng.integers(-1, 9, GRID.shape, np.int16),
        "priority_score": rng.random(GRID.shape, np.float32),
        "action": rng.integers(0, 7, GRID.shape, np.uint8),
    }
    write_gap(path, *part, gap, desired=seed, made_from=partition_revision(path, *part))


def test_eight_processes_give_what_one_gives(tmp_path: Path) -> None:
    """Each writes its own partition again and again, all begun at one instant."""
    rounds = 14
    path, alone = (make_cube(tmp_path / name, cube_spec(SENSORS, (JANUARY, FEBRUARY), GRID)) for name in ("c.zarr", "alone.zarr"))
    for cube in (path, alone):
        for part in PARTITIONS:
            write_pattern(cube, *part, 1)
    expected = []
    for number in range(10):  # from the fourth on each is as the fourth after it, and so the last one as the last of the others
        for own in range(8):
            write_half(number, alone, own)
        expected.append(content(alone))
    assert len(differences(expected[-1], expected[-2])) > 4 * len(COVERAGE_VARIABLES)

    barrier = PROCESSES.Barrier(9)
    with at_once(tmp_path, *[(in_rounds, barrier, rounds, write_half, path, own) for own in range(8)], barrier=barrier):
        for number in rounds_of(barrier, rounds):
            assert not differences(content(path), expected[number if number < 8 else 4 + number % 4]), number
            for own, part in enumerate(PARTITIONS):
                revision, gap_revision = revisions(path, *part)
                assert revision > 0
                assert (revision == gap_revision) == ((number + own) % 2 == 1), (number, part)
    assert not unequal(arrays(path), arrays(alone))
    names = ["revision", "gap_revision"]
    assert open_coverage(path).drop_vars(names).identical(open_coverage(alone).drop_vars(names))


GROWN = months_between(JANUARY, Month(2025, 8))
START = cube_spec(("emit", "enmap"), (JANUARY, FEBRUARY), GRID)


def grow_and_write(number: int, folder: Path, own: int) -> None:
    """Every second one grows the axes in its own way first; the others write what has its place already."""
    path = folder / f"{number}.zarr"
    sensor, month = ("emit", "enmap")[own // 2 % 2], (JANUARY, FEBRUARY)[own // 4]
    if own % 2:
        sensor, month = SENSORS[own // 2], GROWN[2 + (own + number) % 6]
        make_cube(path, cube_spec(("emit", sensor), months_between(JANUARY, month), GRID))
    write_partition(path, sensor, month, random_fields(own, GRID), provider=f"host-{own}" * 9)


def keep_opening(folder: Path, done: Any, opened: Any) -> None:
    """Readers must not notice that the axes grow."""
    while not done.is_set():
        for path in sorted(folder.glob("*.zarr"))[: opened.value + 1]:
            assert {"emit", "enmap"} <= {*open_coverage(path)["sensor"].values.tolist()}
        opened.value += 1


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated")
def test_nothing_is_lost_while_some_of_eight_processes_grow_the_axes(tmp_path: Path) -> None:
    rounds = 4
    folders = tmp_path / "at-once", tmp_path / "alone"
    for folder in folders:
        for number in range(rounds if folder == folders[0] else 2):
            make_cube(folder / f"{number}.zarr", START)
    for number in range(2):
        for own in range(8):
            grow_and_write(number, folders[1], own)

    barrier, done, opened = PROCESSES.Barrier(9), PROCESSES.Event(), PROCESSES.Value("i", 0)
    jobs = [(in_rounds, barrier, rounds, grow_and_write, folders[0], own) for own in range(8)]
    with at_once(tmp_path, *jobs, (keep_opening, folders[0], done, opened), barrier=barrier):
        try:
            for _ in rounds_of(barrier, rounds):
                pass
        finally:
            done.set()
    assert opened.value > 0
    for number in range(rounds):
        path = folders[0] / f"{number}.zarr"
        if number < 2:
            assert not unequal(arrays(path), arrays(folders[1] / path.name))
        assert_consolidated(path)
        with warnings.catch_warnings(action="error", category=RuntimeWarning):  # xarray's, where it finds no consolidated metadata
            ds, level = xr.open_zarr(path), xr.open_zarr(path, group="overviews/2")
        assert sorted(ds["sensor"].values) == sorted({"emit", "enmap", *SENSORS})
        assert ds.sizes["time"] == level.sizes["time"] == max(3 + (own + number) % 6 for own in (1, 3, 5, 7))
        assert int((ds["revision"] != 0).sum()) == 8
        assert (ds["gap_revision"] == ds["revision"]).all()
        assert ds["in_scope"].values.all()
        assert level["in_scope"].values.all()


# --- one partition at once ------------------------------------------------------------------------------------------


def write_own_pattern(number: int, path: Path, own: int, writers: int) -> None:
    write_pattern(path, "emit", JANUARY, 1 + (number * writers + own) % len(PATTERNS))


def keep_reading(path: Path, done: Any, looks: Any) -> None:
    """Old whole, new whole or not known, and the neighbour as it ever was; ``looks`` counts those of each kind."""
    ds = open_coverage(path)
    while not done.is_set():
        patterns = told(path, "emit", JANUARY)
        if patterns is not None:
            looks[0] += 1
            looks[1] += patterns[0] > 0
        for metric in SELECTED:
            for resolution in (None, LEVEL):
                try:
                    both = chosen(ds, metric, "emit", (JANUARY, FEBRUARY), resolution)
                except CoverageError as error:
                    assert "faster than it can be read" in str(error)  # noqa: PT017
                    looks[3] += 1
                else:
                    assert both[1] == 6
                    looks[2] += both[0] > 0
        ds = open_coverage(path)


@pytest.mark.parametrize(("writers", "rounds"), [(2, 12), (4, 6)])
def test_writers_of_one_partition_end_as_one_of_them_and_readers_see_no_mixture(tmp_path: Path, writers: int, rounds: int) -> None:
    spec = cube_spec(("emit",), (JANUARY, FEBRUARY), GRID)
    alone = {}
    for pattern in PATTERNS:
        cube = make_cube(tmp_path / f"alone-{pattern}.zarr", spec)
        write_pattern(cube, "emit", FEBRUARY, 6)
        write_pattern(cube, "emit", JANUARY, pattern)
        alone[pattern] = content(cube)
    path = make_cube(tmp_path / "coverage.zarr", spec)
    write_pattern(path, "emit", FEBRUARY, 6)

    barrier, done, looks = PROCESSES.Barrier(writers + 1), PROCESSES.Event(), PROCESSES.Array("i", 4)
    jobs = [(in_rounds, barrier, rounds, write_own_pattern, path, own, writers) for own in range(writers)]
    won = set()
    with at_once(tmp_path, *jobs, (keep_reading, path, done, looks), barrier=barrier):
        try:
            for number in rounds_of(barrier, rounds):
                now, begun = content(path), {1 + (number * writers + own) % len(PATTERNS) for own in range(writers)}
                coverage = {p for p in begun if not [k for k in differences(now, alone[p]) if not is_gap(k)]}
                gap = {p for p in begun if not [k for k in differences(now, alone[p]) if is_gap(k)]}
                assert len(coverage) == 1, {p: differences(now, alone[p]) for p in begun}
                assert len(gap) == 1, {p: differences(now, alone[p]) for p in begun}
                revision, gap_revision = revisions(path, "emit", JANUARY)
                assert revision > 0
                assert gap_revision == revision or coverage != gap
                won |= {number * writers + own for own in range(writers) if 1 + (number * writers + own) % len(PATTERNS) in coverage}
        finally:
            done.set()
    assert len({w % writers for w in won}) > 1, "the same writer came last in every round: they did not write at once"
    assert looks[1] + looks[2] > 0, list(looks)
    print(f"looks: {looks[0]} whole openings, {looks[1]} of them known, {looks[2]} selections known, {looks[3]} refused")  # noqa: T201


def is_gap(key: str) -> bool:
    return {*key.split("/")} & {*GAP_VARIABLES, "gap_known", "desired"} != set()


def test_a_late_gap_of_former_coverage_does_not_undo_the_one_of_the_coverage_that_stands(tmp_path: Path) -> None:
    """Two builds of one partition: the slower one computed its gap, then the other wrote coverage and gap."""
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(("emit",), (JANUARY,), GRID))
    former = write_pattern(path, "emit", JANUARY, 1, gap=False)
    write_pattern(path, "emit", JANUARY, 2)
    write_gap(path, "emit", JANUARY, in_pieces(fields(GAP_VARIABLES, 1)), desired=1, made_from=former)
    assert told(path, "emit", JANUARY) == (2, 2)


def test_what_is_told_of_a_partition_while_it_is_opened_is_of_one_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The partition is rewritten between two of the reads by which a cube is opened and loaded."""
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(("emit",), (JANUARY,), GRID))
    read, reads = zarr.Array.__getitem__, 0
    write_pattern(path, "emit", JANUARY, 1)

    def count_to(moment: int) -> None:
        nonlocal reads
        reads, guard = 0, threading.Lock()

        def reading(array: zarr.Array, *args: Any) -> Any:
            nonlocal reads
            with guard:
                reads += 1
                now = reads == moment
            if now:
                write_pattern(path, "emit", JANUARY, 4)
            return read(array, *args)

        with monkeypatch.context() as patch:
            patch.setattr(zarr.Array, "__getitem__", reading)
            patterns.append(told(path, "emit", JANUARY))

    patterns: list[tuple[int, int] | None] = []
    count_to(-1)
    assert patterns == [(1, 1)]
    for moment in range(1, reads + 1, max(1, reads // 20)):
        write_pattern(path, "emit", JANUARY, 1)
        count_to(moment)
        assert patterns[-1] in (None, (0, 0), (4, 4), (4, 0)), moment
    assert len(patterns) > 15


# --- killed ---------------------------------------------------------------------------------------------------------

WHOLE = 3, 12
"""Sensors and months of the cube that is built in the end."""
BUILT = [(sensor, month) for sensor in SENSORS[:2] for month in (JANUARY, FEBRUARY)]


def build(path: Path, axes: tuple[int, int], parts: Sequence[tuple[str, Month]], pattern: int) -> None:
    make_cube(path, cube_spec(SENSORS[: axes[0]], [JANUARY.shift(k) for k in range(axes[1])], GRID))
    for part in parts:
        write_pattern(path, *part, pattern)
    update_snapshot(path)


def killed_build(folder: Path, delay: float, *args: Any) -> bool:
    """A build in a process of its own, killed after so many seconds; whether it had not ended before."""
    process = PROCESSES.Process(target=reporting, args=(folder / "report.txt", None, build, *args))
    process.start()
    process.join(delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9), (folder / "report.txt").read_text()
    return process.exitcode != 0


def undisturbed_build(folder: Path, *args: Any) -> float:
    began = time.monotonic()
    assert not killed_build(folder, WAIT, *args)
    return time.monotonic() - began


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated", "ignore:Object at:UserWarning")
@pytest.mark.parametrize("seed", [1, 2])
def test_wherever_a_build_is_killed_readers_see_whole_partitions_and_the_next_one_heals(tmp_path: Path, seed: int) -> None:
    undisturbed_build(tmp_path, tmp_path / "alone.zarr", WHOLE, BUILT, 6)
    alone = arrays(tmp_path / "alone.zarr")
    took = undisturbed_build(tmp_path, tmp_path / "timed.zarr", (2, 2), BUILT[:1], 1)
    took = max(undisturbed_build(tmp_path, tmp_path / "timed.zarr", (3, k), BUILT[:2], k) for k in (3, 4))
    chance = random.Random(seed)
    killed = 0
    for number in range(20):
        path = tmp_path / f"{number // 10}.zarr"
        if number % 10 == 0:
            stands = dict.fromkeys(BUILT, (0, 0))
            least = 2
        pattern = 1 + number % 5
        parts = chance.sample(BUILT, 2)
        # One of less than the one before finds what that left of growing the axes
        months = chance.choice([least, 2 + number % 10])
        least = max(least, months)
        axes = 2 + (number % 10 > 4), months
        delay = chance.uniform(0.02, 0.75 * took)
        killed += killed_build(tmp_path, delay, path, axes, parts, pattern)
        told_of = f"seed {seed}, kill {number} after {delay:.3f} s of {took:.3f} s"
        try:
            stands = assert_whole(path, stands, dict.fromkeys(parts, pattern))
            if number % 10 == 9:
                undisturbed_build(tmp_path, path, WHOLE, BUILT, 6)
                assert not unequal(arrays(path), alone)
                assert {part: told(path, *part) for part in BUILT} == dict.fromkeys(BUILT, (6, 6))
                assert_consolidated(path)
        except Exception as error:
            error.add_note(told_of)
            raise
    assert killed > 10, f"seed {seed}: most of the builds ended before they were killed"


def assert_whole(
    path: Path, stood: Mapping[tuple[str, Month], tuple[int, int]], begun: Mapping[tuple[str, Month], int]
) -> dict[tuple[str, Month], tuple[int, int]]:
    """Every partition is as it stood before the build, as the build makes it, or not known; returns what each is now."""
    if description_path(UPath(path)).exists():
        assert json.loads(description_path(UPath(path)).read_text())["type"] == "Collection"
    if not arrays_module.exists(UPath(path)):
        with pytest.raises(CoverageError, match="build one"):
            open_coverage(path)
        return dict(stood)
    ds = open_coverage(path)
    keys, months = ds["sensor"].values.tolist(), ds.sizes["time"]
    assert keys[:2] == [*SENSORS[:2]]
    assert months >= 2
    now = {}
    for sensor, month in stood:
        part = ds.sel(sensor=sensor, time=month.to_datetime64())
        coverage, gap = shown(part, (*STATED, "scenes_count", "check_days")), shown(part, ("desired", *GAP_VARIABLES))
        assert len(coverage) == len(gap) == 1, f"{sensor} {month}: a mixture"
        now[sensor, month] = coverage.pop(), gap.pop()
        before, new = stood[sensor, month], begun.get((sensor, month), 0)
        possible = {before, (0, 0), (new, 0), (new, new)} | ({(before[0], 0)} if before[0] == new else set()) if new else {before}
        assert now[sensor, month] in possible, f"{sensor} {month}: {now[sensor, month]}, not one of {possible}"
    for sensor in SENSORS[:2]:
        for metric, resolution in (("scenes_count", None), ("held_observations", None), ("mean_scene_cloud_pct", LEVEL)):
            assert chosen(ds, metric, sensor, (JANUARY, FEBRUARY), resolution) == [now[sensor, m][0] for m in (JANUARY, FEBRUARY)]
        for metric, resolution in (("deficit", None), ("action", LEVEL)):
            assert chosen(ds, metric, sensor, (JANUARY, FEBRUARY), resolution) == [now[sensor, m][1] for m in (JANUARY, FEBRUARY)]
    return now


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The process ends when an array would be resized for the so-many-th time, or the metadata consolidated."""
    done = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            done[0] += 1
            if done[0] == step:
                raise Killed
            return function(*args, **options)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "resize", counted(zarr.Array.resize))
        patch.setattr(zarr, "consolidate_metadata", counted(zarr.consolidate_metadata))
        yield done


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated", "ignore:Object at:UserWarning")
@pytest.mark.parametrize("then", ["another run ends", "a smaller run begins"])
def test_a_cube_whose_growing_was_killed_stays_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """Some arrays are longer than others: nothing may consolidate that, nor leave readers to find it by themselves."""
    small, big = cube_spec(("emit",), (JANUARY, FEBRUARY), GRID), cube_spec(("emit", "prisma"), (JANUARY, FEBRUARY, MARCH), GRID)
    counted = make_cube(tmp_path / "counted.zarr", small)
    with killed_at(-1, monkeypatch) as done:
        make_cube(counted, big)
    for step in range(1, done[0] + 1, 11):
        path = make_cube(tmp_path / f"{step}.zarr", small)
        write_pattern(path, "emit", JANUARY, 1)
        with killed_at(step, monkeypatch), pytest.raises(Killed):
            make_cube(path, big)
        if then == "another run ends":  # which began before the other one grew the axes
            update_snapshot(path)
        elif then == "a smaller run begins":
            make_cube(path, cube_spec(("emit",), (JANUARY, FEBRUARY), GRID, note="changed, so that the metadata are consolidated anew"))
        assert told(path, "emit", JANUARY) == (1, 1), step
        make_cube(path, big)
        assert told(path, "emit", JANUARY) == (1, 1), step
        assert_consolidated(path)


# --- a full disk ----------------------------------------------------------------------------------------------------


class Disk:
    """A file system of its own, with a file that takes up the room."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fill(self, leave: int) -> None:
        """Leave so many bytes."""
        self.clear()
        free = os.statvfs(self.root).f_bavail * os.statvfs(self.root).f_frsize
        with (self.root / "ballast").open("wb") as file:
            file.write(bytes(max(0, free - leave)))

    def clear(self) -> None:
        (self.root / "ballast").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("a small file system can be mounted by root on Linux only")
    root = tmp_path / "disk"
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


DEGREES = GridSpec(2.5)
"""72 x 144 cells: numbers at random take more room than a constant."""


@pytest.mark.parametrize("leave", [0, 4096, 40_000, 120_000])
@pytest.mark.parametrize("former", [False, True])
def test_a_full_disk_costs_the_partition_that_was_being_written_and_nothing_else(disk: Disk, leave: int, former: bool) -> None:
    path = make_cube(disk.root / "coverage.zarr", cube_spec(("emit",), (JANUARY, FEBRUARY, MARCH), DEGREES))
    write_partition(path, "emit", JANUARY, random_fields(1, DEGREES))
    if former:
        write_coverage(path, "emit", FEBRUARY, fields(COVERAGE_VARIABLES, 1, DEGREES), sources(1))
    before = others_than_february(path)
    disk.fill(leave)
    with pytest.raises(CoverageError) as raised:
        write_coverage(path, "emit", FEBRUARY, random_fields(2, DEGREES), provenance())
    said = str(raised.value)
    assert f"partition 2025-02|emit of {path}" in said
    assert "No space left on device" in said
    assert "make room" in said
    assert "output.zarr (COVERAGE_OUTPUT_ZARR)" in said
    assert others_than_february(path) == before
    ds = open_coverage(path)
    assert np.isnan(ds["scenes_count"].sel(time="2025-02").values).all()
    assert shown(ds.sel(sensor="emit", time=FEBRUARY.to_datetime64()), STATED) == {0}
    part, _ = read_partition(path, "emit", JANUARY)
    assert not np.isnan(part["scenes_count"].values).all()

    disk.clear()
    write_partition(path, "emit", FEBRUARY, random_fields(2, DEGREES))
    part, _ = read_partition(path, "emit", FEBRUARY)
    for name, values in random_fields(2, DEGREES).items():
        expected = np.where(values == SCHEMA[name].fill, np.nan, values) if SCHEMA[name].masked else values
        np.testing.assert_array_equal(part[name].values[0, 0], expected)
    assert not list(disk.root.rglob("*.partial"))


def others_than_february(path: Path) -> dict[str, Any]:
    return {key: file for key, file in content(path).items() if "/c/0/1" not in key}


def test_a_full_disk_stops_growing_and_the_next_run_completes_it(disk: Disk) -> None:
    path = make_cube(disk.root / "coverage.zarr", cube_spec(("emit",), (JANUARY, FEBRUARY), GRID))
    write_pattern(path, "emit", JANUARY, 1)
    update_snapshot(path)
    big = cube_spec(SENSORS, GROWN, GRID)
    disk.fill(0)
    with pytest.raises(CoverageError, match=r"cannot write the cube at .*No space left.*COVERAGE_OUTPUT_ZARR"):
        make_cube(path, big)
    assert told(path, "emit", JANUARY) == (1, 1)
    write_bytes_refused(disk, description_path(UPath(path)))
    disk.clear()
    write_pattern(path, "emit", FEBRUARY, 2)
    make_cube(path, big)
    update_snapshot(path)
    assert_consolidated(path)
    assert [told(path, "emit", m) for m in (JANUARY, FEBRUARY, MARCH)] == [(1, 1), (2, 2), (0, 0)]


def write_bytes_refused(disk: Disk, path: UPath) -> None:
    before, names = path.read_bytes(), sorted(disk.root.iterdir())
    with pytest.raises(StoreError, match=r"cannot write .*No space left"):
        write_bytes(path, bytes(1 << 20))
    assert path.read_bytes() == before
    assert sorted(disk.root.iterdir()) == names


CELLS = pa.schema([("cell", pa.int64()), ("count", pa.int16())])


def cells(seed: int, pieces: int) -> Iterator[pa.Table]:
    rng = np.random.default_rng(seed)
    for piece in range(pieces):
        numbers = {"cell": np.sort(rng.integers(piece << 40, (piece + 1) << 40, 20_000)), "count": rng.integers(0, 9000, 20_000, np.int16)}
        yield pa.table(numbers, schema=CELLS)


@pytest.mark.parametrize("leave", [0, 30_000, 300_000])
def test_a_full_disk_leaves_the_former_tables_and_nothing_temporary(disk: Disk, leave: int) -> None:
    statistics, scenes = UPath(disk.root / "stats" / "2025-01.parquet"), UPath(disk.root / "catalog" / "2025-01.parquet")
    write_cells(statistics, CELLS, cells(1, 1), CellFile(run="former"))
    write_parquet(scenes, next(cells(1, 1)), {"run": "former"})
    names = sorted(disk.root.rglob("*"))
    disk.fill(leave)
    with pytest.raises(StoreError, match=r"cannot write .*stats/2025-01\.parquet: .*No space left.*COVERAGE_DATA"):
        write_cells(statistics, CELLS, cells(2, 9), CellFile(run="new"))
    with pytest.raises(StoreError, match=r"cannot write .*catalog/2025-01\.parquet: .*No space left.*COVERAGE_DATA"):
        write_parquet(scenes, pa.concat_tables(cells(2, 9)), {"run": "new"})
    disk.clear()
    assert sorted(disk.root.rglob("*")) == names
    for path in (statistics, scenes):
        table, metadata = read_parquet(path)
        assert metadata["run"] == "former"
        assert table.equals(next(cells(1, 1)))
    assert write_cells(statistics, CELLS, cells(2, 9), CellFile(run="new")).cells == read_parquet(statistics)[0].num_rows == 180_000


# --- another version ------------------------------------------------------------------------------------------------


def test_a_cube_that_another_version_was_writing_is_refused_with_the_way_out(tmp_path: Path) -> None:
    spec = cube_spec(("emit",), (JANUARY, FEBRUARY), GRID)
    path = make_cube(tmp_path / "coverage.zarr", spec)
    write_pattern(path, "emit", JANUARY, 1)
    with exclusive(UPath(tmp_path / "another"), label="the other version's own"):
        root = zarr.open_group(path, mode="r+")
        root["revision"][0, 1] = np.uint64(0)  # half-way through February
        root["scenes_count"][0, 1, :SIDE] = 3
        root.attrs["schema_version"] = 1
    before = content(path)
    for refused in (
        lambda: make_cube(path, spec),
        lambda: make_cube(path, cube_spec(SENSORS, GROWN, GRID)),
        lambda: open_coverage(path),
        lambda: write_pattern(path, "emit", FEBRUARY, 2, gap=False),
        lambda: write_pattern(path, "emit", JANUARY, 2, gap=False),
        lambda: write_gap(path, "emit", JANUARY, fields(GAP_VARIABLES, 2), desired=2, made_from=revisions(path, "emit", JANUARY)[0]),
        lambda: read_partition(path, "emit", JANUARY),
        lambda: update_snapshot(path),
    ):
        with pytest.raises(CoverageMismatch, match=r"schema version 1, this program writes 2: run `coverage-planner migrate`"):
            refused()
    assert content(path) == before


# --- on an object store ---------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """moto's S3 server, with one PUT at a time: it looks whether an object exists, then makes it, and threads come in between."""
    import boto3
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    one_at_a_time = threading.Lock()
    put_object: Callable[..., Any] = S3Response.put_object

    def put_object_alone(self: Any) -> Any:
        with one_at_a_time:
            return put_object(self)

    monkeypatch.setattr(S3Response, "put_object", put_object_alone)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=(port := free_port()), verbose=False)
    server.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="together")
    try:
        yield environment
    finally:
        server.stop()


def make_and_write(url: str, environment: Mapping[str, str], own: int) -> None:
    """Make the cube, unless another does, then write a partition of it."""
    os.environ.update(environment)
    # with the address fsspec makes a client of this server's, and does not give out another test's
    path = UPath(url, endpoint_url=environment["AWS_ENDPOINT_URL"]) if environment else UPath(url)
    make_cube(path, cube_spec(SENSORS[:2], (JANUARY, FEBRUARY), GRID))
    write_pattern(path, *PARTITIONS[own], 1 + own)


def test_three_processes_on_an_object_store_give_what_one_gives_in_a_folder(bucket: dict[str, str], tmp_path: Path) -> None:
    url, alone = "s3://together/deeper/coverage.zarr", str(tmp_path / "coverage.zarr")
    with at_once(tmp_path, *[(make_and_write, url, bucket, own) for own in range(3)]):
        pass
    for own in range(3):
        make_and_write(alone, {}, own)
    path = UPath(url, endpoint_url=bucket["AWS_ENDPOINT_URL"])
    assert not unequal(arrays(path), arrays(Path(alone)))
    assert_consolidated(path)
    assert [told(path, *PARTITIONS[own]) for own in range(4)] == [(1, 1), (2, 2), (3, 3), (0, 0)]
