"""Every sentence that docs/explanation/verdicts.md shows is printed by the command above it, to the digit."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.docs.test_tutorials import ROOT, blocks

PAGE = ROOT / "docs" / "explanation" / "verdicts.md"


@pytest.mark.slow
def test_the_examples_of_verdicts_are_printed(vitbench: Cli, tmp_path: Path) -> None:
    printed, found = "", 0
    for block in blocks(PAGE):
        if block.kind == "python":
            (tmp_path / "tables.py").write_text(block.body, encoding="utf-8")
        elif block.body == "python tables.py\n":
            subprocess.run([sys.executable, "tables.py"], cwd=tmp_path, check=True)
        elif block.kind == "bash":
            output = vitbench(*shlex.split(block.body)[1:])
            assert output.code == 0, output.err
            printed = output.out
        else:
            for line in block.body.splitlines():
                assert line in printed.splitlines(), printed
                found += 1
    assert found > 10
