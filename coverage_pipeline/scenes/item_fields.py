"""Readers of single values of a STAC item, which is untrusted JSON: cloud, text, links, geometry."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray

from coverage_pipeline.geometry.bbox import flat_bbox


def parse_cloud(value: Any) -> float:
    """Cloud percentage, 0..100. Strings are parsed; any other value (null, −1, 101, a flag) gives NaN: not known."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        return math.nan  # Python reads "1_0" as 10
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if 0 <= number <= 100 else math.nan


def nodata_percent(properties: Mapping[str, Any]) -> float:
    """Percent of a Sentinel-2 tile without data, in the spelling of Planetary Computer, Earth Search or CDSE; NaN: not stated."""
    statistics = properties.get("statistics")
    stated = properties.get("s2:nodata_pixel_percentage")
    return parse_cloud(statistics.get("nodata") if stated is None and isinstance(statistics, dict) else stated)


def text_of(value: Any) -> str | None:
    """Text that UTF-8 can encode: lone surrogates, which JSON allows, are replaced. None for any other type."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def is_usable(item_id: Any) -> TypeGuard[str]:
    """Whether an item id is a non-empty text that UTF-8 can encode."""
    return isinstance(item_id, str) and item_id != "" and item_id == text_of(item_id)


def digest_of(item: Any) -> str:
    """Digest that distinguishes items without a usable id."""
    try:
        return hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode("utf-8", "replace")).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return uuid.uuid4().hex


def self_href(links: Any) -> str | None:
    """The ``self`` link in the untrusted ``links`` of an item; None if it has none."""
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "self" and isinstance(link.get("href"), str):
            href: str = link["href"]
            return href
    return None


def dumped(value: Any) -> str:
    """JSON text. orjson refuses lone surrogates and integers beyond 64 bits, so Python's writer is the fallback; empty if both fail
    (nested too deeply, or a number of thousands of digits).
    """
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError, RecursionError):
        return shown_json(value, otherwise="")


def shown_json(value: Any, *, otherwise: str = "…") -> str:
    """A value as JSON text for messages; ``otherwise`` if it cannot be written."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return otherwise


def geometry_of(item: Mapping[str, Any]) -> tuple[str | bytes | None, str]:
    """Footprint (GeoJSON text or WKB) and its origin, "footprint" or "bbox". The bounding box serves only if there is no geometry."""
    geometry = item.get("geometry")
    if isinstance(geometry, bytes):
        return geometry, "footprint"
    if geometry is not None:
        return dumped(geometry), "footprint"
    bbox = item.get("bbox")
    # Longitudes beyond two turns are meaningless, and the ring below would get one corner per 90 degrees.
    if isinstance(bbox, list) and len(bbox) in (4, 6) and all(isinstance(v, int | float) and -720 <= v <= 720 for v in flat_bbox(bbox)):
        west, south, east, north = flat_bbox(bbox)
        if west > east:  # GeoJSON: across the antimeridian
            east += 360
        # Split the edges: one of half a turn or more would be read the short way round.
        turn = np.linspace(west, east, max(2, math.ceil(abs(east - west) / 90) + 1)).tolist()
        ring = [[x, south] for x in turn] + [[x, north] for x in reversed(turn)] + [[west, south]]
        return json.dumps({"type": "Polygon", "coordinates": [ring]}), "bbox"
    return None, "footprint"


def read_geometries(texts: list[str | bytes | None]) -> NDArray[np.object_]:
    """Shapely geometries (n,) of GeoJSON texts or WKB; None if one cannot be read."""
    encoded = np.array(texts, dtype=object)
    is_wkb = np.array([isinstance(text, bytes) for text in texts], dtype=bool)
    geometries = np.full(encoded.shape, None, dtype=object)
    geometries[is_wkb] = shapely.from_wkb(encoded[is_wkb], on_invalid="ignore")
    geometries[~is_wkb] = shapely.from_geojson(encoded[~is_wkb], on_invalid="ignore")
    for k in np.flatnonzero(shapely.is_missing(geometries) & ~is_wkb):
        text = texts[k]
        if text is None:
            continue
        try:  # unlike GEOS, shape() closes an open ring
            geometries[k] = shapely.geometry.shape(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError, shapely.errors.ShapelyError):
            geometries[k] = None
    return geometries
