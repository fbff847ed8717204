"""Tables of differences, seed by seed, from another line: `table against=resnet`, `table against="init=null"`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vitbench.comparing.grouping import Group, line_name
from vitbench.comparing.select import Row
from vitbench.errors import UserError, did_you_mean
from vitbench.numbers.intervals import Interval, paired
from vitbench.numbers.words import column_head, column_label, column_phrase, column_words, is_share
from vitbench.settings.filters import matches
from vitbench.settings.overrides import words_of
from vitbench.settings.typed_text import parsed


@dataclass(frozen=True)
class Against(Group):
    """A group whose numbers are all differences from a reference group, over the seeds that both have."""

    reference: Group

    has_costs: ClassVar[bool] = False

    def interval(self, column: str) -> Interval:
        return paired(self.by_seed(column), self.reference.by_seed(column)).interval

    @property
    def all_rows(self) -> list[Row]:
        return [*self.rows, *self.reference.rows]

    def degenerate(self, column: str) -> list[str]:
        return [*super().degenerate(column), *self.reference.degenerate(column)]

    def head(self, column: str) -> str:
        return column_head(column).replace(", %", ", points")

    def phrase(self, column: str) -> str:
        if is_share(column):
            return f"{column_words(column)} in points"
        # a unit such as "1 is the same" does not hold for a difference
        unit_is_of_a_level = column_label(column).partition(", ")[2][:1].isdigit()
        return column_words(column) if unit_is_of_a_level else column_phrase(column)

    def metric(self, column: str) -> str:
        return f"{column}_difference"


def against(
    groups: Sequence[Group], keys: Sequence[str], columns: str | None, words: str
) -> tuple[list[Against], list[str]]:
    """Pairs each group with its reference in the same column; also returns the names of lines that have no reference.

    `words` are the name of a line (`vit pe=none`), which is then everybody's reference, or settings (`init=null`). A
    line's reference then has these settings, and else the line's own but for those that its model lacks (a CNN's `pe`).
    """
    names = [line_name({key: group.settings[key] for key in keys}) for group in groups]
    reference_settings = {} if words in names else _parse_settings(words, keys, names)
    references = [
        group
        for group, name in zip(groups, names, strict=True)
        if name == words
        or (
            reference_settings and all(matches(group.settings[key], value) for key, value in reference_settings.items())
        )
    ]
    if not references:
        raise UserError(f"against={words}: {_choices(words, keys, names)}")
    shared_keys = [key for key in keys if reference_settings and key not in reference_settings]
    keys_a_model_may_lack = [key for key in shared_keys if key.partition(".")[0] in ("pe", "model")]

    def agreement(group: Group, reference: Group) -> int:
        """Counts the settings that a line shares with a reference; it is -1 where the line cannot have it."""
        same = [key for key in shared_keys if reference.settings[key] == group.settings[key]]
        lacking = [key for key in keys_a_model_may_lack if reference.settings[key] is None]
        same_column = columns is None or reference.settings[columns] == group.settings[columns]
        return len(same) if same_column and {*same, *lacking} == {*shared_keys} else -1

    compared: list[Against] = []
    compared_names: set[str] = set()
    unpaired: list[str] = []
    for group, name in zip(groups, names, strict=True):
        if group in references:
            continue
        best = max(references, key=lambda reference: agreement(group, reference))
        if agreement(group, best) >= 0:
            compared.append(Against(group.settings, group.rows, best))
            compared_names.add(name)
        else:
            unpaired.append(name)
    if not compared:
        why = "no line is like another but for that" if unpaired else "there is no other line to compare with it"
        raise UserError(f"against={words}: {why}")
    return compared, [name for name in dict.fromkeys(unpaired) if name not in compared_names]


def _parse_settings(words: str, keys: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Parses `init=null` to {"init": None}; raises UserError where lines have no such key."""
    try:
        settings = typed_settings(words_of(words))
    except UserError:  # a quote is open
        settings = {}
    if not settings or not {*settings} <= {*keys}:
        raise UserError(f"against={words}: {_choices(words, keys, names)}")
    return settings


def typed_settings(words: Sequence[str]) -> dict[str, Any]:
    """Parses words as the command line does, and keeps their keys as they were typed; {} where one is no setting."""
    from hydra.errors import HydraException

    try:
        overrides = [parsed(word) for word in words]
        settings = {override.key_or_group: override.value() for override in overrides}
    except HydraException:  # one of the words is a name
        return {}
    return settings if len(settings) == len(overrides) else {}


def _choices(words: str, keys: Sequence[str], names: Sequence[str]) -> str:
    """Writes the end of an error line: the lines there are, and the settings that tell them apart."""
    settings = ", ".join(f"{key}=..." for key in keys)
    return f"{did_you_mean(words, dict.fromkeys(names))}; or settings that a line has: {settings}"
