"""Writing one month of the holdings of a sensor as a partition; ``month`` reads it, and when each footprint was last held.

Nothing here knows whose holdings they are: the connection and the names of table and columns come from ``COVERAGE_DB_*`` and
``COVERAGE_TILES_*``. A layer that cannot be read is *off*, which is not the same as holding nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections import Counter

import numpy as np
from upath import UPath

from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.holdings.config import HoldingsConfig
from coverage_pipeline.holdings.errors import HoldingsUnavailable
from coverage_pipeline.holdings.metadata import HoldingsMetadata, HoldingsStatus
from coverage_pipeline.holdings.month import MonthReading, read_month_of
from coverage_pipeline.holdings.rows import (
    HoldingsRefused,
    same_rows,
)
from coverage_pipeline.holdings.sources.configured import holdings_source
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.files import write_together
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import parquet_bytes, read_metadata

log = logging.getLogger(__name__)


def extract_month(sensor: CoverageSensor, month: Month, store: Store, settings: HoldingsConfig) -> HoldingsMetadata:
    """Write one partition's holdings, its rejected rows and its ``last`` table; returns their metadata.

    A sensor that is not in our holdings is a known zero (``not_held``). Where the holdings cannot be had the partition is written as
    ``off``, unless an extract that was read stands there: then ``HoldingsUnavailable`` goes up and the extract stays, but where
    ``holdings.source`` is ``off``, which asks for it outright. Raises ``HoldingsRefused`` where too many rows cannot be placed.
    """
    target = store.holdings(sensor.key, month)
    status: HoldingsStatus = "read"
    read_at, source_name, reason = dt.datetime.now(UTC), "", ""
    reading = MonthReading()
    satellite = settings.holdings.held_name(sensor)
    if satellite is None:
        status = "not_held"
    else:
        try:
            source = holdings_source(settings, store)
            source_name = source.name
            reading = read_month_of(source, sensor, satellite, month, settings.holdings)
        except HoldingsUnavailable as error:
            if settings.holdings.source != "off" and _was_read(target):
                raise
            log.warning("%s %s: holdings are off: %s", sensor.key, month, error)
            status, reason = "off", str(error)
        except HoldingsRefused as error:
            raise HoldingsRefused(f"{sensor.key} {month}: {error}") from error
    for warning in reading.warnings:
        log.warning("%s %s: %s", sensor.key, month, warning)
    again = same_rows(reading.table) != np.arange(reading.table.num_rows)
    inside = reading.table["in_month"].to_numpy(zero_copy_only=False)
    rows, duplicates = int(inside.sum()), int((again & inside).sum())
    metadata = HoldingsMetadata(
        sensor=sensor.key,
        month=month.key,
        status=status,
        read_at=read_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        run=uuid.uuid4().hex,
        source=source_name,
        reason=reason,
        lookback_months=settings.holdings.lookback_months,
        rows=rows,
        duplicates=duplicates,
        rejected=reading.rejected.num_rows,
        rejected_reasons=dict(Counter(reading.rejected["reason"].to_pylist())),
        zoneless=reading.zoneless,
        footprints=reading.last.num_rows,
        last_known=reading.last_known,
        warnings=reading.warnings,
        notes=reading.notes(rows, duplicates),
    )
    write_together(
        [
            (sibling(target, ".rejected.parquet"), parquet_bytes(reading.rejected, metadata)),
            (store.last_held(sensor.key, month), parquet_bytes(as_geoparquet(reading.last), metadata)),
            (target, parquet_bytes(as_geoparquet(reading.table), metadata)),
        ]
    )
    return metadata


def _was_read(target: UPath) -> bool:
    """Whether an extract that was read stands there; a damaged file says nothing worth keeping."""
    try:
        return target.exists() and read_metadata(target).get("status") == "read"
    except StoreError:
        return False
