"""Acquired: the scenes we hold, from a PostGIS table or a GeoParquet file, by month; and when each place was last held.

Knows nothing of whose holdings they are: the connection and the names of table and columns come from ``COVERAGE_DB_*`` and
``COVERAGE_TILES_*``. A layer that cannot be read is *off*, which is not the same as holding nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Number
from typing import Any, Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
import sqlalchemy as sa
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from sqlalchemy.types import UserDefinedType
from upath import UPath

from coverage_pipeline.catalog.scene_key import SceneIdentity, scene_identity
from coverage_pipeline.catalog.scenes import TIME, as_geodataframe
from coverage_pipeline.catalog.statistics import fields_dataset, is_clear
from coverage_pipeline.celltable import CELL_SCHEMA, AreaKnown, cell_table, dense
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.footprints import normalise_footprints
from coverage_pipeline.geoparquet import as_geoparquet
from coverage_pipeline.grid import Engine, GridSpec, latest_in_bands, row_strips, split_bbox, statistics_in_bands
from coverage_pipeline.months import UTC, Month, MonthError, as_date, window_months
from coverage_pipeline.sensors import CloudMeaning, CoverageSensor
from coverage_pipeline.settings import DatabaseSettings, HoldingsSettings, PlannerSettings, TilesSettings, load_settings
from coverage_pipeline.store import Store, read_metadata, read_parquet, write_cells, write_parquet
from coverage_pipeline.wkb import ragged_from_wkb

log = logging.getLogger(__name__)

BBox = tuple[float, float, float, float]

HOLDINGS_SCHEMA = pa.schema(
    [
        pa.field("holding", pa.string(), nullable=False),  # the scene id, or the row's number where there is none
        pa.field("scene_id", pa.string()),
        pa.field("scene_key", pa.string()),  # null: no id, or one that the sensor's rule does not understand
        pa.field("datetime", TIME, nullable=False),
        pa.field("date_only", pa.bool_(), nullable=False),  # the source gives a day without a time
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("cloud", pa.float64()),  # percent; null: not known
        pa.field("in_month", pa.bool_(), nullable=False),  # false: within the match tolerance of the month
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)
LAST_SCHEMA = pa.schema([pa.field("datetime", TIME, nullable=False), pa.field("geometry", pa.binary(), nullable=False)])
# A Sentinel-2 id states the datatake's start, which a holding's own time may follow by up to 27 minutes: its month and day are the id's,
# as they are the catalogue's.
_ID_MARGIN = dt.timedelta(hours=1)
HELD_SCHEMA = CELL_SCHEMA.append(pa.field("last_held", pa.float64(), nullable=False))
"""Cell statistics of the held scenes, with the last instant held (seconds since 1970, NaN: none within the lookback)."""


class HoldingsUnavailable(PlannerError, RuntimeError):
    """The holdings cannot be had at all: the layer is off and the build goes on. Its kinds say why."""


class HoldingsNotConfigured(HoldingsUnavailable):
    """Nobody said where the holdings are."""


class HoldingsDriverMissing(HoldingsUnavailable):
    """The database's driver is not installed."""


class HoldingsUnreachable(HoldingsUnavailable):
    """The database does not answer, or the file's place cannot be reached."""

    may_pass = True


class HoldingsRefused(PlannerError):
    """The holdings are there but do not fit the settings: wrong password, table, column or file. This is an error, not *off*."""


class HoldingsSource(Protocol):
    """Where holdings come from."""

    @property
    def name(self) -> str:
        """For reports; never holds a secret."""
        ...

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """Holdings with ``since <= datetime < until``: columns datetime, sensor, cloud, scene_id, geometry (WKB bytes)."""
        ...

    def last(self, since: dt.datetime, until: dt.datetime, satellite: str) -> pd.DataFrame:
        """Per distinct footprint the last ``datetime`` with ``since <= datetime < until``: columns datetime, geometry (WKB)."""
        ...


@dataclass(frozen=True)
class FileHoldings:
    """Holdings in a GeoParquet file, or any vector file that geopandas reads."""

    path: str
    tiles: TilesSettings

    @property
    def name(self) -> str:
        """The file's place."""
        return f"file {self.path}"

    def _read(self, satellites: Sequence[str] | None) -> pd.DataFrame:
        place = UPath(self.path)
        try:
            there = place.exists()
        except OSError as error:
            raise HoldingsUnreachable(f"holdings file {self.path}: {error}") from error
        if not there:
            raise HoldingsUnreachable(f"holdings file {self.path} is not there; set holdings.path (COVERAGE_HOLDINGS_PATH)")
        try:
            if place.suffix in (".parquet", ".geoparquet", ".pq"):
                with place.open("rb") as file:
                    table = gpd.read_parquet(file)
            else:
                table = gpd.read_file(self.path, use_arrow=True)  # through Arrow a date stays a date, without a time
        except (OSError, ValueError, TypeError, pa.ArrowException, RuntimeError) as error:
            raise HoldingsRefused(f"holdings file {self.path} cannot be read as GeoParquet or a vector file: {error}") from error
        wanted = {"datetime": self.tiles.date, "sensor": self.tiles.sensor, "geometry": self.tiles.geom}
        # A file that has ids is taken at its word; a database's columns are only those named.
        scene_id = "scene_id" if self.tiles.scene_id is None and "scene_id" in table else self.tiles.scene_id
        optional = {"cloud": self.tiles.cloud, "scene_id": scene_id}
        for name, column in {**wanted, **{n: c for n, c in optional.items() if c}}.items():
            if column not in table.columns:
                if name in optional and column == TilesSettings.model_fields[name].default:
                    continue
                setting = {"datetime": "DATE", "geometry": "GEOM"}.get(name, name.upper())
                there_are = ", ".join(map(str, table.columns))
                raise HoldingsRefused(
                    f"holdings file {self.path} has no column {column!r} (it has {there_are}); set COVERAGE_TILES_{setting}"
                )
        try:
            shape = table.set_geometry(self.tiles.geom).geometry
        except (TypeError, ValueError) as error:
            raise HoldingsRefused(
                f"column {self.tiles.geom!r} of holdings file {self.path} holds no footprints ({error}); set COVERAGE_TILES_GEOM"
            ) from error
        if shape.crs is not None and not shape.crs.equals("EPSG:4326", ignore_axis_order=True):
            shape = shape.to_crs("EPSG:4326")
        frame = pd.DataFrame(
            {
                "datetime": table[self.tiles.date],
                "sensor": table[self.tiles.sensor],
                "cloud": table.get(self.tiles.cloud, np.nan),
                "scene_id": table.get(scene_id),
                "geometry": shape.to_wkb(),
            }
        )
        return frame if satellites is None else frame[frame["sensor"].isin(list(satellites))]

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """See ``HoldingsSource``."""
        frame = self._read(satellites)
        when = _as_utc(frame["datetime"])
        return frame[(when >= since) & (when < until)]

    def last(self, since: dt.datetime, until: dt.datetime, satellite: str) -> pd.DataFrame:
        """See ``HoldingsSource``."""
        frame = self.rows(since, until, [satellite])
        frame = frame.assign(datetime=_as_utc(frame["datetime"]))
        return frame.groupby("geometry", as_index=False)["datetime"].max()


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
            try:
                url = sa.make_url(self.db.url.get_secret_value())
            except (sa.exc.ArgumentError, ValueError):  # their text would show the password, or a part of it
                raise HoldingsRefused(
                    "COVERAGE_DB_URL is not a database address; write postgresql://user:password@host:5432/name"
                ) from None
            if "@" in (url.host or ""):  # the password's second half: it must get into no message
                raise HoldingsRefused("COVERAGE_DB_URL has more than one @: write an @ of the user or the password as %40")
            if url.get_backend_name() != "postgresql":
                raise HoldingsRefused(f"COVERAGE_DB_URL names {url.get_backend_name()!r}; only postgresql is possible")
            return url.set(drivername="postgresql+psycopg2")
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
        password = self._url().password
        return text.replace(str(password), "***") if password else text

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
            raise HoldingsDriverMissing(f"the holdings' database driver is missing ({error}); pip install psycopg2-binary") from error
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

    def _footprint(self) -> sa.ColumnElement[Any]:
        shape = sa.cast(self._column(self.tiles.geom), _Geometry())
        lonlat = sa.case((sa.func.ST_SRID(shape).in_([0, 4326]), shape), else_=sa.func.ST_Transform(shape, 4326))
        return sa.func.ST_AsBinary(sa.func.ST_Force2D(lonlat))

    def _within(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
        date = self._column(self.tiles.date)
        conditions: list[sa.ColumnElement[bool]] = [date >= sa.literal(since), date < sa.literal(until)]
        if satellites is not None:
            conditions.append(self._column(self.tiles.sensor).in_(list(satellites)))
        return conditions

    def _frame(self, query: sa.Select[Any], columns: list[str]) -> pd.DataFrame:
        with self._connection() as connection:
            rows = [tuple(row) for part in connection.execute(query).partitions(20_000) for row in part]
        frame = pd.DataFrame.from_records(rows, columns=columns)
        frame["geometry"] = [None if shape is None else bytes(shape) for shape in frame["geometry"]]
        return frame

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """See ``HoldingsSource``."""
        query = (
            sa.select(
                self._column(self.tiles.date),
                self._column(self.tiles.sensor),
                self._column(self.tiles.cloud) if self.tiles.cloud else sa.null(),
                sa.cast(self._column(self.tiles.scene_id), sa.Text) if self.tiles.scene_id else sa.null(),
                self._footprint(),
            )
            .select_from(self._table())
            .where(*self._within(since, until, satellites))
        )
        return self._frame(query, ["datetime", "sensor", "cloud", "scene_id", "geometry"])

    def last(self, since: dt.datetime, until: dt.datetime, satellite: str) -> pd.DataFrame:
        """See ``HoldingsSource``: one grouped question, whatever the table's size."""
        footprint = self._footprint()
        query = (
            sa.select(sa.func.max(self._column(self.tiles.date)), footprint)
            .select_from(self._table())
            .where(*self._within(since, until, [satellite]))
            .group_by(footprint)
        )
        return self._frame(query, ["datetime", "geometry"])


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


def _as_utc(values: pd.Series[Any]) -> pd.Series[Any]:
    """Times as UTC; a time without zone is UTC, text must be ISO 8601. Raises ``HoldingsRefused`` for what is no time."""
    given = values.dropna()
    if pd.api.types.is_numeric_dtype(given) or (given.dtype == object and any(isinstance(v, Number) for v in given)):
        if len(given):  # pandas would take numbers as nanoseconds since 1970, and every month would be empty
            raise HoldingsRefused(f"the holdings' date column holds numbers such as {given.iloc[0]}, not times; set COVERAGE_TILES_DATE")
        values = pd.Series(pd.NaT, index=values.index)
    try:
        return pd.to_datetime(values, utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    except (ValueError, TypeError) as error:
        raise HoldingsRefused(f"the holdings' date column holds something that is no time: {error}; set COVERAGE_TILES_DATE") from None


def _is_date(values: pd.Series[Any]) -> NDArray[np.bool_]:
    """Which values are a day without a time, as a date or as text."""
    if not (values.dtype == object or isinstance(values.dtype, pd.StringDtype)):
        return np.full(len(values), str(values.dtype).startswith("date32"))
    return np.array(
        [
            len(v.strip()) <= len("2025-01-31") if isinstance(v, str) else isinstance(v, dt.date) and not isinstance(v, dt.datetime)
            for v in values
        ],
        bool,
    )


def _as_id(value: Any) -> str | None:
    """A scene id as text, as the database gives it; None where there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _normalised(frame: pd.DataFrame, sensor: CoverageSensor | None) -> tuple[pa.Table, int]:
    """Rows of a source as ``HOLDINGS_SCHEMA`` (``in_month`` true throughout), and how many had no usable footprint."""
    shapes, _ = normalise_footprints(shapely.from_wkb(frame["geometry"].to_numpy(dtype=object), on_invalid="ignore"))
    usable = ~shapely.is_missing(shapes) & frame["datetime"].notna().to_numpy()
    kept = frame[usable].reset_index(drop=True)
    percent = kept["cloud"].map(lambda v: None if isinstance(v, bool) else v)  # a flag is no percentage
    cloud = pd.to_numeric(percent, errors="coerce").astype("float64")
    cloud = cloud.where(cloud.between(0, 100))
    ids = [_as_id(v) for v in kept["scene_id"]]
    family = sensor.family if sensor else "other"
    identities = [scene_identity(family, v) if v else SceneIdentity(None) for v in ids]
    times = _as_utc(kept["datetime"])
    table = pa.table(
        {
            "holding": [v or f"row {k}" for k, v in enumerate(ids)],
            "scene_id": pa.array(ids, pa.string()),
            "scene_key": pa.array([one.key for one in identities], pa.string()),
            "datetime": pa.array([one.acquired or when for one, when in zip(identities, times, strict=True)], TIME),
            "date_only": _is_date(kept["datetime"]),
            "sensor": pa.array(kept["sensor"].astype(str), pa.string()),
            "cloud": pa.array(cloud.to_numpy(), pa.float64(), from_pandas=True),
            "in_month": np.full(len(kept), True),
            "geometry": pa.array(shapely.to_wkb(shapes[usable]), pa.binary()),
        },
        schema=HOLDINGS_SCHEMA,
    )
    return table, int((~usable).sum())


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
    column or file), ``MonthError`` for a window that is reversed.
    """
    settings = settings or load_settings()
    since, until = _instant(start, is_end=False), _instant(end, is_end=True)
    if until < since:
        raise MonthError(f"the window is reversed: start {start} is after end {end}")
    table, _ = _normalised(holdings_source(settings).rows(since, until, satellites), None)
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
    """Write one partition's holdings and ``last`` table; returns their metadata.

    A sensor that is not in our holdings is a known zero (``not_held``). Where the holdings cannot be had the partition is
    written as ``off``, unless an extract is there already: then ``HoldingsUnavailable`` goes up and the extract stays.
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
    holdings, last, rejected = HOLDINGS_SCHEMA.empty_table(), LAST_SCHEMA.empty_table(), 0
    if sensor.held_satellite is None:
        metadata["status"] = "not_held"
    else:
        try:
            source = holdings_source(settings)
            metadata["source"] = source.name
            holdings, last, rejected = _read_month(source, sensor, sensor.held_satellite, month, settings.holdings)
        except HoldingsUnavailable as error:
            if target.exists() and read_metadata(target).get("status") == "read" and not isinstance(error, HoldingsNotConfigured):
                raise
            log.warning("%s %s: holdings are off: %s", sensor.key, month, error)
            metadata |= {"status": "off", "reason": str(error)}
        except HoldingsRefused as error:
            raise HoldingsRefused(f"{sensor.key} {month}: {error}") from error
    metadata |= {"rows": int(pc.sum(holdings["in_month"]).as_py() or 0), "rejected": rejected, "footprints": last.num_rows}
    write_parquet(store.last_held(sensor.key, month), as_geoparquet(last), metadata)
    write_parquet(target, as_geoparquet(holdings), metadata)
    return metadata


def _read_month(
    source: HoldingsSource, sensor: CoverageSensor, satellite: str, month: Month, wanted: HoldingsSettings
) -> tuple[pa.Table, pa.Table, int]:
    tolerance = dt.timedelta(seconds=wanted.match_tolerance_seconds)
    margin = max(tolerance, _ID_MARGIN)
    table, rejected = _normalised(source.rows(month.start - margin, month.end + margin, [satellite]), sensor)
    near = [pa.scalar(month.start - tolerance, TIME), pa.scalar(month.end + tolerance, TIME)]
    table = table.filter(pc.and_(pc.greater_equal(table["datetime"], near[0]), pc.less(table["datetime"], near[1])))
    when = table["datetime"]
    inside = pc.and_(pc.greater_equal(when, pa.scalar(month.start, TIME)), pc.less(when, pa.scalar(month.end, TIME)))
    table = table.set_column(table.schema.get_field_index("in_month"), HOLDINGS_SCHEMA.field("in_month"), inside)
    since = month.shift(1 - wanted.lookback_months).start
    frame = source.last(since, month.end, satellite)
    shapes, _ = normalise_footprints(shapely.from_wkb(frame["geometry"].to_numpy(dtype=object), on_invalid="ignore"))
    usable = ~shapely.is_missing(shapes)
    last = pa.table(
        {
            "datetime": pa.array(_as_utc(frame["datetime"][usable]), TIME),
            "geometry": pa.array(shapely.to_wkb(shapes[usable]), pa.binary()),
        },
        schema=LAST_SCHEMA,
    )
    return table, last, rejected


def _scenes_of(holdings: pa.Table) -> pa.Table:
    """One row a scene: holdings of one key (reprocessings, crops over several sites) united, with the cloud of the newest product.

    Without a key every row is its own. Newest by id: products name their processing time last.
    """
    keys = holdings["scene_key"].to_pandas()
    several = (keys.notna() & keys.duplicated(keep=False)).to_numpy()
    if not several.any():
        return holdings
    frame = holdings.filter(pa.array(several)).to_pandas().sort_values(["scene_key", "scene_id"])
    shapes = gpd.GeoSeries(shapely.from_wkb(frame["geometry"].to_numpy()), index=frame.index)
    united = shapes.groupby(frame["scene_key"]).agg(lambda group: shapely.union_all(group.to_numpy()))
    newest = frame.drop_duplicates("scene_key", keep="last").set_index("scene_key", drop=False)
    whole, _ = normalise_footprints(united.reindex(newest.index).to_numpy(dtype=object))
    newest = newest.assign(geometry=shapely.to_wkb(whole))
    rows = pa.Table.from_pandas(newest[HOLDINGS_SCHEMA.names], schema=HOLDINGS_SCHEMA, preserve_index=False)
    return pa.concat_tables([holdings.filter(pa.array(~several)).select(HOLDINGS_SCHEMA.names), rows])


def holdings_tables(
    holdings: pa.Table,
    last: pa.Table,
    grid: GridSpec,
    *,
    cloud_lt: float,
    cloud: CloudMeaning = "percentage",
    engine: Engine | None = None,
) -> Iterator[pa.Table]:
    """One row a cell (``HELD_SCHEMA``) that a holding of the month covers, or that was held within the lookback; piece by piece,
    ascending.
    """
    mine = _scenes_of(holdings.filter(holdings["in_month"]))
    percent = mine["cloud"].to_numpy(zero_copy_only=False).astype(np.float64)
    footprints, last_footprints = ragged_from_wkb(mine["geometry"]), ragged_from_wkb(last["geometry"])
    day, clear = pc.day(mine["datetime"]).to_numpy().astype(np.uint8), is_clear(percent, cloud_lt, cloud)
    seconds = last["datetime"].cast(pa.int64()).to_numpy().astype(np.float64) / 1e6
    for rows in row_strips(grid, engine):
        bands = statistics_in_bands(*footprints, day=day, cloud=percent, clear=clear, grid=grid, rows=rows, engine=engine)
        stats = pa.concat_tables([CELL_SCHEMA.empty_table(), *(cell_table(band) for band in bands)])
        found = list(latest_in_bands(*last_footprints, value=seconds, grid=grid, rows=rows, engine=engine))
        seen = np.concatenate([np.empty(0, np.int64), *(cells for cells, _ in found)])
        latest = np.concatenate([np.empty(0), *(values for _, values in found)])
        held = stats["cell"].to_numpy()
        first, there = _strip_of(rows, grid)
        there[held - first] = True  # a union by marking: both are within the strip, and sorting or hashing millions takes seconds
        there[seen - first] = True
        place = np.cumsum(there) - 1
        cells = np.flatnonzero(there) + first
        at = place[held - first]
        last_held = np.full(len(cells), np.nan)
        last_held[place[seen - first]] = latest
        columns: dict[str, NDArray[Any]] = {"cell": cells, "last_held": last_held}
        for name in CELL_SCHEMA.names[1:]:
            values = stats[name].to_numpy()
            column = np.full(len(cells), np.nan if values.dtype.kind == "f" else 0, values.dtype)
            column[at] = values
            columns[name] = column
        yield pa.table({f.name: columns[f.name] for f in HELD_SCHEMA}, schema=HELD_SCHEMA)


def _strip_of(rows: tuple[int, int] | None, grid: GridSpec) -> tuple[int, NDArray[np.bool_]]:
    """The first cell of a strip of rows, and a mask of its cells."""
    if rows is None:
        return 0, np.zeros(math.prod(grid.shape), bool)
    return rows[0] * grid.shape[1], np.zeros((rows[1] - rows[0]) * grid.shape[1], bool)


def holdings_table(holdings: pa.Table, last: pa.Table, grid: GridSpec, *, cloud_lt: float, cloud: CloudMeaning = "percentage") -> pa.Table:
    """``holdings_tables`` in one."""
    return pa.concat_tables(holdings_tables(holdings, last, grid, cloud_lt=cloud_lt, cloud=cloud))


_NAMES = {"held_count": "scenes", "held_clear_count": "clear", "held_days": "days", "held_clear_days": "clear_days"}


def holdings_fields(
    table: pa.Table, grid: GridSpec, status: str, month: Month, lookback_months: int, rows: tuple[int, int] | None = None
) -> dict[str, NDArray[Any]]:
    """The cube's Acquired variables of one partition, each a field of the grid or of its ``rows`` (see ``celltable.dense``).

    All are fill unless the holdings were read.
    """
    known = AreaKnown(everywhere=status == "read")
    fields = {variable: dense(table, column, grid, variable, known, rows) for variable, column in _NAMES.items()}
    since = np.full(fields["held_count"].shape, np.nan, np.float32)
    if status == "read":
        # Nothing found within the lookback: at least that long ago (right-censored), which is not "not known".
        lookback = (month.end - month.shift(1 - lookback_months).start).total_seconds() / 86_400
        since[...] = lookback
        seconds = table["last_held"].to_numpy()
        seen = ~np.isnan(seconds)
        days = np.float32((month.end.timestamp() - seconds[seen]) / 86_400)
        first = 0 if rows is None else rows[0] * grid.shape[1]
        since.reshape(-1)[table["cell"].to_numpy()[seen] - first] = days
    fields["days_since_last_held"] = since
    return fields


def holdings_stats(
    holdings: gpd.GeoDataFrame, start: str | dt.date, end: str | dt.date, grid: GridSpec, *, cloud_lt: float = 10.0
) -> xr.Dataset:
    """Holdings as ``fetch_holdings`` gives them, as a Dataset with held_count, held_clear_count and their day masks.

    Dims (time, lat, lon), one time a month of the window.
    """
    frame = pd.DataFrame(holdings.drop(columns="geometry")).assign(geometry=holdings.geometry.to_wkb())
    for name in ("cloud", "scene_id"):
        if name not in frame:
            frame[name] = None
    table, _ = _normalised(frame, None)
    when = table["datetime"]
    months = []
    for month in window_months(start, end):
        inside = pc.and_(pc.greater_equal(when, pa.scalar(month.start, TIME)), pc.less(when, pa.scalar(month.end, TIME)))
        cells = holdings_table(table.filter(inside), LAST_SCHEMA.empty_table(), grid, cloud_lt=cloud_lt)
        known = AreaKnown(everywhere=True)
        fields = {variable: dense(cells, column, grid, variable, known) for variable, column in _NAMES.items()}
        months.append(fields_dataset(fields, ["held"], [month], grid))
    return xr.concat(months, dim="time").isel(sensor=0, drop=True)


def write_holdings_stats(
    sensor: CoverageSensor, month: Month, store: Store, grid: GridSpec, cloud_lt: float, engine: Engine | None = None
) -> dict[str, Any]:
    """Grid one partition's holdings; returns the table's metadata."""
    holdings, metadata = read_parquet(store.holdings(sensor.key, month), HOLDINGS_SCHEMA.names)
    last, _ = read_parquet(store.last_held(sensor.key, month), LAST_SCHEMA.names)
    tables = holdings_tables(holdings, last, grid, cloud_lt=cloud_lt, cloud=sensor.cloud, engine=engine)
    return write_cells(
        store.stats("held", sensor.key, month), HELD_SCHEMA, tables, {**metadata, "grid": grid.describe(), "cloud_lt": cloud_lt}
    )
