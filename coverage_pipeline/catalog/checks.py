"""One check of a catalogue, and how its outcome is shown."""

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
"""Names listed of what a provider has."""
Verdict = Literal["ok", "slow", "wrong", "failed"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    """``wrong``: the configuration is to be changed. ``failed``: the provider is to be waited for, or replaced."""
    said: str
    """In words, with what to do where something is to be done; one line, printable, not escaped for any markup."""
    seconds: float = 0.0


def distinct(sensors: Sequence[CoverageSensor]) -> list[tuple[list[CoverageSensor], AvailableSource]]:
    """Each (kind, endpoint, collection) once, in the sensors' order, with the sensors that have it."""
    by_source: dict[tuple[str, str, str, str | None], tuple[list[CoverageSensor], AvailableSource]] = {}
    for sensor in sensors:
        for source in sensor.available_sources:
            key = source.kind, source.endpoint.rstrip("/"), source.collection_id, source.version
            by_source.setdefault(key, ([], source))[0].append(sensor)
    return list(by_source.values())


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
    """Ids that may have been meant, the most alike first."""
    of = {name.lower(): name for name in ids if name}
    near = difflib.get_close_matches(wanted.lower(), of, n=_MOST_NAMES, cutoff=0.55)
    near += [low for low in of if low not in near and (wanted.lower() in low or low in wanted.lower())]
    return [printable(of[low], 60) for low in near[:_MOST_NAMES]]
