"""Files of other people, made safe for GDAL, which reads a file as what its content looks like and not as what it is called.

Content that looks like GDAL's virtual format (VRT) or like a description of a web service makes it open other files of this machine, and
addresses of others. pyogrio cannot name the drivers that may open a file (fiona's ``enabled_drivers`` can, but geopandas left fiona
behind), so content that is not of its ending's format is refused, and what could be taken for another format is taken out.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.parsers import expat

from coverage_pipeline.errors import PlannerError

_PARQUET = (".parquet", ".geoparquet", ".pq")
"""Endings that GDAL is never asked to read."""
_TEXT = (".csv", ".tsv")
_MAGIC = {
    ".gpkg": (b"SQLite format 3\0", "GeoPackage"),
    ".fgb": (b"fgb\x03fgb", "FlatGeobuf"),
    ".shp": (b"\x00\x00\x27\x0a", "Shapefile"),
}
_SHAPEFILE = (".shp", ".shx", ".dbf", ".prj", ".cpg")
_OTHER_XML = re.compile(rb"<\s*ogr|wfs_capabilities|opengis\.net/gml", re.IGNORECASE)
"""Marks by which GDAL takes XML for a virtual file, a web service or GML, which may fetch its schema. KML has none of them."""
_CHUNK = 16 << 20
_HEAD = 1 << 20
"""Bytes of a file's beginning, more than any driver looks at to tell its format."""
MOST_UNPACKED = 4 << 30
"""Bytes of all that is unpacked of a zip."""


class ForeignFileError(PlannerError):
    """A file that is not what its ending says, or of no format that is read."""

    exit_code = 2


def safe_vector_file(file: Path, folder: Path) -> Path:
    """What GDAL may be given of a file of somebody else's: itself, or a copy in ``folder`` (empty, the caller's).

    A GeoJSON has its ``<`` escaped, which changes no value; of a zip the Shapefile alone is unpacked, under names of ours, of a KMZ its
    KML. Several Shapefiles come as their folder. Raises ``ForeignFileError``.
    """
    suffix = file.suffix.lower()
    match suffix:
        case ".geojson" | ".json":
            return _escaped(file, folder / f"safe{suffix}")
        case ".kml":
            _check_kml(file.read_bytes())
            return file
        case ".kmz":
            return _unpack_kml(file, folder)
        case ".zip":
            return _unpack_shapefiles(file, folder)
        case ".gpkg" | ".fgb":
            with file.open("rb") as opened:
                _check_magic(opened.read(16), suffix)
            return file
        case _ if suffix in _PARQUET:
            return file
        case _ if suffix in _TEXT:
            with file.open("rb") as opened:
                if _OTHER_XML.search(opened.read(_HEAD)):
                    raise ForeignFileError("it is no CSV")
            return file
    raise ForeignFileError(f"a file that ends in {suffix or 'nothing'} is not read: give GeoJSON, KML, GeoPackage, or a Shapefile in a zip")


def _check_magic(head: bytes, suffix: str) -> None:
    magic, name = _MAGIC[suffix]
    if not head.startswith(magic):
        raise ForeignFileError(f"it is no {name}")


def _escaped(file: Path, to: Path) -> Path:
    """In JSON, ``<`` stands only within texts, where its escape means the same."""
    with file.open("rb") as source, to.open("wb") as target:
        chunk = source.read(_CHUNK)
        if not chunk.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\x1e").startswith(b"{"):
            raise ForeignFileError("it is no GeoJSON")
        while chunk:
            target.write(chunk.replace(b"<", b"\\u003c"))
            chunk = source.read(_CHUNK)
    return to


def _check_kml(content: bytes) -> None:
    root: list[str] = []

    def begin(name: str, _: object) -> None:
        if not root:
            root.append(name.rpartition(":")[2].lower())

    def declared(*_: object) -> None:
        raise ForeignFileError("the KML declares a document type, which could be entities that grow without end: save it without")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = declared
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ForeignFileError(f"it is no KML ({error})") from None
    except (UnicodeError, ValueError, LookupError):
        raise ForeignFileError("it is no KML, or not in UTF-8") from None
    if root != ["kml"] or _OTHER_XML.search(content):
        raise ForeignFileError("it is no KML")


def _unpack_kml(file: Path, folder: Path) -> Path:
    first = next(_members(file, (".kml",)), None)
    if first is None:
        raise ForeignFileError("the KMZ holds no KML")
    _check_kml(first[1])
    to = folder / "safe.kml"
    to.write_bytes(first[1])
    return to


def _unpack_shapefiles(file: Path, folder: Path) -> Path:
    stems: dict[str, int] = {}
    shapes = []
    for name, content in _members(file, _SHAPEFILE):
        path = PurePosixPath(name.lower().replace("\\", "/"))
        number = stems.setdefault(str(path.with_suffix("")), len(stems))
        if path.suffix == ".shp":
            _check_magic(content[:16], ".shp")
            shapes.append(number)
        (folder / f"safe{number}{path.suffix}").write_bytes(content)
    if not shapes:
        raise ForeignFileError("the zip holds no Shapefile (.shp)")
    return folder / f"safe{shapes[0]}.shp" if len(shapes) == 1 else folder


def _members(file: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of a zip that end so."""
    left = MOST_UNPACKED
    try:
        with zipfile.ZipFile(file) as archive:
            for one in archive.infolist():
                if one.is_dir() or not one.filename.lower().endswith(suffixes) or one.filename.startswith("__MACOSX/"):
                    continue
                with archive.open(one) as opened:
                    content = opened.read(left + 1)  # the size that a zip states is untrusted
                left -= len(content)
                if left < 0:
                    raise ForeignFileError(f"the zip unpacks to more than {MOST_UNPACKED >> 30} GB")
                yield one.filename, content
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise ForeignFileError(f"the zip cannot be read ({type(error).__name__})") from None
