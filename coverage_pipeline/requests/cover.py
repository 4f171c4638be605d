"""Which scenes to get: a cover with demands, chosen by value per byte.

An *element* is one day of one *owner*: a target, or a cell where there are no targets. A *bundle* is a set of scenes of one day that
together close elements: all of its scenes are needed. Each owner wants at most so many of its elements. Greedy by weight gained per new
byte, then pruned backwards (design section 12). With bundles of one scene the gain is submodular and the greedy is at most H(n) times as
dear as the best cover (Chvátal 1979, doi:10.1287/moor.4.3.233); with several scenes a bundle can gain worth when another is chosen, so
that no bound is proven, and a heap of values that are only ever lowered is wrong: what another choice may have raised is valued again.

No library solves it: OR-tools and SciPy's MILP find the optimum of hundreds of candidates in seconds and of 100,000 in no useful time.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

DAYS_AN_OWNER = 32
"""Element number = owner · 32 + day of the month."""


@dataclass(frozen=True)
class CoverProblem:
    """Scenes, the bundles they make up, and what is wanted.

    Bundles are in an order that depends on the scenes' keys alone, so that ties fall the same way whatever the input's order was.
    """

    size: NDArray[np.float64]
    """Bytes of each scene, > 0, ``(scenes,)``."""
    cloud: NDArray[np.float64]
    """Percent; decides between equal values, ``(scenes,)``."""
    datatake: NDArray[np.int64]
    """Number of the datatake that each scene belongs to, from 0, ``(scenes,)``."""
    bundle_scenes: NDArray[np.int64]
    """Scenes of all bundles, one after the other, ascending within each."""
    scene_offsets: NDArray[np.int64]
    """Where each bundle's scenes begin, ``(bundles + 1,)``."""
    bundle_elements: NDArray[Any]
    """Elements that each bundle closes, one after the other; an integer type that holds ``owners · 32``."""
    element_offsets: NDArray[np.int64]
    """Where each bundle's elements begin, ``(bundles + 1,)``."""
    wanted: NDArray[np.int64]
    """Elements that each owner wants at most, ``(owners,)``."""
    weight: NDArray[np.float64]
    """Worth of one of its elements, > 0, ``(owners,)``."""


@dataclass(frozen=True)
class Cover:
    """The chosen bundles, in the order in which they are worth getting."""

    bundles: NDArray[np.int64]
    value: NDArray[np.float64]
    """Weight gained per new byte of each, falling but where a bundle gained worth by the choice before it."""
    scene_step: NDArray[np.int64]
    """Place in ``bundles`` of the bundle that each scene comes with; -1: not chosen. ``(scenes,)``."""
    element: NDArray[np.int64]
    """Elements that are closed and counted, in the order of closing."""
    element_bundle: NDArray[np.int64]
    """The bundle whose scenes close each."""


def cover(problem: CoverProblem) -> Cover:
    """Choose bundles that close as much of what is wanted as all of them could, for few bytes."""
    p = problem
    bundles = len(p.scene_offsets) - 1
    by_scene, by_scene_offsets = _inverse(p.bundle_scenes, p.scene_offsets, len(p.size))
    first = p.scene_offsets[:-1]
    lengths = np.maximum(np.diff(p.scene_offsets), 1)
    cloud = np.add.reduceat(p.cloud[p.bundle_scenes], first) / lengths if bundles else np.empty(0)
    of_datatake = p.datatake[p.bundle_scenes[first]] if bundles else np.empty(0, np.int64)
    by_datatake, by_datatake_offsets = _grouped(of_datatake, int(p.datatake.max(initial=-1)) + 1)
    bundle_arrays = (p.bundle_scenes, p.scene_offsets, p.bundle_elements, p.element_offsets, by_scene, by_scene_offsets)
    arguments = (*bundle_arrays, by_datatake, by_datatake_offsets, of_datatake, cloud, p.size, p.wanted, p.weight)
    usable = np.ones(bundles, np.bool_)
    _, _, scene_step, _, _ = _greedy(*arguments, usable)
    kept = scene_step >= 0
    largest_first = np.lexsort((np.arange(len(p.size)), -p.size))
    _prune(
        p.bundle_scenes, p.scene_offsets, p.bundle_elements, p.element_offsets, by_scene, by_scene_offsets, p.wanted, largest_first, kept
    )
    usable = np.logical_and.reduceat(kept[p.bundle_scenes], first) if bundles else usable
    return Cover(*_greedy(*arguments, usable))


def _inverse(values: NDArray[np.int64], offsets: NDArray[np.int64], number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each value the rows whose list has it: rows one after the other, and where each value's begin."""
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.argsort(values, kind="stable")
    return rows[order], np.searchsorted(values[order], np.arange(number + 1)).astype(np.int64)


def _grouped(groups: NDArray[np.int64], number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(groups, kind="stable").astype(np.int64)
    return order, np.searchsorted(groups[order], np.arange(number + 1)).astype(np.int64)


@njit(cache=True, nogil=True)
def _is_had(bundle, bundle_scenes, scene_offsets, state):  # type: ignore[no-untyped-def]
    """Whether all scenes of a bundle are chosen (1) or about to be (2)."""
    for k in range(scene_offsets[bundle], scene_offsets[bundle + 1]):  # noqa: SIM110 numba has no all() of a generator
        if state[bundle_scenes[k]] == 0:
            return False
    return True


@njit(cache=True, nogil=True)
def _value(  # type: ignore[no-untyped-def]
    bundle, bundle_scenes, scene_offsets, bundle_elements, element_offsets, by_scene, by_scene_offsets, size, weight, state, closed, left,
    reached,
):  # fmt: skip
    """Weight that choosing a bundle gains, and its new bytes. ``state`` and ``closed`` are as before afterwards.

    ``reached`` is room for the bundles that it completes; returns how many these are, too.
    """
    new_bytes = 0.0
    for k in range(scene_offsets[bundle], scene_offsets[bundle + 1]):
        scene = bundle_scenes[k]
        if state[scene] == 0:
            state[scene] = 2
            new_bytes += size[scene]
    count = 0
    gain = 0.0
    for k in range(scene_offsets[bundle], scene_offsets[bundle + 1]):
        scene = bundle_scenes[k]
        if state[scene] != 2:
            continue
        for j in range(by_scene_offsets[scene], by_scene_offsets[scene + 1]):
            other = by_scene[j]
            seen = False
            for i in range(count):
                if reached[i] == other:
                    seen = True
                    break
            if seen or not _is_had(other, bundle_scenes, scene_offsets, state):
                continue
            if count < len(reached):
                reached[count] = other
                count += 1
            for i in range(element_offsets[other], element_offsets[other + 1]):
                element = bundle_elements[i]
                if closed[element] == 0 and left[element // 32] > 0:
                    closed[element] = 2
                    gain += weight[element // 32]
    for i in range(count):
        for k in range(element_offsets[reached[i]], element_offsets[reached[i] + 1]):
            if closed[bundle_elements[k]] == 2:
                closed[bundle_elements[k]] = 0
    for k in range(scene_offsets[bundle], scene_offsets[bundle + 1]):
        if state[bundle_scenes[k]] == 2:
            state[bundle_scenes[k]] = 0
    return gain, new_bytes, count


@njit(cache=True, nogil=True)
def _greedy(  # type: ignore[no-untyped-def]
    bundle_scenes, scene_offsets, bundle_elements, element_offsets, by_scene, by_scene_offsets, by_datatake, by_datatake_offsets,
    of_datatake, cloud, size, wanted, weight, usable,
):  # fmt: skip
    bundles = len(scene_offsets) - 1
    state = np.zeros(len(size), np.uint8)
    closed = np.zeros(len(wanted) * 32, np.uint8)
    left = wanted.copy()
    taken = np.zeros(len(by_datatake_offsets), np.bool_)
    version = np.zeros(bundles, np.int64)
    valued_at = np.full(bundles, -1, np.int64)
    scene_step = np.full(len(size), -1, np.int64)
    order = np.empty(bundles, np.int64)
    value = np.empty(bundles, np.float64)
    elements = np.empty(wanted.sum(), np.int64)
    element_bundle = np.empty(len(elements), np.int64)
    number, counted = 0, 0
    most = 1
    for scene in range(len(size)):
        most = max(most, by_scene_offsets[scene + 1] - by_scene_offsets[scene])
    widest = 1
    for bundle in range(bundles):
        widest = max(widest, scene_offsets[bundle + 1] - scene_offsets[bundle])
    reached = np.empty(most * widest, np.int64)
    again = np.empty(bundles, np.int64)
    heap = [(0.0, 0.0, 0, 0, 0)]
    heap.clear()
    for bundle in range(bundles):
        if usable[bundle]:
            gain, new_bytes, _ = _value(
                bundle, bundle_scenes, scene_offsets, bundle_elements, element_offsets, by_scene, by_scene_offsets, size, weight, state,
                closed, left, reached,
            )  # fmt: skip
            if gain > 0:
                heap.append((-gain / new_bytes, cloud[bundle], 1, bundle, 0))
    heapq.heapify(heap)
    while len(heap):
        top = heapq.heappop(heap)
        bundle = top[3]
        if top[4] != version[bundle]:
            continue
        gain, new_bytes, completed = _value(
            bundle, bundle_scenes, scene_offsets, bundle_elements, element_offsets, by_scene, by_scene_offsets, size, weight, state, closed,
            left, reached,
        )  # fmt: skip
        if gain <= 0 or new_bytes <= 0:
            continue
        ratio = -gain / new_bytes
        if ratio != top[0]:  # days were closed meanwhile
            version[bundle] += 1
            heapq.heappush(heap, (ratio, top[1], 0 if taken[of_datatake[bundle]] else 1, bundle, version[bundle]))
            continue
        order[number], value[number] = bundle, gain / new_bytes
        version[bundle] += 1
        changed = 0
        for i in range(completed):
            other = reached[i]
            for k in range(element_offsets[other], element_offsets[other + 1]):
                element = bundle_elements[k]
                if closed[element] == 0:
                    closed[element] = 1
                    if left[element // 32] > 0:
                        left[element // 32] -= 1
                        elements[counted], element_bundle[counted] = element, other
                        counted += 1
        # What shares a scene with a bundle that shares a scene with this one may be worth more now.
        for k in range(scene_offsets[bundle], scene_offsets[bundle + 1]):
            scene = bundle_scenes[k]
            if state[scene]:
                continue
            state[scene] = 1
            scene_step[scene] = number
            for j in range(by_scene_offsets[scene], by_scene_offsets[scene + 1]):
                near = by_scene[j]
                for i in range(scene_offsets[near], scene_offsets[near + 1]):
                    beside = bundle_scenes[i]
                    for m in range(by_scene_offsets[beside], by_scene_offsets[beside + 1]):
                        if valued_at[by_scene[m]] != number and usable[by_scene[m]]:
                            valued_at[by_scene[m]] = number
                            again[changed] = by_scene[m]
                            changed += 1
        datatake = of_datatake[bundle]
        if not taken[datatake]:
            taken[datatake] = True
            for k in range(by_datatake_offsets[datatake], by_datatake_offsets[datatake + 1]):
                if valued_at[by_datatake[k]] != number and usable[by_datatake[k]]:
                    valued_at[by_datatake[k]] = number
                    again[changed] = by_datatake[k]
                    changed += 1
        for i in range(changed):
            other = again[i]
            if _is_had(other, bundle_scenes, scene_offsets, state):
                continue
            gain, new_bytes, _ = _value(
                other, bundle_scenes, scene_offsets, bundle_elements, element_offsets, by_scene, by_scene_offsets, size, weight, state,
                closed, left, reached,
            )  # fmt: skip
            version[other] += 1
            if gain > 0:
                heapq.heappush(heap, (-gain / new_bytes, cloud[other], 0 if taken[of_datatake[other]] else 1, other, version[other]))
        number += 1
    return order[:number], value[:number], scene_step, elements[:counted], element_bundle[:counted]


@njit(cache=True, nogil=True)
def _prune(  # type: ignore[no-untyped-def]
    bundle_scenes, scene_offsets, bundle_elements, element_offsets, by_scene, by_scene_offsets, wanted, scenes, kept
):  # fmt: skip
    """Clear ``kept`` of each scene, in the order of ``scenes``, without which as much of what is wanted is closed."""
    lacking = np.zeros(len(scene_offsets) - 1, np.int64)
    had = np.zeros(len(wanted) * 32, np.int32)
    days = np.zeros(len(wanted), np.int64)
    for bundle in range(len(lacking)):
        for k in range(scene_offsets[bundle], scene_offsets[bundle + 1]):
            lacking[bundle] += not kept[bundle_scenes[k]]
        if lacking[bundle] == 0:
            for k in range(element_offsets[bundle], element_offsets[bundle + 1]):
                element = bundle_elements[k]
                had[element] += 1
                if had[element] == 1:
                    days[element // 32] += 1
    for scene in scenes:
        if not kept[scene]:
            continue
        needed = False
        for step in range(2):  # take away; put back where a day is lost that is wanted
            for j in range(by_scene_offsets[scene], by_scene_offsets[scene + 1]):
                bundle = by_scene[j]
                if step == 1:
                    lacking[bundle] -= 1
                if lacking[bundle] == 0:
                    for k in range(element_offsets[bundle], element_offsets[bundle + 1]):
                        element = bundle_elements[k]
                        if step == 0:
                            had[element] -= 1
                            if had[element] == 0:
                                days[element // 32] -= 1
                                needed = needed or days[element // 32] < wanted[element // 32]
                        else:
                            had[element] += 1
                            if had[element] == 1:
                                days[element // 32] += 1
                if step == 0:
                    lacking[bundle] += 1
            if not needed:
                kept[scene] = False
                break
