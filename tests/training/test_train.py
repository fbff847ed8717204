from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitbench as package
from tests.conftest import TINY, Output, process
from vitbench.data.loader import Loader
from vitbench.errors import UserError
from vitbench.runs import run as runs_module
from vitbench.training import checkpoint

Cli = Callable[..., Output]

FAMILIES = {
    "vit": ["model=vit", "model.drop_path=0.2", "optim.ema=0.9"],
    "resnet": ["model=resnet", "augment=light"],
    "strong": ["model=vit", "pe=relative_bias", "augment=strong", "data.flip=true"],
}


def folder(root: Path) -> Path:
    (only,) = (path for path in root.iterdir() if path.is_dir())
    return only


def record(root: Path) -> dict[str, Any]:
    return json.loads((folder(root) / "record.json").read_text())  # type: ignore[no-any-return]


def without_times(path: Path) -> list[dict[str, str]]:
    with path.open() as lines:
        return [{key: value for key, value in row.items() if key != "train_seconds"} for row in csv.DictReader(lines)]


def assert_same_run(one: Path, other: Path) -> None:
    its, others = (
        {path.name for path in run.iterdir() if path.suffix in (".safetensors", ".npy")} for run in (one, other)
    )
    assert its == others and "checkpoint.safetensors" in its
    for name in its:
        if not name.startswith("state."):  # such a file says how long the run took
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert without_times(one / "metrics.csv") == without_times(other / "metrics.csv")
    records = [json.loads((path / "record.json").read_text()) for path in (one, other)]
    for key in ("test_accuracy", "test_loss", "val_accuracy", "val_loss", "train_loss", "train_images"):
        assert records[0][key] == records[1][key], key


def cut_run(
    vitbench: Cli,
    monkeypatch: pytest.MonkeyPatch,
    *words: str,
    stop: int = 5,
    base: Sequence[str] = TINY,
    loader: Any = Loader,
) -> None:
    batch = loader.batch

    def cut(self: Any, step: int) -> Any:
        if step == stop:
            raise KeyboardInterrupt
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loader, "batch", cut)
        assert vitbench("train", *base, *words).code == 130


def test_a_run_leaves_what_the_documentation_says(vitbench: Cli, tmp_path: Path) -> None:
    output = vitbench("train", *TINY, "runs=r")
    assert output.code == 0, output.err
    assert "test accuracy" in output.out and output.out.count("\n") == 1
    names = {path.name for path in folder(tmp_path / "r").iterdir() if path.name != ".lock"}
    arrays = {"checkpoint.safetensors", "predictions.npy", "labels.npy", "probabilities.npy"}
    assert names == {"config.yaml", "metrics.csv", "record.json"} | arrays
    assert [path.name for path in tmp_path.iterdir()] == ["r"]  # nothing lies beside it


def test_the_record_agrees_with_its_files(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY, "runs=r")
    facts = record(tmp_path / "r")
    assert (facts["train_images"], facts["val_images"], facts["test_images"]) == (180, 20, 50)
    predictions, labels = (np.load(folder(tmp_path / "r") / f"{name}.npy") for name in ("predictions", "labels"))
    assert len(predictions) == 50 and predictions.max() < len(facts["classes"]) == 10
    assert facts["steps"] == 6 and facts["hardware"]["precision"] == "float32"
    assert facts["test_accuracy"] == (predictions == labels).mean() and facts["images_per_second"] > 0
    probabilities = np.load(folder(tmp_path / "r") / "probabilities.npy")
    assert probabilities.shape == (50, 10) and probabilities.dtype == np.float16
    assert (probabilities[np.arange(50), predictions] == probabilities.max(1)).all()
    recalls = [(predictions == labels)[labels == k].mean() for k in {*labels.tolist()}]
    assert facts["test_balanced_accuracy"] == pytest.approx(np.mean(recalls))
    top5 = (np.argsort(-probabilities, 1, kind="stable")[:, :5] == labels[:, None]).any(1).mean()
    assert facts["test_top5_accuracy"] == pytest.approx(top5, abs=0.05)  # float16 has more ties
    assert 0 <= facts["test_calibration_error"] <= 1
    loaded = package.load(facts["id"], runs=tmp_path / "r")
    assert loaded.record == facts
    assert sum(p.numel() for p in loaded.model.parameters()) == facts["parameters"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_config_gives_the_same_bytes(vitbench: Cli, tmp_path: Path, family: str) -> None:
    for runs in ("a", "b"):
        assert vitbench("train", *TINY, *FAMILIES[family], f"runs={runs}").code == 0
    assert_same_run(folder(tmp_path / "a"), folder(tmp_path / "b"))


@pytest.mark.parametrize(
    ("family", "stop"), [pytest.param("resnet", 1, marks=pytest.mark.slow), ("resnet", 4), ("vit", 3), ("strong", 5)]
)
def test_a_run_cut_off_at_any_step_ends_like_one_that_was_not(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, stop: int
) -> None:
    assert vitbench("train", *TINY, *FAMILIES[family], "runs=whole").code == 0
    cut_run(vitbench, monkeypatch, *FAMILIES[family], "runs=cut", stop=stop)
    assert not (folder(tmp_path / "cut") / "record.json").exists()
    assert vitbench("train", *TINY, *FAMILIES[family], "runs=cut").code == 0
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "cut"))


def test_a_finished_run_is_not_run_again_and_says_so(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY, "runs=r")
    before = (folder(tmp_path / "r") / "record.json").stat().st_mtime_ns
    output = vitbench("train", *TINY, "runs=r")
    assert output.code == 0 and "finished" in output.out and "nothing to do" in output.out
    assert (folder(tmp_path / "r") / "record.json").stat().st_mtime_ns == before


def test_a_finished_run_is_answered_without_torch(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY, "runs=r")
    words = ["train", *TINY, "runs=r"]
    code = f"import sys; from vitbench import cli; cli.run({words!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True).returncode == 0


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step(vitbench: Cli, tmp_path: Path) -> None:
    output = vitbench("train", *TINY, "optim=resnet", "optim.lr=1e30", "runs=r")
    assert output.code == 1 and "diverged" in output.err
    facts = record(tmp_path / "r")
    assert facts["status"] == "diverged" and 1 <= facts["diverged_step"] <= 6
    assert facts["test_accuracy"] is None
    # a diverged run is not tried again
    assert vitbench("train", *TINY, "optim=resnet", "optim.lr=1e30", "runs=r").code == 1


def test_weights_broken_by_the_last_step_are_a_diverged_run(vitbench: Cli, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("optim.steps")]
    output = vitbench("train", *words, "optim=resnet", "optim.lr=1e30", "optim.steps=1", "runs=r")
    assert output.code == 1 and "diverged" in output.err
    assert record(tmp_path / "r")["diverged_step"] == 1


def test_the_logged_loss_is_a_mean_of_the_steps_since_the_last_line(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for word in TINY if not word.startswith("eval_every")]
    vitbench("train", *words, "eval_every=1", "runs=each")
    each = [float(row["train_loss"]) for row in without_times(folder(tmp_path / "each") / "metrics.csv")]
    vitbench("train", *words, "eval_every=4", "runs=some")
    some = [float(row["train_loss"]) for row in without_times(folder(tmp_path / "some") / "metrics.csv")]
    assert some == pytest.approx([sum(each[:4]) / 4, sum(each[4:]) / 2])
    cut_run(vitbench, monkeypatch, "runs=changed", stop=3)  # it evaluated, and saved, at step 2
    vitbench("train", *words, "eval_every=4", "runs=changed")
    changed = [float(row["train_loss"]) for row in without_times(folder(tmp_path / "changed") / "metrics.csv")]
    assert changed == pytest.approx([sum(each[:2]) / 2, sum(each[2:4]) / 2, sum(each[4:]) / 2])


def test_weights_are_kept_after_the_steps_that_keep_names(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vitbench("train", *TINY, "runs=none")
    vitbench("train", *TINY, "runs=some", "keep=[1,3,6]")
    cut_run(vitbench, monkeypatch, "runs=cut", "keep=[1,3,6]", stop=2)
    vitbench("train", *TINY, "runs=cut", "keep=[1,3,6]")
    kept, again, plain = (folder(tmp_path / name) for name in ("some", "cut", "none"))
    assert sorted(path.name for path in kept.glob("checkpoint*")) == [
        *(f"checkpoint.{step}.safetensors" for step in (1, 3, 6)),
        "checkpoint.safetensors",
    ]
    for path in kept.glob("checkpoint*"):
        assert path.read_bytes() == (again / path.name).read_bytes()
    last = (plain / "checkpoint.safetensors").read_bytes()  # `keep` is no part of a run's identity
    assert last == (kept / "checkpoint.6.safetensors").read_bytes() != (kept / "checkpoint.3.safetensors").read_bytes()
    assert "the run had finished without keep=[1]" in vitbench("train", *TINY, "runs=none", "keep=[1]").err
    output = vitbench("train", *TINY, "runs=wrong", "keep=[1,7]")
    assert output.code == 2 and "keep=[1,7]: must be steps of the run, 1 to 6" in output.err


def test_validation_images_are_optional(vitbench: Cli, tmp_path: Path) -> None:
    assert vitbench("train", *TINY, "data.val_fraction=0", "runs=r").code == 0
    assert record(tmp_path / "r")["val_accuracy"] is None


def test_epochs_replace_steps(vitbench: Cli, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("optim.steps=")]
    assert vitbench("train", *words, "optim.epochs=0.5", "runs=r").code == 0
    assert record(tmp_path / "r")["steps"] == 6  # half of 180 images in batches of 16
    assert record(tmp_path / "r")["config"]["optim"]["epochs"] == 0.5


def test_min_steps_win_where_the_epochs_are_fewer(vitbench: Cli, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("optim.steps=")]
    assert vitbench("train", *words, "optim.epochs=0.5", "optim.min_steps=8", "runs=longer").code == 0
    assert record(tmp_path / "longer")["steps"] == 8  # half of 180 images in batches of 16 are 6 steps
    assert vitbench("train", *words, "optim.epochs=0.5", "optim.min_steps=4", "runs=shorter").code == 0
    assert record(tmp_path / "shorter")["steps"] == 6
    output = vitbench("train", *TINY, "optim.min_steps=8")
    assert output.code == 2 and "optim.min_steps=8: goes with epochs" in output.err


def test_training_images_are_tested_as_test_images_are(vitbench: Cli, tmp_path: Path) -> None:
    """A network that has learned its few images by heart is right on all of them, and not on the test images."""
    words = [word for word in TINY if not word.startswith(("optim.steps=", "eval_every="))]
    assert vitbench("train", *words, "optim.steps=100", "data.count=20", "runs=r").code == 0
    result = record(tmp_path / "r")
    assert result["train_eval_accuracy"] == 1.0 > result["test_accuracy"]
    assert result["train_eval_loss"] < 1 < result["test_loss"]


def test_a_bug_keeps_its_traceback_and_is_written_down(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Loader, step: int) -> Any:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Loader, "batch", broken)
    with pytest.raises(ZeroDivisionError):
        vitbench("train", *TINY, "runs=r")
    assert "ZeroDivisionError: ours" in json.loads((folder(tmp_path / "r") / "failure.json").read_text())["traceback"]


def test_what_is_refused_leaves_no_folder(vitbench: Cli, tmp_path: Path) -> None:
    assert vitbench("train", *TINY, "data.fraction=0.001", "runs=r").code in (2, 3)
    assert list((tmp_path / "r").iterdir()) == []


# ----------------------------------------------------------------------------------------------------------- resuming


def test_a_damaged_state_falls_back_to_the_one_before(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vitbench("train", *TINY, "runs=whole")
    cut_run(vitbench, monkeypatch, "runs=cut")
    blob = (folder(tmp_path / "cut") / "state.safetensors").read_bytes()
    damages = {
        "half": blob[: len(blob) // 2],
        "one bit": blob[:-9] + bytes([blob[-9] ^ 1]) + blob[-8:],
        "a pickle": b"\x80\x04N.",
    }
    for damage, content in damages.items():
        runs = tmp_path / damage.replace(" ", "_")
        shutil.copytree(tmp_path / "cut", runs)
        state = folder(runs) / "state.safetensors"
        state.write_bytes(content)
        assert state.with_name("state.previous.safetensors").exists()
        output = vitbench("train", *TINY, f"runs={runs}")
        assert output.code == 0 and "warning" in output.err and "state.safetensors" in output.err, damage
        assert_same_run(folder(tmp_path / "whole"), folder(runs))


def test_a_state_of_another_run_is_not_loaded(vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_run(vitbench, monkeypatch, "runs=foreign", "model.width=32")
    cut_run(vitbench, monkeypatch, "runs=r")
    state = folder(tmp_path / "r") / "state.safetensors"
    state.write_bytes((folder(tmp_path / "foreign") / "state.safetensors").read_bytes())
    output = vitbench("train", *TINY, "runs=r")
    assert output.code == 0 and "is the state of another run" in output.err


def test_torn_and_later_lines_of_metrics_are_dropped(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vitbench("train", *TINY, "runs=whole")
    cut_run(vitbench, monkeypatch, "runs=r")
    with (folder(tmp_path / "r") / "metrics.csv").open("a") as lines:
        lines.write("6,1,0.1,9,9,9,9\n5,0.4")
    vitbench("train", *TINY, "runs=r")
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "r"))


def test_a_run_that_is_stopped_before_its_first_step_is_listed(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vitbench.training.prepare.prepare", stopped)
        assert vitbench("train", *TINY, "runs=r").code == 130
    assert vitbench("ls", "runs", "runs=r").out.endswith("  unfinished: no step saved of 6\n")
    cut_run(vitbench, monkeypatch, "runs=r", stop=5)
    assert vitbench("ls", "runs", "runs=r").out.endswith("  unfinished: step 4 of 6\n")
    assert vitbench("train", *TINY, "runs=r").code == 0


@pytest.mark.parametrize("how", ["removed", "of another run", "one digit changed"])
def test_lines_of_metrics_come_back_from_the_state_whatever_became_of_the_file(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    vitbench("train", *TINY, "runs=whole")
    cut_run(vitbench, monkeypatch, "runs=r")
    file = folder(tmp_path / "r") / "metrics.csv"
    if how == "of another run":
        vitbench("train", *TINY, "seed=1", "runs=other")
        shutil.copy(folder(tmp_path / "other") / "metrics.csv", file)
    elif how == "removed":
        file.unlink()
    else:
        text = file.read_text()
        place = text.index(".", text.index("\n2,"))  # in the line of step 2
        file.write_text(text[: place + 1] + ("1" if text[place + 1] != "1" else "2") + text[place + 2 :])
    assert vitbench("train", *TINY, "runs=r").code == 0
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "r"))


@pytest.mark.parametrize("how", ["damaged", "of another run"])
def test_kept_weights_that_are_no_longer_this_runs_are_set_aside_before_the_record_vouches_for_them(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    cut_run(vitbench, monkeypatch, "runs=r", "keep=[1,3]", stop=4)
    kept = folder(tmp_path / "r") / "checkpoint.1.safetensors"
    blob = kept.read_bytes()
    if how == "damaged":
        kept.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    else:
        vitbench("train", *TINY, "seed=1", "keep=[1]", "runs=other")
        shutil.copy(folder(tmp_path / "other") / kept.name, kept)
    output = vitbench("train", *TINY, "runs=r", "keep=[1,3]")
    assert output.code == 0 and "it was renamed to checkpoint.1.safetensors.damaged" in output.err
    assert "keep=[1] came too late" in output.err and not kept.exists()
    files = record(tmp_path / "r")["files"]
    assert "checkpoint.3.safetensors" in files and "checkpoint.1.safetensors" not in files


def test_a_record_of_another_run_is_none_of_this_run(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY, "runs=whole")
    vitbench("train", *TINY, "seed=1", "runs=other")
    vitbench("train", *TINY, "runs=r")
    for name in ("record.json", "predictions.npy", "checkpoint.safetensors"):
        shutil.copy(folder(tmp_path / "other") / name, folder(tmp_path / "r") / name)
    output = vitbench("train", *TINY, "runs=r")
    assert output.code == 0 and "nothing to do" not in output.out
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "r"))
    beside = json.loads((folder(tmp_path / "r") / "record.damaged.json").read_text())
    assert beside["config"]["seed"] == 1


def test_a_run_that_lost_its_metrics_after_the_last_step_still_ends(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = checkpoint.to_bytes

    def cut(tensors: Any, about: dict[str, Any]) -> bytes:
        if "classes" in about:  # these are the weights, which are written after the state of the last step
            raise KeyboardInterrupt
        return dump(tensors, about)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "to_bytes", cut)
        assert vitbench("train", *TINY, "runs=r").code == 130
    state = folder(tmp_path / "r") / "state.safetensors"
    tensors, about = checkpoint.load_tensors(state)
    tensors.pop("metrics")  # as in states of old
    state.write_bytes(checkpoint.to_bytes(tensors, about))
    state.with_name("metrics.csv").unlink()
    assert vitbench("train", *TINY, "runs=r").code == 0
    vitbench("train", *TINY, "runs=whole")
    lost, whole = record(tmp_path / "r"), record(tmp_path / "whole")
    assert lost["test_accuracy"] == whole["test_accuracy"] and lost["train_loss"] is None


def test_a_run_refuses_images_that_changed_since_it_began(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_run(vitbench, monkeypatch, "runs=r")
    from vitbench.data import shapes

    load = shapes.load

    def other(**options: Any) -> Any:
        from dataclasses import replace

        return replace(load(**options), fingerprint="other")

    monkeypatch.setattr(shapes, "load", other)
    output = vitbench("train", *TINY, "runs=r")
    assert output.code == 3 and "changed since" in output.err


def test_a_held_run_names_its_holder_and_exits_75(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY, "runs=r")
    held = folder(tmp_path / "r")
    (held / "record.json").unlink()
    with runs_module.Run(held, {}).claim():
        output = vitbench("train", *TINY, "runs=r")
    assert output.code == 75 and f"process {os.getpid()}" in output.err


def test_a_record_of_a_newer_schema_is_not_overwritten(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY, "runs=r")
    path = folder(tmp_path / "r") / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    output = vitbench("train", *TINY, "runs=r")
    assert output.code == 2 and "schema 99" in output.err and "upgrade" in output.err


def test_a_torn_record_means_not_finished_and_is_kept_beside_the_new_one(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY, "runs=r")
    path = folder(tmp_path / "r") / "record.json"
    torn = path.read_bytes()[:-20]
    path.write_bytes(torn)
    again = vitbench("train", *TINY, "runs=r")
    assert again.code == 0 and "is not a whole record (broken JSON); the run is trained again" in again.err
    assert record(tmp_path / "r")["status"] == "finished"
    assert path.with_name("record.damaged.json").read_bytes() == torn


def test_loading_a_run_that_does_not_exist_names_near_misses(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY, "runs=r")
    name = folder(tmp_path / "r").name
    with pytest.raises(UserError, match=f"did you mean {name}"):
        package.load(name[:-1], runs=tmp_path / "r")


# ------------------------------------------------------------------------------------------------------------ signals

LONG = [word for word in TINY if not word.startswith(("optim.steps", "eval_every"))]
LONG += ["optim.steps=100000", "eval_every=1"]


def started(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    child = process("train", *LONG, "runs=r", *words, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "r").glob("*/state.safetensors")):
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()
        time.sleep(0.05)
    return child


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SIGTERM", 75),
        ("SIGINT", 130),
        pytest.param("SIGUSR1", 75, marks=pytest.mark.slow),
        pytest.param("SIGHUP", 75, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_tells_how_to_go_on(tmp_path: Path, name: str, code: int) -> None:
    child = started(tmp_path)
    child.send_signal(getattr(signal, name))
    _, errors = child.communicate(timeout=10)
    assert child.returncode == code
    assert "saved at step" in errors and "Traceback" not in errors
    assert "to go on: vitbench train data.train_images=200" in errors
    assert not list((tmp_path / "r").glob("*/.holder.json"))
