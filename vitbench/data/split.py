"""What every data source returns: uint8 images and their labels, for training and for testing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Images that are all of one square size, memory-mapped where they came from the cache."""

    images: np.ndarray  # (M,C,H,W) uint8; with machine.images=files what stands for it, `files.Files`
    labels: np.ndarray  # (M,) int64, positions in `classes`
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
    """Both splits, an identity, and what the user should know about the data.

    `fingerprint` is a hash over the decoded pixels, the labels and the class names, in order, taken once when the cache
    was written. It names what the network sees: paths, times and file formats do not enter, so a copy of the data on
    another machine has the same fingerprint, and one changed pixel, label or image does not.
    """

    train: Split
    test: Split
    fingerprint: str
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes
