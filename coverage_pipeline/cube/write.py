"""Writing a partition of the cube: its coverage, and its gap.

A partition (sensor × month) owns its chunk files, so that partitions can be written in parallel. The order of writing keeps a reader
from seeing half of one: ``revision`` to 0, the data and its overviews, the statuses, ``revision`` to a new random number. A partition
whose revision is 0 is not known, and its gap is not known where ``gap_revision`` is another number.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.cube import overviews
from coverage_pipeline.cube.arrays import Arrays, open_group
from coverage_pipeline.cube.axes import PartitionIndex, grid_in, partition_index, scopes_of, settings_of
from coverage_pipeline.cube.levels import Rows, coarse_values, levels, levels_with_weights, partition_arrays, strip_rows
from coverage_pipeline.cube.locking import partition_lock
from coverage_pipeline.cube.schema import (
    COVERAGE_VARIABLES,
    GAP_MEANING,
    GAP_VARIABLES,
    KNOWN_SHARES,
    PROVENANCE,
    SCHEMA,
    CoverageError,
    CoverageMismatch,
)
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.storage.leftovers import clean_partition
from coverage_pipeline.storage.locks import Lease, LockError, LockLost
from coverage_pipeline.storage.paths import storage_path

log = logging.getLogger(__name__)
Fields = Mapping[str, NDArray[Any]]


def _end_of(grid: GridSpec, rows: Rows, after: int) -> int:
    """The end row of a piece; refuses one that does not follow the piece before, or that cuts a block of a level."""
    n = grid.shape[0]
    first, end = rows or (0, n)
    if first != after or not first < end <= n or any(row % level.factor for row in (first, end) for level in levels(grid)):
        raise CoverageError(f"rows {first}..{end} do not follow row {after} of {n} in multiples of {strip_rows(grid)}")
    return end


def _refuse_misfits(group: Arrays, names: Sequence[str], fields: Fields, rows: Rows) -> None:
    """Refuse what Zarr would cast or broadcast silently: the NaN of a float count would become 0."""
    missing = [name for name in names if name not in fields]
    if missing:
        raise CoverageError(f"a partition's fields lack {', '.join(missing)}")
    for name in names:
        array, values = group[name], fields[name]
        shape = array.shape[2:] if rows is None else (rows[1] - rows[0], *array.shape[3:])
        if values.dtype != array.dtype or values.shape != shape:
            raise CoverageError(f"{name} must be {array.dtype} of shape {shape}, got {values.dtype} of shape {values.shape}")


def _pieces(fields: Fields | Iterable[tuple[Rows, Fields]]) -> Iterator[tuple[Rows, Fields]]:
    return iter([(None, fields)]) if isinstance(fields, Mapping) else iter(fields)


def _write_pieces(
    arrays: Arrays, grid: GridSpec, at: PartitionIndex, names: Sequence[str], pieces: Iterable[tuple[Rows, Fields]], lease: Lease
) -> None:
    """Write all fields of a partition and of its levels; raises ``LockLost`` where the partition's lock was lost."""
    end = 0
    coarse: dict[str, NDArray[Any]] = {}  # the levels are small: gathered over the pieces, and each written once

    def write(rows: Rows, fields: Fields) -> None:
        for name in names:
            arrays[name][at.sensor, at.time, slice(*(rows or (None, None)))] = fields[name]

    with ThreadPoolExecutor(1, "chunks") as disk:  # the levels are made while the full resolution is written
        for rows, fields in pieces:
            end = _end_of(grid, rows, end)
            _refuse_misfits(arrays, names, fields, rows)
            lease.check()
            written = disk.submit(write, rows, fields)
            for level, weights in levels_with_weights(grid, rows):
                within = slice(None) if rows is None else slice(rows[0] // level.factor, rows[1] // level.factor)
                result = {name: coarse_values(name, fields[name], weights, level.factor) for name in names}
                for share, (of, _) in KNOWN_SHARES.items():
                    if of in names:
                        result[share] = overviews.known_share(fields[of], SCHEMA[of].fill, weights, level.factor)
                for name, values in result.items():
                    coarse.setdefault(f"{level.group}/{name}", np.empty(level.shape, values.dtype))[within] = values
            written.result()
    if end != grid.shape[0]:
        raise CoverageError(f"rows {end} to {grid.shape[0]} of a partition are missing")
    lease.check()
    for path, values in coarse.items():
        arrays[path][at.sensor, at.time] = values


def write_coverage(
    path: UPath | Path | str,
    sensor: str,
    month: Month,
    fields: Fields | Iterable[tuple[Rows, Fields]],
    provenance: Mapping[str, Any],
) -> int:
    """Write one partition: every variable of ``COVERAGE_VARIABLES`` as a field, and what is known of its sources.

    ``fields`` may come piece by piece, with the rows of each (a multiple of ``strip_rows``). Returns the new revision. A region is
    whole or not known: ``revision`` is 0 while it is being written; a second writer waits for the first.
    Raises ``CoverageError`` for fields that do not fit, a partition without a place, or a disk that takes no more.
    """
    path = storage_path(path)
    group = open_group(path, "r+")
    at = partition_index(group, sensor, month)
    grid = grid_in(group, path)
    arrays, pieces = Arrays(group, path, grid), _pieces(fields)
    first = next(pieces)  # what cannot be computed, or does not fit, is refused before anything is touched
    missing = [n for n in COVERAGE_VARIABLES if n not in first[1]] + [n for n in PROVENANCE if n not in provenance]
    if missing:
        raise CoverageError(f"partition {month}|{sensor} lacks {', '.join(missing)}")
    _end_of(grid, first[0], 0)
    _refuse_misfits(arrays, COVERAGE_VARIABLES, first[1], first[0])
    with _voided_if_lost(path, sensor, month, arrays, at, "revision"), partition_lock(path, sensor, month) as lease:
        clean_partition(path, partition_arrays(grid), at.sensor, at.time)
        arrays["revision"][at.sensor, at.time] = np.uint64(0)
        _write_pieces(arrays, grid, at, COVERAGE_VARIABLES, itertools.chain([first], pieces), lease)
        for name in PROVENANCE:
            arrays[name][at.sensor, at.time] = provenance[name]
        lease.check()
        revision = secrets.randbits(63) | 1  # never 0
        arrays["revision"][at.sensor, at.time] = np.uint64(revision)
    return revision


@contextlib.contextmanager
def _voided_if_lost(path: UPath, sensor: str, month: Month, arrays: Arrays, at: PartitionIndex, revision: str) -> Iterator[None]:
    """Mark a partition as not known where its writer lost the lock.

    The robbed writer may have put chunks over those of the run that took the lock, so what that run wrote is not whole either. Only
    once it has ended is it certain that it does not set the revision again: the lock is taken anew for the voiding.
    """
    try:
        yield
    except LockLost:
        arrays[revision][at.sensor, at.time] = np.uint64(0)
        with contextlib.suppress(LockError, CoverageError), partition_lock(path, sensor, month):
            arrays[revision][at.sensor, at.time] = np.uint64(0)
        raise


def write_gap(
    path: UPath | Path | str,
    sensor: str,
    month: Month,
    fields: Fields | Iterable[tuple[Rows, Fields]],
    *,
    desired: float,
    made_from: int,
    meaning: Mapping[str, Any] | None = None,
) -> bool:
    """Write one partition's gap, made from the coverage of revision ``made_from``; ``fields`` as for ``write_coverage``.

    ``meaning`` are the settings that the gap was computed with (``CubeSpec.meaning``); None: those of the cube as it is opened here.
    Returns whether it was written. It is not written where the coverage was rewritten since: the run that rewrote it makes its own gap.
    Raises ``CoverageMismatch`` where the cube's weights, area or scope are others by now.
    """
    path = storage_path(path)
    group = open_group(path, "r+")
    at = partition_index(group, sensor, month)
    grid = grid_in(group, path)
    made_with = _gap_meaning(group, path, sensor)
    if meaning is not None:
        made_with |= {name: meaning[name] for name in GAP_MEANING}
    arrays, pieces = Arrays(group, path, grid), _pieces(fields)
    first = next(pieces)
    _end_of(grid, first[0], 0)
    _refuse_misfits(arrays, GAP_VARIABLES, first[1], first[0])
    with _voided_if_lost(path, sensor, month, arrays, at, "gap_revision"), partition_lock(path, sensor, month) as lease:
        if int(arrays["revision"][at.sensor, at.time]) != made_from:
            log.warning("%s %s: the coverage was written anew since this gap was computed from it; the gap is left as it is", sensor, month)
            return False
        arrays["gap_revision"][at.sensor, at.time] = np.uint64(0)
        _write_pieces(arrays, grid, at, GAP_VARIABLES, itertools.chain([first], pieces), lease)
        arrays["desired"][at.sensor, at.time] = np.float32(desired)
        # A run that changes these settings voids the gaps afterwards under this lock, so a gap of the old settings must not be written now.
        now = _gap_meaning(open_group(path, "r"), path, sensor)
        changed = [name for name in now if now[name] != made_with[name]]
        if changed:
            raise CoverageMismatch(
                f"the gap of partition {month.key}|{sensor} of {path} is not written: another run changed {', '.join(changed)} of the cube "
                "while it was computed; make the gap again with the settings that hold now"
            )
        lease.check()
        arrays["gap_revision"][at.sensor, at.time] = np.uint64(made_from)
    return True


def _gap_meaning(group: zarr.Group, path: UPath, sensor: str) -> dict[str, Any]:
    """The settings that a gap of the sensor depends on: weights, area, and the sensor's scope."""
    settings = settings_of(group, path)
    return {name: settings.get(name) for name in GAP_MEANING} | {"scope": scopes_of(group, path).get(sensor)}
