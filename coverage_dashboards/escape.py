"""The one place where text from outside becomes part of the page.

Sensor keys and titles, attributes of the cube, errors and scan reports are written by others. Panel's panes show what they are given
as HTML (``Typography`` and ``Alert`` even undo an escape before they set it), so text reaches the page by two functions alone: ``html``
for a pane that shows HTML (``panel.pane.HTML``), and ``plain`` for a widget's option or label, which shows characters as they are.
"""

from __future__ import annotations

import html as _html
import unicodedata

LONGEST = 600
"""Characters of one text. A page is no place for a whole stack of errors."""

_SPACES = "\t\n\r\v\f\x85\u2028\u2029"
# Marks that turn the direction of text around, or that are invisible: format characters, private ones, surrogates and controls.
_UNSEEN = ("Cc", "Cf", "Co", "Cs", "Cn")


def plain(text: object, longest: int = LONGEST) -> str:
    """Text in one line without control characters, invisible ones and marks that reverse its direction; cut where it is too long."""
    one_line = "".join(" " if c in _SPACES else c for c in str(text)[: 4 * longest])
    seen = "".join(c for c in one_line if unicodedata.category(c) not in _UNSEEN)
    words = " ".join(seen.split())
    return words if len(words) <= longest else words[: longest - 1].rstrip() + "…"


def html(text: object, longest: int = LONGEST) -> str:
    """The same text for a place that shows HTML: every character is shown, and none is markup."""
    return _html.escape(plain(text, longest), quote=True)
