"""Check the doubts of a scan with other providers of the same area."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from upath import UPath

from coverage_pipeline.catalog import belief
from coverage_pipeline.catalog.belief import Answer, Doubt
from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.providers import profile_of
from coverage_pipeline.catalog.report import ScanReport, stored_report
from coverage_pipeline.catalog.scan_job import SOURCES, ScanJob
from coverage_pipeline.catalog.sources.base import Source, Window, WindowCount
from coverage_pipeline.catalog.windows import ScannedWindows
from coverage_pipeline.geometry.bbox import BBox, split_bbox
from coverage_pipeline.months import NEIGHBOUR_MARGIN, UTC, Month
from coverage_pipeline.scenes.items import SceneCollector, by_reason
from coverage_pipeline.scenes.schema import NO_TIME
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor
from coverage_pipeline.storage.paths import sibling


def answer_of(job: ScanJob, source: AvailableSource, api: Source, gathered: ScannedWindows, report: ScanReport, scenes: pa.Table) -> Answer:
    """The result of a scan that read all its windows, as ``belief.doubts`` needs it."""
    parts = gathered.parts
    overfull, capped = (sum(getattr(part, name) for part in parts) for name in ("overfull", "capped"))
    timeless = report.rejected.get(NO_TIME, 0)
    reasons = {reason: count for reason, count in report.rejected.items() if reason != NO_TIME}
    totals = [
        (overfull, "searches returned more items than they announced"),
        (capped, "searches returned a round number of items, though the window was halved: the provider may cap its results"),
    ]
    hollow = ""
    if report.scenes == 0 and (job.bbox is None or job.sensor.systematic):
        if report.other_platform:
            hollow = (
                f"all {report.other_platform} items are of satellites other than {', '.join(source.platforms)}; check platforms in "
                f"[[sensors.sources.{job.sensor.key}]]"
            )
        elif not api.windowed:
            hollow = "though the dump has items of earlier and later months; a file may be missing"
    newest, read_at = api.newest(), dt.datetime.fromisoformat(report.scanned_at)
    return Answer(
        sensor=job.sensor,
        months=job.months,
        bbox=job.bbox,
        scenes=report.scenes,
        days=belief.distinct_days(belief.scene_days(scenes)),
        known_to=read_at if newest is None else min(read_at, newest),
        around=neighbouring_months(job.sensor, job.months, job.target, job.bbox),
        unplaced=belief.unplaced(
            came=report.received - report.repeated,
            timeless=timeless,
            rejected=sum(reasons.values()),
            foreign=sum(part.foreign for part in parts),
            most=max(reasons, key=lambda reason: reasons[reason], default=""),
        ),
        totals="; ".join(f"{count:,} {label}" for count, label in totals if count),
        twins=gathered.twins,
        hollow=hollow,
    )


def set_doubts(report: ScanReport, doubts: Sequence[Doubt], answers: Sequence[str]) -> None:
    """Write the remaining doubts, and the answers of other providers, into a report."""
    report.cross_check = "; ".join(answers)
    report.doubts = [str(doubt) for doubt in doubts]
    if doubts:
        report.status = "provisional"
        report.reason = "; ".join([*([report.reason] if report.reason else []), *report.doubts])


def ask_other_providers(
    job: ScanJob, source: AvailableSource, doubts: Sequence[Doubt], scenes: pa.Table
) -> tuple[list[Doubt], AvailableSource | None, list[str]]:
    """Search other providers of the area for scenes on the doubtful days.

    Returns the remaining doubts, the provider that confirms one, and their answers in words. The first scene found ends the search. A
    doubt is dropped only if every provider answers that it has no scene.
    """
    others = _others(job, source) if job.options.cross_check else []
    remaining: list[Doubt] = []
    answers: list[str] = []
    failures: dict[AvailableSource, str] = {}
    for position, doubt in enumerate(doubts):
        if not doubt.days:
            remaining.append(doubt)
            continue
        refuted = bool(others)
        for other in others:
            if other not in failures:
                try:
                    day = _scene_of(job, other, doubt, scenes)
                except CatalogError as error:
                    failures[other] = f"{other.provider} could not be searched: {error}"
                else:
                    if day is not None:
                        answers.append(f"{doubt}; {other.provider} has a scene of {day}")
                        return [*remaining, *doubts[position:]], other, answers
                    continue
            refuted = False
        if refuted:
            answers.append(f"{doubt}; {', '.join(other.provider for other in others)} has none either")
        else:
            remaining.append(doubt)
            answers.append("; ".join([str(doubt), *(dict.fromkeys(failures.values()) or ["no other provider covers the area"])]))
    return remaining, None, answers


def _others(job: ScanJob, source: AvailableSource) -> list[AvailableSource]:
    """Other sources that cover the whole area: one that covers a part could not remove a doubt."""
    others: list[AvailableSource] = []
    for other in job.sensor.available_sources:
        if any((other.endpoint, other.collection_id) == (known.endpoint, known.collection_id) for known in (source, *others)):
            continue
        if other.covers is not None:
            if job.bbox is None:
                continue
            try:
                job.within(other)
            except CatalogUnavailable:
                continue
        others.append(other)
    return others


def _scene_of(job: ScanJob, other: AvailableSource, doubt: Doubt, scenes: pa.Table) -> dt.date | None:
    """Day of the first usable scene of another provider on the doubtful days, in the area; None if it has none.

    Raises ``CatalogError`` if its answer is unreliable: not read in full, or with items that cannot be placed.
    """
    profile = profile_of(other, job.options.providers)
    patience = replace(job.options.patience, retries=min(1, job.options.patience.retries))
    api = SOURCES[other.kind](other, profile, patience, job.label)
    days = np.array(doubt.days, dtype="datetime64[D]")
    area = None if job.bbox is None else shapely.union_all([shapely.box(*box) for box in split_bbox(job.bbox)])
    excluded_keys = scenes["scene_key"] if doubt.new else None
    came = timeless = rejected = foreign = 0
    with api.session or contextlib.nullcontext():
        for first, last in _spans(doubt.days) if api.windowed else [(doubt.days[0], doubt.days[-1])]:
            start, end = (dt.datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (first, last + dt.timedelta(days=1)))
            window = Window(start - NEIGHBOUR_MARGIN, end + NEIGHBOUR_MARGIN, profile.page_size)
            placing, window_count = belief.Placing(window.start, window.end), WindowCount()
            for page in api.pages(window, job.bbox, window_count):
                # One collector per page, so that memory stays small.
                collector = SceneCollector(
                    job.sensor, provider=other.provider, cloud_field=other.cloud_field, platforms=other.platforms, start=start, end=end
                )
                collector.add(page)
                placing.add(page)
                day = _first_usable(collector.rows(), days, area, excluded_keys)
                if day is not None:
                    return day
                reasons = by_reason(collector.rejected())
                came += collector.received
                timeless += reasons.pop(NO_TIME, 0)
                rejected += sum(reasons.values())
            foreign += placing.foreign if api.windowed else 0
            if any(announced is not None and received > announced for received, announced in window_count.boxes):
                raise CatalogTruncated(f"{other.provider} returned more items than it announced")
        if not came:
            api.require_collection()
        newest = api.newest()
        if newest is not None and newest.date() <= doubt.days[-1]:
            raise CatalogTruncated(f"its newest item is of {newest:%Y-%m-%d}")
    unplaced = belief.unplaced(came=came, timeless=timeless, rejected=rejected, foreign=foreign)
    if unplaced or rejected or foreign:
        raise CatalogUnreadable(unplaced or f"{rejected + foreign} of its items cannot be placed")
    return None


def _first_usable(rows: pa.Table, days: np.ndarray[Any, Any], area: Any, excluded_keys: pa.ChunkedArray | None) -> dt.date | None:
    """Day of the first row on one of the days, in the area, whose scene key is not in ``excluded_keys``; None if there is none."""
    if rows.num_rows == 0:
        return None
    row_days = belief.scene_days(rows)
    wanted = np.isin(row_days, days)
    if excluded_keys is not None:
        wanted &= ~pc.is_in(rows["scene_key"], value_set=excluded_keys.combine_chunks()).to_numpy()
    matches = np.flatnonzero(wanted)
    if area is not None and matches.size:
        shapes = shapely.from_wkb(rows["geometry"].to_numpy()[matches])
        matches = matches[shapely.intersects(shapes, area)]
    day: dt.date | None = row_days[matches[0]].item() if matches.size else None
    return day


def _spans(days: Sequence[dt.date]) -> list[tuple[dt.date, dt.date]]:
    """First and last day of each run of consecutive days."""
    spans: list[tuple[dt.date, dt.date]] = []
    for day in days:
        if spans and day - spans[-1][1] == dt.timedelta(days=1):
            spans[-1] = spans[-1][0], day
        else:
            spans.append((day, day))
    return spans


def neighbouring_months(sensor: CoverageSensor, months: Sequence[Month], target: UPath, bbox: BBox | None) -> list[int]:
    """Scene counts of the complete neighbouring months, of the same area; empty for a window of several months."""
    if len(months) != 1:
        return []
    counts = []
    for distance in range(1, belief.MONTHS_AROUND + 1):
        for neighbour in (months[0].shift(-distance), months[0].shift(distance)):
            report = stored_report(sibling(target.parent / f"{neighbour.key}.parquet", ".scan.json"))
            if report is not None and report.sensor == sensor.key and report.status == "complete" and report.bbox == _listed(bbox):
                counts.append(report.scenes)
    return counts


def _listed(bbox: BBox | None) -> list[float] | None:
    return None if bbox is None else [float(side) for side in bbox]
