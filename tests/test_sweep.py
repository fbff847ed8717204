from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, Output
from vitbench.data.loader import Loader

Cli = Callable[..., Output]

GRID = """
title: Small
runs:
  - model=vit pe=none,rope seed=0,1
"""
WORDS = [word for word in TINY if not word.startswith("eval_every")]


@pytest.fixture
def study(tmp_path: Path) -> str:
    (tmp_path / "small.yaml").write_text(GRID)
    return f"study={tmp_path / 'small.yaml'}"


def records(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "r").glob("*/record.json"))]


def test_a_sweep_does_what_is_missing_and_repeating_it_nothing(vitbench: Cli, tmp_path: Path, study: str) -> None:
    plan = vitbench("sweep", study, *WORDS, "runs=r", "dry_run=true")
    assert plan.code == 0 and plan.out.count("missing") == 4 and "4 runs, 4 to do" in plan.out
    assert not (tmp_path / "r").exists()
    first = vitbench("sweep", study, *WORDS, "runs=r")
    assert first.code == 0 and first.out == "4 of 4 runs finished\n"
    assert {(r["config"]["model"]["pe"]["name"], r["config"]["seed"]) for r in records(tmp_path)} == {
        ("none", 0), ("none", 1), ("rope", 0), ("rope", 1)}  # fmt: skip
    created = [r["created"] for r in records(tmp_path)]
    again = vitbench("sweep", study, *WORDS, "runs=r")
    assert again.code == 0 and [r["created"] for r in records(tmp_path)] == created


def test_a_run_of_a_sweep_is_the_run_of_its_single_command(vitbench: Cli, tmp_path: Path, study: str) -> None:
    vitbench("sweep", study, *WORDS, "runs=r")
    output = vitbench("train", "pe=rope", "seed=1", *WORDS, "runs=r")
    assert "nothing to do" in output.out


def test_several_processes_give_the_same_numbers_as_one(vitbench: Cli, tmp_path: Path, study: str) -> None:
    assert vitbench("sweep", study, *WORDS, "runs=r", "machine.threads=1").code == 0
    joblib = vitbench(
        "sweep", study, *WORDS, f"runs={tmp_path / 'j'}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    assert joblib.code == 0, joblib.err
    for path in (tmp_path / "r").glob("*/checkpoint.safetensors"):
        assert path.read_bytes() == (tmp_path / "j" / path.parent.name / path.name).read_bytes()


def test_one_failing_run_stops_no_other_and_is_tried_again_on_request(
    vitbench: Cli, tmp_path: Path, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Loader.batch

    def broken(self: Loader, step: int) -> Any:
        if self.seed == 1:
            raise ZeroDivisionError("ours")
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "batch", broken)
        output = vitbench("sweep", study, *WORDS, "runs=r")
    assert output.code == 1
    assert "2 of 4 runs finished" in output.out
    assert output.err.count("ZeroDivisionError: ours") >= 2 and "retry_failed=true" in output.err
    assert vitbench("sweep", study, *WORDS, "runs=r").code == 1  # not tried again unasked
    assert vitbench("sweep", study, *WORDS, "runs=r", "retry_failed=true").code == 0


def test_a_diverged_run_is_counted_not_dropped(vitbench: Cli, study: str) -> None:
    output = vitbench("sweep", study, *WORDS, "runs=r", "optim=resnet", "optim.lr=1e30")
    assert output.code == 1 and output.err.count(" diverged") >= 4


def test_data_that_cannot_be_read_fails_every_run_with_its_reason(vitbench: Cli, tmp_path: Path, study: str) -> None:
    output = vitbench("sweep", study, "data=imagefolder", f"data.root={tmp_path / 'nowhere'}", "runs=r")
    assert output.code == 1 and "nowhere" in output.err and "Traceback" not in output.err


def test_the_table_of_a_study_holds_what_its_last_sweep_asked_for(vitbench: Cli, study: str) -> None:
    """Words typed on the sweep's command line change the ids; the table still knows which runs are meant."""
    vitbench("sweep", study, *WORDS, "runs=r")
    vitbench("train", *WORDS, "seed=9", "runs=r")
    table = vitbench("table", study, "runs=r", "format=json")
    assert table.code == 0 and sum(group["n"] for group in json.loads(table.out)["tables"][0]["groups"]) == 4


@pytest.mark.parametrize("decoded_before", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_new_images_are_decoded_in_a_sweep_of_several_processes(
    vitbench: Cli, tmp_path: Path, study: str, monkeypatch: pytest.MonkeyPatch, decoded_before: bool
) -> None:
    """Joblib's worker processes cannot start processes of their own; they decode alone where the sweep did not."""
    for split in ("train", "test"):
        for label in range(2):
            folder = tmp_path / "images" / split / str(label)
            folder.mkdir(parents=True)
            for place in range(300):  # more than one job of decoding
                pixels = np.full((8, 8, 3), 100 * label + place % 50 + (split == "test"), np.uint8)
                Image.fromarray(pixels).save(folder / f"{place}.png")
    if not decoded_before:
        monkeypatch.setattr("vitbench.sweep._decode", lambda todo, show: None)
    # absolute, because joblib keeps its processes from test to test, in the folder where they were started
    folders = [f"data.root={tmp_path / 'images'}", f"data.cache={tmp_path / 'cache'}", f"runs={tmp_path / 'r'}"]
    words = ["data=imagefolder", *folders, "optim.steps=2", "optim.batch_size=8"]
    output = vitbench("sweep", study, *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert output.code == 0, output.err
