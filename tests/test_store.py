"""Files that are complete or absent, whatever happens to their writer; and GeoParquet that others can read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS
from upath import UPath

from coverage_pipeline.catalog.scenes import REJECTED_SCHEMA, SCENES_SCHEMA
from coverage_pipeline.geoparquet import as_geoparquet
from coverage_pipeline.holdings import HOLDINGS_SCHEMA, LAST_SCHEMA
from coverage_pipeline.months import Month
from coverage_pipeline.store import METADATA_KEY, Store, StoreError, read_metadata, read_parquet, sibling, write_bytes, write_parquet

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
        from coverage_pipeline.store import write_bytes

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
