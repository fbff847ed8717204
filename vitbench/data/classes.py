"""`data.classes` makes a data set of some of the classes of another; uneven classes are told. Imports no torch."""

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
        """A slice gives a `Chosen` again; indices (M,) give a copy of their images."""
        if isinstance(part, slice):
            return Chosen(self.images, self.indices[part])
        return cast(Any, self.images)[self.indices[part]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return np.asarray(cast(Any, self.images)[self.indices], dtype)


UNEVEN = 3  # so many times as many images in one class as in another are worth a warning


def with_balance(dataset: Dataset) -> Dataset:
    """The data set with a warning where its training images are uneven over the classes."""
    counts = np.bincount(dataset.train.labels)
    present = np.flatnonzero(counts)
    least, most = present[counts[present].argmin()], present[counts[present].argmax()]
    if counts[most] < UNEVEN * counts[least]:
        return dataset
    line = (
        f"classes are uneven: {counts[most]:,} training images of {dataset.classes[most]}, {counts[least]:,} of "
        f"{dataset.classes[least]}, {counts[most] / counts[least]:.3g} times as many; optim.class_weights=balanced lets"
        " them count alike"
    )
    return replace(dataset, warnings=(*dataset.warnings, line))


def only(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """Keeps the images of these classes, which it numbers 0, 1, ... in this order; UserError for an unknown class."""
    K = len(dataset.classes)
    if unknown := [label for label in classes if label >= K]:
        raise UserError(f"data.classes: there is no class {unknown[0]}; these images have {K}, 0 to {K - 1}")
    names = tuple(dataset.classes[label] for label in classes)
    new_labels = np.full(K, -1)  # -1 marks a class that is dropped
    new_labels[list(classes)] = range(len(classes))

    def reduced(split: Split) -> Split:
        labels = new_labels[split.labels]
        kept = np.flatnonzero(labels >= 0)
        return Split(cast(Any, Chosen(split.images, kept)), labels[kept].astype(np.int64), names)

    fingerprint = hashlib.sha256(json.dumps([dataset.fingerprint, list(classes)]).encode()).hexdigest()[:16]
    return replace(dataset, train=reduced(dataset.train), test=reduced(dataset.test), fingerprint=fingerprint)
