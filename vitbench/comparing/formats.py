"""A table as text, in a terminal, as Markdown, LaTeX, CSV or JSON. Names come from folders and files of anyone: in each
format they stay text, whatever characters they hold.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitbench.comparing.differences import Against
from vitbench.comparing.grouping import Group
from vitbench.numbers.text import align, speakable
from vitbench.numbers.words import column_label, is_share, shown_value
from vitbench.runs.record import total_seconds

COSTS = ("train_images", "parameters", "multiply_adds", "train_seconds", "images_per_second")
TOTAL = "total_train_seconds"  # with what the runs began from
TABLE_ENDINGS = {".txt": "text", ".md": "md", ".csv": "csv", ".tex": "tex", ".json": "json"}


@dataclass(frozen=True)
class Table:
    """What people read (head, lines, notes) and the groups that machines read."""

    name: str
    caption: str
    head: list[str]
    lines: list[list[str]]
    left: int  # columns of words, which come first; the others are numbers
    notes: list[str]
    groups: list[Group]
    keys: list[str]
    values: list[str]  # the results it shows


def costs_of(groups: Sequence[Group]) -> list[str]:
    """COSTS, and the total where a run began from another; none where the numbers are differences."""
    if any(isinstance(group, Against) for group in groups):
        return []
    rows = [row for group in groups for row in group.rows]
    more = any(total_seconds(row, row) != row.get("train_seconds") for row in rows)
    return [name for cost in COSTS for name in ((cost, TOTAL) if more and cost == "train_seconds" else (cost,))]


def render_tables(form: str, tables: Sequence[Table], heading: str, notes: Sequence[str]) -> str:
    """The whole text in one of the formats; CSV holds one table and no words around it."""
    if form == "csv":
        return _csv(tables[0])
    if form == "json":
        return _json(tables, heading, notes)
    return {"text": _text, "md": _markdown, "tex": _latex}[form](tables, heading, notes)


def _text(tables: Sequence[Table], heading: str, notes: Sequence[str]) -> str:
    parts = [heading] if heading else []
    for table in tables:
        grid = align([table.head, *table.lines], table.left)
        ruler = "-" * max(map(len, grid))
        parts.append("\n".join([table.caption, "", grid[0], ruler, *grid[1:], *(f"! {note}" for note in table.notes)]))
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts) + "\n"


def print_rich(tables: Sequence[Table], heading: str, notes: Sequence[str]) -> None:
    """For a terminal: as wide as it is; what is too long goes on in the next line instead of being cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    def safe(text: str, style: str = "") -> Text:  # Text: what is in brackets is no markup
        return Text(speakable(text), style)

    console = Console(highlight=False)
    if heading:
        console.print(safe(heading, "bold"))
    for table in tables:
        console.print(safe(table.caption, "bold"))
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        widths = _widths(table, console.width - 2 * (len(table.head) - 1)) or [None] * len(table.head)
        for i, (head, width) in enumerate(zip(table.head, widths, strict=True)):
            grid.add_column(safe(head), justify="left" if i < table.left else "right", overflow="fold", width=width)
        for line in table.lines:
            grid.add_row(*map(safe, line))
        console.print(grid)
        for note in table.notes:
            console.print(safe(f"! {note}", "bold red" if note.startswith("WRONG") else "yellow"))
    for note in notes:
        console.print(safe(note))


def _widths(table: Table, room: int) -> Sequence[int | None] | None:
    """Columns as wide as their numbers, and their heads as far as there is room; None where even numbers must fold."""
    widths = [max(map(len, cells)) for cells in zip(*table.lines, strict=True)]
    room -= sum(widths)
    if room < 0:
        return None
    for wanted in ([max(map(len, head.split())) for head in table.head], [len(head) for head in table.head]):
        for i, width in sorted(enumerate(wanted), key=lambda head: head[1] - widths[head[0]]):
            more = min(max(width - widths[i], 0), room)
            widths[i] += more
            room -= more
    return widths


def _markdown(tables: Sequence[Table], heading: str, notes: Sequence[str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(escape_markdown, cells))} |"

    parts = [escape_markdown(heading)] if heading else []
    for table in tables:
        ruler = "|".join(":--" if i < table.left else "--:" for i in range(len(table.head)))
        parts.append(escape_markdown(table.caption))
        parts.append("\n".join([line(table.head), f"|{ruler}|", *map(line, table.lines)]))
        parts.extend(f"**{escape_markdown(note)}**" for note in table.notes)
    return "\n\n".join([*parts, *map(escape_markdown, notes)]) + "\n"


def escape_markdown(text: str) -> str:
    """Text that stays text in Markdown, in HTML inside of it, and in a table's cell."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#$~" else c for c in text)


def _latex(tables: Sequence[Table], heading: str, notes: Sequence[str]) -> str:
    """A float for \\input{...}; what a reader must know is in its caption."""
    parts = ["% \\usepackage{booktabs}"]
    for table in tables:
        words = [
            escape_latex(word) + ("" if word[-1] in ".?!" else ".")
            for word in [heading, table.caption, *table.notes, *notes]
            if word
        ]
        body = [" & ".join(map(escape_latex, cells)) + r" \\" for cells in [table.head, *table.lines]]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{' '.join(words)}}}",
                    rf"\begin{{tabular}}{{{'l' * table.left}{'r' * (len(table.head) - table.left)}}}",
                    r"\toprule",
                    body[0],
                    r"\midrule",
                    *body[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "[": "{[}",
    "]": "{]}",
    "`": "{`}",
    **{c: f"\\{c}" for c in "{}$&#_%"},
}


def escape_latex(text: str) -> str:
    """Text that stays text in LaTeX; a bracket after a line's end would be read as its optional argument."""
    return "".join(LATEX.get(c, c) for c in text)


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    costs = costs_of(table.groups)
    writer.writerow([*table.keys, "metric", "mean", "ci95_low", "ci95_high", "sd", "n", "diverged", *costs])
    for group in table.groups:
        for value in table.values:
            i = group.interval(value)
            cells = [
                *(group.settings[key] for key in table.keys),
                _metric(group, value),
                i.mean,
                i.low,
                i.high,
                i.sd,
                i.n,
                group.diverged,
                *(group.interval(cost).mean for cost in costs),
            ]
            writer.writerow([escape_csv(cell) for cell in cells])
    return out.getvalue()


def escape_csv(cell: Any) -> Any:
    """Nothing for what is not there; words that a spreadsheet would take for a formula get an apostrophe in front."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return int(cell) if cell == int(cell) else cell
    text = shown_value(cell)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _metric(group: Group, value: str) -> str:
    return f"{value}_difference" if isinstance(group, Against) else value


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
        i, metric = group.interval(value), _metric(group, value)
        numbers |= {
            f"{metric}_mean": i.mean,
            f"{metric}_ci95_low": i.low,
            f"{metric}_ci95_high": i.high,
            f"{metric}_sd": i.sd,
        }
        numbers |= {f"{metric}_n": i.n} if len(values) > 1 else {}
    numbers |= {cost: group.interval(cost).mean for cost in costs if cost not in values}
    return {
        "settings": {key: group.settings[key] for key in table.keys},
        "runs": [row["id"] for row in group.rows],
        **({"against": [row["id"] for row in group.reference.rows]} if isinstance(group, Against) else {}),
        "n": max(group.interval(value).n for value in values),
        "diverged": group.diverged,
        **{key: _json_number(key, number) for key, number in numbers.items()},
    }


def _json_number(key: str, number: float) -> float | int | None:
    if number != number:
        return None
    return int(number) if key in (*COSTS, TOTAL) and float(number).is_integer() else number
