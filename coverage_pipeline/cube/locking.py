"""The locks beside a cube.

One lock guards the axes and attributes while the cube is made or grown. One lock for each partition is held while it is written, so that
two writers of one partition end as one of them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from upath import UPath

from coverage_pipeline.cube.schema import CoverageError
from coverage_pipeline.months import Month
from coverage_pipeline.storage.locks import Lease, LockError, LockLost, exclusive


def lock_paths(path: UPath) -> tuple[UPath, UPath]:
    """The lock of a cube's axes, and the folder of its partitions' locks; both stand beside it."""
    return path.parent / f".{path.name}.lock", path.parent / f".{path.name}.locks"


@contextlib.contextmanager
def metadata_lock(path: UPath) -> Iterator[Lease]:
    """One writer of the axes and attributes at a time."""
    try:
        with exclusive(lock_paths(path)[0], label=f"the axes of {path}") as lease:
            yield lease
    except LockLost:
        raise
    except (OSError, LockError) as error:
        raise CoverageError(f"cannot write the cube at {path}: {error}; set output.zarr (COVERAGE_OUTPUT_ZARR)") from error


@contextlib.contextmanager
def partition_lock(path: UPath, sensor: str, month: Month, *, timeout: float = 300.0) -> Iterator[Lease]:
    """One writer of a partition at a time."""
    partition = f"partition {month.key}|{sensor} of {path}"
    name = sensor if len(sensor) <= 80 else f"{sensor[:60]}-{hashlib.sha256(sensor.encode()).hexdigest()[:16]}"  # file systems allow 255
    try:
        with exclusive(lock_paths(path)[1] / f"{name}.{month.key}.lock", label=partition, timeout=timeout) as lease:
            yield lease
    except LockLost:
        raise
    except (OSError, LockError) as error:
        raise CoverageError(
            f"cannot write {partition}: {error}; it is not known until it is made again, all else stays: make room, or set output.zarr "
            "(COVERAGE_OUTPUT_ZARR), and run it again"
        ) from error
