"""Moving a cube to other settings or a newer schema: another grid, rule, threshold or earlier start.

A new cube is made beside the old one and takes its place when it is whole; the old one stays under another name. Where only the
schema or the axes differ, partitions are copied; else they are made anew from the scenes and holdings on disk. No catalogue and no
database is asked.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.cube.arrays import exists, open_group, reading
from coverage_pipeline.cube.axes import axes_of, partition_index, wrong_version
from coverage_pipeline.cube.create import is_occupied
from coverage_pipeline.cube.description import describe, description_path
from coverage_pipeline.cube.levels import Rows
from coverage_pipeline.cube.locking import lock_paths, metadata_lock, partition_lock
from coverage_pipeline.cube.schema import (
    COVERAGE_VARIABLES,
    GAP_MEANING,
    GAP_VARIABLES,
    MEANING,
    PROVENANCE,
    SCHEMA_VERSION,
    CoverageError,
    CoverageMismatch,
    CubeDamaged,
    CubeSpec,
)
from coverage_pipeline.cube.write import Fields, write_coverage, write_gap
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import UTC, Month, months_between
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.pipeline.steps import GRIDDING_STEPS
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.files import write_bytes
from coverage_pipeline.storage.paths import is_local

log = logging.getLogger(__name__)

_READABLE = (1, SCHEMA_VERSION)
_NO_WAY = "name another cube in output.zarr (COVERAGE_OUTPUT_ZARR), or build one anew"


@dataclass(frozen=True)
class Migrated:
    """What became of a migration."""

    path: UPath
    """The new cube."""
    former: UPath
    """Where the old one is now."""
    copied: int
    """Partitions taken over as they were."""
    made: int
    """Partitions made anew from the files on disk."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Partitions that could not be carried over, by ``YYYY-MM|sensor``, and why."""


@dataclass(frozen=True)
class _Former:
    """The old cube: what it holds and what it was made for."""

    path: UPath
    group: zarr.Group
    meaning: dict[str, Any]
    sensors: list[str]
    months: list[Month]

    @classmethod
    def at(cls, path: UPath) -> _Former:
        if not exists(path):
            raise CoverageError(f"no coverage cube at {path}: there is nothing to migrate")
        group = open_group(path, "r")
        version = group.attrs.get("schema_version")
        if version not in _READABLE:
            versions = " and ".join(str(v) for v in _READABLE)
            raise CoverageMismatch(wrong_version(path, version, f"; this program migrates {versions}", _NO_WAY))
        with reading(f"{path / 'zarr.json'}: its attribute 'settings'"):
            meaning = json.loads(str(group.attrs["settings"]))
            if version == 1:
                meaning["grid"] = GridSpec(meaning.pop("resolution"), meaning.pop("crs")).describe()
            GridSpec.from_description(meaning["grid"])
        return cls(path, group, meaning, *axes_of(group))

    def revisions(self) -> dict[tuple[str, Month], tuple[Any, ...]]:
        """Of every partition that is written, and of its gap."""
        stored, gaps, desired = (np.atleast_2d(self.read(name, ...)) for name in ("revision", "gap_revision", "desired"))
        return {
            (sensor, month): (int(stored[s, t]), int(gaps[s, t]), desired[s, t].tobytes())
            for s, sensor in enumerate(self.sensors)
            for t, month in enumerate(self.months)
            if stored[s, t]
        }

    def read(self, name: str, at: Any) -> Any:
        """Some of an array; raises ``CubeDamaged`` where it cannot be read."""
        with reading(self.path / name):
            array: Any = self.group[name]
            return array[at]

    def place(self, sensor: str, month: Month) -> tuple[int, int]:
        return self.sensors.index(sensor), self.months.index(month)


def migrate(
    planner: Planner,
    *,
    to: UPath | None = None,
    drop: bool = False,
    on_partition: Callable[[str, int, int], None] | None = None,
) -> Migrated:
    """Bring the cube of the planner's settings to these settings and to this program's schema; returns what became of it.

    ``to`` names a new cube and leaves the old one where it is: needed on an object store, which cannot rename. ``drop`` goes on
    without the partitions whose files are gone; otherwise nothing changes where there are any. Every sensor and month of the old
    cube is kept. ``on_partition`` is called for each partition with its key, its number and how many there are.

    Raises ``CoverageError`` where there is no cube, it cannot be renamed, it was written to meanwhile, or partitions cannot be carried
    over; ``CoverageMismatch`` for a schema that this program cannot read.
    """
    path = planner.store.zarr
    if to is None and not is_local(path):
        raise CoverageError(
            f"{path} lies on an object store, which cannot rename a cube: name the new one with --to, then set output.zarr to it"
        )
    target = to if to is not None else path.parent / f".{path.name}.migrating"
    with metadata_lock(path):
        if to is None and not exists(path) and exists(target):
            _put_in_place(path, target)  # of a migration that was stopped between the two names
            _take_over(planner, path)
        old = _Former.at(path)
        if to is not None:
            _refuse_target(path, target)
        else:
            _remove(target)  # of a migration that was killed
        derived = _derived_of(planner, path)
        _remove_folder(derived)
        spec = _wider(planner, old)
        # The old cube's own statistics stay as they are until the new one stands in its place.
        new = replace(planner, spec=spec, store=replace(planner.store, zarr=target, derived=derived))
        before = old.revisions()
        gone = _gone(new, old, before)
        if gone and not drop:
            raise _not_all(gone, len(before))
        try:
            new.ensure_cube()
            copied, result, dropped = _carry(new, old, before, gone, on_partition)
            if dropped and not drop:
                raise _not_all(dropped, len(before))
            new.finish()
            with contextlib.ExitStack() as stack:
                for sensor in old.sensors:
                    for month in old.months:
                        stack.enter_context(partition_lock(path, sensor, month, timeout=5))
                if _Former.at(path).revisions() != before:
                    raise CoverageError(
                        f"{path} was written to during the migration and is as it was; run it again when no other run writes"
                    )
                if to is not None:
                    return Migrated(target, path, copied, result, dropped)
                former = _swap(path, target)
                _take_over(planner, path)
        except CoverageMismatch:  # another file stands at the new place, and this program must not remove it
            raise
        except Exception:
            if exists(path):
                _remove(target)
            raise
        finally:
            if exists(path):
                _remove_folder(derived)
    return Migrated(path, former, copied, result, dropped)


def _not_all(dropped: dict[str, str], of: int) -> CoverageError:
    lines = "\n".join(f"  {key}: {why}" for key, why in dropped.items())
    return CoverageError(
        f"{len(dropped)} of {of} partitions cannot be carried over; the cube is as it was. Materialise them again, or "
        f"go on without them (--drop):\n{lines}"
    )


def _gone(new: Planner, old: _Former, written: Iterable[tuple[str, Month]]) -> dict[str, str]:
    """Partitions that would have to be made anew and whose files are not there, and which."""
    if _same(new, old, MEANING):
        return {}
    gone: dict[str, str] = {}
    for key, month in written:
        for path in (new.store.scenes(key, month), new.store.holdings(key, month), new.store.last_held(key, month)):
            if not path.exists():
                gone.setdefault(f"{month.key}|{key}", f"{path} does not exist yet: materialise the asset that writes it first")
    return gone


def _same(new: Planner, old: _Former, names: Iterable[str]) -> bool:
    wanted = new.spec.meaning()
    return all(old.meaning.get(name) == wanted[name] for name in names)


def _refuse_target(path: UPath, target: UPath) -> None:
    """Refuse a new place that is not free: nothing that stands there is ever written over or removed."""
    if exists(target) or is_occupied(target):
        raise CoverageError(f"{target} is there already: name another place for the new cube")
    if str(target).startswith(f"{path}/") or (is_local(path) and is_local(target) and _lies_in(target, path)):
        raise CoverageError(f"{target} lies in the old cube: name another place for the new cube")


def _lies_in(place: UPath, folder: UPath) -> bool:
    return Path(place.path).resolve().is_relative_to(Path(folder.path).resolve())


def _derived_of(planner: Planner, path: UPath) -> UPath:
    """Where the statistics and matchups of a migration lie until its cube is in place; a folder for each cube of the root."""
    name = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    return planner.store.root / f".migrating.{name}"


def _take_over(planner: Planner, path: UPath) -> None:
    """Put the statistics and matchups that the new cube was made from in the place of the old one's."""
    derived = _derived_of(planner, path)
    root = planner.store.derived or planner.store.root
    for file in sorted(derived.rglob("*.parquet")) if derived.exists() else ():
        write_bytes(root.joinpath(*file.relative_to(derived).parts), file.read_bytes())
    _remove_folder(derived)


def _remove_folder(folder: UPath) -> None:
    if folder.exists():
        folder.fs.rm(folder.path, recursive=True)


def _remove(target: UPath) -> None:
    """A new cube that came to nothing, with what stands beside it."""
    lock, locks = lock_paths(target)
    for path in (target, locks):
        if path.exists():
            path.fs.rm(path.path, recursive=True)
    for path in (description_path(target), lock):
        if path.exists():
            path.unlink()


def _wider(planner: Planner, old: _Former) -> CubeSpec:
    """The wanted axes and what the old cube has beside them, so that nothing known is left out."""
    spec = planner.spec
    registry = planner.settings.registry()
    wanted = {s.key for s in spec.sensors}
    kept = [registry[key] for key in old.sensors if key not in wanted and key in registry]
    for key in old.sensors:
        if key not in wanted and key not in registry:
            log.warning("sensor %s is not known any more: its partitions stay in the old cube only", key)
    months = tuple(months_between(min(old.months[0], *spec.months), max(old.months[-1], *spec.months)))
    return replace(spec, sensors=(*spec.sensors, *kept), months=months)


def _carry(
    new: Planner,
    old: _Former,
    written: Collection[tuple[str, Month]],
    gone: dict[str, str],
    on_partition: Callable[[str, int, int], None] | None,
) -> tuple[int, int, dict[str, str]]:
    same = _same(new, old, MEANING)
    same_gap = same and _same(new, old, GAP_MEANING)
    sensors = {s.key: s for s in new.spec.sensors}
    copied, result, dropped = 0, 0, {}
    for number, (key, month) in enumerate(written, start=1):
        name = f"{month.key}|{key}"
        if on_partition is not None:
            on_partition(name, number, len(written))
        if name in gone:
            dropped[name] = gone[name]
        elif key not in sensors:
            dropped[name] = f"sensor {key} is not known any more"
        else:
            if same:
                try:
                    _copy(new, old, sensors[key], month, gap=same_gap)
                    copied += 1
                    continue
                except CubeDamaged as damaged:
                    log.warning("%s; it is made anew from the files on disk", damaged)
            try:
                for step in GRIDDING_STEPS:
                    getattr(new, step)(sensors[key], month)
                result += 1
            except PlannerError as error:
                dropped[name] = str(error)
    return copied, result, dropped


def _copy(new: Planner, old: _Former, sensor: CoverageSensor, month: Month, *, gap: bool) -> None:
    """One partition, piece by piece, with its gap where that still holds; else the gap is made again."""
    at = old.place(sensor.key, month)

    def pieces(names: tuple[str, ...]) -> Iterator[tuple[Rows, Fields]]:
        for rows in new.strips():
            fields: dict[str, NDArray[Any]] = {name: old.read(name, (*at, slice(*(rows or (None, None))))) for name in names}
            yield rows, fields

    provenance = {name: old.read(name, at) for name in PROVENANCE}
    provenance["provider"] = str(np.asarray(provenance["provider"]).item())
    revision = write_coverage(new.store.zarr, sensor.key, month, pieces(COVERAGE_VARIABLES), provenance)
    there = partition_index(new_group := open_group(new.store.zarr, "r"), sensor.key, month)
    try:
        same_scope = np.array_equal(old.read("in_scope", at[0]), new_group["in_scope"][there.sensor])  # the sensor's reach may differ
    except CubeDamaged:  # the new cube has its own
        same_scope = False
    if gap and same_scope and int(old.read("gap_revision", at)) == int(old.read("revision", at)):
        desired = float(old.read("desired", at))
        write_gap(new.store.zarr, sensor.key, month, pieces(GAP_VARIABLES), desired=desired, made_from=revision)
    else:
        new.gap(sensor, month)


def _swap(path: UPath, target: UPath) -> UPath:
    """Put the new cube in the old one's place; the old one keeps a name that says since when."""
    local = Path(path.path)
    now, former = dt.datetime.now(UTC), None
    while former is None or former.exists():
        former = local.parent / f"{local.name.removesuffix('.zarr')}.before-{now:%Y%m%dT%H%M%SZ}.zarr"
        now += dt.timedelta(seconds=1)
    try:
        local.rename(former)
        _put_in_place(path, target)
    except OSError as error:
        raise CoverageError(f"cannot put {target} in the place of {path}: {error}; the new cube is whole, move it by hand") from error
    return UPath(former)


def _put_in_place(path: UPath, target: UPath) -> None:
    """Give a whole new cube its name."""
    Path(target.path).rename(Path(path.path))
    describe(path)
    _remove(target)
