"""Which runs are averaged, which settings name them, and what makes them hard to compare.

Runs are averaged only if they saw the same images and differ in no setting but their seeds. Fewer settings are shown:
the choices that vary, and of the other settings those that tell apart what the ones before do not. The rest, such as
the learning rate where each model has its own recipe, would fill a table with columns that say nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from vitbench.comparing.degenerate import is_degenerate
from vitbench.comparing.select import SAMPLES_KEYS, SEED_KEYS, Row, Runs, as_begun
from vitbench.numbers.intervals import Interval, mean_interval
from vitbench.numbers.words import column_head, column_phrase, is_number, plural, printable, shown_value, typed_value
from vitbench.runs.record import stated
from vitbench.settings.choices import GROUPS

# These are shown wherever they vary. FIRST_KEYS come first, in this order, and all others follow by name.
_FIRST = ("data", "model", "model.arch", "pe", "model.size")
PROMINENT = (*_FIRST, *(group for group in GROUPS if group not in (*_FIRST, "optim")), "teacher")
FIRST_KEYS = (*PROMINENT, "optim", "init", "distill.kind", "data.fraction", "data.count")
# A caption does not mention settings with these values, which are the usual ones.
USUAL = {name: group.implied for name, group in GROUPS.items() if group.implied}
NAMES = ("model", "model.arch", "model.network", "data")  # a line is named by these without their keys
MATCHED = 1.1  # costs whose ratio is at most this count as equal
IMAGES_KEY = "data_fingerprint"  # no setting; it keeps runs on different images in different groups
SIZE_KEYS = ("model.size", "model.width", "model.depth", "model.heads", "model.base_width")
PATHS = ("train_images", "steps")  # results that a study sets, and with which accuracy grows
ALONG = {  # the settings that move a run along a result, and so do not make another line
    "train_images": ("data.fraction", "data.count", "data.train_images"),
    "steps": SAMPLES_KEYS,
    "samples_seen": SAMPLES_KEYS,
    "total_samples_seen": SAMPLES_KEYS,
    "total_multiply_adds": (*SAMPLES_KEYS, *SIZE_KEYS),
    "total_train_seconds": (*SAMPLES_KEYS, *SIZE_KEYS),
    "parameters": SIZE_KEYS,
    "multiply_adds": SIZE_KEYS,
    "moved_share": ("data.permute", "data.permute_share"),
}


PLACES = ("train_images", "samples_seen")  # results that can make columns, as they are the same for all seeds


def with_place(runs: Runs, place: str) -> Runs:
    """Makes one of PLACES a setting, in place of the settings that it follows from, so that it can be columns."""
    settled = dict.fromkeys(ALONG[place])
    rows = [row | settled for row in runs.rows if row.get(place) is not None]
    return replace(runs, rows=rows, settings=[*runs.settings, place])


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds."""

    settings: Mapping[str, Any]
    rows: list[Row]

    has_costs: ClassVar[bool] = True  # whether a table shows what its runs cost

    def interval(self, column: str) -> Interval:
        return mean_interval(value for row in self.rows if is_number(value := row.get(column)))

    def by_seed(self, column: str) -> dict[tuple[Any, ...], float]:
        """Returns a result by seed and subset seed, so that it can be paired with another group's."""
        return {tuple(map(row.get, SEED_KEYS)): row[column] for row in self.rows if is_number(row.get(column))}

    @property
    def all_rows(self) -> list[Row]:
        """The runs from which the group's numbers come."""
        return self.rows

    def head(self, column: str) -> str:
        """Names the group's numbers in the head of a table."""
        return column_head(column)

    def phrase(self, column: str) -> str:
        """Names the group's numbers in the caption of a table."""
        return column_phrase(column)

    def metric(self, column: str) -> str:
        """Names the group's numbers in CSV and JSON."""
        return column

    def degenerate(self, column: str) -> list[str]:
        """Lists the runs whose number a probe measured of a degenerate network."""
        return [row["id"] for row in self.rows if is_number(row.get(column)) and is_degenerate(row, column)]

    def facts(self) -> dict[str, Any]:
        """Returns what CSV and JSON say of the group besides its settings and numbers."""
        return {}

    @property
    def diverged(self) -> int:
        return sum(row["status"] == "diverged" for row in self.rows)


def groups_of(runs: Runs) -> list[Group]:
    """Groups the runs by all their settings but the seeds, in the order in which groups are shown.

    Where all runs have the same number of steps and asked for it in several ways (steps, epochs), they are grouped as
    if all had asked for these steps, because they trained in the same way. A branch is grouped as what it equals.
    """
    keys = ordered_keys([*runs.keys, IMAGES_KEY])
    steps = {row.get("steps") for row in runs.rows}
    ways = {tuple(row.get(key) for key in SAMPLES_KEYS) for row in runs.rows}
    asked = dict.fromkeys(SAMPLES_KEYS) | {"optim.steps": steps.pop()} if len(steps) == 1 < len(ways) else {}
    rows_by_values: dict[tuple[Any, ...], list[Row]] = {}
    for row in runs.rows:
        begun = as_begun(row) | asked
        rows_by_values.setdefault(tuple(map(begun.get, keys)), []).append(row)
    groups = [Group(dict(zip(keys, values, strict=True)), rows) for values, rows in rows_by_values.items()]
    return sorted(groups, key=lambda group: sort_key(group.settings))


def ordered_keys(keys: Iterable[str]) -> list[str]:
    """Returns FIRST_KEYS, whether they are among the keys or not, and then the other keys by name."""
    rest = sorted(set(keys) - {*FIRST_KEYS, IMAGES_KEY})
    return [*FIRST_KEYS, *rest, IMAGES_KEY]


def sort_key(settings: Mapping[str, Any]) -> tuple[tuple[int, float, str], ...]:
    """Sorts settings for people: choices as in menus, numbers and lists by size, words (`none` first), then null."""
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


def distinguishing_keys(groups: Sequence[Group], first: Sequence[str] = (), without: Iterable[str] = ()) -> list[str]:
    """Returns `first`, then the choices that vary and the settings that tell apart groups which those before do not."""
    shown = list(first)
    skipped = {*without, *first}
    told_apart = _count_distinct(groups, shown)
    for key in ordered_keys(key for group in groups[:1] for key in group.settings):
        if key in skipped:
            continue
        with_key = _count_distinct(groups, [*shown, key])
        if with_key > told_apart or (key in PROMINENT and _count_distinct(groups, [key]) > 1):
            shown.append(key)
            told_apart = with_key
    return shown


def keys_along(groups: Sequence[Group], x: str) -> tuple[str, ...]:
    """Returns the settings that may differ along one line: `x` itself and the settings that move with it."""
    keys: list[str] = [x, *ALONG.get(x, ())]
    if x == "data":
        keys.append(GROUPS["data"].name_key)
    elif x in GROUPS:
        keys += [key for key in groups[0].settings if key.startswith(f"{x}.")]
    # a line may hold different images if a setting along it is what changes them
    train_images_vary = len({group.settings.get("data.train_images") for group in groups}) > 1
    if train_images_vary or (x.startswith("data") and x not in ("data.fraction", "data.count")):
        keys.append(IMAGES_KEY)
    return tuple(keys)


class LineOfGroups(NamedTuple):
    """The groups that make one line of a figure, or one learning curve."""

    name: str  # empty where no setting tells the line from others
    settings: dict[str, Any]  # those that tell it from others
    groups: list[Group]

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]


def lines_along(
    groups: Sequence[Group], x: str, first: Sequence[str] = (), otherwise: Sequence[str] = (), menus: bool = True
) -> list[LineOfGroups]:
    """Joins groups to lines along `x`, in the order of the menus or else as they come.

    `first` are keys that name a line even where they do not vary; `otherwise` are those that do where no other does.
    """
    keys = distinguishing_keys(groups, first, without=keys_along(groups, x)) or list(otherwise)
    if menus:
        groups = sorted(groups, key=lambda group: sort_key({key: group.settings.get(key) for key in keys}))
    groups_by_values: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        groups_by_values.setdefault(tuple(group.settings.get(key) for key in keys), []).append(group)
    lines = []
    for values, line_groups in groups_by_values.items():
        settings = dict(zip(keys, values, strict=True))
        lines.append(LineOfGroups(line_name(settings), settings, line_groups))
    return lines


def path_of(groups: Sequence[Group], columns: Sequence[str], first: Sequence[str] = ()) -> str | None:
    """Returns the first of PATHS along which a line has two places where a run has these results; None without one."""
    for path in PATHS:
        for line in lines_along(groups, path, first):
            rows = [row for row in line.rows if all(is_number(row.get(column)) for column in (path, *columns))]
            if len({row[path] for row in rows}) > 1:
                return path
    return None


def line_name(settings: Mapping[str, Any]) -> str:
    """Names a line by its settings: vit pe=rope."""
    words = (
        shown_value(setting) if key in NAMES else f"{key}={shown_value(setting)}"
        for key, setting in settings.items()
        if setting is not None
    )
    return " ".join(words)


def _count_distinct(groups: Sequence[Group], keys: Sequence[str]) -> int:
    """Counts the different values that the groups have for these keys together."""
    return len({tuple(group.settings.get(key) for key in keys) for group in groups})


def what_is_shared(groups: Sequence[Group]) -> dict[str, Any]:
    """Returns the settings that all groups share and a caption mentions, and the steps of all runs if they agree."""
    shared = {
        key: groups[0].settings[key]
        for key in FIRST_KEYS
        if groups[0].settings.get(key) not in (None, USUAL.get(key)) and _count_distinct(groups, [key]) == 1
    }
    steps = {row.get("steps") for group in groups for row in group.rows}
    return shared | ({"steps": next(iter(steps))} if len(steps) == 1 and None not in steps else {})


def shared_words(groups: Sequence[Group]) -> list[str]:
    """Lists what all groups share, as one types it, for a caption: data=shapes, model.size=nano, steps=120."""
    return [f"{key}={shown_value(value)}" for key, value in what_is_shared(groups).items()]


def comparison_warnings(groups: Sequence[Group]) -> list[str]:
    """Lists, a line each, what makes the groups less comparable than they look."""
    lines = []
    if _count_distinct(groups, [key for key in groups[0].settings if key != IMAGES_KEY]) < len(groups):
        lines.append(
            "WRONG: runs of the same settings saw different images (data_fingerprint); they are not averaged "
            "together. Give each set of images its own data.name"
        )
    distinct = sum(len({tuple(row.get(key) for key in SEED_KEYS) for row in group.rows}) for group in groups)
    rows = [row for group in groups for row in group.rows]
    if distinct < len(rows):
        lines.append(
            f"WRONG: {plural(len(rows) - distinct, 'run')} too many, of the settings and seed of another (copied"
            " folders, or records of another version): n is too large and the interval too narrow"
        )
    if diverged := sum(group.diverged for group in groups):
        lines.append(f"{diverged} of {plural(len(rows), 'run')} diverged and have no number, so they are in no mean")
    lines += [f"mixed {key}: {counts}" for key, counts in mixed_settings(rows)]
    lines += cost_warnings(rows)
    return [printable(line) for line in lines]


def mixed_settings(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns each of hardware, versions and commit in which runs differ, with the number of runs of each value."""
    machine_keys = sorted({key for row in rows for key in row if key.startswith(("hardware.", "versions."))})
    mixed = []
    for key in [*machine_keys, "commit"]:
        counts = Counter(typed_value(stated(row, key)) for row in rows).most_common()
        if len(counts) > 1:
            some = ", ".join(f"{value} ({plural(n, 'run')})" for value, n in counts[:4])
            mixed.append((key, some + (f" and {len(counts) - 4} others" if len(counts) > 4 else "")))
    return mixed


def cost_warnings(rows: Sequence[Row]) -> list[str]:
    """Warns where models of one size differ in cost by more than a tenth: sizes match at 32 px and patches of 4 px."""
    lines = []
    for size in sorted({str(row["model.size"]) for row in rows if row.get("model.size")}):
        costs: dict[str, set[float]] = {}
        for row in rows:
            if str(row.get("model.size")) == size and row.get("multiply_adds"):
                costs.setdefault(str(row.get("model")), set()).add(row["multiply_adds"])
        ordered = sorted((values.pop(), model) for model, values in costs.items() if len(values) == 1)
        if len(ordered) > 1 and ordered[-1][0] > MATCHED * ordered[0][0]:
            (least, cheapest), (most, dearest) = ordered[0], ordered[-1]
            lines.append(
                f"multiply-adds of size {size} are not matched here: {dearest} has {most / least:.2f} times those of"
                f" {cheapest}"
            )
    return lines
