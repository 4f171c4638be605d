"""Scan in time windows, which are read in parallel, divided if they fail or are too large, and stored when finished.

A window that fails is halved, because an overloaded catalogue often answers a narrower search. A window that is too large is divided at
once. Finished windows stay beside the scan's target until the scan is complete, so that a killed scan can resume.
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
"""Fewest and most pieces of a window that is too large and has no announced total."""
_ROUND_WITH_TOTAL, _ROUND_WITHOUT = 1000, 50
"""Divisors of the item counts at which servers stop silently. Servers with totals stop at 1,000, or at the 10,000 hits of Elasticsearch,
and announce just as many. Servers without totals stop at 100, 250, 500 or 2,500. The halves of such a window show whether items are
missing. One in 1,000 or in 50 of the complete windows is halved in vain."""
_PROBE = 3
"""Pages after which the length of a search is estimated from the time that they cover."""
_MOST_FAILED = 24
"""Failures in a row after which a partial scan stops. It reads failed windows last, so that the others are read."""


@dataclass(frozen=True)
class Progress:
    """Progress of a scan."""

    windows: int = 0
    """Number of windows so far; grows whenever one is divided."""
    done: int = 0
    received: int = 0
    announced: int | None = None
    """Items announced for windows done or in progress; None without totals."""
    resumed: int = 0
    retries: int = 0


@dataclass
class ScannedWindows:
    """Result of all windows of a scan."""

    rows: pa.Table
    """Usable items (``ROWS_SCHEMA``), each once."""
    rejected: pa.Table
    """Rejected items (``REJECTED_ROWS_SCHEMA``), each once."""
    parts: list[FinishedWindow]
    repeated: int
    """Items repeated in two windows, which share an end."""
    cut: int
    """Windows that were divided, because they failed or were too large."""
    missing: list[tuple[Window, CatalogError]] = field(default_factory=list)
    """Unreadable windows of a partial scan, with their errors."""
    twins: int = 0
    """Items with a repeated id and another footprint, within a window or in two."""

    def take_rows(self) -> pa.Table:
        """Return the rows and drop them here: they are most of the memory of a large month."""
        rows, self.rows = self.rows, ROWS_SCHEMA.empty_table()
        return rows


@dataclass
class WindowScan:
    """Scan of one source, window by window."""

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
    """How long the windows of an earlier run can be resumed."""
    window_pages: int
    """A window with more pages than this is divided."""
    on_progress: Callable[[Progress], None] | None = None
    partial: bool = False
    """Whether to continue after an unreadable window."""
    cancel: Callable[[], None] = lambda: None
    """Stops all requests of the source."""
    retries: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self._underway: dict[Window, tuple[WindowCount, SceneCollector]] = {}
        self._done: list[FinishedWindow] = []
        self._known = 0
        self._cuts = 0

    def run(self) -> ScannedWindows:
        """Read the windows that no earlier run has finished.

        Raises the ``CatalogError`` of the first window that is unreadable even in its narrowest pieces, unless ``partial``; ``StoreError``
        if windows cannot be written or read back.
        """
        done = self._done
        if not self.source.windowed:
            self.parts.clear()  # a file may have been replaced meanwhile without a sign
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
                                log.info("%s; reading halves of %s", error, window.name)
                                narrower = window.halves(smaller_pages=not isinstance(error, CatalogTruncated))
                                if self.partial and in_a_row >= _MOST_FAILED:
                                    missing.extend((other, error) for other in (window, *pending))
                                    pending.clear()
                                    continue
                                if self.partial:  # read the other windows first
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
                    self._report_progress()
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
        """The windows still to read. A global scan starts with windows of ``window_hours``, if the profile sets them."""
        whole = Window(self.start, self.end, self.profile.page_size)
        if not self.source.windowed:
            return [whole]
        hours = self.profile.window_hours
        windows = whole.cut(round((self.end - self.start) / dt.timedelta(hours=hours)) if hours and self.bbox is None else 1)
        read = sorted(part.window for part in done)
        return [w for window in windows for w in _without(window, read)]

    def _pieces(self, window: Window) -> int:
        """Number of pieces of a window that is too large, by its total, or by the share of time that its pages cover so far."""
        window_count, collector = self._underway.pop(window)
        if window_count.announced is not None:
            return max(2, -(-window_count.announced // (self.window_pages * window.limit)))
        pages = window_count.pages / max(_covered(window, collector), 1e-3)
        return max(_SOME_PIECES, min(_MOST_PIECES, math.ceil(pages / self.window_pages)))

    def _is_too_large(self, window: Window, window_count: WindowCount, collector: SceneCollector) -> bool:
        """Whether to divide a window, judged before its latest page is added to the collector."""
        if not self.source.windowed or not window.divisible:
            return False
        if window_count.announced is not None:
            return window_count.announced > self.window_pages * window.limit
        if window_count.pages == _PROBE + 1:  # most servers sort by time, so that early pages show the length
            return _PROBE / max(_covered(window, collector), 1e-3) > 2 * self.window_pages
        return window_count.pages > self.window_pages

    def _read(self, window: Window) -> FinishedWindow | None:
        """Read and store a window; None if it is too large."""
        window_count, collector = WindowCount(), self.collector()
        # The span of the whole scan, because servers may be some seconds off at the ends of a window.
        placing = Placing(self.start, self.end)
        self._underway[window] = window_count, collector
        read_at = dt.datetime.now(UTC)
        for page in self.source.pages(window, self.bbox, window_count):
            if self._is_too_large(window, window_count, collector):
                return None
            collector.add(page)
            placing.add(page)
            self._report_progress()
        boxes = window_count.boxes or [(collector.received, window_count.announced)]
        rounded = [(received, announced) for received, announced in boxes if _may_be_capped(received, announced)]
        rejected = collector.rejected_rows()
        part = FinishedWindow(
            window=(window.start, window.end),
            read_at=read_at,
            pages=window_count.pages,
            announced=window_count.announced,
            received=collector.received,
            duplicates=collector.duplicates,
            outside=collector.outside,
            other_platform=collector.other_platform,
            rejected=rejected.num_rows,
            foreign=placing.foreign if self.source.windowed else 0,  # a file returns all its items
            twins=placing.twins,
            overfull=sum(announced is not None and received > announced for received, announced in boxes),
            capped=len(rounded) if self.source.windowed and window.failures else 0,
            platforms=dict(collector.platforms),
            other_platforms=dict(collector.other_platforms),
        )
        if self.source.windowed and window.divisible and rounded:
            raise CatalogTruncated(
                f"{self.label} returned {rounded[0][0]} items for {window.name}, a round number, at which some servers stop"
            )
        self.parts.write(part, collector.rows(), rejected)
        del self._underway[window]
        return part

    def _report_progress(self) -> None:
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
    """Whether a box has such a round number of items that the server may have capped it."""
    return received > 0 and received % (_ROUND_WITHOUT if announced is None else _ROUND_WITH_TOTAL) == 0


def _differing(rows: pa.Table) -> int:
    """Number of rows with the id of an earlier row and another footprint."""
    ids = rows["item_id"].to_pandas()
    is_repeated = ids.duplicated(keep=False).to_numpy()
    if not is_repeated.any():
        return 0
    repeated = rows.select(["item_id", "geometry"]).filter(pa.array(is_repeated)).to_pandas()
    return len(repeated.drop_duplicates()) - int(repeated["item_id"].nunique())


def _covered(window: Window, collector: SceneCollector) -> float:
    """Share of a window's time, 0..1, that the items read so far cover, in either direction. Meaningful for servers that sort by time,
    as most do.
    """
    ends = collector.ends()
    if ends is None:
        return 1.0
    first, last = ends
    covered = window.end - last if last < first else last - window.start
    return min(1.0, max(0.0, covered / (window.end - window.start)))


def _without(window: Window, done: list[tuple[dt.datetime, dt.datetime]]) -> Iterator[Window]:
    """Parts of a window that no finished window covers."""
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
