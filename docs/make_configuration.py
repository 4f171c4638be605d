"""Writes docs/configuration.md from the settings model: ``.venv/bin/python docs/make_configuration.py``."""

from __future__ import annotations

import datetime as dt
import inspect
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.storage.section import PREFIX

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

Every setting, made from the settings model by `docs/make_configuration.py`. The file is `config/build.toml`, or the one that
`COVERAGE_CONFIG` or `--config` names. The environment wins over `.env`, which wins over the file. Lists and tables are JSON in the
environment; a list of sensor keys may also be comma-separated. Secrets belong in `.env` or the environment, never in the file.
"""


def kind(field: FieldInfo) -> str:
    """The type of a setting, for a person."""
    text = str(field.annotation) if not isinstance(field.annotation, type) else field.annotation.__name__
    text = re.sub(r"typing\.|datetime\.|pydantic\.types\.|coverage_pipeline\.[\w.]*\.", "", text)
    text = re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", text)
    text = text.replace("Literal[", "one of [").replace("NoneType", "None").replace("SecretStr", "secret")
    limits = [f"{sign} {getattr(m, name)}" for m in field.metadata for name, sign in LIMITS.items() if hasattr(m, name)]
    return (text + (f", {', '.join(limits)}" if limits else "")).replace("|", "or")


LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def default(field: FieldInfo) -> str:
    """The default, as it is written in TOML."""
    if field.default_factory is not None and field.annotation is int:
        return "processors, up to 4"
    value: Any = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, SecretStr):
        return ""
    if isinstance(value, dt.date):
        return f"`{value}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value!r}`".replace("'", '"')


def rows(model: type[BaseModel], section: str) -> list[str]:
    """A table row a setting."""
    made = ["| setting | type | default | what it says |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        spelt = field.alias or name
        variable = f"{PREFIX}{section}_{spelt}".upper() if section else f"{PREFIX}{spelt}".upper()
        words = " ".join((field.description or "").split()).replace("``", "`").replace("|", "or")
        made.append(f"| `{spelt}`<br>`{variable}` | {kind(field)} | {default(field)} | {words} |")
    return made


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## At the top of the file\n", *rows(PlannerSettings, ""), ""]
    for name, field in PlannerSettings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            words = " ".join((inspect.getdoc(field.annotation) or "").split()).replace("``", "`")
            parts += [f"## `[{name}]`\n", f"{words}\n", *rows(field.annotation, name), ""]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
