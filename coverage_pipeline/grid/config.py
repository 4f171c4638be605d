"""Settings of the grid."""

from __future__ import annotations

from typing import Any

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from coverage_pipeline.grid.bands import Engine
from coverage_pipeline.grid.spec import CoverageRule, GridSpec
from coverage_pipeline.storage.section import Section


class GridSettings(Section):
    """``[grid]``: the cells."""

    resolution: float = 0.1
    """Side of a cell, degrees; any that divides 180."""
    crs: str = "EPSG:4326"
    """Coordinate reference system of the cells: EPSG:4326, the only one so far."""
    h3_res: int | None = None
    """H3 cells of that resolution instead of degrees."""
    extent: tuple[float, float, float, float] | None = None
    """West, south, east, north of a region; None: the globe."""
    rule: CoverageRule = "touch"
    """When a footprint covers a cell: touch, center or fraction."""
    min_fraction: float = 0.5
    """Share of a cell's area that a footprint must cover, with the rule ``fraction``."""
    memory_mb: int = Field(default=1024, ge=16)
    """Budget of a gridding's arrays; finer grids are worked on in bands."""
    threads: int = Field(default_factory=lambda: Engine().threads, ge=1)
    """Bands that are worked on at a time."""

    @field_validator("resolution")
    @classmethod
    def _divides(cls, resolution: float) -> float:
        return GridSpec(resolution).resolution

    @field_validator("crs")
    @classmethod
    def _degrees(cls, crs: str) -> str:
        return GridSpec(crs=crs).crs

    @field_validator("h3_res")
    @classmethod
    def _coarse_enough(cls, h3_res: int | None) -> int | None:
        return GridSpec(h3_res=h3_res).h3_res

    @field_validator("extent", mode="before")
    @classmethod
    def _from_text(cls, extent: Any) -> Any:
        """``5,45,16,56`` is easier to write in an environment than JSON."""
        if isinstance(extent, str) and not extent.lstrip().startswith("["):
            return tuple(extent.split(",")) if extent.strip() else None
        return extent

    @field_validator("extent")
    @classmethod
    def _region(cls, extent: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        GridSpec(extent=extent)
        return extent

    @field_validator("min_fraction")
    @classmethod
    def _share(cls, min_fraction: float) -> float:
        return GridSpec(min_fraction=min_fraction).min_fraction

    @model_validator(mode="after")
    def _possible(self) -> GridSettings:
        self.spec()
        return self

    def spec(self) -> GridSpec:
        """The grid."""
        return GridSpec(self.resolution, self.crs, self.h3_res, self.extent, self.rule, self.min_fraction)
