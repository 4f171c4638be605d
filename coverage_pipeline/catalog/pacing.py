"""The pace of requests to one host: at most so many a second, over all sessions of this process."""

from __future__ import annotations

import threading
import time


class Pace:
    """Spaces the requests to one host, for all threads of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def turn(self, per_second: float | None) -> float:
        """Seconds to wait for the turn that this call has taken."""
        with self._lock:
            now = time.monotonic()
            own = max(now, self._next)
            self._next = own + (1 / per_second if per_second else 0.0)
            return own - now

    def hold(self, seconds: float) -> None:
        """Hold all requests to the host for so many seconds: the provider asked for it."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


_PACES: dict[str, Pace] = {}
_PACES_LOCK = threading.Lock()


def pace_of_host(host: str) -> Pace:
    with _PACES_LOCK:
        return _PACES.setdefault(host, Pace())
