"""Fields of the cube for scenes that exist and are not held; which these are, ``match`` decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coverage_pipeline.grid.celltable import COUNT, DAYS, AreaKnown, dense
from coverage_pipeline.grid.daymask import UNKNOWN, is_known
from coverage_pipeline.grid.spec import GridSpec


def unheld_fields(
    table: pa.Table,
    grid: GridSpec,
    known: AreaKnown,
    held_clear_days: NDArray[np.uint32],
    held_unknown_days: NDArray[np.uint32],
    rows: tuple[int, int] | None = None,
    *,
    applicable: bool = True,
) -> dict[str, NDArray[Any]]:
    """The cube's ``unmet_supply``, ``ingestable_days`` and ``check_days`` of one partition, each a field of the grid or of its
    ``rows`` (see ``celltable.dense``).

    ``held_clear_days`` and ``held_unknown_days`` (days with a held scene of unknown cloud) are the partition's masks, uint32; bit 31
    alone
    where not known (a sensor that is not held: nothing is). Where the catalogue is not known, the check days are the held days of unknown
    cloud; where there are none they are not known, unless ``applicable`` is false: no catalogue can be asked, and the holdings are known.
    """
    held_clear = np.where(is_known(held_clear_days), held_clear_days, np.uint32(0))
    held_unclear = np.where(is_known(held_unknown_days), held_unknown_days, np.uint32(0)) & ~held_clear
    clear = dense(table, "clear_days", grid, DAYS, known, rows)
    unclear = dense(table, "unknown_days", grid, DAYS, known, rows)
    listed = is_known(clear)
    ingestable = np.where(listed, clear & ~held_clear, UNKNOWN)
    from_holdings = np.where((held_unclear == 0) & applicable, UNKNOWN, held_unclear)
    return {
        "unmet_supply": dense(table, "clear", grid, COUNT, known, rows),
        "ingestable_days": ingestable,
        "check_days": np.where(listed, (unclear & ~held_clear | held_unclear) & ~ingestable, from_holdings),
    }
