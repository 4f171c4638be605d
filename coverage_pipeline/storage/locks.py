"""One holder at a time of what several runs write: a lock on a file, or on an object store, which has none, a series of objects.

On an object store a lock is the objects ``<path>.<generation>``, and the one of the highest generation says who holds it. Taking the
lock is creating the next generation, which a store lets only one do (a conditional PUT). A holder shows that it lives by rewriting its
object; one whose object did not change for ``LEASE`` seconds, by the waiter's own clock, is taken for dead. So no two clocks need to
agree, but no store can stop a writer that was only paused: it learns at the end that it lost the lock (``LockLost``).

On a file the lock is filelock's. For object stores the usual libraries want a server of their own (Redis, etcd, Postgres).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import filelock
from upath import UPath

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.redaction import error_words, redact
from coverage_pipeline.storage.paths import is_local

log = logging.getLogger(__name__)

LEASE = 120.0
"""Seconds without a sign of life after which a holder on an object store is taken for dead. A lock's object carries its holder's."""

_SIGNS_A_LEASE = 4
"""Signs of life a lease: three may fail before a living holder is taken for dead."""

_LONGEST_PAUSE = 0.5
"""Seconds between two looks at a held lock, at most."""

_TRIES = 3
"""Creations that may fail before it is an error. S3 answers 409 where a removal of the same name is under way, and says to try again."""

_jitter = random.SystemRandom()  # forked processes would share the state of another

_conditional: set[tuple[int, str]] = set()
"""The stores and buckets that were seen to refuse the creation of an object that exists."""


class LockTimeout(PlannerError):
    """Another run held the lock for all of the time one was ready to wait."""

    may_pass = True


class LockError(PlannerError):
    """A lock cannot be taken or given back: its place cannot be written, or the store answers with an error."""


class LockLost(LockError):
    """The holder gave no sign of life for so long that another took its lock: both may have written."""

    may_pass = True


class Lease(Protocol):
    """A lock that is held, as its holder sees it."""

    def check(self) -> object:
        """Raise ``LockLost`` where another run may hold the lock by now. To be called before others are shown what was written."""
        ...


@contextlib.contextmanager
def exclusive(path: UPath, *, label: str, timeout: float = 300.0) -> Iterator[Lease]:
    """One holder at a time, over processes and machines, of the lock named by ``path`` (the lock's own, not what it guards).

    ``label`` says in words what is guarded, for the errors. The lock of a process that died is free at once in a folder, and on an
    object store after ``LEASE`` seconds, so ``timeout`` should be longer than that. A thread cannot take a lock that it holds.

    Raises ``LockTimeout`` where another holds it for longer than ``timeout`` seconds, ``LockError`` where its place cannot be written,
    and on leaving ``LockLost`` where another took the lock in the meantime. An error of the body goes before; the loss is its note.
    """
    if is_local(path):
        lock = _lock_file(path, label, timeout)
        held = _HeldFile(path, label)
        try:
            yield held
        except BaseException:
            lock.release()
            raise
        try:
            held.check()
        finally:
            lock.release()
        return
    hold = _take(_Series(path, label), timeout)
    hold.begin()
    try:
        yield hold
    except BaseException as error:
        try:
            hold.end()
        except LockError as lost:
            error.add_note(str(lost))
        raise
    hold.end()


def _lock_file(path: UPath, label: str, timeout: float) -> filelock.BaseFileLock:
    local = Path(path.path)
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(local)
        lock.acquire(timeout=timeout)
    except filelock.Timeout:  # an OSError, too
        raise LockTimeout(
            f"waited {timeout:.3g} s for the lock of {label} ({path}), which another run holds: wait for that run to end or stop it, "
            "then try again (the lock of a run that died is free at once)"
        ) from None
    except (OSError, NotImplementedError) as error:  # the second where a file system has no locks
        raise LockError(
            f"cannot lock {label} at {path}: {error}; set output.zarr (COVERAGE_OUTPUT_ZARR) to a place that can be written"
        ) from error
    return lock


class _HeldFile:
    """A locked file: the lock is lost where the file was removed or replaced, for then another run can lock a new one."""

    def __init__(self, path: UPath, label: str) -> None:
        self.path = path
        self.label = label
        self._file = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = Path(self.path.path).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def check(self) -> None:
        """Raise ``LockLost`` where the lock file is another than the one that was locked."""
        if self._file is None or self._identity() != self._file:
            raise LockLost(
                f"the lock of {self.label} ({self.path}) was removed while it was held: another run may have written at the same time; "
                "run this again once no other run writes there, and leave lock files where they are"
            )


@dataclass(frozen=True)
class _Claim:
    """What an object of the series says about its holder."""

    owner: str
    host: str
    pid: int
    lease: float
    released: bool

    @classmethod
    def of(cls, content: bytes) -> _Claim:
        """The claim in an object. An object of another program counts as held by an unknown holder until its lease is over."""
        try:
            text = json.loads(content)
            return cls(str(text["owner"]), str(text["host"]), int(text["pid"]), float(text["lease"]), bool(text["released"]))
        except (ValueError, KeyError, TypeError):
            return cls("", "an unknown host", 0, LEASE, released=False)


class _Series:
    """The objects of one lock, straight from the store: nothing here may come from fsspec's cache of listings."""

    def __init__(self, path: UPath, label: str) -> None:
        self.path = path
        self.label = label
        self.fs: Any = path.fs
        self.folder, _, self.name = str(path.path).rpartition("/")

    def __str__(self) -> str:
        return redact(f"{self.label} ({self.path})")

    def numbers(self) -> list[int]:
        """The generations there are, in ascending order."""
        pattern = re.compile(re.escape(self.name) + r"\.(\d+)")
        try:
            self.fs.invalidate_cache(self.folder)
            names = self.fs.find(self.folder, prefix=f"{self.name}.")
        except FileNotFoundError:  # no folder yet; where it is the bucket that is missing, creating says so
            return []
        except Exception as error:
            raise self.failed(error) from error
        matches = (pattern.fullmatch(str(name).rpartition("/")[2]) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def read(self, number: int) -> bytes | None:
        """The object of a generation, or None where there is none."""
        try:
            # With a start s3fs asks for the bytes at once; without, it asks for their number first, which may come from its cache.
            content: bytes = self.fs.cat_file(self._object(number), start=0)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self.failed(error) from error
        return content

    def create(self, number: int, content: bytes) -> None:
        """Make the object of a generation; raises whatever the store's client raises where it exists (``FileExistsError``) or fails."""
        self.fs.pipe_file(self._object(number), content, mode="create")

    def write(self, number: int, content: bytes) -> None:
        """Rewrite the object of a generation; raises whatever the store's client raises."""
        self.fs.pipe_file(self._object(number), content)

    def remove(self, number: int) -> None:
        """Remove the object of a generation, if the store lets us: a lower one than the highest means nothing any more."""
        try:
            self.fs.rm_file(self._object(number))
        except FileNotFoundError:
            pass
        except Exception as error:
            log.debug("cannot remove %s: %s", self._object(number), error)

    def failed(self, error: Exception) -> LockError:
        """The store's error in our words. The clients of the stores have no root of their errors in common, so it may be any."""
        text = redact(error_words(error))
        return LockError(
            f"cannot lock {self}: {text}; check that the store can be reached and lets objects be listed, read, written and removed there, "
            "or set output.zarr (COVERAGE_OUTPUT_ZARR)"
        )

    def _object(self, number: int) -> str:
        return f"{self.path.path}.{number:09d}"


@dataclass
class _Hold:
    """A generation that this process holds: written again and again while the lock is held, then marked as released."""

    series: _Series
    number: int
    lease: float = field(default_factory=lambda: LEASE)
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    _signs: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def content(self, *, released: bool = False) -> bytes:
        """What our object says now. The count makes every sign differ from the one before."""
        self._signs += 1
        text = {
            "owner": self.owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "what": self.series.label,
            "lease": self.lease,
            "sign": self._signs,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),  # for people; nothing compares it
            "released": released,
        }
        return json.dumps(text).encode()

    def create(self) -> bool:
        """Whether this process got the generation; raises the client's error where the store neither made it nor has another's."""
        content = self.content()
        try:
            self.series.create(self.number, content)
        except Exception:
            # Not every store's refusal arrives as FileExistsError, and a refusal may be of our own second try, after the answer to the
            # first was lost: who made the object says which it was.
            holder = self.series.read(self.number)
            if holder is None:
                raise
            if _Claim.of(holder).owner != self.owner:
                return False
        # One that looked long ago may make again a generation that was used and removed. The highest is never removed, so it shows.
        if max(self.series.numbers(), default=0) != self.number:
            self.series.remove(self.number)
            return False
        self._refuse_unconditional(content)
        return True

    def _refuse_unconditional(self, content: bytes) -> None:
        """Raise ``LockError`` for a store that would let two make the same object: it cannot lock, and would not say so."""
        fs = self.series.fs
        place = (hash(fs), self.series.folder.partition("/")[0])
        if place in _conditional:
            return
        try:
            self.series.create(self.number, content)
        except FileExistsError:
            _conditional.add(place)
        except Exception as error:  # a refusal in other words, or a failure: in doubt, ask again the next time
            log.debug("%s: created twice: %s", self.series, error)
        else:
            self.series.remove(self.number)
            raise LockError(
                f"cannot lock {self.series}: the store overwrites what was to be created only if absent (it ignores If-None-Match), so "
                "two runs could write at once; set output.zarr (COVERAGE_OUTPUT_ZARR) to a store with conditional writes or to a folder"
            )

    def begin(self) -> None:
        """Show signs of life from now on."""
        self._thread = threading.Thread(target=self._show_life, name=f"lock {self.series.name}", daemon=True)
        self._thread.start()

    def _show_life(self) -> None:
        while not self._over.wait(self.lease / _SIGNS_A_LEASE):
            try:
                if self._is_lost(self.series.numbers()):
                    log.error("the lock of %s was taken by another run, as this one gave no sign of life", self.series)
                    return
                self.series.write(self.number, self.content())
            except Exception as error:
                log.warning("no sign of life for the lock of %s: %s; trying again", self.series, redact(str(error)))

    def _is_lost(self, numbers: list[int]) -> bool:
        return max(numbers, default=0) != self.number

    def check(self) -> list[int]:
        """The generations there are. Raises ``LockLost`` where the highest is another's, ``LockError`` where the store does not say."""
        numbers = self.series.numbers()
        if self._is_lost(numbers):
            raise LockLost(
                f"the lock of {self.series} was taken by another run, as this one gave no sign of life for {self.lease:.3g} s "
                "(paused, or cut off from the store), or its objects were removed: both may have written; "
                "run this again once no other run writes there"
            )
        return numbers

    def end(self) -> None:
        """Give the lock back. Raises ``LockLost`` where it is another's, ``LockError`` where the store does not say whose it is."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()  # else its last sign could follow the release
        numbers = self.check()
        try:
            self.series.write(self.number, self.content(released=True))
        except Exception as error:
            log.warning("the lock of %s frees itself in %.3g s only: %s", self.series, self.lease, redact(str(error)))
            return
        for number in numbers[:-1]:
            self.series.remove(number)


def _take(series: _Series, timeout: float) -> _Hold:
    """The highest generation, taken by this process once the one before is released or its holder is dead."""
    began = time.monotonic()
    seen: tuple[int, bytes | None] = (0, None)
    seen_at = began
    pause = 0.05
    failures = 0
    while True:
        failure: Exception | None = None
        looked = time.monotonic()  # before the look, as seen_at is after it: an answer that took long must not age a holder
        highest = max(series.numbers(), default=0)
        content = series.read(highest) if highest else None
        if (highest, content) != seen:
            seen, seen_at = (highest, content), time.monotonic()
        claim = _Claim.of(content or b"")
        silent = looked - seen_at
        dead = content is not None and not claim.released and silent >= claim.lease
        if highest == 0 or dead or claim.released:
            hold = _Hold(series, highest + 1)
            try:
                if hold.create():
                    if dead:
                        log.warning(
                            "the lock of %s was held by process %d on %s, which gave no sign of life for %.3g s: it is taken for dead",
                            *(series, claim.pid, claim.host, silent),
                        )
                    return hold
            except LockError:
                raise
            except Exception as error:
                failure = error
                failures += 1
        waited = time.monotonic() - began
        if failure is not None and (failures == _TRIES or waited >= timeout):
            raise series.failed(failure) from failure
        if waited >= timeout:
            raise LockTimeout(
                f"waited {waited:.3g} s for the lock of {series}, which process {claim.pid} on {claim.host} holds: wait for that run to "
                f"end or stop it, then try again (the lock of a run that died is free {claim.lease:.3g} s after its last sign of life)"
            )
        time.sleep(min(pause * _jitter.uniform(0.5, 1.0), timeout - waited))
        pause = min(1.5 * pause, _LONGEST_PAUSE)
