"""The three files that say what exists and what is held in one sensor and month, read together and only where they go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from coverage_pipeline.demand.target_knowledge import Knowledge
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.holdings.metadata import HoldingsMetadata
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA
from coverage_pipeline.matchup.metadata import MatchupMetadata
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.metadata import ScenesMetadata
from coverage_pipeline.scenes.statistics import read_scenes
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

SCENE_COLUMNS = ["scene_key", "pass_time", "in_month", "cloud_cover", "geometry"]
"""Columns of the scenes file that target statistics need."""
MATCHUP_COLUMNS = ["holdings", "share", "held", "missing"]


class PartitionFilesMixed(PlannerError):
    """The files of a partition are of different runs: another build wrote meanwhile, or a step was left out."""


@dataclass(frozen=True)
class PartitionFiles:
    """One sensor and month: scenes, matchup (row by row the same scenes) and holdings, with what each says of itself."""

    sensor: CoverageSensor
    month: Month
    scenes: pa.Table
    """The columns asked for, and ``bbox``."""
    scan: ScenesMetadata
    matchup: pa.Table
    """``MATCHUP_COLUMNS``."""
    match: MatchupMetadata
    holdings: pa.Table
    """``HOLDINGS_SCHEMA``."""
    extract: HoldingsMetadata

    @property
    def known(self) -> Knowledge:
        """What is known of the catalogue and of the holdings."""
        return Knowledge(self.scan.status, self.scan.bbox, self.extract.status)


def read_partition_files(sensor: CoverageSensor, month: Month, store: Store, columns: Sequence[str] = SCENE_COLUMNS) -> PartitionFiles:
    """Read one partition's files, with ``columns`` of the scenes.

    Raises ``StoreError`` for a file that is missing or damaged, ``PartitionFilesMixed`` where the matchup is of another scan or extract.
    """
    path = store.scenes(sensor.key, month)
    scenes, scan = read_scenes(path, columns)
    boxes, _ = read_parquet(path, ["bbox"])
    scenes = scenes.append_column("bbox", boxes["bbox"])
    matchup, stored = read_parquet(store.matchup(sensor.key, month), MATCHUP_COLUMNS)
    match = MatchupMetadata.of(stored)
    holdings, stored = read_parquet(store.holdings(sensor.key, month), HOLDINGS_SCHEMA.names)
    extract = HoldingsMetadata.of(stored)
    for name, made_from, run in (("scan", match.scan_run, scan.run), ("extract", match.holdings_run, extract.run)):
        if made_from != run:
            raise PartitionFilesMixed(
                f"{sensor.key} {month}: matchup was made from another {name} than the one that is there; materialise matchup again"
            )
    return PartitionFiles(sensor, month, scenes, scan, matchup, match, holdings, extract)
