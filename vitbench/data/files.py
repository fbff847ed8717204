"""Decodes each image from its file whenever it is needed, in worker processes, for sets that are too large to cache.

All files are decoded once beforehand, for an index that keeps a digest of each image. If an image later differs from
its digest, the run ends, so a run sees exactly the images that the data set's fingerprint stands for.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitbench.data.stored import pixel_digest
from vitbench.errors import DataError
from vitbench.machine.distributed import LOCAL_WORLD_SIZE
from vitbench.machine.interrupt import STOPPING
from vitbench.machine.provenance import cores

CHUNK = 16  # number of images that a process decodes at a time

Decode = Callable[[str, int], np.ndarray]  # path, size -> uint8 (C, size, size); raises ValueError with the reason


class Pool:
    """Worker processes on this process's share of the cores. They start with the first job and end with the process."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, job: Callable[[], Any]) -> Callable[[], Any]:
        """Starts a job; returns a function that waits for its result. On a single core, that function runs the job."""
        workers = cores() // LOCAL_WORLD_SIZE
        if workers < 2 or not may_start_processes():
            return job
        try:
            if self._executor is None:
                context = multiprocessing.get_context("spawn")
                self._executor = ProcessPoolExecutor(workers, context, _follow_parent)
            future = self._executor.submit(job)
        except BrokenProcessPool:
            raise worker_killed() from None

        def result() -> Any:
            try:
                return future.result()
            except BrokenProcessPool:
                raise worker_killed() from None

        return result


def may_start_processes() -> bool:
    """Returns whether this process may start others. A joblib worker may not, because the other cores have other runs.

    In such a worker, the start method is joblib's "loky", which Python itself does not have.
    """
    return multiprocessing.get_start_method(allow_none=True) in (None, *multiprocessing.get_all_start_methods())


def _follow_parent() -> None:
    """Makes a worker end when its parent ends, and not before.

    A batch system sends signals to all processes of a job. Workers ignore them, because the parent may need images
    until it has saved.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()  # returns also when the parent is killed
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def worker_killed() -> DataError:
    return DataError("a process that decoded images was killed, most likely because memory ran out")


class Files:
    """Behaves like a uint8 array (M, C, H, W) whose images are decoded when they are needed."""

    dtype = np.dtype(np.uint8)

    def __init__(
        self, decode: Decode, paths: list[str], shape: tuple[int, ...], digests: NDArray[np.uint8], pool: Pool
    ):
        self.decode, self.paths, self.shape, self.digests, self.pool = decode, paths, shape, digests, pool

    def __getitem__(self, part: slice) -> Files:
        paths = self.paths[part]
        return Files(self.decode, paths, (len(paths), *self.shape[1:]), self.digests[part], self.pool)

    def prefetch(self, indices: NDArray[np.int64]) -> Callable[[NDArray[np.uint8]], None]:
        """Starts to decode images; returns a function that waits for them and puts them into an array (B, C, H, W)."""
        results = []
        for first in range(0, len(indices), CHUNK):
            chunk = indices[first : first + CHUNK]
            paths = [self.paths[index] for index in chunk.tolist()]
            job = partial(_decoded, self.decode, paths, self.digests[chunk], self.shape[1:])
            results.append(self.pool.submit(job))

        def read(target: NDArray[np.uint8]) -> None:
            for number, result in enumerate(results):
                target[number * CHUNK : (number + 1) * CHUNK] = result()

        return read


def _decoded(decode: Decode, paths: list[str], digests: NDArray[np.uint8], shape: tuple[int, ...]) -> np.ndarray:
    """Decodes some files, (B, C, H, W). Raises DataError if an image no longer has its digest."""
    images = np.empty((len(paths), *shape), np.uint8)
    for place, path in enumerate(paths):
        try:
            images[place] = decode(path, shape[-1])
        except ValueError as error:
            raise DataError(f"{path!a} changed since the images were indexed ({error}); restore it") from None
        if pixel_digest(images[place]) != digests[place].tobytes():
            raise DataError(f"{path!a} changed since the images were indexed; restore it, or begin the run again")
    return images
