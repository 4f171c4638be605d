"""What of a scene is downloaded, how large it is where nobody says, and which login its provider wants.

Only one of eight recorded catalogues states sizes, so that gigabytes of a backlog are mostly estimates, and marked as such.
``[sensors.downloads.emit]`` in ``config/build.toml`` overrides what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Download:
    """How scenes of one sensor are had from one provider. Raises ``ValueError`` for a size that is none."""

    assets: tuple[str, ...] = ()
    """Asset keys that make up a scene as it is used; empty: every asset with the role ``data``, else all."""
    scene_mb: float = 1000.0
    """Size of these assets, megabytes (10⁶ bytes), where items do not state ``file:size``."""
    login: str = ""
    """What a download needs beside the link, in words; empty: nothing."""
    source: str = ""
    """What the size and the login were taken from."""

    def __post_init__(self) -> None:
        if not 0 < self.scene_mb < 1e6:
            raise ValueError(f"scene_mb {self.scene_mb} must be > 0 and below 1,000,000")


_S2_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "SCL")
_S2_CDSE = (
    "B02_10m", "B03_10m", "B04_10m", "B08_10m", "B05_20m", "B06_20m", "B07_20m", "B8A_20m", "B11_20m", "B12_20m", "SCL_20m",
)  # fmt: skip
_S2_NAMES = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22", "scl")
_LANDSAT = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "qa_pixel")
_S2_SIZE = "median of these eleven assets of six recorded items of the Copernicus Data Space, which state file:size"
_LANDSAT_SIZE = "upper bound: eight bands of 7,800 × 7,700 pixels of 16 bits, not compressed"
_EMIT_SIZE = (
    "upper bound: 285 bands of 1,242 × 1,280 pixels of 32 bits and the mask's eight (https://lpdaac.usgs.gov/products/emitl2arflv001/)"
)
_ENMAP_SIZE = "upper bound: 224 bands of 1,200 × 1,200 pixels of 16 bits, not compressed (https://www.enmap.org/mission/)"

DOWNLOADS: Mapping[tuple[str, str], Download] = MappingProxyType(
    {
        ("sentinel-2", ""): Download((), 620, "", _S2_SIZE),
        ("sentinel-2", "planetarycomputer.microsoft.com"): Download(_S2_BANDS, 620, "links are signed when they are fetched", _S2_SIZE),
        ("sentinel-2", "earth-search.aws.element84.com"): Download(_S2_NAMES, 620, "", _S2_SIZE),
        ("sentinel-2", "stac.dataspace.copernicus.eu"): Download(
            _S2_CDSE, 620, "Copernicus Data Space: S3 keys, or a token for https", _S2_SIZE
        ),
        ("landsat-8-9", ""): Download((), 960, "", _LANDSAT_SIZE),
        ("landsat-8-9", "planetarycomputer.microsoft.com"): Download(
            _LANDSAT, 960, "links are signed when they are fetched", _LANDSAT_SIZE
        ),
        ("landsat-8-9", "earth-search.aws.element84.com"): Download(
            _LANDSAT, 960, "AWS account: the bucket usgs-landsat is requester pays", _LANDSAT_SIZE
        ),
        ("emit", ""): Download((), 1860, "", _EMIT_SIZE),
        ("emit", "cmr.earthdata.nasa.gov"): Download((), 1860, "NASA Earthdata login", _EMIT_SIZE),
        ("enmap", ""): Download((), 650, "", _ENMAP_SIZE),
        ("enmap", "geoservice.dlr.de"): Download(("image", "metadata", "quality_classes", "quality_cloud"), 650, "DLR login", _ENMAP_SIZE),
    }
)
"""By sensor key and provider; the empty provider stands for any other."""

UNKNOWN_DOWNLOAD = Download(source="no figure of this sensor is known; set [sensors.downloads]")


def download_of(sensor: str, provider: str | None, overrides: Mapping[str, Download] | None = None) -> Download:
    """How a sensor's scenes are had from a provider: what the settings say, else the registry, else one gigabyte."""
    if overrides and sensor in overrides:
        return overrides[sensor]
    return DOWNLOADS.get((sensor, provider or "")) or DOWNLOADS.get((sensor, "")) or UNKNOWN_DOWNLOAD
