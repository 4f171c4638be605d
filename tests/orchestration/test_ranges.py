"""A run over a range of months: what is recorded when, what a retry does, and what one bad month stops (design sections 3 and 10)."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import ACTIONS
from coverage_pipeline.definitions import planner_definitions
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.settings.load import load_settings
from tests.catalog.http_server import Answer
from tests.catalog.items import item, square
from tests.catalog.stac_server import Catalog, serve
from tests.orchestration.conftest import items_of

pytestmark = pytest.mark.slow

ASSETS = [
    "availability", "holdings", "availability_stats", "holdings_stats", "matchup", "target_stats", "coverage", "gap", "backlog", "summary",
]  # fmt: skip
MONTHS = ["2025-01", "2025-02", "2025-03", "2025-04"]
GOOD = {"2025-01|mine", "2025-03|mine", "2025-04|mine"}
BAD = "2025-02|mine"
RANGE = {"dagster/asset_partition_range_start": "2025-01|mine", "dagster/asset_partition_range_end": "2025-04|mine"}
RETRIES = 2


def span_of(search: dict[str, object]) -> dt.timedelta:
    start, end = (dt.datetime.fromisoformat(text) for text in str(search["datetime"]).split("/"))
    return end - start


def month_of(search: dict[str, object]) -> str:
    """The month that a search is about, whatever margin it has."""
    start, end = (dt.datetime.fromisoformat(text) for text in str(search["datetime"]).split("/"))
    return f"{start + (end - start) / 2:%Y-%m}"


class Served:
    """A catalogue of four months that refuses one of them, and counts what it is asked."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.status = 503
        catalog.fault = self.answer
        self.at_last_month: list[set[str]] = []
        self.instance: dg.DagsterInstance | None = None

    def answer(self, catalog: Catalog, number: int, answer: Answer) -> Answer:
        month = month_of(catalog.searches[number - 1])
        if month == "2025-04" and self.instance is not None:
            self.at_last_month.append(set(self.instance.get_materialized_partitions(dg.AssetKey("availability"))))
        return (self.status, {}, b"no") if month == "2025-02" and self.status != 200 else answer

    def asked(self) -> Counter[str]:
        """Searches for the best part of a month, with which a scan begins, by month; since the last call."""
        asked = Counter(month_of(search) for search in self.catalog.searches if span_of(search) > dt.timedelta(days=20))
        self.catalog.searches.clear()
        return asked


@pytest.fixture
def served() -> Iterator[Served]:
    with serve(Catalog(items_of(MONTHS))) as catalog:
        yield Served(catalog)


@pytest.fixture
def four_months(tmp_path: Path, served: Served) -> Path:
    config = tmp_path / "build.toml"
    config.write_text(f"""
data = {json.dumps(str(tmp_path / "data"))}
[grid]
resolution = 5.0
[window]
start = 2025-01-01
end = 2025-04-30
[sensors]
keys = ["mine"]
[sensors.declared.mine]
nominal_revisit_days = 3
default_desired_per_month = 2
taskable = true
available_sources = [{{ kind = "stac", endpoint = "{served.catalog.address}", collection_id = "scenes" }}]
[area]
scope = "all"
[scan]
retries = 0
cross_check = false
[orchestration]
backfill = "ranges"
retries = {RETRIES}
retry_delay_seconds = 0
""")
    return config


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as found:
        yield found


def job_of(config: Path) -> dg.JobDefinition:
    return planner_definitions(load_settings(config), str(config)).resolve_job_def("everything")


def job_of_the_environment() -> dg.JobDefinition:
    """The job as another process loads it."""
    return job_of(Path(os.environ["RANGES_CONFIG"]))


def recorded(instance: dg.DagsterInstance, name: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(name)))


def times_recorded(instance: dg.DagsterInstance, name: str) -> Counter[str | None]:
    found = instance.fetch_materializations(dg.AssetKey(name), limit=1000).records
    return Counter(record.partition_key for record in found)


def said_by(events: list[dg.DagsterEvent]) -> dict[str | None, str]:
    """What each failed step said, by step."""
    failed = [event for event in events if event.is_step_failure]
    return {event.step_key: str(event.step_failure_data.user_failure_data) for event in failed}


def searches_of_one_scan(config: Path, served: Served) -> int:
    """How often one scan of one month searches: the measure of "scanned once"."""
    planner = Planner.from_settings(load_settings(config, {"data": str(config.parent / "elsewhere")}))
    planner.availability(planner.sensors["mine"], planner.spec.months[0])
    return served.asked()["2025-01"]


@pytest.mark.timeout(600)
def test_one_bad_month_of_four(four_months: Path, served: Served, instance: dg.DagsterInstance) -> None:
    once = searches_of_one_scan(four_months, served)
    served.instance = instance
    result = job_of(four_months).execute_in_process(instance=instance, tags=RANGE, raise_on_error=False)
    assert not result.success
    asked = served.asked()
    assert {month: asked[month] for month in ("2025-01", "2025-03", "2025-04")} == dict.fromkeys(("2025-01", "2025-03", "2025-04"), once)
    assert len([e for e in result.all_events if e.is_step_up_for_retry]) == RETRIES
    assert asked["2025-02"] >= 1
    # Recorded as soon as it is written: when the last month is scanned, those before it stand in the log.
    assert served.at_last_month[0] == {"2025-01|mine", "2025-03|mine"}
    # The bad month holds up none of the others, in any asset; every partition is recorded once.
    for name in ASSETS:
        assert recorded(instance, name) - {BAD} == GOOD, name
        assert set(times_recorded(instance, name).values()) == {1}, name
    for name in ("availability", "availability_stats", "matchup", "coverage", "gap"):
        assert BAD not in recorded(instance, name), name
    said = said_by(result.all_events)
    assert set(said) == {"summary"}  # the last asset fails for all before it
    for words in said.values():
        assert BAD in words
        assert "503" in words
        assert not any(good in words for good in GOOD)
    with open_coverage(four_months.parent / "data" / "coverage.zarr") as ds:
        assert np.isnan(ds["scenes_total"].sel(sensor="mine").values).tolist() == [False, True, False, False]
    # A second run needs the bad month alone.
    served.status = 200
    assert job_of(four_months).execute_in_process(instance=instance, partition_key=BAD).success
    assert not set(served.asked()) - {"2025-02"}
    for name in ASSETS:
        assert recorded(instance, name) == GOOD | {BAD}, name
    with open_coverage(four_months.parent / "data" / "coverage.zarr") as ds:
        assert (ds["gap_revision"].sel(sensor="mine").values != 0).all()


@pytest.mark.timeout(600)
def test_a_resumed_run_makes_only_what_is_missing(
    four_months: Path, served: Served, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor of the code location: the failed step is the asset's own, those after it go on, and a resumed run does the rest."""
    monkeypatch.setenv("RANGES_CONFIG", str(four_months))
    job = dg.reconstructable(job_of_the_environment)
    with dg.execute_job(job, instance, tags=RANGE) as broken:
        assert not broken.success
        assert set(said_by(broken.all_events)) == {"availability"}
        assert BAD in said_by(broken.all_events)["availability"]
        run_id = broken.run_id
    for name in ASSETS:
        assert recorded(instance, name) - {BAD} == GOOD, name
    for name in ("availability", "availability_stats", "matchup", "coverage", "gap"):
        assert BAD not in recorded(instance, name), name
    served.asked()
    served.status = 200
    again = dg.ReexecutionOptions.from_failure(run_id, instance)
    # Dagster's web server and its daemon mark a run that resumes another; execute_job leaves that to its caller.
    tags = {**RANGE, "dagster/is_resume_retry": "true"}
    with dg.execute_job(job, instance, tags=tags, reexecution_options=again) as resumed:
        assert resumed.success
    assert not set(served.asked()) - {"2025-02"}
    for name in ASSETS:
        assert times_recorded(instance, name) == Counter(GOOD | {BAD}), name


@pytest.mark.timeout(600)
def test_a_range_of_which_nothing_can_be_made_stops(four_months: Path, served: Served, instance: dg.DagsterInstance) -> None:
    served.status = 503
    tags = {"dagster/asset_partition_range_start": BAD, "dagster/asset_partition_range_end": BAD}
    result = job_of(four_months).execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    assert set(said_by(result.all_events)) == {"availability"}
    assert recorded(instance, "availability") == set()
    assert recorded(instance, "availability_stats") == set()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("status", "attempts"), [(503, 1 + RETRIES), (404, 1), (401, 1)])
def test_only_what_may_pass_is_tried_again(
    four_months: Path, served: Served, instance: dg.DagsterInstance, status: int, attempts: int
) -> None:
    """A provider that is down may come back; a wrong address and a login that is wanted stay as they are."""
    served.status = status
    result = job_of(four_months).execute_in_process(instance=instance, partition_key=BAD, raise_on_error=False)
    begun = [e for e in result.all_events if e.step_key == "availability" and e.event_type_value in ("STEP_START", "STEP_RESTARTED")]
    assert len(begun) == attempts
    assert str(status) in said_by(result.all_events)["availability"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tags", [None, RANGE], ids=["one partition", "range"])
def test_a_settings_error_in_a_run_is_said_once(
    four_months: Path, served: Served, instance: dg.DagsterInstance, tags: dict[str, str] | None
) -> None:
    job = job_of(four_months)
    four_months.write_text(four_months.read_text().replace("resolution = 5.0", "resolution = 0.07"))
    result = job.execute_in_process(instance=instance, partition_key=None if tags else BAD, tags=tags, raise_on_error=False)
    assert not result.success
    assert not [e for e in result.all_events if e.is_step_up_for_retry]
    assert "grid.resolution = 0.07" in said_by(result.all_events)["availability"]
    assert served.asked() == Counter()


@pytest.mark.timeout(600)
def test_a_month_that_its_neighbours_make_doubtful_is_settled_in_the_same_run(
    four_months: Path, served: Served, instance: dg.DagsterInstance
) -> None:
    """January, scanned first, has nothing to be compared with: its emptiness is believed until the months after it have their scenes."""
    served.status = 200
    served.catalog.items = [
        item(f"{month}-{day}", f"{month}-{day:02d}T10:00:00Z", geometry=square(20, 0, 10)) for month in MONTHS[1:] for day in range(1, 9)
    ]
    assert job_of(four_months).execute_in_process(instance=instance, tags=RANGE).success
    assert times_recorded(instance, "availability") == Counter(GOOD | {BAD}) + Counter(["2025-01|mine"])
    assert times_recorded(instance, "gap") == Counter(GOOD | {BAD})
    with open_coverage(four_months.parent / "data" / "coverage.zarr") as ds:
        status = [SCAN_STATUS[code] for code in ds["scan_status"].sel(sensor="mine").values]
        assert status == ["provisional", "complete", "complete", "complete"]
        assert ACTIONS[int(ds["action"].isel(time=0).sel(sensor="mine", lat=2.5, lon=22.5))] == "unknown"
