"""Simulated scenes as STAC items, written as their providers write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import shapely

from coverage_pipeline.demo.missions import MISSIONS, Mission

_COLLECTIONS = {
    "sentinel-2": "sentinel-2-l2a",
    "landsat-8-9": "landsat-c2-l2",
    "enmap": "ENMAP_HSI_L2A",
    "emit": "EMITL2ARFL",
}


# --- items ----------------------------------------------------------------------------------------------------------------------


def _iso(time: np.datetime64, unit: Literal["s", "ms"] = "ms") -> str:
    return f"{np.datetime_as_string(time, unit=unit)}Z"


def compact(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="s")).replace("-", "").replace(":", "")


def items_of(sensor_key: str, table: gpd.GeoDataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    describe = DESCRIBERS[sensor_key]
    geometries = table.geometry.to_numpy()
    starts = table["datetime"].dt.tz_localize(None).to_numpy("datetime64[ms]")
    ends = table["end"].dt.tz_localize(None).to_numpy("datetime64[ms]")
    columns = [table[name].tolist() for name in ("cloud", "platform", "orbit", "frame", "number", "part", "copy")]
    luck = rng.random(len(table)).tolist()
    boxes = np.round(shapely.bounds(geometries), 5).tolist()
    shapes = shapely.to_geojson(geometries)
    collection = _COLLECTIONS[sensor_key]
    for k, (cloud, platform, orbit, frame, number, part, copy) in enumerate(zip(*columns, strict=True)):
        scene = SimulatedScene(
            starts[k],
            ends[k],
            None if cloud != cloud else cloud,
            MISSIONS[platform],
            orbit,
            frame,
            number,
            part,
            copy,
            luck[k],
        )
        name, properties = describe(scene)
        geometry, box = json.loads(shapes[k]), boxes[k]
        if geometry["type"] == "MultiPolygon" and box[2] - box[0] > 180:
            geometry, box = _across(sensor_key, scene, geometry, box, geometries[k])
        yield {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": collection,
            "geometry": geometry,
            "bbox": box,
            "properties": {**properties, "simulated": True},
            "links": [],
            "assets": {},
        }


def _across(
    sensor_key: str, scene: SimulatedScene, geometry: dict[str, Any], box: list[float], footprint: shapely.MultiPolygon
) -> tuple[dict[str, Any], list[float]]:
    """A footprint across the antimeridian as providers give it, with its bbox."""
    if sensor_key == "landsat-8-9" and int(scene.frame[3:]) % 2:
        whole = shapely.union_all(
            shapely.transform(np.array(footprint.geoms, dtype=object), lambda c: np.column_stack([c[:, 0] % 360, c[:, 1]]))
        )
        if whole.geom_type == "Polygon":  # in one ring, with edges that span the map
            ring = shapely.get_coordinates(whole.simplify(1e-4))
            ring[:, 0] = np.where(ring[:, 0] > 180, ring[:, 0] - 360, ring[:, 0])
            return {"type": "Polygon", "coordinates": [np.round(ring, 5).tolist()]}, box
    edges = shapely.bounds(np.array(footprint.geoms, dtype=object))
    east = edges[:, 0] > 0
    # RFC 7946, 5.2: the western edge comes first, so west > east
    return geometry, [float(edges[east, 0].min()), box[1], float(edges[~east, 2].max()), box[3]]


@dataclass(frozen=True, slots=True)
class SimulatedScene:
    start: np.datetime64
    end: np.datetime64
    cloud: float | None
    mission: Mission
    orbit: int
    frame: str
    number: int
    part: int
    copy: int
    luck: float


def _describe_sentinel_2(scene: SimulatedScene) -> tuple[str, dict[str, Any]]:
    """As Planetary Computer: ``datetime`` is the datatake's start; copies share the datastrip's sensing start, parts do not."""
    letter = scene.mission.platform[-1].upper()
    taken = compact(scene.start)
    relative = (scene.orbit - scene.mission.epoch_orbit) % scene.mission.orbits + 1
    result = scene.end + np.timedelta64(int(3600 * (3 + 5 * scene.luck)) + 1800 * scene.part, "s")
    baseline = 510 if scene.start < np.datetime64("2024-07-23") else 511  # https://sentiwiki.copernicus.eu/web/s2-processing
    if scene.copy:
        result, baseline = result + np.timedelta64(20 + int(300 * scene.luck), "D"), baseline + 1
    strip = compact(scene.start + np.timedelta64((150 if scene.part else 0) + 1, "s"))
    version, generated = f"{baseline // 100:02d}.{baseline % 100:02d}", compact(result)
    satellite, orbit = f"S2{letter}", f"R{relative:03d}"
    return f"{satellite}_MSIL2A_{taken}_{orbit}_T{scene.frame}_{generated}", {
        "datetime": _iso(scene.start),
        "platform": f"Sentinel-2{letter}",
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "eo:cloud_cover": scene.cloud,
        "sat:orbit_state": "descending",
        "sat:relative_orbit": relative,
        "s2:mgrs_tile": scene.frame,
        "s2:product_type": "S2MSI2A",
        "s2:datatake_id": f"G{satellite}_{taken}_{scene.orbit:06d}_N{version}",
        "s2:datatake_type": "INS-NOBS",
        "s2:datastrip_id": f"{satellite}_OPER_MSI_L2A_DS_2BPS_{generated}_S{strip}_N{version}",
        "s2:product_uri": f"{satellite}_MSIL2A_{taken}_N{baseline:04d}_{orbit}_T{scene.frame}_{generated}.SAFE",
        "s2:generation_time": _iso(result),
        "s2:processing_baseline": version,
    }


def _describe_landsat(scene: SimulatedScene) -> tuple[str, dict[str, Any]]:
    number = scene.mission.key[-1]
    path, row = scene.frame[:3], scene.frame[3:]
    day = compact(scene.start)[:8]
    category = "T2" if scene.luck < 0.12 else "T1"
    date = scene.start.astype("datetime64[s]").item()
    return f"LC0{number}_L2SP_{scene.frame}_{day}_02_{category}", {
        "datetime": _iso(scene.start),
        "platform": scene.mission.platform,
        "instruments": ["oli", "tirs"],
        "gsd": 30,
        "eo:cloud_cover": -1 if scene.cloud is None else round(scene.cloud, 2),
        "view:off_nadir": 0,
        "landsat:wrs_type": "2",
        "landsat:wrs_path": path,
        "landsat:wrs_row": row,
        "landsat:scene_id": f"LC{number}{scene.frame}{date:%Y%j}LGN00",
        "landsat:correction": "L2SP",
        "landsat:collection_number": "02",
        "landsat:collection_category": category,
    }


def _describe_enmap(scene: SimulatedScene) -> tuple[str, dict[str, Any]]:
    result = scene.end + np.timedelta64(int(86_400 * (0.6 + scene.luck)), "s")
    datatake = int(scene.frame)
    version = "01.04.02"
    name = f"ENMAP01-____L2A-DT{datatake:010d}_{compact(scene.start)}Z_{scene.number:03d}_V010402_{compact(result)}Z"
    return name, {
        "datetime": _iso(scene.start, "s"),
        "start_datetime": _iso(scene.start),
        "end_datetime": _iso(scene.end),
        "created": _iso(result),
        "platform": "enmap",
        "version": version,
        "eo:cloud_cover": None if scene.cloud is None else f"{scene.cloud:.0f}",
        "eo:instrument": "HSI",
        "sat:orbit_state": "DESCENDING",
        "processing:level": "L2A",
        "enmap:datatakeID": f"{datatake:010d}",
        "enmap:tileID": f"{scene.number:02d}",
        "enmap:processingDate": _iso(result),
    }


def _describe_emit(scene: SimulatedScene) -> tuple[str, dict[str, Any]]:
    date = scene.start.astype("datetime64[s]").item()
    midnight = scene.start.astype("datetime64[D]").astype("datetime64[ms]")
    revolution = int((scene.start - midnight) / np.timedelta64(1, "s") // scene.mission.period_s) + 1
    # The scene's own start second is in the name, so that a number counted per orbit cannot make two scenes of one name
    name = f"EMIT_L2A_RFL_001_{compact(scene.start)}_{date:%y%j}{revolution:02d}_{scene.number:03d}"
    return name, {
        "datetime": _iso(scene.start, "s"),
        "start_datetime": _iso(scene.start, "s"),
        "end_datetime": _iso(scene.end, "s"),
        "platform": "ISS",
        "instruments": ["EMIT Imaging Spectrometer"],
        "eo:cloud_cover": None if scene.cloud is None else round(scene.cloud),
    }


DESCRIBERS: Mapping[str, Callable[[SimulatedScene], tuple[str, dict[str, Any]]]] = {
    "sentinel-2": _describe_sentinel_2,
    "landsat-8-9": _describe_landsat,
    "enmap": _describe_enmap,
    "emit": _describe_emit,
}
