"""Opens a page without a browser, ends its session as the server does, and says who still keeps it: ``python -m … CUBE`` prints nothing
where it is let go. A process of its own, as a server is: tests of before leave threads and tables behind that may keep anything.
"""

from __future__ import annotations

import gc
import reprlib
import sys
import time
import weakref
from types import FrameType, ModuleType
from typing import Any

import panel as pn
from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from panel.io.document import _cleanup_doc
from panel.io.session import generate_session
from panel.io.state import set_curdoc

from coverage_dashboards.fields import open_cube
from coverage_dashboards.people import Person
from coverage_dashboards.planner import Planner
from coverage_pipeline.settings.access import AccessSettings


def _holders(held: object) -> str:
    """Who keeps an object: the way up from it to a module or frame, one line for each step; where none is found soon, what was met."""
    came_from: dict[int, tuple[object, int]] = {id(held): (held, 0)}
    waiting = [held]
    own = {id(came_from), id(waiting), id(sys._getframe()), id(sys._getframe(1))}
    ends = time.monotonic() + 60  # each step looks through all that there is
    while waiting and time.monotonic() < ends:
        at = waiting.pop(0)
        found = gc.get_referrers(at)
        own.add(id(found))
        for above in found:
            if id(above) in own or id(above) in came_from:
                continue
            came_from[id(above)] = (above, id(at))
            waiting.append(above)
            if isinstance(above, ModuleType | FrameType) or (isinstance(above, dict) and "__name__" in above):
                lines, step = [], id(above)
                while step:
                    one, step = came_from[step]
                    lines.append(f"{type(one).__module__}.{type(one).__qualname__} {reprlib.repr(one)}")
                return "\n".join(lines)
    return "kept, and the way up is long: " + ", ".join(sorted({type(one).__qualname__ for one, _ in came_from.values()}))


def come_and_go(cube: str) -> str:
    """Who keeps the page of a session that ended; empty where nobody does."""

    shown = open_cube(cube)  # before: zarr's own thread keeps the context in which it was first asked
    made: list[Any] = []

    def make(document: Document) -> None:
        with set_curdoc(document):
            planner = Planner(shown, {}, Person("me", AccessSettings()))
            planner.page.server_doc(document)
            made.append(weakref.ref(planner))

    session = generate_session(Application(FunctionHandler(make)))
    (gone,) = made
    assert gone() is not None
    context = session.document.session_context
    with set_curdoc(session.document):
        pn.state._on_load(None)  # as a browser does
    for callback in session.document.session_destroyed_callbacks:
        callback(context)
    with set_curdoc(session.document):
        _cleanup_doc(session.document)
    pn.state._browsers.pop(session.document, None)  # what the server's own end of a session does beside
    pn.state._locations.pop(session.document, None)
    del session, context, callback
    ends = time.monotonic() + 30
    while gone() is not None and time.monotonic() < ends:
        gc.collect()
        time.sleep(0.1)
    kept = gone()
    return "" if kept is None else _holders(kept)


if __name__ == "__main__":
    sys.stdout.write(come_and_go(sys.argv[1]))
