"""Which run `init=` names. What it names is part of a run's id, not how it was typed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from vitbench.errors import UserError
from vitbench.runs.ancestor import training_command
from vitbench.runs.plan import Planner
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.settings.identity import id_of, identity, run_id, settings_of
from vitbench.settings.overrides import prepare, words_of


def settings(*words: str) -> dict[str, Any]:
    return check(as_settings(compose(prepare(list(words)))))


WORDS = {
    "another share": (["pe=rope", "data.fraction=0.1", "seed=3"], "data.fraction=1 init=null", ["pe=rope", "seed=3"]),
    "without saying that it begins from none": (["data.fraction=0.1"], "data.fraction=1", []),
    "what belongs to fine-tuning is not handed on": (
        ["freeze=backbone", "optim.layer_decay=0.7", "head=new"],
        "data.classes=[1,2]",
        ["data.classes=[1,2]"],
    ),
    "types are those of the schema": (["model=resnet"], "optim.lr=1", ["model=resnet", "optim.lr=1.0"]),
    "a choice brings its own settings": (
        ["data=imagefolder", "data.root=/x", "optim.steps=7"],
        "data=shapes data.noise=0.1",
        ["optim.steps=7", "data.noise=0.1"],
    ),
    "a folder names its images": (
        ["data=imagefolder", "data.root=/a"],
        "data.root=/b",
        ["data=imagefolder", "data.root=/b"],
    ),
    "words within words": (
        ["optim.steps=9"],
        "optim.steps=5 init='optim.steps=3'",
        ["optim.steps=5", "init=optim.steps=3"],
    ),
}


@pytest.mark.parametrize("kind", WORDS)
def test_words_name_the_run_of_the_same_settings_but_for_them(kind: str) -> None:
    its, words, meant = WORDS[kind]
    wanted, child = settings(*meant), settings(*its, f"init={words}")
    assert identity(child)["init"] == id_of(child, "init") == run_id(wanted)
    assert run_id(settings(*its, f"init={run_id(wanted)}")) == run_id(child)  # the id names the same run as the words


@pytest.mark.parametrize("kind", ["another share", "a choice brings its own settings", "words within words"])
def test_the_command_that_is_printed_trains_that_run(kind: str) -> None:
    its, words, meant = WORDS[kind]
    program, trains, *typed = shlex.split(training_command(settings_of(settings(*its, f"init={words}"), "init") or {}))
    assert (program, trains) == ("vitbench", "train")
    assert run_id(Planner().settings(prepare(typed))) == run_id(settings(*meant))


def test_a_file_counts_by_its_contents(tmp_path: Path) -> None:
    one, other, changed = (tmp_path / f"{name}.safetensors" for name in "abc")
    for path, text in ((one, "x"), (other, "x"), (changed, "y")):
        path.write_text(text)
    ids = [run_id(settings(f"init={path}")) for path in (one, other, changed)]
    assert ids[0] == ids[1] != ids[2]
    other.unlink()
    with pytest.raises(UserError, match=r"b\.safetensors: no such file$"):
        settings(f"init={other}") and run_id(settings(f"init={other}"))


def test_without_init_nothing_of_it_is_in_an_id() -> None:
    assert not {"init", "head", "freeze", "optim.layer_decay", "data.classes"} & identity(settings()).keys()


def test_words_keep_their_quotes() -> None:
    assert words_of("""a=1  init='b=2 c="d e"' f="g" """) == ["a=1", """init='b=2 c="d e"'""", 'f="g"']


def test_runs_that_begin_from_weights_are_not_stacked() -> None:
    from vitbench.sweeping.stacked import stacks_of

    for word in ("init=vit-f1-s0-00000000", "freeze=backbone"):
        stacks, alone = stacks_of({str(seed): settings(f"seed={seed}", word) for seed in range(2)}, 8)
        assert not stacks and {*alone.values()} == {"init or freeze (each run begins from weights of its own)"}


def test_waves_follow_what_begins_from_what(tmp_path: Path) -> None:
    from vitbench.runs.ancestor import generations, parents
    from vitbench.runs.plan import plan
    from vitbench.runs.study import load_study

    line = """model=vit init="data.fraction=0.5 init='seed=9'" """
    (tmp_path / "s.yaml").write_text(
        f"runs:\n  - {line}\n  - model=vit data.fraction=0.5 init='seed=9'\n  - model=vit data.fraction=0.5 seed=9,8"
    )
    planned = plan(load_study(str(tmp_path / "s.yaml")))
    waves = generations(parents({one.id: one.settings for one in planned}))
    assert [[[one.id for one in planned].index(name) for name in wave] for wave in waves] == [[2, 3], [1], [0]]


def test_pretrained_models_are_compared_with_themselves_from_scratch(tmp_path: Path) -> None:
    from tests import fake_runs
    from vitbench.comparing.select import select_runs
    from vitbench.fitting.lines import lines_of, pairs

    for model, best in {"vit": 0.4, "resnet": 0.6}.items():
        for init, more in {None: 0.0, "data.fraction=1": 0.1}.items():
            begun = {"init": init, "head": "new", "result_total_train_seconds": 30.0} if init else {}
            for seed in range(2):
                for share, factor in {0.05: 0.6, 0.2: 0.8, 1.0: 1.0}.items():
                    fake_runs.write(
                        tmp_path,
                        f"{model}{init}{seed}{share}",
                        best * factor + more + seed / 100,
                        **begun,
                        **{"model.name": model, "data.fraction": share, "seed": seed},
                    )
    runs = select_runs(str(tmp_path), {})
    lines, _ = lines_of(runs, "test_error")
    names = {(a.label, b.label) for a, b in pairs(lines)}
    assert {
        ("vit pe=learned init=data.fraction=1", "vit pe=learned"),
        ("resnet init=data.fraction=1", "resnet"),
        ("vit pe=learned", "resnet"),
    } <= names
    assert ("vit pe=learned", "resnet init=data.fraction=1") not in names
