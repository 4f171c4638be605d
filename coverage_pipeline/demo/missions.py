"""The missions of the simulated archive: their orbits, and what each images of the ground below.

Circular orbits on a spherical Earth. The ground tracks and repeat cycles are the missions' own: Landsat's paths fall on its real days,
Sentinel-2's relative orbits within seconds of its real plans.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.footprints import EARTH_RADIUS_KM
from coverage_pipeline.months import Month

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Geometries = NDArray[np.object_]
_FLATNESS = 0.00669438  # squared eccentricity of WGS 84
_SOLAR_DAY_S = 86_400.0
_SIDEREAL_DEG_PER_DAY = 360.98564736629  # Earth's rotation, IAU 1982
_ISS_REV_PER_DAY = 15.49385107  # element set 2026-08-08 (25544)

# J2 nodal precession at 420 km and 51.63° (Vallado, Fundamentals of Astrodynamics, eq. 9-38): the station's node goes round in 72 days
_ISS_NODE_DEG_PER_DAY = -5.0


class ArchiveError(PlannerError, ValueError):
    """A simulated archive was asked for that cannot be made."""


@dataclass(frozen=True)
class Mission:
    """One satellite (or instrument on one): its orbit, and what it images of the ground below."""

    key: str
    """For example ``sentinel-2a``; a satellite that was moved to another place in its orbit has one for each."""
    sensor_key: str
    """The sensor of the registry that it belongs to."""
    platform: str
    """STAC ``platform``, spelt as the provider does."""
    inclination: float
    """Degrees; above 98 is sun-synchronous."""
    orbits: int
    """Revolutions a repeat cycle; 0: no repeat cycle."""
    days: int
    """Days a repeat cycle."""
    node_epoch: str
    """An instant of a descending equator crossing, UTC; it is orbit 0 here."""
    node_longitude: float
    """Longitude of that crossing, degrees."""
    swath_km: float
    frame_km: float
    """Length of a scene along the track."""
    reach: tuple[float, float]
    """Latitudes of scene centres, south and north, degrees."""
    min_sun: float
    """Least solar elevation of a scene, degrees."""
    first: str
    """First day with scenes, YYYY-MM-DD."""
    last: str | None = None
    """First day without scenes any more."""
    look_km: float = 0.0
    """How far to either side of the track the instrument may be pointed."""
    whole_within: tuple[float, float, float, float] | None = None
    """West, south, east, north of the place that it images in every cycle, degrees; elsewhere in every second one. None: everywhere."""
    epoch_orbit: int = 0
    """Absolute orbit number at ``node_epoch``, where identifiers need it."""

    @property
    def sun_synchronous(self) -> bool:
        """Whether every descending crossing has the same local mean solar time."""
        return self.orbits > 0

    @property
    def period_s(self) -> float:
        """Seconds from one descending equator crossing to the next."""
        return self.days * _SOLAR_DAY_S / self.orbits if self.orbits else _SOLAR_DAY_S / _ISS_REV_PER_DAY

    @property
    def turn_per_s(self) -> float:
        """Degrees a second that the ground turns below the orbit plane; for sun-synchronous planes once in a solar day."""
        return (360.0 if self.orbits else _SIDEREAL_DEG_PER_DAY - _ISS_NODE_DEG_PER_DAY) / _SOLAR_DAY_S

    @property
    def local_time(self) -> float:
        """Local mean solar time of the descending node, hours."""
        at = dt.datetime.fromisoformat(self.node_epoch)
        return ((at - at.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds() / 3600 + self.node_longitude / 15) % 24

    def node_time(self, orbit: Ints) -> NDArray[np.datetime64]:
        """Instants of the descending equator crossings, UTC, datetime64[ms]."""
        ms = np.rint(np.asarray(orbit) * self.period_s * 1000).astype("timedelta64[ms]")
        return np.datetime64(self.node_epoch, "ms") + ms

    def node_lon(self, orbit: Ints) -> Floats:
        """Longitudes of the descending equator crossings, degrees in [-180, 180)."""
        return wrapped(self.node_longitude - np.asarray(orbit, dtype=np.float64) * (self.period_s * self.turn_per_s))

    def orbits_of(self, month: Month) -> Ints:
        """Numbers of all orbits that may have a scene in the month."""
        epoch = np.datetime64(self.node_epoch, "ms")
        first, last = ((edge.to_datetime64() - epoch) / np.timedelta64(1, "s") for edge in (month, month.shift(1)))
        return np.arange(math.floor(first / self.period_s) - 1, math.ceil(last / self.period_s) + 2)

    def ground(self, along: Floats, cross_km: Floats | float = 0.0) -> tuple[Floats, Floats]:
        """Where the swath lies: latitude, and longitude relative to the descending node's, degrees.

        ``along`` is the angle flown since the descending node, degrees in -180..180; ``cross_km`` the distance to the left of
        the track (the sensor looks at a right angle to its motion; yaw steering is left out).
        """
        u, i, c = np.radians(along), math.radians(self.inclination), np.asarray(cross_km) / EARTH_RADIUS_KM
        x = np.cos(c) * np.cos(u)
        y = np.cos(c) * math.cos(i) * np.sin(u) + np.sin(c) * math.sin(i)
        z = -np.cos(c) * math.sin(i) * np.sin(u) + np.sin(c) * math.cos(i)
        turned = np.asarray(along) / 360 * self.period_s * self.turn_per_s
        # A plumb line's latitude, as maps have it, not the angle at the Earth's centre: up to 21 km apart
        lat = np.degrees(np.arctan2(z, (1 - _FLATNESS) * np.hypot(x, y)))
        return lat, np.degrees(np.arctan2(y, x)) - turned


# Sentinel-2: 786 km, 98.62°, 143 orbits in 10 days, descending node at 10:30, 290 km swath, land and islands from 56° S to 84° N
# (https://sentiwiki.copernicus.eu/web/s2-mission); sun zenith up to 82°. Nodes and orbit numbers fitted to ESA's acquisition plans of
# 2024-11..2025-03 (residuals of 2 s). S2C took over S2A's place on 2025-01-21. S2A was moved to 36°
# behind S2B, so that it passes each track 7 days after S2B (of 10; the element sets of 2026-08 have it 37° behind), and has worked since
# March 2025 as a third satellite: Europe in every cycle of 10 days, the rest in every second one (EC Observer, 2025-02-05; the day of
# its first scene and the outline of Europe are assumed).
_S2 = Mission(
    key="",
    sensor_key="sentinel-2",
    platform="",
    inclination=98.5621,
    orbits=143,
    days=10,
    node_epoch="",
    node_longitude=168.38,
    swath_km=290.0,
    frame_km=109.8,
    reach=(-56.0, 83.6),
    min_sun=8.0,
    first="",
)

# Landsat 8/9: 705 km, 98.2°, 233 paths in 16 days, 185 km by 180 km scenes on the WRS-2, whose path 1 crosses the equator at 64.6° W
# (https://landsat.gsfc.nasa.gov/about/the-worldwide-reference-system/); Level 2 needs a sun zenith below 76°
# (https://www.usgs.gov/landsat-missions/landsat-collection-2-level-2-science-products). Node times fitted to 766 real scenes.
_LANDSAT = Mission(
    key="landsat-8",
    sensor_key="landsat-8-9",
    platform="landsat-8",
    inclination=98.2,
    orbits=233,
    days=16,
    node_epoch="2020-01-01T14:30:39",
    node_longitude=-64.6,
    swath_km=185.0,
    frame_km=180.0,
    reach=(-82.0, 82.0),
    min_sun=14.0,
    first="2013-03-18",
)
MISSIONS: Mapping[str, Mission] = {
    mission.key: mission
    for mission in (
        replace(
            _S2,
            key="sentinel-2a",
            platform="Sentinel-2A",
            node_epoch="2025-01-10T23:16:21",
            epoch_orbit=49905,
            first="2015-07-04",
            last="2025-01-21",
        ),
        replace(
            _S2,
            key="sentinel-2a-third",
            platform="Sentinel-2A",
            node_epoch="2025-01-12T23:16:17",
            epoch_orbit=49934,
            first="2025-03-13",
            whole_within=(-12.0, 34.0, 42.0, 72.0),
        ),
        replace(
            _S2,
            key="sentinel-2b",
            platform="Sentinel-2B",
            node_epoch="2025-01-05T23:16:17",
            epoch_orbit=40925,
            first="2017-03-15",
        ),
        replace(
            _S2,
            key="sentinel-2c",
            platform="Sentinel-2C",
            node_epoch="2025-01-10T23:16:48",
            epoch_orbit=1830,
            first="2025-01-21",
        ),
        _LANDSAT,
        replace(_LANDSAT, key="landsat-9", platform="landsat-9", node_epoch="2020-01-09T14:30:32", first="2021-10-31"),
        # EnMAP: 653 km, 97.96°, 398 orbits in 27 days, node at 11:00, 30 km swath, strips of up to 1000 km, ±30° pointing
        # (377 km) (https://www.enmap.org/mission/). Node from the element set of 2026-08-08.
        Mission(
            key="enmap",
            sensor_key="enmap",
            platform="enmap",
            inclination=97.96,
            orbits=398,
            days=27,
            node_epoch="2026-08-08T15:20:52.780",
            node_longitude=-65.263,
            swath_km=30.0,
            frame_km=30.0,
            reach=(-79.5, 79.5),
            min_sun=15.0,
            first="2022-04-27",
            look_km=370.0,
        ),
        # PRISMA: 615 km, 97.85°, 430 orbits in 29 days, node at 10:30, 30 by 30 km, pointing up to 20.7° (230 km)
        # (https://www.eoportal.org/satellite-missions/prisma-hyperspectral). Node from the element set of 2026-08-08.
        Mission(
            key="prisma",
            sensor_key="prisma",
            platform="PRISMA",
            inclination=97.851,
            orbits=430,
            days=29,
            node_epoch="2026-08-08T15:27:43.441",
            node_longitude=-74.483,
            swath_km=30.0,
            frame_km=30.0,
            reach=(-69.5, 69.5),
            min_sun=20.0,
            first="2019-05-01",
            look_km=230.0,
        ),
        # EMIT on the ISS: 51.64°, no repeat cycle, scenes of about 75 by 77 km within ±52°
        # (https://earth.jpl.nasa.gov/emit/instrument/specifications/). Node from the element set of 2026-08-08.
        Mission(
            key="emit",
            sensor_key="emit",
            platform="ISS",
            inclination=51.632,
            orbits=0,
            days=0,
            node_epoch="2026-08-08T12:53:29.330",
            node_longitude=70.754,
            swath_km=75.0,
            frame_km=76.8,
            reach=(-51.6, 51.6),
            min_sun=20.0,
            first="2022-08-09",
        ),
    )
}


# --- geometry -----------------------------------------------------------------------------------------------------------------


def wrapped(lon: Floats) -> Floats:
    """Longitudes in [-180, 180)."""
    return (np.asarray(lon, dtype=np.float64) + 180) % 360 - 180
