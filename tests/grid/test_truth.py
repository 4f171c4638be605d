"""The engine against calendars that are known without it: Landsat's fixed paths, and Sentinel-2's acquisition plans."""

from __future__ import annotations

import datetime as dt
import gzip
from functools import cache
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.grid.bands import Engine
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.statistics import CellStatistics, cell_statistics, statistics_in_bands
from tests.grid_oracle import centres, edges
from tests.shared_data import read_items, shared_data

pytestmark = pytest.mark.slow

MONTH = dt.date(2024, 2, 1)
DAYS = 29
# A path is flown on days d with (d - 2013-01-01 - ACQDayL8) mod 16 = 7 by Landsat 8 and = 15 by Landsat 9 (README of the data).
EPOCH, CYCLE = dt.date(2013, 1, 1), 16
PHASES = {8: 7, 9: 15}


@cache
def cells(resolution):
    """Boxes and centres of all cells of the globe, row-major."""
    n = round(180 / resolution)
    lat, lon = np.array(edges(n, 180)), np.array(edges(2 * n, 360))
    row, column = (index.ravel() for index in np.indices((n, 2 * n)))
    middles = shapely.points(np.array(centres(2 * n, 360))[column], np.array(centres(n, 180))[row])
    return shapely.box(lon[column], lat[row], lon[column + 1], lat[row + 1]), middles


def pairs(footprints, resolution, rule):
    """Footprints and the cells they cover, as GEOS finds them: interiors that intersect, or the centre inside."""
    boxes, middles = cells(resolution)
    if rule == "center":  # no centre lies on a boundary here
        return shapely.STRtree(middles).query(footprints, predicate="contains")
    footprint, cell = shapely.STRtree(boxes).query(footprints, predicate="intersects")
    shapely.prepare(footprints)
    meets = shapely.relate_pattern(footprints[footprint], boxes[cell], "T********")
    return footprint[meets], cell[meets]


def masks_of(days):
    """Day masks of a bool array ``(…, days)``, bit d-1 for day d."""
    return (days * (np.uint64(1) << np.arange(days.shape[-1], dtype=np.uint64))).sum(-1).astype(np.uint32)


# --- Landsat: what is flown on which day follows from the path alone ---


@cache
def wrs2():
    """Paths, their day in the cycle, path/row names and polygons."""
    table = pq.read_table(shared_data() / "grids" / "landsat-wrs2-descending.parquet", columns=["PATH", "PR", "ACQDayL8", "geometry"])
    polygons, reasons = normalise_footprints(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))
    assert set(reasons) == {None}
    return table["PATH"].to_numpy(), np.array(table["ACQDayL8"].to_pylist()).astype(int), table["PR"].to_pylist(), polygons


def flown(date, satellite, cycle_day):
    return ((date - EPOCH).days - cycle_day) % CYCLE == PHASES[satellite]


@cache
def month_of_landsat():
    """Every scene of the month, day by day as they would be catalogued: place in the grid of paths and rows, day, satellite."""
    _, cycle_day, _, _ = wrs2()
    which, day, satellite = [], [], []
    for d in range(DAYS):
        for number in PHASES:
            scenes = np.flatnonzero(flown(MONTH + dt.timedelta(days=d), number, cycle_day))
            which.append(scenes)
            day.append(np.full(len(scenes), d + 1))
            satellite.append(np.full(len(scenes), number))
    return tuple(map(np.concatenate, (which, day, satellite)))


def test_the_calendar_is_that_of_recorded_scenes():
    _, cycle_day, names, _ = wrs2()
    by_name = dict(zip(names, cycle_day.tolist(), strict=True))
    checked = 0
    for name in ("planetary-computer__landsat-8-c2-l2.ndjson.gz", "planetary-computer__landsat-c2-l2__2024.parquet"):
        for item in read_items(name):
            sensor, _, place, date = item["id"].split("_")[:4]  # LC08_L2SP_198024_20210902_…
            if sensor in ("LC08", "LC09") and place in by_name:
                assert flown(dt.date.fromisoformat(date), int(sensor[2:]), by_name[place]), item["id"]
                checked += 1
    assert checked > 700


def test_the_next_path_is_flown_seven_days_later():
    path, cycle_day, _, _ = wrs2()
    days = np.array([np.unique(cycle_day[path == p]) for p in range(1, 234)])
    assert days.shape == (233, 1)  # one day for all rows of a path
    later = (np.roll(days[:, 0], -1) - days[:, 0]) % CYCLE
    # 233 paths in 16 days: 7 days each would not close the circle, and the day changes once, in the Pacific
    assert sorted(later.tolist()) == [7] * 232 + [8]


@pytest.mark.parametrize("rule", ["touch", "center"])
def test_a_month_of_landsat_from_paths_and_rows(rule):
    """Counts and days of every cell from the set of cycle days of the paths over it: no scene, no day mask on the way."""
    resolution = 0.5
    grid = GridSpec(resolution, rule=rule)
    _, cycle_day, _, polygons = wrs2()
    frame, cell = pairs(polygons, resolution, rule)
    over = np.zeros((grid.shape[0] * grid.shape[1], CYCLE + 1), np.int64)  # frames of each cycle day over each cell
    np.add.at(over, (cell, cycle_day[frame]), 1)
    dates = [MONTH + dt.timedelta(days=d) for d in range(DAYS)]
    on = {number: np.array([[flown(date, number, day) for date in dates] for day in range(CYCLE + 1)]) for number in PHASES}
    days = {number: (over > 0).astype(np.int64) @ on[number] > 0 for number in PHASES}
    scenes = {number: over @ on[number].sum(1) for number in PHASES}
    covered = np.flatnonzero(over.any(1))

    # Landsat 8 clear, Landsat 9 of unknown cloud: so that each satellite's days stand in a mask of their own
    which, day, satellite = month_of_landsat()
    found = cell_statistics(polygons[which], day=day, cloud=np.where(satellite == 8, 5.0, np.nan), clear=satellite == 8, grid=grid)
    assert len(which) > 100_000
    assert found.cell.tolist() == covered.tolist()
    np.testing.assert_array_equal(found.days, masks_of(days[8] | days[9])[covered])
    np.testing.assert_array_equal(found.clear_days, masks_of(days[8])[covered])
    np.testing.assert_array_equal(found.unknown_days, masks_of(days[9])[covered])
    np.testing.assert_array_equal(np.bitwise_count(found.days), (days[8] | days[9]).sum(1)[covered])
    np.testing.assert_array_equal(found.scenes, (scenes[8] + scenes[9])[covered])
    np.testing.assert_array_equal(found.clear, scenes[8][covered])
    np.testing.assert_array_equal(found.unknown, scenes[9][covered])
    np.testing.assert_array_equal(found.cloud_mean, np.where(scenes[8][covered] > 0, np.float32(5), np.float32(np.nan)))
    # two satellites, eight days apart, see every covered place at least every eight days
    assert np.bitwise_count(found.days).min() >= DAYS // 8


def test_each_satellite_alone_and_in_bands():
    resolution = 1.0
    grid = GridSpec(resolution)
    _, cycle_day, _, polygons = wrs2()
    which, day, satellite = month_of_landsat()
    _, coords, offsets = shapely.to_ragged_array(polygons[which])
    frame, cell = pairs(polygons, resolution, "touch")
    for number in PHASES:
        mask = np.zeros(grid.shape[0] * grid.shape[1], np.uint32)
        dates = range(DAYS)
        on = np.array([[flown(MONTH + dt.timedelta(days=d), number, c) for d in dates] for c in range(CYCLE + 1)])
        np.bitwise_or.at(mask, cell, masks_of(on)[cycle_day[frame]])
        bands = statistics_in_bands(
            coords,
            *offsets,
            day=day,
            cloud=np.zeros(len(which)),
            clear=np.ones(len(which), bool),
            grid=grid,
            only=satellite == number,
            engine=Engine(memory_bytes=2_000_000, threads=2),
        )
        found = CellStatistics.joined(list(bands))
        assert found.cell.tolist() == np.flatnonzero(mask).tolist()
        np.testing.assert_array_equal(found.days, mask[found.cell])


# --- Sentinel-2: planned datatakes, whole and cut into tiles ---

KML = "{http://www.opengis.net/kml/2.2}"
PLANS = [("A", "2024-12"), ("B", "2025-02"), ("C", "2025-02")]


@cache
def datatakes(satellite, month):
    """Polygons of a month's planned imaging, and the UTC day on which each begins."""
    polygons, days = [], []
    with gzip.open(shared_data() / "plans" / f"S2{satellite}_acquisition_plan.kml.gz") as plan:
        root = ET.parse(plan).getroot()
    for mark in root.iter(f"{KML}Placemark"):
        begin = mark.findtext(f"{KML}TimeSpan/{KML}begin")
        mode = {data.get("name"): data.findtext(f"{KML}value") for data in mark.iter(f"{KML}Data")}["Mode"]
        if begin.startswith(month) and mode in ("NOBS", "VIC"):  # the others look at the dark ocean or the sun
            ring = [tuple(map(float, vertex.split(",")[:2])) for vertex in mark.findtext(f".//{KML}coordinates").split()]
            polygons.append(shapely.Polygon(ring))
            days.append(int(begin[8:10]))
    found, reasons = normalise_footprints(np.array(polygons, dtype=object))
    assert set(reasons) == {None}
    return found, np.array(days)


@cache
def tiles():
    table = pq.read_table(shared_data() / "grids" / "sentinel2-mgrs-land.parquet", columns=["geometry"])
    found, reasons = normalise_footprints(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))
    assert set(reasons) == {None}
    return found


def days_of(footprints, day, grid):
    """The field of day masks."""
    found = cell_statistics(footprints, day=day, cloud=np.zeros(len(day)), clear=np.ones(len(day), bool), grid=grid)
    mask = np.zeros(grid.shape[0] * grid.shape[1], np.uint32)
    mask[found.cell] = found.days
    return mask


@pytest.mark.parametrize("rule", ["touch", "center"])
@pytest.mark.parametrize(("satellite", "month"), PLANS)
def test_days_of_planned_datatakes(satellite, month, rule):
    grid = GridSpec(0.5, rule=rule)
    takes, day = datatakes(satellite, month)
    assert len(takes) > 600
    expected = np.zeros(grid.shape[0] * grid.shape[1], np.uint32)
    take, cell = pairs(takes, 0.5, rule)
    np.bitwise_or.at(expected, cell, np.uint32(1) << (day[take] - 1).astype(np.uint32))
    np.testing.assert_array_equal(days_of(takes, day, grid), expected)


@pytest.mark.parametrize(("satellite", "month"), PLANS)
def test_tiles_of_a_datatake_give_the_days_of_the_datatake(satellite, month):
    """What a catalogue lists is datatakes cut into tiles that overlap: many more scenes, the very same days.

    Only in cells wholly within the tiles' union: elsewhere part of the cell belongs to no tile, and a datatake that
    reaches only this part leaves no scene there.
    """
    takes, day = datatakes(satellite, month)
    take, tile = shapely.STRtree(tiles()).query(takes, predicate="intersects")
    pieces = shapely.intersection(takes[take], tiles()[tile])
    # a tile met along a line or in a corner is no scene; beside an area lines and points may be left over
    part, owner = shapely.get_parts(pieces, return_index=True)
    areal = shapely.area(part) > 0
    scenes, reasons = normalise_footprints(part[areal])
    assert set(reasons) == {None}
    scene_day = day[take[owner[areal]]]
    assert len(scenes) > 20 * len(takes)

    union = shapely.union_all(tiles())
    shapely.prepare(union)
    within = shapely.covers(union, cells(0.25)[0])
    for rule in ("touch", "center"):
        ruled = GridSpec(0.25, rule=rule)
        cut, uncut = days_of(scenes, scene_day, ruled), days_of(takes, day, ruled)
        assert (uncut[within] > 0).sum() > 100_000
        np.testing.assert_array_equal(cut[within], uncut[within])
        assert not (cut & ~uncut).any()  # nowhere a day that the datatakes do not have
