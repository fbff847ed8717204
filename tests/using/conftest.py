"""One tiny trained run for the tests of this room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import TINY
from vitbench import cli


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with rearranged places."""
    runs, argv = tmp_path_factory.mktemp("using") / "runs", sys.argv
    words = [*TINY, "pe=rope", "data.permute=tiles", f"runs={runs}"]
    assert cli.run(["train", *words]) == 0
    sys.argv = argv
    (folder,) = runs.iterdir()
    return folder
