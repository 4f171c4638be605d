"""The doubts of provisional months, from the reports beside the scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from coverage_dashboards import words
from coverage_dashboards.choices import View
from coverage_dashboards.doubts import doubts_in_words, provisional_partitions
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.months import Month
from coverage_pipeline.storage.store import Store
from tests.cubes import cube_spec, make_cube, write_partition

MONTHS = tuple(Month(2025, m) for m in range(1, 7))
SCANNED = "2025-02-19T21:20:00Z"
"""What ``tests.cubes.provenance`` says, 1,740,000,000 seconds since 1970."""
VIEW = View("available", "scenes_count", ("emit", "landsat-8-9"), MONTHS[0], MONTHS[5], "rate", MONTHS[0])


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """A cube that every test only reads."""
    path = make_cube(tmp_path_factory.mktemp("doubts") / "coverage.zarr", cube_spec(months=MONTHS))
    for month in MONTHS:
        write_partition(path, "emit", month, scan="provisional" if month.month >= 3 else "complete")
    write_partition(path, "landsat-8-9", MONTHS[4], scan="provisional")
    return open_coverage(path)


def report(store: Store, month: Month, sensor: str = "emit", **more: Any) -> None:
    path = Path(store.scenes(sensor, month).path).with_name(f"{month.key}.scan.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"scanned_at": SCANNED, "status": "provisional", **more}))


def test_the_newest_months_are_named_and_the_others_counted(ds: xr.Dataset, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    report(store, MONTHS[5], doubts=["no scene after 2025-06-17.", "500 of 1,001 items were rejected"])
    report(store, MONTHS[4], reason="empty, where its neighbours have 40 scenes")  # as an older version wrote it
    found = provisional_partitions(VIEW, ds)
    assert len(found) == 5
    assert doubts_in_words(found, ds, store) == [
        "EMIT (ISS), June 2025: no scene after 2025-06-17; 500 of 1,001 items were rejected",
        "Landsat 8/9, May 2025: its scan report is not at hand",
        "EMIT (ISS), May 2025: empty, where its neighbours have 40 scenes",
        "and 2 more provisional months",
    ]
    assert len(provisional_partitions(View("available", "scenes_count", ("emit",), *MONTHS[:2], "rate", MONTHS[0]), ds)) == 0
    scrub = View("available", "scenes_count", ("emit",), MONTHS[0], MONTHS[5], "scrub", MONTHS[3])
    assert provisional_partitions(scrub, ds) == [("emit", MONTHS[3])]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "not json", "[" * 100_000, json.dumps({"scanned_at": "2024-01-01T00:00:00Z", "doubts": ["another scan's"]}),
     json.dumps({"doubts": ["without a time"]}), json.dumps({"scanned_at": SCANNED, "doubts": [None, 3, ""]}),
     json.dumps({"scanned_at": SCANNED, "doubts": {"a": 1}})],
    ids=range(8),
)  # fmt: skip
def test_a_report_that_says_nothing_of_this_scan_is_not_at_hand(ds: xr.Dataset, tmp_path: Path, text: str) -> None:
    store = Store.below(tmp_path)
    report(store, MONTHS[5])
    Path(store.scenes("emit", MONTHS[5]).path).with_name("2025-06.scan.json").write_text(text)
    assert doubts_in_words([("emit", MONTHS[5])], ds, store) == ["EMIT (ISS), June 2025: its scan report is not at hand"]
    assert doubts_in_words([("emit", MONTHS[5])], ds, None) == ["EMIT (ISS), June 2025: its scan report is not at hand"]


def test_doubts_are_text(ds: xr.Dataset, tmp_path: Path) -> None:
    store = Store.below(tmp_path)
    report(store, MONTHS[5], doubts=["<img src=x onerror=alert(1)>", "y" * 5000])
    (line,) = doubts_in_words([("emit", MONTHS[5])], ds, store)
    assert len(line) < 400
    shown = words.doubts([line], dark=False)
    assert "<img" not in shown
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
