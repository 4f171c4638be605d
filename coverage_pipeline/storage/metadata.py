"""What one step leaves for another in the metadata of a file: a frozen, versioned dataclass for each kind of file.

A step that reads a file asks for its kind: ``ScenesMetadata.of(stored)``. A key that is missing or odd is a ``StoreError`` that names the
file and the key, before anything is computed from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from upath import UPath

from coverage_pipeline.storage.errors import MAKE_AGAIN, StoreError

METADATA_KEY = b"coverage_planner"
"""Key of the JSON object in a Parquet file's metadata."""
_VERSION_KEY = "metadata_version"


class StoredMetadata(dict[str, Any]):
    """The JSON object in the metadata of a file written by this package, as it stands there."""

    def __init__(self, path: UPath, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.path = path


@with_config(ConfigDict(strict=True, extra="ignore"))
@dataclass(frozen=True, kw_only=True)
class FileMetadata:
    """What a file says of itself. Each kind of file has a subclass; a change of its keys that breaks readers counts up ``VERSION``."""

    VERSION: ClassVar[int] = 1

    @classmethod
    def of(cls, stored: StoredMetadata) -> Self:
        """The metadata of a file of this kind.

        Raises ``StoreError`` that names file and key where a key is missing, its value is of another type, or the version is another.
        """
        version = stored.get(_VERSION_KEY, 1)
        if version != cls.VERSION:
            raise StoreError(
                f"{stored.path}: its metadata has version {_shown(version)}, and this program reads version {cls.VERSION}; {MAKE_AGAIN}"
            )
        try:
            metadata: Self = _adapter(cls).validate_json(json.dumps(stored))
            return metadata
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = str(first["loc"][0]) if first["loc"] else ""
            if first["type"] == "missing":
                raise StoreError(
                    f"{stored.path}: its metadata has no {key!r}; it was changed, or another version wrote it; {MAKE_AGAIN}"
                ) from None
            value = _shown(stored.get(key))
            if first["type"] == "literal_error":
                raise StoreError(f"{stored.path}: its {key} is {value}, none of {first['ctx']['expected']}; {MAKE_AGAIN}") from None
            raise StoreError(f"{stored.path}: {key!r} in its metadata is {value}: {first['msg'].lower()}; {MAKE_AGAIN}") from None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, with the version."""
        return {_VERSION_KEY: self.VERSION, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class CellsMetadata(FileMetadata):
    """A file of cell statistics."""

    grid: dict[str, Any]
    """``GridSpec.describe()``."""
    cloud_lt: float
    """Percent below which a scene is clear."""
    cells: int
    """Rows of the file, one a covered cell."""


_ADAPTERS: dict[type[FileMetadata], TypeAdapter[Any]] = {}
"""One a kind: making one takes longer than checking a file."""


def _adapter(kind: type[FileMetadata]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def metadata_of(path: UPath, kept: Mapping[bytes, bytes] | None) -> StoredMetadata:
    """The metadata that this package wrote into a Parquet file; ``kept`` is all that stands there.

    Raises ``StoreError`` where another program wrote the file, or its metadata is no JSON object.
    """
    raw = (kept or {}).get(METADATA_KEY)
    if raw is None:
        raise StoreError(f"{path} was not written by the coverage planner (its metadata has no {METADATA_KEY.decode()!r})")
    try:
        metadata = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: its metadata is not JSON ({error}); the file is damaged: {MAKE_AGAIN}") from None
    if not isinstance(metadata, dict):
        raise StoreError(f"{path}: its metadata is {_shown(metadata)}, not an object; the file is damaged: {MAKE_AGAIN}")
    return StoredMetadata(path, metadata)
