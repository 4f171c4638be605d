"""Metadata of files of cells for tests that write such a file themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coverage_pipeline.storage.metadata import CellsMetadata


@dataclass(frozen=True, kw_only=True)
class CellFile(CellsMetadata):
    """A file of cells of no kind in particular."""

    run: str = ""
    grid: dict[str, Any] = field(default_factory=dict)
    cloud_lt: float = 10.0
    cells: int = 0
