"""``coverage-planner targets``: what is printed of a file, and of what was made from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shapely
from typer.testing import CliRunner

from coverage_pipeline.cli.app import app
from coverage_pipeline.demand.target_stats import write_target_stats
from coverage_pipeline.demand.targets import keep_targets, read_targets
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.storage.store import Store
from tests.pipeline.test_migrate import built, world  # noqa: F401 fixtures

SITES = [("a", shapely.box(8, 48, 8.2, 48.2), {"group": "crops", "season": "4-10"}), ("b", shapely.box(9, 40, 17, 50), {})]


def write(path: Path, *extra: tuple[str, shapely.Geometry, dict[str, object]]) -> str:
    features = [
        {"type": "Feature", "properties": {"id": name, **more}, "geometry": shapely.geometry.mapping(shape)}
        for name, shape, more in (*SITES, *extra)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def test_check_names_groups_and_what_is_too_large(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["targets", "check", write(tmp_path / "t.geojson")])
    assert result.exit_code == 0, result.output
    assert "2 targets" in result.output
    assert "crops" in result.output
    assert "too large for one pass of landsat-8-9 (swath 185 km): b" in result.output
    assert "cannot be used" not in result.output


def test_check_names_every_bad_row_and_ends_with_2(tmp_path: Path) -> None:
    bad = ("[red]c", shapely.Point(1, 1), {}), ("d", shapely.box(0, 0, 1, 1), {"season": "spring"})
    result = CliRunner().invoke(app, ["targets", "check", write(tmp_path / "t.geojson", *bad)])
    assert result.exit_code == 2
    assert "row 2 (id '[red]c') is a point or line without a buffer_km" in result.output
    assert "row 3 (id 'd') has the season 'spring'" in result.output


def test_without_a_file_it_says_what_to_set() -> None:
    result = CliRunner().invoke(app, ["targets", "check"])
    assert result.exit_code == 2
    assert "COVERAGE_TARGETS" in result.output


def test_show_prints_each_target_and_says_when_the_targets_moved(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    store, sensor, month = Store.below(world / "data"), COVERAGE_SENSORS["prisma"], Month(2025, 2)
    targets = read_targets(write(tmp_path / "t.geojson"), COVERAGE_SENSORS)
    keep_targets(store, targets)
    write_target_stats(sensor, month, store, targets, cloud_lt=10.0, default_desired=2.0)
    monkeypatch.setenv("COVERAGE_DATA", str(world / "data"))
    result = CliRunner().invoke(app, ["targets", "show", "prisma", "2025-02"])
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in ("a", "b", "action"))
    keep_targets(store, read_targets(write(tmp_path / "u.geojson", ("c", shapely.box(0, 0, 1, 1), {})), COVERAGE_SENSORS))
    result = CliRunner().invoke(app, ["targets", "show", "prisma", "2025-02"])
    assert "the targets changed since" in result.output
    assert CliRunner().invoke(app, ["targets", "show", "prisma", "2025-09"]).exit_code == 1
