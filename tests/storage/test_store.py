"""Files that are complete or absent, whatever happens to their writer; GeoParquet that others can read; and files that are not as
they should be.
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS
from upath import UPath

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.grid.celltable import CELL_SCHEMA
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import cell_statistics
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA, LAST_SCHEMA
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import REJECTED_SCHEMA, SCENES_SCHEMA
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.files import write_bytes
from coverage_pipeline.storage.metadata import METADATA_KEY
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_cells, read_metadata, read_parquet, write_cells, write_parquet
from tests.cell_files import CellFile
from tests.pipeline.test_migrate import JANUARY, planner_in, scenes_of, write_scenes

TABLE = pa.table({"number": pa.array([1, 2, 3], pa.int16())})


@pytest.fixture
def path(tmp_path: Path) -> UPath:
    return UPath(tmp_path / "catalog" / "emit" / "2025-01.parquet")


# Complete or absent


def test_a_file_is_written_read_and_replaced(path: UPath) -> None:
    write_parquet(path, TABLE, {"sensor": "emit", "bbox": None})
    table, metadata = read_parquet(path)
    assert table.equals(TABLE, check_metadata=False)
    assert metadata == {"sensor": "emit", "bbox": None} == read_metadata(path)
    write_parquet(path, TABLE.slice(1), {"sensor": "emit"})
    assert read_parquet(path, columns=["number"])[0]["number"].to_pylist() == [2, 3]
    assert [entry.name for entry in path.parent.iterdir()] == ["2025-01.parquet"]


@pytest.mark.parametrize("former", [b"the former file", None])
def test_a_killed_writer_leaves_the_former_file_or_none(tmp_path: Path, former: bytes | None) -> None:
    target = tmp_path / "file.parquet"
    if former is not None:
        target.write_bytes(former)
    script = textwrap.dedent(
        """
        import os, pathlib, signal, sys
        from upath import UPath
        from coverage_pipeline.storage.files import write_bytes

        def killed(self, target):  # between the temporary file and its new name
            assert self.read_bytes() == b"new" * 100_000
            os.kill(os.getpid(), signal.SIGKILL)

        pathlib.Path.replace = killed
        write_bytes(UPath(sys.argv[1]), b"new" * 100_000)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script, str(target)], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert (target.read_bytes() if target.exists() else None) == former
    # what it left is no Parquet file to anyone, and the next run goes on
    assert not [p for p in tmp_path.glob("*.parquet") if p != target]
    write_bytes(UPath(target), b"next")
    assert target.read_bytes() == b"next"


def test_a_failed_writer_leaves_the_former_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_bytes(UPath(target), b"former")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_bytes(UPath(target), b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"former"


def test_writers_at_once_leave_one_whole_file(path: UPath) -> None:
    contents = [bytes([k]) * 300_000 for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_bytes(path, content), contents * 4))
    assert path.read_bytes() in contents
    assert len(list(path.parent.iterdir())) == 1


def test_an_unwritable_place_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="COVERAGE_DATA"):
        write_parquet(UPath(tmp_path / "file" / "below.parquet"), TABLE, {})
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(StoreError, match="COVERAGE_DATA"):
        write_parquet(UPath(tmp_path / "folder.parquet"), TABLE, {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.parquet"]


# Reading


def test_a_missing_file_says_what_to_do(path: UPath) -> None:
    for read in (read_parquet, read_metadata):
        with pytest.raises(StoreError, match="does not exist yet"):
            read(path)


def test_a_file_that_is_cut_short_or_not_ours_is_refused(path: UPath) -> None:
    write_parquet(path, TABLE, {})
    path.write_bytes(path.read_bytes()[:-20])
    for read in (read_parquet, read_metadata):
        with pytest.raises(StoreError, match="cannot read"):
            read(path)
    write_bytes(path, b"")
    with pytest.raises(StoreError, match="cannot read"):
        read_parquet(path)
    pq.write_table(TABLE, str(path))
    with pytest.raises(StoreError, match="not written by the coverage planner"):
        read_parquet(path)


def test_object_stores_are_written_too() -> None:
    store = Store.below("memory://test-store/data")
    target = store.scenes("emit", Month(2025, 1))
    write_parquet(target, TABLE, {"sensor": "emit"})
    assert read_parquet(target)[0].num_rows == 3
    assert target.path.endswith("data/catalog/emit/2025-01.parquet")
    assert store.requests == Path("data/requests.sqlite")  # SQLite needs a folder of this machine


# Cell statistics


def cells_table(first: int, number: int) -> pa.Table:
    """A piece of statistics: ``number`` cells one after another, every other one."""
    rng = np.random.default_rng(first)
    columns = {field.name: rng.integers(0, 9, number) for field in CELL_SCHEMA}
    columns["cell"] = first + 2 * np.arange(number)
    return pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in CELL_SCHEMA}, schema=CELL_SCHEMA)


GROUP = 1 << 18
"""Rows of a row group."""


def test_cells_that_come_in_pieces_are_one_table_with_its_metadata(path: UPath) -> None:
    pieces = [cells_table(0, 10), CELL_SCHEMA.empty_table(), cells_table(100, 7), cells_table(1000, 1)]
    returned = write_cells(path, CELL_SCHEMA, iter(pieces), CellFile(run="a scan"))
    table, metadata = read_cells(path)
    assert table.schema.equals(CELL_SCHEMA)
    assert table.equals(pa.concat_tables(pieces), check_metadata=False)
    assert returned == CellFile.of(metadata) == CellFile.of(read_metadata(path)) == CellFile(run="a scan", cells=18)
    assert [entry.name for entry in path.parent.iterdir()] == ["2025-01.parquet"]
    write_cells(path, CELL_SCHEMA, iter([]), CellFile(run="another"))
    table, metadata = read_cells(path)
    assert (table.num_rows, CellFile.of(metadata)) == (0, CellFile(run="another", cells=0))
    assert table.schema.equals(CELL_SCHEMA)
    assert read_cells(path, 0, 10)[0].num_rows == 0


def test_one_piece_is_asked_for_at_a_time(path: UPath) -> None:
    """A fine grid's month does not fit in memory: none of its pieces may be kept."""
    written: list[int] = []

    def pieces() -> Iterator[pa.Table]:
        for k in range(4):
            (temporary,) = path.parent.iterdir()
            assert temporary.name.endswith(".tmp")
            written.append(temporary.stat().st_size)
            yield cells_table(k * 2_000_000, GROUP)

    write_cells(path, CELL_SCHEMA, pieces(), CellFile())
    assert written == sorted(set(written))  # every piece was on the disk before the next was made
    assert len(written) == 4
    assert pq.ParquetFile(str(path)).num_row_groups == 4


def test_a_range_is_what_a_filter_of_the_whole_gives(path: UPath) -> None:
    pieces = [cells_table(0, 300), cells_table(600, 1), cells_table(700, 500)]
    write_cells(path, CELL_SCHEMA, pieces, CellFile(run="a scan"))
    whole = pa.concat_tables(pieces)
    cell = whole["cell"].to_numpy()
    for first, end in [(0, 10_000), (0, 1), (598, 601), (599, 600), (600, 601), (601, 700), (700, 702), (1698, 1699), (5000, 6000), (9, 9)]:
        table, metadata = read_cells(path, first, end)
        assert table.equals(whole.filter(pa.array((cell >= first) & (cell < end))), check_metadata=False), (first, end)
        assert CellFile.of(metadata) == CellFile(run="a scan", cells=801)


def test_a_range_reads_its_own_row_groups_alone(path: UPath) -> None:
    """Others are spoilt here, and nobody notices who does not ask for them."""
    pieces = [cells_table(k * 2 * GROUP, GROUP) for k in range(3)]
    write_cells(path, CELL_SCHEMA, [pa.concat_tables(pieces)], CellFile())  # cut by the writer, not by the pieces
    file = pq.ParquetFile(str(path))
    assert [file.metadata.row_group(k).num_rows for k in range(3)] == [GROUP] * 3
    limits = [(s.min, s.max) for s in (file.metadata.row_group(k).column(0).statistics for k in range(3))]
    assert limits == [(2 * k * GROUP, 2 * (k + 1) * GROUP - 2) for k in range(3)]
    content = bytearray(Path(path.path).read_bytes())
    for k in (0, 2):
        for column in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(k).column(column)
            start = min(o for o in (chunk.data_page_offset, chunk.dictionary_page_offset) if o)
            content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    Path(path.path).write_bytes(content)
    assert read_cells(path, 2 * GROUP, 4 * GROUP)[0].equals(pieces[1], check_metadata=False)
    assert read_cells(path, 2 * GROUP + 10, 2 * GROUP + 14)[0]["cell"].to_pylist() == [2 * GROUP + 10, 2 * GROUP + 12]
    for first, end in [(None, None), (0, 10), (4 * GROUP - 2, 4 * GROUP + 1)]:
        with pytest.raises(StoreError, match="cannot read"):
            read_cells(path, first, end)


@pytest.mark.parametrize("former", [True, False])
@pytest.mark.parametrize("error", [ValueError("no such geometry"), KeyboardInterrupt(), OSError(5, "Input/output error")], ids=repr)
def test_pieces_that_end_midway_leave_the_former_file_and_nothing_else(path: UPath, error: BaseException, former: bool) -> None:
    if former:
        write_cells(path, CELL_SCHEMA, [cells_table(0, 3)], CellFile(run="former"))

    def pieces() -> Iterator[pa.Table]:
        yield cells_table(0, GROUP)
        raise error

    with pytest.raises(StoreError if isinstance(error, OSError) else type(error)):
        write_cells(path, CELL_SCHEMA, pieces(), CellFile(run="new"))
    assert [entry.name for entry in path.parent.iterdir()] == (["2025-01.parquet"] if former else [])
    if former:
        assert CellFile.of(read_cells(path)[1]) == CellFile(run="former", cells=3)


def test_a_piece_of_another_schema_leaves_the_former_file(path: UPath) -> None:
    write_cells(path, CELL_SCHEMA, [cells_table(0, 3)], CellFile())
    for wrong in (cells_table(3, 2).drop_columns(["days"]), cells_table(3, 2).rename_columns([f"_{n}" for n in CELL_SCHEMA.names])):
        with pytest.raises(ValueError, match="schema"):
            write_cells(path, CELL_SCHEMA, [wrong], CellFile())
    assert read_cells(path)[0].num_rows == 3
    assert len(list(path.parent.iterdir())) == 1


def test_a_full_disk_leaves_the_former_cells(path: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cells(path, CELL_SCHEMA, [cells_table(0, 3)], CellFile())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"No space left.*COVERAGE_DATA"):
        write_cells(path, CELL_SCHEMA, [cells_table(0, 4)], CellFile())
    assert read_cells(path)[0].num_rows == 3
    assert len(list(path.parent.iterdir())) == 1


def test_cells_on_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = Store.below(f"memory://cells-{tmp_path.name}/data").stats("held", "emit", Month(2025, 1))
    write_cells(target, CELL_SCHEMA, [cells_table(0, 5), cells_table(50, 5)], CellFile(run="a scan"))
    assert read_cells(target, 4, 53)[0]["cell"].to_pylist() == [4, 6, 8, 50, 52]

    def pieces() -> Iterator[pa.Table]:
        yield cells_table(0, 5)
        raise ValueError("no such geometry")

    with pytest.raises(ValueError, match="no such geometry"):
        write_cells(target, CELL_SCHEMA, pieces(), CellFile(run="new"))
    assert CellFile.of(read_cells(target)[1]) == CellFile(run="a scan", cells=10)
    assert not list(tmp_path.iterdir())


def test_a_month_of_a_narrow_swath_is_kilobytes(path: UPath) -> None:
    """EMIT, some 2,500 scenes of 75 km a month in strips along its track."""
    rng = np.random.default_rng(0)
    along = np.repeat(rng.uniform(0, 360, 420), 6) + np.tile(np.arange(6) * 0.7, 420)
    south = 51.6 * np.sin(np.radians(along)) - 0.35
    west = np.repeat(rng.uniform(-179, 173, 420), 6) + np.tile(np.arange(6) * 0.6, 420)
    boxes = shapely.box(west, south, west + 0.7, south + 0.7)
    cloud = rng.uniform(0, 100, len(boxes))
    day = np.repeat(rng.integers(1, 31, 420), 6).astype(np.uint8)
    made = cell_statistics(boxes, day=day, cloud=cloud, clear=cloud < 10, grid=GridSpec(0.1))
    table = pa.table({field.name: getattr(made, field.name) for field in CELL_SCHEMA}, schema=CELL_SCHEMA)
    write_cells(path, CELL_SCHEMA, [table], CellFile(run="a scan"))
    assert table.num_rows > 100_000
    size = path.stat().st_size
    assert size < 500_000
    assert size < table.nbytes / 8
    assert read_cells(path)[0].equals(table, check_metadata=False)


# Files of another version, or spoilt by someone


Change = Callable[[pa.Table], pa.Table]


def without(name: str) -> Change:
    return lambda table: table.drop_columns([name])


def as_type(name: str, kind: pa.DataType) -> Change:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array(
            [None if v is None else v.hex() if isinstance(v, bytes) else str(v) for v in table[name].to_pylist()], pa.string()
        )
        return table.set_column(table.schema.get_field_index(name), name, column.cast(kind) if kind != pa.string() else column)

    return change


def rewrite(path: UPath, change: Change) -> None:
    """A file of ours, changed, with its metadata as it was."""
    table, metadata = read_parquet(path)
    write_parquet(path, change(table), metadata)


@pytest.fixture
def january(tmp_path: Path) -> Any:
    """A planner whose January has scenes and holdings, all known, and nothing made of them yet."""
    held = gpd.GeoDataFrame(
        {"datetime": ["2025-01-03T00:00:00Z"], "sensor": ["MINE"], "cloud": [1.0]}, geometry=SHAPES[:1], crs="EPSG:4326"
    )
    held.to_parquet(tmp_path / "holdings.parquet")
    planner = planner_in(tmp_path, sensors={"keys": ["mine"]}, window={"end": "2025-01-31"})
    write_scenes(planner, JANUARY, scenes_of(JANUARY, 0))
    planner.holdings(planner.sensors["mine"], JANUARY)
    planner.ensure_cube()
    return planner


SPOILT_SCENES = [
    ("pass_time", without("pass_time")),
    ("cloud_cover", without("cloud_cover")),
    ("geometry", without("geometry")),
    ("pass_time", as_type("pass_time", pa.string())),
    ("cloud_cover", as_type("cloud_cover", pa.string())),
    ("geometry", as_type("geometry", pa.string())),
]


@pytest.mark.parametrize(
    ("column", "change"), SPOILT_SCENES, ids=[f"{how} {c}" for how in ("no", "text in") for c in ("pass_time", "cloud_cover", "geometry")]
)
@pytest.mark.parametrize("step", ["availability_stats", "matchup"])
def test_a_scenes_file_of_another_schema_is_named_with_what_to_do(january: Any, step: str, column: str, change: Change) -> None:
    path = january.store.scenes("mine", JANUARY)
    rewrite(path, change)
    with pytest.raises(StoreError, match=column) as refused:
        getattr(january, step)(january.sensors["mine"], JANUARY)
    assert str(path) in str(refused.value)
    assert "again" in str(refused.value)  # scan that month, or materialise what writes the file


def test_a_scenes_file_without_keys_cannot_be_matched(january: Any) -> None:
    path = january.store.scenes("mine", JANUARY)
    rewrite(path, without("scene_key"))
    with pytest.raises(StoreError, match="scene_key"):
        january.matchup(january.sensors["mine"], JANUARY)


@pytest.mark.parametrize(("kind", "column"), [("holdings", "in_month"), ("holdings", "cloud"), ("last_held", "datetime")])
def test_an_extract_of_another_schema_is_named(january: Any, kind: str, column: str) -> None:
    path = getattr(january.store, kind)("mine", JANUARY)
    rewrite(path, without(column))
    with pytest.raises(StoreError, match=column) as refused:
        january.holdings_stats(january.sensors["mine"], JANUARY)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("layer", "column"),
    [("available", "clear_days"), ("available", "cell"), ("held", "last_held"), ("held", "scenes"), ("unheld", "unknown_days")],
)
def test_statistics_without_a_column_never_reach_the_cube(january: Any, layer: Any, column: str) -> None:
    mine = january.sensors["mine"]
    for step in ("availability_stats", "matchup", "holdings_stats"):
        getattr(january, step)(mine, JANUARY)
    path = january.store.stats(layer, "mine", JANUARY)
    rewrite(path, without(column))
    with pytest.raises(PlannerError, match=column) as refused:
        january.coverage(mine, JANUARY)
    assert str(path) in str(refused.value)


def with_nan(vertices: tuple[int, ...]) -> bytes:
    """A box as WKB with NaN at some of its vertices, which shapely would not make."""
    content = bytearray(shapely.to_wkb(shapely.box(0, 0, 1, 1)))
    for vertex in vertices:  # after the byte order, the type, the number of rings and of vertices
        struct.pack_into("<2d", content, 13 + 16 * vertex, np.nan, np.nan)
    return bytes(content)


OFF_THE_MAP = [shapely.to_wkb(shapely.box(0, 80, 10, 100)), shapely.to_wkb(shapely.box(175, 0, 185, 5)), with_nan((2,)), with_nan((0, 4))]


@pytest.mark.parametrize("shape", OFF_THE_MAP, ids=["beyond 90", "beyond 180", "NaN", "begins with NaN"])
@pytest.mark.parametrize("step", ["availability_stats", "matchup"])
def test_footprints_off_the_map_are_refused_by_sensor_and_month(january: Any, step: str, shape: bytes) -> None:
    mine, path = january.sensors["mine"], january.store.scenes("mine", JANUARY)
    stats = january.store.stats("unheld" if step == "matchup" else "available", "mine", JANUARY)
    getattr(january, step)(mine, JANUARY)
    before = stats.read_bytes()
    table, metadata = read_parquet(path)
    spoilt = pa.array([*table["geometry"].to_pylist()[1:], shape], pa.binary())
    write_parquet(path, table.set_column(table.schema.get_field_index("geometry"), "geometry", spoilt), metadata)
    with pytest.raises(PlannerError, match="mine 2025-01"):
        getattr(january, step)(mine, JANUARY)
    assert stats.read_bytes() == before  # what is wrong never replaces what was right


# Where everything lies


def test_paths_below_one_root(tmp_path: Path) -> None:
    store, month = Store.below(tmp_path), Month(2025, 3)
    paths = [
        store.scenes("emit", month),
        sibling(store.scenes("emit", month), ".rejected.parquet"),
        store.holdings("emit", month),
        store.last_held("emit", month),
        store.stats("available", "emit", month),
        store.stats("unheld", "emit", month),
        store.matchup("emit", month),
        store.zarr,
        UPath(store.requests),
    ]
    assert [str(p.relative_to(tmp_path)) for p in paths] == [
        "catalog/emit/2025-03.parquet",
        "catalog/emit/2025-03.rejected.parquet",
        "holdings/emit/2025-03.parquet",
        "holdings/emit/2025-03.last.parquet",
        "stats/available/emit/2025-03.parquet",
        "stats/unheld/emit/2025-03.parquet",
        "matchup/emit/2025-03.parquet",
        "coverage.zarr",
        "requests.sqlite",
    ]
    elsewhere = Store.below(tmp_path, zarr=tmp_path / "z" / "c.zarr", parquet_dir=tmp_path / "p")
    assert elsewhere.zarr == UPath(tmp_path / "z" / "c.zarr")
    assert elsewhere.scenes("emit", month) == UPath(tmp_path / "p" / "emit" / "2025-03.parquet")


# GeoParquet


SHAPES = [
    shapely.box(5, 50, 6, 51),
    shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)]),
    shapely.box(-10, -80, 0, -70),
]


def _table() -> pa.Table:
    return pa.table({"name": ["a", "b", "c"], "geometry": pa.array(shapely.to_wkb(SHAPES), pa.binary())})


def test_metadata_is_that_of_geoparquet_1_1(path: UPath) -> None:
    write_parquet(path, as_geoparquet(_table()), {"sensor": "emit"})
    file = pq.ParquetFile(str(path))
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["edges"] == "planar"
    assert column["bbox"] == [-180, -80, 180, 51]
    assert CRS.from_json_dict(column["crs"]) == CRS.from_epsg(4326)
    assert column["covering"] == {"bbox": {corner: ["bbox", corner] for corner in ("xmin", "ymin", "xmax", "ymax")}}
    assert [field.name for field in file.schema_arrow.field("bbox").type] == ["xmin", "ymin", "xmax", "ymax"]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert json.loads(file.schema_arrow.metadata[METADATA_KEY]) == {"sensor": "emit"}
    table = read_parquet(path)[0]
    assert table["bbox"].to_pylist() == [dict(zip(("xmin", "ymin", "xmax", "ymax"), s.bounds, strict=True)) for s in SHAPES]


def test_geopandas_reads_it_and_prunes_by_the_covering(path: UPath) -> None:
    write_parquet(path, as_geoparquet(_table()), {})
    whole = gpd.read_parquet(str(path))
    assert whole.crs == "EPSG:4326"
    assert all(a.equals(b) for a, b in zip(whole.geometry, SHAPES, strict=True))
    assert gpd.read_parquet(str(path), bbox=(5.5, 50.5, 5.6, 50.6))["name"].tolist() == ["a"]
    assert gpd.read_parquet(str(path), bbox=(20, 0.2, 30, 0.3))["name"].tolist() == ["b"]  # its box spans the map, its footprint does not


@pytest.mark.parametrize("schema", [SCENES_SCHEMA, HOLDINGS_SCHEMA, LAST_SCHEMA])
def test_a_declared_schema_is_kept_without_a_row_too(path: UPath, schema: pa.Schema) -> None:
    write_parquet(path, as_geoparquet(schema.empty_table()), {})
    table, _ = read_parquet(path)
    assert table.select(schema.names).schema.equals(schema)
    assert len(gpd.read_parquet(str(path))) == 0
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == []
    assert "bbox" not in geo["columns"]["geometry"]  # no rows, no extent


def test_a_table_without_footprints_keeps_its_schema(path: UPath) -> None:
    write_parquet(path, REJECTED_SCHEMA.empty_table(), {})
    assert read_parquet(path)[0].schema.equals(REJECTED_SCHEMA)
