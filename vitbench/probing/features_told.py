"""Prints what `vitbench features` found: accuracies by network, classifier and share, and which network is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from vitbench.numbers.intervals import Interval, mean_interval, paired
from vitbench.numbers.text import align, say
from vitbench.numbers.words import number, plural
from vitbench.runs.predictions import Missing, read_classes
from vitbench.runs.record import Record


class Compared(NamedTuple):
    """A finished run of a network, with the settings in which it differs from other runs."""

    network: str
    classifier: str
    share: float
    seed: int
    record: Record


class Gap(NamedTuple):
    """How much better one network is than another, in percentage points."""

    mean: float
    half: float  # half the width of the 95 % interval; NaN where there is none
    why: str = ""  # why there is no interval


def told(runs: Sequence[Compared], folder: Path) -> None:
    """Prints a table, and a sentence for each pair of networks at the largest share."""
    if not runs:
        return
    networks = [*dict.fromkeys(run.network for run in runs)]
    classifiers = [*dict.fromkeys(run.classifier for run in runs)]
    shares = sorted({run.share for run in runs})

    def of(network: str, classifier: str, share: float) -> list[Compared]:
        return [run for run in runs if (run.network, run.classifier, run.share) == (network, classifier, share)]

    sizes = [next(run.record["train_images"] for run in runs if run.share == share) for share in shares]
    heads = [f"share {share:g} ({plural(size, 'image')})" for share, size in zip(shares, sizes, strict=True)]
    lines = [["network", "classifier", *heads, "px", "seconds"]]
    for network in networks:
        for classifier in classifiers:
            last = of(network, classifier, shares[-1])
            cells = [_cell([run.record for run in of(network, classifier, share)]) for share in shares]
            px = str(last[0].record["image_size"])
            seconds = number(sum(run.record["train_seconds"] for run in last) / len(last))
            lines.append([network, classifier, *cells, px, seconds])
    seeds, tested = plural(len({run.seed for run in runs}), "seed"), runs[0].record["test_images"]
    say("\n".join(align(lines, 2)) + "\n\n")
    say(
        f"Accuracy in % on {plural(tested, 'test image')}, by frozen features: mean ± 95 % interval over {seeds}, "
        "which draw the training images. The intervals of the differences below also count the choice of test images.\n"
    )
    for classifier in classifiers:
        for first, second in combinations(networks, 2):
            pair = (of(first, classifier, shares[-1]), of(second, classifier, shares[-1]))
            where = f"{classifier}, {plural(sizes[-1], 'training image')}"
            say(f"{where}: {sentence(first, second, difference(*pair, folder))}\n")


def _cell(records: Sequence[Record]) -> str:
    interval = mean_interval([record["test_accuracy"] for record in records])
    half = "" if interval.why else f" ± {100 * interval.half:.1f}"
    return f"{100 * interval.mean:.1f}{half}"


def difference(first: Sequence[Compared], second: Sequence[Compared], folder: Path) -> Gap:
    """Returns the first network's accuracy minus the second's in percentage points, paired by seed and by test image.

    The squared half widths of two intervals are added: over seeds (Student's t), and over test images (of each image's
    gain, averaged over seeds). The interval over seeds alone would be too narrow, because the seeds of a large share
    draw nearly the same images.
    """
    ours, theirs = ({run.seed: run for run in runs} for runs in (first, second))
    over_seeds: Interval = paired(
        *({seed: float(run.record["test_accuracy"] or 0) for seed, run in runs.items()} for runs in (ours, theirs))
    ).interval
    if over_seeds.n < 2:
        return Gap(100 * over_seeds.mean, math.nan, "one seed gives no interval")
    try:
        of_images = _half_over_images(ours, theirs, folder)
    except Missing as missing:
        return Gap(100 * over_seeds.mean, math.nan, str(missing))
    if over_seeds.why and not of_images:
        return Gap(100 * over_seeds.mean, math.nan, "seeds and test images all give the same difference")
    half = 0.0 if over_seeds.why else over_seeds.half
    return Gap(100 * over_seeds.mean, 100 * math.hypot(half, of_images))


def _half_over_images(ours: dict[int, Compared], theirs: dict[int, Compared], folder: Path) -> float:
    """Returns half the width of the interval over test images. Raises Missing where predictions are not there, or are
    of other images."""
    import numpy as np

    gains = []
    for seed in ours.keys() & theirs.keys():
        said, labels = (
            [read_classes(folder, run.record, file) for run in (ours[seed], theirs[seed])]
            for file in ("predictions.npy", "labels.npy")
        )
        if not np.array_equal(labels[0], labels[1]):
            raise Missing("they were tested on different images")
        right, wrong = (predicted == labels[0] for predicted in said)
        gains.append(right.astype(float) - wrong)
    over_images = mean_interval(np.mean(gains, axis=0).tolist())
    return 0.0 if over_images.why else over_images.half


def sentence(first: str, second: str, gap: Gap) -> str:
    """Says which network is better and by how many percentage points, or that these runs cannot tell."""
    if math.isnan(gap.half):
        unclear = f"these runs cannot tell whether {first} or {second} is better"
        return f"{unclear}: {gap.why} (difference {gap.mean:+.1f} points)"
    if gap.mean < 0:
        first, second, gap = second, first, gap._replace(mean=-gap.mean)
    between = f"95 % interval {gap.mean - gap.half:.1f} to {gap.mean + gap.half:.1f}"
    if gap.mean - gap.half <= 0:
        unclear = f"these runs cannot tell whether {first} or {second} is better"
        return f"{unclear} (difference {gap.mean:.1f} points, {between})"
    return f"{first} is better than {second} by {gap.mean:.1f} points ({between})"
