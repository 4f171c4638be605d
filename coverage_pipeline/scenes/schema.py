"""Columns of a scenes file and of the rejected rows beside it."""

from __future__ import annotations

from typing import Literal, get_args

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
DEFAULT_CLOUD_FIELD = "eo:cloud_cover"
"""Cloud property of a source that sets no ``cloud_field``: the one of the STAC EO extension."""
NO_TIME = "no time"
"""Rejection reason of an item without a time, which belongs to no month."""
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
        pa.field("item_ids", pa.list_(pa.string()), nullable=False),  # of the copies merged into the scene, newest first
        pa.field("item_href", pa.string()),
        pa.field("collection", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("platform", pa.string()),
        pa.field("acquired", TIME, nullable=False),  # datetime, else start_datetime, else what the id states
        pa.field("pass_time", TIME, nullable=False),  # decides the scene's month and day (``scene_key.SceneIdentity``)
        pa.field("datetime", TIME),
        pa.field("start_datetime", TIME),
        pa.field("end_datetime", TIME),
        pa.field("in_month", pa.bool_(), nullable=False),  # false: passed within one hour outside the scanned months
        pa.field("cloud_cover", pa.float64()),  # percent; null: not known
        pa.field("cloud_raw", pa.string()),  # as the provider wrote it, JSON
        pa.field("geometry_source", pa.string(), nullable=False),  # "footprint", or "bbox" if the item has no geometry
        pa.field("copies", pa.list_(COPY)),  # merged into the scene, newest first; null: a single copy
        pa.field("geometry", pa.binary(), nullable=False),  # WKB, EPSG:4326
    ]
)
ROWS_SCHEMA = (
    SCENES_SCHEMA.append(pa.field("item_id", pa.string(), nullable=False))
    .append(pa.field("rank", pa.string()))  # the largest is the newest copy
    .append(pa.field("baseline", pa.string()))  # Sentinel-2: processing baseline
    .append(pa.field("nodata", pa.float64()))  # percent of pixels without data; null: not stated
)
"""Usable items of a scan window, before their copies are merged."""
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
"""Rejected items of a window. The digest identifies an item that came in two windows."""

ScanStatus = Literal["not_scanned", "partial", "provisional", "complete", "not_applicable"]
"""Scan status of a sensor and month (design section 3). Absence of a scene counts only if it is ``complete``."""
SCAN_STATUS: tuple[ScanStatus, ...] = get_args(ScanStatus)
"""All statuses, in the order of the cube's flag values."""
