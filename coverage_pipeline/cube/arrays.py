"""The Zarr store of a cube: its groups and arrays, opened and checked, with errors that name the damaged file."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from upath import UPath
from zarr.abc.store import Store
from zarr.errors import BaseZarrError
from zarr.storage import FsspecStore, LocalStore

from coverage_pipeline.cube.levels import dims_on, level_schema, levels
from coverage_pipeline.cube.schema import KNOWN_SHARES, PARTITION_DIMS, REBUILD, SCHEMA, CoverageError, CubeDamaged, Variable
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.redaction import error_words
from coverage_pipeline.storage.paths import is_local


def zarr_store(path: UPath, *, read_only: bool) -> Store:
    """The Zarr store of a cube's path: never its text, in which zarr and fsspec take ``#`` and ``?`` for parts of a URL."""
    if is_local(path):
        return LocalStore(Path(path.path), read_only=read_only)
    return FsspecStore.from_upath(path, read_only=read_only)


DAMAGE_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, AssertionError, EOFError, BaseZarrError)
"""Errors that zarr and its codecs raise for damaged bytes."""


@contextlib.contextmanager
def reading(label: object, hint: str = REBUILD) -> Iterator[None]:
    """Turn what zarr raises of a file that is cut, changed or gone into ``CubeDamaged`` that names it."""
    try:
        yield
    except (PlannerError, IndexError):  # an index beyond the axes: another cube stands there
        raise
    except DAMAGE_ERRORS as error:
        text = error_words(error, 200)
        raise CubeDamaged(f"{label} is damaged and cannot be read ({type(error).__name__}: {text}); {hint}") from error
    except Exception as error:  # the clients of object stores have no common base class of errors
        text = error_words(error, 200)
        raise CoverageError(f"cannot read {label}: {text}; check that it is there and may be read, then try again") from error


def open_group(path: UPath, mode: Literal["r", "r+"], *, consolidated: bool | None = False) -> zarr.Group:
    """The cube's root group; metadata as it stands now unless ``consolidated`` is asked for.

    Raises ``CoverageError`` where there is none, ``CubeDamaged`` where its metadata cannot be read.
    """
    with reading(path / "zarr.json"):
        try:
            return zarr.open_group(zarr_store(path, read_only=mode == "r"), mode=mode, use_consolidated=consolidated)
        except FileNotFoundError as error:
            if exists(path):
                raise ValueError("it is no group") from error
            raise CoverageError(f"no coverage cube at {path}: build one (coverage-planner build) or set output.zarr") from error


class StoredArray:
    """An array of the cube. What cannot be read of it is named by its file, with what to do."""

    def __init__(self, array: Any, path: UPath, name: str) -> None:
        self.array = array
        self.path = path
        self.name = name
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype

    def __getitem__(self, key: Any) -> Any:
        with self._reading(key):
            return self.array[key]

    def __setitem__(self, key: Any, values: Any) -> None:
        self.array[key] = values

    def outer(self, key: Any) -> Any:
        """The values at every combination of the indices, as zarr's ``oindex``."""
        with self._reading(key):
            return self.array.oindex[key]

    @contextlib.contextmanager
    def _reading(self, key: Any) -> Iterator[None]:
        try:
            with reading(self.path / self.name):
                yield
        except CoverageError as error:
            self.refuse_damage(key)
            raise error from error.__cause__

    def refuse_damage(self, key: Any = ()) -> None:
        """Raise ``CubeDamaged`` naming the first chunk within ``key`` that cannot be read; nothing where all can."""
        parts = key if isinstance(key, tuple) else (key,)
        spans = []
        for dim, (length, chunk) in enumerate(zip(self.shape, self.array.chunks, strict=True)):
            part = parts[dim] if dim < len(parts) else None
            number = -(-length // chunk)
            if isinstance(part, int | np.integer):
                spans.append(range(int(part) // chunk, int(part) // chunk + 1))
            elif isinstance(part, slice):
                start, stop, _ = part.indices(length)
                spans.append(range(start // chunk, min(number, -(-stop // chunk))))
            else:
                spans.append(range(number))
        for at in itertools.islice(itertools.product(*spans), _CHUNKS_LOOKED_AT):
            try:
                self.array.get_block_selection(at)
            except (*DAMAGE_ERRORS, MemoryError) as error:  # a cut chunk may announce any length
                file = self.path / self.name / self.array.metadata.encode_chunk_key(at)
                raise CubeDamaged(f"{file} is cut or damaged and cannot be read; {self._hint()}") from error

    def _hint(self) -> str:
        """A partition's own chunk is mended by writing the partition again; nothing else is."""
        name = self.name.rpartition("/")[2]
        if (name in SCHEMA and SCHEMA[name].dims[:2] == PARTITION_DIMS) or name in KNOWN_SHARES:
            return "materialise coverage and gap of its sensor and month again, which writes it anew"
        return REBUILD


_CHUNKS_LOOKED_AT = 4096


class Arrays:
    """The arrays of a cube, each opened and checked once: opening takes longer than reading or writing a small one."""

    def __init__(self, group: zarr.Group, path: UPath, grid: GridSpec) -> None:
        self._group = group
        self._path = path
        self._grid = grid
        self._opened: dict[str, StoredArray] = {}
        self._guard = threading.Lock()

    def __getitem__(self, name: str) -> StoredArray:
        with self._guard:
            if name not in self._opened:
                self._opened[name] = self._open(name)
            return self._opened[name]

    def _open(self, name: str) -> StoredArray:
        file = self._path / name / "zarr.json"
        with reading(file):
            try:
                array: Any = self._group[name]
            except KeyError:
                raise CubeDamaged(f"{self._path} has no array {name}: it was removed; {REBUILD}") from None
            if not isinstance(array, zarr.Array):
                raise TypeError("a group, not an array")
            self._check(name, array)
        return StoredArray(array, self._path, name)

    def _check(self, name: str, array: Any) -> None:
        """Raise ``ValueError`` where an array is not as this program makes it: its numbers would mean something else."""
        group, _, base = name.rpartition("/")
        variables = level_schema() if group else SCHEMA
        if base not in variables:  # a coordinate
            return
        variable = variables[base]
        dims = dims_on(self._grid, variable)
        shapes = {level.group: level.shape for level in levels(self._grid)} | {"": self._grid.shape}
        shape = {"lat": shapes[group][0], "lon": shapes[group][-1], "cells": shapes[group][0]}
        if tuple(array.metadata.dimension_names or ()) != dims:
            raise ValueError(f"its dimensions are {array.metadata.dimension_names}, not {dims}")
        if not _same_type(array, variable):
            raise ValueError(f"its type is {array.dtype}, not {variable.dtype}")
        if any(shape.get(dim, length) != length for dim, length in zip(dims, array.shape, strict=True)):
            raise ValueError(f"its shape is {array.shape}, which is not that of {self._grid.in_words()}")
        if any(chunk != 1 for dim, chunk in zip(dims, array.chunks, strict=True) if dim in PARTITION_DIMS and dims[:2] == PARTITION_DIMS):
            raise ValueError(f"its chunks are {array.chunks}, so that partitions share them")
        if not _same_fill(array.fill_value, variable.fill):
            raise ValueError(f"its fill is {array.fill_value}, not {variable.fill}")


def _same_type(array: Any, variable: Variable) -> bool:
    return array.dtype.kind in "TUO" if variable.dtype == "string" else bool(array.dtype == np.dtype(variable.dtype))


def _same_fill(stored: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(stored, float | np.floating) and math.isnan(stored)
    return bool(stored == wanted)


def exists(path: UPath) -> bool:
    """Whether the path holds a Zarr group or array."""
    return bool((path / "zarr.json").exists())
