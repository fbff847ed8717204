"""Code that six probes share: they distort the test images more and more, and count what a classifier still gets right.

A probe names its levels (angles, sizes, shares ...) and, at each level, the distortions over which it averages: its
draws. Distorted images are rounded to 0..255 like stored images, so a distortion that does nothing returns the image.

acc_0 is the accuracy at the reference level (angle 0, scale 1 ...), and chance is 1/K. Intervals are percentile
bootstraps over images (1,000 resamples, the same at all levels). The draws of an image are averaged first, so they stay
together in every resample.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitbench.errors import UserError
from vitbench.probes.subject import PIXELS_A_BATCH, Row, Subject, make_row, predict

Distort = Callable[[Tensor], Tensor]  # uint8 (B,C,H,W) -> uint8 (B,C,h,w); called for the batches in their order
Array = NDArray[np.float64]

RESAMPLES = 1000


def generator(*seed: int) -> torch.Generator:
    """Returns a generator on the CPU, with its own random numbers for each tuple of integers, equal on every device."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))


def rounded(images: Tensor) -> Tensor:
    """Rounds floats to the nearest uint8."""
    return images.round().clamp(0, 255).to(torch.uint8)


def resized(images: Tensor, size: int) -> Tensor:
    """Resizes uint8 (B,C,H,W) to (B,C,size,size), bicubic and anti-aliased where it shrinks; its own size is kept."""
    return rounded(F.interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True))


def mean_colour(subject: Subject) -> Tensor:
    """Returns the mean colour of the training images, (C,1,1) uint8. Normalisation makes it 0, up to rounding."""
    return rounded(255 * torch.tensor(subject.normalise.mean, device=subject.images.device)).view(-1, 1, 1)


def batches_of(images: Tensor) -> Sequence[Tensor]:
    """Splits images into batches whose size depends only on the image's size, so that draws do not depend on memory."""
    return images.split(max(1, min(250, PIXELS_A_BATCH // images[0, 0].numel())))


@torch.inference_mode()
def predicted_classes(subject: Subject, distort: Distort | None = None) -> Tensor:
    """Returns the class (M,) that the network predicts for every image after the distortion."""
    inputs = (batch if distort is None else distort(batch) for batch in batches_of(subject.images))
    return torch.cat([predict(subject, batch).argmax(1) for batch in inputs])


# ------------------------------------------------------------------------------------------------------------- sweep


class Sweep(NamedTuple):
    """How M images were classified at L levels."""

    levels: list[float]  # ascending
    reference: int  # the index of the reference level
    right: Array  # (M,L) the share of an image's draws that are classified correctly
    same: Array  # (M,L) the share of them that get the same class as at the reference
    untouched: Array  # (M,) 1 where the undistorted image is classified correctly


def sweep(
    subject: Subject, levels: Mapping[float, Sequence[Distort]], reference: float, clean: Tensor | None = None
) -> Sweep:
    """Classifies all images at all levels; a level without distortions has the untouched images.

    `clean` has the predicted classes of the untouched images, if they are known already.
    """
    clean = predicted_classes(subject) if clean is None else clean
    classes = {at: [predicted_classes(subject, draw) for draw in levels[at]] or [clean] for at in sorted(levels)}

    def shares(truth: Tensor) -> Array:  # (M,) -> (M,L)
        shares_at = [(torch.stack(draws) == truth).double().mean(0) for draws in classes.values()]
        return torch.stack(shares_at, 1).cpu().numpy()

    right, same = shares(subject.labels), shares(classes[reference][0])
    untouched = (clean == subject.labels).double().cpu().numpy()
    return Sweep([*classes], [*classes].index(reference), right, same, untouched)


def accuracy_curve(
    subject: Subject,
    protocol: str,
    levels: Mapping[float, Sequence[Distort]],
    *,
    seed: int,
    at_unit: str,
    reference: float,
    octaves: bool = False,
) -> list[Row]:
    """Sweeps one distortion and makes its rows."""
    return rows_of(sweep(subject, levels, reference), protocol, subject.num_classes, seed, at_unit, octaves)


def rows_of(swept: Sweep, protocol: str, num_classes: int, seed: int, at_unit: str, octaves: bool) -> list[Row]:
    """Makes the rows of a curve and of its summary.

    Each level (`at`) has its `accuracy`; its `agreement`, the share of images that get the same class as at the
    reference; and its `relative_drop`, (acc_0 - acc) / (acc_0 - chance), which is 0 where nothing is lost and 1 at
    guessing. Where acc_0 is not clearly better than guessing (its interval reaches chance), there is nothing to lose,
    and the drop is undefined.

    The summary has the `accuracy` of the untouched images; the `area` under acc/acc_0 over the levels (over their log2
    if `octaves`), divided by their range so that 1 means no loss; and the means of `relative_drop` and `agreement` over
    all levels except the reference.
    """
    L, zero = len(swept.levels), swept.reference
    x = np.log2(swept.levels) if octaves else np.array(swept.levels)
    distorted = np.arange(L) != zero

    def statistics(means: Array) -> Array:  # (R,2L+1) -> (R,3L+4)
        accuracy, agreement, untouched = means[:, :L], means[:, L:-1], means[:, -1]
        drop = relative_drop(accuracy, accuracy[:, [zero]], num_classes)
        summary = [untouched]
        if L > 1:
            retained = accuracy / accuracy[:, [zero]]
            summary += [area(x, retained), drop[:, distorted].mean(1), agreement[:, distorted].mean(1)]
        return np.concatenate([accuracy, drop, agreement, np.stack(summary, 1)], 1)

    columns = np.concatenate([swept.right, swept.same, swept.untouched[:, None]], 1)
    value, low, high = bootstrap(columns, statistics, seed)
    guessing = no_better_than_guessing(value[zero], low[zero], num_classes)
    rows = []
    for level, at in enumerate(swept.levels):
        for offset, metric in enumerate(("accuracy", "relative_drop", "agreement")):
            i, reason = offset * L + level, guessing if metric == "relative_drop" else ""
            rows.append(make_row(protocol, metric, value[i], low[i], high[i], reason, at=at, at_unit=at_unit))
    rows.append(make_row(protocol, "accuracy", value[3 * L], low[3 * L], high[3 * L]))
    reasons = {"area": "", "relative_drop": guessing, "agreement": ""}
    if not value[zero]:
        reasons["area"] = "no image is classified correctly at the reference"
    if L == 1:
        one_level = f"there is one level only, {swept.levels[0]:g} {at_unit}"
        return rows + [make_row(protocol, metric, math.nan, reason=one_level) for metric in reasons]
    for i, (metric, reason) in enumerate(reasons.items(), 3 * L + 1):
        rows.append(make_row(protocol, metric, value[i], low[i], high[i], reason))
    return rows


# --------------------------------------------------------------------------------------------------------- statistics


def bootstrap(columns: Array, statistic: Callable[[Array], Array], seed: int) -> tuple[Array, Array, Array]:
    """Computes a statistic of column means and its 95 % interval over images: value, low and high.

    `columns` is (M,S), a row for each image; `statistic` maps the means (R,S) of R resamples to (R,...). The resamples
    depend only on the seed and on M.
    """
    M, random = len(columns), np.random.default_rng((seed, 0, 3))  # the last number keeps this stream apart from others
    equal_chances = np.full(M, 1 / M)
    # 100 resamples at a time take less memory
    means = [random.multinomial(M, equal_chances, 100) @ columns / M for _ in range(RESAMPLES // 100)]
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns where all resamples are NaN
        low, high = np.nanquantile(statistic(np.concatenate(means)), (0.025, 0.975), axis=0)
        return statistic(columns.mean(0, keepdims=True))[0], low, high


def relative_drop(accuracy: Array, accuracy_0: Array, num_classes: int) -> Array:
    return (accuracy_0 - accuracy) / (accuracy_0 - 1 / num_classes)


def no_better_than_guessing(accuracy: float, low: float, num_classes: int) -> str:
    """Says that a network is not clearly better than guessing, so that it has nothing to lose; "" for a better one."""
    if low > 1 / num_classes:
        return ""
    return f"the accuracy at the reference, {accuracy:.3f}, is not clearly above guessing, {1 / num_classes:.3f}"


def area(x: Array, y: Array) -> Array:
    """Computes the area under y (R,L) over x (L,) by trapezoids, divided by the range of x: the mean height."""
    return ((y[:, 1:] + y[:, :-1]) / 2 * np.diff(x)).sum(1) / (x[-1] - x[0])


# ---------------------------------------------------------------------------------------------------------- options


def at_least_one(option: str, number: int) -> None:
    if number < 1:
        raise UserError(f"{option}={number}: must be 1 or more")


def tiles_a_side(size: int, option: str = "", grid: int | None = None) -> int:
    """Returns the `grid` that was typed, which must divide the image, or else the divisor of its size nearest to 8."""
    sides = divisors(size, option, grid)
    return min(sides, key=lambda side: abs(side - 8)) if grid is None else grid


def divisors(size: int, option: str, grid: int | None) -> list[int]:
    """Lists the numbers of tiles a side that divide an image. Raises UserError where a typed `grid` does not."""
    sides = [side for side in range(1, size + 1) if size % side == 0]
    if grid is not None and grid not in sides:
        choices = ", ".join(map(str, sides))
        raise UserError(f"{option}={grid}: the tiles of a side must divide the image's {size} px: {choices}")
    return sides


def patch_size(model: torch.nn.Module) -> int | None:
    """Returns the side of a ViT's patches in pixels (ours, torchvision's or timm's); None where it has no patches or
    they overlap."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(model, "patch_size", None) or getattr(embed, "patch_size", None)
    if getattr(getattr(embed, "proj", None), "stride", size) != size:
        return None
    return size[0] if isinstance(size, Sequence) else size
