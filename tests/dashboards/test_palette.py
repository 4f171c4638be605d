"""Colours that must not be taken for one another, for usual and for colour-blind eyes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coverage_dashboards import palette
from coverage_pipeline.cube.schema import ACTIONS, METRICS

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
}


def lab(colour: str, sight: str) -> np.ndarray:
    rgb = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.clip(SIGHT[sight] @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one: str, other: str, sight: str) -> float:
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("metric", [m for m in METRICS if m != "action"])
def test_zero_unknown_and_out_of_scope_are_three_colours(metric, dark, sight):
    around, zero = palette.theme(dark), palette.ramp(metric, dark)[0]
    assert apart(zero, around.unknown, sight) > 20
    assert apart(around.unknown, around.page, sight) > 20
    if METRICS[metric].layer == "gap":
        assert apart(zero, around.out_of_scope, sight) > 12
        assert apart(around.unknown, around.out_of_scope, sight) > 20


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("metric", [m for m in METRICS if m != "action"])
def test_no_number_looks_like_not_known(metric, dark):
    assert min(apart(c, palette.theme(dark).unknown, "usual") for c in palette.ramp(metric, dark)) > 8


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("dark", [False, True])
def test_every_two_actions_are_apart(dark, sight):
    colours = dict(zip(ACTIONS, palette.action_colours(ACTIONS, dark), strict=True))
    for one, other in itertools.combinations(colours, 2):
        assert apart(colours[one], colours[other], sight) > 20, (one, other)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("metric", [m for m in METRICS if m != "action"])
def test_ramps_grow_steadily_in_lightness(metric, dark):
    lightness = [lab(c, "usual")[0] for c in palette.ramp(metric, dark)[::16]]
    steps = np.diff(lightness)
    assert (steps <= 1.0).all() or (steps >= -1.0).all()
    assert len(palette.ramp(metric, dark)) == palette.STEPS
