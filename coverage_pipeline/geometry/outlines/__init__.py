"""Land, coastlines and country borders of the world, as shipped with the package.

From Natural Earth (public domain), 1:50m land, 1:110m countries and the coasts of the 1:10m land, lon/lat, within ±180; see
``make_natural_earth`` for how the files are made.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from shapely.geometry import MultiLineString, MultiPolygon


@cache
def _rows() -> list[dict[str, Any]]:
    file = resources.files(__name__).joinpath("natural_earth.parquet").read_bytes()
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(file)).to_pylist()
    return rows


@cache
def _layers() -> dict[str, bytes]:
    return {row["layer"]: row["geometry"] for row in _rows() if not row["name"]}


@cache
def countries() -> dict[str, MultiPolygon]:
    """Each country's outline of the 1:110m map by its English name (Natural Earth's spelling)."""
    return {row["name"]: shapely.from_wkb(row["geometry"]) for row in _rows() if row["name"]}


@cache
def land() -> MultiPolygon:
    """All land, Antarctica down to the pole; lakes of the 1:50m map are holes."""
    return shapely.from_wkb(_layers()["land"])


@cache
def coastlines() -> MultiLineString:
    """Outlines of the land, without the edges that the map's seam at ±180 and the pole made."""
    return shapely.from_wkb(_layers()["coastlines"])


FINE_STEPS = 5_000
"""Whole steps of a degree that the fine coasts are stored in: 22 m, a tenth of what a 1:10m map can show."""


@cache
def fine_coastlines() -> MultiLineString:
    """The coasts of the 1:10m map, to 22 m, for maps of a small region; lakes are not among them."""
    table = pq.read_table(pa.BufferReader(resources.files(__name__).joinpath("fine_coasts.parquet").read_bytes()))
    line, x, y = (table[name].to_numpy() for name in ("line", "x", "y"))
    return shapely.multilinestrings(shapely.linestrings(np.column_stack([x, y]) / FINE_STEPS, indices=line))


@cache
def borders() -> MultiLineString:
    """Lines that two countries share; coasts are not among them."""
    return shapely.from_wkb(_layers()["borders"])
