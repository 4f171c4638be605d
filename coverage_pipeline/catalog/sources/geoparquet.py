"""STAC items from a GeoParquet dump: one file, or a folder of files, local or remote."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray

from coverage_pipeline.catalog.errors import CatalogError, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.http import HttpSession
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.catalog.sources.base import Window, WindowCount
from coverage_pipeline.catalog.sources.file_source import AHEAD, PAGE, TIMES, FileSource, Survey, bounds_of, meets_boxes, query_boxes
from coverage_pipeline.catalog.sources.geoparquet_rows import (
    Layout,
    Rows,
    column_values,
    dicts,
    is_binary,
    is_text,
    link_columns,
    row_bounds,
    row_boxes,
    self_links,
)
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.months import UTC
from coverage_pipeline.redaction import excerpt
from coverage_pipeline.scenes.schema import DEFAULT_CLOUD_FIELD
from coverage_pipeline.sensors.registry import AvailableSource
from coverage_pipeline.storage.bounded_http import RemoteFile, TransferError
from coverage_pipeline.storage.paths import is_local, storage_path

_TOP = ("type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "links", "assets", "properties")
"""Columns that are members of the item; all others are properties."""
_SUFFIXES = (".parquet", ".geoparquet")
MOST_DUMP_MB = 16 * 1024
"""Largest dump that is copied from a server without range requests; with range requests, a dump may have any size."""
_BATCH = 8192
"""Rows per decoded batch."""
_BROKEN = (pa.ArrowException, ValueError, TypeError, KeyError, AttributeError, RuntimeError)
"""Exceptions of pyarrow and others for damaged or unexpected content."""


class GeoParquetSource(FileSource):
    """One collection of a stac-geoparquet file, or of all ``*.parquet`` and ``*.geoparquet`` files below a folder.

    A row without a collection belongs to the source's collection, if another row names it, or if no row names any.
    """

    def __init__(self, source: AvailableSource, profile: ProviderProfile, patience: Patience, label: str) -> None:
        super().__init__(source, profile, patience, label)
        self._lock = threading.Lock()
        self._known: Survey | None = None

    @property
    def session(self) -> HttpSession | None:
        """None: the dump is read through fsspec."""
        return None

    def pages(self, window: Window, bbox: BBox | None, window_count: WindowCount) -> Iterator[list[Any]]:
        """Pages of items that may lie in the window and meet ``bbox`` (degrees; None: anywhere), with WKB geometry.

        Raises ``CatalogUnavailable`` if the dump or the collection is missing, ``CatalogUnreadable`` if the dump is no stac-geoparquet,
        ``CatalogTruncated`` if it does not cover the window.
        """
        self._require_month(self._survey(), window)
        page: list[Any] = []
        for rows, _ in self._selected(window, query_boxes(bbox)):
            page.extend(self._items(rows))
            while len(page) >= PAGE:
                window_count.pages += 1
                yield page[:PAGE]
                page = page[PAGE:]
        if page:
            window_count.pages += 1
            yield page

    def require_collection(self) -> None:
        """Raise ``CatalogUnavailable`` if the dump has other collections only, ``CatalogTruncated`` if it is empty."""
        self._require_items(self._survey())

    def total(self, window: Window, bbox: BBox | None) -> int:
        """Number of rows of the window that meet ``bbox``; raises as ``pages`` does."""
        self._require_month(self._survey(), window)
        return sum(timed for _, timed in self._selected(window, query_boxes(bbox)))

    def newest(self) -> dt.datetime | None:
        """Time of the collection's newest item; None if no item has a time."""
        return self._survey().newest

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except CatalogError:
            raise
        except FileNotFoundError:
            missing = f"is missing or cannot be reached: {name} does not exist; {self._hint}"
            raise self._failed(CatalogUnavailable, missing) from None
        except TransferError as error:
            raise self._failed(CatalogUnavailable, f"cannot be read: {error}; {self._hint}") from None
        except Exception as error:  # every file system has its own errors
            # Arrow reports damaged content as ValueError, or as OSError without errno.
            broken = isinstance(error, _BROKEN) or (isinstance(error, OSError) and error.errno is None)
            raise self._failed(
                CatalogUnreadable if broken else CatalogUnavailable,
                f"cannot be read: {name}: {type(error).__name__}: {excerpt(str(error))}; {self._hint}, and that it is stac-geoparquet",
            ) from None

    def _files(self) -> tuple[Any, list[str]]:
        """The file system, and the paths of all dump files; raises ``CatalogUnavailable`` if there is none."""
        with self._reading(self.source.endpoint):
            root = storage_path(self.source.endpoint)
            fs = root.fs
            if is_local(root):
                local = Path(root.path).expanduser()
                if local.is_file():
                    return fs, [str(local)]
                paths = _walk(local)
            else:
                fs.invalidate_cache()  # a long-running process would not see a renewed dump
                # HTTP has no folders: fsspec would list the links of a page.
                if root.protocol in ("http", "https"):
                    return fs, [self.source.endpoint]
                if fs.isfile(root.path):
                    return fs, [root.path]
                paths = sorted(fs.find(root.path))
                if not paths:
                    raise FileNotFoundError(self.source.endpoint)
        paths = [path for path in paths if path.lower().endswith(_SUFFIXES) and not path.rpartition("/")[2].startswith(".")]
        if not paths:
            raise self._failed(CatalogUnavailable, f"has no file that ends in {' or '.join(_SUFFIXES)}; {self._hint}")
        return fs, paths

    @contextlib.contextmanager
    def _opened(self, fs: Any, path: str) -> Iterator[tuple[pq.ParquetFile, Layout]]:
        """An open file with a checked layout; errors while it is open name the file."""
        with self._reading(path):
            # Few large reads of a remote file; small reads of a local one, which keep the memory small.
            root = storage_path(self.source.endpoint)
            local = is_local(root)
            options: dict[str, Any] = {"buffer_size": 1 << 20} if local else {"pre_buffer": True}
            with contextlib.ExitStack() as stack:
                if root.protocol in ("http", "https"):
                    file = stack.enter_context(self._remote(path))
                else:
                    file = stack.enter_context(fs.open(path, "rb", **({} if local else {"cache_type": "none"})))
                parquet = stack.enter_context(pq.ParquetFile(file, **options))
                yield parquet, self._layout(path, parquet)

    def _remote(self, address: str) -> RemoteFile:
        patience = self.patience
        return RemoteFile(
            address,
            most_bytes=MOST_DUMP_MB << 20,
            seconds=patience.answer_seconds,
            copy_seconds=patience.deadline_seconds,
            timeout=patience.timeout_seconds,
            netrc=self.profile.netrc,
        )

    def _layout(self, name: str, parquet: pq.ParquetFile) -> Layout:
        schema = parquet.schema_arrow
        types = {f.name: _storage(f.type) for f in schema}
        missing = [column for column in ("id", "geometry") if column not in types]
        if missing:
            raise self._failed(CatalogUnreadable, f"is no stac-geoparquet: {name} has no column {' and '.join(missing)}; {self._hint}")
        if not is_text(types["id"]):
            raise self._failed(CatalogUnreadable, f"is no stac-geoparquet: the ids of {name} are {types['id']}; {self._hint}")
        if not (is_binary(types["geometry"]) or pa.types.is_null(types["geometry"])):
            raise self._failed(
                CatalogUnreadable,
                f"has a geometry of type {excerpt(str(types['geometry']))}, not WKB, in {name}; write it with stac-geoparquet or rustac",
            )
        _require_degrees(schema)
        cloud = self.source.cloud_field or DEFAULT_CLOUD_FIELD
        properties = [
            column
            for column, kind in types.items()
            if column not in _TOP and (column == cloud or not (pa.types.is_nested(kind) or is_binary(kind)))
        ]
        nested = (
            ["properties"] if "properties" in types and (pa.types.is_struct(types["properties"]) or is_text(types["properties"])) else []
        )
        chosen_by = [*(column for column in ("collection", "bbox", *TIMES) if column in types), *nested]
        links = link_columns(types.get("links"), parquet.metadata)
        also = [column for column in ("type", "id", "geometry") if column in types]
        return Layout(chosen_by, [*dict.fromkeys([*also, *chosen_by, *properties, *links])], properties)

    def _survey(self) -> Survey:
        """Survey of collections and times, read once."""
        with self._lock:
            if self._known is None:
                self._known = self._surveyed()
            return self._known

    def _surveyed(self) -> Survey:
        latest = np.datetime64((dt.datetime.now(UTC) + AHEAD).replace(tzinfo=None), "us")
        by_name: dict[str | None, Survey] = {}
        fs, paths = self._files()
        for path in paths:
            with self._opened(fs, path) as (parquet, layout):
                columns = [column for column in layout.chosen_by if column != "bbox"]
                if not columns:  # neither collection nor time: count the rows
                    by_name.setdefault(None, Survey()).add(parquet.metadata.num_rows, None, None)
                    continue
                for batch in parquet.iter_batches(batch_size=1 << 16, columns=columns):
                    rows = Rows(batch)
                    times = [rows.times(name) for name in TIMES]
                    first, last = _first_of(times[0], times[1], times[2]), _first_of(times[0], times[2], times[1])
                    frame = pd.DataFrame({"first": first, "last": np.where(last <= latest, last, np.datetime64("NaT", "us"))})
                    column = rows.top("collection")
                    frame["name"] = None if column is None else pd.Series(column.to_pylist(), dtype=object)
                    for name, group in frame.groupby("name", dropna=False):
                        survey = by_name.setdefault(name if isinstance(name, str) else None, Survey())
                        survey.add(len(group), _utc(group["first"].min()), _utc(group["last"].max()))
        known = Survey(collections={name for name in by_name if name is not None})
        if not known.collections or self.source.collection_id in known.collections:
            for name in (None, self.source.collection_id):
                if name in by_name:
                    known.add(by_name[name].items, by_name[name].oldest, by_name[name].newest)
        return known

    def _selected(self, window: Window, boxes: list[BBox] | None) -> Iterator[tuple[Rows, int]]:
        """Batches of rows that may lie in the window and the boxes, each with its number of rows with a known time."""
        start, end = (np.datetime64(t.astimezone(UTC).replace(tzinfo=None), "us") for t in (window.start, window.end))
        fs, paths = self._files()
        for path in paths:
            with self._opened(fs, path) as (parquet, layout):
                for group in range(parquet.metadata.num_row_groups):
                    if _is_outside(parquet, group, window):
                        continue
                    # Read the filter columns first: most row groups of a large dump have no row of a month and area.
                    filter_batches = parquet.iter_batches(batch_size=1 << 16, row_groups=[group], columns=layout.chosen_by)
                    if layout.chosen_by and not any(self._chosen(Rows(batch), start, end, boxes)[0].any() for batch in filter_batches):
                        continue
                    for batch in parquet.iter_batches(batch_size=_BATCH, row_groups=[group], columns=layout.all):
                        rows = Rows(batch)
                        chosen, timed = self._chosen(rows, start, end, boxes)
                        if chosen.any():
                            yield Rows(rows.batch.filter(pa.array(chosen))), int((chosen & timed).sum())

    def _chosen(
        self, rows: Rows, start: np.datetime64, end: np.datetime64, boxes: list[BBox] | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks (n,): rows that may be of the collection, window and boxes; rows with a datetime or start_datetime."""
        when, since, until = (rows.times(name) for name in TIMES)
        last = np.fmax(since, until)
        outside = np.where(np.isnat(when), (since > end) | (~np.isnat(since) & (last < start)), (when < start) | (when > end))
        timed = ~np.isnat(when) | ~np.isnat(since)
        chosen: NDArray[np.bool_] = ~outside
        collection = rows.top("collection")
        if collection is not None and not pa.types.is_null(collection.type):
            chosen &= pc.fill_null(pc.equal(collection, self.source.collection_id), True).to_numpy(zero_copy_only=False)
        if boxes is not None:
            bounds = row_bounds(rows)
            unbounded = np.flatnonzero(~np.isfinite(bounds).all(axis=1) & chosen)
            geometry = rows.top("geometry")
            if geometry is not None and unbounded.size:
                wkb = np.array(geometry.take(pa.array(unbounded)).to_pylist(), dtype=object)
                bounds[unbounded] = bounds_of(shapely.from_wkb(wkb, on_invalid="ignore"))
            chosen &= meets_boxes(bounds, boxes)
        return chosen, timed

    def _items(self, rows: Rows) -> list[dict[str, Any]]:
        """STAC item dictionaries, one per row, without members that the row lacks."""
        names = [name for name in rows.batch.schema.names if name not in _TOP]
        properties = dicts(names, [column_values(rows.batch.column(name)) for name in names], len(rows))
        if rows.nested is not None:
            properties = [
                {**nested, **{k: v for k, v in row.items() if v is not None}} for nested, row in zip(rows.nested, properties, strict=True)
            ]
        top = {name: column.to_pylist() for name in ("type", "id", "collection", "geometry") if (column := rows.top(name)) is not None}
        items = dicts(list(top), list(top.values()), len(rows))
        for item, row_properties, href, box in zip(items, properties, self_links(rows), row_boxes(rows), strict=True):
            item["properties"] = row_properties
            item["links"] = [] if href is None else [{"rel": "self", "href": href}]
            if box is not None:
                item["bbox"] = box
        return items


def _walk(folder: Path) -> list[str]:
    """All files below a folder, through links to folders. Raises ``OSError`` if one cannot be listed, so that no file is missed."""

    def fail(error: OSError) -> None:
        raise error

    if not folder.is_dir():
        raise FileNotFoundError(str(folder))
    paths: list[str] = []
    visited: set[str] = set()
    for directory, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(directory)
        if real in visited:
            folders.clear()  # a link back to a visited folder
            continue
        visited.add(real)
        paths += [os.path.join(directory, file) for file in files]  # noqa: PTH118 a walk of many files
    return sorted(paths)


def _storage(kind: pa.DataType) -> pa.DataType:
    """Storage type, without extension and dictionary."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _require_degrees(schema: pa.Schema) -> None:
    """Raise ``ValueError`` if the GeoParquet metadata has a projected CRS; the default is longitude and latitude."""
    geo = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
    crs = geo.get("columns", {}).get("geometry", {}).get("crs")
    if crs is not None and pyproj.CRS.from_user_input(crs).is_projected:
        raise ValueError("its geometry has a projected CRS, but STAC requires longitude and latitude")


def _is_outside(parquet: pq.ParquetFile, group: int, window: Window) -> bool:
    """Whether the statistics of a row group show that each row has a ``datetime``, and none lies in the window."""
    schema, metadata = parquet.metadata.schema, parquet.metadata.row_group(group)
    for k in range(metadata.num_columns):
        if schema.column(k).path != "datetime":
            continue
        try:
            statistics = metadata.column(k).statistics
            if statistics is None or not statistics.has_min_max or not statistics.has_null_count or statistics.null_count:
                return False
            low, high = statistics.min, statistics.max
        except (ValueError, OverflowError, pa.ArrowException):
            return False  # times beyond the range of Python
        if not isinstance(low, dt.datetime) or not isinstance(high, dt.datetime):
            return False
        return _as_utc(high) < window.start or _as_utc(low) > window.end
    return False


def _as_utc(when: dt.datetime) -> dt.datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _utc(when: Any) -> dt.datetime | None:
    """A naive pandas time as UTC; None for NaT."""
    return None if pd.isna(when) else pd.Timestamp(when).to_pydatetime().replace(tzinfo=UTC)


def _first_of(*times: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """First known time of each row (n,)."""
    first = times[0]
    for other in times[1:]:
        first = np.where(np.isnat(first), other, first)
    return first
