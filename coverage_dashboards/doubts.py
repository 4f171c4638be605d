"""The doubts of provisional months, from the scan reports that stand beside the scenes (design section 6).

A scan that read all its windows may still be doubted: a month that stops on the 17th, an answer far thinner than its neighbours'. The
page names these doubts for the sensors and months it shows, so that a zero of theirs is not taken for a known none.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from coverage_dashboards.choices import View, title_of
from coverage_dashboards.escape import plain
from coverage_dashboards.words import month_in_words
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store

SHOWN = 3
"""Partitions whose doubts are named; the others are counted."""
LARGEST_REPORT = 8 << 20
"""Bytes. A scan report has some kilobytes; one that lists thousands of missing windows is still far smaller."""
LONGEST_DOUBT = 240
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def provisional_partitions(view: View, ds: xr.Dataset) -> list[tuple[str, Month]]:
    """The chosen sensors and months whose scan is provisional, newest month first."""
    months = [view.month] if view.aggregation == "scrub" else view.months
    status = ds["scan_status"].sel(sensor=list(view.sensors), time=[m.to_datetime64() for m in months]).values
    provisional = np.argwhere(status == SCAN_STATUS.index("provisional"))
    return sorted(((view.sensors[s], months[t]) for s, t in provisional), key=lambda part: (part[1], part[0]), reverse=True)


def doubts_in_words(partitions: Sequence[tuple[str, Month]], ds: xr.Dataset, store: Store | None) -> list[str]:
    """One line for each of the first partitions, and one for the number of the others."""
    lines = []
    for sensor, month in partitions[:SHOWN]:
        report = scan_report_of(store, ds, sensor, month) if store is not None else None
        doubts = report.doubts if report is not None else ()
        text = "; ".join(plain(doubt, LONGEST_DOUBT).rstrip(".;") for doubt in doubts) or "its scan report is not at hand"
        lines.append(f"{title_of(sensor)}, {month_in_words(month)}: {text}")
    if (more := len(partitions) - SHOWN) > 0:
        lines.append(f"and {more} more provisional {'month' if more == 1 else 'months'}")
    return lines


def _scanned_at(ds: xr.Dataset, sensor: str, month: Month) -> int | None:
    """When the scan was made that the cube shows, in seconds since 1970."""
    value = ds["scanned_at"].sel(sensor=sensor, time=month.to_datetime64()).values
    if value.dtype.kind == "M":
        return None if np.isnat(value) else int(value.astype("datetime64[s]").astype(np.int64))
    return None if not np.isfinite(value) else int(value)


@dataclass(frozen=True)
class ScanSaid:
    """What a scan report says that the cube does not."""

    scanned_at: str
    """UTC, ISO 8601."""
    doubts: tuple[str, ...]
    rejected: int
    """Items that could not be used."""
    bbox: str
    """Where it looked, in words."""


def scan_report_of(store: Store, ds: xr.Dataset, sensor: str, month: Month) -> ScanSaid | None:
    """The report of the scan that the cube shows; None where it is not there, is another scan's, or cannot be read."""
    return _report(store, sensor, month, _scanned_at(ds, sensor, month))


@lru_cache(maxsize=4096)
def _report(store: Store, sensor: str, month: Month, scanned_at: int | None) -> ScanSaid | None:
    if not _FILE_NAME.fullmatch(sensor):  # a cube's sensors may have any name, and a path is made of it
        return None
    try:
        with sibling(store.scenes(sensor, month), ".scan.json").open("rb") as file:
            text = file.read(LARGEST_REPORT + 1)
        report: Any = json.loads(text) if len(text) <= LARGEST_REPORT else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or scanned_at is None or _instant(report.get("scanned_at")) != scanned_at:
        return None
    given = report.get("doubts")
    if not isinstance(given, list) or not given:
        given = [report.get("reason")]  # reports of an older version
    doubts = tuple(doubt for doubt in given if isinstance(doubt, str) and doubt.strip())
    rejected, box = report.get("rejected"), report.get("bbox")
    count = sum(n for n in rejected.values() if isinstance(n, int)) if isinstance(rejected, dict) else 0
    some = isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
    where = f"within {', '.join(f'{v:g}' for v in box)}" if some and box else "everywhere"
    return ScanSaid(str(report["scanned_at"]), doubts, count, where)


def _instant(text: Any) -> int | None:
    try:
        return int(dt.datetime.fromisoformat(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None
