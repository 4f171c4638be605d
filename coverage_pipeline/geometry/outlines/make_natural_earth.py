"""Make ``natural_earth.parquet`` and ``fine_coasts.parquet`` from Natural Earth's TopoJSON files (run once; the results are committed).

    python -m coverage_pipeline.geometry.outlines.make_natural_earth PATH_TO_NATURAL_EARTH

Natural Earth is in the public domain (https://www.naturalearthdata.com/about/terms-of-use/). The inputs, ``land-50m.json``,
``countries-110m.json`` and, for the fine coasts, ``land-10m.json``, are those of the npm package world-atlas (2.0.2); where the last is not
there, the fine coasts stay as they are. TopoJSON is read here directly
(https://github.com/topojson/topojson-specification): arcs are delta-encoded integers with a scale and a translation, and the
geometries name arcs by index, ``~k`` for arc *k* walked backwards.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.geometry.outlines import FINE_STEPS

TARGET = Path(__file__).with_name("natural_earth.parquet")
FINE = Path(__file__).with_name("fine_coasts.parquet")
PRECISION = 0.002
"""Degrees that coordinates are rounded to: about the step of the 1:50m file's own integers (0.0036 by 0.0017)."""
SEAM = 179.99
"""Longitudes beyond this lie on the seam at ±180, where rings were cut: such an edge is no coast."""
BOTTOM = -89.9
"""Latitudes below this are the bottom edge of the map, no coast."""

Coordinates = npt.NDArray[np.float64]


def decode_arcs(topology: dict[str, Any]) -> list[Coordinates]:
    """Every arc as lon/lat coordinates, (n, 2)."""
    scale, translate = (np.asarray(topology["transform"][k], float) for k in ("scale", "translate"))
    return [np.cumsum(np.asarray(arc, float)[:, :2], axis=0) * scale + translate for arc in topology["arcs"]]


def _ring(indices: list[int], arcs: list[Coordinates]) -> Coordinates:
    parts = [arcs[k] if k >= 0 else arcs[~k][::-1] for k in indices]
    return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])


def _leaves(geometry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in geometry.get("geometries", []):
        yield from _leaves(part)
    if "arcs" in geometry:
        yield geometry


def _polygons(geometry: dict[str, Any]) -> list[list[list[int]]]:
    """A leaf's polygons, each a list of rings, each a list of arc indices."""
    return geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]


def land_polygons(topology: dict[str, Any]) -> BaseGeometry:
    """All land, valid, within ±180, and down to the south pole.

    The file's rings cross the antimeridian (Chukotka, Wrangel, Fiji) and one goes around the pole, with a hole at −89.999 for the
    map's bottom edge; such a ring means what a footprint of that shape means, so the same repair serves.
    """
    arcs = decode_arcs(topology)
    shapes = []
    for leaf in _leaves(topology["objects"]["land"]):
        for rings in _polygons(leaf):
            shell, *holes = (_ring(ring, arcs) for ring in rings)
            shapes.append(shapely.Polygon(shell, [hole for hole in holes if hole[:, 1].max() > BOTTOM]))
    repaired, reasons = normalise_footprints(np.array(shapes, dtype=object))
    kept = [shape for shape, reason in zip(repaired, reasons, strict=True) if reason is None]  # one islet has collapsed to a line
    if len(kept) < len(shapes) - 1:
        raise ValueError(f"land that can't be used: {[reason for reason in reasons if reason is not None]}")
    land = shapely.set_precision(shapely.union_all(kept), PRECISION)
    return shapely.MultiPolygon([part for part in shapely.get_parts(land) if part.geom_type == "Polygon"])


def split_lines(lines: list[Coordinates]) -> BaseGeometry:
    """The lines without seam edges: neither along ±180 or the bottom of the map, nor jumps from one side of the map to the other."""
    kept = []
    for line in lines:
        a, b = line[:-1], line[1:]
        seam = (np.abs(a[:, 0]) > SEAM) & (np.abs(b[:, 0]) > SEAM)
        pole = (a[:, 1] < BOTTOM) & (b[:, 1] < BOTTOM)
        jump = np.abs(a[:, 0] - b[:, 0]) > 180
        breaks = np.flatnonzero(seam | pole | jump) + 1
        kept += [part for part in np.split(line, breaks) if len(part) > 1]
    return shapely.line_merge(shapely.MultiLineString([shapely.LineString(part) for part in kept]))


def coast_lines(land: BaseGeometry) -> BaseGeometry:
    """Outlines of the land (lakes included), without the seam."""
    return split_lines([shapely.get_coordinates(ring) for ring in shapely.get_rings(shapely.get_parts(land))])


def fine_coasts(topology: dict[str, Any]) -> pa.Table:
    """Coasts of the 1:10m land in whole steps of ``1 / FINE_STEPS`` degrees: ``line`` numbers the line of each vertex."""
    arcs = decode_arcs(topology)
    rings = [_ring(ring, arcs) for leaf in _leaves(topology["objects"]["land"]) for rings in _polygons(leaf) for ring in rings]
    lines = shapely.get_parts(split_lines(rings))
    points, number = shapely.get_coordinates(lines, return_index=True)
    steps = np.rint(points * FINE_STEPS).astype(np.int32)
    moved = np.ones(len(steps), bool)
    moved[1:] = (np.diff(steps, axis=0) != 0).any(axis=1) | (np.diff(number) != 0)
    columns = {"line": number[moved].astype(np.int32), "x": steps[moved, 0], "y": steps[moved, 1]}
    return pa.table(columns).replace_schema_metadata({"source": "Natural Earth 1:10m land; public domain; lon/lat (OGC:CRS84)"})


def border_lines(topology: dict[str, Any]) -> BaseGeometry:
    """Lines between two countries: the arcs that two of them share. A coast belongs to one country only."""
    arcs = decode_arcs(topology)
    users: defaultdict[int, set[int]] = defaultdict(set)
    for number, leaf in enumerate(_leaves(topology["objects"]["countries"])):
        for rings in _polygons(leaf):
            for ring in rings:
                for k in ring:
                    users[k if k >= 0 else ~k].add(number)
    shared = split_lines([arcs[k] for k, countries in users.items() if len(countries) > 1])
    return shapely.set_precision(shared, PRECISION)


def countries(topology: dict[str, Any]) -> dict[str, BaseGeometry]:
    """Each country's outline by its name, valid and cut at ±180."""
    arcs = decode_arcs(topology)
    named = {}
    for leaf in _leaves(topology["objects"]["countries"]):
        shapes = [shapely.Polygon(_ring(rings[0], arcs)) for rings in _polygons(leaf)]
        repaired, reasons = normalise_footprints(np.array(shapes, dtype=object))
        parts = [shape for shape, reason in zip(repaired, reasons, strict=True) if reason is None]
        whole = shapely.union_all(parts)
        polygons = [part for part in shapely.get_parts(whole) if part.geom_type == "Polygon"]
        named[leaf["properties"]["name"]] = shapely.multipolygons(polygons)
    return named


def main(folder: Path) -> None:
    """Write the layers, one row each, and one row for each country, as zstd-compressed WKB."""
    land = land_polygons(json.loads((folder / "land-50m.json").read_text()))
    topology = json.loads((folder / "countries-110m.json").read_text())
    layers = {
        "land": land,
        "coastlines": coast_lines(land),
        "borders": border_lines(topology),
    }
    layers = {name: shapely.multilinestrings(shapely.get_parts(layer)) if name != "land" else layer for name, layer in layers.items()}
    names = ["", "", ""]
    for name, outline in sorted(countries(topology).items()):
        layers[f"country {name}"] = shapely.set_precision(outline, 0.01)
        names.append(name)
    table = pa.table(
        {"layer": [k.split(" ")[0] for k in layers], "name": names, "geometry": list(shapely.to_wkb(np.array(list(layers.values()))))}
    )
    source = {"source": "Natural Earth 1:50m land, 1:110m countries; public domain; lon/lat (OGC:CRS84)"}
    pq.write_table(table.replace_schema_metadata(source), TARGET, compression="zstd", compression_level=19)
    if (folder / "land-10m.json").exists():
        coasts = fine_coasts(json.loads((folder / "land-10m.json").read_text()))
        packed = dict.fromkeys(coasts.column_names, "DELTA_BINARY_PACKED")
        pq.write_table(coasts, FINE, use_dictionary=False, column_encoding=packed, compression="zstd", compression_level=19)
        sys.stdout.write(f"{FINE}: {FINE.stat().st_size} bytes, {coasts.num_rows} vertices\n")
    counts: Counter[str] = Counter()
    for key, layer in layers.items():
        counts[key.split(" ")[0]] += int(shapely.get_num_coordinates(layer))
    sys.stdout.write(f"{TARGET}: {TARGET.stat().st_size} bytes; vertices {dict(counts)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
