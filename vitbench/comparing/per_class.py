"""What networks make of each class: `vitbench table per=class`, and for one network `vitbench table per=confusion`.

Both read what runs said of their test images (`labels.npy` and `predictions.npy` of their folders). Shares are means
over the seeds of a network. `docs/reference/metrics.md` defines the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vitbench.comparing.cells import cell_writer, describe_seeds, no_interval_notes, shown_of_seeds
from vitbench.comparing.formats import Table
from vitbench.comparing.grouping import Group, comparison_warnings, distinguishing_keys, groups_of, line_name, sort_key
from vitbench.comparing.heads import captions
from vitbench.comparing.select import Row, Runs
from vitbench.errors import UserError, check_choice
from vitbench.numbers.classified import confusion_counts, precisions, recalls
from vitbench.numbers.words import column_head, plural, printable, shown_value, typed_value
from vitbench.runs.predictions import Missing, read_classes

PER = ("class", "confusion")
MATRIX = 12  # the most classes that a table shows as a matrix
LISTED = 20  # the pairs that are listed where there are more classes


class ClassGroup(Group):
    """Runs of one network, and what they make of one class, or of one class that is taken for another."""

    has_costs: ClassVar[bool] = False  # the costs of the network would be the same in every line


@dataclass(frozen=True)
class Network:
    """Runs that differ in nothing but their seeds, with their predictions counted."""

    group: Group
    name: str  # the settings that tell it from the others, as words
    settings: dict[str, Any]  # these
    rows: list[Row]  # the runs that have predictions
    counts: list[NDArray[np.int64]]  # of each of them: images of a class (row) that were given a class (column), (K,K)

    @property
    def images(self) -> NDArray[np.int64]:
        """The test images of each class (K,)."""
        return self.counts[0].sum(1)

    def of_runs(self, numbers: Sequence[Mapping[str, float]]) -> list[Row]:
        """A row for each run with the numbers of that run; nan is none."""
        return [
            {key: row.get(key) for key in ("id", "status", "seed")}
            | {key: float(number) for key, number in its.items() if number == number}
            for row, its in zip(self.rows, numbers, strict=True)
        ]

    def shares(self) -> NDArray[np.float64]:
        """The share of a class's images that were given each class, mean over runs; nan without images; (K,K)."""
        images = np.where(self.images == 0, np.nan, self.images)
        return np.mean(self.counts, 0) / images[:, None]


def networks_of(runs: Runs, folder: Path, per: str) -> tuple[list[Network], list[str], list[str]]:
    """The networks of the runs, the classes that all of them have, and notes on runs without predictions.

    Raises UserError where the classes differ, and where no run has predictions.
    """
    groups = groups_of(runs)
    keys = distinguishing_keys(groups) or ["model"]
    groups.sort(key=lambda group: sort_key({key: group.settings[key] for key in keys}))
    class_lists = {tuple(map(str, row.get("classes") or ())): row.get("data") for row in runs.rows}
    if len(class_lists) > 1:
        some = ", ".join(plural(len(classes), "class") for classes in class_lists)
        raise UserError(
            f"per={per}: these runs have different classes ({some}); choose some with where.data=NAME, of "
            f"{', '.join(dict.fromkeys(map(shown_value, class_lists.values())))}"
        )
    (classes,) = class_lists
    networks, reasons = [], []
    for group in groups:
        rows, counts = [], []
        for row in group.rows:
            if row.get("test_accuracy") is None:  # diverged, or learned no classes
                continue
            try:
                counts.append(_counts_of(folder, row, len(classes)))
                rows.append(row)
            except Missing as missing:
                reasons.append(str(missing))
        if rows:
            settings = {key: group.settings[key] for key in keys}
            networks.append(Network(group, line_name(settings), settings, rows, counts))
    if not networks:
        reason = reasons[0] if reasons else "they diverged, or learned no classes"
        raise UserError(
            f"per={per}: none of {plural(len(runs.rows), 'run')} says what it takes test images for: {reason}"
        )
    notes = [f"left out: {plural(len(reasons), 'run')} without predictions, {reasons[0]}"] if reasons else []
    return networks, [printable(name) for name in classes], notes


def _counts_of(folder: Path, row: Row, classes: int) -> NDArray[np.int64]:
    labels, predictions = (read_classes(folder, row, f"{name}.npy") for name in ("labels", "predictions"))
    for name, given in (("labels", labels), ("predictions", predictions)):
        if len(given) and not 0 <= given.min() <= given.max() < classes:
            raise Missing(f"{folder / row['id'] / name}.npy names a class that is none of its {classes}")
    return confusion_counts(labels, predictions, classes)


def only_network(networks: Sequence[Network], per: str) -> Network:
    """The one network that there is; UserError, which names them, where there are several."""
    if len(networks) > 1:
        some = ", ".join(network.name for network in networks[:6]) + (", ..." if len(networks) > 6 else "")
        one = " ".join(f"where.{key}={typed_value(value)}" for key, value in networks[0].settings.items())
        raise UserError(
            f"per={per}: shows one network, and here are {len(networks)} ({some}); choose one, as with {one}"
        )
    return networks[0]


def build_class_table(runs: Runs, folder: str, *, per: str, show: str | None, others: Mapping[str, Any]) -> Table:
    """Builds the table of `per=`; `others` are settings of usual tables, of which it takes none."""
    check_choice("per", per, PER)
    refuse_others(per, others)
    networks, classes, notes = networks_of(runs, Path(folder).expanduser(), per)
    if per == "confusion":
        return _confusion_table(only_network(networks, per), classes, notes)
    return _recall_table(networks, classes, show or "ci95", notes)


def refuse_others(per: str, others: Mapping[str, Any]) -> None:
    """Refuses settings that lay out other tables and figures."""
    if typed := [f"{key}={shown_value(value)}" for key, value in others.items() if value is not None]:
        raise UserError(f"per={per} {' '.join(typed)}: per= lays out everything by itself; leave the others out")


def _recall_table(networks: Sequence[Network], classes: Sequence[str], show: str, notes: Sequence[str]) -> Table:
    """A line for each class that has test images: recalls of several networks, or what there is to say of one."""
    groups: list[list[Group]] = []  # by network
    for network in networks:
        of_runs = [(recalls(counts), precisions(counts)) for counts in network.counts]
        groups.append(
            [
                ClassGroup(
                    network.settings | {"class": name},
                    network.of_runs(
                        [{"recall": recall[k], "precision": precision[k]} for recall, precision in of_runs]
                    ),
                )
                for k, name in enumerate(classes)
            ]
        )
    every = [group for its_groups in groups for group in its_groups]
    values = ["recall", "precision"]
    recall_intervals = [group.interval("recall") for group in every]
    shown = shown_of_seeds(recall_intervals, show)
    write_recall, write_precision = (cell_writer(every, value, shown, signed=False) for value in values)
    images, first = networks[0].images, networks[0]
    if len(networks) == 1:
        head = ["class", "images", *map(column_head, values), "most often taken for"]
        lines = [
            [name, f"{images[k]:,}", write_recall(group), write_precision(group), _most_often(first, k, classes)]
            for k, (name, group) in enumerate(zip(classes, groups[0], strict=True))
        ]
    else:
        head = ["class", "images", *(network.name for network in networks)]
        lines = [
            [name, f"{images[k]:,}", *(write_recall(its_groups[k]) for its_groups in groups)]
            for k, name in enumerate(classes)
        ]
    lines = [line for k, line in enumerate(lines) if images[k]]
    if without := [name for k, name in enumerate(classes) if not images[k]]:
        notes = [*notes, f"no test images of {plural(len(without), 'class')}: {', '.join(without[:6])}"]
    its = [network.group for network in networks]
    seeds = describe_seeds([interval for interval in recall_intervals if interval.n], shown)
    caption, printed = captions(f"recall of each class in %, {seeds}", its)
    return Table(
        "",
        caption,
        head,
        lines,
        1,
        [*notes, *no_interval_notes(recall_intervals, shown), *comparison_warnings(its)],
        every,
        [*first.settings, "class"],
        values,
        caption_in_print=printed,
    )


def _most_often(network: Network, k: int, classes: Sequence[str]) -> str:
    """The class that a class is most often taken for, with the share of its images."""
    shares = network.shares()[k].copy()
    shares[k] = 0
    other = int(np.argmax(shares))
    return f"{classes[other]} {100 * shares[other]:.0f} %" if shares[other] > 0 else "-"


def _confusion_table(network: Network, classes: Sequence[str], notes: Sequence[str]) -> Table:
    """A matrix of shares, or of many classes a list of the pairs that are most often confused."""
    shares, counts = network.shares(), np.mean(network.counts, 0)
    groups: list[Group] = [
        ClassGroup(
            network.settings | {"class": classes[k], "taken_for": classes[other]},
            network.of_runs([{"confusion": its[k, other] / network.images[k]} for its in network.counts]),
        )
        for k, other in np.argwhere(counts > 0).tolist()
    ]
    with_images = np.flatnonzero(network.images).tolist()
    if len(classes) <= MATRIX:
        head = ["class", "images", *classes]
        lines = [[classes[k], f"{network.images[k]:,}", *map(_percent, shares[k])] for k in with_images]
        what = "share of a class's images (a line) that is taken for each class (a column), in %"
    else:
        pairs, digits = confused_pairs(network), ".0f" if len(network.rows) == 1 else ".1f"
        head = ["class", "taken for", "of its images, %", "images"]
        lines = [
            [classes[k], classes[other], _percent(shares[k, other]), f"{counts[k, other]:{digits}}"]
            for k, other in pairs[:LISTED]
        ]
        what = "classes that are most often confused"
        if len(pairs) > LISTED:
            notes = [*notes, f"{LISTED} of {len(pairs):,} pairs; format=csv and format=json have all"]
    seeds = "one seed" if len(network.rows) == 1 else f"mean over {len(network.rows)} seeds"
    caption, _ = captions(f"{what}, {seeds}; {network.name}", [network.group])
    _, printed = captions(f"{what}, {seeds}, by {network.name}", [network.group])
    left = 1 if len(classes) <= MATRIX else 2
    notes = [*notes, *comparison_warnings([network.group])]
    keys = [*network.settings, "class", "taken_for"]
    return Table("", caption, head, lines, left, notes, groups, keys, ["confusion"], caption_in_print=printed)


def confused_pairs(network: Network) -> list[tuple[int, int]]:
    """The pairs of a class and another that it is taken for, those of the most images first."""
    counts = np.mean(network.counts, 0)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[: np.count_nonzero(counts)]
    return [(int(k), int(other)) for k, other in zip(*np.unravel_index(order, counts.shape), strict=True)]


def _percent(share: float) -> str:
    return "-" if share == 0 else f"{100 * share:.0f}" if share >= 0.005 else "<1"
