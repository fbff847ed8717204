"""Two models' results at equal accuracy, because what a probe measures changes with accuracy in every model.

Two models on a path of growing training sets are usually compared at equal images, where one of them is also the more
accurate. Here each model's result becomes a function of its accuracy, and these functions are compared where both are
defined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from vitbench.numbers.intervals import size_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class PathPoint(NamedTuple):
    """One run, or one kept checkpoint, on a model's path."""

    place: float  # along the path: training images, or steps
    accuracy: float
    value: float


class AtEqual(NamedTuple):
    """One seed of a model minus the same seed of another; what is undefined is NaN."""

    at_equal_accuracy: float
    low: float  # the accuracies that both reach; if they reach none in common, low is above high
    high: float
    at_equal_places: float
    places: list[float]  # those that both paths have
    scale: float = 0.0  # the largest of the values


def compare_at_equal(a: Iterable[PathPoint], b: Iterable[PathPoint]) -> AtEqual:
    """Compares two paths at equal accuracy, and at equal places along the path.

    The first is the mean of value_a(accuracy) - value_b(accuracy) over the accuracies that both reach, all of which
    count alike. `value_over_accuracy` makes these functions; they are linear between points, so the mean is exact. The
    second is the mean of the differences over the places that both paths have.
    """
    import numpy as np
    from scipy.integrate import trapezoid

    points_a, points_b = sorted(a), sorted(b)
    value_at = [{point.place: point.value for point in points} for points in (points_a, points_b)]
    places = [place for place in value_at[0] if place in value_at[1]]
    differences = [value_at[0][place] - value_at[1][place] for place in places]
    at_equal_places = math.fsum(differences) / len(places) if places else math.nan
    scale = size_of(point.value for point in (*points_a, *points_b))
    if not points_a or not points_b:
        return AtEqual(math.nan, math.nan, math.nan, at_equal_places, places, scale)
    (reached_a, values_a), (reached_b, values_b) = value_over_accuracy(points_a), value_over_accuracy(points_b)
    low, high = max(reached_a[0], reached_b[0]), min(reached_a[-1], reached_b[-1])
    if low >= high:
        return AtEqual(math.nan, float(low), float(high), at_equal_places, places, scale)
    knots = np.unique([*reached_a, *reached_b, low, high])
    knots = knots[(knots >= low) & (knots <= high)]
    difference = np.interp(knots, reached_a, values_a) - np.interp(knots, reached_b, values_b)
    at_equal_accuracy = float(trapezoid(difference, knots) / (high - low))
    return AtEqual(at_equal_accuracy, float(low), float(high), at_equal_places, places, scale)


def value_over_accuracy(path: Iterable[PathPoint]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns a path as a function: accuracies that strictly grow, and the value at each.

    A value is a function of accuracy only if accuracy grows along the path. So accuracy is replaced by its isotonic
    regression (Barlow 1972): points between which it falls become one, at their mean accuracy, and their value is their
    mean too. The value itself may rise and fall.
    """
    import numpy as np
    from scipy.optimize import isotonic_regression

    points = sorted(path)
    growing = isotonic_regression([point.accuracy for point in points]).x
    accuracies, block = np.unique(growing, return_inverse=True)
    values = np.bincount(block, weights=[point.value for point in points]) / np.bincount(block)
    return accuracies, values
