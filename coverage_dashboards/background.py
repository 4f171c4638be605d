"""Work off the server's loop: while one planner's question is answered, everybody else's page goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import panel as pn

from coverage_pipeline.errors import PlannerError

log = logging.getLogger(__name__)

WORKERS = 6
"""Threads of the process that answer. Most of their time goes to compiled code and files, which let others run."""
_workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="answer")


class Background:
    """The questions of one session. Of each kind only the newest answer is shown: an older one that comes late is dropped.

    Answers wait until the browser has loaded the page (``begin``): a callback that a worker adds while Bokeh makes the session may be lost
    (seen with Bokeh 3.10: between its copy of the callbacks and its listening for more, the page said "Working" for ever).
    """

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._guard = threading.Lock()
        self._waiting: list[Callable[[], None]] | None = []

    def begin(self) -> None:
        """The browser has loaded the page: show what was answered meanwhile, and from now on at once."""
        with self._guard:
            waiting, self._waiting = self._waiting or [], None
        for show in waiting:
            show()

    def run[T](self, kind: str, work: Callable[[], T], show: Callable[[T], None], fail: Callable[[str], None]) -> None:
        """Do ``work`` on a worker, then ``show`` its answer, or ``fail`` with words, with the document's lock held.

        Without a browser (in tests, and while the page is made) all of it is done at once.
        """
        with self._guard:
            number = self._asked[kind] = self._asked.get(kind, 0) + 1
        document = pn.state.curdoc
        if document is None or document.session_context is None:
            _told(kind, _done(work), show, fail)
            return

        def tell(future: Future[T]) -> None:
            def show_it() -> None:
                if self._asked.get(kind) == number:
                    with pn.io.hold(document, policy="collect", freeze=True):  # sent together, in the order of the changes
                        _told(kind, future, show, fail)

            with self._guard:
                if self._waiting is not None:
                    self._waiting.append(show_it)
                    return

            async def on_the_loop() -> None:  # Bokeh would give a plain function to a worker, and each drawing would wait for its turn
                show_it()

            if document.session_context is not None:
                document.add_next_tick_callback(on_the_loop)

        _workers.submit(work).add_done_callback(tell)

    def forget(self, kind: str) -> None:
        """Show no answer of this kind that is still to come."""
        with self._guard:
            self._asked[kind] = self._asked.get(kind, 0) + 1


def later(milliseconds: int, act: Callable[[], None]) -> bool:
    """Have something done after a while, with the document's lock held; False, and nothing is, where there is no session of a browser."""
    document = pn.state.curdoc
    if document is None or document.session_context is None:
        return False
    document.add_timeout_callback(act, milliseconds)
    return True


def _done[T](work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future


def _told(kind: str, future: Future[Any], show: Callable[[Any], None], fail: Callable[[str], None]) -> None:
    error = future.exception()
    if error is None:
        show(future.result())
    elif isinstance(error, PlannerError):
        log.warning("%s: %s", kind, error)
        fail(str(error))
    else:
        log.error("%s failed", kind, exc_info=error)
        fail("Something went wrong on the server, which its log tells. Try again, or reload the page.")
