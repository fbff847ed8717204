"""Runs with each encoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TINY, Output
from tests.training.test_train import assert_same_run, cut_run, folder
from vitbench.pe.menu import MENU

Cli = Callable[..., Output]


@pytest.mark.slow
@pytest.mark.parametrize("pe", MENU)
def test_a_run_cut_off_ends_like_one_that_was_not(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pe: str
) -> None:
    words = ["model=vit", "model.width=16", "model.depth=2", "model.heads=2", f"pe={pe}"]
    assert vitbench("train", *TINY, *words, "runs=whole").code == 0
    cut_run(vitbench, monkeypatch, *words, "runs=cut", stop=3)
    assert vitbench("train", *TINY, *words, "runs=cut").code == 0
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "cut"))
