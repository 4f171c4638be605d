"""Dumps and static catalogues give what an API gives of the same items; whatever is not whole is an error that names it."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pystac
import pytest
import rustac
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from upath import UPath

from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import LOOPBACK
from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.catalog.scan import scan_month
from coverage_pipeline.catalog.sources.base import Source, Window, WindowCount
from coverage_pipeline.catalog.sources.file_source import PAGE
from coverage_pipeline.catalog.sources.geoparquet import GeoParquetSource
from coverage_pipeline.catalog.sources.static import StaticSource
from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, CoverageSensor, SourceKind
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from tests.catalog.items import item, sensor, square
from tests.shared_data import read_items, shared_data

pytestmark = pytest.mark.slow

JANUARY = Month(2025, 1)
WINDOW = Window(JANUARY.start - dt.timedelta(hours=1), JANUARY.end + dt.timedelta(hours=1), 100)
IMPATIENT = ScanOptions(Patience(timeout_seconds=2, retries=1, backoff_seconds=0.01), cross_check=False)
SENTINEL = "planetary-computer__sentinel-2-l2a__colorado-utah-2024.parquet"
LANDSAT = "planetary-computer__landsat-c2-l2__2024.parquet"
LANDSAT_8 = "planetary-computer__landsat-8-c2-l2.ndjson.gz"
WRITTEN = [
    item(f"scene-{k}", f"2025-01-{k + 1:02d}T10:00:00Z", geometry=square(10 * k), bbox=[10 * k, 50, 10 * k + 1, 51]) for k in range(10)
]
Rows = list[dict[str, Any]]


# --- helpers --------------------------------------------------------------------------------------------------------------------------


def table_of(items: Sequence[dict[str, Any]], *, unit: str = "us", boxes: str = "struct", **columns: Any) -> pa.Table:
    """Items as stac-geoparquet has them, written by hand: rustac cuts times to milliseconds and takes no item without geometry."""

    def time(value: str | None) -> dt.datetime | None:
        return dt.datetime.fromisoformat(value) if value is not None else None

    corners = ("xmin", "ymin", "xmax", "ymax")
    shapes = [shapely.geometry.shape(i["geometry"]).wkb if i["geometry"] is not None else None for i in items]
    found: dict[str, Any] = {
        "type": pa.array(["Feature"] * len(items)),
        "id": pa.array([i["id"] for i in items], pa.string()),
        "geometry": pa.array(shapes, pa.binary()),
        "links": pa.array([i["links"] for i in items], pa.list_(pa.struct([("href", pa.string()), ("rel", pa.string())]))),
        "assets": pa.array([{"data": {"href": "x"}}] * len(items)),
        "proj:shape": pa.array([[1, 2]] * len(items)),
    }
    if any("collection" in i for i in items):
        found["collection"] = pa.array([i.get("collection") for i in items]).dictionary_encode()
    given = [i["bbox"] for i in items]
    if boxes == "struct":
        found["bbox"] = pa.array(
            [dict(zip(corners, b, strict=True)) if b else None for b in given], pa.struct([(name, pa.float64()) for name in corners])
        )
    elif boxes == "list":
        found["bbox"] = pa.array(given, pa.list_(pa.float64()))
    for name in dict.fromkeys(name for i in items for name in i["properties"]):
        values = [i["properties"].get(name) for i in items]
        is_time = name in ("datetime", "start_datetime", "end_datetime")
        found[name] = (
            pa.array([time(v) for v in values], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC")) if is_time else pa.array(values)
        )
    found |= columns
    return pa.table({name: column for name, column in found.items() if column is not None})


def dump(path: Path, items: Sequence[dict[str, Any]], *, rows: int = 4, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(items, **how), path, row_group_size=rows)
    return path


def static(folder: Path, items: Sequence[dict[str, Any]], *, collection: str = "scenes") -> Path:
    """A static catalogue, written by hand: a collection below a catalogue, its items in folders by day."""
    items_links = []
    for one in items:
        day = (one["properties"].get("datetime") or "never")[:10]
        path = folder / collection / day / f"{one['id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        links = [{"rel": "self", "href": f"./{one['id']}.json"}, {"rel": "parent", "href": "../collection.json"}]
        path.write_text(json.dumps({**one, "links": links}))
        items_links.append({"rel": "item", "href": f"./{day}/{one['id']}.json"})
    (folder / collection).mkdir(parents=True, exist_ok=True)
    write(folder / collection / "collection.json", "Collection", collection, [{"rel": "root", "href": "../catalog.json"}, *items_links])
    return write(folder / "catalog.json", "Catalog", "root", [{"rel": "child", "href": f"./{collection}/collection.json"}])


def write(path: Path, kind: str, name: str, links: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": kind, "id": name, "stac_version": "1.0.0", "links": links}))
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@contextmanager
def over_http(folder: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def of_files(kind: SourceKind, endpoint: Path | str, collection: str = "scenes") -> CoverageSensor:
    return sensor(available_sources=(AvailableSource(kind, str(endpoint), collection, "eo:cloud_cover"),))


def scanned(one: CoverageSensor, month: Month, folder: Path, bbox: BBox | None = None) -> tuple[Rows, Rows, ScanReport]:
    """Scenes and rejected items without provider and address, which differ by where they were read."""
    store = Store.below(folder)
    report = scan_month(one, month, store, bbox=bbox, options=IMPATIENT)
    path = store.scenes(one.key, month)
    tables = [pq.read_table(str(p)) for p in (path, sibling(path, ".rejected.parquet"), store.timeless(one.key)) if p.exists()]
    scenes, *rejections = (table.drop_columns(["provider", "item_href"]).to_pylist() for table in tables)
    rejected = [row for rows in rejections for row in rows]
    return scenes, sorted(rejected, key=lambda r: (str(r["item_id"]), r["reason"])), report


def keys(one: CoverageSensor, folder: Path, month: Month = JANUARY, bbox: BBox | None = None) -> list[str]:
    return sorted(row["scene_key"] for row in scanned(one, month, folder, bbox)[0])


def opened(kind: SourceKind, endpoint: Path | str, collection: str = "scenes") -> Source:
    make = GeoParquetSource if kind == "geoparquet" else StaticSource
    source: Source = make(AvailableSource(kind, str(endpoint), collection), LOOPBACK, IMPATIENT.patience, "test 2025-01")
    return source


def found(source: Source, window: Window = WINDOW, bbox: BBox | None = None) -> Rows:
    return [i for page in source.pages(window, bbox, WindowCount()) for i in page]


def names(source: Source, window: Window = WINDOW, bbox: BBox | None = None) -> list[str]:
    return sorted(str(i["id"]) for i in found(source, window, bbox))


# --- the same as an API ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "collection", "months"),
    [
        (SENTINEL, "sentinel-2", "sentinel-2-l2a", [Month(2024, 7), Month(2024, 8)]),
        (LANDSAT, "landsat-8-9", "landsat-c2-l2", [Month(2023, 11), Month(2024, 6), Month(2024, 10)]),
    ],
)
def test_a_real_dump_gives_what_an_api_gives(
    name: str, key: str, collection: str, months: list[Month], serve_items: Callable[..., str], tmp_path: Path
) -> None:
    items = read_items(name)
    address = serve_items(items)
    base = COVERAGE_SENSORS[key]
    platforms = base.available_sources[0].platforms

    def asked(kind: SourceKind, endpoint: str) -> CoverageSensor:
        source = AvailableSource(kind, endpoint, collection, "eo:cloud_cover", platforms=platforms)
        return replace(base, available_sources=(source,))

    everything = 0
    for month in months:
        served = scanned(asked("stac", address), month, tmp_path / "api")
        dumped = scanned(asked("geoparquet", str(shared_data() / "items" / name)), month, tmp_path / "dump")
        assert dumped[0] == served[0]
        assert dumped[1] == served[1]
        assert dumped[2].rejected == served[2].rejected
        everything += len(dumped[0])
    assert everything > 20


def test_every_item_of_a_real_dump_comes_out_in_some_month_and_with_its_address() -> None:
    source = AvailableSource("geoparquet", str(shared_data() / "items" / SENTINEL), "sentinel-2-l2a")
    dumped = GeoParquetSource(source, LOOPBACK, Patience(), "sentinel-2 2024-07")
    always = Window(dt.datetime(2015, 1, 1, tzinfo=dt.UTC), dt.datetime(2035, 1, 1, tzinfo=dt.UTC), 100)
    pages = list(dumped.pages(always, None, WindowCount()))
    assert max(map(len, pages)) <= PAGE
    ours = {i["id"]: i for page in pages for i in page}
    items = read_items(SENTINEL)
    assert ours.keys() == {i["id"] for i in items}
    for i in items:
        mine = ours[i["id"]]
        assert shapely.from_wkb(mine["geometry"]).equals(shapely.geometry.shape(i["geometry"]))
        assert mine["bbox"] == i["bbox"]
        assert mine["links"][0]["href"] == next(link["href"] for link in i["links"] if link["rel"] == "self")
        scalars = {k: v for k, v in i["properties"].items() if not isinstance(v, list | dict) and k != "datetime"}
        assert {k: mine["properties"][k] for k in scalars} == scalars
        assert dt.datetime.fromisoformat(mine["properties"]["datetime"]) == dt.datetime.fromisoformat(i["properties"]["datetime"])
    assert dumped.total(always, None) == len(items)
    assert dumped.newest() == max(dt.datetime.fromisoformat(i["properties"]["datetime"]) for i in items)


def test_rustac_writes_what_we_read(tmp_path: Path) -> None:
    items = [i for i in read_items(LANDSAT_8) if i["properties"]["datetime"].startswith("2019")]
    assert len(items) > 50
    path = tmp_path / "dumps" / "landsat.parquet"
    path.parent.mkdir()

    async def write_dump() -> None:
        await rustac.write(str(path), items)

    asyncio.run(write_dump())
    collection = items[0]["collection"]
    base = replace(COVERAGE_SENSORS["landsat-8-9"], publication_lag_days=0)
    dumped = replace(base, available_sources=(AvailableSource("geoparquet", str(path), collection, "eo:cloud_cover"),))
    written = static(tmp_path / "static", items, collection=collection)
    still = replace(base, available_sources=(AvailableSource("static", str(written), collection, "eo:cloud_cover"),))

    def rounded(rows: Rows) -> Rows:  # rustac keeps milliseconds
        times = ("acquired", "pass_time", "datetime", "start_datetime", "end_datetime")
        return [{k: v.replace(microsecond=v.microsecond // 1000 * 1000) if k in times and v else v for k, v in r.items()} for r in rows]

    total = 0
    for month in (Month(2019, 2), Month(2019, 7), Month(2019, 11)):
        one, other = scanned(dumped, month, tmp_path / "one"), scanned(still, month, tmp_path / "other")
        assert rounded(one[0]) == rounded(other[0])
        assert one[1] == other[1]
        total += len(one[0])
    assert total > 5


@pytest.mark.parametrize("by", ["hand", "pystac"])
def test_a_static_catalogue_gives_what_an_api_gives_from_a_disk_and_over_http(
    by: str, serve_items: Callable[..., str], tmp_path: Path
) -> None:
    items = [i for i in read_items(SENTINEL) if i["properties"]["datetime"] < "2024-09-15"][:150] + read_items(SENTINEL)[-20:]
    items = list({i["id"]: i for i in items}.values())
    month = Month.of(dt.datetime.fromisoformat(sorted(i["properties"]["datetime"] for i in items)[len(items) // 2]))
    folder = tmp_path / "static"
    if by == "hand":
        static(folder, items, collection="sentinel-2-l2a")
    else:
        root, times = pystac.Catalog("root", "of a test"), pystac.TemporalExtent([[dt.datetime(2015, 1, 1, tzinfo=dt.UTC), None]])
        collection = pystac.Collection("sentinel-2-l2a", "x", pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), times))
        root.add_child(collection)
        for one in items:
            made = pystac.Item.from_dict({**one, "links": [], "stac_extensions": []})
            collection.add_item(made)
        root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)

    def asked(kind: SourceKind, endpoint: str) -> CoverageSensor:
        source = AvailableSource(kind, endpoint, "sentinel-2-l2a", "eo:cloud_cover")
        return replace(COVERAGE_SENSORS["sentinel-2"], available_sources=(source,))

    served = scanned(asked("stac", serve_items(items)), month, tmp_path / "api")
    local = scanned(asked("static", str(folder)), month, tmp_path / "local")
    with over_http(folder) as address:
        remote = scanned(asked("static", f"{address}/catalog.json"), month, tmp_path / "remote")
    assert len(served[0]) > 5
    assert local[:2] == remote[:2] == served[:2]
    assert remote[2].requests == len(items) + 2
    store = Store.below(tmp_path / "remote").scenes("sentinel-2", month)
    assert all(href.startswith(f"{address}/sentinel-2-l2a/") for href in pq.read_table(str(store))["item_href"].to_pylist())
    store = Store.below(tmp_path / "local").scenes("sentinel-2", month)
    assert all(href.startswith(folder.as_uri()) for href in pq.read_table(str(store))["item_href"].to_pylist())


# --- dumps ----------------------------------------------------------------------------------------------------------------------------


def test_a_folder_of_files_with_different_columns(tmp_path: Path) -> None:
    dump(tmp_path / "d" / "2025" / "a.parquet", WRITTEN[:3])
    dump(tmp_path / "d" / "b.geoparquet", WRITTEN[3:6], unit="ns", boxes="list")
    lean = table_of(WRITTEN[6:8], boxes="none", links=None, collection=None, type=None, assets=None)
    pq.write_table(lean, tmp_path / "d" / "c.parquet")
    texts = pa.array([i["properties"]["datetime"] for i in WRITTEN[8:]])
    pq.write_table(table_of(WRITTEN[8:], datetime=texts), tmp_path / "d" / "d.parquet")
    (tmp_path / "d" / "README.md").write_text("no data")
    (tmp_path / "d" / ".e.parquet").write_text("half a copy")
    assert keys(of_files("geoparquet", tmp_path / "d"), tmp_path) == [i["id"] for i in WRITTEN]
    assert keys(of_files("geoparquet", (tmp_path / "d").as_uri()), tmp_path / "uri") == [i["id"] for i in WRITTEN]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    dump(tmp_path / "elsewhere" / "a.parquet", WRITTEN)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "d")
    assert len(found(opened("geoparquet", tmp_path / "d"))) == len(WRITTEN)


def test_object_stores_and_http_are_read_as_a_disk_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dump(tmp_path / "d" / "a.parquet", WRITTEN)
    for k in (1, 2):
        UPath(f"memory://files-{tmp_path.name}/x/{k}.parquet").write_bytes(path.read_bytes())
    assert names(opened("geoparquet", f"memory://files-{tmp_path.name}/x")) == sorted(i["id"] for i in [*WRITTEN, *WRITTEN])
    with over_http(tmp_path) as address:
        assert len(found(opened("geoparquet", f"{address}/d/a.parquet"))) == 10
        with pytest.raises(CatalogUnavailable, match="is missing"):
            found(opened("geoparquet", f"{address}/d/b.parquet"))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=(port := free_port()))
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = boto3.client("s3")
        bucket.create_bucket(Bucket="dumps")
        for name in ("d/2025/a.parquet", "d/b.parquet"):
            bucket.put_object(Bucket="dumps", Key=name, Body=path.read_bytes(), ACL="public-read")
        assert len(found(opened("geoparquet", "s3://dumps/d"))) == 20
        assert len(found(opened("geoparquet", "s3://dumps/d/b.parquet"))) == 10
        assert len(found(opened("geoparquet", f"http://127.0.0.1:{port}/dumps/d/b.parquet"))) == 10  # a server that gives ranges
        for missing in ("s3://dumps/e", "s3://nobody/e"):
            with pytest.raises(CatalogUnavailable, match=r"test 2025-01: \w+ \(scenes\) "):
                found(opened("geoparquet", missing))
    finally:
        server.stop()


def test_times_of_every_kind(tmp_path: Path) -> None:
    span = {"start_datetime": "2025-01-10T00:00:00.000001Z", "end_datetime": "2025-01-11T00:00:00Z"}
    items = [
        item("micro", "2025-01-15T10:00:00.123456Z"),
        item("span", None, properties=span),
        item("before", None, properties={"start_datetime": "2024-11-10T00:00:00Z", "end_datetime": "2024-11-11T00:00:00Z"}),
        item("never", None),
        item("end-only", None, properties={"end_datetime": "2024-11-11T00:00:00Z"}),
        *(item(f"old-{k}", "2024-10-01T00:00:00Z") for k in range(4)),  # a row group of their own
        item("edge", "2025-01-31T23:59:59.999999Z"),
        item("after", "2025-02-01T00:00:00Z"),
    ]
    path = dump(tmp_path / "a.parquet", items)
    scenes, rejected, report = scanned(of_files("geoparquet", path), JANUARY, tmp_path)
    assert {s["scene_key"]: s["acquired"].isoformat() for s in scenes if s["in_month"]} == {
        "micro": "2025-01-15T10:00:00.123456+00:00",
        "span": "2025-01-10T00:00:00.000001+00:00",
        "edge": "2025-01-31T23:59:59.999999+00:00",
    }
    assert [(r["item_id"], r["reason"]) for r in rejected] == [("end-only", "no time"), ("never", "no time")]
    assert report.received < len(items)  # what is known to be of other months is not even made an item
    assert opened("geoparquet", path).total(WINDOW, None) == 4  # with the one that is within the hour after the month


def test_rows_without_time_come_out_of_every_row_group(tmp_path: Path) -> None:
    """Statistics say nothing of nulls: a row group of October with one row without time is read for January."""
    items = [item(f"old-{k}", "2024-10-01T00:00:00Z" if k % 4 else None) for k in range(8)] + WRITTEN[:1]
    path = dump(tmp_path / "a.parquet", items)
    scenes, rejected, _ = scanned(of_files("geoparquet", path), JANUARY, tmp_path)
    assert [s["scene_key"] for s in scenes] == ["scene-0"]
    assert [r["item_id"] for r in rejected] == ["old-0", "old-4"]


def test_whole_row_groups_of_other_months_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [item(f"{month:02d}-{k}", f"2024-{month:02d}-15T00:00:00Z") for month in range(1, 13) for k in range(4)]
    path = dump(tmp_path / "a.parquet", [*many, *WRITTEN])
    source = opened("geoparquet", path)
    source.newest()
    groups: list[int] = []
    real = pq.ParquetFile.iter_batches

    def counted(self: Any, *args: Any, **how: Any) -> Any:
        groups.extend(how["row_groups"])
        return real(self, *args, **how)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert len(found(source)) == 10
    assert sorted(set(groups)) == [12, 13, 14]
    groups.clear()
    assert names(source, bbox=(19.5, 0, 20.5, 80)) == ["scene-2"]
    assert groups == [12, 12, 13, 14]  # of the others, only what tells where they are


def test_pages_are_bounded_and_columns_are_chosen(tmp_path: Path) -> None:
    many = [item(f"s{k}", "2025-01-10T00:00:00Z") for k in range(2500)]
    path = dump(tmp_path / "a.parquet", many, rows=10_000)
    window_count = WindowCount()
    pages = list(opened("geoparquet", path).pages(WINDOW, None, window_count))
    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert window_count.pages == 3
    first = pages[0][0]
    assert set(first) == {"type", "id", "collection", "geometry", "bbox", "properties", "links"}
    assert set(first["properties"]) == {"datetime", "eo:cloud_cover"}
    assert isinstance(first["geometry"], bytes)


def test_rows_with_holes_are_kept_or_rejected_never_dropped(tmp_path: Path) -> None:
    holes = [
        item("no-geometry", geometry=None),
        item("nothing", geometry=None, bbox=None),
        item("no-bbox", bbox=None),
        {**item(), "id": None},
    ]
    path = dump(tmp_path / "a.parquet", holes)
    for bbox in (None, (4.0, 49.0, 7.0, 52.0)):
        scenes, rejected, report = scanned(of_files("geoparquet", path), JANUARY, tmp_path / str(bbox), bbox)
        assert sorted((s["scene_key"], s["geometry_source"]) for s in scenes) == [("no-bbox", "footprint"), ("no-geometry", "bbox")]
        assert [(r["item_id"], r["reason"]) for r in rejected] == [
            (None, "not a STAC item: id or properties missing"),
            ("nothing", "geometry missing"),
        ]
        assert report.received == 4


def test_properties_in_one_column_and_links_as_text(tmp_path: Path) -> None:
    bare = table_of([{**i, "properties": {}} for i in WRITTEN])
    texts = pa.array([json.dumps(i["properties"]) for i in WRITTEN])
    links = pa.array([json.dumps(i["links"]) for i in WRITTEN])
    as_struct = pa.array([{**i["properties"], "datetime": dt.datetime.fromisoformat(i["properties"]["datetime"])} for i in WRITTEN])
    for name, column in (("text", texts), ("struct", as_struct), ("json", pa.ExtensionArray.from_storage(pa.json_(), texts))):
        table = bare.drop_columns(["links"]).append_column("links", links).append_column("properties", column)
        pq.write_table(table, tmp_path / f"{name}.parquet")
        scenes, _, _ = scanned(of_files("geoparquet", tmp_path / f"{name}.parquet"), JANUARY, tmp_path / name)
        assert sorted((s["scene_key"], s["cloud_cover"]) for s in scenes) == sorted((i["id"], 5.0) for i in WRITTEN)
        items = found(opened("geoparquet", tmp_path / f"{name}.parquet"))
        assert items[0]["links"] == [{"rel": "self", "href": "https://example.org/scene-0"}]


def test_arrow_s_many_types(tmp_path: Path) -> None:
    table = table_of(WRITTEN)
    for name, kind in (("id", pa.large_string()), ("collection", pa.string_view()), ("geometry", pa.large_binary())):
        table = table.set_column(
            table.schema.get_field_index(name), name, table[name].cast(pa.string() if name == "collection" else kind).cast(kind)
        )
    berlin = table["datetime"].cast(pa.timestamp("ms", "Europe/Berlin"))
    table = table.set_column(table.schema.get_field_index("datetime"), "datetime", berlin)
    three = pa.array(
        [
            dict(zip(("xmin", "ymin", "zmin", "xmax", "ymax", "zmax"), [*i["bbox"][:2], 0.0, *i["bbox"][2:], 9.0], strict=True))
            for i in WRITTEN
        ]
    )
    table = table.set_column(table.schema.get_field_index("bbox"), "bbox", three)
    pq.write_table(table, tmp_path / "a.parquet")
    items = found(opened("geoparquet", tmp_path / "a.parquet"))
    assert [i["properties"]["datetime"] for i in items] == [i["properties"]["datetime"].replace("Z", ".000000Z") for i in WRITTEN]
    assert items[0]["bbox"] == [0.0, 50.0, 0.0, 1.0, 51.0, 9.0]
    assert names(opened("geoparquet", tmp_path / "a.parquet"), bbox=(19.5, 0, 20.5, 80)) == ["scene-2"]


def test_nanoseconds_are_cut_and_a_cloud_that_is_no_number_is_kept_as_given(tmp_path: Path) -> None:
    when = pa.array([1736935200_123456_789] * 10, pa.int64()).cast(pa.timestamp("ns"))
    table = table_of(WRITTEN, datetime=when).drop_columns(["eo:cloud_cover"]).append_column("eo:cloud_cover", pa.array([[1.0, 2.0]] * 10))
    pq.write_table(table, tmp_path / "a.parquet")
    scenes, _, _ = scanned(of_files("geoparquet", tmp_path / "a.parquet"), JANUARY, tmp_path)
    assert {s["acquired"].isoformat() for s in scenes} == {"2025-01-15T10:00:00.123456+00:00"}
    assert {s["cloud_raw"] for s in scenes} == {"[1.0, 2.0]"}


def test_only_one_collection_of_a_dump(tmp_path: Path) -> None:
    others = [item(f"other-{k}", f"2025-03-{k + 1:02d}T00:00:00Z", collection="other") for k in range(5)]
    path = dump(tmp_path / "a.parquet", [*others, *WRITTEN])
    source = opened("geoparquet", path)
    assert names(source) == [i["id"] for i in WRITTEN]
    assert source.newest() == dt.datetime(2025, 1, 10, 10, tzinfo=dt.UTC)  # the other collection is not ours to go by
    source.require_collection()
    with pytest.raises(
        CatalogUnavailable, match=r"has no collection scene; it has: other, scenes; check collection_id in \[\[sensors\.sources\.test\]\]"
    ):
        keys(of_files("geoparquet", path, "scene"), tmp_path)
    with pytest.raises(CatalogUnavailable, match="has no collection scene;"):
        opened("geoparquet", path, "scene").require_collection()


def test_rows_that_name_no_collection(tmp_path: Path) -> None:
    bare = [{k: v for k, v in i.items() if k != "collection"} for i in WRITTEN]
    assert len(found(opened("geoparquet", dump(tmp_path / "none.parquet", bare)))) == 10
    assert len(found(opened("geoparquet", dump(tmp_path / "some.parquet", [*bare[:5], *WRITTEN[5:]])))) == 10
    with pytest.raises(CatalogUnavailable, match="it has: scenes"):  # a misspelt id does not get what names none
        found(opened("geoparquet", tmp_path / "some.parquet", "scene"))


def test_what_is_no_dump(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    cases: list[tuple[Path, type[CatalogError], str]] = [(folder / "missing.parquet", CatalogUnavailable, "does not exist")]

    def case(name: str, error: type[CatalogError], message: str, content: bytes | pa.Table) -> None:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(content, path)
        cases.append((path, error, message))

    table = table_of(WRITTEN)
    case("text.parquet", CatalogUnreadable, "cannot be read: .*text.parquet", b"<html>not a Parquet file</html>")
    case("none.parquet", CatalogUnreadable, "cannot be read", b"")
    case("no-id.parquet", CatalogUnreadable, "has no column id", table.drop_columns(["id"]))
    case("no-geometry.parquet", CatalogUnreadable, "has no column geometry", table.drop_columns(["geometry"]))
    case(
        "number.parquet", CatalogUnreadable, "the ids of .* are int64", table.drop_columns(["id"]).append_column("id", pa.array(range(10)))
    )
    native = pa.array([[[0.0, 1.0]]] * 10)
    case("native.parquet", CatalogUnreadable, "not WKB", table.drop_columns(["geometry"]).append_column("geometry", native))
    geo = {"columns": {"geometry": {"crs": json.loads(pyproj.CRS(32631).to_json())}}}
    case("projected.parquet", CatalogUnreadable, "projected", table.replace_schema_metadata({"geo": json.dumps(geo)}))
    case("empty.parquet", CatalogTruncated, "has no items at all", table.slice(0, 0))
    case("timeless.parquet", CatalogTruncated, "a usable time for none of its 10 items", table.drop_columns(["datetime"]))
    whole = dump(tmp_path / "whole.parquet", WRITTEN).read_bytes()
    case("cut.parquet", CatalogUnreadable, "cannot be read", whole[:-100])
    case("holed.parquet", CatalogUnreadable, "cannot be read", whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    for path, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            keys(of_files("geoparquet", path), tmp_path / "out")
        assert str(caught.value).startswith(f"test 2025-01: {path.name} (scenes) "), path
        assert not Store.below(tmp_path / "out").scenes("test", JANUARY).exists()
    (tmp_path / "hollow").mkdir()
    with pytest.raises(CatalogUnavailable, match=r"no file that ends in \.parquet"):
        keys(of_files("geoparquet", tmp_path / "hollow"), tmp_path / "out")
    dump(tmp_path / "mixed" / "a.parquet", WRITTEN)
    (tmp_path / "mixed" / "text.parquet").write_text("no")
    with pytest.raises(CatalogUnreadable, match=r"text\.parquet"):  # one bad file in a folder is an error, not a hole
        keys(of_files("geoparquet", tmp_path / "mixed"), tmp_path / "out")


@pytest.mark.parametrize("kind", ["geoparquet", "static"])
def test_a_dump_that_is_too_old_or_begins_later_is_no_empty_month(kind: SourceKind, tmp_path: Path) -> None:
    path = dump(tmp_path / "a.parquet", WRITTEN) if kind == "geoparquet" else static(tmp_path / "static", WRITTEN)
    one = of_files(kind, path)
    with pytest.raises(CatalogTruncated, match=r"ends before this month: its newest item is of 2025-01-10; renew the dump"):
        keys(one, tmp_path, Month(2025, 2))
    with pytest.raises(CatalogTruncated, match="begins after this month, on 2025-01-01"):
        keys(one, tmp_path, Month(2024, 12))
    with pytest.raises(CatalogTruncated):  # nor may it tell another source that there is nothing
        opened(kind, path).total(Window(WINDOW.start + dt.timedelta(days=60), WINDOW.end + dt.timedelta(days=60), 10), None)
    report = scanned(one, JANUARY, tmp_path)[2]
    assert (report.status, report.scenes) == ("provisional", 10)
    assert "newest item is of 2025-01-10" in report.reason


@pytest.mark.parametrize("kind", ["geoparquet", "static"])
def test_a_month_that_a_dump_passes_over_is_doubted_unless_it_is_a_pointed_sensors_region(kind: SourceKind, tmp_path: Path) -> None:
    around = [item("before", "2024-11-01T00:00:00Z"), item("after", "2025-03-01T00:00:00Z"), item("wrong", "2099-01-01T00:00:00Z")]
    path = dump(tmp_path / "a.parquet", around) if kind == "geoparquet" else static(tmp_path / "static", around)
    report = scanned(of_files(kind, path), JANUARY, tmp_path)[2]
    assert (report.status, report.scenes) == ("provisional", 0)
    assert "a file may be missing" in report.reason
    regional = of_files(kind, path)
    covering = replace(regional.available_sources[0], covers=(0.0, 40.0, 10.0, 60.0))
    systematic = replace(regional, available_sources=(covering,), taskable=False)
    report = scanned(systematic, JANUARY, tmp_path / "systematic")[2]
    assert (report.status, report.scenes, report.bbox) == ("provisional", 0, [0, 40, 10, 60])
    assert "a file may be missing" in report.reason
    report = scanned(replace(regional, available_sources=(covering,)), JANUARY, tmp_path / "pointed")[2]
    assert (report.status, report.scenes, report.bbox) == ("complete", 0, [0, 40, 10, 60])
    source = opened(kind, path)
    assert source.newest() == dt.datetime(2025, 3, 1, tzinfo=dt.UTC)  # a wrong time makes no dump fresh
    assert source.total(WINDOW, None) == 0


@pytest.mark.parametrize("kind", ["geoparquet", "static"])
def test_the_month_before_a_dump_of_one_month_is_not_known(kind: SourceKind, tmp_path: Path) -> None:
    """Its first item lies in the hour that is read beyond the month, which is no reason to call the month empty."""
    some = [item("first", "2025-02-01T00:10:00Z"), item("last", "2025-02-28T23:50:00Z")]
    path = dump(tmp_path / "a.parquet", some) if kind == "geoparquet" else static(tmp_path / "static", some)
    for month in (JANUARY, Month(2025, 3)):
        with pytest.raises(CatalogTruncated):
            keys(of_files(kind, path), tmp_path, month)


# --- places ---------------------------------------------------------------------------------------------------------------------------


def arcs_meet(west: int, east: int, other_west: int, other_east: int) -> bool:
    """Whether two arcs, eastwards from west to east in whole degrees, share a meridian: counted out, one meridian at a time."""

    def arc(a: int, b: int) -> set[int]:
        span = b - a if a <= b else b + 360 - a
        return {(a + k) % 360 for k in range(span + 1)}

    return bool(arc(west, east) & arc(other_west, other_east))


@st.composite
def boxes(draw: st.DrawFn, widest: int) -> BBox:
    west = draw(st.integers(-180, 180))
    east = west + draw(st.integers(0, widest))
    south = draw(st.integers(-90, 89))
    return west, south, east - 360 if east > 180 else east, draw(st.integers(south, 90))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(boxes(150), min_size=1, max_size=12), asked=boxes(359), kind=st.sampled_from(["struct", "list", "static"]))
def test_a_box_chooses_by_bbox_as_counted_out(tmp_path: Path, places: list[BBox], asked: BBox, kind: str) -> None:
    items = [item(f"{k:02d}", geometry=None, bbox=list(place)) for k, place in enumerate(places)]
    expected = [
        f"{k:02d}"
        for k, (west, south, east, north) in enumerate(places)
        if arcs_meet(west, east, asked[0], asked[2]) and south <= asked[3] and north >= asked[1]
    ]
    if kind == "static":
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        source = opened("static", path)
    else:
        source = opened("geoparquet", dump(tmp_path / "a.parquet", items, boxes=kind))
    assert names(source, bbox=asked) == expected
    assert source.total(WINDOW, asked) == len(expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(boxes(100), min_size=1, max_size=8), asked=boxes(359), cut=st.booleans(), still=st.booleans())
def test_a_box_chooses_by_geometry_where_there_is_no_bbox(tmp_path: Path, places: list[BBox], asked: BBox, cut: bool, still: bool) -> None:
    """Nothing that meets the box is lost, however an outline across the antimeridian is written; whatever else comes may lie anywhere."""

    def outline(west: float, south: float, east: float, north: float) -> dict[str, Any]:
        if west <= east or not cut:
            return dict(shapely.geometry.mapping(shapely.box(west, south, east, north + 0.5)))
        halves = [shapely.box(west, south, 180, north + 0.5), shapely.box(-180, south, east, north + 0.5)]
        return dict(shapely.geometry.mapping(shapely.MultiPolygon(halves)))

    items = [item(f"{k:02d}", geometry=outline(*place), bbox=None) for k, place in enumerate(places)]
    if still:
        (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        got = names(opened("static", tmp_path / "items.json"), bbox=asked)
    else:
        got = names(opened("geoparquet", dump(tmp_path / "a.parquet", items)), bbox=asked)
    for k, (west, south, east, north) in enumerate(places):
        meets = arcs_meet(west, east, asked[0], asked[2]) and south <= asked[3] and north + 0.5 >= asked[1]
        if meets:
            assert f"{k:02d}" in got
        elif west <= east:
            assert f"{k:02d}" not in got


@pytest.mark.parametrize("kind", ["geoparquet", "static"])
def test_bounds_that_leave_the_antimeridian_or_a_pole_out_lose_nothing(kind: SourceKind, tmp_path: Path) -> None:
    """Some writers take a bbox as smallest and largest longitude; and the bounds of an outline around a pole do not hold the pole."""
    around = {"type": "Polygon", "coordinates": [[[-180, 80], [-90, 80], [0, 80], [90, 80], [180, 80], [180, 81], [-180, 81], [-180, 80]]]}
    items = [
        item("naive", geometry=None, bbox=[-179.5, 0, 179.5, 1]),
        item("pole", geometry=around, bbox=None),
        item("here", geometry=None, bbox=[10, 0, 11, 1]),
        item("beyond", geometry=None, bbox=[190, 0, 191, 1]),
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    source = opened(kind, dump(tmp_path / "a.parquet", items) if kind == "geoparquet" else path)
    assert names(source, bbox=(179.8, 0, -179.8, 1)) == ["naive", "pole"]
    assert names(source, bbox=(0, 88, 10, 90)) == ["pole"]
    assert names(source, bbox=(-170.5, 0, -169.5, 1)) == ["beyond", "naive", "pole"]


# --- static catalogues ----------------------------------------------------------------------------------------------------------------


@contextmanager
def served_or_not(folder: Path, over: str) -> Iterator[str]:
    if over == "disk":
        yield str(folder / "catalog.json")
        return
    with over_http(folder) as address:
        yield f"{address}/catalog.json"


OVER = pytest.mark.parametrize("over", ["disk", "http"])


@OVER
def test_a_tree_of_every_kind_of_link(over: str, tmp_path: Path) -> None:
    """Nested catalogues, a link back, one document linked twice, feature collections in pages, items that name no collection."""
    folder = tmp_path / "static"
    static(folder, WRITTEN[:4])
    bare = [{k: v for k, v in i.items() if k != "collection"} for i in WRITTEN[4:6]]
    edit(folder / "scenes" / "collection.json", lambda d: d["links"].extend([
        {"rel": "items", "href": "items.json"}, {"rel": "child", "href": "../catalog.json"},
        {"rel": "child", "href": "deep%20er/catalog.json#x"},
        {"rel": "item", "href": f"./2025-01-01/{WRITTEN[0]['id']}.json"}, {"rel": "license", "href": "https://elsewhere.example/license"},
    ]))  # fmt: skip
    pages = [{"type": "FeatureCollection", "features": [one]} for one in bare]
    (folder / "scenes" / "items.json").write_text(json.dumps({**pages[0], "links": [{"rel": "next", "href": "items-2.json"}]}))
    (folder / "scenes" / "items-2.json").write_text(json.dumps(pages[1]))
    write(folder / "scenes" / "deep er" / "catalog.json", "Catalog", "deeper", [{"rel": "item", "href": "../../loose.json"}])
    (folder / "loose.json").write_text(json.dumps({k: v for k, v in WRITTEN[6].items() if k != "collection"}))
    write(folder / "other.json", "Collection", "other", [{"rel": "item", "href": "stray.json"}, {"rel": "item", "href": "theirs.json"}])
    (folder / "stray.json").write_text(json.dumps(WRITTEN[7]))
    (folder / "theirs.json").write_text(json.dumps({k: v for k, v in item("theirs").items() if k != "collection"}))
    # The loose item is first met outside of our collection, where it says nothing of being ours.
    edit(
        folder / "catalog.json",
        lambda d: d["links"].extend(
            [
                {"rel": "child", "href": "other.json"},
                {"rel": "item", "href": "loose.json"},
                {"rel": "item", "href": "scenes/2025-01-01/scene-0.json"},
            ]
        ),
    )
    with served_or_not(folder, over) as endpoint:
        assert names(opened("static", endpoint)) == [f"scene-{k}" for k in range(8)]
        assert keys(of_files("static", endpoint), tmp_path) == [f"scene-{k}" for k in range(8)]


@OVER
def test_relative_links_become_addresses_and_absolute_ones_stay(over: str, tmp_path: Path) -> None:
    static(tmp_path / "s", WRITTEN[:2])
    path = tmp_path / "s" / "scenes" / "2025-01-02" / "scene-1.json"
    edit(path, lambda d: d.update(links=[{"rel": "self", "href": "https://example.org/scene-1"}]))
    with served_or_not(tmp_path / "s", over) as endpoint:
        hrefs = {i["id"]: i["links"][0]["href"] for i in found(opened("static", endpoint))}
    root = endpoint.removesuffix("/catalog.json") if over == "http" else (tmp_path / "s").as_uri()
    assert hrefs == {"scene-0": f"{root}/scenes/2025-01-01/scene-0.json", "scene-1": "https://example.org/scene-1"}


def _links(href: Any, rel: str = "item") -> Callable[[dict[str, Any]], object]:
    return lambda document: document["links"].append({"rel": rel, "href": href})


BROKEN: list[tuple[str, Any, type[CatalogError], str]] = [
    ("a link to nothing", _links("./gone.json"), CatalogUnavailable, "gone.json"),
    ("another host", _links("http://127.0.0.2:9/x.json"), CatalogUnreadable, r"127\.0\.0\.2:9.*not followed"),
    ("another scheme", _links("ftp://example.org/x.json"), CatalogUnreadable, "ftp://example.org.*not followed"),
    ("HTML", _links("../page.json"), CatalogUnreadable, "(?i)not.*JSON.*page.json|page.json.*html"),
    ("JSON of something else", _links("../else.json", "child"), CatalogUnreadable, "no Catalog, Collection.*else.json"),
    ("a list", _links("../list.json"), CatalogUnreadable, "no Catalog, Collection.*list.json"),
    ("no address", _links(None), CatalogUnreadable, "the item link None of"),
    ("a number", _links(7, "child"), CatalogUnreadable, "the child link 7 of"),
    ("no URL", _links("http://[half"), CatalogUnreadable, r"http://\[half"),
    ("no links", lambda d: d.update(links=None), CatalogUnreadable, "without a list of links.*collection.json"),
    ("a link that is none", lambda d: d["links"].append("x"), CatalogUnreadable, "without a list of links"),
    ("features that are none", _links("../features.json", "items"), CatalogUnreadable, "without features.*features.json"),
    ("pages in a circle", _links("../circle.json", "items"), CatalogTruncated, "leads back.*circle.json"),
]


@OVER
@pytest.mark.parametrize(("change", "error", "message"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_broken_link_is_an_error_that_names_it(over: str, change: Any, error: type[CatalogError], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "static"
    static(folder, WRITTEN)
    (folder / "page.json").write_text("<html><body>Not Found</body></html>")
    (folder / "else.json").write_text('{"type": "Something", "links": []}')
    (folder / "list.json").write_text("[]")
    (folder / "features.json").write_text('{"type": "FeatureCollection"}')
    (folder / "circle.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": "circle.json"}]})
    )
    edit(folder / "scenes" / "collection.json", change)
    with served_or_not(folder, over) as endpoint, pytest.raises(error, match=message) as caught:
        keys(of_files("static", endpoint), tmp_path)
    assert str(caught.value).startswith("test 2025-01: ")
    assert " (scenes) " in str(caught.value)
    assert not Store.below(tmp_path).scenes("test", JANUARY).exists()


def test_no_file_outside_the_catalogue_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(item("secret")))
    (tmp_path / "static-beside").mkdir()
    (tmp_path / "static-beside" / "x.json").write_text(json.dumps(item("secret")))
    folder = tmp_path / "static"
    static(folder, WRITTEN)
    (folder / "scenes" / "link.json").symlink_to(secret)
    former = (folder / "scenes" / "collection.json").read_text()
    out = [
        *("../../secret.json", str(secret), secret.as_uri(), "/etc/passwd", "../../../../../../../etc/passwd", "..%2f..%2fsecret.json"),
        *("file://localhost/etc/passwd", "file://example.org/x.json", "link.json", "../../static-beside/x.json", "//example.org/x.json"),
    ]
    for href in out:
        (folder / "scenes" / "collection.json").write_text(former)
        edit(folder / "scenes" / "collection.json", _links(href))
        with pytest.raises(CatalogUnreadable, match="leads out of its folder") as caught:
            found(opened("static", folder))
        assert repr(href) in str(caught.value)
    for href in (str(folder / "loose.json"), (folder / "loose.json").as_uri(), "../loose.json", "../scenes/../loose.json"):
        (folder / "loose.json").write_text(json.dumps(item("loose")))
        (folder / "scenes" / "collection.json").write_text(former)
        edit(folder / "scenes" / "collection.json", _links(href))
        assert "loose" in names(opened("static", folder))


def test_what_is_no_catalogue(tmp_path: Path) -> None:
    (tmp_path / "hollow").mkdir()
    for endpoint, message in (("missing/catalog.json", "does not exist"), ("hollow", "without catalog.json or collection.json")):
        with pytest.raises(CatalogUnavailable, match=message):
            keys(of_files("static", tmp_path / endpoint), tmp_path)
    with pytest.raises(CatalogUnavailable, match="cannot be read from s3"):
        keys(of_files("static", "s3://bucket/catalog.json"), tmp_path)
    with over_http(tmp_path) as address, pytest.raises(CatalogUnavailable, match="answered 404"):
        keys(of_files("static", f"{address}/missing/catalog.json"), tmp_path)


@OVER
def test_collections_that_are_not_there_or_empty(over: str, tmp_path: Path) -> None:
    static(tmp_path / "s", WRITTEN)
    write(tmp_path / "s" / "hollow.json", "Collection", "hollow", [])
    edit(tmp_path / "s" / "catalog.json", _links("hollow.json", "child"))
    with served_or_not(tmp_path / "s", over) as endpoint:
        with pytest.raises(CatalogUnavailable, match=r"has no collection scene; it has: hollow, scenes; check collection_id"):
            keys(of_files("static", endpoint, "scene"), tmp_path)
        with pytest.raises(CatalogUnavailable, match="has no collection scene;"):
            opened("static", endpoint, "scene").require_collection()
        with pytest.raises(CatalogTruncated, match="has no items"):
            keys(of_files("static", endpoint, "hollow"), tmp_path)
        assert keys(of_files("static", endpoint.replace("catalog.json", "scenes/collection.json")), tmp_path) == names(
            opened("static", endpoint)
        )


def test_items_that_are_none_are_rejected_not_dropped(tmp_path: Path) -> None:
    static(tmp_path / "s", [*WRITTEN, item("never", None)])
    features = ["text", {"type": "Feature", "id": "hollow", "collection": "scenes"}, {**item("bare"), "geometry": None, "bbox": None}]
    (tmp_path / "s" / "scenes" / "more.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    edit(tmp_path / "s" / "scenes" / "collection.json", _links("more.json", "items"))
    for bbox in (None, (-180.0, -90.0, 180.0, 90.0)):
        scenes, rejected, _ = scanned(of_files("static", tmp_path / "s"), JANUARY, tmp_path / str(bbox), bbox)
        assert len(scenes) == 10
        assert sorted(r["reason"] for r in rejected) == [
            "geometry missing", "no time", "not a STAC item", "not a STAC item: id or properties missing",
        ]  # fmt: skip


def test_a_scan_that_goes_on_after_it_was_read_knows_how_old_it_is(tmp_path: Path) -> None:
    """What an earlier run has read is not read again, but the date of its newest item is still asked for."""
    assert opened("static", static(tmp_path / "s", WRITTEN)).newest() == dt.datetime(2025, 1, 10, 10, tzinfo=dt.UTC)
