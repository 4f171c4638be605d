"""Simulated weather by smooth noise."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import shapely

from coverage_pipeline.demo.missions import Floats

# A small share of scenes comes without a usable cloud percentage. The shares are assumptions, chosen so that every sensor has some.
CLOUD_UNKNOWN = {"sentinel-2": 0.002, "landsat-8-9": 0.003, "enmap": 0.01, "emit": 0.08, "prisma": 0.02}


# --- weather --------------------------------------------------------------------------------------------------------------------


def noise(lat: Floats, lon: Floats, day: Floats, seed: int, scale: float) -> Floats:
    """Smooth noise on the sphere and in time, about standard normal: a sum of plane waves through 3-D space.

    Waves through space know no seam and no pole. ``scale`` 1 means features of some 1,500 km that live for about three days.
    """
    rng = np.random.default_rng([seed, 5])
    phi, lam = np.radians(lat), np.radians(lon)
    where = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi), day], axis=-1).astype(np.float32)
    waves = np.column_stack([rng.normal(0, 6 * scale, (40, 3)), rng.normal(0, 0.9, 40)]).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 40).astype(np.float32)
    total = np.zeros(len(where), np.float32)
    for wave, phase in zip(waves, phases, strict=True):
        total += np.cos(where @ wave + phase)
    return (total * math.sqrt(2 / 40)).astype(np.float64)


def climate(lat: Floats, season: Floats) -> Floats:
    """Cloudiness by latitude and season, about -1.5 (subtropical deserts) .. 1.5 (rain belts); season -1 (January) .. 1 (July).

    The zonal means follow MODIS (King et al. 2013, doi:10.1109/TGRS.2012.2227333): a maximum at the rain belt, which follows the sun,
    minima near 20-25°, maxima over the storm tracks at 50-60°, and less over the ice.
    """
    belt = np.exp(-(((lat - 3 - 8 * season) / 9) ** 2))
    north, south = np.exp(-(((lat - 55 + 5 * season) / 14) ** 2)), np.exp(-(((lat + 57 - 3 * season) / 12) ** 2))
    dry = np.exp(-(((np.abs(lat - 3 * season) - 23) / 8) ** 2))
    return 1.3 * belt + 1.1 * north * (1 - 0.25 * season) + 1.5 * south - 1.3 * dry


def cloud_cover(table: pd.DataFrame, seed: int, rng: np.random.Generator, unknown: float) -> Floats:
    """Cloud percentage of each scene: mostly near 0 or near 100, as real scenes are; NaN where unknown.

    The weather depends on the seed, the place and the instant alone, so two sensors that pass on one day see the same clouds.
    """
    if not len(table):
        return np.zeros(0)
    bounds = shapely.bounds(table["geometry"].to_numpy())
    lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    time = table["datetime"].to_numpy("datetime64[ms]")
    day = (time - np.datetime64("2020-01-01")) / np.timedelta64(1, "D")
    season = -np.cos(2 * np.pi * (day - 15) / 365.25)
    weather = noise(lat, lon, day, seed, 1.0) + 0.5 * noise(lat, lon, day, seed + 3, 3.0)
    odds = 1.2 * climate(lat, season) + 2.4 * weather + 0.8 * rng.normal(size=len(lat)) + 0.1
    percent = np.clip(104 / (1 + np.exp(-odds)) - 2, 0, 100)
    percent[rng.random(len(percent)) < unknown] = np.nan
    return np.round(percent, 6)
