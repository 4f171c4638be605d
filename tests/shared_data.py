"""Where the recorded catalogue data lies, and how a test says that it is absent.

The data is never part of the project. Beside a plain clone a test that needs it skips and says why; in CI it must be there.
"""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data() -> Path:
    """The folder of recorded data; skips the test where it is absent, fails it in CI."""
    if SHARED.is_dir():
        return SHARED
    message = f"recorded catalogue data not found at {SHARED}"
    if os.environ.get("CI"):
        pytest.fail(f"{message}: CI must run beside it")
    pytest.skip(message)


def item_files() -> list[str]:
    """Names of every file of recorded items; empty where the data is absent (for parametrisation)."""
    return sorted(path.name for path in (SHARED / "items").iterdir()) if SHARED.is_dir() else []


@cache
def _read(name: str) -> str:
    path = SHARED / "items" / name
    if name.endswith(".ndjson.gz"):
        with gzip.open(path, "rt") as lines:
            return "[" + ",".join(line for line in lines if line.strip()) + "]"
    if name.endswith(".parquet"):
        return json.dumps(_items_from_parquet(path))
    if name.endswith(".js"):  # `export const coverages = [ {...}, ]`: footprints with start and end only
        text = path.read_text()
        return text[text.index("[") : text.rindex("]")].rstrip().rstrip(",") + "]"
    raise ValueError(f"no reader for {name}")


def read_items(name: str) -> list[dict[str, Any]]:
    """STAC items (or, for EMIT, bare features) of one recorded file, fresh dictionaries on each call."""
    shared_data()
    items: list[dict[str, Any]] = json.loads(_read(name))
    return items


def _items_from_parquet(path: Path) -> list[dict[str, Any]]:
    table = pq.read_table(path)
    top = {"type", "stac_version", "stac_extensions", "id", "links", "assets", "collection", "bbox", "geometry"}
    items = []
    for row in table.to_pylist():
        properties = {k: v for k, v in row.items() if k not in top}
        for key, value in properties.items():
            if hasattr(value, "isoformat"):
                properties[key] = value.isoformat().replace("+00:00", "Z")
        box = row["bbox"]
        items.append(
            {
                "type": "Feature",
                "stac_version": row["stac_version"],
                "stac_extensions": row["stac_extensions"],
                "id": row["id"],
                "collection": row["collection"],
                "geometry": json.loads(shapely.to_geojson(shapely.from_wkb(row["geometry"]))),
                "bbox": [box["xmin"], box["ymin"], box["xmax"], box["ymax"]],
                "properties": properties,
                "links": [{k: v for k, v in link.items() if v is not None} for link in row["links"]],
                "assets": {},
            }
        )
    return items
