"""A scan in windows: read in parallel, cut where they are too much, kept where they are done, so that nothing is asked twice.

A window that fails is halved and asked again, since a catalogue that is overloaded or breaks off often answers a narrower question; one
that turns out too large is cut at once. What each finished window gave lies beside the scan's target until the scan is done, so that
one that is killed goes on from there.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pyarrow as pa

from coverage_pipeline.catalog.belief import Placing
from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated
from coverage_pipeline.catalog.finished_windows import FinishedWindow, FinishedWindows
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.catalog.sources.base import Source, Window, WindowCount
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.months import UTC
from coverage_pipeline.scenes.items import SceneCollector, first_of_each
from coverage_pipeline.scenes.schema import ROWS_SCHEMA

log = logging.getLogger(__name__)
_SOME_PIECES, _MOST_PIECES = 4, 16
"""Into how many windows one is cut at least and at most where no total tells how much it holds."""
_ROUND_WITH_TOTAL, _ROUND_WITHOUT = 1000, 50
"""Servers that stop silently stop at a round number: 1,000, or the 10,000 hits of Elasticsearch, and then announce just as many; 100, 250,
500 or 2,500 where they announce none. The two halves of the window tell. Of the windows that are whole, one in 1,000 or in 50 is asked
for in halves, too."""
_PROBE = 3
"""Pages after which the length of a search is guessed from the time they cover."""
_MOST_FAILED = 24
"""A scan that may be partial asks no more after as many failures in a row. What failed comes last, so that the rest is read."""


@dataclass(frozen=True)
class Progress:
    """How far a scan is."""

    windows: int = 0
    """Windows known of so far: more, whenever one is cut."""
    done: int = 0
    received: int = 0
    announced: int | None = None
    """Of the windows that are done or under way, where totals are given."""
    resumed: int = 0
    retries: int = 0


@dataclass
class ScannedWindows:
    """All windows of a scan."""

    rows: pa.Table
    """``ROWS_SCHEMA``, each item once."""
    rejected: pa.Table
    """``REJECTED_ROWS_SCHEMA``, each item once."""
    parts: list[FinishedWindow]
    repeated: int
    """Items that came in two windows, which meet at their ends."""
    cut: int
    """Windows that were cut because they failed or were too large."""
    missing: list[tuple[Window, CatalogError]] = field(default_factory=list)
    """Windows that could not be read, where the scan may be partial."""
    twins: int = 0
    """Items that came again with another footprint under the same id, within a window or in two."""

    def take_rows(self) -> pa.Table:
        """The rows, which are gone from here then: of a large month they are most of the memory."""
        rows, self.rows = self.rows, ROWS_SCHEMA.empty_table()
        return rows


@dataclass
class WindowScan:
    """One scan's windows of one source."""

    source: Source
    label: str
    """Sensor, month, provider and collection, for messages."""
    profile: ProviderProfile
    start: dt.datetime
    end: dt.datetime
    bbox: BBox | None
    collector: Callable[[], SceneCollector]
    parts: FinishedWindows
    lifetime: dt.timedelta
    """How long the windows of an earlier run are good for."""
    window_pages: int
    """A window with more pages than this is cut."""
    on_progress: Callable[[Progress], None] | None = None
    partial: bool = False
    """Whether to go on after a window that cannot be read."""
    cancel: Callable[[], None] = lambda: None
    """Lets no thread of the source ask anything more."""
    retries: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self._underway: dict[Window, tuple[WindowCount, SceneCollector]] = {}
        self._done: list[FinishedWindow] = []
        self._known = 0
        self._cuts = 0

    def run(self) -> ScannedWindows:
        """Read what no earlier run has; raises the ``CatalogError`` of the first window that cannot be read however narrow it is."""
        done = self._done
        if not self.source.windowed:
            self.parts.clear()  # of a file that was renewed meanwhile, nothing would tell
        self.parts.begin(self.lifetime)
        done.extend(self.parts.found())
        pending = list(reversed(self._windows(done)))
        self._known = len(pending) + len(done)
        missing: list[tuple[Window, CatalogError]] = []
        in_a_row = 0
        running: dict[Future[FinishedWindow | None], Window] = {}
        with ThreadPoolExecutor(self.profile.parallel, thread_name_prefix="scan") as pool:
            try:
                while pending or running:
                    while pending and len(running) < self.profile.parallel:
                        window = pending.pop()
                        running[pool.submit(self._read, window)] = window
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        window = running.pop(future)
                        try:
                            part = future.result()
                        except CatalogError as error:
                            self._underway.pop(window, None)
                            in_a_row += 1
                            if error.narrower_may_help and window.divisible and self.source.windowed:
                                log.info("%s; asking for halves of %s", error, window.name)
                                narrower = window.halves(smaller_pages=not isinstance(error, CatalogTruncated))
                                if self.partial and in_a_row >= _MOST_FAILED:
                                    missing.extend((other, error) for other in (window, *pending))
                                    pending.clear()
                                    continue
                                if self.partial:  # what can be had comes first
                                    pending[:0] = reversed(narrower)
                                    self._cut(narrower)
                                    continue
                            elif self.partial:
                                missing.append((window, error))
                                continue
                            else:
                                raise
                        else:
                            in_a_row = 0
                            if part is not None:
                                done.append(part)
                                continue
                            narrower = window.cut(self._pieces(window))
                        self._cut(narrower)
                        pending.extend(reversed(narrower))
                    self._tell()
            except BaseException:
                self.cancel()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        done.sort(key=lambda part: part.window)
        rows, rejected = self.parts.rows(done)
        came = rows.num_rows + rejected.num_rows
        twins = sum(part.twins for part in done) + _differing(rows)
        rows, rejected = first_of_each(rows, "item_id"), first_of_each(rejected, "digest")
        repeated = came - rows.num_rows - rejected.num_rows
        return ScannedWindows(rows, rejected, done, repeated, self._cuts, missing, twins)

    def _cut(self, narrower: list[Window]) -> None:
        self._cuts += 1
        self._known += len(narrower) - 1

    def _windows(self, done: list[FinishedWindow]) -> list[Window]:
        """What is still to be asked: the whole, or what is left of it, cut from the start where it is known to be too much."""
        whole = Window(self.start, self.end, self.profile.page_size)
        if not self.source.windowed:
            return [whole]
        hours = self.profile.window_hours
        first = whole.cut(round((self.end - self.start) / dt.timedelta(hours=hours)) if hours and self.bbox is None else 1)
        read = sorted(part.window for part in done)
        return [w for window in first for w in _without(window, read)]

    def _pieces(self, window: Window) -> int:
        """Into how many windows one that is too large is cut: by its total, or by how much of it the pages read so far cover."""
        window_count, collector = self._underway.pop(window)
        if window_count.announced is not None:
            return max(2, -(-window_count.announced // (self.window_pages * window.limit)))
        pages = window_count.pages / max(_covered(window, collector), 1e-3)
        return max(_SOME_PIECES, min(_MOST_PIECES, math.ceil(pages / self.window_pages)))

    def _is_too_large(self, window: Window, window_count: WindowCount, collector: SceneCollector) -> bool:
        """Whether a window is better asked for in pieces, by what is known of it before its latest page is taken."""
        if not self.source.windowed or not window.divisible:
            return False
        if window_count.announced is not None:
            return window_count.announced > self.window_pages * window.limit
        if window_count.pages == _PROBE + 1:  # most servers give the newest or the oldest first, and so show early how far there is to go
            return _PROBE / max(_covered(window, collector), 1e-3) > 2 * self.window_pages
        return window_count.pages > self.window_pages

    def _read(self, window: Window) -> FinishedWindow | None:
        """Read a window into its part; None where it is too large."""
        window_count, collector = WindowCount(), self.collector()
        # The window of the whole scan: a server may be some seconds off at the ends of a window within it.
        placing = Placing(self.start, self.end)
        self._underway[window] = window_count, collector
        began = dt.datetime.now(UTC)
        for page in self.source.pages(window, self.bbox, window_count):
            if self._is_too_large(window, window_count, collector):
                return None
            collector.add(page)
            placing.add(page)
            self._tell()
        boxes = window_count.boxes or [(collector.received, window_count.announced)]
        rounded = [(received, announced) for received, announced in boxes if _may_be_capped(received, announced)]
        rejected = collector.rejected_rows()
        part = FinishedWindow(
            window=(window.start, window.end),
            read_at=began,
            pages=window_count.pages,
            announced=window_count.announced,
            received=collector.received,
            duplicates=collector.duplicates,
            outside=collector.outside,
            other_platform=collector.other_platform,
            rejected=rejected.num_rows,
            foreign=placing.foreign if self.source.windowed else 0,  # a file gives what it has
            twins=placing.twins,
            overfull=sum(announced is not None and received > announced for received, announced in boxes),
            capped=len(rounded) if self.source.windowed and window.failures else 0,
            platforms=dict(collector.platforms),
            other_platforms=dict(collector.other_platforms),
        )
        if self.source.windowed and window.divisible and rounded:
            raise CatalogTruncated(
                f"{self.label} gave {rounded[0][0]} items for {window.name}, a round number, at which some servers stop; asking for halves"
            )
        self.parts.write(part, collector.rows(), rejected)
        del self._underway[window]
        return part

    def _tell(self) -> None:
        if self.on_progress is None:
            return
        done, underway = list(self._done), list(self._underway.values())
        totals = [part.announced for part in done] + [window_count.announced for window_count, _ in underway]
        self.on_progress(
            Progress(
                windows=self._known,
                done=len(done),
                received=sum(part.received for part in done) + sum(collector.received for _, collector in underway),
                announced=sum(total for total in totals if total is not None) if None not in totals and totals else None,
                resumed=sum(part.resumed for part in done),
                retries=self.retries(),
            )
        )


def _may_be_capped(received: int, announced: int | None) -> bool:
    """Whether a box ends on so round a number of items that the server may have stopped there."""
    return received > 0 and received % (_ROUND_WITHOUT if announced is None else _ROUND_WITH_TOTAL) == 0


def _differing(rows: pa.Table) -> int:
    """How many rows have the id of an earlier one, and another footprint."""
    ids = rows["item_id"].to_pandas()
    again = ids.duplicated(keep=False).to_numpy()
    if not again.any():
        return 0
    some = rows.select(["item_id", "geometry"]).filter(pa.array(again)).to_pandas()
    return len(some.drop_duplicates()) - int(some["item_id"].nunique())


def _covered(window: Window, collector: SceneCollector) -> float:
    """The share of a window's time that the items taken so far have got through, in whichever direction the server goes. It says
    something where a server sorts by time; most do.
    """
    ends = collector.ends()
    if ends is None:
        return 1.0
    first, last = ends
    through = window.end - last if last < first else last - window.start
    return min(1.0, max(0.0, through / (window.end - window.start)))


def _without(window: Window, done: list[tuple[dt.datetime, dt.datetime]]) -> Iterator[Window]:
    """What of a window no finished one covers."""
    start = window.start
    for first, last in done[max(0, bisect_left(done, (start, start)) - 1) :]:
        if last <= start:
            continue
        if first >= window.end:
            break
        if first > start:
            yield Window(start, first, window.limit)
        start = max(start, last)
    if start < window.end:
        yield Window(start, window.end, window.limit)
