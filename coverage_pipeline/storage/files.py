"""Files that are whole or absent: written beside their place, and put there when they are complete."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from upath import UPath

from coverage_pipeline.redaction import error_words
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.paths import is_local


def write_bytes(path: UPath, content: bytes) -> None:
    """Write a file so that it is complete or absent, and a former one stays until the new one is whole."""
    write_together([(path, content)])


def write_together(files: Sequence[tuple[UPath, bytes]]) -> None:
    """Write files that belong together, each complete or absent, in their order: the last one is the one that readers go by.

    On a disk none takes its place before all are written, so that a full one leaves the former files as they were. An object store gives
    no such promise: there each is one PUT after the other.
    """
    ready: list[tuple[Path, UPath]] = []
    at: UPath | None = None
    try:
        for path, content in files:
            at = path
            if is_local(path):
                ready.append((temporary_path(Path(path.path)), path))
                _write_through(ready[-1][0], content)
        for temporary, path in ready:
            at = path
            temporary.replace(Path(path.path))
        for path, content in files:
            at = path
            if not is_local(path):
                _put(path, content)
    except OSError as error:
        raise StoreError(f"cannot write {at}: {error}; check COVERAGE_DATA and the output settings") from None
    finally:
        for temporary, _ in ready:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def temporary_path(local: Path) -> Path:
    """Where a file is written before it takes its place; ``leftovers`` knows these names."""
    return local.parent / f".{local.name}.{uuid.uuid4().hex}.tmp"


def _write_through(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def _put(path: UPath, content: bytes) -> None:
    """One PUT. The clients of the stores have no root of their errors in common, so any is taken for the store's."""
    try:
        path.write_bytes(content)
    except OSError:
        raise
    except Exception as error:
        raise StoreError(f"cannot write {path}: {error_words(error)}; check COVERAGE_DATA and the output settings") from error


@contextlib.contextmanager
def whole_file(path: UPath) -> Iterator[BinaryIO]:
    """A file to write into that takes its place when it is whole, and never if it does not become so."""
    local = Path(path.path) if is_local(path) else Path(tempfile.gettempdir()) / path.name
    temporary = temporary_path(local)
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if is_local(path):
            temporary.replace(local)
        else:
            path.fs.put_file(str(temporary), path.path)  # no PUT of half a file
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; check COVERAGE_DATA and the output settings") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
