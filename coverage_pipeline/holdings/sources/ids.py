"""Holdings as a list of ids: what lies in a bucket or folder. Footprint and time are the catalogue's, by scene key."""

from __future__ import annotations

import datetime as dt
import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from coverage_pipeline.holdings.errors import HoldingsUnavailable, HoldingsUnreachable
from coverage_pipeline.holdings.rows import ROW_COLUMNS, HoldingsRefused
from coverage_pipeline.holdings.sources.earlier import grouped
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.redaction import public_address, redact
from coverage_pipeline.scenes.scene_key import scene_identity
from coverage_pipeline.scenes.statistics import read_scenes
from coverage_pipeline.sensors.registry import CoverageSensor, SceneFamily
from coverage_pipeline.storage.bounded_http import TransferError, local_copy
from coverage_pipeline.storage.paths import storage_path
from coverage_pipeline.storage.store import Store

NOT_LISTED = "its scene is not in the catalogue, which gives ids their footprint"
_SUFFIXES = re.compile(r"\.(?:SAFE|zip|tar|tif|tiff|jp2|nc|json|xml|gz|h5)$", re.IGNORECASE)
_DAY = re.compile(r"_(\d{8})$")
_SPLIT = re.compile(r'[\\/",;\t]+')


def _day_in(key: str) -> dt.datetime | None:
    """The day that a scene key ends with, as Landsat's do; ids of it state no time of day."""
    match = _DAY.search(key)
    try:
        return dt.datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


@dataclass(frozen=True)
class IdHoldings:
    """A text file with an id a line, or paths and inventories in which ids stand, such as an S3 inventory (CSV, gzipped too)."""

    path: str
    sensors: Mapping[str, CoverageSensor]
    """By key."""
    names: Mapping[str, str]
    """What the holdings of each sensor are called, by key."""
    store: Store | None
    """Where the catalogue's scenes lie; None: nothing can be placed."""

    @property
    def name(self) -> str:
        """The file's place."""
        return f"ids {public_address(self.path)}"

    @cached_property
    def _words(self) -> frozenset[str]:
        """Every part of every line that may be an id, without the endings of files."""
        try:
            with local_copy(self.path) as local:
                content = storage_path(local).read_bytes()
        except TransferError as error:
            raise HoldingsUnreachable(f"holdings {error}; check holdings.path (COVERAGE_HOLDINGS_PATH)") from None
        except OSError as error:
            raise HoldingsUnreachable(f"holdings {self.name}: {redact(str(error), self.path)}; set holdings.path") from None
        try:
            text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
        except (UnicodeDecodeError, OSError, EOFError):
            raise HoldingsRefused(f"holdings {self.name} is no text of ids; with holdings.source = 'ids' it has one a line") from None
        words: set[str] = set()
        for line in text.splitlines():
            words.update(part.strip() for part in _SPLIT.split(line))
        found = {_SUFFIXES.sub("", _SUFFIXES.sub("", word)) for word in words if word}
        if not found:
            raise HoldingsRefused(f"holdings {self.name} is empty: that would mean that nothing is held")
        return frozenset(found)

    def _ids(self, family: SceneFamily) -> dict[str, tuple[str, dt.datetime | None]]:
        """Id and the time that it states, by scene key; of a family without a rule each word is its own key."""
        keys: dict[str, tuple[str, dt.datetime | None]] = {}
        for word in sorted(self._words):
            one = scene_identity(family, word, {})
            key = one.key or (word if family == "other" else None)
            if key is not None:
                keys.setdefault(key, (word, one.stated or _day_in(key)))
        return keys

    def _sensor(self, satellites: Sequence[str] | None) -> list[CoverageSensor]:
        wanted = None if satellites is None else set(satellites)
        return [self.sensors[key] for key, name in self.names.items() if wanted is None or name in wanted]

    def rows(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str] | None) -> pd.DataFrame:
        """See ``HoldingsSource``: the listed scenes that an id names, and the ids of the span that no scene has, which are rejected."""
        frames = [self._of(sensor, since, until) for sensor in self._sensor(satellites)]
        frames = [frame for frame in frames if len(frame)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({name: [] for name in ROW_COLUMNS}).astype(object)

    def _of(self, sensor: CoverageSensor, since: dt.datetime, until: dt.datetime) -> pd.DataFrame:
        if not sensor.available_sources:
            raise HoldingsUnavailable(f"{sensor.key} has no public catalogue, which would give ids their footprints; list them in a table")
        ids = self._ids(sensor.family)
        parts = []
        # The span is a month with some days around it: the month itself must be there, its neighbours may be.
        middle = Month.of(since + (until - since) / 2)
        month = Month.of(since)
        while month.start < until:
            scenes = self._scenes(sensor, month, needed=month == middle)
            if scenes is not None:
                parts.append(scenes)
            month = month.shift(1)
        together = pa.concat_tables(parts)
        chosen = together.filter(self._held(together, ids))
        listed = set(chosen["scene_key"].to_pylist())
        times = chosen["acquired"].to_pandas()
        frame = pd.DataFrame(
            {
                "datetime": times,
                "sensor": self.names[sensor.key],
                "cloud": chosen["cloud_cover"].to_pandas(),
                "scene_id": pd.Series(self._own_ids(chosen, ids), dtype=object),
                "geometry": pd.Series(chosen["geometry"].to_pylist(), dtype=object),
                "misplaced": pd.Series([None] * chosen.num_rows, dtype=object),
            }
        )
        lost = [(name, when) for key, (name, when) in ids.items() if key not in listed and when is not None and since <= when < until]
        missing = pd.DataFrame(
            {
                "datetime": pd.to_datetime(pd.Series([when for _, when in lost], dtype=object), utc=True).astype("datetime64[us, UTC]"),
                "sensor": self.names[sensor.key],
                "cloud": np.nan,
                "scene_id": pd.Series([name for name, _ in lost], dtype=object),
                "geometry": pd.Series([None] * len(lost), dtype=object),
                "misplaced": pd.Series([NOT_LISTED] * len(lost), dtype=object),
            }
        )
        inside = frame[(times >= since) & (times < until)].drop_duplicates("scene_id")
        some = [part for part in (inside, missing) if len(part)]
        return pd.concat(some, ignore_index=True) if some else inside

    def _held(self, scenes: pa.Table, ids: Mapping[str, Any]) -> pa.Array:
        """Which scenes an id names: by key, or by the very id of one of their items, as catalogues spell ids that no rule reads."""
        by_key = pc.is_in(scenes["scene_key"], value_set=pa.array(list(ids), pa.string())).combine_chunks()
        by_item = np.zeros(scenes.num_rows, bool)
        same = pc.is_in(pc.list_flatten(scenes["item_ids"]), value_set=pa.array(sorted(self._words), pa.string())).to_numpy()
        by_item[pc.list_parent_indices(scenes["item_ids"]).to_numpy()[same]] = True
        return pc.or_(by_key, pa.array(by_item))

    def _own_ids(self, scenes: pa.Table, ids: Mapping[str, tuple[str, dt.datetime | None]]) -> list[str]:
        """The id of the list for each of the scenes."""
        rows = zip(scenes["scene_key"].to_pylist(), scenes["item_ids"].to_pylist(), strict=True)
        return [ids[key][0] if key in ids else next(one for one in items if one in self._words) for key, items in rows]

    def _scenes(self, sensor: CoverageSensor, month: Month, *, needed: bool) -> pa.Table | None:
        columns = ["scene_key", "item_ids", "acquired", "cloud_cover", "geometry", "in_month"]
        path = None if self.store is None else self.store.scenes(sensor.key, month)
        if path is None or not path.exists():
            if needed:
                lacking = f"{sensor.key} {month} is not scanned, and the catalogue gives ids their footprints"
                raise HoldingsUnavailable(f"{lacking}: materialise availability first")
            return None
        table, scan = read_scenes(path, columns)
        if needed and scan.status in ("partial", "not_scanned", "not_applicable"):
            raise HoldingsUnavailable(f"{sensor.key} {month}: the scan is {scan.status}, so that ids cannot be told from those it lacks")
        return table.filter(table["in_month"])

    def timeless(self, satellites: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
        """See ``HoldingsSource``: an id is of the time of its scene."""
        return pd.DataFrame({name: [] for name in ROW_COLUMNS}).astype(object), 0

    def last(self, since: dt.datetime, until: dt.datetime, satellites: Sequence[str]) -> pd.DataFrame | None:
        """See ``HoldingsSource``: from the scenes of the earlier months; None where one of them is not scanned."""
        frames = []
        for sensor in self._sensor(satellites):
            ids = self._ids(sensor.family)
            month = Month.of(since)
            while month.start < until:
                if sensor.flies_in(month):
                    scenes = self._scenes(sensor, month, needed=False)
                    if scenes is None:
                        return None
                    held = scenes.filter(self._held(scenes, ids))
                    frames.append(held.select(["acquired", "geometry"]).rename_columns(["datetime", "geometry"]).to_pandas())
                month = month.shift(1)
        some = [frame for frame in frames if len(frame)] or frames[:1]
        return grouped(pd.concat(some, ignore_index=True)) if some else None

    def spellings(self, since: dt.datetime, until: dt.datetime) -> dict[str, int]:
        """See ``HoldingsSource``: an id has no sensor column to be spelt in."""
        return {}
