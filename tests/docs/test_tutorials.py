"""Each tutorial is followed as a reader would: its files are saved, and its commands run in order in an empty folder.

A page is plain Markdown with four kinds of fenced blocks:
- `bash` holds commands, which must end with exit code 0. A line before it, `<!-- in the test: optim.steps=30 -->`, has
  words that are added to its `vitbench` commands here, so that a test takes less time than the reader needs.
- `python` and `yaml` hold a file, whose path is in the first line: `# experiments/my_study.yaml`. Later blocks with the
  same path replace it.
- `text` holds what the commands before it printed. Every line without a digit must be printed here, too. Lines with
  digits may differ, since times and short runs do; `...` stands for lines that the page leaves out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted({*(ROOT / "docs" / "tutorials").glob("*.md")} - {ROOT / "docs" / "tutorials" / "index.md"})
BLOCK = re.compile(
    r"(?:<!-- in the test: (?P<added>[^>]*) -->\n\n?)?^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.M | re.S
)
MADE = re.compile(r"<!-- the test finds: ([^>]*) -->")


class Block(NamedTuple):
    kind: str  # bash, text, python or yaml
    body: str
    added: str  # words that make its commands smaller in the test


def blocks(page: Path) -> Iterator[Block]:
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield Block(found["kind"], found["body"], found["added"] or "")


def with_words(line: str, added: str) -> str:
    """A command with added words, which take the place of those of the same settings."""
    if not added or not line.startswith("vitbench"):
        return line
    keys = {word.partition("=")[0] for word in added.split()}
    return " ".join([*(word for word in line.split() if word.partition("=")[0] not in keys), added])


def words(line: str) -> str:
    """A line without the width of its columns and without the lines of its table."""
    return " ".join(re.sub(r"[│┃─━┏┓┗┛┳┻┡┩┴┬╇└┘┌┐├┤┼╞╡|+:-]", " ", line).split())


def shell(command: str, folder: Path) -> str:
    """What a command printed; it must end with exit code 0."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    function = f'vitbench() {{ "{sys.executable}" -m vitbench "$@"; }}; python() {{ "{sys.executable}" "$@"; }}'
    done = subprocess.run(
        ["bash", "-euc", f"{function}\n{command}"],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def follow(page: Path, folder: Path) -> None:
    """Does what a page says, in a folder."""
    printed = ""
    for block in blocks(page):
        if block.kind in ("python", "yaml"):
            path = folder / block.body.splitlines()[0].removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
        elif block.kind == "bash":
            commands = block.body.replace("\\\n", " ").splitlines()
            printed = shell("\n".join(with_words(line, block.added) for line in commands), folder)
        elif block.kind == "text":
            here = {words(line) for line in printed.splitlines()}
            for line in block.body.splitlines():
                said = words(line)
                if re.search("[a-z]", said) and not re.search(r"\d", said) and "..." not in said:
                    assert said in here, f"{page.name}: {line!r} was not printed, but this was:\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_names_the_files_that_it_makes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert MADE.search(text) and any(block.kind == "bash" for block in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_can_be_followed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    follow(page, folder)
    for pattern in " ".join(MADE.findall(page.read_text(encoding="utf-8"))).split():
        assert any(path.stat().st_size for path in folder.glob(pattern)), f"{page.name}: no {pattern}"
