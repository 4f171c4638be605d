"""Takes the README's pictures from the running demo: ``make demo-build && .venv/bin/python docs/make_pictures.py``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from playwright.sync_api import Page, sync_playwright

from coverage_pipeline.demo.stac_server import free_port

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "data" / "demo"
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def served(command: list[str], address: str, **environment: str) -> Iterator[str]:
    """A server of our own until the end of the block."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                requests.get(address, timeout=5)
                break
            except requests.RequestException:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def dashboard(page: Page) -> None:
    """The dashboard's action layer of EMIT, light and dark."""
    port = free_port()
    command = [sys.executable, "-m", "coverage_pipeline", "serve", "--config", str(DEMO / "build.toml"), "--port", str(port)]
    with served(command, f"http://127.0.0.1:{port}/app") as address:
        for query, name in (
            (
                "?layer=gap&metric=action&sensors=landsat-8-9,sentinel-2&agg=recent&over=targets&place=target:water-14&view=-11,36,24,56",
                "dashboard",
            ),
            ("?layer=available&metric=scenes_count&sensors=sentinel-2&agg=total", "dashboard-available"),
            ("?metric=scenes_count&sensors=landsat-8-9&agg=total&beside=sensor:sentinel-2&view=-12,35,32,60", "dashboard-beside"),
            ("?layer=gap&metric=action&sensors=landsat-8-9,sentinel-2&room=targets", "dashboard-targets"),
            ("?layer=gap&metric=action&sensors=landsat-8-9,sentinel-2&room=backlog", "dashboard-backlog"),
        ):
            page.goto(address + query)
            page.wait_for_selector(f".room-{query.partition('room=')[2] or 'map'}", timeout=60_000)
            page.wait_for_timeout(6_000)
            page.screenshot(path=ROOT / "docs" / f"{name}.png")


def asset_graph(page: Page) -> None:
    """The asset graph as the Dagster UI shows it."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("dagster-webserver")), "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    environment = {"DAGSTER_HOME": str(DEMO / "dagster"), "COVERAGE_CONFIG": str(DEMO / "build.toml")}
    with served(command, f"http://127.0.0.1:{port}", **environment) as address:
        page.goto(f"{address}/asset-groups/")
        page.get_by_text("availability_stats").first.wait_for(timeout=120_000)
        page.wait_for_timeout(5_000)
        skip = page.get_by_role("button", name="Skip")
        if skip.count():
            skip.click()
        page.get_by_text("Hide navigation").click()
        page.wait_for_timeout(3_000)
        page.screenshot(path=ROOT / "docs" / "asset-graph.png")


def main() -> None:
    """Both, at a size that reads well in the README."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 860})
        for take in (asset_graph, dashboard) if len(sys.argv) < 2 else [globals()[sys.argv[1]]]:
            take(page)
        browser.close()


if __name__ == "__main__":
    main()
