"""Files of other people: what GDAL would take for a way to other files or addresses never reaches it."""

from __future__ import annotations

import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.targets import fetch_targets
from coverage_pipeline.storage.foreign_files import ForeignFileError, safe_vector_file

BOX = shapely.box(9, 47, 10, 48)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of this machine that no upload may show."""
    path = tmp_path / "secret.geojson"
    gpd.GeoDataFrame({"id": ["secret"]}, geometry=[BOX], crs=4326).to_file(path)
    return path


def vrt(secret: Path) -> bytes:
    source = f"<OGRVRTDataSource><OGRVRTLayer name='secret'><SrcDataSource>{secret}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    assert len(gpd.read_file(io.BytesIO(source.encode()))) == 1  # GDAL itself does read it
    return source.encode()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return out.getvalue()


def kml(inside: str) -> bytes:
    return f'<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document>{inside}</Document></kml>'.encode()


def disguises(virtual: bytes) -> list[tuple[str, bytes]]:
    text = virtual.decode()
    return [
        *[(name, virtual) for name in ("a.geojson", "a.json", "a.kml", "a.gpkg", "a.fgb", "a.csv", "a.vrt", "a.xml", "a")],
        ("a.json", b'{"type": ' + virtual),
        ("a.geojson", b"{}" + virtual),
        ("a.kml", kml(text)),
        ("a.kml", kml("") + virtual),
        ("a.kml", b"<kml/>" + virtual),
        ("a.kml", kml(f"<?x </kml>{text}?>")),
        ("a.kml", kml(f"<![CDATA[</Document></kml>{text}]]>")),
        ("a.kml", f"<!-- <kml> -->{text}".encode()),
        ("a.kml", text.encode("utf-16")),
        ("a.csv", b"id,wkt\n1," + virtual),
        ("a.zip", zipped(a_vrt=virtual)),
        ("a.zip", zipped(a_shp=virtual)),
        ("a.zip", zipped(a_kml=virtual)),
        ("a.kmz", zipped(doc_kml=virtual)),
    ]


def test_no_disguise_of_a_virtual_file_is_read(tmp_path: Path, secret: Path) -> None:
    for number, (name, content) in enumerate(disguises(vrt(secret))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        try:
            safe = safe_vector_file(folder / name, folder)
        except ForeignFileError:
            continue
        try:
            table = gpd.read_file(safe)
        except Exception:
            continue  # it reaches GDAL, which makes nothing of it
        assert "secret" not in table.to_string()
        assert not table.geometry.intersects(BOX).any()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """The address of a server of files."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_behind_an_address_is_not_believed_either(tmp_path: Path, secret: Path, elsewhere: str) -> None:
    (tmp_path / "served" / "sites.geojson").write_bytes(vrt(secret))
    with pytest.raises(LocationsError, match="it is no GeoJSON"):
        fetch_targets(f"{elsewhere}/sites.geojson")
    (tmp_path / "served" / "sites.geojson").write_bytes(secret.read_bytes())
    assert fetch_targets(f"{elsewhere}/sites.geojson")["id"].to_list() == ["secret"]


def test_what_is_what_it_says_is_read_as_before(tmp_path: Path) -> None:
    table = gpd.GeoDataFrame({"id": ["<b>a</b>", "é"], "n": [1.5, 2.0]}, geometry=[BOX, shapely.box(0, 0, 1, 1)], crs=4326)
    shapes = tmp_path / "shapes"
    shapes.mkdir()
    table.to_file(shapes / "Sites.SHP".lower())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for file in shapes.iterdir():
            archive.write(file, f"deep/er/{file.name}")
        archive.writestr("deep/readme.html", "<OGRVRTDataSource>")
    (tmp_path / "a.zip").write_bytes(out.getvalue())
    for name in ("a.geojson", "a.gpkg", "a.fgb"):
        table.to_file(tmp_path / name)
    for name in ("a.geojson", "a.gpkg", "a.fgb", "a.zip"):
        folder = tmp_path / f"safe-{name}"
        folder.mkdir()
        found = gpd.read_file(safe_vector_file(tmp_path / name, folder)).sort_values("n", ignore_index=True)
        assert found["id"].to_list() == table["id"].to_list()
        assert found["n"].to_list() == table["n"].to_list()
        assert found.geometry.geom_equals(table.geometry).all()
        assert found.crs == table.crs


@given(st.dictionaries(st.text(), st.recursive(st.text() | st.floats(allow_nan=False) | st.none(), st.lists, max_leaves=5), max_size=5))
def test_an_escaped_json_means_the_same(tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]) -> None:
    folder = tmp_path_factory.mktemp("json")
    for ascii_only in (True, False):
        (folder / "a.json").write_text(json.dumps(content, ensure_ascii=ascii_only), encoding="utf-8", errors="surrogatepass")
        safe = safe_vector_file(folder / "a.json", folder)
        assert b"<" not in safe.read_bytes()
        assert json.loads(safe.read_bytes().decode("utf-8", "surrogatepass")) == content
