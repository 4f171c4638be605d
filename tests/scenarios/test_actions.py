"""Every row of the action table of design section 4, for every way in which a place may be held.

Each scenario is a place of its own in a small world that is built whole, from a catalogue on loopback and a file of
holdings to the cube. A scene covers three cells: ``west`` lies within the crop of the variant *crop with id*, its edge
runs through ``border``, and it lacks ``east``.

The right actions are written out below as the design's table gives them; masks, counts and deficit are worked out by
``right``, in sets of days, by reading section 4. Nothing of the product is called for either.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from coverage_pipeline.pipeline.steps import STEPS
from tests.scenarios.world import (
    JUNE,
    Catalogue,
    Lies,
    Month,
    World,
    at,
    build_world,
    holding,
    item,
    leaning,
    sensor,
    write_holdings,
)

pytestmark = pytest.mark.slow

DESIRED = 2
CLEAR_BELOW = 10.0
A, B = 6, 11  # the days of the two scenes that a place may have
BEACON_DAYS = (1, 6, 11, 16, 21, 26)  # scenes elsewhere, every 5 days, so that no silence makes the month doubtful

# A situation: the scenes that the catalogue lists, as (day, cloud, held or not). The cloud of a holding is that of its scene.
SITUATIONS: dict[str, list[tuple[int, float | None, bool]]] = {
    "two clear scenes held": [(A, 2.0, True), (B, 3.0, True)],
    "a clear scene lacking": [(A, 2.0, True), (B, 3.0, False)],
    "a scene of unknown cloud lacking": [(A, 2.0, True), (B, None, False)],
    "one clear scene, held": [(A, 2.0, True)],
    "one cloudy scene, held": [(A, 80.0, True)],
    "one scene of unknown cloud, held": [(A, None, True)],
    "no scene": [],
    "a place out of reach": [(A, 2.0, True), (B, 3.0, False)],
}
VARIANTS = ("full with id", "crop with id", "without id", "without cloud", "house ids")
CELLS = ("west", "border", "east")
REACH = (-60.0, 39.0)

# Sensors: family, taskable, cloud, whether it has a catalogue and whether that goes on to the month's end.
SENSORS: dict[str, dict[str, Any]] = {
    "systematic-s2": {"family": "sentinel-2"},
    "systematic-landsat": {"family": "landsat"},
    "pointed": {"taskable": True},
    "radar": {"taskable": True, "cloud": "not_applicable"},
    "doubted-s2": {"family": "sentinel-2"},
    "uncatalogued": {"taskable": True},
}
# "scan complete, or not applicable; sensor taskable | task", "… not taskable | none", "otherwise | unknown".
LEVER = {
    "systematic-s2": "none",
    "systematic-landsat": "none",
    "pointed": "task",
    "radar": "task",
    "doubted-s2": "unknown",
    "uncatalogued": "task",
}

# Actions in the cells west, border and east; "-" is the lever of the sensor. One entry stands for all three.
# "A border cell may show held 1 and unmet 1": the day is held clear there, so it is no ingestable day.
COMMON: dict[str, dict[str, str]] = {
    "two clear scenes held": {
        **dict.fromkeys(VARIANTS, "met"),
        "crop with id": "met met ingest",
        "not held": "ingest",
    },
    "a clear scene lacking": {**dict.fromkeys(VARIANTS, "ingest"), "not held": "ingest"},
    "a scene of unknown cloud lacking": {
        **dict.fromkeys(VARIANTS, "check"),
        "crop with id": "check check ingest",
        "not held": "ingest",
    },
    "one clear scene, held": {**dict.fromkeys(VARIANTS, "-"), "crop with id": "- - ingest", "not held": "ingest"},
    "one cloudy scene, held": {**dict.fromkeys(VARIANTS, "-"), "not held": "-"},
    "one scene of unknown cloud, held": {**dict.fromkeys(VARIANTS, "check"), "not held": "check"},
    "no scene": {**dict.fromkeys(VARIANTS, "-"), "not held": "-"},
    "a place out of reach": {**dict.fromkeys(VARIANTS, "out_of_scope"), "not held": "out_of_scope"},
}
# "Clear: known and < cloud_lt, or of a sensor that sees through cloud": every scene is clear.
RADAR = {
    **COMMON,
    "a scene of unknown cloud lacking": {**dict.fromkeys(VARIANTS, "ingest"), "not held": "ingest"},
    "one cloudy scene, held": COMMON["one clear scene, held"],
    "one scene of unknown cloud, held": COMMON["one clear scene, held"],
}
# Holdings alone: what is not held is not known to exist, and a holding without cloud has no scene to take it from:
# "Where the scan is not applicable … they are the held days of unknown cloud".
UNCATALOGUED = {
    "two clear scenes held": {
        **dict.fromkeys(VARIANTS, "met"),
        "crop with id": "met met task",
        "without cloud": "check",
        "not held": "task",
    },
    **{
        name: {**dict.fromkeys(VARIANTS, "task"), "without cloud": "check", "not held": "task"}
        for name in ("a clear scene lacking", "a scene of unknown cloud lacking", "one clear scene, held", "one cloudy scene, held")
    },
    "one scene of unknown cloud, held": {
        **dict.fromkeys(VARIANTS, "check"),
        "crop with id": "check check task",
        "not held": "task",
    },
    "no scene": {**dict.fromkeys(VARIANTS, "task"), "not held": "task"},
    "a place out of reach": COMMON["a place out of reach"],
}
TABLE = {"radar": RADAR, "uncatalogued": UNCATALOGUED}


def right_action(key: str, situation: str, variant: str, cell: str) -> str:
    words = TABLE.get(key, COMMON)[situation][variant].split()
    word = words[CELLS.index(cell)] if len(words) == len(CELLS) else words[0]
    return LEVER[key] if word == "-" else word


# Where things are


def corner(situation: str, variant: str) -> tuple[float, float]:
    """Lower left corner of the three cells of a place."""
    row = list(SITUATIONS).index(situation)
    south = 41.0 if situation == "a place out of reach" else 30.0 + row
    return 2.0 * VARIANTS.index(variant), south


def outline(situation: str, variant: str) -> BaseGeometry:
    west, south = corner(situation, variant)
    return leaning(west + 0.05, south + 0.05, 1.4, 0.4)


def cut(geometry: BaseGeometry, variant: str) -> BaseGeometry:
    """What is held of a scene: all, or the part west of the middle of the border cell."""
    if variant != "crop with id":
        return geometry
    west, south, _, north = geometry.bounds
    return geometry & shapely.box(west, south, math.floor(west) + 0.75, north)


def cell_of(situation: str, variant: str, cell: str) -> BaseGeometry:
    west, south = corner(situation, variant)
    west += 0.5 * CELLS.index(cell)
    return shapely.box(west, south, west + 0.5, south + 0.5)


def scene_name(key: str, situation: str, variant: str, day: int) -> str:
    """An id in the spelling of the sensor's family, another tile or path and row for each place."""
    row, column = list(SITUATIONS).index(situation), VARIANTS.index(variant)
    family = SENSORS[key].get("family")
    if family == "sentinel-2":
        return f"S2A_MSIL2A_202506{day:02}T104021_N0511_R008_T31U{'ABCDEFGH'[row]}{'ABCDE'[column]}_202506{day:02}T150000"
    if family == "landsat":
        return f"LC08_L2SP_{180 + column:03}{30 + row:03}_202506{day:02}_202506{day + 10:02}_02_T1"
    return f"SCENE-{row}-{column}-202506{day:02}"


def time_of(day: int) -> dt.datetime:
    return at(f"2025-06-{day:02}T10:40:21")


def listed(key: str) -> list[dict[str, Any]]:
    items = []
    for situation, scenes in SITUATIONS.items():
        for variant in VARIANTS:
            for day, cloud, _ in scenes:
                name = scene_name(key, situation, variant, day)
                items.append(item(name, outline(situation, variant), time_of(day), collection=key, cloud=cloud))
    for day in BEACON_DAYS[:3] if key == "doubted-s2" else BEACON_DAYS:
        name = {
            "sentinel-2": f"S2A_MSIL2A_202506{day:02}T104021_N0511_R008_T31UZZ_202506{day:02}T150000",
            "landsat": f"LC08_L2SP_190040_202506{day:02}_20250630_02_T1",
        }.get(SENSORS[key].get("family", ""), f"SCENE-BEACON-202506{day:02}")
        items.append(item(name, leaning(10.55, 36.05, 0.4, 0.4), time_of(day), collection=key, cloud=80.0))
    return items


def rows_held(key: str) -> list[dict[str, Any]]:
    rows = []
    for situation, scenes in SITUATIONS.items():
        for variant in VARIANTS:
            for day, cloud, held in scenes:
                if not held:
                    continue
                name: str | None = scene_name(key, situation, variant, day)
                when = time_of(day)
                if variant == "without id":
                    name, when = None, when + dt.timedelta(seconds=20)
                if variant == "house ids":
                    name = f"internal-{len(rows)}"
                rows.append(
                    holding(
                        when,
                        cut(outline(situation, variant), variant),
                        sensor=key,
                        cloud=None if variant == "without cloud" else cloud,
                        scene_id=name,
                    )
                )
    return rows


# What is right, worked out in days


@dataclass(frozen=True)
class Right:
    """What section 4 says of a cell; ``None``: the design leaves it open here."""

    held_days: set[int]
    held_clear_days: set[int]
    ingestable_days: set[int] | None
    check_days: set[int]
    unmet_supply: int | None
    deficit: int


def touches(geometry: BaseGeometry, cell: BaseGeometry) -> bool:
    return bool((geometry & cell).area > 0)


def right(key: str, situation: str, variant: str, cell: str) -> Right:
    see_through = SENSORS[key].get("cloud") == "not_applicable"
    catalogue = key != "uncatalogued"

    def clear(cloud: float | None) -> bool:
        return see_through or (cloud is not None and cloud < CLEAR_BELOW)

    square = cell_of(situation, variant if variant in VARIANTS else VARIANTS[0], cell)
    held_days, held_clear, lacking, unknown, unmet = set(), set(), set(), set(), 0
    for day, cloud, is_held in SITUATIONS[situation]:
        whole = outline(situation, variant if variant in VARIANTS else VARIANTS[0])
        is_held = is_held and variant != "not held"
        part = cut(whole, variant)
        # "Cloud of a holding that carries none is that of the scene it belongs to."
        own = None if variant == "without cloud" else cloud
        held_cloud = cloud if own is None and catalogue else own
        if is_held and touches(part, square):
            held_days.add(day)
            if clear(held_cloud):
                held_clear.add(day)
            elif held_cloud is None:
                unknown.add(day)
        if not catalogue:
            continue
        if cloud is None and not see_through and touches(whole, square):
            unknown.add(day)  # "days with a scene of unknown cloud, held or not"
        # "The missing part is a scene not held"; "unmet supply: clear scenes available and not held".
        missing = whole - part if is_held else whole
        if clear(cloud) and touches(missing, square):
            unmet += 1
            lacking.add(day)
    # "days with a clear scene not held and no clear observation held"
    ingestable = lacking - held_clear
    # "days with a scene of unknown cloud, held or not, that are neither ingestable nor held clear"
    check = unknown - ingestable - held_clear
    return Right(
        held_days,
        held_clear,
        ingestable if catalogue else None,
        check,
        unmet if catalogue else None,
        # "ceil(max(0, desired − held clear observations))"
        math.ceil(max(0, DESIRED - len(held_clear))),
    )


# The worlds


def declared(catalogue: Catalogue, *, held: bool) -> dict[str, Any]:
    return {
        key: sensor(
            None if key == "uncatalogued" else catalogue,
            key,
            held_satellite=key if held else None,
            default_desired_per_month=DESIRED,
            reach=list(REACH),
            **facts,
        )
        for key, facts in SENSORS.items()
    }


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Catalogue]:
    served = Catalogue({key: listed(key) for key in SENSORS if key != "uncatalogued"})
    yield served
    served.close()


@pytest.fixture(scope="module")
def holdings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row for key in SENSORS for row in rows_held(key)]
    return write_holdings(tmp_path_factory.mktemp("holdings") / "holdings.parquet", rows)


@pytest.fixture(scope="module")
def held_world(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue, holdings: Path) -> World:
    return build_world(tmp_path_factory.mktemp("held"), declared(catalogue, held=True), holdings=holdings)


@pytest.fixture(scope="module")
def world_of_others(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue, holdings: Path) -> World:
    """The same catalogues; the sensors are not in our holdings at all."""
    return build_world(tmp_path_factory.mktemp("others"), declared(catalogue, held=False), holdings=holdings)


@pytest.fixture(scope="module")
def world_without_holdings(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue) -> World:
    return build_world(tmp_path_factory.mktemp("off"), declared(catalogue, held=True), holdings=None)


SCENARIOS = [
    pytest.param(key, situation, variant, cell, id=f"{key}: {situation}, {variant}, {cell} cell")
    for key in SENSORS
    for situation in SITUATIONS
    for variant in VARIANTS
    for cell in CELLS
    if variant == "crop with id" or cell == "west"
]
PLACES = [pytest.param(key, situation, id=f"{key}: {situation}") for key in SENSORS for situation in SITUATIONS]


def look(world: World, key: str, situation: str, variant: str, cell: str) -> dict[str, Any]:
    assert world.error is None, world.error
    centre = cell_of(situation, variant, cell).centroid
    return world.cell(key, centre.x, centre.y)


@pytest.mark.parametrize(("key", "situation", "variant", "cell"), SCENARIOS)
def test_the_action_of_a_place(held_world: World, key: str, situation: str, variant: str, cell: str) -> None:
    """Design section 4, the action table, "in this order"."""
    seen = look(held_world, key, situation, variant, cell)
    assert seen["holdings_status"] == "read"
    # "A scan that read all its windows is still only *provisional* … in these cases: Silence …"
    known = {"uncatalogued": "not_applicable", "doubted-s2": "provisional"}.get(key, "complete")
    assert seen["scan_status"] == known
    assert seen["action"] == right_action(key, situation, variant, cell)


@pytest.mark.parametrize(("key", "situation", "variant", "cell"), [p for p in SCENARIOS if p.values[1] != "a place out of reach"])
def test_the_numbers_behind_the_action(held_world: World, key: str, situation: str, variant: str, cell: str) -> None:
    """Design section 4: held, cloud of a holding, unmet supply, ingestable days, check days, deficit."""
    seen = look(held_world, key, situation, variant, cell)
    expected = right(key, situation, variant, cell)
    for name in ("held_days", "held_clear_days", "ingestable_days", "check_days", "unmet_supply", "deficit"):
        value = getattr(expected, name)
        if key == "uncatalogued" and name == "check_days" and not value:
            continue  # known or not: test_without_a_catalogue_no_check_day_is_a_known_zero
        if value is not None:
            assert seen[name] == value, name
    if key == "uncatalogued":
        assert not seen["ingestable_days"]
    if expected.held_days:
        # "days from the last holding that touches the cell, before the month's end, to the month's end (exclusive)"
        assert seen["days_since_last_held"] == pytest.approx(31 - max(expected.held_days) - 0.445, abs=0.02)
    else:
        # "Where nothing is found within `holdings.lookback_months` it is the lookback's length": 24 months.
        assert seen["days_since_last_held"] == pytest.approx((at("2025-07-01") - at("2023-07-01")).days, abs=1)


@pytest.mark.parametrize(("key", "situation"), PLACES)
def test_the_action_where_the_sensor_is_not_held(world_of_others: World, key: str, situation: str) -> None:
    """`not_held` (the sensor is not in our holdings at all: a *known* zero)."""
    seen = look(world_of_others, key, situation, VARIANTS[0], "west")
    assert seen["holdings_status"] == "not_held"
    assert seen["action"] == right_action(key, situation, "not held", "west")
    if situation != "a place out of reach":
        expected = right(key, situation, "not held", "west")
        assert seen["deficit"] == expected.deficit
        for name in ("ingestable_days", "unmet_supply"):
            if getattr(expected, name) is not None:
                assert seen[name] == getattr(expected, name), name
        assert (seen["check_days"] or set()) == expected.check_days


@pytest.mark.parametrize(("key", "situation"), PLACES)
def test_the_action_where_holdings_are_off(world_without_holdings: World, key: str, situation: str) -> None:
    """Design: "holdings off or not read | `unknown`", after "out of scope"."""
    seen = look(world_without_holdings, key, situation, VARIANTS[0], "west")
    assert seen["holdings_status"] == "off"
    assert seen["action"] == ("out_of_scope" if situation == "a place out of reach" else "unknown")
    # "the fill means 'not known'": nothing of what needs the holdings is a number.
    for name in ("held_days", "held_clear_days", "unmet_supply", "ingestable_days", "deficit"):
        if situation != "a place out of reach":
            assert seen[name] is None, name
    if situation != "a place out of reach" and key not in ("uncatalogued",):
        assert seen["available_days"] == {day for day, _, _ in SITUATIONS[situation]}


def test_without_a_catalogue_no_check_day_is_a_known_zero(held_world: World) -> None:
    """Design: "Where the scan is not applicable, or the catalogue not known, they are the held days of unknown cloud; the mask is not known
    where there are none and the catalogue is not known": where the scan is not applicable and there are none, the mask is 0."""
    assert look(held_world, "uncatalogued", "no scene", VARIANTS[0], "west")["check_days"] == set()


def test_the_action_where_holdings_were_never_read(tmp_path: Path, catalogue: Catalogue) -> None:
    """Design: "holdings off or not read | `unknown`": a build of the other steps alone."""
    steps = [step for step in STEPS if step not in ("holdings", "holdings_stats")]
    world = build_world(tmp_path, {"pointed": declared(catalogue, held=True)["pointed"]}, holdings=tmp_path / "none.parquet", steps=steps)
    # Either the steps that need the holdings say so and write nothing, or they write that the holdings are not known: never an action.
    if not world.planner.store.zarr.exists():
        assert world.error is not None
        return
    assert world.status("pointed", name="holdings_status") in ("not_read", "off")
    assert world.actions("pointed") <= {"unknown", "out_of_scope"}


# The rows that need another month, another scope or another catalogue


@pytest.fixture
def serve() -> Iterator[Any]:
    served: list[Catalogue] = []

    def start(collections: dict[str, Any], **lies: Lies) -> Catalogue:
        served.append(Catalogue(collections, lies))
        return served[-1]

    yield start
    for catalogue in served:
        catalogue.close()


def days_of(key: str, days: Any, month: Month = JUNE, *, cloud: float | None = 2.0, place: BaseGeometry | None = None) -> list[Any]:
    geometry = place if place is not None else leaning(1.05, 31.05, 1.4, 0.4)
    return [
        item(f"SCENE-{key}-{month.key}-{day:02}", geometry, at(f"{month.key}-{day:02}T10:40:21"), collection=key, cloud=cloud)
        for day in days
    ]


def test_desired_0_is_met_where_the_holdings_are_known(tmp_path: Path, serve: Any) -> None:
    """Design: "desired 0 is met where the holdings are known"; *not held* is known, *off* is not."""
    catalogue = serve({"scenes": days_of("scenes", BEACON_DAYS)})
    some = {"held": sensor(catalogue, default_desired_per_month=0), "others": sensor(catalogue, default_desired_per_month=0)}
    del some["others"]["held_satellite"]
    world = build_world(
        tmp_path / "read", some, holdings=write_holdings(tmp_path / "h.parquet", [holding(time_of(A), shapely.box(9, 31, 10, 32))])
    )
    assert world.error is None
    assert world.cell("held", 1.25, 31.25)["action"] == "met"
    assert world.cell("held", 1.25, 31.25)["deficit"] == 0
    assert world.cell("others", 1.25, 31.25)["action"] == "met"
    world = build_world(tmp_path / "off", {"held": some["held"]}, holdings=None)
    assert world.cell("held", 1.25, 31.25)["action"] == "unknown"


def test_a_sea_is_out_of_scope(tmp_path: Path, serve: Any) -> None:
    """Design: "Scope is reach ∩ area of interest (setting: `land`, the default …). Nobody should see the ocean … as a backlog."""
    catalogue = serve({"scenes": days_of("scenes", BEACON_DAYS, place=leaning(1, 31, 8, 8))})
    world = build_world(
        tmp_path,
        {"a": sensor(catalogue)},
        holdings=write_holdings(tmp_path / "h.parquet", [holding(time_of(A), shapely.box(9, 31, 10, 32))]),
        area={"scope": "land"},
    )
    assert world.cell("a", 6.25, 38.75)["action"] == "out_of_scope"  # between Sardinia, the Balearics and Algeria
    assert world.cell("a", 3.25, 33.25)["action"] == "ingest"  # the Sahara


def test_before_the_mission_nothing_is_asked_of_a_sensor(tmp_path: Path, serve: Any) -> None:
    """Design: "A sensor can image latitudes `reach` from its first to its last month. Scope is reach ∩ area … Outside it there is no
    deficit"."""
    catalogue = serve({"scenes": days_of("scenes", BEACON_DAYS)})
    some = {
        "later": sensor(catalogue, taskable=True, first_month="2025-07"),
        "gone": sensor(catalogue, taskable=True, last_month="2025-05"),
    }
    world = build_world(tmp_path, some, holdings=write_holdings(tmp_path / "h.parquet", [holding(time_of(A), shapely.box(9, 31, 10, 32))]))
    assert world.error is None
    for key in some:
        assert world.status(key) == "not_applicable"
        assert world.actions(key) == {"out_of_scope"}


@pytest.mark.parametrize("taskable", [True, False], ids=["pointed", "systematic"])
def test_within_the_publication_lag_nothing_found_proves_nothing(tmp_path: Path, serve: Any, taskable: bool) -> None:
    """Design: "Absence counts only in a complete scan: a provisional one stores 0 too, but no `task`, `fuse` or `none` follows from it"."""
    today = dt.datetime.now(dt.UTC)
    month = Month(today.year, today.month).shift(-1)
    catalogue = serve({"scenes": days_of("scenes", BEACON_DAYS, month)})
    late = sensor(catalogue, taskable=taskable, publication_lag_days=60)
    rows = [holding(at(f"{month.key}-{A:02}T10:40:21"), leaning(1.05, 31.05, 1.4, 0.4), scene_id=f"SCENE-scenes-{month.key}-{A:02}")]
    world = build_world(tmp_path, {"late": late}, holdings=write_holdings(tmp_path / "h.parquet", rows), months=(month,))
    assert world.error is None
    nothing, something = world.cell("late", 8.25, 33.25, month), world.cell("late", 1.25, 31.25, month)
    assert nothing["scan_status"] == "provisional"
    assert (nothing["action"], nothing["scenes_count"], nothing["unmet_supply"]) == ("unknown", 0, 0)
    assert (something["action"], something["ingestable_days"]) == ("ingest", set(BEACON_DAYS) - {A})


def test_a_partial_scan_finds_what_it_finds_and_says_nothing_of_the_rest(tmp_path: Path, serve: Any) -> None:
    """Design: "−1 … in a *partial* scan wherever nothing was found. Found scenes always count; *absence* counts only in a complete
    scan"."""
    failing = Lies(failing=(at("2025-06-20T00:00:00"), at("2025-06-21T00:00:00")))
    catalogue = serve({"scenes": days_of("scenes", BEACON_DAYS)}, scenes=failing)
    rows = [holding(time_of(A), leaning(1.05, 31.05, 1.4, 0.4), scene_id=f"SCENE-scenes-2025-06-{A:02}")]
    world = build_world(
        tmp_path,
        {"a": sensor(catalogue, taskable=True)},
        holdings=write_holdings(tmp_path / "h.parquet", rows),
        scan={"publish_partial": True},
    )
    found, nothing = world.cell("a", 1.25, 31.25), world.cell("a", 8.25, 33.25)
    assert found["scan_status"] == "partial"
    assert found["action"] == "ingest"
    assert (nothing["action"], nothing["scenes_count"], nothing["available_days"]) == ("unknown", None, None)


def test_a_catalogue_that_is_down_leaves_the_month_unknown(tmp_path: Path, serve: Any) -> None:
    """Design: "Where the catalogue is down … where none [no former scan] stands the month stays not known, Acquired too, with that
    reason."""
    catalogue = serve({"scenes": []}, scenes=Lies(dead=True))
    rows = [holding(time_of(A), leaning(1.05, 31.05, 1.4, 0.4)), holding(time_of(B), leaning(1.05, 31.05, 1.4, 0.4))]
    world = build_world(tmp_path, {"a": sensor(catalogue, taskable=True)}, holdings=write_holdings(tmp_path / "h.parquet", rows))
    assert world.error is not None
    assert "2025-06" in str(world.error)
    if not world.planner.store.zarr.exists():
        return
    for lon, lat in ((1.25, 31.25), (8.25, 33.25)):
        cell = world.cell("a", lon, lat)
        assert cell["action"] in ("unknown", "out_of_scope")
        assert cell["held_days"] is None
        assert cell["scenes_count"] is None


def test_a_catalogue_that_is_down_keeps_what_it_said_before(tmp_path: Path, serve: Any) -> None:
    """Design: "Where the catalogue is down and a former scan stands, `matchup` and `holdings_stats` run from that and say its date"."""
    catalogue = serve({"scenes": days_of("scenes", BEACON_DAYS)})
    rows = [holding(time_of(A), leaning(1.05, 31.05, 1.4, 0.4), scene_id=f"SCENE-scenes-2025-06-{A:02}")]
    path = write_holdings(tmp_path / "h.parquet", rows)
    before = build_world(tmp_path, {"a": sensor(catalogue)}, holdings=path)
    assert before.cell("a", 1.25, 31.25)["held_days"] == {A}
    catalogue.lies = {"scenes": Lies(dead=True)}
    rows.append(holding(time_of(B), leaning(1.05, 31.05, 1.4, 0.4), scene_id=f"SCENE-scenes-2025-06-{B:02}"))
    write_holdings(path, rows)
    after = build_world(tmp_path, {"a": sensor(catalogue)}, holdings=path)
    assert after.error is not None
    cell = after.cell("a", 1.25, 31.25)
    assert cell["held_days"] == {A, B}
    assert cell["action"] == "met"
    assert cell["available_days"] == set(BEACON_DAYS)


MAY_TO_JULY = (Month(2025, 5), JUNE, Month(2025, 7))


@pytest.mark.parametrize(
    ("around", "action", "status"),
    [
        pytest.param(BEACON_DAYS, "unknown", "provisional", id="six scenes in the months around it: not believed"),
        pytest.param((5, 15), "task", "complete", id="two scenes in the months around it: believed"),
    ],
)
def test_an_empty_month_of_a_pointed_sensor(tmp_path: Path, serve: Any, around: Any, action: str, status: str) -> None:
    """Design: "Pointed sensors: only where the months around it, of the same area, have a median of 6 scenes or more; otherwise an empty
    answer that was read whole is believed"."""
    items = [scene for month in (MAY_TO_JULY[0], MAY_TO_JULY[2]) for scene in days_of("scenes", around, month)]
    catalogue = serve({"scenes": items})
    path = write_holdings(tmp_path / "h.parquet", [holding(time_of(A), shapely.box(9, 31, 10, 32))])
    world = build_world(tmp_path, {"a": sensor(catalogue, taskable=True)}, holdings=path, months=MAY_TO_JULY)
    assert world.status("a") == status
    assert world.cell("a", 1.25, 31.25)["action"] == action
    assert world.cell("a", 1.25, 31.25, MAY_TO_JULY[0])["scan_status"] == "complete"


def test_an_empty_month_of_a_systematic_sensor_is_not_believed_alone(tmp_path: Path, serve: Any) -> None:
    """Design: "Emptiness and thinness: systematic sensors: empty … at any count"; "where nobody can be asked … it stays"."""
    catalogue = serve({"scenes": []})
    path = write_holdings(tmp_path / "h.parquet", [holding(time_of(A), shapely.box(9, 31, 10, 32))])
    world = build_world(tmp_path, {"a": sensor(catalogue)}, holdings=path)
    assert world.status("a") == "provisional"
    assert world.actions("a") == {"unknown"}
    assert world.scan_report("a")["reason"]


def test_an_empty_month_that_every_provider_confirms_is_believed(tmp_path: Path, serve: Any) -> None:
    """Design: "Where every provider asked answers that there is nothing, read whole and without unplaced items, the doubt is gone"."""
    first, second = serve({"scenes": []}), serve({"scenes": []})
    both = sensor(first)
    both["available_sources"] = [*both["available_sources"], *sensor(second)["available_sources"]]
    path = write_holdings(tmp_path / "h.parquet", [holding(time_of(A), shapely.box(9, 31, 10, 32))])
    world = build_world(tmp_path, {"a": both}, holdings=path)
    assert world.status("a") == "complete"
    assert world.cell("a", 1.25, 31.25)["action"] == "none"
    assert second.log, "the other provider was asked"


def test_a_provider_that_does_not_cover_the_area_confirms_nothing(tmp_path: Path, serve: Any) -> None:
    """Design: "Each doubt is first put to the other providers that cover the area"; where nobody can be asked, it stays."""
    first, second = serve({"scenes": []}), serve({"scenes": []})
    both = sensor(first)
    elsewhere = {**sensor(second)["available_sources"][0], "covers": [100, -40, 120, -20]}
    both["available_sources"] = [*both["available_sources"], elsewhere]
    path = write_holdings(tmp_path / "h.parquet", [holding(time_of(A), shapely.box(9, 31, 10, 32))])
    world = build_world(tmp_path, {"a": both}, holdings=path)
    assert world.status("a") == "provisional"
    assert "none" not in world.actions("a")


def test_a_scene_that_another_provider_has_is_not_lost(tmp_path: Path, serve: Any) -> None:
    """Design: "A scene found there confirms the doubt: the month is scanned anew from that provider, else it stays provisional"."""
    first, second = serve({"scenes": []}), serve({"scenes": days_of("scenes", BEACON_DAYS)})
    both = sensor(first)
    both["available_sources"] = [*both["available_sources"], *sensor(second)["available_sources"]]
    path = write_holdings(tmp_path / "h.parquet", [holding(time_of(A), shapely.box(9, 31, 10, 32))])
    world = build_world(tmp_path, {"a": both}, holdings=path)
    cell = world.cell("a", 1.25, 31.25)
    assert (cell["scan_status"], cell["action"], cell["available_days"]) == ("complete", "ingest", set(BEACON_DAYS))
    assert world.cell("a", 8.25, 33.25)["action"] == "none"


def test_the_table_and_the_numbers_agree() -> None:
    """The actions written out above are those that the numbers of ``right`` lead to, by the order of the design's table."""
    for key in SENSORS:
        for situation in SITUATIONS:
            for variant in (*VARIANTS, "not held"):
                for cell in CELLS:
                    if situation == "a place out of reach":
                        continue
                    numbers = right(key, situation, variant, cell)
                    if numbers.deficit == 0:
                        word = "met"
                    elif numbers.ingestable_days:
                        word = "ingest"
                    elif numbers.check_days:
                        word = "check"
                    else:
                        word = LEVER[key]
                    assert right_action(key, situation, variant, cell) == word, (key, situation, variant, cell)
