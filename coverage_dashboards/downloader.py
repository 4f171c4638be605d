"""Saves a file that the server made in the browser's folder of downloads, as soon as it is made.

Panel's FileDownload lost: what it saves is made while everybody's page waits (its callback runs on the server's loop), or takes a second
click once it is made (panel 1.10, ``widgets/misc.py``).
"""

from __future__ import annotations

import base64
from typing import Any

import param
from panel.custom import JSComponent

LARGEST = 64 << 20
"""Bytes of a file that goes through the page's websocket."""

_ESM = """
export function render({model}) {
  model.on('change:file', () => {
    const {name, data, type} = model.file
    if (!name) return
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0))
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([bytes], {type}))
    link.download = name
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 10000)
    model.send_msg({saved: name})
  })
  return document.createElement('span')
}
"""


class Downloader(JSComponent):  # type: ignore[misc]
    """Has no look of its own; ``save`` gives a file to the browser."""

    file = param.Dict(default={})

    _esm = _ESM

    def __init__(self, **params: Any) -> None:
        super().__init__(width=0, height=0, margin=0, **params)

    def save(self, name: str, data: bytes, media_type: str = "application/octet-stream") -> None:
        """Let the browser save ``data`` as ``name``; raises ``ValueError`` for more than ``LARGEST`` bytes."""
        if len(data) > LARGEST:
            raise ValueError(f"{name} has {len(data):,} bytes, and the page passes on at most {LARGEST:,}: use the command line")
        self.file = {"name": name, "data": base64.b64encode(data).decode(), "type": media_type}

    def _handle_msg(self, _: Any) -> None:
        self.file = {}  # the browser has it: the page keeps nothing of it, and the same file may be asked for again
