"""Footers of Parquet files, kept for as long as their file stays the same: a place reads some rows of hundreds of files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from upath import UPath

from coverage_pipeline.storage.paths import is_local

_MOST = 256
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Footer:
    """What a file says of its row groups."""

    metadata: pq.FileMetaData
    sizes: tuple[int, ...]
    """Rows of each row group."""
    boxes: NDArray[np.float64]
    """West, south, east, north of each row group's ``bbox`` column, degrees, ``(groups, 4)``; NaN where it does not say."""

    def near(self, boxes: NDArray[np.float64]) -> NDArray[np.int64]:
        """Row groups in which a row may meet one of ``boxes`` (west, south, east, north, ``(n, 4)``), ascending."""
        west, south, east, north = (self.boxes[:, k, None] for k in range(4))
        meets = (west <= boxes[:, 2]) & (east >= boxes[:, 0]) & (south <= boxes[:, 3]) & (north >= boxes[:, 1])
        return np.flatnonzero(meets.any(axis=1) | np.isnan(self.boxes[:, 0]))


_lock = threading.Lock()
_kept: OrderedDict[tuple[str, int, int], Footer] = OrderedDict()


def footer_of(path: UPath, file: BinaryIO) -> Footer:
    """The footer of an open file; of a local one kept from an earlier call where neither its time nor its size changed.

    Files are written under another name and renamed, so that a file of one inode, time and size has one content.
    """
    key = None
    if is_local(path):
        status = Path(path.path).stat()
        key = (f"{path.path}\0{status.st_ino}", status.st_mtime_ns, status.st_size)
        with _lock:
            if key in _kept:
                _kept.move_to_end(key)
                return _kept[key]
    metadata = pq.read_metadata(file)
    footer = Footer(metadata, tuple(metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)), _boxes(metadata))
    if key is not None:
        with _lock:
            _kept[key] = footer
            while len(_kept) > _MOST:
                _kept.popitem(last=False)
    return footer


def _boxes(metadata: pq.FileMetaData) -> NDArray[np.float64]:
    """By the statistics of the row groups: pyarrow's own filter does not look at those of a struct."""
    names = [metadata.schema.column(k).path for k in range(metadata.num_columns)]
    result = np.full((metadata.num_row_groups, 4), np.nan)
    if not all(f"bbox.{corner}" in names for corner in _CORNERS):
        return result
    columns = [names.index(f"bbox.{corner}") for corner in _CORNERS]
    for k in range(metadata.num_row_groups):
        group = metadata.row_group(k)
        known = [group.column(column).statistics for column in columns]
        if all(one is not None and one.has_min_max for one in known):
            result[k] = known[0].min, known[1].min, known[2].max, known[3].max
    return result
