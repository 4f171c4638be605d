"""The planner's questions, each answered on the page in a real browser, over a world that was really scanned and built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from coverage_dashboards import palette
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.demand.saved_targets import list_saved
from tests.dashboards.browsing import canvas, caption, expect, expect_colour, legend, look, place, serve
from tests.dashboards.planning_world import PlanningWorld, planning_world

pytestmark = [pytest.mark.service, pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlanningWorld]:
    with planning_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def desk(browser: Any, world: PlanningWorld) -> Iterator[str]:
    cube = world.folder / "data" / "coverage.zarr"
    yield from serve(cube, world.folder / "serve.log", **world.environment)


def go_to(page: Any, text: str) -> None:
    field = page.get_by_label("Go to a place")
    field.fill(text)
    field.press("Enter")


def room(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def row(page: Any, *texts: str) -> Any:
    """The row of a table that has all these texts."""
    found = page.get_by_role("row")
    for text in texts:
        found = found.filter(has_text=text)
    return found.first


def panel(page: Any) -> Any:
    return page.locator(".place-panel")


def test_which_months_has_emit_no_clear_held_scene_over_the_permian_basin(page: Any, desk: str) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit")
    expect(caption(page)).to_contain_text("Gap · Action")
    go_to(page, "permian basin")
    expect(panel(page).get_by_text("Permian basin (permian)")).to_be_visible()
    answer = page.locator(".place-answer")
    expect(answer).to_contain_text("EMIT (ISS): Ingest in 1 of 3 months. May 2025: 1 of 1 clear observations are missing")
    days = page.locator(".place-days")
    expect(days.get_by_title("8 April 2025: clear, and held")).to_have_count(1)
    for day in ("6 May 2025", "18 May 2025"):
        expect(days.get_by_title(f"{day}: clear, not held")).to_have_count(1)
    expect(days.get_by_title("11 June 2025: cloudy")).to_have_count(1)
    # Wanted, held, missing, to download, to check, remaining. The scan of June is provisional, so more may be found.
    assert page.locator(".place-figures tbody td").all_inner_texts() == ["3", "1", "2", "2", "0", "≤ 1", "2 of 3"]
    expect(page.locator(".place-waits")).to_contain_text("last clear scene held on 8 April 2025")
    expect(panel(page)).to_contain_text("Cloud is that of the whole scene, not of this place.")
    expect(page.get_by_role("region", name="scenes").get_by_role("row")).to_have_count(5)  # with the head
    expect(page).to_have_url(re.compile("place=target%3Apermian"))
    look(page, "place_light")
    # The panel stays when the map shows something else, and is asked again for other sensors.
    page.get_by_role("button", name="Available").click()
    expect(caption(page)).to_contain_text("Available")
    expect(answer).to_contain_text("EMIT (ISS): Ingest")
    page.get_by_role("button", name="Gap").click()
    expect(caption(page)).to_contain_text("Gap · Action")
    page.get_by_label("PRISMA").click()
    expect(answer).to_contain_text("PRISMA: Task in 3 of 3 months")
    page.reload()
    expect(answer).to_contain_text("PRISMA: Task in 3 of 3 months")
    page.get_by_role("button", name="Close the place panel").click()
    expect(panel(page)).not_to_be_visible()
    expect(page).not_to_have_url(re.compile("place="))
    page.go_back()
    expect(answer).to_contain_text("PRISMA: Task in 3 of 3 months")


def test_a_click_opens_the_cell_under_it_and_marks_it(page: Any, desk: str) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit")
    expect(caption(page)).to_contain_text("Gap · Action")
    expect_colour(page, -60, 20, palette.LIGHT.out_of_scope)
    page.mouse.click(*place(page, -102.5, 31.5))
    expect(panel(page).get_by_text("Cell of 1° about 31.5° N, 102.5° W")).to_be_visible()
    expect(page).to_have_url(re.compile("place=31.5%2C-102.5|place=31.5,-102.5"))
    # A footprint is drawn while its row is pointed at, by pointer or keyboard.
    drawn = "() => Bokeh.documents[0].all_models ? [...Bokeh.documents[0].all_models].filter(m => m.type == 'ColumnDataSource')"
    drawn += ".map(m => m.data.x ? m.data.x.length : 0) : []"
    expect(page.get_by_role("region", name="scenes").get_by_role("row").nth(1)).to_be_visible()
    before = page.evaluate(drawn)
    page.get_by_role("region", name="scenes").get_by_role("row").nth(1).focus()
    page.wait_for_function(f"before => JSON.stringify(({drawn})()) != JSON.stringify(before)", arg=before)
    # A click beside the world says so, and does no harm.
    for _ in range(3):
        page.get_by_role("button", name="Zoom out").click()
        page.wait_for_timeout(500)
    box = canvas(page).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 6)
    expect(page.get_by_text("This place is beside the area that the cube covers.")).to_be_visible()


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ("31.4, -103", "Cell of 1° about 31.5° N, 102.5° W"),
        ("31°24'N 103°6'W", "Cell of 1° about 31.5° N, 103.5° W"),
        ("31.4 N 103.1 W", "Cell of 1° about 31.5° N, 103.5° W"),
        ("T31UFT", "Sentinel-2 tile 31UFT"),
        ("198/024", "Landsat path 198, row 24"),
    ],
)
def test_a_place_is_found_by_what_a_planner_types(page: Any, desk: str, typed: str, title: str) -> None:
    page.goto(f"{desk}?sensors=sentinel-2")
    expect(caption(page)).to_contain_text("Available")
    go_to(page, typed)
    expect(panel(page).get_by_text(title)).to_be_visible()


def test_a_country_is_gone_to_and_what_is_no_place_is_told(page: Any, desk: str) -> None:
    page.goto(desk)
    expect(caption(page)).to_contain_text("Available")
    go_to(page, "Fiij")
    expect(page.get_by_text("is no place that is known here. Did you mean Fiji?")).to_be_visible()
    go_to(page, "netherland")
    expect(page.get_by_text("Did you mean Netherlands?")).to_be_visible()
    go_to(page, "Mongolia")
    expect(page.get_by_text("Mongolia: click a place in it to see what there is.")).to_be_visible()
    expect(page).to_have_url(re.compile("place=Mongolia&view="))


def test_which_scenes_could_close_the_gap_how_many_gigabytes_and_which_login(page: Any, desk: str, tmp_path: Path) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit,sentinel-2,landsat-8-9&room=backlog")
    said = page.locator(".backlog-said")
    expect(said).to_contain_text(re.compile(r"\d+ scenes, [\d.]+ GB \(estimated\), close \d+ of \d+ days"))
    expect(page.get_by_text("Not known, so not in the list")).to_be_visible()
    emit = row(page, "EMIT_20250506")
    expect(emit).to_contain_text("permian")
    expect(emit).to_contain_text("1.86 est.")
    expect(emit).to_contain_text("none")
    look(page, "backlog_light")
    # Only EMIT's is ticked, exported, and read by pystac.
    page.get_by_label("Choose all").uncheck()
    expect(page.get_by_role("button", name="Export", exact=True)).to_be_disabled()
    expect(page).to_have_url(re.compile("ticked=[0-9a-f]{12}"))
    none_ticked = page.url
    page.get_by_label("Choose EMIT_20250506").check()
    expect(page).not_to_have_url(none_ticked)
    # What is ticked stays so after a reload, and for who is sent the address.
    page.reload()
    expect(page.get_by_label("Choose EMIT_20250506")).to_be_checked()
    expect(page.get_by_label("Choose all")).not_to_be_checked()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export 1 scene (1.9 GB)").click()
    expect(page.get_by_text("Saved backlog.json: 1 items.")).to_be_visible()
    file = tmp_path / "backlog.json"
    saved.value.save_as(file)
    (item,) = pystac.ItemCollection.from_file(str(file))
    assert item.id.startswith("EMIT_L2A_RFL_001_20250506")
    assert item.assets["data"].href == f"https://data.example/{item.id}.tif"
    # The budget leaves out what does not fit.
    page.get_by_label("Budget").last.focus()
    page.keyboard.press("Home")
    expect(said).to_contain_text("0 scenes, 0.0 GB")
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    expect(said).to_contain_text("1 scene, 0.6 GB")


def test_scenes_are_flagged_and_who_asked_for_what_is_told(page: Any, desk: str, world: PlanningWorld) -> None:
    page.goto(f"{desk}?sensors=emit&room=backlog")
    expect(row(page, "EMIT_20250506")).to_be_visible()
    page.get_by_label("Note of the request").fill("for the June report")
    page.get_by_role("button", name="Flag 1 scene as requests").click()
    expect(page.get_by_text("1 request is recorded")).to_be_visible()
    room(page, "Requests")
    mine = row(page, "for the June report")
    expect(mine).to_contain_text("requested")
    expect(mine).to_contain_text("2025-05-06")
    expect(row(page, "ana", "well pads")).to_be_visible()
    look(page, "requests_light")
    (flagged,) = [one for one in world.requests.all() if one.note == "for the June report"]
    assert flagged.kind == "ingest"
    assert flagged.scenes == ("EMIT_20250506T160000_2512611_001",)
    page.get_by_role("button", name="Mine").click()
    expect(row(page, "ana", "well pads")).not_to_be_visible()
    mine.press("Enter")
    expect(page.locator(".history")).to_contain_text("Scenes: EMIT_20250506")
    # Somebody else changes it meanwhile: nothing is overwritten, and both are told.
    world.requests.move(flagged, "ordered", who="ben", order_number="A-1")
    page.get_by_label("Why it is cancelled").fill("not needed")
    page.get_by_role("button", name="Cancel the request").click()
    expect(page.get_by_text(re.compile("was changed by ben at .* nothing was written: look at it again"))).to_be_visible()
    expect(page.locator(".history")).to_contain_text("ordered by ben")
    assert world.requests.get(flagged.id).state == "ordered"
    page.get_by_role("button", name="Cancel the request").click()
    expect(page.get_by_text("It is cancelled.")).to_be_visible()
    assert world.requests.get(flagged.id).state == "cancelled"
    expect(page.get_by_role("button", name="Cancel the request")).to_be_disabled()
    page.get_by_role("textbox", name="Note").fill("asked again in July")
    page.get_by_role("button", name="Save the note").click()
    expect(page.get_by_text("Its note is saved.")).to_be_visible()
    assert world.requests.get(flagged.id).note == "asked again in July"


def test_what_share_of_the_targets_met_its_cadence_and_how_it_was_before(page: Any, desk: str) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit&t0=2025-04&t1=2025-05&room=targets")
    tile = page.locator(".tiles .tile")
    expect(tile).to_contain_text("EMIT (ISS)")
    expect(tile).to_contain_text(re.compile(r"\d+ %\s*of the area met its cadence in May 2025; \d+ % not known"))
    expect(tile).to_contain_text(re.compile("April 2025"))
    permian = row(page, "Permian basin (permian)")
    expect(permian).to_contain_text("✓✗")
    expect(permian).to_contain_text("1 of 2")
    expect(permian).to_contain_text("Ingest")
    look(page, "targets_light")
    permian.press("Enter")  # the way in for those who have no pointer
    expect(page.get_by_role("tab", name="Map", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator(".place-answer")).to_contain_text("EMIT (ISS): Ingest")


def test_what_landsat_and_sentinel_2_give_together_over_the_netherlands(page: Any, desk: str) -> None:
    page.goto(f"{desk}?sensors=landsat-8-9,sentinel-2&t0=2025-04&t1=2025-05&place=target:dutch")
    together = page.locator(".place-together")
    expect(together).to_contain_text("Landsat 8/9 and Sentinel-2 together")
    # 4, 9, 20 and 24 of each month are clear: four days, and the longest wait is from 9 to 20 or 24 to the 4th after a month of 30.
    expect(together).to_contain_text("On 4 days a month clear scenes exist; longest wait 10 days.")


def test_why_a_place_is_grey(page: Any, desk: str) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=landsat-8-9&t0=2025-06&t1=2025-06")
    expect(caption(page)).to_contain_text("Gap · Action")
    go_to(page, "Netherlands")
    known = page.locator(".place-known")
    expect(known).to_contain_text("Why is this grey?")
    expect(known).to_contain_text("Landsat 8/9, June 2025: Not known: availability, holdings, matchup of this month is not there.")
    page.get_by_role("button", name="What was scanned, when and from whom").click()
    expect(page).to_have_url(re.compile("room=known"))
    expect(row(page, "Landsat 8/9", "June 2025")).to_contain_text("not scanned")
    look(page, "known_light")


def test_what_changed_since_the_month_before_as_a_list_and_on_the_map(page: Any, desk: str) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit&t1=2025-05&room=changes")
    said = page.locator(".changes-said")
    expect(said).to_contain_text("EMIT (ISS), May 2025 against April 2025: 1 opened")
    expect(row(page, "Permian basin (permian)")).to_contain_text("opened")
    look(page, "changes_light")
    page.get_by_role("button", name="Show the changes on the map").click()
    expect(caption(page)).to_contain_text("Changes of the gap · EMIT (ISS) · May 2025 against April 2025")
    expect(legend(page)).to_contain_text("Opened: had what is wanted, now lacks some")
    expect(page).to_have_url(re.compile("changes=1"))
    look(page, "changes_map_light")
    page.get_by_role("button", name="Available").click()
    expect(caption(page)).to_contain_text("Available")
    expect(page).not_to_have_url(re.compile("changes=1"))


def test_the_last_build_is_compared_where_there_was_one_before(page: Any, desk: str) -> None:
    page.goto(f"{desk}?sensors=emit&t1=2025-05&room=changes")
    expect(page.locator(".changes-said")).to_contain_text("against April 2025")
    page.get_by_role("button", name="The last build").click()
    expect(page.locator(".changes-said")).to_contain_text("there is no earlier run to compare with")


def test_every_room_is_an_address_and_back_leads_to_the_one_before(page: Any, desk: str) -> None:
    page.goto(desk)
    expect(caption(page)).to_contain_text("Available")
    for name, key in (("Targets", "targets"), ("Knownness", "known")):
        room(page, name)
        expect(page).to_have_url(re.compile(f"room={key}"))
    page.go_back()
    expect(page.get_by_role("tab", name="Targets")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".room-targets")).to_be_visible()
    expect(page.locator(".room-known")).not_to_be_visible()
    page.goto(f"{desk}?room=cellar&view=9,9,1,1&theme=pink&changes=maybe")
    expect(page.get_by_text("(room, view, theme, changes); it was left out")).to_be_visible()


def test_the_theme_is_kept_when_the_page_is_loaded_again(page: Any, desk: str) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit")
    expect(caption(page)).to_contain_text("Gap · Action")
    page.get_by_label("Toggle theme").click()
    expect(page).to_have_url(re.compile("theme=dark"))
    page.reload()
    expect_colour(page, -60, 20, palette.DARK.out_of_scope)
    look(page, "gap_dark")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_room(page: Any, desk: str, theme: str) -> None:
    """Names, roles and contrast of everything but the drawn map itself."""
    addresses = ["layer=gap&metric=action&sensors=emit&place=target:permian"]
    addresses += [f"sensors=emit&room={key}" for key in ("targets", "backlog", "requests", "changes", "known")]
    for address in addresses:
        page.goto(f"{desk}?{address}&theme={theme}")
        expect(page.locator(".place-answer") if "place" in address else page.get_by_role("table").first).to_be_visible()
        if "backlog" in address:
            expect(page.get_by_role("button", name=re.compile(r"^Flag \d"))).to_be_enabled()
        page.wait_for_timeout(1500)  # until buttons have their colours
        found = Axe().run(page, context={"exclude": [["canvas"]]}, options={"resultTypes": ["violations"]}).response["violations"]
        serious = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
        assert serious == [], address


def test_a_phone_shows_map_panel_and_tables(browser: Any, desk: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(45_000)
    try:
        page.goto(f"{desk}?layer=gap&metric=action&sensors=emit")
        expect(caption(page)).to_contain_text("Gap · Action")
        expect(page.get_by_label("EMIT (ISS)")).not_to_be_in_viewport()  # the sidebar does not cover the map
        expect_colour(page, -60, 20, palette.LIGHT.out_of_scope)
        look(page, "phone_map")
        page.touchscreen.tap(*place(page, -102.5, 31.5))
        expect(page.locator(".place-answer")).to_contain_text("EMIT (ISS)")  # a tap gives the value, and more
        page.locator(".place-answer").scroll_into_view_if_needed()
        for part in (caption(page), page.locator(".place-answer"), canvas(page)):
            box = part.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 391
        look(page, "phone_place")
        page.goto(f"{desk}?sensors=emit&room=targets")
        expect(row(page, "Permian basin")).to_be_visible()
        expect(page.get_by_label("EMIT (ISS)")).not_to_be_in_viewport()
        look(page, "phone_targets")
    finally:
        context.close()


def saved(page: Any, label: str, folder: Path) -> Path:
    """The file that a choice of the menu *Save* gives."""
    page.get_by_role("button", name="Save", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name=label).click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def test_what_the_map_shows_is_saved_and_read_by_other_tools(page: Any, desk: str, tmp_path: Path) -> None:
    page.goto(f"{desk}?layer=gap&metric=deficit&sensors=emit&view=-110,25,-95,40")
    expect(caption(page)).to_contain_text("Gap · Deficit")
    with rasterio.open(saved(page, "GeoTIFF of what the map shows", tmp_path)) as tiff:
        assert tiff.crs.to_epsg() == 4326
        assert tiff.bounds.left <= -110 < -95 <= tiff.bounds.right
        assert tiff.width < 200
        assert "EMIT (ISS)" in tiff.tags()["TIFFTAG_IMAGEDESCRIPTION"]
    with rasterio.open(saved(page, "GeoTIFF of everything", tmp_path)) as tiff:
        assert tiff.shape == (180, 360)
    table = pd.read_csv(saved(page, "CSV of what the map shows", tmp_path))
    assert {"lat", "lon", "deficit", "known_months", "months"} == set(table.columns)
    assert Image.open(saved(page, "Picture with caption and legend", tmp_path)).size == (1600, 1090)
    assert "CoverageQuery(" in saved(page, "Python that gives the same array", tmp_path).read_text()


def test_an_area_is_drawn_or_uploaded_and_everything_is_told_for_it(page: Any, desk: str, tmp_path: Path, world: PlanningWorld) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit&view=-112,24,-94,38")
    expect(caption(page)).to_contain_text("Gap · Action")
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Draw an area").click()
    expect(page.get_by_text("Click the corners of the area")).to_be_visible()
    for lon, lat in ((-103.3, 31.2), (-102.7, 31.2), (-102.7, 31.6), (-103.3, 31.6)):
        page.mouse.click(*place(page, lon, lat))
        page.wait_for_timeout(400)  # two clicks at once are a double click
    page.get_by_role("button", name="Finish the area").click()
    expect(panel(page).get_by_text(re.compile("Drawn area about 31.4"))).to_be_visible()
    expect(page.locator(".place-answer")).to_contain_text("EMIT (ISS): Ingest")
    expect(page).to_have_url(re.compile("place=area%3A[0-9a-f]{12}|place=area:[0-9a-f]{12}"))
    page.reload()
    expect(page.locator(".place-answer")).to_contain_text("EMIT (ISS): Ingest")
    file = tmp_path / "area.geojson"
    file.write_text('{"type": "Polygon", "coordinates": [[[5, 52], [5.5, 52], [5.5, 52.3], [5, 52.3], [5, 52]]]}')
    page.locator("input[type=file]").set_input_files(file)
    expect(panel(page).get_by_text("Uploaded area about 52.15° N, 5.25° E")).to_be_visible()
    # It becomes a target of everybody's, under a name.
    page.get_by_role("button", name="Save as a target").click()
    page.get_by_label("Clear observations a month").fill("many")
    page.get_by_label("Name of the target").fill("Gooi <b>")
    page.get_by_role("button", name="Save", exact=True).last.click()
    expect(page.get_by_text("many is no number of clear observations a month")).to_be_visible()
    page.get_by_label("Clear observations a month").fill("2")
    look(page, "save_target")
    page.get_by_role("button", name="Save", exact=True).last.click()
    expect(
        page.get_by_text(re.compile("Gooi <b> is saved as target saved-[0-9a-f]{8}. It is counted from the next build on."))
    ).to_be_visible()
    (kept,) = list_saved(world.store)
    assert (kept.name, kept.desired) == ("Gooi <b>", 2.0)
    bad = tmp_path / "bad.kml"
    bad.write_text("<!DOCTYPE x><kml/>")
    page.locator("input[type=file]").set_input_files(bad)
    expect(page.get_by_text("the KML declares a document type")).to_be_visible()
    page.goto(f"{desk}?place=area:000000000000")
    expect(page.get_by_text("That area is not kept any more")).to_be_visible()


def test_targets_and_footprints_lie_over_the_map(page: Any, desk: str) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit&view=-112,24,-94,38")
    expect(caption(page)).to_contain_text("Gap · Action")
    page.get_by_label("Targets").check()
    page.get_by_label("Footprints of scenes").check()
    expect(page).to_have_url(re.compile("over=targets%2Cfootprints|over=targets,footprints"))
    drawn = """colour => [...Bokeh.documents[0].all_models].filter(m => m.type == 'GlyphRenderer' && m.glyph.type == 'Line'
        && m.glyph.line_color.value == colour).map(m => m.data_source.data.x.length)"""
    page.wait_for_function(f"() => ({drawn})('#c2007a')[0] > 4 && ({drawn})('#ff8c00').some(n => n > 4)")
    names = """() => [...Bokeh.documents[0].all_models].filter(m => m.type == 'ColumnDataSource' && m.data.text)
        .flatMap(m => [...m.data.text])"""
    page.wait_for_function(f"() => ({names})().includes('Permian basin')")
    page.wait_for_timeout(300)
    look(page, "overlays")
    page.reload()
    page.wait_for_function(f"() => Bokeh.documents.length && ({names})().includes('Permian basin')")
    page.get_by_label("Targets").uncheck()
    page.wait_for_function(f"() => !({names})().includes('Permian basin')")
    page.go_back()
    page.wait_for_function(f"() => ({names})().includes('Permian basin')")
    page.goto(f"{desk}?over=targets,<script>")
    expect(page.get_by_text("The link asked for something this cube does not have (over)")).to_be_visible()


def test_the_legend_tells_shares_of_the_map_and_of_all(page: Any, desk: str) -> None:
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit")
    expect(legend(page)).to_contain_text(re.compile(r"Unknown: .* \(over 99 % of the area in scope, [\d,]+ cells\)"))
    go_to(page, "permian")
    expect(legend(page)).to_contain_text(re.compile(r"Ingest: .* \(\d+ % of the area in scope on this map, under 1 % of all\)"))


def test_the_map_keeps_its_height_when_the_legend_grows(page: Any, desk: str) -> None:
    for width, height in ((1440, 900), (1024, 768)):
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"{desk}?sensors=emit")
        expect(caption(page)).to_contain_text("Available")
        page.wait_for_timeout(800)
        before = canvas(page).bounding_box()
        page.get_by_role("button", name="Gap").click()
        expect(legend(page)).to_contain_text("Ingest")
        page.wait_for_timeout(800)
        after, below = canvas(page).bounding_box(), legend(page).bounding_box()
        assert abs(after["height"] - before["height"]) <= 26, (width, before, after)  # a line more of the caption
        assert after["y"] + after["height"] <= below["y"] + 1
        assert below["y"] + below["height"] <= height


def test_the_world_goes_on_beyond_the_antimeridian(page: Any, desk: str, world: PlanningWorld) -> None:
    """Fiji lies on both sides of it: one map shows all of it, and a click there opens the cell."""
    scope = open_coverage(world.folder / "data" / "coverage.zarr")["in_scope"].sel(sensor="emit", lat=slice(-21, -14)).load()
    sea = []
    for side in (slice(175, 179), slice(-179, -176)):
        part = scope.sel(lon=side)
        row, column = np.argwhere(part.values == 0)[0]
        sea.append((float(part["lat"][row]), float(part["lon"][column])))
    page.goto(f"{desk}?layer=gap&metric=action&sensors=emit&view=174,-22,186,-13")
    expect(caption(page)).to_contain_text("Gap · Action")
    page.wait_for_timeout(1500)
    for lat, lon in sea:
        expect_colour(page, lon % 360, lat, palette.LIGHT.out_of_scope)
    look(page, "fiji")
    page.mouse.click(*place(page, 183.6, -20.4))
    expect(panel(page).get_by_text("Cell of 1° about 20.5° S, 176.5° W")).to_be_visible()
    page.reload()
    expect(panel(page).get_by_text("Cell of 1° about 20.5° S, 176.5° W")).to_be_visible()
    expect_colour(page, sea[0][1], sea[0][0], palette.LIGHT.out_of_scope)
