"""The simulated archive: deterministic, within each mission's reach, and on the real satellites' calendar."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from coverage_pipeline.demo.archive import CATALOGUED, simulated_footprints, simulated_items, write_archive
from coverage_pipeline.demo.holdings import simulated_holdings, simulated_holdings_without_catalog
from coverage_pipeline.demo.missions import MISSIONS, ArchiveError
from coverage_pipeline.geometry import outlines as geodata
from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.touch import touched
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.shared_data import item_files, read_items, shared_data

pytestmark = pytest.mark.slow

MARCH = Month(2025, 3)
EVERY = (*CATALOGUED, "prisma")
DEMO = {"sentinel-2": 0.02, "landsat-8-9": 0.15, "emit": 1.0, "enmap": 1.0}


@cache
def footprints(key: str, month: Month = MARCH) -> gpd.GeoDataFrame:
    return simulated_footprints(key, month)


@cache
def items(key: str, month: Month = MARCH) -> list[dict[str, Any]]:
    return list(simulated_items(key, month, density=DEMO[key]))


def days_seen(table: gpd.GeoDataFrame, lon: float, lat: float) -> list[dt.date]:
    seen = shapely.intersects_xy(table.geometry.to_numpy(), lon, lat)
    return sorted(set(table["datetime"][seen].dt.date))


@pytest.mark.parametrize("key", CATALOGUED)
def test_the_same_seed_gives_the_same_archive_and_another_does_not(key: str) -> None:
    again = list(simulated_items(key, MARCH, density=DEMO[key]))
    assert again == items(key)
    assert list(simulated_items(key, MARCH, density=DEMO[key], seed=8)) != again


@pytest.mark.parametrize("key", EVERY)
def test_footprints_are_valid_and_on_the_map(key: str) -> None:
    geometry = footprints(key).geometry.to_numpy()[:: 5 if key == "sentinel-2" else 1]
    assert shapely.is_valid(geometry).all()
    assert (shapely.area(geometry) > 0).all()
    bounds = shapely.bounds(geometry)
    assert (np.abs(bounds[:, [0, 2]]) <= 180).all()
    assert (np.abs(bounds[:, [1, 3]]) <= 90).all()
    parts = shapely.get_parts(geometry)
    assert (shapely.bounds(parts)[:, 2] - shapely.bounds(parts)[:, 0] < 60).all()
    assert (normalise_footprints(geometry)[1] == None).all()  # noqa: E711


@pytest.mark.parametrize("key", EVERY)
def test_nothing_is_imaged_beyond_the_sensors_reach(key: str) -> None:
    bounds = shapely.bounds(footprints(key).geometry.to_numpy())
    centre = (bounds[:, 1] + bounds[:, 3]) / 2
    south, north = COVERAGE_SENSORS[key].reach
    assert centre.min() >= south - 0.5
    assert centre.max() <= north + 0.5


@pytest.mark.parametrize("key", EVERY)
def test_only_land_is_imaged(key: str) -> None:
    table = footprints(key)
    sample = table.geometry.to_numpy()[:: max(1, len(table) // 300)]
    near_land = shapely.dwithin(geodata.land(), sample, 0.3)
    # A pass sees the edge of a tile whose land lies elsewhere in it
    assert near_land.mean() > (0.9 if key == "sentinel-2" else 0.999)


@pytest.mark.parametrize("key", EVERY)
def test_scenes_belong_to_the_month_of_their_acquisition(key: str) -> None:
    times = footprints(key)["datetime"]
    assert str(times.dtype) == "datetime64[us, UTC]"
    assert times.min() >= MARCH.start
    assert times.max() < MARCH.end
    assert times.is_monotonic_increasing
    assert set(times.dt.day) == set(range(1, 32))
    before, after = footprints("enmap", MARCH.shift(-1)), footprints("enmap")
    assert before["datetime"].max() < after["datetime"].min()


def test_volumes_are_those_of_the_missions() -> None:
    for key, (low, high) in {
        "sentinel-2": (200_000, 500_000),
        "landsat-8-9": (30_000, 50_000),
        "emit": (2_000, 6_000),
        "enmap": (2_000, 4_500),
        "prisma": (200, 700),
    }.items():
        assert low < len(footprints(key)) < high, key


@pytest.mark.parametrize("name", sorted(MISSIONS))
def test_sun_synchronous_missions_pass_at_one_local_time(name: str) -> None:
    mission = MISSIONS[name]
    orbits = mission.orbits_of(MARCH)
    times, lon = mission.node_time(orbits), mission.node_lon(orbits)
    hours = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
    local = (hours + lon / 15) % 24
    if mission.sun_synchronous:
        expected = {"sentinel-2": 10.5, "landsat-8-9": 10.2, "enmap": 11.0, "prisma": 10.5}[mission.sensor_key]
        assert np.abs(local - expected).max() < 0.02
        assert mission.local_time == pytest.approx(expected, abs=0.02)
    else:
        assert np.ptp(local) > 6
    highest = np.abs(mission.ground(np.linspace(-180, 180, 721))[0]).max()
    assert highest == pytest.approx(min(mission.inclination, 180 - mission.inclination), abs=0.25)


def test_tracks_repeat_after_the_cycle() -> None:
    for mission in MISSIONS.values():
        if mission.sun_synchronous:
            first, later = mission.node_lon(np.array([5, 5 + mission.orbits]))
            assert first == pytest.approx(later, abs=1e-6)


@pytest.mark.parametrize(("lon", "lat"), [(-105.3, 40.1), (9.2, 47.9), (145.0, -32.5)])
def test_each_landsat_comes_every_16_days_and_both_every_8(lon: float, lat: float) -> None:
    table = footprints("landsat-8-9")
    for platform in ("landsat-8", "landsat-9"):
        same_frame = table[table["platform"] == platform].groupby("frame")["datetime"]
        gaps = np.concatenate([np.diff(times.to_numpy("datetime64[m]")) for _, times in same_frame])
        assert set(gaps.astype(int)) == {16 * 24 * 60}
        days = days_seen(table[table["platform"] == platform], lon, lat)
        assert max(b - a for a, b in itertools.pairwise(days)).days <= 16
    assert max(b - a for a, b in itertools.pairwise(days_seen(table, lon, lat))).days <= 8


@pytest.mark.parametrize(("lon", "lat"), [(-105.3, 40.1), (9.2, 47.9), (145.0, -32.5), (24.0, -2.0)])
def test_sentinel_2_comes_every_5_days(lon: float, lat: float) -> None:
    days = days_seen(footprints("sentinel-2"), lon, lat)
    assert max(b - a for a, b in itertools.pairwise(days)).days <= 5


def test_emit_sees_no_fixed_calendar() -> None:
    assert footprints("emit").groupby("orbit").size().max() > 10
    assert footprints("emit")["datetime"].dt.hour.nunique() == 24


def test_landsat_flies_on_its_real_calendar() -> None:
    real: defaultdict[Month, set[tuple[str, str, str]]] = defaultdict(set)
    for item in read_items("planetary-computer__landsat-8-c2-l2.ndjson.gz"):
        found = re.match(r"LC08_L2SP_(\d{6})_(\d{8})_", item["id"])
        if found and int(found[1][3:]) < 120:
            real[Month(int(found[2][:4]), int(found[2][4:6]))].add(("landsat-8", found[1], found[2]))
    months = sorted(real)[:: max(1, len(real) // 6)]
    wanted = set().union(*(real[month] for month in months))
    made = set()
    for month in months:
        table = footprints("landsat-8-9", month)
        made |= set(zip(table["platform"], table["frame"], table["datetime"].dt.strftime("%Y%m%d"), strict=True))
    frames = {frame for _, frame, _ in made}
    wanted = {row for row in wanted if row[1] in frames}  # scenes of open sea are not simulated
    assert len(wanted) > 20
    assert len(wanted & made) >= 0.97 * len(wanted)


def test_sentinel_2_flies_on_its_real_calendar() -> None:
    real: defaultdict[Month, set[tuple[str, str, str]]] = defaultdict(set)
    file = shared_data() / "items" / "planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet"
    for name in pq.read_table(file, columns=["id"])["id"].to_pylist():
        found = re.match(r"S2([ABC])_MSIL2A_(\d{8})T\d{6}_R\d{3}_T(\w{5})_", name)
        assert found
        real[Month(int(found[2][:4]), int(found[2][4:6]))].add((f"sentinel-2{found[1].lower()}", found[3], found[2]))
    month = max(real, key=lambda m: len(real[m]))
    table = footprints("sentinel-2", month)
    made = set(zip(table["platform"], table["frame"], table["datetime"].dt.strftime("%Y%m%d"), strict=True))
    assert len(real[month]) > 20
    assert len(real[month] & made) >= 0.95 * len(real[month])


def test_frames_lie_where_the_real_ones_do() -> None:
    paths = gpd.read_parquet(shared_data() / "grids" / "landsat-wrs2-descending.parquet", columns=["PR", "geometry"])
    table = footprints("landsat-8-9").drop_duplicates("frame")[["frame", "geometry"]].merge(paths, left_on="frame", right_on="PR")
    mine, theirs = table["geometry_x"].to_numpy()[::20], table["geometry_y"].to_numpy()[::20]
    sound = shapely.is_valid(theirs) & (shapely.get_type_id(mine) == 3)
    overlap = shapely.area(shapely.intersection(mine[sound], theirs[sound])) / shapely.area(shapely.union(mine[sound], theirs[sound]))
    assert np.quantile(overlap, 0.02) > 0.9
    tiles = set(gpd.read_parquet(shared_data() / "grids" / "sentinel2-mgrs-land.parquet", columns=["tile", "geometry"])["tile"])
    made = set(footprints("sentinel-2")["frame"])
    assert len(made & tiles) > 0.88 * len(made)


PATTERNS = {
    "sentinel-2": r"S2[ABC]_MSIL2A_\d{8}T\d{6}_R\d{3}_T\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]_\d{8}T\d{6}",
    "landsat-8-9": r"LC0[89]_L2SP_\d{6}_\d{8}_02_T[12]",
    "enmap": r"ENMAP01-____L2A-DT\d{10}_\d{8}T\d{6}Z_\d{3}_V010402_\d{8}T\d{6}Z",
    "emit": r"EMIT_L2A_RFL_001_\d{8}T\d{6}_\d{7}_\d{3}",
}


@pytest.mark.parametrize("key", CATALOGUED)
def test_items_look_like_the_providers(key: str) -> None:
    made = items(key)
    assert len({item["id"] for item in made}) == len(made)
    collections = {source.collection_id for source in COVERAGE_SENSORS[key].available_sources}
    for item in made:
        assert re.fullmatch(PATTERNS[key], item["id"]), item["id"]
        assert item["collection"] in collections
        assert item["stac_version"] == "1.0.0"
        assert item["properties"]["simulated"] is True
        assert item["links"] == []
        assert item["assets"] == {}
        assert len(item["bbox"]) == 4
        when = dt.datetime.fromisoformat(item["properties"]["datetime"])
        assert MARCH.start <= when < MARCH.end
    json.dumps(made, allow_nan=False)


def test_items_carry_the_real_items_property_names() -> None:
    for key, name in {
        "sentinel-2": "planetary-computer__sentinel-2-l2a.ndjson.gz",
        "landsat-8-9": "planetary-computer__landsat-c2-l2.ndjson.gz",
        "enmap": "dlr__ENMAP_HSI_L2A.ndjson.gz",
    }.items():
        assert name in item_files() or shared_data()
        real = set().union(*(item["properties"] for item in read_items(name)))
        mine = set(items(key)[0]["properties"])
        assert mine - {"simulated"} <= real, (key, mine - real)


@pytest.mark.parametrize("key", CATALOGUED)
def test_cloud_is_spelt_as_the_provider_does_and_sometimes_unknown(key: str) -> None:
    values = [item["properties"]["eo:cloud_cover"] for item in items(key)]
    if key == "enmap":
        assert all(value is None or isinstance(value, str) for value in values)
    unknown = [value for value in values if value in (None, -1)]
    assert 0 < len(unknown) < 0.15 * len(values)
    known = np.array([float(value) for value in values if value not in (None, -1)])
    assert known.min() >= 0
    assert known.max() <= 100
    assert 0.1 < (known < 10).mean() < 0.5
    assert (known > 80).mean() > 0.1


def test_deserts_are_clearer_than_rain_forests_and_one_days_weather_is_shared() -> None:
    table = footprints("sentinel-2")
    box = table.geometry.bounds
    lon, lat = (box["minx"] + box["maxx"]) / 2, (box["miny"] + box["maxy"]) / 2
    sahara = table["cloud"][(lon > -5) & (lon < 30) & (lat > 18) & (lat < 28)]
    congo = table["cloud"][(lon > 12) & (lon < 28) & (lat > -5) & (lat < 5)]
    assert sahara.mean() + 20 < congo.mean()
    near = table[(lon > 10) & (lon < 12) & (lat > 50) & (lat < 52) & table["cloud"].notna()]
    within_a_day = near.groupby(near["datetime"].dt.date)["cloud"].std().mean()
    assert within_a_day < 0.8 * near["cloud"].std()


def test_reprocessed_copies_and_split_scenes() -> None:
    table = footprints("sentinel-2")
    copies, parts = table[table["copy"] == 1], table[table["part"] == 1]
    assert 0.005 < len(copies) / len(table) < 0.02
    assert 0.005 < len(parts) / len(table) < 0.03
    for part in parts.iloc[:: max(1, len(parts) // 50)].itertuples():
        other = table[(table["scene"] == part.scene) & (table["part"] == 0)].geometry.iloc[0]
        assert shapely.intersection(other, part.geometry).area < 1e-6
    groups: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in items("sentinel-2"):
        groups[item["id"].rpartition("_")[0]].append(item["properties"])
    strips = Counter()
    for twins in groups.values():
        if len(twins) == 2:
            starts = {re.search(r"_S(\d{8}T\d{6})_", twin["s2:datastrip_id"])[1] for twin in twins}  # type: ignore[index]
            strips[len(starts)] += 1
            if len(starts) == 1:
                assert len({twin["s2:generation_time"] for twin in twins}) == 2
                assert len({twin["eo:cloud_cover"] for twin in twins}) == 1
    assert strips[1] > 10
    assert strips[2] > 10


def test_the_antimeridian_comes_split_or_as_one_polygon_and_is_the_same_place() -> None:
    made = [
        item
        for item in simulated_items("landsat-8-9", MARCH)
        if item["bbox"][0] < -170 < 170 < item["bbox"][2] or item["bbox"][0] > item["bbox"][2]
    ]
    kinds = Counter(item["geometry"]["type"] for item in made)
    assert kinds["Polygon"] > 20
    assert kinds["MultiPolygon"] > 20
    geometries = shapely.from_geojson(np.array([json.dumps(item["geometry"]) for item in made], dtype=object))
    bounds = shapely.bounds(geometries)
    assert (np.abs(bounds[:, [0, 2]]) <= 180).all()
    usable, reasons = normalise_footprints(geometries)
    assert (reasons == None).all()  # noqa: E711
    table = footprints("landsat-8-9")
    real = {
        f"{row.frame}{row.datetime:%Y%m%d}{row.platform[-1]}": row.geometry
        for row in table.itertuples()
        if row.geometry.geom_type == "MultiPolygon"
    }
    for item, geometry in zip(made, usable, strict=True):
        name = item["id"]
        truth = real[name[10:16] + name[17:25] + name[3]]
        assert shapely.intersection(truth, geometry).area > 0.99 * shapely.union(truth, geometry).area


def test_a_smaller_density_keeps_whole_passes_spread_over_the_globe() -> None:
    full, thin = footprints("landsat-8-9"), simulated_footprints("landsat-8-9", MARCH, density=0.15)
    assert 0.10 < len(thin) / len(full) < 0.20
    per_pass = full.groupby(["platform", "orbit"]).size()
    kept = thin.groupby(["platform", "orbit"]).size()
    assert (kept == per_pass.loc[kept.index]).all()
    cells = touched(thin.geometry.to_numpy(), GridSpec(5.0)) | ~touched(full.geometry.to_numpy(), GridSpec(5.0))
    assert cells.mean() > 0.8


def test_months_outside_a_missions_life() -> None:
    assert len(simulated_footprints("emit", Month(2020, 1))) == 0
    assert list(simulated_items("enmap", Month(2015, 1))) == []
    assert set(footprints("landsat-8-9", Month(2016, 8))["platform"]) == {"landsat-8"}
    assert set(simulated_footprints("sentinel-2", Month(2025, 1), density=0.3)["platform"]) == {
        "sentinel-2a",
        "sentinel-2b",
        "sentinel-2c",
    }


def test_sentinel_2a_flies_on_as_a_third_satellite() -> None:
    """It did not stop when Sentinel-2C took its place: Europe every 10 days, the rest every 20, from March 2025."""
    april = simulated_footprints("sentinel-2", Month(2025, 4))
    platforms = april["platform"].map(lambda key: MISSIONS[key].platform)
    assert set(platforms) == {"Sentinel-2A", "Sentinel-2B", "Sentinel-2C"}
    third = april[(platforms == "Sentinel-2A").to_numpy()]
    for lon, lat, wait, most in ((9.2, 47.9, 10, 3), (-105.3, 40.1, 20, 2)):
        here = third[third.intersects(shapely.Point(lon, lat))]
        passes = here.groupby("orbit")["datetime"].min()
        tracks = [times.to_list() for _, times in passes.groupby(passes.index % 143)]
        assert tracks
        assert all(len(times) <= most for times in tracks)
        gaps = {later - earlier for times in tracks for earlier, later in itertools.pairwise(times)}
        assert {round(gap / np.timedelta64(1, "D"), 3) for gap in gaps} <= {wait}
        assert gaps or wait == 20  # in thirty days a track comes once or twice
    names = {item["id"][:3] for item in itertools.islice(simulated_items("sentinel-2", Month(2025, 4), density=0.02), 5000)}
    assert names == {"S2A", "S2B", "S2C"}
    february = simulated_footprints("sentinel-2", Month(2025, 2), density=0.3)
    assert not february["platform"].str.startswith("sentinel-2a").any()  # on its way from one place to the other


def test_sentinel_2a_lies_where_its_element_sets_have_it() -> None:
    """37° behind Sentinel-2B, and Sentinel-2C opposite: argument of latitude, brought to one instant."""
    lines = (shared_data() / "tle" / "real-tles-2026-08.tle").read_text().splitlines()
    at = np.datetime64("2026-08-20T00:00:00", "ms")
    latest: dict[str, tuple[np.datetime64, float]] = {}
    for name, one, two in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        epoch = np.datetime64(f"20{one[18:20]}-01-01", "ms") + np.timedelta64(round((float(one[20:32]) - 1) * 86_400_000), "ms")
        since = (at - epoch) / np.timedelta64(1, "D")
        if name not in latest or epoch > latest[name][0]:
            latest[name] = epoch, float(two[34:42]) + float(two[43:51]) + float(two[52:63]) * 360 * since
    real = {letter: latest[f"SENTINEL-2{letter}"][1] for letter in "ABC"}

    def phase(key: str) -> float:
        mission = MISSIONS[key]
        return float((at - np.datetime64(mission.node_epoch, "ms")) / np.timedelta64(1, "s") / mission.period_s * 360)

    for key, letter in (("sentinel-2a-third", "A"), ("sentinel-2c", "C")):
        behind = (real["B"] - real[letter]) - (phase("sentinel-2b") - phase(key))
        assert abs((behind + 180) % 360 - 180) < 3, key


def test_what_cannot_be_made_says_so() -> None:
    with pytest.raises(ArchiveError, match="no simulated archive for sensor 'modis'"):
        simulated_footprints("modis", MARCH)
    with pytest.raises(ArchiveError, match="no public catalogue"):
        simulated_items("prisma", MARCH)
    with pytest.raises(ArchiveError, match="density"):
        simulated_footprints("emit", MARCH, density=0)


def test_holdings_are_a_biased_subset_of_what_exists() -> None:
    sensor = COVERAGE_SENSORS["landsat-8-9"]
    made = items("landsat-8-9")
    held = simulated_holdings(made, sensor, share=0.2)
    assert list(held.columns) == ["datetime", "sensor", "cloud", "scene_id", "geometry"]
    assert held.crs == "EPSG:4326"
    assert held["datetime"].dt.tz == UTC or str(held["datetime"].dt.tz) == "UTC"
    assert set(held["sensor"]) == {"Landsat"}
    assert 0.15 * len(made) < len(held) < 0.25 * len(made)
    clear = np.mean([0 <= float(item["properties"]["eo:cloud_cover"]) < 10 for item in made])
    assert (held["cloud"] < 10).mean() > 1.5 * clear
    names = {item["id"] for item in made}
    listed = held["scene_id"].dropna()
    unlisted = [name for name in listed if name not in names]
    assert 0 < len(unlisted) < 0.05 * len(held)
    assert 0.2 < held["scene_id"].isna().mean() < 0.45
    assert held.geometry.is_valid.all()
    assert simulated_holdings(made, sensor, share=0.2).equals(held)


def test_holdings_without_an_id_can_be_matched_by_time_and_place() -> None:
    made = items("landsat-8-9")
    times = np.array([item["properties"]["datetime"].rstrip("Z") for item in made], dtype="datetime64[ms]")
    geometries = normalise_footprints(shapely.from_geojson(np.array([json.dumps(item["geometry"]) for item in made], dtype=object)))[0]
    nameless = simulated_holdings(made, COVERAGE_SENSORS["landsat-8-9"], share=0.2)
    nameless = nameless[nameless["scene_id"].isna() & (nameless.geometry.geom_type == "Polygon")]
    nameless = nameless[nameless.geometry.bounds["maxx"] - nameless.geometry.bounds["minx"] < 90].iloc[:60]
    for row in nameless.itertuples():
        near = np.flatnonzero(np.abs(times - np.datetime64(row.datetime.tz_localize(None), "ms")) <= np.timedelta64(60, "s"))
        overlap = shapely.area(shapely.intersection(geometries[near], row.geometry)) / shapely.area(
            shapely.union(geometries[near], row.geometry)
        )
        assert overlap.max() > 0.85


def test_holdings_of_a_sensor_without_catalogue_and_of_one_we_do_not_hold() -> None:
    held = simulated_holdings_without_catalog(COVERAGE_SENSORS["prisma"], MARCH)
    assert 50 < len(held) < 600
    assert set(held["sensor"]) == {"PRISMA"}
    assert held["scene_id"].dropna().str.match(r"PRS_L2D_STD_\d{14}_\d{14}_\d{4}|DELIVERY-").all()
    assert len(simulated_holdings(items("sentinel-2"), COVERAGE_SENSORS["sentinel-2"])) == 0


def test_an_archive_is_one_feature_collection_a_catalogued_sensor(tmp_path: Path) -> None:
    files = write_archive(tmp_path, [MARCH, MARCH.shift(1)], ["emit", "prisma", "enmap"], density={"enmap": 0.1})
    assert [path.name for path in files] == ["emit.json", "enmap.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emit.json", "enmap.json", "simulated-scene.txt"]
    for path in files:
        collection = json.loads(path.read_text())
        assert collection["type"] == "FeatureCollection"
        assert len({item["collection"] for item in collection["features"]}) == 1
        assert {item["properties"]["datetime"][:7] for item in collection["features"]} == {"2025-03", "2025-04"}
