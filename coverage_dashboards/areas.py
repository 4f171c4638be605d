"""Areas that planners draw or upload: read with caps, kept under a short id while the server runs."""

from __future__ import annotations

import hashlib
import io
import math
import tempfile
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import shapely

from coverage_dashboards.gazetteer import Found, position
from coverage_pipeline.demand.place import outline_of
from coverage_pipeline.demand.target_file import read_target_file
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.ellipsoid import ellipsoid_km2
from coverage_pipeline.storage.foreign_files import safe_vector_file

LARGEST_FILE = 5 << 20
"""Bytes of an upload."""
LARGEST_CONTENT = 50 << 20
"""Bytes of all that a zip holds."""
MOST_FILES = 50
"""In a zip."""
MOST_VERTICES = 20_000
LARGEST_AREA = 3_000_000.0
"""Square kilometres, about that of Argentina: a month of Sentinel-2 over more takes too long for a page."""
SUFFIXES = (".geojson", ".json", ".kml", ".zip", ".gpkg")
MOST_KEPT = 2_000

_kept: OrderedDict[str, shapely.Geometry] = OrderedDict()
_guard = threading.Lock()


class BadArea(PlannerError):
    """An area that cannot be used."""


def uploaded(name: str, content: bytes) -> Found:
    """The areas of a file as one; raises ``BadArea`` that says what is wrong with it."""
    suffix = Path(name.lower()).suffix
    if suffix not in SUFFIXES:
        raise BadArea(f"a file that ends in {suffix or 'nothing'} is not read: give GeoJSON, KML, GeoPackage, or a Shapefile in a zip")
    if len(content) > LARGEST_FILE:
        raise BadArea(f"the file has {len(content) / 1e6:,.1f} MB; at most {LARGEST_FILE >> 20} MB are read: simplify its outlines")
    if suffix == ".zip":
        _check_zip(content)
    with tempfile.TemporaryDirectory(prefix="coverage-area-") as folder:
        file = Path(folder) / f"area{suffix}"  # a name of ours: theirs may be anything
        file.write_bytes(content)
        unpacked = Path(folder) / "safe"
        unpacked.mkdir()
        try:
            file = safe_vector_file(file, unpacked)
            table = read_target_file(str(file))
        except PlannerError as error:
            reason = str(error).replace(str(file), "the file").split("; set ")[0]
            raise BadArea(f"the area cannot be read: {reason.removeprefix('targets in the file')}") from None
    shapes = [shape for shape in table.geometry if shape is not None and not shape.is_empty]
    if not shapes:
        raise BadArea("the file has no outline")
    return _kept_as(shapely.union_all([shapely.make_valid(shape) for shape in _of_usable_size(shapes)]), "Uploaded area")


def drawn(points: list[tuple[float, float]]) -> Found:
    """The polygon of points that were clicked, longitude and latitude; raises ``BadArea`` for fewer than three."""
    if len(points) < 3:
        raise BadArea("an area needs three corners: click them on the map, then finish")
    return _kept_as(shapely.make_valid(shapely.Polygon(points)), "Drawn area")


def kept(key: str) -> Found | None:
    """The area of an id of before; None where the server was started since."""
    with _guard:
        outline = _kept.get(key)
        if outline is not None:
            _kept.move_to_end(key)
    return None if outline is None else _found(key, outline, "Area")


def _of_usable_size(shapes: list[shapely.Geometry]) -> list[shapely.Geometry]:
    vertices = int(shapely.get_num_coordinates(np.array(shapes, dtype=object)).sum())
    if vertices > MOST_VERTICES:
        raise BadArea(f"the outlines have {vertices:,} vertices; at most {MOST_VERTICES:,} are used: simplify them")
    bounds = shapely.total_bounds(np.array(shapes, dtype=object))
    if not all(map(math.isfinite, bounds)):
        raise BadArea("the outlines have coordinates that are no numbers")
    return shapes


def _kept_as(outline: shapely.Geometry, title: str) -> Found:
    usable = shapely.force_2d(outline)
    (place,) = outline_of(usable).table.geometry  # valid, an area, cut at the antimeridian; raises ``LocationsError``
    size = float(ellipsoid_km2(np.array([place], dtype=object))[0])
    if size > LARGEST_AREA:
        raise BadArea(f"the area has {size:,.0f} km²; at most {LARGEST_AREA:,.0f} km² are looked up: choose a smaller one")
    key = hashlib.sha256(shapely.to_wkb(shapely.normalize(place))).hexdigest()[:12]
    with _guard:
        _kept[key] = place
        _kept.move_to_end(key)
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    return _found(key, place, title)


def _found(key: str, outline: shapely.Geometry, title: str) -> Found:
    middle = outline.representative_point()
    return Found("area", f"{title} about {position(middle.y, middle.x)}", f"area:{key}", outline)


def _check_zip(content: bytes) -> None:
    """Refuse what would grow beyond all measure when it is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise BadArea("the zip cannot be read") from None
    size = sum(one.file_size for one in files)
    if len(files) > MOST_FILES or size > LARGEST_CONTENT:
        held = f"{len(files)} files of {size / 1e6:,.0f} MB"
        raise BadArea(f"the zip holds {held}; at most {MOST_FILES} files of {LARGEST_CONTENT >> 20} MB are unpacked")
    if any(one.filename.lower().endswith(".zip") for one in files):
        raise BadArea("the zip holds another zip: give the Shapefile's own")
