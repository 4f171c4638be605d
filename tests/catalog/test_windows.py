"""A scan in windows: cut where they are too much, kept where they are done, in parallel and at the pace that is allowed."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable
from coverage_pipeline.catalog.finished_windows import finished_windows_folder
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import LOOPBACK, ProviderProfile
from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.catalog.scan import scan_month
from coverage_pipeline.catalog.sources.base import NARROWEST, Window
from coverage_pipeline.catalog.windows import Progress
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_metadata
from tests.catalog.items import item, sensor, square
from tests.catalog.stac_server import Answer, Catalog, _within, changed, serve

pytestmark = pytest.mark.slow

JANUARY = Month(2025, 1)
QUICK = Patience(timeout_seconds=2, retries=1, backoff_seconds=0.01)
MANY = [item(f"scene-{k:03d}", f"2025-01-{1 + k // 10:02d}T{2 * (k % 10):02d}:30:00Z", geometry=square(k % 170)) for k in range(300)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.below(tmp_path)


def options(catalog: Catalog, *, patience: Patience = QUICK, profile: ProviderProfile = LOOPBACK, **changes: Any) -> ScanOptions:
    host = catalog.address.removeprefix("http://")
    return ScanOptions(patience, providers={host: profile}, **{"window_pages": 3, "cross_check": False, **changes})


def scan(store: Store, catalog: Catalog, *, of: CoverageSensor | None = None, **changes: Any) -> ScanReport:
    return scan_month(of or sensor(catalog.address), JANUARY, store, options=options(catalog, **changes))


def scenes(store: Store) -> list[dict[str, Any]]:
    table = pq.read_table(str(store.scenes("test", JANUARY)))
    rows: list[dict[str, Any]] = table.drop_columns(["provider"]).to_pylist()
    return rows


def accounted(report: ScanReport) -> bool:
    """Every item received is somewhere: a scene, a copy of one, rejected, or counted as not ours."""
    not_ours = report.repeated + report.outside + report.other_platform + report.timeless
    return report.received == report.scenes + report.superseded + report.united + sum(report.rejected.values()) + not_ours


# Windows


@given(st.integers(3600, 40 * 86400), st.integers(1, 500))
def test_pieces_abut_and_are_never_too_narrow(seconds: int, pieces: int) -> None:
    start = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    window = Window(start, start + dt.timedelta(seconds=seconds), 100)
    cut = window.cut(pieces)
    assert cut[0].start == window.start
    assert cut[-1].end == window.end
    assert all(a.end == b.start for a, b in pairwise(cut))
    assert all(w.end - w.start >= NARROWEST - dt.timedelta(seconds=1) for w in cut)
    assert len(cut) <= pieces
    assert all(w.start.microsecond == 0 for w in cut)
    lengths = {(w.end - w.start).total_seconds() for w in cut}
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("matched", [True, False])
@pytest.mark.parametrize("newest_first", [True, False])
def test_a_window_that_is_too_large_is_cut(store: Store, matched: bool, newest_first: bool) -> None:
    items = list(reversed(MANY)) if newest_first else random.Random(3).sample(MANY, len(MANY))
    with serve(Catalog(items, matched=matched)) as catalog:
        report = scan(store, catalog)
    assert report.windows > 10
    assert report.windows_cut >= 1
    assert report.announced == (report.received if matched else None)
    assert sorted(row["scene_key"] for row in scenes(store)) == sorted(i["id"] for i in MANY)
    assert accounted(report)


def test_a_provider_known_to_be_large_is_asked_for_days_from_the_start(store: Store) -> None:
    with serve(Catalog(MANY)) as catalog:
        report = scan(store, catalog, profile=replace(LOOPBACK, window_hours=24), window_pages=50)
        assert (report.windows, report.windows_cut) == (31, 0)
        boxed = scan_month(
            sensor(catalog.address), JANUARY, Store.below(store.root / "boxed"), bbox=(0, 40, 60, 60),
            options=options(catalog, profile=replace(LOOPBACK, window_hours=24), window_pages=100),
        )  # fmt: skip
        assert boxed.windows == 1


def test_what_lies_where_windows_meet_counts_once(store: Store) -> None:
    """Whole hours are where windows meet; and an item without a time comes in every window."""
    items = [item(f"s{k}", f"2025-01-{1 + k:02d}T{k % 24:02d}:00:00Z") for k in range(31)]
    items += [item("timeless", None), {"no": "item"}]
    with serve(Catalog(items)) as catalog:
        report = scan(store, catalog, profile=replace(LOOPBACK, window_hours=1), window_pages=50)
    assert report.windows > 700
    assert report.scenes == 31
    assert (report.timeless, report.rejected) == (1, {"not a STAC item: id or properties missing": 1})
    assert report.repeated > 1400
    assert accounted(report)


def test_windows_are_read_in_parallel_and_no_more_than_allowed(store: Store) -> None:
    lock, underway, most = threading.Lock(), 0, 0

    def slowly(catalog: Catalog, number: int, answer: Answer) -> Answer:
        nonlocal underway, most
        with lock:
            underway += 1
            most = max(most, underway)
        time.sleep(0.01)
        with lock:
            underway -= 1
        return answer

    with serve(Catalog(MANY, fault=slowly)) as catalog:
        scan(store, catalog, profile=replace(LOOPBACK, parallel=5))
    assert 2 <= most <= 5


def test_requests_are_spaced_as_the_provider_wants(store: Store) -> None:
    times: list[float] = []

    def note(catalog: Catalog, number: int, answer: Answer) -> Answer:
        times.append(time.monotonic())
        return answer

    with serve(Catalog(MANY[:80], fault=note)) as catalog:
        scan(store, catalog, profile=replace(LOOPBACK, parallel=4, requests_per_second=50))
    assert len(times) > 20
    assert (times[-1] - times[0]) / (len(times) - 1) > 0.9 / 50


def test_everybody_waits_where_the_provider_says_so(store: Store) -> None:
    times: list[float] = []

    def busy(catalog: Catalog, number: int, answer: Answer) -> Answer:
        times.append(time.monotonic())
        return (429, {"Retry-After": "1"}, b"slow down") if number == 6 else answer

    with serve(Catalog(MANY, fault=busy)) as catalog:
        report = scan(store, catalog, profile=replace(LOOPBACK, parallel=4))
    assert report.retried == {"429": 1}
    longest = max(b - a for a, b in pairwise(times[5:]))
    assert longest > 0.8  # nobody asked meanwhile, but for who was asking already


def test_a_wait_beyond_the_deadline_fails_at_once(store: Store) -> None:
    with serve(Catalog(MANY, fault=lambda catalog, number, answer: (429, {"Retry-After": "3600"}, b""))) as catalog:
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match=r"waited for 3600 s more, past scan\.deadline_seconds = 60"):
            scan(store, catalog, patience=replace(QUICK, deadline_seconds=60))
    assert time.monotonic() - began < 5


def test_a_catalogue_without_end_is_left_at_the_deadline(store: Store) -> None:
    """Each page brings something new, and leads on to the next."""

    def endless(catalog: Catalog, number: int, answer: Answer) -> Answer:
        body = {"collections": ["scenes"], "limit": 4, "offset": 0, "page": number}
        following = [{"rel": "next", "href": f"{catalog.address}/search", "method": "POST", "body": body}]
        features = [item(f"{number}-{k}", "2025-01-15T10:00:00Z") for k in range(4)]
        return changed(answer, lambda page: {"type": "FeatureCollection", "features": features, "links": following})

    with serve(Catalog([], fault=endless)) as catalog:
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable, match=r"took longer than scan\.deadline_seconds = 2"):
            scan(store, catalog, patience=replace(QUICK, deadline_seconds=2))
    assert time.monotonic() - began < 10


def test_a_403_is_throttling_where_the_profile_says_so_or_the_provider_has_answered_before(store: Store) -> None:
    forbidden = (403, {"Content-Type": "application/json"}, b'{"message":"Forbidden"}')
    with serve(Catalog(MANY, fault=lambda catalog, number, answer: forbidden if number in (1, 2) else answer)) as catalog:
        with pytest.raises(CatalogUnavailable, match="answered 403: Forbidden"):
            scan(store, catalog)
        catalog.searches.clear()
        report = scan(store, catalog, profile=replace(LOOPBACK, throttle_statuses=(403, 429)), patience=replace(QUICK, retries=3))
        assert report.retried == {"403": 2}
    with serve(Catalog(MANY, fault=lambda catalog, number, answer: forbidden if number == 9 else answer)) as catalog:
        assert scan(store, catalog).retried == {"403": 1}


def test_an_overloaded_server_is_asked_for_less(store: Store) -> None:
    """504 for every window over two days: halves of halves are answered."""

    def overloaded(catalog: Catalog, number: int, answer: Answer) -> Answer:
        start, end = (dt.datetime.fromisoformat(t) for t in catalog.searches[-1]["datetime"].split("/"))
        return (504, {}, b"The request exceeded the maximum allowed time") if end - start > dt.timedelta(days=2) else answer

    with serve(Catalog(MANY, fault=overloaded)) as catalog:
        report = scan(store, catalog, profile=replace(LOOPBACK, parallel=1), window_pages=50)
    assert report.scenes == 300
    assert report.windows_cut == 15  # 31 days and two hours, halved until under two days
    assert report.retried == {"504": 15}


def test_a_search_that_was_redirected_is_not_taken_for_an_answer(store: Store) -> None:
    """A POST that is redirected with 302 becomes a GET without its body: another question, with another answer."""
    elsewhere: Any = lambda catalog, number, answer: (302, {"Location": "/collections/scenes"}, b"")  # noqa: E731
    with serve(Catalog(MANY, fault=elsewhere)) as catalog, pytest.raises(CatalogUnavailable, match="redirects to"):
        scan(store, catalog)


# Resuming


def fail_after(number_of_pages: int, *, gone: threading.Event | None = None) -> Any:
    def fault(catalog: Catalog, number: int, answer: Answer) -> Answer | None:
        return None if number > number_of_pages and not (gone and gone.is_set()) else answer

    return fault


def test_a_failed_scan_goes_on_where_it_stopped(store: Store) -> None:
    well = threading.Event()
    with serve(Catalog(MANY)) as catalog:
        whole = scan(store, catalog)
        expected = scenes(store)
    for path in (store.scenes("test", JANUARY), sibling(store.scenes("test", JANUARY), ".scan.json")):
        path.unlink()
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as catalog:
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog)
        assert not store.scenes("test", JANUARY).exists()
        asked = len(catalog.searches)
        well.set()
        report = scan(store, catalog)
        again = len(catalog.searches) - asked
    assert report.windows_resumed > 5
    assert again < whole.requests - 30
    assert scenes(store) == expected
    assert accounted(report)
    assert not finished_windows_folder(store.scenes("test", JANUARY)).exists()


def test_a_changed_query_starts_anew(store: Store) -> None:
    well = threading.Event()
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as catalog:
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog)
        well.set()
        changed_platform = replace(sensor(catalog.address).available_sources[0], cloud_field="another")
        report = scan(store, catalog, of=sensor(available_sources=(changed_platform,)))
    assert report.windows_resumed == 0
    assert report.scenes == 300


def test_windows_that_are_too_old_are_read_again(store: Store) -> None:
    well = threading.Event()
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as catalog:
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog)
        well.set()
        assert scan(store, catalog, resume_hours=0).windows_resumed == 0


@pytest.mark.parametrize("spoil", ["truncated", "foreign", "query"])
def test_a_window_that_cannot_be_read_back_is_read_again(store: Store, spoil: str) -> None:
    well = threading.Event()
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as catalog:
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog)
        folder = Path(str(next(iter(finished_windows_folder(store.scenes("test", JANUARY)).iterdir()))))
        files = sorted(folder.glob("*.parquet"))
        if spoil == "truncated":
            files[0].write_bytes(files[0].read_bytes()[:100])
        elif spoil == "foreign":
            files[0].write_bytes(files[1].read_bytes())
        else:
            (folder / "query.json").write_text("{")
        well.set()
        report = scan(store, catalog)
    assert report.windows_resumed == (0 if spoil == "query" else len(files) - 1)
    assert report.scenes == 300
    assert accounted(report)


def test_what_an_earlier_run_read_dates_the_scan(store: Store) -> None:
    """A month that was read while it was still provisional is not complete because the rest came later."""
    well = threading.Event()
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as catalog:
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog)
        between = dt.datetime.now(dt.UTC)
        time.sleep(1.1)
        well.set()
        report = scan(store, catalog)
    assert before <= dt.datetime.fromisoformat(report.scanned_at) <= between


def test_a_scan_goes_on_in_an_object_store() -> None:
    store = Store.below(UPath(f"memory://resume-{os.getpid()}/coverage"))
    well = threading.Event()
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as catalog:
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog)
        well.set()
        report = scan(store, catalog)
    assert report.windows_resumed > 5
    assert read_metadata(store.scenes("test", JANUARY))["scenes"] == 300
    assert not finished_windows_folder(store.scenes("test", JANUARY)).exists()


def test_failover_keeps_each_providers_windows_apart(store: Store) -> None:
    well = threading.Event()
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as first, serve(Catalog(MANY[:100], fault=fail_after(20))) as second:
        both = sensor(available_sources=tuple(AvailableSource("stac", c.address, "scenes", page_size=4) for c in (first, second)))
        with pytest.raises(CatalogError, match="every source failed"):
            scan(store, first, of=both)
        assert len(list(finished_windows_folder(store.scenes("test", JANUARY)).iterdir())) == 2
        well.set()
        report = scan(store, first, of=both)
    assert report.windows_resumed > 5
    assert (report.scenes, report.provider) == (300, first.address.removeprefix("http://"))


def _scan_in_a_process(address: str, root: str) -> None:
    host = address.removeprefix("http://")
    wanted = ScanOptions(QUICK, providers={host: replace(LOOPBACK, window_hours=24)}, cross_check=False)
    scan_month(sensor(address), JANUARY, Store.below(root), options=wanted)


def test_a_killed_scan_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """kill −9 at 20 moments: the result is that of an undisturbed scan, with fewer requests than from zero."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["coverage_pipeline.catalog.scan", "tests.catalog.items"])
    profile = replace(LOOPBACK, window_hours=24)
    with serve(Catalog(MANY, fault=lambda catalog, number, answer: (time.sleep(0.004), answer)[1])) as catalog:
        whole = Store.below(tmp_path / "whole")
        undisturbed = scan(whole, catalog, profile=profile, window_pages=50)
        expected = scenes(whole)
        moments = random.Random(9).sample(range(8, undisturbed.requests - 6), 20)
        resumed = 0
        for k, moment in enumerate(moments):
            store = Store.below(tmp_path / str(k))
            catalog.searches.clear()
            process = processes.Process(target=_scan_in_a_process, args=(catalog.address, str(tmp_path / str(k))))
            process.start()
            while len(catalog.searches) < moment and process.is_alive():
                time.sleep(0.0005)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert process.exitcode == -signal.SIGKILL
            assert not store.scenes("test", JANUARY).exists()
            catalog.searches.clear()
            report = scan(store, catalog, profile=profile, window_pages=50)
            assert scenes(store) == expected, moment
            assert len(catalog.searches) < undisturbed.requests - 1, moment
            resumed += report.windows_resumed
            assert accounted(report)
            hidden = {path.name for path in Path(str(store.scenes("test", JANUARY).parent)).iterdir() if path.name.startswith(".")}
            assert hidden <= {".2025-01.parquet.lock"}
    assert resumed > 20 * 5


# Knownness


def test_a_partial_scan_is_published_on_demand_only(store: Store) -> None:
    well = threading.Event()

    def bad_week(catalog: Catalog, number: int, answer: Answer) -> Answer:
        window = catalog.searches[-1]["datetime"]
        return (500, {}, b"disk full") if "2025-01-0" in window.split("/")[0] and not well.is_set() else answer

    profile = replace(LOOPBACK, window_hours=24)
    with serve(Catalog(MANY, fault=bad_week)) as catalog:
        with pytest.raises(CatalogUnavailable, match="disk full"):
            scan(store, catalog, profile=profile)
        assert not store.scenes("test", JANUARY).exists()
        report = scan(store, catalog, profile=profile, publish_partial=True, patience=replace(QUICK, retries=0))
        assert report.status == "partial"
        assert 0 < report.scenes < 300
        assert report.missing
        assert "disk full" in report.reason
        assert read_metadata(store.scenes("test", JANUARY))["status"] == "partial"
        assert len(scenes(store)) == report.scenes
        well.set()
        report = scan(store, catalog, profile=profile)
        assert (report.status, report.scenes) == ("complete", 300)
        assert report.windows_resumed > 10
        well.clear()
        with pytest.raises(CatalogUnavailable, match="former file stays"):
            scan(store, catalog, profile=profile, publish_partial=True)
        assert read_metadata(store.scenes("test", JANUARY))["status"] == "complete"


def _two(first: Catalog, second: Catalog) -> CoverageSensor:
    """A systematic sensor with two sources."""
    return sensor(
        taskable=False,
        nominal_revisit_days=16,
        available_sources=tuple(AvailableSource("stac", c.address, "scenes", page_size=4) for c in (first, second)),
    )


@pytest.mark.parametrize("matched", [True, False])
def test_an_empty_month_is_checked_with_the_next_provider(store: Store, matched: bool) -> None:
    with serve(Catalog([])) as empty, serve(Catalog(MANY[:10], matched=matched)) as full:
        report = scan(store, empty, of=_two(empty, full), cross_check=True)
        assert (report.scenes, report.provider) == (10, full.address.removeprefix("http://"))
        assert "is doubtful: emptiness: no scene at all" in next(iter(report.failed_providers.values()))
    store.scenes("test", JANUARY).unlink()
    with serve(Catalog([])) as empty, serve(Catalog([])) as also:
        report = scan(store, empty, of=_two(empty, also), cross_check=True)
        assert (report.status, report.scenes) == ("complete", 0)
        assert report.cross_check == f"emptiness: no scene at all; {also.address.removeprefix('http://')} has none either"


@pytest.mark.parametrize("publish_partial", [False, True])
def test_a_confirmed_doubt_that_nobody_settles_is_provisional(store: Store, publish_partial: bool) -> None:
    """The other has a scene and then dies: the month was read in full, so it is not partial, and it is not believed."""
    broken = Catalog(MANY[:10], fault=lambda catalog, number, answer: answer if number == 1 else (500, {}, b"no"))
    with serve(Catalog([])) as empty, serve(broken) as full:
        report = scan(store, empty, of=_two(empty, full), cross_check=True, publish_partial=publish_partial)
    assert (report.status, report.scenes, report.provider) == ("provisional", 0, empty.address.removeprefix("http://"))
    assert report.doubts == ["emptiness: no scene at all"]
    assert "has a scene of 2025-01-" in report.cross_check
    assert list(report.failed_providers) == [f"stac {full.address.removeprefix('http://')} scenes"]


def test_an_empty_month_without_another_opinion_says_so(store: Store) -> None:
    with serve(Catalog([])) as empty, serve(Catalog([], fault=lambda catalog, number, answer: (500, {}, b"no"))) as broken:
        report = scan(store, empty, of=_two(empty, broken), cross_check=True)
    assert report.status == "provisional"  # a known zero needs more than one provider's word where there are others
    assert report.reason == "emptiness: no scene at all"
    assert "could not be searched" in report.cross_check


def test_a_month_much_smaller_than_those_around_it_is_doubted(store: Store) -> None:
    february = [item(f"f{k}", f"2025-02-{1 + k % 28:02d}T10:00:00Z") for k in range(101)]
    with serve(Catalog([*MANY[:5], *february])) as small, serve(Catalog(MANY)) as full:
        both = _two(small, full)
        scan_month(both, Month(2025, 2), store, options=options(small))
        report = scan(store, small, of=both, cross_check=True)
    assert (report.status, report.scenes) == ("complete", 300)
    assert "thinness: 5 scenes, while the median of the 1 month around is 101" in next(iter(report.failed_providers.values()))


def test_fields_leave_the_assets_out_unless_the_server_drops_more(store: Store) -> None:
    profile = replace(LOOPBACK, features=("fields",))
    fields = "https://api.stacspec.org/v1.0.0/item-search#fields"

    class WithFields(Catalog):
        def landing(self) -> dict[str, Any]:
            page = super().landing()
            return {**page, "conformsTo": [*page["conformsTo"], fields]}

    def too_much(part: str, since: int) -> Any:
        def strip(page: dict[str, Any]) -> None:
            for feature in page["features"]:
                (feature["properties"] if part == "eo:cloud_cover" else feature).pop(part)

        return lambda catalog, number, answer: changed(answer, strip) if "fields" in catalog.searches[-1] and number >= since else answer

    with serve(WithFields(MANY[:20])) as catalog:
        assert scan(store, catalog, profile=profile).scenes == 20
        assert [search["limit"] for search in catalog.searches[:2]] == [3, 3]  # what it leaves out is looked at first
        assert all(search["fields"]["exclude"] == ["assets"] for search in (catalog.searches[0], *catalog.searches[2:]))
    for part, since, times in (("geometry", 1, 1), ("eo:cloud_cover", 1, 1), ("geometry", 4, 3)):
        with serve(WithFields(MANY[:20], fault=too_much(part, since))) as catalog:
            report = scan(store, catalog, profile=profile, window_pages=50)
            assert (report.scenes, report.bbox_footprints, report.rejected) == (20, 0, {})
            assert [row["cloud_cover"] for row in scenes(store)] == [5.0] * 20
            assert sum("fields" in search for search in catalog.searches) == times
    with serve(Catalog(MANY[:20])) as catalog:  # a server that does not claim them is not asked for them
        scan(store, catalog, profile=profile)
        assert not any("fields" in search for search in catalog.searches)


def test_progress_is_told_from_every_thread(store: Store) -> None:
    told: list[Progress] = []
    with serve(Catalog(MANY)) as catalog:
        scan_month(sensor(catalog.address), JANUARY, store, options=options(catalog), progress=told.append)
    assert told[-1].done == told[-1].windows > 1
    assert told[-1].received >= 300
    assert [p.done for p in told] == sorted(p.done for p in told)


def test_a_box_does_not_replace_the_globe(store: Store) -> None:
    with serve(Catalog(MANY[:10])) as catalog:
        scan(store, catalog)
        catalog.searches.clear()
        with pytest.raises(CatalogError, match="holds a complete scan of the globe"):
            scan_month(sensor(catalog.address), JANUARY, store, bbox=(0, 40, 10, 60), options=options(catalog))
        assert catalog.searches == []  # said before anybody was asked
    assert len(scenes(store)) == 10


def test_a_wrong_first_month_does_not_replace_scenes(store: Store) -> None:
    with serve(Catalog(MANY[:10])) as catalog:
        scan(store, catalog)
        with pytest.raises(CatalogError, match="does not replace it"):
            scan(store, catalog, of=replace(sensor(catalog.address), first_month=Month(2026, 1)))
    assert len(scenes(store)) == 10


def test_a_poorer_partial_scan_does_not_replace_a_richer_one(store: Store) -> None:
    from_day = 20

    def broken(catalog: Catalog, number: int, answer: Answer) -> Answer:
        start = dt.datetime.fromisoformat(catalog.searches[-1]["datetime"].split("/")[0])
        return answer if start < dt.datetime(2025, 1, from_day, tzinfo=dt.UTC) else (500, {}, b"no")

    profile = replace(LOOPBACK, window_hours=24)
    with serve(Catalog(MANY, fault=broken)) as catalog:
        richer = scan(store, catalog, profile=profile, publish_partial=True, patience=replace(QUICK, retries=0))
        from_day = 5
        with pytest.raises(CatalogError, match="former file stays"):
            scan(store, catalog, profile=profile, publish_partial=True, patience=replace(QUICK, retries=0), resume_hours=0)
    assert len(scenes(store)) == richer.scenes > 150
    assert len(richer.missing) == 1  # one span, however many windows it was asked for in


def test_nothing_at_all_is_not_published_as_partial(store: Store) -> None:
    with serve(Catalog(MANY, fault=lambda catalog, number, answer: (500, {}, b"no"))) as catalog:
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog, publish_partial=True)
        assert len(catalog.searches) < 120
    assert not store.scenes("test", JANUARY).exists()


@pytest.mark.parametrize("cap", [1000, 2000])
@pytest.mark.parametrize("matched", [True, False])
def test_a_server_that_counts_no_further_is_found_out(store: Store, cap: int, matched: bool) -> None:
    """Elasticsearch stops at 10,000 hits, and says that there are as many."""
    items = [item(f"s{k:04d}", f"2025-01-{1 + k % 31:02d}T{k % 24:02d}:10:00Z") for k in range(cap + 500)]

    class Capped(Catalog):
        def page(self, body: Any) -> dict[str, Any]:
            found = Catalog([i for i in self.items if _within(i, body)][:cap], matched=self.matched, address=self.address)
            return found.page(body)

    with serve(Capped(items, matched=matched)) as catalog:
        report = scan(store, catalog, of=sensor(catalog.address, page_size=300), window_pages=50)
    assert report.scenes == cap + 500


def test_fields_that_one_thread_finds_wanting_are_wanting_for_all(store: Store) -> None:
    """Regression: a page that was asked for without assets, while another thread found out, was taken as it was."""
    fields = "https://api.stacspec.org/v1.0.0/item-search#fields"

    class WithFields(Catalog):
        def landing(self) -> dict[str, Any]:
            page = super().landing()
            return {**page, "conformsTo": [*page["conformsTo"], fields]}

    def too_much_later(catalog: Catalog, number: int, answer: Answer) -> Answer:
        def strip(page: dict[str, Any]) -> None:
            for feature in page["features"]:
                feature.pop("geometry")
                feature.pop("bbox")

        lean = "fields" in catalog.searches[-1] and number > 4
        time.sleep(0.01 * (number % 3))
        return changed(answer, strip) if lean else answer

    profile = replace(LOOPBACK, features=("fields",), parallel=8, window_hours=24)
    with serve(WithFields(MANY, fault=too_much_later)) as catalog:
        report = scan(store, catalog, profile=profile)
    assert (report.scenes, report.rejected, report.bbox_footprints) == (300, {}, 0)


@pytest.mark.parametrize("page_size", [1, 2, 3])
def test_the_smallest_pages(store: Store, page_size: int) -> None:
    """Regression: no other page size was found that would not divide 12, or 60."""
    with serve(Catalog(MANY[:60], matched=False)) as catalog:
        assert scan(store, catalog, of=sensor(catalog.address, page_size=page_size), window_pages=500).scenes == 60


def test_a_month_of_nothing_usable_is_not_believed(store: Store) -> None:
    nowhere = [item(f"s{k}", geometry=None, bbox=None) for k in range(30)]
    with serve(Catalog(nowhere)) as catalog:
        report = scan(store, catalog)
    assert (report.status, report.scenes) == ("provisional", 0)
    assert report.doubts[0].startswith("unplaced: of 30 items with a time, 30 are rejected, most of them as 'geometry missing'")
    others = [item(f"s{k}", properties={"platform": "landsat-7"}) for k in range(10)]
    with serve(Catalog(others)) as catalog:
        source = replace(sensor(catalog.address).available_sources[0], platforms=("landsat-8",))
        report = scan(store, catalog, of=sensor(available_sources=(source,)))
    assert (report.status, report.platforms, report.other_platforms) == ("provisional", {}, {"landsat-7": 10})
    assert "are of satellites other than landsat-8; check platforms" in report.reason
    spelt = [item(f"s{k}", properties={"platform": "LANDSAT_8"}) for k in range(10)]
    with serve(Catalog(spelt)) as catalog:
        source = replace(sensor(catalog.address).available_sources[0], platforms=("landsat-8",))
        assert scan(store, catalog, of=sensor(available_sources=(source,))).scenes == 10


def test_a_full_disk_leaves_all_three_files_as_they_were(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Catalog(MANY[:10])) as catalog:
        scan(store, catalog)
        folder = Path(str(store.scenes("test", JANUARY).parent))
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".parquet", ".json")}
        real = os.fsync

        def full(file: int) -> None:
            name = str(Path(f"/proc/self/fd/{file}").readlink())
            if "2025-01.parquet" in name and ".parts" not in name:
                raise OSError(28, "No space left on device")
            real(file)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            scan(store, catalog)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".parquet", ".json")} == before


def test_one_source_alone_leaves_the_windows_of_the_others(store: Store) -> None:
    well = threading.Event()
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as first, serve(Catalog(MANY[:50], fault=fail_after(10))) as second:
        both = _two(first, second)
        with pytest.raises(CatalogError):
            scan(store, first, of=both)
        with pytest.raises(CatalogError):
            scan_month(both, JANUARY, store, source_index=1, options=options(second))
        well.set()
        assert scan(store, first, of=both).windows_resumed > 5


def test_a_region_resumes_too_and_a_clock_that_was_ahead_keeps_nothing(store: Store) -> None:
    well = threading.Event()
    with serve(Catalog(MANY, fault=fail_after(60, gone=well))) as catalog:
        regional = replace(sensor(catalog.address).available_sources[0], covers=(-180.0, 0.0, 180.0, 80.0))
        of = sensor(available_sources=(regional,))
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog, of=of)
        (folder,) = finished_windows_folder(store.scenes("test", JANUARY)).iterdir()
        kept = len([path for path in folder.iterdir() if path.name.endswith(".parquet")])
        assert kept > 5
        begun = folder / "query.json"
        former = begun.read_text()
        begun.write_text(json.dumps({"begun": "2999-01-01T00:00:00+00:00"}))
        with pytest.raises(CatalogUnavailable):
            scan(store, catalog, of=of, patience=replace(QUICK, retries=0))
        assert "2999" not in begun.read_text()
        assert former != begun.read_text()
        well.set()
        assert scan(store, catalog, of=of).scenes == 300


def test_an_hour_long_retry_after_does_not_outlive_its_scan(store: Store) -> None:
    with serve(
        Catalog(MANY[:10], fault=lambda catalog, number, answer: (429, {"Retry-After": "999999"}, b"") if number == 1 else answer)
    ) as one:
        with pytest.raises(CatalogUnavailable):
            scan(store, one, patience=replace(QUICK, deadline_seconds=1))
        time.sleep(1.1)
        assert scan(store, one).scenes == 10


def test_a_source_that_lists_a_region_says_nothing_of_elsewhere(store: Store) -> None:
    with serve(Catalog(MANY[:10])) as catalog:
        regional = replace(sensor(catalog.address).available_sources[0], covers=(0.0, 40.0, 60.0, 60.0))
        report = scan(store, catalog, of=sensor(available_sources=(regional,)))
        assert report.bbox == [0, 40, 60, 60]
        assert catalog.searches[0]["bbox"] == [0, 40, 60, 60]
        with pytest.raises(CatalogUnavailable, match="covers"):
            scan_month(sensor(available_sources=(regional,)), JANUARY, store, bbox=(50, 40, 70, 60), options=options(catalog))


def test_a_truncating_server_names_window_page_announced_and_received(store: Store) -> None:
    def too_many(catalog: Catalog, number: int, answer: Answer) -> Answer:
        return changed(answer, lambda page: page.update(numberMatched=page["numberMatched"] + 7))

    with serve(Catalog(MANY, fault=too_many)) as catalog, pytest.raises(CatalogTruncated) as caught:
        scan(store, catalog)
    message = str(caught.value)
    assert "test 2025-01" in message
    assert "page" in message
    assert "announced" in message
    assert "received" in message
    assert re.search(r"of 20\d{6}T\d{6}Z-20\d{6}T\d{6}Z \(", message)
    told = json.dumps(message)
    assert "nothing was written" in told
