"""A certificate is the same run with twice the samples, and nothing else is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.comparing.certificates import certificates_of
from vitbench.comparing.evidence import read_evidence
from vitbench.comparing.select import select_runs
from vitbench.runs.plan import Planned, remember
from vitbench.runs.study import load_study

Cli = Callable[..., Output]


def pairs(folder: Path, factor: float = 2.0) -> dict[str, str]:
    return {run: row["id"] for run, row in certificates_of(select_runs(str(folder), {}), factor).items()}


def write(folder: Path, name: str, steps: int, **changed: Any) -> None:
    fake_runs.write(folder, name, 0.5, **{"optim.steps": steps, "result_steps": steps} | changed)


def test_the_same_run_with_twice_the_steps_is_a_certificate(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, f"short{seed}", 1000, seed=seed)
    write(tmp_path, "long0", 2000, seed=0)
    assert pairs(tmp_path) == {"short0": "long0"}


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"data.subset_seed": 7}, {"optim.lr": 0.5}, {"data.fraction": 0.5}, {"result_data_fingerprint": "x"}],
    ids=["seed", "subset seed", "learning rate", "share", "images"],
)
def test_a_run_that_differs_in_more_than_samples_is_none(tmp_path: Path, other: dict[str, Any]) -> None:
    write(tmp_path, "short", 1000)
    write(tmp_path, "long", 2000, **other)
    assert pairs(tmp_path) == {}


def test_what_decides_no_number_may_differ(tmp_path: Path) -> None:
    write(tmp_path, "short", 1000)
    write(tmp_path, "long", 2000, eval_every=7, runs="elsewhere", **{"data.cache": "/d", "optim.name": "mine"})
    assert pairs(tmp_path) == {"short": "long"}


def test_epochs_count_by_the_steps_that_they_come_to(tmp_path: Path) -> None:
    epochs = {"optim.steps": None, "optim.epochs": 3.0}
    write(tmp_path, "short", 333, **epochs)  # 332.1, rounded up
    write(tmp_path, "long", 665, **epochs | {"optim.epochs": 6.0})  # 664.2, rounded up
    write(tmp_path, "least", 10, **{"optim.steps": None, "optim.epochs": 3.0, "optim.min_steps": 10})
    write(tmp_path, "longer", 20, **{"optim.steps": 20})
    assert pairs(tmp_path) == {"short": "long", "least": "longer"}


def test_a_chain_of_budgets_certifies_each_run_by_the_next(tmp_path: Path) -> None:
    for steps in (100, 200, 400):
        write(tmp_path, f"steps{steps}", steps)
    assert pairs(tmp_path) == {"steps100": "steps200", "steps200": "steps400"}
    assert pairs(tmp_path, 4.0) == {"steps100": "steps400"}


def test_a_studys_certificates_are_in_no_table_and_found_all_the_same(tmp_path: Path, vitbench: Cli) -> None:
    (tmp_path / "s.yaml").write_text(
        "runs: [model=vit]\ncertify: {where: {seed: 0}, factor: 3}\nfigures: {a: {x: steps}}"
    )
    study, runs = load_study(str(tmp_path / "s.yaml")), tmp_path / "runs"
    for seed in range(2):
        write(runs, f"short{seed}", 1000, seed=seed)
    write(runs, "long0", 3000, seed=0)
    planned = [Planned([], {}, "short0"), Planned([], {}, "short1"), Planned([], {}, "long0", "short0")]
    remember(study, planned, runs)
    (row,) = json.loads(vitbench("table", "study=s.yaml", "format=json").out)["tables"][0]["groups"]
    assert row["runs"] == ["short0", "short1"]
    selected = select_runs(str(runs), {"steps": 1000}, study)  # a filter leaves what certifies
    assert {run: its["id"] for run, its in certificates_of(selected).items()} == {"short0": "long0"}
    assert len(vitbench("table", "format=csv").out.splitlines()) == 3  # without the study they are runs like others

    assert vitbench("report", "study=s.yaml").code == 0
    kept = read_evidence(tmp_path / "results" / "s" / "runs.csv")
    assert [row["id"] for row in kept.rows] == ["short0", "short1"] and kept.ids == {"short0", "short1", "long0"}
    assert {run: its["certifies"] for run, its in certificates_of(kept).items()} == {"short0": "short0"}
    assert "2 runs, 1 certificate, seeds 0, 1" in (tmp_path / "results" / "README.md").read_text()
    assert vitbench("report", "check=true").code == 0


def test_a_run_of_the_same_length_is_none_however_short(tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    write(tmp_path, "b", 1, **{"optim.steps": None, "optim.epochs": 0.1})
    assert pairs(tmp_path) == {}
