"""The root of every error that a person using the planner can act on."""

from __future__ import annotations


class PlannerError(Exception):
    """A failure with a cause a person can act on: its message says what was being done, what was found and what to set."""
