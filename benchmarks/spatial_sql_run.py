"""DuckDB's side of ``benchmarks.spatial_sql``, run by the Python of its environment; needs nothing but DuckDB and the extension.

    python spatial_sql_run.py --probe
    python spatial_sql_run.py FOOTPRINTS.parquet STATISTICS.parquet THREADS

The footprints have the columns day, cloud, clear and wkb. Prints for each query as JSON the seconds by the clock and of
the processor, from the Parquet file to a table of statistics, and writes that table.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import duckdb
import duckdb_extension_spatial

# The grid's rows and columns at 0.1 degrees, and its edges just as GridSpec computes them.
ROWS, COLUMNS = 1800, 3600
BOX = f"""ST_MakeEnvelope((cell % {COLUMNS} * 360)::DOUBLE / {COLUMNS} - 180, (cell // {COLUMNS} * 180)::DOUBLE / {ROWS} - 90,
    ((cell % {COLUMNS} + 1) * 360)::DOUBLE / {COLUMNS} - 180, ((cell // {COLUMNS} + 1) * 180)::DOUBLE / {ROWS} - 90)"""

SCENES = "scenes AS MATERIALIZED (SELECT day, cloud, clear, ST_GeomFromWKB(wkb) AS footprint FROM read_parquet($footprints))"

# A cell more on each side where a bound lies on an edge, or as near to one as rounding gets: what merely touches is found, too.
NEAR = "1e-6"
EXPANDED = f"""places AS (
      SELECT *, (ST_XMin(footprint) + 180) * {COLUMNS} / 360 AS west, (ST_XMax(footprint) + 180) * {COLUMNS} / 360 AS east,
             (ST_YMin(footprint) + 90) * {ROWS} / 180 AS south, (ST_YMax(footprint) + 90) * {ROWS} / 180 AS north
      FROM scenes),
    expanded AS (
      SELECT footprint, day, clear, cloud,
             unnest(range(greatest(ceil(south - {NEAR})::INT - 1, 0), least(floor(north + {NEAR})::INT + 1, {ROWS}))) AS r,
             greatest(ceil(west - {NEAR})::INT - 1, 0) AS c0, least(floor(east + {NEAR})::INT + 1, {COLUMNS}) AS c1
      FROM places),
    pairs AS (SELECT footprint, day, clear, cloud, r * {COLUMNS} + unnest(range(c0, c1)) AS cell FROM expanded)"""

STATISTICS = """SELECT cell, count(*)::INTEGER AS scenes, count(*) FILTER (clear)::INTEGER AS clear,
           count(*) FILTER (cloud IS NULL AND NOT clear)::INTEGER AS unknown, avg(cloud)::FLOAT AS cloud_mean,
           coalesce(bit_or(1::UINTEGER << (day - 1)::UINTEGER), 0) AS days,
           coalesce(bit_or(1::UINTEGER << (day - 1)::UINTEGER) FILTER (clear), 0) AS clear_days,
           coalesce(bit_or(1::UINTEGER << (day - 1)::UINTEGER) FILTER (cloud IS NULL AND NOT clear), 0) AS unknown_days"""

QUERIES = {
    "join": f"WITH {SCENES}, {EXPANDED} {STATISTICS} FROM pairs JOIN cells USING (cell) WHERE ST_Intersects(footprint, box) GROUP BY cell",
    "inline": f"WITH {SCENES}, {EXPANDED} {STATISTICS} FROM pairs WHERE ST_Intersects(footprint, {BOX}) GROUP BY cell",
    "spatial_join": f"WITH {SCENES} {STATISTICS} FROM scenes JOIN cells ON ST_Intersects(footprint, box) GROUP BY cell",
}
"""join: cells by number, their boxes made beforehand; inline: boxes made as they are wanted; spatial_join: no expansion, an R-tree."""


def connect() -> duckdb.DuckDBPyConnection:
    """A connection with the extension, from the package's own file."""
    (extension,) = Path(duckdb_extension_spatial.__file__).parent.glob("extensions/*/spatial.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"LOAD '{extension}'")
    return connection


def main(footprints: str, out: str, threads: int) -> None:
    """Measure, and write what the first query gives."""
    with connect() as connection:
        connection.execute(f"SET threads = {threads}")
        given = {"footprints": footprints}
        connection.execute(
            f"CREATE TABLE cells AS WITH {SCENES}, {EXPANDED}, wanted AS (SELECT DISTINCT cell FROM pairs) "
            f"SELECT cell, {BOX} AS box FROM wanted",
            given,
        )
        seconds: dict[str, tuple[float, float]] = {}
        for name, query in QUERIES.items():
            began, cpu = time.perf_counter(), time.process_time()
            connection.execute(f"CREATE TABLE by_{name} AS {query}", given)
            seconds[name] = time.perf_counter() - began, time.process_time() - cpu
        connection.execute(f"COPY (SELECT * FROM by_join ORDER BY cell) TO '{out}' (FORMAT parquet)")
        # the queries differ in speed only
        for name in QUERIES:
            other = f"(SELECT * EXCLUDE (cloud_mean) FROM by_{name})"
            (differing,) = connection.execute(
                f"SELECT count(*) FROM (SELECT * EXCLUDE (cloud_mean) FROM by_join EXCEPT {other})"
            ).fetchone()
            assert differing == 0, name
    print(json.dumps(seconds))


if __name__ == "__main__":
    if sys.argv[1] == "--probe":
        connect().close()
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
