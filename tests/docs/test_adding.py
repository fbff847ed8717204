"""What the pages `add-*.md` add works: their code is put into a copy of the source, and their commands run there."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_tutorials import ROOT, blocks

PAGES = sorted((ROOT / "docs" / "how-to").glob("add-*.md"))


def add(copy: Path, body: str) -> None:
    """Writes the file that a block holds, or puts its lines at the beginning of a menu, or at the end of a list."""
    first, rest = body.split("\n", 1)
    place = first.removeprefix("# ")
    if not place.startswith("in "):
        path = copy / place
        assert not path.exists(), path
        path.write_text(rest, encoding="utf-8")
        return
    path = copy / place.removeprefix("in ")
    text = path.read_text(encoding="utf-8")
    start = "MENU: dict[str, Choice] = {\n"
    assert path.suffix == ".yaml" or text.count(start) == 1
    changed = text + rest if path.suffix == ".yaml" else text.replace(start, start + rest)
    path.write_text(changed, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_adds_can_be_chosen(page: Path, tmp_path: Path) -> None:
    copy, folder = tmp_path / "copy", tmp_path / "work"
    for room in ("vitbench", "conf", "experiments", "hydra_plugins"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    folder.mkdir()
    commands = 0
    environment = {**os.environ, "PYTHONPATH": str(copy), "VITBENCH_CACHE": str(tmp_path / "cache")}
    for block in blocks(page):
        if block.kind in ("python", "yaml"):
            add(copy, block.body)
            continue
        assert block.kind == "bash"
        for line in block.body.splitlines():
            command = [sys.executable, "-m", *shlex.split(line)]
            done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            commands += 1
    assert commands
