"""The content of the STAC collection beside a cube, with the datacube extension."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pystac
from pystac.extensions import datacube
from pystac.extensions.datacube import DatacubeExtension, Dimension, DimensionType, HorizontalSpatialDimensionAxis, VariableType

from coverage_pipeline.months import Month

ZARR_MEDIA_TYPE = "application/vnd.zarr; version=3"

# https://github.com/radiantearth/stac-spec/blob/v1.1.0/commons/common-metadata.md#data-types
_DATA_TYPES = frozenset(
    ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
)  # fmt: skip


@dataclass(frozen=True)
class ProductVariable:
    """One array of the cube, as the collection describes it."""

    dims: tuple[str, ...]
    dtype: str
    """As in the Zarr; what is no number, such as ``string``, is *other* in STAC."""
    description: str
    unit: str | None = None
    nodata: float | None = None
    """The value that means *not known*, NaN included; None: there is none."""


@dataclass(frozen=True)
class RegularCells:
    """Rows and columns of a regular grid, in degrees: dimensions ``lat`` and ``lon``."""

    bbox: tuple[float, float, float, float]
    """West, south, east, north of the outer edges."""
    step: float


@dataclass(frozen=True)
class HexagonCells:
    """H3 cells of one resolution: the dimension ``cells``."""

    h3_res: int
    count: int
    bbox: tuple[float, float, float, float] = (-180.0, -90.0, 180.0, 90.0)


def collection(
    *,
    identifier: str,
    title: str,
    description: str,
    variables: Mapping[str, ProductVariable],
    sensors: Sequence[str],
    months: tuple[Month, Month],
    cells: RegularCells | HexagonCells,
    updated: dt.datetime,
    catalog_snapshot: str,
    href: str,
    overviews: Sequence[str] = (),
) -> pystac.Collection:
    """The collection that describes one cube; ``to_dict(include_self_link=False)`` is the document.

    ``months`` are the first and the last, ``updated`` an instant with its zone, ``href`` the Zarr relative to the document and
    ``overviews`` its groups of coarser levels. ``catalog_snapshot`` says how old the oldest catalogue answer is.
    Raises ValueError: no sensor, months out of order, ``updated`` without a zone, or a variable along a dimension there is not.
    """
    first, last = months
    if not sensors or last < first:
        raise ValueError(f"a cube has sensors and months; these are {list(sensors)} and {first.key}..{last.key}")
    if updated.tzinfo is None:
        raise ValueError(f"updated {updated}: say in which zone")
    dimensions = _sensors_and_months(sensors, first, last) | _places(cells)
    for name, variable in variables.items():
        if strange := set(variable.dims) - set(dimensions):
            raise ValueError(f"variable {name} lies along {sorted(strange)}; the cube has {sorted(dimensions)}")
    extent = pystac.Extent(
        pystac.SpatialExtent([list(cells.bbox)]),
        # STAC's intervals are closed, months half-open.
        pystac.TemporalExtent([[_instant(first), _instant(last.shift(1)) - dt.timedelta(seconds=1)]]),
    )
    result = pystac.Collection(identifier, description, extent, title=title, license="other", keywords=["coverage", "acquisition planning"])
    result.extra_fields |= {
        "updated": updated.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "catalog_snapshot": catalog_snapshot,
    }
    DatacubeExtension.ext(result, add_if_missing=True).apply(
        {name: Dimension.from_dict(properties) for name, properties in dimensions.items()},
        {name: datacube.Variable.from_dict(_described(variable)) for name, variable in variables.items()},
    )
    levels = f" Coarser levels in its groups {', '.join(overviews)}; its attribute multiscales describes them." if overviews else ""
    result.add_asset(
        "zarr", pystac.Asset(href, title="The cube", description=f"One Zarr group.{levels}", media_type=ZARR_MEDIA_TYPE, roles=["data"])
    )
    # The document stands alone: no catalogue above it, and a self link would tie it to a place.
    result.clear_links()
    return result


def _instant(month: Month) -> dt.datetime:
    return dt.datetime(month.year, month.month, 1, tzinfo=dt.UTC)


def _text(instant: dt.datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _sensors_and_months(sensors: Sequence[str], first: Month, last: Month) -> dict[str, dict[str, Any]]:
    return {
        "sensor": {"type": "sensor", "description": "sensor key", "values": list(sensors)},
        "time": {
            "type": DimensionType.TEMPORAL.value,
            "description": "first instant of the month, UTC",
            "extent": [_text(_instant(first)), _text(_instant(last))],
            "step": "P1M",
        },
    }


def _places(cells: RegularCells | HexagonCells) -> dict[str, dict[str, Any]]:
    west, south, east, north = cells.bbox
    if isinstance(cells, HexagonCells):
        # Two million ids do not belong into the document: they are the array cell_ids. Nor are there cells between two ids.
        words = f"{cells.count} cells of H3 resolution {cells.h3_res}; their ids are in the Zarr"
        geometries = {"type": DimensionType.GEOMETRIES.value, "bbox": [west, south, east, north], "geometry_types": ["Polygon"]}
        return {"cells": geometries | {"description": words, "reference_system": 4326}}
    # From the first centre to the last, like the coordinates in the Zarr: extent / step + 1 is the number of cells.
    half = cells.step / 2
    spatial = {"type": DimensionType.SPATIAL.value, "step": cells.step, "reference_system": 4326}
    lat = {"axis": HorizontalSpatialDimensionAxis.Y.value, "description": "cell centre latitude", "extent": [south + half, north - half]}
    lon = {"axis": HorizontalSpatialDimensionAxis.X.value, "description": "cell centre longitude", "extent": [west + half, east - half]}
    return {"lat": spatial | lat, "lon": spatial | lon}


def _described(variable: ProductVariable) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "type": VariableType.DATA.value,
        "dimensions": list(variable.dims),
        "description": variable.description,
        "data_type": variable.dtype if variable.dtype in _DATA_TYPES else "other",
    }
    if variable.unit is not None:
        properties["unit"] = variable.unit
    if variable.nodata is not None:
        # JSON has no NaN; STAC writes the word.
        properties["nodata"] = "nan" if np.isnan(variable.nodata) else variable.nodata
    return properties
