"""Writes tables as plain text, for a terminal, and as Markdown, LaTeX, CSV or JSON.

Names in a table come from anyone's folders and files: in each format they stay text, whatever characters they hold.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from vitbench.comparing.differences import Against
from vitbench.comparing.grouping import Group, line_name
from vitbench.comparing.heads import meanings
from vitbench.comparing.latex import fits_upright, latex_file, latex_label, latex_list, latex_table, latex_words
from vitbench.machine.terminal import beneath, escaped
from vitbench.numbers.intervals import smallest_difference
from vitbench.numbers.text import align, csv_text, speakable
from vitbench.numbers.words import column_label, is_number, is_share, listed, shown_number, shown_value
from vitbench.runs.record import total_seconds

TOTAL_SECONDS = "total_train_seconds"  # includes the training of what a run began from
COSTS = ("train_images", "parameters", "multiply_adds", "train_seconds", TOTAL_SECONDS, "images_per_second")
SIZES = {"parameters": "parameters", "multiply_adds": "multiply-adds an image"}  # as sentences say them
TIMES = {
    "train_seconds": "Training took {} seconds a run",
    TOTAL_SECONDS: "With that of the networks it needed, training took {} seconds a run",
    "images_per_second": "Training saw {} images a second",
}
MOST_SIZES = 6  # the most that sentences tell apart
TABLE_ENDINGS = {".txt": "text", ".md": "md", ".csv": "csv", ".tex": "tex", ".json": "json"}


@dataclass(frozen=True)
class Table:
    """What people read (head, lines, notes), and the groups that CSV and JSON are made from."""

    name: str
    caption: str
    head: list[str]
    lines: list[list[str]]
    left: int  # the number of columns that hold words, which come first; the others hold numbers
    notes: list[str]
    groups: list[Group]
    keys: list[str]  # the settings that tell the groups apart
    values: list[str]  # the results that the table shows
    sentences: list[str] = field(default_factory=list)  # what the numbers say, in words
    caption_in_print: str = ""  # the caption as a sentence of a paper; empty: the caption
    costs: Sequence[str] = ()  # the costs in its last columns
    label_end: str = ""  # the setting that was typed and makes it another table than the one of this name


def costs_of(groups: Sequence[Group]) -> list[str]:
    """Lists COSTS, with TOTAL_SECONDS only if a run began from another; a table of differences has no costs."""
    if not all(group.has_costs for group in groups):
        return []
    rows = [row for group in groups for row in group.rows]
    total_differs = any(total_seconds(row, row) != row.get("train_seconds") for row in rows)
    return [cost for cost in COSTS if total_differs or cost != TOTAL_SECONDS]


def cost_range(cost: str, groups: Sequence[Group]) -> str:
    """Writes the mean costs of groups, from the least to the greatest."""
    means = [mean for group in groups if (mean := group.interval(cost).mean) == mean]
    if not means:
        return "n/a"
    digits = 1 if cost in ("train_seconds", TOTAL_SECONDS) and min(means) < 10 else 0
    low, high = shown_number(cost, min(means), digits), shown_number(cost, max(means), digits)
    return low if low == high else f"{low}-{high}"


def typed_lines(table: Table) -> list[str]:
    """Says, a line for each result that is not called as it is typed, what it is and what one types for it."""
    found = meanings(table.groups, table.values)
    if len(table.values) == 1:  # its caption says what it is
        return [f"typed as value={column}" for _, _, column in found]
    return [f"{head} = {column}: {meaning}" for head, meaning, column in found]


def render_tables(form: str, tables: Sequence[Table], heading: str, notes: Sequence[str], study: str = "") -> str:
    r"""Writes tables in one of the formats; CSV holds the first table alone, without heading and notes.

    The name of a study, or of a file, is in what \ref{} is given.
    """
    if form == "csv":
        return _csv(tables[0])
    if form == "json":
        return _json(tables, heading, notes)
    if form == "tex":
        return _latex(tables, heading, notes, study)
    return {"text": _text, "md": _markdown}[form](tables, heading, notes)


def _text(tables: Sequence[Table], heading: str, notes: Sequence[str]) -> str:
    parts = [heading] if heading else []
    for table in tables:
        grid = align([table.head, *table.lines], table.left)
        ruler = "-" * max(map(len, grid))
        below = [*(f"! {note}" for note in table.notes), *typed_lines(table)]
        parts.append("\n".join([table.caption, "", grid[0], ruler, *grid[1:], *below]))
        parts += ["\n".join(table.sentences)] if table.sentences else []
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts) + "\n"


def print_rich(tables: Sequence[Table], heading: str, notes: Sequence[str]) -> None:
    """Prints tables as wide as the terminal, or wider where a number or a word would be split.

    What is too long continues in the next line instead of being cut.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    def safe(text: str, style: str = "") -> Text:
        return Text(escaped(speakable(text)), style)  # the brackets of a str would be read as markup

    console = Console(file=beneath(sys.stdout), highlight=False)
    if heading:
        console.print(safe(heading, "bold"))
    for table in tables:
        console.print(safe(table.caption, "bold"))
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        shown, widths = _for_terminal(table, console.width)
        for i, (head, width) in enumerate(zip(shown.head, widths, strict=True)):
            grid.add_column(safe(head), justify="left" if i < shown.left else "right", overflow="fold", width=width)
        for line in shown.lines:
            grid.add_row(*map(safe, line))
        room, console.width = console.width, max(console.width, _full_width(widths))
        console.print(grid)
        console.width = room
        for note in table.notes:
            console.print(safe(f"! {note}", "bold red" if note.startswith("WRONG") else "yellow"))
        for words in [*typed_lines(table), *table.sentences]:
            console.print(safe(words))
    for note in notes:
        console.print(safe(note))


def _for_terminal(table: Table, width: int) -> tuple[Table, Sequence[int]]:
    """Returns the table and the widths of its columns, with lines and columns exchanged where only so it fits.

    A table that fits in neither way is wider than the terminal, and only its heads continue in the next line.
    """
    for shown in (table, _turned(table)):
        if widths := _widths(shown, width):
            return shown, widths
    columns = zip(table.head, *table.lines, strict=True)
    return table, [max(_longest_word(head), *map(len, cells)) for head, *cells in columns]


def _full_width(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)  # two spaces stand between columns


def _turned(table: Table) -> Table:
    """Exchanges lines and columns: the words at the head of each line become the head of its column."""
    head = ["", *(" ".join(word for word in line[: table.left] if word != "-") for line in table.lines)]
    columns = zip(table.head, *table.lines, strict=True)
    return replace(table, head=head, lines=[[*column] for column in columns][table.left :], left=1)


def _widths(table: Table, width: int) -> list[int]:
    """Makes columns as wide as their cells, then as their heads if there is room; empty where they do not fit."""
    columns = [*zip(*table.lines, strict=True)]
    widths = [max(map(_longest_word, [head, *cells])) for head, cells in zip(table.head, columns, strict=False)]
    room = width - _full_width(widths)
    if room < 0:
        return []
    # cells get room for all their words first, and then heads; those columns that lack least come first
    for wanted in ([max(map(len, cells)) for cells in columns], [*map(len, table.head)]):
        for i, whole in sorted(enumerate(wanted), key=lambda column: column[1] - widths[column[0]]):
            added = min(max(whole - widths[i], 0), room)
            widths[i] += added
            room -= added
    return widths


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _markdown(tables: Sequence[Table], heading: str, notes: Sequence[str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(escape_markdown, cells))} |"

    parts = [escape_markdown(heading)] if heading else []
    for table in tables:
        ruler = "|".join(":--" if i < table.left else "--:" for i in range(len(table.head)))
        parts.append(escape_markdown(table.caption))
        parts.append("\n".join([line(table.head), f"|{ruler}|", *map(line, table.lines)]))
        parts.extend(f"**{escape_markdown(note)}**" for note in table.notes)
        parts += ["\n".join(f"- {escape_markdown(line)}" for line in typed)] if (typed := typed_lines(table)) else []
        parts += (
            ["\n".join(f"- {escape_markdown(sentence)}" for sentence in table.sentences)] if table.sentences else []
        )
    return "\n\n".join([*parts, *map(escape_markdown, notes)]) + "\n"


def escape_markdown(text: str) -> str:
    """Escapes text so that Markdown, HTML inside it and the cells of its tables show it as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#$~" else c for c in text)


def _latex(tables: Sequence[Table], heading: str, notes: Sequence[str], study: str) -> str:
    """Writes tables for \\input{...}: the notes stand below each of them, and what its numbers say below that."""
    parts = []
    for table in tables:
        caption = table.caption_in_print or table.caption
        said = latex_words([caption[:1].upper() + caption[1:] if re.match("[a-z]+ ", caption) else caption])
        shown, costs = _without_wide_costs(table)
        turned = _turned(shown)
        if len(table.values) > 1 and fits_upright(turned.head, turned.lines) > fits_upright(shown.head, shown.lines):
            shown = turned
        paragraphs = [latex_words(_explained(table)), latex_words([*costs, *table.notes, *notes])]
        below = r"\par ".join(filter(None, paragraphs))
        label = latex_label(study, table.name or " ".join(table.values[:1]), table.label_end)
        parts.append(latex_table(shown.head, shown.lines, shown.left, said, below, label))
        parts += latex_list(table.sentences)
    return latex_file(parts, heading)


def _explained(table: Table) -> list[str]:
    """Says what the results are that stand side by side."""
    found = meanings(table.groups, table.values) if len(table.values) > 1 else []
    return [f"{head}: {meaning}" for head, meaning, _ in found]


def _without_wide_costs(table: Table) -> tuple[Table, list[str]]:
    """Takes the costs out of a table that is wider than the text of a page with them, and says them in sentences."""
    if not table.costs or fits_upright(table.head, table.lines):
        return table, []
    count = len(table.costs)
    narrow = replace(table, head=table.head[:-count], lines=[line[:-count] for line in table.lines], costs=())
    return narrow, cost_sentences(table.groups, table.keys[: table.left], table.costs)


def cost_sentences(groups: Sequence[Group], keys: Sequence[str], costs: Sequence[str]) -> list[str]:
    """Says what the lines of a table cost, where lines that cost the same are named together."""
    lines: dict[str, list[Group]] = {}
    for group in groups:
        lines.setdefault(line_name({key: group.settings[key] for key in keys}), []).append(group)
    names_by_size: dict[tuple[str, ...], list[str]] = {}
    for name, its in lines.items():
        size = tuple(f"{cost_range(cost, its)} {unit}" for cost, unit in SIZES.items() if cost in costs)
        names_by_size.setdefault(size, []).append(name)
    if len(names_by_size) > MOST_SIZES:
        names_by_size = {tuple(f"{cost_range(cost, groups)} {unit}" for cost, unit in SIZES.items()): ["the networks"]}
    said = [f"{listed(names)}: {' and '.join(size)}" for size, names in names_by_size.items() if size]
    for cost, sentence in TIMES.items():
        if cost in costs:
            said.append(sentence.format(re.sub(r"(?<=\d)-(?=\d)", " to ", cost_range(cost, groups))))
    return said


def _csv(table: Table) -> str:
    costs = costs_of(table.groups)
    facts = [*table.groups[0].facts()]
    counts = ["n", "diverged", *(["degenerate"] if _any_degenerate(table) else [])]
    power = ["smallest_difference"] if isinstance(table.groups[0], Against) else []
    lines = [[*table.keys, *facts, "metric", "mean", "ci95_low", "ci95_high", "sd", *power, *counts, *costs]]
    for group in table.groups:
        settings = [*(group.settings[key] for key in table.keys), *group.facts().values()]
        cost_means = [group.interval(cost).mean for cost in costs]
        for value in table.values:
            i = group.interval(value)
            group_counts = [i.n, group.diverged, len(group.degenerate(value))][: len(counts)]
            numbers = [
                i.mean,
                i.low,
                i.high,
                i.sd,
                *(smallest_difference(i) for _ in power),
                *group_counts,
                *cost_means,
            ]
            lines.append([escape_csv(cell) for cell in [*settings, group.metric(value), *numbers]])
    return csv_text(lines)


def _any_degenerate(table: Table) -> bool:
    return any(group.degenerate(value) for group in table.groups for value in table.values)


def escape_csv(cell: Any) -> Any:
    """Leaves what is missing empty, and puts an apostrophe before words that a spreadsheet would take for a formula."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return int(cell) if cell == int(cell) else cell
    text = shown_value(cell)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _json(tables: Sequence[Table], heading: str, notes: Sequence[str]) -> str:
    report = {
        "title": heading or None,
        "tables": [
            {
                "name": table.name or None,
                "caption": table.caption,
                "unit": _unit(table.values[0]) if len(table.values) == 1 else {v: _unit(v) for v in table.values},
                "groups": [_json_group(group, table, costs_of(table.groups)) for group in table.groups],
                "notes": table.notes,
                **({"sentences": table.sentences} if table.sentences else {}),
            }
            for table in tables
        ],
        "notes": list(notes),
    }
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def _unit(value: str) -> str:
    return "share of 1" if is_share(value) else column_label(value)


def _json_group(group: Group, table: Table, costs: Sequence[str]) -> dict[str, Any]:
    values = table.values
    numbers: dict[str, float] = {}
    for value in values:
        i = group.interval(value)
        parts = {"mean": i.mean, "ci95_low": i.low, "ci95_high": i.high, "sd": i.sd}
        parts |= {"smallest_difference": smallest_difference(i)} if isinstance(group, Against) else {}
        parts |= {"n": i.n} if len(values) > 1 else {}
        numbers |= {f"{group.metric(value)}_{part}": number for part, number in parts.items()}
    numbers |= {cost: group.interval(cost).mean for cost in costs if cost not in values}
    return {
        "settings": {key: group.settings[key] for key in table.keys},
        "runs": [row["id"] for row in group.rows],
        **({"against": [row["id"] for row in group.reference.rows]} if isinstance(group, Against) else {}),
        **{key: _json_number(key, fact) if is_number(fact) else fact for key, fact in group.facts().items()},
        "n": max(group.interval(value).n for value in values),
        "diverged": group.diverged,
        **({"degenerate": len({*chain(*map(group.degenerate, values))})} if _any_degenerate(table) else {}),
        **{key: _json_number(key, number) for key, number in numbers.items()},
    }


def _json_number(key: str, number: float) -> float | int | None:
    if number != number:
        return None
    return int(number) if key in COSTS and float(number).is_integer() else number
