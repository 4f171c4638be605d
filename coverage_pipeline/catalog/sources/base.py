"""What every kind of source is to the scanner: something that gives the items of a window, page by page, or says that it cannot."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

from coverage_pipeline.catalog.http import HttpSession
from coverage_pipeline.geometry.bbox import BBox

SEARCH_HALVINGS = 4
"""A search that an overloaded server does not answer is made narrower as often as this before it is asked with full patience."""

NARROWEST = dt.timedelta(hours=1)
"""No window is cut below this: what fails then is not the length."""


@dataclass(frozen=True, order=True)
class Window:
    """A span of time that is asked for as one search. Both ends belong to it; where two meet, an item may come twice."""

    start: dt.datetime
    end: dt.datetime
    limit: int
    """Items a page."""
    failures: int = 0
    """How many wider windows around it failed."""

    @property
    def name(self) -> str:
        """For messages and file names."""
        return f"{self.start:%Y%m%dT%H%M%SZ}-{self.end:%Y%m%dT%H%M%SZ}"

    @property
    def tries(self) -> int | None:
        """How often it is asked before a narrower one is; None: with all patience, as nothing narrower will be."""
        return 2 if self.divisible and self.failures < SEARCH_HALVINGS else None

    @property
    def divisible(self) -> bool:
        """Whether its halves would still be long enough."""
        return self.end - self.start >= 2 * NARROWEST

    def cut(self, pieces: int) -> list[Window]:
        """Windows of equal length, in whole seconds, that abut; as many as ``pieces`` where they stay long enough."""
        length = self.end - self.start
        pieces = max(1, min(pieces, length // NARROWEST))
        seconds = length.total_seconds() / pieces
        edges = [self.start + dt.timedelta(seconds=round(k * seconds)) for k in range(pieces)] + [self.end]
        return [replace(self, start=a, end=b) for a, b in pairwise(edges)]

    def halves(self, *, smaller_pages: bool) -> list[Window]:
        """What is asked after the whole has failed: half the time, and where it may be the size of the answer, half as much a page."""
        limit = max(min(self.limit, 10), self.limit // 2) if smaller_pages else self.limit
        return [replace(w, failures=self.failures + 1, limit=limit) for w in self.cut(2)]


def joined(windows: Iterable[Window]) -> list[Window]:
    """Windows in their order, those that abut or overlap as one."""
    windows_left: list[Window] = []
    for window in sorted(windows):
        if windows_left and window.start <= windows_left[-1].end:
            windows_left[-1] = replace(windows_left[-1], end=max(windows_left[-1].end, window.end))
        else:
            windows_left.append(window)
    return windows_left


@dataclass
class WindowCount:
    """What a source says of a window while it is read."""

    pages: int = 0
    announced: int | None = None
    """Matches announced, over the boxes asked so far; None where no total is given."""
    boxes: list[tuple[int, int | None]] = field(default_factory=list)
    """Distinct items, and the total announced, of each box that was read to its end: a cap or a wrong total shows in the single box, never
    in the sum of two."""


class Source(Protocol):
    """One collection of one provider, asked for windows; called from several threads at a time.

    Anything short of a whole answer is a ``CatalogError``; who has seen every page without one has all there is.
    """

    windowed: bool
    """Whether a narrower window is less work. A file is read as a whole."""

    @property
    def session(self) -> HttpSession | None:
        """What is asked over HTTP; None for what lies on a disk."""

    @property
    def item_root(self) -> str | None:
        """The address below which an API has the collection's items; None where there is none."""

    def pages(self, window: Window, bbox: BBox | None, window_count: WindowCount) -> Iterator[list[Any]]:
        """Pages of STAC item dictionaries whose time lies in the window, or cannot be told, and that meet ``bbox``."""

    def require_collection(self) -> None:
        """Raise ``CatalogUnavailable`` where the collection does not exist: called where nothing was found in it."""

    def total(self, window: Window, bbox: BBox | None) -> int:
        """How many items match; at least how many, where the provider gives no totals."""

    def newest(self) -> dt.datetime | None:
        """The latest time that the source can know of; None where it is asked live."""
