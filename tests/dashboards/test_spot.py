"""Room, place, part of the map and theme in the address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards.address_bar import parameters_of
from coverage_dashboards.spot import ROOMS, Spot, spot_address, spot_from_address

degrees = st.integers(-179_000, 179_000).map(lambda n: n / 1000)


@st.composite
def spots(draw: st.DrawFn) -> Spot:
    west, east = sorted(draw(st.tuples(degrees, degrees).filter(lambda pair: pair[0] != pair[1])))
    south, north = sorted(draw(st.tuples(degrees, degrees).filter(lambda pair: pair[0] != pair[1])))
    box = draw(st.sampled_from([None, (west, south / 2, east, north / 2)]))
    if box is not None:
        box = tuple(round(v, 3) for v in box)
    return Spot(
        draw(st.sampled_from(list(ROOMS))),
        draw(st.sampled_from(["", "47.65,9.35", "target:a,b&c=d"])),
        box,
        draw(st.booleans()),
        draw(st.booleans()),
    )


@given(spots())
def test_an_address_leads_to_where_it_was_written(spot: Spot) -> None:
    from urllib.parse import urlencode

    if spot.box is not None and (spot.box[0] >= spot.box[2] or spot.box[1] >= spot.box[3]):
        return
    parameters = parameters_of("?" + urlencode(spot_address(spot), safe=","))
    assert spot_from_address(parameters or {}) == (spot, [])


def test_nothing_is_said_where_nothing_is_asked() -> None:
    assert spot_from_address({}) == (Spot(), [])
    assert spot_address(Spot()) == {}


@pytest.mark.parametrize(
    "view", ["1,2,3", "a,b,c,d", "10,0,5,5", "0,10,5,5", "nan,0,1,1", "-inf,0,1,1", "-361,0,0,1", "0,-91,1,1", "1,1,1,1", "9" * 5000]
)
def test_a_part_of_the_world_that_is_none_is_left_out(view: str) -> None:
    assert spot_from_address({"view": [view]}) == (Spot(), ["view"])


@given(st.dictionaries(st.sampled_from(["room", "place", "view", "theme", "changes"]), st.lists(st.binary(max_size=400), max_size=2)))
def test_any_address_leads_somewhere(parameters: dict[str, list[bytes]]) -> None:
    spot, _ = spot_from_address(parameters)
    assert spot.room in ROOMS
    assert len(spot.place) <= 200
