"""Every setting: ``config/build.toml`` for the build, ``.env`` and the environment (``COVERAGE_*``) for secrets and overrides.

The environment wins over ``.env``, which wins over the file. ``[grid] resolution`` in the file is ``COVERAGE_GRID_RESOLUTION``
in the environment; lists and tables are JSON there (a list of keys may also be comma-separated).
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_origin

from dotenv import dotenv_values
from pydantic import (
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

from coverage_pipeline.catalog.providers import overridden
from coverage_pipeline.catalog.scan import ScanOptions
from coverage_pipeline.catalog.wire import Patience
from coverage_pipeline.coverage import CubeSpec, DesiredCadence
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.gap import DEFAULT_WEIGHTS, check_weights
from coverage_pipeline.grid import CoverageRule, Engine, GridSpec
from coverage_pipeline.months import Month, as_date, widened, window_months
from coverage_pipeline.sensors import (
    COVERAGE_SENSORS,
    AvailableSource,
    CoverageSensor,
    SensorError,
    resolve_sensors,
)
from coverage_pipeline.store import Store

PREFIX = "COVERAGE_"
DEFAULT_CONFIG = Path("config/build.toml")


class SettingsError(PlannerError):
    """A setting that cannot be used; the message names it, where it came from and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)


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
        if not isinstance(day, str):
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
    weights: dict[str, float] = dict(DEFAULT_WEIGHTS)
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


class HoldingsSettings(_Section):
    """``[holdings]``: where our own scenes are listed, and how they match the catalogue's."""

    source: Literal["auto", "file", "postgis", "off"] = "auto"
    """``auto``: the file where ``path`` is set, else the database where one is configured."""
    path: str | None = None
    """A GeoParquet file (or anything geopandas reads) with the columns of ``[tiles]``."""
    lookback_months: Annotated[int, Field(ge=1, le=240)] = 24
    match_tolerance_seconds: Annotated[float, Field(ge=0, le=43_200)] = 60.0
    min_iou: Annotated[float, Field(gt=0, le=1)] = 0.5


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


class TilesSettings(_Section):
    """``COVERAGE_TILES_*``: which table and columns hold the holdings."""

    table: str = "tiles"
    geom: str = "geometry"
    date: str = "datetime"
    sensor: str = "sensor"
    cloud: str | None = "cloud"
    scene_id: str | None = None
    """Column with the scene's or product's id; None where there is none (then time and footprint match)."""


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
        return (
            InitSettingsSource(settings_cls, overrides),
            env_settings,
            _OurDotEnv(cast("DotEnvSettingsSource", dotenv_settings), settings_cls),
            InitSettingsSource(settings_cls, file),
        )

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
            patience=Patience(scan.timeout_seconds, scan.retries, scan.backoff_seconds, scan.deadline_seconds),
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
                local = Path(source)
                content = local.read_bytes() if local.is_file() else source.encode()
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


class _OurDotEnv(PydanticBaseSettingsSource):
    """``.env`` without other programs' variables, which ``extra='forbid'`` would refuse."""

    def __init__(self, inner: DotEnvSettingsSource, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.inner = inner

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self.inner.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        found = self.inner()
        return {name: value for name, value in found.items() if name in PlannerSettings.model_fields}


_SECRETS = {("db", "password"), ("db", "url")}
_DB_SHOWN = {("port",), ("sslmode",), ("connect_timeout",)}
_CHECKED_TOGETHER = ("gap", "desired")
"""What is wrong where an error names no place: the only check of the settings as a whole is of these names."""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    for section, name in _SECRETS:
        if name in (content[section] if isinstance(content.get(section), Mapping) else {}):
            raise SettingsError(
                f"{section}.{name} does not belong in {path}: put {PREFIX}{section.upper()}_{name.upper()} into .env or the environment"
            )
    return content


def load_settings(
    config: Path | str | None = None, overrides: Mapping[str, Any] | None = None, *, environment: bool = True
) -> PlannerSettings:
    """The settings from ``config`` (default: ``COVERAGE_CONFIG``, else ``config/build.toml`` where it exists), ``.env`` and
    the environment. ``overrides`` (nested dictionaries) win over all of them. Without ``environment`` neither ``.env`` nor the
    environment is asked: the demo must not end in the real store.

    Raises ``SettingsError`` that names each wrong value, its source and what is allowed.
    """
    if environment:
        _refuse_misspelt()
    named = _variables(os.environ).get(f"{PREFIX}CONFIG") or _variables(_dotenv()).get(f"{PREFIX}CONFIG")
    chosen = Path(config or named or DEFAULT_CONFIG)
    file = _read_toml(chosen) if (config or chosen != DEFAULT_CONFIG or chosen.exists()) else {}
    given = dict(overrides or {})
    try:
        return PlannerSettings(overrides=given, file=file, environment=environment)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(_explain(error, given, file, chosen)) from None
    except PlannerError as error:
        raise SettingsError(str(error)) from None
    except ValueError as error:  # a variable whose JSON cannot be read
        raise SettingsError(_unreadable_json() or f"an environment variable {PREFIX}… cannot be read: {error}") from None


def _dotenv() -> dict[str, str | None]:
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
