"""The interface of a source: items of a time window, page by page, or an error."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

from coverage_pipeline.catalog.http import HttpSession
from coverage_pipeline.geometry.bbox import BBox

SEARCH_HALVINGS = 4
"""Halvings of a window with few tries per request; narrower windows get all retries."""

NARROWEST = dt.timedelta(hours=1)
"""Shortest window: if it fails, its length is not the cause."""


@dataclass(frozen=True, order=True)
class Window:
    """Time span of one search. Both ends are included, so that adjacent windows may share an item."""

    start: dt.datetime
    end: dt.datetime
    limit: int
    """Items per page."""
    failures: int = 0
    """Number of wider windows around it that failed."""

    @property
    def name(self) -> str:
        """Name for messages and files."""
        return f"{self.start:%Y%m%dT%H%M%SZ}-{self.end:%Y%m%dT%H%M%SZ}"

    @property
    def tries(self) -> int | None:
        """Tries per request before the window is halved; None: all retries, because it will not be halved."""
        return 2 if self.divisible and self.failures < SEARCH_HALVINGS else None

    @property
    def divisible(self) -> bool:
        """Whether its halves are not shorter than ``NARROWEST``."""
        return self.end - self.start >= 2 * NARROWEST

    def cut(self, pieces: int) -> list[Window]:
        """Adjacent windows of equal length in whole seconds; at most ``pieces``, none shorter than ``NARROWEST``."""
        length = self.end - self.start
        pieces = max(1, min(pieces, length // NARROWEST))
        seconds = length.total_seconds() / pieces
        edges = [self.start + dt.timedelta(seconds=round(k * seconds)) for k in range(pieces)] + [self.end]
        return [replace(self, start=a, end=b) for a, b in pairwise(edges)]

    def halves(self, *, smaller_pages: bool) -> list[Window]:
        """Both halves of a failed window; ``smaller_pages`` halves the page size, too, in case the answer was too large."""
        limit = max(min(self.limit, 10), self.limit // 2) if smaller_pages else self.limit
        return [replace(w, failures=self.failures + 1, limit=limit) for w in self.cut(2)]


def joined(windows: Iterable[Window]) -> list[Window]:
    """Windows in order, with adjacent and overlapping ones merged."""
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.start <= merged[-1].end:
            merged[-1] = replace(merged[-1], end=max(merged[-1].end, window.end))
        else:
            merged.append(window)
    return merged


@dataclass
class WindowCount:
    """Counts that a source updates while it reads a window."""

    pages: int = 0
    announced: int | None = None
    """Announced matches, summed over the boxes searched so far; None without totals."""
    boxes: list[tuple[int, int | None]] = field(default_factory=list)
    """Distinct items and announced total of each box read to its end: a cap or a wrong total shows only in a single box, not in a sum."""


class Source(Protocol):
    """One collection of one provider, searched by windows. Thread-safe.

    An incomplete answer raises ``CatalogError``: a caller that gets all pages without an error has all items.
    """

    windowed: bool
    """Whether a narrower window takes less work. False for files, which are read as a whole."""

    @property
    def session(self) -> HttpSession | None:
        """HTTP session; None for files."""

    @property
    def item_root(self) -> str | None:
        """Address of the collection's items at an API; None if there is none."""

    def pages(self, window: Window, bbox: BBox | None, window_count: WindowCount) -> Iterator[list[Any]]:
        """Pages of STAC item dictionaries whose time lies in the window or is unknown, and that meet ``bbox`` (degrees; None: anywhere)."""

    def require_collection(self) -> None:
        """Raise ``CatalogUnavailable`` if the collection does not exist; called after a scan without items."""

    def total(self, window: Window, bbox: BBox | None) -> int:
        """Number of matching items; without totals a lower bound."""

    def newest(self) -> dt.datetime | None:
        """Time of the newest item of a dump; None for a live source."""
