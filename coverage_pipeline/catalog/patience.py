"""How long a catalogue is waited for."""

from __future__ import annotations

from dataclasses import dataclass

MAX_ANSWER_MB = 32
"""Default of ``scan.max_answer_mb``. A page of 250 items with all their assets has 8 MB (recorded: Earth Search, Sentinel-2)."""
_TIMEOUTS_AN_ANSWER = 5
"""A whole answer, from looking up the host to its last byte, may take so many times ``timeout_seconds``."""


@dataclass(frozen=True)
class Patience:
    """How long and how often a catalogue is asked before a scan fails."""

    timeout_seconds: float = 60.0
    """For the connection, and for the next bytes of an answer."""
    retries: int = 5
    """How often one request is repeated."""
    backoff_seconds: float = 1.0
    """Bound of the first wait; it doubles with each."""
    deadline_seconds: float = 7200.0
    """The longest that one provider is asked for one scan, waits included."""
    max_answer_mb: float = MAX_ANSWER_MB
    """The largest answer that is read, decompressed, in MB (2**20 bytes)."""

    @property
    def max_answer_bytes(self) -> int:
        """The same in bytes."""
        return int(self.max_answer_mb * (1 << 20))

    @property
    def answer_seconds(self) -> float:
        """The longest that one answer may take from connecting to its last byte."""
        return _TIMEOUTS_AN_ANSWER * self.timeout_seconds

    @property
    def timeouts(self) -> tuple[float, float]:
        """Seconds to connect and to wait for the next bytes, as requests takes them."""
        return min(10.0, self.timeout_seconds), self.timeout_seconds
