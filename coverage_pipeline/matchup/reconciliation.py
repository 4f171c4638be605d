"""Where holdings and catalogue disagree: not listed, held twice, in part, in an older version, under an unknown id."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coverage_pipeline.holdings.metadata import HoldingsMetadata
from coverage_pipeline.holdings.rows import HOLDINGS_SCHEMA, same_rows
from coverage_pipeline.matchup.metadata import MatchupMetadata
from coverage_pipeline.matchup.versions import held_in_older_version, scenes_of_holdings
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.statistics import read_scenes
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

FINDINGS_SCHEMA = pa.schema(
    [
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("month", pa.string(), nullable=False),
        pa.field("finding", pa.string(), nullable=False),  # of FINDINGS
        pa.field("scene_key", pa.string()),  # of the catalogue, where the row belongs to a scene
        pa.field("ids", pa.list_(pa.string()), nullable=False),  # of the holdings; their row's name where they have no id
        pa.field("detail", pa.string(), nullable=False),
    ]
)
Row = tuple[str, str | None, list[str], str]
"""Finding, scene key, ids, detail."""
FINDINGS = ("not listed", "held twice", "held in part", "upgrade", "unknown id", "rejected")
"""Held and in no catalogue; two product ids of one scene; part of the scene; an older version than is listed; an id in no known
spelling; a row that cannot be placed."""


@dataclass(frozen=True)
class Reconciliation:
    """One sensor and month: counts, and the rows behind them. A count that is not known is None."""

    sensor: str
    month: str
    known: bool
    reason: str
    """Why it is not known, where it is not."""
    rows: int | None
    """Holdings of the month."""
    first: str | None
    """First acquisition held in the month, UTC, ISO 8601; None where there is none."""
    last: str | None
    newest_before: str | None
    """Last acquisition held up to the month's end, within the lookback: an old one shows that the index is stale."""
    counts: dict[str, int | None]
    """By finding. None: not known, as without a catalogue for what is not listed."""
    version_not_told: int
    """Held scenes whose ids do not tell which version is newer."""
    findings: pa.Table
    """``FINDINGS_SCHEMA``."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; the findings as rows."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"findings": self.findings.to_pylist()}


def reconcile(sensor: CoverageSensor, month: Month, store: Store) -> Reconciliation:
    """Compare one partition's holdings with its catalogue, from the files of their steps.

    A partition whose holdings were not read, or whose files do not go together, is not known: no count of it is a zero. Raises
    ``StoreError`` for a damaged file.
    """
    try:
        holdings, stored = read_parquet(store.holdings(sensor.key, month), HOLDINGS_SCHEMA.names)
        extract = HoldingsMetadata.of(stored)
        scenes, scan = read_scenes(store.scenes(sensor.key, month), ["scene_key", "item_ids", "in_month"])
        matchup, stored = read_parquet(store.matchup(sensor.key, month), ["holdings", "share", "held"])
        match = MatchupMetadata.of(stored)
    except StoreError as error:
        if "does not exist yet" not in str(error):
            raise
        return _not_known(sensor, month, str(error))
    if extract.status not in ("read", "not_held"):
        return _not_known(sensor, month, f"the holdings are {extract.status}: {extract.reason}")
    if (match.scan_run, match.holdings_run) != (scan.run, extract.run):
        return _not_known(sensor, month, "the matchup was made from another scan or extract; materialise matchup again")
    rejected, _ = read_parquet(sibling(store.holdings(sensor.key, month), ".rejected.parquet"))
    newest, _ = read_parquet(store.last_held(sensor.key, month), ["datetime"])
    stands = same_rows(holdings)
    first = stands == np.arange(holdings.num_rows)
    in_month = holdings["in_month"].to_numpy(zero_copy_only=False).astype(bool)
    times = holdings["datetime"].filter(pa.array(in_month))
    owner = scenes_of_holdings(holdings, matchup)
    listed_in_month = scenes["in_month"].to_numpy(zero_copy_only=False).astype(bool)
    counts_here = np.where(owner >= 0, listed_in_month[owner] if scenes.num_rows else False, in_month)
    upgrades = held_in_older_version(scenes, holdings, owner, sensor.family)
    rows = [
        *_held_twice(scenes, holdings, owner, stands, counts_here),
        *_of_scenes(scenes, matchup, holdings, owner, upgrades, listed_in_month),
    ]
    asked = scan.status not in ("not_applicable", "not_scanned")
    if asked:
        reason = "no scene of the catalogue has this id, time or footprint"
        rows += [("not listed", None, [name], reason) for name in _names(holdings, first & in_month & (owner < 0))]
    named = holdings["scene_id"].is_valid().to_numpy()
    keyless = holdings["scene_key"].is_null().to_numpy()
    if sensor.family != "other":  # without a rule every id is its own key
        rows += [
            ("unknown id", None, [name], "its id is in no known spelling")
            for name in _names(holdings, first & counts_here & named & keyless)
        ]
    rows += [("rejected", None, [r["scene_id"] or "(no id)"], r["reason"]) for r in rejected.to_pylist()]
    counts: dict[str, int | None] = {finding: sum(1 for row in rows if row[0] == finding) for finding in FINDINGS}
    if not asked:
        counts |= dict.fromkeys(("not listed", "held in part", "upgrade"))
    return Reconciliation(
        sensor=sensor.key,
        month=month.key,
        known=True,
        reason="",
        rows=int(in_month.sum()),
        first=_iso(pc.min(times).as_py()),
        last=_iso(pc.max(times).as_py()),
        newest_before=_iso(pc.max(newest["datetime"]).as_py()),
        counts=counts,
        version_not_told=sum(1 for k in np.unique(owner[owner >= 0]) if listed_in_month[k] and upgrades[k] is None),
        findings=_table(sensor, month, rows),
    )


def _held_twice(
    scenes: pa.Table, holdings: pa.Table, owner: NDArray[np.int64], stands: NDArray[np.int64], counts_here: NDArray[np.bool_]
) -> Iterator[Row]:
    """Scenes that are held under two product ids: by the catalogue's scene, else by scene key, else by time and footprint."""
    keys = holdings["scene_key"].to_pylist()
    ids = holdings["scene_id"].to_pylist()
    groups: dict[tuple[str, Any], set[str]] = {}
    for k in np.flatnonzero(counts_here):
        if ids[k]:
            group = ("scene", int(owner[k])) if owner[k] >= 0 else ("key", keys[k]) if keys[k] else ("row", int(stands[k]))
            groups.setdefault(group, set()).add(ids[k])
    for (kind, value), products in groups.items():
        if len(products) > 1:
            key = scenes["scene_key"][value].as_py() if kind == "scene" else value if kind == "key" else None
            yield "held twice", key, sorted(products), f"{len(products)} products of one scene"


def _of_scenes(
    scenes: pa.Table,
    matchup: pa.Table,
    holdings: pa.Table,
    owner: NDArray[np.int64],
    upgrades: NDArray[np.object_],
    in_month: NDArray[np.bool_],
) -> Iterator[Row]:
    """Scenes that are held in part, or in an older version."""
    names = [one or other for one, other in zip(holdings["scene_id"].to_pylist(), holdings["holding"].to_pylist(), strict=True)]
    held, share = matchup["held"].to_pylist(), matchup["share"].to_pylist()
    for scene in np.unique(owner[owner >= 0]).tolist():
        if not in_month[scene]:
            continue
        key, shown = scenes["scene_key"][scene].as_py(), [names[k] for k in np.flatnonzero(owner == scene)]
        if held[scene] is False and share[scene]:
            yield "held in part", key, shown, f"{100 * share[scene]:.0f} % of the scene"
        if upgrades[scene] is True:
            yield "upgrade", key, shown, f"listed is {scenes['item_ids'][scene].as_py()[0]}"


def _names(holdings: pa.Table, chosen: NDArray[np.bool_]) -> list[str]:
    table = holdings.select(["holding", "scene_id"]).filter(pa.array(chosen))
    return [row["scene_id"] or row["holding"] for row in table.to_pylist()]


def _table(sensor: CoverageSensor, month: Month, rows: Sequence[Row]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    n = len(rows)
    return pa.table(
        {"sensor": [sensor.key] * n, "month": [month.key] * n, **dict(zip(FINDINGS_SCHEMA.names[2:], map(list, columns), strict=True))},
        schema=FINDINGS_SCHEMA,
    )


def _not_known(sensor: CoverageSensor, month: Month, reason: str) -> Reconciliation:
    nothing: dict[str, int | None] = dict.fromkeys(FINDINGS)
    return Reconciliation(sensor.key, month.key, False, reason, None, None, None, None, nothing, 0, FINDINGS_SCHEMA.empty_table())


def _iso(when: dt.datetime | None) -> str | None:
    return None if when is None else when.strftime("%Y-%m-%dT%H:%M:%SZ")


def in_words(one: Reconciliation) -> str:
    """A partition in one line."""
    if not one.known:
        return f"{one.sensor} {one.month}: not known: {one.reason}"
    parts = [f"{'?' if count is None else f'{count:,}'} {finding}" for finding, count in one.counts.items()]
    return f"{one.sensor} {one.month}: {one.rows:,} held, {one.first or 'none'} to {one.last or 'none'}; {', '.join(parts)}"
