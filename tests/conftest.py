"""What every test stands on: no settings from outside, and real services or an honest skip."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coverage_pipeline.demo.stac_server import stac_api

REQUIRED = os.environ.get("COVERAGE_REQUIRE_SERVICES") == "1"


def pytest_configure() -> None:
    """Undo what the starting shell may have done to signals; every process that a test starts would inherit it.

    A shell without job control starts its background commands with SIGINT ignored. A test of Ctrl-C then saw 0 in place of 130.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow modules first: two workers that share modules out end at the same time only if the longest ones begin first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither this shell's COVERAGE_* nor the project's config or a developer's .env may reach a test."""
    for name in list(os.environ):
        if name.startswith("COVERAGE_") and name not in ("COVERAGE_REQUIRE_SERVICES", "COVERAGE_SCREENSHOTS"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(autouse=True)
def _signals_stop_processes() -> Iterator[None]:
    """A test that leaves SIGINT or SIGTERM ignored or blocked would make every process that later tests start deaf to both."""
    yield
    for number in (signal.SIGINT, signal.SIGTERM):  # a handler ends with an exec, to be ignored or blocked does not
        assert signal.getsignal(number) != signal.SIG_IGN, f"this test left {number.name} ignored"
        assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, []), f"this test left {number.name} blocked"


@pytest.fixture(autouse=True)
def _no_store_of_another_test() -> None:
    """fsspec keeps one file system for equal arguments: it would go on asking the S3 server of a test that has ended."""
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()


def without_service(what: str) -> None:
    """Skip for a missing service; fail where services are required (CI)."""
    if REQUIRED:
        pytest.fail(f"{what} is missing, and services are required here: make services")
    pytest.skip(f"{what} is missing: make services installs it (as root, on Debian)")


def write_items(folder: Path, items: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Items as the files that ``rustac serve`` loads, without their assets (which nothing here reads, and which are large)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "items.json"
    features = [{**item, "assets": {}} for item in items]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return [path]


@pytest.fixture
def serve_items(tmp_path: Path) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], str]]:
    """Serves STAC items with ``rustac serve`` until the test ends; gives the API's address."""
    with ExitStack() as stack:
        number = 0

        def serve(items: Sequence[Mapping[str, Any]]) -> str:
            nonlocal number
            number += 1
            return stack.enter_context(stac_api(write_items(tmp_path / f"served-{number}", items)))

        yield serve
