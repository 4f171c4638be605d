"""Files of this package that were cut, changed or removed: one sentence that names the file and what to do, and never a wrong number."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from typer.testing import CliRunner
from upath import UPath

from coverage_pipeline.cli.app import app
from coverage_pipeline.cube.create import ensure_cube
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.description import update_snapshot
from coverage_pipeline.cube.read import read_partition
from coverage_pipeline.cube.schema import METRICS, SCHEMA, SCHEMA_VERSION, CoverageError, CoverageMismatch, CoverageQuery, CubeDamaged
from coverage_pipeline.cube.select import select
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.bands import GridTooLarge, refuse_too_large
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HoldingsMetadata
from coverage_pipeline.months import Month
from coverage_pipeline.pipeline.migrate import migrate
from coverage_pipeline.storage.metadata import METADATA_KEY
from coverage_pipeline.storage.tables import read_metadata, write_parquet
from tests.cubes import FEBRUARY, JANUARY, MARCH, cube_spec, everywhere, known_fields, make_cube, write_partition
from tests.pipeline.test_migrate import STEPS, built, planner_in, world  # noqa: F401 fixtures
from tests.storage.test_paths import _config

pytestmark = pytest.mark.slow

GRID = GridSpec(5.0)  # with a level


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "coverage.zarr"
    make_cube(path, cube_spec(grid=GRID))
    for sensor in ("emit", "landsat-8-9"):
        for month in (JANUARY, FEBRUARY, MARCH):
            write_partition(path, sensor, month, known_fields(GRID, scenes_count=3))
    return path


@pytest.fixture
def cube(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "coverage.zarr"))


def query(metric: str) -> CoverageQuery:
    return CoverageQuery(METRICS[metric].layer, metric, ["emit", "landsat-8-9"], dt.date(2025, 1, 1), dt.date(2025, 3, 31), "worst")


def use(cube: Path) -> None:
    """All that a reader does."""
    ds = open_coverage(cube)
    select(ds, query("scenes_count"))
    select(ds, query("deficit"), resolution=90.0)
    for sensor in ("emit", "landsat-8-9"):
        read_partition(cube, sensor, JANUARY)


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(PlannerError) as refused:
        action()
    text = str(refused.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


def level_of(cube: Path) -> str:
    return next(path.name for path in sorted((cube / "overviews").iterdir()) if path.is_dir())


def cut(path: Path, size: int = 7) -> None:
    path.write_bytes(path.read_bytes()[:size])


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_the_whole_cube_can_be_used(cube: Path) -> None:
    use(cube)


# zarr.json


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"zarr_format": 3}', b'{"zarr_format": 3, "node_type": "x"}']
)
def test_a_root_that_is_no_group_is_named(cube: Path, content: bytes) -> None:
    (cube / "zarr.json").write_bytes(content)
    for action in (
        lambda: open_coverage(cube),
        lambda: read_partition(cube, "emit", JANUARY),
        lambda: ensure_cube(cube, cube_spec(grid=GRID), everywhere(GRID)),
        lambda: update_snapshot(cube),
        lambda: write_partition(cube, "emit", JANUARY),
    ):
        assert str(cube) in refusal(action)


@pytest.mark.parametrize(
    "value", [None, "", "{", "[]", "7", '{"grid": 3}', '{"grid": {}, "x": 1}', '{"grid": {"resolution": "a"}}', 3, {"grid": 1}]
)
def test_settings_that_say_nothing_are_named(cube: Path, value: Any) -> None:
    edit(cube / "zarr.json", lambda d: d["attributes"].update(settings=value))
    for action in (lambda: open_coverage(cube), lambda: ensure_cube(cube, cube_spec(grid=GRID), everywhere(GRID))):
        assert str(cube / "zarr.json") in refusal(action) or str(cube) in refusal(action)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 99])
def test_a_cube_of_a_newer_program_asks_for_that_program(cube: Path, version: int) -> None:
    edit(cube / "zarr.json", lambda d: d["attributes"].update(schema_version=version))
    for action in (
        lambda: open_coverage(cube),
        lambda: ensure_cube(cube, cube_spec(grid=GRID), everywhere(GRID)),
        lambda: write_partition(cube, "emit", JANUARY),
    ):
        with pytest.raises(CoverageMismatch, match="newer coverage-planner") as refused:
            action()
        assert "migrate" not in str(refused.value)


def test_a_newer_cube_is_not_migrated_either(world: Path) -> None:  # noqa: F811
    edit(world / "data" / "coverage.zarr" / "zarr.json", lambda d: d["attributes"].update(schema_version=SCHEMA_VERSION + 1))
    assert "newer coverage-planner" in refusal(lambda: migrate(planner_in(world)))


@pytest.mark.parametrize("version", [None, "two", [2]])
def test_what_has_no_version_of_ours_is_no_cube(cube: Path, version: Any) -> None:
    edit(cube / "zarr.json", lambda d: d["attributes"].update(schema_version=version))
    assert str(cube) in refusal(lambda: open_coverage(cube))


def test_consolidated_metadata_that_are_missing_are_done_without_and_written_again(cube: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(cube / "zarr.json", lambda d: d.pop("consolidated_metadata"))
    use(cube)
    assert any("no consolidated metadata" in r.message for r in caplog.records)
    ensure_cube(cube, cube_spec(grid=GRID), everywhere(GRID))
    assert "consolidated_metadata" in json.loads((cube / "zarr.json").read_text())


@pytest.mark.parametrize(
    "value", [3, {"metadata": 1, "kind": "inline"}, {"metadata": {"scenes_count": {}}, "kind": "inline", "must_understand": False}]
)
def test_consolidated_metadata_that_are_damaged_are_named_and_written_again(cube: Path, value: Any) -> None:
    edit(cube / "zarr.json", lambda d: d.update(consolidated_metadata=value))
    assert str(cube / "zarr.json") in refusal(lambda: open_coverage(cube)) or str(cube) in refusal(lambda: open_coverage(cube))
    ensure_cube(cube, cube_spec(grid=GRID), everywhere(GRID))
    use(cube)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, None) for name in ("scenes_count", "revision", "scan_status", "in_scope", "overviews/9/deficit", "sensor", "time")),
        *(("scenes_count", content) for content in (b"", b"{}", b"[1]")),
    ],
)
def test_an_array_without_its_description_is_named(cube: Path, name: str, content: bytes | None) -> None:
    level = level_of(cube)
    name = name.replace("/9/", f"/{level}/")
    if content is None:
        edit(cube / "zarr.json", lambda d: d["consolidated_metadata"]["metadata"].pop(name))
    if content is None:
        shutil.rmtree(cube / name)
    else:
        (cube / name / "zarr.json").write_bytes(content)
    assert name in refusal(lambda: use(cube))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scenes_count", lambda d: d.update(data_type="float64", fill_value=0.0)),
        ("scenes_count", lambda d: d.update(fill_value=0)),  # what was never looked at would be a known none
        ("available_days", lambda d: d.update(fill_value=0)),
        ("scenes_count", lambda d: d.update(dimension_names=["time", "sensor", "lat", "lon"])),
        ("scenes_count", lambda d: d.update(dimension_names=None)),
        ("scenes_count", lambda d: d.update(shape=[2, 3, 18, 36])),
        ("scan_status", lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[2, 3])),
        ("revision", lambda d: d.update(data_type="uint32")),
    ],
)
def test_an_array_that_is_another_is_refused_by_readers_and_writers(cube: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    edit(cube / name / "zarr.json", change)
    assert name in refusal(lambda: read_partition(cube, "emit", JANUARY, ["scenes_count", "available_days"]))
    assert name in refusal(lambda: write_partition(cube, "emit", JANUARY, known_fields(GRID)))


# Chunks


def chunk_of(cube: Path, name: str) -> Path:
    return next(path for path in sorted((cube / name / "c").rglob("*")) if path.is_file())


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, "half") for name in ("scenes_count", "deficit", "in_scope", "revision", "provider", "scan_status")),
        *(("scenes_count", content) for content in (b"", b"\x28\xb5\x2f\xfd", b"not compressed at all")),
        ("scan_status", b""),
    ],
)
def test_a_damaged_chunk_is_named_and_so_is_the_cure(cube: Path, name: str, damage: bytes | str) -> None:
    file = chunk_of(cube, name)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if isinstance(damage, str) else damage)

    def read() -> None:
        open_coverage(cube)
        read_partition(cube, "emit", JANUARY, [n for n in (name, "scenes_count") if SCHEMA[n].dims[-1] == "lon" and n != "in_scope"])

    text = refusal(read)
    assert str(file) in text
    assert ("build it again" if name == "in_scope" else "materialise coverage and gap") in text


def test_a_selection_names_the_chunk_that_it_cannot_read(cube: Path) -> None:
    file = chunk_of(cube, "scenes_count")
    cut(file)
    assert str(file) in refusal(lambda: select(open_coverage(cube), query("scenes_count")))
    lazy = open_coverage(cube)
    assert str(file) in refusal(lambda: select(lazy.isel(lat=slice(None, None, -1)), query("scenes_count")))
    select(lazy, query("held_count"))  # the others are as they were


def test_a_level_s_chunk_is_named(cube: Path) -> None:
    level = level_of(cube)
    file = chunk_of(cube, f"overviews/{level}/deficit")
    cut(file)
    assert str(file) in refusal(lambda: select(open_coverage(cube), query("deficit"), resolution=90.0))


def test_a_damaged_partition_is_whole_again_once_it_is_written_again(cube: Path) -> None:
    for name in ("scenes_count", "deficit", "revision", "provider"):
        cut(chunk_of(cube, name))
    write_partition(cube, "emit", JANUARY, known_fields(GRID, scenes_count=3))
    use(cube)


# Axes


@pytest.mark.parametrize("axis", ["sensor", "time", "lat", "lon"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_an_axis_that_is_cut_or_gone_never_reads_as_another_place_or_time(cube: Path, axis: str, damage: str) -> None:
    file = chunk_of(cube, axis)
    cut(file, 3) if damage == "cut" else file.unlink()
    assert f"/{axis}" in refusal(lambda: use(cube))


@pytest.mark.parametrize("days", [[0, 31, 59], [20089, 20120, 20149], [-5, 31, 59], [20100, 20120, 20148], [2**60, 1, 2]])
def test_months_that_do_not_follow_each_other_are_damage(cube: Path, days: list[int]) -> None:
    zarr.open_group(str(cube), mode="r+", use_consolidated=False)["time"][:] = np.array(days)
    for action in (lambda: open_coverage(cube), lambda: write_partition(cube, "emit", JANUARY)):
        assert "/time" in refusal(action)


@pytest.mark.parametrize("keys", [["", "landsat-8-9"], ["emit", "emit"], ["", ""]])
def test_sensors_that_are_nameless_or_double_are_damage(cube: Path, keys: list[str]) -> None:
    zarr.open_group(str(cube), mode="r+", use_consolidated=False)["sensor"][:] = np.array(keys, dtype=np.dtypes.StringDType())
    assert "/sensor" in refusal(lambda: read_partition(cube, "landsat-8-9", JANUARY))


# Metadata of Parquet files


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff", b'{"a": ' * 3, b"[" * 100_000])
def test_metadata_that_are_no_object_are_named(tmp_path: Path, content: bytes) -> None:
    from upath import UPath

    path = UPath(tmp_path / "2025-01.parquet")
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({METADATA_KEY: content}), str(path))
    text = refusal(lambda: read_metadata(path))
    assert str(path) in text
    assert "materialise" in text


def test_what_the_metadata_lack_is_named(tmp_path: Path) -> None:
    path = UPath(tmp_path / "2025-01.parquet")
    whole = HoldingsMetadata(
        sensor="emit", month="2025-01", status="read", read_at="2025-03-01T00:00:00Z", run=None, source="", reason="", lookback_months=24
    )
    write_parquet(path, pa.table({"a": [1]}), whole)
    kept = read_metadata(path)
    assert HoldingsMetadata.of(kept) == whole
    odd: list[tuple[str, Any]] = [
        ("status", ...),
        ("status", 3),
        ("status", "whole"),
        ("lookback_months", True),
        ("lookback_months", "24"),
        ("run", 1),
    ]
    for key, value in [*odd, ("metadata_version", 2)]:
        changed = {name: content for name, content in {**kept, key: value}.items() if content is not ...}
        write_parquet(path, pa.table({"a": [1]}), changed)
        text = refusal(lambda: HoldingsMetadata.of(read_metadata(path)))
        assert str(path) in text, key
        assert key.removeprefix("metadata_") in text
        assert "materialise" in text


@pytest.mark.parametrize(
    ("layer", "changes"),
    [
        ("available", {"status": 3}),
        ("available", {"status": "whole"}),
        ("available", {"status": None}),
        ("available", {"scanned_at": "yesterday"}),
        ("available", {"scenes": "many"}),
        ("held", {"status": []}),
        ("held", {"grid": 3}),
        ("unheld", {"held_not_in_catalog": "none"}),
        ("unheld", {"min_iou": "half"}),
        *(("available", {name: ...}) for name in ("status", "scanned_at", "scenes", "provider", "bbox", "run", "cells")),
        *(("held", {name: ...}) for name in ("status", "run")),
        *(("unheld", {name: ...}) for name in ("holdings_status", "held", "scan_run", "holdings_run", "min_iou", "tolerance_seconds")),
    ],
)
def test_statistics_with_odd_metadata_never_reach_the_cube(world: Path, layer: Any, changes: dict[str, Any]) -> None:  # noqa: F811
    planner = planner_in(world)
    path = planner.store.stats(layer, "mine", Month(2025, 1))
    table = pq.read_table(str(path))
    kept = {**read_metadata(path), **changes}
    write_parquet(path, table, {name: value for name, value in kept.items() if value is not ...})
    text = refusal(lambda: planner.coverage(planner.sensors["mine"], Month(2025, 1)))
    assert str(path) in text or "mine 2025-01" in text


# The command line


def cut_chunk(world: Path) -> str:  # noqa: F811
    file = chunk_of(world / "data" / "coverage.zarr", "held_clear_days")
    cut(file, 5)
    return str(file)


def cut_root(world: Path) -> str:  # noqa: F811
    file = world / "data" / "coverage.zarr" / "zarr.json"
    cut(file, 50)
    return str(file)


def newer(world: Path) -> str:  # noqa: F811
    edit(world / "data" / "coverage.zarr" / "zarr.json", lambda d: d["attributes"].update(schema_version=SCHEMA_VERSION + 1))
    return "newer coverage-planner"


@pytest.mark.parametrize("damage", [cut_chunk, cut_root, newer])
def test_the_command_line_says_it_in_a_sentence(world: Path, damage: Callable[[Path], str]) -> None:  # noqa: F811
    named = damage(world)
    result = CliRunner().invoke(app, ["gap", "--config", str(_config(world))])
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit)
    assert named in result.output.replace("\n", "")
    assert "Traceback" not in result.output


# A grid that nothing can hold


def test_a_grid_of_65_billion_cells_is_refused_before_anything_is_made(world: Path) -> None:  # noqa: F811
    config = _config(world)
    config.write_text(
        config.read_text().replace("resolution = 30.0", "resolution = 0.001").replace(str(world / "data"), str(world / "fine"))
    )
    result = CliRunner().invoke(app, ["build", "--config", str(config)])
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit)
    said = " ".join(result.output.split())
    assert "64,800,000,000 cells" in said
    assert "61,799 MiB" in said
    assert "memory_mb" in said
    assert not (world / "fine").exists()


def test_the_size_of_a_grid_is_that_of_its_region_and_of_the_budget() -> None:
    refuse_too_large(GridSpec(0.1), 16 << 20)
    refuse_too_large(GridSpec(0.001, extent=(5, 45, 6, 46)), 16 << 20)
    refuse_too_large(GridSpec(0.01), 1 << 30)
    with pytest.raises(GridTooLarge, match="region"):
        refuse_too_large(GridSpec(0.01), 512 << 20)
    with pytest.raises(GridTooLarge):
        refuse_too_large(GridSpec(0.001), 1 << 30)


def test_a_migration_makes_anew_what_is_damaged(world: Path) -> None:  # noqa: F811
    cube = world / "data" / "coverage.zarr"
    was = open_coverage(cube)["held_count"].sel(sensor="mine").values
    cut(chunk_of(cube, "held_count"), 5)
    cut(chunk_of(cube, "in_scope"), 5)
    done = migrate(planner_in(world, window={"start": "2024-12-01"}))
    assert (done.made, done.dropped) == (1, {})
    now = open_coverage(done.path)["held_count"].sel(sensor="mine", time=slice("2025-01-01", None)).values
    np.testing.assert_array_equal(now, was)


def test_damage_is_an_error_of_the_cube() -> None:
    assert issubclass(CubeDamaged, CoverageError)
