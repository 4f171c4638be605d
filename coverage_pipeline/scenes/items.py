"""Convert STAC items to scenes: one row per acquisition with footprint, time and cloud; unusable items are rejected with a reason.

Items arrive page by page and become flat columns, so that no item object stays in memory. Copies of a scene are merged once, at the
end, newest first: a copy adds the area that newer copies do not cover. A reprocessing therefore adds nothing, and a part adds its area.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely

from coverage_pipeline.geometry.footprints import area_km2, normalise_footprints
from coverage_pipeline.months import NEIGHBOUR_MARGIN
from coverage_pipeline.scenes.copies import merge_copies
from coverage_pipeline.scenes.item_fields import (
    digest_of,
    geometry_of,
    is_usable,
    nodata_percent,
    parse_cloud,
    read_geometries,
    self_href,
    shown_json,
    text_of,
)
from coverage_pipeline.scenes.scene_key import SceneIdentity, parse_time, scene_identity
from coverage_pipeline.scenes.schema import DEFAULT_CLOUD_FIELD, NO_TIME, REJECTED_ROWS_SCHEMA, REJECTED_SCHEMA, ROWS_SCHEMA
from coverage_pipeline.sensors.registry import CoverageSensor, is_satellite_name, platform_name


def _count(counter: Counter[str], name: str) -> None:
    """Count under a name that a catalogue wrote. The number and length of the names are limited, so that a report stays small."""
    name = name[:_NAME_LENGTH]
    counter[name if name in counter or len(counter) < _NAMES_KEPT else _OTHER_NAMES] += 1


def other_platform(wanted: Collection[str], platform: str | None, in_id: str | None) -> str | None:
    """The satellite of an item that is none of ``wanted``; None if it is wanted.

    ``wanted`` has the spelling of ``platform_name``; empty: all are wanted. ``platform`` is the item's, ``in_id`` the satellite in its
    id. The id decides if ``platform`` names no known satellite.
    """
    name = platform_name(platform) if platform is not None else None
    if not wanted or name in wanted:
        return None
    if name is None:
        return in_id if in_id is not None and in_id not in wanted else None
    return None if not is_satellite_name(name) and in_id in wanted else platform


_FIRST_INSTANT, _LAST_INSTANT = (limit.replace(tzinfo=dt.UTC) for limit in (dt.datetime.min, dt.datetime.max))
_NAMES_KEPT = 50
_NAME_LENGTH = 60
"""Limits of the counters: platforms named, and characters per name. The names come from the catalogue."""
_OTHER_NAMES = "(others)"


class SceneCollector:
    """Gathers pages of items into columns; ``finish`` merges the copies.

    ``in_month`` is true if ``start <= pass_time < end``. Rows of the hour before or after the window are kept with ``in_month`` false.
    Other rows are only counted, as ``outside``.
    """

    def __init__(
        self,
        sensor: CoverageSensor,
        *,
        provider: str | None = None,
        cloud_field: str | None = None,
        platforms: tuple[str, ...] = (),
        start: dt.datetime | None = None,
        end: dt.datetime | None = None,
        item_root: str | None = None,
    ) -> None:
        """``item_root``: address of the API's items, which replaces the relative links that some APIs give. ``start``, ``end``: UTC."""
        self.sensor = sensor
        self.item_root = item_root
        self.provider = provider
        self.cloud_field = cloud_field or DEFAULT_CLOUD_FIELD
        self._wanted = frozenset(platform_name(name) for name in platforms)
        self.start, self.end = start, end
        self._from = None if start is None else max(start, _FIRST_INSTANT + NEIGHBOUR_MARGIN) - NEIGHBOUR_MARGIN
        self._until = None if end is None else min(end, _LAST_INSTANT - NEIGHBOUR_MARGIN) + NEIGHBOUR_MARGIN
        self.outside = 0
        self.platforms: Counter[str] = Counter()
        """Usable items of the window by platform, as the catalogue writes it."""
        self.other_platforms: Counter[str] = Counter()
        """Items of other satellites, left out, by platform as the catalogue writes it, else as the id states it."""
        self.duplicates = 0
        self.superseded = 0
        self.united = 0
        self._seen: set[str] = set()
        self._unnamed = 0
        self._tables: list[pa.Table] = []
        self._rejected: list[dict[str, Any]] = []

    def add(self, items: Iterable[Any]) -> int:
        """Add a page of items; returns the number of new items (with an id not seen before)."""
        new = 0
        rows: list[dict[str, Any]] = []
        texts: list[str | bytes | None] = []
        for item in items:
            item_id = item.get("id") if isinstance(item, dict) else None
            if not is_usable(item_id):
                self._unnamed += 1
            elif item_id in self._seen:
                self.duplicates += 1
                continue
            else:
                self._seen.add(item_id)
            new += 1
            row = self._row(item)
            if row is None:
                continue
            text, row["geometry_source"] = geometry_of(item)
            rows.append(row)
            texts.append(text)
        if rows:
            self._add_rows(rows, texts)
        return new

    def _row(self, item: Any) -> dict[str, Any] | None:
        if not isinstance(item, dict):
            self._reject({}, "not a STAC item", digest=digest_of(item))
            return None
        properties = item.get("properties")
        item_id = item.get("id")
        if not isinstance(properties, dict) or not is_usable(item_id):
            self._reject(item, "not a STAC item: id or properties missing", digest=digest_of(item))
            return None
        datetime, start, end = (parse_time(properties.get(name)) for name in ("datetime", "start_datetime", "end_datetime"))
        identity: SceneIdentity = scene_identity(self.sensor.family, item_id, properties, datetime or start)
        platform = text_of(properties.get("platform"))
        other = other_platform(self._wanted, platform, identity.platform)
        if other is not None:  # count it as another satellite's before any rejection: its defects do not concern this sensor
            _count(self.other_platforms, other)
            return None
        acquired = datetime or start or identity.stated
        pass_time = identity.pass_time or acquired
        if acquired is None or pass_time is None:
            raw_time = properties.get("datetime") or properties.get("start_datetime")
            excerpt = repr(text_of(raw_time[:40])) if isinstance(raw_time, str) else shown_json(raw_time)[:40]
            self._reject(item, NO_TIME if raw_time is None else f"time cannot be read: {excerpt}")
            return None
        if (self._from is not None and pass_time < self._from) or (self._until is not None and pass_time >= self._until):
            self.outside += 1
            return None
        raw = properties.get(self.cloud_field)
        return {
            "scene_key": identity.key or item_id,
            "item_ids": [item_id],
            "item_href": self._href(item),
            "collection": text_of(item.get("collection")),
            "provider": self.provider,
            "platform": platform,
            "acquired": acquired,
            "pass_time": pass_time,
            "datetime": datetime,
            "start_datetime": start,
            "end_datetime": end,
            "in_month": (self.start is None or pass_time >= self.start) and (self.end is None or pass_time < self.end),
            "cloud_cover": parse_cloud(raw),
            "cloud_raw": None if raw is None else shown_json(raw)[:100],
            "copies": None,
            "item_id": item_id,
            "rank": text_of("\x1f".join(identity.rank)),
            "baseline": identity.baseline,
            "nodata": nodata_percent(properties),
        }

    def _href(self, item: Mapping[str, Any]) -> str | None:
        """Address of the item. A relative link is replaced by the address below ``item_root``."""
        href = text_of(self_href(item.get("links")))
        if href is None or "://" in href or self.item_root is None:
            return href
        item_id = text_of(item.get("id"))
        return f"{self.item_root}/{quote(item_id, safe='')}" if item_id else None

    def _add_rows(self, rows: list[dict[str, Any]], texts: list[str | bytes | None]) -> None:
        geometries = read_geometries(texts)
        footprints, reasons = normalise_footprints(geometries)
        max_km2 = self.sensor.max_scene_km2
        if max_km2 is not None:
            area = area_km2(footprints)
            for k in np.flatnonzero(area > max_km2):
                footprints[k] = None
                reasons[k] = f"impossible area: more than the {max_km2:,.0f} km² of the largest scene"
        for k in np.flatnonzero(shapely.is_missing(footprints)):
            unreadable = texts[k] is not None and geometries[k] is None
            reason = "geometry cannot be read" if unreadable else str(reasons[k])
            self._reject({"id": rows[k]["item_id"], "collection": rows[k]["collection"]}, reason, rows[k]["item_href"])
        usable = ~shapely.is_missing(footprints)
        if not usable.any():
            return
        kept = [row for row, ok in zip(rows, usable, strict=True) if ok]
        for row in kept:
            if row["in_month"] and row["platform"]:
                _count(self.platforms, row["platform"])
        columns: dict[str, Any] = {name: [row[name] for row in kept] for name in ROWS_SCHEMA.names if name != "geometry"}
        for name in ("cloud_cover", "nodata"):
            columns[name] = pa.array(columns[name], pa.float64(), from_pandas=True)
        columns["geometry"] = shapely.to_wkb(footprints[usable])
        self._tables.append(pa.table(columns, schema=ROWS_SCHEMA))

    def _reject(self, item: Mapping[str, Any], reason: str, href: str | None = None, *, digest: str | None = None) -> None:
        item_id = text_of(item.get("id"))
        self._rejected.append(
            {
                "item_id": item_id,
                "collection": text_of(item.get("collection")),
                "provider": self.provider,
                "item_href": href or self._href(item),
                "reason": reason,
                "digest": digest or f"{item_id} {reason}",
            }
        )

    @property
    def other_platform(self) -> int:
        """Number of items of other satellites, left out."""
        return self.other_platforms.total()

    @property
    def received(self) -> int:
        """Number of distinct items added so far."""
        return len(self._seen) + self._unnamed

    def ends(self) -> tuple[dt.datetime, dt.datetime] | None:
        """Acquisition times of the first and the last usable item, in order of arrival; None if there is none."""
        if not self._tables:
            return None
        return self._tables[0]["acquired"][0].as_py(), self._tables[-1]["acquired"][-1].as_py()

    def rows(self) -> pa.Table:
        """Usable items (``ROWS_SCHEMA``) before their copies are merged."""
        return pa.concat_tables([ROWS_SCHEMA.empty_table(), *self._tables])

    def rejected_rows(self) -> pa.Table:
        """Rejected items (``REJECTED_ROWS_SCHEMA``)."""
        return pa.Table.from_pylist(self._rejected, schema=REJECTED_ROWS_SCHEMA)

    def rejected(self) -> pa.Table:
        """Rejected items (``REJECTED_SCHEMA``)."""
        return self.rejected_rows().select(REJECTED_SCHEMA.names)

    def finish(self) -> pa.Table:
        """Merged scenes (``SCENES_SCHEMA``), one row per scene, sorted by pass time and key."""
        merged, self.superseded, self.united = merge_copies(self.rows())
        return in_order(merged)


def in_order(scenes: pa.Table) -> pa.Table:
    """Scenes sorted by pass time and key, so that the result does not depend on the order of arrival."""
    return scenes.sort_by([("pass_time", "ascending"), ("scene_key", "ascending")])


def by_reason(rejected: pa.Table) -> dict[str, int]:
    """Number of rejected items by reason, sorted by reason."""
    return dict(sorted(Counter(rejected["reason"].to_pylist()).items()))


def first_of_each(table: pa.Table, column: str) -> pa.Table:
    """The first row of each value of a column: adjacent windows of a scan share an end, and return its items twice."""
    repeated = table[column].to_pandas().duplicated().to_numpy()
    return table.filter(pa.array(~repeated)) if repeated.any() else table


def scenes_from_items(items: Iterable[Mapping[str, Any]], sensor: CoverageSensor) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Convert STAC item dictionaries to scenes and rejected items, with the code of the scanner.

    Returns two GeoDataFrames: scenes (``SCENES_SCHEMA``, EPSG:4326), one row per merged scene, and rejected items (``REJECTED_SCHEMA``
    with an empty geometry column). Every item is in exactly one of them, except that copies of a scene share a row, and items of other
    satellites of a shared collection are in neither.
    """
    source = sensor.available_sources[0] if sensor.available_sources else None
    collector = SceneCollector(
        sensor,
        cloud_field=source.cloud_field if source else None,
        platforms=source.platforms if source else (),
    )
    collector.add(items)
    scenes = as_geodataframe(collector.finish())
    rejected = collector.rejected().to_pandas()
    return scenes, gpd.GeoDataFrame(rejected, geometry=gpd.GeoSeries([None] * len(rejected)), crs="EPSG:4326")


def as_geodataframe(table: pa.Table) -> gpd.GeoDataFrame:
    """A table with a WKB ``geometry`` column as a GeoDataFrame in EPSG:4326."""
    frame = table.drop_columns(["geometry"]).to_pandas()
    geometry = gpd.GeoSeries(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)), crs="EPSG:4326")
    return gpd.GeoDataFrame(frame, geometry=geometry)
