"""Lines of a table as differences from others, seed by seed: `table against=resnet`, `table against="init=null"`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitbench.comparing.grouping import Group, line_name
from vitbench.comparing.select import matches
from vitbench.errors import UserError, did_you_mean
from vitbench.numbers.intervals import Interval, paired
from vitbench.numbers.words import column_label


@dataclass(frozen=True)
class Against(Group):
    """Runs beside those of another group: all its numbers are differences from them, over the seeds that both have."""

    reference: Group

    def interval(self, column: str) -> Interval:
        return paired(self.by_seed(column), self.reference.by_seed(column)).interval

    def label(self, column: str) -> str:
        return column_label(column).replace(", %", ", points")


def against(
    groups: Sequence[Group], keys: Sequence[str], columns: str | None, words: str
) -> tuple[list[Group], list[str]]:
    """The lines that have a reference, each beside the reference's runs in the same column; and the names of those that
    have none.

    `words` are the name of a line (`vit pe=none`), which is everybody's reference; or settings (`init=null`): then a
    line's reference has these, and otherwise the line's own settings but for those that its model lacks (a CNN's `pe`).
    """
    names = [line_name({key: group.settings[key] for key in keys}) for group in groups]
    wanted = {} if words in names else _settings(words, keys, names)
    references = [
        group
        for group, name in zip(groups, names, strict=True)
        if name == words or (wanted and all(matches(group.settings[key], its) for key, its in wanted.items()))
    ]
    if not references:
        raise UserError(f"against={words}: {_choices(words, keys, names)}")
    shared = [key for key in keys if wanted and key not in wanted]

    def agreeing(group: Group, one: Group) -> int:
        """How many settings a line shares with a reference; less than 0 where it is not the line's."""
        same = [key for key in shared if one.settings[key] == group.settings[key]]
        lacking = [key for key in shared if one.settings[key] is None and key.partition(".")[0] in ("pe", "model")]
        its = columns is None or one.settings[columns] == group.settings[columns]
        return len(same) if its and {*same, *lacking} == {*shared} else -1

    found: list[Group] = []
    without: list[str] = []
    for group, name in zip(groups, names, strict=True):
        best = max(references, key=lambda one: agreeing(group, one))
        if group in references:
            continue
        if agreeing(group, best) >= 0:
            found.append(Against(group.settings, group.rows, best))
        else:
            without.append(name)
    if not found:
        why = "no line is like another but for that" if without else "there is no other line to compare with it"
        raise UserError(f"against={words}: {why}")
    compared = {line_name({key: group.settings[key] for key in keys}) for group in found}
    return found, [name for name in dict.fromkeys(without) if name not in compared]


def _settings(words: str, keys: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """{"init": None} of `init=null`, in the command line's own syntax."""
    from hydra.errors import HydraException

    from vitbench.settings.overrides import parsed, words_of

    try:
        typed = [parsed(word) for word in words_of(words)]
        found = {one.key_or_group: one.value() for one in typed}
    except (HydraException, UserError):  # a name, or an open quote
        typed, found = [], {}
    if not found or len(found) < len(typed) or not {*found} <= {*keys}:
        raise UserError(f"against={words}: {_choices(words, keys, names)}")
    return found


def _choices(words: str, keys: Sequence[str], names: Sequence[str]) -> str:
    return (
        f"{did_you_mean(words, dict.fromkeys(names))}; or settings that a line has:"
        f" {', '.join(f'{key}=...' for key in keys)}"
    )
