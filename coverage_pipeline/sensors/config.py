"""Settings of the sensors: which ones, other catalogues for them, and sensors of your own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any

from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    NoDecode,
)

from coverage_pipeline.months import Month
from coverage_pipeline.sensors.downloads import Download, download_of
from coverage_pipeline.sensors.registry import (
    COVERAGE_SENSORS,
    AvailableSource,
    CoverageSensor,
    SensorError,
    resolve_sensors,
)
from coverage_pipeline.storage.section import Section


class SensorSettings(Section):
    """``[sensors]``: which sensors, other catalogues for them, and sensors of your own."""

    keys: Annotated[list[str], NoDecode] = Field(default_factory=lambda: ["emit", "enmap", "prisma", "landsat-8-9", "sentinel-2"])
    """Sensors of the build; their order is the cube's."""
    sources: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    """``[[sensors.sources.emit]]``: catalogues to ask instead of the registry's, primary first."""
    declared: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """``[sensors.declared.my-sensor]``: the fields of ``CoverageSensor``."""
    downloads: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """``[sensors.downloads.emit]``: which assets of a scene are wanted, their size and login (``sensors.downloads.Download``)."""

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
        self.download_overrides()
        return self

    def download_overrides(self) -> dict[str, Download]:
        """What is set of downloads, by sensor; fields that are not set are the registry's. Raises ``SensorError`` for a wrong one."""
        known, changed = self.registry(), {}
        for key, fields in self.downloads.items():
            if key not in known:
                raise SensorError(f"sensors.downloads names unknown sensor {key!r}: known are {', '.join(sorted(known))}")
            unknown = set(fields) - set(Download.__dataclass_fields__)
            if unknown:
                raise SensorError(f"sensors.downloads.{key}: unknown field {', '.join(sorted(unknown))}")
            try:
                changed[key] = _DOWNLOAD.validate_python({**asdict(download_of(key, None)), "source": "settings", **fields})
            except ValidationError as error:
                raise SensorError(f"sensors.downloads.{key}: {_first_error(error)}") from None
        return changed

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
_DOWNLOAD = TypeAdapter(Download)


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
