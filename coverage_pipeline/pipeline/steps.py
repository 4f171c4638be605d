"""The steps of a partition, in an order in which each finds what it needs."""

from __future__ import annotations

from typing import Literal

Step = Literal[
    "availability", "holdings", "availability_stats", "matchup", "holdings_stats", "target_stats", "coverage", "gap", "backlog", "summary"
]
STEPS: tuple[Step, ...] = (
    "availability", "holdings", "availability_stats", "matchup", "holdings_stats", "target_stats", "coverage", "gap", "backlog", "summary",
)  # fmt: skip
"""In an order in which each finds what it needs."""
GRIDDING_STEPS: tuple[Step, ...] = ("availability_stats", "matchup", "holdings_stats", "coverage", "gap")
"""Steps that make the cube of the files of scenes and holdings, without asking a catalogue or the source of the holdings."""
CUBE_STEPS: tuple[Step, ...] = ("coverage", "gap", "backlog", "summary")
"""Steps that write the cube, or read what these wrote."""
REDONE_STEPS: tuple[Step, ...] = ("target_stats", "coverage", "backlog", "summary")
"""Steps that read several files of one partition, which another build may have replaced meanwhile."""
HOLDINGS_STEPS: tuple[Step, ...] = ("holdings", "matchup", "holdings_stats", "target_stats", "backlog", "summary")
"""Steps that a build without holdings leaves out: it writes none of their files."""
