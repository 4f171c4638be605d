"""What the map is drawn from: fields of the cube, computed once for everybody who looks.

All sessions of a server share one cache. A key is the cube, the revisions its partitions have, and the question;
while one
session computes a key, the others that ask for it wait and then share it. The least recently seen fields go when
memory is full.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from coverage_dashboards.hexmap import HexMap, hex_map
from coverage_dashboards.viewport import OUT_OF_SCOPE
from coverage_pipeline.cube.dataset import grid_of, open_coverage
from coverage_pipeline.cube.overviews import row_areas
from coverage_pipeline.cube.schema import ACTIONS, METRICS, CoverageQuery
from coverage_pipeline.cube.select import select
from coverage_pipeline.demand.cell_changes import CELL_CHANGES, change_layer
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.grid.cell_area import cell_km2
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS

CACHE_BYTES = 1 << 30
"""About thirty global fields at 0.1°."""

LOOK_AGAIN_SECONDS = 20.0
"""A planner sees a finished run this much later at most: asking the cube for its revisions on every click costs too
much."""


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


class FieldCache:
    """Least recently used things up to a number of bytes; every key is computed once, however many threads ask for
    it.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._there: OrderedDict[Hashable, _Sized] = OrderedDict()
        self._guard = threading.Lock()
        self._making: dict[Hashable, list[Any]] = {}  # key → [lock, number of threads that hold or await it]

    def get[T: _Sized](self, key: Hashable, make: Callable[[], T]) -> T:
        """The thing of that key, made if it is not there. A failure is raised and not kept."""
        with self._guard:
            entry = self._there.get(key)
            if entry is not None:
                self._there.move_to_end(key)
                return cast(T, entry)
            making = self._making.setdefault(key, [threading.Lock(), 0])
            making[1] += 1
        try:
            with making[0]:
                with self._guard:
                    entry = self._there.get(key)
                if entry is not None:
                    return cast(T, entry)
                result = make()
                self._keep(key, result)
                return result
        finally:
            with self._guard:
                making[1] -= 1
                if not making[1]:
                    self._making.pop(key, None)

    def _keep(self, key: Hashable, value: _Sized) -> None:
        if value.nbytes > self.max_bytes:
            return
        with self._guard:
            self._there[key] = value
            self.nbytes += value.nbytes
            while self.nbytes > self.max_bytes:
                _, gone = self._there.popitem(last=False)
                self.nbytes -= gone.nbytes

    def __contains__(self, key: Hashable) -> bool:
        with self._guard:
            return key in self._there

    def __len__(self) -> int:
        with self._guard:
            return len(self._there)


FIELDS = FieldCache()
"""The one cache of this process."""


@dataclass(frozen=True)
class Limits:
    """Values of the two ends of a colour bar."""

    low: float
    high: float
    above: bool = False
    """Some values are higher; they have the colour of ``high``."""
    nbytes: int = 64

    def and_(self, other: Limits) -> Limits:
        """Limits that fit both."""
        return Limits(min(self.low, other.low), max(self.high, other.high), self.above or other.above)


@dataclass(frozen=True)
class Share:
    """How much of the area in scope one action has."""

    cells: int
    of_scope: float


@dataclass(frozen=True)
class Field:
    """One map: its values, how much of each is known, and what stands beside it."""

    metric: str
    values: NDArray[np.float32]
    """``(lat, lon)``; NaN where not known, ``OUT_OF_SCOPE`` where nothing is wanted."""
    known_months: NDArray[np.uint8]
    months: int
    known_range: tuple[int, int]
    """Fewest and most known months of a cell (in scope, for the gap)."""
    limits: Limits
    unit: str
    shares: Mapping[str, Share] = field(default_factory=dict)
    resolution: float = 0.1
    """Degrees a cell."""
    provisional: int = 0
    """Months whose scan is provisional, where the metric needs a catalogue: a zero of theirs is no known none."""
    without_catalogue: tuple[str, ...] = ()
    """Sensors of the map whose archive cannot be asked: of them an action follows from the holdings alone."""
    sensors: int = 1
    """How many sensors the map unites."""
    top: float = 0.0
    """The largest value; 0 where none is known."""
    points_a_cell: float = 1.0
    """Points of ``values`` that lie in one cell, on average: more than one for H3 cells, which are drawn on a finer grid."""

    @property
    def nbytes(self) -> int:
        """Bytes it occupies."""
        return self.values.nbytes + self.known_months.nbytes


@dataclass(frozen=True)
class Cube:
    """An opened cube and the stamp of the revisions it was opened at."""

    location: str
    ds: xr.Dataset
    stamp: str

    @cached_property
    def hexes(self) -> HexMap | None:
        """Where on the map the cells of H3 lie; None for a cube in degrees."""
        res = grid_of(self.ds).h3_res
        return None if res is None else hex_map(res)

    @cached_property
    def grid(self) -> GridSpec:
        """The regular grid that fields are drawn on."""
        return grid_of(self.ds) if self.hexes is None else self.hexes.grid


_cubes: dict[str, tuple[float, Cube]] = {}
_opening = threading.Lock()


def open_cube(location: str, *, look_again: float = LOOK_AGAIN_SECONDS) -> Cube:
    """The cube, opened anew at most every ``look_again`` seconds; raises ``CoverageError`` where there is none."""
    with _opening:
        opened, cube = _cubes.get(location, (-math.inf, None))
        if cube is not None and time.monotonic() - opened < look_again:
            return cube
        ds = open_coverage(location)
        now = Cube(location, ds, _stamp(ds))
        if cube is not None and now.stamp == cube.stamp:
            now = cube
        _cubes[location] = (time.monotonic(), now)
        return now


def extent_of(cube: Cube) -> BBox:
    """West, south, east, north of the cube, degrees."""
    return grid_of(cube.ds).bounds


def _stamp(ds: xr.Dataset) -> str:
    """Changes whenever a partition, an axis or the settings behind the numbers do."""
    seen = hashlib.sha256()
    for name in ("revision", "gap_revision"):
        seen.update(np.ascontiguousarray(ds[name].values).tobytes())
    seen.update(repr((dict(ds.sizes), sorted(ds.attrs.items(), key=lambda item: item[0]))).encode())
    return seen.hexdigest()[:16]


def field_of(cube: Cube, query: CoverageQuery, cache: FieldCache = FIELDS) -> Field:
    """The map that answers a query (not ``scrub``: its months are fields of their own, see ``frames_limits``)."""
    return cache.get(_key_of(cube, query), lambda: _make(cube, replace(query, sensors=sorted(query.sensors)), cache))


def _key_of(cube: Cube, query: CoverageQuery) -> Hashable:
    return (cube.location, cube.stamp, query.metric, tuple(sorted(query.sensors)), query.t0, query.t1, query.aggregation)


def is_at_hand(cube: Cube, query: CoverageQuery, cache: FieldCache = FIELDS) -> bool:
    """Whether ``field_of`` has its answer already."""
    return _key_of(cube, query) in cache


CHANGE = "change"
"""Metric of a map of changes, whose values are places in ``CHANGES``."""
CHANGES = (*CELL_CHANGES, "not known", "out of scope")
CHANGE_URGENCY = ("out of scope", "same", "not known", "better", "closed", "became known", "became not known", "worse", "opened")
"""From what may be overlooked to what must not be."""


def change_field(cube: Cube, sensor: str, before: Month, after: Month, cache: FieldCache = FIELDS) -> Field:
    """The map of what changed for a sensor between two months; raises ``CoverageError`` where the cube lacks one of them."""
    return cache.get((cube.location, cube.stamp, CHANGE, sensor, before, after), lambda: _changes(cube, sensor, before, after, cache))


def _changes(cube: Cube, sensor: str, before: Month, after: Month, cache: FieldCache) -> Field:
    hexes = cube.hexes
    values = change_layer(cube.ds, sensor, before, after).values.astype(np.float32)
    now, was = (np.isnan(cube.ds["deficit"].sel(sensor=sensor, time=month.to_datetime64()).values) for month in (after, before))
    values[now & was] = CHANGES.index("not known")
    scope = cache.get((cube.location, cube.stamp, "scope", (sensor,)), lambda: _scope(cube.ds, [sensor]))
    values[~scope] = CHANGES.index("out of scope")
    known = 2 - now.astype(np.uint8) - was.astype(np.uint8)
    counted = known[scope]
    known_range = (int(counted.min()), int(counted.max())) if counted.size else (0, 0)
    shares = _shares(values, _areas(cube), CHANGES, "out of scope")
    if hexes is not None:
        values, known = hexes.spread(values), hexes.spread(known)
    limits = Limits(-0.5, len(CHANGES) - 0.5)
    return Field(CHANGE, values, known, 2, known_range, limits, "", shares, cube.grid.resolution, points_a_cell=_points_a_cell(cube))


def frames_limits(cube: Cube, months: list[CoverageQuery], cache: FieldCache = FIELDS) -> Limits:
    """Colour limits that fit every month, so that colours mean the same while time is scrubbed."""
    key = (cube.location, cube.stamp, "limits", *((q.metric, tuple(sorted(q.sensors)), q.t0) for q in months))

    def widest() -> Limits:
        limits = field_of(cube, months[0], cache).limits
        for query in months[1:]:
            limits = limits.and_(field_of(cube, query, cache).limits)
        return limits

    return cache.get(key, widest)


def _make(cube: Cube, query: CoverageQuery, cache: FieldCache) -> Field:
    hexes = cube.hexes
    selected = select(cube.ds, query)
    values = np.asarray(selected.values, np.float32)
    known = np.minimum(selected["known_months"].values, 255).astype(np.uint8)
    counted = known
    shares: Mapping[str, Share] = {}
    if query.metric == "action":
        values = np.where(np.isnan(values), np.float32(ACTIONS.index("unknown")), values)
        shares = _shares(values, _areas(cube))
        counted = known[values != ACTIONS.index("out_of_scope")]
    elif METRICS[query.metric].layer == "gap":
        scope = cache.get((cube.location, cube.stamp, "scope", tuple(query.sensors)), lambda: _scope(cube.ds, query.sensors))
        values = np.where(scope, values, OUT_OF_SCOPE)
        counted = known[scope]
    elif query.metric == "mean_scene_cloud_pct":
        values = np.where(np.isnan(values) & (known > 0), OUT_OF_SCOPE, values)  # looked at, and no scene to take a mean of
    months = int(selected.attrs["months"])
    known_range = (int(counted.min()), int(counted.max())) if counted.size else (0, 0)
    if hexes is not None:
        values, known = hexes.spread(values), hexes.spread(known)
    unit = str(selected.attrs["unit_in_words"])
    return Field(
        query.metric, values, known, months, known_range, _limits(cube.ds, query.metric, values), unit, shares, cube.grid.resolution,
        int(selected.attrs["provisional_months"]), _without_catalogue(cube.ds, query), len(query.sensors),
        _top(values), _points_a_cell(cube),
    )  # fmt: skip


def _without_catalogue(ds: xr.Dataset, query: CoverageQuery) -> tuple[str, ...]:
    """The sensors whose archive cannot be asked in any month of the window."""
    status = ds["scan_status"].sel(sensor=query.sensors, time=slice(query.t0.isoformat(), query.t1.isoformat()))
    none = (status == SCAN_STATUS.index("not_applicable")).all("time").values
    return tuple(sensor for sensor, lacks in zip(query.sensors, none, strict=True) if lacks)


def _scope(ds: xr.Dataset, sensors: list[str]) -> NDArray[np.bool_]:
    return np.asarray((ds["in_scope"].sel(sensor=sensors) != 0).any("sensor").values)


def _limits(ds: xr.Dataset, metric: str, values: NDArray[np.float32]) -> Limits:
    if metric == "action":
        return Limits(-0.5, len(ACTIONS) - 0.5)
    if metric == "priority_score":
        return Limits(0.0, 1.0)
    if metric == "mean_scene_cloud_pct":
        return Limits(0.0, 100.0)
    top = _top(values)
    if top <= 0:
        return Limits(0.0, 1.0)
    # A few cells under many overlapping swaths must not take the colours from all others.
    step = max(1, round(values.shape[0] / 600))
    some = values[::step, ::step]
    some = some[np.isfinite(some) & (some > 0)]
    common = float(np.quantile(some, 0.995)) if some.size else top
    high = _round_up(min(top, max(common, top / 50)))
    return Limits(0.0, high, top > high)


def _top(values: NDArray[np.float32]) -> float:
    """The largest known value, 0 where there is none."""
    top = float(np.fmax.reduce(values, axis=None))
    return top if math.isfinite(top) and top > 0 else 0.0


def _round_up(value: float) -> float:
    """The next number with one or two plain leading digits: a colour bar that ends at 12 is read more easily than at
    11.37.
    """
    scale = 10.0 ** math.floor(math.log10(value))
    nice = next(n for n in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if n * scale >= value * (1 - 1e-9))
    return float(f"{nice * scale:.3g}")


def classes_of(metric: str) -> Sequence[str]:
    """Names of the classes of a map of classes, by value; empty for a map of numbers."""
    return ACTIONS if metric == "action" else CHANGES if metric == CHANGE else ()


def shares_within(field: Field, cube: Cube, rows: slice, columns: NDArray[np.int64]) -> dict[str, Share]:
    """Cells of each class within some rows and columns, and their part of the area in scope there; of a map of classes."""
    beside = "out of scope" if field.metric == CHANGE else "out_of_scope"
    within = field.values[rows][:, columns]
    if cube.hexes is None:
        return _shares(within, _areas(cube)[rows], classes_of(field.metric), beside)
    cells, first = np.unique(cube.hexes.cells[rows][:, columns], return_index=True)
    return _shares(within.ravel()[first], _areas(cube)[cells], classes_of(field.metric), beside)


def _areas(cube: Cube) -> NDArray[np.float64]:
    """Area of a cell of each row, or of each H3 cell."""
    grid = grid_of(cube.ds)
    return row_areas(grid.lat_edges) if grid.h3_res is None else np.broadcast_to(cell_km2(grid), grid.shape)


def _points_a_cell(cube: Cube) -> float:
    return 1.0 if cube.hexes is None else cube.hexes.points_a_cell


def _shares(
    classes: NDArray[np.float32], area: NDArray[np.float64], names: Sequence[str] = ACTIONS, beside: str = "out_of_scope"
) -> dict[str, Share]:
    """Cells of each class, and its part of the area in scope: a cell at 60° is half as large as one at the equator.

    ``classes`` are ``(lat, lon)`` or ``(cells,)``, ``area`` has one value for each of the first dimension.
    """
    rows = classes.shape[0]
    code = classes.reshape(rows, -1).astype(np.int64) + np.arange(rows)[:, None] * len(names)
    by_row = np.bincount(code.ravel(), minlength=rows * len(names)).reshape(rows, len(names))
    areas, cells = area @ by_row, by_row.sum(axis=0)
    in_scope = float(areas.sum() - areas[names.index(beside)])
    return {name: Share(int(cells[k]), float(areas[k]) / in_scope if in_scope and name != beside else 0.0) for k, name in enumerate(names)}
