"""STAC items made into scenes: one row an acquisition, with its own footprint, time and cloud; the rest rejected with a reason.

Items arrive page by page and leave as flat columns, so that no object of them stays. Copies of a scene are merged once, at
the end: reprocessings give way to the newest, parts of one Sentinel-2 tile and datatake are united.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from coverage_pipeline.catalog.scene_key import SceneIdentity, parse_time, scene_identity
from coverage_pipeline.footprints import area_km2, normalise_footprints
from coverage_pipeline.sensors import CoverageSensor

TIME = pa.timestamp("us", tz="UTC")
DEFAULT_CLOUD_FIELD = "eo:cloud_cover"
"""Where a source names no property of its own: the one of the STAC EO extension."""

NO_TIME = "no time"
"""Why an item is rejected that belongs to no month."""

SCENES_VERSION = 1
"""Version of the scenes file's columns and metadata."""

SCENES_SCHEMA = pa.schema(
    [
        pa.field("scene_key", pa.string(), nullable=False),
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),
        pa.field("item_href", pa.string()),
        pa.field("collection", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("platform", pa.string()),
        pa.field("acquired", TIME, nullable=False),
        pa.field("datetime", TIME),
        pa.field("start_datetime", TIME),
        pa.field("end_datetime", TIME),
        pa.field("cloud_cover", pa.float64()),  # percent; null: not known
        pa.field("cloud_raw", pa.string()),  # as the provider wrote it, JSON
        pa.field("geometry_source", pa.string(), nullable=False),  # "footprint", or "bbox" where the item has no geometry
        pa.field("geometry", pa.binary(), nullable=False),  # WKB, EPSG:4326
    ]
)
ROWS_SCHEMA = (
    SCENES_SCHEMA.append(pa.field("item_id", pa.string(), nullable=False))
    .append(pa.field("part", pa.string()))  # Sentinel-2: sensing start of the datastrip
    .append(pa.field("rank", pa.string()))  # the largest is the newest copy
)
"""Usable items before their copies are merged: what a window of a scan leaves."""

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string()),
        pa.field("collection", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("item_href", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
REJECTED_ROWS_SCHEMA = REJECTED_SCHEMA.append(pa.field("digest", pa.string()))
"""The rejected of a window: the digest tells one that came in two windows from two that look alike."""


def parse_cloud(value: Any) -> float:
    """A cloud percentage, 0..100; strings are parsed, anything else (null, −1, 101, a flag) is NaN: not known."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        return math.nan  # Python reads "1_0" as 10
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if 0 <= number <= 100 else math.nan


def _text(value: Any) -> str | None:
    """Text that can be written; JSON may carry halves of characters (lone surrogates), which UTF-8 has not."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _is_usable(item_id: Any) -> TypeGuard[str]:
    return isinstance(item_id, str) and item_id != "" and item_id == _text(item_id)


def _digest(item: Any) -> str:
    """Tells items without a usable id apart."""
    try:
        return hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode("utf-8", "replace")).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return uuid.uuid4().hex


def _href(item: Mapping[str, Any]) -> str | None:
    links = item.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "self" and isinstance(link.get("href"), str):
            return _text(link["href"])
    return None


def _dumped(value: Any) -> str:
    """JSON text by the fast writer, which takes neither half characters nor integers beyond 64 bits, else by Python's; empty where that
    fails, too (nested too deeply, or a number of thousands of digits).
    """
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError, RecursionError):
        return _shown(value, otherwise="")


def _shown(value: Any, *, otherwise: str = "…") -> str:
    """A value as the provider wrote it, for people."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return otherwise


def _sides(bbox: list[Any]) -> list[Any]:
    """West, south, east, north of a box of 4 or 6 numbers."""
    return [bbox[k] for k in ((0, 1, 2, 3) if len(bbox) == 4 else (0, 1, 3, 4))]


def _geometry(item: Mapping[str, Any]) -> tuple[str | bytes | None, str]:
    """Footprint (GeoJSON text, or WKB as a file has it), and where it is from. A bounding box serves only where there is no geometry."""
    geometry = item.get("geometry")
    if isinstance(geometry, bytes):
        return geometry, "footprint"
    if geometry is not None:
        return _dumped(geometry), "footprint"
    bbox = item.get("bbox")
    # Beyond two turns no longitude means anything, and its box would have as many corners.
    if isinstance(bbox, list) and len(bbox) in (4, 6) and all(isinstance(v, int | float) and -720 <= v <= 720 for v in _sides(bbox)):
        west, south, east, north = _sides(bbox)
        if west > east:  # GeoJSON: across the antimeridian
            east += 360
        # No edge spans half a turn, which would be read the short way round.
        turn = np.linspace(west, east, max(2, math.ceil(abs(east - west) / 90) + 1)).tolist()
        ring = [[x, south] for x in turn] + [[x, north] for x in reversed(turn)] + [[west, south]]
        return json.dumps({"type": "Polygon", "coordinates": [ring]}), "bbox"
    return None, "footprint"


def _read_geometries(texts: list[str | bytes | None]) -> NDArray[np.object_]:
    """Shapely geometries of GeoJSON texts or WKB; None where one cannot be read."""
    given = np.array(texts, dtype=object)
    binary = np.array([isinstance(text, bytes) for text in texts], dtype=bool)
    found = np.full(given.shape, None, dtype=object)
    found[binary] = shapely.from_wkb(given[binary], on_invalid="ignore")
    found[~binary] = shapely.from_geojson(given[~binary], on_invalid="ignore")
    for k in np.flatnonzero(shapely.is_missing(found) & ~binary):
        text = texts[k]
        if text is None:
            continue
        try:  # a ring that is not closed is read here and closed
            found[k] = shapely.geometry.shape(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError, shapely.errors.ShapelyError):
            found[k] = None
    return found


class SceneCollector:
    """Gathers pages of items into columns; ``finish`` merges the copies.

    ``half-open window``: only acquisitions with ``start <= acquired < end`` are kept, the others are counted as outside.
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
        """``item_root`` is the address below which the API has its items: some give links that lead nowhere without it."""
        self.sensor = sensor
        self.item_root = item_root
        self.provider = provider
        self.cloud_field = cloud_field or DEFAULT_CLOUD_FIELD
        self._wanted = tuple(name.replace("_", "-") for name in platforms)  # catalogues write both
        self.start, self.end = start, end
        self.outside = 0
        self.other_platform = 0
        self.platforms: Counter[str] = Counter()
        """Platforms of the items taken, as the provider writes them."""
        self.other_platforms: Counter[str] = Counter()
        """Platforms of the items left out as another satellite's."""
        self.duplicates = 0
        self.superseded = 0
        self.united = 0
        self._seen: set[str] = set()
        self._unnamed = 0
        self._tables: list[pa.Table] = []
        self._rejected: list[dict[str, Any]] = []

    def add(self, items: Iterable[Any]) -> int:
        """Take a page of items; returns how many of them were new (an id not seen before)."""
        new = 0
        rows: list[dict[str, Any]] = []
        texts: list[str | bytes | None] = []
        for item in items:
            item_id = item.get("id") if isinstance(item, dict) else None
            if not _is_usable(item_id):
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
            text, row["geometry_source"] = _geometry(item)
            rows.append(row)
            texts.append(text)
        if rows:
            self._add_rows(rows, texts)
        return new

    def _row(self, item: Any) -> dict[str, Any] | None:
        if not isinstance(item, dict):
            self._reject({}, "not a STAC item", digest=_digest(item))
            return None
        properties = item.get("properties")
        item_id = item.get("id")
        if not isinstance(properties, dict) or not _is_usable(item_id):
            self._reject(item, "not a STAC item: id or properties missing", digest=_digest(item))
            return None
        platform = _text(properties.get("platform"))
        if self._wanted and platform is not None and platform.lower().replace("_", "-") not in self._wanted:
            self.other_platform += 1  # the collection's other satellites are not ours to judge
            self.other_platforms[platform] += 1
            return None
        if platform is not None:
            self.platforms[platform] += 1
        identity: SceneIdentity = scene_identity(self.sensor.family, item_id, properties)
        datetime, start, end = (parse_time(properties.get(name)) for name in ("datetime", "start_datetime", "end_datetime"))
        acquired = identity.acquired or datetime or start
        if acquired is None:
            given = properties.get("datetime") or properties.get("start_datetime")
            shown = repr(_text(given[:40])) if isinstance(given, str) else _shown(given)[:40]
            self._reject(item, NO_TIME if given is None else f"time cannot be read: {shown}")
            return None
        if (self.start is not None and acquired < self.start) or (self.end is not None and acquired >= self.end):
            self.outside += 1
            return None
        raw = properties.get(self.cloud_field)
        return {
            "scene_key": identity.key or item_id,
            "item_ids": [item_id],
            "item_href": self._href(item),
            "collection": _text(item.get("collection")),
            "provider": self.provider,
            "platform": platform,
            "acquired": acquired,
            "datetime": datetime,
            "start_datetime": start,
            "end_datetime": end,
            "cloud_cover": parse_cloud(raw),
            "cloud_raw": None if raw is None else _shown(raw)[:100],
            "item_id": item_id,
            "part": identity.part,
            "rank": _text("\x1f".join(identity.rank)),
        }

    def _href(self, item: Mapping[str, Any]) -> str | None:
        """The item's address. A link that is relative to nobody knows what is replaced by where the API must have the item."""
        href = _href(item)
        if href is None or "://" in href or self.item_root is None:
            return href
        item_id = _text(item.get("id"))
        return f"{self.item_root}/{quote(item_id, safe='')}" if item_id else None

    def _add_rows(self, rows: list[dict[str, Any]], texts: list[str | bytes | None]) -> None:
        read = _read_geometries(texts)
        footprints, reasons = normalise_footprints(read)
        most = self.sensor.max_scene_km2
        if most is not None:
            area = area_km2(footprints)
            for k in np.flatnonzero(area > most):
                footprints[k] = None
                reasons[k] = f"impossible area: more than the {most:,.0f} km² of the largest scene"
        for k in np.flatnonzero(shapely.is_missing(footprints)):
            unreadable = texts[k] is not None and read[k] is None
            reason = "geometry cannot be read" if unreadable else str(reasons[k])
            self._reject({"id": rows[k]["item_id"], "collection": rows[k]["collection"]}, reason, rows[k]["item_href"])
        usable = ~shapely.is_missing(footprints)
        if not usable.any():
            return
        kept = [row for row, ok in zip(rows, usable, strict=True) if ok]
        columns: dict[str, Any] = {name: [row[name] for row in kept] for name in ROWS_SCHEMA.names if name != "geometry"}
        columns["cloud_cover"] = pa.array(columns["cloud_cover"], pa.float64(), from_pandas=True)
        columns["geometry"] = shapely.to_wkb(footprints[usable])
        self._tables.append(pa.table(columns, schema=ROWS_SCHEMA))

    def _reject(self, item: Mapping[str, Any], reason: str, href: str | None = None, *, digest: str | None = None) -> None:
        item_id = _text(item.get("id"))
        self._rejected.append(
            {
                "item_id": item_id,
                "collection": _text(item.get("collection")),
                "provider": self.provider,
                "item_href": href or self._href(item),
                "reason": reason,
                "digest": digest or f"{item_id} {reason}",
            }
        )

    @property
    def received(self) -> int:
        """Distinct items taken so far."""
        return len(self._seen) + self._unnamed

    def ends(self) -> tuple[dt.datetime, dt.datetime] | None:
        """When the first and the last usable item were acquired, in the order in which they came; None where there is none."""
        if not self._tables:
            return None
        return self._tables[0]["acquired"][0].as_py(), self._tables[-1]["acquired"][-1].as_py()

    def rows(self) -> pa.Table:
        """The usable items (``ROWS_SCHEMA``), copies not merged."""
        return pa.concat_tables([ROWS_SCHEMA.empty_table(), *self._tables])

    def rejected_rows(self) -> pa.Table:
        """The rejected items (``REJECTED_ROWS_SCHEMA``)."""
        return pa.Table.from_pylist(self._rejected, schema=REJECTED_ROWS_SCHEMA)

    def rejected(self) -> pa.Table:
        """The rejected items (``REJECTED_SCHEMA``)."""
        return self.rejected_rows().select(REJECTED_SCHEMA.names)

    def finish(self) -> pa.Table:
        """The scenes (``SCENES_SCHEMA``), one row a scene, by acquisition time and key."""
        merged, self.superseded, self.united = merge_copies(self.rows())
        return in_order(merged)


def in_order(scenes: pa.Table) -> pa.Table:
    """Scenes by acquisition time and key, so that the order in which they came does not show."""
    return scenes.sort_by([("acquired", "ascending"), ("scene_key", "ascending")])


def by_reason(rejected: pa.Table) -> dict[str, int]:
    """How many were rejected, by reason."""
    return dict(sorted(Counter(rejected["reason"].to_pylist()).items()))


def first_of_each(table: pa.Table, column: str) -> pa.Table:
    """The rows whose value of a column did not come before: windows of a scan meet, and give what lies where they do twice."""
    repeated = table[column].to_pandas().duplicated().to_numpy()
    return table.filter(pa.array(~repeated)) if repeated.any() else table


def merge_copies(table: pa.Table) -> tuple[pa.Table, int, int]:
    """One row a scene key: the newest copy of each part, and the union of the parts.

    ``table`` has ``ROWS_SCHEMA``. Returns the scenes, how many copies a newer one replaced, and how
    many parts went into a union beyond the first.

    Overlap alone cannot tell a reprocessing from a part: only the datastrip's sensing start can. Where no copy has one, those of the
    newest baseline are united.
    """
    keys = table["scene_key"].to_pandas()
    copied = keys.duplicated(keep=False).to_numpy()
    if not copied.any():
        return table.select(SCENES_SCHEMA.names), 0, 0
    single = table.select(SCENES_SCHEMA.names).filter(pa.array(~copied))
    frame = table.filter(pa.array(copied)).to_pandas(date_as_object=False)
    del table, keys  # of a large month it is most of the memory, where the caller has let go of it, too
    frame = frame.sort_values(["scene_key", "rank"])  # the newest of a key comes last
    unknown_part = frame["part"].isna()
    baseline = frame["rank"].str.split("\x1f").str[0]
    newest_baseline = baseline.groupby(frame["scene_key"]).transform("max")
    is_s2_without_strip = unknown_part & frame["scene_key"].str.startswith("S2")
    no_strip_at_all = unknown_part.groupby(frame["scene_key"]).transform("all") & is_s2_without_strip
    united = no_strip_at_all & (baseline == newest_baseline)
    part = frame["part"].fillna("")
    part = part.mask(united, frame["rank"])  # every one of them is a part of its own
    outdated = no_strip_at_all & ~united
    newest = ~pd.MultiIndex.from_arrays([frame["scene_key"], part]).duplicated(keep="last") & ~outdated.to_numpy()
    parts = frame[newest].copy()
    superseded = len(frame) - len(parts)
    parts["shape"] = shapely.from_wkb(parts["geometry"].to_numpy())
    parts["area"] = shapely.area(parts["shape"].to_numpy())
    rows = [_unite(group) for _, group in parts.groupby("scene_key", sort=False)]
    merged = pa.Table.from_pandas(pd.DataFrame(rows)[SCENES_SCHEMA.names], schema=SCENES_SCHEMA, preserve_index=False)
    return pa.concat_tables([single, merged]), superseded, len(parts) - len(rows)


def _unite(parts: pd.DataFrame) -> dict[str, Any]:
    """One scene of its parts: the newest part's row, the union's footprint, the area-weighted cloud (unknown if one's is)."""
    row: dict[str, Any] = parts.iloc[-1].to_dict()
    if len(parts) > 1:
        footprint, reason = normalise_footprints(np.array([shapely.union_all(parts["shape"].to_numpy())], dtype=object))
        assert reason[0] is None, reason[0]  # a union of usable footprints is usable
        row["geometry"] = shapely.to_wkb(footprint[0])
        # Parts lie in one tile, so that areas in square degrees weigh as areas on the ground.
        mean = float((parts["cloud_cover"] * parts["area"]).sum(skipna=False) / parts["area"].sum())
        # Rounding must not leave the parts' range: 10 and 10 is not clear at a threshold of 10, and nothing passes 100.
        row["cloud_cover"] = float(np.clip(mean, parts["cloud_cover"].min(), parts["cloud_cover"].max()))
        row["item_ids"] = [item_id for ids in parts["item_ids"] for item_id in ids]
        row["acquired"] = parts["acquired"].min()
    return row


def scenes_from_items(items: Iterable[Mapping[str, Any]], sensor: CoverageSensor) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Scenes and rejected items of STAC item dictionaries, as the scanner itself makes them.

    Returns two GeoDataFrames: scenes (``SCENES_SCHEMA``, EPSG:4326), one row a scene after merging, and the rejected
    (``REJECTED_SCHEMA``, with an empty geometry column). Every item is in exactly one, save copies of one scene, which share its row, and
    other satellites of a shared collection, which belong to neither.
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
