"""Lets a figure follow the size of its place.

Bokeh lays a figure out again where the browser's window or a property of a layout changes. Where only a neighbour grows, such as a text
above it, the figure keeps its size, and the lowest part of the map lies hidden (Bokeh 3.10: ``LayoutDOMView`` watches the root alone).
"""

from __future__ import annotations

from panel.custom import JSComponent

_ESM = """
export function render({view}) {
  const layout = view.parent
  let seen = '', waiting = false
  const observer = new ResizeObserver(() => {
    const size = layout.el.clientWidth + 'x' + layout.el.clientHeight
    if (size === seen || waiting) return
    waiting = true
    requestAnimationFrame(() => {
      waiting = false
      seen = layout.el.clientWidth + 'x' + layout.el.clientHeight
      if (layout.el.clientHeight > 0) layout.invalidate_layout()
    })
  })
  observer.observe(layout.el)
  return document.createElement('span')
}
"""


class Fitting(JSComponent):  # type: ignore[misc]
    """Stands beside a figure in a layout, without a look of its own."""

    _esm = _ESM
