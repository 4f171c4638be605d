"""Acquired: the scenes we hold, from a PostGIS table or a GeoParquet file, by month; and when each place was last held.

Knows nothing of whose holdings they are: the connection and the names of table and columns come from ``COVERAGE_DB_*`` and
``COVERAGE_TILES_*``. A layer that cannot be read is *off*, which is not the same as holding nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyogrio
import shapely
import sqlalchemy as sa
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry
from sqlalchemy.types import UserDefinedType
from upath import UPath

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.bbox import split_bbox
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.grid.celltable import AreaKnown, dense
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.rows import (
    HOLDINGS_SCHEMA,
    LAST_SCHEMA,
    MOST_APART,
    NO_SENSOR,
    NO_TIME,
    REJECTED_HOLDINGS_SCHEMA,
    UNREADABLE_TIME,
    HoldingsRefused,
    as_utc,
    is_date,
    judge_rejected,
    place_rows,
    read_wkb,
    rejected_rows,
    same_rows,
    same_spelling,
    usable_footprints,
)
from coverage_pipeline.matchup.held_cells import HELD_VARIABLES, held_tables, united_by_key
from coverage_pipeline.months import UTC, Month, MonthError, as_date, window_months
from coverage_pipeline.redaction import public_address, redact
from coverage_pipeline.scenes.items import as_geodataframe
from coverage_pipeline.scenes.schema import TIME
from coverage_pipeline.scenes.statistics import fields_dataset
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.settings.model import DatabaseSettings, HoldingsSettings, PlannerSettings, TilesSettings, load_settings
from coverage_pipeline.storage.bounded_http import TransferError, local_copy
from coverage_pipeline.storage.store import (
    Store,
    StoreError,
    is_local,
    parquet_bytes,
    read_metadata,
    sibling,
    storage_path,
    vector_source,
    write_together,
)

log = logging.getLogger(__name__)

BBox = tuple[float, float, float, float]

_MARGIN = dt.timedelta(hours=1)
"""Holdings within this of the month take part: the scan keeps the scenes of that hour (design section 4, "Time of a holding")."""
_DATE_MARGIN = dt.timedelta(days=1)
"""The same for holdings that carry a date only."""
KNOWN_HOLDINGS = ("read", "not_held")
"""Statuses in which it is known what is held."""


class HoldingsUnavailable(PlannerError, RuntimeError):
    """The holdings cannot be had at all: the layer is off and the build goes on. Its kinds say why."""


class HoldingsNotConfigured(HoldingsUnavailable):
    """Nobody said where the holdings are."""


class HoldingsDriverMissing(HoldingsUnavailable):
    """The database's driver is not installed."""


class HoldingsUnreachable(HoldingsUnavailable):
    """The database does not answer, or the file's place cannot be reached."""

    may_pass = True


class HoldingsSource(Protocol):
    """A place that lists holdings. Whatever it cannot give whole is an error: a hole in the holdings would look like a gap."""

    @property
    def name(self) -> str:
        """For reports; never holds a secret."""
        ...

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """Holdings with ``since <= datetime < until`` (``holdings_rows.ROW_COLUMNS``), whose sensor is one of ``satellites``."""
        ...

    def timeless(self, satellites: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
        """Holdings of these sensors whose time is missing or cannot be read (``ROW_COLUMNS``), and how many they have in all
        (0: not counted, as none is timeless).
        """
        ...

    def last(self, since: dt.datetime, until: dt.datetime, satellite: str) -> pd.DataFrame:
        """Per distinct footprint the last ``datetime`` with ``since <= datetime < until``, and how many rows have it.

        Columns datetime, rows, geometry, misplaced.
        """
        ...

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """How many holdings with ``since <= datetime < until`` there are, by what their sensor column says; empty where it is null."""
        ...


@dataclass(frozen=True)
class FileHoldings:
    """Holdings in a GeoParquet file, or any vector file that geopandas reads."""

    path: str
    tiles: TilesSettings

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
            said = redact(str(error), self.path)
            raise HoldingsRefused(f"holdings {self.name} cannot be read as GeoParquet or a vector file: {said}") from None

    def _geoparquet(self, file: Any) -> tuple[pd.DataFrame, NDArray[np.object_], CRS | None]:
        schema = pq.read_schema(file)
        geo = json.loads((schema.metadata or {}).get(b"geo", b"null"))
        if not isinstance(geo, dict) or not isinstance(geo.get("columns"), dict):
            raise ValueError("its metadata has no 'geo': it is Parquet, but not GeoParquet")
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
            with local_copy(self.path) as local:
                table, shapes, crs = self._table(storage_path(local))
        except TransferError as error:
            raise HoldingsUnreachable(f"holdings file {error}; check holdings.path (COVERAGE_HOLDINGS_PATH)") from None
        wanted = {"datetime": self.tiles.date, "sensor": self.tiles.sensor}
        # A file that has ids is taken at its word; a database's columns are only those named.
        scene_id = "scene_id" if self.tiles.scene_id is None and "scene_id" in table else self.tiles.scene_id
        optional = {"cloud": self.tiles.cloud, "scene_id": scene_id}
        for name, column in {**wanted, **{n: c for n, c in optional.items() if c}}.items():
            if column not in table.columns:
                if name in optional and column == TilesSettings.model_fields[name].default:
                    continue
                raise self._no_column(name, column, [*table.columns, self.tiles.geom])
        geometry, misplaced = in_degrees(shapes, np.full(len(shapes), 0), {0: crs})
        return pd.DataFrame(
            {
                "datetime": table[self.tiles.date],
                "sensor": table[self.tiles.sensor],
                "cloud": table.get(self.tiles.cloud, np.nan),
                "scene_id": table.get(scene_id),
                "geometry": pd.Series(list(geometry), index=table.index, dtype=object),
                "misplaced": pd.Series(list(misplaced), index=table.index, dtype=object),
            }
        )

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

    def last(self, since: dt.datetime, until: dt.datetime, satellite: str) -> pd.DataFrame:
        """See ``HoldingsSource``."""
        frame = self.rows(since, until, [satellite])
        frame = frame.assign(datetime=as_utc(frame["datetime"]))
        groups = frame.groupby(["geometry", "misplaced"], as_index=False, dropna=False)
        return groups.agg(datetime=("datetime", "max"), rows=("datetime", "size"))

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """See ``HoldingsSource``."""
        counts = self.rows(since, until, None)["sensor"].fillna("").astype(str).value_counts()
        return {str(name): int(count) for name, count in counts.items()}


def _as_frame(table: pa.Table) -> pd.DataFrame:
    """A table as pandas has it, every column as a column: an index that pandas wrote is one here, too, and whole numbers stay whole."""
    frame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    return frame.astype({name: object for name, kind in frame.dtypes.items() if isinstance(kind, pd.CategoricalDtype)})


def in_degrees(
    values: NDArray[np.object_], srid: NDArray[np.integer[Any]], systems: Mapping[int, CRS | None]
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Footprints as WKB in degrees of longitude and latitude (EPSG:4326), and why one could not be brought there (None where it was).

    ``values`` holds WKB (bytes or None), ``srid`` the key of each one's system in ``systems``; a system of None means that nothing is
    stated: then the numbers are taken for degrees, which ``normalise_footprints`` checks. A key that ``systems`` lacks is a reason.
    """
    out, reasons = values.copy(), np.full(len(values), None, dtype=object)
    for key in np.unique(srid) if len(srid) else ():
        chosen = srid == key
        if int(key) not in systems:
            reasons[chosen] = f"SRID {key} is not known to the database"
            continue
        crs = systems[int(key)]
        if crs is None or crs.equals("EPSG:4326", ignore_axis_order=True) or crs.equals("OGC:CRS84"):
            continue
        shapes, unreadable = read_wkb(values[chosen])
        moved = gpd.GeoSeries(shapes, crs=crs).to_crs("EPSG:4326").to_numpy()
        out[chosen] = np.where(unreadable == None, shapely.to_wkb(moved), values[chosen])  # noqa: E711 (elementwise)
    return out, reasons


class _Geometry(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "geometry"


@dataclass(frozen=True)
class PostgisHoldings:
    """Holdings in a PostGIS table, read with SQLAlchemy and psycopg2; every identifier is quoted by SQLAlchemy."""

    db: DatabaseSettings
    tiles: TilesSettings

    @property
    def name(self) -> str:
        """Table, database and host; no user, no password."""
        if self.db.url is not None:
            url = self._url()
            return f"table {self.tiles.table} of {url.database} on {url.host}"
        return f"table {self.tiles.table} of {self.db.name} on {self.db.host}"

    def _url(self) -> sa.URL:
        if self.db.url is not None:
            # The settings have checked it (``settings.check_database_address``): no part of a password can be taken for a host here.
            return sa.make_url(self.db.url.get_secret_value()).set(drivername="postgresql+psycopg2")
        return sa.URL.create(
            "postgresql+psycopg2",
            username=self.db.user,
            password=self.db.password.get_secret_value() if self.db.password else None,
            host=self.db.host,
            port=self.db.port,
            database=self.db.name,
        )

    def _clean(self, error: BaseException) -> str:
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        url = self._url()
        given = [url.password, *[url.query.get(name) for name in ("password", "sslpassword")]]
        return redact(text, *(f"//:{quote(str(secret), safe='')}@host" for secret in given if secret))

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        # The session's zone decides what a timestamp without zone means when compared: UTC, as everything here. The address's own
        # options stay, before it.
        given = self._url().query.get("options", ())
        session = " ".join([*([given] if isinstance(given, str) else given), "-c timezone=UTC"])
        options: dict[str, Any] = {"connect_timeout": self.db.connect_timeout, "options": session}
        if self.db.sslmode:
            options["sslmode"] = self.db.sslmode
        try:
            engine = sa.create_engine(self._url(), connect_args=options, poolclass=sa.pool.NullPool)
        except ImportError as error:  # the module, or the libpq it was built for
            raise HoldingsDriverMissing(f"the holdings' database driver is missing ({error}); pip install psycopg2-binary") from None
        try:
            with engine.connect() as connection:
                yield connection.execution_options(postgresql_readonly=True, stream_results=True)
        except sa.exc.OperationalError as error:
            said = self._clean(error)
            # A server that says FATAL is there and refuses us, unless it is only starting, stopping or full for now.
            passing = ("starting up", "shutting down", "too many", "remaining connection slots", "recovery mode")
            # What libpq itself finds wanting once the server has answered carries no FATAL.
            ours = ("no password supplied", "does not support SSL", "certificate")
            if ("FATAL" in said and not any(word in said for word in passing)) or any(word in said for word in ours):
                raise HoldingsRefused(
                    f"the holdings database refused the connection: {said}; check COVERAGE_DB_USER, COVERAGE_DB_PASSWORD, COVERAGE_DB_NAME "
                    "and COVERAGE_DB_SSLMODE"
                ) from None
            raise HoldingsUnreachable(
                f"the holdings database cannot be reached ({self.name}): {said}; check COVERAGE_DB_HOST and COVERAGE_DB_PORT"
            ) from None
        except (sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.InternalError, sa.exc.NotSupportedError) as error:
            raise HoldingsRefused(
                f"the holdings table does not fit the settings ({self.name}): {self._clean(error)}; {self._way_out(error)}"
            ) from None
        finally:
            engine.dispose()

    def _way_out(self, error: sa.exc.DBAPIError) -> str:
        """What to set, by the server's code of the error (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""
        said = str(getattr(getattr(error.orig, "diag", None), "message_primary", None) or "")
        match getattr(error.orig, "pgcode", None):
            case "42P01" | "3F000":
                return "set COVERAGE_TILES_TABLE and COVERAGE_DB_SCHEMA"
            case "42703":
                wrong = [n for n, value in self.tiles.model_dump().items() if n != "table" and value and f'column "{value}"' in said]
                if wrong:
                    empty = " (empty: there is none)" if set(wrong) <= {"cloud", "scene_id"} else ""
                    return f"set {' or '.join(f'COVERAGE_TILES_{name.upper()}' for name in wrong)}{empty}"
            case "42883" if "operator" in said:  # only the time is compared with something of another type
                return "set COVERAGE_TILES_DATE (a column of timestamps or dates)"
            case "42846" | "XX000" if "geometry" in said:
                return "set COVERAGE_TILES_GEOM"
            case "42704" | "42883" if "geometry" in said or "st_" in said.lower():
                return "PostGIS is not where the user can see it: CREATE EXTENSION postgis, or put its schema on the search_path"
            case "42501":
                return "grant COVERAGE_DB_USER the right to read it"
        return "check COVERAGE_DB_SCHEMA and COVERAGE_TILES_*"

    def _column(self, name: str) -> sa.ColumnClause[Any]:
        return sa.column(sa.quoted_name(name, quote=True))

    def _table(self) -> sa.TableClause:
        schema = sa.quoted_name(self.db.schema_name, quote=True) if self.db.schema_name else None
        return sa.table(sa.quoted_name(self.tiles.table, quote=True), schema=schema)

    def _footprint(self) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
        """The footprint as it is stored, and its SRID: one that cannot be transformed would end the query for all."""
        shape = sa.cast(self._column(self.tiles.geom), _Geometry())
        return sa.func.ST_AsBinary(sa.func.ST_Force2D(shape)), sa.func.ST_SRID(shape)

    def _within(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
        date = self._column(self.tiles.date)
        conditions: list[sa.ColumnElement[bool]] = [date >= sa.literal(since), date < sa.literal(until)]
        if satellites is not None:
            conditions.append(self._column(self.tiles.sensor).in_(list(satellites)))
        return conditions

    def _frame(self, query: sa.Select[Any], columns: list[str]) -> pd.DataFrame:
        """A query's rows whose last two columns are the footprint and its SRID, as columns and ``geometry``, ``misplaced``."""
        with self._connection() as connection:
            rows = [tuple(row) for part in connection.execute(query).partitions(20_000) for row in part]
            frame = pd.DataFrame.from_records(rows, columns=[*columns, "geometry", "srid"])
            srid = frame["srid"].fillna(0).to_numpy(dtype=np.int64)  # a footprint that is null
            systems = self._systems(connection, {int(one) for one in np.unique(srid)})
        shapes = np.full(len(frame), None, dtype=object)
        shapes[:] = [None if shape is None else bytes(shape) for shape in frame["geometry"]]
        geometry, misplaced = in_degrees(shapes, srid, systems)
        return frame.drop(columns="srid").assign(
            geometry=pd.Series(list(geometry), dtype=object), misplaced=pd.Series(list(misplaced), dtype=object)
        )

    def _systems(self, connection: sa.Connection, srids: set[int]) -> dict[int, CRS | None]:
        """The reference systems of SRIDs as the database defines them, so that its own ones work, too; 0 states nothing."""
        systems: dict[int, CRS | None] = {0: None, 4326: None}
        wanted = srids - set(systems)
        if wanted:
            table = sa.table("spatial_ref_sys", sa.column("srid"), sa.column("srtext"))
            for srid, text in connection.execute(sa.select(table.c.srid, table.c.srtext).where(table.c.srid.in_(sorted(wanted)))):
                with contextlib.suppress(CRSError):
                    systems[int(srid)] = CRS.from_wkt(text)
        return systems

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """See ``HoldingsSource``."""
        frame = self._rows(self._within(since, until, satellites))
        # The database may take for equal what is not: text of fixed length is padded, citext ignores case.
        return frame if satellites is None else frame[frame["sensor"].isin(list(satellites))].reset_index(drop=True)

    def _rows(self, conditions: Sequence[sa.ColumnElement[bool]]) -> pd.DataFrame:
        query = (
            sa.select(
                self._column(self.tiles.date),
                sa.cast(self._column(self.tiles.sensor), sa.Text),
                self._column(self.tiles.cloud) if self.tiles.cloud else sa.null(),
                sa.cast(self._column(self.tiles.scene_id), sa.Text) if self.tiles.scene_id else sa.null(),
                *self._footprint(),
            )
            .select_from(self._table())
            .where(*conditions)
        )
        return self._frame(query, ["datetime", "sensor", "cloud", "scene_id"])

    def timeless(self, satellites: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
        """See ``HoldingsSource``. Only null times can be timeless here: a column of another type than time is refused."""
        mine = sa.true() if satellites is None else self._column(self.tiles.sensor).in_(list(satellites))
        rows = self._rows([mine, self._column(self.tiles.date).is_(None)])
        if rows.empty:
            return rows, 0
        with self._connection() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(self._table()).where(mine)).scalar_one()
        return rows, int(count)

    def last(self, since: dt.datetime, until: dt.datetime, satellite: str) -> pd.DataFrame:
        """See ``HoldingsSource``: one grouped question, whatever the table's size."""
        footprint = self._footprint()
        query = (
            sa.select(sa.func.max(self._column(self.tiles.date)), sa.func.count(), *footprint)
            .select_from(self._table())
            .where(*self._within(since, until, [satellite]))
            .group_by(*footprint)
        )
        return self._frame(query, ["datetime", "rows"])

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """See ``HoldingsSource``."""
        sensor = sa.cast(self._column(self.tiles.sensor), sa.Text)
        query = sa.select(sensor, sa.func.count()).select_from(self._table()).where(*self._within(since, until, None)).group_by(sensor)
        with self._connection() as connection:
            return {name or "": int(count) for name, count in connection.execute(query)}


def holdings_source(settings: PlannerSettings) -> HoldingsSource:
    """The source the settings name; raises ``HoldingsNotConfigured`` where they name none."""
    wanted: HoldingsSettings = settings.holdings
    has_db = settings.db.url is not None or settings.db.host is not None
    if wanted.source in ("auto", "file") and wanted.path:
        return FileHoldings(wanted.path, settings.tiles)
    if wanted.source in ("auto", "postgis") and has_db:
        return PostgisHoldings(settings.db, settings.tiles)
    missing = {
        "off": "holdings.source is off",
        "file": "holdings.source is file, but holdings.path (COVERAGE_HOLDINGS_PATH) is not set",
        "postgis": "holdings.source is postgis, but neither COVERAGE_DB_URL nor COVERAGE_DB_HOST is set",
        "auto": "no holdings are configured: set COVERAGE_HOLDINGS_PATH, or COVERAGE_DB_URL or COVERAGE_DB_HOST",
    }
    raise HoldingsNotConfigured(missing[wanted.source])


def fetch_holdings(
    *,
    bbox: BBox | None = None,
    aoi: BaseGeometry | None = None,
    start: str | dt.date,
    end: str | dt.date,
    satellites: Sequence[str] | None = None,
    settings: PlannerSettings | None = None,
) -> gpd.GeoDataFrame:
    """Holdings that meet the area within ``start``..``end`` (a day or month as end is included; an instant is not).

    ``bbox`` (degrees, west > east across the antimeridian) and ``aoi`` (EPSG:4326) narrow the area, ``satellites`` the sensor
    column. Returns a GeoDataFrame with datetime (UTC), sensor, cloud (percent, NaN unknown), scene_id and geometry.

    Raises ``HoldingsUnavailable`` (not configured, driver missing, unreachable) or ``HoldingsRefused`` (wrong password, table,
    column or file, or too many rows that cannot be placed), ``MonthError`` for a window that is reversed.
    """
    settings = settings or load_settings()
    since, until = _instant(start, is_end=False), _instant(end, is_end=True)
    if until < since:
        raise MonthError(f"the window is reversed: start {start} is after end {end}")
    source = holdings_source(settings)
    rows = source.rows(since, until, satellites)
    placed = place_rows(rows, None)
    timeless, total = source.timeless(satellites)
    without_time = Counter(UNREADABLE_TIME if given else NO_TIME for given in timeless["datetime"].notna())
    for reasons, of in ((placed.reasons, len(rows)), (without_time, total)):
        warning = judge_rejected(reasons, of, f"rows of the holdings ({source.name})")
        if warning:
            log.warning("%s", warning)
    table = placed.table
    frame = as_geodataframe(table)[["datetime", "sensor", "cloud", "scene_id", "geometry"]]
    if bbox is not None:
        area = shapely.union_all([shapely.box(*part) for part in split_bbox(bbox)])
        frame = frame[frame.intersects(area)]
    if aoi is not None:
        frame = frame[frame.intersects(aoi)]
    return frame.reset_index(drop=True)


def _instant(value: str | dt.date, *, is_end: bool) -> dt.datetime:
    if isinstance(value, str) and len(value) > 10:
        value = dt.datetime.fromisoformat(value)
    if is_end and isinstance(value, str) and len(value.strip()) == 7:
        return Month.parse(value).end
    if isinstance(value, dt.datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    day = as_date(value)
    start = dt.datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start + dt.timedelta(days=1) if is_end else start


def extract_month(sensor: CoverageSensor, month: Month, store: Store, settings: PlannerSettings) -> dict[str, Any]:
    """Write one partition's holdings, its rejected rows and its ``last`` table; returns their metadata.

    A sensor that is not in our holdings is a known zero (``not_held``). Where the holdings cannot be had the partition is written as
    ``off``, unless an extract that was read stands there: then ``HoldingsUnavailable`` goes up and the extract stays, but where
    ``holdings.source`` is ``off``, which asks for it outright. Raises ``HoldingsRefused`` where too many rows cannot be placed.
    """
    target = store.holdings(sensor.key, month)
    metadata: dict[str, Any] = {
        "sensor": sensor.key,
        "month": month.key,
        "status": "read",
        "read_at": dt.datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "run": uuid.uuid4().hex,
        "source": "",
        "reason": "",
        "lookback_months": settings.holdings.lookback_months,
    }
    reading = _Reading()
    if sensor.held_satellite is None:
        metadata["status"] = "not_held"
    else:
        try:
            source = holdings_source(settings)
            metadata["source"] = source.name
            reading = _read_month(source, sensor, sensor.held_satellite, month, settings.holdings)
        except HoldingsUnavailable as error:
            if settings.holdings.source != "off" and _was_read(target):
                raise
            log.warning("%s %s: holdings are off: %s", sensor.key, month, error)
            metadata |= {"status": "off", "reason": str(error)}
        except HoldingsRefused as error:
            raise HoldingsRefused(f"{sensor.key} {month}: {error}") from error
    for warning in reading.warnings:
        log.warning("%s %s: %s", sensor.key, month, warning)
    again = same_rows(reading.table) != np.arange(reading.table.num_rows)
    inside = reading.table["in_month"].to_numpy(zero_copy_only=False)
    metadata |= {
        "rows": int(inside.sum()),
        "duplicates": int((again & inside).sum()),
        "rejected": reading.rejected.num_rows,
        "rejected_reasons": dict(Counter(reading.rejected["reason"].to_pylist())),
        "zoneless": reading.zoneless,
        "footprints": reading.last.num_rows,
        "warnings": reading.warnings,
        "notes": reading.notes(int(inside.sum()), int((again & inside).sum())),
    }
    write_together(
        [
            (sibling(target, ".rejected.parquet"), parquet_bytes(reading.rejected, metadata)),
            (store.last_held(sensor.key, month), parquet_bytes(as_geoparquet(reading.last), metadata)),
            (target, parquet_bytes(as_geoparquet(reading.table), metadata)),
        ]
    )
    return metadata


def _was_read(target: UPath) -> bool:
    """Whether an extract that was read stands there; a damaged file says nothing worth keeping."""
    try:
        return target.exists() and read_metadata(target).get("status") == "read"
    except StoreError:
        return False


@dataclass
class _Reading:
    """One month of a source."""

    table: pa.Table = field(default_factory=HOLDINGS_SCHEMA.empty_table)
    last: pa.Table = field(default_factory=LAST_SCHEMA.empty_table)
    rejected: pa.Table = field(default_factory=REJECTED_HOLDINGS_SCHEMA.empty_table)
    zoneless: int = 0
    warnings: list[str] = field(default_factory=list)

    def notes(self, rows: int, duplicates: int) -> list[str]:
        """What a person should know of the reading that is no warning."""
        told = []
        if self.zoneless:
            told.append(f"{self.zoneless:,} of {self.table.num_rows:,} times carry no zone: UTC assumed")
        if duplicates:
            told.append(f"{duplicates:,} of {rows:,} rows repeat another row's time and footprint: each is one holding")
        if self.rejected.num_rows:
            told.append(f"{self.rejected.num_rows:,} rows are rejected; they and the reasons are in the rejected table beside the extract")
        return told


def _read_month(source: HoldingsSource, sensor: CoverageSensor, satellite: str, month: Month, wanted: HoldingsSettings) -> _Reading:
    margin = max(dt.timedelta(seconds=wanted.match_tolerance_seconds), _MARGIN)
    # Holdings with an id are looked for as far around the month as their own time may lie from the one in the id.
    first, end = month.start - MOST_APART, month.end + MOST_APART

    def is_near(frame: pd.DataFrame) -> NDArray[np.bool_]:
        when = as_utc(frame["datetime"])

        def within(around: dt.timedelta) -> NDArray[np.bool_]:
            return np.asarray((when >= month.start - around) & (when < month.end + around), bool)

        return np.where(is_date(frame["datetime"]), within(max(margin, _DATE_MARGIN)), within(margin))

    frame = source.rows(first, end, [satellite])
    near = is_near(frame)
    further = place_rows(frame[~near], sensor).table
    frame = frame[near]
    placed = place_rows(frame, sensor)
    table = _together(placed.table, further.filter(further["scene_key"].is_valid()))
    inside = pc.and_(
        pc.greater_equal(table["pass_time"], pa.scalar(month.start, TIME)), pc.less(table["pass_time"], pa.scalar(month.end, TIME))
    )
    reading = _Reading(
        table.set_column(table.schema.get_field_index("in_month"), HOLDINGS_SCHEMA.field("in_month"), inside),
        zoneless=placed.zoneless,
    )
    spelt = source.spellings(first, end)
    nameless = spelt.pop("", 0)
    otherwise = _spelt_otherwise(source, satellite, spelt, first, end, is_near)
    timeless, total = source.timeless([satellite])
    without_time = rejected_rows(timeless, [UNREADABLE_TIME if given else NO_TIME for given in timeless["datetime"].notna()])
    reading.rejected = pa.concat_tables([placed.rejected, otherwise, without_time])
    since = month.shift(1 - wanted.lookback_months).start
    latest = source.last(since, month.end, satellite)
    shapes, reasons = usable_footprints(latest["geometry"].to_numpy(dtype=object), latest["misplaced"].to_numpy(dtype=object))
    usable = ~shapely.is_missing(shapes)
    reading.last = pa.table(
        {
            "datetime": pa.array(as_utc(latest["datetime"][usable]), TIME),
            "geometry": pa.array(shapely.to_wkb(shapes[usable]), pa.binary()),
        },
        schema=LAST_SCHEMA,
    )
    lookback_reasons = {str(k): int(v) for k, v in latest["rows"][~usable].groupby(reasons[~usable]).sum().items()}
    month_reasons = Counter(placed.rejected["reason"].to_pylist()) + Counter(otherwise["reason"].to_pylist())
    warnings = (
        judge_rejected(month_reasons, len(frame) + otherwise.num_rows, f"rows of the holdings ({source.name}) in the month"),
        judge_rejected(Counter(without_time["reason"].to_pylist()), total, f"rows of the holdings ({source.name}) of {satellite!r}"),
        judge_rejected(lookback_reasons, int(latest["rows"].sum()), f"rows of the holdings ({source.name}) in the lookback"),
        judge_rejected({NO_SENSOR: nameless} if nameless else {}, nameless + sum(spelt.values()), f"rows of the holdings ({source.name})"),
        "" if len(frame) or len(latest) else _never_occurs(source, sensor, since, end, spelt),
    )
    reading.warnings = [warning for warning in warnings if warning]
    return reading


def _together(near: pa.Table, further: pa.Table) -> pa.Table:
    """Rows near the month, and rows up to two days from it whose id may name a scene of it: their own time may be local, or a later one.

    Names stay apart: a nameless row's number is that of its part.
    """
    taken = set(near["holding"].to_pylist())
    names = [name if name not in taken else f"{name} (further)" for name in further["holding"].to_pylist()]
    place = further.schema.get_field_index("holding")
    return pa.concat_tables([near, further.set_column(place, HOLDINGS_SCHEMA.field("holding"), pa.array(names, pa.string()))])


def _spelt_otherwise(
    source: HoldingsSource,
    satellite: str,
    spelt: Mapping[str, int],
    since: dt.datetime,
    until: dt.datetime,
    is_near: Callable[[pd.DataFrame], NDArray[np.bool_]],
) -> pa.Table:
    """Rows near the month whose sensor is the satellite in another spelling, rejected."""
    alike = [name for name in spelt if name != satellite and same_spelling(name) == same_spelling(satellite)]
    if not alike:
        return REJECTED_HOLDINGS_SCHEMA.empty_table()
    frame = source.rows(since, until, alike)
    frame = frame[is_near(frame)]
    return rejected_rows(frame, [f"sensor is spelt {name!r}, held_satellite {satellite!r}" for name in frame["sensor"]])


def _never_occurs(source: HoldingsSource, sensor: CoverageSensor, since: dt.datetime, until: dt.datetime, near: Mapping[str, int]) -> str:
    spelt = {**source.spellings(since, until), **near}
    if sensor.held_satellite in spelt:  # in the days after the month
        return ""
    spelt = {name or "(none)": count for name, count in spelt.items()}
    some = ", ".join(f"{name[:40]!r} ({count:,})" for name, count in sorted(spelt.items(), key=lambda item: -item[1])[:8])
    span = f"from {since:%Y-%m} to {until:%Y-%m}"
    if not spelt:
        return f"the holdings ({source.name}) list nothing of any sensor {span}"
    return (
        f"no row of the holdings ({source.name}) {span} has {sensor.held_satellite!r} in its sensor column, which has {some}; "
        f"if one of them is {sensor.key}, set its held_satellite"
    )


def holdings_stats(
    holdings: gpd.GeoDataFrame, start: str | dt.date, end: str | dt.date, grid: GridSpec, *, cloud_lt: float = 10.0
) -> xr.Dataset:
    """Holdings as ``fetch_holdings`` gives them, as a Dataset with held_count, held_clear_count and their day masks.

    Plain gridding, without a catalogue: every holding counts with its own footprint, day and cloud. Dims (time, lat, lon), one time a
    month of the window. Raises ``HoldingsRefused`` where too many rows cannot be placed.
    """
    lonlat = holdings if holdings.crs is None else holdings.to_crs("EPSG:4326")
    shapes = lonlat.geometry
    frame = pd.DataFrame(lonlat.drop(columns=shapes.name)).assign(geometry=shapes.to_wkb())
    for name in ("cloud", "scene_id"):
        if name not in frame:
            frame[name] = None
    placed = place_rows(frame, None)
    if warning := judge_rejected(placed.reasons, len(frame), "rows of the holdings"):
        log.warning("%s", warning)
    table = placed.table
    table = table.filter(pa.array(same_rows(table) == np.arange(table.num_rows)))
    when = table["pass_time"]
    months = []
    for month in window_months(start, end):
        inside = pc.and_(pc.greater_equal(when, pa.scalar(month.start, TIME)), pc.less(when, pa.scalar(month.end, TIME)))
        rows = united_by_key(table.filter(inside))
        cells = pa.concat_tables(held_tables(rows, LAST_SCHEMA.empty_table(), grid, cloud_lt=cloud_lt))
        known = AreaKnown(everywhere=True)
        fields = {variable: dense(cells, column, grid, kind, known) for variable, (column, kind) in HELD_VARIABLES.items()}
        months.append(fields_dataset(fields, ["held"], [month], grid))
    return xr.concat(months, dim="time").isel(sensor=0, drop=True)
