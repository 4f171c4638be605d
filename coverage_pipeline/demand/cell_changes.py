"""What changed for cells between two months: a layer, and the area of each kind of change."""

from __future__ import annotations

import numpy as np
import xarray as xr

from coverage_pipeline.cube.schema import CoverageError
from coverage_pipeline.demand.changes import CHANGE_KINDS
from coverage_pipeline.grid.cell_area import cell_km2
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import Month

CELL_CHANGES = ("same", *CHANGE_KINDS[:6])
"""Flag meanings of the layer, from 0. A cell out of scope in both months is the same."""


def change_layer(ds: xr.Dataset, sensor: str, before: Month, after: Month) -> xr.DataArray:
    """Kind of change of each cell between two months, ``(lat, lon)`` or ``(cells,)``, uint8 with the flags of ``CELL_CHANGES``.

    ``ds`` is a cube as ``open_coverage`` gives it. Raises ``CoverageError`` for a sensor or month that it does not have.
    """
    fields = []
    for month in (before, after):
        try:
            one = ds["deficit"].sel(sensor=sensor, time=month.to_datetime64())
        except KeyError:
            raise CoverageError(f"the cube has no {sensor} {month}: build it first") from None
        fields.append(one.values.astype(np.float64))
    was, now = fields
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(was) & ~np.isnan(now)
        kinds = {
            "opened": known & (was == 0) & (now > 0),
            "closed": known & (was > 0) & (now == 0),
            "better": known & (now > 0) & (now < was),
            "worse": known & (was > 0) & (now > was),
            "became known": np.isnan(was) & ~np.isnan(now),
            "became not known": ~np.isnan(was) & np.isnan(now),
        }
    layer = np.zeros(was.shape, np.uint8)
    for kind, where in kinds.items():
        layer[where] = CELL_CHANGES.index(kind)
    dims = [str(dim) for dim in ds["deficit"].dims if dim not in ("sensor", "time")]
    coords = {name: ds[name] for name in ("lat", "lon", "cell_ids") if name in ds.coords}
    meanings = " ".join(kind.replace(" ", "_") for kind in CELL_CHANGES)
    words = f"change of {sensor} from {before} to {after}"
    attrs = {"long_name": words, "flag_values": list(range(len(CELL_CHANGES))), "flag_meanings": meanings}
    return xr.DataArray(layer, dims=dims, coords=coords, name="change", attrs=attrs)


def change_areas(layer: xr.DataArray, grid: GridSpec) -> dict[str, float]:
    """Area of each kind of change, km² on the ellipsoid, without what stayed the same."""
    area = np.broadcast_to(cell_km2(grid), grid.shape)
    return {kind: float(area[layer.values == CELL_CHANGES.index(kind)].sum()) for kind in CELL_CHANGES[1:]}
