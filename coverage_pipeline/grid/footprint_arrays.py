"""Footprints as flat coordinate and offset arrays, the input of the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from coverage_pipeline.grid import kernel

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class FootprintArrays:
    """Checked flat arrays, as the kernel wants them."""

    coords: NDArray[np.float64]
    rings: NDArray[np.int64]
    geometry_rings: NDArray[np.int64]
    signs: NDArray[np.float64]
    polygons: NDArray[np.int64]
    geometries: NDArray[np.int64]

    @property
    def count(self) -> int:
        return len(self.geometry_rings) - 1

    @property
    def flat(self) -> tuple[NDArray[Any], ...]:
        return self.coords, self.rings, self.geometry_rings, self.signs

    def near(self, which: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """``flat`` of some of them, one after the other in memory."""
        some: tuple[NDArray[Any], ...] = kernel.gathered(*self.flat, which)
        return some

    @classmethod
    def of(
        cls,
        coords: NDArray[np.float64],
        ring_offsets: NDArray[np.integer[Any]],
        polygon_offsets: NDArray[np.integer[Any]],
        geometry_offsets: NDArray[np.integer[Any]],
    ) -> FootprintArrays:
        flat = np.ascontiguousarray(coords, dtype=np.float64)
        rings, polygons, geometries = (
            np.ascontiguousarray(offsets, dtype=np.int64) for offsets in (ring_offsets, polygon_offsets, geometry_offsets)
        )
        if flat.ndim != 2 or flat.shape[1] != 2:
            raise ValueError(f"coords must have shape (vertices, 2), found {flat.shape}")
        for name, offsets, end in (
            ("ring_offsets", rings, len(flat)),
            ("polygon_offsets", polygons, len(rings) - 1),
            ("geometry_offsets", geometries, len(polygons) - 1),
        ):
            if not len(offsets) or offsets[0] != 0 or offsets[-1] != end or (np.diff(offsets) < 0).any():
                raise ValueError(f"{name} must rise from 0 to {end}")
        # NaN fails too
        on_the_map = (np.abs(flat[:, 0]) <= 180) & (np.abs(flat[:, 1]) <= 90)
        if not on_the_map.all():
            at = int(np.argmin(on_the_map))
            owner = int(np.searchsorted(rings[polygons[geometries]], at, side="right")) - 1
            raise ValueError(
                f"a coordinate of geometry {owner} is not finite or lies beyond ±180, ±90 ({flat[at, 0]:g}, {flat[at, 1]:g}): "
                "pass footprints through normalise_footprints"
            )
        filled = np.diff(rings) > 0
        closed = (flat[rings[:-1][filled]] == flat[rings[1:][filled] - 1]).all(axis=1)
        if not closed.all():
            ring = np.flatnonzero(filled)[int(np.argmin(closed))]
            owner = int(np.searchsorted(polygons[geometries], ring, side="right")) - 1
            raise ValueError(f"a ring of geometry {owner} is open: its last vertex must repeat its first")
        areas = kernel.ring_areas(flat, rings)
        flat_one = kernel.without_area(areas, polygons, geometries)
        if flat_one >= 0:
            raise ValueError(f"geometry {flat_one} is empty or has no area: use normalise_footprints and drop what it rejects")
        return cls(flat, rings, polygons[geometries], kernel.ring_signs(areas, polygons), polygons, geometries)

    def objects(self) -> NDArray[np.object_]:
        """As shapely MultiPolygons."""
        shapes: NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON, self.coords, (self.rings, self.polygons, self.geometries)
        )
        return shapes


def ragged_arrays(
    geometries: NDArray[np.object_],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Coordinates, ring, polygon and geometry offsets, Polygons counting as MultiPolygons of one part."""
    footprints = np.asarray(geometries, dtype=object)
    if not len(footprints):
        start = np.zeros(1, np.int64)
        return np.empty((0, 2)), start, start, start
    polygonal = np.isin(shapely.get_type_id(footprints), (3, 6))
    if not polygonal.all():
        i = int(np.flatnonzero(~polygonal)[0])
        kind = "missing" if footprints[i] is None else f"a {footprints[i].geom_type}"
        raise ValueError(f"geometry {i} is {kind}, not a polygon: use normalise_footprints and drop what it rejects")
    _, coords, offsets = shapely.to_ragged_array(footprints, include_z=False)
    if len(offsets) == 2:
        offsets = (*offsets, np.arange(len(footprints) + 1))
    return coords, *offsets
