"""One sensor, one month, one country against a live public catalogue: ``pytest -m live``, where there is an internet."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from coverage_pipeline.catalog.scan import scan_month
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.storage.store import Store

NETHERLANDS = (3.3, 50.7, 7.3, 53.6)


@pytest.mark.live
@pytest.mark.parametrize("key", ["landsat-8-9", "sentinel-2"])
def test_a_real_month_over_the_netherlands(key: str, tmp_path: Path) -> None:
    sensor = COVERAGE_SENSORS[key]
    host = sensor.available_sources[0].provider
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError as error:
        pytest.skip(f"{host} cannot be reached: {error}")
    report = scan_month(sensor, Month(2024, 6), Store.below(tmp_path), bbox=NETHERLANDS)
    assert report.status == "complete"
    # Each Landsat passes every 16 days and Sentinel-2 every 5: fewer scenes than that would be a hole.
    assert report.scenes >= {"landsat-8-9": 12, "sentinel-2": 60}[key]
