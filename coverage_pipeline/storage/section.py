"""A section of the settings: what the settings models of all packages share.

Each package defines its own sections in its module ``config``; ``settings.model`` puts them together.
"""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
)

from coverage_pipeline.redaction import has_login

PREFIX = "COVERAGE_"


def refuse_blank(value: Any, info: ValidationInfo, model: type[BaseModel]) -> Any:
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


def check_place(place: str) -> str:
    """A place to write to; raises ``ValueError`` for the root of a file system, and for an address without a bucket or a folder."""
    scheme, mark, rest = place.strip().rpartition("://")
    if not rest.strip("/ ") and (mark or rest):
        label = f"names no bucket or folder after {scheme}://" if mark and scheme != "file" else "is the root of the file system"
        raise ValueError(f"{label}; name a folder or an address such as s3://bucket/folder")
    return place


class Section(BaseModel):
    """A section; ``BARE`` names the setting that a plain text in place of the section gives, where there is one."""

    BARE: ClassVar[str | None] = None
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _not_blank(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_blank(value, info, cls)


def check_output_address(address: str) -> str:
    """An address that we write to, which stands in messages and in the files' own metadata: it holds no secret."""
    if has_login(address):
        raise ValueError(
            "credentials do not belong in an address that is written to: give them as the store's own settings, such as AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY"
        )
    return address
