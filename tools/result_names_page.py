"""Writes docs/reference/result-names.md: what each result is called where it is typed, and what people are shown.

    python tools/result_names_page.py

A test compares the page with what this makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tools.records_page import table_of
from vitbench.numbers import result_names
from vitbench.numbers.result_names import RUNS, columns_of_probes, name_of, probe_of
from vitbench.numbers.words import OF_A_CLASS, column_head, column_words
from vitbench.probes.menu import MENU as PROBES

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
PAGE, METRICS = REFERENCE / "result-names.md", REFERENCE / "metrics.md"
HEAD = """\
# What results are called

<!-- Made by `python tools/result_names_page.py` from vitbench/numbers/result_names.py. Change that. -->

Each result has one name that is typed, in `value=`, `y=` and `matched=`, and that CSV and JSON files use. People are
shown two other names: a long one on the axes of figures and in the captions of tables, and a short one in the heads of
tables. The last column of the tables below links to the definition. A share, such as "share of images", is a number
from 0 to 1. In "0 is ..." and "1 is ..." the unit says what such a value means.

A result of the network before training begins with `init.`, as in `init.shift.crop.consistency`. Its long name ends in
"(before training)", and its short name begins with "untrained:". A result of a layer, or of a level such as the size of
a shift, is called as that of the whole network; figures have the layers or levels along their x axis.

The names use a few words in one sense each:"""
HEADINGS = ("typed", "long name", "short name", "unit", "definition")


def page() -> str:
    """The text of docs/reference/result-names.md."""
    of_probes: dict[str, list[str]] = {probe: [] for probe in PROBES}
    for column in columns_of_probes():
        probe, _ = probe_of(column) or ("", "")
        of_probes[probe].append(column)
    parts = [
        HEAD,
        table_of(("word", "meaning"), _words()),
        "## Results of runs",
        table_of(HEADINGS, map(_of_run, RUNS)),
    ]
    for probe, columns in of_probes.items():
        parts += [f"## `probe={probe}`", table_of(HEADINGS, (_line(column, _definition(probe)) for column in columns))]
        if probe == "cka":
            parts.append("`other` stands for what `probe.cka.other=` calls the other network, such as `cnn`.")
    return "\n\n".join(parts) + "\n"


def _words() -> Iterator[list[str]]:
    """The words that the docstring of the names defines."""
    for line in (result_names.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    (\S.*?)  +(\S.*)", line):
            yield [match[1], match[2]]


def _of_run(column: str) -> list[str]:
    section = "Classes" if column in OF_A_CLASS else "Tables and intervals"
    text = sections()[section]
    is_there = f"`{column}`" in text or column.replace("_", " ") in text
    return _line(column, f"[{section.lower()}](metrics.md#{anchor(section)})" if is_there else "[records](records.md)")


def _line(column: str, definition: str) -> list[str]:
    name = name_of(column)
    assert name is not None
    return [f"`{column}`", column_words(column), column_head(column), name.unit, definition]


def _definition(probe: str) -> str:
    named = re.compile(rf"\*\*{probe}\*\*|`{probe}(\.<kind>|\.hybrid)?@v1`")
    section = next(title for title, text in sections().items() if named.search(text))
    return f"[{section.lower()}](metrics.md#{anchor(section)})"


@cache
def sections() -> dict[str, str]:
    """The sections of docs/reference/metrics.md by their titles."""
    parts = re.split(r"^## (.*)$", METRICS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchor(title: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE)
