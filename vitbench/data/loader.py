"""Makes the batches of training, from images that are on the device or are streamed to it.

Batch s depends on (seed, s) alone, so a run that resumes needs no state of the loader.
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
    """Seeds torch's random numbers for one step: augmentation and drop path of step s depend on (seed, s) alone.

    NumPy's SeedSequence mixes both numbers into one, because torch's CPU generator keeps only 32 bits of a seed.
    """
    step_seed = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.default_generator.manual_seed(step_seed)  # torch.manual_seed seeds every backend, which takes 0.2 ms
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(step_seed)


class Normalise:
    """Turns uint8 images (B, C, H, W) into the input of a network: normalised float32, rearranged by `places`.

    Each channel of the training images gets mean 0 and standard deviation 1. `places` (H W,) has the pixel that is
    shown at each place (permute.py); None leaves pixels where they are. A call does both. Code that changes images in
    between, such as MixUp, calls the two steps itself: `values` first, and `rearranged` last.
    """

    def __init__(
        self,
        mean: Iterable[float],
        std: Iterable[float],
        device: torch.device,
        channels_last: bool = False,
        places: NDArray[np.int64] | None = None,
    ):
        self.mean, self.std = tuple(mean), tuple(std)  # of pixel values from 0 to 1
        scale = 1 / (255 * torch.tensor(self.std, device=device).clamp(min=1e-3)).view(1, -1, 1, 1)
        self.scale, self.shift = scale, -255 * torch.tensor(self.mean, device=device).view(1, -1, 1, 1) * scale
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.places = None if places is None else torch.from_numpy(places).to(device)

    @classmethod
    def of(
        cls, images: Tensor | Stream, channels_last: bool = False, places: NDArray[np.int64] | None = None
    ) -> Normalise:
        """Computes mean and standard deviation of uint8 images (M, C, H, W) exactly, from counts of the 256 values."""
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
        return self.values(self.rearranged(images))  # the order does not change the result, and bytes move faster

    def values(self, images: Tensor) -> Tensor:
        """Returns the images as normalised float32. Every pixel stays in its place."""
        if self.scale.shape[1:] != images.shape[1:]:  # a factor for each pixel is twice as fast as one for each channel
            self.scale, self.shift = (
                factor[:, :, :1, :1].expand(1, *images.shape[1:]).contiguous(memory_format=self.format)
                for factor in (self.scale, self.shift)
            )
        images = images.contiguous(memory_format=self.format)  # bytes are faster to reorder than floats
        return torch.addcmul(self.shift, images.float(), self.scale)

    def without_places(self) -> Normalise:
        """Returns the same normalisation for images whose pixels are already rearranged."""
        return Normalise(self.mean, self.std, self.scale.device, self.format is torch.channels_last)

    def rearranged(self, images: Tensor) -> Tensor:
        """Returns the images, bytes or floats, with their pixels rearranged by `places`."""
        if self.places is None:
            return images
        if images.shape[2] * images.shape[3] != len(self.places):
            side = math.isqrt(len(self.places))
            raise UserError(f"data.permute rearranges images of {side} px for this network, which takes no other size")
        moved = images.flatten(2).index_select(2, self.places).view(images.shape)
        return moved.contiguous(memory_format=self.format)


class Loader:
    """Lays random permutations of the images end to end and cuts this sequence into batches.

    So every batch is full, and every image is seen equally often. A batch that is larger than the set holds images more
    than once, so any share of the data can be trained on with the same batch size.
    """

    def __init__(self, images: Tensor | Stream, labels: Tensor, batch_size: int, seed: int):
        self.images, self.labels = images, labels  # uint8 (M, C, H, W), int64 (M,)
        self.batch_size, self.seed = batch_size, seed
        self.train_images = len(labels)
        self._epoch, self._order = -1, labels.new_empty(0)
        self._batches: Any = Batches(images, self.indices) if isinstance(images, Stream) else None

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Returns the arguments of `take` for batch `step`: streamed images, if any, and the indices (B,) of all."""
        if isinstance(self.images, Stream):
            batch: tuple[Tensor, ...] = self._batches(step)
            return batch
        return (self.indices(step),)

    def take(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images (B, C, H, W) and labels (B,) of a batch. Only the device works here."""
        *streamed, indices = batch
        if isinstance(self.images, Stream):
            return streamed[0], self.labels[indices]
        return self.images.index_select(0, indices), self.labels[indices]  # 20 times as fast as images[indices]

    def indices(self, step: int) -> Tensor:
        """Returns the indices (B,) of the images in batch `step`, on the CPU for a `Stream`, else on the device."""
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
    """Copies a tensor from the CPU to the device. The host does not wait for a GPU, which may be many steps behind."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
