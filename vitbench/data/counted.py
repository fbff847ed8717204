"""Counted random numbers: draw n of an image is a function of its key and n, whatever else is drawn and in any order.

The splitmix64 finaliser (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators") of key + counter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(z: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser, uint64 to uint64; overwrites its argument."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def counted(keys: np.ndarray, n: int) -> np.ndarray:
    """n random uint64 for each key: (M,) -> (M,n). A shorter count is a prefix of a longer one."""
    return mix(keys[:, None] + np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN)


def keys_of(*parts: int | np.ndarray) -> np.ndarray:
    """One key for every combination of parts, broadcast to 1-D; `keys_of(1, 2)` and `keys_of(2, 1)` differ."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mix((key ^ mix(np.atleast_1d(np.asarray(part, np.uint64)) + _GOLDEN)) + _GOLDEN)
    return key


def uniform(keys: np.ndarray, n: int) -> np.ndarray:
    """(M,) -> (n,M) float64 in [0, 1)."""
    return (counted(keys, n) >> np.uint64(11)).T * 2.0**-53


def gauss(keys: np.ndarray, n: int) -> np.ndarray:
    """(M,) -> (M,n) float32 of mean 0 and variance 1: sums of four random bytes, close to normal out to 3.4."""
    lanes = np.uint64(0x00FF00FF00FF00FF)
    total: Any = np.uint64(0)
    for h in np.split(counted(keys, 2 * -(-n // 4)), 2, axis=1):  # 4 sums in the 16-bit lanes of each uint64
        total = total + (h & lanes) + (h >> np.uint64(8) & lanes)
    sums = total.astype("<u8", copy=False).view("<u2")[:, :n].astype(np.float32)
    sums -= np.float32(510)
    sums *= np.float32(1 / math.sqrt(4 * (256**2 - 1) / 12))
    return sums
