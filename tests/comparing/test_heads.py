"""Heads and captions of tables say in words what stands there, and what one types for it stays findable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.comparing.printed import groups_named, printed, rows_of
from tests.conftest import Output
from vitbench.comparing import formats, table
from vitbench.comparing.select import select_runs

Cli = Callable[..., Output]
STEADY = "shift.crop.conditional_consistency"
PROBED = {"result_shift": {"crop": {"conditional_consistency": 0.9}}}


def images_of(fraction: float) -> dict[str, object]:
    return {"data.fraction": fraction, "result_train_images": round(4500 * fraction)}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two networks at three shares, each with one number of images."""
    for model in ("vit", "resnet"):
        for fraction in (0.1, 0.3, 1.0):
            fake_runs.write(
                tmp_path / "runs", f"{model}-{fraction}", 0.5, **{"model.name": model}, **images_of(fraction), **PROBED
            )
    return tmp_path / "runs"


def test_shares_of_the_images_are_told_as_their_numbers(runs: Path) -> None:
    assert "450 images  1,350  4,500" in printed(runs, columns="data.fraction")
    lines = printed(runs, rows=["model", "data.fraction"]).splitlines()
    assert lines[2].split()[:2] == ["model", "images"] and lines[2].count("images ") == 1
    assert [line.split()[1] for line in lines[4:7]] == ["450", "1,350", "4,500"]
    assert {row["data.fraction"] for row in rows_of(printed(runs, "csv", columns="data.fraction"))} == {
        "0.1",
        "0.3",
        "1",
    }


def test_a_share_that_is_several_numbers_of_images_stays_a_share(runs: Path) -> None:
    fake_runs.write(runs, "more", 0.5, **{"model.name": "mixer", "data.fraction": 0.1, "result_train_images": 100})
    assert "data.fraction=0.1" in printed(runs, columns="data.fraction")
    assert " data.fraction " in printed(runs, rows=["model", "data.fraction"])


def test_the_head_of_a_result_is_short_and_its_caption_long_and_a_line_says_what_to_type(runs: Path) -> None:
    one, two = printed(runs, value=STEADY), printed(runs, value=["test_accuracy", STEADY])
    long = "same class after small mirrored shifts where the first copy is right"
    assert one.startswith(f"{long} (share of pairs), one seed") and f"typed as value={STEADY}\n" in one
    assert f"\nsteady if right, mirrored = {STEADY}: {long}, share of pairs\n" in two and "test accuracy =" not in two
    for text in (one, two):
        assert "steady if right, mirrored" in text.splitlines()[2]
    assert f"- steady if right, mirrored = {STEADY.replace('_', chr(92) + '_')}: {long}" in printed(
        runs, "md", value=["test_accuracy", STEADY]
    )


def test_csv_and_json_call_a_result_as_it_is_typed(runs: Path) -> None:
    assert {row["metric"] for row in rows_of(printed(runs, "csv", value=STEADY))} == {STEADY}
    assert f"{STEADY}_mean" in groups_named(printed(runs, "json", value=STEADY))[0]


def test_where_no_line_has_two_runs_means_stand_alone(runs: Path) -> None:
    assert "±" not in printed(runs) and "one seed" in printed(runs)
    fake_runs.write(runs, "second", 0.6, seed=1, **{"model.name": "vit"}, **images_of(0.1), **PROBED)
    out = printed(runs)
    assert "50.0 ± n/a" in out and "! n/a: no interval from one run" in out


def test_a_wide_table_has_its_lines_side_by_side_in_a_narrow_terminal(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    selected = select_runs(str(runs), {"data.fraction": 1})
    values = ["test_accuracy", "test_loss", STEADY, "train_seconds", "parameters", "images_per_second"]
    for width, head in ((60, "vit"), (160, "test accuracy, %")):
        monkeypatch.setenv("COLUMNS", str(width))
        made = table.build_table("", selected, value=values)
        formats.print_rich([made], "", [])
        out = capsys.readouterr().out
        assert head in next(line for line in out.splitlines() if "resnet" in line or "test accuracy" in line)
        assert all(cell in out for line in made.lines for cell in line if cell != "-")


LACKING = [
    ("value=[test_accuracy,shuffle.area]", "no run has shuffle.area; `vitbench probe probe=shuffle` measures it"),
    (
        "value=[test_accuracy,lee.abs,lee.logit]",
        "no run has lee.abs, lee.logit; `vitbench probe probe=lie` measures them",
    ),
    ("value=[test_accuracy,init.lee.abs]", "`vitbench probe probe=lie checkpoint=init` measures it"),
    ("value=[test_accuracy,shift.worst8.accuracy]", "`vitbench probe probe=shift` gave other numbers, and not it"),
    ("value=[test_accuracy,cka.twin.last]", "no run has cka.twin.last; `vitbench probe probe=cka` measures it"),
]


@pytest.mark.parametrize(("words", "said"), LACKING)
@pytest.mark.parametrize(
    "more", [[], ["against=model=resnet"], ["show=sd"], ["format=md"], ["rows=[model,data.fraction]"]]
)
def test_a_table_is_printed_without_what_no_run_has_and_says_what_measures_it(
    vitbench: Cli, runs: Path, words: str, said: str, more: list[str]
) -> None:
    done = vitbench("table", words, *more)
    assert done.code == 0 and "test accuracy" in done.out, done.err
    assert said in done.out.replace("\\", "").replace("&#39;", "'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["value=shuffle.area"],
            "value=shuffle.area: no run has shuffle.area; `vitbench probe probe=shuffle` measures",
        ),
        (["value=shuffle.area", "matched=test_accuracy"], "`vitbench probe probe=shuffle` measures it"),
        ([f"value={STEADY}", "matched=linear.accuracy"], "`vitbench probe probe=linear` measures it"),
        (["value=linear.accuracy", "whole=resnet"], "`vitbench probe probe=linear` measures it"),
        (["value=shuffle.area", "columns=data.fraction"], "`vitbench probe probe=shuffle` measures it"),
        (["value=[test_accuracy,shift.crop.consistncy]"], "value=shift.crop.consistncy: did you mean shift.crop."),
        (["value=[test_accuracy,shufle.area]"], "value=shufle.area: choices: "),
    ],
)
def test_a_table_of_nothing_and_a_misspelt_result_are_refused(
    vitbench: Cli, runs: Path, words: list[str], said: str
) -> None:
    done = vitbench("table", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err
