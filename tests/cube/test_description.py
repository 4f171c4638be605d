"""The collection beside the cube, against the schemas that pystac carries and through pystac's own reader."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import pystac
import pytest
from jsonschema import Draft7Validator
from pystac.extensions.datacube import DatacubeExtension, HorizontalSpatialDimension, TemporalDimension, VectorSpatialDimension
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

from coverage_pipeline.cube.stac_collection import ZARR_MEDIA_TYPE, HexagonCells, ProductVariable, RegularCells, collection
from coverage_pipeline.months import Month

CELLS = ("sensor", "time", "lat", "lon")
VARIABLES = {
    "scenes_count": ProductVariable(CELLS, "int16", "scenes listed by the public catalogue", "1", -1),
    "priority_score": ProductVariable(CELLS, "float32", "priority", "1", math.nan),
    "action": ProductVariable(CELLS, "uint8", "action this month's evidence asks for"),
    "provider": ProductVariable(("sensor", "time"), "string", "catalogue that answered"),
}
GLOBE = RegularCells((-180.0, -90.0, 180.0, 90.0), 0.1)


def made(**changes: Any) -> pystac.Collection:
    given: dict[str, Any] = {
        "identifier": "coverage",
        "title": "Coverage",
        "description": "What exists, what is held, what is missing.",
        "variables": VARIABLES,
        "sensors": ["sentinel-2", "landsat-8"],
        "months": (Month(2024, 11), Month(2025, 2)),
        "cells": GLOBE,
        "updated": dt.datetime(2025, 3, 1, 2, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        "catalog_snapshot": "2025-02-28T00:00:00Z",
        "href": "./coverage.zarr",
        "overviews": ["overviews/5", "overviews/25"],
    }
    return collection(**given | changes)


def document(**changes: Any) -> dict[str, Any]:
    """What is written: through JSON without NaN, which is what other readers get."""
    read: dict[str, Any] = json.loads(json.dumps(made(**changes).to_dict(include_self_link=False), allow_nan=False))
    return read


def check_schema(read: dict[str, Any]) -> None:
    schemas = get_local_schema_cache()
    registry: Registry[Any] = Registry().with_resources([(uri, Resource.from_contents(schema)) for uri, schema in schemas.items()])
    collection_schema = next(schema for uri, schema in schemas.items() if uri.endswith("collection.json"))
    errors = [error.message for error in Draft7Validator(collection_schema, registry=registry).iter_errors(read)]
    assert errors == []


@pytest.mark.parametrize("cells", [GLOBE, HexagonCells(3, 41162)])
def test_the_document_is_a_valid_collection_that_pystac_reads_back(cells: RegularCells | HexagonCells) -> None:
    variables = {"provider": VARIABLES["provider"]} if isinstance(cells, HexagonCells) else VARIABLES
    read = document(cells=cells, variables=variables)
    check_schema(read)
    again = pystac.Collection.from_dict(read)
    assert DatacubeExtension.has_extension(again)
    again.clear_links()
    assert again.to_dict(include_self_link=False) == read
    assert read["license"] == "other"
    assert read["links"] == []


def test_a_broken_document_would_be_noticed() -> None:
    read = document()
    del read["extent"]
    with pytest.raises(AssertionError, match="extent"):
        check_schema(read)


def test_dimensions_of_a_regular_grid() -> None:
    dimensions = DatacubeExtension.ext(made()).dimensions
    assert list(dimensions) == list(CELLS)
    assert dimensions["sensor"].to_dict()["values"] == ["sentinel-2", "landsat-8"]
    time = dimensions["time"]
    assert isinstance(time, TemporalDimension)
    assert (time.extent, time.step) == (["2024-11-01T00:00:00Z", "2025-02-01T00:00:00Z"], "P1M")
    for name, axis, bound, n in (("lat", "y", 90, 1800), ("lon", "x", 180, 3600)):
        dimension = dimensions[name]
        assert isinstance(dimension, HorizontalSpatialDimension)
        assert dimension.axis == axis
        assert dimension.extent == pytest.approx([-bound + 0.05, bound - 0.05])
        low, high = dimension.extent
        assert dimension.step is not None
        assert (high - low) / dimension.step + 1 == pytest.approx(n)


def test_hexagons_are_one_dimension_whose_ids_stay_in_the_zarr() -> None:
    cells = DatacubeExtension.ext(made(cells=HexagonCells(5, 2016842), variables={})).dimensions["cells"]
    assert isinstance(cells, VectorSpatialDimension)
    assert cells.bbox == [-180, -90, 180, 90]
    assert "H3 resolution 5" in str(cells.description)
    assert cells.values is None


def test_the_extent_ends_with_the_last_month() -> None:
    extent = document()["extent"]
    assert extent["temporal"]["interval"] == [["2024-11-01T00:00:00Z", "2025-02-28T23:59:59Z"]]
    assert extent["spatial"]["bbox"] == [[-180, -90, 180, 90]]


def test_variables_say_what_they_are_and_what_not_known_is() -> None:
    variables = document()["cube:variables"]
    assert variables["scenes_count"] == {
        "type": "data",
        "dimensions": list(CELLS),
        "description": "scenes listed by the public catalogue",
        "data_type": "int16",
        "unit": "1",
        "nodata": -1,
    }
    assert variables["priority_score"]["nodata"] == "nan"
    assert variables["provider"]["data_type"] == "other"
    assert {"unit", "nodata"}.isdisjoint(variables["action"])


def test_the_asset_is_the_zarr_beside_the_document() -> None:
    read = document()
    asset = read["assets"]["zarr"]
    assert (asset["href"], asset["type"], asset["roles"]) == ("./coverage.zarr", ZARR_MEDIA_TYPE, ["data"])
    assert "overviews/5, overviews/25" in asset["description"]
    assert "levels" not in document(overviews=[])["assets"]["zarr"]["description"]
    assert read["updated"] == "2025-03-01T01:03:04Z"
    assert read["catalog_snapshot"] == "2025-02-28T00:00:00Z"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sensors": []}, "has sensors"),
        ({"months": (Month(2025, 2), Month(2025, 1))}, "2025-02..2025-01"),
        ({"updated": dt.datetime(2025, 3, 1)}, "zone"),
        ({"cells": HexagonCells(3, 41162)}, r"scenes_count lies along \['lat', 'lon'\]"),
    ],
)
def test_what_makes_no_collection(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made(**changes)
