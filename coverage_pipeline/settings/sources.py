"""Where settings come from: the environment, ``.env`` and a TOML file.

The file is read here and not by ``TomlConfigSettingsSource`` of pydantic-settings, which lost: it takes a file that is not there for
an empty one, and its errors name neither the file nor the line. An error here names both, and a secret in the file is refused.
"""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
)

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.storage.section import PREFIX, Section

DEFAULT_CONFIG = Path("config/build.toml")


class SettingsError(PlannerError):
    """A setting that cannot be used; the message names it, where it came from and what is allowed."""

    exit_code = 2


class KnownNamesSource(PydanticBaseSettingsSource):
    """The environment or ``.env`` without other programs' variables, which ``extra='forbid'`` would refuse, and without some sections."""

    def __init__(self, inner: EnvSettingsSource, settings_cls: type[BaseSettings], left_out: Set[str]) -> None:
        super().__init__(settings_cls)
        self.inner, self.left_out = inner, left_out

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self.inner.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        values = sections_of(self.inner(), self.settings_cls)
        for name in bare_sections(self.settings_cls):  # the library takes the variables of a section only where the bare one is not set
            if own := self.inner.explode_env_vars(name, self.settings_cls.model_fields[name], self.inner.env_vars):
                values[name] = {**values.get(name, {}), **own}
        return {name: value for name, value in values.items() if name in self.settings_cls.model_fields and name not in self.left_out}


def bare_sections(settings_cls: type[BaseSettings]) -> dict[str, str]:
    """Sections that a plain text may stand for, each with the setting that it gives (``Section.BARE``)."""
    kinds = {name: field.annotation for name, field in settings_cls.model_fields.items()}
    sections = {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Section)}
    return {name: kind.BARE for name, kind in sections.items() if kind.BARE is not None}


def sections_of(values: Mapping[str, Any], settings_cls: type[BaseSettings]) -> dict[str, Any]:
    """The values with a table in the place of a plain text that stands for a section."""
    bare = bare_sections(settings_cls)
    return {
        name: {bare[name]: value} if name in bare and (value is None or isinstance(value, str)) else value for name, value in values.items()
    }


_SECRETS = {("db", "password"), ("db", "url"), ("access", "client_secret"), ("access", "cookie_secret")}


def read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.is_dir():
            raise SettingsError(f"the settings file {path} is a folder; name the TOML file itself (--config or {PREFIX}CONFIG)")
        content = tomllib.loads(decoded_utf8(path.read_bytes(), str(path)))
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


def decoded_utf8(content: bytes, name: str) -> str:
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


def dotenv() -> dict[str, str | None]:
    try:
        content = Path(".env").read_bytes()
    except OSError:  # there is none, or it is another program's folder
        return {}
    decoded_utf8(content, ".env")
    return dotenv_values(".env", encoding="utf-8")


def coverage_variables(source: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that begin with ``COVERAGE_``, by name in capitals."""
    return {name.upper(): value for name, value in source.items() if name.upper().startswith(PREFIX) and value is not None}
