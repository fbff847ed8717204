"""The images of one run: a share of a source's training images, the validation images, and the test images.

They are copied to the device as a whole, or come batch by batch. Both ways give the same bits.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.data.menu import open_dataset
from vitbench.data.split import Dataset, Split
from vitbench.data.stream import Stream
from vitbench.data.subset import split_and_subset
from vitbench.machine.distributed import LOCAL_WORLD_SIZE
from vitbench.machine.memory import free_bytes

Images = tuple[Tensor | Stream, Tensor]  # uint8 (M, C, H, W), int64 (M,) on the device
SAMPLE = 2000  # number of training images on which the network is also tested at the end of a run
RESIDENT = 0.5  # the largest share of the free memory that images may take if they are copied as a whole


class Share(NamedTuple):
    dataset: Dataset
    chosen: NDArray[np.int64]  # indices into the data set's training images
    held_out: NDArray[np.int64]  # indices of the validation images, also into the training images
    images: str = "memory"  # where batches come from: auto, memory (of the device), cache or files

    def train(self, device: torch.device) -> Images:
        return self._on_device(self.dataset.train, self.chosen, device, "training")

    def sample(self, device: torch.device) -> Images:
        """Returns at most SAMPLE training images: the first of the nested order, so shares of a seed have the same."""
        return self._on_device(self.dataset.train, self.chosen[:SAMPLE], device, "training")

    def validation(self, device: torch.device) -> Images | None:
        return self._on_device(self.dataset.train, self.held_out, device, "validation") if len(self.held_out) else None

    def test(self, device: torch.device) -> Images:
        return self._on_device(self.dataset.test, np.arange(len(self.dataset.test)), device, "test")

    def _on_device(self, split: Split, indices: NDArray[np.int64], device: torch.device, name: str) -> Images:
        images, labels = Stream(split.images, indices, device), torch.from_numpy(split.labels[indices]).to(device)
        if self.images == "auto":
            needed = int(np.prod(images.shape))
            free = free_bytes(device) // (LOCAL_WORLD_SIZE if device.type == "cpu" else 1)
            if needed > RESIDENT * free:
                print(
                    f"the {len(indices):,} {name} images take {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are "
                    f"free on {device}: they are read from data.cache batch by batch (machine.images=cache)",
                    file=sys.stderr,
                )
                return images, labels
        return (images.whole() if self.images in ("auto", "memory") else images), labels


def load(
    source: str,
    *,
    root: str,
    cache: str,
    image_size: int | None,
    progress: bool,
    fraction: float,
    count: int | None,
    val_fraction: float,
    subset_seed: int,
    images: str = "memory",
    **options: Any,
) -> Share:
    """Opens a source and draws a share of it. A `count` overrides `fraction`; `options` are the source's own."""
    dataset = open_dataset(
        source, root=root, cache=cache, image_size=image_size, progress=progress, files=images == "files", **options
    )
    labels, classes = dataset.train.labels, dataset.classes
    chosen, held_out = split_and_subset(
        labels, classes, fraction=fraction, count=count, val_fraction=val_fraction, subset_seed=subset_seed
    )
    return Share(dataset, chosen, held_out, images)
