"""Images that stay where they are, in the cache's file or undecoded, and come to the device a batch at a time.

What is asked for is the same to the last bit as from a tensor of all images. Batches that come next are begun before
they are asked for, so that disk, copies and computation work at the same time:

- from the cache's memory map, the system is told which images the next batches take and reads them all at once while
  the model computes; they are copied when their turn comes. That reads only these images, where page faults read one
  after another, each with what lies around it. (Which is good for small images in a file that memory will hold: there
  nothing is told.) There is no thread: a copy from a warm cache takes less than handing it over, and for a cold one
  the system is the thread;
- undecoded files are decoded by processes (`files.py`);
- to a GPU the next batch is copied asynchronously, from one of two pinned buffers and on a stream of its own, while
  the present one is computed. It waits for what was queued before, so the host is never more than a few steps ahead.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitbench.data.classes import Chosen
from vitbench.machine.memory import free_bytes

if TYPE_CHECKING:
    from vitbench.data.files import Files

AHEAD = 2  # batches that are begun before they are asked for
PART = 1 << 24  # bytes copied at a time where all images are wanted
LARGE_SPLIT = 1 << 14  # bytes of an image from which on asking for it ahead costs next to nothing

Rows = NDArray[np.int64]
Read = Callable[[NDArray[np.uint8]], Any]  # writes the images that were begun into an array (B, C, H, W)


class Stream:
    """Some rows of the images of a split: as far as `len`, slices and `split` go, like a tensor of them."""

    def __init__(self, images: NDArray[np.uint8] | Files | Chosen, rows: Rows, device: torch.device):
        self.images, self.rows, self.device = images, rows, device
        self.shape = (len(rows), *images.shape[1:])  # (M, C, H, W)
        self.begin = _begin(images)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Stream:
        return Stream(self.images, self.rows[part], self.device)

    def split(self, size: int) -> Iterator[Tensor]:
        """All images in order, `size` at a time, uint8 (B, C, H, W) on the device."""
        places = torch.arange(len(self))
        batches = Batches(self, lambda number: places[number * size : (number + 1) * size])
        for number in range(max(1, -(-len(self) // size))):  # as torch does: none are one empty batch
            yield batches(number)[0]

    def whole(self) -> Tensor:
        """All images on the device."""
        images = torch.empty(self.shape, dtype=torch.uint8, device=self.device)
        if self.device.type == "cpu":
            self.begin(self.rows)(images.numpy())
            return images
        size, first = max(1, PART // max(1, int(np.prod(self.shape[1:])))), 0
        for part in self.split(size):
            images[first : first + len(part)] = part
            first += len(part)
        return images


class Batches:
    """`batches(step)`: the images at `places(step)` and these places, both on the device.

    Any step can be asked for; the ones after it are begun with it, so steps in turn are the ones that are fast.
    """

    def __init__(self, stream: Stream, places: Callable[[int], Tensor]):  # int64 on the CPU; no step has more than 0
        self.stream, self.places = stream, places
        self._begun: dict[int, _Batch] = {}
        on_gpu = stream.device.type == "cuda"
        self._copier = _Copier(stream.device, (len(places(0)), *stream.shape[1:])) if on_gpu else None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        coming = range(step, step + AHEAD + 1)
        self._begun = {one: self._begun.get(one) or _Batch(self.stream, self.places(one)) for one in coming}
        batch, following = self._begun.pop(step), self._begun[step + 1]
        if self._copier is None:
            images = torch.empty((len(batch.places), *self.stream.shape[1:]), dtype=torch.uint8)
            batch.read(images.numpy())
            return images, batch.places
        images_and_places = self._copier.taken(batch.copied or self._copier.copied(batch))
        following.copied = self._copier.copied(following)
        return images_and_places


class _Batch:
    def __init__(self, stream: Stream, places: Tensor):
        self.places = places
        self.read: Read = stream.begin(stream.rows[places.numpy()])
        self.copied: tuple[Tensor, Tensor] | None = None


class _Copier:
    """Two pinned buffers in turn, and a stream for the copies from them."""

    def __init__(self, device: torch.device, shape: tuple[int, ...]):  # (B, C, H, W) of the largest batch
        self.device, self.stream = device, torch.cuda.Stream(device)
        pinned = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self.buffers = cycle([(buffer, torch.cuda.Event()) for buffer in pinned])

    def copied(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        """Begins to copy."""
        buffer, done = next(self.buffers)
        done.synchronize()  # the copy before the last, from this buffer
        images = buffer[: len(batch.places)]
        batch.read(images.numpy())
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            both = (images.to(self.device, non_blocking=True), batch.places.to(self.device, non_blocking=True))
            done.record()
        return both

    def taken(self, both: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Makes what is queued from here on wait for the copy."""
        queue = torch.cuda.current_stream(self.device)
        queue.wait_stream(self.stream)
        for tensor in both:
            tensor.record_stream(queue)  # so that its memory is not used again before that
        return both


def _begin(images: NDArray[np.uint8] | Files | Chosen) -> Callable[[Rows], Read]:
    if isinstance(images, np.ndarray):
        return _begin_mapped(images)
    if isinstance(images, Chosen):
        begin, chosen = _begin(images.images), images.rows
        return lambda rows: begin(chosen[rows])
    return images.begin


def _begin_mapped(images: NDArray[np.uint8]) -> Callable[[Rows], Read]:
    """`begin(rows)` for an array, which reads ahead where that is a map of a file."""
    base: Any = images
    while isinstance(base, np.ndarray):
        base = base.base
    each = int(np.prod(images.shape[1:]))
    ahead = isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED")
    # small images of a file that memory will hold are sooner read than asked for: each fault brings their neighbours
    ahead = ahead and (each >= LARGE_SPLIT or len(base) > free_bytes(torch.device("cpu")))
    first = images.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data if ahead else 0

    def begin(rows: Rows) -> Read:
        if ahead:
            starts = first + rows * each
            pages = starts // mmap.PAGESIZE * mmap.PAGESIZE
            for page, length in zip(pages.tolist(), (starts + each - pages).tolist(), strict=True):
                base.madvise(mmap.MADV_WILLNEED, page, length)
        # "clip": with "raise" numpy fills an array of its own first. No row is out of bounds
        return lambda out: np.take(images, rows, 0, out, "clip")

    return begin
