"""What limits each point of a learning curve: the number of its images, or else the budget or the size of the network.

A network that was trained too little errs for lack of steps, one that is too small for lack of parameters, and neither
would err less with more images. A curve of such points is flat where it could still fall, so no exponent, offset or
verdict rests on them. What is known of a point, in the order in which it decides:

    reference   The same number of samples, drawn from more images (the most that there are with so many samples): the
                real against the ideal world of Nakkiran, Neyshabur and Sedghi 2021 (arXiv 2010.08127). The point is
                limited by images if its error, paired by seed, is surely the larger one. It is not if the excess is
                surely below half of what an exponent of 0.1 would give; a wider interval leaves it to the gap.
    gap         The error on test images minus that on training images. A gap that is not surely above 0 says that the
                point is not limited by images. One that is says "perhaps": a limit by images needs a gap, but a gap
                does not prove it.
    plateau     Where neither decides: the error surely falls by less than half of what it fell before, up to the
                largest size, though the images grow. Then the size and all larger ones are not limited by images.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from vitbench.numbers.curves import Curve
from vitbench.numbers.intervals import Interval, mean_interval, size_of, t_quantile
from vitbench.numbers.pair import LEAST_SEEDS

Limit = Literal["images", "perhaps", "not", "unknown"]
SAME_SAMPLES = 0.01  # numbers of samples that differ by less are equal: steps are rounded up
SLOWEST = 0.1  # the smallest exponent that is assumed of a curve before it became flat
SOLVED = 0.02  # a model with an error or a loss up to this has hardly anything left to learn, from images or from steps
FLAT = 0.5  # a curve that surely falls by less than this share of what that exponent promises is flat


@dataclass(frozen=True)
class Point:
    """One run as a point of a learning curve."""

    n: float  # where it stands on the axis
    seed: Hashable  # another model's point of the same seed is its pair
    value: float
    source: str  # what an error line calls the point
    samples: float | None = None  # images seen, each as often as it was seen
    trained: float | None = None  # the same value on images that it was trained on
    gap: float | None = None  # value - trained, or where that is not known the same of the loss
    test_images: int | None = None


class Certificate(NamedTuple):
    """The same runs with more samples."""

    samples: float
    fall: Interval  # of the value from the runs to their certificates; its spread is sqrt(2) times that over seeds


@dataclass(frozen=True)
class Size:
    """What is known of a curve's points at one size."""

    n: float
    value: Interval
    limit: Limit
    epochs: float | None = None  # how often an image was seen
    trained: Interval | None = None
    gap: Interval | None = None  # the value minus `trained`
    loss_gap: Interval | None = None  # where `trained` is not known, of the loss, from training batches to test images
    excess: Interval | None = None  # the value minus that of the reference
    reference: float | None = None  # the images of the reference
    certificate: Certificate | None = None
    is_perfect: bool = False  # half of the runs or more have no error

    @property
    def counts(self) -> bool:
        """Whether verdicts, exponents, offsets and label efficiencies rest on it."""
        return self.limit != "not"

    @property
    def is_solved(self) -> bool:
        """Whether the model errs so little that hardly anything is left to learn, whatever limits it."""
        return self.is_perfect or self.value.mean <= SOLVED


def sizes_of(
    curve: Curve, points: Sequence[Point], references: Iterable[Point], certificates: Mapping[str, Point]
) -> list[Size]:
    """Says of each size of a curve what limits it.

    `points` are those of the curve, `references` all points of the same model, and `certificates` are by the source of
    the point that they certify.
    """
    at: dict[tuple[Hashable, float], Point] = {(point.seed, point.n): point for point in points}
    of_model = [*points, *references]
    sizes = []
    for n in curve.n.tolist():
        here = [at[seed, n] for seed in curve.seeds]
        pairs = [(point, _reference(point, of_model)) for point in here]
        met = [(point, other) for point, other in pairs if other is not None]
        value, reference = (
            mean_interval(point.value for point in here),
            max((other.n for _, other in met), default=None),
        )
        scale = size_of(each.value for pair in met for each in pair)
        excess = mean_interval((point.value - other.value for point, other in met), scale=scale) if met else None
        # a gap of the loss of batches is no gap of the value, so the two are in no mean together
        seen_as_test = [point for point in here if point.trained is not None]
        scale = size_of(point.value for point in seen_as_test)  # that of what it was trained on is hardly larger
        trained = _interval((point.trained for point in seen_as_test), 0.0)
        gap = _interval((point.gap for point in seen_as_test), scale)
        loss_gap = None if seen_as_test else _interval((point.gap for point in here), 1.0)
        samples = [point.samples for point in here if point.samples is not None]
        sizes.append(
            Size(
                n,
                value,
                _limit(excess, value.mean * (1 - (n / (reference or n)) ** SLOWEST), gap, loss_gap),
                samples[0] / n if samples else None,
                trained,
                gap,
                loss_gap,
                excess,
                reference,
                _certificate(here, certificates),
            )
        )
    sizes = _perfect_told(sizes, curve)
    flat = _first_flat(curve) if len(curve.seeds) >= LEAST_SEEDS else None
    if flat is None:
        return sizes
    return [
        replace(size, limit="not") if i >= flat and size.limit in ("unknown", "perhaps") else size
        for i, size in enumerate(sizes)
    ]


def without_limits(curve: Curve) -> list[Size]:
    """The sizes of a curve that is not along images, or of which nothing else is known: all of them count."""
    sizes: list[Size] = [
        Size(n, mean_interval(column.tolist()), "unknown")
        for n, column in zip(curve.n.tolist(), curve.errors.T, strict=True)
    ]
    return _perfect_told(sizes, curve)


def _perfect_told(sizes: Sequence[Size], curve: Curve) -> list[Size]:
    """Marks the sizes at which most runs err in nothing: what more images would do cannot be seen there."""
    marked = zip(sizes, curve.is_perfect.tolist(), strict=True)
    return [replace(size, limit="not", is_perfect=True) if perfect else size for size, perfect in marked]


def _interval(values: Iterable[float | None], scale: float) -> Interval | None:
    known = [value for value in values if value is not None]
    return mean_interval(known, scale=scale) if known else None


def _reference(point: Point, others: Iterable[Point]) -> Point | None:
    """The point of the same seed that saw as many samples of the most images; None where none saw more images."""
    if point.samples is None:
        return None
    alike = [
        other
        for other in others
        if other.seed == point.seed
        and other.n > point.n
        and other.samples is not None
        and abs(other.samples - point.samples) <= SAME_SAMPLES * point.samples
    ]
    return max(alike, key=lambda other: other.n, default=None)


def _limit(excess: Interval | None, slow_fall: float, gap: Interval | None, loss_gap: Interval | None) -> Limit:
    """Decides by the excess over the reference, or else by the gap.

    `slow_fall` is by how much the value would fall up to the images of the reference if it fell slowly.
    """
    if excess is not None and excess.n >= LEAST_SEEDS:
        if _surely_above_0(excess):
            return "images"
        if (excess.mean if excess.why else excess.high) < FLAT * slow_fall:
            return "not"
    of_any = gap or loss_gap
    if of_any is not None and of_any.n >= LEAST_SEEDS:
        return "perhaps" if _surely_above_0(of_any) else "not"
    return "unknown"


def _surely_above_0(interval: Interval) -> bool:
    return (interval.mean if interval.why else interval.low) > 0


def _first_flat(curve: Curve) -> int | None:
    """The first size from which on the curve is flat, as an index; None where it falls up to its largest size.

    The fall to the largest size is compared, within each seed, with that of a power law whose exponent is the steepest
    between two earlier sizes, and at least SLOWEST. A curve that falls as fast up to any other size is not flat.
    """
    x, logs = np.log(curve.n), curve.logs
    steepest = SLOWEST
    scale = max(1.0, float(np.abs(logs).max(initial=0.0)))
    for i in range(len(x) - 1):
        falls = [mean_interval((logs[:, i] - logs[:, j]).tolist(), scale=scale) for j in range(i + 1, len(x))]
        low, high = _ends(falls[-1])
        fell = any(_ends(fall)[0] > FLAT * steepest * (x[j] - x[i]) for j, fall in enumerate(falls, i + 1))
        if low <= 0 and high < FLAT * steepest * (x[-1] - x[i]) and not fell:
            return i
        step = (curve.mean_logs[i] - curve.mean_logs[i + 1]) / (x[i + 1] - x[i])
        steepest = max(steepest, float(step))
    return None


def _ends(interval: Interval) -> tuple[float, float]:
    return (interval.mean, interval.mean) if interval.why else (interval.low, interval.high)


def _certificate(here: Sequence[Point], certificates: Mapping[str, Point]) -> Certificate | None:
    """Computes the fall from points to their certificates.

    Certificates of one seed are usual, so the spread of the fall is not that of several falls but follows from that of
    the value over the seeds, which the run and its certificate both have. Two seeds, or equal values, give no interval.
    """
    met = [(point, certificates[point.source]) for point in here if point.source in certificates]
    if not met:
        return None
    mean = math.fsum(point.value - other.value for point, other in met) / len(met)
    sd = math.sqrt(2) * mean_interval(point.value for point in here).sd
    enough = len(here) >= LEAST_SEEDS and sd > 0
    half = t_quantile(0.975, len(here) - 1) * sd / math.sqrt(len(met)) if enough else math.nan
    samples: Any = met[0][1].samples
    return Certificate(samples, Interval(mean, mean - half, mean + half, len(met), sd))
