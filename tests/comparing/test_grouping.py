"""Which runs `vitbench table` averages, which it keeps apart, and what it says of mixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.comparing.printed import groups_named, printed, rows_of
from tests.conftest import Output
from vitbench.comparing import table
from vitbench.comparing.grouping import groups_of, lines_along
from vitbench.comparing.select import select_runs

Cli = Callable[..., Output]


def test_seeds_are_averaged_and_nothing_else_is(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=3)
    rows = rows_of(printed(tmp_path / "runs", "csv"))
    assert len(rows) == 9 and {row["n"] for row in rows} == {"3"}
    best = next(row for row in rows if row["model"] == "resnet" and row["data.fraction"] == "1")
    assert float(best["mean"]) == pytest.approx(0.60)
    assert float(best["ci95_high"]) == pytest.approx(0.60 + 4.30265 * 0.01 / 3**0.5, rel=1e-5)


@pytest.mark.parametrize(
    "key", ["optim.lr", "model.mlp_ratio", "data.noise", "pe.theta", "augment.crop", "a.new.setting"]
)
def test_any_other_setting_that_varies_separates_and_is_shown(tmp_path: Path, key: str) -> None:
    for seed in (0, 1):
        for value in (0.1, 0.2):
            changed = {key.replace("pe.", "model.pe."): value, "seed": seed}
            fake_runs.write(tmp_path, f"{value}-{seed}", value + seed / 100, **changed)
    made = table.build_table("", select_runs(str(tmp_path), {}))
    assert made.keys == [key]
    assert [(group.settings[key], len(group.rows)) for group in made.groups] == [(0.1, 2), (0.2, 2)]


def test_runs_of_as_many_steps_are_one_line_however_they_asked_for_them(tmp_path: Path) -> None:
    budgets = {0.01: {"optim.steps": None, "optim.epochs": 40.0, "optim.min_steps": 4000}, 1.0: {"optim.steps": 4000}}
    for share, budget in budgets.items():
        for seed in range(2):
            settings = {"data.fraction": share, "seed": seed, "result_steps": 4000} | budget
            fake_runs.write(tmp_path, f"{share}-{seed}", 0.5 * share + seed / 100, **settings)
    assert [line.name for line in lines_along(groups_of(select_runs(str(tmp_path), {})), "train_images")] == [""]
    fake_runs.write(tmp_path, "longer", 0.9, **{"optim.steps": 9000, "result_steps": 9000})
    assert len(lines_along(groups_of(select_runs(str(tmp_path), {})), "train_images")) == 3
    assert len(lines_along(groups_of(select_runs(str(tmp_path), {"steps": 4000})), "train_images")) == 1


@pytest.mark.parametrize("key", ["data.subset_seed", "eval_every", "data.root", "data.cache", "machine.device", "runs"])
def test_what_decides_no_number_does_not_separate(tmp_path: Path, key: str) -> None:
    for value in (1, 2):
        setting = value if key in ("data.subset_seed", "eval_every") else f"{value}"
        fake_runs.write(tmp_path, str(value), 0.5 + value / 100, **{"seed": value, key: setting})
    assert [len(group.rows) for group in groups_of(select_runs(str(tmp_path), {}))] == [2]


def test_a_setting_that_follows_from_the_model_is_not_shown(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    head = printed(tmp_path / "runs", "csv").splitlines()[0]
    assert head.startswith("model,pe,data.fraction,metric,")  # neither optim nor optim.lr


def test_choices_are_in_the_order_of_their_menus_and_numbers_by_size(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    rows = rows_of(printed(tmp_path / "runs", "csv"))
    assert [(row["pe"], row["data.fraction"]) for row in rows] == [
        (pe, fraction) for pe in ("none", "learned", "") for fraction in ("0.05", "0.2", "1")
    ]


def test_a_pivot_adds_what_was_not_asked_for_rather_than_averaging_it(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    out = printed(tmp_path / "runs", rows="model", columns="data.fraction")
    lines = [line.split() for line in out.splitlines()[4:]]
    assert [line[:2] for line in lines] == [["vit", "none"], ["vit", "learned"], ["resnet", "-"]]
    assert lines[2][2:5] == ["36.0", "±", "6.4"]


def test_diverged_runs_are_counted_and_in_no_mean(tmp_path: Path) -> None:
    for seed, accuracy in enumerate([0.4, None, 0.5]):
        fake_runs.write(tmp_path / "runs", str(seed), accuracy, seed=seed)
    out = printed(tmp_path / "runs")
    assert "1 of 3 runs diverged" in out and " 45.0 ± " in out
    (group,) = groups_named(printed(tmp_path / "runs", "json"))
    assert (group["n"], group["diverged"]) == (2, 1)


def test_different_images_under_one_name_are_flagged_and_kept_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake_runs.write(tmp_path / "runs", str(seed), 0.4 + seed / 10, seed=seed, result_data_fingerprint=f"f{seed}")
    out = printed(tmp_path / "runs")
    assert "WRONG: runs of the same settings saw different images" in out
    assert [group["n"] for group in groups_named(printed(tmp_path / "runs", "json"))] == [1, 1]


def test_a_copied_run_is_flagged(tmp_path: Path) -> None:
    fake_runs.write(tmp_path / "runs", "a", 0.4)
    fake_runs.write(tmp_path / "runs", "a-copy", 0.4)
    assert "WRONG: 1 run too many, of the settings and seed of another" in printed(tmp_path / "runs")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"result_commit": "fedcba"}, "mixed commit: 0123456789 (1 run), fedcba (1 run)"),
        ({"result_hardware": {"precision": "bfloat16"}}, "mixed hardware.precision"),
        ({"result_versions": {"torch": "2.11"}}, "mixed versions.torch"),
        ({"result_hardware": {"processes": 2}}, "mixed hardware.processes: 1 (1 run), 2 (1 run)"),
    ],
)
def test_mixtures_are_flagged(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    fake_runs.write(tmp_path / "runs", "a", 0.4, seed=0)
    fake_runs.write(tmp_path / "runs", "b", 0.5, seed=1, **changed)
    assert said in printed(tmp_path / "runs")


def test_costs_that_are_not_matched_are_said(tmp_path: Path) -> None:
    from vitbench.comparing.grouping import cost_warnings

    rows = [
        {"model": "vit", "model.size": "nano", "multiply_adds": 30e6},
        {"model": "resnet", "model.size": "nano", "multiply_adds": 20e6},
    ]
    assert cost_warnings(rows) == [
        "multiply-adds of size nano are not matched here: vit has 1.50 times those of resnet"
    ]
    assert cost_warnings([row | {"multiply_adds": 20e6} for row in rows]) == []
