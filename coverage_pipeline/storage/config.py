"""Settings of where results lie."""

from __future__ import annotations

from pydantic import (
    field_validator,
)

from coverage_pipeline.storage.section import Section, check_output_address, check_place


class OutputSettings(Section):
    """``[output]``: paths that lie elsewhere than below the root."""

    zarr: str | None = None
    """The cube; by default ``coverage.zarr`` below ``data``. A folder or an address such as s3://bucket/coverage.zarr."""
    parquet_dir: str | None = None
    """Files of scenes; by default ``catalog`` below ``data``."""

    @field_validator("zarr", "parquet_dir")
    @classmethod
    def _somewhere(cls, place: str | None) -> str | None:
        return None if place is None else check_output_address(check_place(place))
