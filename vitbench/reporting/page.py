"""results/index.html: studies as a page that people read, in one file without anything from elsewhere.

Its templates escape what they are given (vitbench/pages/environment.py); in the Markdown of notes.md, HTML is taken as
text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from vitbench import plot
from vitbench.comparing.cells import Cell
from vitbench.comparing.formats import Table
from vitbench.fitting.render import report_foot, report_sentences
from vitbench.numbers import look
from vitbench.numbers.inline import inline_svg
from vitbench.numbers.words import printable, shown_number, shown_value
from vitbench.pages.environment import page_environment
from vitbench.reporting.section import Section

LEAD = (
    "What does a convolutional network know before it sees data, what must a Vision Transformer learn instead, and "
    "from how many images on does the difference stop mattering? Every number here is measured, on small networks and "
    "small images. Each figure links its study, which names its runs, its commands and what it cannot show. What large "
    "networks do with millions of images is not known from here."
)
RUN_COLUMNS = {
    "id": "run",
    "seed": "seed",
    "train_images": "training images",
    "test_accuracy": "test accuracy, %",
    "train_seconds": "seconds",
    "created": "created",
}


def index_page(sections: Sequence[Section]) -> str:
    """The page of all studies, below an explanation with their own figures."""
    studies = [_study(section) for section in sections]
    return _page("What a CNN knows and a ViT must learn", LEAD, studies, _chapters(studies))


def study_page(section: Section) -> str:
    """The page of one study."""
    return _page(printable(section.study.title), "", [_study(section)], [])


def _page(title: str, lead: str, studies: Sequence[dict[str, Any]], chapters: Sequence[dict[str, Any]]) -> str:
    template = _environment().get_template("page.html.j2")
    return template.render(title=title, lead=lead, studies=studies, chapters=chapters, glossary=_glossary())


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
    """Escapes a text and links each term of the glossary to its definition, where it stands first."""
    numbers = {term: number for number, term in enumerate(_glossary(), 1)}
    seen: set[str] = set()

    def link(found: re.Match[str]) -> str:
        term = found[0]
        if term in seen:
            return term
        seen.add(term)
        return f'<a class="term" href="#term-{numbers[term]}">{term}</a>'

    terms = "|".join(re.escape(term) for term in sorted(numbers, key=len, reverse=True))
    text = re.sub(rf"(?<![\w.-])(?:{terms})(?![\w.-]*\w)", link, str(escape(text)))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", text))


def _chapters(studies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chapters of the explanation, with what they show; one whose figures and pictures are in no study is left out.

    None where the studies have nothing that a chapter shows.
    """
    shown = {
        f"{study['name']}/{one['name']}": one
        | {"of": study["name"], "verdict": study["verdict"], "runs": study["runs_words"]}
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
    """A figure with other ids than where it stands in its study; a picture has none."""
    if "svg" not in shown:
        return shown
    return shown | {"svg": Markup(re.sub(r'(\bid="|href="#|url\(#)', r"\1chapter-", str(shown["svg"])))}


# ------------------------------------------------------------------------------------------------------------- studies


def _study(section: Section) -> dict[str, Any]:
    """What the template needs of a study."""
    study, fitted = section.study, section.fitted
    sentences = report_sentences(fitted) if fitted else []
    hand_written = section.hand_written.removeprefix("# What was read from it").strip()
    first_read, _, _ = hand_written.partition("\n\n")
    said = [sentence for _, of_pair in sentences for sentence in of_pair]
    if not first_read:
        said += [sentence for table in section.tables for sentence in table.sentences]
    by_hand = "Found, as we read the numbers:" if first_read else "No verdict is computed here:"
    cautions = [*section.runs_with_caveats.notes, *(report_foot(fitted) if fitted else [])]
    facts = section.facts()
    return {
        "name": study.name,
        "title": printable(study.title),
        "question": printable(study.question),
        "expect": printable(study.expect or ""),
        "verdict_by": "Found, as the numbers say:" if said else by_hand,
        "verdict": linked(said[0]) if said else _read(first_read or "the tables are the answer.", inline=True),
        "sentences": sentences,
        "tables": [_table(table, len(section.tables)) for table in section.tables],
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
        "reading": _read(hand_written) if hand_written else "",
        "cautions": [*dict.fromkeys(map(printable, cautions))],
        "cost": facts["training"],
        "runs_words": f"{facts['runs']}, {facts['seeds']}",
        "facts": [(label, printable(fact)) for label, fact in facts.items()],
        "commands": [printable(command) for command in section.all_commands()],
        "run_head": [*RUN_COLUMNS.values()],
        "runs": [
            [_run_cell(key, row.get(key)) for key in RUN_COLUMNS]
            for row in [*section.runs.rows, *section.runs.certificates]
        ],
    }


@cache
def _markdown() -> MarkdownIt:
    """Renders the Markdown of people; HTML in it is shown as text."""
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _read(text: str, inline: bool = False) -> Markup:
    """Renders what people wrote; the highest headings become those of a part of a study."""
    if inline:
        return Markup(_markdown().renderInline(text))
    headings = re.findall(r"^(#+) ", text, re.MULTILINE)
    deeper = "#" * (3 - min(map(len, headings), default=3))
    return Markup(_markdown().render(re.sub(r"^(#+) ", rf"{deeper}\1 ", text, flags=re.MULTILINE)))


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
    texts = {key: [*map(printable, getattr(table, key))] for key in ("notes", "sentences")}
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
        anchor = f"{section.study.name}.{name}"  # no name of a figure has a point, so that no two are alike
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
    return printable(shown_value(value) if key != "created" else str(value)[:10])
