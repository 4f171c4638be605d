"""Levels against plain Python over lists of cells, and their attributes against what the conventions' schemas demand."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from numpy.typing import NDArray
from pyproj import CRS

from coverage_pipeline.cube.overviews import (
    MIN_SIDE,
    coarsen,
    factors,
    georeference,
    known_share,
    level_group,
    multiscales,
    row_areas,
)
from coverage_pipeline.grid.daymask import UNKNOWN

MASK_FILL = int(UNKNOWN)
ORDER = (2, 3, 4, 0, 5, 1)  # 6 is in no order
GLOBE = (-180.0, -90.0, 180.0, 90.0)

CELL = {
    "int16": st.one_of(st.just(-1), st.integers(-3, 3), st.integers(-(2**15), 2**15 - 1)),
    "float32": st.one_of(st.just(math.nan), st.floats(-1e6, 1e6, width=32)),
    "uint32": st.one_of(st.just(MASK_FILL), st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1)),
    "uint8": st.integers(0, 6),
    "int8": st.integers(0, 1),
}
FILLS: dict[str, float | None] = {"int16": -1, "float32": math.nan, "uint32": MASK_FILL, "uint8": 0, "int8": None}


@st.composite
def fields(draw: st.DrawFn, dtype: str) -> tuple[NDArray[Any], NDArray[np.float64], int]:
    """A field, weights of its rows and the side of a block."""
    factor = draw(st.integers(1, 4))
    rows, columns = factor * draw(st.integers(1, 3)), factor * draw(st.integers(1, 3))
    cells = draw(st.lists(CELL[dtype], min_size=rows * columns, max_size=rows * columns))
    weights = draw(st.lists(st.floats(1e-3, 1), min_size=rows, max_size=rows))
    return np.array(cells, dtype).reshape(rows, columns), np.array(weights), factor


def blocks(values: NDArray[Any], weights: NDArray[np.float64], factor: int) -> list[list[list[tuple[Any, Fraction]]]]:
    """Of each block, its cells with their weights."""
    rows, columns = values.shape
    return [
        [
            [(values[r, c].item(), Fraction(float(weights[r]))) for r in range(i, i + factor) for c in range(j, j + factor)]
            for j in range(0, columns, factor)
        ]
        for i in range(0, rows, factor)
    ]


def is_known(value: float, dtype: str) -> bool:
    if dtype == "uint32":
        return int(value) < 2**31
    return not math.isnan(value) and value != FILLS[dtype]


@pytest.mark.parametrize("dtype", ["int16", "float32", "int8"])
@settings(deadline=None)  # the first call compiles
@given(data=st.data())
def test_the_mean_is_weighted_by_area_over_known_cells(dtype: str, data: st.DataObject) -> None:
    values, weights, factor = data.draw(fields(dtype))
    got = coarsen(values, FILLS[dtype], weights, factor, "mean")
    assert got.dtype == np.float32
    for got_row, row in zip(got.tolist(), blocks(values, weights, factor), strict=True):
        for mean, block in zip(got_row, row, strict=True):
            known = [(Fraction(value), weight) for value, weight in block if is_known(value, dtype)]
            if not known:
                assert math.isnan(mean)
                continue
            exact = sum(value * weight for value, weight in known) / sum(weight for _, weight in known)
            # sums that cancel keep an error of the size of their terms; below 1e-38 float32 has few digits
            assert mean == pytest.approx(float(exact), rel=1e-6, abs=1e-9 * max(abs(float(value)) for value, _ in known) + 1e-44)


@pytest.mark.parametrize("dtype", ["int16", "float32", "int8"])
@settings(deadline=None)  # the first call compiles
@given(data=st.data())
def test_the_largest_known_value(dtype: str, data: st.DataObject) -> None:
    values, weights, factor = data.draw(fields(dtype))
    got = coarsen(values, FILLS[dtype], weights, factor, "max")
    fill = FILLS[dtype]
    want = [
        [max((value for value, _ in block if is_known(value, dtype)), default=fill) for block in row]
        for row in blocks(values, weights, factor)
    ]
    assert got.dtype == values.dtype
    assert np.array_equal(got, np.array(want, dtype), equal_nan=dtype == "float32")


@settings(deadline=None)
@given(fields("uint32"))
@example((np.array([[MASK_FILL, MASK_FILL + 5], [0, MASK_FILL]], np.uint32), np.ones(2), 1))
@example((np.array([[MASK_FILL, 0], [MASK_FILL, MASK_FILL + 1]], np.uint32), np.ones(2), 2))
def test_days_of_any_known_cell(field: tuple[NDArray[np.uint32], NDArray[np.float64], int]) -> None:
    got = coarsen(field[0], MASK_FILL, *field[1:], "or")
    assert got.dtype == np.uint32
    for got_row, row in zip(got.tolist(), blocks(*field), strict=True):
        for mask, block in zip(got_row, row, strict=True):
            known = [value for value, _ in block if value < 2**31]
            days = {day for value in known for day in range(31) if value >> day & 1}
            assert mask == (sum(2**day for day in days) if known else 2**31)


@settings(deadline=None)
@given(fields("uint8"))
def test_the_most_urgent_code_that_occurs(field: tuple[NDArray[np.uint8], NDArray[np.float64], int]) -> None:
    got = coarsen(field[0], 0, *field[1:], "urgent", ORDER)
    want = [[next((code for code in ORDER if code in {value for value, _ in block}), 0) for block in row] for row in blocks(*field)]
    assert got.dtype == np.uint8
    assert got.tolist() == want


@pytest.mark.parametrize("dtype", list(CELL))
@settings(deadline=None)  # the first call compiles
@given(data=st.data())
def test_the_share_of_the_area_that_is_known(dtype: str, data: st.DataObject) -> None:
    values, weights, factor = data.draw(fields(dtype))
    got = known_share(values, FILLS[dtype], weights, factor)
    assert got.dtype == np.float32
    for got_row, row in zip(got.tolist(), blocks(values, weights, factor), strict=True):
        for share, block in zip(got_row, row, strict=True):
            known = [weight for value, weight in block if is_known(value, dtype)]
            exact = sum(known, Fraction(0)) / sum(weight for _, weight in block)
            assert share == pytest.approx(float(exact), rel=1e-6)
            assert (share == 1) == (len(known) == len(block))
            assert (share == 0) == (not known)


def test_a_share_just_short_of_whole_does_not_round_to_it() -> None:
    values = np.ones((2, 2), np.int16)
    values[0, 0] = -1
    assert known_share(values, -1, np.array([1e-12, 1.0]), 2).item() < 1
    assert known_share(np.array([[-1, -1], [1, -1]], np.int16), -1, np.array([1.0, 1e-12]), 2).item() > 0


def global_mean(field: NDArray[Any], areas: NDArray[np.float64]) -> float:
    return float(np.average(field.mean(axis=1, dtype=np.float64), weights=areas))


def test_colours_do_not_jump_with_the_zoom() -> None:
    """The mean over the globe is the same at every level where all is known: no averages of averages."""
    n_lat, n_lon = 180, 360
    latitudes = np.arange(n_lat)[:, None]
    values = (latitudes**2 // 100 + np.random.default_rng(7).integers(0, 40, (n_lat, n_lon))).astype(np.int16)
    edges = np.arange(n_lat + 1) * 180 / n_lat - 90
    areas = row_areas(edges)
    want = global_mean(values, areas)
    assert values.mean() != pytest.approx(want, rel=1e-3)  # the weights matter
    for factor in (*factors((n_lat, n_lon)), 45, 180):
        level = coarsen(values, -1, areas, factor, "mean")
        assert global_mean(level, row_areas(edges[::factor])) == pytest.approx(want, rel=1e-6)


def test_an_even_field_stays_even() -> None:
    areas = row_areas(np.linspace(-90, 90, 101))
    for value in (3, 0.1):
        field = np.full((100, 200), value, np.float32)
        for factor in (5, 10):
            assert (coarsen(field, math.nan, areas, factor, "mean") == np.float32(value)).all()


def test_row_areas_are_those_of_the_sphere() -> None:
    edges = np.array([-90, -30, 0, 45, 89.9, 90])
    assert row_areas(edges) == pytest.approx(np.diff(np.sin(np.radians(edges))), rel=1e-9)
    assert row_areas(np.arange(1801) * 180 / 1800 - 90).sum() == pytest.approx(2)
    with pytest.raises(ValueError, match="ascend"):
        row_areas([0, 1, 1])


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((1800, 3600), (5, 25)),  # 0.1 degrees
        ((3600, 7200), (5, 25)),
        ((720, 1440), (5, 24)),  # 0.25
        ((180, 360), (5, 20)),  # 30 would leave six rows
        ((36, 72), (4,)),
        ((18, 36), (2,)),
        ((15, 30), ()),  # three would leave five rows
        ((137, 211), ()),  # no common divisor
        ((97 * 8, 97 * 9), (97,)),
        ((1, 1), ()),
        ((40, 200), (5,)),
        ((150, 40), (5,)),
    ],
)
def test_factors(shape: tuple[int, int], want: tuple[int, ...]) -> None:
    assert factors(shape) == want


@given(st.tuples(st.integers(1, 4000), st.integers(1, 4000)))
def test_factors_divide_and_leave_enough(shape: tuple[int, int]) -> None:
    found = factors(shape)
    assert list(found) == sorted(set(found))
    for factor in found:
        assert factor >= 2
        assert all(n % factor == 0 and n // factor >= MIN_SIDE for n in shape)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"factor": 3}, "blocks of 3 x 3"),
        ({"factor": 0}, "blocks of 0"),
        ({"weights": np.ones(3)}, r"weights of shape \(3,\) for 4 rows"),
        ({"values": np.ones(4, np.int16)}, "does not divide"),
        ({"how": "median"}, "mean, max, or, urgent"),
        ({"how": "or"}, "uint32"),
        ({"how": "urgent"}, "uint8"),
        ({"how": "urgent", "values": np.ones((4, 4), np.uint8)}, "order"),
        ({"how": "urgent", "values": np.ones((4, 4), np.uint8), "order": (1, 1)}, "different codes"),
        ({"how": "urgent", "values": np.ones((4, 4), np.uint8), "order": (256,)}, "different codes"),
    ],
)
def test_what_cannot_be_coarsened(changes: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"values": np.ones((4, 4), np.int16), "fill": -1, "weights": np.ones(4), "factor": 2, "how": "mean"}
    with pytest.raises(ValueError, match=words):
        coarsen(**given | changes)


def test_fields_are_read_only_and_may_lie_anyhow_in_memory() -> None:
    values = np.arange(32, dtype=np.int16).reshape(4, 8)
    weights = np.array([1.0, 2, 3, 4])
    want = coarsen(values, -1, weights, 2, "mean")
    before = values.copy()
    values.flags.writeable = False
    assert np.array_equal(coarsen(values, -1, weights, 2, "mean"), want)
    assert np.array_equal(coarsen(np.asfortranarray(values), -1, weights, 2, "mean"), want)
    assert np.array_equal(values, before)


# What the schemas of release v0.1 demand of a group that declares the three conventions.
def declared(name: str, uuid: str, description: str) -> dict[str, Any]:
    wanted = {
        "uuid": uuid,
        "name": name,
        "description": description,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
    }
    return {
        "type": "object",
        "properties": {key: {"const": value} for key, value in wanted.items()},
        "required": ["uuid"],
        "additionalProperties": False,
    }


def numbers(n: int | None = None, *, integers: bool = False) -> dict[str, Any]:
    item = {"type": "integer", "minimum": 1} if integers else {"type": "number"}
    return {"type": "array", "items": item} | ({} if n is None else {"minItems": n, "maxItems": n})


PATH = {"type": "string", "pattern": r"^(?!/)(?!.*(\.\.))([^/]+(/[^/]+)*)$"}
PLACED = {"spatial:shape": numbers(2, integers=True), "spatial:transform": numbers(6)}
LEVEL = {
    "type": "object",
    "properties": {
        "asset": PATH,
        "derived_from": PATH,
        "transform": {"type": "object", "properties": {"scale": numbers(), "translation": numbers()}},
        "resampling_method": {"type": "string"},
        **PLACED,
    },
    "required": ["asset", "spatial:transform"],  # the transform by the drafts after v0.1
    "if": {"required": ["derived_from"]},
    "then": {"required": ["transform"]},
}
SPATIAL = declared("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information")
PROJ = declared("proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data")
MULTISCALES = declared("multiscales", "d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets")
REFERENCED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "zarr_conventions": {"type": "array", "allOf": [{"contains": SPATIAL}, {"contains": PROJ}]},
        "proj:code": {"type": "string", "pattern": "^[^:]+:[^:]+$"},
        "proj:wkt2": {"type": "string"},
        "spatial:dimensions": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
        "spatial:bbox": numbers(4),
        "spatial:registration": {"enum": ["node", "pixel"]},
        **PLACED,
    },
    "required": ["zarr_conventions", "spatial:dimensions"],
    "anyOf": [{"required": ["proj:code"]}, {"required": ["proj:wkt2"]}],
}
ROOT = {
    "allOf": [REFERENCED],
    "type": "object",
    "properties": {
        "zarr_conventions": {"contains": MULTISCALES},
        "multiscales": {
            "type": "object",
            "properties": {"layout": {"type": "array", "items": LEVEL, "minItems": 1}},
            "required": ["layout"],
        },
    },
    "required": ["multiscales"],
    # by the drafts after v0.1
    "not": {"anyOf": [{"required": ["spatial:transform"]}, {"required": ["spatial:shape"]}]},
}


def errors(schema: dict[str, Any], attributes: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft7Validator(schema).iter_errors(json.loads(json.dumps(attributes, allow_nan=False)))]


def test_the_root_follows_the_conventions() -> None:
    attributes = multiscales((5, 25), (1800, 3600), GLOBE)
    assert errors(ROOT, attributes) == []
    assert errors(ROOT, {**attributes, "zarr_conventions": attributes["zarr_conventions"][1:]})  # the schema bites
    full, five, twenty_five = attributes["multiscales"]["layout"]
    assert full == {
        "asset": ".",
        "transform": {"scale": [1.0, 1.0], "translation": [0.0, 0.0]},
        "spatial:shape": [1800, 3600],
        "spatial:transform": [0.1, 0.0, -180.0, 0.0, 0.1, -90.0],
    }
    assert five == {
        "asset": "overviews/5",
        "derived_from": ".",
        "transform": {"scale": [5.0, 5.0], "translation": [0.0, 0.0]},
        "spatial:shape": [360, 720],
        "spatial:transform": [0.5, 0.0, -180.0, 0.0, 0.5, -90.0],
    }
    assert twenty_five["spatial:transform"] == [2.5, 0.0, -180.0, 0.0, 2.5, -90.0]
    assert CRS.from_wkt(attributes["proj:wkt2"]) == CRS(attributes["proj:code"])


def test_a_level_and_a_cube_without_levels_say_where_they_lie() -> None:
    attributes = georeference((8, 16), (10.0, -4.0, 26.0, 4.0))
    assert errors(REFERENCED, attributes) == []
    assert attributes["spatial:transform"] == [1.0, 0.0, 10.0, 0.0, 1.0, -4.0]
    assert multiscales((), (8, 16), (10.0, -4.0, 26.0, 4.0)) == attributes
    with pytest.raises(ValueError, match="8 x 16"):
        multiscales((3,), (8, 16), GLOBE)


def test_what_is_returned_can_be_changed_without_changing_the_next() -> None:
    first = multiscales((5,), (1800, 3600), GLOBE)
    first["zarr_conventions"][0]["name"] = "changed"
    assert multiscales((5,), (1800, 3600), GLOBE)["zarr_conventions"][0]["name"] == "multiscales"


def test_levels_are_groups_that_the_layout_leads_to() -> None:
    shape, edges = (80, 160), np.linspace(-90, 90, 81)
    values = np.random.default_rng(3).integers(0, 9, shape).astype(np.int16)
    store = zarr.storage.MemoryStore()
    root = zarr.create_group(store, attributes=multiscales(factors(shape), shape, GLOBE))
    root.create_array("scenes_count", data=values, dimension_names=("lat", "lon"))
    for factor in factors(shape):
        small = (shape[0] // factor, shape[1] // factor)
        level = root.create_group(level_group(factor), attributes=georeference(small, GLOBE))
        coarse = coarsen(values, -1, row_areas(edges), factor, "mean")
        level.create_array("scenes_count", data=coarse, dimension_names=("lat", "lon"))
    layout: Any = zarr.open_group(store, mode="r").attrs["multiscales"]["layout"]  # type: ignore[index, call-overload]
    assert [level["asset"] for level in layout] == [".", "overviews/5", "overviews/10"]
    for level in layout:
        group = None if level["asset"] == "." else level["asset"]
        with xr.open_zarr(store, group=group, consolidated=False) as dataset:
            assert dataset.sizes == {"lat": level["spatial:shape"][0], "lon": level["spatial:shape"][1]}
            assert list(dataset) == ["scenes_count"]
