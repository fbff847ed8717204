"""Differences from a line of a table, paired by seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.comparing.printed import groups_named, printed, rows_of
from tests.conftest import Output
from vitbench.comparing import formats, table
from vitbench.comparing.select import select_runs
from vitbench.errors import UserError

Cli = Callable[..., Output]


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    """Makes runs of two models whose seeds move both alike, and far more than the models differ."""
    for seed, (vit, resnet) in enumerate([(0.30, 0.40), (0.40, 0.52), (0.50, 0.60)]):
        fake_runs.write(tmp_path / "runs", f"vit-{seed}", vit, seed=seed, result_shift=vit / 10)
        fake_runs.write(
            tmp_path / "runs", f"resnet-{seed}", resnet, seed=seed, result_shift=resnet / 10, **{"model.name": "resnet"}
        )
    return tmp_path / "runs"


@pytest.mark.parametrize("columns", [None, "data.fraction"])
def test_differences_are_paired_by_seed(paired: Path, columns: str | None) -> None:
    (group,) = groups_named(printed(paired, "json", against="resnet", columns=columns))
    half = 4.30265 * 0.011547 / 3**0.5  # the differences are -0.10, -0.12 and -0.10
    assert group["test_accuracy_difference_mean"] == pytest.approx(-0.32 / 3)
    assert group["test_accuracy_difference_ci95_low"] == pytest.approx(-0.32 / 3 - half, rel=1e-4)
    assert group["against"] == ["resnet-0", "resnet-1", "resnet-2"] and group["runs"] == ["vit-0", "vit-1", "vit-2"]
    out = printed(paired, against="resnet", columns=columns)
    assert "test accuracy in points, minus that of resnet, paired by seed, mean ± 95 % interval over 3 seeds" in out
    assert "-10.7 ± 2.9" in out and "42" not in out.splitlines()[-1]  # neither an accuracy nor a cost
    assert "+10.7 ± 2.9" in printed(paired, against="vit pe=learned", columns=columns)


def test_several_results_have_their_differences_side_by_side(paired: Path) -> None:
    head, line = printed(paired, value=["test_accuracy", "shift"], against="resnet").splitlines()[2:5:2]
    assert "test accuracy, points" in head and "shift" in head
    assert "-10.7 ± 2.9" in line and "-0.0107 ± 0.0029" in line
    assert {row["metric"] for row in rows_of(printed(paired, "csv", against="resnet"))} == {"test_accuracy_difference"}


def test_a_table_of_differences_says_how_small_a_difference_its_seeds_show(paired: Path) -> None:
    smallest = (4.30265 + 1.06066) * 0.011547 / 3**0.5  # the differences are -0.10, -0.12 and -0.10
    said = "! smallest true difference that this many seeds would show in four of five studies (80 % power): "
    assert f"{said}3.6 points\n" in printed(paired, against="resnet")
    several = printed(paired, value=["test_accuracy", "shift"], against="resnet")
    assert f"{said}test accuracy 3.6 points, shift 0.0036\n" in several
    (row,) = rows_of(printed(paired, "csv", against="resnet"))
    assert float(row["smallest_difference"]) == pytest.approx(smallest, rel=1e-4)
    (group,) = groups_named(printed(paired, "json", against="resnet"))
    assert group["test_accuracy_difference_smallest_difference"] == pytest.approx(smallest, rel=1e-4)
    assert "smallest true difference" in printed(paired, "tex", against="resnet")
    assert "smallest true difference" not in printed(paired)


def test_many_differences_say_the_median_and_the_range_of_what_they_show(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=3)
    for name, more in (("none-0.05-0", 0.02), ("learned-1.0-0", 0.04)):
        path = tmp_path / "runs" / name / "record.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"test_accuracy": record["test_accuracy"] + more}))
    out = printed(tmp_path / "runs", rows=["model", "pe"], columns="data.fraction", against="resnet")
    assert "(80 % power): 5.4 points (median of 2; 3.6 to 7.2)" in out  # the other differences do not vary


def test_the_interval_of_two_seeds_stands_beside_its_n(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=2)
    assert "over 2 seeds" in printed(tmp_path / "runs", rows=["model", "pe"], columns="data.fraction")
    fake_runs.write(tmp_path / "runs", "more", 0.4, **{"model.pe.name": "learned", "data.fraction": 1.0, "seed": 2})
    out = printed(tmp_path / "runs", rows=["model", "pe"], columns="data.fraction")
    assert "(n=2)" in out and "(n=3)" in out


def test_a_table_of_differences_leaves_the_costs_of_others_alone(tmp_path: Path, vitbench: Cli) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    selected = select_runs(str(tmp_path / "runs"), {})
    levels = table.build_table("levels", selected, columns="data.fraction")
    differences = table.build_table("differences", selected, columns="data.fraction", against="resnet")
    first, second = json.loads(formats.render_tables("json", [levels, differences], "", []))["tables"]
    assert first["groups"][0]["parameters"] == 450_000 and "parameters" not in second["groups"][0]


def test_a_seed_that_one_of_two_lacks_is_in_no_difference(paired: Path) -> None:
    fake_runs.write(paired, "vit-3", 0.9, seed=3)
    fake_runs.write(paired, "vit-small", 0.2, **{"data.fraction": 0.1})
    groups = groups_named(printed(paired, "json", against="resnet", columns="data.fraction"))
    assert [group["n"] for group in groups] == [3]  # the run on 10 % of the images has no partner
    assert groups[0]["test_accuracy_difference_mean"] == pytest.approx(-0.32 / 3)


@pytest.mark.parametrize("words", ["init=null", "'init=null'"])
def test_settings_give_each_line_a_reference_of_its_own(tmp_path: Path, vitbench: Cli, words: str) -> None:
    for model in ("vit", "resnet"):
        for seed, (scratch, pretrained) in enumerate([(0.3, 0.4), (0.4, 0.51)]):
            more = 0.2 * (model == "resnet") * (seed + 1)
            fake_runs.write(
                tmp_path / "runs", f"{model}-{seed}", scratch, seed=seed, **{"model.name": model, "init": None}
            )
            fake_runs.write(
                tmp_path / "runs",
                f"{model}-{seed}-i",
                pretrained + more,
                seed=seed,
                **{"model.name": model, "init": "other-run"},
            )
    out = vitbench("table", f"against={words}", "rows=[model,init]", "show=mean").out
    assert [line.split() for line in out.splitlines()[4:6]] == [
        ["vit", "other-run", "learned", "+10.5", "2"],
        ["resnet", "other-run", "-", "+40.5", "2"],
    ]


def test_a_line_without_a_counterpart_is_named_and_compared_with_nothing_else(tmp_path: Path) -> None:
    for seed in range(2):
        for model, init in (("vit", None), ("vit", "pre"), ("resnet", None)):
            fake_runs.write(
                tmp_path / "runs", f"{model}-{init}-{seed}", 0.5, seed=seed, **{"model.name": model, "init": init}
            )
    runs = select_runs(str(tmp_path / "runs"), {})
    made = table.build_table("", runs, rows=["model", "init"], against="model=resnet")
    assert [group.settings["init"] for group in made.groups] == [None]  # there is no pretrained ResNet
    assert "no model=resnet to compare with: vit init=pre pe=learned" in made.notes
    with pytest.raises(UserError, match="against=init=pre: no line is like another but for that"):
        table.build_table(
            "", runs.filtered({"id": ["vit-pre-0", "resnet-None-0"]}), rows=["model", "init"], against="init=pre"
        )


@pytest.mark.parametrize("words", ["data.fraction=0.2", "data.fraction=0.20"])
def test_numbers_of_a_reference_compare_by_value(tmp_path: Path, words: str) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    made = table.build_table(
        "", select_runs(str(tmp_path / "runs"), {}), rows=["model", "pe", "data.fraction"], against=words
    )
    assert len(made.groups) == 6 and {group.settings["data.fraction"] for group in made.groups} == {0.05, 1.0}


def test_a_cnn_is_a_reference_for_every_encoding_and_has_none_among_them(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    layout = {"rows": ["model", "pe"], "columns": "data.fraction"}
    by_name = groups_named(printed(tmp_path / "runs", "json", against="resnet", **layout))
    assert (
        by_name == groups_named(printed(tmp_path / "runs", "json", against="model=resnet", **layout))
        and len(by_name) == 6
    )
    of_none = groups_named(printed(tmp_path / "runs", "json", against="pe=none", **layout))
    assert {group["settings"]["pe"] for group in of_none} == {"learned"}  # type: ignore[index]
