"""The result of every data source: uint8 images and their labels, in a training split and a test split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vitbench.data.scan import Scan


@dataclass(frozen=True)
class Split:
    """Square images of one size, with their labels. Images of the cache stay in its file until they are needed."""

    # (M,C,H,W) uint8, or an object that behaves like such an array: `stored.Stored`, `files.Files`, `classes.Chosen`
    images: np.ndarray
    labels: np.ndarray  # (M,) int64, indices into `classes`
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        M, _, H, W = self.images.shape
        assert self.images.dtype == np.uint8 and H == W, f"expected square uint8 images, got {self.images.shape}"
        assert self.labels.dtype == np.int64 and self.labels.shape == (M,), f"{self.labels.shape} labels, {M} images"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def image_size(self) -> int:
        return self.images.shape[2]


@dataclass(frozen=True)
class Dataset:
    """Both splits with their fingerprint, warnings for the user, and a scan of the files that they come from.

    `fingerprint` is a hash of the decoded pixels, the labels and the class names, in order, which is computed once when
    the cache is written. It identifies what the network sees. Paths, times and file formats do not change it, so a copy
    of the data on another machine has the same fingerprint; one changed pixel, label or image gives another one.
    """

    train: Split
    test: Split
    fingerprint: str
    warnings: tuple[str, ...] = ()
    scan: Scan | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes
