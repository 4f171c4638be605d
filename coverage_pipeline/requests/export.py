"""A backlog in the forms that download tools take: one ItemCollection, and lists that are views of it.

The items are asked for again by id, with their assets. An item that has vanished, or lacks an asset that is wanted, is named; the others
are written. Links are never signed.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import urlsplit

import pyarrow as pa
import rustac
import shapely

from coverage_pipeline.catalog.answers import dict_of
from coverage_pipeline.catalog.items_by_id import WantedItem, fetch_items
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.redaction import printable
from coverage_pipeline.sensors.downloads import Download, download_of
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.files import write_bytes
from coverage_pipeline.storage.paths import storage_path

ExportFormat = Literal["itemcollection", "geoparquet", "csv", "aria2", "s5cmd", "earthaccess"]
EXPORT_SUFFIX: Mapping[ExportFormat, str] = {
    "itemcollection": "json", "geoparquet": "parquet", "csv": "csv", "aria2": "aria2.txt", "s5cmd": "s5cmd.txt", "earthaccess": "links.txt",
}  # fmt: skip
"""How the name of a file of each form ends."""
_CSV_COLUMNS = (
    "rank", "sensor", "scene_key", "item_id", "collection", "datetime", "cloud_cover", "asset", "href", "bytes_of_scene", "bytes_stated",
    "login", "closes",
)  # fmt: skip
_LINKS = ("self", "via", "license", "collection")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class ExportError(PlannerError):
    """A backlog cannot be written in the form that was asked for."""


@dataclass(frozen=True)
class Export:
    """Items of a backlog, ready to be written."""

    items: list[dict[str, Any]]
    """Each provider's own JSON with the wanted assets alone, and ours under the prefix ``planner:``; in the order of the ranks."""
    rows: list[dict[str, Any]]
    """The backlog's row of each."""
    problems: list[str] = field(default_factory=list)
    """What could not be had, a sentence each."""


def export_items(
    chosen: pa.Table,
    sensors: Mapping[str, CoverageSensor],
    options: ScanOptions,
    *,
    downloads: Mapping[str, Download] | None = None,
) -> Export:
    """Ask for the items of the chosen rows of a backlog (``BACKLOG_SCHEMA``), and keep of each the assets that are wanted.

    A scene of several parts is several items. What could not be had is in ``problems``.
    """
    rows = chosen.to_pylist()
    wanted, owner = [], []
    for number, row in enumerate(rows):
        for place, item_id in enumerate(row["item_ids"]):
            href = row["item_href"] if place == 0 else None
            wanted.append(WantedItem(row["sensor"], row["provider"], row["collection"], item_id, href))
            owner.append(number)
    items, kept, problems = [], [], []
    for number, answer in zip(owner, fetch_items(wanted, sensors, options), strict=True):
        row = rows[number]
        if answer.item is None:
            problems.append(answer.problem or f"{answer.wanted.item_id} cannot be had")
            continue
        facts = download_of(row["sensor"], row["provider"], downloads)
        item, lacking = _with_wanted_assets(answer.item, row, facts)
        if lacking:
            problems.append(f"{row['sensor']} {answer.wanted.item_id}: {row['provider']} lists no asset {', '.join(lacking)}")
        if item["assets"]:
            items.append(item)
            kept.append(row)
        elif not lacking:
            problems.append(f"{row['sensor']} {answer.wanted.item_id}: {row['provider']} lists no asset to download")
    return Export(items, kept, problems)


def _with_wanted_assets(item: Mapping[str, Any], row: Mapping[str, Any], facts: Download) -> tuple[dict[str, Any], list[str]]:
    """The item with the wanted assets alone and our facts, and the wanted keys that it lacks."""
    assets = {
        str(key): dict(asset)
        for key, asset in dict_of(item.get("assets")).items()
        if isinstance(asset, dict) and isinstance(asset.get("href"), str)
    }
    if facts.assets:
        keys = [key for key in facts.assets if key in assets]
        lacking = [key for key in facts.assets if key not in assets]
    else:
        data = [key for key, asset in assets.items() if "data" in (asset.get("roles") or [])]
        keys, lacking = data or list(assets), []
    size, stated = _size(assets, keys, facts)
    extensions = [str(name) for name in item.get("stac_extensions") or []]
    ours = {
        "planner:rank": row["rank"],
        "planner:offer": row["offer"],
        "planner:sensor": row["sensor"],
        "planner:scene_key": row["scene_key"],
        "planner:closes": [f"{one['target']} {row['month']}-{one['day']:02} ({one['of']})" for one in row["closes"]],
        "planner:days_closed": row["days_closed"],
        "planner:bytes": size,
        "planner:bytes_stated": stated,
        "planner:login": row["login"],
        "planner:upgrade": row["upgrade"],
    }
    properties = {**dict_of(item.get("properties")), **ours}
    geometry, bbox = item.get("geometry"), item.get("bbox")
    if geometry is None:  # a granule, whose outline the scan has
        shape = shapely.from_wkb(row["geometry"])
        geometry, bbox = json.loads(shapely.to_geojson(shape)), list(shape.bounds)
    if not properties.get("datetime") and not properties.get("start_datetime"):
        properties["datetime"] = row["pass_time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    whole = {
        **item,
        "stac_extensions": extensions,
        "geometry": geometry,
        **({} if bbox is None else {"bbox": bbox}),
        "properties": properties,
        "links": [link for link in item.get("links") or [] if isinstance(link, dict) and link.get("rel") in _LINKS],
        "assets": {key: assets[key] for key in keys},
    }
    return whole, lacking


def _size(assets: Mapping[str, Mapping[str, Any]], keys: Sequence[str], facts: Download) -> tuple[int, bool]:
    """Bytes of the wanted assets, and whether the provider states them all."""
    sizes = [assets[key].get("file:size") for key in keys]
    if sizes and all(isinstance(size, int) and size > 0 for size in sizes):
        return sum(int(size) for size in sizes if size is not None), True
    return round(facts.scene_mb * 1e6), False


def rendered(export: Export, form: ExportFormat) -> bytes:
    """The export in one form; raises ``ExportError`` where the form can hold none of it.

    ``itemcollection``: a STAC ItemCollection. ``geoparquet``: stac-geoparquet. ``csv``: one row an asset. ``aria2``: the input file of
    ``aria2c -i``. ``s5cmd``: commands of ``s5cmd run``. ``earthaccess``: https links, one a line.
    """
    match form:
        case "itemcollection":
            document = {"type": "FeatureCollection", "features": export.items}
            return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode()
        case "geoparquet":
            return _stac_geoparquet(export)
        case "csv":
            return _as_csv(export)
        case "aria2":
            return _lines(_aria2(export), "an https link", form)
        case "s5cmd":
            return _lines(
                [f"cp {_quoted(href)} {_quoted(folder + '/' + name)}" for href, folder, name in _files(export, ("s3",))], "an s3 link", form
            )
        case "earthaccess":
            return _lines([href for href, _, _ in _files(export, ("https", "http"))], "an https link", form)


def _lines(lines: Sequence[str], what: str, form: str) -> bytes:
    if not lines:
        raise ExportError(f"no asset of the chosen scenes has {what}, which {form} needs; use --format itemcollection")
    return ("\n".join(lines) + "\n").encode()


def _aria2(export: Export) -> list[str]:
    return [line for href, folder, name in _files(export, ("https", "http")) for line in (href, f"  dir={folder}", f"  out={name}")]


def _files(export: Export, schemes: Sequence[str]) -> list[tuple[str, str, str]]:
    """Link, folder and file name of each asset that has a link of one of the schemes; its own link before an alternate one."""
    files = []
    for item in export.items:
        folder = f"{_safe(item.get('collection') or 'items')}/{_safe(item['id'])}"
        used: set[str] = set()
        for key, asset in item["assets"].items():
            href = next((link for link in _links(asset) if urlsplit(link).scheme in schemes), None)
            if href is None or any(mark in href for mark in "\r\n\t "):
                continue
            name = _safe(urlsplit(href).path.rpartition("/")[2]) or _safe(key)
            name = name if name not in used and name not in (".", "..") else f"{_safe(key)}-{name}"
            used.add(name)
            files.append((href, folder, name))
    return files


def _links(asset: Mapping[str, Any]) -> list[str]:
    alternates = asset.get("alternate")
    others = alternates.values() if isinstance(alternates, dict) else []
    return [str(asset["href"]), *(str(one["href"]) for one in others if isinstance(one, dict) and isinstance(one.get("href"), str))]


def _safe(name: object) -> str:
    """A part of a path: letters, digits, dot, dash and underscore; a provider's text may hold anything."""
    return _UNSAFE.sub("_", str(name)).lstrip(".") or "_"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _as_csv(export: Export) -> bytes:
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(_CSV_COLUMNS)
    for item, row in zip(export.items, export.rows, strict=True):
        ours = item["properties"]
        for key, asset in item["assets"].items():
            scene = [row["rank"], row["sensor"], row["scene_key"], item["id"], item.get("collection"), row["pass_time"].isoformat()]
            cells = [*scene, row["cloud_cover"], key, asset["href"], ours["planner:bytes"], ours["planner:bytes_stated"], row["login"]]
            cells.append("; ".join(ours["planner:closes"]))
            table.writerow([_cell(value) for value in cells])
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    text = printable(value, 10_000) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@") else text


def _stac_geoparquet(export: Export) -> bytes:
    if not export.items:
        raise ExportError("no item could be had, so there is nothing to write as stac-geoparquet")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"

        async def write() -> None:  # rustac asks for the running loop when it is called, not when it is awaited
            await rustac.write(str(path), export.items)

        asyncio.run(write())
        return path.read_bytes()


def write_export(export: Export, form: ExportFormat, out: Path | str) -> None:
    """Write an export as a whole file or not at all."""
    write_bytes(storage_path(out), rendered(export, form))
