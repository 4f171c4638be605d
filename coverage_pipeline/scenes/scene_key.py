"""Scene keys by sensor family, which identify copies of a scene, and the rank that finds the newest copy.

Catalogue items and holdings use the same function, so that a holding finds its scene by id alone. Nothing here raises: an id that
follows no rule has no key, and its item stays a scene of its own.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from coverage_pipeline.months import UTC
from coverage_pipeline.sensors.registry import SceneFamily

# S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154(.SAFE); Planetary Computer leaves the baseline (N0509) out.
# The satellite may be any letter, so that Sentinel-2D and its successors need no new release.
_S2_PRODUCT = re.compile(r"(S2[A-Z])_MSIL\d[AC]_(\d{8}T\d{6})_(?:N(\d{4})_)?R\d{3}_T(\d{2}[A-Z]{3})(?:_(\d{8}T\d{6}))?")
_S2_DATATAKE = re.compile(r"G(S2[A-Z])_(\d{8}T\d{6})_\d+")
_S2_SATELLITE = re.compile(r"(?<![A-Z0-9])S2([A-Z])_")
_S2_TILE = re.compile(r"(?:^|[_-])T?(\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?=[_-]|$)")
# Earth Search: S2A_13TDE_20231008_1_L2A is the second product of that tile and day.
_S2_REVISION = re.compile(r"_(\d{1,3})_L\d[AC]$")
_S2_SPECIAL_BASELINE = "9999"
"""Baseline of special processings, which has no rank: 36 of 102 such products of one tile are older than the 0500 beside them."""
# LC08_L2SP_044034_20160830_20200906_02_T1(_SR); Planetary Computer and Earth Search leave the processing date out.
_LANDSAT_PRODUCT = re.compile(r"L[A-Z](\d{2})_L\d\w{2}_(\d{3})(\d{3})_(\d{8})_(?:(\d{8})_)?\d{2}_(RT|T1|T2)")
_LANDSAT_SCENE = re.compile(r"(?<![A-Z])L[A-Z](\d{1,2})(\d{3})(\d{3})(\d{4})(\d{3})[A-Z]{3}\d{2}(?!\d)")
_LANDSAT_TIER = {"RT": 0, "T2": 1, "T1": 2}
_SECONDS_PER_ROW = 23.92
"""Seconds between two rows of a Landsat path: 116 real passes agree within 0.36 s (design section 4)."""
# EMIT_L2A_RFL_001_20220810T034103_2222203_002: build, sensing time, orbit, scene in the orbit. The key leaves the level out.
_EMIT = re.compile(r"EMIT_L\d[A-Z]_\w+?_(\d{3})_(\d{8}T\d{6})_(\d+)_(\d+)")
# ENMAP01-____L2A-DT0000080454_20240630T082045Z_001_V010402_20240701T122237Z: level, datatake, tile, version, processing time.
# All levels share the tile numbers: the recorded L0 and L2A of one datatake and tile show the same place.
_ENMAP = re.compile(r"ENMAP\d\d-_*L\d[A-C]?-DT(\d+)_(\d{8}T\d{6})Z_(\d+)_V(\d+)_(\d{8}T\d{6})Z")


class SceneIdentity(NamedTuple):
    """Scene and pass of a catalogue item or holding, and its rank among the copies of that scene."""

    key: str | None
    """Scene key; None if the id follows no known rule."""
    pass_time: dt.datetime | None = None
    """Time of the satellite's pass, UTC (design section 4). The entry's own time if no rule of its family gives a pass time; None if
    there is neither."""
    stated: dt.datetime | None = None
    """Time in the id, UTC: the acquisition time of an entry without a time."""
    platform: str | None = None
    """Satellite in the id, in the spelling of ``sensors.platform_name``."""
    rank: tuple[str, ...] = ("",)
    """Sort key of copies, largest: newest. Generation time, then revision, then baseline, tier, build or version, then id."""
    baseline: str = ""
    """Sentinel-2 processing baseline, four digits; empty: not stated."""


def parse_time(value: Any) -> dt.datetime | None:
    """A STAC time (RFC 3339) in UTC. A time without zone is read as UTC. None for any other value."""
    if not isinstance(value, str):
        return None
    try:
        parsed = dt.datetime.fromisoformat(value.strip().upper())
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _compact_time(text: str) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)  # three times as fast as strptime
    except ValueError:
        return None


def _compact(when: dt.datetime) -> str:
    """The format that ``_compact_time`` reads; three times as fast as strftime."""
    return when.isoformat(timespec="seconds")[:19].replace("-", "").replace(":", "")


def _text(properties: Mapping[str, Any], name: str) -> str:
    value = properties.get(name)
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int | None:
    """A whole number, given as a number or as text; None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9 else None


def _generated(properties: Mapping[str, Any], in_id: str, *names: str) -> str:
    """Generation time of a copy as sortable text: from its id, else from the first property that has a time; empty if unknown."""
    generated = next((time for name in names if (time := parse_time(properties.get(name)))), None)
    return in_id or (_compact(generated) if generated else "")


def _sentinel_2(item_id: str, properties: Mapping[str, Any], own_time: dt.datetime | None) -> SceneIdentity:
    """Key of mission, datatake sensing start and tile. The relative orbit follows from the first two."""
    product = _S2_PRODUCT.search(_text(properties, "s2:product_uri")) or _S2_PRODUCT.search(item_id)
    datatake = _S2_DATATAKE.search(_text(properties, "s2:datatake_id") or _text(properties, "eopf:datatake_id"))
    generated = ""
    baseline = (_text(properties, "s2:processing_baseline") or _text(properties, "processing:version")).replace(".", "")
    if product:
        mission, start, product_baseline, tile, generated = product.groups(default="")
        baseline = product_baseline or baseline
    elif datatake:
        mission, start = datatake.groups()
        tile_match = _S2_TILE.search(_text(properties, "s2:mgrs_tile") or _text(properties, "grid:code") or item_id)
        tile = tile_match[1] if tile_match else ""
    else:
        satellite = _S2_SATELLITE.search(item_id)
        return SceneIdentity(None, own_time, platform=f"sentinel2{satellite[1].lower()}" if satellite else None)
    platform = f"sentinel2{mission[2].lower()}"
    sensing_start = _compact_time(start)
    if sensing_start is None or not tile:
        return SceneIdentity(None, sensing_start or own_time, sensing_start, platform)
    sequence = _number(properties.get("s2:sequence"))
    revision_match = _S2_REVISION.search(item_id)
    revision = f"{int(revision_match[1]) if revision_match else sequence:09}" if revision_match or sequence is not None else ""
    return SceneIdentity(
        key=f"{mission}_{start}_T{tile}",
        pass_time=sensing_start,
        stated=sensing_start,
        platform=platform,
        rank=(
            _generated(properties, generated, "s2:generation_time", "processing:datetime"),
            revision,
            "" if baseline == _S2_SPECIAL_BASELINE else baseline,
            item_id,
        ),
        baseline=baseline if len(baseline) == 4 and baseline.isascii() and baseline.isdigit() else "",
    )


def _equator_crossing(own_time: dt.datetime | None, path: int | None, row: int | None) -> dt.datetime | None:
    """Time at which the path of a Landsat scene crosses the equator; the own time if path or row is unknown.

    Rows 1-122 descend and cross at row 60, rows 123-248 ascend and cross at row 184.
    """
    if own_time is None or path is None or row is None or not 1 <= path <= 233 or not 1 <= row <= 248:
        return own_time
    try:
        return own_time - dt.timedelta(seconds=(row - (60 if row <= 122 else 184)) * _SECONDS_PER_ROW)
    except OverflowError:  # within an hour of datetime.min or datetime.max
        return own_time


def _landsat(item_id: str, properties: Mapping[str, Any], own_time: dt.datetime | None) -> SceneIdentity:
    """Key of platform, path, row and date."""
    product = _LANDSAT_PRODUCT.search(item_id)
    scene = _LANDSAT_SCENE.search(item_id) or _LANDSAT_SCENE.search(_text(properties, "landsat:scene_id"))
    tier = _text(properties, "landsat:collection_category")
    processed = ""
    wrs = _number(properties.get("landsat:wrs_path")), _number(properties.get("landsat:wrs_row"))
    if product:
        number, path, row, date, processed, tier = product.groups(default="")
    elif scene:
        number, path, row, year, day = scene.groups()
        try:
            date = dt.datetime.strptime(f"{year}{day}", "%Y%j").strftime("%Y%m%d")
        except ValueError:
            return SceneIdentity(None, _equator_crossing(own_time, *wrs), platform=f"landsat{int(number)}")
    else:
        return SceneIdentity(None, _equator_crossing(own_time, *wrs))
    created = parse_time(properties.get("created"))
    return SceneIdentity(
        key=f"landsat-{int(number)}_{path}{row}_{date}",
        pass_time=_equator_crossing(own_time, int(path), int(row)),
        platform=f"landsat{int(number)}",
        rank=(
            _generated(properties, processed, "landsat:product_generated", "processing:datetime"),
            str(_LANDSAT_TIER.get(tier, "")),
            _compact(created) if created else "",  # creation of the catalogue item: the last resort to order copies
            item_id,
        ),
    )


def _emit(item_id: str, properties: Mapping[str, Any], own_time: dt.datetime | None) -> SceneIdentity:
    product = _EMIT.search(item_id)
    if not product:
        return SceneIdentity(None, own_time)
    build, start, orbit, scene = product.groups()
    stated = _compact_time(start)
    created = parse_time(properties.get("created"))
    return SceneIdentity(
        key=f"EMIT_{start}_{orbit}_{scene}",
        pass_time=own_time or stated,
        stated=stated,
        rank=(_generated(properties, "", "processing:datetime"), build, created.isoformat() if created else "", item_id),
    )


def _enmap(item_id: str, properties: Mapping[str, Any], own_time: dt.datetime | None) -> SceneIdentity:
    product = _ENMAP.search(item_id)
    if not product:
        return SceneIdentity(None, own_time)
    datatake, start, tile, version, processed = product.groups()
    stated = _compact_time(start)
    return SceneIdentity(key=f"ENMAP_DT{datatake}_{tile}", pass_time=own_time or stated, stated=stated, rank=(processed, version, item_id))


def scene_identity(
    family: SceneFamily, item_id: str, properties: Mapping[str, Any] | None = None, own_time: dt.datetime | None = None
) -> SceneIdentity:
    """Identity of a catalogue item (id and properties) or of a holding (id alone), acquired at ``own_time`` (UTC)."""
    properties = properties or {}
    match family:
        case "sentinel-2":
            return _sentinel_2(item_id, properties, own_time)
        case "landsat":
            return _landsat(item_id, properties, own_time)
        case "emit":
            return _emit(item_id, properties, own_time)
        case "enmap":
            return _enmap(item_id, properties, own_time)
        case _:
            return SceneIdentity(item_id or None, own_time)


def scene_key(family: SceneFamily, item_id: str | None, properties: Mapping[str, Any] | None = None) -> str | None:
    """The scene key alone; None without an id, or if the id follows no known rule."""
    return scene_identity(family, item_id, properties).key if item_id else None
