from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import fake_runs
from tests.comparing.printed import NASTY, command
from tests.conftest import Output
from vitbench.comparing import formats
from vitbench.comparing.select import select_runs
from vitbench.fitting import fit_file
from vitbench.fitting.findings import Report
from vitbench.fitting.lines import lines_of, pairs
from vitbench.fitting.render import render_report, report_lines, report_tables

Cli = Callable[..., Output]
SHARES = (0.01, 0.05, 0.2, 0.5, 1.0)
IMAGES = 45_000
LAWS: dict[str | None, Callable[[float], float]] = {
    "none": lambda n: 2.6 * n**-0.2,  # this is parallel to the ResNet
    "learned": lambda n: 6.5 * n**-0.31,  # this crosses `none` within the sizes, and the ResNet beyond them
    None: lambda n: 1.75 * n**-0.2,
}


def write(runs: Path, name: str, error: float, pe: str | None, share: float, seed: int, **changed: Any) -> None:
    model = {"model.name": "vit", "model.pe.name": pe} if pe else {"model.name": "resnet"}
    shape = {"data.fraction": share, "data.train_images": IMAGES, "seed": seed}
    fake_runs.write(runs, name, 1 - error, **model, **shape, **changed)


def study(runs: Path, seeds: int = 3, **changed: Any) -> Path:
    """Makes runs around known laws; encoding, share and seed decide the noise of each."""
    for pe, law in LAWS.items():
        for share in SHARES:
            for seed in range(seeds):
                noise = np.random.default_rng([len(str(pe)), int(100 * share), seed]).normal(0, 0.01)
                write(runs, f"{pe}-{share}-{seed}", law(share * IMAGES) * math.exp(noise), pe, share, seed, **changed)
    return runs


def reported(text: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(text)
    return report


# -------------------------------------------------------------------------------------------------- what is reported


def test_exponents_are_found_and_every_vit_meets_the_cnn_and_every_encoding_none(tmp_path: Path, vitbench: Cli) -> None:
    study(tmp_path / "runs")
    report = reported(vitbench("fit", "format=json").out)
    exponents = {one["label"]: one["exponent"] for one in report["curves"]}
    for label, true in {"vit pe=none": -0.2, "vit pe=learned": -0.31, "resnet": -0.2}.items():
        assert exponents[label]["ci95_low"] <= true <= exponents[label]["ci95_high"]
    assert [(pair["model"], pair["against"], pair["crossover"]["verdict"]) for pair in report["pairs"]] == [
        ("vit pe=none", "resnet", "none"),
        ("vit pe=learned", "resnet", "extrapolated"),
        ("vit pe=learned", "vit pe=none", "observed"),
    ]


def test_a_verdict_is_one_sentence_and_so_is_the_ratio(tmp_path: Path, vitbench: Cli) -> None:
    out = vitbench("fit", f"runs={study(tmp_path / 'runs')}").out
    lines = out.splitlines()
    at = lines.index("vit pe=none against resnet (FLOP-matched 0.94x; parameters 4.1x; time-matched 1.00x):")
    assert lines[at + 1] == (
        "  The difference of error changes with the images: +25.1 points at 450, +10.0 points at 45,000; the curves"
        " approach in points."
    )
    assert lines[at + 2] == (
        "  No crossover up to 45,000 images: the error of vit pe=none is 1.49 times that of resnet at the smallest size"
        " and 1.49 times at the largest. Whether this ratio shrinks cannot be told."
    )
    assert lines[at + 3].startswith("  vit pe=none needs 7.") and "x [" in lines[at + 3]
    assert lines[at + 3].endswith("] the images of resnet to match its error at 2,250.")
    assert any(line.startswith("  Crossover extrapolated x3.") for line in lines)
    assert any(
        line.startswith("  Crossover observed: vit pe=learned overtakes vit pe=none at about 4,") for line in lines
    )
    assert (
        lines[-2] == "Intervals of image ratios and of extrapolated crossovers are approximate: bootstrap over 3 seeds."
    )


def test_differences_are_paired_by_seed_and_subset(tmp_path: Path, vitbench: Cli) -> None:
    for seed, shift in enumerate([0.0, 0.05, -0.03]):  # both models share these shifts
        for share, error in {0.1: 0.6, 0.3: 0.5, 1.0: 0.4}.items():
            write(tmp_path / "runs", f"v{seed}{share}", error + 0.1 + shift + seed / 1000, "none", share, seed)
            write(tmp_path / "runs", f"r{seed}{share}", error + shift, None, share, seed)
    (pair,) = reported(vitbench("fit", "format=json").out)["pairs"]
    assert [one["images"] for one in pair["differences"]] == [4500, 13500, 45000]
    for one in pair["differences"]:
        assert one["value"] == pytest.approx(0.101) and one["n"] == 3
        assert one["ci95_high"] - one["value"] == pytest.approx(4.30265 * 0.001 / 3**0.5, rel=1e-4)
        assert one["smallest"] == pytest.approx((4.30265 + 1.06066) * 0.001 / 3**0.5, rel=1e-4)
    pooled = pair["pooled"]
    assert pooled["value"] == pytest.approx(0.101) and pooled["p_sign_flip"] == 0.25
    assert pooled["p"] == pooled["p_holm"] == pytest.approx(3.3e-5, rel=0.01)  # t = 0.101 / (0.001 / sqrt(3))


@pytest.mark.parametrize(("seeds", "said"), [(3, "0.25 with 3 seeds"), (5, "0.062 with 5 seeds")])
def test_the_sign_flip_p_stands_beside_the_least_that_it_can_be(
    tmp_path: Path, vitbench: Cli, seeds: int, said: str
) -> None:
    out = vitbench("fit", f"runs={study(tmp_path / 'runs', seeds)}", "where.pe=[none,null]").out
    assert f"sign-flip test, which cannot go below {said}" in out


def test_a_curve_that_bends_is_called_unreliable(tmp_path: Path, vitbench: Cli) -> None:
    for seed in (0, 1):
        for share, error in {0.01: 0.80, 0.05: 0.72, 0.2: 0.65, 1.0: 0.2}.items():
            write(tmp_path / "runs", f"{seed}{share}", error + seed / 500, "none", share, seed)
    assert "! vit: unreliable; without its largest size the fit misses it by" in vitbench("fit").out


def test_only_what_differs_in_model_or_encoding_is_compared(tmp_path: Path, vitbench: Cli) -> None:
    for data in ("a", "b"):
        for pe in ("none", None):
            for share in SHARES:
                for seed in range(2):
                    write(
                        tmp_path / "runs",
                        f"{data}{pe}{share}{seed}",
                        LAWS[pe](share * IMAGES) * (1 + seed / 100),
                        pe,
                        share,
                        seed,
                        **{"data.name": data},
                    )
    found = reported(vitbench("fit", "format=json").out)["pairs"]
    assert [(p["model"], p["against"]) for p in found] == [("a vit pe=none", "a resnet"), ("b vit pe=none", "b resnet")]
    one = reported(vitbench("fit", "format=json", 'against="a vit pe=none"').out)["pairs"]
    assert {p["against"] for p in one} == {"a vit pe=none"} and len(one) == 3


def test_unfinished_seeds_and_sizes_are_left_out_and_named(tmp_path: Path, vitbench: Cli) -> None:
    runs = study(tmp_path / "runs")
    (runs / "none-0.2-1" / "record.json").unlink()
    write(runs, "more", 0.3, None, 0.75, 0)
    done = vitbench("fit", "format=json")
    report = reported(done.out)
    assert "vit pe=none: seed 1 is left out, it lacks 1 of the 5 sizes" in report["notes"]
    assert "resnet: 33,750 images are left out, they have one seed" in report["notes"]
    assert {one["label"]: one["seeds"] for one in report["curves"]} == {
        "vit pe=none": 2,
        "vit pe=learned": 3,
        "resnet": 3,
    }
    assert report["pairs"][0]["seeds"] == 2


def test_the_loss_has_curves_too(tmp_path: Path, vitbench: Cli) -> None:
    for seed in (0, 1, 2):
        for share in SHARES:
            write(
                tmp_path / "runs",
                f"{seed}{share}",
                0.5,
                "none",
                share,
                seed,
                result_test_loss=9 * (share * IMAGES) ** -0.3 * (1 + seed / 100),
            )
    (only,) = reported(vitbench("fit", "value=test_loss", "format=json").out)["curves"]
    assert only["exponent"]["value"] == pytest.approx(-0.3) and only["chance"] == pytest.approx(math.log(10))
    assert "test loss e over n" in vitbench("fit", "value=test_loss").out


# ------------------------------------------------------------------------------------------------------------ formats


@pytest.fixture
def nasty(tmp_path: Path) -> Report:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["model", "images", "seed", "error"])
    for name in NASTY[:3]:
        for n in (100, 400, 1600, 6400):
            writer.writerows([name, n, seed, 2 * n**-0.25 * (1 + seed / 100)] for seed in range(3))
    (tmp_path / "t.csv").write_text(out.getvalue())
    value, lines, _, _ = fit_file.read_table(tmp_path / "t.csv")
    return Report(value, lines, [], notes=["a_b <note>"])


def test_names_stay_text_in_every_format(nasty: Report) -> None:
    assert "<" not in render_report("md", nasty) and r"a\_b%\$\#{}" in render_report("md", nasty)
    assert r"a\_b\%\$\#\{\}" in render_report("tex", nasty) and r"\textless{}script\textgreater{}" in render_report(
        "tex", nasty
    )
    assert "'=cmd" in render_report("csv", nasty)
    assert [one["label"] for one in reported(render_report("json", nasty))["curves"]] == NASTY[:3]


def test_csv_has_a_number_a_row_and_the_same_ones_as_json(tmp_path: Path, vitbench: Cli) -> None:
    study(tmp_path / "runs")
    rows = list(csv.DictReader(io.StringIO(vitbench("fit", "format=csv").out)))
    report = reported(vitbench("fit", "format=json").out)
    exponents = {row["model"]: float(row["value"]) for row in rows if row["statistic"] == "exponent"}
    assert exponents == {one["label"]: one["exponent"]["value"] for one in report["curves"]}
    verdicts = [row["words"] for row in rows if row["statistic"] == "crossover"]
    assert verdicts == [pair["crossover"]["verdict"] for pair in report["pairs"]]
    assert sum(row["statistic"] == "p_holm" for row in rows) == 3
    assert sum(row["statistic"] == "difference" for row in rows) == 3 * 5
    bounds = [row for row in rows if row["statistic"] == "label_efficiency" and row["words"] == ">"]
    assert bounds and all(row["ci95_low"] == row["ci95_high"] == "" for row in bounds)


@pytest.mark.parametrize("width", [120, 80])
def test_a_terminal_gets_every_number_whole(
    tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines, _ = lines_of(select_runs(str(study(tmp_path / "runs")), {}), "test_error")
    report = Report("test_error", lines, pairs(lines))
    formats.print_rich(report_tables(report), "", report_lines(report))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert all(cell in out for table in report_tables(report) for line in table.lines for cell in line)


def test_a_pipe_in_an_ascii_locale_gets_everything_without_torch_scipy_stats_or_folders(tmp_path: Path) -> None:
    study(tmp_path / "runs")
    before = sorted(tmp_path.rglob("*"))
    done = command("fit", cwd=tmp_path, LC_ALL="C", PYTHONIOENCODING="ascii", COLUMNS="20")
    assert b"No crossover up to 45,000 images" in done.stdout and b"\x1b" not in done.stdout and done.stderr == b""
    assert sorted(tmp_path.rglob("*")) == before


def test_curves_import_no_more_of_scipy_than_they_need(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, vitbench.fitting.render, vitbench.fitting.fit; from vitbench.numbers import intervals;"
        " intervals.t_quantile(0.9, 3); sys.exit('torch' in sys.modules or 'scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


# -------------------------------------------------------------------------------------------------------------- slips


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["value=test_eror"], "value=test_eror: did you mean test_error"),
        (["value=test_accuracy"], "value=test_accuracy: a curve is fitted to an error or a loss; choices: test_error"),
        (["format=html"], "format=html: choices: csv, json, md, tex, text"),
        (["against=vit"], "against=vit: choices: resnet, vit pe=learned, vit pe=none"),
        (["where.dta=x"], "where.dta=x: did you mean data"),
        (["where.seed=0"], "vit pe=none: one seed; a curve takes 2 or more"),
        (["where.data.fraction=[0.2,1]"], "vit pe=none: 2 sizes of training images; a curve takes 3 or more"),
        (["study=nothing"], "study=nothing: "),
        (["runs=nowhere.csv"], "nowhere.csv: No such file or directory"),
        (["runs=nowhere"], "runs=nowhere: no finished run there"),
    ],
)
def test_a_slip_gets_one_line(tmp_path: Path, vitbench: Cli, words: list[str], said: str) -> None:
    study(tmp_path / "runs")
    done = vitbench("fit", *words)
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert said in done.err


def test_a_run_with_nothing_but_errors_is_named(tmp_path: Path, vitbench: Cli) -> None:
    write(study(tmp_path / "runs"), "odd", 1.0, None, 0.01, 7)
    done = vitbench("fit")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "run odd: test_error is 1 with 450 images; a curve takes values below 1 and not below 0" in done.err


def test_a_perfect_run_counts_as_half_a_test_image_and_refuses_nothing(tmp_path: Path, vitbench: Cli) -> None:
    runs = study(tmp_path / "runs")
    before = reported(vitbench("fit", "format=json").out)["curves"][-1]
    shutil.rmtree(runs / "None-1.0-0")
    write(runs, "None-1.0-0", 0.0, None, 1.0, 0)
    report = reported(vitbench("fit", "format=json").out)
    resnet = report["curves"][-1]
    assert resnet["label"] == "resnet" and (resnet["images"], resnet["seeds"]) == (before["images"], before["seeds"])
    assert resnet["means"][-1] < before["means"][-1] and resnet["exponent"]["value"] < before["exponent"]["value"]
    (note,) = [note for note in report["notes"] if "which has no logarithm" in note]
    assert note.startswith("resnet: 1 run of 15 has a test_error of 0") and "half of" in note
    (size,) = [each for each in report["sizes"] if each["label"] == "resnet" and each["images"] == IMAGES]
    assert size["counts"]


def test_a_copied_run_is_refused(tmp_path: Path, vitbench: Cli) -> None:
    write(study(tmp_path / "runs"), "z-copy", 0.4, None, 0.01, 0)
    done = vitbench("fit")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "run z-copy repeats run None-0.01-0: same settings, seed and 450 images" in done.err


def test_diverged_runs_are_no_points(tmp_path: Path, vitbench: Cli) -> None:
    runs = study(tmp_path / "runs")
    fake_runs.write(
        runs, "diverged", None, **{"model.name": "resnet", "data.fraction": 1.0, "seed": 9, "data.train_images": IMAGES}
    )
    report = reported(vitbench("fit", "format=json").out)
    assert report["curves"][-1]["seeds"] == 3 and any("1 of 46 runs diverged" in note for note in report["notes"])


# ---------------------------------------------------------------------------------------------- a table of one's own

TABLE = "model,images,seed,error\n" + "".join(
    f"{model},{n},{seed},{round(b * n**-0.25 * (1 + seed / 100), 6)}\n"
    for model, b in (("mine", 2.5), ("theirs", 2.0))
    for n in (100, 400, 1600, 6400)
    for seed in (0, 1, 2)
)


def test_a_table_of_others_is_fitted_under_its_own_names(tmp_path: Path, vitbench: Cli) -> None:
    (tmp_path / "t.csv").write_text("\ufeff" + TABLE)
    out = vitbench("fit", "runs=t.csv").out
    assert "mine against theirs:" in out and "mine needs 2.4x" in out  # 1.25^4
    assert list(tmp_path.iterdir()) == [tmp_path / "t.csv"]


def test_accuracy_is_an_error_and_columns_stand_anywhere(tmp_path: Path, vitbench: Cli) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    rows = [line.split(",") for line in TABLE.splitlines()[1:]]
    text = "seed,lab,test_accuracy,train_images,model\n"
    text += "".join(f"{seed},x,{1 - float(error)},{n},{model}\n" for model, n, seed, error in rows)
    (tmp_path / "u.csv").write_text(text)
    first, second = (reported(vitbench("fit", f"runs={name}.csv", "format=json").out) for name in "tu")
    for one, other in zip(first["curves"], second["curves"], strict=True):
        assert one["exponent"]["value"] == pytest.approx(other["exponent"]["value"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mine,100,0,", "mine,100,0,0.5\nmine,100,0,", "t.csv line 3 repeats 2: model=mine images=100 seed=0"),
        ("mine,400,1,", "other,400,1,", "no row with model=mine images=400 seed=1; every seed needs every size"),
        ("images", "imgs", "no column images; there are model, imgs, seed, error"),
        ("error", "fault", "no column error, accuracy or loss; there are model, images, seed, fault"),
        ("seed,error", "seed,seed,error", "two columns are called seed"),
        (TABLE, "model,images,seed,error\na,1,0,0\na,1,1,0\na,2,0,0\na,2,1,0\na,4,0,0\na,4,1,0\n", "0 everywhere"),
        ("mine,100,0,0.790569", "mine,100,0,1", "line 2: test_error is 1 with 100 images"),
        ("mine,100,0,0.790569", "mine,100,0,79.1", "line 2: error=79.1: shares of 1 are wanted (0.12, not 12)"),
        ("mine,100,0,0.790569", "mine,100,0,nan", "line 2: error=nan is no number"),
        ("mine,100,0,0.790569", "mine,100,0,x\x1b[31m", "line 2: error=x\\x1b[31m is no number"),
        ("mine,100,0,0.790569", "mine,100,0", "line 2: 3 cells under 4 column names"),
        ("mine,100,0,0.790569", "mine,1.5,0,0.7", "line 2: images=1.5: a number of images is whole and above 0"),
        ("mine,100,0,0.790569", ",100,0,0.7", "line 2: model is empty"),
        (TABLE, "", "t.csv is empty"),
        (TABLE, "model,images,seed,error\n", "no row below the column names"),
        (
            TABLE,
            "model,images,seed,error\na,1,0,.5\na,1,1,.5\na,2,0,.4\na,2,1,.4\n",
            "model=a has 2 sizes; a curve takes 3",
        ),
        (TABLE, "model,images,seed,error\na,1,0,.5\na,2,0,.5\na,4,0,.4\n", "model=a has 1 seed; a curve takes 2"),
    ],
)
def test_a_table_that_is_wrong_gets_one_line(tmp_path: Path, vitbench: Cli, old: str, new: str, said: str) -> None:
    assert old in TABLE
    (tmp_path / "t.csv").write_text(TABLE.replace(old, new, 1))
    done = vitbench("fit", "runs=t.csv")
    assert done.code == 3 and done.out == "" and done.err.count("\n") == 1
    assert said in done.err


@pytest.mark.parametrize("blob", [b"\xff\xfe\x00\x01", b"\x00" * 10, b'model,"images\n' + b"x" * 200_000])
def test_a_file_that_is_no_table_gets_one_line(tmp_path: Path, vitbench: Cli, blob: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(blob)
    done = vitbench("fit", "runs=t.csv")
    assert done.code == 3 and done.out == "" and done.err.count("\n") == 1


def test_help_names_the_columns(tmp_path: Path) -> None:
    out = command("fit", "--help", cwd=tmp_path).stdout.decode()
    assert out.startswith("  vitbench fit") and all(
        f"\n  {name} " in out for name in ("model", "images", "seed", "error")
    )


def test_a_table_of_ones_own_has_no_runs_to_choose_among(tmp_path: Path, vitbench: Cli) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    done = vitbench("fit", "runs=t.csv", "study=quickstart")
    assert done.code == 2 and "t.csv: is read whole; study= and where. choose among runs" in done.err
