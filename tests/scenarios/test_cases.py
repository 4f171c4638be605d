"""Every folder of ``../shared/data/cases``: the files there, and what its README and the design say is right."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import importlib.util
import itertools
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import rustac
import shapely

from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.scenes.items import scenes_from_items
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.scenarios.world import (
    JUNE,
    Month,
    World,
    at,
    build_world,
    holding,
    sensor,
    write_holdings,
)
from tests.services import PostgisServer, postgis  # noqa: F401 a fixture
from tests.shared_data import shared_data

pytestmark = pytest.mark.slow

Items = list[dict[str, Any]]
PROJECT = Path(__file__).resolve().parents[2]


def case(name: str) -> Path:
    folder = shared_data() / "cases" / name
    assert (folder / "README.md").is_file(), f"{folder} is not as it was recorded"
    return folder


def lines(name: str, file: str = "items.ndjson") -> Items:
    return [json.loads(line) for line in (case(name) / file).read_text().splitlines() if line.strip()]


def document(name: str, file: str = "items.json") -> Any:
    return json.loads((case(name) / file).read_text())


@pytest.fixture
def stac() -> Iterator[Callable[..., Any]]:
    """Starts the cases' own STAC API, ``fake_stac.Stac``; gives the server, whose address is ``.url``."""
    path = shared_data() / "cases" / "fake_stac.py"
    spec = importlib.util.spec_from_file_location("fake_stac", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with ExitStack() as stack:

        def start(items: Items, **arguments: Any) -> Any:
            server = module.Stac(items, **arguments)
            stack.callback(server.close)
            return server

        yield start


def source(server: Any, **changes: Any) -> dict[str, Any]:
    address = server if isinstance(server, str) else server.url
    return {"kind": "stac", "endpoint": address, "collection_id": "sentinel-2-l2a", "cloud_field": "eo:cloud_cover", **changes}


def real_world(
    folder: Path,
    key: str,
    sources: Sequence[dict[str, Any]],
    *,
    months: Sequence[Month] = (JUNE,),
    extent: Sequence[float] = (0, 48, 12, 54),
    **changes: Any,
) -> World:
    """A build of a sensor of the registry, whose catalogues are on loopback."""
    held = changes.pop("holdings", None)
    return build_world(
        folder,
        {},
        holdings=held,
        months=months,
        grid={"extent": list(extent)},
        sensors={"keys": [key], "sources": {key: list(sources)}},
        **changes,
    )


# 01a, 01c: parts and halves


@pytest.mark.parametrize("file", ["same_strip_disjoint.json", "old_copy_without_strip.json"])
def test_01a_parts_are_united_and_the_older_baseline_adds_nothing(file: str) -> None:
    """Design: "A copy adds only the area that newer ones do not cover … So a reprocessing adds nothing and a part adds its part, whatever
    strips and baselines say. Footprint = union of what was added, cloud = mean of those copies, weighted by the area each added"."""
    scenes, rejected = scenes_from_items(document("01a-s2-parts-same-strip-start", file), COVERAGE_SENSORS["sentinel-2"])
    assert len(rejected) == 0
    assert len(scenes) == 1
    scene = scenes.iloc[0]
    assert scene.geometry.symmetric_difference(shapely.box(9, 45, 10, 46)).area < 1e-9
    assert scene["cloud_cover"] == pytest.approx(50.0)
    assert len(scene["item_ids"]) == 2
    assert not [name for name in scene["item_ids"] if "_N0510_" in name]


def test_01c_the_half_that_is_lacking_asks_for_it(tmp_path: Path, stac: Any) -> None:
    """Design: "The *missing part* (footprint − holdings …) is a scene not held: in unmet supply". Day 11 is ingestable in the east."""
    row = document("01c-half-held-counts-as-held", "holding.json")
    row = {**row, "geometry": shapely.geometry.shape(row["geometry"]), "datetime": dt.datetime.fromisoformat(row["datetime"])}
    server = stac(document("01c-half-held-counts-as-held"))
    declared = sensor(server.url, "sentinel-2-l2a", family="sentinel-2", held_satellite="S2", default_desired_per_month=2)
    world = build_world(
        tmp_path, {"s2": declared}, holdings=write_holdings(tmp_path / "h.parquet", [row]), grid={"extent": [0, 48, 12, 54]}
    )
    assert world.error is None
    east, west = world.cell("s2", 5.75, 51.25), world.cell("s2", 5.25, 51.25)
    assert (east["action"], east["ingestable_days"], east["unmet_supply"], east["deficit"]) == ("ingest", {11}, 1, 2)
    assert east["held_days"] == set()
    assert east["available_days"] == {11}
    assert (west["held_days"], west["held_clear_days"], west["unmet_supply"], west["deficit"]) == ({11}, {11}, 0, 1)
    match = world.matchup("s2")
    assert len(match) == 1
    assert match["share"].iloc[0] == pytest.approx(0.5, abs=0.02)
    assert not match["held"].iloc[0]


# 02: the tile's own time


@pytest.mark.parametrize(
    ("when", "month", "day"),
    [
        pytest.param(at("2026-02-01T00:00:12"), Month(2026, 1), 31, id="the tile's time of the first"),
        pytest.param(at("2026-02-11T00:00:12"), Month(2026, 2), 10, id="the tile's time of the second"),
        pytest.param(dt.date(2026, 2, 1), Month(2026, 1), 31, id="the date alone"),
    ],
)
def test_02_a_nameless_holding_with_the_tiles_own_time_is_found(
    tmp_path: Path, stac: Any, when: dt.datetime | dt.date, month: Month, day: int
) -> None:
    """Design: "A holding without an id agrees in time when it is within the tolerance of any of them [own time, start, end, pass]";
    "the same UTC day, of the scene or its pass, where holdings carry a date only"; "one that belongs to a scene has the scene's
    month and day"."""
    server = stac(document("02-nameless-holding-tile-time"))
    rows = [holding(when, shapely.box(152, -9, 153, -8), sensor="S2")]
    path = write_holdings(tmp_path / "h.parquet", rows, ids=False, dates=not isinstance(when, dt.datetime))
    declared = sensor(server.url, "sentinel-2-l2a", family="sentinel-2", held_satellite="S2")
    months = (Month(2026, 1), Month(2026, 2))
    world = build_world(tmp_path, {"s2": declared}, holdings=path, months=months, grid={"extent": [148, -12, 156, -4]})
    assert world.error is None
    cells = {m: world.cell("s2", 152.25, -8.25, m) for m in months}
    for m, cell in cells.items():
        assert cell["held_days"] == ({day} if m == month else set()), m
        assert day not in cell["ingestable_days"] or m != month
        assert int(world.cube["held_not_in_catalog"].sel(sensor="s2", time=m.to_datetime64())) == 0, m
    assert cells[month]["held_count"] == 1


# 03, 06, 24a, 24c: months with holes


def test_03_a_month_that_stops_on_the_17th_is_taken_from_the_second_source(tmp_path: Path, stac: Any) -> None:
    """Design: "*Silence* … at the start, the end, or within"; "a scene found there confirms the doubt: the month is scanned anew from that
    provider"."""
    name = "03-stop-within-month"
    first, second = stac(lines(name, "first.ndjson")), stac(lines(name, "second.ndjson"))
    world = real_world(tmp_path, "sentinel-2", [source(first), source(second)])
    assert world.error is None
    cell = world.cell("sentinel-2", 5.25, 51.25)
    assert cell["available_days"] == set(range(1, 31))
    assert cell["scan_status"] == "complete"
    report = world.scan_report("sentinel-2")
    assert (report["scenes"], report["first_day"], report["last_day"]) == (60, "2025-06-01", "2025-06-30")


def test_03_a_month_that_stops_on_the_17th_is_doubted_where_nobody_can_be_asked(tmp_path: Path, stac: Any) -> None:
    """Design: "Where nobody can be asked … it stays": provisional, with its doubts named; the report says the last day with a scene."""
    world = real_world(tmp_path, "sentinel-2", [source(stac(lines("03-stop-within-month", "first.ndjson")))])
    assert world.error is None
    assert world.status("sentinel-2") == "provisional"
    report = world.scan_report("sentinel-2")
    assert report["last_day"] == "2025-06-17"
    assert report["doubts"]
    assert "none" not in world.actions("sentinel-2")


def seventeen_months() -> list[Month]:
    return [Month(2016, 11).shift(k) for k in range(17)]


def days_by_month(items: Items) -> dict[str, list[int]]:
    days: dict[str, set[int]] = {month.key: set() for month in seventeen_months()}
    for scene in items:
        when = scene["properties"]["datetime"]
        days[when[:7]].add(int(when[8:10]))
    return {month: sorted(some) for month, some in days.items()}


def is_silent(days: list[int], month: Month) -> bool:
    """Design section 6, *Silence*, in plain words: the longest run of empty days against the limit."""
    revisit = 10 if month.key <= "2017-06" else 5
    limit = 2 * revisit if len(days) < 3 else math.ceil(2 * min(statistics.median(b - a for a, b in itertools.pairwise(days)), revisit))
    edges = [0, *days, month.days + 1]
    return max(b - a - 1 for a, b in itertools.pairwise(edges)) > limit


def test_06_the_doubtful_months_of_one_tile_are_taken_from_the_other_source(tmp_path: Path, stac: Any) -> None:
    """Design: "ten of its seventeen months are doubted, not all": those are scanned anew from the second, the others are the first's."""
    name = "06-thin-months-of-one-tile"
    first, second = lines(name, "first.ndjson"), lines(name, "second.ndjson")
    few, all_days = days_by_month(first), days_by_month(second)
    doubted = {month.key for month in seventeen_months() if is_silent(few[month.key], month)}
    assert len(doubted) == 10, "the rule as read here is the design's"
    world = real_world(
        tmp_path,
        "sentinel-2",
        [source(stac(first)), source(stac(second))],
        months=seventeen_months(),
        extent=(0, 41, 2, 43),
        bbox=(0, 41, 2, 43),
    )
    assert world.error is None
    for month in seventeen_months():
        cell = world.cell("sentinel-2", 1.25, 41.75, month)
        expected = all_days if month.key in doubted else few
        assert sorted(cell["available_days"]) == expected[month.key], month.key
        assert cell["scan_status"] == "complete", month.key


async def write_dump(path: Path, items: Items) -> None:
    await rustac.write(str(path), items)


@pytest.mark.parametrize("by", ["covers", "bbox"])
def test_24a_a_hole_in_a_dump_is_no_empty_month(tmp_path: Path, by: str) -> None:
    """Design: "Right: an error, or provisional with the doubt named (design section 6); never `complete`"."""
    items = lines("24a-dump-hole-with-covers")
    dump = tmp_path / "dump"
    dump.mkdir()
    for month in ("2025-05", "2025-07"):
        of_month = [scene for scene in items if scene["properties"]["datetime"].startswith(month)]
        assert len(of_month) == 60
        asyncio.run(write_dump(dump / f"{month}.parquet", of_month))
    box = (4.0, 50.0, 7.0, 52.0)
    one = source(str(dump), kind="geoparquet", **({"covers": list(box)} if by == "covers" else {}))
    world = real_world(tmp_path / "world", "sentinel-2", [one], bbox=box if by == "bbox" else None)
    if world.error is not None:
        assert "2025-06" in str(world.error)
        assert "sentinel-2" in str(world.error)
        return
    assert world.status("sentinel-2") == "provisional"
    assert world.scan_report("sentinel-2")["doubts"]
    assert world.actions("sentinel-2") <= {"unknown", "out_of_scope"}


@pytest.mark.parametrize("left", [3, 0], ids=["thin", "empty"])
def test_24c_a_thin_or_empty_month_of_a_single_source_is_doubted(tmp_path: Path, stac: Any, left: int) -> None:
    """Design: "Emptiness and thinness: systematic sensors: empty, or less than 0.3 of the median of the months around it"; "where nobody
    can be asked, … it stays"."""
    items = lines("24c-single-source-thin-or-empty-month")
    june = [scene for scene in items if scene["properties"]["datetime"].startswith("2025-06")]
    assert len(june) == 3
    items = [scene for scene in items if scene not in june[left:]]
    months = [Month(2025, m) for m in (4, 5, 6, 7)]
    world = real_world(tmp_path, "sentinel-2", [source(stac(items))], months=months)
    assert world.error is None
    assert {m.month: world.status("sentinel-2", m) for m in months} == {4: "complete", 5: "complete", 6: "provisional", 7: "complete"}
    report = world.scan_report("sentinel-2")
    assert report["doubts"]
    assert report["scenes"] == left
    assert "none" not in world.actions("sentinel-2")


# 04b, 23: answers that stop short


@pytest.mark.parametrize("cap", [500, 2500])
def test_04b_a_cap_is_never_all_there_is(tmp_path: Path, stac: Any, cap: int) -> None:
    """Design: "Right: an error or all. The items say it themselves: 500 items cover 1-2 June of a month that the neighbours fill."

    By the generator of the case; a month that is said to be provisional is not believed either (design section 6).
    """
    made = subprocess.run(
        [sys.executable, str(case("04b-cap-at-500-or-2500") / "make_items.py")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    items = [json.loads(line) for line in (tmp_path / "items.ndjson").read_text().splitlines()]
    assert len(items) == 12345
    one = source(stac(items, cap=cap), page_size=1000)
    steps = ("availability",)
    world = real_world(tmp_path / "world", "sentinel-2", [one], extent=(0, -20, 12, -14), steps=steps)
    if world.error is not None:
        assert "2025-06" in str(world.error)
        return
    report = world.scan_report("sentinel-2")
    assert report["scenes"] == len(items) or (report["status"] != "complete" and report["doubts"]), report["status"]


def test_23_the_next_page_in_the_link_header_is_followed(tmp_path: Path, stac: Any) -> None:
    """Design: "Right: 364 or an error": ``next`` only in the HTTP ``Link`` header, as OGC API Features allows."""
    items = lines("23-next-only-in-link-header")
    assert len(items) == 364
    server = stac(items, nextmode="header", newest_first=True, maxpage=20)
    world = real_world(tmp_path, "sentinel-2", [source(server)], steps=("availability",))
    if world.error is not None:
        assert "2025-06" in str(world.error)
        return
    report = world.scan_report("sentinel-2")
    assert (report["scenes"], report["status"]) == (364, "complete")


# 10, 20: items that are left out


def test_10_a_month_most_of_whose_items_cannot_be_placed_is_doubted(tmp_path: Path, stac: Any) -> None:
    """Design: "*Unplaced*: more than two, and more than 1 %, of its items that have a time were rejected". An empty or zero-area
    geometry is
    rejected, a null one is placed by its bbox (design section 4, "Touches")."""
    world = real_world(tmp_path, "sentinel-2", [source(stac(lines("10-most-items-rejected")))])
    assert world.error is None
    report = world.scan_report("sentinel-2")
    assert sum(report["rejected"].values()) == 18
    assert report["scenes"] == 2
    assert report["status"] == "provisional"
    assert any("18" in doubt for doubt in report["doubts"]), report["doubts"]
    assert world.status("sentinel-2") == "provisional"
    assert "none" not in world.actions("sentinel-2")


def test_20_a_platform_of_another_spelling_is_not_lost_and_a_new_one_is_named(tmp_path: Path, stac: Any) -> None:
    """Design: "`landsat8`, `landsat-10`, `Sentinel-2D` are taken or named in the report by platform; every report lists platforms and the
    last day with a scene"."""
    server = stac(document("20-platform-not-on-the-list"), coll="landsat-c2-l2")
    one = source(server, collection_id="landsat-c2-l2", platforms=["landsat-8", "landsat-9"])
    world = real_world(tmp_path, "landsat-8-9", [one], extent=(16, 38, 26, 46), steps=("availability",))
    assert world.error is None
    report = world.scan_report("landsat-8-9")
    keys = " ".join(world.scenes("landsat-8-9")["scene_key"])
    days = {str(time)[:10] for time in world.scenes("landsat-8-9")["pass_time"]}
    assert {"2025-06-03", "2025-06-19"} <= days, keys
    assert report["platforms"]["landsat-8"] == 1
    assert report["platforms"]["landsat8"] == 1
    assert {**report["platforms"], **report["other_platforms"]}["landsat-10"] == 1
    assert (report["first_day"], report["last_day"]) == ("2025-06-03", "2025-06-19")


@pytest.mark.parametrize("platform", ["sentinel-2d", "Sentinel-2D", "S2D"])
def test_20_a_new_sentinel_2_counts_and_is_named(tmp_path: Path, stac: Any, platform: str) -> None:
    """Design: "Sentinel-2 is right: S2C, S2D, S2E … all count; but no report lists platforms"."""
    items = lines("03-stop-within-month", "second.ndjson")
    for scene in items[::2]:
        scene["properties"]["platform"] = platform
    world = real_world(tmp_path, "sentinel-2", [source(stac(items))], steps=("availability",))
    report = world.scan_report("sentinel-2")
    assert report["scenes"] == 60
    assert report["platforms"] == {"sentinel-2a": 30, platform: 30}


# 14, 17: holdings in PostGIS


@pytest.fixture
def database(postgis: PostgisServer) -> Iterator[str]:  # noqa: F811
    name = postgis.create_database()
    yield name
    postgis.execute(f"DROP DATABASE {name} WITH (FORCE)")


def in_postgis(
    folder: Path, server: PostgisServer, database: str, stac_server: Any, *, months: Sequence[Month], extent: Any, **tiles: Any
) -> World:
    """A build of landsat-8-9 with its holdings in a table of that database."""
    db = {"host": server.host, "port": server.port, "name": database, "user": server.user, "password": server.password}
    one = source(stac_server, collection_id="landsat-c2-l2")
    return real_world(folder, "landsat-8-9", [one], months=months, extent=extent, holdings="postgis", db=db, tiles=tiles)


GREECE = (18, 38, 24, 44)


@pytest.mark.service
@pytest.mark.parametrize("column", ["scene_id", "id", None], ids=["product id", "house id", "no id"])
def test_14_a_row_that_comes_twice_is_held_once_and_counted(
    tmp_path: Path,
    postgis: PostgisServer,  # noqa: F811
    database: str,
    stac: Any,
    column: str | None,
) -> None:
    """Design: "Rows of one sensor, time and footprint are one holding, whatever their ids; the report counts them as duplicates"."""
    name = "14-holdings-index-has-rows-twice"
    postgis.execute((case(name) / "holdings.sql").read_text(), database=database)
    server = stac(document(name), coll="landsat-c2-l2")
    tiles = {"table": "tiles", **({"scene_id": column} if column else {})}
    world = in_postgis(tmp_path, postgis, database, server, months=(JUNE,), extent=GREECE, **tiles)
    assert world.error is None
    cell = world.cell("landsat-8-9", 21.25, 41.25)
    # The table says nothing of an archive to who does not ask: its third row is held.
    assert (cell["held_count"], cell["held_days"]) == (2, {3, 19})
    assert int(world.cube["held_not_in_catalog"].sel(sensor="landsat-8-9").item()) == 0
    report = world.reports["2025-06|landsat-8-9"]["holdings"]
    assert report.duplicates == 1
    assert report.rows == 3


@pytest.mark.service
def test_14_archived_rows_are_left_out_by_the_documented_view(
    tmp_path: Path,
    postgis: PostgisServer,  # noqa: F811
    database: str,
    stac: Any,
) -> None:
    """Design: "Archived rows are not held, or the documentation says to name a view" (issue: "by a documented view")."""
    name = "14-holdings-index-has-rows-twice"
    postgis.execute((case(name) / "holdings.sql").read_text(), database=database)
    postgis.execute("CREATE VIEW held_tiles AS SELECT * FROM tiles WHERE archived IS NULL", database=database)
    server = stac(document(name), coll="landsat-c2-l2")
    world = in_postgis(tmp_path, postgis, database, server, months=(JUNE,), extent=GREECE, table="held_tiles", scene_id="scene_id")
    assert world.error is None
    cell = world.cell("landsat-8-9", 21.25, 41.25)
    assert (cell["held_count"], cell["held_days"], cell["ingestable_days"]) == (1, {3}, {19})
    documents = [PROJECT / "README.md", PROJECT / ".env.example", *sorted((PROJECT / "docs").glob("*.md"))]
    assert any(
        re.search(r"archiv", part) and re.search(r"\bview\b", part) for path in documents for part in re.split(r"\n\s*\n", path.read_text())
    ), "one paragraph of the documentation names the view that leaves archived rows out"


@pytest.mark.service
def test_17_times_without_a_zone_are_read_as_utc_and_that_is_said(
    tmp_path: Path,
    postgis: PostgisServer,  # noqa: F811
    database: str,
    stac: Any,
) -> None:
    """Design: "Right: UTC assumed and said"."""
    name = "17-holdings-in-local-time"
    postgis.execute(f"ALTER DATABASE {database} SET timezone TO 'America/Santiago'")
    postgis.execute((case(name) / "holdings.sql").read_text(), database=database)
    server = stac(document(name), coll="landsat-c2-l2")
    months = (JUNE, Month(2025, 7))
    world = in_postgis(tmp_path, postgis, database, server, months=months, extent=(-74, -38, -68, -32), table="tiles")
    assert world.error is None
    said = json.dumps(world.reports["2025-06|landsat-8-9"]["holdings"], default=str)
    assert re.search(r"UTC[^.]{0,20}assumed|assumed[^.]{0,20}UTC", said), said
    # Read as UTC, whatever the server's zone: 21:10 on 30 June, four hours from its scene.
    assert world.cell("landsat-8-9", -71.25, -34.75)["held_days"] == {15, 30}
    assert int(world.cube["held_not_in_catalog"].sel(sensor="landsat-8-9", time=JUNE.to_datetime64())) == 2


@pytest.mark.service
def test_17_times_with_a_zone_find_their_scenes_and_nothing_is_assumed(
    tmp_path: Path,
    postgis: PostgisServer,  # noqa: F811
    database: str,
    stac: Any,
) -> None:
    """Design: "With `timestamptz` all is right"."""
    name = "17-holdings-in-local-time"
    postgis.execute((case(name) / "holdings.sql").read_text(), database=database)
    # The case's local time is UTC-4 throughout ("every holding misses its scene by exactly four hours").
    postgis.execute(
        "ALTER TABLE tiles ALTER COLUMN datetime TYPE timestamptz USING datetime AT TIME ZONE INTERVAL '-04:00'", database=database
    )
    server = stac(document(name), coll="landsat-c2-l2")
    months = (JUNE, Month(2025, 7))
    world = in_postgis(tmp_path, postgis, database, server, months=months, extent=(-74, -38, -68, -32), table="tiles")
    assert world.error is None
    assert world.cell("landsat-8-9", -71.25, -34.75)["held_days"] == {15}
    assert world.cell("landsat-8-9", -71.25, -34.75, months[1])["held_days"] == {1}
    assert set(world.cube["held_not_in_catalog"].sel(sensor="landsat-8-9").values.tolist()) == {0}
    said = json.dumps(world.reports["2025-06|landsat-8-9"]["holdings"], default=str)
    assert not re.search(r"UTC[^.]{0,20}assumed|assumed[^.]{0,20}UTC", said)


# 25: the dashboard


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.mark.parametrize("secret", [None, "a secret for cookies"], ids=["without cookie secret", "with cookie secret"])
def test_25_serve_refuses_to_start_where_the_users_file_is_missing(tmp_path: Path, stac: Any, secret: str | None) -> None:
    """Design: "Right: refuse to start, naming the file"; design section 15: "a missing users file refuses to start (Panel 1.10 would take
    its path for everybody's password)"."""
    case("25-panel-users-file-missing")
    world = real_world(tmp_path, "sentinel-2", [source(stac(lines("03-stop-within-month", "second.ndjson")))])
    assert world.error is None
    missing = tmp_path / "users.json"
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "PANEL_"))}
    environment |= {"PYTHONPATH": str(PROJECT), "COVERAGE_DATA": str(tmp_path / "data"), "PANEL_BASIC_AUTH": str(missing)}
    if secret:
        environment["PANEL_COOKIE_SECRET"] = secret
    command = [sys.executable, "-m", "coverage_pipeline", "serve", "--config", str(tmp_path / "build.toml"), "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + 150
        started = False
        while server.poll() is None and not started and time.monotonic() < deadline:
            time.sleep(0.2)
            # Under load the first answer may take long: what it prints when it listens is enough.
            started = "http://127.0.0.1" in (tmp_path / "log").read_text(errors="replace") or _answers(port)
        text = (tmp_path / "log").read_text(errors="replace")
        assert not started, f"the dashboard started: {text}"
        assert server.poll() not in (None, 0), text
        assert str(missing) in re.sub(r"\s*\n\s*", "", text) or missing.name in text, text
        assert "Traceback" not in text, text
    finally:
        if server.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)
