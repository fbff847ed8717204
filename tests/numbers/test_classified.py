"""What classes given to images say of a network: numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from vitbench.numbers.classified import (
    balanced_accuracy,
    calibration_error,
    confusion_counts,
    precisions,
    recalls,
    top_accuracy,
)

LABELS = np.array([0, 0, 0, 0, 1, 1, 2], np.int16)  # of four classes, one without images
PREDICTIONS = np.array([0, 0, 0, 1, 1, 3, 1], np.int16)


def test_a_row_of_the_confusion_is_a_class_and_a_column_what_it_is_taken_for() -> None:
    assert confusion_counts(LABELS, PREDICTIONS, 4).tolist() == [[3, 1, 0, 0], [0, 1, 0, 1], [0, 1, 0, 0], [0] * 4]


def test_recall_and_precision_are_shares_of_a_line_and_of_a_column() -> None:
    counts = confusion_counts(LABELS, PREDICTIONS, 4)
    np.testing.assert_allclose(recalls(counts), [3 / 4, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(precisions(counts), [1, 1 / 3, np.nan, 0])


def test_balanced_accuracy_leaves_out_classes_without_images_and_is_the_accuracy_of_balanced_ones() -> None:
    assert balanced_accuracy(LABELS, PREDICTIONS, 4) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    rng = np.random.default_rng(0)
    labels, predictions = np.repeat(np.arange(5), 20), rng.integers(0, 5, 100)
    assert balanced_accuracy(labels, predictions, 5) == pytest.approx((labels == predictions).mean())


def test_top_1_is_the_accuracy_and_ties_are_broken_as_argmax_breaks_them() -> None:
    logits = np.random.default_rng(0).integers(0, 3, (200, 8)).astype(np.float32)  # many are equal
    labels = np.random.default_rng(1).integers(0, 8, 200)
    assert top_accuracy(logits, labels, 1) == (logits.argmax(1) == labels).mean()
    constant = np.zeros((8, 8), np.float32)
    assert top_accuracy(constant, np.arange(8), 5) == 5 / 8


def test_a_network_that_is_as_often_right_as_it_is_sure_has_no_calibration_error() -> None:
    probabilities = np.tile([0.75, 0.25], (100, 1))
    labels = np.repeat([0, 1], [75, 25])
    assert calibration_error(probabilities, labels) == pytest.approx(0)
    assert calibration_error(probabilities, labels[::-1] * 0) == pytest.approx(0.25)  # always right, and unsure
    sure = np.tile([1.0, 0.0], (100, 1))
    assert calibration_error(sure, np.repeat([0, 1], 50)) == pytest.approx(0.5)


def test_errors_of_opposite_sign_add_up_in_different_bins_and_cancel_within_one() -> None:
    apart = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert calibration_error(apart, np.array([1, 0])) == pytest.approx((0.9 + 0.4) / 2)
    alike = np.array([[0.61, 0.39], [0.65, 0.35]])
    assert calibration_error(alike, np.array([1, 0])) == pytest.approx(abs(0.61 - 0.35) / 2)
