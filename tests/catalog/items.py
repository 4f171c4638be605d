"""Small STAC items with one thing wrong at a time."""

from __future__ import annotations

from typing import Any

from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor


def square(west: float = 5.0, south: float = 50.0, size: float = 1.0) -> dict[str, Any]:
    ring = [[west, south], [west + size, south], [west + size, south + size], [west, south + size], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def item(name: str = "a", when: str | None = "2025-01-15T10:00:00Z", **changes: Any) -> dict[str, Any]:
    """A usable item; ``changes`` replace its parts, ``properties`` are merged."""
    properties = {"datetime": when, "eo:cloud_cover": 5.0, **changes.pop("properties", {})}
    base: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "scenes",
        "geometry": square(),
        "bbox": [5.0, 50.0, 6.0, 51.0],
        "properties": properties,
        "links": [{"rel": "self", "href": f"https://example.org/{name}"}],
        "assets": {},
    }
    return {**base, **changes}


def sensor(endpoint: str = "https://example.org", **changes: Any) -> CoverageSensor:
    """A sensor with one STAC source and no rule for its scene keys; pointed, so that a day without a scene is no news."""
    page_size = changes.pop("page_size", 4)
    source = AvailableSource("stac", endpoint, "scenes", "eo:cloud_cover", page_size=page_size)
    values: dict[str, Any] = {
        "key": "test",
        "available_sources": (source,),
        "held_satellite": None,
        "nominal_revisit_days": 1,
        "default_desired_per_month": 2,
        "taskable": True,
    }
    return CoverageSensor(**{**values, **changes})
