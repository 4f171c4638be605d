"""Areas that planners upload or draw, and what is refused."""

from __future__ import annotations

import io
import json
import math
import random
import tempfile
import zipfile
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards import areas
from coverage_dashboards.areas import BadArea, drawn, kept, uploaded
from coverage_dashboards.gazetteer import Found
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.errors import PlannerError

BOX = shapely.box(9, 47, 10, 48)


def geojson(shape: shapely.Geometry) -> bytes:
    return json.dumps({"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(shape))}).encode()


def kml(body: str, head: str = "") -> bytes:
    return f'<?xml version="1.0"?>{head}<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{body}</Document></kml>'.encode()


PLACEMARK = (
    "<Placemark><name>a</name><Polygon><outerBoundaryIs><LinearRing><coordinates>9,47 10,47 10,48 9,48 9,47</coordinates>"
    "</LinearRing></outerBoundaryIs></Polygon></Placemark>"
)


def shapefile(folder: Path, shape: shapely.Geometry = BOX) -> bytes:
    gpd.GeoDataFrame({"a": [1]}, geometry=[shape], crs=4326).to_file(folder / "area.shp")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for file in folder.glob("area.*"):
            archive.write(file, file.name)
    return out.getvalue()


def test_geojson_kml_and_zipped_shapefiles_are_read(tmp_path: Path) -> None:
    for name, content in (("a.geojson", geojson(BOX)), ("A.KML", kml(PLACEMARK)), ("a b.zip", shapefile(tmp_path))):
        found = uploaded(name, content)
        assert found.kind == "area"
        assert found.outline.equals(BOX)
        assert found.title == "Uploaded area about 47.50° N, 9.50° E"
        again = kept(found.text.removeprefix("area:"))
        assert again is not None
        assert again.outline.equals(BOX)
    assert kept("nosuch") is None


def test_several_areas_are_one_and_another_crs_is_read(tmp_path: Path) -> None:
    two = gpd.GeoDataFrame({"a": [1, 2]}, geometry=[BOX, shapely.box(11, 47, 12, 48)], crs=4326)
    file = tmp_path / "two.gpkg"
    two.to_crs(3857).to_file(file)
    assert uploaded("two.gpkg", file.read_bytes()).outline.area == pytest.approx(2, rel=1e-6)


def test_what_would_drown_the_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArea, match="at most 5 MB"):
        uploaded("a.geojson", b" " * (areas.LARGEST_FILE + 1))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("area.shp", b"\0" * (areas.LARGEST_CONTENT + 1))
    assert len(bomb.getvalue()) < 100_000
    with pytest.raises(BadArea, match="are unpacked"):
        uploaded("bomb.zip", bomb.getvalue())
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr("inner.zip", bomb.getvalue())
    with pytest.raises(BadArea, match="another zip"):
        uploaded("nested.zip", nested.getvalue())
    many = shapely.Point(9, 47).buffer(1, quad_segs=6000)
    with pytest.raises(BadArea, match="at most 20,000 are used"):
        uploaded("a.geojson", geojson(many))
    with pytest.raises(BadArea, match="choose a smaller one"):
        uploaded("a.geojson", geojson(shapely.box(-100, -40, 100, 40)))
    entities = '<!DOCTYPE kml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    for head in (entities, entities.lower().replace("entity", "ENTITY")):
        with pytest.raises(BadArea, match=r"document type|no KML"):  # lower case is no XML at all
            uploaded("a.kml", kml(PLACEMARK, head))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.exe", b"x"), ("a", b"x"), ("a.geojson", b""), ("a.geojson", b"{}"), ("a.geojson", b"\xff\xfe"), ("a.zip", b"PK\x03\x04"),
        ("a.kml", b"<kml>"), ("a.kml", kml("")), ("a.gpkg", b"SQLite format 3\0"), ("../../etc/passwd.geojson", b"[]"),
        ("a.geojson", b'{"type":"Polygon","coordinates":[[[NaN,0],[1,0],[1,1],[NaN,0]]]}'),
        ("a.geojson", b'{"type":"Polygon","coordinates":[[[1e400,0],[1,0],[1,1],[1e400,0]]]}'),
        ("a.geojson", b'{"type":"Point","coordinates":[1,2]}'), ("a.geojson", geojson(shapely.Polygon())),
        ("a.geojson", b"[" * 100_000),
    ],
)  # fmt: skip
def test_what_is_no_area_is_told(name: str, content: bytes) -> None:
    with pytest.raises(PlannerError) as refused:
        uploaded(name, content)
    assert "/tmp" not in str(refused.value)
    assert "coverage-area-" not in str(refused.value)


@given(st.binary(max_size=400), st.sampled_from(areas.SUFFIXES))
def test_any_bytes_are_an_area_or_refused(content: bytes, suffix: str) -> None:
    with pytest.raises(PlannerError):
        uploaded(f"a{suffix}", content)


def test_corners_that_were_clicked_are_an_area() -> None:
    found = drawn([(9, 47), (10, 47), (10, 48), (9, 48)])
    assert found.outline.equals(BOX)
    assert found.title.startswith("Drawn area about")
    crossed = drawn([(9, 47), (10, 48), (10, 47), (9, 48)])  # a bow tie is two triangles
    assert crossed.outline.is_valid
    with pytest.raises(BadArea, match="three corners"):
        drawn([(9, 47), (10, 47)])
    with pytest.raises((BadArea, LocationsError)):
        drawn([(9, 47), (9, 47), (9, 47)])


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "MOST_KEPT", 3)
    found = [drawn([(k, 0), (k + 1, 0), (k + 1, 1)]) for k in range(5)]
    assert [kept(one.text.removeprefix("area:")) is None for one in found] == [True, True, False, False, False]


def _strange_upload(rng: random.Random, real: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A file such as somebody may upload who means no good: its name and its content."""
    kind = rng.randrange(9)
    name, content = rng.choice(real)
    script = rng.choice(
        ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "'; DROP TABLE requests; --", "../../etc/passwd", "%00")
    )
    if kind == 0:  # a real file with some bytes turned
        broken = bytearray(content)
        for _ in range(rng.randrange(1, 12)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        return name, bytes(broken)
    if kind == 1:  # cut off
        return name, content[: rng.randrange(len(content))]
    if kind == 2:  # as another format
        return f"a{rng.choice(areas.SUFFIXES)}", content
    if kind == 3:  # coordinates that are no place
        wild = [rng.choice((math.nan, math.inf, -math.inf, 1e308, 1e9, 181.0, 0.0, -90.5)) for _ in range(10)]
        ring = [[x, y] for x, y in zip(wild[::2], wild[1::2], strict=True)]
        shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        return "a.geojson", json.dumps({"type": "Feature", "properties": {}, "geometry": shape}).encode()
    if kind == 4:  # a text as long as a book in a place for a name or a number
        long = rng.choice(("x", "9", "[", "\\u0000")) * rng.choice((100, 100_000, 3_000_000))
        return "a.json", ('{"type": "' + long + '", "coordinates": [' + script + "]}").encode()
    if kind == 5:  # entities, and other declarations
        entity = rng.choice(('<!DOCTYPE a [<!ENTITY e "x">]>', '<!doctype a SYSTEM "file:///etc/passwd">', "<?xml-stylesheet href='x'?>"))
        return "a.kml", kml(PLACEMARK.replace("<name>a</name>", f"<name>{script}&e;</name>"), entity)
    if kind == 6:  # a zip with names that lead elsewhere, or with much in little
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for k in range(rng.randrange(1, 60)):
                archive.writestr(rng.choice((f"{k}.shp", f"../../{k}.shp", f"/{k}.dbf", f"{script}{k}")), b"\0" * rng.choice((10, 10_000)))
            if rng.random() < 0.3:
                archive.writestr("bomb.shp", b"\0" * (areas.LARGEST_CONTENT + 1))
        return "a.zip", out.getvalue()
    if kind == 7:  # names
        return f"{script}{rng.choice(areas.SUFFIXES)}\0{rng.choice(areas.SUFFIXES)}", content
    deep = rng.randrange(10, 5_000)
    return "a.geojson", b'{"type": "GeometryCollection", "geometries": [' * deep + content + b"]}" * deep


def _answer(name: str, content: bytes) -> tuple[str, Found | None]:
    try:
        return "", uploaded(name, content)
    except PlannerError as error:
        return str(error), None


def test_five_hundred_strange_uploads(tmp_path: Path) -> None:
    """Each is an area or refused in words that quote nothing of a script; no other error, and nothing is written beside the file."""
    real = [("a.geojson", geojson(BOX)), ("a.kml", kml(PLACEMARK)), ("a.zip", shapefile(tmp_path))]
    gpd.GeoDataFrame({"a": [1]}, geometry=[BOX], crs=4326).to_file(tmp_path / "a.gpkg")
    real.append(("a.gpkg", (tmp_path / "a.gpkg").read_bytes()))
    rng, refused = random.Random(16), 0
    before = sorted(path.name for path in Path(tempfile.gettempdir()).glob("coverage-area-*"))
    for _ in range(500):
        name, content = _strange_upload(rng, real)
        said, found = _answer(name, content)
        if found is None:
            refused += 1
            assert said.replace("\n", "").isprintable()
            assert 10 < len(said) < 2_000
        else:
            assert found.outline.is_valid
            assert 0 < found.outline.area <= 360 * 180
    assert 250 < refused < 500
    assert sorted(path.name for path in Path(tempfile.gettempdir()).glob("coverage-area-*")) == before
