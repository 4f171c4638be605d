"""The simulated archive: what real missions would have imaged in a month, for the demo and for measurements.

The scenes are made up: every item says ``simulated``. The same seed gives the same archive. Nothing here is read from outside the package.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from coverage_pipeline.demo.acquisitions import MAKERS, with_parts_and_copies
from coverage_pipeline.demo.clouds import CLOUD_UNKNOWN, cloud_cover
from coverage_pipeline.demo.items import DESCRIBERS, items_of
from coverage_pipeline.demo.missions import MISSIONS, ArchiveError
from coverage_pipeline.months import Month

CATALOGUED = ("emit", "enmap", "landsat-8-9", "sentinel-2")
"""Sensors whose archive can be asked; PRISMA's can't (see ``simulated_holdings_without_catalog``)."""


def simulated_footprints(sensor_key: str, month: Month, *, seed: int = 7, density: float = 1.0) -> gpd.GeoDataFrame:
    """What a catalogue would list for one sensor and month, without the items around it: for measurements.

    Returns
    -------
    EPSG:4326 rows in time order: ``datetime`` (UTC, in the month), ``end``, ``cloud`` (percent, NaN where unknown), ``geometry``
    (valid, split at the antimeridian), ``scene`` (a number that reprocessed copies and the parts of a split scene share) and
    what identifies it: ``platform``, ``orbit``, ``frame`` (MGRS tile, path and row, …), ``number``, ``part``, ``copy``.

    Raises
    ------
    ArchiveError
        The sensor is not simulated, or ``density`` is not in 0..1.

    Notes
    -----
    ``density`` keeps whole passes of the systematic missions, spread evenly in longitude and over the cycles, and scales the number of
    strips of the tasked ones. Keeping whole passes leaves each pass what it is, a continuous swath, so that a thinned month looks
    like fewer satellites rather than like a sieve: neighbouring scenes still share their day. A smaller density keeps a subset.

    """
    maker = MAKERS.get(sensor_key)
    if maker is None:
        raise ArchiveError(f"no simulated archive for sensor {sensor_key!r}: there is one for {', '.join(sorted(MAKERS))}")
    if not 0 < density <= 1:
        raise ArchiveError(f"density {density!r} for {sensor_key} must be above 0 and at most 1")
    rng = np.random.default_rng([seed, zlib.crc32(sensor_key.encode()), month.year, month.month])
    parts = [maker(mission, month, density, seed, rng) for mission in MISSIONS.values() if mission.sensor_key == sensor_key]
    table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    times = table["datetime"].to_numpy("datetime64[ms]")
    table = table[(times >= month.to_datetime64()) & (times < month.shift(1).to_datetime64())]
    table = table.sort_values(["datetime", "platform", "number", "frame"], kind="stable", ignore_index=True)
    table["scene"] = np.arange(len(table))
    table["cloud"] = cloud_cover(table, seed, rng, CLOUD_UNKNOWN[sensor_key])
    if sensor_key == "sentinel-2":
        table = with_parts_and_copies(table, rng)
    times = {name: pd.to_datetime(table[name].to_numpy("datetime64[ms]"), utc=True).as_unit("us") for name in ("datetime", "end")}
    return gpd.GeoDataFrame(table.drop(columns="geometry").assign(**times), geometry=table["geometry"].to_numpy(), crs="EPSG:4326")


def simulated_items(sensor_key: str, month: Month, *, seed: int = 7, density: float = 1.0) -> Iterator[dict[str, Any]]:
    """STAC items as the sensor's provider would list them for the month, each with ``properties["simulated"]`` true.

    Identifiers, property names and oddities are the providers': EnMAP's cloud cover is text, Landsat's unknown cloud cover is −1,
    Sentinel-2 lists a scene's reprocessed copies and parts, and every other Landsat scene across the antimeridian comes as one
    polygon whose edges span the map; the rest are RFC 7946 MultiPolygons.

    Raises
    ------
    ArchiveError
        As for ``simulated_footprints``; or the sensor has no public catalogue to imitate.

    """
    if sensor_key in MAKERS and sensor_key not in DESCRIBERS:
        raise ArchiveError(f"sensor {sensor_key!r} has no public catalogue to imitate; see simulated_holdings_without_catalog")
    table = simulated_footprints(sensor_key, month, seed=seed, density=density)
    rng = np.random.default_rng([seed, zlib.crc32(sensor_key.encode()), month.year, month.month, 1])
    return items_of(sensor_key, table, rng)


def write_archive(
    folder: Path,
    months: Iterable[Month],
    sensor_keys: Iterable[str] = CATALOGUED,
    *,
    seed: int = 7,
    density: Mapping[str, float] | None = None,
) -> list[Path]:
    """Write items as ``rustac serve --create-collections FILES…`` loads them: one GeoJSON FeatureCollection a sensor.

    Sensors without a public catalogue have no file. ``density`` is by sensor key, 1 where absent. Every item has one asset, ``image``: a
    small text file in ``folder`` that says that nothing was observed, so that a download can be tried.

    Returns
    -------
    The files, ``{sensor}.json``, each one collection when served.

    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(months)
    image = folder / "simulated-scene.txt"
    image.write_text("A simulated scene of the demo: nothing was observed, and nothing else would be downloaded.\n")
    assets = {"image": {"href": str(image.resolve()), "type": "text/plain", "roles": ["data"], "title": "Simulated"}}
    files = []
    for key in sensor_keys:
        if key in MAKERS and key not in DESCRIBERS:
            continue
        path = folder / f"{key}.json"
        part = path.with_suffix(".json.part")
        with part.open("w", encoding="utf-8") as out:
            out.write('{"type":"FeatureCollection","features":[')
            everything = itertools.chain.from_iterable(
                simulated_items(key, month, seed=seed, density=(density or {}).get(key, 1.0)) for month in wanted
            )
            for number, item in enumerate(everything):
                out.write((",\n" if number else "\n") + json.dumps({**item, "assets": assets}, separators=(",", ":")))
            out.write("\n]}\n")
        part.replace(path)
        files.append(path)
    return files
