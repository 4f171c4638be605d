"""A pixel as one number: its value and how many months of it are known, in 16 bits, and the colours that go with the numbers.

What the browser gets of a map is this number alone: two bytes a pixel, where the value as float32 and the months beside it were five. A
palette has a colour for each class of value, so that picture and colours cannot be taken apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coverage_dashboards import palette
from coverage_dashboards.fields import CHANGE, Field, Limits, classes_of
from coverage_dashboards.viewport import OUT_OF_SCOPE, Picture

MOST_CLASSES = 2048
NOT_KNOWN = ("unknown", "not known")
"""Classes that mean not known: an action's, and a change's."""
_CODES = 1 << 16
LIMITS = (-0.5, _CODES - 0.5)
"""Ends of the linear colour mapper that gives each class its own colour; half a code beside, so that no rounding matters."""


@dataclass(frozen=True)
class Coding:
    """``code = class × span + known``. Class k < ``values`` stands for ``k × step``; then come *beside* and *not known*.

    All codings fill 16 bits with a power of two of classes, so that the colour mapper's ends (``LIMITS``) are the same for every map: a
    change of them was lost now and then while the browser made the map, and all of it was grey.
    """

    values: int
    """Classes of values."""
    step: float
    months: int
    """Most months that can be known."""
    not_known: int | None = None
    """Class of values that means not known, of maps of classes that have one."""

    @property
    def beside(self) -> int:
        """Class of pixels in which nothing is wanted."""
        return self.values

    @property
    def unknown(self) -> int:
        """Class of pixels that are not known."""
        return self.values + 1

    @property
    def striped(self) -> int:
        """Class of pixels that are not known and lie under a line of the hatch."""
        return self.values + 2

    @property
    def span(self) -> int:
        """Codes a class."""
        return _CODES // self.classes

    @property
    def classes(self) -> int:
        """Classes in all, those that no pixel has included: a power of two."""
        return 1 << (self.values + 2).bit_length()

    def encode(self, values: NDArray[np.float32], known: NDArray[np.uint8], hatch: NDArray[np.bool_] | None = None) -> NDArray[np.uint16]:
        """Codes of pixels; ``values`` has NaN where not known and ``OUT_OF_SCOPE`` where nothing is wanted; pixels that are not known are
        striped where ``hatch`` says so.
        """
        finite = np.isfinite(values)
        classes = np.full(values.shape, self.unknown, np.int64)
        classes[values == OUT_OF_SCOPE] = self.beside
        some = values[finite]
        # However little there is, it is not nothing.
        classes[finite] = np.clip(np.rint(some / self.step), some > 0, self.values - 1)
        if hatch is not None:
            nowhere = classes == self.unknown
            if self.not_known is not None:
                nowhere |= classes == self.not_known
            classes[nowhere & hatch] = self.striped
        return (classes * self.span + np.minimum(known, self.months)).astype(np.uint16)


def coding_of(field: Field) -> Coding:
    """The coding of a field: exact for classes and for whole numbers up to 2,000 (fewer where many months are counted); a fraction is
    rounded to a thousandth of the largest value, of 128 months and more to a hundredth.

    The step divides 1 where it can, for a pixel over several cells may be a fraction where the cells are whole numbers.
    """
    months = min(field.months, 255)
    if names := classes_of(field.metric):
        return Coding(len(names), 1.0, months, next((k for k, name in enumerate(names) if name in NOT_KNOWN), None))
    most = min(MOST_CLASSES, _CODES >> months.bit_length()) - 3
    top = max(field.top, field.limits.high)
    step = 1 / math.floor((most - 1) / top) if top <= most - 1 else top / (most - 1)
    return Coding(most, step, months)


_STRIPES = 6
"""Pixels from one line of the hatch to the next, across or up."""


def hatch_of(picture: Picture) -> NDArray[np.bool_]:
    """Which pixels of a picture lie under a line of the hatch. The lines keep their place on the ground, so that they do not swim under a
    map that is moved.
    """
    rows, columns = picture.values.shape
    first = [round(start / ((end - start) / count)) for (start, end), count in ((picture.x_range, columns), (picture.y_range, rows))]
    across, up = np.arange(columns) + first[0] % _STRIPES, np.arange(rows) + first[1] % _STRIPES
    return np.asarray((up[:, None] + across) % _STRIPES == 0)


def class_colours(metric: str, dark: bool) -> list[str]:
    """A colour for each of ``classes_of`` a metric."""
    names = classes_of(metric)
    return palette.change_colours(names, dark) if metric == CHANGE else palette.action_colours(names, dark)


def colours_of(coding: Coding, field: Field, limits: Limits, dark: bool) -> list[str]:
    """A colour for each class of a coding."""
    around = palette.theme(dark)
    shown = class_colours(field.metric, dark)
    if not shown:
        ramp = palette.ramp(field.metric, dark)
        at = (np.arange(coding.values) * coding.step - limits.low) / (limits.high - limits.low) * len(ramp)
        shown = [ramp[k] for k in np.clip(at, 0, len(ramp) - 1).astype(int)]
    return [*shown, around.out_of_scope, around.unknown, around.stripe, *[around.unknown] * (coding.classes - coding.values - 3)]


def hover_of(coding: Coding) -> dict[str, Any]:
    """What the browser needs to read a code."""
    digits = math.floor(-math.log10(coding.step)) if coding.step < 1 else 0
    unknown = coding.unknown if coding.not_known is None else coding.not_known
    return {"span": coding.span, "values": coding.values, "step": coding.step, "decimals": digits, "unknown": unknown}
