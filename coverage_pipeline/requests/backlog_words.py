"""What a backlog comes to, in words, for terminal and page alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from coverage_pipeline.requests.backlog import Backlog


def closes_in_words(row: Mapping[str, Any]) -> str:
    """Which targets a scene of a backlog (a row of ``BACKLOG_SCHEMA``) closes days of; of cells, how many days."""
    return ", ".join(sorted({one["target"] for one in row["closes"]})) or f"{row['days_closed']:,} cell-days"


def backlog_in_words(backlog: Backlog, chosen: pa.Table) -> str:
    """What a choice comes to, a few sentences."""
    if not backlog.days_wanted:
        return "Nothing that is listed would close anything that is known to be missing."
    size = (pc.sum(chosen["bytes"]).as_py() or 0) / 1e9
    whole, every = backlog.bytes_chosen / 1e9, backlog.bytes_candidates / 1e9
    stated = "" if pc.all(chosen["bytes_stated"]).as_py() else " (estimated)"
    noun = "scene" if chosen.num_rows == 1 else "scenes"
    closed = f"close {days_of(chosen):,} of {backlog.days_wanted:,} days that can be downloaded"
    words = f"{chosen.num_rows} {noun}, {size:,.1f} GB{stated}, {closed}."
    if chosen.num_rows < backlog.chosen.num_rows:
        words += f" Without a budget: {backlog.chosen.num_rows} scenes, {whole:,.1f} GB, {backlog.days_closed:,} days."
    return f"{words} Taking every overlapping scene would be {every:,.1f} GB: the cover saves {every - whole:,.1f} GB."


def days_of(chosen: pa.Table) -> int:
    """Days of targets, or of cells, that some of the chosen scenes close; scenes of one offer close the same ones together."""
    closes = pc.list_flatten(chosen["closes"])
    if not len(closes):  # of cells, of which each offer is one scene
        return int(pc.sum(chosen["days_closed"]).as_py() or 0)
    month = chosen["month"].take(pc.list_parent_indices(chosen["closes"])).to_pylist()
    return len({(when, *one.values()) for when, one in zip(month, closes.to_pylist(), strict=True)})
