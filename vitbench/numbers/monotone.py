"""Curves that are known at a few sizes and taken never to rise: where they fall to a level.

Shapes: R curves, k sizes, G levels.
"""

from __future__ import annotations

import numpy as np

from vitbench.numbers.forms import Array


def log_n_at(logs: Array, log_n: Array, levels: Array) -> Array:
    """Finds the log n at which each curve (R, k) falls to each level (R, G).

    It is -inf where a curve begins below the level, and inf where it never falls so far.
    """
    falling = isotonic(logs)
    reached = falling[:, None, :] <= levels[..., None] + 1e-12  # (R, G, k)
    i = np.clip(reached.argmax(-1), 1, None)  # (R, G)
    left, right = np.take_along_axis(falling, i - 1, 1), np.take_along_axis(falling, i, 1)
    with np.errstate(all="ignore"):
        share = np.clip((left - levels) / (left - right), 0, 1)
    found = log_n[i - 1] + share * (log_n[i] - log_n[i - 1])
    found = np.where(reached[..., 0], np.where(levels > falling[:, :1] + 1e-12, -np.inf, log_n[0]), found)
    return np.where(reached.any(-1), found, np.inf)


def last_log_n_at(logs: Array, log_n: Array, levels: Array) -> Array:
    """Finds the log n up to which each curve (R, k) is no lower than each level (R, G), which `log_n_at` begins with.

    The two differ where a curve is flat at a level. It is inf where a curve never falls below the level.
    """
    return -log_n_at(-isotonic(logs)[:, ::-1], -log_n[::-1], -levels)


def isotonic(logs: Array) -> Array:
    """Finds the nearest curves (R, k) that never rise (Barlow 1972).

    Point m of a curve is the min over i <= m of the max over j >= m of the mean of its points i to j.
    """
    k = logs.shape[1]
    total = np.concatenate([np.zeros((len(logs), 1)), logs.cumsum(1)], 1)
    means = {(i, j): (total[:, j + 1] - total[:, i]) / (j + 1 - i) for i in range(k) for j in range(i, k)}
    columns = [np.min([np.max([means[i, j] for j in range(m, k)], 0) for i in range(m + 1)], 0) for m in range(k)]
    return np.stack(columns, 1)
