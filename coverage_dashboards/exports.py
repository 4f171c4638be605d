"""What the map shows, as files: GeoTIFF, CSV, a picture, and the Python that gives the same array."""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from coverage_dashboards import palette, words
from coverage_dashboards.choices import View
from coverage_dashboards.coding import NOT_KNOWN, class_colours, coding_of, colours_of, hatch_of
from coverage_dashboards.escape import plain
from coverage_dashboards.fields import CHANGE, Field, Limits, classes_of
from coverage_dashboards.hexmap import HexMap
from coverage_dashboards.outlines import NAMES, outlines
from coverage_dashboards.viewport import OUT_OF_SCOPE, Picture, Range, fit_extent, viewport
from coverage_dashboards.worldmap import op_of, ranks_of
from coverage_pipeline.cube.schema import METRICS
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.geometry.bbox import BBox
from coverage_pipeline.grid.spec import GridSpec
from coverage_pipeline.months import UTC

MOST_ROWS = 500_000
"""Of a CSV."""
BESIDE = -1.0
"""Value of a GeoTIFF where nothing is wanted, or where no scene is of known cloud; of maps of classes it is a class of its own."""


class ExportTooLarge(PlannerError):
    """More than a file of that kind should hold."""


@dataclass(frozen=True)
class Window:
    """Cells of a grid: rows from the south, and columns from the west, across the antimeridian where need be."""

    rows: slice
    columns: NDArray[np.int64]
    west: float
    """Degrees, of the westernmost column's edge."""

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """These cells of a field, ``(rows, columns)``."""
        return values[self.rows][:, self.columns]


def window_of(grid: GridSpec, box: BBox | None) -> Window:
    """The cells that meet a box of degrees (west > east: across the antimeridian); all of them where there is none.

    Raises ``ExportTooLarge`` where there is no such cell.
    """
    rows, columns = grid.shape
    west, south, east, _ = grid.bounds
    if box is None:
        return Window(slice(0, rows), np.arange(columns), west)
    step = grid.resolution
    span = box[2] - box[0] if box[2] > box[0] else box[2] - box[0] + 360
    bottom, top = max(0, math.floor((box[1] - south) / step)), min(rows, math.ceil((box[3] - south) / step))
    first, last = math.floor((box[0] - west) / step), math.ceil((box[0] + span - west) / step)
    numbers = np.arange(first, last)
    if east - west > 360 - 1e-9:
        numbers = numbers[:columns]
        start = west + first * step
    else:
        numbers = numbers[(numbers >= 0) & (numbers < columns)]
        start = west + float(numbers[0]) * step if numbers.size else west
    if top <= bottom or not numbers.size:
        raise ExportTooLarge("the map shows nothing of the cube: move it, or export everything")
    return Window(slice(bottom, top), numbers % columns, start)


def geotiff(field: Field, grid: GridSpec, box: BBox | None, said: str) -> bytes:
    """A cloud-optimised GeoTIFF in EPSG:4326: band 1 the value, band 2 how many months of the window are known.

    Numbers are float32: NaN, the no-data value, where it is not known, ``BESIDE`` where nothing is wanted. Classes are uint8, their names
    in the band's tags; *unknown* is an action like the others, so that there is no no-data value to hide it. ``said`` is the description.
    """
    import rasterio
    from rasterio.io import MemoryFile
    from rasterio.transform import from_origin

    window, step = window_of(grid, box), grid.resolution
    values, known = window.of(field.values)[::-1], window.of(field.known_months)[::-1]
    transform = from_origin(window.west, grid.bounds[1] + window.rows.stop * step, step, step)
    names = classes_of(field.metric)
    dtype = "uint8" if names else "float32"
    data = np.where(values == OUT_OF_SCOPE, BESIDE, values) if not names else values
    profile = {"driver": "COG", "height": data.shape[0], "width": data.shape[1], "count": 2, "dtype": dtype, "crs": "EPSG:4326"}
    profile |= {"transform": transform, "nodata": None if names else np.nan, "compress": "DEFLATE", "overview_resampling": "nearest"}
    with rasterio.Env(), MemoryFile() as memory:
        with memory.open(**profile) as tiff:
            tiff.write(data.astype(dtype), 1)
            tiff.write(known.astype(dtype), 2)
            tiff.set_band_description(1, _title(field))
            tiff.set_band_description(2, "known months")
            tiff.update_tags(TIFFTAG_IMAGEDESCRIPTION=plain(said, 1000), months=str(field.months))
            meaning = {f"class_{k}": name for k, name in enumerate(names)} or {"unit": field.unit, "beside": f"{BESIDE:g}"}
            tiff.update_tags(1, **meaning)
        return bytes(memory.read())


def csv(field: Field, grid: GridSpec, box: BBox | None) -> bytes:
    """A row a cell of the window: middle, value (empty where it is not known), and how many months are known.

    Raises ``ExportTooLarge`` for more than ``MOST_ROWS``.
    """
    window = window_of(grid, box)
    count = (window.rows.stop - window.rows.start) * window.columns.size
    if count > MOST_ROWS:
        raise ExportTooLarge(f"{count:,} cells are more than the {MOST_ROWS:,} rows of a CSV: zoom in, or take the GeoTIFF")
    values, known = window.of(field.values).ravel(), window.of(field.known_months).ravel()
    lat, lon = (axis.ravel() for axis in np.meshgrid(grid.lats[window.rows], grid.lons[window.columns], indexing="ij"))
    return _csv_of(field, {"lat": np.round(lat, 9), "lon": np.round(lon, 9)}, values, known)


def hex_csv(field: Field, hexes: HexMap, box: BBox | None) -> bytes:
    """The same of the H3 cells that the window shows: a row a cell, its id first, its middle as H3 has it.

    Raises ``ExportTooLarge`` for more than ``MOST_ROWS``.
    """
    window = window_of(hexes.grid, box)
    cells, point = np.unique(window.of(hexes.cells), return_index=True)
    if cells.size > MOST_ROWS:
        raise ExportTooLarge(f"{cells.size:,} cells are more than the {MOST_ROWS:,} rows of a CSV: zoom in, or take the GeoTIFF")
    values, known = (window.of(whole).ravel()[point] for whole in (field.values, field.known_months))
    return _csv_of(field, hexes.described(cells), values, known)


def _csv_of(field: Field, place: Mapping[str, NDArray[Any]], values: NDArray[np.float32], known: NDArray[np.uint8]) -> bytes:
    names = np.array([*classes_of(field.metric)], dtype=object)
    if len(names):
        shown = pd.Series(names[values.astype(np.int64)])
    else:
        shown = pd.Series(values.astype(object))
        shown[np.isnan(values)] = ""
        shown[values == OUT_OF_SCOPE] = words.beside_in_words(field)
    table = pd.DataFrame({**place, field.metric: shown, "known_months": known, "months": field.months})
    return str(table.to_csv(index=False)).encode()


def python_code(view: View, location: str, box: BBox | None) -> str:
    """Lines that give the array of the map: the same cells, sensors, months and aggregation."""
    query = view.query()
    where = "" if box is None else f",\n    bbox=({', '.join(f'{degrees:.4f}' for degrees in box)})"
    return f'''"""What the coverage planner's map shows: {plain(METRICS[view.metric].title)}."""

from datetime import date

from coverage_pipeline.coverage import CoverageQuery, open_coverage, select

cube = open_coverage({location!r})
query = CoverageQuery(
    layer={query.layer!r},
    metric={query.metric!r},
    sensors={list(query.sensors)!r},
    t0={_date(query.t0)},
    t1={_date(query.t1)},
    aggregation={query.aggregation!r}{where},
)
values = select(cube, query)  # NaN where not known; values.known_months says how many months are
print(values)
'''


def _date(day: dt.date) -> str:
    return f"date({day.year}, {day.month}, {day.day})"


WIDTH, HEIGHT = 1600, 900
"""Pixels of the picture's map."""


def picture(field: Field, limits: Limits, said: str, extent: BBox, view: tuple[Range, Range] | None, *, dark: bool = False) -> bytes:
    """A PNG of the map with caption, legend and date; ``view`` in metres of Web Mercator, None: all of it."""
    around = palette.theme(dark)
    shown = view or fit_extent(extent, WIDTH, HEIGHT)
    part = viewport(field.values, *shown, WIDTH, HEIGHT, op_of(field.metric), ranks_of(field.metric), extent)
    image = Image.new("RGB", (WIDTH, HEIGHT + 190), around.page)
    if part is not None:
        pixels = colours(part, field, limits, dark)[::-1]
        across, up = WIDTH / (shown[0][1] - shown[0][0]), HEIGHT / (shown[1][1] - shown[1][0])
        corner = (round((part.x_range[0] - shown[0][0]) * across), round((shown[1][1] - part.y_range[1]) * up) + 60)
        image.paste(Image.fromarray(pixels), corner)
    draw = ImageDraw.Draw(image)
    for name in NAMES:
        _draw_lines(draw, *outlines(name, *shown, WIDTH), shown, around.line)
    draw.rectangle((0, 0, WIDTH, 60), fill=around.page)
    draw.rectangle((0, HEIGHT + 60, WIDTH, HEIGHT + 190), fill=around.page)
    _write(draw, (20, 18), said, 20, around.ink)
    _draw_legend(draw, field, limits, dark)
    date = f"Drawn {dt.datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    _write(draw, (20, HEIGHT + 160), date, 16, around.quiet_ink)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def colours(part: Picture, field: Field, limits: Limits, dark: bool) -> NDArray[np.uint8]:
    """RGB of a picture's values, as the browser colours them: ``(rows, columns, 3)``."""
    coding = coding_of(field)
    table = np.array([ImageColor.getrgb(colour) for colour in colours_of(coding, field, limits, dark)], np.uint8)
    return table[coding.encode(part.values, np.zeros(part.values.shape, np.uint8), hatch_of(part)) // coding.span]


def _draw_lines(draw: ImageDraw.ImageDraw, x: NDArray[np.float32], y: NDArray[np.float32], shown: tuple[Range, Range], colour: str) -> None:
    (left, right), (bottom, top) = shown
    across = (x - left) / (right - left) * WIDTH
    down = (top - y) / (top - bottom) * HEIGHT + 60
    ends = np.flatnonzero(np.isnan(across))
    for begin, end in zip([0, *(ends + 1)], [*ends, len(across)], strict=True):
        if end - begin > 1:
            draw.line(np.column_stack([across[begin:end], down[begin:end]]).ravel().tolist(), fill=colour, width=1)


def _draw_legend(draw: ImageDraw.ImageDraw, field: Field, limits: Limits, dark: bool) -> None:
    around = palette.theme(dark)
    top = HEIGHT + 76
    names = classes_of(field.metric)
    if names:
        titles = words.ACTION_TITLES if field.metric == "action" else {name: name.capitalize() for name in names}
        for k, (name, colour) in enumerate(zip(names, class_colours(field.metric, dark), strict=True)):
            if name in titles:
                stripe = around.stripe if name in NOT_KNOWN else None
                _swatch(draw, (20 + k % 5 * 310, top + k // 5 * 34), colour, _with_share(titles[name], name, field), around.ink, stripe)
        return
    _write(draw, (20, top - 4), words.legend_title(field), 17, around.ink)
    ramp = palette.ramp(field.metric, dark)
    for k in range(400):
        colour = ramp[k * len(ramp) // 400]
        draw.line((20 + k, top + 24, 20 + k, top + 42), fill=colour)
    ends = (words.number(limits.low), ("≥ " if limits.above else "") + words.number(limits.high))
    _write(draw, (20, top + 48), ends[0], 16, around.ink)
    _write(draw, (400, top + 48), ends[1], 16, around.ink)
    _swatch(draw, (480, top + 22), around.unknown, "not known", around.ink, around.stripe)
    if beside := words.beside_in_words(field):
        _swatch(draw, (680, top + 22), around.out_of_scope, beside, around.ink)


def _with_share(title: str, name: str, field: Field) -> str:
    share = field.shares[name]
    return f"{title} ({words.percent(share.of_scope)})" if share.of_scope else f"{title} ({share.cells:,} cells)"


def _swatch(draw: ImageDraw.ImageDraw, at: tuple[int, int], colour: str, text: str, ink: str, stripe: str | None = None) -> None:
    draw.rectangle((*at, at[0] + 20, at[1] + 20), fill=colour, outline=ink)
    if stripe is not None:
        for k in range(6, 36, 6):  # as the hatch of the map
            draw.line((at[0] + min(k, 19), at[1] + max(k - 19, 1), at[0] + max(k - 19, 1), at[1] + min(k, 19)), fill=stripe)
    _write(draw, (at[0] + 30, at[1]), text, 16, ink)


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: str) -> None:
    draw.text(at, plain(text), fill=ink, font=ImageFont.load_default(size))


def _title(field: Field) -> str:
    return "change of the gap" if field.metric == CHANGE else METRICS[field.metric].title
