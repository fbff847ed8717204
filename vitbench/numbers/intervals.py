"""What a number over seeds is worth, and a difference between two. No torch; scipy only where a quantile is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its interval. `low` and `high` are NaN where the values allow none; `why` says why."""

    mean: float
    low: float
    high: float
    n: int
    sd: float

    @property
    def half(self) -> float:
        """The number after the ±: half the interval's width."""
        return (self.high - self.low) / 2

    @property
    def why(self) -> str | None:
        """Why there is no interval; None where there is one."""
        if not math.isnan(self.low):
            return None
        return {0: "no value", 1: "one run"}.get(self.n, "equal values")


def mean_interval(values: Iterable[float | None], level: float = 0.95) -> Interval:
    """Mean and Student's t interval: m ± t((1 + level) / 2, n - 1) · s / sqrt(n), with s the deviation over n - 1.

    Student 1908, "The probable error of a mean", Biometrika 6. At n = 3 t is 4.303, at n = 2 it is 12.706: the width
    is honest about how little two seeds say. Missing and NaN values do not count. One value has no interval, and
    neither have equal values: a width of zero would claim certainty, where the truth is that the measurement did
    not resolve the difference (or that the seed changed nothing).
    """
    kept = [float(value) for value in values if value is not None and not math.isnan(value)]
    n = len(kept)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, math.nan)
    mean = math.fsum(kept) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, math.nan)
    if min(kept) == max(kept):
        return Interval(kept[0], math.nan, math.nan, n, 0.0)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in kept) / (n - 1))
    half = t_quantile((1 + level) / 2, n - 1) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, sd)


@cache
def t_quantile(probability: float, df: int) -> float:
    """The quantile of Student's t; `scipy.special` because `scipy.stats` takes four times as long to import."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


# ------------------------------------------------------------------------------------------------------- comparisons


class Paired(NamedTuple):
    """One model's values minus another's, over the seeds that both have."""

    interval: Interval  # of the differences
    p: float  # of the sign-flip test, two-sided


def paired(a: Mapping[Any, float], b: Mapping[Any, float]) -> Paired:
    """a - b where both have a value; the keys say what belongs together, (subset seed, seed) for runs."""
    differences = [a[key] - b[key] for key in a if key in b]
    return Paired(mean_interval(differences), sign_flip(differences))


EXACT = 16  # pairs up to which every assignment of signs is tried: 65,536


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of the paired permutation test (Fisher 1935): the share of sign patterns with as large a mean.

    It assumes nothing but that without a difference the two models of a pair could be swapped. Exact up to 16 pairs,
    with as many random patterns beyond. NaN without pairs.
    """
    import numpy as np

    n = len(differences)
    if n == 0:
        return math.nan
    values = np.asarray(differences, float)
    if n <= EXACT:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:  # the observed pattern counts as one (Phipson and Smyth 2010)
        signs = np.random.default_rng(0).choice([-1, 1], (2**EXACT, n))
        signs[0] = 1
    as_large = np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-12) - 1e-300
    return float(as_large.mean())


def least_p(n: int) -> float:
    """The smallest p that `sign_flip` can give with n pairs: 0.25 with 3, 0.0625 with 5; below 0.05 from 6 on."""
    return 2.0 ** (1 - min(n, EXACT + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979, "A simple sequentially rejective multiple test procedure").

    The smallest is multiplied by m, the next by m - 1, and none is below the one before it. NaN stays and does not count.
    """
    order = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    corrected, largest = [math.nan] * len(ps), 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected


def discordant(a: ArrayLike, b: ArrayLike, labels: ArrayLike) -> tuple[int, int]:
    """Of the same test images, how many only model a classifies rightly, and how many only b (`predictions.npy`)."""
    import numpy as np

    a, b, labels = np.asarray(a), np.asarray(b), np.asarray(labels)
    if not a.shape == b.shape == labels.shape:
        raise ValueError(f"{a.size} and {b.size} predictions of {labels.size} images cannot be compared")
    right_a, right_b = a == labels, b == labels
    return int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p that two checkpoints are equally good on these images (McNemar 1947, binomial form).

    It speaks of two checkpoints, not of two models: other seeds would give other checkpoints.
    """
    from scipy.special import bdtr

    n = only_a + only_b
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), n, 0.5))) if n else 1.0


# -------------------------------------------------------------------------------------------------------- one network

DRAWS = 1000  # of a bootstrap


def bootstrap_ratio(parts: NDArray[np.float64], of: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """sum(parts) / sum(of) over images (M,), and the ends of its 95 % percentile bootstrap over images.

    For the mean of a value an image, `of` is ones. It speaks of one network on other images of this kind; what another
    seed would give is for `mean_interval`. NaN where `of` sums to 0.
    """
    import numpy as np

    if not of.sum():
        return math.nan, math.nan, math.nan
    random = np.random.default_rng((seed, 0, 2))  # a stream of its own: no images are drawn with it
    drawn = (random.integers(len(of), size=(DRAWS // 10, len(of))) for _ in range(10))  # a tenth at a time, for memory
    sums = np.concatenate(
        [np.stack([parts[places].sum(1), of[places].sum(1)]) for places in drawn], axis=1
    )  # (2, DRAWS)
    ratios = sums[0, sums[1] > 0] / sums[1, sums[1] > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(parts.sum() / of.sum()), float(low), float(high)
