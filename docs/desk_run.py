"""A planner's run from the map to the list of scenes, as a person clicks it: ``python docs/desk_run.py data/demo/build.toml``.

Opens the page, finds a place that asks for a download, looks at the backlog, exports it and flags a request; prints how long each step took
and leaves a picture of each in ``desk_run/``. The demo's catalogue must be served meanwhile: ``coverage-planner demo --archive``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pystac
from playwright.sync_api import expect, sync_playwright

from benchmarks.dashboard import CHROMIUM, FLAGS, served


def main(config: Path, out: Path) -> None:
    """The run; raises where a step does not do what it should."""
    out.mkdir(exist_ok=True)
    with served(config) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        expect.set_options(timeout=30_000)
        began = time.monotonic()

        def done(step: str) -> None:
            sys.stdout.write(f"{time.monotonic() - began:5.1f} s  {step}\n")
            page.wait_for_timeout(800)
            page.screenshot(path=out / f"{step.split(',')[0].replace(' ', '-')}.png")

        page.goto(address)
        expect(page.locator(".caption")).to_contain_text("Available")
        done("the page is open")
        page.get_by_role("button", name="Gap", exact=True).click()
        page.get_by_label("Sentinel-2").click()
        expect(page.locator(".caption")).to_contain_text("Sentinel-2")
        done("the gap, with the most urgent action of each cell")
        page.get_by_role("tab", name="Backlog").click()
        expect(page.locator(".backlog-said")).to_contain_text("scenes,")
        target = page.get_by_role("row").nth(1).locator("td").nth(7).inner_text().split(",")[0]
        done("the backlog, the most useful scenes first")
        page.get_by_label("Go to a place").fill(target)
        page.get_by_label("Go to a place").press("Enter")
        expect(page.locator(".place-answer")).to_contain_text("Ingest")
        done("a place, what to do and why")
        page.get_by_role("tab", name="Backlog").click()
        with page.expect_download() as saved:
            page.get_by_role("button", name="Export").click()
        saved.value.save_as(out / "backlog.json")
        items = pystac.ItemCollection.from_file(str(out / "backlog.json"))
        done(f"exported, {len(items)} items")
        page.get_by_label("Note of the request").fill("desk run")
        page.get_by_role("button", name="Flag").click()
        expect(page.get_by_text("recorded, one for each sensor and day")).to_be_visible()
        page.get_by_role("tab", name="Requests").click()
        expect(page.get_by_role("row").filter(has_text="desk run").first).to_be_visible()
        done("flagged, and on the board of the requests")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/demo/build.toml"), Path("desk_run"))
