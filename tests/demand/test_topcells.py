"""The cells with the most of something, against sums made one row at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import boto3
import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from coverage_pipeline.demand.topcells import TopBy, TopCellsError, notes, top_cells
from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.grid.celltable import CELL_SCHEMA
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HeldMetadata
from coverage_pipeline.holdings.statistics import HELD_SCHEMA
from coverage_pipeline.matchup.metadata import UnheldMetadata
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.metadata import AvailableMetadata
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.metadata import CellsMetadata
from coverage_pipeline.storage.store import StatsLayer, Store
from coverage_pipeline.storage.tables import write_cells

GRID = GridSpec(30.0)
HEXAGONS = GridSpec(h3_res=1)
MONTHS = tuple(Month(2025, m) for m in (1, 2, 3))
SENSORS = ("emit", "enmap")
BY: tuple[TopBy, ...] = get_args(TopBy)

Cells = Mapping[int, tuple[int, int, int, int, int]]
"""By cell: scenes, clear, unknown, and masks of the days and the clear days."""


@pytest.fixture(scope="module")
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def write_stats(
    store: Store,
    sensor: str,
    month: Month,
    cells: Cells,
    *,
    layer: StatsLayer = "available",
    grid: GridSpec = GRID,
    schema: pa.Schema = CELL_SCHEMA,
    **status: str,
) -> None:
    """A statistics file as the assets leave it."""
    rows = [
        {"cell": cell, "scenes": scenes, "clear": clear, "unknown": unknown, "cloud_mean": 5.0, "days": days, "clear_days": clear_days}
        | {"unknown_days": 0, "last_held": 1.7e9}
        for cell, (scenes, clear, unknown, days, clear_days) in sorted(cells.items())
    ]
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)
    of_partition: dict[str, Any] = {"sensor": sensor, "run": f"{sensor} {month}", "grid": grid.describe(), "cloud_lt": 10.0, "cells": 0}
    scanned = {"scanned_at": "2025-04-01T00:00:00Z", "bbox": None, "scenes": len(cells)}
    if layer == "available":
        window = {"start": f"{month}-01T00:00:00Z", "end": f"{month.shift(1)}-01T00:00:00Z"}
        of_partition |= scanned | window | {"status": "complete", "provider": "example.org", "cloud": "percentage"}
        kind: type[CellsMetadata] = AvailableMetadata
    elif layer == "held":
        read = {"read_at": "2025-04-01T00:00:00Z", "source": "a file", "reason": "", "lookback_months": 24}
        of_partition |= read | {"month": month.key, "status": "read", "matchup_run": "a matchup"}
        kind = HeldMetadata
    else:
        counts = dict.fromkeys(("held", "held_in_part", "held_by_key", "house_ids", "held_not_in_catalog"), 0)
        limits = {"min_iou": 0.5, "min_cover": 0.9, "tolerance_seconds": 60.0}
        runs = {"scan_run": "a scan", "holdings_run": "an extract", "warnings": []}
        of_partition |= scanned | counts | limits | runs | {"month": month.key, "holdings_status": "read", "scan_status": "complete"}
        kind = UnheldMetadata
    write_cells(store.stats(layer, sensor, month), schema, [table], kind(**{**of_partition, **status}))


def plain(files: Mapping[Any, Cells], by: TopBy, limit: int) -> list[tuple[int, int, int]]:
    """Cell, value and partitions, the most first, ties by cell."""
    values: dict[int, int] = defaultdict(int)
    partitions: dict[int, int] = defaultdict(int)
    for cells in files.values():
        for cell, (scenes, clear, unknown, days, clear_days) in cells.items():
            counts = {"scenes": scenes, "clear": clear, "unknown": unknown}
            masks = {"observations": days, "clear_observations": clear_days}
            values[cell] += counts[by] if by in counts else masks[by].bit_count()
            partitions[cell] += 1
    ordered = sorted(values, key=lambda cell: (-values[cell], cell))
    return [(cell, values[cell], partitions[cell]) for cell in ordered[:limit]]


def placed(table: pa.Table, grid: GridSpec = GRID) -> list[tuple[int, int, int]]:
    """The answer with the number of the cell in place of its centre."""
    rows = table.to_pylist()
    if grid.h3_res is not None:
        assert set(table.column_names) == {"lat", "lon", "cell_id", "value", "partitions"}
        ids = grid.cell_ids.tolist()
        cells = [ids.index(row["cell_id"]) for row in rows]
        assert [(row["lat"], row["lon"]) for row in rows] == [(grid.lats[c], grid.lons[c]) for c in cells]
    else:
        assert table.column_names == ["lat", "lon", "value", "partitions"]
        lats, lons = grid.lats.tolist(), grid.lons.tolist()
        cells = [lats.index(row["lat"]) * len(lons) + lons.index(row["lon"]) for row in rows]
    return [(cell, row["value"], row["partitions"]) for cell, row in zip(cells, rows, strict=True)]


# Few cells and small numbers, so that ties are met; days up to the 31st
_masks = st.integers(0, 2**31 - 1)
_counts = st.integers(0, 4)
_cells = st.dictionaries(st.integers(0, 71), st.tuples(_counts, _counts, _counts, _masks, _masks), max_size=6)


@settings(max_examples=40, deadline=None)
@given(
    files=st.dictionaries(st.tuples(st.sampled_from(SENSORS), st.sampled_from(MONTHS)), _cells, min_size=1),
    layer=st.sampled_from(get_args(StatsLayer)),
    by=st.sampled_from(BY),
    limit=st.integers(1, 8),
)
def test_it_is_what_sums_row_by_row_say(
    db: duckdb.DuckDBPyConnection,
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[tuple[str, Month], Cells],
    layer: StatsLayer,
    by: TopBy,
    limit: int,
) -> None:
    store = Store.below(tmp_path_factory.mktemp("top"))
    for (sensor, month), cells in files.items():
        write_stats(store, sensor, month, cells, layer=layer, schema=HELD_SCHEMA if layer == "held" else CELL_SCHEMA)
    table = top_cells(db, store, layer, by, SENSORS, MONTHS, GRID, limit=limit)
    assert placed(table) == plain(files, by, limit)
    assert [str(field.type) for field in table.schema] == ["double", "double", "int64", "int64"]


CELLS: Cells = {5: (3, 1, 0, 0b111, 0b1), 7: (3, 2, 1, 0b1, 0b1), 70: (1, 1, 0, 1 << 30, 1 << 30)}


@pytest.mark.parametrize("by", BY)
def test_each_sum_over_sensors_and_months(db: duckdb.DuckDBPyConnection, tmp_path: Path, by: TopBy) -> None:
    store = Store.below(tmp_path)
    files = {("emit", MONTHS[0]): CELLS, ("emit", MONTHS[2]): {7: (1, 0, 0, 3, 0)}, ("enmap", MONTHS[0]): {5: (0, 0, 9, 0, 0)}}
    for (sensor, month), cells in files.items():
        write_stats(store, sensor, month, cells)
    assert placed(top_cells(db, store, "available", by, SENSORS, MONTHS, GRID)) == plain(files, by, 20)


def test_sums_beyond_32_bits_are_whole(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store, most = Store.below(tmp_path), 2**31 - 1
    for month in MONTHS:
        write_stats(store, "emit", month, {1: (most, 0, 0, 0, 0)})
    table = top_cells(db, store, "available", "scenes", ["emit"], MONTHS, GRID)
    assert table["value"].to_pylist() == [3 * most]


def test_ties_are_by_cell_and_the_limit_cuts_after_them(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "emit", MONTHS[0], dict.fromkeys((60, 3, 41, 12), (2, 0, 0, 0, 0)) | {50: (9, 0, 0, 0, 0)})
    table = top_cells(db, store, "available", "scenes", ["emit"], MONTHS, GRID, limit=3)
    assert placed(table) == [(50, 9, 1), (3, 2, 1), (12, 2, 1)]
    lat, lon = (float(table[name][0].as_py()) for name in ("lat", "lon"))
    assert (lat, lon) == (45.0, -105.0)  # cell 50: row 4 from the south, column 2 from the west


def test_months_without_a_cell_are_no_error(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    for grid, sensor in ((GRID, "emit"), (HEXAGONS, "enmap")):
        write_stats(store, sensor, MONTHS[0], {}, grid=grid)
        assert placed(top_cells(db, store, "available", "clear", [sensor], MONTHS, grid), grid) == []


def test_h3_cells_come_with_their_id(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    last = HEXAGONS.shape[0] - 1
    files = {("emit", MONTHS[0]): {0: (1, 0, 0, 0, 0), last: (4, 0, 0, 0, 0)}, ("emit", MONTHS[1]): {17: (4, 0, 0, 0, 0)}}
    for (sensor, month), cells in files.items():
        write_stats(store, sensor, month, cells, grid=HEXAGONS)
    table = top_cells(db, store, "available", "scenes", ["emit"], MONTHS, HEXAGONS)
    assert placed(table, HEXAGONS) == plain(files, "scenes", 20)
    assert table["cell_id"].type == pa.uint64()
    assert table["cell_id"].to_pylist() == HEXAGONS.cell_ids[[17, last, 0]].tolist()
    assert table.column_names == ["lat", "lon", "cell_id", "value", "partitions"]  # as top_cells says of itself


def test_a_region_has_its_own_places(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store, region = Store.below(tmp_path), GridSpec(1.0, extent=(5, 45, 16, 56))
    write_stats(store, "emit", MONTHS[0], {0: (1, 0, 0, 0, 0), 12: (2, 0, 0, 0, 0)}, grid=region)
    rows = top_cells(db, store, "available", "scenes", ["emit"], MONTHS, region).to_pylist()
    assert [(row["lat"], row["lon"]) for row in rows] == [(46.5, 6.5), (45.5, 5.5)]


# What cannot be asked


def test_an_unknown_sum_is_refused_before_anything_is_read(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for by in ("cloud_mean", "", "sum(scenes); DROP TABLE x", "SCENES"):
        with pytest.raises(TopCellsError, match="choose one of scenes, clear, unknown, observations, clear_observations"):
            top_cells(db, Store.below(tmp_path), "available", by, ["emit"], MONTHS, GRID)  # type: ignore[arg-type]


def test_nothing_materialised_says_of_what_and_where(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "emit", MONTHS[0], CELLS)
    with pytest.raises(TopCellsError, match=r"no unheld statistics of emit, enmap in 2025-01\.\.2025-03 at .*: materialise them first"):
        top_cells(db, store, "unheld", "scenes", SENSORS, MONTHS, GRID)
    for sensors, months in ((["enmap"], MONTHS), (["emit"], MONTHS[1:]), ([], MONTHS), (["emit"], [])):
        with pytest.raises(TopCellsError, match="no available statistics"):
            top_cells(db, store, "available", "scenes", sensors, months, GRID)


@pytest.mark.parametrize("other", [GridSpec(10.0), GridSpec(30.0, rule="center"), GridSpec(30.0, extent=(0, 0, 60, 60)), HEXAGONS], ids=str)
def test_cells_of_two_grids_are_never_added(db: duckdb.DuckDBPyConnection, tmp_path: Path, other: GridSpec) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "emit", MONTHS[0], CELLS)
    write_stats(store, "emit", MONTHS[1], {0: (1, 0, 0, 0, 0)}, grid=other)
    with pytest.raises(TopCellsError, match=r"2025-02\.parquet was made on another grid than 30 degrees, rule touch"):
        top_cells(db, store, "available", "scenes", ["emit"], MONTHS, GRID)


def test_a_file_that_cannot_be_read_is_not_left_out(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    for month in MONTHS:
        write_stats(store, "emit", month, CELLS)
    broken = Path(store.stats("available", "emit", MONTHS[1]).path)
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"cannot read .*2025-02\.parquet"):
        top_cells(db, store, "available", "scenes", ["emit"], MONTHS, GRID)


@pytest.mark.parametrize("which", [0, 1], ids=["the first", "a later one"])
def test_statistics_without_a_column_are_refused_by_name(db: duckdb.DuckDBPyConnection, tmp_path: Path, which: int) -> None:
    """Nulls in its place would be summed as nothing, and the answer would look right."""
    store = Store.below(tmp_path)
    schema = pa.schema([field for field in CELL_SCHEMA if field.name != "unknown"])
    for k in (0, 1):
        write_stats(store, "emit", MONTHS[k], CELLS, schema=schema if k == which else CELL_SCHEMA)
    assert placed(top_cells(db, store, "available", "scenes", ["emit"], MONTHS, GRID))[0] == (5, 6, 2)
    with pytest.raises((TopCellsError, StoreError), match=rf"2025-0{which + 1}\.parquet.*unknown"):
        top_cells(db, store, "available", "unknown", ["emit"], MONTHS, GRID)


# What is not known


OFF = {"holdings_status": "off", "scan_status": "complete"}


def test_holdings_that_are_off_are_never_an_empty_answer(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "emit", MONTHS[0], {}, layer="unheld", **OFF)
    with pytest.raises(TopCellsError, match="what exists and is not held is not known: emit 2025-01: the holdings could not be reached"):
        top_cells(db, store, "unheld", "scenes", ["emit"], MONTHS, GRID)
    write_stats(store, "emit", MONTHS[0], {}, layer="held", schema=HELD_SCHEMA, status="off")
    with pytest.raises(TopCellsError, match="what is held is not known: emit 2025-01: the holdings could not be reached"):
        top_cells(db, store, "held", "scenes", ["emit"], MONTHS, GRID)


def test_a_sensor_without_a_catalogue_is_never_an_empty_answer(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "prisma", MONTHS[0], {}, status="not_applicable")
    write_stats(store, "prisma", MONTHS[0], {}, layer="unheld", holdings_status="read", scan_status="not_applicable")
    for layer, words in (("available", "what exists is not known"), ("unheld", "what exists and is not held is not known")):
        with pytest.raises(TopCellsError, match=f"{words}: prisma 2025-01: no public catalogue"):
            top_cells(db, store, layer, "scenes", ["prisma"], MONTHS, GRID)  # type: ignore[arg-type]


def test_a_sensor_that_is_not_in_our_holdings_is_a_known_zero(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "emit", MONTHS[0], {}, layer="held", schema=HELD_SCHEMA, status="not_held")
    table = top_cells(db, store, "held", "scenes", ["emit"], MONTHS[:1], GRID)
    assert table.num_rows == 0
    assert notes(table) == ["no cell has a scene in the 1 known partition"]


def test_partitions_that_are_not_known_are_named_beside_the_answer(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "emit", MONTHS[0], CELLS, layer="unheld", holdings_status="read", scan_status="complete")
    write_stats(store, "emit", MONTHS[1], {}, layer="unheld", **OFF)
    write_stats(store, "enmap", MONTHS[0], {}, layer="unheld", holdings_status="read", scan_status="provisional")
    table = top_cells(db, store, "unheld", "scenes", SENSORS, MONTHS[:2], GRID)
    assert placed(table) == [(5, 3, 1), (7, 3, 1), (70, 1, 1)]
    off, missing, provisional = notes(table)
    assert off == ("what exists and is not held is not known, and not counted here: emit 2025-02: the holdings could not be reached")
    assert missing == "not materialised, and not counted here: enmap 2025-02"
    assert provisional == "the scan is provisional or partial, so a cell that is not listed may have some: enmap 2025-01"


def test_an_empty_answer_of_a_provisional_scan_does_not_say_that_there_is_none(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "emit", MONTHS[0], {}, status="provisional")
    said = notes(top_cells(db, store, "available", "scenes", ["emit"], MONTHS[:1], GRID))
    assert said[0] == "no cell has a scene in the 1 known partition; more may be in what is not known"
    assert "provisional" in said[1]
    assert len(said) == 2


# Elsewhere than in a folder, and in words


def test_statistics_on_s3_are_read_where_they_are(db: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=(port := free_port()))
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()  # fsspec gives the one of another test again, which asks that one's server
        boto3.client("s3").create_bucket(Bucket="top")
        there, here = Store.below("s3://top/coverage"), Store.below(tmp_path)
        for store in (there, here):
            write_stats(store, "emit", MONTHS[0], CELLS)
            write_stats(store, "enmap", MONTHS[2], {7: (1, 1, 1, 1, 1)})
        remote, local = (top_cells(db, store, "available", "clear", SENSORS, MONTHS, GRID) for store in (there, here))
        assert remote.equals(local)
        assert placed(remote)[0] == (7, 3, 2)
    finally:
        server.stop()


def test_rows_are_what_dagster_shows_as_a_table(db: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    write_stats(store, "emit", MONTHS[0], CELLS)
    rows = top_cells(db, store, "available", "scenes", ["emit"], MONTHS[:1], GRID, limit=2).to_pylist()
    assert rows == [{"lat": -75.0, "lon": -15.0, "value": 3, "partitions": 1}, {"lat": -75.0, "lon": 45.0, "value": 3, "partitions": 1}]
    shown = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
    assert [column.name for column in shown.schema.columns] == ["lat", "lon", "value", "partitions"]
    assert np.isclose(GRID.lats[0], -75)
