"""Computes features of frozen networks once and keeps them, and fits two classifiers to them.

The feature of an image is the input of the network's head, after pooling. The network is in evaluation mode, and images
are not augmented.

- `linear`: ridge regression in closed form (vitbench/numbers/ridge.py), in float64.
- `nearest`: the k training images whose features are nearest by cosine vote with weights exp(cosine / 0.07) (Wu et al.
  2018, arXiv 1805.01978; as in DINO, Caron et al. 2021, arXiv 2104.14294).

The penalty, and k among 1, 5, 10 and 20, are chosen by accuracy on validation images; among equals, the smallest.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitbench.data.loader import Normalise, seed_random_state
from vitbench.data.split import Dataset, Split
from vitbench.data.stream import Stream
from vitbench.errors import UserError
from vitbench.machine.disk import write
from vitbench.machine.hardware import Machine
from vitbench.machine.progress import Progress
from vitbench.models.build import build_model, cost
from vitbench.models.families import LIBRARIES
from vitbench.models.library import Network, of_channels
from vitbench.numbers.ridge import PENALTIES, Ridge
from vitbench.probes.linear import Labelled
from vitbench.runs.origin import Parents
from vitbench.runs.record import Beginning
from vitbench.training import checkpoint, transfer
from vitbench.training.networks import normalise_of

BATCH = 64  # a network sees so many images at a time
NEIGHBOURS = (1, 5, 10, 20)
TEMPERATURE = 0.07  # the temperature of votes
CHUNK = 1000  # so many images are compared with all training images at a time
VERSION = 1  # the version of the files of features


class Features(NamedTuple):
    """The features that a frozen network computes for all images of a data set."""

    train: Tensor  # (M, D), float32, in the order of the data set
    test: Tensor  # (M, D), float32, in the order of the data set
    seconds: float  # time of computing one image
    mean: tuple[float, ...]  # the mean of each channel by which images were normalised
    std: tuple[float, ...]  # the standard deviation of each channel, for the same
    parameters: int
    multiply_adds: int
    init: Beginning
    notes: list[str]


class Classified(NamedTuple):
    """The scores that a classifier gives to the test images, and what was chosen on validation images."""

    scores: Tensor  # (M, K)
    val_accuracy: float
    penalty: float | None = None  # of the linear classifier
    neighbours: int | None = None  # that vote


def compute_features(
    settings: Mapping[str, Any], parents: Parents, dataset: Dataset, machine: Machine, display: Progress
) -> Features:
    """Computes the features by the network that a run begins from, or reads them from the cache.

    Raises UserError where the network's weights cannot be had or do not fit, or it takes no such images.
    """
    seed_random_state(0, 0)
    train, origin = dataset.train, parents.origin
    assert origin is not None
    shape = {"image_size": train.image_size, "channels": train.channels, "num_classes": len(dataset.classes)}
    architecture = {**settings["model"], **shape}
    cache = Path(settings["data"]["cache"])
    parameters, multiply_adds = cost(**architecture, memory=cache)
    model: Any = build_model(**architecture)
    if isinstance(model, Network):
        model.check_images()
    init = transfer.begin(model, origin, head="new", classes=dataset.classes)
    layout = torch.channels_last if model.channels_last else torch.preserve_format
    model = model.eval().to(machine.device, memory_format=layout)
    if isinstance(model, Network) or origin.normalised_by is None:
        images = Stream(train.images, np.arange(len(train)), machine.device)
        normalise, notes = normalise_of(images, model, origin, None)
    else:
        mean, std = (of_channels(each, train.channels) for each in origin.normalised_by)
        normalise, notes = Normalise(mean, std, machine.device, model.channels_last), []
    key = {
        "version": [
            VERSION,
            torch.__version__,
            *([version(name)] if (name := model_name(settings)) in LIBRARIES else []),
        ],
        "weights": init["sha256"],
        "model": settings["model"],
        "images": [dataset.fingerprint, train.image_size, settings["data"]["classes"]],
        "normalised by": [normalise.mean, normalise.std],
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / "features" / f"{model_name(settings)}-{digest}.safetensors"
    kept, about = _read(path)
    if not kept:
        begin = time.perf_counter()
        kept = {
            "train": _computed(model, normalise, train, machine, display, 0),
            "test": _computed(model, normalise, dataset.test, machine, display, len(train)),
        }
        machine.synchronise()
        about = {"seconds": (time.perf_counter() - begin) / (len(train) + len(dataset.test))}
        write(path, checkpoint.to_bytes(kept, about), folders=True)
    numbers = (normalise.mean, normalise.std, parameters, multiply_adds)
    return Features(kept["train"], kept["test"], about["seconds"], *numbers, init, notes)


def model_name(settings: Mapping[str, Any]) -> str:
    name: str = settings["model"]["name"]
    return name


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads features from the cache; returns empty ones where the file is missing or damaged."""
    with suppress(UserError):
        return checkpoint.load_tensors(path)
    return {}, {}


@torch.inference_mode()
def _computed(model: Any, normalise: Normalise, split: Split, machine: Machine, display: Progress, done: int) -> Tensor:
    parts = []
    for batch in Stream(split.images, np.arange(len(split)), machine.device).split(BATCH):
        parts.append(model.features(normalise(batch)).float().cpu())
        done += len(batch)
        display.update(done)
    features = torch.cat(parts)
    if not bool(features.isfinite().all()):
        raise UserError("its features are not finite; the weights are wrong for this network")
    return features


# -------------------------------------------------------------------------------------------------------- classifiers


def classify(classifier: str, fit: Labelled, choose: Labelled, test: Tensor, classes: int) -> Classified:
    """Fits a classifier, `linear` or `nearest`, and returns its scores for the features `test` (M, D).

    The images of `choose` choose the penalty or the number of neighbours.
    """
    return (_linear if classifier == "linear" else _nearest)(fit, choose, test, classes)


def _linear(fit: Labelled, choose: Labelled, test: Tensor, classes: int) -> Classified:
    fitted = Ridge.fit(fit.features.double(), fit.labels, classes)
    values = choose.features.double()
    right = [_share_right(fitted.outputs(values, place), choose.labels) for place in range(len(PENALTIES))]
    best = int(np.argmax(right))
    return Classified(fitted.outputs(test.double(), best), right[best], penalty=PENALTIES[best].item())


def _nearest(fit: Labelled, choose: Labelled, test: Tensor, classes: int) -> Classified:
    possible = [k for k in NEIGHBOURS if k <= len(fit.labels)]
    right = [_share_right(scores, choose.labels) for scores in votes(fit, choose.features, classes, possible)]
    best = int(np.argmax(right))
    (scores,) = votes(fit, test, classes, [possible[best]])
    return Classified(scores, right[best], neighbours=possible[best])


def votes(fit: Labelled, values: Tensor, classes: int, neighbours: list[int]) -> list[Tensor]:
    """Returns, for each number of neighbours, the votes (M, K) of features (M, D); those of an image sum to 1."""
    towards, parts = F.normalize(fit.features, dim=1), []
    for chunk in values.split(CHUNK):
        cosine, places = (F.normalize(chunk, dim=1) @ towards.T).topk(max(neighbours))  # (B, k), nearest first
        weights = ((cosine - 1) / TEMPERATURE).exp().double()
        theirs = F.one_hot(fit.labels[places], classes) * weights[:, :, None]  # (B, k, K)
        sums = [theirs[:, :k].sum(1) for k in neighbours]
        parts.append(torch.stack([each / each.sum(1, keepdim=True) for each in sums]))
    return [*torch.cat(parts, 1)]


def _share_right(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()
