from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tests import fake_runs
from tests.conftest import Output
from tests.numbers.test_look import contrast
from vitbench import plot
from vitbench.comparing import figure
from vitbench.comparing.confusion_figure import draw_matrix
from vitbench.comparing.evidence import evidence_text
from vitbench.comparing.frame import framed_figure
from vitbench.comparing.select import select_runs
from vitbench.comparing.wording import Wording, wording_of
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.intervals import mean_interval
from vitbench.runs import plan

Cli = Callable[..., Output]
STUDY = """
runs: [model=vit]
figures:
  one: {y: test_accuracy, lines: [model, pe], title: Seen here, labels: {resnet: CNN}}
  two: {y: test_error, x: data.fraction, log: x}
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return fake_runs.quickstart(tmp_path / "runs", seeds=3)


@pytest.fixture
def study(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ids = [folder.name for folder in runs.iterdir()]
    monkeypatch.setattr(plan, "planned_ids_and_certificates", lambda *_: (ids, {}))
    (tmp_path / "mine.yaml").write_text(STUDY)
    return tmp_path


def drawn(runs: Path, style: str = "paper", **layout: Any) -> Figure:
    with look.figure_style(style):
        return plot.build_figure(select_runs(str(runs), {}), **layout)


def names_at_ends(of: Figure) -> list[str]:
    (axes,) = of.axes
    return [text.get_text().replace("\n", " ") for text in axes.texts if text.get_text() != "chance"]


# ---------------------------------------------------------------------------------------------------- lines and names


def test_few_lines_have_their_names_at_their_ends_and_no_legend(runs: Path) -> None:
    of = drawn(runs)
    assert names_at_ends(of) == ["ViT, no encoding", "ViT, learned encoding", "ResNet"]
    assert not of.legends and not of.subfigs[0].legends
    colours = [text.get_color() for text in of.axes[0].texts if text.get_text() != "chance"]
    assert colours == [look.text_colour(i) for i in range(3)]


def test_lines_that_end_at_one_place_have_a_legend(tmp_path: Path) -> None:
    for model in ("vit", "resnet", "mixer"):
        for fraction in (0.1, 1.0):
            fake_runs.write(tmp_path, f"{model}{fraction}", 0.5, **{"model.name": model, "data.fraction": fraction})
    of = drawn(tmp_path)
    assert not names_at_ends(of)
    (legend,) = of.subfigs[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["ViT, learned encoding", "ResNet", "MLP-Mixer"]


def test_no_line_is_dashed(runs: Path) -> None:
    lines = [line for line in drawn(runs).axes[0].get_lines() if line.get_marker() not in ("None", None, "")]
    assert len(lines) == 3 and {line.get_linestyle() for line in lines} == {"-"}


def test_a_share_of_the_images_is_drawn_as_their_number(runs: Path) -> None:
    of = drawn(runs, x="data.fraction")
    assert of.axes[0].get_xlabel() == "training images"
    places = {x for line in of.axes[0].get_lines()[:3] for x in line.get_xdata()}
    assert places == {500, 2000, 10_000}


def test_a_share_in_a_name_becomes_a_number_of_images(runs: Path) -> None:
    of = drawn(runs, x="steps", lines=["model", "pe", "data.fraction"], log="none", where={"model": "resnet"})
    assert sorted(names_at_ends(of)) == ["ResNet, 10,000 images", "ResNet, 2,000 images", "ResNet, 500 images"]


def test_ticks_that_would_touch_have_no_numbers() -> None:
    axes = Figure(figsize=(3, 3)).subplots()
    sizes = [1000, 1200, 1500, 45_000]
    figure.scale_axis(axes, "x", "train_images", sizes, "x")
    assert [axes.xaxis.get_major_formatter()(size) for size in sizes] == ["1,000", "", "", "45,000"]


def test_chance_is_drawn_near_the_data_and_said_everywhere(runs: Path, tmp_path: Path) -> None:
    near = drawn(runs)
    fake_runs.write(tmp_path / "far", "a", 0.9, result_classes=list("abcdefghij"))
    fake_runs.write(tmp_path / "far", "b", 0.8, seed=1, result_classes=list("abcdefghij"))
    far = drawn(tmp_path / "far")
    for of, is_drawn in ((near, True), (far, False)):
        assert ("chance" in [text.get_text() for text in of.axes[0].texts]) == is_drawn
        assert "Guessing would give 10 %." in of.subfigs[1].texts[0].get_text().replace("\n", " ")


def test_a_title_says_what_is_seen(runs: Path) -> None:
    for layout, title in (
        ({}, "Test accuracy by training images"),
        ({"y": ["test_accuracy", "test_error"]}, "By training images"),
        ({"title": "Mine"}, "Mine"),
    ):
        assert drawn(runs, **layout).subfigs[0]._suptitle.get_text() == title


# ------------------------------------------------------------------------------------------- a user's words and sizes


def test_labels_rename_lines_in_order_or_by_their_names(runs: Path) -> None:
    for labels in (["A", "B", "C"], {"vit pe=none": "A", "ViT, learned encoding": "B", "resnet": "C"}):
        assert names_at_ends(drawn(runs, labels=labels)) == ["A", "B", "C"]
    assert names_at_ends(drawn(runs, labels="{resnet: CNN}"))[-1] == "CNN"


def test_axes_and_size_are_as_typed(runs: Path) -> None:
    of = drawn(runs, xlabel="images that were seen", ylabel="right, %", inches=[6, 3])
    (axes,) = of.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("images that were seen", "right, %")
    assert of.get_size_inches().tolist() == [6, 3]


def test_a_long_label_has_several_lines_and_that_of_y_stands_above_the_axes(runs: Path) -> None:
    words = "share of the shifted copies of an image that keep the class they had before"
    (axes,) = drawn(runs, ylabel=words, xlabel=words * 2).axes
    assert axes.get_xlabel().count("\n") >= 1
    assert axes.get_ylabel() == "" and axes.get_title(loc="left").replace("\n", " ") == words  # above the axes


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (
            {"labels": ["A"]},
            r"labels=\[A\]: the figure has 3 names, in this order: ViT, no encoding; ViT, learned encoding; ResNet",
        ),
        ({"labels": {"resne": "A"}}, r"labels=\{resne: ...\}: the figure has the names ViT, no encoding; "),
        ({"labels": "{resnet: "}, r"labels=\{resnet: : must be \[NEW,NEW\] in the order of the legend"),
        ({"inches": [6]}, r"inches=\[6\]: must be \[WIDTH,HEIGHT\], each from 1 to 40"),
        ({"inches": [6, 0.2]}, r"inches=\[6,0.2\]: must be"),
        ({"inches": "6x3"}, r"inches=6x3: must be"),
    ],
)
def test_a_slip_says_what_would_be_right(runs: Path, layout: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        drawn(runs, is_typed=True, **layout)


def test_a_study_can_name_lines_that_have_no_runs_yet(runs: Path) -> None:
    assert names_at_ends(drawn(runs, labels={"mixer": "A", "resnet": "CNN"}))[-1] == "CNN"


def test_words_of_a_user_are_taken_letter_by_letter(tmp_path: Path, runs: Path, vitbench: Cli) -> None:
    assert vitbench("plot", "title=Three, in words: a=b", "labels={resnet: CNN, vit pe=none: V}").code == 0
    assert vitbench("plot", "style=neon").err == "vitbench: style=neon: choices: dark, paper, slides\n"


# ------------------------------------------------------------------------------------------------------------- styles


def test_slides_are_16_by_9_and_dark_has_a_dark_ground(runs: Path) -> None:
    width, height = drawn(runs, "slides").get_size_inches()
    assert width / height == pytest.approx(16 / 9)
    dark = drawn(runs, "dark")
    assert sum(dark.get_facecolor()[:3]) < 0.5 < sum(dark.axes[0].get_facecolor()[:3]) + 0.5
    markers = {line.get_markerfacecolor() for line in dark.axes[0].get_lines()[:3]}
    assert markers == {look.STYLES["dark"].ground}


@pytest.mark.parametrize("style", look.STYLES)
@pytest.mark.parametrize("layout", [{}, {"y": "test_error", "fit": True}, {"x": "pe"}, {"whole": "resnet"}])
def test_every_kind_of_figure_has_every_style(runs: Path, style: str, layout: dict[str, Any]) -> None:
    selected = select_runs(str(runs), {})
    blob = plot.draw_figure(selected, ending=".png", style=style, **layout)
    assert blob == plot.draw_figure(selected, ending=".png", style=style, **layout)
    width, height = struct.unpack(">II", blob[16:24])
    assert (width / height == pytest.approx(16 / 9, abs=0.01)) == (style == "slides")


def test_what_is_written_below_takes_no_room_from_the_axes() -> None:
    heights = []
    for lines in (1, 10):
        of, above = framed_figure(Wording(), "A", 5, 3, lambda inches, lines=lines: "\n".join(["a"] * lines))  # type: ignore[misc]
        heights.append((of.get_size_inches()[1], above.bbox.height / of.dpi))
    (few, axes_of_few), (many, axes_of_many) = heights
    assert many > few and axes_of_few == pytest.approx(axes_of_many) == pytest.approx(3)


# ------------------------------------------------------------------------------------------------- figures of a study


def test_a_study_with_several_figures_has_all_drawn_into_a_folder(study: Path, vitbench: Cli) -> None:
    assert vitbench("plot", "study=mine.yaml").out == "figures/one.svg\nfigures/two.svg\n"
    assert vitbench("plot", "study=mine.yaml", "file=out/").out == "out/one.svg\nout/two.svg\n"
    assert vitbench("plot", "study=mine.yaml", "name=two", "file=two.png").out == "two.png\n"
    done = vitbench("plot", "study=mine.yaml", "file=a.svg")
    assert done.code == 2 and "the study has 2 figures; choose one with name= (one, two), or type a folder" in done.err


def test_a_result_chooses_the_figure_of_a_study_that_has_it_or_else_the_usual_one(
    study: Path, vitbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = []
    monkeypatch.setattr(plot, "draw_figure", lambda runs, **layout: layouts.append(layout) or b"<svg/>")
    for y in ("test_error", "test_accuracy", "train_seconds"):
        assert vitbench("plot", "study=mine.yaml", f"y={y}", "file=a.svg", "replace=true").code == 0
    of_error, of_accuracy, of_seconds = layouts
    assert of_error["x"] == "data.fraction" and of_accuracy["title"] == "Seen here"
    assert "title" not in of_seconds and of_seconds["y"] == "train_seconds"


def test_labels_of_one_seed_have_no_points_besides_their_markers() -> None:
    one, three = mean_interval([0.5]), mean_interval([0.4, 0.5, 0.6])
    for mean, count in ((one, 0), (three, 1)):
        axes = Figure().subplots()
        figure.draw_runs(axes, figure.PlottedLine("a", [(1.0, 0.5)], [(1.0, mean)]), 0, 1, zorder=3)
        assert len(axes.collections) == count


def test_lines_without_a_user_s_words_keep_their_names() -> None:
    assert wording_of({}).named({"a": "A"}) == {"a": "A"}


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["y=train_seconds"], {"labels"}),
        (["y=test_accuracy"], {"title", "xlabel", "ylabel", "labels"}),
        (["x=samples_seen"], {"ylabel", "labels"}),
        (["y=[test_accuracy,test_error]"], {"labels"}),
        (["y=train_seconds", "title=Typed"], {"title", "labels"}),
    ],
)
def test_the_words_of_a_study_go_where_another_result_or_x_is_typed(
    study: Path, vitbench: Cli, monkeypatch: pytest.MonkeyPatch, typed: list[str], kept: set[str]
) -> None:
    words = "title: A, xlabel: B, ylabel: C, labels: {resnet: CNN}"
    (study / "mine.yaml").write_text(f"runs: [model=vit]\nfigures:\n  one: {{y: test_accuracy, {words}}}\n")
    layouts = []
    monkeypatch.setattr(plot, "draw_figure", lambda runs, **layout: layouts.append(layout) or b"<svg/>")
    assert vitbench("plot", "study=mine.yaml", *typed).code == 0
    assert {"title", "xlabel", "ylabel", "labels"} & layouts[0].keys() == kept


def test_a_file_is_named_after_the_result_that_was_typed(study: Path, vitbench: Cli) -> None:
    assert vitbench("plot", "study=mine.yaml", "y=test_error").out == "figures/test_error.svg\n"
    assert vitbench("plot", "y=[test_error,train_seconds]").out == "figures/test_error-train_seconds.svg\n"


def test_no_figure_of_a_study_is_written_where_one_cannot_be_drawn(study: Path, vitbench: Cli) -> None:
    (study / "mine.yaml").write_text(STUDY.replace("y: test_error", "y: nothing"))
    done = vitbench("plot", "study=mine.yaml")
    assert (done.code, done.out) == (2, "") and not (study / "figures").exists()


def test_typed_labels_extend_those_of_a_study_and_know_its_names(runs: Path) -> None:
    of_study = {"resnet": "CNN", "vit pe=none": "Bag"}
    typed = {"is_typed": True, "study_labels": of_study}
    assert names_at_ends(drawn(runs, labels={"CNN": "ConvNet"}, **typed)) == ["Bag", "ViT, learned encoding", "ConvNet"]
    assert names_at_ends(drawn(runs, labels={"resnet": "R"}, **typed))[-1] == "R"
    with pytest.raises(UserError, match=r"labels=\{CN: ...\}: the figure has the names Bag; "):
        drawn(runs, labels={"CN": "A"}, **typed)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["A", None, "B"], "labels: null is no text"),
        (["A", [1, 2], "B"], r"labels: \[1,2\] is no text"),
        ("{resnet: null}", "labels: null is no text"),
        (["A", "B", "A"], "labels: A would be the name of several lines"),
        ({"resnet": "ViT, no encoding"}, "labels: ViT, no encoding would be the name of several lines"),
    ],
)
def test_a_label_is_text_and_of_one_line(runs: Path, labels: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        drawn(runs, labels=labels)


def test_runs_of_another_study_have_none_of_the_words_of_this_one(study: Path, vitbench: Cli) -> None:
    (study / "mine.yaml").write_text(f"{STUDY}notes: Too short.\n")
    folder = study / "other"
    folder.mkdir()
    (folder / "study.yaml").write_text("")
    (folder / "runs.csv").write_text(evidence_text(select_runs("runs", {}), {}))
    assert vitbench("plot", "study=mine.yaml", "name=one", f"runs={folder}/runs.csv", "file=a.svg").code == 0
    svg = (study / "a.svg").read_text(encoding="utf-8")
    assert "Seen here" not in svg and "Too short" not in svg and str(study) not in svg and "study=other" in svg


# ---------------------------------------------------------------------------------------------------- several results


def test_several_results_have_no_label_of_y_and_each_level_of_chance_has_its_name(runs: Path) -> None:
    ys = ["test_accuracy", "test_error"]
    with pytest.raises(UserError, match="ylabel=A: each panel of several results has a label of its own"):
        drawn(runs, y=ys, ylabel="A")
    foot = drawn(runs, y=ys, xlabel="B").subfigs[1].texts[0].get_text().replace("\n", " ")
    assert "give 10 % (test accuracy). " in foot and "give 90 % (test error). " in foot


def test_a_title_names_no_x_that_only_one_panel_has(runs: Path) -> None:
    selected = select_runs(str(runs), {})
    for run_id in selected.swept:
        rows = [
            {"column": "shift.length.consistency", "at": at, "at_unit": "px", "value": 0.9 - at / 10}
            for at in (1.0, 2.0)
        ]
        selected.swept[run_id].extend(rows)
    with look.figure_style():
        of = plot.build_figure(selected, y=["shift.length.consistency", "test_accuracy"])
    assert of.subfigs[0]._suptitle.get_text() == "" and len({axes.get_xlabel() for axes in of.axes}) == 2


@pytest.mark.parametrize("layout", [{}, {"y": "test_error", "fit": True}, {"x": "pe"}, {"whole": "resnet"}])
def test_an_empty_label_leaves_an_axis_without_one(runs: Path, layout: dict[str, Any]) -> None:
    axes = drawn(runs, xlabel="", ylabel="", **layout).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("", "")


@pytest.mark.parametrize("style", look.STYLES)
def test_digits_in_a_confusion_matrix_can_be_read_on_their_cells(style: str) -> None:
    percent = np.linspace(1, 100, 36).reshape(6, 6)
    with look.figure_style(style):
        of = Figure()
        axes = of.subplots()
        draw_matrix(of, axes, percent)
    (image,) = axes.images
    assert len(axes.texts) == 36
    for text in axes.texts:
        column, row = text.get_position()
        cell = to_hex(image.to_rgba(percent[int(row) : int(row) + 1, int(column)])[0])
        assert contrast(to_hex(text.get_color()), cell) > 3.5


@pytest.mark.parametrize(
    ("layout", "inches"),
    [({}, [1, 1]), ({}, [3, 2]), ({"y": ["test_accuracy", "test_error"]}, [3, 4]), ({"whole": "resnet"}, [6, 2])],
)
def test_a_size_without_room_for_axes_and_words_is_refused_in_one_line(
    runs: Path, layout: dict[str, Any], inches: list[int]
) -> None:
    selected = select_runs(str(runs), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=r"inches=\[\d,\d\]: too small for what the figure says; "):
            plot.draw_figure(selected, inches=inches, **layout)
        assert plot.draw_figure(selected, inches=[7, 5], **layout)
