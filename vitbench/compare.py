"""Which runs are compared, and which of them are the same but for the seed: what `table` and `plot` have in common.

Runs are averaged only when every setting agrees but the seeds, and the images too. What is *shown* is less: choices
that vary, and of the other settings those that tell apart runs which the ones before do not. The rest (the recipe's
learning rate, where each model has its recipe) would fill a table with columns that say nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.errors import NothingChosen, UserError, did_you_mean
from vitbench.stats import Interval, mean_interval

if TYPE_CHECKING:
    from vitbench.study import Study

Row = dict[str, Any]  # a run, as `read_runs` gives it

SEEDS = ("seed", "data.subset_seed")  # what is averaged over
NOWHERE = ("runs", "eval_every", "keep", "data.root", "data.cache")  # settings that decide no number
# what a reader must see wherever it varies; then the order of keys, where others follow by name
PROMINENT = ("data", "model", "pe", "model.size", "augment", "objective", "teacher")
FIRST = (*PROMINENT, "optim", "init", "distill.kind", "data.fraction", "data.count")
USUAL = {"objective": "classify"}  # not worth a word where all have it
UNSAID = {"hardware.processes": 1, "hardware.stacked": 1}  # what a record means that lacks the field
MATCHED = 1.1  # costs within a tenth of each other count as equal
LAST = "data_fingerprint"  # no setting, but runs on different images are never one group

# the settings that move a run along a result, and make no other line of it
ALONG = {
    "train_images": ("data.fraction", "data.count", "data.train_images"),
    "steps": ("optim.steps", "optim.epochs"),
    "parameters": ("model.size", "model.width", "model.depth", "model.heads", "model.base_width"),
}
ALONG["multiply_adds"] = ALONG["parameters"]


class Called(str):
    """A value as it is typed, for which a study has another word: it is shown, and all else is as ever."""

    word: str

    def __new__(cls, value: str, word: str) -> Called:
        made = super().__new__(cls, value)
        made.word = word
        return made


@dataclass(frozen=True)
class Runs:
    """The runs that were asked for, and what a reader has to know about those that are not there."""

    rows: list[Row]
    settings: list[str]  # the columns that are settings, of `rows` and of all that was filtered out
    notes: list[str] = field(default_factory=list)
    swept: dict[str, list[Row]] = field(default_factory=dict)  # what probes measured along something, by run

    @property
    def keys(self) -> list[str]:
        """The settings that can be rows, columns and lines: what is averaged over cannot."""
        return [key for key in self.settings if key not in SEEDS + NOWHERE]

    def numbers(self) -> list[str]:
        """The columns that can be averaged: numeric results."""
        named = {key for row in self.rows for key, value in row.items() if _is_number(value)}
        return sorted(named - set(self.settings) - {"schema"})

    def listed(self, setting: str, value: Any) -> list[str]:
        """A setting that takes one key or a list of keys, as a list."""
        keys = [] if value is None else value if isinstance(value, list) else [value]
        return [self.check(setting, str(key), self.keys) for key in keys]

    def renamed(self, names: Mapping[str, Mapping[str, str]]) -> Runs:
        """With the words that a study has for values of its settings, by setting and by value as it is typed."""

        def row_of(row: Row) -> Row:
            return row | {key: Called(row[key], its[row[key]]) for key, its in names.items() if row.get(key) in its}

        for key in names:
            if key not in self.settings:
                raise UserError(f"names.{key}: {did_you_mean(key, self.settings)}")
        return replace(self, rows=[row_of(row) for row in self.rows])

    def filtered(self, where: Mapping[str, Any]) -> Runs:
        """Those that pass the filters `where.KEY=VALUE`; if none, one line that says what there is."""
        rows = self.rows
        columns = {key for row in rows for key in row}
        for key, wanted in _filters(where).items():
            if key not in columns:
                raise UserError(f"where.{key}={typed(wanted)}: {did_you_mean(key, columns)}")
            kept = [row for row in rows if matches(row.get(key), wanted)]
            if not kept:
                there = sorted({typed(row.get(key)) for row in rows})
                some = ", ".join(there[:12]) + (f" and {len(there) - 12} others" if len(there) > 12 else "")
                raise NothingChosen(
                    f"where.{key}={typed(wanted)}: none of {count(len(rows), 'run')}; there {key} is {some}"
                )
            rows = kept
        return replace(self, rows=rows, swept={row["id"]: self.swept.get(row["id"], []) for row in rows})

    @staticmethod
    def check(setting: str, key: str, choices: Iterable[str]) -> str:
        """`key`, or one line that names the setting as typed."""
        if key not in choices:
            raise UserError(f"{setting}={key}: {did_you_mean(key, choices)}")
        return key


def select(folder: str, where: Mapping[str, Any], study: Study | None = None) -> Runs:
    """The runs in `folder` that belong to the study and pass the filters; if none, one line that says what there is."""
    from vitbench.records import read_runs

    rows, settings, problems, unfinished, swept = read_runs(Path(folder).expanduser())
    notes = [f"not read: {problem}" for problem in problems]
    if not rows:
        waiting = f"{len(unfinished)} have begun, none has ended" if unfinished else "`vitbench train` makes one"
        raise UserError("; ".join([f"runs={folder}: no finished run there; {waiting}", *problems[:1]]))
    if study is not None:
        from vitbench.study import planned_ids

        planned = planned_ids(study, Path(folder).expanduser())
        kept = [row for row in rows if row["id"] in set(planned)]
        missing = set(planned) - {row["id"] for row in kept}
        if not kept:
            raise UserError(f"study={study.name}: none of its {len(planned)} runs has ended in runs={folder}; "
                            f"`vitbench sweep study={study.name}` starts them")  # fmt: skip
        if missing:
            begun = len(missing & set(unfinished))
            notes.append(f"missing: {len(missing)} of the {len(planned)} planned runs"
                         + (f", {begun} of them begun (`vitbench ls runs`)" if begun else ""))  # fmt: skip
        rows = kept
    elif unfinished:
        notes.append(f"{count(len(unfinished), 'more run')} in {folder}, begun and not ended (`vitbench ls runs`)")
    selected = Runs(rows, settings, notes, {row["id"]: swept[row["id"]] for row in rows})
    return selected.renamed(study.names if study else {}).filtered(where)


def _filters(where: Mapping[str, Any]) -> dict[str, Any]:
    """{"data": {"name": "x", "fraction": 1}} -> {"data": "x", "data.fraction": 1}, as the columns are called."""
    from vitbench.config import flatten
    from vitbench.records import CHOICES as COLUMNS

    flat = {key.replace("model.pe.", "pe."): value for key, value in flatten(where).items()}
    return {COLUMNS.get(key, "pe" if key == "pe.name" else key): value for key, value in flat.items()}


def matches(value: Any, wanted: Any) -> bool:
    """Whether a setting is what was typed, or one of a list of them; numbers by value, words also by a study's name."""
    if isinstance(wanted, list) and not (isinstance(value, list | tuple) and [*value] == wanted):
        return any(matches(value, one) for one in wanted)
    if _is_number(value) and _is_number(wanted):
        return bool(value == wanted)
    return typed(wanted) in (typed(value), shown(value))


def typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -------------------------------------------------------------------------------------------------------- grouping


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds."""

    settings: Mapping[str, Any]
    rows: list[Row]

    def interval(self, column: str) -> Interval:
        return mean_interval(value for row in self.rows if _is_number(value := row.get(column)))

    def by_seed(self, column: str) -> dict[tuple[Any, ...], float]:
        """The values that can be paired with another group's."""
        return {tuple(map(row.get, SEEDS)): row[column] for row in self.rows if _is_number(row.get(column))}

    def label(self, column: str) -> str:
        """What a table calls its numbers."""
        return label(column)

    @property
    def diverged(self) -> int:
        return sum(row["status"] == "diverged" for row in self.rows)


def groups(runs: Runs) -> list[Group]:
    """The runs by all their settings but the seeds, in the order in which they are shown."""
    keys = ordered([*runs.keys, LAST])
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in runs.rows:
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    made = [Group(dict(zip(keys, values, strict=True)), rows) for values, rows in found.items()]
    return sorted(made, key=lambda group: sort_key(group.settings))


def ordered(keys: Iterable[str]) -> list[str]:
    rest = sorted(set(keys) - {*FIRST, LAST})
    return [*FIRST, *rest, LAST]


def sort_key(settings: Mapping[str, Any]) -> tuple[tuple[int, float, str], ...]:
    """Choices in the order of their menu, numbers by size, pairs by their first, words (none first), what is not there."""
    from vitbench.models.menu import MENU as MODELS
    from vitbench.models.menu import SIZES
    from vitbench.pe.menu import MENU as ENCODINGS

    menus = {"model": [*MODELS], "pe": [*ENCODINGS], "model.size": [*SIZES]}

    def rank(key: str, value: Any) -> tuple[int, float, str]:
        if value in menus.get(key, ()):
            return (0, menus[key].index(value), "")
        if isinstance(value, tuple | list) and value and _is_number(value[0]):
            return (1, value[0], typed(value))
        if value is None or _is_number(value):
            return (3, 0, "") if value is None else (0, value, "")
        return (2, value != "none", typed(value))

    return tuple(rank(key, value) for key, value in settings.items())


def telling(compared: Sequence[Group], first: Sequence[str] = (), without: Iterable[str] = ()) -> list[str]:
    """`first`, then each choice that varies, then each setting that tells apart groups which those before do not."""
    shown = list(first)
    skipped = {*without, *first}
    parts = _parts(compared, shown)
    for key in ordered(key for group in compared[:1] for key in group.settings):
        if key in skipped:
            continue
        finer = _parts(compared, [*shown, key])
        if finer > parts or (key in PROMINENT and _parts(compared, [key]) > 1):
            shown.append(key)
            parts = finer
    return shown


def along(compared: Sequence[Group], x: str) -> tuple[str, ...]:
    """The settings that may differ along `x` without making another line: `x` itself and what goes with it."""
    keys: list[str] = [x, *ALONG.get(x, ())]
    if x in ("model", "pe", "augment", "optim"):
        keys += [key for key in compared[0].settings if key.startswith(f"{x}.")]
    elif x == "data":
        keys.append("data.source")
    # other images by their setting: the setting says so already
    drawn = len({group.settings.get("data.train_images") for group in compared}) > 1
    if drawn or (x.startswith("data") and x not in ("data.fraction", "data.count")):
        keys.append(LAST)
    return tuple(keys)


class Named(NamedTuple):
    """The groups along one line of a figure, or one curve."""

    name: str  # empty where nothing tells it from others
    settings: dict[str, Any]  # that do
    groups: list[Group]

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]


def named(
    compared: Sequence[Group], x: str, first: Sequence[str] = (), otherwise: Sequence[str] = (), menus: bool = True
) -> list[Named]:
    """The lines along `x`, in the order of the menus or as they come; `otherwise` names one that nothing tells apart."""
    keys = telling(compared, first, without=along(compared, x)) or list(otherwise)
    if menus:
        compared = sorted(compared, key=lambda group: sort_key({key: group.settings.get(key) for key in keys}))
    lines: dict[tuple[Any, ...], list[Group]] = {}
    for group in compared:
        lines.setdefault(tuple(group.settings.get(key) for key in keys), []).append(group)
    found = []
    for values, its_groups in lines.items():
        settings = dict(zip(keys, values, strict=True))
        found.append(Named(name(settings), settings, its_groups))
    return found


def name(settings: Mapping[str, Any]) -> str:
    """What a line is called: vit pe=rope"""
    words = (shown(setting) if key in ("model", "data") else f"{key}={shown(setting)}"
             for key, setting in settings.items() if setting is not None)  # fmt: skip
    return " ".join(words)


def _parts(compared: Sequence[Group], keys: Sequence[str]) -> int:
    return len({tuple(group.settings.get(key) for key in keys) for group in compared})


def common(compared: Sequence[Group]) -> str:
    """What all groups have in common, for a caption: data=shapes model.size=nano 120 steps"""
    words = [f"{key}={shown(compared[0].settings[key])}" for key in FIRST
             if compared[0].settings.get(key) not in (None, USUAL.get(key)) and _parts(compared, [key]) == 1]  # fmt: skip
    steps = {row.get("steps") for group in compared for row in group.rows}
    return " ".join(words + ([f"steps={next(iter(steps))}"] if len(steps) == 1 and None not in steps else []))


def warnings(compared: Sequence[Group]) -> list[str]:
    """What makes the groups less comparable than they look, a line each."""
    lines = []
    if _parts(compared, [key for key in compared[0].settings if key != LAST]) < len(compared):
        lines.append("WRONG: runs of the same settings saw different images (data_fingerprint); they are not averaged "
                     "together. Give each set of images its own data.name")  # fmt: skip
    distinct = sum(len({tuple(row.get(key) for key in SEEDS) for row in group.rows}) for group in compared)
    rows = [row for group in compared for row in group.rows]
    if distinct < len(rows):
        lines.append(f"WRONG: {count(len(rows) - distinct, 'run')} too many, of the settings and seed of another (copied folders, or "
                     "records of another version): n is too large and the interval too narrow")  # fmt: skip
    if diverged := sum(group.diverged for group in compared):
        lines.append(f"{diverged} of {count(len(rows), 'run')} diverged and have no number, so they are in no mean")
    machine = sorted({key for row in rows for key in row if key.startswith(("hardware.", "versions."))})
    for key in [*machine, "commit"]:
        counts = Counter(typed(row.get(key, UNSAID.get(key))) for row in rows).most_common()
        if len(counts) > 1:
            some = ", ".join(f"{name} ({count(n, 'run')})" for name, n in counts[:4])
            lines.append(f"mixed {key}: {some}" + (f" and {len(counts) - 4} others" if len(counts) > 4 else ""))
    lines += _unmatched(rows)
    return [plain(line) for line in lines]


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
                f"multiply-adds of size {size} are not matched here: {single[-1][1]} has {ratio:.2f} times those of {single[0][1]}"
            )
    return lines


# --------------------------------------------------------------------------------------------------------- numbers

LABELS = {"train_images": "training images", "parameters": "parameters", "multiply_adds": "multiply-adds",
          "train_seconds": "training seconds", "total_train_seconds": "total training seconds",
          "images_per_second": "images/s"}  # fmt: skip
PIXELS = ("distance.smallest_head", "distance.median_head", "distance.mean", "distance.mean_central", ".decay_length",
          "receptive_field.radius", "receptive_field.half_mass", "receptive_field.luo")  # fmt: skip


def count(n: int, word: str) -> str:
    """1 run, 2 runs"""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def is_share(column: str) -> bool:
    """Whether a result is a share of 1, which people read in percent."""
    return column.endswith(("_accuracy", "_error"))


def label(column: str) -> str:
    """What a result is called in tables and on axes, with its unit; settings keep the name one types."""
    if is_share(column):
        return f"{column.replace('_', ' ')}, %"
    if column.endswith(PIXELS):
        return f"{column}, px"
    return LABELS.get(column, column if "." in column else column.replace("_", " "))


def shown(value: Any) -> str:
    """A setting in a table: as typed, a dash where the model has no such setting."""
    return "-" if value is None else plain(value.word if isinstance(value, Called) else typed(value))


def plain(text: str) -> str:
    """Text without line breaks and without what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.splitlines()))


def decimals(column: str, intervals: Iterable[Interval]) -> int:
    """Digits after the point so that the middle one of a column's intervals keeps two; percents have one or two."""
    scale = 100 if is_share(column) else 1
    kept = [i for i in intervals if i.n]
    halves = sorted(scale * i.half for i in kept if i.why is None)
    means = [abs(scale * i.mean) / 30 for i in kept if i.mean]
    size = halves[len(halves) // 2] if halves else min(means, default=0.0)
    digits = 1 - math.floor(math.log10(size)) if size > 0 else 0
    return min(max(digits, 1), 2) if is_share(column) else min(max(digits, 0), 6)


def number(column: str, value: float, digits: int) -> str:
    """A result for people: percent of a share, millions of parameters and multiply-adds."""
    if value != value:
        return "n/a"
    if is_share(column):
        return f"{100 * value:.{digits}f}"
    if column in ("parameters", "multiply_adds"):
        millions = value / 1e6
        return f"{millions:,.{3 if millions < 0.1 else 2 if millions < 10 else 1 if millions < 100 else 0}f} M"
    return f"{value:,.{digits}f}"
