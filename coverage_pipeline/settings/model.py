"""All settings, validated and put together from the sections that each package defines."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    Field,
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

from coverage_pipeline.catalog.config import ScanSettings
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import overridden
from coverage_pipeline.cube.schema import CubeSpec, DesiredCadence
from coverage_pipeline.demand.config import AreaSettings, GapSettings, TargetsSettings
from coverage_pipeline.demand.groups import SensorGroup, sensor_groups
from coverage_pipeline.grid.bands import Engine
from coverage_pipeline.grid.config import GridSettings
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.config import HOLDINGS_SECTIONS, DatabaseSettings, HoldingsSettings, TilesSettings
from coverage_pipeline.months import Month, as_date, widened, window_months
from coverage_pipeline.requests.config import RequestsSettings, TaskingSettings
from coverage_pipeline.sensors.config import SensorSettings
from coverage_pipeline.sensors.registry import (
    CoverageSensor,
    resolve_sensors,
)
from coverage_pipeline.settings.access import AccessSettings
from coverage_pipeline.settings.sources import KnownNamesSource, sections_of
from coverage_pipeline.storage.config import OutputSettings
from coverage_pipeline.storage.paths import is_local, storage_path
from coverage_pipeline.storage.section import PREFIX, Section, check_output_address, check_place, refuse_blank
from coverage_pipeline.storage.store import Store


class WindowSettings(Section):
    """``[window]``: the months."""

    start: dt.date = dt.date(2025, 1, 1)
    """First day; widened to its month."""
    end: dt.date | None = None
    """Last day; None: up to the last closed month."""
    freq: str = "MS"
    """Bins of the cube: calendar months (``MS``), the only ones so far."""

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


class OrchestrationSettings(Section):
    """``[orchestration]``: how Dagster runs the partitions."""

    backfill: Literal["partitions", "ranges"] = "partitions"
    """``partitions``: one run a partition, with its own tags, checks and retries. ``ranges``: up to ``months_per_run`` months of one
    sensor in one run, many times faster for a long history."""
    months_per_run: Annotated[int, Field(ge=1, le=240)] = 12
    """Months of one sensor in a run of a ranged backfill."""
    automation: bool = True
    """Whether the monthly materialisation is on when the code location is loaded."""
    cron: str = "0 6 5 * *"
    """When the trailing months are scanned again, UTC. Not the first of the month: publication lags."""
    trailing_months: Annotated[int, Field(ge=1, le=24)] = 2
    """Closed months scanned at each tick: late scenes are found in the older ones."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often an asset is tried again where the failure may pass (a catalogue or database that does not answer)."""
    retry_delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """Seconds before the first repeat; the wait doubles with each."""


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
        use_attribute_docstrings=True,
    )

    data: str = "data"
    """Root of everything written, a folder or a URL."""
    cloud_lt: Annotated[float, Field(gt=0, le=100)] = 10.0
    """A scene is clear below this cloud percentage."""
    note: str | None = None
    """Shown with the cube wherever it is read, such as that its data are simulated."""
    grid: GridSettings = GridSettings()
    window: WindowSettings = WindowSettings()
    sensors: SensorSettings = SensorSettings()
    gap: GapSettings = GapSettings()
    area: AreaSettings = AreaSettings()
    targets: Annotated[TargetsSettings, NoDecode] = TargetsSettings()
    output: OutputSettings = OutputSettings()
    holdings: HoldingsSettings = HoldingsSettings()
    scan: ScanSettings = ScanSettings()
    providers: dict[str, dict[str, Any]] = {}
    """``[providers."stac.example.org"]``: what is set of a provider's profile (``catalog.providers.ProviderProfile``), by host."""
    orchestration: OrchestrationSettings = OrchestrationSettings()
    db: DatabaseSettings = DatabaseSettings()
    tiles: TilesSettings = TilesSettings()
    requests: RequestsSettings = RequestsSettings()
    tasking: dict[str, TaskingSettings] = {}
    """``[tasking."stapi.example.org"]``: a provider that takes orders by STAPI, by host."""
    access: AccessSettings = AccessSettings()

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
        overrides, file = (sections_of(init.get(name, {}), settings_cls) for name in ("overrides", "file"))
        if not init.get("environment", True):
            return InitSettingsSource(settings_cls, overrides), InitSettingsSource(settings_cls, file)
        left_out = frozenset() if init.get("holdings", True) else HOLDINGS_SECTIONS
        return (
            InitSettingsSource(settings_cls, overrides),
            KnownNamesSource(cast("EnvSettingsSource", env_settings), settings_cls, left_out),
            KnownNamesSource(cast("DotEnvSettingsSource", dotenv_settings), settings_cls, left_out),
            InitSettingsSource(settings_cls, {name: value for name, value in file.items() if name not in left_out}),
        )

    @field_validator("*", mode="before")
    @classmethod
    def _not_blank(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_blank(value, info, cls)

    @field_validator("data")
    @classmethod
    def _somewhere(cls, place: str) -> str:
        return check_output_address(check_place(place))

    @field_validator("providers")
    @classmethod
    def _usable_profiles(cls, providers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for host, changes in providers.items():
            overridden(host, changes)
        return providers

    @model_validator(mode="after")
    def _desired_sensors_known(self) -> PlannerSettings:
        archive = self.holdings.stac.collections if self.holdings.stac is not None else {}
        named = set(self.gap.desired) | set(self.holdings.sensors.values()) | set(archive.values())
        unknown = sorted(named - set(self.sensors.registry()))
        if unknown:
            raise ValueError(f"unknown sensor {', '.join(unknown)}: known are {', '.join(sorted(self.sensors.registry()))}")
        self.groups()
        return self

    def store(self) -> Store:
        """Where everything lies."""
        return Store.below(self.data, zarr=self.output.zarr, parquet_dir=self.output.parquet_dir)

    def request_database(self) -> str:
        """Address of the database of requests, secrets included: ``requests.url``, else SQLite beside the data."""
        if self.requests.url is not None:
            return self.requests.url.get_secret_value()
        return f"sqlite:///{self.store().requests.resolve()}"

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
        """What is wanted of each sensor; 0 of a member of a group that ``gap.desired`` does not name."""
        members = {member.key: 0.0 for group in self.groups().values() for member in group.members}
        return DesiredCadence(members | self.gap.desired)

    def groups(self) -> dict[str, SensorGroup]:
        """``[gap.groups]`` by name; raises ``GapError`` for one that cannot be."""
        return sensor_groups({name: (group.sensors, group.desired) for name, group in self.gap.groups.items()}, self.sensors.registry())

    def chosen_groups(self) -> list[SensorGroup]:
        """Groups whose members are all among the chosen sensors."""
        keys = set(self.sensors.keys)
        return [group for group in self.groups().values() if keys.issuperset(member.key for member in group.members)]

    def area_in_words(self) -> str:
        """The area of interest, with what makes it differ from another."""
        match self.area.scope:
            case "land":
                return f"land with a coastal margin of {self.area.coastal_margin_km:g} km"
            case "all":
                return "everywhere"
            case _:
                if self.targets.table is not None:  # what its rows say is not in the settings
                    return f"targets of table {self.targets.table}"
                source = self.targets.path or "none"
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
