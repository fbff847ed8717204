"""The images of one run: a share of a source's training images, those held out for validation, and the test images."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.data.menu import open_dataset
from vitbench.data.split import Dataset, Split
from vitbench.data.subset import split_and_subset

Images = tuple[Tensor, Tensor]  # uint8 (M, C, H, W), int64 (M,)


class Share(NamedTuple):
    dataset: Dataset
    chosen: NDArray[np.int64]  # places among the dataset's training images
    held_out: NDArray[np.int64]

    def train(self, device: torch.device) -> Images:
        return _moved(self.dataset.train, self.chosen, device)

    def validation(self, device: torch.device) -> Images | None:
        return _moved(self.dataset.train, self.held_out, device) if len(self.held_out) else None

    def test(self, device: torch.device) -> Images:
        return _moved(self.dataset.test, slice(None), device)


def _moved(split: Split, index: Any, device: torch.device) -> Images:
    """Copies out of the memory map, whole, to the device."""
    return torch.from_numpy(split.images[index].copy()).to(device), torch.from_numpy(split.labels[index].copy()).to(
        device
    )


def load(
    source: str, *, root: str, cache: str, image_size: int | None, progress: bool,
    fraction: float, count: int | None, val_fraction: float, subset_seed: int, **options: Any,
) -> Share:  # fmt: skip
    """`options` are the source's own; `count` replaces `fraction` where it is given."""
    dataset = open_dataset(source, root=root, cache=cache, image_size=image_size, progress=progress, **options)
    chosen, held_out = split_and_subset(
        dataset.train.labels, dataset.classes, fraction=None if count is not None else fraction, count=count,
        val_fraction=val_fraction, seed=subset_seed,
    )  # fmt: skip
    return Share(dataset, chosen, held_out)
