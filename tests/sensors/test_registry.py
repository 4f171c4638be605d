"""The registry: facts with a source, frozen, and clear refusals."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from urllib.parse import urlsplit

import numpy as np
import pytest
import shapely

from coverage_pipeline.catalog.providers import profile_of
from coverage_pipeline.cube.schema import CoverageError, DesiredCadence
from coverage_pipeline.demo.missions import MISSIONS
from coverage_pipeline.geometry.footprints import area_km2, normalise_footprints
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.config import SensorSettings
from coverage_pipeline.sensors.registry import (
    COVERAGE_SENSORS,
    AvailableSource,
    CoverageSensor,
    SensorError,
    registry,
    resolve_sensors,
)
from tests.shared_data import item_files, read_items

FACTS = {"available_sources", "nominal_revisit_days", "taskable", "reach", "max_scene_km2", "first_month", "cloud", "swath_km"}


def a_source(**changes: object) -> AvailableSource:
    given: dict[str, object] = {"kind": "stac", "endpoint": "https://stac.example.org/v1", "collection_id": "x"}
    return AvailableSource(**(given | changes))  # type: ignore[arg-type]


def a_sensor(**changes: object) -> CoverageSensor:
    given: dict[str, object] = {
        "key": "mine",
        "available_sources": (),
        "held_satellite": None,
        "nominal_revisit_days": 5,
        "default_desired_per_month": 2,
    }
    return CoverageSensor(**(given | changes))  # type: ignore[arg-type]


def test_the_registry_is_the_specification_s() -> None:
    assert list(COVERAGE_SENSORS) == ["emit", "enmap", "prisma", "landsat-8-9", "sentinel-2"]
    assert all(key == sensor.key for key, sensor in COVERAGE_SENSORS.items())
    held = {key: s.held_satellite for key, s in COVERAGE_SENSORS.items()}
    assert held == {"emit": "EMIT", "enmap": "EnMAP", "prisma": "PRISMA", "landsat-8-9": "Landsat", "sentinel-2": None}
    assert [key for key, s in COVERAGE_SENSORS.items() if s.taskable] == ["emit", "enmap", "prisma"]
    assert [s.default_desired_per_month for s in COVERAGE_SENSORS.values()] == [2, 2, 2, 3, 6]


def test_catalogues_as_they_really_answer() -> None:
    emit = COVERAGE_SENSORS["emit"].available_sources
    assert {(s.provider, s.collection_id, s.version) for s in emit} == {("cmr.earthdata.nasa.gov", "EMITL2ARFL", "001")}
    assert [s.kind for s in emit] == ["cmr", "earthaccess"]
    landsat = COVERAGE_SENSORS["landsat-8-9"].available_sources
    # landsat-c2-l2 holds Landsat 4 to 9.
    assert all(s.collection_id == "landsat-c2-l2" and s.platforms == ("landsat-8", "landsat-9") for s in landsat)
    sentinel = {s.provider: s for s in COVERAGE_SENSORS["sentinel-2"].available_sources}
    assert sentinel["stac.dataspace.copernicus.eu"].endpoint == "https://stac.dataspace.copernicus.eu/v1"
    assert {s.collection_id for s in sentinel.values()} == {"sentinel-2-l2a"}
    assert COVERAGE_SENSORS["prisma"].available_sources == ()
    # Earth Search fails above about 250 items a page; CMR takes 2,000.
    most = {"stac": 250, "cmr": 2000, "earthaccess": 2000}
    assert all(profile_of(s).page_size <= most[s.kind] for sensor in COVERAGE_SENSORS.values() for s in sensor.available_sources)


def test_reach_first_month_and_revisit() -> None:
    assert {key: s.reach for key, s in COVERAGE_SENSORS.items()} == {
        "emit": (-52, 52), "enmap": (-80, 80), "prisma": (-70, 70), "landsat-8-9": (-82.7, 82.7), "sentinel-2": (-56, 84),
    }  # fmt: skip
    assert {key: str(s.first_month) for key, s in COVERAGE_SENSORS.items()} == {
        "emit": "2022-08", "enmap": "2022-04", "prisma": "2019-05", "landsat-8-9": "2013-03", "sentinel-2": "2015-06",
    }  # fmt: skip
    assert all(s.last_month is None for s in COVERAGE_SENSORS.values())
    revisit = {key: s.nominal_revisit_days for key, s in COVERAGE_SENSORS.items()}
    # Not the specification's 16 days for EMIT (the station has no such cycle) nor 7 for PRISMA (its orbit repeats in 29).
    assert revisit == {"emit": 4, "enmap": 27, "prisma": 29, "landsat-8-9": 8, "sentinel-2": 5}


def test_the_revisit_of_a_month_is_that_of_the_satellites_that_flew() -> None:
    sentinel, landsat = COVERAGE_SENSORS["sentinel-2"], COVERAGE_SENSORS["landsat-8-9"]
    assert [sentinel.revisit_in(Month(*m)) for m in ((2015, 7), (2017, 6), (2017, 7), (2025, 1))] == [10, 10, 5, 5]
    assert [landsat.revisit_in(Month(*m)) for m in ((2013, 4), (2021, 10), (2021, 11), (2025, 1))] == [16, 16, 8, 8]
    assert [key for key, s in COVERAGE_SENSORS.items() if s.systematic] == ["landsat-8-9", "sentinel-2"]
    assert {key: s.min_sun for key, s in COVERAGE_SENSORS.items() if s.systematic} == {
        m.sensor_key: m.min_sun for m in MISSIONS.values() if not COVERAGE_SENSORS[m.sensor_key].taskable
    }


@pytest.mark.parametrize("sensor", COVERAGE_SENSORS.values(), ids=str)
def test_each_fact_has_the_page_it_was_taken_from(sensor: CoverageSensor) -> None:
    assert set(sensor.sources) == FACTS | ({"former_revisits", "min_sun"} if sensor.systematic else set())
    assert set(sensor.sources) <= {f.name for f in fields(sensor)}
    for page in sensor.sources.values():
        parts = urlsplit(page)
        assert parts.scheme == "https"
        assert "." in (parts.hostname or "")


def test_the_layers_a_sensor_has() -> None:
    assert COVERAGE_SENSORS["prisma"].layers() == ("acquired", "gap")
    assert COVERAGE_SENSORS["sentinel-2"].layers() == ("available", "gap")
    assert COVERAGE_SENSORS["emit"].layers() == ("available", "acquired", "gap")


def test_facts_cannot_be_changed() -> None:
    emit = COVERAGE_SENSORS["emit"]
    with pytest.raises(FrozenInstanceError):
        emit.taskable = False  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        emit.available_sources[0].endpoint = "https://elsewhere.example"  # type: ignore[misc]
    with pytest.raises(TypeError):
        emit.sources["reach"] = "https://elsewhere.example"  # type: ignore[index]
    with pytest.raises(TypeError):
        COVERAGE_SENSORS["emit"] = emit  # type: ignore[index]


def test_a_mission_flies_from_its_first_to_its_last_month() -> None:
    sensor = a_sensor(first_month=Month(2020, 2), last_month=Month(2020, 4))
    assert [sensor.flies_in(Month(2020, m)) for m in (1, 2, 3, 4, 5)] == [False, True, True, True, False]
    assert a_sensor().flies_in(Month(1950, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ftp"}, "unknown source kind 'ftp': use one of stac, cmr, earthaccess"),
        ({"endpoint": "stac.example.org"}, "bad endpoint 'stac.example.org'"),
        ({"endpoint": "ftp://stac.example.org"}, "bad endpoint"),
        ({"endpoint": "https://"}, "bad endpoint"),
        ({"collection_id": ""}, "no collection_id"),
        ({"page_size": 0}, "page_size 0"),
    ],
)
def test_a_bad_source_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SensorError, match=message):
        a_source(**changes)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(SensorError) as error:
        a_source(endpoint="https://me:hunter2@stac.example.org")
    assert "hunter2" not in str(error.value)


def test_platforms_are_compared_in_lower_case() -> None:
    assert a_source(platforms=("LANDSAT-8",)).platforms == ("landsat-8",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "My Sensor"}, "lower-case"),
        ({"key": "a|b"}, "lower-case"),  # '|' parts the partition key
        ({"key": ""}, "lower-case"),
        ({"reach": (10.0, 10.0)}, "reach"),
        ({"reach": (-91.0, 10.0)}, "reach"),
        ({"first_month": Month(2025, 2), "last_month": Month(2025, 1)}, "before first_month"),
        ({"max_scene_km2": 0}, "max_scene_km2 0 must be > 0"),
        ({"max_scene_km2": -5.0}, "max_scene_km2"),
        ({"max_scene_km2": float("nan")}, "max_scene_km2"),
        ({"nominal_revisit_days": 0}, "nominal_revisit_days"),
        ({"nominal_revisit_days": float("nan")}, "nominal_revisit_days"),
        ({"former_revisits": ((Month(2020, 1), 10.0), (Month(2019, 1), 16.0))}, "former_revisits"),
        ({"former_revisits": ((Month(2020, 1), 0.0),)}, "former_revisits"),
        ({"min_sun": 91.0}, "min_sun"),
        ({"default_desired_per_month": -1}, "default_desired_per_month"),
    ],
)
def test_a_bad_sensor_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SensorError, match=message):
        a_sensor(**changes)


def test_keys_are_unique() -> None:
    with pytest.raises(SensorError, match="'mine' is declared twice"):
        registry([a_sensor(), a_sensor(title="again")])


def test_resolving_keeps_the_order_and_refuses_the_unknown_and_the_repeated() -> None:
    assert [s.key for s in resolve_sensors(["sentinel-2", "emit"], COVERAGE_SENSORS)] == ["sentinel-2", "emit"]
    with pytest.raises(SensorError, match=r"unknown sensor 'emmit': known are emit, enmap, .*build\.toml"):
        resolve_sensors(["emmit"], COVERAGE_SENSORS)
    with pytest.raises(SensorError, match="'emit' is listed twice"):
        resolve_sensors(["emit", "prisma", "emit"], COVERAGE_SENSORS)


def test_the_desired_cadence_is_the_planner_s_or_the_registry_s() -> None:
    desired = DesiredCadence({"emit": 0, "far": 1.5})
    assert (desired.for_sensor("emit"), desired.for_sensor("far"), desired.for_sensor("prisma")) == (0, 1.5, 2)
    with pytest.raises(CoverageError, match="no desired cadence for sensor 'nobody'"):
        desired.for_sensor("nobody")
    assert desired.for_sensor("mine", {"mine": replace(a_sensor(), default_desired_per_month=4)}) == 4


def recorded_sensor(name: str) -> CoverageSensor:
    """The sensor that a file of recorded items belongs to."""
    marks = {"sentinel-2": "sentinel-2", "landsat": "landsat-8-9", "HLSL30": "landsat-8-9", "ENMAP": "enmap", "emit": "emit"}
    return next(COVERAGE_SENSORS[key] for mark, key in marks.items() if mark in name)


def _areas(shapes: list[object]) -> np.ndarray:
    return area_km2(normalise_footprints(np.array(shapes, dtype=object))[0])


@pytest.mark.parametrize("name", item_files() or ["any"])
def test_no_recorded_scene_is_near_its_sensor_s_limit(name: str) -> None:
    limit = recorded_sensor(name).max_scene_km2
    assert limit is not None
    items = read_items(name)
    assert np.nanmax(_areas([shapely.geometry.shape(i["geometry"]) if i.get("geometry") else None for i in items])) < limit / 2
    # An item without geometry gives its bounding box, which must pass, too.
    boxes = [i["bbox"] if len(i["bbox"]) == 4 else [*i["bbox"][:2], *i["bbox"][3:5]] for i in items if i.get("bbox")]
    flat = [shapely.box(west, south, east + 360 * (west > east), north) for west, south, east, north in boxes]
    assert max(_areas(flat), default=0) < limit


@pytest.mark.parametrize("sensor", COVERAGE_SENSORS.values(), ids=str)
def test_what_no_scene_can_be_is_above_every_limit(sensor: CoverageSensor) -> None:
    assert sensor.max_scene_km2 is not None
    globe = shapely.box(-180, -90, 180, 90)
    around = shapely.box(-180, 0, 180, 0.27)  # 30 km wide: the narrowest swath, once round the globe
    bounds = shapely.box(-20, *sensor.reach[:1], 20, sensor.reach[1])  # of an orbit's daylight half
    assert (_areas([globe, globe - shapely.box(10, 10, 11, 11), around, bounds]) > sensor.max_scene_km2).all()


def test_a_declared_sensor_may_have_a_limit_or_none() -> None:
    fields_ = {"held_satellite": "X", "nominal_revisit_days": 5, "default_desired_per_month": 2}
    declared = {"tight": {**fields_, "max_scene_km2": 500}, "free": fields_}
    known = SensorSettings(declared=declared).registry()
    assert (known["tight"].max_scene_km2, known["free"].max_scene_km2) == (500, None)
    with pytest.raises(ValueError, match="max_scene_km2"):
        SensorSettings(declared={"bad": {**fields_, "max_scene_km2": 0}})
