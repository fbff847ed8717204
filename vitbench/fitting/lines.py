"""TODO docstring."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vitbench.comparing.grouping import groups_of, lines_along
from vitbench.comparing.select import Row, Runs
from vitbench.errors import UserError, did_you_mean
from vitbench.numbers.words import plural, printable
from vitbench.settings.choices import GROUPS

if TYPE_CHECKING:
    from vitbench.numbers.curves import Curve


FEWEST_SIZES, FEWEST_SEEDS = 3, 2  # the fewest that make a curve


FALLING = ("_error", "_loss")  # results that a curve can be fitted to


def falling(runs: Runs, value: str, setting: str = "value") -> str:
    """`value`, if a curve can be fitted to it."""
    numbers = [name for name in runs.numbers() if name.endswith(FALLING)]
    if value not in numbers and value in runs.numbers():
        raise UserError(f"{setting}={value}: a curve is fitted to an error or a loss; choices: {', '.join(numbers)}")
    return runs.check(setting, value, numbers)


@dataclass(frozen=True)
class CurveOfRuns:
    """A curve, and the settings that tell it from the others."""

    settings: Mapping[str, Any]
    curve: Curve
    rows: Sequence[Row] = ()  # its runs


@dataclass(frozen=True)
class Point:
    n: int
    seed: Hashable  # seed and subset seed: what pairs it with another model's
    value: float
    source: str  # what to call it in an error line


def lines_of(
    runs: Runs,
    value: str,
    first: Sequence[str] = (),
    source: Callable[[Row], str] | None = None,
    error: type[UserError] = UserError,
) -> tuple[list[CurveOfRuns], list[str]]:
    """The curves of these runs, and a note for each seed, size or curve that is left out.

    `first` are settings that name a curve even where they do not vary; `source` is what a run is called in an error.
    """
    lines: list[CurveOfRuns] = []
    notes: list[str] = []
    curves = lines_along(groups_of(runs), "train_images", first, otherwise=["model"])
    for one in curves:
        name, rows = one.name, one.rows
        points = [
            Point(
                row["train_images"],
                (row.get("data.subset_seed"), row["seed"]),
                row[value],
                source(row) if source else f"run {row['id']}",
            )
            for row in rows
            if row.get(value) is not None and row.get("train_images")
        ]
        classes = {len(row.get("classes") or ()) for row in rows}
        curve, why = curve_of(name, points, value, classes.pop() if len(classes) == 1 else 0, error)
        notes.extend(f"{name}: {line}" for line in why)
        if curve is not None:
            lines.append(CurveOfRuns(one.settings, curve, rows))
    if not lines:
        raise error("; ".join(printable(note) for note in notes[:2]) + f" ({len(curves)} curves, none to fit)")
    return lines, notes


def curve_of(
    label: str, points: Sequence[Point], value: str, classes: int, error: type[UserError] = UserError
) -> tuple[Curve | None, list[str]]:
    """Every seed at every size; sizes that have one seed only are left out, then seeds that lack a size."""
    import math

    import numpy as np

    from vitbench.numbers.curves import Curve

    found: dict[Hashable, dict[int, Point]] = {}
    for point in points:
        check_point(point, value, error)
        before = found.setdefault(point.seed, {}).setdefault(point.n, point)
        if before is not point:
            raise error(f"{point.source} repeats {before.source}: same settings, seed and {point.n:,} images; keep one")
    counts = {n: sum(n in row for row in found.values()) for n in sorted({point.n for point in points})}
    sizes = [n for n, count in counts.items() if count >= FEWEST_SEEDS]
    seeds = sorted((seed for seed, row in found.items() if row.keys() >= set(sizes)), key=_order)
    notes = [f"{n:,} images are left out, they have one seed" for n in counts if n not in sizes]
    if counts and not sizes:
        notes = [f"one seed; a curve takes {FEWEST_SEEDS} or more"]
    elif len(sizes) < FEWEST_SIZES:
        notes = [f"{plural(len(sizes), 'size')} of training images; a curve takes {FEWEST_SIZES} or more"]
    elif len(seeds) < FEWEST_SEEDS:
        notes = [
            f"{len(seeds)} of {len(found)} seeds have all {len(sizes)} sizes; a curve takes {FEWEST_SEEDS} or more"
        ]
    else:
        notes += [
            f"seed {seed[1] if isinstance(seed, tuple) else seed} is left out, it lacks {len(set(sizes) - row.keys())}"
            f" of the {len(sizes)} sizes"
            for seed, row in found.items()
            if seed not in seeds
        ]
        errors = np.array([[found[seed][n].value for n in sizes] for seed in seeds], float)
        chance = math.nan if classes < 2 else math.log(classes) if value.endswith("_loss") else 1 - 1 / classes
        return Curve(label, np.array(sizes, float), errors, tuple(seeds), chance), notes
    return None, notes


def _order(seed: Any) -> tuple[Any, ...]:
    """Numbers by size, words by letter, nothing first."""
    if isinstance(seed, tuple):
        return tuple(_order(part) for part in seed)
    return (0, 0, "") if seed is None else (1, seed, "") if isinstance(seed, int | float) else (2, 0, str(seed))


def check_point(point: Point, value: str, error: type[UserError]) -> None:
    """A log scale has no 0, and an error of 1 is no error rate of anything that learned."""
    if not 0 < point.value < float("inf") or (value.endswith("_error") and point.value >= 1):
        allowed = "between 0 and 1" if value.endswith("_error") else "above 0"
        raise error(
            f"{point.source}: {value} is {point.value:g} with {point.n:,} images; a curve takes values {allowed}, ends"
            " excluded"
        )


def pairs(lines: Sequence[CurveOfRuns], against: str | None = None) -> list[tuple[Curve, Curve]]:
    """Which curves are compared: the second of a pair is the reference."""
    labels = [line.curve.label for line in lines]
    if against is not None:
        if against not in labels:
            raise UserError(f"against={against}: {did_you_mean(against, labels)}")
        reference = lines[labels.index(against)].curve
        return [(line.curve, reference) for line in lines if line.curve is not reference]
    cnns = [line for line in lines if _is_cnn(line)]
    without = [line for line in lines if line.settings.get("pe") == "none"]
    others = [line for line in lines if not _is_cnn(line)]
    chosen = [
        (a, b)
        for references in (cnns, without)
        for b in references
        for a in others
        if a is not b and _context(a) == _context(b)
    ]
    scratch = [line for line in lines if "init" in line.settings and line.settings["init"] is None]
    chosen += [(a, b) for b in scratch for a in lines if a.settings["init"] is not None and _alike(a) == _alike(b)]
    if not chosen:
        chosen = [(a, b) for i, a in enumerate(lines) for b in lines[i + 1 :] if _context(a) == _context(b)]
    return [(a.curve, b.curve) for a, b in chosen]


def main_pairs(lines: Sequence[CurveOfRuns]) -> list[tuple[Curve, Curve]]:
    """Those with a CNN, where there is one: what a figure has room for."""
    chosen, cnns = pairs(lines), {line.curve.label for line in lines if _is_cnn(line)}
    return [pair for pair in chosen if pair[1].label in cnns] or chosen


def _is_cnn(line: CurveOfRuns) -> bool:
    """Whether its model takes no encoding: runs of such a model have no `pe` (vitbench/models/menu.py).

    The name of the model does not say so here, because a table of one's own can hold models that no menu offers.
    """
    return "pe" in line.settings and line.settings["pe"] is None


def _alike(line: CurveOfRuns) -> dict[str, Any]:
    """What a pretrained model and the same one from scratch share: all but how they begin."""
    its_own = ("init", "head", "freeze", "optim.layer_decay")
    return {key: value for key, value in line.settings.items() if key not in its_own}


def _context(line: CurveOfRuns) -> dict[str, Any]:
    """What two curves must share to be a pair: all that varies but the model, its encoding and its recipe."""
    its_own = ("model", *GROUPS["model"].brings)
    return {
        key: value
        for key, value in line.settings.items()
        if key == "model.size" or key.partition(".")[0] not in its_own
    }
