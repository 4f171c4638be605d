"""Columns of a scenes file and of the rejected rows beside it."""

from __future__ import annotations

from typing import Literal, get_args

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
DEFAULT_CLOUD_FIELD = "eo:cloud_cover"
"""Where a source names no property of its own: the one of the STAC EO extension."""
NO_TIME = "no time"
"""Why an item is rejected that belongs to no month."""
SCENES_VERSION = 2
"""Version of the scenes file's columns and metadata."""
COPY = pa.struct(
    [
        pa.field("item_id", pa.string()),
        pa.field("datetime", TIME),
        pa.field("start_datetime", TIME),
        pa.field("end_datetime", TIME),
        pa.field("pass_time", TIME),
        pa.field("geometry", pa.binary()),  # WKB, EPSG:4326: the copy's own whole outline
    ]
)
SCENES_SCHEMA = pa.schema(
    [
        pa.field("scene_key", pa.string(), nullable=False),
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),  # of the copies that make the scene up, newest first
        pa.field("item_href", pa.string()),
        pa.field("collection", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("platform", pa.string()),
        pa.field("acquired", TIME, nullable=False),  # datetime, else start_datetime, else what the id states
        pa.field("pass_time", TIME, nullable=False),  # its month and day are the scene's (``scene_key.SceneIdentity``)
        pa.field("datetime", TIME),
        pa.field("start_datetime", TIME),
        pa.field("end_datetime", TIME),
        pa.field("in_month", pa.bool_(), nullable=False),  # false: passed within one hour outside the scanned months
        pa.field("cloud_cover", pa.float64()),  # percent; null: not known
        pa.field("cloud_raw", pa.string()),  # as the provider wrote it, JSON
        pa.field("geometry_source", pa.string(), nullable=False),  # "footprint", or "bbox" where the item has no geometry
        pa.field("copies", pa.list_(COPY)),  # that make the scene up, newest first; null where one copy alone does
        pa.field("geometry", pa.binary(), nullable=False),  # WKB, EPSG:4326
    ]
)
ROWS_SCHEMA = (
    SCENES_SCHEMA.append(pa.field("item_id", pa.string(), nullable=False))
    .append(pa.field("rank", pa.string()))  # the largest is the newest copy
    .append(pa.field("baseline", pa.string()))  # Sentinel-2: processing baseline
    .append(pa.field("nodata", pa.float64()))  # percent of the pixels without data, where the item states it
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

ScanStatus = Literal["not_scanned", "partial", "provisional", "complete", "not_applicable"]
"""What is known of a sensor's scenes in a month (design section 3): absence of a scene counts only where it is ``complete``."""
SCAN_STATUS: tuple[ScanStatus, ...] = get_args(ScanStatus)
"""In the order of the cube's flag values."""
