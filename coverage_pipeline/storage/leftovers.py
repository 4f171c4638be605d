"""Temporary files that killed runs left behind, of this package and of zarr, removed once they are older than a day.

The caller holds the lock of the place. Only names that this package or zarr gives are ever removed, and only plain files: a name that
is merely like one stays.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock
from upath import UPath

from coverage_pipeline.months import Month
from coverage_pipeline.storage.paths import is_local
from coverage_pipeline.storage.store import StatsLayer, Store

log = logging.getLogger(__name__)

OLD = 24 * 3600.0
"""Seconds after which no run can still be writing a temporary file: a paused run of a day would find its file gone and fail."""

_OURS = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{32}\.tmp")
"""``files.write_together`` and ``tables.write_cells``."""
_ZARRS = re.compile(r"(?P<target>zarr|\d+)\.[0-9a-f]{32}\.partial")
"""``zarr.storage.LocalStore``, of a chunk or of ``zarr.json``."""


_ANY = Month(2000, 1)
_LAYERS: tuple[StatsLayer, ...] = ("available", "held", "unheld")


def clean_files(store: Store, sensors: Iterable[str]) -> int:
    """Remove what killed runs left beside the Parquet files of some sensors; returns how many files."""
    removed = 0
    for sensor in sensors:
        folders = [store.scenes(sensor, _ANY).parent, store.holdings(sensor, _ANY).parent, store.matchup(sensor, _ANY).parent]
        folders += [store.stats(layer, sensor, _ANY).parent for layer in _LAYERS]
        for folder in folders:
            if is_local(folder):
                removed += _clean(_files_below(Path(folder.path)), _OURS)
    return removed


def clean_axes(cube: UPath, partition_arrays: Iterable[str]) -> int:
    """Remove what killed runs left in and beside a cube, but for the chunks of its partitions; returns how many files."""
    if not is_local(cube):
        return 0
    local, owned = Path(cube.path), {f"{name}/c" for name in partition_arrays}
    removed = _clean((entry for entry in _entries(local.parent) if _is_beside(entry, local)), _OURS) + _clean(_entries(local), _OURS)
    return removed + _clean(_files_below(local, but=owned), _ZARRS)


def clean_partition(cube: UPath, arrays: Iterable[str], sensor: int, month: int) -> int:
    """Remove what killed runs left among the chunks of one partition; returns how many files."""
    if not is_local(cube):
        return 0
    removed = 0
    for name in arrays:
        folder = Path(cube.path) / name / "c" / str(sensor)
        removed += _clean(_files_below(folder / str(month)), _ZARRS)
        removed += _clean((entry for entry in _entries(folder) if entry.name.startswith(f"{month}.")), _ZARRS)  # of one chunk a partition
    return removed


def _is_beside(entry: os.DirEntry[str], cube: Path) -> bool:
    return entry.name.startswith(f".{cube.name.removesuffix('.zarr')}.stac.json.")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # there is none yet, or this user may not look into it
        return []


def _files_below(folder: Path, but: Iterable[str] = (), below: str = "") -> Iterator[os.DirEntry[str]]:
    """The entries of a folder and of those in it; ``but`` are folders that are left out. Links are not followed."""
    for entry in _entries(folder):
        name = f"{below}{entry.name}"
        if not entry.is_dir(follow_symlinks=False):
            yield entry
        elif name not in but:
            yield from _files_below(Path(entry.path), but, f"{name}/")


def _clean(entries: Iterable[os.DirEntry[str]], names: re.Pattern[str]) -> int:
    removed = 0
    for entry in entries:
        match = names.fullmatch(entry.name)
        try:
            if match is None or not entry.is_file(follow_symlinks=False):
                continue
            if time.time() - entry.stat(follow_symlinks=False).st_mtime < OLD:
                continue
            if _remove(Path(entry.path), match["target"]):
                removed += 1
                log.info("removed %s, which a killed run left", entry.path)
        except OSError as error:  # another run removed it, or this user may not: a leftover does no harm
            log.debug("cannot remove %s: %s", entry.path, error)
    return removed


def _remove(file: Path, target: str) -> bool:
    """Remove one file; not while a scan holds the lock of the file that it was to become."""
    guard = file.with_name(f".{target}.lock")
    if not guard.is_file():
        file.unlink()
        return True
    try:
        with filelock.FileLock(guard, timeout=0):
            file.unlink()
            return True
    except filelock.Timeout:
        return False
