"""Tables, figures and reports read what probes wrote, and need no torch for it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench import plot
from vitbench.comparing.evidence import read_swept, swept_text
from vitbench.comparing.select import Runs, select_runs
from vitbench.errors import DataError, UserError
from vitbench.runs import probe_rows as files
from vitbench.runs.plan import Planned, remember
from vitbench.runs.study import load_study

Cli = Callable[..., Output]
CALL = {"images": 1000, "seed": 0, "options": {"draws": 4, "angles": [1, 2]}}


def measured(runs: Path) -> Path:
    """The quickstart's 18 runs, each with the rows of a probe, and one run with those of its untrained network too."""
    fake_runs.quickstart(runs)
    for i, folder in enumerate(sorted(path for path in runs.iterdir() if path.is_dir())):
        along = [
            {
                "protocol": "stub.along@v1",
                "metric": "size",
                "value": 0.5 + at / 100 + i / 1000,
                "at": at,
                "at_unit": "px",
            }
            for at in (1, 2)
        ]
        both = [{"protocol": "stub@v1", "metric": "size", "value": 0.1, "layer": layer} for layer in ("stem", "head")]
        layers = [
            {
                "protocol": "stub.layers@v1",
                "metric": "error",
                "value": at + i / 1000,
                "layer": layer,
                "at": at,
                "at_unit": "px",
            }
            for layer in ("stem", "block1", "head")
            for at in (1, 2)
        ]
        hole = {"protocol": "stub@v1", "metric": "hole", "value": math.nan, "reason": "none"}
        rows = [
            {"protocol": "stub@v1", "metric": "size", "value": 0.25 + i / 1000, "low": 0.2, "high": 0.3},
            hole,
            *along,
            *layers,
            *both,
        ]
        for checkpoint in files.CHECKPOINTS:
            path = files.path_of(folder, "stub", checkpoint)
            path.parent.mkdir(exist_ok=True)
            files.save_rows(path, rows, hardware="Xeon, 1 threads", **CALL)
    return runs


def test_a_file_is_done_for_the_call_that_made_it_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    files.save_rows(path, [{"protocol": "stub@v2", "metric": "size", "value": 1 / 3, "at": 0.1}], hardware="", **CALL)
    (row,) = files.read_rows(path)
    assert (row["value"], row["at"], row["images"]) == (1 / 3, 0.1, 1000)
    assert files.is_done(path, version=2, **CALL) and not files.is_done(path, version=3, **CALL)
    assert not any(
        files.is_done(path, version=2, **CALL | other) for other in ({"images": 999}, {"seed": 1}, {"options": {}})
    )
    path.write_bytes(path.read_bytes()[:-60])
    assert not files.is_done(path, version=2, **CALL)


def test_scalars_are_columns_of_a_run_and_undefined_ones_are_not(tmp_path: Path) -> None:
    runs = select_runs(str(measured(tmp_path / "runs")), {})
    assert {"stub.size", "init.stub.size"} <= {*runs.numbers()} and "stub.hole" not in {*runs.numbers()}
    (tmp_path / "runs" / "none-1.0-0" / "probes" / "stub.csv").write_text("protocol\nx\n")
    again = select_runs(str(tmp_path / "runs"), {})
    assert any("is no file of a probe" in note for note in again.notes) and len(again.rows) == 18


def test_steps_of_training_are_a_curve_of_one_kind_of_call(tmp_path: Path) -> None:
    for checkpoint, images in {"2": 10, "4": 10, "6": 10, "trained": 10, "init": 20}.items():
        path = files.path_of(tmp_path, "stub", checkpoint)
        path.parent.mkdir(exist_ok=True)
        row = {"protocol": "stub@v1", "metric": "size", "value": float(len(checkpoint))}
        files.save_rows(path, [row], hardware="", **CALL | {"images": images})
    scalars, swept, _ = files.read_probes(tmp_path, {"trained": 6, "init": 0})
    assert {*scalars} == {"stub.size", "init.stub.size"}
    # each step is there once, and none that was measured on other images
    assert [row["at"] for row in swept] == [2, 4, 6]


def test_several_results_stand_side_by_side(vitbench: Cli, tmp_path: Path) -> None:
    runs = measured(tmp_path / "runs")
    (tmp_path / "mine.yaml").write_text(
        f"{STUDY.partition('tables:')[0]}tables: {{t: {{columns: data.fraction}}}}\nfigures: {{f: {{x: train_images}}}}"
    )
    remember(load_study("mine.yaml"), [Planned([], {}, path.name) for path in runs.iterdir()], runs)
    output = vitbench("table", "value=[test_accuracy,stub.size,init.stub.size]", "where.data.fraction=1", "format=md")
    assert output.code == 0, output.err
    assert "| model | pe | test accuracy, % | stub.size | init.stub.size | n |" in output.out.replace("\\", "")
    groups = json.loads(vitbench("table", "value=[test_accuracy,stub.size]", "format=json").out)["tables"][0]["groups"]
    assert groups[0]["stub.size_n"] == 2 and groups[0]["test_accuracy_mean"] > 0 and groups[0]["stub.size_mean"] > 0.2
    text = vitbench("table", "value=[test_accuracy,stub.size]", "format=csv").out.splitlines()
    assert len(text) == 1 + 2 * 9
    of_study = vitbench("table", "study=mine.yaml", "value=[test_accuracy,stub.size]", "format=md")  # with columns
    assert "| test accuracy, % | stub.size | n |" in of_study.out, of_study.err
    assert vitbench("plot", "study=mine.yaml", "y=stub.along.size", "file=a.svg").code == 0  # its figure has another x
    wrong = vitbench("table", "value=[test_accuracy,stub.size]", "columns=data.fraction")
    assert wrong.code == 2 and "several results, or one along a setting" in wrong.err


def test_figures_draw_what_was_measured_along_something(vitbench: Cli, tmp_path: Path) -> None:
    measured(tmp_path / "runs")
    for words in (
        ["y=stub.along.size"],
        ["y=stub.layers.error", "at=1"],
        ["y=init.stub.layers.error", "layer=head"],
        ["y=stub.size", "x=layer"],
    ):
        output = vitbench("plot", *words, "where.data.fraction=1", "file=a.svg")
        assert output.code == 0, output.err
        svg = (tmp_path / "a.svg").read_text()
        assert ("depth of the layer" in svg) == bool({"at=1", "x=layer"} & {*words}) and "2 seeds" in svg
    output = vitbench("plot", "y=[test_accuracy,stub.size,stub.along.size]", "file=a.svg")
    svg = (tmp_path / "a.svg").read_text()
    assert output.code == 0 and all(f"<!-- {y} -->" in svg for y in ("test accuracy, %", "stub.size"))
    assert svg.count("<!-- ViT, no encoding -->") == 1  # there is one legend
    output = vitbench("plot", "y=[test_accuracy,stub.along.size]", "where.pe=none", "file=a.svg")
    assert output.code == 0, output.err  # one panel has a line for each share, which the other has as its x
    runs = select_runs("runs", {})
    mistakes: list[tuple[dict[str, object], str]] = [
        ({"y": ["stub.size", "test_accuracy"], "fit": True}, "y=[stub.size,test_accuracy]: fit=true draws one result"),
        ({"y": []}, "y=[]: 1 to 4 results"),
        ({"y": ["stub.size", "test_acuracy"]}, "did you mean test_accuracy"),
        ({"y": "stub.layers.error"}, "choose layer=NAME (block1, head, stem, ...) or at=NUMBER (1, 2)"),
        ({"y": "stub.layers.error", "layer": "haed"}, "layer=haed: stub.layers.error has block1, head, stem"),
        (
            {"y": "stub.size", "x": "layer", "layer": "head"},
            "y=stub.size layer=head: is of one layer, head, and lies along nothing; leave layer= out",
        ),
        ({"y": "stub.layers.error", "x": "layer", "layer": "head"}, "is of one layer, head"),
        ({"y": "stub.along.size", "x": "seed"}, "is its x"),
        ({"y": "stub.size", "at": 1.0}, "y=stub.size was not"),
        ({"y": "stub.along.siez"}, "did you mean stub.along.size"),
    ]
    for asked, expected in mistakes:
        with pytest.raises(UserError) as error:
            plot.draw_figure(runs, **asked)  # type: ignore[arg-type]
        assert expected in str(error.value)


STUDY = """\
runs: ['model=vit pe=none,learned data.fraction=0.05,0.2,1 seed=0,1']
tables:
  steady: {rows: [model, pe], where: {data.fraction: 1}, value: [test_accuracy, stub.size]}
figures:
  along: {y: stub.along.size, where: {data.fraction: 1}}
"""


def test_a_report_keeps_what_its_figures_draw_and_makes_it_again(vitbench: Cli, tmp_path: Path) -> None:
    runs = measured(tmp_path / "runs")
    (tmp_path / "mine.yaml").write_text(STUDY)
    ids = [path.name for path in runs.iterdir() if path.is_dir()]
    remember(load_study(str(tmp_path / "mine.yaml")), [Planned([], {}, id_) for id_ in ids], runs)
    assert vitbench("report", "study=mine.yaml").code == 0
    made = tmp_path / "results" / "mine"
    svg, text = (made / "along.svg").read_bytes(), (made / "probes.csv").read_text()
    assert "stub.along.size" in text and "stub.layers" not in text and len(text.splitlines()) == 1 + 2 * 18
    subprocess.run(["rm", "-r", runs], check=True)
    (made / "along.svg").unlink()
    assert vitbench("report").code == 0 and (made / "along.svg").read_bytes() == svg
    assert vitbench("report", "check=true").code == 0
    (tmp_path / "mine.yaml").write_text(STUDY.replace("steady:", "probes:"))
    assert "tables.probes: every report writes a file of this name" in vitbench("report", "study=mine.yaml").err
    (made / "probes.csv").write_text(text.replace("0.5", "x"))
    assert "is not as `vitbench report` wrote it" in vitbench("report").err
    (made / "sha256sums.txt").unlink()
    with pytest.raises(DataError, match="line 2: is no row of a probe"):
        read_swept(made / "probes.csv")


def test_a_place_without_a_number_is_kept_with_its_reason(tmp_path: Path) -> None:
    swept = {"a": [{"column": "stub.layers.error", "layer": "stem", "value": math.nan, "reason": "it has stride 1"}]}
    swept["a"].append({"column": "stub.layers.error", "layer": "head", "value": 0.5})
    text = swept_text(Runs([], [], [], swept), ["stub.layers.error"])
    (tmp_path / "probes.csv").write_text(text)
    stem, head = read_swept(tmp_path / "probes.csv")["a"]
    assert math.isnan(stem["value"]) and stem["reason"] == "it has stride 1" and head["value"] == 0.5
    assert swept_text(Runs([], [], [], {"a": [stem, head]}), ["stub.layers.error"]) == text
    (tmp_path / "probes.csv").write_text(text.replace("it has stride 1", ""))
    with pytest.raises(DataError, match="line 2: is no row of a probe"):
        read_swept(tmp_path / "probes.csv")


def test_tables_of_probes_need_no_torch(tmp_path: Path) -> None:
    measured(tmp_path / "runs")
    code = (
        "import sys; from vitbench import cli\n"
        "code = cli.run(['table', 'value=stub.size']) or cli.run(['ls', 'probes'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True).returncode == 0
