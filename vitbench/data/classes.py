"""`data.classes`: some classes of a data set as a data set of its own. Imports no torch."""

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


class Chosen:
    """Stands for `images[rows]`, a uint8 array (M, C, H, W), without copying it."""

    dtype = np.dtype(np.uint8)

    def __init__(self, images: NDArray[np.uint8] | Files, rows: NDArray[np.int64]):
        self.images, self.rows, self.shape = images, rows, (len(rows), *images.shape[1:])

    def __getitem__(self, part: Any) -> Any:
        """A slice stands for its images; places (M,) give them."""
        if isinstance(part, slice):
            return Chosen(self.images, self.rows[part])
        return cast(Any, self.images)[self.rows[part]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return np.asarray(cast(Any, self.images)[self.rows], dtype)


def only(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """The images of these classes, which become 0, 1, ... in this order; UserError where there is no such class."""
    K = len(dataset.classes)
    if beyond := [number for number in classes if number >= K]:
        raise UserError(f"data.classes: there is no class {beyond[0]}; these images have {K}, 0 to {K - 1}")
    names = tuple(dataset.classes[number] for number in classes)
    new = np.full(K, -1)
    new[list(classes)] = range(len(classes))

    def kept(split: Split) -> Split:
        labels = new[split.labels]
        rows = np.flatnonzero(labels >= 0)
        return Split(cast(Any, Chosen(split.images, rows)), labels[rows].astype(np.int64), names)

    fingerprint = hashlib.sha256(json.dumps([dataset.fingerprint, list(classes)]).encode()).hexdigest()[:16]
    return replace(dataset, train=kept(dataset.train), test=kept(dataset.test), fingerprint=fingerprint)
