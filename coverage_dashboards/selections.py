"""Choices of rows that are too long for an address, kept under a short id while the server runs."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence

MOST_KEPT = 1_000
MOST_ROWS = 20_000
"""Of one choice; a longer one is not kept. Each row takes eight bytes and some."""

_kept: OrderedDict[str, frozenset[int]] = OrderedDict()
_guard = threading.Lock()


def keep_selection(keys: Collection[str]) -> str:
    """The short id of a choice of rows by key; empty for one that is too long to be kept."""
    if len(keys) > MOST_ROWS:
        return ""
    marks = sorted(_mark(key) for key in keys)
    name = hashlib.sha256(b"".join(mark.to_bytes(8, "big") for mark in marks)).hexdigest()[:12]
    with _guard:
        _kept[name] = frozenset(marks)
        _kept.move_to_end(name)
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    return name


def selected(name: str, keys: Sequence[str]) -> list[str] | None:
    """Those of the keys that a choice of before has; None where the choice is not kept (any more)."""
    with _guard:
        marks = _kept.get(name)
        if marks is None:
            return None
        _kept.move_to_end(name)
    return [key for key in keys if _mark(key) in marks]


def _mark(key: str) -> int:
    """Eight bytes that stand for a key: of 20,000 two are the same once in a hundred thousand million choices."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
