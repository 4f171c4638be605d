"""Limits of timeouts and retries of requests to catalogues; ``http.HttpSession`` retries within them."""

from __future__ import annotations

from dataclasses import dataclass

MAX_ANSWER_MB = 32
"""Default of ``scan.max_answer_mb``. A page of 250 items with all their assets has 8 MB (recorded: Earth Search, Sentinel-2)."""
_TIMEOUTS_AN_ANSWER = 5
"""A whole answer, from looking up the host to its last byte, may take this many times ``timeout_seconds``."""


@dataclass(frozen=True)
class Patience:
    """Timeouts and retries before a scan fails."""

    timeout_seconds: float = 60.0
    """Timeout for the connection, and for the next bytes of an answer."""
    retries: int = 5
    """How often a request is repeated after a temporary failure."""
    backoff_seconds: float = 1.0
    """Upper bound of the first random wait; it doubles with each retry."""
    deadline_seconds: float = 7200.0
    """Longest time of one scan at one provider, waits included."""
    max_answer_mb: float = MAX_ANSWER_MB
    """Largest answer that is read, decompressed, in MB (2**20 bytes)."""

    @property
    def max_answer_bytes(self) -> int:
        """``max_answer_mb`` in bytes."""
        return int(self.max_answer_mb * (1 << 20))

    @property
    def answer_seconds(self) -> float:
        """Longest time of one answer, from connecting to its last byte."""
        return _TIMEOUTS_AN_ANSWER * self.timeout_seconds

    @property
    def timeouts(self) -> tuple[float, float]:
        """Connect and read timeouts in seconds, as requests takes them."""
        return min(10.0, self.timeout_seconds), self.timeout_seconds
