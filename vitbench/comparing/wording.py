"""What a user writes on a figure in place of the usual words (`title= labels= xlabel= ylabel=`), and its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.words import is_number, plural, printable, typed_value

WORDING_KEYS = ("title", "labels", "xlabel", "ylabel", "inches")
HOW_TO_LABEL = "must be [NEW,NEW] in the order of the legend, or '{OLD: NEW, OLD: NEW}'"
LEAST_INCHES, MOST_INCHES = 1, 40  # of a side of a figure


@dataclass(frozen=True)
class Wording:
    """The words of a user; what is None or empty is as usual."""

    title: str | None = None
    xlabel: str | None = None
    ylabel: str | None = None
    new_names: Sequence[str] = ()  # of the lines, in the order of the legend
    renamed: Mapping[str, str] = field(default_factory=dict)  # from a line's usual name, or what one types for it
    inches: tuple[float, float] | None = None
    of_study: Wording | None = None  # has the labels of a study, which those that were typed come after
    is_typed: bool = False  # on the command line, where a name of no line is a slip; in a study it may have no runs yet

    def named(self, names: Mapping[str, str]) -> dict[str, str]:
        """Gives each line its new name; `names` has the usual ones, by the label that one types.

        Raises UserError where a typed name is of no line, and where there are more or fewer new names than lines.
        """
        shown = self.of_study.named(names) if self.of_study else names
        usual = "; ".join(shown.values())
        if self.new_names and len(self.new_names) != len(names):
            raise UserError(
                f"labels={typed_value(self.new_names)}: the figure has {plural(len(names), 'name')}, in this order: "
                f"{usual}; '{{OLD: NEW}}' renames one alone"
            )
        for old in self.renamed:
            if self.is_typed and old not in {*names, *names.values(), *shown.values()}:
                raise UserError(f"labels={{{old}: ...}}: the figure has the names {usual}")
        named = dict(zip(names, self.new_names, strict=True)) if self.new_names else dict(shown)
        for typed, words in names.items():
            known_as = (typed, words, shown[typed])
            named[typed] = next((self.renamed[old] for old in known_as if old in self.renamed), named[typed])
        for typed, new in named.items():
            if new and new != names[typed] and [*named.values()].count(new) > 1:
                raise UserError(f"labels: {printable(new)} would be the name of several lines; give each its own")
        return named

    def size(self, width: float, height: float) -> tuple[float, float]:
        """The width and height of a figure in inches, from those that its content needs in the style paper."""
        room = look.current().room
        return self.inches or (width * room, height * room)


def wording_of(layout: Mapping[str, Any], is_typed: bool = False) -> Wording:
    """Reads the settings of WORDING_KEYS; raises UserError for one that cannot be."""
    title, xlabel, ylabel = (
        None if layout.get(key) is None else str(layout[key]) for key in ("title", "xlabel", "ylabel")
    )
    labels, inches = layout.get("labels"), layout.get("inches")
    if isinstance(labels, str) and labels.startswith("{"):
        labels = _mapping(labels)
    if not isinstance(labels, Mapping | list | tuple | None):
        labels = [labels]
    parts = [*labels, *(labels.values() if isinstance(labels, Mapping) else [])] if labels is not None else []
    for part in parts:
        if type(part) not in (str, int, float):
            raise UserError(f"labels: {typed_value(part)} is no text; {HOW_TO_LABEL}")
    renamed = {str(old): str(new) for old, new in labels.items()} if isinstance(labels, Mapping) else {}
    new_names = [] if labels is None or renamed else [*map(str, labels)]
    size = None if inches is None else _inches(inches)
    of_study = wording_of({"labels": layout["study_labels"]}) if layout.get("study_labels") else None
    return Wording(title, xlabel, ylabel, new_names, renamed, size, of_study, is_typed)


def _mapping(typed: str) -> Mapping[Any, Any]:
    """Reads labels={OLD: NEW}, whose names Hydra's grammar would not take."""
    import yaml

    try:
        found = yaml.safe_load(typed)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, Mapping):
        raise UserError(f"labels={typed}: {HOW_TO_LABEL}")
    return found


def _inches(size: Any) -> tuple[float, float]:
    in_range = isinstance(size, list | tuple) and all(
        is_number(side) and LEAST_INCHES <= side <= MOST_INCHES for side in size
    )
    if not in_range or len(size) != 2:
        raise UserError(
            f"inches={typed_value(size)}: must be [WIDTH,HEIGHT], each from {LEAST_INCHES} to {MOST_INCHES}, "
            "such as [6,3]"
        )
    return float(size[0]), float(size[1])
