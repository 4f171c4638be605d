"""Single values of a STAC item, read from untrusted JSON: cloud, text, links, geometry."""

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
    """A cloud percentage, 0..100; strings are parsed, anything else (null, −1, 101, a flag) is NaN: not known."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        return math.nan  # Python reads "1_0" as 10
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if 0 <= number <= 100 else math.nan


def nodata_percent(properties: Mapping[str, Any]) -> float:
    """Percent of a Sentinel-2 tile's pixels without data, as Planetary Computer and Earth Search or as CDSE writes it; NaN: not stated."""
    statistics = properties.get("statistics")
    stated = properties.get("s2:nodata_pixel_percentage")
    return parse_cloud(statistics.get("nodata") if stated is None and isinstance(statistics, dict) else stated)


def text_of(value: Any) -> str | None:
    """Text that can be written; JSON may carry halves of characters (lone surrogates), which UTF-8 has not."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def is_usable(item_id: Any) -> TypeGuard[str]:
    return isinstance(item_id, str) and item_id != "" and item_id == text_of(item_id)


def digest_of(item: Any) -> str:
    """Tells items without a usable id apart."""
    try:
        return hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode("utf-8", "replace")).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return uuid.uuid4().hex


def self_href(links: Any) -> str | None:
    """The address of an item by its links, untrusted; None where none of them is one."""
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "self" and isinstance(link.get("href"), str):
            href: str = link["href"]
            return href
    return None


def dumped(value: Any) -> str:
    """JSON text by the fast writer, which takes neither half characters nor integers beyond 64 bits, else by Python's; empty where that
    fails, too (nested too deeply, or a number of thousands of digits).
    """
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError, RecursionError):
        return shown_json(value, otherwise="")


def shown_json(value: Any, *, otherwise: str = "…") -> str:
    """A value as the provider wrote it, for people."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return otherwise


def geometry_of(item: Mapping[str, Any]) -> tuple[str | bytes | None, str]:
    """Footprint (GeoJSON text, or WKB as a file has it), and where it is from. A bounding box serves only where there is no geometry."""
    geometry = item.get("geometry")
    if isinstance(geometry, bytes):
        return geometry, "footprint"
    if geometry is not None:
        return dumped(geometry), "footprint"
    bbox = item.get("bbox")
    # Beyond two turns no longitude means anything, and its box would have as many corners.
    if isinstance(bbox, list) and len(bbox) in (4, 6) and all(isinstance(v, int | float) and -720 <= v <= 720 for v in flat_bbox(bbox)):
        west, south, east, north = flat_bbox(bbox)
        if west > east:  # GeoJSON: across the antimeridian
            east += 360
        # No edge spans half a turn, which would be read the short way round.
        turn = np.linspace(west, east, max(2, math.ceil(abs(east - west) / 90) + 1)).tolist()
        ring = [[x, south] for x in turn] + [[x, north] for x in reversed(turn)] + [[west, south]]
        return json.dumps({"type": "Polygon", "coordinates": [ring]}), "bbox"
    return None, "footprint"


def read_geometries(texts: list[str | bytes | None]) -> NDArray[np.object_]:
    """Shapely geometries of GeoJSON texts or WKB; None where one cannot be read."""
    given = np.array(texts, dtype=object)
    binary = np.array([isinstance(text, bytes) for text in texts], dtype=bool)
    numbers = np.full(given.shape, None, dtype=object)
    numbers[binary] = shapely.from_wkb(given[binary], on_invalid="ignore")
    numbers[~binary] = shapely.from_geojson(given[~binary], on_invalid="ignore")
    for k in np.flatnonzero(shapely.is_missing(numbers) & ~binary):
        text = texts[k]
        if text is None:
            continue
        try:  # a ring that is not closed is read here and closed
            numbers[k] = shapely.geometry.shape(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError, shapely.errors.ShapelyError):
            numbers[k] = None
    return numbers
