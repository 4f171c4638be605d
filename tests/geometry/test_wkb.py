"""WKB columns against shapely's own reader and layout; and WKB that is cut, altered or made to harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon, box

from coverage_pipeline.geometry.wkb import ragged_from_wkb
from coverage_pipeline.grid.celltable import cell_table
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import cell_statistics, latest_in_bands, latest_in_cells
from coverage_pipeline.scenes.items import SceneCollector
from coverage_pipeline.scenes.schema import SCENES_SCHEMA
from coverage_pipeline.scenes.statistics import availability_table
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.shared_data import read_items

pytestmark = pytest.mark.slow

HOLED = Polygon(box(0, 0, 10, 10).exterior, [box(1, 1, 2, 2).exterior.coords, [(3, 3), (4, 3), (4, 4)]])
PARTS = MultiPolygon([HOLED, box(20, 0, 21, 1)])
LITTLE, BIG = 1, 0


def objects(*geometries: Any) -> np.ndarray:
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    return array


def expected(geometries: Any) -> tuple[np.ndarray, ...]:
    """shapely's layout, after every Polygon was made a MultiPolygon and all but x and y was dropped."""
    flat = shapely.force_2d(geometries)
    multi = objects(*(g if g.geom_type == "MultiPolygon" else MultiPolygon([g]) for g in flat))
    _, coords, offsets = shapely.to_ragged_array(multi)
    return coords, *offsets


def assert_same(found: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...]) -> None:
    assert [str(a.dtype) for a in found] == ["float64", "int64", "int64", "int64"]
    assert found[0].shape == wanted[0].shape
    assert found[0].tobytes() == np.ascontiguousarray(wanted[0]).tobytes()  # −0.0 stays −0.0
    for mine, theirs in zip(found[1:], wanted[1:], strict=True):
        assert mine.tolist() == theirs.tolist()


def u32(value: int, order: int = LITTLE) -> bytes:
    return value.to_bytes(4, "little" if order == LITTLE else "big")


def head(code: int, order: int = LITTLE) -> bytes:
    return bytes([order]) + u32(code, order)


def ring(n: int = 4, order: int = LITTLE) -> bytes:
    points = np.array([(0, 0), (1, 0), (1, 1), *[(0, 1)] * (n - 4), (0, 0)][-n:], "<f8" if order == LITTLE else ">f8")
    return u32(n, order) + points.tobytes()


TRIANGLE = head(3) + u32(1) + ring()


# --- sound WKB ---


@st.composite
def footprints(draw: st.DrawFn) -> Any:
    """Polygons and MultiPolygons with up to three holes a part, with or without Z and M; they need not be valid, only closed."""
    ordinates = draw(st.sampled_from([2, 2, 3, 4]))
    number = st.floats(allow_nan=False, allow_infinity=False, width=64) | st.sampled_from([-0.0, 5e-324, 1.7976931348623157e308])
    points = st.lists(st.tuples(*[number] * ordinates), min_size=3, max_size=7)
    part = st.lists(points.map(lambda open_: [*open_, open_[0]]), min_size=1, max_size=4)
    parts = draw(st.lists(part, min_size=1, max_size=4))
    polygon = 3 + {2: 0, 3: 1000, 4: 3000}[ordinates]
    written_out = [head(polygon) + u32(len(part)) + b"".join(u32(len(r)) + np.array(r, "<f8").tobytes() for r in part) for part in parts]
    if len(parts) == 1 and draw(st.booleans()):
        return shapely.from_wkb(written_out[0])
    return shapely.from_wkb(head(polygon + 3) + u32(len(parts)) + b"".join(written_out))


@st.composite
def written(draw: st.DrawFn) -> tuple[list[Any], list[bytes]]:
    """Footprints and their WKB, each written its own way."""
    geometries = draw(st.lists(footprints(), max_size=6))
    values = []
    for geometry in geometries:
        flavor = draw(st.sampled_from(["iso", "extended"]))
        if flavor == "extended" and draw(st.booleans()):
            geometry = shapely.set_srid(geometry, 4326)
        options = {"include_srid": True} if flavor == "extended" else {}
        values.append(shapely.to_wkb(geometry, byte_order=draw(st.sampled_from([LITTLE, BIG])), flavor=flavor, **options))
    return geometries, values


@settings(deadline=None, max_examples=200)
@given(written(), st.sampled_from([pa.binary(), pa.large_binary()]), st.data())
def test_any_way_of_writing_any_footprint_gives_shapelys_arrays(
    rows: tuple[list[Any], list[bytes]], kind: Any, data: st.DataObject
) -> None:
    geometries, values = rows
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=3)))
    bounds = list(zip([0, *cuts], [*cuts, len(values)], strict=True))
    padded = [b"before", None, *values, b"after"]
    whole = pa.array(padded, kind)  # slices of a longer array: their offsets do not begin at 0
    for column in (
        pa.array(values, kind),
        whole.slice(2, len(values)),
        pa.chunked_array([pa.array(values[a:b], kind) for a, b in bounds], kind),
        pa.chunked_array([whole.slice(2 + a, b - a) for a, b in bounds], kind),
    ):
        found = ragged_from_wkb(column)
        if geometries:
            assert_same(found, expected(geometries))
        else:
            assert [a.tolist() for a in found] == [[], [0], [0], [0]]


@pytest.mark.parametrize("order", [LITTLE, BIG])
@pytest.mark.parametrize("flavor", ["iso", "extended"])
@pytest.mark.parametrize("dimensions", ["XY", "XYZ", "XYM", "XYZM"])
@pytest.mark.parametrize("srid", [None, 4326])
@pytest.mark.parametrize("geometry", [HOLED, PARTS], ids=["polygon", "multipolygon"])
def test_every_variant(geometry: Any, srid: int | None, dimensions: str, flavor: str, order: int) -> None:
    if dimensions != "XY":
        extra = "M" if dimensions == "XYM" else "Z"
        wkt = shapely.to_wkt(shapely.force_3d(geometry, 3.5), rounding_precision=-1, output_dimension=3)
        if dimensions == "XYZM":
            wkt = wkt.replace(" 3.5", " 3.5 8.25")
        geometry = shapely.from_wkt(wkt.replace(" Z ", f" {'ZM' if dimensions == 'XYZM' else extra} "))
        assert (geometry.has_z, shapely.has_m(geometry)) == ("Z" in dimensions, "M" in dimensions)
    if srid and flavor == "extended":
        geometry = shapely.set_srid(geometry, srid)
    options = {"include_srid": True} if flavor == "extended" else {}
    value = shapely.to_wkb(geometry, byte_order=order, flavor=flavor, output_dimension=4, **options)
    code = int.from_bytes(value[1:5], "little" if order == LITTLE else "big")
    plain = 6 if geometry.geom_type == "MultiPolygon" else 3
    thousands = {"XY": 0, "XYZ": 1000, "XYM": 2000, "XYZM": 3000}[dimensions]
    flags = ("Z" in dimensions) * 0x80000000 + ("M" in dimensions) * 0x40000000 + bool(srid) * 0x20000000
    assert code == (plain + thousands if flavor == "iso" else plain + flags)
    assert_same(ragged_from_wkb(pa.array([value, value])), expected([geometry, geometry]))


def test_parts_may_differ_from_their_whole_and_each_other() -> None:
    """Byte order and dimensions belong to a header, and every part has one."""
    big_z = head(1003, BIG) + u32(1, BIG) + u32(4, BIG) + np.array([(0, 0, 9), (2, 0, 9), (2, 2, 9), (0, 0, 9)], ">f8").tobytes()
    value = head(6) + u32(2) + big_z + TRIANGLE
    coords, rings, polygons, rows = ragged_from_wkb(pa.array([value]))
    assert coords.tolist() == [[0, 0], [2, 0], [2, 2], [0, 0], [0, 0], [1, 0], [1, 1], [0, 0]]
    assert (rings.tolist(), polygons.tolist(), rows.tolist()) == ([0, 4, 8], [0, 1, 2], [0, 2])
    assert_same(ragged_from_wkb(pa.array([value])), expected([shapely.from_wkb(value)]))


def test_coordinates_that_are_no_numbers_are_passed_on() -> None:
    points = [(0.0, 0.0), (np.nan, np.inf), (1.0, 1.0), (-0.0, 0.0)]
    value = head(3) + u32(1) + u32(4) + np.array(points).tobytes()
    assert ragged_from_wkb(pa.array([value]))[0].tobytes() == np.array(points).tobytes()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_no_rows(kind: Any) -> None:
    for column in (pa.array([], kind), pa.nulls(0, kind), pa.chunked_array([], kind), pa.chunked_array([pa.array([], kind)] * 2)):
        coords, *offsets = ragged_from_wkb(column)
        assert (coords.shape, str(coords.dtype)) == ((0, 2), "float64")
        assert [(o.tolist(), str(o.dtype)) for o in offsets] == [([0], "int64")] * 3


RECORDED = [
    ("planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet", "sentinel-2"),
    ("planetary-computer__landsat-8-c2-l2.ndjson.gz", "landsat-8-9"),
    ("dlr__ENMAP_HSI_L2A.ndjson.gz", "enmap"),
]


@pytest.mark.parametrize(("name", "key"), RECORDED)
def test_recorded_scenes_come_out_bit_for_bit_as_by_way_of_objects(name: str, key: str) -> None:
    collector = SceneCollector(COVERAGE_SENSORS[key])
    collector.add(read_items(name))
    scenes = collector.finish()
    shapes = shapely.from_wkb(scenes["geometry"].to_numpy(zero_copy_only=False))
    assert len(shapes) >= 10
    assert_same(ragged_from_wkb(scenes["geometry"]), expected(shapes))
    cloud = scenes["cloud_cover"].to_numpy(zero_copy_only=False)
    day = np.array([when.day for when in scenes["pass_time"].to_pylist()])
    grid = GridSpec(0.25)
    statistics = cell_statistics(shapes, day=day, cloud=cloud, clear=cloud < 10, grid=grid)
    table = availability_table(scenes, grid, cloud_lt=10)
    for column in table.column_names:  # tables with NaN never equal themselves
        assert table[column].to_numpy().tobytes() == cell_table(statistics)[column].to_numpy().tobytes(), column
    again = np.full(grid.shape, np.nan)
    for cells, values in latest_in_bands(*ragged_from_wkb(scenes["geometry"]), value=day, grid=grid):
        again.reshape(-1)[cells] = values
    assert again.tobytes() == latest_in_cells(shapes, value=day, grid=grid).tobytes()


def test_no_footprint_becomes_an_object_on_its_way_to_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = pa.table({
        "pass_time": pa.array([0], SCENES_SCHEMA.field("pass_time").type),
        "in_month": pa.array([True]),
        "cloud_cover": pa.array([None], pa.float64()),
        "geometry": pa.array([shapely.to_wkb(box(0, 0, 1, 1))]),
    })  # fmt: skip

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an object was made")

    for name in ("from_wkb", "to_ragged_array", "polygons"):
        monkeypatch.setattr(shapely, name, refuse)
    assert availability_table(scenes, GridSpec(1.0), cloud_lt=10)["cell"].to_pylist() == [90 * 360 + 180]


# --- WKB that can't be read ---


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "ends within a header or a count, 5 bytes too early"),
        (head(3), "ends within a header or a count, 4 bytes too early"),
        (bytes([2]) + TRIANGLE[1:], "byte order 2"),
        (shapely.to_wkb(shapely.Point(1, 2)), "type code 1,"),
        (shapely.to_wkb(shapely.LineString([(0, 0), (1, 1), (0, 0)])), "type code 2,"),
        (shapely.to_wkb(shapely.GeometryCollection([PARTS])), "type code 7,"),
        (head(4003) + TRIANGLE[5:], "type code 4003,"),
        (head(0x10000003) + TRIANGLE[5:], "type code 268435459,"),
        (head(17) + u32(1) + TRIANGLE, "type code 17,"),
        (head(6) + u32(1) + head(6) + u32(1) + TRIANGLE, "a part of the MultiPolygon has type code 6"),
        (head(6) + u32(1) + head(7) + u32(1) + TRIANGLE, "a part of the MultiPolygon has type code 7"),
        (head(6) + u32(2) + TRIANGLE + b"\x07" + TRIANGLE[1:], "byte order 7"),
        (shapely.to_wkb(Polygon()), "empty"),
        (shapely.to_wkb(MultiPolygon()), "empty"),
        (head(6) + u32(2) + TRIANGLE + shapely.to_wkb(Polygon()), "empty"),
        (head(3) + u32(2) + ring() + u32(0), "empty"),
        (head(3) + u32(0xFFFFFFFF) + ring(), "counts 4294967295 parts"),
        (head(6) + u32(0xFFFFFFFF) + TRIANGLE, "counts 4294967295 parts"),
        (head(3) + u32(1) + u32(0x10000001) + ring()[4:], "counts 268435457 parts"),  # times 16 is 16 in 32 bits
        (head(3) + u32(1) + u32(5) + ring()[4:], "counts 5 parts"),
        (head(1003) + TRIANGLE[5:], "counts 4 parts"),
        (head(3) + u32(1) + ring(2), "a ring has 2 vertices"),
        (head(3) + u32(1) + ring()[:-1] + b"\x01", "a ring is open"),
        (head(3) + u32(1) + u32(3) + np.full((3, 2), np.nan).tobytes(), "a ring is open"),  # NaN is not itself, as GEOS has it
        (TRIANGLE + b"\0", "1 bytes follow its end"),
        (head(0x20000003) + b"\0\0", "ends within a header or a count, 2 bytes too early"),
    ],
)  # fmt: skip
def test_unsound_wkb_is_refused_with_its_row_and_why(value: bytes, why: str) -> None:
    # what stands around it is sound, and is never read in its place
    column = pa.chunked_array([[TRIANGLE], [], [TRIANGLE, TRIANGLE, value, TRIANGLE]], pa.binary())
    with pytest.raises(ValueError, match=rf"geometry of row 3 can't be read from its WKB: {why}"):
        ragged_from_wkb(column)
    with pytest.raises(ValueError, match="geometry of row 0 "):
        ragged_from_wkb(pa.array([value], pa.large_binary()))


def test_a_missing_value_is_refused() -> None:
    column = pa.chunked_array([[TRIANGLE, TRIANGLE], [None, TRIANGLE, None]], pa.binary())
    with pytest.raises(ValueError, match="geometry of row 2 is missing"):
        ragged_from_wkb(column)
    with pytest.raises(ValueError, match="geometry of row 1 is missing"):
        ragged_from_wkb(column.chunk(1).slice(1))
    assert len(ragged_from_wkb(column.slice(3, 1))[0]) == 4
    with pytest.raises(ValueError, match="geometry of row 0 is missing"):
        ragged_from_wkb(pa.nulls(3, pa.binary()))


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(5), pa.int64(), pa.null()])
def test_other_columns_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="a WKB column is binary or large_binary, this one is"):
        ragged_from_wkb(pa.nulls(0, kind))


@pytest.mark.parametrize("middle", [-1, -(2**31), 76, 155, 2**31 - 1])
def test_arrow_offsets_that_lead_outside_are_refused(middle: int) -> None:
    """Arrow looks at the first and the last offset of an array it is given, not at those between."""
    for kind, width in ((pa.binary(), np.int32), (pa.large_binary(), np.int64)):
        offsets = np.array([0, len(TRIANGLE), middle, 2 * len(TRIANGLE)], width)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(TRIANGLE * 2)]
        with pytest.raises(ValueError, match="geometry of row 1 can't be read from its WKB: the Arrow offsets lead outside"):
            ragged_from_wkb(pa.Array.from_buffers(kind, 3, buffers))


def variants() -> list[bytes]:
    lifted = shapely.set_srid(shapely.force_3d(PARTS, 1.0), 4326)
    return [
        shapely.to_wkb(HOLED),
        shapely.to_wkb(PARTS, byte_order=BIG),
        shapely.to_wkb(lifted, include_srid=True, flavor="extended"),
        shapely.to_wkb(lifted, byte_order=BIG, flavor="iso"),
    ]


def test_every_truncation_is_refused() -> None:
    for value in variants():
        for length in range(len(value)):
            with pytest.raises(ValueError, match=r"geometry of row 1 can't be read from its WKB: (ends|counts)"):
                ragged_from_wkb(pa.array([TRIANGLE, value[:length], value[length:]]))


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(variants()), st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4))
def test_what_is_read_of_altered_wkb_is_what_geos_reads(value: bytes, changes: list[tuple[int, int]]) -> None:
    altered = bytearray(value)
    for place, change in changes:
        altered[place % len(value) if place % 2 else place % 60] ^= change  # half of them among the headers
    try:
        found = ragged_from_wkb(pa.array([bytes(altered)]))
    except ValueError:
        return
    assert_same(found, expected([shapely.from_wkb(bytes(altered))]))


CHECKED = """
import sys
import numba
import numpy as np
import pyarrow as pa
from coverage_pipeline.geometry.wkb import ragged_from_wkb
from tests.geometry.test_wkb import variants

@numba.njit
def beyond(values, i):
    return values[i]

try:
    beyond(np.zeros(1), 1)
except IndexError:
    pass
else:
    sys.exit("bounds are not checked")

rng = np.random.default_rng(11)
read = 0
for value in variants():
    cases = [value[:length] for length in range(len(value) + 1)]
    for _ in range(4000):
        altered = np.frombuffer(value, np.uint8).copy()
        n = rng.integers(1, 5)
        altered[rng.integers(0, rng.choice([10, 60, len(value)]), n)] = rng.choice([0, 1, 3, 6, 127, 128, 255, rng.integers(256)], n)
        cases.append(altered.tobytes()[: rng.choice([len(value), rng.integers(len(value) + 1)])])
    cases += [rng.bytes(rng.integers(200)) for _ in range(500)]
    for case in cases:
        try:
            coords, rings, polygons, rows = ragged_from_wkb(pa.array([case], pa.binary()))
        except ValueError:
            continue
        read += 1
        assert rows[-1] == len(polygons) - 1 and polygons[-1] == len(rings) - 1 and rings[-1] == len(coords)
        assert min(np.diff(rows).min(), np.diff(polygons).min()) >= 1 and np.diff(rings).min() >= 3
print(read)
"""


def test_hostile_wkb_never_leads_outside_the_buffers(tmp_path: Path) -> None:
    """The kernel compiled with bounds checks (in a cache of its own: the usual one holds the code without), on some 20,000 values."""
    done = subprocess.run(
        [sys.executable, "-c", CHECKED],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr or done.stdout
    assert int(done.stdout) > 100
