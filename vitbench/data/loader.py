"""Batches of images that lie on the device or are streamed to it; batch s is a pure function of (seed, s), so that
resuming needs no state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitbench.data.stream import Batches, Stream


def seed_random_state(seed: int, step: int) -> None:
    """Seeds torch's random numbers for one step: augmentation, drop path and MixUp of step s depend on (seed, s) only.

    Both numbers go through NumPy's SeedSequence, because torch's CPU generator keeps only 32 bits of a seed.
    """
    number = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.default_generator.manual_seed(number)  # torch.manual_seed asks every backend first: 0.2 ms, at every step
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


class Normalise:
    """uint8 (B, C, H, W) -> float32 with the training images' mean 0 and deviation 1 in each channel."""

    def __init__(self, mean: Iterable[float], std: Iterable[float], device: torch.device, channels_last: bool = False):
        self.mean, self.std = tuple(mean), tuple(std)  # in units of 0..1
        scale = 1 / (255 * torch.tensor(self.std, device=device).clamp(min=1e-3)).view(1, -1, 1, 1)
        self.scale, self.shift = scale, -255 * torch.tensor(self.mean, device=device).view(1, -1, 1, 1) * scale
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    @classmethod
    def of(cls, images: Tensor | Stream, channels_last: bool = False) -> Normalise:
        """Measured on training images, uint8 (M, C, H, W), exactly: counts of the 256 values."""
        values = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
        for part in images.split(max(1, 2**20 // (images.shape[2] * images.shape[3]))):
            for channel, count in zip(part.unbind(1), counts, strict=True):
                count += torch.bincount(channel.flatten().int(), minlength=256).cpu()
        mean, std = [], []
        for count in counts:
            share = count / count.sum()
            mean.append((share * values).sum().item())
            std.append((share * (values - mean[-1]) ** 2).sum().sqrt().item())
        return cls(mean, std, images.device, channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        if self.scale.shape[1:] != images.shape[1:]:  # one value a pixel: twice as fast as one a channel
            self.scale, self.shift = (
                part[:, :, :1, :1].expand(1, *images.shape[1:]).contiguous(memory_format=self.format)
                for part in (self.scale, self.shift)
            )
        images = images.contiguous(memory_format=self.format)  # as bytes, which are faster to reorder than floats
        return torch.addcmul(self.shift, images.float(), self.scale)


class Loader:
    """Permutations of the images laid end to end and cut into batches: full batches, every image equally often.

    A set smaller than a batch is seen more than once in it, so any share of the data trains with the same batch size.
    """

    def __init__(self, images: Tensor | Stream, labels: Tensor, batch_size: int, seed: int):
        self.images, self.labels = images, labels  # uint8 (M, C, H, W), int64 (M,)
        self.batch_size, self.seed = batch_size, seed
        self._epoch, self._order = -1, labels.new_empty(0)
        self._streamed: Any = Batches(images, self.indices) if isinstance(images, Stream) else None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The images and labels of step `step`, (B, C, H, W) and (B,)."""
        if isinstance(self.images, Stream):
            images, chosen = self._streamed(step)
            return images, self.labels[chosen]
        chosen = self.indices(step)
        return self.images.index_select(0, chosen), self.labels[chosen]  # 20 times as fast as images[chosen]

    def indices(self, step: int) -> Tensor:
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
            if not isinstance(self.images, Stream):  # which is told on the CPU what to read
                self._order = self._order.to(self.labels.device)
        return self._order
