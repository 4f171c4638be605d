"""What recorded items have that the specification does not expect: over the test STAC server they give scenes all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest

from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.catalog.scan import scan_month
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.scene_key import parse_time
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor
from coverage_pipeline.storage.store import Store
from tests.catalog.items import item, sensor, square
from tests.catalog.stac_server import Catalog, serve
from tests.shared_data import read_items

QUICK = ScanOptions(Patience(timeout_seconds=2, retries=1, backoff_seconds=0.01))


def scanned(
    tmp_path: Path, items: Sequence[Mapping[str, Any]], month: Month, of: CoverageSensor | None = None, collection: str = "scenes"
) -> tuple[gpd.GeoDataFrame, ScanReport, str]:
    """Scenes, report and the API's address."""
    store = Store.below(tmp_path)
    with serve(Catalog(items, collections=(collection,))) as catalog:
        base = of or sensor()
        source = AvailableSource("stac", catalog.address, collection, "eo:cloud_cover", page_size=4)
        report = scan_month(replace(base, available_sources=(source,)), month, store, options=QUICK)
    return gpd.read_parquet(str(store.scenes(base.key, month))), report, catalog.address


def of_month(items: Sequence[dict[str, Any]], month: Month) -> list[dict[str, Any]]:
    times = [(one, parse_time(one["properties"].get("datetime"))) for one in items]
    return [one for one, when in times if when is not None and month.start <= when < month.end]


def test_concept_ids_and_an_old_stac_version(tmp_path: Path) -> None:
    """CMR-STAC as recorded: ids are CMR's concepts, which no rule understands, and the version is a release candidate."""
    items = read_items("cmr-stac__HLSL30.v1.5.ndjson.gz")
    assert {one["stac_version"] for one in items} == {"1.0.0-rc.4"}
    assert all(one["id"].startswith("G") and one["id"].endswith("-LPCLOUD") for one in items)
    january = of_month(items, Month(2021, 1))
    scenes, report, _ = scanned(tmp_path, january, Month(2021, 1), replace(sensor(), family="landsat"), "HLSL30.v1.5")
    assert sorted(scenes.scene_key) == sorted(one["id"] for one in january)  # each stays a scene of its own
    assert report.rejected == {}
    assert scenes.cloud_cover.between(0, 100).all()
    assert scenes.item_href.str.startswith("https://cmr.earthdata.nasa.gov/stac/").all()


def test_relative_self_links_become_addresses_of_the_api(tmp_path: Path) -> None:
    """DLR's items link to themselves by a path that leads nowhere at its API."""
    july = Month(2025, 7)
    items = of_month(read_items("dlr__ENMAP_HSI_L2A.ndjson.gz"), july)
    relative = {
        one["id"] for one in items for link in one["links"] if link["rel"] == "self" and link["href"].startswith("/geoservice/repository/")
    }
    assert relative
    scenes, report, address = scanned(tmp_path, items, july, COVERAGE_SENSORS["enmap"], "ENMAP_HSI_L2A")
    assert report.rejected == {}
    ids = {item_id for some in scenes.item_ids for item_id in some}
    assert relative <= ids
    for row in scenes.itertuples():
        assert row.item_href.startswith(("https://geoservice.dlr.de/", f"{address}/collections/ENMAP_HSI_L2A/items/"))
        if row.item_ids[-1] in relative:
            assert row.item_href == f"{address}/collections/ENMAP_HSI_L2A/items/{row.item_ids[-1]}"
    # the cloud percentage is a text in some of them
    assert any(isinstance(one["properties"]["eo:cloud_cover"], str) for one in read_items("dlr__ENMAP_HSI_L2A.ndjson.gz"))
    assert scenes.cloud_cover.notna().all()


@pytest.mark.parametrize("geometry", ["given", "missing"])
def test_a_box_of_six_numbers(tmp_path: Path, geometry: str) -> None:
    """West, south, lowest, east, north, highest: the box stands for a geometry that is not there."""
    box = [5.0, 50.0, -12.0, 6.0, 51.0, 3400.0]
    one = item(bbox=box, geometry=square() if geometry == "given" else None)
    scenes, report, _ = scanned(tmp_path, [one], Month(2025, 1))
    assert report.rejected == {}
    assert scenes.total_bounds.tolist() == [5, 50, 6, 51]
    assert report.bbox_footprints == (geometry == "missing")


@pytest.mark.parametrize("number", [4, 6])
def test_a_box_across_the_antimeridian(tmp_path: Path, number: int) -> None:
    """West > east (RFC 7946, 5.2): two parts that meet at ±180, not a band around the globe."""
    box = [179.0, -17.0, -179.0, -16.0] if number == 4 else [179.0, -17.0, 0.0, -179.0, -16.0, 90.0]
    scenes, report, _ = scanned(tmp_path, [item(bbox=box, geometry=None)], Month(2025, 1))
    assert report.rejected == {}
    footprint = scenes.geometry.iloc[0]
    assert footprint.area == pytest.approx(2)
    assert sorted(part.bounds for part in footprint.geoms) == [(-180, -17, -179, -16), (179, -17, 180, -16)]


def test_recorded_items_across_the_antimeridian(tmp_path: Path) -> None:
    """stactools' Sentinel-2 items with a box of west > east: a geometry of two parts each, no larger than a tile."""
    found = [one for one in read_items("esa-stactools__sentinel-2-l2a.ndjson.gz") if one["bbox"][0] > one["bbox"][2]]
    assert found
    for number, one in enumerate(found):
        when = parse_time(one["properties"]["datetime"])
        assert when is not None
        folder = tmp_path / str(number)
        scenes, report, _ = scanned(folder, [one], Month.of(when), COVERAGE_SENSORS["sentinel-2"])
        assert report.rejected == {}, one["id"]
        footprint = scenes.geometry.iloc[0]
        assert footprint.geom_type == "MultiPolygon"
        assert all(part.bounds[2] - part.bounds[0] < 10 for part in footprint.geoms)
        assert {part.bounds[0] < 0 for part in footprint.geoms} == {True, False}
