"""Draws the figures of kernel.md from what the kernel really gives: ``.venv/bin/python docs/make_kernel_figures.py``.

The row of the first figure is swept here with the kernel's own functions, one edge after the other, and must come to the ranges that
the kernel gives; so a change of the kernel either leaves the figures true, changes them, or stops this script.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from coverage_pipeline.geometry.footprints import normalise_footprints
from coverage_pipeline.geometry.wkb import ragged_from_wkb
from coverage_pipeline.grid import kernel
from coverage_pipeline.grid.footprint_arrays import FootprintArrays
from coverage_pipeline.grid.spec import CoverageRule, GridSpec
from coverage_pipeline.grid.statistics import cell_statistics

FOLDER = Path(__file__).resolve().parent
RULES: tuple[CoverageRule, ...] = get_args(CoverageRule)
REGION = (2.0, 44.0, 14.0, 51.0)
ROW = 3
"""The row of the region that is shown: 47° to 48°."""

FOOTPRINT = shapely.Polygon(
    [(3.0, 44.5), (9.6, 45.6), (12.7, 47.55), (10.9, 50.4), (9.8, 50.1), (9.05, 46.7), (7.2, 46.45), (7.7, 49.6), (4.6, 49.2)]
)

# Okabe and Ito's colours, which colour-blind eyes tell apart.
COLOUR = {"touch": "#56B4E9", "center": "#E69F00", "fraction": "#009E73"}
EDGE, GAP, INK, FAINT, GRID_LINE = "#D55E00", "#0072B2", "#1a1a1a", "#595959", "#c8c8c8"

HALO = {"stroke": "#ffffff", "stroke_width": 2, "stroke_linejoin": "round", "paint_order": "stroke"}
"""Around words that stand on lines."""

Ranges = list[tuple[int, int]]


def grid_of(rule: CoverageRule) -> GridSpec:
    return GridSpec(1.0, extent=REGION, rule=rule, min_fraction=0.5)


def footprints() -> FootprintArrays:
    """The footprint as the kernel takes it, the way that the pipeline goes."""
    usable, _ = normalise_footprints(np.array([FOOTPRINT], dtype=object))
    return FootprintArrays.of(*ragged_from_wkb(pa.array(shapely.to_wkb(usable), pa.binary())))


def ranges_of(rule: CoverageRule) -> list[Ranges]:
    """First and last columns, by row of the region: what the kernel gives."""
    grid = grid_of(rule)
    first_row, end_row, first_column, _ = grid.window
    rows: list[Ranges] = [[] for _ in range(first_row, end_row)]
    for _, row, first, last in kernel.covered_ranges(*footprints().flat, np.zeros(1, np.int64), grid.kernel_grid()).tolist():
        rows[row - first_row].append((first - first_column, last - first_column))
    return rows


@dataclass(frozen=True)
class Edge:
    """An edge, or what a row leaves of it: from its lower to its upper end."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class SweptRow:
    """What the sweep does in one row, in degrees and in columns of the region."""

    edges: list[Edge]
    """Clipped to the row, in the order of their left ends."""
    gaps: list[tuple[float, float]]
    """From one extent to the next, inside the footprint."""
    crossings: list[float]
    first_centres: list[int]
    """The first column whose centre is not left of each crossing."""
    shares: NDArray[np.float64]


def swept(row: int) -> SweptRow:
    """One row of the region by the kernel's own functions; raises AssertionError where its ranges are others."""
    grid = grid_of("touch")
    lat_edges, lon_edges, lats, lons, window, _, _ = grid.kernel_grid()
    at, west = row + window[0], window[2]
    bottom, top = lat_edges[at], lat_edges[at + 1]
    found = footprints()
    clipped: list[Edge] = []
    crossings: list[tuple[float, int]] = []
    extents, flags = np.empty((len(found.coords), 2)), np.empty((len(found.coords), 2), np.bool_)
    shares = np.zeros((len(lons) + 1, 2), np.int64)
    for (ax, ay), (bx, by) in zip(found.coords[:-1].tolist(), found.coords[1:].tolist(), strict=True):
        sign = found.signs[0]
        if ay > by:
            ax, ay, bx, by, sign = bx, by, ax, ay, -sign
        if ay == by or by <= bottom or ay >= top:
            continue
        slope = (bx - ax) / (by - ay)
        low = ax if ay >= bottom else kernel._crossing(ax, ay, bx, by, slope, bottom, lon_edges)
        high = bx if by <= top else kernel._crossing(ax, ay, bx, by, slope, top, lon_edges)
        extents[len(clipped)] = min(low, high), max(low, high)
        middle = 0.5 * (bottom + top)
        flags[len(clipped)] = (ay <= middle) != (by <= middle), ax != bx
        if (ay <= lats[at]) != (by <= lats[at]):
            x = kernel._crossing(ax, ay, bx, by, slope, lats[at], lons)
            crossings.append((x, int(kernel._first_centre(x, lons))))
        y0, y1 = (max(ay, bottom) - bottom) / (top - bottom), (min(by, top) - bottom) / (top - bottom)
        kernel._add_share(low, y0, high, y1, -sign, lon_edges, shares)
        clipped.append(Edge(low, max(ay, bottom), high, min(by, top)))
    n = len(clipped)
    order = sorted(range(n), key=lambda i: extents[i, 0])
    gaps, inside, reached = [], False, -np.inf
    for i in order:
        if inside and extents[i, 0] > reached:
            gaps.append((float(reached), float(extents[i, 0])))
        reached = max(reached, extents[i, 1])
        inside ^= bool(flags[i, 0])
    crossings.sort()
    edges = [clipped[i] for i in order]
    within = shares[west : window[3]] / kernel.SHARE_UNITS
    share = within[:, 0] + np.concatenate([[0.0], np.cumsum(within[:-1, 1])])

    buffer = np.empty((64, 3), np.int64)
    by_rule = {"touch": kernel._touched(at, extents, flags, n, window, lon_edges, buffer, 0)}
    _assert_same("touch", row, buffer, by_rule["touch"], west)
    starts = np.zeros_like(extents)
    starts[: len(crossings), 0] = [first for _, first in crossings]
    _assert_same("center", row, buffer, kernel._centred(at, starts, flags, len(crossings), window, buffer, 0), west)
    limit = grid_of("fraction").kernel_grid()[-1]
    _assert_same("fraction", row, buffer, kernel._covered(at, west, window[3] - 1, window, limit, shares, buffer, 0), west)
    return SweptRow(edges, gaps, [x for x, _ in crossings], [first - west for _, first in crossings], share)


def _assert_same(rule: CoverageRule, row: int, buffer: NDArray[np.int64], found: int, west: int) -> None:
    here = [(int(first - west), int(last - west)) for _, first, last in buffer[:found]]
    assert here == ranges_of(rule)[row], f"the sweep of kernel-row.svg does not do what the kernel does: {rule}, {here}"


# --- SVG ---


def _attributes(attributes: dict[str, Any]) -> str:
    return "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())


def _n(value: float) -> str:
    """A length in pixels, to a tenth."""
    return f"{value:.1f}".removesuffix(".0").replace("-0.0", "0")


def rect(x: float, y: float, width: float, height: float, fill: str, **more: Any) -> str:
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" fill="{fill}"{_attributes(more)}/>'


def line(x0: float, y0: float, x1: float, y1: float, stroke: str, **more: Any) -> str:
    return f'<line x1="{_n(x0)}" y1="{_n(y0)}" x2="{_n(x1)}" y2="{_n(y1)}" stroke="{stroke}"{_attributes(more)}/>'


def circle(x: float, y: float, r: float, fill: str, **more: Any) -> str:
    return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}" fill="{fill}"{_attributes(more)}/>'


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 12, fill: str = INK, **more: Any) -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}" font-size="{size}" fill="{fill}"{_attributes(more)}>{words}</text>'


def picture(width: int, height: int, title: str, description: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f"aria-labelledby=\"title desc\" font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">"
    )
    words = [f'<title id="title">{title}</title>', f'<desc id="desc">{description}</desc>']
    return "\n".join([head, *words, rect(0, 0, width, height, "#ffffff"), *parts, "</svg>"]) + "\n"


def outline() -> NDArray[np.float64]:
    return shapely.get_coordinates(FOOTPRINT)


def words_of(ranges: Ranges) -> str:
    return " and ".join(f"{first}..{last}" for first, last in ranges)


def kernel_row() -> str:
    """One row of the sweep."""
    here = swept(ROW)
    west, south, east, _ = REGION
    columns, cell, left = int(east - west), 57, 142
    right = left + columns * cell
    bottom = south + ROW

    def x(lon: float) -> float:
        return left + (lon - west) * cell

    top_of_row, height = 80, 126

    def y(lat: float) -> float:
        return top_of_row + height - (lat - bottom) * height

    parts = [
        text(20, 28, "One row of the sweep", size=16, font_weight="bold"),
        text(
            20, 48, f"Row {ROW} of a region at 1°, from {bottom:g}° to {bottom + 1:g}° N. {len(here.edges)} edges reach into it.", size=13
        ),
        text(20, 72, "column", fill=FAINT),
        *(text(x(west + k + 0.5), 72, str(k), "middle", fill=FAINT) for k in range(columns)),
    ]
    # the row itself
    middle = y(bottom + 0.5)
    ring = " ".join(f"{_n(x(lon))},{_n(y(lat))}" for lon, lat in outline()[:-1].tolist())
    parts += [
        f'<clipPath id="row"><rect x="{left}" y="{top_of_row}" width="{columns * cell}" height="{height}"/></clipPath>',
        f'<polygon points="{ring}" fill="#F0E442" fill-opacity="0.55" clip-path="url(#row)"/>',
    ]
    end = 520
    parts += [line(x(west + k), top_of_row, x(west + k), end, GRID_LINE) for k in range(columns + 1)]
    parts += [line(left, at, right, at, INK, stroke_width=1.5) for at in (top_of_row, top_of_row + height)]
    parts.append(line(left, middle, right, middle, FAINT, stroke_dasharray="5 4"))
    parts += [text(20, 100, f"row {ROW}", size=13, font_weight="bold"), text(20, 118, "edges 1 to 5,", fill=FAINT)]
    parts += [text(20, 134, "cut at its borders;", fill=FAINT), text(20, 150, "◆ where they cross", fill=FAINT)]
    parts += [text(20, 166, f"{bottom + 0.5:g}° N; ● centres", fill=FAINT), text(20, 182, "inside, ○ outside", fill=FAINT)]
    centred = {c for first, last in ranges_of("center")[ROW] for c in range(first, last + 1)}
    parts += [
        circle(x(west + k + 0.5), middle, 4.5, INK if k in centred else "#ffffff", stroke=INK, stroke_width=1.2) for k in range(columns)
    ]
    for edge in here.edges:
        parts.append(line(x(edge.x0), y(edge.y0), x(edge.x1), y(edge.y1), EDGE, stroke_width=4, stroke_linecap="round"))
    for lon in here.crossings:
        parts.append(_diamond(x(lon), middle))
    for number, edge in enumerate(here.edges, 1):
        # beside the edge, a third of the way up: clear of crossing and centres
        lat, lon = edge.y0 + 0.28 * (edge.y1 - edge.y0), edge.x0 + 0.28 * (edge.x1 - edge.x0)
        parts += _numbered(x(lon) + 18, y(lat), number)
    # touch
    at = 224
    parts += [text(20, at + 14, "touch", size=14, font_weight="bold"), text(20, at + 34, "extents of edges", fill=FAINT)]
    spans = [(x(min(edge.x0, edge.x1)), x(max(edge.x0, edge.x1))) for edge in here.edges]
    for number, (a, b) in enumerate(spans, 1):
        overlaps = number < len(spans) and b > spans[number][0]  # the next one: then a lane lower, its number on the left
        y0 = at + (38 if overlaps else 24)
        parts.append(rect(a, y0, b - a, 11, EDGE))
        parts.append(text(a - 5, y0 + 10, str(number), "end") if overlaps else text(b + 5, y0 + 10, str(number)))
    parts.append(text(20, at + 62, "gaps inside", fill=FAINT))
    for a, b in here.gaps:
        parts.append(rect(x(a), at + 52, x(b) - x(a), 11, GAP))
    parts += _columns(at + 70, "touch", x, west)
    # center
    at = 332
    parts += [text(20, at + 14, "center", size=14, font_weight="bold"), text(20, at + 34, "first centre not", fill=FAINT)]
    parts.append(text(20, at + 49, "left of ◆", fill=FAINT))
    for k, (lon, first) in enumerate(zip(here.crossings, here.first_centres, strict=True)):
        a, b = x(lon), x(west + first + 0.5)
        inside = "from" if k % 2 == 0 else "up to"
        parts += [_diamond(a, at + 26), line(a, at + 26, b, at + 26, GAP, stroke_width=1.5), circle(b, at + 26, 4.5, INK)]
        parts.append(text(b, at + 46, f"{inside} {first}", "middle"))
    parts += _columns(at + 56, "center", x, west)
    # fraction
    at = 426
    base, tall = at + 64, 46
    parts += [text(20, at + 14, "fraction 0.5", size=14, font_weight="bold"), text(20, at + 34, "share of the cell,", fill=FAINT)]
    parts.append(text(20, at + 49, "limit dashed", fill=FAINT))
    for k, share in enumerate(here.shares.tolist()):
        if share > 1e-9:
            parts.append(rect(x(west + k) + 8, base - share * tall, cell - 16, share * tall, COLOUR["fraction"], fill_opacity=0.45))
    parts += [line(left, base, right, base, INK), line(left, base - tall / 2, right, base - tall / 2, INK, stroke_dasharray="5 4")]
    for k, share in enumerate(here.shares.tolist()):
        if share > 1e-9:
            parts.append(text(x(west + k + 0.5), base - share * tall - 4, f"{share:.2f}", "middle", **HALO))
    parts += _columns(base + 8, "fraction", x, west)
    description = (
        f"The footprint within one grid row, cut into {len(here.edges)} edges. By the rule touch it covers columns "
        f"{words_of(ranges_of('touch')[ROW])}, by center {words_of(ranges_of('center')[ROW])}, by a fraction of one half "
        f"{words_of(ranges_of('fraction')[ROW])}."
    )
    return picture(840, end + 18, "One row of the kernel's sweep, by rule", description, parts)


def _diamond(x: float, y: float) -> str:
    points = " ".join(f"{_n(x + dx)},{_n(y + dy)}" for dx, dy in ((0, -6), (6, 0), (0, 6), (-6, 0)))
    return f'<polygon points="{points}" fill="{GAP}" stroke="#ffffff" stroke-width="1"/>'


def _numbered(x: float, y: float, number: int) -> list[str]:
    return [circle(x, y, 9, "#ffffff", stroke=EDGE, stroke_width=1.5), text(x, y + 4, str(number), "middle")]


def _columns(y: float, rule: CoverageRule, x: Any, west: float) -> list[str]:
    """The columns that a rule gives, as one bar a range."""
    ranges = ranges_of(rule)[ROW]
    parts = [text(20, y + 14, "columns covered")]
    for first, last in ranges:
        a, b = x(west + first), x(west + last + 1)
        parts.append(rect(a + 1, y, b - a - 2, 20, COLOUR[rule], fill_opacity=0.75, stroke=INK))
        parts.append(text((a + b) / 2, y + 14.5, f"{first}..{last}", "middle"))
    return parts


TITLES: dict[CoverageRule, str] = {
    "touch": "touch: interiors meet",
    "center": "center: ● lies inside",
    "fraction": "fraction: 50 % or more",
}


def kernel_cells() -> str:
    """The cells by rule, and what a row of them adds to the difference array."""
    west, south, east, north = REGION
    columns, rows, cell = int(east - west), int(north - south), 20
    pitch, top = columns * cell + 34, 88
    base = top + rows * cell
    parts = [
        text(20, 28, "One footprint, three rules", size=16, font_weight="bold"),
        text(
            20,
            48,
            f"The same cells of 1°; the frame marks row {ROW}, the one of the other figure. Numbers: share of a cell that is cut, %.",
            size=13,
        ),
    ]
    counts = []
    for panel, rule in enumerate(RULES):
        left = 48 + panel * pitch
        covered = ranges_of(rule)
        mask = dense(rule)
        counts.append(f"{int(mask.sum())} by {rule}")
        parts.append(text(left, top - 12, f"{TITLES[rule]}, {int(mask.sum())} cells", size=13, font_weight="bold"))
        for row, column in np.argwhere(mask).tolist():
            parts.append(rect(left + column * cell, base - (row + 1) * cell, cell, cell, COLOUR[rule], fill_opacity=0.6))
        parts += [line(left + k * cell, top, left + k * cell, base, GRID_LINE) for k in range(columns + 1)]
        parts += [line(left, top + k * cell, left + columns * cell, top + k * cell, GRID_LINE) for k in range(rows + 1)]
        ring = " ".join(f"{_n(left + (lon - west) * cell)},{_n(base - (lat - south) * cell)}" for lon, lat in outline()[:-1].tolist())
        parts.append(f'<polygon points="{ring}" fill="none" stroke="{INK}" stroke-width="1.8"/>')
        for row in range(rows):
            shares = swept(row).shares if rule == "fraction" else np.zeros(columns)
            for column in range(columns):
                x, y = left + (column + 0.5) * cell, base - (row + 0.5) * cell
                if rule == "center":
                    parts.append(circle(x, y, 2.4, INK if mask[row, column] else "#ffffff", stroke=INK, stroke_width=0.8))
                elif rule == "fraction" and 0.005 <= shares[column] < 0.995:
                    parts.append(text(x, y + 4, f"{100 * shares[column]:.0f}", "middle", **HALO))
        y = base - (ROW + 1) * cell
        parts.append(rect(left - 2, y - 1, columns * cell + 4, cell + 2, "none", stroke=EDGE, stroke_width=2.5))
        parts += _differences(left, base + 34, cell, columns, covered[ROW], mask[ROW])
    parts += [text(42, base - k * cell + 4, f"{south + k:g}°", "end", fill=FAINT) for k in range(rows + 1)]
    parts += [text(42, base + 48, "add", "end"), text(42, base + 70, "sum", "end")]
    parts.append(text(20, base + 102, f"add: what row {ROW} brings to the difference array, which has a place more than columns.", size=13))
    parts.append(text(20, base + 122, "sum: its running sum, made once at the end: the scenes of each cell. Here there is one.", size=13))
    description = (
        f"A slanted footprint with a notch covers {', '.join(counts)}. In row {ROW} every range adds 1 at its first column and takes 1 off "
        "behind its last; a running sum gives the count of each cell."
    )
    return picture(48 + 3 * pitch, base + 140, "The cells of one footprint by rule, and a row of the difference array", description, parts)


def dense(rule: CoverageRule) -> NDArray[np.bool_]:
    """The cells of the region that the statistics have; raises AssertionError where they are not those of the ranges."""
    grid = grid_of(rule)
    found = cell_statistics(np.array([FOOTPRINT], dtype=object), day=[1], cloud=[5.0], clear=[True], grid=grid)
    mask = np.zeros(grid.shape, np.bool_)
    mask.reshape(-1)[found.cell] = found.scenes == 1
    again = np.zeros(grid.shape, np.bool_)
    for row, ranges in enumerate(ranges_of(rule)):
        for first, last in ranges:
            again[row, first : last + 1] = True
    assert (mask == again).all(), rule
    return mask


def _differences(left: float, y: float, cell: int, columns: int, ranges: Ranges, covered: NDArray[np.bool_]) -> list[str]:
    """A row of the difference array, with its one place more, and its running sum."""
    change = np.zeros(columns + 1, np.int64)
    for first, last in ranges:
        change[first] += 1
        change[last + 1] -= 1
    total = np.cumsum(change)[:columns]
    assert (total == covered).all()
    parts = []
    for k, value in enumerate(change.tolist()):
        marked = {1: "#d7ecf9", -1: "#fbe0cc", 0: "#ffffff"}[value]
        parts.append(rect(left + k * cell, y, cell, 20, marked, stroke=GRID_LINE))
        if value:
            parts.append(text(left + (k + 0.5) * cell, y + 14, {1: "+1", -1: "−1"}[value], "middle", font_weight="bold"))
    for k, value in enumerate(total.tolist()):
        parts.append(text(left + (k + 0.5) * cell, y + 36, str(value), "middle", fill=INK if value else FAINT))
    return parts


def figures() -> dict[str, str]:
    """Every figure's text by its file's name."""
    return {"kernel-row.svg": kernel_row(), "kernel-cells.svg": kernel_cells()}


def main() -> None:
    for name, svg in figures().items():
        (FOLDER / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
