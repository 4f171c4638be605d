"""The cover against brute force, its bound where offers are single scenes, and its indifference to order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coverage_pipeline.requests.cover import CoverProblem, cover

Bundle = tuple[tuple[int, ...], tuple[int, ...]]
"""Scenes, and elements (owner · 32 + day)."""


def problem_of(
    size: Sequence[float], bundles: Sequence[Bundle], wanted: Sequence[int], weight: Sequence[float] = (), cloud: Sequence[float] = ()
) -> CoverProblem:
    bundles = sorted(bundles)
    scenes, elements = [b[0] for b in bundles], [b[1] for b in bundles]
    return CoverProblem(
        np.array(size, np.float64),
        np.array(cloud or [0.0] * len(size), np.float64),
        np.zeros(len(size), np.int64),
        np.array([s for b in scenes for s in b], np.int64),
        np.cumsum([0, *map(len, scenes)]).astype(np.int64),
        np.array([e for b in elements for e in b], np.int64),
        np.cumsum([0, *map(len, elements)]).astype(np.int64),
        np.array(wanted, np.int64),
        np.array(weight or [1.0] * len(wanted), np.float64),
    )


def closed_weight(p: CoverProblem, had: NDArray[np.bool_]) -> float:
    """Weight closed by a set of scenes, counted slowly: each owner's distinct closed days, at most what it wants."""
    days: dict[int, set[int]] = {}
    for b in range(len(p.scene_offsets) - 1):
        if all(had[s] for s in p.bundle_scenes[p.scene_offsets[b] : p.scene_offsets[b + 1]]):
            for e in p.bundle_elements[p.element_offsets[b] : p.element_offsets[b + 1]].tolist():
                days.setdefault(e // 32, set()).add(e % 32)
    return float(sum(min(len(some), p.wanted[owner]) * p.weight[owner] for owner, some in days.items()))


def random_problem(rng: np.random.Generator, widest: int) -> CoverProblem:
    scenes = int(rng.integers(2, 13))
    day_of = rng.integers(1, 4, scenes)
    owners = int(rng.integers(1, 6))
    sets = set()
    for _ in range(int(rng.integers(1, 13))):
        of_day = np.flatnonzero(day_of == rng.choice(day_of))
        chosen = rng.choice(of_day, min(len(of_day), int(rng.integers(1, widest + 1))), replace=False)
        sets.add(tuple(sorted(int(s) for s in chosen)))
    bundles = []
    for one in sets:
        some = rng.choice(owners, int(rng.integers(1, owners + 1)), replace=False)
        bundles.append((one, tuple(sorted(int(o) * 32 + int(day_of[one[0]]) for o in some))))
    weight = rng.choice([1.0, 2.0, 3.0], owners).tolist()
    return problem_of(rng.uniform(0.3, 2.0, scenes).tolist(), bundles, rng.integers(1, 4, owners).tolist(), weight)


def cheapest(p: CoverProblem) -> float:
    """Bytes of the cheapest set of scenes that closes as much as all of them do."""
    whole = closed_weight(p, np.ones(len(p.size), bool))
    choices = np.array(list(itertools.product((False, True), repeat=len(p.size))))
    costs = choices @ p.size
    return float(next(costs[k] for k in np.argsort(costs) if closed_weight(p, choices[k]) == pytest.approx(whole)))


def test_it_closes_all_that_can_be_closed_for_about_as_few_bytes_as_brute_force() -> None:
    rng = np.random.default_rng(12)
    ratios = []
    for _ in range(500):
        p = random_problem(rng, widest=3)
        had = cover(p).scene_step >= 0
        assert closed_weight(p, had) == pytest.approx(closed_weight(p, np.ones(len(p.size), bool)))
        best = cheapest(p)
        ratios.append(float(p.size[had].sum()) / best if best else 1.0)
    assert np.mean(np.array(ratios) < 1 + 1e-9) >= 0.8
    assert max(ratios) <= 1.5


def test_with_single_scenes_the_harmonic_bound_holds() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        p = random_problem(rng, widest=1)
        had = cover(p).scene_step >= 0
        most = int(np.diff(p.element_offsets).max())
        # Weights up to 3: an element of weight w is w elements of weight 1 (Wolsey 1982).
        bound = sum(1 / k for k in range(1, 3 * most + 1))
        assert float(p.size[had].sum()) <= bound * cheapest(p) + 1e-9


@given(st.integers(0, 2**32 - 1))
def test_every_chosen_scene_is_needed_and_every_step_pays(seed: int) -> None:
    p = random_problem(np.random.default_rng(seed), widest=3)
    chosen = cover(p)
    had = chosen.scene_step >= 0
    whole = closed_weight(p, had)
    for scene in np.flatnonzero(had):
        without = had.copy()
        without[scene] = False
        assert closed_weight(p, without) < whole
    assert (chosen.value > 0).all()
    so_far = np.zeros(len(p.size), bool)
    for step, value in enumerate(chosen.value):
        before, new = closed_weight(p, so_far), chosen.scene_step == step
        so_far = so_far | new
        assert (closed_weight(p, so_far) - before) / p.size[new].sum() == pytest.approx(value)
    assert len(chosen.element) == len(set(chosen.element.tolist()))
    assert float(p.weight[chosen.element // 32].sum()) == pytest.approx(whole)


def test_a_bundle_that_another_choice_makes_cheap_is_taken() -> None:
    """Scenes 0 and 1 together close three owners; scene 0 alone closes one cheaply, and then 1 is worth more than it was."""
    p = problem_of([1.0, 1.0, 2.5], [((0,), (1,)), ((0, 1), (33, 65)), ((2,), (33, 65))], [1, 1, 1])
    assert (cover(p).scene_step >= 0).tolist() == [True, True, False]


def test_nothing_wanted_or_nothing_offered_chooses_nothing() -> None:
    assert not len(cover(problem_of([1.0], [((0,), (1,))], [0])).bundles)
    assert not len(cover(problem_of([], [], [1])).bundles)


def test_ties_fall_to_less_cloud_then_to_the_key() -> None:
    same = [((0,), (1,)), ((1,), (1,))]
    assert (cover(problem_of([1.0, 1.0], same, [1], cloud=[5.0, 2.0])).scene_step >= 0).tolist() == [False, True]
    assert (cover(problem_of([1.0, 1.0], same, [1], cloud=[2.0, 2.0])).scene_step >= 0).tolist() == [True, False]
