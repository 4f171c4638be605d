"""The doubts of a scan, put to other providers that cover the same area."""

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
    """What belief needs of a scan that read all its windows."""
    parts = gathered.parts
    overfull, capped = (sum(getattr(part, name) for part in parts) for name in ("overfull", "capped"))
    timeless = report.rejected.get(NO_TIME, 0)
    reasons = {reason: count for reason, count in report.rejected.items() if reason != NO_TIME}
    totals = [
        (overfull, "searches gave more items than were announced for them"),
        (capped, "searches end on a round number of items however short they are, as if the provider stopped there"),
    ]
    hollow = ""
    if report.scenes == 0 and (job.bbox is None or job.sensor.systematic):
        if report.other_platform:
            hollow = (
                f"all {report.other_platform} items are of other satellites than {', '.join(source.platforms)}; check platforms in "
                f"[[sensors.sources.{job.sensor.key}]]"
            )
        elif not api.windowed:
            hollow = "though the dump has items of earlier and later months: a file may be missing"
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


def set_doubts(report: ScanReport, found: Sequence[Doubt], said: Sequence[str]) -> None:
    """Write the doubts that stay, and what others said of all, into a report."""
    report.cross_check = "; ".join(said)
    report.doubts = [str(doubt) for doubt in found]
    if found:
        report.status = "provisional"
        report.reason = "; ".join([*([report.reason] if report.reason else []), *report.doubts])


def ask_other_providers(
    job: ScanJob, source: AvailableSource, found: Sequence[Doubt], scenes: pa.Table
) -> tuple[list[Doubt], AvailableSource | None, list[str]]:
    """The doubts that stay after the other providers of the area were asked, who confirms one, and what they said.

    The first scene found ends the asking. A doubt goes only where every provider answers that there is nothing.
    """
    others = _others(job, source) if job.options.cross_check else []
    stays: list[Doubt] = []
    text: list[str] = []
    away: dict[AvailableSource, str] = {}
    for at, doubt in enumerate(found):
        if not doubt.days:
            stays.append(doubt)
            continue
        silenced = bool(others)
        for other in others:
            if other not in away:
                try:
                    has = _scene_of(job, other, doubt, scenes)
                except CatalogError as error:
                    away[other] = f"{other.provider} could not be asked: {error}"
                else:
                    if has is not None:
                        text.append(f"{doubt}; {other.provider} has a scene of {has}")
                        return [*stays, *found[at:]], other, text
                    continue
            silenced = False
        if silenced:
            text.append(f"{doubt}; {', '.join(other.provider for other in others)} has none either")
        else:
            stays.append(doubt)
            text.append("; ".join([str(doubt), *(dict.fromkeys(away.values()) or ["there is no other provider to ask"])]))
    return stays, None, text


def _others(job: ScanJob, source: AvailableSource) -> list[AvailableSource]:
    """Providers other than a source that cover the whole area: one that lists a part of it says nothing of the rest."""
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
    """The day of the first usable scene that another provider has on the doubtful days, in the area; None where it has none.

    Raises ``CatalogError`` where its answer cannot be relied on: it was not read in full, or has items that cannot be placed.
    """
    profile = profile_of(other, job.options.providers)
    quick = replace(job.options.patience, retries=min(1, job.options.patience.retries))
    api = SOURCES[other.kind](other, profile, quick, job.label)
    days = np.array(doubt.days, dtype="datetime64[D]")
    area = None if job.bbox is None else shapely.union_all([shapely.box(*box) for box in split_bbox(job.bbox)])
    own = scenes["scene_key"] if doubt.new else None
    came = timeless = rejected = foreign = 0
    with api.session or contextlib.nullcontext():
        for first, last in _spans(doubt.days) if api.windowed else [(doubt.days[0], doubt.days[-1])]:
            start, end = (dt.datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (first, last + dt.timedelta(days=1)))
            window = Window(start - NEIGHBOUR_MARGIN, end + NEIGHBOUR_MARGIN, profile.page_size)
            placing, window_count = belief.Placing(window.start, window.end), WindowCount()
            for page in api.pages(window, job.bbox, window_count):
                # One collector a page: nothing is kept of what does not answer the question.
                collector = SceneCollector(
                    job.sensor, provider=other.provider, cloud_field=other.cloud_field, platforms=other.platforms, start=start, end=end
                )
                collector.add(page)
                placing.add(page)
                has = _first_usable(collector.rows(), days, area, own)
                if has is not None:
                    return has
                reasons = by_reason(collector.rejected())
                came += collector.received
                timeless += reasons.pop(NO_TIME, 0)
                rejected += sum(reasons.values())
            foreign += placing.foreign if api.windowed else 0
            if any(announced is not None and received > announced for received, announced in window_count.boxes):
                raise CatalogTruncated(f"{other.provider} gave more items than it announced")
        if not came:
            api.require_collection()
        newest = api.newest()
        if newest is not None and newest.date() <= doubt.days[-1]:
            raise CatalogTruncated(f"its newest item is of {newest:%Y-%m-%d}")
    lost = belief.unplaced(came=came, timeless=timeless, rejected=rejected, foreign=foreign)
    if lost or rejected or foreign:
        raise CatalogUnreadable(lost or f"{rejected + foreign} of its items cannot be placed")
    return None


def _first_usable(rows: pa.Table, days: np.ndarray[Any, Any], area: Any, own_days: pa.ChunkedArray | None) -> dt.date | None:
    """The day of the first row that lies on one of the days, in the area, and is not among the scenes ``ours``."""
    if rows.num_rows == 0:
        return None
    of = belief.scene_days(rows)
    wanted = np.isin(of, days)
    if own_days is not None:
        wanted &= ~pc.is_in(rows["scene_key"], value_set=own_days.combine_chunks()).to_numpy()
    at = np.flatnonzero(wanted)
    if area is not None and at.size:
        shapes = shapely.from_wkb(rows["geometry"].to_numpy()[at])
        at = at[shapely.intersects(shapes, area)]
    day: dt.date | None = of[at[0]].item() if at.size else None
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
    """Scenes of the complete months around this one, of the same area; none for a window of several months."""
    if len(months) != 1:
        return []
    missing = []
    for distance in range(1, belief.MONTHS_AROUND + 1):
        for near in (months[0].shift(-distance), months[0].shift(distance)):
            report = stored_report(sibling(target.parent / f"{near.key}.parquet", ".scan.json"))
            if report is not None and report.sensor == sensor.key and report.status == "complete" and report.bbox == _listed(bbox):
                missing.append(report.scenes)
    return missing


def _listed(bbox: BBox | None) -> list[float] | None:
    return None if bbox is None else [float(side) for side in bbox]
