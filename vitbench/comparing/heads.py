"""What stands above the columns of a table, in its caption, and below it about what to type for a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vitbench.comparing.grouping import Group, shared_words
from vitbench.numbers.words import (
    column_head,
    column_label,
    column_short,
    listed,
    plural,
    says_what_to_type,
    shown_value,
)

SHARES = ("data.fraction", "data.count")  # settings that say how many of the training images are seen
COUNTED = {"train_images": "image", "samples_seen": "sample"}  # results that can be columns, and what they count


def column_heads(groups: Sequence[Group], key: str, values: Sequence[Any]) -> list[str]:
    """Returns the heads of the columns of a setting, one for each of its values: 450 images, 1,350, 4,500.

    A share of the images is written as their number where each share has one number of images in all groups.
    """
    counts = dict(zip(values, values, strict=True)) if key in COUNTED else image_counts(groups, key)
    if not counts:
        return [f"{key}={shown_value(values[0])}", *map(shown_value, values[1:])]
    first, *rest = [counts[value] for value in values]
    return [plural(first, COUNTED.get(key, "image")), *(f"{count:,}" for count in rest)]


def key_columns(groups: Sequence[Group], keys: Sequence[str]) -> tuple[list[str], Callable[[Group], list[str]]]:
    """Returns the heads of the settings that name the lines, and a function that writes those of a group.

    A share of the images is written as their number, as in `column_heads`.
    """
    shares = [key for key in keys if key in SHARES]
    counts = image_counts(groups, shares[0]) if len(shares) == 1 else {}

    def write(group: Group) -> list[str]:
        values = [(key, group.settings[key]) for key in keys]
        return [f"{counts[value]:,}" if counts and key in SHARES else shown_value(value) for key, value in values]

    return [column_head("train_images") if counts and key in SHARES else key for key in keys], write


def image_counts(groups: Sequence[Group], key: str) -> dict[Any, int]:
    """The number of training images of each share; empty where a share has several numbers, or two have the same."""
    if key not in SHARES:
        return {}
    numbers: dict[Any, set[Any]] = {}
    for group in groups:
        numbers.setdefault(group.settings[key], set()).update(row.get("train_images") for row in group.rows)
    counts = {share: next(iter(its)) for share, its in numbers.items() if len(its) == 1}
    are_told_apart = len(counts) == len(numbers) == len({*counts.values()})
    return counts if are_told_apart and all(isinstance(count, int) for count in counts.values()) else {}


def captions(what: str, groups: Sequence[Group]) -> tuple[str, str]:
    """Returns a caption for terminals and pages, and one that is a sentence, for print: both say what groups share."""
    shared = shared_words(groups)
    if not shared:
        return what, what
    return f"{what}; {' '.join(shared)}", f"{what}, of runs with {listed(shared)}"


def meanings(groups: Sequence[Group], values: Sequence[str]) -> list[tuple[str, str, str]]:
    """Returns head, long form and typed name of each result whose head is not what one types."""
    named = [value for value in values if not says_what_to_type(value) and column_short(value) != value]
    return [(groups[0].head(value), column_label(value), value) for value in named] if groups else []
