"""Settings of what is wanted, and where."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import (
    AllowInfNan,
    Field,
    field_validator,
)

from coverage_pipeline.demand.weights import DEFAULT_WEIGHTS, check_weights
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.storage.section import Section


class GroupSettings(Section):
    """``[gap.groups.optical]``: sensors that can stand for one another, with a cadence of their own."""

    sensors: Annotated[list[str], Field(min_length=1)]
    """Keys of the members."""
    desired: Annotated[float, Field(ge=0, le=31)]
    """Days a month with a clear observation of any member."""


class GapSettings(Section):
    """``[gap]``: what is wanted and what matters."""

    desired: dict[str, Annotated[float, Field(ge=0, le=31)]] = Field(default_factory=dict)
    """Clear observations wanted a month, by sensor; the registry's default where none is given."""
    groups: dict[str, GroupSettings] = Field(default_factory=dict)
    """Sensors that can stand for one another, by name. A member keeps a deficit of its own only where ``desired`` names it."""
    weights: dict[str, Annotated[float, AllowInfNan(True)]] = Field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    """Shares of the priority, summing to 1."""

    @field_validator("weights")
    @classmethod
    def _sum_to_one(cls, weights: dict[str, float]) -> dict[str, float]:
        try:
            return check_weights(weights)
        except PlannerError as error:
            raise ValueError(str(error)) from None


class TargetsSettings(Section):
    """``[targets]``: the areas that planners care about. ``targets = "sites.geojson"`` gives the path alone."""

    BARE: ClassVar[str | None] = "path"

    path: str | None = None
    """A file or URL of sites: GeoJSON, GeoParquet, GeoPackage, Shapefile, KML or CSV. ``COVERAGE_TARGETS`` names it, too."""
    table: str | None = None
    """In place of a file: a PostGIS table or view, ``name`` or ``schema.name``, in the database of ``COVERAGE_DB_*``."""
    geom: str = "geometry"
    """Column of its outlines."""
    skip_bad: bool = False
    """Whether the other rows go on where some cannot be used; else such a file is refused."""


class AreaSettings(Section):
    """``[area]``: where a deficit counts."""

    scope: Literal["land", "all", "targets"] = "land"
    """Where a deficit counts: on land, everywhere, or in the targets that ``COVERAGE_TARGETS`` names."""
    coastal_margin_km: Annotated[float, Field(ge=0, le=500)] = 20.0
    """Kilometres of sea along the coasts that count as land."""
