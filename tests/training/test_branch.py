"""A branch of a run equals, to the bit, a run that was begun from scratch with the branch's decay and length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY, Output
from tests.training.test_train import cut_run, folder, record, without_times
from vitbench.runs.run import Run
from vitbench.training import checkpoint

Cli = Callable[..., Output]

BASE = [word for word in TINY if not word.startswith(("optim.steps", "eval_every"))]
WSD = [*BASE, "optim.schedule=wsd", "optim.warmup_steps=2"]
TRUNK = [*WSD, "optim.steps=12", "optim.decay=0.25", "keep=[4,6,11]", "eval_every=4", "runs=trunk"]  # falls from step 9
LONGER = [*WSD, "optim.steps=14", "optim.decay=0.5", "eval_every=7"]  # falls from step 7
KINDS = {
    "vit": ["model=vit", "model.width=16", "model.depth=2", "model.heads=2", "model.drop_path=0.2", "optim.ema=0.9"],
    "resnet": ["model=resnet", "model.base_width=4", "augment=light"],
}


def trunk_of(vitbench: Cli, tmp_path: Path, *words: str) -> Path:
    assert vitbench("train", *TRUNK, *words).code == 0
    return folder(tmp_path / "trunk")


def assert_branch_equals(branch: Path, scratch: Path, step: int) -> None:
    tensors, its_tensors = (checkpoint.load_tensors(path / "checkpoint.safetensors")[0] for path in (branch, scratch))
    assert tensors.keys() == its_tensors.keys()
    assert all(torch.equal(tensors[name], its_tensors[name]) for name in tensors)
    assert (branch / "predictions.npy").read_bytes() == (scratch / "predictions.npy").read_bytes()
    lines, its_lines = (without_times(path / "metrics.csv") for path in (branch, scratch))
    assert lines == [line for line in its_lines if int(line["step"]) > step] != []
    results, its = (json.loads((path / "record.json").read_text()) for path in (branch, scratch))
    same = ("status", "steps", "train_images", "total_samples_seen", "total_multiply_adds", "warnings")
    for key in [*same, *(key for key in its if key.startswith(("test_", "val_", "train_eval_", "train_loss")))]:
        assert results[key] == its[key], key


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_equals_the_run_that_was_begun_with_its_decay(vitbench: Cli, tmp_path: Path, kind: str) -> None:
    trunk = trunk_of(vitbench, tmp_path, *KINDS[kind])
    words = [*LONGER, *KINDS[kind]]
    output = vitbench("train", *words, "runs=trunk", f"init={trunk.name}", "checkpoint=6")
    assert output.code == 0, output.err
    assert vitbench("train", *words, "runs=scratch").code == 0
    (branch,) = (path for path in (tmp_path / "trunk").iterdir() if path != trunk)
    assert_branch_equals(branch, folder(tmp_path / "scratch"), 6)
    about = json.loads((branch / "record.json").read_text())
    assert (about["init"]["source"], about["init"]["name"]) == ("branch", trunk.name)
    assert about["init"]["kept_parameters"] == about["parameters"] and about["total_samples_seen"] == 14 * 16
    before = checkpoint.load_tensors(trunk / "state.6.safetensors")[1]["train_seconds"]
    assert 0 < before < about["train_seconds"] == about["total_train_seconds"]


def test_a_branch_cut_off_and_a_branch_of_a_branch_end_like_the_others(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = trunk_of(vitbench, tmp_path, *KINDS["vit"])
    words = [*LONGER, *KINDS["vit"]]
    begins = ["runs=trunk", f"init={trunk.name}", "checkpoint=6", "keep=[7]"]
    cut_run(vitbench, monkeypatch, *begins, stop=8, base=words)
    assert vitbench("train", *words, *begins).code == 0
    assert vitbench("train", *words, "runs=scratch").code == 0
    (branch,) = (path for path in (tmp_path / "trunk").iterdir() if path != trunk)
    assert_branch_equals(branch, folder(tmp_path / "scratch"), 6)
    longest = [word.replace("steps=14", "steps=20") for word in words]  # falls from step 10
    again = vitbench("train", *longest, "runs=trunk", f"init={branch.name}", "checkpoint=7")
    assert again.code == 0, again.err
    assert vitbench("train", *longest, "runs=longest").code == 0
    (second,) = (path for path in (tmp_path / "trunk").iterdir() if path not in (trunk, branch))
    assert_branch_equals(second, folder(tmp_path / "longest"), 7)


def test_a_kept_state_outlives_the_run_and_only_wsd_keeps_one(vitbench: Cli, tmp_path: Path) -> None:
    trunk = trunk_of(vitbench, tmp_path)
    assert Run(trunk, {}).kept_states() == Run(trunk, {}).kept() == [4, 6, 11] and not Run(trunk, {}).states()
    (trunk / "state.6.safetensors").unlink()
    assert "the run had finished without keep=[6]" in vitbench("train", *TRUNK).err
    assert vitbench("train", *TINY, "keep=[2]", "runs=cosine").code == 0
    assert not [*folder(tmp_path / "cosine").glob("state*")]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["checkpoint=5"], "kept no state after this step; train it with keep=[5]; it kept 4, 6, 11"),
        (["checkpoint=11"], " begins after step 9; a branch must begin before it"),
        (["optim.decay=0.7"], "the decay of this run begins after step 4; a branch must begin before it"),
        (
            ["optim.warmup_steps=3"],
            "warms up in 2 steps and this run in 3; type optim.warmup_steps=2, which is the same for any",
        ),
        (
            ["optim.lr=0.5"],
            "has optim.lr=0.001 and this run 0.5; a branch may differ only in optim.steps, optim.epochs, ",
        ),
        (["seed=1"], "has seed=0 and this run 1; a branch may differ only in"),
        (["optim.ema=0.9"], "has optim.ema=null and this run 0.9; a branch may differ only in"),
        (["head=new"], "has head=keep and this run new; a branch may differ only in"),
        (["optim.schedule=cosine", "optim.decay=0.2"], "checkpoint=6: goes with optim.schedule=wsd"),
        (["init=null"], "checkpoint=6: goes with init=RUN"),
        (["init=timm:resnet18"], "checkpoint=6: init=timm:resnet18 has only weights; only a run keeps its state"),
        (["init=some.safetensors"], "checkpoint=6: init=some.safetensors has only weights"),
        (["init=vit-learned-shapes-f1-s0-00000000"], "no finished run in runs=trunk"),
        (["keep=[6,9]"], "keep=[6,9]: must be steps of the run, 7 to 14"),
    ],
)
def test_what_cannot_be_a_branch_gets_one_line(
    vitbench: Cli, trunk: Path, monkeypatch: pytest.MonkeyPatch, changed: list[str], said: str
) -> None:
    monkeypatch.chdir(trunk.parent.parent)
    asked = {word.partition("=")[0]: word for word in [*LONGER, "runs=trunk", f"init={trunk.name}", "checkpoint=6"]}
    asked |= {word.partition("=")[0]: word for word in changed}
    output = vitbench("train", *asked.values())
    assert output.code == 2 and said in output.err and output.err.count("\n") == 1, output.err
    assert [path.name for path in trunk.parent.iterdir()] == [trunk.name]  # nothing was begun


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vitbench import cli

    place = tmp_path_factory.mktemp("branches")
    assert cli.run(["train", *(f"runs={place}/trunk" if word == "runs=trunk" else word for word in TRUNK)]) == 0
    return folder(place / "trunk")


def test_a_study_trains_a_run_before_its_branches_which_words_name(vitbench: Cli, tmp_path: Path) -> None:
    common = " ".join([*WSD, *KINDS["vit"], "eval_every=4"])
    lines = ["seed=0,1 optim.steps=12 keep=[6]", "seed=0,1 optim.steps=8,14 init='optim.steps=12' checkpoint=6"]
    (tmp_path / "s.yaml").write_text(json.dumps({"with": common, "runs": lines}))
    output = vitbench("sweep", "study=s.yaml")
    assert output.code == 0 and output.out == "6 of 6 runs finished\n", output.err
    table = vitbench("table", "study=s.yaml", "format=json").out
    groups: list[dict[str, Any]] = json.loads(table)["tables"][0]["groups"]
    assert [group["settings"].get("optim.steps") for group in groups] == [8, 12, 14]  # each with both of its seeds
    assert not any({"init", "checkpoint"} & {*group["settings"]} for group in groups)


def test_a_damaged_state_stops_a_branch_before_it_trains(vitbench: Cli, tmp_path: Path) -> None:
    trunk = trunk_of(vitbench, tmp_path)
    state = trunk / "state.6.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    output = vitbench("train", *LONGER, "runs=trunk", f"init={trunk.name}", "checkpoint=6")
    assert output.code == 2 and "state.6.safetensors is damaged" in output.err
    assert record(tmp_path / "trunk")["status"] == "finished"  # the run of the state, which is alone there
