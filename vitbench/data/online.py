"""Training images that are drawn anew for every step and never repeat (`data.online=true`), so that steps are data.

Image i of a run is a pure function of (image_seed, the run's seed, i), and batch s holds images s B to (s + 1) B - 1.
So a run that resumes needs no state, a longer run begins with the images of a shorter one, and runs of other seeds see
other images. No image of the ordinary splits is among them, because the keys of the random numbers differ.

Threads draw the batches that come next while the model computes, `stream.AHEAD` batches at most. numpy lets go of
Python's lock in its loops, so threads do, and they end with the loader that started them.
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

PART = 128  # images that a thread draws at a time
NUISANCES = ("x", "y", "rotation", "radius", "background", "texture", "contrast", "noise")


class Drawn:
    """A list of images without end, of which any are drawn when they are needed; for `Batches`, as a `Stream` is."""

    def __init__(self, data: Mapping[str, Any], seed: int, image_size: int, device: torch.device):
        """`data` are the settings of the source, and `seed` is the run's."""
        self.device = device
        self.shape: tuple[int, ...] = (0, 3, image_size, image_size)  # (M, C, H, W) of a list without end
        self._nuisances = training_nuisances(data["task"], {name: data[name] for name in NUISANCES})
        self._list: dict[str, Any] = {"task": data["task"], "image_seed": data["image_seed"], "online_seed": seed}
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "drawing")

    def draw(self, places: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The images at these places, (B, C, H, W), and their labels, (B,)."""
        return draw_shapes(places, self._nuisances, image_size=self.shape[-1], **self._list)

    def labels(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return online_labels(places, **self._list)

    def read(self, places: Tensor) -> Read:
        """Starts to draw the images at these places; returns what waits for them and puts them into an array."""
        parts = [self._threads.submit(self.draw, part.numpy()) for part in places.split(PART)]

        def fill(target: NDArray[np.uint8]) -> None:
            for number, part in enumerate(parts):
                target[number * PART : (number + 1) * PART] = part.result()[0]

        return fill


class OnlineLoader:
    """Does what `Loader` does, with images that never repeat. `train_images` are those of all steps."""

    def __init__(self, images: Drawn, batch_size: int, steps: int):
        self.images, self.batch_size, self.train_images = images, batch_size, steps * batch_size
        self._batches: Any = Batches(images, lambda step: torch.arange(step * batch_size, (step + 1) * batch_size))

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Images and labels of a batch, uint8 (B, C, H, W) and int64 (B,), on the device."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        images, _ = self._batches(step)
        return images, sent(torch.from_numpy(self.images.labels(places)), self.images.device)

    def take(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = batch
        return images, labels

    def sample(self, most: int) -> tuple[Tensor, Tensor]:
        """The first images of the run, at most so many, with their labels."""
        images, labels = self.images.draw(np.arange(min(most, self.train_images)))
        return torch.from_numpy(images).to(self.images.device), torch.from_numpy(labels).to(self.images.device)
