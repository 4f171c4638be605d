"""The cube: its schema on disk, what readers see of it, and what stays true when writers fail, repeat or run at once."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  # gives .rio
import xarray as xr
import zarr
from rasterio.transform import Affine
from zarr.core.attributes import Attributes

from coverage_pipeline.cube import select as coverage
from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.description import update_snapshot
from coverage_pipeline.cube.read import read_partition
from coverage_pipeline.cube.schema import (
    ACTIONS,
    COVERAGE_VARIABLES,
    GAP_VARIABLES,
    SCHEMA,
    CoverageError,
    CoverageMismatch,
    CoverageQuery,
    CubeSpec,
    DesiredCadence,
)
from coverage_pipeline.cube.select import select
from coverage_pipeline.cube.write import write_coverage, write_gap
from coverage_pipeline.demand.gap import compute_gap
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month, months_between
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.cubes import (
    FEBRUARY,
    GRID,
    JANUARY,
    MARCH,
    QUARTER,
    cube_spec,
    everywhere,
    known_fields,
    make_cube,
    make_gap,
    provenance,
    random_fields,
    write_partition,
)

pytestmark = pytest.mark.slow

COUNTS = [name for name, v in SCHEMA.items() if v.dtype == "int16"]
MASKS = [name for name, v in SCHEMA.items() if v.dtype == "uint32"]
NUMBERS = ["mean_scene_cloud_pct", "days_since_last_held", "priority_score"]
CELLS = ("sensor", "time", "lat", "lon")


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    """A cube of two sensors and three months in which nothing is written."""
    return make_cube(tmp_path / "coverage.zarr")


def at(ds: xr.Dataset, sensor: str, month: Month) -> xr.Dataset:
    return ds.sel(sensor=sensor, time=month.to_datetime64())


def is_known(ds: xr.Dataset, name: str) -> np.ndarray[Any, Any]:
    values = ds[name].values
    if name in MASKS:
        return np.asarray(values < UNKNOWN)
    return np.asarray(values != 0) if name == "action" else ~np.isnan(values)


def stored(path: Path) -> dict[tuple[str, str, str], Any]:
    """Everything that stands on disk, by variable, sensor and month; revisions are random and left out."""
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    sensors = [str(s) for s in group["sensor"][:]]
    months = [str(d) for d in group["time"][:].astype("datetime64[D]")]
    out = {}
    for name, variable in SCHEMA.items():
        values = group[name][:]
        for (s, sensor), (t, month) in itertools.product(enumerate(sensors), enumerate(months)):
            if name not in ("revision", "gap_revision") and variable.dims[0] == "sensor":
                part = values[s, t] if "time" in variable.dims else values[s]
                out[name, sensor, month] = np.asarray(part)
    return out


def same(a: dict[tuple[str, str, str], Any], b: dict[tuple[str, str, str], Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=k[0] != "provider") for k in a)


# --- nothing written is not known, never zero -----------------------------------------------------------------------


def test_an_unwritten_cube_has_no_zero_in_any_count_in_xarray(cube: Path) -> None:
    for ds in (open_coverage(cube), xr.open_zarr(cube)):
        for name in (*COUNTS, *NUMBERS, "scenes_total", "held_not_in_catalog"):
            assert ds[name].size
            assert np.isnan(ds[name].values).all(), name
        for name in MASKS:
            assert ds[name].dtype == np.uint32
            assert (ds[name].values == UNKNOWN).all(), name
        assert (ds["action"].values == ACTIONS.index("unknown")).all()
        assert np.isnat(ds["scanned_at"].values).all()
        assert (ds["scan_status"].values == SCAN_STATUS.index("not_scanned")).all()
        assert (ds["holdings_status"].values == HOLDINGS_STATUS.index("not_read")).all()
        assert np.isnan(ds["desired"].values).all()
    undecoded = xr.open_zarr(cube, mask_and_scale=False)
    assert all((undecoded[name].values == -1).all() for name in COUNTS)


def test_an_unwritten_cube_has_no_zero_in_any_count_in_gdal(tmp_path: Path) -> None:
    cube = make_cube(tmp_path / "coverage.zarr", cube_spec(grid=GridSpec(0.5)))
    for name in COUNTS:
        with rasterio.open(f'ZARR:"{cube}":/{name}') as raster:
            assert raster.count == 6  # sensor x month
            assert (raster.nodata, raster.dtypes[0]) == (-1, "int16")
            assert (raster.width, raster.height) == (720, 360)
            # The first row is the southernmost.
            assert raster.transform == Affine(0.5, 0, -180, 0, 0.5, -90)
            assert raster.crs.to_epsg() == 4326
            assert (raster.read(1) == -1).all()
            assert not raster.read_masks(6).any()
    with rasterio.open(f'ZARR:"{cube}":/available_days') as raster:
        assert raster.nodata == 2**31
        assert (raster.read(1) == 2**31).all()
    with rasterio.open(f'ZARR:"{cube}":/priority_score') as raster:
        assert np.isnan(raster.read(1)).all()


def test_gdal_reads_what_was_written_at_its_place(tmp_path: Path) -> None:
    cube = make_cube(tmp_path / "coverage.zarr", cube_spec())
    counts = np.zeros(GRID.shape, np.int16)
    counts[9, 18] = 7  # 0..10 N, 0..10 E
    write_partition(cube, "landsat-8-9", FEBRUARY, known_fields(scenes_count=counts), gap=False)
    with rasterio.open(f'ZARR:"{cube}":/scenes_count') as raster:
        bands = [b for b in range(1, 7) if raster.read(b).max() >= 0]
        assert len(bands) == 1
        assert int(raster.tags(bands[0])["DIM_time_VALUE"]) == (dt.date(2025, 2, 1) - dt.date(1970, 1, 1)).days
        assert next(iter(raster.sample([(5.0, 5.0)], bands[0])))[0] == 7
        assert raster.read(bands[0]).sum() == 7


def test_rioxarray_finds_the_crs(cube: Path) -> None:
    for ds in (open_coverage(cube), xr.open_zarr(cube)):
        assert ds["scenes_count"].rio.crs.to_epsg() == 4326
        assert ds.rio.crs.to_epsg() == 4326
        assert ds["action"].rio.transform() == Affine(10, 0, -180, 0, 10, -90)


# --- the schema of design section 5 ---------------------------------------------------------------------------------

INT, FLOAT, MASK = ("int16", -1), ("float32", math.nan), ("uint32", 2**31)
ON_DISK: dict[str, tuple[tuple[str, ...], str, Any]] = {
    **dict.fromkeys(("scenes_count", "cloud_free_scene_count", "cloud_unknown_scene_count", "held_count"), (CELLS, *INT)),
    **dict.fromkeys(("held_clear_count", "unmet_supply", "deficit"), (CELLS, *INT)),
    **dict.fromkeys(("mean_scene_cloud_pct", "days_since_last_held", "priority_score"), (CELLS, *FLOAT)),
    **dict.fromkeys(("available_days", "clear_days", "held_days", "held_clear_days"), (CELLS, *MASK)),
    **dict.fromkeys(("ingestable_days", "check_days"), (CELLS, *MASK)),
    "action": (CELLS, "uint8", 0),
    "in_scope": (("sensor", "lat", "lon"), "int8", 0),
    "taskable": (("sensor",), "int8", 0),
    "desired": (("sensor", "time"), *FLOAT),
    "scan_status": (("sensor", "time"), "uint8", 0),
    "holdings_status": (("sensor", "time"), "uint8", 0),
    "scenes_total": (("sensor", "time"), "int64", -1),
    "held_not_in_catalog": (("sensor", "time"), "int64", -1),
    "scanned_at": (("sensor", "time"), "int64", -1),
    "provider": (("sensor", "time"), "string", ""),
    "revision": (("sensor", "time"), "uint64", 0),
    "gap_revision": (("sensor", "time"), "uint64", 0),
}


def test_every_array_is_as_the_schema_says(tmp_path: Path) -> None:
    cube = make_cube(tmp_path / "coverage.zarr", cube_spec(grid=GridSpec(0.25)))
    group = zarr.open_group(cube, mode="r")
    assert set(group.array_keys()) == {*ON_DISK, "sensor", "time", "lat", "lon", "spatial_ref"}
    chunk = {"sensor": 1, "time": 1, "lat": 450, "lon": 450}
    for name, (dims, dtype, fill) in ON_DISK.items():
        array = group[name]
        metadata = array.metadata.to_dict()
        assert metadata["dimension_names"] == dims, name
        assert metadata["data_type"] == dtype, name
        assert array.fill_value == fill or (np.isnan(array.fill_value) and np.isnan(fill)), name
        assert array.chunks == tuple(chunk[d] for d in dims), name
        assert array.shards is None
        codecs = [codec["name"] for codec in metadata["codecs"]]
        assert ("zstd" in codecs) or "lat" not in dims, name
        # Masks and flags would turn into floats in a masking reader.
        assert array.attrs.get("_FillValue") == (fill if dtype in ("int16", "int64") else None), name
        assert array.attrs["long_name"]
        assert ("units" in array.attrs) == (name not in ("action", "scan_status", "holdings_status", "provider")), name
        assert (array.attrs.get("grid_mapping") == "spatial_ref") == ("lat" in dims), name
        assert array.attrs.get("cell_methods") == ("time: sum" if dtype == "int16" else array.attrs.get("cell_methods"))
    assert group["scenes_count"].attrs["units"] == "1"
    assert group["mean_scene_cloud_pct"].attrs["units"] == "percent"
    assert group["days_since_last_held"].attrs["units"] == "days"


def test_flags_carry_their_values_and_meanings(cube: Path) -> None:
    group = zarr.open_group(cube, mode="r")
    meanings = {
        "action": "unknown met ingest check task none out_of_scope",
        "scan_status": "not_scanned partial provisional complete not_applicable",
        "holdings_status": "not_read read off not_held",
    }
    for name, words in meanings.items():
        assert group[name].attrs["flag_meanings"] == words
        assert group[name].attrs["flag_values"] == list(range(len(words.split())))
        assert open_coverage(cube)[name].attrs["flag_meanings"] == words


def test_axes_and_attributes(cube: Path) -> None:
    group = zarr.open_group(cube, mode="r")
    assert group.metadata.zarr_format == 3
    assert group.attrs["Conventions"] == "CF-1.11"
    assert group["sensor"].metadata.to_dict()["data_type"] == "string"
    assert (group["time"].attrs["units"], group["time"].attrs["calendar"]) == ("days since 1970-01-01", "proleptic_gregorian")
    assert "WGS 84" in group["spatial_ref"].attrs["crs_wkt"]
    settings = json.loads(group.attrs["settings"])
    assert (settings["cloud_lt"], settings["lookback_months"], settings["area"]) == (10, 24, "everywhere")
    ds = xr.open_zarr(cube)
    assert ds["time"].values.astype("datetime64[D]").astype(str).tolist() == ["2025-01-01", "2025-02-01", "2025-03-01"]
    assert ds["sensor"].values.tolist() == ["emit", "landsat-8-9"]
    assert np.array_equal(ds["lat"], GRID.lats)
    assert np.array_equal(ds["lon"], GRID.lons)
    assert (ds["lat"].attrs["units"], ds["lon"].attrs["units"]) == ("degrees_north", "degrees_east")
    assert ds["taskable"].values.tolist() == [1, 0]
    assert (ds["in_scope"] == 1).all()
    assert "spatial_ref" in ds.coords


def test_a_note_is_kept_and_can_be_added(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "c.zarr", cube_spec(note="simulated"))
    assert open_coverage(path).attrs["comment"] == "simulated"
    make_cube(path, cube_spec(note="half simulated"))
    assert open_coverage(path).attrs["comment"] == "half simulated"


def test_very_long_sensor_keys_are_not_cut(tmp_path: Path) -> None:
    # 64 letters are the limit, which file names set.
    long = replace(COVERAGE_SENSORS["emit"], key="a-sensor-" + "with-a-very-long-name-" * 2 + "0000-and-1")
    other = replace(long, key=long.key[:-1] + "2")
    path = make_cube(tmp_path / "c.zarr", cube_spec(["emit", long]))
    make_cube(path, cube_spec(["emit", long, other]))
    assert open_coverage(path)["sensor"].values.tolist() == ["emit", long.key, other.key]
    write_partition(path, other.key, JANUARY, known_fields(scenes_count=4), gap=False)
    ds = open_coverage(path)
    assert at(ds, other.key, JANUARY)["scenes_count"].max() == 4
    assert at(ds, long.key, JANUARY)["scenes_count"].isnull().all()


# --- writing and reading a partition --------------------------------------------------------------------------------


def test_what_is_written_is_what_is_read_and_nothing_else_changes(cube: Path) -> None:
    fields = random_fields(1)
    write_partition(cube, "landsat-8-9", FEBRUARY, fields, gap=False)
    ds = open_coverage(cube)
    there = at(ds, "landsat-8-9", FEBRUARY)
    for name, values in fields.items():
        expected = np.where(values < 0, np.nan, values) if name in COUNTS else values
        assert np.array_equal(there[name], expected, equal_nan=True), name
        others = ds[name].values[is_known(ds, name)]
        assert others.size == is_known(there, name).sum(), name
    assert SCAN_STATUS[int(there["scan_status"])] == "complete"
    assert HOLDINGS_STATUS[int(there["holdings_status"])] == "read"
    assert (float(there["scenes_total"]), str(there["provider"].values)) == (7, "stac.example.org")
    assert there["scanned_at"].values == np.datetime64(1_740_000_000, "s")


def test_a_partition_in_memory_is_the_one_in_the_cube(cube: Path) -> None:
    revision = write_partition(cube, "emit", MARCH, random_fields(2), gap=False, holdings="off")
    part, read_at = read_partition(cube, "emit", MARCH)
    assert read_at == revision != 0
    there = open_coverage(cube).sel(sensor=["emit"], time=[MARCH.to_datetime64()])
    for name in (*COVERAGE_VARIABLES, "scan_status", "holdings_status"):
        assert np.array_equal(part[name], there[name], equal_nan=True), name
        assert part[name].dtype == there[name].dtype, name
    assert np.array_equal(part["in_scope"], there["in_scope"])


def test_rewriting_replaces_and_never_adds(cube: Path) -> None:
    first = write_partition(cube, "emit", JANUARY, known_fields(scenes_count=5))
    second = write_partition(cube, "emit", JANUARY, known_fields(scenes_count=2))
    assert first != second
    ds = at(open_coverage(cube), "emit", JANUARY)
    assert (ds["scenes_count"] == 2).all()
    assert is_known(ds, "deficit").all()


def test_fields_that_do_not_fit_are_refused_before_anything_is_touched(cube: Path) -> None:
    write_partition(cube, "emit", JANUARY, known_fields(scenes_count=5))
    before = stored(cube)
    # Zarr would cast the NaN of a decoded count to 0, and repeat a single row over the globe.
    decoded = {**known_fields(), "scenes_count": np.full(GRID.shape, np.nan, np.float32)}
    with pytest.raises(CoverageError, match=r"scenes_count must be int16 of shape \(18, 36\), got float32"):
        write_coverage(cube, "emit", JANUARY, decoded, provenance())
    with pytest.raises(CoverageError, match=r"shape \(1, 36\)"):
        write_coverage(cube, "emit", JANUARY, {**known_fields(), "held_days": np.zeros((1, 36), np.uint32)}, provenance())
    fields, source = known_fields(), provenance()
    del fields["unmet_supply"], source["provider"]
    with pytest.raises(CoverageError, match=r"2025-01\|emit lacks unmet_supply, provider"):
        write_coverage(cube, "emit", JANUARY, fields, source)
    gap: dict[str, np.ndarray[Any, Any]] = {
        "deficit": np.zeros(GRID.shape),
        "priority_score": np.zeros(GRID.shape, np.float32),
        "action": np.zeros(GRID.shape, np.uint8),
    }
    with pytest.raises(CoverageError, match="deficit must be int16"):
        write_gap(cube, "emit", JANUARY, gap, desired=2, made_from=1)
    assert same(stored(cube), before)
    assert is_known(at(open_coverage(cube), "emit", JANUARY), "deficit").all()


@pytest.mark.parametrize(("sensor", "month"), [("prisma", JANUARY), ("emit", Month(2024, 12)), ("emit", Month(2025, 4))])
def test_a_partition_without_a_place_is_refused(cube: Path, sensor: str, month: Month) -> None:
    with pytest.raises(CoverageError, match=f"no place for {sensor} {month}: make it with ensure_cube first"):
        write_coverage(cube, sensor, month, known_fields(), provenance())


def test_what_is_not_there_cannot_be_read(cube: Path, tmp_path: Path) -> None:
    with pytest.raises(CoverageError, match=r"2025-01\|emit of .* is not written; materialise coverage first"):
        read_partition(cube, "emit", JANUARY)
    for read in (open_coverage, lambda p: read_partition(p, "emit", JANUARY)):
        with pytest.raises(CoverageError, match="no coverage cube at"):
            read(tmp_path / "nothing.zarr")


# --- the revision protocol ------------------------------------------------------------------------------------------


def set_revision(cube: Path, name: str, sensor: int, month: int, value: int) -> None:
    zarr.open_group(cube, mode="r+")[name][sensor, month] = np.uint64(value)


def test_revision_zero_reads_as_not_known(cube: Path) -> None:
    for month in QUARTER:
        write_partition(cube, "emit", month, known_fields(scenes_count=3))
    set_revision(cube, "revision", 0, 1, 0)
    ds = open_coverage(cube)
    for name in (*COVERAGE_VARIABLES, *GAP_VARIABLES):
        if name != "mean_scene_cloud_pct":
            assert is_known(at(ds, "emit", JANUARY), name).all(), name
        assert not is_known(at(ds, "emit", FEBRUARY), name).any(), name
    hidden = at(ds, "emit", FEBRUARY)
    assert (int(hidden["scan_status"]), int(hidden["holdings_status"])) == (0, 0)
    assert np.isnan(hidden["scenes_total"])
    assert np.isnan(hidden["desired"])
    assert np.isnat(hidden["scanned_at"].values)
    assert str(hidden["provider"].values) == ""
    assert ds["available_days"].dtype == np.uint32
    assert ds["action"].dtype == np.uint8
    assert ds["scenes_count"].chunks is not None  # still lazy
    assert ds["scenes_count"].attrs["grid_mapping"] == "spatial_ref"
    assert ds["scenes_count"].dims == CELLS


def test_a_gap_made_from_another_revision_is_not_known_but_its_coverage_is(cube: Path) -> None:
    write_partition(cube, "emit", JANUARY, known_fields(scenes_count=3))
    write_partition(cube, "emit", FEBRUARY, known_fields(scenes_count=3))
    write_partition(cube, "emit", JANUARY, known_fields(scenes_count=4), gap=False)
    ds = open_coverage(cube)
    assert (at(ds, "emit", JANUARY)["scenes_count"] == 4).all()
    for name in GAP_VARIABLES:
        assert not is_known(at(ds, "emit", JANUARY), name).any(), name
        assert is_known(at(ds, "emit", FEBRUARY), name).all(), name
    make_gap(cube, "emit", JANUARY)
    assert is_known(at(open_coverage(cube), "emit", JANUARY), "deficit").all()


def test_a_gap_computed_before_its_coverage_moved_does_not_show(cube: Path) -> None:
    old = write_partition(cube, "emit", JANUARY, gap=False)
    part, _ = read_partition(cube, "emit", JANUARY)
    made = compute_gap(part, DesiredCadence())
    write_partition(cube, "emit", JANUARY, known_fields(held_clear_days=7), gap=False)
    fields = {name: made[name].values[0, 0] for name in GAP_VARIABLES}
    fields["deficit"] = fields["deficit"].astype(np.int16)
    write_gap(cube, "emit", JANUARY, fields, desired=2, made_from=old)
    assert not is_known(at(open_coverage(cube), "emit", JANUARY), "deficit").any()


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Everything that changes the cube counts as a step; the writer is gone when it reaches that one."""
    done = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if done[0] == step:
                raise Killed
            done[0] += 1
            return function(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        for owner, name in (
            (zarr.Array, "__setitem__"),
            (zarr.Array, "resize"),
            (zarr.Group, "create_array"),
            (Attributes, "__setitem__"),
            (Attributes, "update"),
            (zarr, "consolidate_metadata"),
            (Path, "rename"),
        ):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        yield done


def steps_of(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    with killed_at(-1, monkeypatch) as done:
        work()
    return done[0]


def test_wherever_a_writer_ends_a_partition_is_whole_or_not_known(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = known_fields(scenes_count=1, held_days=1, unmet_supply=1), known_fields(scenes_count=2, held_days=2, unmet_supply=2)
    write_partition(cube, "emit", JANUARY, old)
    total = steps_of(lambda: write_coverage(cube, "emit", JANUARY, new, provenance()), monkeypatch)
    assert total > len(COVERAGE_VARIABLES)
    for step in [*range(4), *range(4, total - 3, 6), *range(total - 3, total)]:
        write_partition(cube, "emit", JANUARY, old, gap=False)
        with killed_at(step, monkeypatch), pytest.raises(Killed):
            write_coverage(cube, "emit", JANUARY, new, provenance(scan="partial"))
        ds = at(open_coverage(cube), "emit", JANUARY)
        if step == 0:  # not begun: the former one stays
            assert (ds["scenes_count"] == 1).all()
            continue
        for name in ("scenes_count", "held_days", "unmet_supply", "action"):
            assert not is_known(ds, name).any(), (step, name)
        assert int(ds["scan_status"]) == 0
        with pytest.raises(CoverageError, match="is not written"):
            read_partition(cube, "emit", JANUARY)
    write_partition(cube, "emit", JANUARY, new)
    healed = at(open_coverage(cube), "emit", JANUARY)
    assert (healed["held_days"] == 2).all()
    assert is_known(healed, "deficit").all()


def test_wherever_the_maker_of_a_cube_ends_the_next_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stored(make_cube(tmp_path / "whole.zarr"))
    total = steps_of(lambda: make_cube(tmp_path / "counted.zarr"), monkeypatch)
    for step in [*range(0, total - 8, 16), *range(total - 8, total, 2)]:
        path = tmp_path / f"{step}.zarr"
        with killed_at(step, monkeypatch), pytest.raises(Killed):
            make_cube(path)
        make_cube(path)
        assert same(stored(path), whole), step
        assert open_coverage(path)["in_scope"].values.all(), step
        assert not [p for p in tmp_path.iterdir() if "unfinished" in p.name]


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated")  # until the next one completes it
def test_wherever_growing_ends_the_next_one_completes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor without its scope would be out of scope everywhere: a wrong answer that looks right."""
    small = cube_spec(months=QUARTER[:2])
    big = cube_spec(["emit", "landsat-8-9", "prisma", "sentinel-2"], months_between(JANUARY, Month(2025, 4)))

    def start(name: str) -> Path:
        path = make_cube(tmp_path / name, small)
        write_partition(path, "emit", FEBRUARY, known_fields(scenes_count=3), gap=False)
        return path

    counted = start("counted.zarr")
    total = steps_of(lambda: make_cube(counted, big), monkeypatch)
    write_partition(counted, "emit", JANUARY, gap=False)
    whole = stored(counted)
    for step in [*range(0, total - 9, 20), *range(total - 9, total)]:
        path = start(f"{step}.zarr")
        with killed_at(step, monkeypatch), pytest.raises(Killed):
            make_cube(path, big)
        ds = open_coverage(path)  # readers go on meanwhile
        assert (at(ds, "emit", FEBRUARY)["scenes_count"] == 3).all()
        write_partition(path, "emit", JANUARY, gap=False)  # and so do writers of what has its place
        make_cube(path, big)
        assert same(stored(path), whole), step
        ds = open_coverage(path)
        assert ds["sensor"].values.tolist() == ["emit", "landsat-8-9", "prisma", "sentinel-2"], step
        assert ds.sizes["time"] == 4, step
        assert ds["in_scope"].values.all(), step
        assert ds["taskable"].values.tolist() == [1, 0, 1, 0], step


# --- other processes ------------------------------------------------------------------------------------------------

PROJECT = Path(__file__).resolve().parents[2]


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_writer_killed_by_the_system_leaves_not_known_and_the_next_heals(cube: Path) -> None:
    write_partition(cube, "emit", JANUARY, known_fields(scenes_count=1))
    child = python(
        """
        import os, signal, sys, zarr
        from tests.cubes import JANUARY, known_fields, write_partition
        write = zarr.Array.__setitem__
        def mortal(array, *args):
            write(array, *args)
            if array.basename == "held_count":
                os.kill(os.getpid(), signal.SIGKILL)
        zarr.Array.__setitem__ = mortal
        write_partition(sys.argv[1], "emit", JANUARY, known_fields(scenes_count=2))
        """,
        cube,
    )
    assert child.wait(60) == -signal.SIGKILL
    assert not is_known(at(open_coverage(cube), "emit", JANUARY), "scenes_count").any()
    make_cube(cube, cube_spec(["emit", "landsat-8-9", "prisma"]))  # its lock died with it
    write_partition(cube, "emit", JANUARY, known_fields(scenes_count=2))
    assert (at(open_coverage(cube), "emit", JANUARY)["scenes_count"] == 2).all()


def test_processes_that_make_and_write_one_cube_at_once_give_what_one_gives(tmp_path: Path) -> None:
    """Each grows the cube in its own way and writes its partitions, all begun at one instant."""
    script = """
        import sys, time
        from pathlib import Path
        from tests.cubes import QUARTER, cube_spec, make_cube, random_fields, write_partition
        path, number = Path(sys.argv[1]), int(sys.argv[2])
        sensors = [["emit"], ["emit", "landsat-8-9"], ["landsat-8-9"]][number]
        (path.parent / f"ready-{number}").touch()
        while not (path.parent / "go").exists():
            time.sleep(0.005)
        make_cube(path, cube_spec(sensors, QUARTER[: number + 1]))
        make_cube(path, cube_spec(["landsat-8-9", "emit"]))
        for seed, sensor in enumerate(("emit", "landsat-8-9")):
            write_partition(path, sensor, QUARTER[number], random_fields(10 * seed + number), provider=f"host-{number}" * 9)
    """
    path = tmp_path / "coverage.zarr"
    children = [python(script, path, number) for number in range(3)]
    while len(list(tmp_path.glob("ready-*"))) < 3:
        assert not [c.communicate() for c in children if c.poll()]
    (tmp_path / "go").touch()
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    alone = make_cube(tmp_path / "alone.zarr")
    for number in (2, 1, 0):
        for seed, sensor in enumerate(("emit", "landsat-8-9")):
            write_partition(alone, sensor, QUARTER[number], random_fields(10 * seed + number), provider=f"host-{number}" * 9)
    assert same(stored(path), stored(alone))
    assert is_known(open_coverage(path), "deficit").any(axis=(2, 3)).all()


def test_any_order_of_partitions_gives_the_same_cube(tmp_path: Path) -> None:
    parts = [(s, m) for s in ("emit", "landsat-8-9") for m in QUARTER]
    cubes = []
    for number, order in enumerate((parts, parts[::-1], [*parts[3:], *parts[:3], parts[1]])):
        path = make_cube(tmp_path / f"{number}.zarr")
        for sensor, month in order:
            write_partition(path, sensor, month, random_fields(parts.index((sensor, month))))
        update_snapshot(path)
        cubes.append(path)
    first, *others = (open_coverage(p).drop_vars(["revision", "gap_revision"]).load() for p in cubes)
    for other in others:
        xr.testing.assert_identical(first, other)


# --- growing --------------------------------------------------------------------------------------------------------


def chunk_files(path: Path) -> dict[Path, tuple[bytes, int]]:
    """Every data chunk with its content and the instant it was written; the coordinates' own chunks grow."""
    chunks = (p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")
    return {p.relative_to(path): (p.read_bytes(), p.stat().st_mtime_ns) for p in chunks if not {*CELLS} & {*p.relative_to(path).parts}}


def test_growing_appends_and_rewrites_no_chunk(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "c.zarr", cube_spec(grid=GridSpec(0.5)))
    for sensor, month in (("emit", JANUARY), ("landsat-8-9", MARCH)):
        write_partition(path, sensor, month, random_fields(month.month, GridSpec(0.5)))
    before, read_before = chunk_files(path), open_coverage(path).load()
    assert len(before) > 50
    # The registry's order is not the cube's: the coordinate decides.
    make_cube(path, cube_spec(["prisma", "landsat-8-9", "emit"], months_between(FEBRUARY, Month(2025, 6)), GridSpec(0.5)))
    after = chunk_files(path)
    assert {p: after[p] for p in before} == before
    assert {p.parts[2 if p.parts[0] == "overviews" else 0] for p in after.keys() - before.keys()} == {"in_scope", "taskable"}
    ds = open_coverage(path)
    assert ds["sensor"].values.tolist() == ["emit", "landsat-8-9", "prisma"]
    assert [Month.of(t).key for t in ds["time"].values] == [f"2025-0{m}" for m in range(1, 7)]
    for name in SCHEMA:
        old = ds[name].isel({d: slice(n) for d, n in (("sensor", 2), ("time", 3)) if d in ds[name].dims})
        assert np.array_equal(old, read_before[name], equal_nan=old.dtype.kind in "fM"), name
    new = ds.isel(time=slice(3, None))
    assert not any(is_known(new, name).any() for name in (*COVERAGE_VARIABLES, *GAP_VARIABLES))


def test_a_window_with_a_hole_behind_the_cube_fills_the_axis(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "c.zarr")
    make_cube(path, cube_spec(months=[Month(2025, 7)]))
    assert [Month.of(t).month for t in open_coverage(path)["time"].values] == [1, 2, 3, 4, 5, 6, 7]


def test_a_smaller_wish_changes_nothing_and_a_removed_sensor_stays_readable(cube: Path) -> None:
    write_partition(cube, "landsat-8-9", MARCH, known_fields(scenes_count=3))
    before, attributes = chunk_files(cube), (cube / "zarr.json").read_bytes()
    make_cube(cube, cube_spec(["emit"], [FEBRUARY]))
    assert chunk_files(cube) == before
    assert (cube / "zarr.json").read_bytes() == attributes
    query = CoverageQuery("available", "scenes_count", ["landsat-8-9"], dt.date(2025, 3, 1), dt.date(2025, 3, 31))
    assert (select(open_coverage(cube), query) == 3).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (cube_spec(months=[Month(2024, 12), *QUARTER]), r"starts in 2025-01; an earlier start \(2024-12\).*window\.start back"),
        (cube_spec(grid=GridSpec(5.0)), "grid = 10 degrees, rule touch, the settings now say 5 degrees"),
        (cube_spec(cloud_lt=20.0), r"cloud_lt = 10\.0, the settings now say 20\.0"),
        (cube_spec(lookback_months=12), r"holdings\.lookback_months = 24"),
        (cube_spec(match_tolerance_seconds=5.0), "match_tolerance_seconds = 60"),
    ],
)
def test_a_cube_made_for_something_else_is_refused_with_the_way_out(cube: Path, spec: CubeSpec, message: str) -> None:
    write_partition(cube, "emit", JANUARY)
    before = chunk_files(cube)
    with pytest.raises(CoverageMismatch, match=message) as error:
        ensure_cube(cube, spec, everywhere(spec.grid))
    assert "output.zarr" in str(error.value)
    assert chunk_files(cube) == before


def test_another_schema_version_is_refused(cube: Path) -> None:
    zarr.open_group(cube, mode="r+").attrs["schema_version"] = 99
    with pytest.raises(CoverageMismatch, match=r"schema version 99, this program writes 2: a newer coverage-planner made it.*output\.zarr"):
        make_cube(cube)


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter-1.txt").write_text("precious")
    with pytest.raises(CoverageMismatch, match=r"is not a coverage cube; name another in output\.zarr"):
        make_cube(folder)
    assert [p.name for p in folder.iterdir()] == ["chapter-1.txt"]
    other = tmp_path / "other.zarr"
    zarr.create_group(other).create_array("precious", shape=3, dtype="i4")[:] = 1
    with pytest.raises(CoverageMismatch, match="schema version None"):
        make_cube(other)
    assert (zarr.open_group(other, mode="r")["precious"][:] == 1).all()


def test_an_empty_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "c.zarr").mkdir()
    make_cube(tmp_path / "c.zarr")
    assert open_coverage(tmp_path / "c.zarr").sizes["time"] == 3


@pytest.mark.parametrize("place", ["file/coverage.zarr", "file/deeper/coverage.zarr", "file"])
def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CoverageError, match=r"cannot write the cube at .*output\.zarr \(COVERAGE_OUTPUT_ZARR\)"):
        make_cube(tmp_path / place)


# --- what a change of settings does to gaps -------------------------------------------------------------------------


def weights(deficit: float) -> dict[str, float]:
    return {"deficit": deficit, "staleness": 1 - deficit, "unmet": 0.0, "wait": 0.0}


@pytest.mark.parametrize("change", [{"weights": weights(0.7)}, {"area": "targets 0123"}])
def test_changed_weights_or_area_hide_every_gap_until_made_again(cube: Path, change: dict[str, Any]) -> None:
    for month in QUARTER:
        write_partition(cube, "emit", month)
    make_cube(cube, cube_spec(**change))
    ds = open_coverage(cube)
    assert is_known(ds.sel(sensor="emit"), "scenes_count").all()
    assert not any(is_known(ds, name).any() for name in GAP_VARIABLES)
    assert json.loads(ds.attrs["settings"])[next(iter(change))] == next(iter(change.values()))
    make_gap(cube, "emit", FEBRUARY)
    make_cube(cube, cube_spec(**change))  # no change now
    known = is_known(open_coverage(cube).sel(sensor="emit"), "deficit").all(axis=(1, 2))
    assert known.tolist() == [False, True, False]


def test_another_area_brings_every_sensor_its_new_scope_even_one_that_was_away(cube: Path) -> None:
    north = np.repeat(GRID.lats > 0, GRID.shape[1]).reshape(GRID.shape)
    ensure_cube(cube, cube_spec(["emit"], area="the north"), lambda _: north)
    ensure_cube(cube, cube_spec(["emit", "landsat-8-9"], area="the north"), lambda _: north)
    ds = open_coverage(cube)
    for sensor in ("emit", "landsat-8-9"):
        assert np.array_equal(ds["in_scope"].sel(sensor=sensor), north), sensor


def test_another_reach_brings_the_sensor_its_new_scope_and_hides_its_gap_only(cube: Path) -> None:
    for sensor in ("emit", "landsat-8-9"):
        write_partition(cube, sensor, JANUARY)
    south = np.repeat(GRID.lats < 0, GRID.shape[1]).reshape(GRID.shape)
    emit = replace(COVERAGE_SENSORS["emit"], reach=(-90.0, 0.0), taskable=False)
    ensure_cube(cube, cube_spec([emit, "landsat-8-9"]), lambda _: south)
    ds = open_coverage(cube)
    assert np.array_equal(ds["in_scope"].sel(sensor="emit"), south)
    assert ds["in_scope"].sel(sensor="landsat-8-9").values.all()
    assert ds["taskable"].values.tolist() == [0, 0]
    assert not is_known(at(ds, "emit", JANUARY), "deficit").any()
    assert is_known(at(ds, "landsat-8-9", JANUARY), "deficit").all()


# --- the snapshot ---------------------------------------------------------------------------------------------------


def seconds(day: str) -> int:
    return int(dt.datetime.fromisoformat(f"{day}T23:30:00+00:00").timestamp())


def test_the_snapshot_is_the_day_of_the_oldest_answer(cube: Path) -> None:
    assert update_snapshot(cube) == ""
    write_partition(cube, "emit", JANUARY, scanned_at=seconds("2025-05-02"), gap=False)
    assert update_snapshot(cube) == "2025-05-02"
    write_partition(cube, "emit", FEBRUARY, scanned_at=seconds("2025-04-30"), gap=False)
    write_partition(cube, "landsat-8-9", FEBRUARY, scan="not_applicable", scanned_at=-1, gap=False)
    assert update_snapshot(cube) == "2025-04-30"
    assert open_coverage(cube).attrs["catalog_snapshot"] == xr.open_zarr(cube).attrs["catalog_snapshot"] == "2025-04-30"
    write_partition(cube, "emit", FEBRUARY, scanned_at=seconds("2025-06-01"), gap=False)
    assert update_snapshot(cube) == "2025-05-02"


def test_the_specification_finds_its_functions_here() -> None:
    from coverage_pipeline.demand.gap import compute_gap
    from coverage_pipeline.pipeline.build import build_coverage_zarr

    assert build_coverage_zarr is build_coverage_zarr
    assert compute_gap is compute_gap
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = coverage.nothing
