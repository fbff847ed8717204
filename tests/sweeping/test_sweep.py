from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import fake_runs
from tests.conftest import TINY, TINY_32, Output, process
from vitbench.comparing.evidence import read_evidence
from vitbench.comparing.sums import SUMS
from vitbench.data import shapes
from vitbench.data.loader import Loader
from vitbench.models import build
from vitbench.runs.plan import Planner
from vitbench.runs.run import read_metrics
from vitbench.sweeping.estimate import Estimate, total
from vitbench.training.step_time import seconds_an_image

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
    assert plan.code == 0 and plan.out.count("  missing\n") == 4
    assert "4 runs, 4 to do: 0 finished, 0 failed, 4 missing\nabout " in plan.out
    assert plan.out.endswith(" s of training, 1 at a time, by a measured step of 2 networks\n")
    assert "2 networks without a recorded run: measuring how long a step takes" in plan.err
    assert not (tmp_path / "r").exists()
    first = vitbench("sweep", study, *WORDS, "runs=r")
    assert first.code == 0 and first.out == "4 of 4 runs finished\n"
    assert {(r["config"]["model"]["pe"]["name"], r["config"]["seed"]) for r in records(tmp_path)} == {
        ("none", 0),
        ("none", 1),
        ("rope", 0),
        ("rope", 1),
    }
    created = [r["created"] for r in records(tmp_path)]
    done = vitbench("sweep", study, *WORDS, "runs=r", "dry_run=true")
    assert "4 runs, 0 to do: 4 finished, 0 failed, 0 missing\nnothing to do" in done.out
    again = vitbench("sweep", study, *WORDS, "runs=r")
    assert again.code == 0 and [r["created"] for r in records(tmp_path)] == created


def test_evidence_takes_runs_as_done_whose_weights_are_gone(vitbench: Cli, tmp_path: Path, study: str) -> None:
    assert vitbench("sweep", study, *WORDS, "seed=0", "runs=r").code == 0
    assert vitbench("report", study, "runs=r").code == 0
    before = read_evidence(tmp_path / "results" / "small" / "runs.csv").rows
    plan = vitbench("sweep", study, *WORDS, "runs=n", "evidence=true", "dry_run=true")
    assert "4 runs, 2 to do: 0 finished, 2 evidence, 0 failed, 2 missing" in plan.out and not (tmp_path / "n").exists()
    edited = vitbench("sweep", study, *WORDS, "runs=n", "seed=7", "evidence=true", "dry_run=true")
    assert edited.code == 0 and "evidence=true: none of the 2 runs in results/small/runs.csv is among" in edited.err
    done = vitbench("sweep", study, *WORDS, "runs=n", "evidence=true")
    assert done.code == 0 and done.out == "2 of 2 runs finished\n", done.err
    assert "4 runs, 2 of them are done already (2 by their evidence alone)" in done.err
    assert {json.loads(path.read_text())["config"]["seed"] for path in (tmp_path / "n").glob("*/record.json")} == {1}

    again = vitbench("report", study, "runs=n")
    assert again.code == 0 and "results/small/runs.csv: 2 rows kept of runs that are not in n" in again.err
    after = read_evidence(tmp_path / "results" / "small" / "runs.csv").rows
    assert {row["seed"] for row in after} == {0, 1} and len(after) == 4
    assert all(row in after for row in before)  # to the last digit
    commands = (tmp_path / "results" / "small" / "study.yaml").read_text()
    assert commands.count("# $ ") == 2 and "seed=0" in commands
    probed = vitbench("probe", study, "runs=n", "probe=shift", "images=20")
    assert probed.code == 0 and "2 of the 4 planned runs have only their evidence in results/" in probed.err


def test_certificates_are_planned_and_trained_after_all_other_runs(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("runs: ['model=vit seed=0,1']\ncertify: {where: {seed: 0}}")
    plan = vitbench("sweep", "study=s.yaml", *WORDS, "runs=r", "dry_run=true")
    *_, certificate, counts, _ = plan.out.splitlines()
    assert "  missing  (certificate of vit-learned-shapes-f1-s0-" in certificate
    assert counts.startswith("3 runs (1 of them certificates), 3 to do")
    assert vitbench("sweep", "study=s.yaml", *WORDS, "runs=r").out == "3 of 3 runs finished\n"
    assert sorted((r["config"]["seed"], r["steps"]) for r in records(tmp_path)) == [(0, 6), (0, 12), (1, 6)]


def test_a_run_that_needs_lost_weights_is_refused(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "runs: ['model=vit init=null', 'model=vit init=\"data.fraction=1\" data.fraction=0.5']"
    )
    assert vitbench("sweep", "study=s.yaml", *WORDS, "runs=r").code == 0
    assert vitbench("report", "study=s.yaml", "runs=r").code == 0
    path = tmp_path / "results" / "s" / "runs.csv"
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in text if "data.fraction=1" not in line))
    path.with_name(SUMS).unlink()
    for words in ([], ["dry_run=true"]):
        output = vitbench("sweep", "study=s.yaml", *WORDS, "runs=n", "evidence=true", *words)
        assert output.code == 2 and " has only its evidence and no weights; drop evidence=true" in output.err
    missing = vitbench("sweep", "study=s.yaml", *WORDS, "runs=n", "evidence=true", "results=nowhere")
    assert missing.code == 3 and "nowhere/s/runs.csv cannot be read: No such file or directory" in missing.err


REFUSED = {
    "study=smalll": "study=smalll: ",
    "study=missing.yaml": "study=missing.yaml: ",
    "study=small.yaml data.fracton=0.1": (
        "data.fracton=0.1: no such setting of `vitbench sweep`; did you mean data.fraction"
    ),
    "study=small.yaml hydra/launcher=jobli": "hydra/launcher=jobli: did you mean joblib?",
    "study=small.yaml pe=rope model=resnet": "resnet is not a ViT and takes no position encoding; drop pe=rope",
    "study=small.yaml seed=range(0)": "study=small asks for no run, because seed=range(0) has no value",
    "study=small.yaml runs=small.yaml": "small.yaml",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_slip_is_one_line_before_anything_is_begun(vitbench: Cli, tmp_path: Path, study: str, words: str) -> None:
    output = vitbench("sweep", *words.split())
    assert output.code in (2, 4) and output.err.count("\n") == 1 and output.err.startswith("vitbench: ")
    assert REFUSED[words] in output.err and not list(tmp_path.glob("*/"))


def test_what_else_lies_in_the_folder_of_runs_is_left_alone(vitbench: Cli, tmp_path: Path, study: str) -> None:
    foreign = {
        "notes.txt": "",
        "other/thing.bin": "",
        "torn/record.json": "{",
        "list/record.json": "[]",
        "old/record.json": '{"schema": 1, "status": "finished"}',
        "newer/record.json": '{"schema": 99}',
    }
    for name, text in foreign.items():
        (tmp_path / "r" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "r" / name).write_text(text)
    assert vitbench("sweep", study, *WORDS, "runs=r").code == 0
    assert {name: (tmp_path / "r" / name).read_text() for name in foreign} == foreign


def test_the_time_is_estimated_from_comparable_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time grows with the images seen; the median run counts, and none of other hardware or another model."""
    monkeypatch.setattr("vitbench.sweeping.estimate.processor", lambda: "Xeon")
    same = {"data.image_size": None, "optim.batch_size": 10, "machine.precision": "auto"}
    for place, seconds in enumerate((10.0, 12.0, 50.0)):
        fake_runs.write(tmp_path, f"a{place}", 0.5, **same, result_train_seconds=seconds)
    fake_runs.write(tmp_path, "b", 0.5, **same | {"model.pe.name": "rope"}, result_train_seconds=1000.0)
    fake_runs.write(
        tmp_path,
        "c",
        0.5,
        **same,
        result_train_seconds=1000.0,
        result_hardware={"device": "cpu", "name": "Xeon", "threads": 2, "precision": "float32"},
    )
    same |= {"optim.min_steps": None, "checkpoint": None}  # what is asked for says every setting
    asked = fake_runs.record(0.5, **same, **{"optim.steps": 240})["config"]
    assert Estimate(tmp_path, threads=1).seconds(asked) == pytest.approx(24)
    assert Estimate(tmp_path, threads=4).seconds(asked) is None
    epochs = fake_runs.record(0.5, **same, **{"optim.steps": None, "optim.epochs": 3.0})["config"]
    assert Estimate(tmp_path, threads=1).seconds(epochs) == pytest.approx(12 / 1200 * 30_000)
    branch = fake_runs.record(0.5, **same | {"optim.steps": 240, "checkpoint": 60})["config"]
    assert Estimate(tmp_path, threads=1).seconds(branch) == pytest.approx(18)
    least = fake_runs.record(0.5, **same | {"optim.epochs": 0.01, "optim.min_steps": 240})["config"]
    assert Estimate(tmp_path, threads=1).seconds(least) == pytest.approx(24)
    assert total([24, 24, 24], at_once=2) == 36 and total([60, 1], at_once=2) == 60


def test_what_is_not_recorded_is_measured_as_long_as_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = Planner()
    first, same, other = (planner.settings(words.split()) for words in ("pe=rope", "pe=rope seed=1", "model=resnet"))
    measured: list[tuple[str, int]] = []

    def timed(settings: Any, image_size: int) -> float:
        measured.append((settings["model"]["name"], image_size))
        return 0.01

    monkeypatch.setattr("vitbench.training.step_time.seconds_an_image", timed)
    estimate = Estimate(tmp_path, threads=1)
    assert estimate.unmeasured([first, same, other]) == [same, other]
    assert estimate.measure([same, other], seconds=0) == 0 and measured == []
    assert estimate.measure([same, other], seconds=30) == 2 and measured == [("vit", 32), ("resnet", 32)]
    assert estimate.seconds(first) == estimate.seconds(other) == pytest.approx(0.01 * 1000 * 64)
    frozen = planner.settings(["pe=rope", "init=x.safetensors", "head=new", "freeze=backbone"])
    assert estimate.seconds(frozen) is None, "a step of a frozen network takes less"
    epochs = planner.settings(["optim.epochs=3", "data.fraction=0.5", "pe=rope"])
    assert estimate.seconds(epochs) is None
    estimate.count_images(epochs, 10_000)
    assert estimate.seconds(epochs) == pytest.approx(0.01 * 3 * 4500, rel=0.02)


def test_a_long_sweep_on_a_processor_is_told_what_makes_it_shorter(
    vitbench: Cli, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[float] = [10.0]
    monkeypatch.setattr("vitbench.training.step_time.seconds_an_image", lambda settings, size: seconds[0])
    words = ("sweep", study, *TINY_32, "runs=r", "dry_run=true", "machine.device=cpu")
    *_, estimate, advice = vitbench(*words).out.splitlines()
    assert estimate.startswith("about 64 min of training")  # 4 runs of 6 steps of 16 images
    assert (
        advice == "this is more than an hour; the run is shorter with fewer steps (optim.steps=3), larger patches "
        "(model.patch_size=8) or a GPU"
    )
    seconds[0] = 9.0
    assert vitbench(*words).out.splitlines()[-1].startswith("about 58 min of training")


@pytest.mark.parametrize(
    "words",
    ["pe=rope augment=strong", "model=resnet optim.epochs=2", "objective=mae", "init=timm:x head=new freeze=backbone"],
)
def test_a_step_is_timed_with_all_that_training_does(words: str) -> None:
    settings = Planner().settings([*words.split(), "machine.threads=1", "optim.batch_size=20"])
    seconds = seconds_an_image(settings, 16)
    assert seconds is not None and 0 < seconds < 1


def test_a_network_that_cannot_be_built_has_no_time() -> None:
    settings = Planner().settings(["model.patch_size=5", "machine.threads=1"])
    assert seconds_an_image(settings, 32) is None


def test_a_plan_of_a_folder_that_cannot_be_used_is_refused(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text(GRID)
    done = vitbench("sweep", "study=pets.yaml", "data=imagefolder", "data.root=nowhere", "dry_run=true")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert "data.root=nowhere: no such folder" in done.err.replace(f"{tmp_path}/", "")


def test_a_run_of_a_sweep_is_the_run_of_its_single_command(vitbench: Cli, tmp_path: Path, study: str) -> None:
    vitbench("sweep", study, *WORDS, "runs=r")
    output = vitbench("train", "pe=rope", "seed=1", *WORDS, "runs=r")
    assert "nothing to do" in output.out


@pytest.mark.slow
def test_several_processes_give_the_same_numbers_as_one(vitbench: Cli, tmp_path: Path, study: str) -> None:
    assert vitbench("sweep", study, *WORDS, "runs=r").code == 0
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
    assert vitbench("sweep", study, *WORDS, "runs=r").code == 1  # failed runs are not tried again unasked
    assert vitbench("sweep", study, *WORDS, "runs=r", "retry_failed=true").code == 0


def test_a_diverged_run_is_counted_not_dropped(vitbench: Cli, study: str) -> None:
    output = vitbench("sweep", study, *WORDS, "runs=r", "optim=resnet", "optim.lr=1e30")
    assert output.code == 1 and output.err.count(" diverged") >= 4


def test_data_that_cannot_be_read_fails_every_run_with_its_reason(vitbench: Cli, tmp_path: Path, study: str) -> None:
    output = vitbench("sweep", study, "data=imagefolder", f"data.root={tmp_path / 'nowhere'}", "runs=r")
    assert output.code == 1 and "nowhere" in output.err and "Traceback" not in output.err


def test_the_table_of_a_study_holds_what_its_last_sweep_asked_for(vitbench: Cli, study: str) -> None:
    """Words typed on the sweep's command line change the ids, and the table still finds the runs."""
    vitbench("sweep", study, *WORDS, "runs=r")
    vitbench("train", *WORDS, "seed=9", "runs=r")
    table = vitbench("table", study, "runs=r", "format=json")
    assert table.code == 0 and sum(group["n"] for group in json.loads(table.out)["tables"][0]["groups"]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("decoded_before", [False, True])
def test_new_images_are_decoded_in_a_sweep_of_several_processes(
    vitbench: Cli, tmp_path: Path, study: str, monkeypatch: pytest.MonkeyPatch, decoded_before: bool
) -> None:
    """Joblib's workers cannot start processes of their own, so each decodes alone what the sweep has not decoded."""
    for split in ("train", "test"):
        for label in range(2):
            folder = tmp_path / "images" / split / str(label)
            folder.mkdir(parents=True)
            for place in range(300):  # more images than one process of the decoder gets at once
                pixels = np.full((8, 8, 3), 100 * label + place % 50 + (split == "test"), np.uint8)
                Image.fromarray(pixels).save(folder / f"{place}.png")
    if not decoded_before:
        monkeypatch.setattr("vitbench.sweeping.sweep._decode", lambda todo, show: None)
    # paths are absolute: joblib keeps its processes from test to test, in the folder where they were started
    folders = [f"data.root={tmp_path / 'images'}", f"data.cache={tmp_path / 'cache'}", f"runs={tmp_path / 'r'}"]
    words = ["data=imagefolder", *folders, "optim.steps=2", "optim.batch_size=8"]
    output = vitbench("sweep", study, *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert output.code == 0, output.err


def test_runs_in_one_process_share_what_they_have_in_common(
    vitbench: Cli, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are opened once, and a network's cost is counted once, however many runs follow each other."""
    opened, counted = [], []
    drawn, build_ = shapes.load, build.build_model
    monkeypatch.setattr(shapes, "load", lambda **options: opened.append(options) or drawn(**options))

    def building(name: str, **options: Any) -> Any:
        model = build_(name, **options)
        counted.extend([options["pe"]["name"]] if next(model.parameters()).device.type == "meta" else [])
        return model

    monkeypatch.setattr(build, "build_model", building)
    build._cost.cache_clear()
    monkeypatch.setenv("VITBENCH_CACHE", "cache")  # an empty one, in which no cost is remembered
    assert vitbench("sweep", study, *WORDS, "runs=r").code == 0
    assert len(opened) == 1 and counted == ["none", "rope"]
    assert vitbench("sweep", study, *WORDS, "runs=r", "seed=2", "pe=rope").code == 0
    assert len(opened) == 2  # another sweep opens them again: the files may have changed


def test_a_compiled_network_is_used_again_with_the_weights_of_the_next_run() -> None:
    architecture: Any = {"name": "resnet", "image_size": 8, "channels": 1, "num_classes": 2, "depth": 20}
    first, second = build.build_model(**architecture), build.build_model(**architecture)
    weights = {name: value.clone() for name, value in second.state_dict().items()}

    def same_model(model: torch.nn.Module) -> torch.nn.Module:
        return model

    kept, forward = build.compiled(first, architecture, same_model)
    weight = next(kept.parameters())
    weight.grad = torch.ones_like(weight)
    again, same = build.compiled(second, architecture, same_model)
    assert again is kept is first and same is forward and weight.grad is None
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    other: Any = architecture | {"depth": 32}
    assert build.compiled(build.build_model(**other), other, same_model)[0] is not kept


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=none,rope seed=0,1,2']")
    words = [*WORDS[:2], "optim.steps=20", "optim.batch_size=16", "runs=r", "machine.threads=1"]
    sweeps = [process("sweep", "study=small.yaml", *words, cwd=tmp_path) for _ in range(2)]
    outputs = [sweep.communicate() for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], outputs
    assert all("6 of 6 runs finished" in out for out, _ in outputs)
    for path in tmp_path.glob("r/*/metrics.csv"):
        assert [int(row["step"]) for row in read_metrics(path.parent)] == list(range(2, 21, 2))
        assert not list(path.parent.glob(".*.tmp"))
    assert len(records(tmp_path)) == 6


@pytest.mark.slow
def test_a_run_that_a_killed_sweep_held_is_done_by_the_other(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=none,rope']")
    words = ["sweep", "study=small.yaml", *WORDS[:2], "optim.batch_size=16", "runs=r", "machine.threads=1"]
    holding = process(*words, "optim.steps=30", "pe=none", cwd=tmp_path)
    while not list(tmp_path.glob("r/*/.holder.json")):
        assert holding.poll() is None, holding.communicate()
        time.sleep(0.02)
    holding.send_signal(signal.SIGSTOP)  # it goes on holding its run, and does nothing
    other = process(*words, "optim.steps=30", cwd=tmp_path)
    assert other.stderr is not None
    lines = iter(other.stderr.readline, "")
    assert any(line.startswith("waiting for vit-none-") and f"process {holding.pid}" in line for line in lines)
    holding.kill()
    holding.communicate()
    out, _ = other.communicate()
    assert other.returncode == 0 and "2 of 2 runs finished" in out
