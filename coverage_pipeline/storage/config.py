"""Settings of where results lie."""

from __future__ import annotations

from pydantic import (
    field_validator,
)

from coverage_pipeline.storage.section import Section, check_output_address, check_place


class OutputSettings(Section):
    """``[output]``: paths that lie elsewhere than below the root."""

    zarr: str | None = None
    parquet_dir: str | None = None

    @field_validator("zarr", "parquet_dir")
    @classmethod
    def _somewhere(cls, place: str | None) -> str | None:
        return None if place is None else check_output_address(check_place(place))
