"""Locks between processes: on a folder by the operating system, on an object store by conditional writes to a real S3 server."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.locking import lock_paths
from coverage_pipeline.cube.read import partition_revision
from coverage_pipeline.cube.schema import CoverageError
from coverage_pipeline.cube.write import write_coverage
from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.storage import locks
from coverage_pipeline.storage.locks import LockError, LockLost, LockTimeout, exclusive
from tests.cubes import JANUARY, cube_spec, everywhere, known_fields, provenance

pytestmark = pytest.mark.slow

PROCESSES = multiprocessing.get_context("forkserver")
WHAT = "the axes of the cube"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[dict[str, str]]:
    """moto's S3 server, with one PUT at a time: it looks whether an object exists, then makes it, and threads come in between."""
    from moto.s3.responses import S3Response  # here, as every process of these tests would take a second to import it
    from moto.server import ThreadedMotoServer

    one_at_a_time = threading.Lock()
    put_object: Callable[..., Any] = S3Response.put_object

    def put_object_alone(self: Any) -> Any:
        with one_at_a_time:
            return put_object(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", put_object_alone)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=(port := free_port()), verbose=False)
        server.start()
        try:
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            server.stop()


@pytest.fixture
def environment(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a process needs in its environment (a fork server keeps that of its own start)."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return s3_server


def s3() -> Any:
    """A client that is not fsspec's, and has no cache."""
    import boto3

    return boto3.client("s3")


@pytest.fixture
def bucket(environment: dict[str, str], request: pytest.FixtureRequest) -> UPath:
    name = f"b{abs(hash(request.node.name))}"
    s3().create_bucket(Bucket=name)
    # With the address fsspec makes a client of this server's, and does not give out another test module's.
    return UPath(f"s3://{name}/coverage", endpoint_url=environment["AWS_ENDPOINT_URL"])


def objects_of(lock: UPath) -> list[str]:
    bucket, _, prefix = lock.path.partition("/")
    return sorted(item["Key"].rpartition("/")[2] for item in s3().list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []))


def started(target: Callable[..., None], *args: Any) -> BaseProcess:
    process = PROCESSES.Process(target=target, args=args)
    process.start()
    return process


def ended(*processes: BaseProcess) -> None:
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


def when_there(file: Path) -> None:
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline, f"{file.name} did not appear"
        time.sleep(0.01)


def count(lock: str, counter: str, rounds: int, environment: dict[str, str]) -> None:
    """Add 1 to the number in a file, as one does who believes to be alone."""
    os.environ.update(environment)
    file = UPath(counter)
    for _ in range(rounds):
        with exclusive(UPath(lock), label=WHAT, timeout=60):
            number = int(file.fs.cat_file(file.path, start=0))
            time.sleep(0.002)
            file.fs.pipe_file(file.path, str(number + 1).encode())


def hold(lock: str, inside: Path, leave: Path, outcome: Path, environment: dict[str, str], lease: float) -> None:
    """Hold a lock from the file ``inside`` to the file ``leave``, and write down how it ended."""
    os.environ.update(environment)
    locks.LEASE = lease
    try:
        with exclusive(UPath(lock), label=WHAT):
            inside.touch()
            when_there(leave)
    except PlannerError as error:
        outcome.write_text(f"{type(error).__name__}: {error}")
    else:
        outcome.write_text("left")


class Holder:
    """A process that holds a lock until it is told to leave."""

    def __init__(self, lock: UPath, folder: Path, environment: dict[str, str] | None = None, lease: float = 120.0) -> None:
        self._leave, self._outcome = folder / "leave", folder / "outcome"
        inside = folder / "inside"
        self.process = started(hold, str(lock), inside, self._leave, self._outcome, environment or {}, lease)
        when_there(inside)

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def outcome(self) -> str:
        self._leave.touch()
        ended(self.process)
        return self._outcome.read_text()


# In a folder


def test_no_update_is_lost_between_processes_in_a_folder(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    lock = tmp_path / "made on the way" / ".coverage.zarr.lock"
    ended(*[started(count, str(lock), str(counter), 15, {}) for _ in range(4)])
    assert counter.read_text() == "60"


def test_the_lock_of_a_killed_holder_in_a_folder_is_free_at_once(tmp_path: Path) -> None:
    lock = UPath(tmp_path / ".coverage.zarr.lock")
    holder = Holder(lock, tmp_path)
    with pytest.raises(LockTimeout), exclusive(lock, label=WHAT, timeout=0):
        pytest.fail("two hold the lock")
    holder.signal(signal.SIGKILL)
    holder.process.join(10)
    began = time.monotonic()
    with exclusive(lock, label=WHAT, timeout=5):
        assert time.monotonic() - began < 1


def test_a_timeout_says_what_is_locked_where_and_what_to_do(tmp_path: Path) -> None:
    lock = UPath(tmp_path / ".coverage.zarr.lock")

    def second() -> None:
        with exclusive(lock, label=WHAT, timeout=0.3):
            pytest.fail("two hold the lock")

    words = r"waited 0\.3 s for the lock of the axes of the cube .*another run holds.*wait for that run"
    with exclusive(lock, label=WHAT), ThreadPoolExecutor(1) as other, pytest.raises(LockTimeout, match=words) as raised:
        other.submit(second).result()
    assert str(lock) in str(raised.value)


def test_a_place_that_cannot_be_written_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(LockError, match=r"cannot lock the axes of the cube at .*COVERAGE_OUTPUT_ZARR"),
        exclusive(UPath(tmp_path / "file" / ".lock"), label=WHAT),
    ):
        pytest.fail("locked nothing")


def test_an_error_of_the_body_passes_and_frees_the_lock(tmp_path: Path, bucket: UPath) -> None:
    for lock in (UPath(tmp_path / ".lock"), bucket / ".lock"):
        with pytest.raises(OSError, match="of the body"), exclusive(lock, label=WHAT):
            raise OSError("of the body")
        with exclusive(lock, label=WHAT, timeout=0):
            pass


# On an object store


def test_no_update_is_lost_between_processes_on_an_object_store(bucket: UPath, environment: dict[str, str]) -> None:
    lock, counter = bucket / ".coverage.zarr.locks" / "2025-01.emit.lock", bucket / "counter"
    counter.write_bytes(b"0")
    ended(*[started(count, str(lock), str(counter), 10, environment) for _ in range(4)])
    assert counter.fs.cat_file(counter.path, start=0) == b"40"
    assert objects_of(lock) == ["2025-01.emit.lock.000000040"]  # none is left of the others


def test_locks_of_other_names_are_apart(bucket: UPath) -> None:
    with (
        exclusive(bucket / ".lock", label=WHAT),
        exclusive(bucket / ".lock.1.lock", label=WHAT, timeout=0),
        exclusive(bucket / "deeper" / ".lock", label=WHAT, timeout=0),
        exclusive(bucket.parent / ".lock", label=WHAT, timeout=0),
    ):
        assert objects_of(bucket / ".lock") == [".lock.000000001", ".lock.1.lock.000000001"]


def test_a_killed_holder_is_taken_for_dead_after_its_own_lease(bucket: UPath, environment: dict[str, str], tmp_path: Path) -> None:
    lock = bucket / ".lock"
    holder = Holder(lock, tmp_path, environment, lease=1.0)
    holder.signal(signal.SIGKILL)
    holder.process.join(10)
    began = time.monotonic()
    with exclusive(lock, label=WHAT, timeout=20):
        assert 0.9 < time.monotonic() - began < 5
    assert objects_of(lock) == [".lock.000000002"]
    with exclusive(lock, label=WHAT, timeout=0):
        pass


def test_a_paused_holder_loses_the_lock_and_is_told(bucket: UPath, environment: dict[str, str], tmp_path: Path) -> None:
    lock = bucket / ".lock"
    holder = Holder(lock, tmp_path, environment, lease=1.0)
    holder.signal(signal.SIGSTOP)
    with exclusive(lock, label=WHAT, timeout=20):
        holder.signal(signal.SIGCONT)
        told = holder.outcome()
        assert told.startswith("LockLost: the lock of the axes of the cube (s3://")
        assert "both may have written" in told
    with exclusive(lock, label=WHAT, timeout=0):
        pass
    assert objects_of(lock) == [".lock.000000003"]  # what the late holder rewrote is gone, too


def test_a_loss_is_noted_on_the_error_of_the_body(bucket: UPath) -> None:
    lock = bucket / ".lock"
    with pytest.raises(OSError, match="of the body") as raised, exclusive(lock, label=WHAT):  # noqa: PT012
        UPath(f"{lock}.000000002", **lock.storage_options).write_bytes(b"another's")
        raise OSError("of the body")
    assert "was taken by another run" in raised.value.__notes__[0]


def test_objects_removed_under_a_holder_are_a_loss(bucket: UPath) -> None:
    lock = bucket / ".lock"
    with pytest.raises(LockLost, match="its objects were removed"), exclusive(lock, label=WHAT):
        lock.fs.rm_file(f"{lock.path}.000000001")


def test_a_living_holder_keeps_the_lock_beyond_its_lease(bucket: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LEASE", 0.6)
    lock = bucket / ".lock"
    words = rf"waited 1.* s for the lock of {WHAT} .*process {os.getpid()} on .* 0\.6 s after its last sign"
    with exclusive(lock, label=WHAT), pytest.raises(LockTimeout, match=words), exclusive(lock, label=WHAT, timeout=1.9):
        pytest.fail("two hold the lock")


def test_signs_of_life_that_fail_are_tried_again(bucket: UPath, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(locks, "LEASE", 0.4)
    write, failures = locks._Series.write, iter([OSError("the line to http://user:word@host is down")])

    def failing(self: locks._Series, number: int, content: bytes) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        write(self, number, content)

    monkeypatch.setattr(locks._Series, "write", failing)
    with exclusive(bucket / ".lock", label=WHAT):
        time.sleep(0.35)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records if record.name == locks.__name__] == [
        "the line to http://host is down; trying again"
    ]


def test_the_state_comes_from_the_store_and_not_from_the_cache_of_listings(bucket: UPath) -> None:
    lock = bucket / ".lock"
    (bucket / "other").write_bytes(b"1")
    assert len(lock.fs.ls(bucket.path)) == 1  # fsspec keeps that
    name, _, key = lock.path.partition("/")
    s3().put_object(Bucket=name, Key=f"{key}.000000007", Body=b"{}")
    with pytest.raises(LockTimeout, match="on an unknown host"), exclusive(lock, label=WHAT, timeout=0):
        pytest.fail("did not see the holder")


def test_one_that_looked_long_ago_does_not_take_a_generation_that_was_used_before(bucket: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = bucket / ".lock"
    series = locks._Series(lock, WHAT)
    series.write(3, locks._Hold(series, 3).content(released=True))
    series.write(5, locks._Hold(series, 5).content())  # 4 came and went since the look
    numbers, looks = series.numbers, iter([[3]])
    monkeypatch.setattr(locks._Series, "numbers", lambda _: next(looks, numbers()))
    with pytest.raises(LockTimeout), exclusive(lock, label=WHAT, timeout=0):
        pytest.fail("two hold the lock")
    assert numbers() == [3, 5]


def test_a_creation_whose_answer_was_lost_is_known_as_our_own(bucket: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    create, lost = locks._Series.create, iter([True])

    def answerless(self: locks._Series, number: int, content: bytes) -> None:
        create(self, number, content)
        if next(lost, False):
            create(self, number, content)  # as the client does by itself: refused, by our own object

    monkeypatch.setattr(locks._Series, "create", answerless)
    with exclusive(bucket / ".lock", label=WHAT, timeout=0):
        assert objects_of(bucket / ".lock") == [".lock.000000001"]


def test_a_conflict_is_tried_again(bucket: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    create, conflicts = locks._Series.create, iter([OSError(5, "ConditionalRequestConflict")])

    def conflicting(self: locks._Series, number: int, content: bytes) -> None:
        if (error := next(conflicts, None)) is not None:
            raise error
        create(self, number, content)

    monkeypatch.setattr(locks._Series, "create", conflicting)
    with exclusive(bucket / ".lock", label=WHAT, timeout=5):
        pass


def test_a_refusal_in_other_words_is_one(bucket: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = bucket / ".lock"
    series = locks._Series(lock, WHAT)
    numbers, create = series.numbers, locks._Series.create
    looks = iter([[]])  # nothing there yet

    def refusing(self: locks._Series, number: int, content: bytes) -> None:
        try:
            create(self, number, content)
        except FileExistsError as error:
            raise OSError(22, "PreconditionFailed") from error  # s3fs, where the server does not name the condition

    monkeypatch.setattr(locks._Series, "create", refusing)
    with exclusive(lock, label=WHAT, timeout=0):
        monkeypatch.setattr(locks._Series, "numbers", lambda _: next(looks, numbers()))
        with pytest.raises(LockTimeout), exclusive(lock, label=WHAT, timeout=0.1):
            pytest.fail("two hold the lock")


def test_a_store_that_ignores_conditions_is_refused(bucket: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_conditional", set())
    monkeypatch.setattr(locks._Series, "create", locks._Series.write)
    with pytest.raises(LockError, match=r"ignores If-None-Match.*COVERAGE_OUTPUT_ZARR"), exclusive(bucket / ".lock", label=WHAT):
        pytest.fail("locked nothing")


def test_a_missing_bucket_is_an_error_without_the_secrets(environment: dict[str, str]) -> None:
    lock = UPath("s3://nowhere/.lock", key="a-key", secret="a-secret", endpoint_url=environment["AWS_ENDPOINT_URL"])
    with (
        pytest.raises(LockError, match=r"s3://nowhere/\.lock.*bucket does not exist.*COVERAGE_OUTPUT_ZARR") as raised,
        exclusive(lock, label=WHAT),
    ):
        pytest.fail("locked nothing")
    assert "a-key" not in str(raised.value)
    assert "a-secret" not in str(raised.value)


def test_a_removed_lock_file_is_a_loss(tmp_path: Path) -> None:
    lock = UPath(tmp_path / ".lock")
    with pytest.raises(LockLost, match="was removed while it was held"), exclusive(lock, label=WHAT) as lease:  # noqa: PT012
        lease.check()
        Path(lock.path).unlink()
        with pytest.raises(LockLost):
            lease.check()
        Path(lock.path).touch()  # another's by now
        with pytest.raises(LockLost):
            lease.check()
    with exclusive(lock, label=WHAT, timeout=0):
        pass


def test_a_writer_that_is_robbed_on_an_object_store_does_not_set_its_revision(bucket: UPath) -> None:
    cube = bucket / "coverage.zarr"
    spec = cube_spec(sensors=("emit",), months=(JANUARY,), grid=GridSpec(30.0))
    ensure_cube(cube, spec, everywhere(spec.grid))
    lock = lock_paths(cube)[1] / f"emit.{JANUARY.key}.lock"
    another = {"owner": "another", "host": "elsewhere", "pid": 1, "lease": 1.0, "released": True}

    def pieces() -> Iterator[Any]:
        yield None, known_fields(spec.grid)
        highest = max(int(name.rpartition(".")[2]) for name in objects_of(lock))
        UPath(f"{lock}.{highest + 1:09d}", **lock.storage_options).write_bytes(json.dumps(another).encode())

    with pytest.raises(LockLost, match="was taken by another run"):
        write_coverage(cube, "emit", JANUARY, pieces(), provenance())
    with pytest.raises(CoverageError, match="is not written"):
        partition_revision(cube, "emit", JANUARY)
