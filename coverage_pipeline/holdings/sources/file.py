"""Holdings in a GeoParquet file, or any vector file that geopandas reads."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
from numpy.typing import NDArray
from pyproj import CRS
from upath import UPath

from coverage_pipeline.holdings.config import HoldingsFilter, TilesSettings
from coverage_pipeline.holdings.errors import HoldingsUnreachable
from coverage_pipeline.holdings.rows import (
    HoldingsRefused,
    as_utc,
    localised,
)
from coverage_pipeline.holdings.sources.base import in_degrees
from coverage_pipeline.redaction import public_address, redact
from coverage_pipeline.storage.bounded_http import TransferError, local_copy
from coverage_pipeline.storage.paths import is_local, storage_path, vector_source


@dataclass(frozen=True)
class FileHoldings:
    """Holdings in a GeoParquet file, or any vector file that geopandas reads."""

    path: str
    tiles: TilesSettings
    only: HoldingsFilter | None = None
    time_zone: str | None = None
    """Zone of times that carry none; None: UTC."""

    @property
    def name(self) -> str:
        """The file's place."""
        return f"file {public_address(self.path)}"

    def _table(self, place: UPath) -> tuple[pd.DataFrame, NDArray[np.object_], CRS | None]:
        """The columns, the footprints as WKB (bytes or None), and the CRS they are in.

        Every file system has errors of its own, which may repeat the address with its signature.
        """
        try:
            exists = place.exists()
        except Exception as error:
            raise HoldingsUnreachable(f"holdings {self.name}: {redact(str(error), self.path)}") from None
        if not exists:
            raise HoldingsUnreachable(f"holdings {self.name} is not there; set holdings.path (COVERAGE_HOLDINGS_PATH)")
        try:
            if place.suffix in (".parquet", ".geoparquet", ".pq"):
                with place.open("rb") as file:
                    return self._geoparquet(file)
            # Through Arrow a date stays a date and a curved footprint spoils its own row alone; as text each time keeps its own zone.
            metadata, table = pyogrio.read_arrow(vector_source(place) if is_local(place) else str(place), datetime_as_string=True)
            shape = metadata["geometry_name"] or "wkb_geometry"
            frame = _as_frame(table.drop_columns([shape]))
            crs = None if metadata["crs"] is None else CRS.from_user_input(metadata["crs"])
            # Formats name the column of footprints as they like; ``geometry`` is its name here, as geopandas has it.
            if self.tiles.geom not in ("geometry", shape):
                raise self._no_column("geometry", self.tiles.geom, [*frame.columns, shape])
            return frame, table[shape].to_numpy(zero_copy_only=False), crs
        except HoldingsRefused:
            raise
        except Exception as error:
            text = redact(str(error), self.path)
            raise HoldingsRefused(f"holdings {self.name} cannot be read as GeoParquet or a vector file: {text}") from None

    def _geoparquet(self, file: Any) -> tuple[pd.DataFrame, NDArray[np.object_], CRS | None]:
        schema = pq.read_schema(file)
        geo = json.loads((schema.metadata or {}).get(b"geo", b"null"))
        if not isinstance(geo, dict) or not isinstance(geo.get("columns"), dict):
            is_items = {"stac_version", "id", "collection", self.tiles.geom} <= set(schema.names)
            if not (is_items and pa.types.is_binary(schema.field(self.tiles.geom).type)):
                raise ValueError("its metadata has no 'geo': it is Parquet, but not GeoParquet")
            geo = {"columns": {self.tiles.geom: {"encoding": "WKB"}}}  # items of STAC are in degrees, whether a writer says so or not
        if self.tiles.geom not in schema.names:
            raise self._no_column("geometry", self.tiles.geom, schema.names)
        column = geo["columns"].get(self.tiles.geom)
        if column is None:
            raise HoldingsRefused(
                f"column {self.tiles.geom!r} of holdings {self.name} holds no footprints (they are in {', '.join(geo['columns'])}); "
                "set COVERAGE_TILES_GEOM"
            )
        file.seek(0)
        if column.get("encoding") != "WKB":  # the encodings of GeoArrow, which hold no curves
            table = gpd.read_parquet(file).set_geometry(self.tiles.geom)
            return pd.DataFrame(table.drop(columns=self.tiles.geom)), table.geometry.to_wkb().to_numpy(dtype=object), table.geometry.crs
        whole = pq.read_table(file)
        crs = column.get("crs", "OGC:CRS84")  # left out means degrees, null means unknown (GeoParquet 1.1)
        shapes = whole[self.tiles.geom].to_numpy(zero_copy_only=False)
        return _as_frame(whole.drop_columns([self.tiles.geom])), shapes, None if crs is None else CRS.from_user_input(crs)

    def _no_column(self, name: str, column: str, existing: Sequence[Any]) -> HoldingsRefused:
        setting = {"datetime": "DATE", "geometry": "GEOM"}.get(name, name.upper())
        return HoldingsRefused(
            f"holdings {self.name} has no column {column!r} (it has {', '.join(map(str, existing))}); set COVERAGE_TILES_{setting}"
        )

    @cached_property
    def _rows(self) -> pd.DataFrame:
        """All rows, read once: what is asked of a source for one month is of one state of the file."""
        try:
            with local_copy(self.path, vector=True) as local:
                table, shapes, crs = self._table(storage_path(local))
        except TransferError as error:
            raise HoldingsUnreachable(f"holdings file {error}; check holdings.path (COVERAGE_HOLDINGS_PATH)") from None
        tiles = self._columns(table)
        if self.only is not None:
            counts = self._that_count(table, self.only)
            table, shapes = table[counts].reset_index(drop=True), shapes[counts]
        wanted = {"datetime": tiles.date, "sensor": tiles.sensor}
        # A file that has ids is taken at its word; a database's columns are only those named.
        scene_id = "scene_id" if tiles.scene_id is None and "scene_id" in table else tiles.scene_id
        optional = {"cloud": tiles.cloud, "scene_id": scene_id}
        for name, column in {**wanted, **{n: c for n, c in optional.items() if c}}.items():
            if column not in table.columns:
                if name in optional and column == TilesSettings.model_fields[name].default:
                    continue
                raise self._no_column(name, column, [*table.columns, self.tiles.geom])
        geometry, misplaced = in_degrees(shapes, np.full(len(shapes), 0), {0: crs})
        return pd.DataFrame(
            {
                "datetime": localised(_times(table, tiles.date), self.time_zone),
                "sensor": table[tiles.sensor],
                "cloud": table.get(tiles.cloud, np.nan),
                "scene_id": table.get(scene_id),
                "geometry": pd.Series(list(geometry), index=table.index, dtype=object),
                "misplaced": pd.Series(list(misplaced), index=table.index, dtype=object),
            }
        )

    def _columns(self, table: pd.DataFrame) -> TilesSettings:
        """The columns' names: those of the settings, or stac-geoparquet's where these are the defaults and the file is one."""
        is_items = {"id", "collection", "datetime"} <= set(table.columns) and "sensor" not in table.columns
        if is_items and self.tiles == TilesSettings():
            return TilesSettings(sensor="collection", cloud="eo:cloud_cover" if "eo:cloud_cover" in table.columns else None, scene_id="id")
        return self.tiles

    def _that_count(self, table: pd.DataFrame, only: HoldingsFilter) -> NDArray[np.bool_]:
        """Rows that ``[holdings.filter]`` lets through."""
        if only.column not in table.columns:
            raise HoldingsRefused(
                f"holdings {self.name} has no column {only.column!r} (it has {', '.join(map(str, table.columns))}); set holdings.filter"
            )
        column = table[only.column]
        text = column.map(lambda value: str(value).lower() if isinstance(value, bool | np.bool_) else str(value))
        return np.asarray(text.where(column.notna(), "").isin(only.values), bool)

    def _of(self, satellites: Sequence[str] | None) -> pd.DataFrame:
        frame = self._rows
        return frame if satellites is None else frame[frame["sensor"].isin(list(satellites))]

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """See ``HoldingsSource``."""
        frame = self._of(satellites)
        when = as_utc(frame["datetime"])
        return frame[(when >= since) & (when < until)]

    def timeless(self, satellites: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
        """See ``HoldingsSource``."""
        frame = self._of(satellites)
        return frame[as_utc(frame["datetime"]).isna()], len(frame)

    def last(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str]) -> pd.DataFrame:
        """See ``HoldingsSource``."""
        frame = self.rows(since, until, satellites)
        frame = frame.assign(datetime=as_utc(frame["datetime"]))
        groups = frame.groupby(["geometry", "misplaced"], as_index=False, dropna=False)
        return groups.agg(datetime=("datetime", "max"), rows=("datetime", "size"))

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """See ``HoldingsSource``."""
        counts = self.rows(since, until, None)["sensor"].fillna("").astype(str).value_counts()
        return {str(name): int(count) for name, count in counts.items()}


def _times(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    """The column of times; of a STAC item without ``datetime`` its start."""
    times = table[column]
    if column != "datetime" or "start_datetime" not in table.columns or "collection" not in table.columns:
        return times
    return times.where(times.notna(), table["start_datetime"])


def _as_frame(table: pa.Table) -> pd.DataFrame:
    """A table as pandas has it, every column as a column: an index that pandas wrote is one here, too, and whole numbers stay whole."""
    frame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    return frame.astype({name: object for name, kind in frame.dtypes.items() if isinstance(kind, pd.CategoricalDtype)})
