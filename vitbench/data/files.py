"""Images that are decoded from their files whenever they are asked for, by processes, for sets that fit no cache.

An index knows a digest of every image from when all were decoded once, so each image is the one that the data set's
fingerprint names, or the run ends.
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

from vitbench.data.cache import pixel_digest
from vitbench.errors import DataError
from vitbench.machine.distributed import LOCAL_WORLD_SIZE
from vitbench.machine.interrupt import STOPPING
from vitbench.machine.provenance import cores

CHUNK = 16  # images that a process decodes at a time

Decode = Callable[[str, int], np.ndarray]  # path, size -> uint8 (C, size, size), or ValueError with the reason


class Pool:
    """Processes for this process's part of the cores, started at the first job; they end with it, however it ends."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None

    def begin(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """Begins some work; what is returned waits for its result."""
        workers = cores() // LOCAL_WORLD_SIZE
        if workers < 2 or not may_start_processes():
            return work
        try:
            if self._executor is None:
                context = multiprocessing.get_context("spawn")
                self._executor = ProcessPoolExecutor(workers, context, _outlived_by_parent)
            future = self._executor.submit(work)
        except BrokenProcessPool:
            raise _killed() from None

        def result() -> Any:
            try:
                return future.result()
            except BrokenProcessPool:
                raise _killed() from None

        return result


def may_start_processes() -> bool:
    """Not in a process of joblib's: the other cores have runs to do."""
    return multiprocessing.get_start_method(allow_none=True) in (None, *multiprocessing.get_all_start_methods())


def _outlived_by_parent() -> None:
    """A signal to the whole group is for the parent, which may want more images before it has saved."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)

    def end() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()  # also when it is killed
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _killed() -> DataError:
    return DataError("a process that decoded images was killed, most likely because memory ran out")


class Files:
    """Stands for a uint8 array (M, C, H, W); its rows are decoded when they are asked for."""

    dtype = np.dtype(np.uint8)

    def __init__(
        self, decode: Decode, paths: list[str], shape: tuple[int, ...], digests: NDArray[np.uint8], pool: Pool
    ):
        self.decode, self.paths, self.shape, self.digests, self.pool = decode, paths, shape, digests, pool

    def __getitem__(self, part: slice) -> Files:
        paths = self.paths[part]
        return Files(self.decode, paths, (len(paths), *self.shape[1:]), self.digests[part], self.pool)

    def begin(self, rows: NDArray[np.int64]) -> Callable[[NDArray[np.uint8]], None]:
        """Begins to decode; what is returned writes the images into an array (B, C, H, W)."""
        results = []
        for first in range(0, len(rows), CHUNK):
            chunk = rows[first : first + CHUNK]
            paths = [self.paths[row] for row in chunk.tolist()]
            results.append(self.pool.begin(partial(_decoded, self.decode, paths, self.digests[chunk], self.shape[1:])))

        def read(out: NDArray[np.uint8]) -> None:
            for number, result in enumerate(results):
                out[number * CHUNK : (number + 1) * CHUNK] = result()

        return read


def _decoded(decode: Decode, paths: list[str], digests: NDArray[np.uint8], shape: tuple[int, ...]) -> np.ndarray:
    images = np.empty((len(paths), *shape), np.uint8)
    for place, path in enumerate(paths):
        try:
            images[place] = decode(path, shape[-1])
        except ValueError as error:
            raise DataError(f"{path!a} changed since the images were indexed ({error}); restore it") from None
        if pixel_digest(images[place]) != digests[place].tobytes():
            raise DataError(f"{path!a} changed since the images were indexed; restore it, or begin the run again")
    return images
