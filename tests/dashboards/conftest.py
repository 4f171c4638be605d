"""The browser, and a page in it that may ask nothing of the internet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.dashboards.browsing import ARGS, CHROMIUM, PATIENCE, expect, playwright


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, a browser for each module of tests.

    Not one for the whole run: Playwright's synchronous API keeps an event loop running in this thread as long as it is open,
    and every ``asyncio.run`` of the modules that follow on the same worker would be refused.
    """
    if not CHROMIUM.exists():
        if os.environ.get("COVERAGE_REQUIRE_SERVICES") == "1":
            pytest.fail(f"{CHROMIUM} is missing and COVERAGE_REQUIRE_SERVICES=1")
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that may ask nothing of the internet, and whose errors fail the test."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 900})

    def guard(route: Any) -> None:
        if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            wrong.append(f"asked for {route.request.url}")
            route.abort()

    context.route("**/*", guard)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.on("websocket", lambda ws: None if ws.url.startswith("ws://127.0.0.1:") else wrong.append(f"websocket to {ws.url}"))
    page.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
    page.on("console", lambda message: wrong.append(f"console: {message.text}") if message.type == "error" else None)
    yield page
    context.close()
    assert not wrong, wrong
