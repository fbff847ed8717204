"""What becomes of a classifier when its images are distorted, more and more: what six probes have in common.

A probe names its levels (angles, sizes, shares ...) and at each the distortions to average over, its draws. Distorted
images are rounded to 0..255, as stored images are, so a distortion that does nothing gives back the image itself.

acc_0 is the accuracy at the reference level (angle 0, scale 1 ...), chance is 1/K. Intervals are percentile bootstraps
over images (1,000 resamples, the same for all levels); an image's draws are averaged first and stay together.
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
from vitbench.probes.subject import Row, Subject, make_row, predict

Distort = Callable[[Tensor], Tensor]  # uint8 (B,C,H,W) -> uint8 (B,C,h,w), called on batch after batch, in order
Array = NDArray[np.float64]

PIXELS = 2**20  # a batch, at most: about 200 MB of activations in the first stage of a ResNet-50
RESAMPLES = 1000


def generator(*seed: int) -> torch.Generator:
    """Random numbers on the CPU that no other tuple of integers has, the same for every device."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))


def rounded(images: Tensor) -> Tensor:
    """Any floats as uint8, the nearest that is one."""
    return images.round().clamp(0, 255).to(torch.uint8)


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 (B,C,H,W) -> (B,C,size,size): bicubic, with anti-aliasing where it shrinks; its own size changes nothing."""
    return rounded(F.interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True))


def mean_colour(subject: Subject) -> Tensor:
    """(C,1,1) uint8: what becomes 0, up to rounding, when it is normalised."""
    return rounded(255 * torch.tensor(subject.normalise.mean, device=subject.images.device)).view(-1, 1, 1)


def batches(images: Tensor) -> Sequence[Tensor]:
    """Parts of a number that depends on the image's size alone, so that the draws of a distortion do, too."""
    return images.split(max(1, min(250, PIXELS // images[0, 0].numel())))


@torch.inference_mode()
def predicted_classes(subject: Subject, distort: Distort | None = None) -> Tensor:
    """The class (M,) that is said of every image, once distorted."""
    shown = (batch if distort is None else distort(batch) for batch in batches(subject.images))
    return torch.cat([predict(subject, batch).argmax(1) for batch in shown])


# ------------------------------------------------------------------------------------------------------------- sweep


class Sweep(NamedTuple):
    """What was said of M images at L levels."""

    levels: list[float]  # ascending
    reference: int  # which of them is
    right: Array  # (M,L) share of an image's draws that are classified correctly
    same: Array  # (M,L) share that have the class said at the reference
    untouched: Array  # (M,) whether the undistorted image is classified correctly


def sweep(
    subject: Subject, levels: Mapping[float, Sequence[Distort]], reference: float, clean: Tensor | None = None
) -> Sweep:
    """Distorts all images at all levels; no distortions are the untouched images, of which `clean` may say the classes."""
    clean = predicted_classes(subject) if clean is None else clean
    said = {at: [predicted_classes(subject, one) for one in levels[at]] or [clean] for at in sorted(levels)}

    def shares(truth: Tensor) -> Array:
        return torch.stack([(torch.stack(one) == truth).double().mean(0) for one in said.values()], 1).cpu().numpy()

    untouched = (clean == subject.labels).double().cpu().numpy()
    return Sweep(list(said), list(said).index(reference), shares(subject.labels), shares(said[reference][0]), untouched)


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
    """The rows of a probe that sweeps one distortion."""
    return rows_of(sweep(subject, levels, reference), protocol, subject.num_classes, seed, at_unit, octaves)


def rows_of(found: Sweep, protocol: str, num_classes: int, seed: int, at_unit: str, octaves: bool) -> list[Row]:
    """A curve and its summary.

    Of every level (`at`): `accuracy`, `agreement` (the share of images that keep the class said at the reference) and
    `relative_drop`, (acc_0 - acc) / (acc_0 - chance): 0 where nothing is lost, 1 at guessing. Where acc_0 cannot be
    told from guessing (its interval reaches chance) there is nothing to lose and the drop is undefined.
    Of the sweep: `accuracy` of the untouched images; `area` under acc/acc_0 over the levels (their log2 if `octaves`),
    divided by their range, so that 1 is no loss; the mean of `relative_drop` and `agreement` over all levels but the
    reference.
    """
    L, zero = len(found.levels), found.reference
    x = np.log2(found.levels) if octaves else np.array(found.levels)
    others = np.arange(L) != zero

    def statistics(means: Array) -> Array:  # (R,2L+1) -> (R,3L+4)
        accuracy, agreement, untouched = means[:, :L], means[:, L:-1], means[:, -1]
        drop = relative_drop(accuracy, accuracy[:, [zero]], num_classes)
        summary = [untouched]
        if L > 1:
            summary += [area(x, accuracy / accuracy[:, [zero]]), drop[:, others].mean(1), agreement[:, others].mean(1)]
        return np.concatenate([accuracy, drop, agreement, np.stack(summary, 1)], 1)

    columns = np.concatenate([found.right, found.same, found.untouched[:, None]], 1)
    value, low, high = bootstrap(columns, statistics, seed)
    guess = guesses(value[zero], low[zero], num_classes)
    rows = []
    for index, at in enumerate(found.levels):
        for offset, metric in enumerate(("accuracy", "relative_drop", "agreement")):
            i, why = offset * L + index, guess if metric == "relative_drop" else ""
            rows.append(make_row(protocol, metric, value[i], low[i], high[i], why, at=at, at_unit=at_unit))
    rows.append(make_row(protocol, "accuracy", value[3 * L], low[3 * L], high[3 * L]))
    nothing = "" if value[zero] else "no image is classified correctly at the reference"
    for i, (metric, why) in enumerate({"area": nothing, "relative_drop": guess, "agreement": ""}.items(), 3 * L + 1):
        if L == 1:
            rows.append(
                make_row(protocol, metric, math.nan, reason=f"there is one level only, {found.levels[0]:g} {at_unit}")
            )
        else:
            rows.append(make_row(protocol, metric, value[i], low[i], high[i], why))
    return rows


# --------------------------------------------------------------------------------------------------------- statistics


def bootstrap(columns: Array, statistic: Callable[[Array], Array], seed: int) -> tuple[Array, Array, Array]:
    """A statistic of column means with its 95 % interval over images: value, low, high, each of the statistic's shape.

    `columns` is (M,S), a row per image; `statistic` maps the means (R,S) of R resamples to (R,...). The same seed and
    M draw the same resamples.
    """
    M, random = len(columns), np.random.default_rng((seed, 0, 3))  # a stream of its own
    chance = np.full(M, 1 / M)
    means = [random.multinomial(M, chance, 100) @ columns / M for _ in range(RESAMPLES // 100)]  # (100,S): less memory
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, where all resamples are NaN
        low, high = np.nanquantile(statistic(np.concatenate(means)), (0.025, 0.975), axis=0)
        return statistic(columns.mean(0, keepdims=True))[0], low, high


def relative_drop(accuracy: Array, accuracy_0: Array, num_classes: int) -> Array:
    return (accuracy_0 - accuracy) / (accuracy_0 - 1 / num_classes)


def guesses(accuracy: float, low: float, num_classes: int) -> str:
    """Why nothing can be lost where a network does no better than guessing; "" where it does."""
    if low > 1 / num_classes:
        return ""
    return f"the accuracy at the reference, {accuracy:.3f}, cannot be told from guessing, {1 / num_classes:.3f}"


def area(x: Array, y: Array) -> Array:
    """The area under y (R,L) over x (L,) by trapezoids, divided by the length of x: the mean height."""
    return ((y[:, 1:] + y[:, :-1]) / 2 * np.diff(x)).sum(1) / (x[-1] - x[0])


# ---------------------------------------------------------------------------------------------------------- options


def at_least_one(option: str, number: int) -> None:
    if number < 1:
        raise UserError(f"{option}={number}: must be 1 or more")


def tiles_a_side(size: int, option: str, grid: int | None) -> int:
    """`grid`, which a user typed and which must divide the image; null is the divisor of its size nearest to 8."""
    sides = divisors(size, option, grid)
    return min(sides, key=lambda side: abs(side - 8)) if grid is None else grid


def divisors(size: int, option: str = "", grid: int | None = None) -> list[int]:
    """The numbers of tiles a side that divide an image; UserError where `grid`, which a user typed, is none of them."""
    sides = [side for side in range(1, size + 1) if size % side == 0]
    if grid is not None and grid not in sides:
        raise UserError(
            f"{option}={grid}: tiles a side must divide the image's {size} px: {', '.join(map(str, sides))}"
        )
    return sides


def patch_size(model: torch.nn.Module) -> int | None:
    """Pixels a side of a ViT's patches (ours and torchvision's, or timm's); None for a network without, or whose patches
    overlap."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(model, "patch_size", None) or getattr(embed, "patch_size", None)
    if getattr(getattr(embed, "proj", None), "stride", size) != size:
        return None
    return size[0] if isinstance(size, Sequence) else size
