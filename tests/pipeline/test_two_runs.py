"""Two runs over one root, and what killed runs leave: nothing is shown whole that is a mixture, and nobody fails for the other's sake."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from upath import UPath

from coverage_pipeline.cube import schema as cube_schema
from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.locking import lock_paths, partition_lock
from coverage_pipeline.cube.read import partition_revision
from coverage_pipeline.cube.schema import CoverageMismatch
from coverage_pipeline.cube.write import write_coverage, write_gap
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.storage.files import write_together
from coverage_pipeline.storage.locks import LockLost
from tests.cubes import GRID, JANUARY, cube_spec, everywhere, known_fields, make_cube, make_gap, provenance, write_partition
from tests.pipeline.test_migrate import FEBRUARY, STEPS, built, make, planner_in, world  # noqa: F401 fixtures

pytestmark = pytest.mark.slow


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    return make_cube(tmp_path / "coverage.zarr")


def revisions(cube: Path, name: str) -> Any:
    return zarr.open_group(str(cube), mode="r", use_consolidated=False)[name][...]


def met_everywhere() -> dict[str, Any]:
    fields = {"deficit": np.int16(0), "priority_score": np.float32(0), "action": np.uint8(1)}
    return {name: np.full(GRID.shape, value) for name, value in fields.items()}


def in_thread(job: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            job(*args, **kwargs)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


# A lock that was lost


def lock_file(cube: Path) -> Path:
    return Path(lock_paths(UPath(cube))[1].path) / f"emit.{JANUARY.key}.lock"


@pytest.mark.parametrize("at", ["before the first piece is written", "after the last piece"])
def test_a_robbed_writer_never_leaves_its_partition_marked_whole(tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cube_schema, "CHUNK", 6)  # so that a partition may come in pieces
    cube = make_cube(tmp_path / "coverage.zarr")
    write_partition(cube, "emit", JANUARY)
    thief: list[int] = []

    def rob() -> None:
        lock_file(cube).unlink()
        thread, errors = in_thread(lambda: thief.append(write_coverage(cube, "emit", JANUARY, known_fields(scenes_count=9), provenance())))
        thread.join(300)
        assert not errors

    def pieces() -> Iterator[Any]:
        n = GRID.shape[0]
        yield (0, 12), {name: values[:12] for name, values in known_fields(scenes_count=2).items()}
        if at.startswith("before"):
            rob()
        yield (12, n), {name: values[12:] for name, values in known_fields(scenes_count=2).items()}
        if at.startswith("after"):
            rob()

    with pytest.raises(LockLost, match="run this again"):
        write_coverage(cube, "emit", JANUARY, pieces(), provenance())
    assert thief
    assert revisions(cube, "revision")[0, 0] == 0
    assert int(open_coverage(cube)["scenes_count"].notnull().sum()) == 0
    write_partition(cube, "emit", JANUARY, known_fields(scenes_count=9))
    assert (open_coverage(cube)["scenes_count"][0, 0] == 9).all()


def test_a_robbed_writer_of_a_gap_leaves_it_not_known(cube: Path) -> None:
    revision = write_partition(cube, "emit", JANUARY)
    gap = met_everywhere()

    def pieces() -> Iterator[Any]:
        yield None, gap
        lock_file(cube).unlink()

    with pytest.raises(LockLost):
        write_gap(cube, "emit", JANUARY, pieces(), desired=1, made_from=revision)
    assert revisions(cube, "gap_revision")[0, 0] == 0
    assert revisions(cube, "revision")[0, 0] == revision


# Gaps that settings make void


def heavier(spec: Any) -> Any:
    return replace(spec, weights={**spec.weights, "deficit": spec.weights["deficit"] + 0.1})


@pytest.mark.parametrize("change", [heavier, lambda spec: replace(spec, area="elsewhere")])
def test_a_gap_of_former_settings_never_comes_in_after_they_changed(cube: Path, change: Callable[[Any], Any]) -> None:
    spec = cube_spec()
    revision = write_partition(cube, "emit", JANUARY)
    gap = met_everywhere()
    started: list[Any] = []

    def pieces() -> Iterator[Any]:
        yield None, gap
        before = (cube / "zarr.json").read_text()
        started.append(in_thread(ensure_cube, cube, change(spec), everywhere()))
        for _ in range(600):
            if json.loads((cube / "zarr.json").read_text())["attributes"]["settings"] != json.loads(before)["attributes"]["settings"]:
                return
            time.sleep(0.1)

    with pytest.raises(CoverageMismatch, match="another run changed"):
        write_gap(cube, "emit", JANUARY, pieces(), desired=1, made_from=revision, meaning=spec.meaning())
    thread, errors = started[0]
    thread.join(60)
    assert not errors
    assert not revisions(cube, "gap_revision").any()
    with pytest.raises(CoverageMismatch, match="another run changed"):  # and one that begins after it with the former settings
        write_gap(cube, "emit", JANUARY, gap, desired=1, made_from=revision, meaning=spec.meaning())
    make_gap(cube, "emit", JANUARY)
    assert revisions(cube, "gap_revision")[0, 0] == revision


def test_voiding_waits_for_the_writer_of_the_partition(cube: Path) -> None:
    write_partition(cube, "emit", JANUARY)
    with partition_lock(UPath(cube), "emit", JANUARY):
        thread, errors = in_thread(ensure_cube, cube, heavier(cube_spec()), everywhere())
        thread.join(1)
        assert thread.is_alive()
    thread.join(60)
    assert not errors
    assert not revisions(cube, "gap_revision").any()


def test_gaps_that_a_killed_run_had_still_to_void_are_voided_by_the_next(cube: Path) -> None:
    write_partition(cube, "emit", JANUARY)
    document = json.loads((cube / "zarr.json").read_text())
    document["attributes"]["gaps_to_void"] = json.dumps(["emit"])
    (cube / "zarr.json").write_text(json.dumps(document))
    make_cube(cube)
    assert not revisions(cube, "gap_revision").any()
    make_gap(cube, "emit", JANUARY)
    make_cube(cube)
    assert revisions(cube, "gap_revision").any()


# Two builds of one root


def test_two_builds_of_one_root_both_end_well(world: Path) -> None:  # noqa: F811
    """Each extracts the holdings anew, so that the files of one never go with those of the other."""
    jobs = []
    for _ in range(2):
        planner = planner_in(world, sensors={"keys": ["mine"]})

        def rounds(planner: Any = planner) -> None:
            for _ in range(4):
                build(planner, steps=STEPS[1:])

        jobs.append(in_thread(rounds))
    for thread, errors in jobs:
        thread.join(500)
        assert not errors
    planner = planner_in(world, sensors={"keys": ["mine"]})
    after = open_coverage(planner.store.zarr.path)["held_count"].sel(sensor="mine").values
    make(planner, STEPS[2:])
    np.testing.assert_array_equal(open_coverage(planner.store.zarr.path)["held_count"].sel(sensor="mine").values, after)


def test_a_gap_waits_for_the_run_that_writes_its_coverage(cube: Path) -> None:
    first, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[Any]:
        yield None, known_fields(scenes_count=5)
        first.set()
        assert go_on.wait(60)

    thread, errors = in_thread(write_coverage, cube, "emit", JANUARY, pieces(), provenance())
    assert first.wait(60)
    found: list[int] = []
    reader, failed = in_thread(lambda: found.append(partition_revision(cube, "emit", JANUARY)))
    reader.join(1)
    assert reader.is_alive()
    go_on.set()
    for one in (thread, reader):
        one.join(60)
    assert not errors
    assert not failed
    assert found == [int(revisions(cube, "revision")[0, 0])]


# Files that belong together


def test_files_that_belong_together_are_all_written_before_one_is_replaced(tmp_path: Path) -> None:
    first, second = UPath(tmp_path / "a.parquet"), UPath(tmp_path / "b" / "c.parquet")
    write_together([(first, b"1"), (second, b"1")])
    (tmp_path / "b").rename(tmp_path / "d")
    (tmp_path / "b").write_text("no folder")
    with pytest.raises(Exception, match=r"c\.parquet"):
        write_together([(first, b"2"), (second, b"2")])
    assert Path(first.path).read_bytes() == b"1"
    assert {p.name for p in tmp_path.iterdir()} == {"a.parquet", "b", "d"}
    write_together([])


# What killed runs leave


HEX = "0123456789abcdef" * 2


def leave(path: Path, hours: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


def test_what_killed_runs_left_goes_after_a_day_and_nothing_else(world: Path) -> None:  # noqa: F811
    planner = planner_in(world)
    data = world / "data"
    cube = data / "coverage.zarr"
    gone = [
        leave(data / place, 25)
        for place in (
            f"catalog/mine/.2025-01.parquet.{HEX}.tmp",
            f"catalog/mine/.2025-01.scan.json.{HEX}.tmp",
            f"holdings/mine/.2025-01.last.parquet.{HEX}.tmp",
            f"stats/held/mine/.2025-02.parquet.{HEX}.tmp",
            f"matchup/mine/.2025-02.parquet.{HEX}.tmp",
            f".coverage.stac.json.{HEX}.tmp",
            f"coverage.zarr/.zarr.json.{HEX}.tmp",
            f"coverage.zarr/zarr.{HEX}.partial",
            f"coverage.zarr/scenes_count/zarr.{HEX}.partial",
            f"coverage.zarr/time/c/0.{HEX}.partial",
            f"coverage.zarr/in_scope/c/0/0/0.{HEX}.partial",
        )
    ]
    of_partition = [
        leave(cube / place, 25)
        for place in (f"scenes_count/c/0/0/0/0.{HEX}.partial", f"deficit/c/0/0/0/0.{HEX}.partial", f"revision/c/0/0.{HEX}.partial")
    ]
    others = [
        leave(data / f"catalog/mine/.2025-01.parquet.{HEX}.tmp2", 99),
        leave(data / "catalog/mine/.notes.tmp", 99),
        leave(data / f"catalog/mine/2025-01.parquet.{HEX}.tmp", 99),
        leave(data / f"catalog/mine/.2025-01.parquet.{HEX[:-1]}.tmp", 99),
        leave(data / f"catalog/mine/.2025-02.parquet.{HEX}.tmp", 23),
        leave(data / f".letters.{HEX}.tmp", 99),
        leave(data / f"photos/.cat.jpg.{HEX}.tmp", 99),
        leave(cube / f"scenes_count/c/0/1/0/0.{HEX}.partial", 23),
        leave(cube / f"scenes_count/c/0/0/0/x.{HEX}.partial", 99),
        leave(world / f"outside.{HEX}.tmp", 99),
    ]
    link = data / f"catalog/mine/.2025-03.parquet.{HEX}.tmp"
    link.symlink_to(others[-1])
    planner.ensure_cube()
    assert [path for path in gone if path.exists()] == []
    assert all(path.exists() for path in (*of_partition, *others))
    assert link.is_symlink()
    planner.coverage(planner.sensors["mine"], JANUARY)
    assert [path for path in of_partition if path.exists()] == []
    assert all(path.exists() for path in others)


def test_a_file_that_a_scan_still_guards_stays(world: Path) -> None:  # noqa: F811
    import filelock

    planner = planner_in(world)
    folder = world / "data" / "catalog" / "mine"
    left = leave(folder / f".2025-01.parquet.{HEX}.tmp", 48)
    with filelock.FileLock(folder / ".2025-01.parquet.lock"):
        planner.ensure_cube()
        assert left.exists()
    planner.ensure_cube()
    assert not left.exists()


# A migration to another name


def test_a_migration_to_another_name_leaves_the_old_cube_s_statistics_too(world: Path) -> None:  # noqa: F811
    from coverage_pipeline.pipeline.migrate import migrate

    def derived() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for kind in ("stats", "matchup") for p in sorted((world / "data" / kind).rglob("*")) if p.is_file()}

    before = derived()
    done = migrate(planner_in(world, grid={"rule": "center"}), to=UPath(world / "second.zarr"))
    assert done.made
    assert derived() == before
    old = planner_in(world)
    for month in (JANUARY, FEBRUARY):
        old.coverage(old.sensors["mine"], month)  # goes on as if nothing had been
        old.gap(old.sensors["mine"], month)
    assert not [p.name for p in (world / "data").iterdir() if p.name.startswith(".migrating")]


def test_a_migration_in_place_takes_its_statistics_along(world: Path) -> None:  # noqa: F811
    from coverage_pipeline.pipeline.migrate import migrate

    planner = planner_in(world, grid={"rule": "center"})
    assert migrate(planner).made
    planner.coverage(planner.sensors["mine"], JANUARY)
    assert not [p.name for p in (world / "data").iterdir() if p.name.startswith(".migrating")]
