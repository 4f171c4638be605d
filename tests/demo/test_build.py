"""The demo in small: simulated, served, scanned, built through the assets; and labelled as what it is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
from rich.console import Console

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.demand.targets import load_targets
from coverage_pipeline.demo.build import build_demo, summary, targets_summary
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_metadata, read_parquet

pytestmark = pytest.mark.slow

SMALL = {"emit": 0.2, "enmap": 0.2, "landsat-8-9": 0.02, "sentinel-2": 0.004}


def test_the_demo_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Regression: the demo obeyed these, and wrote simulated data into the real store.
    monkeypatch.setenv("COVERAGE_DATA", str(tmp_path / "real"))
    monkeypatch.setenv("COVERAGE_HOLDINGS_SOURCE", "off")
    monkeypatch.setenv("COVERAGE_WINDOW_START", "2020-01-01")
    quiet = Console(file=io.StringIO())
    demo = build_demo(tmp_path / "demo", console=quiet, resolution=2.0, months=[Month(2025, 1), Month(2025, 2)], density=SMALL)
    assert not (tmp_path / "real").exists()
    ds = open_coverage(demo.zarr)
    assert "Simulated" in ds.attrs["comment"]
    assert list(ds["sensor"].values) == ["emit", "enmap", "prisma", "landsat-8-9", "sentinel-2"]
    status = ds["scan_status"].values
    assert (status[2] == SCAN_STATUS.index("not_applicable")).all()
    assert (status[:2] == SCAN_STATUS.index("complete")).all()
    # So thin an archive leaves days on which a systematic sensor has no scene anywhere: no scan of it may be called complete.
    assert (status[3:] == SCAN_STATUS.index("provisional")).all()
    assert all(report_of(demo.root, key)["doubts"][0].startswith("silence: ") for key in ("landsat-8-9", "sentinel-2"))
    assert (ds["gap_revision"].values != 0).all()
    assert (ds["scenes_total"].sel(sensor=["emit", "enmap", "landsat-8-9", "sentinel-2"]).values > 50).all()
    held = ds["held_count"].sel(sensor=["emit", "enmap", "prisma", "landsat-8-9"]).max(("time", "lat", "lon"))
    assert (held.values > 0).all()
    store = Store.below(demo.root)
    by_rule = [read_metadata(store.matchup("landsat-8-9", Month(2025, m))) for m in (1, 2)]
    assert all(0 < m["held_by_key"] < m["held"] for m in by_rule)  # by id where there is one, by footprint where not
    # A biased subset: what is held was mostly clear.
    holdings = gpd.read_parquet(demo.root / "holdings.parquet")
    listed = ds["mean_scene_cloud_pct"].sel(sensor="landsat-8-9").mean()
    assert holdings[holdings.sensor == "Landsat"].cloud.mean() < float(listed)
    text = io.StringIO()
    Console(file=text, width=100).print(summary(demo))
    assert "Simulated" in text.getvalue()
    assert "not listed" in text.getvalue()
    Console(file=text, width=100).print(targets_summary(demo))
    assert "Targets in 2025-02" in text.getvalue()
    targets, stats = load_targets(store), read_parquet(store.target_stats("landsat-8-9", Month(2025, 2)))[0]
    assert stats["target"].to_pylist() == targets.table["id"].to_list()
    assert len(targets) == 40


def report_of(root: Path, sensor: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "catalog" / sensor / "2025-01.scan.json").read_text())
    return found


@pytest.mark.parametrize("name", ["precious.txt", "build.toml"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    """Regression: a `build.toml`, such as the project's own in config/, passed for an earlier demo."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(PlannerError, match="holds no earlier demo"):
        build_demo(tmp_path, console=Console(file=io.StringIO()))
    assert (tmp_path / name).read_text() == "mine"
