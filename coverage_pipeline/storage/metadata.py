"""What one step leaves for another in the metadata of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from upath import UPath

from coverage_pipeline.storage.errors import MAKE_AGAIN, StoreError

METADATA_KEY = b"coverage_planner"
"""Key of our JSON in a Parquet file's metadata: what was scanned, when, and how it ended."""


class FileMetadata(dict[str, Any]):
    """The metadata of a file of ours; what it lacks is an error that names the file."""

    def __init__(self, path: UPath, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise StoreError(f"{self.path}: its metadata has no {key!r}; it was changed, or another version wrote it; {MAKE_AGAIN}")

    def require(self, **types: type | tuple[type, ...]) -> None:
        """Raise ``StoreError`` where a value is not there or of another type than is named; a number is never a truth value."""
        for key, wanted in types.items():
            allowed = wanted if isinstance(wanted, tuple) else (wanted,)
            value = self[key]
            if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
                raise StoreError(f"{self.path}: {key!r} in its metadata is {_shown(value)}, which is no such thing; {MAKE_AGAIN}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def metadata_of(path: UPath, kept: Mapping[bytes, bytes] | None) -> FileMetadata:
    raw = (kept or {}).get(METADATA_KEY)
    if raw is None:
        raise StoreError(f"{path} was not written by the coverage planner (its metadata has no {METADATA_KEY.decode()!r})")
    try:
        metadata = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: its metadata is not JSON ({error}); the file is damaged: {MAKE_AGAIN}") from None
    if not isinstance(metadata, dict):
        raise StoreError(f"{path}: its metadata is {_shown(metadata)}, not an object; the file is damaged: {MAKE_AGAIN}")
    return FileMetadata(path, metadata)
