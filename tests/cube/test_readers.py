"""Others read the cube: CF checker, xarray, rioxarray, GDAL, xdggs, pystac; and its levels and derived metrics, counted anew."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h3.api.basic_int as h3
import numpy as np
import pyarrow as pa
import pystac
import pytest
import rasterio
import rioxarray  # noqa: F401  # gives .rio
import shapely
import xarray as xr
import xdggs
import zarr
from compliance_checker.base import BaseCheck
from compliance_checker.runner import CheckSuite
from numpy.typing import NDArray
from rasterio.transform import Affine
from zarr.storage import LocalStore

from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.dataset import grid_of, open_coverage
from coverage_pipeline.cube.description import description_path, update_snapshot
from coverage_pipeline.cube.levels import levels, strip_rows
from coverage_pipeline.cube.schema import (
    ACTION_ORDER,
    ACTIONS,
    COVERAGE_VARIABLES,
    GAP_VARIABLES,
    KNOWN_SHARES,
    METRICS,
    SCHEMA,
    CoverageError,
    CoverageQuery,
)
from coverage_pipeline.cube.select import select
from coverage_pipeline.cube.write import write_coverage, write_gap
from coverage_pipeline.grid import celltable
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.grid.hexagons import hex_cells
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.statistics import known_area
from tests.cubes import (
    FEBRUARY,
    JANUARY,
    MARCH,
    QUARTER,
    cube_spec,
    known_fields,
    make_cube,
    provenance,
    random_fields,
    write_partition,
)

pytestmark = pytest.mark.slow

GLOBE = GridSpec(2.0)  # levels of 10 and 20 degrees
REGION = GridSpec(0.5, extent=(-9.8, 30.1, 40, 70))  # levels of 2.5 and 5 degrees
EUROPE = GridSpec(0.5, extent=(5.3, 44.9, 16.2, 56))  # 23 rows and columns, a prime number: no levels
TALL = GridSpec(0.1, extent=(0, -90, 20, 90))  # four strips
HEXES = GridSpec(h3_res=2)
BOTH = ["emit", "landsat-8-9"]

Fields = dict[str, NDArray[Any]]


def random_gap(seed: int, grid: GridSpec) -> Fields:
    """Every action somewhere, and deficits and scores of which some are not known."""
    rng = np.random.default_rng(seed)
    unknown = rng.random(grid.shape) < 0.3
    return {
        "deficit": np.where(unknown, -1, rng.integers(0, 9, grid.shape)).astype(np.int16),
        "priority_score": np.where(unknown, np.nan, rng.random(grid.shape)).astype(np.float32),
        "action": rng.integers(0, len(ACTIONS), grid.shape).astype(np.uint8),
    }


def a_third(grid: GridSpec) -> NDArray[np.bool_]:
    """A scope with holes: blocks wholly out of it, wholly in it and mixed."""
    scope = np.random.default_rng(7).random(grid.shape) < 0.3
    scope[: grid.shape[0] // 3] = False
    return scope


def filled(path: Path, grid: GridSpec) -> Path:
    """A cube where EMIT is known in parts for two months of three, and Landsat everywhere for all of them, gaps apart."""
    ensure_cube(path, cube_spec(grid=grid), lambda _: a_third(grid))
    for seed, month in enumerate((JANUARY, FEBRUARY)):
        revision = write_coverage(path, "emit", month, random_fields(seed, grid), provenance())
        write_gap(path, "emit", month, random_gap(seed, grid), desired=2, made_from=revision)
    for seed, month in enumerate(QUARTER, start=10):
        rng = np.random.default_rng(seed)
        days = rng.integers(0, 2**28, grid.shape, dtype=np.uint32) & rng.integers(0, 2**28, grid.shape, dtype=np.uint32)
        known = known_fields(grid, scenes_count=rng.integers(0, 9, grid.shape), available_days=days, held_clear_days=days >> 3)
        revision = write_coverage(path, "landsat-8-9", month, known, provenance())
        write_gap(path, "landsat-8-9", month, random_gap(seed, grid), desired=3, made_from=revision)
    update_snapshot(path)
    return path


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("globe") / "coverage.zarr", GLOBE)


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("region") / "coverage.zarr", REGION)


@pytest.fixture(scope="module")
def hexes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("hexes") / "coverage.zarr", HEXES)


@pytest.fixture(scope="module")
def any_cube(request: pytest.FixtureRequest) -> Path:
    """The cube of the fixture that the parameter names."""
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that are read of any Zarr on disk, whoever reads them through zarr-python."""
    keys: list[str] = []
    get, get_sync = LocalStore.get, LocalStore.get_sync

    async def recorded(self: LocalStore, key: str, *args: Any, **options: Any) -> Any:
        keys.append(key)
        return await get(self, key, *args, **options)

    def recorded_sync(self: LocalStore, key: str, *args: Any, **options: Any) -> Any:
        keys.append(key)
        return get_sync(self, key, *args, **options)

    monkeypatch.setattr(LocalStore, "get", recorded)
    monkeypatch.setattr(LocalStore, "get_sync", recorded_sync)
    return keys


def cell_chunks(keys: Sequence[str], lengths: Sequence[int] = (3, 4)) -> set[str]:
    """Of the keys, the chunks of variables with a value a cell: a number for sensor and month, and one or two for the cells."""
    chunks = (key.rsplit("/c/", 1) for key in keys if "/c/" in key)
    return {"/c/".join(chunk) for chunk in chunks if len(chunk[1].split("/")) in lengths}


def raw(path: Path, name: str, sensor: str = "emit", month: Month = JANUARY) -> NDArray[Any]:
    """Values as they stand on disk."""
    array = zarr.open_group(path, mode="r", use_consolidated=False)[name]
    at = BOTH.index(sensor)
    return np.asarray(array[at] if name.endswith("in_scope") else array[at, QUARTER.index(month)])


def query(metric: str, aggregation: Any = "rate", sensors: Sequence[str] = ("emit",), **changes: Any) -> CoverageQuery:
    window = {"t0": dt.date(2025, 1, 1), "t1": dt.date(2025, 3, 31)} | changes
    return CoverageQuery(METRICS[metric].layer, metric, list(sensors), aggregation=aggregation, **window)


# --- CF: the checker on a NetCDF excerpt ------------------------------------------------------------------------------

# What NetCDF has no word for. Zarr's conventions have names with colons, and describe arrays of the Zarr.
ONLY_IN_ZARR = re.compile(r"proj:|spatial:|zarr_conventions$|multiscales$")

# What the checker says of H3 cells, and what stays so.
OF_HEXAGONS = {
    r"spatio-temporal dimensions are not in the recommended order .*cells \([AU]\)": "cells are one horizontal dimension; "
    "the checker knows horizontal dimensions as Y and X only, and takes them for something to stand before time",
    r"long_name or/and standard_name is highly recommended for variable cell_ids": "xdggs takes any attribute beside "
    "grid_name and level for a parameter of the grid, and refuses it",
}


def excerpt(cube: Path, group: str | None, target: Path) -> Path:
    """One sensor and month of the cube, or of a level, as NetCDF: nothing decoded, so that attributes stay as they are."""
    ds = xr.open_zarr(cube, group=group, decode_cf=False).isel(sensor=[0], time=[0]).load()
    for name in [str(n) for n, variable in ds.variables.items() if variable.dtype.kind in "TO"]:
        ds[name] = ds[name].astype(object)  # strings of any length
    for variable in ds.variables.values():
        variable.encoding = {}
        if "flag_values" in variable.attrs:  # a number in JSON has no type
            variable.attrs["flag_values"] = np.array(variable.attrs["flag_values"], variable.dtype)
    # xarray would give every float a NaN for a fill, coordinates too, where CF forbids it
    encoding = {name: {"_FillValue": None} for name, variable in ds.variables.items() if "_FillValue" not in variable.attrs}
    ds.attrs = {name: value for name, value in ds.attrs.items() if not ONLY_IN_ZARR.match(str(name))}
    ds.to_netcdf(target, engine="netcdf4", encoding=encoding)
    return target


def findings(netcdf: Path) -> list[str]:
    """What the checker finds of medium or high priority."""

    def unmet(result: Any) -> Iterator[str]:
        scored = result.value if isinstance(result.value, tuple) else (int(bool(result.value)), 1)
        if scored[0] < scored[1] and result.weight >= BaseCheck.MEDIUM:
            yield from (f"{result.name}: {message}" for message in result.msgs or ["no message"])
        for child in result.children or []:
            yield from unmet(child)

    CheckSuite.load_all_available_checkers()
    suite = CheckSuite()
    dataset = suite.load_dataset(str(netcdf))
    try:
        results, errors = suite.run_all(dataset, ["cf:1.11"])["cf:1.11"]
    finally:
        dataset.close()
    assert not errors
    assert len(results) > 20
    return list(dict.fromkeys(found for result in results for found in unmet(result)))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker has its table of standard names with it; it must not look for another."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("looked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("any_cube", "group"),
    [("globe", None), ("globe", "overviews/5"), ("region", None), ("region", "overviews/10")],
    indirect=["any_cube"],
)
def test_the_cf_checker_finds_nothing_of_medium_or_high_priority(any_cube: Path, group: str | None, tmp_path: Path) -> None:
    assert findings(excerpt(any_cube, group, tmp_path / "excerpt.nc")) == []


@pytest.mark.usefixtures("no_network")
def test_the_cf_checker_finds_in_h3_cells_only_what_it_does_not_know(hexes: Path, tmp_path: Path) -> None:
    found = findings(excerpt(hexes, None, tmp_path / "excerpt.nc"))
    assert [finding for finding in found if not any(re.search(known, finding) for known in OF_HEXAGONS)] == []


@pytest.mark.usefixtures("no_network")
def test_the_cf_checker_would_notice(globe: Path, tmp_path: Path) -> None:
    ds = xr.open_dataset(excerpt(globe, None, tmp_path / "excerpt.nc"), decode_cf=False)
    ds["lat"].attrs["units"] = "metres"
    ds["scenes_count"].attrs["cell_methods"] = "month: added"
    ds.to_netcdf(tmp_path / "broken.nc")
    broken = " ".join(findings(tmp_path / "broken.nc"))
    assert "lat" in broken
    assert "cell_methods" in broken


def test_the_excerpt_holds_what_the_cube_holds(globe: Path, tmp_path: Path) -> None:
    with xr.open_dataset(excerpt(globe, None, tmp_path / "excerpt.nc"), decode_times=False) as netcdf:
        assert set(SCHEMA) <= set(netcdf.variables)
        assert np.array_equal(netcdf["available_days"][0, 0], raw(globe, "available_days"))
        assert netcdf["available_days"].dtype == np.uint32
        counts = raw(globe, "scenes_count")
        assert np.array_equal(netcdf["scenes_count"][0, 0], np.where(counts == -1, np.nan, counts), equal_nan=True)


def test_a_level_says_what_its_cells_are_of_months_and_of_area(globe: Path) -> None:
    root, level = (zarr.open_group(globe, mode="r", path=group) for group in ("", "overviews/5"))
    for name in sorted(set(level.array_keys()) & set(SCHEMA)):
        over_time = root[name].attrs.get("cell_methods")
        over_area = {"mean": "area: mean", "max": "area: maximum"}.get(how(name))
        expected = " ".join(method for method in (over_time, over_area) if method)
        assert level[name].attrs.get("cell_methods", "") == expected, name


# --- xarray ------------------------------------------------------------------------------------------------------------


def opened(path: Path, group: str | None = None, **options: Any) -> xr.Dataset:
    """As anyone opens it; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_zarr(path, group=group, **options)


@pytest.mark.parametrize("group", [None, "overviews/5", "overviews/10"])
@pytest.mark.parametrize("any_cube", ["globe", "region"], indirect=True)
def test_xarray_decodes_root_and_levels(any_cube: Path, group: str | None) -> None:
    ds = opened(any_cube, group)
    below = "" if group is None else f"{group}/"
    assert ds["time"].values.astype("datetime64[D]").astype(str).tolist() == ["2025-01-01", "2025-02-01", "2025-03-01"]
    assert ds["sensor"].values.tolist() == BOTH
    for name in (*COVERAGE_VARIABLES, *GAP_VARIABLES):
        values = ds[name].sel(sensor="emit", time="2025-01-01")
        stored = raw(any_cube, below + name)
        assert values.dims == ("lat", "lon")
        if SCHEMA[name].dtype == "uint32":
            assert values.dtype == np.uint32
            assert np.array_equal(values, stored)
        elif name == "action":
            assert values.dtype == np.uint8
            assert values.attrs["flag_meanings"].split() == list(ACTIONS)
            assert np.array_equal(values, stored)
        else:
            assert values.dtype == np.float32
            missing = stored == -1 if stored.dtype == np.int16 else np.isnan(stored)
            assert np.array_equal(np.isnan(values), missing), name
            assert np.array_equal(values.values[~missing], stored[~missing]), name
            # what was never written is not known, on levels too
            assert ds[name].sel(sensor="emit", time="2025-03-01").isnull().all()
        # an attribute, or moved to the encoding, as xarray is set
        assert (ds[name].attrs | ds[name].encoding)["grid_mapping"] == "spatial_ref"
    for name in ("in_scope",) if group else ("in_scope", "taskable"):
        assert ds[name].dtype == np.int8


@pytest.mark.parametrize("group", [None, "overviews/5", "overviews/10"])
def test_the_reference_system_is_a_coordinate_of_root_and_levels(globe: Path, group: str | None) -> None:
    assert {"sensor", "time", "lat", "lon", "spatial_ref"} == set(opened(globe, group).coords)


def test_cell_ids_are_a_coordinate(hexes: Path) -> None:
    assert "cell_ids" in opened(hexes).coords


def test_one_read_tells_xarray_of_all_arrays(globe: Path, reads: list[str]) -> None:
    opened(globe, consolidated=True)
    assert {key for key in reads if key.endswith(".json")} == {"zarr.json"}
    assert not cell_chunks(reads)


def test_root_and_levels_open_together_as_groups(globe: Path) -> None:
    """Not as a tree: there, the dimensions of a group must be those of the groups above it, and the root is the full resolution."""
    groups = xr.open_groups(globe, engine="zarr")
    assert {name: (group.sizes["lat"], group.sizes["lon"]) for name, group in groups.items() if "lat" in group.sizes} == {
        "/": (90, 180),
        "/overviews/5": (18, 36),
        "/overviews/10": (9, 18),
    }
    assert set(xr.open_datatree(globe, engine="zarr", group="overviews").children) == {"5", "10"}


# --- rioxarray ---------------------------------------------------------------------------------------------------------

BOUNDS = {"globe": (-180, -90, 180, 90), "region": (-10, 30, 40, 70)}
STEP = {"globe": 2.0, "region": 0.5}


@pytest.mark.parametrize("factor", [1, 5, 10])
@pytest.mark.parametrize("cube", ["globe", "region"])
def test_rioxarray_places_root_and_levels(cube: str, factor: int, request: pytest.FixtureRequest) -> None:
    ds = opened(request.getfixturevalue(cube), None if factor == 1 else f"overviews/{factor}")
    assert (
        ds["action"].rio.transform().almost_equals(Affine(STEP[cube] * factor, 0, BOUNDS[cube][0], 0, STEP[cube] * factor, BOUNDS[cube][1]))
    )
    assert ds["scenes_count"].rio.bounds() == pytest.approx(BOUNDS[cube])
    assert ds["scenes_count"].rio.crs is not None
    assert ds["scenes_count"].rio.crs.to_epsg() == 4326
    assert ds.rio.crs.to_epsg() == 4326


# --- GDAL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 5, 10])
@pytest.mark.parametrize("cube", ["globe", "region"])
def test_gdal_reads_root_and_levels(cube: str, factor: int, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(cube)
    below = "" if factor == 1 else f"overviews/{factor}/"
    west, south, east, north = BOUNDS[cube]
    step = STEP[cube] * factor
    nodata = {
        "scenes_count": -1 if factor == 1 else np.nan,  # a count on a level is a mean
        "available_days": 2**31,
        "deficit": -1,
        "priority_score": np.nan,
    }
    for name, missing in nodata.items():
        with rasterio.open(f'ZARR:"{path}":/{below}{name}') as raster:
            assert raster.nodata == pytest.approx(missing, nan_ok=True)
            assert raster.crs.to_epsg() == 4326
            assert raster.count == 6  # sensor x month
            # the first row is the southernmost
            assert raster.transform.almost_equals(Affine(step, 0, west, 0, step, south))
            assert raster.bounds == pytest.approx((west, north, east, south))
            assert raster.shape == (round((north - south) / step), round((east - west) / step))
            expected = raw(path, below + name, "emit", FEBRUARY)
            assert raster.tags(2)["DIM_time_VALUE"] == str((dt.date(2025, 2, 1) - dt.date(1970, 1, 1)).days)
            assert np.array_equal(raster.read(2), expected, equal_nan=expected.dtype.kind == "f")
            unknown = np.isnan(expected) if expected.dtype.kind == "f" else expected == missing
            assert np.array_equal(raster.read_masks(2) == 0, unknown)
            # a place in degrees is the cell there
            lon, lat = west + 3.25 * step, south + 5.75 * step
            assert np.array_equal(next(iter(raster.sample([(lon, lat)], 2)))[0], expected[5, 3], equal_nan=expected.dtype.kind == "f")


def test_gdal_finds_the_arrays_of_root_and_levels_by_itself(globe: Path) -> None:
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(f'ZARR:"{globe}"') as whole:
        found = {name.rsplit(":", 1)[1] for name in whole.subdatasets}
    assert {f"/{below}{name}" for below in ("", "overviews/5/", "overviews/10/") for name in ("scenes_count", "action")} <= found


# --- xdggs -------------------------------------------------------------------------------------------------------------


def assert_on_the_globe(ds: Any, ids: NDArray[Any]) -> None:
    """That xdggs knows the cells of a dataset, and puts them where the grid has them."""
    decoded = xdggs.decode(ds)
    assert np.array_equal(decoded["cell_ids"], ids)
    centres = decoded.dggs.cell_centers()
    place = np.searchsorted(HEXES.cell_ids, ids)
    np.testing.assert_allclose(centres["latitude"], HEXES.lats[place], rtol=0, atol=1e-9)
    np.testing.assert_allclose((centres["longitude"] - HEXES.lons[place] + 180) % 360 - 180, 0, rtol=0, atol=1e-9)


def test_xdggs_decodes_the_cube_unaided(hexes: Path) -> None:
    for ds in (opened(hexes), open_coverage(hexes)):
        assert ds["scenes_count"].dims == ("sensor", "time", "cells")
        assert_on_the_globe(ds, HEXES.cell_ids)
        decoded = xdggs.decode(ds)
        paris = h3.latlng_to_cell(48.85, 2.35, 2)
        one = decoded["available_days"].sel(cell_ids=paris, sensor="emit", time="2025-01-01")
        assert int(one) == raw(hexes, "available_days")[np.searchsorted(HEXES.cell_ids, paris)]


BOXES = {
    "europe": (-5.0, 40.0, 12.0, 51.0),
    "antimeridian": (170.0, -20.0, -165.0, 5.0),
    "north pole": (-180.0, 84.0, 180.0, 90.0),
    "south pole, a sector": (20.0, -90.0, 70.0, -83.0),
    "within one cell": (2.3, 48.8, 2.4, 48.9),
}


def touched_by(box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    west, south, east, north = box
    halves = [box] if west <= east else [(west, south, 180.0, north), (-180.0, south, east, north)]
    return np.logical_or.reduce([shapely.area(shapely.intersection(hex_cells(2).polygons, shapely.box(*half))) > 0 for half in halves])


@pytest.mark.parametrize("name", BOXES)
def test_a_box_takes_the_h3_cells_it_touches_and_xdggs_decodes_them(name: str, hexes: Path) -> None:
    box = BOXES[name]
    expected = touched_by(box)
    for metric, aggregation in (("scenes_count", "rate"), ("action", "worst"), ("longest_wait", "worst")):
        result = select(open_coverage(hexes), query(metric, aggregation, BOTH, bbox=box))
        whole = select(open_coverage(hexes), query(metric, aggregation, BOTH))
        assert result.dims == ("cells",)
        assert np.array_equal(result["cell_ids"], HEXES.cell_ids[expected])
        assert np.array_equal(result, whole.values[expected], equal_nan=True)
        assert np.array_equal(result["known_months"], whole["known_months"].values[expected])
        assert_on_the_globe(result, HEXES.cell_ids[expected])
        assert_on_the_globe(result.to_dataset(), HEXES.cell_ids[expected])


def test_boxes_at_the_edges_of_the_map_take_the_cells_h3_has_there(hexes: Path) -> None:
    """H3's own answer, for places where polygons in the plane of the map are easily wrong."""
    places = {
        "antimeridian": [(0, 179.99), (0, -179.99), (-15, 180)],
        "north pole": [(90, 0), (89, 120)],
        "south pole, a sector": [(-88, 45)],
    }
    for name, coordinates in places.items():
        found = select(open_coverage(hexes), query("scenes_count", bbox=BOXES[name]))["cell_ids"].values
        assert {h3.latlng_to_cell(lat, lon, 2) for lat, lon in coordinates} <= {int(cell) for cell in found}


def test_h3_cells_answer_themselves_whatever_the_resolution(hexes: Path) -> None:
    ds = open_coverage(hexes)
    q = query("scenes_count", "scrub", BOTH)
    coarse = select(ds, q, resolution=30.0)
    assert coarse.dims == ("time", "cells")
    assert "known_share" not in coarse.coords
    xr.testing.assert_identical(coarse.load(), select(ds, q).load())
    assert_on_the_globe(coarse, HEXES.cell_ids)
    expected = sum(np.where((counts := raw(hexes, "scenes_count", s)) < 0, np.nan, counts) for s in BOTH)
    assert np.array_equal(coarse[0], expected, equal_nan=True)


# --- a region ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def europe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("europe") / "coverage.zarr", EUROPE)


def test_a_region_is_widened_to_whole_cells() -> None:
    assert EUROPE.extent == (5.0, 44.5, 16.5, 56.0)
    assert EUROPE.shape == (23, 23)
    assert (EUROPE.lats[0], EUROPE.lats[-1], EUROPE.lons[0], EUROPE.lons[-1]) == (44.75, 55.75, 5.25, 16.25)
    assert levels(EUROPE) == []


def test_the_grid_comes_back_from_the_cube_and_from_parts_of_it(europe: Path, region: Path, hexes: Path) -> None:
    for path, grid in ((europe, EUROPE), (region, REGION)):
        for ds in (open_coverage(path), opened(path)):
            assert grid_of(ds) == grid
            assert grid_of(ds.isel(lat=slice(3, 9), lon=[4], sensor=[0])) == grid
            assert grid_of(ds[["scenes_count"]]) == grid
            assert np.array_equal(ds["lat"], grid.lats)
            assert np.array_equal(ds["lon"], grid.lons)
    assert grid_of(open_coverage(hexes)) == HEXES
    assert grid_of(opened(hexes).isel(cells=slice(0, 5))) == HEXES


def test_a_box_partly_outside_the_region_takes_what_is_inside(europe: Path) -> None:
    ds = open_coverage(europe)
    for part in (ds, ds.compute()):
        result = select(part, query("scenes_count", "scrub", bbox=(-20.0, 50.2, 6.6, 80.0)))
        assert result["lon"].values.tolist() == [5.25, 5.75, 6.25, 6.75]
        assert result["lat"].values.tolist() == EUROPE.lats[11:].tolist()
        counts = raw(europe, "scenes_count")[11:, :4]
        assert np.array_equal(result[0], np.where(counts == -1, np.nan, counts), equal_nan=True)
        # around the back of the globe: only the western end of the region
        behind = select(part, query("scenes_count", bbox=(170.0, 0.0, 5.4, 90.0)))
        assert behind["lon"].values.tolist() == [5.25]


@pytest.mark.parametrize("box", [(20.0, 45.0, 30.0, 50.0), (6.0, -10.0, 8.0, 44.5), (170.0, 45.0, -170.0, 50.0), (16.5, 44.5, 17.0, 56.0)])
def test_a_box_outside_the_region_is_refused(box: tuple[float, float, float, float], europe: Path) -> None:
    with pytest.raises(CoverageError, match="holds no cell of the dataset"):
        select(open_coverage(europe), query("scenes_count", bbox=box))


def test_a_box_means_the_same_place_on_a_level(region: Path) -> None:
    ds = open_coverage(region)
    result = select(ds, query("scenes_count", bbox=(-90.0, 33.0, -1.0, 36.0)), resolution=5.0)
    assert result["lon"].values.tolist() == [-7.5, -2.5]
    assert result["lat"].values.tolist() == [32.5, 37.5]
    # up to an edge and no further
    assert select(ds, query("scenes_count", bbox=(-5.0, 30.0, 0.0, 35.0)), resolution=5.0).shape == (1, 1)
    with pytest.raises(CoverageError, match="holds no cell of the dataset"):
        select(ds, query("scenes_count", bbox=(50.0, 30.0, 60.0, 40.0)), resolution=5.0)


def test_a_box_across_the_antimeridian_goes_from_west_to_east_on_a_level(globe: Path) -> None:
    result = select(open_coverage(globe), query("scenes_count", "scrub", bbox=(165.0, 0.0, -175.0, 10.0)), resolution=10.0)
    assert result["lon"].values.tolist() == [165, 175, -175]
    assert np.array_equal(result[0], raw(globe, "overviews/5/scenes_count")[9:10, [34, 35, 0]], equal_nan=True)


@pytest.mark.parametrize("grid", [EUROPE, REGION], ids=["europe", "region"])
@pytest.mark.parametrize("status", ["complete", "partial", "not_scanned"])
@pytest.mark.parametrize("bbox", [None, (6.0, 45.1, 12.0, 52.0)])
def test_rows_of_a_cell_table_are_the_rows_of_its_field(grid: GridSpec, status: str, bbox: Any) -> None:
    rng = np.random.default_rng(3)
    cells = np.sort(rng.choice(np.prod(grid.shape), 150, replace=False)).astype(np.int64)
    columns = {field.name: rng.integers(1, 90, 150) for field in celltable.CELL_SCHEMA} | {"cell": cells}
    table = pa.table(columns).cast(celltable.CELL_SCHEMA)
    known = known_area(status, bbox, grid)
    inside = np.ones(grid.shape, bool)
    if bbox is not None:
        # cells that the box holds with all of their area
        lats, lons = np.meshgrid(grid.lats, grid.lons, indexing="ij")
        inside = (lats - 0.25 >= bbox[1]) & (lats + 0.25 <= bbox[3]) & (lons - 0.25 >= bbox[0]) & (lons + 0.25 <= bbox[2])
    for column, kind, unknown in (("scenes", celltable.COUNT, -1), ("clear_days", celltable.DAYS, 2**31)):
        expected = np.full(grid.shape, unknown, np.int64)
        if status == "complete":
            expected[inside] = 0
        if status != "not_scanned":
            found = np.zeros(grid.shape, bool)
            found.reshape(-1)[cells] = True
            expected[found & inside] = table[column].to_numpy()[inside.reshape(-1)[cells]]
        whole = celltable.dense(table, column, grid, kind, known)
        assert np.array_equal(whole, expected)
        for rows in ((0, 7), (7, 8), (8, grid.shape[0])):
            low, high = (row * grid.shape[1] for row in rows)
            part = table.filter(pa.array((cells >= low) & (cells < high)))
            assert np.array_equal(celltable.dense(part, column, grid, kind, known, rows), expected[slice(*rows)])


# --- levels ------------------------------------------------------------------------------------------------------------


def how(name: str) -> str:
    """How a block of cells becomes one, as the specification of the levels says."""
    if name in ("deficit", "priority_score", "in_scope"):
        return "max"
    if name == "action":
        return "urgent"
    return "or" if name.endswith("_days") else "mean"


def known_cells(values: NDArray[Any], name: str) -> NDArray[np.bool_]:
    if values.dtype == np.uint32:
        return values < 2**31
    if values.dtype.kind == "f":
        return ~np.isnan(values)
    return values != -1 if name != "in_scope" else np.ones(values.shape, bool)


def blocks(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """Cells of each block along the last axis."""
    rows, columns = values.shape[0] // factor, values.shape[1] // factor
    return values.reshape(rows, factor, columns, factor).swapaxes(1, 2).reshape(rows, columns, factor * factor)


def areas(grid: GridSpec) -> NDArray[np.float64]:
    """Area of each cell on the sphere, up to a constant: of a strip between two parallels."""
    half = grid.resolution / 2
    rows = np.sin(np.radians(grid.lats + half)) - np.sin(np.radians(grid.lats - half))
    return np.broadcast_to(rows[:, None], grid.shape)


def level_of(values: NDArray[Any], name: str, grid: GridSpec, factor: int) -> NDArray[Any]:
    """What a level should hold of a field at full resolution."""
    cells, known, area = blocks(values, factor), blocks(known_cells(values, name), factor), blocks(areas(grid), factor)
    some = known.any(-1)
    match how(name):
        case "mean":
            weight = (area * known).sum(-1)
            total = (np.where(known, cells, 0).astype(np.float64) * area).sum(-1)
            return np.divide(total, weight, out=np.full(some.shape, np.nan), where=some)
        case "max":
            missing = np.nan if cells.dtype.kind == "f" else -1
            return np.where(some, np.where(known, cells, -2).max(-1), missing)
        case "or":
            return np.where(some, np.bitwise_or.reduce(np.where(known, cells, 0), axis=-1), 2**31)
    urgency = np.array([ACTION_ORDER.index(action) for action in ACTIONS])
    return np.array([ACTIONS.index(action) for action in ACTION_ORDER])[urgency[cells].min(-1)]


def share_of(values: NDArray[Any], name: str, grid: GridSpec, factor: int) -> NDArray[np.float64]:
    area = blocks(areas(grid), factor)
    share: NDArray[np.float64] = (area * blocks(known_cells(values, name), factor)).sum(-1) / area.sum(-1)
    return share


def check_levels(path: Path, grid: GridSpec, sensor: str, month: Month) -> None:
    names = {*COVERAGE_VARIABLES, *GAP_VARIABLES, "in_scope"}
    for level in levels(grid):
        there = set(zarr.open_group(path, mode="r", path=level.group).array_keys())
        assert there == names | {*KNOWN_SHARES, "sensor", "time", "lat", "lon", "spatial_ref"}
        for name in sorted(names):
            found = raw(path, f"{level.group}/{name}", sensor, month)
            expected = level_of(raw(path, name, sensor, month), name, grid, level.factor)
            assert found.shape == level.shape
            if how(name) == "mean":
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=name)
            else:
                assert found.dtype == SCHEMA[name].dtype
                assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"), name
        of = {"available_known": "scenes_count", "held_known": "held_count", "unmet_known": "unmet_supply", "gap_known": "deficit"}
        for share, name in of.items():
            expected = share_of(raw(path, name, sensor, month), name, grid, level.factor)
            np.testing.assert_allclose(raw(path, f"{level.group}/{share}", sensor, month), expected, rtol=1e-6, err_msg=share)


@pytest.mark.parametrize(("any_cube", "grid"), [("globe", GLOBE), ("region", REGION)], indirect=["any_cube"])
def test_levels_are_what_the_cells_come_to(any_cube: Path, grid: GridSpec) -> None:
    assert [level.factor for level in levels(grid)] == [5, 10]
    for sensor in BOTH:
        check_levels(any_cube, grid, sensor, FEBRUARY)
    ds = opened(any_cube, "overviews/10")
    west, south, east, north = grid.extent or (-180, -90, 180, 90)
    step = grid.resolution * 10
    np.testing.assert_allclose(ds["lat"], np.arange(south + step / 2, north, step), atol=1e-12)
    np.testing.assert_allclose(ds["lon"], np.arange(west + step / 2, east, step), atol=1e-12)


def in_strips(fields: Fields, grid: GridSpec, height: int) -> Iterator[tuple[tuple[int, int], Fields]]:
    for first in range(0, grid.shape[0], height):
        rows = first, min(first + height, grid.shape[0])
        yield rows, {name: values[slice(*rows)] for name, values in fields.items()}


def test_strips_make_the_partition_that_one_piece_makes(tmp_path: Path) -> None:
    grid, height = TALL, strip_rows(TALL)
    assert grid.shape[0] // height == 4
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(months=[JANUARY], grid=grid))
    fields, gap = random_fields(5, grid), random_gap(5, grid)
    for sensor, pieces in (("emit", lambda f: f), ("landsat-8-9", lambda f: in_strips(f, grid, height))):
        revision = write_coverage(path, sensor, JANUARY, pieces(fields), provenance())
        write_gap(path, sensor, JANUARY, pieces(gap), desired=2, made_from=revision)
    for name in ("", *(f"{level.group}/" for level in levels(grid))):
        for variable in (*COVERAGE_VARIABLES, *GAP_VARIABLES, *(KNOWN_SHARES if name else ())):
            whole, strips = (raw(path, name + variable, sensor) for sensor in BOTH)
            assert np.array_equal(whole, strips, equal_nan=whole.dtype.kind == "f"), name + variable
    check_levels(path, grid, "landsat-8-9", JANUARY)


def test_a_partition_of_which_a_strip_is_missing_is_not_whole(tmp_path: Path) -> None:
    """A region is whole or not known: rows that no piece brought would be those of the writing before."""
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(["emit"], [JANUARY], TALL))
    write_coverage(path, "emit", JANUARY, known_fields(TALL, scenes_count=1), provenance())
    pieces = list(in_strips(known_fields(TALL, scenes_count=2), TALL, strip_rows(TALL)))
    with pytest.raises(CoverageError):
        write_coverage(path, "emit", JANUARY, pieces[:-1], provenance())
    assert open_coverage(path)["scenes_count"].isnull().all()


def test_a_strip_that_cuts_blocks_is_refused_in_words(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(["emit"], [JANUARY], GLOBE))
    with pytest.raises(CoverageError):
        write_coverage(path, "emit", JANUARY, in_strips(known_fields(GLOBE), GLOBE, 7), provenance())


@pytest.mark.parametrize(
    ("resolution", "step"),
    [(None, 2), (1.0, 2), (9.99, 2), (10.0, 10), (19.9, 10), (20.0, 20), (90.0, 20)],
)
def test_the_coarsest_level_not_coarser_than_asked_answers(globe: Path, resolution: float | None, step: float) -> None:
    result = select(open_coverage(globe), query("scenes_count"), resolution=resolution)
    assert result.sizes == {"lat": 180 // step, "lon": 360 // step}
    np.testing.assert_allclose(np.diff(result["lat"]), step)
    assert ("known_share" in result.coords) == (step > 2)


def test_a_part_of_the_cube_and_a_derived_metric_answer_by_their_cells(globe: Path) -> None:
    ds = open_coverage(globe)
    derived = [name for name, metric in METRICS.items() if metric.mask]
    assert len(derived) == 6
    for name in derived:
        result = select(ds, query(name, METRICS[name].default, BOTH), resolution=20.0)
        assert result.shape == GLOBE.shape
        assert "known_share" not in result.coords
    part = select(ds.isel(lat=slice(0, 40)), query("scenes_count"), resolution=20.0)
    assert part.shape == (40, 180)
    other = ds.assign(scenes_count=ds["scenes_count"] + 1)
    assert select(other, query("scenes_count"), resolution=20.0).shape == GLOBE.shape


@pytest.mark.parametrize("factor", [5, 10])
@pytest.mark.parametrize(
    ("metric", "aggregation", "sensors"),
    [
        ("scenes_count", "rate", ["landsat-8-9"]),
        ("scenes_count", "total", ["landsat-8-9"]),
        ("scenes_count", "scrub", ["landsat-8-9"]),
        ("deficit", "worst", ["emit"]),
        ("priority_score", "worst", BOTH),
        ("action", "worst", BOTH),
        ("action", "scrub", BOTH),
    ],
)
def test_a_level_answers_what_the_cells_answer(globe: Path, metric: str, aggregation: str, sensors: list[str], factor: int) -> None:
    """Where means and largest values do not care which of months, sensors and cells come first."""
    ds = open_coverage(globe)
    q = query(metric, aggregation, sensors, t1=dt.date(2025, 2, 28))
    fine, coarse = select(ds, q), select(ds, q, resolution=2.0 * factor)
    for a, b in zip(np.atleast_3d(fine.values.T).T, np.atleast_3d(coarse.values.T).T, strict=True):
        if metric == "action":
            assert np.array_equal(level_of(a.astype(np.uint8), "action", GLOBE, factor), b)
        elif metric == "scenes_count":
            np.testing.assert_allclose(level_of(a, metric, GLOBE, factor), b, rtol=1e-6)
        elif len(sensors) == 1:
            assert np.array_equal(level_of(a, metric, GLOBE, factor), b, equal_nan=True)
        else:
            # a cell's month is known where every sensor is known; of a level's cell, some part is
            assert (np.nan_to_num(level_of(a, metric, GLOBE, factor), nan=-1) <= b).all()


def test_the_known_share_counts_area_months_and_sensors(globe: Path) -> None:
    ds = open_coverage(globe)
    shares = [share_of(raw(globe, "scenes_count", "emit", month), "scenes_count", GLOBE, 5) for month in (JANUARY, FEBRUARY)]
    for sensors in (["emit"], BOTH):  # Landsat is known everywhere, EMIT is not in March
        found = select(ds, query("scenes_count", "rate", sensors), resolution=10.0)["known_share"]
        np.testing.assert_allclose(found, (shares[0] + shares[1]) / 3, rtol=1e-6)
    all_known = select(ds, query("scenes_count", "rate", ["landsat-8-9"]), resolution=10.0)
    assert (all_known["known_share"] == 1).all()
    assert (all_known["known_months"] == 3).all()
    deficit = select(ds, query("deficit", "worst", t1=dt.date(2025, 1, 31)), resolution=10.0)["known_share"]
    np.testing.assert_allclose(deficit, share_of(raw(globe, "deficit"), "deficit", GLOBE, 5), rtol=1e-6)


@pytest.mark.parametrize(("any_cube", "grid"), [("globe", GLOBE), ("region", REGION)], indirect=["any_cube"])
@pytest.mark.parametrize("aggregation", ["rate", "total"])
def test_colours_do_not_jump_with_the_zoom(any_cube: Path, grid: GridSpec, aggregation: str) -> None:
    ds = open_coverage(any_cube)
    means = []
    for factor in (1, 5, 10):
        shown = select(ds, query("scenes_count", aggregation, ["landsat-8-9"]), resolution=grid.resolution * factor)
        assert shown.shape == (grid.shape[0] // factor, grid.shape[1] // factor)
        weights = blocks(areas(grid), factor).sum(-1)
        means.append(float((shown.values.astype(np.float64) * weights).sum() / weights.sum()))
    assert means[1:] == pytest.approx([means[0]] * 2, rel=1e-5)


# --- the STAC collection beside the cube -------------------------------------------------------------------------------


def stac(path: Path) -> pystac.Collection:
    json.loads(description_path(path).read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    return pystac.Collection.from_file(str(description_path(path)))


@pytest.mark.parametrize("grid", [GridSpec(10.0), EUROPE, GridSpec(h3_res=0)], ids=["globe", "region", "h3"])
def test_the_collection_beside_the_cube_describes_it(grid: GridSpec, tmp_path: Path) -> None:
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(grid=grid))
    made = stac(path)
    assert made.id == "coverage"
    variables = made.extra_fields["cube:variables"]
    group = zarr.open_group(path, mode="r")
    assert set(variables) == set(SCHEMA)
    for name, variable in variables.items():
        assert variable["dimensions"] == list(group[name].metadata.to_dict()["dimension_names"]), name
        assert variable["data_type"] == ("other" if name == "provider" else group[name].dtype), name
    dimensions = made.extra_fields["cube:dimensions"]
    assert set(dimensions) == {"sensor", "time", *grid.dims}
    assert dimensions["sensor"]["values"] == BOTH
    asset = made.assets["zarr"]
    assert asset.href == "./coverage.zarr"
    assert Path(asset.get_absolute_href() or "") == path
    assert xr.open_zarr(asset.get_absolute_href()).sizes["sensor"] == 2
    assert made.extent.spatial.bboxes[0] == pytest.approx(list(grid.extent or (-180, -90, 180, 90)))


def interval(path: Path) -> list[str]:
    first, last = stac(path).extent.temporal.intervals[0]
    assert first is not None
    assert last is not None
    return [first.isoformat(), last.isoformat()]


def test_update_snapshot_brings_the_collection_up_to_date(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(months=[JANUARY]))
    assert interval(path) == ["2025-01-01T00:00:00+00:00", "2025-01-31T23:59:59+00:00"]
    assert stac(path).extra_fields["catalog_snapshot"] == ""
    write_partition(path, "emit", JANUARY, gap=False)
    make_cube(path, cube_spec([*BOTH, "prisma"], QUARTER))
    snapshot = update_snapshot(path)
    assert snapshot == dt.datetime.fromtimestamp(provenance()["scanned_at"], dt.UTC).date().isoformat()
    made = stac(path)
    assert made.extra_fields["catalog_snapshot"] == snapshot
    assert interval(path) == ["2025-01-01T00:00:00+00:00", "2025-03-31T23:59:59+00:00"]
    assert made.extra_fields["cube:dimensions"]["time"]["extent"] == ["2025-01-01T00:00:00Z", "2025-03-01T00:00:00Z"]
    assert made.extra_fields["cube:dimensions"]["sensor"]["values"] == [*BOTH, "prisma"]


def test_the_collection_grows_with_the_cube(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(months=[JANUARY]))
    make_cube(path, cube_spec([*BOTH, "prisma"], QUARTER))
    assert interval(path) == ["2025-01-01T00:00:00+00:00", "2025-03-31T23:59:59+00:00"]
    assert stac(path).extra_fields["cube:dimensions"]["sensor"]["values"] == [*BOTH, "prisma"]


def test_the_levels_grow_with_the_cube(tmp_path: Path) -> None:
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(months=[JANUARY], grid=GLOBE))
    write_coverage(path, "emit", JANUARY, random_fields(1, GLOBE), provenance())
    before = raw(path, "overviews/5/scenes_count")
    make_cube(path, cube_spec([*BOTH, "prisma"], QUARTER, GLOBE))
    write_coverage(path, "prisma", MARCH, known_fields(GLOBE, scenes_count=4), provenance())
    for group in ("overviews/5", "overviews/10"):
        ds = opened(path, group)
        assert ds["sensor"].values.tolist() == [*BOTH, "prisma"]
        assert ds.sizes["time"] == 3
        np.testing.assert_allclose(ds["scenes_count"].sel(sensor="prisma", time="2025-03-01"), 4)
        assert ds["scenes_count"].sel(sensor="landsat-8-9").isnull().all()
    assert np.array_equal(opened(path, "overviews/5")["scenes_count"][0, 0], before, equal_nan=True)
    with rasterio.open(f'ZARR:"{path}":/overviews/5/scenes_count') as raster:
        assert raster.count == 9
        assert raster.read(9) == pytest.approx(4)


# --- derived metrics ---------------------------------------------------------------------------------------------------

DERIVED = {
    "observations": "available_days",
    "clear_observations": "clear_days",
    "held_observations": "held_days",
    "held_clear_observations": "held_clear_days",
    "longest_wait": "held_clear_days",
    "ingestable_observations": "ingestable_days",
}
OVER_TIME: dict[str, Callable[[list[int]], float]] = {
    "rate": lambda months: sum(months) / len(months),
    "total": sum,
    "recent": lambda months: months[-1],
}


def figure(metric: str, masks: list[int], days: int) -> int | None:
    """What one cell's month comes to, from the masks of its sensors; None where one is not known."""
    if any(mask >= 2**31 for mask in masks):
        return None
    seen = "".join("1" if any(mask >> day & 1 for mask in masks) else "0" for day in range(days))
    return max(len(run) for run in seen.split("1")) if metric == "longest_wait" else seen.count("1")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cube whose masks have all kinds of days: none, the first, the last, a few, many, not known."""
    grid = GridSpec(30.0)
    path = make_cube(tmp_path_factory.mktemp("masks") / "coverage.zarr", cube_spec(grid=grid))
    for seed, (sensor, month) in enumerate((s, m) for s in BOTH for m in QUARTER):
        fields = random_fields(seed, grid)
        for name in dict.fromkeys(DERIVED.values()):
            fields[name].reshape(-1)[:4] = [0, 1, 1 << (month.days - 1), (1 << month.days) - 1]
            fields[name].reshape(-1)[4 + seed] = UNKNOWN  # each partition has a cell that only it does not know
        write_partition(path, sensor, month, fields)
    return path


@pytest.mark.parametrize("metric", DERIVED)
@pytest.mark.parametrize("sensors", [["emit"], BOTH], ids=["one", "two"])
def test_derived_metrics_count_days_as_plain_python_does(masks: Path, metric: str, sensors: list[str]) -> None:
    ds = open_coverage(masks)
    found = {aggregation: select(ds, query(metric, aggregation, sensors)) for aggregation in ("rate", "total", "recent", "worst", "scrub")}
    stored = {(s, m): raw(masks, DERIVED[metric], s, m).reshape(-1) for s in sensors for m in QUARTER}
    worst = max if METRICS[metric].worse == "high" else min
    assert METRICS[metric].worse == ("high" if metric in ("longest_wait", "ingestable_observations") else "low")
    unknown = 0
    for cell in range(72):
        months = [figure(metric, [int(stored[s, month][cell]) for s in sensors], month.days) for month in QUARTER]
        known = [month for month in months if month is not None]
        unknown += len(months) - len(known)
        shown = {name: result.values.reshape(-1, 72)[:, cell] for name, result in found.items()}
        assert np.array_equal(shown["scrub"], np.array(months, np.float32), equal_nan=True)
        for aggregation, over_time in (OVER_TIME | {"worst": worst}).items():
            expected = over_time(known) if known else np.nan
            assert float(shown[aggregation][0]) == pytest.approx(expected, rel=1e-6, nan_ok=True), aggregation
        assert int(found["rate"]["known_months"].values.reshape(-1)[cell]) == len(known)
    assert unknown > 20


def test_a_cell_is_not_known_where_any_sensor_is_not(masks: Path) -> None:
    both = select(open_coverage(masks), query("observations", "scrub", BOTH)).values.reshape(3, 72)
    for month in range(3):
        assert np.isnan(both[month, 4 + month])  # EMIT alone does not know
        assert np.isnan(both[month, 7 + month])  # Landsat alone does not know


# --- only what is asked for is read --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four chunks from south to north, two months written of three."""
    path = make_cube(tmp_path_factory.mktemp("tall") / "coverage.zarr", cube_spec(grid=TALL))
    for month in (JANUARY, FEBRUARY):
        write_partition(path, "emit", month, random_fields(month.month, TALL))
    return path


NEAR = (5.0, 5.0, 6.0, 6.0)
"""In the third chunk of each field."""


def test_opening_reads_no_cell(tall: Path, reads: list[str]) -> None:
    ds = open_coverage(tall)
    opened(tall, "overviews/5")
    assert "zarr.json" in reads
    assert not cell_chunks(reads)
    assert ds["scenes_count"].chunks is not None


@pytest.mark.parametrize("metric", METRICS)
def test_a_box_reads_the_chunks_it_lies_in(metric: str, tall: Path, reads: list[str]) -> None:
    ds = open_coverage(tall)
    reads.clear()
    select(ds, query(metric, "worst", bbox=NEAR, t1=dt.date(2025, 2, 28)))
    names = {METRICS[metric].variable(metric)} | ({"scenes_count"} if metric == "mean_scene_cloud_pct" else set())
    assert cell_chunks(reads) == {f"{name}/c/0/{month}/2/0" for name in names for month in (0, 1)}


def test_a_month_and_a_sensor_that_are_not_asked_for_are_not_read(tall: Path, reads: list[str]) -> None:
    ds = open_coverage(tall)
    reads.clear()
    select(ds, query("scenes_count", "worst", BOTH, bbox=NEAR, t0=dt.date(2025, 2, 1)))
    # of what is not written, nothing: neither Landsat nor March
    assert cell_chunks(reads) == {"scenes_count/c/0/1/2/0"}


@pytest.mark.parametrize("metric", ["scenes_count", "action", "deficit"])
def test_a_level_is_read_in_place_of_the_cells(metric: str, tall: Path, reads: list[str]) -> None:
    ds = open_coverage(tall)
    reads.clear()
    select(ds, query(metric, "worst", bbox=NEAR), resolution=0.5)
    share = "available_known" if metric == "scenes_count" else "gap_known"
    assert cell_chunks(reads) == {f"overviews/5/{name}/c/0/{month}/0/0" for name in (metric, share) for month in (0, 1)}


@pytest.mark.parametrize("metric", ["scenes_count", "longest_wait"])
def test_a_series_at_a_cell_reads_one_chunk_a_month(metric: str, tall: Path, reads: list[str]) -> None:
    ds = open_coverage(tall)
    variable = METRICS[metric].variable(metric)
    wanted = {f"{variable}/c/0/{month}/2/0" for month in (0, 1)}
    reads.clear()
    series = select(ds, query(metric, "scrub", bbox=(5.02, 5.02, 5.08, 5.08)))
    assert series.shape == (3, 1, 1)
    assert cell_chunks(reads) == wanted
    reads.clear()
    ds[variable].sel(sensor="emit", lat=5.05, lon=5.05).compute()
    # March is hidden by its revision, and reads as the fill of a chunk that is not there
    assert cell_chunks(reads) - {f"{variable}/c/0/2/2/0"} == wanted


def test_the_derived_metrics_are_all_those_with_a_mask() -> None:
    assert {name: metric.mask for name, metric in METRICS.items() if metric.mask} == DERIVED
    assert all(SCHEMA[mask].dtype == "uint32" for mask in DERIVED.values())
