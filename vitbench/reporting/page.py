"""results/index.html: the studies as a page for people, in one file that needs nothing from elsewhere.

Its templates escape what they are given (vitbench/pages/environment.py). HTML in the Markdown of notes.md is shown as
text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from vitbench import plot
from vitbench.comparing.cells import Cell
from vitbench.comparing.formats import Table, typed_lines
from vitbench.fitting.render import report_foot, report_sentences
from vitbench.numbers import look
from vitbench.numbers.inline import inline_svg
from vitbench.numbers.words import printable, shown_number, shown_value
from vitbench.pages.environment import page_environment
from vitbench.reporting.section import Section

LEAD = (
    "What does a convolutional network (CNN) know before it sees any data? What must a Vision Transformer (ViT) learn "
    "instead? And from how many training images on does the difference stop mattering? Every number here was measured, "
    "with small networks and small images. The numbers do not tell what large networks do with millions of images. "
    "Each figure links to its study, which names its runs, its commands and what it cannot show."
)
OTHERS = "Other studies"
RUN_COLUMNS = {
    "id": "run",
    "seed": "seed",
    "train_images": "training images",
    "test_accuracy": "test accuracy, %",
    "train_seconds": "seconds",
    "created": "created",
}


def grouped(sections: Iterable[Section]) -> dict[str, list[Section]]:
    """Puts sections in order, below the titles of what their studies are about; one title alone is empty."""
    left = {section.study.name: section for section in sections}
    groups = {
        group["title"]: [left.pop(name) for name in group["studies"] if name in left]
        for group in _of_templates("groups.yaml")
    }
    filled = {title: group for title, group in (groups | {OTHERS: [*left.values()]}).items() if group}
    return filled if len(filled) > 1 else {"": next(iter(filled.values()))}


def index_page(sections: Iterable[Section]) -> str:
    """Returns the page of all studies, below an explanation with their own figures."""
    groups = {title: [_study(section) for section in group] for title, group in grouped(sections).items()}
    studies = [study for group in groups.values() for study in group]
    return _page(
        "What a CNN knows and a ViT must learn", studies, lead=LEAD, groups=groups, chapters=_chapters(studies)
    )


def study_page(section: Section) -> str:
    """Returns the page of one study."""
    return _page(printable(section.study.title), [_study(section)], lead="", groups={}, chapters=[])


def _page(title: str, studies: Sequence[dict[str, Any]], **parts: Any) -> str:
    template = _environment().get_template("page.html.j2")
    return template.render(title=title, studies=studies, glossary=_glossary(), **parts)


@cache
def _environment() -> Environment:
    environment = page_environment("reporting")
    environment.filters["linked"] = linked
    return environment


def _of_templates(name: str) -> Any:
    loader = _environment().loader
    assert loader is not None
    return yaml.safe_load(loader.get_source(_environment(), name)[0])


@cache
def _glossary() -> dict[str, str]:
    glossary: dict[str, str] = _of_templates("glossary.yaml")
    return glossary


def linked(text: str) -> Markup:
    """Escapes a text and links the first use of each term of the glossary to its definition."""
    numbers = {form: number for number, forms in enumerate(_glossary(), 1) for form in forms.split(", ")}
    seen: set[int] = set()

    def link(found: re.Match[str]) -> str:
        form, number = found[0], numbers[found[0]]
        if number in seen:
            return form
        seen.add(number)
        return f'<a class="term" href="#term-{number}">{form}</a>'

    forms = "|".join(re.escape(form) for form in sorted(numbers, key=len, reverse=True))
    text = re.sub(rf"(?<![\w.-])(?:{forms})(?![\w.-]*\w)", link, str(escape(text)))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", text))


def _chapters(studies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the chapters of the explanation, each with the figures and pictures that it shows.

    A chapter whose figures and pictures are in none of the studies is left out. If no chapter has any, there are none.
    """
    shown = {
        f"{study['name']}/{one['name']}": one
        | {"of": study["name"], "found": study["found"], "runs": study["runs_words"]}
        for study in studies
        for one in [*study["figures"], *study["pictures"]]
    }
    chapters = [
        chapter | {"shows": [_apart(shown[place]) for place in chapter.get("shows", []) if place in shown]}
        for chapter in _of_templates("chapters.yaml")
        if "shows" not in chapter or shown.keys() & {*chapter["shows"]}
    ]
    return chapters if any(chapter["shows"] for chapter in chapters) else []


def _apart(shown: dict[str, Any]) -> dict[str, Any]:
    """Gives a figure other ids than it has in its study, as an id may be on a page once. A picture has no ids."""
    if "svg" not in shown:
        return shown
    return shown | {"svg": Markup(re.sub(r'(\bid="|href="#|url\(#)', r"\1chapter-", str(shown["svg"])))}


# ------------------------------------------------------------------------------------------------------------- studies


def _study(section: Section) -> dict[str, Any]:
    """What the template needs of a study."""
    study, fitted = section.study, section.fitted
    sentences = report_sentences(fitted) if fitted else []
    above, below = section.notes_in_two
    first_read, _, rest = re.sub(r"\A#.*\n+", "", above).partition("\n\n")
    said = [sentence for _, of_pair in sentences for sentence in of_pair]
    said += [sentence for table in section.tables for sentence in table.sentences]
    verdict = (
        _read(first_read, inline=True) if first_read else linked(said[0] if said else "the tables are the answer.")
    )
    in_short = re.match(r"\*\*(.+?)\*\*", first_read, re.DOTALL)
    computed = "Found, as the numbers say:" if said else "No verdict is computed here:"
    limits = [study.notes] if study.notes else []
    limits += [note for note in (report_foot(fitted) if fitted else []) if note not in section.runs.notes]
    facts = section.facts()
    return {
        "name": study.name,
        "title": printable(study.title),
        "question": printable(study.question),
        "expect": printable(study.expect or ""),
        "verdict_by": "Found, as we read the numbers:" if first_read else computed,
        "verdict": verdict,
        "found": _read(in_short[1], inline=True) if in_short else verdict,
        "more": _read(rest) if rest else "",
        "sentences": sentences,
        "tables": [_table(table, len(section.tables)) for table in section.shown_tables],
        "figures": _figures(section),
        "pictures": [
            {
                "name": picture.name,
                "uri": picture.data_uri,
                "width": picture.width,
                "caption": picture.caption,
                "words": f"Picture {picture.name.replace('_', ' ')} of {printable(study.title)}",
            }
            for picture in section.pictures
        ],
        "held": _read(re.sub(r"\A#.*\n+", "", below)) if below else "",
        "limits": [*dict.fromkeys(map(printable, limits))],
        "small_print": section.small_print,
        "cost": facts["training"],
        "runs_words": f"{facts['runs']}, {facts['seeds']}",
        "facts": printable(", ".join(facts.values())),
        "commands": [printable(command) for command in section.all_commands()],
        "run_head": [*RUN_COLUMNS.values()],
        "runs": [
            [_run_cell(key, row.get(key)) for key in RUN_COLUMNS]
            for row in [*section.runs.rows, *section.runs.certificates]
        ],
    }


@cache
def _markdown() -> MarkdownIt:
    """Makes HTML of the Markdown that people wrote. HTML in it is shown as text."""
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _read(text: str, inline: bool = False) -> Markup:
    """Makes HTML of what people wrote. Its highest headings become as high as those of a part of a study."""
    if inline:
        return Markup(_markdown().renderInline(text))
    headings = re.findall(r"^(#+) ", text, re.MULTILINE)
    deeper = "#" * (3 - min(map(len, headings), default=3))
    read = _markdown().render(re.sub(r"^(#+) ", rf"{deeper}\1 ", text, flags=re.MULTILINE))
    read = read.replace("<table>", '<div class="wide" tabindex="0"><table>')
    return Markup(read.replace("</table>", "</table></div>"))


def _table(table: Table, count: int) -> dict[str, Any]:
    title = table.name.replace("_", " ").capitalize() if count > 1 and table.name else "Results"
    lines = [
        [
            {"text": printable(str(cell)), "exact": cell.exact, "number": cell.number}
            if isinstance(cell, Cell) and cell.number == cell.number
            else {"text": printable(cell), "exact": ""}
            for cell in line
        ]
        for line in table.lines
    ]
    head = [*map(printable, table.head)]
    said = [*typed_lines(table), *table.sentences]
    texts = {"notes": [*map(printable, table.notes)], "sentences": [*map(printable, said)]}
    return {
        "title": title,
        "caption": printable(table.caption),
        "head": head,
        "left": table.left,
        "lines": lines,
    } | texts


def _figures(section: Section) -> list[dict[str, Any]]:
    figures = []
    for name, layout in section.figure_layouts.items():
        anchor = f"{section.study.name}.{name}"  # a figure's name holds no point, so each anchor is there once
        title = printable(section.study.title)
        with look.figure_style():
            drawn = plot.build_figure(section.runs, caveat=section.study.caveat, **layout)
            words = f"Figure {name.replace('_', ' ')} of {title}. The tables below have its numbers."
            svg = Markup(inline_svg(drawn, anchor, words))
        figures.append({"name": name, "anchor": anchor, "svg": svg})
    return figures


def _run_cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key == "test_accuracy":
        return shown_number(key, value, 2)
    if key == "train_seconds":
        return f"{value:,.0f}"
    if key == "train_images":
        return f"{value:,}"
    return printable(shown_value(value) if key != "created" else str(value)[:10])
