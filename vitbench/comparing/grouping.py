"""Which runs are compared, and which of them are the same but for the seed: what `table` and `plot` have in common.

Runs are averaged only when every setting agrees but the seeds, and the images too. What is *shown* is less: choices
that vary, and of the other settings those that tell apart runs which the ones before do not. The rest (the recipe's
learning rate, where each model has its recipe) would fill a table with columns that say nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.comparing.select import SEED_KEYS, Row, Runs
from vitbench.numbers.intervals import Interval, mean_interval
from vitbench.numbers.words import column_label, is_number, plural, printable, shown_value, typed_value
from vitbench.settings.choices import GROUPS

if TYPE_CHECKING:
    pass


# what a reader must see wherever it varies; then the order of keys, where others follow by name
_FIRST = ("data", "model", "pe", "model.size")
PROMINENT = (*_FIRST, *(group for group in GROUPS if group not in (*_FIRST, "optim")), "teacher")
FIRST_KEYS = (*PROMINENT, "optim", "init", "distill.kind", "data.fraction", "data.count")
USUAL = {name: group.implied for name, group in GROUPS.items() if group.implied}  # not worth a word where all have it
UNSAID = {"hardware.processes": 1, "hardware.stacked": 1}  # what a record means that lacks the field
MATCHED = 1.1  # costs within a tenth of each other count as equal
IMAGES_KEY = "data_fingerprint"  # no setting, but runs on different images are never one group

# the settings that move a run along a result, and make no other line of it
ALONG = {
    "train_images": ("data.fraction", "data.count", "data.train_images"),
    "steps": ("optim.steps", "optim.epochs"),
    "parameters": ("model.size", "model.width", "model.depth", "model.heads", "model.base_width"),
}
ALONG["multiply_adds"] = ALONG["parameters"]


# -------------------------------------------------------------------------------------------------------- grouping


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds."""

    settings: Mapping[str, Any]
    rows: list[Row]

    def interval(self, column: str) -> Interval:
        return mean_interval(value for row in self.rows if is_number(value := row.get(column)))

    def by_seed(self, column: str) -> dict[tuple[Any, ...], float]:
        """The values that can be paired with another group's."""
        return {tuple(map(row.get, SEED_KEYS)): row[column] for row in self.rows if is_number(row.get(column))}

    def label(self, column: str) -> str:
        """What a table calls its numbers."""
        return column_label(column)

    @property
    def diverged(self) -> int:
        return sum(row["status"] == "diverged" for row in self.rows)


def groups_of(runs: Runs) -> list[Group]:
    """The runs by all their settings but the seeds, in the order in which they are shown."""
    keys = ordered_keys([*runs.keys, IMAGES_KEY])
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in runs.rows:
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    made = [Group(dict(zip(keys, values, strict=True)), rows) for values, rows in found.items()]
    return sorted(made, key=lambda group: sort_key(group.settings))


def ordered_keys(keys: Iterable[str]) -> list[str]:
    rest = sorted(set(keys) - {*FIRST_KEYS, IMAGES_KEY})
    return [*FIRST_KEYS, *rest, IMAGES_KEY]


def sort_key(settings: Mapping[str, Any]) -> tuple[tuple[int, float, str], ...]:
    """Choices in the order of their menu, numbers by size, pairs by their first, words (none first), what is not there."""
    from vitbench.models.menu import MENU as MODELS
    from vitbench.models.menu import SIZES
    from vitbench.pe.menu import MENU as ENCODINGS

    menus = {"model": [*MODELS], "pe": [*ENCODINGS], "model.size": [*SIZES]}

    def rank(key: str, value: Any) -> tuple[int, float, str]:
        if value in menus.get(key, ()):
            return (0, menus[key].index(value), "")
        if isinstance(value, tuple | list) and value and is_number(value[0]):
            return (1, value[0], typed_value(value))
        if value is None or is_number(value):
            return (3, 0, "") if value is None else (0, value, "")
        return (2, value != "none", typed_value(value))

    return tuple(rank(key, value) for key, value in settings.items())


def distinguishing_keys(compared: Sequence[Group], first: Sequence[str] = (), without: Iterable[str] = ()) -> list[str]:
    """`first`, then each choice that varies, then each setting that tells apart groups which those before do not."""
    shown = list(first)
    skipped = {*without, *first}
    parts = _parts(compared, shown)
    for key in ordered_keys(key for group in compared[:1] for key in group.settings):
        if key in skipped:
            continue
        finer = _parts(compared, [*shown, key])
        if finer > parts or (key in PROMINENT and _parts(compared, [key]) > 1):
            shown.append(key)
            parts = finer
    return shown


def keys_along(compared: Sequence[Group], x: str) -> tuple[str, ...]:
    """The settings that may differ along `x` without making another line: `x` itself and what goes with it."""
    keys: list[str] = [x, *ALONG.get(x, ())]
    if x == "data":
        keys.append(GROUPS["data"].name_key)
    elif x in GROUPS:
        keys += [key for key in compared[0].settings if key.startswith(f"{x}.")]
    # other images by their setting: the setting says so already
    drawn = len({group.settings.get("data.train_images") for group in compared}) > 1
    if drawn or (x.startswith("data") and x not in ("data.fraction", "data.count")):
        keys.append(IMAGES_KEY)
    return tuple(keys)


class LineOfGroups(NamedTuple):
    """The groups along one line of a figure, or one curve."""

    name: str  # empty where nothing tells it from others
    settings: dict[str, Any]  # that do
    groups: list[Group]

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]


def lines_along(
    compared: Sequence[Group], x: str, first: Sequence[str] = (), otherwise: Sequence[str] = (), menus: bool = True
) -> list[LineOfGroups]:
    """The lines along `x`, in the order of the menus or as they come; `otherwise` names one that nothing tells apart."""
    keys = distinguishing_keys(compared, first, without=keys_along(compared, x)) or list(otherwise)
    if menus:
        compared = sorted(compared, key=lambda group: sort_key({key: group.settings.get(key) for key in keys}))
    lines: dict[tuple[Any, ...], list[Group]] = {}
    for group in compared:
        lines.setdefault(tuple(group.settings.get(key) for key in keys), []).append(group)
    found = []
    for values, its_groups in lines.items():
        settings = dict(zip(keys, values, strict=True))
        found.append(LineOfGroups(line_name(settings), settings, its_groups))
    return found


def line_name(settings: Mapping[str, Any]) -> str:
    """What a line is called: vit pe=rope"""
    words = (
        shown_value(setting) if key in ("model", "data") else f"{key}={shown_value(setting)}"
        for key, setting in settings.items()
        if setting is not None
    )
    return " ".join(words)


def _parts(compared: Sequence[Group], keys: Sequence[str]) -> int:
    return len({tuple(group.settings.get(key) for key in keys) for group in compared})


def shared_settings(compared: Sequence[Group]) -> str:
    """What all groups have in common, for a caption: data=shapes model.size=nano 120 steps"""
    words = [
        f"{key}={shown_value(compared[0].settings[key])}"
        for key in FIRST_KEYS
        if compared[0].settings.get(key) not in (None, USUAL.get(key)) and _parts(compared, [key]) == 1
    ]
    steps = {row.get("steps") for group in compared for row in group.rows}
    return " ".join(words + ([f"steps={next(iter(steps))}"] if len(steps) == 1 and None not in steps else []))


def comparison_warnings(compared: Sequence[Group]) -> list[str]:
    """What makes the groups less comparable than they look, a line each."""
    lines = []
    if _parts(compared, [key for key in compared[0].settings if key != IMAGES_KEY]) < len(compared):
        lines.append(
            "WRONG: runs of the same settings saw different images (data_fingerprint); they are not averaged "
            "together. Give each set of images its own data.name"
        )
    distinct = sum(len({tuple(row.get(key) for key in SEED_KEYS) for row in group.rows}) for group in compared)
    rows = [row for group in compared for row in group.rows]
    if distinct < len(rows):
        lines.append(
            f"WRONG: {plural(len(rows) - distinct, 'run')} too many, of the settings and seed of another (copied"
            " folders, or records of another version): n is too large and the interval too narrow"
        )
    if diverged := sum(group.diverged for group in compared):
        lines.append(f"{diverged} of {plural(len(rows), 'run')} diverged and have no number, so they are in no mean")
    machine = sorted({key for row in rows for key in row if key.startswith(("hardware.", "versions."))})
    for key in [*machine, "commit"]:
        counts = Counter(typed_value(row.get(key, UNSAID.get(key))) for row in rows).most_common()
        if len(counts) > 1:
            some = ", ".join(f"{name} ({plural(n, 'run')})" for name, n in counts[:4])
            lines.append(f"mixed {key}: {some}" + (f" and {len(counts) - 4} others" if len(counts) > 4 else ""))
    lines += _unmatched(rows)
    return [printable(line) for line in lines]


def _unmatched(rows: Sequence[Row]) -> list[str]:
    """Models of one size whose costs differ by more than a tenth: sizes are matched at 32 px and patches of 4 px."""
    lines = []
    for size in sorted({str(row.get("model.size")) for row in rows}):
        costs: dict[str, set[float]] = {}
        for row in rows:
            if str(row.get("model.size")) == size and row.get("multiply_adds"):
                costs.setdefault(str(row["model"]), set()).add(row["multiply_adds"])
        single = sorted((values.pop(), model) for model, values in costs.items() if len(values) == 1)
        if len(single) > 1 and single[-1][0] > MATCHED * single[0][0]:
            ratio = single[-1][0] / single[0][0]
            lines.append(
                f"multiply-adds of size {size} are not matched here: {single[-1][1]} has {ratio:.2f} times those of"
                f" {single[0][1]}"
            )
    return lines


# --------------------------------------------------------------------------------------------------------- numbers
