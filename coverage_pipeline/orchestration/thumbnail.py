"""A small PNG map of a partition for the Dagster UI: a few kB, for they live in the event log."""

from __future__ import annotations

import base64
import io

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from coverage_pipeline.geometry.outlines import land
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.grid.touch import touched

_WIDTH = 360
_NOTHING, _LAND = (238, 241, 245), (214, 219, 226)
# Viridis sampled at five places (matplotlib, CC0), light to dark reversed so that more is darker.
_RAMP = np.array([(253, 231, 37), (94, 201, 98), (33, 145, 140), (59, 82, 139), (68, 1, 84)], float)


def _land() -> NDArray[np.bool_]:
    return touched(np.array([land()], dtype=object), GridSpec(1.0))


def map_png(table: pa.Table, column: str, grid: GridSpec) -> bytes:
    """The column of a cell table as a world map, 360 × 180 pixels, the largest value of each pixel; more is darker."""
    lats, lons = grid.centres_of(table["cell"].to_numpy())
    values = table[column].to_numpy().astype(np.float64)
    y = np.minimum(((lats + 90) * _WIDTH / 360).astype(int), _WIDTH // 2 - 1)
    x = np.minimum(((lons + 180) * _WIDTH / 360).astype(int), _WIDTH - 1)
    field = np.zeros((_WIDTH // 2, _WIDTH))
    np.maximum.at(field, (y, x), values)
    picture = np.where(_land()[..., None], _LAND, _NOTHING).astype(np.uint8)
    is_covered = field > 0
    if is_covered.any():
        shade = np.sqrt(field[is_covered] / field.max()) * (len(_RAMP) - 1)
        low = np.minimum(shade.astype(int), len(_RAMP) - 2)
        part = (shade - low)[:, None]
        picture[is_covered] = (_RAMP[low] * (1 - part) + _RAMP[low + 1] * part).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(picture[::-1]).convert("P", palette=Image.Palette.ADAPTIVE, colors=32).save(out, "PNG", optimize=True)
    return out.getvalue()


def map_markdown(table: pa.Table, column: str, grid: GridSpec, title: str) -> str:
    """The map as Markdown with the picture inside, as Dagster shows it."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(map_png(table, column, grid)).decode()})"
