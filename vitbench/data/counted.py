"""Counter-based random numbers: number n of a key depends on the key and n alone, not on what else was drawn.

Each number is the splitmix64 finaliser of key + n * gamma (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: np.ndarray) -> np.ndarray:
    """Applies the splitmix64 finaliser, uint64 to uint64; overwrites its argument."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def counted(keys: np.ndarray, n: int) -> np.ndarray:
    """Draws n random uint64 for each key: (M,) -> (M,n). A smaller n gives the first of the same numbers."""
    return _mix(keys[:, None] + np.arange(1, n + 1, dtype=np.uint64) * _GAMMA)


def keys_of(*parts: int | np.ndarray) -> np.ndarray:
    """Hashes parts, which broadcast to 1-D, into keys. The order matters: `keys_of(1, 2)` is not `keys_of(2, 1)`."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = _mix((key ^ _mix(np.atleast_1d(np.asarray(part, np.uint64)) + _GAMMA)) + _GAMMA)
    return key


def uniform(keys: np.ndarray, n: int) -> np.ndarray:
    """Draws n uniform float64 in [0, 1) for each key: (M,) -> (n,M)."""
    return (counted(keys, n) >> np.uint64(11)).T * 2.0**-53


def gauss(keys: np.ndarray, n: int) -> np.ndarray:
    """Draws n float32 with mean 0 and variance 1 for each key: (M,) -> (M,n).

    Each is a sum of four random bytes, which is close to normal up to 3.4 standard deviations.
    """
    low_bytes = np.uint64(0x00FF00FF00FF00FF)
    total: Any = np.uint64(0)
    for words in np.split(counted(keys, 2 * -(-n // 4)), 2, axis=1):  # a uint64 holds 4 sums in lanes of 16 bits
        total = total + (words & low_bytes) + (words >> np.uint64(8) & low_bytes)
    sums = total.astype("<u8", copy=False).view("<u2")[:, :n].astype(np.float32)
    sums -= np.float32(510)
    sums *= np.float32(1 / math.sqrt(4 * (256**2 - 1) / 12))
    return sums
