"""Statistics of results over seeds, of differences between two models, and of one network's images.

Nothing here imports torch, and scipy is imported only where a quantile is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

EXACT_PAIRS = 16  # pairs up to which `sign_flip` tries every assignment of signs, which are 65,536 at most
ROUNDING = 1e-12  # values that differ by this share of the largest are equal but for the last bits of a float
DRAWS = 1000  # in a bootstrap over images


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its interval; `low` and `high` are NaN where the values allow no interval."""

    mean: float
    low: float
    high: float
    n: int
    sd: float

    @property
    def half(self) -> float:
        """Half the interval's width, which stands after the ±."""
        return (self.high - self.low) / 2

    @property
    def why(self) -> str | None:
        """Says why there is no interval; None where there is one."""
        if not math.isnan(self.low):
            return None
        return {0: "no value", 1: "one run"}.get(self.n, "equal values")


def mean_interval(values: Iterable[float | None], level: float = 0.95, scale: float = 0.0) -> Interval:
    """Computes the mean and Student's t interval: m ± t((1 + level) / 2, n - 1) · s / sqrt(n); s divides by n - 1.

    Student 1908, "The probable error of a mean", Biometrika 6. At n = 3 t is 4.303, and at n = 2 it is 12.706, so the
    width shows how little two seeds say. Missing and NaN values do not count. One value has no interval, and
    neither have equal values: a width of zero would claim certainty, whereas in truth the measurement did not resolve
    the difference (or the seed changed nothing). Of differences, `scale` is the size of what was subtracted: they are
    equal if they differ by its last bits only, which for small differences can be many times their own.
    """
    numbers = [float(value) for value in values if value is not None and not math.isnan(value)]
    n = len(numbers)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, math.nan)
    mean = math.fsum(numbers) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, math.nan)
    last_bits = ROUNDING * max(scale, *map(abs, numbers))
    if max(numbers) - min(numbers) <= last_bits:
        return Interval(0.0 if abs(numbers[0]) <= last_bits else numbers[0], math.nan, math.nan, n, 0.0)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / (n - 1))
    half = t_quantile((1 + level) / 2, n - 1) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, sd)


@cache
def t_quantile(probability: float, df: int) -> float:
    """Computes Student's t quantile with `scipy.special`, as `scipy.stats` takes four times as long to import."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


# ------------------------------------------------------------------------------------------------------- comparisons


class Paired(NamedTuple):
    """One model's values minus another's, over the seeds that both have."""

    interval: Interval  # of the differences
    p: float  # of the sign-flip test, two-sided


def paired(a: Mapping[Any, float], b: Mapping[Any, float]) -> Paired:
    """Subtracts b from a where both have a value; a pair has one key, for runs their seed and subset seed."""
    keys = [key for key in a if key in b]
    differences, scale = [a[key] - b[key] for key in keys], size_of(values[key] for values in (a, b) for key in keys)
    return Paired(mean_interval(differences, scale=scale), sign_flip(differences, scale))


def size_of(values: Iterable[float]) -> float:
    """The largest of these numbers, whatever its sign: the `scale` of their differences."""
    return max(map(abs, values), default=0.0)


def smallest_difference(differences: Interval) -> float:
    """Computes the smallest true difference that n pairs would show: (t(0.975, n-1) + t(0.8, n-1)) · s / sqrt(n).

    At this difference the 95 % interval of the mean excludes 0 in about four of five studies of this size, if s, the
    deviation of the paired differences, is the true one (Cohen 1988, "Statistical Power Analysis", with t in place of
    normal quantiles). The exact power is 0.73 with 2 pairs, 0.77 with 3, 0.79 with 5 and 0.80 with 10. It is NaN where
    there is no interval.
    """
    if differences.why is not None:
        return math.nan
    df = differences.n - 1
    return (t_quantile(0.975, df) + t_quantile(0.8, df)) * differences.sd / math.sqrt(differences.n)


def t_p(interval: Interval) -> float:
    """Computes the two-sided p of Student's t test that the mean is 0; NaN where there is no interval."""
    from scipy.special import stdtr

    if interval.why is not None:
        return math.nan
    return 2 * float(stdtr(interval.n - 1, -abs(interval.mean) * math.sqrt(interval.n) / interval.sd))


def sign_flip(differences: Sequence[float], scale: float = 0.0) -> float:
    """Computes the two-sided p of the paired permutation test (Fisher 1935).

    p is the share of assignments of signs whose mean is at least as large. The test assumes only that, if there were
    no difference, the two models of a pair could be swapped. Up to 16 pairs it is exact; beyond that it draws 65,536
    assignments at random. Without pairs p is NaN. `scale` is that of `mean_interval`.
    """
    import numpy as np

    n = len(differences)
    if n == 0:
        return math.nan
    values = np.asarray(differences, float)
    if n <= EXACT_PAIRS:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:  # the observed pattern counts as one (Phipson and Smyth 2010)
        signs = np.random.default_rng(0).choice([-1, 1], (2**EXACT_PAIRS, n))
        signs[0] = 1
    last_bits = ROUNDING * n * max(scale, np.abs(values).max())
    as_large = np.abs(signs @ values) >= abs(values.sum()) - last_bits
    return float(as_large.mean())


def least_p(n: int) -> float:
    """Returns the least p that `sign_flip` can give with n pairs: 0.25 with 3, 0.0625 with 5, below 0.05 from 6 on."""
    return 2.0 ** (1 - min(n, EXACT_PAIRS + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Corrects m p values for their number (Holm 1979, "A simple sequentially rejective multiple test procedure").

    The smallest is multiplied by m and the next by m - 1, but none becomes smaller than the one before it. A NaN stays
    a NaN and is not counted in m.
    """
    order = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    corrected, largest = [math.nan] * len(ps), 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected


def count_discordant(a: ArrayLike, b: ArrayLike, labels: ArrayLike) -> tuple[int, int]:
    """Counts the test images that only model a, and those that only model b, classifies correctly.

    Raises ValueError where the numbers of images differ.
    """
    import numpy as np

    a, b, labels = np.asarray(a), np.asarray(b), np.asarray(labels)
    if not a.shape == b.shape == labels.shape:
        raise ValueError(f"{a.size} and {b.size} predictions of {labels.size} images cannot be compared")
    right_a, right_b = a == labels, b == labels
    return int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Computes the exact two-sided p that two checkpoints are equally good (McNemar 1947, binomial form).

    p is about two checkpoints, not about two models: other seeds would give other checkpoints.
    """
    from scipy.special import bdtr

    n = only_a + only_b
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), n, 0.5))) if n else 1.0


# -------------------------------------------------------------------------------------------------------- one network


def is_at_chance(right: int, images: int, classes: int) -> bool:
    """Whether the exact 95 % binomial interval of an accuracy holds 1 / classes, or lies below it.

    The interval's lower end (Clopper and Pearson 1934) is at most 1 / classes where guessing gets so many images right,
    or more, with a probability above 0.025. One class has no chance to compare with.
    """
    from scipy.special import bdtrc

    return classes > 1 and (right == 0 or float(bdtrc(right - 1, images, 1 / classes)) > 0.025)


def means_without_each(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The means over seeds of values (S, k), without one seed each: (S, k)."""
    without: NDArray[np.float64] = (values.sum(0) - values) / (len(values) - 1)
    return without


def jackknife_spread(estimates: NDArray[np.float64]) -> float:
    """The deviation of a jackknife's pseudo-values (Tukey 1958), from the estimates without one seed each, (S,)."""
    import numpy as np

    return float((len(estimates) - 1) * np.std(estimates, ddof=1))


def bootstrap_ratio(parts: NDArray[np.float64], of: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """Computes sum(parts) / sum(of) over images (M,), and the ends of its 95 % percentile bootstrap over images.

    For the mean of one value per image, `of` is all ones. The interval says what this network would do on other images
    of this kind; `mean_interval` says what other seeds would give. Where `of` sums to 0 all three are NaN.
    """
    import numpy as np

    if not of.sum():
        return math.nan, math.nan, math.nan
    random = np.random.default_rng((seed, 0, 2))  # no other code draws random numbers from it
    # all draws at once would need much memory
    tenths = (random.integers(len(of), size=(DRAWS // 10, len(of))) for _ in range(10))
    sums = np.concatenate([np.stack([parts[drawn].sum(1), of[drawn].sum(1)]) for drawn in tenths], 1)  # (2, DRAWS)
    ratios = sums[0, sums[1] > 0] / sums[1, sums[1] > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(parts.sum() / of.sum()), float(low), float(high)


def binomial_interval(right: float, images: int, level: float = 0.95) -> tuple[float, float]:
    """Computes the exact interval of the share of so many images that are right (Clopper and Pearson 1934).

    `right` may be a mean over seeds. Without images it is NaN.
    """
    from scipy.special import betaincinv

    if not images:
        return math.nan, math.nan
    tail = (1 - level) / 2
    low = float(betaincinv(right, images - right + 1, tail)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, images - right, 1 - tail)) if right < images else 1.0
    return low, high
