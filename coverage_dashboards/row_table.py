"""A table whose rows can be sorted, filtered, grouped, ticked, pointed at and opened, by pointer and by keyboard alike.

Panel's Tabulator lost: its rows cannot be reached by keyboard, it tells the server of clicks and not of pointing, its rows are sometimes
not drawn at first (panel issue 6932) and stay clickable when another room is open (6471), and it knows nothing of the page's theme. Text
is set as text in the browser (``textContent``); links are made of http(s) addresses alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import param
from panel.custom import JSComponent

from coverage_dashboards import palette
from coverage_dashboards.escape import plain

MOST_ROWS = 20_000
LONGEST_CELL = 300

_ESM = """
export function render({model}) {
  const root = document.createElement('div')
  root.className = 'root'
  let sorted = -1, falling = false, wanted = '', page = 0, ticked = new Set(model.ticked)
  const make = (tag, text, more) => Object.assign(document.createElement(tag), text == null ? {} : {textContent: text}, more || {})
  const send = (type, more) => model.send_msg({type, ...more})
  const shown = () => {
    let order = model.rows.map((_, k) => k)
    if (wanted) order = order.filter(k => model.rows[k].cells.some(c => c.toLowerCase().includes(wanted)))
    const compare = (column, a, b) => {
      const [x, y] = [model.rows[a].values[column], model.rows[b].values[column]]
      if (x == null || y == null) return (x == null) - (y == null)
      return typeof x == 'number' && typeof y == 'number' ? x - y : String(x).localeCompare(String(y))
    }
    if (sorted >= 0) order.sort((a, b) => compare(sorted, a, b) * (falling ? -1 : 1))
    if (model.grouped >= 0) order.sort((a, b) => compare(model.grouped, a, b))
    return order
  }
  const status = make('div', '', {className: 'status'})
  status.setAttribute('role', 'status')
  const table = make('table'), search = make('input', null, {type: 'search', placeholder: 'Filter'})
  search.setAttribute('aria-label', 'Filter ' + model.label)
  search.addEventListener('input', () => { wanted = search.value.toLowerCase(); page = 0; fill() })
  const pager = make('div', null, {className: 'pager'})
  const back = make('button', '‹ Previous'), on = make('button', 'Next ›'), where = make('span')
  back.addEventListener('click', () => { page -= 1; fill() })
  on.addEventListener('click', () => { page += 1; fill() })
  pager.append(back, where, on)
  const tick = () => { send('tick', {ticked: [...ticked]}) }
  const fill = () => {
    for (const [name, colour] of Object.entries(model.colours)) root.style.setProperty('--' + name, colour)
    table.replaceChildren()
    table.append(make('caption', model.label))
    const head = table.createTHead().insertRow()
    const order = shown(), size = model.page_size, pages = Math.max(1, Math.ceil(order.length / size))
    page = Math.min(Math.max(page, 0), pages - 1)
    const here = order.slice(page * size, (page + 1) * size)
    if (model.ticks) {
      const cell = make('th', null, {scope: 'col'}), box = make('input', null, {type: 'checkbox'})
      box.setAttribute('aria-label', 'Choose all')
      box.checked = order.length > 0 && order.every(k => ticked.has(model.rows[k].key))
      box.addEventListener('change', () => {
        for (const k of order) box.checked ? ticked.add(model.rows[k].key) : ticked.delete(model.rows[k].key)
        tick(); fill()
      })
      cell.append(box); head.append(cell)
    }
    model.columns.forEach((column, k) => {
      const cell = make('th', null, {scope: 'col', className: column.number ? 'number' : ''})
      const button = make('button', column.title + (sorted == k ? (falling ? ' ▾' : ' ▴') : ''), {title: column.help || ''})
      cell.setAttribute('aria-sort', sorted == k ? (falling ? 'descending' : 'ascending') : 'none')
      button.addEventListener('click', () => { falling = sorted == k ? !falling : column.number; sorted = k; fill(); })
      cell.append(button); head.append(cell)
    })
    const body = table.createTBody()
    let group = null
    for (const k of here) {
      const row = model.rows[k]
      if (model.grouped >= 0 && row.cells[model.grouped] !== group) {
        group = row.cells[model.grouped]
        const count = order.filter(other => model.rows[other].cells[model.grouped] === group).length
        const cell = make('th', (group || '–') + ' (' + count + ')', {scope: 'colgroup', className: 'group'})
        cell.colSpan = model.columns.length + (model.ticks ? 1 : 0)
        body.insertRow().append(cell)
      }
      const line = body.insertRow()
      line.dataset.key = row.key
      if (model.opens || model.points) line.tabIndex = 0
      if (model.opens) line.classList.add('opens')
      if (model.ticks) {
        const box = make('input', null, {type: 'checkbox', checked: ticked.has(row.key)})
        box.setAttribute('aria-label', 'Choose ' + row.cells[model.named])
        box.addEventListener('click', event => event.stopPropagation())
        box.addEventListener('change', () => { box.checked ? ticked.add(row.key) : ticked.delete(row.key); tick() })
        line.insertCell().append(box)
      }
      row.cells.forEach((text, c) => {
        const cell = line.insertCell()
        if (model.columns[c].number) cell.className = 'number'
        if (model.columns[c].link && row.href) {
          const link = make('a', text, {href: row.href, target: '_blank', rel: 'noopener noreferrer'})
          link.addEventListener('click', event => event.stopPropagation())
          cell.append(link)
        } else cell.textContent = text
      })
      if (model.points) {
        for (const event of ['mouseenter', 'focus']) line.addEventListener(event, () => send('point', {key: row.key}))
        for (const event of ['mouseleave', 'blur']) line.addEventListener(event, () => send('point', {key: null}))
      }
      if (model.opens) {
        line.addEventListener('click', () => send('open', {key: row.key}))
        line.addEventListener('keydown', event => {
          if (event.key == 'Enter' && event.target === line) send('open', {key: row.key})
        })
      }
    }
    status.textContent = order.length ? '' : (model.rows.length ? 'No row has that text.' : model.empty)
    pager.hidden = pages == 1
    back.disabled = page == 0
    on.disabled = page == pages - 1
    where.textContent = order.length ? `${page * size + 1} to ${Math.min((page + 1) * size, order.length)} of ${order.length}` : ''
    search.hidden = model.rows.length < 8
  }
  model.on(['change:rows', 'change:columns', 'change:grouped', 'change:colours', 'change:empty'], () => {
    if (model.rows.every(row => !ticked.has(row.key))) ticked = new Set(model.ticked)
    fill()
  })
  model.on('change:ticked', () => { ticked = new Set(model.ticked); fill() })
  const scroll = make('div', null, {className: 'scroll'})
  scroll.tabIndex = 0
  scroll.setAttribute('role', 'region')
  scroll.setAttribute('aria-label', model.label)
  scroll.append(table)
  root.append(search, scroll, status, pager)
  fill()
  return root
}
"""
_STYLE = """
:host { min-height: 0; }
.root { color: var(--ink); font-size: 14px; }
.scroll { overflow: auto; max-height: var(--tall, 60vh); }
table { border-collapse: collapse; width: 100%; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: 4px 8px; text-align: left; border-bottom: 1px solid var(--rule); }
thead th { position: sticky; top: 0; background: var(--page); z-index: 1; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th button { font: inherit; font-weight: 600; color: inherit; text-align: inherit; }
th button { background: none; border: 0; padding: 2px; cursor: pointer; }
.group { background: var(--soft); font-weight: 600; }
tr.opens { cursor: pointer; }
tbody tr:hover, tbody tr:focus { background: var(--soft); }
tbody tr:focus, button:focus-visible, input:focus-visible, a:focus-visible { outline: 2px solid var(--focus); outline-offset: -2px; }
a { color: inherit; overflow-wrap: anywhere; }
input[type=search] { font: inherit; padding: 4px 8px; margin: 0 0 6px; color: inherit; min-width: 200px; }
input[type=search] { background: var(--page); border: 1px solid var(--quiet); border-radius: 6px; }
.pager { display: flex; gap: 12px; align-items: center; margin-top: 6px; }
.pager[hidden], input[hidden] { display: none; }
.pager button { font: inherit; color: inherit; background: none; border: 1px solid var(--quiet); border-radius: 6px; padding: 3px 10px; }
.pager button:disabled { opacity: 0.5; }
.status { color: var(--quiet); }
"""


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it is of numbers, whether its text leads to the row's address, and what it means."""

    title: str
    number: bool = False
    link: bool = False
    help: str = ""


@dataclass(frozen=True)
class Row:
    """A row: the key it is called by, what is shown, what is sorted by where that is another thing, and an address."""

    key: str
    cells: Sequence[str]
    values: Sequence[float | str | None] | None = None
    href: str | None = None


class RowTable(JSComponent):  # type: ignore[misc]
    """The table. ``opened`` is called with the key of a row that was clicked or entered, ``pointed`` with that of the row under pointer
    or focus (None: none), ``ticking`` with the keys of the rows that are ticked.
    """

    label = param.String(default="", doc="What the table is of, for those who hear it.")
    columns = param.List(default=[])
    rows = param.List(default=[])
    colours = param.Dict(default={})
    grouped = param.Integer(default=-1, doc="Number of the column to group by; -1: none.")
    named = param.Integer(default=0, doc="Number of the column that names a row.")
    ticked = param.List(default=[])
    ticks = param.Boolean(default=False)
    opens = param.Boolean(default=False)
    points = param.Boolean(default=False)
    page_size = param.Integer(default=100)
    empty = param.String(default="Nothing.")

    _esm = _ESM
    _stylesheets: ClassVar[list[str]] = [_STYLE]

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        opened: Callable[[str], None] | None = None,
        pointed: Callable[[str | None], None] | None = None,
        ticking: Callable[[list[str]], None] | None = None,
        **params: Any,
    ) -> None:
        super().__init__(opens=opened is not None, points=pointed is not None, ticks=ticking is not None, **params)
        self._opened, self._pointed, self._ticking = opened, pointed, ticking
        self._keys: set[str] = set()
        self.columns = [{"title": c.title, "number": c.number, "link": c.link, "help": c.help} for c in columns]

    def fill(self, rows: Sequence[Row], dark: bool, *, ticked: Sequence[str] | None = None, tall: str = "60vh") -> None:
        """Show these rows; ``tall`` is how much height they may take before they scroll (CSS)."""
        around = palette.theme(dark)
        rows = rows[:MOST_ROWS]
        self._keys = {row.key for row in rows}
        colours = {
            "ink": around.ink, "quiet": around.quiet_ink, "page": around.page, "rule": f"{around.ink}30", "soft": f"{around.ink}16",
            "focus": "#2b74b8", "tall": tall,
        }  # fmt: skip
        shown = [
            {
                "key": row.key,
                "cells": [plain(cell, LONGEST_CELL) for cell in row.cells],
                "values": [v if isinstance(v, (int, float)) or v is None else plain(v, LONGEST_CELL) for v in (row.values or row.cells)],
                "href": row.href if row.href and urlsplit(row.href).scheme in ("http", "https") else None,
            }
            for row in rows
        ]
        changed: dict[str, Any] = {"rows": shown, "colours": colours}
        if ticked is not None:
            changed["ticked"] = list(ticked)
        self.param.update(**changed)

    def _handle_msg(self, message: Any) -> None:
        """Hears the browser, which is untrusted: keys of rows that are not there are nothing."""
        if not isinstance(message, dict):
            return
        kind, key = message.get("type"), message.get("key")
        known = isinstance(key, str) and key in self._keys
        if kind == "open" and self._opened and known:
            self._opened(str(key))
        elif kind == "point" and self._pointed:
            self._pointed(str(key) if known else None)
        elif kind == "tick" and self._ticking:
            given = message.get("ticked")
            keys = {one for one in given if isinstance(one, str)} if isinstance(given, list) else set()
            self._ticking([str(row["key"]) for row in self.rows if row["key"] in keys])
