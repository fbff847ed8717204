"""Which runs `vitbench table` shows: filters, studies, columns of samples."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.comparing.printed import command, groups_named
from tests.conftest import Output
from vitbench.runs.records import run_folders

Cli = Callable[..., Output]


@pytest.mark.parametrize(
    ("words", "n"),
    [
        (["where.model=resnet"], 6),
        (["where.pe=null"], 6),
        (["where.pe=[none,learned]"], 12),
        (["where.data.fraction=0.2"], 6),
        (["where.seed=1"], 9),
        (["where.model=vit", "where.model.size=nano"], 12),
        (["where.data.fraction=1", "where.data=shapes", "where.model=vit"], 4),
    ],
)
def test_filters_keep_what_they_name(tmp_path: Path, vitbench: Cli, words: list[str], n: int) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    fake_runs.write(
        tmp_path / "runs",
        "other",
        0.5,
        seed=7,
        **{"data.name": "other", "model.name": "else", "model.size": "micro", "model.pe.name": "rope"},
    )
    done = vitbench("table", "format=json", *words)
    assert done.code == 0, done.err
    assert sum(len(group["runs"]) for group in groups_named(done.out)) == n  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["where.dta=x"], "where.dta=x: did you mean data"),
        (["where.data=cifar10"], "where.data=cifar10: none of 18 runs; there data is shapes"),
        (["where.model=resnet", "where.pe=rope"], "where.pe=rope: none of 6 runs; there pe is null"),
        (["value=test_acuracy"], "value=test_acuracy: did you mean test_accuracy"),
        (["columns=data.fracton"], "columns=data.fracton: did you mean data.fraction"),
        (["rows=[model,seed]"], "rows=seed: choices: "),
        (
            ["columns=data.fraction", "against=resnt"],
            "against=resnt: did you mean resnet? choices: resnet, vit pe=learned, vit pe=none",
        ),
        (
            ["columns=data.fraction", "against=pe=nne"],
            (
                "against=pe=nne: did you mean vit pe=none? choices: resnet, vit pe=learned, vit pe=none; or settings"
                " that a line has: "
            ),
        ),
        (
            ["where.model=resnet", "rows=model", "columns=data.fraction", "against=resnet"],
            "against=resnet: there is no other line to compare with it",
        ),
        (["show=ci"], "show=ci: did you mean ci95? choices: ci95, mean, sd"),
        (["format=html"], "format=html: choices: csv, json, md, tex, text"),
        (["file=t.pdf"], "file=t.pdf: the ending says the format"),
        (["file=t.md", "format=csv"], "format=csv file=t.md: which of the two?"),
        (["name=accuracy"], "name=accuracy: chooses among the tables of a study"),
        (["runs=nowhere"], "runs=nowhere: no finished run there"),
        (["study=quickstart"], "study=quickstart: none of its 27 runs has ended in runs=runs"),
    ],
)
def test_a_slip_gets_one_line(tmp_path: Path, vitbench: Cli, words: list[str], said: str) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    done = vitbench("table", *words)
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert said in done.err


def test_a_broken_record_is_named_and_the_others_are_read(tmp_path: Path, vitbench: Cli) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    (tmp_path / "runs" / "learned-1.0-0" / "record.json").write_text('{"schema": 1, "con')
    out = vitbench("table").out
    assert "not read: runs/learned-1.0-0/record.json is not a whole record" in out and "n=1" not in out
    assert "38.5 ± n/a" in out


@pytest.fixture
def quickstart(tmp_path: Path) -> Path:
    """Makes all runs of the real study but one, under their real ids."""
    from vitbench.runs.plan import plan
    from vitbench.runs.study import load_study

    for i, planned in enumerate(plan(load_study("quickstart"))[1:]):
        record = fake_runs.record(0.3 + i / 100) | {"id": planned.id, "config": planned.settings}
        (tmp_path / "runs" / planned.id).mkdir(parents=True)
        (tmp_path / "runs" / planned.id / "record.json").write_text(json.dumps(record))
    return tmp_path / "runs"


def test_a_study_shows_its_runs_only_and_says_what_is_missing_and_what_it_cannot_show(
    quickstart: Path, vitbench: Cli
) -> None:
    fake_runs.write(quickstart, "not-of-the-study", 0.9)
    done = vitbench("table", "study=quickstart")
    assert done.code == 0 and done.err == ""
    assert done.out.startswith("Quickstart. ") and "data.fraction=0.1" in done.out
    assert "missing: 1 of the 27 planned runs" in done.out
    assert done.out.splitlines()[-1].startswith("This study cannot show where a ViT catches up")
    assert "not-of-the-study" not in vitbench("table", "study=quickstart", "format=json").out


def test_the_command_line_changes_a_studys_table(quickstart: Path, vitbench: Cli) -> None:
    out = vitbench("table", "study=quickstart", "columns=pe", "show=mean", "value=test_error").out
    assert "pe=none" in out and "test error in %, mean over" in out and "±" not in out


def test_a_thousand_runs_take_less_than_three_seconds_of_processor_time(tmp_path: Path) -> None:
    for seed in range(10):
        for share in range(1, 101):
            fake_runs.write(
                tmp_path / "runs",
                f"{seed}-{share}",
                share / 200 + seed / 1000,
                **{"seed": seed, "data.fraction": share / 100},
            )
    assert len(run_folders(tmp_path / "runs")) == 1000
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert command("table", cwd=tmp_path).stdout.count(b"\n") >= 100
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def test_samples_make_columns_so_that_a_study_of_both_has_a_surface(tmp_path: Path, vitbench: Cli) -> None:
    """Two numbers of images for two budgets, one asked for in epochs: error over images and samples."""
    for fraction in (0.1, 1.0):
        for seed in (0, 1):
            common = {"data.fraction": fraction, "seed": seed, "optim.batch_size": 64}
            short = {"optim.steps": 100, "result_steps": 100}
            long = {"optim.steps": None, "optim.epochs": 40.0, "result_steps": 400}
            for name, budget, accuracy in (("short", short, 0.3), ("long", long, 0.5)):
                run = f"{name}-{fraction}-{seed}"
                fake_runs.write(tmp_path / "runs", run, accuracy + fraction / 10 + seed / 100, **common, **budget)
    table = ["table", "rows=[model,data.fraction]", "columns=samples_seen", "show=mean"]
    out = vitbench(*table, "value=test_error").out
    assert "6,400 samples" in out and "25,600" in out and "optim.epochs" not in out
    (row,) = [line for line in out.splitlines() if line.split()[1:2] == ["1,000"]]
    assert row.split()[2:4] == ["68.5", "48.5"]
