"""What closing what can be closed takes, for the summary: of all targets, and of each group of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coverage_pipeline.demand.summary import Costs
from coverage_pipeline.demand.target_table import Targets
from coverage_pipeline.months import Month
from coverage_pipeline.requests.backlog_schema import BACKLOG_SCHEMA, BacklogMetadata
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet


def backlog_costs(sensor: CoverageSensor, month: Month, store: Store, targets: Targets | None) -> Costs:
    """Scenes and bytes of a partition's backlog; of a group, those that close something of it. Raises ``StoreError`` without a backlog."""
    table, stored = read_parquet(store.backlog(sensor.key, month), BACKLOG_SCHEMA.names)
    if BacklogMetadata.of(stored).note:
        return Costs({}, {}, {})  # nothing was tried, so that nothing is known
    chosen = table.filter(table["rank"].is_valid())
    by_group: dict[str | None, pa.Table] = {None: chosen}
    if targets is not None:
        group_of = dict(zip(targets.table["id"].astype(str), targets.table["group"].astype(str), strict=True))
        owner = pc.list_parent_indices(chosen["closes"]).to_numpy()
        closed = pc.struct_field(pc.list_flatten(chosen["closes"]), "target").to_pylist()
        groups = np.array([group_of.get(target, "") for target in closed], dtype=object)
        for group in set(group_of.values()) - {""}:
            by_group[group] = chosen.take(pa.array(np.unique(owner[groups == group])))
    return Costs(
        {group: rows.num_rows for group, rows in by_group.items()},
        {group: int(pc.sum(rows["bytes"]).as_py() or 0) for group, rows in by_group.items()},
        {group: bool(pc.all(rows["bytes_stated"]).as_py()) for group, rows in by_group.items()},
    )
