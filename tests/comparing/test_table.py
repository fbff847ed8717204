from __future__ import annotations

import csv
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.comparing import formats, table
from vitbench.comparing.grouping import groups_of, lines_along
from vitbench.comparing.select import select_runs
from vitbench.errors import UserError, check_choice
from vitbench.numbers.words import printable, shown_number
from vitbench.runs.records import run_folders

Cli = Callable[..., Output]
NASTY = ["<script>alert(1)</script>", "a_b%$#{}", "=cmd|'/C calc'!A0", "x\x1b[31m\ny", "[bold]no[/bold]", "ümläut"]


def groups_named(text: str) -> list[dict[str, object]]:
    return json.loads(text)["tables"][0]["groups"]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def printed(runs: Path, form: str = "text", **layout: object) -> str:
    """Returns what `vitbench table` prints, without going through the command line."""
    selected = select_runs(str(runs), {})
    return formats.render_tables(form, [table.build_table("", selected, **layout)], "", selected.notes)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- grouping


def test_seeds_are_averaged_and_nothing_else_is(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=3)
    rows = rows_of(printed(tmp_path / "runs", "csv"))
    assert len(rows) == 9 and {row["n"] for row in rows} == {"3"}
    best = next(row for row in rows if row["model"] == "resnet" and row["data.fraction"] == "1")
    assert float(best["mean"]) == pytest.approx(0.60)
    assert float(best["ci95_high"]) == pytest.approx(0.60 + 4.30265 * 0.01 / 3**0.5, rel=1e-5)


@pytest.mark.parametrize("key", ["optim.lr", "model.width", "data.noise", "pe.theta", "augment.crop", "a.new.setting"])
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
        fake_runs.write(tmp_path, str(value), 0.5 + value / 100, **{"seed": value, key: value})
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


# --------------------------------------------------------------------------------------------------------- filters


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


# ------------------------------------------------------------------------------------------------------ differences


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
    assert "test accuracy in points, minus that of resnet, paired by seed, mean ± 95 % interval over n=3 seeds" in out
    assert "-10.7 ± 2.9" in out and "42" not in out.splitlines()[-1]  # neither an accuracy nor a cost
    assert "+10.7 ± 2.9" in printed(paired, against="vit pe=learned", columns=columns)


def test_several_results_have_their_differences_side_by_side(paired: Path) -> None:
    head, line = printed(paired, value=["test_accuracy", "shift"], against="resnet").splitlines()[2:5:2]
    assert "test accuracy, points" in head and "shift" in head
    assert "-10.7 ± 2.9" in line and "-0.0107 ± 0.0029" in line
    assert {row["metric"] for row in rows_of(printed(paired, "csv", against="resnet"))} == {"test_accuracy_difference"}


def test_a_table_of_differences_says_how_small_a_difference_its_seeds_show(paired: Path) -> None:
    smallest = (4.30265 + 1.06066) * 0.011547 / 3**0.5  # the differences are -0.10, -0.12 and -0.10
    said = "! smallest difference that so many seeds show with 80 % power: "
    assert f"{said}3.6 points\n" in printed(paired, against="resnet")
    several = printed(paired, value=["test_accuracy", "shift"], against="resnet")
    assert f"{said}test_accuracy 3.6 points, shift 0.0036\n" in several
    (row,) = rows_of(printed(paired, "csv", against="resnet"))
    assert float(row["smallest_difference"]) == pytest.approx(smallest, rel=1e-4)
    (group,) = groups_named(printed(paired, "json", against="resnet"))
    assert group["test_accuracy_difference_smallest_difference"] == pytest.approx(smallest, rel=1e-4)
    assert "smallest difference" in printed(paired, "tex", against="resnet")
    assert "smallest difference" not in printed(paired)


def test_many_differences_say_the_median_and_the_range_of_what_they_show(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=3)
    for name, more in (("none-0.05-0", 0.02), ("learned-1.0-0", 0.04)):
        path = tmp_path / "runs" / name / "record.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"test_accuracy": record["test_accuracy"] + more}))
    out = printed(tmp_path / "runs", rows=["model", "pe"], columns="data.fraction", against="resnet")
    assert "with 80 % power: 5.4 points (median of 2; 3.6 to 7.2)" in out  # the other differences do not vary


def test_the_interval_of_two_seeds_stands_beside_its_n(tmp_path: Path) -> None:
    fake_runs.quickstart(tmp_path / "runs", seeds=2)
    assert "over n=2 seeds" in printed(tmp_path / "runs", rows=["model", "pe"], columns="data.fraction")
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


# ------------------------------------------------------------------------------------------------ degenerate networks


def write_probed(runs: Path, accuracies: dict[str, tuple[float, ...]], **results: object) -> None:
    for model, of_seeds in accuracies.items():
        for seed, accuracy in enumerate(of_seeds):
            probed = {"result_probe": {"steadiness": 0.8 + seed / 100}} | results
            fake_runs.write(runs, f"{model}-{seed}", accuracy, **{"model.name": model, "seed": seed}, **probed)


def test_a_network_at_chance_is_marked_and_explained(tmp_path: Path) -> None:
    # 112 right of 1,000 are still inside chance, and 125 are not
    write_probed(tmp_path, {"vit": (0.096, 0.112, 0.125), "resnet": (0.5, 0.52, 0.54)})
    note = "! † 2 of 6 runs are at chance, or give nearly all images one class: what a probe measures of them is the"
    out = printed(tmp_path, value="probe.steadiness")
    assert out.count("†") == 2 and "0.810 ± 0.025†" in out and note in out
    out = printed(tmp_path, value="probe.steadiness", against="resnet", show="mean")
    assert out.count("†") == 2 and note in out
    assert r"$\dagger$" in printed(tmp_path, "tex", value="probe.steadiness")
    assert {row["model"]: row["degenerate"] for row in rows_of(printed(tmp_path, "csv", value="probe.steadiness"))} == {
        "vit": "2",
        "resnet": "0",
    }
    assert [g["degenerate"] for g in groups_named(printed(tmp_path, "json", value="probe.steadiness"))] == [2, 0]


def test_an_accuracy_is_not_marked(tmp_path: Path) -> None:
    write_probed(tmp_path, {"vit": (0.096, 0.1)}, result_probe={"accuracy": 0.1})
    assert "†" not in printed(tmp_path, value=["test_accuracy", "probe.accuracy"])


def test_a_probes_flag_marks_a_network_and_before_training_only_its_own(tmp_path: Path) -> None:
    flags = {"shift": {"crop": {"consistency": 1.0, "degenerate": 1}}, "lee": {"logit": 0.1}}
    write_probed(tmp_path, {"vit": (0.5, 0.5)}, result_shift=flags["shift"], result_lee=flags["lee"])
    assert "†" in printed(tmp_path, value="shift.crop.consistency")
    assert "†" in printed(tmp_path, value="lee.logit")
    write_probed(tmp_path / "init", {"vit": (0.5, 0.5)}, result_init=flags)
    assert "†" in printed(tmp_path / "init", value="init.shift.crop.consistency")
    assert "†" not in printed(tmp_path / "init", value="init.lee.logit")


# ---------------------------------------------------------------------------------------------------------- studies


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
    assert done.out.splitlines()[-1].startswith("Easy drawings of 16 px")
    assert "not-of-the-study" not in vitbench("table", "study=quickstart", "format=json").out


def test_the_command_line_changes_a_studys_table(quickstart: Path, vitbench: Cli) -> None:
    out = vitbench("table", "study=quickstart", "columns=pe", "show=mean", "value=test_error").out
    assert "pe=none" in out and "test error in %, mean over" in out and "±" not in out


# ---------------------------------------------------------------------------------------------------------- formats


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    for i, name in enumerate(NASTY):
        fake_runs.write(tmp_path / "runs", str(i), 0.5, **{"data.name": name})
    return tmp_path / "runs"


@pytest.mark.parametrize("form", ["text", "md", "csv", "tex", "json"])
def test_a_file_holds_what_would_be_printed(tmp_path: Path, vitbench: Cli, form: str) -> None:
    fake_runs.quickstart(tmp_path / "runs")
    text = vitbench("table", f"format={form}").out
    ending = next(ending for ending, name in formats.TABLE_ENDINGS.items() if name == form)
    done = vitbench("table", f"file=out/t{ending}")
    assert done.out == f"out/t{ending}\n" and (tmp_path / "out" / f"t{ending}").read_text() == text
    assert os.listdir(tmp_path / "out") == [f"t{ending}"]


def test_markdown_keeps_names_as_text(nasty: Path) -> None:
    out = printed(nasty, "md")
    assert "<" not in out and "&lt;script&gt;" in out and r"a\_b%\$\#{}" in out and r"=cmd\|'/C calc'!A0" in out
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1 and "\x1b" not in out


def test_latex_keeps_names_as_text(nasty: Path) -> None:
    out = printed(nasty, "tex")
    assert r"a\_b\%\$\#\{\}" in out and r"\textless{}script\textgreater{}" in out and r"$\pm$" in out
    assert r"{[}bold{]}no" in out and "\x1b" not in out


def test_csv_starts_no_formula(nasty: Path) -> None:
    names = {row["data"] for row in rows_of(printed(nasty, "csv"))}
    assert names == {"'" + NASTY[2] if name == NASTY[2] else printable(name) for name in NASTY}


def test_json_holds_names_and_numbers_unchanged(nasty: Path) -> None:
    fake_runs.write(nasty, "precise", 0.123456789012345, **{"data.name": "z"})
    found = {group["settings"]["data"]: group for group in groups_named(printed(nasty, "json"))}  # type: ignore[index]
    assert set(found) == {*NASTY, "z"} and found["z"]["test_accuracy_mean"] == 0.123456789012345
    assert found["z"]["test_accuracy_ci95_low"] is None


def test_several_tables_are_no_csv(quickstart: Path, vitbench: Cli, tmp_path: Path) -> None:
    text = "runs: [model=vit seed=0]\ntables: {a: {}, b: {value: test_loss}}\n"
    (tmp_path / "two.yaml").write_text(text)
    fake_runs.write(tmp_path / "runs", planned_id(tmp_path / "two.yaml"), 0.5)
    assert "choose with name=: a, b" in vitbench("table", "study=two.yaml", "format=csv").err
    assert vitbench("table", "study=two.yaml", "format=csv", "name=b").out.count("test_loss") == 1
    both = vitbench("table", "study=two.yaml").out
    assert "\na: test accuracy in %" in both and "\nb: test loss" in both


def planned_id(path: Path) -> str:
    from vitbench.runs.plan import planned_ids
    from vitbench.runs.study import load_study

    return planned_ids(load_study(str(path)), path.parent / "runs")[0]


@pytest.mark.parametrize("width", [200, 100, 80])
def test_a_terminal_gets_every_number_whole(
    tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    runs = select_runs(str(fake_runs.quickstart(tmp_path)), {})
    made = table.build_table("", runs, rows=["model", "pe"], columns="data.fraction")
    formats.print_rich([made], "[bold]title[/bold]", [])
    out = capsys.readouterr().out
    assert out.startswith("[bold]title[/bold]\n") and max(map(len, out.splitlines())) <= width
    assert all(cell in out for line in made.lines for cell in line)


def test_a_narrow_terminal_folds_and_cuts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    made = table.build_table("", select_runs(str(fake_runs.quickstart(tmp_path)), {}), columns="data.fraction")
    formats.print_rich([made], "", [])
    out = capsys.readouterr().out
    assert "…" not in out and sum(out.count(c) for c in "0123456789") >= sum(
        c.isdigit() for line in made.lines for cell in line for c in cell
    )


# ---------------------------------------------------------------------------------------------------------- process


def command(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = (
        "import sys; from vitbench import cli; code = cli.run(sys.argv[1:]);"
        "sys.exit(code or ('torch is imported' if 'torch' in sys.modules else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        cwd=cwd,
        capture_output=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done


def test_a_pipe_in_an_ascii_locale_gets_everything_without_torch_or_folders(nasty: Path) -> None:
    before = sorted(nasty.parent.rglob("*"))
    done = command("table", cwd=nasty.parent, LC_ALL="C", PYTHONIOENCODING="ascii", COLUMNS="20")
    assert done.stderr == b"" and b"50.0 +- n/a" in done.stdout and b"\\xfcml\\xe4ut" in done.stdout
    assert b"\x1b" not in done.stdout and sorted(nasty.parent.rglob("*")) == before


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


def test_numbers_for_people_keep_their_size() -> None:
    assert [shown_number("multiply_adds", n, 0) for n in (450_000, 14_900_000, 1_297_829_888, 4_000)] == [
        "0.45 M",
        "14.9 M",
        "1,298 M",
        "0.004 M",
    ]
    with pytest.raises(UserError, match="did you mean"):
        check_choice("value", "test_acuracy", ["test_accuracy"])


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
    assert "samples_seen=6400" in out and "25600" in out and "optim.epochs" not in out
    (row,) = [line for line in out.splitlines() if line.split()[1:2] == ["0.1"]]
    assert row.split()[2:4] == ["68.5", "48.5"]
