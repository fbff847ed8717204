from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.comparing import formats
from vitbench.comparing.matched import usual_pairs
from vitbench.comparing.select import Runs, select_runs
from vitbench.comparing.table import build_table

Cli = Callable[..., Output]
VIT, RESNET = (0.30, 0.40, 0.50), (0.40, 0.50, 0.60)


def write_line(runs: Path, accuracies: tuple[float, ...], offset: float = 0.0, **settings: object) -> None:
    """Writes a line of three sizes and three seeds whose probe is half the accuracy plus an offset."""
    name = "-".join(str(value) for value in settings.values())
    for fraction, accuracy in zip((0.1, 0.3, 1.0), accuracies, strict=True):
        for seed in range(3):
            seen = accuracy + 0.01 * seed
            changed = {"data.fraction": fraction, "seed": seed, "result_probe": {"steadiness": seen / 2 + offset}}
            fake_runs.write(runs, f"{name}-{fraction}-{seed}", seen, **changed, **settings)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_line(tmp_path / "runs", VIT, **{"model.name": "vit"})
    write_line(tmp_path / "runs", RESNET, **{"model.name": "resnet"})
    return tmp_path / "runs"


def printed(runs: Runs, form: str, **layout: object) -> str:
    asked = {"value": "probe.steadiness", "matched": "test_accuracy"} | layout
    return formats.render_tables(form, [build_table("", runs, **asked)], "", [])  # type: ignore[arg-type]


def by_equal(runs: Runs, **layout: object) -> dict[str, dict[str, str]]:
    return {row["at_equal"]: row for row in csv.DictReader(io.StringIO(printed(runs, "csv", **layout)))}


@pytest.mark.known_answer
def test_one_function_of_accuracy_differs_at_equal_images_only(runs: Path) -> None:
    rows = by_equal(select_runs(str(runs), {}))
    assert float(rows["test_accuracy"]["mean"]) == pytest.approx(0, abs=1e-12)
    assert float(rows["train_images"]["mean"]) == pytest.approx(-0.05)
    # the seeds' ranges are 40 to 50 %, 41 to 51 % and 42 to 52 %
    assert [float(rows["test_accuracy"][end]) for end in ("from", "to")] == pytest.approx([0.41, 0.51])
    assert [float(rows["train_images"][end]) for end in ("from", "to")] == [1000, 10_000]
    assert {(row["path"], row["reference"], row["n"]) for row in rows.values()} == {("train_images", "resnet", "3")}


@pytest.mark.known_answer
def test_an_offset_is_found_exactly(runs: Path) -> None:
    write_line(runs, RESNET, offset=0.07, **{"model.name": "vit", "model.pe.name": "rope"})
    rows = by_equal(select_runs(str(runs), {"pe": ["rope", None]}))
    assert float(rows["test_accuracy"]["mean"]) == pytest.approx(0.07)


def test_without_an_accuracy_that_both_reach_there_is_no_number_but_a_reason(tmp_path: Path) -> None:
    write_line(tmp_path, (0.20, 0.22, 0.24), **{"model.name": "vit"})
    write_line(tmp_path, RESNET, **{"model.name": "resnet"})
    selected = select_runs(str(tmp_path), {})
    said = "no test accuracy that both reach: one ends at 25.0 %, the other begins at 41.0 %"
    assert f"! vit pe=learned and resnet: {said}" in printed(selected, "text") and "none in common" in printed(
        selected, "text"
    )
    rows = by_equal(selected)
    assert rows["test_accuracy"]["mean"] == "" and said in rows["test_accuracy"]["reason"]
    assert float(rows["train_images"]["mean"]) == pytest.approx(-0.14) and rows["train_images"]["reason"] == ""


def test_a_seed_whose_ranges_do_not_meet_is_left_out_and_told(runs: Path) -> None:
    for seed, accuracy in enumerate((0.40, 0.41, 0.90)):  # the third begins above all that the ViT reaches
        for fraction, more in ((0.1, 0.0), (1.0, 0.05)):
            changed = {"data.fraction": fraction, "seed": seed, "result_probe": {"steadiness": accuracy}}
            fake_runs.write(runs, f"b-{fraction}-{seed}", accuracy + more, **changed, **{"model.name": "b"})
    table = build_table(
        "", select_runs(str(runs), {"model": ["vit", "b"]}), value="probe.steadiness", matched="test_accuracy"
    )
    assert [group.interval("").n for group in table.groups] == [2, 3]
    assert any("in 1 of 3 seeds, left out here" in note for note in table.notes)


def test_steps_are_the_path_where_images_do_not_vary(tmp_path: Path) -> None:
    for model, first in (("vit", 0.3), ("resnet", 0.35)):
        for steps in (100, 200):
            for seed in range(2):
                accuracy = first + steps / 1000 + seed / 100
                changed = {"optim.steps": steps, "seed": seed, "model.name": model}
                results = {"result_steps": steps, "result_probe": {"steadiness": accuracy}}
                fake_runs.write(tmp_path, f"{model}-{steps}-{seed}", accuracy, **changed, **results)
    rows = by_equal(select_runs(str(tmp_path), {}))
    assert {*rows} == {"test_accuracy", "steps"} and float(rows["steps"]["mean"]) == pytest.approx(-0.05)
    assert float(rows["test_accuracy"]["mean"]) == pytest.approx(0, abs=1e-12)


def test_one_seed_is_called_one_seed(runs: Path) -> None:
    one_seed = select_runs(str(runs), {"seed": 0})
    made = build_table("", one_seed, value="probe.steadiness", matched="test_accuracy")
    assert "paired by seed, one seed;" in made.caption and "over seeds" not in made.caption
    assert not any("±" in cell for line in made.lines for cell in line)


def test_kept_checkpoints_are_the_path_where_probes_measured_both_along_it(tmp_path: Path) -> None:
    for model in ("vit", "resnet"):
        fake_runs.write(tmp_path, model, 0.5, **{"model.name": model})
    selected = select_runs(str(tmp_path), {})
    for run, first in (("vit", 0.1), ("resnet", 0.2)):
        for step in (10, 20, 30):
            accuracy = first + step / 100
            for column, value in (("shift.crop.accuracy", accuracy), ("shift.crop.consistency", accuracy / 2)):
                selected.swept[run].append({"column": column, "at": float(step), "at_unit": "step", "value": value})
    rows = by_equal(selected, value="shift.crop.consistency", matched="shift.crop.accuracy")
    assert {*rows} == {"shift.crop.accuracy", "step"}
    assert float(rows["shift.crop.accuracy"]["mean"]) == pytest.approx(0, abs=1e-12)
    assert float(rows["step"]["mean"]) == pytest.approx(-0.05)


def test_a_network_at_chance_is_on_no_path(runs: Path) -> None:
    settings = {"data.fraction": 0.03, "seed": 0, "model.name": "vit", "result_probe": {"steadiness": 0.98}}
    expected = by_equal(select_runs(str(runs), {}))
    fake_runs.write(runs, "at-chance", 0.1, **settings)
    assert by_equal(select_runs(str(runs), {})) == expected
    assert "! left out: 1 of 19 runs, at chance" in printed(select_runs(str(runs), {}), "text")


@pytest.mark.parametrize("form", ["text", "md", "tex", "csv", "json"])
def test_every_format_names_path_range_and_both_differences(runs: Path, form: str) -> None:
    out = printed(select_runs(str(runs), {}), form)
    assert "resnet" in out and ("training images" in out or "train_images" in out)
    if form == "json":
        at_accuracy, at_images = json.loads(out)["tables"][0]["groups"]
        assert at_accuracy["from"] == pytest.approx(0.41) and at_accuracy["reference"] == "resnet"
        assert at_images["probe.steadiness_difference_mean"] == pytest.approx(-0.05)
    elif form != "csv":
        out = out.replace("$-$", "-").replace(r"\\", " ")  # of LaTeX, whose heads break
        assert "41.0 to 51.0" in out and "at equal test accuracy" in out and "-0.05" in out


def test_a_study_may_have_a_matched_table(runs: Path, tmp_path: Path, vitbench: Cli) -> None:
    study = tmp_path / "mine.yaml"
    words = "{value: probe.steadiness, matched: test_accuracy, against: resnet}"
    study.write_text(f"runs: [model=vit]\ntables: {{steadiness: {words}}}\n")
    from vitbench.comparing.table import TABLE_KEYS, choose_layouts
    from vitbench.runs.study import load_study

    (layout,) = choose_layouts({}, load_study(str(study)), "tables", TABLE_KEYS).values()
    assert "at equal test accuracy" in printed(select_runs(str(runs), {}), "text", **layout)


def test_usual_pairs_are_those_with_a_cnn_and_with_no_encoding(tmp_path: Path) -> None:
    for pe in ("none", "learned", "rope"):
        write_line(tmp_path, VIT, **{"model.name": "vit", "model.pe.name": pe})
    write_line(tmp_path, RESNET, **{"model.name": "resnet"})
    table = build_table("", select_runs(str(tmp_path), {}), value="probe.steadiness", matched="test_accuracy")
    pairs = {(group.settings["pe"], group.facts()["reference"]) for group in table.groups}
    assert pairs == {
        ("none", "resnet"),
        ("learned", "resnet"),
        ("rope", "resnet"),
        ("learned", "vit pe=none"),
        ("rope", "vit pe=none"),
    }
    assert usual_pairs([]) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["value=probe.steadiness", "matched=accuracy"], "matched=accuracy: did you mean"),
        (["value=probe.steadiness", "matched=test_loss"], "matched=test_loss: "),
        (["matched=test_accuracy"], "compares one result; say which with value="),
        (["value=[probe.steadiness,test_loss]", "matched=test_accuracy"], "compares one result"),
        (["value=probe.steadines", "matched=test_accuracy"], "value=probe.steadines: did you mean probe.steadiness"),
        (["value=probe.steadiness", "matched=test_accuracy", "columns=data.fraction"], "leave columns= out"),
        (["value=probe.steadiness", "matched=test_accuracy", "against=vgg"], "against=vgg: "),
        (["value=probe.steadiness", "matched=test_accuracy", "where.model=vit"], "no two lines to compare; there: vit"),
        (["value=probe.steadiness", "matched=test_accuracy", "where.data.fraction=1"], "no line has both at two sizes"),
    ],
)
def test_a_slip_gets_one_line(runs: Path, vitbench: Cli, words: list[str], said: str) -> None:
    out = vitbench("table", f"runs={runs}", *words)
    assert out.code == 2 and said in out.err and out.err.count("\n") == 1


def test_a_line_with_one_size_is_no_range(runs: Path) -> None:
    fake_runs.write(runs, "b", 0.45, **{"model.name": "b", "result_probe": {"steadiness": 0.5}})
    rows = by_equal(select_runs(str(runs), {"model": ["vit", "b"]}))
    assert rows["test_accuracy"]["mean"] == "" and not math.isnan(float(rows["train_images"]["mean"]))
