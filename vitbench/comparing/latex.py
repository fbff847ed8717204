r"""A table as LaTeX for \input{...}: it compiles in any document, whatever its cells hold, and fits on the page.

A page is that of \documentclass{article}. LaTeX makes a table smaller that is somewhat wider than the text; a much
wider one stands sideways, and one that is taller than a page goes on on the next.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby

TEXT_WIDTH, TEXT_HEIGHT = 345, 550  # points
LETTER, GAP, LINE = 4.6, 8, 11  # points: a letter of \small, the space between two columns, the height of a line
LEAST_SCALE = 0.8  # a table stands sideways that would become smaller than this share of its size
LONG_SIZES = {r"\small": 1, r"\footnotesize": 0.94, r"\scriptsize": 0.9}  # of the letters of a table of several pages
WORDS_WIDTH = 30  # letters in a line of a cell; more words go on in the next line
PACKAGES = {  # the packages, and by what one sees that a table needs them
    "booktabs": r"\toprule",
    "graphicx": r"\resizebox",
    "rotating": "{sidewaystable}",
    "longtable": "{longtable}",
    "pdflscape": "{landscape}",
}
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",  # which is a command where babel speaks German
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "≠": r"$\ne$",
    "\u2212": r"$-$",
    "∞": r"$\infty$",
    **{c: f"{{{c}}}" for c in "[]*`"},  # a \\ before it would take a bracket or a star for its argument
    **{c: f"\\{c}" for c in "{}$&#_%"},
}
# pdfLaTeX prints these as they are, without a package or another encoding of fonts: Latin letters, and some signs
KNOWN = {chr(code) for code in (*range(0x20, 0x7F), *range(0xA1, 0x180))} - {*"«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ"}
SHOWN = {letter: letter for letter in KNOWN.union("\u2013\u2014\u2018\u2019“”…→←•€™")} | SPECIAL | {"\0": "{}"}


def escape_latex(text: str) -> str:
    """Escapes text so that LaTeX shows it as it is.

    Only XeLaTeX and LuaLaTeX can print letters that are not Latin; pdfLaTeX prints their code.
    """
    text = re.sub(r"([-',])(?=\1)", "\\1\0", text)  # LaTeX would make another sign of two of these
    groups = groupby(text, lambda letter: letter in SHOWN)
    return "".join(
        "".join(map(SHOWN.__getitem__, letters)) if shown else _rare([*letters]) for shown, letters in groups
    )


def _rare(letters: Sequence[str]) -> str:
    codes = f"{{[}}{' '.join(f'U+{ord(letter):04X}' for letter in letters)}{{]}}"
    return rf"\ifdefined\Umathchar {''.join(letters)}\else {codes}\fi{{}}" if "".join(letters).isprintable() else codes


def latex_words(sentences: Iterable[str]) -> str:
    """Joins sentences, each with its full stop; a word that is too long for a line may break anywhere."""
    ended = [f"{sentence}{'' if sentence[-1] in '.?!' else '.'}" for sentence in sentences if sentence]
    words = " ".join(ended).split(" ")
    return " ".join(r"\allowbreak{}".join(map(escape_latex, _cell_lines(word))) for word in words)


def latex_list(sentences: Sequence[str]) -> list[str]:
    """Writes sentences as a list below a table, because a caption is no place for them; no list of none."""
    items = [rf"\item {latex_words([sentence])}" for sentence in sentences]
    return ["\n".join([r"\begin{itemize}\sloppy", *items, r"\end{itemize}"])] if items else []


def latex_file(parts: Sequence[str], comment: str = "") -> str:
    """Puts tables and lists below a line that says which packages they need, and a line of comment."""
    text = "\n\n".join(parts)
    packages = ",".join(package for package, used in PACKAGES.items() if used in text)
    said = f"% {' '.join(comment.split())}\n" if comment else ""
    return f"% \\usepackage{{{packages}}}\n{said}\n{text}\n"


def latex_label(*names: str) -> str:
    r"""Makes what \ref{} is given: tab:data-scaling-accuracy."""
    words = [word for name in names for word in re.findall("[A-Za-z0-9]+", name)]
    return f"tab:{'-'.join(words) or 'results'}"


def fits_upright(head: Sequence[str], lines: Sequence[Sequence[str]]) -> bool:
    """Whether a table is as narrow as the text of a page."""
    return _wrapped(head, lines)[2] <= TEXT_WIDTH


Wrapped = list[list[str]]  # the lines of text in each cell of a row


def _wrapped(head: Sequence[str], lines: Sequence[Sequence[str]]) -> tuple[Wrapped, list[Wrapped], float]:
    """Breaks cells that are long into lines; returns the head, the rows, and how many points wide they are."""
    columns = [*zip(*lines, strict=True)] or [()] * len(head)
    widest = [max(map(len, cells), default=0) for cells in columns]
    wrapped_head = [_head_lines(word, width) for word, width in zip(head, widest, strict=True)]
    wrapped_lines = [[_cell_lines(cell) for cell in line] for line in lines]
    letters = [
        max(_length(text) for cell in cells for text in cell)
        for cells in zip(wrapped_head, *wrapped_lines, strict=True)
    ]
    return wrapped_head, wrapped_lines, LETTER * sum(letters) + GAP * len(head)


def latex_table(
    head: Sequence[str], lines: Sequence[Sequence[str]], left: int, caption: str, notes: str, label: str = ""
) -> str:
    """Writes a table whose first `left` columns hold words; caption and notes are LaTeX already."""
    wrapped_head, wrapped_lines, width = _wrapped(head, lines)
    height = LINE * sum(max(map(len, cells)) for cells in [wrapped_head, *wrapped_lines]) + LINE
    is_sideways = width * LEAST_SCALE > TEXT_WIDTH
    room = (TEXT_HEIGHT, TEXT_WIDTH) if is_sideways else (TEXT_WIDTH, TEXT_HEIGHT)
    words_height = LINE * (2 + math.ceil(5 * len(caption) / room[0]) + math.ceil(4 * len(notes) / room[0]))

    caption = rf"\caption{{{caption}}}" + (rf"\label{{{label}}}" if label else "")
    alignments = "l" * left + "r" * (len(head) - left)
    spec = f"@{{}}{alignments}@{{}}"
    first = _row(wrapped_head, alignments, "b", len(head))
    rows = [_row(line, alignments, "t", left) for line in wrapped_lines]
    if height * min(1, room[0] / width) + words_height > 0.9 * room[1]:
        return _long(spec, first, rows, caption, notes, width)
    environment = "sidewaystable" if is_sideways else "table"
    return "\n".join(
        [
            rf"\begin{{{environment}}}",
            r"\centering\small\setlength{\tabcolsep}{4pt}\setlength{\emergencystretch}{3em}",
            rf"{caption}\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{spec}}}",
            *[r"\toprule", first, r"\midrule", *rows, r"\bottomrule"],
            r"\end{tabular}}",
            *([rf"\par\smallskip{{\raggedright\footnotesize {notes}\par}}"] if notes else []),
            rf"\end{{{environment}}}",
        ]
    )


def _long(spec: str, first: str, rows: Sequence[str], caption: str, notes: str, width: float) -> str:
    """Writes a table that goes on on the next page, in the largest letters that fit there, or on sheets that lie.

    The caption is its whole command.
    """
    is_lying = width * LONG_SIZES[r"\scriptsize"] > TEXT_WIDTH
    room = TEXT_HEIGHT if is_lying else TEXT_WIDTH
    size = next((size for size, scale in LONG_SIZES.items() if width * scale <= room), r"\tiny")
    head = [r"\toprule", first, r"\midrule"]
    return "\n".join(
        [
            *([r"\begin{landscape}"] if is_lying else []),
            rf"{{{size}\setlength{{\tabcolsep}}{{4pt}}\setlength{{\emergencystretch}}{{3em}}",
            r"\setlength{\LTcapwidth}{\linewidth}",
            rf"\begin{{longtable}}{{{spec}}}",
            rf"{caption}\\[4pt]",
            *[*head, r"\endfirsthead", *head, r"\endhead", r"\bottomrule", r"\endfoot", *rows],
            r"\end{longtable}",
            *([rf"{{\raggedright\footnotesize\noindent {notes}\par}}"] if notes else []),
            "}",
            *([r"\end{landscape}"] if is_lying else []),
        ]
    )


def _row(cells: Sequence[Sequence[str]], alignments: str, place: str, words: int) -> str:
    """Writes a row of so many cells of words, and cells of numbers; one of several lines is a table within it."""
    written = []
    for i, (lines, alignment) in enumerate(zip(cells, alignments, strict=True)):
        cell = r"\\".join(_number(line) if i >= words else escape_latex(line) for line in lines)
        stacked = rf"\begin{{tabular}}[{place}]{{@{{}}{alignment}@{{}}}}{cell}\end{{tabular}}"
        written.append(stacked if len(lines) > 1 else cell)
    return " & ".join(written) + r" \\"


def _number(text: str) -> str:
    """Escapes what a number column holds, with the signs of print: a minus, and a dash between the ends of a range."""
    escaped = escape_latex(text)
    if not re.match(r"[-+<>\[ ]*\d", text):
        return "--" if text == "-" else escaped
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", re.sub(r"(?<=\d)-(?=\d)", "--", escaped))


def _length(text: str) -> int:
    """Counts letters, where pdfLaTeX may have to show one by its code."""
    return sum(1 if letter in SHOWN else len(" U+1F600") for letter in text)


def _head_lines(text: str, width: int) -> list[str]:
    """Breaks a head that is wider than its cells after spaces, and after a point or `=` in the name of a setting."""
    parts = re.split(r"(?<= )|(?<=[^\W\d][.=])(?=\w)", text)
    width = max(width, 2 + max(map(len, parts)))
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [piece for line in lines for piece in _cell_lines(line)]


def _cell_lines(text: str) -> list[str]:
    width = WORDS_WIDTH if _length(text) == len(text) else WORDS_WIDTH // 4
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
