"""A report keeps the counts of McNemar's test, so that the same sentence is made where the runs are gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from tests.conftest import Output
from tests.fitting import test_fit as fits
from tests.fitting.test_mcnemar import predict, predicted
from vitbench.comparing.sums import SUMS
from vitbench.runs.plan import Planned, remember
from vitbench.runs.study import load_study

Cli = Callable[..., Output]
STUDY = """\
title: Shares
question: Which leads?
runs: ['model=vit pe=none,learned data.fraction=0.01,0.05,0.2,0.5,1 seed=0,1,2']
tables:
  accuracy: {rows: [model, pe], columns: data.fraction, value: test_accuracy}
figures:
  errors: {x: train_images, y: test_error, log: xy, fit: true}
"""
OPENING = "On the same test images, after training on 45,000 images,"
SENTENCES = (  # of vit pe=none and of vit pe=learned, each against the ResNet
    f"{OPENING} resnet is better in 2 of 3 seeds (McNemar, Holm p < 0.05).",
    f"{OPENING} McNemar's test finds no significant difference (3 seeds).",
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Makes the runs of a study with fitted curves, and predictions at its largest size."""
    folder = predicted(fits.study(tmp_path / "runs"))
    for seed in range(2):
        predict(folder / f"none-1.0-{seed}", 500)
    (tmp_path / "shares.yaml").write_text(STUDY)
    ids = sorted(path.name for path in folder.iterdir())
    remember(load_study(str(tmp_path / "shares.yaml")), [Planned([], {}, id_) for id_ in ids], folder, [])
    return folder


@pytest.fixture
def kept(vitbench: Cli, runs: Path, tmp_path: Path) -> Path:
    assert vitbench("report", "study=shares.yaml").code == 0
    return tmp_path / "results" / "shares" / "mcnemar.csv"


def test_the_counts_are_known_and_sorted(kept: Path) -> None:
    head, *rows = kept.read_text().splitlines()
    assert head == "model,against,images,seed,id,against_id,test_images,only_model,only_against"
    learned = "vit pe=learned,resnet,45000,{0},learned-1.0-{0},None-1.0-{0},1000,20,20"
    assert rows[:3] == [learned.format(seed) for seed in range(3)]
    assert rows[6:] == [
        "vit pe=none,resnet,45000,0,none-1.0-0,None-1.0-0,1000,0,200",
        "vit pe=none,resnet,45000,1,none-1.0-1,None-1.0-1,1000,0,200",
        "vit pe=none,resnet,45000,2,none-1.0-2,None-1.0-2,1000,100,100",
    ]
    assert len(rows) == 9


def test_evidence_alone_gives_the_sentence_and_the_table_of_the_runs(vitbench: Cli, kept: Path, runs: Path) -> None:
    from_runs = vitbench("fit", "study=shares.yaml", "format=md").out
    fitted = kept.with_name("fit.md")
    assert all(sentence in unescape(text) for sentence in SENTENCES for text in (from_runs, fitted.read_text()))
    assert [line for line in from_runs.splitlines() if line.startswith("|")] == [
        line for line in fitted.read_text().splitlines() if line.startswith("|")
    ]
    before = {path: path.read_bytes() for path in kept.parent.parent.rglob("*.*")}
    shutil.rmtree(runs)
    assert SENTENCES[0] in unescape(kept.parent.with_name("README.md").read_text())
    assert vitbench("report", "check=true").code == 0
    fitted.unlink()
    assert vitbench("report").code == 0
    assert {path: path.read_bytes() for path in kept.parent.parent.rglob("*.*")} == before
    assert SENTENCES[0] in vitbench("fit", f"runs={kept.with_name('runs.csv')}").out


def test_a_pair_that_is_turned_round_has_its_counts_turned_round(vitbench: Cli, kept: Path) -> None:
    out = vitbench("fit", f"runs={kept.with_name('runs.csv')}", "against=vit pe=none", "format=csv").out
    counts = [line for line in out.splitlines() if line.startswith("resnet,vit pe=none,45000,only_")]
    assert counts[:2] == [
        "resnet,vit pe=none,45000,only_model_right,200,,,1,seed 0",
        "resnet,vit pe=none,45000,only_against_right,0,,,1,seed 0",
    ]


def test_a_second_report_changes_no_byte_and_one_without_predictions_removes_the_file(
    vitbench: Cli, kept: Path, runs: Path
) -> None:
    before = kept.read_bytes()
    assert vitbench("report", "study=shares.yaml").code == 0 and kept.read_bytes() == before
    for path in runs.glob("*/predictions.npy"):
        path.unlink()
    done = vitbench("report", "study=shares.yaml")
    assert "no McNemar: runs/none-1.0-0/predictions.npy: No such file" in done.err
    assert not kept.exists() and "McNemar" not in kept.with_name("fit.md").read_text()
    assert vitbench("report", "check=true").code == 0


def test_a_report_without_some_runs_keeps_their_rows_and_counts(
    vitbench: Cli, kept: Path, runs: Path, tmp_path: Path
) -> None:
    files = sorted((tmp_path / "results").rglob("*.*"))
    before = [path.read_bytes() for path in files]
    for seed in range(2):
        shutil.rmtree(runs / f"learned-1.0-{seed}")
    done = vitbench("report", "study=shares.yaml")
    assert done.code == 0 and "runs.csv: 2 rows kept of runs that are not in runs\n" in done.err
    assert sorted((tmp_path / "results").rglob("*.*")) == files
    assert [path.read_bytes() for path in files if path.suffix != ".svg"] == [
        blob for path, blob in zip(files, before, strict=True) if path.suffix != ".svg"
    ]


def test_a_pair_that_lacks_one_prediction_is_left_out_whole(vitbench: Cli, kept: Path, runs: Path) -> None:
    (runs / "None-1.0-2" / "predictions.npy").unlink()
    vitbench("report", "study=shares.yaml")
    assert {line.split(",")[1] for line in kept.read_text().splitlines()[1:]} == {"vit pe=none"}
    assert vitbench("report", "check=true").code == 0
    assert "no McNemar: mcnemar.csv has no counts of" in kept.with_name("fit.md").read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("1000,0,200", "1000,0,2OO", "mcnemar.csv line 8: only_against is '2OO'; it must be a whole number"),
        ("vit pe=none,resnet,45000,0", "vit pe=nine,resnet,45000,0", "mcnemar.csv line 8: `vit pe=nine,resnet,45000,0"),
        ("1000,0,200", "1000,0,201", "fit.md line"),
        ("vit pe=none,resnet,45000,2,none-1.0-2,None-1.0-2,1000,100,100\n", "", "fit.md line"),
    ],
)
def test_a_damaged_cell_fails_the_check_in_one_line(vitbench: Cli, kept: Path, old: str, new: str, said: str) -> None:
    assert old in kept.read_text()
    kept.write_text(kept.read_text().replace(old, new, 1))
    kept.with_name(SUMS).unlink()  # else they say it before
    done = vitbench("report", "check=true")
    assert (done.code, done.out) == (3, "") and done.err.count("\n") == 1
    assert done.err.startswith(f"vitbench: results/shares/{said}")
