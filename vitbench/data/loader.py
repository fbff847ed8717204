"""Batches for training, cut from images that lie on the device or are streamed to it.

Batch s is a pure function of (seed, s), so a run that resumes needs no state of the loader.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.data.stream import Batches, Stream
from vitbench.errors import UserError


def seed_random_state(seed: int, step: int) -> None:
    """Seeds torch's random numbers for one step: augmentation, drop path and MixUp of step s depend on (seed, s) only.

    NumPy's SeedSequence mixes both numbers into one, because torch's CPU generator keeps only 32 bits of a seed.
    """
    step_seed = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.default_generator.manual_seed(step_seed)  # torch.manual_seed asks every backend, which takes 0.2 ms a step
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(step_seed)


class Normalise:
    """Makes of uint8 images (B, C, H, W) what a network gets: float32, and rearranged where the run has `places`.

    Each channel of the training images gets mean 0 and deviation 1. `places` (H W,) says which pixel is shown at each
    place (permute.py). A call does both. What changes images in between, as MixUp does, calls the two steps itself:
    `values` first, and `rearranged` last.
    """

    def __init__(
        self,
        mean: Iterable[float],
        std: Iterable[float],
        device: torch.device,
        channels_last: bool = False,
        places: NDArray[np.int64] | None = None,
    ):
        self.mean, self.std = tuple(mean), tuple(std)  # in units of 0..1
        scale = 1 / (255 * torch.tensor(self.std, device=device).clamp(min=1e-3)).view(1, -1, 1, 1)
        self.scale, self.shift = scale, -255 * torch.tensor(self.mean, device=device).view(1, -1, 1, 1) * scale
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.places = None if places is None else torch.from_numpy(places).to(device)

    @classmethod
    def of(
        cls, images: Tensor | Stream, channels_last: bool = False, places: NDArray[np.int64] | None = None
    ) -> Normalise:
        """Measures mean and deviation of training images, uint8 (M, C, H, W), exactly: it counts each of 256 values."""
        values = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
        for batch in images.split(max(1, 2**20 // (images.shape[2] * images.shape[3]))):
            for channel, channel_counts in zip(batch.unbind(1), counts, strict=True):
                channel_counts += torch.bincount(channel.flatten().int(), minlength=256).cpu()
        mean, std = [], []
        for channel_counts in counts:
            frequencies = channel_counts / channel_counts.sum()
            mean.append((frequencies * values).sum().item())
            std.append((frequencies * (values - mean[-1]) ** 2).sum().sqrt().item())
        return cls(mean, std, images.device, channels_last, places)

    def __call__(self, images: Tensor) -> Tensor:
        return self.values(self.rearranged(images))  # a value does not depend on its place, and bytes are faster moved

    def values(self, images: Tensor) -> Tensor:
        """The images as float32, every pixel in its place."""
        if self.scale.shape[1:] != images.shape[1:]:  # one value for each pixel: twice as fast as one for each channel
            self.scale, self.shift = (
                factor[:, :, :1, :1].expand(1, *images.shape[1:]).contiguous(memory_format=self.format)
                for factor in (self.scale, self.shift)
            )
        images = images.contiguous(memory_format=self.format)  # bytes are faster to reorder than floats
        return torch.addcmul(self.shift, images.float(), self.scale)

    def without_places(self) -> Normalise:
        """The same for images that are rearranged already."""
        return Normalise(self.mean, self.std, self.scale.device, self.format is torch.channels_last)

    def rearranged(self, images: Tensor) -> Tensor:
        """The images, bytes or floats, with each pixel at the place where the network gets it."""
        if self.places is None:
            return images
        if images.shape[2] * images.shape[3] != len(self.places):
            side = math.isqrt(len(self.places))
            raise UserError(f"its places are rearranged (data.permute), which is for images of {side} px alone")
        moved = images.flatten(2).index_select(2, self.places).view(images.shape)
        return moved.contiguous(memory_format=self.format)


class Loader:
    """Lays permutations of the images end to end and cuts them into batches.

    So every batch is full, and every image is seen equally often. Where a batch is larger than the set, it holds images
    more than once: any share of the data trains with the same batch size.
    """

    def __init__(self, images: Tensor | Stream, labels: Tensor, batch_size: int, seed: int):
        self.images, self.labels = images, labels  # uint8 (M, C, H, W), int64 (M,)
        self.batch_size, self.seed = batch_size, seed
        self.train_images = len(labels)
        self._epoch, self._order = -1, labels.new_empty(0)
        self._batches: Any = Batches(images, self.indices) if isinstance(images, Stream) else None

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """What `take` makes batch `step` of: which images it holds, (B,), on the device; streamed images come first."""
        if isinstance(self.images, Stream):
            batch: tuple[Tensor, ...] = self._batches(step)
            return batch
        return (self.indices(step),)

    def take(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels of a batch, (B, C, H, W) and (B,). It is work of the device alone."""
        *streamed, indices = batch
        if isinstance(self.images, Stream):
            return streamed[0], self.labels[indices]
        return self.images.index_select(0, indices), self.labels[indices]  # 20 times as fast as images[indices]

    def indices(self, step: int) -> Tensor:
        """Which images batch `step` holds, (B,); on the CPU for a `Stream`, else on the device."""
        position, parts, missing = step * self.batch_size, [], self.batch_size
        while missing:
            epoch, offset = divmod(position, len(self.labels))
            parts.append(self._permutation(epoch)[offset : offset + missing])
            position, missing = position + len(parts[-1]), missing - len(parts[-1])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.labels))
            self._epoch, self._order = epoch, torch.from_numpy(order)
            if not isinstance(self.images, Stream):
                self._order = sent(self._order, self.labels.device)
        return self._order


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device. The host does not wait for a GPU, which may be many steps behind."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
