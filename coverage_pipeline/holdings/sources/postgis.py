"""Holdings in a PostGIS table."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import sqlalchemy as sa
from pyproj import CRS
from pyproj.exceptions import CRSError
from sqlalchemy.types import UserDefinedType

from coverage_pipeline.holdings.config import DatabaseSettings, HoldingsFilter, TilesSettings
from coverage_pipeline.holdings.errors import HoldingsDriverMissing, HoldingsUnreachable
from coverage_pipeline.holdings.rows import (
    HoldingsRefused,
    localised,
)
from coverage_pipeline.holdings.sources.base import in_degrees
from coverage_pipeline.redaction import redact


class GeometryColumn(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "geometry"


@dataclass(frozen=True)
class PostgisHoldings:
    """Holdings in a PostGIS table, read with SQLAlchemy and psycopg2; every identifier is quoted by SQLAlchemy."""

    db: DatabaseSettings
    tiles: TilesSettings
    only: HoldingsFilter | None = None
    time_zone: str | None = None
    """Zone of times that carry none; None: UTC."""

    @property
    def name(self) -> str:
        """Table, database and host; no user, no password."""
        if self.db.url is not None:
            url = self._url()
            return f"table {self.tiles.table} of {url.database} on {url.host}"
        return f"table {self.tiles.table} of {self.db.name} on {self.db.host}"

    def _url(self) -> sa.URL:
        if self.db.url is not None:
            # The settings have checked it (``holdings.config.check_database_address``): no part of a password can be taken for a host here.
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
        # The session's zone decides what a timestamp without zone means when compared: UTC, or the one that the settings name (checked
        # against the IANA database). The address's own options stay, before it.
        given = self._url().query.get("options", ())
        session = " ".join([*([given] if isinstance(given, str) else given), f"-c timezone={self.time_zone or 'UTC'}"])
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
            text = self._clean(error)
            # A server that says FATAL is there and refuses us, unless it is only starting, stopping or full for now.
            passing = ("starting up", "shutting down", "too many", "remaining connection slots", "recovery mode")
            # What libpq itself finds wanting once the server has answered carries no FATAL.
            own = ("no password supplied", "does not support SSL", "certificate")
            if ("FATAL" in text and not any(word in text for word in passing)) or any(word in text for word in own):
                raise HoldingsRefused(
                    f"the holdings database refused the connection: {text}; check COVERAGE_DB_USER, COVERAGE_DB_PASSWORD, COVERAGE_DB_NAME "
                    "and COVERAGE_DB_SSLMODE"
                ) from None
            raise HoldingsUnreachable(
                f"the holdings database cannot be reached ({self.name}): {text}; check COVERAGE_DB_HOST and COVERAGE_DB_PORT"
            ) from None
        except (sa.exc.ProgrammingError, sa.exc.DataError, sa.exc.InternalError, sa.exc.NotSupportedError) as error:
            raise HoldingsRefused(
                f"the holdings table does not fit the settings ({self.name}): {self._clean(error)}; {self._hint(error)}"
            ) from None
        finally:
            engine.dispose()

    def _hint(self, error: sa.exc.DBAPIError) -> str:
        """What to set, by the server's code of the error (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""
        text = str(getattr(getattr(error.orig, "diag", None), "message_primary", None) or "")
        match getattr(error.orig, "pgcode", None):
            case "42P01" | "3F000":
                return "set COVERAGE_TILES_TABLE and COVERAGE_DB_SCHEMA"
            case "42703":
                if self.only is not None and f'column "{self.only.column}"' in text:
                    return "set holdings.filter"
                wrong = [n for n, value in self.tiles.model_dump().items() if n != "table" and value and f'column "{value}"' in text]
                if wrong:
                    empty = " (empty: there is none)" if set(wrong) <= {"cloud", "scene_id"} else ""
                    return f"set {' or '.join(f'COVERAGE_TILES_{name.upper()}' for name in wrong)}{empty}"
            case "42883" if "operator" in text:  # only the time is compared with something of another type
                return "set COVERAGE_TILES_DATE (a column of timestamps or dates)"
            case "42846" | "XX000" if "geometry" in text:
                return "set COVERAGE_TILES_GEOM"
            case "42704" | "42883" if "geometry" in text or "st_" in text.lower():
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
        shape = sa.cast(self._column(self.tiles.geom), GeometryColumn())
        return sa.func.ST_AsBinary(sa.func.ST_Force2D(shape)), sa.func.ST_SRID(shape)

    def _within(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
        date = self._column(self.tiles.date)
        conditions: list[sa.ColumnElement[bool]] = [date >= sa.literal(since), date < sa.literal(until), self._counts()]
        if satellites is not None:
            conditions.append(self._column(self.tiles.sensor).in_(list(satellites)))
        return conditions

    def _counts(self) -> sa.ColumnElement[bool]:
        """Rows that ``[holdings.filter]`` lets through."""
        if self.only is None:
            return sa.true()
        column = sa.cast(self._column(self.only.column), sa.Text)
        among = column.in_([value for value in self.only.values if value])
        return sa.or_(among, column.is_(None)) if "" in self.only.values else among

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
        if "datetime" in frame:
            frame["datetime"] = localised(frame["datetime"], self.time_zone)
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
        of = sa.true() if satellites is None else self._column(self.tiles.sensor).in_(list(satellites))
        own = sa.and_(of, self._counts())
        rows = self._rows([own, self._column(self.tiles.date).is_(None)])
        if rows.empty:
            return rows, 0
        with self._connection() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(self._table()).where(own)).scalar_one()
        return rows, int(count)

    def last(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str]) -> pd.DataFrame:
        """See ``HoldingsSource``: one grouped question, whatever the table's size."""
        footprint = self._footprint()
        query = (
            sa.select(sa.func.max(self._column(self.tiles.date)), sa.func.count(), *footprint)
            .select_from(self._table())
            .where(*self._within(since, until, satellites))
            .group_by(*footprint)
        )
        return self._frame(query, ["datetime", "rows"])

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """See ``HoldingsSource``."""
        sensor = sa.cast(self._column(self.tiles.sensor), sa.Text)
        query = sa.select(sensor, sa.func.count()).select_from(self._table()).where(*self._within(since, until, None)).group_by(sensor)
        with self._connection() as connection:
            return {name or "": int(count) for name, count in connection.execute(query)}


def read_postgis_table(db: DatabaseSettings, table: str, geometry: str, *, most: int) -> gpd.GeoDataFrame:
    """All columns of a table or view (``name``, or ``schema.name``), at most ``most`` + 1 rows, its outlines in EPSG:4326.

    Raises ``HoldingsUnavailable`` and ``HoldingsRefused`` as ``PostgisHoldings`` does; ``ValueError`` for an outline that cannot be brought
    to degrees.
    """
    schema, dot, name = table.rpartition(".")
    where = db.model_copy(update={"schema_name": schema}) if dot else db
    reader = PostgisHoldings(where, TilesSettings(table=name, geom=geometry))
    with reader._connection() as connection:
        try:
            columns = sa.inspect(connection).get_columns(name, schema=where.schema_name)
        except sa.exc.NoSuchTableError:
            raise ValueError(f"there is no table or view {table}") from None
        names = [one["name"] for one in columns if one["name"] != geometry]
    query = sa.select(*(reader._column(one) for one in names), *reader._footprint()).select_from(reader._table()).limit(most + 1)
    frame = reader._frame(query, names)
    wrong = frame["misplaced"].notna()
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} outlines cannot be brought to degrees: {frame['misplaced'][wrong].iloc[0]}")
    shapes = shapely.from_wkb(frame["geometry"].to_numpy(dtype=object), on_invalid="ignore")
    return gpd.GeoDataFrame(frame.drop(columns=["geometry", "misplaced"]), geometry=shapes, crs="EPSG:4326")
