"""HTTP answers: parse them, and classify failures as worth a retry or final."""

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
"""Parsed JSON may take this many times ``max_answer_mb``: ``[[],[],…`` takes 25 times its own size."""
NO_ADDRESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)


class TooLate(Exception):
    """One answer exceeded its deadline, though each of its chunks came in time."""


class Cancelled(Exception):
    """The session was cancelled, because another window failed for good: no more requests are sent."""


class RetryableAnswer(Exception):
    """A failed request that may succeed when repeated."""

    def __init__(
        self,
        message: str,
        label: str,
        kind: type[CatalogError],
        *,
        wait: float | None = None,
        tries: int | None = None,
        narrower_may_help: bool = True,
    ) -> None:
        """``wait``: seconds that the provider asks to wait. ``tries``: number of attempts, which overrides the caller's."""
        super().__init__(message)
        self.message, self.label, self.kind, self.wait, self.tries = message, label, kind, wait, tries
        self.narrower_may_help = narrower_may_help


class TooLarge(Exception):
    """An answer is larger than the limit."""


@dataclass(frozen=True)
class FetchedAnswer:
    """An answer that passed all checks."""

    content: Any
    """Parsed JSON."""
    headers: Mapping[str, str]
    url: str


def cause(error: BaseException) -> str:
    """The innermost reason of a failed request. urllib3 puts it behind the whole address, where an excerpt would cut it off."""
    inner = error.args[0] if error.args else error
    if isinstance(inner, HTTPError) and inner.args:
        return excerpt(str(getattr(inner, "reason", None) or inner.args[-1]))
    return excerpt(str(getattr(inner, "reason", None) or error))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``Retry-After`` (RFC 9110, 10.2.3: a number of seconds or a date); None without a usable value."""
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
    """Parse JSON with orjson, else with Python's parser, which accepts NaN and lone surrogates; raises ``ValueError``."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            return json.loads(content)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def dict_of(value: Any) -> dict[str, Any]:
    """A JSON value that should be an object; empty where it is none."""
    return value if isinstance(value, dict) else {}


def dicts_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON value that should be a list of them."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def fits_in_memory(content: bytes, most: int) -> bool:
    """Whether the parsed JSON takes at most ``most`` bytes, at about 64 bytes per list or object and 32 per other value."""
    opened = content.count(b"[") + content.count(b"{")
    return 64 * opened + 32 * (content.count(b",") + opened) <= most


def final_error(state: tenacity.RetryCallState) -> RetryableAnswer:
    """The error of the latest attempt."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, RetryableAnswer)
    return error


def error_text(content: bytes) -> str:
    """The message of an error answer: the message field of its JSON, else the start of its text."""
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
    message = next((answer[name] for name in ("detail", "description", "message") if isinstance(answer.get(name), str)), None)
    return message or text
