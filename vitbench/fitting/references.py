"""Runs that make no curve of their own, but say what limits the points of another curve.

A study may train some sizes for another number of samples, too: as many samples drawn from more images are the
reference of a point (vitbench/fitting/limits.py). Such runs have too few sizes for a curve. If they were
a line of their own beside the curve of the same model, all curves would need names that tell budgets apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from vitbench.comparing.grouping import ALONG, groups_of, lines_along
from vitbench.comparing.select import SAMPLES_KEYS, SEED_KEYS, Row, Runs

FEWEST_SIZES, FEWEST_SEEDS = 3, 2  # a curve takes at least so many


def without_references(runs: Runs) -> Runs:
    """Leaves out the runs that make no curve, where runs of another budget of the same model do."""
    lines = lines_along(groups_of(runs), "train_images", otherwise=["model"])
    makes_curve = [_makes_curve(line.rows) for line in lines]
    with_curve = {model_key(runs, line.rows[0]) for line, makes in zip(lines, makes_curve, strict=True) if makes}
    aside = {
        row["id"]
        for line, makes in zip(lines, makes_curve, strict=True)
        if not makes and model_key(runs, line.rows[0]) in with_curve
        for row in line.rows
    }
    return replace(runs, rows=[row for row in runs.rows if row["id"] not in aside]) if aside else runs


def of_each_model(runs: Runs) -> dict[Hashable, list[Row]]:
    """All runs by their model, whatever their budget and their number of images."""
    by_model: dict[Hashable, list[Row]] = defaultdict(list)
    for row in runs.rows:
        by_model[model_key(runs, row)].append(row)
    return by_model


def model_key(runs: Runs, row: Row) -> Hashable:
    """What two runs share that differ in nothing but seed, number of images and budget."""
    along = {*SAMPLES_KEYS, *SEED_KEYS, *ALONG["train_images"]}
    return tuple(row.get(key) for key in runs.keys if key not in along)


def _makes_curve(rows: Sequence[Row]) -> bool:
    seeds: dict[Any, set[Any]] = defaultdict(set)
    for row in rows:
        seeds[row.get("train_images")].add(tuple(row.get(key) for key in SEED_KEYS))
    return sum(len(of_size) >= FEWEST_SEEDS for of_size in seeds.values()) >= FEWEST_SIZES
