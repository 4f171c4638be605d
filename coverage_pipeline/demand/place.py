"""What there is of any place: scenes listed, held and missing, month by month, with the action and its reason.

The same figures as the target statistics, for one outline and any window, read from the few row groups that lie near it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.partition_files import MATCHUP_COLUMNS, SCENE_COLUMNS
from coverage_pipeline.demand.target_knowledge import Knowledge
from coverage_pipeline.demand.target_rows import check_targets
from coverage_pipeline.demand.target_stats import target_statistics
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.holdings.metadata import HoldingsMetadata, HoldingsStatus
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA
from coverage_pipeline.matchup.metadata import MatchupMetadata
from coverage_pipeline.months import Month, window_months
from coverage_pipeline.scenes.metadata import ScenesMetadata
from coverage_pipeline.scenes.schema import ScanStatus
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_near, read_parquet, read_rows_of

DEFAULT_RADIUS_KM = 1.0
_READERS = 4
_LISTED = [*SCENE_COLUMNS, "item_href", "item_ids", "provider", "bbox"]


@dataclass(frozen=True)
class PlaceScene:
    """A listed scene over the place."""

    scene_key: str
    day: int
    """UTC day of the month."""
    share: float
    """Of the place's area under the scene."""
    cloud_cover: float | None
    """Percent of the scene, not of the place; None: not known."""
    clear: bool | None
    held: bool | None
    """Whole; None: the holdings are not known."""
    item_href: str | None
    provider: str | None
    footprint: shapely.Geometry
    """In degrees, cut at the antimeridian."""


@dataclass(frozen=True)
class PlaceMonth:
    """One sensor and month over the place."""

    sensor: str
    month: Month
    available_days: frozenset[int] | None
    """Days on which the listed scenes together cover the place; None: not known. The others likewise."""
    clear_days: frozenset[int] | None
    held_days: frozenset[int] | None
    held_clear_days: frozenset[int] | None
    ingestable_days: frozenset[int] | None
    check_days: frozenset[int] | None
    desired: float
    deficit: int | None
    action: str
    why: str
    """The reason of the action, a sentence."""
    known: str
    """How well the month is known, a sentence."""
    scan_status: ScanStatus | None
    """None: the catalogue of this month was never looked at. The next likewise."""
    holdings_status: HoldingsStatus | None
    too_large: bool
    """No single pass of the sensor can cover the place, so no day ever counts."""
    scenes: tuple[PlaceScene, ...]

    @property
    def remaining(self) -> int | None:
        """Clear observations that no download adds; None: not known."""
        if self.deficit is None or self.ingestable_days is None:
            return None
        return max(0, self.deficit - len(self.ingestable_days))

    def as_json(self) -> dict[str, Any]:
        """Plain values: sorted lists of days, the month as YYYY-MM, footprints as GeoJSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"month": self.month.key}
        values["scenes"] = [
            {f.name: getattr(scene, f.name) for f in dataclasses.fields(scene)} | {"footprint": shapely.geometry.mapping(scene.footprint)}
            for scene in self.scenes
        ]
        return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}


@dataclass(frozen=True)
class PlaceReport:
    """All months of all sensors over one place."""

    geometry: shapely.Geometry
    """The outline that was asked for, valid and cut at the antimeridian."""
    area_km2: float
    months: tuple[PlaceMonth, ...]
    """By sensor, then by month."""

    def of(self, sensor: str) -> tuple[PlaceMonth, ...]:
        """The months of one sensor."""
        return tuple(month for month in self.months if month.sensor == sensor)


@dataclass(frozen=True)
class Wait:
    """The longest stretch of days without an observation."""

    days: int
    unknown_months: int
    """Months of the window that are not known; a wait is looked for on either side of them, so the true one may be longer."""


def longest_wait(months: Sequence[tuple[Month, frozenset[int] | None]]) -> Wait | None:
    """The longest run of days without an observation over months in order, each with the days observed (None: not known).

    Runs go on from one month to the next, as ``grid.daymask.longest_wait`` counts them within one. None where no month is known.
    """
    longest = run = 0
    for month, days in months:
        if days is None:
            run = 0
            continue
        for day in range(1, month.days + 1):
            run = 0 if day in days else run + 1
            longest = max(longest, run)
    unknown = sum(days is None for _, days in months)
    return None if unknown == len(months) else Wait(longest, unknown)


def outline_of(geometry: shapely.Geometry, radius_km: float = 0.0) -> Targets:
    """One place as targets of one row; a point or line needs a radius.

    Raises ``LocationsError`` for an outline that cannot be used.
    """
    table = gpd.GeoDataFrame({"id": ["place"], "buffer_km": [radius_km]}, geometry=[geometry], crs="EPSG:4326")
    usable, problems = check_targets(table, ())
    if problems:
        reason = problems[0].reason.replace("a buffer_km", "a radius (--radius-km)")
        raise LocationsError(f"the place {reason}; give another outline")
    return Targets(usable, "place")


def place(
    geometry: shapely.Geometry | Targets,
    start: str | dt.date,
    end: str | dt.date,
    sensors: Sequence[CoverageSensor],
    *,
    store: Store,
    desired: Mapping[str, float],
    cloud_lt: float = 10.0,
    radius_km: float = 0.0,
    in_group: Collection[str] = (),
) -> PlaceReport:
    """What there is of a place in a window (whole months) of some sensors.

    ``geometry`` is in degrees of longitude and latitude. ``radius_km`` grows it; a point or line needs one. One target (``Targets`` of one
    row) in its place keeps its own cadence, season and share to be covered. ``desired`` is each sensor's cadence, clear observations a
    month, for all other places; sensors ``in_group`` want only what a target asks of them by name. A month whose files are not there is
    not known; it says which step would change that.

    Raises ``LocationsError`` for an outline that cannot be used, ``StoreError`` for a file that is damaged.
    """
    targets = geometry if isinstance(geometry, Targets) else outline_of(geometry, radius_km)
    (outline,) = targets.table.geometry
    boxes = shapely.bounds(shapely.get_parts(outline)).tolist()
    parts = [(sensor, month) for sensor in sensors for month in window_months(start, end)]
    with ThreadPoolExecutor(_READERS) as readers:  # files are read while others are computed
        months = readers.map(
            lambda part: _month(part[0], part[1], store, targets, boxes, cloud_lt, desired[part[0].key], part[0].key in in_group), parts
        )
        return PlaceReport(outline, float(targets.table["area_km2"].iloc[0]), tuple(months))


def _month(
    sensor: CoverageSensor, month: Month, store: Store, targets: Targets, boxes: list[list[float]], cloud_lt: float,
    desired: float, in_group: bool,
) -> PlaceMonth:  # fmt: skip
    scenes_file, holdings_file, matchup_file = (of(sensor.key, month) for of in (store.scenes, store.holdings, store.matchup))
    files = (("availability", scenes_file), ("holdings", holdings_file), ("matchup", matchup_file))
    lacking = [name for name, path in files if not path.exists()]
    if lacking:
        return _not_made(sensor, month, desired, lacking)
    scenes, stored, groups = read_near(scenes_file, boxes, _LISTED)
    scan = ScenesMetadata.of(stored)
    matchup, stored = read_rows_of(matchup_file, groups, MATCHUP_COLUMNS)
    match = MatchupMetadata.of(stored)
    holdings, stored, _ = read_near(holdings_file, boxes, [*HOLDINGS_SCHEMA.names, "bbox"])
    extract = HoldingsMetadata.of(stored)
    if (match.scan_run, match.holdings_run) != (scan.run, extract.run):
        return _not_made(sensor, month, desired, ["matchup (made from another scan or extract)"])
    holdings = _near(holdings, boxes)
    if holdings.num_rows:
        owned = pc.list_flatten(matchup["holdings"])
        elsewhere = pc.invert(pc.is_in(holdings["holding"], value_set=owned.combine_chunks()))
        if pc.any(elsewhere).as_py():  # of a scene that lies elsewhere, or of none
            everywhere, _ = read_parquet(matchup_file, ["holdings"])
            all_owned = pc.list_flatten(everywhere["holdings"]).combine_chunks()
            keep = pc.or_(pc.invert(elsewhere), pc.invert(pc.is_in(holdings["holding"], value_set=all_owned)))
            holdings = holdings.filter(keep)
    near = _meets(scenes, boxes)
    scenes, matchup = scenes.filter(near), matchup.filter(near)
    known = Knowledge(scan.status, scan.bbox, extract.status)
    (row,) = target_statistics(
        targets, scenes, matchup, holdings, sensor, month, known, cloud_lt=cloud_lt, default_desired=desired, in_group=in_group
    ).to_pylist()
    return _of_row(sensor, month, row, scenes, scan, extract)


def _meets(table: pa.Table, boxes: list[list[float]]) -> pa.Array:
    corner = {name: pc.struct_field(table["bbox"], name) for name in ("xmin", "ymin", "xmax", "ymax")}
    result = pa.array(np.zeros(table.num_rows, bool))
    for west, south, east, north in boxes:
        inside = pc.and_(
            pc.and_(pc.less_equal(corner["xmin"], east), pc.greater_equal(corner["xmax"], west)),
            pc.and_(pc.less_equal(corner["ymin"], north), pc.greater_equal(corner["ymax"], south)),
        )
        result = pc.or_(result, inside)
    return result


def _near(holdings: pa.Table, boxes: list[list[float]]) -> pa.Table:
    return holdings.filter(_meets(holdings, boxes)).select(HOLDINGS_SCHEMA.names)


def _of_row(
    sensor: CoverageSensor, month: Month, row: dict[str, Any], scenes: pa.Table, scan: ScenesMetadata, extract: HoldingsMetadata
) -> PlaceMonth:
    columns = {name: scenes[name].to_pylist() for name in ("scene_key", "cloud_cover", "item_href", "provider", "geometry")}
    at = {key: k for k, key in enumerate(columns["scene_key"])}
    listed = tuple(
        PlaceScene(
            scene_key=s["scene_key"],
            day=s["day"],
            share=s["share"],
            cloud_cover=columns["cloud_cover"][at[s["scene_key"]]],
            clear=s["clear"],
            held=s["held"],
            item_href=columns["item_href"][at[s["scene_key"]]],
            provider=columns["provider"][at[s["scene_key"]]],
            footprint=shapely.from_wkb(columns["geometry"][at[s["scene_key"]]]),
        )
        for s in row["scenes"]
    )
    return PlaceMonth(
        sensor=sensor.key,
        month=month,
        available_days=_days(row["available_days"]),
        clear_days=_days(row["clear_days"]),
        held_days=_days(row["held_days"]),
        held_clear_days=_days(row["held_clear_days"]),
        ingestable_days=_days(row["ingestable_days"]),
        check_days=_days(row["check_days"]),
        desired=row["desired"],
        deficit=row["deficit"] if row["deficit"] >= 0 else None,
        action=row["action"],
        why=_why(sensor, row, scan, extract),
        known=_known(row, scan, extract),
        scan_status=scan.status,
        holdings_status=extract.status,
        too_large=row["too_large"],
        scenes=listed,
    )


def _days(mask: int) -> frozenset[int] | None:
    return None if mask & int(UNKNOWN) else frozenset(day for day in range(1, 32) if mask >> (day - 1) & 1)


def _count(mask: int, noun: str) -> str:
    number = mask.bit_count()
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _why(sensor: CoverageSensor, row: dict[str, Any], scan: ScenesMetadata, extract: HoldingsMetadata) -> str:
    """The reason of the action in a sentence."""
    missing = f"{row['deficit']} of {row['desired']:g} clear observations are missing"
    match row["action"]:
        case "out_of_scope":
            return f"{sensor.title or sensor.key} cannot image this place in this month."
        case "met":
            if row["desired"] == 0:
                return "Nothing is wanted in this month."
            return f"{_count(row['held_clear_days'], 'clear day')} held, {row['desired']:g} wanted."
        case "ingest":
            return f"{missing}; clear scenes of {_count(row['ingestable_days'], 'day')} exist and are not held: download them."
        case "check":
            return f"{missing}; scenes of {_count(row['check_days'], 'day')} have no known cloud cover: look at them first."
        case "task":
            asked = "no catalogue can be asked" if scan.status == "not_applicable" else "the catalogue has no other clear scene"
            return f"{missing}; {asked}, and the sensor can be pointed: request an acquisition."
        case "none":
            return f"{missing}; the catalogue has no other clear scene, and the sensor cannot be pointed: wait for the next pass."
        case _ if not row["holdings_known"]:
            return f"The holdings are not known ({extract.status}: {extract.reason or 'no reason given'})."
        case _:
            area = "" if row["catalog_known"] else ", or does not cover this place"
            return f"{missing}; the scan is {scan.status}{area}: nothing follows from it."


def _known(row: dict[str, Any], scan: ScenesMetadata, extract: HoldingsMetadata) -> str:
    """How well the month is known, a sentence."""
    if scan.status == "not_applicable":
        listed = "no catalogue can be asked"
    else:
        area = "" if row["catalog_known"] else ", which does not cover this place whole"
        listed = f"{scan.status} scan of {scan.provider or 'no provider'} at {scan.scanned_at or 'an unknown time'}{area}"
    return f"Catalogue: {listed}. Holdings: {extract.status}, {extract.read_at}."


def _not_made(sensor: CoverageSensor, month: Month, desired: float, lacking: Sequence[str]) -> PlaceMonth:
    what = ", ".join(lacking)
    return PlaceMonth(
        sensor.key, month, None, None, None, None, None, None, desired, None, "unknown",
        f"Not known: {what} of this month is not there.",
        f"Not known: materialise {what} (coverage-planner build).",
        None, None, False, (),
    )  # fmt: skip
