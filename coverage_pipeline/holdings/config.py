"""Settings of the holdings: where they are listed, in which table and columns, and how they match."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from typing import Annotated, Literal, Protocol

from pydantic import (
    Field,
    SecretStr,
    field_validator,
)

from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.redaction import has_login
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.section import PREFIX, Section

HOLDINGS_SECTIONS = frozenset({"db", "holdings", "tiles"})
"""Sections that say how our holdings are got at, and may hold its secrets."""


class HoldingsFilter(Section):
    """``[holdings.filter]``: which rows count, such as those that are not archived."""

    column: str
    """A column of the table or file, such as status or archived."""
    values: Annotated[list[str], Field(min_length=1)]
    """Its values that count, as text (true and false of a flag); an empty text stands for null: ``archived`` of ``[""]``."""

    @field_validator("column")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_database_name(name)


class ArchiveSettings(Section):
    """``[holdings.stac]``: a STAC API of one's own archive."""

    endpoint: str
    """Its landing page, http or https."""
    collections: Annotated[dict[str, str], Field(min_length=1)]
    """Sensor key by collection: ``{ "sentinel-2-l2a" = "sentinel-2" }``."""
    platforms: dict[str, list[str]] = Field(default_factory=dict)
    """Platforms that count, by collection; all where none is given."""
    cloud_field: str | None = None
    """Property of the cloud percentage; ``eo:cloud_cover`` where none is given."""

    @field_validator("endpoint")
    @classmethod
    def _address(cls, endpoint: str) -> str:
        if not endpoint.startswith(("http://", "https://")) or has_login(endpoint):
            raise ValueError("must be the http(s) address of the API's landing page, without credentials")
        return endpoint


class HoldingsSettings(Section):
    """``[holdings]``: where our own scenes are listed, and how they match the catalogue's."""

    source: Literal["auto", "file", "postgis", "stac", "ids", "off"] = "auto"
    """``auto``: the file where ``path`` is set, else the database where one is configured. ``stac``: the API of ``[holdings.stac]``.
    ``ids``: ``path`` is a text with an id a line, or an inventory in which ids stand; footprints and times are the catalogue's."""
    stac: ArchiveSettings | None = None
    """``[holdings.stac]``: the STAC API of ``source = "stac"``."""
    path: str | None = None
    """A GeoParquet file (or anything geopandas reads) with the columns of ``[tiles]``."""
    sensors: dict[str, str] = Field(default_factory=dict)
    """Sensor keys by what the sensor column says: ``{ SENTINEL_2A = "sentinel-2", s2a_ard = "sentinel-2" }``. A sensor's own
    ``held_satellite`` counts beside them."""
    filter: HoldingsFilter | None = None
    """Rows that count; all where none is given."""
    time_zone: str | None = None
    """Zone of times that carry none, such as Europe/Berlin; UTC where none is given. Of an hour that comes twice the earlier one is
    taken."""
    lookback_months: Annotated[int, Field(ge=1, le=240)] = 24
    """Months that "when was it last held" looks back."""
    match_tolerance_seconds: Annotated[float, Field(ge=0, le=43_200)] = 60.0
    """Seconds by which a holding's time may differ from its scene's, where it has no key."""
    min_iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Intersection over union of footprints from which a holding without a key may be a scene."""
    min_cover: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a scene's area from which it is held whole; below it is held in part."""

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                zoneinfo.ZoneInfo(name)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(f"{name!r} is no time zone of the IANA database; write one such as Europe/Berlin") from None
        return name

    def held_name(self, sensor: CoverageSensor) -> str | None:
        """What the holdings of a sensor are called once the spellings are mapped; None where we hold nothing of it."""
        if self.source == "stac" and self.stac is not None:  # what no collection is of is not in the archive
            return (sensor.held_satellite or sensor.key) if sensor.key in self.stac.collections.values() else None
        named = self.source == "ids" or sensor.key in self.sensors.values()
        return sensor.held_satellite or (sensor.key if named else None)


class DatabaseSettings(Section):
    """``COVERAGE_DB_*``: the holdings database. Secrets belong in ``.env`` or the environment."""

    url: SecretStr | None = None
    """The whole address, in place of the parts below: postgresql://user:password@host:5432/name."""
    host: str | None = None
    """Host name, IP address, or the folder of a socket."""
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    """Port."""
    name: str | None = None
    """Database."""
    user: str | None = None
    """User."""
    password: SecretStr | None = None
    """Password."""
    schema_name: str | None = Field(default=None, alias="schema")
    """Schema of the table; by default the search path of the database decides."""
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None
    """TLS, as libpq names its modes."""
    connect_timeout: Annotated[int, Field(ge=1, le=600)] = 10
    """Seconds to connect."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            check_database_address(url.get_secret_value())
        return url

    @field_validator("host")
    @classmethod
    def _host(cls, host: str | None) -> str | None:
        return host if host is None else check_database_host(host)

    @field_validator("name", "user", "schema_name")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        return name if name is None else check_database_name(name)


_HOST_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*\.?")
_LONGEST_HOST = 253
_LONGEST_NAME = 63
"""Bytes of a name in PostgreSQL (NAMEDATALEN - 1); a longer one is cut there, and so names something else."""
_ESCAPES = "write @ in a user or password as %40, / as %2F, ? as %3F, # as %23, : as %3A"


def check_database_host(host: str) -> str:
    """A database's host: its name, its number, several of them with commas, or the folder of its socket. An error does not repeat it:
    people have put whole addresses there, password included.
    """
    if host.startswith("/"):  # the folder of a socket
        wrong = "@" in host or "//" in host or not host.isprintable()
    else:
        wrong = len(host) > 10 * _LONGEST_HOST or not all(_is_host(one) for one in host.split(","))
    if wrong:
        raise ValueError(
            "must be a host name, an IP address or the folder of a socket, such as db.example.org; the port belongs in "
            f"{PREFIX}DB_PORT, and a whole address in {PREFIX}DB_URL"
        )
    return host


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return len(text) <= _LONGEST_HOST and _HOST_NAME.fullmatch(text) is not None
    return True


def check_database_name(name: str) -> str:
    """The name of a database, user, schema, table or column: not an address, and not one that PostgreSQL would cut."""
    if not name.isprintable() or "//" in name or has_login(name) or not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise ValueError(f"must be a plain name of 1 to {_LONGEST_NAME} bytes; a whole address belongs in {PREFIX}DB_URL")
    return name


def check_database_address(address: str) -> None:
    """Refuse an address that cannot be taken apart for sure: where an ``@`` or ``/`` is not escaped, half of a password would be taken
    for the host or the database, and shown. No error repeats any of it.
    """
    from sqlalchemy.engine import make_url  # a tenth of a second, for those who have a database
    from sqlalchemy.exc import ArgumentError

    scheme, mark, rest = address.partition("://")
    if not mark or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise ValueError("is not a database address; write postgresql://user:password@host:5432/name")
    if scheme.partition("+")[0] != "postgresql":
        raise ValueError("names another kind of database; write postgresql://user:password@host:5432/name")
    if rest.count("@") > 1:
        raise ValueError(f"has more than one @: {_ESCAPES}")
    login, has_user, place = rest.rpartition("@")
    if has_user and (re.search(r"[/?#\s]", login) or login.count(":") > 1):
        raise ValueError(f"cannot be taken apart before its @: {_ESCAPES}")
    try:
        url = make_url(address)
        # Several hosts with ports, or a host in the query, are libpq's own ways; each name is checked all the same.
        hosts = [url.host] if url.host else []
        given = {name: [value] if isinstance(value, str) else list(value) for name, value in url.query.items()}
        for host in [*hosts, *(one.rpartition(":")[0] or one for one in given.get("host", []) if one)]:
            check_database_host(host)
        for name in filter(None, [url.database, *given.get("dbname", []), *given.get("user", [])]):
            check_database_name(name)
        whole = bool(place) or "host" in given
    except (ArgumentError, ValueError):  # their text may hold a part of the password
        whole = False
    if not whole:
        raise ValueError(f"names no host or database that can be; write postgresql://user:password@host:5432/name and {_ESCAPES}")


class TilesSettings(Section):
    """``COVERAGE_TILES_*``: which table and columns hold the holdings."""

    table: str = "tiles"
    """Table or view of the holdings."""
    geom: str = "geometry"
    """Column of the footprint."""
    date: str = "datetime"
    """Column of the acquisition time."""
    sensor: str = "sensor"
    """Column of the sensor's or satellite's name."""
    cloud: str | None = "cloud"
    """Column of the cloud cover, percent; empty where there is none."""
    scene_id: str | None = None
    """Column with the scene's or product's id; None where there is none (then time and footprint match)."""

    @field_validator("table", "geom", "date", "sensor", "cloud", "scene_id")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        return check_database_name(name) if name else name


class HoldingsConfig(Protocol):
    """Settings that say where the holdings are listed and how they are read; ``PlannerSettings`` has them."""

    @property
    def holdings(self) -> HoldingsSettings:
        """``[holdings]``."""
        ...

    @property
    def db(self) -> DatabaseSettings:
        """``COVERAGE_DB_*``."""
        ...

    @property
    def tiles(self) -> TilesSettings:
        """``COVERAGE_TILES_*``."""
        ...

    def registry(self) -> dict[str, CoverageSensor]:
        """Every sensor that can be named."""
        ...

    def scan_options(self) -> ScanOptions:
        """How catalogues, and a STAC API of one's own, are asked."""
        ...
