"""Every setting: ``config/build.toml`` for the build, ``.env`` and the environment (``COVERAGE_*``) for secrets and overrides.

The environment wins over ``.env``, which wins over the file. ``[grid] resolution`` in the file is ``COVERAGE_GRID_RESOLUTION``
in the environment; lists and tables are JSON there (a list of keys may also be comma-separated).
"""

from __future__ import annotations

import codecs
import datetime as dt
import difflib
import hashlib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from dotenv import dotenv_values
from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from coverage_pipeline.catalog.http import MAX_ANSWER_MB, Patience
from coverage_pipeline.catalog.providers import overridden
from coverage_pipeline.catalog.scan_job import ScanOptions
from coverage_pipeline.cube.schema import CubeSpec, DesiredCadence
from coverage_pipeline.demand.gap import DEFAULT_WEIGHTS, check_weights
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.bands import Engine
from coverage_pipeline.grid.spec import CoverageRule, GridSpec
from coverage_pipeline.months import Month, as_date, widened, window_months
from coverage_pipeline.redaction import has_login
from coverage_pipeline.sensors.registry import (
    COVERAGE_SENSORS,
    AvailableSource,
    CoverageSensor,
    SensorError,
    resolve_sensors,
)
from coverage_pipeline.storage.store import Store, is_local, storage_path

PREFIX = "COVERAGE_"
DEFAULT_CONFIG = Path("config/build.toml")
HOLDINGS_SECTIONS = frozenset({"db", "holdings", "tiles"})
"""Sections that say how our holdings are got at, and may hold its secrets."""
_LIBPQ_SECRETS = ("PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE")


class SettingsError(PlannerError):
    """A setting that cannot be used; the message names it, where it came from and what is allowed."""


def _given(value: Any, info: ValidationInfo, model: type[BaseModel]) -> Any:
    """A setting that is given empty or as spaces alone: none, where it may be left out; else refused. No setting falls back on the
    current folder or on an unnamed place.
    """
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise ValueError("holds a NUL character")
    if value.strip():
        return value
    field = model.model_fields[info.field_name or ""]
    if type(None) in get_args(field.annotation):
        return None
    default = field.get_default(call_default_factory=True)
    usual = f" (its default is {default})" if isinstance(default, str | int | float) else ""
    raise ValueError(f"is empty; give a value, or leave it out{usual}")


def _place(place: str) -> str:
    """A place to write to; raises ``ValueError`` for the root of a file system, and for an address without a bucket or a folder."""
    scheme, mark, rest = place.strip().rpartition("://")
    if not rest.strip("/ ") and (mark or rest):
        what = f"names no bucket or folder after {scheme}://" if mark and scheme != "file" else "is the root of the file system"
        raise ValueError(f"{what}; name a folder or an address such as s3://bucket/folder")
    return place


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _not_blank(cls, value: Any, info: ValidationInfo) -> Any:
        return _given(value, info, cls)


class GridSettings(_Section):
    """``[grid]``: the cells."""

    resolution: float = 0.1
    """Side of a cell, degrees; any that divides 180."""
    crs: str = "EPSG:4326"
    h3_res: int | None = None
    """H3 cells of that resolution instead of degrees."""
    extent: tuple[float, float, float, float] | None = None
    """West, south, east, north of a region; None: the globe."""
    rule: CoverageRule = "touch"
    """When a footprint covers a cell: touch, center or fraction."""
    min_fraction: float = 0.5
    """Share of a cell's area that a footprint must cover, with the rule ``fraction``."""
    memory_mb: int = Field(default=1024, ge=16)
    """Budget of a gridding's arrays; finer grids are worked on in bands."""
    threads: int = Field(default_factory=lambda: Engine().threads, ge=1)
    """Bands that are worked on at a time."""

    @field_validator("resolution")
    @classmethod
    def _divides(cls, resolution: float) -> float:
        return GridSpec(resolution).resolution

    @field_validator("crs")
    @classmethod
    def _degrees(cls, crs: str) -> str:
        return GridSpec(crs=crs).crs

    @field_validator("h3_res")
    @classmethod
    def _coarse_enough(cls, h3_res: int | None) -> int | None:
        return GridSpec(h3_res=h3_res).h3_res

    @field_validator("extent", mode="before")
    @classmethod
    def _from_text(cls, extent: Any) -> Any:
        """``5,45,16,56`` is easier to write in an environment than JSON."""
        if isinstance(extent, str) and not extent.lstrip().startswith("["):
            return tuple(extent.split(",")) if extent.strip() else None
        return extent

    @field_validator("extent")
    @classmethod
    def _region(cls, extent: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        GridSpec(extent=extent)
        return extent

    @field_validator("min_fraction")
    @classmethod
    def _share(cls, min_fraction: float) -> float:
        return GridSpec(min_fraction=min_fraction).min_fraction

    @model_validator(mode="after")
    def _possible(self) -> GridSettings:
        self.spec()
        return self

    def spec(self) -> GridSpec:
        """The grid."""
        return GridSpec(self.resolution, self.crs, self.h3_res, self.extent, self.rule, self.min_fraction)


class WindowSettings(_Section):
    """``[window]``: the months."""

    start: dt.date = dt.date(2025, 1, 1)
    end: dt.date | None = None
    """Last day; None: up to the last closed month."""
    freq: str = "MS"

    @field_validator("start", "end", mode="before")
    @classmethod
    def _dated(cls, day: Any, info: ValidationInfo) -> Any:
        if not isinstance(day, str) or not day.strip():
            return day
        month_only = info.field_name == "end" and len(day.strip()) == 7
        return Month.parse(day).end.date() - dt.timedelta(days=1) if month_only else as_date(day)

    @field_validator("freq")
    @classmethod
    def _monthly(cls, freq: str) -> str:
        if freq != "MS":
            raise ValueError(f"{freq!r} is not possible: the cube's bins are calendar months, freq must be 'MS'")
        return freq

    @model_validator(mode="after")
    def _ordered(self) -> WindowSettings:
        if self.end is not None:
            window_months(self.start, self.end)
        return self

    def last_day(self, today: dt.date | None = None) -> dt.date:
        """The window's last day: the one set, else the last closed month's."""
        if self.end is not None:
            return self.end
        this_month = Month.of(today or dt.datetime.now(dt.UTC))
        return max(this_month.start.date() - dt.timedelta(days=1), self.start)


class SensorSettings(_Section):
    """``[sensors]``: which sensors, other catalogues for them, and sensors of your own."""

    keys: Annotated[list[str], NoDecode] = ["emit", "enmap", "prisma", "landsat-8-9", "sentinel-2"]
    sources: dict[str, list[dict[str, Any]]] = {}
    """``[[sensors.sources.emit]]``: catalogues to ask instead of the registry's, primary first."""
    declared: dict[str, dict[str, Any]] = {}
    """``[sensors.declared.my-sensor]``: the fields of ``CoverageSensor``."""

    @field_validator("keys", mode="before")
    @classmethod
    def _comma_separated(cls, keys: Any) -> Any:
        if not isinstance(keys, str):
            return keys
        if keys.lstrip().startswith("["):
            return TypeAdapter(list[str]).validate_json(keys)
        return [key.strip() for key in keys.split(",") if key.strip()]

    @model_validator(mode="after")
    def _resolvable(self) -> SensorSettings:
        if not self.keys:
            raise ValueError("keys is empty: name at least one sensor")
        resolve_sensors(self.keys, self.registry())
        return self

    def registry(self) -> dict[str, CoverageSensor]:
        """All known sensors: the registry's, those declared here, with the catalogues named here."""
        known = dict(COVERAGE_SENSORS)
        for key, fields in self.declared.items():
            if key in known:
                raise SensorError(
                    f"sensor {key!r} is declared twice: the registry has it already; to ask other catalogues use [[sensors.sources.{key}]]"
                )
            known[key] = _declared_sensor(key, fields)
        for key, sources in self.sources.items():
            if key not in known:
                raise SensorError(f"sensors.sources names unknown sensor {key!r}: known are {', '.join(sorted(known))}")
            known[key] = _with_sources(known[key], tuple(_source(key, s) for s in sources))
        return known


_SENSOR = TypeAdapter(CoverageSensor)
_SOURCE = TypeAdapter(AvailableSource)


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _declared_sensor(key: str, fields: Mapping[str, Any]) -> CoverageSensor:
    unknown = set(fields) - set(CoverageSensor.__dataclass_fields__)
    if unknown:
        raise SensorError(f"sensors.declared.{key}: unknown field {', '.join(sorted(unknown))}")
    values = dict(fields)
    if values.get("key", key) != key:
        raise SensorError(f"sensors.declared.{key}: its key field says {values['key']!r}")
    for month in ("first_month", "last_month"):
        if isinstance(values.get(month), str):
            values[month] = Month.parse(values[month])
    values.setdefault("held_satellite", None)
    sources = values.get("available_sources", ())
    if not isinstance(sources, list | tuple) or not all(isinstance(s, Mapping) for s in sources):
        raise SensorError(f"sensors.declared.{key}: available_sources must be a list of tables with kind, endpoint, collection_id")
    values["available_sources"] = tuple(_source(key, s) for s in sources)
    try:
        return _SENSOR.validate_python({**values, "key": key})
    except ValidationError as error:
        raise SensorError(f"sensors.declared.{key}: {_first_error(error)}") from None


def _source(key: str, fields: Mapping[str, Any]) -> AvailableSource:
    unknown = set(fields) - set(AvailableSource.__dataclass_fields__)
    if unknown:
        raise SensorError(f"a source of {key}: unknown field {', '.join(sorted(unknown))}")
    try:
        return _SOURCE.validate_python(dict(fields))
    except ValidationError as error:
        raise SensorError(f"a source of {key}: {_first_error(error)}") from None


def _with_sources(sensor: CoverageSensor, sources: tuple[AvailableSource, ...]) -> CoverageSensor:
    return replace(sensor, available_sources=sources)


class GapSettings(_Section):
    """``[gap]``: what is wanted and what matters."""

    desired: dict[str, Annotated[float, Field(ge=0, le=31)]] = {}
    """Clear observations wanted a month, by sensor; the registry's default where none is given."""
    weights: dict[str, Annotated[float, AllowInfNan(True)]] = dict(DEFAULT_WEIGHTS)
    """Shares of the priority, summing to 1."""

    @field_validator("weights")
    @classmethod
    def _sum_to_one(cls, weights: dict[str, float]) -> dict[str, float]:
        try:
            return check_weights(weights)
        except PlannerError as error:
            raise ValueError(str(error)) from None


class AreaSettings(_Section):
    """``[area]``: where a deficit counts."""

    scope: Literal["land", "all", "targets"] = "land"
    coastal_margin_km: Annotated[float, Field(ge=0, le=500)] = 20.0


class OutputSettings(_Section):
    """``[output]``: paths that lie elsewhere than below the root."""

    zarr: str | None = None
    parquet_dir: str | None = None

    @field_validator("zarr", "parquet_dir")
    @classmethod
    def _somewhere(cls, place: str | None) -> str | None:
        return None if place is None else check_output_address(_place(place))


def check_output_address(address: str) -> str:
    """An address that we write to, which stands in messages and in the files' own metadata: it holds no secret."""
    if has_login(address):
        raise ValueError(
            "credentials do not belong in an address that is written to: give them as the store's own settings, such as AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY"
        )
    return address


class HoldingsSettings(_Section):
    """``[holdings]``: where our own scenes are listed, and how they match the catalogue's."""

    source: Literal["auto", "file", "postgis", "off"] = "auto"
    """``auto``: the file where ``path`` is set, else the database where one is configured."""
    path: str | None = None
    """A GeoParquet file (or anything geopandas reads) with the columns of ``[tiles]``."""
    lookback_months: Annotated[int, Field(ge=1, le=240)] = 24
    match_tolerance_seconds: Annotated[float, Field(ge=0, le=43_200)] = 60.0
    min_iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Intersection over union of footprints from which a holding without a key may be a scene."""
    min_cover: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a scene's area from which it is held whole; below it is held in part."""


class ScanSettings(_Section):
    """``[scan]``: how patiently catalogues are asked."""

    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """For the connection, and for the next bytes of an answer."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """How often one request is repeated where the failure may pass."""
    backoff_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """Bound of the first random wait; it doubles with each."""
    deadline_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)] = 7200.0
    """The longest that one provider is asked for one month; the next run goes on from there."""
    window_pages: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Windows with more pages than this are cut."""
    resume_hours: Annotated[float, Field(ge=0, le=24 * 31)] = 24.0
    """How long the finished windows of a scan that was stopped are good for."""
    cross_check: bool = True
    """Whether other providers are asked about the doubts that a scan leaves; without, each doubt stays."""
    publish_partial: bool = False
    """Whether what was found is published, as ``partial``, where no provider gave all."""
    max_answer_mb: Annotated[float, Field(gt=0, le=4096)] = MAX_ANSWER_MB
    """The largest answer of a catalogue that is read, decompressed, in MB."""


class OrchestrationSettings(_Section):
    """``[orchestration]``: how Dagster runs the partitions."""

    backfill: Literal["partitions", "ranges"] = "partitions"
    """``partitions``: one run a partition, with its own tags, checks and retries. ``ranges``: up to ``months_per_run`` months of one
    sensor in one run, many times faster for a long history."""
    months_per_run: Annotated[int, Field(ge=1, le=240)] = 12
    automation: bool = True
    """Whether the monthly materialisation is on when the code location is loaded."""
    cron: str = "0 6 5 * *"
    """When the trailing months are scanned again, UTC. Not the first of the month: publication lags."""
    trailing_months: Annotated[int, Field(ge=1, le=24)] = 2
    """Closed months scanned at each tick: late scenes are found in the older ones."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often an asset is tried again where the failure may pass (a catalogue or database that does not answer)."""
    retry_delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0


class DatabaseSettings(_Section):
    """``COVERAGE_DB_*``: the holdings database. Secrets belong in ``.env`` or the environment."""

    url: SecretStr | None = None
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    name: str | None = None
    user: str | None = None
    password: SecretStr | None = None
    schema_name: str | None = Field(default=None, alias="schema")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None
    connect_timeout: Annotated[int, Field(ge=1, le=600)] = 10

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


class TilesSettings(_Section):
    """``COVERAGE_TILES_*``: which table and columns hold the holdings."""

    table: str = "tiles"
    geom: str = "geometry"
    date: str = "datetime"
    sensor: str = "sensor"
    cloud: str | None = "cloud"
    scene_id: str | None = None
    """Column with the scene's or product's id; None where there is none (then time and footprint match)."""

    @field_validator("table", "geom", "date", "sensor", "cloud", "scene_id")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        return check_database_name(name) if name else name


class PlannerSettings(BaseSettings):
    """All settings, validated. Make one with ``load_settings``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_file=".env",
        env_file_encoding="utf-8",
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    data: str = "data"
    """Root of everything written, a folder or a URL."""
    targets: str | None = None
    """Sites the gap is evaluated against, a file or URL."""
    cloud_lt: Annotated[float, Field(gt=0, le=100)] = 10.0
    """A scene is clear below this cloud percentage."""
    note: str | None = None
    """Shown with the cube wherever it is read, such as that its data are simulated."""
    grid: GridSettings = GridSettings()
    window: WindowSettings = WindowSettings()
    sensors: SensorSettings = SensorSettings()
    gap: GapSettings = GapSettings()
    area: AreaSettings = AreaSettings()
    output: OutputSettings = OutputSettings()
    holdings: HoldingsSettings = HoldingsSettings()
    scan: ScanSettings = ScanSettings()
    providers: dict[str, dict[str, Any]] = {}
    """``[providers."stac.example.org"]``: what is set of a provider's profile (``catalog.providers.ProviderProfile``), by host."""
    orchestration: OrchestrationSettings = OrchestrationSettings()
    db: DatabaseSettings = DatabaseSettings()
    tiles: TilesSettings = TilesSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Sources in falling order; the file's values come in beside ``load_settings``' own, see there."""
        init = cast("InitSettingsSource", init_settings).init_kwargs
        overrides, file = init.get("overrides", {}), init.get("file", {})
        if not init.get("environment", True):
            return InitSettingsSource(settings_cls, overrides), InitSettingsSource(settings_cls, file)
        left_out = frozenset() if init.get("holdings", True) else HOLDINGS_SECTIONS
        return (
            InitSettingsSource(settings_cls, overrides),
            _Only(cast("EnvSettingsSource", env_settings), settings_cls, left_out),
            _Only(cast("DotEnvSettingsSource", dotenv_settings), settings_cls, left_out),
            InitSettingsSource(settings_cls, {name: value for name, value in file.items() if name not in left_out}),
        )

    @field_validator("*", mode="before")
    @classmethod
    def _not_blank(cls, value: Any, info: ValidationInfo) -> Any:
        return _given(value, info, cls)

    @field_validator("data")
    @classmethod
    def _somewhere(cls, place: str) -> str:
        return check_output_address(_place(place))

    @field_validator("providers")
    @classmethod
    def _usable_profiles(cls, providers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for host, changes in providers.items():
            overridden(host, changes)
        return providers

    @model_validator(mode="after")
    def _desired_sensors_known(self) -> PlannerSettings:
        unknown = sorted(set(self.gap.desired) - set(self.sensors.registry()))
        if unknown:
            raise ValueError(f"unknown sensor {', '.join(unknown)}: known are {', '.join(sorted(self.sensors.registry()))}")
        return self

    def store(self) -> Store:
        """Where everything lies."""
        return Store.below(self.data, zarr=self.output.zarr, parquet_dir=self.output.parquet_dir)

    def grid_spec(self) -> GridSpec:
        """The grid."""
        return self.grid.spec()

    def engine(self) -> Engine:
        """How much of the machine a gridding may take."""
        return Engine(self.grid.memory_mb << 20, self.grid.threads)

    def scan_options(self) -> ScanOptions:
        """How catalogues are asked."""
        scan = self.scan
        return ScanOptions(
            patience=Patience(scan.timeout_seconds, scan.retries, scan.backoff_seconds, scan.deadline_seconds, scan.max_answer_mb),
            providers={host: overridden(host, changes) for host, changes in self.providers.items()},
            window_pages=scan.window_pages,
            resume_hours=scan.resume_hours,
            cross_check=scan.cross_check,
            publish_partial=scan.publish_partial,
        )

    def months(self) -> list[Month]:
        """The window's months."""
        return window_months(self.window.start, self.window.last_day())

    def window_note(self) -> str | None:
        """What to say of a window that did not name whole months."""
        return widened(self.window.start, self.window.last_day())

    def registry(self) -> dict[str, CoverageSensor]:
        """Every sensor that can be named."""
        return self.sensors.registry()

    def chosen_sensors(self) -> list[CoverageSensor]:
        """The sensors of the build, in the settings' order."""
        return resolve_sensors(self.sensors.keys, self.registry())

    def desired(self) -> DesiredCadence:
        """What is wanted of each sensor."""
        return DesiredCadence(dict(self.gap.desired))

    def area_in_words(self) -> str:
        """The area of interest, with what makes it differ from another."""
        match self.area.scope:
            case "land":
                return f"land with a coastal margin of {self.area.coastal_margin_km:g} km"
            case "all":
                return "everywhere"
            case _:
                source = self.targets or "none"
                place = storage_path(source)
                local = Path(place.path) if is_local(place) else None
                content = local.read_bytes() if local is not None and local.is_file() else source.encode()
                return f"targets {hashlib.sha256(content).hexdigest()[:12]}"

    def cube_spec(self) -> CubeSpec:
        """Axes and meaning of the cube."""
        return CubeSpec(
            grid=self.grid_spec(),
            sensors=tuple(self.chosen_sensors()),
            months=tuple(self.months()),
            cloud_lt=self.cloud_lt,
            lookback_months=self.holdings.lookback_months,
            match_tolerance_seconds=self.holdings.match_tolerance_seconds,
            weights=self.gap.weights,
            area=self.area_in_words(),
            note=self.note,
        )


class _Only(PydanticBaseSettingsSource):
    """The environment or ``.env`` without other programs' variables, which ``extra='forbid'`` would refuse, and without some sections."""

    def __init__(self, inner: EnvSettingsSource, settings_cls: type[BaseSettings], left_out: Set[str]) -> None:
        super().__init__(settings_cls)
        self.inner, self.left_out = inner, left_out

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self.inner.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        found = self.inner()
        return {name: value for name, value in found.items() if name in PlannerSettings.model_fields and name not in self.left_out}


_SECRETS = {("db", "password"), ("db", "url")}
_DB_SHOWN = {("port",), ("sslmode",), ("connect_timeout",)}
_CHECKED_TOGETHER = ("gap", "desired")
"""What is wrong where an error names no place: the only check of the settings as a whole is of these names."""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.is_dir():
            raise SettingsError(f"the settings file {path} is a folder; name the TOML file itself (--config or {PREFIX}CONFIG)")
        content = tomllib.loads(_utf8(path.read_bytes(), str(path)))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path} is not valid TOML: its values are nested too deeply") from None
    except (OSError, ValueError) as error:  # the second for a path with a NUL character
        raise SettingsError(f"cannot read the settings file {path}: {getattr(error, 'strerror', None) or error}") from None
    for section, name in _SECRETS:
        if name in (content[section] if isinstance(content.get(section), Mapping) else {}):
            raise SettingsError(
                f"{section}.{name} does not belong in {path}: put {PREFIX}{section.upper()}_{name.upper()} into .env or the environment"
            )
    return content


def _utf8(content: bytes, name: str) -> str:
    """The text of a settings file; raises ``SettingsError`` for other bytes than UTF-8 without a byte order mark."""
    marks = {codecs.BOM_UTF8: "a byte order mark", codecs.BOM_UTF16_LE: "the mark of UTF-16", codecs.BOM_UTF16_BE: "the mark of UTF-16"}
    for mark, words in marks.items():
        if content.startswith(mark):
            raise SettingsError(f"{name} begins with {words}; save it as UTF-8 without a byte order mark (BOM)")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{name} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; save it as UTF-8") from None


def load_settings(
    config: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environment: bool = True,
    holdings: bool = True,
) -> PlannerSettings:
    """The settings from ``config`` (default: ``COVERAGE_CONFIG``, else ``config/build.toml`` where it exists), ``.env`` and
    the environment. ``overrides`` (nested dictionaries) win over all of them. Without ``environment`` neither ``.env`` nor the
    environment is asked: the demo must not end in the real store. Without ``holdings`` the sections ``HOLDINGS_SECTIONS`` keep their
    defaults, whatever is set: a process that only reads the cube gets no password of a database.

    Raises ``SettingsError`` that names each wrong value, its source and what is allowed.
    """
    if environment:
        _refuse_misspelt()
    if config is not None and not str(config).strip():
        raise SettingsError("the settings file is named by an empty text; name a file, or leave it out (--config)")
    named = [_variables(source).get(f"{PREFIX}CONFIG", "").strip() for source in (os.environ, _dotenv())]
    chosen = Path(config or named[0] or named[1] or DEFAULT_CONFIG)
    file = _read_toml(chosen) if (config or chosen != DEFAULT_CONFIG or chosen.exists()) else {}
    given = dict(overrides or {})
    try:
        return PlannerSettings(overrides=given, file=file, environment=environment, holdings=holdings)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(_explain(error, given, file, chosen)) from None
    except PlannerError as error:
        raise SettingsError(str(error)) from None
    except ValueError as error:  # a variable whose JSON cannot be read
        raise SettingsError(_unreadable_json() or f"an environment variable {PREFIX}… cannot be read: {error}") from None


def without_holdings_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that only reads the cube: without what says how the holdings are got at."""

    def is_secret(name: str) -> bool:
        upper = name.upper()  # our settings' names are read without regard to case
        ours = [f"{PREFIX}{section.upper()}" for section in HOLDINGS_SECTIONS]
        return upper in ours or upper.startswith(tuple(f"{section}_" for section in ours)) or upper in _LIBPQ_SECRETS

    return {name: value for name, value in environment.items() if not is_secret(name)}


def _dotenv() -> dict[str, str | None]:
    try:
        content = Path(".env").read_bytes()
    except OSError:  # there is none, or it is another program's folder
        return {}
    _utf8(content, ".env")
    return dotenv_values(".env", encoding="utf-8")


def _variables(source: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that may be ours, by name in capitals."""
    return {name.upper(): value for name, value in source.items() if name.upper().startswith(PREFIX) and value is not None}


def _known_variables() -> set[str]:
    known = {f"{PREFIX}CONFIG"}
    for name, field in PlannerSettings.model_fields.items():
        known.add(_spelt((name,), is_env=True))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            known |= {_spelt((name, leaf), is_env=True) for leaf in _known_names((name,))}
    return known


def _refuse_misspelt() -> None:
    """Refuse a variable whose name is all but one of ours. Others are other programs': ``COVERAGE_FILE`` is coverage.py's."""
    known = _known_variables()
    sections = tuple(_spelt((name,), is_env=True) + "_" for name in PlannerSettings.model_fields)
    ours = {name.removeprefix(PREFIX): name for name in known}
    for label, source in (("the environment", os.environ), (".env", _dotenv())):
        for name in sorted(_variables(source).keys() - known):
            near = difflib.get_close_matches(name.removeprefix(PREFIX), ours, n=1, cutoff=0.8)
            # One that begins like a section of ours gets a better answer from its section, which knows its names.
            if near and not name.startswith(sections):
                raise SettingsError(f"wrong setting: {name} (from {label}): no such setting; did you mean {ours[near[0]]}?")


def _unreadable_json() -> str | None:
    """Which variable's JSON cannot be read; the library names only the section."""
    tables = {
        _spelt((name, *leaf), is_env=True)
        for name, field in PlannerSettings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for leaf in [(), *((n,) for n, f in field.annotation.model_fields.items() if get_origin(f.annotation) is dict)]
    } | {_spelt((name,), is_env=True) for name, field in PlannerSettings.model_fields.items() if get_origin(field.annotation) is dict}
    for label, source in (("the environment", os.environ), (".env", _dotenv())):
        for name, value in _variables(source).items():
            try:
                if name in tables:
                    json.loads(value)
            except json.JSONDecodeError as error:
                return f'wrong setting: {name} (from {label}): not JSON ({error}); write a table such as {{"emit": 3}}'
    return None


def _explain(error: ValidationError, overrides: Mapping[str, Any], file: Mapping[str, Any], config: Path) -> str:
    env = EnvSettingsSource(PlannerSettings)()
    dotenv = DotEnvSettingsSource(PlannerSettings)()
    sources: list[tuple[str, Mapping[str, Any], bool]] = [
        ("the command line", overrides, False),
        ("the environment", env, True),
        (".env", dotenv, True),
        (str(config), file, False),
    ]
    lines = []
    for one in error.errors(include_url=False, include_input=False):
        loc = tuple(str(part) for part in one["loc"]) or _CHECKED_TOGETHER
        message = one["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        name, value, origin = ".".join(loc) or "settings", None, "its default"
        given = [(label, content, is_env, *_dig(content, loc)) for label, content, is_env in sources]
        given = [entry for entry in given if entry[4] and entry[4] >= min(len(loc), 2)]
        if given:
            origin, _, is_env, value, _ = given[0]
            name = _spelt(loc[:2], is_env) if is_env else ".".join(loc)
        if len(loc) == 1 and isinstance(value, Mapping) and one["type"] != "extra_forbidden":  # a section whose values do not go together
            leaves = {leaf: (label, is_env) for label, _, is_env, found, _ in reversed(given) for leaf in found}
            leaves = {leaf: origin for leaf, origin in leaves.items() if leaf in message} or leaves
            name = ", ".join(f"{_spelt((*loc, leaf), is_env)} (from {label})" for leaf, (label, is_env) in leaves.items())
            lines.append(f"{name}: {message}")
            continue
        # Of the database only what cannot be a secret: a password may stand under a misspelt name.
        secret = loc[0] == "db" and loc[1:] not in _DB_SHOWN
        shown = "" if secret or value is None or isinstance(value, dict | SecretStr) else f" = {value!r}"
        if one["type"] == "extra_forbidden":
            message = f"no such setting; known here: {', '.join(_known_names(loc[:-1]))}"
        lines.append(f"{name}{shown} (from {origin}): {message}")
    return "wrong setting: " + "; ".join(lines)


def _spelt(loc: tuple[str, ...], is_env: bool) -> str:
    return f"{PREFIX}{'_'.join(loc).upper()}" if is_env else ".".join(loc)


def _dig(content: Mapping[str, Any], loc: tuple[str, ...]) -> tuple[Any, int]:
    found: Any = content
    for depth, part in enumerate(loc):
        if not isinstance(found, Mapping) or part not in found:
            return found, depth
        found = found[part]
    return found, len(loc)


def _known_names(loc: tuple[str, ...]) -> list[str]:
    model: Any = PlannerSettings
    for part in loc:
        model = model.model_fields[part].annotation if part in model.model_fields else model
    return sorted(field.alias or name for name, field in model.model_fields.items())
