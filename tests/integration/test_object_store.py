"""Everything below one root on S3: a real S3 protocol server on loopback instead of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import dagster as dg
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from upath import UPath

from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.definitions import planner_definitions
from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.pipeline.build import build
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.settings.load import load_settings
from tests.orchestration.conftest import items_of

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()  # fsspec gives the one of another test again, which asks that one's server
    boto3.client("s3").create_bucket(Bucket="planner")
    try:
        yield "s3://planner/coverage"
    finally:
        server.stop()


def settings_file(folder: Path, root: str, address: str) -> Path:
    """Settings of one served sensor in January, with everything below ``root``."""
    path = folder / "build.toml"
    path.write_text(f"""
data = {json.dumps(root)}
[grid]
resolution = 5.0
[window]
start = 2025-01-01
end = 2025-01-31
[sensors]
keys = ["mine"]
[sensors.declared.mine]
nominal_revisit_days = 8
default_desired_per_month = 3
available_sources = [{{ kind = "stac", endpoint = "{address}", collection_id = "scenes" }}]
""")
    return path


def test_a_build_on_s3_equals_one_in_a_folder(bucket: str, serve_items: Callable[..., str], tmp_path: Path) -> None:
    address = serve_items(items_of(["2025-01"]))

    def config(root: str) -> Planner:
        return Planner.from_settings(load_settings(settings_file(tmp_path, root, address)))

    remote, local = config(bucket), config(str(tmp_path / "folder"))
    for planner in (remote, local, remote):  # the second time over what is there already
        build(planner)
    there, here = open_coverage(UPath(bucket) / "coverage.zarr"), open_coverage(tmp_path / "folder" / "coverage.zarr")
    for name in ("scenes_count", "available_days", "action", "scan_status", "scenes_total"):
        np.testing.assert_array_equal(there[name].values, here[name].values)
    assert int(there["scenes_total"].sum()) == 5
    assert remote.store.scenes("mine", remote.spec.months[0]).protocol == "s3"


def test_a_dagster_run_and_its_checks_on_s3(bucket: str, serve_items: Callable[..., str], tmp_path: Path) -> None:
    """Regression: the checks opened the files of the object store as local paths, and failed the run."""
    address = serve_items(items_of(["2025-01"]))
    path = settings_file(tmp_path, bucket, address)
    job = planner_definitions(load_settings(path), str(path)).resolve_job_def("everything")
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(instance=instance, partition_key="2025-01|mine")
    evaluations = {found.check_name: found for found in result.get_asset_check_evaluations()}
    assert {name: found.passed for name, found in evaluations.items()} == {"scene_keys_unique": True, "held_is_listed": True}
    assert {found.description for found in evaluations.values()} == {None}
    assert int(open_coverage(UPath(bucket) / "coverage.zarr")["scenes_total"].sum()) == 5
