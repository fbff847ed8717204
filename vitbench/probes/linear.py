"""Where in depth can the class be read off? Linear probes on the frozen features of every layer, few-shot and full.

A layer's feature is its mean over positions (patch tokens without class token); the last one, `pooled`, is what the
head is given. Features are standardised by the images that are fitted on, targets are +1 for the class and -1 for the
others, and the weights minimise

    |X W - (T - mean T)|^2 + penalty |W|^2

in closed form, in float64, the intercept being mean T and free of the penalty: the few-shot evaluation of BiT
(Kolesnikov et al. 2020, arXiv 1912.11370) and ViT (Dosovitskiy et al. 2021, section 4), with 30 penalties from 2^-10 to
2^19 as in the authors' code (big_vision, fewshot_lsr.py). Theirs takes the penalty that is best on the test images;
here it is chosen on images that are neither fitted on nor tested on, one for each layer and number of shots, over all
draws together.

The labelled images are the run's validation images, 4 of 5 to fit on and every 5th to choose the penalty on: the
network was not trained on them, so memorised images do not flatter its features, and they are the same for every share
of the training images. The tested ones are the test images of every probe. Chance is 1/K.

- `linear@v1`: `accuracy` of each layer, fitted on all of them; without layer, of `pooled`; `half_depth`, the relative
  depth (0 the first layer, 1 the last) at which half of what `pooled` has above chance is reached, by interpolation;
  `images`, the number fitted on.
- `linear.shots@v1`: the same at 1, 5, 10 and 25 images a class, mean over 3 draws, `accuracy` by layer and number;
  `accuracy_5` and so on, of `pooled`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitbench.probes.distorted import at_least_one
from vitbench.probes.subject import Row, Subject, make_row, ratio_row
from vitbench.probes.taps import POOLED, batch_size_for, mean_over_positions, prefix_of, record

SHOTS = (1, 5, 10, 25)
PENALTIES = torch.tensor([2.0**k for k in range(-10, 20)], dtype=torch.float64)
CHOOSE = 5  # every 5th held-out image


def probe(subject: Subject, *, seed: int, images: int = 5000, draws: int = 3) -> list[Row]:
    """`images` are validation images at most; `draws` are few-shot sets of a size."""
    at_least_one("probe.linear.images", images)
    at_least_one("probe.linear.draws", draws)
    pixels, labels = subject.held_out(images) if subject.held_out else (subject.images[:0], subject.labels[:0])
    choose = torch.arange(len(labels)) % CHOOSE == CHOOSE - 1
    pool, classes = labels[~choose], subject.num_classes
    if len(pool.unique()) < classes or not choose.any():
        why = f"{len(labels)} validation images are too few to fit {classes} classes on (data.val_fraction)"
        return [make_row("linear@v1", "accuracy", math.nan, reason=why)]
    known, tested = features_of(subject, pixels), features_of(subject, subject.images)
    sets: dict[int | None, list[Tensor]] = {None: [torch.arange(len(pool))]}  # None: all of them
    sets |= {shots: few(pool, classes, shots, draws, seed) for shots in SHOTS}
    rows: list[Row] = []
    accuracy: dict[str, float] = {}
    for name, test in tested.items():
        fit, held = known[name][~choose], known[name][choose]
        for shots, chosen in sets.items():
            short = "" if chosen else f"a class has fewer than {shots} of the {len(pool)} images to fit on"
            right = best(fit, pool, chosen, held, labels[choose], test, subject.labels, classes) if chosen else None
            protocol = "linear@v1" if shots is None else "linear.shots@v1"
            where = {} if shots is None else {"at": float(shots), "at_unit": "images a class"}
            rows.append(_accuracy_row(protocol, "accuracy", right, short, seed, layer=name, **where))
            if shots is None:
                accuracy[name] = rows[-1]["value"]
            if name == POOLED:
                metric = "accuracy" if shots is None else f"accuracy_{shots}"
                rows.append(_accuracy_row(protocol, metric, right, short, seed))
    depth, why = half_depth([*accuracy.values()], 1 / classes)
    rows.append(make_row("linear@v1", "half_depth", depth, reason=why))
    return [*rows, make_row("linear@v1", "images", len(pool))]


@torch.inference_mode()
def features_of(subject: Subject, images: Tensor) -> dict[str, Tensor]:
    """The pooled feature (M,D) of every layer but the head, in depth order, in float64."""
    step = batch_size_for(subject.model, subject.normalise(images[:1]))
    found: dict[str, list[Tensor]] = {}
    for batch in images.split(step):
        with record(subject.model) as features:
            subject.model(subject.normalise(batch))
        for name, value in features.items():
            if value.ndim == 3 and name != POOLED:
                value = value[:, prefix_of(subject.model, value) :]
            if value.ndim > 2:  # `pooled` too, where the head pools for itself
                value = mean_over_positions(value)
            found.setdefault(name, []).append(value.double())
    names = [*found][:-1] if len(found) > 1 else [*found]
    return {name: torch.cat(found[name]) for name in names}


def few(labels: Tensor, classes: int, shots: int, draws: int, seed: int) -> list[Tensor]:
    """`draws` sets of `shots` images a class, as places; none where a class has fewer."""
    random = np.random.default_rng((seed, 0, 4, shots))
    members = [np.flatnonzero(labels.cpu().numpy() == c) for c in range(classes)]
    if min(map(len, members)) < shots:
        return []
    return [
        torch.from_numpy(np.concatenate([random.permutation(those)[:shots] for those in members])) for _ in range(draws)
    ]


def best(
    fit: Tensor,
    labels: Tensor,
    sets: list[Tensor],
    held: Tensor,
    truth: Tensor,
    test: Tensor,
    test_truth: Tensor,
    classes: int,
) -> Tensor:
    """Which test images (M,) are classified rightly, the mean over the sets, at the penalty that is best on `held`."""
    chosen, tested = torch.zeros(len(PENALTIES)), torch.zeros(len(PENALTIES), len(test), dtype=torch.float64)
    for places in sets:
        on_held, on_test = ridge(fit[places], labels[places], [held, test], classes)
        chosen += (on_held.argmax(2) == truth).float().mean(1).cpu() / len(sets)
        tested += (on_test.argmax(2) == test_truth).double().cpu() / len(sets)
    return tested[int(chosen.argmax())]


def ridge(X: Tensor, labels: Tensor, others: list[Tensor], classes: int) -> list[Tensor]:
    """What ridge regression to targets of +-1 says of other features, (penalties,M,K) each; of n features or of n images,
    whichever is the smaller system."""
    mean, deviation = X.mean(0), X.std(0, correction=0) + 1e-5
    X = (X - mean) / deviation
    T = 2.0 * torch.nn.functional.one_hot(labels, classes).to(X) - 1
    middle = T.mean(0)
    n, D = X.shape
    values, basis = torch.linalg.eigh(X.T @ X if n >= D else X @ X.T)
    scale = 1 / (values.clamp(min=0) + PENALTIES.to(X)[:, None])  # (penalties, eigenvalues)
    right = basis.T @ (X.T @ (T - middle) if n >= D else T - middle)
    found = []
    for other in others:
        left = (other - mean) / deviation
        left = left @ (basis if n >= D else X.T @ basis)
        found.append(left @ (scale[:, :, None] * right) + middle)
    return found


def half_depth(accuracy: list[float], chance: float) -> tuple[float, str]:
    """The relative depth at which half of the last accuracy above chance is reached, or why there is none."""
    wanted = chance + (accuracy[-1] - chance) / 2
    if len(accuracy) < 2:
        return math.nan, "the network has one layer"
    if accuracy[-1] <= chance:
        return math.nan, "the features that the head is given have no more than chance"
    i = next(i for i, value in enumerate(accuracy) if value >= wanted)
    back = (accuracy[i] - wanted) / (accuracy[i] - accuracy[i - 1]) if i else 0.0
    return (i - back) / (len(accuracy) - 1), ""


def _accuracy_row(protocol: str, metric: str, right: Tensor | None, why: str, seed: int, **where: Any) -> Row:
    if right is None:
        return make_row(protocol, metric, math.nan, reason=why, **where)
    return ratio_row(protocol, metric, right, seed, **where)
