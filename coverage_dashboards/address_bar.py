"""The browser's address bar: the page writes its view there, and hears when a planner goes back or forward.

Panel's own ``pn.state.location`` lost: it adds an entry of history for every change, whether a planner chose something or the page only
corrected an address, and it does not listen to ``popstate``, so that *back* changed the address and left the page as it was
(panel 1.10, ``models/location.ts``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

import param
from panel.custom import JSComponent

LONGEST_ADDRESS = 8_000
"""Characters. Browsers and proxies refuse longer addresses than this; the page's own have some hundred."""
MOST_KEYS = 50

_ESM = """
export function render({model}) {
  const write = () => {
    const {search, push} = model.wanted
    if (search == null || search === window.location.search) return
    const address = window.location.pathname + search + window.location.hash
    if (push) window.history.pushState({}, '', address)
    else window.history.replaceState({}, '', address)
  }
  model.on('change:wanted', write)
  window.addEventListener('popstate', () => model.send_msg({search: window.location.search}))
  model.send_msg({width: window.innerWidth})
  write()
  return document.createElement('span')
}
"""


def parameters_of(search: object) -> dict[str, list[str]] | None:
    """The keys and values of an address's query (``?layer=gap&…``); None where it is no query, too long, or has too many keys."""
    if not isinstance(search, str) or len(search) > LONGEST_ADDRESS:
        return None
    try:
        return parse_qs(search.removeprefix("?"), keep_blank_values=True, max_num_fields=MOST_KEYS)
    except ValueError:
        return None


class AddressBar(JSComponent):  # type: ignore[misc]
    """Writes queries into the browser's address, and calls ``travelled`` with the query that *back* or *forward* led to, and
    ``measured`` with the width of the page in pixels when it is there.
    """

    wanted = param.Dict(default={}, doc="The query to show as `search`, and as `push` whether it is a new entry of the history.")

    _esm = _ESM

    def __init__(self, travelled: Callable[[Any], None], measured: Callable[[int], None], **params: Any) -> None:
        super().__init__(**params)
        self._travelled, self._measured = travelled, measured

    def write(self, parameters: Mapping[str, str], *, push: bool) -> None:
        """Show these parameters: as a new entry of the history, or in place of the present one."""
        self.wanted = {"search": "?" + urlencode(parameters, safe=","), "push": push}

    def _handle_msg(self, message: Any) -> None:
        if isinstance(message, dict) and isinstance(width := message.get("width"), int):
            self._measured(width)
            return
        search = message.get("search") if isinstance(message, dict) else None
        # The browser shows it already; kept here so that the next choice is a change even where it leads to the same address as before.
        self.wanted = {"search": search if isinstance(search, str) else "", "push": False}
        self._travelled(search)
