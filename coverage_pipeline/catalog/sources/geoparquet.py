"""Catalogues that are files: stac-geoparquet dumps and static STAC catalogues, for who has no API at hand or wants none.

A file never says "there is more", and it grows old without notice. So what is asked of it is held against the times of its own items:
a dump that ends before the month that is asked for, begins after it, or has nothing of the collection is an error, never an empty month.
What a dump of *part* of a month lacks cannot be seen in it: one that ends within the month is provisional by its newest item
(``scan``), but one that begins within the month is taken for whole, as some months do begin late.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray

from coverage_pipeline.catalog.errors import CatalogError, CatalogTruncated, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.http import Patience, Wire, excerpt
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.catalog.sources.base import BBox, Tally, Window
from coverage_pipeline.grid.spec import split_bbox
from coverage_pipeline.months import UTC
from coverage_pipeline.scenes.items import DEFAULT_CLOUD_FIELD
from coverage_pipeline.scenes.scene_key import parse_time
from coverage_pipeline.sensors.registry import AvailableSource
from coverage_pipeline.storage.bounded_http import RemoteFile, TransferError
from coverage_pipeline.storage.store import is_local, storage_path

PAGE = 1000
"""Items a page, at most."""

_MARGIN = dt.timedelta(hours=1)
"""How much wider than the months a scan's window is, on each side (``scan``)."""

_AHEAD = dt.timedelta(days=1)
"""An item later than so long from now has a wrong time, which must not make its dump look fresh."""


@dataclass
class _Survey:
    """What a dump has, whichever month and place is asked for."""

    items: int = 0
    """Items of our collection."""
    oldest: dt.datetime | None = None
    newest: dt.datetime | None = None
    collections: set[str] = field(default_factory=set)
    """Ids of all collections in it."""

    def seen(self, items: int, oldest: dt.datetime | None, newest: dt.datetime | None) -> None:
        """Take more items of our collection, and the first and last of their times (None: none has one)."""
        self.items += items
        if oldest is not None:
            self.oldest = oldest if self.oldest is None else min(self.oldest, oldest)
        if newest is not None:
            self.newest = newest if self.newest is None else max(self.newest, newest)


class _FileSource:
    """What both kinds share: how they fail, and when a dump can say nothing of a month."""

    windowed = False
    item_root: str | None = None

    def __init__(self, source: AvailableSource, profile: ProviderProfile, patience: Patience, what: str) -> None:
        """``what`` names the sensor and month in every error."""
        self.source = source
        self.profile = profile
        self.patience = patience
        self.what = what
        self._section = f"[[sensors.sources.{what.split()[0]}]]"
        self._way = f"check endpoint in {self._section}"

    def _failed(self, kind: type[CatalogError], message: str) -> CatalogError:
        return kind(self.source.public(f"{self.what}: {self.source.provider} ({self.source.collection_id}) {message}"))

    def _require_items(self, survey: _Survey) -> None:
        ours = self.source.collection_id
        if survey.collections and ours not in survey.collections:
            others = sorted(survey.collections)
            shown = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
            raise self._failed(CatalogUnavailable, f"has no collection {ours}; it has: {shown}; check collection_id in {self._section}")
        if not survey.items:
            raise self._failed(CatalogTruncated, f"has no items at all, which says nothing of any month; {self._way}, or renew the dump")

    def _require_month(self, survey: _Survey, window: Window) -> None:
        """Raise where the dump has nothing of the collection, or ends before the window's months or begins after them."""
        self._require_items(survey)
        if survey.oldest is None or survey.newest is None:
            raise self._failed(
                CatalogTruncated,
                f"says of none of its {survey.items} items when it was taken (or says a time that is still to come), so it cannot be told "
                f"whether it has this month; {self._way}",
            )
        if survey.newest < window.start + _MARGIN:
            raise self._failed(
                CatalogTruncated,
                f"cannot tell: its newest item is of {survey.newest:%Y-%m-%d}, before this month: the dump is older than what is asked "
                "for; renew it",
            )
        if survey.oldest >= window.end - _MARGIN:
            raise self._failed(
                CatalogTruncated,
                f"cannot tell: it begins on {survey.oldest:%Y-%m-%d}, after this month; name a dump that has it, or another source",
            )


def _boxes(bbox: BBox | None) -> list[BBox] | None:
    return None if bbox is None else [(b[0], b[1], b[2], b[3]) for b in split_bbox(bbox)]


def _meets(bounds: NDArray[np.float64], boxes: Sequence[BBox]) -> NDArray[np.bool_]:
    """Which bounds, (n, 4): west, south, east, north in degrees, may touch one of the boxes (west <= east); those unknown (NaN) do.

    West > east crosses the antimeridian. More than half a turn is no scene but one across the antimeridian whose bounds were taken
    without regard to it, so that it may lie at any longitude.
    """
    west, south, east, north = bounds.T
    east = np.where(west > east, east + 360, east)
    unknown = ~np.isfinite(bounds).all(axis=1) | (south > north)
    anywhere = east - west > 180
    found: NDArray[np.bool_] = unknown.copy()
    for box_west, box_south, box_east, box_north in boxes:
        beside = anywhere.copy()
        for turn in (-720, -360, 0, 360, 720):  # some write longitudes beyond ±180
            beside |= (west + turn <= box_east) & (east + turn >= box_west)
        found |= beside & (south <= box_north) & (north >= box_south)
    return found


def _bounds_of(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """Bounds (n, 4) of geometries; NaN, which is anywhere, for none, and for one so wide that it may lie around a pole."""
    bounds: NDArray[np.float64] = shapely.bounds(shapes)
    bounds[bounds[:, 2] - bounds[:, 0] > 180] = np.nan
    return bounds


# --- stac-geoparquet ------------------------------------------------------------------------------------------------------------------

_TOP = ("type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "links", "assets", "properties")
"""Columns that are members of the item itself; all others are properties."""
_TIMES = ("datetime", "start_datetime", "end_datetime")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_CORNERS_3D = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")
_SUFFIXES = (".parquet", ".geoparquet")
MOST_DUMP_MB = 16 * 1024
"""The largest dump that is copied from a server that gives no parts of it; one that gives parts may be of any size."""
_BATCH = 8192
"""Rows decoded at a time."""
_BROKEN = (pa.ArrowException, ValueError, TypeError, KeyError, AttributeError, RuntimeError)
"""What reading raises for content that is not as it should be."""


@dataclass(frozen=True)
class _Layout:
    """Which columns of one file are read, as Parquet names them."""

    chosen_by: list[str]
    """What tells whether a row is ours."""
    all: list[str]
    properties: list[str]
    """Top-level columns that are properties."""


class _Rows:
    """Rows of one batch: its columns as plain arrays, wherever the file has them."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = pa.RecordBatch.from_arrays([_plain(column) for column in batch.columns], names=batch.schema.names)
        self._nested: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def top(self, name: str) -> pa.Array | None:
        """A column, without extension type and dictionary; None where the file has none."""
        return self.batch.column(name) if name in self.batch.schema.names else None

    @property
    def nested(self) -> list[dict[str, Any]] | None:
        """What a column ``properties`` holds, where there is one: some writers do not spread it."""
        column = self.top("properties")
        if self._nested is None and column is not None:
            if pa.types.is_struct(column.type):
                names = [f.name for f in column.type]
                spread = _dicts(names, [_values(pc.struct_field(column, name)) for name in names], len(self))
                self._nested = [{k: v for k, v in row.items() if v is not None} for row in spread]
            else:
                self._nested = [_json_object(text) for text in column.to_pylist()]
        return self._nested

    def times(self, name: str) -> NDArray[np.datetime64]:
        """Instants (n,), UTC, microseconds; NaT where there is none or it cannot be read."""
        found = np.full(len(self), np.datetime64("NaT", "us"))
        column = self.top(name)
        if column is not None:
            found = _instants(column)
        if self.nested is not None:
            texts = [value if isinstance(value := row.get(name), str) else None for row in self.nested]
            found = np.where(np.isnat(found), _instants(pa.array(texts, pa.string())), found)
        return found


class GeoParquetSource(_FileSource):
    """A stac-geoparquet file, or all ``*.parquet`` and ``*.geoparquet`` below a folder, one collection of it.

    A row that names no collection belongs to the one that is asked for, if some other row names that, or none names any.
    """

    def __init__(self, source: AvailableSource, profile: ProviderProfile, patience: Patience, what: str) -> None:
        super().__init__(source, profile, patience, what)
        self._lock = threading.Lock()
        self._known: _Survey | None = None

    @property
    def wire(self) -> Wire | None:
        """It is read by the file system's own means."""
        return None

    def pages(self, window: Window, bbox: BBox | None, tally: Tally) -> Iterator[list[Any]]:
        """Pages of items that may be of the window and meet ``bbox`` (degrees; None: anywhere), their geometry as WKB.

        Raises ``CatalogUnavailable`` where the dump or the collection is not there, ``CatalogUnreadable`` where it is no stac-geoparquet,
        ``CatalogTruncated`` where it can say nothing of the window.
        """
        self._require_month(self._survey(), window)
        page: list[Any] = []
        for rows, _ in self._selected(window, _boxes(bbox)):
            page.extend(self._items(rows))
            while len(page) >= PAGE:
                tally.pages += 1
                yield page[:PAGE]
                page = page[PAGE:]
        if page:
            tally.pages += 1
            yield page

    def require_collection(self) -> None:
        """Raise ``CatalogUnavailable`` where no row is of the collection."""
        self._require_items(self._survey())

    def total(self, window: Window, bbox: BBox | None) -> int:
        """Rows of the window that meet ``bbox``; a dump that can say nothing of it raises as ``pages`` does."""
        self._require_month(self._survey(), window)
        return sum(timed for _, timed in self._selected(window, _boxes(bbox)))

    def newest(self) -> dt.datetime | None:
        """The time of the collection's newest item; None where none has one."""
        return self._survey().newest

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except CatalogError:
            raise
        except FileNotFoundError:
            missing = f"is not there, or cannot be reached: {name} does not exist; {self._way}"
            raise self._failed(CatalogUnavailable, missing) from None
        except TransferError as error:
            raise self._failed(CatalogUnavailable, f"cannot be read: {error}; {self._way}") from None
        except Exception as error:  # every file system has errors of its own
            # Arrow tells of broken content by a ValueError, or by an OSError that the system knows nothing of.
            broken = isinstance(error, _BROKEN) or (isinstance(error, OSError) and error.errno is None)
            raise self._failed(
                CatalogUnreadable if broken else CatalogUnavailable,
                f"cannot be read: {name}: {type(error).__name__}: {excerpt(str(error))}; {self._way}, and that it is stac-geoparquet",
            ) from None

    def _files(self) -> tuple[Any, list[str]]:
        """The file system, and the paths of all files in it; raises ``CatalogUnavailable`` where there is none."""
        with self._reading(self.source.endpoint):
            root = storage_path(self.source.endpoint)
            fs = root.fs
            if is_local(root):
                local = Path(root.path).expanduser()
                if local.is_file():
                    return fs, [str(local)]
                paths = _walk(local)
            else:
                fs.invalidate_cache()  # a process that lives long would not see a renewed dump
                # No folders over http: what is below an address is whatever a page happens to link to.
                if root.protocol in ("http", "https"):
                    return fs, [self.source.endpoint]
                if fs.isfile(root.path):
                    return fs, [root.path]
                paths = sorted(fs.find(root.path))
                if not paths:
                    raise FileNotFoundError(self.source.endpoint)
        paths = [path for path in paths if path.lower().endswith(_SUFFIXES) and not path.rpartition("/")[2].startswith(".")]
        if not paths:
            raise self._failed(CatalogUnavailable, f"has no file that ends in {' or '.join(_SUFFIXES)}; {self._way}")
        return fs, paths

    @contextlib.contextmanager
    def _opened(self, fs: Any, path: str) -> Iterator[tuple[pq.ParquetFile, _Layout]]:
        """One file, checked; whatever goes wrong with it while it is open names it."""
        with self._reading(path):
            # A remote file is read in few large ranges; a local one in small ones, which keeps the memory small.
            root = storage_path(self.source.endpoint)
            local = is_local(root)
            how: dict[str, Any] = {"buffer_size": 1 << 20} if local else {"pre_buffer": True}
            with contextlib.ExitStack() as stack:
                if root.protocol in ("http", "https"):
                    file = stack.enter_context(self._remote(path))
                else:
                    file = stack.enter_context(fs.open(path, "rb", **({} if local else {"cache_type": "none"})))
                parquet = stack.enter_context(pq.ParquetFile(file, **how))
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

    def _layout(self, name: str, parquet: pq.ParquetFile) -> _Layout:
        schema = parquet.schema_arrow
        types = {f.name: _storage(f.type) for f in schema}
        missing = [column for column in ("id", "geometry") if column not in types]
        if missing:
            raise self._failed(CatalogUnreadable, f"is no stac-geoparquet: {name} has no column {' and '.join(missing)}; {self._way}")
        if not _is_text(types["id"]):
            raise self._failed(CatalogUnreadable, f"is no stac-geoparquet: the ids of {name} are {types['id']}; {self._way}")
        if not (_is_binary(types["geometry"]) or pa.types.is_null(types["geometry"])):
            raise self._failed(
                CatalogUnreadable,
                f"has a geometry that is not WKB in {name}, but {excerpt(str(types['geometry']))}; write it with stac-geoparquet or rustac",
            )
        _require_degrees(schema)
        cloud = self.source.cloud_field or DEFAULT_CLOUD_FIELD
        properties = [
            column
            for column, kind in types.items()
            if column not in _TOP and (column == cloud or not (pa.types.is_nested(kind) or _is_binary(kind)))
        ]
        nested = (
            ["properties"] if "properties" in types and (pa.types.is_struct(types["properties"]) or _is_text(types["properties"])) else []
        )
        chosen_by = [*(column for column in ("collection", "bbox", *_TIMES) if column in types), *nested]
        links = _link_columns(types.get("links"), parquet.metadata)
        also = [column for column in ("type", "id", "geometry") if column in types]
        return _Layout(chosen_by, [*dict.fromkeys([*also, *chosen_by, *properties, *links])], properties)

    def _survey(self) -> _Survey:
        """One reading of the columns that tell collections and times; made once."""
        with self._lock:
            if self._known is None:
                self._known = self._surveyed()
            return self._known

    def _surveyed(self) -> _Survey:
        latest = np.datetime64((dt.datetime.now(UTC) + _AHEAD).replace(tzinfo=None), "us")
        by_name: dict[str | None, _Survey] = {}
        fs, paths = self._files()
        for path in paths:
            with self._opened(fs, path) as (parquet, layout):
                columns = [column for column in layout.chosen_by if column != "bbox"]
                if not columns:  # neither collection nor time: only how many there are
                    by_name.setdefault(None, _Survey()).seen(parquet.metadata.num_rows, None, None)
                    continue
                for batch in parquet.iter_batches(batch_size=1 << 16, columns=columns):
                    rows = _Rows(batch)
                    times = [rows.times(name) for name in _TIMES]
                    first, last = _first_of(times[0], times[1], times[2]), _first_of(times[0], times[2], times[1])
                    frame = pd.DataFrame({"first": first, "last": np.where(last <= latest, last, np.datetime64("NaT", "us"))})
                    column = rows.top("collection")
                    frame["name"] = None if column is None else pd.Series(column.to_pylist(), dtype=object)
                    for name, group in frame.groupby("name", dropna=False):
                        found = by_name.setdefault(name if isinstance(name, str) else None, _Survey())
                        found.seen(len(group), _utc(group["first"].min()), _utc(group["last"].max()))
        known = _Survey(collections={name for name in by_name if name is not None})
        if not known.collections or self.source.collection_id in known.collections:
            for name in (None, self.source.collection_id):
                if name in by_name:
                    known.seen(by_name[name].items, by_name[name].oldest, by_name[name].newest)
        return known

    def _selected(self, window: Window, boxes: list[BBox] | None) -> Iterator[tuple[_Rows, int]]:
        """The rows that may be of the window and the boxes, batch by batch, and of how many of them the time is known."""
        start, end = (np.datetime64(t.astimezone(UTC).replace(tzinfo=None), "us") for t in (window.start, window.end))
        fs, paths = self._files()
        for path in paths:
            with self._opened(fs, path) as (parquet, layout):
                for group in range(parquet.metadata.num_row_groups):
                    if _is_outside(parquet, group, window):
                        continue
                    # What tells is read before the rest: most row groups of a large dump have nothing of a month and place.
                    quick = parquet.iter_batches(batch_size=1 << 16, row_groups=[group], columns=layout.chosen_by)
                    if layout.chosen_by and not any(self._chosen(_Rows(batch), start, end, boxes)[0].any() for batch in quick):
                        continue
                    for batch in parquet.iter_batches(batch_size=_BATCH, row_groups=[group], columns=layout.all):
                        rows = _Rows(batch)
                        chosen, timed = self._chosen(rows, start, end, boxes)
                        if chosen.any():
                            yield _Rows(rows.batch.filter(pa.array(chosen))), int((chosen & timed).sum())

    def _chosen(
        self, rows: _Rows, start: np.datetime64, end: np.datetime64, boxes: list[BBox] | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows (n,) may be of the collection, window and boxes, and which have a time that a scene gets."""
        when, since, until = (rows.times(name) for name in _TIMES)
        last = np.fmax(since, until)
        outside = np.where(np.isnat(when), (since > end) | (~np.isnat(since) & (last < start)), (when < start) | (when > end))
        timed = ~np.isnat(when) | ~np.isnat(since)
        chosen: NDArray[np.bool_] = ~outside
        collection = rows.top("collection")
        if collection is not None and not pa.types.is_null(collection.type):
            chosen &= pc.fill_null(pc.equal(collection, self.source.collection_id), True).to_numpy(zero_copy_only=False)
        if boxes is not None:
            bounds = _row_bounds(rows)
            without = np.flatnonzero(~np.isfinite(bounds).all(axis=1) & chosen)
            geometry = rows.top("geometry")
            if geometry is not None and without.size:
                wkb = np.array(geometry.take(pa.array(without)).to_pylist(), dtype=object)
                bounds[without] = _bounds_of(shapely.from_wkb(wkb, on_invalid="ignore"))
            chosen &= _meets(bounds, boxes)
        return chosen, timed

    def _items(self, rows: _Rows) -> list[dict[str, Any]]:
        """STAC item dictionaries, one a row, with what the row has and nothing else."""
        names = [name for name in rows.batch.schema.names if name not in _TOP]
        properties = _dicts(names, [_values(rows.batch.column(name)) for name in names], len(rows))
        if rows.nested is not None:
            properties = [
                {**within, **{k: v for k, v in row.items() if v is not None}} for within, row in zip(rows.nested, properties, strict=True)
            ]
        top = {name: column.to_pylist() for name in ("type", "id", "collection", "geometry") if (column := rows.top(name)) is not None}
        items = _dicts(list(top), list(top.values()), len(rows))
        for item, has, href, box in zip(items, properties, _self_links(rows), _row_boxes(rows), strict=True):
            item["properties"] = has
            item["links"] = [] if href is None else [{"rel": "self", "href": href}]
            if box is not None:
                item["bbox"] = box
        return items


def _walk(folder: Path) -> list[str]:
    """All files below a folder, links to folders followed. Raises ``OSError`` for one that cannot be listed: no hole is left."""

    def fail(error: OSError) -> None:
        raise error

    if not folder.is_dir():
        raise FileNotFoundError(str(folder))
    found: list[str] = []
    been: set[str] = set()
    for where, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(where)
        if real in been:
            folders.clear()  # a link that leads back
            continue
        been.add(real)
        found += [os.path.join(where, file) for file in files]  # noqa: PTH118 a walk of many files
    return sorted(found)


def _storage(kind: pa.DataType) -> pa.DataType:
    """The type without extension and dictionary."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _plain(column: pa.Array) -> pa.Array:
    """The column as a type that all of Arrow's functions take."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    plain = _plain_type(column.type)
    return column if plain == column.type else column.cast(plain)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type with plain texts and binaries for views of such, and for dictionaries, at any depth."""
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_plain_type(f.type)) for f in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        within = kind.value_field.with_type(_plain_type(kind.value_type))
        return pa.list_(within) if pa.types.is_list(kind) else pa.large_list(within)
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _require_degrees(schema: pa.Schema) -> None:
    """Raise ``ValueError`` where GeoParquet's metadata names a projected reference system; without any it is longitude and latitude."""
    geo = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
    crs = geo.get("columns", {}).get("geometry", {}).get("crs")
    if crs is not None and pyproj.CRS.from_user_input(crs).is_projected:
        raise ValueError("its geometry is projected, and STAC has longitude and latitude")


def _link_columns(kind: pa.DataType | None, metadata: pq.FileMetaData) -> list[str]:
    """What of ``links`` is read: address and relation of each; a text, in which some keep them, as a whole."""
    if kind is None:
        return []
    if _is_text(kind):
        return ["links"]
    schema = metadata.schema
    paths = [schema.column(k).path for k in range(metadata.num_columns)]
    return [path for path in paths if path.startswith("links.") and path.rpartition(".")[2] in ("href", "rel")]


def _is_outside(parquet: pq.ParquetFile, group: int, window: Window) -> bool:
    """Whether the statistics of a row group say that each of its rows has a ``datetime``, and that none is of the window."""
    schema, metadata = parquet.metadata.schema, parquet.metadata.row_group(group)
    for k in range(metadata.num_columns):
        if schema.column(k).path != "datetime":
            continue
        try:
            told = metadata.column(k).statistics
            if told is None or not told.has_min_max or not told.has_null_count or told.null_count:
                return False
            low, high = told.min, told.max
        except (ValueError, OverflowError, pa.ArrowException):
            return False  # times beyond what Python has
        if not isinstance(low, dt.datetime) or not isinstance(high, dt.datetime):
            return False
        return _as_utc(high) < window.start or _as_utc(low) > window.end
    return False


def _as_utc(when: dt.datetime) -> dt.datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _utc(when: Any) -> dt.datetime | None:
    """A time without zone as pandas has it, as UTC; None for NaT."""
    return None if pd.isna(when) else pd.Timestamp(when).to_pydatetime().replace(tzinfo=UTC)


def _first_of(*times: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """The first that is known of each row."""
    found = times[0]
    for other in times[1:]:
        found = np.where(np.isnat(found), other, found)
    return found


def _in_microseconds(column: pa.Array) -> pa.Array:
    """A column of timestamps as ``timestamp[us]`` without zone, in UTC; one without zone is UTC already, as STAC has it."""
    whole = column.cast(pa.timestamp("us", tz=column.type.tz), safe=column.type.unit != "ns")
    return whole.cast(pa.int64()).cast(pa.timestamp("us"))


def _instants(column: pa.Array) -> NDArray[np.datetime64]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        found = _in_microseconds(column).to_numpy(zero_copy_only=False)
    elif pa.types.is_date(kind):
        found = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    elif _is_text(kind):
        texts = pc.utf8_upper(pc.utf8_trim_whitespace(column)).to_pylist()
        read = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", utc=True, errors="coerce")
        found = read.dt.tz_localize(None).to_numpy()
    else:
        found = np.full(len(column), np.datetime64("NaT", "us"))
    instants: NDArray[np.datetime64] = found.astype("datetime64[us]")
    return instants


def _values(column: pa.Array) -> list[Any]:
    """A column as JSON would have it: times as RFC 3339 text in UTC."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = pc.strftime(_in_microseconds(column), format="%Y-%m-%dT%H:%M:%SZ")
    elif pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    found: list[Any] = column.to_pylist()
    return found


def _dicts(names: Sequence[str], columns: Sequence[Sequence[Any]], rows: int) -> list[dict[str, Any]]:
    if not names:
        return [{} for _ in range(rows)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _json_object(text: str | None) -> dict[str, Any]:
    """Raises ``ValueError`` for a text that is not JSON."""
    found = orjson.loads(text) if text is not None else {}
    return found if isinstance(found, dict) else {}


def _row_boxes(rows: _Rows) -> list[list[float] | None]:
    """The bbox of each row as STAC has it, 4 or 6 numbers; None where there is none."""
    column = rows.top("bbox")
    if column is None or not (pa.types.is_struct(column.type) or pa.types.is_nested(column.type)):
        return [None] * len(rows)
    if not pa.types.is_struct(column.type):
        return [box if box is not None and None not in box else None for box in column.to_pylist()]
    has = {f.name for f in column.type}
    found: list[list[float] | None] = [None] * len(rows)
    for corners in (_CORNERS, _CORNERS_3D):  # the second where it is whole
        if has.issuperset(corners):
            sides = zip(*(pc.struct_field(column, name).to_pylist() for name in corners), strict=True)
            found = [list(box) if None not in box else former for box, former in zip(sides, found, strict=True)]
    return found


def _row_bounds(rows: _Rows) -> NDArray[np.float64]:
    """West, south, east, north (n, 4) of each row's bbox; NaN where there is none."""
    found = np.full((len(rows), 4), np.nan)
    column = rows.top("bbox")
    if column is None:
        return found
    if pa.types.is_struct(column.type):
        if {f.name for f in column.type}.issuperset(_CORNERS):
            for k, name in enumerate(_CORNERS):
                found[:, k] = pc.struct_field(column, name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return found
    for k, box in enumerate(_row_boxes(rows)):
        if box is not None and len(box) in (4, 6):
            found[k] = _flat(box)
    return found


def _flat(box: Sequence[float]) -> tuple[float, float, float, float]:
    """West, south, east, north of a bbox of 4 or 6 numbers."""
    return (box[0], box[1], box[2], box[3]) if len(box) == 4 else (box[0], box[1], box[3], box[4])


def _self_links(rows: _Rows) -> list[str | None]:
    """The address that each row gives of its item; None where it gives none."""
    found: list[str | None] = [None] * len(rows)
    links = rows.top("links")
    if links is None:
        return found
    if _is_text(links.type):
        return [_self_of(orjson.loads(text)) if text is not None else None for text in links.to_pylist()]
    if not pa.types.is_list(links.type) and not pa.types.is_large_list(links.type):
        return found
    each = pc.list_flatten(links)
    if not pa.types.is_struct(each.type) or not {f.name for f in each.type}.issuperset(("href", "rel")):
        return found
    rel, href = (pc.struct_field(each, name) for name in ("rel", "href"))
    ours = pc.and_(pc.fill_null(pc.equal(rel, "self"), False), pc.is_valid(href))
    owners = pc.list_parent_indices(links).filter(ours).to_pylist()
    for owner, address in zip(reversed(owners), reversed(href.filter(ours).to_pylist()), strict=True):
        found[owner] = address  # of several the first
    return found


def _self_of(links: Any) -> str | None:
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "self" and isinstance(link.get("href"), str):
            href: str = link["href"]
            return href
    return None


# --- static catalogues ----------------------------------------------------------------------------------------------------------------

_FOLLOWED = ("child", "item", "items")
_MEMBERS = ("type", "id", "collection", "geometry", "bbox", "properties")
_ENTRIES = ("catalog.json", "collection.json")

Fail = Callable[[type[CatalogError], str], CatalogError]


@dataclass(frozen=True)
class _Link:
    """A document to be read."""

    address: str
    named: str
    """How an error names it: what links to it, and where."""
    below: bool = False
    """Whether it is the collection that is asked for, or lies below it."""
    again: bool = False
    """Whether it was read before, when it was not known to lie below the collection."""
    further: bool = False
    """Whether it is a further page of a feature collection."""
    parent: _Link | None = None
    """What links to it."""

    def leads_back(self) -> bool:
        """Whether it was come from."""
        above = self.parent
        while above is not None and above.address != self.address:
            above = above.parent
        return above is not None


class _Tree(Protocol):
    """Where a static catalogue lies."""

    first: str
    """Address of the catalogue's root document."""

    def follow(self, href: str, base: str, named: str) -> str:
        """The address that a link of the document at ``base`` leads to; raises ``CatalogUnreadable`` where it leads out."""

    def read(self, link: _Link) -> Any:
        """The JSON of a document; raises ``CatalogUnavailable`` or ``CatalogUnreadable``."""

    def href(self, address: str) -> str:
        """The address as a URL."""


class _Folder:
    """A catalogue on a disk. What it says is not trusted: no file outside its root document's folder is read."""

    def __init__(self, path: Path, fail: Fail, way: str) -> None:
        self._fail, self._way = fail, way
        if path.is_dir():
            entries = [path / name for name in _ENTRIES if (path / name).is_file()]
            if not entries:
                raise fail(CatalogUnavailable, f"is a folder without {' or '.join(_ENTRIES)}: {path}; {way}")
            path = entries[0]
        if not path.is_file():
            raise fail(CatalogUnavailable, f"is not there: {path} does not exist; {way}")
        self.first = os.path.realpath(path)
        self._root = Path(self.first).parent

    def follow(self, href: str, base: str, named: str) -> str:
        try:
            parts = urlsplit(href)
            if parts.scheme == "file" and parts.netloc in ("", "localhost"):
                target = Path(unquote(parts.path))
            elif parts.scheme or parts.netloc:
                raise self._fail(CatalogUnreadable, f"leads out of its folder: {named} is no file; not followed; {self._way}")
            else:
                target = Path(base).parent / href
                if not target.exists():  # most write paths as they are, some as parts of a URL
                    target = Path(base).parent / unquote(urldefrag(href).url)
            real = Path(os.path.realpath(target))
        except (ValueError, OSError) as error:
            if isinstance(error, CatalogError):
                raise
            raise self._fail(CatalogUnreadable, f"has a link that cannot be followed: {named}: {excerpt(str(error))}") from error
        if not real.is_relative_to(self._root):
            raise self._fail(
                CatalogUnreadable,
                f"leads out of its folder {self._root}: {named}; not followed; if it is right, name the catalogue's topmost "
                f"catalog.json as endpoint in {self._way.rpartition(' ')[2]}",
            )
        return str(real)

    def read(self, link: _Link) -> Any:
        path = Path(link.address)
        try:
            if not path.is_file():  # neither a folder nor a pipe, which never ends
                raise FileNotFoundError("no such file")
            content = path.read_bytes()
        except OSError as error:
            raise self._fail(
                CatalogUnavailable, f"is not whole: {link.named} cannot be read: {excerpt(str(error))}; copy the catalogue again"
            ) from error
        try:
            return _parsed(content)
        except ValueError as error:
            begins = excerpt(content[:200].decode(errors="replace"))
            raise self._fail(CatalogUnreadable, f"has a document that is not JSON: {link.named}: {begins!r}") from error

    def href(self, address: str) -> str:
        return Path(address).as_uri()


class _Host:
    """A catalogue behind http. Only the host that the endpoint names is asked."""

    def __init__(self, endpoint: str, wire: Wire, fail: Fail, way: str) -> None:
        self.first = urldefrag(endpoint).url
        self._wire, self._fail, self._way = wire, fail, way
        self._own = urlsplit(endpoint)

    def follow(self, href: str, base: str, named: str) -> str:
        try:
            address = urldefrag(urljoin(base, href)).url
            parts = urlsplit(address)
        except ValueError as error:
            raise self._fail(CatalogUnreadable, f"has a link that cannot be followed: {named}: {excerpt(str(error))}") from error
        # A link from https to http would send a login for the host in the clear.
        scheme_fits = parts.scheme == self._own.scheme or parts.scheme == "https"
        if parts.netloc != self._own.netloc or not scheme_fits:
            to = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            raise self._fail(CatalogUnreadable, f"leads to another host, {to}: {named}; not followed; {self._way}")
        return address

    def read(self, link: _Link) -> Any:
        return self._wire.fetch(link.address, doing=f"reading {link.named}", way=self._way).content

    def href(self, address: str) -> str:
        return urlsplit(address)._replace(query="", fragment="").geturl()  # behind the question mark there may be a key


class StaticSource(_FileSource):
    """A static STAC catalogue, on a disk or behind http, read from its root document on: every item, or an error that names the link.

    All of it is read, since an item says itself which collection it is of; to read less, name the collection's own ``collection.json``.
    """

    def __init__(self, source: AvailableSource, profile: ProviderProfile, patience: Patience, what: str) -> None:
        super().__init__(source, profile, patience, what)
        over_http = urlsplit(source.endpoint).scheme in ("http", "https")
        self.wire: Wire | None = Wire(source.provider, profile, patience, self._failed) if over_http else None
        self._known: _Survey | None = None

    def pages(self, window: Window, bbox: BBox | None, tally: Tally) -> Iterator[list[Any]]:
        """Pages of all items of the collection that meet ``bbox`` (degrees; None: anywhere), whatever their time.

        Raises ``CatalogUnavailable`` or ``CatalogUnreadable`` for a link that cannot be followed or read, and, after the last page,
        ``CatalogTruncated`` where the catalogue can say nothing of the window.
        """
        boxes = _boxes(bbox)
        page: list[Any] = []
        for items in self._crawl():
            page.extend(items)
            while len(page) >= PAGE:
                tally.pages += 1
                yield _meeting(page[:PAGE], boxes)
                page = page[PAGE:]
        if page:
            tally.pages += 1
            yield _meeting(page, boxes)
        self._require_month(self._survey(), window)

    def require_collection(self) -> None:
        """Raise ``CatalogUnavailable`` where neither a collection nor an item names the id; reads all where nothing was read yet."""
        self._require_items(self._survey())

    def total(self, window: Window, bbox: BBox | None) -> int:
        """Items of the window that meet ``bbox``, of which all are read; a catalogue that can say nothing of it raises."""
        boxes = _boxes(bbox)
        found = sum(_is_of(item, window) for items in self._crawl() for item in _meeting(items, boxes))
        self._require_month(self._survey(), window)
        return found

    def newest(self) -> dt.datetime | None:
        """The time of the collection's newest item, None where none has one; reads all where nothing was read yet."""
        return self._survey().newest

    def _survey(self) -> _Survey:
        """What the last whole reading saw. One is made here where a scan goes on from what an earlier run has read."""
        if self._known is None:
            for _ in self._crawl():
                pass
        assert self._known is not None
        return self._known

    def _tree(self) -> _Tree:
        if self.wire is not None:
            return _Host(self.source.endpoint, self.wire, self._failed, self._way)
        path = storage_path(self.source.endpoint)
        if not is_local(path):
            raise self._failed(
                CatalogUnavailable, f"cannot be read from {path.protocol}: give a local path or an http(s) address; {self._way}"
            )
        return _Folder(Path(path.path).expanduser(), self._failed, self._way)

    def _crawl(self) -> Iterator[list[dict[str, Any]]]:
        """Items of the collection, document by document, breadth first. What is known of the catalogue is known after the last."""
        tree = self._tree()
        survey = _Survey()
        todo = deque([_Link(tree.first, tree.first)])
        below = {tree.first: False}  # whether each document was read as one of the collection
        pool = ThreadPoolExecutor(self.profile.parallel, thread_name_prefix="static") if self.wire is not None else None
        try:
            while todo:
                some = [todo.popleft() for _ in range(min(len(todo), 16 * self.profile.parallel))]
                for link, document in zip(some, (pool.map if pool else map)(tree.read, some), strict=True):
                    items, links = self._content(tree, link, document, survey)
                    for new in links:
                        former = below.get(new.address)
                        if former is None or (new.below and not former and not new.leads_back()):
                            below[new.address] = new.below
                            todo.append(replace(new, again=former is not None))
                        elif new.further:
                            raise self._failed(CatalogTruncated, f"leads back to a page already read: {new.named}; {self._way}")
                    if items:
                        yield items
        finally:
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
        self._known = survey

    def _content(self, tree: _Tree, link: _Link, document: Any, survey: _Survey) -> tuple[list[dict[str, Any]], list[_Link]]:
        """Our items of a document, and where it leads on to."""
        kind = document.get("type") if isinstance(document, dict) else None
        if kind == "Feature":
            return self._ours([document], tree, link, survey), []
        if kind == "FeatureCollection":
            features = document.get("features")
            if not isinstance(features, list):
                raise self._failed(CatalogUnreadable, f"has a FeatureCollection without features: {link.named}; {self._way}")
            return self._ours(features, tree, link, survey), self._links(tree, link, document.get("links", []), ("next",), link.below)
        if kind not in ("Catalog", "Collection"):
            raise self._failed(
                CatalogUnreadable,
                f"has a document that is no Catalog, Collection, Feature or FeatureCollection, but {excerpt(repr(kind))}: {link.named}; "
                f"{self._way}",
            )
        below = link.below
        if kind == "Collection" and isinstance(document.get("id"), str):
            survey.collections.add(document["id"])
            below = below or document["id"] == self.source.collection_id
        return [], self._links(tree, link, document.get("links"), _FOLLOWED, below)

    def _links(self, tree: _Tree, link: _Link, links: Any, rels: tuple[str, ...], below: bool) -> list[_Link]:
        if not isinstance(links, list) or not all(isinstance(to, dict) for to in links):
            raise self._failed(CatalogUnreadable, f"has a document without a list of links: {link.named}; {self._way}")
        found = []
        for to in links:
            rel, href = to.get("rel"), to.get("href")
            if rel not in rels:
                continue
            named = f"the {rel} link {excerpt(repr(href))} of {link.address}"
            if not isinstance(href, str) or not href or str(to.get("method", "GET")).upper() != "GET":
                raise self._failed(CatalogUnreadable, f"has a link that cannot be followed: {named}; {self._way}")
            found.append(_Link(tree.follow(href, link.address, named), named, below, further=rel == "next", parent=link))
        return found

    def _ours(self, features: Iterable[Any], tree: _Tree, link: _Link, survey: _Survey) -> list[Any]:
        """Those of the collection, without their assets and with an address; the survey hears of all of them."""
        found: list[Any] = []
        for feature in features:
            named = feature.get("collection") if isinstance(feature, dict) else None
            if isinstance(named, str):
                survey.collections.add(named)
            if named != self.source.collection_id if named is not None else not link.below:
                continue
            if named is not None and link.again:
                continue  # it was given out when it was read before
            if not isinstance(feature, dict):
                found.append(feature)  # the collector says what is wrong with it
                survey.seen(1, None, None)
                continue
            first, last = _span(feature)
            survey.seen(1, first, last if last is not None and last <= dt.datetime.now(UTC) + _AHEAD else None)
            href = _self_of(feature.get("links"))
            if href is None or "://" not in href:  # relative to what nobody knows later
                href = tree.href(link.address)
            found.append({name: feature[name] for name in _MEMBERS if name in feature} | {"links": [{"rel": "self", "href": href}]})
        return found


def _parsed(content: bytes) -> Any:
    """JSON by the fast parser, else by Python's, which takes NaN, too; raises ``ValueError``."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            return json.loads(content)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _times_of(item: Mapping[str, Any]) -> list[dt.datetime | None]:
    properties = item.get("properties")
    return [parse_time(properties.get(name)) if isinstance(properties, dict) else None for name in _TIMES]


def _span(item: Mapping[str, Any]) -> tuple[dt.datetime | None, dt.datetime | None]:
    """An item's ``datetime``, or else when it begins and ends; None where it does not say."""
    when, since, until = _times_of(item)
    return when or since or until, when or until or since


def _is_of(item: Any, window: Window) -> bool:
    """Whether an item has a time, and one of the window."""
    if not isinstance(item, dict):
        return False
    when, since, until = _times_of(item)
    if when is not None:
        return window.start <= when <= window.end
    return since is not None and since <= window.end and max(since, until or since) >= window.start


def _meeting(items: list[Any], boxes: list[BBox] | None) -> list[Any]:
    """The items whose bbox, or else geometry, may touch one of the boxes, and those that have neither."""
    if boxes is None or not items:
        return items
    bounds = np.full((len(items), 4), np.nan)
    shapes = np.full(len(items), None, dtype=object)
    for k, item in enumerate(items):
        box, geometry = (item.get("bbox"), item.get("geometry")) if isinstance(item, dict) else (None, None)
        if isinstance(box, list) and len(box) in (4, 6) and all(isinstance(side, int | float) for side in box):
            bounds[k] = _flat(box)
        elif isinstance(geometry, dict):
            shapes[k] = json.dumps(geometry)
    without = ~np.isfinite(bounds).all(axis=1)
    bounds[without] = _bounds_of(shapely.from_geojson(shapes[without], on_invalid="ignore"))
    return [item for item, meets in zip(items, _meets(bounds, boxes), strict=True) if meets]
