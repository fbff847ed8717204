"""Reads what the runs of an advice study found: the accuracies, predictions and learning curve of each network.

M test images, K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitbench.comparing.grouping import groups_of, lines_along
from vitbench.comparing.select import Row, Runs
from vitbench.errors import UserError
from vitbench.fitting.findings import Compared, Report, report_of
from vitbench.fitting.lines import CurveOfRuns, lines_of
from vitbench.fitting.mcnemar import count_in
from vitbench.numbers.intervals import Interval, mcnemar_p, mean_interval, paired
from vitbench.runs.predictions import Missing, read_classes
from vitbench.runs.run import read_metrics

LATE = 0.8  # after this share of the steps, a gain of validation accuracy says that it is still rising
FAMILIES = {"vit": "ViT", "resnet": "ResNet", "mixer": "Mixer"}


@dataclass(frozen=True)
class Network:
    """One network, trained on the largest number of images that was tried. The keys of mappings are seeds."""

    name: str
    accuracies: Mapping[Hashable, float]  # shares of the test images
    predictions: Mapping[Hashable, NDArray[np.int64]]  # (M,) each, for the runs that have them
    # accuracy on training images, which are evaluated as test images are
    trained: Mapping[Hashable, float] = field(default_factory=dict)
    rises: Mapping[Hashable, float] = field(default_factory=dict)  # gain of validation accuracy at the end of a run
    pretrained: bool = False
    row: Row = field(default_factory=dict)  # the row of one of its runs
    curve: Sequence[tuple[float, Interval]] = ()  # numbers of training images, each with the accuracy over seeds
    diverged: int = 0  # number of its runs that diverged

    @property
    def accuracy(self) -> float:
        return fmean(self.accuracies.values())


class Difference(NamedTuple):
    """How much more accurate network a is than network b, as a share of the test images."""

    a: Network
    b: Network
    of_a: float  # accuracy of a, the mean over the seeds that both have
    of_b: float
    over_seeds: Interval  # t interval of the differences paired by seed
    over_images: Interval  # t interval over test images of the mean over seeds of "a is right" minus "b is right"
    tests: Sequence[float]  # p of McNemar's test in each seed

    @property
    def mean(self) -> float:
        return self.over_seeds.mean


@dataclass(frozen=True)
class Results:
    """All that the advice is made from."""

    networks: Sequence[Network]  # the most accurate first
    labels: NDArray[np.int64]  # (M,)
    classes: Sequence[str]  # K
    images: int  # the largest number of training images
    train_counts: Sequence[int]  # training images of each class, K
    report: Report | None = None  # learning curves of the networks that were trained from scratch
    planned: int = 0  # number of runs
    finished: int = 0  # number of runs
    notes: Sequence[str] = ()

    @property
    def test_images(self) -> int:
        return len(self.labels)

    @property
    def from_scratch(self) -> list[Network]:
        return [network for network in self.networks if not network.pretrained]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Test images of each class, (K,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def compared(self, a: str, b: str) -> Compared | None:
        """Returns what was found about the learning curves of two networks; None where they were not compared."""
        pairs = self.report.pairs if self.report else []
        return next((pair for pair in pairs if {pair.whole.a.label, pair.whole.b.label} == {a, b}), None)

    def line(self, name: str) -> CurveOfRuns | None:
        return self.report.fitted_lines.get(name) if self.report else None


def difference(one: Network, other: Network, labels: NDArray[np.int64]) -> Difference | None:
    """Compares two networks by seed and by test image; None where they have no seed in common."""
    a, b = sorted((one, other), key=lambda network: -network.accuracy)
    seeds = [seed for seed in a.accuracies if seed in b.accuracies]
    if not seeds:
        return None
    if fmean(a.accuracies[seed] - b.accuracies[seed] for seed in seeds) < 0:  # their common seeds decide the order
        a, b = b, a
    right = [
        ((a.predictions[seed] == labels), (b.predictions[seed] == labels))
        for seed in seeds
        if seed in a.predictions and seed in b.predictions
    ]
    ahead = np.mean([x.astype(float) - y for x, y in right], 0) if right else np.array([])
    tests = [mcnemar_p(int((x & ~y).sum()), int((y & ~x).sum())) for x, y in right]
    over_seeds = paired(a.accuracies, b.accuracies).interval
    of_a, of_b = (fmean(one.accuracies[seed] for seed in seeds) for one in (a, b))
    return Difference(a, b, of_a, of_b, over_seeds, mean_interval(ahead.tolist()), tests)


# ------------------------------------------------------------------------------------------------------------- reading


def network_name(row: Row) -> str:
    """Returns what the advice calls a network: ViT, ResNet, convnext_atto (pretrained, fine-tuned)."""
    model = str(row.get("model"))
    name = str(row.get("model.arch") or FAMILIES.get(model, model))
    if not row.get("init"):
        return name
    return f"{name} (pretrained, {'only its last layer trained' if row.get('freeze') == 'backbone' else 'fine-tuned'})"


def read_results(runs: Runs, folder: Path, train_counts: Sequence[int], planned: int) -> Results:
    """Reads the runs of a study. Raises UserError where none has classified test images."""
    rows = [row for row in runs.rows if row.get("test_accuracy") is not None]
    if not rows:
        raise UserError("none of the runs has classified test images: all of them diverged")
    images = max(row["train_images"] for row in rows)
    lines = lines_along(groups_of(runs), "train_images", otherwise=["model"])
    names = [network_name(line.rows[0]) for line in lines]
    names = [name if names.count(name) == 1 else f"{name} {line.name}" for name, line in zip(names, lines, strict=True)]
    labels = _first_labels(folder, rows)
    networks = [_network(name, line.rows, images, folder, len(labels)) for name, line in zip(names, lines, strict=True)]
    name_of = {row["id"]: name for name, line in zip(names, lines, strict=True) for row in line.rows}
    return Results(
        sorted((one for one in networks if one.accuracies), key=lambda one: -one.accuracy),
        labels,
        [str(name) for name in rows[0]["classes"]],
        images,
        train_counts,
        _report(runs, folder, name_of),
        planned,
        len(runs.rows),
        [f"{one.name}: {one.diverged} of its runs diverged" for one in networks if one.diverged],
    )


def _first_labels(folder: Path, rows: Sequence[Row]) -> NDArray[np.int64]:
    for row in rows:
        try:
            return read_classes(folder, row, "labels.npy").astype(np.int64)
        except Missing:
            continue
    raise UserError(
        f"no run in {folder} has labels.npy, the classes of the test images; remove the folder of one, and repeat the"
        " command"
    )


def _network(name: str, rows: Sequence[Row], images: int, folder: Path, test_images: int) -> Network:
    """Makes a network from its finished and diverged runs, which include runs on fewer images."""
    accuracies, predictions, trained, rises = {}, {}, {}, {}
    along: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if row.get("test_accuracy") is None:
            continue
        along[row["train_images"]].append(row["test_accuracy"])
        if row["train_images"] != images:
            continue
        seed = row["seed"]
        accuracies[seed] = row["test_accuracy"]
        with suppress(Missing):  # without predictions its accuracy still counts
            predictions[seed] = read_classes(folder, row, "predictions.npy").astype(np.int64)
        if row.get("train_eval_accuracy") is not None:
            trained[seed] = row["train_eval_accuracy"]
        if (rise := _rise(folder / row["id"])) is not None:
            rises[seed] = rise
    return Network(
        name,
        accuracies,
        {seed: its for seed, its in predictions.items() if len(its) == test_images},
        trained,
        rises,
        bool(rows[0].get("init")),
        rows[0],
        [(n, mean_interval(values)) for n, values in sorted(along.items())],
        sum(row.get("test_accuracy") is None for row in rows),
    )


def _rise(folder: Path) -> float | None:
    """Returns how much validation accuracy rose after LATE of the steps; None where too few lines were logged."""
    lines = [(int(row["step"]), float(row["val_accuracy"])) for row in read_metrics(folder) if row.get("val_accuracy")]
    if len(lines) < 3:
        return None
    late = [accuracy for step, accuracy in lines if step <= LATE * lines[-1][0]]
    return lines[-1][1] - late[-1] if late else None


def _report(runs: Runs, folder: Path, name_of: Mapping[Any, str]) -> Report | None:
    """Fits the learning curves, labelled by the names of the networks; None where there are too few runs."""
    try:
        lines, notes = lines_of(runs, "test_error")
    except UserError:
        return None
    named = [replace(line, curve=replace(line.curve, label=name_of[line.rows[0]["id"]])) for line in lines]
    return report_of("test_error", named, notes, runs, count=count_in(folder))
