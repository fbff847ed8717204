"""Measures of a network from the classes that it gave to images: recalls, confusion, top-5, calibration.

M images, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 15  # of confidence, as in Guo et al. 2017
TOP = 5

Classes = NDArray[np.integer]  # (M,), indices of classes


def confusion_counts(labels: Classes, predictions: Classes, classes: int) -> NDArray[np.int64]:
    """How many images of each class, a row, were given each class, a column; (K,K)."""
    pairs = labels.astype(np.int64) * classes + predictions
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def recalls(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of each class's images that are right, of `confusion_counts`; nan of a class without images; (K,)."""
    return _shares(counts.diagonal(), counts.sum(1))


def precisions(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of the images given a class that are of it; nan of a class that none was given; (K,)."""
    return _shares(counts.diagonal(), counts.sum(0))


def _shares(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(len(wholes), np.nan)
    np.divide(parts, wholes, out=shares, where=wholes > 0)
    return shares


def balanced_accuracy(labels: Classes, predictions: Classes, classes: int) -> float:
    """The mean of the recalls of the classes that have images."""
    return float(np.nanmean(recalls(confusion_counts(labels, predictions, classes))))


def top_accuracy(logits: NDArray[np.floating], labels: Classes, top: int = TOP) -> float:
    """The share of images whose class is among the `top` with the largest logits (M,K).

    Of equal logits that of the lower class comes first, as in argmax.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1]) < labels[:, None]
    better = (logits > own) | ((logits == own) & before)
    return float((better.sum(1) < top).mean())


def calibration_error(probabilities: NDArray[np.floating], labels: Classes) -> float:
    """The expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 5) of probabilities (M,K).

    The confidence in the predicted class falls into one of BINS intervals of equal width, open below and closed above.
    The error is the mean over images of the distance between confidence and accuracy of their interval.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    bins = np.ceil(confidence * BINS).astype(int).clip(1, BINS) - 1
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)  # of the sums over each interval
    return float(np.abs(gaps).sum() / len(labels))
