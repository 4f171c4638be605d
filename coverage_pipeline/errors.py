"""The root of every error that a person using the planner can act on."""

from __future__ import annotations

from coverage_pipeline.redaction import redact


class PlannerError(Exception):
    """A failure with a cause a person can act on: its message says what was being done, what was found and what to set.

    The message never holds a secret of an address: every text is redacted here.
    """

    may_pass: bool = False
    """Whether the same call may succeed later without a change: a catalogue that does not answer, a lock that is held. A wrong setting, a
    refused login or a cube of another grid needs a person."""

    exit_code: int = 1
    """Of a command that ends with it: 1, something failed; 2, settings or arguments are wrong and nothing was started."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))
