"""The asset graph as Dagster runs it: any partition, in any order, gives the same cube."""

from __future__ import annotations

import datetime as dt
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
import xarray as xr

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import ACTIONS, COVERAGE_VARIABLES, GAP_VARIABLES, CoverageError
from coverage_pipeline.definitions import planner_definitions
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.storage.tables import read_parquet, write_parquet

pytestmark = pytest.mark.slow

ASSETS = [
    "availability", "holdings", "availability_stats", "holdings_stats", "matchup", "target_stats", "coverage", "gap", "backlog", "summary",
]  # fmt: skip


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as found:
        yield found


def run(config: Path, instance: dg.DagsterInstance, key: str | None = None, **tags: str) -> dg.ExecuteInProcessResult:
    job = planner_definitions(load_settings(config), str(config)).resolve_job_def("everything")
    return job.execute_in_process(instance=instance, partition_key=key, tags=tags, raise_on_error=False)


def contents(zarr: Path) -> xr.Dataset:
    names = [*COVERAGE_VARIABLES, *GAP_VARIABLES, "scan_status", "holdings_status", "scenes_total", "held_not_in_catalog", "desired"]
    return open_coverage(zarr)[names].load()


def test_keys_and_graph(world: Path) -> None:
    definitions = planner_definitions(load_settings(world), str(world))
    graph = definitions.resolve_asset_graph()
    assert {k.to_user_string() for k in graph.get_all_asset_keys()} == set(ASSETS)
    partitions = {graph.get(dg.AssetKey(name)).partitions_def for name in ASSETS}
    assert len(partitions) == 1
    keys = partitions.pop().get_partition_keys()
    assert sorted(keys) == sorted(f"2025-0{m}|{s}" for m in (1, 2, 3) for s in ("mine", "prisma"))


def test_one_partition_materialises_everything_with_metadata(world: Path, instance: dg.DagsterInstance) -> None:
    result = run(world, instance, "2025-01|mine")
    assert result.success
    metadata = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    assert set(metadata) == set(ASSETS)
    assert metadata["availability"]["scenes"].value == 5
    assert metadata["availability"]["status"].value == "complete"
    assert metadata["matchup"]["held"].value == 1
    assert "data:image/png;base64," in str(metadata["availability_stats"]["map"].value)
    assert len(str(metadata["availability_stats"]["map"].value)) < 20_000
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks == {"scene_keys_unique": True, "held_is_listed": True}


def test_the_numbers_of_a_partition(world: Path, instance: dg.DagsterInstance) -> None:
    assert run(world, instance, "2025-01|mine").success
    ds = contents(world.parent / "data" / "coverage.zarr").sel(sensor="mine", time="2025-01-01")
    held, cloudy, unknown, missing = (ds.sel(lat=2.5, lon=20 * k + 2.5) for k in (0, 2, 3, 4))
    assert (int(held.scenes_count), int(held.held_clear_count), int(held.unmet_supply)) == (1, 1, 0)
    assert float(held.days_since_last_held) == pytest.approx(31 - 10 / 24)
    assert (int(held.deficit), ACTIONS[int(held.action)]) == (1, "task")
    assert ACTIONS[int(cloudy.action)] == "task"
    assert ACTIONS[int(unknown.action)] == "check"
    assert (int(missing.unmet_supply), ACTIONS[int(missing.action)]) == (1, "ingest")
    nowhere = ds.sel(lat=-62.5, lon=-102.5)
    assert (int(nowhere.scenes_count), int(nowhere.held_count), ACTIONS[int(nowhere.action)]) == (0, 0, "task")


def test_any_order_and_any_number_of_times_gives_the_cube_of_a_plain_build(world: Path, instance: dg.DagsterInstance) -> None:
    planner = Planner.from_settings(load_settings(world))
    build(planner)
    zarr = Path(str(planner.store.zarr))
    expected = contents(zarr)
    shutil.rmtree(zarr.parent)
    keys = [f"2025-0{m}|{s}" for m, s in itertools.product((3, 1, 2, 1), ("prisma", "mine"))]
    for key in keys:
        assert run(world, instance, key).success, key
    xr.testing.assert_identical(contents(zarr), expected)
    assert run(world, instance, "2025-02|mine").success
    xr.testing.assert_identical(contents(zarr), expected)


def test_a_range_in_one_run_gives_the_same(world: Path, instance: dg.DagsterInstance) -> None:
    planner = Planner.from_settings(load_settings(world))
    build(planner)
    zarr = Path(str(planner.store.zarr))
    expected = contents(zarr)
    shutil.rmtree(zarr.parent)
    world.write_text(world.read_text().replace("[orchestration]", '[orchestration]\nbackfill = "ranges"'))
    for sensor in ("mine", "prisma"):
        tags = {f"dagster/asset_partition_range_{end}": f"2025-0{m}|{sensor}" for end, m in (("start", 1), ("end", 3))}
        result = run(world, instance, **tags)
        assert result.success
        done = {e.partition for e in result.get_asset_materialization_events()}
        assert done == {f"2025-0{m}|{sensor}" for m in (1, 2, 3)}
    xr.testing.assert_identical(contents(zarr), expected)


def test_a_failed_scan_fails_the_run_by_name_and_keeps_what_was_there(world: Path, instance: dg.DagsterInstance) -> None:
    assert run(world, instance, "2025-01|mine").success
    zarr = world.parent / "data" / "coverage.zarr"
    before = contents(zarr)
    text = world.read_text()
    start = text.index("http://127.0.0.1:")
    world.write_text(text.replace(text[start : text.index('"', start)], "http://127.0.0.1:9"))
    result = run(world, instance, "2025-01|mine")
    assert not result.success
    failures = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    said = str(failures[0].user_failure_data)
    assert "mine 2025-01" in said
    assert "127.0.0.1:9" in said
    ran = {e.step_key for e in result.all_events if e.is_step_success}
    assert not ran & {"availability_stats", "matchup", "coverage", "gap"}
    xr.testing.assert_identical(contents(zarr), before)


def test_an_automation_tick_asks_for_the_last_closed_months(world: Path, instance: dg.DagsterInstance) -> None:
    overrides = {"window": {"start": "2025-01-01", "end": "2099-12-31"}}
    definitions = planner_definitions(load_settings(world, overrides), str(world))
    before = dt.datetime(2025, 6, 4, 12, tzinfo=dt.UTC)
    quiet = dg.evaluate_automation_conditions(definitions, instance, evaluation_time=before)
    assert quiet.total_requested == 0
    tick = dg.evaluate_automation_conditions(
        definitions, instance, cursor=quiet.cursor, evaluation_time=dt.datetime(2025, 6, 5, 6, 1, tzinfo=dt.UTC)
    )
    expected = {f"2025-0{m}|{s}" for m in (4, 5) for s in ("mine", "prisma")}
    for name in ASSETS:
        assert set(tick.get_requested_partitions(dg.AssetKey(name))) == expected, name
    again = dg.evaluate_automation_conditions(
        definitions, instance, cursor=tick.cursor, evaluation_time=dt.datetime(2025, 6, 5, 6, 2, tzinfo=dt.UTC)
    )
    assert again.total_requested == 0
    # The same months are asked for again at the next tick, with the one that has closed since: late scenes are found.
    july = dg.evaluate_automation_conditions(
        definitions, instance, cursor=again.cursor, evaluation_time=dt.datetime(2025, 7, 5, 6, 1, tzinfo=dt.UTC)
    )
    assert set(july.get_requested_partitions(dg.AssetKey("availability"))) == {f"2025-0{m}|{s}" for m in (5, 6) for s in ("mine", "prisma")}


def test_automation_is_off_where_the_settings_say_so(world: Path) -> None:
    for on in (True, False):
        definitions = planner_definitions(load_settings(world, {"orchestration": {"automation": on}}), str(world))
        sensor = definitions.resolve_sensor_def("monthly")
        assert (sensor.default_status == dg.DefaultSensorStatus.RUNNING) is on


def test_a_sensor_without_a_layer_materialises_not_applicable(world: Path, instance: dg.DagsterInstance) -> None:
    assert run(world, instance, "2025-02|prisma").success
    ds = contents(world.parent / "data" / "coverage.zarr").sel(sensor="prisma", time="2025-02-01")
    assert bool(np.isnan(ds.scenes_count).all())
    assert int(ds.scan_status) == 4
    assert set(np.unique(ds.action)) == {ACTIONS.index("task"), ACTIONS.index("out_of_scope")}


def test_a_matchup_of_another_scan_is_refused(world: Path) -> None:
    """Regression: it said that nothing is missing, and `task`, where clear scenes exist that we lack."""
    planner = Planner.from_settings(load_settings(world))
    build(planner)
    mine, january = planner.sensors["mine"], planner.spec.months[0]
    before = contents(Path(str(planner.store.zarr)))
    planner.availability(mine, january)
    planner.availability_stats(mine, january)
    with pytest.raises(PlannerError, match="matchup was made from another scan"):
        planner.coverage(mine, january)
    xr.testing.assert_identical(contents(Path(str(planner.store.zarr))), before)
    planner.matchup(mine, january)
    with pytest.raises(PlannerError, match="holdings_stats was made from another matchup"):
        planner.coverage(mine, january)
    planner.holdings_stats(mine, january)
    planner.coverage(mine, january)
    planner.gap(mine, january)
    planner.holdings(mine, january)
    with pytest.raises(PlannerError, match="matchup was made from another extract"):
        planner.holdings_stats(mine, january)


def test_a_matchup_of_another_overlap_is_refused(world: Path) -> None:
    build(Planner.from_settings(load_settings(world)))
    stricter = Planner.from_settings(load_settings(world, {"holdings": {"min_iou": 0.9}}))
    with pytest.raises(PlannerError, match=r"min_iou 0\.5, the settings say 0\.9"):
        stricter.coverage(stricter.sensors["mine"], stricter.spec.months[0])


def test_the_gap_of_a_cube_that_is_not_there_makes_none(world: Path) -> None:
    planner = Planner.from_settings(load_settings(world))
    with pytest.raises(CoverageError, match="no coverage cube"):
        build(planner, steps=["gap"])
    assert not Path(str(planner.store.zarr)).exists()


def evaluate(config: Path, instance: dg.DagsterInstance, key: str) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the checks alone."""
    job = planner_definitions(load_settings(config), str(config)).resolve_implicit_global_asset_job_def()
    names = {"scene_keys_unique": "availability", "held_is_listed": "holdings_stats"}
    checks = {dg.AssetCheckKey(dg.AssetKey(asset), name) for name, asset in names.items()}
    alone = job.get_subset(asset_selection=set(), asset_check_selection=checks)
    result = alone.execute_in_process(instance=instance, partition_key=key, raise_on_error=False)
    found = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert result.success is found["scene_keys_unique"].passed  # the other one stops nothing
    return found


def test_checks_of_what_is_not_there_yet_say_so_and_pass(world: Path, instance: dg.DagsterInstance) -> None:
    """A run may make any assets in any order: a check that finds nothing to compare must not fail it."""
    for evaluation in evaluate(world, instance, "2025-01|mine").values():
        assert evaluation.passed
        assert "not yet: 2025-01|mine" in str(evaluation.description)
    planner = Planner.from_settings(load_settings(world))
    mine, january = planner.sensors["mine"], planner.spec.months[0]
    planner.availability(mine, january)
    found = evaluate(world, instance, "2025-01|mine")
    assert found["scene_keys_unique"].passed
    assert found["scene_keys_unique"].description is None
    assert "not yet" in str(found["held_is_listed"].description)


def test_a_check_names_a_file_that_cannot_be_read(world: Path, instance: dg.DagsterInstance) -> None:
    planner = Planner.from_settings(load_settings(world))
    path = Path(str(planner.store.scenes("mine", planner.spec.months[0])))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 and nothing else")
    found = evaluate(world, instance, "2025-01|mine")["scene_keys_unique"]
    assert not found.passed
    assert str(path) in str(found.description)


def test_a_scene_listed_twice_stops_what_follows(world: Path, instance: dg.DagsterInstance) -> None:
    assert run(world, instance, "2025-01|mine").success
    planner = Planner.from_settings(load_settings(world))
    path = planner.store.scenes("mine", planner.spec.months[0])
    scenes, metadata = read_parquet(path)
    write_parquet(path, pa.concat_tables([scenes, scenes.slice(0, 1)]), metadata)
    assert not evaluate(world, instance, "2025-01|mine")["scene_keys_unique"].passed


def test_holdings_that_are_ids_follow_from_the_scan(world: Path) -> None:
    settings = load_settings(world, {"holdings": {"source": "ids", "path": "ids.txt"}})
    graph = planner_definitions(settings, str(world)).resolve_asset_graph()
    assert graph.get(dg.AssetKey("holdings")).parent_keys == {dg.AssetKey("availability")}


def test_the_graph_is_as_it_was(world: Path) -> None:
    """Keys and partitions are the history of a deployment: a rename orphans it. Change this on purpose only."""
    graph = planner_definitions(load_settings(world), str(world)).resolve_asset_graph()
    deps = {key.to_user_string(): sorted(k.to_user_string() for k in graph.get(key).parent_keys) for key in graph.get_all_asset_keys()}
    assert deps == {
        "availability": [],
        "holdings": [],
        "availability_stats": ["availability"],
        "matchup": ["availability", "holdings"],
        "holdings_stats": ["holdings", "matchup"],
        "target_stats": ["availability", "holdings", "matchup"],
        "coverage": ["availability_stats", "holdings_stats", "matchup"],
        "gap": ["coverage"],
        "backlog": ["availability", "gap", "matchup", "target_stats"],
        "summary": ["backlog", "gap", "target_stats"],
    }
    for key in graph.get_all_asset_keys():
        partitions = graph.get(key).partitions_def
        assert isinstance(partitions, dg.MultiPartitionsDefinition)
        assert [d.name for d in partitions.partitions_defs] == ["month", "sensor"]
        assert "2025-01|mine" in partitions.get_partition_keys()
        spec = graph.get(key).assets_def.get_asset_spec(key)
        assert spec.description
        assert spec.code_version
        assert spec.owners
        assert {"source", "expected_size"} <= set(spec.metadata)
        assert "layer" in spec.tags
    checks = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    assert checks == {("availability", "scene_keys_unique"), ("holdings_stats", "held_is_listed")}
