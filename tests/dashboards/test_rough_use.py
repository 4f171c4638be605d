"""A page under rough use: strange addresses, sockets that drop, a cube that goes and comes, a database that is away, sessions that end."""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from coverage_dashboards.choices import Choices
from coverage_dashboards.fields import open_cube
from coverage_dashboards.spot import spot_from_address
from tests.dashboards.browsing import caption, expect, look, serve
from tests.dashboards.cubes import build_cube

pytestmark = [pytest.mark.service, pytest.mark.timeout(300), pytest.mark.slow]

NASTY = (
    "<script>window.ran = 1</script>", "<img src=x onerror=window.ran=1>", "javascript:window.ran=1", "'; DROP TABLE requests; --",
    "{{7*7}}", "../../../../etc/passwd", "%00", "\x00", "nan,inf", "1e999,0", "-0.0,-0.0", "999999999999999999,1", "NaN", "A" * 5000,
    "\u202egnp.exe", "🛰" * 500, "32TNS" * 100, "193/027/1", "target:", "target:<b>", "area:../x", "area:" + "f" * 64, "47.65, 9.35" * 50,
    "2025-13", "0000-00", "9999-12", "", " ", "\n", "[]", "[[[[", "None", "true", "-1", "0x10", "emit,emit,emit", "sentinel-2\nx",
)  # fmt: skip
KEYS = ("layer", "metric", "sensors", "t0", "t1", "agg", "room", "place", "view", "theme", "changes", "m", "<script>", "__proto__", "")


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_cube(tmp_path_factory.mktemp("rough") / "coverage.zarr", 20.0, 3)


@pytest.fixture(scope="module")
def rough(browser: Any, cube: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("served")
    place = folder / "coverage.zarr"
    shutil.copytree(cube, place)
    for url in serve(place, folder / "serve.log", COVERAGE_DATA=str(folder / "data")):
        yield url, place


def addresses(count: int) -> Iterator[list[tuple[str, str]]]:
    rng = random.Random(7)
    for _ in range(count):
        yield [(rng.choice(KEYS), rng.choice(NASTY)) for _ in range(rng.randint(1, 6))]


def test_five_hundred_addresses_lead_somewhere(cube: Path) -> None:
    choices = Choices.of(open_cube(str(cube)).ds)
    for pairs in addresses(500):
        told: dict[str, list[bytes]] = {}
        for key, value in pairs:
            told.setdefault(key, []).append(value.encode("utf-8", "surrogatepass"))
        view, _ = choices.from_address(told)
        settled = choices.settled(view)
        assert set(settled.sensors) <= set(choices.sensors)
        assert settled.first in choices.months
        assert settled.last in choices.months
        spot, _ = spot_from_address(told)
        assert len(spot.place) <= 200


def test_strange_addresses_are_answered(rough: tuple[str, Path]) -> None:
    url, _ = rough
    for pairs in addresses(25):
        with urllib.request.urlopen(f"{url}?{urlencode(pairs)}", timeout=60) as answer:
            assert answer.status == 200
            said = answer.read().decode()
        assert "<script>window.ran" not in said
        assert "Traceback" not in said
    for much in ("x" * 70_000, "%" * 300):
        try:
            with urllib.request.urlopen(f"{url}?place={much}", timeout=60) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        except (ConnectionError, urllib.error.URLError):
            status = 400  # the server hung up
        assert status in (200, 400, 414, 431)  # the last three: too long for a line of HTTP


def test_strange_addresses_do_no_harm_in_a_browser(page: Any, rough: tuple[str, Path]) -> None:
    url, _ = rough
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    for value in NASTY[:3]:
        page.goto(f"{url}?room=map&place={quote(value)}&metric={quote(value)}&{quote(value)}=1")
        expect(caption(page)).to_contain_text("Available")
        expect(page.get_by_text("it was left out")).to_be_visible()
        assert page.evaluate("window.ran") is None


def test_a_hundred_sockets_that_drop(page: Any, rough: tuple[str, Path]) -> None:
    url, _ = rough
    host, port = url.removeprefix("http://").removesuffix("/app").split(":")
    opened = []
    for number in range(100):
        client = socket.create_connection((host, int(port)), timeout=10)
        if number % 4 == 1:
            client.sendall(b"GET /app HTTP/1.1\r\nHost: ")
        elif number % 4 == 2:
            lines = ["GET /app/ws HTTP/1.1", f"Host: {host}:{port}", f"Origin: http://{host}:{port}", "Upgrade: websocket"]
            lines += ["Connection: Upgrade", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: bokeh, junk"]
            client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        elif number % 4 == 3:
            client.sendall(bytes(range(256)) * 8)
        opened.append(client)
    for client in opened:
        client.close()
    page.goto(url)
    expect(caption(page)).to_contain_text("Available · Scenes")
    page.get_by_role("button", name="Gap").click()
    expect(caption(page)).to_contain_text("Gap")


def test_a_cube_that_is_deleted_half_written_and_back(page: Any, rough: tuple[str, Path]) -> None:
    """The page says so, keeps standing, and shows the cube as soon as it is there again."""
    url, place = rough
    away = place.with_name("away.zarr")
    page.goto(url)
    expect(caption(page)).to_contain_text("Available · Scenes")
    place.rename(away)
    page.get_by_role("button", name="Acquired").click()
    expect(page.get_by_text(str(place)).first).to_be_visible()
    look(page, "cube_deleted")
    # Half of a copy: what a build on another machine has brought over so far.
    place.mkdir()
    shutil.copy(away / "zarr.json", place / "zarr.json")
    page.get_by_role("button", name="Gap").click()
    expect(page.locator(".caption")).to_be_visible()
    expect(page.get_by_text("Traceback")).to_have_count(0)
    page.wait_for_timeout(500)
    look(page, "cube_half_written")
    shutil.rmtree(place)
    away.rename(place)
    page.get_by_role("button", name="Available").click()
    expect(caption(page)).to_contain_text("Available · Scenes")
    expect(page.get_by_text(str(place))).to_have_count(0)


def test_a_database_of_requests_that_is_away(page: Any, rough: tuple[str, Path]) -> None:
    url, place = rough
    target = place.parent / "data" / "requests.sqlite"
    page.goto(f"{url}?room=requests")
    expect(page.get_by_text("0 requests. Times are UTC.")).to_be_visible()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"this is no database" * 100)
    page.get_by_role("button", name="Mine").click()
    expect(page.get_by_text(re.compile("cannot read the requests")).first).to_be_visible()
    look(page, "requests_away")
    target.unlink()
    page.reload()
    expect(page.get_by_text("0 requests. Times are UTC.")).to_be_visible()


def test_a_session_that_ended_is_let_go(cube: Path) -> None:
    """Regression: tables of HoloViews and of Panel kept every page that was ever opened, some three megabytes each."""
    command = [sys.executable, "-m", "tests.dashboards.ended_session", str(cube)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
