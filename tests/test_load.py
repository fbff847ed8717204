"""What reading and planning thousands of runs costs for each run, counted rather than timed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import fake_runs
from tests.conftest import Output
from tools import load
from vitbench.comparing import select
from vitbench.errors import UserError
from vitbench.machine import disk
from vitbench.runs import plan as planning
from vitbench.runs import records
from vitbench.runs.plan import Planner, expand, plan
from vitbench.runs.run import write_record
from vitbench.runs.study import Study, load_study
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings
from vitbench.settings.identity import run_id

GRID = ("model=vit pe=none,rope data.fraction=0.1,1 optim.lr=0.001,0.003 seed=range(10)",)


def study(*lines: str) -> Study:
    return Study("load", "Load", "", lines or GRID)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what takes long is called while runs are planned."""
    calls: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def wrapped(*words: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*words, **options)

        monkeypatch.setattr(module, name, wrapped)

    for name in ("compose", "as_settings", "check"):
        count(planning, name)
    count(disk, "read_file")
    count(records, "read_json")
    return calls


def test_hydra_composes_each_choice_once_and_checks_each_setting_but_for_seeds(counted: Counter[str]) -> None:
    assert len(plan(study())) == 80
    assert counted == {"compose": 2, "check": 8}


def test_a_word_makes_of_a_run_what_omegaconf_makes_of_it() -> None:
    lines = (
        *GRID,
        "model=resnet data.fraction=1 optim.epochs=3 optim.lr=1 seed=0,3",
        "model=vit pe=rope pe.theta=10,100 model.depth=2 data.x=[-1,0.5] seed=1",
        "model=timm model.arch=convnext_atto,vit_tiny_patch16_224 seed=0",
        "model=vit data=imagefolder data.root=~/pets data.classes=[1,0] init='data.fraction=1' data.fraction=0.1",
    )
    planner = Planner()
    for words in expand(study(*lines)):
        groups = tuple(word for word in words if word.partition("=")[0] in planning.CONF_GROUPS)
        others = [word for word in words if word not in groups]
        settings = planner.settings(words)
        anew = check(as_settings(planner._with(groups, others)))
        assert settings == anew and run_id(settings) == run_id(anew)


def test_runs_that_differ_in_their_seeds_do_not_change_each_other() -> None:
    planner = Planner()
    first, second = (planner.settings(["model=vit", f"seed={seed}"]) for seed in (1, 2))
    assert (first["seed"], second["seed"]) == (1, 2)
    with pytest.raises(UserError, match="seed=-1: must be 0 to"):
        planner.settings(["model=vit", "seed=-1"])


def test_a_table_opens_each_record_once(tmp_path: Path, counted: Counter[str]) -> None:
    fake_runs.quickstart(tmp_path)
    selected = select.select_runs(str(tmp_path), {})
    assert counted == dict.fromkeys(("read_json", "read_file"), len(selected.rows))


def test_a_finished_sweep_opens_each_record_once(
    vitbench: Callable[..., Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(load.STUDY.format(fractions="0.1,1", rates="0.003", seeds=2))
    for run in plan(load_study(str(path))):
        its: Any = fake_runs.record(0.5, result_id=run.id, result_config=run.settings)
        write_record(tmp_path / "runs" / run.id, its)
    opened: Counter[Path] = Counter()

    def counts(file: Path, *most: int) -> bytes:
        opened[file] += 1
        return read_file(file, *most)

    read_file = disk.read_file
    monkeypatch.setattr(disk, "read_file", counts)
    for words in ([], ["dry_run=true"]):
        opened.clear()
        swept = vitbench("sweep", f"study={path}", f"runs={tmp_path / 'runs'}", *words)
        assert swept.code == 0 and re.search("16 of 16 runs finished|16 finished", swept.out)
        in_runs = {file: times for file, times in opened.items() if file.name == "record.json"}
        assert in_runs == dict.fromkeys((tmp_path / "runs").glob("[a-z]*/record.json"), 1)
