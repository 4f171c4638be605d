"""Colours, for light and dark pages: every ramp can be told apart by colour-blind eyes, and *not known* looks like no
number.

Ramps come from ColorBrewer and matplotlib (through bokeh) and Peter Kovesi's perceptually uniform set (colorcet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import bokeh.palettes
import colorcet

Kind = Literal["count", "diverging", "age", "score"]
STEPS = 256

KINDS: dict[str, Kind] = {
    "deficit": "diverging",
    "unmet_supply": "diverging",
    "days_since_last_held": "age",
    "priority_score": "score",
}
"""Metrics that are not counts."""


@dataclass(frozen=True)
class Theme:
    """What surrounds and explains the numbers."""

    page: str
    """Behind the map, where the world ends."""
    ink: str
    """Text."""
    quiet_ink: str
    line: str
    """Coastlines; borders are the same, thinner."""
    unknown: str
    stripe: str
    """Hatch over *unknown*, which no colour of a value has: it is told apart without any sense of colour."""
    out_of_scope: str


LIGHT = Theme(
    page="#ffffff", ink="#1c2530", quiet_ink="#4c5866", line="#2b3540", unknown="#8d8d8d", stripe="#646464", out_of_scope="#ccd8e4"
)
DARK = Theme(
    page="#121212", ink="#eef2f6", quiet_ink="#b6c0cb", line="#f2f5f8", unknown="#8a8a8a", stripe="#5c5c5c", out_of_scope="#2f4357"
)

# The first three are Okabe and Ito's (https://jfly.uni-koeln.de/color/). Their green and purple become the grey of *unknown* for eyes
# without green cones, so *met* is light and *none* is strong: every two actions are 20 apart in CIELAB for simulated eyes (the tests).
ACTION_COLOURS: dict[str, str] = {
    "ingest": "#0072b2",
    "check": "#f0c929",
    "task": "#d55e00",
    "none": "#bc16f3",
    "met": "#5cd67a",
}


def theme(dark: bool) -> Theme:
    """The surroundings of a light or a dark page."""
    return DARK if dark else LIGHT


def hatched(around: Theme) -> str:
    """What *unknown* looks like, as a CSS background."""
    return f"repeating-linear-gradient(135deg,{around.stripe} 0 1px,{around.unknown} 1px 4px)"


def action_colours(actions: Sequence[str], dark: bool) -> list[str]:
    """One colour a flag value."""
    around = theme(dark)
    known = ACTION_COLOURS | {"unknown": around.unknown, "out_of_scope": around.out_of_scope}
    return [known[name] for name in actions]


CHANGE_COLOURS: dict[str, str] = {
    "opened": "#b2182b",
    "worse": "#ef8a62",
    "better": "#67a9cf",
    "closed": "#2166ac",
    "became known": "#f0c929",
    "became not known": "#6a3d9a",
}
"""Diverging RdBu of ColorBrewer for less and more, safe for colour-blind eyes; yellow and purple for what is known."""


def change_colours(changes: Sequence[str], dark: bool) -> list[str]:
    """One colour a kind of change."""
    around = theme(dark)
    same = "#3a3a3a" if dark else "#f1f1ea"
    known = CHANGE_COLOURS | {"same": same, "not known": around.unknown, "out of scope": around.out_of_scope}
    return [known[name] for name in changes]


def _between(colours: Sequence[str], start: float = 0.0, stop: float = 1.0) -> list[str]:
    """``STEPS`` colours between two places of a ramp, mixed linearly between its own."""
    stops = [tuple(int(c[k : k + 2], 16) for k in (1, 3, 5)) for c in colours]
    out = []
    for step in range(STEPS):
        at = (start + (stop - start) * step / (STEPS - 1)) * (len(stops) - 1)
        low = min(int(at), len(stops) - 2)
        mix = [round(a + (b - a) * (at - low)) for a, b in zip(stops[low], stops[low + 1], strict=True)]
        out.append("#{:02x}{:02x}{:02x}".format(*mix))
    return out


@cache
def ramp(metric: str, dark: bool) -> list[str]:
    """``STEPS`` colours for a metric, from its lowest to its highest value.

    Deficit and unmet supply are diverging ramps centred at 0; neither can be negative, so the half above 0 is what
    there is. Days since last held run the other way than counts: the longer ago, the more it stands out.
    """
    match KINDS.get(metric, "count"), dark:
        case "count", False:
            return _between(bokeh.palettes.YlGnBu9[::-1])
        case "count", True:
            return _between(bokeh.palettes.Viridis256)
        case "diverging", False:
            return _between(bokeh.palettes.PuOr11, 0.5, 1.0)
        case "diverging", True:
            return _between(colorcet.palette["bkr"], 0.5, 1.0)
        case "age", False:
            return _between(bokeh.palettes.Inferno256[::-1], 0.0, 0.9)
        case "age", True:
            return _between(bokeh.palettes.Inferno256, 0.12, 1.0)
        case "score", False:
            return _between(colorcet.palette["CET_L18"])
        case _:
            return _between(colorcet.palette["fire"], 0.12, 0.95)
