"""What a reading of the holdings leads to where the holdings misbehave: each fault alone, with the right outcome by design section 4.

The table of ``docs/faults.md`` is made from what these cases saw.
"""

from __future__ import annotations

import datetime as dt
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.holdings.errors import HoldingsUnavailable
from coverage_pipeline.holdings.extract import extract_month
from coverage_pipeline.holdings.rows import HoldingsRefused
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

WRITE_DOCS = os.environ.get("COVERAGE_WRITE_DOCS") == "1"  # here, as conftest.py takes it out of the environment of every test
DOCS = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
MARK = "# What a reading of the holdings does when they misbehave\n"
"""Where the part of the page about holdings begins."""

EMIT, JANUARY, ROWS = COVERAGE_SENSORS["emit"], Month(2025, 1), 100


def good() -> gpd.GeoDataFrame:
    """A hundred EMIT scenes of January with their products' ids, each over a square of its own."""
    times = [dt.datetime(2025, 1, 1 + k % 31, 10, k % 60, tzinfo=UTC) for k in range(ROWS)]
    return gpd.GeoDataFrame(
        {
            "datetime": times,
            "sensor": ["EMIT"] * ROWS,
            "cloud": [5.0] * ROWS,
            "scene_id": [f"EMIT_L2A_RFL_001_{when:%Y%m%dT%H%M%S}_25001_{k:03}" for k, when in enumerate(times)],
        },
        geometry=[shapely.box(k, 10, k + 0.5, 10.5) for k in range(ROWS)],
        crs=4326,
    )


def _first(frame: gpd.GeoDataFrame, count: int, **columns: Any) -> gpd.GeoDataFrame:
    """The frame with other values in the first ``count`` rows."""
    for name, value in columns.items():
        column = list(frame[name])
        column[:count] = [value(v) if callable(value) else value for v in column[:count]]
        frame[name] = gpd.GeoSeries(column, index=frame.index, crs=frame.crs) if name == "geometry" else column
    return frame


def _circle(frame: gpd.GeoDataFrame, path: Path) -> None:
    """Written with one footprint as a CURVEPOLYGON, which shapely has no type for (WKB type 10 around a type 8, OGC 06-103r4)."""
    frame.to_parquet(path)
    ring = struct.pack("<BII", 1, 8, 5) + b"".join(struct.pack("<dd", *p) for p in ((0, 0), (1, 1), (2, 0), (1, -1), (0, 0)))

    table = pq.read_table(path)
    shapes = table["geometry"].to_pylist()
    shapes[0] = struct.pack("<BII", 1, 10, 1) + ring
    place = table.schema.get_field_index("geometry")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(shapes, pa.binary())), path)


Change = Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame]


@dataclass(frozen=True)
class Case:
    """One fault, and how the reading must end."""

    fault: str
    change: Change | None = None
    """What becomes of the good file; None: there is no file."""
    rows: int | None = ROWS
    """Holdings of the month; None: an error, and nothing is written."""
    rejected: int = 0
    says: str = ""
    """Words of the error, the warning or the note."""
    warns: bool = False
    off: bool = False
    """Whether the layer is *off*."""
    former: bool = False
    """Whether an earlier extract stands there, which must stay but where ``replaced``."""
    replaced: bool = False
    source: str = "auto"
    configured: bool = True
    write: Callable[[gpd.GeoDataFrame, Path], None] | None = None

    @property
    def outcome(self) -> str:
        """As the table says it."""
        kept = "; the extract of before stays" if self.former and not self.replaced else ""
        if self.off:
            return "the layer is *off*, with the reason"
        if self.rows is None:
            return f"error, nothing is written{kept}"
        words = [f"read: {self.rows} held"]
        words += [f"{self.rejected} rejected with the reason"] if self.rejected else []
        words += ["a warning says so" if self.warns else "the report says so"] if self.says else []
        return ", ".join(words)


def _metres(value: Any) -> Any:
    return shapely.transform(value, lambda xy: xy * 111_320)


CASES = (
    Case("are as they should be", lambda f: f),
    Case("carry times without a zone", lambda f: f.assign(datetime=f["datetime"].dt.tz_localize(None)), says="UTC assumed"),
    Case("have each row twice, under another id", lambda f: pd.concat([f, f.assign(scene_id="internal-7")]), 200, says="is one holding"),
    Case("have 1 of 100 rows without a footprint", lambda f: _first(f, 1, geometry=None), 99, 1, "rejected"),
    Case("have 10 of 100 rows without a footprint", lambda f: _first(f, 10, geometry=None), 90, 10, "geometry missing", warns=True),
    Case("have 79 of 100 rows without a footprint", lambda f: _first(f, 79, geometry=None), None, says="79 of 100"),
    Case("have 79 of 100 footprints in metres", lambda f: _first(f, 79, geometry=_metres), None, says="State the CRS"),
    Case("are all in metres, and state no CRS", lambda f: f.to_crs(3857).set_crs(None, allow_override=True), None, says="State the CRS"),
    Case("are all in metres, and state their CRS", lambda f: f.to_crs(3857)),
    Case("are in degrees, and state no CRS", lambda f: f.set_crs(None, allow_override=True)),
    Case("are in degrees, and state a CRS of metres", lambda f: f.set_crs(32631, allow_override=True), None, says="one of metres"),
    Case("have 79 of 100 footprints that are points", lambda f: _first(f, 79, geometry=shapely.centroid), None, says="not a polygon"),
    Case("have 1 of 100 footprints with a curved edge", lambda f: f, 99, 1, "rejected", write=_circle),
    Case("have 10 of 100 rows without a time", lambda f: _first(f, 10, datetime=pd.NaT), 90, 10, "no time", warns=True),
    Case("have 79 of 100 rows without a time", lambda f: _first(f, 79, datetime=pd.NaT), None, says="COVERAGE_TILES_DATE"),
    Case("have 10 of 100 times that cannot be read", lambda f: _first(_text(f), 10, datetime="soon"), 90, 10, "cannot be read", warns=True),
    Case("carry the time of download, not of acquisition", lambda f: _first(f, ROWS, scene_id=_earlier), None, says="time of download"),
    Case("have 10 of 100 rows with the sensor spelt otherwise", lambda f: _first(f, 10, sensor="Emit "), 90, 10, "is spelt", warns=True),
    Case("have all rows with the sensor spelt otherwise", lambda f: f.assign(sensor="emit"), None, says="held_satellite 'EMIT'"),
    Case("never name the sensor", lambda f: f.assign(sensor="ISS-3"), 0, says="'ISS-3' (100)", warns=True),
    Case("cannot be reached, at the first run", None, off=True, says="not there"),
    Case("cannot be reached, after an earlier run", None, None, former=True, says="not there"),
    Case("are no longer configured, after an earlier run", lambda f: f, None, former=True, configured=False, says="COVERAGE_HOLDINGS_PATH"),
    Case("are turned off outright, after an earlier run", lambda f: f, off=True, former=True, replaced=True, source="off", says="is off"),
    Case("become unusable, after an earlier run", lambda f: _first(f, 79, geometry=None), None, former=True, says="79 of 100"),
)  # fmt: skip


def _text(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return frame.assign(datetime=[when.isoformat() for when in frame["datetime"]])


def _earlier(name: str) -> str:
    return name.replace("_2025", "_2024")


@pytest.mark.parametrize("case", CASES, ids=[case.fault for case in CASES])
def test_each_fault_ends_as_it_must(case: Case, tmp_path: Path) -> None:
    path, store = tmp_path / "holdings.parquet", Store.below(tmp_path / "data")
    target = store.holdings("emit", JANUARY)
    if case.former:
        good().to_parquet(path)
        extract_month(EMIT, JANUARY, store, load_settings(overrides={"holdings": {"path": str(path)}}))
        path.unlink()
    before = target.read_bytes() if case.former else None
    if case.change is not None:
        (case.write or (lambda frame, to: frame.to_parquet(to)))(case.change(good()), path)
    holdings = {"source": case.source} | ({"path": str(path)} if case.configured else {})
    settings = load_settings(overrides={"holdings": holdings})
    if case.rows is None:
        with pytest.raises(PlannerError) as raised:
            extract_month(EMIT, JANUARY, store, settings)
        assert isinstance(raised.value, HoldingsRefused | HoldingsUnavailable)
        assert case.says in str(raised.value)
        if isinstance(raised.value, HoldingsRefused):
            assert "emit 2025-01" in str(raised.value)
        assert (target.read_bytes() if target.exists() else None) == before
        return
    metadata = extract_month(EMIT, JANUARY, store, settings)
    assert metadata.status == ("off" if case.off else "read")
    if case.off:
        assert case.says in metadata.reason
        return
    assert (metadata.rows, metadata.rejected) == (case.rows, case.rejected)
    told = metadata.warnings if case.warns else metadata.notes
    assert any(case.says in text for text in told) or not case.says
    assert case.warns == bool(metadata.warnings)
    rejected, _ = read_parquet(sibling(target, ".rejected.parquet"))
    assert rejected.num_rows == case.rejected
    assert all(rejected["reason"].to_pylist())


HEAD = f"""{MARK}
A hole in the holdings looks exactly like a gap: it asks people to download what they have. A row that cannot be placed is therefore
rejected with a reason (`holdings/<sensor>/<month>.rejected.parquet`) and counted. Beyond 1 % of the rows a warning says so; beyond 20 %, or
where none can be placed, there is an error and nothing is written. Each line below is a fault that was played on a file of {ROWS} good
rows.

This part is made by the tests, from what they saw:

    COVERAGE_WRITE_DOCS=1 .venv/bin/python -m pytest tests/holdings/test_faults.py -k docs

| The holdings … | the reading ends with |
|---|---|
"""


def test_the_docs_say_what_the_readings_did() -> None:
    text = HEAD + "".join(f"| {case.fault} | {case.outcome} |\n" for case in CASES)
    page = DOCS.read_text()
    if WRITE_DOCS:
        page = page.partition("\n" + MARK)[0] + "\n" + text
        DOCS.write_text(page)
    assert page.partition("\n" + MARK)[2] == text.partition(MARK)[2], "docs/faults.md does not say what the readings did; see its last part"
