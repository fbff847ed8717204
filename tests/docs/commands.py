"""Finds the commands that documents and help pages show, so that tests can try them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vitbench import cli, ls
from vitbench.settings.compose import CONF_DIR, read_yaml

ROOT = Path(__file__).parents[2]
OPERATORS = {"|", "||", "&&", "&", ";", ">", ">>", "2>", "<", ">&-", "2>&1"}


class Shown(NamedTuple):
    """A command as a document shows it."""

    place: str  # README.md:12
    words: tuple[str, ...]  # those behind `vitbench`

    def __str__(self) -> str:
        return f"{self.place}: vitbench {' '.join(self.words)}"


def shown_commands() -> list[Shown]:
    """Every command of the documents, of the notes of results and of help pages."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    pages += sorted((ROOT / "results").glob("*/notes.md"))
    found = []
    for page in pages:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        found += [*in_code(name, text), *in_sentences(name, text)]
    for path in sorted(CONF_DIR.glob("*.yaml")):
        header = read_yaml(path).get("hydra", {}).get("help", {}).get("header", "")
        found += in_code(f"conf/{path.name}", header)
    return [*found, *in_code("vitbench --help", cli.HELP), *in_sentences("vitbench ls --help", str(ls.__doc__))]


def in_code(name: str, text: str) -> Iterator[Shown]:
    """Yields the commands of indented and fenced code; a line that ends with a backslash goes on in the next one."""
    in_fence, begun = False, ""
    for number, line in enumerate(text.splitlines(), start=1):
        in_fence ^= line.lstrip().startswith("```")
        if not (in_fence or line.startswith(" ") or begun):
            continue
        begun += (line.lstrip() if begun else line).removesuffix("\\")
        if line.endswith("\\"):
            begun = begun.rstrip() + " "
            continue
        whole, begun = begun, ""
        if command := re.match(r"\s*(?:\$ )?(?:[^#`|]* )??vitbench (?=[a-z-])(.*)", whole):
            typed = re.split(r" {2,}| # ", command[1])[0]  # words behind it are said of it
            yield Shown(f"{name}:{number}", _words(typed))


def in_sentences(name: str, text: str) -> Iterator[Shown]:
    """Yields the commands that stand between backticks; such a command can go on in the next line."""
    for command in re.finditer(r"(?<!`)`vitbench ([^`]+)`(?!`)", text):
        number = text.count("\n", 0, command.start()) + 1
        yield Shown(f"{name}:{number}", _words(" ".join(command[1].split())))


def _words(typed: str) -> tuple[str, ...]:
    """The words of a command up to the first operator of the shell."""
    words = shlex.split(re.sub(r";(?=\s|$)", " ;", typed))
    end = next((place for place, word in enumerate(words) if word in OPERATORS), len(words))
    return tuple(words[:end])
