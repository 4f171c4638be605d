"""Day masks against plain Python: lists of days, counted by hand."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from coverage_pipeline.grid.daymask import UNKNOWN, day_bit, is_known, leading_wait, longest_wait, observations, summed_wait, trailing_wait

LENGTHS = st.integers(28, 31)
MONTHS = LENGTHS.flatmap(lambda n: st.tuples(st.just(n), st.lists(st.sets(st.integers(1, n)), min_size=1, max_size=20)))


def mask_of(days: set[int]) -> int:
    return sum(2 ** (day - 1) for day in days)


def plain_wait(days: set[int], length: int) -> int:
    runs = itertools.groupby(range(1, length + 1), key=lambda day: day in days)
    return max((len(list(run)) for seen, run in runs if not seen), default=0)


@given(MONTHS)
@example((31, [set(range(1, 32)), set(), {1}, {31}]))
@example((28, [set(range(1, 29)), {28}]))
def test_observations_and_the_longest_wait(month: tuple[int, list[set[int]]]) -> None:
    length, cells = month
    masks = np.array([mask_of(days) for days in cells], np.uint32)
    assert observations(masks).tolist() == [len(days) for days in cells]
    assert longest_wait(masks, length).tolist() == [plain_wait(days, length) for days in cells]


@given(MONTHS)
@example((31, [set(range(1, 32)), set(), {1}, {31}]))
@example((28, [set(), {1}, {28}]))
def test_waits_at_either_end_and_the_sum_of_all_waits(month: tuple[int, list[set[int]]]) -> None:
    length, cells = month
    masks = np.array([mask_of(days) for days in cells], np.uint32)
    assert leading_wait(masks, length).tolist() == [min(days, default=length + 1) - 1 for days in cells]
    assert trailing_wait(masks, length).tolist() == [length - max(days, default=0) for days in cells]
    after = length + 1  # where the month ends first, the wait ends with it
    plain = [sum(min({d for d in days if d >= day} | {after}) - day for day in range(1, after)) for days in cells]
    assert summed_wait(masks, length).tolist() == plain


def test_a_wait_ends_with_the_month_whatever_bits_lie_beyond_it() -> None:
    beyond = np.uint32((1 << 28) | (1 << 30) | (1 << 31))
    waits = [f(beyond, 28).tolist() for f in (leading_wait, trailing_wait, longest_wait, summed_wait)]
    assert waits == [28, 28, 28, 28 * 29 // 2]


@given(st.lists(st.integers(1, 31), min_size=1))
def test_the_bit_of_a_day(days: list[int]) -> None:
    for dtype in (np.uint8, np.int64):
        bits = day_bit(np.array(days, dtype))
        assert bits.dtype == np.uint32
        assert bits.tolist() == [2 ** (day - 1) for day in days]
        assert np.array_equal(observations(bits), np.ones(len(days)))
    assert is_known(day_bit(np.array(days))).all()  # the 31st is no "not known"


def test_waits_broadcast_month_lengths_against_masks() -> None:
    masks = np.array([[0, 1], [1 << 14, (1 << 28) - 1]], np.uint32)
    days = np.array([[28], [31]], np.uint8)
    assert longest_wait(masks, days).tolist() == [[28, 27], [16, 3]]
    assert leading_wait(masks, days).tolist() == [[28, 0], [14, 0]]
    assert trailing_wait(masks, days).tolist() == [[28, 27], [16, 3]]
    assert summed_wait(masks, days).tolist() == [[406, 378], [105 + 136, 6]]
    assert int(longest_wait(np.uint32(0), np.uint8(30))) == 30
    assert int(leading_wait(np.uint32(0), np.uint8(30))) == int(trailing_wait(np.uint32(0), np.uint8(30))) == 30


def test_unknown_is_one_bit_that_no_day_uses() -> None:
    assert int(UNKNOWN) == 2**31
    assert is_known(np.array([0, 2**31 - 1, 2**31], np.uint32)).tolist() == [True, True, False]
    assert observations(UNKNOWN) == 0


def test_no_function_changes_its_arguments() -> None:
    masks, days = np.array([0, 5, 2**31], np.uint32), np.array([28, 30, 31], np.uint8)
    before = masks.copy(), days.copy()
    observations(masks)
    for wait in (longest_wait, leading_wait, trailing_wait, summed_wait):
        wait(masks, days)
    assert np.array_equal(masks, before[0])
    assert np.array_equal(days, before[1])
