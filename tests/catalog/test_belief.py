"""The absence of scenes is believed only where design section 6 has no doubt of it."""

from __future__ import annotations

import datetime as dt
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coverage_pipeline.catalog import belief
from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.catalog.scan import scan_month
from coverage_pipeline.catalog.settling import settle_doubts
from coverage_pipeline.months import Month, months_between
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_metadata
from tests.catalog.cases import case, items_of, made_items, served
from tests.catalog.items import item, sensor, square
from tests.catalog.sources.test_files import dump
from tests.catalog.stac_server import Catalog, serve

pytestmark = pytest.mark.slow

S2, LANDSAT = COVERAGE_SENSORS["sentinel-2"], COVERAGE_SENSORS["landsat-8-9"]
JANUARY, JUNE = Month(2025, 1), Month(2025, 6)
OPTIONS = ScanOptions(Patience(timeout_seconds=10, retries=1, backoff_seconds=0.01))
LATER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.below(tmp_path)


def asking(of: CoverageSensor, *sources: AvailableSource | str) -> CoverageSensor:
    """The sensor with these catalogues."""
    name = of.available_sources[0].collection_id
    made = [AvailableSource("stac", s, name, of.available_sources[0].cloud_field) if isinstance(s, str) else s for s in sources]
    return replace(of, available_sources=tuple(made))


def scan(of: CoverageSensor, month: Month, store: Store, **how: Any) -> ScanReport:
    return scan_month(of, month, store, **{"options": OPTIONS, **how})


def kinds(report: ScanReport) -> list[str]:
    """Kinds of a report's doubts; what every doubtful report must say is checked on the way."""
    assert (report.status == "complete") == (report.doubts == [])
    if report.doubts:
        assert report.status == "provisional"
        assert report.reason.endswith("; ".join(report.doubts))
        assert all(doubt in "\n".join(report.lines(4)) and doubt in report.in_words() for doubt in report.doubts)
    return [doubt.partition(":")[0] for doubt in report.doubts]


# The recorded cases


def test_a_month_that_stops_on_the_17th(store: Store) -> None:
    """Case 03: 34 scenes are more than 0.3 of 60, and thirteen days in a row are empty where one is usual."""
    folder = case("03")
    with served(items_of(folder / "first.ndjson")) as first, served(items_of(folder / "second.ndjson")) as second:
        alone = scan(asking(S2, first.url), JUNE, store)
        assert kinds(alone) == ["silence"]
        assert (alone.scenes, alone.first_day, alone.last_day) == (34, "2025-06-01", "2025-06-17")
        assert "2025-06-18..2025-06-30 (13 days)" in alone.doubts[0]
        assert "the last of 2025-06-17" in "\n".join(alone.lines())
        both = scan(asking(S2, first.url, second.url), JUNE, store)
        assert kinds(both) == []
        assert (both.scenes, both.last_day) == (60, "2025-06-30")
        assert both.provider in second.url
        # The second was asked for the silent days alone before it was read.
        assert second.log[0]["datetime"] == "2025-06-17T23:00:00Z/2025-07-01T01:00:00Z"


@pytest.mark.parametrize("cap", [250, 500, 2500])
def test_a_silent_cap_at_a_round_number(store: Store, tmp_path: Path, cap: int) -> None:
    """Case 04b: a window that ends on a round number without a total is asked for in halves, and these give more."""
    items = made_items(case("04b"), tmp_path)
    with served(items, cap=cap) as server:
        report = scan(asking(S2, server.url), JUNE, store)
        asked = len(server.log)
    assert kinds(report) == []
    assert report.received == len(items) == 12345
    assert asked < 10 * len(items) / cap + 30


def test_a_cap_is_looked_for_in_each_box(store: Store) -> None:
    """500 items in one of two boxes and 3 in the other are no round number, and yet the first stopped at its cap."""
    east = [
        item(f"e{k:03d}", f"2025-01-{1 + k % 31:02d}T{k % 24:02d}:{k % 60:02d}:00Z", geometry=square(175), bbox=[175, 50, 176, 51])
        for k in range(700)
    ]
    west = [item(f"w{k}", f"2025-01-0{k + 1}T10:00:00Z", geometry=square(-176), bbox=[-176, 50, -175, 51]) for k in range(3)]
    with served([*east, *west], coll="scenes", cap=500) as server:
        report = scan(sensor(server.url, page_size=1000), JANUARY, store, bbox=(170, 40, -170, 60))
    assert (report.status, report.scenes) == ("complete", 703)


def test_thin_months_of_one_tile(store: Store) -> None:
    """Case 06: ten of the first provider's seventeen months are doubted, in whatever order; with the second all is there."""
    folder = case("06")
    months = months_between(Month(2016, 11), Month(2018, 3))
    tile = (0.0, 41.0, 2.0, 43.0)
    with served(items_of(folder / "first.ndjson")) as first, served(items_of(folder / "second.ndjson")) as second:
        of = asking(S2, first.url)
        for month in reversed(months):
            scan(of, month, store, bbox=tile)
        settle_doubts(of, months, store, bbox=tile, options=OPTIONS)
        doubted = [str(m) for m in months if read_metadata(store.scenes(S2.key, m))["status"] == "provisional"]
        assert doubted == [
            "2017-04", "2017-05", "2017-07", "2017-08", "2017-09", "2017-10", "2017-12", "2018-01", "2018-02", "2018-03",
        ]  # fmt: skip
        both = asking(S2, first.url, second.url)
        reports = {str(month): scan(both, month, store, bbox=tile) for month in months}
    assert all(kinds(report) == [] for report in reports.values())
    assert [str(m) for m in months if reports[str(m)].provider in second.url] == doubted
    assert reports["2018-02"].scenes == 11


@pytest.mark.parametrize("bbox", [None, (-10.0, 30.0, 30.0, 60.0), (-180.0, -90.0, 180.0, 90.0)])
@pytest.mark.parametrize("of", [S2, COVERAGE_SENSORS["emit"]])
def test_most_items_rejected(store: Store, bbox: Any, of: CoverageSensor) -> None:
    """Case 10: 18 of 20 items cannot be placed, which is a doubt at any area and count, of pointed sensors, too."""
    with served(items_of(case("10") / "items.ndjson")) as server:
        report = scan(asking(of, AvailableSource("stac", server.url, "sentinel-2-l2a")), JUNE, store, bbox=bbox)
    assert "unplaced" in kinds(report)
    assert report.scenes > 0


def test_platforms_are_named(store: Store) -> None:
    """Case 20: whatever is taken or left out, the report names the platforms as they are written."""
    with served(items_of(case("20") / "items.json"), coll="landsat-c2-l2") as server:
        source = AvailableSource("stac", server.url, "landsat-c2-l2", "eo:cloud_cover", platforms=("landsat-8", "landsat-9"))
        report = scan(asking(LANDSAT, source), JUNE, store)
    assert report.platforms["landsat-8"] == 1
    assert {**report.platforms, **report.other_platforms} == {"landsat-8": 1, "landsat8": 1, "landsat-10": 1}
    assert sum(report.other_platforms.values()) == report.other_platform
    assert "landsat-10 1" in "\n".join(report.lines())
    assert "landsat-10 1" in report.in_words()
    assert read_metadata(store.scenes(LANDSAT.key, JUNE))["platforms"] == report.platforms


def test_next_in_the_link_header_alone(store: Store) -> None:
    """Case 23: 364 items in pages of 20."""
    with served(items_of(case("23") / "items.ndjson"), nextmode="header", newest_first=True, maxpage=20) as server:
        report = scan(asking(S2, server.url), JUNE, store)
    assert report.received == 364
    assert len({query.get("token") for query in server.log}) > 10


def test_next_in_the_link_header_stays_on_its_host(store: Store) -> None:
    def elsewhere(catalog: Catalog, number: int, answer: Any) -> Any:
        page = json.loads(answer[2])
        page["links"] = []
        return answer[0], {"Link": '</search?offset=4>; rel="prev", <http://127.0.0.2:9/search>; rel="next"'}, json.dumps(page).encode()

    with (
        serve(Catalog([item(f"s{k}") for k in range(9)], fault=elsewhere)) as catalog,
        pytest.raises(CatalogError, match="to another host"),
    ):
        scan(sensor(catalog.address), JANUARY, store)


@pytest.mark.parametrize("by", ["covers", "bbox", "globe"])
def test_a_hole_in_a_dump(store: Store, tmp_path: Path, by: str) -> None:
    """Case 24a: May and July are there, June's file is gone."""
    items = items_of(case("24a") / "items.ndjson")
    for month in ("2025-05", "2025-07"):
        dump(tmp_path / "dump" / f"{month}.parquet", [i for i in items if i["properties"]["datetime"].startswith(month)])
    area = (4.0, 50.0, 7.0, 52.0)
    source = AvailableSource("geoparquet", str(tmp_path / "dump"), "sentinel-2-l2a", covers=area if by == "covers" else None)
    report = scan(asking(S2, source), JUNE, store, bbox=area if by == "bbox" else None)
    assert kinds(report) == ["emptiness"]
    assert "a file may be missing" in report.reason


@pytest.mark.parametrize("kept", [3, 0])
def test_a_thin_or_empty_month_of_a_single_source(store: Store, kept: int) -> None:
    """Case 24c: 60 items in each month around."""
    items = items_of(case("24c") / "items.ndjson")
    june = [i for i in items if i["properties"]["datetime"].startswith("2025-06")]
    with served([*(i for i in items if i not in june), *june[:kept]]) as server:
        of = asking(S2, server.url)
        around = [scan(of, Month(2025, m), store) for m in (4, 5, 7)]
        report = scan(of, JUNE, store)
    assert [r.status for r in around] == ["complete"] * 3
    assert report.scenes == kept
    assert ("thinness" if kept else "emptiness") in kinds(report)
    assert "around is 60" in report.reason


# Other answers that look like all


def test_items_without_any_time_are_no_month(store: Store) -> None:
    with serve(Catalog([item(f"s{k}", None) for k in range(40)])) as catalog:
        report = scan(sensor(catalog.address, page_size=100), JANUARY, store)
    assert kinds(report) == ["unplaced"]
    assert "40 of 40 items have no time" in report.reason


class WithoutTimes(Catalog):
    """Gives all that it has, whatever time is asked for."""

    def page(self, body: Any) -> dict[str, Any]:
        return super().page({k: v for k, v in body.items() if k != "datetime"})


def test_a_server_that_ignores_the_time_filter(store: Store) -> None:
    outside = [item(f"s{k:03d}", f"2024-0{1 + k % 9}-11T10:{k % 60:02d}:00Z") for k in range(401)]
    with serve(WithoutTimes(outside)) as catalog:
        report = scan(sensor(catalog.address, page_size=1000), JANUARY, store)
    assert (report.scenes, report.outside) == (0, 401)
    assert kinds(report) == ["unplaced"]
    assert "401 have a time outside the window" in report.reason


def test_half_of_a_large_month_rejected(store: Store) -> None:
    many = [
        item(f"s{k:04d}", f"2025-01-{1 + k % 31:02d}T10:00:00Z", **({"geometry": None, "bbox": None} if k < 500 else {}))
        for k in range(1001)
    ]
    with serve(Catalog(many)) as catalog:
        report = scan(sensor(catalog.address, page_size=2000), JANUARY, store)
    assert report.scenes == 501
    assert kinds(report) == ["unplaced"]


@pytest.mark.parametrize(("bad", "of", "doubted"), [(2, 100, False), (3, 100, True), (3, 300, False), (4, 300, True)])
def test_a_few_that_cannot_be_placed_are_no_doubt(bad: int, of: int, doubted: bool) -> None:
    """More than two, and more than 1 %."""
    assert bool(belief.unplaced(came=of, timeless=0, rejected=bad, foreign=0)) == doubted
    assert bool(belief.unplaced(came=of, timeless=0, rejected=0, foreign=bad)) == doubted


@pytest.mark.parametrize("page_size", [10, 2])
def test_two_footprints_under_one_id_are_not_silently_one(store: Store, page_size: int) -> None:
    """In one page, and on two."""
    others = [item(name, "2025-01-16T10:00:00Z") for name in ("one", "two")]
    twins = [item("same", geometry=square(5)), others[0], item("same", geometry=square(9)), others[1]]
    with serve(Catalog(twins, matched=False)) as catalog:
        report = scan(sensor(catalog.address, page_size=page_size), JANUARY, store)
    assert kinds(report) == ["totals"]
    assert "a repeated id and another footprint" in report.reason


@pytest.mark.parametrize("claimed", [1, 7])
def test_totals_that_contradict_what_came(store: Store, claimed: int) -> None:
    class Fewer(Catalog):
        def page(self, body: Any) -> dict[str, Any]:
            return {**super().page(body), "numberMatched": claimed}

    with serve(Fewer([item(f"s{k}", f"2025-01-{k + 1:02d}T10:00:00Z") for k in range(9)])) as catalog:
        report = scan(sensor(catalog.address), JANUARY, store)
    assert report.scenes == 9
    assert kinds(report) == ["totals"]


# Who is asked


EMPTY_BOX = (0.0, 40.0, 10.0, 60.0)


def two(first: str, second: AvailableSource) -> CoverageSensor:
    return sensor(taskable=False, available_sources=(AvailableSource("stac", first, "scenes"), second))


def test_a_source_that_does_not_cover_the_area_confirms_nothing(store: Store) -> None:
    with serve(Catalog([])) as empty, serve(Catalog([])) as also:
        part = AvailableSource("stac", also.address, "scenes", covers=(0.0, 40.0, 5.0, 60.0))
        assert kinds(scan(two(empty.address, part), JANUARY, store, bbox=EMPTY_BOX)) == ["emptiness"]
        assert also.searches == []
        whole = replace(part, covers=(-5.0, 35.0, 15.0, 65.0))
        report = scan(two(empty.address, whole), JANUARY, store, bbox=EMPTY_BOX)
    assert kinds(report) == []
    assert "has none either" in report.cross_check


def test_one_of_several_that_does_not_answer_leaves_the_doubt(store: Store) -> None:
    down: Any = lambda catalog, number, answer: (500, {}, b"no")  # noqa: E731
    with serve(Catalog([])) as empty, serve(Catalog([])) as also, serve(Catalog([], fault=down)) as broken:
        of = sensor(taskable=False, available_sources=tuple(AvailableSource("stac", c.address, "scenes") for c in (empty, also, broken)))
        report = scan(of, JANUARY, store)
    assert kinds(report) == ["emptiness"]
    assert "could not be searched" in report.cross_check


@pytest.mark.parametrize(
    "only",
    [
        item("broken", geometry=None, bbox=None),
        item("timeless", None),
        item("elsewhere", geometry=square(60), bbox=[60, 50, 61, 51]),
    ],
    ids=["unplaced", "timeless", "elsewhere"],
)
def test_what_is_no_usable_scene_of_the_area_confirms_nothing(store: Store, only: dict[str, Any]) -> None:
    """A server that ignores the box has a scene elsewhere; one with an unplaced item has not said that there is nothing."""
    with serve(Catalog([])) as empty, serve(Catalog([only])) as other:
        report = scan(two(empty.address, AvailableSource("stac", other.address, "scenes")), JANUARY, store, bbox=EMPTY_BOX)
    assert (report.scenes, report.provider) == (0, empty.address.removeprefix("http://"))
    assert kinds(report) == ([] if only["id"] == "elsewhere" else ["emptiness"])


def test_the_asking_stops_at_the_first_usable_scene(store: Store) -> None:
    full = [item(f"s{k:03d}", f"2025-01-{1 + k % 31:02d}T10:00:00Z") for k in range(301)]
    with serve(Catalog([])) as empty, serve(Catalog(full)) as other:
        of = two(empty.address, AvailableSource("stac", other.address, "scenes", page_size=10))
        scan(of, JANUARY, store, source_index=0)
        assert len(other.searches) == 1


def test_a_scan_with_doubts_does_not_replace_one_without(store: Store) -> None:
    days = [item(f"s{k:02d}", f"2025-01-{k + 1:02d}T10:00:00Z") for k in range(31)]
    with serve(Catalog(days)) as catalog:
        of = sensor(catalog.address, taskable=False)
        assert kinds(scan(of, JANUARY, store)) == []
        before = store.scenes("test", JANUARY).read_bytes()
        catalog.items = days[:17]
        with pytest.raises(CatalogError, match=r"this one is provisional .*silence.* does not replace it"):
            scan(of, JANUARY, store)
    assert store.scenes("test", JANUARY).read_bytes() == before


def test_pointed_sensors_are_believed_where_little_is_usual(store: Store) -> None:
    """An empty month among months of 5 scenes is believed; among months of 6 it is doubted."""
    for usual, doubted in ((5, []), (6, ["emptiness"])):
        around = [item(f"{m}-{k}", f"2025-{m:02d}-{k + 3:02d}T10:00:00Z") for m in (5, 7, 8) for k in range(usual)]
        with serve(Catalog(around)) as catalog:
            of = sensor(catalog.address, key=f"s{usual}")
            for m in (5, 7, 8):
                assert kinds(scan(of, Month(2025, m), store)) == []
            assert kinds(scan(of, JUNE, store)) == doubted


def test_the_first_month_is_judged_again_when_others_are_there(store: Store) -> None:
    """Its three scenes had nothing to be compared with."""
    items = [item(f"{m}-{k}", f"2025-{m:02d}-{k + 1:02d}T10:00:00Z") for m, n in ((5, 3), (6, 28), (7, 28)) for k in range(n)]
    months = months_between(Month(2025, 5), Month(2025, 7))
    with serve(Catalog(items)) as catalog:
        of = sensor(catalog.address)
        assert [scan(of, month, store).status for month in months] == ["complete"] * 3
        assert settle_doubts(of, months, store, options=OPTIONS) == [Month(2025, 5)]
        assert settle_doubts(of, months, store, options=OPTIONS) == []
        path = store.scenes("test", Month(2025, 5))
        told = read_metadata(path)
        assert (told["status"], told["scenes"], pq.read_metadata(str(path)).num_rows) == ("provisional", 3, 3)
        assert told["doubts"] == [told["reason"]]
        assert told == {**json.loads(sibling(path, ".scan.json").read_text()), "version": told["version"]}
        # Where the months around turn out to be as small, the doubt is taken back.
        catalog.items = [i for i in items if int(i["properties"]["datetime"][8:10]) <= 3]
        for month in months[1:]:
            store.scenes("test", month).unlink()
            scan(of, month, store)
        settle_doubts(of, months, store, options=OPTIONS)
    assert read_metadata(path)["status"] == "complete"


def test_a_settled_doubt_is_put_to_the_other_provider(store: Store) -> None:
    def of_months(*counts: int) -> list[dict[str, Any]]:
        return [item(f"{m}-{k}", f"2025-{m:02d}-{k + 1:02d}T10:00:00Z") for m, n in zip((5, 6, 7), counts, strict=True) for k in range(n)]

    months = months_between(Month(2025, 5), Month(2025, 7))
    with serve(Catalog(of_months(3, 28, 28))) as poor, serve(Catalog(of_months(28, 28, 28))) as rich:
        of = sensor(available_sources=tuple(AvailableSource("stac", c.address, "scenes") for c in (poor, rich)))
        for month in months:
            scan(of, month, store)
        assert settle_doubts(of, months, store, options=OPTIONS) == [Month(2025, 5)]
        told = read_metadata(store.scenes("test", Month(2025, 5)))
        assert (told["status"], told["scenes"], told["provider"]) == ("complete", 28, rich.address.removeprefix("http://"))
        rich.items = of_months(3, 28, 28)
        store.scenes("test", Month(2025, 5)).unlink()
        scan(of, Month(2025, 5), store, options=replace(OPTIONS, cross_check=False))
        assert read_metadata(store.scenes("test", Month(2025, 5)))["status"] == "provisional"


# The rules alone


@pytest.mark.parametrize(
    ("days", "revisit", "most"),
    [
        ([], 5, 10),
        ([1, 2], 5, 10),  # fewer than three days say nothing of the rhythm
        ([1, 2, 3], 5, 2),
        ([1, 3, 6, 8], 5, 4),
        ([1, 3, 6], 5, 5),  # median 2.5
        ([1, 11, 21], 5, 10),
        ([1, 17], 16, 32),
    ],
)
def test_the_longest_silence_that_is_nothing_remarkable(days: list[int], revisit: float, most: int) -> None:
    assert belief.longest_silence([dt.date(2025, 1, day) for day in days], revisit) == most


def answer(of: CoverageSensor, month: Month, days: Sequence[int], bbox: Any = None, known_to: dt.datetime = LATER) -> belief.Answer:
    return belief.Answer(of, [month], bbox, len(days), [dt.date(month.year, month.month, day) for day in days], known_to)


def test_a_polar_night_is_no_silence() -> None:
    """At 78° N the sun stays below 8° until the second half of March, in Sicily it never does."""
    svalbard, sicily = (10.0, 78.0, 20.0, 79.0), (12.0, 36.0, 16.0, 38.0)
    assert belief.doubts(answer(S2, Month(2025, 1), [], svalbard)) == []
    assert [d.kind for d in belief.doubts(answer(S2, Month(2025, 1), [], sicily))] == ["emptiness"]
    assert [d.kind for d in belief.doubts(answer(S2, Month(2025, 6), [], svalbard))] == ["emptiness"]
    assert [d.kind for d in belief.doubts(answer(S2, Month(2025, 1), []))] == ["emptiness"]
    dark = [day for day in range(1, 32) if belief.is_dark(S2, dt.date(2025, 3, day), svalbard)]
    # Noon elevation at 78° is 12° + declination: 8° where that is −4°, on 10 March.
    assert dark == list(range(1, dark[-1] + 1))
    assert dark[-1] in (9, 10)
    light = list(range(dark[-1] + 1, 32))
    assert belief.doubts(answer(S2, Month(2025, 3), light, svalbard)) == []


def test_days_that_are_not_published_yet_are_no_silence() -> None:
    on_the_20th = dt.datetime(2025, 6, 20, tzinfo=dt.UTC)
    assert belief.doubts(answer(S2, JUNE, range(1, 16), known_to=on_the_20th)) == []
    assert [d.kind for d in belief.doubts(answer(S2, JUNE, range(1, 13), known_to=on_the_20th))] == ["silence"]
    assert belief.doubts(answer(S2, JUNE, [], known_to=dt.datetime(2025, 6, 8, tzinfo=dt.UTC))) == []


@pytest.mark.parametrize(("found", "doubted"), [(17, True), (18, False)])
def test_less_than_three_tenths_of_the_months_around(found: int, doubted: bool) -> None:
    days = [1 + k * 30 // found for k in range(found)]
    said = belief.doubts(replace(answer(S2, JUNE, days), around=(60, 60, 61)))
    assert ["thinness"] * doubted == [d.kind for d in said]


def test_landsat_over_one_path_is_not_doubted() -> None:
    """One pass in 16 days until Landsat 9 came, then one in 8."""
    path = (8.0, 50.0, 9.0, 51.0)
    assert belief.doubts(answer(LANDSAT, Month(2020, 6), [9, 25], path)) == []
    assert belief.doubts(answer(LANDSAT, Month(2024, 6), [4, 12, 20, 28], path)) == []
    assert [d.kind for d in belief.doubts(answer(LANDSAT, Month(2024, 6), [4], path))] == ["silence"]


# Whatever a catalogue answers


def design_doubts(
    *, days: list[int], timeless: int, rejected: int, foreign: int, around: list[int], systematic: bool, revisit: float, wrong_total: bool
) -> set[str]:
    """The doubts of design section 6, written from its words, for January 2025 and a sensor that needs no sun."""
    found = set()
    timed = len(days) + rejected + foreign
    if (rejected + foreign > 2 and rejected + foreign > 0.01 * timed) or timeless > (timed + timeless) / 2:
        found.add("unplaced")
    usual = statistics.median(around) if around else 0
    if systematic:
        own = sorted(set(days))
        gaps = [b - a for a, b in pairwise(own)]
        most = math.ceil(2 * min(statistics.median(gaps), revisit)) if len(own) >= 3 else 2 * revisit
        marks = "".join(" x"[day in own] for day in range(1, 32))
        if days and max(map(len, marks.split("x"))) > most:
            found.add("silence")
        if not days:
            found.add("emptiness")
        elif len(days) < 0.3 * usual:
            found.add("thinness")
    elif usual >= 6 and len(days) < 0.3 * usual:
        found.add("thinness" if days else "emptiness")
    if wrong_total:
        found.add("totals")
    return found


@settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    days=st.one_of(
        st.lists(st.integers(1, 31), max_size=40),
        st.builds(lambda first, step, last: list(range(first, last + 1, step)), st.integers(1, 9), st.integers(1, 12), st.integers(10, 31)),
    ),
    timeless=st.integers(0, 4),
    rejected=st.sampled_from((0, 0, 1, 2, 3, 9)),
    foreign=st.sampled_from((0, 0, 0, 2, 3)),
    around=st.lists(st.sampled_from((0, 4, 6, 20, 100)), max_size=4),
    systematic=st.booleans(),
    revisit=st.sampled_from((2, 5, 8)),
    total=st.sampled_from((None, "right", "right", "low")),
    bbox=st.sampled_from((None, EMPTY_BOX)),
)
def test_a_complete_month_is_one_without_a_doubt(
    days: list[int],
    timeless: int,
    rejected: int,
    foreign: int,
    around: list[int],
    systematic: bool,
    revisit: int,
    total: str | None,
    bbox: Any,
) -> None:
    items = [
        *(item(f"s{k:02d}", f"2025-01-{day:02d}T10:00:00Z") for k, day in enumerate(days)),
        *(item(f"t{k}", None) for k in range(timeless)),
        *(item(f"r{k}", geometry=None, bbox=None) for k in range(rejected)),
        *(item(f"f{k}", "2024-07-01T10:00:00Z") for k in range(foreign)),
    ]

    class Told(WithoutTimes):
        def page(self, body: Any) -> dict[str, Any]:
            page = super().page(body)
            return {**page, "numberMatched": len(items) - 1} if total == "low" else page

    with TemporaryDirectory() as folder, serve(Told(items, matched=total is not None)) as catalog:
        store = Store.below(folder)
        of = sensor(catalog.address, page_size=1000, taskable=not systematic, nominal_revisit_days=revisit)
        for k, count in enumerate(around):
            month = JANUARY.shift((k // 2 + 1) * (1 if k % 2 else -1))
            near = ScanReport("test", "", "", "complete", "", bbox=None if bbox is None else list(bbox), scenes=count)
            path = sibling(store.scenes("test", month), ".scan.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(near.as_json()))
        report = scan(of, JANUARY, store, bbox=bbox)
    expected = design_doubts(
        days=days, timeless=timeless, rejected=rejected, foreign=foreign, around=around, systematic=systematic, revisit=revisit,
        wrong_total=total == "low" and bool(items),
    )  # fmt: skip
    assert set(kinds(report)) == expected
