"""What the cube holds: its variables, metrics and statuses, and the words in which it is asked and made."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.celltable import COUNT, DAYS, NUMBER
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, CoverageSensor

SCHEMA_VERSION = 2
"""2: overviews, the coverage rule, regions and H3 cells."""
CHUNK = 450
"""Cells along a chunk's side. Measured best of the layouts tried for maps and series together (design section 5)."""
CELLS_CHUNK = 1 << 16
"""H3 cells in a chunk."""

Layer = Literal["available", "acquired", "gap"]
Needs = Literal["catalogue", "holdings", "both"]
Aggregation = Literal["rate", "total", "recent", "worst", "scrub"]
AGGREGATIONS: tuple[Aggregation, ...] = ("rate", "total", "recent", "worst", "scrub")

ACTIONS = ("unknown", "met", "ingest", "check", "task", "none", "out_of_scope")


class CoverageError(PlannerError):
    """The cube cannot be made, written or read as asked."""


class CoverageMismatch(CoverageError):
    """The cube that is already there was made for something else: another grid, schema, threshold or earlier start."""


class CubeDamaged(CoverageError):
    """A file of the cube cannot be read as what it must be: it was cut, changed or removed."""


class PartitionMoved(CoverageError):
    """A partition was written by another run while it was being read."""


REBUILD = "restore it from a backup, or move the cube away and build it again (coverage-planner build)"
"""What to do about a damaged cube."""


@dataclass(frozen=True)
class Variable:
    """One array of the cube."""

    dims: tuple[str, ...]
    dtype: str
    fill: Any
    """What a missing chunk reads as: *not known*."""
    long_name: str
    units: str | None = "1"
    cell_methods: str | None = None
    flags: tuple[str, ...] = ()
    masked: bool = False
    """Whether xarray, too, turns the fill into NaN (CF ``_FillValue``). Never for masks and flags, which would become floats."""
    attrs: Mapping[str, Any] = field(default_factory=dict)


CELL_DIMS = ("sensor", "time", "lat", "lon")
"""Of a variable with a value a cell; ``dims_on`` has H3 cells in place of the last two."""
PARTITION_DIMS = ("sensor", "time")


def _count(long_name: str, **more: Any) -> Variable:
    return Variable(CELL_DIMS, COUNT.dtype, COUNT.fill, long_name, cell_methods="time: sum", masked=True, **more)


def _mask(long_name: str) -> Variable:
    comment = "bit d-1 is set when the cell has it on day d of the month; bit 31 alone means not known"
    return Variable(CELL_DIMS, DAYS.dtype, DAYS.fill, long_name, attrs={"comment": comment})


def _number(long_name: str, units: str, cell_methods: str | None = None) -> Variable:
    return Variable(CELL_DIMS, NUMBER.dtype, NUMBER.fill, long_name, units, cell_methods)


SCHEMA: Mapping[str, Variable] = {
    "scenes_count": _count("scenes listed by the public catalogue"),
    "cloud_free_scene_count": _count("clear scenes listed by the public catalogue"),
    "cloud_unknown_scene_count": _count("listed scenes whose cloud cover is not known"),
    "mean_scene_cloud_pct": _number("mean cloud cover of the listed scenes with known cloud cover", "percent", "time: mean"),
    "available_days": _mask("days with a listed scene"),
    "clear_days": _mask("days with a clear listed scene"),
    "held_count": _count("scenes held"),
    "held_clear_count": _count("clear scenes held"),
    "held_days": _mask("days with a held scene"),
    "held_clear_days": _mask("days with a clear held scene"),
    "days_since_last_held": _number("days from the last held scene to the month's end", "days", "time: point"),
    "unmet_supply": _count("clear scenes listed and not held"),
    "ingestable_days": _mask("days with a clear scene not held and no clear observation held"),
    "check_days": _mask("days with a scene of unknown cloud cover not held, no clear observation held, not ingestable"),
    "deficit": _count("clear observations missing against the desired cadence"),
    "priority_score": _number("priority, 0 (met) to 1", "1"),
    "action": Variable(CELL_DIMS, "uint8", 0, "action this month's evidence asks for", None, flags=ACTIONS),
    "in_scope": Variable(("sensor", "lat", "lon"), "int8", 0, "within the sensor's reach and the area of interest"),
    "taskable": Variable(("sensor",), "int8", 0, "sensor can be pointed on request"),
    "desired": Variable(PARTITION_DIMS, "float32", float("nan"), "clear observations desired in the month"),
    "scan_status": Variable(PARTITION_DIMS, "uint8", 0, "what is known of the catalogue", None, flags=SCAN_STATUS),
    "holdings_status": Variable(PARTITION_DIMS, "uint8", 0, "what is known of the holdings", None, flags=HOLDINGS_STATUS),
    "scenes_total": Variable(PARTITION_DIMS, "int64", -1, "scenes of the month, all cells", masked=True),
    "held_not_in_catalog": Variable(PARTITION_DIMS, "int64", -1, "holdings of the month that no catalogue lists", masked=True),
    "scanned_at": Variable(
        PARTITION_DIMS,
        "int64",
        -1,
        "when the catalogue was asked",
        "seconds since 1970-01-01",
        masked=True,
        attrs={"calendar": "proleptic_gregorian", "units_metadata": "leap_seconds: utc"},
    ),
    "provider": Variable(PARTITION_DIMS, "string", "", "catalogue that answered", None),
    "revision": Variable(PARTITION_DIMS, "uint64", 0, "random number of the writing of this partition; 0: not whole"),
    "gap_revision": Variable(PARTITION_DIMS, "uint64", 0, "revision that the gap of this partition was made from"),
}

GAP_VARIABLES = ("deficit", "priority_score", "action")
COVERAGE_VARIABLES = tuple(n for n, v in SCHEMA.items() if v.dims == CELL_DIMS and n not in GAP_VARIABLES)
KNOWN_SHARES: Mapping[str, tuple[str, str]] = {
    "available_known": ("scenes_count", "the listed scenes"),
    "held_known": ("held_count", "the scenes held"),
    "unmet_known": ("unmet_supply", "the scenes that exist and are not held"),
    "gap_known": ("deficit", "deficit and action"),
}
"""What an overview says of how much of each of its cells is known: from which variable, and in words."""
PROVENANCE = ("scan_status", "holdings_status", "scenes_total", "held_not_in_catalog", "scanned_at", "provider")
MEANING = ("grid", "cloud_lt", "lookback_months", "match_tolerance_seconds")
GAP_MEANING = ("weights", "area")


@dataclass(frozen=True)
class Metric:
    """How one variable is shown and reduced."""

    layer: Layer
    title: str
    default: Aggregation
    worse: Literal["high", "low"]
    """The direction that ``worst`` takes."""
    across_sensors: Literal["sum", "mean", "min", "max", "or"]
    """How several sensors become one map; ``or`` unites their days."""
    unit: str
    """In words, for one month."""
    needs: Needs
    """What must be known for the metric to be known (design section 4, several sensors in one figure). A sensor without a public catalogue
    has no metric that needs one. A sensor that is not in our holdings has no metric of the layer ``acquired``; for the gap its
    holdings are a known zero.
    """
    mask: str | None = None
    """The day mask that it is derived from on reading; None: it is a variable of the cube."""
    measure: Literal["observations", "longest_wait"] = "observations"
    """What is taken of the mask: the days set, or the longest run of days that are not."""

    def variable(self, name: str) -> str:
        """The variable of the cube that the metric of that name is read from."""
        return self.mask or name


METRICS: Mapping[str, Metric] = {
    "scenes_count": Metric("available", "Scenes", "rate", "low", "sum", "scenes", "catalogue"),
    "cloud_free_scene_count": Metric("available", "Clear scenes", "rate", "low", "sum", "scenes", "catalogue"),
    "cloud_unknown_scene_count": Metric("available", "Scenes of unknown cloud", "rate", "high", "sum", "scenes", "catalogue"),
    "observations": Metric("available", "Observations", "rate", "low", "or", "days with a scene", "catalogue", "available_days"),
    "clear_observations": Metric(
        "available", "Clear observations", "rate", "low", "or", "days with a clear scene", "catalogue", "clear_days"
    ),
    "mean_scene_cloud_pct": Metric("available", "Mean cloud cover", "rate", "high", "mean", "%", "catalogue"),
    "held_count": Metric("acquired", "Scenes held", "rate", "low", "sum", "scenes", "holdings"),
    "held_clear_count": Metric("acquired", "Clear scenes held", "rate", "low", "sum", "scenes", "holdings"),
    "held_observations": Metric("acquired", "Observations held", "rate", "low", "or", "days with a scene held", "holdings", "held_days"),
    "held_clear_observations": Metric(
        "acquired", "Clear observations held", "rate", "low", "or", "days with a clear scene held", "holdings", "held_clear_days"
    ),
    "longest_wait": Metric(
        "acquired",
        "Longest wait within a month",
        "worst",
        "high",
        "or",
        "days without a clear scene held",
        "holdings",
        "held_clear_days",
        "longest_wait",
    ),
    "days_since_last_held": Metric("acquired", "Days since last held", "recent", "high", "min", "days", "holdings"),
    "action": Metric("gap", "Action", "recent", "high", "max", "", "holdings"),
    "deficit": Metric("gap", "Deficit", "worst", "high", "max", "clear observations", "holdings"),
    "unmet_supply": Metric("gap", "Unmet supply", "rate", "high", "sum", "clear scenes", "both"),
    "ingestable_observations": Metric(
        "gap", "Days to download", "rate", "high", "or", "days with a clear scene not held", "both", "ingestable_days"
    ),
    "priority_score": Metric("gap", "Priority", "worst", "high", "max", "score 0 to 1", "holdings"),
}
"""Every metric the dashboard offers, in its order."""

# What a planner must not overlook comes first when several months or sensors become one cell.
ACTION_ORDER = ("ingest", "check", "task", "unknown", "none", "met", "out_of_scope")
URGENCY = ACTION_ORDER[::-1]
"""The actions from the least urgent to the most."""


@dataclass(frozen=True)
class DesiredCadence:
    """Clear observations wanted a month, by sensor; the registry's default where none is given."""

    per_sensor: dict[str, float] = field(default_factory=dict)

    def for_sensor(self, key: str, known: Mapping[str, CoverageSensor] = COVERAGE_SENSORS) -> float:
        """The wanted number for one sensor; raises ``CoverageError`` for a sensor that is not declared."""
        if key in self.per_sensor:
            return self.per_sensor[key]
        if key not in known:
            raise CoverageError(f"no desired cadence for sensor {key!r}: give {key} = … below [gap.desired] in build.toml")
        return known[key].default_desired_per_month


@dataclass(frozen=True)
class CoverageQuery:
    """What a planner asks of the cube: one metric of some sensors over a window, reduced over time."""

    layer: Layer
    metric: str
    sensors: list[str]
    t0: dt.date
    t1: dt.date
    aggregation: Aggregation = "rate"
    bbox: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class CubeSpec:
    """Axes of a cube and the settings that give its numbers their meaning."""

    grid: GridSpec
    sensors: tuple[CoverageSensor, ...]
    months: tuple[Month, ...]
    cloud_lt: float
    lookback_months: int
    match_tolerance_seconds: float
    weights: Mapping[str, float]
    area: str
    """The area of interest in words, with whatever makes it differ (margin, targets' fingerprint)."""
    note: str | None = None
    """What a reader must be told, such as that the data are simulated."""

    def meaning(self) -> dict[str, Any]:
        """The settings a reader needs to interpret the numbers, as they stand in the cube's attributes."""
        return {
            "grid": self.grid.describe(),
            "cloud_lt": float(self.cloud_lt),
            "lookback_months": int(self.lookback_months),
            "match_tolerance_seconds": float(self.match_tolerance_seconds),
            "weights": {k: float(v) for k, v in self.weights.items()},
            "area": self.area,
        }
