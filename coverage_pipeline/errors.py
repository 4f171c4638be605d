"""The root of every error that a person using the planner can act on."""

from __future__ import annotations


class PlannerError(Exception):
    """A failure with a cause a person can act on: its message says what was being done, what was found and what to set."""

    may_pass: bool = False
    """Whether the same call may succeed later though nobody changes anything: a catalogue that does not answer, a lock that is held. A
    wrong setting, a refused login or a cube of another grid waits for a person."""
