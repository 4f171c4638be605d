"""The one partitioning of everything: month × sensor, with keys such as ``2025-01|emit``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import dagster as dg

from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import CoverageSensor, SensorError
from coverage_pipeline.settings.model import PlannerSettings


class SensorMonth(NamedTuple):
    """One partition."""

    key: str
    sensor: CoverageSensor
    month: Month


def sensor_months_definition(settings: PlannerSettings) -> dg.MultiPartitionsDefinition:
    """Months from the window's start to its end (or the last closed month) × the sensors of the settings.

    The dimension names and sensor keys are part of the history: renaming one orphans it.
    """
    start = Month.of(settings.window.start)
    end = settings.window.end
    months = dg.MonthlyPartitionsDefinition(
        start_date=start.key,
        end_date=Month.of(end).shift(1).key if end is not None else None,
        fmt="%Y-%m",
    )
    sensors = dg.StaticPartitionsDefinition(list(settings.sensors.keys))
    return dg.MultiPartitionsDefinition({"month": months, "sensor": sensors})


def sensor_months_of(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, sensors: dict[str, CoverageSensor]
) -> Iterator[SensorMonth]:
    """The partitions of a run: one, or the range of a ranged backfill.

    Raises ``SensorError`` for a sensor that the settings lack.
    """
    for key in context.partition_keys:
        month, sensor = key.split("|")  # dimensions in the order of their names
        if sensor not in sensors:
            raise SensorError(f"partition {key}: {sensor} is not among the sensors of the settings any more; set sensors.keys, or reload")
        yield SensorMonth(key, sensors[sensor], Month.parse(month))
