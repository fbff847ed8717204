"""Keeps the classes that `data.classes` names, and warns about uneven classes. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from vitbench.data.split import Dataset, Split
from vitbench.errors import UserError

if TYPE_CHECKING:
    from vitbench.data.files import Files
    from vitbench.data.stored import Stored


class Chosen:
    """Stands for `images[indices]`, a uint8 array (M, C, H, W), without copying it."""

    dtype = np.dtype(np.uint8)

    def __init__(self, images: NDArray[np.uint8] | Stored | Files, indices: NDArray[np.int64]):
        self.images, self.indices, self.shape = images, indices, (len(indices), *images.shape[1:])

    def __getitem__(self, part: Any) -> Any:
        """Returns a `Chosen` for a slice, and a copy of the images for indices (M,)."""
        if isinstance(part, slice):
            return Chosen(self.images, self.indices[part])
        return cast(Any, self.images)[self.indices[part]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return np.asarray(cast(Any, self.images)[self.indices], dtype)


UNEVEN = 3  # ratio between the largest and the smallest class from which on there is a warning


def with_balance(dataset: Dataset) -> Dataset:
    """Returns the data set, with a warning if its classes have very different numbers of training images."""
    counts = np.bincount(dataset.train.labels)
    present = np.flatnonzero(counts)
    least, most = present[counts[present].argmin()], present[counts[present].argmax()]
    if counts[most] < UNEVEN * counts[least]:
        return dataset
    line = (
        f"classes are uneven: {dataset.classes[most]} has {counts[most]:,} training images, "
        f"{counts[most] / counts[least]:.3g} times as many as {dataset.classes[least]} ({counts[least]:,}); "
        "optim.class_weights=balanced gives all classes the same weight"
    )
    return replace(dataset, warnings=(*dataset.warnings, line))


def only(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """Keeps the images of these classes and numbers them 0, 1, ... in this order. UserError for an unknown class."""
    K = len(dataset.classes)
    if unknown := [label for label in classes if label >= K]:
        raise UserError(f"data.classes: there is no class {unknown[0]}; these images have {K}, 0 to {K - 1}")
    names = tuple(dataset.classes[label] for label in classes)
    new_labels = np.full(K, -1)  # -1: the class is dropped
    new_labels[list(classes)] = range(len(classes))

    def reduced(split: Split) -> Split:
        labels = new_labels[split.labels]
        kept = np.flatnonzero(labels >= 0)
        return Split(cast(Any, Chosen(split.images, kept)), labels[kept].astype(np.int64), names)

    fingerprint = hashlib.sha256(json.dumps([dataset.fingerprint, list(classes)]).encode()).hexdigest()[:16]
    return replace(dataset, train=reduced(dataset.train), test=reduced(dataset.test), fingerprint=fingerprint)
