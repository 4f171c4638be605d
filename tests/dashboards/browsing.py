"""A served page, and what tests do with it in a real browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

CHROMIUM = Path("/usr/bin/chromium")
ROOT = Path(__file__).parents[2]
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGS += ["--disable-component-update", "--disable-sync"]
PATIENCE = 45_000


def serve(cube: Path, log: Path, **settings: str) -> Iterator[str]:
    """The real command, until the caller has done with the page; ``{port}`` in a setting is the port it listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "coverage_pipeline", "serve", "--port", str(port)]
    told = {name: value.replace("{port}", str(port)) for name, value in settings.items()}
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            env=os.environ | {"COVERAGE_OUTPUT_ZARR": str(cube), "PYTHONPATH": str(ROOT)} | told,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}/app"
            deadline = time.monotonic() + 180
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except urllib.error.HTTPError:  # it answers, though not to everybody
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(f"serve did not come up:\n{log.read_text()}")
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(10)
    # A browser that leaves while it is sent a picture makes tornado complain, in frames of its own.
    said = log.read_text()
    assert "coverage_dashboards/" not in said, said


def caption(page: Any) -> Any:
    return page.locator(".caption")


def legend(page: Any) -> Any:
    return page.locator(".legend")


def look(page: Any, name: str) -> None:
    """Keep a screenshot where somebody asked for them."""
    folder = os.environ.get("COVERAGE_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


_PLACE = """(canvas, [lon, lat]) => {
  const figure = [...Bokeh.documents[0].all_models].find(m => m.type == 'Figure')
  const box = canvas.getBoundingClientRect(), {x_range, y_range} = figure
  const frame = Bokeh.index.find_one(figure).frame.bbox  // the model's own inner_height may be that of before
  const x = lon * Math.PI / 180 * 6378137, y = Math.asinh(Math.tan(lat * Math.PI / 180)) * 6378137
  const across = (x - x_range.start) / (x_range.end - x_range.start)
  const down = (y_range.end - y) / (y_range.end - y_range.start)
  return [box.x + frame.left + across * frame.width, box.y + frame.top + down * frame.height]
}"""

_FRAME = """canvas => {
  const figure = [...Bokeh.documents[0].all_models].find(m => m.type == 'Figure'), box = canvas.getBoundingClientRect()
  const {x_range, y_range, inner_width, inner_height} = figure
  const picture = [...Bokeh.documents[0].all_models].find(m => m.type == 'ColumnDataSource' && m.data.image)
  return JSON.stringify({canvas: [box.x, box.y, box.width, box.height, canvas.width, canvas.height], inner: [inner_width, inner_height],
    x: [x_range.start, x_range.end], y: [y_range.start, y_range.end], picture: picture && [picture.data.x[0], picture.data.y[0],
    picture.data.dw[0], picture.data.dh[0], picture.data.image[0].shape]})
}"""

_COLOUR = """(canvas, [x, y]) => {
  const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width
  const [i, j] = [(x - box.x) * ratio, (y - box.y) * ratio].map(Math.round)
  // The colour of most of nine pixels: a line of the hatch covers three of them at most.
  const p = canvas.getContext('2d').getImageData(i - 1, j - 1, 3, 3).data, counts = new Map()
  for (let k = 0; k < 36; k += 4) {
    const name = '#' + [...p.slice(k, k + 3)].map(v => v.toString(16).padStart(2, '0')).join('')
    counts.set(name, (counts.get(name) || 0) + 1)
  }
  return [...counts].sort((a, b) => b[1] - a[1])[0][0]
}"""


def canvas(page: Any) -> Any:
    return page.locator(".bk-Figure canvas").first


def place(page: Any, lon: float, lat: float) -> list[float]:
    """Where on the screen a place is drawn, once the map has its size: it comes with the page, in a likely one."""
    expect(page.locator(".scale").first).to_contain_text("m")
    return canvas(page).evaluate(_PLACE, [lon, lat])


def colour(page: Any, lon: float, lat: float) -> str:
    """What is really drawn at a place."""
    return canvas(page).evaluate(_COLOUR, place(page, lon, lat))


def expect_colour(page: Any, lon: float, lat: float, wanted: str) -> None:
    """As soon as it is drawn."""
    deadline, found = time.monotonic() + PATIENCE / 1000, ""
    while time.monotonic() < deadline:
        found = colour(page, lon, lat)
        if found == wanted:
            return
        page.wait_for_timeout(50)
    look(page, "unexpected_colour")
    pytest.fail(f"{found} at {lon}, {lat} where {wanted} was expected; {canvas(page).evaluate(_FRAME)}")


def expect_other_colour(page: Any, lon: float, lat: float, unwanted: str) -> None:
    """As soon as it is drawn."""
    deadline = time.monotonic() + PATIENCE / 1000
    while colour(page, lon, lat) == unwanted:
        assert time.monotonic() < deadline, f"{unwanted} is still drawn at {lon}, {lat}"
        page.wait_for_timeout(50)


def point_at(page: Any, lon: float, lat: float) -> Any:
    """The tooltip of a place; a pointer that moved while the page was still busy is moved again."""
    tooltip = page.locator(".bk-Tooltip")
    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        x, y = place(page, lon, lat)
        page.mouse.move(x, y - 3)
        page.mouse.move(x, y)
        try:
            expect(tooltip).to_be_visible(timeout=3000)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            return tooltip
