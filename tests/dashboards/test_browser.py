"""The served page in a real browser, which may reach nothing but this machine."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from coverage_dashboards import palette
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.scenes.schema import SCAN_STATUS
from tests.dashboards.browsing import (
    canvas,
    caption,
    expect,
    expect_colour,
    expect_other_colour,
    legend,
    look,
    place,
    point_at,
    serve,
)
from tests.dashboards.cubes import build_cube

pytestmark = [pytest.mark.service, pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture(scope="module")
def served(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    yield from serve(build_cube(folder / "coverage.zarr", 4.0, 7), folder / "panel.log")


def test_the_first_map_shows_scenes_of_emit_and_tells_unknown_from_zero(page: Any, served: str) -> None:
    page.goto(served)
    expect(page).to_have_title("Coverage planner")
    expect(caption(page)).to_contain_text("Available · Scenes · rate (mean month) · EMIT (ISS) · January to June 2025")
    expect(caption(page)).to_contain_text("between 0 and 6 of 6 months known")
    expect(caption(page)).to_contain_text("catalogue as of 2026-01-01")
    expect(page.get_by_text("Simulated data")).to_be_visible()
    expect(legend(page)).to_contain_text("Scenes (scenes a month)")
    expect(page.get_by_text("PRISMA has no public catalogue.")).to_be_visible()
    # In the North Atlantic EMIT never looks; between 20 and 60 degrees east nobody looked it up.
    expect_colour(page, -50, 60, palette.ramp("scenes_count", False)[0])
    expect_colour(page, 50, 60, palette.LIGHT.unknown)
    look(page, "available_light")


def test_choices_change_map_caption_legend_and_address(page: Any, served: str) -> None:
    page.goto(served)
    expect(caption(page)).to_contain_text("EMIT (ISS)")
    page.get_by_label("Landsat 8/9").click()
    expect(caption(page)).to_contain_text("EMIT (ISS), Landsat 8/9")
    page.get_by_role("button", name="Acquired").click()
    expect(caption(page)).to_contain_text("Acquired · Scenes held · rate (mean month)")
    expect(legend(page)).to_contain_text("Scenes held (scenes a month)")
    expect(page.get_by_text("Sentinel-2 is not in our holdings.")).to_be_visible()
    look(page, "acquired_light")
    page.get_by_role("combobox").first.click()
    page.get_by_text("Days since last held", exact=True).click()
    expect(caption(page)).to_contain_text("Days since last held · latest known month")
    expect(legend(page)).to_contain_text("never held within 24 months counts as that long")
    look(page, "days_since_last_held_light")
    expect(page).to_have_url(re.compile("layer=acquired&metric=days_since_last_held&sensors=emit%?2?C?,?landsat-8-9.*agg=recent"))
    page.reload()
    expect(caption(page)).to_contain_text("Acquired · Days since last held · latest known month · EMIT (ISS), Landsat 8/9")
    for name in ("EMIT (ISS)", "Landsat 8/9"):
        page.get_by_label(name).click()
    expect(page.get_by_text("Choose at least one sensor on the left.")).to_be_visible()
    # Nothing is drawn but the coasts, where the map was.
    expect_colour(page, -50, 60, palette.LIGHT.page)
    expect(canvas(page)).to_be_visible()
    look(page, "no_sensor_light")
    page.get_by_label("EMIT (ISS)").click()
    expect_other_colour(page, -50, 60, palette.LIGHT.page)


def test_back_and_forward_lead_to_the_views_of_before(page: Any, served: str) -> None:
    page.goto(served)
    expect(caption(page)).to_contain_text("Available · Scenes · rate (mean month) · EMIT (ISS)")
    page.get_by_label("Landsat 8/9").click()
    expect(page).to_have_url(re.compile("sensors=emit,landsat-8-9"))
    page.get_by_role("button", name="Gap").click()
    expect(caption(page)).to_contain_text("Gap · ")
    expect(page).to_have_url(re.compile("layer=gap"))
    page.go_back()
    expect(caption(page)).to_contain_text("Available · Scenes · rate (mean month) · EMIT (ISS), Landsat 8/9")
    page.go_back()
    expect(caption(page)).not_to_contain_text("Landsat")
    assert page.url == served
    page.go_forward()
    expect(caption(page)).to_contain_text("EMIT (ISS), Landsat 8/9")
    page.get_by_role("button", name="Gap").click()  # the address it was at before it went back
    expect(page).to_have_url(re.compile("layer=gap"))
    page.go_back()
    expect(caption(page)).to_contain_text("Available · Scenes")


def test_a_bad_address_is_told_and_corrected_and_is_no_trap_for_back(page: Any, served: str) -> None:
    page.goto(served)
    expect(caption(page)).to_contain_text("Available")
    page.goto(f"{served}?layer=gap&metric=action&sensors=emit,sputnik&colour=pink")
    expect(page.get_by_text("The link asked for something this cube does not have (sensors); it was left out.")).to_be_visible()
    expect(page).to_have_url(re.compile(r"\?layer=gap&metric=action&sensors=emit&t0="))
    assert "pink" not in page.url
    assert "sputnik" not in page.url
    page.go_back()
    expect(caption(page)).to_contain_text("Available · Scenes")
    assert page.url == served


def test_the_action_of_several_sensors_is_said_to_be_the_most_urgent(page: Any, served: str) -> None:
    page.goto(f"{served}?layer=gap&metric=action&sensors=emit,landsat-8-9")
    expect(caption(page)).to_contain_text("EMIT (ISS), Landsat 8/9 (the most urgent action of any of them)")
    look(page, "action_light")


def test_the_gap_names_actions_scope_and_what_the_pointer_is_over(page: Any, served: str) -> None:
    page.goto(f"{served}?layer=gap&metric=deficit&sensors=emit")
    expect(caption(page)).to_contain_text("Gap · Deficit · worst month · EMIT (ISS)")
    expect(legend(page)).to_contain_text("Deficit (clear observations)")
    expect(legend(page)).to_contain_text("out of scope")
    expect_colour(page, -30, 30, palette.LIGHT.out_of_scope)
    tooltip = point_at(page, 22, -4)
    expect(tooltip).to_contain_text(re.compile(r"\d clear observations"))
    expect(tooltip).to_contain_text("6 of 6 months known")
    expect(tooltip).to_contain_text("4° S, 22° E")
    look(page, "deficit_light")
    page.get_by_role("combobox").first.click()
    page.get_by_text("Action", exact=True).click()
    expect(legend(page)).to_contain_text("Ingest: a clear scene exists that we do not hold – download it")
    for text in (
        "Task: none exists",
        "Check: scenes of unknown cloud",
        "None: wait",
        "Unknown: could not be looked up",
    ):
        expect(legend(page)).to_contain_text(text)
    expect(legend(page)).to_contain_text("of the area in scope")
    expect(point_at(page, -30, 30)).to_contain_text("Out of scope")
    look(page, "action_light")


def test_not_known_is_said_by_the_pointer(page: Any, served: str) -> None:
    page.goto(served)
    expect_colour(page, 50, 60, palette.LIGHT.unknown)
    tooltip = point_at(page, 50, 60)
    expect(tooltip).to_contain_text("not known")
    expect(tooltip).to_contain_text("0 of 6 months known")


def test_the_map_follows_the_theme(page: Any, served: str) -> None:
    page.goto(served)
    expect_colour(page, -50, 60, palette.ramp("scenes_count", False)[0])
    page.get_by_label("Toggle theme").click()
    expect_colour(page, -50, 60, palette.ramp("scenes_count", True)[0])
    expect_colour(page, 50, 60, palette.DARK.unknown)
    look(page, "available_dark")
    page.get_by_role("button", name="Gap").click()
    expect(caption(page)).to_contain_text("Gap · Action")
    expect_colour(page, -30, 30, palette.DARK.out_of_scope)
    look(page, "action_dark")


def test_zooming_keeps_cells_and_limits(page: Any, served: str) -> None:
    page.goto(served)
    expect_colour(page, 50, 60, palette.LIGHT.unknown)
    ends = legend(page).inner_text()
    page.mouse.move(*place(page, 60, 58))
    for _ in range(4):
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(100)
    # 4° cells: their edges lie on multiples of 4, so the hole ends exactly at 60° E.
    expect_colour(page, 59.8, 58, palette.LIGHT.unknown)
    expect_other_colour(page, 60.2, 58, palette.LIGHT.unknown)
    assert legend(page).inner_text() == ends
    look(page, "zoomed_in_light")


def test_scrubbing_changes_the_month_and_keeps_the_colour_limits(page: Any, served: str) -> None:
    page.goto(f"{served}?metric=held_count&agg=scrub")
    expect(caption(page)).to_contain_text("month by month, January 2025")
    ends = legend(page).inner_text()
    page.get_by_role("button", name="Next frame").click()
    expect(caption(page)).to_contain_text("month by month, February 2025")
    assert legend(page).inner_text() == ends
    expect(page).to_have_url(re.compile("month=2025-02"))
    look(page, "scrub_light")


def test_a_strange_address_is_told_and_does_no_harm(page: Any, served: str) -> None:
    page.goto(f"{served}?layer=gap&metric=%3Cscript%3E&sensors=emit,nosuch&t0=9999-99")
    expect(page.get_by_text("(metric, sensors, window); it was left out")).to_be_visible()
    expect(caption(page)).to_contain_text("Gap · Action · latest known month · EMIT (ISS)")


def test_without_a_cube_the_page_says_how_to_build_one(page: Any, tmp_path: Path) -> None:
    for url in serve(tmp_path / "none.zarr", tmp_path / "panel.log"):
        page.goto(url)
        expect(page.get_by_text("There is no coverage to show yet")).to_be_visible()
        expect(page.get_by_text("make demo")).to_be_visible()
        expect(page.get_by_text("coverage-planner build", exact=True)).to_be_visible()
        look(page, "no_cube_light")
        page.goto("about:blank")  # what is still loading must not find the server gone


# Text from outside: nothing of it runs, all of it is shown as text.

RAN = "window.ran = (window.ran || 0) + 1"
IMAGE = f'<img src=x onerror="{RAN}">'
SCRIPT = f"</script><script>{RAN}</script>"
QUOTES = f"""\"'><svg onload='{RAN}'>"""
ENTITIES = f"&lt;img src=x onerror=&quot;{RAN}&quot;&gt;"
MARKDOWN = f"**bold** [link](javascript:{RAN}) `code`"
TURNED = "EMIT\u202egnp.exe\u202c\u200f\u2066"
HOSTILE = (IMAGE, SCRIPT, QUOTES, ENTITIES, MARKDOWN)


@pytest.fixture(scope="module")
def hostile(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cube, settings and scan reports whose every text is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    cube = build_cube(folder / "coverage.zarr", 20.0, 2, note=f"simulated data: {' '.join(HOSTILE)} {TURNED}")
    root = zarr.open_group(str(cube), mode="r+")
    names = [str(name) for name in root["sensor"][:]]
    renamed = {"sentinel-2": IMAGE, "landsat-8-9": "hostile"}
    root["sensor"][:] = np.array([renamed.get(name, name) for name in names], dtype=object)
    root["scan_status"][names.index("emit"), :] = SCAN_STATUS.index("provisional")
    root.attrs["catalog_snapshot"] = f"2026 {IMAGE}{QUOTES}"
    zarr.consolidate_metadata(str(cube))
    assert str(open_coverage(cube)["sensor"].values[names.index("sentinel-2")]) == IMAGE
    settings = folder / "build.toml"
    title = f"{SCRIPT}{ENTITIES}{MARKDOWN}{TURNED}"
    settings.write_text(
        "[sensors.declared.hostile]\nnominal_revisit_days = 5\ndefault_desired_per_month = 2\navailable_sources = []\n"
        f"title = {json.dumps(title)}\n"
    )
    reports = folder / "data" / "catalog" / "emit"
    reports.mkdir(parents=True)
    report = {"scanned_at": "2026-01-01T00:00:00Z", "status": "provisional", "doubts": [f"it stops on the 17th {IMAGE}", *HOSTILE[1:]]}
    (reports / "2025-02.scan.json").write_text(json.dumps(report))
    # Another scan's report says nothing of the one that is shown.
    (reports / "2025-01.scan.json").write_text(json.dumps(report | {"scanned_at": "2020-01-01T00:00:00Z", "doubts": ["stale"]}))
    yield from serve(cube, folder / "serve.log", COVERAGE_CONFIG=str(settings), COVERAGE_DATA=str(folder / "data"))


def nothing_ran(page: Any) -> bool:
    injected = "[...document.querySelectorAll('*')].flatMap(e => [e, ...(e.shadowRoot ? e.shadowRoot.querySelectorAll('*') : [])])"
    injected += ".filter(e => [...e.attributes].some(a => /^on/i.test(a.name)) || (e.src || '').endsWith('/x')).length"
    return bool(page.evaluate("window.ran === undefined") and page.evaluate(injected) == 0)


def test_hostile_titles_attributes_and_doubts_are_text(page: Any, hostile: str) -> None:
    page.goto(f"{hostile}?metric=scenes_count&sensors=emit")
    # The keys and titles of sensors, beside their boxes and in the caption.
    for name in (IMAGE, "</script><script>"):
        box = page.get_by_label(name)
        expect(box).to_be_visible()
        box.click()
        expect(caption(page)).to_contain_text(name)
    for text in ("**bold** [link](javascript:", "&lt;img src=x onerror=&quot;", "EMITgnp.exe", "catalogue as of 2026 <img src=x"):
        expect(caption(page)).to_contain_text(text)
    badge = page.get_by_text("Simulated data")
    for text in HOSTILE:
        expect(badge.locator("..")).to_contain_text(text)
    doubts = page.locator(".doubts")
    expect(doubts).to_contain_text("EMIT (ISS), February 2025: it stops on the 17th <img src=x onerror=")
    expect(doubts).to_contain_text("EMIT (ISS), January 2025: its scan report is not at hand")
    expect(doubts).not_to_contain_text("stale")
    shown = page.locator("body").inner_text() + caption(page).inner_text() + doubts.inner_text()
    assert not [c for c in shown if c in "\u202e\u202c\u200f\u2066"]
    look(page, "hostile_light")
    page.wait_for_timeout(500)  # an image that cannot be had tells so a moment later
    assert nothing_ran(page)


def test_a_zero_of_a_provisional_month_is_no_known_none(page: Any, hostile: str) -> None:
    page.goto(f"{hostile}?metric=scenes_count&sensors=emit")
    expect(caption(page)).to_contain_text("the scans of all months are provisional")
    expect(legend(page)).to_contain_text("0: none found yet; the scans of all months are provisional")
    expect_colour(page, -30, 57, palette.ramp("scenes_count", False)[0])  # north of where EMIT looks, at sea
    tooltip = point_at(page, -30, 57)
    expect(tooltip).to_contain_text("0 scenes a month: none found yet; the scans of all months are provisional")
    page.get_by_role("button", name="Acquired").click()
    expect(caption(page)).to_contain_text("Acquired")
    expect(page.locator(".doubts")).not_to_be_visible()  # what we hold does not depend on the catalogue


def test_a_hostile_address_is_text(page: Any, hostile: str) -> None:
    page.goto(f"{hostile}?layer={IMAGE}&sensors={SCRIPT}&t0={QUOTES}")
    expect(page.get_by_text("(layer, sensors, window); it was left out")).to_be_visible()
    assert nothing_ran(page)


def test_a_hostile_error_is_text(page: Any, tmp_path: Path) -> None:
    name = f"{IMAGE.replace('/', '')}{MARKDOWN}.zarr"
    for url in serve(tmp_path / name, tmp_path / "serve.log"):
        page.goto(url)
        expect(page.get_by_text(name)).to_be_visible()
        page.wait_for_timeout(500)
        assert nothing_ran(page)
        look(page, "hostile_error")
        page.goto("about:blank")


def test_another_cube_in_its_place_is_followed(page: Any, tmp_path: Path) -> None:
    """The note on simulated data, months and sensors are those of the cube that is shown."""
    path = build_cube(tmp_path / "coverage.zarr", 20.0, 2, ("emit", "landsat-8-9"))
    for url in serve(path, tmp_path / "serve.log"):
        page.goto(f"{url}?sensors=emit,nosuch")
        expect(page.get_by_text("Simulated data")).to_be_visible()
        expect(page.get_by_text("(sensors); it was left out")).to_be_visible()
        path.rename(tmp_path / "old.zarr")
        build_cube(path, 20.0, 3, ("emit", "enmap"), note=None)
        page.wait_for_timeout(21_000)  # the cube is looked at anew every twenty seconds
        page.get_by_role("button", name="Acquired").click()
        expect(caption(page)).to_contain_text("Acquired · Scenes held · rate (mean month) · EMIT (ISS)")
        expect(page.get_by_text("Simulated data")).not_to_be_visible()
        expect(page.get_by_text("it was left out")).not_to_be_visible()
        expect(page.get_by_label("EnMAP")).to_be_visible()
        page.goto("about:blank")


# The server


def asked(url: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], str]:
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


def upgraded(port: int, headers: Mapping[str, str]) -> int:
    """The status of a request for the page's websocket. (``urllib`` closes its connections, which is no upgrade.)"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/app/ws", headers=UPGRADE | dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_this_machine_s_names_are_answered(served: str) -> None:
    """A name of another site that points to this machine (DNS rebinding) gets neither the page nor its websocket."""
    port = served.split(":")[2].split("/")[0]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert asked(served, {"Host": host})[0] == 200, host
    foreign = (
        f"evil.example:{port}",
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        f"localhost.evil.example:{port}",
        f"127.0.0.1.:{port}",
        "",
    )
    for host in foreign:
        for path, more in (("", {}), ("/ws", UPGRADE), ("/../static/js/bokeh.min.js", {}), ("/../nosuch", {})):
            status, _, text = asked(served + path, {"Host": host} | more)
            assert status in (400, 421), (host, path)
            assert "Coverage" not in text
            assert status == 400 or "--allow-host" in text
    # Nor does a page of another site get the websocket, which a browser opens to any host.
    assert upgraded(int(port), {"Origin": "http://evil.example"}) == 403
    assert upgraded(int(port), {"Origin": f"http://127.0.0.1:{port}"}) == 101


def test_every_answer_has_the_headers(served: str) -> None:
    origin = served.removesuffix("/app")
    for path in ("/app", "/", "/nosuch", "/static/js/bokeh.min.js", "/app/autoload.js?bokeh-autoload-element=1"):
        _, headers, _ = asked(origin + path, {})
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'", path
        assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == policy["script-src-attr"] == "'none'"
        assert "unsafe-inline" not in policy["script-src"]
        assert not re.search(r"https?:|\*", headers["Content-Security-Policy"])
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Server"] is None
