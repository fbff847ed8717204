from __future__ import annotations

import math

import pytest

from vitbench.numbers.matching import PathPoint, compare_at_equal, value_over_accuracy

SIZES = (100, 300, 1000, 3000)


def path(accuracies: list[float], values: list[float]) -> list[PathPoint]:
    return [PathPoint(*point) for point in zip(SIZES, accuracies, values, strict=False)]


@pytest.mark.known_answer
def test_one_function_of_accuracy_has_no_difference_at_equal_accuracy_and_has_one_at_equal_images() -> None:
    a, b = [0.3, 0.4, 0.55, 0.6], [0.4, 0.5, 0.6, 0.8]
    found = compare_at_equal(path(a, [0.5 + x / 2 for x in a]), path(b, [0.5 + x / 2 for x in b]))
    assert found.at_equal_accuracy == pytest.approx(0, abs=1e-12)
    assert (found.low, found.high) == (0.4, 0.6)
    assert found.at_equal_places == pytest.approx(-(0.1 + 0.1 + 0.05 + 0.2) / 2 / 4)


@pytest.mark.known_answer
def test_a_constant_offset_is_found_exactly() -> None:
    a, b = [0.3, 0.4, 0.55, 0.6], [0.35, 0.5, 0.6, 0.8]
    found = compare_at_equal(path(a, [x + 0.07 for x in a]), path(b, b))
    assert found.at_equal_accuracy == pytest.approx(0.07)


@pytest.mark.known_answer
def test_every_accuracy_of_the_common_range_counts_alike() -> None:
    # a - b grows linearly from 0 at accuracy 0.4 to 1 at 0.8, whatever the points in between are
    a = [PathPoint(1, 0.4, 0.0), PathPoint(2, 0.41, 0.025), PathPoint(3, 0.42, 0.05), PathPoint(4, 0.8, 1.0)]
    found = compare_at_equal(a, path([0.2, 0.9], [0.0, 0.0]))
    assert found.at_equal_accuracy == pytest.approx(0.5)


def test_points_between_which_accuracy_falls_become_one_at_their_mean() -> None:
    accuracies, values = value_over_accuracy(path([0.3, 0.5, 0.4, 0.6], [1.0, 2.0, 4.0, 0.0]))
    assert accuracies == pytest.approx([0.3, 0.45, 0.6]) and values == pytest.approx([1.0, 3.0, 0.0])


@pytest.mark.parametrize("b", [[0.5, 0.6], [0.4, 0.6]])
def test_without_a_common_range_only_the_difference_at_equal_images_is_defined(b: list[float]) -> None:
    found = compare_at_equal(path([0.3, 0.4], [1.0, 1.0]), path(b, [0.0, 0.0]))
    assert math.isnan(found.at_equal_accuracy) and found.low >= found.high and found.at_equal_places == 1.0


def test_the_order_of_the_points_does_not_count() -> None:
    a, b = path([0.3, 0.4, 0.35, 0.6], [0.5, 0.4, 0.6, 0.7]), path([0.2, 0.5, 0.7], [0.1, 0.2, 0.6])
    assert compare_at_equal(a, b) == compare_at_equal(reversed(a), reversed(b))
