"""At which depth can the class be read off? Linear probes on the frozen features of every layer, few-shot and full.

A layer's feature is its mean over positions (over the patch tokens, without the class token). The last feature,
`pooled`, is the input of the head. Features X are standardised by the images for fitting, targets T are +1 for the
class and -1 for the others, and the weights W minimise, in closed form and in float64,

    |X W - (T - mean T)|^2 + penalty |W|^2

The intercept is mean T, without a penalty. This is the few-shot evaluation of ViT (Dosovitskiy et al. 2021, arXiv
2010.11929, section 4) with 30 penalties from 2^-10 to 2^19, as in the authors' code (big_vision, fewshot_lsr.py). They
take the penalty that is best on the test images. We choose it on images that are used neither for fitting nor for the
test: one penalty for each layer and number of shots, over all draws together. (BiT, Kolesnikov et al. 2020, fine-tunes
the network, so its few-shot numbers mean something else.)

The labelled images are the run's validation images: 4 of 5 are for fitting, and every 5th chooses the penalty. The
network was not trained on them, so memorised images do not flatter its features, and they are the same for every share
of the training images. Accuracy is on the test images, as in every probe. Chance is 1/K.

- `linear@v1`, fitted to all of them, has the `accuracy` of each layer and, without layer, that of `pooled`;
  `half_depth`, the interpolated relative depth (0 for the first layer, 1 for the last) at which accuracy above chance
  is half that of `pooled`; and `images`, the number of images for fitting.
- `linear.shots@v1` has the `accuracy` of each layer with 1, 5, 10 and 25 images a class, the mean over 3 draws, and
  `accuracy_5` and so on for `pooled`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitbench.numbers.ridge import PENALTIES, ridge
from vitbench.probes.distorted import at_least_one
from vitbench.probes.subject import Row, Subject, make_row, ratio_row
from vitbench.probes.taps import POOLED, batch_size_for, mean_over_positions, prefix_of, record

SHOTS = (1, 5, 10, 25)
CHOOSE = 5  # every 5th labelled image chooses the penalty


class Labelled(NamedTuple):
    """Features of one layer (M,D), in float64, with the classes of their images (M,)."""

    features: Tensor
    labels: Tensor


def probe(subject: Subject, *, seed: int, images: int = 5000, draws: int = 3) -> list[Row]:
    """Probes every layer with at most `images` validation images, and with `draws` few-shot sets of each size."""
    at_least_one("probe.linear.images", images)
    at_least_one("probe.linear.draws", draws)
    pixels, labels = subject.held_out(images) if subject.held_out else (subject.images[:0], subject.labels[:0])
    chooses = torch.arange(len(labels)) % CHOOSE == CHOOSE - 1
    fit_labels, classes = labels[~chooses], subject.num_classes
    if len(fit_labels.unique()) < classes or not chooses.any():
        reason = f"{len(labels)} validation images are too few to fit {classes} classes on (data.val_fraction)"
        return [make_row("linear@v1", "accuracy", math.nan, reason=reason)]
    features, test_features = features_of(subject, pixels), features_of(subject, subject.images)
    sets: dict[int | None, list[Tensor]] = {None: [torch.arange(len(fit_labels))]}  # None takes all images
    sets |= {shots: few_shot_sets(fit_labels, classes, shots, draws, seed) for shots in SHOTS}
    rows: list[Row] = []
    accuracy: dict[str, float] = {}
    for name, values in features.items():
        fit, choose = Labelled(values[~chooses], fit_labels), Labelled(values[chooses], labels[chooses])
        test = Labelled(test_features[name], subject.labels)
        for shots, places in sets.items():
            right = right_at_best_penalty(fit, places, choose, test, classes) if places else None
            reason = "" if places else f"a class has fewer than {shots} of the {len(fit_labels)} images to fit on"
            protocol = "linear@v1" if shots is None else "linear.shots@v1"
            where = {} if shots is None else {"at": float(shots), "at_unit": "images a class"}
            rows.append(_accuracy_row(protocol, "accuracy", right, reason, seed, layer=name, **where))
            if shots is None:
                accuracy[name] = rows[-1]["value"]
            if name == POOLED:
                metric = "accuracy" if shots is None else f"accuracy_{shots}"
                rows.append(_accuracy_row(protocol, metric, right, reason, seed))
    depth, reason = half_depth([*accuracy.values()], 1 / classes)
    rows.append(make_row("linear@v1", "half_depth", depth, reason=reason))
    return [*rows, make_row("linear@v1", "images", len(fit_labels))]


@torch.inference_mode()
def features_of(subject: Subject, images: Tensor) -> dict[str, Tensor]:
    """Computes the feature (M,D) of every layer except the head, in depth order, in float64."""
    parts: dict[str, list[Tensor]] = {}
    for batch in images.split(batch_size_for(subject.model, subject.normalise(images[:1]))):
        with record(subject.model) as outputs:
            subject.model(subject.normalise(batch))
        for name, value in outputs.items():
            if value.ndim == 3 and name != POOLED:
                value = value[:, prefix_of(subject.model, value) :]
            if value.ndim > 2:  # also `pooled`, where the head does the pooling itself
                value = mean_over_positions(value)
            parts.setdefault(name, []).append(value.double())
    names = [*parts][:-1] if len(parts) > 1 else [*parts]
    return {name: torch.cat(parts[name]) for name in names}


def few_shot_sets(labels: Tensor, classes: int, shots: int, draws: int, seed: int) -> list[Tensor]:
    """Draws sets of `shots` images a class, as their places in `labels`; no sets where a class has fewer images."""
    random = np.random.default_rng((seed, 0, 4, shots))
    members = [np.flatnonzero(labels.cpu().numpy() == c) for c in range(classes)]
    if min(map(len, members)) < shots:
        return []
    sets = [np.concatenate([random.permutation(places)[:shots] for places in members]) for _ in range(draws)]
    return [torch.from_numpy(places) for places in sets]


def right_at_best_penalty(fit: Labelled, sets: list[Tensor], choose: Labelled, test: Labelled, classes: int) -> Tensor:
    """Returns, for each test image (M,), the share of sets with which it is classified correctly, at the penalty that
    is best on `choose`."""
    accuracy, right = torch.zeros(len(PENALTIES)), torch.zeros(len(PENALTIES), len(test.labels), dtype=torch.float64)
    inputs = [choose.features, test.features]
    for places in sets:
        choose_outputs, test_outputs = ridge(fit.features[places], fit.labels[places], inputs, classes)
        accuracy += (choose_outputs.argmax(2) == choose.labels).float().mean(1).cpu() / len(sets)
        right += (test_outputs.argmax(2) == test.labels).double().cpu() / len(sets)
    return right[int(accuracy.argmax())]


def half_depth(accuracy: list[float], chance: float) -> tuple[float, str]:
    """Returns the relative depth at which accuracy above chance is half of the last layer's, or why there is none."""
    half = chance + (accuracy[-1] - chance) / 2
    if len(accuracy) < 2:
        return math.nan, "the network has one layer"
    if accuracy[-1] <= chance:
        return math.nan, "the accuracy of the head's input is not above chance"
    i = next(i for i, value in enumerate(accuracy) if value >= half)
    beyond = (accuracy[i] - half) / (accuracy[i] - accuracy[i - 1]) if i else 0.0
    return (i - beyond) / (len(accuracy) - 1), ""


def _accuracy_row(protocol: str, metric: str, right: Tensor | None, reason: str, seed: int, **where: Any) -> Row:
    if right is None:
        return make_row(protocol, metric, math.nan, reason=reason, **where)
    return ratio_row(protocol, metric, right, seed, **where)
