"""Prints the lists of `doctor` and `clean`: parts with a line for each thing and sentences below; coloured in a
terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vitbench.machine.terminal import beneath, escaped
from vitbench.numbers.text import say, speakable
from vitbench.numbers.words import printable

WIDTH = 120  # the width of text that is not printed to a terminal
NAME = 26  # in a terminal, a name is wrapped after so many letters


class Line(NamedTuple):
    mark: str  # good, look or wrong; or a size
    name: str  # where it is empty in all lines, there is no column for it
    found: str
    below: Sequence[str] = ()  # sentences below the line


Lines = Mapping[str, Sequence[Line]]  # by the name of their part


def print_lines(lines: Lines, head: Sequence[str], foot: str, styles: Mapping[str, str] | None = None) -> None:
    """Prints a table that is as wide as the terminal or, elsewhere, plain text. `styles` has the colours of marks."""
    if not (sys.stdout.isatty() and _print_rich(lines, head, foot, styles or {})):
        say(as_text(lines, foot))


def as_text(lines: Lines, foot: str) -> str:
    """Writes the lines under the name of each part. Text that is too wide for its column is wrapped."""
    every = [line for part in lines.values() for line in part]
    marks, names = (max((len(line[column]) for line in every), default=0) for column in (0, 1))
    begins = [f"{line.mark:<{marks}}  " + (f"{line.name:<{names}}  " if names else "") for line in every]
    indent = " " * len(begins[0]) if begins else ""
    beginning = iter(begins)
    text: list[str] = []
    for part, its in lines.items():
        text += ["", part] if text else [part]
        for line in its:
            text += _wrapped(line.found, next(beginning), indent)
            text += [each for words in line.below for each in _wrapped(words, indent, indent)]
    return "".join(f"{line.rstrip()}\n" for line in [*text, *([""] if text else []), *_wrapped(foot, "", "")])


def _wrapped(words: str, begin: str, indent: str) -> list[str]:
    wrapper = textwrap.TextWrapper(WIDTH, begin, indent, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(printable(words)) or [begin]


def _print_rich(lines: Lines, head: Sequence[str], foot: str, styles: Mapping[str, str]) -> bool:
    """Prints a table as wide as the terminal; False where rich cannot be imported."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False

    def safe(words: str, style: str = "") -> Text:
        return Text(escaped(speakable(printable(words))), style)  # a str would have its brackets read as markup

    console = Console(file=beneath(sys.stdout), highlight=False)
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    grid.add_column(head[0], no_wrap=True)
    if named := any(line.name for its in lines.values() for line in its):
        grid.add_column(head[1], overflow="fold", max_width=NAME)
    grid.add_column(head[2], overflow="fold")
    for part, its in lines.items():
        grid.add_row("", safe(part, "bold"))
        for line in its:
            cell = Text("\n").join([safe(line.found), *(safe(words, "italic") for words in line.below)])
            grid.add_row(safe(line.mark, styles.get(line.mark, "")), *([safe(line.name)] if named else []), cell)
        grid.add_section()
    if lines:
        console.print(grid)
    console.print(safe(foot))
    return True
