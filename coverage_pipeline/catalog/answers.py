"""What an HTTP answer is: readable, worth another try, or an error to tell the user."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
import requests
import tenacity
from urllib3.exceptions import HTTPError

from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.months import UTC
from coverage_pipeline.redaction import excerpt

SERVER_ERRORS = (500, 502, 503, 504)
TIMES_IN_MEMORY = 10
"""JSON may take so many times ``max_answer_mb`` once it is parsed: ``[[],[],…`` takes 25 times its own size."""
NO_ADDRESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)


class TooLate(Exception):
    """The deadline of one answer is over, though each of its bytes came in time."""


class Cancelled(Exception):
    """Another window of the scan failed for good: nothing more is asked."""


class RetryableAnswer(Exception):
    """An answer, or the lack of one, that may be better next time."""

    def __init__(
        self,
        announced: str,
        label: str,
        kind: type[CatalogError],
        *,
        wait: float | None = None,
        tries: int | None = None,
        narrower_may_help: bool = True,
    ) -> None:
        """``wait`` is what the provider asks for, in seconds; ``tries`` is how often that is worth asking, whatever the caller wants."""
        super().__init__(announced)
        self.said, self.label, self.kind, self.wait, self.tries = announced, label, kind, wait, tries
        self.narrower_may_help = narrower_may_help


class TooLarge(Exception):
    """An answer that would fill the memory; the text says how large it is."""


@dataclass(frozen=True)
class FetchedAnswer:
    """A checked answer."""

    content: Any
    """The JSON."""
    headers: Mapping[str, str]
    url: str


def cause(error: BaseException) -> str:
    """Why there is no answer. urllib3 says it after the whole address, where an excerpt no longer reaches."""
    inner = error.args[0] if error.args else error
    if isinstance(inner, HTTPError) and inner.args:
        return excerpt(str(getattr(inner, "reason", None) or inner.args[-1]))
    return excerpt(str(getattr(inner, "reason", None) or error))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``Retry-After`` asks for (RFC 9110, 10.2.3: a number of seconds or a date)."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return max(0.0, (when - dt.datetime.now(UTC)).total_seconds())


def parsed_json(content: bytes) -> Any:
    """JSON as the fast parser reads it, else as Python's, which takes NaN and half characters, too; raises ``ValueError``."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            return json.loads(content)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def fits_in_memory(content: bytes, most: int) -> bool:
    """Whether JSON will take no more than so many bytes as Python's objects: about 64 each list or object, 32 each other value."""
    opened = content.count(b"[") + content.count(b"{")
    return 64 * opened + 32 * (content.count(b",") + opened) <= most


def final_error(state: tenacity.RetryCallState) -> RetryableAnswer:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, RetryableAnswer)
    return error


def error_text(content: bytes) -> str:
    """The words of an error answer: what its JSON says where it is JSON, else its text."""
    text = content[:2000].decode(errors="replace")
    try:
        answer = parsed_json(content)
    except ValueError:
        return text
    if not isinstance(answer, dict):
        return text
    errors = answer.get("errors")
    if isinstance(errors, list) and errors:
        return "; ".join(
            " ".join(map(str, e["errors"])) if isinstance(e, dict) and isinstance(e.get("errors"), list) else str(e) for e in errors
        )
    words = next((answer[name] for name in ("detail", "description", "message") if isinstance(answer.get(name), str)), None)
    return words or text
