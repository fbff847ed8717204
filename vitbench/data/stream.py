"""Brings images to the device batch by batch, while the others stay in the cache's file or undecoded.

Every batch equals, to the last bit, the one that a tensor of all images would give. The next batches are prefetched, so
that disk, copies and computation work at the same time:

- The cache is a file (`stored.py`). We tell the system which images the next batches need, and it reads them while the
  model computes; a batch is copied when its turn comes. (For small images in a file that fits into memory, we also ask
  once for the bytes around them.) We start no thread, because copying from a warm cache takes less time than handing
  the work to a thread, and the system reads a cold cache in the background.
- Files that are not decoded yet are decoded by worker processes (`files.py`).
- The next batch is copied to a GPU while the present one is computed, asynchronously, from one of two pinned buffers
  and on its own CUDA stream. The copy waits for the work queued before it, so the host is never more than a few steps
  ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.data.classes import Chosen
from vitbench.data.stored import Stored
from vitbench.machine.memory import free_bytes

if TYPE_CHECKING:
    from vitbench.data.files import Files

AHEAD = 2  # number of batches that are prefetched
COPIED_BYTES = 1 << 24  # bytes that `whole` copies to a GPU at a time
LARGE_IMAGE = 1 << 14  # bytes of an image from which on announcing each image to the system costs almost nothing

Indices = NDArray[np.int64]
Images: TypeAlias = "NDArray[np.uint8] | Stored | Files | Chosen"
Read = Callable[[NDArray[np.uint8]], Any]  # writes the prefetched images into an array (B, C, H, W)


class Readable(Protocol):
    """Images that `Batches` can prefetch: a `Stream`, or images that are drawn online."""

    device: torch.device
    shape: tuple[int, ...]  # (M, C, H, W)

    def read(self, places: Tensor) -> Read: ...


class Stream:
    """Some of a split's images. `len`, slices and `split` work as for a tensor of these images."""

    def __init__(self, images: Images, indices: Indices, device: torch.device):
        self.images, self.indices, self.device = images, indices, device
        self.shape = (len(indices), *images.shape[1:])  # (M, C, H, W)
        self.prefetch = _prefetcher(images)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, places: Tensor) -> Read:
        """Prefetches the images at these places, int64 on the CPU."""
        return self.prefetch(self.indices[places.numpy()])

    def __getitem__(self, part: slice) -> Stream:
        return Stream(self.images, self.indices[part], self.device)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yields all images in order, `size` at a time, uint8 (B, C, H, W) on the device."""
        places = torch.arange(len(self))
        batches = Batches(self, lambda number: places[number * size : (number + 1) * size])
        for number in range(max(1, -(-len(self) // size))):  # an empty stream gives one empty batch, as in torch
            yield batches(number)[0]

    def whole(self) -> Tensor:
        """Copies all images to the device."""
        images = torch.empty(self.shape, dtype=torch.uint8, device=self.device)
        if self.device.type == "cpu":
            self.prefetch(self.indices)(images.numpy())
            return images
        size, first = max(1, COPIED_BYTES // max(1, int(np.prod(self.shape[1:])))), 0
        for batch in self.split(size):
            images[first : first + len(batch)] = batch
            first += len(batch)
        return images


class Batches:
    """`batches(step)` returns the images at `places(step)` of a stream, and these places, both on the device.

    Steps may come in any order. Each call prefetches the steps that follow it, so steps in order are fast.
    """

    def __init__(self, stream: Readable, places: Callable[[int], Tensor]):
        self.stream, self.places = stream, places  # places(step) is int64 on the CPU; step 0 has the most places
        self._prefetched: dict[int, _Batch] = {}
        on_gpu = stream.device.type == "cuda"
        self._copier = _Copier(stream.device, (len(places(0)), *stream.shape[1:])) if on_gpu else None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        before, coming = self._prefetched, range(step, step + AHEAD + 1)
        self._prefetched = {s: before.get(s) or _Batch(self.stream, self.places(s)) for s in coming}
        batch, next_batch = self._prefetched.pop(step), self._prefetched[step + 1]
        if self._copier is None:
            images = torch.empty((len(batch.places), *self.stream.shape[1:]), dtype=torch.uint8)
            batch.read(images.numpy())
            return images, batch.places
        copy = self._copier.wait_for(batch.copy or self._copier.start(batch))
        next_batch.copy = self._copier.start(next_batch)
        return copy


Copy = tuple[Tensor, Tensor]  # the images and places of a batch, on the GPU


class _Batch:
    def __init__(self, stream: Readable, places: Tensor):
        self.places = places
        self.read = stream.read(places)
        self.copy: Copy | None = None


class _Copier:
    """Copies batches to a GPU on its own CUDA stream, from two pinned buffers in turn."""

    def __init__(self, device: torch.device, shape: tuple[int, ...]):  # (B, C, H, W) of the largest batch
        self.device, self.stream = device, torch.cuda.Stream(device)
        pinned = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self.buffers = cycle([(buffer, torch.cuda.Event()) for buffer in pinned])

    def start(self, batch: _Batch) -> Copy:
        """Queues the copy of a batch and returns the tensors that it fills."""
        buffer, done = next(self.buffers)
        done.synchronize()  # waits for the copy before the last one, which reads this buffer
        images = buffer[: len(batch.places)]
        batch.read(images.numpy())
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            copy = (images.to(self.device, non_blocking=True), batch.places.to(self.device, non_blocking=True))
            done.record()
        return copy

    def wait_for(self, copy: Copy) -> Copy:
        """Makes all work that is queued from here on wait for the copy."""
        queue = torch.cuda.current_stream(self.device)
        queue.wait_stream(self.stream)
        for tensor in copy:
            tensor.record_stream(queue)  # so that its memory is not reused before that work is done
        return copy


def _prefetcher(images: Images) -> Callable[[Indices], Read]:
    """Returns the function that prefetches images by their indices."""
    if isinstance(images, Chosen):
        prefetch, chosen = _prefetcher(images.images), images.indices
        return lambda indices: prefetch(chosen[indices])
    if isinstance(images, Stored):
        return _prefetcher_of_file(images)
    if isinstance(images, np.ndarray):
        # All indices are in bounds, so "clip" changes nothing; with "raise", numpy would fill a buffer first.
        return lambda indices: lambda target: np.take(images, indices, 0, target, "clip")
    return images.prefetch


def _prefetcher_of_file(images: Stored) -> Callable[[Indices], Read]:
    image_bytes, file_bytes = (int(np.prod(shape)) for shape in (images.shape[1:], images.file.shape))
    exactly = image_bytes >= LARGE_IMAGE or file_bytes > free_bytes(torch.device("cpu"))

    def prefetch(indices: Indices) -> Read:
        images.announce(indices, exactly)
        return lambda target: images.read(indices, target)

    return prefetch
