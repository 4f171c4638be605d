"""Groups of sensors: known, met, ingest, check and the rest by the rules of design section 12, against a plain reading of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from coverage_pipeline.cube.schema import ACTIONS, CoverageQuery
from coverage_pipeline.cube.select import select
from coverage_pipeline.demand.groups import MemberMasks, SensorGroup, group_dataset, group_gap, sensor_groups
from coverage_pipeline.demand.weights import GapError
from coverage_pipeline.grid.daymask import UNKNOWN
from coverage_pipeline.holdings.metadata import HOLDINGS_STATUS
from coverage_pipeline.months import Month
from coverage_pipeline.scenes.schema import SCAN_STATUS
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.settings.load import load_settings

APRIL = Month(2025, 4)
DAYS = st.one_of(st.none(), st.frozensets(st.integers(1, 5)))
MEMBER = st.fixed_dictionaries(
    {"held": DAYS, "ingestable": DAYS, "check": DAYS, "reach": st.booleans(), "absent": st.booleans(), "taskable": st.booleans()}
)


def mask(days: frozenset[int] | None) -> np.uint32:
    return UNKNOWN if days is None else np.uint32(sum(1 << (day - 1) for day in days))


def right(members: list[dict[str, Any]], desired: float) -> tuple[str, int]:
    """Action and deficit (-1: not known), in sets of days."""
    inside = [m for m in members if m["reach"]]
    if not inside:
        return "out_of_scope", 0
    observed = frozenset().union(*(m["held"] for m in inside if m["held"] is not None))
    met_already = desired > 0 and len(observed) >= desired
    if any(m["held"] is None for m in inside) and not met_already:
        return "unknown", -1
    missing = max(0, int(np.ceil(desired - len(observed))))
    if not missing:
        return "met", 0
    ingestable = frozenset().union(*(m["ingestable"] for m in inside if m["ingestable"] is not None)) - observed
    check = frozenset().union(*(m["check"] for m in inside if m["check"] is not None)) - observed - ingestable
    if ingestable or check:
        return ("ingest" if ingestable else "check"), missing
    if all(m["absent"] for m in inside):
        return ("task" if any(m["taskable"] for m in inside) else "none"), missing
    return "unknown", missing


@given(st.lists(MEMBER, min_size=1, max_size=3), st.sampled_from([0.0, 1.0, 2.0, 2.5]))
def test_a_group_is_judged_as_the_design_says(members: list[dict[str, Any]], desired: float) -> None:
    masks = [
        MemberMasks(
            np.array([mask(m["held"])]), np.array([mask(m["ingestable"])]), np.array([mask(m["check"])]), np.array([m["reach"]]),
            np.array([m["held"] is not None]), np.array([m["absent"]]), m["taskable"],
        )
        for m in members
    ]  # fmt: skip
    gap = group_gap(masks, desired, APRIL)
    assert (ACTIONS[int(gap.action[0])], int(gap.deficit[0])) == right(members, desired)


def test_groups_are_checked() -> None:
    for wrong, words in (
        ({"Optical!": (["emit"], 1.0)}, "lower-case"),
        ({"emit": (["enmap"], 1.0)}, "sensor's key"),
        ({"optical": (["emit", "nope"], 1.0)}, "nope"),
        ({"one": (["emit"], 1.0), "two": (["emit"], 1.0)}, "is in one already"),
    ):
        with pytest.raises(GapError, match=words):
            sensor_groups(wrong, COVERAGE_SENSORS)


def test_a_member_keeps_a_deficit_of_its_own_only_where_desired_names_it() -> None:
    groups = {"optical": {"sensors": ["landsat-8-9", "sentinel-2"], "desired": 6}}
    settings = load_settings(None, {"gap": {"groups": groups, "desired": {"sentinel-2": 3}}}, environment=False)
    desired = settings.desired()
    assert desired.for_sensor("landsat-8-9", COVERAGE_SENSORS) == 0
    assert desired.for_sensor("sentinel-2", COVERAGE_SENSORS) == 3
    assert desired.for_sensor("emit", COVERAGE_SENSORS) == COVERAGE_SENSORS["emit"].default_desired_per_month
    assert settings.groups()["optical"].desired == 6


def test_cells_of_a_cube_are_read_as_a_group() -> None:
    """Two members: a day of each, and where one is not read the group is known only if the other meets it."""
    dims = ("sensor", "time", "lat", "lon")

    def field(*values: Any) -> tuple[tuple[str, ...], np.ndarray[Any, Any]]:
        return dims, np.array(values, np.uint32).reshape(2, 1, 1, 3)

    first, second = COVERAGE_SENSORS["landsat-8-9"], COVERAGE_SENSORS["sentinel-2"]
    ds = xr.Dataset(
        {
            "held_clear_days": field([1, 3, 0], [2, UNKNOWN, UNKNOWN]),
            "ingestable_days": field([0, 0, 4], [4, UNKNOWN, UNKNOWN]),
            "check_days": field([0, 0, 0], [0, UNKNOWN, UNKNOWN]),
            "in_scope": (("sensor", "lat", "lon"), np.ones((2, 1, 3), np.uint8)),
            "scan_status": (("sensor", "time"), np.full((2, 1), SCAN_STATUS.index("complete"), np.uint8)),
            "holdings_status": (("sensor", "time"), np.full((2, 1), HOLDINGS_STATUS.index("read"), np.uint8)),
        },
        coords={"sensor": [first.key, second.key], "time": [APRIL.to_datetime64()], "lat": [0.5], "lon": [0.5, 1.5, 2.5]},
    )
    group = group_dataset(ds, SensorGroup("optical", (first, second), 2.0))
    query = CoverageQuery("gap", "deficit", ["optical"], APRIL.start.date(), APRIL.start.date(), "recent")
    assert select(group, query).values.tolist()[0][:2] == [0.0, 0.0]
    assert np.isnan(select(group, query).values[0, 2])  # one is not read, and the other holds nothing
    actions = select(group, CoverageQuery("gap", "action", ["optical"], APRIL.start.date(), APRIL.start.date(), "recent"))
    assert [ACTIONS[int(code)] for code in actions.values[0]] == ["met", "met", "unknown"]
