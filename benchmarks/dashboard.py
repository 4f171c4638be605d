"""The planner's desk as a browser sees it: first image, another layer or sensor, zoom, place panel, and what a click sends.

``python -m benchmarks.dashboard data/demo/build.toml`` prints JSON lines: one planner's clicks, the same beside nineteen others who each
change something every three seconds, and the server's memory after 200 sessions came and went. Milliseconds from the click until the
browser has the picture's data, or the panel its words. Needs Chromium (``make services``) and a built cube (``make demo-build``).
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.planners import come_and_go, crowd
from coverage_pipeline.demo.stac_server import free_port

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_IS_PAINTED = """canvas => {
  const seen = new Set(), {width, height} = canvas, paint = canvas.getContext('2d')
  for (let k = 1; k < 40; k++) seen.add(paint.getImageData(width * k / 40, height / 2, 1, 1).data.join())
  return seen.size > 2
}"""
_WATCH = """() => {
  window.drawn = []
  const source = [...Bokeh.documents[0].all_models].find(m => m.type == 'ColumnDataSource' && m.data.image)
  source.properties.data.change.connect(() => window.drawn.push(performance.now()))
  // From the event itself: the driver of the browser takes its time to look whether a button can be pressed.
  for (const event of ['pointerdown', 'wheel']) window.addEventListener(event, () => { window.began = performance.now() }, true)
}"""


@contextmanager
def served(config: Path) -> Iterator[tuple[str, int]]:
    """The address of the page, and the server's process id."""
    port = free_port()
    command = [sys.executable, "-m", "coverage_pipeline", "serve", "--config", str(config), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/app"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(address, timeout=10).close()
                break
            except OSError:
                time.sleep(0.3)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(20)


def _until_painted(page: Page) -> None:
    """Until the canvas of the map shows more than one colour along its middle."""
    canvas = page.locator(".bk-Figure canvas").first
    while not canvas.evaluate(_IS_PAINTED):
        page.wait_for_timeout(10)


def _until_drawn(page: Page, act: Callable[[], Any]) -> float:
    page.evaluate("window.drawn = []")
    act()
    page.wait_for_function("window.drawn.length > 0", timeout=30_000)
    took = float(page.evaluate("window.drawn[0] - window.began"))
    page.wait_for_timeout(1000)  # what else the click changes
    return took


def _memory_mb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS"))) // 1024


def _loopback_bytes() -> int:
    """All that went over the machine's own network so far: as sent, so compressed."""
    text = Path("/proc/net/dev").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.strip().startswith("lo:")))


def _session(browser: Browser, address: str) -> dict[str, float]:
    """One planner's clicks, medians in milliseconds."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    sent: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sent.append(len(frame))))
    began = time.perf_counter()
    page.goto(f"{address}?layer=gap&metric=action&sensors=landsat-8-9")
    _until_painted(page)
    first = (time.perf_counter() - began) * 1000
    page.wait_for_timeout(5000)
    page.evaluate(_WATCH)

    def press(name: str) -> float:
        return _until_drawn(page, page.get_by_role("button", name=name, exact=True).click)

    for name in ("Available", "Acquired", "Gap"):
        press(name)
    sent.clear()
    before = _loopback_bytes()
    layer = [press(name) for name in ["Available", "Gap", "Acquired", "Gap"] * 2]
    on_the_wire = (_loopback_bytes() - before) / len(layer)
    a_click = sum(sent) / len(layer)
    box = page.locator(".bk-Figure canvas").first.bounding_box() or {}
    page.mouse.move(box["x"] + 400, box["y"] + 200)
    zoom = [_until_drawn(page, partial(page.mouse.wheel, 0, 200 - 400 * (k % 2))) for k in range(6)]
    place = []
    for k in range(6):
        began = time.perf_counter()
        page.mouse.click(box["x"] + 300 + 30 * k, box["y"] + 220)
        page.get_by_text("Looking it up").wait_for(state="visible", timeout=5000)
        page.get_by_text("Looking it up").wait_for(state="hidden")
        place.append((time.perf_counter() - began) * 1000)
        page.wait_for_timeout(1500)
    page.close()
    medians = {"layer_ms": layer, "zoom_ms": zoom, "place_ms": place}
    return {
        "first_image_ms": first,
        **{name: statistics.median(some) for name, some in medians.items()},
        "bytes_a_click": a_click,
        "compressed_bytes_a_click": on_the_wire,
    }


def measure(config: Path) -> dict[str, Any]:
    """The second planner's figures: the first one warms the server."""
    with served(config) as (address, pid), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        _, second = (_session(browser, address) for _ in range(2))
        browser.close()
        return {"benchmark": "dashboard", **{name: round(value) for name, value in second.items()}, "server_mb": _memory_mb(pid)}


OTHERS, EVERY_SECONDS, CLICKS = 19, 3.0, 30
COME_AND_GO = 200
SETTLED_SECONDS = 60
"""After the last session left: Bokeh looks for those that ended every 17 s."""


def measure_crowd(config: Path) -> dict[str, Any]:
    """One browser's clicks while nineteen others work, and what each of them costs in memory."""
    with served(config) as (address, pid), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        _session(browser, address)  # warms the server
        before, told, stop = _memory_mb(pid), asyncio.new_event_loop(), asyncio.Event()
        received: list[int] = []
        others = threading.Thread(target=lambda: received.append(told.run_until_complete(crowd(address, OTHERS, EVERY_SECONDS, stop))))
        others.start()
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}?layer=gap&metric=action&sensors=landsat-8-9")
        _until_painted(page)
        page.wait_for_timeout(30_000)  # until all of them work
        page.evaluate(_WATCH)
        took = []
        for click in range(CLICKS):
            name = ("Available", "Acquired", "Gap")[click % 3]
            took.append(_until_drawn(page, page.get_by_role("button", name=name, exact=True).click))
            page.wait_for_timeout(EVERY_SECONDS * 1000 - 1000)
        each = (_memory_mb(pid) - before) / (OTHERS + 1)
        told.call_soon_threadsafe(stop.set)
        others.join()
        browser.close()
    slowest = sorted(took)[math.ceil(0.95 * len(took)) - 1]
    return {
        "benchmark": "dashboard-crowd", "planners": OTHERS + 1, "layer_ms": round(statistics.median(took)), "layer_p95_ms": round(slowest),
        "mb_each": round(each, 1), "mb_sent_to_others": round(received[0] / 1e6),
    }  # fmt: skip


def measure_memory(config: Path) -> dict[str, Any]:
    """The server's memory before, right after and a minute after many sessions that came and went."""
    with served(config) as (address, pid):
        asyncio.run(come_and_go(address, 20))  # warms the server: fields and code stay, and are not the sessions'
        time.sleep(SETTLED_SECONDS)
        before = _memory_mb(pid)
        asyncio.run(come_and_go(address, COME_AND_GO))
        most = _memory_mb(pid)
        time.sleep(SETTLED_SECONDS)
        after = _memory_mb(pid)
    return {
        "benchmark": "dashboard-memory",
        "sessions": COME_AND_GO,
        "before_mb": before,
        "most_mb": most,
        "after_mb": after,
        "kept_mb": after - before,
    }


if __name__ == "__main__":
    chosen = Path(sys.argv[1] if len(sys.argv) > 1 else "data/demo/build.toml")
    kinds = {"one": measure, "crowd": measure_crowd, "memory": measure_memory}
    for kind in sys.argv[2:] or kinds:
        sys.stdout.write(json.dumps(kinds[kind](chosen)) + "\n")
        sys.stdout.flush()
