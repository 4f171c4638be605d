"""A pixel as one number: nothing that a planner must tell apart becomes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards import palette
from coverage_dashboards.coding import LIMITS, coding_of, colours_of, hatch_of, hover_of
from coverage_dashboards.fields import CHANGE, CHANGES, Field, Limits
from coverage_dashboards.viewport import OUT_OF_SCOPE, Picture
from coverage_pipeline.cube.schema import ACTIONS


def field(top: float, months: int = 6, metric: str = "scenes_count") -> Field:
    values = np.array([[0.0, top]], np.float32)
    return Field(metric, values, np.zeros((1, 2), np.uint8), months, (0, months), Limits(0.0, max(top, 1.0)), "scenes", top=top)


@given(
    st.floats(0.0, 1e6, width=32),
    st.integers(1, 300),
    st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 255)), min_size=1, max_size=20),
)
def test_values_and_months_are_read_back(top: float, months: int, pixels: list[tuple[float, int]]) -> None:
    one = field(top, months)
    coding = coding_of(one)
    values = np.array([[share * top for share, _ in pixels]], np.float32)
    known = np.array([[min(count, months) for _, count in pixels]], np.uint8)
    codes = coding.encode(values, known)
    assert codes.dtype == np.uint16
    assert coding.classes * coding.span == 1 << 16
    assert coding.span > coding.months
    back = codes // coding.span * coding.step
    assert np.all(codes % coding.span == np.minimum(known, coding.months))
    # Half a step; of a value that is nearly nothing a whole one, for it must not become nothing.
    assert np.all(np.abs(back - values) <= coding.step * (1 + 1e-5))
    assert np.all((back > 0) == (values > 0))
    assert coding.step <= max(top, 1.0) / 100  # a step that divides 1 may be nearly twice what it need be


@given(st.integers(1, 3000), st.integers(1, 12))
def test_whole_numbers_are_exact(top: int, months: int) -> None:
    coding = coding_of(field(float(top), months))
    values = np.arange(top + 1, dtype=np.float32)[None]
    codes = coding.encode(values, np.zeros(values.shape, np.uint8))
    if coding.step <= 1:
        np.testing.assert_allclose(codes // coding.span * coding.step, values, rtol=1e-9)


def test_unknown_and_beside_are_no_values() -> None:
    coding = coding_of(field(5.0))
    values = np.array([[np.nan, OUT_OF_SCOPE, 0.0, 99.0]], np.float32)
    classes = coding.encode(values, np.zeros(values.shape, np.uint8)) // coding.span
    assert classes.tolist() == [[coding.unknown, coding.beside, 0, coding.values - 1]]


def test_a_hatch_lies_over_what_is_not_known_and_over_nothing_else() -> None:
    everywhere = np.ones((1, 4), bool)
    values = np.array([[np.nan, OUT_OF_SCOPE, 0.0, 5.0]], np.float32)
    coding = coding_of(field(5.0))
    classes = coding.encode(values, np.ones(values.shape, np.uint8), everywhere) // coding.span
    assert classes[0, :2].tolist() == [coding.striped, coding.beside]
    assert np.array_equal(classes[0, 2:], coding.encode(values, np.ones(values.shape, np.uint8))[0, 2:] // coding.span)
    # Of actions *unknown* is a value like the others, and hatched as well.
    one = field(float(len(ACTIONS) - 1), 6, "action")
    coding = coding_of(one)
    values = np.arange(len(ACTIONS), dtype=np.float32)[None]
    classes = coding.encode(values, np.ones(values.shape, np.uint8), np.ones(values.shape, bool))[0] // coding.span
    assert [k for k, found in enumerate(classes) if found == coding.striped] == [ACTIONS.index("unknown")]
    colours = colours_of(coding, one, one.limits, False)
    assert colours[coding.striped] == palette.LIGHT.stripe
    assert hover_of(coding)["unknown"] == ACTIONS.index("unknown")


def test_the_lines_of_the_hatch_keep_their_place_on_the_ground() -> None:
    """A map that is moved by some pixels shows the same lines, moved by as many."""
    values = np.zeros((40, 60), np.float32)
    one = hatch_of(Picture(values, (1000.0, 1000.0 + 60 * 50), (-500.0, -500.0 + 40 * 50), 1.0))
    other = hatch_of(Picture(values, (1000.0 + 7 * 50, 1000.0 + 67 * 50), (-500.0 - 3 * 50, -500.0 + 37 * 50), 1.0))
    assert np.array_equal(one[:-3, 7:], other[3:, :-7])
    assert one.mean() == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
def test_each_class_has_its_own_colour(dark: bool) -> None:
    around = palette.theme(dark)
    for metric, names, shown in (
        ("action", ACTIONS, palette.action_colours(ACTIONS, dark)),
        (CHANGE, CHANGES, palette.change_colours(CHANGES, dark)),
    ):
        one = field(float(len(names) - 1), 6, metric)
        coding = coding_of(one)
        values = np.arange(len(names), dtype=np.float32)[None]
        classes = coding.encode(values, np.full(values.shape, 6, np.uint8)) // coding.span
        colours = colours_of(coding, one, one.limits, dark)
        assert [colours[k] for k in classes[0]] == shown
        assert colours[coding.unknown] == around.unknown
        assert colours[coding.beside] == around.out_of_scope


@pytest.mark.parametrize("dark", [False, True])
def test_a_ramp_ends_where_its_bar_ends(dark: bool) -> None:
    one = replace(field(100.0), limits=Limits(0.0, 50.0, above=True))
    coding, ramp = coding_of(one), palette.ramp("scenes_count", dark)
    colours = colours_of(coding, one, one.limits, dark)
    at = {
        value: colours[int(coding.encode(np.array([[value]], np.float32), np.zeros((1, 1), np.uint8))[0, 0]) // coding.span]
        for value in (0, 25, 50, 100)
    }
    assert at[0] == ramp[0]
    assert at[50] == at[100] == ramp[-1]
    assert at[25] == ramp[len(ramp) // 2]


def test_a_linear_mapper_finds_every_class() -> None:
    """As Bokeh's does it: floor((code − low) / (high − low) × number of colours)."""
    for months in (1, 6, 60, 255):
        coding = coding_of(field(7.0, months))
        low, high = LIMITS
        codes = np.arange(1 << 16)
        found = np.floor((codes - low) * (1 / (high - low)) / (1 / coding.classes))
        assert np.array_equal(found, codes // coding.span)
        assert len(colours_of(coding, field(7.0, months), Limits(0.0, 7.0), False)) == coding.classes


def test_the_pointer_is_told_no_more_decimals_than_there_are() -> None:
    assert hover_of(coding_of(field(4094.0)))["decimals"] == 0
    assert hover_of(coding_of(field(12.0)))["decimals"] == 2
