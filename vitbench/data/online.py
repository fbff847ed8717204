"""Draws new training images for every step and repeats none (`data.online=true`), so more steps mean more data.

Image i of a run depends on (image_seed, the run's seed, i) alone, and batch s holds the images s B to (s + 1) B - 1. So
a run that resumes needs no state, a longer run begins with the images of a shorter one, and runs of other seeds see
other images. No image of the ordinary splits is among them, because the keys of the random numbers differ.

Threads draw the next batches, at most `stream.AHEAD`, while the model computes. Threads suffice, because numpy releases
Python's global lock in its loops, and they end with the loader that started them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.data.loader import sent
from vitbench.data.shapes import draw_shapes, online_labels, training_nuisances
from vitbench.data.stream import Batches, Read

PART = 128  # number of images that a thread draws at a time
NUISANCES = ("x", "y", "rotation", "radius", "background", "texture", "contrast", "noise")


class Drawn:
    """An endless list of images, which are drawn when they are needed. `Batches` reads it like a `Stream`."""

    def __init__(self, data: Mapping[str, Any], seed: int, image_size: int, device: torch.device):
        """`data` are the settings of the source, and `seed` is the run's."""
        self.device = device
        self.shape: tuple[int, ...] = (0, 3, image_size, image_size)  # (M, C, H, W), where the endless list has M = 0
        self._nuisances = training_nuisances(data["task"], {name: data[name] for name in NUISANCES})
        self._list: dict[str, Any] = {"task": data["task"], "image_seed": data["image_seed"], "online_seed": seed}
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "drawing")

    def draw(self, places: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Draws the images at these places of the list, (B, C, H, W); also returns their labels, (B,)."""
        return draw_shapes(places, self._nuisances, image_size=self.shape[-1], **self._list)

    def labels(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return online_labels(places, **self._list)

    def read(self, places: Tensor) -> Read:
        """Starts to draw the images at these places; returns a function that waits for them and fills an array."""
        parts = [self._threads.submit(self.draw, part.numpy()) for part in places.split(PART)]

        def fill(target: NDArray[np.uint8]) -> None:
            for number, part in enumerate(parts):
                target[number * PART : (number + 1) * PART] = part.result()[0]

        return fill


class OnlineLoader:
    """Does what `Loader` does, with images that never repeat. `train_images` is the number of images of all steps."""

    def __init__(self, images: Drawn, batch_size: int, steps: int):
        self.images, self.batch_size, self.train_images = images, batch_size, steps * batch_size
        self._batches: Any = Batches(images, lambda step: torch.arange(step * batch_size, (step + 1) * batch_size))

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Returns images and labels of a batch, uint8 (B, C, H, W) and int64 (B,), on the device."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        images, _ = self._batches(step)
        return images, sent(torch.from_numpy(self.images.labels(places)), self.images.device)

    def take(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = batch
        return images, labels

    def sample(self, most: int) -> tuple[Tensor, Tensor]:
        """Returns the first images of the run, at most `most` of them, with their labels."""
        images, labels = self.images.draw(np.arange(min(most, self.train_images)))
        return torch.from_numpy(images).to(self.images.device), torch.from_numpy(labels).to(self.images.device)
