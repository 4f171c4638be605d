"""Result of one check of a catalogue, and helpers to describe it."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from coverage_pipeline.months import UTC
from coverage_pipeline.redaction import printable
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor

_MOST_NAMES = 6
"""Most names listed in a message."""
Verdict = Literal["ok", "slow", "wrong", "failed"]


@dataclass(frozen=True)
class Check:
    """Result of one check."""

    name: str
    verdict: Verdict
    """``wrong``: change the configuration. ``failed``: wait for the provider, or use another one."""
    said: str
    """Outcome in one line, with what to do. Printable, not escaped for markup."""
    seconds: float = 0.0


def distinct(sensors: Sequence[CoverageSensor]) -> list[tuple[list[CoverageSensor], AvailableSource]]:
    """Distinct sources (kind, endpoint, collection, version) in order of the sensors, each with the sensors that use it."""
    sensors_by_source: dict[tuple[str, str, str, str | None], tuple[list[CoverageSensor], AvailableSource]] = {}
    for sensor in sensors:
        for source in sensor.available_sources:
            key = source.kind, source.endpoint.rstrip("/"), source.collection_id, source.version
            sensors_by_source.setdefault(key, ([], source))[0].append(sensor)
    return list(sensors_by_source.values())


def parsed_utc(when: dt.datetime) -> dt.datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def dicts_in(value: Any) -> list[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def texts_in(value: Any) -> list[str] | None:
    return ([v for v in value if isinstance(v, str)] or None) if isinstance(value, list) else None


def names_in_words(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 60) for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


def similar_names(wanted: str, ids: Sequence[str]) -> list[str]:
    """Ids similar to ``wanted``, the most similar first."""
    by_name = {name.lower(): name for name in ids if name}
    similar = difflib.get_close_matches(wanted.lower(), by_name, n=_MOST_NAMES, cutoff=0.55)
    similar += [name for name in by_name if name not in similar and (wanted.lower() in name or name in wanted.lower())]
    return [printable(by_name[name], 60) for name in similar[:_MOST_NAMES]]
