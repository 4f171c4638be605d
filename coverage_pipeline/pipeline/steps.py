"""The steps of a partition, in an order in which each finds what it needs."""

from __future__ import annotations

from typing import Literal

Step = Literal["availability", "holdings", "availability_stats", "matchup", "holdings_stats", "coverage", "gap"]
STEPS: tuple[Step, ...] = ("availability", "holdings", "availability_stats", "matchup", "holdings_stats", "coverage", "gap")
"""In an order in which each finds what it needs."""
GRIDDING_STEPS = STEPS[2:]
"""Steps that ask neither a catalogue nor the source of the holdings: from the files on disk to the gap."""
CUBE_STEPS: tuple[Step, ...] = ("coverage", "gap")
HOLDINGS_STEPS: tuple[Step, ...] = ("holdings", "matchup", "holdings_stats")
"""Steps that a build without holdings leaves out: it writes none of their files."""
