"""An error of the settings in words: which value is wrong, where it came from, and what is allowed."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import (
    BaseModel,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    DotEnvSettingsSource,
    EnvSettingsSource,
)

from coverage_pipeline.redaction import redact
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.settings.sources import KnownNamesSource, SettingsError, bare_sections, coverage_variables, dotenv, sections_of
from coverage_pipeline.storage.section import PREFIX

_DB_SHOWN = {("port",), ("sslmode",), ("connect_timeout",)}
_CHECKED_TOGETHER = ("gap", "desired")
"""What is wrong where an error names no place: the only check of the settings as a whole is of these names."""


def _known_variables() -> set[str]:
    known = {f"{PREFIX}CONFIG"}
    for name, field in PlannerSettings.model_fields.items():
        known.add(_spelling((name,), is_env=True))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            known |= {_spelling((name, leaf), is_env=True) for leaf in _known_names((name,))}
    return known


def refuse_misspelt() -> None:
    """Refuse a variable whose name nearly equals a setting's. Others belong to other programs: ``COVERAGE_FILE`` is coverage.py's."""
    known = _known_variables()
    sections = tuple(_spelling((name,), is_env=True) + "_" for name in PlannerSettings.model_fields)
    own = {name.removeprefix(PREFIX): name for name in known}
    for label, source in (("the environment", os.environ), (".env", dotenv())):
        for name in sorted(coverage_variables(source).keys() - known):
            near = difflib.get_close_matches(name.removeprefix(PREFIX), own, n=1, cutoff=0.8)
            # A name that begins like a section gets a better answer from that section, which knows its names.
            if near and not name.startswith(sections):
                raise SettingsError(f"wrong setting: {name} (from {label}): no such setting; did you mean {own[near[0]]}?")


def unreadable_json_variable() -> str | None:
    """Which variable's JSON cannot be read; the library names only the section."""
    tables = {
        _spelling((name, *leaf), is_env=True)
        for name, field in PlannerSettings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for leaf in [
            *([()] if name not in bare_sections(PlannerSettings) else []),
            *((n,) for n, f in field.annotation.model_fields.items() if get_origin(f.annotation) is dict),
        ]
    } | {_spelling((name,), is_env=True) for name, field in PlannerSettings.model_fields.items() if get_origin(field.annotation) is dict}
    for label, source in (("the environment", os.environ), (".env", dotenv())):
        for name, value in coverage_variables(source).items():
            try:
                if name in tables:
                    json.loads(value)
            except json.JSONDecodeError as error:
                return f'wrong setting: {name} (from {label}): not JSON ({error}); write a table such as {{"emit": 3}}'
    return None


def explained(error: ValidationError, overrides: Mapping[str, Any], file: Mapping[str, Any], config: Path) -> str:
    env = KnownNamesSource(EnvSettingsSource(PlannerSettings), PlannerSettings, frozenset())()
    dotenv = KnownNamesSource(DotEnvSettingsSource(PlannerSettings), PlannerSettings, frozenset())()
    sources: list[tuple[str, Mapping[str, Any], bool]] = [
        ("the command line", sections_of(overrides, PlannerSettings), False),
        ("the environment", env, True),
        (".env", dotenv, True),
        (str(config), sections_of(file, PlannerSettings), False),
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
            name = _spelling(loc[:2], is_env) if is_env else ".".join(loc)
        if len(loc) == 1 and isinstance(value, Mapping) and one["type"] != "extra_forbidden":  # a section whose values do not go together
            leaves = {leaf: (label, is_env) for label, _, is_env, found, _ in reversed(given) for leaf in found}
            leaves = {leaf: origin for leaf, origin in leaves.items() if leaf in message} or leaves
            name = ", ".join(f"{_spelling((*loc, leaf), is_env)} (from {label})" for leaf, (label, is_env) in leaves.items())
            lines.append(redact(f"{name}: {message}", *_texts(value)))
            continue
        # Where a section holds secrets, only what cannot be one: a password may stand under a misspelt name.
        secret = loc[0] == "db" and loc[1:] not in _DB_SHOWN
        secret |= loc[0] == "access" and (one["type"] == "extra_forbidden" or loc[-1].endswith("secret"))
        public = redact(value, value) if isinstance(value, str) else value
        shown = "" if secret or value is None or isinstance(value, dict | SecretStr) else f" = {public!r}"
        if one["type"] == "extra_forbidden":
            known = ", ".join(_known_names(loc[:-1]))
            message = f"no such setting{f'; known here: {known}' if known else ''}"
        # By what was given: within a sentence a quotation mark in a password passes for the end of the quotation.
        lines.append(redact(f"{name}{shown} (from {origin}): {message}", *_texts(value), *loc))
    return "wrong setting: " + "; ".join(lines)


def _texts(value: Any) -> list[str]:
    """All texts within a value, which may be addresses with secrets in them."""
    if isinstance(value, str):
        return [value]
    inner = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for one in inner for text in _texts(one)]


def _spelling(loc: tuple[str, ...], is_env: bool) -> str:
    return f"{PREFIX}{'_'.join(loc).upper()}" if is_env else ".".join(loc)


def _dig(content: Mapping[str, Any], loc: tuple[str, ...]) -> tuple[Any, int]:
    value: Any = content
    for depth, part in enumerate(loc):
        if not isinstance(value, Mapping) or part not in value:
            return value, depth
        value = value[part]
    return value, len(loc)


def _known_names(loc: tuple[str, ...]) -> list[str]:
    model: Any = PlannerSettings
    for part in loc:
        # A table of tables by name, such as [gap.groups.NAME], is a dict of models.
        inner = get_args(model)[-1] if get_origin(model) is dict else model
        fields = getattr(inner, "model_fields", {})
        model = inner if get_origin(model) is dict else fields[part].annotation if part in fields else model
    if not hasattr(model, "model_fields"):
        return []
    return sorted(field.alias or name for name, field in model.model_fields.items())
