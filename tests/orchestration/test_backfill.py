"""A backfill as the Dagster UI launches it: by GraphQL, through the daemon's queue, one run a partition."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.demo.stac_server import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill { status error { message } }
  }
}
"""


@pytest.fixture
def dagster_ui(world: Path, tmp_path: Path) -> Iterator[str]:
    home = tmp_path / "dagster-home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    port = free_port()
    log = (tmp_path / "dagster.log").open("wb")
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", str(ROOT / "workspace.yaml")]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "DAGSTER_HOME": str(home), "COVERAGE_CONFIG": str(world)},
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}/graphql"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def ask(url: str, query: str, **variables: Any) -> dict[str, Any]:
    answer = requests.post(url, json={"query": query, "variables": variables}, timeout=30).json()
    assert "errors" not in answer, answer["errors"]
    data: dict[str, Any] = answer["data"]
    return data


def until(url: str, seconds: float, condition: Any) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise AssertionError("Dagster did not get there in time")


@pytest.mark.timeout(480)
def test_a_backfill_from_the_ui(dagster_ui: str, world: Path) -> None:
    locations = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus locationOrLoadError { __typename } } } } }"

    def loaded() -> bool:
        entries = ask(dagster_ui, locations)["workspaceOrError"]["locationEntries"]
        return [e["locationOrLoadError"]["__typename"] for e in entries] == ["RepositoryLocation"]

    until(dagster_ui, 180, loaded)
    names = ["availability", "holdings", "availability_stats", "holdings_stats", "matchup", "target_stats", "coverage", "gap"]
    keys = ["2025-01|mine", "2025-02|mine"]
    launched = ask(
        dagster_ui, LAUNCH, params={"assetSelection": [{"path": [name]} for name in names], "partitionNames": keys, "fromFailure": False}
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def ended() -> str | None:
        found = ask(dagster_ui, STATUS, id=launched["backfillId"])["partitionBackfillOrError"]
        return found["status"] if found["status"] not in ("REQUESTED", "IN_PROGRESS") else None

    assert until(dagster_ui, 270, ended) == "COMPLETED_SUCCESS"
    ds = open_coverage(world.parent / "data" / "coverage.zarr")
    assert ds["scenes_total"].sel(sensor="mine").values.tolist()[:2] == [5, 5]
    assert (ds["gap_revision"].sel(sensor="mine").values[:2] != 0).all()
