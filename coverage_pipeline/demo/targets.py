"""Targets of the demo: 40 real places with made-up wishes, of the groups, cadences and seasons that planners have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import shapely


class Site(NamedTuple):
    """A place and what is wanted of it."""

    name: str
    group: str
    lon: float
    lat: float
    km: float
    """Radius of a point's buffer; of a box half its side."""


# Middle of each place to a tenth of a degree or better; the demo plans, it does not navigate.
SITES = (
    Site("Beauce", "crops", 1.6, 48.1, 15),
    Site("Po plain", "crops", 9.6, 45.1, 18),
    Site("Hungarian plain", "crops", 20.6, 47.0, 15),
    Site("Central Valley", "crops", -119.9, 36.6, 18),
    Site("Iowa corn belt", "crops", -93.6, 42.4, 16),
    Site("Punjab", "crops", 75.4, 30.9, 18),
    Site("Mato Grosso", "crops", -55.5, -12.6, 20),
    Site("Pampas", "crops", -61.0, -34.0, 18),
    Site("Nile delta", "crops", 31.0, 30.8, 14),
    Site("Gezira", "crops", 33.1, 14.4, 16),
    Site("North China plain", "crops", 115.2, 36.2, 18),
    Site("Wheatbelt", "crops", 117.9, -31.6, 18),
    Site("Lake Constance", "water", 9.4, 47.6, 12),
    Site("Lake Geneva", "water", 6.5, 46.4, 14),
    Site("Lake Tahoe", "water", -120.0, 39.1, 9),
    Site("Lake Titicaca", "water", -69.3, -15.9, 20),
    Site("Lake Victoria, Winam Gulf", "water", 34.4, -0.3, 12),
    Site("Aral Sea, south", "water", 58.6, 45.0, 20),
    Site("Great Salt Lake", "water", -112.5, 41.1, 20),
    Site("Okavango", "water", 22.8, -19.3, 20),
    Site("Wadden Sea", "water", 8.6, 53.6, 14),
    Site("Venice lagoon", "water", 12.3, 45.4, 8),
    Site("Evia", "fire", 23.4, 38.8, 10),
    Site("Sierra de la Culebra", "fire", -6.3, 41.9, 9),
    Site("Paradise, California", "fire", -121.6, 39.8, 8),
    Site("Kangaroo Island", "fire", 137.2, -35.8, 14),
    Site("Fort McMurray", "fire", -111.4, 56.7, 12),
    Site("Valparaíso", "fire", -71.4, -33.1, 8),
    Site("Table Mountain", "fire", 18.4, -34.0, 5),
    Site("Yakutsk", "fire", 129.7, 62.0, 14),
    Site("Railroad Valley", "calval", -115.7, 38.5, 4),
    Site("La Crau", "calval", 4.9, 43.6, 3),
    Site("Gobabeb", "calval", 15.1, -23.6, 3),
    Site("Libya-4", "calval", 23.4, 28.6, 12),
    Site("Barrax", "calval", -2.1, 39.1, 5),
    Site("Makhtesh Ramon", "calval", 34.8, 30.6, 5),
    Site("Uyuni", "minerals", -67.5, -20.2, 22),
    Site("Cuprite", "minerals", -117.2, 37.5, 5),
    Site("Makran coast", "minerals", 62.0, 25.5, 18),
    Site("Sossusvlei", "minerals", 15.3, -24.7, 10),
)
_WISHES: dict[str, dict[str, object]] = {
    "crops": {"weight": 2.0, "season": "3-10", "desired_sentinel-2": 3.0},
    "water": {"weight": 1.0, "desired": 2.0},
    "fire": {"weight": 3.0, "season": "5-10", "desired_emit": 1.0},
    "calval": {"weight": 1.0, "desired": 1.0, "min_cover": 1.0},
    "minerals": {"weight": 1.0, "season": "11-4", "desired_enmap": 1.0},
}


def write_targets(path: Path) -> None:
    """Write the demo's targets as GeoJSON: points with a buffer, and every third one a box."""
    features = []
    for number, site in enumerate(SITES):
        properties: dict[str, object] = {
            "id": f"{site.group}-{number + 1:02}",
            "name": site.name,
            "group": site.group,
            **_WISHES[site.group],
        }
        half = site.km / 111.2
        shape = (
            shapely.box(site.lon - half, site.lat - half, site.lon + half, site.lat + half) if number % 3 == 0 else shapely.Point(site[2:4])
        )
        if number % 3:
            properties["buffer_km"] = site.km
        features.append({"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(shape)})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, indent=1, ensure_ascii=False), encoding="utf-8")
