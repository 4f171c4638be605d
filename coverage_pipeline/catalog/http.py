"""HTTP requests to one provider, with retries, a rate limit, size and time limits, and a check of every answer.

Temporary failures are retried: too many requests, an overloaded gateway, a broken connection, half a page, a maintenance page in HTML.
The wait is the one that the provider names, or random below a bound that doubles with each retry (full jitter,
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A permanent failure raises at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests
import tenacity
from urllib3.exceptions import HTTPError, ReadTimeoutError

from coverage_pipeline.catalog.answers import (
    NO_ADDRESS,
    SERVER_ERRORS,
    TIMES_IN_MEMORY,
    Cancelled,
    FetchedAnswer,
    RetryableAnswer,
    TooLarge,
    TooLate,
    cause,
    error_text,
    final_error,
    fits_in_memory,
    parsed_json,
    retry_after,
)
from coverage_pipeline.catalog.errors import CatalogError, CatalogUnavailable, CatalogUnreadable
from coverage_pipeline.catalog.pacing import pace_of_host
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.redaction import excerpt, host_of
from coverage_pipeline.storage.bounded_http import CHUNK, Exchange, bounded_session

LATER = "try again later, or name another source"
"""Advice for errors that the provider causes."""
_LONGEST_WAIT = 60.0
"""Upper bound of a random wait, seconds."""
_LONGEST_HOLD = 900.0
"""Longest time that a provider's ``Retry-After`` blocks other scans of this process, seconds."""
_UNREACHABLE_RETRIES = 2
"""Retries of a host that cannot be resolved or refuses connections: a build of many months should not wait long for each."""
_MOST_REDIRECTS = 5
_MOST_PATHS = 100
"""Most paths remembered as answered: an API has few, a static catalogue one per item."""


class HttpSession:
    """Requests of one scan to one provider. Thread-safe; counts requests, retries and bytes."""

    def __init__(
        self,
        host: str,
        profile: ProviderProfile,
        patience: Patience,
        fail: Callable[[type[CatalogError], str], CatalogError],
    ) -> None:
        """``fail`` creates an error that names the sensor, month, provider and collection."""
        self.host = host
        self.profile = profile
        self.patience = patience
        self._fail = fail
        self._pace = pace_of_host(host)
        self._ends = time.monotonic() + patience.deadline_seconds
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._answered: set[str] = set()
        self.requests = 0
        """Requests sent, retries included."""
        self.retried: Counter[str] = Counter()
        """Number of retries, by the fault of the previous answer."""
        self.bytes = 0
        """Bytes of all answers, decompressed."""
        self._running: set[Exchange] = set()
        self._session = bounded_session(netrc=profile.netrc, parallel=profile.parallel + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._session.close()

    def cancel(self) -> None:
        """Stop all requests: threads that send one or wait for an answer get ``Cancelled``."""
        self._cancelled.set()
        with self._lock:
            running = list(self._running)
        for exchange in running:
            exchange.end()

    def fetch(
        self,
        url: str,
        *,
        doing: str,
        params: Sequence[tuple[str, str]] | None = None,
        body: Any = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        check: Callable[[Any, Mapping[str, str]], object] | None = None,
        tries: int | None = None,
        hint: str = "",
    ) -> FetchedAnswer:
        """Fetch JSON, by default with POST if there is a ``body``, else with GET.

        ``doing`` describes the request in errors. ``check`` raises ``ValueError`` for an unusable answer, which is then requested again.
        ``tries`` limits the attempts (default: one and the retries). ``hint``: what the user should change, appended to errors.

        Raises ``CatalogUnavailable`` if the provider refuses or fails, ``CatalogUnreadable`` for an unusable answer, and ``Cancelled``.
        """
        most = tries if tries is not None else self.patience.retries + 1
        method = method or ("GET" if body is None else "POST")

        def stop(state: tenacity.RetryCallState) -> bool:
            error = final_error(state)
            return state.attempt_number >= (error.tries or most)

        def wait(state: tenacity.RetryCallState) -> float:
            error = final_error(state)
            bound = min(_LONGEST_WAIT, self.patience.backoff_seconds * 2 ** (state.attempt_number - 1))
            seconds = max(error.wait or 0.0, random.uniform(0, bound))  # noqa: S311 spreading load is no secret
            if error.wait is not None:
                # Blocks the other threads, but not longer than this scan: the provider may recover before the next one.
                self._pace.hold(min(error.wait, max(0.0, self._ends - time.monotonic()), _LONGEST_HOLD))
            return seconds

        def note(state: tenacity.RetryCallState) -> None:
            with self._lock:
                self.retried[final_error(state).label] += 1

        attempt = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableAnswer),
            stop=stop,
            wait=wait,
            before_sleep=note,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return attempt(self._once, url, method, params, body, headers, check, doing, hint)
        except RetryableAnswer as error:
            result = self._fail(error.kind, f"{error.message} ({doing}); {LATER}{f'; {hint}' if hint else ''}")
            result.narrower_may_help = error.narrower_may_help
            raise result from None  # the error of a library may contain the address with its key

    def _sleep(self, seconds: float) -> None:
        """Wait; raises ``CatalogUnavailable`` if the scan would exceed its deadline, ``Cancelled`` if it was cancelled."""
        if seconds > self._ends - time.monotonic():
            limit = f"scan.deadline_seconds = {self.patience.deadline_seconds:g}; run again to go on from here, or raise it"
            text = f"must be waited for {seconds:.0f} s more, past {limit}" if seconds > 1 else f"took longer than {limit}"
            raise self._fail(CatalogUnavailable, text)
        if self._cancelled.wait(max(seconds, 0)):
            raise Cancelled

    def _once(
        self,
        url: str,
        method: str,
        params: Sequence[tuple[str, str]] | None,
        body: Any,
        headers: Mapping[str, str] | None,
        check: Callable[[Any, Mapping[str, str]], object] | None,
        doing: str,
        hint: str,
    ) -> FetchedAnswer:
        status, content, answered, url = self._ask(url, method, params, body, headers, doing, hint)
        if status != 200 and not (status == 201 and method == "POST"):  # 201: an order was made
            message = f"answered {status}: {excerpt(error_text(content))}"
            # A 403 for a path that was answered before is no missing login: some providers mean "too many requests".
            throttled = status in self.profile.throttle_statuses or status == 429 or (status == 403 and _server_of(url) in self._answered)
            if throttled:  # narrower windows would only mean more requests
                tries, wait = self.patience.retries + 1, retry_after(answered)
                raise RetryableAnswer(message, str(status), CatalogUnavailable, wait=wait, tries=tries, narrower_may_help=False)
            if status in SERVER_ERRORS:
                raise RetryableAnswer(message, str(status), CatalogUnavailable, wait=retry_after(answered))
            refused = self._fail(CatalogUnavailable, f"{message} ({doing}); {hint or 'check the endpoint and collection'}")
            refused.status = status
            refused.may_pass = False  # a wrong login, address or collection stays wrong
            refused.narrower_may_help = status == 413  # a gateway may accept smaller parts
            raise refused
        content_type = answered.get("Content-Type", "no content type")
        if not fits_in_memory(content, TIMES_IN_MEMORY * self.patience.max_answer_bytes):
            raise self._too_large(f"of so many small values that it needs more than {TIMES_IN_MEMORY} times", doing, hint)
        try:
            answer = parsed_json(content)
        except ValueError:
            text = excerpt(content[:2000].decode(errors="replace"))
            raise RetryableAnswer(f"did not answer with JSON ({content_type}): {text!r}", "not JSON", CatalogUnreadable) from None
        if check is not None:
            try:
                check(answer, answered)
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
                raise RetryableAnswer(f"did not answer as asked: {excerpt(str(error))}", "unusable answer", CatalogUnreadable) from None
        if len(self._answered) < _MOST_PATHS:
            self._answered.add(_server_of(url))
        return FetchedAnswer(answer, answered, url)

    def _ask(
        self,
        url: str,
        method: str,
        params: Sequence[tuple[str, str]] | None,
        body: Any,
        headers: Mapping[str, str] | None,
        doing: str,
        hint: str,
    ) -> tuple[int, bytes, Mapping[str, str], str]:
        for _ in range(_MOST_REDIRECTS):
            self._sleep(self._pace.turn(self.profile.requests_per_second))
            with self._lock:
                self.requests += 1
            try:
                status, content, answered = self._send(url, method, params, body, headers)
            except (requests.ConnectTimeout, requests.ConnectionError) as error:
                unreachable = (
                    isinstance(error, requests.ConnectTimeout) or "NewConnectionError" in repr(error) or "NameResolution" in repr(error)
                )
                label = "no connection" if unreachable else "connection broken"
                tries = min(_UNREACHABLE_RETRIES, self.patience.retries) + 1 if unreachable else None
                text = f"could not be reached: {cause(error)}"
                raise RetryableAnswer(text, label, CatalogUnavailable, tries=tries, narrower_may_help=not unreachable) from None
            except TooLate:
                self._sleep(0)  # raises if the deadline of the scan is over
                text = f"gave no whole answer within {self.patience.answer_seconds:g} s"
                raise RetryableAnswer(text, "timeout", CatalogUnavailable) from None
            except (requests.Timeout, ReadTimeoutError):
                text = f"could not be reached: no answer within {self.patience.timeout_seconds:g} s"
                raise RetryableAnswer(text, "timeout", CatalogUnavailable) from None
            except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError, HTTPError) as error:
                raise RetryableAnswer(
                    f"broke off in the middle of its answer: {cause(error)}", "broken answer", CatalogUnavailable
                ) from None
            except TooLarge:
                raise self._too_large("of more than", doing, hint) from None
            except NO_ADDRESS as error:
                raise self._fail(
                    CatalogUnavailable, f"has an unusable address: {cause(error)} ({doing}); {hint or 'check the endpoint'}"
                ) from None
            except (requests.RequestException, OSError, ValueError) as error:
                raise RetryableAnswer(f"could not be reached: {cause(error)}", "broken answer", CatalogUnavailable) from None
            with self._lock:
                self.bytes += len(content)
            if not 300 <= status < 400 or "Location" not in answered:
                return status, content, answered, url
            url, params = self._redirected(url, method, status, answered, doing), None
        raise self._fail(CatalogUnavailable, f"redirects in a circle ({doing}); check the endpoint")

    def _redirected(self, url: str, method: str, status: int, answered: Mapping[str, str], doing: str) -> str:
        """The redirect target. It must stay on the same host, and must not turn a search into a plain GET."""
        try:
            target = urljoin(url, answered["Location"])
            host = urlsplit(target).netloc
        except ValueError:
            raise self._fail(CatalogUnavailable, f"redirects to an unusable address ({status}, {doing}); check the endpoint") from None
        downgrades = url.startswith("https:") and not target.startswith("https:")
        if downgrades or host != urlsplit(url).netloc or (method != "GET" and status not in (307, 308)):
            raise self._fail(
                CatalogUnavailable,
                f"redirects to {excerpt(host_of(target))} ({status}, {doing}); not followed: name that address as the endpoint if it is "
                "right",
            )
        return target

    def _send(
        self, url: str, method: str, params: Sequence[tuple[str, str]] | None, body: Any, headers: Mapping[str, str] | None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        exchange = Exchange(min(self.patience.answer_seconds, self._ends - time.monotonic()))
        with self._lock:
            self._running.add(exchange)
        try:
            if self._cancelled.is_set():
                raise Cancelled
            with exchange:
                answer = self._received(method, url, params, body, headers)
        except Exception:
            if self._cancelled.is_set():
                raise Cancelled from None
            if exchange.over:
                raise TooLate from None
            raise
        finally:
            with self._lock:
                self._running.discard(exchange)
        if self._cancelled.is_set():
            raise Cancelled
        if exchange.over:  # an answer without a length looks whole even if it was cut
            raise TooLate
        return answer

    def _received(
        self, method: str, url: str, params: Sequence[tuple[str, str]] | None, body: Any, headers: Mapping[str, str] | None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        most = self.patience.max_answer_bytes
        with self._session.request(
            method,
            url,
            params=params,
            json=body,
            headers=headers,
            timeout=self.patience.timeouts,
            allow_redirects=False,
            stream=True,
        ) as response:
            announced = response.headers.get("Content-Length", "")
            if announced.isdecimal() and len(announced) < 20 and int(announced) > most:
                raise TooLarge
            content = bytearray()
            # read1 returns what has arrived, at most CHUNK bytes after decompression, so that a compression bomb stays bounded.
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                if len(content) + len(chunk) > most:
                    content.clear()  # the traceback would keep the bytes alive
                    raise TooLarge
                content += chunk
            return response.status_code, bytes(content), response.headers

    def _too_large(self, size: str, doing: str, hint: str) -> CatalogError:
        refused = self._fail(
            CatalogUnavailable,
            f"gave an answer {size} scan.max_answer_mb = {self.patience.max_answer_mb:g} MB ({doing}); "
            f"raise it if such answers are expected{f'; {hint}' if hint else ''}",
        )
        refused.narrower_may_help = True
        return refused


def _server_of(url: str) -> str:
    return urlsplit(url).path
