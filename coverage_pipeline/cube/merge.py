"""Merging the statistics of one sensor and month into the cube: what exists, what is held, what is not.

The three files of cells must come from the same scan, extract and matchup, and from the settings of today. Others would say that nothing
is missing where it is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.cube.levels import Rows
from coverage_pipeline.cube.schema import CubeSpec
from coverage_pipeline.cube.write import write_coverage
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.grid.celltable import CELL_SCHEMA, DAYS, AreaKnown, dense
from coverage_pipeline.holdings.config import HoldingsSettings
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS, KNOWN_HOLDINGS, HeldMetadata
from coverage_pipeline.holdings.statistics import HELD_SCHEMA, holdings_fields
from coverage_pipeline.matchup.metadata import UnheldMetadata
from coverage_pipeline.matchup.month import UNHELD_SCHEMA
from coverage_pipeline.matchup.unheld import unheld_fields
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.metadata import AvailableMetadata
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.scenes.statistics import availability_fields, known_area
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.metadata import StoredMetadata
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_cells, read_metadata


class StatisticsMoved(PlannerError):
    """A file of statistics was replaced by another run between two readings of it."""


class StatisticsMixed(PlannerError):
    """The statistics and the matchup of a partition come from different scans or extracts."""


@dataclass(frozen=True)
class MergeReport:
    """What a merged partition says to a person. Counts are None where holdings are not known."""

    scan_status: str
    holdings_status: str
    provider: str | None
    scenes: int
    scenes_held: int | None
    scenes_held_in_part: int | None
    held_not_in_catalog: int | None
    cells_with_scenes: int


@dataclass(frozen=True)
class _CellFile:
    """A file of cells whose metadata was read; its cells are read later, piece by piece."""

    path: UPath
    stored: StoredMetadata

    @classmethod
    def at(cls, path: UPath) -> _CellFile:
        return cls(path, read_metadata(path))

    def cells(self, grid_columns: int, rows: tuple[int, int] | None, schema: pa.Schema) -> pa.Table:
        """The cells of some rows; raises ``StatisticsMoved`` where the file is another one by now."""
        span = () if rows is None else (rows[0] * grid_columns, rows[1] * grid_columns)
        table, now = read_cells(self.path, *span, schema=schema)
        if now != self.stored:
            raise StatisticsMoved(f"{self.path} is being written by another run; materialise coverage again when that has ended")
        return table


def merge_partition(
    sensor: CoverageSensor, month: Month, store: Store, spec: CubeSpec, holdings: HoldingsSettings | None, strips: Sequence[Rows]
) -> MergeReport:
    """Merge ``availability_stats``, ``holdings_stats`` and ``matchup`` into the partition's region of the cube.

    ``holdings`` are the limits that the matchup must have been made with; None leaves the holdings out, and the cube says ``not_read``.
    ``strips`` are the rows of each piece in turn, as ``row_strips`` gives them: a whole partition may not fit in memory.
    Raises ``PlannerError`` for statistics of other settings, ``StatisticsMixed`` for those of different scans or extracts,
    ``StatisticsMoved`` where another run writes one of the files meanwhile, ``StoreError`` for a file that is missing or damaged.
    """
    grid = spec.grid
    available = _CellFile.at(store.stats("available", sensor.key, month))
    scan = AvailableMetadata.of(available.stored)
    held_file = unheld_file = None
    held: HeldMetadata | None = None
    match: UnheldMetadata | None = None
    if holdings is not None:
        held_file, unheld_file = (_CellFile.at(store.stats(layer, sensor.key, month)) for layer in ("held", "unheld"))
        held, match = HeldMetadata.of(held_file.stored), UnheldMetadata.of(unheld_file.stored)
        _refuse_mixture(f"{sensor.key} {month}", spec, holdings, scan, held, match)
    else:
        _refuse_other_settings(f"{sensor.key} {month}", _of_settings("availability_stats", scan, spec))
    status = "not_read" if held is None else held.status
    known = known_area(scan.status, scan.bbox, grid)
    unheld_known = known if status in KNOWN_HOLDINGS else known_area("not_scanned", None, grid)
    scanned = scan.status != "not_applicable"
    columns = grid.shape[-1]

    def piece(rows: tuple[int, int] | None) -> dict[str, NDArray[Any]]:
        # One layer after the other: a table is let go before the next is read.
        fields = availability_fields(available.cells(columns, rows, CELL_SCHEMA), grid, known, rows)
        acquired = HELD_SCHEMA.empty_table() if held_file is None else held_file.cells(columns, rows, HELD_SCHEMA)
        fields |= holdings_fields(acquired, grid, status, month, spec.lookback_months, rows, last_known=held is None or held.last_known)
        held_unclear = dense(acquired, "unknown_days", grid, DAYS, AreaKnown(everywhere=status == "read"), rows)
        del acquired
        unheld = UNHELD_SCHEMA.empty_table() if unheld_file is None else unheld_file.cells(columns, rows, UNHELD_SCHEMA)
        applicable = scanned or status not in KNOWN_HOLDINGS
        fields |= unheld_fields(unheld, grid, unheld_known, fields["held_clear_days"], held_unclear, rows, applicable=applicable)
        return fields

    not_in_catalog = None if match is None else match.held_not_in_catalog
    provenance = {
        "scan_status": SCAN_STATUS.index(scan.status),
        "holdings_status": HOLDINGS_STATUS.index(status),
        "scenes_total": scan.scenes if scanned else -1,
        "held_not_in_catalog": -1 if not_in_catalog is None else not_in_catalog,
        "scanned_at": int(dt.datetime.fromisoformat(scan.scanned_at).timestamp()) if scanned and scan.scanned_at else -1,
        "provider": scan.provider,
    }
    pieces = ((rows, piece(rows)) for rows in strips)
    write_coverage(store.zarr, sensor.key, month, pieces, provenance)
    return MergeReport(
        scan_status=scan.status,
        holdings_status=status,
        provider=scan.provider,
        scenes=scan.scenes,
        scenes_held=None if match is None else match.held,
        scenes_held_in_part=None if match is None else match.held_in_part,
        held_not_in_catalog=not_in_catalog,
        cells_with_scenes=scan.cells,
    )


_Expected = tuple[str, str, Any, Any]
"""A step, a setting, the value that its file was made with, and the value that holds now."""


def _of_settings(name: str, made: AvailableMetadata | HeldMetadata | UnheldMetadata, spec: CubeSpec) -> list[_Expected]:
    return [(name, "grid", made.grid, spec.grid.describe()), (name, "cloud_lt", made.cloud_lt, spec.cloud_lt)]


def _refuse_other_settings(partition: str, expected: list[_Expected]) -> None:
    for name, setting, made_with, value in expected:
        if made_with != value:
            raise PlannerError(
                f"{partition}: {name} was made with {setting} {made_with}, the settings say {value}; materialise {name} again"
            )


def _refuse_mixture(
    partition: str, spec: CubeSpec, holdings: HoldingsSettings, scan: AvailableMetadata, held: HeldMetadata, match: UnheldMetadata
) -> None:
    expected = [
        *_of_settings("availability_stats", scan, spec),
        *_of_settings("holdings_stats", held, spec),
        *_of_settings("matchup", match, spec),
        ("matchup", "min_iou", match.min_iou, holdings.min_iou),
        ("matchup", "min_cover", match.min_cover, holdings.min_cover),
        ("matchup", "tolerance_seconds", match.tolerance_seconds, holdings.match_tolerance_seconds),
    ]
    if held.status == "read":
        expected.append(("holdings", "lookback_months", held.lookback_months, spec.lookback_months))
    _refuse_other_settings(partition, expected)
    for words, made_from, stands in (
        ("matchup was made from another scan than availability_stats", match.scan_run, scan.run),
        ("matchup was made from another extract of the holdings than holdings_stats", match.holdings_run, held.run),
        ("holdings_stats was made from another matchup", held.matchup_run, match.run),
    ):
        if made_from != stands:
            raise StatisticsMixed(f"{partition}: {words}; materialise availability_stats, matchup and holdings_stats again")
