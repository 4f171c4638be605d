"""Loading the settings: ``config/build.toml`` for the build, ``.env`` and the environment (``COVERAGE_*``) for secrets and overrides.

The environment wins over ``.env``, which wins over the file. ``[grid] resolution`` in the file is ``COVERAGE_GRID_RESOLUTION`` in the
environment; lists and tables are JSON there (a list of keys may also be comma-separated).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.holdings.config import HOLDINGS_SECTIONS
from coverage_pipeline.settings.explain import explained, refuse_misspelt, unreadable_json_variable
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.settings.sources import DEFAULT_CONFIG, SettingsError, coverage_variables, dotenv, read_toml
from coverage_pipeline.storage.section import PREFIX

_LIBPQ_SECRETS = ("PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE")


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
        refuse_misspelt()
    if config is not None and not str(config).strip():
        raise SettingsError("the settings file is named by an empty text; name a file, or leave it out (--config)")
    named = [coverage_variables(source).get(f"{PREFIX}CONFIG", "").strip() for source in (os.environ, dotenv())]
    chosen = Path(config or named[0] or named[1] or DEFAULT_CONFIG)
    file = read_toml(chosen) if (config or chosen != DEFAULT_CONFIG or chosen.exists()) else {}
    given = dict(overrides or {})
    try:
        return PlannerSettings(overrides=given, file=file, environment=environment, holdings=holdings)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(explained(error, given, file, chosen)) from None
    except PlannerError as error:
        raise SettingsError(str(error)) from None
    except ValueError as error:  # a variable whose JSON cannot be read
        raise SettingsError(unreadable_json_variable() or f"an environment variable {PREFIX}… cannot be read: {error}") from None


def without_holdings_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that only reads the cube: without what says how the holdings are got at."""

    def is_secret(name: str) -> bool:
        upper = name.upper()  # our settings' names are read without regard to case
        own = [f"{PREFIX}{section.upper()}" for section in HOLDINGS_SECTIONS]
        return upper in own or upper.startswith(tuple(f"{section}_" for section in own)) or upper in _LIBPQ_SECRETS

    return {name: value for name, value in environment.items() if not is_secret(name)}
