"""vitbench's functions do what its command line does, with the same words, and leave nothing behind in the process."""

from __future__ import annotations

import inspect
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import vitbench as package
from tests import fake_runs
from tests.conftest import TINY, Output
from tests.test_menus import MENUS
from vitbench import api, cli
from vitbench.errors import DoesNotApply, RunFailed, StorageError, TryAgain, UserError
from vitbench.machine.interrupt import Stopped
from vitbench.runs.run import write_record
from vitbench.settings.check import check
from vitbench.settings.choices import CONF_GROUPS
from vitbench.settings.compose import CONF_DIR, as_settings
from vitbench.settings.identity import run_id
from vitbench.settings.overrides import prepare
from vitbench.settings.typed_text import parsed

Cli = Callable[..., Output]
ROOT = Path(__file__).parent.parent
FUNCTIONS = ("train", "sweep", "runs", "fit", "probe", "load")
TINY_SETTINGS: dict[str, Any] = {
    key: int(value) for key, value in (word.split("=") for word in TINY)
}  # the same words as keyword arguments


def settings_from_python(command: str, given: Mapping[str, Any]) -> Any:
    """The configuration that a command gets from keyword arguments."""
    got: list[Any] = []
    api.call(command, given, lambda config: got.append(OmegaConf.to_container(config, resolve=True)) or 0)  # type: ignore[func-returns-value]
    return got[-1]


def id_from_python(given: Mapping[str, Any]) -> str:
    ids: list[str] = []
    api.call("train", given, lambda config: ids.append(run_id(check(as_settings(config)))) or 0)  # type: ignore[func-returns-value]
    return ids[-1]


def id_of_words(words: list[str]) -> str:
    ids: list[str] = []
    before = sys.argv
    cli.run_with_hydra("train", lambda config: ids.append(run_id(check(as_settings(config)))), words)
    sys.argv = before
    return ids[-1]


# ---------------------------------------------------------------------------------------------------------- the words


def choices() -> list[tuple[str, str]]:
    menus = [(group, name) for group in MENUS if group != "probe" for name in MENUS[group]]
    files = [(group, path.stem) for group in ("augment", "optim") for path in (CONF_DIR / group).glob("*.yaml")]
    return sorted({*menus, *files} - {("optim", "family")})  # this goes with networks of libraries alone


@pytest.mark.parametrize(("group", "name"), choices())
def test_a_choice_is_the_same_run_from_python_as_on_the_command_line(group: str, name: str) -> None:
    given: dict[str, Any] = {group: name, "seed": 3, "data.fraction": 0.1, "optim.lr": 1e-05, "eval_every": None}
    if group == "model" and name in ("timm", "torchvision"):
        given["model.arch"] = "resnet18"
    if group == "data" and name == "imagefolder":
        given["data.root"] = "pets, 2024 (new)"
    words = [f"{key}={'null' if value is None else value}" for key, value in given.items()]
    assert id_from_python(given) == id_of_words(words)


def test_values_become_the_words_that_one_types() -> None:
    given = {
        "a": 3,
        "b": 1e-05,
        "c": True,
        "d": None,
        "e": [1, 2.5, ["x"], "y,z"],
        "f": np.float64(0.1),
        "g": np.arange(2),
        "h": Path("some") / "place",
        "where": {"data.fraction": [0.1, 1], "model": "vit"},
        "hydra/launcher": "joblib",
    }
    assert api.words_of(given) == [
        "a=3",
        "b=1e-05",
        "c=true",
        "d=null",
        "e=[1,2.5,[x],'y,z']",
        "f=0.1",
        "g=[0,1]",
        "h=some/place",
        "where.data.fraction=[0.1,1]",
        "where.model=vit",
        "hydra/launcher=joblib",
    ]


TEXT = st.text("ab,'\"\\${}[]():= #*ü3", max_size=9) | st.sampled_from(
    ["null", "true", "3", "1e3", "[a,b]", "{a: 1}", "a,b", "'a'", '"', "\\", "a\\", "${x}", "\\${x}", "range(3)", "a=b"]
)


@settings(max_examples=100, deadline=None)
@given(text=TEXT, texts=st.lists(TEXT, min_size=1, max_size=3), several=st.booleans())
def test_text_stays_the_text_that_was_given(text: str, texts: list[str], several: bool) -> None:
    def read(key: str, value: Any) -> Any:
        """What OmegaConf has for a value, once Hydra has read its word."""
        (word,) = prepare(api.words_of({key: value}), several)
        assert not parsed(word).is_sweep_override()
        return OmegaConf.to_container(OmegaConf.create({"x": parsed(word).value()}), resolve=True)["x"]  # type: ignore[index,call-overload]

    for key in ("init", "data.name", "where.augment", "rows", "probe.shift.fill"):
        assert read(key, text) == text
    assert read("where.augment", texts) == texts and read("rows", texts) == texts


def test_no_letter_of_a_path_is_lost_on_the_way_through_hydra() -> None:
    text = """a,b 'c' "d" ${e} \\ [f] {g: 1} =h, ü"""
    assert settings_from_python("train", {"data": "imagefolder", "data.root": text})["data"]["root"] == text


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"optim__steps": 3}, r"optim__steps: is no setting; give a key with a dot as \*\*{'optim.steps': ...}"),
        ({"optim": {"steps": 3}}, r"optim={...}: only where= can be a mapping; give \*\*{'optim.steps': ...}"),
        ({"--multirun": True}, "--multirun: is a flag of the command line"),
        ({"seed": {1, 2}}, "seed={1, 2}: must be text, a number, True, False, None, or a list of these"),
        ({"seed": [1, 2]}, r"seed=\[1,2\]"),
        ({"modell": "vit"}, "modell=vit: no such setting of `vitbench train`; did you mean model?"),
        ({"model": "vitt"}, "model=vitt: did you mean vit?"),
        ({"model": "resnet", "pe": "rope"}, "resnet is not a ViT"),
        ({"data.fraction": 2}, "data.fraction=2"),
        ({"data.name": "two\nlines"}, "a setting can have no line breaks"),
    ],
)
def test_a_slip_is_one_line_and_never_the_end_of_the_process(
    given: dict[str, Any], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(package.UserError, match=line) as raised:
        package.train(**given)
    assert "\n" not in str(raised.value) and raised.value.exit_code in (2, 3)
    assert not raised.value.__cause__ and raised.value.__suppress_context__
    assert not (tmp_path / "runs").exists()


def test_what_looks_like_a_secret_is_in_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = "hf_" + "aB3dE5gH7j" * 4
    with pytest.raises(UserError) as raised:
        package.train(model=key)
    assert key not in str(raised.value) and "[redacted]" in str(raised.value)


# ------------------------------------------------------------------------------------------------------------- train


def fake_record(accuracy: float | None, **given: Any) -> str:
    """Writes the record of a run with these settings below runs/, as if it had been trained; returns its id."""
    written: list[str] = []

    def main(config: Any) -> int:
        its = check(as_settings(config))
        record: Any = fake_runs.record(accuracy, result_id=run_id(its), result_config=its)
        write_record(Path("runs") / run_id(its), record)
        written.append(run_id(its))
        return 0

    api.call("train", given, main)
    return written[-1]


def test_train_returns_the_record_of_the_run_that_the_command_line_calls_done(
    vitbench: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    record = package.train(model="vit", pe="rope", **TINY_SETTINGS)
    assert record["status"] == "finished" and record["config"]["model"]["pe"]["name"] == "rope"
    assert record["steps"] == 6 and Path("runs", record["id"], "checkpoint.safetensors").is_file()
    assert capsys.readouterr().out.startswith(f"{record['id']}: finished, test accuracy")
    done = vitbench("train", "model=vit", "pe=rope", *TINY)
    assert done.code == 0 and done.out.startswith(record["id"]) and "nothing to do" in done.out
    assert package.train(model="vit", pe="rope", **TINY_SETTINGS) == record
    model, config, loaded = package.load(record["id"])
    assert loaded == record and config == record["config"] and not model.training


def test_a_run_that_diverged_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = fake_record(None, seed=5)
    with pytest.raises(RunFailed, match=f"{run}: diverged, the loss was not finite at step 7"):
        package.train(seed=5)


def test_an_interrupted_run_is_saved_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vitbench.training.training import Training

    monkeypatch.chdir(tmp_path)
    undisturbed = package.train(**TINY_SETTINGS, runs="others")
    count_step = Training.count_step

    def interrupted(training: Training) -> None:
        count_step(training)
        if training.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=r"saved.* to go on: vitbench train"):
        patch.setattr(Training, "count_step", interrupted)
        package.train(**TINY_SETTINGS)
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert list(Path("runs").glob("*/state.safetensors"))
    record = package.train(**TINY_SETTINGS)
    same = ("id", "test_accuracy", "test_loss", "train_loss")
    assert {key: record.get(key) for key in same} == {key: undisturbed.get(key) for key in same}


@pytest.mark.parametrize(
    ("end", "raised"),
    [
        (Stopped("saved", signal.SIGINT), KeyboardInterrupt),
        (Stopped("saved", signal.SIGTERM), TryAgain),
        (SystemExit(143), TryAgain),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), RunFailed),
        (StorageError("the disk is full"), StorageError),
        (ZeroDivisionError("our own bug"), ZeroDivisionError),
    ],
)
def test_no_end_of_a_run_is_the_end_of_the_process(
    end: BaseException, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(config: Any) -> int:
        raise end

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vitbench.training.train.main", ends)
    with pytest.raises(raised) as caught:
        package.train()
    assert not isinstance(caught.value, SystemExit)


def test_nothing_that_a_run_sets_stays_in_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    def state() -> dict[str, Any]:
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
        return {
            "arguments": list(sys.argv),
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "path": list(sys.path),
            "streams": (sys.stdout, sys.stderr),
            "signals": [signal.getsignal(number) for number in numbers],
            "warnings": list(warnings.filters),
            "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
            "threads": torch.get_num_threads(),
            "random": torch.get_rng_state().tolist(),
            "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index,union-attr]
            "switches": (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "grad": torch.is_grad_enabled(),
        }

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # a run of TINY sets one
    torch.backends.cudnn.benchmark = True
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            before, hydra = state(), GlobalHydra.instance().hydra
            record = package.train(**TINY_SETTINGS)
            package.probe(run=record["id"], probe="shift", images=20, figures=False)
            package.load(record["id"])
            package.runs()
            for slip in (lambda: package.train(model="x"), lambda: package.fit(), lambda: package.sweep()):
                with pytest.raises(UserError):
                    slip()
            assert GlobalHydra.instance().hydra is hydra
            assert state() == before
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = False


# -------------------------------------------------------------------------------------------------- sweep, runs, fit

STUDY = """
title: Two seeds
with: optim.steps=6 data.train_images=200
runs:
  - model=vit pe=none,rope seed=range(2)
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study, of mine.yaml").write_text(STUDY)
    return "study, of mine.yaml"


def fake_study() -> list[str]:
    """The records of all runs of STUDY but the last."""
    base = {"optim.steps": 6, "data.train_images": 200}
    return [fake_record(0.5, pe=pe, seed=seed, **base) for pe, seed in (("none", 0), ("none", 1), ("rope", 0))]


def test_sweep_returns_the_runs_of_the_study(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    ids = {*fake_study(), fake_record(0.5, pe="rope", seed=1, **{"optim.steps": 6, "data.train_images": 200})}
    fake_record(0.5, seed=7)
    runs = package.sweep(study=study)
    assert {*runs.id} == ids and [*runs.pe] == ["none", "none", "rope", "rope"]
    assert "4 of 4 runs finished" in capsys.readouterr().out


def test_a_sweep_tells_which_runs_did_not_finish(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(settings: Any, in_sweep: bool = False) -> int:
        raise RunFailed("no luck")

    fake_study()
    monkeypatch.setattr("vitbench.sweeping.sweep.one_run", fails)
    with pytest.raises(RunFailed, match="1 of 4 runs did not finish"):
        package.sweep(study=study)
    assert len(package.runs(study)) == 3


def test_a_plan_has_no_rows(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert package.sweep(study=study, dry_run=True).empty
    printed = capsys.readouterr()
    assert "4 to do" in printed.out and "no finished run there" in printed.err


def test_a_sweep_runs_in_a_thread_of_a_program(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_study()
    trained: list[str] = []

    def trains(its: Any, in_sweep: bool = False) -> int:
        trained.append(run_id(its))
        record: Any = fake_runs.record(0.5, result_id=run_id(its), result_config=its)
        write_record(Path("runs") / run_id(its), record)
        return 0

    monkeypatch.setattr("vitbench.sweeping.sweep.one_run", trains)
    got: list[pd.DataFrame] = []
    thread = threading.Thread(target=lambda: got.append(package.sweep(study=study)))
    thread.start()
    thread.join()
    assert len(trained) == 1 and len(got[0]) == 4


def test_runs_are_the_rows_and_the_columns_of_runs_csv(vitbench: Cli, tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    text = vitbench("table", "per=run", "format=csv", "where.data.fraction=[0.2,1]", "where.model=vit").out
    printed = pd.read_csv(io.StringIO(text))
    runs = package.runs(where={"data.fraction": [0.2, 1], "model": "vit"})
    assert [*runs.columns] == [*printed.columns] and [*runs.id] == [*printed.id]
    for column in ("data.fraction", "seed", "test_accuracy", "parameters", "train_seconds"):
        assert runs[column].dtype.kind in "if" and np.allclose(runs[column], printed[column])
    assert {*package.runs().model} == {"vit", "resnet"}
    with pytest.raises(UserError, match=r"where\.model=x: none of 18 runs"):
        package.runs(where={"model": "x"})
    with pytest.raises(UserError, match="runs=nowhere: no finished run there"):
        package.runs(runs=Path("nowhere"))


def test_a_fit_prints_what_the_command_line_prints(vitbench: Cli, tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=3)
    found = package.fit(target=0.5)
    printed = vitbench("fit", "target=0.5").out
    assert str(found) == printed and found._repr_markdown_() == vitbench("fit", "target=0.5", "format=md").out
    assert str(package.fit(format="json")) == vitbench("fit", "format=json").out
    said = [sentence for sentences in found.sentences.values() for sentence in sentences]
    assert said and all(sentence in printed for sentence in [*found.sentences, *said, *found.notes])
    assert [*found.tables][:1] == ["curves"] and "pairs" in found.tables
    text = vitbench("fit", "target=0.5", "format=csv").out
    numbers = pd.read_csv(io.StringIO(text))
    assert [*found.numbers.columns] == [*numbers.columns] and found.numbers.value.dtype == float
    assert np.allclose(found.numbers.value, numbers.value, equal_nan=True)


# ------------------------------------------------------------------------------------------------------------- probe


def test_probe_returns_the_rows_that_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record = package.train(model="resnet", **TINY_SETTINGS)
    rows = package.probe(run=record["id"], probe=["shift", "cost"], images=20, figures=False)
    assert {*rows.id} == {record["id"]} and {*rows.probe} == {"shift", "cost"} and {*rows.checkpoint} == {"trained"}
    written = pd.read_csv(tmp_path / "runs" / record["id"] / "probes" / "shift.csv")
    assert np.allclose(rows[rows.probe == "shift"].value, written.value, equal_nan=True)
    (consistency,) = rows[rows.column == "shift.crop.consistency"].value
    (run,) = package.runs().to_dict("records")
    assert run["shift.crop.consistency"] == consistency
    capsys.readouterr()
    again = package.probe(run=record["id"], probe=["shift", "cost"], images=20, figures=False)
    assert "measured already: shift, cost" in capsys.readouterr().out and len(again) == len(rows)
    with pytest.raises(DoesNotApply, match=f"{record['id']}: probe=attention_distance: does not apply to resnet"):
        package.probe(run=record["id"], probe="attention_distance", images=20)
    assert package.probe(run=record["id"], probe="equivariance", images=20, file="figure.svg").empty
    assert Path("figure.svg").is_file()


# ----------------------------------------------------------------------------------------------------- the front door


def test_importing_the_package_imports_nothing_that_a_command_can_do_without() -> None:
    code = (
        "import sys; before = {*sys.modules}; import vitbench; vitbench.runs, vitbench.UserError;"
        "print(*({name.partition('.')[0] for name in {*sys.modules} - before} - {*sys.stdlib_module_names}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["vitbench"], done.stderr


def test_reading_imports_no_torch(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    code = "import sys, vitbench; vitbench.runs(); str(vitbench.fit()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True).returncode == 0


def test_a_function_keeps_its_name_when_the_room_of_that_name_is_imported() -> None:
    import vitbench.runs.record

    assert callable(package.runs) and vitbench.runs is package.runs
    from vitbench.runs import record

    assert record.RECORD_SCHEMA


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_described_in_its_docstring_and_in_the_documentation(name: str) -> None:
    function = getattr(package, name)
    assert name in package.__all__ and f"vitbench.{name}(" in inspect.getdoc(function)
    assert "UserError" in inspect.getdoc(function)
    assert f"vitbench.{name}(" in (ROOT / "docs" / "reference" / "python.md").read_text()
    assert re.search(r"\bpython\.md\b", (ROOT / "README.md").read_text())


def test_every_group_of_choices_is_a_keyword() -> None:
    assert all(group.isidentifier() for group in CONF_GROUPS)


def test_calls_of_several_threads_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    streams, arguments = (sys.stdout, sys.stderr), sys.argv
    wanted = [{"model": "resnet"}, {"pe": "none"}, {"pe": "learned"}] * 4
    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(lambda where: package.runs(where=where), wanted)]
    for where, runs in zip(wanted, found, strict=True):
        ((key, value),) = where.items()
        assert len(runs) == 6 and set(runs[key]) == {value}
    assert (streams, arguments) == ((sys.stdout, sys.stderr), sys.argv)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: package.fit(format="nope"), "format=nope"),
        (lambda: package.runs(where="model=vit"), "where='model=vit': must be a mapping"),  # type: ignore[arg-type]
        (lambda: package.load(None), "load(None, runs='runs'): give a run's id"),  # type: ignore[arg-type]
        (lambda: package.load("../runs/None-0.2-0"), "give a run's id"),
        (lambda: package.load("None-0.2-0", runs=5), "give a run's id"),  # type: ignore[arg-type]
    ],
)
def test_what_no_function_takes_is_refused_at_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object], said: str
) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(package.UserError) as refused:
        call()
    assert said in str(refused.value)
