"""Rate limit of requests to one host, shared by all sessions of this process."""

from __future__ import annotations

import threading
import time


class Pace:
    """Spaces the requests to one host. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def turn(self, per_second: float | None) -> float:
        """Reserve the next request; returns the seconds to wait for it. None: no limit."""
        with self._lock:
            now = time.monotonic()
            own = max(now, self._next)
            self._next = own + (1 / per_second if per_second else 0.0)
            return own - now

    def hold(self, seconds: float) -> None:
        """Block all requests to the host for this time, as the provider asked."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


_PACES: dict[str, Pace] = {}
_PACES_LOCK = threading.Lock()


def pace_of_host(host: str) -> Pace:
    """The pace of a host, the same object for all sessions."""
    with _PACES_LOCK:
        return _PACES.setdefault(host, Pace())
