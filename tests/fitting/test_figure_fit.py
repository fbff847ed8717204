from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import fake_runs
from tests.conftest import Output
from tests.fitting.test_fit import study, write
from vitbench import plot
from vitbench.comparing import figure
from vitbench.comparing.select import select_runs
from vitbench.fitting import figure_fit
from vitbench.fitting.findings import Report
from vitbench.fitting.lines import lines_of, main_pairs
from vitbench.runs import plan

Cli = Callable[..., Output]


def text_of(runs: Path, **asked: Any) -> str:
    """Returns the words of a figure, from an SVG that keeps them as text."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        svg = plot.draw_figure(select_runs(str(runs), {}), y="test_error", fit=True, **asked).decode()
    words = re.findall(r"<text[^>]*>([^<]*)</text>|<!-- (.*?) -->", svg)
    return "\n".join(a or b for a, b in words).replace("&gt;", ">").replace("- -", "--")


def test_every_pair_with_the_cnn_is_written_out_and_a_crossover_has_a_mark(tmp_path: Path) -> None:
    text = text_of(study(tmp_path / "runs"), lines=["model", "pe"])
    said = " ".join(text.split())
    assert (
        "- ViT, no encoding, and ResNet: no crossover up to 45,000 images; ResNet errs less; whether the ratio" in said
    )
    assert re.search(
        r"\N{BLACK STAR} ViT, learned encoding would overtake ResNet at 1\d\d,000 images \[.*\] \(extrapolated x3",
        " ".join(text.split()),
    )
    assert "crossover" in text.splitlines() and "extrapolated" in text.splitlines()
    said = " ".join(text.split())
    assert "exponent -0.31" in text and "bootstrap, approximate below 10 seeds" in said
    assert "ViT, learned encoding, and ViT, no encoding" not in said and "vit pe=" not in said


def test_two_seeds_have_curves_and_neither_bands_nor_intervals(tmp_path: Path, vitbench: Cli) -> None:
    text = text_of(study(tmp_path / "runs", seeds=2), lines=["model", "pe"])
    assert "Two seeds have no band." in text.replace("\n", " ") and "bootstrap" not in text
    out = vitbench("fit").out
    assert " the images of" not in out and "Two seeds are too few for certainty: pairs get no verdict" in out
    report = json.loads(vitbench("fit", "format=json").out)  # a NaN could not be written
    assert report["pairs"] and report["notes"]
    more = study(tmp_path / "more", seeds=2)
    for path in study(tmp_path / "three").glob("learned-*-2"):
        shutil.copytree(path, more / path.name)
    text = text_of(more, lines=["model", "pe"])
    assert "(bootstrap, approximate below 10 seeds). Two seeds have no band." in text.replace("\n", " ")


def test_no_crossover_has_no_mark(tmp_path: Path) -> None:
    runs = study(tmp_path / "runs")
    for folder in runs.glob("learned-*"):
        (folder / "record.json").unlink()
    text = text_of(runs)
    assert "crossover" not in text.splitlines() and "no crossover up to 45,000 images" in text


def test_a_curve_that_cannot_be_fitted_is_drawn_and_named(tmp_path: Path) -> None:
    runs = study(tmp_path / "runs")
    for share in (0.01, 0.2, 1.0):
        write(runs, f"rope-{share}", 0.5 - share / 5, "rope", share, 0)
    text = " ".join(text_of(runs).split())
    assert (
        "Without a fitted curve, with points joined and 95 % t intervals of three seeds or more: ViT, axial RoPE"
        in text
    )
    assert "ViT, axial RoPE: one seed; a curve takes 2 or more" in text


def test_runs_that_allow_no_curve_are_drawn_all_the_same(tmp_path: Path) -> None:
    text = text_of(study(tmp_path / "runs", seeds=1))
    said = "Each marker is one run: there is one seed, so no curve."
    assert said in " ".join(text.split()) and "exponent" not in text


def test_curves_go_as_far_as_the_guard_and_no_further(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    lines, _ = lines_of(select_runs(str(study(tmp_path / "runs")), {}), "test_error")
    axes = Figure().subplots()
    figure_fit._draw_curve(axes, figure.PlottedLine("a", [], []), lines[0], 0, 100, True)
    solid, dashed, *_ = axes.get_lines()
    assert max(solid.get_xdata()) == pytest.approx(45_000) and max(dashed.get_xdata()) == pytest.approx(180_000)
    assert solid.get_ydata()[-1] == pytest.approx(100 * lines[0].curve.predict(45_000))
    assert solid.get_linestyle() == "-" and dashed.get_linestyle() == "--"


def test_the_star_stands_where_the_verdict_says(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    lines, _ = lines_of(select_runs(str(study(tmp_path / "runs")), {}), "test_error")
    _, crossing = Report("test_error", lines, main_pairs(lines)).pairs
    axes = Figure().subplots()
    figure_fit._mark_crossover(axes, crossing, ["vit pe=learned"], 100)
    bar, star = axes.get_lines()
    (x,), (y,) = star.get_data()
    assert x == crossing.crossover.n
    assert y == pytest.approx(100 * lines[-1].curve.predict(x), rel=1e-3)
    assert max(bar.get_xdata()) == 180_000  # draws that do not meet within the guard end there


def test_many_pairs_are_counted_instead_of_written(tmp_path: Path) -> None:
    lines, _ = lines_of(select_runs(str(study(tmp_path / "runs")), {}), "test_error")
    said = figure_fit._pair_notes(Report("test_error", lines, main_pairs(lines) * 9).pairs)
    assert len(said) == 8 and said[-1] == "`vitbench fit` compares 11 other pairs."


def test_a_study_asks_for_it_in_its_file(tmp_path: Path, vitbench: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [folder.name for folder in study(tmp_path / "runs").iterdir()]
    monkeypatch.setattr(plan, "planned_ids_and_certificates", lambda *_: (ids, {}))
    (tmp_path / "mine.yaml").write_text(
        "title: Mine\nruns: [seed=0]\nfigures: {a: {y: test_error, lines: [model, pe], fit: true}}"
    )
    assert vitbench("plot", "study=mine.yaml", "file=a.svg").out == "a.svg\n"
    assert vitbench("plot", "study=mine.yaml", "fit=false", "file=b.svg").out == "b.svg\n"
    fitted, joined = ((tmp_path / name).read_text() for name in ("a.svg", "b.svg"))
    assert fitted.count("  exponent -") == 3 and "exponent" not in joined


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    runs = select_runs(str(fake_runs.quickstart(tmp_path)), {})
    assert plot.draw_figure(runs, y="test_error", fit=True) == plot.draw_figure(runs, y="test_error", fit=True)


def test_points_that_images_do_not_limit_are_hollow_and_nothing_is_extrapolated_over_them(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    for n_share, error in {0.01: 0.7, 0.05: 0.6, 0.2: 0.52, 0.5: 0.5, 1.0: 0.5}.items():
        for seed in range(3):
            for pe, factor in ((None, 0.8), ("none", 1.0)):
                noise = 1 + (seed - 1) / 300
                write(tmp_path / "runs", f"{pe}{n_share}{seed}", factor * error * noise, pe, n_share, seed)
    runs = select_runs(str(tmp_path / "runs"), {})
    lines, _ = lines_of(runs, "test_error")
    assert [size.counts for size in lines[0].sizes] == [True, True, True, False, False]
    axes = Figure().subplots()
    figure_fit._draw_curve(axes, figure.PlottedLine("a", [], []), lines[0], 0, 100, True)
    fit, filled, hollow = axes.get_lines()
    assert max(fit.get_xdata()) == pytest.approx(9000) and list(hollow.get_xdata()) == [22_500, 45_000]
    assert filled.get_markerfacecolor() != "#FFFFFF" == hollow.get_markerfacecolor()
    assert "Hollow markers are limited by the budget or the network's size, not by images." in " ".join(
        text_of(tmp_path / "runs").split()
    )


def test_hollow_points_are_explained_where_no_curve_is_fitted_too(tmp_path: Path) -> None:
    for share in (0.01, 0.05, 0.2, 0.5, 1.0):
        for seed in range(3):
            write(tmp_path / "runs", f"{share}{seed}", 0.5 + seed / 1000, None, share, seed)
    assert "Hollow markers are limited by the budget or the network's size, not by images." in " ".join(
        text_of(tmp_path / "runs").split()
    )
