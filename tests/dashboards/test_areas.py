"""Areas that planners upload or draw, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards import areas
from coverage_dashboards.areas import BadArea, drawn, kept, uploaded
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
        with pytest.raises(BadArea, match="document type"):
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
