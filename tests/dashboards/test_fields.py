"""The cache that all planners share, and the fields in it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from coverage_dashboards.choices import Choices, View
from coverage_dashboards.fields import FieldCache, Limits, extent_of, field_of, frames_limits, open_cube
from coverage_dashboards.viewport import OUT_OF_SCOPE
from coverage_pipeline.cube.schema import ACTIONS, METRICS, CoverageError, CoverageQuery
from coverage_pipeline.cube.write import write_coverage
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from tests.cubes import JANUARY, cube_spec, known_fields, make_cube, provenance, write_partition
from tests.dashboards.cubes import UNKNOWN_LON, build_cube


@dataclass(frozen=True)
class Thing:
    nbytes: int


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    return open_cube(str(build_cube(tmp_path_factory.mktemp("cube") / "coverage.zarr", 4.0, 3)))


def view(cube, metric, *sensors, aggregation=None):
    choices = Choices.of(cube.ds)
    layer = METRICS[metric].layer
    first, last = choices.months[0], choices.months[-1]
    return choices.settled(View(layer, metric, sensors, first, last, aggregation or METRICS[metric].default, first))


def test_a_key_is_computed_once_however_many_threads_ask():
    cache, made, start, got = FieldCache(), [], threading.Barrier(8), []

    def make():
        made.append(1)
        time.sleep(0.05)
        return Thing(10)

    def ask():
        start.wait()
        got.append(cache.get("key", make))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len({id(thing) for thing in got}) == 1
    assert not cache._making


def test_other_keys_do_not_wait():
    cache, inside, go_on = FieldCache(), threading.Event(), threading.Event()

    def slow():
        inside.set()
        assert go_on.wait(5)
        return Thing(1)

    thread = threading.Thread(target=cache.get, args=("slow", slow))
    thread.start()
    assert inside.wait(5)
    assert cache.get("quick", lambda: Thing(2)).nbytes == 2
    go_on.set()
    thread.join()


def test_memory_is_bounded_and_the_least_recently_seen_goes_first():
    cache = FieldCache(30)
    for key in "abc":
        cache.get(key, lambda: Thing(10))
    cache.get("a", lambda: pytest.fail("a was there"))
    cache.get("d", lambda: Thing(10))
    assert (cache.nbytes, len(cache)) == (30, 3)
    cache.get("a", lambda: pytest.fail("a was seen last"))
    assert cache.get("b", lambda: Thing(7)).nbytes == 7
    cache.get("huge", lambda: Thing(31))
    assert cache.nbytes <= 30


def test_a_failure_is_not_kept():
    cache = FieldCache()
    with pytest.raises(CoverageError):
        cache.get("key", lambda: (_ for _ in ()).throw(CoverageError("no")))
    assert cache.get("key", lambda: Thing(1)).nbytes == 1


def test_unknown_stays_unknown_and_zero_stays_zero(cube):
    field = field_of(cube, view(cube, "scenes_count", "emit").query(), FieldCache())
    lons, lats = cube.ds["lon"].values, cube.ds["lat"].values
    hole = (lons >= UNKNOWN_LON[0]) & (lons < UNKNOWN_LON[1])
    assert np.isnan(field.values[:, hole]).all()
    assert (field.values[np.abs(lats) > 60][:, ~hole] == 0).all()
    assert field.known_range == (0, 3)


def test_out_of_scope_is_neither_zero_nor_unknown_in_the_gap(cube):
    field = field_of(cube, view(cube, "deficit", "emit").query(), FieldCache())
    scope = cube.ds["in_scope"].sel(sensor="emit").values != 0
    assert (field.values[~scope] == OUT_OF_SCOPE).all()
    assert (field.values[scope] != OUT_OF_SCOPE).all()


def test_shares_of_actions_are_of_the_area_in_scope(cube):
    field = field_of(cube, view(cube, "action", "emit").query(), FieldCache())
    assert sum(s.of_scope for s in field.shares.values()) == pytest.approx(1)
    assert sum(s.cells for s in field.shares.values()) == field.values.size
    assert field.shares["out_of_scope"].of_scope == 0
    counted = {name: int((field.values == k).sum()) for k, name in enumerate(ACTIONS)}
    assert {n: s.cells for n, s in field.shares.items()} == counted


def test_limits_fit_every_month_of_a_scrub(cube):
    scrub = view(cube, "held_count", "emit", aggregation="scrub")
    cache = FieldCache()
    limits = frames_limits(cube, [scrub.frame(m) for m in scrub.months], cache)
    frames = [field_of(cube, scrub.frame(m), cache).limits for m in scrub.months]
    assert limits == Limits(0, max(f.high for f in frames), any(f.above for f in frames))
    assert replace(scrub, month=scrub.months[1]).query() == scrub.frame(scrub.months[1])


def test_order_of_sensors_makes_no_second_field(cube):
    cache = FieldCache()
    one, other = (view(cube, "deficit", "emit", "landsat-8-9").query() for _ in range(2))
    other.sensors.reverse()
    assert field_of(cube, one, cache) is field_of(cube, other, cache)


def test_a_rewritten_partition_gives_another_stamp(tmp_path):
    path = build_cube(tmp_path / "coverage.zarr", 10.0, 1, ("emit",))
    before = open_cube(str(path), look_again=0)
    assert open_cube(str(path), look_again=0) is before
    write_coverage(path, "emit", Month(2025, 1), known_fields(GridSpec(10.0)), provenance())
    after = open_cube(str(path), look_again=0)
    assert after.stamp != before.stamp
    assert field_of(after, view(after, "deficit", "emit").query(), FieldCache()).known_range == (0, 0)


def test_a_cube_of_a_region_knows_its_place(tmp_path: Path) -> None:
    grid = GridSpec(1.0, extent=(4.5, 44, 16, 56))
    path = make_cube(tmp_path / "region.zarr", cube_spec(grid=grid))
    write_partition(path, "emit", JANUARY, known_fields(grid, scenes_count=3))
    cube = open_cube(str(path))
    assert extent_of(cube) == (4.0, 44.0, 16.0, 56.0)
    query = CoverageQuery("gap", "action", ["emit"], dt.date(2025, 1, 1), dt.date(2025, 1, 31), "recent")
    field = field_of(cube, query)
    assert field.values.shape == (12, 12)
    assert field.resolution == 1.0
    assert sum(share.cells for share in field.shares.values()) == 144
