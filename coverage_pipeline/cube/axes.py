"""Axes and settings of a cube: its sensors, months and grid, and where a partition lies."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.cube.arrays import reading
from coverage_pipeline.cube.schema import REBUILD, SCHEMA_VERSION, CoverageError, CoverageMismatch, CubeDamaged
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.storage.files import write_bytes


def days_since_1970(months: Sequence[Month]) -> NDArray[np.int64]:
    return np.array([m.to_datetime64().astype("datetime64[D]").astype(np.int64) for m in months], np.int64)


def set_attributes(path: UPath, **changes: Any) -> None:
    """Change attributes of the root group in one writing.

    Not by zarr's ``attrs``: a group that was opened past its consolidated metadata would be written back without them, and a reader
    would then see the axes as they stand while they grow.
    """
    root = path / "zarr.json"
    with reading(root):
        document = json.loads(root.read_bytes())
    document.setdefault("attributes", {}).update(changes)
    write_bytes(root, json.dumps(document).encode())


def json_attribute(group: zarr.Group, path: UPath, name: str, default: str | None = None) -> Any:
    """An attribute of the root group that holds JSON; raises ``CubeDamaged`` where it does not, or is not there."""
    text = group.attrs.get(name, default)
    try:
        if not isinstance(text, str):
            raise TypeError(f"{type(text).__name__}")
        return json.loads(text)
    except (ValueError, TypeError) as error:
        raise CubeDamaged(f"{path / 'zarr.json'} is damaged: its attribute {name!r} is not JSON ({error}); {REBUILD}") from error


def axes_of(group: zarr.Group) -> tuple[list[str], list[Month]]:
    """Sensors and months that the cube has places for; raises ``CubeDamaged`` where the axes cannot be those of a cube."""
    where = str(group.store_path).removeprefix("file://")
    with reading(f"{where}/sensor"):
        keys = [str(key) for key in np.atleast_1d(group["sensor"][:])]
    with reading(f"{where}/time"):
        days = np.atleast_1d(group["time"][:]).astype(np.int64)
    # A writer killed while it grew the axes leaves entries without a name at the end; months follow from the first one.
    sensors = list(itertools.takewhile(bool, keys))
    if not sensors or any(keys[len(sensors) :]) or len(set(sensors)) < len(sensors):
        raise CubeDamaged(f"{where}/sensor is damaged: its keys are {keys[:20]}; {REBUILD}")
    if not len(days) or not 0 < days[0] < _LAST_DAY:  # a chunk that is gone reads as 0, the first of January 1970
        raise CubeDamaged(f"{where}/time is damaged: it has no first month; {REBUILD}")
    first = Month.of(days[0].astype("datetime64[D]"))
    months = [first.shift(k) for k in range(len(days))]
    if (
        any(found not in (0, wanted) for found, wanted in zip(days, days_since_1970(months), strict=True))
        or days[0] != days_since_1970(months[:1])[0]
    ):
        raise CubeDamaged(f"{where}/time is damaged: its entries are not one month after the other; {REBUILD}")
    return sensors, months


_LAST_DAY = 200_000
"""Days since 1970 beyond which no cube begins: the year 2517."""


def settings_of(group: zarr.Group, path: UPath) -> dict[str, Any]:
    """The settings a cube was made with; raises ``CoverageMismatch`` for a cube of another schema version or of another program."""
    version = group.attrs.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CoverageMismatch(wrong_version(path, version, f", this program writes {SCHEMA_VERSION}", HOW_TO_CHANGE))
    settings = json_attribute(group, path, "settings")
    if not isinstance(settings, dict):
        raise CubeDamaged(f"{path / 'zarr.json'} is damaged: its attribute 'settings' is not a table; {REBUILD}")
    return settings


def wrong_version(path: UPath, found: object, here: str, hint: str) -> str:
    """What to say of a cube of another schema version."""
    if found is None:
        return (
            f"{path} has schema version None{here}: it is not a coverage cube, or its making was broken off; move it away, or name another "
            "place in output.zarr (COVERAGE_OUTPUT_ZARR)"
        )
    if isinstance(found, int) and found > SCHEMA_VERSION:
        return (
            f"{path} has schema version {found}{here}: a newer coverage-planner made it; install that one, or name another cube in "
            "output.zarr (COVERAGE_OUTPUT_ZARR)"
        )
    return f"{path} has schema version {found}{here}: {hint}"


def grid_in(group: zarr.Group, path: UPath) -> GridSpec:
    """The grid a cube was made on; raises ``CoverageMismatch`` as ``settings_of``."""
    settings = settings_of(group, path)
    with reading(f"{path / 'zarr.json'}: the grid in its attribute 'settings'"):
        return GridSpec.from_description(settings["grid"])


HOW_TO_CHANGE = (
    "run `coverage-planner migrate`, which builds it anew from what is on disk, or name another cube in output.zarr (COVERAGE_OUTPUT_ZARR)"
)


@dataclass(frozen=True)
class PartitionIndex:
    """Where a partition lies in the cube."""

    sensor: int
    time: int


def partition_index(group: zarr.Group, sensor: str, month: Month) -> PartitionIndex:
    """Where a partition lies; raises ``CoverageError`` where it has no place."""
    keys, months = axes_of(group)
    if sensor not in keys or month not in months:
        raise CoverageError(f"the cube has no place for {sensor} {month}: make it with ensure_cube first")
    return PartitionIndex(keys.index(sensor), months.index(month))


def scopes_of(group: zarr.Group, path: UPath) -> dict[str, str]:
    """The scope of each sensor, in words, whose mask is written."""
    return dict(json_attribute(group, path, "scopes", "{}"))
