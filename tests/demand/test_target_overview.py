"""Where targets stand over a window, and a target as a place, by its own cadence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from coverage_pipeline.demand.place import place
from coverage_pipeline.demand.summary_schema import STATES
from coverage_pipeline.demand.target_overview import target_overview
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.demand.targets import load_targets
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.storage.tables import read_parquet
from tests.dashboards.planning_world import PlanningWorld, planning_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlanningWorld]:
    with planning_world(tmp_path_factory.mktemp("world")) as made:
        yield made


def test_the_overview_is_what_the_statistics_say(world: PlanningWorld) -> None:
    settings = load_settings(world.config, environment=False)
    store, sensors, months = settings.store(), settings.chosen_sensors(), settings.months()
    targets = load_targets(store)
    seen = target_overview(sensors, months, store, targets)
    assert seen.sensors == ("emit", "prisma", "landsat-8-9", "sentinel-2")
    assert [sentence.split(":")[0] for sentence in seen.unread] == ["landsat-8-9 2025-06"]
    for s, sensor in enumerate(sensors):
        for m, month in enumerate(months):
            if (sensor.key, m) == ("landsat-8-9", 2):
                assert (seen.state[s, m] == STATES.index("unknown")).all()
                assert (seen.deficit[s, m] == -1).all()
                continue
            rows = read_parquet(store.target_stats(sensor.key, month))[0].to_pylist()
            assert seen.deficit[s, m].tolist() == [row["deficit"] for row in rows]
            assert seen.remaining[s, m].tolist() == [row["remaining"] for row in rows]
    emit = [STATES[code] for code in seen.state[0, :, 0]]
    assert emit == ["met", "missing", "unknown"]


def test_statistics_of_other_targets_are_not_known(world: PlanningWorld) -> None:
    settings = load_settings(world.config, environment=False)
    others = Targets(load_targets(settings.store()).table, "another digest")
    seen = target_overview(settings.chosen_sensors()[:1], settings.months(), settings.store(), others)
    assert (seen.state == STATES.index("unknown")).all()
    assert len(seen.unread) == 3
    assert np.all(seen.deficit == -1)


def test_a_target_is_a_place_with_its_own_cadence(world: PlanningWorld) -> None:
    """A click on a target must not ask for another cadence than its row in the table of targets."""
    settings = load_settings(world.config, environment=False)
    targets = load_targets(settings.store())
    emit = settings.registry()["emit"]
    for number, key in enumerate(targets.table["id"]):
        one = Targets(targets.table.iloc[[number]], targets.digest)
        report = place(one, "2025-04-01", "2025-06-30", [emit], store=settings.store(), desired={"emit": 2.0}, cloud_lt=settings.cloud_lt)
        for month in report.months:
            rows = read_parquet(settings.store().target_stats("emit", month.month))[0].to_pylist()
            row = next(row for row in rows if row["target"] == key)
            remaining = None if row["remaining"] < 0 else row["remaining"]
            assert (month.desired, month.action, month.remaining) == (row["desired"], row["action"], remaining)
    whole = place(targets.table.geometry.iloc[0], "2025-05-01", "2025-05-31", [emit], store=settings.store(), desired={"emit": 2.0})
    assert whole.months[0].desired == 2.0
