"""Writes docs/reference/records.md from the types of records and settings and from the comments beside them.

    make reference

A test compares the page with the output of this program, so a field without a comment, or an outdated page, is noticed.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from tools.settings_reference import with_links
from vitbench.comparing.select import CERTIFIES, UNIMPORTANT_KEYS
from vitbench.machine.provenance import Hardware, Provenance, Versions
from vitbench.menu import Range, tunables
from vitbench.runs.record import Beginning, Essentials, FrozenFeatures, Metrics, Record, ScannedFiles
from vitbench.runs.records import BESIDE
from vitbench.settings.choices import GROUPS, MENU_GROUPS, column_of, menu_of
from vitbench.settings.schema import SCHEMA_OF_SOURCE, TrainConfig

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "records.md"
SETTINGS, REFERENCE = "typing.md", "settings.md"
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "object", Any: "any"}
# columns that follow from others (`derived` in vitbench/runs/records.py)
DERIVED = {
    "samples_seen": "training images that went through the run's own steps, each counted as often as it did",
    "epochs_seen": "`samples_seen` over `train_images`",
    "moved_share": "`data.permute_share` where places are rearranged, else 0",
    "test_error": "1 minus `test_accuracy`",
    "train_eval_error": "1 minus `train_eval_accuracy`",
    "test_accuracy_per_million_parameters": "`test_accuracy` over millions of `parameters`",
    "test_accuracy_per_million_multiply_adds": "`test_accuracy` over millions of `multiply_adds`",
    "test_accuracy_per_train_second": "`test_accuracy` over `train_seconds`",
    CERTIFIES: "of a certificate (`certify:` of a study): the id of the run that was done again with more samples",
}
HEAD = """\
# Records, and all runs as one CSV

<!-- Made by `make reference` from the types in vitbench/runs/record.py, vitbench/machine/provenance.py
and vitbench/settings/schema.py, and from the comments beside them. Change those. -->

A run that has ended has a record, `runs/<id>/record.json`. It is one JSON object, whose fields are below. A field of an
object within it is written with a point (`hardware.name`).

`vitbench table per=run file=all.csv` writes all runs of `runs=` as one CSV, with a line for each run.
`results/<study>/runs.csv` is the same for the runs of a study. [sharing.md](../how-to/sharing.md) says how to give runs
to others, and [metrics.md](metrics.md) what the numbers mean and how they are compared.

null means that there is no such number. If a field may be absent, its line says when; "old" means a record that was
written by a version from before the field. Losses of classification are cross-entropies, as means over images. In
italics stands the type of each field, with its unit."""
CSV_HEAD = """\
## All runs as one CSV

    vitbench table per=run file=all.csv                    # every run in runs/ that has ended
    vitbench table per=run study=quickstart format=csv     # those of a study, to the terminal

The file is UTF-8. It has a line of column names, then a line for each run, in a fixed order of runs and columns.

**Cells are JSON** (`0.1`, `[0.5, 0.5]`, `true`, `"3"`). Words that cannot be mistaken for JSON stand without quotes
(`cifar10`). An empty cell is null, or a field that the run does not have. In Python: `json.loads(cell)`, and the cell
itself if that fails.

Which columns there are follows from the runs: a column that no run has is left out. They are, in this order:

1. `id` and `status`. The status is `finished` or `diverged`. In runs.csv it can also be `missing`, `failed` or
   `unfinished`, and then the line has nothing else.
2. The settings, below, named as they are typed.
3. From `schema` on the results, by name: the fields of the record but for {beside}; what follows from them; and what
   probes measured."""


def page() -> str:
    """Returns the text of docs/reference/records.md."""
    parts = [HEAD, "## Fields of a record"]
    whole = {**_fields(Essentials), **_fields(Metrics), **_fields(Provenance), **_fields(Record)}
    for kind, its in _parts(whole):
        parts += [_doc(kind), table_of(("field", "what it is"), its)]
    beside = ", ".join(f"`{name}`" for name in BESIDE if name not in ("id", "status"))
    probes = (
        "A result of a probe is called by its protocol and metric, such as `shift.crop.consistency`. Of the network"
        " before its first step it is `init.shift.crop.consistency`. [metrics.md](metrics.md) defines each. What probes"
        " measured along layers or an axis is no column: it is in `runs/<id>/probes/*.csv`, and for a study in"
        " `results/<study>/probes.csv`."
    )
    parts += [
        CSV_HEAD.format(beside=beside),
        "### Columns of results that no record holds",
        table_of(
            ("column", "what it is"),
            [
                [f"`{name}`", f"{words}. *{'text' if name == CERTIFIES else 'number'}*"]
                for name, words in DERIVED.items()
            ],
        ),
        probes,
        "### Columns of settings",
        f"[{SETTINGS}]({SETTINGS}) says how they are typed, and what text and lists may hold. A run that was made"
        " before a setting came has its default there. A cell is empty if a run has no such setting.",
        table_of(("column", "what it is"), ([column, f"{words}. *{kind}*"] for column, kind, words in _settings())),
        "Each of the other choices has its own options (`vitbench train model=NAME pe=NAME --help`):",
        table_of(("choice", "columns"), [*_options()]),
    ]
    return with_links("\n\n".join(parts) + "\n")


def _parts(whole: dict[str, tuple[str, Any]]) -> Iterator[tuple[Any, list[list[str]]]]:
    """Yields the tables of a record: its fields by the type that declares them, then those of each object within it."""
    own_kinds: tuple[Any, ...] = (Essentials, Metrics, Record)
    for kind in own_kinds:
        own = {name: whole[name] for name in _fields(kind)}
        yield kind, [_line(name, *its) for name, its in own.items()]
    objects = {
        "hardware": Hardware,
        "versions": Versions,
        "init": Beginning,
        "features": FrozenFeatures,
        "scan": ScannedFiles,
    }
    yield Provenance, [_line(name, *its) for name, its in _fields(Provenance).items()]
    for name, kind in objects.items():
        yield kind, [_line(f"{name}.{field}", *its) for field, its in _fields(kind).items()]


def _line(name: str, comment: str, hint: Any) -> list[str]:
    kind, unit, optional = described(hint)
    return [f"`{name}`", f"{comment}. *{', '.join(filter(None, [kind, unit]))}{', or absent' * optional}*"]


def _fields(kind: Any) -> dict[str, tuple[str, Any]]:
    """Returns the fields that a class itself declares, with the comment beside each and its type."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: (comment, hints[name]) for name, comment in comments_of(kind).items()}


def comments_of(kind: Any) -> dict[str, str]:
    """Returns the comment behind each field of a class, or else the lines of comment right above it."""
    source = Path(inspect.getsourcefile(kind) or "").read_text(encoding="utf-8")
    lines = source.splitlines()
    found = next(
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    comments = {}
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert node.end_lineno is not None
            behind = re.search(r"  # (.*)", lines[node.end_lineno - 1])
            above: list[str] = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.lstrip().startswith("# "):
                    break
                above.insert(0, line.strip().removeprefix("# "))
            comments[node.target.id] = behind[1] if behind else " ".join(above)
    return comments


def _doc(kind: Any) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())


def described(hint: Any) -> tuple[str, str, bool]:
    """Returns a type in words with its range, its unit, and whether the field may be absent."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return (*described(arguments[0])[:2], True)
    if origin is Annotated:
        words = described(arguments[0])[0]
        ranges = [each.words for each in hint.__metadata__ if isinstance(each, Range)]
        units = [each for each in hint.__metadata__ if isinstance(each, str)]
        return " ".join([words, *(f"({each})" for each in ranges)]), "".join(units), False
    if origin in (Union, types.UnionType):
        each = [described(one) for one in arguments if one is not types.NoneType]
        null = [" or null"] if types.NoneType in arguments else []
        return " or ".join(one[0] for one in each) + "".join(null), "".join(one[1] for one in each), False
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in arguments), "", False
    if origin in (list, tuple):
        return f"list ({described(arguments[0])[0]})", "", False
    if origin is dict or is_typeddict(hint):
        return "object" if origin is dict else "object, below", "", False
    return PLAIN[hint], "", False


# ------------------------------------------------------------------------------------------------------------ settings


def _settings() -> Iterator[list[str]]:
    """Returns the tables of the settings of every run, and of each source of images."""
    for name, group in GROUPS.items():
        yield [
            _linked(name),
            "text or null",
            f"what these are called, `{group.label_key}`" if group.label_key else f"the choice `{name}=`",
        ]
    known = set[str]()
    schemas: list[tuple[str, Any, str]] = [("", TrainConfig, "")]
    schemas += [("data.", schema, f"of `data={source}`: ") for source, schema in SCHEMA_OF_SOURCE.items()]
    for prefix, schema, of in schemas:
        for key, (comment, hint) in _flat(schema, prefix):
            is_left_out = key in UNIMPORTANT_KEYS or key.startswith("machine.") or column_of(key) in GROUPS
            if key not in known and not is_left_out:
                known.add(key)
                yield [_linked(column_of(key)), described(hint)[0], of + comment if comment else of.rstrip(": ")]


def _flat(schema: Any, prefix: str) -> Iterator[tuple[str, tuple[str, Any]]]:
    comments: dict[str, str] = {}
    for base in reversed(schema.__mro__[:-1]):
        comments |= comments_of(base)
    for key, hint in get_type_hints(schema).items():
        if is_dataclass(hint):
            yield from _flat(hint, f"{prefix}{key}.")
        elif get_origin(hint) is not dict:
            yield f"{prefix}{key}", (comments[key], hint)


def _options() -> Iterator[list[str]]:
    """Returns the tables of the options of each model, encoding and objective, which no schema lists."""
    for name, group in MENU_GROUPS.items():
        if not group.is_open:
            continue
        for member, choice in menu_of(name).items():
            keys = [column_of(group.options_prefix + key) for key in tunables(choice.target)]
            if keys:
                yield [f"`{name}={member}`", ", ".join(_linked(key, f"{name}={member}-") for key in keys)]


def _linked(column: str, choice: str = "") -> str:
    """Links a column to the line of its setting, or to the section of the choice that it names."""
    anchor = "data" if column == "data.source" else f"{choice}{column}"
    return f"[`{column}`]({REFERENCE}#{anchor})"


def table_of(head: Iterable[str], lines: Iterable[list[str]]) -> str:
    """Writes a table whose cells may hold anything but line breaks."""
    head = [*head]
    rows = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
