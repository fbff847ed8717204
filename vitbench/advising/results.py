"""What the runs of a study of advice say: of each network its accuracies, the images it gets right, its curve.

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

LATE = 0.8  # of the steps: what validation accuracy gains after them says whether it is still rising
FAMILIES = {"vit": "ViT", "resnet": "ResNet", "mixer": "Mixer"}


@dataclass(frozen=True)
class Network:
    """One network on the most images that were tried; the keys are seeds."""

    name: str
    accuracies: Mapping[Hashable, float]
    predictions: Mapping[Hashable, NDArray[np.int64]]  # (M,) each, of the runs that have them
    trained: Mapping[Hashable, float] = field(default_factory=dict)  # accuracy on training images, seen as test images
    rises: Mapping[Hashable, float] = field(default_factory=dict)  # of validation accuracy, in the last part of a run
    pretrained: bool = False
    row: Row = field(default_factory=dict)  # one of its runs
    curve: Sequence[tuple[float, Interval]] = ()  # training images, and the accuracy over seeds
    diverged: int = 0  # runs

    @property
    def accuracy(self) -> float:
        return fmean(self.accuracies.values())


class Difference(NamedTuple):
    """Network a against b, of which a is the more accurate; shares of the test images."""

    a: Network
    b: Network
    of_a: float  # accuracy, the mean over the seeds that both have
    of_b: float
    over_seeds: Interval
    over_images: Interval  # of the mean over seeds of "a is right" minus "b is right"
    tests: Sequence[float]  # p of McNemar's test in each seed

    @property
    def mean(self) -> float:
        return self.over_seeds.mean


@dataclass(frozen=True)
class Results:
    """All that the advice is made of."""

    networks: Sequence[Network]  # the most accurate first
    labels: NDArray[np.int64]  # (M,)
    classes: Sequence[str]  # K
    images: int  # that they were trained on
    train_counts: Sequence[int]  # training images of each class, K
    report: Report | None = None  # curves, of networks from scratch
    planned: int = 0
    finished: int = 0
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
        """What was found of the learning curves of two networks."""
        pairs = self.report.pairs if self.report else []
        return next((pair for pair in pairs if {pair.whole.a.label, pair.whole.b.label} == {a, b}), None)

    def line(self, name: str) -> CurveOfRuns | None:
        return self.report.fitted_lines.get(name) if self.report else None


def difference(one: Network, other: Network, labels: NDArray[np.int64]) -> Difference | None:
    """Pairs two networks by seed and by test image; None without a seed that both have."""
    a, b = sorted((one, other), key=lambda network: -network.accuracy)
    seeds = [seed for seed in a.accuracies if seed in b.accuracies]
    if not seeds:
        return None
    if fmean(a.accuracies[seed] - b.accuracies[seed] for seed in seeds) < 0:  # on their common seeds
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
    """What a network is called in words: ViT, ResNet, convnext_atto (pretrained, fine-tuned)."""
    model = str(row.get("model"))
    name = str(row.get("model.arch") or FAMILIES.get(model, model))
    if not row.get("init"):
        return name
    return f"{name} (pretrained, {'only its last layer trained' if row.get('freeze') == 'backbone' else 'fine-tuned'})"


def read_results(runs: Runs, folder: Path, train_counts: Sequence[int], planned: int) -> Results:
    """Reads the runs of a study; UserError where none has classified test images."""
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
    raise UserError(f"no run in {folder} has labels.npy, the classes of the test images; remove one to do it again")


def _network(name: str, rows: Sequence[Row], images: int, folder: Path, test_images: int) -> Network:
    """A network from its finished and diverged runs, those on other numbers of images among them."""
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
        with suppress(Missing):  # its accuracy still counts
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
    """How much validation accuracy rose in the last part of a run."""
    lines = [(int(row["step"]), float(row["val_accuracy"])) for row in read_metrics(folder) if row.get("val_accuracy")]
    if len(lines) < 3:
        return None
    late = [accuracy for step, accuracy in lines if step <= LATE * lines[-1][0]]
    return lines[-1][1] - late[-1] if late else None


def _report(runs: Runs, folder: Path, name_of: Mapping[Any, str]) -> Report | None:
    """The learning curves, called by the names of the networks; None where there are too few runs for one."""
    try:
        lines, notes = lines_of(runs, "test_error")
    except UserError:
        return None
    named = [replace(line, curve=replace(line.curve, label=name_of[line.rows[0]["id"]])) for line in lines]
    return report_of("test_error", named, notes, runs, count=count_in(folder))
